"""Binary COPY with numpy: one structured, big-endian array is the wire format of many rows; no Python object per row.

Binary COPY converts nothing: the fields of a row type must have exactly the types of the columns. NULL has no bytes, so
it cannot stand in a fixed-width row: rows with other NULL columns are another row type in the same stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

Rows = NDArray[np.void]

PG_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01 UTC, the zero of timestamptz
PG_EPOCH_DAY: Final = 10_957  # the zero of date, in days since 1970
_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_KIND_AT: Final = 7  # in a row: the low byte of its first column, an int2 (two bytes column count, four bytes length)
_OID: Final = {"int2": 21, "int4": 23, "int8": 20, "float4": 700, "float8": 701}
_KIND: Final = {
    "int2": ">i2",
    "int4": ">i4",
    "int8": ">i8",
    "float4": ">f4",
    "float8": ">f8",
    "timestamptz": ">i8",
    "date": ">i4",
}


class RowType:
    """The layout of one row: (column, type) with type a name of `_KIND`, `int4[96]` for an array, `bytea[96]` for so
    many bytes, or `null`."""

    def __init__(self, columns: Sequence[tuple[str, str]]) -> None:
        fields: list[tuple[str, Any]] = [("n", ">i2")]
        constants: list[tuple[str, int]] = [("n", len(columns))]
        for name, kind in columns:
            fields.append((f"{name}:len", ">i4"))
            if kind == "null":
                constants.append((f"{name}:len", -1))
            elif kind.startswith("bytea["):
                size = int(kind[6:-1])
                fields.append((name, "u1", size))  # type: ignore[arg-type]
                constants.append((f"{name}:len", size))
            elif kind.endswith("]"):
                element, _, count = kind[:-1].partition("[")
                item = np.dtype([("len", ">i4"), ("v", _KIND[element])])
                fields += [(f"{name}:{part}", ">i4") for part in ("dims", "nulls", "oid", "dim", "lower")]
                fields.append((f"{name}:items", item, int(count)))  # type: ignore[arg-type]
                constants += [
                    (f"{name}:len", 20 + item.itemsize * int(count)), (f"{name}:dims", 1), (f"{name}:nulls", 0),
                    (f"{name}:oid", _OID[element]), (f"{name}:dim", int(count)), (f"{name}:lower", 1),
                ]  # fmt: skip
            else:
                fields.append((name, _KIND[kind]))
                constants.append((f"{name}:len", np.dtype(_KIND[kind]).itemsize))
        self.first = columns[0][0]
        self.dtype = np.dtype(fields)
        self._template = np.zeros(1, self.dtype)
        for name, value in constants:
            self._template[name] = value
        for name, kind in columns:
            if kind.endswith("]") and not kind.startswith("bytea"):
                self._template[f"{name}:items"]["len"] = np.dtype(_KIND[kind.partition("[")[0]]).itemsize

    def rows(self, count: int) -> Rows:
        """`count` rows with every length in place; the caller fills the columns (`a["point"]`, `array(a, "vals")`)."""
        return np.repeat(self._template, count)

    def read(self, data: bytes) -> Rows:
        """Rows of a binary COPY TO; ValueError if they do not have this layout."""
        body = len(data) - len(_HEAD) - len(_END)
        if body % self.dtype.itemsize:
            raise ValueError("binary COPY: the rows do not have the expected width")
        return np.frombuffer(data, self.dtype, body // self.dtype.itemsize, len(_HEAD))


def read_mixed(data: bytes, layouts: Sequence[RowType]) -> list[Rows]:
    """Rows of a binary COPY TO whose first column (int2) says which of `layouts` each row has; one array a layout.

    One Python step a row, and none where all rows are alike. ValueError if a row has none of the layouts.
    """
    start, end = len(_HEAD), len(data) - len(_END)
    widths = [layout.dtype.itemsize for layout in layouts]
    starts: list[list[int]] = [[] for _ in layouts]
    if end > start and (kind := data[start + _KIND_AT]) < len(layouts) and (end - start) % widths[kind] == 0:
        alike = layouts[kind].read(data)
        if (alike["n"] == alike["n"][0]).all() and (alike[layouts[kind].first] == kind).all():
            return [alike if i == kind else layout.rows(0) for i, layout in enumerate(layouts)]
    at = start
    while at < end:
        kind = data[at + _KIND_AT]
        if kind >= len(layouts):
            raise ValueError("binary COPY: a row has an unknown layout")
        starts[kind].append(at)
        at += widths[kind]
    if at > end:
        raise ValueError("binary COPY: the rows do not have the expected width")
    wire = np.frombuffer(data, np.uint8)
    found = []
    for layout, width, offsets in zip(layouts, widths, starts, strict=True):
        picked = wire[np.array(offsets, np.intp)[:, None] + np.arange(width)]
        found.append(picked.view(layout.dtype).reshape(-1) if offsets else layout.rows(0))
    return found


def array(rows: Rows, column: str) -> NDArray[Any]:
    """The (rows, slots) elements of an array column, to read or to fill."""
    found: NDArray[Any] = rows[f"{column}:items"]["v"]
    return found


def copy_in(cursor: psycopg.Cursor[Any], table: sql.Composable, columns: Sequence[str], *parts: Rows) -> None:
    """COPY the rows of all parts into a table."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(table, names)) as copy:
        copy.write(_HEAD)
        for part in parts:
            if len(part):
                copy.write(part.tobytes())
        copy.write(_END)


def copy_out(cursor: psycopg.Cursor[Any], query: sql.Composable) -> bytes:
    """The rows of a query as binary COPY."""
    with cursor.copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(query)) as copy:
        return b"".join(bytes(block) for block in copy)


def int_array(values: NDArray[Any] | Sequence[int], kind: str = "int4") -> sql.Composable:
    """A literal array of integers, for statements that take no parameters (COPY)."""
    text = "{" + ",".join(map(str, np.asarray(values).tolist())) + "}"
    return sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(kind + "[]"))
