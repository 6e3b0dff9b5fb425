"""Columns known ahead (weather, marks of days) sorted by what they are, cleaned and without holes.

A value is judged and replaced only by values of the same or earlier days, so that what a forecast is told about its
day does not change when later days are added.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..masks import B1, F8
from .features import Known

TEMPERATURE: Final = re.compile(r"(temp|^t(max|min|mean|avg|_|$)|_c$|dry|wet|dew|°|温)", re.IGNORECASE)
HOLIDAY: Final = re.compile(r"(holi|festiv|节|假)", re.IGNORECASE)
COLDEST, HOTTEST = -60.0, 50.0  # °C of the air at a station; the record is 56.7 in a desert
JUMP_DAYS: Final = 15
JUMP_SIGMAS: Final = 10.0
JUMP_MIN: Final = 12.0
FEW: Final = 6
RARE: Final = 0.2  # share of days that a mark of holidays may have


@dataclass(frozen=True, slots=True)
class Ahead:
    """known for the learners; holiday (days,) marks found among the columns, None without; what each column was taken
    for; cleaned: values refused, by column; filled: days of the range without a value, by column.
    """

    known: Known
    holiday: B1 | None
    kinds: dict[str, str]
    cleaned: dict[str, int]
    filled: dict[str, int]


def sort_columns(columns: Mapping[str, F8]) -> Ahead:
    """Columns (days, slots) with NaN; a daily value stands in every slot of its day. Columns without any value go."""
    shape = next(iter(columns.values())).shape
    temperature, other, mark = [], [], []
    holiday: B1 | None = None
    kinds: dict[str, str] = {}
    cleaned: dict[str, int] = {}
    filled: dict[str, int] = {}
    for name, raw in columns.items():
        some = raw[np.isfinite(raw)]
        if not len(some):
            kinds[name] = "empty"
            continue
        value = raw
        warm = bool(TEMPERATURE.search(name))
        if warm:
            wrong = _implausible(raw)
            value = np.where(wrong, np.nan, raw)
            cleaned[name] = int(wrong.any(axis=1).sum())
        filled[name] = int((~np.isfinite(value)).all(axis=1).sum())
        value = carried(value)
        levels = np.unique(some)
        daily = np.ptp(value, axis=1).max() == 0
        if not warm and daily and len(levels) <= FEW and (levels == np.round(levels)).all():
            day = value[:, 0]
            two = set(levels.tolist()) <= {0.0, 1.0}
            if two and (HOLIDAY.search(name) or (day > 0).mean() < RARE):
                holiday = (day > 0) if holiday is None else holiday | (day > 0)
                kinds[name] = "holiday"
            else:
                mark.append(day)
                kinds[name] = "mark"
        elif warm or not any(TEMPERATURE.search(c) for c in columns):
            temperature.append(value)
            kinds[name] = "temperature" if warm else "variable"
        else:
            other.append(value)
            kinds[name] = "variable"
    empty = np.zeros((0, *shape))
    known = Known(
        temperature=np.stack(temperature) if temperature else empty,
        other=np.stack(other) if other else empty,
        mark=np.stack(mark) if mark else empty[:, :, 0],
    )
    return Ahead(known, holiday, kinds, cleaned, filled)


def carried(value: F8) -> F8:
    """Holes filled: inside a day between its values, else the last value before; at the beginning the first after."""
    flat = value.reshape(-1)
    good = np.flatnonzero(np.isfinite(flat))
    if not len(good):
        return value
    slots = value.shape[1]
    at = np.arange(len(flat))
    place = np.searchsorted(good, at, side="right") - 1
    before = flat[good[np.maximum(place, 0)]]
    follow = good[np.minimum(place + 1, len(good) - 1)]
    lead = good[np.maximum(place, 0)]
    between = (place >= 0) & (follow > at) & (follow // slots == at // slots) & (lead // slots == at // slots)
    share = np.where(between, (at - lead) / np.maximum(follow - lead, 1), 0.0)
    return (before + share * (flat[follow] - before)).reshape(value.shape)


def _implausible(value: F8) -> B1:
    """Temperatures that no thermometer shows, or that stand far from the same slot of the days before."""
    with np.errstate(invalid="ignore"):
        out: B1 = (value < COLDEST) | (value > HOTTEST)
        for day in range(JUMP_DAYS, len(value)):
            past = np.where(out[day - JUMP_DAYS : day], np.nan, value[day - JUMP_DAYS : day])
            use = np.isfinite(past).all(axis=0)
            if not use.any():
                continue
            middle = np.median(past[:, use], axis=0)
            spread = 1.4826 * np.median(np.abs(past[:, use] - middle), axis=0)
            out[day, use] |= np.abs(value[day, use] - middle) > np.maximum(JUMP_MIN, JUMP_SIGMAS * spread) + 5.0
    return out
