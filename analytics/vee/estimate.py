"""Estimation of missing energy (domain chapter 6): the order EST1-EST4, and totals made exact by registers (EST5).

Energy only: U, I, PF and demand are never estimated. Arrays are kWh (points, slots) over any span; give a neighbouring
day on each side, so that a gap at midnight has its neighbours. Estimates carry their quality; nothing is overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ...model.quality import Quality
from ..masks import B1, F8, I2, I8

LINEAR_H: Final = 2
PERSON_DAYS: Final = 7
LIKE_DAYS: Final = 3
_GOOD: Final = (Quality.A, Quality.U)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """kwh (points, slots), NaN where nothing could be said; quality; needs_person: gaps longer than seven days."""

    kwh: F8
    quality: I2
    needs_person: B1


def like_day_mean(history: F8, usable: B1) -> F8:
    """Mean of each slot over the 3 most recent like days that have it, (points, slots); NaN where fewer than one.

    history (points, days, slots), most recent day first, NaN = missing; usable (points, days): same day type, within
    90 days, no outage, control or holiday day. The caller chooses days; a day lends only the slots it has.
    """
    there = np.isfinite(history) & usable[:, :, None]
    first = there & (np.cumsum(there, axis=1) <= LIKE_DAYS)
    count = first.sum(axis=1)
    total = np.where(first, history, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def gaps(missing: B1) -> tuple[I8, I8]:
    """Start and end (exclusive) of the gap each missing slot lies in, (points, slots); -1 elsewhere."""
    n = missing.shape[-1]
    place = np.broadcast_to(np.arange(n), missing.shape)
    before = np.maximum.accumulate(np.where(missing, -1, place), axis=-1)
    after = np.flip(np.minimum.accumulate(np.flip(np.where(missing, n, place), -1), axis=-1), -1)
    return np.where(missing, before + 1, -1), np.where(missing, after, -1)


def linear(kwh: F8, good: B1, missing: B1, step_s: int) -> F8:
    """EST2: the line between the good neighbours of gaps of at most 2 h, NaN elsewhere.

    good: slots that may be an end point (actual or edited, no outage); a gap at the edge of the array has no neighbour.
    """
    n = kwh.shape[-1]
    start, end = gaps(missing)
    short = missing & (end - start <= LINEAR_H * 3600 // step_s) & (start > 0) & (end < n)
    left, right = np.clip(start - 1, 0, n - 1), np.clip(end, 0, n - 1)
    both = short & np.take_along_axis(good, left, -1) & np.take_along_axis(good, right, -1)
    a, b = np.take_along_axis(kwh, left, -1), np.take_along_axis(kwh, right, -1)
    share = (np.arange(n) - left) / np.maximum(right - left, 1)
    return np.where(both, a + (b - a) * share, np.nan)


def estimate(
    kwh: F8,
    quality: I2,
    *,
    step_s: int,
    outage: B1 | None = None,
    check_kwh: F8 | None = None,
    like_kwh: F8 | None = None,
    profile_kwh: F8 | None = None,
    cumulative_kwh: F8 | None = None,
) -> Estimate:
    """Replace every slot that is M, X or S by the first estimate there is, and settle the sums by registers.

    outage: confirmed outage of the supply (O = 0); check_kwh: check meter or the terminal's own sampling (EST1);
    like_kwh: `like_day_mean` (EST3); profile_kwh: class profile scaled to the point (EST4); cumulative_kwh
    (points, slots + 1): register x K at the slot boundaries as running energy (rollovers and exchanges already
    resolved), NaN where there is none: between two of them the sum of the slots is exact (EST5).
    """
    open_ = ~np.isin(quality, (Quality.A, Quality.U, Quality.O)) | ~np.isfinite(kwh)
    out = np.where(open_, np.nan, kwh)
    code = np.where(open_, Quality.M, quality).astype(np.int16)
    if outage is not None:
        here = open_ & outage
        out, code = np.where(here, 0.0, out), np.where(here, Quality.O, code)
    missing = code == Quality.M
    start, end = gaps(missing)
    needs_person = missing & (end - start > PERSON_DAYS * 86_400 // step_s)
    good = np.isin(code, _GOOD)
    steps = (
        (Quality.E1, check_kwh),
        (Quality.E2, linear(out, good, missing, step_s)),
        (Quality.E3, like_kwh),
        (Quality.E4, profile_kwh),
    )
    for step, values in steps:
        if values is None:
            continue
        here = (code == Quality.M) & ~needs_person & np.isfinite(values)
        out, code = np.where(here, values, out), np.where(here, step, code)
    if cumulative_kwh is not None:
        out, code = exact_sums(out, code.astype(np.int16), cumulative_kwh)
    return Estimate(kwh=out, quality=code.astype(np.int16), needs_person=needs_person)


def exact_sums(kwh: F8, quality: I2, cumulative_kwh: F8) -> tuple[F8, I2]:
    """EST5: between two known registers the estimated slots share what the actual ones leave of ΔR x K.

    The shape is kept; a shape of zeros is spread evenly. A span with a slot that has no value at all, with nothing
    estimated, or whose rest would be negative, stays as it is.
    """
    points, slots = kwh.shape
    known = np.isfinite(cumulative_kwh)
    span = np.cumsum(known, axis=-1)[:, :-1]  # 0: before the first register
    last = known.sum(axis=-1)[:, None]
    closed = (span > 0) & (span < last)
    cell = np.arange(points)[:, None] * (slots + 2) + span
    guessed = np.isin(quality, (Quality.E1, Quality.E2, Quality.E3, Quality.E4))
    size = points * (slots + 2)

    def per_span(values: F8) -> F8:
        sums: F8 = np.bincount(cell.ravel(), weights=values.ravel(), minlength=size)[cell]
        return sums

    shape = np.where(guessed, np.maximum(np.nan_to_num(kwh), 0.0), 0.0)
    total = np.zeros(size)
    row, column = np.nonzero(known)
    follows = np.zeros(len(row), bool)  # the next register is of the same point
    follows[:-1] = row[1:] == row[:-1]
    value = cumulative_kwh[row, column]
    rest = np.zeros(len(row))
    rest[:-1] = value[1:] - value[:-1]
    number = np.cumsum(known, axis=-1)[row, column]
    total[(row * (slots + 2) + number)[follows]] = rest[follows]
    left = total[cell] - per_span(np.where(guessed, 0.0, np.nan_to_num(kwh)))
    holes = per_span((~np.isfinite(kwh)).astype(float)) > 0
    count, mass = per_span(guessed.astype(float)), per_span(shape)
    use = guessed & closed & ~holes & (left >= 0)
    share = np.where(mass > 0, shape / np.where(mass > 0, mass, 1.0), 1.0 / np.maximum(count, 1.0))
    return np.where(use, left * share, kwh), np.where(use, Quality.E5, quality).astype(np.int16)
