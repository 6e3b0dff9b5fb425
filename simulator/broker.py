"""An MQTT broker inside the simulator, for benches without one. Anonymous: never for production."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

from amqtt.broker import Broker as _Amqtt


class _Tidy(_Amqtt):  # type: ignore[misc]
    """amqtt that remembers its connections: at its end it leaves some of them open."""

    def __init__(self, config: dict[str, object]) -> None:
        super().__init__(config)
        self.writers: set[asyncio.StreamWriter] = set()

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        self.writers = {w for w in self.writers if not w.is_closing()} | {writer}
        with contextlib.suppress(OSError):  # a caller of another version of MQTT that is already gone
            await super().stream_connected(reader, writer, listener_name)


class Broker:
    """amqtt on one port; port 0 takes a free one."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host, self.port = host, port
        self._broker: _Tidy | None = None

    async def start(self) -> None:
        """Listen. OSError when the port is taken."""
        with socket.create_server((self.host, self.port)) as probe:  # also tells a taken port at once
            self.port = probe.getsockname()[1]
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)
        logging.getLogger("transitions").setLevel(logging.CRITICAL)
        self._broker = _Tidy(
            {
                "listeners": {
                    "default": {"type": "tcp", "bind": f"{self.host}:{self.port}", "max_connections": 10_000}
                },
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        await self._broker.start()

    async def stop(self) -> None:
        """Close every session."""
        if self._broker is not None:
            await self._broker.shutdown()
            for writer in self._broker.writers:
                writer.transport.abort()
            await asyncio.sleep(0)  # the loop closes aborted sockets in its next turn
            self._broker = None
