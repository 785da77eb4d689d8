"""Tracks as rows of a table, and the filter that chooses among them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from subgenre.errors import IndexStoreError
from subgenre.library.track import Track
from subgenre.metrics.vectors import unit

Measured = tuple[float | None, str | None]  # tempo and key, as in `Track`
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "path", "genre", "subgenre")),
        *((name, pa.string()) for name in ("artist", "album", "title", "label")),
        ("year", pa.int32()),
        ("bpm", pa.float32()),
        ("duration_s", pa.float64()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Filter:
    """Which tracks may be found; an empty field allows all, several values allow any of them.

    Attributes:
        genre, subgenre, artist: names; case does not matter.
        folder: folders above the file or a copy of it, at any depth.
        duration_s: shortest and longest, seconds. bpm: lowest and highest `Track.tempo`.
        key: names as for `keys.parse`. in_key: the same, with their neighbours on the Camelot
            wheel. Tracks of unknown duration, tempo or key are left out.
        exclude: ids.
    """

    genre: tuple[str, ...] = ()
    subgenre: tuple[str, ...] = ()
    artist: tuple[str, ...] = ()
    folder: tuple[str, ...] = ()
    duration_s: tuple[float, float] | None = None
    bpm: tuple[float, float] | None = None
    key: tuple[str, ...] = ()
    in_key: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def lies_below(path: str | Path, folder: str | Path) -> bool:
    """Whether a file lies in a folder at any depth, by its path as written or without links."""
    file, parent = (Path(os.path.abspath(name)) for name in (path, folder))  # noqa: PTH100
    return file.is_relative_to(parent) or file.is_relative_to(os.path.realpath(parent))


def table_of(tracks: Iterable[Track]) -> pa.Table:
    """Turn tracks into rows; paths become absolute."""
    rows = [
        {**{name: getattr(t, name) for name in SCHEMA.names}, "path": str(t.path.absolute())}
        for t in tracks
    ]
    try:
        return pa.Table.from_pylist(rows, schema=SCHEMA)
    except UnicodeEncodeError as problem:
        message = f"a path is not valid UTF-8 ({problem}); rename the file"
        raise IndexStoreError(message) from problem


def track_of(row: dict[str, Any], measured: Measured = (None, None)) -> Track:
    """Turn a row of the table into a track."""
    tempo_bpm, key = measured
    return Track(**{**row, "path": Path(row["path"])}, tempo_bpm=tempo_bpm, key=key)


def checked_unit(vectors: NDArray[np.floating], count: int) -> NDArray[np.float32]:
    """Check vectors [count, D] and scale each to norm 1."""
    values = np.asarray(vectors, dtype=np.float64)
    if values.ndim != 2 or len(values) != count:
        raise IndexStoreError(f"vectors have shape {values.shape}; {count} rows of D are needed")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1) | ~values.any(axis=1))
    if len(bad):
        raise IndexStoreError(f"vector {bad[0]} of {count} is zero or not finite")
    return np.ascontiguousarray(unit(values), dtype=np.float32)
