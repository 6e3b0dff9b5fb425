"""One timer for all lines: waking up is what costs at low rates, so deadlines share wake-ups on a grid.

A line asks to be called "not before, and at most one grid step after" an instant. An earlier registration of the same
line is kept and re-examined when it fires, so a request that is answered in time costs no timer at all.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from typing import Protocol

from .clock import Clock


class Sleeper(Protocol):
    """Who is called back. `alarm_s` belongs to Alarms: the earliest call on the grid (start it with infinity)."""

    alarm_s: float

    def on_alarm(self) -> None:
        """It may be time."""


class Alarms:
    """Deadlines on a grid of `grid_s`; those nearer than `exact_s` are kept exactly (turnaround pauses)."""

    def __init__(self, clock: Clock, *, grid_s: float = 0.02, exact_s: float = 0.05) -> None:
        self._clock, self._grid_s, self._exact_s = clock, grid_s, exact_s
        self._slots: dict[int, list[Sleeper]] = {}
        self._heap: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_slot = math.inf

    def at(self, sleeper: Sleeper, when_s: float, now_s: float) -> None:
        """Call `sleeper.on_alarm` at `when_s` (monotonic; infinity = not at all), or earlier."""
        if sleeper.alarm_s <= when_s:
            return
        delay = when_s - now_s
        if delay < self._exact_s:
            asyncio.get_running_loop().call_later(max(0.0, delay), sleeper.on_alarm)
            return
        slot = math.ceil(when_s / self._grid_s)
        due_s = slot * self._grid_s
        if sleeper.alarm_s <= due_s:
            return
        sleeper.alarm_s = due_s
        sleepers = self._slots.get(slot)
        if sleepers is None:
            self._slots[slot] = [sleeper]
            heapq.heappush(self._heap, slot)
            if slot < self._timer_slot:
                self._arm(slot)
        else:
            sleepers.append(sleeper)

    def close(self) -> None:
        """Forget everything."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_slot = None, math.inf
        self._slots.clear()
        self._heap.clear()

    def _arm(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = slot * self._grid_s - self._clock.monotonic_s()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, delay), self._fire)
        self._timer_slot = slot

    def _fire(self) -> None:
        self._timer, self._timer_slot = None, math.inf
        now = self._clock.monotonic_s()
        while self._heap and self._heap[0] * self._grid_s <= now + 1e-6:
            slot = heapq.heappop(self._heap)
            for sleeper in self._slots.pop(slot, ()):
                if sleeper.alarm_s == slot * self._grid_s:
                    sleeper.alarm_s = math.inf
                    sleeper.on_alarm()
        if self._heap and self._heap[0] < self._timer_slot:
            self._arm(self._heap[0])
