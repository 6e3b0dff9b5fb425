"""Growing pauses between attempts to reopen a link, spread by a seeded random source so that links do not keep step."""

from __future__ import annotations

from random import Random


class Backoff:
    """min, 2 min, 4 min … max seconds, each multiplied by a random factor of 0.5 to 1 ("equal jitter")."""

    __slots__ = ("_longest_s", "_next_s", "_rng", "_shortest_s")

    def __init__(self, shortest_s: float, longest_s: float, rng: Random) -> None:
        self._shortest_s, self._longest_s, self._rng = shortest_s, max(shortest_s, longest_s), rng
        self._next_s = shortest_s

    def next_s(self) -> float:
        """The pause before the next attempt."""
        pause = self._next_s * self._rng.uniform(0.5, 1.0)
        self._next_s = min(self._longest_s, self._next_s * 2)
        return pause

    def reset(self) -> None:
        """The link works (a byte came, not merely a connection)."""
        self._next_s = self._shortest_s
