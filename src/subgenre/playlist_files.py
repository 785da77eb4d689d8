"""Playlist files, read and written."""

from __future__ import annotations

import os
import stat
import urllib.parse
from pathlib import Path

from subgenre.errors import PlaylistError

M3U_EXTENSIONS = frozenset({".m3u", ".m3u8"})
MAX_M3U_BYTES = 64 * 2**20


def read_m3u(path: Path) -> list[Path]:
    """Read the entries of an M3U or M3U8 playlist, in order, repeated ones repeated.

    Relative entries stand on the playlist's folder. Percent-escapes count in `file://` URIs alone:
    elsewhere a `%` is a `%`. Lines that begin with `#` are passed over. Whether an entry exists
    is not asked.

    Raises:
        PlaylistError: no regular file, unreadable, too large, or no text.
    """
    entries = (line.strip(b" \t") for line in _read_text_bytes(path).splitlines())
    return [_entry(path, line) for line in entries if line and not line.startswith(b"#")]


def _read_text_bytes(path: Path) -> bytes:
    """Return the file's bytes without a byte order mark; UTF-16 with a mark becomes UTF-8."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PlaylistError(f"{path} is no regular file; name an M3U or M3U8 file")
        if status.st_size > MAX_M3U_BYTES:
            raise PlaylistError(f"{path} has {status.st_size} bytes: too large for a playlist")
        data = path.read_bytes()
    except OSError as problem:
        raise PlaylistError(f"{path} can't be read: {problem.strerror or problem}") from problem
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.decode("utf-16", "replace").encode("utf-8")
    if b"\0" in data:
        raise PlaylistError(
            f"{path} holds binary data; a playlist is text with a path on each line"
        )
    return data.removeprefix(b"\xef\xbb\xbf")


def _entry(playlist: Path, line: bytes) -> Path:
    """Turn one line into a path."""
    if line[:7].lower() == b"file://":
        return playlist.parent / _path_of_uri(line)
    # os.fsdecode keeps bytes that are no UTF-8, so that a file with such a name is still found
    name = playlist.parent / os.fsdecode(line)
    if os.sep == "/" and b"\\" in line and not os.path.lexists(name):
        line = line.replace(b"\\", b"/")
        name = playlist.parent / os.fsdecode(line)
    if playlist.suffix.lower() == ".m3u" and not _is_utf8(line) and not os.path.lexists(name):
        return playlist.parent / line.decode("latin-1")
    return name


def _path_of_uri(line: bytes) -> str:
    """Return the path of `file://[host]/path`, percent-escapes undone."""
    _, slash, rest = line[7:].partition(b"/")
    path = os.fsdecode(urllib.parse.unquote_to_bytes(slash + rest)).replace("\0", "")
    return path.lstrip("/") if os.name == "nt" else path


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
