"""State of links and devices for `fuhe status`, in the database: only what has changed, and large fleets less often.

Collected on the event loop in small steps (the engine belongs to it), written in a thread. Not for readings.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from ..acquisition.io.clock import Clock
from ..acquisition.io.engine import Engine
from ..storage import state as states
from ..storage.database import Database
from .field import EngineField

ROWS_PER_S: Final = 1000  # how many links and devices are looked at in a second, on average
STEP: Final = 200  # between two breaths of the event loop


class StateBook:
    """Knows what the database was told last."""

    def __init__(self, database: Database, engine: Engine, field: EngineField, clock: Clock) -> None:
        self._database, self._engine, self._field, self._clock = database, engine, field, clock
        self._links: dict[str, dict[str, Any]] = {}
        self._devices: dict[int, int] = {}  # of each, a hash of what was told last: states themselves would be heavy
        self._next_s = 0.0

    async def write(self, daemon: states.DaemonState, *, everything: bool = False) -> None:
        """The daemon's own state, and when it is time (or `everything`) what changed of links and devices.

        psycopg.Error, LinkError: the database is away; what was to be told stays to be told.
        """
        links: dict[str, dict[str, Any]] = {}
        devices: list[states.DeviceState] = []
        marks: dict[int, int] = {}
        now_s = self._clock.monotonic_s()
        due = everything or now_s >= self._next_s
        if due:
            links = self._changed_links()
            devices, marks = await self._changed_devices()
        await asyncio.to_thread(self._put, daemon, links, devices)
        self._links |= links
        self._devices |= marks
        if due:
            self._next_s = now_s + (len(self._links) + len(self._devices)) / ROWS_PER_S

    def _changed_links(self) -> dict[str, dict[str, Any]]:
        found = {
            s.name: {
                "kind": s.kind,
                "up": s.up,
                "reason": s.reason,
                "devices": s.devices,
                "waiting": sum(s.depth),
                "oldest_s": round(s.oldest_age_s, 1),
                "quarantined": s.quarantined,
                "requests": s.counters.requests,
                "replies": s.counters.replies,
                "silences": s.counters.silences,
            }
            for s in self._engine.link_states()
        }
        return {name: state for name, state in found.items() if self._links.get(name) != state}

    async def _changed_devices(self) -> tuple[list[states.DeviceState], dict[int, int]]:
        changed: list[states.DeviceState] = []
        marks: dict[int, int] = {}
        for n, device in enumerate(self._engine.devices()):
            if n % STEP == STEP - 1:
                await asyncio.sleep(0)
            online, offset_s = bool(self._field.online(device)), self._field.clock_offset_s(device)
            mark = hash((self._engine.device_mark(device), online, offset_s))
            if self._devices.get(device) == mark:
                continue
            seen = self._engine.device_state(device)
            if seen is None:  # left the list meanwhile
                continue
            marks[device] = mark
            state = states.DeviceState(
                device=device,
                online=online,
                last_seen_us=seen.reached_us,
                failures=seen.silent,
                quarantined=seen.quarantined_us is not None,
                clock_offset_s=offset_s,
                reason=seen.unserved,
                detail=seen.detail._asdict() if seen.detail is not None else None,
            )
            changed.append(state)
        return changed, marks

    def _put(
        self, daemon: states.DaemonState, links: dict[str, dict[str, Any]], devices: list[states.DeviceState]
    ) -> None:
        with self._database.connect() as connection:
            states.put_link_states(connection, links)
            states.put_device_states(connection, devices)
            states.put_daemon_state(connection, daemon)
