"""Time of the simulation and the clocks of its devices. The only place where the machine's clock is read.

`ScaledClock` follows the real clock with an offset and a speed; `StepClock` stands until a test moves it. A device's
own clock (wrong, drifting, set by a master) is a ledger of straight lines, so that what was recorded under the old
clock keeps its old label.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from ..model.times import BUSINESS_ZONE, US, business_to_us, from_us


class Clock(Protocol):
    """Simulated instants, µs since 1970 UTC."""

    def now_us(self) -> int:
        """The instant."""


class ScaledClock:
    """Real time x speed + offset; speed changes nothing before the clock was made."""

    def __init__(self, offset_s: float = 0.0, speed: float = 1.0, real: Callable[[], float] = time.time) -> None:
        self._real = real
        self._start = real()
        self._base = self._start + offset_s
        self.speed = speed

    def now_us(self) -> int:
        """The instant."""
        return int((self._base + (self._real() - self._start) * self.speed) * US)


class StepClock:
    """A clock moved by hand."""

    def __init__(self, now_us: int) -> None:
        self._now = now_us

    def now_us(self) -> int:
        """The instant."""
        return self._now

    def step(self, seconds: float) -> None:
        """Move on; time never runs backwards."""
        if seconds < 0:
            raise ValueError("a clock is not stepped back")
        self._now += int(seconds * US)


@dataclass(slots=True)
class _Line:
    start_us: int
    offset_us: int
    drift: float  # seconds a second

    def shown(self, true_us: int) -> int:
        return true_us + self.offset_us + int((true_us - self.start_us) * self.drift)

    def true(self, shown_us: int) -> int:
        return self.start_us + round((shown_us - self.start_us - self.offset_us) / (1 + self.drift))


@dataclass(slots=True)
class DeviceClock:
    """A device's own clock. Shown instants are µs too; `local` gives them as the device's naive local reading."""

    _lines: list[_Line] = field(default_factory=lambda: [_Line(0, 0, 0.0)])

    def shown_us(self, true_us: int) -> int:
        """What the device's clock shows at a true instant."""
        line = next((x for x in reversed(self._lines) if x.start_us <= true_us), self._lines[0])
        return line.shown(true_us)

    def offset_us(self, true_us: int) -> int:
        """Shown minus true."""
        return self.shown_us(true_us) - true_us

    def local(self, true_us: int) -> datetime:
        """Naive local reading, cut to whole seconds."""
        shown = from_us(self.shown_us(true_us)).astimezone(BUSINESS_ZONE)
        return shown.replace(tzinfo=None, microsecond=0)

    def true_us(self, local: datetime) -> int | None:
        """The last true instant at which the device showed `local`; None = it never did (skipped when it was set)."""
        shown = business_to_us(local)
        for i in range(len(self._lines) - 1, -1, -1):
            line = self._lines[i]
            true = line.true(shown)
            end = self._lines[i + 1].start_us if i + 1 < len(self._lines) else None
            if (i == 0 or true >= line.start_us) and (end is None or true < end):
                return true
        return None

    def set(self, at_us: int, local: datetime) -> None:
        """Set the clock at a true instant; its drift stays."""
        drift = self._lines[-1].drift
        self._lines.append(_Line(at_us, business_to_us(local) - at_us, drift))

    def disturb(self, at_us: int, offset_s: float = 0.0, drift_s_per_day: float | None = None) -> None:
        """A fault: the clock jumps by `offset_s` and from now on drifts (None: as before)."""
        drift = self._lines[-1].drift if drift_s_per_day is None else drift_s_per_day / 86_400
        self._lines.append(_Line(at_us, self.offset_us(at_us) + int(offset_s * US), drift))


def month_start(local: datetime, back: int = 0) -> datetime:
    """00:00 of the first day of the month `back` months before the one that holds `local`."""
    month = local.year * 12 + local.month - 1 - back
    return datetime(month // 12, month % 12 + 1, 1)  # noqa: DTZ001 - a device's naive local time


def midnight(local: datetime, back: int = 0) -> datetime:
    """00:00 of the day `back` days before the one that holds `local`."""
    return local.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=back)
