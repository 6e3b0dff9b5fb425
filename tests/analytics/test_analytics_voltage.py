"""Voltage, unbalance and power factor: chapter 13's check values and slow references (domain 4.6-4.8)."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.analytics.power_factor import NULL, adjustment, compensation_kvar, month_cos
from fuhe.analytics.unbalance import sequence_ratio, spread_rate
from fuhe.analytics.voltage import band_of, bands, composite, month_range, qualification


def judge(volts: list[float], un: float = 220.0, band: str = "three_phase") -> tuple[int, int, int, int]:
    v = np.array(volts)[None, None]
    b = bands()[band]
    q = qualification(v, np.isfinite(v), np.array([un]), np.array([b.low]), np.array([b.high]))
    return int(q.monitored[0, 0]), int(q.over[0, 0]), int(q.under[0, 0]), int(q.excluded[0, 0])


def test_limits_are_inclusive_to_the_millivolt() -> None:
    assert judge([235.4, 235.401, 204.6, 204.599]) == (4, 1, 1, 0)
    assert judge([198.0, 197.999, 235.4], band="single_phase") == (3, 0, 1, 0)


def test_samples_outside_the_judged_range_are_not_voltages() -> None:
    assert judge([154.0, 153.999, 264.0, 264.001, 0.0, math.nan]) == (2, 1, 1, 3)


sample = st.one_of(st.just(math.nan), st.floats(140, 280), st.sampled_from([154.0, 264.0, 204.6, 235.4, 0.0]))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(sample, sample, sample), min_size=1, max_size=30), st.booleans())
def test_qualification_equals_the_slow_loop(rows: list[tuple[float, float, float]], has_b: bool) -> None:
    v = np.round(np.array(rows).T[:, None, :], 3)
    phases = np.array([[True], [has_b], [True]])
    got = qualification(v, np.isfinite(v), np.array([220.0]), np.array([930]), np.array([1070]), phases)
    out_slots = monitored_slots = 0
    counts = [[0, 0, 0, 0] for _ in range(3)]
    for slot in range(v.shape[2]):
        any_out = any_monitored = False
        for phase in range(3):
            volts = v[phase, 0, slot]
            if not math.isfinite(volts) or not phases[phase, 0]:
                continue
            ratio = Decimal(str(volts)) / 220
            if not Decimal("0.7") <= ratio <= Decimal("1.2"):
                counts[phase][3] += 1
                continue
            any_monitored = True
            counts[phase][0] += 1
            over, under = ratio > Decimal("1.07"), ratio < Decimal("0.93")
            counts[phase][1] += over
            counts[phase][2] += under
            any_out |= over or under
        out_slots += any_out
        monitored_slots += any_monitored
    for phase in range(3):
        m, o, u, x = counts[phase]
        assert (got.monitored[phase, 0], got.over[phase, 0], got.under[phase, 0], got.excluded[phase, 0]) == (
            m,
            o,
            u,
            x,
        )
        expected = 1 - (o + u) / m if m else math.nan
        assert got.rate[phase, 0] == pytest.approx(expected, nan_ok=True)
    assert (got.any_monitored[0], got.any_out[0]) == (monitored_slots, out_slots)


def test_unknown_nominal_voltage_is_not_judged() -> None:
    v = np.full((3, 1, 4), 220.0)
    got = qualification(v, np.isfinite(v), np.array([np.nan]), np.array([0]), np.array([0]))
    assert np.isnan(got.rate).all() and np.isnan(got.any_rate).all()


@pytest.mark.parametrize(
    ("un", "pt", "wiring", "name"),
    [
        ("220", "1", "3P4W", "three_phase"), ("220", "1", "1P", "single_phase"), ("100", "100", "3P3W", "three_phase"),
        ("100", "350", "3P3W", "hv35"), ("57.7", "350", "3P4W", "hv35"), ("57.7", "1100", "3P4W", "hv35"),
        ("57.7", "100", "3P4W", "three_phase"), ("100", "200", "3P3W", "three_phase"),
    ],
)  # fmt: skip
def test_band_by_primary_voltage(un: str, pt: str, wiring: str, name: str) -> None:
    assert band_of(Decimal(un), Decimal(pt), wiring).name == name


def test_check_value_composite() -> None:
    rate, empty = composite(99.2, 98.8, 98.5, 97.9)
    assert rate == pytest.approx(98.80) and empty == ()
    assert composite(math.nan, 98.0, math.nan, 99.0) == (98.5, ("A", "C"))
    assert composite(99.0, math.nan, math.nan, math.nan)[0] == 99.0
    assert math.isnan(composite(*[math.nan] * 4)[0])


def test_check_values_35_kv_month_range() -> None:
    got = month_range(np.array([0.06, 0.07, 0.06, -0.01]), np.array([-0.03, 0.02, -0.05, -0.04]))
    np.testing.assert_allclose(got, [0.09, 0.07, 0.11, 0.04])


def test_check_values_unbalance() -> None:
    volts = [np.array([x]) for x in (10.0, 10.2, 9.9)]
    assert round(100 * float(sequence_ratio(*volts)[0]), 3) == 1.762
    assert round(100 * float(spread_rate(np.stack(volts), np.ones((3, 1), bool))[0]), 3) == 2.941


def test_unbalance_of_missing_equal_and_impossible_triangles() -> None:
    a, b, c = np.array([10.0, np.nan, 0.0, 1.0]), np.array([10.0, 10, 0, 1]), np.array([10.0, 10, 0, 5])
    got = sequence_ratio(a, b, c)
    assert got[0] == pytest.approx(0.0, abs=1e-6) and np.isnan(got[1:]).all()
    three_wire = np.array([[True], [False], [True]])
    assert spread_rate(np.array([[100.0], [0.0], [90.0]]), three_wire)[0] == pytest.approx(0.1)
    assert np.isnan(spread_rate(np.zeros((3, 1)), np.ones((3, 1), bool)))[0]


@given(st.floats(1, 400), st.floats(-170, 170), st.floats(0.01, 0.3))
def test_unbalance_equals_symmetrical_components(v1: float, angle: float, share: float) -> None:
    turn = complex(math.cos(2 * math.pi / 3), math.sin(2 * math.pi / 3))
    negative = v1 * share * complex(math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    lines = [abs(v1 * turn ** (-i) + negative * turn**i) for i in range(3)]
    got = sequence_ratio(*[np.array([x]) for x in lines])
    assert got[0] == pytest.approx(share, rel=1e-5)


def test_check_values_month_cos() -> None:
    got = month_cos(
        np.array([100000.0, 100000, 100000, 0, np.nan]), np.array([48432.0, 61974, 30000, 0, 1]),
        np.array([0.0, 0, 8000, 0, 1]),
    )  # fmt: skip
    assert got.tolist() == [90, 85, 93, NULL, NULL]
    assert month_cos(np.array([100000.0]), np.array([22000.0]), np.array([0.0])).tolist() == [98]


def test_cos_on_a_tie_goes_up() -> None:
    # cosφ = 0.985 exactly cannot be had with integers; 0.600 and its neighbours can: P=3, Q=4. A near tie is decided
    # in whole numbers: 2n-1 = 169, 0.845² = 0.714025 = P²/(P²+Q²).
    p2 = Decimal("0.714025")
    getcontext().prec = 50
    q = ((1 - p2) / p2).sqrt() * 10**6
    below, above = int(q), int(q) + 1
    got = month_cos(np.array([1e6, 1e6]), np.array([float(below), float(above)]), np.zeros(2))
    assert got.tolist() == [85, 84]


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(-(10**6), 10**6))
def test_month_cos_equals_decimal_arithmetic(p: int, forward: int, reverse: int) -> None:
    got = int(month_cos(np.array([float(p)]), np.array([float(forward)]), np.array([float(reverse)]))[0])
    q = abs(forward) + abs(reverse)
    if p == 0 and q == 0:
        assert got == NULL
        return
    getcontext().prec = 60
    cos = Decimal(p) / (Decimal(p) ** 2 + Decimal(q) ** 2).sqrt()
    assert got == int((cos * 100).quantize(Decimal(1), ROUND_HALF_UP))


@pytest.mark.parametrize(
    ("standard", "rows"),
    [
        (90, {90: 0, 85: 250, 95: -75, 70: 1000, 69: 1100, 65: 1500, 64: 1700, 60: 2500, 100: -75, 89: 50, 0: 14500}),
        (85, {94: -110, 91: -65, 90: -50, 65: 1000, 60: 1500, 59: 1700, 85: 0, 99: -110}),
        (80, {92: -130, 91: -115, 90: -100, 60: 1000, 55: 1500, 54: 1700, 80: 0, 100: -130}),
    ],
)
def test_check_values_tariff_adjustment(standard: int, rows: dict[int, int]) -> None:
    got, applies = adjustment(np.array(list(rows), np.int16), np.array(standard, np.int16))
    assert got.tolist() == list(rows.values()) and applies.all()


def test_adjustment_has_no_step_the_wrong_way_and_needs_a_standard() -> None:
    for standard in (90, 85, 80):
        got, _ = adjustment(np.arange(101, dtype=np.int16), np.array(standard, np.int16))
        assert (np.diff(got) <= 0).all()
    got, applies = adjustment(np.array([90, NULL], np.int16), np.array([0, 90], np.int16))
    assert got.tolist() == [0, 0] and not applies.any()
    with pytest.raises(ValueError, match=r"0\.90"):
        adjustment(np.array([90], np.int16), np.array([95], np.int16))


def test_check_value_compensation() -> None:
    assert round(float(compensation_kvar(np.array(500.0), np.array(0.80), np.array(0.95))), 1) == 210.7
