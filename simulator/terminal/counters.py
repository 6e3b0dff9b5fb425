"""What a terminal counts by day and month: trips, bytes over the air, minutes with supply, restarts (0D F49–F54)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final, Literal

TripKind = Literal["month", "purchase", "power", "remote"]
TRIP_KINDS: Final[tuple[TripKind, ...]] = ("month", "purchase", "power", "remote")
DAYS_KEPT: Final = 62
MONTHS_KEPT: Final = 14


@dataclass(slots=True)
class _Span:
    trips: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TRIP_KINDS, 0))
    traffic: int = 0
    resets: int = 0
    over: dict[tuple[int, str], list[float]] = field(default_factory=dict)


@dataclass(slots=True)
class Counters:
    """Days are those of the terminal's own clock. installed: before that day nothing was counted."""

    _days: defaultdict[date, _Span] = field(default_factory=lambda: defaultdict(_Span))
    _months: defaultdict[tuple[int, int], _Span] = field(default_factory=lambda: defaultdict(_Span))
    _down: list[tuple[datetime, datetime | None]] = field(default_factory=list)

    def _spans(self, local: datetime) -> tuple[_Span, _Span]:
        spans = self._days[local.date()], self._months[local.year, local.month]
        while len(self._days) > DAYS_KEPT:
            del self._days[min(self._days)]
        while len(self._months) > MONTHS_KEPT:
            del self._months[min(self._months)]
        return spans

    def trip(self, local: datetime, kind: TripKind) -> None:
        """A control tripped."""
        for span in self._spans(local):
            span.trips[kind] += 1

    def carried(self, local: datetime, size: int) -> None:
        """Bytes sent or received."""
        for span in self._spans(local):
            span.traffic += size

    def reset(self, local: datetime) -> None:
        """The terminal started anew."""
        for span in self._spans(local):
            span.resets += 1

    def power(self, local: datetime, *, on: bool) -> None:
        """The supply of the terminal came or went."""
        if on and self._down and self._down[-1][1] is None:
            self._down[-1] = (self._down[-1][0], local)
        elif not on:
            self._down.append((local, None))
            del self._down[:-DAYS_KEPT]

    def over_limit(self, local: datetime, group: int, kind: Literal["power", "energy"], kwh: float) -> None:
        """A minute above the limit in force, with the energy of that minute."""
        for span in self._spans(local):
            one = span.over.setdefault((group, kind), [0, 0.0])
            one[0] += 1
            one[1] += kwh

    def over(self, key: date | tuple[int, int], group: int) -> dict[str, object]:
        """0D F65 and F66: minutes and energy above the limits."""
        span = self._find(key)
        power, energy = (span.over.get((group, k), [0, 0.0]) for k in ("power", "energy"))
        return {
            "group_over_power_minutes": power[0], "group_over_power_energy": power[1],
            "group_over_energy_minutes": energy[0], "group_over_energy": energy[1],
        }  # fmt: skip

    def trips(self, key: date | tuple[int, int]) -> dict[str, int]:
        """Trips of a day or a (year, month), by kind."""
        return dict(self._find(key).trips)

    def traffic(self, key: date | tuple[int, int]) -> int:
        """Bytes of a day or month."""
        return self._find(key).traffic

    def resets(self, key: date | tuple[int, int]) -> int:
        """Restarts of a day or month."""
        return self._find(key).resets

    def powered_min(self, start: datetime, end: datetime) -> int:
        """Whole minutes with supply between two local instants."""
        gone = timedelta()
        for begin, back in self._down:
            gone += max(min(back or end, end) - max(begin, start), timedelta())
        return max(int((end - start - gone).total_seconds() // 60), 0)

    def _find(self, key: date | tuple[int, int]) -> _Span:
        if isinstance(key, tuple):
            return self._months.get(key, _Span())
        return self._days.get(key, _Span())

    def clear(self) -> None:
        """An initialised data area."""
        self._days.clear()
        self._months.clear()
        self._down.clear()
