"""The load curve of a day: power from registers and the choice of its source (domain 4.2).

Source priority: meter's 15-min average, terminal's average, sampled power, register difference. A day has one source;
when holes are filled from another, the point is marked as mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum

import numpy as np

from .energy import Energy
from .masks import B1, F8, I2, I8, DayFlag, day_flag


class CurveSource(IntEnum):
    """Where a slot's power came from; a lower number goes first."""

    NONE = 0
    METER_AVERAGE = 1
    TERMINAL_AVERAGE = 2
    SAMPLED = 3
    REGISTER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Power per slot: kw float64 (points, slots) with NaN, source int16 of the same shape, mixed bool (points,)."""

    kw: F8
    source: I2
    mixed: B1


def power_from_registers(energy: Energy, boundary_us: I8, step_s: int) -> F8:
    """Average power of each interval that is exactly one slot long, kW (points, slots); all others NaN."""
    one_slot = np.diff(boundary_us) == step_s * 1_000_000
    return np.where(one_slot, energy.kwh * 3600.0 / step_s, np.nan)


def quantum_kw(decimals: int, k: Decimal, step_s: int = 900) -> Decimal:
    """The step of a curve made from registers: least digit x K / slot length (0.01 kWh, K=3000: 120 kW)."""
    return Decimal(1).scaleb(-decimals) * k * 3600 / step_s


def choose_source(candidates: Sequence[tuple[CurveSource, F8]], *, fill: bool = False) -> Curve:
    """One source a point and day: the first by priority that is complete (95 %), else the one with most values.

    candidates: (source, kW (points, slots) with NaN), all of one shape. `fill`: take holes from the others, by
    priority, and mark the point as mixed.
    """
    ranked = sorted(candidates, key=lambda c: c[0])
    stack = np.stack([kw for _, kw in ranked])
    codes = np.array([code for code, _ in ranked], np.int16)
    have = np.isfinite(stack)
    count = have.sum(axis=-1)
    complete = day_flag(count, stack.shape[-1]) == DayFlag.COMPLETE
    # argmax takes the first of equals, so priority decides both among complete ones and among equally long ones.
    chosen = np.where(complete.any(axis=0), complete.argmax(axis=0), count.argmax(axis=0))
    points = np.arange(stack.shape[1])
    kw, own = stack[chosen, points], have[chosen, points]
    source = np.where(own, codes[chosen][:, None], np.int16(CurveSource.NONE))
    mixed = np.zeros(len(points), np.bool_)
    if fill:
        # The first source by priority that has the slot; argmax of all-False is 0, masked out by `hole`.
        best = have.argmax(axis=0)
        hole = ~own & have.any(axis=0)
        kw = np.where(hole, np.take_along_axis(stack, best[None], axis=0)[0], kw)
        source = np.where(hole, codes[best], source)
        mixed = hole.any(axis=-1)
    return Curve(kw=kw, source=source.astype(np.int16), mixed=mixed)
