"""Several learners to one forecast: weights by recent errors, then what the latest residuals say about tomorrow.

Residuals are relative to the level (see features.scale_of), NaN where nothing was issued or nothing is known yet.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..masks import F8, I8
from .features import Issue

WEIGHT_DAYS: Final = 42
SHRINK: Final = 0.3
DRIFT_DAYS: Final = 150
DRIFT_MIN_DAYS: Final = 10
PARTS: Final = 4  # of the day, each with coefficients of its own
# What a residual is believed to say before there is evidence: last day's mean, same slot, week at the slot, last hours.
DRIFT_PRIOR: Final = (0.15, 0.05, 0.15, 0.0)
PRIOR_STRENGTH: Final = 15.0  # in days


def learner_weights(residual: F8) -> F8:
    """(learners, slots') weights from residuals (learners, days, slots'), sum 1, none negative; equal without evidence.

    The minimum-variance combination of the recent errors, drawn towards equal weights, so that two learners that err
    alike share one voice.
    """
    count = residual.shape[0]
    equal = np.full(count, 1.0 / count)
    rows = residual.reshape(count, -1)
    rows = rows[:, np.isfinite(rows).all(axis=0)]
    if rows.shape[1] < 5 * residual.shape[2] or count == 1:
        return equal
    size = np.median(np.abs(rows).min(axis=0)) + 1e-9
    rows = np.clip(rows, -6 * size - 0.05, 6 * size + 0.05)
    covariance = rows @ rows.T / rows.shape[1]
    ridge = max(SHRINK * float(np.trace(covariance)) / count, 1e-18)  # learners without any error are equal
    active = np.ones(count, np.bool_)
    out = equal
    while active.any():
        inner = covariance[np.ix_(active, active)] + ridge * np.eye(int(active.sum()))
        solved = np.linalg.solve(inner, np.ones(int(active.sum())))
        solved = solved / solved.sum()
        out = np.zeros(count)
        out[active] = solved
        if (solved >= 0).all():
            break
        active[np.flatnonzero(active)[int(np.argmin(solved))]] = False
    return out


def drift_features(residual: F8, days: I8, issue: Issue) -> F8:
    """(n, slots, 4): what the residuals (days, slots) known at issue looked like, for each of the days; 0 unknown."""
    slots = residual.shape[1]
    early = np.arange(slots) < issue.slot
    out = np.zeros((len(days), slots, 4))
    flat = residual.reshape(-1)
    hour = max(1, slots // 24)
    width = min(max(1, hour), (slots - 1) // 2)  # the window must not be longer than the day
    kernel = np.ones(2 * width + 1)
    for i, day in enumerate(days):
        end = int(issue.end(int(day), slots))
        if end < slots:
            continue
        last = flat[end - slots : end]
        curve = np.where(
            early, residual[max(day - issue.lead, 0)], residual[max(day - issue.lead - 1, 0)]
        )  # newest value of every slot
        known = np.isfinite(curve)
        if not known.any():
            continue
        smooth = np.convolve(np.where(known, curve, 0.0), kernel, "same")
        smooth = smooth / np.maximum(np.convolve(known.astype(np.float64), kernel, "same"), 1.0)
        begin = max(end - 7 * slots, 0)
        week = flat[begin:end]
        slot = np.arange(begin, end) % slots
        good = np.isfinite(week)
        total = np.bincount(slot[good], weights=week[good], minlength=slots)
        number = np.bincount(slot[good], minlength=slots)
        out[i, :, 0] = np.nanmean(last) if np.isfinite(last).any() else 0.0
        out[i, :, 1] = smooth
        out[i, :, 2] = total / np.maximum(number, 1)
        newest = flat[max(end - 3 * hour, 0) : end]
        out[i, :, 3] = np.nanmean(newest) if np.isfinite(newest).any() else 0.0
    return out


def drift(features: F8, residual: F8, target: F8) -> F8:
    """Expected residual (slots,) of the day described by target (slots, 4).

    features (days, slots, 4) and residual (days, slots) of past days; ridge regression towards DRIFT_PRIOR.
    """
    slots = residual.shape[1]
    prior = np.array(DRIFT_PRIOR)
    out = np.zeros(slots)
    for part in np.array_split(np.arange(slots), min(PARTS, slots)):
        a = features[:, part].reshape(-1, 4)
        b = residual[:, part].reshape(-1)
        good = np.isfinite(b) & np.isfinite(a).all(axis=1)
        coefficients = prior
        if good.sum() >= DRIFT_MIN_DAYS * len(part):
            a, b = a[good], b[good]
            limit = 4 * np.median(np.abs(b)) + 1e-9
            a, b = np.clip(a, -limit, limit), np.clip(b, -limit, limit)
            strength = PRIOR_STRENGTH * len(part) * np.maximum(np.mean(a**2, axis=0), 1e-12)
            coefficients = np.linalg.solve(a.T @ a + np.diag(strength), a.T @ b + strength * prior)
        out[part] = target[part] @ coefficients
    return out
