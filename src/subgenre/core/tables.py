"""Write and read Parquet files with a checksum of their content.

`pyarrow.parquet.read_table` would load data sets, and pandas; `read` does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from subgenre.core import files

ROWS = 16_384  # of a row group: decoding one takes several times its size
_KEY = files.CHECKSUM.encode()  # in the schema's metadata


def write(path: Path, table: pa.Table) -> int:
    """Write a table, atomically; return the checksum of its content."""
    found = _checksum(table)
    header = {**(table.schema.metadata or {}), _KEY: str(found).encode()}
    with files.atomic_path(path) as temporary:
        named = table.replace_schema_metadata(header)
        pq.write_table(named, temporary, row_group_size=ROWS, use_dictionary=_texts(table))
    return found


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the table of a file, or some columns of it in this order.

    The whole file is read and compared with its checksum; one of an earlier version has none.

    Raises:
        FileNotFoundError: no such file. KeyError: a column is missing. ValueError: it is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            parts = [file.read_row_group(i, use_threads=False) for i in range(file.num_row_groups)]
            table = pa.concat_tables(parts) if parts else file.read(use_threads=False)
        recorded = recorded_checksum(table)
        if recorded is not None and recorded != _checksum(table):
            raise ValueError("its checksum differs")
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as problem:  # of several lines
        raise ValueError(str(problem).partition("\n")[0]) from problem
    return table if columns is None else table.select(columns)


def recorded_checksum(table: pa.Table) -> int | None:
    """Return the checksum that a table was written with; None in a file of an earlier version."""
    found = (table.schema.metadata or {}).get(_KEY)
    return None if found is None else int(found)


def _checksum(table: pa.Table) -> int:
    """Return the checksum of names, values and metadata, however the file encodes them."""
    header = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items() if k != _KEY}
    crc = files.checksum(json.dumps([table.column_names, header], sort_keys=True).encode())
    for column in table.columns:
        for part in _parts(column):
            crc = files.checksum(part, crc)
    return crc


def _parts(column: pa.ChunkedArray) -> Iterator[bytes | memoryview]:
    """Yield the values of a column as bytes that no version of pyarrow changes, uncopied."""
    arrays = column.chunks or [column.combine_chunks()]
    if pa.types.is_fixed_size_list(column.type) and not column.null_count:
        yield f"{column.type.list_size}".encode()
        arrays = [array.flatten() for array in arrays]
    kind, nulls = arrays[0].type, sum(array.null_count for array in arrays)
    if (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and not nulls:
        values: list[NDArray[Any]] = [np.from_dlpack(a) for a in arrays]  # no pandas, no copy
        yield values[0].dtype.str.encode()
        yield from (part.data for part in values)
    else:
        yield json.dumps([value for array in arrays for value in array.to_pylist()]).encode()


def _texts(table: pa.Table) -> list[str]:
    """Return the columns whose values are written once, with a number in each place."""
    return [field.name for field in table.schema if pa.types.is_string(field.type)]
