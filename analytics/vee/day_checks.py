"""The checks K1-K12 on a chunk of point-days: which apply to which quantity, and masks out of them. Pure."""

from __future__ import annotations

import numpy as np

from ...model.quality import Quality
from ..curve import CurveSource
from ..day import Series
from ..masks import B1, F8, I2, masked_max
from . import checks
from .checks import Check, combine
from .days import (
    AMPS,
    FACTOR,
    FACTORS,
    FORWARD,
    LINES,
    REACTIVE,
    REPLACED,
    TARIFFS,
    VOLTAGE_TOP,
    VOLTS,
    Days,
)  # fmt: skip


def ends(series: Series) -> Series:
    """Registers at the ends of the slots: what a slot's label names."""
    return Series(series.value[:, 1:], series.quality[:, 1:])


def values_checked(d: Days, rows: int, slots: int) -> tuple[dict[str, I2], B1]:
    """Masks of what is judged value by value (K1, K2, K4, K7 tariffs, K8, K9, K11, K12), and the days of doubt."""
    doubt = checks.k2_clock(d.facts.clock_offset_s, 1)[:, 0]
    found: dict[str, dict[Check, B1]] = {}
    for name, series in {**d.curves, **{n: ends(s) for n, s in d.registers.items()}}.items():
        there = np.isfinite(series.value)
        found[name] = {
            Check.K1: there & (series.quality == Quality.X),
            Check.K2: there & ((series.quality == Quality.S) | doubt[:, None]),
        }
    moves = _register_moves(d, rows, slots)
    for name in (*VOLTS, *LINES):
        if name in d.curves:
            value = d.curves[name].value
            ok = np.isfinite(value)
            found[name][Check.K4] = checks.k4_limits(value, ok, np.zeros(rows), VOLTAGE_TOP * d.facts.nominal_v)
            found[name][Check.K9] = checks.k9_frozen(value, ok, moves)
    for name in (FACTOR, *FACTORS):
        if name in d.curves:
            value = d.curves[name].value
            found[name][Check.K4] = checks.k4_limits(value, np.isfinite(value), -np.ones(rows), np.ones(rows))
    top = 10.0**d.facts.digits
    for name, series in d.registers.items():
        value = series.value[:, 1:]
        low, high = np.zeros(rows), np.nextafter(top, 0.0)
        found[name][Check.K4] = checks.k4_limits(value, np.isfinite(value), low, high)
        if name in d.freezes:
            curve, other = series.value[:, 1:], d.freezes[name][:, 1:]
            known = np.isfinite(curve) & np.isfinite(other)
            least = 10.0 ** d.facts.least[:, None]
            a, b = (np.where(known, np.rint(np.nan_to_num(x) * least), 0).astype(np.int64) for x in (curve, other))
            found[name][Check.K11] = checks.k11_continuity(b, a, known)
    _tariffs_checked(d, found)
    _reactive_checked(d, found, rows, slots)
    _powers_consistent(d, found)
    return {name: combine(bad, (rows, slots)).astype(np.int16) for name, bad in found.items()}, doubt


def _register_moves(d: Days, rows: int, slots: int) -> B1:
    """Slots in which the forward register rose; known at the day's ends only, it moves in every slot or in none."""
    if FORWARD not in d.registers:
        return np.zeros((rows, slots), np.bool_)
    value = d.registers[FORWARD].value
    with np.errstate(invalid="ignore"):
        moves: B1 = np.diff(value, axis=1) > 0
        seldom = np.isfinite(value).sum(axis=1) < slots // 2
        whole = value[:, -1] > value[:, 0]
    return np.where(seldom[:, None], whole[:, None], moves)


def _tariffs_checked(d: Days, found: dict[str, dict[Check, B1]]) -> None:
    """K7: total register against the sum of its tariffs, where all that the meter has are there."""
    names = [n for n in TARIFFS if n in d.registers]
    if FORWARD not in d.registers or not names:
        return
    total = d.registers[FORWARD].value[:, 1:]
    stack = np.stack([d.registers[n].value[:, 1:] for n in names])
    used: B1 = np.logical_or.reduce(
        np.isfinite(stack), axis=-1, keepdims=True
    )  # a meter has the tariffs that it ever showed that day
    known = (
        np.isfinite(total)
        & np.logical_or.reduce(used, axis=0)
        & np.logical_and.reduce(np.isfinite(stack) | ~used, axis=0)
    )
    least = 10.0 ** d.facts.least[:, None]
    units = np.where(known, np.rint(np.nan_to_num(total) * least), 0).astype(np.int64)
    parts = np.where(known, np.rint(np.nan_to_num(stack) * least), 0).astype(np.int64)
    bad = known & checks.k7_tariffs(units.ravel(), parts.reshape(len(names), -1).T).reshape(total.shape)
    for name in (FORWARD, *names):
        found[name][Check.K7] = bad & np.isfinite(d.registers[name].value[:, 1:])


def _reactive_checked(d: Days, found: dict[str, dict[Check, B1]], rows: int, slots: int) -> None:
    """K12: kvarh beside kWh where the point has a kvarh register at all; jumps of the power factor."""
    none = np.full((rows, slots), np.nan)
    factor = d.curves[FACTOR].value if FACTOR in d.curves else none
    present = [d.registers[n].value[:, 1:] for n in REACTIVE if n in d.registers]
    if present and FORWARD in d.registers:
        there: B1 = np.logical_or.reduce(np.isfinite(np.stack(present)), axis=0)
        kwh_ok = np.isfinite(d.registers[FORWARD].value[:, 1:]) & np.logical_or.reduce(there, axis=1)[:, None]
        found[FORWARD][Check.K12] = checks.k12_reactive(kwh_ok, there, none)
    if FACTOR in d.curves:
        nothing = np.zeros((rows, slots), np.bool_)
        found[FACTOR][Check.K12] = checks.k12_reactive(nothing, nothing, factor)


def _powers_consistent(d: Days, found: dict[str, dict[Check, B1]]) -> None:
    """K8 on sampled powers: S against P and Q, P against the phases' U, I and cosφ (one side throughout)."""
    name = "active_power_total"
    if name not in d.curves:
        return
    p = d.curves[name].value
    bad = np.zeros(p.shape, np.bool_)
    if "reactive_power_total" in d.curves and "apparent_power_total" in d.curves:
        q, s = d.curves["reactive_power_total"].value, d.curves["apparent_power_total"].value
        bad |= checks.k8_apparent(p, q, s, np.isfinite(p) & np.isfinite(q) & np.isfinite(s))
    if all(n in d.curves for n in (*VOLTS, *AMPS, *FACTORS)):
        volts, amps, factors = (np.stack([d.curves[n].value for n in names]) for names in (VOLTS, AMPS, FACTORS))
        whole = np.logical_and.reduce(np.isfinite(volts * amps * factors), axis=0) & ~d.facts.three_wire[:, None]
        k = np.where(d.k.end > 0, d.k.end / 10.0**d.k.decimals, np.nan)[:, -1]
        rated = d.facts.contract_kva / k  # unknown: NaN compares false, nothing is judged
        bad |= checks.k8_phases(p, volts, amps, factors, np.isfinite(p) & whole, rated)
    found[name][Check.K8] = bad


def power_checked(d: Days, code: CurveSource, kw: F8, before: I2, two_way: B1, slot_net: F8, day_net: F8, k: F8) -> I2:
    """K4, K5, K6, K7 (demand), K9 of one source of power, primary kW."""
    hours = d.step_s / 3600.0
    ok = np.isfinite(kw) & (before & REPLACED == 0)
    kwh = np.where(two_way[:, None], np.abs(kw), kw) * hours
    bad: dict[Check, B1] = {
        Check.K4: checks.k4_energy(kwh, np.isfinite(kw), d.facts.contract_kva, d.facts.imax_kva, d.step_s)
    }
    ok &= ~bad[Check.K4]
    bad[Check.K5] = checks.k5_spike(np.abs(kw), ok, d.facts.contract_kva)
    ok &= ~bad[Check.K5]
    moves = np.where(np.logical_or.reduce(np.isfinite(slot_net), axis=1)[:, None], slot_net > 0, (day_net > 0)[:, None])
    bad[Check.K9] = checks.k9_frozen(kw, ok, moves)
    ok &= ~bad[Check.K9]
    quantum = k[:, -1] * 10.0 ** -d.facts.least.astype(np.float64)
    bad[Check.K6] = checks.k6_sum(np.where(ok, kw * hours, 0.0), ok, day_net, quantum)
    if d.meter_demand_kw is not None and code == CurveSource.METER_AVERAGE:
        bad[Check.K7] = checks.k7_demand(d.meter_demand_kw * k[:, -1], masked_max(kw, ok)[0])
    for check in (Check.K6, Check.K7):
        if check in bad:
            bad[check] = bad[check][:, None] & np.isfinite(kw)
    return combine(bad, (kw.shape[0], kw.shape[1])).astype(np.int16)


def day_checked(d: Days, kw: F8, mask: I2) -> I2:
    """K10 (warning) of the load."""
    if d.like_day_kwh is None:
        return np.zeros(mask.shape, np.int16)
    ok = np.isfinite(kw) & (mask & REPLACED == 0)
    total = np.where(ok.all(axis=1), np.where(ok, kw, 0.0).sum(axis=1) * d.step_s / 3600.0, np.nan)
    return combine({Check.K10: checks.k10_day(total, d.like_day_kwh)}, (mask.shape[0], mask.shape[1])).astype(np.int16)
