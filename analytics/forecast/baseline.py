"""Load as it would have been without control or outage (domain 8.10), put in place of what was disturbed.

The baseline is that of `analytics/evaluation.py`. A history that keeps the cut load teaches a forecaster that the load
falls at that hour; this is what keeps it from it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..evaluation import baseline
from ..masks import B1, F8
from .calendar import DayTypes

SEARCH_DAYS: Final = 45
DAY_S: Final = 86_400


def undisturbed(x: F8, disturbed: B1, types: DayTypes) -> tuple[F8, B1]:
    """x (days, slots) with its disturbed slots replaced by the baseline, NaN where no like day before is known.

    Returns also where a baseline stands (days, slots). types: of the same days, from the first on.
    """
    out = x.copy()
    out[disturbed] = np.nan
    replaced = np.zeros(x.shape, np.bool_)
    marked: B1 = np.asarray(disturbed.any(axis=1))
    kind = types.rest * 2 + types.holiday
    for day in np.flatnonzero(marked).tolist():
        past = np.arange(max(day - SEARCH_DAYS, 0), day)[::-1]
        allowed = (kind[past] == kind[day]) & ~marked[past] & (np.isfinite(x[past]).mean(axis=1) > 0.5)
        past = past[allowed]
        window = np.flatnonzero(disturbed[day])
        # a second window of the day follows what is beside its own beginning
        for part in np.split(window, np.flatnonzero(np.diff(window) > 1) + 1) if len(past) else ():
            found = baseline(
                x[past][None], np.ones((1, len(past)), np.bool_), out[day][None], int(part[0]), DAY_S // x.shape[1]
            )
            out[day, part] = found.kw[0, part]
            replaced[day, part] = np.isfinite(found.kw[0, part])
    return out, replaced
