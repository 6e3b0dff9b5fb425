"""The table of interlocks: every row passes, fails and refuses what it does not know; overrides only for 8, 9, 11."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from fuhe.control.rules.checks import Evidence, Limits, Verdict, is_single_address, rounds_within_floor
from fuhe.control.rules.interlocks import TABLE, check_all, failed
from fuhe.control.rules.kinds import Use
from fuhe.model.control import SwitchState
from fuhe.model.times import DAY_US, US

NOW = 1_790_000_000_000_000
SWITCH = SwitchState(time_us=NOW - US, open=False, command_trip=False, protected=False)
TARGET = "line-a/000000000012"
GOOD = Evidence(
    now_us=NOW, plan_active=True, plan_hash_ok=True, plan_from_us=NOW - DAY_US, plan_to_us=NOW + DAY_US,
    row_in_level=True, order_active=True, order_number="D-1", customer_class="N", server_protected=False,
    has_protection=True, switch=SWITCH, p_min15_kw=900.0, round_kw=300.0, pending_kw=0.0, security_kw=500.0,
    has_setpoint=False, supply="single", min_on_min=60, min_off_min=30, max_trips_day=4, trips_today=0,
    history_known=True, hours_today=0.0, last_trip_us=NOW - 3600 * US, tag="", not_before_us=NOW - US,
    not_after_us=NOW + US, notice_given=True, power_us=NOW - 60 * US, power_good=True, online=True, clock_offset_s=1.0,
    has_clock=True, keys_ok=True, model_known=True, live_test_us=NOW - 30 * DAY_US, live_test_ok=True, step_kw=100.0,
    step_terminals=2, order_kw=500.0, address="000000000012", conflicts=0, test_environment=True, simulated=True,
    cause_ended=True, margin_kw=1000.0, pickup_kw=100.0, frozen=False,
    targets=(TARGET, TARGET, TARGET), has_contact=True, has_exclusion=False, rounds=(1,),
)  # fmt: skip
LIMITS = Limits(county_load_kw=100_000.0)

FAILS: dict[int, list[dict[str, object]]] = {
    1: [
        {"plan_active": False}, {"plan_hash_ok": False}, {"order_active": False}, {"row_in_level": False},
        {"plan_to_us": NOW}, {"plan_from_us": NOW + 1}, {"order_number": ""},
    ],
    2: [{"customer_class": "P"}, {"server_protected": True}, {"switch": replace(SWITCH, protected=True)}],
    3: [
        {"round_kw": 400.1}, {"pending_kw": 101.0}, {"p_min15_kw": 500.0},
        {"has_setpoint": True, "setpoint_kw": 700.0},
    ],
    5: [{"trips_today": 4}, {"last_restored_us": NOW - 59 * 60 * US}, {"max_hours_day": 2.0, "hours_today": 2.0}],
    6: [{"tag": "people at work"}],
    7: [{"not_before_us": NOW + 1}, {"not_after_us": NOW}],
    8: [{"notice_given": False}],
    9: [{"power_us": NOW - 301 * US}, {"power_good": False}, {"switch": replace(SWITCH, time_us=NOW - 301 * US)}],
    10: [
        {"online": False}, {"clock_offset_s": -61.0}, {"keys_ok": False}, {"model_known": False},
        {"live_test_ok": False}, {"live_test_us": NOW - 366 * DAY_US}, {"live_test_us": NOW + DAY_US},
    ],
    11: [
        {"step_kw": 575.1}, {"step_terminals": 21}, {"last_step_us": NOW - 59 * US},
    ],
    12: [{"targets": (TARGET, "line-a/000000000013", TARGET)}, {"targets": (TARGET, TARGET, "line-b/000000000012")},
         {"address": "999999999999"}, {"address": "AAAAAAAAAA12"}, {"address": "0"}, {"address": ""}],
    13: [{"conflicts": 1}, {"switch": replace(SWITCH, open=True)}, {"switch": replace(SWITCH, command_trip=True)}],
    14: [{"simulated": False}, {"test_environment": False}],
    16: [{"frozen": True}],
}  # fmt: skip
UNKNOWNS: dict[int, list[str]] = {
    1: ["plan_active", "plan_hash_ok", "order_active", "row_in_level", "plan_to_us"],
    2: ["customer_class", "server_protected", "has_protection", "switch"],
    3: ["p_min15_kw", "round_kw", "pending_kw", "security_kw", "has_setpoint"],
    4: ["supply"],
    5: ["min_on_min", "min_off_min", "max_trips_day", "trips_today", "hours_today"],
    6: ["tag"],
    7: ["not_before_us", "not_after_us"],
    8: ["notice_given"],
    9: ["power_us", "power_good", "switch"],
    10: ["online", "clock_offset_s", "has_clock", "keys_ok", "model_known", "live_test_us", "live_test_ok"],
    11: ["step_kw", "step_terminals", "order_kw"],
    12: ["address"],
    13: ["conflicts", "switch"],
    14: ["test_environment", "simulated"],
    16: ["frozen"],
}


def verdict(number: int, evidence: Evidence, limits: Limits = LIMITS) -> Verdict:
    """What one row says."""
    return next(r.verdict for r in check_all(evidence, limits) if r.number == number)


def test_the_table_is_complete_and_good_evidence_passes_all() -> None:
    assert [row.number for row in TABLE] == list(range(1, 17))
    assert {row.number for row in TABLE if row.overridable} == {8, 9, 11}
    results = check_all(GOOD, LIMITS)
    assert len(results) == 16 and not failed(results), failed(results)
    assert all(r.text and r.title for r in results)


@pytest.mark.parametrize(("number", "change"), [(n, c) for n, changes in FAILS.items() for c in changes])
def test_row_fails_and_only_a_real_pass_lets_through(number: int, change: dict[str, object]) -> None:
    evidence = dataclasses.replace(GOOD, **change)  # type: ignore[arg-type]
    assert verdict(number, evidence) is Verdict.FAIL
    assert number in {r.number for r in failed(check_all(evidence, LIMITS))}


@pytest.mark.parametrize(("number", "name"), [(n, f) for n, names in UNKNOWNS.items() for f in names])
def test_what_is_not_known_refuses(number: int, name: str) -> None:
    evidence = dataclasses.replace(GOOD, **{name: None})  # type: ignore[arg-type]
    assert verdict(number, evidence) is Verdict.UNKNOWN
    assert number in {r.number for r in failed(check_all(evidence, LIMITS))}


def test_empty_evidence_refuses_everywhere() -> None:
    results = {r.number: r.verdict for r in check_all(Evidence(now_us=NOW), Limits())}
    assert set(results.values()) <= {Verdict.UNKNOWN, Verdict.PASS}
    assert [n for n, v in results.items() if v is Verdict.PASS] == [15], "only 'not a restore' passes without data"


def test_dual_supply_refuses_until_conflict_sets_exist() -> None:
    assert verdict(4, replace(GOOD, supply="dual")) is Verdict.UNKNOWN


def test_county_load_must_be_known_and_its_tenth_binds() -> None:
    assert verdict(11, GOOD, replace(LIMITS, county_load_kw=None)) is Verdict.UNKNOWN
    assert verdict(11, GOOD, replace(LIMITS, county_load_kw=999.0)) is Verdict.FAIL
    assert verdict(11, GOOD, replace(LIMITS, county_load_kw=1000.0)) is Verdict.PASS


def test_terminal_that_never_tells_protection_is_refused_unless_its_model_has_none() -> None:
    silent = replace(GOOD, switch=replace(SWITCH, protected=None))
    assert verdict(2, silent) is Verdict.UNKNOWN
    assert verdict(2, replace(silent, has_protection=False)) is Verdict.PASS


@pytest.mark.parametrize("number", range(1, 17))
def test_override_works_for_8_9_11_only(number: int) -> None:
    if number in (4, 15):
        return
    evidence = dataclasses.replace(GOOD, **FAILS[number][0])  # type: ignore[arg-type]
    left = {r.number for r in failed(check_all(evidence, LIMITS, overrides=range(1, 17)))}
    assert (number not in left) == (number in (8, 9, 11))


def test_override_of_9_ends_at_15_minutes_and_never_replaces_quality_or_contact() -> None:
    for age, passes in ((301, True), (900, True), (901, False)):
        results = check_all(replace(GOOD, power_us=NOW - age * US), LIMITS, overrides={9})
        assert (not failed(results)) is passes
    assert failed(check_all(replace(GOOD, power_good=False), LIMITS, overrides={9}))
    assert failed(check_all(replace(GOOD, switch=None), LIMITS, overrides={9}))
    assert failed(check_all(replace(GOOD, power_us=None), LIMITS, overrides={9}))


def test_power_from_the_future_is_no_power() -> None:
    assert verdict(9, replace(GOOD, power_us=NOW + 60 * US)) is Verdict.UNKNOWN


def test_check_value_of_the_floor() -> None:
    """P_min15 900, rounds 300 and 400, floor 500: only round 1 (900-300=600; 900-700=200 < 500)."""
    assert rounds_within_floor(900.0, [300.0, 400.0], 500.0) == 1
    assert verdict(3, GOOD) is Verdict.PASS
    assert verdict(3, replace(GOOD, round_kw=400.0, pending_kw=300.0)) is Verdict.FAIL
    assert rounds_within_floor(900.0, [400.0], 500.0) == 1, "exactly at the floor is allowed"


def test_release_and_danger_use_their_own_rows() -> None:
    release = replace(GOOD, use=Use.RELEASE)
    assert {r.number for r in check_all(release, LIMITS)} == {5, 6, 12, 13, 14, 15, 16}
    assert not failed(check_all(release, LIMITS))
    for change in ({"cause_ended": False}, {"pickup_kw": 1000.1}, {"margin_kw": None}, {"last_trip_us": NOW - 60 * US}):
        assert failed(check_all(dataclasses.replace(release, **change), LIMITS))
    danger = replace(GOOD, use=Use.DANGER, frozen=True, cause_ended=False, tag="x", last_trip_us=NOW)
    assert {r.number for r in check_all(danger, LIMITS)} == {12, 14} and not failed(check_all(danger, LIMITS))


@pytest.mark.parametrize(("address", "single"), [
    ("000000000012", True), ("123456789012", True), ("1", True), ("247", True), ("99999999999A", False),
    ("meter-7", True), ("999999999999", False), ("AAAAAAAAAAAA", False), ("FFFF", False), ("0", False), ("000", False),
    ("255", False), ("site/+", False), ("#", False), (" ", False),
    ("3301-9001", True), ("3301-65535", False), ("3301-0", False), ("FFFF-7", False), ("33010292", True),
    ("3301FFFF", False), ("33010000", False), ("3301-99999", False),
])  # fmt: skip
def test_single_addresses(address: str, single: bool) -> None:
    assert is_single_address(address) is single


@pytest.mark.parametrize("place", range(3))
def test_a_terminal_of_which_one_side_is_not_known_is_not_the_approved_one(place: int) -> None:
    targets: list[str | None] = [TARGET] * 3
    targets[place] = None
    assert verdict(12, replace(GOOD, targets=(targets[0], targets[1], targets[2]))) is Verdict.UNKNOWN
    assert verdict(12, replace(GOOD, use=Use.DANGER, targets=(None, None, None))) is Verdict.PASS
