"""A hole filled from the days that looked most alike around it, joined to the values on both sides.

Like days are not read from a calendar: a holiday week is best told by what stands next to the hole. Every day within
four weeks is shifted onto the hole; the ones whose course before and after differs least from the own one (after
their level is removed) are averaged, and their level is led from the left edge to the right edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..masks import B1, F8

REACH_DAYS = 28
DAYS_USED = 6


@dataclass(frozen=True, slots=True)
class Filling:
    """values (hole,) in the units given; days: how many like days carried it (0: a straight line, -1: nothing)."""

    values: F8
    days: int


def straight(y: F8, a: int, b: int) -> Filling:
    """The straight line between the neighbours of the hole [a, b); one neighbour alone is held; none: NaN."""
    left = y[a - 1] if a > 0 else np.nan
    right = y[b] if b < len(y) else np.nan
    if not np.isfinite(left) and not np.isfinite(right):
        return Filling(np.full(b - a, np.nan), -1)
    left = left if np.isfinite(left) else right
    right = right if np.isfinite(right) else left
    return Filling(left + (right - left) * np.arange(1, b - a + 1) / (b - a + 1), 0)


def like_days(y: F8, a: int, b: int, per_day: int, *, context: int | None = None) -> Filling:
    """Fill the hole [a, b) of y (n,) (NaN = missing); y on a scale where levels add (a logarithm or near it)."""
    n, reach = b - a, context or max(per_day // 3, 4)
    lo, hi = max(a - reach, 0), min(b + reach, len(y))
    shifts = np.array([k for k in range(-REACH_DAYS, REACH_DAYS + 1) if abs(k) * per_day >= n and k], np.int64)
    shifts = shifts[(lo + shifts * per_day >= 0) & (hi + shifts * per_day <= len(y))]
    if not len(shifts):
        return straight(y, a, b)
    segments = y[(np.arange(lo, hi)[None, :] + shifts[:, None] * per_day)]
    hole = slice(a - lo, b - lo)
    difference = y[lo:hi][None, :] - segments
    sides = []
    for part, distance in (
        (difference[:, : a - lo], np.arange(a - lo, 0, -1) - 1),
        (difference[:, b - lo :], np.arange(hi - b)),
    ):
        weight = np.where(np.isfinite(part), np.exp(-distance / (reach / 2)), 0.0)
        total = weight.sum(axis=1)
        known = (weight > 0).sum(axis=1) >= min(3, max(part.shape[1], 1))
        filled = np.where(weight > 0, part, 0.0)
        level = np.where(known, (weight * filled).sum(axis=1) / np.maximum(total, 1e-12), np.nan)
        spread = (weight * (filled - np.where(known, level, 0.0)[:, None]) ** 2).sum(axis=1) / np.maximum(total, 1e-12)
        near = np.exp(-distance / 1.5) * (weight > 0)
        edge = np.where(known, (near * filled).sum(axis=1) / np.maximum(near.sum(axis=1), 1e-12), np.nan)
        # the last values before a hole say more about its edge than the hours before them, where they are there
        edge = np.where(near.sum(axis=1) > 0.2, edge, level)
        sides.append((known, level, spread, edge))
    (known_l, level_l, spread_l, edge_l), (known_r, level_r, spread_r, edge_r) = sides
    whole = np.isfinite(segments[:, hole]).mean(axis=1) > 0.9
    usable = whole & (known_l | known_r)
    if not usable.any():
        return straight(y, a, b)
    both = known_l & known_r
    level_l, edge_l = np.where(known_l, level_l, level_r), np.where(known_l, edge_l, edge_r)
    level_r, edge_r = np.where(known_r, level_r, level_l), np.where(known_r, edge_r, edge_l)
    spread = (np.where(known_l, spread_l, 0) + np.where(known_r, spread_r, 0)) / np.maximum(
        known_l.astype(float) + known_r, 1
    )
    turn = np.where(both, (level_l - level_r) ** 2, 0.0)
    score = np.where(usable, spread + 0.25 * turn, np.inf)
    base = float(np.median(score[usable])) + 1e-9
    ranked = score * (1 + 0.02 * np.abs(shifts)) + 0.3 * base * (shifts % 7 != 0)
    best = np.argsort(ranked, kind="stable")[: min(DAYS_USED, int(usable.sum()))]
    weight = 1.0 / (ranked[best] + 0.02 * base)
    along = np.arange(1, n + 1)[None, :] / (n + 1)
    lead = edge_l[best, None] + (edge_r - edge_l)[best, None] * along
    guesses = segments[best][:, hole] + lead
    there: B1 = np.isfinite(guesses)
    mass = (weight[:, None] * there).sum(axis=0)
    values = (weight[:, None] * np.where(there, guesses, 0.0)).sum(axis=0) / np.where(mass > 0, mass, np.nan)
    if not np.isfinite(values).all():
        line = straight(y, a, b).values
        values = np.where(np.isfinite(values), values, line)
    return Filling(values, len(best))
