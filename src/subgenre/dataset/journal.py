"""A journal of finished work: one JSON line each, on disk before the next; a torn line is cut off.

What survives a power cut or `kill -9` are all lines but perhaps the last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from subgenre.errors import FeatureError

FORMAT_VERSION = 1


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the header and the whole lines of a journal; both empty where there is none.

    Raises:
        FeatureError: it can't be read or has another version.
    """
    try:
        lines = _whole_lines(path.read_bytes())
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


class Journal:
    """A journal opened for appending; use it as a context manager."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        good = sum(len(line) for line in _good(self._file.read()))
        self._file.truncate(good)
        self._file.seek(good)
        if not good:
            self.append({"format_version": FORMAT_VERSION, **header})

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line and wait until it is on disk."""
        self._file.write(json.dumps(entry).encode() + b"\n")
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


def _whole_lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _good(data)]


def _good(data: bytes) -> list[bytes]:
    """Return the lines up to the first that is torn."""
    lines = []
    for line in data.splitlines(keepends=True):
        try:
            whole = line.endswith(b"\n") and isinstance(json.loads(line), dict)
        except ValueError:
            whole = False
        if not whole:
            break
        lines.append(line)
    return lines
