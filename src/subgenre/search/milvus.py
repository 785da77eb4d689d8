"""The engine of an index in Milvus, or in a file of Milvus Lite.

The collections are `subgenre_tracks` and `subgenre_values`, in the database that the address names:
`http://host:19530/database`. A token, or `user:password`, comes from MILVUS_TOKEN. Milvus has no
transactions: a row is written whole or not at all, but two writers that change one row at the same
moment are not held apart, and a killed writer may leave a part of its rows.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.errors import IndexStoreError, MissingExtraError
from subgenre.search.served import COLUMNS, Conditions, Row

try:
    from pymilvus import DataType, MilvusClient, MilvusException
except ImportError as problem:
    raise MissingExtraError("an index in Milvus", "milvus") from problem

_TRACKS, _VALUES = "subgenre_tracks", "subgenre_values"
_TIMEOUT_S = 30.0
_BATCH = 1000  # rows of one call, whose size Milvus limits
_MOST_TAGS = 4096  # of a row
_NO_VECTOR = [1.0, 0.0]  # every collection of Milvus needs vectors


class Milvus:
    """A connection to the server or the file of an address; see `served.Engine`."""

    def __init__(self, address: str) -> None:
        self._address = address
        for name in ("pymilvus", "milvus_lite"):  # each error is raised, too
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with self._in_one_line():
            self._client = MilvusClient(
                address, token=os.environ.get("MILVUS_TOKEN", ""), timeout=_TIMEOUT_S
            )

    def values(self, names: Sequence[str]) -> dict[str, Any]:
        """Read those values that there are; none without an index."""
        with self._in_one_line():
            if not self._client.has_collection(_VALUES):
                return {}
            found = self._client.get(_VALUES, ids=list(names), output_fields=["value"])
        return {row["name"]: json.loads(row["value"]) for row in found}

    def create(self, dim: int, values: Mapping[str, Any]) -> None:
        """Make the collections for vectors of `dim` values; that of the values comes last."""
        rows = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        rows.add_field("id", DataType.VARCHAR, is_primary=True, max_length=1024)
        rows.add_field("place", DataType.INT64)
        rows.add_field("track", DataType.JSON)
        rows.add_field(
            "tags",
            DataType.ARRAY,
            element_type=DataType.VARCHAR,
            max_capacity=_MOST_TAGS,
            max_length=32,
        )
        rows.add_field("tempo", DataType.DOUBLE)
        rows.add_field("duration_s", DataType.DOUBLE)
        rows.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        named = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        named.add_field("name", DataType.VARCHAR, is_primary=True, max_length=64)
        named.add_field("value", DataType.VARCHAR, max_length=65_535)
        named.add_field("vector", DataType.FLOAT_VECTOR, dim=len(_NO_VECTOR))
        exact = MilvusClient.prepare_index_params()
        exact.add_index("vector", index_type="FLAT", metric_type="IP")
        with self._in_one_line():
            for name, schema in ((_TRACKS, rows), (_VALUES, named)):
                if not self._client.has_collection(name):  # a killed `create` left it
                    self._client.create_collection(
                        name, schema=schema, index_params=exact, consistency_level="Strong"
                    )
        self.set_values(values)

    def change(self) -> nullcontext[None]:
        """Do nothing: Milvus has no transactions."""
        return nullcontext()

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Replace values by name."""
        self._upsert(
            _VALUES,
            [
                {"name": name, "value": json.dumps(value), "vector": _NO_VECTOR}
                for name, value in values.items()
            ],
        )

    def get(self, ids: Sequence[str]) -> list[Row]:
        """Read rows by id; unknown ids are left out."""
        found: list[Row] = []
        for start in range(0, len(ids), _BATCH):
            some = list(ids[start : start + _BATCH])
            with self._in_one_line():
                found += self._client.get(_TRACKS, ids=some, output_fields=list(COLUMNS))
        return found

    def put(self, rows: Sequence[Row]) -> None:
        """Add rows, replacing those with the same id."""
        self._upsert(_TRACKS, rows)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove rows by id."""
        for start in range(0, len(ids), _BATCH):
            with self._in_one_line():
                self._client.delete(_TRACKS, ids=list(ids[start : start + _BATCH]))

    def rows(self) -> Iterator[Row]:
        """Stream all rows."""
        with self._in_one_line():
            pages = self._client.query_iterator(
                _TRACKS, filter="", output_fields=list(COLUMNS), batch_size=_BATCH
            )
            while page := pages.next():
                yield from page
            pages.close()

    def count(self, conditions: Conditions) -> int:
        """Count rows."""
        with self._in_one_line():
            found = self._client.query(
                _TRACKS, filter=_expression(conditions), output_fields=["count(*)"]
            )
        return int(found[0]["count(*)"])

    def select(self, conditions: Conditions, limit: int) -> list[Row]:
        """Read at most `limit` rows, in any order."""
        with self._in_one_line():
            return list(
                self._client.query(
                    _TRACKS,
                    filter=_expression(conditions),
                    output_fields=list(COLUMNS),
                    limit=limit,
                )
            )

    def nearest(self, vector: NDArray[np.float32], k: int, conditions: Conditions) -> list[Row]:
        """Find the k rows of the largest inner product with a vector [D], exactly, best first."""
        with self._in_one_line():
            (hits,) = self._client.search(
                _TRACKS,
                data=[vector],
                limit=k,
                filter=_expression(conditions),
                output_fields=list(COLUMNS),
                search_params={"metric_type": "IP"},
            )
        return [hit["entity"] for hit in hits]

    def _upsert(self, collection: str, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), _BATCH):
            with self._in_one_line():
                self._client.upsert(collection, list(rows[start : start + _BATCH]))

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """Turn an error of the client or the server into one line."""
        try:
            yield
        except MilvusException as problem:
            way_out = "start the server, check the address, and give a token by MILVUS_TOKEN"
            if "://" not in self._address:
                way_out = "Milvus Lite serves one process at a time; end the other one"
            message = " ".join(problem.message.split())
            raise IndexStoreError(
                f"{self._address} does not answer or refuses ({message}); {way_out}"
            ) from problem


def _expression(conditions: Conditions) -> str:
    """Return a filter of Milvus: it holds tags, which are hexadecimal, and numbers alone."""
    parts = [f"array_contains_any(tags, {json.dumps(group)})" for group in conditions.any_of]
    if conditions.none_of:
        parts.append(f"not array_contains_any(tags, {json.dumps(conditions.none_of)})")
    parts += [f"{name} >= {low!r} and {name} <= {high!r}" for name, low, high in conditions.between]
    return " and ".join(parts)
