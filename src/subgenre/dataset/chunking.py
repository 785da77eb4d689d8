"""Write the chunk files of one track: the work of one `preprocess` worker process."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subgenre.audio.features import FeatureSpec, Statistics, log_mel
from subgenre.config import PreprocessConfig
from subgenre.core import parallel
from subgenre.dataset import folder, starts, windows
from subgenre.dataset.windows import Sound
from subgenre.errors import AudioError

SHORT_S = 0.25  # a window may be this much shorter than expected: codecs round
_LARGEST = 1000.0  # of a log-mel value, in any unit of level: music lies within 25


@dataclass(frozen=True)
class Job:
    """One track to process.

    Attributes:
        track: id. path: of the audio. label: label folder, "" for the trash pool.
        duration_s: measured from the packets. out: the feature folder.
        measure: whether to measure the windows; of a file that is only embedded, only silence is.
    """

    track: str
    path: Path
    label: str
    duration_s: float
    out: Path
    spec: FeatureSpec
    config: PreprocessConfig
    measure: bool = True

    @property
    def cut(self) -> windows.Cut:
        """How the windows are cut."""
        return windows.Cut(self.path, self.spec.rate, self.config, self.measure)

    def starts(self) -> list[float]:
        """Return the start times of the track's windows, seconds, ascending."""
        return starts.of_track(self.config, self.duration_s, self.track)

    def file(self, index: int) -> str:
        """Return the name of a chunk file inside `out`."""
        return folder.chunk_file(self.label, self.path, self.track, index)


@dataclass(frozen=True)
class Outcome:
    """Result of one track: rows of `chunks.parquet`, or the reason for having none."""

    rows: tuple[dict[str, Any], ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Window:
    """One decoded window.

    Attributes:
        start_s: in the track. decoded_s: decoded length, seconds.
        log_mel: float16 [T, F], not padded. measured: values of `measures.measure`.
    """

    start_s: float
    decoded_s: float
    log_mel: Tensor
    measured: dict[str, float]


def start_worker() -> None:
    """Limit a worker's memory, and its threads to one: sums keep their order."""
    parallel.limit_memory()
    torch.set_num_threads(1)


def transform(job: Job, sound: Sound) -> Window:
    """Transform one window of a track.

    Raises:
        AudioError: what follows from it is no music.
    """
    mel = log_mel(torch.from_numpy(sound.mono.copy())[None], job.spec)[0].to(torch.float16)
    _check(mel, sound.measured, sound.start_s)
    return Window(sound.start_s, len(sound.mono) / job.spec.rate, mel, sound.measured)


def _check(mel: Tensor, measured: dict[str, float], start_s: float) -> None:
    """Refuse values that would spoil the statistics of a whole library."""
    extreme = float(mel.abs().max()) if mel.numel() else 0.0
    if not extreme <= _LARGEST:  # also NaN
        raise AudioError(
            f"has features of {extreme:.0e} at {start_s:.1f} s; at most {_LARGEST:g} is plausible"
        )
    for name, value in measured.items():
        if not math.isfinite(value):
            raise AudioError(f"its {name} at {start_s:.1f} s is {value}, not finite")


def make_chunks(job: Job, sounds: Iterable[Sound] | None = None) -> Outcome:
    """Write the chunk files of one track; an unusable track has none.

    `sounds` are its windows where another process decodes them.

    A window that ends early (the file is shorter than its packets say) is left out. If all windows
    end early, the longest is used, provided that it has `min_track_s`.
    """
    rows: list[dict[str, Any]] = []
    longest: Window | None = None
    try:
        for sound in (
            windows.of_track(job.cut, job.duration_s, job.track) if sounds is None else sounds
        ):
            window = transform(job, sound)
            expected_s = min(job.config.chunk_s, job.duration_s - window.start_s)
            if window.decoded_s >= expected_s - SHORT_S:
                rows.append(_write(job, len(rows), window))
            elif longest is None or window.decoded_s > longest.decoded_s:
                longest = window
    except AudioError as problem:
        remove(job)
        return Outcome(reason=" ".join(str(problem).split()))
    if not rows and longest and longest.decoded_s >= job.config.min_track_s:
        rows.append(_write(job, 0, longest))
    if rows:
        return Outcome(tuple(rows))
    decoded_s = longest.decoded_s if longest else 0.0
    return Outcome(
        reason=f"only {decoded_s:.1f} s of {job.duration_s:.1f} s can be decoded; "
        f"at least {job.config.min_track_s:g} s are needed"
    )


def remove(job: Job) -> None:
    """Remove the chunk files of an unfinished job."""
    for index in range(len(job.starts())):
        (job.out / job.file(index)).unlink(missing_ok=True)


def _write(job: Job, index: int, window: Window) -> dict[str, Any]:
    """Write one chunk file and return its row, with statistics of the stored values."""
    stored = job.spec.pad(window.log_mel, folder.window_frames(job.spec, job.config))
    crc = folder.write_chunk(
        job.out / job.file(index), stored, start_s=window.start_s, track_id=job.track
    )
    statistics = Statistics.of(window.log_mel)
    return {
        "file": job.file(index),
        "track": job.track,
        "label": job.label,
        "index": index,
        "start_s": float(window.start_s),
        "n_frames": len(window.log_mel),
        "count": statistics.count,
        "mean": statistics.mean,
        "m2": statistics.m2,
        **window.measured,
        "crc32": crc,
    }
