"""Fetches the records of events whose count has risen: counts come by with outcomes, the book says what to read.

One task; bounded by `MOST_FLYING` conversations and one entry a device. It begins when the journal of the run before is
in the database: only then is it known which counts are settled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import psycopg

from ..acquisition.event_book import PREFIX, EventBook, Fetched
from ..acquisition.io.clock import Clock
from ..acquisition.profile import Profile
from ..model.devices import Device
from ..model.readings import ReadingBatch
from ..model.work import Duty, EventCount, Outcome, WorkItem
from ..protocols.common.errors import FuheError, LinkError
from ..storage.database import Database
from ..storage.events import load_settled

log = logging.getLogger(__name__)

MOST_FLYING: Final = 500
WAIT_S: Final = 0.2


class Sink(Protocol):
    """The journal's side."""

    async def deliver(self, batch: ReadingBatch) -> None:
        """Durable when this returns."""


class EventFollower:
    """`ended` takes outcomes on the event loop and only notes them; `run` does the work."""

    def __init__(
        self,
        database: Database,
        caught_up: Callable[[], bool],
        submit: Callable[[WorkItem], object],
        sink: Sink,
        clock: Clock,
    ) -> None:
        self._database, self._caught_up, self._submit = database, caught_up, submit
        self._sink, self._clock = sink, clock
        self._most: dict[int, int] = {}
        self._book = EventBook(lambda device: self._most.get(device, 0))
        self._counts: dict[int, tuple[EventCount, ...]] = {}
        self._ended: list[tuple[WorkItem, Outcome]] = []
        self._wake = asyncio.Event()

    def set_devices(self, devices: Sequence[Device], profiles: Mapping[str, Profile]) -> None:
        """Take over the archive in force."""
        depth = {
            name: plan.records
            for name, profile in profiles.items()
            if (plan := profile.read.get(Duty.EVENT)) is not None
        }
        self._most = {d.id: depth.get(d.profile, 0) for d in devices}

    def ended(self, item: WorkItem, outcome: Outcome) -> None:
        """An item has ended (engine's on_outcome)."""
        if self._book.is_ours(item):
            self._ended.append((item, outcome))
        elif outcome.counts and self._most.get(item.device):
            self._counts[item.device] = outcome.counts
        else:
            return
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._load()
        while True:
            await self._wake.wait()
            self._wake.clear()
            ended, self._ended = self._ended, []
            for item, outcome in ended:
                fetched = self._book.fetched(item, outcome, self._clock.now_us())
                if fetched is not None:
                    await self._settle(fetched)
            waiting, self._counts = self._counts, {}
            for device, counts in waiting.items():
                self._begin(device, counts)

    async def _load(self) -> None:
        while True:
            if self._caught_up():
                try:
                    rows = await asyncio.to_thread(self._read)
                except (psycopg.Error, LinkError) as error:
                    log.warning("events: the database is away: %s", error)
                else:
                    self._book.load(rows)
                    return
            await self._clock.sleep(WAIT_S)

    def _read(self) -> list[tuple[int, str, str]]:
        with self._database.connect() as connection:
            return load_settled(connection, PREFIX)

    async def _settle(self, fetched: Fetched) -> None:
        if fetched.batch is not None:
            try:
                await self._sink.deliver(fetched.batch)
            except (FuheError, OSError) as error:
                log.warning("events: a count could not be kept, its records come again: %s", error)
                return
            for event in fetched.batch.events:
                log.warning("device %d: events %s: %s", fetched.device, event.code, event.data)
        self._book.settle(fetched)
        self._begin(fetched.device, fetched.counts, fetched.rounds)

    def _begin(self, device: int, counts: tuple[EventCount, ...], rounds: int = 0) -> None:
        if self._book.flying >= MOST_FLYING:
            return  # they tell their counts again in the next cycle
        item = self._book.counted(device, counts, self._clock.monotonic_s(), rounds)
        if item is not None:
            self._submit(item)
