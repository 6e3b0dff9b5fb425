"""Gap scan and recall as the daemon runs them: the ledger in a thread of its own, the requests on the links."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg

from ..acquisition.config import CycleConfig
from ..acquisition.io.clock import Clock
from ..acquisition.io.engine import Engine
from ..acquisition.io.ledgerstore import DatabaseLedger
from ..acquisition.ledger import tracks
from ..acquisition.profile import Profile
from ..acquisition.recall import Recaller, RecallRow, ScanResult
from ..model.devices import Device
from ..model.work import Outcome, WorkItem
from ..protocols.common.errors import LinkError
from ..storage.database import Database
from ..storage.recall import release_leases

log = logging.getLogger(__name__)
T = TypeVar("T")

POLL_S = 2.0
SCAN_DAYS = 62  # how far back a scan looks at most; devices that remember longer are recalled by hand


class Recalls:
    """Scans on request, keeps up to `recall_batch` recall items on the links, writes back what came of them."""

    def __init__(self, database: Database, engine: Engine, config: CycleConfig, clock: Clock) -> None:
        self._database, self._engine, self._config, self._clock = database, engine, config, clock
        self._pool = ThreadPoolExecutor(1, "recall")
        self._connection: psycopg.Connection[object] | None = None
        self._recaller: Recaller | None = None
        self._days = 0
        self._rows: tuple[Sequence[Device], Mapping[str, Profile]] = ((), {})
        self._flying: dict[int, RecallRow] = {}
        self._settled: list[tuple[RecallRow, Outcome]] = []
        self._wake = asyncio.Event()
        self._taken_over = False
        self.last_scan: ScanResult | None = None

    def set_devices(self, devices: Sequence[Device], profiles: Mapping[str, Profile]) -> None:
        """Take over the archive in force (from the next scan on)."""
        self._rows = (devices, profiles)
        self._recaller = None

    async def scan(self) -> None:
        """One gap scan; opens and closes recall items, counts completeness."""
        result = await self._in_thread(self._scan)
        if result is not None:
            self.last_scan = result
            if result.opened or result.closed:
                log.info(
                    "gap scan", extra={"missing": result.missing, "opened": result.opened, "closed": result.closed}
                )
            self._wake.set()

    def _scan(self) -> ScanResult:
        """In the thread: with the exemptions as they are registered now."""
        recaller = self._recaller_now()
        assert self._connection is not None
        recaller.exempt(DatabaseLedger(self._connection).exemptions(self._rows[0]))
        return recaller.scan(self._clock.now_us(), self._days)

    def ended(self, item: WorkItem, outcome: Outcome) -> None:
        """An item with a recall_id has ended (engine's on_outcome)."""
        row = self._flying.pop(item.recall_id or 0, None)
        if row is not None:
            self._settled.append((row, outcome))
            self._wake.set()

    def nudge(self) -> None:
        """Something new may be due."""
        self._wake.set()

    async def run(self) -> None:
        """Lease, submit, settle, until cancelled."""
        try:
            while True:
                await self._settle()
                await self._submit()
                self._wake.clear()
                try:
                    await asyncio.wait_for(self._wake.wait(), POLL_S)
                except TimeoutError:
                    continue
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            if self._connection is not None:
                self._connection.close()

    async def _settle(self) -> None:
        settled, self._settled = self._settled, []
        if not settled:
            return
        now_us = self._clock.now_us()

        def write() -> bool:
            recaller = self._recaller_now()
            for row, outcome in settled:
                recaller.settle(row, outcome, now_us)
            return True

        if await self._in_thread(write) is None:
            log.warning(
                "%d recall results not written back; their leases run out and they are asked again", len(settled)
            )

    async def _submit(self) -> None:
        room = self._config.recall_batch - len(self._flying)
        if room <= self._config.recall_batch // 2 or self._engine.full:
            return
        if not self._taken_over and not await self._take_over():
            return
        now_us, now_s = self._clock.now_us(), self._clock.monotonic_s()
        items = await self._in_thread(lambda: self._recaller_now().due(now_us, now_s, room))
        for row, item in items or ():
            self._flying[row.id] = row
            self._engine.submit(item)

    async def _take_over(self) -> bool:
        """Once, before the first lease: what a killed daemon had on its lines is asked now, not when leases run out."""

        def release() -> int:
            self._recaller_now()
            assert self._connection is not None
            return release_leases(self._connection)

        count = await self._in_thread(release)
        self._taken_over = count is not None
        if count:
            log.info("%d recall items of the run before are due again", count)
        return self._taken_over

    def _recaller_now(self) -> Recaller:
        """In the thread: the recaller of the archive in force, on an open connection."""
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect("app", autocommit=True)
            self._recaller = None
        if self._recaller is None:
            rows = tracks(*self._rows, self._config)
            self._days = min(SCAN_DAYS, max((r.retention_days for r in rows), default=0))
            ledger = DatabaseLedger(self._connection)
            self._recaller = Recaller(rows, ledger, ledger, self._config)
        return self._recaller

    async def _in_thread(self, task: Callable[[], T]) -> T | None:
        """None when the database is away: the next round tries again."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, task)
        except (psycopg.OperationalError, LinkError) as error:
            log.warning("recall: the database is away: %s", error)
            if self._connection is not None:
                self._connection.close()
            return None
