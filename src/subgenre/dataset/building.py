"""Build a feature folder from a library: in parallel, resumable after a kill.

A track is identified by the hash of its audio packets and by its label, so new tags or a new file
name do not cause new work. The parent process writes one journal line for each finished track and
the tables at the end, in sorted order; the result depends neither on the number of workers nor on
interruptions.
"""

from __future__ import annotations

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
from subgenre.core import csv_tables, files, hardware, parallel, shards, validation, workspace
from subgenre.core.shards import Shard
from subgenre.dataset import chunking, folder, journal
from subgenre.dataset.chunking import Job
from subgenre.dataset.journal import Journal
from subgenre.errors import FeatureError
from subgenre.library.scan import CHANGED, Library, stamp
from subgenre.library.sources import Skipped, folder_names
from subgenre.library.track import Track

JOURNAL = "preprocess.journal"
RESAMPLER = "soxr HQ"
_NOT_BINDING = ("multi",)  # settings that choose tracks but don't change their chunks
_PROBE_S = 10.0
_PROBE_RATE = 44_100

Key = tuple[str, str]  # id and label folder of a track; label "" is the trash pool
Row = dict[str, Any]
TIMEOUT_S = 300.0  # for one track


@dataclass(frozen=True)
class Estimate:
    """Time and disk space of the remaining work.

    Attributes:
        seconds: extrapolated from one synthetic window on this machine. bytes: on disk.
        n_tracks, n_chunks: not yet computed.
    """

    seconds: float
    bytes: int
    n_tracks: int
    n_chunks: int


@dataclass
class Known:
    """Results of earlier runs: chunk rows or failure reason of each track, and all chunk files."""

    rows: dict[Key, list[Row]] = field(default_factory=dict)
    reasons: dict[Key, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)


@dataclass
class Plan:
    """Tracks by key, their known results, and the jobs that remain."""

    folders: dict[tuple[str, str], str]
    tracks: dict[Key, Track]
    skipped: list[Skipped]
    rows: dict[Key, list[Row]]
    reasons: dict[Key, str]
    jobs: list[Job]


@dataclass(frozen=True)
class Summary:
    """Result of a `preprocess` run.

    Attributes:
        n_tracks: in the feature folder with trash: `n_done` from this run, `n_reused` from earlier.
        n_chunks: in the feature folder.
        skipped: files without chunks and the reasons, sorted by path.
        seconds: duration of the run.
    """

    n_tracks: int
    n_done: int
    n_reused: int
    n_chunks: int
    skipped: tuple[Skipped, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "skipped": [one.to_dict() for one in self.skipped]}


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
    shard: Shard | None = None,
) -> Summary:
    """Create or complete the feature folder `out`.

    Unusable files are listed in `skipped.csv` with the reason; the run continues. A track that
    takes more than `timeout_s` seconds is skipped. `on_progress` receives the number of finished
    tracks and of all tracks. `backbone` is recorded for later commands. With `shard`, `library` is
    its share; its chunks are written, and the tables by a later run without, which reads what all
    shards have recorded.

    Raises:
        FeatureError: `out` holds features of other settings (unless `overwrite`), the disk is too
            full, or no track is usable.
    """
    began = time.monotonic()
    out = Path(out)
    settings = settings_of(spec, config)
    if shard:
        folder.write_tracks(shard.folder(out / workspace.SHARDS), library.read, library.root)
    known = _read_known(out, settings, overwrite=overwrite, shard=shard)
    plan = _make_plan(library, out, spec, config, known)
    _check_space(out, plan.jobs, spec, config)
    n_reused = len(plan.rows)
    written = shard.folder(out / workspace.SHARDS) if shard else out
    _work(plan, written / JOURNAL, settings, workers, timeout_s, on_progress)
    rows = [row for key in plan.tracks for row in plan.rows.get(key, [])]
    rows.sort(key=lambda r: (not r["label"], r["label"], r["track"], r["index"]))  # trash last
    failed = [Skipped(plan.tracks[key].path, reason) for key, reason in plan.reasons.items()]
    skipped = [*library.skipped, *plan.skipped, *failed]
    skipped.sort(key=lambda s: (str(s.path), s.reason))
    if shard:
        shard.finish(out / workspace.SHARDS)
    else:
        _remove_files(out, known.files - {row["file"] for row in rows})  # of tracks that vanished
        for label in {Path(row["file"]).parent for row in rows}:
            files.remove_unfinished(out / label)
        if not rows:
            write_skipped(out / folder.SKIPPED, skipped, library.root)
            raise FeatureError(f"no track is usable; {out / folder.SKIPPED} lists the reasons")
        _write_tables(plan, library, out, {"backbone": backbone, **settings}, rows, skipped)
        _remove_journals(out)
    seconds, n_tracks = time.monotonic() - began, len(plan.rows)
    return Summary(n_tracks, n_tracks - n_reused, n_reused, len(rows), tuple(skipped), seconds)


def write_skipped(path: Path, skipped: Iterable[Skipped], root: Path) -> None:
    """Write `skipped.csv`: path (relative to `root` if inside it) and reason."""
    rows = ([files.path_to_text(item.path, root), item.reason] for item in skipped)
    csv_tables.write(path, [["path", "reason"], *rows])


def _work(
    plan: Plan,
    journal_path: Path,
    settings: Mapping[str, Any],
    workers: int,
    timeout_s: float,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Run the jobs; each result is in the journal before its track counts as done.

    A crashed or hung worker is not recorded, nor a file that changed since it was scanned (its id
    may be another recording's), so that the next run tries its track again.
    """
    total, finished = len(plan.tracks), len(plan.tracks) - len(plan.jobs)
    if on_progress:
        on_progress(finished, total)
    if not plan.jobs:
        return
    with Journal(journal_path, settings) as journal:
        for position, outcome in parallel.map_files(
            chunking.make_chunks,
            plan.jobs,
            workers=workers,
            timeout_s=timeout_s,
            initializer=chunking.start_worker,
        ):
            job = plan.jobs[position]
            key = (job.track, job.label)
            track = plan.tracks[key]
            if stamp(job.path) != (track.size, track.mtime_ns):
                outcome = parallel.Failure(CHANGED)
            if isinstance(outcome, parallel.Failure):
                chunking.remove(job)
                plan.skipped.append(Skipped(job.path, outcome.reason))
            else:
                rows = list(outcome.rows)
                if rows:
                    plan.rows[key] = rows
                else:
                    plan.reasons[key] = outcome.reason
                entry = {"track": job.track, "label": job.label}
                journal.append({**entry, "rows": rows, "reason": outcome.reason})
            finished += 1
            if on_progress:
                on_progress(finished, total)


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
    checksums = {
        folder.CHUNKS: folder.write_chunks(out, rows),
        folder.TRACKS: folder.write_tracks(out, tracks, library.root),
    }
    dataset = folder.dataset_json(
        root=files.portable(library.root, out),
        settings=settings,
        labels=labels,
        rows=rows,
        n_tracks=len(tracks) - n_trash,
        n_trash=n_trash,
        n_skipped=len(skipped),
        checksums=checksums,
        failures=[{"track": t, "label": label, "reason": why} for t, label, why in failures],
        versions={
            "subgenre": VERSION,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("av", "numpy", "soxr", "torch")},
        },
    )
    write_skipped(out / folder.SKIPPED, skipped, library.root)
    files.write_json(out / folder.DATASET, dataset)


def settings_of(spec: FeatureSpec, config: PreprocessConfig) -> dict[str, Any]:
    """Return the settings that must be equal for chunks to be reused."""
    return {"spec": spec.to_dict(), "config": config.to_dict(), "resampler": RESAMPLER}


def _read_known(
    out: Path, settings: Mapping[str, Any], *, overwrite: bool = False, shard: Shard | None = None
) -> Known:
    """Read the results of earlier runs in `out`; with `overwrite`, delete them instead.

    Of other shards than `shard`, nothing is read.

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
        with suppress(FeatureError):  # without a readable table, each track is done again
            for row in folder.read_chunks(out).to_pylist():
                known.rows.setdefault((row["track"], row["label"]), []).append(row)
    known.files.update(row["file"] for rows in known.rows.values() for row in rows)
    for path in _journals(out, shard):
        header, entries = journal.read(path)
        if header:
            _check_settings(out, header, settings)
        try:
            for entry in entries:
                key = (entry["track"], entry["label"])
                if entry["rows"]:
                    known.rows[key] = entry["rows"]
                    known.files.update(row["file"] for row in entry["rows"])
                else:
                    known.reasons[key] = entry["reason"]
        except (KeyError, TypeError) as problem:
            raise FeatureError(f"{path} is damaged; {folder.ANEW}") from problem
        folder.check_files(path, known.files)
    return known


def _journals(out: Path, shard: Shard | None = None) -> list[Path]:
    """List the journals of a shard, or of all, and of runs without shards; later ones count.

    Of a recording in several shards the first copy is kept, so the first shard comes last.
    """
    return [*(place / JOURNAL for place in reversed(_shard_folders(out, shard))), out / JOURNAL]


def _shard_folders(out: Path, shard: Shard | None) -> list[Path]:
    """List what a shard, or without it each of them, has recorded."""
    place = out / workspace.SHARDS
    return [one.folder(place) for one in ([shard] if shard else shards.every(place))]


def _remove_journals(out: Path) -> None:
    (out / JOURNAL).unlink(missing_ok=True)
    shutil.rmtree(out / workspace.SHARDS, ignore_errors=True)


def _check_settings(out: Path, stored: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse a folder with chunks of other settings; the error names the differences."""
    binding = {n: v for n, v in settings["config"].items() if n not in _NOT_BINDING}
    differing = validation.differences(stored, {**settings, "config": binding})
    if differing:
        raise FeatureError(
            f"{out} holds features of other settings ({differing}); give another --out "
            "or replace them with --overwrite"
        )


def _discard(out: Path) -> None:
    """Delete only those files in `out` that earlier runs wrote."""
    named: set[str] = set()
    with suppress(FeatureError):
        named.update(folder.read_chunks(out)["file"].to_pylist())
    for path in _journals(out):
        with suppress(FeatureError, KeyError, TypeError):
            entries = journal.read(path)[1]
            listed = {row["file"] for entry in entries for row in entry["rows"]}
            folder.check_files(path, listed)
            named |= listed
    (out / folder.DATASET).unlink(missing_ok=True)
    _remove_files(out, named)
    for name in (folder.CHUNKS, folder.TRACKS, folder.SKIPPED):
        (out / name).unlink(missing_ok=True)
    _remove_journals(out)


def known_tracks(out: Path, source: Path, shard: Shard | None = None) -> dict[str, Track]:
    """Return the tracks of an earlier run by path, for `library.scan(source, known=...)`.

    Also those that `shard` has read, or without it all shards. Paths start from `source`, even if
    the library has moved; empty without readable tables.
    """
    root = source if source.is_dir() else source.parent
    tracks: dict[str, Track] = {}
    for place in (out, *_shard_folders(out, shard)):
        with suppress(FeatureError):
            tracks |= {str(track.path): track for track in folder.read_tracks(place, root)}
    return tracks


def remove_damaged(
    out: Path,
    spec: FeatureSpec,
    config: PreprocessConfig,
    on_progress: Callable[[int, int], None],
) -> int:
    """Remove the chunk files whose checksum is not the recorded one; return their number.

    The next run makes them again, as it makes those that are missing.

    Raises:
        FeatureError: `out` holds features of other settings.
    """
    known = _read_known(out, settings_of(spec, config))
    rows = [row for rows in known.rows.values() for row in rows if row["crc32"] is not None]
    damaged = 0
    for done, row in enumerate(rows, start=1):
        path = out / row["file"]
        if path.is_file() and files.checksum(path.read_bytes()) != row["crc32"]:
            path.unlink()
            damaged += 1
        on_progress(done, len(rows))
    return damaged


def _make_plan(
    library: Library, out: Path, spec: FeatureSpec, config: PreprocessConfig, known: Known
) -> Plan:
    """List the jobs; each recording counts once for each label."""
    folders = folder_names(library.labels)
    plan = Plan(folders, {}, [], {}, {}, [])
    for track in (*library.tracks, *library.trash):
        label = "" if track.trash else folders[track.genre, track.subgenre]
        key = (track.id, label)
        if track.duration_s < config.min_track_s:
            shown = math.floor(track.duration_s * 10) / 10  # 2.96 s is not shown as 3.0 s
            reason = f"is {shown:.1f} s long; at least {config.min_track_s:g} s are needed"
            plan.skipped.append(Skipped(track.path, reason))
            continue
        if key in plan.tracks:
            same = files.path_to_text(plan.tracks[key].path, library.root)
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


def _remove_files(out: Path, named: Iterable[str]) -> None:
    """Remove chunk files, then the label folders that became empty."""
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
    shard: Shard | None = None,
) -> Estimate:
    """Estimate time and disk space of the work that `out` does not hold yet, or of a shard's.

    Times one synthetic window on this machine; a slow disk takes longer.

    Raises:
        FeatureError: `out` holds features of other settings.
    """
    known = _read_known(out, settings_of(spec, config), shard=shard) if out else Known()
    jobs = _make_plan(library, out or Path(tempfile.gettempdir()), spec, config, known).jobs
    n_chunks = sum(len(job.starts()) for job in jobs)
    window_s, size = _probe(spec, config)
    at_once = max(1, min(workers, parallel.worker_count(), len(jobs)))
    return Estimate(n_chunks * window_s / at_once, n_chunks * size, len(jobs), n_chunks)


def _check_space(out: Path, jobs: list[Job], spec: FeatureSpec, config: PreprocessConfig) -> None:
    """Refuse to start if the chunks need more space than the disk has free."""
    frames = folder.window_frames(spec, config)
    needed = sum(len(job.starts()) for job in jobs) * frames * spec.n_mels * 2
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise FeatureError(
            f"the features need {needed / 1e9:.2f} GB and {there} has {free / 1e9:.2f} GB free; "
            "free some space, give another --out, or take fewer chunks per track"
        )


def _probe(spec: FeatureSpec, config: PreprocessConfig) -> tuple[float, int]:
    """Measure the seconds and bytes of one window."""
    probe_s = min(config.chunk_s, _PROBE_S)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "probe.wav"
        _write_probe(path, probe_s + 1.0)
        job = Job("0" * 32, path, "probe", probe_s, Path(temporary), spec, config)
        with hardware.one_thread():  # as in a worker
            for _ in range(2):  # the first round includes imports and tables
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
    with files.named(path), wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(_PROBE_RATE)
        file.writeframes((stereo * 32_000).astype("<i2").tobytes())
