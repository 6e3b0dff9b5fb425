"""K1-K12 and EST1-EST5 against their rules in words, one value at a time (domain chapter 6)."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.analytics.energy import IntervalFlag
from fuhe.analytics.masks import B1, F8, I2
from fuhe.analytics.vee import checks
from fuhe.analytics.vee.checks import Check, checked_quality, combine, failed_checks
from fuhe.analytics.vee.estimate import estimate, exact_sums, gaps, like_day_mean, linear
from fuhe.model.quality import Quality

NAN = math.nan
value = st.one_of(st.just(NAN), st.sampled_from([0.0, 1.0, 2.0, 2.0, 5.0, 30.0]), st.floats(-5, 50))


@st.composite
def grids(draw: st.DrawFn, cells: Any = value, most: int = 40) -> F8:
    points, slots = draw(st.integers(1, 3)), draw(st.integers(1, most))
    rows = draw(st.lists(st.lists(cells, min_size=slots, max_size=slots), min_size=points, max_size=points))
    return np.array(rows, float)


def masks_like(draw: st.DataObject, x: F8) -> B1:
    """A validity mask that never calls a missing value valid."""
    cells = draw.draw(st.lists(st.booleans(), min_size=x.size, max_size=x.size))
    return np.array(cells).reshape(x.shape) & np.isfinite(x)


@settings(deadline=None, max_examples=80)
@given(st.data(), grids())
def test_k4_and_k5_equal_the_slow_rules(data: st.DataObject, x: F8) -> None:
    ok = masks_like(data, x)
    limits = st.lists(st.one_of(st.just(NAN), st.sampled_from([1.0, 20.0, 100.0])), min_size=len(x), max_size=len(x))
    contract, top = np.array(data.draw(limits)), np.array(data.draw(limits))
    energy = checks.k4_energy(x, ok, contract, top, 900)
    spike = checks.k5_spike(x, ok, contract)
    for p in range(len(x)):
        known = [v for v in (contract[p], top[p]) if v == v]
        most = 0.25 * 1.2 * max(known) if known else math.inf
        day = sorted((v for v, o in zip(x[p], ok[p], strict=True) if o), reverse=True)
        least = 0.05 * contract[p] if contract[p] == contract[p] else 0.0
        for s in range(x.shape[1]):
            assert energy[p, s] == (ok[p, s] and (x[p, s] < 0 or x[p, s] > most))
            h = x[p, s]
            high = ok[p, s] and len(day) >= 3 and day[2] >= 0 and h > least and h > day[2]
            assert spike[p, s] == (high and h - day[2] > 1.8 * day[2])


def test_k5_names_the_spike_of_a_day() -> None:
    kw = np.full((1, 96), 100.0)
    kw[0, 40] = 281.0
    ok = np.ones((1, 96), bool)
    assert np.flatnonzero(checks.k5_spike(kw, ok, np.array([1000.0]))[0]).tolist() == [40]
    kw[0, 40] = 280.0  # exactly 1.8
    assert not checks.k5_spike(kw, ok, np.array([1000.0])).any()
    kw[0, 40] = 400.0
    assert not checks.k5_spike(kw, ok, np.array([8000.0])).any()  # 400 kW is 5 % of 8000 kVA


@settings(deadline=None, max_examples=80)
@given(st.data(), st.integers(1, 3), st.integers(1, 5))
def test_k2_places_readings_and_finds_conflicts(data: st.DataObject, points: int, slots: int) -> None:
    row = st.tuples(st.integers(0, points - 1), st.integers(0, slots - 1), st.sampled_from([NAN, 1.0, 2.0, 3.0]))
    rows = data.draw(st.lists(row, max_size=30))
    p, s, v = (np.array([r[i] for r in rows], t) for i, t in ((0, np.int64), (1, np.int64), (2, float)))
    placed = checks.k2_place(p, s, v, points=points, slots=slots)
    for i in range(points):
        for j in range(slots):
            here = [r[2] for r in rows if r[:2] == (i, j) and r[2] == r[2]]
            assert placed.value[i, j] == pytest.approx(here[0] if here else NAN, nan_ok=True)
            assert placed.conflict[i, j] == (len(set(here)) > 1)
        assert placed.count[i] == np.isfinite(placed.value[i]).sum()


@settings(deadline=None, max_examples=120)
@given(st.data(), grids(st.sampled_from([0.0, 5.0, 5.0, 5.0, 7.0, NAN]), most=70))
def test_k9_equals_the_slow_runs(data: st.DataObject, x: F8) -> None:
    if data.draw(st.booleans()):
        x = np.repeat(x, 8, axis=1)
    ok, moves = masks_like(data, x), masks_like(data, np.zeros(x.shape))
    got = checks.k9_frozen(x, ok, moves)
    for p in range(len(x)):
        s = 0
        while s < x.shape[1]:
            e = s + 1
            while e < x.shape[1] and ok[p, s] and ok[p, e] and x[p, e] == x[p, s] != 0:
                e += 1
            frozen = bool(ok[p, s]) and e - s >= 24 and bool(moves[p, s:e].any())
            assert got[p, s:e].tolist() == [frozen] * (e - s)
            s = e


def test_the_other_checks_at_their_limits() -> None:
    one = np.array([[1.0]])
    yes = np.array([[True]])
    assert checks.k1_frame(np.array([[1.0, NAN]]), np.array([[False, False]])).tolist() == [[True, False]]
    assert checks.k2_clock(np.array([300.0, -301.0, NAN]), 1).ravel().tolist() == [False, True, False]
    flags = np.array([[IntervalFlag.OK, IntervalFlag.DECREASE, IntervalFlag.ROLLOVER]], np.int16)
    assert checks.k3_monotonic(flags).tolist() == [[False, True, False]]
    limits = np.array([-1.0]), np.array([1.0])
    factor = np.array([[-1.0, 1.0, 1.001, NAN]])
    assert checks.k4_limits(factor, np.isfinite(factor), *limits).tolist() == [[False, False, True, False]]
    quarter = np.full((3, 96), 1.0)
    quarter[2, 5] = NAN
    whole = np.isfinite(quarter)
    assert checks.k6_sum(quarter, whole, np.array([96.96, 97.0, 200.0]), np.full(3, 0.01)).tolist() == [
        False,
        True,
        False,
    ]
    assert checks.k6_sum(quarter[:1], whole[:1], np.array([98.0]), np.array([1.0])).tolist() == [False]  # two quanta
    assert checks.k7_tariffs(np.array([100, 100]), np.array([[50, 47], [50, 46]])).tolist() == [False, True]
    assert checks.k7_demand(np.array([99.0, 98.9, NAN]), np.full(3, 100.0)).tolist() == [False, True, False]
    assert not checks.k8_apparent(3 * one, 4 * one, 5 * one, yes).any()
    assert checks.k8_apparent(3 * one, 4 * one, 5.4 * one, yes).all()
    volts, amps = np.full((3, 1, 1), 220.0), np.full((3, 1, 1), 10.0)
    volts[1] = NAN  # a wiring without phase B
    assert not checks.k8_phases(4.4 * one, volts, amps, np.ones((3, 1, 1)), yes, np.array([10.0])).any()
    assert checks.k8_phases(4.7 * one, volts, amps, np.ones((3, 1, 1)), yes, np.array([10.0])).all()
    assert not checks.k8_phases(4.7 * one, volts, amps, np.ones((3, 1, 1)), yes, np.array([47.0])).any()
    like = np.array([[100.0, 110.0, NAN], [NAN, NAN, NAN]])
    assert checks.k10_day(np.array([157.5, 157.6]), like).tolist() == [False, False]
    assert checks.k10_day(np.array([157.6, NAN]), like).tolist() == [True, False]
    edge = np.array([100, 100, 100])
    assert checks.k11_continuity(edge, np.array([101, 102, 900]), np.array([1, 1, 0], bool)).tolist() == [
        False,
        True,
        False,
    ]
    reactive = checks.k12_reactive(
        np.array([[True, True, False]]), np.array([[True, False, False]]), np.array([[0.5, 0.9, 0.4]])
    )
    assert reactive.tolist() == [[False, True, True]]


def test_failed_checks_become_qualities_and_the_worse_wins() -> None:
    bad = {Check.K5: np.array([[True, True, False, False]]), Check.K4: np.array([[False, True, False, True]])}
    mask = combine(bad | {Check.K10: np.array([True])}, (1, 4))
    quality = np.array([[Quality.A, Quality.A, Quality.A, Quality.U]], np.int16)
    got = checked_quality(np.array([[1.0, 1.0, NAN, 1.0]]), quality, mask)
    assert got.tolist() == [[Quality.S, Quality.X, Quality.M, Quality.U]]
    assert failed_checks(int(mask[0, 1])) == [Check.K4, Check.K5, Check.K10]
    warned = checked_quality(
        np.ones((1, 1)), np.zeros((1, 1), np.int16), combine({Check.K10: np.array([True])}, (1, 1))
    )
    assert warned.tolist() == [[Quality.A]]


@settings(deadline=None, max_examples=100)
@given(st.data(), grids(most=30))
def test_like_days_and_lines_equal_the_slow_rules(data: st.DataObject, x: F8) -> None:
    points, slots = x.shape
    history = np.stack([np.roll(x, k, axis=1) for k in range(5)], axis=1)
    usable = np.array(data.draw(st.lists(st.booleans(), min_size=points * 5, max_size=points * 5))).reshape(points, 5)
    mean = like_day_mean(history, usable)
    missing = ~np.isfinite(x)
    good = masks_like(data, x)
    start, end = gaps(missing)
    line = linear(x, good, missing, 900)
    for p in range(points):
        for s in range(slots):
            three = [history[p, d, s] for d in range(5) if usable[p, d] and history[p, d, s] == history[p, d, s]][:3]
            assert mean[p, s] == pytest.approx(sum(three) / len(three) if three else NAN, nan_ok=True)
            a = b = s
            while missing[p, s] and a > 0 and missing[p, a - 1]:
                a -= 1
            while missing[p, s] and b < slots and missing[p, b]:
                b += 1
            assert (start[p, s], end[p, s]) == ((a, b) if missing[p, s] else (-1, -1))
            ends_good = missing[p, s] and b - a <= 8 and a > 0 and b < slots and good[p, a - 1] and good[p, b]
            want = x[p, a - 1] + (x[p, b] - x[p, a - 1]) * (s - a + 1) / (b - a + 1) if ends_good else NAN
            assert line[p, s] == pytest.approx(want, nan_ok=True)


def slow_exact(kwh: list[float], quality: list[int], cumulative: list[float]) -> tuple[list[float], list[int]]:
    """EST5 in words: from each register to the next one that is there."""
    kwh, quality = list(kwh), list(quality)
    known = [i for i, c in enumerate(cumulative) if c == c]
    for a, b in itertools.pairwise(known):
        guessed = [i for i in range(a, b) if Quality.E1 <= quality[i] <= Quality.E4]
        if not guessed or any(kwh[i] != kwh[i] for i in range(a, b)):
            continue
        left = cumulative[b] - cumulative[a] - sum(kwh[i] for i in range(a, b) if i not in guessed)
        mass = sum(max(kwh[i], 0.0) for i in guessed)
        if left < 0:
            continue
        for i in guessed:
            kwh[i] = left * (max(kwh[i], 0.0) / mass if mass > 0 else 1.0 / len(guessed))
            quality[i] = Quality.E5
    return kwh, quality


@settings(deadline=None, max_examples=150)
@given(st.data(), grids(st.one_of(st.just(NAN), st.integers(0, 8).map(float)), most=16))
def test_exact_sums_equal_the_slow_rule(data: st.DataObject, x: F8) -> None:
    codes = st.sampled_from([Quality.A, Quality.E1, Quality.E3, Quality.O, Quality.U])
    quality = np.array(data.draw(st.lists(codes, min_size=x.size, max_size=x.size)), np.int16).reshape(x.shape)
    quality = np.where(np.isfinite(x), quality, Quality.M).astype(np.int16)
    steps = np.array(data.draw(st.lists(st.integers(0, 9), min_size=x.size, max_size=x.size)), float).reshape(x.shape)
    cumulative = np.concatenate([np.zeros((len(x), 1)), np.cumsum(steps, axis=1)], axis=1)
    holes = np.array(data.draw(st.lists(st.booleans(), min_size=cumulative.size, max_size=cumulative.size)))
    cumulative[holes.reshape(cumulative.shape)] = NAN
    got, code = exact_sums(x, quality, cumulative)
    for p in range(len(x)):
        want, want_code = slow_exact(x[p].tolist(), quality[p].tolist(), cumulative[p].tolist())
        assert got[p].tolist() == pytest.approx(want, nan_ok=True) and code[p].tolist() == want_code


def day(*, missing: slice | None = None, slots: int = 288) -> tuple[F8, I2]:
    kwh = np.tile(np.arange(1.0, 97.0), slots // 96)[None].copy()
    quality = np.zeros(kwh.shape, np.int16)
    if missing:
        kwh[0, missing] = NAN
        quality[0, missing] = Quality.M
    return kwh, quality


def test_the_order_of_estimation() -> None:
    kwh, quality = day(missing=slice(90, 98))  # two hours over midnight
    short = estimate(kwh, quality, step_s=900)
    assert (short.quality[0, 90:98] == Quality.E2).all()
    np.testing.assert_allclose(short.kwh[0, 89:99], np.linspace(90, 3, 10))
    kwh, quality = day(missing=slice(90, 99))
    like, profile = np.full(kwh.shape, 7.0), np.full(kwh.shape, 9.0)
    like[0, 92] = NAN
    outage, check = np.zeros(kwh.shape, bool), np.full(kwh.shape, NAN)
    outage[0, 90:92], check[0, 95] = True, 4.0
    long = estimate(
        kwh, quality, step_s=900, outage=outage, check_kwh=check, like_kwh=like, profile_kwh=profile
    )  # fmt: skip
    codes = [Quality(int(q)) for q in long.quality[0, 90:99]]
    # an outage slot is no end point for a line: the rest takes like days, and the class profile where they lack a slot
    assert codes == [Quality.O] * 2 + [Quality.E4] + [Quality.E3] * 2 + [Quality.E1] + [Quality.E3] * 3
    assert long.kwh[0, 90:96].tolist() == [0, 0, 9, 7, 7, 4]


def test_registers_make_the_sum_of_a_gap_exact() -> None:
    whole, _ = day()
    cumulative = np.concatenate([np.zeros((1, 1)), np.cumsum(whole, axis=1)], axis=1)
    kwh, quality = day(missing=slice(40, 60))
    cumulative[0, 41:60] = NAN
    got = estimate(kwh, quality, step_s=900, like_kwh=np.full(kwh.shape, 3.0), cumulative_kwh=cumulative)
    assert (got.quality[0, 40:60] == Quality.E5).all()
    assert got.kwh[0, 40:60].sum() == pytest.approx(whole[0, 40:60].sum(), rel=1e-12)
    assert got.kwh.sum() == pytest.approx(whole.sum(), rel=1e-12)


def test_more_than_seven_days_need_a_person_and_rejected_values_are_replaced() -> None:
    kwh, quality = day(missing=slice(100, 100 + 7 * 96 + 1), slots=96 * 10)
    got = estimate(kwh, quality, step_s=900, like_kwh=np.full(kwh.shape, 3.0))
    assert got.needs_person[0, 100] and (got.quality[0, 100:773] == Quality.M).all() and np.isnan(got.kwh[0, 100])
    kwh, quality = day()
    quality[0, 10], quality[0, 20] = Quality.X, Quality.U
    kwh[0, 10] = 9999.0
    got = estimate(kwh, quality, step_s=900)
    assert got.kwh[0, 10] == 11.0 and got.quality[0, 10] == Quality.E2 and got.quality[0, 20] == Quality.U
