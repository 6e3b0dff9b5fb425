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
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import Any, Final, SupportsIndex

import msgspec

from ..common.errors import UsageError
from . import dadt

FILL: Final = 0xEE
Decode = Callable[[bytes], object]
Encode = Callable[[object, int], bytes]  # (value, size; -1 = as long as it is)


class Format(msgspec.Struct, frozen=True):
    """How one value stands on the wire. size: bytes, 0 = told by a count, by another field or by what remains."""

    name: str
    size: int
    decode: Decode
    encode: Encode


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


def fill(size: int) -> bytes:
    """What stands for a value that is not there."""
    return b"\xee" * size


def _refuse(name: str, value: object, wanted: str) -> UsageError:
    return UsageError(f"{value!r} does not fit format {name}: {wanted}")


def to_decimal(name: str, value: object) -> Decimal:
    """A number from a Decimal, int, float (as printed) or text."""
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, float, str)):
        raise _refuse(name, value, "give a number")
    try:
        number = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise _refuse(name, value, "give a number") from None
    if not number.is_finite():
        raise _refuse(name, value, "give a number")
    return number


def to_int(name: str, value: object, low: int, high: int) -> int:
    """A whole number in low..high."""
    if type(value) is int and low <= value <= high:
        return value
    number = to_decimal(name, value)
    if number != number.to_integral_value() or not low <= number <= high:
        raise _refuse(name, value, f"give a whole number from {low} to {high}")
    return int(number)


# --- numbers in BCD -------------------------------------------------------------------------------------------------
_SIGNED_TOP: Final = {f"{i:x}": str(i) if i < 8 else f"-{i - 8}" for i in range(16)}


def _bcd(name: str, size: int, decimals: int, *, signed: bool = False) -> Format:
    """Low byte first; signed: the top bit is the sign."""
    digits = 2 * size
    split = digits - decimals
    limit = 10**digits * (8 if signed else 10) // 10
    factor = Decimal(10**decimals)
    bound = Decimal(limit) / factor

    def decode_int(wire: bytes) -> object:
        text = wire[::-1].hex()
        return int(text) if text.isdecimal() else None

    def decode_plain(wire: bytes) -> object:
        text = wire[::-1].hex()
        return Decimal(f"{text[:split]}.{text[split:]}") if text.isdecimal() else None

    def decode_signed(wire: bytes) -> object:
        text = wire[::-1].hex()
        rest = text[1:]
        return Decimal(f"{_SIGNED_TOP[text[0]]}{rest[: split - 1]}.{text[split:]}") if rest.isdecimal() else None

    def encode(value: object, _size: int) -> bytes:
        if value is None:
            return fill(size)
        number = value if type(value) is Decimal and value.is_finite() else to_decimal(name, value)
        if -bound < number < bound and (signed or number >= 0):
            scaled = number * factor
            whole = int(scaled)
            if whole == scaled:
                minus = signed and number.is_signed()
                wire = bytes.fromhex(f"{abs(whole):0{digits}d}")[::-1]
                return wire[:-1] + bytes((wire[-1] | 0x80,)) if minus else wire
        top = Decimal(limit - 1).scaleb(-decimals)
        wanted = f"give {-top if signed else 0} to {top}" + (f" with {decimals} decimals" if decimals else "")
        raise _refuse(name, value, wanted)

    decode = decode_signed if signed else decode_plain if decimals else decode_int
    # short values repeat: voltages, power factors, fill
    return Format(name, size, lru_cache(maxsize=4096)(decode) if size == 2 else decode, encode)


def _a2_heads() -> list[tuple[str, str] | None]:
    heads: list[tuple[str, str] | None] = []
    for top in range(256):
        hundreds = top & 0x0F
        sign = "-" if top & 0x10 else ""
        heads.append((f"{sign}{hundreds}", f"E{4 - (top >> 5)}") if hundreds < 10 else None)
    return heads


_A2: Final = _a2_heads()
_A2_WANTED: Final = "give at most three digits between 0.001 and 9990000"


def _decode_a2(wire: bytes) -> object:
    head = _A2[wire[1]]
    text = f"{wire[0]:02x}"
    return Decimal(f"{head[0]}{text}{head[1]}") if head is not None and text.isdecimal() else None


def _encode_a2(value: object, _size: int) -> bytes:
    """The number's own power of ten where three digits allow it, else the smallest that does."""
    if value is None:
        return fill(2)
    number = to_decimal("A.2", value)
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if len(digits) > 28 or abs(number) > 9990000:
        raise _refuse("A.2", value, _A2_WANTED)
    mantissa = int("".join(map(str, digits)))
    if not (-3 <= exponent <= 4 and mantissa <= 999):
        for exponent in range(-3, 5):
            scaled = abs(number).scaleb(-exponent)
            if scaled <= 999:
                break
        mantissa = int(scaled) if scaled <= 999 and scaled == scaled.to_integral_value() else -1
    if mantissa < 0:
        raise _refuse("A.2", value, _A2_WANTED)
    low, high = mantissa % 100, mantissa // 100
    return bytes((low // 10 << 4 | low % 10, (4 - exponent) << 5 | sign << 4 | high))


_A3_WANTED: Final = "give a whole number of seven digits, or thousands"


def _decode_a3(wire: bytes) -> object:
    text = wire[::-1].hex()
    if not text[1:].isdecimal():
        return None
    top = wire[3]
    return Decimal(f"{'-' if top & 0x10 else ''}{text[1:]}{'E3' if top & 0x40 else ''}")


def _encode_a3(value: object, _size: int) -> bytes:
    """Exponent 3 (or more than seven digits) is sent in thousands."""
    if value is None:
        return fill(4)
    number = to_decimal("A.3", value)
    if abs(number) > 9999999000:
        raise _refuse("A.3", value, _A3_WANTED)
    thousands = number.as_tuple().exponent == 3 or abs(number) > 9999999
    scaled = abs(number).scaleb(-3 if thousands else 0)
    if scaled > 9999999 or scaled != scaled.to_integral_value():
        raise _refuse("A.3", value, _A3_WANTED)
    wire = bytearray.fromhex(f"{int(scaled):08d}")
    wire.reverse()
    wire[3] |= (0x40 if thousands else 0) | (0x10 if number.is_signed() else 0)
    return bytes(wire)


def _decode_a4(wire: bytes) -> object:
    text = f"{wire[0] & 0x7F:02x}"
    if not text.isdecimal():
        return None
    return -int(text) if wire[0] & 0x80 else int(text)


def _encode_a4(value: object, _size: int) -> bytes:
    if value is None:
        return fill(1)
    number = to_int("A.4", value, -79, 79)
    return bytes((abs(number) // 10 << 4 | abs(number) % 10 | (0x80 if number < 0 else 0),))


# --- times ----------------------------------------------------------------------------------------------------------
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
        raise _refuse(name, value, "give a time of the device without zone, YYYY-MM-DD hh:mm:ss, years 2000 to 2099")
    return moment


def _pair(number: int) -> int:
    return number // 10 << 4 | number % 10


def _encode_a1(value: object, _size: int) -> bytes:
    if value is None:
        return fill(6)
    at = to_moment("A.1", value)
    week = at.week if isinstance(at, DeviceTime) else at.isoweekday()
    if not 0 <= week <= 7:
        raise _refuse("A.1", value, "the weekday is 0 to 7")
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
            raise _refuse(
                name, value, f"give text like {template.format(s='00', m='30', h='08', D='01', M='12', Y='26')}"
            )
        return bytes.fromhex("".join(match[key] for key in order))

    return Format(name, len(order), decode, encode)


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
            raise _refuse(name, value, "give a list of numbers")
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
        raise _refuse(name, value, f"it has {len(wire)} bytes, the field {size}")
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
            raise _refuse(name, value, "give hexadecimal digits")
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
            raise _refuse(name, value, f"give text that {charset} can write")
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
            raise _refuse(name, value, f"give at most {2 * size} digits")
        return bytes.fromhex(text.rjust(2 * size, "0"))[::-1]

    return Format(name, size, decode, encode)


def _pairs(name: str, size: int) -> Format:
    """Codes of two bits, low bits first: four of them a byte."""

    def decode(wire: bytes) -> object:
        return [byte >> shift & 3 for byte in wire for shift in (0, 2, 4, 6)]

    def encode(value: object, _size: int) -> bytes:
        if not isinstance(value, (list, tuple)) or len(value) != 4 * size:
            raise _refuse(name, value, f"give a list of {4 * size} codes 0 to 3")
        codes = [to_int(name, one, 0, 3) for one in value]
        return bytes(sum(codes[4 * i + k] << 2 * k for k in range(4)) for i in range(size))

    return Format(name, size, decode, encode)


def _phone(name: str, size: int) -> Format:
    """Digits in reading order, high nibble first, padded with F (0-9, and A-E as sent for * # ...)."""

    def decode(wire: bytes) -> object:
        return wire.hex().upper().rstrip("F")

    def encode(value: object, _size: int) -> bytes:
        if not isinstance(value, str) or not re.fullmatch(rf"[0-9A-Fa-f]{{0,{2 * size}}}", value):
            raise _refuse(name, value, f"give at most {2 * size} digits")
        return bytes.fromhex(value.ljust(2 * size, "F"))

    return Format(name, size, decode, encode)


def _decode_ip(wire: bytes) -> object:
    return ".".join(map(str, wire))


def _encode_ip(value: object, _size: int) -> bytes:
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) != 4 or not all(p.isdecimal() and len(p) <= 3 and int(p) < 256 for p in parts):
        raise _refuse("ip", value, "give an address like 192.168.1.2")
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
    raise _refuse("dadt", value, 'give {"pn": [..], "fn": [..]} or {"dadt": "8 hex digits"}')


_FIXED: Final = {
    f.name: f
    for f in (
        Format("A.1", 6, _decode_a1, _encode_a1),
        Format("A.2", 2, _decode_a2, _encode_a2),
        Format("A.3", 4, _decode_a3, _encode_a3),
        Format("A.4", 1, _decode_a4, _encode_a4),
        _bcd("A.5", 2, 1, signed=True),
        _bcd("A.6", 2, 2, signed=True),
        _bcd("A.7", 2, 1),
        _bcd("A.8", 2, 0),
        _bcd("A.9", 3, 4, signed=True),
        _bcd("A.10", 3, 0),
        _bcd("A.11", 4, 2),
        _digits("A.12", 6),
        _bcd("A.13", 4, 4),
        _bcd("A.14", 5, 4),
        Format("A.15", 5, _decode_a15, _encode_a15),
        _partial("A.16"),
        _partial("A.17"),
        _partial("A.18"),
        _partial("A.19"),
        Format("A.20", 3, _decode_a20, _encode_a20),
        _partial("A.21"),
        _bcd("A.22", 1, 1),
        _bcd("A.23", 3, 4),
        _partial("A.24"),
        _bcd("A.25", 3, 3, signed=True),
        _bcd("A.26", 2, 3),
        _bcd("A.27", 4, 0),
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
    "bcd": lambda name, size: _bcd(name, size, 0),
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
