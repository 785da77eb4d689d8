"""The light classifiers of the audits, and the folds they are judged in.

Everything is linear algebra on vectors that exist already: no training that could see the labels of
the tracks it is judged on. Vectors are [N, D], labels [N] are class numbers, a fold is a pair of
positions (train, test).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold

from subgenre.dataset.splits import Split
from subgenre.dataset.track_vectors import standardisation, standardised
from subgenre.errors import EvaluationError
from subgenre.metrics import Score, share_interval
from subgenre.metrics.vectors import unit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Fold = tuple[Ints, Ints]

BOOTSTRAPS = 1000
SHRINKAGE = 0.3  # share of the identity in the covariance: few tracks, many dimensions


def checked(vectors: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints]:
    """Return vectors [N, D] as float64 and labels [N] as integers, or say what is wrong.

    Raises: EvaluationError where shapes disagree, a vector is not finite, a label is negative, or
    there are fewer than two subgenres.
    """
    x, y = np.asarray(vectors, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise EvaluationError(
            f"vectors {x.shape} and labels {y.shape} don't match: one row a track"
        )
    broken = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if broken.size:
        raise EvaluationError(
            f"{broken.size} of {len(x)} vectors hold NaN or infinity, the first in row "
            f"{broken[0]}: encode these tracks again or leave them out"
        )
    if y.size and y.min() < 0:
        raise EvaluationError(f"a label is {y.min()}: trash has no place here, leave it out")
    if np.unique(y).size < 2:
        raise EvaluationError("there is one subgenre only: nothing to tell apart")
    return x, y


def standardise(train: Floats, *others: Floats) -> list[Floats]:
    """Return `train` and the others with the columns of `train` at mean 0 and deviation 1.

    Shapes: [n, D] each. A column that doesn't vary becomes 0.
    """
    scale = standardisation(train)
    return [standardised(x, *scale) for x in (train, *others)]


def one_hot(labels: Ints, n_classes: int) -> Floats:
    """Return labels [..., N] as [..., N, C] of zeros and ones."""
    return np.eye(n_classes)[labels]


def centroid_scores(train: Floats, labels: Ints, test: Floats, n_classes: int) -> Floats:
    """Return the cosine of each test vector to each subgenre's centroid.

    Shapes: train [n, D], labels [n], test [m, D] -> [m, C]; -inf where a subgenre has no training
    track. Both sides are standardised on the training tracks first.
    """
    fitted, new = standardise(train, test)
    hot = one_hot(labels, n_classes)
    scores = unit(new) @ unit(hot.T @ unit(fitted)).T
    return np.where(hot.any(axis=0), scores, -np.inf)


def lda_scores(
    train: Floats, labels: Ints, test: Floats, n_classes: int, *, shrinkage: float = SHRINKAGE
) -> Floats:
    """Return the log-likelihood of each subgenre by linear discriminant analysis.

    Shapes: train [n, D], labels [n], test [m, D] -> [m, C], up to a constant that subgenres share;
    -inf where a subgenre has no training track. Equal priors: the size of a playlist says nothing
    about a new track. The covariance within subgenres is shrunk towards a multiple of the identity
    (Friedman 1989, eq. 18).
    """
    fitted, new = _varying(train, test)
    residual, means, count = _within(fitted, labels, n_classes)
    weights = _precision(residual, means, int((count > 0).sum()), shrinkage).T  # [D, C]
    bias = -0.5 * np.einsum("cd,dc->c", means, weights)
    return np.where(count > 0, new @ weights + bias, -np.inf)


def mahalanobis(
    train: Floats, labels: Ints, test: Floats, n_classes: int, *, shrinkage: float = SHRINKAGE
) -> Floats:
    """Return the squared Mahalanobis distance to each subgenre's mean: [m, C].

    With the shrunk covariance of `lda_scores`, and shapes as there; +inf where a subgenre has no
    training track.
    """
    fitted, new = _varying(train, test)
    residual, means, count = _within(fitted, labels, n_classes)
    n_used = int((count > 0).sum())
    both = np.concatenate([new, means])
    weighted = _precision(residual, both, n_used, shrinkage)
    own = np.einsum("md,md->m", both, weighted)  # of the tracks, then of the means
    cross = new @ weighted[len(new) :].T
    squares = own[: len(new), None] - 2 * cross + own[len(new) :]
    return np.where(count > 0, squares, np.inf)


def _varying(train: Floats, test: Floats) -> list[Floats]:
    """Standardise both sides and leave out the columns that don't vary.

    The shrinkage is a share of the mean variance, which columns of zeros would lower.
    """
    fitted, new = standardise(train, test)
    varies = fitted.any(axis=0)
    return [fitted[:, varies], new[:, varies]]


def _within(fitted: Floats, labels: Ints, n_classes: int) -> tuple[Floats, Floats, Floats]:
    """Residuals [n, D] from the subgenres' means [C, D], and tracks a subgenre [C]."""
    hot = one_hot(labels, n_classes)
    count = hot.sum(axis=0)
    means = (hot.T @ fitted) / np.maximum(count, 1)[:, None]
    return fitted - means[labels], means, count


def _precision(residual: Floats, rows: Floats, n_used: int, shrinkage: float) -> Floats:
    """Rows [m, D] times the inverse of the shrunk covariance of the residuals [n, D].

    By Woodbury's identity in the space of the training tracks, as D is mostly above n.
    """
    freedom = max(len(residual) - n_used, 1)
    alpha = shrinkage * max(float((residual**2).sum()) / freedom / max(residual.shape[1], 1), 1e-12)
    gamma = alpha * freedom / (1 - shrinkage)
    gram = residual @ residual.T + gamma * np.eye(len(residual))
    inside = np.linalg.solve(gram, residual @ rows.T).T @ residual
    return np.asarray((rows - inside) / alpha)


def ridge_hat(train: Floats, test: Floats, *, penalty: float = 1.0) -> Floats:
    """Return the matrix [m, n] that turns training targets [n] into ridge predictions [m].

    Predictions are linear in the targets, so that a thousand permutations of the labels cost one
    matrix product. Shapes: train [n, D], test [m, D]. The penalty is a multiple of the mean
    eigenvalue of the training tracks' Gram matrix. Targets should have mean 0.
    """
    fitted, new = standardise(train, test)
    gram = fitted @ fitted.T
    ridge = penalty * max(float(np.trace(gram)) / len(gram), 1e-12)
    return np.asarray(np.linalg.solve(gram + ridge * np.eye(len(gram)), fitted @ new.T).T)


def grouped_folds(labels: ArrayLike, groups: ArrayLike, k: int, *, seed: int) -> list[Fold]:
    """Return k folds stratified by labels [N] that never part a group [N].

    Fewer folds where a subgenre has fewer groups than k, down to 2.
    """
    y, g = np.asarray(labels, dtype=np.int64), np.unique(groups, return_inverse=True)[1]
    fewest = min(np.unique(g[y == c]).size for c in np.unique(y))
    k = max(2, min(k, fewest))
    if np.unique(g).size < k:
        raise EvaluationError("all tracks belong to one group: no fold can be held out")
    splitter = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # the audits report a subgenre smaller than k themselves
        warnings.simplefilter("ignore", UserWarning)
        pairs = list(splitter.split(np.zeros(len(y)), y, g))
    return [(np.asarray(train), np.asarray(test)) for train, test in pairs if len(test)]


def fold_positions(splits: Sequence[Split], ids: Sequence[str]) -> list[Fold]:
    """Return the splits as positions in `ids` [N], a track id a row; other tracks are passed over.

    Raises: EvaluationError where a fold is left without training or test tracks.
    """
    sides = [[np.isin(list(ids), list(side)) for side in (s.train, s.test)] for s in splits]
    return checked_folds([(np.flatnonzero(a), np.flatnonzero(b)) for a, b in sides], len(ids))


def checked_folds(folds: Sequence[Fold], n: int) -> list[Fold]:
    """Return folds as arrays of positions below n; a fold that leaks or is empty is refused."""
    result = []
    for train, test in folds:
        a, b = np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64)
        if not a.size or not b.size or max(a.max(), b.max()) >= n or min(a.min(), b.min()) < 0:
            raise EvaluationError(f"a fold is empty or names a track outside 0..{n - 1}")
        if np.intersect1d(a, b).size:
            raise EvaluationError("a fold has the same track in training and test")
        result.append((a, b))
    if not result:
        raise EvaluationError("no folds: give at least one pair of training and test positions")
    return result


def share(right: ArrayLike, *, chance: float, groups: ArrayLike | None = None) -> Score:
    """Return the mean of `right` [N] (0..1, one value a track) with its 95 % bootstrap interval.

    Where all are right, or all wrong, the interval is Wilson's for so many tracks, or groups.

    Args:
        groups: as of `mean_interval`.
    """
    value, draws = _bootstrap(right, groups)
    n = np.size(right) if groups is None else np.unique(groups).size
    low, high = share_interval(value, draws, n)
    return Score(value=value, low=low, high=high, chance=chance)


def mean_interval(
    values: ArrayLike, *, groups: ArrayLike | None = None
) -> tuple[float, float, float]:
    """Return the mean of `values` [N], one a track, and its 95 % bootstrap interval.

    Args:
        groups: [N]; whole ones are drawn, as tracks of one artist are not independent.
    """
    value, draws = _bootstrap(values, groups)
    low, high = np.percentile(draws, [2.5, 97.5])
    return value, float(low), float(high)


def _bootstrap(values: ArrayLike, groups: ArrayLike | None) -> tuple[float, Floats]:
    """Return the mean of `values` [N], and those of the draws."""
    x = np.asarray(values, dtype=np.float64)
    of = np.arange(x.size) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = np.bincount(of).astype(np.float64)
    total = np.bincount(of, x)
    drawn = np.random.default_rng(0).multinomial(
        count.size, np.full(count.size, 1 / count.size), BOOTSTRAPS
    )
    return float(x.mean()), drawn @ total / (drawn @ count)
