"""The index of a library: tracks and vectors, updated track by track, searched exactly.

It is a folder, or served by PostgreSQL or Milvus. Reading takes no lock: `index.collection` never
changes, and an update replaces it. An update is safe when the call returns; see `storage` and
`served`.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
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
from subgenre.search.address import Address
from subgenre.search.collection import Collection
from subgenre.search.track_rows import (
    SCHEMA,
    Filter,
    Measured,
    Rows,
    checked_unit,
    table_of,
    take,
)

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


def _keeper(address: Address) -> Any:
    """Return the module that stores an index there; that of servers is imported when it is used."""
    if isinstance(address, str):
        from subgenre.search import served

        return served
    return storage


class Index(ABC):
    """An open index. Threads and processes may read and write it at the same time.

    Make one with `Index.create` or `Index.open`.

    Attributes:
        address: a folder, or the address of a server.
        dim: D. fingerprint: of the model that made the vectors.
    """

    address: Address
    dim: int
    fingerprint: str

    @staticmethod
    def create(address: Address, *, dim: int, fingerprint: str) -> Index:
        """Make an empty index for vectors of `dim` values by the model of this fingerprint."""
        if isinstance(address, str):
            from subgenre.search import served

            return served.create(address, dim=dim, fingerprint=fingerprint)
        storage.create(address, dim, fingerprint)
        return FolderIndex(address)

    @staticmethod
    def open(address: Address, *, dim: int | None = None, fingerprint: str | None = None) -> Index:
        """Open an index, and check that it belongs to this model.

        Raises:
            IndexStoreError: missing, damaged, or of another dimension or model; both are named.
        """
        index: Index
        if isinstance(address, str):
            from subgenre.search import served

            index = served.ServedIndex(address)
        else:
            index = FolderIndex(address)
        dim, fingerprint = dim or index.dim, fingerprint or index.fingerprint
        if (dim, fingerprint) != (index.dim, index.fingerprint):
            raise IndexStoreError(
                f"{address} holds vectors of {index.dim} values by model {index.fingerprint}, not "
                f"of {dim} values by {fingerprint}; give the run that made it, or make a new index"
            )
        return index

    @staticmethod
    def exists(address: Address) -> bool:
        """Whether there is an index.

        Raises:
            IndexStoreError: a server is away.
        """
        return bool(_keeper(address).exists(address))

    @staticmethod
    def stamp(address: Address) -> object:
        """Return what each change of the index alters; None without an index.

        Raises:
            IndexStoreError: a server is away.
        """
        stamp: object = _keeper(address).stamp(address)
        return stamp

    @property
    @abstractmethod
    def collection(self) -> Collection:
        """All tracks and vectors, in memory or mapped; a served index is loaded when it is used."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of tracks."""

    def upsert(self, tracks: Iterable[Any], vectors: NDArray[np.floating]) -> None:
        """Add tracks with vectors [n, D], replacing those with the same id; safe once it returns.

        Of two tracks with one id, the last is kept. Vectors are stored with norm 1.

        Raises:
            IndexStoreError: a vector of another dimension, zero or not finite.
        """
        rows = table_of(tracks)
        ids = rows["id"].tolist()
        values = checked_unit(vectors, len(ids))
        if values.shape[1] != self.dim:
            raise IndexStoreError(
                f"vectors of {values.shape[1]} values don't fit {self.address}, which has "
                f"{self.dim} by model {self.fingerprint}"
            )
        chosen = sorted({track_id: i for i, track_id in enumerate(ids)}.values())
        if chosen:
            self._write(take(rows, np.array(chosen)), values[chosen])

    def delete(self, ids: Iterable[str]) -> int:
        """Delete tracks; return how many there were. Unknown ids are ignored."""
        chosen = list(ids)
        return self._delete(chosen) if chosen else 0

    def update(self, tracks: Iterable[Any]) -> None:
        """Replace path, labels and tags of tracks that are in the index; vectors stay."""
        rows = table_of(tracks)
        if len(rows["id"]):
            self._update(rows)

    def set_copies(self, copies: Mapping[str, Sequence[str]]) -> None:
        """Replace the paths of the copies of tracks by id; others keep theirs."""
        known = self.collection.copies
        changed = {i: paths for i, paths in copies.items() if tuple(paths) != known.get(i, ())}
        if changed:
            self._set_copies(changed)

    def set_measured(self, measured: Mapping[str, Measured]) -> None:
        """Store tempo and key of tracks by id."""
        if measured:
            self._set_measured(measured)

    def search(
        self, vector: NDArray[np.floating], k: int, filter: Filter | None = None
    ) -> Collection:
        """Return the k tracks nearest by cosine to a unit vector [D], best first, exactly.

        Raises:
            IndexStoreError: the filter has a name that no track has.
        """
        tracks = self.collection
        allowed = tracks.allowed(filter)
        rows, _ = tracks.rank(np.asarray(vector)[None], k, allowed=allowed, mutual=False)[0]
        return Collection.of(tracks.tracks(rows), tracks.vectors(rows))

    @abstractmethod
    def keep_proximity(self) -> None:
        """Cache the figures of mutual proximity for the next process."""

    @abstractmethod
    def check(self) -> None:
        """Read everything.

        Raises:
            IndexStoreError: something is damaged.
        """

    @abstractmethod
    def _write(self, rows: Rows, vectors: NDArray[np.float32]) -> None: ...

    @abstractmethod
    def _delete(self, ids: Sequence[str]) -> int: ...

    @abstractmethod
    def _update(self, rows: Rows) -> None: ...

    @abstractmethod
    def _set_copies(self, copies: Mapping[str, Sequence[str]]) -> None: ...

    @abstractmethod
    def _set_measured(self, measured: Mapping[str, Measured]) -> None: ...

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


class FolderIndex(Index):
    """An index in a folder."""

    def __init__(self, path: Path) -> None:
        self.address = self.path = path
        self._load()

    def _load(self) -> None:
        self._header, self._collection = storage.read(self.path)
        self.dim, self.fingerprint = self._header.dim, self._header.fingerprint

    @property
    def collection(self) -> Collection:
        """All tracks, and their vectors as a memory map."""
        return self._collection

    @property
    def count(self) -> int:
        """Number of tracks."""
        return len(self.collection)

    def keep_proximity(self) -> None:
        """Cache the figures of mutual proximity for the next process."""
        if self.count and not self.collection.proximity_is_cached:
            storage.write_proximity(self.path, self._header, *self.collection.proximity)

    def check(self) -> None:
        """Read all files, and check the structure of the database."""
        storage.check(self.path)

    def _write(self, rows: Rows, vectors: NDArray[np.float32]) -> None:
        after = storage.write(self.path, rows, vectors)
        if after.version == self._header.version + 1:  # nothing else has changed
            self._header = after
            self._collection = storage.extended(self.path, self.collection, after, rows)
        else:
            self._load()

    def _delete(self, ids: Sequence[str]) -> int:
        count = storage.delete(self.path, ids)
        self._load()
        return count

    def _update(self, rows: Rows) -> None:
        storage.update(self.path, rows)
        self._load()

    def _set_copies(self, copies: Mapping[str, Sequence[str]]) -> None:
        storage.set_copies(self.path, copies)
        self._load()

    def _set_measured(self, measured: Mapping[str, Measured]) -> None:
        storage.set_measured(self.path, measured)
        self._load()


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
