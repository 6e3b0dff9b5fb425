"""Energy from register readings (示度) with multiplier history, rollover and exchange: domain 4.1, exact.

Registers become integers of their least digit, multipliers integers of 10**-k; energy is an integer of both, so no
rounding happens before a person reads the figure. A decrease that is no proven rollover is anomaly E1 and NULL,
never an absolute value. Not for estimating what is missing: that is VEE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .masks import B1, F8, I2, I8

ROLLOVER_FROM: Final = (9, 10)  # R1 must stand at 9/10 of the register's range or above
ROLLOVER_MARGIN: Final = 1.2  # and the energy must fit 1.2 x contract capacity x time
_LIMIT: Final = 2.0**62


class IntervalFlag(IntEnum):
    """What the rule found in one interval. DECREASE is anomaly E1; MULTIPLIER: it changed and no exchange says how."""

    OK = 0
    MISSING = 1
    ROLLOVER = 2
    EXCHANGE = 3
    DECREASE = 4
    MULTIPLIER = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Multipliers:
    """Multiplier K in force per interval, exact: K = units / 10**decimals.

    start, end: int64 (points, slots), the K at the interval's first instant and just before its last; 0 = unknown.
    """

    start: I8
    end: I8
    decimals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanges:
    """Meter, CT or PT exchanges with the readings taken in the field. All arrays (m,), ordered by time within a cell.

    point, slot: the interval; old_end, new_start: register units (least digit); k_old, k_new: multiplier units.
    """

    point: I8
    slot: I8
    old_end: I8
    new_start: I8
    k_old: I8
    k_new: I8


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Energy per interval: units int64 (points, slots) of 10**-decimals kWh, 0 where `ok` is false; IntervalFlag."""

    units: I8
    decimals: int
    ok: B1
    flag: I2

    @property
    def kwh(self) -> F8:
        """kWh as float64, NaN where the energy is NULL."""
        return np.where(self.ok, self.units / 10.0**self.decimals, np.nan)

    def total(self) -> F8:
        """kWh of all intervals; NaN where one of them is NULL (a sum with a hole is not the day's energy)."""
        return np.where(self.ok.all(axis=-1), self.units.sum(axis=-1) / 10.0**self.decimals, np.nan)

    def exact(self, point: int, slot: int) -> Decimal | None:
        """One interval's energy as an exact decimal, None where NULL."""
        return Decimal(int(self.units[point, slot])).scaleb(-self.decimals) if self.ok[point, slot] else None


def register_units(value: F8, decimals: int) -> tuple[I8, B1]:
    """Register readings as integers of their least digit, and where there is one. Up to 15 digits are exact."""
    ok: B1 = np.isfinite(value)
    scaled = np.where(ok, value, 0.0) * 10.0**decimals
    if np.abs(scaled).max(initial=0.0) >= 2.0**53:
        raise ValueError("a register has more digits than float64 holds exactly")
    return np.rint(scaled).astype(np.int64), ok


def multiplier_units(history: Sequence[Decimal]) -> tuple[I8, int]:
    """Multipliers as integers and the number of decimals that makes all of them whole."""
    decimals = max((-int(k.normalize().as_tuple().exponent) for k in history), default=0)
    decimals = max(decimals, 0)
    return np.array([int(k.scaleb(decimals)) for k in history], np.int64), decimals


def multipliers(
    point: I8, valid_from_us: I8, k: Sequence[Decimal], *, points: int, boundary_us: I8, known_before: bool = False
) -> Multipliers:
    """Multiplier history as per-interval arrays (effective-dated: the value in force at the reading's time).

    point, valid_from_us, k: (m,) one row a change; boundary_us: (slots + 1,) instants of the registers.
    Before a point's first row K is unknown, unless `known_before` (archives that start with today's value).
    """
    units, decimals = multiplier_units(k)
    order = np.lexsort((valid_from_us, point))
    point, valid_from_us, units = point[order], valid_from_us[order], units[order]

    def in_force(instant_us: I8, side: str) -> I8:
        # Row number of the latest change, spread over the slots: mark each change's first slot, then run a maximum.
        latest = np.full((points, len(instant_us)), -1, np.int64)
        at = np.searchsorted(instant_us, valid_from_us, side="left" if side == "start" else "right")
        rows = np.flatnonzero(at < len(instant_us))
        np.maximum.at(latest, (point[rows], at[rows]), rows)
        if known_before and len(point):
            first = np.searchsorted(point, np.arange(points))
            has = (first < len(point)) & (point[np.minimum(first, len(point) - 1)] == np.arange(points))
            latest[:, 0] = np.where(has & (latest[:, 0] < 0), first, latest[:, 0])
        latest = np.maximum.accumulate(latest, axis=1)
        return np.where(latest >= 0, units[np.maximum(latest, 0)], 0) if len(units) else np.zeros_like(latest)

    return Multipliers(
        start=in_force(boundary_us[:-1], "start"), end=in_force(boundary_us[1:], "end"), decimals=decimals
    )


def constant_multipliers(k: Sequence[Decimal], slots: int) -> Multipliers:
    """One multiplier a point for all intervals."""
    units, decimals = multiplier_units(k)
    grid = np.broadcast_to(units[:, None], (len(units), slots))
    return Multipliers(start=grid, end=grid, decimals=decimals)


def _differences(r1: I8, r2: I8, k: I8, full: I8, limit_kwh: F8, decimals: int) -> tuple[I8, B1, B1]:
    """(difference in least digits, is it good, is it a rollover) by the rule of 4.1; shapes broadcast together."""
    difference = r2 - r1
    turned = difference + full
    energy = turned.astype(np.float64) * k / 10.0**decimals
    top, base = ROLLOVER_FROM
    # NaN (capacity unknown) compares false: without a limit no rollover can be proven. A reading beyond the stated
    # digits proves the digits wrong, and so no rollover either.
    over = (difference < 0) & (base * r1 >= top * full) & (r1 < full) & (r2 >= 0) & (energy <= limit_kwh)
    return np.where(over, turned, difference), (difference >= 0) | over, over


def energy_from_registers(
    registers: F8,
    *,
    digits: I8,
    decimals: int,
    k: Multipliers,
    boundary_us: I8,
    contract_kva: F8,
    exchanges: Exchanges | None = None,
) -> Energy:
    """Energy of every interval between neighbouring readings.

    registers: float64 (points, slots + 1) kWh or kvarh, NaN = none; digits: integer digits of each register (points,);
    boundary_us: int64 (slots + 1,); contract_kva: (points,), NaN = unknown (then a decrease is never a rollover).
    """
    reading, have = register_units(registers, decimals)
    full = 10 ** (digits.astype(np.int64) + decimals)
    hours = np.diff(boundary_us) / 3.6e9
    limit = ROLLOVER_MARGIN * contract_kva[:, None] * hours
    scale = decimals + k.decimals

    r1, r2 = reading[:, :-1], reading[:, 1:]
    have2 = have[:, :-1] & have[:, 1:]
    difference, good, over = _differences(r1, r2, k.start, full[:, None], limit, scale)
    _check_range(difference, k.start)
    known = (k.start > 0) & (k.start == k.end)
    flag = np.select(
        [~have2, ~known, ~good, over],
        [IntervalFlag.MISSING, IntervalFlag.MULTIPLIER, IntervalFlag.DECREASE, IntervalFlag.ROLLOVER],
        IntervalFlag.OK,
    ).astype(np.int16)
    ok = have2 & known & good
    units = np.where(ok, difference * k.start, 0)
    if exchanges is not None and len(exchanges.point):
        _apply_exchanges(units, ok, flag, r1, r2, have2, full, limit, scale, exchanges)
    return Energy(units=units, decimals=scale, ok=ok, flag=flag)


def _apply_exchanges(
    units: I8, ok: B1, flag: I2, r1: I8, r2: I8, have: B1, full: I8, limit: F8, scale: int, x: Exchanges
) -> None:
    """Replace the cells with an exchange by the sum over their pieces: R1..old_end, new_start..old_end, ..., ..R2."""
    cell = x.point * units.shape[1] + x.slot
    order = np.argsort(cell, kind="stable")
    p, s, cell = x.point[order], x.slot[order], cell[order]
    first = np.r_[True, cell[1:] != cell[:-1]]
    last = np.r_[first[1:], True]
    begin = np.where(first, r1[p, s], np.r_[0, x.new_start[order][:-1]])
    pieces_from = np.r_[begin, x.new_start[order][last]]
    pieces_to = np.r_[x.old_end[order], r2[p, s][last]]
    pieces_k = np.r_[x.k_old[order], x.k_new[order][last]]
    pp, ss = np.r_[p, p[last]], np.r_[s, s[last]]
    difference, good, _ = _differences(pieces_from, pieces_to, pieces_k, full[pp], limit[pp, ss], scale)
    _check_range(difference, pieces_k)
    good &= pieces_k > 0
    cells = (p[last], s[last])
    units[cells] = 0
    np.add.at(units, (pp, ss), difference * pieces_k)
    bad = np.zeros(units.shape, np.bool_)
    bad[pp[~good], ss[~good]] = True
    ok[cells] = have[cells] & ~bad[cells]
    flag[cells] = np.where(
        ~have[cells],
        IntervalFlag.MISSING,
        np.where(bad[cells], IntervalFlag.DECREASE, IntervalFlag.EXCHANGE),
    )
    units[cells] = np.where(ok[cells], units[cells], 0)


def _check_range(difference: I8, k: NDArray[np.int64]) -> None:
    top = float(np.abs(difference).max(initial=0)) * float(np.abs(k).max(initial=0))
    if top >= _LIMIT:
        raise ValueError("energy leaves the range of 64-bit integers: fewer register or multiplier decimals are needed")
