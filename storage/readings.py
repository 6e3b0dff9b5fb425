"""Readings back from the database as arrays: samples, whole days of curves, completeness figures.

Curves come as (k, n) float64 with NaN for empty slots and quality M there; k = len(points) * len(quantities), point
major (reshape(P, Q, n) to take them apart), in the caller's order. Nothing here interprets or corrects a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from ..model.quality import Quality, Source
from ..model.readings import F8, I2, Samples
from .copying import PG_EPOCH_US, Rows, RowType, copy_out, int_array
from .curve_table import read_rows
from .curves import DAY_S, NONE
from .partitions import EPOCH_DAY

Connection = psycopg.Connection[Any]

MANY_POINTS: Final = 20_000  # above this the whole day is read and sorted out here
_COLUMNS: Final = [
    ("time", "timestamptz"),
    ("value", "float8"),
    ("point", "int4"),
    ("quantity", "int2"),
    ("source", "int2"),
    ("quality", "int2"),
]
_SAMPLE: Final = RowType(_COLUMNS)
_ARRIVED: Final = RowType([*_COLUMNS, ("received", "timestamptz")])


def load_samples(
    connection: Connection,
    points: Sequence[int],
    quantities: Sequence[int],
    from_us: int,
    to_us: int,
    source: int | None = None,
) -> Samples:
    """Samples with from_us <= time < to_us, ordered by point, quantity and time; `source` None = any."""
    return _samples(
        connection,
        sql.SQL(
            "SELECT time, value, point, quantity, source, quality FROM sample"
            " WHERE {where} AND time >= {a} AND time < {b} ORDER BY point, quantity, time, source"
        ).format(where=_of(points, quantities, source), a=_instant(from_us), b=_instant(to_us)),
    )


def load_arrived(
    connection: Connection,
    points: Sequence[int],
    quantities: Sequence[int],
    from_us: int,
    to_us: int,
    source: int,
) -> tuple[Samples, NDArray[np.int64]]:
    """`load_samples` of one source, and when each sample arrived (for the first time: later ones change nothing)."""
    query = sql.SQL(
        "SELECT time, value, point, quantity, source, quality, received FROM sample"
        " WHERE {where} AND time >= {a} AND time < {b} ORDER BY point, quantity, time"
    ).format(where=_of(points, quantities, source), a=_instant(from_us), b=_instant(to_us))
    with connection.cursor() as cursor:
        rows = _ARRIVED.read(copy_out(cursor, query))
    return _as_samples(rows), rows["received"].astype(np.int64) + PG_EPOCH_US


def load_live_periods(
    connection: Connection, points: Sequence[int], quantity: int, start_us: int, step_s: int, periods: int, near_us: int
) -> NDArray[np.int64]:
    """(rows, 6): point, period, least and largest distance from the period's begin (µs), first arrival, best quality.

    Period i is (start + i * step, start + (i+1) * step]; -1 and `periods` hold what lies within `near_us` outside. Live
    values only; one row a point and period that has any.
    """
    step_us = step_s * 1_000_000
    query = sql.SQL(
        "SELECT point, i, min(t - i * {step}), max(t - i * {step}), min(r), min(quality)"
        " FROM (SELECT point, quality, t, r, floor((t - 1)::numeric / {step})::int8 AS i FROM (SELECT point, quality,"
        " (extract(epoch FROM time - {a}) * 1000000)::int8 AS t, (extract(epoch FROM received) * 1000000)::int8 AS r"
        " FROM sample WHERE {where} AND time > {low} AND time <= {high}) s) p GROUP BY point, i"
    ).format(
        step=sql.Literal(step_us),
        a=_instant(start_us),
        where=_of(points, [quantity], Source.LIVE),
        low=_instant(start_us - near_us),
        high=_instant(start_us + periods * step_us + near_us),
    )
    rows = connection.execute(query).fetchall()
    return np.array(rows, np.int64).reshape(len(rows), 6)


def latest(
    connection: Connection,
    points: Sequence[int],
    quantities: Sequence[int],
    since_us: int,
    source: int | None = Source.LIVE,
) -> Samples:
    """The newest sample of each (point, quantity) not older than `since_us` (bounds the partitions looked at)."""
    return _samples(
        connection,
        sql.SQL(
            "SELECT DISTINCT ON (point, quantity) time, value, point, quantity, source, quality FROM sample"
            " WHERE {where} AND time >= {a} ORDER BY point, quantity, time DESC, source"
        ).format(where=_of(points, quantities, source), a=_instant(since_us)),
    )


def _of(points: Sequence[int], quantities: Sequence[int], source: int | None) -> sql.Composable:
    return sql.SQL("point = ANY({}) AND quantity = ANY({}){}").format(
        int_array(points),
        int_array(quantities, "int2"),
        sql.SQL("") if source is None else sql.SQL(" AND source = {}").format(sql.Literal(int(source))),
    )


def _instant(time_us: int) -> sql.Composable:
    """An instant as a constant (so that partitions are pruned), exact to the microsecond."""
    seconds, us = divmod(time_us, 1_000_000)
    return sql.SQL("('1970-01-01 00:00:00+00'::timestamptz + {}::interval + {}::interval)").format(
        sql.Literal(f"{seconds} seconds"), sql.Literal(f"{us} microseconds")
    )


def _samples(connection: Connection, query: sql.Composable) -> Samples:
    with connection.cursor() as cursor:
        return _as_samples(_SAMPLE.read(copy_out(cursor, query)))


def _as_samples(rows: Rows) -> Samples:
    return Samples(
        rows["time"].astype(np.int64) + PG_EPOCH_US,
        rows["point"].astype(np.int32),
        rows["quantity"].astype(np.int16),
        rows["value"].astype(np.float64),
        rows["quality"].astype(np.int16),
        rows["source"].astype(np.int16),
    )


def load_curve_day(
    connection: Connection, day: date, points: Sequence[int], quantities: Sequence[int], step_s: int = 900
) -> tuple[F8, I2]:
    """One business day: value (k, n) with NaN, quality (k, n); see the module for k."""
    return load_curve_range(connection, day, day, points, quantities, step_s)


def load_curve_range(
    connection: Connection,
    first: date,
    last: date,
    points: Sequence[int],
    quantities: Sequence[int],
    step_s: int = 900,
    received_by_us: int | None = None,
) -> tuple[F8, I2]:
    """Business days first..last one after the other: value (k, days * n) with NaN, quality (k, days * n).

    received_by_us: only days whose every stored slot had arrived by then (a row keeps the time of its newest part).
    """
    days, n = (last - first).days + 1, DAY_S // step_s
    if days < 1 or DAY_S % step_s:
        raise ValueError("load_curve_range: first day after last, or a step that does not divide a day")
    wanted_points, wanted_quantities = np.asarray(points, np.int64), np.asarray(quantities, np.int64)
    if len(np.unique(wanted_points)) < len(wanted_points) or len(np.unique(wanted_quantities)) < len(wanted_quantities):
        raise ValueError("load_curve_range: a point or quantity stands twice")
    q = len(wanted_quantities)
    value = np.full((len(wanted_points) * q, days, n), np.nan)
    quality = np.full(value.shape, Quality.M, np.int16)
    if value.size:
        where = sql.SQL("c.day BETWEEN {a} AND {b} AND c.quantity = ANY({q})").format(
            a=sql.Literal(first), b=sql.Literal(last), q=int_array(wanted_quantities, "int2")
        )
        if received_by_us is not None:
            where = sql.SQL("{} AND c.received <= {}").format(where, _instant(received_by_us))
        if len(wanted_points) <= MANY_POINTS:
            where = sql.SQL("{} AND c.point = ANY({})").format(where, int_array(wanted_points))
        # One snapshot for the four reads of read_rows: a row that changes its layout between them is not missed.
        with _snapshot(connection), connection.cursor() as cursor:
            found = read_rows(cursor, step_s, where)
        day0 = (first - EPOCH_DAY).days
        for rows in found:
            p, in_points = _places(wanted_points, rows.key["point"])
            j, _ = _places(wanted_quantities, rows.key["quantity"])
            r, d = (p * q + j)[in_points], (rows.key["day"] - day0)[in_points]
            there = rows.number[in_points] != NONE
            scale = np.power(10.0, rows.key["decimals"][in_points])[:, None]
            value[r, d] = np.where(there, rows.number[in_points] / scale, np.nan)
            quality[r, d] = np.where(there, rows.quality[in_points], Quality.M)
    return value.reshape(len(value), -1), quality.reshape(len(value), -1)


def _places(wanted: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], Any]:
    """Index of each found number among the wanted ones, and whether it is there at all."""
    order = np.argsort(wanted)
    at = np.minimum(np.searchsorted(wanted[order], found), len(wanted) - 1)
    return order[at], wanted[order][at] == found


class _snapshot:
    """A read-only transaction with one snapshot, on a connection that may be autocommit or not."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._outer = self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
        if not self._outer:
            self._connection.execute(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
                if self._connection.autocommit
                else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
            )

    def __exit__(self, *_: object) -> None:
        if not self._outer and not self._connection.closed:
            self._connection.rollback()


def present_slots(
    connection: Connection, day: date, points: Sequence[int], quantity: int, step_s: int = 900
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which slots of a curve are there, (points, n): what gap detection subtracts from what is due."""
    value, _ = load_curve_range(connection, day, day, points, [quantity], step_s)
    return np.isfinite(value)


def sample_points(
    connection: Connection, quantity: int, source: int, from_us: int, to_us: int
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Points that have a sample of a source (for example a daily freeze) in a span of time, ascending."""
    rows = connection.execute(
        sql.SQL(
            "SELECT DISTINCT point FROM sample WHERE quantity = {q} AND source = {s} AND time >= {a} AND time < {b}"
        ).format(q=sql.Literal(quantity), s=sql.Literal(int(source)), a=_instant(from_us), b=_instant(to_us))
    ).fetchall()
    return np.sort(np.array([r[0] for r in rows], np.int32))


def business_days(first: date, last: date) -> list[date]:
    """The days first..last."""
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]
