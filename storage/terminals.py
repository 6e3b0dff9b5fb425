"""What outlives the daemon of terminals that dial in: monthly traffic, connection history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from ..model.times import US, from_us, to_us

Connection = psycopg.Connection[Any]

ONLINE: Final = "link.online"
OFFLINE: Final = "link.offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthTraffic:
    """Traffic of a terminal in a calendar month (202611), in bytes and frames of the protocol."""

    device: int
    month: int
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_frames: int = 0
    tx_frames: int = 0


def add_traffic(connection: Connection, rows: Sequence[MonthTraffic]) -> None:
    """Add to what is there. One transaction."""
    if not rows:
        return
    with connection.transaction():
        connection.execute(
            "INSERT INTO terminal_traffic AS t (device, month, rx_bytes, tx_bytes, rx_frames, tx_frames)"
            " SELECT device, month, sum(rx_bytes), sum(tx_bytes), sum(rx_frames), sum(tx_frames)"
            " FROM json_to_recordset(%s::json) AS row (device int4, month int4, rx_bytes int8, tx_bytes int8,"
            " rx_frames int8, tx_frames int8) GROUP BY device, month ON CONFLICT (device, month) DO UPDATE SET"
            " rx_bytes = t.rx_bytes + excluded.rx_bytes, tx_bytes = t.tx_bytes + excluded.tx_bytes,"
            " rx_frames = t.rx_frames + excluded.rx_frames, tx_frames = t.tx_frames + excluded.tx_frames,"
            " updated = now()",
            (msgspec.json.encode(rows).decode(),),
        )


def load_traffic(connection: Connection, *, device: int | None = None, months: int = 13) -> list[MonthTraffic]:
    """Traffic of one device or of all, newest month first; the last `months` of each."""
    rows = connection.execute(
        "SELECT device, month, rx_bytes, tx_bytes, rx_frames, tx_frames FROM (SELECT *, row_number() OVER"
        " (PARTITION BY device ORDER BY month DESC) AS n FROM terminal_traffic WHERE %s::int4 IS NULL OR device = %s)"
        " AS t WHERE n <= %s ORDER BY month DESC, device",
        (device, device, months),
    ).fetchall()
    return [
        MonthTraffic(device=r[0], month=r[1], rx_bytes=r[2], tx_bytes=r[3], rx_frames=r[4], tx_frames=r[5])
        for r in rows
    ]


def close_connections(connection: Connection, devices: Iterable[int], seen_us: int, before_us: int, reason: str) -> int:
    """End in the history what a daemon that was killed could not: devices whose last event is "online".

    Only events before `before_us` count (what came since is a new life); the end is `seen_us`, when the daemon was last
    known to live, or the connection's own beginning. Returns how many. Commits.
    """
    with connection.transaction():
        return connection.execute(
            "INSERT INTO event (device, time, code, data, received)"
            " SELECT d, greatest(came, %s), %s, %s, now() FROM unnest(%s::int4[]) AS d,"
            " LATERAL (SELECT max(time) AS came FROM event WHERE device = d AND code = %s AND time < %s) AS o,"
            " LATERAL (SELECT max(time) AS went FROM event WHERE device = d AND code = %s AND time < %s) AS f"
            " WHERE came IS NOT NULL AND (went IS NULL OR went < came) ON CONFLICT DO NOTHING",
            (
                from_us(seen_us), OFFLINE, Jsonb({"reason": reason}), list(devices),
                ONLINE, from_us(before_us), OFFLINE, from_us(before_us),
            ),
        ).rowcount  # fmt: skip


def imported_us(connection: Connection, devices: Sequence[int]) -> Mapping[int, int]:
    """When each device came into the list; absent: before that was kept. It was not in service before."""
    rows = connection.execute(
        "SELECT id, imported FROM device WHERE id = ANY(%s) AND imported IS NOT NULL", (list(devices),)
    )
    return {device: to_us(at) for device, at in rows}


def online_seconds(connection: Connection, devices: Sequence[int], from_us_: int, to_us_: int) -> Mapping[int, float]:
    """Seconds that each device was connected in [from, to), by its history; devices without any history are absent."""
    begin, end = from_us(from_us_), from_us(to_us_)
    before = connection.execute(
        "SELECT d, came, went FROM unnest(%s::int4[]) AS d,"
        " LATERAL (SELECT max(time) AS came FROM event WHERE device = d AND code = %s AND time < %s) AS o,"
        " LATERAL (SELECT max(time) AS went FROM event WHERE device = d AND code = %s AND time < %s) AS f",
        (list(devices), ONLINE, begin, OFFLINE, begin),
    ).fetchall()
    since: dict[int, int | None] = {}
    for device, came, went in before:
        if came is not None or went is not None:
            since[device] = from_us_ if came is not None and (went is None or went < came) else None
    total: dict[int, int] = dict.fromkeys(since, 0)
    rows = connection.execute(
        "SELECT device, code, time FROM event WHERE device = ANY(%s) AND code IN (%s, %s) AND time >= %s AND time < %s"
        " ORDER BY time, id",
        (list(devices), ONLINE, OFFLINE, begin, end),
    )
    for device, code, time in rows:
        at, began = to_us(time), since.get(device)
        total.setdefault(device, 0)
        if code == OFFLINE and began is not None:
            total[device] += at - began
            since[device] = None
        elif code == ONLINE and began is None:
            since[device] = at
    for device, began in since.items():
        if began is not None:
            total[device] += to_us_ - began
    return {device: us / US for device, us in total.items()}
