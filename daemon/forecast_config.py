"""Configuration of forecasts: the `forecast:` section of config.yaml."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from ..model.lang import tr


class ForecastConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the daemon forecasts, and when (business time).

    objects: see `fuhe forecast run --help`; empty = the daemon forecasts nothing. at: times of day at which the next
    day's 96 points are issued; at the first one the next seven days and the month's maximum too. intraday: objects
    whose next `intraday_hours` are forecast every 15 minutes. place: whose weather forecasts are used, empty = none.
    calendar: cn = mainland China's statutory holidays and make-up working days, none = weekends only.
    history_days: how far back is learned from. warm_up_days: days forecast again before an issue, to weigh learners.
    """

    objects: tuple[str, ...] = ("total",)
    at: tuple[str, ...] = ("09:30", "16:00")
    intraday: tuple[str, ...] = ()
    intraday_hours: int = 4
    place: str = ""
    calendar: Literal["cn", "none"] = "cn"
    history_days: int = 800
    warm_up_days: int = 28


def minute_of(text: str) -> int | None:
    """Minutes since midnight of HH:MM, None if it is none."""
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    return int(found[1]) * 60 + int(found[2]) if found else None


def forecast_faults(config: ForecastConfig) -> list[str]:
    """What the types cannot say, as "field: what is wrong"."""
    found = []
    for text in config.at:
        if minute_of(text) is None:
            found.append(tr(f"at: {text!r} is no time of day (HH:MM)", f"at: {text!r} 不是时刻 (HH:MM)"))
    if not 1 <= config.intraday_hours <= 24:
        found.append(tr("intraday_hours: 1 to 24", "intraday_hours: 应在 1 至 24 之间"))
    if not 7 <= config.history_days <= 4000:
        found.append(tr("history_days: 7 to 4000", "history_days: 应在 7 至 4000 之间"))
    if not 0 <= config.warm_up_days <= 90:
        found.append(tr("warm_up_days: 0 to 90", "warm_up_days: 应在 0 至 90 之间"))
    return found
