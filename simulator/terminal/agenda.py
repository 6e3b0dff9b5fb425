"""What a terminal has still to do, in order of time. Nothing runs by itself: `run` carries out what has become due."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

Action = Callable[[int], None]


class Agenda:
    """Actions with their instants; equal instants keep the order in which they were written down."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Action]] = []
        self._order = 0

    def at(self, when_us: int, action: Action) -> None:
        """`action(when_us)` at that instant."""
        self._order += 1
        heappush(self._heap, (when_us, self._order, action))

    def run(self, now_us: int) -> None:
        """Carry out everything due, each at its own instant; what an action adds may be due at once."""
        while self._heap and self._heap[0][0] <= now_us:
            when, _, action = heappop(self._heap)
            action(when)

    @property
    def next_us(self) -> int | None:
        """The next instant."""
        return self._heap[0][0] if self._heap else None
