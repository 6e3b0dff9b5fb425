"""A fleet of light terminals in one process: logins at a rate, heartbeats, answers (asyncio.Protocol, no task each).

No timer and no task for each terminal: one loop looks at queues of what is due. Over UDP many terminals share a socket
and are told apart by the address in the frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Final

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from ..protocols.qgdw1376.formats import make_format
from ..protocols.qgdw1376.frame import Address, Frame, Framer
from .light import LightWorld

SPARE_FILES: Final = 64
TICK_S: Final = 0.05
LOGIN_TIMEOUT_S: Final = 10.0
LOGIN_TRIES: Final = 3
REDIAL_S: Final = 15.0
DIALLING: Final = 512
UDP_SOCKETS: Final = 64
PORTS_AN_ADDRESS: Final = 4000
IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h; the port is chosen when both ends are known
MAX_FRAME: Final = 4096
READS: Final = frozenset({0x0C, 0x0D})
DOWN, LOGIN, ONLINE = 0, 1, 2
GOLDEN: Final = 0.6180339887

_CLOCK: Final = make_format("A.1")[0].encode


@dataclass(slots=True)
class Figures:
    """What happened. login_s: from the first dial until all were logged in (None: not yet)."""

    logged_in: int = 0
    logins: int = 0
    refused: int = 0
    heartbeats: int = 0
    confirmed: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    trips: int = 0
    closed: int = 0
    dial_errors: int = 0
    login_s: float | None = None


class LightTerminal(asyncio.Protocol):
    """One terminal: its number, connection and state. heard: since when nothing was heard of the master."""

    __slots__ = ("fleet", "number", "rest", "seq", "serial", "state", "status", "transport", "tries", "waiting")

    def __init__(self, fleet: LightFleet, number: int) -> None:
        self.fleet, self.number = fleet, number
        self.transport: asyncio.Transport | None = None
        self.rest = b""
        self.seq = self.serial = self.state = self.tries = 0
        self.status = DOWN
        self.waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.fleet.up(self)

    def data_received(self, data: bytes) -> None:
        self.rest = self.fleet.received(self, self.rest + data if self.rest else data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.fleet.down(self)

    def send(self, wire: bytes) -> None:
        """Over its connection, or the socket that it shares."""
        fleet = self.fleet
        fleet.figures.bytes_out += len(wire)
        if fleet.udp:
            fleet.datagrams[self.number % len(fleet.datagrams)].sendto(wire)
        elif self.transport is not None:
            self.transport.write(wire)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, fleet: LightFleet) -> None:
        self.fleet = fleet

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.fleet.received(None, data)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens yet."""


class LightFleet:
    """See the head of the module. heartbeat_s 0: none. login_rate: logins begun in a second, 0 = all at once."""

    def __init__(
        self, world: LightWorld, terminals: int, host: str, port: int, *, udp: bool = False, login_rate: float = 500.0,
        heartbeat_s: float = 300.0, region: str = "3301", first: int = 1,
    ) -> None:  # fmt: skip
        if not udp:
            _room_for(terminals)
        self.world, self.host, self.port, self.udp = world, host, port, udp
        self.login_rate, self.heartbeat_s = login_rate, heartbeat_s
        self.figures = Figures()
        self.terminals = [LightTerminal(self, first + i) for i in range(terminals)]
        self.datagrams: list[asyncio.DatagramTransport] = []
        self._addresses = [world.address(t.number, region) for t in self.terminals]
        self._first = first
        self._by_address = {(a.a1, a.a2): t for a, t in zip(self._addresses, self.terminals, strict=True)}
        self._framer = Framer(limit=MAX_FRAME)
        self._beats: list[tuple[float, int, int]] = []
        self._timeouts: deque[tuple[float, LightTerminal, int]] = deque()
        self._redials: deque[tuple[float, LightTerminal]] = deque()
        self._dialling: set[asyncio.Task[None]] = set()
        self._next, self._began, self._budget = 0, 0.0, 0.0
        self._closing = False

    def members(self) -> Iterable[tuple[LightTerminal, Address]]:
        """Every terminal with its address."""
        return zip(self.terminals, self._addresses, strict=True)

    # --- running ----------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, progress: Callable[[], None] | None = None, every_s: float = 1.0) -> None:
        """Until `stop` is set."""
        loop = asyncio.get_running_loop()
        if self.udp:
            for _ in range(min(UDP_SOCKETS, len(self.terminals))):
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), remote_addr=(self.host, self.port), family=socket.AF_INET
                )
                self.datagrams.append(transport)
        self._began = loop.time()
        last = shown = self._began
        try:
            while not stop.is_set():
                now = loop.time()
                self._tick(now, now - last)
                last = now
                if progress is not None and now - shown >= every_s:
                    shown = now
                    progress()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await stop.wait()
        finally:
            await self._end()

    async def _end(self) -> None:
        self._closing = True
        for task in list(self._dialling):
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        for terminal in self.terminals:
            if terminal.transport is not None:
                terminal.transport.abort()
        for transport in self.datagrams:
            transport.close()
        await asyncio.sleep(0)

    def _tick(self, now: float, gone: float) -> None:
        self._budget = min(self._budget + gone * self.login_rate, self.login_rate) if self.login_rate else 1e9
        while self._redials and self._redials[0][0] <= now and self._free():
            self._dial(self._redials.popleft()[1])
        while self._next < len(self.terminals) and self._free():
            self._dial(self.terminals[self._next])
            self._next += 1
        while self._timeouts and self._timeouts[0][0] <= now:
            _, terminal, serial = self._timeouts.popleft()
            if terminal.waiting and terminal.serial == serial:
                self._unanswered(terminal, now)
        while self._beats and self._beats[0][0] <= now:
            due, number, serial = heappop(self._beats)
            terminal = self.terminals[number - self._first]
            if terminal.status == ONLINE and terminal.serial == serial:
                self._beat(terminal, due)

    def _free(self) -> bool:
        if self._budget < 1 or len(self._dialling) >= DIALLING:
            return False
        self._budget -= 1
        return True

    # --- connections ------------------------------------------------------------------------------------------

    def _dial(self, terminal: LightTerminal) -> None:
        if self.udp:
            self.up(terminal)
            return
        task = asyncio.create_task(self._connect(terminal))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _connect(self, terminal: LightTerminal) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET)
        try:
            sock.setblocking(False)
            if self.host.startswith("127."):  # thousands of ports of one pair of addresses are slow to find
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((f"127.0.{terminal.number // PORTS_AN_ADDRESS % 250 + 1}.1", 0))
            await loop.sock_connect(sock, (self.host, self.port))
            await loop.create_connection(lambda: terminal, sock=sock)
        except OSError:
            sock.close()
            self.figures.dial_errors += 1
            self._redials.append((loop.time() + REDIAL_S, terminal))

    def up(self, terminal: LightTerminal) -> None:
        """Connected: log in."""
        terminal.status, terminal.tries, terminal.rest = LOGIN, 0, b""
        terminal.serial += 1
        self._login(terminal, asyncio.get_running_loop().time())

    def down(self, terminal: LightTerminal) -> None:
        """The connection is gone."""
        if not self._closing:  # what was so at the end stays in the figures
            self._offline(terminal)
            self.figures.closed += 1
            self._redials.append((asyncio.get_running_loop().time() + REDIAL_S, terminal))

    def _offline(self, terminal: LightTerminal) -> None:
        self.figures.logged_in -= terminal.status == ONLINE
        terminal.status, terminal.waiting = DOWN, False

    def _login(self, terminal: LightTerminal, now: float) -> None:
        terminal.tries += 1
        self.figures.logins += 1
        self._ask(terminal, b"\x01\x00", b"", now)

    def _beat(self, terminal: LightTerminal, now: float) -> None:
        self.figures.heartbeats += 1
        world = self.world
        local = world.template.parts.local(world.clock.now_us())
        self._ask(terminal, b"\x04\x00", _CLOCK(local, 6) if world.edition.heartbeat_clock else b"", now)

    def _ask(self, terminal: LightTerminal, dt: bytes, data: bytes, now: float) -> None:
        terminal.seq = (terminal.seq + 1) & 0x0F
        terminal.waiting = True
        user = b"\x02%c\x00\x00%b%b" % (0x70 | terminal.seq, dt, data)
        address = self._addresses[terminal.number - self._first]
        terminal.send(Frame(0xC9, address, user, self.world.edition.protocol_id).encode())
        self._timeouts.append((now + LOGIN_TIMEOUT_S, terminal, terminal.serial))

    def _unanswered(self, terminal: LightTerminal, now: float) -> None:
        if terminal.tries < LOGIN_TRIES:
            if terminal.status == ONLINE:
                terminal.tries += 1
                self._beat(terminal, now)
            else:
                self._login(terminal, now)
        elif self.udp:
            self._offline(terminal)
            self._redials.append((now + REDIAL_S, terminal))
        elif terminal.transport is not None:
            terminal.transport.abort()

    # --- frames -----------------------------------------------------------------------------------------------

    def received(self, terminal: LightTerminal | None, data: bytes) -> bytes:
        """Bytes of the master; what is left of them."""
        self.figures.bytes_in += len(data)
        framer = self._framer
        framer.reset()
        framer.feed(data)
        while True:
            event = framer.next_event()
            if isinstance(event, Frame):
                owner = self._by_address.get((event.address.a1, event.address.a2))
                if owner is not None and terminal in (None, owner) and not event.up and len(event.user) >= 2:
                    self._take(owner, event)
            elif not hasattr(event, "count"):
                return data[len(data) - len(framer) :] if len(framer) else b""

    def _take(self, terminal: LightTerminal, frame: Frame) -> None:
        if not frame.prm:
            self._confirmed(terminal, frame)
            return
        self._request(terminal, frame)

    def _confirmed(self, terminal: LightTerminal, frame: Frame) -> None:
        if not terminal.waiting or frame.user[0] != 0:
            return
        if frame.user[4:5] == b"\x02":  # refused: the time-out asks again
            self.figures.refused += 1
            return
        terminal.waiting, terminal.tries = False, 0
        now, share = asyncio.get_running_loop().time(), 1.0
        if terminal.status == LOGIN:
            share = 0.5 + terminal.number * GOLDEN % 0.5  # logins in a crowd are not followed by beats in a crowd
            terminal.status = ONLINE
            self.figures.logged_in += 1
            if self.figures.logged_in == len(self.terminals) and self.figures.login_s is None:
                self.figures.login_s = now - self._began
        else:
            self.figures.confirmed += 1
        if self.heartbeat_s:
            heappush(self._beats, (now + self.heartbeat_s * share, terminal.number, terminal.serial))

    def _request(self, terminal: LightTerminal, frame: Frame) -> None:
        world, figures = self.world, self.figures
        afn, tag, asked = world.asked(frame)
        figures.requests[f"{afn:02X}"] += 1
        if afn in READS:
            wires = world.data(frame, frame.address.a2, terminal.state, afn, tag, asked)
        elif afn == 0x05:
            state = world.commanded(terminal.state, asked)
            if state is not None:
                figures.trips += (state & ~terminal.state & 0x7F).bit_count()
                terminal.state = state
            wires = [world.said(frame, ok=state is not None, tag=tag)]
        else:
            wires = world.more(frame, terminal.state, afn, tag, asked)
        figures.frames_out += len(wires)
        for wire in wires if self.udp else [b"".join(wires)]:
            terminal.send(wire)

    # --- figures ----------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, object]:
        """Everything counted, for `--json` and the end."""
        f = self.figures
        return {
            "terminals": len(self.terminals),
            "points": len(self.terminals) * self.world.points,
            "seconds": round(time.monotonic() - self._began, 1) if self._began else 0.0,
            "logged_in": f.logged_in,
            "login_s": None if f.login_s is None else round(f.login_s, 2),
            "logins": f.logins,
            "logins_refused": f.refused,
            "heartbeats": f.heartbeats,
            "heartbeats_confirmed": f.confirmed,
            "requests": dict(sorted(f.requests.items())),
            "frames_out": f.frames_out,
            "bytes_in": f.bytes_in,
            "bytes_out": f.bytes_out,
            "trips": f.trips,
            "rounds_open": sum((t.state & 0x7F).bit_count() for t in self.terminals),
            "connections_lost": f.closed,
            "dial_errors": f.dial_errors,
            "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }


def _room_for(terminals: int) -> None:
    """Raise the limit of open files; UsageError when even the hard one is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = terminals + SPARE_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise UsageError(
            tr(
                f"{terminals} connections need {wanted} open files and the hard limit is {hard}: "
                "run several fleets with --first, or use --udp",
                f"{terminals} 个连接需要 {wanted} 个文件句柄, 硬限制为 {hard}: 请用 --first 分进程运行, 或用 --udp",
            )
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
