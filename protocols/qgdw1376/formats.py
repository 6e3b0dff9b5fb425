"""Data formats A.1 to A.27 (Q/GDW 376.1 annex A) and plain binary, text and bit forms, both ways and exact.

Numbers are Decimal or int; A.1 is a DeviceTime, A.15 a naive datetime, A.20 a date; times that are no full date are
text ("MM-DD hh:mm" A.17, "DD hh:mm" A.18, "hh:mm" A.19, "DD hh:mm:ss" A.16, "YYYY-MM" A.21, "DD hh" A.24). A nibble
above 9 (fill EE, FF, EF, FE) and what is no calendar time decode to None; None is written as fill EE. A.2 and A.3
keep their power of ten in the Decimal's exponent (A.3: exponent 3 = sent in thousands).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Final

from . import dadt
from .format_base import FILL, Format, fill, refuse, to_decimal, to_int
from .format_numbers import A2, A3, A4, bcd
from .format_times import A1, A15, A20, PARTIAL, DeviceTime, to_moment

__all__ = [
    "FILL",
    "DeviceTime",
    "Format",
    "fill",
    "make_format",
    "set_bits",
    "text_of",
    "to_decimal",
    "to_int",
    "to_moment",
]


def text_of(value: object) -> object:
    """A value as plain JSON: canonical text for numbers that are not whole and for times."""
    if isinstance(value, Decimal):
        return f"{value:f}" if value else f"{abs(value):f}"
    if isinstance(value, DeviceTime):
        return f"{value:%Y-%m-%d %H:%M:%S} w{value.week}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}" if value.second else f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, date):
        return f"{value:%Y-%m-%d}"
    return value


# --- binary, bits, text ---------------------------------------------------------------------------------------------
def _unsigned(name: str, size: int, order: str, *, null: bool) -> Format:
    """Binary number; null: all bytes EE or FF mean no value."""
    blanks = (b"\xee" * size, b"\xff" * size)
    big = order == "big"

    def plain(wire: bytes) -> object:
        return int.from_bytes(wire, "big" if big else "little")

    def nullable(wire: bytes) -> object:
        return None if wire in blanks else int.from_bytes(wire, "big" if big else "little")

    def encode(value: object, _size: int) -> bytes:
        if value is None and null:
            return fill(size)
        return to_int(name, value, 0, (1 << 8 * size) - 1).to_bytes(size, "big" if big else "little")

    return Format(name, size, nullable if null else plain, encode)


def set_bits(word: int, first: int) -> list[int]:
    """Numbers of the bits that are set, D0 counted as `first`."""
    found = []
    while word:
        low = word & -word
        found.append(low.bit_length() - 1 + first)
        word ^= low
    return found


def _bit_set(name: str, size: int, first: int) -> Format:
    table = [set_bits(byte, first) for byte in range(256)]

    def one(wire: bytes) -> object:
        return table[wire[0]].copy()

    def many(wire: bytes) -> object:
        return set_bits(int.from_bytes(wire, "little"), first)

    def encode(value: object, wanted: int) -> bytes:
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise refuse(name, value, "give a list of numbers")
        length = size or wanted
        word = 0
        for one in value:
            word |= 1 << to_int(name, one, first, first + 8 * length - 1 if length > 0 else first + 8 * 255 - 1) - first
        return word.to_bytes(length if length > 0 else (word.bit_length() + 7) // 8, "little")

    return Format(name, size, one if size == 1 else many, encode)


def _sized(name: str, value: object, wire: bytes, size: int, pad: bytes) -> bytes:
    if size < 0 or len(wire) == size:
        return wire
    if len(wire) > size or not pad:
        raise refuse(name, value, f"it has {len(wire)} bytes, the field {size}")
    return wire + pad * (size - len(wire))


def _hex(name: str, size: int) -> Format:
    def decode(wire: bytes) -> object:
        return wire.hex().upper()

    def encode(value: object, wanted: int) -> bytes:
        try:
            wire = bytes.fromhex(value) if isinstance(value, str) else None
        except ValueError:
            wire = None
        if wire is None:
            raise refuse(name, value, "give hexadecimal digits")
        return _sized(name, value, wire, size or wanted, b"")

    return Format(name, size, decode, encode)


def _text(name: str, size: int, charset: str) -> Format:
    """Text, padded with 00 (blanks at the end are taken for padding too); None where it is no such text."""

    def decode(wire: bytes) -> object:
        try:
            return wire.rstrip(b"\0 ").decode(charset)
        except UnicodeDecodeError:
            return None

    def encode(value: object, wanted: int) -> bytes:
        if value is None:
            return b"\xff" * max(size or wanted, 0)
        try:
            wire = value.encode(charset) if isinstance(value, str) else None
        except UnicodeEncodeError:
            wire = None
        if wire is None:
            raise refuse(name, value, f"give text that {charset} can write")
        return _sized(name, value, wire, size or wanted, b"\0")

    return Format(name, size, decode, encode)


def _digits(name: str, size: int) -> Format:
    """Number kept with its zeros, low byte first (addresses)."""

    def decode(wire: bytes) -> object:
        text = wire[::-1].hex()
        return text if text.isdecimal() else None

    def encode(value: object, _size: int) -> bytes:
        if value is None:
            return fill(size)
        text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
        if not re.fullmatch(rf"[0-9]{{1,{2 * size}}}", text):
            raise refuse(name, value, f"give at most {2 * size} digits")
        return bytes.fromhex(text.rjust(2 * size, "0"))[::-1]

    return Format(name, size, decode, encode)


def _pairs(name: str, size: int) -> Format:
    """Codes of two bits, low bits first: four of them a byte."""

    def decode(wire: bytes) -> object:
        return [byte >> shift & 3 for byte in wire for shift in (0, 2, 4, 6)]

    def encode(value: object, _size: int) -> bytes:
        if not isinstance(value, (list, tuple)) or len(value) != 4 * size:
            raise refuse(name, value, f"give a list of {4 * size} codes 0 to 3")
        codes = [to_int(name, one, 0, 3) for one in value]
        return bytes(sum(codes[4 * i + k] << 2 * k for k in range(4)) for i in range(size))

    return Format(name, size, decode, encode)


def _phone(name: str, size: int) -> Format:
    """Digits in reading order, high nibble first, padded with F (0-9, and A-E as sent for * # ...)."""

    def decode(wire: bytes) -> object:
        return wire.hex().upper().rstrip("F")

    def encode(value: object, _size: int) -> bytes:
        if not isinstance(value, str) or not re.fullmatch(rf"[0-9A-Fa-f]{{0,{2 * size}}}", value):
            raise refuse(name, value, f"give at most {2 * size} digits")
        return bytes.fromhex(value.ljust(2 * size, "F"))

    return Format(name, size, decode, encode)


def _decode_ip(wire: bytes) -> object:
    return ".".join(map(str, wire))


def _encode_ip(value: object, _size: int) -> bytes:
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) != 4 or not all(p.isdecimal() and len(p) <= 3 and int(p) < 256 for p in parts):
        raise refuse("ip", value, "give an address like 192.168.1.2")
    return bytes(int(p) for p in parts)


def _decode_dadt(wire: bytes) -> object:
    found = dadt.parse(wire)
    points, classes = found if found is not None else ((), ())
    return {"dadt": wire.hex().upper(), "pn": list(points), "fn": list(classes)}


def _encode_dadt(value: object, _size: int) -> bytes:
    """From {"dadt": hex}, or from {"pn": [..], "fn": [..]}."""
    if isinstance(value, dict):
        text = value.get("dadt")
        if isinstance(text, str) and re.fullmatch(r"[0-9A-Fa-f]{8}", text):
            return bytes.fromhex(text)
        points, classes = value.get("pn"), value.get("fn")
        if text is None and isinstance(points, (list, tuple)) and isinstance(classes, (list, tuple)):
            return dadt.combined(
                [to_int("dadt", p, 0, 0xFFFF) for p in points], [to_int("dadt", f, 1, dadt.MAX_CLASS) for f in classes]
            )
    raise refuse("dadt", value, 'give {"pn": [..], "fn": [..]} or {"dadt": "8 hex digits"}')


_FIXED: Final = {
    f.name: f
    for f in (
        A1,
        A2,
        A3,
        A4,
        bcd("A.5", 2, 1, signed=True),
        bcd("A.6", 2, 2, signed=True),
        bcd("A.7", 2, 1),
        bcd("A.8", 2, 0),
        bcd("A.9", 3, 4, signed=True),
        bcd("A.10", 3, 0),
        bcd("A.11", 4, 2),
        _digits("A.12", 6),
        bcd("A.13", 4, 4),
        bcd("A.14", 5, 4),
        A15,
        *PARTIAL,
        A20,
        bcd("A.22", 1, 1),
        bcd("A.23", 3, 4),
        bcd("A.25", 3, 3, signed=True),
        bcd("A.26", 2, 3),
        bcd("A.27", 4, 0),
        Format("ip", 4, _decode_ip, _encode_ip),
        Format("dadt", 4, _decode_dadt, _encode_dadt),
        _hex("rest", 0),
    )
}
# formats with a number in their name; <field> = as many bytes as that field says
_NUMBERED: Final[dict[str, Callable[[str, int], Format]]] = {
    "hex": _hex,
    "ascii": lambda name, size: _text(name, size, "latin-1"),
    "gbk": lambda name, size: _text(name, size, "gb18030"),
    "digits": _digits,
    "phone": _phone,
    "pairs": _pairs,
    "bcd": lambda name, size: bcd(name, size, 0),
}
_UNSIGNED: Final = re.compile(r"(u|be)([1-8])(\?)?")
_BIT_SET: Final = re.compile(r"bs(?:8x(\d+|<\w+>)|(8|16|24|32|40|48|56|64))(?:@([01]))?")
_NUMBER: Final = re.compile(r"(hex|ascii|gbk|digits|phone|pairs|bcd)(?:(\d+)|<(\d+|\w+)>)")


@cache
def make_format(text: str) -> tuple[Format, str]:
    """The format and the name of the field that tells its size ("" = fixed). ValueError: no such format.

    A.1 .. A.27; u1 .. u8 (low byte first), be2 (high byte first), with ? = EE.. or FF.. is None; bs8 .. bs64, bs8x31,
    bs8x<field> (@0 = bits counted from 0); hex<n>, ascii<n>, gbk<n> (n a number or a field), digits<n>, phone<n>,
    pairs<n> (two-bit codes), bcd<n>; ip; dadt; rest.
    """
    if text in _FIXED:
        return _FIXED[text], ""
    if match := _UNSIGNED.fullmatch(text):
        return _unsigned(text, int(match[2]), "big" if match[1] == "be" else "little", null=bool(match[3])), ""
    if match := _BIT_SET.fullmatch(text):
        first = int(match[3] or 1)
        if match[2]:
            return _bit_set(text, int(match[2]) // 8, first), ""
        if match[1].startswith("<"):
            return _bit_set(text, 0, first), match[1][1:-1]
        return _bit_set(text, int(match[1]), first), ""
    if match := _NUMBER.fullmatch(text):
        size = match[2] or match[3]
        if size.isdecimal() and int(size):
            return _NUMBERED[match[1]](text, int(size)), ""
        if match[1] in ("hex", "ascii", "gbk") and not size.isdecimal():
            return _NUMBERED[match[1]](text, 0), size
    raise ValueError(f"unknown format {text!r}")
