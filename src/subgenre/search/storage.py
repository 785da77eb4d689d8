"""The index on disk: rows in SQLite, vectors in one append-only file.

    index.sqlite       meta: format version, D, the model's fingerprint; tracks: a row per track;
                       copies: other files that hold the recording of a track;
                       measures: tempo and key of a recording, null where it has none
    vectors-<n>.f32    [places, D] float32 of unit norm, read as a memory map
    proximity.npz      a cache: moments of all vectors, and the spread of each

A writer appends vectors, syncs the file, and then commits the rows that point at them. After a
crash the committed rows are whole; the next writer overwrites what was appended but not committed.
A reader maps the file as far as its transaction sees. A deleted row leaves a hole; when more than
half of the places are holes, the vectors are copied to a new file, and the commit that names this
file is the change.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from subgenre.audio import keys
from subgenre.core import files
from subgenre.errors import IndexStoreError
from subgenre.search.collection import Collection
from subgenre.search.similarity import Floats, Mask, Moments, Spread
from subgenre.search.track_rows import SCHEMA, Measured, Rows, rows_of, take

FORMAT_VERSION = 2
DATABASE, PROXIMITY = "index.sqlite", "proximity.npz"
_EARLIER = "index.json"  # in an index of format version 1
_BLOCK = 65_536  # vectors copied at a time
_WAIT_S = 60.0  # how long a reader or a writer waits for another one

_NAMES = ", ".join(SCHEMA)
_MARKS = ", ".join("?" * len(SCHEMA))
_CHANGES = ", ".join(f"{name} = ?" for name in SCHEMA)
# the statements hold names of columns; values are always bound
_CREATE = f"CREATE TABLE tracks (place INTEGER PRIMARY KEY, {_NAMES}, UNIQUE (id))"
_CREATE_COPIES = "CREATE TABLE IF NOT EXISTS copies (id, path)"
_SELECT_COPIES = "SELECT id, path FROM copies WHERE id IN (SELECT id FROM tracks) ORDER BY rowid"
_CREATE_MEASURES = "CREATE TABLE IF NOT EXISTS measures (id PRIMARY KEY, tempo_bpm, key)"
_SELECT_MEASURES = "SELECT id, tempo_bpm, key FROM measures WHERE id IN (SELECT id FROM tracks)"
_SELECT = f"SELECT place, {_NAMES} FROM tracks ORDER BY place"  # noqa: S608
_INSERT = f"INSERT OR REPLACE INTO tracks (place, {_NAMES}) VALUES (?, {_MARKS})"  # noqa: S608
_UPDATE = f"UPDATE tracks SET {_CHANGES} WHERE id = ?"  # noqa: S608


@dataclass(frozen=True)
class Header:
    """The table `meta`.

    Attributes:
        dim: D. fingerprint: of the model that made the vectors.
        vectors: name of the file of vectors. places: vectors in it that are committed.
        version: number of the last change.
    """

    dim: int
    fingerprint: str
    vectors: str = "vectors-1.f32"
    places: int = 0
    version: int = 0


def exists(folder: Path) -> bool:
    """Whether a folder holds an index, of this format or of an earlier one."""
    return (folder / DATABASE).is_file() or (folder / _EARLIER).is_file()


def create(folder: Path, dim: int, fingerprint: str) -> None:
    """Make an empty index."""
    folder.mkdir(parents=True, exist_ok=True)
    if exists(folder):
        raise IndexStoreError(f"{folder} holds an index already; open it or remove it")
    with files.atomic_path(folder / DATABASE) as temporary, _open(temporary) as db:
        db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID")
        db.execute(_CREATE)
        _set(db, format_version=FORMAT_VERSION, **vars(Header(dim, fingerprint)))


def read_header(folder: Path) -> Header:
    """Read the table `meta`."""
    with _transaction(folder) as db:
        return _header(db)


def read(folder: Path) -> tuple[Header, Collection]:
    """Open an index: the rows in memory, the vectors as a memory map; a hole has empty fields."""
    with _transaction(folder) as db:  # a writer can't commit, and so remove a file, meanwhile
        header = _header(db)
        records = db.execute(_SELECT).fetchall()
        copies, measured = _copies(db), _measures(db)
        vectors = _map(folder, header)
    try:
        places, *columns = list(zip(*records, strict=True)) or [()] * (1 + len(SCHEMA))
        rows = rows_of(dict(zip(SCHEMA, columns, strict=True)))
        alive = np.zeros(header.places, dtype=bool)
        alive[np.array(places, dtype=np.int64)] = True
        rows = _with_holes(rows, alive)
    except (IndexError, OverflowError, TypeError, ValueError) as problem:
        raise _damaged(folder, problem) from problem
    stored = _read_proximity(folder, header)
    return header, Collection(vectors, rows, alive, stored, copies, measured)


def write(folder: Path, rows: Rows, vectors: Floats) -> Header:
    """Add rows with vectors [n, D], replacing those with a known id; return the header after it."""
    with _transaction(folder, "IMMEDIATE") as db:
        header = _header(db)
        # over what a killed writer may have left behind the committed vectors
        with (folder / header.vectors).open("r+b" if header.places else "wb") as out:
            out.seek(header.places * header.dim * 4)
            out.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
            out.truncate()
            out.flush()
            os.fsync(out.fileno())
        places = range(header.places, header.places + len(vectors))
        db.executemany(_INSERT, zip(places, *_columns(rows), strict=True))
        _set(db, places=header.places + len(vectors), version=header.version + 1)
    _shrink(folder)
    return read_header(folder)


def extended(folder: Path, before: Collection, header: Header, rows: Rows) -> Collection:
    """Return the content of an index that had `before` after `rows` alone were written to it."""
    kept = before.alive & ~np.isin(before.rows["id"], rows["id"])
    alive = np.append(kept, np.ones(len(rows["id"]), dtype=bool))
    before_rows = take(before.rows, kept)
    both = {name: np.append(before_rows[name], rows[name]) for name in SCHEMA}
    vectors, rows = _map(folder, header), _with_holes(both, alive)
    return Collection(vectors, rows, alive, before.stored, before.copies, before.measured)


def update(folder: Path, rows: Rows) -> None:
    """Replace the fields of tracks that are in the index; their vectors stay."""
    with _transaction(folder, "IMMEDIATE") as db:
        header, before = _header(db), db.total_changes
        ids = rows["id"].tolist()
        db.executemany(_UPDATE, zip(*_columns(rows), ids, strict=True))
        if db.total_changes - before != len(ids):
            raise IndexStoreError(f"a track to update is not in the index {folder}; add it first")
        _set(db, version=header.version + 1)


def set_copies(folder: Path, copies: Mapping[str, Sequence[str]]) -> None:
    """Replace the copies of tracks by id; tracks that are not named keep theirs."""
    with _transaction(folder, "IMMEDIATE") as db:
        header = _header(db)
        db.execute(_CREATE_COPIES)
        db.executemany("DELETE FROM copies WHERE id = ?", [(track_id,) for track_id in copies])
        pairs = [(track_id, path) for track_id, paths in copies.items() for path in paths]
        db.executemany("INSERT INTO copies VALUES (?, ?)", pairs)
        _set(db, version=header.version + 1)


def _copies(db: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    """Read the copies by track id; an index that was made before there were any has none."""
    if not _has(db, "copies"):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for track_id, path in db.execute(_SELECT_COPIES):
        found[track_id] = (*found.get(track_id, ()), path)
    return found


def set_measured(folder: Path, measured: Mapping[str, Measured]) -> None:
    """Store tempo and key by track id; other tracks keep theirs."""
    with _transaction(folder, "IMMEDIATE") as db:
        header = _header(db)
        db.execute(_CREATE_MEASURES)
        rows = [(track_id, *values) for track_id, values in measured.items()]
        db.executemany("INSERT OR REPLACE INTO measures VALUES (?, ?, ?)", rows)
        _set(db, version=header.version + 1)


def _measures(db: sqlite3.Connection) -> dict[str, Measured]:
    """Read tempo and key by track id; an index that was made before there were any has none."""
    if not _has(db, "measures"):
        return {}
    found = {track_id: (tempo, key) for track_id, tempo, key in db.execute(_SELECT_MEASURES)}
    for tempo, key in found.values():
        if not isinstance(tempo, float | None) or key not in (None, *keys.MAJOR, *keys.MINOR):
            raise IndexStoreError(
                f"the index is damaged: a track has the tempo {tempo!r} and the key {key!r}; "
                "delete its folder and run: subgenre index LIBRARY"
            )
    return found


def _has(db: sqlite3.Connection, table: str) -> bool:
    found = db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,))
    return found.fetchone() is not None


def delete(folder: Path, ids: Sequence[str]) -> int:
    """Delete tracks by id; return how many there were."""
    with _transaction(folder, "IMMEDIATE") as db:
        header = _header(db)
        before = db.total_changes
        db.executemany("DELETE FROM tracks WHERE id = ?", [(track_id,) for track_id in ids])
        count = db.total_changes - before
        _set(db, version=header.version + 1)
    _shrink(folder)
    return count


def write_proximity(folder: Path, header: Header, moments: Moments, spread: Spread) -> None:
    """Cache the moments of all vectors and the spread of each place."""
    with files.atomic_path(folder / PROXIMITY) as temporary, temporary.open("wb") as out:
        np.savez(
            out,
            vectors=np.array(header.vectors),
            count=np.int64(moments.count),
            mean=moments.mean,
            second=moments.second,
            track_mean=spread.mean,
            track_inverse=spread.inverse,
        )


def _read_proximity(folder: Path, header: Header) -> tuple[Moments, Spread] | None:
    """Read the cache; None where there is none, or one of another file of vectors."""
    try:
        with files.arrays(folder / PROXIMITY) as found:
            if str(found["vectors"]) != header.vectors or found["mean"].shape != (header.dim,):
                return None
            moments = Moments(int(found["count"]), found["mean"], found["second"])
            return moments, Spread(found["track_mean"], found["track_inverse"])
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database that exists, closed again at the end; each statement stands for itself."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    db = sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)
    with contextlib.closing(db):
        yield db


@contextlib.contextmanager
def _transaction(folder: Path, kind: str = "DEFERRED") -> Iterator[sqlite3.Connection]:
    """Run one transaction; an error inside it changes nothing."""
    if not (folder / DATABASE).is_file():
        if exists(folder):
            raise IndexStoreError(
                f"{folder} holds an index of an earlier format; "
                "delete that folder and run: subgenre index LIBRARY"
            )
        raise IndexStoreError(f"{folder} holds no index; make one with: subgenre index LIBRARY")
    try:
        with _open(folder / DATABASE) as db:
            db.execute(f"BEGIN {kind}")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
    except sqlite3.Error as problem:
        raise _damaged(folder, problem) from problem


def _damaged(folder: Path, problem: object) -> IndexStoreError:
    return IndexStoreError(
        f"the index {folder} can't be used ({problem}); free the disk if it is full, else delete "
        "that folder and run: subgenre index LIBRARY"
    )


def _header(db: sqlite3.Connection) -> Header:
    meta = dict(db.execute("SELECT name, value FROM meta"))
    if meta.pop("format_version", None) != FORMAT_VERSION:
        raise IndexStoreError("the index is of another format version; update subgenre")
    try:
        return Header(**meta)
    except TypeError as problem:
        raise sqlite3.DatabaseError(str(problem)) from problem


def _set(db: sqlite3.Connection, **values: object) -> None:
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())


def _columns(rows: Rows) -> list[list[object]]:
    return [rows[name].tolist() for name in SCHEMA]


def _with_holes(rows: Rows, alive: Mask) -> Rows:
    """Spread rows over all places; a hole has empty fields."""
    spread = {}
    for name, dtype in SCHEMA.items():
        spread[name] = np.full(len(alive), "" if dtype is object else 0, dtype)
        spread[name][alive] = rows[name]
    return spread


def _map(folder: Path, header: Header) -> Floats:
    """Map the committed vectors [places, D]."""
    if not header.places:
        return np.zeros((0, header.dim), np.float32)
    shape = (header.places, header.dim)
    try:
        return np.memmap(folder / header.vectors, dtype="<f4", mode="r", shape=shape)
    except (OSError, ValueError) as problem:
        raise _damaged(folder, problem) from problem


def _shrink(folder: Path) -> None:
    """Copy the vectors to a new file where more than half of the old one is holes."""
    with _transaction(folder, "IMMEDIATE") as db:
        header = _header(db)
        (count,) = db.execute("SELECT count(*) FROM tracks").fetchone()
        if 2 * count >= header.places:
            return
        places = [place for (place,) in db.execute("SELECT place FROM tracks ORDER BY place")]
        number = int(header.vectors.removeprefix("vectors-").removesuffix(".f32")) + 1
        name, old = f"vectors-{number}.f32", _map(folder, header)
        with (folder / name).open("wb") as out:
            for start in range(0, len(places), _BLOCK):
                out.write(old[places[start : start + _BLOCK]].tobytes())
            out.flush()
            os.fsync(out.fileno())
        # places only move down, in ascending order, so no two rows ever share one
        db.executemany("UPDATE tracks SET place = ? WHERE place = ?", enumerate(places))
        _set(db, vectors=name, places=len(places), version=header.version + 1)
    for path in folder.glob("vectors-*.f32"):
        if path.name != name:
            with contextlib.suppress(OSError):  # Windows keeps a file that a reader maps
                path.unlink()
