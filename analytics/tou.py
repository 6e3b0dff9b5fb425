"""Time-of-use energy from curves, for analysis (settlement uses the meter's tariff registers): domain 4.5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from .masks import B1, F8, I8, divide

DAY_MIN: Final = 1440
ANOMALY_SHARE: Final = 0.02


def slot_tariffs(periods: Sequence[tuple[int, int]], step_s: int) -> I8:
    """Tariff of each slot of a day. periods: (start minute, tariff), left-closed and right-open, the first at 0.

    The slot with the END label 00:15 is the time [00:00, 00:15). ValueError: a switch that lies inside a slot.
    """
    starts = [start for start, _ in periods]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= DAY_MIN:
        raise ValueError("tariff periods must begin at minute 0, ascend and end before minute 1440")
    if any(start * 60 % step_s for start in starts):
        raise ValueError("a tariff switches inside a slot: the curve's step is too long for this table")
    begin = np.arange(0, 86_400, step_s) // 60
    tariff = np.array([t for _, t in periods], np.int64)
    return tariff[np.searchsorted(starts, begin, side="right") - 1]


def tou_energy(kw: F8, ok: B1, tariff: I8, tariffs: Sequence[int], step_s: int) -> F8:
    """kWh (points, len(tariffs)) of the valid slots; NaN where a slot of that tariff is missing."""
    member = tariff[:, None] == np.asarray(tariffs)[None, :]
    energy = np.where(ok, kw, 0.0) @ member.astype(np.float64) * (step_s / 3600.0)
    holes = (~ok).astype(np.float64) @ member.astype(np.float64)
    return np.where(holes == 0, energy, np.nan)


def tariff_sum_holds(total: I8, parts: I8) -> B1:
    """|R_total - sum of R_tariff| <= (k + 1) least digits; total (points,), parts (points, k), in least digits."""
    holds: B1 = np.abs(total - parts.sum(axis=-1)) <= parts.shape[-1] + 1
    return holds


def tou_anomaly(curve_kwh: F8, register_kwh: F8) -> B1:
    """Curve-integrated and register energy differ by more than 2 % (of the register)."""
    share = divide(np.abs(curve_kwh - register_kwh), np.abs(register_kwh))
    return np.isfinite(share) & (share > ANOMALY_SHARE)
