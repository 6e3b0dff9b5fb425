"""Instants and business time (domain 3.2): UTC microseconds inside, fixed +08:00 without daylight saving outside.

A naive datetime is an error everywhere except in `business_to_us`, whose argument *is* a device's naive local clock.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Final

BUSINESS_ZONE: Final = timezone(timedelta(hours=8), "+08:00")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
US: Final = 1_000_000
DAY_US: Final = 86_400 * US
SLOT_15MIN_US: Final = 900 * US


def to_us(instant: datetime) -> int:
    """Microseconds since 1970 UTC of an aware datetime."""
    if instant.tzinfo is None:
        raise ValueError("naive datetime: give it a zone")
    return (instant - EPOCH) // timedelta(microseconds=1)


def from_us(time_us: int) -> datetime:
    """Aware UTC datetime of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=time_us)


def business_to_us(naive_local: datetime, zone: timezone = BUSINESS_ZONE) -> int:
    """Instant of a device's own (naive, local) clock reading."""
    if naive_local.tzinfo is not None:
        raise ValueError("aware datetime where a device's local clock reading is expected")
    return to_us(naive_local.replace(tzinfo=zone))


def business_day(time_us: int, zone: timezone = BUSINESS_ZONE) -> date:
    """Calendar day in the business zone that contains the instant (00:00 belongs to the day that begins)."""
    return from_us(time_us).astimezone(zone).date()


def day_start_us(day: date, zone: timezone = BUSINESS_ZONE) -> int:
    """Instant of 00:00 of a business day."""
    return to_us(datetime(day.year, day.month, day.day, tzinfo=zone))
