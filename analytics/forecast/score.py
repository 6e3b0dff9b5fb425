"""Accuracy of a day's forecast (domain 7): A, MAPE, peak accuracy and WAPE, all in percent.

A = (1 - sqrt(mean(((F - P)/P)^2))) * 100 with floor 0, MAPE = mean(|F - P|/P) * 100. Slots without a value are left
out; slots below 5 % of the day's mean are left out and counted, because a relative error means nothing there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..masks import F8

SMALL_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class DayScore:
    """Percentages; None where no slot can be judged. excluded: slots with a value that is too small to judge by."""

    accuracy: float | None
    mape: float | None
    peak: float | None
    wape: float | None
    slots: int
    excluded: int


def score_day(forecast: F8, actual: F8) -> DayScore:
    """Score of one day, arrays (slots,); NaN in either is left out."""
    both = np.isfinite(forecast) & np.isfinite(actual)
    f, p = forecast[both], actual[both]
    if not len(p):
        return DayScore(accuracy=None, mape=None, peak=None, wape=None, slots=0, excluded=0)
    use = (p > 0) & (p >= SMALL_SHARE * p.mean())
    total = float(np.abs(p).sum())
    wape = float(np.abs(f - p).sum()) / total * 100 if total else None
    top = float(p.max())
    peak = max(0.0, 1 - abs(float(f.max()) - top) / top) * 100 if top > 0 else None
    if not use.any():
        return DayScore(accuracy=None, mape=None, peak=peak, wape=wape, slots=0, excluded=len(p))
    relative = (f[use] - p[use]) / p[use]
    return DayScore(
        accuracy=max(0.0, 1 - float(np.sqrt(np.mean(relative**2)))) * 100,
        mape=float(np.mean(np.abs(relative))) * 100,
        peak=peak,
        wape=wape,
        slots=int(use.sum()),
        excluded=int((~use).sum()),
    )


def mean_of(values: list[float | None]) -> float | None:
    """Mean of the values that exist."""
    some = [v for v in values if v is not None]
    return sum(some) / len(some) if some else None
