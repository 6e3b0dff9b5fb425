"""Where simulated devices are reached: pseudo-terminals, TCP listeners, TCP dial-out (asyncio only).

One `Bus` is one line with all its devices; masters on a TCP bus each get their own stream and share the devices.
Bus faults: half_open (nothing comes any more, nothing is closed) and unplugged (connections reset, new ones refused).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tty
from collections.abc import Callable, Iterable
from pathlib import Path

from .clock import Clock
from .faults import FaultSet
from .observer import Observer
from .wire import Line, Reply, Session, Speaker

CHUNK_S = 0.01
CARRIED = 1 << 16


class Channel:
    """One stream of one bus: feeds the session and sends its replies after their delays, at the line's speed."""

    def __init__(self, bus: Bus, write: Callable[[bytes], None], line: Line | None = None) -> None:
        self._bus = bus
        self._write = write
        self._session: Session = (line or bus.line).session()
        self._timers: set[asyncio.TimerHandle] = set()
        self.closed = False

    def receive(self, data: bytes) -> None:
        bus = self._bus
        now = bus.clock.now_us()
        if bus.cut(now):
            return
        bus.observer.see(now, bus.name, "in", "", data)
        incoming = len(data) * bus.byte_s
        for reply in self._session.receive(data, now):
            self._later(incoming + reply.delay_s, reply.data, reply.device)

    def poll(self, now_us: int) -> None:
        """Send what the devices say without being asked."""
        if isinstance(self._session, Speaker) and not self._bus.cut(now_us):
            self.say(self._session.poll(now_us))

    def say(self, replies: Iterable[Reply]) -> None:
        """Send something that nobody asked for."""
        for reply in replies:
            self._later(reply.delay_s, reply.data, reply.device)

    @property
    def busy(self) -> bool:
        """Whether something is still to be sent."""
        return bool(self._timers)

    def _later(self, delay_s: float, data: bytes, device: str) -> None:
        loop = asyncio.get_running_loop()
        size = max(int(CHUNK_S / self._bus.byte_s), 1) if self._bus.byte_s else len(data) or 1
        sent = 0
        for start in range(0, len(data), size):
            part = data[start : start + size]
            sent += len(part)
            self._timer(loop, delay_s + sent * self._bus.byte_s, part, device)

    def _timer(self, loop: asyncio.AbstractEventLoop, delay_s: float, part: bytes, device: str) -> None:
        if delay_s <= 0:
            self._send(part, device)
            return

        def fire() -> None:
            self._timers.discard(handle)
            self._send(part, device)

        handle = loop.call_later(delay_s, fire)
        self._timers.add(handle)

    def _send(self, part: bytes, device: str) -> None:
        bus = self._bus
        now = bus.clock.now_us()
        if self.closed or bus.cut(now):
            return
        bus.observer.see(now, bus.name, "out", device, part)
        self._write(part)

    def close(self) -> None:
        self.closed = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


class Bus:
    """What every bus has. `baud` 0 = no pacing; a byte is 11 bits. `start` opens it, `endpoint` tells where."""

    def __init__(
        self, name: str, line: Line, clock: Clock, observer: Observer, faults: FaultSet, baud: int = 0
    ) -> None:
        self.name = name
        self.line = line
        self.clock = clock
        self.observer = observer
        self.faults = faults
        self.byte_s = 11 / baud if baud else 0.0

    @property
    def endpoint(self) -> str:
        """Where a master finds it."""
        raise NotImplementedError

    async def start(self) -> None:
        """Open it."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Close it and everything on it."""
        raise NotImplementedError

    def tick(self, now_us: int) -> None:
        """Called a few times a second: carry out faults that nobody's bytes trigger."""

    def cut(self, now_us: int) -> bool:
        """Whether nothing passes (half_open, unplugged)."""
        return bool(self.faults.active("half_open", now_us) or self.faults.active("unplugged", now_us))


class PtyBus(Bus):
    """A serial line as a pseudo-terminal. `symlink`: a path that will point to the terminal's slave side."""

    def __init__(
        self, name: str, line: Line, clock: Clock, observer: Observer, faults: FaultSet, baud: int = 0,
        symlink: Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, line, clock, observer, faults, baud)
        self._symlink = symlink
        self._master = self._slave = -1
        self._path = ""
        self._channel: Channel | None = None

    @property
    def endpoint(self) -> str:
        return str(self._symlink) if self._symlink else self._path

    async def start(self) -> None:
        self._master, self._slave = os.openpty()  # the slave stays open here, or the master would see EIO
        tty.setraw(self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._path = os.ttyname(self._slave)
        if self._symlink:
            self._symlink.parent.mkdir(parents=True, exist_ok=True)
            self._symlink.unlink(missing_ok=True)
            self._symlink.symlink_to(self._path)
        self._channel = Channel(self, self._write)
        asyncio.get_running_loop().add_reader(self._master, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._master, CARRIED)
        except (BlockingIOError, OSError):
            return
        if data and self._channel:
            self._channel.receive(data)

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(BlockingIOError):  # nobody reads the line: the bytes are lost, as on a real one
            os.write(self._master, data)

    async def stop(self) -> None:
        if self._master < 0:
            return
        asyncio.get_running_loop().remove_reader(self._master)
        if self._channel:
            self._channel.close()
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1
        if self._symlink:
            self._symlink.unlink(missing_ok=True)


class _Connection(asyncio.Protocol):
    __slots__ = ("bus", "channel", "greeting", "transport")

    def __init__(self, bus: TcpBus | DialBus) -> None:
        self.bus = bus
        self.channel: Channel | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.bus.faults.active("unplugged", self.bus.clock.now_us()):
            transport.abort()
            return
        self.channel = Channel(self.bus, transport.write)
        self.bus.connections.add(self)
        self.bus.connected(self)

    def data_received(self, data: bytes) -> None:
        if self.channel:
            self.channel.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.bus.connections.discard(self)
        if self.channel:
            self.channel.close()
        self.bus.disconnected(self)

    def abort(self) -> None:
        if self.transport:
            self.transport.abort()


class _SocketBus(Bus):
    def __init__(
        self, name: str, line: Line, clock: Clock, observer: Observer, faults: FaultSet, baud: int = 0
    ) -> None:
        super().__init__(name, line, clock, observer, faults, baud)
        self.connections: set[_Connection] = set()

    def connected(self, connection: _Connection) -> None:
        """A connection is up."""

    def disconnected(self, connection: _Connection) -> None:
        """A connection is gone."""

    def tick(self, now_us: int) -> None:
        if self.connections and self.faults.active("unplugged", now_us):
            for connection in list(self.connections):
                connection.abort()
        for connection in self.connections:
            if connection.channel:
                connection.channel.poll(now_us)


class TcpBus(_SocketBus):
    """A listener: a serial server or a Modbus TCP device. port 0 = any free one; `endpoint` then tells."""

    def __init__(
        self, name: str, line: Line, clock: Clock, observer: Observer, faults: FaultSet, baud: int = 0,
        host: str = "127.0.0.1", port: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(name, line, clock, observer, faults, baud)
        self.host, self.port = host, port
        self._server: asyncio.Server | None = None

    @property
    def endpoint(self) -> str:
        return f"{self.host}:{self.port}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), self.host, self.port, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for connection in list(self.connections):
            connection.abort()
        self._server = None
        await asyncio.sleep(0)


class DialBus(_SocketBus):
    """A DTU that connects to the master, says who it is (`registration`) and beats every `heartbeat_s`."""

    def __init__(
        self, name: str, line: Line, clock: Clock, observer: Observer, faults: FaultSet, baud: int = 0,
        host: str = "127.0.0.1", port: int = 0, registration: bytes = b"", heartbeat: bytes = b"",
        heartbeat_s: float = 60.0, retry_s: float = 2.0,
    ) -> None:  # fmt: skip
        super().__init__(name, line, clock, observer, faults, baud)
        self.host, self.port = host, port
        self.registration, self.heartbeat = registration, heartbeat
        self.heartbeat_s, self.retry_s = heartbeat_s, retry_s
        self._task: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()

    @property
    def endpoint(self) -> str:
        return f"dials {self.host}:{self.port}"

    def connected(self, connection: _Connection) -> None:
        if self.registration and connection.transport:
            self.observer.see(self.clock.now_us(), self.name, "out", "", self.registration)
            connection.transport.write(self.registration)

    def disconnected(self, connection: _Connection) -> None:
        self._gone.set()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"dial {self.name}")

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._gone.clear()
            try:
                await loop.create_connection(lambda: _Connection(self), self.host, self.port, family=socket.AF_INET)
            except OSError:
                await asyncio.sleep(self.retry_s)
                continue
            while not self._gone.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.heartbeat_s):  # wait_for could swallow our own cancellation
                        await self._gone.wait()
                if not self._gone.is_set() and self.heartbeat:
                    self._beat()
            await asyncio.sleep(self.retry_s)

    def _beat(self) -> None:
        if self.faults.active("half_open", self.clock.now_us()):
            return
        for connection in self.connections:
            if connection.transport:
                self.observer.see(self.clock.now_us(), self.name, "out", "", self.heartbeat)
                connection.transport.write(self.heartbeat)

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)
