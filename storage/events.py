"""Events of devices as stored, for people, and the counts of events that are settled, for the daemon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from ..model.times import from_us, to_us

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """One row of the table; times are UTC µs. An event read before and after its end has two rows."""

    device: int
    point: int | None
    time_us: int
    end_us: int | None
    code: str
    data: dict[str, Any]
    received_us: int


def load_events(
    connection: Connection,
    devices: Sequence[int],
    since_us: int | None = None,
    until_us: int | None = None,
    limit: int = 100,
) -> list[StoredEvent]:
    """The newest events of the devices in [since, until), newest first."""
    rows = connection.execute(
        "SELECT device, point, time, end_time, code, data, received FROM event WHERE device = ANY(%s)"
        " AND (%s::timestamptz IS NULL OR time >= %s) AND (%s::timestamptz IS NULL OR time < %s)"
        " ORDER BY time DESC, code, received DESC LIMIT %s",
        (list(devices), *[_stamp(since_us)] * 2, *[_stamp(until_us)] * 2, limit),
    ).fetchall()
    return [
        StoredEvent(
            device=r[0], point=r[1], time_us=to_us(r[2]), end_us=None if r[3] is None else to_us(r[3]), code=r[4],
            data=r[5], received_us=to_us(r[6]),
        )
        for r in rows
    ]  # fmt: skip


def load_settled(connection: Connection, prefix: str) -> list[tuple[int, str, str]]:
    """(device, parameter, newest value) of all parameters whose name begins so."""
    return connection.execute(
        "SELECT DISTINCT ON (device, item) device, item, value FROM parameter WHERE starts_with(item, %s)"
        " ORDER BY device, item, time DESC",
        (prefix,),
    ).fetchall()


def _stamp(time_us: int | None) -> Any:
    return None if time_us is None else from_us(time_us)
