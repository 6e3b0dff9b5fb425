"""Runs of frames (FIR/FIN, clause 5.4.2): putting them together, and splitting a message over frames. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from ..common.errors import PeerError, UsageError
from .edition import Edition, edition
from .frame import LIMIT
from .message import Message
from .units import Unit, unit_bytes

MAX_FRAMES: Final = 256
MAX_BYTES: Final = 1 << 20
_HEADER: Final = 8  # C, A, AFN, SEQ


class Assembler:
    """Puts the frames of one run together: `feed` gives the whole message with the last of them.

    One run at a time, from one address with one AFN; each frame's number is one more (mod 16) than the last one's.
    A repeated frame (same number and content as the last) is passed over. A frame with FIR = FIN = 0 outside any run
    is taken for a whole message: some masters send these. A run of more than max_frames frames or max_bytes bytes, a
    gap or a foreign frame is a PeerError and ends the run; a frame with FIR begins a new one in any case.
    """

    __slots__ = ("_bytes", "_parts", "max_bytes", "max_frames")

    def __init__(self, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_BYTES) -> None:
        self.max_frames = max_frames
        self.max_bytes = max_bytes
        self._parts: list[Message] = []
        self._bytes = 0

    def __len__(self) -> int:
        """Frames held."""
        return len(self._parts)

    def reset(self) -> None:
        """Forget the run begun (time-out)."""
        self._parts = []
        self._bytes = 0

    def feed(self, message: Message, size: int = 0) -> Message | None:
        """The whole message, or None while more frames must come. `size`: bytes of the frame, for the bound."""
        parts = self._parts
        if message.fir:
            self.reset()
            if message.fin:
                return message
            self._parts.append(message)
            self._bytes = size
            return None
        if not parts:
            if message.fin:
                raise PeerError("the last frame of an answer came without its first one: ask again")
            return message
        last = parts[-1]
        if message == last:
            return None
        reason = self._fault(last, message)
        if reason:
            self.reset()
            raise PeerError(f"{reason}: ask again")
        parts.append(message)
        self._bytes += size
        if len(parts) > self.max_frames or self._bytes > self.max_bytes:
            self.reset()
            raise PeerError(f"an answer of more than {self.max_frames} frames or {self.max_bytes} bytes: ask for less")
        if not message.fin:
            return None
        self.reset()
        units = tuple(unit for part in parts for unit in part.units)
        return msgspec.structs.replace(
            message, fir=True, units=units, seq=parts[0].seq, rest=b"".join(part.rest for part in parts)
        )

    @staticmethod
    def _fault(last: Message, message: Message) -> str:
        if (message.address, message.afn, message.up) != (last.address, last.afn, last.up):
            return f"a frame of AFN {message.afn:02X} inside an answer of AFN {last.afn:02X}"
        if message.seq != (last.seq + 1) & 15:
            return f"frame {message.seq} of an answer came behind frame {last.seq}"
        return ""


def split(message: Message, limit: int = LIMIT, peer: Edition | None = None) -> list[Message]:
    """The message in frames of at most `limit` bytes of user data (L1), cut between data units.

    Every frame has its own identifiers, the time tag, PW and EC. UsageError: one unit alone does not fit.
    """
    peer = peer or edition()
    room = limit - _HEADER - _aux(message, peer)
    runs: list[list[Unit]] = [[]]
    used = 0
    for unit, size in _pieces(message, room, peer):
        if used + size > room and runs[-1]:
            runs.append([])
            used = 0
        if used + size > room:
            raise UsageError(
                f"AFN {message.afn:02X} F{unit[0].fn} p{unit[0].pn} needs {size} bytes, a frame of {limit} has {room}"
            )
        runs[-1] += unit
        used += size
    last = len(runs) - 1
    return [
        msgspec.structs.replace(
            message,
            units=tuple(run),
            fir=message.fir and i == 0,
            fin=message.fin and i == last,
            seq=(message.seq + i) & 15,
            rest=message.rest if i == last else b"",
        )
        for i, run in enumerate(runs)
    ]


def _aux(message: Message, peer: Edition) -> int:
    """Bytes of PW, EC, Tp and what follows the units."""
    pw = 0
    if not message.up:
        default = peer.pw_length if message.afn in peer.pw_afn else 0
        pw = default if message.pw is None else len(message.pw)
    return pw + (2 if message.ec is not None else 0) + (6 if message.tp is not None else 0) + len(message.rest)


def _pieces(message: Message, room: int, peer: Edition) -> list[tuple[list[Unit], int]]:
    """Groups of units that must stay together, with their bytes: what shares an identifier, unless that is too long."""
    pieces: list[tuple[list[Unit], int]] = []
    units = message.units
    i = 0
    while i < len(units):
        stop = i + 1
        while stop < len(units) and units[stop].joined:
            stop += 1
        sizes = [len(unit_bytes(u, message.afn, message.up, peer.name)) for u in units[i:stop]]
        if 4 + sum(sizes) <= room or stop == i + 1:
            pieces.append((list(units[i:stop]), 4 + sum(sizes)))
        else:
            alone = [msgspec.structs.replace(u, joined=False) for u in units[i:stop]]
            pieces += [([u], 4 + size) for u, size in zip(alone, sizes, strict=True)]
        i = stop
    return pieces
