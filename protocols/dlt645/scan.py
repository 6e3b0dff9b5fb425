"""A whole buffer at once: frames found, checked and unmasked in numpy, items gathered as arrays.

For captures, backlogs and fleets answered in one poll; one frame at a time belongs to `frame.Framer`, whose result this
equals (tests compare them), except that an unfinished frame at the end is passed over instead of waited for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..common.bcd import bcd_array
from .frame import END, OVERHEAD, READ_LIMIT, START
from .items import Item


@dataclass(frozen=True, slots=True)
class Scan:
    """n frames of a buffer. start int64 (n,): place of the first 68; length, control uint8 (n,).

    unmasked: uint8, the whole buffer minus 33H; meaningful only inside DATA.
    """

    start: NDArray[np.int64]
    length: NDArray[np.uint8]
    control: NDArray[np.uint8]
    raw: NDArray[np.uint8]
    unmasked: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.start)

    def data(self, size: int, offset: int = 0) -> NDArray[np.uint8]:
        """DATA bytes offset .. offset+size of every frame, (n, size); choose frames of fitting length first."""
        first, count = 10 + offset, len(self)
        stride = int(self.start[1] - self.start[0]) if count > 1 else 0
        begin, end = (int(self.start[0]), int(self.start[-1]) + stride) if count else (0, 0)
        if stride > 0 and end <= len(self.raw) and (np.diff(self.start) == stride).all():
            # frames of one length back to back (a poll of one item): a view, no gathering
            return self.unmasked[begin:end].reshape(count, stride)[:, first : first + size]
        found: NDArray[np.uint8] = self.unmasked[self.start[:, None] + np.arange(first, first + size)]
        return found

    def identifiers(self) -> NDArray[np.uint32]:
        """First four DATA bytes of every frame as a number (DI of 2007); 0xFFFFFFFF where L < 4."""
        long_enough = self.length >= 4
        ids = np.full(len(self), 0xFFFFFFFF, np.uint32)
        places = self.start[long_enough][:, None] + np.arange(10, 14)
        ids[long_enough] = np.ascontiguousarray(self.unmasked[places]).view("<u4")[:, 0]
        return ids

    def addresses(self) -> NDArray[np.uint64]:
        """Meter numbers as BCD digits in the low 48 bits."""
        wide = np.zeros((len(self), 8), np.uint8)
        wide[:, :6] = self.raw[self.start[:, None] + np.arange(1, 7)]
        return wide.view("<u8")[:, 0]

    def where(self, chosen: NDArray[np.bool_]) -> Scan:
        """The chosen frames only."""
        return Scan(self.start[chosen], self.length[chosen], self.control[chosen], self.raw, self.unmasked)


def scan(buffer: bytes, limit: int = READ_LIMIT) -> Scan:
    """All good frames of `buffer`, none overlapping, in order."""
    raw = np.frombuffer(buffer, np.uint8)
    start = np.flatnonzero(raw[: max(0, len(raw) - OVERHEAD + 1)] == START)
    start = start[raw[start + 7] == START]
    length = raw[start + 9].astype(np.int64)
    end = start + OVERHEAD + length
    fits = (length <= limit) & (end <= len(raw))
    start, length, end = start[fits], length[fits], end[fits]
    closed = raw[end - 1] == END
    start, length, end = start[closed], length[closed], end[closed]
    # byte sums by differences of the running sum: uint32 wraps harmlessly, only mod 256 counts
    running = np.zeros(len(raw) + 1, np.uint32)
    np.cumsum(raw, dtype=np.uint32, out=running[1:])
    good = ((running[end - 2] - running[start]) & 0xFF).astype(np.uint8) == raw[end - 2]
    start, length, end = start[good], length[good], end[good]
    if len(start) > 1 and (start[1:] < end[:-1]).any():
        keep = _not_overlapping(start, end)
        start, length = start[keep], length[keep]
    return Scan(start, length.astype(np.uint8), raw[start + 8], raw, raw - np.uint8(0x33))


def _not_overlapping(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.bool_]:
    """First come, first kept: a good frame inside a good frame is its data."""
    keep = np.zeros(len(start), bool)
    free = 0
    for i, (a, b) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        if a >= free:
            keep[i] = True
            free = b
    return keep


def numbers(frames: Scan, item: Item, *, identifier: int = 4) -> NDArray[np.float64]:
    """Values of a numeric item (or block) in every frame: float64 (n, k), NaN = not fitted or no BCD.

    The frames must all be answers with this DI and the same L; a block gives as many values as the length holds.
    """
    size = int(frames.length[0]) - identifier if len(frames) else 0
    field = item.fields[0]
    width = field.size if size % field.size == 0 else field.size + 1
    return bcd_array(frames.data(size, identifier), width=width, decimals=field.decimals, signed=field.signed)
