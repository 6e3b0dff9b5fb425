"""One value on the wire: what a format is, and what the formats of formats.py share."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from ..common.errors import UsageError

FILL: Final = 0xEE
Decode = Callable[[bytes], object]
Encode = Callable[[object, int], bytes]  # (value, size; -1 = as long as it is)


class Format(msgspec.Struct, frozen=True):
    """How one value stands on the wire. size: bytes, 0 = told by a count, by another field or by what remains."""

    name: str
    size: int
    decode: Decode
    encode: Encode


def fill(size: int) -> bytes:
    """What stands for a value that is not there."""
    return b"\xee" * size


def refuse(name: str, value: object, wanted: str) -> UsageError:
    """What to raise for a value that does not fit."""
    return UsageError(f"{value!r} does not fit format {name}: {wanted}")


def to_decimal(name: str, value: object) -> Decimal:
    """A number from a Decimal, int, float (as printed) or text."""
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, float, str)):
        raise refuse(name, value, "give a number")
    try:
        number = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise refuse(name, value, "give a number") from None
    if not number.is_finite():
        raise refuse(name, value, "give a number")
    return number


def to_int(name: str, value: object, low: int, high: int) -> int:
    """A whole number in low..high."""
    if type(value) is int and low <= value <= high:
        return value
    number = to_decimal(name, value)
    if number != number.to_integral_value() or not low <= number <= high:
        raise refuse(name, value, f"give a whole number from {low} to {high}")
    return int(number)
