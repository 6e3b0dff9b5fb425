"""TCP client: serial servers, Modbus TCP gateways. An asyncio.Protocol with slots, no task while connected.

Half-open peers (gone without FIN): on a silent connection the kernel's keep-alive gives up after 30 + 3 x 10 s, and on
unacknowledged bytes after the same 60 s (TCP_USER_TIMEOUT; a shorter one would end it at the first probe that is lost);
while requests go unanswered the line itself gives up after the link's `half_open_s` (link.py). Closing is always
`abort`: nothing lingers in a buffer for a peer that is not there.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import cast

from ....model.lang import tr
from ...config import LinkConfig
from ...link import Station
from .base import Guard, Listener, Transport

WRITE_LIMIT = 65_536
KEEP_ALIVE = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 60_000),
)
HEARTBEATS = (
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 120_000),
)
"""For peers that send heartbeats: probes of the kernel's would only cost mobile traffic and break slow connections."""


def watch_peer(sock: socket.socket, options: Sequence[tuple[int, str, int]] = KEEP_ALIVE) -> None:
    """Keep-alive and user time-out, where the system has them."""
    for level, name, value in options:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(level, option, value)


class TcpTransport(Transport, asyncio.Protocol):
    """One outgoing connection."""

    __slots__ = ("_config", "_connecting", "_transport")

    def __init__(self, config: LinkConfig, guard: Guard, listener: Listener) -> None:
        super().__init__(guard, listener)
        self._config = config
        self._connecting: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    def open(self) -> None:
        """Connect, within the link's `connect_timeout_s`."""
        self._connecting = asyncio.get_running_loop().create_task(self._connect(), name=f"connect {self._config.name}")

    def close(self) -> None:
        """Drop the connection (or the attempt)."""
        self._listener = None
        if self._connecting is not None:
            self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait for the attempt's task to end and the loop to drop the socket."""
        task = self._connecting
        if task is not None and not task.done():
            await asyncio.wait([task])
        await asyncio.sleep(0)

    async def _connect(self) -> None:
        host, port = self._config.host, self._config.port_no
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                await loop.create_connection(lambda: self, host, port)
        except (OSError, TimeoutError) as error:
            text = str(error) or tr("no answer", "无应答")
            self._lost(tr(f"cannot reach {host}:{port}: {text}", f"无法连接 {host}:{port}: {text}"))
        finally:
            self._connecting = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: connected."""
        self._transport = cast(asyncio.Transport, transport)
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            watch_peer(sock)
        if self._listener is None:
            self._transport.abort()
        else:
            self._listener.on_open()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes."""
        if self._listener is not None:
            self._listener.on_bytes(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: closed by either side."""
        self._transport = None
        self._lost(str(exc) if exc else tr("the peer closed the connection", "对端关闭了连接"))

    def _write(self, station: Station, data: bytes) -> None:
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() > WRITE_LIMIT:
            self._transport.abort()
            return
        self._transport.write(data)
