"""Scores of one or more splits, each with a 95 % interval: `combine`.

Percentile bootstrap over the TRACKS (Efron, Tibshirani, "An Introduction to the Bootstrap", 1993,
section 13.3), 1,000 replicates. One replicate draws as many tracks as there are, with replacement,
and weights each track by its count; a track has one count in all its splits.

- Scores against the training tracks: the weighted mean of the test tracks' own values.
- Scores among the test tracks: the score plus the weighted mean of the tracks' influences, since a
  track is query and neighbour at once (`influence`).
- Where all tracks are right, or all wrong, the replicates are equal: the interval is Wilson's.
- NMI and ARI: other tracks give other clusters, so each of 40 draws is clustered anew (`redrawn`).
  The interval is the score +- Student's t times the standard deviation of the draws. (Their mean is
  too high, since copies of a track agree; their spread is not.)

`benchmarks/coverage.py` measures how often these intervals hold the true value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from subgenre.metrics.clusters import OF_CLUSTERS
from subgenre.metrics.registry import METRICS
from subgenre.metrics.vectors import Floats, Ints

REPLICATES = 1000
Z95 = 1.959964  # of the normal distribution, 95 % on both sides


@dataclass(frozen=True)
class Score:
    """A score, the ends of its 95 % interval, and its chance level."""

    value: float
    low: float
    high: float
    chance: float

    def to_dict(self) -> dict[str, float]:
        """Return the four numbers by name, as `metrics.json` holds them."""
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """The difference of two scores on the same n tracks, the ends of its 95 % interval, and p."""

    difference: float
    low: float
    high: float
    p: float
    n: int

    @property
    def clear(self) -> bool:
        """Whether it is more than chance: both the interval and p have to show it."""
        return not self.low <= 0 <= self.high and self.p < 0.05


@dataclass(frozen=True)
class Measured:
    """The scores of one split by test track [n], for `combine`.

    Attributes:
        by_track: metric -> value of each track; NaN where it has none.
        influence: metric -> influence of each track on the score, if it is more than its value.
        of_clusters: NMI and ARI. redrawn: the same of each draw [40] of `clusters.redrawn`.
        chance: metric -> chance level.
        notes: what could not be scored, and why.
    """

    ids: tuple[str, ...]
    by_track: dict[str, Floats]
    influence: dict[str, Floats]
    of_clusters: dict[str, float]
    redrawn: dict[str, Floats]
    chance: dict[str, float]
    notes: tuple[str, ...] = ()


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n; it stays inside 0..1 (Wilson 1927, eq. 6)."""
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    # rounding must not part a share of 0 or 1 from its own end
    return min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share)


def share_interval(value: float, draws: Floats, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean of values in 0..1 over n tracks from bootstrap draws.

    Where all values are 0, or all 1, no draw differs: the interval is Wilson's then.
    """
    if value in (0.0, 1.0):
        return wilson(value, n)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def combine(parts: Sequence[Measured], *, seed: int = 0) -> dict[str, Score]:
    """Put the parts of one or more splits together: folds, repeats, genres.

    A track's values are averaged over its parts, the score is the mean over tracks; NMI and ARI are
    averaged over parts by their size. Metrics that no part could score are left out.
    """
    rows, n = _positions(parts)
    rng = np.random.default_rng([seed, REPLICATES])
    drawn = rng.multinomial(n, np.full(n, 1 / n), REPLICATES).astype(float)
    scores = {}
    for metric, one in METRICS.items():
        if metric in OF_CLUSTERS:
            value, draws = _of_clusters(parts, metric)
            low, high = np.clip(_by_t(value, draws), one.lowest, 1.0)
        else:
            found = _resampled(parts, rows, drawn, metric)
            if found is None:
                continue
            value, replicates, means = found
            if one.lowest < 0:  # 0 is no end of its range
                low, high = np.percentile(replicates, [2.5, 97.5])
            else:
                low, high = share_interval(value, replicates, int(np.isfinite(means).sum()))
        chance = [part.chance[metric] for part in parts if metric in part.chance]
        weights = [_size(part, metric) for part in parts if metric in part.chance]
        average = float(np.average(chance, weights=weights))
        scores[metric] = Score(value, float(low), float(high), average)
    return scores


def compare(
    first: Sequence[Measured], second: Sequence[Measured], *, seed: int = 0
) -> dict[str, Difference]:
    """Compare two models on the tracks that both were scored on: first minus second, by metric.

    The replicates of both models draw the same tracks, as many from each part as it has
    (stratified bootstrap; Davison and Hinkley, "Bootstrap Methods and their Application", 1997,
    section 3.2). p is that of `paired_p` where the tracks' values are independent, else that of
    the bootstrap; of NMI and ARI, that of Student's t.
    """
    common = {part.ids for part in first} & {part.ids for part in second}
    if not common:
        return {}
    pair = [[part for part in parts if part.ids in common] for parts in (first, second)]
    rows, n = _positions(pair[0])
    rng = np.random.default_rng([seed, REPLICATES])
    drawn = _stratified(rows, n, rng)
    differences = {}
    for metric in METRICS:
        if metric in OF_CLUSTERS:
            values, draws = zip(*(_of_clusters(parts, metric) for parts in pair), strict=True)
            difference, spread = values[0] - values[1], draws[0] - draws[1]
            ends = _by_t(difference, spread)
            differences[metric] = Difference(difference, *ends, _p_by_t(difference, spread), n)
            continue
        found_a, found_b = (_resampled(parts, rows, drawn, metric) for parts in pair)
        if found_a is None or found_b is None:
            continue
        a, of_a, means_a = found_a
        b, of_b, means_b = found_b
        replicates = of_a - of_b
        low, high = np.percentile(replicates, [2.5, 97.5])
        by_track = means_a - means_b
        by_track = by_track[np.isfinite(by_track)]
        if any(metric in part.influence for part in pair[0]):
            tail = min((replicates <= 0).sum(), (replicates >= 0).sum())
            p = min(1.0, 2 * (tail + 1) / (REPLICATES + 1))
        else:
            p = paired_p(by_track, seed=seed)
        differences[metric] = Difference(a - b, float(low), float(high), float(p), len(by_track))
    return differences


def paired_p(differences: Floats, *, seed: int = 0) -> float:
    """Return the two-sided p of paired differences [n] against no difference.

    The exact sign test where each is -1, 0 or 1 (McNemar 1947), else a test that flips their signs
    at random (Fisher 1935).
    """
    from scipy.stats import binomtest, permutation_test

    changed = np.round(differences, 12)  # a smaller difference is one of rounding
    changed = changed[changed != 0]
    if len(changed) < 2:
        return 1.0
    if np.isin(changed, (-1, 1)).all():
        return float(binomtest(int((changed > 0).sum()), len(changed)).pvalue)
    test = permutation_test(
        (changed,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        batch=500,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def _positions(parts: Sequence[Measured]) -> tuple[list[Ints], int]:
    """Return the place of each part's tracks among the n different tracks of all parts, and n."""
    place = {name: i for i, name in enumerate(sorted({i for part in parts for i in part.ids}))}
    return [np.array([place[name] for name in part.ids]) for part in parts], len(place)


def _stratified(rows: Sequence[Ints], n: int, rng: np.random.Generator) -> Floats:
    """Draw counts of tracks [R, n]; a track of several parts belongs to the first."""
    stratum = np.zeros(n, dtype=np.int64)
    for number, at in reversed(list(enumerate(rows))):
        stratum[at] = number
    drawn = np.zeros((REPLICATES, n))
    for number in np.unique(stratum):
        inside = np.flatnonzero(stratum == number)
        size = len(inside)
        drawn[:, inside] = rng.multinomial(size, np.full(size, 1 / size), REPLICATES)
    return drawn


def _size(part: Measured, metric: str) -> float:
    """Return how many tracks a part's score rests on."""
    if metric in OF_CLUSTERS:
        return float(len(part.ids))
    return float(np.isfinite(part.by_track[metric]).sum())


def _resampled(
    parts: Sequence[Measured], rows: Sequence[Ints], drawn: Floats, metric: str
) -> tuple[float, Floats, Floats] | None:
    """Return a score, its replicates [R] and its values by track [n]; NaN where there is none."""
    found = [(part, at) for part, at in zip(parts, rows, strict=True) if metric in part.by_track]
    if not found:
        return None
    n = drawn.shape[1]
    means = _by_id([(part.by_track[metric], at) for part, at in found], n)
    scored = np.isfinite(means)
    value = float(means[scored].mean())
    if all(metric in part.influence for part, _ in found):
        influence = _by_id([(part.influence[metric], at) for part, at in found], n)
        known = np.isfinite(influence)
        replicates = value + drawn[:, known] @ influence[known] / known.sum()
        return value, np.clip(replicates, METRICS[metric].lowest, 1.0), means
    counts = drawn[:, scored]
    total = counts.sum(axis=1)
    replicates = np.where(total > 0, counts @ means[scored] / np.maximum(total, 1), value)
    return value, replicates, means


def _by_id(columns: Sequence[tuple[Floats, Ints]], n: int) -> Floats:
    """Return the mean [n] of each track's values over the parts it is in; NaN without any."""
    total, times = np.zeros(n), np.zeros(n)
    for values, at in columns:
        defined = ~np.isnan(values)
        np.add.at(total, at[defined], values[defined])
        np.add.at(times, at[defined], 1.0)
    return np.where(times > 0, total / np.maximum(times, 1.0), np.nan)


def _of_clusters(parts: Sequence[Measured], metric: str) -> tuple[float, Floats]:
    """Return NMI or ARI, averaged over the parts by their size, and the same of each draw."""
    sizes = [len(part.ids) for part in parts]
    value = float(np.average([part.of_clusters[metric] for part in parts], weights=sizes))
    draws = np.average([part.redrawn[metric] for part in parts], axis=0, weights=sizes)
    return value, np.asarray(draws)


def _by_t(value: float, draws: Floats) -> tuple[float, float]:
    """Return value +- Student's t times the standard deviation of its draws."""
    from scipy.special import stdtrit

    half = float(stdtrit(len(draws) - 1, 0.975) * draws.std(ddof=1))
    return value - half, value + half


def _p_by_t(value: float, draws: Floats) -> float:
    """Return the two-sided p of a value against 0, by Student's t."""
    from scipy.special import stdtr

    error = draws.std(ddof=1)
    if error == 0.0:
        return float(value == 0.0)
    return float(2 * stdtr(len(draws) - 1, -abs(value) / error))
