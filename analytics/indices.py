"""The chapter 4 figures of one meter over whole months and over all its days, from interval energies.

Rows are days, columns the slots of a day whose label is the interval END (domain 3.2). A figure that cannot be given is
NaN; energy is the sum of what is there, and its completeness stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from .load import load_day, load_month
from .masks import B1, F8, I8, divide
from .power_factor import NULL, adjustment, month_cos
from .voltage import Band, qualification

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterDays:
    """One meter's intervals: kwh (days, slots), NaN = missing; kvarh_lag, kvarh_lead of that shape or None; volts
    (phases, days, slots) or None; day numbers since 1970 (days,)."""

    day: I8
    step_s: int
    kwh: F8
    kvarh_lag: F8 | None = None
    kvarh_lead: F8 | None = None
    volts: F8 | None = None

    def part(self, keep: B1) -> MeterDays:
        """Only some of the days."""

        def cut(x: F8 | None) -> F8 | None:
            return None if x is None else x[keep]

        return MeterDays(
            day=self.day[keep], step_s=self.step_s, kwh=self.kwh[keep], kvarh_lag=cut(self.kvarh_lag),
            kvarh_lead=cut(self.kvarh_lead), volts=None if self.volts is None else self.volts[:, keep],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the figures are judged by: power factor standard in hundredths (0 = none), running capacity kVA (NaN =
    unknown), tariff of each slot of a day with the tariffs' names, nominal voltage and its band."""

    standard: int = 0
    capacity_kva: float = float("nan")
    tariff: I8 | None = None
    tariff_names: Sequence[str] = ()
    nominal_v: float = float("nan")
    band: Band | None = None


Figure = float | int | str | None


def days_of(end_s: I8, step_s: int) -> tuple[I8, I8]:
    """(day number, slot) of interval END labels in naive local seconds: 24:00 belongs to the day that ends."""
    return (end_s - 1) // 86_400, (end_s - 1) % 86_400 // step_s


def on_days(values: F8, day: I8, slot: I8, slots: int) -> tuple[F8, I8]:
    """Values (rows,) as (days, slots) and the day numbers; of several rows for a cell the first counts."""
    first = int(day.min()) if len(day) else 0
    count = int(day.max()) - first + 1 if len(day) else 0
    grid = np.full((count, slots), np.nan)
    grid[(day - first)[::-1], slot[::-1]] = values[::-1]
    return grid, first + np.arange(count, dtype=np.int64)


def indices(meter: MeterDays, terms: Terms) -> dict[str, Figure]:
    """All figures of the days given, taken as one period; names carry the units, ratios are 0..1.

    `mean_daily_load_factor` and `period_load_factor` are two figures (4.4). Demand is the largest 15-min average known
    to the file, indicative. The adjustment is in percent, + a penalty (4.8); voltage rates are by samples (4.6).
    """
    ok = np.isfinite(meter.kwh)
    per_hour = 3600.0 / meter.step_s
    kw = np.where(ok, meter.kwh, 0.0) * per_hour
    load = load_day(np.maximum(kw, 0.0), ok, meter.step_s)
    energy = float(meter.kwh[ok].sum()) if ok.any() else float("nan")
    period = load_month(load.energy_kwh, load.max_kw, load.load_factor)
    out: dict[str, Figure] = {
        "days": len(meter.day),
        "completeness": float(ok.mean()) if ok.size else 0.0,
        "energy_kwh": energy,
        "export_kwh": float(np.abs(meter.kwh[ok & (meter.kwh < 0)]).sum()),
        "mean_kw": float(kw[ok].mean()) if ok.any() else float("nan"),
    }
    blocks, block_ok = _quarter_blocks(kw, ok, meter.step_s)
    out |= _extremes(meter, blocks, block_ok)
    top, low = out["demand_kw"], out["min_kw"]
    assert isinstance(top, float) and isinstance(low, float)
    positive = top > 0
    out |= {
        "mean_daily_load_factor": float(period.mean_daily_load_factor) if len(meter.day) else float("nan"),
        "period_load_factor": float(out["mean_kw"]) / top
        if positive and isinstance(out["mean_kw"], float)
        else float("nan"),
        "min_rate": low / top if positive else float("nan"),
        "peak_valley_difference_kw": top - low,
        "peak_valley_rate": (top - low) / top if positive else float("nan"),
        "mean_daily_peak_valley_rate": _mean(load.difference_rate),
        "use_hours": energy / top if positive else float("nan"),
    }
    out |= _reactive(meter, terms, ok, kw, per_hour)
    if terms.tariff is not None:
        for number, name in enumerate(terms.tariff_names):
            member = ok & (terms.tariff == number)[None, :]
            out[f"tou_{name}_kwh"] = float(meter.kwh[member].sum())
        total = sum(float(out[f"tou_{name}_kwh"] or 0.0) for name in terms.tariff_names)
        for name in terms.tariff_names:
            out[f"tou_{name}_share"] = float(out[f"tou_{name}_kwh"] or 0.0) / total if total else float("nan")
    if meter.volts is not None and terms.band is not None:
        out |= _voltage(meter.volts, terms)
    return out


def _quarter_blocks(kw: F8, ok: B1, step_s: int) -> tuple[F8, B1]:
    """15-min averages of shorter slots; a block with a hole is no block. Longer slots as they are."""
    if step_s >= 900 or 900 % step_s:
        return kw, ok
    n = 900 // step_s
    shape = (len(kw), kw.shape[1] // n, n)
    return kw.reshape(shape).mean(axis=-1), np.logical_and.reduce(ok.reshape(shape), axis=-1)


def _extremes(meter: MeterDays, kw: F8, ok: B1) -> dict[str, Figure]:
    if not ok.any():
        return {"demand_kw": float("nan"), "demand_time": None, "min_kw": float("nan"), "min_time": None}
    top = int(np.where(ok, kw, -np.inf).argmax())
    low = int(np.where(ok, np.maximum(kw, 0.0), np.inf).argmin())

    def label(at: int) -> str:
        day, slot = divmod(at, kw.shape[1])
        minutes = (slot + 1) * 1440 // kw.shape[1]
        return f"{EPOCH + timedelta(days=int(meter.day[day]))} {minutes // 60:02d}:{minutes % 60:02d}"

    return {
        "demand_kw": max(float(kw.flat[top]), 0.0), "demand_time": label(top), "min_kw": max(float(kw.flat[low]), 0.0),
        "min_time": label(low),
    }  # fmt: skip


def _reactive(meter: MeterDays, terms: Terms, ok: B1, kw: F8, per_hour: float) -> dict[str, Figure]:
    if meter.kvarh_lag is None and meter.kvarh_lead is None:
        return {}
    lag = np.zeros(ok.shape) if meter.kvarh_lag is None else meter.kvarh_lag
    lead = np.zeros(ok.shape) if meter.kvarh_lead is None else np.abs(meter.kvarh_lead)
    common = ok & np.isfinite(lag) & np.isfinite(lead)
    forward, reverse = float(lag[common].sum()), float(lead[common].sum())
    cos = month_cos(np.array([float(meter.kwh[common].sum())]), np.array([forward]), np.array([reverse]))
    out: dict[str, Figure] = {
        "kvarh_lag": forward,
        "kvarh_lead": reverse,
        "power_factor": int(cos[0]) / 100.0 if cos[0] != NULL else float("nan"),
    }
    change, applies = adjustment(cos, np.array([terms.standard], np.int16))
    out["adjustment_percent"] = int(change[0]) / 100.0 if applies[0] else float("nan")
    net = np.where(common, lag - lead, 0.0) * per_hour
    apparent = np.where(common, np.hypot(kw, net), 0.0)
    out["max_kva"] = float(apparent.max()) if common.any() else float("nan")
    out["capacity_use"] = float(divide(np.array(out["max_kva"], float), np.array(terms.capacity_kva)))
    return out


def _voltage(volts: F8, terms: Terms) -> dict[str, Figure]:
    assert terms.band is not None
    flat = volts.reshape(volts.shape[0], 1, -1)
    low, high = np.array([terms.band.low]), np.array([terms.band.high])
    judged = qualification(flat, np.isfinite(flat), np.array([terms.nominal_v]), low, high)
    out: dict[str, Figure] = {f"voltage_{i + 1}_rate": float(r) for i, r in enumerate(judged.rate[:, 0])}
    return out | {"voltage_any_rate": float(judged.any_rate[0])}


def _mean(values: F8) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
