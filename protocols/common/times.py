"""Device times: naive local clock readings in BCD, low byte first, two-digit years read as 20YY.

Naive on purpose: a device knows no zone. `model.times.business_to_us` turns them into instants.
"""

from __future__ import annotations

from datetime import date, datetime, time
from typing import TYPE_CHECKING, Final

from .bcd import bcd_array, bcd_to_int, int_to_bcd, is_bcd

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NO_TIME: Final = -1


def is_blank(wire: bytes) -> bool:
    """All 00 or all FF: no time was ever set (an empty freeze slot, a demand that never happened)."""
    return wire.count(0) == len(wire) or wire.count(0xFF) == len(wire)


def _numbers(wire: bytes) -> list[int] | None:
    if not is_bcd(wire):
        return None
    return [bcd_to_int(wire[i : i + 1]) or 0 for i in range(len(wire))]


def decode_datetime(wire: bytes) -> datetime | None:
    """6 bytes ss mm hh DD MM YY or 5 bytes mm hh DD MM YY; None where it is no calendar time."""
    numbers = _numbers(wire)
    if numbers is None or len(numbers) not in (5, 6):
        return None
    second = numbers.pop(0) if len(numbers) == 6 else 0
    minute, hour, day, month, year = numbers
    try:
        return datetime(2000 + year, month, day, hour, minute, second)  # noqa: DTZ001 - a device's own clock
    except ValueError:
        return None


def decode_date(wire: bytes) -> date | None:
    """3 bytes DD MM YY; None where it is no calendar day."""
    numbers = _numbers(wire)
    if numbers is None or len(numbers) != 3:
        return None
    try:
        return date(2000 + numbers[2], numbers[1], numbers[0])
    except ValueError:
        return None


def decode_time(wire: bytes) -> time | None:
    """3 bytes ss mm hh or 2 bytes mm hh; None where it is no time of day."""
    numbers = _numbers(wire)
    if numbers is None or len(numbers) not in (2, 3):
        return None
    second = numbers.pop(0) if len(numbers) == 3 else 0
    try:
        return time(numbers[1], numbers[0], second)
    except ValueError:
        return None


def encode_datetime(moment: datetime, *, seconds: bool) -> bytes:
    """ss mm hh DD MM YY (or without ss) of a naive device time; ValueError outside 2000–2099 or with a zone."""
    if moment.tzinfo is not None:
        raise ValueError("a device time has no zone: convert to the device's local time first")
    if not 2000 <= moment.year <= 2099:
        raise ValueError(f"year {moment.year} cannot be sent in two digits")
    fields = [moment.second] if seconds else []
    fields += [moment.minute, moment.hour, moment.day, moment.month, moment.year - 2000]
    return b"".join(int_to_bcd(n, 1) for n in fields)


def encode_date(day: date) -> bytes:
    """DD MM YY; ValueError outside 2000–2099."""
    if not 2000 <= day.year <= 2099:
        raise ValueError(f"year {day.year} cannot be sent in two digits")
    return b"".join(int_to_bcd(n, 1) for n in (day.day, day.month, day.year - 2000))


def encode_time(moment: time, *, seconds: bool = True) -> bytes:
    """ss mm hh (or mm hh)."""
    fields = ([moment.second] if seconds else []) + [moment.minute, moment.hour]
    return b"".join(int_to_bcd(n, 1) for n in fields)


def device_times(wire: NDArray[np.uint8]) -> NDArray[np.int64]:
    """µs of naive device times mm hh DD MM YY (uint8, shape (n, 5)) as if they were UTC; NO_TIME where it is none."""
    import numpy as np

    numbers = bcd_array(np.ascontiguousarray(wire), width=1, decimals=0)
    readable: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(numbers), axis=1)
    minute, hour, day, month, year = np.where(readable[:, None], numbers, 1.0).astype(np.int64).T
    known = readable & (minute < 60) & (hour < 24) & (day > 0) & (month > 0) & (month < 13)
    months = ((year + 30) * 12 + month - 1).astype("M8[M]")
    days = months.astype("M8[D]") + (day - 1)
    known = known & (days.astype("M8[M]") == months)
    total: NDArray[np.int64] = days.astype(np.int64) * 86_400_000_000 + (hour * 60 + minute) * 60_000_000
    return np.where(known, total, NO_TIME)
