"""What the daemon tells about itself, its links and devices, for `fuhe status` and for whoever takes over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from ..model.times import from_us, to_us

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """A device as the daemon sees it; times are UTC µs, clock_offset_s: device clock minus ours."""

    device: int
    online: bool = False
    last_seen_us: int | None = None
    failures: int = 0
    quarantined: bool = False
    next_probe_us: int | None = None
    clock_offset_s: float | None = None
    reason: str = ""
    detail: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonState:
    """A daemon as it last reported; a heartbeat older than a minute means that it is gone. Times are UTC µs."""

    name: str
    mode: str
    reason: str
    started_us: int
    heartbeat_us: int
    detail: Mapping[str, Any]


def _time(us: int | None) -> Any:
    return None if us is None else from_us(us)


def put_device_states(connection: Connection, states: Sequence[DeviceState]) -> None:
    """Write the states of devices, all in one statement and one transaction: half the CPU of one a device."""
    if not states:
        return
    with connection.transaction():
        connection.execute(
            "INSERT INTO device_state (device, online, last_seen, failures, quarantined, next_probe, clock_offset_s,"
            " reason, detail) SELECT device, online, timestamptz 'epoch' + last_seen_us * interval '1 microsecond',"
            " failures, quarantined, timestamptz 'epoch' + next_probe_us * interval '1 microsecond', clock_offset_s,"
            " reason, coalesce(detail, '{}') FROM json_to_recordset(%s::json) AS row (device int4, online boolean,"
            " last_seen_us int8, failures int4, quarantined boolean, next_probe_us int8, clock_offset_s float8,"
            " reason text, detail jsonb) ON CONFLICT (device) DO UPDATE SET online ="
            " excluded.online, last_seen = coalesce(excluded.last_seen, device_state.last_seen), failures ="
            " excluded.failures, quarantined = excluded.quarantined, next_probe = excluded.next_probe, clock_offset_s ="
            " coalesce(excluded.clock_offset_s, device_state.clock_offset_s), reason = excluded.reason,"
            " detail = excluded.detail, updated = now()",
            (msgspec.json.encode(states).decode(),),
        )


def load_device_states(connection: Connection) -> dict[int, DeviceState]:
    """All known states by device id."""
    rows = connection.execute(
        "SELECT device, online, last_seen, failures, quarantined, next_probe, clock_offset_s, reason, detail"
        " FROM device_state"
    ).fetchall()
    return {
        r[0]: DeviceState(
            device=r[0], online=r[1], last_seen_us=None if r[2] is None else to_us(r[2]), failures=r[3],
            quarantined=r[4], next_probe_us=None if r[5] is None else to_us(r[5]), clock_offset_s=r[6], reason=r[7],
            detail=r[8],
        )
        for r in rows
    }  # fmt: skip


def put_link_states(connection: Connection, states: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the states of links (JSON of the caller's making)."""
    if not states:
        return
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO link_state (link, state) VALUES (%s, %s) ON CONFLICT (link) DO UPDATE"
            " SET state = excluded.state, updated = now()",
            [(link, Jsonb(dict(state))) for link, state in states.items()],
        )


def load_link_states(connection: Connection) -> dict[str, dict[str, Any]]:
    """All known link states by name."""
    return dict(connection.execute("SELECT link, state FROM link_state ORDER BY link").fetchall())


def put_daemon_state(connection: Connection, state: DaemonState) -> None:
    """Report mode and heartbeat. Commits."""
    connection.execute(
        "INSERT INTO daemon_state (name, mode, reason, started, heartbeat, detail) VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (name) DO UPDATE SET mode = excluded.mode, reason = excluded.reason, started = excluded.started,"
        " heartbeat = excluded.heartbeat, detail = excluded.detail",
        (
            state.name, state.mode, state.reason, from_us(state.started_us), from_us(state.heartbeat_us),
            Jsonb(dict(state.detail)),
        ),
    )  # fmt: skip
    if not connection.autocommit:
        connection.commit()


def load_daemon_state(connection: Connection, name: str = "main") -> DaemonState | None:
    """What a daemon last reported; None if it never ran."""
    row = connection.execute(
        "SELECT name, mode, reason, started, heartbeat, detail FROM daemon_state WHERE name = %s", (name,)
    ).fetchone()
    if row is None:
        return None
    return DaemonState(
        name=row[0], mode=row[1], reason=row[2], started_us=to_us(row[3]), heartbeat_us=to_us(row[4]), detail=row[5]
    )
