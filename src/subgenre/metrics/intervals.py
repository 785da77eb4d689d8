"""Scores of one or more splits, each with a 95 % interval: `combine`.

Percentile bootstrap over the TRACKS (Efron, Tibshirani, "An Introduction to the Bootstrap", 1993,
section 13.3), 1,000 replicates. One replicate draws as many tracks as there are, with replacement,
and weights each track by its count; a track has one count in all its splits.

- Scores against the training tracks: the weighted mean of the test tracks' own values.
- Scores among the test tracks: the score plus the weighted mean of the tracks' influences, since a
  track is query and neighbour at once (`influence`).
- Where all tracks are right, or all wrong, the replicates are equal: the interval is Wilson's.
- NMI and ARI: computed anew from the weighted table of the same clusters against labels. Copies of
  a track agree, so these replicates are a little too high: their mean is moved onto the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from subgenre.metrics.clusters import ari_of, contingency, nmi_of
from subgenre.metrics.registry import METRICS
from subgenre.metrics.vectors import Floats, Ints

REPLICATES = 1000
Z95 = 1.959964  # of the normal distribution, 95 % on both sides

# scores of a contingency table of clusters against labels
OF_CLUSTERS: dict[str, Callable[[Floats], Floats]] = {"nmi": nmi_of, "ari": ari_of}


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
class Measured:
    """The scores of one split by test track [n], for `combine`.

    Attributes:
        by_track: metric -> value of each track; NaN where it has none.
        influence: metric -> influence of each track on the score, if it is more than its value.
        clusters, labels: k-means cluster and label of each track.
        chance: metric -> chance level.
        notes: what could not be scored, and why.
    """

    ids: tuple[str, ...]
    by_track: dict[str, Floats]
    influence: dict[str, Floats]
    clusters: Ints
    labels: Ints
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
    ids = sorted({name for part in parts for name in part.ids})
    place = {name: i for i, name in enumerate(ids)}
    rows = [np.array([place[name] for name in part.ids]) for part in parts]
    rng = np.random.default_rng([seed, REPLICATES])
    drawn = rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), REPLICATES).astype(float)
    scores = {}
    for metric in METRICS:
        if metric in OF_CLUSTERS:
            scores[metric] = _cluster_score(parts, rows, drawn, metric)
        elif any(metric in part.by_track for part in parts):
            scores[metric] = _track_score(parts, rows, drawn, metric)
    return scores


def _track_score(
    parts: Sequence[Measured], rows: Sequence[Ints], drawn: Floats, metric: str
) -> Score:
    found = [(part, at) for part, at in zip(parts, rows, strict=True) if metric in part.by_track]
    n = drawn.shape[1]
    means, scored = _by_id([(part.by_track[metric], at) for part, at in found], n)
    value = float(means[scored].mean())
    if all(metric in part.influence for part, _ in found):
        influence, known = _by_id([(part.influence[metric], at) for part, at in found], n)
        replicates = value + drawn[:, known] @ influence[known] / known.sum()
        replicates = np.clip(replicates, METRICS[metric].lowest, 1.0)
    else:
        counts = drawn[:, scored]
        counts = counts[counts.sum(axis=1) > 0]
        replicates = counts @ means[scored] / counts.sum(axis=1)
    if METRICS[metric].lowest < 0:  # 0 is no end of its range
        low, high = np.percentile(replicates, [2.5, 97.5])
    else:
        low, high = share_interval(value, replicates, int(scored.sum()))
    weights = [float((~np.isnan(part.by_track[metric])).sum()) for part, _ in found]
    chance = np.average([part.chance[metric] for part, _ in found], weights=weights)
    return Score(value, float(low), float(high), float(chance))


def _by_id(columns: Sequence[tuple[Floats, Ints]], n: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the mean of each track's values over the parts it is in, and which have any."""
    total, times = np.zeros(n), np.zeros(n)
    for values, at in columns:
        defined = ~np.isnan(values)
        np.add.at(total, at[defined], values[defined])
        np.add.at(times, at[defined], 1.0)
    return total / np.maximum(times, 1.0), times > 0


def _cluster_score(
    parts: Sequence[Measured], rows: Sequence[Ints], drawn: Floats, metric: str
) -> Score:
    score = OF_CLUSTERS[metric]
    sizes = np.array([len(part.ids) for part in parts], dtype=np.float64)
    values = [float(score(contingency(part.clusters, part.labels))) for part in parts]
    replicates = np.zeros(len(drawn))
    for part, at, size in zip(parts, rows, sizes, strict=True):
        n_clusters, n_labels = int(part.clusters.max()) + 1, int(part.labels.max()) + 1
        cells = np.zeros((len(part.ids), n_clusters * n_labels))
        cells[np.arange(len(part.ids)), part.clusters * n_labels + part.labels] = 1.0
        replicates += size * score((drawn[:, at] @ cells).reshape(-1, n_clusters, n_labels))
    replicates /= sizes.sum()
    value = float(np.average(values, weights=sizes))
    centred = np.clip(replicates - replicates.mean() + value, METRICS[metric].lowest, 1.0)
    low, high = np.percentile(centred, [2.5, 97.5])
    chance = np.average([part.chance[metric] for part in parts], weights=sizes)
    # replicates of one cluster are all equal but for those of one label: the mean lies outside
    return Score(value, float(min(low, value)), float(max(high, value)), float(chance))
