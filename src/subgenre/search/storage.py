"""The index on disk: rows in SQLite, vectors in one append-only file.

    index.sqlite       meta: format version, D, the model's fingerprint; tracks: a row per track;
                       copies: other files that hold the recording of a track;
                       measures: tempo and key of a recording, null where it has none
    vectors-<n>.f32    [places, D] float32 of unit norm, read as a memory map
    proximity.npz      a cache: moments of all vectors, and the spread of each

Each track has a checksum of its row and its vector, and `meta` has one of each other table and one
of everything; `read` compares them. An index of format version 2 has none, and gets them with the
first change. Paths in the work folder, the one around the model folder, are stored as ./..., so
that it can be moved.

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.audio import keys
from subgenre.core import files
from subgenre.errors import IndexStoreError
from subgenre.search.collection import Collection
from subgenre.search.similarity import Floats, Mask, Moments, Spread
from subgenre.search.track_rows import SCHEMA, TEXTS, Measured, Rows, rows_of, take

FORMAT_VERSION = 3
_WITHOUT_CHECKSUMS = 2
DATABASE, PROXIMITY = "index.sqlite", "proximity.npz"
_EARLIER = "index.json"  # in an index of format version 1
_BLOCK = 16_384  # vectors read at a time
_WAIT_S = 60.0  # how long a reader or a writer waits for another one

_NAMES = ", ".join(SCHEMA)
_MARKS = ", ".join("?" * (len(SCHEMA) + 1))
_CHANGES = ", ".join(f"{name} = ?" for name in (*SCHEMA, "crc"))
# the statements hold names of columns; values are always bound
_CREATE = f"CREATE TABLE tracks (place INTEGER PRIMARY KEY, {_NAMES}, crc, UNIQUE (id))"
_CREATE_MORE = {
    "copies": "CREATE TABLE IF NOT EXISTS copies (id, path)",
    "measures": "CREATE TABLE IF NOT EXISTS measures (id PRIMARY KEY, tempo_bpm, key)",
}
_INSERT = f"INSERT OR REPLACE INTO tracks (place, {_NAMES}, crc) VALUES (?, {_MARKS})"  # noqa: S608
_UPDATE = f"UPDATE tracks SET {_CHANGES} WHERE id = ?"  # noqa: S608


@dataclass(frozen=True)
class Header:
    """The table `meta`.

    Attributes:
        dim: D. fingerprint: of the model that made the vectors.
        vectors: name of the file of vectors. places: vectors in it that are committed.
        version: number of the last change. format_version: of the index.
    """

    dim: int
    fingerprint: str
    vectors: str = "vectors-1.f32"
    places: int = 0
    version: int = 0
    format_version: int = FORMAT_VERSION


def exists(folder: Path) -> bool:
    """Whether a folder holds an index, of this format or an earlier one, or a part of it."""
    known = (folder / DATABASE, folder / _EARLIER, *folder.glob("vectors-*.f32"))
    return any(path.is_file() for path in known)


def create(folder: Path, dim: int, fingerprint: str) -> None:
    """Make an empty index."""
    folder.mkdir(parents=True, exist_ok=True)
    if exists(folder):
        raise IndexStoreError(f"{folder} holds an index already; open it or remove it")
    try:
        with files.atomic_path(folder / DATABASE) as temporary, _open(temporary) as db:
            db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID")
            for statement in (_CREATE, *_CREATE_MORE.values()):
                db.execute(statement)
            _set(db, **vars(Header(dim, fingerprint)), **dict.fromkeys(_CREATE_MORE, _checksum([])))
            _set(db, seal=_seal(db))
    except sqlite3.Error as problem:
        raise _damaged(folder, problem) from problem


def stamp(folder: Path) -> tuple[int, int, int] | None:
    """Return what another change of the index alters, without a lock; None without an index."""
    try:
        status = (folder / DATABASE).stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def read_header(folder: Path) -> Header:
    """Read the table `meta`."""
    with _transaction(folder) as db:
        return _header(db)


def read(folder: Path) -> tuple[Header, Collection]:
    """Open an index: the rows in memory, the vectors as a memory map; a hole has empty fields."""
    with _transaction(folder) as db:  # a writer can't commit, and so remove a file, meanwhile
        header = _header(db)
        places, rows, crcs = _tracks(db)
        copies, measures = (_all(db, name) for name in _CREATE_MORE)
        vectors = _map(folder, header)
        if header.format_version != _WITHOUT_CHECKSUMS:
            _check(db, crcs, _checksums(rows, vectors, places), copies, measures)
        alive = np.zeros(header.places, dtype=bool)
        alive[places] = True
        known = set(rows["id"].tolist())
        more = _copies([row for row in copies if row[0] in known], folder)
        measured = _measures([row for row in measures if row[0] in known])
    rows["path"] = np.array(_located(rows["path"].tolist(), folder), object)
    stored = _read_proximity(folder, header, vectors)
    return header, Collection(vectors, _with_holes(rows, alive), alive, stored, more, measured)


def check(folder: Path) -> None:
    """Read an index, and check the structure of its database.

    Raises:
        IndexStoreError: missing or damaged.
    """
    read(folder)
    with _transaction(folder) as db:
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise ValueError(found)


def _tracks(db: sqlite3.Connection) -> tuple[NDArray[np.int64], Rows, list[int]]:
    """Read places, rows as they are stored, and their checksums, if they have any."""
    records = db.execute("SELECT * FROM tracks ORDER BY place").fetchall()
    places, *columns = list(zip(*records, strict=True)) or [()] * (1 + len(SCHEMA))
    rows = rows_of(dict(zip(SCHEMA, columns, strict=False)))
    return np.array(places, np.int64), rows, [crc for (*_, crc) in records]


def _all(db: sqlite3.Connection, name: str) -> list[tuple[Any, ...]]:
    """Read a table; an index that was made before there was one has no row of it."""
    has = db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return db.execute(f"SELECT * FROM {name} ORDER BY rowid").fetchall() if has else []  # noqa: S608


def _checksums(rows: Rows, vectors: Floats, places: NDArray[np.int64]) -> list[int]:
    """Return a checksum of the fields of each row and its vector, as it is stored.

    The vectors [places, D] are read block by block.
    """
    found: list[int] = []
    for start in range(0, len(places), _BLOCK):
        block = slice(start, start + _BLOCK)
        numbers = [rows[name][block] for name in SCHEMA if name not in TEXTS]
        parts = [np.ascontiguousarray(p) for p in (*numbers, vectors[places[block]])]
        packed = np.hstack([p.view(np.uint8).reshape(len(p), -1) for p in parts])
        texts = zip(*(rows[name][block].tolist() for name in TEXTS), strict=True)
        found += [
            files.checksum(values, files.checksum("\0".join(text).encode()))
            for text, values in zip(texts, packed, strict=True)
        ]
    return found


def _checksum(rows: Sequence[object]) -> int:
    """Return a checksum of rows of plain values."""
    return files.checksum(repr(rows).encode())


def _seal(db: sqlite3.Connection) -> int:
    """Return a checksum of `meta` and of the checksums of all tracks."""
    meta = db.execute("SELECT name, value FROM meta WHERE name != 'seal' ORDER BY name")
    tracks = db.execute("SELECT count(*), sum(crc) FROM tracks")
    return _checksum([*meta.fetchall(), *tracks.fetchall()])


def _check(
    db: sqlite3.Connection,
    recorded: Sequence[int],
    found: Sequence[int],
    copies: Sequence[object],
    measures: Sequence[object],
) -> None:
    """Compare all checksums.

    Args:
        recorded, found: of the tracks. copies, measures: the rows of these tables.

    Raises:
        ValueError: one differs.
    """
    if recorded != found:
        wrong = sum(one != other for one, other in zip(recorded, found, strict=True))
        raise ValueError(f"the checksums of {wrong} tracks differ")
    meta = dict(db.execute("SELECT name, value FROM meta"))
    for name, value in (
        ("copies", _checksum(copies)),
        ("measures", _checksum(measures)),
        ("seal", _seal(db)),
    ):
        if meta.get(name) != value:
            raise ValueError(f"the checksum '{name}' differs")


def _located(paths: Sequence[str], folder: Path) -> list[str]:
    """Return the absolute paths of paths as they are stored."""
    start = _work_folder(folder)
    return [start + p[2:].replace("/", os.sep) if p[:2] == "./" else p for p in paths]


def _stored(paths: Sequence[str], folder: Path) -> list[str]:
    """Invert `_located`."""
    start = _work_folder(folder)
    return [
        "./" + p[len(start) :].replace(os.sep, "/") if p.startswith(start) else p for p in paths
    ]


def _work_folder(folder: Path) -> str:
    """Return the folder around the model folder of an index, with a separator at its end."""
    return os.path.join(os.path.abspath(folder.parent.parent), "")  # noqa: PTH100, PTH118


def _as_stored(rows: Rows, folder: Path) -> Rows:
    return {**rows, "path": np.array(_stored(rows["path"].tolist(), folder), object)}


def write(folder: Path, rows: Rows, vectors: Floats) -> Header:
    """Add rows with vectors [n, D], replacing those with a known id; return the header after it."""
    with _change(folder) as (db, header):
        # over what a killed writer may have left behind the committed vectors
        added = np.ascontiguousarray(vectors, dtype="<f4")
        with (folder / header.vectors).open("r+b" if header.places else "wb") as out:
            out.seek(header.places * header.dim * 4)
            out.write(added.data)
            out.truncate()
            out.flush()
            os.fsync(out.fileno())
        places = range(header.places, header.places + len(vectors))
        rows = _as_stored(rows, folder)
        crcs = _checksums(rows, added, np.arange(len(added)))
        db.executemany(_INSERT, zip(places, *_columns(rows), crcs, strict=True))
        _set(db, places=header.places + len(vectors))
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
    with _change(folder) as (db, header):
        ids = rows["id"].tolist()
        place_of = dict(db.execute("SELECT id, place FROM tracks"))
        if not place_of.keys() >= set(ids):
            raise IndexStoreError(f"a track to update is not in the index {folder}; add it first")
        rows = _as_stored(rows, folder)
        places = np.array([place_of[i] for i in ids])
        crcs = _checksums(rows, _map(folder, header), places)
        db.executemany(_UPDATE, zip(*_columns(rows), crcs, ids, strict=True))


def set_copies(folder: Path, copies: Mapping[str, Sequence[str]]) -> None:
    """Replace the copies of tracks by id; tracks that are not named keep theirs."""
    with _change(folder) as (db, _):
        db.executemany("DELETE FROM copies WHERE id = ?", [(track_id,) for track_id in copies])
        ids = [track_id for track_id, paths in copies.items() for _ in paths]
        stored = _stored([path for paths in copies.values() for path in paths], folder)
        db.executemany("INSERT INTO copies VALUES (?, ?)", zip(ids, stored, strict=True))
        _set(db, copies=_checksum(_all(db, "copies")))


def _copies(rows: Sequence[tuple[Any, ...]], folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the copies by track id."""
    found: dict[str, tuple[str, ...]] = {}
    for (track_id, _), path in zip(rows, _located([p for _, p in rows], folder), strict=True):
        found[track_id] = (*found.get(track_id, ()), path)
    return found


def set_measured(folder: Path, measured: Mapping[str, Measured]) -> None:
    """Store tempo and key by track id; other tracks keep theirs."""
    with _change(folder) as (db, _):
        rows = [(track_id, *values) for track_id, values in measured.items()]
        db.executemany("INSERT OR REPLACE INTO measures VALUES (?, ?, ?)", rows)
        _set(db, measures=_checksum(_all(db, "measures")))


def _measures(rows: Sequence[tuple[Any, ...]]) -> dict[str, Measured]:
    """Return tempo and key by track id."""
    known = {None, *keys.MAJOR, *keys.MINOR}
    for _, tempo, key in rows:
        if not isinstance(tempo, float | None) or key not in known:
            raise ValueError(f"a track has the tempo {tempo!r} and the key {key!r}")
    return {track_id: (tempo, key) for track_id, tempo, key in rows}


def delete(folder: Path, ids: Sequence[str]) -> int:
    """Delete tracks by id; return how many there were."""
    with _change(folder) as (db, _):
        before = db.total_changes
        db.executemany("DELETE FROM tracks WHERE id = ?", [(track_id,) for track_id in ids])
        count = db.total_changes - before
    _shrink(folder)
    return count


def write_proximity(folder: Path, header: Header, moments: Moments, spread: Spread) -> None:
    """Cache the moments of all vectors and the spread of each place."""
    with files.atomic_path(folder / PROXIMITY) as temporary, temporary.open("wb") as out:
        np.savez(
            out,
            crc=np.uint32(_first(_map(folder, header), len(spread.mean))),
            count=np.int64(moments.count),
            mean=moments.mean,
            second=moments.second,
            track_mean=spread.mean,
            track_inverse=spread.inverse,
        )


def _first(vectors: Floats, count: int) -> int:
    """Return a checksum of the first vectors, which no change but `_shrink` touches."""
    first: Any = np.ascontiguousarray(vectors[:count])
    return files.checksum(first)


def _read_proximity(folder: Path, header: Header, vectors: Floats) -> tuple[Moments, Spread] | None:
    """Read the cache; None where there is none, or one of other vectors."""
    try:
        with files.arrays(folder / PROXIMITY) as found:  # a zip file: it has its own checksums
            spread = Spread(found["track_mean"], found["track_inverse"])
            if int(found["crc"]) != _first(vectors, len(spread.mean)):
                return None
            moments = Moments(int(found["count"]), found["mean"], found["second"])
    except (OSError, ValueError, TypeError):
        return None
    return (moments, spread) if moments.mean.shape == (header.dim,) else None


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database that exists, closed again at the end; each statement stands for itself."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    db = sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)
    with contextlib.closing(db):
        yield db


@contextlib.contextmanager
def _change(folder: Path) -> Iterator[tuple[sqlite3.Connection, Header]]:
    """Run a transaction that changes the index, and renew its version and its last checksum."""
    with _transaction(folder, "IMMEDIATE") as db:
        header = _header(db)
        if header.format_version == _WITHOUT_CHECKSUMS:
            _add_checksums(db, folder, header)
        yield db, header
        _set(db, version=header.version + 1, format_version=FORMAT_VERSION)
        _set(db, seal=_seal(db))


def _add_checksums(db: sqlite3.Connection, folder: Path, header: Header) -> None:
    """Add the checksums to an index that has none."""
    places, rows, _ = _tracks(db)
    crcs = _checksums(rows, _map(folder, header), places)
    db.execute("ALTER TABLE tracks ADD COLUMN crc")
    db.executemany(
        "UPDATE tracks SET crc = ? WHERE place = ?", zip(crcs, places.tolist(), strict=True)
    )
    for name, statement in _CREATE_MORE.items():
        db.execute(statement)
        _set(db, **{name: _checksum(_all(db, name))})


@contextlib.contextmanager
def _transaction(folder: Path, kind: str = "DEFERRED") -> Iterator[sqlite3.Connection]:
    """Run one transaction; an error inside it changes nothing."""
    if not (folder / DATABASE).is_file():
        if (folder / _EARLIER).is_file():
            raise IndexStoreError(
                f"{folder} holds an index of an earlier format; "
                "delete that folder and run: subgenre index LIBRARY"
            )
        if exists(folder):
            raise _damaged(folder, f"{DATABASE} is missing")
        raise IndexStoreError(f"{folder} holds no index; make one with: subgenre index LIBRARY")
    try:
        with files.named(folder), _open(folder / DATABASE) as db:
            db.execute(f"BEGIN {kind}")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
    except (sqlite3.Error, ArithmeticError, LookupError, TypeError, ValueError) as problem:
        raise _damaged(folder, problem) from problem


def _damaged(folder: Path, problem: object) -> IndexStoreError:
    return IndexStoreError(
        f"the index {folder} can't be used ({problem}); free the disk if it is full, else delete "
        "that folder and run: subgenre index LIBRARY"
    )


def _header(db: sqlite3.Connection) -> Header:
    meta = dict(db.execute("SELECT name, value FROM meta"))
    if meta.get("format_version") not in (FORMAT_VERSION, _WITHOUT_CHECKSUMS):
        raise IndexStoreError("the index is of another format version; update subgenre")
    return Header(**{name: meta[name] for name in vars(Header(0, ""))})


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
    with _transaction(folder) as db:
        (count,) = db.execute("SELECT count(*) FROM tracks").fetchone()
        if 2 * count >= _header(db).places:
            return
    with _change(folder) as (db, header):
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
        _set(db, vectors=name, places=len(places))
    for path in folder.glob("vectors-*.f32"):
        if path.name != name:
            with contextlib.suppress(OSError):  # Windows keeps a file that a reader maps
                path.unlink()
