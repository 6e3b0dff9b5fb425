"""Figures of orderly power use (有序用电): level of a shortage and what an order achieved (domain 8.2, 8.10).

The level is announced by the authority; `gap_level` is a suggestion only.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from .masks import B1, F8


class GapLevel(IntEnum):
    """I 特别严重 red from 20 %, II 严重 orange from 10 %, III 较重 yellow from 5 %, IV 一般 blue above 0."""

    NONE = 0
    I = 1  # noqa: E741 - the field's own numerals
    II = 2
    III = 3
    IV = 4


def gap_level(gap: float, maximum: float) -> tuple[GapLevel, float]:
    """(suggested level, gap / maximum) of a shortage against the period's maximum demand; both in one unit.

    ValueError: a maximum that is not above zero.
    """
    if not maximum > 0:
        raise ValueError("the maximum demand of the period must be above zero")
    share = gap / maximum
    # the ratio as whole ten-thousandths: 80 of 800 is level II on every machine
    points = round(share * 10_000)
    for level, least in ((GapLevel.I, 2000), (GapLevel.II, 1000), (GapLevel.III, 500)):
        if points >= least:
            return level, share
    return (GapLevel.IV if gap > 0 else GapLevel.NONE), share


def execution_rate(required_kw: F8, actual_kw: F8, proven: B1 | None = None) -> tuple[float, float]:
    """(执行率 = sum of min(r, R) / sum of R, sum of r / sum of R); NaN where nothing was required.

    Over-delivery of one customer does not pay for another. A customer whose reduction is not proven (NaN, or `proven`
    false) counts as zero; a negative reduction (load rose) counts as zero in the rate, as it is in the second figure.
    """
    known = np.isfinite(actual_kw) if proven is None else proven & np.isfinite(actual_kw)
    actual = np.where(known, actual_kw, 0.0)
    total = float(required_kw.sum())
    if total <= 0:
        return float("nan"), float("nan")
    return float(np.clip(actual, 0.0, required_kw).sum()) / total, float(actual.sum()) / total
