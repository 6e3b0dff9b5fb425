"""The conditions of the rules over (points, slots): true, cleared, known. Secondary values, per phase (domain 5).

What is not measured is not known; a condition looks only at the phases that a point has (3P3W has no phase B, its
voltages are those between lines and are given in the places of A and C).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..energy import IntervalFlag
from ..masks import B1, F8, I2

LOST, BROKEN, BACK = 0.78, 0.60, 0.85  # of the nominal voltage
OVER: Final = 1.20
DEAD, FLOWS, LOADED = 0.005, 0.05, 0.20  # of the rated current


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One day of a chunk. volts, amps, phase_kw: (3, points, slots) secondary; NaN = not measured, or not of quality A.

    neutral_a, p_kw, q_kvar (points, slots) secondary; load_kw, load_kvar primary; moved: steps of the forward register
    (points, slots), secondary kWh, quantum its least step; nominal_v, rated_a, imax_a, contract_kva, pf_standard: of
    each point, NaN
    where the archive does not say; low, high: band of the voltage as shares of nominal; generates: power may go out;
    suspended (points, slots): registered suspension; apart (points, slots): outage or commissioning, not judged at all.
    """

    volts: F8
    amps: F8
    phase_kw: F8
    neutral_a: F8
    p_kw: F8
    q_kvar: F8
    load_kw: F8
    load_kvar: F8
    moved: F8
    quantum: float
    step_s: int
    nominal_v: F8
    rated_a: F8
    imax_a: F8
    contract_kva: F8
    pf_standard: F8
    low: F8
    high: F8
    four_wire: B1
    generates: B1
    suspended: B1
    apart: B1


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """One day as a whole, arrays (points,), NaN = not known. like_kwh: (points, m) energy of like days.

    flag: IntervalFlag of the forward register; tariff_failed: check K7; peak_a: the day's highest current over rated;
    apart: outage, commissioning, suspension or control on that day: its energy tells nothing of the customer.
    """

    kwh: F8
    export_kwh: F8
    flag: I2
    tariff_failed: B1
    like_kwh: F8
    alive: B1
    peak_a: F8
    generates: B1
    apart: B1


Found = tuple[B1, B1, B1]


def _un(d: Measured) -> F8:
    return d.volts / d.nominal_v[None, :, None]


def _in(d: Measured) -> F8:
    return d.amps / d.rated_a[None, :, None]


def _known(*parts: F8) -> B1:
    """Slots at which some phase is known in all of them."""
    both = np.isfinite(parts[0])
    for part in parts[1:]:
        both &= np.isfinite(part)
    return _any(both)


def _any(x: B1) -> B1:
    found: B1 = np.logical_or.reduce(x, axis=0)
    return found


def _all_lost(u: F8, limit: float) -> B1:
    """Every phase that is measured is below the limit, and more than one is measured."""
    there = np.isfinite(u)
    lost: B1 = np.logical_and.reduce((u < limit) | ~there, axis=0) & (there.sum(axis=0) > 1)
    return lost


def voltage_loss(d: Measured) -> Found:
    """V1."""
    u, i = _un(d), _in(d)
    true = _any((u < LOST) & (i > DEAD)) & ~_all_lost(u, BROKEN)
    return true, ~_any(u <= BACK), _known(u, i)


def phase_break(d: Measured) -> Found:
    """V2."""
    u, i = _un(d), _in(d)
    true = _any((u < BROKEN) & (i < DEAD)) & ~_all_lost(u, BROKEN)
    return true, ~_any(u <= BACK), _known(u, i)


def total_loss(d: Measured) -> Found:
    """V3."""
    u, i = _un(d), _in(d)
    return _all_lost(u, BROKEN) & _any(i > FLOWS), _any(u > BACK), _known(u, i)


def under_voltage(d: Measured) -> Found:
    """V4: what V1 to V3 do not tell already."""
    u, i = _un(d), _in(d)
    told = ((u < LOST) & (i > DEAD)) | ((u < BROKEN) & (i < DEAD))
    true = _any((u < LOST) & ~told) & ~_all_lost(u, BROKEN)
    return true, ~_any(u < LOST), _known(u)


def over_voltage(d: Measured) -> Found:
    """V5."""
    true = _any(_un(d) > OVER)
    return true, ~true, _known(_un(d))


def out_of_band(d: Measured) -> Found:
    """V6: outside the band; loss and failure, which lie farther out, have rules of their own."""
    u = _un(d)
    real = (u >= LOST) & (u <= OVER)
    true = _any(real & ((u < d.low[None, :, None]) | (u > d.high[None, :, None])))
    return true, ~true, _known(u)


def voltage_unbalance(d: Measured) -> Found:
    """V8, without lost phases."""
    u = np.where(_un(d) >= BROKEN, d.volts, np.nan)
    spread, known = _spread(u, 2)
    true = known & (spread > 0.30)
    return true, ~true, known


def current_loss(d: Measured) -> Found:
    """C1."""
    u, i = _un(d), _in(d)
    dead = (u > 0.70) & (i < DEAD)
    return _any(dead) & _any(i > FLOWS), ~_any((u > 0.70) & (i <= FLOWS)), _known(u, i)


def current_unbalance(d: Measured) -> Found:
    """C3."""
    spread, known = _spread(d.amps, 3)
    loaded = _any(_in(d) >= LOADED)
    known &= d.four_wire[:, None]
    true = known & loaded & (spread > 0.30)
    return true, ~true, known


def over_current(d: Measured) -> Found:
    """C4."""
    share = d.amps / d.imax_a[None, :, None]
    true = _any(share > 1.2)
    return true, ~true, _known(share)


def reversed_phase(d: Measured) -> Found:
    """C6."""
    base_kw = d.nominal_v * d.rated_a / 1000.0
    share = d.phase_kw / base_kw[None, :, None]
    true = _any(share < -0.005) & ~d.generates[:, None]
    return true, ~true, _known(share)


def neutral_current(d: Measured) -> Found:
    """C7: against the geometric sum, with angles unknown against what currents of equal phase shift give."""
    a, b, c = d.amps
    total = np.sqrt(np.maximum(a * a + b * b + c * c - a * b - b * c - c * a, 0.0))
    loaded = _any(_in(d) >= LOADED)
    highest = np.fmax(np.fmax(a, b), c)
    known = np.isfinite(total) & np.isfinite(d.neutral_a) & d.four_wire[:, None]
    true = known & loaded & (np.abs(d.neutral_a - total) > 0.5 * highest)
    return true, ~true, known


def over_capacity(d: Measured) -> Found:
    """P1; without reactive power the active power alone is compared, which can only be less."""
    s = np.hypot(d.load_kw, np.where(np.isfinite(d.load_kvar), d.load_kvar, 0.0)) / d.contract_kva[:, None]
    return s > 1.05, s < 0.95, np.isfinite(s)


def use_while_suspended(d: Measured) -> Found:
    """P5."""
    limit = np.maximum(0.01 * np.where(np.isfinite(d.contract_kva), d.contract_kva, 0.0), 5.0)[:, None]
    known = np.isfinite(d.load_kw)
    true = known & d.suspended & (d.load_kw > limit)
    return true, known & ~true, known


def low_power_factor(d: Measured) -> Found:
    """P4."""
    s = np.hypot(d.p_kw, d.q_kvar)
    loaded = _any(_in(d) >= LOADED)
    known = np.isfinite(s) & (s > 0)
    cos = np.divide(np.abs(d.p_kw), s, out=np.ones_like(s), where=known)
    standard = np.where(np.isfinite(d.pf_standard), d.pf_standard, 0.90)[:, None]
    true = known & loaded & (cos < standard)
    return true, known & ~true, known


def reactive_back_feed(d: Measured) -> Found:
    """P6."""
    share = d.load_kvar / d.contract_kva[:, None]
    true = share < -0.10
    return true, ~true, np.isfinite(share)


def register_stop(d: Measured) -> Found:
    """E3: in each slot of the hour the register stands still while the load would have moved it by its quantum."""
    due = d.p_kw * (d.step_s / 3600.0)
    known = np.isfinite(d.moved) & np.isfinite(due)
    flows = _any(_in(d) > FLOWS) & _any(_un(d) > LOST)
    true = known & flows & (d.moved == 0) & (due > d.quantum)
    return true, known & (d.moved > 0), known


def _spread(x: F8, least: int) -> tuple[F8, B1]:
    """((max - min) / max, known): of the phases that are measured, where at least so many are."""
    there = np.isfinite(x)
    high = np.where(there, x, -np.inf).max(axis=0)
    low = np.where(there, x, np.inf).min(axis=0)
    known = (there.sum(axis=0) >= least) & (high > 0)
    return np.divide(high - low, high, out=np.zeros_like(high), where=known), known


SLOTS: Final[dict[str, Callable[[Measured], Found]]] = {
    f.__name__: f
    for f in (
        voltage_loss, phase_break, total_loss, under_voltage, over_voltage, out_of_band, voltage_unbalance,
        current_loss, current_unbalance, over_current, reversed_phase, neutral_current, over_capacity,
        use_while_suspended, low_power_factor,
        reactive_back_feed, register_stop,
    )
}  # fmt: skip


# --- of a whole day: (true, known), arrays (points,) ------------------------------------------------------------------


def register_decrease(d: Whole) -> tuple[B1, B1]:
    """E1."""
    return d.flag == IntervalFlag.DECREASE, d.flag != IntervalFlag.MISSING


def tariff_sum(d: Whole) -> tuple[B1, B1]:
    """E4."""
    return d.tariff_failed, np.isfinite(d.kwh)


def reverse_energy(d: Whole) -> tuple[B1, B1]:
    """E6."""
    return (d.export_kwh > 1.0) & ~d.generates, np.isfinite(d.export_kwh)


def sudden_change(d: Whole) -> tuple[B1, B1]:
    """E7."""
    known = np.isfinite(d.kwh) & (np.isfinite(d.like_kwh).sum(axis=1) >= 3) & ~d.apart
    like = np.where(known[:, None], d.like_kwh, 1.0)
    middle, deviation = np.nanmedian(like, axis=1), np.nanstd(like, axis=1)
    off = np.abs(d.kwh - middle)
    return known & (off > 0.5 * np.abs(middle)) & (off > 3.0 * deviation), known


def zero_use(d: Whole) -> tuple[B1, B1]:
    """E8: nothing used on a day on which the voltage was there."""
    known = np.isfinite(d.kwh) & d.alive & ~d.apart
    return (d.kwh == 0) & known, known


def small_current(d: Whole) -> tuple[B1, B1]:
    """E12: the highest current of a day."""
    return d.peak_a < LOADED, np.isfinite(d.peak_a) & d.alive


DAYS: Final[dict[str, Callable[[Whole], tuple[B1, B1]]]] = {
    f.__name__: f
    for f in (register_decrease, tariff_sum, reverse_energy, sudden_change, zero_use, small_current)
}  # fmt: skip

WEIGHTS: Final = {
    "T1": ("tamper", 30), "T2": ("tamper", 30), "V1": ("circuit", 25), "C1": ("circuit", 25), "C5": ("circuit", 25),
    "C6": ("circuit", 25), "E1": ("register", 25), "E3": ("register", 25), "E7": ("pattern", 10),
}  # fmt: skip
HISTORY: Final = 10
SUSPECT: Final = 60


def theft(seen: set[str], history: bool) -> tuple[int, list[str]]:
    """TS: (0-100, what it is made of). seen: rules with findings in thirty days; each kind of evidence counts once."""
    parts: dict[str, tuple[int, str]] = {}
    for rule in sorted(seen & WEIGHTS.keys()):
        kind, weight = WEIGHTS[rule]
        if weight > parts.get(kind, (0, ""))[0]:
            parts[kind] = weight, f"{kind} {rule} {weight}"
    total = sum(weight for weight, _ in parts.values()) + (HISTORY if history else 0)
    told = [text for _, text in parts.values()] + ([f"history {HISTORY}"] if history else [])
    return min(total, 100), told
