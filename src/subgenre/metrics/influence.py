"""The influence of each track on a score among the test tracks, as a query and as a neighbour.

A track takes part in the values of all others, so the values are no independent draws, and an
interval from them alone is too narrow. Leaving each track out in turn (jackknife: Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 11) gives its whole influence.
"""

from __future__ import annotations

import numpy as np

from subgenre.metrics.vectors import Floats, Ints, one_hot

_BLOCK_NUMBERS = 500_000  # numbers held at once while tracks are left out in turn (4 MB)


def influences(without: Floats) -> Floats:
    """Return the influence of each track [N], summing to 0, from the scores without it [N].

    NaN, where nothing can be scored without a track, counts as no influence.
    """
    if np.isnan(without).all():
        return np.zeros(len(without))
    found = (len(without) - 1) * (np.nanmean(without) - without)
    return np.asarray(np.nan_to_num(found), dtype=np.float64)


def precisions_without(order: Ints, labels: Ints) -> tuple[Floats, Floats]:
    """Return R-precision and MAP@R without each track in turn, two [N].

    `order` [N, N - 1]: the other tracks of each, nearest first; `labels` [N].
    """
    n = len(labels)
    matches = np.bincount(labels)[labels] - 1
    depth = max(1, int(matches.max()))
    near = order[:, : depth + 1]
    if near.shape[1] == depth:  # one class but for a track: pad with a place that never counts
        near = np.concatenate([near, near[:, -1:]], axis=1)
    r_precision, average = np.empty(n), np.empty(n)
    step = max(1, _BLOCK_NUMBERS // (n * (depth + 1)))
    for start in range(0, n, step):
        out = np.arange(start, min(start + step, n))
        gone = np.cumsum(near == out[:, None, None], axis=2)[:, :, :depth] > 0
        kept = np.where(gone, near[None, :, 1:], near[None, :, :-1])
        left = matches - (labels == labels[out, None])
        inside = np.arange(depth) < left[:, :, None]
        hits = (labels[kept] == labels[:, None]) & inside
        precision = np.cumsum(hits, axis=2) / np.arange(1, depth + 1)
        scored = (left > 0) & (np.arange(n) != out[:, None])
        for scores, sums in ((r_precision, hits.sum(2)), (average, (precision * hits).sum(2))):
            scores[out] = _mean_of(sums / np.maximum(left, 1), scored)
    return r_precision, average


def triplets_without(ranks: Floats, labels: Ints) -> Floats:
    """Return the triplet accuracy without each track in turn, [N].

    `ranks` [N, N] as for `triplet_shares`; `labels` [N].
    """
    same = labels[:, None] == labels
    other = ~same
    np.fill_diagonal(same, False)
    # pairs that a track wins or loses for each anchor: as a positive, the negatives that lie
    # farther; as a negative, the positives that lie nearer; ties count half
    among_same = _ranks_within(ranks, same)
    among_other = _ranks_within(ranks, other)
    matches, others = same.sum(axis=1)[:, None], other.sum(axis=1)[:, None]
    share = np.where(same, ranks - among_same, matches - (ranks - among_other))
    np.fill_diagonal(share, 0.0)
    wins = np.where(same, share, 0.0).sum(axis=1)[:, None] - share
    pairs = (matches - same) * (others - other)
    scored = pairs > 0
    np.fill_diagonal(scored, False)
    return _mean_of((wins / np.maximum(pairs, 1)).T, scored.T)


def silhouettes_without(distances: Floats, labels: Ints) -> Floats:
    """Return the mean silhouette without each track in turn, [N]; `distances` [N, N]."""
    n = len(labels)
    hot = one_hot(labels, int(labels.max()) + 1)
    total, count = distances @ hot, hot.sum(axis=0)
    without = np.empty(n)
    for i in range(n):
        left = count - hot[i]
        sums = total - distances[:, [i]] * hot[i]
        own = left[labels] - 1
        a = sums[np.arange(n), labels] / np.maximum(own, 1)
        elsewhere = np.where((hot == 0) & (left > 0), sums / np.maximum(left, 1), np.inf)
        b = elsewhere.min(axis=1)
        widest = np.maximum(a, b)
        defined = (own > 0) & (widest > 0) & np.isfinite(b)
        values = np.where(defined, b - a, 0.0) / np.where(defined, widest, 1.0)
        without[i] = np.delete(values, i).mean()
    return without


def _ranks_within(ranks: Floats, chosen: np.ndarray) -> Floats:
    """Return the rank of each chosen place among the chosen of its row, ties averaged."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(np.where(chosen, ranks, np.inf), axis=1), dtype=np.float64)


def _mean_of(values: Floats, scored: np.ndarray) -> Floats:
    """Return the mean of the scored values of each row; NaN where there is none."""
    count = scored.sum(axis=1)
    total = np.where(scored, values, 0.0).sum(axis=1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
