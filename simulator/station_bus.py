"""Terminals that connect to the master for themselves, over TCP or UDP: one connection each, login, redial.

`tick` drives them: it dials when a terminal wants to, sends what it says unasked, and closes what it has left. The
protocol is `terminal.link`; here are the sockets and the faults of the bus (unplugged, half_open).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import cast

from .clock import Clock
from .faults import FaultSet
from .observer import Observer
from .terminal.station import Station, TerminalLine
from .transports import Bus, Channel


class _Call(asyncio.Protocol, asyncio.DatagramProtocol):
    """The connection of one terminal."""

    def __init__(self, bus: StationBus, station: Station) -> None:
        self.bus, self.station = bus, station
        self.channel: Channel | None = None
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.channel = Channel(self.bus, self._write, TerminalLine([self.station]))
        self.bus.up(self)

    def _write(self, data: bytes) -> None:
        if self.bus.udp:
            cast(asyncio.DatagramTransport, self.transport).sendto(data)
        else:
            cast(asyncio.Transport, self.transport).write(data)

    def data_received(self, data: bytes) -> None:
        if self.channel:
            self.channel.receive(data)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        self.data_received(data)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there: the login's time-out will say so."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self.channel:
            self.channel.close()
        self.bus.down(self)

    def close(self) -> None:
        """End it in good order."""
        if self.transport:
            self.transport.close()

    def abort(self) -> None:
        """End it at once."""
        if self.transport:
            cast(asyncio.Transport, self.transport).abort()


class StationBus(Bus):
    """See the head of the module. udp: datagrams instead of connections."""

    def __init__(
        self, name: str, stations: Sequence[Station], clock: Clock, observer: Observer, faults: FaultSet,
        baud: int = 0, host: str = "127.0.0.1", port: int = 0, *, udp: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(name, TerminalLine([]), clock, observer, faults, baud)
        self.stations = list(stations)
        self.host, self.port, self.udp = host, port, udp
        self.calls: dict[str, _Call] = {}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._open = False

    @property
    def endpoint(self) -> str:
        return f"{'sends to' if self.udp else 'dials'} {self.host}:{self.port}"

    async def start(self) -> None:
        self._open = True
        self.tick(self.clock.now_us())

    async def stop(self) -> None:
        self._open = False
        for task in list(self._dialling.values()):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for call in list(self.calls.values()):
            call.abort()
        await asyncio.sleep(0)

    # --- connections ------------------------------------------------------------------------------------------

    def up(self, call: _Call) -> None:
        """A connection is there: log in."""
        self.calls[call.station.name] = call
        assert call.channel is not None
        call.channel.say(call.station.connected(self.clock.now_us()))

    def down(self, call: _Call) -> None:
        """A connection is gone."""
        if self.calls.get(call.station.name) is call:
            del self.calls[call.station.name]
        assert call.station.link is not None
        call.station.link.disconnected(self.clock.now_us())

    def tick(self, now_us: int) -> None:
        if not self._open:
            return
        unplugged = self.faults.active("unplugged", now_us) is not None
        for station in self.stations:
            call = self.calls.get(station.name)
            assert station.link is not None
            if call is not None:
                self._attend(call, station, now_us, unplugged)
            elif (
                station.name not in self._dialling
                and not unplugged
                and not station.away(now_us)
                and station.link.wants_connection(now_us)
            ):
                task = asyncio.create_task(self._dial(station), name=f"dial {station.name}")
                self._dialling[station.name] = task

    def _attend(self, call: _Call, station: Station, now_us: int, unplugged: bool) -> None:
        if unplugged or station.away(now_us):
            call.abort()
            return
        if self.cut(now_us) or call.channel is None:
            return
        call.channel.say(station.poll(now_us))
        assert station.link is not None
        if station.link.state == "leaving" and not call.channel.busy:
            call.close()

    async def _dial(self, station: Station) -> None:
        loop = asyncio.get_running_loop()
        assert station.link is not None
        try:
            if self.udp:
                await loop.create_datagram_endpoint(
                    lambda: _Call(self, station), remote_addr=(self.host, self.port), family=socket.AF_INET
                )
            else:
                await loop.create_connection(lambda: _Call(self, station), self.host, self.port, family=socket.AF_INET)
        except OSError:
            station.link.disconnected(self.clock.now_us())
        finally:
            self._dialling.pop(station.name, None)
