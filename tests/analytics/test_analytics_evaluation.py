"""Evaluation of an order against a slow reference, and its traps: nothing unknown counts as achieved."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.analytics.evaluation import achieved, baseline, totals


def fine(values: Any) -> list[float]:
    return [float(v) for v in values if math.isfinite(v)]


def mean(values: Any) -> float:
    found = fine(values)
    return sum(found) / len(found) if found else math.nan


def slow_baseline(past: Any, allowed: Any, today: Any, start: int) -> tuple[list[float], float]:
    """One customer, day by day."""
    days = [d for d, ok in zip(past, allowed, strict=True) if ok and fine(d)][:5]
    while days:
        around = mean([mean(d) for d in days])
        worst = max(range(len(days)), key=lambda n: abs(mean(days[n]) - around))
        if 0.75 * around <= mean(days[worst]) <= 1.25 * around:
            break
        del days[worst]
    kw = [mean([d[s] for d in days]) for s in range(len(today))]
    window = [s for s in range(max(start - 12, 0), max(start - 4, 0)) if math.isfinite(kw[s] + today[s])]
    base = mean([kw[s] for s in window])
    factor = min(max(mean([today[s] for s in window]) / base, 0.8), 1.2) if window and base else 1.0
    return [v * factor for v in kw], factor


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 95))
def test_baseline_is_that_of_the_reference(seed: int, start: int) -> None:
    rng = np.random.default_rng(seed)
    past = rng.uniform(50, 150, (3, 8, 1)) + rng.normal(0, 5, (3, 8, 96))
    past[rng.random(past.shape) < 0.2] = np.nan
    past[0, 2] = np.nan
    today = rng.uniform(20, 200, (3, 1)) + rng.normal(0, 5, (3, 96))
    today[rng.random(today.shape) < 0.2] = np.nan
    allowed = rng.random((3, 8)) < 0.8
    found = baseline(past, allowed, today, start)
    for i in range(3):
        kw, factor = slow_baseline(past[i], allowed[i], today[i], start)
        np.testing.assert_allclose(found.kw[i], kw, rtol=1e-12)
        assert found.factor[i] == pytest.approx(factor, rel=1e-12)
        assert found.days[i].sum() <= 5 and not (found.days[i] & ~allowed[i]).any()


def test_a_day_of_control_and_a_day_out_of_line_are_no_baseline() -> None:
    past = np.full((1, 7, 96), 100.0)
    past[0, 1] = 10.0  # a day under control
    past[0, 3] = 300.0  # a day out of line
    allowed = np.array([[True, False, True, True, True, True, True]])
    found = baseline(past, allowed, np.full((1, 96), 110.0), 40)
    assert found.days.tolist() == [[True, False, True, False, True, True, False]]
    assert found.factor[0] == pytest.approx(1.1) and found.kw[0] == pytest.approx(110.0)
    assert np.isnan(baseline(past, np.zeros((1, 7), bool), np.full((1, 96), 1.0), 40).kw).all()


def window(**changes: Any) -> Any:
    """Four customers over 20 slots: obedient, disobedient, half measured, over-delivering."""
    base = np.full((4, 20), 100.0)
    kw = np.array([[60.0] * 20, [98.0] * 20, [60.0] * 20, [20.0] * 20])
    kw[2, 4:] = np.nan
    after = np.array([[120.0] * 5, [100.0] * 5, [np.nan] * 5, [90.0] * 5])
    values: dict[str, Any] = {
        "kw": kw, "base": base, "limit_kw": np.full(4, 60.0), "ramp": 5, "kw_after": after,
        "base_after": np.full((4, 5), 100.0),
    } | changes  # fmt: skip
    return achieved(**values)


def test_over_delivery_of_one_pays_for_nobody_and_the_unmeasured_is_not_proven() -> None:
    found = window()
    assert found.in_place.tolist() == [True, False, False, True]
    assert found.proven.tolist() == [True, True, False, True]
    assert found.first.tolist() == [0, -1, 0, 0]
    np.testing.assert_allclose(found.reduction_kw, [40, 2, 40, 80])
    np.testing.assert_allclose(found.rebound, [1.2, 1.0, np.nan, 0.9])
    sums = totals(found, np.full(4, 40.0))
    assert (sums.customers, sums.proven, sums.in_place_rate, sums.in_place_kw_rate) == (4, 3, 0.5, 0.5)
    assert sums.execution == pytest.approx((40 + 2 + 0 + 40) / 160) and sums.delivery == pytest.approx(122 / 160)


def test_a_customer_who_comes_late_or_goes_back_has_not_held() -> None:
    kw = np.full((2, 20), 60.0)
    kw[0, :8] = 100.0  # three slots behind the ramp
    kw[1, 15:] = 100.0
    found = window(kw=kw, base=np.full((2, 20), 100.0), limit_kw=np.full(2, 60.0), kw_after=np.zeros((2, 0)),
                   base_after=np.zeros((2, 0)))  # fmt: skip
    assert found.first.tolist() == [8, 0] and found.in_place.tolist() == [False, False]
    np.testing.assert_allclose(found.in_place_share, [12 / 15, 10 / 15])
    np.testing.assert_allclose(found.hold, [1.0, 15 / 20])
    assert np.isnan(found.rebound).all()


def test_an_order_shorter_than_its_ramp_judges_nobody() -> None:
    found = window(ramp=20)
    assert not found.in_place.any() and np.isnan(found.in_place_share).all() and found.proven.tolist()[0]
