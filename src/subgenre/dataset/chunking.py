"""One track to its chunk files: what a worker of `preprocess` does. Starts fast: torch, no hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subgenre.audio import measures, reading
from subgenre.audio.features import FeatureSpec, Statistics, log_mel
from subgenre.config import PreprocessConfig
from subgenre.dataset import folder, windows
from subgenre.errors import AudioError

SHORT_S = 0.25  # a window may miss this much of what the duration promised: codecs round


@dataclass(frozen=True)
class Job:
    """One track to be done.

    Attributes:
        track: its id. path: of the audio. label: of the label folder, "" for the trash pool.
        duration_s: by the packets. out: the feature folder.
    """

    track: str
    path: Path
    label: str
    duration_s: float
    out: Path
    spec: FeatureSpec
    config: PreprocessConfig

    def starts(self) -> list[float]:
        """Return the starts of the track's windows, seconds, ascending."""
        return windows.starts(
            self.duration_s,
            chunk_s=self.config.chunk_s,
            max_chunks=self.config.max_chunks,
            strategy=self.config.chunk_strategy,
            seed=self.config.seed,
            track_id=self.track,
        )

    def file(self, index: int) -> str:
        """Return the name of a chunk file inside `out`."""
        return folder.chunk_file(self.label, self.path, self.track, index)


@dataclass(frozen=True)
class Outcome:
    """What came of one track: rows of `chunks.parquet`, or the reason why there are none."""

    rows: tuple[dict[str, Any], ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Window:
    """One decoded window.

    Attributes:
        start_s: in the track. heard_s: length that could be decoded, seconds.
        log_mel: float16 [T, F], not padded. measured: by `measures.measure`.
    """

    start_s: float
    heard_s: float
    log_mel: Tensor
    measured: dict[str, float]


def start_worker() -> None:
    """Give each worker one thread: the workers share the cores, and sums keep their order."""
    torch.set_num_threads(1)


def read(path: Path, start_s: float, length_s: float, spec: FeatureSpec) -> Window:
    """Decode, measure and transform one window of a file.

    Raises:
        AudioError: it can't be decoded, or holds samples that are not finite.
    """
    samples, rate, lead = reading.read_window(path, start_s, length_s, margin_s=reading.MARGIN_S)
    inside = samples[:, lead : lead + round(length_s * rate)]
    mono = reading.mono_window(samples, rate, lead, length_s, spec.rate)
    mel = log_mel(torch.from_numpy(mono.copy())[None], spec)[0].to(torch.float16)
    return Window(start_s, len(mono) / spec.rate, mel, measures.measure(inside, rate))


def make_chunks(job: Job) -> Outcome:
    """Write the chunk files of one track; a track that can't be used leaves none.

    A window that ends early (the file is shorter than its packets say) is left out; where all do,
    the longest serves if it has `min_track_s`.
    """
    rows: list[dict[str, Any]] = []
    longest: Window | None = None
    try:
        for start_s in job.starts():
            window = read(job.path, start_s, job.config.chunk_s, job.spec)
            promised_s = min(job.config.chunk_s, job.duration_s - start_s)
            if window.heard_s >= promised_s - SHORT_S:
                rows.append(_write(job, len(rows), window))
            elif longest is None or window.heard_s > longest.heard_s:
                longest = window
    except AudioError as problem:
        remove(job)
        return Outcome(reason=" ".join(str(problem).split()))
    if not rows and longest and longest.heard_s >= job.config.min_track_s:
        rows.append(_write(job, 0, longest))
    if rows:
        return Outcome(tuple(rows))
    heard_s = longest.heard_s if longest else 0.0
    return Outcome(
        reason=f"only {heard_s:.1f} s can be decoded of the {job.duration_s:.1f} s that it names; "
        f"at least {job.config.min_track_s:g} s are needed"
    )


def remove(job: Job) -> None:
    """Remove the chunk files that an unfinished job may have written."""
    for index in range(len(job.starts())):
        (job.out / job.file(index)).unlink(missing_ok=True)


def _write(job: Job, index: int, window: Window) -> dict[str, Any]:
    """Write one chunk file and return its row; statistics are of what is stored."""
    stored = folder.pad(window.log_mel, folder.window_frames(job.spec, job.config))
    folder.write_chunk(
        job.out / job.file(index), stored, start_s=window.start_s, track_id=job.track
    )
    found = Statistics.of(window.log_mel)
    return {
        "file": job.file(index),
        "track": job.track,
        "label": job.label,
        "index": index,
        "start_s": float(window.start_s),
        "n_frames": len(window.log_mel),
        "count": found.count,
        "mean": found.mean,
        "m2": found.m2,
        **{name: float(window.measured[name]) for name in measures.COLUMNS},
    }
