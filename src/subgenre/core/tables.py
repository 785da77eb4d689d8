"""Read a Parquet file without what `pyarrow.parquet.read_table` loads: data sets, and pandas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the table of a file, or some columns of it in this order.

    Raises:
        KeyError: a column is missing. OSError, pa.ArrowException: the file is missing or damaged.
    """
    with pq.ParquetFile(path) as file:
        table = file.read(columns)
    return table if columns is None else table.select(columns)
