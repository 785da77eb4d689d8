"""Playlist files, read and written: M3U8, rekordbox XML, CSV.

Playlists may come from anyone, so a file must be a regular one of limited size, and XML with a
document type or entities is refused.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from subgenre.core import csv_tables, files
from subgenre.errors import PlaylistError
from subgenre.library.rekordbox import read_rekordbox, write_rekordbox
from subgenre.library.track import Track
from subgenre.library.uris import Maps, decode, read_regular, resolve, uri_of

M3U_EXTENSIONS = frozenset({".m3u", ".m3u8"})
MAX_TEXT_BYTES = 256 * 2**20  # a list of a million tracks has about 200 MB
_TAGS = ("artist", "title", "album", "bpm")
CSV_COLUMNS = ("path", "genre", "subgenre", *_TAGS, "tempo_bpm", "key", "duration_s", "id")


@dataclass(frozen=True)
class PlaylistFormat:
    """A kind of playlist file.

    Attributes:
        extensions: in lower case, with the dot.
        read: (path, maps) -> its tracks in order, see `uris.resolve`. write: (path, tracks in
            order).
    """

    extensions: frozenset[str]
    read: Callable[[Path, Maps], list[Path]]
    write: Callable[[Path, Sequence[Track]], None]


FORMATS: dict[str, PlaylistFormat] = {}  # by extension


def register(playlist_format: PlaylistFormat) -> None:
    """Add a format; every command that reads or writes playlists then knows it."""
    FORMATS.update(dict.fromkeys(playlist_format.extensions, playlist_format))


def read_playlist(path: Path, maps: Maps = ()) -> list[Path]:
    """Read the tracks of a playlist file, in order; for `maps` see `uris.resolve`.

    A rekordbox file gives the tracks of all its playlists, each once; `read_rekordbox` keeps them
    apart.
    """
    return _format_of(path).read(path, maps)


def write_playlist(path: Path, tracks: Sequence[Track]) -> None:
    """Write tracks in order, in the format of the extension."""
    _format_of(path).write(path, tracks)


def _format_of(path: Path) -> PlaylistFormat:
    if path.suffix.lower() not in FORMATS:
        raise PlaylistError(
            f"{path} has no extension of a playlist; use one of {', '.join(sorted(FORMATS))}"
        )
    return FORMATS[path.suffix.lower()]


def write_m3u8(path: Path, tracks: Iterable[Track]) -> None:
    """Write an extended M3U8 playlist: UTF-8, paths relative to its folder, EXTINF lines.

    A name with line breaks, backslashes, trailing blanks or bytes that are not UTF-8 is written as
    an absolute `file://` URI with percent-escapes.
    """
    lines = ["#EXTM3U", *(line for track in tracks for line in _lines(path, track))]
    files.write_text(path, "\n".join(lines) + "\n")


def append_m3u8(path: Path, tracks: Sequence[Track]) -> int:
    """Add tracks to the end of a playlist, except those that it has; return how many.

    A playlist that does not exist is created.
    """
    if not path.exists():
        write_m3u8(path, tracks)
        return len(tracks)
    held = {os.path.realpath(entry) for entry in read_m3u(path)}
    added = [t for t in tracks if os.path.realpath(t.path) not in held]
    if added:
        past, _ = read_text(path)
        end = "" if past.endswith("\n") or not past else "\n"
        lines = [line for track in added for line in _lines(path, track)]
        files.write_text(path, past + end + "\n".join(lines) + "\n")
    return len(added)


def write_csv(path: Path, tracks: Iterable[Track]) -> None:
    """Write a CSV with the columns `CSV_COLUMNS` and absolute paths; it is also a library.

    A path with bytes that are not UTF-8 is written as a `file://` URI.
    `duration_s` is in seconds, to the millisecond; `bpm` is by the tags, `tempo_bpm` measured. What
    is unknown is empty.
    """
    rows = []
    for track in tracks:
        known = {"bpm": track.bpm or "", "duration_s": round(track.duration_s, 3) or ""}
        name = str(track.path.absolute())
        name = uri_of(track.path) if re.search(r"[\ud800-\udfff]", name) else name
        values = {**vars(track), "path": name, **known}
        rows.append([values[column] for column in CSV_COLUMNS])
    csv_tables.write(path, [CSV_COLUMNS, *rows])


def read_csv(path: Path, maps: Maps = ()) -> list[Path]:
    """Read the column `path` of a CSV; paths are relative to the folder of the CSV."""
    text, _ = read_text(path)
    try:
        rows = io.StringIO(text, newline="")
        table = csv.DictReader(rows, delimiter=csv_tables.delimiter(text))
        if "path" not in (table.fieldnames or ()):
            found = ", ".join(table.fieldnames or ()) or "nothing"
            raise PlaylistError(f"{path} has no column 'path' but {found}; name one in line 1")
        return [
            resolve(path.parent, csv_tables.plain(row["path"]), maps)
            for row in table
            if row["path"]
        ]
    except csv.Error as problem:
        raise PlaylistError(f"{path} can't be read as CSV: {problem}") from problem


def _lines(playlist: Path, track: Track) -> list[str]:
    """Return the lines of a track: a comment with tempo and key if measured, EXTINF and path."""
    seconds = round(track.duration_s) if track.duration_s > 0 else -1
    name = " ".join(track.name.encode("utf-8", "replace").decode("utf-8").split())
    measured = track.tempo_bpm or track.key
    comment = [f"# {track.tempo_and_key}"] if measured else []
    return [*comment, f"#EXTINF:{seconds},{name}", _line(playlist, track.path)]


def _line(playlist: Path, track: Path) -> str:
    """Return the path of a track as a line of an M3U8 playlist."""
    folder = Path(os.path.realpath(playlist.parent))
    try:
        name = os.path.relpath(track.absolute(), folder)
    except ValueError:  # another drive
        name = str(track.absolute())
    if os.sep == "\\":
        name = name.replace("\\", "/")
    if re.search(r"[\n\r\\\ud800-\udfff]|[ \t]$", name):
        return uri_of(track)
    return f"./{name}" if name[0] in "# \t" or re.match(r"[A-Za-z][\w+.-]*:", name) else name


def read_m3u(path: Path, maps: Maps = ()) -> list[Path]:
    """Read the entries of an M3U or M3U8 playlist, in order, repeated ones repeated.

    Paths are relative to the folder of the playlist; the files need not exist. Lines that begin
    with `#` are ignored. `maps` and the spelling of names: see `resolve`.

    Raises:
        PlaylistError: not a regular text file, unreadable, or too large.
    """
    return decoded_m3u(path, maps)[0]


def decoded_m3u(path: Path, maps: Maps = ()) -> tuple[list[Path], str]:
    """Return the entries of a playlist as `read_m3u` does, and its encoding."""
    text, encoding = read_text(path)
    entries = (line.strip(" \t") for line in re.split("\r\n|\n|\r", text))
    named = [resolve(path.parent, e, maps) for e in entries if e and not e.startswith("#")]
    return named, encoding


def read_text(path: Path) -> tuple[str, str]:
    """Return the file's text without a byte order mark, and its encoding."""
    try:
        text, encoding = decode(read_regular(path, MAX_TEXT_BYTES, "text"))
    except UnicodeDecodeError as problem:
        raise PlaylistError(f"{path} can't be read: {problem}") from problem
    if "\0" in text:
        raise PlaylistError(
            f"{path} holds binary data; a playlist is text with a path on each line"
        )
    return text, encoding


register(PlaylistFormat(M3U_EXTENSIONS, read_m3u, write_m3u8))
register(PlaylistFormat(frozenset({".csv"}), read_csv, write_csv))
register(
    PlaylistFormat(
        frozenset({".xml"}),
        lambda path, maps: list(
            dict.fromkeys(chain.from_iterable(read_rekordbox(path, maps).values()))
        ),
        lambda path, tracks: write_rekordbox(path, {path.stem: tracks}),
    )
)
