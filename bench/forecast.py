"""Day-ahead forecasts of measured curves beside two naive models and LightGBM (folder of curves: FUHE_DATA).

Each day is issued at 12:00 of the day before, walk-forward, from loads up to that minute; columns known ahead and the
weather of the day are given to both learners as they are in the file (observed weather stands in for its forecast).
The peer is what a practitioner writes in an afternoon: LightGBM on lags, calendar and weather, learned anew every 14
days on all history, one thread as ours. SETS names for every curve the period on which changes are tried (tuned) and
another on which nothing is ever chosen (held out); the figures are of the latter. FUHE_FORECAST_PERIOD=tuned shows the
former.

The files are not part of the project; sets whose file is absent are named and skipped. Without LightGBM
(`pip install lightgbm`) scikit-learn's histogram boosting takes its place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from fuhe.analytics.forecast.features import Issue
from fuhe.analytics.forecast.intraday import corrected
from fuhe.analytics.forecast.score import DayScore, mean_of, score_day
from fuhe.analytics.forecast.threads import one_thread
from fuhe.analytics.forecast.walk import WalkedDay, walk
from fuhe.analytics.masks import F8
from fuhe.commands.lab_series import Series, load_series

NOON: Final = 0.5
RELEARN_DAYS: Final = 14
Period = tuple[str, str]


@dataclass(frozen=True)
class Set:
    """A curve: how its file is read, and the periods (first day, last day)."""

    name: str
    file: str
    value: str
    tuned: Period
    held_out: Period
    options: dict[str, Any] = field(default_factory=dict)


VIC = {"time_column": "time_utc", "utc": True, "zone": "Australia/Melbourne", "known": ("temp_c", "holiday")}
LOCAL = {"time_column": "time_local"}
AREA = {**LOCAL, "weather": "weather_cn_area1_daily_2012_2013.csv.gz"}
REGION = {**LOCAL, "weather": "weather_cn_region_daily_2018_2020.csv.gz"}
STEEL = {"time_column": "time_end", "label": "end", "calendar": "none"}
HOMES = "meters_sgsc_30min_kwh.csv.gz"
BUILDINGS = "meters_bdg2_60min_2016.csv.gz"
ABROAD = {**LOCAL, "calendar": "none"}
SETS: Final = (
    Set("state 30 min, temperature, holidays", "load_vic_30min_2012_2013.csv.gz", "load_mw",
        ("2013-07-01", "2013-07-28"), ("2013-09-15", "2013-12-20"), VIC),
    Set("city area 15 min, weather", "load_cn_area1_15min_2012_2013.csv.gz", "load_mw",
        ("2013-03-01", "2013-04-11"), ("2013-08-15", "2013-11-15"), AREA),
    Set("region 15 min, weather", "load_cn_region_15min_2018_2020.csv.gz", "load_kw",
        ("2020-05-01", "2020-05-28"), ("2020-06-15", "2020-08-31"), REGION),
    Set("region 15 min", "load_cn_region_15min_2018_2020.csv.gz", "load_kw",
        ("2019-09-01", "2019-09-28"), ("2019-10-15", "2019-12-31"), LOCAL),
    Set("steel plant 15 min", "meter_steel_15min_2018_Q1Q3.csv.gz", "kwh",
        ("2018-05-01", "2018-06-15"), ("2018-07-15", "2018-09-30"), STEEL),
    Set("building 60 min", BUILDINGS, "building_1_kwh",
        ("2016-05-01", "2016-06-15"), ("2016-07-15", "2016-09-29"), ABROAD),
    Set("second building 60 min", BUILDINGS, "building_2_kwh",
        ("2016-05-01", "2016-06-15"), ("2016-07-15", "2016-09-29"), ABROAD),
    Set("home 30 min", HOMES, "c10006414", ("2013-04-01", "2013-05-15"), ("2013-07-01", "2013-08-31"), ABROAD),
    Set("second home 30 min", HOMES, "c10006572", ("2013-04-01", "2013-05-15"), ("2013-07-01", "2013-08-31"), ABROAD),
)  # fmt: skip


def load(folder: Path, one: Set, last: date) -> Series:
    """The set's series with days up to `last`."""
    options = dict(one.options)
    if "weather" in options:
        options["weather"] = folder / options["weather"]
    return load_series(folder / one.file, value_column=one.value, last=last, **options)


def peer_model() -> tuple[str, Callable[[], Any]]:
    """Name and maker of the library's regressor."""
    try:
        from lightgbm import LGBMRegressor
    except ImportError:
        from sklearn.ensemble import HistGradientBoostingRegressor

        return "scikit-learn HGB", lambda: HistGradientBoostingRegressor(max_iter=400, learning_rate=0.05)
    return "LightGBM", lambda: LGBMRegressor(n_estimators=400, learning_rate=0.05, n_jobs=1, random_state=7, verbose=-1)


def peer_table(series: Series, days: np.ndarray[Any, np.dtype[np.int64]], issue: Issue) -> F8:
    """(days x slots, features): the newest known values of the slot, weeks back, calendar, columns known ahead."""
    raw, types, slots = series.raw, series.types, series.clock.slots

    def back(k: int) -> F8:
        return np.where((days - k >= 0)[:, None], raw[np.maximum(days - k, 0)], np.nan)

    early = np.arange(slots) < issue.slot
    whole = [back(2), back(7), back(8), back(14), back(21)]
    columns = [np.broadcast_to(np.arange(slots, dtype=np.float64), (len(days), slots)), *whole]
    columns.append(np.where(early, back(1), back(2)))
    seen = np.concatenate([back(2)[:, issue.slot :], back(1)[:, : issue.slot]], axis=1)
    with np.errstate(all="ignore"):
        present = np.isfinite(seen)
        day_mean = np.where(present, seen, 0.0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    by_day = [day_mean, types.weekday[days], types.rest[days], types.holiday[days], types.season[days] * 365.25,
              types.spring[days], types.festival[days]]  # fmt: skip
    columns += [np.broadcast_to(np.asarray(v, np.float64)[:, None], (len(days), slots)) for v in by_day]
    columns += [v[days] for v in (*series.known.temperature, *series.known.other)]
    columns += [np.broadcast_to(m[days][:, None], (len(days), slots)) for m in series.known.mark]
    return np.stack(columns, axis=-1).reshape(len(days) * slots, -1)


def peer_walk(series: Series, issue: Issue, days: range) -> tuple[list[F8], float, float]:
    """Curves (slots,) by day, seconds of learning and of forecasting."""
    _, make = peer_model()
    slots = series.clock.slots
    curves: list[F8] = []
    learning = forecasting = 0.0
    model: Any = None
    for i, day in enumerate(days):
        began = time.perf_counter()
        if i % RELEARN_DAYS == 0:
            rows = np.arange(21, day - 1)
            y = series.raw[rows].reshape(-1)
            use = np.isfinite(y)
            model = make().fit(peer_table(series, rows, issue)[use], y[use])
        learned = time.perf_counter()
        curves.append(np.asarray(model.predict(peer_table(series, np.array([day]), issue))).reshape(slots))
        learning += learned - began
        forecasting += time.perf_counter() - learned
    return curves, learning, forecasting


def _means(scores: list[DayScore]) -> tuple[float, float, float]:
    """A, MAPE, WAPE in percent."""
    found = [mean_of([getattr(s, k) for s in scores]) for k in ("accuracy", "mape", "wape")]
    return tuple(float("nan") if v is None else v for v in found)  # type: ignore[return-value]


def measure(folder: Path, one: Set, period: Period, *, peer: bool = True) -> dict[str, Any]:
    """A, MAPE and WAPE by model, and the seconds."""
    first, last = (date.fromisoformat(d) for d in period)
    series = load(folder, one, last)
    begin = (first - series.clock.first).days
    days = range(begin, begin + (last - first).days + 1)
    issue = Issue(lead=1, slot=round(series.clock.slots * NOON))
    began = time.perf_counter()
    walked = walk(series.raw, series.types, series.known, issue, days)
    out: dict[str, Any] = {"days": len(days), "seconds": time.perf_counter() - began}
    out["hours"] = next_hours(walked, series.raw, series.clock.step_s)
    curves = {
        "ours": [w.forecast.value for w in walked],
        "last week": [w.last_week for w in walked],
        "yesterday": [w.yesterday for w in walked],
    }
    if peer:
        with one_thread():
            curves["peer"], learning, forecasting = peer_walk(series, issue, days)
        out |= {"peer_learning": learning, "peer_forecasting": forecasting}
    for name, values in curves.items():
        out[name] = _means([score_day(v, series.raw[d]) for v, d in zip(values, days, strict=True)])
    return out


def next_hours(walked: list[WalkedDay], raw: F8, step_s: int) -> tuple[float, float]:
    """WAPE in percent of the next four hours: of the day's curve moved to the load at hand, and of the curve itself."""
    issued = np.concatenate([w.forecast.value for w in walked])
    actual = np.concatenate([raw[w.day] for w in walked])
    ahead, slots = 4 * 3600 // step_s, raw.shape[1]
    moved = plain = total = 0.0
    for now in range(slots, len(issued) - ahead, 3):
        known = np.where(np.arange(len(actual)) < now, actual, np.nan)
        there = np.isfinite(actual[now : now + ahead])
        truth = actual[now : now + ahead][there]
        moved += float(np.abs(corrected(issued, known, now, ahead, step_s)[there] - truth).sum())
        plain += float(np.abs(issued[now : now + ahead][there] - truth).sum())
        total += float(np.abs(truth).sum())
    return 100 * moved / total, 100 * plain / total


def _rows(one: Set, found: dict[str, Any], peer: str) -> list[dict[str, Any]]:
    def row(name: str, value: float, unit: str, beside: str, ratio: float | None) -> dict[str, Any]:
        return {
            "bench": "forecast", "name": f"{one.name}: {name}", "value": value, "unit": unit, "peer": beside,
            "ratio": ratio, "target": None,
        }  # fmt: skip

    a, mape, wape = found["ours"]
    out = [row("A, month mean of days", a, "%", "", None)]
    for name, label in (("peer", peer), ("last week", "last week"), ("yesterday", "yesterday")):
        other = found[name]
        out.append(
            row(f"MAPE against {label}", mape, "%", f"{label} {other[1]:.2f} (A {other[0]:.2f})", mape / other[1])
        )
    out.append(row(f"WAPE against {peer}", wape, "%", f"{peer} {found['peer'][2]:.2f}", wape / found["peer"][2]))
    moved, plain = found["hours"]
    out.append(row("WAPE of the next 4 h", moved, "%", f"the day-ahead curve {plain:.2f}", moved / plain))
    theirs = (found["peer_learning"] + found["peer_forecasting"]) / found["days"]
    ours = found["seconds"] / found["days"]
    return [*out, row("learning and forecasting", ours, "s a day", f"{peer} {theirs:.2f}", ours / theirs)]


def run(quick: bool = False) -> list[dict[str, Any]]:
    """All rows, over ten minutes (quick: the last two weeks of three sets); none where FUHE_DATA names no folder."""
    folder = Path(os.environ.get("FUHE_DATA", ""))
    if not os.environ.get("FUHE_DATA") or not folder.is_dir():
        print("  skipped: FUHE_DATA names no folder with the curves; wanted there are")
        for one in SETS:
            print(f"    {one.file}: {one.options['time_column']}, {one.value}  ({one.name})")
        return []
    tuned = os.environ.get("FUHE_FORECAST_PERIOD") == "tuned"
    peer, _ = peer_model()
    rows: list[dict[str, Any]] = []
    for one in SETS[:3] if quick else SETS:
        if not (folder / one.file).exists():
            print(f"  {one.name}: no {one.file} in {folder}, left out")
            continue
        period = one.tuned if tuned else one.held_out
        if quick:
            last = date.fromisoformat(period[1])
            period = ((last - timedelta(days=13)).isoformat(), period[1])
        found = measure(folder, one, period)
        print(f"  {one.name} {period[0]}..{period[1]}, issued 12:00 the day before", flush=True)
        for name in ("ours", "peer", "last week", "yesterday"):
            print("    {:10} A {:6.2f}  MAPE {:6.2f}  WAPE {:6.2f}".format(name, *found[name]), flush=True)
        rows += _rows(one, found, peer)
    return rows
