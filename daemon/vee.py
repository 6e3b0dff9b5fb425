"""The daemon's VEE: closes each day once it is over, and computes dirty days again, a chunk at a time.

Only days that are over are judged: what is missing on a running day is not missing yet, and a version a quarter of an
hour would be a journal, not a layer. Acquisition goes first: while the journal is behind nothing is computed, and after
each chunk the task rests at least as long as the chunk took. Days go in their order, because later ones take their like
days from earlier ones; with a long backlog oldest and newest take turns, so that it does not keep yesterday waiting.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import psycopg

from ..acquisition.io.clock import Clock
from ..model.times import US, business_day
from ..protocols.common.errors import LinkError
from ..storage.database import Database
from ..storage.dirty import Depth, DirtyDay, close_day, depth, release, take_dirty_days
from .vee_facts import ArchiveBook, Book
from .vee_judge import Judge, Search

log = logging.getLogger(__name__)

POLL_S: Final = 5.0
CLOSE_S: Final = 1800  # after midnight a day is over: freezes and the last hourly curves have come
CHUNK: Final = 400  # points of one day at once: some 50 MB of arrays
BEHIND: Final = 200  # records in the journal above which reading goes first
BACKLOG: Final = 10 * CHUNK  # days above which the newest take turns with the oldest
REST: Final = 1.0  # rest after a chunk, in times of what it took
DEPTH_S: Final = 30.0
POISON: Final = (ValueError, OverflowError, psycopg.DataError)


@dataclass(slots=True)
class VeeCounters:
    """Since start, and what waits now."""

    days: int = 0
    versions: int = 0
    chunks: int = 0
    failed: int = 0
    last_chunk_s: float = 0.0
    waiting: int = 0
    oldest_s: float = 0.0


def last_closed(now_us: int) -> date:
    """The newest day that is over."""
    return business_day(now_us - CLOSE_S * US) - timedelta(days=1)


class VeeKeeper:
    """`run` as a task; the work is in a thread of its own. `step` by hand in tests and benches."""

    def __init__(
        self, database: Database, clock: Clock, *, book: Book | None = None, behind: Callable[[], int] = lambda: 0,
        retention_days: int = 1100, search: Search = lambda connection, judged: [],
    ) -> None:  # fmt: skip
        """`behind`: records that wait in the journal."""
        self.counters = VeeCounters()
        self._database, self._clock, self._behind = database, clock, behind
        self._judge = Judge(
            book or ArchiveBook(), timescale=database.timescale, retention_days=retention_days, search=search
        )
        self._pool = ThreadPoolExecutor(1, "vee")
        self._connection: psycopg.Connection[Any] | None = None
        self._taken_over = False
        self._closed: date | None = None
        self._newest = False
        self._looked_s = -1e9

    async def run(self) -> None:
        """Until cancelled; the database being away only puts it off."""
        try:
            while True:
                pause_s = POLL_S
                if self._behind() <= BEHIND:
                    try:
                        took_s = await asyncio.get_running_loop().run_in_executor(self._pool, self.step)
                    except (psycopg.OperationalError, LinkError) as error:
                        log.warning("vee: the database is away: %s", error)
                        self.close()
                    else:
                        pause_s = POLL_S if took_s is None else took_s * REST
                await self._clock.sleep(pause_s)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self.close()

    def close(self) -> None:
        """Close the connection (it is opened again when needed)."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def step(self) -> float | None:
        """One chunk; seconds it took, None if nothing waits."""
        connection = self._connected()
        last = last_closed(self._clock.now_us())
        if self._closed != last:
            marked = close_day(connection, last)
            self._closed = last
            if marked:
                log.info("day %s is over: %d points to be judged", last, marked)
        begun = time.perf_counter()
        if begun - self._looked_s > DEPTH_S:
            self._look(depth(connection, last))
            self._looked_s = begun
        ticket, dirty = take_dirty_days(connection, CHUNK, last=last, newest=self._newest)
        self._newest = not self._newest and self.counters.waiting > BACKLOG
        if not dirty:
            self._look(Depth(days=0, oldest_s=0.0))
            return None
        self._chunk(connection, ticket, dirty, business_day(self._clock.now_us()))
        self.counters.last_chunk_s = time.perf_counter() - begun
        return self.counters.last_chunk_s

    def drain(self, limit: int = 10_000) -> int:
        """Chunks until nothing waits; returns how many."""
        for n in range(limit):
            if self.step() is None:
                return n
        return limit

    def _look(self, found: Depth) -> None:
        self.counters.waiting, self.counters.oldest_s = found.days, found.oldest_s

    def _chunk(self, connection: psycopg.Connection[Any], ticket: str, dirty: Sequence[DirtyDay], today: date) -> None:
        """A chunk that cannot be computed for what it contains is tried point by point; what remains waits an hour."""
        try:
            done = self._judge.chunk(connection, ticket, dirty, today)
        except POISON as error:
            if len(dirty) == 1:
                self.counters.failed += 1
                log.error("point %d, day %s cannot be judged: %s", dirty[0].point, dirty[0].day, error)
                return
            log.warning(
                "a chunk of %d points of %s failed, taking them one by one: %s", len(dirty), dirty[0].day, error
            )
            for one in dirty:
                self._chunk(connection, ticket, [one], today)
            return
        self.counters.chunks += 1
        self.counters.days += done.days
        self.counters.versions += done.versions

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect("app", autocommit=True)
        if not self._taken_over:
            count = release(self._connection)
            self._taken_over = True
            if count:
                log.info("vee: %d days of the run before are taken up again", count)
        return self._connection
