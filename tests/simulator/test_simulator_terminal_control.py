"""Load control of the simulated terminal: remote trip, power and energy control, 保电, the person at the breaker."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from fuhe.model.times import US
from fuhe.simulator.faults import Fault
from fuhe.simulator.terminal.device import Options
from fuhe.simulator.terminal.power_control import Reduction
from fuhe.simulator.terminal.settings import Purchase

ALL_DAY = {"half_hours": [1] * 48}


def limits(kw: float, *periods: int) -> dict[str, Any]:
    chosen = list(periods or (1,))
    return {"schemes": [1], "limits": [{"periods": chosen, "limits_kw": [Decimal(kw)] * len(chosen)}]}


def test_a_remote_trip_sounds_its_alarm_then_removes_exactly_its_round(make_bench: Any) -> None:
    bench = make_bench()
    control = bench.terminal.control
    assert control.trip(1, 2, 0, bench.now)
    bench.step(119)
    assert bench.open_rounds() == [] and control.remote.alarms == {1}
    before = bench.site_power()
    carried = float(bench.terminal.meters[1].site.power_by_component(np.array([bench.now + US]))[1, 0])
    bench.step(1)
    assert bench.open_rounds() == [1] and control.remote.outputs == {1}
    assert bench.site_power() == pytest.approx(before - carried, abs=1)
    assert bench.power() == pytest.approx(bench.site_power(), abs=0.01)
    assert not bench.events(5)
    bench.step(120)
    event = bench.events(5)[0]
    assert event["rounds"] == [1] and event["time"] == bench.local() - timedelta(minutes=2)
    assert float(str(event["power_trip_kw"])) - float(str(event["power_after_kw"])) == pytest.approx(carried, abs=3)
    bench.step(86_400)
    assert bench.open_rounds() == [1]  # limit time 0: until released
    assert bench.terminal.parts.counters.trips(bench.local().date() - timedelta(days=1))["remote"] == 1


def test_the_limit_time_ends_a_trip_and_a_person_closes_with_cold_load_pickup(make_bench: Any) -> None:
    bench = make_bench(human_s=30)
    bench.terminal.control.trip(3, 0, 1, bench.now)
    assert bench.open_rounds() == [3]
    bench.step(1_800)
    relay = bench.terminal.parts.rounds[3].relay
    assert bench.open_rounds() == [3] and relay.permit
    bench.step(30)
    assert bench.open_rounds() == []
    site = bench.terminal.meters[2].site
    assert site.power_by_component(np.array([bench.now]))[1, 0] == pytest.approx(200 * 1.5, rel=0.1)


def test_permit_to_close_cancels_an_alarm_and_releases_only_the_remote_trip(make_bench: Any) -> None:
    bench = make_bench(human_s=None)
    control = bench.terminal.control
    control.trip(1, 5, 0, bench.now)
    bench.step(60)
    assert control.permit(1, bench.now)
    bench.step(600)
    assert bench.open_rounds() == []
    control.trip(1, 0, 0, bench.now)
    control.permit(1, bench.now)
    bench.step(3_600)
    assert bench.open_rounds() == [1]  # permitted, and nobody comes
    assert not control.trip(7, 0, 0, bench.now) and not control.permit(7, bench.now)


def test_several_rounds_tripped_together_are_one_event(make_bench: Any) -> None:
    bench = make_bench()
    for number in (1, 2, 3):
        bench.terminal.control.trip(number, 1, 0, bench.now)
    bench.step(300)
    assert [e["rounds"] for e in bench.events(5)] == [[1, 2, 3]]
    assert bench.power() == pytest.approx(100, rel=0.1)


def test_unauthorised_reclosing_is_seen_and_tripped_again(make_bench: Any) -> None:
    fault = Fault(kind="reclose", target=("terminal",), start_s=600)
    bench = make_bench(fault)
    bench.terminal.control.trip(1, 0, 0, bench.now)
    bench.step(605)
    assert bench.open_rounds() == []
    bench.step(10)
    assert bench.open_rounds() == [1]
    states = [e["state"] for e in reversed(bench.events(4))]
    assert states == [[2, 3], [1, 2, 3], [2, 3]]
    lax = make_bench(fault, options=Options(retrip_s=None))
    lax.terminal.control.trip(1, 0, 0, lax.now)
    lax.step(3_600)
    assert lax.open_rounds() == []


def test_period_control_trips_round_after_round_down_to_the_limit(make_bench: Any) -> None:
    bench = make_bench(
        p18=ALL_DAY, p41_1=limits(250), p43_1={"slide_min": 5}, p45_1={"rounds": [1, 2, 3]}, p49_1={"alarm_min": 3},
        p49_2={"alarm_min": 0}, p49_3={"alarm_min": 1},
    )  # fmt: skip
    power = bench.terminal.control.power[1]
    bench.step(1)
    assert bench.power() > 500
    power.engage_period(frozenset({1}), 1, bench.now)
    bench.step(60)
    assert power.alarm_round == 1 and power.in_force == "period" and power.limit_kw == 250
    bench.step(180)
    assert power.tripped == [1] and bench.open_rounds() == [1]
    bench.step(60 * 5)
    assert power.tripped == [1, 2]  # no alarm for round 2
    bench.step(60 * 5)
    assert power.tripped == [1, 2, 3][:2] or power.alarm_round == 3
    bench.step(60 * 20)
    assert power.tripped == [1, 2, 3] and bench.power() < 250
    events = bench.events(6)
    assert [e["rounds"] for e in reversed(events)] == [[1], [2], [3]]
    assert all(e["type"] == [1] and e["limit_kw"] == 250 and e["group"] == 1 for e in events)
    assert bench.terminal.parts.counters.trips(bench.local().date())["power"] == 3
    power.release("period", bench.now)
    bench.step(30)
    assert bench.open_rounds() == []


def test_the_trip_is_given_up_when_the_load_falls_during_the_alarm(make_bench: Any) -> None:
    bench = make_bench(p18=ALL_DAY, p41_1=limits(450), p45_1={"rounds": [2]}, p49_2={"alarm_min": 10})
    power = bench.terminal.control.power[1]
    power.engage_period(frozenset({1}), 1, bench.now)
    bench.step(61)
    assert power.alarm_round == 2
    bench.terminal.meters[1].site.trip(1, bench.now)  # the customer sheds by himself
    bench.terminal.meters[1].forget()
    bench.step(3_600)
    assert power.tripped == [] and bench.open_rounds() == [] and not bench.events(6)


def test_the_security_setpoint_is_a_floor(make_bench: Any) -> None:
    changes: dict[str, Any] = {
        "p18": ALL_DAY, "p41_1": limits(100), "p45_1": {"rounds": [1, 2, 3]}, "p49_1": {"alarm_min": 0},
        "p49_2": {"alarm_min": 0}, "p49_3": {"alarm_min": 0},
    }  # fmt: skip
    bench = make_bench(p17={"limit_kw": Decimal(400)}, **changes)
    bench.terminal.control.power[1].engage_period(frozenset({1}), 1, bench.now)
    bench.step(7_200)
    assert bench.open_rounds() == [1]  # 580 -> 380 kW, below 400: no further round
    free = make_bench(**changes)
    free.terminal.control.power[1].engage_period(frozenset({1}), 1, free.now)
    free.step(7_200)
    assert free.open_rounds() == [1, 2, 3]


def test_periods_are_numbered_by_changes_of_the_code_and_their_end_releases(make_bench: Any) -> None:
    codes = [0] * 16 + [1] * 10 + [2] * 2 + [0] * 20  # 00:00-08:00, -13:00 period 2, -14:00 period 3, then period 4
    bench = make_bench(
        p18={"half_hours": codes}, p19={"float_percent": -20}, p41_1=limits(500, 2, 3), p45_1={"rounds": [1]},
        p49_1={"alarm_min": 0},
    )  # fmt: skip
    settings = bench.terminal.parts.settings
    assert settings.period(bench.local()) == (2, 1)
    power = bench.terminal.control.power[1]
    power.engage_period(frozenset({2}), 1, bench.now)
    bench.step(60)
    assert power.limit_kw == pytest.approx(400) and bench.open_rounds() == [1]
    bench.step(3_600)
    assert settings.period(bench.local()) == (3, 2)
    assert power.in_force is None and bench.open_rounds() == []  # period 3 was not engaged
    assert make_bench(p18={"half_hours": [0, 1] * 24}).terminal.parts.settings.period(bench.local()) == (0, 0)


def test_a_higher_control_takes_over_and_a_lower_one_pauses(make_bench: Any) -> None:
    today = date(2025, 7, 31)
    bench = make_bench(
        p18=ALL_DAY, p41_1=limits(100), p45_1={"rounds": [1]}, p49_1={"alarm_min": 0},
        p42_1={"limit_kw": Decimal(300), "start": "08:00", "half_hours": 30, "weekdays": [1, 2, 3, 4, 5, 6, 7]},
        p44_1={"start": today, "end": today + timedelta(days=3), "limit_kw": Decimal(700)},
    )  # fmt: skip
    assert bench.local().date() == today
    power = bench.terminal.control.power[1]
    power.engage_period(frozenset({1}), 1, bench.now)
    bench.step(60)
    assert (power.in_force, power.limit_kw, bench.open_rounds()) == ("period", 100, [1])
    power.engage("rest", bench.now)
    bench.step(60)
    assert (power.in_force, power.limit_kw) == ("rest", 300)
    power.engage("suspension", bench.now)
    bench.step(120)
    assert (power.in_force, power.limit_kw, bench.open_rounds()) == ("suspension", 700, [])
    order = Reduction(slide_min=2, float_percent=-30, freeze_delay_min=5, control_half_hours=1, alarm_min=(1, 1, 1, 1))
    power.engage_reduction(order, bench.now)
    bench.step(60)
    assert power.in_force is None  # its limit is not known yet, and nobody else may act
    before = bench.power()
    bench.step(60)
    assert power.in_force == "reduction" and power.limit_kw == pytest.approx(before * 0.7, rel=0.05)
    bench.step(60)
    assert power.tripped == [1]
    bench.step(150)
    assert power.frozen_kw is not None and power.frozen_kw < before - 150
    bench.step(1_800)
    assert power.in_force == "suspension" and "reduction" not in power.engaged and bench.open_rounds() == []


def test_month_energy_control_alarms_trips_and_lets_go_when_the_limit_is_raised(make_bench: Any) -> None:
    bench = make_bench(p48_1={"rounds": [2, 3]})
    energy = bench.terminal.control.energy[1]
    used = energy.month_kwh(bench.now)
    assert used is not None
    bench.set(46, 1, limit=Decimal(int(used * 1.1)), alarm_percent=90)
    energy.engage("month")
    bench.step(60)
    assert bench.open_rounds() == [] and energy.kinds["month"].alarm
    assert bench.events(23)[0]["rounds"] == [2, 3]
    bench.set(46, 1, limit=Decimal(int(used)), alarm_percent=90)
    bench.step(60)
    assert bench.open_rounds() == [2, 3]
    bench.step(600)
    assert len(bench.events(7)) == 1 and bench.events(7)[0]["type"] == [1]
    bench.set(46, 1, limit=Decimal(int(used * 2)))
    bench.step(90)
    assert bench.open_rounds() == [] and not energy.kinds["month"].alarm
    bench.set(20, 0, float_percent=-60)
    bench.step(90)
    assert bench.open_rounds() == [2, 3]


def test_purchased_energy_runs_out_and_a_purchase_gives_the_permission(make_bench: Any) -> None:
    bench = make_bench(p48_1={"rounds": [1]})
    energy = bench.terminal.control.energy[1]
    energy.buy(Purchase(7, False, 1_000, 600, 100), bench.now)
    energy.engage("purchase")
    bench.step(3_600)
    left = energy.remaining(bench.now)
    assert left is not None and left == pytest.approx(1_000 - 580, rel=0.05)
    assert bench.events(23)[0]["type"] == [2] and bench.open_rounds() == []
    bench.step(3_600)
    assert bench.open_rounds() == [1] and len(bench.events(7)) == 1
    energy.buy(Purchase(7, True, 5_000, 600, 100), bench.now)  # the same order again: not added twice
    bench.step(60)
    assert bench.open_rounds() == [1]
    energy.buy(Purchase(8, True, 5_000, 600, 100), bench.now)
    bench.step(90)
    assert bench.open_rounds() == [] and len(bench.events(19)) == 3


def test_protection_releases_everything_and_refuses_trips(make_bench: Any) -> None:
    bench = make_bench(p18=ALL_DAY, p41_1=limits(100), p45_1={"rounds": [2]}, p49_2={"alarm_min": 0})
    control = bench.terminal.control
    control.trip(1, 0, 0, bench.now)
    control.trip(3, 3, 0, bench.now)
    control.power[1].engage_period(frozenset({1}), 1, bench.now)
    bench.step(60)
    assert bench.open_rounds() == [1, 2]
    control.protect(2, bench.now)
    assert control.protected and not control.trip(1, 0, 0, bench.now)
    bench.step(60)
    assert bench.open_rounds() == []
    bench.step(3_000)
    assert bench.open_rounds() == []
    bench.step(600)
    assert not control.protected
    assert bench.open_rounds() == [2]  # the power control is still engaged and the load still too high
    assert control.remote.outputs == frozenset()  # what was cancelled does not come back
    control.protect(0, bench.now)
    bench.step(86_400)
    assert control.protected
    control.unprotect()
    assert not control.protected


@pytest.mark.parametrize("reconnection", ["return", "free"])
def test_automatic_protection_without_a_master(make_bench: Any, reconnection: Any) -> None:
    bench = make_bench(
        options=Options(reconnection=reconnection), p58={"hours": 2}, p18=ALL_DAY, p41_1=limits(100),
        p45_1={"rounds": [2]}, p49_2={"alarm_min": 0},
    )  # fmt: skip
    control = bench.terminal.control
    control.heard(bench.now)
    control.trip(1, 0, 0, bench.now)
    control.trip(3, 0, 6, bench.now)
    control.power[1].engage_period(frozenset({1}), 1, bench.now)
    bench.step(3_600)
    assert bench.open_rounds() == [1, 2, 3]
    bench.step(3_700)
    assert control.automatic and bench.open_rounds() == []
    bench.step(7_200)  # the limit time of round 3 is over meanwhile
    control.heard(bench.now)
    bench.step(120)
    assert not control.protected
    assert bench.open_rounds() == ([1, 2] if reconnection == "return" else [])


def test_a_lost_supply_keeps_outputs_and_delays_timers(make_bench: Any) -> None:
    off = Fault(kind="power_off", target=("terminal",), start_s=600, end_s=4_200)
    bench = make_bench(off)
    bench.terminal.control.trip(1, 0, 1, bench.now)
    bench.step(2_400)
    assert bench.open_rounds() == [1] and not bench.terminal.powered  # the limit time ran out in the dark
    bench.step(2_000)
    assert bench.terminal.powered and bench.open_rounds() == []
    event = bench.events(14)[0]
    assert event["power_on"] - event["power_off"] == timedelta(hours=1)
    day = bench.local().replace(hour=0, minute=0, second=0)
    assert bench.terminal.parts.counters.powered_min(day, day + timedelta(days=1)) == 1_380
    assert bench.terminal.parts.counters.resets(day.date()) == 1
    values = bench.terminal.parts.points.series(1, "voltage_a", [bench.start_us + s * US for s in (0, 900, 4_500)])
    assert list(np.isnan(values)) == [False, True, False]


def test_power_up_protects_until_a_master_is_heard(make_bench: Any) -> None:
    off = Fault(kind="power_off", target=("terminal",), start_s=60, end_s=120)
    bench = make_bench(off, p58={"hours": 10})
    bench.step(200)
    assert bench.terminal.control.automatic
    bench.terminal.control.heard(bench.now)
    assert not bench.terminal.control.protected


@pytest.mark.parametrize(
    ("kind", "contact", "load_gone"),
    [("broken_relay", [], False), ("stuck_contact", [1], False), ("rebound", [1], True)],
)
def test_faults_of_the_breaker(make_bench: Any, kind: str, contact: list[int], load_gone: bool) -> None:
    bench = make_bench(Fault(kind=kind, target=("terminal",)))
    before = bench.site_power()
    assert bench.terminal.control.trip(1, 0, 0, bench.now)  # acknowledged all the same
    bench.step(60)
    assert bench.open_rounds() == contact
    gone = before - bench.site_power()
    assert (gone > 100) == load_gone
    if kind == "rebound":
        assert gone == pytest.approx(200 * 0.7, rel=0.1)


def test_a_person_who_refuses_leaves_the_breaker_open(make_bench: Any) -> None:
    bench = make_bench(Fault(kind="human_refuses", target=("terminal",), end_s=7_200))
    bench.terminal.control.trip(1, 0, 1, bench.now)
    bench.step(7_000)
    relay = bench.terminal.parts.rounds[1].relay
    assert bench.open_rounds() == [1] and relay.permit and not relay.commanded
    assert relay.press_button(bench.now) and bench.open_rounds() == []
    driven = make_bench(options=Options(drives_closing=True), human_s=None)
    driven.terminal.control.trip(1, 0, 1, driven.now)
    driven.step(1_801)
    assert driven.open_rounds() == []
