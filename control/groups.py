"""One transaction for many: what device tasks ask of the database while one transaction runs goes together in the next.

So a thousand commands cost a few commits, and none waits for a slow device of another. All of it happens in one thread
on one connection, in the order asked; a frame leaves only after `run` has returned, behind the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg

from ..protocols.common.errors import FuheError
from .command import Command, Work
from .lease import Lease
from .records import Conn

P = ParamSpec("P")
R = TypeVar("R")
Step = Callable[[Work, list[tuple[int, Any]]], None]


@dataclass(slots=True)
class _Wish:
    step: Step
    command_id: int
    item: Any
    future: asyncio.Future[Command]


class Groups:
    """See the module. Each transaction stands under `lease`; `now_us` the time of a transaction; most: its size."""

    def __init__(self, lease: Lease, now_us: Callable[[], int], most: int = 500) -> None:
        self._lease, self._now_us, self._most = lease, now_us, most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="control-db")
        self._conn: Conn | None = None
        self._waiting: list[_Wish] = []
        self._busy = False

    async def run(self, step: Step, command_id: int, item: Any = None) -> Command:
        """`step` on this command, together with what others ask meanwhile; the command as it was committed."""
        future: asyncio.Future[Command] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Wish(step, command_id, item, future))
        if not self._busy:
            self._begin()
        return await future

    async def alone(self, work: Callable[Concatenate[Conn, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`work` in a transaction of its own. Cancelled or not, the thread finishes its transaction."""

        def inside() -> R:
            with self._leased() as conn:
                return work(conn, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, inside)

    def close(self) -> None:
        """Wait for the running transaction, then give the connection back."""
        self._thread.shutdown(wait=True)  # a cancelled step may have left a transaction running in it
        if self._conn is not None and not self._conn.closed:
            with contextlib.suppress(psycopg.Error):
                self._lease.give_back(self._conn)
        self.drop_connection()

    def drop_connection(self) -> None:
        """Begin anew with the next transaction."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _open(self) -> Conn:
        if self._conn is None or self._conn.closed:
            self._conn = self._lease.open()
        return self._conn

    @contextlib.contextmanager
    def _leased(self) -> Iterator[Conn]:
        """A transaction that renews the lease; only its commit makes the lease longer."""
        conn = self._open()
        with conn.transaction():
            begin_s = self._lease.renew(conn)
            yield conn
        self._lease.renewed(begin_s)

    def _begin(self) -> None:
        """Take what waits as one transaction; each step once, in the order in which they were first asked."""
        if not self._waiting:
            return
        self._busy = True
        batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._together, batch)
        running.add_done_callback(lambda done: self._done(batch, done))

    def _done(self, batch: list[_Wish], done: asyncio.Future[dict[int, Command | BaseException]]) -> None:
        self._busy = False
        if done.cancelled():
            error: BaseException | None = asyncio.CancelledError()
        else:
            error = done.exception()
        for n, wish in enumerate(batch):
            if wish.future.done():
                continue
            if error is not None:
                wish.future.set_exception(error)
                continue
            result = done.result()[n]
            if isinstance(result, BaseException):
                wish.future.set_exception(result)
            else:
                wish.future.set_result(result)
        self._begin()

    def _together(self, batch: list[_Wish]) -> dict[int, Command | BaseException]:
        try:
            return self._transaction(list(enumerate(batch)))
        except FuheError as error:
            if len(batch) == 1:
                return {0: error}
        # One of them cannot be: each for itself, so that the others are not held back by it.
        results: dict[int, Command | BaseException] = {}
        for n, wish in enumerate(batch):
            try:
                results |= self._transaction([(n, wish)])
            except FuheError as error:
                results[n] = error
        return results

    def _transaction(self, batch: list[tuple[int, _Wish]]) -> dict[int, Command | BaseException]:
        by_step: dict[Step, list[tuple[int, Any]]] = {}
        for _, wish in batch:
            by_step.setdefault(wish.step, []).append((wish.command_id, wish.item))
        with self._leased() as conn, Work(conn, self._now_us(), [w.command_id for _, w in batch]) as work:
            for step, items in by_step.items():
                step(work, items)
        return {n: work[wish.command_id] for n, wish in batch}
