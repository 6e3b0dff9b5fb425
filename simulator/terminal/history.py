"""Class-2 data (AFN 0D): day and month freezes, statistics and curves that a terminal has kept.

A day is frozen at 24:00 by the terminal's clock; Td_d names the day that ended, Td_m the month. What is not over yet,
older than the memory or before it began is not there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from ...protocols.qgdw1376.table import Row, lookup
from ..clock import month_start
from . import fields, statistics
from .curves import curve_unit
from .device import Terminal
from .fill import Source, fill
from .parameters import Unit
from .realtime import has_tariffs, meter_times, served
from .sources import STATISTICS, group_source, point_source, statistic_source

AFN: Final = 0x0D
READ_AFTER: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Span:
    """A day or month that is over. key: as counters know it; start and end true instants; label: local end."""

    key: date | tuple[int, int]
    start_us: int
    end_us: int
    label: datetime
    begin: datetime


def history_unit(terminal: Terminal, pn: int, fn: int, asked: fields.Data, now_us: int) -> Unit | None:
    """Data of one class at one point; None = the terminal has no such thing (any more)."""
    parts = terminal.parts
    row = lookup(AFN, fn, parts.edition)
    if row is None or parts.edition not in row.editions or not _known(terminal, row, pn):
        return None
    if row.name.startswith("curve_"):
        return curve_unit(parts, row.fields, row.pn, pn, asked, now_us, terminal.options.curve_days)
    if row.name.startswith("reading_day_"):
        moment = _reading_day(terminal, asked, now_us)
        return None if moment is None else _frozen(terminal, row, pn, asked, moment)
    span = _span(terminal, asked, now_us)
    if span is None:
        return None
    given: Unit = {k: v for k, v in asked.items() if k in ("td_d", "td_m")}
    what = re.sub("^(day|month)_", "", row.name)
    if row.pn == "0":
        own = _own(terminal, what, span)
        return None if own is None else given | own
    if row.pn == "G":
        return fill(row.fields, parts.edition, given | _tariffs(terminal, row, pn), _group(terminal, what, pn, span))
    if what in STATISTICS:
        source = statistic_source(parts, pn, (span.start_us, span.end_us), what)
        return fill(row.fields, parts.edition, given, source)
    return _frozen(terminal, row, pn, given, (span.end_us, span.label + READ_AFTER))


def _known(terminal: Terminal, row: Row, pn: int) -> bool:
    parts = terminal.parts
    if row.pn == "0":
        return pn == 0
    if row.pn == "G":
        return bool(parts.totals.members(pn))
    return row.pn == "M" and pn in parts.points.numbers() and served(row, parts.edition)


def _frozen(terminal: Terminal, row: Row, pn: int, given: fields.Data, moment: tuple[int, datetime]) -> Unit:
    at, read = moment
    data: Unit = {k: v for k, v in given.items() if k in ("td_d", "td_m")}
    data |= meter_times(terminal, row, pn, at) | _tariffs(terminal, row, pn)
    if "read_time" in data:
        data["read_time"] = read
    return fill(row.fields, terminal.parts.edition, data, point_source(terminal.parts, pn, at))


def _tariffs(terminal: Terminal, row: Row, pn: int) -> Unit:
    if not has_tariffs(row, terminal.parts.edition):
        return {}
    return {"tariffs": 4 if row.pn == "G" else terminal.parts.settings.tariffs(pn)}


# --- spans of time ----------------------------------------------------------------------------------------------------


def _span(terminal: Terminal, asked: fields.Data, now_us: int) -> Span | None:
    """The day or month that is asked for, if it is over and still remembered."""
    options = terminal.options
    day, text = fields.day(asked, "td_d"), asked.get("td_m")
    key: date | tuple[int, int]
    local = terminal.parts.local(now_us)
    if day is not None:
        key, begin = day, datetime(day.year, day.month, day.day)  # noqa: DTZ001 - the terminal's own time
        label = begin + timedelta(days=1)
        oldest = local - timedelta(days=options.freeze_days)
    elif isinstance(text, str) and re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text):
        begin = datetime(int(text[:4]), int(text[5:]), 1)  # noqa: DTZ001
        key, label = (begin.year, begin.month), month_start(begin, -1)
        oldest = month_start(local, options.freeze_months)
    else:
        return None
    return _over(terminal, key, begin, label, oldest, now_us)


def _over(
    terminal: Terminal, key: date | tuple[int, int], begin: datetime, label: datetime, oldest: datetime, now_us: int
) -> Span | None:
    clock, since = terminal.parts.clock, terminal.parts.points.since_us
    end = clock.true_us(label)
    if end is None or end > now_us or end < since or label < oldest:
        return None
    start = clock.true_us(begin)
    return Span(key, max(start if start is not None else since, since), end, label, begin)


def _reading_day(terminal: Terminal, asked: fields.Data, now_us: int) -> tuple[int, datetime] | None:
    """Instant of the reading-day freeze (F33: days and time of the first port that has them)."""
    day = fields.day(asked, "td_d")
    if day is None:
        return None
    for port in terminal.parts.parameters.entries(33):
        at = fields.clock_time(port, "time")
        if at is not None and day.day in fields.bits(port, "days"):
            local = datetime.combine(day, at)
            true = terminal.parts.clock.true_us(local)
            kept = terminal.parts.local(now_us) - timedelta(days=terminal.options.freeze_days) <= local
            if true is not None and terminal.parts.points.since_us <= true <= now_us and kept:
                return true, local
    return None


# --- the terminal itself and its groups -------------------------------------------------------------------------------


def _own(terminal: Terminal, what: str, span: Span) -> Unit | None:
    counters = terminal.parts.counters
    match what:
        case "powered":
            return {"powered_min": counters.powered_min(span.begin, span.label), "resets": counters.resets(span.key)}
        case "trips":
            trips = counters.trips(span.key)
            return {
                "month_energy": trips["month"], "prepaid": trips["purchase"], "power": trips["power"],
                "remote": trips["remote"],
            }  # fmt: skip
        case "traffic":
            return {"bytes": counters.traffic(span.key)}
    return None


def _group(terminal: Terminal, what: str, group: int, span: Span) -> Source:
    parts = terminal.parts
    if what == "group_power_extremes":
        times = statistics.minutes_of(span.start_us, span.end_us)
        return statistics.group_power(parts.totals, group, times, parts.clock.local).get
    if what.startswith("group_over"):
        return parts.counters.over(span.key, group).get
    return group_source(parts, terminal.control, group, span.end_us)
