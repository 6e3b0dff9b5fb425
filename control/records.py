"""Small help for rows: typed reading through psycopg, one place that knows how records are mapped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

T = TypeVar("T")
Conn = psycopg.Connection[Any]
Params = Sequence[object] | Mapping[str, object]
RECORDSET: Final = "json_to_recordset(%s::json)"
"""Many rows as one parameter (`json_rows`), to be followed by `AS v (column type, ...)`."""


def fetch_all(conn: Conn, kind: type[T], query: str, params: Params = ()) -> list[T]:
    """Rows of a query as objects of `kind` (columns = fields)."""
    with conn.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query.encode(), params).fetchall()


def fetch_one(conn: Conn, kind: type[T], query: str, params: Params = ()) -> T | None:
    """The first row or None."""
    with conn.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query.encode(), params).fetchone()


def scalar(conn: Conn, query: str, params: Params = ()) -> Any:
    """The first column of the first row, None without a row."""
    row = conn.execute(query.encode(), params).fetchone()
    return row[0] if row else None


def insert(conn: Conn, table: str, values: Mapping[str, object], returning: str = "") -> Any:
    """Insert one row; the value of `returning` if asked for."""
    query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(sql.Identifier(name) for name in values),
        sql.SQL(", ").join(sql.Placeholder() for _ in values),
    )
    if returning:
        query += sql.SQL(" RETURNING {}").format(sql.Identifier(returning))
    cursor = conn.execute(query, [_adapted(v) for v in values.values()])
    if not returning:
        return None
    row = cursor.fetchone()
    return row[0] if row else None


def update(conn: Conn, table: str, id_: int, values: Mapping[str, object]) -> None:
    """Change fields of the row with this id."""
    query = sql.SQL("UPDATE {} SET {} WHERE id = {}").format(
        sql.Identifier(table),
        sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(n), sql.Placeholder()) for n in values),
        sql.Placeholder(),
    )
    conn.execute(query, [*(_adapted(v) for v in values.values()), id_])


def json_rows(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows for RECORDSET; instants, enums and what goes into jsonb columns included."""
    return msgspec.json.encode(rows).decode()


def _adapted(value: object) -> object:
    """Dicts and lists of dicts go into jsonb columns; lists of plain values stay arrays."""
    if isinstance(value, dict) or (isinstance(value, list) and (not value or isinstance(value[0], dict))):
        return Jsonb(value)
    return value
