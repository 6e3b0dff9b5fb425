"""How fast frames may leave: a steady rate over all devices, in the order asked. Time is an argument."""

from __future__ import annotations


class Pace:
    """Turns at `per_s` a second (0 = no limit); a little that was not used is not saved up."""

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1 / per_s if per_s > 0 else 0.0
        self._next_s = 0.0

    def turn(self, now_s: float) -> float:
        """When the next one may go (monotonic seconds), not before now."""
        at = max(now_s, self._next_s)
        self._next_s = at + self._gap_s
        return at
