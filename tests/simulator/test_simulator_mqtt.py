"""MQTT devices over a real broker: backlog, live values, signed commands, replay, retained commands, restart."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import queue
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fuhe.model.times import US, to_us
from fuhe.protocols.mqtt.payload import (
    Answer,
    Command,
    encode,
    parse_answer,
    parse_events,
    parse_readings,
    parse_status,
    topic,
)
from fuhe.protocols.mqtt.signing import build_command, read_answer
from fuhe.simulator.clock import StepClock
from fuhe.simulator.faults import Fault
from fuhe.simulator.load import day_start
from fuhe.simulator.mqtt import MqttBus
from fuhe.simulator.scenario import parse_scenario
from fuhe.simulator.simulation import Simulation

NOW = day_start(20_300) + (10 * 3600 + 400) * US
KEY = base64.b64encode(b"0123456789abcdef0123").decode()
ROOT = "fuhe/v1"
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


class Master:
    """A subscriber that hears everything and sends commands."""

    def __init__(self, port: int) -> None:
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._ready = queue.Queue[bool]()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="master")
        self.client.on_connect = lambda c, *_: c.subscribe(f"{ROOT}/#", qos=1)
        self.client.on_subscribe = lambda *_: self._ready.put(True)
        self.client.on_message = lambda c, u, m: self.heard.put((m.topic.rsplit("/", 1)[1], bytes(m.payload)))
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()

    async def ready(self) -> None:
        await asyncio.to_thread(self._ready.get, True, 20)

    async def next(self, kind: str, timeout_s: float = 20) -> bytes:
        """The next message of a kind; others before it are passed over."""
        for _ in range(500):
            found, data = await asyncio.to_thread(self.heard.get, True, timeout_s)
            if found == kind:
                return data
        raise AssertionError(f"no {kind} among 500 messages")

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Bench:
    def __init__(self, simulation: Simulation, clock: StepClock, master: Master) -> None:
        self.simulation, self.clock, self.master = simulation, clock, master
        self.meter = simulation.meters["m1"]
        self._count = 0

    def command(self, action: Any, **fields: Any) -> Command:
        self._count += 1
        now_ms = self.clock.now_us() // 1000
        base: dict[str, Any] = {
            "id": f"c{self._count}",
            "valid_until_ms": now_ms + 60_000,
            "nonce": f"{self._count:032x}",
            "round": 1,
        }
        return build_command(base64.b64decode(KEY), device="m1", action=action, **(base | fields))

    def send(self, command: Command, *, retain: bool = False) -> None:
        self.master.client.publish(topic(ROOT, "m1", "command"), encode(command), qos=1, retain=retain)

    async def ask(self, command: Command) -> Answer:
        self.send(command)
        return read_answer(base64.b64decode(KEY), command, await self.master.next("answer"))


def scenario(bus: dict[str, object]) -> dict[str, object]:
    device = {
        "name": "m1", "bus": "broker", "profile": "mqtt-v1", "address": "m1", "key": KEY, "ct_ratio": 10,
        "relay": {"delay_s": 0, "human_s": None}, "publish_s": 60,
        "site": {"shape": "textile", "base_kw": 20, "rounds": [{"kw": 100}]},
    }  # fmt: skip
    return {"name": "m", "past_days": 2, "buses": [bus], "devices": [device]}


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    spec = parse_scenario(scenario({"name": "broker", "kind": "mqtt", "protocol": "mqtt", "broker": True}))
    clock = StepClock(NOW)
    async with Simulation(spec, clock) as simulation:
        bus = simulation.buses["broker"]
        assert isinstance(bus, MqttBus)
        master = Master(bus.port)
        try:
            await master.ready()
            assert parse_status(await master.next("status")).online  # it has subscribed to its commands
            yield Bench(simulation, clock, master)
        finally:
            await asyncio.to_thread(master.stop)


async def test_past_curves_arrive_as_the_truth_and_again_when_asked(bench: Bench) -> None:
    bus = bench.simulation.buses["broker"]
    assert isinstance(bus, MqttBus)
    bus.devices["m1"].forget_published()
    found: dict[int, float | None] = {}
    wanted = bench.simulation.past_slots()
    while len(found) < len(wanted):
        for curve in parse_readings(await bench.master.next("readings")).curves:
            if curve.quantity == "active_power_total":
                first = to_us(curve.start)
                slots = {first + i * 900 * US: v for i, v in enumerate(curve.values)}
                found |= {t: v for t, v in slots.items() if t >= wanted[0]}
    truth = bench.simulation.past_curves()["m1"]
    assert [found[int(t)] for t in wanted] == pytest.approx(list(truth / 10), abs=1e-4)


async def test_live_values_are_published_at_their_period(bench: Bench) -> None:
    bench.clock.step(61)
    for _ in range(100):
        samples = [s for s in parse_readings(await bench.master.next("readings")).samples if s.source == "live"]
        if samples and to_us(samples[0].time) == bench.clock.now_us():
            break
    assert samples[0].values["active_power_total"] == pytest.approx(
        bench.meter.value("active_power_total", bench.clock.now_us()), abs=1e-4
    )


async def test_a_signed_trip_is_obeyed_once_and_answered_with_the_state(bench: Bench) -> None:
    full = bench.meter.site.power(np.array([NOW]))[0]
    share = bench.meter.site.power_by_component(np.array([NOW]))[1, 0]
    trip = bench.command("trip")
    answer = await bench.ask(trip)
    assert answer.accepted and answer.state is not None and answer.state.open and answer.state.command_trip
    assert bench.meter.site.power(np.array([NOW]))[0] == pytest.approx(full - share)
    again = await bench.ask(trip)
    assert not again.accepted and again.code == "repeated"
    event = parse_events(await bench.master.next("events")).events[0]
    assert event.code == "trip" and event.data == {"round": 1}
    closed = await bench.ask(bench.command("direct_close"))
    assert closed.accepted and closed.state is not None and closed.state.open is False


async def test_commands_that_are_late_forged_retained_or_against_protection_do_nothing(bench: Bench) -> None:
    late = await bench.ask(bench.command("trip", valid_until_ms=NOW // 1000 - 1))
    assert (late.accepted, late.code) == (False, "expired")
    fields: dict[str, Any] = {"id": "f", "round": 1, "valid_until_ms": NOW // 1000 + 60_000, "nonce": "0" * 32}
    forged = build_command(b"another key of 16+", device="m1", action="trip", **fields)
    bench.send(forged)
    bench.send(bench.command("trip"), retain=True)  # delivered live to a present subscriber: this one is legal
    assert parse_answer(await bench.master.next("answer")).accepted
    assert (await bench.ask(bench.command("direct_close"))).accepted
    assert (await bench.ask(bench.command("protect_on"))).accepted
    refused = await bench.ask(bench.command("trip"))
    assert (refused.accepted, refused.code) == (False, "protected")
    assert (await bench.ask(bench.command("trip", round=3))).code == "no-round"
    assert not bench.meter.relays[0].contact_open


@pytest.mark.needs_mosquitto
@pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="mosquitto is not installed (apt install mosquitto)")
@pytest.mark.parametrize("version", ["auto", "5", "3.1.1"])
async def test_devices_speak_either_version_to_a_real_broker_and_come_back(tmp_path: Path, version: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    config = tmp_path / "mosquitto.conf"
    log = tmp_path / "log"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest file {log}\nlog_type all\nuser root\n"
    )

    async def broker() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(MOSQUITTO, "-c", str(config), stderr=asyncio.subprocess.DEVNULL)

    process = await broker()
    tree = scenario({"name": "broker", "kind": "mqtt", "protocol": "mqtt", "port": port, "version": version})
    async with Simulation(parse_scenario(tree), StepClock(NOW)) as simulation:
        master = Master(port)
        await master.ready()
        bench = Bench(simulation, StepClock(NOW), master)
        assert parse_status(await master.next("status")).online
        assert (await bench.ask(bench.command("trip"))).accepted and bench.meter.relays[0].contact_open
        process.kill()
        await process.wait()
        process = await broker()
        for _ in range(100):  # a will of the old session may come first
            if parse_status(await master.next("status")).online:
                break
        assert (await bench.ask(bench.command("direct_close"))).accepted and not bench.meter.relays[0].contact_open
        await asyncio.to_thread(master.stop)
    process.kill()
    await process.wait()
    spoken = "p2" if version == "3.1.1" else "p5"
    assert f"as sim-m1 ({spoken}" in log.read_text()


async def test_after_a_restart_the_missed_slots_are_published(bench: Bench) -> None:
    await bench.master.next("readings")
    bench.simulation.inject(Fault(kind="restart", target=("m1",), end_s=3600))
    with contextlib.suppress(queue.Empty):
        while True:
            bench.master.heard.get_nowait()
    bench.clock.step(3601)
    labels: set[int] = set()
    while len(labels) < 4:
        for curve in parse_readings(await bench.master.next("readings")).curves:
            first = to_us(curve.start)
            labels |= {first + i * 900 * US for i in range(len(curve.values)) if first + i * 900 * US > NOW}
    assert min(labels) == day_start(20_300) + (10 * 3600 + 900) * US
