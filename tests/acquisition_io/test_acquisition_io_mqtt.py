"""MQTT 3.1.1 and 5 against a real mosquitto: nothing lost when the consumer is killed, commands once, read-only."""

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
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.io.clock import SystemClock
from fuhe.acquisition.io.engine import Engine
from fuhe.acquisition.profile import ControlPlan, Profile, Timing
from fuhe.model.control import ActionKind, ControlAction
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.work import Duty, Priority, Status, WorkItem
from fuhe.protocols.mqtt.payload import Readings, Sample, State, encode, parse_command, topic
from fuhe.protocols.mqtt.signing import build_answer, verify_command
from fuhe.protocols.mqtt.versions import Wanted
from fuhe.simulator.broker import Broker

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


def make_link(port: int, version: Wanted = "auto") -> LinkConfig:
    return LinkConfig(
        name="broker", kind="mqtt", port_no=port, version=version, reconnect_min_s=0.05, reconnect_max_s=0.1
    )


def make_engine(port: int, sink: Any, *, read_only: bool = False, version: Wanted = "auto") -> Engine:
    credentials = Credentials(key=base64.b64encode(KEY).decode())
    return Engine(
        [make_link(port, version)], [make_device()], {"mqtt": PROFILE}, lambda device: credentials, sink, SystemClock(),
        lambda: read_only, seed=1, gather_s=0.01,
    )  # fmt: skip


class Mosquitto:
    """The broker as a process that can be held still and killed."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    process = Mosquitto(tmp_path)
    yield process
    process.kill()


@pytest.fixture
def broker(mosquitto: Mosquitto) -> int:
    return mosquitto.port


both = pytest.mark.parametrize("version", ["3.1.1", "5"])


class Peer:
    """A plain MQTT client in a thread of paho: what it hears goes to `on_message`.

    expiry: seconds that a message of MQTT 5 still had; name: a persistent session.
    """

    def __init__(
        self, port: int, on_message: Any = None, topics: str = f"{ROOT}/#", *, five: bool = False, name: str = ""
    ) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.expiry: list[int | None] = []
        protocol = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
        clean = None if five else not name
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, name, clean_session=clean, protocol=protocol)
        properties = Properties(PacketTypes.CONNECT) if five else None  # type: ignore[no-untyped-call]
        if properties is not None and name:
            properties.SessionExpiryInterval = 3600
        ready = threading.Event()

        def message(client: mqtt.Client, userdata: object, m: mqtt.MQTTMessage) -> None:
            self.heard.append((m.topic, bytes(m.payload), m.retain))
            self.expiry.append(getattr(m.properties, "MessageExpiryInterval", None))
            if on_message is not None:
                on_message(m)

        self.client.on_message = message
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.connect("127.0.0.1", port, clean_start=not name if five else 3, properties=properties)
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


@both
async def test_readings_are_stored_and_broken_or_foreign_messages_refused(
    kit: Any, broker: int, version: Wanted
) -> None:
    sink = kit.MemorySink()
    engine = make_engine(broker, sink, version=version)
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


@both
async def test_commands_are_answered_signed_and_never_retained(kit: Any, broker: int, version: Wanted) -> None:
    engine = make_engine(broker, kit.MemorySink(), version=version)
    await engine.start()
    await until(lambda: all(s.up for s in engine.link_states()))

    def device(message: mqtt.MQTTMessage) -> None:
        command = parse_command(bytes(message.payload))
        verify_command(KEY, command)
        state = State(open=True) if command.action == "read_state" else None
        answer = build_answer(KEY, command, accepted=True, time_ms=1, state=state)
        peer.client.publish(topic(ROOT, "meter-1", "answer"), encode(answer), qos=1)

    peer = Peer(broker, device, topic(ROOT, "meter-1", "command"), five=True)
    outcome = await asyncio.wait_for(engine.submit(trip()), 10)
    assert outcome.status is Status.DONE and outcome.answer is not None
    assert outcome.answer.acknowledged is True and outcome.answer.state is not None and outcome.answer.state.open
    assert [parse_command(p).action for _, p, _ in peer.heard] == ["trip", "read_state"]
    trip_expiry, state_expiry = peer.expiry
    if version == "5":  # the seconds that are left: of a minute, and of two time-outs
        assert trip_expiry is not None and 58 <= trip_expiry <= 60 and state_expiry == 2
    else:
        assert trip_expiry is None and state_expiry is None
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


async def test_a_command_that_has_run_out_is_not_delivered_to_a_device_that_comes_late(kit: Any, broker: int) -> None:
    commands = topic(ROOT, "meter-1", "command")
    Peer(broker, topics=commands, five=True, name="meter").stop()  # its session lasts, the broker keeps messages for it
    engine = make_engine(broker, kit.MemorySink(), version=5)
    await engine.start()
    await until(lambda: all(s.up for s in engine.link_states()))
    end_us = SystemClock().now_us() + 1_500_000
    action = ControlAction(id="order-1", kind=ActionKind.TRIP, round=2, valid_until_us=end_us)
    item = WorkItem(device=1, duty=Duty.CONTROL, priority=Priority.CONTROL, expires_s=math.inf, action=action)
    outcome = await asyncio.wait_for(engine.submit(item), 10)
    assert outcome.status is Status.SILENT
    await until(lambda: SystemClock().now_us() > end_us + 2_500_000)  # the broker counts whole seconds
    late = Peer(broker, topics=commands, five=True, name="meter")
    await asyncio.to_thread(late.publish, commands, b"the end")
    await until(lambda: b"the end" in [p for _, p, _ in late.heard])
    # the question for the state that followed the silence is younger, and harmless
    assert not [p for _, p, _ in late.heard if b'"read_state"' not in p and p != b"the end"]
    late.stop()
    await engine.stop()


@both
async def test_a_command_without_the_brokers_receipt_is_not_sent_again(
    kit: Any, mosquitto: Mosquitto, version: Wanted
) -> None:
    """The broker is gone between the command and its receipt; to the next broker the command is never said."""
    engine = make_engine(mosquitto.port, kit.MemorySink(), version=version)
    await engine.start()
    await until(lambda: all(s.up for s in engine.link_states()))
    mosquitto.process.send_signal(signal.SIGSTOP)
    outcome = engine.submit(trip())
    sent = next(s for s in engine.link_states() if s.name == "broker").counters
    await until(lambda: sent.tx_bytes > 0)
    mosquitto.kill()
    lost = await asyncio.wait_for(outcome, 10)
    assert lost.answer is not None and lost.answer.sent and lost.answer.acknowledged is None
    mosquitto.start()
    peer = Peer(mosquitto.port)
    await until(lambda: all(s.up for s in engine.link_states()))
    await asyncio.to_thread(peer.publish, topic(ROOT, "meter-1", "readings"), reading(1))
    await until(lambda: peer.heard)
    await engine.stop()
    await asyncio.to_thread(peer.publish, f"{ROOT}/end", b"x")
    await until(lambda: len(peer.heard) == 2)
    assert [t.rpartition("/")[2] for t, _, _ in peer.heard] == ["readings", "end"]
    peer.stop()


async def test_auto_goes_over_to_the_old_version_where_the_broker_knows_no_other(kit: Any) -> None:
    broker = Broker()
    await broker.start()
    sink = kit.MemorySink()
    engine = make_engine(broker.port, sink)
    await engine.start()
    await until(lambda: engine.link_states()[0].up)
    peer = await asyncio.to_thread(Peer, broker.port, topics="nothing")
    await asyncio.to_thread(peer.publish, topic(ROOT, "meter-1", "readings"), reading(2))
    await until(lambda: sink.values == 1)
    await asyncio.to_thread(peer.stop)
    await engine.stop()
    await broker.stop()


@pytest.mark.parametrize("answer", [b"\x20\x02\x00\x01", b""], ids=["refuses", "closes"])
async def test_auto_tries_one_version_after_the_other_until_one_is_taken(kit: Any, answer: bytes) -> None:
    """A server that takes 3.1.1 only, at the third look; `5` stays with 5."""
    levels: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(2)
        packet = await reader.readexactly(head[1])
        levels.append(packet[6])
        writer.write(b"\x20\x02\x00\x00" if levels.count(4) == 2 and packet[6] == 4 else answer)
        await writer.drain()
        if levels.count(4) == 2:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    engine = make_engine(port, kit.MemorySink())
    await engine.start()
    await until(lambda: engine.link_states()[0].up)
    assert levels == [5, 4, 5, 4]
    await engine.stop()
    levels.clear()
    only = make_engine(port, kit.MemorySink(), version="5")
    await only.start()
    await until(lambda: len(levels) >= 3)
    assert set(levels) == {5}
    await only.stop()
    server.close()
    await server.wait_closed()


CONSUMER = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[1])
import importlib.util
spec = importlib.util.spec_from_file_location("mqtt_consumer", sys.argv[2])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
asyncio.run(module.consume(int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), sys.argv[6]))
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


async def consume(port: int, path: str, deadly: int, version: Wanted) -> None:
    """One life of a consumer (its own process): until killed, or until everything has come, or only to subscribe."""
    engine = make_engine(port, FileSink(path, deadly), version=version)
    await engine.start()
    await until(lambda: engine.link_states()[0].up)
    if deadly >= -1:
        await until(lambda: len(set(Path(path).read_text(encoding="ascii").split())) == MESSAGES)
    await engine.stop()


@both
async def test_a_consumer_killed_between_receive_and_fsync_loses_nothing(
    broker: int, tmp_path: Path, version: str
) -> None:
    journal = tmp_path / "journal"
    journal.touch()

    async def life(deadly: int) -> int:
        arguments = (
            str(Path(__file__).resolve().parents[2] / ".dev"),
            __file__,
            str(broker),
            str(journal),
            str(deadly),
            version,
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
