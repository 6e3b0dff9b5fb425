"""Days to compute again: marked in the transaction of the change, taken in chunks, forgotten with the result.

Whoever marks holds DIRTY_LOCK shared until the commit; whoever takes waits for it, so that everything that made a day
dirty is visible to those who then read. A day that becomes dirty again while it is computed stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import IntFlag
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

Connection = psycopg.Connection[Any]
DIRTY_LOCK: Final = 0x6469_7274


class Why(IntFlag):
    """Why a day is computed again; bits, so that several causes meet in one version."""

    DATA = 1
    ARCHIVE = 2
    OUTAGE = 4
    EDIT = 8
    NEIGHBOUR = 16
    HAND = 32


DATA: Final = (
    "INSERT INTO dirty_day (point, day) SELECT w.point, '1970-01-01'::date + w.day"
    " FROM unnest(%s::int4[], %s::int4[]) AS w(point, day)"
    " WHERE NOT EXISTS (SELECT FROM dirty_day d WHERE d.point = w.point AND d.day = '1970-01-01'::date + w.day"
    " AND d.taken IS NULL AND d.why & 1 = 1)"
    " ON CONFLICT (point, day) DO UPDATE SET taken = NULL,"
    " since = CASE WHEN dirty_day.taken IS NULL THEN dirty_day.since ELSE now() END,"
    " why = CASE WHEN dirty_day.taken IS NULL THEN dirty_day.why | excluded.why ELSE excluded.why END"
)
MARK: Final = (
    "INSERT INTO dirty_day (point, day, why) SELECT w.point, w.day, %s"
    " FROM unnest(%s::int4[], %s::date[]) AS w(point, day)"
    " ON CONFLICT (point, day) DO UPDATE SET taken = NULL,"
    " since = CASE WHEN dirty_day.taken IS NULL THEN dirty_day.since ELSE now() END,"
    " why = CASE WHEN dirty_day.taken IS NULL THEN dirty_day.why | excluded.why ELSE excluded.why END"
)


@dataclass(frozen=True, slots=True)
class DirtyDay:
    """A point's day that must be computed again, and why."""

    point: int
    day: date
    why: Why = Why.DATA


def mark_data(connection: Connection, point: NDArray[Any], day: NDArray[Any]) -> None:
    """Points and days (since 1970) whose readings changed, doubled or not, inside the caller's transaction."""
    both = np.unique((point.astype(np.int64) << 32) | (day.astype(np.int64) + (1 << 31)))
    days = (both & 0xFFFF_FFFF) - (1 << 31)
    near = (days > -100_000) & (days < 100_000)  # a date the database can hold
    connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (DIRTY_LOCK,))
    connection.execute(DATA, [_text(both[near] >> 32), _text(days[near])])


def _text(values: NDArray[Any]) -> str:
    """An integer array in the server's notation (much quicker than adapting a list)."""
    return "{" + ",".join(map(str, values.tolist())) + "}"


def mark(connection: Connection, days: Sequence[tuple[int, date]], why: Why) -> None:
    """Mark days inside the caller's transaction, whether or not they were ever judged."""
    if days:
        connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (DIRTY_LOCK,))
        connection.execute(MARK, (int(why), [p for p, _ in days], [d for _, d in days]))


def mark_judged(connection: Connection, points: Sequence[int], first: date, last: date, why: Why) -> int:
    """Mark those days of a span that have been judged before, inside the caller's transaction; returns how many.

    To be called (or the SQL function mark_dirty) by whatever changes what a judgement rests on: archive, outages.
    """
    row = connection.execute("SELECT mark_dirty(%s::int4[], %s, %s, %s::int2)", (list(points), first, last, int(why)))
    found = row.fetchone()
    return int(found[0]) if found else 0


def close_day(connection: Connection, day: date) -> int:
    """Once a day: mark it for every measuring point in service, so that one that sent nothing is judged too."""
    with connection.transaction():
        new = connection.execute(
            "INSERT INTO vee_closed (day, points) SELECT %s, count(*) FROM point p JOIN device d ON d.id = p.device_id"
            " WHERE p.enabled AND d.enabled AND p.kind = 'measuring' ON CONFLICT DO NOTHING RETURNING points",
            (day,),
        ).fetchone()
        if new is None:
            return 0
        connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (DIRTY_LOCK,))
        connection.execute(
            "INSERT INTO dirty_day (point, day) SELECT p.id, %s FROM point p JOIN device d ON d.id = p.device_id"
            " WHERE p.enabled AND d.enabled AND p.kind = 'measuring' ON CONFLICT DO NOTHING",
            (day,),
        )
        return int(new[0])


def take_dirty_days(
    connection: Connection, limit: int = 1000, *, last: date | None = None, newest: bool = False
) -> tuple[str, list[DirtyDay]]:
    """Points of one dirty day to compute again, and a ticket for `finish_dirty_days`. Commits.

    The oldest day goes first, or with `newest` the newest; only days up to `last`. A day that was taken over an hour
    ago and not finished is handed out again (`release` does so at once).
    """
    order = b"DESC" if newest else b"ASC"
    free = b"(taken IS NULL OR taken < now() - INTERVAL '1 hour')"
    some = connection.execute(
        b"SELECT 1 FROM dirty_day WHERE (%(last)s::date IS NULL OR day <= %(last)s) AND " + free + b" LIMIT 1",
        {"last": last},
    ).fetchone()
    if some is None:  # looked at without the lock, which writers would have to wait for
        if not connection.autocommit:
            connection.commit()
        return "", []
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (DIRTY_LOCK,))
        rows = connection.execute(
            b"UPDATE dirty_day d SET taken = now() FROM (SELECT point, day FROM dirty_day WHERE " + free + b" AND day ="
            b" (SELECT day FROM dirty_day WHERE " + free + b" AND (%(last)s::date IS NULL OR day <= %(last)s)"
            b" ORDER BY day " + order + b" LIMIT 1) ORDER BY since, point LIMIT %(limit)s) w"
            b" WHERE d.point = w.point AND d.day = w.day RETURNING d.point, d.day, d.why, d.taken::text",
            {"last": last, "limit": limit},
        ).fetchall()
    if not connection.autocommit:
        connection.commit()
    return (rows[0][3] if rows else ""), sorted(
        (DirtyDay(point, day, Why(why)) for point, day, why, _ in rows), key=lambda d: d.point
    )


def finish_dirty_days(connection: Connection, ticket: str, days: Sequence[DirtyDay]) -> None:
    """Forget days that were computed, in the caller's transaction; those that became dirty again meanwhile stay."""
    connection.execute(
        "DELETE FROM dirty_day d USING unnest(%s::int4[], %s::date[]) AS w(point, day)"
        " WHERE d.point = w.point AND d.day = w.day AND d.taken = %s::timestamptz",
        ([d.point for d in days], [d.day for d in days], ticket or None),
    )


def release(connection: Connection) -> int:
    """What a daemon that is no more had taken is free again; returns how many. Commits."""
    count = connection.execute("UPDATE dirty_day SET taken = NULL WHERE taken IS NOT NULL").rowcount
    if not connection.autocommit:
        connection.commit()
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """What waits among the days that are over: how many, the age in seconds of the longest waiting."""

    days: int
    oldest_s: float


def depth(connection: Connection, last: date) -> Depth:
    """How much there is to compute again up to a day."""
    row = connection.execute(
        "SELECT count(*), coalesce(extract(epoch FROM now() - min(since)), 0)::float8 FROM dirty_day WHERE day <= %s",
        (last,),
    ).fetchone()
    assert row is not None
    return Depth(days=int(row[0]), oldest_s=max(float(row[1]), 0.0))


def take_day(connection: Connection, point: int, day: date) -> tuple[str, list[DirtyDay]]:
    """One certain dirty day, whoever else has taken it: a person waits. Commits; empty if it is not dirty."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (DIRTY_LOCK,))
        row = connection.execute(
            "UPDATE dirty_day SET taken = now() WHERE point = %s AND day = %s RETURNING taken::text, why", (point, day)
        ).fetchone()
    if not connection.autocommit:
        connection.commit()
    return (row[0], [DirtyDay(point, day, Why(row[1]))]) if row else ("", [])
