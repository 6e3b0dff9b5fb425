"""Usage analysis 用电分析 of a customer's months: changes, temperature, holidays, prices, decline (domain 4.15).

Rows are points, NaN = not known; nothing is estimated or scaled up here. Group rows (voltage level, industry, feeder)
are made by the caller by adding the points' energies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from .masks import B1, F8, I8, divide

HOT_C: Final = 26.0
COLD_C: Final = 10.0
FIT_DAYS: Final = 10  # fewer days tell nothing about a slope (ours)
DECLINE: Final = 0.30
DECLINE_MONTHS: Final = 3


def change(now: F8, before: F8) -> F8:
    """Growth (now - before) / before as a fraction: against last month, or the same month of last year."""
    return divide(now - before, before)


def shares(kwh: F8) -> F8:
    """Shares of the tariffs (points, tariffs); NaN where one of them is missing or nothing was used."""
    return divide(kwh, kwh.sum(axis=-1, keepdims=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """kW per °C (points,): more load per degree above 26 °C and per degree below 10 °C; days: how many carried it."""

    hot: F8
    hot_days: I8
    cold: F8
    cold_days: I8


def temperature_sensitivity(load_kw: F8, temperature_c: F8, workday: B1) -> Sensitivity:
    """Robust slope of a day's load (points, days) over its temperature (days,), on workdays alone.

    Theil-Sen: the median of the slopes of all pairs of days, which a third of odd days does not move. NaN with fewer
    than ten days. Memory: points x days² / 2 floats; give chunks of some thousand points.
    """

    def slope(side: B1) -> tuple[F8, I8]:
        use = np.isfinite(load_kw[:, side])
        count = use.sum(axis=-1)
        kw, t = load_kw[:, side], temperature_c[side]
        i, j = np.triu_indices(len(t), 1)
        apart = t[i] != t[j]
        i, j = i[apart], j[apart]
        if not len(i):
            return np.full(len(kw), np.nan), count
        pair = np.sort((kw[:, j] - kw[:, i]) / (t[j] - t[i]), axis=-1)  # NaN goes last
        have = np.isfinite(pair).sum(axis=-1)
        row = np.arange(len(pair))
        middle = (pair[row, np.maximum(have - 1, 0) // 2] + pair[row, np.minimum(have // 2, pair.shape[1] - 1)]) / 2
        return np.where((count >= FIT_DAYS) & (have > 0), middle, np.nan), count

    known = np.isfinite(temperature_c) & workday
    warm = np.where(known, temperature_c, 20.0)
    hot, hot_days = slope(known & (warm > HOT_C))
    cold, cold_days = slope(known & (warm < COLD_C))
    return Sensitivity(hot=hot, hot_days=hot_days, cold=-cold, cold_days=cold_days)


def _day_mean(value: F8, day: B1) -> F8:
    there = np.isfinite(value) & day
    return divide(np.where(there, value, 0.0).sum(axis=-1), there.sum(axis=-1).astype(np.float64))


def holiday_drop(day_kwh: F8, holiday: B1, workday: B1) -> F8:
    """1 - mean energy of holidays / mean energy of workdays, (points,), of day energies (points, days)."""
    return 1.0 - divide(_day_mean(day_kwh, holiday), _day_mean(day_kwh, workday))


def profiles(kw: F8, ok: B1, kind: I8, kinds: int) -> F8:
    """Mean power per slot and kind of day, (points, kinds, slots), of (points, days, slots) and kind (days,)."""
    out = np.full((kw.shape[0], kinds, kw.shape[2]), np.nan)
    for k in range(kinds):
        days = kind == k
        use = ok[:, days]
        total = np.where(use, kw[:, days], 0.0).sum(axis=1)
        out[:, k] = divide(total, use.sum(axis=1).astype(np.float64))
    return out


def price_response(peak_before: F8, peak_after: F8, class_before: float, class_after: float) -> F8:
    """Change of the peak share after a change of tariff or table, less that of a class for which nothing changed."""
    return (peak_after - peak_before) - (class_after - class_before)


def declining(month_kwh: F8, last_year_kwh: F8) -> B1:
    """The last three months (points, >= 3) each more than 30 % below the same months of last year: a manager calls."""
    if month_kwh.shape[-1] < DECLINE_MONTHS:
        return np.zeros(len(month_kwh), np.bool_)
    growth = change(month_kwh[:, -DECLINE_MONTHS:], last_year_kwh[:, -DECLINE_MONTHS:])
    with np.errstate(invalid="ignore"):
        fallen: B1 = np.logical_and.reduce(growth < -DECLINE, axis=-1)
    return fallen


def production_index(month_kwh: F8, running_kva: F8) -> F8:
    """kWh per kVA of running capacity and month."""
    return divide(month_kwh, running_kva)
