"""Robust statistics of one curve: medians over neighbouring days and slots, and how far its own noise can reach.

Nothing here knows a physical limit: a steel plant jumps by half of its load every quarter of an hour, a region by three
percent, and one rule for both is wrong for both. The curve itself tells what is usual, its tail tells what is possible.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..masks import B1, F8, I8


def median(values: F8) -> F8:
    """Median over the last axis of the finite values; NaN where there is none (np.nanmedian, without its warnings)."""
    count = np.isfinite(values).sum(axis=-1)
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=-1)  # NaN last
    low = np.maximum(count - 1, 0) // 2
    high = count // 2
    high = np.minimum(high, np.maximum(count - 1, 0))
    pick = [np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0] for at in (low, high)]
    return np.where(count > 0, 0.5 * (pick[0] + pick[1]), np.nan)


def by_days(values: F8, per_day: int) -> F8:
    """(n,) as (days, per_day), the last day filled up with NaN."""
    days = -(-len(values) // per_day)
    out = np.full(days * per_day, np.nan)
    out[: len(values)] = values
    return out.reshape(days, per_day)


def same_slot_median(values: F8, per_day: int, half_days: int) -> F8:
    """Median of the same slot of the days d - half_days ... d + half_days, (n,)."""
    grid = by_days(values, per_day)
    padded = np.pad(grid, ((half_days, half_days), (0, 0)), constant_values=np.nan)
    return median(sliding_window_view(padded, 2 * half_days + 1, axis=0)).ravel()[: len(values)]


def nearby_median(values: F8, per_day: int, half_days: int, half_slots: int) -> F8:
    """Median over the slots s - half_slots ... s + half_slots of the days d - half_days ... d + half_days, (n,)."""
    # Medians of medians: exact enough for a scale, and a tenth of the work.
    across = np.pad(same_slot_median(values, per_day, half_days), half_slots, constant_values=np.nan)
    return median(sliding_window_view(across, 2 * half_slots + 1))


def tail_limit(sizes: F8, power: float, *, low: float = 0.8, high: float = 0.95) -> float:
    """How far sizes >= 0 of the usual kind reach: q_high x (q_high / q_low) ** power; infinity where too few are known.

    The ratio of two quantiles measures how heavy the tail is (a normal one: 1.53), and neither quantile moves when
    one value in fifty is an error.
    """
    finite = sizes[np.isfinite(sizes)]
    if len(finite) < 200:
        return float("inf")
    q_low, q_high = np.quantile(finite, [low, high])
    if q_low <= 0:
        return float("inf")
    return float(q_high * (q_high / q_low) ** power)


def runs(mask: B1) -> tuple[I8, I8]:
    """Starts and ends (exclusive) of the runs of true."""
    edge = np.diff(np.r_[False, mask, False].astype(np.int8))
    return np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)


def nearest_finite(values: F8) -> tuple[I8, I8]:
    """For each place the last finite place before it and the first one after it, itself excluded; -1 and n: none."""
    n = len(values)
    place = np.where(np.isfinite(values), np.arange(n), -1)
    before = np.r_[-1, np.maximum.accumulate(place)[:-1]] if n else place
    place = np.where(np.isfinite(values), np.arange(n), n)
    after = np.r_[np.minimum.accumulate(place[::-1])[::-1][1:], n] if n else place
    return before, after
