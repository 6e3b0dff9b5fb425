"""Walk-forward: one day after the other forecast as on its own issue day, and the two naive models beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..masks import F8, I8
from .calendar import DayTypes
from .features import Issue, Known
from .forecaster import DayForecast, Forecaster

# Days walked before the first one asked for: they tell how much each learner may be trusted, and how it errs.
WARM_UP_DAYS: Final = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkedDay:
    """One day: its number, the issued forecast, and the naive curves (slots,) with NaN where they have no value."""

    day: int
    forecast: DayForecast
    last_week: F8
    yesterday: F8


def naive_last_week(raw: F8, day: int, issue: Issue) -> F8:
    """Same slot of the newest whole week before issue."""
    back = 7 * -(-(issue.lead + 1) // 7)
    return _day(raw, day - back)


def naive_yesterday(raw: F8, day: int, issue: Issue) -> F8:
    """Every slot's newest value known at issue: of the issue day up to the hour, of the day before after it."""
    early = np.arange(raw.shape[1]) < issue.slot
    return np.where(early, _day(raw, day - issue.lead), _day(raw, day - issue.lead - 1))


def _day(raw: F8, day: int) -> F8:
    return raw[day] if 0 <= day < len(raw) else np.full(raw.shape[1], np.nan)


def walk(
    raw: F8,
    types: DayTypes,
    known: Known,
    issue: Issue,
    days: range,
    *,
    warm_up: int = WARM_UP_DAYS,
    progress: Callable[[int], None] | None = None,
) -> list[WalkedDay]:
    """Forecast each of `days`. raw (days', slots) as delivered, NaN = missing; types and known reach to the last day.

    Raises ValueError if there is no load at all before the first issue time. progress gets every day number asked for,
    the days of warming up included.
    """
    slots = raw.shape[1]
    have = np.flatnonzero(np.isfinite(raw.reshape(-1)))
    if not len(have) or have[0] >= int(issue.end(days.start, slots)):
        raise ValueError("no load before the first issue time")
    begin = int(have[0]) // slots  # days before the first value are no history
    own = raw[begin:]
    forecaster = Forecaster(types.since(begin), known.since(begin), slots, issue)
    out: list[WalkedDay] = []
    for day in range(min(max(days.start - warm_up, begin + issue.lead + 1), days.start), days.stop):
        forecast = forecaster.forecast(own, day - begin)
        if day >= days.start:
            out.append(
                WalkedDay(
                    day=day,
                    forecast=forecast,
                    last_week=naive_last_week(raw, day, issue),
                    yesterday=naive_yesterday(raw, day, issue),
                )
            )
        if progress is not None:
            progress(day)
    return out


def clock_grid(day: I8, slot: I8, value: F8, days: int, slots: int) -> F8:
    """(days, slots) of clock time: the mean of an hour shown twice, the mean of its ends in an hour skipped.

    day, slot (n,): where each value stands on the local clock; a skipped hour is filled only between two values.
    """
    inside = np.isfinite(value) & (day >= 0) & (day < days)
    cell = day[inside] * slots + slot[inside]
    count = np.bincount(cell, minlength=days * slots)
    total = np.bincount(cell, weights=value[inside], minlength=days * slots)
    out = np.full(days * slots, np.nan)
    np.divide(total, count, out=out, where=count > 0)
    return out.reshape(days, slots)
