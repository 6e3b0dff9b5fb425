"""Energy, curve and demand against slow references in Decimal and plain loops (domain 4.1-4.3, chapter 13)."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fuhe.analytics.curve import CurveSource, choose_source, power_from_registers, quantum_kw
from fuhe.analytics.demand import ContractWatch, block_demand, contract_watch
from fuhe.analytics.energy import (
    Energy,
    Exchanges,
    IntervalFlag,
    Multipliers,
    constant_multipliers,
    energy_from_registers,
    multipliers,
)
from fuhe.model.times import US

QUARTER = 900 * US
T0 = 1_795_190_400 * US


def boundaries(slots: int, step_us: int = QUARTER) -> np.ndarray:
    return T0 + np.arange(slots + 1, dtype=np.int64) * step_us


def energy(
    registers: list[list[float]],
    k: str = "1",
    *,
    digits: int = 6,
    decimals: int = 2,
    contract: float = 1e6,
    step_us: int = QUARTER,
    history: Multipliers | None = None,
    exchanges: Exchanges | None = None,
) -> Energy:
    values = np.array(registers, float)
    points, slots = values.shape[0], values.shape[1] - 1
    return energy_from_registers(
        values,
        digits=np.full(points, digits),
        decimals=decimals,
        k=history or constant_multipliers([Decimal(k)] * points, slots),
        boundary_us=boundaries(slots, step_us),
        contract_kva=np.full(points, contract),
        exchanges=exchanges,
    )


def one(point: int, slot: int, old_end: float, new_start: float, k_old: int, k_new: int) -> Exchanges:
    def a(x: int) -> NDArray[np.int64]:
        return np.array([x], np.int64)

    return Exchanges(
        point=a(point), slot=a(slot), old_end=a(round(old_end * 100)), new_start=a(round(new_start * 100)),
        k_old=a(k_old), k_new=a(k_new),
    )  # fmt: skip


def test_check_value_rollover_is_9000_kwh() -> None:
    day = energy([[999998.75, 3.25]], "2000", contract=400.0, step_us=86_400 * US)
    assert day.exact(0, 0) == Decimal("9000.00")
    assert day.flag[0, 0] == IntervalFlag.ROLLOVER


def test_check_value_decrease_is_e1_and_null() -> None:
    result = energy([[4500.10, 4498.00]], "2000")
    assert result.flag[0, 0] == IntervalFlag.DECREASE
    assert not result.ok[0, 0] and np.isnan(result.kwh[0, 0]) and result.exact(0, 0) is None


@pytest.mark.parametrize(
    ("registers", "contract", "why"),
    [
        ([899999.99, 3.25], 1e9, "the register did not stand at nine tenths"),
        ([999998.75, 3.25], 7499.0, "the energy does not fit the contract in a quarter"),
        ([999998.75, 3.25], np.nan, "the contract is unknown, so nothing can be proven"),
        ([1999998.75, 3.25], 1e9, "the register has more digits than stated"),
    ],
)
def test_rollover_is_never_assumed(registers: list[float], contract: float, why: str) -> None:
    assert energy([registers], "500", contract=contract).flag[0, 0] == IntervalFlag.DECREASE, why


def test_rollover_limit_is_inclusive() -> None:
    # 4.5 kWh x 500 = 2250 kWh = 1.2 x 7500 kVA x 0.25 h
    assert energy([[999998.75, 3.25]], "500", contract=7500.0).flag[0, 0] == IntervalFlag.ROLLOVER


def test_exchange_inside_an_interval() -> None:
    result = energy([[100.00, 110.00, 5.50]], "80", exchanges=one(0, 1, 112.00, 1.00, 80, 120))
    assert result.exact(0, 1) == Decimal("700.00")  # (112 - 110) x 80 + (5.50 - 1.00) x 120
    assert result.flag[0, 1] == IntervalFlag.EXCHANGE
    assert result.exact(0, 0) == Decimal("800.00")


def test_exchange_with_wrong_field_reading_is_null() -> None:
    result = energy([[100.00, 5.50]], "80", exchanges=one(0, 0, 99.00, 1.00, 80, 80))
    assert result.flag[0, 0] == IntervalFlag.DECREASE and not result.ok[0, 0]


def test_two_exchanges_in_one_interval() -> None:
    x = Exchanges(
        point=np.array([0, 0]), slot=np.array([0, 0]), old_end=np.array([11000, 300]), new_start=np.array([0, 5000]),
        k_old=np.array([10, 20]), k_new=np.array([20, 30]),
    )  # fmt: skip
    result = energy([[100.00, 51.00]], "10", exchanges=x)
    assert result.exact(0, 0) == Decimal("190.00")  # 10 x 10 + 3 x 20 + 1 x 30


def test_multiplier_history_follows_the_time_of_the_reading() -> None:
    history = multipliers(
        np.array([0, 0, 1]), np.array([T0 - 5, T0 + 2 * QUARTER, T0 + QUARTER]),
        [Decimal(40), Decimal("62.5"), Decimal(10)], points=2, boundary_us=boundaries(4),
    )  # fmt: skip
    result = energy([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]], history=history)
    np.testing.assert_array_equal(result.kwh[0], [40, 40, 62.5, 62.5])
    # Before its first row point 1 has no multiplier: no energy, and no zero.
    np.testing.assert_array_equal(result.kwh[1], [np.nan, 10, 10, 10])
    assert result.flag[1, 0] == IntervalFlag.MULTIPLIER


def test_multiplier_change_inside_an_interval_without_field_data_is_null() -> None:
    history = multipliers(
        np.array([0, 0]), np.array([T0, T0 + 1]), [Decimal(1), Decimal(2)], points=1, boundary_us=boundaries(2)
    )
    result = energy([[0, 1, 2]], history=history)
    np.testing.assert_array_equal(result.kwh[0], [np.nan, 2])
    assert result.flag[0, 0] == IntervalFlag.MULTIPLIER


def test_too_many_digits_are_refused_not_wrapped() -> None:
    with pytest.raises(ValueError, match="64-bit"):
        energy([[0.0, 9e9]], "123456789.123456")
    with pytest.raises(ValueError, match="float64"):
        energy([[0.0, 1e16]])


def slow_interval(
    r1: Decimal | None, r2: Decimal | None, k: Decimal, digits: int, limit: Decimal | None
) -> Decimal | None:
    """Rule 4.1 in words, one interval at a time."""
    if r1 is None or r2 is None:
        return None
    if r2 >= r1:
        return (r2 - r1) * k
    turned = r2 + Decimal(10) ** digits - r1
    if r1 >= Decimal("0.9") * 10**digits and r1 < 10**digits and limit is not None and turned * k <= limit:
        return turned * k
    return None


# Hundredths, with many near both ends of the register so that rollovers and false ones both occur.
reading = st.one_of(
    st.none(),
    st.integers(0, 99_999_999),
    st.integers(99_990_000, 99_999_999),
    st.integers(0, 2_000),
    st.just(90_000_000),
)
multiplier = st.sampled_from([Decimal(1), Decimal(40), Decimal("12.5"), Decimal(3000), Decimal("0.1")])


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_energy_equals_the_slow_rule(data: st.DataObject) -> None:
    points, slots = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    grid = [data.draw(st.lists(reading, min_size=slots + 1, max_size=slots + 1)) for _ in range(points)]
    k = data.draw(st.lists(multiplier, min_size=points, max_size=points))
    contract = data.draw(st.lists(st.sampled_from([None, 1, 315, 20_000]), min_size=points, max_size=points))
    result = energy_from_registers(
        np.array([[np.nan if r is None else r / 100 for r in row] for row in grid], float),
        digits=np.full(points, 6),
        decimals=2,
        k=constant_multipliers(k, slots),
        boundary_us=boundaries(slots),
        contract_kva=np.array([np.nan if c is None else c for c in contract], float),
    )
    for p in range(points):
        agreed = contract[p]
        limit = None if agreed is None else Decimal("1.2") * agreed / 4
        for s in range(slots):
            r1, r2 = (None if r is None else Decimal(r) / 100 for r in grid[p][s : s + 2])
            assert result.exact(p, s) == slow_interval(r1, r2, k[p], 6, limit)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_exchanges_equal_the_slow_sum_of_pieces(data: st.DataObject) -> None:
    slots = data.draw(st.integers(1, 5))
    row = data.draw(st.lists(st.one_of(st.none(), st.integers(0, 10_000)), min_size=slots + 1, max_size=slots + 1))
    count = data.draw(st.integers(1, 4))
    at = sorted(data.draw(st.lists(st.integers(0, slots - 1), min_size=count, max_size=count)))
    ends = data.draw(st.lists(st.integers(0, 12_000), min_size=count, max_size=count))
    starts = data.draw(st.lists(st.integers(0, 9_000), min_size=count, max_size=count))
    ks = data.draw(st.lists(st.integers(1, 50), min_size=count + 1, max_size=count + 1))
    x = Exchanges(
        point=np.zeros(count, np.int64), slot=np.array(at), old_end=np.array(ends), new_start=np.array(starts),
        k_old=np.array(ks[:-1]), k_new=np.array(ks[1:]),
    )  # fmt: skip
    # No contract: a rollover cannot be proven, so the slow sum needs only "never below".
    result = energy(
        [[np.nan if r is None else r / 100 for r in row]], "1", contract=np.nan, exchanges=x
    )  # fmt: skip
    for s in range(slots):
        here = [i for i in range(count) if at[i] == s]
        if not here:
            continue
        expected: int | None = 0
        position, last = row[s], row[s + 1]
        if position is None or last is None:
            expected = None
        else:
            for i in here:
                expected = None if expected is None or ends[i] < position else expected + (ends[i] - position) * ks[i]
                position = starts[i]
            expected = None if expected is None or last < position else expected + (last - position) * ks[here[-1] + 1]
        assert result.exact(0, s) == (None if expected is None else Decimal(expected) / 100)


@settings(deadline=None, max_examples=100)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 2), st.integers(-3, 12), st.integers(1, 99)), max_size=8, unique_by=lambda c: c[:2]
    ),
    known=st.booleans(),
)
def test_multiplier_history_equals_the_slow_search(changes: list[tuple[int, int, int]], known: bool) -> None:
    edges = boundaries(5)
    # Change times on half slots: before, on and between the boundaries.
    rows = [(p, T0 + half * QUARTER // 2, k) for p, half, k in changes]
    history = multipliers(
        np.array([r[0] for r in rows], np.int64), np.array([r[1] for r in rows], np.int64),
        [Decimal(r[2]) for r in rows], points=3, boundary_us=edges, known_before=known,
    )  # fmt: skip

    def in_force(point: int, instant: int, *, before: bool) -> int:
        own = sorted((t, k) for p, t, k in rows if p == point)
        past = [k for t, k in own if (t < instant if before else t <= instant)]
        return past[-1] if past else own[0][1] if known and own else 0

    for p in range(3):
        for s in range(5):
            assert history.start[p, s] == in_force(p, int(edges[s]), before=False)
            assert history.end[p, s] == in_force(p, int(edges[s + 1]), before=True)


def test_curve_only_over_exactly_one_slot() -> None:
    edges = np.array([T0, T0 + QUARTER, T0 + 3 * QUARTER])
    result = energy_from_registers(
        np.array([[0.0, 1.0, 3.0]]), digits=np.array([6]), decimals=2, k=constant_multipliers([Decimal(10)], 2),
        boundary_us=edges, contract_kva=np.array([np.nan]),
    )  # fmt: skip
    np.testing.assert_array_equal(power_from_registers(result, edges, 900), [[40.0, np.nan]])


def test_check_value_quantum() -> None:
    assert quantum_kw(2, Decimal(3000)) == 120


def test_sources_are_not_mixed_without_a_mark() -> None:
    average, sampled = np.full((3, 96), np.nan), np.full((3, 96), 7.0)
    average[0, :92] = 5.0  # complete by the rule
    average[1, :91] = 5.0  # not complete: sampled power is
    sampled[2] = np.nan
    average[2, :10] = 5.0  # only what there is
    curve = choose_source([(CurveSource.SAMPLED, sampled), (CurveSource.METER_AVERAGE, average)])
    assert (curve.kw[0, :92] == 5).all() and np.isnan(curve.kw[0, 92:]).all()
    assert (curve.source[1] == CurveSource.SAMPLED).all()
    assert (curve.source[2, :10] == CurveSource.METER_AVERAGE).all() and (
        curve.source[2, 10:] == CurveSource.NONE
    ).all()
    assert not curve.mixed.any()
    filled = choose_source([(CurveSource.SAMPLED, sampled), (CurveSource.METER_AVERAGE, average)], fill=True)
    assert filled.mixed.tolist() == [True, False, False]
    assert (filled.source[0, 92:] == CurveSource.SAMPLED).all() and (filled.kw[0, 92:] == 7).all()


values = st.one_of(st.just(float("nan")), st.floats(-50, 500, width=32))


@settings(deadline=None, max_examples=100)
@given(st.lists(values, min_size=1, max_size=40), st.sampled_from([60, 300, 900, 3600]), st.integers(0, 4))
def test_block_demand_equals_the_slow_loop(row: list[float], step: int, skew: int) -> None:
    label = T0 + (skew + 1 + np.arange(len(row), dtype=np.int64)) * step * US
    kw = np.array([row])
    found = block_demand(kw, np.isfinite(kw), label, step)
    best: tuple[float, int] | None = None
    blocks: dict[int, list[float]] = {}
    for t, v in zip(label.tolist(), row, strict=True):
        blocks.setdefault(-(-t // (900 * US)) * 900 * US if step <= 900 else t, []).append(v)
    for end, members in blocks.items():
        if len(members) != max(900 // step, 1) or not np.isfinite(members).all():
            continue
        mean = max(float(np.mean(members)), 0.0)
        if best is None or mean > best[0]:
            best = (mean, end)
    if best is None:
        assert np.isnan(found.kw[0]) and found.time_us[0] == -1
    else:
        assert found.kw[0] == pytest.approx(best[0], abs=1e-9)
        assert found.time_us[0] in blocks


def test_contract_watch_bands() -> None:
    demand = np.array([94.9, 95.0, 100.0, 104.9, 105.0, np.nan, 1.0])
    contract = np.array([100.0, 100, 100, 100, 100, 100, 0])
    w = ContractWatch
    assert contract_watch(demand, contract).tolist() == [
        w.NORMAL, w.WARNING, w.ALARM, w.ALARM, w.PENALTY, w.UNKNOWN, w.UNKNOWN,
    ]  # fmt: skip
