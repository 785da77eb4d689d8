"""Which rows are held out: scikit-learn's stratified grouped folds, drawn again where they fail."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Kind = TypeVar("_Kind", bound=np.generic)
_ATTEMPTS = 5  # drawings, the first that serves being taken


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
        # labels with fewer tracks than folds are allowed here and told of by the caller
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for i, (_, held) in enumerate(cutter.split(label, label, groups)):
            fold_of[held] = i
    return fold_of


def _seeds(seed: int) -> list[int]:
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(_ATTEMPTS)]


def _unevenness(label: NDArray[np.int64], test: NDArray[np.bool_], share: float) -> float:
    wanted = share * np.bincount(label)
    return float(np.abs(counts(label, test) - wanted).sum() + abs(test.sum() - wanted.sum()))


def even_folds(
    label: NDArray[np.int64], groups: NDArray[np.int64], k: int, seed: int
) -> NDArray[np.int64]:
    """Return the fold of each row, drawn so that no fold holds a label out whole, if that can be.

    Otherwise the drawing in which this happens least.
    """

    def held_out_whole(fold_of: NDArray[np.int64]) -> int:
        return sum(int((counts(label, fold_of != i) == 0).sum()) for i in range(k))

    return _first((_fold_numbers(label, groups, k, s) for s in _seeds(seed)), held_out_whole)


def draw(
    label: NDArray[np.int64],
    groups: NDArray[np.int64],
    share: float,
    seed: int,
    *,
    least: int = 1,
) -> NDArray[np.bool_]:
    """Return the held-out rows: the most even fold of a drawing, after `_mend`.

    `least` held-out tracks of each label are aimed at where two are left for training.
    """
    k = max(2, round(1 / share))
    total = np.bincount(label)
    keep = np.minimum(2, np.maximum(total - 1, 1))
    wanted = np.maximum(np.minimum(least, total - keep), 0)

    def drawn() -> Iterator[NDArray[np.bool_]]:
        for s in _seeds(seed):
            fold_of = _fold_numbers(label, groups, k, s)
            best = min(range(k), key=lambda i: _unevenness(label, fold_of == i, share))
            yield _mend(label, groups, fold_of == best, share, keep, wanted)

    return _first(drawn(), lambda test: int((counts(label, test) < wanted).sum()))


def _first(
    drawn: Iterable[NDArray[_Kind]], faults: Callable[[NDArray[_Kind]], int]
) -> NDArray[_Kind]:
    """Return the first drawing without faults, or else the one with the fewest."""
    found = []
    for one in drawn:
        found.append((faults(one), one))
        if not found[-1][0]:
            return one
    return min(found, key=lambda pair: pair[0])[1]


def _mend(
    label: NDArray[np.int64],
    groups: NDArray[np.int64],
    test: NDArray[np.bool_],
    share: float,
    keep: NDArray[np.int64],
    wanted: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Move groups across until each label has what it needs on both sides, where that can be.

    First back to training what training lacks (`keep`), then into test what test lacks (`wanted`),
    each time the group that leaves the sizes most even, training keeping what it needs.
    """
    test = test.copy()
    for i in range(len(keep)):
        while counts(label, ~test)[i] < keep[i]:
            test[groups == groups[test & (label == i)].min()] = False
    for i in np.argsort(np.bincount(label), kind="stable"):
        while counts(label, test)[i] < wanted[i]:
            out = np.unique(groups[(label == i) & ~test])
            moved = [test | (groups == g) for g in out]
            moved = [t for t in moved if (counts(label, ~t) >= keep).all()]
            if not moved:
                break
            test = min(moved, key=lambda t: _unevenness(label, t, share))
    return test
