"""Where the quantities of a data unit come from: a measuring point or a total-add group, at an instant.

A source is asked for a quantity by the name that the protocol's table uses and gives a number, a local time or None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from ...model.times import US
from ..clock import midnight, month_start
from ..meter import SimMeter
from . import statistics
from .control import Control
from .fill import Source
from .parts import Parts

COUNTS: Final = {
    "programming_count": "programming", "meter_clear_count": "meter_clear", "demand_clear_count": "demand_clear",
    "event_clear_count": "event_clear", "clock_set_count": "clock_set", "cover_open_count": "cover_open",
}  # fmt: skip
ANGLES: Final = {"a": 0.0, "b": 120.0, "c": 240.0}
SILENT_KINDS: Final = ("phase_loss_count", "phase_loss_minutes")
STATISTICS: Final = (
    "power_extremes", "demand_extremes", "voltage_statistics", "unbalance", "current_statistics", "apparent_statistics",
    "load_rates", "power_factor_sections",
)  # fmt: skip


def point_source(parts: Parts, pn: int, at_us: int, *, live: bool = False, interval_us: int = 900 * US) -> Source:
    """Quantities of a measuring point. live: only while its meter answers; interval_us: span of an interval energy."""
    points, clock = parts.points, parts.clock
    meter = points.meter(pn)
    if meter is None or (live and not points.answers(pn, at_us)):
        return lambda quantity: None

    def series(name: str, at: int) -> float:
        try:
            return float(points.series(pn, name, [at])[0])
        except KeyError:
            return math.nan

    def moment(seconds: float) -> datetime | None:
        return None if math.isnan(seconds) else clock.local(int(seconds) * US)

    def source(quantity: str) -> object:
        for prefix, start in (("day_", midnight), ("month_", month_start)):
            if quantity.startswith(prefix) and "_energy" in quantity:
                begin = clock.true_us(start(clock.local(at_us - US)))
                name = quantity.removeprefix(prefix).replace("_energy", "")
                return None if begin is None else series(name, at_us) - series(name, begin)
        if quantity in COUNTS:
            return meter.counters.get(COUNTS[quantity], 0)
        if quantity.startswith(SILENT_KINDS):
            return 0
        if quantity.endswith("_demand_time") or (quantity.endswith("_time") and "_demand_t" in quantity):
            return moment(series(quantity, at_us))
        if quantity.startswith(("voltage_angle_", "current_angle_")):
            return _angle(series, quantity, at_us)
        if quantity in ("forward_active_energy", "forward_reactive_energy", "reverse_active_energy",
                        "reverse_reactive_energy"):  # fmt: skip
            name = quantity.replace("_energy", "_total")
            return series(name, at_us) - series(name, at_us - interval_us)
        return series(quantity, at_us)

    return source


def _angle(series: object, quantity: str, at_us: int) -> float | None:
    assert callable(series)
    phase = quantity[-1]
    if math.isnan(series(f"voltage_{phase}", at_us)):
        return None
    behind = series(f"phase_angle_{phase}", at_us) if quantity.startswith("current") else 0.0
    return float((ANGLES[phase] + behind) % 360)


def statistic_source(parts: Parts, pn: int, span: tuple[int, int], what: str) -> Source:
    """Quantities of one statistics row of a measuring point."""
    parameters: Mapping[str, dict[str, object] | None] = {
        "limits": parts.parameters.get(26, pn), "base": parts.parameters.get(25, pn),
        "sections": parts.parameters.get(28, pn),
    }  # fmt: skip
    found = statistics.point_statistics(parts.points, pn, span, parts.clock.local, parameters, what)
    return found.get


def group_source(parts: Parts, control: Control, group: int, at_us: int, *, interval_us: int = 900 * US) -> Source:
    """Quantities of a total-add group."""
    totals, clock = parts.totals, parts.clock

    def energy(start_us: int | None, end_us: int, quantity: str) -> float | None:
        kind = "reactive" if "reactive" in quantity else "active"
        found = totals.energy(group, start_us, end_us, kind) if start_us is not None else None
        if found is None:
            return None
        place = int(quantity[-1]) if quantity[-1].isdigit() else 0
        return found[place] if place < len(found) else None

    def source(quantity: str) -> object:
        match quantity:
            case "group_power":
                return totals.power_now(group, at_us)
            case "group_reactive_power":
                return totals.power_now(group, at_us, "reactive")
            case "group_remaining":
                return control.energy[group].remaining(at_us)
            case "group_frozen_power":
                return control.power[group].frozen_kw
            case "group_active_energy" | "group_reactive_energy":
                return energy(at_us - interval_us, at_us, quantity)
        if quantity.startswith("group_day_"):
            return energy(clock.true_us(midnight(clock.local(at_us - US))), at_us, quantity)
        if quantity.startswith("group_month_"):
            start = clock.true_us(month_start(clock.local(at_us - US)))
            return energy(None if start is None else max(start, parts.points.since_us), at_us, quantity)
        return None

    return source


def event_time(parts: Parts, meter: SimMeter, kind: str) -> datetime | None:
    """Meter's time of the last event of a kind."""
    found = meter.last_events(kind)
    return meter.clock.local(found[0].start_us) if found else None
