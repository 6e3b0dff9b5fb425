"""RAW -> CHECKED -> FINAL of whole chunks against the rules told slot by slot, and the cases that people ask about."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.analytics.curve import CurveSource
from fuhe.analytics.day import Series
from fuhe.analytics.energy import Exchanges, IntervalFlag, Multipliers, constant_multipliers
from fuhe.analytics.masks import F8, I2
from fuhe.analytics.vee.checks import Check, failed_checks
from fuhe.analytics.vee.day_pass import checked_and_final
from fuhe.analytics.vee.days import LOAD, Days, Edits, Facts, Layers
from fuhe.model.quality import Quality

A, S, X, M = Quality.A, Quality.S, Quality.X, Quality.M
POWER, FORWARD, REVERSE = "active_power_total", "forward_active_total", "reverse_active_total"
N = 96


def facts(rows: int, contract: float = math.nan) -> Facts:
    nan = np.full(rows, math.nan)
    return Facts(
        contract_kva=np.full(rows, contract), imax_kva=nan, nominal_v=np.full(rows, 220.0),
        three_wire=np.zeros(rows, bool), digits=np.full(rows, 6), least=np.full(rows, 2), clock_offset_s=nan,
    )  # fmt: skip


def series(value: F8, quality: I2 | None = None) -> Series:
    plain = np.where(np.isfinite(value), A, M).astype(np.int16)
    return Series(value, plain if quality is None else quality)


def days(
    curves: Mapping[str, F8], registers: Mapping[str, F8] | None = None, *, k: int = 1, count: int = 1, slots: int = N,
    contract: float = math.nan,
) -> Days:  # fmt: skip
    rows = len(next(iter(curves.values())) if curves else next(iter((registers or {}).values())))
    return Days(
        days=count,
        step_s=86_400 // slots,
        curves={n: series(v) for n, v in curves.items()},
        registers={n: series(v) for n, v in (registers or {}).items()},
        k=constant_multipliers([Decimal(k)] * rows, slots),
        facts=facts(rows, contract),
    )


def wave(rows: int = 1, slots: int = N) -> F8:
    """A load that repeats no value."""
    t = np.arange(rows * slots).reshape(rows, slots)
    return 100.0 + 20.0 * np.sin(t / 7.0) + 0.01 * (t % 13)


def register_of(kw: F8, start: float = 1000.0) -> F8:
    """A register with 4 decimals that runs along with the load (K = 1)."""
    flat = np.round(start + np.concatenate([[0.0], np.cumsum(kw.ravel() * 24 / kw.shape[1])]), 4)
    slots = kw.shape[1]
    return np.stack([flat[i * slots : (i + 1) * slots + 1] for i in range(len(kw))])


def names(layers: Layers, name: str, row: int, slot: int) -> list[Check]:
    return failed_checks(int(layers.failed[name][row, slot]))


def test_a_good_day_passes_whole() -> None:
    kw = wave()
    layers = checked_and_final(days({POWER: kw / 60}, {FORWARD: register_of(kw) / 1}, k=60))
    # The register is secondary as well: with K = 60 it must run sixty times slower.
    layers = checked_and_final(days({POWER: kw / 60}, {FORWARD: np.round(register_of(kw, 0) / 60, 4)}, k=60))
    assert layers.load_kw[0] == pytest.approx(kw[0], abs=1e-5)
    assert (layers.load_quality == A).all()
    assert not layers.load_failed.any()
    assert not layers.failed[FORWARD].any()
    assert layers.import_kwh[0] == pytest.approx(kw.sum() / 4, rel=1e-4)


def test_a_short_gap_takes_the_registers_difference_as_its_sum() -> None:
    kw = wave()
    register = register_of(kw)
    holed = kw.copy()
    holed[0, 40:44] = math.nan
    register[0, 41:44] = math.nan
    layers = checked_and_final(days({POWER: holed}, {FORWARD: register}))
    assert set(layers.load_quality[0, 40:44].tolist()) == {Quality.E5}
    total = layers.load_kw[0, 40:44].sum() / 4
    assert total == pytest.approx(register[0, 44] - register[0, 40], abs=2e-6)
    line = np.interp(np.arange(40, 44), [39, 44], [kw[0, 39], kw[0, 44]])
    assert layers.load_kw[0, 40:44] / line == pytest.approx(np.full(4, total / (line.sum() / 4)), rel=1e-6)


def test_a_gap_over_midnight_is_seen_from_both_days() -> None:
    kw = wave(3)
    kw[0, 93:] = math.nan
    kw[1, :3] = math.nan
    layers = checked_and_final(days({POWER: kw}, count=3))
    assert set(layers.load_quality[0, 93:].tolist() + layers.load_quality[1, :3].tolist()) == {Quality.E2}
    line = np.interp(np.arange(93, 99), [92, 99], [kw[0, 92], kw[1, 3]])
    assert np.r_[layers.load_kw[0, 93:], layers.load_kw[1, :3]] == pytest.approx(line, abs=1e-5)
    alone = checked_and_final(days({POWER: kw}))
    assert (alone.load_quality[0, 93:] == M).all()
    assert alone.reaches.tolist() == [True, True, False]


def test_a_register_of_only_midnights_settles_a_gap_of_two_days() -> None:
    kw = wave(4)
    register = register_of(kw)
    register[:, 1:-1] = math.nan
    holed = kw.copy()
    holed[1, 50:] = math.nan
    holed[2, :60] = math.nan
    register[1, -1] = register[2, 0] = math.nan  # the midnight inside the gap is missing too
    d = days({POWER: holed}, {FORWARD: register}, count=4)
    layers = checked_and_final(replace(d, like_kwh=np.full(kw.shape, 80.0)))
    gap = np.r_[layers.load_kw[1, 50:], layers.load_kw[2, :60]]
    assert np.isfinite(gap).all()
    both = (layers.load_kw[1].sum() + layers.load_kw[2].sum()) / 4
    assert both == pytest.approx(register[2, -1] - register[1, 0], abs=1e-4)


def test_exchange_rollover_and_unknown_decrease() -> None:
    kw = np.full((3, N), 4.0)
    register = np.full((3, N + 1), math.nan)
    register[:, 0], register[:, -1] = [999_950.0, 4500.1, 4500.1], [46.0, 40.0, 4498.0]
    d = days({POWER: kw}, {FORWARD: register}, contract=10.0)
    change = Exchanges(
        point=np.array([1]), slot=np.array([40]), old_end=np.array([45_400_000]), new_start=np.array([0]),
        k_old=np.array([1]), k_new=np.array([2]),
    )  # fmt: skip
    layers = checked_and_final(replace(d, exchanges=change))
    assert layers.import_kwh[0] == 96.0  # a proven rollover
    assert layers.import_kwh[1] == pytest.approx(39.9 + 2 * 40.0)
    assert math.isnan(layers.import_kwh[2])


def test_one_wrong_reading_is_rejected_and_the_rest_of_the_chain_holds() -> None:
    kw = wave()
    register = register_of(kw)
    register[0, 30] += 5000.0  # one reading far too high
    register[0, 60] -= 900.0  # one too low
    layers = checked_and_final(days({}, {FORWARD: register}))
    wrong = np.flatnonzero(layers.failed[FORWARD][0] & (1 << (Check.K3 - 1)))
    assert wrong.tolist() == [29, 59]
    assert layers.checked[FORWARD][0, [29, 59]].tolist() == [X, X]
    assert np.isnan(layers.values[FORWARD][0, [29, 59]]).all()
    assert layers.import_kwh[0] == pytest.approx(register[0, -1] - register[0, 0])
    assert set(layers.load_source[0].tolist()) <= {CurveSource.REGISTER, CurveSource.NONE}


def test_a_multiplier_that_changes_at_noon_counts_from_noon() -> None:
    kw = np.full((1, N), 2.0) + np.arange(N) * 0.001
    units = np.where(np.arange(N) < 48, 30, 60)[None].astype(np.int64)
    d = replace(days({POWER: kw}), k=Multipliers(start=units, end=units, decimals=0))
    assert checked_and_final(d).load_kw[0] == pytest.approx(kw[0] * units[0], abs=1e-5)


def test_negative_power_needs_a_reverse_register() -> None:
    kw = wave()
    kw[0, 20:24] = -5.0
    alone = checked_and_final(days({POWER: kw}))
    assert names(alone, POWER, 0, 21) == [Check.K4]
    assert alone.load_quality[0, 21] == Quality.E2
    back = np.round(50.0 + np.r_[0.0, np.cumsum(np.maximum(-kw[0], 0) / 4)], 4)[None]
    both = checked_and_final(days({POWER: kw}, {FORWARD: register_of(np.maximum(kw, 0)), REVERSE: back}))
    assert (both.load_quality == A).all()
    assert both.export_kwh[0] == pytest.approx(5.0)
    assert both.load_kw[0, 21] == -5.0


def test_an_average_that_contradicts_the_registers_gives_way_to_them() -> None:
    kw = wave()
    layers = checked_and_final(days({"active_demand": kw * 1.1}, {FORWARD: register_of(kw)}))
    assert names(layers, "active_demand", 0, 3) == [Check.K6]
    assert (layers.load_source == CurveSource.REGISTER).all()
    assert layers.load_kw[0] == pytest.approx(kw[0], abs=4e-4)
    sampled = checked_and_final(days({POWER: kw * 1.1}, {FORWARD: register_of(kw)}))
    assert names(sampled, POWER, 0, 3) == [Check.K6]
    assert (sampled.load_source == CurveSource.SAMPLED).all()
    assert (sampled.load_quality == A).all()


def test_consistency_leaves_suspect_values_and_estimates_nothing() -> None:
    kw = wave()
    d = days({POWER: kw, "reactive_power_total": kw * 0.2, "apparent_power_total": kw * 1.5})
    layers = checked_and_final(d)
    assert names(layers, POWER, 0, 5) == [Check.K8]
    assert (layers.load_quality == S).all()
    assert layers.load_kw[0] == pytest.approx(kw[0], abs=1e-5)
    assert layers.quality["reactive_power_total"].max() == A


def test_measured_quantities_are_never_estimated() -> None:
    volts = np.full((1, N), 220.0) + np.arange(N) * 0.1
    volts[0, 10], volts[0, 20] = 400.0, math.nan
    layers = checked_and_final(days({POWER: wave(), "voltage_a": volts}))
    assert layers.quality["voltage_a"][0, [10, 20, 30]].tolist() == [X, M, A]
    assert np.isnan(layers.values["voltage_a"][0, [10, 20]]).all()
    assert not np.isin(layers.quality["voltage_a"], (Quality.E1, Quality.E2, Quality.E3, Quality.E5)).any()


def test_what_people_decided() -> None:
    kw = wave()
    kw[0, 50] = 900.0
    d = days({POWER: kw}, contract=1000.0)
    assert names(checked_and_final(d), POWER, 0, 50) == [Check.K5]
    none, value = np.zeros((1, N), bool), np.full((1, N), math.nan)
    yes, no, how = none.copy(), none.copy(), np.zeros((1, N), np.int16)
    yes[0, 50], no[0, 60], value[0, 70], how[0, 80] = True, True, 77.0, Quality.E3
    edits = {LOAD: Edits(value=value, accepted=yes, rejected=no, method=how)}
    done = checked_and_final(replace(d, edits=edits, like_kwh=np.full((1, N), 21.0)))
    assert done.load_quality[0, [50, 60, 70, 80]].tolist() == [Quality.U, Quality.E2, Quality.U, Quality.E3]
    assert done.load_kw[0, [50, 70, 80]].tolist() == [900.0, 77.0, 84.0]


def test_more_than_seven_days_wait_for_a_person() -> None:
    kw = wave(10)
    kw[1:9] = math.nan
    d = replace(days({POWER: kw}, count=10), like_kwh=np.full(kw.shape, 20.0))
    layers = checked_and_final(d)
    assert layers.needs_person[1:9].all()
    assert (layers.load_quality[1:9] == M).all()
    how = np.zeros(kw.shape, np.int16)
    how[4] = Quality.E3
    edit = Edits(
        value=np.full(kw.shape, math.nan), accepted=how > 99, rejected=how > 99, method=how
    )  # fmt: skip
    asked = checked_and_final(replace(d, edits={LOAD: edit}))
    assert (asked.load_quality[4] == Quality.E3).all()
    assert (asked.load_quality[3] == M).all()


cell = st.one_of(st.just(math.nan), st.floats(0.5, 40.0), st.just(500.0), st.just(-3.0))


@st.composite
def chunks(draw: st.DrawFn) -> Days:
    """Small chunks: a few points of 1 to 3 days, 24 slots, holes, spikes, negative values, wrong registers."""
    count, points, slots = draw(st.integers(1, 3)), draw(st.integers(1, 3)), 24
    rows = count * points
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kw = np.round(rng.uniform(5, 20, (rows, slots)), 3)
    register = np.concatenate([register_of(kw[p * count : (p + 1) * count], 100.0) for p in range(points)])
    for _ in range(draw(st.integers(0, 6))):
        row, a = draw(st.integers(0, rows - 1)), draw(st.integers(0, slots - 1))
        kw[row, a : a + draw(st.integers(1, slots))] = draw(cell)
    for _ in range(draw(st.integers(0, 6))):
        row, a = draw(st.integers(0, rows - 1)), draw(st.integers(0, slots))
        register[row, a : a + draw(st.integers(1, slots))] = math.nan
    d = days(
        {POWER: kw}, {FORWARD: register}, count=count, slots=slots, contract=draw(st.sampled_from([math.nan, 60.0]))
    )
    like = np.where(rng.random(kw.shape) < 0.7, 9.0, math.nan)
    outage = rng.random(kw.shape) < 0.05
    return replace(d, like_kwh=like, outage=outage)


def _slow_load(d: Days, row0: int) -> list[tuple[float, int]]:
    """One point's load, slot by slot, straight from the words of chapters 4 and 6 (sampled power and one register)."""
    count, step = d.days, d.step_s
    slots, hours = 86_400 // step, step / 3600
    kw = [float(v) for r in range(row0, row0 + count) for v in d.curves[POWER].value[r]]
    like = [float(v) for r in range(row0, row0 + count) for v in d.like_kwh[r]]  # type: ignore[index]
    outage = [bool(v) for r in range(row0, row0 + count) for v in d.outage[r]]  # type: ignore[index]
    reg = [float(d.registers[FORWARD].value[row0, 0])]
    for r in range(row0, row0 + count):
        reg += [float(v) for v in d.registers[FORWARD].value[r, 1:]]
        if r + 1 < row0 + count and math.isnan(reg[-1]):
            reg[-1] = float(d.registers[FORWARD].value[r + 1, 0])
    contract = float(d.facts.contract_kva[row0])
    top = math.inf if math.isnan(contract) else 1.2 * contract
    value: list[float] = []
    suspect: list[bool] = []
    other: list[float] = []  # the sampled power of days that take the registers
    for day in range(count):
        here = kw[day * slots : (day + 1) * slots]
        good = [v for v in here if v == v and 0 <= v <= top]
        third = sorted(good)[-3] if len(good) >= 3 else math.nan
        least = 0.05 * contract if contract == contract else 0.0
        bad = []
        for v in here:
            wrong = v == v and not 0 <= v <= top
            spike = v == v and not wrong and third == third and v > least and v > third and v - third > 1.8 * third
            bad.append(wrong or spike)
        frozen = [False] * slots
        a = 0
        while a < slots:
            b = a
            while b + 1 < slots and here[b + 1] == here[a] and here[a] != 0 and not bad[a] and not bad[b + 1]:
                b += 1
            moves = any(
                reg[day * slots + i + 1] - reg[day * slots + i] > 0
                for i in range(a, b + 1)
                if reg[day * slots + i + 1] == reg[day * slots + i + 1] and reg[day * slots + i] == reg[day * slots + i]
            )
            if b - a + 1 >= 24 and moves:
                frozen[a : b + 1] = [True] * (b - a + 1)
            a = b + 1
        kept = [math.nan if x or f else v for v, x, f in zip(here, bad, frozen, strict=True)]
        span = reg[day * slots : (day + 1) * slots + 1]
        moved = [(b - a) / hours for a, b in itertools.pairwise(span)]
        moved = [v if v == v and 0 <= v <= top else math.nan for v in moved]
        mine, theirs = (sum(v == v for v in x) for x in (kept, moved))
        if mine < 0.95 * slots and (theirs >= 0.95 * slots or theirs > mine):
            value += moved
            other += kept
            suspect += [False] * slots
            continue
        other += [math.nan] * slots
        value += kept
        suspect += [(x and 0 <= v <= top) or f for v, x, f in zip(here, bad, frozen, strict=True)]
    n = len(value)
    out = [0.0 if v != v and o else v * hours for v, o in zip(value, outage, strict=True)]
    code = [Quality.O if v != v and o else M if v != v else A for v, o in zip(value, outage, strict=True)]
    base = list(code)
    for i in range(n):
        if base[i] != M:
            continue
        a = i
        while a > 0 and base[a - 1] == M:
            a -= 1
        b = i
        while b < n and base[b] == M:
            b += 1
        if (b - a) * step > 7 * 86_400:
            continue
        if other[i] == other[i]:
            out[i], code[i] = other[i] * hours, Quality.E1
            continue
        if (b - a) * step <= 7200 and a > 0 and b < n and base[a - 1] == A and base[b] == A:
            out[i] = out[a - 1] + (out[b] - out[a - 1]) * (i - a + 1) / (b - a + 1)
            code[i] = Quality.E2
        elif like[i] == like[i]:
            out[i], code[i] = like[i], Quality.E3
    known = [i for i in range(n + 1) if reg[i] == reg[i]]
    result, final = list(out), list(code)
    for first, last in itertools.pairwise(known):
        between = range(first, last)
        guessed = [i for i in between if code[i] in (Quality.E1, Quality.E2, Quality.E3)]
        if not guessed or any(code[i] == M for i in between):
            continue
        left = reg[last] - reg[first] - sum(out[i] for i in between if i not in guessed)
        if left < -1e-9:
            continue
        mass = sum(max(out[i], 0) for i in guessed)
        for i in guessed:
            result[i] = left * (out[i] / mass if mass > 0 else 1 / len(guessed))
            final[i] = Quality.E5
    for i in range(n):
        if final[i] == M and suspect[i]:
            result[i], final[i] = kw[i] * hours, S
    return [(r / hours, int(q)) for r, q in zip(result, final, strict=True)]


@settings(deadline=None, max_examples=150)
@given(chunks())
def test_the_chunk_equals_the_rules_told_slot_by_slot(d: Days) -> None:
    layers = checked_and_final(d)
    slots = layers.load_kw.shape[1]
    for row0 in range(0, len(layers.load_kw), d.days):
        for i, (kw, quality) in enumerate(_slow_load(d, row0)):
            row, slot = row0 + i // slots, i % slots
            where = f"point row {row0}, day {i // slots}, slot {slot}"
            assert layers.load_quality[row, slot] == quality, where
            if quality != M:
                assert layers.load_kw[row, slot] == pytest.approx(kw, abs=2.1e-5), where


@settings(deadline=None, max_examples=60)
@given(chunks())
def test_each_point_alone_is_the_same_as_in_the_chunk(d: Days) -> None:
    whole = checked_and_final(d)
    for row0 in range(0, len(whole.load_kw), d.days):
        mine = slice(row0, row0 + d.days)
        assert d.like_kwh is not None
        assert d.outage is not None
        one = checked_and_final(
            replace(
                d,
                curves={n: Series(s.value[mine], s.quality[mine]) for n, s in d.curves.items()},
                registers={n: Series(s.value[mine], s.quality[mine]) for n, s in d.registers.items()},
                k=Multipliers(start=d.k.start[mine], end=d.k.end[mine], decimals=0),
                facts=Facts(**{f: getattr(d.facts, f)[mine] for f in Facts.__slots__}),
                like_kwh=d.like_kwh[mine],
                outage=d.outage[mine],
            )
        )
        for name in ("load_kw", "load_quality", "load_failed", "load_source", "import_kwh", "energy_flag"):
            assert np.array_equal(getattr(one, name), getattr(whole, name)[mine], equal_nan=True), name
        for name, mask in one.failed.items():
            assert np.array_equal(mask, whole.failed[name][mine])


def test_the_day_flag_names_the_decrease() -> None:
    register = np.full((1, N + 1), math.nan)
    register[0, [0, 50, 51, -1]] = [100.0, 150.0, 20.0, 30.0]
    layers = checked_and_final(days({}, {FORWARD: register}))
    assert layers.energy_flag[0] == IntervalFlag.DECREASE
    assert math.isnan(layers.import_kwh[0])
