"""The index of a library: tracks and vectors on disk, updated track by track, searched exactly.

Reading takes no lock: `index.collection` never changes, and an update replaces it. An update is
safe on disk when the call returns; see `storage`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.audio.extensions import EXTENSIONS
from subgenre.errors import AudioError, IndexStoreError
from subgenre.library.track import Track
from subgenre.search import storage
from subgenre.search.track_rows import SCHEMA, Measured, Rows, checked_unit, table_of, take

# the index is updated if one of these differs from the library
_COMPARED = [name for name in SCHEMA if name not in ("id", "duration_s")]


@dataclass(frozen=True)
class Plan:
    """The changes that bring an index up to date with a library.

    Attributes:
        new: tracks whose id is not in the index; they have to be embedded.
        updated: tracks with the same audio and another path, label or tag.
        gone: ids that the library no longer has.
    """

    new: tuple[Any, ...]
    updated: tuple[Any, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True)
class Relinked:
    """Result of `Index.relink`: ids that were found below the new root, and ids that were not."""

    found: tuple[str, ...]
    missing: tuple[str, ...]


class Index:
    """An open index folder. Threads and processes may read and write it at the same time.

    Make one with `Index.create` or `Index.open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header, self.collection = storage.read(path)

    @classmethod
    def create(cls, path: Path, *, dim: int, fingerprint: str) -> Index:
        """Make an empty index for vectors of `dim` values by the model of this fingerprint."""
        storage.create(path, dim, fingerprint)
        return cls(path)

    @classmethod
    def open(cls, path: Path, *, dim: int | None = None, fingerprint: str | None = None) -> Index:
        """Open an index, and check that it belongs to this model.

        Raises:
            IndexStoreError: missing, damaged, or of another dimension or model; both are named.
        """
        index = cls(path)
        header = index._header
        dim, fingerprint = dim or header.dim, fingerprint or header.fingerprint
        if (dim, fingerprint) != (header.dim, header.fingerprint):
            raise IndexStoreError(
                f"{path} holds vectors of {header.dim} values by model {header.fingerprint}, not "
                f"of {dim} values by {fingerprint}; give the run that made it, or make a new index"
            )
        return index

    @property
    def count(self) -> int:
        """Number of tracks."""
        return len(self.collection)

    def upsert(self, tracks: Iterable[Any], vectors: NDArray[np.floating]) -> None:
        """Add tracks with vectors [n, D], replacing those with the same id; safe once it returns.

        Of two tracks with one id, the last is kept. Vectors are stored with norm 1.

        Raises:
            IndexStoreError: a vector of another dimension, zero or not finite.
        """
        rows = table_of(tracks)
        ids = rows["id"].tolist()
        values = checked_unit(vectors, len(ids))
        header = self._header
        if values.shape[1] != header.dim:
            raise IndexStoreError(
                f"vectors of {values.shape[1]} values don't fit {self.path}, which has "
                f"{header.dim} by model {header.fingerprint}"
            )
        chosen = sorted({track_id: i for i, track_id in enumerate(ids)}.values())
        if chosen:
            added = take(rows, np.array(chosen))
            after = storage.write(self.path, added, values[chosen])
            if after.version == header.version + 1:  # nothing else has changed
                self._header = after
                self.collection = storage.extended(self.path, self.collection, after, added)
            else:
                self._load()

    def delete(self, ids: Iterable[str]) -> int:
        """Delete tracks; return how many there were. Unknown ids are ignored."""
        chosen = list(ids)
        count = storage.delete(self.path, chosen) if chosen else 0
        self._load()
        return count

    def update(self, tracks: Iterable[Any]) -> None:
        """Replace path, labels and tags of tracks that are in the index; vectors stay."""
        rows = table_of(tracks)
        if len(rows["id"]):
            storage.update(self.path, rows)
            self._load()

    def set_copies(self, copies: Mapping[str, Sequence[str]]) -> None:
        """Replace the paths of the copies of tracks by id; others keep theirs."""
        known = self.collection.copies
        changed = {i: paths for i, paths in copies.items() if tuple(paths) != known.get(i, ())}
        if changed:
            storage.set_copies(self.path, changed)
            self._load()

    def set_measured(self, measured: Mapping[str, Measured]) -> None:
        """Store tempo and key of tracks by id."""
        if measured:
            storage.set_measured(self.path, measured)
            self._load()

    def plan(self, tracks: Sequence[Any]) -> Plan:
        """Compare tracks of a library with the index by ids; of two copies, the first is taken."""
        alive = take(self.collection.rows, self.collection.alive)
        indexed = dict(zip(alive["id"].tolist(), _compared(alive), strict=True))
        library: dict[str, tuple[Any, tuple[Any, ...]]] = {}
        for track, fields in zip(tracks, _compared(table_of(tracks)), strict=True):
            library.setdefault(track.id, (track, fields))
        return Plan(
            tuple(t for i, (t, _) in library.items() if i not in indexed),
            tuple(t for i, (t, f) in library.items() if i in indexed and f != indexed[i]),
            tuple(i for i in indexed if i not in library),
        )

    def relink(
        self, root: Path, *, on_progress: Callable[[int, int], None] | None = None
    ) -> Relinked:
        """Find the tracks of a library that has moved below `root`, by their ids.

        `on_progress` is called with (files done, files).
        """
        tracks = {t.id: t for t in self.collection.tracks(self.collection.live)}
        found = _find(root, tracks, on_progress)
        moved = []
        for track_id, path in found.items():
            size, mtime_ns = path.stat().st_size, path.stat().st_mtime_ns
            moved.append(replace(tracks[track_id], path=path, size=size, mtime_ns=mtime_ns))
        self.update(moved)
        return Relinked(tuple(found), tuple(i for i in tracks if i not in found))

    def get(self, track_id: str) -> Track:
        """Return one track by its id."""
        return self.collection.track(self.collection.row_of_id(track_id))

    def keep_proximity(self) -> None:
        """Cache the figures of mutual proximity for the next process."""
        if self.count and not self.collection.proximity_is_cached:
            storage.write_proximity(self.path, self._header, *self.collection.proximity)

    def _load(self) -> None:
        self._header, self.collection = storage.read(self.path)


def _compared(rows: Rows) -> Iterable[tuple[Any, ...]]:
    return zip(*(rows[name].tolist() for name in _COMPARED), strict=True)


def _find(
    root: Path, tracks: Mapping[str, Track], on_progress: Callable[[int, int], None] | None
) -> dict[str, Path]:
    """Find the files of tracks (by id) below `root`; of two copies the first by path.

    Files of a known size come first; the others are read only while tracks are still missing
    (retagging changes the size of a file, not its id).
    """
    from subgenre.audio import reading

    if not root.is_dir():
        raise IndexStoreError(f"{root} is not a folder; name the library's new folder")
    sizes = {track.size for track in tracks.values()}
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix.lower() in EXTENSIONS)
    files.sort(key=lambda p: p.stat().st_size not in sizes)
    found: dict[str, Path] = {}
    for done, path in enumerate(files):
        if on_progress is not None:
            on_progress(done, len(files))
        if len(found) == len(tracks):
            break
        with contextlib.suppress(AudioError):
            track_id = reading.probe(path).id
            if track_id in tracks:
                found.setdefault(track_id, path)
    return found
