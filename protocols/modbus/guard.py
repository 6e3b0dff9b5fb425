"""What may leave a read-only process: a frame that is wholly one request of a reading function; all else is a write."""

from __future__ import annotations

from .crc import crc16
from .wire import READ_FUNCTIONS


def is_write(data: bytes) -> bool:
    """True unless `data` is exactly one read request, as RTU (with its CRC) or as Modbus TCP."""
    if len(data) == 8 and data[1] in READ_FUNCTIONS and crc16(data) == 0:
        return False
    is_tcp_read = len(data) == 12 and data[2:6] == b"\0\0\0\6" and data[7] in READ_FUNCTIONS
    return not is_tcp_read
