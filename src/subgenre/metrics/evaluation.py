"""All scores of a split, each with its chance level.

Chance: for the two accuracies the share of the largest class among the test tracks; for the others
the mean over 1,000 shuffles of the test labels, with the same vectors and clusters; for a metric
with a function of its own, over 20.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from subgenre.errors import EvaluationError
from subgenre.metrics import retrieval
from subgenre.metrics.clusters import (
    OF_CLUSTERS,
    contingency,
    cosine_distances,
    kmeans,
    redrawn,
    silhouettes,
)
from subgenre.metrics.influence import (
    influences,
    precisions_without,
    silhouettes_without,
    triplets_without,
)
from subgenre.metrics.intervals import Measured
from subgenre.metrics.registry import METRICS
from subgenre.metrics.vectors import Floats, Ints, check_pair, need_classes

VIEWS = ("all", "within", "across")
SHUFFLES = 1000
SHUFFLES_OF_FUNCTIONS = 20  # a function takes one labelling at a time

_BLOCK_NUMBERS = 500_000  # numbers held at once while labels are shuffled (4 MB)


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
    """Score one split by every metric of `METRICS`, for `combine`.

    Args:
        train, test: track vectors [N, D]. train_labels, test_labels: subgenre numbers [N].
        genres: genre number of each subgenre.
        seed: of k-means and shuffles.
        view: `all`; `within`: one part for each genre, its subgenres being the only candidates;
            `across`: genres in place of subgenres.
        ids: of the test tracks, which several splits may share; by default their numbers.

    Raises:
        EvaluationError: vectors that are not finite or zero, fewer than two classes, a wrong view.
    """
    if view not in VIEWS:
        raise EvaluationError(f"view is '{view}'; choose all, within or across")
    known, known_labels = check_pair(train, train_labels, "training")
    rows, labels = check_pair(test, test_labels, "test")
    names = tuple(ids) if ids is not None else tuple(str(i) for i in range(len(rows)))
    genre = np.asarray(genres, dtype=np.int64)
    last = max(labels.max(), known_labels.max())
    if last >= len(genre):
        raise EvaluationError(f"label {last} has no genre")
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
        raise EvaluationError("no genre has two subgenres among the test tracks")
    return parts


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
    nearest = retrieval.nearest_centroids(train, train_labels, test)
    near = retrieval.nearest_labels(train, train_labels, test, retrieval.DEFAULT_K)
    by_track: dict[str, Floats] = {
        "centroid_accuracy": (nearest == test_labels) * 1.0,
        "knn_accuracy": (retrieval.knn_labels(near) == test_labels) * 1.0,
        "precision_at_1": (near[:, 0] == test_labels) * 1.0,
    }
    names, labels = np.unique(test_labels, return_inverse=True)
    among = _Among(test, kmeans(test, len(names), seed))
    for metric, values in among.by_track(labels[None]).items():
        if not np.isnan(values).all():
            by_track[metric] = values[0]
    influence = {
        metric: values for metric, values in among.influence(labels).items() if metric in by_track
    }
    largest = float(np.bincount(labels).max() / len(labels))
    chance = {"centroid_accuracy": largest, "knn_accuracy": largest}
    rng = np.random.default_rng([seed, SHUFFLES])
    chance |= among.chance(labels, rng, set(by_track))
    shuffled = (rng.permutation(test_labels) for _ in range(SHUFFLES))
    chance["precision_at_1"] = float(np.mean([(near[:, 0] == row).mean() for row in shuffled]))
    for own in METRICS.values():
        if own.by_track is None:
            continue
        values = own.by_track(train, train_labels, test, test_labels)
        if np.isnan(values).all():
            continue
        by_track[own.name] = values
        shuffled = (rng.permutation(test_labels) for _ in range(SHUFFLES_OF_FUNCTIONS))
        draws = [own.by_track(train, train_labels, test, row) for row in shuffled]
        chance[own.name] = float(np.nanmean(draws))
    notes = tuple(
        f"{METRICS[metric].title} is left out: no test track has another of its class among the "
        f"{len(test)} test tracks."
        for metric in METRICS
        if metric not in by_track and metric not in OF_CLUSTERS
    )
    table = contingency(among.clusters, labels)
    of_clusters = {name: float(score(table)) for name, score in OF_CLUSTERS.items()}
    again = redrawn(test, labels, ids)
    return Measured(ids, by_track, influence, of_clusters, again, chance, notes)


class _Among:
    """The scores among the test tracks, for any labelling of them."""

    def __init__(self, rows: Floats, clusters: Ints) -> None:
        self.order = retrieval.own_order(rows)
        self.ranks = retrieval.similarity_ranks(rows)
        self.distances = cosine_distances(rows)
        self.clusters = clusters

    def by_track(self, labels: Ints) -> dict[str, Floats]:
        """Score labellings [S, n] by track, each [S, n]; all NaN where no track has a match."""
        matched = labels.shape[1] > len(np.unique(labels[0]))
        silhouette = silhouettes(self.distances, labels)
        return {
            "r_precision": retrieval.r_precisions(self.order, labels),
            "map_at_r": retrieval.average_precisions(self.order, labels),
            "triplet_accuracy": retrieval.triplet_shares(self.ranks, labels),
            "silhouette": silhouette if matched else np.full_like(silhouette, np.nan),
        }

    def influence(self, labels: Ints) -> dict[str, Floats]:
        """Return the influence of each track on the scores of `by_track`, each [n]."""
        r_precision, average = precisions_without(self.order, labels)
        return {
            "r_precision": influences(r_precision),
            "map_at_r": influences(average),
            "triplet_accuracy": influences(triplets_without(self.ranks, labels)),
            "silhouette": influences(silhouettes_without(self.distances, labels)),
        }

    def chance(
        self, labels: Ints, rng: np.random.Generator, requested: set[str]
    ) -> dict[str, float]:
        """Return the mean of each requested score over 1,000 shuffles of `labels` [n]."""
        widest = max(int(labels.max()) + 1, int(np.bincount(labels).max()))
        step = max(1, min(SHUFFLES, _BLOCK_NUMBERS // (len(labels) * widest)))
        found: dict[str, list[Floats]] = {}
        for start in range(0, SHUFFLES, step):
            size = min(step, SHUFFLES - start)
            shuffled = rng.permuted(np.tile(labels, (size, 1)), axis=1)
            for metric, values in self.by_track(shuffled).items():
                if metric in requested:
                    found.setdefault(metric, []).append(np.nanmean(values, axis=1))
            table = contingency(self.clusters, shuffled)
            for metric, score in OF_CLUSTERS.items():
                found.setdefault(metric, []).append(score(table))
        return {metric: float(np.concatenate(values).mean()) for metric, values in found.items()}
