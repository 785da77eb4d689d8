"""The index on disk: vectors, rows and a journal, so that a killed writer loses nothing.

    index.json                  format version, D, the model's fingerprint, count, generation G
    vectors-G.npy               [N, D] float32, unit norm, read as a memory map
    tracks-G.parquet            one row a vector
    proximity-G.npz             moments of all vectors and each track's own spread
    journal-G-000001.parquet    later rows with their vectors, and ids that are gone

Writing a batch adds one journal file. Compacting writes the files of generation G + 1 and then
replaces `index.json`: that one rename is the change, and before it the old generation is whole.
Readers with open maps keep what they have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from subgenre.core import files
from subgenre.errors import IndexStoreError
from subgenre.search.similarity import Moments, Spread
from subgenre.search.track_rows import SCHEMA

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Header:
    """What `index.json` says."""

    dim: int
    fingerprint: str
    count: int = 0
    generation: int = 0


@dataclass(frozen=True)
class Entry:
    """One journal file: rows with vectors [n, D], and ids that they replace or that are gone."""

    rows: pa.Table
    vectors: NDArray[np.float32]
    gone: list[str]


@dataclass(frozen=True)
class Stored:
    """All that is on disk; `proximity` belongs to the vectors of the base alone."""

    header: Header
    vectors: NDArray[np.float32]
    rows: pa.Table
    proximity: tuple[Moments, Spread] | None
    journal: list[Entry]


def read_header(folder: Path) -> Header:
    """Read `index.json`.

    Raises:
        IndexStoreError: missing, damaged or of another format.
    """
    path = folder / "index.json"
    if not path.is_file():
        raise IndexStoreError(f"{folder} holds no index; make one with: subgenre index LIBRARY")
    found = files.read_json(path, version=FORMAT_VERSION, error=IndexStoreError)
    try:
        return Header(
            int(found["dim"]),
            str(found["fingerprint"]),
            int(found["count"]),
            int(found["generation"]),
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise IndexStoreError(f"{path} is damaged ({problem!r}); make the index anew") from problem


def write_header(folder: Path, header: Header) -> None:
    """Write `index.json`: from here on the files of its generation count."""
    values = {"dim": header.dim, "fingerprint": header.fingerprint, "count": header.count}
    told = {"format_version": FORMAT_VERSION, **values, "generation": header.generation}
    files.write_json(folder / "index.json", told)


def read(folder: Path) -> Stored:
    """Open an index: the base as a memory map, the journal in memory.

    Raises:
        IndexStoreError: missing, damaged or of another format.
    """
    header = read_header(folder)
    while True:
        try:
            return _read(folder, header)
        except IndexStoreError:
            newer = read_header(folder)
            if newer.generation == header.generation:
                raise
            header = newer  # a writer compacted the index while it was read


def _read(folder: Path, header: Header) -> Stored:
    names = _names(folder, header.generation)
    try:
        if header.count:
            vectors = np.load(names["vectors"], mmap_mode="r", allow_pickle=False)
            rows = pq.read_table(names["tracks"], memory_map=True).select(SCHEMA.names).cast(SCHEMA)
        else:
            vectors, rows = np.zeros((0, header.dim), np.float32), SCHEMA.empty_table()
        journal = [_read_entry(path, header.dim) for path in journal_files(folder, header)]
        proximity = _read_proximity(names["proximity"]) if header.count else None
    except (OSError, ValueError, KeyError, pa.ArrowException) as problem:
        raise IndexStoreError(
            f"{folder} is damaged ({problem}); make the index anew with: subgenre index LIBRARY"
        ) from problem
    if vectors.shape != (header.count, header.dim) or rows.num_rows != header.count:
        raise IndexStoreError(
            f"{folder} is damaged: index.json says {header.count} x {header.dim}, the vectors are "
            f"{vectors.shape} and there are {rows.num_rows} rows; make the index anew"
        )
    return Stored(header, vectors, rows, proximity, journal)


def journal_files(folder: Path, header: Header) -> list[Path]:
    """Name the journal files of a generation, oldest first."""
    return sorted(folder.glob(f"journal-{header.generation}-*.parquet"))


def append(folder: Path, header: Header, entry: Entry) -> None:
    """Add one file to the journal; once this returns, its rows are safe."""
    flat = pa.array(np.ascontiguousarray(entry.vectors, dtype=np.float32).ravel())
    rows = entry.rows.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, header.dim))
    present = rows.append_column("gone", pa.array(np.zeros(rows.num_rows, dtype=bool)))
    lost = pa.table({"id": pa.array(entry.gone, pa.string()), "gone": [True] * len(entry.gone)})
    table = pa.concat_tables([lost, present], promote_options="default")
    past = journal_files(folder, header)
    number = int(past[-1].stem.rpartition("-")[2]) + 1 if past else 1
    with files.atomic_path(
        folder / f"journal-{header.generation}-{number:06d}.parquet"
    ) as temporary:
        pq.write_table(table, temporary, use_dictionary=False)  # vectors never repeat


def write_base(
    folder: Path,
    header: Header,
    parts: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]],
    rows: pa.Table,
    proximity: tuple[Moments, Spread] | None,
) -> None:
    """Write a generation and make it the one that counts; older files go.

    Args:
        folder: of the index. header: of the new generation.
        parts: vectors [n, D] and which of them stay; copied block by block.
        rows: one a vector that stays. proximity: of them.
    """
    names = _names(folder, header.generation)
    if header.count:
        with files.atomic_path(names["vectors"]) as temporary:
            _copy(temporary, header, parts)
        with files.atomic_path(names["tracks"]) as temporary:
            pq.write_table(rows, temporary)
        if proximity is not None:
            with files.atomic_path(names["proximity"]) as temporary:
                _write_proximity(temporary, *proximity)
    write_header(folder, header)
    _remove_others(folder, header)


def _names(folder: Path, generation: int) -> dict[str, Path]:
    kinds = {"vectors": "npy", "tracks": "parquet", "proximity": "npz"}
    return {kind: folder / f"{kind}-{generation}.{end}" for kind, end in kinds.items()}


def _copy(
    path: Path, header: Header, parts: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]]
) -> None:
    """Write the vectors that stay, in blocks, so that they are never all in memory."""
    shape = (header.count, header.dim)
    with path.open("wb") as out:
        np.lib.format.write_array_header_2_0(
            out, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        for vectors, stays in parts:
            for start in range(0, len(vectors), 65_536):
                block = slice(start, start + 65_536)
                out.write(np.asarray(vectors[block][stays[block]], dtype="<f4").tobytes())


def _read_entry(path: Path, dim: int) -> Entry:
    table = pq.read_table(path)
    gone = table["gone"].to_numpy(zero_copy_only=False).astype(bool)
    present = table.filter(pa.array(~gone))
    flat = present["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = np.asarray(flat, dtype=np.float32).reshape(-1, dim)
    rows = present.select(SCHEMA.names).cast(SCHEMA)
    return Entry(rows, vectors, table.filter(pa.array(gone))["id"].to_pylist())


def _write_proximity(path: Path, moments: Moments, spread: Spread) -> None:
    values: dict[str, Any] = {"count": np.int64(moments.count), "mean": moments.mean}
    with path.open("wb") as out:
        np.savez(
            out,
            **values,
            second=moments.second,
            track_mean=spread.mean,
            track_inverse=spread.inverse,
        )


def _read_proximity(path: Path) -> tuple[Moments, Spread] | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as found:
        whole = Moments(int(found["count"]), found["mean"], found["second"])
        return whole, Spread(found["track_mean"], found["track_inverse"])


def _remove_others(folder: Path, header: Header) -> None:
    """Remove what belongs to other generations; a file that a reader maps may refuse to go.

    What a killed writer left half written goes too: only the holder of the lock comes here.
    """
    keep = set(_names(folder, header.generation).values())
    for pattern in (
        f"{files.TEMPORARY}*",
        "vectors-*.npy",
        "tracks-*.parquet",
        "proximity-*.npz",
        "journal-*.parquet",
    ):
        for path in folder.glob(pattern):
            if path not in keep and not path.name.startswith(f"journal-{header.generation}-"):
                with contextlib.suppress(OSError):
                    path.unlink()
