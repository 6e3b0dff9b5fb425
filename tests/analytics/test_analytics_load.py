"""Load figures, masks and time-of-use energy against slow references (domain 4.4, 4.5)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.analytics.load import capacity_use, load_day, load_month, season_imbalance, use_hours
from fuhe.analytics.masks import DayFlag, day_flag, estimated, masked_max, masked_min, measured
from fuhe.analytics.tou import slot_tariffs, tariff_sum_holds, tou_anomaly, tou_energy
from fuhe.model.quality import Quality


def test_day_flags_at_their_edges() -> None:
    assert day_flag(np.array([96, 92, 91, 72, 71, 0]), 96).tolist() == [0, 0, 1, 1, 2, 2]
    assert day_flag(np.array([0]), 0).tolist() == [DayFlag.INSUFFICIENT]


@pytest.mark.parametrize("quality", list(Quality))
def test_what_counts_as_measured(quality: Quality) -> None:
    value, code = np.array([1.0, np.nan]), np.array([quality, quality], np.int16)
    good = quality in (Quality.A, Quality.U, Quality.O)
    assert measured(value, code).tolist() == [good, False]
    assert estimated(value, code).tolist() == [quality.name.startswith("E"), False]


slot = st.one_of(st.just(math.nan), st.floats(-100, 1000, width=32), st.just(0.0))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(slot, st.booleans()), min_size=8, max_size=96), st.sampled_from([900, 1800]))
def test_load_day_equals_the_slow_loop(row: list[tuple[float, bool]], step: int) -> None:
    kw = np.array([[v for v, _ in row]])
    guess = np.array([[g and math.isfinite(v) for v, g in row]])
    ok = np.isfinite(kw) & ~guess
    got = load_day(np.nan_to_num(kw), ok, step, guess)

    real = [(v, i) for i, (v, g) in enumerate(row) if math.isfinite(v) and not g]
    every = [v for v, _ in row if math.isfinite(v)]
    assert got.valid[0] == len(real)
    if len(every) < 0.75 * len(row):
        assert np.isnan(got.energy_kwh[0])
    else:
        assert got.energy_kwh[0] == pytest.approx(sum(every) * step / 3600, abs=1e-6)
    if len(real) < 0.75 * len(row):
        assert got.flag[0] == DayFlag.INSUFFICIENT and got.max_slot[0] == -1
        assert np.isnan([got.mean_kw[0], got.max_kw[0], got.min_kw[0], got.load_factor[0]]).all()
        return
    top = max(v for v, _ in real)
    low = min(v for v, _ in real)
    assert got.max_kw[0] == top and got.max_slot[0] == next(i for v, i in real if v == top)
    assert got.min_kw[0] == low and got.min_slot[0] == next(i for v, i in real if v == low)
    if top == 0:
        assert np.isnan([got.load_factor[0], got.min_rate[0], got.difference_rate[0]]).all()
    else:
        assert got.load_factor[0] == pytest.approx(sum(every) / len(every) / top, rel=1e-9, abs=1e-9)
        assert got.min_rate[0] == pytest.approx(low / top)
        assert got.difference_rate[0] == pytest.approx((top - low) / top)


def test_load_factor_of_a_whole_day_is_energy_over_24_pmax() -> None:
    kw = np.linspace(100, 500, 96)[None]
    day = load_day(kw, np.ones_like(kw, bool), 900)
    assert day.load_factor[0] == pytest.approx(day.energy_kwh[0] / (24 * day.max_kw[0]))


def test_empty_rows_give_no_warning_and_no_figure() -> None:
    kw = np.full((2, 96), np.nan)
    top, at = masked_max(kw, np.isfinite(kw))
    low, _ = masked_min(kw, np.isfinite(kw))
    assert np.isnan(top).all() and np.isnan(low).all() and (at == -1).all()


def test_month_gives_both_load_factors_under_two_names() -> None:
    month = load_month(
        np.array([[1200.0, 2400.0, np.nan]]), np.array([[100.0, 200.0, np.nan]]), np.array([[0.5, 0.5, np.nan]])
    )
    assert month.mean_daily_load_factor[0] == pytest.approx(0.5)
    assert month.month_load_factor[0] == pytest.approx(3600 / (48 * 200))
    assert month.days_used[0] == 2


def test_month_without_a_day_is_null() -> None:
    nothing = np.full((1, 3), np.nan)
    month = load_month(nothing, nothing, nothing)
    assert np.isnan([month.mean_daily_load_factor[0], month.month_load_factor[0], month.max_kw[0]]).all()


def test_year_figures() -> None:
    assert use_hours(np.array([5e6, 1.0]), np.array([1000.0, 0.0])).tolist()[0] == 5000
    assert np.isnan(use_hours(np.array([1.0]), np.array([0.0]))).all()
    maxima = np.array([[100.0] * 6 + [50.0] * 6, [np.nan] + [1.0] * 11])
    assert season_imbalance(maxima)[0] == pytest.approx(0.75)
    assert np.isnan(season_imbalance(maxima)[1])
    p, q = np.array([[30.0, 60.0]]), np.array([[40.0, 80.0]])
    assert capacity_use(p, q, np.array([[True, False]]), np.array([200.0]))[0] == pytest.approx(0.25)


def test_tou_periods_are_left_closed_and_right_open() -> None:
    tariff = slot_tariffs([(0, 4), (8 * 60, 2), (22 * 60, 4)], 900)
    # The slot labelled 08:00 is the quarter before eight: valley; the one labelled 08:15 begins the next period.
    assert tariff[31] == 4 and tariff[32] == 2 and tariff[87] == 2 and tariff[88] == 4
    kw = np.full((2, 96), 100.0)
    ok = np.ones((2, 96), bool)
    ok[1, 50] = False
    energy = tou_energy(kw, ok, tariff, (2, 4), 900)
    assert energy[0].tolist() == [1400.0, 1000.0]
    assert np.isnan(energy[1, 0]) and energy[1, 1] == 1000.0


@pytest.mark.parametrize("periods", [[], [(15, 1)], [(0, 1), (7, 2)], [(0, 1), (60, 2), (30, 1)], [(0, 1), (1440, 2)]])
def test_bad_tariff_tables_are_refused(periods: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="tariff"):
        slot_tariffs(periods, 900)


def test_tariff_sum_and_two_percent_rule() -> None:
    parts = np.array([[100, 200, 300, 400], [100, 200, 300, 400]])
    assert tariff_sum_holds(np.array([1005, 1006]), parts).tolist() == [True, False]
    assert tou_anomaly(np.array([102.0, 102.1, np.nan, 1.0]), np.array([100.0, 100, 100, 0])).tolist() == [
        False, True, False, False,
    ]  # fmt: skip
