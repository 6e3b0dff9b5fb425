"""What kind of day a day is: weekday, rest day, festival, distance from the festival and from the Chinese New Year.

Mainland China's statutory holidays and make-up working days (调休) are data (`calendar_cn.toml`, renewed every year);
other countries' holidays come as a known column. A year that the file lacks is named by `missing_years`: its festivals
are then unknown and its forecasts poor, which the caller must say loudly.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np

from ..masks import B1, F8, I8

# Statutory days of a festival: the load stays down on all of them (labour day has two since 2025).
STATUTORY: Final = {"national": 3}
LABOUR_TWO_FROM: Final = 2025
FAR: Final = 60
NEAR: Final = 9  # a festival is felt from two days before to a week after


@dataclass(frozen=True, slots=True)
class ChinaCalendar:
    """The calendar file. rest, work: days off and make-up working days; core: the festivals' own days, with names."""

    years: frozenset[int]
    provisional: frozenset[int]
    rest: frozenset[date]
    work: frozenset[date]
    core: tuple[tuple[str, date, int], ...]
    spring: tuple[date, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DayTypes:
    """Arrays (days,) from `first` on. weekday 0 = Monday; rest: no ordinary work that day (weekend or holiday, not a
    make-up day); makeup: a weekend day that is worked; holiday: a day off by the calendar or the known column;
    festival: days from the nearest festival, 0 on each of its statutory days, negative before, FAR = none near;
    national: the same for the National Day week alone; spring: days from the Chinese New Year, clipped to +-FAR.
    """

    first: date
    weekday: I8
    rest: B1
    makeup: B1
    holiday: B1
    festival: I8
    national: I8
    spring: I8
    season: F8

    def since(self, day: int) -> DayTypes:
        """The same from a day on."""
        return DayTypes(
            first=self.first + timedelta(days=day),
            weekday=self.weekday[day:],
            rest=self.rest[day:],
            makeup=self.makeup[day:],
            holiday=self.holiday[day:],
            festival=self.festival[day:],
            national=self.national[day:],
            spring=self.spring[day:],
            season=self.season[day:],
        )


@cache
def china() -> ChinaCalendar:
    """The calendar that ships with the package."""
    raw = tomllib.loads(files(__package__).joinpath("calendar_cn.toml").read_text(encoding="utf-8"))
    rest: set[date] = set()
    work: set[date] = set()
    core: list[tuple[str, date, int]] = []
    for entry in raw["year"]:
        year = int(entry["year"])
        work |= {_day(year, text) for text in entry["work"]}
        for festival in entry["festival"]:
            name = str(festival["name"])
            length = 2 if name == "labour" and year >= LABOUR_TWO_FROM else STATUTORY.get(name, 1)
            core.append((name, _day(year, festival["day"]), length))
            for span in festival["rest"]:
                begin, end = (_day(year, text) for text in span.split(".."))
                rest |= {begin + timedelta(days=i) for i in range((end - begin).days + 1)}
    return ChinaCalendar(
        years=frozenset(int(e["year"]) for e in raw["year"]),
        provisional=frozenset(int(e["year"]) for e in raw["year"] if e.get("provisional")),
        rest=frozenset(rest),
        work=frozenset(work),
        core=tuple(core),
        spring=tuple(_day(int(y), text) for y, text in raw["spring_day"].items()),
    )


def _day(year: int, text: str) -> date:
    month, day = text.split("-")
    return date(year, int(month), int(day))


def missing_years(first: date, days: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(years without an entry, years with statutory days only) among the days of a Chinese forecast."""
    years = range(first.year, (first + timedelta(days=max(days - 1, 0))).year + 1)
    calendar = china()
    return (
        tuple(y for y in years if y not in calendar.years),
        tuple(y for y in years if y in calendar.provisional),
    )


def day_types(first: date, days: int, *, chinese: bool, marked: B1 | None = None) -> DayTypes:
    """Day types of `days` days. marked (days,): holidays known from elsewhere; they count beside the calendar's."""
    every = [first + timedelta(days=i) for i in range(days)]
    weekday = np.array([d.weekday() for d in every], np.int64)
    holiday = np.zeros(days, np.bool_) if marked is None else np.array(marked, np.bool_)
    makeup = np.zeros(days, np.bool_)
    festival = _distance_from_marks(holiday) if marked is not None else np.full(days, FAR, np.int64)
    national = np.full(days, FAR, np.int64)
    spring = np.full(days, FAR, np.int64)
    if chinese:
        calendar = china()
        holiday = holiday | np.array([d in calendar.rest for d in every])
        makeup = np.array([d in calendar.work for d in every]) & ~holiday
        for name, day, length in calendar.core:
            if name == "spring":
                continue
            offset = np.arange(days) + (first - day).days
            reduced = np.where(offset < 0, offset, np.maximum(offset - length + 1, 0))
            near = (np.abs(reduced) < np.abs(festival)) & (reduced >= -NEAR) & (reduced <= NEAR)
            festival[near] = reduced[near]
            if name == "national":
                near = np.abs(offset) <= NEAR
                national[near] = offset[near]
        for day in calendar.spring:
            offset = np.arange(days) + (first - day).days
            spring = np.where(np.abs(offset) < np.abs(spring), offset, spring)
    return DayTypes(
        first=first,
        weekday=weekday,
        rest=((weekday >= 5) & ~makeup) | holiday,
        makeup=makeup,
        holiday=holiday,
        festival=festival,
        national=national,
        spring=np.clip(spring, -FAR, FAR),
        season=np.array([d.timetuple().tm_yday for d in every], np.float64) / 365.25,
    )


def _distance_from_marks(marked: B1) -> I8:
    """Signed distance in days from the nearest marked day, FAR beyond NEAR."""
    n = len(marked)
    at = np.flatnonzero(marked)
    if not len(at):
        return np.full(n, FAR, np.int64)
    offset = np.arange(n)[:, None] - at[None, :]
    nearest: I8 = np.take_along_axis(offset, np.abs(offset).argmin(axis=1)[:, None], axis=1)[:, 0]
    return np.where(np.abs(nearest) <= NEAR, nearest, FAR)
