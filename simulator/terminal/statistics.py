"""Statistics of a day or a month (0D F25–F31, F43, F57): from the minute values, as a terminal counts them.

Arrays in, quantity names out; the names are those of the rows. Minutes for which nothing was recorded count nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...model.readings import F8, I8
from ...model.times import US
from . import fields
from .points import PointBook, Totals

MINUTE_US: Final = 60 * US
Local = Callable[[int], datetime]
Found = dict[str, object]
Mask = NDArray[np.bool_]
PHASES: Final = ("", "_a", "_b", "_c")
ZERO_KW: Final = 0.00005
"""Powers below half of the last digit of A.9 count as none."""


def minutes_of(start_us: int, end_us: int) -> I8:
    """The minutes of a span, each by its end."""
    return np.arange(start_us + MINUTE_US, end_us + 1, MINUTE_US, dtype=np.int64)


def _extreme(values: F8, times: I8, local: Local, *, low: bool = False) -> tuple[float | None, datetime | None]:
    if not len(values) or np.isnan(values).all():
        return None, None
    place = int(np.nanargmin(values) if low else np.nanargmax(values))
    return float(values[place]), local(int(times[place]))


def _count(holds: Mask) -> int:
    """Minutes; what was not recorded compares as false."""
    return int(np.sum(holds))


def power_extremes(points: PointBook, pn: int, times: I8, local: Local) -> Found:
    """F25: maximum power with its time, minutes without power; total and phases."""
    out: Found = {}
    for phase in PHASES:
        values = points.series(pn, f"active_power{phase or '_total'}", times)
        out[f"max_active_power{phase}"], out[f"max_active_power{phase}_time"] = _extreme(values, times, local)
        out[f"zero_power_minutes{phase}"] = _count(values < ZERO_KW)
    return out


def demand_extremes(points: PointBook, pn: int, times: I8, local: Local) -> Found:
    """F26: the highest 15-minute mean of the period with the time of its end."""
    out: Found = {}
    ends = times[14::15]
    for phase in PHASES:
        values = points.series(pn, f"active_power{phase or '_total'}", times)
        blocks = values[: len(ends) * 15].reshape(len(ends), 15).mean(axis=1)
        out[f"max_active_demand{phase}"], out[f"max_active_demand{phase}_time"] = _extreme(blocks, ends, local)
    return out


def voltage(points: PointBook, pn: int, times: I8, local: Local, limits: fields.Data | None) -> Found:
    """F27: minutes in each band of F26, extremes and averages; a minute without supply is in no band."""
    out: Found = {}
    high, low = fields.number(limits, "u_high_v", 1e9), fields.number(limits, "u_low_v", 0.0)
    upper, lower = fields.number(limits, "u_upper_v", 1e9), fields.number(limits, "u_lower_v", 0.0)
    assert high is not None and low is not None and upper is not None and lower is not None
    for phase in "abc":
        values = points.series(pn, f"voltage_{phase}", times)
        counts = {
            "over_high": _count(values > high), "under_low": _count(values < low),
            "over": _count(values > upper), "under": _count(values < lower),
        }  # fmt: skip
        seen = int(np.sum(~np.isnan(values)))
        counts["qualified"] = seen - counts["over"] - counts["under"]
        for name, count in counts.items():
            out[f"voltage_{name}_minutes_{phase}"] = count if seen else None
        for name in ("over", "under", "qualified"):
            out[f"voltage_{name}_rate_{phase}"] = counts[name] / seen * 100 if seen else None
        out[f"voltage_max_{phase}"], out[f"voltage_max_{phase}_time"] = _extreme(values, times, local)
        out[f"voltage_min_{phase}"], out[f"voltage_min_{phase}_time"] = _extreme(values, times, local, low=True)
        out[f"voltage_average_{phase}"] = float(np.nanmean(values)) if seen else None
    return out


def unbalance(points: PointBook, pn: int, times: I8, local: Local, limits: fields.Data | None) -> Found:
    """F28: minutes over the limits of F26 and the highest unbalance."""
    out: Found = {}
    for name, letter in (("current", "i"), ("voltage", "u")):
        rows = np.stack([points.series(pn, f"{name}_{p}", times) for p in "abc"])
        fitted = ~np.isnan(rows).all(axis=1)
        if fitted.sum() < 2:
            out |= dict.fromkeys((f"{name}_unbalance_minutes", f"{name}_unbalance_max", f"{name}_unbalance_max_time"))
            continue
        rows = rows[fitted]
        top = rows.max(axis=0)
        share = np.where(top > 0, (top - rows.min(axis=0)) / np.where(top > 0, top, 1) * 100, 0.0)
        share = np.where(np.isnan(top), np.nan, share)
        limit = fields.number(limits, f"{letter}_unbalance_percent", 1e9)
        assert limit is not None
        out[f"{name}_unbalance_minutes"] = _count(share > limit)
        out[f"{name}_unbalance_max"], out[f"{name}_unbalance_max_time"] = _extreme(share, times, local)
    return out


def current(points: PointBook, pn: int, times: I8, local: Local, limits: fields.Data | None) -> Found:
    """F29: minutes over the limits of F26 and the highest currents."""
    out: Found = {}
    bounds = {
        "over_high": fields.number(limits, "i_high_a", 1e9), "over": fields.number(limits, "i_upper_a", 1e9),
        "zero": fields.number(limits, "i0_upper_a", 1e9),
    }  # fmt: skip
    for phase in "abcn":
        values = points.series(pn, f"current_{phase}", times)
        for name in ("over",) if phase == "n" else ("over_high", "over"):
            limit = bounds["zero" if phase == "n" else name]
            assert limit is not None
            out[f"current_{name}_minutes_{phase}"] = _count(values > limit)
        out[f"current_max_{phase}"], out[f"current_max_{phase}_time"] = _extreme(values, times, local)
    return out


def apparent(
    points: PointBook, pn: int, times: I8, rated_kva: float | None, limits: fields.Data | None, local: Local
) -> Found:
    """F30 and F31: minutes over the limits of F26, load rate against the rated load of F25."""
    values = points.series(pn, "apparent_power_total", times)
    out: Found = {}
    for name, key in (("over_high", "s_high_kva"), ("over", "s_upper_kva")):
        limit = fields.number(limits, key, 1e9)
        assert limit is not None
        out[f"apparent_{name}_minutes"] = _count(values > limit)
    if rated_kva:
        share = values / rated_kva * 100
        out["load_rate_max"], out["load_rate_max_time"] = _extreme(share, times, local)
        out["load_rate_min"], out["load_rate_min_time"] = _extreme(share, times, local, low=True)
    return out


def power_factor(points: PointBook, pn: int, times: I8, sections: fields.Data | None) -> Found:
    """F43: minutes below, between and above the limits of F28 (85 % and 90 % where not set)."""
    values = points.series(pn, "power_factor_total", times) * 100
    one = fields.number(sections, "limit_1_percent", 85.0)
    two = fields.number(sections, "limit_2_percent", 90.0)
    assert one is not None and two is not None
    return {
        "power_factor_low_minutes": _count(values < one),
        "power_factor_middle_minutes": _count((values >= one) & (values < two)),
        "power_factor_high_minutes": _count(values >= two),
    }


def group_power(totals: Totals, group: int, times: I8, local: Local) -> Found:
    """F57: extremes of a group's power and minutes without power."""
    values = totals.power(group, times)
    if values is None:
        return {}
    out: Found = {"group_zero_power_minutes": _count(values < ZERO_KW)}
    out["group_power_max"], out["group_power_max_time"] = _extreme(values, times, local)
    out["group_power_min"], out["group_power_min_time"] = _extreme(values, times, local, low=True)
    return out


def point_statistics(
    points: PointBook,
    pn: int,
    span: tuple[int, int],
    local: Local,
    parameters: Mapping[str, fields.Data | None],
    what: str,
) -> Found:
    """Everything that the row called `what` (without day_ or month_) needs."""
    times = minutes_of(*span)
    limits, base, sections = (parameters.get(k) for k in ("limits", "base", "sections"))
    match what:
        case "power_extremes":
            return power_extremes(points, pn, times, local)
        case "demand_extremes":
            return demand_extremes(points, pn, times, local)
        case "voltage_statistics":
            return voltage(points, pn, times, local, limits)
        case "unbalance":
            return unbalance(points, pn, times, local, limits)
        case "current_statistics":
            return current(points, pn, times, local, limits)
        case "apparent_statistics" | "load_rates":
            return apparent(points, pn, times, fields.number(base, "rated_kva"), limits, local)
        case "power_factor_sections":
            return power_factor(points, pn, times, sections)
    return {}
