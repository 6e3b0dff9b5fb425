"""Listeners for devices that dial in (TCP and UDP): paced admission, identification, idle time-out, a limit.

Admission: who is not admitted yet waits in the kernel's backlog (4096), nobody is turned away; that is why connections
are accepted here and not by `loop.create_server`, which takes all at once. No task per connection once it is accepted.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Protocol, cast

from ....model.lang import tr
from ....model.work import LinkCounters
from ....protocols.common.errors import LinkError
from ...admission import TokenBucket
from ...config import LinkConfig
from ...dialin import DialIn, Identity, Rejected, strip_text
from ...link import Station
from ..clock import Clock
from .base import Guard, Listener, Transport
from .tcp import HEARTBEATS, KEEP_ALIVE, WRITE_LIMIT, watch_peer

log = logging.getLogger(__name__)

BACKLOG = 4096
ACCEPT_AT_ONCE = 256  # then the other lines have their turn
OUT_OF_FILES_PAUSE_S = 1.0
FULL_PAUSE_S = 0.1


class Caller(Transport):
    """One dial-in connection or UDP peer: first it is identified, then it is a line's transport.

    patience_s: silent for so long, it is closed.
    """

    __slots__ = ("_server", "dialin", "last_s", "name", "patience_s", "registration")

    def __init__(self, guard: Guard, server: Server) -> None:
        super().__init__(guard, None)
        self._server = server
        self.dialin: DialIn | None = server.make_dialin()
        self.last_s = server.clock.monotonic_s()
        self.patience_s = server.config.idle_timeout_s
        self.name = ""
        self.registration: tuple[bytes, ...] = ()

    def open(self) -> None:
        """It is open already."""

    def adopt(self, listener: Listener) -> None:
        """From now on the bytes belong to `listener`."""
        self._listener = listener

    @property
    def peer_text(self) -> str:
        """Network address of the peer, as "192.0.2.7:4711"."""
        return ""

    def answer(self, wire: str, data: bytes) -> None:
        """Send something that belongs to no station; the guard looks at it like at anything else."""
        if not self._guard.blocks(wire, data):
            self._raw(data)

    def came(self, data: bytes) -> None:
        """Bytes of the peer."""
        self.last_s = self._server.clock.monotonic_s()
        if self.dialin is not None:
            self._identify(data)
            return
        if self.registration:
            data = strip_text(data, self.registration)
        if data and self._listener is not None:
            self._listener.on_bytes(data)

    def _identify(self, data: bytes) -> None:
        assert self.dialin is not None
        verdict = self.dialin.feed(data)
        if verdict is None:
            return
        if isinstance(verdict, Rejected) or not self._server.attach(verdict, self):
            reason = verdict.reason if isinstance(verdict, Rejected) else "unknown name"
            self._server.counters.rejected += 1
            log.info("dial-in connection refused: %s", reason)
            self.close()
            return
        self.dialin = None
        self.name = verdict.name
        self.registration = self._server.texts(verdict.name)
        if verdict.reply:
            self.answer(verdict.wire, verdict.reply)
        if verdict.rest:
            self.came(verdict.rest)

    def gone(self, reason: str) -> None:
        """The peer went away."""
        self._server.forget(self)
        self._lost(reason)

    def _write(self, station: Station, data: bytes) -> None:
        self._raw(data)

    def _raw(self, data: bytes) -> None:
        raise NotImplementedError


class TcpCaller(Caller, asyncio.Protocol):
    """A dial-in TCP connection."""

    __slots__ = ("_transport",)

    def __init__(self, guard: Guard, server: Server) -> None:
        super().__init__(guard, server)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: accepted."""
        self._transport = cast(asyncio.Transport, transport)

    @property
    def peer_text(self) -> str:
        """See `Caller`."""
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        return _text(peer) if peer else ""

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes."""
        self.came(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: closed by either side."""
        self._transport = None
        self.gone(str(exc) if exc else tr("the device hung up", "设备断开了连接"))

    def close(self) -> None:
        """Drop the connection."""
        self._listener = None
        self._server.forget(self)
        if self._transport is not None:
            self._transport.abort()

    def _raw(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() > WRITE_LIMIT:
            self._transport.abort()
        else:
            self._transport.write(data)


class UdpCaller(Caller):
    """A UDP peer, told apart by its address and port."""

    __slots__ = ("_socket", "peer")
    datagrams = True

    @property
    def peer_text(self) -> str:
        """See `Caller`."""
        return _text(self.peer)

    def __init__(self, guard: Guard, server: Server, socket: asyncio.DatagramTransport, peer: tuple[str, int]) -> None:
        super().__init__(guard, server)
        self._socket, self.peer = socket, peer

    def close(self) -> None:
        """Forget the peer."""
        self._listener = None
        self._server.forget(self)

    def _raw(self, data: bytes) -> None:
        if not self._socket.is_closing():
            self._socket.sendto(data, self.peer)


class Server(Protocol):
    """What a caller needs of its server."""

    config: LinkConfig
    clock: Clock
    counters: LinkCounters

    def make_dialin(self) -> DialIn:
        """A fresh identification."""

    def attach(self, identity: Identity, caller: Caller) -> bool:
        """Hand an identified caller to its line; False = no such line."""

    def texts(self, name: str) -> tuple[bytes, ...]:
        """Texts to be skipped among a registered caller's bytes."""

    def forget(self, caller: Caller) -> None:
        """The caller is gone."""


class DialInServer(asyncio.DatagramProtocol):
    """One listening socket. `attach` connects an identified caller with its line."""

    def __init__(
        self,
        config: LinkConfig,
        guard: Guard,
        clock: Clock,
        make_dialin: Callable[[], DialIn],
        attach: Callable[[Identity, Caller], bool],
    ) -> None:
        self.config, self.clock = config, clock
        self.make_dialin, self._attach, self._guard = make_dialin, attach, guard
        self.counters = LinkCounters()
        self.callers: dict[Caller, None] = {}
        self.admitted = 0
        self._peers: dict[tuple[str, int], UdpCaller] = {}
        self._bucket = TokenBucket(config.admission_per_s) if config.admission_per_s else None
        self._socket: socket.socket | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._accepting: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens (the real port, where 0 was configured)."""
        source = self._socket or (self._udp.get_extra_info("socket") if self._udp else None)
        if source is None:
            raise LinkError(tr(f"{self.config.name} does not listen", f"{self.config.name} 未在监听"))
        host, port = source.getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Listen; LinkError when the address is taken."""
        loop, where = asyncio.get_running_loop(), (self.config.host, self.config.port_no)
        try:
            if self.config.kind == "listen-udp":
                self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=where)
            else:
                self._socket = socket.create_server(where, backlog=BACKLOG)
                self._socket.setblocking(False)
                loop.add_reader(self._socket.fileno(), self._acceptable)
        except OSError as error:
            text = f"{self.config.name} {where[0]}:{where[1]}: {error}"
            raise LinkError(tr(f"cannot listen: {text}", f"无法监听: {text}")) from error
        self._sweep()

    async def stop(self) -> None:
        """Close the socket and every connection."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        for task in tuple(self._accepting):
            task.cancel()
        if self._accepting:
            await asyncio.wait(self._accepting)
        for caller in tuple(self.callers):
            caller.close()
        if self._udp is not None:
            self._udp.abort()
            self._udp = None
        await asyncio.sleep(0)

    def attach(self, identity: Identity, caller: Caller) -> bool:
        """See `Server`."""
        return self._attach(identity, caller)

    def texts(self, name: str) -> tuple[bytes, ...]:
        """The heartbeat, and the registration that a modem repeats."""
        if self.config.protocol != "text":
            return ()
        return self.config.heartbeat.encode(), f"{self.config.register_prefix}{name}".encode()

    def forget(self, caller: Caller) -> None:
        """See `Server`."""
        self.callers.pop(caller, None)
        if isinstance(caller, UdpCaller):
            self._peers.pop(caller.peer, None)

    def _acceptable(self) -> None:
        """Accept as many as the rate and the limit allow now; the others stay in the backlog."""
        listening = self._socket
        for _ in range(ACCEPT_AT_ONCE):
            if listening is None:
                return
            if len(self.callers) + len(self._accepting) >= self.config.max_connections:
                self._pause(FULL_PAUSE_S)
                return
            wait_s = self._bucket.wait_s(self.clock.monotonic_s()) if self._bucket is not None else 0.0
            if wait_s > 0:
                self._pause(wait_s)
                return
            try:
                sock, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.warning("%s: %s; accepting pauses", self.config.name, error)
                    self._pause(OUT_OF_FILES_PAUSE_S)
                    return
                continue  # this caller went away while it waited
            if self._bucket is not None:
                self._bucket.take(self.clock.monotonic_s())
            self.admitted += 1
            task = asyncio.get_running_loop().create_task(self._adopt(sock))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    def _pause(self, seconds: float) -> None:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket.fileno())
        self._timers["accept"] = loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._acceptable)
            self._acceptable()

    async def _adopt(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        caller = TcpCaller(self._guard, self)
        try:
            watch_peer(sock, HEARTBEATS if self.config.protocol == "qgdw1376" else KEEP_ALIVE)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: caller, sock)
        except (OSError, asyncio.CancelledError) as error:
            sock.close()
            log.debug("%s: a caller went away: %s", self.config.name, error)
            return
        if caller._transport is not None:
            self.callers[caller] = None

    def _sweep(self) -> None:
        """Close what has been silent for too long."""
        now_s = self.clock.monotonic_s()
        for caller in [c for c in self.callers if c.last_s + c.patience_s < now_s]:
            caller.gone(tr("silent for too long", "长时间无数据"))
            caller.close()
        period = min(10.0, max(0.05, self.config.idle_timeout_s / 8))
        self._timers["sweep"] = asyncio.get_running_loop().call_later(period, self._sweep)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the UDP socket is open."""
        self._udp = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """asyncio: a datagram; a new peer needs an admission (a refused one sends again)."""
        caller = self._peers.get(addr)
        if caller is None:
            full = len(self._peers) >= self.config.max_connections
            late = self._bucket is not None and not self._bucket.take(self.clock.monotonic_s())
            if self._udp is None or full or late:
                self.counters.rejected += 1
                return
            self.admitted += 1
            caller = self._peers[addr] = UdpCaller(self._guard, self, self._udp, addr)
            self.callers[caller] = None
        caller.came(data)

    def error_received(self, exc: Exception) -> None:
        """asyncio: an ICMP error of some peer; its line notices by itself."""
        log.debug("%s: %s", self.config.name, exc)


def _text(peer: tuple[object, ...]) -> str:
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
