"""Where sessions deliver readings: `await deliver(batch)` returns when the batch is fsynced in the journal.

Batches that arrive within `commit_ms` share one record and one fsync. JournalFull (a LinkError) comes back to every
caller whose batch was refused: nothing is acknowledged to the device, it is read again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future

from ..model.readings import ReadingBatch
from .batches import encode_batches
from .journal import Journal, Position

GROUP_VALUES = 50_000  # values waiting that are written at once, without waiting for commit_ms


class Sink:
    """Gathers batches of one event loop into journal records; bounded by the journal, not by a queue of its own."""

    def __init__(self, journal: Journal, commit_ms: float = 20) -> None:
        self._journal, self._delay_s = journal, commit_ms / 1000
        self._waiting: list[tuple[ReadingBatch, asyncio.Future[None]]] = []
        self._values = 0
        self._timer: asyncio.TimerHandle | None = None

    async def deliver(self, batch: ReadingBatch) -> None:
        """Durable when this returns. JournalFull: not taken."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((batch, done))
        self._values += (
            1 + (0 if batch.samples is None else len(batch.samples)) + sum(c.value.size for c in batch.curves)
        )
        if self._values >= GROUP_VALUES or self._delay_s <= 0:
            self._flush(loop)
        elif self._timer is None:
            self._timer = loop.call_later(self._delay_s, self._flush, loop)
        await done

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        group, self._waiting, self._values = self._waiting, [], 0
        if not group:
            return
        waiters = [done for _, done in group]
        future = self._journal.append(encode_batches([batch for batch, _ in group]))
        future.add_done_callback(lambda f: _tell(loop, f, waiters))


def _tell(loop: asyncio.AbstractEventLoop, future: Future[Position], waiters: Sequence[asyncio.Future[None]]) -> None:
    """Called in the journal's thread: hand the result over to the loop (which may be gone by then)."""

    def settle() -> None:
        error = future.exception()
        for done in waiters:
            if done.done():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)
