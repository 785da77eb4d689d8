"""Where in a track the chunks lie: from a duration to window starts."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from subgenre.config import CHUNK_STRATEGIES
from subgenre.core.validation import check_choice
from subgenre.errors import ConfigError

_ROUNDING_S = 1e-6


def starts(
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
