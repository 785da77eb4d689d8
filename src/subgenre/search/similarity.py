"""Exact nearest neighbours by cosine, and mutual proximity, which takes the hubs out of them.

Problem: in many dimensions a few vectors lie near the middle of everything and stand in every
list ("hubs"), while others stand in none. Mutual proximity (Schnitzer, Flexer, Schedl and Widmer,
"Local and global scaling reduce hubs in space", JMLR 13, 2012, section 3.2, with independent
normal distributions) answers for a pair: how likely is it that a random track is further off than
this, seen from x, and seen from y? The two probabilities are multiplied:

    MP(x, y) = P(D_x > d(x, y)) * P(D_y > d(x, y))

A normal distribution needs the mean and the deviation of the cosines of x to all tracks, and for
cosines both follow from two moments of the whole collection, so that no sample is drawn:

    mean_x = x . m,   m = mean of y        mean square = x^T S x,   S = mean of y y^T

One query costs D^2 operations for its own two numbers and then the same scan as a plain search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

BLOCK = 16_384  # rows whose cosines stay in the processor's cache while the best are kept
QUERIES = 64  # queries scanned together, so that the vectors are read once for all of them
_LARGEST_Z = 37.0  # beyond it the tail of a normal distribution is no float64 any more


@dataclass(frozen=True)
class Moments:
    """First and second moment of a collection of unit vectors.

    Attributes:
        count: N. mean: [D], float64. second: mean of the outer products, [D, D], float64.
    """

    count: int
    mean: Doubles
    second: Doubles

    def spread(self, vectors: NDArray[np.floating], *, own: bool) -> Spread:
        """Mean and deviation of the cosines of unit vectors [B, D] to the collection.

        With `own` they belong to it, and their cosine of 1 with themselves is left out.
        """
        x = np.asarray(vectors, dtype=np.float64)
        total, squares = self.count * (x @ self.mean), self.count * ((x @ self.second) * x).sum(1)
        count = max(self.count - own, 1)
        mean = (total - own) / count
        deviation = np.sqrt(np.maximum((squares - own) / count - mean**2, 1e-12))
        return Spread(mean.astype(np.float32), (1.0 / deviation).astype(np.float32))


@dataclass(frozen=True)
class Spread:
    """How the cosines of single vectors are spread: mean [N] and inverse deviation [N], float32."""

    mean: Floats
    inverse: Floats


def moments(vectors: Floats, allowed: Mask | None = None) -> Moments:
    """Compute both moments of the allowed unit vectors [N, D] (default all), in float64."""
    size = vectors.shape[1]
    total, second, count = np.zeros(size), np.zeros((size, size)), 0
    for start, block in _blocks(vectors):
        rows = block if allowed is None else block[allowed[start : start + len(block)]]
        x = np.asarray(rows, dtype=np.float64)
        total += x.sum(axis=0)
        second += x.T @ x
        count += len(x)
    return Moments(count, total / max(count, 1), second / max(count, 1))


def spread_of(vectors: Floats, whole: Moments, *, own: bool = True) -> Spread:
    """Compute the spread of every row of `vectors` [N, D], block by block."""
    found = [whole.spread(block, own=own) for _, block in _blocks(vectors)]
    return Spread(
        np.concatenate([s.mean for s in found]), np.concatenate([s.inverse for s in found])
    )


def mutual_proximity(cosine: Doubles, x: tuple[float, float], y: Spread) -> Doubles:
    """Logarithm of MP for cosines [n] between one x (mean, inverse deviation) and n tracks y."""
    from scipy.special import log_ndtr  # slow to import

    from_x = np.minimum((cosine - x[0]) * x[1], _LARGEST_Z)
    from_y = np.minimum((cosine - y.mean) * y.inverse, _LARGEST_Z)
    return np.asarray(log_ndtr(from_x) + log_ndtr(from_y))


def highest_proximity(cosine: float, x: Spread) -> float:
    """Return the highest logarithm of MP at this cosine, or a lower one, to x: log P(x)."""
    from scipy.special import log_ndtr

    return float(log_ndtr((cosine - x.mean[0]) * x.inverse[0]))


@dataclass
class _Best:
    """The k best rows of one query so far; `floor` is what a newcomer's bound must exceed."""

    k: int
    query: tuple[float, float] | None
    rows: Ints
    scores: Doubles
    floor: float = -np.inf

    def offer(self, cosine: Floats, start: int, tracks: Spread | None) -> None:
        """Take what is better than the worst kept of the rows start, start + 1, ...

        With mutual proximity the smaller of the two z-values bounds the score from above, as
        log P(x) + log P(y) <= log P(the smaller), so the two tails are computed for few rows only.
        """
        bound = cosine
        if self.query is not None and tracks is not None:
            mean, inverse = map(np.float32, self.query)
            bound = np.minimum((cosine - mean) * inverse, (cosine - tracks.mean) * tracks.inverse)
        hits = np.flatnonzero(bound > self.floor)
        if not len(hits):
            return
        if self.query is None and len(hits) > 4 * self.k:
            worst = np.partition(bound[hits], -self.k)[-self.k]
            hits = hits[bound[hits] >= worst]
        scores = cosine[hits].astype(np.float64)
        if self.query is not None and tracks is not None:
            near = Spread(tracks.mean[hits], tracks.inverse[hits])
            scores = mutual_proximity(scores, self.query, near)
        rows = np.concatenate([self.rows, hits + start])
        scores = np.concatenate([self.scores, scores])
        order = np.lexsort((rows, -scores))[: self.k]  # of equals the earlier row
        self.rows, self.scores = rows[order], scores[order]
        if len(order) == self.k:
            worst = self.scores[-1]
            self.floor = float(worst)
            if self.query is not None:
                from scipy.special import ndtri_exp

                floor = float(ndtri_exp(worst))
                self.floor = floor - 1e-5 * (1.0 + abs(floor))  # bounds are float32


def top_k(
    vectors: Floats,
    queries: NDArray[np.floating],
    k: int,
    *,
    allowed: Mask | None = None,
    skip: Ints | None = None,
    mutual: tuple[Spread, Spread] | None = None,
) -> list[tuple[Ints, Doubles]]:
    """Find the k best rows of each query, exactly; rows and scores, best first.

    Args:
        vectors: unit vectors [N, D]; a memory map serves. queries: unit vectors [B, D].
        k: how many; fewer come back where fewer rows are allowed.
        allowed: [N], rows that may come back.
        skip: [B], one row that each query leaves out (itself), -1 for none.
        mutual: spread of the queries and of the rows: scores are then log MP, else cosines.
    """
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    own: Iterable[tuple[float, float] | None] = repeat(None, len(queries))
    if mutual is not None:
        own = zip(mutual[0].mean.tolist(), mutual[0].inverse.tolist(), strict=True)
    best = [_Best(k, query, np.zeros(0, dtype=np.int64), np.zeros(0)) for query in own]
    for first in range(0, len(queries), QUERIES):
        group = slice(first, first + QUERIES)
        for start, block in _blocks(vectors):
            rows = slice(start, start + len(block))
            mask = None if allowed is None else allowed[rows]
            if mask is not None and not mask.any():
                continue
            cosines = _cosines(block, queries[group], mask)
            tracks = None
            if mutual is not None:
                tracks = Spread(mutual[1].mean[rows], mutual[1].inverse[rows])
            for i, cosine in enumerate(cosines, start=first):
                if skip is not None and start <= skip[i] < start + len(block):
                    cosine[skip[i] - start] = -np.inf
                best[i].offer(cosine, start, tracks)
    return [(b.rows, b.scores) for b in best]


def neighbours(vectors: Floats, k: int, *, mutual: bool) -> Ints:
    """Find the k < N nearest other rows of each unit vector [N, D]: [N, k], best first.

    They are ranked by mutual proximity, or by cosine.
    """
    both = None
    if mutual:
        spread = spread_of(vectors, moments(vectors))
        both = (spread, spread)
    found = top_k(vectors, vectors, k, skip=np.arange(len(vectors)), mutual=both)
    return np.stack([rows for rows, _ in found])


def k_occurrence(nearest: Ints, count: int | None = None) -> Ints:
    """Count in how many lists [N, k] each of `count` (default N) tracks stands."""
    return np.bincount(nearest.ravel(), minlength=len(nearest) if count is None else count)


def skewness(counts: Ints) -> float:
    """Skewness of k-occurrence, the usual measure of hubness; 0 where all counts are equal.

    Source: Radovanovic, Nanopoulos and Ivanovic, "Hubs in space", JMLR 11, 2010, equation 1.
    """
    deviation = float(np.std(counts))
    if deviation == 0.0:
        return 0.0
    return float(np.mean((counts - np.mean(counts)) ** 3)) / deviation**3


def _blocks(vectors: Floats) -> Iterator[tuple[int, Floats]]:
    """Cut vectors [N, D] into blocks: number of the first row, and the rows [n, D]."""
    for start in range(0, max(len(vectors), 1), BLOCK):
        yield start, np.asarray(vectors[start : start + BLOCK])


def _cosines(block: Floats, queries: Floats, allowed: Mask | None) -> Floats:
    """Cosines [B, n] of a block; minus infinity where not allowed, unread where few are."""
    if allowed is not None and np.count_nonzero(allowed) < 0.3 * len(block):
        rows = np.flatnonzero(allowed)
        cosines = np.full((len(queries), len(block)), -np.inf, dtype=np.float32)
        cosines[:, rows] = queries @ block[rows].T
        return cosines
    single = len(queries) == 1  # a product with one vector runs at the speed of the memory
    cosines = (block @ queries[0])[None] if single else queries @ block.T
    if allowed is not None:
        cosines[:, ~allowed] = -np.inf
    return cosines
