"""Rules: the table, the hold machine against a slot-by-slot reference, each condition on the case that it is for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.analytics.energy import IntervalFlag
from fuhe.analytics.rules import conditions
from fuhe.analytics.rules.conditions import DAYS, SLOTS, Measured, Whole, theft
from fuhe.analytics.rules.machine import Carry, evaluate, runs
from fuhe.analytics.rules.table import of_event, rules


def slow(true: Any, cleared: Any, known: Any, hold: int, clear: int, state: tuple[bool, int, int]) -> Any:
    """One point, slot by slot."""
    active, on, off = state
    out = []
    for t, c, k in zip(true, cleared, known, strict=True):
        on = on + 1 if t and k else 0
        off = off + 1 if c and k else 0
        if on >= hold:
            active = True
        elif off >= clear:
            active = False
        out.append(active)
    return out, (active, on, off)


@settings(deadline=None, max_examples=120)
@given(
    st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 4), st.lists(st.integers(0, 30), min_size=1, max_size=4)
)
def test_a_day_at_once_is_slot_by_slot_in_any_cut(seed: int, hold: int, clear: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    n, slots = 5, sum(cuts)
    true = rng.random((n, slots)) < rng.choice([0.2, 0.5, 0.9])
    cleared = rng.random((n, slots)) < 0.6
    known = rng.random((n, slots)) < 0.85
    before = Carry(rng.random(n) < 0.5, rng.integers(0, 4, n).astype(np.int32), rng.integers(0, 4, n).astype(np.int32))
    wanted = [
        slow(
            true[i], cleared[i], known[i], hold, clear, (bool(before.active[i]), int(before.on[i]), int(before.off[i]))
        )
        for i in range(n)
    ]
    parts, carry, at = [], before, 0
    for cut in cuts:  # incrementally, by as many slots as come at a time
        here = slice(at, at + cut)
        found, carry = evaluate(true[:, here], cleared[:, here], known[:, here], hold, clear, carry)
        parts.append(found)
        at += cut
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), np.array([w[0] for w in wanted]).reshape(n, slots))
    assert [(bool(a), int(o), int(f)) for a, o, f in zip(carry.active, carry.on, carry.off, strict=True)] == [
        w[1] for w in wanted
    ]


def test_runs_go_on_over_midnight() -> None:
    true = np.array([[True, True, False, True], [False, True, True, True]])
    assert runs(true, np.array([3, 3], np.int32)).tolist() == [[4, 5, 0, 1], [0, 1, 2, 3]]


def measured(slots: int = 4, **changes: Any) -> Measured:
    """Five ampere, 220 V, 60 % loaded, cos phi 0.95; one point."""
    shape = (1, slots)
    values: dict[str, Any] = {
        "volts": np.full((3, *shape), 220.0), "amps": np.full((3, *shape), 3.0), "phase_kw": np.full((3, *shape), 0.6),
        "neutral_a": np.zeros(shape), "p_kw": np.full(shape, 1.88), "q_kvar": np.full(shape, 0.6),
        "load_kw": np.full(shape, 188.0), "load_kvar": np.full(shape, 60.0), "moved": np.full(shape, 0.47),
        "quantum": 0.01, "step_s": 900, "nominal_v": np.array([220.0]), "rated_a": np.array([5.0]),
        "imax_a": np.array([6.0]), "contract_kva": np.array([315.0]), "pf_standard": np.array([0.90]),
        "low": np.array([0.93]), "high": np.array([1.07]), "four_wire": np.array([True]),
        "generates": np.array([False]), "suspended": np.zeros(shape, np.bool_), "apart": np.zeros(shape, np.bool_),
    }  # fmt: skip
    return Measured(**(values | changes))


def phases(a: float, b: float, c: float, slots: int = 4) -> Any:
    return np.array([a, b, c])[:, None, None] * np.ones((3, 1, slots))


@pytest.mark.parametrize(
    ("condition", "changes"),
    [
        ("voltage_loss", {"volts": phases(170, 220, 220)}),
        ("phase_break", {"volts": phases(100, 220, 220), "amps": phases(0.0, 3, 3)}),
        ("total_loss", {"volts": phases(50, 60, 70)}),
        ("under_voltage", {"volts": phases(160, 220, 220), "amps": phases(0.01, 3, 3)}),
        ("over_voltage", {"volts": phases(270, 220, 220)}),
        ("out_of_band", {"volts": phases(200, 220, 220)}),
        ("voltage_unbalance", {"volts": phases(220, 220, 140)}),
        ("current_loss", {"amps": phases(0.0, 3, 3)}),
        ("current_unbalance", {"amps": phases(1.5, 3, 3)}),
        ("over_current", {"amps": phases(7.3, 7.3, 7.3)}),
        ("reversed_phase", {"phase_kw": phases(-0.5, 0.6, 0.6)}),
        ("neutral_current", {"neutral_a": np.full((1, 4), 2.0)}),
        ("over_capacity", {"load_kw": np.full((1, 4), 330.0)}),
        ("use_while_suspended", {"suspended": np.ones((1, 4), np.bool_)}),
        ("low_power_factor", {"q_kvar": np.full((1, 4), 1.5)}),
        ("reactive_back_feed", {"load_kvar": np.full((1, 4), -40.0)}),
        ("register_stop", {"moved": np.zeros((1, 4))}),
    ],
)
def test_each_condition_sees_its_case_and_not_the_ordinary_day(condition: str, changes: dict[str, Any]) -> None:
    true, _, known = SLOTS[condition](measured(**changes))
    assert (true & known).all(), "its case"
    true, cleared, known = SLOTS[condition](measured())
    assert not (true & known).any() and (cleared & known).all(), "an ordinary day clears it"
    nothing = measured(
        **{k: np.zeros_like(v) if v.dtype == bool else np.full_like(v, np.nan) for k, v in changes.items()}
    )
    true, _, known = SLOTS[condition](nothing)
    assert not (true & known).any(), "a hole accuses nobody"


def test_a_dead_supply_is_no_phase_break_and_a_shared_voltage_no_theft() -> None:
    dead = measured(volts=phases(5, 5, 5), amps=phases(0, 0, 0))
    for name in ("voltage_loss", "phase_break", "total_loss", "under_voltage"):
        true, _, known = SLOTS[name](dead)
        assert not (true & known).any(), name
    generator = measured(phase_kw=phases(-0.5, -0.5, -0.5), generates=np.array([True]))
    assert not SLOTS["reversed_phase"](generator)[0].any()
    three_wire = measured(amps=phases(1.0, 3, 3), four_wire=np.array([False]))
    assert not SLOTS["current_unbalance"](three_wire)[2].any()


def whole(**changes: Any) -> Whole:
    values: dict[str, Any] = {
        "kwh": np.array([100.0]), "export_kwh": np.array([0.0]), "flag": np.array([IntervalFlag.OK], np.int16),
        "tariff_failed": np.array([False]), "like_kwh": np.array([[101.0, 99.0, 103.0, 98.0]]),
        "alive": np.array([True]), "peak_a": np.array([0.6]), "generates": np.array([False]),
        "apart": np.array([False]),
    }  # fmt: skip
    return Whole(**(values | changes))


@pytest.mark.parametrize(
    ("condition", "changes"),
    [
        ("register_decrease", {"flag": np.array([IntervalFlag.DECREASE], np.int16)}),
        ("tariff_sum", {"tariff_failed": np.array([True])}),
        ("reverse_energy", {"export_kwh": np.array([1.5])}),
        ("sudden_change", {"kwh": np.array([20.0])}),
        ("zero_use", {"kwh": np.array([0.0])}),
        ("small_current", {"peak_a": np.array([0.1])}),
    ],
)
def test_each_condition_of_a_day(condition: str, changes: dict[str, Any]) -> None:
    true, known = DAYS[condition](whole(**changes))
    assert true[0] and known[0]
    true, known = DAYS[condition](whole())
    assert not true[0] and known[0]
    if condition in ("sudden_change", "zero_use"):
        true, known = DAYS[condition](whole(**changes, apart=np.array([True])))
        assert not (true & known)[0], "a day under control, or of an outage, tells nothing of the customer"
    unknown = whole(kwh=np.array([np.nan]), export_kwh=np.array([np.nan]), peak_a=np.array([np.nan]),
                    flag=np.array([IntervalFlag.MISSING], np.int16))  # fmt: skip
    true, known = DAYS[condition](unknown)
    assert not (true & known)[0]


def test_the_table_is_whole_and_every_condition_has_a_rule() -> None:
    table = rules()
    assert {r.condition for r in table.values() if r.kind == "state"} == SLOTS.keys()
    assert {r.condition for r in table.values() if r.kind == "day"} == DAYS.keys()
    for rule in table.values():
        assert 1 <= rule.severity <= 4 and rule.told and rule.en and rule.zh
        assert bool(rule.why) == (rule.kind in ("none", "elsewhere")), rule.id
        assert bool(rule.events) or rule.kind != "event", rule.id
        assert rule.clears_itself == (rule.kind in ("state", "day") and rule.severity > 1 and rule.id != "E1")
    assert len(table) == 51
    assert [r.id for r in of_event("ERC10")] == ["V1"] and [r.id for r in of_event("03300D00")] == ["T1"]
    assert of_event("ERC100") == () and of_event("link.login") == ()
    assert conditions.WEIGHTS.keys() <= table.keys() and table["TS"].hidden and table["TS"].told == ("I",)


def test_suspicion_is_a_sum_of_different_kinds_of_evidence() -> None:
    assert theft({"V1", "C1", "C6"}, False) == (25, ["circuit C1 25"]), "one kind counts once"
    assert theft({"T1", "C1", "E7"}, False)[0] == 65 and theft({"T1", "C1"}, True)[0] == 65
    assert theft({"V6", "P4"}, True)[0] == 10
    assert theft({"T1", "T2", "V1", "E3", "E7"}, True)[0] == 100
