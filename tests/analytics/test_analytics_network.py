"""Line loss, coincidence, transformer loading, reliability and lost energy (domain 4.9, 4.11-4.14, chapter 13)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.analytics.network import (
    Loading,
    coincidence,
    economic_loading,
    light_loading,
    line_loss,
    loading_level,
    loss_abnormal,
    lost_energy,
    lost_energy_factor,
    reliability,
    transformer_loading,
)
from fuhe.analytics.orderly import GapLevel, execution_rate, gap_level

NAN = math.nan


def test_check_values_orderly_use() -> None:
    rate, whole = execution_rate(np.array([500.0, 300.0, 200.0]), np.array([520.0, 240.0, 0.0]))
    assert rate == pytest.approx(0.74) and whole == pytest.approx(0.76)
    rate, whole = execution_rate(np.array([100.0, 100.0]), np.array([NAN, -20.0]))
    assert rate == 0.0 and whole == pytest.approx(-0.1)
    assert gap_level(90.0, 800.0) == (GapLevel.II, 0.1125)
    levels = [gap_level(g, 100.0)[0] for g in (0.0, 4.99, 5.0, 10.0, 19.99, 20.0)]
    assert levels == [GapLevel.NONE, GapLevel.IV, GapLevel.III, GapLevel.II, GapLevel.II, GapLevel.I]
    with pytest.raises(ValueError, match="above zero"):
        gap_level(1.0, 0.0)


def test_check_value_reliability() -> None:
    month = reliability(np.array([4.0]), np.array([3.0]), all_customers=20, period_h=720.0)
    assert round(100 * month.rs, 4) == 99.9167 and month.hours == pytest.approx(0.6)
    limited = reliability(np.array([4.0]), np.array([3.0]), all_customers=20, period_h=720.0, supplied=np.array([0.75]))
    assert limited.hours == pytest.approx(0.15)
    with pytest.raises(ValueError, match="customers"):
        reliability(np.zeros(0), np.zeros(0), all_customers=0, period_h=720.0)


def test_check_values_lost_voltage() -> None:
    assert round(lost_energy_factor("3P3W", "A", 0.9), 3) == 1.563
    assert round(lost_energy_factor("3P3W", "C", 0.9), 3) == 2.776
    assert lost_energy_factor("3P4W", "B") == 1.5 and lost_energy_factor("3P4W", "AC") == 3.0
    assert lost_energy(np.array([1000.0]), 1.5).tolist() == [500.0]
    for wiring, lost, cos in (("3P4W", "ABC", None), ("3P3W", "B", 0.9), ("3P3W", "A", None), ("3P3W", "C", 0.4)):
        with pytest.raises(ValueError, match="no correction"):
            lost_energy_factor(wiring, lost, cos)


def test_line_loss_is_not_computed_with_a_missing_member() -> None:
    fed, used = np.array([[1000.0], [1000.0], [0.0]]), np.array([[500.0, 450.0], [500.0, NAN], [0.0, 0.0]])
    np.testing.assert_allclose(line_loss(fed, used), [0.05, NAN, NAN])
    usual = np.array([[500.0, 450.0], [985.0, 15.0], [1.0, 1.0]])
    np.testing.assert_allclose(line_loss(fed, used, usual_in=fed, usual_out=usual), [0.05, 0.5, NAN])


def test_abnormal_loss_by_limits_and_by_its_own_history() -> None:
    low, high = np.full(4, -0.01), np.full(4, 0.06)
    history = np.tile(0.03 + 0.001 * np.sin(np.arange(60.0)), (4, 1))
    history[3, 5:] = NAN
    loss = np.array([0.03, 0.07, 0.05, NAN])
    assert loss_abnormal(loss, low, high).tolist() == [False, True, False, False]
    assert loss_abnormal(loss, low, high, history).tolist() == [False, True, True, False]
    assert not loss_abnormal(np.array([0.03] * 3 + [0.05]), low, high, history)[3]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.floats(0.01, 1e4), min_size=4, max_size=4), min_size=1, max_size=5),
)
def test_coincidence_equals_the_slow_figure(rows: list[list[float]]) -> None:
    kw = np.array(rows)
    got = coincidence(kw, np.ones(kw.shape, bool))
    slow = max(sum(r[t] for r in rows) for t in range(4)) / sum(max(r) for r in rows)
    assert got == pytest.approx(slow) and 0 < got <= 1 + 1e-12


def test_coincidence_uses_common_slots_only() -> None:
    kw = np.array([[10.0, 20.0, 90.0], [20.0, 10.0, 0.0]])
    ok = np.array([[True, True, True], [True, True, False]])
    assert coincidence(kw, ok) == pytest.approx(30 / 40)
    assert math.isnan(coincidence(kw, np.zeros((2, 3), bool)))
    # a member of little energy may be missing: the slot still counts
    assert coincidence(np.r_[kw[:1] * 100, kw[1:]], ok) == pytest.approx(9000 / 9020)


def test_transformer_levels_stand_after_two_hours_and_clear_after_one() -> None:
    beta = transformer_loading(np.full((1, 40), 60.0), np.full((1, 40), 80.0), np.array([100.0]))
    assert (beta == 1.0).all()
    beta = beta * 0.5
    beta[0, 4:14] = 0.8
    beta[0, 14:18] = 0.76
    beta[0, 30:39] = 1.01
    level = loading_level(beta, 900)[0]
    assert (level[:11] == Loading.NORMAL).all() and (level[11:18] == Loading.HEAVY).all()
    assert level[20] == Loading.HEAVY and level[21] == Loading.NORMAL and level[36] == Loading.NORMAL
    assert level[37] == Loading.OVER and level[39] == Loading.OVER
    beta[0, 34] = NAN
    assert loading_level(beta, 900)[0, 39] != Loading.OVER
    assert (loading_level(np.full((1, 3), NAN), 900) == Loading.UNKNOWN).all()


def test_light_load_and_the_economic_point() -> None:
    beta = np.array([[0.1, 0.199], [0.1, 0.2], [NAN, NAN]])
    assert light_loading(beta, np.ones(beta.shape, bool)).tolist() == [True, False, False]
    assert economic_loading(np.array([1.0]), np.array([4.0])).tolist() == [0.5]
    assert np.isnan(transformer_loading(np.ones((1, 1)), np.ones((1, 1)), np.array([0.0])))
