"""What really happened, for tests and drills: the frames on every wire, and (through the simulation) the true load."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

KEPT = 100_000

Direction = Literal["in", "out"]


@dataclass(frozen=True, slots=True)
class Seen:
    """Bytes on a wire. direction: "in" = from the master, "out" = from a device (or to the broker)."""

    time_us: int
    wire: str
    direction: Direction
    device: str
    data: bytes


class Observer:
    """The last frames seen (bounded), and counts that are not."""

    def __init__(self, kept: int = KEPT) -> None:
        self._frames: deque[Seen] = deque(maxlen=kept)
        self.counts: dict[tuple[str, str], int] = {}

    def see(self, time_us: int, wire: str, direction: Direction, device: str, data: bytes) -> None:
        """Note bytes."""
        self._frames.append(Seen(time_us, wire, direction, device, data))
        key = (wire, direction)
        self.counts[key] = self.counts.get(key, 0) + 1

    def frames(self, wire: str | None = None, device: str | None = None) -> Iterator[Seen]:
        """Frames in order, of one wire or device if named."""
        for frame in self._frames:
            if (wire is None or frame.wire == wire) and (device is None or frame.device == device):
                yield frame

    def clear(self) -> None:
        """Forget the frames; the counts stay."""
        self._frames.clear()
