"""What the parameters mean for the terminal's own work: typed, with the defaults of an unset class.

The only place that knows the field names of AFN 04 besides the protocol's tables. Powers are primary kW, energies
primary kWh, local times naive readings of the terminal's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Final, Literal

from . import fields
from .parameters import Parameters

ALL_ERC: Final = frozenset(range(1, 65))
CLASS_1_CON, CLASS_2_CON, CLASS_3_CON = 1, 2, 4
MAX_PERIOD: Final = 8


@dataclass(frozen=True, slots=True)
class Uplink:
    """F1: seconds and minutes of the connection."""

    timeout_s: int
    retries: int
    con_flags: int
    heartbeat_min: int


@dataclass(frozen=True, slots=True)
class Member:
    """One measuring point of a total-add group."""

    pn: int
    reverse: bool
    subtract: bool


@dataclass(frozen=True, slots=True)
class Window:
    """Limit of plant-rest control (F42)."""

    limit_kw: float
    start: time
    minutes: int
    weekdays: frozenset[int]

    def holds(self, local: datetime) -> bool:
        """Inside the window; one that crosses midnight belongs to the weekday of its start."""
        for back in (0, 1):
            day = local.date() - timedelta(days=back)
            if day.isoweekday() in self.weekdays:
                begin = datetime.combine(day, self.start)
                if begin <= local < begin + timedelta(minutes=self.minutes):
                    return True
        return False


@dataclass(frozen=True, slots=True)
class Suspension:
    """Limit of business-suspension control (F44): from `start` 00:00 until `end` 00:00."""

    limit_kw: float
    start: date
    end: date

    def holds(self, local: datetime) -> bool:
        """Inside the suspension."""
        return self.start <= local.date() < self.end


@dataclass(frozen=True, slots=True)
class Purchase:
    """F47 as it was sent."""

    order: int
    add: bool
    amount: float
    alarm: float
    trip: float


@dataclass(frozen=True, slots=True)
class Task:
    """F65 / F66: report `ids` every `period` units from `base` on."""

    unit: Literal["min", "hour", "day", "month"]
    period: int
    base: datetime
    ratio: int
    ids: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


class Settings:
    """Reads `parameters` each time it is asked; edition: "2005", "2009" or "2013"."""

    def __init__(self, parameters: Parameters, edition: str) -> None:
        self._parameters = parameters
        self.edition = edition

    def _get(self, fn: int, pn: int = 0) -> fields.Data | None:
        return self._parameters.get(fn, pn)

    # --- link and events --------------------------------------------------------------------------------------

    def uplink(self) -> Uplink:
        """Defaults of common front ends where F1 is not set."""
        f1 = self._get(1)
        return Uplink(
            timeout_s=fields.integer(f1, "timeout_s", 10) or 10,
            retries=fields.integer(f1, "retries", 3),
            con_flags=fields.integer(f1, "con_flags", 4),
            heartbeat_min=fields.integer(f1, "heartbeat_min", 15) or 15,
        )

    def redial_s(self) -> int:
        """F8 (not 2005): pause between two connections."""
        return (fields.integer(self._get(8), "redial_interval_s", 30) or 30) if self.edition != "2005" else 30

    def group_addresses(self) -> frozenset[int]:
        """F6."""
        return frozenset(int(n) for n in fields.numbers(self._get(6), "addresses") if n)

    def scheme(self) -> int:
        """F5: authentication scheme, 0 = not checked."""
        return fields.integer(self._get(5), "scheme")

    def event_masks(self) -> tuple[frozenset[int], frozenset[int]]:
        """(recorded, important) ERC numbers; all recorded and the usual ones important where not set."""
        data = self._get(8 if self.edition == "2005" else 9)
        if data is None:
            return ALL_ERC, DEFAULT_IMPORTANT
        return fields.bits(data, "record"), fields.bits(data, "important")

    def auto_protect_hours(self) -> int:
        """F58: 0 = off."""
        return fields.integer(self._get(58), "hours")

    def month_traffic(self) -> int:
        """F36: bytes, 0 = none."""
        return fields.integer(self._get(36), "month_bytes")

    def state_inputs(self) -> tuple[frozenset[int], frozenset[int]]:
        """F12: (enabled, of these the normally open) inputs; all eight where not set or not readable (2005)."""
        data = self._get(12)
        if data is None or "enabled" not in data:
            return frozenset(range(1, 9)), frozenset(range(1, 9))
        return fields.bits(data, "enabled"), fields.bits(data, "normally_open")

    # --- points and groups ------------------------------------------------------------------------------------

    def ratios(self, pn: int) -> tuple[float, float]:
        """(PT, CT) of a point as the terminal was told (F25), which need not be true."""
        f25 = self._get(25, pn)
        return float(fields.integer(f25, "pt_ratio", 1) or 1), float(fields.integer(f25, "ct_ratio", 1) or 1)

    def groups(self) -> dict[int, tuple[Member, ...]]:
        """F14: members of each total-add group."""
        out = {}
        for entry in self._parameters.entries(14):
            out[fields.integer(entry, "group")] = tuple(
                Member(fields.integer(m, "pn"), bool(m.get("reverse")), bool(m.get("subtract")))
                for m in fields.rows(entry, "points")
            )
        return out

    def tariffs(self, pn: int) -> int:
        """Number of tariffs of the device of a point (F10), 4 where none is given."""
        found = (fields.integer(e, "tariffs") for e in self._parameters.entries(10) if fields.integer(e, "pn") == pn)
        return next((n for n in found if n), 4)

    # --- load control -----------------------------------------------------------------------------------------

    def security_kw(self) -> float:
        """F17 保安定值."""
        return fields.number(self._get(17), "limit_kw") or 0.0

    def period(self, local: datetime) -> tuple[int, int]:
        """F18: (number of the control period, its code); number 0 = past the eighth, code 0 = no control now."""
        codes = [int(c or 0) for c in fields.numbers(self._get(18), "half_hours")]
        if len(codes) != 48:
            return 0, 0
        now = local.hour * 2 + local.minute // 30
        number = 1 + sum(a != b for a, b in pairwise(codes[: now + 1]))
        return (number if number <= MAX_PERIOD else 0), codes[now]

    def period_limit(self, group: int, scheme: int, period: int) -> float | None:
        """F41 of scheme 1..3 and period 1..8, floated by F19."""
        data = self._get(41, group)
        schemes = sorted(fields.bits(data, "schemes"))
        if scheme not in schemes:
            return None
        limits = fields.rows(data, "limits")
        entry = limits[schemes.index(scheme)] if len(limits) == len(schemes) else None
        periods = sorted(fields.bits(entry, "periods"))
        values = fields.numbers(entry, "limits_kw")
        if period not in periods or len(values) != len(periods):
            return None
        value = values[periods.index(period)]
        return None if value is None else value * (1 + self.float_share(19))

    def float_share(self, fn: int) -> float:
        """F19 or F20 as a share: -0.12 for 12 % down."""
        return (fields.number(self._get(fn), "float_percent") or 0.0) / 100

    def rest_window(self, group: int) -> Window | None:
        """F42."""
        data = self._get(42, group)
        limit, start = fields.number(data, "limit_kw"), fields.clock_time(data, "start")
        if limit is None or start is None:
            return None
        return Window(limit, start, fields.integer(data, "half_hours") * 30, fields.bits(data, "weekdays"))

    def suspension(self, group: int) -> Suspension | None:
        """F44."""
        data = self._get(44, group)
        limit, start, end = fields.number(data, "limit_kw"), fields.day(data, "start"), fields.day(data, "end")
        return None if limit is None or start is None or end is None else Suspension(limit, start, end)

    def slide_min(self, group: int) -> int:
        """F43: 1..60."""
        return min(max(fields.integer(self._get(43, group), "slide_min", 1), 1), 60)

    def power_rounds(self, group: int) -> tuple[int, ...]:
        """F45, ascending."""
        return tuple(sorted(fields.bits(self._get(45, group), "rounds")))

    def energy_rounds(self, group: int) -> tuple[int, ...]:
        """F48, ascending."""
        return tuple(sorted(fields.bits(self._get(48, group), "rounds")))

    def alarm_min(self, number: int) -> int:
        """F49 of a round."""
        return fields.integer(self._get(49, number), "alarm_min", 1)

    def month_limit(self, group: int) -> tuple[float, float] | None:
        """F46: (limit floated by F20, alarm limit) in kWh; the alarm comes at 80 % where no coefficient is given."""
        data = self._get(46, group)
        limit = fields.number(data, "limit")
        if limit is None:
            return None
        return limit * (1 + self.float_share(20)), limit * fields.integer(data, "alarm_percent", 80) / 100

    # --- meters -----------------------------------------------------------------------------------------------

    def clock_threshold_s(self) -> float:
        """F59: deviation of a meter's clock that is an event (5 minutes where not set)."""
        f59 = self._get(59)
        if f59 and "clock_s" in f59:
            return float(fields.integer(f59, "clock_s", 300))
        return fields.integer(f59, "clock_min", 5) * 60.0

    def limits(self, pn: int) -> fields.Data | None:
        """F26 of a point."""
        return self._get(26, pn)

    def task(self, fn: int, number: int) -> Task | None:
        """F65 or F66 of a task; None = not set or not readable."""
        data = self._get(fn, number)
        base, unit = fields.moment(data, "base_time"), (data or {}).get("unit")
        period = fields.integer(data, "period")
        if base is None or unit not in ("min", "hour", "day", "month") or not 1 <= period <= 63:
            return None
        ids = tuple(
            (tuple(sorted(fields.bits(e, "pn"))), tuple(sorted(fields.bits(e, "fn")))) for e in fields.rows(data, "ids")
        )
        return Task(unit, period, base, max(fields.integer(data, "ratio", 1), 1), ids)

    def task_runs(self, fn: int, number: int) -> bool:
        """F67 or F68: started."""
        return fields.integer(self._get(fn, number), "switch") == 0x55

    def task_numbers(self, fn: int) -> tuple[int, ...]:
        """Tasks that are set."""
        return tuple(sorted(pn for f, pn in self._parameters.values if f == fn))


DEFAULT_IMPORTANT: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 10, 14, 19, 20, 21, 23, 25})
