"""The light classifiers of the audits, their folds, and bootstrap intervals.

No classifier sees the labels of the tracks that it is judged on. Vectors are [N, D], labels [N] are
class numbers, a fold is a pair of positions (train, test).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import StratifiedGroupKFold

from subgenre.dataset.splits import Split
from subgenre.errors import EvaluationError
from subgenre.evaluation.audits.base import Interval
from subgenre.metrics import Score, share_interval
from subgenre.metrics.vectors import Floats, Ints, one_hot, standardisation, standardised, unit
from subgenre.search.gaussians import SHRINKAGE, Gaussians

Fold = tuple[Ints, Ints]

BOOTSTRAPS = 1000


def checked(vectors: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints]:
    """Return vectors [N, D] as float64 and labels [N] as integers.

    Raises: EvaluationError where shapes disagree, a vector is not finite, a label is negative, or
    there are fewer than two subgenres.
    """
    x, y = np.asarray(vectors, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise EvaluationError(f"vectors {x.shape} and labels {y.shape} do not match")
    broken = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if broken.size:
        raise EvaluationError(
            f"{broken.size} of {len(x)} vectors hold NaN or infinity, the first in row "
            f"{broken[0]}: encode these tracks again or leave them out"
        )
    if y.size and y.min() < 0:
        raise EvaluationError(f"a label is {y.min()}: leave trash out")
    if np.unique(y).size < 2:
        raise EvaluationError("there is only one subgenre; 2 or more are needed")
    return x, y


def standardise(train: Floats, *others: Floats) -> list[Floats]:
    """Scale the columns of all sides [n, D] so that those of `train` have mean 0 and deviation 1.

    A column that doesn't vary becomes 0.
    """
    scale = standardisation(train)
    return [standardised(x, *scale) for x in (train, *others)]


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
    -inf where a subgenre has no training track. Priors are equal: the size of a playlist does not
    predict a new track. The covariance is shrunk, see `search.gaussians`.
    """
    used, compact = np.unique(labels, return_inverse=True)
    scores = np.full((len(test), n_classes), -np.inf)
    scores[:, used] = -0.5 * Gaussians.fit(train, compact, shrinkage=shrinkage).squares(test)
    return scores


def ridge_hat(train: Floats, test: Floats) -> Floats:
    """Return the matrix [m, n] that turns training targets [n] into ridge predictions [m].

    Predictions are linear in the targets, so that a thousand permutations of the labels cost one
    matrix product. Shapes: train [n, D], test [m, D]. The penalty is the mean eigenvalue of the
    training tracks' Gram matrix. Targets should have mean 0.
    """
    fitted, new = standardise(train, test)
    gram = fitted @ fitted.T
    ridge = max(float(np.trace(gram)) / len(gram), 1e-12)
    return np.asarray(np.linalg.solve(gram + ridge * np.eye(len(gram)), fitted @ new.T).T)


def grouped_folds(labels: ArrayLike, groups: ArrayLike, k: int, *, seed: int) -> list[Fold]:
    """Return k folds stratified by labels [N] that never split a group [N].

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
    """Return the splits as positions in `ids` [N]; tracks with other ids are left out.

    Raises: EvaluationError where a fold has no training or no test tracks.
    """
    folds = []
    for split in splits:
        train, test = (np.flatnonzero(np.isin(ids, side)) for side in (split.train, split.test))
        if not train.size or not test.size:
            raise EvaluationError("a fold is empty: its tracks are not in this feature folder")
        folds.append((train, test))
    return folds


def bootstrap(values: ArrayLike, groups: ArrayLike | None = None) -> tuple[float, Floats]:
    """Return the mean of `values` [N], and the means of bootstrap draws.

    Args:
        groups: [N]; whole groups are drawn, as tracks of one artist are not independent.
    """
    x = np.asarray(values, dtype=np.float64)
    of = np.arange(x.size) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = np.bincount(of).astype(np.float64)
    total = np.bincount(of, x)
    drawn = np.random.default_rng(0).multinomial(
        count.size, np.full(count.size, 1 / count.size), BOOTSTRAPS
    )
    return float(x.mean()), drawn @ total / (drawn @ count)


def interval(value: float, draws: Floats) -> Interval:
    """Return a value with the 95 % percentile interval of its bootstrap draws."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def share(right: ArrayLike, *, chance: float, groups: ArrayLike | None = None) -> Score:
    """Return the mean of `right` [N] (0..1, one value a track) with its 95 % bootstrap interval.

    Where all are right, or all wrong, it is Wilson's interval for that many tracks or groups.

    Args:
        groups: as of `bootstrap`.
    """
    value, draws = bootstrap(right, groups)
    n = np.size(right) if groups is None else np.unique(groups).size
    return Score(value, *share_interval(value, draws, n), chance)
