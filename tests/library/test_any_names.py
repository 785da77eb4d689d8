"""Playlists of any names come back from every format: no name ends a line, a cell or a tag."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgenre.library.formats import read_playlist, write_playlist
from subgenre.library.rekordbox import read_rekordbox, write_rekordbox
from subgenre.library.track import Track

pytestmark = pytest.mark.slow

HOSTILE = [
    *("=1+1.mp3", "+a.wav", "-a.mp3", "@SUM(A1).mp3", "\t=1.mp3", "'=1.mp3", "''a.mp3", "'a.mp3"),
    *('a"b.mp3', "a,b;c.mp3", "a\rb.mp3", "a\nb.mp3", "a\r\nb.mp3", " a.mp3", "a.mp3 ", "#a.mp3"),
    *("%41.mp3", "a%00b.mp3", "file:a.mp3", "http://a.mp3".replace("/", ":"), "C:a.mp3"),
    *("<a>&amp;.mp3", "]]>.mp3", "\x1b[31m.mp3", "\x85.mp3", "\u2028.mp3", "\u202egpm.mp3"),
    *("\ufeffa.mp3", "\ufffe.mp3", "e\u0301.mp3", "\u00e9.mp3", "\udce9.mp3", "~.mp3", "$a.mp3"),
]
# without backslashes, which are read as slashes unless such a file exists
names = st.sampled_from(HOSTILE) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0"), min_size=1, max_size=30
).filter(lambda s: s not in {".", ".."} and len(s.encode()) < 200)
texts = st.sampled_from(HOSTILE[:-3]) | st.text(  # tags are read without NUL
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20
)
tracks = st.builds(
    lambda folder, name, **tags: Track("0" * 32, Path("/music") / folder / name, **tags),
    names,
    names,
    genre=texts,
    subgenre=texts,
    artist=texts,
    title=texts,
    album=texts,
    duration_s=st.floats(0, 1e4),
    bpm=st.none() | st.floats(40, 250),
)
lists = st.lists(tracks, min_size=1, max_size=4)


def plain(paths: list[Path]) -> list[str]:
    return [os.path.normpath(path) for path in paths]


@pytest.mark.parametrize("kind", [".m3u8", ".csv"])
@given(given_tracks=lists)
def test_any_track_comes_back(
    tmp_path_factory: pytest.TempPathFactory, kind: str, given_tracks: list[Track]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{kind}"
    repeated = [*given_tracks, given_tracks[0]]
    write_playlist(path, repeated)
    assert plain(read_playlist(path)) == plain([track.path for track in repeated])


@given(given_tracks=lists)
def test_a_spreadsheet_finds_one_row_a_track_and_no_formula(
    tmp_path_factory: pytest.TempPathFactory, given_tracks: list[Track]
) -> None:
    path = tmp_path_factory.getbasetemp() / "sheet.csv"
    write_playlist(path, given_tracks)
    with path.open(encoding="utf-8", newline="") as text:
        rows = list(csv.reader(text))
    assert [len(row) for row in rows] == [len(rows[0])] * (1 + len(given_tracks))
    assert not any(cell.startswith(tuple("=+-@\t\r")) for row in rows for cell in row)


@given(one=lists, two=lists, heading=texts)
def test_any_track_comes_back_from_rekordbox(
    tmp_path_factory: pytest.TempPathFactory, one: list[Track], two: list[Track], heading: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.xml"
    write_rekordbox(path, {"first": one, f"x{heading}": two})
    first, second = read_rekordbox(path).values()
    for found, written in ((first, one), (second, two)):
        assert plain(found) == plain([track.path for track in written])
