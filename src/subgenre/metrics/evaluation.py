"""All scores of one or more splits, each beside its chance level, with a 95 % interval.

Chance: for the two accuracies the share of the largest class among the test tracks; for the others
the mean over 1,000 shuffles of the test labels, vectors and clusters being kept.

Interval: percentile bootstrap over the TRACKS (Efron, Tibshirani, 1993, section 13.3), 1,000
replicates. One replicate draws as many tracks as there are, with replacement, and weighs each track
by how often it came; a track stays together in all its splits. Scores that are means over tracks
become weighted means of the tracks' own values, neighbours being kept. NMI and ARI are computed anew
from the weighted table of clusters against labels, clusters being kept; as copies of a track agree
with one another, these replicates lie too high by a little, and their mean is moved onto the score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from subgenre.errors import EvaluationError
from subgenre.metrics.clusters import (
    ari_of,
    contingency,
    cosine_distances,
    kmeans,
    nmi_of,
    silhouettes,
)
from subgenre.metrics.retrieval import (
    DEFAULT_K,
    average_precisions,
    knn_labels,
    nearest_centroids,
    nearest_labels,
    own_order,
    r_precisions,
    similarity_ranks,
    triplet_shares,
)
from subgenre.metrics.vectors import Floats, Ints, check_pair, need_classes

METRICS = (
    "centroid_accuracy",
    "knn_accuracy",
    "precision_at_1",
    "r_precision",
    "map_at_r",
    "triplet_accuracy",
    "nmi",
    "ari",
    "silhouette",
)
VIEWS = ("all", "within", "across")
SHUFFLES = 1000
REPLICATES = 1000

_OF_CLUSTERS: dict[str, tuple[Callable[[Floats], Floats], float]] = {
    "nmi": (nmi_of, 0.0),
    "ari": (ari_of, -1.0),
}
"""Scores of a contingency table, with the least value each can have."""

_BLOCK_NUMBERS = 4_000_000  # numbers held at once while labels are shuffled (32 MB)


@dataclass(frozen=True)
class Score:
    """One score.

    Attributes:
        value: the score. low, high: its 95 % interval. chance: what knowing nothing would give.
    """

    value: float
    low: float
    high: float
    chance: float

    def to_dict(self) -> dict[str, float]:
        """Return the four numbers by name, as `metrics.json` holds them."""
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """One split's scores by track, before they are put together by `combine`.

    Attributes:
        ids: test track of each row, [n].
        by_track: metric -> value of each track, [n]; NaN where it has none.
        clusters, labels: k-means cluster and label of each track, [n].
        chance: metric -> chance level.
        notes: what could not be scored, and why.
    """

    ids: tuple[str, ...]
    by_track: dict[str, Floats]
    clusters: Ints
    labels: Ints
    chance: dict[str, float]
    notes: tuple[str, ...] = field(default=())


def evaluate(
    train: ArrayLike,
    train_labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    *,
    genres: ArrayLike,
    seed: int = 0,
    view: str = "all",
    notes: list[str] | None = None,
) -> dict[str, Score]:
    """Score one split by every metric of `METRICS`.

    Args:
        train, test: track vectors [N, D]. train_labels, test_labels: subgenre numbers [N].
        genres: genre number of each subgenre.
        seed: of k-means, shuffles and bootstrap.
        view: `all`; `within`: each genre on its own, its subgenres being the only candidates;
            `across`: genres in place of subgenres.
        notes: what could not be scored is added here, with the reason.

    Raises:
        EvaluationError: vectors that are not finite or zero, fewer than two classes, a wrong view.
    """
    parts = measure(train, train_labels, test, test_labels, genres=genres, seed=seed, view=view)
    if notes is not None:
        notes.extend(note for part in parts for note in part.notes)
    return combine(parts, seed=seed)


def measure(
    train: ArrayLike,
    train_labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    *,
    genres: ArrayLike,
    seed: int = 0,
    view: str = "all",
    ids: Sequence[str] | None = None,
) -> list[Measured]:
    """Measure one split, for `combine` to put together with other splits of the same tracks.

    Arguments and errors as for `evaluate`; `ids` name the test tracks, so that one that is tested in
    several repeats is known again. `within` gives one part a genre.
    """
    if view not in VIEWS:
        raise EvaluationError(f"view is '{view}'; choose all, within or across")
    known, known_labels = check_pair(train, train_labels, "training")
    rows, labels = check_pair(test, test_labels, "test")
    names = tuple(ids) if ids is not None else tuple(str(i) for i in range(len(rows)))
    if len(names) != len(rows):
        raise EvaluationError(f"{len(names)} ids were given for {len(rows)} test tracks")
    genre = np.asarray(genres, dtype=np.int64)
    if max(labels.max(), known_labels.max()) >= len(genre):
        raise EvaluationError(f"label {max(labels.max(), known_labels.max())} has no genre")
    if view == "across":
        return [_measure(known, genre[known_labels], rows, genre[labels], names, seed)]
    if view == "all":
        return [_measure(known, known_labels, rows, labels, names, seed)]
    parts = []
    for g in np.unique(genre[labels]):
        ours, here = genre[known_labels] == g, genre[labels] == g
        if len(np.unique(labels[here])) > 1 and ours.any():
            chosen = tuple(name for name, inside in zip(names, here, strict=True) if inside)
            parts.append(
                _measure(known[ours], known_labels[ours], rows[here], labels[here], chosen, seed)
            )
    if not parts:
        raise EvaluationError("no genre has two subgenres among the test tracks to tell apart")
    return parts


def combine(parts: Sequence[Measured], *, seed: int = 0) -> dict[str, Score]:
    """Put the parts of one or more splits together: folds, repeats, genres.

    A track's values are averaged over its parts, the score is the mean over tracks; NMI and ARI are
    averaged over parts by their size. Metrics that no part could score are left out.

    Raises:
        EvaluationError: no parts.
    """
    if not parts:
        raise EvaluationError("there is no split to score")
    ids = sorted({name for part in parts for name in part.ids})
    place = {name: i for i, name in enumerate(ids)}
    rows = [np.array([place[name] for name in part.ids]) for part in parts]
    rng = np.random.default_rng([seed, REPLICATES])
    drawn = rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), REPLICATES).astype(float)
    scores = {}
    for metric in METRICS:
        if metric in _OF_CLUSTERS:
            scores[metric] = _cluster_score(parts, rows, drawn, metric)
        elif any(metric in part.by_track for part in parts):
            scores[metric] = _track_score(parts, rows, drawn, metric)
    return scores


def _track_score(
    parts: Sequence[Measured], rows: Sequence[Ints], drawn: Floats, metric: str
) -> Score:
    total, times = np.zeros(drawn.shape[1]), np.zeros(drawn.shape[1])
    chance = weight = 0.0
    for part, at in zip(parts, rows, strict=True):
        if metric in part.by_track:
            values = part.by_track[metric]
            defined = ~np.isnan(values)
            np.add.at(total, at[defined], values[defined])
            np.add.at(times, at[defined], 1.0)
            chance += part.chance[metric] * defined.sum()
            weight += defined.sum()
    scored = times > 0
    means, counts = total[scored] / times[scored], drawn[:, scored]
    counts = counts[counts.sum(axis=1) > 0]
    replicates = counts @ means / counts.sum(axis=1)
    low, high = np.percentile(replicates, [2.5, 97.5])
    return Score(float(means.mean()), float(low), float(high), float(chance / weight))


def _cluster_score(
    parts: Sequence[Measured], rows: Sequence[Ints], drawn: Floats, metric: str
) -> Score:
    score, least = _OF_CLUSTERS[metric]
    sizes = np.array([len(part.ids) for part in parts], dtype=np.float64)
    values = [float(score(contingency(part.clusters, part.labels))) for part in parts]
    replicates = np.zeros(len(drawn))
    for part, at, size in zip(parts, rows, sizes, strict=True):
        replicates += size * score(_weighted_tables(part, drawn[:, at]))
    replicates /= sizes.sum()
    value = float(np.average(values, weights=sizes))
    centred = np.clip(replicates - replicates.mean() + value, least, 1.0)
    low, high = np.percentile(centred, [2.5, 97.5])
    chance = np.average([part.chance[metric] for part in parts], weights=sizes)
    return Score(value, float(low), float(high), float(chance))


def _weighted_tables(part: Measured, weights: Floats) -> Floats:
    """Return the contingency table of each row of `weights` [S, n], [S, K, C]."""
    n_clusters, n_labels = int(part.clusters.max()) + 1, int(part.labels.max()) + 1
    cells = np.zeros((len(part.ids), n_clusters * n_labels))
    cells[np.arange(len(part.ids)), part.clusters * n_labels + part.labels] = 1.0
    return (weights @ cells).reshape(-1, n_clusters, n_labels)


def _measure(
    train: Floats,
    train_labels: Ints,
    test: Floats,
    test_labels: Ints,
    ids: tuple[str, ...],
    seed: int,
) -> Measured:
    need_classes(train_labels, "training")
    need_classes(test_labels, "test")
    near = nearest_labels(train, train_labels, test, DEFAULT_K)
    by_track: dict[str, Floats] = {
        "centroid_accuracy": (nearest_centroids(train, train_labels, test) == test_labels) * 1.0,
        "knn_accuracy": (knn_labels(near) == test_labels) * 1.0,
        "precision_at_1": (near[:, 0] == test_labels) * 1.0,
    }
    names, labels = np.unique(test_labels, return_inverse=True)
    among = _Among(test, kmeans(test, len(names), seed=seed))
    for metric, values in among.by_track(labels[None]).items():
        if not np.isnan(values).all():
            by_track[metric] = values[0]
    largest = float(np.bincount(labels).max() / len(labels))
    chance = {"centroid_accuracy": largest, "knn_accuracy": largest}
    rng = np.random.default_rng([seed, SHUFFLES])
    chance |= among.chance(labels, rng, set(by_track))
    chance["precision_at_1"] = _shuffled_agreement(near[:, 0], test_labels, rng)
    notes = tuple(
        f"{metric}: no test track has another of its class among the {len(test)} test tracks"
        for metric in METRICS
        if metric not in by_track and metric not in _OF_CLUSTERS
    )
    return Measured(ids, by_track, among.clusters, labels, chance, notes)


def _shuffled_agreement(found: Ints, labels: Ints, rng: np.random.Generator) -> float:
    shuffled = (rng.permutation(labels) for _ in range(SHUFFLES))
    return float(np.mean([(found == row).mean() for row in shuffled]))


class _Among:
    """The scores among the test tracks, for any labelling of them."""

    def __init__(self, rows: Floats, clusters: Ints) -> None:
        self.order = own_order(rows)
        self.ranks = similarity_ranks(rows)
        self.distances = cosine_distances(rows)
        self.clusters = clusters

    def by_track(self, labels: Ints) -> dict[str, Floats]:
        """Score labellings [S, n] by track, each [S, n]; all NaN where no track has a match."""
        matched = labels.shape[1] > len(np.unique(labels[0]))
        silhouette = silhouettes(self.distances, labels)
        return {
            "r_precision": r_precisions(self.order, labels),
            "map_at_r": average_precisions(self.order, labels),
            "triplet_accuracy": triplet_shares(self.ranks, labels),
            "silhouette": silhouette if matched else np.full_like(silhouette, np.nan),
        }

    def chance(self, labels: Ints, rng: np.random.Generator, wanted: set[str]) -> dict[str, float]:
        """Return the mean of each wanted score over 1,000 shuffles of `labels` [n]."""
        widest = max(int(labels.max()) + 1, int(np.bincount(labels).max()))
        step = max(1, min(SHUFFLES, _BLOCK_NUMBERS // (len(labels) * widest)))
        found: dict[str, list[Floats]] = {}
        for start in range(0, SHUFFLES, step):
            size = min(step, SHUFFLES - start)
            shuffled = rng.permuted(np.tile(labels, (size, 1)), axis=1)
            for metric, values in self.by_track(shuffled).items():
                if metric in wanted:
                    found.setdefault(metric, []).append(np.nanmean(values, axis=1))
            table = contingency(self.clusters, shuffled)
            for metric, (score, _) in _OF_CLUSTERS.items():
                found.setdefault(metric, []).append(score(table))
        return {metric: float(np.concatenate(values).mean()) for metric, values in found.items()}
