"""Where the chunks of a track start; loads no torch."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from subgenre.config import CHUNK_STRATEGIES, PreprocessConfig
from subgenre.core.validation import check_choice
from subgenre.errors import ConfigError

_ROUNDING_S = 1e-6  # seconds


def of_track(config: PreprocessConfig, duration_s: float, track_id: str) -> list[float]:
    """Return the start times of a track's chunks by the settings, seconds, ascending."""
    return chunk_starts(
        duration_s,
        chunk_s=config.chunk_s,
        max_chunks=config.max_chunks,
        strategy=config.chunk_strategy,
        seed=config.seed,
        track_id=track_id,
    )


def chunk_starts(
    duration_s: float, *, chunk_s: float, max_chunks: int, strategy: str, seed: int, track_id: str
) -> list[float]:
    """Return the start times of one track's chunks, seconds, ascending.

    `random`: windows that do not overlap, all such sets equally likely; the draw depends only on
    the seed and the track's id. `sequential`: the first windows. `spaced`:
    linspace(0, duration - chunk, max_chunks), which may overlap. A short track has fewer than
    `max_chunks` windows; one shorter than a chunk has one, at 0.

    Raises:
        ConfigError: an unknown strategy, or a length or count that is not positive.
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
    # n sorted uniform points in the free space left by n windows mark the ends of n gaps; each set
    # of windows without overlap is one such set of points
    digest = hashlib.blake2b(f"{seed}:{track_id}".encode("utf-8", "surrogatepass"), digest_size=16)
    generator = np.random.default_rng(int.from_bytes(digest.digest(), "big"))
    free_s = max(0.0, duration_s - count * chunk_s)
    points = np.sort(generator.uniform(0.0, free_s, count))
    return [float(start) for start in points + before]
