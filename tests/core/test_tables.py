from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subgenre.core import tables


def example() -> pa.Table:
    """Every kind of column that the project writes."""
    vectors = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    return pa.table(
        {
            "id": ["a", "b", "Æ", "", "e"],
            "n": [1, -2, 3, 4, 2**60],
            "x": [0.1, float("nan"), float("-inf"), -0.0, 5.0],
            "some": [None, 1, 2, None, 3],
            "none": pa.nulls(5),
            "flag": [True, False, True, True, False],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 4),
        }
    ).replace_schema_metadata({"fingerprint": "e" * 32})


def test_a_table_is_read_as_written_and_by_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    crc = tables.write(path, example())
    # the text of NaN, because it equals nothing
    assert str(tables.read(path).to_pylist()) == str(example().to_pylist())
    assert str(pq.read_table(path).to_pylist()) == str(example().to_pylist())
    assert tables.recorded_checksum(tables.read(path)) == crc
    assert tables.read(path, ["n", "id"]).column_names == ["n", "id"]
    for options in ({"compression": "zstd"}, {"use_dictionary": False, "row_group_size": 2}):
        pq.write_table(pq.read_table(path), path, **options)  # other bytes, the same content
        assert len(tables.read(path)) == 5
    pq.write_table(example(), path)  # as an earlier version wrote it
    assert tables.recorded_checksum(tables.read(path)) is None


@pytest.mark.parametrize("name", example().column_names)
def test_a_changed_value_is_noticed_whichever_columns_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.parquet"
    tables.write(path, example())
    table = pq.read_table(path)
    rows = table.to_pylist()
    other = {"none": 1, "flag": False, "id": "A", "vector": [0.0, 0.0, 0.0, 0.0]}.get(name, 9)
    rows[2][name] = other
    schema = table.schema
    if name == "none":
        schema = schema.set(schema.get_field_index(name), pa.field(name, pa.int64()))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    for columns in (None, ["id"], ["n"]):
        with pytest.raises(ValueError, match="checksum differs"):
            tables.read(path, columns)


def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    tables.write(path, example())
    data, content = path.read_bytes(), str(example().to_pylist())
    rng, refused = np.random.default_rng(0), 0
    for at in rng.integers(len(data), size=300):
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            table = tables.read(path)
        except (OSError, KeyError, ValueError, pa.ArrowException):
            refused += 1
        else:
            assert str(table.to_pylist()) == content
            assert table.schema.metadata[b"fingerprint"] == b"e" * 32
    assert refused > 100


def test_a_table_in_parts_is_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
    found = tables.write(whole, example())
    monkeypatch.setattr(tables, "ROWS", 2)
    assert tables.write(parts, example()) == found
    assert pq.ParquetFile(parts).num_row_groups == 3
    assert tables._checksum(tables.read(parts)) == tables._checksum(tables.read(whole)) == found
    assert str(tables.read(parts).to_pydict()) == str(example().to_pydict())
    tables.write(parts, example().slice(0, 0))
    assert tables.read(parts).schema == example().schema
