"""Checksums of the byte protocols, in the fastest form the standard library offers."""

from __future__ import annotations

from functools import cache
from zlib import adler32


def sum8(data: bytes) -> int:
    """Sum of all bytes mod 256.

    The low half of Adler-32 is 1 + the byte sum mod 65521: exact up to 256 bytes, and many times as fast as sum().
    Longer data are summed in pieces of 256.
    """
    if len(data) <= 256:
        return (adler32(data) - 1) & 0xFF
    pieces = range(0, len(data), 256)
    return (sum([adler32(data[i : i + 256]) & 0xFFFF for i in pieces]) - len(pieces)) & 0xFF


@cache
def _crc16_table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
        rows.append(crc)
    return tuple(rows)


def crc16_modbus(data: bytes) -> int:
    """CRC-16 of Modbus RTU (reflected polynomial A001, start FFFF); sent low byte first."""
    table = _crc16_table()
    crc = 0xFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc
