"""Splits, folds and validation sets of any library: nothing on both sides, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgenre.dataset.splits import BY_ARTIST, Split, folds, split, validation
from subgenre.errors import SplitError

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Row:
    id: str
    genre: str
    subgenre: str
    artists: tuple[str, ...]
    artist: str
    album: str


# separators that are part of no artist's name
SEPARATORS = ("; ", ";", " feat. ", " ft ", " vs. ", "\0", " featuring ")


@st.composite
def libraries(draw: st.DrawFn) -> list[Row]:
    """A library of 2 to 4 subgenres: copies of recordings, several artists a tag, albums."""
    rows = {}
    for label in range(draw(st.integers(2, 4))):
        for _ in range(draw(st.integers(2, 9))):
            number = draw(st.integers(0, 60))
            artists = tuple(draw(st.lists(st.sampled_from("abcdefgh"), max_size=3)))
            separator = draw(st.sampled_from(SEPARATORS))
            album = draw(st.sampled_from(["", "", "one", "two", "three"]))
            rows[label, number] = Row(
                f"{number:03d}",
                f"genre {label % 2}",
                f"sub {label}",
                artists,
                separator.join(name.upper() if number % 2 else name for name in artists),
                album,
            )
    return list(rows.values())


def drawn(draw: Callable[[], Split]) -> Split | None:
    """Draw a split; a library that has none is refused."""
    try:
        return draw()
    except SplitError:
        return None


def check_sides(found: Split, rows: list[Row], everyone: set[str]) -> None:
    """Compare all pairs of tracks across the sides."""
    train, test = set(found.train), set(found.test)
    assert not train & test
    assert train | test == everyone
    for one in (row for row in rows if row.id in train):
        for other in (row for row in rows if row.id in test):
            if found.grouped_by == BY_ARTIST:
                assert not set(one.artists) & set(other.artists)
                assert not one.album or one.album != other.album


def labels_of(rows: list[Row], ids: tuple[str, ...]) -> set[str]:
    return {row.subgenre for row in rows if row.id in ids}


@given(libraries(), st.sampled_from([0.1, 0.2, 0.35, 0.5]), st.integers(0, 3), st.booleans())
def test_no_split_leaks(rows: list[Row], share: float, seed: int, strict: bool) -> None:
    def draw(given: list[Row]) -> Split | None:
        return drawn(lambda: split(given, test_share=share, seed=seed, strict_groups=strict))

    found = draw(rows)
    assert draw(rows[::-1]) == found
    if found is None:
        return
    check_sides(found, rows, {row.id for row in rows})
    assert not strict or found.grouped_by == BY_ARTIST
    assert bool(found.warnings) == (found.grouped_by != BY_ARTIST)
    everything = {row.subgenre for row in rows}
    assert labels_of(rows, found.train) == labels_of(rows, found.test) == everything
    for label in everything:
        own = [row.id in found.train for row in rows if row.subgenre == label]
        assert sum(own) >= min(2, len(own) - 1)


@given(libraries(), st.integers(2, 4), st.integers(0, 3), st.booleans())
def test_no_fold_leaks(rows: list[Row], k: int, seed: int, strict: bool) -> None:
    everyone = {row.id for row in rows}
    try:
        found = folds(rows, k, seed=seed, strict_groups=strict)
    except SplitError:
        return
    assert len(found) == k
    assert sorted(i for one in found for i in one.test) == sorted(everyone)
    for one in found:
        check_sides(one, rows, everyone)
        assert labels_of(rows, one.train) == {row.subgenre for row in rows}
        assert not strict or one.grouped_by == BY_ARTIST
    missing = {
        row.subgenre for row in rows for f in found if row.subgenre not in labels_of(rows, f.test)
    }
    said = [text for text in found[0].warnings if text.startswith("not in the test side")]
    assert bool(said) == bool(missing)
    assert all(f"/{label}" in said[0] for label in missing)


@given(libraries(), st.sampled_from([0.1, 0.3]), st.integers(0, 3), st.booleans())
def test_no_validation_set_leaks(rows: list[Row], share: float, seed: int, strict: bool) -> None:
    train = {row.id for row in rows if int(row.id) % 5}
    found = drawn(lambda: validation(rows, train, share=share, seed=seed, strict_groups=strict))
    if found is None:
        return
    assert found.test
    check_sides(found, rows, train)
    assert not strict or found.grouped_by == BY_ARTIST
    for label in {row.subgenre for row in rows}:
        total, held = (
            sum(row.subgenre == label and row.id in ids for row in rows)
            for ids in (train, found.test)
        )
        assert held < total or not total
        # two of each subgenre of four or more; without groups that prevent it
        if total >= 4 and not found.warnings:
            assert held >= 2


def test_a_library_of_one_subgenre_is_refused() -> None:
    rows = [Row(str(i), "g", "s", (), "", "") for i in range(9)]
    with pytest.raises(SplitError, match="2 or more are needed"):
        split(rows)
