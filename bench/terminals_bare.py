"""The peer of bench/terminals.py: the least that a server for terminals can be. Prints its port, ends with stdin."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any


class Bare(asyncio.Protocol):
    """Confirms what looks like a login or heartbeat of Q/GDW 376.1, unchecked, and remembers when."""

    __slots__ = ("last_s", "transport")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.last_s = time.monotonic()
        body = b"\x0b" + data[7:12] + bytes((0, 0x60 | data[13] & 15, 0, 0, 1, 0))
        self.transport.write(b"\x68\x32\x00\x32\x00\x68" + body + bytes((sum(body) & 255, 0x16)))


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
