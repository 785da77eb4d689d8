"""Scores of clusters: NMI and ARI of k-means, and the silhouette by cosine.

NMI: Strehl, Ghosh, "Cluster Ensembles" (JMLR 2002), normalised by the mean of the two entropies.
ARI: Hubert, Arabie, "Comparing Partitions" (1985), equation 5. Silhouette: Rousseeuw (1987).
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from subgenre.metrics.vectors import Floats, Ints, one_hot, similarities, times

REDRAWS = 40


def kmeans(
    rows: Floats, k: int, seed: int, *, restarts: int = 10, weights: Floats | None = None
) -> Ints:
    """Return the cluster of each unit vector [N]: k-means, best of the restarts, by scikit-learn.

    `weights` [N]: how often each vector counts.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    model = KMeans(n_clusters=k, n_init=restarts, random_state=seed % 2**32)
    with warnings.catch_warnings():
        # fewer different points than clusters: a collapsed embedding, which scores as such
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(model.fit_predict(rows, sample_weight=weights), dtype=np.int64)


def redrawn(rows: Floats, labels: Ints, ids: Sequence[str]) -> dict[str, Floats]:
    """Return NMI and ARI of 40 draws of the tracks, each clustered anew, [40] each.

    A draw counts each track 0, 1, 2, ... times, by a Poisson distribution of mean 1 (Hanley,
    MacGibbon, "Creating non-parametric bootstrap samples using Poisson frequencies", 2006). The
    counts come from the track's id alone, so splits and models that share tracks share draws.
    With one start of k-means the spread is too wide, with ten too narrow where subgenres lie apart:
    see "Which interval holds the true value" in `docs/experiments.md`.
    """
    streams = [np.random.default_rng(zlib.crc32(name.encode())) for name in ids]
    drawn = np.array([stream.poisson(1.0, REDRAWS) for stream in streams], dtype=np.float64).T
    drawn[~drawn.any(axis=1)] = 1.0  # a draw of no track at all
    tables = []
    for number, counts in enumerate(drawn):
        k = len(np.unique(labels[counts > 0]))
        clusters = kmeans(rows, k, number, restarts=3, weights=counts)
        tables.append(contingency(clusters, labels, counts))
    return {name: np.array([score(t) for t in tables]) for name, score in OF_CLUSTERS.items()}


def contingency(clusters: Ints, labels: Ints, counts: Floats | None = None) -> Floats:
    """Return how many tracks each cluster has of each label.

    `clusters` [N]; `labels` [N] give [K, C], or several labellings [S, N] give [S, K, C].
    `counts` [N]: how often each track counts.
    """
    hot_clusters = one_hot(clusters, int(clusters.max()) + 1)
    if counts is not None:
        hot_clusters = hot_clusters * counts[:, None]
    hot_labels = one_hot(labels, int(labels.max()) + 1)
    return np.asarray(hot_clusters.T @ hot_labels)


def nmi_of(table: Floats) -> Floats:
    """NMI = 2 I(K; C) / (H(K) + H(C)) of contingency tables [..., K, C]; 1 where both H are 0."""
    joint = table / np.maximum(table.sum(axis=(-2, -1), keepdims=True), 1e-300)
    by_cluster, by_label = joint.sum(axis=-1), joint.sum(axis=-2)
    entropies = _entropy(by_cluster) + _entropy(by_label)
    both = _entropy(joint.reshape(*joint.shape[:-2], -1))
    found = np.ones(both.shape)
    np.divide(2 * (entropies - both), entropies, out=found, where=entropies > 0)
    return np.asarray(np.clip(found, 0.0, 1.0))


def ari_of(table: Floats) -> Floats:
    """ARI of contingency tables [..., K, C]: agreement of pairs, 0 by chance, 1 where the same."""
    pairs = _pairs(table).sum(axis=(-2, -1))
    by_cluster = _pairs(table.sum(axis=-1)).sum(axis=-1)
    by_label = _pairs(table.sum(axis=-2)).sum(axis=-1)
    expected = by_cluster * by_label / np.maximum(_pairs(table.sum(axis=(-2, -1))), 1e-300)
    most = (by_cluster + by_label) / 2
    found = np.ones(pairs.shape)
    np.divide(pairs - expected, most - expected, out=found, where=most != expected)
    return found


def silhouettes(distances: Floats, labels: Ints) -> Floats:
    """Return the silhouette of each track, (b - a) / max(a, b); 0 where it is alone: [S, N].

    a: mean distance to its own subgenre's other tracks; b: to the nearest other subgenre's.
    `distances` [N, N]; `labels`: one or more labellings [S, N].
    """
    hot = one_hot(labels, int(labels.max()) + 1)
    count = hot.sum(axis=1)[:, None, :]
    total = times(distances, hot)
    own_total = np.take_along_axis(total, labels[..., None], axis=2)[..., 0]
    own_count = np.take_along_axis(count[:, 0], labels, axis=1)
    a = own_total / np.maximum(own_count - 1, 1)
    elsewhere = np.where((hot == 0) & (count > 0), total / np.maximum(count, 1), np.inf)
    b = elsewhere.min(axis=2)
    widest = np.maximum(a, b)
    defined = (own_count > 1) & (widest > 0)
    found = np.zeros(a.shape)
    np.divide(b - a, widest, out=found, where=defined)
    return found


def cosine_distances(rows: Floats) -> Floats:
    """Return 1 - cos between unit rows, [N, N], zero on the diagonal."""
    distances = np.maximum(1 - similarities(rows, rows), 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def _entropy(shares: Floats) -> Floats:
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=-1))


def _pairs(counts: Floats) -> Floats:
    return counts * (counts - 1) / 2


# scores of a contingency table of clusters against labels
OF_CLUSTERS: dict[str, Callable[[Floats], Floats]] = {"nmi": nmi_of, "ari": ari_of}
