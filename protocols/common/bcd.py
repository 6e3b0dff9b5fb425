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
def bcd_tables() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numbers of every byte (256) and of every two-byte word (65536, low byte first); NaN = no BCD. Read only."""
    import numpy as np

    byte = np.full(256, np.nan)
    for high in range(10):
        byte[high * 16 : high * 16 + 10] = np.arange(high * 10, high * 10 + 10)
    word = (byte[:, None] * 100 + byte[None, :]).ravel()  # index = high byte * 256 + low byte
    return byte, word


def bcd_array(wire: NDArray[np.uint8], *, width: int, decimals: int, signed: bool = False) -> NDArray[np.float64]:
    """Numbers of width-byte BCD, low byte first.

    wire: uint8, shape (..., k * width); answer: float64 (..., k). NaN where a nibble is not decimal (fill bytes FF and
    EE included). Values are value/10**decimals correctly rounded. width 1 to 6.
    """
    import numpy as np

    if not 1 <= width <= 6 or wire.shape[-1] % width:
        raise ValueError(f"{wire.shape[-1]} bytes are not whole values of {width} bytes")
    byte, word = bcd_tables()
    cells = wire.reshape(*wire.shape[:-1], wire.shape[-1] // width, width)
    top = cells[..., width - 1]
    negative = top >= 0x80 if signed else None
    if signed:
        top = top & np.uint8(0x7F)
    total: NDArray[np.float64] = np.take(byte, top)
    at = width - 1
    while at > 0:  # two bytes at a time below the top one, a lone byte last
        step = 2 if at >= 2 else 1
        at -= step
        total *= 10.0 ** (2 * step)
        if step == 2:
            pair = cells[..., at + 1].astype(np.uint16)
            pair <<= np.uint16(8)
            pair |= cells[..., at]
            total += np.take(word, pair)
        else:
            total += np.take(byte, cells[..., at])
    if negative is not None:
        np.negative(total, out=total, where=negative)
    if decimals:
        total /= 10.0**decimals
    return total
