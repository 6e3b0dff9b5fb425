"""Month power factor (力率) and its effect on the bill: domain 4.8, in integers throughout.

cosφ is hundredths (90 = 0.90), the adjustment hundredths of a percent (-75 = -0.75 %): the tariff is a step table, and
a float that misses a step by 1e-16 changes money. Reverse reactive energy adds by absolute value, never netted.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from .masks import B1, F8, I2, I8, divide

NULL: Final = -1


def month_cos(active: F8, reactive_forward: F8, reactive_reverse: F8) -> I2:
    """Month cosφ in hundredths, rounded half-up; NULL (-1) where a figure is missing or no energy flowed.

    kWh and kvarh of the month (points,); reactive: quadrants I + IV while importing.
    """
    p = np.abs(active)
    q = np.abs(reactive_forward) + np.abs(reactive_reverse)
    s = np.hypot(p, q)
    exact = 100.0 * divide(p, s)
    known = np.isfinite(exact)
    safe = np.where(known, exact, 0.0)
    cos = np.floor(safe + 0.5).astype(np.int64)
    # A float cannot decide a tie; the few values that stand on one are decided in whole numbers.
    for i in np.flatnonzero(known & (np.abs(safe + 0.5 - np.rint(safe + 0.5)) < 1e-9)):
        cos.flat[i] = _half_up(float(np.ravel(p)[i]), float(np.ravel(q)[i]))
    return np.where(known, cos, NULL).astype(np.int16)


def _half_up(p: float, q: float) -> int:
    """Largest n with (2n - 1) / 200 <= p / sqrt(p² + q²), exactly."""
    (pn, pd), (qn, qd) = p.as_integer_ratio(), q.as_integer_ratio()
    p2, q2 = (pn * qd) ** 2, (qn * pd) ** 2
    n = 100
    while n > 0 and (2 * n - 1) ** 2 * (p2 + q2) > 40_000 * p2:
        n -= 1
    return n


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("power_factor.toml").read_text(encoding="utf-8"))


@cache
def _adjustments(standard: int) -> tuple[int, ...]:
    """Adjustment for cosφ 0 ... 100 hundredths."""
    table = _table()
    row = next((r for r in table["standard"] if r["cos"] == standard), None)
    if row is None:
        raise ValueError(f"no tariff for the power factor standard {standard / 100:.2f}: use 0.90, 0.85, 0.80 or none")
    steps = [(p["from"], p["each"]) for p in table["penalty"]]
    ends = [s[0] for s in steps[1:]] + [100]
    slow, fast = table["reward"]["slow"], table["reward"]["fast"]

    def one(cos: int) -> int:
        short = standard - cos
        if short > 0:
            return sum(
                each * (min(short, end) - begin)
                for (begin, each), end in zip(steps, ends, strict=True)
                if short > begin
            )
        top = min(cos, row["cap"])
        slowly = max(min(top, row["fast_from"]) - standard, 0)
        return -int(slow * slowly + fast * (top - standard - slowly))

    return tuple(one(cos) for cos in range(101))


def adjustment(cos: I2, standard: I2) -> tuple[I8, B1]:
    """Adjustment in hundredths of a percent (+ penalty, - reward) and where there is one (cosφ known, standard > 0)."""
    cos, standard = np.broadcast_arrays(cos, standard)
    out = np.zeros(cos.shape, np.int64)
    applies = (cos >= 0) & (standard > 0)
    for s in np.unique(standard[applies]):
        here = applies & (standard == s)
        out[here] = np.array(_adjustments(int(s)))[cos[here]]
    return out, applies


def compensation_kvar(p_kw: F8, cos_now: F8, cos_wanted: F8) -> F8:
    """Capacitor power Qc = P (tan φ1 - tan φ2) that lifts cosφ from `cos_now` to `cos_wanted` (domain 4.10)."""

    def tan(cos: F8) -> F8:
        return divide(np.sqrt(np.maximum(1.0 - np.square(cos), 0.0)), cos)

    return np.asarray(p_kw) * (tan(np.asarray(cos_now)) - tan(np.asarray(cos_wanted)))


INSTANT_FROM: Final = 0.05


def instant_cos(p_kw: F8, s_kva: F8, amps: F8, rated_a: F8, running_kva: F8) -> F8:
    """P / S of each slot (points, slots), NaN unless I >= 5 % In and P >= 5 % S_run (domain 4.8): below it is noise.

    amps: the largest phase current of the slot, of the same side as rated_a (points,); running_kva (points,).
    """
    with np.errstate(invalid="ignore"):
        use = (amps >= INSTANT_FROM * rated_a[:, None]) & (np.abs(p_kw) >= INSTANT_FROM * running_kva[:, None])
    return np.where(use, divide(np.abs(p_kw), s_kva), np.nan)
