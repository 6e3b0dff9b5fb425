"""The product's own exchanges (acquisition/sessions) against every simulated device of the demo, without any wire."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.devices import parse_devices
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.acquisition.sessions import open_exchange
from fuhe.model.control import ActionKind, ControlAction
from fuhe.model.devices import Credentials, Device
from fuhe.model.quantities import quantity
from fuhe.model.times import DAY_US, US
from fuhe.model.work import Duty, Outcome, Priority, Status, WorkItem
from fuhe.simulator.clock import StepClock
from fuhe.simulator.emit import devices_csv, secrets
from fuhe.simulator.load import day_start
from fuhe.simulator.scenario import builtin_scenarios, load_scenario
from fuhe.simulator.simulation import Simulation

NOW = day_start(20_300) + (10 * 3600 + 400) * US


@pytest.fixture(scope="module")
def bench() -> Iterator[tuple[Simulation, StepClock, dict[str, Device]]]:
    clock = StepClock(NOW)
    simulation = Simulation(load_scenario(builtin_scenarios()["demo"]), clock)
    kinds = {"pty": "serial", "tcp": "tcp", "mqtt": "mqtt", "dial": "listen-tcp", "udp": "listen-udp"}
    links = {
        b.name: LinkConfig(name=b.name, kind=kinds[b.kind])  # type: ignore[arg-type]
        for b in simulation.scenario.buses
    }
    parsed = parse_devices(devices_csv(simulation).encode(), links=links, profiles=builtin_profiles())
    assert not parsed.faults
    yield simulation, clock, {d.name: d for d in parsed.devices}


def carry_out(bench: tuple[Simulation, StepClock, dict[str, Device]], name: str, item: WorkItem) -> Outcome:
    simulation, clock, devices = bench
    device = devices[name]
    profile = builtin_profiles()[device.profile]
    told = secrets(simulation).get(name, {})
    exchange = open_exchange(device, profile, item, Credentials(**told))
    line = simulation.buses[device.link].line
    session = line.session()
    for _ in range(2_000):
        request = exchange.next_request(clock.now_us())
        if request is None:
            break
        replies = session.receive(request.data, clock.now_us())
        if not any(exchange.receive(r.data, clock.now_us()) for r in replies):
            exchange.silence(clock.now_us())
    return exchange.outcome(clock.now_us())


def work(duty: Duty, window: tuple[int, int] | None = None, action: ControlAction | None = None) -> WorkItem:
    return WorkItem(device=0, duty=duty, priority=Priority.LIVE, expires_s=1e9, window_us=window, action=action)


WIRED = [
    d.name
    for d in load_scenario(builtin_scenarios()["demo"]).devices
    if d.bus not in ("broker", "dial-in", "datagrams") and d.name != "line-b-6"
]
CURVED = [n for n in WIRED if n.startswith(("line", "server")) and n not in ("line-a-6", "line-b-7", "line-a-3")]


READ = [(n, Duty.LIVE) for n in WIRED] + [(n, Duty.DAILY) for n in CURVED]  # others keep no daily freezes


@pytest.mark.parametrize(("name", "duty"), READ)
def test_reading_duties_are_done(bench: tuple[Simulation, StepClock, dict[str, Device]], name: str, duty: Duty) -> None:
    window = (day_start(20_300), day_start(20_301)) if duty is Duty.DAILY else None
    outcome = carry_out(bench, name, work(duty, window))
    assert outcome.status is Status.DONE, outcome
    assert outcome.batch is not None and outcome.batch.samples is not None and len(outcome.batch.samples) > 2
    if duty is Duty.LIVE:
        samples = outcome.batch.samples
        power = samples.value[samples.quantity == quantity("active_power_total").id]
        truth = bench[0].meters[name].value("active_power_total", bench[1].now_us())
        assert power == pytest.approx([truth], abs=1e-4 + 1e-5 * truth)


@pytest.mark.parametrize("name", [n for n in WIRED if n.startswith(("line", "server"))])
@pytest.mark.parametrize("duty", [Duty.EVENT, Duty.CLOCK, Duty.PARAMETER, Duty.MONTHLY])
def test_the_other_duties_of_dlt645_meters_are_done(
    bench: tuple[Simulation, StepClock, dict[str, Device]], name: str, duty: Duty
) -> None:
    outcome = carry_out(bench, name, work(duty))
    assert outcome.status is Status.DONE, outcome


@pytest.mark.parametrize("name", CURVED)
def test_a_past_day_of_curves_is_the_truth(bench: tuple[Simulation, StepClock, dict[str, Device]], name: str) -> None:
    window = (NOW // DAY_US * DAY_US - 3 * DAY_US, NOW // DAY_US * DAY_US - 2 * DAY_US)
    outcome = carry_out(bench, name, work(Duty.CURVE, window))
    assert outcome.status is Status.DONE and outcome.batch is not None, outcome
    meter = bench[0].meters[name]
    wanted = quantity("active_power_total").id
    found: dict[int, float] = {}
    for block in outcome.batch.curves:
        for k in np.flatnonzero(block.quantity == wanted):
            for i, value in enumerate(block.value[k]):
                found[int(block.start_us[k]) + i * block.step_s * US] = float(value)
    profile = builtin_profiles()[bench[2][name].profile]
    assert profile.curve is not None and 2 in profile.curve.classes
    times = np.array(sorted(found))
    truth = meter.series("active_power_total", times)
    assert len(times) == 96 and np.allclose([found[t] for t in times], truth, atol=6e-5)


@pytest.mark.parametrize("name", ["line-a-1", "server-1", "modbus-3", "modbus-4"])
def test_a_trip_by_the_product_removes_the_load_and_closing_restores_it(
    bench: tuple[Simulation, StepClock, dict[str, Device]], name: str
) -> None:
    simulation, clock, _ = bench
    before = simulation.true_power(name)
    carried = simulation.meters[name].site.power_by_component(np.array([clock.now_us()]))[1, 0]

    def order(kind: ActionKind) -> Outcome:
        action = ControlAction(id=f"{name}-{kind}", kind=kind, valid_until_us=clock.now_us() + 600 * US)
        return carry_out(bench, name, work(Duty.CONTROL, action=action))

    tripped = order(ActionKind.TRIP)
    assert tripped.answer is not None and tripped.answer.sent and tripped.answer.acknowledged, tripped
    clock.step(1)
    state = order(ActionKind.READ_STATE)
    assert state.answer is not None and state.answer.state is not None and state.answer.state.open
    assert simulation.true_power(name) == pytest.approx(before - carried, rel=0.02)
    closed = order(ActionKind.DIRECT_CLOSE)
    assert closed.answer is not None and closed.answer.acknowledged
    clock.step(1)
    state = order(ActionKind.READ_STATE)
    assert state.answer is not None and state.answer.state is not None and state.answer.state.open is False
    assert simulation.true_power(name) > before - carried / 2
