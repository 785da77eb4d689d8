"""Scores by neighbours: nearest centroid, k-NN, precision at 1, R-precision, MAP@R, triplets.

MAP@R: Musgrave, Belongie, Lim, "A Metric Learning Reality Check" (ECCV 2020), section 3.2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from subgenre.errors import EvaluationError
from subgenre.metrics.vectors import (
    Floats,
    Ints,
    check_pair,
    check_vectors,
    need_classes,
    neighbour_order,
    one_hot,
    similarities,
    times,
    unit,
)

DEFAULT_K = 5


def nearest_centroids(
    train_vectors: ArrayLike, train_labels: ArrayLike, vectors: ArrayLike
) -> Ints:
    """Return the label of the nearest centroid for each of `vectors` [Q, D]; ties: the lowest.

    A centroid is the mean of a label's unit vectors, at norm 1 again. Nearest class mean: Mensink
    et al., "Distance-Based Image Classification" (PAMI 2013), eq. 1.
    """
    train, numbers = check_pair(train_vectors, train_labels, "training")
    names, place = np.unique(numbers, return_inverse=True)
    centres = unit(one_hot(place, len(names)).T @ train)
    rows = check_vectors(vectors, "test")
    return np.asarray(names[similarities(rows, centres).argmax(axis=1)])


def nearest_labels(
    train_vectors: ArrayLike, train_labels: ArrayLike, vectors: ArrayLike, k: int = 1
) -> Ints:
    """Return the labels of the `k` training tracks nearest to each of `vectors`, [Q, k]."""
    train, numbers = check_pair(train_vectors, train_labels, "training")
    rows = check_vectors(vectors, "test")
    return np.asarray(numbers[neighbour_order(similarities(rows, train))[:, :k]])


def knn_labels(neighbours: Ints) -> Ints:
    """Return the majority of each row of neighbours' labels [Q, k]; ties: the nearer label.

    Cover, Hart, "Nearest Neighbor Pattern Classification" (1967).
    """
    votes = (neighbours[:, :, None] == neighbours[:, None, :]).sum(axis=2)
    return np.asarray(neighbours[np.arange(len(neighbours)), votes.argmax(axis=1)])


def map_at_r(vectors: ArrayLike, labels: ArrayLike) -> float:
    """Return MAP@R: the mean of `average_precisions` over the tracks with a match."""
    rows, numbers = check_pair(vectors, labels, "test")
    need_classes(numbers, "test")
    values = average_precisions(own_order(rows), numbers[None])
    if np.isnan(values).all():
        raise EvaluationError("no test track has another of its subgenre among the test tracks")
    return float(np.nanmean(values))


def r_precisions(order: Ints, labels: Ints) -> Floats:
    """Return the share of a track's subgenre among its R nearest; R: the number of its matches.

    `order` [N, N - 1] as of `own_order`; `labels`: one or more labellings [S, N]. The result is
    [S, N], NaN for a track without a match.
    """
    hits, matches = _hits(order, labels)
    return _divide(hits.sum(axis=2), matches)


def average_precisions(order: Ints, labels: Ints) -> Floats:
    """Return the average precision at R of each track: 1/R sum over i <= R of P(i) rel(i).

    P(i) is the precision at i, rel(i) whether the i-th nearest matches. Arguments and result are
    those of `r_precisions`.
    """
    hits, matches = _hits(order, labels)
    precision = hits.cumsum(axis=2) / np.arange(1, hits.shape[2] + 1)
    return _divide((precision * hits).sum(axis=2), matches)


def triplet_shares(ranks: Floats, labels: Ints) -> Floats:
    """Return the share of a track's triplets with the positive nearer than the negative; ties half.

    All pairs of a match and a non-match count: this is the area under the track's ROC curve, here
    by the rank sum of Mann and Whitney. `ranks` as of `similarity_ranks`; `labels`: one or more
    labellings [S, N]. The result is [S, N], NaN for a track without a match or a non-match.
    """
    hot = one_hot(labels, int(labels.max()) + 1)
    count = hot.sum(axis=1)
    matches = np.take_along_axis(count, labels, axis=1) - 1
    others = labels.shape[1] - 1 - matches
    rank_sum = np.take_along_axis(times(ranks, hot), labels[..., None], axis=2)[..., 0]
    return _divide(rank_sum - matches * (matches + 1) / 2, matches * others)


def similarity_ranks(rows: Floats) -> Floats:
    """Return each track's rank of the others by similarity, from 1, ties averaged; itself 0."""
    from scipy.stats import rankdata

    similarity = similarities(rows, rows)
    np.fill_diagonal(similarity, -np.inf)
    return np.asarray(rankdata(similarity, axis=1) - 1, dtype=np.float64)


def own_order(rows: Floats) -> Ints:
    """Return the other tracks of each, nearest first, [N, N - 1]."""
    similarity = similarities(rows, rows)
    np.fill_diagonal(similarity, -np.inf)
    return neighbour_order(similarity)[:, :-1]


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, n_labels: int) -> Ints:
    """Return how many tracks of each label (row) were taken for each (column), [n, n]."""
    truth, taken = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    flat = np.bincount(truth * n_labels + taken, minlength=n_labels * n_labels)
    return np.asarray(flat.reshape(n_labels, n_labels), dtype=np.int64)


def _hits(order: Ints, labels: Ints) -> tuple[Floats, Ints]:
    """Return rel(i) up to R, [S, N, max R], and R, [S, N]."""
    counts = (labels[:, :, None] == np.arange(labels.max() + 1)).sum(axis=1)
    matches = np.take_along_axis(counts, labels, axis=1) - 1
    depth = max(1, int(matches.max()))
    near = labels[:, order[:, :depth]]
    inside = np.arange(depth) < matches[:, :, None]
    return ((near == labels[:, :, None]) & inside).astype(np.float64), matches


def _divide(part: Floats, whole: Floats | Ints) -> Floats:
    found = np.full(part.shape, np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found
