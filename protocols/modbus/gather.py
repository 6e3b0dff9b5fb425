"""Whole replies to arrays: one index table per set of reads takes every byte to its place, type by type.

The hot path of polling: twenty values cost a handful of numpy calls and no Python object each. What it computes is what
`words.decode_value` computes value by value (a property test compares them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .grouping import Read
from .maps import Register
from .words import TYPES, wire_order

F8 = NDArray[np.float64]

# 10^n as float64 is exact up to n = 22; SunSpec scale factors are -10 … 10.
_POWERS: Final[F8] = np.array([10.0**n for n in range(11)])


class _Family:
    """All values of one binary type: where their bytes lie, where their numbers go, which patterns mean "none"."""

    __slots__ = ("dtype", "index", "patterns", "slots")

    def __init__(
        self, code: str, places: Sequence[tuple[int, Register]], slots: Sequence[int], none: list[int]
    ) -> None:
        size = int(code[1])
        index = [offset + byte for offset, r in places for byte in wire_order(size, r.order)]
        self.index = np.array(index, np.intp)
        self.dtype = np.dtype("<" + code)
        self.slots = np.array(slots, np.intp)
        unsigned = np.array(none, f"<u{size}")
        self.patterns = unsigned.view(self.dtype) if code[0] != "f" else None

    def take(self, data: NDArray[np.uint8]) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """Raw numbers (k, n) of `data` (k, bytes); which of them are a not-available pattern (None: none is known)."""
        raw: NDArray[np.generic] = data.take(self.index, axis=1).view(self.dtype)
        if self.patterns is None or not len(self.patterns):
            return raw, None
        return raw, np.isin(raw, self.patterns)


class Gather:
    """Decodes the register bytes of `reads`, joined in their order, into the values of `registers`.

    registers: wanted values (scale registers left out), the order of the result. decimals: digits kept after the point
    in the kept unit, one for each of `registers`.
    """

    __slots__ = ("_factor", "_families", "_folded", "_grid", "_scale_slot", "_scaled", "_single", "_total", "registers")

    def __init__(
        self, reads: Sequence[Read], not_available: Mapping[str, int], decimals: Mapping[str, int] | None = None
    ) -> None:
        places: list[tuple[int, Register]] = []
        base = 0
        for read in reads:
            places += [(base + 2 * (r.address - read.address), r) for r in read.registers]
            base += 2 * read.count
        self._total = base
        places.sort(key=lambda place: place[1].use == "scale")
        self.registers: tuple[Register, ...] = tuple(r for _, r in places if r.use != "scale")
        n = len(self.registers)
        families: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for slot, (_, r) in enumerate(places):
            kind = TYPES[r.type]
            none = tuple(p for p in (kind.absent, not_available.get(r.type)) if p is not None)
            families.setdefault((kind.code, none), []).append(slot)
        self._families = [
            _Family(code, [places[s] for s in slots], slots, list(none)) for (code, none), slots in families.items()
        ]
        self._single = len(self._families) == 1 and len(places) == n
        self._grid: F8 = np.array([10.0 ** (decimals or {}).get(r.name, 6) for r in self.registers])
        self._factor: F8 = self._grid / np.array([r.quotient for r in self.registers])
        scale_at = {r.name: slot for slot, (_, r) in enumerate(places) if r.use == "scale"}
        self._scaled = np.array([i for i, r in enumerate(self.registers) if r.sf], np.intp)
        # a value whose scale register was not read points at the last slot, which is NaN
        self._scale_slot = np.array([scale_at.get(r.sf, len(places)) for r in self.registers if r.sf], np.intp)
        self._folded = np.array([i for i, r in enumerate(self.registers) if r.coding == "power-factor-4q"], np.intp)

    @property
    def size(self) -> int:
        """Bytes that `values` takes."""
        return self._total

    def values(self, data: bytes) -> F8:
        """Values in the kept unit, NaN where the device has none (then or ever). `data` has exactly `size` bytes."""
        row: F8 = self.table(data)[0]
        return row

    def table(self, data: bytes) -> F8:
        """(k, n) values of k replies joined one after the other: many at once cost little more than one."""
        octets = np.frombuffer(data, np.uint8).reshape(-1, self._total)
        with np.errstate(all="ignore"):
            if self._single:
                raw, absent = self._families[0].take(octets)
                value: F8 = np.multiply(raw, self._factor, dtype=np.float64)
                if absent is not None:
                    value[absent] = np.nan
            else:
                value = self._mixed(octets)
            np.rint(value, out=value)
            value /= self._grid
        if len(self._folded):
            self._unfold(value)
        return value

    def _mixed(self, octets: NDArray[np.uint8]) -> F8:
        n = len(self.registers)
        everything = np.full((len(octets), sum(len(f.slots) for f in self._families) + 1), np.nan)
        for family in self._families:
            raw, absent = family.take(octets)
            numbers = raw.astype(np.float64)
            if absent is not None:
                numbers[absent] = np.nan
            everything[:, family.slots] = numbers
        value: F8 = everything[:, :n]
        value *= self._factor
        if len(self._scaled):
            power = everything[:, self._scale_slot]
            power[np.abs(power) > 10] = np.nan
            there = np.isfinite(power)
            exponent = np.where(there, power, 0).astype(np.intp)
            scaled = value[:, self._scaled]
            ten = _POWERS[np.abs(exponent)]
            # dividing by 10^n is exact in the last digit, multiplying by 10^-n is not
            value[:, self._scaled] = np.where(there, np.where(exponent < 0, scaled / ten, scaled * ten), np.nan)
        return value

    def _unfold(self, value: F8) -> None:
        folded = value[:, self._folded]
        folded = np.where(folded > 1, 2 - folded, np.where(folded < -1, -2 - folded, folded))
        value[:, self._folded] = np.rint(folded * self._grid[self._folded]) / self._grid[self._folded]
