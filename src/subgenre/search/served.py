"""An index on a server, shared by many readers and writers: PostgreSQL with pgvector, or Milvus.

Both keep a table of one row per track, which an `Engine` reads and writes:

    id, place                   of the track; rows are in the order of `place`
    track                       labels, tags, path, copies, tempo and key as one JSON object
    tags, tempo, duration_s     what filters compare, derived from `track`; -1 where unknown
    vector                      [D] float32 of unit norm

and a table of values by name: format version, D, the model's fingerprint, a stamp that each change
renews, and the moments of all vectors. A tag is a hash of a kind and a value, such as the genre or
a folder above the file, so that a filter is the same few comparisons on every engine, and exact.
Paths are absolute.

The engine finds nearest neighbours without an approximate index: with a filter, one misses most of
them. `candidates` lets a list of similar tracks load a few tracks instead of all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from subgenre.audio import keys
from subgenre.errors import IndexStoreError
from subgenre.library.track import Track
from subgenre.search import address as addresses
from subgenre.search import playlists
from subgenre.search.collection import MIN_MUTUAL, Collection, names_in, names_of
from subgenre.search.requests import PlaylistRequest
from subgenre.search.similarity import Mask, Moments, highest_proximity
from subgenre.search.track_rows import SCHEMA, Filter, Measured, Rows, table_of, tracks_of
from subgenre.search.vector_index import Index

FORMAT_VERSION = 1
NEAREST = 16_384  # most rows of one search; Milvus gives no more
_UNKNOWN = -1.0
_MOST = 1e9  # above every tempo and duration
_ROUNDING = 1e-6  # of a cosine on a server
_STALE = 0.1  # share of the tracks that may change before the moments are computed again

Row = dict[str, Any]  # a value for each name in `COLUMNS`
COLUMNS = ("id", "place", "track", "tags", "tempo", "duration_s", "vector")


@dataclass(frozen=True)
class Conditions:
    """What a row must fulfil.

    Attributes:
        any_of: groups of tags; the row has one of each group. none_of: tags that it has not.
        between: lowest and highest value of a column.
    """

    any_of: tuple[tuple[str, ...], ...] = ()
    none_of: tuple[str, ...] = ()
    between: tuple[tuple[str, float, float], ...] = ()


class Engine(Protocol):
    """A server that keeps the rows and values of one index.

    Each method raises IndexStoreError, in one line, where the server is away or refuses.
    """

    def values(self, names: Sequence[str]) -> dict[str, Any]:
        """Read those values that there are; none without an index."""

    def create(self, dim: int, values: Mapping[str, Any]) -> None:
        """Make the tables for vectors of `dim` values."""

    def change(self) -> AbstractContextManager[None]:
        """Hold off other writers; if it fails, nothing has changed (Milvus can do neither)."""

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Replace values by name."""

    def get(self, ids: Sequence[str]) -> list[Row]:
        """Read rows by id; unknown ids are left out."""

    def put(self, rows: Sequence[Row]) -> None:
        """Add rows, replacing those with the same id."""

    def remove(self, ids: Sequence[str]) -> None:
        """Remove rows by id."""

    def rows(self) -> Iterator[Row]:
        """Stream all rows, in any order."""

    def count(self, conditions: Conditions) -> int:
        """Count rows."""

    def select(self, conditions: Conditions, limit: int) -> list[Row]:
        """Read at most `limit` rows, in any order."""

    def nearest(self, vector: NDArray[np.float32], k: int, conditions: Conditions) -> list[Row]:
        """Find the k rows of the largest inner product with a vector [D], exactly, best first."""


def _engine(address: str) -> Engine:
    if address.startswith(addresses.POSTGRES):
        from subgenre.search.postgresql import PostgreSQL

        return PostgreSQL(address)
    from subgenre.search.milvus import Milvus

    return Milvus(address)


def exists(address: str) -> bool:
    """Whether a server holds an index."""
    return bool(_engine(address).values(["dim"]))


def stamp(address: str) -> object:
    """Return what each change alters; None without an index."""
    return _engine(address).values(["stamp"]).get("stamp")


def create(address: str, *, dim: int, fingerprint: str) -> ServedIndex:
    """Make an empty index on a server."""
    engine = _engine(address)
    if engine.values(["dim"]):
        raise IndexStoreError(f"{address} holds an index already; open it or remove it")
    values = {"format_version": FORMAT_VERSION, "dim": dim, "fingerprint": fingerprint}
    engine.create(dim, values | {"stamp": time.time_ns(), "changed": 0})
    return ServedIndex(address)


class ServedIndex(Index):
    """An index on a server."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._engine = _engine(address)
        values = self._engine.values(["format_version", "dim", "fingerprint"])
        if not values:
            raise IndexStoreError(
                f"{address} holds no index; make one with: subgenre index LIBRARY --index ..."
            )
        if values["format_version"] != FORMAT_VERSION:
            raise IndexStoreError("the index is of another format version; update subgenre")
        self.dim, self.fingerprint = values["dim"], values["fingerprint"]
        self._loaded: Collection | None = None

    @property
    def collection(self) -> Collection:
        """All tracks and vectors, loaded when it is first used after a change."""
        if self._loaded is None:
            self._loaded = _collection(self._engine.rows(), self.dim, self._moments())
        return self._loaded

    @property
    def count(self) -> int:
        """Number of tracks."""
        return self._engine.count(Conditions())

    def search(
        self, vector: NDArray[np.floating], k: int, filter: Filter | None = None
    ) -> Collection:
        """Return the k tracks nearest by cosine to a unit vector [D], best first, exactly.

        Raises:
            IndexStoreError: the filter has a name that no track has.
        """
        conditions = self._conditions(filter)
        if conditions is None or k > NEAREST:
            return super().search(vector, k, filter)
        query = np.asarray(vector, dtype=np.float32)
        stored = [_stored(row) for row in self._engine.nearest(query, k, conditions)]
        if not stored:  # perhaps no track has a tempo or a key
            return super().search(vector, k, filter)
        return Collection.of([s.track for s in stored], _matrix(stored, self.dim))

    def find(self, *names: tuple[str, str]) -> Collection:
        """Return the tracks that have one of these pairs of kind (id, path, name) and value."""
        conditions = Conditions(any_of=(tuple(_tag(*name) for name in names),))
        rows = self._engine.select(conditions, NEAREST) if names else []
        return _collection(rows, self.dim, None)

    def candidates(
        self, named: Collection, seed: playlists.Seed, request: PlaylistRequest
    ) -> Collection | None:
        """Return the tracks that decide a list of tracks similar to one seed.

        More and more of the nearest tracks are taken, until no other one can score as high as the
        last of the list: log MP(x, y) <= log P(x), which falls with the cosine.

        Args:
            named: tracks with the seed among them, unless it is a vector.
            seed: an id, or a vector [D]. request: of one seed and a number of tracks.

        Returns:
            None where all tracks are needed: fewer than `MIN_MUTUAL`, no moments, a name in the
            filter that no track has, or a list that the `NEAREST` tracks don't fill.

        Raises:
            PlaylistError: a vector of another dimension.
        """
        vector = playlists.place(named, seed).vector
        own = [] if isinstance(seed, np.ndarray) else self._engine.get([str(seed)])
        conditions, k = self._conditions(request.filter), request.tracks
        moments = self._moments() if request.mutual else None
        is_ranked = moments is not None or not request.mutual
        if conditions is None or k is None or not is_ranked or self.count < MIN_MUTUAL:
            return None
        limit = 8 * k
        while limit <= NEAREST:
            rows = self._engine.nearest(vector, limit, conditions)
            by_id = {row["id"]: row for row in (*rows, *own)}
            tracks = Candidates(**vars(_collection(by_id.values(), self.dim, moments)))
            hits = playlists.similar(tracks, [seed], request.limits, mutual=request.mutual)
            if len(rows) < limit:
                return tracks if hits else None
            if len(hits) == k and hits[-1].score > _bound(rows[-1], vector, moments, own=bool(own)):
                return tracks
            limit *= 8
        return None

    def keep_proximity(self) -> None:
        """Store the moments of all vectors, unless less than a tenth has changed since."""
        if self.count and self._moments() is None:
            moments, _ = self.collection.proximity
            rows = np.vstack([moments.mean, moments.second]).tolist()
            values = {f"moments-{i}": row for i, row in enumerate(rows)}
            with self._engine.change():
                self._engine.set_values({**values, "moments": moments.count, "changed": 0})
            self._loaded = None

    def check(self) -> None:
        """Read every row.

        Raises:
            IndexStoreError: a vector is not of norm 1, or what filters compare is not derived from
                the row.
        """
        wrong = 0
        for row in self._engine.rows():
            stored = _stored(row)
            derived = _row(stored)
            same = all(derived[n] == row[n] for n in ("id", "tags", "tempo", "duration_s"))
            wrong += not (same and abs(float(np.linalg.norm(stored.vector)) - 1) < 1e-3)
        if wrong:
            raise IndexStoreError(f"{wrong} rows of {self.address} are damaged")

    def _write(self, rows: Rows, vectors: NDArray[np.float32]) -> None:
        with self._changing():
            known = {row["id"]: _stored(row) for row in self._engine.get(rows["id"].tolist())}
            first = time.time_ns()
            measured = {
                i: (s.track.tempo_bpm, s.track.key) for i, s in known.items() if s.is_measured
            }
            self._put(
                _Stored(
                    track,
                    vector,
                    first + i,
                    known[track.id].copies if track.id in known else (),
                    track.id in measured,
                )
                for i, (track, vector) in enumerate(
                    zip(tracks_of(rows, measured), vectors, strict=True)
                )
            )
            self._count_changed(len(vectors))

    def _delete(self, ids: Sequence[str]) -> int:
        with self._changing():
            there = [row["id"] for row in self._engine.get(ids)]
            self._engine.remove(there)
            self._count_changed(len(there))
        return len(there)

    def _update(self, rows: Rows) -> None:
        with self._changing():
            known = {row["id"]: _stored(row) for row in self._engine.get(rows["id"].tolist())}
            tracks = {track.id: track for track in tracks_of(rows, {})}
            if not known.keys() >= tracks.keys():
                raise IndexStoreError(
                    f"a track to update is not in the index {self.address}; add it first"
                )
            self._put(
                replace(s, track=replace(tracks[i], tempo_bpm=s.track.tempo_bpm, key=s.track.key))
                for i, s in known.items()
            )

    def _set_copies(self, copies: Mapping[str, Sequence[str]]) -> None:
        with self._changing():
            stored = map(_stored, self._engine.get(list(copies)))
            self._put(replace(s, copies=tuple(copies[s.track.id])) for s in stored)

    def _set_measured(self, measured: Mapping[str, Measured]) -> None:
        with self._changing():
            changed = []
            for s in map(_stored, self._engine.get(list(measured))):
                tempo_bpm, key = measured[s.track.id]
                track = replace(s.track, tempo_bpm=tempo_bpm, key=key)
                changed.append(replace(s, track=track, is_measured=True))
            self._put(changed)

    def _put(self, stored: Iterable[_Stored]) -> None:
        self._engine.put([_row(s) for s in stored])

    def _count_changed(self, vectors: int) -> None:
        """Count vectors that were added or removed since the moments were computed."""
        before = self._engine.values(["changed"])["changed"]
        self._engine.set_values({"changed": before + vectors})

    def _moments(self) -> Moments | None:
        """Read the moments; None where there are none, or ones of too many other vectors."""
        values = self._engine.values(["moments", "changed"])
        count = values.get("moments", 0)
        if not count or values["changed"] > _STALE * count:
            return None
        names = [f"moments-{i}" for i in range(1 + self.dim)]
        rows = self._engine.values(names)
        mean, *second = (np.array(rows[name], np.float64) for name in names)
        return Moments(count, mean, np.stack(second))

    def _conditions(self, filter: Filter | None) -> Conditions | None:
        """Translate a filter; None if it has a name that no track has as it is written."""
        if filter is None:
            return Conditions()
        groups = []
        for kind in ("genre", "subgenre", "artist"):
            tags = tuple(_tag(kind, name.casefold()) for name in getattr(filter, kind))
            if not all(self._engine.select(Conditions(any_of=((tag,),)), 1) for tag in tags):
                return None
            groups.append(tags)
        folders = [os.path.abspath(folder) for folder in filter.folder]  # noqa: PTH100
        groups.append(
            tuple(_tag("folder", f) for name in folders for f in (name, os.path.realpath(name)))
        )
        near = [key for name in filter.in_key for key in keys.neighbours(keys.parse(name))]
        groups.append(tuple(_tag("key", keys.parse(name)) for name in filter.key))
        groups.append(tuple(_tag("key", key) for key in near))
        limits = {"duration_s": filter.duration_s, "tempo": filter.bpm}
        return Conditions(
            any_of=tuple(group for group in groups if group),
            none_of=tuple(_tag("id", track_id) for track_id in filter.exclude),
            between=tuple(
                (name, max(pair[0], 0.0), min(pair[1], _MOST))
                for name, pair in limits.items()
                if pair is not None
            ),
        )

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._engine.change():
            yield
            self._engine.set_values({"stamp": time.time_ns()})
        self._loaded = None


class Candidates(Collection):
    """Tracks of a served index that a list is chosen from; the server has applied the filter."""

    def allowed(self, filter: Filter | None = None) -> Mask:  # noqa: ARG002
        """Return all rows, [N]."""
        return super().allowed()

    @property
    def ranks_mutually(self) -> bool:
        """The whole index has enough tracks."""
        return True


@dataclass(frozen=True)
class _Stored:
    """A track as it is kept: its vector [D], its place, its copies, and whether it was measured."""

    track: Track
    vector: NDArray[np.float32]
    place: int
    copies: tuple[str, ...]
    is_measured: bool


def _row(stored: _Stored) -> Row:
    track = stored.track
    fields = {name: getattr(track, name) for name in (*SCHEMA, "tempo_bpm", "key")}
    fields["path"] = str(track.path)
    tags = {_tag(*pair) for pair in _pairs(fields, stored.copies)}
    for path in (fields["path"], *stored.copies):
        tags.update(_folder_tags(os.path.dirname(os.path.abspath(path))))  # noqa: PTH100, PTH120
    return {
        "id": track.id,
        "place": stored.place,
        "track": fields | {"is_measured": stored.is_measured, "copies": list(stored.copies)},
        "tags": sorted(tags),
        "tempo": track.tempo or _UNKNOWN,
        "duration_s": track.duration_s if track.duration_s > 0 else _UNKNOWN,
        "vector": stored.vector,
    }


def _stored(row: Row) -> _Stored:
    try:
        fields = dict(row["track"])
        copies, is_measured = tuple(fields.pop("copies")), fields.pop("is_measured")
        track = Track(**fields | {"path": Path(fields["path"])})
        vector = np.asarray(row["vector"], np.float32)
        return _Stored(track, vector, row["place"], copies, is_measured)
    except (LookupError, TypeError, ValueError) as problem:
        raise IndexStoreError(
            f"row {row['id']} of the index is damaged ({problem}); restore the server's backup"
        ) from problem


def _tag(kind: str, value: str) -> str:
    return blake2b(f"{kind}\0{value}".encode(), digest_size=16).hexdigest()


def _pairs(fields: Mapping[str, Any], copies: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what a row is found by besides the folders above it, as pairs of kind and value."""
    yield "id", fields["id"]
    yield "key", fields["key"] or ""
    for kind in ("genre", "subgenre", "artist"):
        yield from ((kind, name) for name in names_in(kind, fields[kind]))
    for name in names_of(Path(fields["path"]), fields["artist"], fields["title"]):
        yield "name", name
    yield from (("path", path) for path in (fields["path"], *copies))
    yield from (("folder", os.path.abspath(copy)) for copy in copies)  # noqa: PTH100


@cache
def _folder_tags(folder: str) -> tuple[str, ...]:
    """Return the tags of a folder and those above it."""
    return tuple(_tag("folder", str(above)) for above in (Path(folder), *Path(folder).parents))


def _matrix(stored: Sequence[_Stored], dim: int) -> NDArray[np.float32]:
    return np.array([s.vector for s in stored], np.float32).reshape(-1, dim)


def _collection(rows: Iterable[Row], dim: int, moments: Moments | None) -> Collection:
    """Make a collection of rows, in the order of their places."""
    stored = sorted(map(_stored, rows), key=lambda s: s.place)
    vectors = _matrix(stored, dim)
    return Collection(
        vectors,
        table_of(s.track for s in stored),
        np.ones(len(stored), dtype=bool),
        None if moments is None else (moments, moments.spread(vectors, own=True)),
        {s.track.id: s.copies for s in stored if s.copies},
        {s.track.id: (s.track.tempo_bpm, s.track.key) for s in stored if s.is_measured},
    )


def _bound(last: Row, vector: NDArray[np.float32], moments: Moments | None, *, own: bool) -> float:
    """Return what no track further off than the row `last` can score: log MP, or the cosine."""
    cosine = float(np.asarray(last["vector"], np.float32) @ vector) + _ROUNDING
    if moments is None:
        return cosine
    return highest_proximity(cosine, moments.spread(vector[None], own=own))
