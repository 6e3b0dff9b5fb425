"""The kinds of control: their parameters, what they promise, when they act, what proves them. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.control.rules.checks import Verdict
from fuhe.control.rules.choose import Candidate, Measure, choose
from fuhe.control.rules.interlocks import check_all
from fuhe.control.rules.kinds import (
    KINDS,
    PLAN_KINDS,
    Effect,
    Kind,
    Use,
    acts_at,
    lasts_half_hours,
    limit_kw,
    parse_parameters,
    period_segments,
    rounds_of,
    windows,
)
from fuhe.control.rules.parameters import Care, care_of, touches_control, why_two
from fuhe.control.rules.reconcile import Held, reconcile
from fuhe.control.rules.states import Event
from fuhe.control.rules.verify import (
    DropEvidence,
    LimitEvidence,
    TripEvent,
    limit_is_off,
    shows,
    verify_drop,
    verify_limit,
)
from fuhe.model.control import ActionKind, SwitchState
from fuhe.protocols.common.errors import UsageError

from .test_control_interlocks import GOOD, LIMITS

PERIOD, FLOAT, REST, MONTH = KINDS["period"], KINDS["float"], KINDS["rest"], KINDS["month"]
DAY = date(2026, 7, 1)  # a Wednesday
OFF = SwitchState(time_us=0, open=None, command_trip=False, tripped=(), outputs=(), engaged=())


def good(kind: Kind, text: str) -> dict[str, object]:
    """Parameters without faults."""
    found, faults = parse_parameters(kind, text)
    assert not faults
    return found


def test_every_kind_that_takes_supply_has_its_way_back() -> None:
    for kind in KINDS.values():
        if kind.takes_supply:
            assert kind.release is not None and kind.ordered and kind.signatures == 2 and kind.use is Use.TRIP
            assert PLAN_KINDS[kind.zh] is PLAN_KINDS[kind.name] is kind
    engaged = {k.engage for k in KINDS.values()}
    for action in ActionKind:
        if action.value.endswith("_on") and action is not ActionKind.ALARM_ON:
            assert action in engaged, action


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("trip", "", {"limit_half_hours": 0}),
        ("trip", "limit_half_hours=4", {"limit_half_hours": 4}),
        ("period", "rounds=2,1; windows=14:00-18:00",
         {"rounds": [1, 2], "windows": "14:00-18:00", "scheme": 1, "float_percent": 0, "slip_min": 15}),
        ("rest", "rounds=1;start=8:00;half_hours=20;weekdays=6,7;slip_min=5",
         {"rounds": [1], "start": "8:00", "half_hours": 20, "weekdays": [6, 7], "slip_min": 5}),
        ("suspension", "rounds=1;from=2026-07-01;to=2026-07-31",
         {"rounds": [1], "from": "2026-07-01", "to": "2026-07-31", "slip_min": 15}),
        ("float", "rounds=1+2;percent=-20;half_hours=4",
         {"rounds": [1, 2], "percent": -20, "slip_min": 15, "freeze_min": 5, "half_hours": 4}),
        ("purchase", "rounds=1;order_no=7;kwh=1000;alarm_kwh=100;trip_kwh=0",
         {"rounds": [1], "order_no": 7, "mode": "add", "kwh": 1000.0, "alarm_kwh": 100.0, "trip_kwh": 0.0}),
        ("protect", "", {"half_hours": 0}),
    ],
)  # fmt: skip
def test_parameters(kind: str, text: str, expected: dict[str, object]) -> None:
    assert good(KINDS[kind], text) == expected


@pytest.mark.parametrize(
    ("kind", "text", "named"),
    [
        ("trip", "limit_half_hours=16", "limit_half_hours"), ("trip", "x=1", "x"), ("trip", "limit", "limit"),
        ("period", "rounds=1", "windows"), ("period", "windows=14:00-18:00", "rounds"),
        ("period", "rounds=9;windows=14:00-18:00", "rounds"), ("period", "rounds=1,1;windows=14:00-18:00", "rounds"),
        ("period", "rounds=1;windows=14:15-18:00", "windows"), ("period", "rounds=1;windows=18:00-14:00", "windows"),
        ("period", "rounds=1;windows=14:00-16:00,15:00-17:00", "windows"),
        ("period", "rounds=1;windows=14:00-16:00@x", "windows"), ("period", "rounds=1;windows=0:00-24:30", "windows"),
        ("period", "rounds=1;windows=1:00-2:00,3:00-4:00,5:00-6:00,7:00-8:00", "8 periods"),
        ("float", "rounds=1;half_hours=2;percent=10", "percent"), ("float", "rounds=1;half_hours=2", "percent"),
        ("suspension", "rounds=1;from=2026-07-02;to=2026-07-01", "to"),
        ("purchase", "rounds=1;order_no=1;kwh=9;alarm_kwh=1;trip_kwh=2", "trip_kwh"),
        ("purchase", "rounds=1;order_no=1;kwh=9;alarm_kwh=1;trip_kwh=0;mode=give", "mode"),
        ("rest", "rounds=1;start=8:00;half_hours=20;half_hours=2;weekdays=6", "twice"),
    ],
)  # fmt: skip
def test_faults_are_named(kind: str, text: str, named: str) -> None:
    _, faults = parse_parameters(KINDS[kind], text)
    assert len(faults) == 1 and named in faults[0]


@given(st.text(max_size=60), st.sampled_from(list(KINDS)))
def test_any_text_gives_parameters_or_faults(text: str, kind: str) -> None:
    found, faults = parse_parameters(KINDS[kind], text)
    assert faults or set(found) == {p.name for p in KINDS[kind].parameters}


def test_limits_and_hours() -> None:
    two = good(PERIOD, "rounds=1; windows=8:00-12:00@700, 14:00-18:00@900; float_percent=10")
    assert limit_kw(PERIOD, two, 0.0, 5000.0) == pytest.approx(990.0), "the highest, with its float"
    assert [acts_at(PERIOD, two, h, DAY) for h in (15, 16, 23, 24, 28, 35, 36)] == [
        False, True, True, False, True, True, False,
    ]  # fmt: skip
    assert period_segments(windows("0:00-24:00")) == 1 and period_segments(windows("1:00-2:00,2:00-3:00")) == 4
    assert limit_kw(FLOAT, good(FLOAT, "rounds=1;percent=-20;half_hours=3"), 0.0, 500.0) == pytest.approx(400.0)
    assert limit_kw(FLOAT, good(FLOAT, "rounds=1;percent=-20;half_hours=3"), 0.0, None) is None
    assert limit_kw(KINDS["trip"], {}, 100.0, 500.0) is None and limit_kw(MONTH, {}, 100.0, 5.0) is None
    rest = good(REST, "rounds=1;start=8:00;half_hours=4;weekdays=3")
    assert acts_at(REST, rest, 16, DAY) and not acts_at(REST, rest, 20, DAY)
    assert not acts_at(REST, rest, 16, date(2026, 7, 2))
    off = good(KINDS["suspension"], "rounds=1;from=2026-07-01;to=2026-07-01")
    assert acts_at(KINDS["suspension"], off, 0, DAY) and not acts_at(KINDS["suspension"], off, 0, date(2026, 7, 2))
    assert lasts_half_hours(FLOAT, {"half_hours": 3}) == 3 == lasts_half_hours(KINDS["trip"], {"limit_half_hours": 3})
    assert lasts_half_hours(REST, rest) == 0, "its window is no end of the control"
    assert (
        rounds_of(PERIOD, 1, two) == (1,) == rounds_of(KINDS["trip"], 1, {}) and rounds_of(KINDS["permit"], 1, {}) == ()
    )


def limited(**values: object) -> Candidate:
    """A terminal of 1000 kW with rounds of 300 kW in all, the largest 200, kept below 800 kW."""
    base: dict[str, object] = {
        "row": 1, "measure": Measure.LIMIT, "seq": 1, "device": 1, "round": 1, "customer_class": "N",
        "effect": Effect.LIMIT, "round_kw": 300.0, "largest_kw": 200.0, "p_now_kw": 1000.0, "p_min15_kw": 1000.0,
        "age_s": 10.0, "floor_kw": 500.0, "limit_kw": 800.0, "eta": 1.0,
    }  # fmt: skip
    return Candidate(**(base | values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 200.0), ({"eta": 0.5}, 100.0),
        ({"limit_kw": 600.0}, 300.0),  # never more than the rounds carry
        ({"limit_kw": 400.0, "floor_kw": 700.0}, 300.0),  # P - max(limit, floor)
        ({"limit_kw": 1200.0}, 0.0),
        ({"floor_kw": 750.0}, None),  # 1000 - 300 < 750 and 800 - 200 < 750: the last round could cross the floor
        ({"p_min15_kw": 700.0, "largest_kw": 100.0}, 200.0),  # saved by the limit: 800 - 100 >= 500
        ({"p_min15_kw": 700.0, "largest_kw": 400.0}, None), ({"limit_kw": None, "p_min15_kw": 700.0}, None),
    ],
)  # fmt: skip
def test_a_limit_counts_with_what_it_takes_off(values: dict[str, object], expected: float | None) -> None:
    choice = choose([limited(**values)], gap_kw=1.0 if not expected else expected / 1.05)
    row = choice.rows[0]
    assert row.chosen == bool(expected) and row.expected_kw == pytest.approx(expected or 0.0)
    assert row.reason and choice.feasible == bool(expected)


def test_a_terminal_is_limited_or_cut_never_both() -> None:
    cut = limited(row=2, seq=2, effect=Effect.CUT, measure=Measure.LIMIT, round_kw=100.0, round=3, limit_kw=0.0)
    choice = choose([limited(), cut], gap_kw=250.0)
    assert [r.chosen for r in choice.rows] == [True, False] and "another row" in choice.rows[1].reason
    choice = choose([replace(limited(), seq=3), cut], gap_kw=250.0)
    assert [r.chosen for r in choice.rows] == [True, False], "and not the other way round"


def test_energy_rows_are_taken_by_name_only() -> None:
    energy = limited(row=7, effect=Effect.ENERGY, limit_kw=0.0)
    other = limited(row=2, device=2)
    assert not choose([energy, other], gap_kw=190.0).rows[1].chosen
    choice = choose([energy, other], gap_kw=190.0, named={7})
    chosen = {r.row: r.expected_kw for r in choice.rows if r.chosen}
    assert chosen == {2: 200.0, 7: 0.0} and choice.feasible
    assert not choose([replace(energy, floor_kw=900.0)], gap_kw=1.0, named={7}).rows[0].chosen, "the floor stands"


# -- interlocks -------------------------------------------------------------------------------------------------------

LIMIT_SWITCH = SwitchState(
    time_us=GOOD.now_us, open=None, protected=False, excluded=False, outputs=(), engaged=("month",)
)
LIMIT = replace(
    GOOD, effect=Effect.LIMIT, switch=LIMIT_SWITCH, rounds=(1, 2), round_kw=300.0, largest_kw=200.0, limit_kw=800.0,
    has_exclusion=True,
)  # fmt: skip


def verdicts(**changes: object) -> dict[int, Verdict]:
    """What every row says of a limit with these changes."""
    return {r.number: r.verdict for r in check_all(replace(LIMIT, **changes), LIMITS)}  # type: ignore[arg-type]


def test_interlocks_of_a_limit() -> None:
    assert set(verdicts().values()) == {Verdict.PASS} and len(verdicts()) == 16
    assert verdicts(limit_kw=None)[3] is Verdict.UNKNOWN
    assert verdicts(limit_kw=499.0)[3] is Verdict.FAIL, "a limit below the floor"
    assert verdicts(p_min15_kw=700.0)[3] is Verdict.PASS, "600 stay by the limit"
    assert verdicts(p_min15_kw=700.0, largest_kw=400.0)[3] is Verdict.FAIL
    assert verdicts(has_setpoint=True, setpoint_kw=600.0)[3] is Verdict.PASS
    assert verdicts(has_setpoint=True, setpoint_kw=650.0)[3] is Verdict.FAIL, "the terminal's own floor counts"
    assert verdicts(has_setpoint=True, setpoint_kw=None)[3] is Verdict.UNKNOWN
    assert verdicts(effect=Effect.ENERGY, p_min15_kw=700.0)[3] is Verdict.FAIL, "an energy control opens all rounds"
    engaged = replace(LIMIT_SWITCH, engaged=("float",))
    assert verdicts(switch=engaged)[13] is Verdict.FAIL
    assert verdicts(switch=replace(LIMIT_SWITCH, engaged=None))[13] is Verdict.UNKNOWN
    assert verdicts(switch=replace(LIMIT_SWITCH, outputs=(2,)))[13] is Verdict.FAIL
    assert verdicts(switch=replace(LIMIT_SWITCH, outputs=None))[9] is Verdict.UNKNOWN


def test_exclusion_and_contacts_of_a_trip() -> None:
    trip = replace(GOOD, has_exclusion=True)
    for excluded, verdict in ((None, Verdict.UNKNOWN), (True, Verdict.FAIL), (False, Verdict.PASS)):
        assert GOOD.switch is not None
        switch = replace(GOOD.switch, excluded=excluded)
        found = {r.number: r.verdict for r in check_all(replace(trip, switch=switch), LIMITS)}
        assert found[12] is verdict
    wireless = replace(OFF, time_us=GOOD.now_us, protected=False)
    for has_contact, verdict in ((False, Verdict.PASS), (True, Verdict.UNKNOWN), (None, Verdict.UNKNOWN)):
        found = {
            r.number: r.verdict for r in check_all(replace(GOOD, switch=wireless, has_contact=has_contact), LIMITS)
        }
        assert found[9] is found[13] is verdict, "without a contact the terminal's own output must be told"


@pytest.mark.parametrize(
    ("use", "rows"),
    [
        (Use.SAFE, {12, 14}), (Use.DANGER, {12, 14}), (Use.CLEAR, {6, 12, 13, 14, 16}),
        (Use.LIFT, {10, 12, 13, 14, 16}), (Use.PARAMETER, {10, 12, 13, 14, 16}),
        (Use.RELEASE, {5, 6, 12, 13, 14, 15, 16}), (Use.TRIP, set(range(1, 17))),
    ],
)  # fmt: skip
def test_which_rows_apply_to_what(use: Use, rows: set[int]) -> None:
    assert {r.number for r in check_all(replace(GOOD, use=use), LIMITS)} == rows


# -- proof ------------------------------------------------------------------------------------------------------------

MET = LimitEvidence(engaged=True, limit_kw=800.0, before_kw=1000.0, now_kw=790.0, acts=True, grace_over=True)


@pytest.mark.parametrize(
    ("changes", "event"),
    [
        ({}, Event.PROVEN), ({"now_kw": 840.0}, Event.PROVEN), ({"now_kw": 841.0}, Event.PROVEN_PART),
        ({"now_kw": 950.0}, Event.NOT_PROVEN), ({"now_kw": 950.0, "grace_over": False}, None),
        ({"engaged": False}, Event.NOT_PROVEN), ({"engaged": None}, None), ({"now_kw": None}, None),
        ({"limit_kw": None}, None), ({"acts": False}, None), ({"before_kw": None}, Event.PROVEN),
    ],
)  # fmt: skip
def test_a_limit_is_proven_by_metering(changes: dict[str, object], event: Event | None) -> None:
    found = verify_limit(replace(MET, **changes))  # type: ignore[arg-type]
    assert found.event is event and found.reason


def test_the_terminals_own_event_stands_in_for_missing_power() -> None:
    base = DropEvidence(
        before_kw=None, now_kw=None, quantum_kw=0.1, round_kw=300.0, floor_kw=100.0, has_contact=False, switch=OFF,
        event=TripEvent(time_us=1, before_kw=900.0, after_kw=610.0),
    )  # fmt: skip
    held = replace(base, switch=replace(OFF, command_trip=True))
    found = verify_drop(held)
    assert found.event is Event.PROVEN and found.drop_kw == pytest.approx(290.0) and "event" in found.reason
    assert verify_drop(replace(held, event=None)).event is None
    assert verify_drop(base).event is Event.NOT_PROVEN, "it does not hold the round"
    fresh = replace(held, before_kw=900.0, now_kw=890.0)
    assert verify_drop(fresh).event is Event.NOT_PROVEN, "fresh power of ours counts before the event"


@pytest.mark.parametrize(
    ("name", "state", "expected"),
    [
        ("trip", {"command_trip": True}, True), ("trip", {"tripped": (3,)}, True),
        ("trip", {"outputs": (3,)}, False), ("trip", {}, False),
        ("trip", {"command_trip": None}, None), ("period", {"engaged": ("period",)}, True), ("period", {}, False),
        ("period", {"engaged": None}, None), ("unperiod", {}, True), ("unperiod", {"engaged": ("period",)}, False),
        ("protect", {"protected": True}, True), ("protect", {"protected": False}, False), ("protect", {}, None),
        ("unprotect", {"protected": False}, True), ("exclude", {"excluded": True}, True),
        ("unremind", {"remind": True}, False), ("permit", {}, True), ("permit", {"command_trip": True}, False),
    ],
)  # fmt: skip
def test_what_a_state_shows(name: str, state: dict[str, object], expected: bool | None) -> None:
    assert shows(KINDS[name], 3, replace(OFF, **state)) is expected  # type: ignore[arg-type]
    assert shows(KINDS[name], 3, None) is None


def test_a_limit_is_off_when_nothing_of_it_is_left() -> None:
    assert limit_is_off(PERIOD, (1, 2), OFF)
    for switch in (replace(OFF, engaged=("period",)), replace(OFF, outputs=(2,)), replace(OFF, outputs=None), None):
        assert limit_is_off(PERIOD, (1, 2), switch) is None


# -- a device that came back ------------------------------------------------------------------------------------------

TRIPPED = Held(command=1, kind=KINDS["trip"], number=1, rounds=(1,), holds=True)


def test_reconciling_confirms_or_tells_people() -> None:
    assert [f.same for f in reconcile([TRIPPED], replace(OFF, tripped=(1,), outputs=(1,)), "login")] == [True]
    lost = reconcile([TRIPPED], OFF, "restart")
    assert [f.same for f in lost] == [False] and "nothing is sent again" in lost[0].text
    assert [f.same for f in reconcile([TRIPPED], None, "login")] == [None]
    again = reconcile([replace(TRIPPED, holds=False)], replace(OFF, tripped=(1,), outputs=(1,)), "login")
    assert [f.same for f in again] == [False] and "release it again" in again[0].text
    assert reconcile([replace(TRIPPED, settled=False)], OFF, "login") == ()
    stray = reconcile([TRIPPED], replace(OFF, tripped=(1,), outputs=(1, 4), engaged=("float", "month")), "login")
    assert [(f.command, f.what) for f in stray] == [(1, "trip 1"), (None, "round 4"), (None, "float")]


# -- who signs parameters ---------------------------------------------------------------------------------------------


def test_two_people_for_what_weakens_or_controls() -> None:
    assert why_two("F25", {"ct_ratio": 40}, None) and why_two("F5", {"scheme": 0}, None)
    assert why_two("F45", {"rounds": [1]}, None) and why_two("F58", {"hours": 0}, {"hours": 24})
    assert why_two("F3", {"ip": "10.0.0.1"}, None) == ""
    assert why_two("F17", {"limit_kw": 500}, {"limit_kw": "400"}) == "", "a higher floor protects more"
    assert why_two("F17", {"limit_kw": 300}, {"limit_kw": 400}) and why_two("F17", {"limit_kw": 500}, None)
    assert care_of("F49") is Care.CONTROL and care_of("F1") is Care.PLAIN
    assert touches_control([{"item": "F3"}, {"item": "F17"}]) and not touches_control([{"item": "F25"}])


def test_an_unknown_kind_is_refused() -> None:
    from fuhe.control.rules.kinds import kind_of

    with pytest.raises(UsageError, match="no control kind"):
        kind_of("boom")
