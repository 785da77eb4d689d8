"""The text of playlist files, and the files that their entries name."""

from __future__ import annotations

import functools
import os
import re
import stat
import unicodedata
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from subgenre.errors import PlaylistError

Maps = Sequence[tuple[str, str]]
"""Prefixes of paths on another machine, each with the folder that has those files here."""
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\|//")  # a drive or a share
# where it differs from Latin-1; its five bytes without a character stay control characters
_WINDOWS_1252 = {b: bytes([b]).decode("cp1252", "ignore") or b for b in range(0x80, 0xA0)}
_SCHEME = re.compile(r"[A-Za-z][\w+.-]+:")


def decode(data: bytes) -> tuple[str, str]:
    """Return text and its encoding: UTF-8, UTF-16 with a mark, else Windows-1252.

    Raises:
        UnicodeDecodeError: damaged UTF-16.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16"), "UTF-16"
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError:
        return data.decode("latin-1").translate(_WINDOWS_1252), "Windows-1252"


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


def path_of_uri(uri: str) -> str:
    """Return the path of `file:/path` or `file://[host]/path`, with percent-escapes decoded.

    The path of another host is `//host/path`.
    """
    rest = uri[5:]
    host = ""
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest
    path = os.fsdecode(urllib.parse.unquote_to_bytes(os.fsencode(rest))).replace("\0", "")
    if host.lower() not in ("", "localhost"):
        return f"//{host}{path}"
    return path.lstrip("/") if re.match(r"/+[A-Za-z]:/", path) else path


def resolve(folder: Path, entry: str, maps: Maps = ()) -> Path:
    """Return the file that an entry of a list in `folder` names; it need not exist.

    The exact name comes first, then the same text in another Unicode form, without
    percent-escapes, and without regard to case. A path of another machine stays as it is.
    """
    name = path_of_uri(entry) if entry[:5].lower() == "file:" else entry
    slashed = name.replace("\\", "/")
    for source, target in maps:
        prefix = source.replace("\\", "/").rstrip("/")
        same = str.casefold if _WINDOWS.match(prefix + "/") else str
        rest = slashed[len(prefix) :]
        if same(slashed[: len(prefix)]) == same(prefix) and rest[:1] in ("", "/"):
            return _spelled(Path(f"{target}{rest}"))
    path = folder / name
    if os.path.lexists(path):
        return path
    if os.sep == "/" and (_WINDOWS.match(name) or _SCHEME.match(name)):
        return Path(slashed)
    found = _spelled(path)
    if found == path and "\\" in entry and os.sep == "/":
        return _spelled(folder / slashed)
    return found


def elsewhere(path: Path) -> str:
    """Return why a resolved path is no file of this machine, or ""."""
    name = path.as_posix()
    if os.sep == "/" and _WINDOWS.match(name):
        return "a path of another machine; translate it with --map FROM=TO"
    return "a stream, not a file" if _SCHEME.match(name) else ""


def _spelled(path: Path) -> Path:
    """Return the existing path whose parts are spelled like these, else the path itself."""
    place = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        name = part
        if not os.path.lexists(place / part):
            try:
                names = _names(str(place), place.stat().st_mtime_ns)
            except OSError:
                return path
            name = next((found for found in map(names.get, _spellings(part)) if found), "")
            if not name:
                return path
        place /= name
    return place


@functools.lru_cache(maxsize=16)
def _names(folder: str, _mtime_ns: int) -> dict[str, str]:
    """Return the names in a folder by each of their spellings, "" where two share one."""
    names: dict[str, str] = {}
    for name in os.listdir(folder):  # noqa: PTH208 - names alone
        form = unicodedata.normalize("NFC", name)
        for key in {name, form, f"/{form.casefold()}"}:
            names[key] = "" if key in names else name
    return names


def _spellings(part: str) -> list[str]:
    """Return the keys of `_names` that a part of a path may have, the nearest first."""
    plain = os.fsdecode(urllib.parse.unquote_to_bytes(part.encode("utf-8", "surrogateescape")))
    forms = [unicodedata.normalize("NFC", text) for text in (part, plain)]
    raw = os.fsdecode(part.encode("cp1252", "backslashreplace"))  # a name that is not UTF-8 on disk
    return [*forms, raw, *(f"/{form.casefold()}" for form in forms)]
