"""Registers to numbers, one value at a time: types, word and byte orders, not-available patterns.

Exact and slow: the reference for `gather` (arrays), and enough for parameters, encoders and simulators.
A missing value is None, never 0 (fact digest 23: NaN, 8000h, FFFFh by maker).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ..common.errors import UsageError

Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]
ORDERS: Final[tuple[Order, ...]] = ("ABCD", "CDAB", "BADC", "DCBA")


@dataclass(frozen=True, slots=True)
class WordType:
    """code: numpy and struct kind ("i2", "f4" …); absent: the raw pattern that always means "none" in this type."""

    code: str
    absent: int | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.code[1])

    @property
    def registers(self) -> int:
        """16-bit registers."""
        return self.size // 2

    @property
    def is_float(self) -> bool:
        """IEEE 754."""
        return self.code[0] == "f"


# SunSpec's own types carry their own "none": sunssf 8000h, acc32/acc64 0 (not accumulated).
TYPES: Final[dict[str, WordType]] = {
    "int16": WordType("i2"),
    "uint16": WordType("u2"),
    "int32": WordType("i4"),
    "uint32": WordType("u4"),
    "int64": WordType("i8"),
    "uint64": WordType("u8"),
    "float32": WordType("f4"),
    "float64": WordType("f8"),
    "acc32": WordType("u4", 0),
    "acc64": WordType("u8", 0),
    "bitfield16": WordType("u2"),
    "bitfield32": WordType("u4"),
    "sunssf": WordType("i2", 0x8000),
}

# unit on the wire -> (unit kept, divisor). What is kept is the unit of model/quantities.toml.
UNITS: Final[dict[str, tuple[str, int]]] = {
    **{u: (u, 1) for u in ("V", "A", "kW", "kvar", "kVA", "kWh", "kvarh", "kVAh", "Hz", "%", "deg", "degC", "s", "")},
    **{u: ("k" + u, 1000) for u in ("W", "var", "VA", "Wh", "varh", "VAh")},
    "mA": ("A", 1000),
    "percent-of-one": ("", 100),
}

_STRUCT: Final = {"f4": "<f", "f8": "<d"}


def wire_order(size: int, order: Order) -> tuple[int, ...]:
    """For each byte of the value from the least significant on, its place on the wire.

    ABCD high word and high byte first; CDAB low word first; BADC high word first, bytes swapped; DCBA low first.
    """
    words = range(size // 2) if order in ("CDAB", "DCBA") else range(size // 2 - 1, -1, -1)
    low_high = (0, 1) if order in ("BADC", "DCBA") else (1, 0)
    return tuple(2 * word + byte for word in words for byte in low_high)


def decode_value(
    data: bytes, type_name: str, order: Order = "ABCD", not_available: Mapping[str, int] | None = None
) -> int | float | None:
    """The number in `data` (exactly the type's bytes); None when it is a not-available pattern, NaN or infinite."""
    kind = TYPES[type_name]
    if len(data) != kind.size:
        raise UsageError(f"{type_name} takes {kind.size} bytes, not {len(data)}")
    little = bytes(data[i] for i in wire_order(kind.size, order))
    if int.from_bytes(little, "little") in _patterns(type_name, not_available):
        return None
    if kind.is_float:
        value: float = struct.unpack(_STRUCT[kind.code], little)[0]
        return value if math.isfinite(value) else None
    return int.from_bytes(little, "little", signed=kind.code[0] == "i")


def encode_value(value: float | None, type_name: str, order: Order = "ABCD", absent: int | None = None) -> bytes:
    """Bytes on the wire of a raw number; None becomes `absent` (or the type's own pattern, or NaN)."""
    kind = TYPES[type_name]
    if value is None:
        pattern = absent if absent is not None else kind.absent
        if pattern is None and not kind.is_float:
            raise UsageError(f"{type_name} has no pattern for a missing value: give one")
        little = struct.pack(_STRUCT[kind.code], math.nan) if pattern is None else pattern.to_bytes(kind.size, "little")
    elif kind.is_float:
        try:
            little = struct.pack(_STRUCT[kind.code], value)
        except OverflowError as error:
            raise UsageError(f"{value} does not fit {type_name}") from error
    else:
        if value != int(value):
            raise UsageError(f"{type_name} takes whole numbers, not {value}")
        try:
            little = int(value).to_bytes(kind.size, "little", signed=kind.code[0] == "i")
        except OverflowError as error:
            raise UsageError(f"{value} does not fit {type_name}") from error
    wire = bytearray(kind.size)
    for byte, place in zip(little, wire_order(kind.size, order), strict=True):
        wire[place] = byte
    return bytes(wire)


def _patterns(type_name: str, not_available: Mapping[str, int] | None) -> tuple[int, ...]:
    own = TYPES[type_name].absent
    told = (not_available or {}).get(type_name)
    return tuple(p for p in (own, told) if p is not None)


def unfold_power_factor(value: float) -> float:
    """Four-quadrant power factor of Schneider PM5xxx: beyond ±1 the scale folds back (fact digest 24.3)."""
    if value > 1:
        return 2 - value
    return -2 - value if value < -1 else value
