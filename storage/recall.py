"""Recall items and completeness figures: what is missing, who fetches it, when it is tried again, when it is lost.

An item is one range of one duty of one device. Whoever leases items gets each only once (SKIP LOCKED); a lease that is
not finished in time is handed out again. Waiting times and expiry are the caller's (domain 3.4): time is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec
import psycopg

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallItem:
    """A hole to fill: [from_us, to_us) of slot labels. rank: order of service, lower first; times are UTC µs.

    state: open | done | lost. `id` 0 = not stored yet.
    """

    id: int = 0
    device: int
    duty: str
    items: tuple[str, ...] = ()
    from_us: int
    to_us: int
    rank: int = 0
    attempts: int = 0
    next_us: int
    expires_us: int
    state: str = "open"
    reason: str = ""


_FIELDS = "id, device, duty, items, from_us, to_us, rank, attempts, next_us, expires_us, state, reason"


def _item(row: Sequence[Any]) -> RecallItem:
    values = dict(zip(_FIELDS.split(", "), row, strict=True))
    values["items"] = tuple(values["items"])
    return RecallItem(**values)


def add_recalls(connection: Connection, items: Sequence[RecallItem]) -> int:
    """Store holes; one that is already open keeps its attempts, one that was closed opens again. Returns how many.

    A lost item stays lost (the device no longer has it) until `reopen_recalls` asks for it by hand.
    """
    if not items:
        return 0
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO recall_item (device, duty, items, from_us, to_us, rank, next_us, expires_us, reason)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (device, duty, items, from_us, to_us) DO UPDATE"
            " SET state = 'open', attempts = 0, next_us = excluded.next_us, expires_us = excluded.expires_us,"
            " reason = excluded.reason, leased_us = NULL, updated = now() WHERE recall_item.state = 'done'",
            [
                (i.device, i.duty, list(i.items), i.from_us, i.to_us, i.rank, i.next_us, i.expires_us, i.reason)
                for i in items
            ],
        )
        return cursor.rowcount


def lease_recalls(
    connection: Connection, now_us: int, *, limit: int = 500, lease_s: float = 600, devices: Sequence[int] | None = None
) -> list[RecallItem]:
    """Open items that are due, most urgent and newest first, leased to the caller for `lease_s`. Commits."""
    rows = connection.execute(
        f"WITH due AS (SELECT id AS due_id FROM recall_item WHERE state = 'open' AND next_us <= %(now)s"
        f" AND (leased_us IS NULL OR leased_us <= %(now)s)"
        f" AND (%(devices)s::int4[] IS NULL OR device = ANY(%(devices)s))"
        f" ORDER BY rank, from_us DESC LIMIT %(limit)s FOR UPDATE SKIP LOCKED)"
        f" UPDATE recall_item SET leased_us = %(until)s, updated = now() FROM due WHERE id = due_id"
        f" RETURNING {_FIELDS}".encode(),
        {
            "now": now_us,
            "limit": limit,
            "until": now_us + int(lease_s * 1_000_000),
            "devices": None if devices is None else list(devices),
        },
    ).fetchall()
    if not connection.autocommit:
        connection.commit()
    return sorted(map(_item, rows), key=lambda i: (i.rank, -i.from_us, i.id))


def finish_recall(connection: Connection, item: RecallItem) -> None:
    """Write back an item that was tried: its attempts, next_us, state and reason; the lease ends. Commits."""
    connection.execute(
        "UPDATE recall_item SET attempts = %s, next_us = %s, state = %s, reason = %s, leased_us = NULL, updated = now()"
        " WHERE id = %s",
        (item.attempts, item.next_us, item.state, item.reason, item.id),
    )
    if not connection.autocommit:
        connection.commit()


def release_leases(connection: Connection) -> int:
    """Leases of a daemon that is no more: its items are due again as they were; returns how many. Commits."""
    count = connection.execute(
        "UPDATE recall_item SET leased_us = NULL, updated = now() WHERE state = 'open' AND leased_us IS NOT NULL"
    ).rowcount
    if not connection.autocommit:
        connection.commit()
    return count


def expire_recalls(connection: Connection, now_us: int, reason: str) -> int:
    """Open items past the device's memory become lost; returns how many. Commits."""
    count = connection.execute(
        "UPDATE recall_item SET state = 'lost', reason = %s, leased_us = NULL, updated = now()"
        " WHERE state = 'open' AND expires_us <= %s",
        (reason, now_us),
    ).rowcount
    if not connection.autocommit:
        connection.commit()
    return count


def reopen_recalls(connection: Connection, ids: Sequence[int], now_us: int, expires_us: int, reason: str) -> int:
    """By hand: try items again whatever their state. Commits."""
    count = connection.execute(
        "UPDATE recall_item SET state = 'open', attempts = 0, next_us = %s, expires_us = %s, reason = %s,"
        " leased_us = NULL, updated = now() WHERE id = ANY(%s)",
        (now_us, expires_us, reason, list(ids)),
    ).rowcount
    if not connection.autocommit:
        connection.commit()
    return count


def list_recalls(
    connection: Connection, *, state: str | None = None, devices: Sequence[int] | None = None, limit: int = 1000
) -> list[RecallItem]:
    """Items for `fuhe gaps`, most urgent and newest first."""
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM recall_item WHERE (%(state)s::text IS NULL OR state = %(state)s)"
        f" AND (%(devices)s::int4[] IS NULL OR device = ANY(%(devices)s))"
        f" ORDER BY rank, from_us DESC, id LIMIT %(limit)s".encode(),
        {"state": state, "devices": None if devices is None else list(devices), "limit": limit},
    ).fetchall()
    return [_item(row) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """Slots of one point, class (domain 3.1) and business day: due, got, got in the first pass, exempt."""

    point: int
    data_class: str
    day: date
    due: int
    got: int
    first_pass: int
    exempt: int = 0


def put_completeness(connection: Connection, rows: Sequence[Completeness]) -> None:
    """Store figures (the newest count wins; `first_pass` is kept once it was set), one of each key. Commits."""
    if not rows:
        return
    with connection.transaction():
        connection.execute(
            "INSERT INTO completeness (point, class, day, due, got, first_pass, exempt) SELECT point, data_class,"
            " day, due, got, first_pass, exempt FROM json_to_recordset(%s::json) AS row (point int4, data_class text,"
            " day date, due int4, got int4, first_pass int4, exempt int4)"
            " ON CONFLICT (day, class, point) DO UPDATE SET due = excluded.due, got = excluded.got,"
            " first_pass = greatest(completeness.first_pass, excluded.first_pass), exempt = excluded.exempt,"
            " updated = now()",
            (msgspec.json.encode(rows).decode(),),
        )


def load_completeness(connection: Connection, first: date, last: date) -> list[Completeness]:
    """Figures of the days first..last, ordered by day, class and point."""
    rows = connection.execute(
        "SELECT point, class, day, due, got, first_pass, exempt FROM completeness WHERE day BETWEEN %s AND %s"
        " ORDER BY day, class, point",
        (first, last),
    ).fetchall()
    return [
        Completeness(point=p, data_class=c, day=d, due=due, got=got, first_pass=f, exempt=e)
        for p, c, d, due, got, f, e in rows
    ]
