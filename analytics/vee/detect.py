"""Errors in one curve without registers: zeros, frozen values, catch-up sums, spikes, scaled stretches.

The rules of domain chapter 6 need registers, limits and a contract; a bare curve has none of them. Here the curve
judges itself: every limit is taken from its own noise (`robust.tail_limit`), so that a region's curve is judged to a
few percent and a workshop's hardly at all. What cannot be told from the curve's usual behaviour is not flagged.

Arrays are (n,) on a regular grid, NaN = missing. `y` is arcsinh(x / scale): a logarithm for loads well above zero, a
straight line around zero, so that zero and negative loads need no special case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from ..masks import B1, F8, I2, I8
from .likedays import like_days
from .robust import nearby_median, nearest_finite, runs, same_slot_median, tail_limit

HALF_DAYS: Final = 10  # days on each side that tell what a slot usually does
LONGEST_ZERO_D: Final = 7  # longer zeros are an empty home or a shut plant, not a fault of reading
LONGEST_STRETCH_D: Final = 14
STUCK_FROM: Final = 4
# Scales that meters and converters really go wrong by; an estimate close to one of them is that one.
USUAL_FACTORS: Final = np.array([0.1, 0.2, 0.25, 1 / 3, 0.5, 2 / 3, 1.5, 2.0, 3.0, 4.0, 5.0, 10.0])


class Kind(IntEnum):
    """What a value of a curve was found to be."""

    GOOD = 0
    GAP = 1
    SPIKE = 2
    ZERO = 3
    STUCK = 4
    SCALED = 5
    CATCHUP = 6
    RANGE = 7


@dataclass(slots=True)
class Findings:
    """kind int16 (n,); factor (n,): what SCALED values were multiplied by; total (n,): 1 + index of the catch-up value
    whose sum covers this slot, 0 = none. Filled step by step by `detect`."""

    kind: I2
    factor: F8
    total: I8


@dataclass(frozen=True, slots=True)
class Scale:
    """The transform of a curve."""

    unit: float

    def to_y(self, x: F8) -> F8:
        """x as a level where a factor is (nearly) a sum."""
        return np.arcsinh(x / self.unit)

    def to_x(self, y: F8) -> F8:
        """Back to the unit of the curve."""
        return np.sinh(y) * self.unit


def scale_of(x: F8) -> Scale:
    """A tenth of the median size of the values that are not zero; 1 where there are none."""
    sizes = np.abs(x[np.isfinite(x) & (x != 0)])
    return Scale(float(np.median(sizes)) / 10.0 if len(sizes) else 1.0)


def detect(x: F8, per_day: int) -> Findings:
    """All errors of the curve x (n,), per_day slots a day."""
    found = Findings(np.zeros(len(x), np.int16), np.ones(len(x)), np.zeros(len(x), np.int64))
    found.kind[~np.isfinite(x)] = Kind.GAP
    if np.isfinite(x).sum() < 2 * per_day:
        return found
    scale = scale_of(x)
    found.kind[out_of_range(x)] = Kind.RANGE
    found.kind[zero_runs(x, per_day) & (found.kind == 0)] = Kind.ZERO
    found.kind[stuck_runs(x, per_day) & (found.kind == 0)] = Kind.STUCK
    y = scale.to_y(x)
    for _ in range(2):
        find_catchups(found, x, y, scale, per_day)
        for first in (True, False, False):
            rest = np.where(found.kind == Kind.GOOD, y, np.nan)
            found.kind[spikes(rest, per_day, first=first)] = Kind.SPIKE
        find_stretches(found, x, y, per_day)
    return found


def out_of_range(x: F8) -> B1:
    """Values beyond everything usual: above 2.5 x the 99.9 % value, or below zero where that is as rare as an error."""
    good = np.isfinite(x)
    sizes = np.abs(x[good])
    if len(sizes) < 1000:
        return np.zeros(len(x), np.bool_)
    top = float(np.quantile(sizes, 0.999))
    heavy = top / max(float(np.quantile(sizes, 0.99)), 1e-12)
    with np.errstate(invalid="ignore"):
        far: B1 = good & (np.abs(x) > top * max(2.5, heavy**2))
        negative = good & (x < 0)
        if negative.mean() < 0.002:
            far |= negative & (x < -1e-3 * top)
    return far


def zero_runs(x: F8, per_day: int) -> B1:
    """Runs of exact zeros in a curve that never comes near zero otherwise, or hardly ever is zero."""
    zero = x == 0
    flagged = np.zeros(len(x), np.bool_)
    if not zero.any():
        return flagged
    sizes = np.abs(x[np.isfinite(x) & ~zero])
    if len(sizes) < per_day:
        return flagged
    floor = float(np.quantile(sizes, 0.01) / np.median(sizes))
    known = int(np.isfinite(x).sum())
    starts, ends = runs(zero)
    ordered = np.sort(sizes)
    # a load that never falls to its last digits does not vanish either; a home that has stood empty may
    based = floor > 0.2 or float(np.quantile(sizes, 0.01)) >= 5.0 * _resolution(ordered, float(ordered[0]))
    based = based and int((ends - starts).max()) <= LONGEST_ZERO_D * per_day
    for a, b in zip(starts.tolist(), ends.tolist(), strict=True):
        elsewhere = (int(zero.sum()) - (b - a)) / known
        rare = elsewhere < 0.0005 or (based and elsewhere < 0.05)
        flagged[a:b] = rare and b - a <= LONGEST_ZERO_D * per_day
    return flagged


def stuck_runs(x: F8, per_day: int) -> B1:
    """Runs of one equal value that the curve's own habit of repeating values does not explain.

    The chance of a repetition is taken from the rest of the curve, at values near the run's own (a standby load
    repeats for hours, the same curve in the evening never does), and from the run's own value elsewhere.
    """
    n = len(x)
    flagged = np.zeros(n, np.bool_)
    same = np.r_[False, (x[1:] == x[:-1]) & (x[1:] != 0)]
    starts, ends = runs(same)
    starts = starts - 1
    length = ends - starts
    if not len(starts):
        return flagged
    good = np.isfinite(x) & (x != 0)
    values = np.sort(x[good])
    rank = np.searchsorted(values, x) / max(len(values), 1)
    band = np.clip((rank * 10).astype(np.int64), 0, 9)
    # runs long enough to be suspects themselves may not vouch for each other: each counts as a short one
    short = np.minimum(length, STUCK_FROM)
    repeats = np.bincount(band[starts], weights=short - 1, minlength=10)
    pairs = np.maximum(np.bincount(band[good], minlength=10), 1)
    steps = np.abs(np.diff(x))
    for run in np.flatnonzero(length >= STUCK_FROM).tolist():
        a, b = int(starts[run]), int(ends[run])
        where = band[a]
        own = (repeats[where] - (min(b - a, STUCK_FROM) - 1) + 0.5) / (pairs[where] - (b - a) + 1.0)
        at_value = good & (x == x[a])
        at_value[a:b] = False
        again = same & at_value
        # the same value elsewhere: how often did it stay?
        stays = (again.sum() + 20.0 * own) / (at_value.sum() + 20.0)
        # and by the curve's resolution: where it moves by a digit or two anyway, standing still is nothing special
        around = np.r_[steps[max(a - per_day // 2, 0) : a], steps[b : b + per_day // 2]]
        moves = float(np.median(around[np.isfinite(around)])) if np.isfinite(around).any() else 0.0
        digit = _resolution(values, float(x[a]))
        coarse = max(digit / (digit + 2.0 * moves), digit / (digit + abs(float(x[a])) / 8.0))
        chance = min(max(own, stays, coarse, 1e-4), 0.999)
        surprise = -(b - a - 1) * np.log(chance) - np.log(n)
        flagged[a:b] = surprise > 9.0
    return flagged


def _resolution(ordered: F8, value: float) -> float:
    """Usual distance between different values of the curve near `value`; ordered: all values, ascending."""
    at = int(np.searchsorted(ordered, value))
    near = np.unique(ordered[max(at - 1000, 0) : at + 1000])
    return float(np.median(np.diff(near))) if len(near) > 1 else float("inf")


def course(y: F8, per_day: int) -> F8:
    """The usual daily course, as a running sum of each slot's usual step: y - course moves when something happens."""
    step = np.r_[np.nan, np.diff(y)]
    usual = same_slot_median(step, per_day, HALF_DAYS)
    return np.cumsum(np.where(np.isfinite(usual), usual, 0.0))


def _noise(sizes: F8, per_day: int) -> F8:
    """Usual size at this time of day and in these weeks, never below a third of the whole curve's."""
    local = nearby_median(sizes, per_day, HALF_DAYS, max(per_day // 24, 1))
    whole = float(np.nanmedian(sizes)) if np.isfinite(sizes).any() else 0.0
    return np.fmax(np.fmax(local, whole / 3.0), 1e-9)


def spikes(y: F8, per_day: int, *, first: bool) -> B1:
    """Single values that leave their neighbours and come back at once; y with NaN where not usable.

    first: many of them may still be among the values, so that only the lower quantiles can be trusted.
    """
    z = y - course(y, per_day)
    before, after = nearest_finite(z)
    reach = max(per_day // 12, 2)
    at = np.arange(len(y))
    ok = np.isfinite(z) & (before >= 0) & (after < len(y)) & (at - before <= reach) & (after - at <= reach)
    left, right = z[np.maximum(before, 0)], z[np.minimum(after, len(y) - 1)]
    share = (at - before) / np.maximum(after - before, 1)
    off = np.where(ok, z - (left + (right - left) * share), np.nan)
    wide = np.sqrt(np.maximum(after - before, 2) / 2.0)
    size = np.abs(off) / wide
    noise = _noise(size, per_day)
    relative = size / noise
    limit = tail_limit(relative, 2.2, low=0.5, high=0.9) if first else tail_limit(relative, 3.0)
    finite = size[np.isfinite(size)]
    least = float(np.quantile(finite, 0.97 if first else 0.995)) if len(finite) else 0.0
    with np.errstate(invalid="ignore"):
        # on the edge of a step one neighbour agrees with the value and the neighbours disagree with each other
        alone = np.abs(right - left) < 0.7 * np.minimum(np.abs(z - left), np.abs(z - right))
        flagged: B1 = ok & (size > np.maximum(limit * noise, least)) & alone
    return flagged


def find_catchups(found: Findings, x: F8, y: F8, scale: Scale, per_day: int) -> None:
    """The value after a hole that holds the energy of the whole hole: it equals the sum of what was expected."""
    hole = (found.kind == Kind.GAP) | (found.kind == Kind.ZERO)
    rest = np.where(found.kind == Kind.GOOD, y, np.nan)
    good = np.isfinite(rest)
    if good.sum() < per_day:
        return
    rare = float(np.quantile(y[good], 0.998))
    for a, b in zip(*(part.tolist() for part in runs(hole)), strict=True):
        usable = (
            b < len(x) and b - a <= LONGEST_STRETCH_D * per_day and found.kind[b] in (Kind.GOOD, Kind.RANGE, Kind.SPIKE)
        )
        if not usable or not np.isfinite(x[b]) or found.total[b]:
            continue
        cut = rest.copy()
        cut[b] = np.nan
        # quick look first: a catch-up stands far above its neighbours
        nearby = np.nanmedian(cut[max(a - 3, 0) : b + 4]) if np.isfinite(cut[max(a - 3, 0) : b + 4]).any() else np.nan
        if not np.isfinite(nearby) or y[b] - nearby < np.log(1.5):
            continue
        guess = scale.to_x(like_days(cut, a, b + 1, per_day).values)
        total = float(guess.sum())
        if total <= 0 or guess[-1] <= 0:
            continue
        ratio, miss = float(np.log(x[b] / guess[-1])), abs(float(np.log(x[b] / total)))
        if ratio > np.log(1.5) and miss < min(0.35, 0.4 * ratio) and (y[b] > rare or _steady(rest, b, ratio, per_day)):
            found.kind[b] = Kind.CATCHUP
            found.total[a : b + 1] = b + 1


def _steady(rest: F8, at: int, jump: float, per_day: int) -> bool:
    """The curve around `at` never makes such a jump by itself."""
    part = rest[max(at - 14 * per_day, 0) : at + 14 * per_day]
    steps = np.abs(np.diff(part))
    steps = steps[np.isfinite(steps)]
    return len(steps) > per_day and jump > 1.5 * float(np.quantile(steps, 0.999))


def find_stretches(found: Findings, x: F8, y: F8, per_day: int) -> None:
    """Stretches multiplied by a constant: a jump, a like course on another level, and the same jump back."""
    rest = np.where(found.kind == Kind.GOOD, y, np.nan)
    z = rest - course(rest, per_day)
    before, _ = nearest_finite(z)
    at = np.arange(len(y))
    near = np.isfinite(z) & (before >= 0) & (at - before <= per_day // 4)
    jump = np.where(near, z - z[np.maximum(before, 0)], np.nan)
    size = np.abs(jump) / np.sqrt(np.maximum(at - before, 1))
    noise = _noise(size, per_day)
    limit = tail_limit(size / noise, 2.0) * noise
    with np.errstate(invalid="ignore"):
        finite = size[np.isfinite(size)]
        usual_most = float(np.quantile(finite, 0.995)) if len(finite) else np.inf
        limit = np.maximum(limit, max(1.25 * usual_most, 0.15))
        # an edge below that may still count, if all the rest fits exactly
        calm = len(finite) > 0 and float(np.median(finite)) < 0.03
        edges = np.flatnonzero(size > (np.minimum(limit, np.maximum(10.0 * noise, 0.3)) if calm else limit))
    usual = same_slot_median(rest, per_day, HALF_DAYS)
    sharp = size > 1.5 * limit
    used: set[int] = set()
    for a, b in _pairs(edges, jump, LONGEST_STRETCH_D * per_day):
        if a in used or b in used:
            continue
        level = float(jump[a] - jump[b]) / 2.0
        fits = abs(float(jump[a] + jump[b])) < 0.06 + 3.0 * float(noise[a] + noise[b]) and _factor(level)[1]
        exact = bool(sharp[a] and sharp[b]) and fits
        weak = not (size[a] > limit[a] and size[b] > limit[b])
        if weak and not (fits and b - a >= max(per_day // 8, 3)):
            continue
        day = slice(max(a - per_day, 0), a), slice(b, b + per_day)
        outside = np.r_[(rest - usual)[day[0]], (rest - usual)[day[1]]]
        inside = (rest - usual)[a:b]
        if np.isfinite(outside).any() and np.isfinite(inside).any():
            # between two stretches the true course looks like a stretch of the opposite sign
            out, own = float(np.nanmedian(outside)) / level, float(np.nanmedian(inside)) / level
            if not exact and (abs(own - out - 1.0) > 0.5 or (out < -0.6 and abs(own) < 0.4)):
                continue
        if _like_days_moved(
            found, y, a, b, level, per_day, (0.6, 0.5) if exact else (0.2, 0.12) if weak else (0.35, 0.25)
        ):
            used |= {a, b}
            here = np.arange(a, b)[found.kind[a:b] == Kind.GOOD]
            found.kind[here] = Kind.SCALED
            found.factor[here] = _factor(level)[0]


def _factor(level: float) -> tuple[float, bool]:
    """The factor of a level, and whether it is one of the usual ones (then exactly that)."""
    factor = float(np.exp(level))
    miss = np.abs(np.log(USUAL_FACTORS / factor))
    return (float(USUAL_FACTORS[miss.argmin()]), True) if miss.min() < 0.05 else (factor, False)


def _pairs(edges: I8, jump: F8, longest: int) -> Iterator[tuple[int, int]]:
    """(start, end) of two jumps of one size and opposite sign, the nearest partner first."""
    for i, a in enumerate(edges.tolist()):
        for b in edges[i + 1 :].tolist():
            if b - a > longest:
                break
            if jump[a] * jump[b] < 0 and abs(jump[a] + jump[b]) < max(0.12, 0.2 * abs(jump[a])):
                yield a, b
                break  # a longer pair would reach over another event


def _like_days_moved(
    found: Findings, y: F8, a: int, b: int, level: float, per_day: int, allowed: tuple[float, float]
) -> bool:
    """Is the course of [a, b) that of like days moved by `level`? Edges that match `exact`ly need less proof."""
    cut = np.where(found.kind == Kind.GOOD, y, np.nan)
    own = cut[a:b].copy()
    cut[a:b] = np.nan
    expected = like_days(cut, a, b, per_day)
    if expected.days < 0 or not np.isfinite(own).any():
        return False
    moved = (own - expected.values)[np.isfinite(own)]
    middle = float(np.median(moved))
    rough = float(np.median(np.abs(moved - middle)))
    return abs(middle - level) < allowed[0] * abs(level) and rough < allowed[1] * abs(level)
