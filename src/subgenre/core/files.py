"""Atomic writing, checksums and safe names: never half a file, never a name outside its folder.

A checksum is a CRC-32. A JSON file that we write has one in its last key; a file of an earlier
version, or one that a person writes, has none and is read without.
"""

from __future__ import annotations

import functools
import json
import os
import re
import struct
import tempfile
import tokenize
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote_to_bytes

from subgenre.errors import SubgenreError

TEMPORARY = ".subgenre-tmp-"  # before the name of what is being written
checksum = zlib.crc32  # of bytes; a second argument is that of the bytes before them
CHECKSUM = "checksum"  # key of a JSON file
_MAX_BYTES = 2**26  # of a JSON file
_MAX_DEPTH = 32  # of lists and tables inside one another
_RESERVED = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10))} | {
    f"lpt{i}" for i in range(1, 10)
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without error.

    The bytes are on disk before the name is: after a crash the old file or the new one is there.
    """
    with temporary_path(path.parent, path.suffix) as temporary, named(path):
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)


@contextmanager
def temporary_path(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Yield the path of a new file in `folder`, which is made; the file is removed at the end.

    It is locked meanwhile. What a killed process has left there is not, and is removed first, once
    in each process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_once(folder.absolute(), os.getpid())
    while True:
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115
            prefix=TEMPORARY, suffix=suffix, dir=folder, delete=False
        )
        if _lock(file, wait=True):  # else another process took it for one that was left
            break
        file.close()
    path = Path(file.name)
    try:
        yield path
    finally:
        file.close()
        path.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the files that killed processes were writing in a folder."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with suppress(OSError), path.open("r+b") as file:
            if _lock(file, wait=False):
                path.unlink()


@functools.cache  # a folder may hold thousands of files
def _remove_once(folder: Path, _process: int) -> None:
    remove_unfinished(folder)


def _lock(file: IO[bytes], *, wait: bool) -> bool:
    """Lock a file that still has a name, until it is closed or we are killed."""
    try:
        import fcntl
    except ImportError:  # Windows: an open file can't be renamed, and what is left stays
        file.close()
        return wait
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is locked, or the file system has no locks
        return wait
    return os.fstat(file.fileno()).st_nlink > 0


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Name the file in an error of the system that names none, as that of a full disk does."""
    try:
        yield
    except OSError as problem:
        if problem.errno and not problem.filename:
            problem.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write `data`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its checksum and a final newline, atomically; NaN is refused."""
    record = with_checksum(value)
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(
    path: Path, *, version: int, error: type[SubgenreError], way_out: str = "copy it again"
) -> dict[str, Any]:
    """Read a JSON object; check its `format_version` and, where it has one, its checksum.

    Args:
        way_out: what to do about a damaged file, for the message.

    Raises:
        error: the file is missing, damaged, larger than 64 MiB, nested too deeply, no JSON object,
            or of another version.
    """
    value = read_plain(path, _parse_json, error=error, max_bytes=_MAX_BYTES, way_out=way_out)
    if not isinstance(value, dict):
        raise error(f"{path} holds no JSON object; {way_out}")
    found = value.get("format_version")
    if found != version:
        raise error(f"{path} has format version {found!r:.80}; this program reads {version}")
    if not whole(value):
        raise error(
            f"{path} is damaged: its checksum differs; {way_out}, or, if you have edited it "
            f'yourself, remove its line "{CHECKSUM}"'
        )
    value.pop(CHECKSUM, None)
    return value


def read_plain(
    path: Path,
    parse: Callable[[str], Any],
    *,
    error: type[SubgenreError],
    max_bytes: int,
    way_out: str = "give another file",
) -> Any:
    """Read a text file of plain values, such as JSON, within limits of size and depth.

    Args:
        parse: turns the text into lists, tables and values; a `ValueError` if it can't.

    Raises:
        error: the file is missing, can't be read, or is larger or deeper than the limits.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise ValueError(f"it is larger than {max_bytes // 1024} KiB")
        value = parse(data.decode("utf-8"))
        level, depth = [value], 0
        while level := [inner for outer in level for inner in _inner(outer)]:
            depth += 1
            if depth > _MAX_DEPTH:
                raise RecursionError
    except FileNotFoundError:
        raise error(f"{path} does not exist; {way_out}") from None
    except RecursionError:
        reason = f"it is nested more than {_MAX_DEPTH} levels deep"
        raise error(f"{path} can't be read: {reason}; {way_out}") from None
    except (OSError, ValueError) as problem:
        raise error(f"{path} can't be read: {problem}; {way_out}") from problem
    return value


def _inner(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _parse_json(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON number")

    return json.loads(text, parse_constant=refuse)


def with_checksum(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values with the checksum of their JSON text."""
    content = {key: part for key, part in value.items() if key != CHECKSUM}
    return {**content, CHECKSUM: checksum(json.dumps(content).encode())}


def whole(value: Mapping[str, Any]) -> bool:
    """Return whether plain values have the checksum that they name, if they name one.

    If the last value is the checksum but has another name, the name is damaged.
    """
    name = CHECKSUM if CHECKSUM in value else next(reversed([*value]), "")
    content = {key: part for key, part in value.items() if key != name}
    right = bool(value.get(name) == with_checksum(content)[CHECKSUM])
    return right == (name == CHECKSUM)


def path_to_text(path: Path, root: Path) -> str:
    """Return a path as text with `/`, relative to `root` if inside it.

    A name that is not UTF-8 (Linux allows any bytes) is percent-encoded after `bytes:`.
    """
    text = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    if text.startswith("bytes:") or text.encode("utf-8", "replace").decode("utf-8") != text:
        return "bytes:" + quote(text.encode("utf-8", "surrogateescape"))
    return text


def path_from_text(text: str) -> Path:
    """Invert `path_to_text`."""
    if text.startswith("bytes:"):
        return Path(unquote_to_bytes(text[6:]).decode("utf-8", "surrogateescape"))
    return Path(text)


def portable(path: Path, folder: Path) -> str:
    """Return the text of a path for a file in `folder`.

    Where both lie in one folder it is relative, so that the text stays right if that one is moved;
    else it is absolute.
    """
    here, path = folder.resolve(), path.absolute()
    inside = path.is_relative_to(here.parent)
    return path_to_text(Path(os.path.relpath(path, here)) if inside else path, here)


def located(text: str, folder: Path) -> Path:
    """Invert `portable`: the absolute path."""
    return Path(os.path.normpath(folder.resolve() / path_from_text(text)))


@contextmanager
def arrays(path: Path) -> Iterator[Any]:
    """Open an `.npz` file, whose arrays are read by name as they are used.

    Raises:
        OSError: it can't be opened. ValueError: it is damaged or lacks an array; also when one is
            read inside the block.
    """
    import numpy as np

    # a path that holds no archive would be left open by numpy
    with _damage(path), path.open("rb") as file, np.load(file, allow_pickle=False) as found:
        yield found


def mapped_array(path: Path) -> Any:
    """Map an `.npy` file for reading.

    Raises:
        OSError: it can't be opened. ValueError: it is damaged.
    """
    import numpy as np

    with _damage(path):
        return np.lib.format.open_memmap(path, mode="r")


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn all that numpy raises at a damaged file into a ValueError."""
    try:
        yield
    except (
        *(LookupError, TypeError, ArithmeticError, RuntimeError, MemoryError, EOFError),
        *(SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, struct.error),
    ) as problem:
        raise ValueError(f"{path} is damaged: {problem}") from problem


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is removed at the end; a second process waits.

    The system frees the lock if we are killed. On Windows nobody waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("ab")
        if _lock(file, wait=True):  # else it was removed while we waited
            break
        file.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def safe_name(text: str, limit: int = 80) -> str:
    """Turn any text into a file name that is safe on Linux, macOS and Windows.

    Letters and digits of every script stay; separators, control characters and leading dots go.
    At most `limit` characters and 200 bytes of UTF-8. Never empty.
    """
    text = unicodedata.normalize("NFC", text)
    text = "".join("_" if unicodedata.category(c)[0] in "CZ" and c != " " else c for c in text)
    text = re.sub(r'[\\/:*?"<>|]+', "_", text).strip().lstrip(".").rstrip(". ")[:limit]
    while len(text.encode("utf-8", "replace")) > 200:
        text = text[:-1]
    text = text.encode("utf-8", "replace").decode("utf-8").rstrip(". ")
    if not text or text.lower().split(".")[0] in _RESERVED:
        return f"_{text}"
    return text
