"""Folders, CSV and playlists against small libraries with known labels, repeats and bad files."""

from __future__ import annotations

import csv
import os
import shutil
import struct
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from subgenre.audio import tags
from subgenre.core import parallel
from subgenre.errors import AudioError, ConfigError, LibraryError
from subgenre.library import sources
from subgenre.library.formats import read_m3u, read_playlist
from subgenre.library.rekordbox import read_rekordbox
from subgenre.library.scan import scan
from subgenre.library.sources import folder_names, shown
from tests import audio_files as files


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Eight short recordings, each different."""
    folder = tmp_path_factory.mktemp("sounds")
    kinds = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aiff", ".wma")
    return [
        files.write(folder / f"{i}{kind}", files.music(1.5, seed=i, channels=1))
        for i, kind in enumerate(kinds)
    ]


@pytest.fixture
def processes():
    """Ask for real worker processes."""


@pytest.fixture(autouse=True)
def _in_this_process(request, monkeypatch):
    """Read files in this process, for speed, where a test does not ask for `processes`."""

    def map_files(fn, items, **options):
        for position, item in enumerate(items):
            try:
                yield position, fn(item)
            except AudioError as problem:
                yield position, parallel.Failure(str(problem))

    if "processes" not in request.fixturenames:
        monkeypatch.setattr("subgenre.core.parallel.map_files", map_files)


@pytest.fixture
def tree(tmp_path, sounds):
    """techno/dark (0, 1), techno/light (2), house/deep (3), and a trash pool (4)."""
    root = tmp_path / "WAV"
    put(sounds[0], root / "techno/dark/b.wav")
    put(sounds[1], root / "techno/dark/album/side one/a.MP3")
    put(sounds[2], root / "techno/light/c.flac")
    put(sounds[3], root / "house/deep/d.Ogg")
    put(sounds[4], root / "trash/any/where/e.opus")
    return root


def put(sound, at):
    at.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(sound, at)
    return at


def labelled(library):
    return {track.path.name: (track.genre, track.subgenre) for track in library.tracks}


def reasons(library):
    return {skipped.path.name: skipped.reason for skipped in library.skipped}


TREE_LABELS = {
    "a.MP3": ("techno", "dark"),
    "b.wav": ("techno", "dark"),
    "c.flac": ("techno", "light"),
    "d.Ogg": ("house", "deep"),
}


def test_folders_give_labels(tree):
    library = scan(tree, workers=1)
    assert labelled(library) == TREE_LABELS
    assert [track.path.name for track in library.tracks] == ["d.Ogg", "a.MP3", "b.wav", "c.flac"]
    assert [track.path.name for track in library.trash] == ["e.opus"]
    assert library.trash[0].trash
    assert library.skipped == ()
    track = library.tracks[0]
    assert (track.rate, track.channels, track.codec) == (files.RATE, 1, "vorbis")
    assert track.duration_s == pytest.approx(1.5, abs=0.03)
    status = track.path.stat()
    assert (track.size, track.mtime_ns) == (status.st_size, status.st_mtime_ns)


@pytest.mark.slow
def test_every_format_is_found_by_any_number_of_workers(tmp_path, sounds, processes):
    for i, sound in enumerate(sounds):
        put(sound, tmp_path / "g" / f"s{i % 2}" / sound.name)
    library = scan(tmp_path, workers=1)
    assert len(library.tracks) == len(sounds)
    assert scan(tmp_path, workers=2) == library


def test_hidden_files_and_other_files_are_ignored(tree, sounds):
    for name in ("._b.wav", ".hidden.wav", "cover.jpg", "notes.txt", "b.cue", "Thumbs.db"):
        (tree / "techno/dark" / name).write_bytes(b"nothing")
    put(sounds[5], tree / ".cache/deep/x.wav")
    put(sounds[5], tree / "techno/.cache/x.wav")
    put(sounds[5], tree / "techno/dark/.cache/x.wav")
    library = scan(tree)
    assert labelled(library) == TREE_LABELS
    assert library.skipped == ()
    (note,) = library.notes
    assert all(word in note for word in ("4 folders", ".cache", ".hidden.wav"))


def test_a_genre_that_begins_with_dots_is_left_out_with_a_line(tree, sounds):
    put(sounds[5], tree / "..x/deep/x.wav")
    put(sounds[6], tree / "techno/dark/...And Then.wav")
    library = scan(tree)
    assert labelled(library) == TREE_LABELS
    (note,) = library.notes
    assert all(word in note for word in ("..x", "...And Then.wav", "rename"))


def test_files_too_high_in_the_tree_are_reported(tree, sounds):
    put(sounds[5], tree / "x.m4a")
    put(sounds[6], tree / "techno/y.aiff")
    library = scan(tree)
    assert labelled(library) == TREE_LABELS
    assert "directly in the library's folder" in reasons(library)["x.m4a"]
    assert "directly in a genre's folder" in reasons(library)["y.aiff"]


def test_a_folder_one_level_too_high_is_reported(tree, tmp_path, sounds):
    above = tmp_path / "above"
    above.mkdir()
    tree.rename(above / "WAV")
    (note,) = [note for note in scan(above).notes if "deeper than ROOT/genre/subgenre" in note]
    assert f"name {above / 'WAV'} instead" in note
    for genre, sound in zip("gh", sounds[5:7], strict=True):
        put(sound, tmp_path / "L" / genre / "one" / "artist" / "album" / sound.name)
    for right in (above / "WAV", tmp_path / "L"):
        assert not [note for note in scan(right).notes if "deeper than" in note]


def test_links_are_followed_once_and_loops_end(tree, sounds, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    put(sounds[5], elsewhere / "x.m4a")
    (tree / "house/deep/linked").symlink_to(elsewhere)
    (tree / "house/deep/linked again").symlink_to(elsewhere)
    (tree / "house/deep/up").symlink_to(tree)
    (tree / "house/deep/self").symlink_to(tree / "house/deep")
    (tree / "house/loop").symlink_to(tree)
    (tree / "root").symlink_to(tree)
    (tree / "house/deep/one").symlink_to(tree / "house/deep/two")
    (tree / "house/deep/two").symlink_to(tree / "house/deep/one")
    library = scan(tree)
    assert labelled(library) == {**TREE_LABELS, "x.m4a": ("house", "deep")}
    assert library.skipped == ()


@pytest.mark.parametrize("place", ["../rest", "techno/rest"])
def test_a_trash_folder_adds_to_the_pool_and_is_no_subgenre(tree, sounds, place):
    put(sounds[5], tree / place / "f.m4a")
    library = scan(tree, trash=tree / place)
    assert labelled(library) == TREE_LABELS
    assert {track.path.name for track in library.trash} == {"e.opus", "f.m4a"}
    with pytest.raises(LibraryError, match="trash folder"):
        scan(tree, trash=tree / "nowhere")


# repeats


def test_a_recording_twice_in_one_subgenre_is_kept_once(tree, sounds):
    files.remux(sounds[1], tree / "techno/dark/z.mp3", {"title": "Other"})
    library = scan(tree)
    assert labelled(library) == TREE_LABELS
    assert "the same recording as" in reasons(library)["z.mp3"]
    assert "a.MP3" in reasons(library)["z.mp3"]


def test_a_recording_in_two_subgenres_is_left_out_or_kept(tree, sounds):
    put(sounds[0], tree / "techno/light/b2.wav")
    library = scan(tree)
    assert "b.wav" not in labelled(library)
    assert "b2.wav" not in labelled(library)
    for name in ("b.wav", "b2.wav"):
        assert "techno/dark and in techno/light" in reasons(library)[name]
    kept = scan(tree, multi="keep")
    assert labelled(kept) == {**TREE_LABELS, "b2.wav": ("techno", "light")}
    assert kept.skipped == ()
    with pytest.raises(ConfigError, match="multi is 'both'"):
        scan(tree, multi="both")


def test_a_recording_with_a_label_is_no_trash(tree, sounds):
    put(sounds[0], tree / "trash/b3.wav")
    library = scan(tree)
    assert "b.wav" in labelled(library)
    assert "which has a label" in reasons(library)["b3.wav"]


# lists


def write_csv(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_a_csv_gives_labels(tree, sounds):
    text = (
        "Subgenre,path,note,genre\r\n"
        f'Dark,"{tree / "techno/dark/b.wav"}",x,Techno\r\n'
        "Light,WAV/techno/light/c.flac,,Techno\r\n"
        "\r\n"
        ",WAV/house/deep/d.Ogg,,trash\r\n"
    )
    library = scan(write_csv(tree.parent / "labels.csv", text, "utf-8-sig"))
    assert labelled(library) == {"b.wav": ("Techno", "Dark"), "c.flac": ("Techno", "Light")}
    assert [track.path.name for track in library.trash] == ["d.Ogg"]
    assert library.root == tree.parent


def test_rows_that_do_not_serve_are_reported(tree):
    text = (
        "path;genre;subgenre\n"
        "WAV/techno/dark/b.wav;T;Dark\n"
        "WAV/techno/light/c.flac;T;Light\n"
        "gone.mp3;T;Dark\n"
        "WAV/house/deep/d.Ogg;;Deep\n"
        "WAV/notes.txt;T;Dark\n"
        "WAV/techno/light/c.flac\n"
    )
    library = scan(write_csv(tree.parent / "labels.csv", text))
    found = {skipped.reason for skipped in library.skipped}
    assert found == {
        "does not exist (row 4 of labels.csv)",
        "row 5 of labels.csv has no genre",
        "no audio extension: '.txt' (row 6 of labels.csv)",
        "row 7 of labels.csv has no genre and no subgenre",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,genre\na.mp3,T\n", "no column subgenre"),
        ("", "but none; line 1"),
        ("a.mp3,T,Dark\n", "no column path and no column genre and no column subgenre"),
        ('path,genre,subgenre\n"a.mp3,T,Dark\n', "can't be read as a CSV"),
        ("path,genre,subgenre\n", "has no audio"),
    ],
)
def test_a_csv_that_is_none_is_refused(tmp_path, text, message):
    with pytest.raises(LibraryError, match=message):
        scan(write_csv(tmp_path / "labels.csv", text))


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_line_one_shows_what_separates_the_cells(tmp_path, end):
    rows = ["path;genre;subgenre", "a.mp3;a,b,c,d;x", "b.mp3;a,b,c,d;y"]
    source = write_csv(tmp_path / "l.csv", end.join(rows))
    assert subgenres(sources.find(source)) == [("a", "a,b,c,d", "x"), ("b", "a,b,c,d", "y")]
    assert [path.name for path in read_playlist(source)] == ["a.mp3", "b.mp3"]


def test_a_list_that_is_too_large_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("subgenre.library.formats.MAX_TEXT_BYTES", 10)
    write_csv(tmp_path / "l.csv", "path,genre,subgenre\n")
    with pytest.raises(LibraryError, match="too large"):
        scan(tmp_path / "l.csv")


def test_playlists_give_labels(tree, sounds):
    lists = tree.parent / "lists"
    (lists / "Techno").mkdir(parents=True)
    (lists / "Techno/Dark.m3u8").write_text("#EXTM3U\n../../WAV/techno/dark/b.wav\n" * 2)
    (lists / "Techno/Light.m3u").write_text((tree / "techno/light/c.flac").as_uri() + "\ngone.mp3")
    (lists / "Deep.M3U").write_text("..\\WAV\\house\\deep\\d.Ogg\n")
    (lists / "trash.m3u8").write_text("../WAV/techno/dark/album/side one/a.MP3\n")
    (lists / "broken.m3u").write_bytes(b"\0\1\2")
    library = scan(lists)
    assert labelled(library) == {
        "b.wav": ("Techno", "Dark"),
        "c.flac": ("Techno", "Light"),
        "d.Ogg": ("lists", "Deep"),
    }
    assert [track.path.name for track in library.trash] == ["a.MP3"]
    assert reasons(library)["gone.mp3"] == "does not exist (listed in Light.m3u)"
    assert "binary" in reasons(library)["broken.m3u"]


def test_playlists_beside_folders_are_ignored_with_a_note(tree):
    (tree / "techno/all.m3u8").write_text("dark/b.wav\n")
    library = scan(tree)
    assert labelled(library) == TREE_LABELS
    assert library.notes == ("1 playlists are ignored: folders give the labels",)


def test_read_m3u_knows_what_players_write(tmp_path):
    playlist = tmp_path / "p.m3u"
    playlist.write_bytes(
        b"\xef\xbb\xbf#EXTM3U\r\n#EXTINF:123,A - B\r\n100%25 pure.mp3\r\n"
        b"  sub/a.mp3 \n/abs/b.mp3\nfile:///with%20space/%C3%B6.mp3\nfile://localhost/c.mp3\n\n"
        b"caf\xe9.mp3\nsub/a.mp3"
    )
    assert read_m3u(playlist) == [
        tmp_path / "100%25 pure.mp3",
        tmp_path / "sub/a.mp3",
        Path("/abs/b.mp3"),
        Path("/with space/ö.mp3"),
        Path("/c.mp3"),
        tmp_path / "café.mp3",
        tmp_path / "sub/a.mp3",
    ]
    raw = tmp_path / os.fsdecode(b"caf\xe9.mp3")
    raw.touch()
    assert read_m3u(playlist)[5] == raw


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-8", ""), ("utf-8-sig", ""), ("utf-16", "UTF-16"), ("cp1252", "Windows-1252")],
)
@pytest.mark.parametrize("kind", ["csv", "m3u", "xml"])
def test_labels_keep_their_letters_in_every_encoding(tmp_path, kind, encoding, name):
    labels = ("Soirée d\u2019été", "Soirèe d\u2019été")
    files_ = [put_name(tmp_path / f"é{i}.mp3") for i in range(2)]
    if kind == "csv":
        rows = [f"{path},Chanson,{label}" for path, label in zip(files_, labels, strict=True)]
        source = write_csv(tmp_path / "l.csv", "\n".join(["path,genre,subgenre", *rows]), encoding)
    elif kind == "m3u":
        source = tmp_path / "lists"
        source.mkdir()
        for path, label in zip(files_, labels, strict=True):
            (source / f"{label}.m3u").write_bytes(f"{path}\n".encode(encoding))
    else:
        source = rekordbox(
            tmp_path, dict(zip(labels, [[f] for f in files_], strict=True)), encoding
        )
    found = sources.find(source)
    entries = sorted((entry.path, entry.subgenre) for entry in found.entries)
    assert entries == list(zip(files_, labels, strict=True))
    assert all(name in note for note in found.notes)
    assert bool(found.notes) == bool(name)


def test_a_playlist_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "a.m3u").write_bytes("é.mp3\n".encode("cp1252"))
    read, opened = Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or read(path))
    assert "Windows-1252" in sources.find(tmp_path).notes[0]
    assert opened == [tmp_path / "a.m3u"]


def put_name(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def rekordbox(folder, playlists, encoding="utf-8", more="", nodes=""):
    """A collection of unescaped paths, with playlists directly in its root."""
    numbered = [path for paths in playlists.values() for path in paths]
    tracks = "".join(
        f'<TRACK TrackID="{i}" Name="T{i}" Location="file://localhost{path}"/>'
        for i, path in enumerate(numbered)
    )
    lists = "".join(
        f'<NODE Name="{name}" Type="1" KeyType="0">'
        + "".join(f'<TRACK Key="{numbered.index(path)}"/>' for path in paths)
        + "</NODE>"
        for name, paths in playlists.items()
    )
    source = folder / "collection.xml"
    source.write_bytes(
        f'<?xml version="1.0" encoding="UTF-8"?><DJ_PLAYLISTS><COLLECTION>{tracks}{more}'
        f'</COLLECTION><PLAYLISTS><NODE Type="0" Name="ROOT">{lists}{nodes}</NODE></PLAYLISTS>'
        "</DJ_PLAYLISTS>".encode(encoding)
    )
    return source


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no UTF-8")
def test_folders_whose_names_are_not_utf_8_keep_their_letters_and_apart(tmp_path):
    for name in (b"Soir\xe9e", b"Soir\xe8e"):
        put_name(tmp_path / "g" / os.fsdecode(name) / "a.mp3")
    assert {e.subgenre for e in sources.find(tmp_path).entries} == {"Soirée", "Soirèe"}


def test_damaged_utf_16_is_refused(tmp_path):
    (tmp_path / "l.csv").write_bytes("path,genre,subgenre\n".encode("utf-16") + b"\0")
    with pytest.raises(LibraryError, match="can't be read"):
        sources.find(tmp_path / "l.csv")


def listed_as(tmp_path, kind, entry, maps=()):
    """The file that an entry of a list is read as, and the reason if it is left out."""
    if kind == "m3u8":
        (tmp_path / "lists").mkdir(exist_ok=True)
        source = tmp_path / "lists"
        (source / "a.m3u8").write_text(f"{entry}\n", encoding="utf-8")
    elif kind == "csv":
        (tmp_path / "lists").mkdir(exist_ok=True)
        source = tmp_path / "lists/a.csv"
        source.write_text(f"path,genre,subgenre\n{entry},g,s\n", encoding="utf-8")
    else:
        source = tmp_path / "a.xml"
        source.write_text(
            f'<DJ_PLAYLISTS><COLLECTION><TRACK TrackID="1" Location="{entry}"/></COLLECTION>'
            '<PLAYLISTS><NODE Name="p" Type="1"><TRACK Key="1"/></NODE></PLAYLISTS></DJ_PLAYLISTS>',
            encoding="utf-8",
        )
    found = sources.find(source, maps=maps)
    assert len(found.entries) + len(found.skipped) == 1
    return found.entries[0].path if found.entries else found.skipped[0].reason


@pytest.mark.parametrize("kind", ["m3u8", "csv", "xml"])
def test_a_name_is_found_in_another_spelling(tmp_path, kind):
    decomposed = unicodedata.normalize("NFD", "Café")
    for name, entry in (
        ("100%25.mp3", "100%25.mp3"),
        (f"{decomposed}.mp3", "Café.mp3"),
        ("Über.mp3", unicodedata.normalize("NFD", "Über.mp3")),
        ("with space.mp3", "with%20space.mp3"),
        ("Loud Name.MP3", "loud%20name.mp3"),
        ("Ä Folder/x.mp3", unicodedata.normalize("NFD", "ä folder/X.MP3")),
    ):
        path = put_name(tmp_path / "music" / name)
        assert listed_as(tmp_path, kind, f"{tmp_path}/music/{entry}") == path
    # the exact name comes first, and of two that differ in case neither is taken for a third
    for name in ("a.mp3", "A.mp3", "with%20space.mp3"):
        put_name(tmp_path / "music" / name)
    for name in ("a.mp3", "A.mp3", "with%20space.mp3", "a.MP3"):
        assert listed_as(tmp_path, kind, f"{tmp_path}/music/{name}") == tmp_path / "music" / name


@pytest.mark.parametrize("kind", ["m3u8", "csv", "xml"])
def test_paths_of_other_machines_are_named_or_translated(tmp_path, kind):
    path = put_name(tmp_path / "music/a b.mp3")
    assert listed_as(tmp_path, kind, f"file:{tmp_path}/music/a%20b.mp3") == path
    assert listed_as(tmp_path, kind, f"file://localhost{tmp_path}/music/a%20b.mp3") == path
    for entry, prefix in (
        ("C:\\Music\\a b.mp3", "c:\\music"),
        ("C:/Music/a b.mp3", "C:/Music/"),
        ("file://localhost/C:/Music/a%20b.mp3", "C:\\Music"),
        ("file:///C:/Music/a%20b.mp3", "C:/Music"),
        ("file://nas/music/a%20b.mp3", "//nas/music"),
        ("\\\\nas\\music\\a b.mp3", "\\\\nas\\music"),
        ("/Users/dj/a b.mp3", "/Users/dj"),
    ):
        if not entry.startswith("/Users"):
            assert "--map FROM=TO" in listed_as(tmp_path, kind, entry)
        assert listed_as(tmp_path, kind, entry, [(prefix, str(tmp_path / "music"))]) == path
    other = [("C:/Mus", str(tmp_path))]
    assert "--map" in listed_as(tmp_path, kind, "C:/Music/a b.mp3", other)


@pytest.mark.parametrize("kind", ["m3u8", "csv", "xml"])
def test_a_playlist_of_another_machine_is_named_or_translated(tmp_path, kind):
    listed_as(tmp_path, kind, "D:\\Music\\a.mp3")
    playlist = tmp_path / ("a.xml" if kind == "xml" else f"lists/a.{kind}")
    with pytest.raises(LibraryError, match="--map FROM=TO"):
        sources.audio_files([playlist])
    path = put_name(tmp_path / "music/a.mp3")
    found = sources.audio_files([playlist], [("d:/music", str(tmp_path / "music"))])
    assert (found.paths, found.skipped) == ((path,), ())


def test_playlists_of_one_name_are_kept_apart(tmp_path):
    nodes = (
        folder_node("House", folder_node("2024", node("Peak", 0), node("Late", 3)))
        + folder_node("Techno", folder_node("2024", node("Peak", 1)))
        + folder_node("Trance", node("Up", 2), node("Up", 3))
    )
    assert subgenres(sources.find(collection_of(tmp_path, nodes, 4))) == [
        ("0", "House/2024", "Peak"),
        ("3", "2024", "Late"),
        ("1", "Techno/2024", "Peak"),
        ("2", "Trance", "Up"),
        ("3", "Trance", "Up (2)"),
    ]
    lists = tmp_path / "lists"
    for name in ("Dark.m3u", "Dark.m3u8"):
        put_name(lists / "g" / name).write_text(f"/{name}.mp3\n")
    assert [e.subgenre for e in sources.find(lists).entries] == ["Dark.m3u", "Dark.m3u8"]


def node(name, *keys):
    tracks = "".join(f'<TRACK Key="{key}"/>' for key in keys)
    return f'<NODE Name="{name}" Type="1" KeyType="0">{tracks}</NODE>'


def folder_node(name, *inside):
    return f'<NODE Name="{name}" Type="0">{"".join(inside)}</NODE>'


def collection_of(folder, nodes, count):
    """Put `count` files into a collection with the keys 0, 1, ..."""
    paths = [put_name(folder / f"{i}.mp3") for i in range(count)]
    more = "".join(
        f'<TRACK TrackID="{i}" Location="file://localhost{path}"/>' for i, path in enumerate(paths)
    )
    return rekordbox(folder, {}, more=more, nodes=nodes)


def subgenres(found):
    return [(entry.path.stem, entry.genre, entry.subgenre) for entry in found.entries]


def test_no_list_takes_the_place_of_another_whatever_the_names(tmp_path):
    names = ["X", "X", "X (2)", "X", "X (2)", "X"]
    nodes = [node(name, i) for i, name in enumerate(names)]
    source = collection_of(tmp_path, folder_node("g", *nodes), len(names))
    found = sources.find(source)
    assert [stem for stem, _, _ in subgenres(found)] == list("012345")
    labels = [subgenre for _, _, subgenre in subgenres(found)]
    assert len(set(labels)) == 6
    assert (labels[0], labels[2]) == ("X", "X (2)")
    assert len(found.notes) == 4
    assert [paths[0].stem for paths in read_rekordbox(source).values()] == list("012345")


def test_a_playlist_beside_folders_is_kept_apart_from_a_folder_named_like_the_file(tmp_path):
    nodes = node("P", 0) + folder_node("collection", node("P", 1))
    found = sources.find(collection_of(tmp_path, nodes, 2))
    assert subgenres(found) == [("0", "collection", "P"), ("1", "collection", "P (2)")]
    (note,) = found.notes
    assert "collection/P (2)" in note


def test_m3u_lists_of_one_name_are_kept_apart(tmp_path):
    paths = [put_name(tmp_path / f"{i}.mp3") for i in range(5)]
    lists = tmp_path / "lists"
    files_ = ("P.m3u", "lists/P.m3u", "g/D.m3u", "g/D.m3u8", "g/D.m3u.m3u8")
    for path, name in zip(paths, files_, strict=True):
        put_name(lists / name).write_text(f"{path}\n")
    found = sources.find(lists)
    assert len({labels[1:] for labels in subgenres(found)}) == len(found.entries) == 5
    assert len(found.notes) == 2
    assert all(" (2)" in note for note in found.notes)


def test_all_lists_of_trash_are_trash(tmp_path):
    paths = [put_name(tmp_path / f"{i}.mp3") for i in range(2)]
    for path, name in zip(paths, ("trash.m3u", "trash.m3u8"), strict=True):
        put_name(tmp_path / "lists" / name).write_text(f"{path}\n")
    assert all(entry.trash for entry in sources.find(tmp_path / "lists").entries)
    nodes = node("trash", 0) + node("trash", 1)
    found = sources.find(collection_of(tmp_path / "x", nodes, 2))
    assert [entry.trash for entry in found.entries] == [True, True]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems hold only one of such names")
@pytest.mark.parametrize(
    ("one", "two"),
    [("P", "P "), ("Soir\xe9e", "Soire\u0301e"), ("P", "P\u200b"), ("P Q", "P  Q")],
)
@pytest.mark.parametrize("kind", ["folders", "genres", "m3u", "xml", "csv"])
def test_names_that_look_the_same_are_one_label_with_a_line(tmp_path, kind, one, two):
    if kind == "csv" and two == "P ":
        pytest.skip("blanks around a cell are no part of it")
    if kind in {"folders", "genres"}:
        for i, name in enumerate((one, two)):
            place = f"g/{name}" if kind == "folders" else f"{name}/s"
            put_name(tmp_path / place / f"{i}.mp3")
        source = tmp_path
    elif kind == "m3u":
        paths = [put_name(tmp_path / f"{i}.mp3") for i in range(2)]
        for path, name in zip(paths, (f"{one}.m3u", f"{two}.m3u8"), strict=True):
            put_name(tmp_path / "lists/g" / name).write_text(f"{path}\n")
        source = tmp_path / "lists"
    elif kind == "xml":
        source = collection_of(tmp_path, folder_node("g", node(one, 0), node(two, 1)), 2)
    else:
        rows = "".join(f"{i}.mp3,g,{name}\n" for i, name in enumerate((one, two)))
        source = write_csv(tmp_path / "l.csv", f"path,genre,subgenre\n{rows}")
    found = sources.find(source)
    assert len({labels[1:] for labels in subgenres(found)}) == 1
    assert {stem for stem, _, _ in subgenres(found)} == {"0", "1"}
    (note,) = found.notes
    assert ascii(one) in note
    assert ascii(two) in note


@pytest.mark.skipif(sys.platform == "win32", reason="Windows takes blanks off a folder's name")
def test_trash_is_trash_whatever_blanks_its_name_has(tmp_path):
    put_name(tmp_path / "tree/Trash /s/a.mp3")
    nodes = node("trash ", 0)
    for source in (tmp_path / "tree", collection_of(tmp_path / "x", nodes, 1)):
        assert [entry.trash for entry in sources.find(source).entries] == [True]


def test_a_track_with_the_id_of_another_is_listed(tmp_path):
    more = (
        '<TRACK TrackID="5" Name="first" Location="file://localhost/a.mp3"/>'
        '<TRACK TrackID="5" Name="second" Location="file://localhost/b.mp3"/>'
    )
    found = sources.find(rekordbox(tmp_path, {}, more=more, nodes=node("P", 5)))
    assert [entry.path for entry in found.entries] == [Path("/a.mp3")]
    (skipped,) = found.skipped
    assert all(word in skipped.reason for word in ("5", "second", "first"))


def test_what_a_collection_lacks_is_listed_with_name_and_id(tmp_path):
    more = (
        '<TRACK TrackID="51" Name="Nowhere" Location=""/>'
        '<TRACK TrackID="52" Name="Cloud" Location="file://localhosttidal:tracks:9"/>'
        '<TRACK TrackID="53" Name="Spot" Location="spotify:track:7"/>'
    )
    nodes = (
        '<NODE Name="P" Type="1" KeyType="0"><TRACK Key="51"/><TRACK Key="52"/><TRACK Key="53"/>'
        '<TRACK Key="99"/></NODE><NODE Name="Bare" Type="1" KeyType="0"/>'
        '<NODE Name="Clever" Type="4"/>'
    )
    found = sources.find(rekordbox(tmp_path, {}, more=more, nodes=nodes))
    reasons = [skipped.reason for skipped in found.skipped]
    assert found.entries == []
    for words in (
        ("51", "Nowhere", "no location"),
        ("52", "Cloud", "stream"),
        ("53", "Spot", "stream"),
        ("99", "'P'", "not in the collection"),
        ("Bare", "empty"),
        ("Clever", "Type 4"),
    ):
        assert sum(all(word in reason for word in words) for reason in reasons) == 1, words
    assert len(reasons) == 6


def test_system_folders_are_left_out_with_one_line(tmp_path):
    kept = [put_name(tmp_path / f"g/{s}/a.mp3") for s in ("one", "two")]
    for name in (
        "#recycle",
        "@Recycle",
        "$RECYCLE.BIN",
        "lost+found",
        "System Volume Information",
        "@eaDir",
        ".Trash-1000",
    ):
        for place in ("", "g", "g/one", "trash"):
            put_name(tmp_path / place / name / "s/b.mp3")
    found = sources.find(tmp_path)
    assert [entry.path for entry in found.entries] == kept
    assert len(found.notes) == 1
    assert "28 system folders" in found.notes[0]
    assert "#recycle" in found.notes[0]
    assert [e.path for e in sources.listing(tmp_path).entries] == kept


# nothing to learn from


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda root, _: None, "has no audio with a label"),
        (lambda root, sound: put(sound, root / "g/a.wav"), "1 left out, the first: a.wav"),
        (lambda root, sound: put(sound, root / "g/s/a.wav"), r"only one subgenre \('g/s'\)"),
    ],
)
def test_a_library_to_learn_nothing_from_is_refused(tmp_path, sounds, build, message):
    build(tmp_path, sounds[0])
    with pytest.raises(LibraryError, match=message):
        scan(tmp_path)


def test_a_source_of_another_kind_is_refused(tmp_path, sounds):
    with pytest.raises(LibraryError, match="does not exist; name a folder"):
        scan(tmp_path / "nothing")
    with pytest.raises(LibraryError, match="holds no library"):
        scan(sounds[0])
    (tmp_path / "one.m3u8").write_text("a.mp3\n")
    with pytest.raises(LibraryError, match="one playlist, so one subgenre"):
        scan(tmp_path / "one.m3u8")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(LibraryError, match="holds no library"):
        scan(tmp_path / "pipe.csv")


# bad files, odd names, tags


@pytest.mark.slow
def test_bad_files_are_skipped_with_a_reason(tree, processes):
    bad = files.write_bad(tree / "techno/dark")
    odd = files.write_odd_but_good(tree / "house/deep", 1.5)
    library = scan(tree)
    assert {skipped.path.name for skipped in library.skipped} == set(bad)
    assert all(word in reasons(library)[name] for name, word in bad.items())
    assert {track.path for track in library.tracks if track.subgenre == "deep"} == {
        tree / "house/deep/d.Ogg",
        *odd,
    }
    for skipped in library.skipped:
        assert shown(skipped.path).encode("utf-8").isascii()
    for track in library.tracks:
        shown(track.path).encode("utf-8")


def test_names_that_are_no_text_still_give_text_labels(tree, sounds):
    put(sounds[5], tree / os.fsdecode(b"ger\xe9/new\nline/x.m4a"))
    assert labelled(scan(tree))["x.m4a"] == ("geré", "new line")


def test_a_reader_that_crashes_skips_one_file(tree, monkeypatch):
    def map_files(fn, items, **options):
        for position, item in enumerate(items):
            died = item.name == "c.flac"
            yield position, parallel.Failure(parallel.CRASHED) if died else fn(item)

    monkeypatch.setattr("subgenre.core.parallel.map_files", map_files)
    library = scan(tree)
    assert reasons(library) == {"c.flac": "the reader crashed on this file"}
    assert len(library.tracks) == 3


def test_known_tracks_are_not_read_again(tree, monkeypatch, sounds):
    first = scan(tree)
    known = {str(track.path): track for track in (*first.tracks, *first.trash)}
    put(sounds[5], tree / "techno/dark/b.wav")  # another recording under an old name
    read = []

    def map_files(fn, items, **options):
        read.extend(items)
        return ((i, fn(item)) for i, item in enumerate(items))

    monkeypatch.setattr("subgenre.core.parallel.map_files", map_files)
    steps = []
    again = scan(tree, known=known, on_progress=lambda done, of: steps.append((done, of)))
    assert read == [tree / "techno/dark/b.wav"]
    assert steps == [(5, 5)]
    assert [t.id for t in again.tracks[:2]] == [t.id for t in first.tracks[:2]]
    assert again.tracks[2].id != first.tracks[2].id
    assert again.tracks[3].id == first.tracks[3].id
    (tree / "techno/dark").rename(tree / "techno/darker")
    moved = scan(tree)
    assert {t.id for t in moved.tracks} == {t.id for t in again.tracks}


@pytest.mark.parametrize("kind", [".mp3", ".flac", ".m4a"])
def test_tags_are_read_and_cleaned(tmp_path, kind):
    written = {
        "artist": "Evil\x1b[31m\u202eArtist\nline",
        "album": "x" * 9000,
        "title": "Naïve 音楽",
        "date": "2015-03-01",
        "publisher": "Some Records",
    }
    path = files.write(tmp_path / f"a{kind}", files.music(1), tags=written)
    found = tags.read_tags(path)
    assert found.artist == "Evil [31mArtist line"
    assert len(found.album) <= tags.MAX_TEXT
    assert found.title == "Naïve 音楽"
    assert found.year == 2015
    if kind != ".m4a":
        assert found.label == "Some Records"


def write_ape(path, values):
    """Append an APEv2 tag, as its specification says."""
    items = b"".join(
        struct.pack("<II", len(value.encode()), 0) + key.encode() + b"\0" + value.encode()
        for key, value in values.items()
    )
    ends = [
        b"APETAGEX" + struct.pack("<IIII", 2000, len(items) + 32, len(values), flags) + bytes(8)
        for flags in (0xA0000000, 0x80000000)
    ]
    path.write_bytes(path.read_bytes() + ends[0] + items + ends[1])


@pytest.mark.parametrize("extension", [".mp3", ".wv"])
def test_apev2_tags_are_read(tmp_path, extension):
    path = files.write(tmp_path / f"a{extension}", files.music(1))
    write_ape(path, {"Artist": "Ann\0Bén", "Title": "T", "Album": "A", "Year": "1999", "BPM": "99"})
    assert tags.read_tags(path) == tags.Tags("Ann; Bén", "A", "T", "", 1999, 99.0)
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    assert tags.read_tags(path).artist == "Ann; Bén"


def test_several_artists_of_one_tag_are_kept_apart(tmp_path):
    path = files.write(tmp_path / "a.mp3", files.music(1), muxing={"write_id3v2": "0"})
    text = b"\3" + "Ann\0Bén\0Cem".encode()
    frame = b"TPE1" + struct.pack(">I", len(text)) + b"\0\0" + text  # under 128: as in version 2.4
    head = b"ID3\4\0\0" + bytes((0, 0, 0, len(frame)))
    plain = path.read_bytes()
    skip = 10 + plain[9] + 128 * plain[8] if plain[:3] == b"ID3" else 0
    path.write_bytes(head + frame + plain[skip:])
    assert tags.read_tags(path).artist == "Ann; Bén; Cem"
    soundfile.write(tmp_path / "b.flac", np.zeros(4410), 44_100)
    comments = [b"ARTIST=Ann", b"ARTIST=Ben"]
    block = struct.pack("<II", 0, 2) + b"".join(struct.pack("<I", len(c)) + c for c in comments)
    plain = (tmp_path / "b.flac").read_bytes()
    header = b"\4" + struct.pack(">I", len(block))[1:]
    (tmp_path / "b.flac").write_bytes(plain[:42] + header + block + plain[42:])
    assert tags.read_tags(tmp_path / "b.flac").artist.startswith("Ann; Ben")


def test_bpm_of_tags(tmp_path):
    for text, bpm in (("128", 128.0), ("174.5", 174.5), ("0", 0.0), ("fast", 0.0), ("99999", 0.0)):
        path = files.write(tmp_path / "a.mp3", files.music(1), tags={"TBPM": text})
        assert tags.read_tags(path).bpm == bpm


def test_tags_of_a_misnamed_or_damaged_file_are_none(tmp_path):
    path = files.write(tmp_path / "a.mp3", files.music(1), kind=".wav")
    assert tags.read_tags(path) == tags.Tags()
    (tmp_path / "b.mp3").write_bytes(b"ID3\4\0\0\x7f\x7f\x7f\x7fTIT2\xff\xff\xff\xff" + b"x" * 50)
    assert tags.read_tags(tmp_path / "b.mp3") == tags.Tags()


# names of feature folders


def test_folder_names_are_the_subgenres_and_in_two_genres_have_the_genre():
    assert folder_names([("techno", "Dark"), ("house", "dark"), ("house", "deep")]) == {
        ("techno", "Dark"): "techno__Dark",
        ("house", "dark"): "house__dark",
        ("house", "deep"): "deep",
    }


def test_no_folder_name_leaves_the_folder_or_hides_its_files():
    names_of_g = ("trash", "Chunks.parquet", "a/b", "a:b", "..", "con", "x" * 400, "x" * 399)
    others = [("../../x", "../../y"), ("h", "CON"), ("a", "b__c"), ("a__b", "c"), ("z", "c")]
    wild = [*(("g", name) for name in names_of_g), *others]
    names = folder_names(wild)
    assert len({name.casefold() for name in names.values()}) == len(wild)
    for name in names.values():
        assert Path(name).name == name
        assert not name.startswith(".")
        assert name.casefold() not in ("trash", "chunks.parquet")
        assert len(name.encode()) < 240
    assert folder_names(reversed(wild)) == names


def test_shown_paths_can_be_printed_and_written(tmp_path):
    path = Path(os.fsdecode(b"a\xff\n\x1b.mp3"))
    assert shown(path) == r"a\udcff\n\x1b.mp3"
    with (tmp_path / "x.csv").open("w", encoding="ascii") as file:
        csv.writer(file).writerow([shown(path)])


@pytest.mark.corpus
def test_the_recordings_are_all_there(corpus):
    with (corpus.parent / "tracks.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = sources.find(corpus)
    assert len(found.entries) == len(rows)
    assert {(e.genre, e.subgenre) for e in found.entries} == {
        (row["genre"], row["subgenre"]) for row in rows
    }
