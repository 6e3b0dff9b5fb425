"""Starts the cycles (APScheduler, one job a cycle) and hands their work items on in bounded chunks.

A start walks the cycle's phase table: what is due within 100 ms goes out together, never more than `chunk` items at
once, and `submit` keeps the walk waiting while the links' queues are full. So memory does not grow with the number of
devices or the slowness of lines; a walk that outlasts its period makes the next start be skipped, and that is counted.
Not for what the items mean (cycles.py) nor for who goes next on a link.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from ...model.times import BUSINESS_ZONE, US, from_us
from ...model.work import Outcome, WorkItem
from ..cycles import Cycle, Rhythm

Submit = Callable[[Sequence[WorkItem]], Awaitable[None]]
"""Takes a chunk; returns when the links have taken (or refused) it: the waiting is the back-pressure."""

GATHER_S: Final = 0.1
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class CycleCounters:
    """Of one job since start. missed: starts that were late beyond grace or found the walk before still running."""

    starts: int = 0
    items: int = 0
    missed: int = 0
    failed: int = 0
    last_start_us: int = 0
    last_walk_s: float = 0.0


class CycleScheduler:
    """One owner of all periodic work of the daemon. `now_us` UTC µs, `now_s` monotonic, both injectable."""

    def __init__(
        self,
        submit: Submit,
        *,
        now_us: Callable[[], int],
        now_s: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chunk: int = 256,
    ) -> None:
        self._submit, self._now_us, self._now_s, self._sleep = submit, now_us, now_s, sleep
        self._chunk = max(1, chunk)
        self._cycles: dict[str, Cycle] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._jobs = AsyncIOScheduler(timezone=BUSINESS_ZONE, job_defaults={"coalesce": True, "max_instances": 1})
        self._jobs.add_listener(self._on_event, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
        self.counters: dict[str, CycleCounters] = {}

    @property
    def cycles(self) -> tuple[Cycle, ...]:
        """The cycles in force."""
        return tuple(self._cycles.values())

    def replace(self, cycles: Iterable[Cycle]) -> None:
        """Put a new set of cycles into force (start, changed device list); walks under way finish their old table."""
        new = {c.name: c for c in cycles}
        for name in self._cycles.keys() - new.keys():
            self._jobs.remove_job(name)
        for name in new.keys() - self._cycles.keys():
            self._add(name, new[name].rhythm, functools.partial(self._walk_named, name))
        self._cycles = new

    def every(self, name: str, period_s: int, task: Callable[[], Awaitable[None]], *, offset_s: int = 0) -> None:
        """Other periodic work without devices of its own: gap scan, partition upkeep. Never two at once."""
        self._add(name, Rhythm(period_s=period_s, offset_s=offset_s), task)

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._jobs.start()

    async def stop(self) -> None:
        """Stop starting, cancel what runs and wait until it has ended."""
        self._stopping = True
        if self._jobs.running:
            self._jobs.shutdown(wait=False)
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0)  # APScheduler puts its own end behind the callbacks that are already waiting

    async def run_now(self, name: str) -> None:
        """One start of a cycle at once, by name (KeyError if there is none), walked to its end."""
        await self.walk(self._cycles[name])

    async def walk(self, cycle: Cycle) -> None:
        """One start: submit every device of the table when its phase has come."""
        counters = self.counters.setdefault(cycle.name, CycleCounters())
        now_us, begun_s = self._now_us(), self._now_s()
        start_us = cycle.rhythm.last_start_us(now_us)
        late_s = (now_us - start_us) / US
        counters.starts += 1
        counters.last_start_us = start_us
        low = 0
        while low < len(cycle):
            # elapsed by the monotonic clock: a step of the wall clock neither stops nor floods a walk
            elapsed_s = late_s + self._now_s() - begun_s
            high = min(cycle.due(elapsed_s + GATHER_S), low + self._chunk)
            if high > low:
                items = cycle.items(start_us, low, high, self._now_s())
                if items:
                    await self._submit(items)
                counters.items += len(items)
                low = high
            else:
                await self._sleep(max(GATHER_S, float(cycle.phase_s[low]) - elapsed_s))
        counters.last_walk_s = self._now_s() - begun_s

    async def _walk_named(self, name: str) -> None:
        await self.walk(self._cycles[name])

    def _add(self, name: str, rhythm: Rhythm, task: Callable[[], Awaitable[None]]) -> None:
        async def job() -> None:
            own = asyncio.current_task()
            assert own is not None
            self._running.add(own)
            try:
                await task()
            except asyncio.CancelledError:
                if not self._stopping:  # our own end is no error of the job, which APScheduler would log
                    raise
            finally:
                self._running.discard(own)

        self.counters.setdefault(name, CycleCounters())
        # without a grace period a start that comes a second late would be skipped
        grace_s = rhythm.period_s or 86_400
        self._jobs.add_job(
            job, self.trigger(rhythm), id=name, name=name, misfire_grace_time=grace_s, replace_existing=True
        )

    def trigger(self, rhythm: Rhythm) -> CronTrigger | IntervalTrigger:
        """The rhythm as APScheduler's trigger, in the business zone."""
        if rhythm.period_s is None:
            hours, minutes = divmod(rhythm.offset_s // 60, 60)
            return CronTrigger(
                day=rhythm.day, hour=hours, minute=minutes, second=rhythm.offset_s % 60, timezone=BUSINESS_ZONE
            )
        anchor = from_us(rhythm.last_start_us(self._now_us())).astimezone(BUSINESS_ZONE)
        return IntervalTrigger(seconds=rhythm.period_s, start_date=anchor, timezone=BUSINESS_ZONE)

    def _on_event(self, event: object) -> None:
        name = str(getattr(event, "job_id", ""))
        counters = self.counters.setdefault(name, CycleCounters())
        if getattr(event, "code", None) != EVENT_JOB_ERROR:
            counters.missed += 1
            _log.warning("cycle %s: a start was skipped (the one before still runs, or it came too late)", name)
        elif not isinstance(getattr(event, "exception", None), asyncio.CancelledError):
            counters.failed += 1


def bounded(submit: Callable[[WorkItem], asyncio.Future[Outcome]], in_flight: int = 20_000) -> Submit:
    """`Engine.submit` as the scheduler wants it: a chunk is taken when fewer than `in_flight` items await their end."""
    open_items: set[asyncio.Future[Outcome]] = set()

    async def take(items: Sequence[WorkItem]) -> None:
        for item in items:
            while len(open_items) >= in_flight:
                await asyncio.wait(open_items, return_when=asyncio.FIRST_COMPLETED)
            future = submit(item)
            if not future.done():
                open_items.add(future)
                future.add_done_callback(open_items.discard)

    return take
