"""One-minute supervision (domain 8.13): from a confirmed order on, candidates are read so often that control may trust.

Reads power of every round of the active plan each minute and the clock each quarter of an hour (interlocks 9 and 10
need both fresh), and keeps reading what is cut until it is restored.
"""

from __future__ import annotations

import asyncio
import logging
from math import ceil

import psycopg

from ..acquisition.io.clock import Clock
from ..acquisition.io.engine import Engine
from ..model.control import ControlAction
from ..model.work import Duty, Outcome, Priority, WorkItem
from ..protocols.common.errors import LinkError
from ..storage.database import Database
from .field import EngineField

log = logging.getLogger(__name__)

LOOK_S = 3.0
POWER_S = 60.0
CLOCK_S = 900.0
LEAST, NEW, SPREAD = 50, 500, 1.2
"""Devices asked in one look: those asked before at least so many, new ones at most so many; of all, this much more than
their even share of the minute."""

CANDIDATES = """
SELECT DISTINCT r.device_id FROM order_ o
JOIN plan p ON p.area = o.area AND p.status = 'active' JOIN plan_row r ON r.plan_id = p.id
WHERE o.state IN ('CONFIRMED', 'PLANNED', 'APPROVED', 'NOTIFYING', 'ACTIVE', 'CHANGING', 'RELEASING')
UNION
SELECT device_id FROM command
WHERE state NOT IN ('CANCELLED', 'REJECTED', 'EXPIRED', 'FAILED', 'ABANDONED', 'SUPERSEDED', 'CLOSED')
"""


class Supervision:
    """Submits the reads; run it as a task. A device that publishes by itself (no LIVE duty) just answers CANCELLED."""

    def __init__(self, database: Database, engine: Engine, field: EngineField, clock: Clock) -> None:
        self._database, self._engine, self._field, self._clock = database, engine, field, clock
        self._power_s: dict[int, float] = {}
        self._clock_s: dict[int, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self._submit(await asyncio.to_thread(self._candidates))
            except (psycopg.Error, LinkError) as error:
                log.warning("supervision: the database is away: %s", error)
            await self._clock.sleep(LOOK_S)

    def _candidates(self) -> list[int]:
        with self._database.connect(autocommit=True) as connection:
            return [row[0] for row in connection.execute(CANDIDATES)]

    def _submit(self, devices: list[int]) -> None:
        now_s = self._clock.monotonic_s()
        for last in (self._power_s, self._clock_s):
            for gone in last.keys() - set(devices):
                del last[gone]
        share, new = max(LEAST, ceil(len(devices) * SPREAD * LOOK_S / POWER_S)), NEW
        for device in sorted(devices, key=lambda d: self._power_s.get(d, 0.0)):
            known = device in self._power_s
            due = now_s - self._power_s.get(device, now_s - POWER_S) >= POWER_S
            if due and (share if known else new) > 0:  # thousands are not asked in one breath
                share, new = share - known, new - (not known)
                self._power_s[device] = now_s
                watch = self._field.watch(device)
                if watch is not None:  # power, clock and control state in one question
                    self._watch(device, watch, now_s)
                    self._clock_s[device] = now_s
                    continue
                self._read(device, Duty.LIVE, now_s)
            facts = self._field.facts(device)
            if facts is not None and facts.has_clock and now_s - self._clock_s.get(device, -CLOCK_S) >= CLOCK_S:
                self._clock_s[device] = now_s
                self._read(device, Duty.CLOCK, now_s)

    def _watch(self, device: int, action: ControlAction, now_s: float) -> None:
        asked = self._engine.submit(
            WorkItem(
                device=device, duty=Duty.CONTROL, priority=Priority.EVENT, expires_s=now_s + POWER_S, action=action,
                forced=True,
            )
        )  # fmt: skip

        def told(done: asyncio.Future[Outcome]) -> None:
            if not done.cancelled() and done.result().answer is not None:
                self._field.told(device, done.result().answer.state)  # type: ignore[union-attr]

        asked.add_done_callback(told)

    def _read(self, device: int, duty: Duty, now_s: float) -> None:
        self._engine.submit(
            WorkItem(device=device, duty=duty, priority=Priority.EVENT, expires_s=now_s + POWER_S, forced=True)
        )
