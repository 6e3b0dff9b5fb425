"""Load histories made fit for learning: gaps, zero runs, stuck values, spikes and level faults found and filled.

Only values up to the end of the array are looked at, so that a history cut at the issue time cannot know what came
later. The thresholds are the series' own: a jump that is rare on a region is ordinary in a steel works. A pattern that
stands at the same slot every day (a saw-tooth at the full hour, a shift change) or every week (a works that rests from
Saturday to Monday) is the series' shape and not a fault.
What is filled is marked; a forecast is always scored against the values as delivered.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..masks import B1, F8

NEIGHBOURS: Final = 4  # slots either side of the running median
SPIKE_MIN: Final = 0.10  # of the load: nothing smaller is called a spike
STEP_MIN: Final = 0.18
SIGMAS: Final = 7.0
LEVEL_DAYS: Final = 2.0  # a longer change of level is the new level
OPEN_MIN: Final = 0.30  # a step without an end yet must be larger
TOO_JUMPY: Final = 0.5  # a series that jumps this much by itself has no faults that could be told apart
STUCK_SLOTS: Final = 4
WEEK: Final = 7  # days
SHORT: Final = 3  # slots of a hole that a straight line may fill


@dataclass(frozen=True, slots=True)
class Cleaned:
    """value (days, slots): no hole up to `known` slots, NaN after; faulty: slots whose value was missing or refused."""

    value: F8
    faulty: B1


def clean(x: F8, rest: B1, known: int, reference: F8 | None = None) -> Cleaned:
    """Clean a history. x (days, slots) with NaN; rest (days,); known: number of leading slots that may be looked at.

    reference (days, slots): what was expected, e.g. forecasts issued earlier, NaN where there is none; used to fill.
    A history without a single value comes back all NaN.
    """
    days, slots = x.shape
    value = x.copy()
    value.reshape(-1)[known:] = np.nan
    past = np.arange(days * slots).reshape(days, slots) < known
    if not np.isfinite(value).any():
        return Cleaned(value, past)
    for refuse in (_zeros, _stuck):
        value[refuse(value)] = np.nan
    if np.isfinite(value).sum() >= 3 * slots:
        for refuse in (_levels, _spikes, _levels):  # a step of level is no spike: its neighbours are sound
            value[refuse(value)] = np.nan
    faulty = past & ~np.isfinite(value)
    return Cleaned(_fill(value, rest, past, reference), faulty)


def _floor(value: F8) -> float:
    some = np.abs(value[np.isfinite(value)])
    return float(max(0.02 * np.median(some), 1e-9)) if len(some) else 1e-9


def _median(a: F8, axis: int) -> F8:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a slot without any value stays NaN
        out: F8 = np.nanmedian(a, axis=axis)
    return out


def _zeros(value: F8) -> B1:
    """Zero and negative runs of a series that otherwise never comes near zero."""
    some = value[np.isfinite(value)]
    low: B1 = np.isfinite(value) & (value <= 0)
    typical = float(np.median(some))
    if typical <= 0 or (some <= 0.1 * typical).mean() > 0.05:
        return np.zeros_like(low)
    return low


def _stuck(value: F8) -> B1:
    """Runs of one repeated value in a series whose neighbours are hardly ever equal."""
    flat = value.reshape(-1)
    same = np.r_[False, flat[1:] == flat[:-1]]
    pairs = int(np.isfinite(flat[1:] + flat[:-1]).sum())
    share = same.sum() / max(pairs, 1)
    # long faults raise the share themselves: judge by how often an equal pair begins
    begins = (same & ~np.r_[False, same[:-1]]).sum() / max(pairs, 1)
    if begins > 0.01 or share > 0.5:
        return np.zeros(value.shape, np.bool_)
    out = np.zeros(len(flat), np.bool_)
    for begin, end in _runs(same):
        if end - begin + 1 >= STUCK_SLOTS:
            out[begin:end] = True  # the first value of the run is a real reading
    return out.reshape(value.shape)


def _runs(mask: B1) -> list[tuple[int, int]]:
    edge = np.diff(np.r_[0, mask.astype(np.int8), 0])
    return list(zip(np.flatnonzero(edge == 1).tolist(), np.flatnonzero(edge == -1).tolist(), strict=True))


def _log(value: F8) -> F8:
    return np.log(np.maximum(value, _floor(value)))


def _scale(a: F8) -> F8:
    """Robust spread by slot (1, slots): never below the series' own."""
    spread = 1.4826 * _median(np.abs(a), 0)
    return np.maximum(np.nan_to_num(spread), np.nan_to_num(_median(spread, 0)))[None, :]


def _spikes(value: F8) -> B1:
    """Short runs far off their neighbours, beyond what that slot does on other days."""
    days, slots = value.shape
    log = _log(value).reshape(-1)
    padded = np.r_[np.full(NEIGHBOURS, np.nan), log, np.full(NEIGHBOURS, np.nan)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBOURS + 1)
    around = _median(windows, 1)
    beside = [np.isfinite(side).sum(axis=1) for side in (windows[:, :NEIGHBOURS], windows[:, NEIGHBOURS + 1 :])]
    one_sided = np.minimum(*beside) < 2  # beside a hole a slope would look like a spike
    off = np.where(one_sided, np.nan, log - around).reshape(days, slots)
    off = off - np.nan_to_num(_median(off, 0))[None, :]
    spread = _scale(off)
    if SIGMAS * float(np.median(spread)) > TOO_JUMPY:
        return np.zeros(value.shape, np.bool_)
    off = _judged_alike(off, log, padded)
    found: B1 = np.isfinite(off) & (np.abs(off) > np.maximum(SPIKE_MIN, SIGMAS * spread))
    for days_off in (-WEEK, WEEK):
        with np.errstate(invalid="ignore"):
            found &= ~(np.abs(off - _shifted(off, days_off)) < 0.5 * np.abs(off))
    return found


def _judged_alike(off: F8, log: F8, padded: F8) -> F8:
    """The newest values have no neighbours behind them yet: they are measured like the same slots of other days, which
    are given no more neighbours than these.
    """
    days, slots = off.shape
    good = np.flatnonzero(np.isfinite(log))
    out = off.copy()
    for behind in range(min(NEIGHBOURS, len(good))):
        at = int(good[-1]) - behind
        if at < 0:
            break
        same = np.arange(days) * slots + at % slots
        window = padded[same[:, None] + np.arange(NEIGHBOURS + behind + 1)]
        own = log[same] - _median(window, 1)
        out[at // slots, at % slots] = own[at // slots] - float(np.nan_to_num(_median(own, 0)))
    return out


def _shifted(a: F8, days: int) -> F8:
    """Row i + days in row i, NaN where there is none."""
    out = np.full(a.shape, np.nan)
    if abs(days) < len(a):
        if days > 0:
            out[:-days] = a[days:]
        else:
            out[-days:] = a[:days]
    return out


def _levels(value: F8) -> B1:
    """Runs up to LEVEL_DAYS that an abrupt step begins and the opposite step ends (or the end of the history)."""
    slots = value.shape[1]
    log = _log(value)
    off = (log - _median(log, 0)[None, :]).reshape(-1)
    out = np.zeros(len(off), np.bool_)
    at = np.flatnonzero(np.isfinite(off))
    step = np.full(len(off), np.nan)
    step[at[1:]] = np.diff(off[at])
    grid = step.reshape(value.shape)
    spread = _scale(grid - np.nan_to_num(_median(grid, 0))[None, :])
    if SIGMAS * float(np.median(spread)) > TOO_JUMPY:
        return out.reshape(value.shape)
    limit = np.maximum(STEP_MIN, SIGMAS * spread)
    edges = np.flatnonzero((np.abs(np.nan_to_num(grid)) > limit).reshape(-1))
    after = 0
    for k, begin in enumerate(edges.tolist()):
        size = step[begin]
        if begin < after:
            continue
        later = edges[k + 1 :]
        later = later[later - begin <= LEVEL_DAYS * slots]
        back = later[np.abs(step[later] + size) < 0.35 * abs(size)]
        if len(back):
            after = int(back[0])
        elif at[-1] + 1 - begin <= LEVEL_DAYS * slots and abs(size) > OPEN_MIN:
            after = int(at[-1]) + 1
        else:
            continue
        before = off[max(begin - slots // 4, 0) : begin]
        before = before[np.isfinite(before) & ~out[max(begin - slots // 4, 0) : begin]]
        inside = off[begin:after]
        moved = float(np.nanmedian(inside) - np.median(before)) if len(before) else 0.0
        if any(_alike(log.reshape(-1), begin, after, k * WEEK * slots, 0.5 * abs(size)) for k in (-1, 1)):
            after = 0
            continue
        # the whole run must have moved with the step, away from the usual level and not back to it
        if moved * size > 0 and abs(moved) > 0.5 * abs(size) and abs(np.nanmedian(inside)) > 0.5 * abs(size):
            out[begin:after] = True
        else:
            after = 0
    return out.reshape(value.shape)


def _alike(log: F8, begin: int, end: int, shift: int, limit: float) -> bool:
    """Whether the same stretch a week before or after stands at the same level: then it is the week's shape."""
    if begin + shift < 0 or end + shift > len(log):
        return False
    gap = log[begin:end] - log[begin + shift : end + shift]
    gap = gap[np.isfinite(gap)]
    return len(gap) > 0 and abs(float(np.median(gap))) < limit


def _fill(value: F8, rest: B1, past: B1, reference: F8 | None) -> F8:
    """Short holes by a straight line, longer ones by the expected shape moved to the values beside the hole."""
    days, slots = value.shape
    flat = value.reshape(-1).copy()
    hole = past.reshape(-1) & ~np.isfinite(flat)
    if not hole.any():
        return value
    good = np.flatnonzero(np.isfinite(flat))
    shape = _usual(value, rest)
    if reference is not None:
        shape = np.where(np.isfinite(reference), reference, shape)
    expected = shape.reshape(-1)
    for begin, end in _runs(hole):
        inner = begin > good[0] and end <= good[-1]
        if end - begin <= SHORT and inner:
            flat[begin:end] = np.interp(np.arange(begin, end), good, flat[good])
            continue
        # the ends say how far the level is from the expected one; it fades over a quarter of a day
        fade = slots / 4
        ratio = []
        for near in (good[(good < begin) & (good >= begin - slots // 12)], good[(good >= end)][: slots // 12]):
            base = expected[near].mean() if len(near) else 0.0
            ratio.append(float(np.clip(flat[near].mean() / base, 0.5, 2.0)) if base > 0 else 1.0)
        i = np.arange(begin, end)
        weight_left, weight_right = np.exp(-(i - begin) / fade), np.exp(-(end - 1 - i) / fade)
        flat[begin:end] = expected[i] * (
            1 + (ratio[0] - 1) * weight_left + (ratio[1] - 1) * weight_right * (end < len(flat))
        )
    return flat.reshape(days, slots)


def _usual(value: F8, rest: B1) -> F8:
    """The expected curve of every day: median of up to eight nearest days of the same kind, else of any day."""
    out = np.full(value.shape, np.nan)
    whole = _median(value, 0)
    whole = np.where(np.isfinite(whole), whole, np.nan_to_num(_median(whole[None, :], 1))[0])
    holes = np.flatnonzero(~np.isfinite(value).all(axis=1))
    for day in holes:
        alike = np.flatnonzero((rest == rest[day]) & (np.isfinite(value).mean(axis=1) > 0.5))
        alike = alike[alike != day]
        nearest = alike[np.argsort(np.abs(alike - day), kind="stable")[:8]]
        curve = _median(value[nearest], 0) if len(nearest) else whole
        out[day] = np.where(np.isfinite(curve), curve, whole)
    return out
