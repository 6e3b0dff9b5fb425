"""One field of a data item: its wire format, both directions (DL/T 645-2007 annex A, "数据格式" column).

Decoding never raises: a field that cannot be read becomes a Value with `invalid` set. Encoding raises UsageError.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Final

import msgspec

from ..common.bcd import bcd_digits, bcd_to_int, int_to_bcd, is_bcd, signed_bcd_to_int
from ..common.errors import UsageError
from ..common.times import (
    decode_date,
    decode_datetime,
    decode_time,
    encode_date,
    encode_datetime,
    encode_time,
    is_blank,
)

Content = Decimal | str | datetime | date | time | None

# (bytes, kind) of the formats that are no plain number
TIMES: Final = {
    "YYMMDDhhmmss": 6,
    "YYMMDDhhmm": 5,
    "YYMMDDWWhhmmss": 7,
    "YYMMDDWW": 4,
    "YYMMDDNN": 4,
    "MMDDhhmm": 4,
    "MMDDNN": 3,
    "hhmmss": 3,
    "hhmmNN": 3,
    "DDhh": 2,
}
NOT_BCD: Final = "not_bcd"
NOT_TIME: Final = "not_time"
LENGTH: Final = "length"
_QUANTA: Final = tuple(Decimal(1).scaleb(-n) for n in range(9))


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A named place in a payload. size: bytes (0 = the rest); quantity: name in model/quantities.toml when storable."""

    name: str
    format: str
    unit: str = ""
    quantity: str | None = None
    size: int = 0
    decimals: int = 0
    signed: bool = False

    @property
    def numeric(self) -> bool:
        """A BCD number."""
        return self.format.lstrip("-").startswith("X")


class Value(msgspec.Struct, frozen=True):
    """A decoded field. value None with invalid None = not fitted or never set (fill bytes), which is no error.

    time: when a demand occurred (naive device time). invalid: not_bcd, not_time, length.
    settlement / record: which of several in a block (0 = now).
    """

    name: str
    value: Content
    unit: str = ""
    quantity: str | None = None
    time: datetime | None = None
    invalid: str | None = None
    settlement: int | None = None


def make_field(name: str, form: str, unit: str = "", quantity: str | None = None) -> Field:
    """A field from its format text; ValueError for an unknown format (a fault of items.toml)."""
    if form in TIMES:
        return Field(name=name, format=form, unit=unit, quantity=quantity, size=TIMES[form])
    for prefix in ("ascii", "hex", "digits"):
        if form.startswith(prefix) and form[len(prefix) :].isdigit():
            return Field(name=name, format=prefix, unit=unit, quantity=quantity, size=int(form[len(prefix) :]))
    if form == "raw":
        return Field(name=name, format=form, unit=unit, quantity=quantity)
    digits = form.lstrip("-")
    if set(digits) - {"X", "."} or len(digits.replace(".", "")) % 2 or not digits.startswith("X"):
        raise ValueError(f"unknown format {form!r}")
    return Field(
        name=name,
        format=form,
        unit=unit,
        quantity=quantity,
        size=len(digits.replace(".", "")) // 2,
        decimals=len(digits.partition(".")[2]),
        signed=form.startswith("-"),
    )


def decode_field(field: Field, wire: bytes, demand_time: datetime | None = None) -> Value:
    """The value in `wire` (already cut to its length, which may be one more than the table's for a wide number)."""
    if field.numeric:
        return _decode_number(field, wire, demand_time)
    content, invalid = _DECODERS.get(field.format, _decode_time)(field.format, wire)
    return Value(field.name, content, field.unit, field.quantity, None, invalid)


def _decode_number(field: Field, wire: bytes, demand_time: datetime | None) -> Value:
    number = signed_bcd_to_int(wire) if field.signed else bcd_to_int(wire)
    if number is None:
        invalid = None if wire.count(0xFF) == len(wire) else NOT_BCD
        return Value(field.name, None, field.unit, field.quantity, None, invalid)
    value = Decimal(number)
    if field.decimals:
        value = value.scaleb(-field.decimals)
    return Value(field.name, value, field.unit, field.quantity, demand_time)


def _decode_hex(_form: str, wire: bytes) -> tuple[Content, str | None]:
    return bcd_digits(wire), None


def _decode_raw(_form: str, wire: bytes) -> tuple[Content, str | None]:
    return wire.hex().upper(), None


def _decode_digits(_form: str, wire: bytes) -> tuple[Content, str | None]:
    if wire.count(0xFF) == len(wire):
        return None, None
    return (bcd_digits(wire), None) if is_bcd(wire) else (None, NOT_BCD)


def _decode_ascii(_form: str, wire: bytes) -> tuple[Content, str | None]:
    if wire.count(0xFF) == len(wire):
        return None, None
    return wire[::-1].decode("latin-1").strip("\0 "), None


def _decode_time(form: str, wire: bytes) -> tuple[Content, str | None]:
    """A calendar value; all 00 or FF = never set, except where 00 is a legal reading (midnight, table entries)."""
    if wire.count(0xFF) == len(wire):
        return None, None
    content: Content = None
    if form in ("YYMMDDhhmmss", "YYMMDDhhmm"):
        if is_blank(wire):
            return None, None
        content = decode_datetime(wire)
    elif form == "YYMMDDWWhhmmss":
        if is_blank(wire):
            return None, None
        content = decode_datetime(wire[:3] + wire[4:])
    elif form == "YYMMDDWW":
        if is_blank(wire):
            return None, None
        content = decode_date(wire[1:])
    elif form == "hhmmss":
        content = decode_time(wire)
    elif not is_bcd(wire):
        return None, NOT_BCD
    else:
        content = _SHORT_TIMES[form](bcd_digits(wire))
    if content is None:
        return None, NOT_TIME if is_bcd(wire) else NOT_BCD
    return content, None


# times without a year (or with a table number): text in reading order, checked for digits only
_SHORT_TIMES: Final[dict[str, Callable[[str], str]]] = {
    "MMDDhhmm": lambda d: f"{d[0:2]}-{d[2:4]}T{d[4:6]}:{d[6:8]}",
    "MMDDNN": lambda d: f"{d[0:2]}-{d[2:4]} table {d[4:6]}",
    "hhmmNN": lambda d: f"{d[0:2]}:{d[2:4]} tariff {d[4:6]}",
    "YYMMDDNN": lambda d: f"20{d[0:2]}-{d[2:4]}-{d[4:6]} table {d[6:8]}",
    "DDhh": lambda d: f"{d[0:2]}T{d[2:4]}",
}

_DECODERS: Final[dict[str, Callable[[str, bytes], tuple[Content, str | None]]]] = {
    "hex": _decode_hex,
    "raw": _decode_raw,
    "digits": _decode_digits,
    "ascii": _decode_ascii,
}


def encode_field(field: Field, content: Content | int | float) -> bytes:
    """Wire bytes of a value: the exact inverse of decode_field. None becomes FF fill; UsageError if it does not fit."""
    try:
        return _encode(field, content)
    except (ValueError, ArithmeticError) as error:
        raise UsageError(f"{field.name}: {content!r} is no {field.format}: {error}") from error


def _encode(field: Field, content: Content | int | float) -> bytes:
    form, size = field.format, field.size
    if content is None:
        return b"\xff" * size
    if field.numeric:
        if isinstance(content, datetime | date | time):
            raise ValueError("not a number")
        scaled = Decimal(str(content)).scaleb(field.decimals)
        whole = scaled.to_integral_value()
        if whole != scaled:
            raise ValueError(f"more than {field.decimals} decimals")
        return int_to_bcd(int(whole), size, signed=field.signed)
    if isinstance(content, datetime):
        if form == "YYMMDDWWhhmmss":
            wire = encode_datetime(content, seconds=True)
            return wire[:3] + _weekday(content) + wire[3:]
        return encode_datetime(content, seconds=form == "YYMMDDhhmmss")
    if isinstance(content, date):
        return _weekday(content) + encode_date(content)
    if isinstance(content, time):
        return encode_time(content)
    text = str(content)
    if form == "ascii":
        if len(text) > size:
            raise ValueError(f"longer than {size} characters")
        return text.encode("latin-1").ljust(size, b"\0")[::-1]
    if form == "raw":
        return bytes.fromhex(text)
    if form in TIMES:
        return _encode_calendar(form, text)
    wire = bytes.fromhex(text)[::-1]
    if len(wire) != size or (form == "digits" and not is_bcd(wire)):
        raise ValueError(f"needs {2 * size} digits")
    return wire


def _weekday(day: date) -> bytes:
    """WW: 00 = Sunday."""
    return bytes(((day.weekday() + 1) % 7,))


def _encode_calendar(form: str, text: str) -> bytes:
    """A calendar value from text: ISO for full times, digits in the order of the format for the others."""
    if form in ("YYMMDDhhmmss", "YYMMDDhhmm", "YYMMDDWWhhmmss"):
        return _encode(make_field("time", form), datetime.fromisoformat(text))
    if form == "YYMMDDWW":
        return _encode(make_field("date", form), date.fromisoformat(text))
    if form == "hhmmss":
        return encode_time(time.fromisoformat(text))
    digits = "".join(c for c in text if c.isdigit())
    if form == "YYMMDDNN" and len(digits) == 10:
        digits = digits[2:]
    if len(digits) != 2 * TIMES[form]:
        raise ValueError(f"needs the digits of {form}")
    return bytes.fromhex(digits)[::-1]
