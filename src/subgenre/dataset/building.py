"""A library to a feature folder: in parallel, each window decoded once, resumable after a kill.

A track is known by its id, the hash of its audio packets, and by its label: what is done under the
same settings is not done again, however the file was retagged or renamed. The parent process writes
one line of the journal a finished track and the tables at the end, in sorted order; so the result
depends neither on the number of workers nor on interruptions.
"""

from __future__ import annotations

import csv
import io
import math
import platform
import shutil
import tempfile
import time
import wave
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from subgenre.about import VERSION
from subgenre.audio.features import FeatureSpec
from subgenre.config import PreprocessConfig
from subgenre.core import files, hardware, parallel
from subgenre.core.files import TEMPORARY
from subgenre.dataset import chunking, folder, journal
from subgenre.dataset.chunking import Job, Outcome
from subgenre.dataset.journal import Journal
from subgenre.errors import FeatureError
from subgenre.library.scan import Library, Skipped, folder_names
from subgenre.library.track import Track

JOURNAL = "preprocess.journal"
RESAMPLER = "soxr HQ"
_NOT_BINDING = ("multi",)  # settings that choose tracks but don't change their chunks
_PROBE_S = 10.0
_PROBE_RATE = 44_100

Key = tuple[str, str]  # id and label folder of a track; label "" is the trash pool
Row = dict[str, Any]
TIMEOUT_S = 300.0  # of one track


@dataclass(frozen=True)
class Estimate:
    """What the work will take.

    Attributes:
        seconds: measured on a synthetic window on this machine. bytes: on disk.
        n_tracks, n_chunks: still to be done.
    """

    seconds: float
    bytes: int
    n_tracks: int
    n_chunks: int


@dataclass
class Known:
    """What earlier runs left: chunk rows and reasons by track, and all chunk files they named."""

    rows: dict[Key, list[Row]] = field(default_factory=dict)
    reasons: dict[Key, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    interrupted: bool = False


@dataclass
class Plan:
    """Tracks by key, what is known of them, and what is left to do."""

    folders: dict[tuple[str, str], str]
    tracks: dict[Key, Track]
    skipped: list[Skipped]
    rows: dict[Key, list[Row]]
    reasons: dict[Key, str]
    jobs: list[Job]


@dataclass(frozen=True)
class Summary:
    """What was done.

    Attributes:
        n_tracks: in the feature folder, trash included: `n_done` now and `n_reused` from before.
        n_chunks: in the feature folder.
        skipped: files without chunks, with the reason, by path.
        seconds: taken.
    """

    n_tracks: int
    n_done: int
    n_reused: int
    n_chunks: int
    skipped: tuple[Skipped, ...]
    seconds: float


def preprocess(
    library: Library,
    out: Path,
    spec: FeatureSpec,
    config: PreprocessConfig,
    *,
    workers: int,
    backbone: str = "",
    timeout_s: float = TIMEOUT_S,
    on_progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
) -> Summary:
    """Make or complete the feature folder `out`.

    A file that can't be used is listed in `skipped.csv` with its reason and stops nothing.
    A track that takes more than `timeout_s` seconds is given up. `on_progress` gets the number of
    tracks done and of all tracks. `backbone` is recorded for the commands that follow.

    Raises:
        FeatureError: `out` holds features of other settings (unless `overwrite`), the disk is too
            full, or not one track can be used.
    """
    began = time.monotonic()
    out = Path(out)
    settings = settings_of(spec, config)
    known = _read_known(out, settings, overwrite=overwrite)
    plan = _make_plan(library, out, spec, config, known)
    _check_space(out, plan.jobs, spec, config)
    n_reused = len(plan.rows)
    _work(plan, out, settings, workers, timeout_s, on_progress)
    rows = _sorted_rows(plan)
    skipped = _all_skipped(plan, library)
    _clear(out, known, {row["file"] for row in rows})
    if not rows:
        write_skipped(out / folder.SKIPPED, skipped, library.root)
        raise FeatureError(f"not one track can be used; {out / folder.SKIPPED} lists the reasons")
    _write_tables(plan, library, out, {"backbone": backbone, **settings}, rows, skipped)
    (out / JOURNAL).unlink(missing_ok=True)
    seconds, n_tracks = time.monotonic() - began, len(plan.rows)
    return Summary(n_tracks, n_tracks - n_reused, n_reused, len(rows), tuple(skipped), seconds)


def write_skipped(path: Path, skipped: Iterable[Skipped], root: Path) -> None:
    """Write `skipped.csv`: path (relative to `root` where inside it) and reason."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "reason"])
    writer.writerows([folder.path_to_text(item.path, root), item.reason] for item in skipped)
    files.write_text(path, text.getvalue().encode("utf-8", "replace").decode("utf-8"))


def _work(
    plan: Plan,
    out: Path,
    settings: Mapping[str, Any],
    workers: int,
    timeout_s: float,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Do the jobs; the journal has each track before it counts as done.

    A worker that died or hung may do better next time, so that reason is not kept in the journal.
    """
    total, finished = len(plan.tracks), len(plan.tracks) - len(plan.jobs)
    if on_progress:
        on_progress(finished, total)
    if not plan.jobs:
        return
    with Journal(out / JOURNAL, settings) as journal:
        for position, outcome in parallel.map_files(
            chunking.make_chunks,
            plan.jobs,
            workers=workers,
            timeout_s=timeout_s,
            initializer=chunking.start_worker,
        ):
            _record(plan, plan.jobs[position], outcome, journal)
            finished += 1
            if on_progress:
                on_progress(finished, total)


def _record(plan: Plan, job: Job, outcome: Outcome | parallel.Failure, journal: Journal) -> None:
    key = (job.track, job.label)
    if isinstance(outcome, parallel.Failure):
        chunking.remove(job)
        plan.skipped.append(Skipped(job.path, outcome.reason))
        return
    if outcome.rows:
        plan.rows[key] = list(outcome.rows)
    else:
        plan.reasons[key] = outcome.reason
    entry = {"track": job.track, "label": job.label}
    journal.append({**entry, "rows": list(outcome.rows), "reason": outcome.reason})


def _sorted_rows(plan: Plan) -> list[Row]:
    """All chunk rows: by label, id and index, the trash last."""
    rows = [row for key in plan.tracks for row in plan.rows.get(key, [])]
    return sorted(rows, key=lambda r: (not r["label"], r["label"], r["track"], r["index"]))


def _all_skipped(plan: Plan, library: Library) -> list[Skipped]:
    failed = [Skipped(plan.tracks[key].path, reason) for key, reason in plan.reasons.items()]
    return sorted([*library.skipped, *plan.skipped, *failed], key=lambda s: (str(s.path), s.reason))


def _write_tables(
    plan: Plan,
    library: Library,
    out: Path,
    settings: Mapping[str, Any],
    rows: list[Row],
    skipped: list[Skipped],
) -> None:
    """Write the four tables; `dataset.json` comes last and makes the folder valid."""
    used = list(dict.fromkeys((row["track"], row["label"]) for row in rows))
    tracks = [plan.tracks[key] for key in used]
    present = {label for _, label in used}
    labels = [(f, g, s) for (g, s), f in plan.folders.items() if f in present]
    n_trash = sum(track.trash for track in tracks)
    failures = sorted((*key, reason) for key, reason in plan.reasons.items())
    dataset = folder.dataset_json(
        root=library.root.absolute(),
        settings=settings,
        labels=labels,
        rows=rows,
        n_tracks=len(tracks) - n_trash,
        n_trash=n_trash,
        n_skipped=len(skipped),
        failures=[{"track": t, "label": label, "reason": why} for t, label, why in failures],
        versions=_versions(),
    )
    folder.write_chunks(out, rows)
    folder.write_tracks(out, tracks, library.root)
    write_skipped(out / folder.SKIPPED, skipped, library.root)
    files.write_json(out / folder.DATASET, dataset)


def _versions() -> dict[str, str]:
    found = {name: metadata.version(name) for name in ("av", "numpy", "soxr", "torch")}
    return {"subgenre": VERSION, "python": platform.python_version(), **found}


def settings_of(spec: FeatureSpec, config: PreprocessConfig) -> dict[str, Any]:
    """Return what must be equal for chunks to be used again."""
    return {"spec": spec.to_dict(), "config": config.to_dict(), "resampler": RESAMPLER}


def _read_known(out: Path, settings: Mapping[str, Any], *, overwrite: bool) -> Known:
    """Read what earlier runs left in `out`; with `overwrite`, remove it instead.

    Raises:
        FeatureError: features of other settings, or a damaged folder.
    """
    if overwrite:
        _discard(out)
        return Known()
    known = Known()
    if (out / folder.DATASET).exists():
        dataset = folder.read_dataset(out)
        _check_settings(out, dataset, settings)
        for entry in dataset.get("failures", []):
            known.reasons[entry["track"], entry["label"]] = entry["reason"]
        for row in folder.read_chunks(out).to_pylist():
            known.rows.setdefault((row["track"], row["label"]), []).append(row)
    header, entries = journal.read(out / JOURNAL)
    if header:
        known.interrupted = True
        _check_settings(out, header, settings)
    for entry in entries:
        key = (entry["track"], entry["label"])
        if entry["rows"]:
            known.rows[key] = entry["rows"]
        else:
            known.reasons[key] = entry["reason"]
    known.files = {row["file"] for rows in known.rows.values() for row in rows}
    folder.check_files(out / JOURNAL, known.files)
    return known


def _check_settings(out: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a folder whose chunks were made in another way; the error names what differs."""
    there, here = _flat(found, wanted), _flat(wanted, wanted)
    differing = [name for name in here if there.get(name) != here[name]]
    if differing:
        told = "; ".join(f"{n} is {there.get(n)!r} there, {here[n]!r} here" for n in differing)
        raise FeatureError(
            f"{out} holds features of other settings ({told}); name another --out, "
            "or make them anew with --overwrite"
        )


def _flat(settings: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in names:
        value = settings.get(name)
        flat |= value if isinstance(value, dict) else {name: value}
    return {name: value for name, value in flat.items() if name not in _NOT_BINDING}


def _discard(out: Path) -> None:
    """Remove what earlier runs wrote in `out`, and nothing else."""
    named: set[str] = set()
    with suppress(FeatureError):
        named.update(folder.read_chunks(out)["file"].to_pylist())
    with suppress(FeatureError):
        entries = journal.read(out / JOURNAL)[1]
        listed = {row["file"] for entry in entries for row in entry["rows"]}
        folder.check_files(out / JOURNAL, listed)
        named |= listed
    (out / folder.DATASET).unlink(missing_ok=True)
    _remove_files(out, named)
    for name in (JOURNAL, folder.CHUNKS, folder.TRACKS, folder.SKIPPED):
        (out / name).unlink(missing_ok=True)


def known_tracks(out: Path, source: Path) -> dict[str, Track]:
    """Return the tracks of an earlier run by their path, for `library.scan(source, known=...)`.

    Paths start from `source`, wherever it lay then; nothing where `out` holds no readable tables.
    """
    root = source if source.is_dir() else source.parent
    with suppress(FeatureError):
        return {str(track.path): track for track in folder.read_tracks(out, root)}
    return {}


def _make_plan(
    library: Library, out: Path, spec: FeatureSpec, config: PreprocessConfig, known: Known
) -> Plan:
    """Decide what is to be done; each recording counts once a label."""
    folders = dict(folder_names((t.genre, t.subgenre) for t in library.tracks))
    plan = Plan(folders, {}, [], {}, {}, [])
    for track in (*library.tracks, *library.trash):
        label = "" if track.trash else folders[track.genre, track.subgenre]
        key = (track.id, label)
        if track.duration_s < config.min_track_s:
            plan.skipped.append(Skipped(track.path, _too_short(track.duration_s, config)))
            continue
        if key in plan.tracks:
            same = folder.path_to_text(plan.tracks[key].path, library.root)
            plan.skipped.append(Skipped(track.path, f"is the same recording as {same}"))
            continue
        plan.tracks[key] = track
        rows = known.rows.get(key, [])
        if rows and all((out / row["file"]).is_file() for row in rows):
            plan.rows[key] = rows
        elif key in known.reasons and not rows:
            plan.reasons[key] = known.reasons[key]
        else:
            plan.jobs.append(Job(track.id, track.path, label, track.duration_s, out, spec, config))
    return plan


def _too_short(duration_s: float, config: PreprocessConfig) -> str:
    shown = math.floor(duration_s * 10) / 10  # 2.96 s must not be told as 3.0 s
    return f"is {shown:.1f} s long; at least {config.min_track_s:g} s are needed"


def _clear(out: Path, known: Known, kept: set[str]) -> None:
    """Remove chunk files of tracks that are gone, and what a kill left half written."""
    _remove_files(out, known.files - kept)
    if known.interrupted:
        half_written = f"{TEMPORARY}????????"
        for half in (*out.glob(f"{half_written}.*"), *out.glob(f"*/{half_written}.pt")):
            half.unlink(missing_ok=True)


def _remove_files(out: Path, named: Iterable[str]) -> None:
    """Remove chunk files, and label folders that are empty without them."""
    paths = [out / name for name in named]
    for path in paths:
        path.unlink(missing_ok=True)
    for parent in {path.parent for path in paths}:
        with suppress(OSError):
            parent.rmdir()


def estimate(
    library: Library,
    spec: FeatureSpec,
    config: PreprocessConfig,
    workers: int,
    *,
    out: Path | None = None,
) -> Estimate:
    """Tell time and disk space before the work starts; what `out` already holds is left out.

    One synthetic window goes the whole way on this machine and is timed; reading from a slow disk
    comes on top.

    Raises:
        FeatureError: `out` holds features of other settings.
    """
    known = _read_known(out, settings_of(spec, config), overwrite=False) if out else Known()
    jobs = _make_plan(library, out or Path(tempfile.gettempdir()), spec, config, known).jobs
    n_chunks = sum(len(job.starts()) for job in jobs)
    window_s, size = _probe(spec, config)
    at_once = max(1, min(workers, parallel.worker_count(), len(jobs)))
    return Estimate(n_chunks * window_s / at_once, n_chunks * size, len(jobs), n_chunks)


def _check_space(out: Path, jobs: list[Job], spec: FeatureSpec, config: PreprocessConfig) -> None:
    """Refuse to start what the disk can't hold.

    Raises:
        FeatureError: less is free than the chunks need.
    """
    frames = folder.window_frames(spec, config)
    needed = sum(len(job.starts()) for job in jobs) * frames * spec.n_mels * 2
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise FeatureError(
            f"the features need {needed / 1e9:.2f} GB and {there} has {free / 1e9:.2f} GB free; "
            "make room, name another --out, or take fewer chunks a track"
        )


def _probe(spec: FeatureSpec, config: PreprocessConfig) -> tuple[float, int]:
    """Seconds and bytes that one window takes, measured on a second of beats and hiss, repeated."""
    probe_s = min(config.chunk_s, _PROBE_S)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "probe.wav"
        _write_probe(path, probe_s + 1.0)
        job = Job("0" * 32, path, "probe", probe_s, Path(temporary), spec, config)
        with hardware.one_thread():  # as in a worker
            chunking.start_worker()
            for _ in range(2):  # the first time pays for imports and tables
                began = time.perf_counter()
                chunking.make_chunks(job)
                seconds = time.perf_counter() - began
        size = (Path(temporary) / job.file(0)).stat().st_size
    n_windows = len(job.starts())
    return seconds / n_windows * (config.chunk_s / probe_s), size


def _write_probe(path: Path, length_s: float) -> None:
    generator = np.random.default_rng(0)
    t = np.arange(round(length_s * _PROBE_RATE)) / _PROBE_RATE
    beats = np.sin(2 * np.pi * 60 * t) * np.exp(-(t % 0.5) * 12)
    stereo = 0.5 * beats[:, None] + generator.normal(0, 0.02, (len(t), 2))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(_PROBE_RATE)
        file.writeframes((stereo * 32_000).astype("<i2").tobytes())
