"""What a run of `preprocess` has to do, given what earlier runs left; and what it will take."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
import wave
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from subgenre.audio.features import FeatureSpec
from subgenre.config import PreprocessConfig
from subgenre.core import hardware, parallel
from subgenre.core.files import TEMPORARY
from subgenre.dataset import chunking, feature_tables, journal
from subgenre.dataset import folder as store
from subgenre.dataset.chunking import Job
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


def settings_of(spec: FeatureSpec, config: PreprocessConfig) -> dict[str, Any]:
    """Return what must be equal for chunks to be used again."""
    return {"spec": spec.to_dict(), "config": config.to_dict(), "resampler": RESAMPLER}


def read_known(out: Path, settings: Mapping[str, Any], *, overwrite: bool) -> Known:
    """Read what earlier runs left in `out`; with `overwrite`, clear it away instead.

    Raises:
        FeatureError: features of other settings, or a damaged folder.
    """
    if overwrite:
        _discard(out)
        return Known()
    known = Known()
    if (out / store.DATASET).exists():
        dataset = store.read_dataset(out)
        _check_settings(out, dataset, settings)
        for entry in dataset.get("failures", []):
            known.reasons[entry["track"], entry["label"]] = entry["reason"]
        for row in feature_tables.read_chunks(out).to_pylist():
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
    feature_tables.check_files(out / JOURNAL, known.files)
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
        named.update(feature_tables.read_chunks(out)["file"].to_pylist())
    with suppress(FeatureError):
        entries = journal.read(out / JOURNAL)[1]
        listed = {row["file"] for entry in entries for row in entry["rows"]}
        feature_tables.check_files(out / JOURNAL, listed)
        named |= listed
    (out / store.DATASET).unlink(missing_ok=True)
    _remove_files(out, named)
    for name in (JOURNAL, feature_tables.CHUNKS, feature_tables.TRACKS, store.SKIPPED):
        (out / name).unlink(missing_ok=True)


def known_tracks(out: Path, source: Path) -> dict[str, Track]:
    """Return the tracks of an earlier run by their path, for `library.scan(source, known=...)`.

    Paths start from `source`, wherever it lay then; nothing where `out` holds no readable tables.
    """
    root = source if source.is_dir() else source.parent
    with suppress(FeatureError):
        return {str(track.path): track for track in feature_tables.read_tracks(out, root)}
    return {}


def make_plan(
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
            same = feature_tables.path_to_text(plan.tracks[key].path, library.root)
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


def clear(out: Path, known: Known, kept: set[str]) -> None:
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
    for folder in {path.parent for path in paths}:
        with suppress(OSError):
            folder.rmdir()


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
    folder = Path(out) if out is not None else Path(tempfile.gettempdir())
    known = read_known(folder, settings_of(spec, config), overwrite=False) if out else Known()
    jobs = make_plan(library, folder, spec, config, known).jobs
    n_chunks = sum(len(job.starts()) for job in jobs)
    window_s, size = _probe(spec, config)
    at_once = max(1, min(workers, parallel.worker_count(), len(jobs)))
    return Estimate(n_chunks * window_s / at_once, n_chunks * size, len(jobs), n_chunks)


def check_space(out: Path, jobs: list[Job], spec: FeatureSpec, config: PreprocessConfig) -> None:
    """Refuse to start what the disk can't hold.

    Raises:
        FeatureError: less is free than the chunks need.
    """
    frames = store.window_frames(spec, config)
    needed = sum(len(job.starts()) for job in jobs) * frames * spec.n_mels * 2
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
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
