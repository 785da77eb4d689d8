"""Atomic writing and safe names: never half a file, never a name outside its folder."""

from __future__ import annotations

import json
import os
import re
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subgenre.errors import SubgenreError

TEMPORARY = ".tmp-"  # what is being written has this before its name
_RESERVED = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10))} | {
    f"lpt{i}" for i in range(1, 10)
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without error.

    The bytes are on disk before the name is: after a crash the old file or the new one is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON with a final newline, atomically; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, version: int, error: type[SubgenreError]) -> dict[str, Any]:
    """Read a JSON object and check its `format_version`.

    Raises:
        error: the file is missing, is no JSON object, or has another version.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise error(f"{path} can't be read: {problem}") from problem
    if not isinstance(value, dict):
        raise error(f"{path} holds no JSON object")
    found = value.get("format_version")
    if found != version:
        raise error(f"{path} has format version {found!r}; this program reads {version}")
    return value


@contextmanager
def arrays(path: Path) -> Iterator[Any]:
    """Open an `.npz` file, whose arrays are read by name as they are used.

    Raises:
        OSError: it can't be opened. ValueError: it is damaged or lacks an array; also when one is
            read inside the block.
    """
    import numpy as np

    try:
        # a path that holds no archive would be left open by numpy
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            yield found
    except (KeyError, EOFError, zipfile.BadZipFile) as problem:
        raise ValueError(f"{path} is damaged: {problem}") from problem


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for writing; a second writer waits.

    The system frees it if we are killed. The file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        try:
            import fcntl
        except ImportError:  # Windows: one writer at a time is left to the person
            yield
            return
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


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
