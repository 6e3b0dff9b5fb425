"""Framers of Modbus: RTU (serial, or RTU in a TCP stream) and MBAP (Modbus TCP). Modbus over serial line V1.02, 2.5.1.

    RTU    unit 1 | function 1 | data n | CRC 2, low byte first        no length: it follows from function and direction
    MBAP   transaction 2 | protocol 0000 | length 2 | unit 1 | function 1 | data n        length counts from the unit on

Three outcomes (frame, skipped, need more). After anything broken the framer advances one byte and hunts again: the
wanted frame may sit behind the noise. `flush` is for the end of a capture or a pause on the line: what is incomplete
now stays incomplete, so hunt on behind it. `ReplyFramer` is the poller's: it knows the one reply it waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ..common.framer import NEED_MORE, NeedMore, Skipped
from .crc import crc16

Direction = Literal["request", "reply"]

MAX_RTU: Final = 256
MAX_MBAP: Final = 260
# A buffer may hold this much between two calls of next_event; the oldest bytes beyond it are dropped and counted.
MAX_BUFFER: Final = 65_536


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole message: `pdu` starts with the function code; `transaction` is None on RTU; `raw` as on the wire.

    direction: as told to the framer, or found by length; None where both directions look alike.
    """

    unit: int
    pdu: bytes
    raw: bytes
    transaction: int | None = None
    direction: Direction | None = None

    @property
    def function(self) -> int:
        """Function code without the exception bit."""
        return self.pdu[0] & 0x7F

    @property
    def exception(self) -> int | None:
        """Exception code, None for an ordinary message."""
        return self.pdu[1] if self.pdu[0] & 0x80 else None


# function -> (fixed length of the frame with CRC, position of a byte count to add or None). V1.1b3 chapter 6.
_REQUEST: Final[dict[int, tuple[int, int | None]]] = {
    **dict.fromkeys((1, 2, 3, 4, 5, 6, 8), (8, None)),
    **dict.fromkeys((7, 11, 12, 17), (4, None)),
    **dict.fromkeys((15, 16), (9, 6)),
    **dict.fromkeys((20, 21), (5, 2)),
    22: (10, None),
    23: (13, 10),
    24: (6, None),
    43: (7, None),
}
_REPLY: Final[dict[int, tuple[int, int | None]]] = {
    **dict.fromkeys((1, 2, 3, 4, 12, 17, 20, 21, 23), (5, 2)),
    **dict.fromkeys((5, 6, 8, 11, 15, 16), (8, None)),
    7: (5, None),
    22: (10, None),
}
_UNKNOWN: Final = -1
_INCOMPLETE: Final = 0


def rtu_length(head: bytes | bytearray, direction: Direction) -> int:
    """Length of the RTU frame that begins with `head`, CRC included; 0 = too few bytes to tell, -1 = no such frame."""
    if len(head) < 2:
        return _INCOMPLETE
    function = head[1]
    if direction == "reply":
        if function & 0x80:
            return 5 if function & 0x7F in _REQUEST else _UNKNOWN
        if function == 24:
            return _INCOMPLETE if len(head) < 4 else _bounded(6 + int.from_bytes(head[2:4], "big"))
        if function == 43:
            return _identification_length(head)
    rule = (_REQUEST if direction == "request" else _REPLY).get(function)
    if rule is None:
        return _UNKNOWN
    fixed, at = rule
    if at is None:
        return fixed
    return _INCOMPLETE if len(head) <= at else _bounded(fixed + head[at])


def _bounded(length: int) -> int:
    return length if length <= MAX_RTU else _UNKNOWN


def _identification_length(head: bytes | bytearray) -> int:
    """Reply 2B/0E: unit fc 0E code conformity more next n | n x (id, length, text) | CRC. At most 125 objects fit."""
    if len(head) < 8:
        return _INCOMPLETE
    if head[2] != 0x0E:
        return _UNKNOWN
    at = 8
    for _ in range(min(head[7], 125)):
        if len(head) < at + 2:
            return _INCOMPLETE if at <= MAX_RTU else _UNKNOWN
        at += 2 + head[at + 1]
    return _bounded(at + 2)


class _Hunter:
    """The buffer and the hunt shared by both framers: `_probe` judges the bytes at one offset."""

    __slots__ = ("_at_end", "_buffer", "_dropped")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._dropped = 0
        self._at_end = False

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        self._at_end = False
        self._buffer += data
        excess = len(self._buffer) - MAX_BUFFER
        if excess > 0:
            del self._buffer[:excess]
            self._dropped += excess

    def flush(self) -> None:
        """The line is quiet: an incomplete head will not be completed; next_event hunts on behind it."""
        self._at_end = True

    def reset(self) -> None:
        """Forget buffered bytes."""
        self._buffer.clear()
        self._dropped = 0
        self._at_end = False

    @property
    def pending(self) -> int:
        """Bytes held."""
        return len(self._buffer)

    def next_event(self) -> Frame | Skipped | NeedMore:
        """The next frame, the next run of skipped bytes, or NEED_MORE."""
        if self._dropped:
            skipped, self._dropped = Skipped(self._dropped, "overflow"), 0
            return skipped
        offset, reason = 0, ""
        size = len(self._buffer)
        while offset < size:
            found = self._probe(offset)
            if isinstance(found, Frame) and not offset:
                del self._buffer[: len(found.raw)]
                self._passed(found)
                return found
            if isinstance(found, Frame) or (found is None and not self._at_end):
                break
            reason = reason or (found if isinstance(found, str) else "short")
            offset += 1
        if not offset:
            return NEED_MORE
        del self._buffer[:offset]
        return Skipped(offset, reason)

    def _probe(self, offset: int) -> Frame | str | None:
        """A frame at `offset`, the word for why there is none, or None when it may still become one."""
        raise NotImplementedError

    def _passed(self, frame: Frame) -> None:
        """Called for each frame handed out."""


class RtuFramer(_Hunter):
    """Cuts RTU frames. direction: what travels here, or None on a line that is overheard (both directions).

    Overheard frames whose request and reply are alike (05, 06, a reply as long as a request) alternate: what follows a
    request of the same unit and function is its reply.
    """

    __slots__ = ("_direction", "_open")

    def __init__(self, direction: Direction | None = None) -> None:
        super().__init__()
        self._direction: Direction | None = direction
        self._open = b""  # unit and function of a request that has not been answered

    def reset(self) -> None:
        """Forget buffered bytes and the open request."""
        super().reset()
        self._open = b""

    def _passed(self, frame: Frame) -> None:
        self._open = _key(frame.raw) if frame.direction == "request" else b""

    def _probe(self, offset: int) -> Frame | str | None:
        head = self._buffer[offset : offset + MAX_RTU]
        if self._direction is not None:
            return self._try(head, (self._direction,))
        if self._open and self._open == _key(head):
            return self._try(head, ("reply", "request"))
        return self._try(head, ("request", "reply"))

    def _try(self, head: bytearray, directions: Sequence[Direction]) -> Frame | str | None:
        reason, incomplete = "function", False
        for direction in directions:
            length = rtu_length(head, direction)
            if length == _UNKNOWN:
                continue
            if length == _INCOMPLETE or len(head) < length:
                incomplete = True
            elif crc16(head[:length]) == 0:
                raw = bytes(head[:length])
                return Frame(raw[0], raw[1:-2], raw, None, direction)
            else:
                reason = "crc"
        if not incomplete:
            return reason
        return "crc" if self._at_end and reason == "crc" else None


def _key(head: bytes | bytearray) -> bytes:
    """Unit and function, by which a reply is known to belong to the request before it."""
    return bytes((head[0], head[1] & 0x7F)) if len(head) > 1 else b""


class MbapFramer(_Hunter):
    """Cuts Modbus TCP frames; a wrong protocol number or length sends it hunting one byte further."""

    __slots__ = ("_direction",)

    def __init__(self, direction: Direction | None = None) -> None:
        super().__init__()
        self._direction: Direction | None = direction

    def _probe(self, offset: int) -> Frame | str | None:
        head = self._buffer[offset : offset + MAX_MBAP]
        if any(head[2:4]):
            return "protocol"
        if len(head) < 6:
            return None
        length = int.from_bytes(head[4:6], "big")
        if not 2 <= length <= MAX_MBAP - 6:
            return "length"
        if len(head) > 7 and (head[7] in (0, 0x80) or (head[7] & 0x80 and length != 3)):
            return "function"
        if len(head) < 6 + length:
            return None
        raw = bytes(head[: 6 + length])
        direction = "reply" if self._direction is None and raw[7] & 0x80 else self._direction
        return Frame(raw[6], raw[7:], raw, int.from_bytes(raw[:2], "big"), direction)


@dataclass(frozen=True, slots=True)
class Expected:
    """How the awaited reply begins and how long it is; `checked`: closed by a CRC."""

    head: bytes
    length: int
    checked: bool


class ReplyFramer:
    """Waits for one reply whose first bytes and length are known (it, or its exception); everything else is noise.

    So a late reply of another transaction, an echo of our request or a burst of noise never delays the right answer.
    """

    __slots__ = ("_buffer", "_expected")

    _BOUND: Final = 2048

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._expected: tuple[Expected, ...] = ()

    def expect(self, *expected: Expected) -> None:
        """Wait for one of these from now on; bytes of before are forgotten."""
        self._buffer.clear()
        self._expected = expected

    def feed(self, data: bytes) -> None:
        """Append received bytes; the oldest beyond the bound are dropped."""
        self._buffer += data
        if len(self._buffer) > self._BOUND:
            del self._buffer[: len(self._buffer) - self._BOUND]

    @property
    def pending(self) -> int:
        """Bytes held, all of them noise or an incomplete reply."""
        return len(self._buffer)

    def next_event(self) -> bytes | NeedMore:
        """The awaited frame, whole and checked, or NEED_MORE; bytes before and behind it are dropped with it."""
        best: tuple[int, Expected] | None = None
        for expected in self._expected:
            at = self._buffer.find(expected.head)
            while at >= 0 and (best is None or at < best[0]):
                raw = self._buffer[at : at + expected.length]
                if len(raw) == expected.length and not (expected.checked and crc16(raw)):
                    best = (at, expected)
                at = self._buffer.find(expected.head, at + 1)
        if best is None:
            return NEED_MORE
        at, expected = best
        frame = bytes(self._buffer[at : at + expected.length])
        self._buffer.clear()
        return frame
