"""One pass over a (points, slots) day: from loaded arrays to a table of statistics, all primary side (x CT x PT).

Values come in as the devices gave them (secondary side, NaN and quality); nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

import numpy as np

from ..model.devices import Point
from ..model.quality import Quality
from ..model.times import day_start_us
from .curve import CurveSource, choose_source, power_from_registers
from .energy import Energy, constant_multipliers, energy_from_registers
from .load import LoadDay, load_day
from .masks import B1, F8, I2, I8, DayFlag, day_flag, divide, estimated, measured
from .power_factor import NULL, month_cos
from .voltage import Qualification, band_of, qualification

STEP_S: Final = 900
SLOTS: Final = 96
# Digits of a DL/T 645 energy register: XXXXXX.XX or XXXXXX.XXXX.
REGISTER_DIGITS: Final = 6
REGISTER_DECIMALS: Final = 4
VOLTS: Final = (("voltage_a", "voltage_b", "voltage_c"), ("voltage_ab", "voltage_bc", "voltage_ca"))
# Power of a point by the priority of 4.2; the demand a meter shows at the end of a slot is its own 15-min average.
POWER: Final = ((CurveSource.METER_AVERAGE, "active_demand"), (CurveSource.SAMPLED, "active_power_total"))
# Reactive energy while importing: quadrants I and IV, else forward and reverse, else the two combined registers, whose
# usual setting is forward (I + II) and reverse (III + IV).
REACTIVE: Final = (
    ("reactive_q1_total", "reactive_q4_total"),
    ("forward_reactive_total", "reverse_reactive_total"),
    ("combined_reactive_1_total", "combined_reactive_2_total"),
)
CURVES: Final = (*(name for _, name in POWER), "reactive_power_total", *VOLTS[0], *VOLTS[1])
REGISTERS: Final = ("forward_active_total", "reverse_active_total", *(name for pair in REACTIVE for name in pair))


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity of all points over the day: value float64 (points, slots) with NaN, quality int16 of that shape."""

    value: F8
    quality: I2

    @classmethod
    def empty(cls, points: int, slots: int = SLOTS) -> Series:
        """No value anywhere."""
        return cls(np.full((points, slots), np.nan), np.full((points, slots), Quality.M, np.int16))


@dataclass(frozen=True, slots=True, kw_only=True)
class DayInput:
    """A day of all points. curves: quantity name -> Series of 96 slots labelled 00:15 ... 24:00 (interval ends);
    registers: quantity name -> Series of 97 boundaries 00:00 ... 24:00. What was not collected is simply absent.
    settled: energies of days that were judged (VEE); they stand instead of what the registers here give.
    """

    day: date
    points: Sequence[Point]
    curves: Mapping[str, Series]
    registers: Mapping[str, Series]
    settled: Settled | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Energies of points whose day was judged (points,): `known` says which; NaN = the registers give none."""

    known: B1
    import_kwh: F8
    export_kwh: F8


@dataclass(frozen=True, slots=True, kw_only=True)
class DayTable:
    """Statistics of one day, arrays (points,) unless said otherwise; kW, kWh and kvarh primary side.

    kw (points, slots): the curve; estimated: its estimated slots; source, mixed: domain 4.2; energy_kwh: forward
    active, from registers (`energy_exact`) or else from the curve; cos: hundredths, -1 = NULL (the day's own figure,
    the bill uses the month's); load on the import side, net apart; voltage: by 15-min samples.
    """

    day: date
    points: Sequence[Point]
    label_us: I8
    kw: F8
    ok: B1
    estimated: B1
    source: I2
    mixed: B1
    energy_kwh: F8
    energy_exact: B1
    energy_flag: I2
    export_kwh: F8
    load: LoadDay
    net: LoadDay
    voltage: Qualification
    cos: I2


def labels_us(day: date) -> I8:
    """Interval ends 00:15 ... 24:00 of a business day as UTC microseconds."""
    return day_start_us(day) + np.arange(1, SLOTS + 1, dtype=np.int64) * (STEP_S * 1_000_000)


def day_table(data: DayInput) -> DayTable:
    """The whole table in one pass; no loop over points in any figure."""
    n = len(data.points)
    k = np.array([float(p.multiplier) for p in data.points])[:, None]
    forward, forward_kw = register_energy(data, "forward_active_total")
    reverse, reverse_kw = register_energy(data, "reverse_active_total")

    candidates: list[tuple[CurveSource, F8]] = []
    guesses: list[tuple[CurveSource, B1]] = []
    for code, name in POWER:
        series = data.curves.get(name) or Series.empty(n)
        guess = estimated(series.value, series.quality)
        shown = guess | measured(series.value, series.quality)
        candidates.append((code, np.where(shown, series.value * k, np.nan)))
        guesses.append((code, guess))
    net_kw = np.where(np.isfinite(reverse_kw), forward_kw - reverse_kw, forward_kw)
    chosen = choose_source([*candidates, (CurveSource.REGISTER, net_kw)])
    guessed = np.zeros(chosen.kw.shape, np.bool_)
    for code, guess in guesses:
        guessed |= (chosen.source == code) & guess
    present = np.isfinite(chosen.kw)
    kw, ok = np.where(present, chosen.kw, 0.0), present & ~guessed

    load = load_day(np.maximum(kw, 0.0), ok, STEP_S, guessed)
    out = load_day(np.maximum(-kw, 0.0), ok, STEP_S, guessed)
    energy, export = forward.total(), reverse.total()
    if data.settled is not None:
        energy = np.where(data.settled.known, data.settled.import_kwh, energy)
        export = np.where(data.settled.known, data.settled.export_kwh, export)
    return DayTable(
        day=data.day,
        points=data.points,
        label_us=labels_us(data.day),
        kw=chosen.kw,
        ok=ok,
        estimated=guessed,
        source=chosen.source,
        mixed=chosen.mixed,
        energy_kwh=np.where(np.isfinite(energy), energy, load.energy_kwh),
        energy_exact=np.isfinite(energy),
        energy_flag=forward.flag[:, 0],
        export_kwh=np.where(np.isfinite(export), export, out.energy_kwh),
        load=load,
        net=load_day(kw, ok, STEP_S, guessed),
        voltage=_voltage(data),
        cos=_day_cos(data, energy, kw, ok),
    )


def register_energy(data: DayInput, name: str) -> tuple[Energy, F8]:
    """The day's exact energy (one interval, first to last reading) and the slots' power from the same register."""
    n = len(data.points)
    series = data.registers.get(name) or Series.empty(n, SLOTS + 1)
    value = np.where(measured(series.value, series.quality), series.value, np.nan)
    boundary = np.r_[day_start_us(data.day), labels_us(data.day)]
    digits, contract = np.full(n, REGISTER_DIGITS), _archive([p.contract_kva for p in data.points])
    k = [p.multiplier for p in data.points]

    def between(columns: slice) -> Energy:
        at = boundary[columns]
        return energy_from_registers(
            value[:, columns],
            digits=digits,
            decimals=REGISTER_DECIMALS,
            k=constant_multipliers(k, len(at) - 1),
            boundary_us=at,
            contract_kva=contract,
        )

    return between(slice(None, None, SLOTS)), power_from_registers(between(slice(None)), boundary, STEP_S)


def _day_cos(data: DayInput, active: F8, kw: F8, ok: B1) -> I2:
    """The day's cosφ: from registers where all three are there, else from the P and Q curves' common slots."""
    cos = np.full(len(data.points), NULL, np.int16)
    for forward, reverse in REACTIVE:
        if forward in data.registers:
            # A meter that has no second register has no such energy; one whose reading is missing stays NULL.
            w1 = register_energy(data, forward)[0].total()
            w2 = register_energy(data, reverse)[0].total() if reverse in data.registers else np.zeros_like(w1)
            cos = np.where(cos == NULL, month_cos(active, w1, w2), cos)
    series = data.curves.get("reactive_power_total")
    if series is not None:
        k = np.array([float(p.multiplier) for p in data.points])[:, None]
        common = ok & measured(series.value, series.quality)
        enough = day_flag(common.sum(axis=-1), SLOTS) != DayFlag.INSUFFICIENT
        kvar = np.where(common, series.value, 0.0) * k
        p = np.where(enough, np.sum(np.maximum(kw, 0.0), axis=-1, where=common), np.nan)
        curve = month_cos(p, np.sum(np.abs(kvar), axis=-1, where=common & (kw > 0)), np.zeros(len(p)))
        cos = np.where(cos == NULL, curve, cos)
    return cos


def _voltage(data: DayInput) -> Qualification:
    """Qualification by 15-min samples: phase voltages, or the line voltages ab and bc of a 3P3W point."""
    n = len(data.points)
    three_wire = np.array([p.wiring == "3P3W" for p in data.points])[:, None]
    single = np.array([p.wiring == "1P" for p in data.points])
    volts, ok = [], []
    for phase, line in zip(*VOLTS, strict=True):
        a, b = (data.curves.get(name) or Series.empty(n) for name in (phase, line))
        # Many 3P3W meters deliver Uab and Ucb under the names of phases A and C.
        use_line = three_wire & np.isfinite(b.value)
        value, quality = np.where(use_line, b.value, a.value), np.where(use_line, b.quality, a.quality)
        volts.append(value)
        ok.append(measured(value, quality))
    chosen = [band_of(p.nominal_v, p.pt_ratio, p.wiring) if p.nominal_v else None for p in data.points]
    has_b = ~three_wire[:, 0] & ~single
    return qualification(
        np.stack(volts),
        np.stack(ok),
        _archive([p.nominal_v for p in data.points]),
        np.array([b.low if b else 0 for b in chosen]),
        np.array([b.high if b else 0 for b in chosen]),
        np.stack([np.ones(n, np.bool_), has_b, ~single]),
    )


def _archive(values: Sequence[Decimal | None]) -> F8:
    """Archive attributes as float64, NaN where not filled in."""
    return np.array([np.nan if v is None else float(v) for v in values])


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCurve:
    """Sum of the points' measured and estimated power; kw (slots,) NaN where no member has a value.

    members: how many points are in each slot's sum (int64); expected: points asked for; cover (slots,): share of the
    mean load of all reporting points that is present; estimated: slots that contain an estimate. Never scaled up.
    """

    label_us: I8
    kw: F8
    members: I8
    cover: F8
    expected: int
    estimated: B1


def fleet_curve(table: DayTable) -> FleetCurve:
    """The fleet's curve in primary kW with its members' completeness."""
    present = np.isfinite(table.kw)
    members = present.sum(axis=0)
    total = np.sum(table.kw, axis=0, where=present)
    # Members are weighted by their own mean load: a missing mill weighs more than a missing shop.
    mean = np.nan_to_num(
        np.abs(divide(np.sum(table.kw, axis=1, where=present), present.sum(axis=1).astype(np.float64)))
    )
    return FleetCurve(
        label_us=table.label_us,
        kw=np.where(members > 0, total, np.nan),
        members=members,
        cover=divide(mean @ present.astype(np.float64), np.full(SLOTS, mean.sum())),
        expected=len(table.points),
        estimated=np.logical_or.reduce(table.estimated, axis=0),
    )
