"""A single curve cleaned: errors found, replaced, and every value with its quality and the rule that spoke."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...model.quality import Quality
from ..masks import B1, F8, I2
from .detect import Findings, Kind, course, detect, scale_of
from .likedays import like_days, straight
from .robust import runs

SHORT_H = 2  # holes up to two hours are led from neighbour to neighbour (EST2)


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanCurve:
    """final float64 (n,) in the unit of x, NaN where nothing could be said; quality int16; the findings themselves."""

    final: F8
    quality: I2
    found: Findings


def clean_curve(x: F8, per_day: int) -> CleanCurve:
    """Find and replace the errors of x (n,), NaN = missing, on a regular grid of per_day slots a day."""
    found = detect(x, per_day)
    final, quality = repair(x, found, per_day)
    return CleanCurve(final=final, quality=quality, found=found)


def repair(x: F8, found: Findings, per_day: int) -> tuple[F8, I2]:
    """Final values and qualities from the findings.

    SCALED values are divided by their factor (U: edited); a frozen run keeps its first value (S), which was still
    measured; holes of at most two hours follow the usual course between their neighbours (EST2), longer ones like days
    (EST3); a hole whose energy is known from a catch-up value sums up to it exactly (EST5).
    """
    scale = scale_of(x[found.kind == Kind.GOOD] if (found.kind == Kind.GOOD).any() else x)
    final = np.where(found.kind == Kind.SCALED, x / found.factor, x)
    quality = np.where(found.kind == Kind.SCALED, Quality.U, Quality.A).astype(np.int16)
    hole: B1 = ~np.isin(found.kind, (Kind.GOOD, Kind.SCALED))
    for a, _ in zip(*runs(found.kind == Kind.STUCK), strict=True):
        hole[a] = False
        quality[a] = Quality.S
    final[hole] = np.nan
    y = scale.to_y(final)
    lead = course(y, per_day)
    filled = y.copy()
    for a, b in zip(*(part.tolist() for part in runs(hole)), strict=True):
        if b - a <= max(SHORT_H * per_day // 24 // 4, 1):
            values = straight(y - lead, a, b).values + lead[a:b]
            code = Quality.E2
        else:
            values = like_days(y, a, b, per_day).values
            code = Quality.E2 if b - a <= SHORT_H * per_day // 24 else Quality.E3
        filled[a:b] = values
        quality[a:b] = np.where(np.isfinite(values), code, Quality.M)
    final = np.where(hole, scale.to_x(filled), final)
    if not (x[found.kind == Kind.GOOD] < 0).any():
        final = np.where(hole, np.maximum(final, 0.0), final)
    for end in np.unique(found.total[found.total > 0]).tolist():
        part = (found.total == end) & np.isfinite(final)
        total = float(final[part].sum())
        if total > 0:
            final[part] *= x[end - 1] / total
            quality[part] = Quality.E5
    return final, quality
