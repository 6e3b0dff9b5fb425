"""Service indicators in the database: values with their versions, and the counts that are one set query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import date, datetime
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.rows import class_row

from ..model.quality import Quality, Source
from ..model.readings import F8, I8
from ..model.times import DAY_US, from_us

Connection = psycopg.Connection[Any]
LOCK: Final = 0x6B70_6921


@dataclass(frozen=True, slots=True, kw_only=True)
class KpiValue:
    """One version of one indicator's month, as the table has it (migration 0016)."""

    indicator: str
    period: date
    version: int
    formula: str
    origin: str
    numerator: float
    denominator: float
    exempt: float
    completeness: float | None
    value: float
    provisional: bool
    scope: str
    made_at: datetime
    made_by: str


_FIELDS: Final = tuple(KpiValue.__slots__)
_KEPT: Final = ("formula", "origin", "numerator", "denominator", "exempt", "completeness", "provisional", "scope")


def load_values(connection: Connection, period: date | None = None, *, newest: bool = True) -> list[KpiValue]:
    """Values of a month or of all, by month, indicator and version; `newest`: the version in force only."""
    distinct = "DISTINCT ON (period, indicator) " if newest else ""
    order = "period, indicator, version DESC" if newest else "period, indicator, version"
    with connection.cursor(row_factory=class_row(KpiValue)) as cursor:
        return cursor.execute(
            f"SELECT {distinct}{', '.join(_FIELDS)} FROM kpi_value"
            f" WHERE %s::date IS NULL OR period = %s ORDER BY {order}".encode(),
            (period, period),
        ).fetchall()


def store_values(connection: Connection, values: Sequence[KpiValue]) -> list[KpiValue]:
    """Add what differs from the version in force, as the next version, in one transaction; returns what was added.

    `version` of what is given does not matter.
    """
    added: list[KpiValue] = []
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        old = {
            (v.indicator, v.period): v for period in {v.period for v in values} for v in load_values(connection, period)
        }
        for value in values:
            before = old.get((value.indicator, value.period))
            if before is not None and all(getattr(before, n) == getattr(value, n) for n in _KEPT):
                continue
            content = dict(zip(_FIELDS, astuple(value), strict=True)) | {"version": before.version + 1 if before else 1}
            added.append(KpiValue(**content))
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO kpi_value ({', '.join(_FIELDS)}) VALUES ({', '.join(['%s'] * len(_FIELDS))})".encode(),
                [astuple(v) for v in added],
            )
    return added


def live_seconds(connection: Connection, quantity: int, point: I8, from_us_: I8, to_us_: I8, fresh_s: int) -> F8:
    """(n,): seconds of each window of a point (windows of one point do not overlap) with a live value of quality A that
    had arrived and was at most `fresh_s` old. Day by day, each one set query."""
    found = np.zeros(len(point), np.float64)
    if not len(point):
        return found
    fresh_us = fresh_s * 1_000_000
    for start in range(int(from_us_.min()), int(to_us_.max()), DAY_US):
        end = start + DAY_US
        mine = np.flatnonzero((from_us_ < end) & (to_us_ > start))
        if not len(mine):
            continue
        rows = connection.execute(
            "WITH w AS (SELECT * FROM unnest(%s::int4[], %s::int4[], %s::timestamptz[], %s::timestamptz[])"
            " AS w (n, point, a, b)),"
            " s AS (SELECT point, time, greatest(time, received) AS a FROM sample WHERE point = ANY(%s)"
            " AND quantity = %s AND source = %s AND quality = %s AND time > %s AND time < %s),"
            " v AS (SELECT point, a, least(lead(a) OVER (PARTITION BY point ORDER BY time), time + %s) AS b FROM s)"
            " SELECT w.n, sum(extract(epoch FROM least(v.b, w.b) - greatest(v.a, w.a)))::float8 FROM w JOIN v"
            " ON v.point = w.point AND v.a < w.b AND v.b > w.a AND v.a < v.b GROUP BY w.n",
            (
                mine.tolist(), point[mine].tolist(), [from_us(max(int(t), start)) for t in from_us_[mine]],
                [from_us(min(int(t), end)) for t in to_us_[mine]], np.unique(point[mine]).tolist(), quantity,
                int(Source.LIVE), int(Quality.A), from_us(start - fresh_us), from_us(end),
                from_us(fresh_us) - from_us(0),
            ),
        ).fetchall()  # fmt: skip
        for number, seconds in rows:
            found[number] += seconds
    return found


def read_at(connection: Connection, points: Sequence[int], quantity: int, at: datetime) -> NDArray[np.int64]:
    """The points that have a register of a daily or monthly freeze of exactly this instant, with quality A."""
    rows = connection.execute(
        "SELECT DISTINCT point FROM sample WHERE point = ANY(%s) AND quantity = %s AND source = ANY(%s)"
        " AND quality = %s AND time = %s",
        (list(points), quantity, [int(Source.MONTHLY), int(Source.DAILY)], int(Quality.A), at),
    ).fetchall()
    return np.array([r[0] for r in rows], np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandCounts:
    """Commands of real orders that began in a span, rejected and superseded ones apart."""

    ordered: int
    sent: int
    proven: int
    customers: int
    apart: int
    tests: int


def command_counts(connection: Connection, begin: datetime, end: datetime) -> CommandCounts:
    """By the order's start. customers: those with a command that left; tests: commands of a test environment."""
    row = connection.execute(
        "SELECT count(*) FILTER (WHERE prod AND NOT gone), count(*) FILTER (WHERE prod AND NOT gone AND sent),"
        " count(*) FILTER (WHERE prod AND NOT gone AND proven),"
        " count(DISTINCT customer) FILTER (WHERE prod AND sent), count(*) FILTER (WHERE prod AND gone),"
        " count(*) FILTER (WHERE NOT prod) FROM (SELECT c.customer, coalesce(c.sent, false) AS sent,"
        " c.environment = 'prod' AS prod, c.state IN ('SUPERSEDED', 'REJECTED') AS gone,"
        " jsonb_path_exists(c.checks, '$[*] ? (@.event == \"proven\")') AS proven"
        " FROM command c JOIN order_ o ON o.id = c.order_id WHERE o.start_at >= %s AND o.start_at < %s) x",
        (begin, end),
    ).fetchone()
    assert row is not None
    return CommandCounts(
        ordered=row[0], sent=row[1], proven=row[2], customers=row[3], apart=row[4], tests=row[5]
    )  # fmt: skip


def controllable(connection: Connection, tested_since: datetime, at: datetime, seen_since: datetime) -> set[int]:
    """Devices with a round whose last live test by `at` was good and not before `tested_since`, heard since then."""
    rows = connection.execute(
        "SELECT DISTINCT r.device_id FROM round r JOIN device_state s ON s.device = r.device_id WHERE r.last_test_ok"
        " AND r.last_test_at >= %s AND r.last_test_at <= %s AND s.last_seen >= %s",
        (tested_since, at, seen_since),
    ).fetchall()
    return {int(d) for (d,) in rows}


def forwarded(connection: Connection, begin: datetime, end: datetime, within_s: int) -> tuple[int, int]:
    """(assigned in time, confirmed) of the cases opened in a span that people confirmed: from the first step that says
    so (a case that is assigned at once is confirmed by it) to the first assignment."""
    row = connection.execute(
        "SELECT count(*) FILTER (WHERE assigned - confirmed <= %s * interval '1 second'), count(*) FROM"
        " (SELECT min(s.at) FILTER (WHERE s.step IN ('ack', 'confirm', 'assign')) AS confirmed,"
        " min(s.at) FILTER (WHERE s.step = 'assign') AS assigned FROM case_ c JOIN case_step s ON s.case_id = c.id"
        " WHERE c.state <> 'false' AND c.opened_at >= %s AND c.opened_at < %s GROUP BY c.id) x"
        " WHERE confirmed IS NOT NULL",
        (within_s, begin, end),
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
