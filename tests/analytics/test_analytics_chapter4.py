"""TOU tables, usage, basic fee, advice and the smaller rules of chapter 4 against slow loops (domain 4.5-4.16)."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.analytics import advice, usage
from fuhe.analytics.basic_fee import FeeMode, FeeRule, advise_fee, basic_fees
from fuhe.analytics.network import often_interrupted, overload_exceeded
from fuhe.analytics.power_factor import instant_cos
from fuhe.analytics.tou_table import (
    EPOCH,
    KINDS,
    UNKNOWN,
    DayKind,
    TouBook,
    TouRow,
    TouTable,
    day_tariffs,
    days_tou_energy,
    meter_table_differs,
)
from fuhe.analytics.unbalance import current_spread, ratio_exceeded
from fuhe.analytics.voltage import class_rates
from fuhe.model.lang import set_lang

NAN = math.nan
QUARTERS = st.integers(0, 95).map(lambda n: n * 15)
quick = settings(deadline=None, max_examples=60)


# ---------------------------------------------------------------- 4.5
def periods(starts: set[int]) -> tuple[tuple[int, int], ...]:
    return tuple((s, i % 5) for i, s in enumerate(sorted(starts | {0})))


tou_row = st.builds(
    TouRow,
    periods=st.sets(QUARTERS, max_size=5).map(periods),
    months=st.frozensets(st.integers(1, 12), max_size=8),
    kinds=st.frozensets(st.sampled_from(KINDS), max_size=2),
)
day = st.dates(date(2026, 1, 1), date(2027, 3, 1))
books = st.builds(
    TouBook,
    tables=st.lists(
        st.builds(TouTable, valid_from=day, rows=st.lists(tou_row, max_size=4).map(tuple)),
        max_size=4, unique_by=lambda t: t.valid_from,
    ).map(tuple),
    days=st.dictionaries(day, st.sampled_from(KINDS), max_size=30),
)  # fmt: skip


def slow_tariff(book: TouBook, when: date, slot: int) -> int:
    """Tariff of one slot by the words of the rule."""
    table = max((t for t in book.tables if t.valid_from <= when), key=lambda t: t.valid_from, default=None)
    kind: DayKind = book.days.get(when, "rest" if when.isoweekday() >= 6 else "work")
    for row in table.rows if table else ():
        if (not row.months or when.month in row.months) and (not row.kinds or kind in row.kinds):
            return [tariff for start, tariff in row.periods if start <= slot * 15][-1]
    return UNKNOWN


@quick
@given(books, st.lists(day, min_size=1, max_size=6))
def test_tariff_of_every_slot_equals_the_slow_rule(book: TouBook, days: list[date]) -> None:
    found = day_tariffs(book, np.array([(d - EPOCH).days for d in days]), 900)
    assert found.tolist() == [[slow_tariff(book, d, s) for s in range(96)] for d in days]


def test_two_tables_of_one_day_are_refused() -> None:
    table = TouTable(valid_from=date(2026, 1, 1), rows=())
    with pytest.raises(ValueError, match="one day"):
        day_tariffs(TouBook(tables=(table, table)), np.zeros(1, np.int64), 900)


@quick
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05]))
def test_energy_by_tariff_equals_the_slow_sum(points: int, days: int, seed: int, holes: float) -> None:
    rng = np.random.default_rng(seed)
    kw = rng.integers(-50, 500, (points, days, 24)).astype(float)
    ok = rng.random(kw.shape) >= holes
    tariff = rng.integers(-1, 4, (days, 24))
    energy, missing = days_tou_energy(kw, ok, tariff, (0, 1, 2, 9), 3600)
    for p in range(points):
        for i, code in enumerate((0, 1, 2, 9)):
            cells = [(d, s) for d in range(days) for s in range(24) if tariff[d, s] == code]
            gone = sum(not ok[p, d, s] for d, s in cells)
            assert missing[p, i] == gone
            want = NAN if gone else sum(kw[p, d, s] for d, s in cells)
            assert energy[p, i] == pytest.approx(want, nan_ok=True)


def test_meter_table_against_the_valid_one() -> None:
    differs = meter_table_differs(np.array([[1, 2, UNKNOWN, 3]]), np.array([1, 3, 2, UNKNOWN]))
    assert differs.tolist() == [[False, True, False, False]]


# ---------------------------------------------------------------- 4.6-4.9, 4.12
@quick
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 60), st.integers(-1, 3)), max_size=12))
def test_composite_of_a_fleet(points: list[tuple[int, int, int]]) -> None:
    rows = [(min(o, m), m, c) for o, m, c in points]
    out, monitored, of = (np.array([r[i] for r in rows], np.int64) for i in range(3))
    whole, rates, empty = class_rates(out, monitored, of)
    slow = []
    for c in range(4):
        t = sum(m for _, m, k in rows if k == c)
        slow.append(1 - sum(o for o, _, k in rows if k == c) / t if t else NAN)
    np.testing.assert_allclose(rates, slow)
    assert empty == tuple(n for n, r in zip("ABCD", slow, strict=True) if math.isnan(r))
    rest = [r for r in slow[1:] if not math.isnan(r)]
    parts = [x for x in (slow[0], sum(rest) / len(rest) if rest else NAN) if not math.isnan(x)]
    assert whole == pytest.approx(sum(parts) / len(parts) if parts else NAN, nan_ok=True)


def test_unbalance_of_small_currents_is_not_judged() -> None:
    amps = np.array([[[10.0, 1.9, NAN]], [[5.0, 0.1, NAN]], [[8.0, 1.0, NAN]]])
    found = current_spread(amps, np.array([10.0]), np.isfinite(amps))
    np.testing.assert_allclose(found, [[0.5, NAN, NAN]])
    assert np.isnan(current_spread(amps, np.array([NAN]), np.isfinite(amps))).all()


def test_sequence_ratio_by_its_95_percent() -> None:
    ratio = np.full((5, 100), 0.01)
    ratio[1, :5], ratio[2, :6], ratio[3, 0], ratio[4] = 0.03, 0.03, 0.041, NAN
    assert ratio_exceeded(ratio).tolist() == [False, False, True, True, False]
    assert ratio_exceeded(np.full((1, 20), 0.015), customer=True).all()


def test_instant_power_factor_needs_current_and_power() -> None:
    found = instant_cos(
        np.array([[50.0, 4.9, 50.0, -50.0]]), np.array([[100.0, 10.0, 100.0, 100.0]]),
        np.array([[0.5, 5.0, 0.2, 5.0]]), np.array([10.0]), np.array([100.0]),
    )  # fmt: skip
    np.testing.assert_allclose(found, [[0.5, NAN, NAN, 0.5]])


@quick
@given(st.lists(st.sampled_from([0.9, 1.0, 1.05, 1.3, 1.31, 1.6, 1.75, 1.9, 2.0, 2.1, NAN]), min_size=1, max_size=40))
def test_overload_equals_the_slow_rule(row: list[float]) -> None:
    table = ((1.0, 120, 60), (1.3, 30, 15), (1.6, 15, 8), (1.75, 7.5, 4), (2.0, 0, 0))  # above it: minutes
    for indoor in (False, True):
        found = overload_exceeded(np.array([row]), np.array([indoor]), 300)[0]
        for slot in range(len(row)):
            wrong = False
            for above, out_min, in_min in table:
                run = 0
                while slot - run >= 0 and row[slot - run] > above:
                    run += 1
                wrong |= run * 5 > (in_min if indoor else out_min)
            assert found[slot] == wrong


def test_customers_of_the_outage_list() -> None:
    assert often_interrupted(np.array([3, 4, 0]), np.array([24.0, 1.0, 24.1])).tolist() == [False, True, True]


# ---------------------------------------------------------------- 4.15
@quick
@given(st.integers(0, 2**32 - 1), st.integers(0, 30))
def test_temperature_sensitivity_equals_the_slow_median_of_slopes(seed: int, days: int) -> None:
    rng = np.random.default_rng(seed)
    temperature = np.round(rng.uniform(-5, 40, days), 0)
    temperature[rng.random(days) < 0.1] = NAN
    load = rng.uniform(0, 100, (3, days))
    load[rng.random(load.shape) < 0.2] = NAN
    work = rng.random(days) < 0.8
    found = usage.temperature_sensitivity(load, temperature, work)
    for p in range(3):
        for sign, got, count in ((1, found.hot, found.hot_days), (-1, found.cold, found.cold_days)):
            use = [
                i for i in range(days)
                if work[i] and math.isfinite(load[p, i]) and (temperature[i] > 26 if sign > 0 else temperature[i] < 10)
            ]  # fmt: skip
            slopes = [
                (load[p, j] - load[p, i]) / (temperature[j] - temperature[i])
                for n, i in enumerate(use) for j in use[n + 1 :] if temperature[i] != temperature[j]
            ]  # fmt: skip
            want = sign * median(slopes) if len(use) >= 10 and slopes else NAN
            assert count[p] == len(use) and got[p] == pytest.approx(want, nan_ok=True)


def test_a_known_slope_survives_odd_days() -> None:
    temperature = np.linspace(27, 38, 12)
    load = (100 + 7.5 * temperature)[None].copy()
    load[0, [2, 9]] = 5000.0
    found = usage.temperature_sensitivity(load, temperature, np.ones(12, bool))
    assert found.hot[0] == pytest.approx(7.5) and math.isnan(found.cold[0])


def test_changes_holidays_prices_and_decline() -> None:
    np.testing.assert_allclose(usage.change(np.array([90.0, 1]), np.array([100.0, 0])), [-0.1, NAN])
    np.testing.assert_allclose(usage.shares(np.array([[1.0, 3], [NAN, 1]])), [[0.25, 0.75], [NAN, NAN]])
    energy = np.array([[100.0, 100, 20, NAN], [1, 1, NAN, NAN]])
    holiday, work = np.array([False, False, True, True]), np.array([True, True, False, False])
    np.testing.assert_allclose(usage.holiday_drop(energy, holiday, work), [0.8, NAN])
    assert usage.price_response(np.array([0.40]), np.array([0.35]), 0.41, 0.40)[0] == pytest.approx(-0.04)
    months = np.array([[100.0, 69, 69, 69], [100, 69, 71, 69], [1, 69, NAN, 69]])
    assert usage.declining(months, np.full((3, 4), 100.0)).tolist() == [True, False, False]
    assert not usage.declining(months[:, :2], months[:, :2]).any()
    assert usage.production_index(np.array([26_000.0]), np.array([100.0])).tolist() == [260.0]


@quick
@given(st.integers(0, 2**32 - 1))
def test_profiles_equal_the_slow_means(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kw, kind = rng.uniform(0, 9, (2, 5, 4)), rng.integers(0, 3, 5)
    ok = rng.random(kw.shape) < 0.7
    found = usage.profiles(kw, ok, kind, 3)
    for p in range(2):
        for k in range(3):
            for s in range(4):
                some = [kw[p, d, s] for d in range(5) if kind[d] == k and ok[p, d, s]]
                assert found[p, k, s] == pytest.approx(sum(some) / len(some) if some else NAN, nan_ok=True)


# ---------------------------------------------------------------- 4.16
RULE = FeeRule(capacity_price=23_000, demand_price=35_000, intensive_kwh=260)


def half_up(yuan: Fraction) -> int:
    return math.floor(yuan * 100 + Fraction(1, 2))


@quick
@given(
    st.lists(st.integers(-1, 2_000_000), min_size=1, max_size=4), st.integers(-1, 2_000_000),
    st.integers(0, 400_000).map(lambda n: 5 * n), st.integers(-1, 500_000),
)  # fmt: skip
def test_basic_fees_equal_fractions(demand: list[int], contract: int, capacity: int, kwh: int) -> None:
    n = len(demand)
    fees, known = basic_fees(
        np.array([demand]), np.array([contract]), np.array([capacity]), np.full((1, n), kwh), RULE
    )  # fmt: skip
    kva, c = Fraction(capacity, 1000), Fraction(contract, 1000)
    for m, watts in enumerate(demand):
        d, floor = Fraction(watts, 1000), kva * Fraction(40, 100)
        agreed = max(c, floor)
        bound = agreed * Fraction(105, 100)
        billed = bound + 2 * (d - bound) if d > bound else agreed
        share = Fraction(90, 100) if kva and kwh >= 0 and kwh >= 260 * kva else 1
        want = [half_up(23 * kva), half_up(35 * billed * share), half_up(35 * max(d, floor) * share)]
        there = [capacity > 0, capacity > 0 and watts >= 0 and contract >= 0, capacity > 0 and watts >= 0]
        assert known[0, m].tolist() == there
        assert fees[0, m].tolist() == [w if t else -1 for w, t in zip(want, there, strict=True)]


def test_fee_advice_needs_three_percent_and_the_interval() -> None:
    year = np.full((4, 12), 400_000)
    year[3, 5] = -1
    found = advise_fee(
        year, np.array([-1, 400_000, -1, -1]), np.full(4, 1_000_000), np.full((4, 12), -1),
        np.array([FeeMode.CAPACITY, FeeMode.CONTRACT_DEMAND, FeeMode.CAPACITY, FeeMode.CAPACITY]),
        np.array([12, 12, 2, 12]), RULE,
    )  # fmt: skip
    assert found.fen[0].tolist() == [12 * 2_300_000, -1, 12 * 1_400_000]
    assert found.best.tolist() == [FeeMode.ACTUAL_DEMAND, FeeMode.CONTRACT_DEMAND, FeeMode.ACTUAL_DEMAND, 0]
    assert found.advise.tolist() == [True, False, False, False]
    assert found.saving_share[0] == pytest.approx(9 / 23) and found.saving_fen[1] == 0


# ---------------------------------------------------------------- 4.10
def facts(n: int = 1) -> advice.MonthFacts:
    """A month without anything to advise."""

    def a(x: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.full(n, x)

    return advice.MonthFacts(
        completeness=a(1.0), p_avg_kw=a(500.0), active_kwh=a(360_000.0), cos=np.full(n, 95, np.int16),
        cos_standard=np.full(n, 90, np.int16), q4_kvarh=a(0.0), q_low_share=a(0.0), beta_p95=np.full((n, 3), 0.6),
        beta_max=np.full((n, 3), 0.8), peak_share=a(0.3), class_peak_share=a(0.35), peak_kwh=a(108_000.0),
        price_peak=a(1.0), price_valley=a(0.3), unbalance=a(0.1), demand_kw=a(800.0), contract_kw=a(800.0),
        capacity_kva=a(1000.0),
    )  # fmt: skip


CASES: dict[advice.Kind, tuple[dict[str, float], tuple[str, ...]]] = {
    advice.Kind.UNDER_COMPENSATED: ({"cos": 80, "cos_standard": 90}, ("0.80", "0.90", "132.8")),
    advice.Kind.OVER_COMPENSATED: ({"q4_kvarh": 18_001.0}, ("5.0 %",)),
    advice.Kind.TOO_LARGE: ({"beta_p95": 0.29, "beta_max": 0.39}, ("29.0 %", "39.0 %")),
    advice.Kind.TOO_SMALL: ({"beta_p95": 0.81}, ("80.0 %", "81.0 %")),
    advice.Kind.SHIFT: ({"peak_share": 0.5}, ("50.0 %", "35.0 %", "32,400", "22,680.00")),
    advice.Kind.UNBALANCE: ({"unbalance": 0.31}, ("31.0 %",)),
    advice.Kind.CONTRACT_LOW: ({"demand_kw": 841.0}, ("841.0", "800.0")),
    advice.Kind.CONTRACT_HIGH: ({"demand_kw": 300.0}, ("300.0", "800.0", "400.0")),
}


@pytest.mark.parametrize("kind", CASES)
def test_advice_says_its_numbers_in_both_languages(kind: advice.Kind) -> None:
    changed, numbers = CASES[kind]
    f = facts(2)
    assert advice.advise(f) == []
    columns = {}
    for name, value in changed.items():
        column = getattr(f, name).copy()
        column[1] = value
        columns[name] = column
    found = advice.advise(replace(f, **columns))
    assert [(a.row, a.kind) for a in found] == [(1, kind)]
    for lang in ("en", "zh"):
        set_lang(lang)
        assert all(n in found[0].text for n in numbers), found[0].text
    columns["completeness"] = np.array([1.0, 0.89])
    assert advice.advise(replace(f, **columns)) == []


def test_nothing_known_is_no_advice() -> None:
    f = facts()
    empty = {
        n: np.full_like(getattr(f, n), NAN) for n in advice.MonthFacts.__slots__ if n not in ("cos", "cos_standard")
    }
    assert advice.advise(replace(f, **(empty | {"cos": np.array([-1], np.int16), "completeness": np.ones(1)}))) == []


def test_day_edges_of_the_epoch() -> None:
    friday = date(2026, 11, 27)
    book = TouBook(tables=(TouTable(valid_from=friday, rows=(TouRow(periods=((0, 7),), kinds=frozenset({"work"})),)),))
    days = np.array([(friday + timedelta(days=i) - EPOCH).days for i in (-1, 0, 1, 3)])
    assert day_tariffs(book, days, 3600)[:, 0].tolist() == [UNKNOWN, 7, UNKNOWN, 7]
