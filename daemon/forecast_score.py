"""How forecasts turned out: those that were issued, and those that would have been (backtest), beside naive ones.

A day's score leaves out slots in which the load was held down by a command or out of supply: what is forecast is the
load as it would have been. They are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import psycopg

from ..analytics.forecast.forecaster import Forecaster
from ..analytics.forecast.score import DayScore, mean_of, score_day
from ..analytics.forecast.walk import naive_last_week, naive_yesterday
from ..analytics.masks import F8
from ..model.lang import tr
from ..model.times import DAY_US, business_day, day_start_us
from ..protocols.common.errors import UsageError
from ..storage.forecasts import load_forecasts
from .forecast import forecast_inputs, issue_of
from .forecast_config import ForecastConfig
from .forecast_data import SLOTS, load_history, members

Connection = psycopg.Connection[Any]
FRESH_DAYS: Final = 60  # of the history that is read again as of every issue of a backtest


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredDay:
    """A day: curves (96,) with NaN, scores by model; disturbed: slots left out because of control or outage."""

    day: date
    issued_us: int
    actual: F8
    curves: dict[str, F8]
    scores: dict[str, DayScore]
    disturbed: int
    learned: bool


MODELS: Final = ("forecast", "last_week", "yesterday")


def actual_day(connection: Connection, wanted: str, day: date, now_us: int) -> tuple[F8, int]:
    """Measured kW (96,) of a day as far as known now, NaN in disturbed slots, and how many those are."""
    loads = load_history(
        connection, members(connection, wanted, day), day, day, known_by_us=now_us, received_by_us=None
    )
    held = loads.disturbed[0]
    return np.where(held, np.nan, loads.measured[0]), int(held.sum())


def _scored(day: date, issued_us: int, curves: dict[str, F8], actual: F8, disturbed: int, learned: bool) -> ScoredDay:
    scores = {name: score_day(curve, actual) for name, curve in curves.items()}
    return ScoredDay(
        day=day, issued_us=issued_us, actual=actual, curves=curves, scores=scores, disturbed=disturbed, learned=learned
    )


def score_issued(
    connection: Connection, wanted: str, first: date, last: date, now_us: int, *, issued_by_minute: int | None = None
) -> Iterator[ScoredDay]:
    """Every day of the range that has a stored forecast: the newest one issued before the day began.

    issued_by_minute: the newest not later than this minute of the day before (the one issued by 10:00 is 600).
    """
    for i in range((last - first).days + 1):
        day = first + timedelta(days=i)
        start = day_start_us(day)
        limit = start if issued_by_minute is None else start - DAY_US + issued_by_minute * 60_000_000
        found = load_forecasts(connection, wanted, "day", start, start + 1, issued_by_us=limit)
        if not found:
            continue
        stored = found[-1]
        actual, disturbed = actual_day(connection, wanted, day, now_us)
        curves = {"forecast": stored.kw, "last_week": stored.last_week, "yesterday": stored.yesterday}
        yield _scored(day, stored.issued_us, curves, actual, disturbed, bool(stored.note.get("learned")))


def backtest(
    connection: Connection,
    wanted: str,
    first: date,
    last: date,
    minute: int,
    config: ForecastConfig,
    now_us: int,
    *,
    by_label: bool = False,
    progress: Callable[[date], None] | None = None,
) -> Iterator[ScoredDay]:
    """Days as they would have been forecast at `minute` of the day before from what had been received by then.

    by_label: values count as received at their own time. UsageError: nothing known at the first issue time, or a range
    without any day that is over.
    """

    def issued(day: date) -> int:
        return day_start_us(day) - DAY_US + minute * 60_000_000

    if day_start_us(first) > now_us or last < first:
        raise UsageError(tr("the range has no day that has begun", "范围内没有已开始的日期"))
    inputs = forecast_inputs(connection, wanted, last, issued(first), config, by_label=by_label, until_us=now_us)
    begin = inputs.loads.first
    issue = issue_of(first, issued(first))
    forecaster = Forecaster(inputs.types, inputs.known(issue, told_later=True), SLOTS, issue)
    raw, delivered = inputs.raw.copy(), np.full_like(inputs.raw, np.nan)
    delivered[: len(inputs.loads.measured)] = inputs.loads.measured[: len(raw)]
    have = np.flatnonzero(np.isfinite(raw).any(axis=1))
    earliest = begin + timedelta(days=int(have[0]) + issue.lead + 1)
    day = min(max(first - timedelta(days=config.warm_up_days), earliest), first)
    while day <= last and day_start_us(day) <= now_us:
        number = (day - begin).days
        if not by_label and day >= first:
            fresh = max(business_day(issued(day)) - timedelta(days=FRESH_DAYS), begin)
            loads = load_history(
                connection, members(connection, wanted, day), fresh, business_day(issued(day)),
                known_by_us=issued(day), received_by_us=issued(day), chinese=config.calendar == "cn",
            )  # fmt: skip
            at = slice((fresh - begin).days, (fresh - begin).days + len(loads.kw))
            raw[at], delivered[at] = loads.kw, loads.measured
        made = forecaster.forecast(raw, number)
        if day >= first:
            known = delivered.copy()
            known.reshape(-1)[int(issue.end(number, SLOTS)) :] = np.nan
            curves = {
                "forecast": made.value,
                "last_week": naive_last_week(known, number, issue),
                "yesterday": naive_yesterday(known, number, issue),
            }
            actual, disturbed = actual_day(connection, wanted, day, now_us)
            if progress is not None:
                progress(day)
            yield _scored(day, issued(day), curves, actual, disturbed, made.learned)
        day += timedelta(days=1)


def means(days: list[ScoredDay]) -> dict[str, dict[str, float | None]]:
    """By model the mean of the days' A, MAPE, WAPE and peak accuracy (a month is the mean of its days)."""
    fields = {"accuracy": "accuracy", "mape": "mape", "wape": "wape", "peak_accuracy": "peak"}
    return {
        model: {name: mean_of([getattr(d.scores[model], f) for d in days]) for name, f in fields.items()}
        for model in MODELS
    }
