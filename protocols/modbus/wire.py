"""One request as bytes and the beginning of its reply, ready for reuse: all that differs a time is the transaction.

reading   unit fc address2 count2            -> unit fc bytes1 data | unit fc+80 code
writing   unit 05/06 address2 value2         -> the same again      | unit fc+80 code
writing   unit 10 address2 count2 bytes1 …   -> unit 10 address2 count2
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, Literal

from ..common.errors import UsageError
from .crc import with_crc
from .frame import Expected

Framing = Literal["rtu", "tcp"]

READ_FUNCTIONS: Final = frozenset((1, 2, 3, 4))
COIL_ON: Final = 0xFF00

# Modbus Application Protocol V1.1b3, chapter 7
EXCEPTIONS: Final = {
    1: "function not supported",
    2: "illegal address",
    3: "illegal value or count",
    4: "device failure",
    5: "accepted, still working",
    6: "busy",
    8: "memory parity error",
    10: "gateway has no path",
    11: "gateway: target does not answer",
}


def exception_text(code: int) -> str:
    """`02 illegal address`."""
    return f"{code:02X} {EXCEPTIONS.get(code, 'unknown exception')}"


class Wire:
    """A prepared request. `ok` and `no`: how its reply and its exception begin (behind the transaction on TCP)."""

    __slots__ = ("_request", "no", "no_length", "ok", "ok_length", "payload_at", "tcp")

    def __init__(self, framing: Framing, body: bytes, ok_body: bytes, ok_size: int) -> None:
        """body: unit and PDU of the request; ok_body: first bytes of the reply's; ok_size: size of its unit and PDU."""
        self.tcp = framing == "tcp"
        refused = bytes((body[0], body[1] | 0x80))
        if self.tcp:
            self._request = struct.pack(">HH", 0, len(body)) + body
            self.ok = struct.pack(">HH", 0, ok_size) + ok_body
            self.no = b"\0\0\0\3" + refused
            self.ok_length, self.no_length, self.payload_at = 6 + ok_size, 9, 9
        else:
            self._request = with_crc(body)
            self.ok, self.no = ok_body, refused
            self.ok_length, self.no_length, self.payload_at = ok_size + 2, 5, 3

    def request(self, transaction: bytes) -> bytes:
        """The whole frame; `transaction` (two bytes) is used on TCP only."""
        return transaction + self._request if self.tcp else self._request

    def expected(self, transaction: bytes) -> tuple[Expected, Expected]:
        """The reply and the exception, for a ReplyFramer."""
        lead = transaction if self.tcp else b""
        return (
            Expected(lead + self.ok, self.ok_length, not self.tcp),
            Expected(lead + self.no, self.no_length, not self.tcp),
        )

    def exception(self, frame: bytes) -> int | None:
        """Exception code of a reply, None when it is an ordinary one."""
        at = 7 if self.tcp else 1
        return frame[at + 1] if frame[at] & 0x80 else None

    def payload(self, frame: bytes) -> bytes:
        """Data bytes of the reply to a read."""
        return frame[9:] if self.tcp else frame[3:-2]


def check_unit(unit: int, framing: Framing) -> int:
    """`unit` if it can be asked; on RTU 0 is the broadcast, which nobody answers."""
    if not 0 <= unit <= 255 or (framing == "rtu" and not 1 <= unit <= 247):
        raise UsageError(f"Modbus unit {unit}: use 1 to 247 (0 to 255 over TCP)")
    return unit


@lru_cache(maxsize=16384)
def read_wire(framing: Framing, unit: int, function: int, address: int, count: int) -> Wire:
    """Functions 01 to 04. UsageError when the read cannot be."""
    limit = 2000 if function <= 2 else 125
    if function not in READ_FUNCTIONS or not 1 <= count <= limit or not 0 <= address <= 0x10000 - count:
        raise UsageError(f"Modbus read {function:02X} of {count} at {address}: outside what the protocol allows")
    size = (count + 7) // 8 if function <= 2 else 2 * count
    head = bytes((check_unit(unit, framing), function))
    return Wire(framing, head + struct.pack(">HH", address, count), head + bytes((size,)), 3 + size)


def write_wire(framing: Framing, unit: int, function: int, address: int, value: int) -> Wire:
    """Functions 05 (value FF00 or 0), 06 (16 bits), 10h (one register, two when the value needs 32 bits)."""
    head = bytes((check_unit(unit, framing), function))
    limit = {5: COIL_ON, 6: 0xFFFF, 16: 0xFFFF_FFFF}.get(function, -1)
    if not 0 <= value <= limit or not 0 <= address <= 0xFFFF or (function == 5 and value not in (0, COIL_ON)):
        raise UsageError(f"Modbus write {function:02X} of {value:#x} at {address}: outside what the protocol allows")
    if function != 16:
        body = head + struct.pack(">HH", address, value)
        return Wire(framing, body, body, len(body))
    words = struct.pack(">I", value) if value > 0xFFFF else struct.pack(">H", value)
    echo = head + struct.pack(">HH", address, len(words) // 2)
    return Wire(framing, echo + bytes((len(words),)) + words, echo, len(echo))
