"""Which instant a value of a Q/GDW 376.1 terminal belongs to (domain rules of time labels). Pure.

    live values       the terminal's reading of the meter (read_time), else our clock
    last month        the settlement before that reading (settlement day and hour are the meter's, not sent)
    day freeze        Td_d = D, the day that ended: 00:00 of D + 1
    month freeze      Td_m = M, the month that ended: 00:00 of the first day of M + 1
    reading day       the reading itself (read_time), else 00:00 of D + 1
    curves            point i: start + i * step: the instant of a snapshot, the END of an averaging interval
                      a terminal that labels by the START of intervals: averages, energies and powers one step later
    hour freeze       hour H: first point H:00 + step

Terminals send naive local time; the business zone is fixed. Demand times come without year (or month): the latest such
moment that is not after the value's own label is meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Final, Literal, NamedTuple

from ...model.quantities import Quantity
from ...model.times import BUSINESS_ZONE, DAY_US, US, business_to_us, day_start_us, from_us
from ..profile import TerminalPlan

CLOCK_SLACK_US: Final = 300 * US
"""How far a terminal's clock may be ahead of ours; what lies further ahead cannot have been measured."""
_FULL: Final = re.compile(r"(\d\d)-(\d\d) (\d\d):(\d\d)")
_DAY: Final = re.compile(r"(\d\d) (\d\d):(\d\d)")
_MONTH: Final = re.compile(r"(\d{4})-(\d\d)")
_POWERS: Final = ("kW", "kvar", "kVA")


class Labels(NamedTuple):
    """How a terminal labels. curve: what Td_c + i * step is of an interval; settlement (月结算日): of its meters."""

    curve: Literal["end", "start"] = "end"
    settlement_day: int = 1
    settlement_hour: int = 0

    @classmethod
    def of(cls, plan: TerminalPlan, options: Mapping[str, str]) -> Labels:
        """From the profile; the device's own option curve_label wins."""
        said = options.get("curve_label", plan.curve_label)
        return cls("start" if said == "start" else "end", plan.settlement_day, plan.settlement_hour)


def of_interval(quantity: Quantity) -> bool:
    """Whether a curve's value tells of an interval: averages, energies, and powers (terminals average them)."""
    return quantity.kind in ("average", "energy") or (quantity.kind == "instant" and quantity.unit in _POWERS)


def _local(time_us: int) -> datetime:
    return from_us(time_us).astimezone(BUSINESS_ZONE).replace(tzinfo=None)


def freeze_us(day: object) -> int | None:
    """Instant of the freeze of day D: 00:00 of the next day."""
    return day_start_us(day) + DAY_US if isinstance(day, date) and not isinstance(day, datetime) else None


def month_us(month: object) -> int | None:
    """Instant of the freeze of a month "YYYY-MM": 00:00 of the first day of the next."""
    found = _MONTH.fullmatch(month) if isinstance(month, str) else None
    if found is None or not 1 <= int(found[2]) <= 12:
        return None
    year, number = divmod(int(found[1]) * 12 + int(found[2]), 12)
    return day_start_us(date(year, number + 1, 1))


def settlement_us(before_us: int, labels: Labels) -> int:
    """The last settlement at or before an instant."""
    now = _local(before_us)
    for back in range(2):
        year, month = divmod(now.year * 12 + now.month - 1 - back, 12)
        moment = datetime(year, month + 1, labels.settlement_day, labels.settlement_hour)  # noqa: DTZ001 - local clock
        if moment <= now:
            break
    return business_to_us(moment)


def hour_us(hour: object, received_us: int) -> int | None:
    """Beginning of the last hour H:00 that has begun."""
    if not isinstance(hour, int) or not 0 <= hour <= 23:
        return None
    now = _local(received_us + CLOCK_SLACK_US)
    begin = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    return business_to_us(begin if begin <= now else begin - timedelta(days=1))


def moment_us(text: str, end_us: int) -> int | None:
    """The latest instant not after `end_us` whose clock shows "MM-DD hh:mm" or "DD hh:mm"; None for what is no time.

    Hour 24 is the end of the day; day or month 00 means that nothing ever happened.
    """
    end = _local(end_us)
    if found := _FULL.fullmatch(text):
        month, day, hour, minute = map(int, found.groups())
        days = ((end.year - back, month, day) for back in range(9))
    elif found := _DAY.fullmatch(text):
        day, hour, minute = map(int, found.groups())
        counts = (end.year * 12 + end.month - 1 - back for back in range(12))
        days = ((n // 12, n % 12 + 1, day) for n in counts)
    else:
        return None
    if hour > 24 or minute > 59:
        return None
    for year, month, day in days:
        try:
            moment = datetime(year, month, day) + timedelta(hours=hour, minutes=minute)  # noqa: DTZ001 - local clock
        except ValueError:  # not a day of that month
            continue
        if moment <= end:
            return business_to_us(moment)
    return None
