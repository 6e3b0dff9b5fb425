"""What every transport is, and the read-only guard that sits below every driver.

`Transport.send` is the only way for bytes to leave; it asks the guard first. A transport reports to one `Listener` by
callbacks on the event loop's thread. A transport is used once: after `lost` its owner makes a new one.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from ....protocols.guard import is_write
from ...link import Station


class Guard:
    """No byte of a write leaves while `no_write` says so: read-only mode, or the control lease may be another's.

    What is not known to be a read is a write.
    """

    __slots__ = ("_no_write", "refused")

    def __init__(self, no_write: Callable[[], bool]) -> None:
        self._no_write = no_write
        self.refused = 0

    def blocks(self, wire: str, data: bytes) -> bool:
        """True if these bytes must not leave; counts them. `wire`: the protocol's name for `protocols.guard`."""
        if not self._no_write() or not is_write(wire, data):
            return False
        self.refused += 1
        return True


class Listener(Protocol):
    """Who owns a transport."""

    def on_open(self) -> None:
        """It is open; bytes may be sent."""

    def on_bytes(self, data: bytes) -> None:
        """Bytes came."""

    def on_lost(self, reason: str) -> None:
        """It could not be opened, or was lost; called at most once, never after `close`."""


class Transport(ABC):
    """One way to one line."""

    __slots__ = ("_guard", "_listener")
    datagrams = False  # True: what comes at once is whole frames

    def __init__(self, guard: Guard, listener: Listener | None) -> None:
        self._guard = guard
        self._listener = listener

    def send(self, station: Station, data: bytes) -> bool:
        """Send a request to a station; False = stopped by the guard, nothing left."""
        if self._guard.blocks(station.wire, data):
            return False
        self._write(station, data)
        return True

    @abstractmethod
    def open(self) -> None:
        """Begin to open; the listener hears the result."""

    @abstractmethod
    def close(self) -> None:
        """Close at once and release everything; the listener hears nothing more."""

    async def wait_closed(self) -> None:
        """Return when nothing of this transport is left in the loop (task, socket)."""
        await asyncio.sleep(0)

    @abstractmethod
    def _write(self, station: Station, data: bytes) -> None: ...

    def _lost(self, reason: str) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.on_lost(reason)
