"""Every row of the specification's table of check values (domain 13), one test a row, by its number."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest

from fuhe.analytics.curve import quantum_kw
from fuhe.analytics.energy import IntervalFlag, constant_multipliers, energy_from_registers
from fuhe.analytics.forecast.score import score_day
from fuhe.analytics.network import lost_energy_factor, reliability
from fuhe.analytics.orderly import GapLevel, execution_rate, gap_level
from fuhe.analytics.power_factor import adjustment, compensation_kvar, month_cos
from fuhe.analytics.unbalance import sequence_ratio, spread_rate
from fuhe.analytics.voltage import composite, month_range
from fuhe.control.rules.choose import Candidate, Measure, choose


def energy(first: float, last: float, k: str) -> tuple[Decimal | None, int]:
    found = energy_from_registers(
        np.array([[first, last]]), digits=np.array([6]), decimals=2, k=constant_multipliers([Decimal(k)], 1),
        boundary_us=np.array([0, 86_400_000_000]), contract_kva=np.array([1000.0]),
    )  # fmt: skip
    return found.exact(0, 0), int(found.flag[0, 0])


def steps(standard: int, *cos: int) -> list[float]:
    change, applies = adjustment(np.array(cos, np.int16), np.array(standard, np.int16))
    assert applies.all()
    return [c / 100 for c in change.tolist()]


def cos_of(active: float, *reactive: float) -> float:
    forward, reverse = (*reactive, 0.0)[:2]
    return int(month_cos(np.array([active]), np.array([forward]), np.array([reverse]))[0]) / 100


def row_1() -> None:
    assert energy(999998.75, 3.25, "2000") == (Decimal("9000"), IntervalFlag.ROLLOVER)


def row_2() -> None:
    assert energy(4500.10, 4498.00, "2000") == (None, IntervalFlag.DECREASE)


def row_3() -> None:
    assert [cos_of(100_000, 48_432), cos_of(100_000, 61_974)] == [0.90, 0.85]
    assert steps(90, 90, 85) == [0.0, 2.5]


def row_4() -> None:
    assert cos_of(100_000, 30_000, 8_000) == cos_of(100_000, 30_000, -8_000) == 0.93
    assert cos_of(100_000, 22_000) == 0.98  # what netting would give


def row_5() -> None:
    assert steps(90, 95, 70, 69, 65, 64, 60) == [-0.75, 10, 11, 15, 17, 25]


def row_6() -> None:
    assert steps(85, 94, 91, 90, 65, 60, 59) == [-1.10, -0.65, -0.50, 10, 15, 17]


def row_7() -> None:
    assert steps(80, 92, 91, 90, 60, 55, 54) == [-1.30, -1.15, -1.00, 10, 15, 17]


def row_8() -> None:
    volts = [np.array([x]) for x in (10.0, 10.2, 9.9)]
    assert round(100 * float(sequence_ratio(*volts)[0]), 3) == 1.762
    assert round(100 * float(spread_rate(np.stack(volts), np.ones((3, 1), bool))[0]), 3) == 2.941


def row_9() -> None:
    found = month_range(np.array([0.06, 0.07, 0.06]), np.array([-0.03, 0.02, -0.05]))
    np.testing.assert_allclose(found, [0.09, 0.07, 0.11])
    assert (found <= 0.10).tolist() == [True, True, False]


def row_10() -> None:
    assert composite(99.2, 98.8, 98.5, 97.9)[0] == pytest.approx(98.80)


def row_11() -> None:
    score = score_day(np.array([102.0, 190, 404, 306]), np.array([100.0, 200, 400, 300]))
    assert score.accuracy == pytest.approx(97.085, abs=5e-4)
    assert score.mape == pytest.approx(2.5) and score.peak == pytest.approx(99.0)


def row_12() -> None:
    found = execution_rate(np.array([500.0, 300, 200]), np.array([520.0, 240, 0]))
    assert found == pytest.approx((0.74, 0.76))


def row_13() -> None:
    month = reliability(np.array([4.0]), np.array([3.0]), all_customers=20, period_h=720.0)
    assert round(100 * month.rs, 4) == 99.9167


def row_14() -> None:
    assert round(float(compensation_kvar(np.array(500.0), np.array(0.80), np.array(0.95))), 1) == 210.7


def row_15() -> None:
    assert round(lost_energy_factor("3P3W", "A", 0.9), 3) == 1.563
    assert round(lost_energy_factor("3P3W", "C", 0.9), 3) == 2.776


def row_16() -> None:
    assert quantum_kw(2, Decimal(3000)) == 120


def row_17() -> None:
    rounds = [
        Candidate(
            row=n, measure=Measure.TRIP, seq=n, device=1, round=n, customer_class="N", round_kw=kw, p_now_kw=900.0,
            p_min15_kw=900.0, age_s=10.0, floor_kw=500.0, eta=1.0,
        )
        for n, kw in ((1, 300.0), (2, 400.0))
    ]  # fmt: skip
    assert [r.chosen for r in choose(rounds, gap_kw=1000.0).rows] == [True, False]


def row_18() -> None:
    assert gap_level(90.0, 800.0) == (GapLevel.II, 0.1125)


ROWS: list[Callable[[], None]] = [globals()[f"row_{n}"] for n in range(1, 19)]


@pytest.mark.parametrize("row", ROWS, ids=[f"13-{n}" for n in range(1, 19)])
def test_check_value(row: Callable[[], None]) -> None:
    row()
