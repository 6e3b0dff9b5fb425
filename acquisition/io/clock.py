"""The shell's clocks, behind one small seam so that tests can hold them in their hand."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds for deadlines, UTC microseconds for stamps; never mixed."""

    def monotonic_s(self) -> float:
        """Seconds of a clock that never jumps (the event loop's own)."""

    def now_us(self) -> int:
        """Microseconds since 1970 UTC."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clocks."""

    monotonic_s = staticmethod(time.monotonic)  # which asyncio's loop uses as well

    def now_us(self) -> int:
        """Wall clock in µs."""
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        """`asyncio.sleep`."""
        await asyncio.sleep(seconds)
