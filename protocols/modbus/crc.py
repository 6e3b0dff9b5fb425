"""CRC-16 of Modbus RTU (polynomial A001 reflected, start FFFF), two bytes a step.

The reflected register shifts out wholly after 16 bits, so one table of 65,536 entries takes a whole little-endian word:
half the steps of the usual byte table.
"""

from __future__ import annotations

from struct import unpack_from

import numpy as np


def _table() -> list[int]:
    crc = np.arange(65536, dtype=np.uint32)
    for _ in range(16):
        crc = np.where(crc & 1, (crc >> 1) ^ 0xA001, crc >> 1)
    table: list[int] = crc.tolist()
    return table


_TABLE = _table()


def crc16(data: bytes | bytearray | memoryview) -> int:
    """The register after `data`; 0 over a frame whose own CRC (low byte first) closes it."""
    table = _TABLE
    count, odd = divmod(len(data), 2)
    crc = 0xFFFF
    for word in unpack_from(f"<{count}H", data):
        crc = table[crc ^ word]
    if odd:
        # one byte more: shift in eight bits only
        crc = (crc >> 8) ^ table[((crc ^ data[-1]) & 0xFF) << 8]
    return crc


def with_crc(body: bytes) -> bytes:
    """`body` closed by its CRC, low byte first."""
    return body + crc16(body).to_bytes(2, "little")
