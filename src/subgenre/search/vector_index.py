"""The index of a library: vectors on disk, kept up to date track by track, searched exactly.

Reading needs no lock: `index.collection` is a frozen view, and writing replaces it. Each write is
safe on disk when the call returns (see `vector_files` for how).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from subgenre.core import files
from subgenre.errors import IndexStoreError
from subgenre.search import ranking as searching
from subgenre.search import storage
from subgenre.search.collection import Collection
from subgenre.search.ranking import Hit, Limits
from subgenre.search.relink import find, identify_audio
from subgenre.search.storage import Entry, Header
from subgenre.search.track_rows import SCHEMA, Filter, IndexedTrack, table_of, unit

JOURNAL_ROWS = 4096  # a journal of more rows than this, and a quarter of the base, is compacted
_KEPT = (
    "path",
    "genre",
    "subgenre",
    "artist",
    "album",
    "title",
    "label",
    "year",
    "bpm",
    "size",
    "mtime_ns",
)


@dataclass(frozen=True)
class Plan:
    """What an index lacks of a library.

    Attributes:
        new: tracks whose id is not in the index: to embed. changed: those of them whose path is
            in the index with other audio.
        updated: same audio, other path, labels or tags: `Index.update` writes them, no embedding.
        gone: ids that the library has no more.
    """

    new: tuple[Any, ...]
    changed: tuple[Any, ...]
    updated: tuple[Any, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True)
class Relinked:
    """Result of `Index.relink`: ids whose path was mended, and ids that were not found."""

    found: tuple[str, ...]
    missing: tuple[str, ...]


class Index:
    """An index folder, open. Threads may read and write one `Index`; processes may too.

    Make one with `Index.create` or `Index.open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.RLock()
        self._load()

    @classmethod
    def create(cls, path: Path, *, dim: int, fingerprint: str) -> Index:
        """Make an empty index for vectors of `dim` values by the model of this fingerprint.

        Raises:
            IndexStoreError: there is an index already.
        """
        with files.locked(path / ".lock"):
            if (path / "index.json").exists():
                raise IndexStoreError(f"{path} holds an index already; open it or remove it")
            storage.write_header(path, Header(dim, fingerprint))
        return cls(path)

    @classmethod
    def open(cls, path: Path, *, dim: int | None = None, fingerprint: str | None = None) -> Index:
        """Open an index, and check that it was made by the model that will ask it.

        Raises:
            IndexStoreError: missing, damaged, or of another dimension or model; both are named.
        """
        header = storage.read_header(path)
        if dim is not None and dim != header.dim:
            raise IndexStoreError(
                f"{path} holds vectors of {header.dim} values by model {header.fingerprint}; "
                f"this model ({fingerprint or 'not named'}) gives {dim}: name the run that made "
                "the index, or make a new index"
            )
        if fingerprint is not None and fingerprint != header.fingerprint:
            raise IndexStoreError(
                f"{path} was made by model {header.fingerprint} (dimension {header.dim}), not by "
                f"{fingerprint}: name the run that made it, or make a new index"
            )
        return cls(path)

    @property
    def dim(self) -> int:
        """Size of a vector, D."""
        return self._header.dim

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that made the vectors."""
        return self._header.fingerprint

    @property
    def count(self) -> int:
        """Number of tracks."""
        return len(self.collection)

    def refresh(self) -> bool:
        """Read again what another process has written; say whether anything had changed."""
        with self._writing:
            if self._state == self._on_disk():
                return False
            self._load()
            return True

    def upsert(self, tracks: Iterable[Any], vectors: NDArray[np.floating]) -> None:
        """Add tracks with vectors [n, D], replacing those with the same id; safe once it returns.

        Args:
            tracks: objects with the fields of `IndexedTrack`, such as `library.Track`. Of several
                with one id the last counts.
            vectors: of any norm but zero; stored with norm 1.

        Raises:
            IndexStoreError: a vector of another dimension, zero or not finite.
        """
        rows = table_of(tracks)
        values = unit(vectors, rows.num_rows)
        if values.shape[1] != self.dim:
            raise IndexStoreError(
                f"vectors of {values.shape[1]} values don't fit {self.path}, which holds "
                f"{self.dim} by model {self.fingerprint}"
            )
        last = {track_id: i for i, track_id in enumerate(rows["id"].to_pylist())}
        chosen = sorted(last.values())
        with self._writing, files.locked(self.path / ".lock"):
            self._write(Entry(rows.take(pa.array(chosen, pa.int64())), values[chosen], list(last)))

    def delete(self, ids: Iterable[str]) -> int:
        """Forget tracks; return how many there were. Unknown ids are passed over."""
        with self._writing, files.locked(self.path / ".lock"):
            self.refresh()
            known = [i for i in dict.fromkeys(ids) if self.collection.has(i)]
            nothing = np.zeros((0, self.dim), np.float32)
            self._write(Entry(SCHEMA.empty_table(), nothing, known))
            return len(known)

    def update(self, tracks: Iterable[Any]) -> None:
        """Replace path, labels and tags of tracks that are in the index; vectors stay.

        Raises:
            IndexStoreError: an id that is not in the index.
        """
        chosen = list(tracks)
        rows = [self.collection.row_of_id(track.id) for track in chosen]
        if rows:
            self.upsert(chosen, self.collection.vectors(rows))

    def plan(self, tracks: Sequence[Any]) -> Plan:
        """Compare a library with the index, by ids; of two copies of a recording the first counts.

        Args:
            tracks: of `library.scan`.
        """
        held = _told(self.collection.rows.filter(pa.array(self.collection.alive)))
        wanted: dict[str, tuple[Any, tuple[Any, ...]]] = {}
        for track, told in zip(tracks, _rows(table_of(tracks)), strict=True):
            wanted.setdefault(track.id, (track, told))
        paths = {told[0] for told in held.values()}
        new = [(t, told) for i, (t, told) in wanted.items() if i not in held]
        return Plan(
            tuple(t for t, _ in new),
            tuple(t for t, told in new if told[0] in paths),
            tuple(t for i, (t, told) in wanted.items() if i in held and told != held[i]),
            tuple(i for i in held if i not in wanted),
        )

    def relink(
        self,
        root: Path,
        *,
        identify: Callable[[Path], str] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Relinked:
        """Find the tracks of a library that has moved below `root`, by their ids.

        Args:
            root: the library's new place.
            identify: id of a file, by default of its audio packets (`audio.probe`).
            on_progress: called with how many files were looked at, of how many.

        Raises:
            IndexStoreError: `root` is no folder.
        """
        tracks = {t.id: t for t in self.collection.tracks(self.collection.live)}
        sizes = {t.size for t in tracks.values()}
        found = find(root, set(tracks), sizes, identify or identify_audio, on_progress)
        self.move(found)
        return Relinked(tuple(found), tuple(i for i in tracks if i not in found))

    def move(self, paths: Mapping[str, Path]) -> None:
        """Set the paths of tracks by their ids; size and time are read from the files."""
        moved = []
        for track_id, path in paths.items():
            status = path.stat()
            track = self.collection.track(self.collection.row_of_id(track_id))
            moved.append(
                replace(track, path=path, size=status.st_size, mtime_ns=status.st_mtime_ns)
            )
        self.update(moved)

    def search(
        self,
        query: NDArray[np.floating],
        k: int = 10,
        wanted: Filter | None = None,
        *,
        per_artist: int = 0,
        versions: bool = False,
        mutual: bool = True,
    ) -> list[Hit]:
        """Find the k tracks nearest to a vector [D]; see `search.search`."""
        limits = Limits(k=k, per_artist=per_artist, versions=versions)
        return searching.search(self.collection, query, limits, wanted, mutual=mutual)

    def get(self, track_id: str) -> IndexedTrack:
        """Tell one track by its id.

        Raises:
            IndexStoreError: not in the index.
        """
        return self.collection.track(self.collection.row_of_id(track_id))

    def vector(self, track_id: str) -> NDArray[np.float32]:
        """Vector [D] of a track by its id.

        Raises:
            IndexStoreError: not in the index.
        """
        vector: NDArray[np.float32] = self.collection.vectors(
            [self.collection.row_of_id(track_id)]
        )[0]
        return vector

    def compact(self) -> None:
        """Write base files without dead rows and with fresh moments; the journal becomes empty."""
        with self._writing, files.locked(self.path / ".lock"):
            self.refresh()
            self._compact()

    def _write(self, entry: Entry) -> None:
        """Add to the journal and to the view; whoever calls holds the lock."""
        if not entry.rows.num_rows and not entry.gone:
            return
        self.refresh()
        storage.append(self.path, self._header, entry)
        self._state = self._on_disk()
        self._apply([entry])
        later = self.collection.rows.num_rows - self._header.count
        if later > max(JOURNAL_ROWS, self._header.count // 4):
            self._compact()

    def _compact(self) -> None:
        now = self.collection
        sizes = np.cumsum([0, *(len(part) for part in now.parts)])
        parts = [
            (part, now.alive[start : start + len(part)])
            for part, start in zip(now.parts, sizes, strict=False)
        ]
        header = replace(self._header, count=len(now), generation=self._header.generation + 1)
        rows = now.rows.filter(pa.array(now.alive)).combine_chunks()
        storage.write_base(
            self.path, header, parts, rows, now.fresh_proximity() if len(now) else None
        )
        self._load()

    def _on_disk(self) -> tuple[Header, int]:
        header = storage.read_header(self.path)
        return header, len(storage.journal_files(self.path, header))

    def _load(self) -> None:
        stored = storage.read(self.path)
        self._header = stored.header
        self._state = (stored.header, len(stored.journal))
        self._stored = stored.proximity
        self.collection = Collection([stored.vectors], stored.rows, stored=stored.proximity)
        self._apply(stored.journal)

    def _apply(self, entries: Sequence[Entry]) -> None:
        """Replace the view by one with journal entries added: rows die, others are appended."""
        if not entries:
            return
        base, later = self.collection.parts[0], list(self.collection.parts[1:])
        rows, alive = [self.collection.rows], self.collection.alive.copy()
        for entry in entries:
            ids = pa.concat_tables(rows)["id"]
            dead = pc.is_in(ids, value_set=pa.array(entry.gone, pa.string()))
            alive = np.concatenate(
                [alive & ~np.asarray(dead), np.ones(entry.rows.num_rows, dtype=bool)]
            )
            rows.append(entry.rows)
            later.append(entry.vectors)
        self.collection = Collection(
            [base, np.concatenate(later)],
            pa.concat_tables(rows),
            alive,
            self._stored,
        )


def _rows(table: pa.Table) -> Iterable[tuple[Any, ...]]:
    """What an index tells of each track, the path first, for comparison."""
    return zip(*(table[name].to_pylist() for name in _KEPT), strict=True)


def _told(table: pa.Table) -> dict[str, tuple[Any, ...]]:
    return dict(zip(table["id"].to_pylist(), _rows(table), strict=True))
