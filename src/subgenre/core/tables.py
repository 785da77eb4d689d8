"""Write and read Parquet files with a checksum of their content.

`pyarrow.parquet.read_table` would load data sets, and pandas; `read` does not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from subgenre.core import files

_KEY = files.CHECKSUM.encode()  # in the schema's metadata


def write(path: Path, table: pa.Table) -> int:
    """Write a table, atomically; return the checksum of its content."""
    found = _checksum(table)
    header = {**(table.schema.metadata or {}), _KEY: str(found).encode()}
    with files.atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(header), temporary)
    return found


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the table of a file, or some columns of it in this order.

    The whole file is read and compared with its checksum; one of an earlier version has none.

    Raises:
        FileNotFoundError: no such file. KeyError: a column is missing. ValueError: it is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
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
        array = column.combine_chunks()
        if pa.types.is_fixed_size_list(array.type) and not array.null_count:
            crc = files.checksum(f"{array.type.list_size}".encode(), crc)
            array = array.flatten()
        for part in _parts(array):
            crc = files.checksum(part, crc)
    return crc


def _parts(array: pa.Array) -> tuple[bytes | memoryview, ...]:
    """Return the values of a column as bytes that no version of pyarrow changes, uncopied."""
    kind = array.type
    if (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and not array.null_count:
        values: NDArray[Any] = np.from_dlpack(array)  # `to_numpy` would load pandas
        return values.dtype.str.encode(), values.data
    return (json.dumps(array.to_pylist()).encode(),)
