"""Decoded data units (plain dicts) read with types and defaults; measured numbers as the formats hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import TypeAlias

Data: TypeAlias = Mapping[str, object]


def integer(data: Data | None, name: str, default: int = 0) -> int:
    """A whole number."""
    value = (data or {}).get(name)
    return int(value) if isinstance(value, int | Decimal | float) else default


def number(data: Data | None, name: str, default: float | None = None) -> float | None:
    """A number; formats that carry a unit flag give a mapping with `value`."""
    value = (data or {}).get(name)
    if isinstance(value, Mapping):
        value = value.get("value")
    return float(value) if isinstance(value, int | float | Decimal) else default


def bits(data: Data | None, name: str) -> frozenset[int]:
    """A bit set."""
    value = (data or {}).get(name)
    return frozenset(v for v in value if isinstance(v, int)) if isinstance(value, Iterable) else frozenset()


def rows(data: Data | None, name: str) -> list[dict[str, object]]:
    """A list of structures."""
    value = (data or {}).get(name)
    return [dict(v) for v in value if isinstance(v, Mapping)] if isinstance(value, list | tuple) else []


def numbers(data: Data | None, name: str) -> list[float | None]:
    """A list of numbers."""
    value = (data or {}).get(name)
    if not isinstance(value, list | tuple):
        return []
    return [float(v) if isinstance(v, int | float | Decimal) else None for v in value]


def moment(data: Data | None, name: str) -> datetime | None:
    """A naive local instant."""
    value = (data or {}).get(name)
    return value if isinstance(value, datetime) else None


def day(data: Data | None, name: str) -> date | None:
    """A calendar day."""
    value = (data or {}).get(name)
    if isinstance(value, datetime):
        return value.date()
    return value if isinstance(value, date) else None


def clock_time(data: Data | None, name: str) -> time | None:
    """A time of day (text `hh:mm` too)."""
    value = (data or {}).get(name)
    if isinstance(value, datetime):
        return value.time()
    if isinstance(value, time):
        return value
    if isinstance(value, str) and len(value) >= 5 and value[-3] == ":":
        hour, minute = value[-5:].split(":")
        return time(int(hour), int(minute)) if hour.isdecimal() and minute.isdecimal() else None
    return None


def rounded(value: float | None, places: int) -> Decimal | None:
    """A measured value as the exact number that a display of `places` decimals shows; NaN and None = none."""
    if value is None or value != value:
        return None
    return Decimal(round(value * 10**places)).scaleb(-places)


def cut(value: float | None, places: int) -> Decimal | None:
    """The same for a register, which is truncated."""
    if value is None or value != value:
        return None
    return Decimal(int(value * 10**places + 1e-6)).scaleb(-places)


def power(value: float | None) -> Decimal | None:
    """kW with the three digits of format A.2; None where even these are not enough."""
    if value is None or value != value or abs(value) >= 9_995_000:
        return None
    if not value:
        return Decimal(0)
    shown = Decimal(f"{value:.2e}").normalize()
    exponent = shown.as_tuple().exponent
    assert isinstance(exponent, int)
    return Decimal(round(value * 1000)).scaleb(-3) if exponent < -3 else shown


def energy(value: float | None) -> Decimal | None:
    """kWh cut to whole ones (format A.3), or to MWh where seven digits are not enough, or None."""
    if value is None or value != value or abs(value) >= 1e10:
        return None
    whole = int(value)
    return Decimal(whole) if abs(whole) <= 9_999_999 else Decimal(whole // 1000).scaleb(3)
