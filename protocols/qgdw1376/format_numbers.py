"""Numbers of annex A in BCD: fixed point (A.5 to A.14, A.22 to A.27), with a power of ten (A.2, A.3), percent (A.4)."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Final

from .format_base import Format, fill, refuse, to_decimal, to_int

_SIGNED_TOP: Final = {f"{i:x}": str(i) if i < 8 else f"-{i - 8}" for i in range(16)}


def bcd(name: str, size: int, decimals: int, *, signed: bool = False) -> Format:
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
        raise refuse(name, value, wanted)

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
        raise refuse("A.2", value, _A2_WANTED)
    mantissa = int("".join(map(str, digits)))
    if not (-3 <= exponent <= 4 and mantissa <= 999):
        for exponent in range(-3, 5):
            scaled = abs(number).scaleb(-exponent)
            if scaled <= 999:
                break
        mantissa = int(scaled) if scaled <= 999 and scaled == scaled.to_integral_value() else -1
    if mantissa < 0:
        raise refuse("A.2", value, _A2_WANTED)
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
        raise refuse("A.3", value, _A3_WANTED)
    thousands = number.as_tuple().exponent == 3 or abs(number) > 9999999
    scaled = abs(number).scaleb(-3 if thousands else 0)
    if scaled > 9999999 or scaled != scaled.to_integral_value():
        raise refuse("A.3", value, _A3_WANTED)
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


A2: Final = Format("A.2", 2, _decode_a2, _encode_a2)
A3: Final = Format("A.3", 4, _decode_a3, _encode_a3)
A4: Final = Format("A.4", 1, _decode_a4, _encode_a4)
