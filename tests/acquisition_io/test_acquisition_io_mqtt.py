"""MQTT against a real mosquitto: nothing lost when the consumer is killed, commands and answers, read-only."""

from __future__ import annotations

import asyncio
import base64
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.io.clock import SystemClock
from fuhe.acquisition.io.engine import Engine
from fuhe.acquisition.profile import ControlPlan, Profile, Timing
from fuhe.model.control import ActionKind, ControlAction
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.work import Duty, Priority, Status, WorkItem
from fuhe.protocols.mqtt.payload import Readings, Sample, State, encode, parse_command, topic
from fuhe.protocols.mqtt.signing import build_answer, verify_command

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
pytestmark = [
    pytest.mark.needs_mosquitto,
    pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="mosquitto is not installed (apt install mosquitto)"),
]
KEY = b"0123456789abcdef"
ROOT = "fuhe/v1"
MESSAGES = 200
PROFILE = Profile(
    name="mqtt", title_en="", title_zh="", protocol="mqtt", timing=Timing(reply_timeout_s=1.0, retries=0),
    control=ControlPlan(means="mqtt-command", rounds=8),
)  # fmt: skip


def make_device(number: int = 1) -> Device:
    point = Point(id=100 + number, name=f"p{number}")
    return Device(
        id=number, name=f"d{number}", link="broker", profile="mqtt", address=f"meter-{number}", points=(point,)
    )


def make_link(port: int) -> LinkConfig:
    return LinkConfig(name="broker", kind="mqtt", port_no=port, reconnect_min_s=0.05, reconnect_max_s=0.1)


def make_engine(port: int, sink: Any, *, read_only: bool = False) -> Engine:
    credentials = Credentials(key=base64.b64encode(KEY).decode())
    return Engine(
        [make_link(port)], [make_device()], {"mqtt": PROFILE}, lambda device: credentials, sink, SystemClock(),
        lambda: read_only, seed=1, gather_s=0.01,
    )  # fmt: skip


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    yield port
    process.terminate()
    process.wait(10)


class Peer:
    """A plain MQTT client in a thread of paho: what it hears goes to `on_message`."""

    def __init__(self, port: int, on_message: Any = None, topics: str = f"{ROOT}/#") -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        ready = threading.Event()

        def message(client: mqtt.Client, userdata: object, m: mqtt.MQTTMessage) -> None:
            self.heard.append((m.topic, bytes(m.payload), m.retain))
            if on_message is not None:
                on_message(m)

        self.client.on_message = message
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe(topics, 1)
        assert ready.wait(10)

    def publish(self, name: str, payload: bytes) -> None:
        self.client.publish(name, payload, qos=1).wait_for_publish(10)

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def reading(n: int) -> bytes:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=n)
    return encode(Readings(v=1, device="meter-1", samples=[Sample(time=at, values={"voltage_a": 200.0 + n})]))


def trip(kind: ActionKind = ActionKind.TRIP) -> WorkItem:
    action = ControlAction(id="order-1", kind=kind, round=2, valid_until_us=SystemClock().now_us() + 60_000_000)
    return WorkItem(device=1, duty=Duty.CONTROL, priority=Priority.CONTROL, expires_s=math.inf, action=action)


async def until(condition: Any) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - conditions are of many kinds
            await asyncio.sleep(0.01)


async def test_readings_are_stored_and_broken_or_foreign_messages_refused(kit: Any, broker: int) -> None:
    sink = kit.MemorySink()
    engine = make_engine(broker, sink)
    await engine.start()
    await until(lambda: engine.link_states()[0].up)
    peer = Peer(broker, topics="nothing")
    await asyncio.to_thread(peer.publish, topic(ROOT, "meter-1", "readings"), b"{broken")
    await asyncio.to_thread(peer.publish, topic(ROOT, "meter-9", "readings"), reading(1))
    await asyncio.to_thread(peer.publish, topic(ROOT, "meter-1", "readings"), reading(2))
    await until(lambda: sink.values == 1)
    states = {s.name: s for s in engine.link_states()}
    assert states["broker"].counters.rejected == 2 and states["broker/meter-1"].up
    assert engine.device_states()[0].reached_us is not None
    assert [float(v) for b in sink.batches for v in b.samples.value] == [202.0]
    await engine.stop()
    peer.stop()


async def test_commands_are_answered_signed_and_never_retained(kit: Any, broker: int) -> None:
    engine = make_engine(broker, kit.MemorySink())
    await engine.start()
    await until(lambda: all(s.up for s in engine.link_states()))

    def device(message: mqtt.MQTTMessage) -> None:
        command = parse_command(bytes(message.payload))
        verify_command(KEY, command)
        state = State(open=True) if command.action == "read_state" else None
        answer = build_answer(KEY, command, accepted=True, time_ms=1, state=state)
        peer.client.publish(topic(ROOT, "meter-1", "answer"), encode(answer), qos=1)

    peer = Peer(broker, device, topic(ROOT, "meter-1", "command"))
    outcome = await asyncio.wait_for(engine.submit(trip()), 10)
    assert outcome.status is Status.DONE and outcome.answer is not None
    assert outcome.answer.acknowledged is True and outcome.answer.state is not None and outcome.answer.state.open
    assert [parse_command(p).action for _, p, _ in peer.heard] == ["trip", "read_state"]
    peer.stop()
    late = Peer(broker)
    await asyncio.to_thread(late.publish, f"{ROOT}/end", b"x")
    await until(lambda: late.heard)
    assert [t for t, _, _ in late.heard] == [f"{ROOT}/end"]
    late.stop()

    silent = await asyncio.wait_for(engine.submit(trip()), 10)
    assert silent.status is Status.SILENT and silent.answer is not None and silent.answer.acknowledged is None
    await engine.stop()


async def test_read_only_mode_publishes_nothing(kit: Any, broker: int) -> None:
    engine = make_engine(broker, kit.MemorySink(), read_only=True)
    await engine.start()
    await until(lambda: all(s.up for s in engine.link_states()))
    peer = Peer(broker)
    outcome = await asyncio.wait_for(engine.submit(trip()), 10)
    assert outcome.status is Status.READ_ONLY and engine.guard.refused == 1
    await asyncio.to_thread(peer.publish, f"{ROOT}/end", b"x")
    await until(lambda: peer.heard)
    assert [t for t, _, _ in peer.heard] == [f"{ROOT}/end"]
    await engine.stop()
    peer.stop()


async def test_a_lost_broker_is_a_link_that_is_down_and_comes_back(kit: Any, tmp_path: Path, broker: int) -> None:
    engine = make_engine(broker + 1 if broker < 65000 else broker - 1, kit.MemorySink())
    await engine.start()
    outcome = await asyncio.wait_for(engine.submit(trip()), 10)
    assert outcome.status is Status.LINK_DOWN and outcome.reason
    await engine.stop()


CONSUMER = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[1])
import importlib.util
spec = importlib.util.spec_from_file_location("mqtt_consumer", sys.argv[2])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
asyncio.run(module.consume(int(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
"""


class FileSink:
    """A journal of text lines; when more than `deadly` values have come the process is killed before it writes them."""

    def __init__(self, path: str, deadly: int) -> None:
        self.file = open(path, "a", encoding="ascii")  # noqa: SIM115, PTH123 - lives as long as the process
        self.deadly, self.count = deadly, 0

    async def deliver(self, batch: Any) -> None:
        self.count += batch.value_count
        if 0 <= self.deadly < self.count:
            os.kill(os.getpid(), signal.SIGKILL)
        self.file.write("".join(f"{value:.0f}\n" for value in batch.samples.value))
        self.file.flush()
        os.fsync(self.file.fileno())


async def consume(port: int, path: str, deadly: int) -> None:
    """One life of a consumer (its own process): until killed, or until everything has come, or only to subscribe."""
    engine = make_engine(port, FileSink(path, deadly))
    await engine.start()
    await until(lambda: engine.link_states()[0].up)
    if deadly >= -1:
        await until(lambda: len(set(Path(path).read_text(encoding="ascii").split())) == MESSAGES)
    await engine.stop()


async def test_a_consumer_killed_between_receive_and_fsync_loses_nothing(broker: int, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.touch()

    async def life(deadly: int) -> int:
        arguments = (
            str(Path(__file__).resolve().parents[2] / ".dev"),
            __file__,
            str(broker),
            str(journal),
            str(deadly),
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", CONSUMER, *arguments)
        return await asyncio.wait_for(process.wait(), 40)

    assert await life(-2) == 0  # makes the persistent session
    peer = Peer(broker, topics="nothing")
    for n in range(MESSAGES):
        peer.client.publish(topic(ROOT, "meter-1", "readings"), reading(n), qos=1)
    await asyncio.to_thread(peer.publish, f"{ROOT}/end", b"x")
    assert await life(30) == -signal.SIGKILL
    stored = set(journal.read_text(encoding="ascii").split())
    assert len(stored) <= 30
    assert await life(0) == -signal.SIGKILL
    assert await life(-1) == 0
    assert {int(v) for v in journal.read_text(encoding="ascii").split()} == {200 + n for n in range(MESSAGES)}
    peer.stop()
