"""Time-of-use tables (峰谷平尖时段表) with effective dates, seasons and holidays: the tariff of each slot (domain 4.5).

A table is in force as a whole from its date until the next one. Its rows are tried in order, so that the special ones
(sharp months, holidays) stand before the usual ones. Local tables must be supplied: nothing here knows a province.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Literal

import numpy as np

from .masks import B1, F8, I8
from .tou import slot_tariffs

EPOCH: Final = date(1970, 1, 1)
UNKNOWN: Final = -1
DayKind = Literal["work", "rest", "holiday"]
KINDS: Final[tuple[DayKind, ...]] = ("work", "rest", "holiday")


@dataclass(frozen=True, slots=True, kw_only=True)
class TouRow:
    """periods: (start minute, tariff), left-closed, right-open; months 1-12 and kinds of day it is for, empty = all."""

    periods: tuple[tuple[int, int], ...]
    months: frozenset[int] = frozenset()
    kinds: frozenset[DayKind] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TouTable:
    """Rows in force from a business day on."""

    valid_from: date
    rows: tuple[TouRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TouBook:
    """Every table with its date, and the days that are not what their weekday says (holidays, make-up workdays)."""

    tables: tuple[TouTable, ...]
    days: Mapping[date, DayKind] = field(default_factory=dict)


def day_kinds(days: I8, special: Mapping[date, DayKind]) -> I8:
    """Index into KINDS of days since 1970 (days,): Saturday and Sunday rest, unless `special` says otherwise."""
    weekday = (days + 3) % 7  # 1970-01-01 was a Thursday
    kind = np.where(weekday >= 5, KINDS.index("rest"), KINDS.index("work")).astype(np.int64)
    for day, name in special.items():
        kind[days == (day - EPOCH).days] = KINDS.index(name)
    return kind


def day_tariffs(book: TouBook, days: I8, step_s: int) -> I8:
    """Tariff (days, slots) of days since 1970 (days,); UNKNOWN where no table is in force or no row is for the day.

    ValueError: periods that do not fit the slots, or two tables of one date.
    """
    tables = sorted(book.tables, key=lambda t: t.valid_from)
    starts = np.array([(t.valid_from - EPOCH).days for t in tables], np.int64)
    if len(np.unique(starts)) < len(starts):
        raise ValueError("two tariff tables begin on one day")
    number = np.searchsorted(starts, days, side="right") - 1
    month = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1
    kind = day_kinds(days, book.days)
    out = np.full((len(days), 86_400 // step_s), UNKNOWN, np.int64)
    for n, table in enumerate(tables):
        free = number == n
        for row in table.rows:
            tariff = slot_tariffs(row.periods, step_s)
            mine = free.copy()
            if row.months:
                mine &= np.isin(month, sorted(row.months))
            if row.kinds:
                mine &= np.isin(kind, [KINDS.index(k) for k in row.kinds])
            out[mine] = tariff
            free &= ~mine
    return out


def days_tou_energy(kw: F8, ok: B1, tariff: I8, tariffs: Sequence[int], step_s: int) -> tuple[F8, I8]:
    """(kWh, missing slots), both (points, len(tariffs)), of power (points, days, slots) and tariff (days, slots).

    NaN where a slot of that tariff is missing (4.5: a sum with a hole is no energy); a tariff that does not occur: 0.
    """
    hours = step_s / 3600.0
    filled = np.where(ok, kw, 0.0)
    energy = np.empty((len(kw), len(tariffs)))
    missing = np.empty(energy.shape, np.int64)
    for i, code in enumerate(tariffs):
        member = tariff == code
        energy[:, i] = filled[:, member].sum(axis=-1) * hours
        missing[:, i] = (~ok[:, member]).sum(axis=-1)
    return np.where(missing == 0, energy, np.nan), missing


def meter_table_differs(meter: I8, valid: I8) -> B1:
    """Slots in which a meter's own table (points, slots) has another tariff than the valid one (slots,); UNKNOWN on
    either side is no difference."""
    differs: B1 = (meter != valid) & (meter != UNKNOWN) & (valid != UNKNOWN)
    return differs
