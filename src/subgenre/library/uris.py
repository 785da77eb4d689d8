"""File URIs of playlists, and the reading of playlist files of limited size."""

from __future__ import annotations

import os
import stat
import urllib.parse
from pathlib import Path

from subgenre.errors import PlaylistError


def read_regular(path: Path, limit: int, what: str) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes; `what` names its kind."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PlaylistError(f"{path} is not a regular file; name a playlist ({what})")
        if status.st_size > limit:
            raise PlaylistError(
                f"{path} has {status.st_size} bytes, too large for {what} (at most {limit})"
            )
        return path.read_bytes()
    except OSError as problem:
        raise PlaylistError(f"{path} can't be read: {problem.strerror or problem}") from problem


def uri_of(path: Path, host: str = "") -> str:
    """Return the absolute URI of a file; bytes that are not plain ASCII are escaped."""
    name = os.fsencode(path.absolute())
    if os.name == "nt":
        name = b"/" + name.replace(b"\\", b"/")
    return f"file://{host}" + urllib.parse.quote_from_bytes(name, safe="/:")


def path_of_uri(line: bytes) -> str:
    """Return the path of `file://[host]/path`, with percent-escapes decoded."""
    _, slash, rest = line[7:].partition(b"/")
    path = os.fsdecode(urllib.parse.unquote_to_bytes(slash + rest)).replace("\0", "")
    return path.lstrip("/") if os.name == "nt" else path
