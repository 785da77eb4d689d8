"""One row an indexed track: its fields, its table, and which rows a search may give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from subgenre.errors import IndexStoreError

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "path", "genre", "subgenre", "artist", "album")),
        *((name, pa.string()) for name in ("title", "label", "folder")),
        ("year", pa.int32()),
        ("bpm", pa.float32()),
        ("duration_s", pa.float64()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
    ]
)


@dataclass(frozen=True)
class IndexedTrack:
    """One row of an index: labels, tags and where the file is; 0 and "" where not known."""

    id: str
    path: Path
    genre: str = ""
    subgenre: str = ""
    artist: str = ""
    album: str = ""
    title: str = ""
    label: str = ""
    folder: str = ""
    year: int = 0
    bpm: float = 0.0
    duration_s: float = 0.0
    size: int = 0
    mtime_ns: int = 0

    @property
    def name(self) -> str:
        """What a list shows: artist and title, or the file's name."""
        title = self.title or self.path.stem
        return f"{self.artist} - {title}" if self.artist else title


@dataclass(frozen=True)
class Filter:
    """Which tracks may be found; empty fields ask nothing, several values mean any of them.

    Attributes:
        genre, subgenre, artist: names, upper and lower case alike.
        folder: folders that hold the file, at any depth.
        duration_s: shortest and longest, seconds. bpm: lowest and highest; tracks without
            a bpm tag are then left out.
        exclude: ids.
    """

    genre: tuple[str, ...] = ()
    subgenre: tuple[str, ...] = ()
    artist: tuple[str, ...] = ()
    folder: tuple[str, ...] = ()
    duration_s: tuple[float, float] | None = None
    bpm: tuple[float, float] | None = None
    exclude: tuple[str, ...] = ()


def table_of(tracks: Iterable[Any]) -> pa.Table:
    """Turn tracks into rows; a field that a track lacks is empty, its folder follows its path.

    Raises:
        IndexStoreError: a path that is no UTF-8.
    """
    chosen = list(tracks)
    columns: dict[str, list[Any]] = {
        f.name: [getattr(track, f.name, f.default) for track in chosen]
        for f in fields(IndexedTrack)
    }
    paths = [path if isinstance(path, Path) else Path(path) for path in columns["path"]]
    paths = [path if path.is_absolute() else path.absolute() for path in paths]
    columns |= {"path": [str(p) for p in paths], "folder": [str(p.parent) for p in paths]}
    try:
        return pa.Table.from_pydict(columns, schema=SCHEMA)
    except UnicodeEncodeError as problem:
        raise IndexStoreError(f"a path is no UTF-8 ({problem}); rename the file") from problem


def unit(vectors: NDArray[np.floating], count: int) -> NDArray[np.float32]:
    """Check vectors [count, D] and scale each to norm 1.

    Raises:
        IndexStoreError: another shape, a vector that is zero or not finite.
    """
    values = np.asarray(vectors, dtype=np.float64)
    if values.ndim != 2 or len(values) != count:
        raise IndexStoreError(f"vectors have shape {values.shape}; {count} rows of D are wanted")
    norm = np.sqrt((values**2).sum(axis=1, keepdims=True))
    bad = np.flatnonzero(~np.isfinite(norm[:, 0]) | (norm[:, 0] == 0))
    if len(bad):
        raise IndexStoreError(f"vector {bad[0]} of {count} is zero or not finite")
    return np.ascontiguousarray(values / norm, dtype=np.float32)
