"""The frame of DL/T 645-2007 and -1997 (clause 5 of both) and its stream cutter. Knows no data item.

    FE .. FE   68   A0 A1 A2 A3 A4 A5   68   C   L   DATA (L bytes)   CS   16
    lead bytes      address, low first       |   |   each +33H        sum mod 256 of 68 .. DATA as sent
                                             |   number of DATA bytes
                                             D7 from meter, D6 abnormal, D5 more follows, D4-D0 function

0x16 and 0x68 occur inside good frames: the length decides, never a search for the end.
"""

from __future__ import annotations

from typing import Final
from zlib import adler32

import msgspec

from ..common.checksum import sum8
from ..common.errors import UsageError
from ..common.framer import NEED_MORE, NeedMore, Skipped

START: Final = 0x68
END: Final = 0x16
LEAD: Final = 0xFE
OVERHEAD: Final = 12  # bytes of a frame without lead and DATA
READ_LIMIT: Final = 200  # longest DATA when reading (clause 5.2.5)
WRITE_LIMIT: Final = 50
BROADCAST: Final = "999999999999"
ANY: Final = "AAAAAAAAAAAA"
MASK: Final = bytes((i + 0x33) & 0xFF for i in range(256))
UNMASK: Final = bytes((i - 0x33) & 0xFF for i in range(256))
_KEPT_LEAD: Final = 16  # trailing FE kept in the buffer for the count; more than that is reported as noise
_BACKLOG: Final = 1 << 20


def address_to_wire(address: str) -> bytes:
    """Six bytes, low first, of a meter number (shorter ones are padded with 0 on the left).

    `A` digits are wildcards and must be whole high bytes (缩位): AAAAAAAA3412 is legal, 3412AAAAAAAA is not.
    """
    text = address.strip().upper().rjust(12, "0")
    if len(text) != 12 or any(c not in "0123456789A" for c in text):
        raise UsageError(f"meter address {address!r}: give at most 12 decimal digits, or AA for unknown high bytes")
    known = text.lstrip("A")
    if "A" in known or len(known) % 2:
        raise UsageError(f"meter address {address!r}: wildcard AA is only possible for whole bytes from the left")
    return bytes.fromhex(text)[::-1]


def wire_to_address(wire: bytes) -> str:
    """Address in display order."""
    return wire[::-1].hex().upper()


def matches(pattern: bytes, address: bytes) -> bool:
    """Whether a (wildcard) wire address means this meter: AA bytes at the high end match everything."""
    known = pattern.rstrip(b"\xaa")
    return pattern == address or (len(known) < 6 and address.startswith(known))


class Frame(msgspec.Struct, frozen=True):
    """A checked frame. wire_address: six bytes as sent; data: DATA minus 33H, in wire order; lead: FE bytes before."""

    wire_address: bytes
    control: int
    data: bytes = b""
    lead: int = 0

    @property
    def address(self) -> str:
        """Address in display order, A for wildcard digits."""
        return self.wire_address[::-1].hex().upper()

    @property
    def function(self) -> int:
        """D4–D0 of the control byte."""
        return self.control & 0x1F

    @property
    def from_meter(self) -> bool:
        """D7: sent by the meter."""
        return self.control >= 0x80

    @property
    def abnormal(self) -> bool:
        """D6: the meter refuses."""
        return bool(self.control & 0x40)

    @property
    def follow_on(self) -> bool:
        """D5: more data can be asked with function 12H (02H in the edition of 1997)."""
        return bool(self.control & 0x20)

    def encode(self, lead: int | None = None) -> bytes:
        """The bytes for the wire with `lead` FE bytes (default: this frame's own)."""
        if len(self.wire_address) != 6 or not 0 <= self.control <= 0xFF or len(self.data) > 0xFF:
            raise UsageError(
                "a DL/T 645 frame has a six-byte address, a one-byte control code and at most 255 data bytes"
            )
        body = b"\x68%b\x68%c%c%b" % (self.wire_address, self.control, len(self.data), self.data.translate(MASK))
        return bytes((LEAD,)) * (self.lead if lead is None else lead) + body + bytes((sum8(body), END))


def make_frame(address: str, control: int, data: bytes = b"", *, lead: int = 0, limit: int = READ_LIMIT) -> Frame:
    """A frame from an address in display order. UsageError: illegal address, control code or DATA over `limit`."""
    if not 0 <= control <= 0xFF:
        raise UsageError(f"control code {control} is not one byte")
    if len(data) > limit:
        raise UsageError(f"{len(data)} data bytes: the limit of this frame is {limit}")
    return Frame(address_to_wire(address), control, bytes(data), lead)


class Framer:
    """Cuts a byte stream into frames; clause 5.2 with the tolerance of the field.

    `limit`: longest accepted DATA (200 by the standard; some gateways send up to 255). After a bad candidate one byte
    is passed over and the hunt goes on behind it. Skipped reasons: noise, second_start_byte, length, checksum,
    end_byte, truncated (only after `expire`), overflow. The buffer holds at most one frame and one feed.
    """

    __slots__ = ("_buffer", "_expired", "_overflow", "_position", "limit")

    def __init__(self, limit: int = READ_LIMIT) -> None:
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
        if size - start < 8:
            return self._fail(start, "truncated") if self._expired else NEED_MORE
        if buffer[start + 7] != START:
            return self._fail(start, "second_start_byte")
        if size - start < 10:
            return self._fail(start, "truncated") if self._expired else NEED_MORE
        length = buffer[start + 9]
        if length > self.limit:
            return self._fail(start, "length")
        check = start + 10 + length
        if check + 2 > size:
            return self._fail(start, "truncated") if self._expired else NEED_MORE
        body = buffer[start:check]
        # inlined sum8 (hot path): exact up to 256 bytes
        total = adler32(body) - 1 if length <= 246 else sum(body)
        if total & 0xFF != buffer[check]:
            return self._fail(start, "checksum")
        if buffer[check + 1] != END:
            return self._fail(start, "end_byte")
        self._position = check + 2
        return Frame(body[1:7], body[8], body[10:].translate(UNMASK), start - position)

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


def cut(data: bytes, limit: int = READ_LIMIT) -> tuple[list[Frame], list[Skipped]]:
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
