"""The tables of a feature folder: `chunks.parquet` and `tracks.parquet`, written and read.

Tables are not trusted: every column has the type that the schema says, and a chunk file lies inside
the folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq

from subgenre.audio import measures
from subgenre.core import files
from subgenre.errors import FeatureError
from subgenre.library.track import Track

CHUNKS, TRACKS = "chunks.parquet", "tracks.parquet"
AGAIN = "run `subgenre preprocess` again"

CHUNK_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("track", pa.string()),
        ("label", pa.string()),
        ("index", pa.int64()),
        ("start_s", pa.float64()),
        ("n_frames", pa.int64()),
        ("count", pa.int64()),
        ("mean", pa.float64()),
        ("m2", pa.float64()),
        *((name, pa.float64()) for name in measures.COLUMNS),
    ]
)
_TRACK_KINDS = {"str": pa.string(), "Path": pa.string(), "int": pa.int64(), "bool": pa.bool_()}
TRACK_SCHEMA = pa.schema(
    [(f.name, _TRACK_KINDS.get(str(f.type), pa.float64())) for f in dataclasses.fields(Track)]
)


def read_chunks(path: Path) -> pa.Table:
    """Read `chunks.parquet`; every `file` is `<folder>/<name>.pt` inside the feature folder.

    Raises:
        FeatureError: missing or damaged, or a file that lies elsewhere.
    """
    table = _read_table(path / CHUNKS, CHUNK_SCHEMA)
    check_files(path / CHUNKS, table["file"].to_pylist())
    return table


def check_files(source: Path, names: Iterable[str]) -> None:
    """Refuse names other than `<folder>/<name>.pt`, which would lie elsewhere.

    Raises:
        FeatureError: such a name; `source` is told as where it stands.
    """
    for name in names:
        parts = PurePosixPath(name).parts
        if len(parts) != 2 or parts[0] in ("/", "..") or set(name) & set("\\:\0"):
            raise FeatureError(f"{source} names a file outside its folder: {name!r}")
        if parts[1] == ".." or not name.endswith(".pt"):
            raise FeatureError(f"{source} names a file that is no chunk: {name!r}")


def write_chunks(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write `chunks.parquet`, atomically."""
    _write_table(path / CHUNKS, pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA))


def read_tracks(path: Path, root: Path) -> list[Track]:
    """Read `tracks.parquet`; paths start from `root`.

    Raises:
        FeatureError: missing or damaged.
    """
    rows = _read_table(path / TRACKS, TRACK_SCHEMA).to_pylist()
    return [Track(**{**row, "path": root / path_from_text(row["path"])}) for row in rows]


def write_tracks(path: Path, tracks: Iterable[Track], root: Path) -> None:
    """Write `tracks.parquet`, atomically; paths inside `root` are relative to it."""
    rows = [
        {name: _plain(getattr(track, name)) for name in TRACK_SCHEMA.names}
        | {"path": path_to_text(track.path, root)}
        for track in tracks
    ]
    _write_table(path / TRACKS, pa.Table.from_pylist(rows, schema=TRACK_SCHEMA))


def path_to_text(path: Path, root: Path) -> str:
    """Return a path as text with `/`, relative to `root` where inside it.

    A name that is no UTF-8 (Linux allows any bytes) is percent-encoded after `bytes:`.
    """
    text = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    if text.startswith("bytes:") or _plain(text) != text:
        return "bytes:" + quote(text.encode("utf-8", "surrogateescape"))
    return text


def path_from_text(text: str) -> Path:
    """Return the path that `path_to_text` wrote."""
    if text.startswith("bytes:"):
        return Path(unquote_to_bytes(text[6:]).decode("utf-8", "surrogateescape"))
    return Path(text)


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(path, partitioning=None).select(schema.names).cast(schema)
    except FileNotFoundError:
        raise FeatureError(f"{path} does not exist; {AGAIN}") from None
    except (OSError, KeyError, ValueError, pa.ArrowException) as problem:
        raise FeatureError(f"{path} is damaged ({problem}); {AGAIN}") from problem
    if any(column.null_count for column in table.columns):
        raise FeatureError(f"{path} has empty fields; {AGAIN}")
    return table


def _write_table(path: Path, table: pa.Table) -> None:
    with files.atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def _plain(value: Any) -> Any:
    """Return text that any table can hold: what is no Unicode becomes a question mark."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
