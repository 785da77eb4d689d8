"""A journal of finished work: one JSON line per entry, flushed to disk before the next.

Each line has its checksum. The first line that is incomplete or damaged ends the journal; what
follows is removed, and done again. After a power cut or `kill -9` that is at most the last line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from subgenre.core import files
from subgenre.errors import FeatureError

FORMAT_VERSION = 1


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the header and the complete lines of a journal; both empty without a journal.

    Raises:
        FeatureError: unreadable or of another version.
    """
    try:
        lines = [json.loads(line) for line in _complete_lines(path.read_bytes())]
        for line in lines:
            line.pop(files.CHECKSUM, None)
    except FileNotFoundError:
        return {}, []
    except OSError as problem:
        raise FeatureError(f"{path} can't be read: {problem}") from problem
    if not lines:
        return {}, []
    header = lines[0]
    if header.get("format_version") != FORMAT_VERSION:
        raise FeatureError(
            f"{path} has format version {header.get('format_version')!r}; "
            f"this program reads {FORMAT_VERSION}"
        )
    return header, lines[1:]


def torn(path: Path) -> bytes:
    """Return what follows the last line that `read` returns."""
    data = path.read_bytes()
    return data[sum(map(len, _complete_lines(data))) :]


class Journal:
    """A journal open for appending; a context manager."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        n_bytes = sum(len(line) for line in _complete_lines(self._file.read()))
        self._file.truncate(n_bytes)
        self._file.seek(n_bytes)
        if not n_bytes:
            self.append({"format_version": FORMAT_VERSION, **header})

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line and flush it to disk."""
        with files.named(Path(self._file.name)):
            self._file.write(json.dumps(files.with_checksum(entry)).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def _complete_lines(data: bytes) -> list[bytes]:
    """Return the lines before the first that is incomplete or damaged."""
    lines: list[bytes] = []
    for line in data.splitlines(keepends=True):
        try:
            entry = json.loads(line)
            complete = line.endswith(b"\n") and isinstance(entry, dict) and files.whole(entry)
            # only the header may have none, so that another version is named
            complete = complete and (not lines or files.CHECKSUM in entry)
        except (ValueError, RecursionError):
            complete = False
        if not complete:
            break
        lines.append(line)
    return lines
