"""One track to its chunk files: what a worker of `preprocess` does. Starts fast: torch, no hub."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subgenre.audio import measures, reading
from subgenre.audio.features import FeatureSpec, Statistics, log_mel
from subgenre.config import CHUNK_STRATEGIES, PreprocessConfig
from subgenre.core.validation import check_choice
from subgenre.dataset import folder
from subgenre.errors import AudioError, ConfigError

SHORT_S = 0.25  # a window may miss this much of what the duration promised: codecs round
_ROUNDING_S = 1e-6  # seconds


def chunk_starts(
    duration_s: float, *, chunk_s: float, max_chunks: int, strategy: str, seed: int, track_id: str
) -> list[float]:
    """Return where the chunks of one track start, seconds, ascending.

    `random`: windows that do not overlap, all such sets equally likely; drawn from the seed and the
    track's id, so that no other track changes them. `sequential`: the first windows. `spaced`:
    linspace(0, duration - chunk, max_chunks). A track that holds fewer than `max_chunks` windows
    gives fewer (`spaced` lets them overlap); one shorter than a chunk gives one, at 0.

    Raises:
        ConfigError: an unknown strategy, or lengths and counts that make no sense.
    """
    check_choice("chunk_strategy", strategy, CHUNK_STRATEGIES)
    if not (chunk_s > 0 and math.isfinite(duration_s) and max_chunks >= 1):
        raise ConfigError(
            f"chunk_s is {chunk_s}, duration_s {duration_s}, max_chunks {max_chunks}; "
            "each must be more than 0"
        )
    free_s = duration_s - chunk_s
    if free_s < _ROUNDING_S:
        return [0.0]
    if strategy == "spaced":
        return [float(start) for start in np.linspace(0.0, free_s, max_chunks)]
    count = min(max_chunks, int((duration_s + _ROUNDING_S) / chunk_s))
    before = np.arange(count) * chunk_s
    if strategy == "sequential":
        return [float(start) for start in before]
    # n sorted uniform points of the space that n windows leave free are n gaps' ends: every set of
    # windows that do not overlap is one such set of points
    free_s = max(0.0, duration_s - count * chunk_s)
    points = np.sort(_generator(seed, track_id).uniform(0.0, free_s, count))
    return [float(start) for start in points + before]


def _generator(seed: int, track_id: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}:{track_id}".encode("utf-8", "surrogatepass"), digest_size=16)
    return np.random.default_rng(int.from_bytes(digest.digest(), "big"))


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
        return chunk_starts(
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
