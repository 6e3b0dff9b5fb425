"""Figures that need more than one meter: line loss, coincidence, transformer loading, reliability, lost energy.

Domain 4.9 and 4.11-4.14. All of them say "not computable" (NaN) rather than guess: a sum with a missing member is not a
loss, and a communication failure is not an outage. Lost energy is support for people, never billed by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from .masks import B1, F8, I2, divide

MEMBERS_SHARE: Final = 0.98  # of a line's energy must be there before a loss is published
COVERED_SHARE: Final = 0.95  # of a group's energy must be in a slot before it counts for coincidence
LOADING_H: Final = 2.0
CLEAR_H: Final = 1.0
CLEAR_BELOW: Final = 0.05


def line_loss(in_kwh: F8, out_kwh: F8, *, usual_in: F8 | None = None, usual_out: F8 | None = None) -> F8:
    """Line loss 线损 (E_in - E_out) / E_in as a fraction, (lines,); NaN = not computable (domain 4.11).

    in_kwh, out_kwh (lines, members): energy between freezes of the same instants, NaN = no valid energy; in_kwh
    includes what customers export. usual_*: the same members' usual energy, by which missing ones are weighed; without
    them every member must be there. Members that do not exist are 0 in both.
    """

    def side(kwh: F8, usual: F8 | None) -> tuple[F8, F8]:
        there = np.isfinite(kwh)
        weight = np.ones(kwh.shape) if usual is None else np.nan_to_num(usual)
        share = divide((weight * there).sum(axis=-1), weight.sum(axis=-1))
        none = weight.sum(axis=-1) == 0
        needed = 1.0 if usual is None else MEMBERS_SHARE
        total = np.where(there, kwh, 0.0).sum(axis=-1)
        return np.where((share >= needed) | none, total, np.nan), share

    supplied, _ = side(in_kwh, usual_in)
    delivered, _ = side(out_kwh, usual_out)
    return divide(supplied - delivered, supplied)


def loss_abnormal(loss: F8, low: F8, high: F8, history: F8 | None = None) -> B1:
    """Loss outside low..high (fractions), or beyond 3 sigma of its 60-day median; history (lines, days) with NaN.

    Defaults of practice: a 10 kV feeder -0.01..0.06, a district 0..0.08 (domain 4.11). NaN is never abnormal.
    """
    known = np.isfinite(loss)
    safe = np.where(known, loss, 0.0)
    bad: B1 = known & ((safe < low) | (safe > high))
    if history is not None:
        there = np.isfinite(history)
        enough = there.sum(axis=-1) >= 10
        filled = np.where(there | ~enough[:, None], np.where(there, history, 0.0), np.nan)
        middle = np.nanmedian(filled, axis=-1)
        sigma = 1.4826 * np.nanmedian(np.abs(filled - middle[:, None]), axis=-1)
        bad |= known & enough & (np.abs(safe - middle) > 3.0 * np.maximum(sigma, 1e-6))
    return bad


def coincidence(kw: F8, ok: B1, energy_kwh: F8 | None = None) -> float:
    """Coincidence factor 同时率: max of the sum over sum of the maxima, 0 < k <= 1; NaN without common slots (4.13).

    kw, ok (members, slots). A slot counts if the members it has carry at least 95 % of the group's energy (energy_kwh,
    default: each member's own mean); the maxima of the members are taken over those slots alone. Nothing is scaled up.
    """
    weight = (
        energy_kwh if energy_kwh is not None else np.where(ok, kw, 0.0).sum(axis=-1) / np.maximum(ok.sum(axis=-1), 1)
    )
    weight = np.maximum(np.nan_to_num(weight), 0.0)
    if weight.sum() <= 0:
        return float("nan")
    common = (weight[:, None] * ok).sum(axis=0) >= COVERED_SHARE * weight.sum()
    use = ok & common
    if not common.any():
        return float("nan")
    total = np.where(use, kw, 0.0).sum(axis=0)[common].max()
    maxima = np.where(use, kw, -np.inf).max(axis=-1)
    below = float(np.where(np.isfinite(maxima), maxima, 0.0).sum())
    return float(total) / below if below > 0 else float("nan")


class Loading(IntEnum):
    """Load level of a transformer; LIGHT is a month's verdict."""

    NORMAL = 0
    HEAVY = 1
    OVER = 2
    SEVERE = 3
    UNKNOWN = -1


def transformer_loading(p_kw: F8, q_kvar: F8, rated_kva: F8) -> F8:
    """beta = sqrt(P² + Q²) / S_n, (points, slots); NaN where a value or the rating is missing (domain 4.9)."""
    return divide(np.hypot(p_kw, q_kvar), np.broadcast_to(rated_kva[:, None], p_kw.shape))


def loading_level(beta: F8, step_s: int) -> I2:
    """Loading per slot (points, slots): HEAVY 重载 from 80 %, OVER 过载 above 100 %, SEVERE above 120 %, each for 2 h.

    The level stands from the slot in which the two hours are full; it clears after an hour of more than 5 points below
    its limit. A missing slot breaks the two hours and keeps a standing level. The first slots of an array know nothing
    of what came before it: give it two hours more.
    """
    need, clear = round(LOADING_H * 3600 / step_s), round(CLEAR_H * 3600 / step_s)
    known = np.isfinite(beta)
    safe = np.where(known, beta, 0.0)
    level = np.where(known.any(axis=-1, keepdims=True), Loading.NORMAL, Loading.UNKNOWN) * np.ones(beta.shape, np.int64)
    for code, limit, above in (
        (Loading.HEAVY, 0.8, safe >= 0.8),
        (Loading.OVER, 1.0, safe > 1.0),
        (Loading.SEVERE, 1.2, safe > 1.2),
    ):
        raised = _run(above & known) >= need
        cleared = _run(known & (safe < limit - CLEAR_BELOW)) >= clear
        # the latest of the two events decides
        place = np.arange(beta.shape[-1])
        last_up = np.maximum.accumulate(np.where(raised, place, -1), axis=-1)
        last_down = np.maximum.accumulate(np.where(cleared, place, -1), axis=-1)
        level = np.where((last_up >= 0) & (last_up > last_down), code, level)
    return level.astype(np.int16)


def light_loading(beta: F8, ok: B1) -> B1:
    """Light load 轻载: the largest beta of the month below 20 %, (points,)."""
    top = np.where(ok & np.isfinite(beta), beta, -np.inf).max(axis=-1)
    light: B1 = np.isfinite(top) & (top < 0.2)
    return light


def economic_loading(no_load_kw: F8, short_circuit_kw: F8) -> F8:
    """Economic point beta_e = sqrt(P0 / Pk)."""
    return np.sqrt(divide(no_load_kw, short_circuit_kw))


def _run(mask: B1) -> F8:
    """Length of the run of true that ends at each slot."""
    place = np.arange(1, mask.shape[-1] + 1)
    return (place - np.maximum.accumulate(np.where(mask, 0, place), axis=-1)).astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """rs: share of time supplied, 0..1; hours: interruption hours a customer."""

    rs: float
    hours: float


def reliability(
    outage_h: F8, customers: F8, *, all_customers: int, period_h: float, supplied: F8 | None = None
) -> Reliability:
    """RS = 1 - sum(t n) / (N T) and sum(t n) / N (domain 4.12, DL/T 836).

    outage_h, customers (outages,): duration and customers without supply; supplied (outages,): W_supplied / W_needed of
    a limitation, which counts as t (1 - supplied); an outage has 0. ValueError: no customers or no period.
    """
    if all_customers <= 0 or period_h <= 0:
        raise ValueError("reliability needs customers and a period")
    weight = 1.0 if supplied is None else 1.0 - supplied
    lost = float((outage_h * customers * weight).sum())
    return Reliability(rs=1.0 - lost / (all_customers * period_h), hours=lost / all_customers)


def lost_energy_factor(wiring: str, lost: str, cos: float | None = None) -> float:
    """K_p by which measured energy is multiplied when voltages were lost (domain 4.14), for a balanced load.

    wiring "3P4W": lost is one or two phases ("A", "BC"); "3P3W": lost "A" or "C", cos the power factor (lagging).
    ValueError: any other case, for which no factor is known.
    """
    phases = "".join(sorted(set(lost.upper())))
    if wiring == "3P4W" and phases and set(phases) <= set("ABC") and len(phases) < 3:
        return {1: 1.5, 2: 3.0}[len(phases)]
    if wiring == "3P3W" and phases in ("A", "C") and cos is not None and 0 < cos <= 1:
        tan = float(np.sqrt(1.0 - cos * cos)) / cos
        root = float(np.sqrt(3.0))
        below = root + tan if phases == "A" else root - tan
        if below > 0:
            return 2.0 * root / below
    raise ValueError(f"no correction is known for {wiring} with voltage {lost or '-'} lost at cos {cos}")


def lost_energy(measured_kwh: F8, factor: float) -> F8:
    """Energy to be added, (K_p - 1) x measured: a proposal to people with its assumption, never a bill."""
    return (factor - 1.0) * measured_kwh


# Oil-filled transformers: load above the rating that may last so many hours, outdoors and indoors (domain 4.9).
OVERLOAD: Final = ((1.3, 2.0, 1.0), (1.6, 0.5, 0.25), (1.75, 0.25, 8 / 60), (2.0, 7.5 / 60, 4 / 60))


def overload_exceeded(beta: F8, indoor: B1, step_s: int) -> B1:
    """Slots (points, slots) in which an overload has lasted longer than an oil-filled transformer is allowed.

    A load between two steps counts as the higher one, one above the table is never allowed; a missing slot ends it.
    """
    known = np.isfinite(beta)
    safe = np.where(known, beta, 0.0)
    exceeded: B1 = safe > OVERLOAD[-1][0]
    below = 1.0
    for step, outdoors_h, indoors_h in OVERLOAD:
        allowed_h = np.where(indoor, indoors_h, outdoors_h)[:, None]
        exceeded |= _run(safe > below) * step_s / 3600.0 > allowed_h
        below = step
    return exceeded


def often_interrupted(planned: F8, hours: F8) -> B1:
    """Customers (customers,) of S1's list: more than three planned outages, or more than 24 h without supply."""
    listed: B1 = (planned > 3) | (hours > 24.0)
    return listed
