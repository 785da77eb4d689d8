"""Arrays on disk by key: what the frozen part of a network gives for each chunk, computed once.

    <folder>/<key>.npy         [n, ...], read as a memory map; rows that are not done hold zeros
    <folder>/<key>.done.npy    int64 [n]: the CRC32 of each row that is done, else -1
    <folder>/<key>.lock        held by the process that fills it; another waits
    <folder>/<key>.2-of-3.*    the same three of one shard's rows, until they are joined

The key is a hash of everything that the values follow from, so an array is never out of date.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from subgenre.core import files
from subgenre.core.shards import Shard

FORMAT_VERSION = 2
CACHE = ".vectors"  # folder of the arrays, in a feature folder and in a model folder
SAVE_EVERY_S = 60.0  # a killed process loses this much work, seconds
_ABSENT = -1
Array = NDArray[Any]
Ints = NDArray[np.int64]


def key(**parts: Any) -> str:
    """Hash what the values follow from: plain values by name."""
    text = json.dumps({"format_version": FORMAT_VERSION, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class ArrayCache:
    """One array [n, ...] on disk, whose rows are computed when they are first needed.

    Rows that fail their checksum count as absent; so does an array of another shape or type.
    """

    def __init__(self, folder: Path, key: str, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.folder, self.key = folder, key
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._values_path = folder / f"{key}.npy"
        self._done_path = folder / f"{key}.done.npy"
        self._lock_path = folder / f"{key}.lock"

    def fill(
        self,
        rows: Ints,
        compute: Callable[[Ints], Array],
        *,
        batch_size: int,
        shard: Shard | None = None,
        check_room: Callable[[int], None] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Array:
        """Compute those of `rows` that are absent; return the whole array.

        What is computed is kept if the work is stopped. Rows that shards have computed are joined.

        Args:
            rows: distinct positions in the array.
            compute: returns the values of some rows, at most `batch_size`.
            shard: compute only its batches, while other processes compute theirs; the next call
                without a shard joins them.
            check_room: called with the bytes to write before anything is computed.
            on_progress: called with the number of rows that are done, and of all `rows`.

        Returns:
            [n, ...], a read-only memory map; only `rows` are sure to be done, of a shard only
            its share.
        """
        missing = self._missing(rows)
        if shard and len(missing):
            self.folder.mkdir(parents=True, exist_ok=True)
            if check_room:  # for the rows of all shards, and for the whole that joins them
                check_room(2 * self._bytes(missing))
            batches = [missing[at : at + batch_size] for at in range(0, len(missing), batch_size)]
            own = np.concatenate([missing[:0], *shard.share(batches)])
            part = self._part(f"{shard.number}-of-{shard.count}")
            return part.fill(own, compute, batch_size=batch_size, on_progress=on_progress)
        if len(missing) or not self._values_path.exists():
            with files.named(self._values_path), files.locked(self._lock_path):
                missing = self._missing(rows)  # another process may have computed some meanwhile
                if check_room:
                    check_room(self._bytes(missing))
                for path in sorted(self.folder.glob(f"{self.key}.*-of-*[0-9].npy")):
                    missing = self._join(self._part(path.stem.rpartition(".")[2]), missing)
                self._compute(missing, compute, batch_size, len(rows), on_progress)
        elif on_progress:
            on_progress(len(rows), len(rows))
        values: Array = np.load(self._values_path, mmap_mode="r", allow_pickle=False)
        return values

    def read(self, rows: Ints) -> Array | None:
        """Return the whole array, as `fill` does; None if any of `rows` is absent."""
        if len(self._missing(rows)):
            return None
        values: Array = np.load(self._values_path, mmap_mode="r", allow_pickle=False)
        return values

    def _part(self, name: str) -> ArrayCache:
        return ArrayCache(self.folder, f"{self.key}.{name}", self.shape, self.dtype)

    def _join(self, part: ArrayCache, missing: Ints) -> Ints:
        """Take the rows that a shard has computed, and remove its files; return what is missing."""
        with files.locked(part._lock_path):
            still = part._missing(missing)
            values, _ = part._open()
            if values is not None:
                self._compute(np.setdiff1d(missing, still), values.__getitem__, 1, 0, None)
            part._values_path.unlink(missing_ok=True)
            part._done_path.unlink(missing_ok=True)
        return still

    def _bytes(self, rows: Ints) -> int:
        return len(rows) * math.prod(self.shape[1:]) * self.dtype.itemsize

    def _compute(
        self,
        missing: Ints,
        compute: Callable[[Ints], Array],
        batch_size: int,
        n_rows: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        """Compute and write the missing rows, a batch at a time.

        They are written to the file and not to its map: on a full disk that is an error, not a
        crash.
        """
        values, done = self._open()
        if values is None:
            values, done = self._create(), np.full(self.shape[0], _ABSENT)
        offset, n_known = values.offset, n_rows - len(missing)
        saved_at = time.monotonic()
        if on_progress:
            on_progress(n_known, n_rows)
        with self._values_path.open("r+b") as out:
            try:
                for at in range(0, len(missing), batch_size):
                    rows = missing[at : at + batch_size]
                    computed = np.ascontiguousarray(compute(rows), self.dtype)
                    for row, value in zip(rows, computed, strict=True):
                        out.seek(offset + int(row) * value.nbytes)
                        out.write(value.tobytes())
                        done[row] = zlib.crc32(value)
                    if on_progress:
                        on_progress(n_known + at + len(rows), n_rows)
                    if time.monotonic() - saved_at > SAVE_EVERY_S:
                        self._save(out, done)
                        saved_at = time.monotonic()
            finally:  # also when the user or a cluster stops the work
                self._save(out, done)

    def _save(self, out: BinaryIO, done: Ints) -> None:
        """Bring the values to the disk, then the list of the rows that are done."""
        out.flush()
        os.fsync(out.fileno())
        with files.atomic_path(self._done_path) as temporary, temporary.open("wb") as listing:
            np.save(listing, done, allow_pickle=False)

    def _missing(self, rows: Ints) -> Ints:
        """Return those of `rows` that are absent or damaged."""
        values, done = self._open()
        if values is None:
            return rows
        plain = values.view(np.ndarray)
        whole = [done[row] != _ABSENT and zlib.crc32(plain[row]) == done[row] for row in rows]
        missing: Ints = rows[~np.array(whole, dtype=bool)]
        return missing

    def _open(self) -> tuple[np.memmap | None, Ints]:
        """Map the values and read which rows are done; None if either can't be used."""
        try:
            values = files.mapped_array(self._values_path)
            done = files.mapped_array(self._done_path)
        except (OSError, ValueError):
            return None, np.empty(0, np.int64)
        expected = values.shape == self.shape and values.dtype == self.dtype
        if not expected or done.shape != self.shape[:1] or done.dtype != np.int64:
            return None, np.empty(0, np.int64)
        return values, np.array(done)

    def _create(self) -> np.memmap:
        """Make an array of zeros; a process that maps the old one keeps it."""
        self._values_path.unlink(missing_ok=True)
        return np.lib.format.open_memmap(
            self._values_path, mode="w+", dtype=self.dtype, shape=self.shape
        )
