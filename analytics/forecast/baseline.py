"""Load as it would have been without control or outage (domain 8.10), put in place of what was disturbed.

Baseline B(t): mean of the same slot of the five newest like days before, without disturbed, holiday or odd days (below
75 % or above 125 % of their mean), times clip(mean P of 3 h to 1 h before the window / mean B there, 0.8, 1.2). A
history that keeps the cut load teaches a forecaster that the load falls at that hour; this is what keeps it from it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..masks import B1, F8
from .calendar import DayTypes

LIKE_DAYS: Final = 5
SEARCH_DAYS: Final = 45
ODD_LOW, ODD_HIGH = 0.75, 1.25
LEAST, MOST = 0.8, 1.2


def undisturbed(x: F8, disturbed: B1, types: DayTypes) -> tuple[F8, B1]:
    """x (days, slots) with its disturbed slots replaced by the baseline, NaN where no like day is known.

    Returns also where a baseline stands (days, slots). types: of the same days, from the first on.
    """
    out = x.copy()
    out[disturbed] = np.nan
    replaced = np.zeros(x.shape, np.bool_)
    slots = x.shape[1]
    marked: B1 = np.asarray(disturbed.any(axis=1))
    for day in np.flatnonzero(marked):
        base = _like_mean(x, int(day), marked, types)
        if base is None:
            continue
        window = np.flatnonzero(disturbed[day])
        # a second window of the day follows what is beside its own beginning
        for part in np.split(window, np.flatnonzero(np.diff(window) > 1) + 1):
            curve = base[part] * _adjustment(out, base, int(day), int(part[0]), slots)
            out[day, part] = curve
            replaced[day, part] = np.isfinite(curve)
    return out, replaced


def _like_mean(x: F8, day: int, marked: B1, types: DayTypes) -> F8 | None:
    """Mean curve of the like days before `day`, None without any."""
    days = np.arange(max(day - SEARCH_DAYS, 0), day)[::-1]
    alike = (types.rest[days] == types.rest[day]) & ~marked[days] & (types.holiday[days] == types.holiday[day])
    days = days[alike & (np.isfinite(x[days]).mean(axis=1) > 0.5)][: 2 * LIKE_DAYS]
    while len(days):
        use = days[:LIKE_DAYS]
        mean = np.nanmean(x[use], axis=1)
        ratio = mean / mean.mean() if mean.mean() > 0 else np.ones(len(mean))
        odd = (ratio < ODD_LOW) | (ratio > ODD_HIGH)
        if not odd.any() or len(use) <= 2:
            break
        days = days[~np.isin(days, use[odd])]
    if not len(days):
        return None
    there = np.isfinite(x[days[:LIKE_DAYS]])
    total = np.where(there, x[days[:LIKE_DAYS]], 0.0).sum(axis=0)
    curve: F8 = np.where(there.any(axis=0), total / np.maximum(there.sum(axis=0), 1), np.nan)
    return curve


def _adjustment(x: F8, base: F8, day: int, begin: int, slots: int) -> float:
    """How far the day stood from its like days in the hours before the window; 1 where that is not known."""
    hour = max(1, slots // 24)
    before = np.arange(max(begin - 3 * hour, 0), max(begin - hour, 0))
    use = before[np.isfinite(x[day, before]) & np.isfinite(base[before])] if len(before) else before
    level = float(base[use].mean()) if len(use) else 0.0
    return float(np.clip(x[day, use].mean() / level, LEAST, MOST)) if level > 0 else 1.0
