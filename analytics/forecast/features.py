"""What the learners see of a day, made from loads before the issue time, the calendar and what is known ahead.

Two views of the same facts: `day_groups` describes a day by groups of a few numbers each (for the kernel learner, which
measures how alike two days are), `slot_table` every slot by a row of numbers (for the trees). All loads are divided by
the level of the last seven days before issue, so that a series may grow without leaving what was learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..masks import F8, I8
from .calendar import FAR, DayTypes

BLOCKS: Final = 8  # of three hours
BEND: Final = 0.5  # of the level: below it a load's noise is no longer proportional to the load
WARM_DAYS: Final = 22  # days of history before the first day that can be described in full


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known ahead, over all days with those to forecast. temperature, other: (variables, days, slots) without
    NaN; mark: (marks, days) of day marks that are no holidays (e.g. a plant's shift plan).
    """

    temperature: F8
    other: F8
    mark: F8

    @classmethod
    def nothing(cls, days: int, slots: int) -> Known:
        """No known column at all."""
        return cls(temperature=np.zeros((0, days, slots)), other=np.zeros((0, days, slots)), mark=np.zeros((0, days)))

    def since(self, day: int) -> Known:
        """The same from a day on."""
        return Known(temperature=self.temperature[:, day:], other=self.other[:, day:], mark=self.mark[:, day:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """When forecasts are issued: `lead` days before the day forecast, when `slot` slots of that issue day are over."""

    lead: int
    slot: int

    def end(self, day: int | I8, slots: int) -> int | I8:
        """Number of slots (from the first day's start) that are over when day number `day` is forecast."""
        return (day - self.lead) * slots + self.slot


def soft_log(ratio: F8) -> F8:
    """A logarithm for loads near or above the level, a straight line around zero (and for energy flowing back)."""
    return np.arcsinh(ratio / BEND)


def soft_exp(y: F8) -> F8:
    """The inverse of soft_log, kept inside ratios that can be."""
    return np.sinh(np.clip(y, -5.0, 5.0)) * BEND


def levels(x: F8, days: I8, issue: Issue, length: int) -> F8:
    """Mean load (n,) of the `length` days before issue, for each of the days; x (days, slots) without holes there."""
    slots = x.shape[1]
    total = np.r_[0.0, np.cumsum(np.nan_to_num(x.reshape(-1)))]
    end = np.clip(issue.end(days, slots), 1, len(total) - 1)
    begin = np.maximum(end - length * slots, 0)
    out: F8 = (total[end] - total[begin]) / (end - begin)
    return out


def scale_of(x: F8, days: I8, issue: Issue) -> F8:
    """The level (n,) that loads are divided by: the last seven days', kept off zero for a series that stands still."""
    week, long = levels(np.abs(x), days, issue, 7), levels(np.abs(x), days, issue, 56)
    return np.maximum(np.maximum(week, 0.1 * long), 1e-6)


def _at(days: I8, back: int) -> I8:
    return np.maximum(days - back, 0)


def _last_day(x: F8, days: I8, issue: Issue) -> tuple[F8, F8]:
    """Curves (n, slots) of the newest and second newest known value of each slot at issue."""
    early = np.arange(x.shape[1]) < issue.slot
    newest = np.where(early, x[_at(days, issue.lead)], x[_at(days, issue.lead + 1)])
    second = np.where(early, x[_at(days, issue.lead + 1)], x[_at(days, issue.lead + 2)])
    return newest, second


def _week_back(issue: Issue) -> int:
    """Days back to the newest whole day of the same weekday."""
    return 7 * -(-(issue.lead + 1) // 7)


def _blocks(curve: F8, count: int = BLOCKS) -> F8:
    n, slots = curve.shape
    if slots % count:
        count = 1
    means: F8 = curve.reshape(n, count, slots // count).mean(axis=2)
    return means


def day_groups(x: F8, days: I8, types: DayTypes, known: Known, issue: Issue) -> dict[str, F8]:
    """Groups of numbers (n, k) for each of the days; loads as soft logarithm of the ratio to the level."""
    scale = scale_of(x, days, issue)

    def seen(curve: F8) -> F8:
        return soft_log(curve / scale[:, None])

    newest, second = _last_day(x, days, issue)
    week = x[_at(days, _week_back(issue))]
    last, last2 = seen(_blocks(newest)), seen(_blocks(second))
    cut = max(1, round(issue.slot * BLOCKS / x.shape[1]))
    level1, level7, level28 = (levels(x, days, issue, k) for k in (1, 7, 28))
    before = levels(x, _at(days, 7), issue, 7)
    groups = {
        "morning": last[:, :cut],
        "evening": last[:, min(cut, last.shape[1] - 1) :],
        "change": last - last2,
        "week": seen(_blocks(week)),
        "level": np.stack(
            [_log_ratio(level1, level7), _log_ratio(level7, level28), _log_ratio(level7, before)], axis=1
        ),
        "time": (days / 100.0)[:, None],
    }
    groups |= _calendar_groups(types, days)
    if len(known.temperature):
        groups |= _weather_groups(known.temperature, days, "heat")
    if len(known.other):
        groups |= _weather_groups(known.other, days, "other", whole_days=True)
    if len(known.mark):
        groups["mark"] = np.concatenate([known.mark[:, days].T, known.mark[:, _at(days, 1)].T], axis=1) * 2.0
    return groups


def _log_ratio(a: F8, b: F8) -> F8:
    tiny = 1e-9
    return np.log(np.maximum(np.abs(a), tiny) / np.maximum(np.abs(b), tiny)).clip(-2, 2)


def _calendar_groups(types: DayTypes, days: I8) -> dict[str, F8]:
    n = len(types.weekday)
    weekday = np.eye(7)[types.weekday] * 2.0
    # a make-up day is no weekday of its own: between Monday and Friday
    weekday[types.makeup] = (np.eye(7)[0] + np.eye(7)[4]) * 1.0
    rest = types.rest.astype(np.float64)
    holiday = types.holiday.astype(np.float64)
    beside = [np.r_[a[1:], a[-1:]] for a in (rest, holiday)] + [np.r_[a[:1], a[:-1]] for a in (rest, holiday)]
    angle = 2 * np.pi * types.season
    offsets = np.arange(-2, 4)
    festival = np.maximum(0.0, 1.0 - np.abs(types.festival[:, None] - offsets[None, :])) * 2.0
    national = np.exp(-((types.national[:, None] - np.array([0.5, 3.5, 6.5])) ** 2) / 4.0) * 2.0
    national[types.national == FAR] = 0.0
    near = types.spring.astype(np.float64)
    # fine near the feast, coarse far from it
    spring = np.stack(
        [np.exp(-((near / w) ** 2)) for w in (2.0, 5.0, 12.0)] + [np.tanh(near / 4.0) * np.exp(-((near / 14.0) ** 2))],
        axis=1,
    )
    out = {
        "weekday": weekday,
        "rest": np.stack([rest, holiday, *beside], axis=1) * 2.0,
        "festival": np.concatenate([festival, national], axis=1),
        "spring": spring * 2.0,
        "season": np.stack([np.sin(angle), np.cos(angle)], axis=1) * 1.5,
    }
    assert all(len(v) == n for v in out.values())
    return {k: v[days] for k, v in out.items()}


def _weather_groups(values: F8, days: I8, name: str, *, whole_days: bool = False) -> dict[str, F8]:
    """Values of the day and of the days before it (the ground and the buildings remember)."""
    today, before, memory = [], [], []
    for variable in values:
        flat = np.ptp(variable, axis=1).max() == 0  # a daily figure
        blocks = 1 if flat or whole_days else BLOCKS
        today.append(_blocks(variable[days], blocks))
        before.append(_blocks(variable[_at(days, 1)], min(blocks, 4)))
        mean = variable.mean(axis=1)
        memory.append(np.stack([mean[_at(days, 2)], mean[_at(days, 3)]], axis=1))
        memory.append(np.mean([mean[_at(days, k)] for k in range(1, 8)], axis=0)[:, None])
    return {
        name: np.concatenate(today, axis=1),
        f"{name}_before": np.concatenate(before, axis=1),
        f"{name}_memory": np.concatenate(memory, axis=1),
    }


def slot_table(x: F8, days: I8, types: DayTypes, known: Known, issue: Issue) -> tuple[F8, tuple[str, ...]]:
    """(n, slots, features) and the features' names; loads as ratio to the level."""
    n, slots = len(days), x.shape[1]
    scale = scale_of(x, days, issue)[:, None]
    newest, second = _last_day(x, days, issue)
    back = _week_back(issue)
    columns: dict[str, F8] = {}

    def whole(name: str, value: F8) -> None:
        columns[name] = np.broadcast_to(np.asarray(value, np.float64)[:, None], (n, slots))

    columns["slot"] = np.broadcast_to(np.arange(slots, dtype=np.float64), (n, slots))
    columns["newest"], columns["second"] = newest / scale, second / scale
    for k in (back, back + 1, back + 7, back + 14):
        columns[f"back_{k}"] = x[_at(days, k)] / scale
    columns["whole_day"] = x[_at(days, issue.lead + 1)] / scale
    columns["weeks"] = np.mean([x[_at(days, back + 7 * k)] for k in range(4)], axis=0) / scale
    columns["alike"] = _alike(x, days, types, issue) / scale
    hour = max(1, slots // 24)
    ramp = slice(max(issue.slot - 2 * hour, 0), max(issue.slot, 1))
    for name, part in (("ramp", ramp), ("night", slice(0, max(1, min(slots // 6, issue.slot))))):
        now = x[_at(days, issue.lead), part].mean(axis=1)
        if issue.slot:
            whole(name, now / scale[:, 0])
            whole(f"{name}_day", _log_ratio(now, x[_at(days, issue.lead + 1), part].mean(axis=1)))
            whole(f"{name}_week", _log_ratio(now, x[_at(days, issue.lead + 7), part].mean(axis=1)))
    evening = x[_at(days, issue.lead + 1), min(issue.slot, slots - 1) :].mean(axis=1)
    whole("evening", evening / scale[:, 0])
    whole("evening_week", _log_ratio(evening, x[_at(days, issue.lead + 8), min(issue.slot, slots - 1) :].mean(axis=1)))
    level1, level7, level28 = (levels(x, days, issue, k) for k in (1, 7, 28))
    whole("level_day", _log_ratio(level1, level7))
    whole("level_month", _log_ratio(level7, level28))
    whole("level_week", _log_ratio(level7, levels(x, _at(days, 7), issue, 7)))
    for shift in (-2, -1, 0, 1, 2):
        at = np.clip(days + shift, 0, len(types.rest) - 1)
        whole(f"kind{shift:+d}", types.rest[at].astype(np.float64) + types.holiday[at])
    whole(f"kind-{back}", types.rest[_at(days, back)].astype(np.float64) + types.holiday[_at(days, back)])
    whole("weekday", types.weekday[days].astype(np.float64))
    whole("season", types.season[days])
    for name, distance in (("festival", types.festival), ("national", types.national), ("spring", types.spring)):
        if (distance != FAR).any():
            whole(name, distance[days].astype(np.float64))
    for i, mark in enumerate(known.mark):
        whole(f"mark{i}", mark[days])
        whole(f"mark{i}_before", mark[_at(days, 1)])
    for i, variable in enumerate(known.temperature):
        _weather_columns(columns, f"heat{i}", variable, days, issue)
    for i, variable in enumerate(known.other):
        mean = variable.mean(axis=1)
        columns[f"other{i}"] = variable[days]
        whole(f"other{i}_day", mean[days])
        whole(f"other{i}_before", mean[_at(days, 1)])
    names = tuple(columns)
    return np.stack([columns[c] for c in names], axis=-1), names


def _alike(x: F8, days: I8, types: DayTypes, issue: Issue) -> F8:
    """Mean curve (n, slots) of the four newest known days of the same kind (working day or day of rest)."""
    out = np.empty((len(days), x.shape[1]))
    for kind in (False, True):
        at = np.flatnonzero(types.rest[: len(x)] == kind)
        for row in np.flatnonzero(types.rest[days] == kind):
            newest = days[row] - issue.lead - 1
            use = at[(at <= newest) & (at > newest - 30)][-4:]
            out[row] = x[use].mean(axis=0) if len(use) else x[max(newest, 0)]
    return out


def _weather_columns(columns: dict[str, F8], name: str, variable: F8, days: I8, issue: Issue) -> None:
    n, slots = len(days), variable.shape[1]
    flat = variable.reshape(-1)
    mean, top, low = variable.mean(axis=1), variable.max(axis=1), variable.min(axis=1)

    def whole(key: str, value: F8) -> None:
        columns[f"{name}_{key}"] = np.broadcast_to(value[:, None], (n, slots))

    columns[name] = variable[days]
    if np.ptp(variable, axis=1).max() > 0:
        hour = max(1, slots // 24)
        for hours in (1, 2, 3, 6, 12, 24, 48):
            shifted = np.r_[np.full(hours * hour, flat[0]), flat[: -hours * hour]].reshape(variable.shape)
            columns[f"{name}_{hours}h"] = shifted[days]
        for hours in (3, 6, 24, 72):
            columns[f"{name}_smooth{hours}"] = smooth(variable, hours * hour)[days]
        whole("max", top[days])
        whole("min", low[days])
        whole("mean", mean[days])
        whole("max_before", top[_at(days, 1)])
        newest, _ = _last_day(variable, days, issue)
        columns[f"{name}_than_newest"] = variable[days] - newest
    whole("before", mean[_at(days, 1)])
    whole("before2", mean[_at(days, 2)])
    whole("than_whole_day", mean[days] - mean[_at(days, issue.lead + 1)])
    whole("than_week", mean[days] - mean[_at(days, _week_back(issue))])
    whole("than_mean", mean[days] - np.mean([mean[_at(days, k)] for k in range(1, 8)], axis=0))


def smooth(variable: F8, slots: int) -> F8:
    """Exponential mean over time with the given time constant, shape kept."""
    from scipy.signal import lfilter

    flat = variable.reshape(-1)
    a = 1.0 / slots
    out: F8 = lfilter([a], [1.0, a - 1.0], flat, zi=[(1.0 - a) * flat[0]])[0].reshape(variable.shape)
    return out


def as_rows(groups: Mapping[str, F8], rows: I8) -> dict[str, F8]:
    """The groups of some of the days."""
    return {name: values[rows] for name, values in groups.items()}
