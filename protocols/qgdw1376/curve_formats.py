"""The data formats of curves (A.2 A.3 A.5 A.7 A.9 A.11 A.13 A.25, u1?) as numpy arrays, both ways.

Exactly what formats.py says of single values, for many at once: the number in float64, correctly rounded; NaN where a
nibble is no decimal digit (fill EE and FF, wrong coding). Decoding looks whole words up in tables of 65,536 entries, in
blocks that stay in the cache; a wrong digit is a NaN in a table and costs nothing.

Encoding is meant for the terminal's side: it rounds to the format's digits (formats.py refuses what does not fit them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..common.bcd import bcd_tables
from ..common.errors import UsageError

F8 = NDArray[np.float64]
U1 = NDArray[np.uint8]
Wire = bytes | bytearray | memoryview

BLOCK: Final = 16_000  # values decoded at a time: 125 KiB of float64
FILL: Final = 0xEE
_A2_MANTISSA: Final = 999
_A2_EXPONENTS: Final = range(-3, 5)
_A3_MOST: Final = 9_999_999
_A3_SCALED: Final = 0x5000  # thousands, minus: rare


@dataclass(frozen=True, slots=True)
class CurveFormat:
    """How values of a curve stand on the wire: `width` bytes each.

    read(wire, count, at, out) gives `count` values (one or more) that stand one behind the other from `at` on as
    float64, in `out` if that is not None; the caller has checked that they are there.
    """

    name: str
    width: int
    read: Callable[[Wire, int, int, F8 | None], F8]

    def decode(self, wire: Wire, count: int, at: int = 0, out: F8 | None = None) -> F8:
        """As `read`, in blocks that stay in the cache: for any number of values."""
        if 0 < count <= BLOCK:
            return self.read(wire, count, at, out)
        if out is None:
            out = np.empty(count)
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            self.read(wire, stop - start, at + start * self.width, out[start:stop])
        return out


# --- reading ----------------------------------------------------------------------------------------------------------
# mode "clip" is the quick way to take; every index is inside its table anyway. Divisors are arrays without dimension
# because numpy converts a Python number at each call.
_U1: Final = np.dtype("u1")
_U2: Final = np.dtype("<u2")
_View = np.ndarray


def _whole(name: str, width: int, table: F8) -> CurveFormat:
    """One table tells all."""
    kind, strides = (_U1 if width == 1 else _U2), (width,)

    def read(wire: Wire, count: int, at: int, out: F8 | None) -> F8:
        index: NDArray[np.unsignedinteger] = _View((count,), kind, wire, at, strides)
        found: F8 = table.take(index, None, out, "clip")
        return found

    return CurveFormat(name, width, read)


def _signed_three(name: str, decimals: int) -> CurveFormat:
    """Sign, five digits: the upper two bytes with the sign, then the lowest byte with the same sign."""
    high, low, strides = _signed_words() * 100, bcd_tables()[0], (3,)
    divisor = np.array(10.0**decimals)

    def read(wire: Wire, count: int, at: int, out: F8 | None) -> F8:
        total: F8 = high.take(_View((count,), _U2, wire, at + 1, strides), None, out, "clip")
        rest: F8 = low.take(_View((count,), _U1, wire, at, strides), None, None, "clip")
        np.add(total, np.copysign(rest, total, rest), total)
        np.divide(total, divisor, total)
        return total

    return CurveFormat(name, 3, read)


def _four(name: str, high: F8, divisor: float, scale: F8 | None = None) -> CurveFormat:
    """Two words: (high + low) / divisor, or times what `scale` has for the high word."""
    low, strides, by = bcd_tables()[1], (4,), np.array(divisor)

    def read(wire: Wire, count: int, at: int, out: F8 | None) -> F8:
        top: NDArray[np.unsignedinteger] = _View((count,), _U2, wire, at + 2, strides)
        total: F8 = high.take(top, None, out, "clip")
        np.add(total, low.take(_View((count,), _U2, wire, at, strides), None, None, "clip"), total)
        if scale is None:
            np.divide(total, by, total)
        elif np.bitwise_or.reduce(top) & _A3_SCALED:
            np.multiply(total, scale.take(top, None, None, "clip"), total)
        return total

    return CurveFormat(name, 4, read)


def _signed_words() -> F8:
    """Numbers of two-byte words whose top bit is the sign (-0.0 included: it carries the sign of what is below)."""
    half = bcd_tables()[1][:0x8000]
    return np.concatenate([half, -half])


def _a2() -> CurveFormat:
    """D15-D13 power of ten, D12 sign, three digits."""
    code = np.arange(1 << 16)
    digits = bcd_tables()[1][code & 0x0FFF]
    power = 4 - (code >> 13)
    table = np.where(power < 0, digits / 10.0 ** np.maximum(-power, 0), digits * 10.0 ** np.maximum(power, 0))
    return _whole("A.2", 2, np.where(code & 0x1000, -table, table))


def _a3() -> CurveFormat:
    """D30 thousands, D28 sign, seven digits."""
    code = np.arange(1 << 16)
    scale = np.where(code & 0x4000, 1000.0, 1.0) * np.where(code & 0x1000, -1.0, 1.0)
    return _four("A.3", bcd_tables()[1][code & 0x0FFF] * 10_000, 1.0, scale)


def _byte() -> CurveFormat:
    table = np.arange(256, dtype=np.float64)
    table[[FILL, 0xFF]] = np.nan
    return _whole("u1?", 1, table)


_MAKERS: Final[dict[str, Callable[[], CurveFormat]]] = {
    "A.2": _a2,
    "A.3": _a3,
    "A.5": lambda: _whole("A.5", 2, _signed_words() / 10.0),
    "A.7": lambda: _whole("A.7", 2, bcd_tables()[1] / 10.0),
    "A.9": lambda: _signed_three("A.9", 4),
    "A.11": lambda: _four("A.11", bcd_tables()[1] * 10_000, 100.0),
    "A.13": lambda: _four("A.13", bcd_tables()[1] * 10_000, 10_000.0),
    "A.25": lambda: _signed_three("A.25", 3),
    "u1?": _byte,
}
FORMATS: Final = tuple(_MAKERS)


@cache
def curve_format(name: str) -> CurveFormat:
    """The format of a name in FORMATS; KeyError for another. Its tables are made at the first use."""
    return _MAKERS[name]()


# --- writing --------------------------------------------------------------------------------------------------------
_BYTES: Final = np.array([n // 10 << 4 | n % 10 for n in range(100)], np.uint8)


def _pairs(digits: NDArray[np.int64], width: int) -> U1:
    """BCD of numbers of at most 2 * width digits, shape (n, width)."""
    out = np.empty((len(digits), width), np.uint8)
    for i in range(width):
        digits, pair = np.divmod(digits, 100)
        out[:, i] = _BYTES[pair]
    return out


def _limited(name: str, values: F8, scaled: F8, most: int, *, signed: bool) -> NDArray[np.int64]:
    """Rounded magnitudes of `scaled`, 0 for NaN; UsageError names the first of the values that does not fit."""
    whole: F8 = np.rint(np.abs(scaled))
    wrong = (whole > most) if signed else (whole > most) | (np.rint(scaled) < 0)
    if wrong.any():
        sign = "" if signed else "is negative or "
        raise UsageError(f"{values[wrong][0]} {sign}has too many digits for format {name} of a curve")
    return np.where(np.isfinite(whole), whole, 0).astype(np.int64)


def _flag(where: NDArray[np.bool_], bit: int) -> U1:
    return np.where(where, np.uint8(bit), np.uint8(0))


def _plain(name: str, values: F8, decimals: int, width: int, *, signed: bool) -> U1:
    scaled = values * 10.0**decimals
    most = (8 if signed else 10) * 10 ** (2 * width - 1) - 1
    out = _pairs(_limited(name, values, scaled, most, signed=signed), width)
    if signed:
        out[:, -1] |= _flag(np.rint(scaled) < 0, 0x80)
    return out


def _write_a2(values: F8) -> U1:
    """Three digits by the smallest power of ten that has room for them."""
    size = np.abs(values)
    power = np.full(len(values), _A2_EXPONENTS[-1])
    for exponent in reversed(_A2_EXPONENTS):
        power[np.rint(size / 10.0**exponent) <= _A2_MANTISSA] = exponent
    mantissa = _limited("A.2", values, values / 10.0**power, _A2_MANTISSA, signed=True)
    out = _pairs(mantissa, 2)
    out[:, 1] |= ((4 - power) << 5).astype(np.uint8)
    out[:, 1] |= _flag((values < 0) & (mantissa > 0), 0x10)
    return out


def _write_a3(values: F8) -> U1:
    """Whole numbers, in thousands where they have more than seven digits."""
    thousands = np.rint(np.abs(values)) > _A3_MOST
    digits = _limited("A.3", values, values / np.where(thousands, 1000.0, 1.0), _A3_MOST, signed=True)
    out = _pairs(digits, 4)
    out[:, 3] |= _flag(thousands, 0x40)
    out[:, 3] |= _flag((values < 0) & (digits > 0), 0x10)
    return out


def _write_byte(values: F8) -> U1:
    return _limited("u1?", values, values, 0xFF, signed=False).astype(np.uint8)[:, None]


_WRITERS: Final[dict[str, Callable[[F8], U1]]] = {
    "A.2": _write_a2,
    "A.3": _write_a3,
    "A.5": lambda values: _plain("A.5", values, 1, 2, signed=True),
    "A.7": lambda values: _plain("A.7", values, 1, 2, signed=False),
    "A.9": lambda values: _plain("A.9", values, 4, 3, signed=True),
    "A.11": lambda values: _plain("A.11", values, 2, 4, signed=False),
    "A.13": lambda values: _plain("A.13", values, 4, 4, signed=False),
    "A.25": lambda values: _plain("A.25", values, 3, 3, signed=True),
    "u1?": _write_byte,
}


def encode_values(name: str, values: F8) -> bytes:
    """Bytes of values in a format of FORMATS, rounded to its digits; NaN becomes fill EE. UsageError: too big."""
    flat = np.asarray(values, np.float64).ravel()
    out = _WRITERS[name](flat)
    out[np.isnan(flat)] = FILL
    return out.tobytes()
