"""Draw the held-out rows with scikit-learn's stratified grouped folds, in several attempts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Kind = TypeVar("_Kind", bound=np.generic)
_ATTEMPTS = 5  # the first draw without faults is used


def counts(label: NDArray[np.int64], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many rows of `mask` each label has."""
    return np.bincount(label[mask], minlength=int(label.max()) + 1).astype(np.int64)


def _fold_numbers(
    label: NDArray[np.int64], groups: NDArray[np.int64], k: int, seed: int
) -> NDArray[np.int64]:
    """Return the fold of each row, 0 to k - 1, by scikit-learn's StratifiedGroupKFold."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold_of = np.zeros(len(label), dtype=np.int64)
    k = min(k, int(np.bincount(label).max()), len(np.unique(groups)))
    if k < 2:
        return fold_of
    cutter = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # labels with fewer tracks than folds are allowed; the caller warns
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for i, (_, held) in enumerate(cutter.split(label, label, groups)):
            fold_of[held] = i
    return fold_of


def _seeds(seed: int) -> list[int]:
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(_ATTEMPTS)]


def _unevenness(label: NDArray[np.int64], test: NDArray[np.bool_], share: float) -> float:
    target = share * np.bincount(label)
    return float(np.abs(counts(label, test) - target).sum() + abs(test.sum() - target.sum()))


def even_folds(
    label: NDArray[np.int64], groups: NDArray[np.int64], k: int, seed: int
) -> NDArray[np.int64]:
    """Return the fold of each row; no fold holds all tracks of a label if that is possible.

    Otherwise the draw with the fewest such cases.
    """

    def missing_labels(fold_of: NDArray[np.int64]) -> int:
        return sum(int((counts(label, fold_of != i) == 0).sum()) for i in range(k))

    return _first((_fold_numbers(label, groups, k, s) for s in _seeds(seed)), missing_labels)


def draw(
    label: NDArray[np.int64],
    groups: NDArray[np.int64],
    share: float,
    seed: int,
    *,
    least: int = 1,
) -> NDArray[np.bool_]:
    """Return the held-out rows: the fold nearest to `share`, after `_repair`.

    At least `least` tracks of each label are held out if two then remain for training.
    """
    k = max(2, round(1 / share))
    total = np.bincount(label)
    keep = np.minimum(2, np.maximum(total - 1, 1))
    needed = np.minimum(least, total - keep)

    def drawn() -> Iterator[NDArray[np.bool_]]:
        for s in _seeds(seed):
            fold_of = _fold_numbers(label, groups, k, s)
            best = min(range(k), key=lambda i: _unevenness(label, fold_of == i, share))
            yield _repair(label, groups, fold_of == best, share, keep, needed)

    return _first(drawn(), lambda test: int((counts(label, test) < needed).sum()))


def _first(
    drawn: Iterable[NDArray[_Kind]], faults: Callable[[NDArray[_Kind]], int]
) -> NDArray[_Kind]:
    """Return the first draw without faults, or else the one with the fewest."""
    tried = []
    for one in drawn:
        tried.append((faults(one), one))
        if not tried[-1][0]:
            return one
    return min(tried, key=lambda pair: pair[0])[1]


def _repair(
    label: NDArray[np.int64],
    groups: NDArray[np.int64],
    test: NDArray[np.bool_],
    share: float,
    keep: NDArray[np.int64],
    needed: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Move groups until each label has enough rows on both sides, as far as possible.

    First training receives at least `keep` rows of each label, then test at least `needed`. Each
    move to test takes the group that keeps the sizes most even and leaves training its `keep`.
    """
    test = test.copy()
    for i in range(len(keep)):
        while counts(label, ~test)[i] < keep[i]:
            test[groups == groups[test & (label == i)].min()] = False
    for i in np.argsort(np.bincount(label), kind="stable"):
        while counts(label, test)[i] < needed[i]:
            out = np.unique(groups[(label == i) & ~test])
            moved = [test | (groups == g) for g in out]
            moved = [t for t in moved if (counts(label, ~t) >= keep).all()]
            if not moved:
                break
            test = min(moved, key=lambda t: _unevenness(label, t, share))
    return test
