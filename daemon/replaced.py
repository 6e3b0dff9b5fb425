"""A second connection with a terminal's address has taken the first one's place: a record in the audit.

Nearly always the terminal itself has called again; but whoever can send its address can take its place, so it is a fact
of security and not only of operation. A terminal that flaps must not flood the chain: one record a terminal and hour,
with the number of times since the last. Each single time is an event of the device (`link.replaced`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from ..acquisition.io.clock import Clock
from ..control.audit import DAEMON, Entry, append
from ..model.lang import tr
from ..model.readings import DeviceEvent
from ..model.times import US, from_us, to_us
from ..protocols.common.errors import FuheError
from ..storage.database import Database

log = logging.getLogger(__name__)

EVENT: Final = "link.replaced"
ACTION: Final = "link.replaced"
EVERY_US: Final = 3600 * US
LOOK_S: Final = 1.0


@dataclass(slots=True)
class _Waiting:
    """Not recorded yet: how often, the first and the last time, who called last."""

    count: int
    first_us: int
    last_us: int
    peer: str


class ReplacedBook:
    """`saw` takes events on the event loop and only counts; `run` writes. Bounded by one entry a device."""

    def __init__(self, database: Database, clock: Clock, every_us: int = EVERY_US) -> None:
        self._database, self._clock, self._every_us = database, clock, every_us
        self._waiting: dict[int, _Waiting] = {}
        self._recorded: dict[int, int] = {}
        self._loaded = False

    def saw(self, event: DeviceEvent) -> None:
        """An event of a device passes."""
        if event.code != EVENT:
            return
        peer = str(event.data.get("peer", ""))
        known = self._waiting.get(event.device)
        if known is None:
            self._waiting[event.device] = _Waiting(1, event.time_us, event.time_us, peer)
        else:
            known.count += 1
            known.last_us, known.peer = event.time_us, peer

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(LOOK_S)
            await self.write()

    async def write(self, *, everything: bool = False) -> None:
        """Records of the terminals whose hour is over (everything: of all). What cannot be written is kept."""
        if not self._waiting:
            return
        now_us = self._clock.now_us()
        try:
            if not self._loaded:
                recorded = await asyncio.to_thread(self._in_database, lambda c: _load(c, now_us - self._every_us))
                self._recorded = recorded | self._recorded
                self._loaded = True
            due = {
                device: waiting
                for device, waiting in self._waiting.items()
                if everything or now_us - self._recorded.get(device, -self._every_us) >= self._every_us
            }
            if not due:
                return
            for device in due:
                del self._waiting[device]  # what comes while this is written counts for the next
            entries = [_entry(device, waiting) for device, waiting in sorted(due.items())]
            try:
                await asyncio.to_thread(self._in_database, lambda c: _append(c, now_us, entries))
            except BaseException:
                for device, waiting in due.items():
                    self._keep(device, waiting)
                raise
        except (psycopg.Error, FuheError) as error:
            log.warning("replaced connections not recorded yet: %s", error)
            return
        oldest = now_us - self._every_us
        self._recorded = {d: t for d, t in self._recorded.items() if t > oldest} | dict.fromkeys(due, now_us)

    def _keep(self, device: int, waiting: _Waiting) -> None:
        later = self._waiting.get(device)
        if later is not None:
            waiting.count += later.count
            waiting.last_us, waiting.peer = later.last_us, later.peer
        self._waiting[device] = waiting

    def _in_database(self, work: Callable[[psycopg.Connection[Any]], Any]) -> Any:
        with self._database.connect("app", autocommit=True) as connection:
            return work(connection)


def _entry(device: int, waiting: _Waiting) -> Entry:
    return Entry(
        actor=DAEMON,
        action=ACTION,
        object=f"device:{device}",
        after={
            "count": waiting.count,
            "first": from_us(waiting.first_us),
            "last": from_us(waiting.last_us),
            "peer": waiting.peer,
        },
        reason=tr("a second connection took the first one's place", "同一终端的新连接取代了旧连接"),
    )


def _append(conn: psycopg.Connection[Any], now_us: int, entries: Sequence[Entry]) -> None:
    with conn.transaction():
        append(conn, now_us, entries)


def _load(conn: psycopg.Connection[Any], since_us: int) -> dict[int, int]:
    """Devices with a record since then, and its instant: a daemon that starts anew keeps to the hour."""
    rows = conn.execute(
        "SELECT object, max(time) FROM audit WHERE time > %s AND action = %s GROUP BY object",
        (from_us(since_us), ACTION),
    )
    return {int(name.removeprefix("device:")): to_us(time) for name, time in rows}
