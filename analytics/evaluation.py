"""What an order of orderly power use achieved: baseline, in place, execution rate, hold, rebound (domain 8.10).

Arrays are (customers, slots) or (customers, days, slots), kW, NaN where nothing is known. Nothing unknown counts as
achieved: a customer without enough measured time is not proven and stands in a list of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from .masks import B1, F8
from .orderly import execution_rate

DAYS: Final = 5  # like days of a baseline
ALIKE: Final = (0.75, 1.25)  # of their mean; other days are dropped
ADJUST: Final = (0.8, 1.2)  # bounds of the adjustment by the hours before
BEFORE_S: Final = (3 * 3600, 3600)  # these hours: from 3 h to 1 h before the start
IN_PLACE: Final = 1.05  # of the limit
IN_PLACE_SHARE: Final = 0.9  # of the valid slots behind the ramp
KNOWN_SHARE: Final = 0.75  # of the window must be measured to prove anything (ours)


@dataclass(frozen=True, slots=True)
class Baseline:
    """kw (n, slots): what each customer would have drawn that day; factor (n,): adjustment; days (n, d): days used."""

    kw: F8
    factor: F8
    days: B1


def baseline(past: F8, allowed: B1, today: F8, start_slot: int, step_s: int = 900) -> Baseline:
    """Mean of the same slot of the five most recent like days, times what the hours before the start say.

    past: (n, d, slots), the most recent day first; allowed: (n, d), false for days with control, outage or holiday and
    for days of another kind. Of the five most recent allowed days with data, the one farthest from their mean is
    dropped, and again, until all lie within 75-125 % of it (one day far out must not drop the ordinary ones).
    today: (n, slots); the factor is its mean from 3 h to 1 h before `start_slot` over the baseline's at the same slots,
    within 0.8 and 1.2; 1 where either is unknown. No day: NaN.
    """
    level = _mean(past, -1)
    usable = allowed & np.isfinite(level)
    days = usable & (np.cumsum(usable, axis=1) <= DAYS)
    row = np.arange(len(days))
    for _ in range(DAYS if days.shape[1] else 0):
        around = _mean(np.where(days, level, np.nan), -1)[:, None]
        off = np.where(days, np.abs(level - around), -1.0)
        worst = off.argmax(axis=1)
        with np.errstate(invalid="ignore"):
            outside = days & ((level < ALIKE[0] * around) | (level > ALIKE[1] * around))
        days[row, worst] &= ~outside[row, worst]
    kw = _mean(np.where(days[:, :, None], past, np.nan), 1)
    first, last = (max(start_slot - s // step_s, 0) for s in BEFORE_S)
    both = np.isfinite(kw[:, first:last]) & np.isfinite(today[:, first:last])
    mine = _mean(np.where(both, today[:, first:last], np.nan), -1)
    base = _mean(np.where(both, kw[:, first:last], np.nan), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.clip(mine / base, *ADJUST)
    factor = np.where(np.isfinite(factor), factor, 1.0)
    return Baseline(kw * factor[:, None], factor, days)


@dataclass(frozen=True, slots=True)
class Achieved:
    """Each customer's (n,) figures; NaN and -1 where unknown.

    reduction_kw: mean of baseline less power; known: share of the window that was measured; proven: enough of it;
    in_place: within the limit; in_place_share: of its valid slots behind the ramp; first: slot in which it first was;
    hold: share of the valid slots from there on; rebound: highest power afterwards (if measured) over the baseline's.
    """

    reduction_kw: F8
    known: F8
    proven: B1
    in_place: B1
    in_place_share: F8
    first: np.ndarray[tuple[int], np.dtype[np.int64]]
    hold: F8
    rebound: F8


def achieved(kw: F8, base: F8, limit_kw: F8, ramp: int, kw_after: F8, base_after: F8) -> Achieved:
    """Figures of the window (n, t) and of the time after the release (n, u).

    limit_kw (n,): what each customer was allowed; ramp: slots until it had to be there (15 min direct, 30 voluntary).
    Slots without a baseline still tell whether the customer was in place.
    """
    n, slots = kw.shape
    valid = np.isfinite(kw)
    both = valid & np.isfinite(base)
    known = both.mean(axis=1) if slots else np.zeros(n)
    inside = valid & (kw <= (limit_kw * IN_PLACE)[:, None])
    behind = valid.copy()
    behind[:, :ramp] = False
    judged = behind.sum(axis=1)
    share = np.full(n, np.nan)
    np.divide((inside & behind).sum(axis=1), judged, out=share, where=judged > 0)
    enough = judged >= KNOWN_SHARE * max(slots - ramp, 1)
    first = np.where(inside.any(axis=1), inside.argmax(axis=1), -1) if slots else np.full(n, -1)
    held = valid & (first >= 0)[:, None] & (np.arange(slots) >= first[:, None])
    hold = np.full(n, np.nan)
    count = held.sum(axis=1)
    np.divide((inside & held).sum(axis=1), count, out=hold, where=count > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        enough_after = np.isfinite(kw_after).sum(axis=1) >= max(KNOWN_SHARE * kw_after.shape[1], 1)
        rebound = _most(kw_after) / _most(np.where(np.isfinite(kw_after), base_after, np.nan))
        in_place = enough & (share >= IN_PLACE_SHARE)
    return Achieved(
        reduction_kw=_mean(np.where(both, base - kw, np.nan), -1), known=known, proven=known >= KNOWN_SHARE,
        in_place=in_place, in_place_share=share, first=first, hold=hold,
        rebound=np.where(enough_after, rebound, np.nan),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Totals:
    """The order as a whole; NaN where nothing was ordered.

    in_place_rate: 到位率 by customers; in_place_kw_rate: by ordered kW; execution: 执行率; delivery: sum of reductions
    over sum of orders (over-delivery included); proven: customers whose reduction is proven.
    """

    customers: int
    proven: int
    in_place_rate: float
    in_place_kw_rate: float
    execution: float
    delivery: float
    required_kw: float
    reduction_kw: float


def totals(found: Achieved, required_kw: F8) -> Totals:
    """Sums over customers; required_kw (n,): what each was to reduce. What is not proven counts as nothing."""
    n, required = len(required_kw), float(required_kw.sum())
    execution, delivery = execution_rate(required_kw, found.reduction_kw, found.proven)
    nothing = float("nan")
    return Totals(
        customers=n, proven=int(found.proven.sum()),
        in_place_rate=float(found.in_place.mean()) if n else nothing,
        in_place_kw_rate=float(required_kw[found.in_place].sum()) / required if required > 0 else nothing,
        execution=execution, delivery=delivery, required_kw=required,
        reduction_kw=float(np.where(found.proven, np.nan_to_num(found.reduction_kw), 0.0).sum()),
    )  # fmt: skip


def _mean(a: F8, axis: int) -> F8:
    """Mean of what is finite; NaN where nothing is."""
    finite = np.isfinite(a)
    count = finite.sum(axis=axis)
    out = np.full(count.shape, np.nan)
    np.divide(np.where(finite, a, 0.0).sum(axis=axis), count, out=out, where=count > 0)
    return out


def _most(a: F8) -> F8:
    """Highest finite value of each row; NaN where there is none."""
    highest = np.where(np.isfinite(a), a, -np.inf).max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(highest), highest, np.nan)
