"""When the slots of stored curves arrived first (domain 3.3: timeliness, period success): one byte a slot.

Kept for the quantities that stand for their class in the completeness ledger, in table `curve_arrival`. A byte holds
the delay between a slot's label and its first arrival, rounded up: single minutes up to two hours, then tens of minutes
up to a day, then "within two days", "within ten days", "later". Limits of 15 minutes and 24 hours are so kept exactly.
Single readings need nothing of this: a sample keeps the time of its first arrival itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import cache
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from ..model.readings import I8
from ..model.times import BUSINESS_ZONE
from .copying import PG_EPOCH_DAY, Rows, RowType, copy_in, copy_out, int_array
from .curves import DAY_S, NONE, DayRows
from .partitions import EPOCH_DAY, Partitions

Codes = NDArray[np.uint8]

NEVER: Final = 0
LATEST: Final = 255
_ZONE_S: Final = int(BUSINESS_ZONE.utcoffset(None).total_seconds())
_COLUMNS: Final = ("day", "point", "quantity", "step_s", "delay")
_STAGE: Final = sql.SQL("CREATE TEMP TABLE IF NOT EXISTS arrival_stage (LIKE curve_arrival) ON COMMIT DELETE ROWS")
_UPSERT: Final = sql.SQL(
    "INSERT INTO curve_arrival SELECT * FROM arrival_stage"
    " ON CONFLICT (day, quantity, point, step_s) DO UPDATE SET delay = excluded.delay"
)


@cache
def limits_s() -> I8:
    """(256,): the longest delay that each code stands for, seconds; NEVER and LATEST are beyond every limit."""
    minutes = [*range(1, 121), *range(130, 1441, 10), 2 * 1440, 10 * 1440]
    beyond = np.iinfo(np.int64).max // 4_000_000
    return np.array([beyond, *(60 * m for m in minutes), beyond], np.int64)


def codes_of(delay_us: I8) -> Codes:
    """The code of each delay; what is before its label (a device's clock is fast) counts as the first minute."""
    seconds = -(-delay_us // 1_000_000)
    found = np.searchsorted(limits_s()[1:LATEST], seconds, side="left") + 1
    return found.astype(np.uint8)


@cache
def _row(n: int) -> RowType:
    return RowType(
        [("day", "date"), ("point", "int4"), ("quantity", "int2"), ("step_s", "int4"), ("delay", f"bytea[{n}]")]
    )


@cache
def _read(n: int) -> RowType:
    return RowType([("quantity", "int2"), ("point", "int4"), ("delay", f"bytea[{n}]")])


def _identity(quantity: NDArray[Any], point: NDArray[Any]) -> I8:
    found: I8 = (quantity.astype(np.int64) << 32) | point.astype(np.int64)
    return found


class ArrivalWriter:
    """Notes first arrivals inside the caller's transaction. The same segment twice changes nothing."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions

    def write(
        self, connection: psycopg.Connection[Any], parts: Sequence[DayRows], marks: frozenset[int], today: int
    ) -> int:
        """Segments of one step as they came, each with its own receive time; returns how many rows changed."""
        wanted = np.array(sorted(marks), np.int16)
        chosen = [p.take(mask) for p in parts if (mask := np.isin(p.key["quantity"], wanted)).any()]
        if not chosen:
            return 0
        step_s = chosen[0].step_s
        key = np.concatenate([p.key[["day", "quantity", "point"]] for p in chosen])
        code = np.concatenate([_codes(p) for p in chosen])
        changed = 0
        with connection.cursor() as cursor:
            for day in np.unique(key["day"]).tolist():
                mine = key["day"] == day
                changed += self._day(cursor, step_s, day, key[mine], code[mine], today)
        return changed

    def _day(
        self, cursor: psycopg.Cursor[Any], step_s: int, day: int, key: NDArray[np.void], code: Codes, today: int
    ) -> int:
        each = _identity(key["quantity"], key["point"])
        order = np.argsort(each, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(each[order]) != 0])
        identity = each[order][starts]
        # NEVER less one is the highest byte, so that the least of several is the first arrival
        new = np.minimum.reduceat(code[order] - np.uint8(1), starts, axis=0) + np.uint8(1)
        old = _stored(cursor, step_s, day, identity)
        merged = _earlier(old, new)
        touched = (merged != old).any(axis=1)
        if not touched.any():
            return 0
        self._partitions.target(cursor.connection, "curve_arrival", day, today)
        rows = _row(code.shape[1]).rows(int(touched.sum()))
        rows["day"], rows["step_s"] = day - PG_EPOCH_DAY, step_s
        rows["quantity"], rows["point"] = identity[touched] >> 32, identity[touched] & 0xFFFF_FFFF
        rows["delay"] = merged[touched]
        cursor.execute(_STAGE)
        copy_in(cursor, sql.SQL("arrival_stage"), _COLUMNS, rows)
        cursor.execute(_UPSERT)
        cursor.execute("DELETE FROM arrival_stage")
        return len(rows)


def _codes(rows: DayRows) -> Codes:
    """(k, n) codes of what a segment brought."""
    n = DAY_S // rows.step_s
    label_s = rows.key["day"].astype(np.int64)[:, None] * DAY_S + np.arange(1, n + 1) * rows.step_s - _ZONE_S
    code = codes_of(rows.received_us[:, None] - label_s * 1_000_000)
    return np.where(rows.number == NONE, np.uint8(NEVER), code)


def _earlier(a: Codes, b: Codes) -> Codes:
    """The earlier of two arrivals, NEVER being later than everything."""
    found: Codes = np.minimum(a - np.uint8(1), b - np.uint8(1)) + np.uint8(1)
    return found


def _stored(cursor: psycopg.Cursor[Any], step_s: int, day: int, identity: I8) -> Codes:
    """What is known of these (quantity, point) of a day, NEVER where nothing is."""
    n = DAY_S // step_s
    found = np.full((len(identity), n), NEVER, np.uint8)
    rows = _select(cursor, step_s, day, np.unique(identity >> 32), np.unique(identity & 0xFFFF_FFFF))
    mine = _identity(rows["quantity"], rows["point"])
    at = np.minimum(np.searchsorted(identity, mine), len(identity) - 1)
    hit = identity[at] == mine
    found[at[hit]] = rows["delay"][hit]
    return found


def _select(cursor: psycopg.Cursor[Any], step_s: int, day: int, quantities: NDArray[Any], points: NDArray[Any]) -> Rows:
    query = sql.SQL(
        "SELECT quantity, point, delay FROM curve_arrival WHERE day = '1970-01-01'::date + {day} AND step_s = {step}"
        " AND quantity = ANY({q}) AND point = ANY({p})"
    ).format(
        day=sql.Literal(day), step=sql.Literal(step_s), q=int_array(quantities, "int2"), p=int_array(points)
    )  # fmt: skip
    return _read(DAY_S // step_s).read(copy_out(cursor, query))


def load_arrivals(
    connection: psycopg.Connection[Any], day: date, points: Sequence[int], quantity: int, step_s: int = 900
) -> Codes:
    """(points, slots) codes of a business day's slots; NEVER where nothing is known."""
    identity = _identity(np.full(len(points), quantity), np.array(points, np.int64))
    order = np.argsort(identity)
    with connection.cursor() as cursor:
        found = _stored(cursor, step_s, (day - EPOCH_DAY).days, identity[order])
    out = np.empty_like(found)
    out[order] = found
    return out
