"""Forecasts of stored loads: the next day, the week, the month's maximum and the next hours, as of an issue time.

Everything that goes in had been received by the issue time, weather forecasts had been issued by then, and days under
control or out of supply stand in the history as their baseline. What comes out is stored once and for all.
"""

from __future__ import annotations

import calendar as months
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import psycopg

from ..analytics.forecast.ahead import sort_columns
from ..analytics.forecast.calendar import DayTypes, day_types, missing_years
from ..analytics.forecast.features import Issue, Known
from ..analytics.forecast.forecaster import MODEL_VERSION
from ..analytics.forecast.intraday import corrected
from ..analytics.forecast.walk import WalkedDay, naive_last_week, naive_yesterday, walk
from ..analytics.masks import F8
from ..model.lang import tr
from ..model.quantities import quantity
from ..model.times import DAY_US, business_day, day_start_us
from ..protocols.common.errors import UsageError
from ..storage.forecasts import (
    Horizon,
    StoredForecast,
    Weather,
    insert_forecast,
    last_issue_us,
    load_forecasts,
    load_weather,
)
from .forecast_config import ForecastConfig, minute_of
from .forecast_data import POWERS, SLOT_US, SLOTS, STEP_S, Loads, load_history, members

Connection = psycopg.Connection[Any]

WEEK_DAYS: Final = 7
WEEK_WARM_UP: Final = 7
LIVE_BACK_US: Final = 2 * 3_600_000_000
DRAWS: Final = 4000
LEAST_SPREAD: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What was known: loads from `first` to the issue, day types and weather to the last day forecast."""

    loads: Loads
    raw: F8
    types: DayTypes
    issued_us: int
    weather: dict[str, Weather]
    warnings: tuple[str, ...]

    @property
    def days(self) -> int:
        """Days from the first one on, those to forecast included."""
        return len(self.raw)

    def known(self, issue: Issue, *, told_later: bool = False) -> Known:
        """The weather of every day as it had been forecast when that day's forecast was issued.

        told_later: for a backtest, whose days are all issued as their own time of day before.
        """
        columns = {}
        for name, weather in self.weather.items():
            start = day_start_us(self.loads.first)
            day = (weather.time_us - start) // DAY_US
            slot = (weather.time_us - start) % DAY_US // SLOT_US
            told_by = start + (day - issue.lead) * DAY_US + issue.slot * SLOT_US
            if not told_later:
                told_by = np.minimum(told_by, self.issued_us)
            use = (weather.issued_us <= told_by) & (day >= 0) & (day < self.days)
            grid = np.full((self.days, SLOTS), np.nan)
            grid[day[use], slot[use]] = weather.value[use]  # ascending by issue: the newest stays
            columns[name] = np.repeat(grid[:, :1], SLOTS, axis=1) if weather.daily else grid
        return sort_columns(columns).known if columns else Known.nothing(self.days, SLOTS)

    def digest(self, *more: object) -> str:
        """SHA-256 of everything that decides the forecast."""
        text = [self.loads.digest, MODEL_VERSION, str(self.issued_us), *map(str, more)]
        text += [
            f"{n}{w.time_us.tobytes()!r}{w.issued_us.tobytes()!r}{w.value.tobytes()!r}" for n, w in self.weather.items()
        ]
        text.append(self.types.rest.tobytes().hex())
        return hashlib.sha256("\0".join(text).encode()).hexdigest()

    def note(self) -> dict[str, Any]:
        """What a reader of the forecast must know."""
        return {
            "members": len(self.loads.members),
            "history_days": int(np.isfinite(self.loads.kw).any(axis=1).sum()),
            "baseline_slots": int(self.loads.replaced.sum()),
            "scaled_slots": self.loads.scaled,
            "weather": sorted(self.weather),
            "warnings": list(self.warnings),
        }


def issue_of(day: date, issued_us: int) -> Issue:
    """How far before `day` a forecast issued at an instant stands. UsageError: the day is over or has begun."""
    issue_day = business_day(issued_us)
    lead = (day - issue_day).days
    if lead < 1:
        raise UsageError(tr(f"{day} has begun when the forecast is issued", f"发布时 {day} 已经开始"))
    return Issue(lead=lead, slot=int((issued_us - day_start_us(issue_day)) // SLOT_US))


def forecast_inputs(
    connection: Connection, wanted: str, last: date, issued_us: int, config: ForecastConfig, *,
    by_label: bool, live: bool = False, until_us: int | None = None,
) -> Inputs:  # fmt: skip
    """Everything known at issued_us for days to `last`. until_us: for a backtest, weather and (by labels)
    loads up to then, which the forecaster cuts at each issue. UsageError: no load at all.
    """
    by_now = until_us if until_us is not None else issued_us
    issue_day = business_day(issued_us)
    points = members(connection, wanted, issue_day)
    first = _first_day(connection, [p.id for p in points], issue_day, config.history_days)
    chinese = config.calendar == "cn"
    loads = load_history(
        connection, points, first, min(business_day(by_now), last) if by_label else issue_day,
        known_by_us=by_now if by_label else issued_us, received_by_us=None if by_label else issued_us, chinese=chinese,
        live_from_us=issued_us - LIVE_BACK_US if live else None,
    )  # fmt: skip
    before = loads.kw.reshape(-1)[: max(int((issued_us - day_start_us(first)) // SLOT_US), 0)]
    if not np.isfinite(before).any():
        raise UsageError(
            tr(
                f"{wanted}: no load had been received when the forecast is issued",
                f"{wanted}: 发布时刻之前没有收到任何负荷数据",
            )
        )
    days = (last - first).days + 1
    raw = np.full((days, SLOTS), np.nan)
    raw[: len(loads.kw)] = loads.kw
    warnings = _calendar_warnings(max(first, last - timedelta(days=400)), last) if chinese else ()
    return Inputs(
        loads=loads,
        raw=raw,
        types=day_types(first, days, chinese=chinese),
        issued_us=issued_us,
        weather=load_weather(connection, config.place, first, last, by_now) if config.place else {},
        warnings=warnings,
    )


def _first_day(connection: Connection, points: Sequence[int], issue_day: date, history_days: int) -> date:
    """The first day with a curve of power inside the history asked for."""
    begin = issue_day - timedelta(days=history_days)
    row = connection.execute(
        "SELECT min(day) FROM curve_day WHERE point = ANY(%s) AND quantity = ANY(%s) AND day >= %s",
        (list(points), [quantity(n).id for n in POWERS], begin),
    ).fetchone()
    found: date | None = row[0] if row else None
    return min(found, issue_day) if found else issue_day - timedelta(days=7)


def _calendar_warnings(first: date, last: date) -> tuple[str, ...]:
    unknown, provisional = missing_years(first, (last - first).days + 1)
    out = []
    if unknown:
        years = ", ".join(map(str, unknown))
        out.append(
            tr(
                f"the holiday calendar lacks {years}: festivals are forecast as ordinary days; renew calendar_cn.toml",
                f"节假日历缺 {years} 年, 节日按平日预测; 请更新 calendar_cn.toml",
            )
        )
    if provisional:
        years = ", ".join(map(str, provisional))
        out.append(
            tr(
                f"for {years} the holiday calendar knows statutory days only, no make-up working days",
                f"{years} 年的节假日历仅含法定假日, 不含调休",
            )
        )
    return tuple(out)


def _walked(inputs: Inputs, issue: Issue, day: int, warm_up: int) -> WalkedDay:
    known = inputs.known(issue)
    return walk(inputs.raw[: day + 1], inputs.types, known, issue, range(day, day + 1), warm_up=warm_up)[0]


def _naive(inputs: Inputs, issue: Issue, day: int) -> tuple[F8, F8]:
    """Last week's and yesterday's loads as they were measured, as far as known at issue."""
    delivered = np.full_like(inputs.raw, np.nan)
    count = min(len(delivered), len(inputs.loads.measured))
    delivered[:count] = inputs.loads.measured[:count]
    return naive_last_week(delivered, day, issue), naive_yesterday(delivered, day, issue)


def forecast_day(
    connection: Connection, wanted: str, day: date, issued_us: int, config: ForecastConfig, *, by_label: bool = False
) -> StoredForecast:
    """The 96 points of a day (not stored yet). by_label: values count as received at their own time, for a backtest of
    days that were recalled later; otherwise only what had arrived by issued_us goes in.
    """
    issue = issue_of(day, issued_us)
    inputs = forecast_inputs(connection, wanted, day, issued_us, config, by_label=by_label)
    walked = _walked(inputs, issue, inputs.days - 1, config.warm_up_days)
    week, yesterday = _naive(inputs, issue, inputs.days - 1)
    return StoredForecast(
        object=wanted,
        horizon="day",
        start_us=day_start_us(day),
        step_s=STEP_S,
        issued_us=issued_us,
        model=MODEL_VERSION,
        inputs_hash=inputs.digest("day", day, by_label, config.warm_up_days),
        kw=walked.forecast.value,
        last_week=week,
        yesterday=yesterday,
        note=inputs.note() | {"learned": walked.forecast.learned, "weights": walked.forecast.weights}
        | ({"by_label": True} if by_label else {}),
    )  # fmt: skip


def forecast_week(connection: Connection, wanted: str, issued_us: int, config: ForecastConfig) -> StoredForecast:
    """The next seven days, 672 points; each day by learners that look as far ahead as that day is."""
    first = business_day(issued_us) + timedelta(days=1)
    last = first + timedelta(days=WEEK_DAYS - 1)
    inputs = forecast_inputs(connection, wanted, last, issued_us, config, by_label=False)
    curves, weeks, yesterdays, learned = [], [], [], True
    for ahead in range(WEEK_DAYS):
        day = inputs.days - WEEK_DAYS + ahead
        issue = issue_of(first + timedelta(days=ahead), issued_us)
        walked = _walked(inputs, issue, day, min(WEEK_WARM_UP, config.warm_up_days))
        curves.append(walked.forecast.value)
        learned &= walked.forecast.learned
        week, yesterday = _naive(inputs, issue, day)
        weeks.append(week)
        yesterdays.append(yesterday)
    return StoredForecast(
        object=wanted,
        horizon="week",
        start_us=day_start_us(first),
        step_s=STEP_S,
        issued_us=issued_us,
        model=MODEL_VERSION,
        inputs_hash=inputs.digest("week", first),
        kw=np.concatenate(curves),
        last_week=np.concatenate(weeks),
        yesterday=np.concatenate(yesterdays),
        note=inputs.note() | {"learned": learned},
    )


def forecast_month(connection: Connection, wanted: str, issued_us: int, config: ForecastConfig) -> StoredForecast:
    """Daily maxima of the rest of the month (of the next one on its last day), and the month's expected maximum.

    The largest of several uncertain days lies above the largest expectation: the month's figure is the mean largest of
    draws with the spread that the daily maxima had around their like days lately, never below what was reached already.
    """
    first = business_day(issued_us) + timedelta(days=1)
    last = first.replace(day=months.monthrange(first.year, first.month)[1])
    inputs = forecast_inputs(connection, wanted, last, issued_us, config, by_label=False)
    complete = np.isfinite(inputs.raw).mean(axis=1) >= 0.9
    peak = np.where(complete, np.nanmax(np.where(np.isfinite(inputs.raw), inputs.raw, -np.inf), axis=1), np.nan)[
        :, None
    ]
    if not np.isfinite(peak).any():
        raise UsageError(tr(f"{wanted}: not one whole day of load yet", f"{wanted}: 尚无完整一天的负荷"))
    ahead_days = (last - first).days + 1
    curves, weeks, yesterdays = [], [], []
    for ahead in range(ahead_days):
        day = inputs.days - ahead_days + ahead
        issue = Issue(lead=ahead + 1, slot=0)
        found = walk(peak, inputs.types, Known.nothing(inputs.days, 1), issue, range(day, day + 1), warm_up=0)[0]
        curves.append(found.forecast.value)
        weeks.append(found.last_week)
        yesterdays.append(found.yesterday)
    expected = np.concatenate(curves)
    spread = _spread(peak[:, 0], inputs.types)
    draws = expected * (1.0 + spread * np.random.default_rng(7).standard_normal((DRAWS, ahead_days)))
    begun = np.array([inputs.loads.first + timedelta(days=i) >= first.replace(day=1) for i in range(inputs.days)])
    own = inputs.raw[begun & (np.arange(inputs.days) < inputs.days - ahead_days)]
    reached = float(np.nanmax(own)) if np.isfinite(own).any() else 0.0
    largest = np.maximum(draws.max(axis=1), reached)
    return StoredForecast(
        object=wanted,
        horizon="month",
        start_us=day_start_us(first),
        step_s=DAY_US // 1_000_000,
        issued_us=issued_us,
        model=MODEL_VERSION,
        inputs_hash=inputs.digest("month", first),
        kw=expected,
        last_week=np.concatenate(weeks),
        yesterday=np.concatenate(yesterdays),
        note=inputs.note() | {
            "month": f"{first:%Y-%m}", "maximum_kw": float(largest.mean()),
            "low_kw": float(np.quantile(largest, 0.1)), "high_kw": float(np.quantile(largest, 0.9)),
            "reached_kw": reached, "spread": spread,
        },
    )  # fmt: skip


def _spread(peak: F8, types: DayTypes) -> float:
    """Relative spread of the daily maxima around the newest like day before, over the last 60 days."""
    known = np.flatnonzero(np.isfinite(peak))
    off = []
    for day in known[known >= known[-1] - 60]:
        before = [d for d in range(max(day - 14, 0), day) if np.isfinite(peak[d]) and types.rest[d] == types.rest[day]]
        if before and peak[day] > 0:
            off.append(peak[day] / np.mean([peak[d] for d in before[-3:]]) - 1.0)
    return float(max(1.4826 * np.median(np.abs(off)), LEAST_SPREAD)) if off else 0.05


def forecast_hours(connection: Connection, wanted: str, issued_us: int, config: ForecastConfig) -> StoredForecast:
    """The next hours in slots of 15 minutes: the day's issued curve moved to where the load stands now."""
    today = business_day(issued_us)
    inputs = forecast_inputs(connection, wanted, today, issued_us, config, by_label=False, live=True)
    begin = day_start_us(today) - DAY_US
    curve = np.full(3 * SLOTS, np.nan)
    for stored in load_forecasts(
        connection, wanted, "day", begin, begin + 3 * DAY_US, issued_by_us=issued_us, before_start=True
    ):
        at = int((stored.start_us - begin) // SLOT_US)
        curve[at : at + SLOTS] = stored.kw
    now = int((issued_us - begin) // SLOT_US)
    ahead = config.intraday_hours * 3600 // STEP_S
    base = "issued"
    if not np.isfinite(curve[now : now + ahead]).all():
        base = "like days"
        curve = np.where(np.isfinite(curve), curve, _like_days(inputs))
    actual = np.full(3 * SLOTS, np.nan)
    measured = inputs.loads.measured[-2:].reshape(-1)
    actual[2 * SLOTS - len(measured) : 2 * SLOTS] = measured
    actual[now:] = np.nan
    week, yesterday = _naive_hours(inputs, now, ahead)
    return StoredForecast(
        object=wanted,
        horizon="intraday",
        start_us=begin + now * SLOT_US,
        step_s=STEP_S,
        issued_us=issued_us,
        model=MODEL_VERSION,
        inputs_hash=inputs.digest("intraday", now, curve.tobytes()),
        kw=corrected(curve, actual, now, ahead, STEP_S),
        last_week=week,
        yesterday=yesterday,
        note=inputs.note() | {"base": base},
    )


def _like_days(inputs: Inputs) -> F8:
    """Mean curves of the newest like days for yesterday, today and tomorrow (3 x 96,), where nothing was issued."""
    days = inputs.days
    whole = np.flatnonzero(np.isfinite(inputs.raw[: days - 1]).all(axis=1))
    if not len(whole):
        return np.full(3 * SLOTS, np.nanmean(inputs.raw))
    types = inputs.types
    rest = np.r_[types.rest, types.weekday[-1] in (4, 5)]  # tomorrow rests when today is a Friday or Saturday
    out = []
    for day in (days - 2, days - 1, days):
        like = whole[rest[whole] == rest[max(day, 0)]][-4:]
        out.append(inputs.raw[like if len(like) else whole[-4:]].mean(axis=0))
    return np.concatenate(out)


def _naive_hours(inputs: Inputs, now: int, ahead: int) -> tuple[F8, F8]:
    """The same slots a week and a day before; now counts from the beginning of yesterday."""
    flat = inputs.loads.measured.reshape(-1)
    first = (len(inputs.loads.measured) - 2) * SLOTS + now + np.arange(ahead)

    def back(days: int) -> F8:
        at = first - days * SLOTS
        ok = (at >= 0) & (at < len(flat))
        return np.where(ok, flat[np.clip(at, 0, len(flat) - 1)], np.nan)

    return back(7), back(1)


# -- what is due ------------------------------------------------------------------------------------------------------


def due(connection: Connection, config: ForecastConfig, now_us: int) -> list[tuple[str, Horizon]]:
    """What should have been issued by now today and has not been."""
    today = day_start_us(business_day(now_us))
    times = sorted(today + (minute_of(t) or 0) * 60_000_000 for t in config.at)
    over = [t for t in times if t <= now_us]
    out: list[tuple[str, Horizon]] = []
    for wanted in config.objects if over else ():
        for horizon, since in (("day", over[-1]), ("week", over[0]), ("month", over[0])):
            last = last_issue_us(connection, wanted, horizon)  # type: ignore[arg-type]
            if last is None or last < since:
                out.append((wanted, horizon))  # type: ignore[arg-type]
    quarter = now_us // SLOT_US * SLOT_US
    for wanted in config.intraday:
        last = last_issue_us(connection, wanted, "intraday")
        if last is None or last < quarter:
            out.append((wanted, "intraday"))
    return out


def issue(
    connection: Connection, wanted: str, horizon: Horizon, now_us: int, config: ForecastConfig
) -> tuple[StoredForecast, int | None]:
    """Make one forecast as of now and store it; its number, None if the very same was stored before."""
    if horizon == "day":
        made = forecast_day(connection, wanted, business_day(now_us) + timedelta(days=1), now_us, config)
    else:
        make = {"week": forecast_week, "month": forecast_month, "intraday": forecast_hours}[horizon]
        made = make(connection, wanted, now_us, config)
    return made, insert_forecast(connection, made)
