"""Every duty against the simulated terminals of three editions, without a wire: what they say is what is understood."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.cycles import curve_window, freeze_window
from fuhe.acquisition.devices import parse_devices
from fuhe.acquisition.io.stations import make_session
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.acquisition.sessions import Carrier, open_exchange, open_relayed
from fuhe.acquisition.terminal import TerminalSession
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.quality import Source
from fuhe.model.quantities import by_id, quantity
from fuhe.model.readings import ReadingBatch
from fuhe.model.times import US, business_day, day_start_us
from fuhe.model.work import Duty, Exchange, Outcome, Priority, Status, WorkItem
from fuhe.protocols.guard import is_write
from fuhe.simulator.clock import StepClock
from fuhe.simulator.emit import devices_csv, secrets
from fuhe.simulator.faults import Fault
from fuhe.simulator.load import day_start
from fuhe.simulator.scenario import parse_scenario
from fuhe.simulator.simulation import Simulation

NOW = day_start(20_300) + (10 * 3600 + 1330) * US  # 10:22:10
SITE = {"shape": "textile", "base_kw": 30, "rounds": [{"kw": 90}]}
EDITIONS = {"t13": "2013", "t09": "2009", "t05": "2005"}


def build() -> Simulation:
    """One terminal of each edition behind one listening socket, two meters each."""
    devices = [
        {"name": name, "bus": "b", "profile": f"qgdw1376-{edition}", "address": f"3301-{100 + i}",
         "points": [{"pn": 1, "ct_ratio": 40, "site": SITE}, {"pn": 2, "ct_ratio": 20, "site": SITE}],
         "terminal": {"buffer": 900, "groups": {1: [1, 2]}}}
        for i, (name, edition) in enumerate(EDITIONS.items())
    ]  # fmt: skip
    tree = {"name": "w", "past_days": 40, "buses": [{"name": "b", "kind": "tcp", "protocol": "qgdw1376"}],
            "devices": devices}  # fmt: skip
    return Simulation(parse_scenario(tree), StepClock(NOW))


class World:
    """The simulation, its device list, and a session for each terminal as the engine keeps it."""

    def __init__(self) -> None:
        self.sim = build()
        assert isinstance(self.sim.clock, StepClock)
        self.clock = self.sim.clock
        self.link = LinkConfig(name="b", kind="tcp")
        parsed = parse_devices(devices_csv(self.sim).encode(), links={"b": self.link}, profiles=builtin_profiles())
        assert not parsed.faults, parsed.faults
        self.devices: dict[str, Device] = {}
        for n, device in enumerate(parsed.devices, 1):
            points = tuple(msgspec.structs.replace(p, id=100 * n + i) for i, p in enumerate(device.points))
            self.devices[device.name] = msgspec.structs.replace(device, id=n, points=points)
        self.sessions: dict[str, TerminalSession] = {
            name: make_session(d, builtin_profiles()[d.profile], self.link) for name, d in self.devices.items()
        }
        self.sent: list[bytes] = []

    def credentials(self, name: str) -> Credentials:
        """As the secrets file says."""
        return Credentials(**secrets(self.sim).get(name, {}))

    def do(self, name: str, duty: Duty, **more: object) -> Outcome:
        """Carry out a work item with a terminal."""
        device = self.devices[name]
        item = WorkItem(device=device.id, duty=duty, priority=Priority.LIVE, expires_s=1e9, **more)  # type: ignore[arg-type]
        profile = builtin_profiles()[device.profile]
        return self.carry(open_exchange(device, profile, item, self.credentials(name), session=self.sessions[name]))

    def carry(self, exchange: Exchange) -> Outcome:
        """Over the wire and back."""
        line = self.sim.buses["b"].line.session()
        self.sent = []
        for _ in range(500):
            request = exchange.next_request(self.clock.now_us())
            if request is None:
                return exchange.outcome(self.clock.now_us())
            self.sent.append(request.data)
            replies = line.receive(request.data, self.clock.now_us())
            self.clock.step(0.05)
            done = [exchange.receive(r.data, self.clock.now_us()) for r in replies]
            if not any(done) and not request.no_reply:
                self.clock.step(15)
                exchange.silence(self.clock.now_us())
        raise AssertionError("it does not end")

    def point(self, name: str, pn: int, kind: str = "measuring") -> Point:
        """A point of a terminal."""
        return next(p for p in self.devices[name].points if (p.pn, p.kind) == (pn, kind))

    def meter(self, name: str, pn: int):  # type: ignore[no-untyped-def]
        """The simulated meter behind a point."""
        return self.sim.meters[self.point(name, pn).name]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    yield World()


def values(batch: ReadingBatch | None) -> dict[tuple[int, str], float]:
    """(point, quantity) -> value."""
    assert batch is not None and batch.samples is not None
    s = batch.samples
    return {(int(p), by_id()[int(q)].name): float(v) for p, q, v in zip(s.point, s.quantity, s.value, strict=True)}


NAMES = pytest.mark.parametrize("name", list(EDITIONS))


@NAMES
def test_live_values(world: World, name: str) -> None:
    outcome = world.do(name, Duty.LIVE)
    assert outcome.status is Status.DONE, outcome.faults
    got = values(outcome.batch)
    for pn in (1, 2):
        truth = world.meter(name, pn).value("active_power_total", world.clock.now_us())
        assert got[world.point(name, pn).id, "active_power_total"] == pytest.approx(truth, rel=0.02, abs=1e-3)
        assert got[world.point(name, pn).id, "voltage_a"] > 180
    group = world.point(name, 1, "group").id
    total = sum(
        world.meter(name, pn).value("active_power_total", world.clock.now_us()) * ct for pn, ct in ((1, 40), (2, 20))
    )
    (power,) = [v for (p, q), v in got.items() if p == group and "reactive" not in q]
    assert power == pytest.approx(total, rel=0.03)
    assert not any(is_write("qgdw1376", data) for data in world.sent)


@NAMES
def test_a_past_day_of_curves_is_the_truth(world: World, name: str) -> None:
    day = business_day(NOW) - timedelta(days=1)
    outcome = world.do(name, Duty.CURVE, window_us=curve_window(day))
    assert outcome.status is Status.DONE, outcome.faults
    assert outcome.batch is not None
    found: dict[tuple[int, int], dict[int, float]] = {}
    for block in outcome.batch.curves:
        for k in range(len(block.point)):
            row = found.setdefault((int(block.point[k]), int(block.quantity[k])), {})
            for i in np.flatnonzero(np.isfinite(block.value[k])).tolist():
                row[int(block.start_us[k]) + i * block.step_s * US] = float(block.value[k, i])
    assert {len(row) for row in found.values()} == {96}
    profile = builtin_profiles()[f"qgdw1376-{EDITIONS[name]}"]
    assert profile.curve is not None and len(found) == 2 * (len(profile.curve.items) - 2) + 2
    for pn in (1, 2):
        for mark, tolerance in (("active_power_total", 6e-5), ("voltage_a", 0.06), ("forward_active_total", 0.006)):
            row = found[world.point(name, pn).id, quantity(mark).id]
            times = np.array(sorted(row))
            truth = world.meter(name, pn).series(mark, times)
            assert np.allclose([row[t] for t in times.tolist()], truth, atol=tolerance), mark
    assert not any(is_write("qgdw1376", data) for data in world.sent)
    assert (times[0], times[-1]) == (day_start_us(day) + 900 * US, day_start_us(day) + 86_400 * US)


@NAMES
@pytest.mark.parametrize("duty", [Duty.DAILY, Duty.MONTHLY])
def test_freezes_are_the_registers_at_midnight(world: World, name: str, duty: Duty) -> None:
    last = business_day(NOW) if duty is Duty.DAILY else business_day(NOW).replace(day=1)
    window = freeze_window(last - timedelta(days=1))
    outcome = world.do(name, duty, window_us=window)
    assert outcome.status is Status.DONE, outcome.faults
    assert outcome.batch is not None and outcome.batch.samples is not None
    s = outcome.batch.samples
    source = Source.DAILY if duty is Duty.DAILY else Source.MONTHLY
    mark = quantity("forward_active_total").id
    for pn in (1, 2):
        here = (s.point == world.point(name, pn).id) & (s.quantity == mark) & (s.source == source)
        assert s.time_us[here].tolist() == [window[0]]
        truth = world.meter(name, pn).series("forward_active_total", s.time_us[here])
        assert np.allclose(s.value[here], truth, atol=0.02)


@NAMES
def test_parameters_events_clock_and_probe(world: World, name: str) -> None:
    outcome = world.do(name, Duty.PARAMETER)
    assert outcome.batch is not None and {p.item for p in outcome.batch.parameters} >= {"0A:F1", "0A:F25:P1"}
    assert outcome.status in (Status.DONE, Status.PARTIAL), outcome.faults
    again = world.do(name, Duty.PARAMETER)
    assert again.batch is not None
    assert {p.item: p.value for p in again.batch.parameters} == {p.item: p.value for p in outcome.batch.parameters}
    assert world.do(name, Duty.PROBE).status is Status.DONE
    clock = world.do(name, Duty.CLOCK)
    assert clock.status is Status.DONE and clock.batch is not None and clock.batch.samples is not None
    assert abs(float(clock.batch.samples.value[0])) < 1.5
    outcome = world.do(name, Duty.EVENT)
    assert outcome.status is Status.DONE, outcome.faults
    if outcome.stored is not None:
        outcome.stored()
    again = world.do(name, Duty.EVENT)
    assert (again.status, again.batch, len(world.sent)) == (Status.DONE, None, 1)


@NAMES
def test_new_events_are_read_once(name: str) -> None:
    world = World()
    if (first := world.do(name, Duty.EVENT)).stored is not None:
        first.stored()
    world.sim.inject(Fault(kind="power_off", target=(name,), end_s=60))
    for _ in range(4):
        world.clock.step(60)
        world.sim.advance()
    outcome = world.do(name, Duty.EVENT)
    assert outcome.status is Status.DONE and outcome.batch is not None, outcome.faults
    outage = [e for e in outcome.batch.events if e.code == "ERC14"]
    assert outage and outage[-1].end_us is not None and outage[-1].time_us < outage[-1].end_us
    assert outcome.stored is not None
    outcome.stored()
    again = world.do(name, Duty.EVENT)
    assert (again.status, again.batch) == (Status.DONE, None)


@NAMES
def test_a_clock_that_is_off_is_set_and_told(world: World, name: str) -> None:
    world.sim.inject(Fault(kind="clock_offset", target=(name,), value=200.0))
    read = world.do(name, Duty.CLOCK)
    assert read.batch is not None and read.batch.samples is not None
    assert abs(float(read.batch.samples.value[0]) - 200) < 1.5
    done = world.do(name, Duty.CLOCK, items=("set",))
    assert done.status is Status.DONE, (done.reason, done.faults)
    assert done.batch is not None and done.batch.samples is not None
    assert abs(float(done.batch.samples.value[0])) < 1.5
    assert [is_write("qgdw1376", d) for d in world.sent] == [False, True, False]
    (event,) = [e for e in done.batch.events if e.code == "clock_set"]
    assert event.data["answer"] == "confirmed"


@NAMES
def test_a_meter_behind_the_terminal(world: World, name: str) -> None:
    meter = world.meter(name, 2)
    profile = builtin_profiles()["dlt645-2007-3p4w"]
    device = Device(
        id=99, name="behind", link="b", profile=profile.name, address=meter.address, points=(Point(id=990, name="x"),),
        options={"via": name, "port": "2"},
    )  # fmt: skip
    terminal = world.devices[name]
    carrier = Carrier(terminal, builtin_profiles()[terminal.profile], world.credentials(name), world.sessions[name])
    item = WorkItem(device=99, duty=Duty.LIVE, priority=Priority.LIVE, expires_s=1e9)
    outcome = world.carry(open_relayed(device, profile, item, Credentials(), carrier))
    assert outcome.status is Status.DONE, (outcome.reason, outcome.faults)
    got = values(outcome.batch)
    assert got[990, "active_power_total"] == pytest.approx(
        meter.value("active_power_total", world.clock.now_us()), rel=0.02
    )
    assert not any(is_write("qgdw1376", data) for data in world.sent)
    stranger = msgspec.structs.replace(device, address="000000999999")
    outcome = world.carry(open_relayed(stranger, profile, item, Credentials(), carrier))
    assert outcome.status is Status.SILENT


WIRE = [
    "silent",
    "truncate",
    "bit_flip",
    "duplicate",
    "lost_byte",
    "noise_before",
    "noise_after",
    "wrong_address",
    "echo",
]


@pytest.mark.parametrize("kind", WIRE)
@pytest.mark.parametrize("duty", [Duty.LIVE, Duty.CURVE])
def test_faults_on_the_wire_are_got_over(kind: str, duty: Duty) -> None:
    world = World()
    clean = world.do("t13", duty, window_us=curve_window(business_day(NOW) - timedelta(days=1)))
    world.sim.inject(Fault(kind=kind, target=("t13",), count=2))
    outcome = world.do("t13", duty, window_us=curve_window(business_day(NOW) - timedelta(days=1)))
    assert outcome.status is Status.DONE, outcome.faults
    assert outcome.batch is not None and clean.batch is not None
    assert outcome.batch.value_count == clean.batch.value_count
