"""The checks K1-K12 of VEE (domain chapter 6), each over all points at once.

True = failed, False = passed or not judged.
Axis 0 is the points, the last axis the slots of a day (or of several). Every check takes the validity mask it needs and
judges valid slots only: what is missing is M, not wrong. Values are secondary or primary, but of one side throughout.
K10 warns and never makes a value suspect. Not here: finding errors of a curve without registers (`detect`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from ...model.quality import Quality
from ..energy import IntervalFlag
from ..masks import B1, F8, I2, I8, divide, masked_sum
from ..tou import tariff_sum_holds

CLOCK_LIMIT_S: Final = 300.0
SPIKE_RATIO: Final = 1.8
SPIKE_FROM: Final = 0.05  # of the rated apparent power
SUM_SHARE: Final = 0.01
DEMAND_SHARE: Final = 0.99
APPARENT_SHARE: Final = 0.10
PHASES_SHARE: Final = 0.05
PHASES_FROM: Final = 0.10
FROZEN_SLOTS: Final = 24
DAY_SHARE: Final = 0.50
FACTOR_JUMP: Final = 0.4
MARGIN: Final = 1.2


class Check(IntEnum):
    """Numbers of the checks; a failed check is bit (number - 1) of a value's mask."""

    K1 = 1
    K2 = 2
    K3 = 3
    K4 = 4
    K5 = 5
    K6 = 6
    K7 = 7
    K8 = 8
    K9 = 9
    K10 = 10
    K11 = 11
    K12 = 12


# What a failed check makes of an actual value; the worse wins. K10 is a warning.
CONSEQUENCE: Final[Mapping[Check, Quality | None]] = {
    Check.K1: Quality.X, Check.K2: Quality.S, Check.K3: Quality.X, Check.K4: Quality.X, Check.K5: Quality.S,
    Check.K6: Quality.S, Check.K7: Quality.S, Check.K8: Quality.S, Check.K9: Quality.S, Check.K10: None,
    Check.K11: Quality.S, Check.K12: Quality.S,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Readings on their slots: value (points, slots), NaN = none; conflict: different readings claim the slot (K2)."""

    value: F8
    conflict: B1
    count: I8


def k1_frame(value: F8, frame_ok: B1) -> B1:
    """K1 (3.5): a value whose frame, address or checksum failed; fill bytes are NaN already and not judged here."""
    return np.isfinite(value) & ~frame_ok


def k2_place(point: I8, slot: I8, value: F8, *, points: int, slots: int) -> Placed:
    """K2: readings (m,) on the grid. Equal duplicates are one reading, different ones conflict; the first stays.

    count (points,): slots with a reading, to be compared with the expected 96.
    """
    use = np.isfinite(value)
    cell = (point * slots + slot)[use]
    lowest, highest = np.full(points * slots, np.inf), np.full(points * slots, -np.inf)
    np.minimum.at(lowest, cell, value[use])
    np.maximum.at(highest, cell, value[use])
    out = np.full(points * slots, np.nan)
    cells, first = np.unique(cell, return_index=True)
    out[cells] = value[use][first]
    conflict = lowest < highest
    grid = out.reshape(points, slots)
    return Placed(
        value=grid, conflict=conflict.reshape(points, slots) & np.isfinite(grid), count=np.isfinite(grid).sum(axis=-1)
    )


def k2_clock(offset_s: F8, slots: int) -> B1:
    """K2: device clock more than 5 min off (points,) makes all its slots suspect; an unknown offset does not."""
    with np.errstate(invalid="ignore"):
        wrong = np.abs(offset_s) > CLOCK_LIMIT_S
    return np.repeat(wrong[:, None], slots, axis=1)


def k3_monotonic(flag: I2) -> B1:
    """K3 (4.1): intervals with a register decrease that is no proven rollover; flag: IntervalFlag (points, slots)."""
    failed: B1 = flag == IntervalFlag.DECREASE
    return failed


def k4_energy(kwh: F8, ok: B1, contract_kva: F8, meter_max_kw: F8, step_s: int) -> B1:
    """K4: 0 <= E <= step x 1.2 x max(contract capacity, power at Imax); both (points,), NaN = unknown.

    With neither known only the lower limit is judged.
    """
    most = np.fmax(contract_kva, meter_max_kw) * MARGIN * step_s / 3600.0
    upper = np.where(np.isfinite(most), most, np.inf)[:, None]
    with np.errstate(invalid="ignore"):
        failed: B1 = ok & ((kwh < 0) | (kwh > upper))
    return failed


def k4_limits(value: F8, ok: B1, low: F8, high: F8) -> B1:
    """K4: physical range of U, I or PF; low, high (points,) inclusive, NaN = no limit."""
    with np.errstate(invalid="ignore"):
        failed: B1 = ok & ((value < low[:, None]) | (value > high[:, None]))
    return failed


def k5_spike(kw: F8, ok: B1, rated_kva: F8) -> B1:
    """K5: the highest value h1 of the day with (h1 - h3)/h3 > 1.8 and h1 > 5 % of rated_kva (points,).

    h3: third highest. The second highest is marked as well where it meets the same condition. Fewer than three valid
    slots, or h3 <= 0 with h1 > 0: the ratio is infinite for h3 = 0 and not judged below zero. NaN capacity: no limit.
    """
    filled = np.where(ok, kw, -np.inf)
    if filled.shape[-1] < 3:
        return np.zeros(kw.shape, np.bool_)
    third = np.sort(filled, axis=-1)[:, -3][:, None]
    least = np.where(np.isfinite(rated_kva), SPIKE_FROM * rated_kva, 0.0)[:, None]
    judged = np.isfinite(third) & (third >= 0)
    base = np.where(judged, third, 0.0)
    with np.errstate(invalid="ignore"):
        failed: B1 = ok & judged & (kw > least) & (kw - base > SPIKE_RATIO * base) & (kw > base)
    return failed


def k6_sum(kwh: F8, ok: B1, register_kwh: F8, quantum_kwh: F8) -> B1:
    """K6: |sum of the slots - register energy of the day| <= max(2 quanta, 1 %), (points,).

    register_kwh, quantum_kwh (points,): exact day energy (NaN = none) and least digit x K. Judged on whole days only.
    """
    whole = ok.all(axis=-1) & np.isfinite(register_kwh)
    total = np.where(whole, masked_sum(kwh, ok), 0.0)
    want = np.where(whole, register_kwh, 0.0)
    failed: B1 = whole & (np.abs(total - want) > np.maximum(2.0 * quantum_kwh, SUM_SHARE * np.abs(want)) * (1 + 1e-12))
    return failed


def k7_tariffs(total: I8, parts: I8) -> B1:
    """K7 (4.5): the tariff registers do not add up to the total, (points,), in least digits."""
    return ~tariff_sum_holds(total, parts)


def k7_demand(meter_kw: F8, block_kw: F8) -> B1:
    """K7: the meter's sliding maximum below 0.99 x the largest block average, which it can never be, (points,)."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(meter_kw) & np.isfinite(block_kw) & (meter_kw < DEMAND_SHARE * block_kw)


def k8_apparent(p: F8, q: F8, s: F8, ok: B1) -> B1:
    """K8: |S² - P² - Q²| > 10 % S²."""
    with np.errstate(invalid="ignore"):
        failed: B1 = ok & (np.abs(s**2 - p**2 - q**2) > APPARENT_SHARE * s**2)
    return failed


def k8_phases(p: F8, volts: F8, amps: F8, factor: F8, ok: B1, rated_kw: F8) -> B1:
    """K8: P differs from the sum of U I cosφ by more than 5 %, judged above 10 % load.

    p (points, slots) in kW; volts, amps, factor (phases, points, slots) in V, A and -1..1, NaN where the wiring has no
    such phase; rated_kw (points,): full load.
    """
    each = volts * amps * factor / 1000.0
    present = np.isfinite(each)
    total = np.where(present, each, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        judged = ok & present.any(axis=0) & (np.abs(p) > PHASES_FROM * rated_kw[:, None])
        failed: B1 = judged & (np.abs(p - total) > PHASES_SHARE * np.abs(p))
    return failed


def k9_frozen(value: F8, ok: B1, register_moves: B1) -> B1:
    """K9: at least 24 neighbouring slots with one non-zero value while the register moved in one of them.

    register_moves (points, slots): the register's energy of the slot is above zero.
    """
    same = np.zeros(value.shape, np.bool_)
    with np.errstate(invalid="ignore"):
        same[:, 1:] = ok[:, 1:] & ok[:, :-1] & (value[:, 1:] == value[:, :-1]) & (value[:, 1:] != 0)
    n = value.shape[-1]
    place = np.broadcast_to(np.arange(n), value.shape)
    start = np.maximum.accumulate(np.where(same, 0, place), axis=-1)
    end = np.flip(np.minimum.accumulate(np.flip(np.where(_next(same), n, place), -1), axis=-1), -1)
    moved = np.cumsum(register_moves, axis=-1)
    before = np.where(start > 0, np.take_along_axis(moved, np.maximum(start - 1, 0), axis=-1), 0)
    with_energy = np.take_along_axis(moved, end, axis=-1) - before > 0
    return ok & (end - start + 1 >= FROZEN_SLOTS) & with_energy


def _next(same: B1) -> B1:
    """Whether the slot's right neighbour continues its run."""
    return np.concatenate([same[:, 1:], np.zeros((len(same), 1), np.bool_)], axis=1)


def k10_day(kwh: F8, like_kwh: F8) -> B1:
    """K10 (warning): day energy (points,) outside the mean of its like days (points, days) +- 50 %; NaN = none."""
    there = np.isfinite(like_kwh)
    mean = divide(np.where(there, like_kwh, 0.0).sum(axis=-1), there.sum(axis=-1).astype(float))
    with np.errstate(invalid="ignore"):
        return np.isfinite(kwh) & np.isfinite(mean) & (np.abs(kwh - mean) > DAY_SHARE * np.abs(mean))


def k11_continuity(freeze: I8, curve: I8, known: B1) -> B1:
    """K11: freeze and curve register of one instant differ by more than the least digit; both in least digits."""
    failed: B1 = known & (np.abs(freeze - curve) > 1)
    return failed


def k12_reactive(kwh_ok: B1, kvarh_ok: B1, factor: F8) -> B1:
    """K12: kWh without kvarh, or a power factor that jumps by more than 0.4 from the slot before; NaN = not known."""
    missing = kwh_ok & ~kvarh_ok
    jump = np.zeros(kwh_ok.shape, np.bool_)
    with np.errstate(invalid="ignore"):
        jump[:, 1:] = np.abs(np.diff(factor, axis=-1)) > FACTOR_JUMP
    failed: B1 = missing | jump
    return failed


def combine(failed: Mapping[Check, B1], shape: tuple[int, int]) -> I8:
    """One mask per value: bit (number - 1) set where a check failed. Day checks (points,) set all slots of the day."""
    mask = np.zeros(shape, np.int64)
    for check, bad in failed.items():
        mask |= np.where(bad if bad.ndim == 2 else bad[:, None], np.int64(1) << (check - 1), 0)
    return mask


def checked_quality(value: F8, quality: I2, mask: I8) -> I2:
    """Quality of the CHECKED layer: A becomes S or X by `CONSEQUENCE`, a missing value M; others keep their quality."""
    rejects = sum(1 << (c - 1) for c, q in CONSEQUENCE.items() if q == Quality.X)
    suspects = sum(1 << (c - 1) for c, q in CONSEQUENCE.items() if q == Quality.S)
    out = np.where((quality == Quality.A) & (mask & suspects != 0), Quality.S, quality)
    out = np.where(np.isin(quality, (Quality.A, Quality.S)) & (mask & rejects != 0), Quality.X, out)
    return np.where(np.isfinite(value), out, Quality.M).astype(np.int16)


def failed_checks(mask: int) -> list[Check]:
    """The checks in one value's mask."""
    return [c for c in Check if mask >> (c - 1) & 1]
