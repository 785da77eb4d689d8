"""Tracks as rows of a table, and the filter that chooses among them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.errors import ConfigError, IndexStoreError
from subgenre.library.track import Track
from subgenre.metrics.vectors import BLOCK, blocks, unit

Measured = tuple[float | None, str | None]  # tempo and key, as in `Track`
Rows = dict[str, NDArray[Any]]  # columns by name, one value per track

TEXTS = ("id", "path", "genre", "subgenre", "artist", "album", "title", "label")
SCHEMA: dict[str, Any] = {  # text is kept as Python's own strings
    **dict.fromkeys(TEXTS, object),
    "year": np.int32,
    "bpm": np.float32,
    "duration_s": np.float64,
    "size": np.int64,
    "mtime_ns": np.int64,
}


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

    def __post_init__(self) -> None:
        for name in ("genre", "subgenre", "artist", "folder", "key", "in_key", "exclude"):
            if isinstance(given := getattr(self, name), str | Path):
                raise ConfigError(f"{name} is {str(given)!r}; give a tuple: ({str(given)!r},)")
        for name in ("bpm", "duration_s"):
            limits = getattr(self, name)
            try:
                low, high = (-1, 1) if limits is None else map(float, limits)
            except (TypeError, ValueError):
                low, high = 1, -1
            if isinstance(limits, str) or not low <= high:
                raise ConfigError(f"{name} is {limits!r}; give the lowest and the highest number")


def lies_below(path: str | Path, folder: str | Path) -> bool:
    """Whether a file lies in a folder at any depth, by its path as written or without links."""
    file, parent = (Path(os.path.abspath(name)) for name in (path, folder))  # noqa: PTH100
    return file.is_relative_to(parent) or file.is_relative_to(os.path.realpath(parent))


def table_of(tracks: Iterable[Track]) -> Rows:
    """Turn tracks into rows; paths become absolute."""
    listed = list(tracks)
    columns = {name: [getattr(t, name) for t in listed] for name in SCHEMA}
    columns["path"] = [str(t.path.absolute()) for t in listed]
    try:
        "".join(text for name in TEXTS for text in columns[name]).encode()
    except UnicodeEncodeError as problem:
        message = f"a path is not valid UTF-8 ({problem}); rename the file"
        raise IndexStoreError(message) from problem
    return rows_of(columns)


def rows_of(columns: Mapping[str, Sequence[Any]]) -> Rows:
    """Turn columns of plain values into rows."""
    return {name: np.array(columns[name], dtype) for name, dtype in SCHEMA.items()}


def take(rows: Rows, chosen: NDArray[Any]) -> Rows:
    """Return some rows, by their numbers or by a mask."""
    return {name: column[chosen] for name, column in rows.items()}


def tracks_of(rows: Rows, measured: Mapping[str, Measured]) -> list[Track]:
    """Turn rows into tracks, with tempo and key by id."""
    tracks = []
    for values in zip(*(rows[name].tolist() for name in SCHEMA), strict=True):
        row = dict(zip(SCHEMA, values, strict=True))
        tempo_bpm, key = measured.get(row["id"], (None, None))
        tracks.append(Track(**row | {"path": Path(row["path"])}, tempo_bpm=tempo_bpm, key=key))
    return tracks


def checked_unit(vectors: NDArray[np.floating], count: int) -> NDArray[np.float32]:
    """Check vectors [count, D] and scale each to norm 1."""
    values = np.asarray(vectors)
    if values.ndim != 2 or len(values) != count:
        raise IndexStoreError(f"vectors have shape {values.shape}; {count} rows of D are needed")
    found = np.empty(values.shape, np.float32)
    for number, block in enumerate(blocks(values, np.arange(count))):
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1) | ~block.any(axis=1))
        if len(bad):
            first = number * BLOCK + bad[0]
            raise IndexStoreError(f"vector {first} of {count} is zero or not finite")
        found[number * BLOCK :][: len(block)] = unit(block)
    return found
