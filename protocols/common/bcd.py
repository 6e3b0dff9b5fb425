"""BCD numbers (压缩BCD码): two decimal digits a byte, low byte first on the wire. Exact; no floats here.

The array forms (numpy) are imported only when called, so that decoding one frame does not load numpy.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def bcd_digits(wire: bytes) -> str:
    """Digits in reading order (high byte first), nibbles above 9 shown as A–F."""
    return wire[::-1].hex().upper()


def bcd_to_int(wire: bytes) -> int | None:
    """Unsigned number of low-first BCD; None where a nibble is no decimal digit (EE, FF, bad coding)."""
    try:
        return int(wire[::-1].hex())
    except ValueError:
        return None


def signed_bcd_to_int(wire: bytes) -> int | None:
    """Number whose top bit is the sign (1 = minus) and whose other bits are the magnitude."""
    top = wire[-1]
    if top < 0x80:
        return bcd_to_int(wire)
    magnitude = bcd_to_int(wire[:-1] + bytes((top & 0x7F,)))
    return None if magnitude is None else -magnitude


def int_to_bcd(value: int, size: int, *, signed: bool = False) -> bytes:
    """Low-first BCD of `size` bytes. ValueError when the value does not fit (or is negative and not signed)."""
    limit = 10 ** (2 * size)
    if signed:
        limit = limit * 8 // 10
    if (value < 0 and not signed) or abs(value) >= limit:
        raise ValueError(f"{value} does not fit {size} BCD bytes")
    wire = bytearray.fromhex(f"{abs(value):0{2 * size}d}")[::-1]
    if value < 0:
        wire[-1] |= 0x80
    return bytes(wire)


def is_bcd(wire: bytes) -> bool:
    """Every nibble is a decimal digit."""
    return not wire or wire.hex().isdecimal()


@cache
def _tables() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(65536 values of two bytes, the same with the sign bit cleared, signs of 65536 top words), NaN = no BCD."""
    import numpy as np

    byte = np.full(256, np.nan)
    for high in range(10):
        byte[high * 16 : high * 16 + 10] = np.arange(high * 10, high * 10 + 10)
    word = (byte[:, None] * 100 + byte[None, :]).ravel()  # index = high byte * 256 + low byte
    index = np.arange(65536)
    return word, word[index & 0x7FFF], np.where(index & 0x8000, -1.0, 1.0)


def bcd_array(wire: NDArray[np.uint8], *, width: int, decimals: int, signed: bool = False) -> NDArray[np.float64]:
    """Numbers of width-byte BCD, low byte first.

    wire: uint8, shape (..., k * width), the last axis contiguous; answer: float64 (..., k). NaN where a nibble is not
    decimal (fill bytes FF and EE included). Values are value/10**decimals correctly rounded. width 1 to 6.
    """
    import numpy as np

    if not 1 <= width <= 6 or wire.shape[-1] % width:
        raise ValueError(f"{wire.shape[-1]} bytes are not whole values of {width} bytes")
    word, magnitude, sign = _tables()
    cells = wire.reshape(*wire.shape[:-1], wire.shape[-1] // width, width)

    def pair(i: int) -> NDArray[np.uint16]:
        low = cells[..., i].astype(np.uint16)
        if i + 1 < width:
            low |= cells[..., i + 1].astype(np.uint16) << np.uint16(8)
        return low

    if width == 2 and wire.flags.c_contiguous and np.little_endian:
        pairs = [np.ascontiguousarray(cells).view("<u2")[..., 0]]
    else:
        pairs = [pair(i) for i in range(0, width, 2)]
    top = pairs[-1]
    if signed and width % 2:  # move the sign of a single top byte to bit 15
        top = (top & np.uint16(0x7F)) | ((top & np.uint16(0x80)) << np.uint16(8))
    total = np.take(magnitude if signed else word, top)
    for lower in reversed(pairs[:-1]):
        total *= 10_000.0
        total += np.take(word, lower)
    if signed:
        total *= np.take(sign, top)
    if decimals:
        total /= 10.0**decimals
    return total
