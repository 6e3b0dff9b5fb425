"""What the daemon keeps of terminals beyond its own life: traffic by month, broken-off history."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import psycopg

from ..acquisition.io.clock import Clock
from ..acquisition.io.engine import Engine
from ..model.lang import tr
from ..protocols.common.errors import LinkError
from ..storage import state as states
from ..storage import terminals as table
from ..storage.database import Database

log = logging.getLogger(__name__)

TRAFFIC_S: Final = 900.0
STEP: Final = 500  # terminals between two breaths of the event loop
DRAIN_S: Final = 60.0
LOOK_S: Final = 0.2


class TerminalBook:
    """Run it as a task; `stop` writes what is left."""

    def __init__(self, database: Database, engine: Engine, clock: Clock, journal_depth: Callable[[], int]) -> None:
        self._database, self._engine, self._clock, self._depth = database, engine, clock, journal_depth
        self._started_us = clock.now_us()
        self._last_life_us: int | None = None

    def load(self) -> None:
        """In a thread, before the first report of this life: when the last one ended."""
        with self._database.connect(autocommit=True) as connection:
            last = states.load_daemon_state(connection)
            self._last_life_us = last.heartbeat_us if last is not None else None

    async def run(self) -> None:
        """Until cancelled."""
        await self._close_history()
        while True:
            await self._clock.sleep(TRAFFIC_S)
            await self.write()

    async def write(self) -> None:
        """Traffic since the last time; what the database does not take is offered again."""
        now_us, rows, taken = self._clock.now_us(), [], []
        for n, device in enumerate(self._engine.devices()):
            if n % STEP == STEP - 1:
                await asyncio.sleep(0)
            session = self._engine.session(device)
            traffic = session.take_traffic(now_us) if session is not None else []
            if session is not None and traffic:
                taken.append((session, traffic))
                rows += [table.MonthTraffic(device=device, **month._asdict()) for month in traffic]
        if not rows:
            return
        try:
            await asyncio.to_thread(self._in_database, lambda c: table.add_traffic(c, rows))
        except (psycopg.Error, LinkError) as error:
            for session, traffic in taken:
                session.give_back(traffic)
            log.warning("traffic of %d terminals put off: %s", len(taken), error)

    async def _close_history(self) -> None:
        """Connections that a killed daemon left open, once the journal's rest of that life is in the database."""
        if not self._last_life_us:
            return
        deadline = self._clock.monotonic_s() + DRAIN_S
        while self._depth() and self._clock.monotonic_s() < deadline:
            await self._clock.sleep(LOOK_S)
        devices = [d for d in self._engine.devices() if self._engine.session(d) is not None]
        seen_us, reason = self._last_life_us, tr("the daemon ended without notice", "守护进程异常终止")
        try:
            closed = await asyncio.to_thread(
                self._in_database,
                lambda c: table.close_connections(c, devices, seen_us, self._started_us, reason),
            )
        except (psycopg.Error, LinkError) as error:
            log.warning("connection history not completed: %s", error)
            return
        if closed:
            log.info("connections of the last run ended in the history", extra={"terminals": closed})

    def _in_database(self, work: Callable[[psycopg.Connection[Any]], Any]) -> Any:
        with self._database.connect(autocommit=True) as connection:
            return work(connection)
