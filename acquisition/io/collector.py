"""From outcomes to the sink: what many lines yield within a moment is delivered as one record.

An outcome is told (future, `on_outcome`) only after its readings are in the sink: acknowledged means fsynced.
Bounded: when `limit_values` wait for a slow sink, `full` is true and the lines start nothing new except control.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from ...model.lang import tr
from ...model.readings import ReadingBatch
from ...model.work import Outcome, Status, WorkItem
from ..raw import join, size_of
from ..raw_curves import RawCurves, join_curves, size_of_curves

log = logging.getLogger(__name__)

LINGER_S = 0.05
RECORD_VALUES = 50_000


class Sink(Protocol):
    """The journal: `deliver` returns when the batch is on the disk."""

    async def deliver(self, batch: ReadingBatch) -> None:
        """Store one batch durably; FuheError or OSError when that is not possible."""


Tell = Callable[[WorkItem | None, Outcome], None]
Ready = tuple[WorkItem | None, Outcome, Tell]
"""An outcome on its way: `tell` is called once, after delivery (with another outcome if that failed)."""


def merge(batches: Sequence[ReadingBatch]) -> list[ReadingBatch]:
    """Few large batches of many small ones: samples are joined (see `ReadingBatch.runs`), and undecoded curves."""
    merged: list[ReadingBatch] = []
    samples: list[ReadingBatch] = []
    curves: list[ReadingBatch] = []
    for batch in batches:
        if batch.events or batch.parameters or (batch.curves and batch.samples is not None):
            merged.append(batch)
        elif isinstance(batch.curves, RawCurves) and batch.curves:
            curves.append(batch)
        elif batch.curves:
            merged.append(batch)
        elif batch.samples is not None:
            samples.append(batch)
    merged += [_join(group) for group in _groups(samples)]
    merged += [_join_curves(group) for group in _groups(curves)]
    return merged


def _groups(batches: Sequence[ReadingBatch]) -> Iterator[list[ReadingBatch]]:
    """Neighbours that together make one record."""
    group: list[ReadingBatch] = []
    values = 0
    for batch in batches:
        group.append(batch)
        values += weight(batch)
        if values >= RECORD_VALUES:
            yield group
            group, values = [], 0
    if group:
        yield group


def weight(batch: ReadingBatch | None) -> int:
    """Roughly how many values a batch holds in memory."""
    if batch is None:
        return 0
    n = size_of(batch.samples) if batch.samples is not None else 0
    if batch.curves or batch.events or batch.parameters:
        n += size_of_curves(batch.curves) + len(batch.events) + len(batch.parameters)
    return n


def _join(group: list[ReadingBatch]) -> ReadingBatch:
    samples, runs = join([b.samples for b in group if b.samples is not None])
    return ReadingBatch(
        received_us=max([b.received_us for b in group]),
        samples=samples,
        runs=[(group[i].received_us, count) for i, count in runs],
    )


def _join_curves(group: list[ReadingBatch]) -> ReadingBatch:
    curves = join_curves([b.curves for b in group if isinstance(b.curves, RawCurves)])
    return ReadingBatch(received_us=max([b.received_us for b in group]), curves=curves)


class Collector:
    """One task that delivers; everything else is bookkeeping."""

    def __init__(self, sink: Sink, on_room: Callable[[], None], *, limit_values: int = 1_000_000) -> None:
        self._sink, self._on_room, self._limit = sink, on_room, limit_values
        self._waiting: list[Ready] = []
        self._waiting_values = 0
        self._flying_values = 0
        self._wanted = asyncio.Event()
        self._linger: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.full = False  # the sink is behind: start nothing new
        self.delivered_values = 0
        self.failures = 0

    @property
    def values(self) -> int:
        """Values in memory that are not on the disk yet."""
        return self._waiting_values + self._flying_values

    def start(self) -> None:
        """Begin to deliver."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="collector")

    async def stop(self) -> None:
        """Deliver what waits, then end."""
        self._closing = True
        self._wanted.set()
        if self._task is not None:
            await self._task
        if self._linger is not None:
            self._linger.cancel()

    def add(self, item: WorkItem | None, outcome: Outcome, tell: Tell, *, urgent: bool = False) -> None:
        """Take an outcome; one without readings is told at once, an urgent one is not kept waiting for company."""
        size = weight(outcome.batch)
        if not size:
            tell(item, outcome)
            return
        self._waiting.append((item, outcome, tell))
        self._waiting_values += size
        self.full = self._waiting_values + self._flying_values >= self._limit
        if urgent or self._waiting_values >= RECORD_VALUES:
            self._wanted.set()
        elif self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._lingered)

    def _lingered(self) -> None:
        self._linger = None
        self._wanted.set()

    async def _run(self) -> None:
        while not (self._closing and not self._waiting):
            await self._wanted.wait()
            self._wanted.clear()
            ready, self._waiting = self._waiting, []
            self._flying_values, self._waiting_values = self._waiting_values, 0
            if ready:
                await self._deliver(ready)
            self.delivered_values += self._flying_values
            self._flying_values = 0
            was_full, self.full = self.full, self._waiting_values >= self._limit
            if was_full and not self.full:
                self._on_room()
            if self._closing:
                self._wanted.set()

    async def _deliver(self, ready: list[Ready]) -> None:
        reason = ""
        try:
            batches = merge([outcome.batch for _, outcome, _ in ready if outcome.batch is not None])
            if len(batches) == 1:
                await self._sink.deliver(batches[0])
            else:
                await asyncio.gather(*(self._sink.deliver(batch) for batch in batches))
        except Exception as error:  # outermost edge of this task: whatever the sink's fault, nobody may wait for ever
            self.failures += 1
            log.exception("readings could not be stored")
            reason = tr(f"readings could not be stored: {error}", f"数据无法保存: {error}")
        for item, outcome, tell in ready:
            if reason:
                outcome = replace(outcome, status=Status.BROKEN, batch=None, reason=reason, stored=None)
            tell(item, outcome)
