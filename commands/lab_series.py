"""A load curve from a file with what is known ahead of it, on local days: what the lab's forecasts are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from ..analytics.forecast.ahead import Ahead, sort_columns
from ..analytics.forecast.calendar import DayTypes, day_types
from ..analytics.forecast.features import Known
from ..analytics.forecast.walk import clock_grid
from ..analytics.masks import F8, I8
from ..analytics.vee.grid import Grid, make_grid
from ..model.lang import tr
from ..model.times import BUSINESS_ZONE
from ..protocols.common.errors import UsageError
from .lab_data import EMPTY, Table, read_table, zone_of

STEPS_MIN = (5, 10, 15, 20, 30, 60, 1440)
CHINESE_ZONES = frozenset({"Asia/Shanghai", "Asia/Chongqing", "Asia/Harbin", "Asia/Urumqi", "PRC"})
DAY_S = 86_400
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Clock:
    """How the rows of the file lie on local days: first day, slots of an ordinary day, and each grid slot's place."""

    first: date
    slots: int
    step_s: int
    day: I8
    slot: I8
    zone: ZoneInfo | None

    def slots_of(self, day: int) -> I8:
        """Clock slots of a local day in order of time: an hour twice in autumn, one left out in spring."""
        if self.zone is not None:
            when = self.first + timedelta(days=day)
            begin, end = (_utc_s(when + timedelta(days=k), self.zone) for k in (0, 1))
            local = [
                datetime.fromtimestamp(s, UTC).astimezone(self.zone) for s in range(begin, end, self.step_s)
            ]  # fmt: skip
            return np.array([(t.hour * 3600 + t.minute * 60) // self.step_s for t in local], np.int64)
        own = self.slot[self.day == day]
        hour = 3600 // self.step_s
        if len(own) in (self.slots - hour, self.slots + hour) and own[0] == 0 and own[-1] == self.slots - 1:
            slots: I8 = own
            return slots
        return np.arange(self.slots, dtype=np.int64)


def _utc_s(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """raw (days, slots) on the clock as delivered, NaN = missing; value: the same on the grid of the file's rows (an
    hour shown twice is two there); types and known reach to the last day asked for.
    """

    clock: Clock
    raw: F8
    value: F8
    types: DayTypes
    known: Known
    ahead: Ahead | None
    chinese: bool


def load_series(
    path: Path,
    *,
    time_column: str,
    value_column: str,
    last: date,
    utc: bool = False,
    zone: str | None = None,
    label: str = "start",
    known: Sequence[str] = (),
    weather: Path | None = None,
    weather_time: str = "date",
    calendar: str = "auto",
) -> Series:
    """Read the files; UsageError names every fault with its row. last: the last day that will be forecast."""
    place = zone_of(zone)
    table = read_table(path)
    raw_value = table.numbers(value_column)
    extra = {name: table.numbers(name) for name in known}
    clock, grid = _clock(table, time_column, utc=utc, zone=place, label=label, last=last)
    days = (max(last, clock.first + timedelta(days=int(clock.day.max()))) - clock.first).days + 1
    raw = clock_grid(clock.day, clock.slot, grid.place(raw_value), days, clock.slots)
    columns = {n: clock_grid(clock.day, clock.slot, grid.place(v), days, clock.slots) for n, v in extra.items()}
    if weather is not None:
        columns |= _weather(weather, weather_time, clock, days, utc=utc)
    ahead = sort_columns(columns) if columns else None
    chinese = calendar == "cn" or (
        calendar == "auto" and (zone is None or zone in CHINESE_ZONES) and (ahead is None or ahead.holiday is None)
    )
    return Series(
        clock=clock,
        raw=raw,
        value=grid.place(raw_value),
        types=day_types(clock.first, days, chinese=chinese, marked=ahead.holiday if ahead else None),
        known=ahead.known if ahead else Known.nothing(days, clock.slots),
        ahead=ahead,
        chinese=chinese,
    )


def _clock(
    table: Table, column: str, *, utc: bool, zone: ZoneInfo | None, label: str, last: date
) -> tuple[Clock, Grid]:  # fmt: skip
    times = table.times(column)
    if not times:
        raise UsageError(tr(f"{table.path} has no rows", f"{table.path} 没有数据行"))
    if utc:
        place = zone or BUSINESS_ZONE
        times = [t.replace(tzinfo=UTC).astimezone(place).replace(tzinfo=None) for t in times]
    try:
        grid = make_grid(times, zone=zone)
        if label == "end":
            back = timedelta(seconds=grid.step_s)
            grid = make_grid(_shifted(times, back, zone), zone=zone, step_s=grid.step_s)
    except ValueError as error:
        raise UsageError(tr(f"{table.path}: {error}", f"{table.path}: 无法排成时间网格: {error}")) from error
    if grid.step_s // 60 not in STEPS_MIN or grid.step_s % 60:
        steps = ", ".join(map(str, STEPS_MIN))
        raise UsageError(
            tr(
                f"{table.path}: the rows are {grid.step_s / 60:g} min apart; forecasts are made for {steps} min",
                f"{table.path}: 行间隔 {grid.step_s / 60:g} 分钟, 仅支持 {steps} 分钟",
            )
        )
    day = grid.local_s // DAY_S
    first = _EPOCH + timedelta(days=int(day.min()))
    if (last - first).days > 40 * 366:
        raise UsageError(
            tr(f"--to {last} is too far from the first row ({first})", f"--to {last} 距首行 ({first}) 过远")
        )
    clock = Clock(
        first, DAY_S // grid.step_s, grid.step_s, day - int(day.min()), grid.local_s % DAY_S // grid.step_s, zone
    )
    return clock, grid


def _shifted(times: list[datetime], back: timedelta, zone: ZoneInfo | None) -> list[datetime]:
    """Interval ends as interval starts; across a change of the clock by elapsed time."""
    if zone is None:
        return [t - back for t in times]
    out = []
    seen: set[datetime] = set()
    for t in times:
        aware = t.replace(tzinfo=zone, fold=1 if t in seen else 0)
        if aware.utcoffset() != t.replace(tzinfo=zone, fold=1).utcoffset():
            seen.add(t)
        out.append((aware.astimezone(UTC) - back).astimezone(zone).replace(tzinfo=None))
    return out


def _weather(path: Path, column: str, clock: Clock, days: int, *, utc: bool) -> dict[str, F8]:
    """Numeric columns on the clock grid; a file with one row a day stands in every slot of its day."""
    table = read_table(path)
    times = table.times(column)
    if utc:
        place = clock.zone or BUSINESS_ZONE
        if any(t.hour or t.minute for t in times):
            times = [t.replace(tzinfo=UTC).astimezone(place).replace(tzinfo=None) for t in times]
    day = np.array([(t.date() - clock.first).days for t in times], np.int64)
    slot = np.array([(t.hour * 3600 + t.minute * 60 + t.second) // clock.step_s for t in times], np.int64)
    _, keep = np.unique(np.array([t.isoformat() for t in times]), return_index=True)
    first_kept = np.zeros(len(times), np.bool_)
    first_kept[keep] = True
    daily = len({t.date() for t in times}) >= 0.9 * len(keep)
    out: dict[str, F8] = {}
    for name in table.header:
        if name == column or not _is_numeric(table.texts(name)):
            continue
        value = np.where(first_kept, table.numbers(name), np.nan)
        if daily:
            by_day = clock_grid(day, np.zeros(len(day), np.int64), value, days, 1)
            out[f"weather {name}" if name in out else name] = np.repeat(by_day, clock.slots, axis=1)
        else:
            out[name] = clock_grid(day, slot, value, days, clock.slots)
    if not out:
        raise UsageError(tr(f"{path}: no numeric column", f"{path}: 没有数值列"))
    return out


def _is_numeric(texts: list[str]) -> bool:
    """Whether most of the filled cells are numbers; a few that are not are faults, which the reader then names."""
    some = [t for t in texts if t.lower() not in EMPTY]
    return bool(some) and sum(_parses(t) for t in some) >= 0.9 * len(some)


def _parses(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
