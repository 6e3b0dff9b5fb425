"""Where each number of a day or month statement comes from: formula, clause, slots used and excluded, multiplier.

Works on the same chunk and record that the fleet's pass uses, for one point, so what is explained is what is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model.quality import Quality
from .fleet import SLOTS, Chunk
from .masks import F8, I2

NONE32 = np.int32(np.iinfo(np.int32).min)
NONE16 = np.int16(np.iinfo(np.int16).min)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number. value None = NULL; inputs: what the formula was fed with; excluded: reason -> slot labels."""

    name: str
    value: float | int | str | None
    unit: str
    formula: str
    clause: str
    inputs: Mapping[str, float | int | str | None]
    used: int | None = None
    excluded: Mapping[str, Sequence[str]]


def label(slot: int) -> str:
    """End of a slot: 00:15 … 24:00."""
    minutes = (slot + 1) * 15
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _spans(mask: NDArray[np.bool_]) -> list[str]:
    """Labels of the true slots, neighbours joined: 03:15–04:00."""
    at = np.flatnonzero(mask)
    runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(at) else []
    return [label(int(r[0])) if len(r) == 1 else f"{label(int(r[0]))}–{label(int(r[-1]))}" for r in runs]


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def explain_day(chunk: Chunk, record: np.void, quality: I2, row: int = 0) -> list[Figure]:
    """The figures of `record` (fleet.STATS) of the chunk's `row`; quality (96,) of the load's slots."""
    f, p = chunk.facts, chunk.p[row]
    k = float(f.k[row])
    usable = p != NONE32
    guess = usable & (chunk.guessed[row] if chunk.guessed is not None else False)
    real = usable & ~guess
    kw = np.where(usable, p * (k / 10.0**chunk.p_decimals), 0.0)
    imported = np.maximum(kw, 0.0)
    missing = {Quality(code).name: _spans(~usable & (quality == code)) for code in np.unique(quality[~usable]).tolist()}
    not_measured = missing | ({"estimated": _spans(guess)} if guess.any() else {})
    used, all_ = int(real.sum()), int(usable.sum())

    def one(
        name: str, value: float | int | str | None, unit: str, formula: str, clause: str, count: int | None,
        inputs: Mapping[str, float | int | str | None], excluded: Mapping[str, Sequence[str]],
    ) -> Figure:  # fmt: skip
        return Figure(
            name=name, value=value, unit=unit, formula=formula, clause=clause, used=count, inputs=inputs,
            excluded=excluded,
        )  # fmt: skip

    total, top = float(imported[usable].sum()), _number(record["max_kw"])
    out = [
        one("completeness", used / SLOTS, "", "measured slots / 96", "4", used, {"measured": used}, not_measured),
        one("curve_kwh", _number(record["curve_kwh"]), "kWh", "sum(max(P, 0)) x 0.25 h; NULL below 75 % of slots",
            "4.4", all_, {"sum_kw": total, "multiplier": k, "estimated_slots": int(guess.sum())}, missing),
    ]  # fmt: skip
    if bool(record["energy_exact"]) and chunk.register is not None:
        units = int(chunk.register[row, 1] - chunk.register[row, 0])
        out.append(
            one("energy_kwh", _number(record["energy_kwh"]), "kWh", "(R(24:00) - R(00:00)) x K", "4.1", None,
                {"register_difference": units / 10.0**chunk.register_decimals, "multiplier": k}, {})
        )  # fmt: skip
    else:
        out.append(
            one("energy_kwh", _number(record["energy_kwh"]), "kWh", "the sum of the curve stands in: no exact register"
                " difference", "4.1", all_, {"curve_kwh": _number(record["curve_kwh"])}, missing)
        )  # fmt: skip
    for name, slot, formula in (
        ("max_kw", int(record["max_slot"]), "largest measured max(P, 0); estimates never make a maximum"),
        ("min_kw", int(record["min_slot"]), "smallest measured max(P, 0)"),
    ):
        out.append(one(name, _number(record[name]), "kW", formula, "4.3, 4.4", used,
                       {"at": label(slot) if slot >= 0 else None, "multiplier": k}, not_measured))  # fmt: skip
    mean = _number(record["mean_kw"])
    out.append(one("load_factor", _number(record["load_factor"]), "", "mean / maximum = E / (24 x Pmax) of a whole day",
                   "4.4", used, {"mean_kw": mean, "max_kw": top}, not_measured))  # fmt: skip
    out.append(one("peak_valley_rate", _number(record["difference_rate"]), "", "(Pmax - Pmin) / Pmax", "4.4", used,
                   {"max_kw": top, "min_kw": _number(record["min_kw"])}, not_measured))  # fmt: skip
    q = chunk.q[row]
    both = real & (q != NONE32)
    drawn = both & (p > 0)
    unit = k / 10.0**chunk.p_decimals * 0.25
    cos = int(record["cos"])
    out.append(
        one("power_factor", cos / 100 if cos >= 0 else None, "", "Wp / sqrt(Wp² + Wq²), half-up to 0.01; |Q| of import"
            " slots with both P and Q; the bill uses the month's registers", "4.8", int(both.sum()),
            {"wp_kwh": float(p[drawn].astype(np.float64).sum() * unit),
             "wq_kvarh": float(np.abs(q[drawn].astype(np.float64)).sum() * unit)},
            not_measured | ({"no Q": _spans(real & ~both)} if (real & ~both).any() else {}))
    )  # fmt: skip
    for phase, name in enumerate("abc"):
        v = chunk.u[phase][row]
        count = int(record["u_monitored"][phase])
        over, under = int(record["u_over"][phase]), int(record["u_under"][phase])
        beyond = (v != NONE16) & (
            (v < 0.7 * _scaled(f.nominal_v, row, chunk)) | (v > 1.2 * _scaled(f.nominal_v, row, chunk))
        )
        reasons = {"missing": _spans(v == NONE16)} if (v == NONE16).any() else {}
        if beyond.any():
            reasons["outside 0.7-1.2 Un"] = _spans(beyond)
        out.append(
            one(f"voltage_{name}_rate", 1 - (over + under) / count if count else None, "",
                "1 - (over + under) / monitored, 15-min samples", "4.6", count,
                {"over": over, "under": under, "nominal_v": _number(f.nominal_v[row]), "low": int(f.low[row]) / 1000,
                 "high": int(f.high[row]) / 1000}, reasons)
        )  # fmt: skip
    out.append(
        one("beta_max", _number(record["beta_max"]), "", "max sqrt(P² + Q²) / Sn", "4.9", int(both.sum()),
            {"rated_kva": _number(f.transformer_kva[row]), "slots_from_80_percent": int(record["heavy"])}, not_measured)
    )  # fmt: skip
    out.append(
        one("current_spread_max", _number(record["i_spread_max"]), "", "max (Imax - Imin) / Imax where Imax >= 20 % In",
            "4.7", int(record["i_judged"]),
            {"rated_a": _number(f.rated_a[row]), "slots_over_30_percent": int(record["i_unbalanced"])}, {})
    )  # fmt: skip
    return out


def _scaled(nominal_v: F8, row: int, chunk: Chunk) -> float:
    return float(nominal_v[row]) * 10.0**chunk.u_decimals


def explain_month(days: Sequence[str], records: NDArray[np.void], cos: int, wp: float, wq: float) -> list[Figure]:
    """Figures of a month from its days' records (days,), in their order; cos hundredths from the sums wp, wq."""
    there = np.isfinite(records["energy_kwh"])
    gone = {"no figure": [d for d, ok in zip(days, there.tolist(), strict=True) if not ok]}
    excluded: Mapping[str, Sequence[str]] = gone if gone["no figure"] else {}
    count = int(there.sum())
    energy = float(records["energy_kwh"][there].sum()) if count else None
    full = there & np.isfinite(records["max_kw"])
    top = float(records["max_kw"][full].max()) if full.any() else None
    at = int(np.flatnonzero(full & (records["max_kw"] == top))[0]) if top is not None else -1
    gamma = records["load_factor"][np.isfinite(records["load_factor"])].astype(np.float64)
    energy_of_full = float(records["energy_kwh"][full].sum())
    hours = 24 * int(full.sum())
    monitored, out_ = int(records["u_any_monitored"].sum()), int(records["u_any_out"].sum())
    figures: list[tuple[str, float | None, str, str, str, Mapping[str, float | int | str | None]]] = [
        ("energy_kwh", energy, "kWh", "sum of the days' energies; a day without one is not guessed", "4.1",
         {"days": count, "by_register": int(records["energy_exact"].sum())}),
        ("max_kw", top, "kW", "largest of the days' maxima, indicative: billing demand is the meter's", "4.3",
         {"day": days[at] if at >= 0 else None, "at": label(int(records["max_slot"][at])) if at >= 0 else None}),
        ("mean_daily_load_factor", float(gamma.mean()) if len(gamma) else None, "", "mean of the days' load factors",
         "4.4", {"days": len(gamma)}),
        ("month_load_factor", energy_of_full / (hours * top) if top and hours else None, "", "E / (h x month's Pmax)",
         "4.4", {"energy_kwh": energy_of_full, "hours": hours, "max_kw": top}),
        ("power_factor", cos / 100 if cos >= 0 else None, "", "Wp / sqrt(Wp² + Wq²) of all days' common slots, half-up",
         "4.8", {"wp_kwh": wp, "wq_kvarh": wq}),
        ("voltage_any_rate", 1 - out_ / monitored if monitored else None, "", "1 - slots with a phase out / monitored",
         "4.6", {"out": out_, "monitored": monitored}),
    ]  # fmt: skip
    return [
        Figure(name=n, value=v, unit=u, formula=f, clause=c, inputs=i, used=count, excluded=excluded)
        for n, v, u, f, c, i in figures
    ]
