"""What a window of interval readings shows about itself: explainable features for the suspicion score (domain 5, TS).

A window is (days, slots) of one meter. All features compare the days before a change with the days after it: theft
begins somewhere. The change is looked for first (`onset`), then each feature asks one question that a person can check
on the curve. Nothing here accuses: an empty home, a new boiler and a new tenant change a curve as well.

Forms of attack the features were made for (published by Jokar et al. 2016 and successors): a constant factor; a factor
for each interval; a register that stands still for hours of each day; the mean times a factor; a flat line; clipped
peaks.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..masks import B1, F8, I8, divide
from ..vee.robust import median

EDGE_DAYS: Final = 10  # days needed on each side of a change
TINY: Final = 1e-6

NAMES: Final = (
    "level", "level_t", "floor", "middle", "upper", "peak", "even", "floor_gap",
    "slot_level", "slot_even", "zero_more", "zero_block", "zero_block_days", "whole_zero",
    "flat", "distinct", "rough", "rough_low", "neighbour", "shape", "shape_now", "days_alike", "peakedness",
    "capped", "cap_level", "spread_day", "spread_change", "change",
    "min_to_mean", "equal_runs", "size", "scan_cap", "scan_cap_level",
)  # fmt: skip


def _log(x: F8, floor: F8 | float) -> F8:
    return np.log(np.maximum(x, floor) + TINY)


def daily(x: F8) -> F8:
    """Course of a window by days: (windows, days, 7) of level, floor, peak, zero share, roughness, neighbour, flatness.

    x: (windows, days, slots), NaN = missing; a day with less than half of its slots is NaN.
    """
    ok = np.isfinite(x)
    count = ok.sum(axis=-1)
    some = count >= x.shape[-1] / 2
    safe = np.where(ok, x, 0.0)
    mean = divide(safe.sum(axis=-1), count.astype(float))
    scale = median(np.where(some, mean, np.nan))[:, None]
    scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1.0)
    ordered = np.sort(np.where(ok, x, np.inf), axis=-1)
    at = np.clip((count * 0.1).astype(np.int64), 0, x.shape[-1] - 1)
    low = np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0]
    low = np.where(np.isfinite(low), low, np.nan)
    high = np.where(ok, x, -np.inf).max(axis=-1)
    high = np.where(np.isfinite(high), high, np.nan)
    zero = divide(((x == 0) & ok).sum(axis=-1).astype(float), count.astype(float))
    pair = ok[..., 1:] & ok[..., :-1]
    step = np.where(pair, np.abs(np.diff(x, axis=-1)), 0.0)
    rough = divide(divide(step.sum(axis=-1), pair.sum(axis=-1).astype(float)), mean)
    off = np.where(ok, x - mean[..., None], 0.0)
    variance = divide((off**2).sum(axis=-1), count.astype(float))
    cover = divide(np.where(pair, off[..., 1:] * off[..., :-1], 0.0).sum(axis=-1), pair.sum(axis=-1).astype(float))
    neighbour = np.where(variance > 1e-9 * mean**2, divide(cover, variance), 0.0)
    out = np.stack(
        [
            _log(mean / scale, 0.02),
            _log(low / scale, 0.02),
            _log(high / scale, 0.05),
            zero,
            np.clip(np.where(mean > 0, rough, 0.0), 0, 2),
            np.clip(neighbour, -1, 1),
            np.clip(np.where(mean > 0, divide(np.sqrt(np.maximum(variance, 0.0)), mean), 0.0), 0, 3),
        ],
        axis=-1,
    )
    return np.where(some[..., None], out, np.nan)


def onset(course: F8) -> tuple[I8, F8]:
    """Day on which the window changes most (its first day after), and how strongly, (windows,).

    course: (windows, days, features). The strength sums, over the features, the squared difference of the two means
    over their common spread: no day, no feature is preferred.
    """
    w, days = course.shape[:2]
    ok = np.isfinite(course)
    safe = np.where(ok, course, 0.0)
    n1 = np.cumsum(ok, axis=1)[:, :-1].astype(float)
    s1 = np.cumsum(safe, axis=1)[:, :-1]
    q1 = np.cumsum(safe**2, axis=1)[:, :-1]
    n, s, q = (
        ok.sum(axis=1, keepdims=True).astype(float),
        safe.sum(axis=1, keepdims=True),
        (safe**2).sum(axis=1, keepdims=True),
    )
    n2, s2, q2 = n - n1, s - s1, q - q1
    m1, m2 = divide(s1, n1), divide(s2, n2)
    within = divide((q1 - n1 * np.nan_to_num(m1) ** 2) + (q2 - n2 * np.nan_to_num(m2) ** 2), n)
    spread = np.maximum(within, 0.0) + 0.02**2
    gain = np.nan_to_num(divide(n1 * n2, n**2) * divide((m1 - m2) ** 2, spread))
    strength = np.log1p(gain).sum(axis=-1)
    at = np.arange(1, days)
    strength = np.where((at >= EDGE_DAYS) & (at <= days - EDGE_DAYS), strength, -np.inf)
    best = strength.argmax(axis=1) if strength.shape[1] else np.zeros(w, np.int64)
    return best + 1, strength[np.arange(w), best]


def _mean(values: F8) -> float:
    """Mean of the finite values, 0 where there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0


def _quantile(x: F8, q: float) -> F8:
    """Quantile over the last axis of the finite values, NaN where there are none."""
    ordered = np.sort(np.where(np.isfinite(x), x, np.inf), axis=-1)
    n = np.isfinite(x).sum(axis=-1)
    at = np.clip(np.rint((n - 1) * q).astype(np.int64), 0, x.shape[-1] - 1)
    out = np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0]
    return np.where(n > 0, out, np.nan)


def features(x: F8) -> tuple[F8, I8]:
    """Features (windows, len(NAMES)) and the day of the change (windows,) of windows (windows, days, slots)."""
    course = daily(x)
    at, strength = onset(course)
    rows = np.array([_one(x[i], course[i], int(at[i])) for i in range(len(x))]).reshape(len(x), -1)
    rows[:, NAMES.index("change")] = np.where(np.isfinite(strength), strength, 0.0)
    return np.nan_to_num(rows, nan=0.0, posinf=9.0, neginf=-9.0), at


def _one(x: F8, course: F8, at: int) -> F8:
    """Features of one window (days, slots) for a change on day `at`; "change" is filled in by the caller."""
    before, after = x[:at], x[at:]
    known_b, known_a = before[np.isfinite(before)], after[np.isfinite(after)]
    if len(known_b) < 100 or len(known_a) < 100:
        return np.zeros(len(NAMES))
    scale = float(known_b.mean()) if known_b.mean() > 0 else _mean(x) + TINY
    floor = 0.02 * scale + TINY

    def ratio(a: float, b: float) -> float:
        return float(np.clip(np.log((a + floor) / (b + floor)), -4, 4))

    level = ratio(known_a.mean(), known_b.mean())
    usual = course[:at, 0][np.isfinite(course[:at, 0])]
    level_t = (_mean(course[at:, 0]) - _mean(usual)) / ((float(usual.std()) if len(usual) else 0.0) + 0.1)
    quantiles = [ratio(*(float(np.quantile(part, q)) for part in (known_a, known_b))) for q in (0.05, 0.5, 0.9, 0.995)]
    even = float(np.std(quantiles))
    slot_ratio = _slot_ratio(before, after, floor)
    zero = [(part == 0).mean() for part in (known_b, known_a)]
    block, block_days = _zero_block(before, after)
    whole_zero = float((np.nan_to_num(after).max(axis=1) <= 0).mean())
    flat = float(np.median(_relative_spread(after)))
    distinct = len(np.unique(known_a)) / np.sqrt(len(known_a))
    usual_distinct = len(np.unique(known_b)) / np.sqrt(len(known_b))
    rough = _mean(course[at:, 4]) - _mean(course[:at, 4])
    rough_low = _roughness_low(after) - _roughness_low(before)
    neighbour = _mean(course[at:, 5]) - _mean(course[:at, 5])
    profile = _profile(before)
    shape = _likeness(after, profile) - _likeness(before, profile)
    now = _likeness(after, _profile(after))
    alike = now - _likeness(before, profile)
    top = [float(np.quantile(part, 0.995)) / (float(np.quantile(part, 0.5)) + floor) for part in (known_b, known_a)]
    capped, cap_level = _cap(known_b, known_a)
    spread_b, spread_a = float(np.median(_relative_spread(before))), flat
    lowest = float(np.quantile(known_a, 0.02)) / (float(known_a.mean()) + floor)
    equal = [
        float((np.diff(part) == 0)[part[1:] > 0].mean()) if (part[1:] > 0).any() else 0.0 for part in (known_b, known_a)
    ]
    scan = _scan_cap(x)
    return np.array(
        [
            level, float(np.clip(level_t, -8, 8)), quantiles[0], quantiles[1], quantiles[2], quantiles[3], even,
            quantiles[0] - quantiles[2], *slot_ratio, zero[1] - zero[0], block, block_days, whole_zero,
            min(flat, 3.0), float(np.log((distinct + 0.1) / (usual_distinct + 0.1))), rough, rough_low, neighbour,
            shape,
            now, alike, float(np.log((top[1] + 0.5) / (top[0] + 0.5))), capped, cap_level, spread_b,
            float(np.clip(spread_a - spread_b, -3, 3)), 0.0, lowest, equal[1] - equal[0],
            float(np.clip(np.log(scale + TINY), -6, 3)), *scan,
        ]
    )  # fmt: skip


def _slot_ratio(before: F8, after: F8, floor: float) -> tuple[float, float]:
    """Median over the slots of the day of log(after/before) of their medians, and how much the slots differ."""
    b, a = _quantile(before.T, 0.5), _quantile(after.T, 0.5)
    each = np.clip(np.log((a + floor) / (b + floor)), -4, 4)
    each = each[np.isfinite(each)]
    if not len(each):
        return 0.0, 0.0
    middle = float(np.median(each))
    return middle, float(np.median(np.abs(each - middle)))


def _zero_block(before: F8, after: F8) -> tuple[float, float]:
    """Hours' share of the longest daily standstill that came with the change while the rest of the day still runs.

    Second: the share of days that have a standstill of 4 to 16 hours beside a running rest.
    """
    zero_a, zero_b = _share_zero(after), _share_zero(before)
    slots = after.shape[1]
    still = (zero_a > 0.9) & (zero_b < 0.5)
    rest = ~still
    running = _mean((zero_a[rest] < 0.5).astype(float))
    twice = np.r_[still, still]
    longest = best = 0
    for s in twice:
        longest = longest + 1 if s else 0
        best = max(best, longest)
    block = min(best, slots) / slots if still.any() and not still.all() else 0.0
    zero = (after == 0).sum(axis=1) / slots
    days = float(((zero >= 4 / 24 - 0.02) & (zero <= 17 / 24)).mean())
    zero = (before == 0).sum(axis=1) / slots
    usual = float(((zero >= 4 / 24 - 0.02) & (zero <= 17 / 24)).mean())
    return block * running, days - usual


def _share_zero(part: F8) -> F8:
    ok = np.isfinite(part)
    return divide(((part == 0) & ok).sum(axis=0).astype(float), ok.sum(axis=0).astype(float))


def _relative_spread(part: F8) -> F8:
    """Standard deviation over mean of each day."""
    ok = np.isfinite(part)
    n = np.maximum(ok.sum(axis=1), 1)
    mean = np.where(ok, part, 0.0).sum(axis=1) / n
    off = np.where(ok, part - mean[:, None], 0.0)
    return np.where(mean > 0, np.sqrt((off**2).sum(axis=1) / n) / np.maximum(mean, TINY), 0.0)


def _roughness_low(part: F8) -> float:
    """How much the readings of quiet hours differ from one interval to the next, relative to themselves.

    A standby load repeats itself; a factor drawn for each interval makes it dance.
    """
    flat = part.ravel()
    known = flat[np.isfinite(flat)]
    if not len(known):
        return 0.0
    low = flat <= np.quantile(known, 0.4)
    pair = low[1:] & low[:-1] & (flat[1:] > 0) & (flat[:-1] > 0)
    if pair.sum() < 20:
        return 0.0
    return float(np.median(np.abs(np.log(flat[1:][pair] / flat[:-1][pair]))))


def _profile(part: F8) -> F8:
    profile = _quantile(part.T, 0.5)
    mean = divide(np.where(np.isfinite(part), part, 0.0).sum(axis=0), np.isfinite(part).sum(axis=0).astype(float))
    both: F8 = np.nan_to_num(0.5 * profile + 0.5 * mean)
    centred: F8 = both - both.mean()
    return centred


def _likeness(part: F8, profile: F8) -> float:
    """Median correlation of the days with a daily profile; 0 for flat days."""
    ok: B1 = np.isfinite(part)
    n = np.maximum(ok.sum(axis=1), 1)
    off = np.where(ok, part - (np.where(ok, part, 0.0).sum(axis=1) / n)[:, None], 0.0)
    size = np.sqrt((off**2).sum(axis=1) * (profile**2).sum())
    return float(np.median(np.where(size > 0, (off * profile).sum(axis=1) / np.maximum(size, 1e-12), 0.0)))


def _cap(before: F8, after: F8) -> tuple[float, float]:
    """Readings after the change that stand exactly at their maximum, and that maximum against the usual peak."""
    top = float(after.max())
    if top <= 0:
        return 0.0, 0.0
    share = float((after >= top - 5e-4 * max(top, 1e-3)).sum()) - 1.0
    usual = float(np.quantile(before, 0.995))
    own = float((before >= before.max() - 5e-4).sum()) - 1.0
    lower = float(np.clip(np.log((top + TINY) / (usual + TINY)), -4, 4))
    return float(np.log1p(max(share, 0.0)) - np.log1p(max(own, 0.0))), lower


def _scan_cap(x: F8) -> tuple[float, float]:
    """The clearest cap of any onset: readings that stand at the maximum of all days from there on, against before.

    Returns log(1 + such readings beyond the first), less the same for the days before, and log of the cap over the
    99.5 % value of the days before. A true load reaches its maximum once.
    """
    days = len(x)
    known = np.nan_to_num(x)
    top_day = known.max(axis=1)
    from_end = np.maximum.accumulate(top_day[::-1])[::-1]
    best = (0.0, 0.0)
    for d in np.unique(np.r_[np.arange(EDGE_DAYS, days - EDGE_DAYS, 2)]).tolist():
        top = float(from_end[d])
        if top <= 0 or top >= float(top_day[:d].max()) * 0.98:
            continue
        at_top = int((known[d:] >= top - 5e-4 * max(top, 1.0)).sum()) - 1
        value = float(np.log1p(at_top))
        if at_top >= 3 and value > best[0]:
            usual = float(np.quantile(known[:d], 0.995))
            best = (value, float(np.clip(np.log((top + TINY) / (usual + TINY)), -4, 4)))
    return best
