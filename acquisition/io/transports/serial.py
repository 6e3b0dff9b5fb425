"""Serial ports and pseudo-terminals: opened by pyserial, then a non-blocking descriptor under the event loop.

8E1 by default (DL/T 645 clause 5). A pseudo-terminal has no parity and only 8 data bits: configure 8N1 for it.
`termios.error` is not an OSError; both mean "the adapter is gone". Opening blocks for milliseconds at most.
"""

from __future__ import annotations

import asyncio
import os
import termios

import serial
from serial.rs485 import RS485Settings

from ....model.lang import tr
from ...config import LinkConfig
from ...link import Station
from .base import Guard, Listener, Transport

READ_SIZE = 4096
WRITE_LIMIT = 65_536
FAILURES = (OSError, ValueError, termios.error)  # serial.SerialException is an OSError


def settings(config: LinkConfig) -> dict[str, object]:
    """Arguments for `serial.Serial` of a configured link."""
    return {
        "port": config.port,
        "baudrate": config.baud,
        "bytesize": config.bytesize,
        "parity": config.parity,
        "stopbits": config.stopbits,
        "timeout": 0,
        "write_timeout": 0,
        "exclusive": True,
    }


class SerialTransport(Transport):
    """One serial port."""

    __slots__ = ("_config", "_fd", "_loop", "_out", "_port")

    def __init__(self, config: LinkConfig, guard: Guard, listener: Listener) -> None:
        super().__init__(guard, listener)
        self._config = config
        self._port: serial.Serial | None = None
        self._fd = -1
        self._out = bytearray()
        self._loop = asyncio.get_running_loop()

    def open(self) -> None:
        """Open and configure the port, and drop what an earlier user left in it."""
        try:
            self._port = serial.Serial(**settings(self._config))
            if self._config.rs485:
                self._port.rs485_mode = RS485Settings()
            self._port.reset_input_buffer()
            self._fd = self._port.fileno()
            os.set_blocking(self._fd, False)
        except FAILURES as error:
            self.close_port()
            reason = tr(f"cannot open {self._config.port}: {error}", f"无法打开 {self._config.port}: {error}")
            self._loop.call_soon(self._lost, reason)
            return
        self._loop.add_reader(self._fd, self._readable)
        if self._listener is not None:
            self._listener.on_open()

    def close(self) -> None:
        """Close the port."""
        self._listener = None
        self.close_port()

    def close_port(self) -> None:
        """Release the descriptor (also after a failure of the port)."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1
        port, self._port = self._port, None
        self._out.clear()
        if port is not None:
            try:
                port.close()
            except FAILURES:
                return  # an adapter that was pulled out cannot be closed in order; its descriptor is released anyway

    def _write(self, station: Station, data: bytes) -> None:
        if self._fd < 0:
            return
        if len(self._out) + len(data) > WRITE_LIMIT:
            self._failed(tr("the port takes no bytes", "串口不接受数据"))
            return
        waiting = bool(self._out)
        self._out += data
        if not waiting:
            self._writable()

    def _writable(self) -> None:
        try:
            sent = os.write(self._fd, self._out)
        except BlockingIOError:
            sent = 0
        except FAILURES as error:
            self._failed(str(error))
            return
        del self._out[:sent]
        if self._out:
            self._loop.add_writer(self._fd, self._writable)
        else:
            self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
        except FAILURES as error:
            self._failed(str(error))
            return
        if not data:
            self._failed(tr("the port hung up", "串口已断开"))
        elif self._listener is not None:
            self._listener.on_bytes(data)

    def _failed(self, reason: str) -> None:
        self.close_port()
        self._lost(f"{self._config.port}: {reason}")
