"""Playlist files: what is written is read back, and what is read can do no harm."""

from __future__ import annotations

import csv
import json
import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subgenre.errors import PlaylistError
from subgenre.library import formats, sources
from subgenre.library.formats import read_m3u, read_playlist, write_csv, write_m3u8, write_playlist
from subgenre.library.rekordbox import read_rekordbox, write_rekordbox
from subgenre.library.track import Track

NAMES = (
    "plain.mp3",
    "two words, and a comma.mp3",
    "# hash first.mp3",
    "Übergröße 夜 🎛.flac",
    "line\nbreak\r.mp3",
    "100%25 percent.mp3",
    " blank first.wav",
    "blank last.mp3 ",
    'quotes "and" <tags> & more.mp3',
    "back\\slash.mp3",
    "file:",
    "semi;colon.mp3",
    "tab\tin.mp3",
    "vertical\x0btab\x85and\u2028separators.mp3",
)


def Song(path, **values):  # noqa: N802 - a track
    return Track("0" * 32, path, "Techno", "Dark Techno", **values)


@pytest.fixture
def songs(tmp_path):
    """Files with awkward names in two folders beside the playlists' folder."""
    made = []
    for i, name in enumerate(NAMES):
        path = tmp_path / "WAV" / ("a b" if i % 2 else "ü,#") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        made.append(Song(path, artist="A\nB", title=f"T{i}", duration_s=61.6, bpm=128.0))
    return made


def same_files(found, songs):
    return len(found) == len(songs) and all(
        f.samefile(s.path) for f, s in zip(found, songs, strict=True)
    )


@pytest.mark.parametrize("kind", [".m3u8", ".m3u", ".csv", ".xml"])
def test_round_trip_with_awkward_names(tmp_path, songs, kind):
    target = tmp_path / "lists" / "deep" / f"mine{kind}"
    write_playlist(target, songs)
    assert same_files(read_playlist(target), songs)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no UTF-8")
@pytest.mark.parametrize("kind", [".m3u8", ".csv", ".xml"])
def test_name_that_is_no_utf8(tmp_path, kind):
    path = tmp_path / os.fsdecode(b"caf\xe9.mp3")
    path.write_bytes(b"x")
    write_playlist(tmp_path / f"p{kind}", [Song(path)])
    assert same_files(read_playlist(tmp_path / f"p{kind}"), [Song(path)])


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=40
).filter(lambda s: s not in {".", ".."} and len(s.encode()) < 200)


@given(names=st.lists(names, min_size=1, max_size=4))
def test_any_name_comes_back_from_m3u8(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    songs = [Song(folder / "music" / name, title=name) for name in names]
    write_m3u8(folder / "p.m3u8", songs)
    found = [os.path.normpath(p) for p in read_m3u(folder / "p.m3u8")]
    assert found == [os.path.normpath(s.path) for s in songs]


def test_m3u8_is_relative_utf8_and_extended(tmp_path, songs):
    write_m3u8(tmp_path / "lists" / "p.m3u8", songs)
    lines = (tmp_path / "lists" / "p.m3u8").read_text(encoding="utf-8").split("\n")
    assert lines[0] == "#EXTM3U"
    assert lines[1] == "#EXTINF:62,A B - T0"
    assert lines[2] == "../WAV/ü,#/plain.mp3"
    assert len(lines) == 2 * len(songs) + 2


def test_playlist_folder_moves_with_its_music(tmp_path, songs):
    whole = [s for s in songs if not s.path.name.startswith(("line", "back", "blank last"))]
    write_m3u8(tmp_path / "WAV" / "p.m3u8", whole)
    (tmp_path / "WAV").rename(tmp_path / "moved")
    found = read_m3u(tmp_path / "moved" / "p.m3u8")
    assert len(found) == len(whole)
    assert all(path.is_file() for path in found)


def test_playlist_in_a_linked_folder(tmp_path, songs):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    write_m3u8(tmp_path / "link" / "p.m3u8", songs)
    assert same_files(read_m3u(tmp_path / "link" / "p.m3u8"), songs)


def test_unknown_tempo_and_duration_are_left_empty(tmp_path):
    known = Song(tmp_path / "a.mp3", bpm=128.5, duration_s=39.99999999999999, key="Am")
    unknown = Song(tmp_path / "b.mp3")
    for song in (known, unknown):
        song.path.write_bytes(b"x")
    write_csv(tmp_path / "p.csv", [known, unknown])
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as text:
        rows = [tuple(row.values()) for row in csv.DictReader(text)]
    labels, tags = ("Techno", "Dark Techno"), ("", "", "")
    assert rows == [
        (str(known.path), *labels, *tags, "128.5", "", "Am", "40.0", known.id),
        (str(unknown.path), *labels, *tags, "", "", "", "", unknown.id),
    ]
    write_rekordbox(tmp_path / "r.xml", {"p": [known, unknown]})
    tracks = ElementTree.parse(tmp_path / "r.xml").getroot().findall("COLLECTION/TRACK")
    assert [t.get("AverageBpm") for t in tracks] == ["128.50", None]
    assert [t.get("Tonality") for t in tracks] == ["Am", None]
    for kind in ("p.csv", "r.xml"):
        assert same_files(read_playlist(tmp_path / kind), [known, unknown])


def test_measured_tempo_and_key_are_a_comment_of_m3u(tmp_path):
    both = Song(tmp_path / "a.mp3", tempo_bpm=174.02, bpm=87.0, key="F#m")
    songs = [both, Song(tmp_path / "b.mp3", key="C"), Song(tmp_path / "c.mp3", bpm=120.0)]
    for song in songs:
        song.path.write_bytes(b"x")
    write_m3u8(tmp_path / "p.m3u8", songs)
    lines = (tmp_path / "p.m3u8").read_text(encoding="utf-8").split("\n")
    comments = [line for line in lines if line.startswith("# ")]
    assert comments == ["# 87.0 bpm, 11A (F#m)", "# 8B (C)"]
    assert same_files(read_m3u(tmp_path / "p.m3u8"), songs)


def test_rekordbox_as_an_xml_library_reads_it(tmp_path, songs):
    lists = {"Dark & <deep>": songs[:3], "Ünter": songs[2:5]}
    write_rekordbox(tmp_path / "r.xml", lists)
    root = ElementTree.parse(tmp_path / "r.xml").getroot()
    assert root.tag == "DJ_PLAYLISTS"
    tracks = root.findall("COLLECTION/TRACK")
    assert root.find("COLLECTION").get("Entries") == "5" == str(len(tracks))
    assert tracks[0].get("AverageBpm") == "128.00"
    assert all(t.get("Location").startswith("file://localhost/") for t in tracks)
    found = read_rekordbox(tmp_path / "r.xml")
    assert list(found) == list(lists)
    for name, members in lists.items():
        assert same_files(found[name], members)


def test_rekordbox_folders_locations_and_gone_tracks(tmp_path):
    (tmp_path / "r.xml").write_text(
        """<?xml version="1.0" encoding="UTF-8"?>
        <DJ_PLAYLISTS Version="1.0.0"><COLLECTION Entries="1">
        <TRACK TrackID="7" Location="file://localhost/m/a%20b%C3%BC.mp3"/></COLLECTION>
        <PLAYLISTS><NODE Type="0" Name="ROOT"><NODE Type="0" Name="Techno">
        <NODE Name="AC/DC" Type="1" KeyType="0"><TRACK Key="7"/><TRACK Key="8"/></NODE>
        <NODE Name="Loc" Type="1" KeyType="1"><TRACK Key="file://localhost/m/c.mp3"/></NODE>
        <NODE Name="Empty" Type="1" KeyType="0"/>
        </NODE></NODE></PLAYLISTS></DJ_PLAYLISTS>""",
        encoding="utf-8",
    )
    assert read_rekordbox(tmp_path / "r.xml") == {
        "Techno/AC_DC": [Path("/m/a bü.mp3")],
        "Techno/Loc": [Path("/m/c.mp3")],
        "Techno/Empty": [],
    }


BOMB = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>
<DJ_PLAYLISTS><COLLECTION><TRACK TrackID="1" Location="&b;"/></COLLECTION></DJ_PLAYLISTS>"""
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><DJ_PLAYLISTS>&a;</DJ_PLAYLISTS>'


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (BOMB, "DOCTYPE"),
        (OUTSIDE, "DOCTYPE"),
        ("<html/>", "DJ_PLAYLISTS"),
        ("<DJ_PLAYLISTS>", "can't be read"),
        ("", "can't be read"),
        ("<DJ_PLAYLISTS>" + "<a>" * 200, "nested"),
        ("<DJ_PLAYLISTS>&nope;</DJ_PLAYLISTS>", "can't be read"),
    ],
)
def test_xml_that_is_refused(tmp_path, text, word):
    (tmp_path / "r.xml").write_text(text, encoding="utf-8")
    with pytest.raises(PlaylistError, match=word):
        read_playlist(tmp_path / "r.xml")


def test_other_extension_missing_file_and_size_limit(tmp_path, monkeypatch):
    with pytest.raises(PlaylistError, match=r"\.m3u8"):
        write_playlist(tmp_path / "p.pls", [])
    with pytest.raises(PlaylistError, match=r"\.m3u8"):
        read_playlist(tmp_path / "p.pls")
    with pytest.raises(PlaylistError, match="can't be read"):
        read_playlist(tmp_path / "gone.xml")
    (tmp_path / "c.csv").write_text("file,genre\n", encoding="utf-8")
    with pytest.raises(PlaylistError, match="no column 'path' but file, genre"):
        read_playlist(tmp_path / "c.csv")
    monkeypatch.setattr("subgenre.library.rekordbox.MAX_XML_BYTES", 10)
    (tmp_path / "r.xml").write_text("<DJ_PLAYLISTS></DJ_PLAYLISTS>", encoding="utf-8")
    with pytest.raises(PlaylistError, match="too large"):
        read_playlist(tmp_path / "r.xml")


def test_a_format_of_ones_own_is_read_and_written(tmp_path, monkeypatch, songs):
    """A toy format, registered here, serves the functions that every command uses."""
    toy = formats.PlaylistFormat(
        frozenset({".lines"}),
        lambda path, _: [Path(line) for line in json.loads(path.read_text())],
        lambda path, tracks: path.write_text(json.dumps([str(t.path) for t in tracks])),
    )
    monkeypatch.setitem(formats.FORMATS, ".lines", toy)  # removed again after the test
    formats.register(toy)
    target = tmp_path / "mine.lines"
    write_playlist(target, songs)
    assert same_files(read_playlist(target), songs)
    found = sources.audio_files([target])
    assert same_files(found.paths, songs)


def test_rekordbox_has_a_colour_for_each_subgenre(tmp_path):
    names = [f"S{i}" for i in range(8)]
    tracks = [Track(f"{i:032x}", tmp_path / f"{i}.mp3", "Techno", names[i % 8]) for i in range(16)]
    unlabelled = Track("f" * 32, tmp_path / "x.mp3")
    write_rekordbox(tmp_path / "all.xml", {"all": [*tracks, unlabelled]})
    found = ElementTree.parse(tmp_path / "all.xml").findall("COLLECTION/TRACK")
    colours = {track.get("Grouping"): track.get("Colour") for track in found}
    assert colours.pop("") is None
    assert set(colours.values()) == {  # those of rekordbox
        *("0xFF007F", "0xFF0000", "0xFFA500", "0xFFFF00"),
        *("0x00FF00", "0x25FDE9", "0x0000FF", "0x660099"),
    }
    assert all(track.get("Colour") == colours[track.get("Grouping")] for track in found[:16])
    write_rekordbox(tmp_path / "one.xml", {"one": tracks[:1]})
    alone = ElementTree.parse(tmp_path / "one.xml").find("COLLECTION/TRACK")
    assert alone.get("Colour") == colours["S0"]
