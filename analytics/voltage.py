"""Voltage qualification (电压合格率): per phase, any phase, composite, and the 35 kV month rule (domain 4.6).

Limits are compared as integers of mV x thousandths, so that a value standing exactly on a limit is inside it on every
machine. Rates from 15-min samples are the fallback for the meter's own minute statistics; a report says so.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from .masks import B1, F8, I8, divide

JUDGED: Final = (700, 1200)  # thousandths of nominal; outside it is an outage or a wiring fault, not a voltage


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Limits of a kind of supply in thousandths of the nominal voltage, both inclusive."""

    name: str
    low: int
    high: int
    supply: str
    clause: str


@cache
def bands() -> dict[str, Band]:
    """Bands by name, from voltage.toml."""
    text = Path(__file__).with_name("voltage.toml").read_text(encoding="utf-8")
    return {row["name"]: Band(**row) for row in tomllib.loads(text)["band"]}


def band_of(nominal_v: Decimal, pt_ratio: Decimal, wiring: str) -> Band:
    """The band of a point by its primary nominal voltage and wiring ("1P" is single-phase)."""
    if wiring == "1P":
        return bands()["single_phase"]
    line = nominal_v * pt_ratio * (Decimal("1.7320508") if wiring == "3P4W" else 1)
    # A 35 kV network's phase voltage times sqrt(3) may come out a little short of 35 000 V.
    return bands()["hv35" if line >= 34_500 else "three_phase"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Qualification:
    """Counts and rates; phase arrays (phases, points), any-phase arrays (points,). Rates 0..1, NaN = not monitored.

    any_*: a slot is monitored if a phase is, and out if any monitored phase is out. excluded: outside 0.7-1.2 Un.
    """

    monitored: I8
    over: I8
    under: I8
    excluded: I8
    rate: F8
    any_monitored: I8
    any_out: I8
    any_rate: F8


def qualification(volts: F8, ok: B1, nominal_v: F8, low: I8, high: I8, phases: B1 | None = None) -> Qualification:
    """Judge samples (phases, points, slots) in volts against low..high thousandths of nominal_v (points,).

    phases: bool (phases, points), which phases the wiring has (3P3W has no phase B: exclude it). A NaN nominal
    voltage excludes the point.
    """
    known = np.isfinite(nominal_v)
    use = ok & np.isfinite(volts) & known[:, None]
    if phases is not None:
        use = use & phases[:, :, None]
    # mV x 1000 against mV x thousandths: both sides are whole numbers.
    value = np.rint(np.where(use, volts, 0.0) * 1000.0).astype(np.int64) * 1000
    un = np.rint(np.where(known, nominal_v, 0.0) * 1000.0).astype(np.int64)[:, None]
    judged = use & (value >= JUDGED[0] * un) & (value <= JUDGED[1] * un)
    over = judged & (value > high[:, None] * un)
    under = judged & (value < low[:, None] * un)
    out = over | under
    monitored = judged.sum(axis=-1)
    any_monitored = judged.any(axis=0).sum(axis=-1)
    any_out = out.any(axis=0).sum(axis=-1)
    return Qualification(
        monitored=monitored,
        over=over.sum(axis=-1),
        under=under.sum(axis=-1),
        excluded=(use & ~judged).sum(axis=-1),
        rate=1.0 - divide(out.sum(axis=-1).astype(np.float64), monitored.astype(np.float64)),
        any_monitored=any_monitored,
        any_out=any_out,
        any_rate=1.0 - divide(any_out.astype(np.float64), any_monitored.astype(np.float64)),
    )


def composite(a: float, b: float, c: float, d: float) -> tuple[float, tuple[str, ...]]:
    """Composite rate 0.5 V_A + 0.5 mean(V_B, V_C, V_D) and the classes that were empty (NaN), to be stated."""
    rest = [x for x in (b, c, d) if np.isfinite(x)]
    empty = tuple(name for name, x in zip("ABCD", (a, b, c, d), strict=True) if not np.isfinite(x))
    parts: Sequence[float] = [x for x in (a, sum(rest) / len(rest) if rest else np.nan) if np.isfinite(x)]
    return (sum(parts) / len(parts) if parts else float("nan")), empty


def month_range(highest: F8, lowest: F8) -> F8:
    """35 kV and above: sum of the absolute extremes of the month's deviations (fractions of nominal).

    Extremes of one sign: the larger absolute one alone. The limit is 0.10.
    """
    same = np.sign(highest) * np.sign(lowest) > 0
    larger = np.maximum(np.abs(highest), np.abs(lowest))
    return np.where(same, larger, np.abs(highest) + np.abs(lowest))


CLASSES: Final = ("A", "B", "C", "D")


def class_rates(out: I8, monitored: I8, monitor_class: I8) -> tuple[float, F8, tuple[str, ...]]:
    """(composite rate, rate of each class (4,), empty classes) of a fleet; arrays (points,).

    A class's rate is 1 - time out / time monitored of all its points together; monitor_class: index into CLASSES, -1 =
    none. Classes (4.6): A 10 kV buses, B 35 kV dedicated and >= 110 kV customers, C 10 kV customers, D low voltage.
    """
    member = monitor_class >= 0
    at = monitor_class[member]
    total = np.bincount(at, weights=monitored[member], minlength=len(CLASSES)).astype(np.float64)
    bad = np.bincount(at, weights=out[member], minlength=len(CLASSES)).astype(np.float64)
    rate = 1.0 - divide(bad, total)
    whole, empty = composite(*(float(r) for r in rate))
    return whole, rate, empty
