"""Splits, folds and validation sets: sides, groups and refused leaks."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from subgenre import config
from subgenre.core import files
from subgenre.dataset.splits import (
    BY_ARTIST,
    BY_TRACK,
    Split,
    check,
    check_validation,
    folds,
    load,
    save,
    split,
    validation,
)
from subgenre.dataset.splits.grouping import Rows
from subgenre.errors import ConfigError, SplitError
from subgenre.training import fit
from tests.folders import make_folder


@dataclass(frozen=True)
class Row:
    id: str
    genre: str
    subgenre: str
    artist: str = ""
    album: str = ""
    trash: bool = False


def library(n_labels: int = 6, per_label: int = 20, artists: int = 8, seed: int = 0) -> list[Row]:
    """Tracks of `artists` artists a subgenre; 0: without tags."""
    rng = np.random.default_rng(seed)
    return [
        Row(
            f"{label:02d}{i:04d}",
            f"genre{label % 3}",
            f"sub{label}",
            artist=f"artist {label}-{rng.integers(artists)}" if artists else "",
        )
        for label in range(n_labels)
        for i in range(per_label)
    ]


def per_label(rows: list[Row], ids: tuple[str, ...]) -> Counter[str]:
    return Counter(row.subgenre for row in rows if row.id in set(ids))


def straddling(rows: list[Row], one: tuple[str, ...], two: tuple[str, ...], field: str) -> set[str]:
    sides = [{getattr(r, field).casefold().strip() for r in rows if r.id in s} for s in (one, two)]
    return sides[0] & sides[1]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.35, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_without_tags_every_subgenre_gives_its_share(share: float, seed: int) -> None:
    rows = library(artists=0)
    found = split(rows, test_share=share, seed=seed)
    assert set(found.train) | set(found.test) == {row.id for row in rows}
    assert not set(found.train) & set(found.test)
    for n in per_label(rows, found.test).values():
        assert abs(n - 20 * share) <= 3.1
    assert found.grouped_by == BY_ARTIST
    assert found.warnings == ()


@pytest.mark.parametrize("share", [0.019, 0.501, 1.0, float("nan")])
def test_a_share_that_leaves_too_little_on_a_side_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="test_share"):
        split(library(), test_share=share)


@pytest.mark.parametrize("seed", range(5))
def test_artists_and_albums_stay_on_one_side(seed: int) -> None:
    rows = library(seed=seed)
    # one album binds two subgenres' tracks together
    rows[0] = replace(rows[0], album="Compiled ")
    rows[25] = replace(rows[25], album="compiled")
    found = split(rows, seed=seed)
    assert found.grouped_by == BY_ARTIST
    assert not straddling(rows, found.train, found.test, "artist")
    assert not straddling(rows, found.train, found.test, "album") - {""}
    train, test = per_label(rows, found.train), per_label(rows, found.test)
    assert min(train.values()) >= 2
    assert len(train) == len(test) == 6
    assert 0.1 < len(found.test) / len(rows) < 0.35


def test_placeholder_names_group_no_tracks() -> None:
    names = ["", "Unknown", " unknown  artist ", "VARIOUS ARTISTS", "<Unknown>", "va"]
    rows = [replace(row, artist=names[i % 6], album="Unknown") for i, row in enumerate(library())]
    assert split(rows, strict_groups=True).grouped_by == BY_ARTIST


@pytest.mark.parametrize(
    ("artists", "groups"),
    [
        (["Ann", "Ann; Ben", "Ben\0Cem", "Dan"], "aaab"),
        (["Ann feat. Ben", "BEN ft. Cem", "Cem", "Feature"], "aaab"),
        (["Ann (feat. Ben)", "Cem featuring Ann", "Dan", "Eve"], "aabc"),
        (["Ann & Ben", "Ben x Cem", "Cem vs. Dan", "Dan/Eve", "Max X", "X"], "aaaabc"),
        (["Ann, Ben & Cem", "Cem", "Ben \u00d7 Dan", "Eve"], "aaab"),
        (["AC/DC", "AC/DC", "DC", "AC"], "aaaa"),  # each part is an artist
        (["AC/DC", "AC/DC", "DC"], "aab"),
        (["AC/DC feat. Bon", "AC/DC", "DC", "Bon"], "aaba"),
        (["Earth, Wind & Fire"] * 2 + ["Earth, Wind & Fire & Chaka", "Fire", "Chaka"], "aaaba"),
        (["Ann & <Unknown>", "Ben & <Unknown>", "Various Artists"], "abc"),
        (["V.A.", "V.A.", "V/A", "V/A", "n/a", "N/A", "None", "none"], "abcdefgh"),
        (["The Unknown", "The Unknown", "Unknown", "unknown"], "aabc"),
        (["The Beatles", "Beatles", "Beatles, The", "Ann & the Beatles", "The The"], "aaaab"),
        (["A\u200bB", "AB"], "aa"),
        (["Simon and Garfunkel"] * 2 + ["Simon", "Ann"], "aabc"),
        (["Ann & Ben"] * 2 + ["Ben and Ann", "Ann"], "aaaa"),
        (["Ann & Ben"] * 2 + ["Ben & Cem"] * 2 + ["Ann & Ben & Cem"], "aaaaa"),
        (["Ann & Ben", "Ann & Ben & Cem"], "aa"),
        (["10,000 Maniacs"] * 2 + ["10", "000 Maniacs & Ann"], "aabc"),
        (["+44", "+44", "44"], "aab"),
        (["Little Feat", "Little Feat", "Feature Ann", "With Ann", "Vs Ann"], "aabcd"),
    ],
)
def test_tracks_that_share_any_artist_are_bound(artists: list[str], groups: str) -> None:
    rows = [Row(f"{i}", "g", f"s{i % 2}", artist) for i, artist in enumerate(artists)]
    found = Rows.of(rows).groups(BY_ARTIST)
    assert [list(found).index(n) for n in found] == [groups.index(letter) for letter in groups]


_GUESTS = (
    "feat. B|B feat. A|A feat.B|A feat: B|A feat B (live)|A (feat. B) [Remix]|A (featuring B)|"
    "A [featuring B]|A ft.B|A (vs. B)|A (vs B)|A versus B|A (with B)|A with B|A w/ B|A pres. B|"
    "A presents B|A f. B|A,B|A, and B|A\u00d7B|A + B|A+B|A and B|A \u00b7 B|A\u00b7B|A\u3001B|"
    "A\\B|A//B|A \u30fb B"
)


@pytest.mark.parametrize("artist", [*_GUESTS.split("|"), "A | B"])
def test_a_guest_binds_however_the_tag_names_it(artist: str) -> None:
    rows = [Row("0", "g", "s", artist), Row("1", "g", "s", "B"), Row("2", "g", "s", "C")]
    found = Rows.of(rows).groups(BY_ARTIST)
    assert found[0] == found[1] != found[2]
    if artist != "feat. B":
        rows[1] = replace(rows[1], artist="A")
        assert len(set(Rows.of(rows).groups(BY_ARTIST))) == 2


def test_an_artist_of_two_on_the_other_side_is_a_leak() -> None:
    rows = [Row(f"{i}", "g", f"s{i % 2}", f"artist {i}") for i in range(8)]
    rows[0], rows[1] = replace(rows[0], artist="Ann & Ben"), replace(rows[1], artist="Cem; Ann")
    ids = [row.id for row in rows]
    bad = Split(tuple(ids[1:]), (ids[0],), 0, BY_ARTIST)
    with pytest.raises(SplitError, match="artist 'ann'"):
        check(bad, rows)


def test_a_split_depends_on_the_seed_not_on_the_order() -> None:
    rows = library()
    assert split(rows, seed=3) == split(rows[::-1], seed=3)
    assert folds(rows, 4, seed=3) == folds(rows[::-1], 4, seed=3)
    assert split(rows, seed=3).test != split(rows, seed=4).test


def test_small_subgenres_are_on_both_sides() -> None:
    rows = [row for row in library(artists=0) if int(row.id[2:]) < 2 + int(row.id[:2])]
    for seed in range(5):
        found = split(rows, seed=seed)
        train, test = per_label(rows, found.train), per_label(rows, found.test)
        for label in range(6):
            total = 2 + label
            assert test[f"sub{label}"] >= 1
            assert train[f"sub{label}"] >= min(2, total - 1)


def test_an_artist_who_is_a_whole_subgenre_falls_back_with_a_warning(tmp_path: Path) -> None:
    rows = [replace(r, artist="Solo Act") if r.subgenre == "sub2" else r for r in library()]
    found = split(rows)
    assert found.grouped_by == BY_TRACK
    assert len(found.warnings) == 1
    assert "genre2/sub2" in found.warnings[0]
    assert "Solo Act" in found.warnings[0]
    assert per_label(rows, found.test)["sub2"] == 4
    save(found, tmp_path / "split.json", rows)
    assert load(tmp_path / "split.json", rows) == found
    with pytest.raises(SplitError, match=r"genre2/sub2 \(20 tracks\).*artist 'Solo Act'"):
        split(rows, strict_groups=True)
    with pytest.raises(SplitError, match="artist 'Solo Act'"):
        folds(rows, 5, strict_groups=True)
    assert folds(rows, 5)[0].warnings == found.warnings


def test_one_track_in_a_subgenre_is_refused_by_name() -> None:
    rows = [*library(), Row("lonely", "genre9", "alone")]
    for draw in (lambda: split(rows), lambda: folds(rows, 3)):
        with pytest.raises(SplitError, match="genre9/alone has 1 track; it needs 2"):
            draw()
    with pytest.raises(SplitError, match="1 subgenres were given"):
        split(library(n_labels=1))


def test_copies_of_a_recording_stay_together() -> None:
    rows = library(artists=0)
    rows += [replace(rows[i], genre="genre1", subgenre="sub1") for i in range(10)]
    for found in [split(rows, seed=5), *folds(rows, 4, seed=5)]:
        assert not set(found.train) & set(found.test)
        check(found, rows)


def test_trash_is_on_no_side() -> None:
    rows = [*library(), *(Row(f"trash{i}", "", "", trash=True) for i in range(5))]
    found = split(rows)
    assert not any(i.startswith("trash") for i in (*found.train, *found.test))


@pytest.mark.parametrize("artists", [0, 9])
def test_folds_test_each_track_once(artists: int) -> None:
    rows = library(artists=artists)
    found = folds(rows, 5, seed=1)
    assert sorted(i for one in found for i in one.test) == sorted(row.id for row in rows)
    for one in found:
        assert set(one.train) | set(one.test) == {row.id for row in rows}
        assert len(per_label(rows, one.train)) == 6
        assert not straddling(rows, one.train, one.test, "artist") - {""}
        assert one.grouped_by == BY_ARTIST
        if not artists:
            assert set(per_label(rows, one.test).values()) == {4}


def test_folds_warn_of_a_small_subgenre() -> None:
    rows = [*library(artists=0), Row("a", "genre0", "rare"), Row("b", "genre0", "rare")]
    found = folds(rows, 5)
    assert all(per_label(rows, one.train)["rare"] >= 1 for one in found)
    assert "not in the test side of all 5 folds: genre0/rare" in found[0].warnings[0]
    with pytest.raises(SplitError, match=r"30 folds were requested and the largest .* 20 tracks"):
        folds(rows, 30)


def test_validation_is_grouped_inside_the_training_side() -> None:
    rows = library(per_label=30, artists=12)
    outer = split(rows, seed=2)
    inner = validation(rows, outer.train, share=0.2, seed=2)
    fit, held = inner.train, inner.test
    assert inner.warnings == ()
    assert sorted((*fit, *held)) == sorted(outer.train)
    assert not straddling(rows, fit, held, "artist")
    assert min(per_label(rows, held).values()) >= 2
    assert len(per_label(rows, fit)) == 6
    assert validation(rows, outer.train, share=0.2, seed=2) == inner
    none = validation(rows, outer.train, share=0)
    assert (none.train, none.test) == (outer.train, ())


def test_a_subgenre_of_one_artist_keeps_the_other_groups_strict() -> None:
    rows = library(per_label=30, artists=12, n_labels=3)
    rows = [replace(row, artist="one") if row.subgenre == "sub0" else row for row in rows]
    ids, others = [row.id for row in rows], [row for row in rows if row.subgenre != "sub0"]
    inner = validation(rows, ids, share=0.2)
    assert straddling(rows, inner.train, inner.test, "artist") == {"one"}
    assert inner.grouped_by == BY_TRACK
    assert min(per_label(rows, inner.test).values()) >= 2
    (warning,) = inner.warnings
    assert "validation" in warning
    assert "genre0/sub0;" in warning
    strict = validation(rows, ids, share=0.2, strict_groups=True)
    assert not straddling(rows, strict.train, strict.test, "artist")
    assert set(per_label(rows, strict.test)) == {row.subgenre for row in others}
    assert "no validation tracks" in strict.warnings[0]


def test_an_artist_that_stays_in_training_is_in_no_validation_set() -> None:
    rows = library(per_label=30, artists=12, n_labels=3)
    shared = next(row.artist for row in rows if row.subgenre == "sub1")
    rows = [replace(row, artist=shared) if row.subgenre == "sub0" else row for row in rows]
    strict = validation(rows, [row.id for row in rows], share=0.2, strict_groups=True)
    assert not straddling(rows, strict.train, strict.test, "artist")
    assert "sub0" not in per_label(rows, strict.test)
    assert per_label(rows, strict.test)["sub1"] >= 2


def test_validation_keeps_small_subgenres_in_training() -> None:
    rows = [*library(artists=0), Row("rare", "genre0", "rare"), Row("rare2", "genre1", "rare")]
    inner = validation(rows, [row.id for row in rows], share=0.2)
    fit, held = inner.train, inner.test
    assert {"rare", "rare2"} <= set(fit)
    assert per_label(rows, held)["sub0"] >= 2
    with pytest.raises(SplitError, match="set val_share to 0"):
        validation(rows, ["rare", "rare2"], share=0.2)


@pytest.mark.parametrize("labels", [[0, 1, 2], [3, 3, 3], [0], []])
def test_validation_tracks_without_a_match_or_a_rival_are_refused(labels: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"watch\.val_share is 0\.15.*--set watch\.val_share=0"):
        check_validation(np.array(labels, dtype=np.int64), 0.15)
    check_validation(np.array([0, 0, 1], dtype=np.int64), 0.15)


@pytest.mark.parametrize("tune", ["head", "full"])
def test_a_library_too_small_to_validate_on_is_refused_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tune: str
) -> None:
    monkeypatch.setattr(fit, "_source", lambda *_: pytest.fail("the work has begun"))
    small = make_folder(tmp_path / "features", tracks=3, chunks=1)
    settings = config.replace(config.load_recipe("thesis"), "watch", val_share=0.4)
    settings = config.replace(settings, "model", backbone="musicnn", tune=tune, head=(4,))
    ids = [track.id for track in small.tracks]
    with pytest.raises(ConfigError, match=r"among the 3 validation tracks no two .*val_share=0"):
        fit.fit(small, ids, settings)


def test_validation_counts_the_chosen_chunks_alone(tmp_path, monkeypatch) -> None:
    small = make_folder(tmp_path / "features", tracks=6, chunks=1)
    settings = config.replace(config.load_recipe("thesis"), "watch", val_share=0.4)
    ids = tuple(track.id for track in small.tracks)
    every = np.arange(len(small.track_of))
    held = fit._hold_out(small, ids, settings, every, fit.Silent())[1]
    assert len(held) >= 6
    with pytest.raises(ConfigError, match="among the 1 validation tracks"):
        fit._hold_out(small, ids, settings, small.rows(held[:1]), fit.Silent())


def leak(rows: list[Row], found: Split) -> list[tuple[Split, str]]:
    by_id = {row.id: row for row in rows}
    moved = found.test[0]
    artist = by_id[moved].artist
    there = [i for i in found.test if by_id[i].artist == artist]
    straddling = replace(found, train=(*found.train, there[0]), test=tuple(there[1:]))
    return [
        (replace(found, train=(*found.train, moved)), f"track {moved} is in training and in test"),
        (straddling, f"artist '{artist}'"),
        (replace(found, test=(*found.test, "nobody")), "nobody of the split is not in the library"),
        (replace(found, test=()), "test side of the split is empty"),
        (replace(found, test=(*found.test, moved)), f"{moved} is listed twice"),
        (replace(found, grouped_by=()), "grouped by"),
    ]


def test_a_leak_is_refused_when_written_and_when_read(tmp_path: Path) -> None:
    rows = library(artists=3)
    found = split(rows)
    path = tmp_path / "split.json"
    for bad, message in leak(rows, found):
        with pytest.raises(SplitError, match=message):
            save(bad, path, rows)
        assert not path.exists()
    for bad, message in leak(rows, found):
        save(found, path, rows)
        record = json.loads(path.read_text())
        record |= {k: list(getattr(bad, k)) for k in ("train", "test", "grouped_by")}
        files.write_json(path, record)
        with pytest.raises(SplitError, match=message):
            load(path, rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": "all"}, "'train' is not a list"),
        ({"test": [1, 2]}, "'test' is not a list"),
        ({"seed": "x"}, "'seed' is 'x'"),
        ({"format_version": 2}, "format version 2"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    rows = library()
    path = tmp_path / "split.json"
    save(split(rows), path, rows)
    files.write_json(path, json.loads(path.read_text()) | change)
    with pytest.raises(SplitError, match=message):
        load(path, rows)
