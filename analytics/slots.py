"""Single samples put on the grid of a day's slots: for devices without a curve memory, and for freezes at midnight.

Averages of samples are the "sampled power" of 4.2. Registers are placed only where a sample carries a boundary's exact
instant: a reading five minutes late is another interval's energy.
"""

from __future__ import annotations

import numpy as np

from .masks import B1, F8, I8


def slot_means(point: I8, time_us: I8, value: F8, *, points: int, label_us: I8, step_s: int) -> F8:
    """Mean of the samples in each slot (label - step, label], (points, slots), NaN where there is none.

    point: row number 0 .. points - 1 of each sample; samples outside the day are left out.
    """
    slots = len(label_us)
    first = int(label_us[0]) - step_s * 1_000_000
    at = -((first - time_us) // (step_s * 1_000_000)) - 1  # ceil of the distance in steps, minus one
    use = (at >= 0) & (at < slots) & np.isfinite(value)
    cell = point[use] * slots + at[use]
    count = np.bincount(cell, minlength=points * slots).astype(np.float64)
    total = np.bincount(cell, weights=value[use], minlength=points * slots)
    mean = np.full(points * slots, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.reshape(points, slots)


def at_instants(point: I8, time_us: I8, value: F8, *, points: int, instant_us: I8) -> F8:
    """Samples that carry exactly one of the instants (ascending), (points, instants); NaN where there is none."""
    column = np.searchsorted(instant_us, time_us)
    exact: B1 = instant_us[np.minimum(column, len(instant_us) - 1)] == time_us
    out = np.full((points, len(instant_us)), np.nan)
    out[point[exact], column[exact]] = value[exact]
    return out
