"""The engine of an index in PostgreSQL, with vectors of the extension pgvector.

A database holds one index, in the tables `subgenre_tracks` and `subgenre_values`. A password comes
from PGPASSWORD or ~/.pgpass.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subgenre.errors import IndexStoreError, MissingExtraError
from subgenre.search.served import COLUMNS, Conditions, Row

try:
    import psycopg
    from pgvector.psycopg import register_vector
    from psycopg import sql
    from psycopg.rows import dict_row
    from psycopg.types.json import Json
except ImportError as problem:
    raise MissingExtraError("an index in PostgreSQL", "postgresql") from problem

_TIMEOUT_S = 10  # to connect
_BATCH = 2000  # rows of a stream that are in memory at once
# `json` keeps what `jsonb` refuses: the zeros that separate artists in some tags
_CREATE = (
    "CREATE TABLE subgenre_values (name text PRIMARY KEY, value json NOT NULL)",
    "CREATE TABLE subgenre_tracks (id text PRIMARY KEY, place bigint NOT NULL, "
    "track json NOT NULL, tags text[] NOT NULL, tempo float8 NOT NULL, "
    "duration_s float8 NOT NULL, vector vector({}) NOT NULL)",
    "CREATE INDEX ON subgenre_tracks USING gin (tags)",
)
_NAMES = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
_SELECT = sql.SQL("SELECT {} FROM subgenre_tracks").format(_NAMES)
_PUT = sql.SQL(
    "INSERT INTO subgenre_tracks ({}) VALUES (%s, %s, %s, %s, %s, %s, %b) "
    "ON CONFLICT (id) DO UPDATE SET {}"
).format(
    _NAMES,
    sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in COLUMNS[1:]
    ),
)


class PostgreSQL:
    """A connection to the database of an address; see `served.Engine`."""

    def __init__(self, address: str) -> None:
        self._address = address
        with self._in_one_line():
            self._db = psycopg.connect(address, autocommit=True, connect_timeout=_TIMEOUT_S)
        weakref.finalize(self, self._db.close)
        self._learn_vectors()

    def values(self, names: Sequence[str]) -> dict[str, Any]:
        """Read those values that there are; none without an index."""
        if not self._query("SELECT to_regclass('subgenre_values') IS NOT NULL AS there")[0][
            "there"
        ]:
            return {}
        found = self._query("SELECT * FROM subgenre_values WHERE name = ANY(%s)", [list(names)])
        return {row["name"]: row["value"] for row in found}

    def create(self, dim: int, values: Mapping[str, Any]) -> None:
        """Make the tables for vectors of `dim` values, and the extension if it is not there."""
        try:
            self._db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.Error as problem:
            raise IndexStoreError(
                f"{self._address} lacks the extension pgvector ({_line(problem)}); install it, and "
                "let an administrator run: CREATE EXTENSION vector"
            ) from problem
        self._learn_vectors()
        with self._in_one_line(), self._db.transaction():
            for statement in _CREATE:
                self._db.execute(sql.SQL(statement).format(sql.Literal(dim)))
            self.set_values(values)

    @contextmanager
    def change(self) -> Iterator[None]:
        """Hold off other writers, but no reader; if it fails, nothing has changed."""
        with self._in_one_line(), self._db.transaction():
            self._db.execute("LOCK TABLE subgenre_values IN SHARE ROW EXCLUSIVE MODE")
            yield

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Replace values by name."""
        statement = (
            "INSERT INTO subgenre_values VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        )
        with self._in_one_line(), self._db.cursor() as cursor:
            cursor.executemany(statement, [(name, Json(value)) for name, value in values.items()])

    def get(self, ids: Sequence[str]) -> list[Row]:
        """Read rows by id; unknown ids are left out."""
        return self._rows(_SELECT + sql.SQL(" WHERE id = ANY(%s)"), [list(ids)])

    def put(self, rows: Sequence[Row]) -> None:
        """Add rows, replacing those with the same id."""
        plain = [{**row, "track": Json(row["track"])} for row in rows]
        with self._in_one_line(), self._db.cursor() as cursor:
            cursor.executemany(_PUT, [[row[name] for name in COLUMNS] for row in plain])

    def remove(self, ids: Sequence[str]) -> None:
        """Remove rows by id."""
        with self._in_one_line():
            self._db.execute("DELETE FROM subgenre_tracks WHERE id = ANY(%s)", [list(ids)])

    def rows(self) -> Iterator[Row]:
        """Stream all rows, as they are at one moment."""
        with (
            self._in_one_line(),
            self._db.transaction(),
            self._db.cursor("subgenre_rows", row_factory=dict_row) as cursor,
        ):
            cursor.itersize = _BATCH
            cursor.execute(_SELECT, binary=True)
            yield from map(_plain, cursor)

    def count(self, conditions: Conditions) -> int:
        """Count rows."""
        where, values = _where(conditions)
        statement = sql.SQL("SELECT count(*) AS n FROM subgenre_tracks") + where
        return int(self._query(statement, values)[0]["n"])

    def select(self, conditions: Conditions, limit: int) -> list[Row]:
        """Read at most `limit` rows, in any order."""
        where, values = _where(conditions)
        return self._rows(_SELECT + where + sql.SQL(" LIMIT %s"), [*values, limit])

    def nearest(self, vector: NDArray[np.float32], k: int, conditions: Conditions) -> list[Row]:
        """Find the k rows of the largest inner product with a vector [D], exactly, best first."""
        where, values = _where(conditions)
        statement = _SELECT + where + sql.SQL(" ORDER BY vector <#> %b, place LIMIT %s")
        return self._rows(statement, [*values, vector, k])

    def _rows(self, statement: sql.Composed, values: Sequence[object]) -> list[Row]:
        return [_plain(row) for row in self._query(statement, values)]

    def _query(self, statement: str | sql.Composed, values: Sequence[object] = ()) -> list[Row]:
        with self._in_one_line(), self._db.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement, values, binary=True).fetchall()

    def _learn_vectors(self) -> None:
        """Let the client read and write vectors, if the extension is there."""
        if self._has("to_regtype('vector')"):
            register_vector(self._db)

    def _has(self, thing: str) -> bool:
        return self._query(f"SELECT {thing} AS found")[0]["found"] is not None

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """Turn an error of the client or the server into one line."""
        try:
            yield
        except psycopg.OperationalError as problem:
            raise IndexStoreError(
                f"{self._address} does not answer ({_line(problem)}); start the server, check the "
                "address, and give a password by PGPASSWORD or ~/.pgpass"
            ) from problem
        except psycopg.Error as problem:
            raise IndexStoreError(f"{self._address} refuses: {_line(problem)}") from problem


def _line(problem: psycopg.Error) -> str:
    return " ".join(str(problem).split())


def _plain(row: Row) -> Row:
    return {**row, "vector": row["vector"].to_numpy()}


def _where(conditions: Conditions) -> tuple[sql.Composed, list[object]]:
    """Return a clause and its values."""
    parts, values = [sql.SQL("true")], list[object]()
    for group in conditions.any_of:
        parts.append(sql.SQL("tags && %s::text[]"))
        values.append(list(group))
    if conditions.none_of:
        parts.append(sql.SQL("NOT tags && %s::text[]"))
        values.append(list(conditions.none_of))
    clauses: list[sql.Composable] = [*parts]
    for name, low, high in conditions.between:
        clauses.append(sql.SQL("{} BETWEEN %s AND %s").format(sql.Identifier(name)))
        values += [low, high]
    return sql.SQL(" WHERE ") + sql.SQL(" AND ").join(clauses), values
