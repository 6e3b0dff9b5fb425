"""The frame of Q/GDW 376.1 (clause 5.3: FT1.2 variable length) and its stream cutter. Knows L, C, A and CS only.

    FE .. FE   68   L L   L L   68   C   A1 A1 A2 A2 A3   AFN SEQ ... AUX   CS   16
    lead bytes      |     the    |   |   |                |                 sum mod 256 of C .. AUX
                    |     same   |   |   |                user: the application layer, see message.py
                    |     again  |   |   region (BCD), terminal (binary), D0 group + D7-D1 master station
                    |            |   D7 from the terminal, D6 from the initiator, D5 FCB or ACD, D4 FCV, D3-D0 function
                    word, low byte first: D1-D0 protocol id (1 = 130-2005, 2 = 376.1), D15-D2 number of bytes C .. AUX

0x16 and 0x68 occur inside good frames: the length decides, never a search for the end.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from zlib import adler32

import msgspec

from ..common.checksum import sum8
from ..common.errors import UsageError
from ..common.framer import NEED_MORE, NeedMore, Skipped

START: Final = 0x68
END: Final = 0x16
LEAD: Final = 0xFE
OVERHEAD: Final = 8  # bytes of a frame without lead and user data
SHORTEST: Final = 6  # C and A
LIMIT: Final = 16383  # 14 bits of length
RADIO_LIMIT: Final = 255  # longest user data on a 230 MHz channel
PROTOCOL_IDS: Final = (1, 2)
_KEPT_LEAD: Final = 16  # trailing FE kept in the buffer for the count; more than that is reported as noise
_BACKLOG: Final = 1 << 20


class Address(msgspec.Struct, frozen=True):
    """Address field. a1: region, four digits (A-F tolerated: FFFF is the wildcard); a2: terminal 0-65535, FFFF = all.

    group: a2 is a group address (or everybody), nobody answers; msa: number of the master station, 0-127.
    """

    a1: str
    a2: int
    group: bool = False
    msa: int = 0

    @property
    def wire(self) -> bytes:
        """The five bytes; UsageError where a part does not fit."""
        try:
            region = bytes.fromhex(self.a1)
        except ValueError:
            region = b""
        if len(region) != 2 or len(self.a1) != 4 or not 0 <= self.a2 <= 0xFFFF or not 0 <= self.msa <= 0x7F:
            raise UsageError(
                f"terminal address {self.a1!r} {self.a2} MSA {self.msa}: give four digits, a number up to 65535 and "
                "a master station number up to 127"
            )
        return b"%c%c%c%c%c" % (
            region[1], region[0], self.a2 & 0xFF, self.a2 >> 8, self.msa << 1 | self.group,
        )  # fmt: skip

    @property
    def broadcast(self) -> bool:
        """Everybody in the region (or, with region FFFF, whoever is attached)."""
        return self.group and self.a2 == 0xFFFF


@lru_cache(maxsize=16384)
def wire_to_address(wire: bytes) -> Address:
    """Address of five bytes. Every pattern is legal when reading."""
    return Address(wire[1::-1].hex().upper(), wire[2] | wire[3] << 8, bool(wire[4] & 1), wire[4] >> 1)


class Frame(msgspec.Struct, frozen=True):
    """A checked frame. user: everything after A (AFN .. AUX); lead: FE bytes before."""

    control: int
    address: Address
    user: bytes
    protocol_id: int = 2
    lead: int = 0

    @property
    def up(self) -> bool:
        """DIR: sent by the terminal."""
        return self.control >= 0x80

    @property
    def prm(self) -> bool:
        """Sent by the station that started the exchange."""
        return bool(self.control & 0x40)

    @property
    def acd(self) -> bool:
        """Uplink: an important event waits, EC follows in AUX."""
        return self.control & 0xA0 == 0xA0

    @property
    def fcb(self) -> bool:
        """Downlink frame count bit."""
        return self.control & 0xA0 == 0x20

    @property
    def fcv(self) -> bool:
        """Downlink: FCB is valid."""
        return self.control & 0x90 == 0x10

    @property
    def function(self) -> int:
        """D3-D0 of the control byte."""
        return self.control & 0x0F

    @property
    def length(self) -> int:
        """L1: number of bytes C .. AUX."""
        return len(self.user) + 6

    def encode(self, lead: int | None = None) -> bytes:
        """The bytes for the wire with `lead` FE bytes (default: this frame's own). UsageError: a part does not fit."""
        size = len(self.user) + 6
        if not 0 <= self.control <= 0xFF or self.protocol_id not in PROTOCOL_IDS or size > LIMIT:
            raise UsageError(
                f"a Q/GDW 1376.1 frame has a one-byte control code, protocol id 1 or 2 and at most {LIMIT} bytes"
            )
        word = (size << 2 | self.protocol_id).to_bytes(2, "little")
        body = b"%c%b%b" % (self.control, self.address.wire, self.user)
        before = bytes((LEAD,)) * (self.lead if lead is None else lead)
        return b"%b\x68%b%b\x68%b%c\x16" % (before, word, word, body, sum8(body))


class Framer:
    """Cuts a byte stream into frames, with the tolerance of the field.

    `limit`: longest accepted user data (C .. AUX). After a bad candidate one byte is passed over and the hunt goes on
    behind it. Skipped reasons: noise, length_mismatch, second_start_byte, protocol_id, length, checksum, end_byte,
    truncated (only after `expire`), overflow. The buffer holds at most one frame and one feed.
    """

    __slots__ = ("_buffer", "_expired", "_overflow", "_position", "limit")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._buffer = b""
        self._position = 0
        self._expired = False
        self._overflow = 0

    def __len__(self) -> int:
        """Bytes held."""
        return len(self._buffer) - self._position

    def feed(self, data: bytes) -> None:
        """Append received bytes. Undrained bytes over 1 MiB are given up, oldest first (reported as overflow)."""
        rest = self._buffer[self._position :]
        if len(rest) > _BACKLOG:
            self._overflow += len(rest) - _BACKLOG
            rest = rest[-_BACKLOG:]
        self._buffer = rest + data
        self._position = 0
        self._expired = False

    def expire(self) -> None:
        """No more bytes will come for the frame begun (inter-byte time-out): look for good frames inside it."""
        self._expired = True

    def reset(self) -> None:
        """Forget buffered bytes."""
        self._buffer = b""
        self._position = 0
        self._overflow = 0

    def next_event(self) -> Frame | Skipped | NeedMore:
        """The next frame, the next run of skipped bytes, or NEED_MORE."""
        if self._overflow:
            count, self._overflow = self._overflow, 0
            return Skipped(count, "overflow")
        buffer, position = self._buffer, self._position
        start = buffer.find(START, position)
        if start != position and (start < 0 or buffer[position:start].strip(b"\xfe")):
            return self._noise(start)
        size = len(buffer)
        if size - start < 6:
            return self._fail(start, "truncated") if self._expired else NEED_MORE
        if buffer[start + 5] != START:
            return self._fail(start, "second_start_byte")
        low, high = buffer[start + 1], buffer[start + 2]
        if low != buffer[start + 3] or high != buffer[start + 4]:
            return self._fail(start, "length_mismatch")
        protocol_id = low & 3
        if protocol_id not in PROTOCOL_IDS:
            return self._fail(start, "protocol_id")
        length = high << 6 | low >> 2
        if length < SHORTEST or length > self.limit:
            return self._fail(start, "length")
        check = start + 6 + length
        if check + 2 > size:
            return self._fail(start, "truncated") if self._expired else NEED_MORE
        body = buffer[start + 6 : check]
        # inlined sum8 (hot path): exact up to 256 bytes
        total = adler32(body) - 1 if length <= 256 else sum8(body)
        if total & 0xFF != buffer[check]:
            return self._fail(start, "checksum")
        if buffer[check + 1] != END:
            return self._fail(start, "end_byte")
        self._position = check + 2
        return Frame(body[0], wire_to_address(body[1:6]), body[6:], protocol_id, start - position)

    def _noise(self, start: int) -> Skipped | NeedMore:
        """Bytes before a start byte (or all of them), except the FE bytes that lead it."""
        end = len(self._buffer) if start < 0 else start
        run = self._buffer[self._position : end]
        kept = len(run) - len(run.rstrip(b"\xfe"))
        if start < 0:
            kept = 0 if self._expired else min(kept, _KEPT_LEAD)
        dropped = len(run) - kept
        if not dropped:
            return NEED_MORE
        self._position += dropped
        return Skipped(dropped, "noise")

    def _fail(self, start: int, reason: str) -> Skipped:
        """Give up the candidate at `start`: pass over its lead and one byte."""
        dropped = start + 1 - self._position
        self._position = start + 1
        return Skipped(dropped, reason)


def cut(data: bytes, limit: int = LIMIT) -> tuple[list[Frame], list[Skipped]]:
    """All frames and all skipped runs of finished input."""
    framer = Framer(limit)
    framer.feed(data)
    framer.expire()
    frames: list[Frame] = []
    skipped: list[Skipped] = []
    while not isinstance(event := framer.next_event(), NeedMore):
        if isinstance(event, Frame):
            frames.append(event)
        else:
            skipped.append(event)
    return frames, skipped
