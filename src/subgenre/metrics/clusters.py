"""Scores of clusters: NMI and ARI of k-means, and the silhouette by cosine.

NMI: Strehl, Ghosh, "Cluster Ensembles" (JMLR 2002), normalised by the mean of the two entropies.
ARI: Hubert, Arabie, "Comparing Partitions" (1985), equation 5. Silhouette: Rousseeuw (1987).
"""

from __future__ import annotations

import warnings

import numpy as np

from subgenre.metrics.vectors import Floats, Ints, one_hot, similarities, times


def kmeans(rows: Floats, k: int, seed: int) -> Ints:
    """Return the cluster of each unit vector [N]: k-means, best of 10 restarts, by scikit-learn."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    model = KMeans(n_clusters=k, n_init=10, random_state=seed % 2**32)
    with warnings.catch_warnings():
        # fewer different points than clusters: a collapsed embedding, which scores as such
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(model.fit_predict(rows), dtype=np.int64)


def contingency(clusters: Ints, labels: Ints) -> Floats:
    """Return how many tracks each cluster has of each label.

    `clusters` [N]; `labels` [N] give [K, C], or several labellings [S, N] give [S, K, C].
    """
    hot_clusters = one_hot(clusters, int(clusters.max()) + 1)
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
