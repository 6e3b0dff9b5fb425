"""Times of annex A: A.1 with the weekday, A.15 and A.20 as datetime and date, the others as text.

They are a device's own clock readings and have no zone.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Final, SupportsIndex

from .format_base import Format, fill, refuse


class DeviceTime(datetime):
    """A.1: a clock reading with the weekday as sent (1-7 Monday-Sunday, 0 = not told); naive. Equal to its datetime."""

    week: int

    def __new__(cls, *args: Any, week: int | None = None, **named: Any) -> DeviceTime:
        """As datetime; `week` defaults to the true weekday."""
        made = super().__new__(cls, *args, **named)
        made.week = made.isoweekday() if week is None else week
        return made

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[Any, ...]:
        """Copies keep the weekday."""
        fields = (self.year, self.month, self.day, self.hour, self.minute, self.second)
        return _device_time, (*fields, self.week)


def _device_time(*fields: int) -> DeviceTime:
    return DeviceTime(*fields[:6], week=fields[6])


@lru_cache(maxsize=2048)
def _decode_a1(wire: bytes) -> object:
    second, minute, hour, day, week_month, year = wire
    text = bytes((year, week_month & 0x1F, day, hour, minute, second)).hex()
    if not text.isdecimal():
        return None
    try:
        return DeviceTime(
            2000 + int(text[:2]), int(text[2:4]), int(text[4:6]), int(text[6:8]), int(text[8:10]), int(text[10:]),
            week=week_month >> 5,
        )  # fmt: skip
    except ValueError:
        return None


@lru_cache(maxsize=2048)
def _decode_a15(wire: bytes) -> object:
    text = wire[::-1].hex()
    if not text.isdecimal():
        return None
    try:
        return datetime(2000 + int(text[:2]), int(text[2:4]), int(text[4:6]), int(text[6:8]), int(text[8:]))  # noqa: DTZ001
    except ValueError:
        return None


@lru_cache(maxsize=2048)
def _decode_a20(wire: bytes) -> object:
    text = wire[::-1].hex()
    if not text.isdecimal():
        return None
    try:
        return date(2000 + int(text[:2]), int(text[2:4]), int(text[4:]))
    except ValueError:
        return None


_MOMENT: Final = re.compile(r"\s*(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d))?)?(?:\s+w([0-7]))?\s*")


def to_moment(name: str, value: object) -> datetime:
    """A naive time from a datetime or date, or text YYYY-MM-DD hh:mm:ss (w<weekday> of a DeviceTime)."""
    moment: datetime | None = None
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - a device's own clock
    elif isinstance(value, str) and (match := _MOMENT.fullmatch(value)):
        try:
            moment = DeviceTime(*(int(g or 0) for g in match.groups()[:6]), week=int(match[7]) if match[7] else None)
        except ValueError:
            moment = None
    if moment is None or moment.tzinfo is not None or not 2000 <= moment.year <= 2099:
        raise refuse(name, value, "give a time of the device without zone, YYYY-MM-DD hh:mm:ss, years 2000 to 2099")
    return moment


def _pair(number: int) -> int:
    return number // 10 << 4 | number % 10


def _encode_a1(value: object, _size: int) -> bytes:
    if value is None:
        return fill(6)
    at = to_moment("A.1", value)
    week = at.week if isinstance(at, DeviceTime) else at.isoweekday()
    if not 0 <= week <= 7:
        raise refuse("A.1", value, "the weekday is 0 to 7")
    return bytes(
        (_pair(at.second), _pair(at.minute), _pair(at.hour), _pair(at.day), week << 5 | _pair(at.month),
         _pair(at.year - 2000))
    )  # fmt: skip


def _encode_a15(value: object, _size: int) -> bytes:
    if value is None:
        return fill(5)
    at = to_moment("A.15", value)
    return bytes((_pair(at.minute), _pair(at.hour), _pair(at.day), _pair(at.month), _pair(at.year - 2000)))


def _encode_a20(value: object, _size: int) -> bytes:
    if value is None:
        return fill(3)
    at = to_moment("A.20", value)
    return bytes((_pair(at.day), _pair(at.month), _pair(at.year - 2000)))


# order of the bytes (low first), the text, and the largest value of each byte
_PARTIAL: Final[dict[str, tuple[str, str, tuple[int, ...]]]] = {
    "A.16": ("smhD", "D h:m:s", (59, 59, 24, 31)),
    "A.17": ("mhDM", "M-D h:m", (59, 24, 31, 12)),
    "A.18": ("mhD", "D h:m", (59, 24, 31)),
    "A.19": ("mh", "h:m", (59, 24)),
    "A.21": ("MY", "20Y-M", (12, 99)),
    "A.24": ("hD", "D h", (24, 31)),
}


def _partial(name: str) -> Format:
    """A time that is no full date, as text (day 00 = every day, hour 24 = end of the day)."""
    order, shape, limits = _PARTIAL[name]
    pattern = re.compile(re.sub("[a-zA-Z]", lambda m: f"(?P<{m[0]}>\\d\\d)", shape))
    template = re.sub("[a-zA-Z]", lambda m: f"{{{m[0]}}}", shape)

    @lru_cache(maxsize=2048)
    def decode(wire: bytes) -> object:
        text = wire.hex()
        if not text.isdecimal():
            return None
        parts = {key: text[2 * i : 2 * i + 2] for i, key in enumerate(order)}
        fits = all(int(parts[key]) <= limit for key, limit in zip(order, limits, strict=True))
        return template.format(**parts) if fits else None

    def encode(value: object, _size: int) -> bytes:
        if value is None:
            return fill(len(order))
        match = pattern.fullmatch(value) if isinstance(value, str) else None
        if match is None or any(int(match[k]) > limit for k, limit in zip(order, limits, strict=True)):
            raise refuse(
                name, value, f"give text like {template.format(s='00', m='30', h='08', D='01', M='12', Y='26')}"
            )
        return bytes.fromhex("".join(match[key] for key in order))

    return Format(name, len(order), decode, encode)


A1: Final = Format("A.1", 6, _decode_a1, _encode_a1)
A15: Final = Format("A.15", 5, _decode_a15, _encode_a15)
A20: Final = Format("A.20", 3, _decode_a20, _encode_a20)
PARTIAL: Final = tuple(_partial(name) for name in _PARTIAL)
