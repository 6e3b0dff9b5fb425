"""Wakes control as soon as a person has asked for something: a thread that listens to NOTIFY fuhe_command.

Without the database nothing wakes; control looks by itself twice a second anyway.
"""

from __future__ import annotations

import asyncio
import logging
import threading

import psycopg

from ..protocols.common.errors import LinkError
from ..storage.database import Database

log = logging.getLogger(__name__)

CHANNEL = "fuhe_command"
LOOK_S = 0.5
RETRY_S = 2.0


class Waker:
    """`await wait(s)` returns after s seconds, or at once when a command was touched since the last wait."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._event = asyncio.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen; on the loop's thread."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._listen, args=(loop,), name="command-wake", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """The thread has ended when this returns."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def wait(self, timeout_s: float) -> None:
        """See the class."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout_s)
        except TimeoutError:
            return
        finally:
            self._event.clear()

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stop.is_set():
            try:
                with self._database.connect("app", autocommit=True) as listening:
                    listening.execute(f"LISTEN {CHANNEL}".encode())
                    while not self._stop.is_set():
                        for _ in listening.notifies(timeout=LOOK_S, stop_after=1):
                            loop.call_soon_threadsafe(self._event.set)
            except (psycopg.Error, LinkError) as error:
                log.warning("control is not woken: the database is away: %s", error)
                self._stop.wait(RETRY_S)
            except RuntimeError:  # the loop has ended before this thread
                return
