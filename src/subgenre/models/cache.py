"""What a frozen backbone made of the chunks, kept on disk.

    <folder>/<key>.json               rows, and which file holds them
    <folder>/<key>-<checksum>.npy     float32 [n, H] or [n, L, H], read as a memory map

The key is a hash of everything that the vectors follow from, so a cache is never out of date; what
is damaged counts as absent. The JSON is replaced last: before that, the old pair is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.core import files
from subgenre.errors import FeatureError

FORMAT_VERSION = 1
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Cached:
    """Rows of a feature folder, ascending [n], and their vectors [n, ...], not writable."""

    rows: Ints
    vectors: Floats

    def take(self, rows: Ints) -> Floats:
        """Return the vectors of `rows`, all of which must be here; all at once without a copy."""
        if np.array_equal(rows, self.rows):
            return self.vectors
        return self.vectors[np.searchsorted(self.rows, rows)]


def key(**parts: Any) -> str:
    """Hash what the vectors follow from: plain values by name."""
    told = json.dumps({"format_version": FORMAT_VERSION, **parts}, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def read(folder: Path, name: str) -> Cached | None:
    """Open the cache of a key, or None where there is none that can be trusted."""
    try:
        told = files.read_json(folder / f"{name}.json", version=FORMAT_VERSION, error=FeatureError)
        rows = np.array(told["rows"], dtype=np.int64)
        path = folder / f"{name}-{told['checksum']}.npy"
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FeatureError, OSError, KeyError, TypeError, ValueError, OverflowError):
        return None
    whole = rows.ndim == 1 and len(rows) == len(vectors) and bool((np.diff(rows) > 0).all())
    if not whole or vectors.dtype != np.float32 or _checksum(vectors) != told["checksum"]:
        return None
    return Cached(rows, vectors)


def write(folder: Path, name: str, cached: Cached) -> None:
    """Keep rows and vectors; what the key held before goes."""
    vectors = np.ascontiguousarray(cached.vectors, dtype=np.float32)
    checksum = _checksum(vectors)
    path = folder / f"{name}-{checksum}.npy"
    with files.atomic_path(path) as temporary, temporary.open("wb") as out:
        np.save(out, vectors, allow_pickle=False)
    told = {"format_version": FORMAT_VERSION, "checksum": checksum, "rows": cached.rows.tolist()}
    files.write_json(folder / f"{name}.json", told)
    for old in folder.glob(f"{name}-*.npy"):
        if old != path:
            with contextlib.suppress(OSError):  # a reader may still map it, where that forbids it
                old.unlink()


def merged(known: Cached | None, new: Cached) -> Cached:
    """Put two sets of rows together, ascending."""
    if known is None:
        return new
    rows = np.concatenate([known.rows, new.rows])
    order = np.argsort(rows)
    return Cached(rows[order], np.concatenate([known.vectors, new.vectors])[order])


def _checksum(vectors: Floats) -> str:
    """Hash values and shape, a block at a time: the array may be larger than memory."""
    digest = hashlib.sha256(str(vectors.shape).encode())
    for start in range(0, len(vectors), 4096):
        digest.update(np.ascontiguousarray(vectors[start : start + 4096]).tobytes())
    return digest.hexdigest()[:16]
