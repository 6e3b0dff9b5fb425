"""Load characteristics of days, months and years (负荷率, 峰谷差, 最大负荷利用小时): domain 4.4.

Import power max(P, 0) and net power are computed apart. A day below 75 % of its slots has no figures; estimated slots
count in the energy but never make a maximum or minimum. Pmax = 0 makes every ratio NULL.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .masks import B1, F8, I2, I8, DayFlag, day_flag, divide, masked_max, masked_min, masked_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadDay:
    """Figures of one day; every array (points,). kW, kWh, ratios 0..1; slots -1 and values NaN where NULL.

    energy_kwh: sum of what is there, no extrapolation; load_factor: mean / max over the valid slots, which is
    E_day / (24 Pmax) when the day is whole; valid: measured slots; flag: DayFlag.
    """

    energy_kwh: F8
    mean_kw: F8
    max_kw: F8
    max_slot: I8
    min_kw: F8
    min_slot: I8
    load_factor: F8
    min_rate: F8
    difference_kw: F8
    difference_rate: F8
    valid: I8
    flag: I2


def load_day(kw: F8, ok: B1, step_s: int, estimated: B1 | None = None) -> LoadDay:
    """Figures of the power (points, slots) as given (net); give `np.maximum(kw, 0)` for the import side."""
    usable = ok if estimated is None else ok | estimated
    valid = ok.sum(axis=-1)
    flag = day_flag(valid, kw.shape[-1])
    enough = flag != DayFlag.INSUFFICIENT
    covered = day_flag(usable.sum(axis=-1), kw.shape[-1]) != DayFlag.INSUFFICIENT
    count = usable.sum(axis=-1).astype(np.float64)
    total = masked_sum(kw, usable)
    mean = divide(total, count)
    top, top_slot = masked_max(kw, ok)
    low, low_slot = masked_min(kw, ok)

    def keep(x: F8) -> F8:
        return np.where(enough, x, np.nan)

    return LoadDay(
        energy_kwh=np.where(covered, total * (step_s / 3600.0), np.nan),
        mean_kw=keep(mean),
        max_kw=keep(top),
        max_slot=np.where(enough, top_slot, -1),
        min_kw=keep(low),
        min_slot=np.where(enough, low_slot, -1),
        load_factor=keep(divide(mean, top)),
        min_rate=keep(divide(low, top)),
        difference_kw=keep(top - low),
        difference_rate=keep(divide(top - low, top)),
        valid=valid,
        flag=flag,
    )


def capacity_use(p_kw: F8, q_kvar: F8, ok: B1, running_kva: F8) -> F8:
    """Smax / S_run (points,): the largest apparent power of the valid slots over the running capacity."""
    s_max, _ = masked_max(np.hypot(p_kw, q_kvar), ok)
    return divide(s_max, running_kva)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadMonth:
    """Two month load factors that are often confused: the mean of the days', and E / (hours x Pmax of the month)."""

    mean_daily_load_factor: F8
    month_load_factor: F8
    max_kw: F8
    days_used: I8


def load_month(energy_kwh: F8, max_kw: F8, load_factor: F8, hours_per_day: float = 24.0) -> LoadMonth:
    """From day figures (points, days), NaN = no figure: such a day counts neither in the energy nor in the hours."""
    ok = np.isfinite(energy_kwh) & np.isfinite(max_kw)
    days = ok.sum(axis=-1)
    top, _ = masked_max(max_kw, ok)
    factor_ok = np.isfinite(load_factor)
    return LoadMonth(
        mean_daily_load_factor=divide(masked_sum(load_factor, factor_ok), factor_ok.sum(axis=-1).astype(np.float64)),
        month_load_factor=divide(masked_sum(energy_kwh, ok), days * hours_per_day * top),
        max_kw=top,
        days_used=days,
    )


def use_hours(year_kwh: F8, year_max_kw: F8) -> F8:
    """Tmax = E_year / Pmax_year, hours."""
    return divide(year_kwh, year_max_kw)


def season_imbalance(month_max_kw: F8) -> F8:
    """Sum of the 12 monthly maxima / (12 x annual maximum); NaN unless all twelve are there."""
    whole = np.isfinite(month_max_kw).all(axis=-1) & (month_max_kw.shape[-1] == 12)
    safe = np.where(np.isfinite(month_max_kw), month_max_kw, 0.0)
    return np.where(whole, divide(safe.sum(axis=-1), 12.0 * safe.max(axis=-1)), np.nan)
