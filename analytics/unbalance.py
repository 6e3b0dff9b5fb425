"""Three-phase unbalance, two different figures with two names (domain 4.7)."""

from __future__ import annotations

from typing import Final

import numpy as np

from .masks import B1, F8, divide

CURRENT_FROM: Final = 0.20  # of the rated current: below it a spread says nothing
LONG: Final = (0.02, 0.013)  # sequence ratio of the network, and by one customer: 95 % of the values
SHORT: Final = (0.04, 0.026)  # and none of them
SHARE: Final = 0.95


def sequence_ratio(ab: F8, bc: F8, ca: F8) -> F8:
    """Negative/positive sequence ratio (0..1) from three line voltages; NaN where a side is missing or no triangle."""
    sides = np.stack(np.broadcast_arrays(ab, bc, ca))
    whole = np.isfinite(sides).all(axis=0) & (np.where(np.isfinite(sides), sides, 0.0) > 0).all(axis=0)
    square = np.where(whole, sides, 1.0) ** 2
    level = (square**2).sum(axis=0) / square.sum(axis=0) ** 2
    inner = 3.0 - 6.0 * level
    # level >= 1/3 always; above 1/2 the three voltages close no triangle. Rounding may leave 1/3 by a hair.
    whole &= inner >= 0.0
    root = np.sqrt(np.clip(inner, 0.0, 1.0))
    return np.where(whole, np.sqrt((1.0 - root) / (1.0 + root)), np.nan)


def spread_rate(phases: F8, use: B1) -> F8:
    """Meter-event unbalance (max - min) / max over axis 0; `use` leaves out phases the wiring lacks (3P3W: B)."""
    some = use.sum(axis=0) >= 2
    top = np.where(use, phases, -np.inf).max(axis=0)
    low = np.where(use, phases, np.inf).min(axis=0)
    top, low = np.where(some, top, np.nan), np.where(some, low, np.nan)
    return divide(top - low, top)


def current_spread(amps: F8, rated_a: F8, use: B1) -> F8:
    """Spread rate of the currents (phases, points, slots), NaN where the largest is below 20 % of rated_a (points,)."""
    top = np.where(use, amps, -np.inf).max(axis=0)
    with np.errstate(invalid="ignore"):
        judged = top >= CURRENT_FROM * rated_a[:, None]
    return np.where(judged, spread_rate(amps, use), np.nan)


def ratio_exceeded(ratio: F8, *, customer: bool = False) -> B1:
    """Sequence ratios (points, values) of a period against GB/T 15543: 95 % of them within 2 % (a customer: 1.3 %), all
    within 4 % (2.6 %). Without a value: not exceeded."""
    long, short = LONG[customer], SHORT[customer]
    known = np.isfinite(ratio)
    count = known.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        over, worst = (ratio > long).sum(axis=-1), (ratio > short).any(axis=-1)
    exceeded: B1 = (over > (1.0 - SHARE) * count * (1 + 1e-12)) | worst
    return exceeded
