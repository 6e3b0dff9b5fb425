"""Day rows into and out of table `curve_day`: reading fixed-width arrays, merging with what is there, writing back.

A row has one of six layouts (int2, int4 or int8 numbers, with or without qualities); each is a fixed-width record, so
both directions are one COPY and no Python object a value. Merging transactions take turns by an advisory lock.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from ..model.quality import Source
from ..model.readings import I2, I8, Samples
from .copying import PG_EPOCH_DAY, PG_EPOCH_US, Rows, RowType, array, copy_in, copy_out, int_array, read_mixed
from .curves import DAY_S, NONE, DayRows, conflicts_as_samples, merge, rescale, without_trailing_zeros
from .partitions import Partitions

LOCK: Final = 0x6375_7276
COLUMNS: Final = (
    "day", "point", "quantity", "source", "step_s", "decimals", "base", "short", "vals", "wide", "quality", "received",
)  # fmt: skip
STAGE: Final = sql.SQL("CREATE TEMP TABLE IF NOT EXISTS curve_stage (LIKE curve_day) ON COMMIT DELETE ROWS")
UPDATE: Final = sql.SQL(
    "UPDATE curve_day c SET decimals = s.decimals, base = s.base, short = s.short, vals = s.vals, wide = s.wide,"
    " quality = s.quality, received = s.received FROM curve_stage s WHERE c.day = {day} AND s.day = {day}"
    " AND c.quantity = s.quantity AND c.point = s.point AND c.source = s.source AND c.step_s = s.step_s"
)


class Width(NamedTuple):
    """Where the numbers of a row stand: column, its element type and numpy's, and the longest span of a day it holds.

    Numbers are kept relative to `base` (but for int8) so that a register of twelve digits needs no more than what
    flowed in the day. The lowest number of the type marks an empty slot.
    """

    column: str
    kind: str
    dtype: type[np.signedinteger[Any]]
    span: int
    below: int  # how far the day's lowest number lies below base

    @property
    def none(self) -> int:
        """What marks an empty slot."""
        return int(np.iinfo(self.dtype).min)


class Form(NamedTuple):
    """Layout of a row: width of its numbers, and whether qualities are stored (`judged`) or all A."""

    width: Width
    judged: bool


WIDTHS: Final = (
    Width("short", "int2", np.int16, 2 * np.iinfo(np.int16).max, np.iinfo(np.int16).max),
    Width("vals", "int4", np.int32, np.iinfo(np.int32).max, 0),
    Width("wide", "int8", np.int64, np.iinfo(np.int64).max, 0),
)
WIDEST: Final = WIDTHS[-1]
FORMS: Final = tuple(Form(width, judged) for width in WIDTHS for judged in (False, True))
FORM: Final = sql.SQL(  # index into FORMS
    "(CASE WHEN c.short IS NOT NULL THEN 0 WHEN c.vals IS NOT NULL THEN 2 ELSE 4 END"
    " + CASE WHEN c.quality IS NULL THEN 0 ELSE 1 END)::int2"
)


@cache
def _written(form: Form, n: int) -> RowType:
    return RowType(
        [
            ("day", "date"),
            ("point", "int4"),
            ("quantity", "int2"),
            ("source", "int2"),
            ("step_s", "int4"),
            ("decimals", "int2"),
            ("base", "int8"),
            *((w.column, f"{w.kind}[{n}]" if w is form.width else "null") for w in WIDTHS),
            ("quality", f"int2[{n}]" if form.judged else "null"),
            ("received", "timestamptz"),
        ]
    )


@cache
def _read(n: int) -> tuple[RowType, ...]:
    """What `read_rows` selects: one layout a form, told by the first column."""
    shared = [("form", "int2"), ("day", "date"), ("point", "int4"), ("quantity", "int2"), ("decimals", "int2")]
    shared += [("base", "int8"), ("received", "timestamptz")]
    return tuple(
        RowType(
            [
                *shared,
                *((w.column, f"{w.kind}[{n}]" if w is form.width else "null") for w in WIDTHS),
                ("quality", f"int2[{n}]" if form.judged else "null"),
            ]
        )
        for form in FORMS
    )


def pack_rows(rows: DayRows, mark: I2 | None = None) -> list[Rows]:
    """COPY rows of the table, one array a layout: each day in the narrowest numbers that hold it.

    mark (k,): what stands in the fourth column; in `curve_day` the source, which is CURVE.
    """
    rows = without_trailing_zeros(rows)
    marks = np.full(len(rows), Source.CURVE, np.int16) if mark is None else mark
    there = rows.number != NONE
    low = np.where(there, rows.number, np.iinfo(np.int64).max).min(axis=1)
    span = np.where(there, rows.number - low[:, None], 0).max(axis=1)
    narrowest = np.searchsorted([w.span for w in WIDTHS], span)
    judged = (rows.quality != 0).any(axis=1)
    parts = []
    for form in FORMS:
        width = form.width
        mask = (narrowest == WIDTHS.index(width)) & (judged == form.judged)
        if not mask.any():
            continue
        part = rows.take(mask)
        out = _written(form, DAY_S // rows.step_s).rows(len(part))
        out["day"] = part.key["day"] - PG_EPOCH_DAY
        for name in ("point", "quantity", "decimals"):
            out[name] = part.key[name]
        out["source"], out["step_s"] = marks[mask], rows.step_s
        out["received"] = part.received_us - PG_EPOCH_US
        if width is WIDEST:
            array(out, width.column)[...] = part.number  # NONE is this width's empty slot
        else:
            base = low[mask] + width.below
            out["base"] = base
            array(out, width.column)[...] = np.where(there[mask], part.number - base[:, None], width.none)
        if form.judged:
            array(out, "quality")[...] = part.quality
        parts.append(out)
    return parts


def read_rows(
    cursor: psycopg.Cursor[Any], step_s: int, where: sql.Composable, source: int = Source.CURVE
) -> list[DayRows]:
    """The rows of one step that satisfy `where` (a condition on c.day, c.point, c.quantity ...)."""
    table = sql.SQL("curve_day c WHERE c.source = {} AND {}").format(sql.Literal(int(source)), where)
    return read_packed(cursor, step_s, table, sql.SQL("c.received"))


def read_packed(
    cursor: psycopg.Cursor[Any], step_s: int, table: sql.Composable, stamp: sql.Composable
) -> list[DayRows]:
    """Rows in the form of this module from any table that has its columns: `table` is "name c WHERE ..."."""
    query = sql.SQL(
        "SELECT {form}, c.day, c.point, c.quantity, c.decimals, c.base, {stamp}, c.short, c.vals, c.wide, c.quality"
        " FROM {table} AND c.step_s = {step}"
    ).format(form=FORM, step=sql.Literal(step_s), stamp=stamp, table=table)
    parts = read_mixed(copy_out(cursor, query), _read(DAY_S // step_s))
    return [_unpack(rows, step_s, form) for rows, form in zip(parts, FORMS, strict=True) if len(rows)]


def _unpack(rows: Rows, step_s: int, form: Form) -> DayRows:
    width = form.width
    raw = array(rows, width.column)
    number = raw.astype(np.int64)
    if width is not WIDEST:
        number = np.where(number == width.none, NONE, number + rows["base"].astype(np.int64)[:, None])
    key = np.zeros(len(rows), [("day", "<i4"), ("quantity", "<i2"), ("point", "<i4"), ("decimals", "<i2")])
    for name in ("quantity", "point", "decimals"):
        key[name] = rows[name]
    key["day"] = rows["day"] + PG_EPOCH_DAY
    quality = array(rows, "quality").astype(np.int16) if form.judged else np.zeros(number.shape, np.int16)
    return DayRows(step_s, key, number, quality, rows["received"].astype(np.int64) + PG_EPOCH_US)


def _identity(key: NDArray[np.void]) -> I8:
    """Quantity and point of one day as one sortable number."""
    return (key["quantity"].astype(np.int64) << 32) | key["point"].astype(np.int64)


class CurveWriter:
    """Merges folded day rows (one a key, sorted) into the table inside the caller's transaction."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions

    def write(
        self, connection: psycopg.Connection[Any], rows: DayRows, today: int
    ) -> tuple[list[tuple[Samples, I8]], NDArray[np.void]]:
        """Returns the conflicts as suspect samples, and the keys of the rows that changed."""
        found: list[tuple[Samples, I8]] = []
        changed: list[NDArray[np.void]] = []
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            for day in np.unique(rows.key["day"]):
                part = rows.take(rows.key["day"] == day)
                table = self._partitions.target(connection, "curve_day", int(day), today)
                changed.append(self._write_day(cursor, table, int(day), part, found))
        return found, np.concatenate(changed)

    def _write_day(
        self, cursor: psycopg.Cursor[Any], table: str, day: int, new: DayRows, found: list[tuple[Samples, I8]]
    ) -> NDArray[np.void]:
        where = sql.SQL("c.day = {day} AND c.quantity = ANY({q}) AND c.point = ANY({p})").format(
            day=_date(day),
            q=int_array(np.unique(new.key["quantity"]), "int2"),
            p=int_array(np.unique(new.key["point"])),
        )
        old_parts = read_rows(cursor, new.step_s, where)
        mine = _identity(new.key)
        fresh = np.ones(len(new), bool)
        updates: list[DayRows] = []
        for old in old_parts:
            at = np.searchsorted(mine, _identity(old.key))
            hit = (at < len(mine)) & (mine[np.minimum(at, len(mine) - 1)] == _identity(old.key))
            old, at = old.take(hit), at[hit]
            fresh[at] = False
            before, after = _same_decimals(old, new.take(at))
            merged, conflict = merge(before, after)
            if conflict.any():
                found.append(conflicts_as_samples(after, conflict))
            touched = ((merged.number != before.number) | (merged.quality != before.quality)).any(axis=1)
            if touched.any():
                updates.append(merged.take(touched))
        if fresh.any():
            copy_in(cursor, sql.Identifier(table), COLUMNS, *pack_rows(new.take(fresh)))
        if updates:
            cursor.execute(STAGE)
            copy_in(cursor, sql.SQL("curve_stage"), COLUMNS, *(p for u in updates for p in pack_rows(u)))
            cursor.execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
            cursor.execute(UPDATE.format(day=_date(day)))
            cursor.execute("DELETE FROM curve_stage")
        return np.concatenate([new.key[fresh], *(u.key for u in updates)])


def _date(day: int) -> sql.Composable:
    return sql.SQL("('1970-01-01'::date + {})").format(sql.Literal(day))


def _same_decimals(old: DayRows, new: DayRows) -> tuple[DayRows, DayRows]:
    """Both with the finer of the two scales (a day is kept with no more decimals than it needs)."""
    a, b = old.key["decimals"].astype(np.int32), new.key["decimals"].astype(np.int32)
    if (a == b).all():
        return old, new
    finer = np.maximum(a, b)
    both = []
    for rows, have in ((old, a), (new, b)):
        key = rows.key.copy()
        key["decimals"] = finer
        both.append(DayRows(rows.step_s, key, rescale(rows.number, finer - have), rows.quality, rows.received_us))
    return both[0], both[1]
