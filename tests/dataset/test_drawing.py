"""How the held-out rows are drawn, against scikit-learn's folds and plain loops."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from subgenre.dataset.splits.drawing import _repair, draw, even_folds

Ints = NDArray[np.int64]


def rows(seed: int, n: int = 100, artists: int = 12) -> tuple[Ints, Ints]:
    """Labels of 4 subgenres, and groups within each."""
    rng = np.random.default_rng(seed)
    label = np.sort(rng.integers(0, 4, n))
    return label, label * 100 + rng.integers(0, artists, n)


def peers(label: Ints, groups: Ints, k: int, seed: int) -> list[list[Ints]]:
    """The folds of scikit-learn for each of the five attempts, as places of their rows."""
    cut = []
    for number in np.random.SeedSequence(seed).generate_state(5):
        cutter = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=int(number))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a subgenre smaller than the number of folds
            cut.append([held for _, held in cutter.split(label, label, groups)])
    return cut


@pytest.mark.parametrize(("share", "seed"), [*product((0.2, 0.3, 0.45), range(2))])
def test_the_held_out_fold_is_the_one_nearest_to_the_share(share: float, seed: int) -> None:
    label, groups = rows(seed)

    def unevenness(held: Ints) -> float:
        each = [(label[held] == i).sum() - share * (label == i).sum() for i in range(4)]
        return sum(map(abs, each)) + abs(len(held) - share * len(label))

    expected = min(peers(label, groups, round(1 / share), seed)[0], key=unevenness)
    assert np.flatnonzero(draw(label, groups, share, seed)).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", [18, 21, 64, 95])  # libraries that need another attempt
def test_folds_are_the_first_attempt_that_leaves_each_subgenre_in_training(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = np.sort(rng.integers(0, 3, 14))
    label[-2:] = 3
    groups = rng.integers(0, 6, 14)
    attempts = peers(label, groups, 2, 0)
    missing = [
        sum((label[held] == i).sum() == (label == i).sum() for held in one for i in range(4))
        for one in attempts
    ]
    best = missing.index(min(missing))
    assert best > 0
    found = even_folds(label, groups, 2, 0)
    for number, held in enumerate(attempts[best]):
        assert np.flatnonzero(found == number).tolist() == held.tolist()


@pytest.mark.parametrize(("groups", "folds"), [([0, 1, 2, 3], 2), ([5, 5, 6, 6], 2), ([7] * 4, 1)])
def test_no_more_folds_than_tracks_of_a_subgenre_or_groups(groups: list[int], folds: int) -> None:
    label = np.array([0, 0, 1, 1])
    found = even_folds(label, np.array(groups), 4, 0)
    assert len(np.unique(found)) == folds
    assert found.min() == 0


@st.composite
def divided(draw: st.DrawFn) -> tuple[Ints, Ints, NDArray[np.bool_], int]:
    """Labels, groups that may span labels, a side for each group, and the least to hold out."""
    n = draw(st.integers(4, 14))

    def numbers(most: int) -> Ints:
        return np.array(draw(st.lists(st.integers(0, most), min_size=n, max_size=n)), np.int64)

    label = np.unique(numbers(2), return_inverse=True)[1]
    groups = numbers(7)
    return (
        label,
        groups,
        np.array(draw(st.lists(st.booleans(), min_size=8, max_size=8)))[groups],
        (draw(st.integers(1, 2))),
    )


@given(divided())
def test_groups_move_until_no_move_helps(
    case: tuple[Ints, Ints, NDArray[np.bool_], int],
) -> None:
    label, groups, before, least = case
    total = np.bincount(label)
    keep = np.minimum(2, np.maximum(total - 1, 1))
    needed = np.maximum(np.minimum(least, total - keep), 0)

    def train(test: NDArray[np.bool_]) -> Ints:
        return np.bincount(label[~test], minlength=len(total))

    def held(test: NDArray[np.bool_]) -> Ints:
        return np.bincount(label[test], minlength=len(total))

    found = _repair(label, groups, before, 0.3, keep, needed)
    assert all(len(np.unique(found[groups == group])) == 1 for group in groups)
    assert (train(found) >= keep).all()
    for i in np.flatnonzero(held(found) < needed):
        for group in groups[(label == i) & ~found]:
            assert (train(found | (groups == group)) < keep).any()
    if (train(before) >= keep).all() and (held(before) >= needed).all():
        assert (found == before).all()
