"""Registers of a chunk as running energy: pairs of neighbouring readings, whatever lies between them (domain 4.1).

A chain is the exact energy from a point's first reading on: rollovers, exchanges and multiplier history are resolved.
Where a pair gives no energy (a decrease that is no rollover, a multiplier that changed without a reading) the chain
breaks and a new segment begins. One computation serves the slots' energy (pairs one slot apart), the day's and EST5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..energy import Exchanges, IntervalFlag, Multipliers, energy_from_registers
from ..masks import B1, F8, I2, I8

HOUR_US: Final = 3_600_000_000
BREAK_KWH: Final = 1e9  # far more than any span's energy, and float64 still tells 0.1 Wh beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Running energy at n + 1 boundaries, arrays (points, n + 1) unless said otherwise.

    units: int64 of 10**-decimals kWh since the segment's begin; segment: number of the segment, -1 = no reading;
    slot_kwh, slot_flag (points, n): energy and IntervalFlag of pairs one slot apart, NaN and MISSING elsewhere;
    wrong: readings that were rejected (K3).
    """

    units: I8
    segment: I8
    decimals: int
    slot_kwh: F8
    slot_flag: I2
    wrong: B1

    def between(self, first: int, last: int) -> F8:
        """Exact kWh between two boundaries (points,), NaN unless both have a reading of one segment."""
        a, b = self.segment[:, first], self.segment[:, last]
        difference = self.units[:, last] - self.units[:, first]
        return np.where((a >= 0) & (a == b), difference / 10.0**self.decimals, np.nan)

    def cumulative_kwh(self) -> F8:
        """For `estimate`: kWh, NaN without a reading; a new segment stands far below, so that no sum spans it."""
        kwh = self.units / 10.0**self.decimals
        return np.where(self.segment >= 0, kwh - self.segment * BREAK_KWH, np.nan)


def chain(
    reading: F8,
    *,
    digits: I8,
    decimals: int,
    k: Multipliers,
    step_s: int,
    contract_kva: F8,
    exchanges: Exchanges | None = None,
) -> Chain:
    """Chain of register readings (points, n + 1), NaN = none (leave out what is not to be trusted).

    k: (points, n); contract_kva, digits (points,); exchanges: `slot` counts over all n slots. Where one reading stands
    out of a rising row, that one is rejected; where the row goes on lower, it breaks.
    """
    first = _pairs(reading, digits, decimals, k, step_s, contract_kva, exchanges)
    wrong = np.zeros(reading.shape, np.bool_)
    if not (first.flag == IntervalFlag.DECREASE).any():
        return _linked(reading, first, wrong, k.decimals + decimals)
    at = np.flatnonzero(first.flag == IntervalFlag.DECREASE)
    point, before, after = first.point[at], first.left[at], first.right[at]
    # The reading before the higher one, and the one after the lower one, both of the same point.
    p = np.clip(at - 1, 0, None)
    has_before = (at > 0) & (first.point[p] == point) & (first.right[p] == before)
    n = np.clip(at + 1, None, len(first.point) - 1)
    has_after = (at + 1 < len(first.point)) & (first.point[n] == point) & (first.left[n] == after)
    high, low = reading[point, before], reading[point, after]
    with np.errstate(invalid="ignore"):
        spike = has_before & (low >= reading[point, first.left[p]])  # without the higher one the row rises
        dip = has_after & ~spike & (reading[point, first.right[n]] >= high)  # without the lower one it does
    wrong[point[spike], before[spike]] = True
    wrong[point[dip], after[dip]] = True
    rest = np.where(wrong, np.nan, reading)
    return _linked(
        rest, _pairs(rest, digits, decimals, k, step_s, contract_kva, exchanges), wrong, k.decimals + decimals
    )


@dataclass(frozen=True, slots=True)
class _Pairs:
    point: I8
    left: I8
    right: I8
    units: I8
    ok: B1
    flag: I2


def _pairs(
    reading: F8, digits: I8, decimals: int, k: Multipliers, step_s: int, contract_kva: F8, exchanges: Exchanges | None
) -> _Pairs:
    """Energy of every pair of neighbouring readings of a point."""
    row, column = np.nonzero(np.isfinite(reading))
    same = row[1:] == row[:-1]
    point, left, right = row[:-1][same], column[:-1][same], column[1:][same]
    hours = (right - left) * (step_s / 3600.0)
    # K must be one value from the left reading to the right one: count its changes in front of every slot.
    moved = k.start != k.end
    moved[:, 1:] |= k.start[:, 1:] != k.end[:, :-1]
    begun = np.concatenate([np.zeros((len(moved), 1), np.int64), np.cumsum(moved, axis=1)], axis=1)
    inner = begun[point, right] - begun[point, left] - (moved[point, left] & (k.start == k.end)[point, left])
    end = np.where(inner == 0, k.start[point, left], 0)
    swapped = None
    if exchanges is not None and len(exchanges.point) and len(point):
        width = reading.shape[1]
        key, wanted = point * width + left, exchanges.point * width + exchanges.slot
        at = np.searchsorted(key, wanted, side="right") - 1
        hit = (at >= 0) & (point[at] == exchanges.point) & (exchanges.slot < right[at])
        swapped = Exchanges(
            point=at[hit], slot=np.zeros(int(hit.sum()), np.int64), old_end=exchanges.old_end[hit],
            new_start=exchanges.new_start[hit], k_old=exchanges.k_old[hit], k_new=exchanges.k_new[hit],
        )  # fmt: skip
    energy = energy_from_registers(
        np.stack([reading[point, left], reading[point, right]], axis=1),
        digits=digits[point],
        decimals=decimals,
        k=Multipliers(start=k.start[point, left][:, None], end=end[:, None], decimals=k.decimals),
        boundary_us=np.array([0, HOUR_US], np.int64),
        contract_kva=contract_kva[point] * hours,
        exchanges=swapped,
    )
    return _Pairs(point, left, right, energy.units[:, 0], energy.ok[:, 0], energy.flag[:, 0])


def _linked(reading: F8, pairs: _Pairs, wrong: B1, decimals: int) -> Chain:
    """Pairs joined to running sums and segments."""
    points, width = reading.shape
    step = np.zeros((points, width), np.int64)
    broken = np.zeros((points, width), np.int64)
    step[pairs.point, pairs.right] = np.where(pairs.ok, pairs.units, 0)
    broken[pairs.point, pairs.right] = ~pairs.ok
    slot_kwh, slot_flag = (
        np.full((points, width - 1), np.nan),
        np.full((points, width - 1), IntervalFlag.MISSING, np.int16),
    )
    one = pairs.right - pairs.left == 1
    cell = (pairs.point[one], pairs.left[one])
    slot_kwh[cell] = np.where(pairs.ok[one], pairs.units[one] / 10.0**decimals, np.nan)
    slot_flag[cell] = pairs.flag[one]
    return Chain(
        units=np.cumsum(step, axis=1),
        segment=np.where(np.isfinite(reading), np.cumsum(broken, axis=1), -1),
        decimals=decimals,
        slot_kwh=slot_kwh,
        slot_flag=slot_flag,
        wrong=wrong,
    )
