"""What people ask the running daemon for (table `request`): read a device now, recall a range, reload the archive."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import psycopg

from ..acquisition.io.clock import Clock
from ..acquisition.io.engine import Engine
from ..acquisition.requests import (
    CLOCK,
    DEVICES,
    SETTINGS,
    UNKNOWN,
    answer_of,
    item_of,
    settings_answer,
    settings_of,
    unknown_answer,
)
from ..model.control import Setting
from ..model.devices import Device
from ..model.lang import tr
from ..model.work import Outcome
from ..protocols.common.errors import FuheError, LinkError, UsageError
from ..storage import requests as table
from ..storage.database import Database

log = logging.getLogger(__name__)

Answer = dict[str, Any]


class RequestServer:
    """A thread listens, the loop answers; every request is answered, also with what went wrong."""

    def __init__(
        self,
        database: Database,
        engine: Engine,
        clock: Clock,
        devices: Callable[[], Mapping[int, Device]],
        reload: Callable[[], Awaitable[str]],
        set_clock: Callable[[int, object], Awaitable[Outcome]],
        read_settings: Callable[[int, tuple[Setting, ...]], Awaitable[Outcome]],
    ) -> None:
        self._database, self._engine, self._clock = database, engine, clock
        self._devices, self._reload, self._set_clock = devices, reload, set_clock
        self._read_settings = read_settings
        self._stop = threading.Event()

    async def run(self) -> None:
        """Until cancelled; the listening thread is joined."""
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._listen, args=(loop,), name="requests", daemon=True)
        thread.start()
        try:
            await loop.create_future()
        finally:
            self._stop.set()
            await asyncio.to_thread(thread.join)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stop.is_set():
            try:
                with self._database.connect("app", autocommit=True) as listening:
                    for asked in table.listen(listening, self._stop.is_set):
                        for request in asked:
                            future = asyncio.run_coroutine_threadsafe(self._serve(request), loop)
                            future.add_done_callback(lambda f, r=request: self._answered(r, f))  # type: ignore[misc]
            except (psycopg.OperationalError, LinkError) as error:
                log.warning("requests: the database is away: %s", error)
                self._stop.wait(2.0)

    def _answered(self, request: table.Request, future: Future[tuple[Answer, bool]]) -> None:
        """On the loop's thread when the answer is there: written from a helper thread, the loop never waits."""
        if not future.cancelled():
            threading.Thread(target=self._write, args=(request.id, *future.result()), daemon=True).start()

    def _write(self, request_id: int, value: Answer, failed: bool) -> None:
        try:
            with self._database.connect("app", autocommit=True) as connection:
                table.answer(connection, request_id, value, failed=failed)
        except (psycopg.Error, LinkError) as error:
            log.warning("request %d could not be answered: %s", request_id, error)

    async def _serve(self, request: table.Request) -> tuple[Answer, bool]:
        try:
            if request.kind == DEVICES:
                return {"text": await self._reload()}, False
            if request.kind == UNKNOWN:
                return unknown_answer(self._engine.terminals.unknown), False
            if request.device is None or request.device not in self._devices():
                raise UsageError(tr("no such device: see `fuhe device list`", "没有该设备: 见 fuhe device list"))
            if request.kind == CLOCK:
                return answer_of(await self._set_clock(request.device, request.params.get("audit"))), False
            if request.kind == SETTINGS:
                return settings_answer(await self._read_settings(request.device, settings_of(request.params))), False
            item = item_of(request.kind, request.device, request.params, self._clock.monotonic_s())
            return answer_of(await self._engine.submit(replace(item, forced=True))), False
        except FuheError as error:
            return {"error": str(error)}, True
        except Exception as error:  # outermost edge: whoever asked must get an answer
            log.exception("request %d (%s) failed", request.id, request.kind)
            return {"error": f"{type(error).__name__}: {error}"}, True
