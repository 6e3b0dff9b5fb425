"""The engine over real sockets and pseudo-terminals, with a toy protocol and with DL/T 645."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import tty
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import serial

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.io.engine import Engine
from fuhe.acquisition.io.transports.serial import settings
from fuhe.model.control import ActionKind, ControlAction
from fuhe.model.work import Duty, Outcome, Priority, Status, WorkItem

QUICK: dict[str, Any] = {
    "reconnect_min_s": 0.02, "reconnect_max_s": 0.05, "margin_ms": 20.0, "turnaround_ms": 1.0, "connect_timeout_s": 1.0,
}  # fmt: skip


def toy_reply(data: bytes) -> bytes:
    return b"".join(b"!" + line[1:] + b"\n" for line in data.split(b"\n") if line)


class ToyServer:
    """Answers toy requests; `frozen` accepts and never answers, `seen` is all that came."""

    def __init__(self) -> None:
        self.seen = b""
        self.frozen = False
        self.connections: set[asyncio.StreamWriter] = set()
        self.made = 0
        self.server: asyncio.Server | None = None

    async def start(self) -> int:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for writer in tuple(self.connections):
            writer.transport.abort()
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        self.made += 1
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                self.seen += data
                if not self.frozen:
                    writer.write(toy_reply(data))
        self.connections.discard(writer)
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[SimpleNamespace]:
    toy = ToyServer()
    port = await toy.start()
    yield SimpleNamespace(toy=toy, port=port)
    await toy.stop()


def make_engine(kit: Any, links: list[LinkConfig], devices: list[Any], **changes: Any) -> Engine:
    values = {
        "profiles": {"toy": kit.PROFILE}, "credentials": kit.credentials, "sink": kit.MemorySink(),
        "clock": kit.clock, "read_only": lambda: False, "seed": 1, "gather_s": 0.01, **changes,
    }  # fmt: skip
    return Engine(links, devices, **values)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the loop to bring something about (bounded; not a measurement of time)."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - conditions are of many kinds
            await asyncio.sleep(0.005)


def control(device: int) -> WorkItem:
    action = ControlAction(id=f"c{device}", kind=ActionKind.TRIP, valid_until_us=1)
    return WorkItem(device=device, duty=Duty.CONTROL, priority=Priority.CONTROL, expires_s=math.inf, action=action)


def tasks_and_files() -> tuple[set[asyncio.Task[Any]], int]:
    return asyncio.all_tasks(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def test_items_are_answered_after_the_sink_has_them(kit: Any, toy_sessions: Any, server: Any) -> None:
    seen: list[tuple[int, int]] = []
    sink = kit.MemorySink()

    def on_outcome(item: WorkItem, outcome: Outcome) -> None:
        seen.append((item.device, sink.values))

    link = LinkConfig(name="line", kind="tcp", port_no=server.port, **QUICK)
    devices = [kit.device(n) for n in range(1, 21)]
    engine = make_engine(kit, [link], devices, sink=sink, on_outcome=on_outcome)
    await engine.start()
    futures = [engine.submit(kit.item(n)) for n in range(1, 21)]
    assert engine.submit(kit.item(1)) is futures[0]
    outcomes = await asyncio.gather(*futures)
    assert {o.status for o in outcomes} == {Status.DONE} and sink.values == 20
    assert all(values > 0 for _, values in seen) and len(seen) == 20
    assert len(sink.batches) < 20  # delivered together
    assert (await engine.submit(kit.item(99))).status is Status.CANCELLED
    (state,) = engine.link_states()
    assert state.up and state.counters.replies == 20 and state.devices == 20 and sum(state.depth) == 0
    assert all(s.reached_us for s in engine.device_states())
    await engine.stop()
    assert (await engine.submit(kit.item(1))).status is Status.CANCELLED


async def test_nothing_is_left_after_stop(kit: Any, toy_sessions: Any, server: Any) -> None:
    toy_sessions["steps"] = 500
    before = tasks_and_files()
    links = [LinkConfig(name="line", kind="tcp", port_no=server.port, **QUICK)]
    links += [LinkConfig(name="field", kind="listen-tcp"), LinkConfig(name="udp", kind="listen-udp")]
    engine = make_engine(kit, links, [kit.device(1), kit.device(2, "field", line="x"), kit.device(3, "udp", line="y")])
    await engine.start()
    futures = [engine.submit(kit.item(1)), engine.submit(kit.item(2)), engine.submit(kit.item(3))]
    await until(lambda: server.toy.seen != b"")
    await engine.stop()
    assert [f.result().status for f in futures] == [Status.LINK_DOWN, Status.CANCELLED, Status.CANCELLED]
    await until(lambda: not server.toy.connections)
    after = tasks_and_files()
    assert after[0] <= before[0] and after[1] == before[1]


async def test_a_peer_that_vanished_without_fin_is_replaced_and_leaves_nothing(
    kit: Any, toy_sessions: Any, server: Any
) -> None:
    link = LinkConfig(name="line", kind="tcp", port_no=server.port, half_open_s=0.5, **QUICK)
    engine = make_engine(kit, [link], [kit.device(1)])
    await engine.start()
    assert (await engine.submit(kit.item(1))).status is Status.DONE
    baseline = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    tasks = asyncio.all_tasks()
    server.toy.frozen = True
    for n in range(3):
        outcome = await engine.submit(kit.item(1, Priority.LIVE, items=("1", str(n)), forced=True))
        assert outcome.status is Status.SILENT
    await until(lambda: server.toy.made == 2)
    server.toy.frozen = False
    await until(lambda: engine.link_states()[0].up)
    assert (await engine.submit(kit.item(1, forced=True))).status is Status.DONE
    await until(lambda: len(server.toy.connections) == 1)
    assert len(os.listdir("/proc/self/fd")) == baseline  # noqa: PTH208
    extra = {t for t in asyncio.all_tasks() - tasks if "_serve" not in str(t)}
    assert not extra
    await engine.stop()


async def test_a_lost_connection_comes_back_and_unreachable_is_told(kit: Any, toy_sessions: Any, server: Any) -> None:
    link = LinkConfig(name="line", kind="tcp", port_no=server.port, **QUICK)
    engine = make_engine(kit, [link], [kit.device(1)])
    await engine.start()
    assert (await engine.submit(kit.item(1))).status is Status.DONE
    for writer in tuple(server.toy.connections):
        writer.transport.abort()
    await until(lambda: server.toy.made == 2)
    assert (await engine.submit(kit.item(1))).status is Status.DONE
    await server.toy.stop()
    await until(lambda: not engine.link_states()[0].up)
    outcome = await engine.submit(control(1))
    assert outcome.status is Status.LINK_DOWN and str(server.port) in outcome.reason
    await engine.stop()


async def test_read_only_stops_every_write_on_every_transport(kit: Any, toy_sessions: Any, server: Any) -> None:
    """The toy protocol is unknown to the guard, so every byte of it is a write."""
    master, slave = os.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    links = [
        LinkConfig(name="tcp", kind="tcp", port_no=server.port, **QUICK),
        LinkConfig(name="port", kind="serial", port=os.ttyname(slave), parity="N", **QUICK),
        LinkConfig(name="field", kind="listen-tcp", **QUICK),
        LinkConfig(name="udp", kind="listen-udp", **QUICK),
    ]
    devices = [kit.device(1, "tcp"), kit.device(2, "port")]
    devices += [kit.device(3, "field", line="x"), kit.device(4, "udp", line="y")]
    engine = make_engine(kit, links, devices, read_only=lambda: True)
    await engine.start()
    reader, writer = await asyncio.open_connection(*engine.listening("field"))
    writer.write(b"REG:x\r\n")
    inbox: list[bytes] = []

    class Peer(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            inbox.append(data)

    udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(Peer, remote_addr=engine.listening("udp"))
    udp.sendto(b"REG:y\r\n")
    await until(lambda: sum(s.up for s in engine.link_states()) == 6)
    outcomes = await asyncio.gather(*(engine.submit(control(n)) for n in (1, 2, 3, 4)))
    assert [o.status for o in outcomes] == [Status.READ_ONLY] * 4
    assert all(o.answer is not None and o.answer.sent is False for o in outcomes)
    assert engine.guard.refused == 4 and sum(s.counters.refused_writes for s in engine.link_states()) == 4
    os.set_blocking(master, False)
    with pytest.raises(BlockingIOError):
        os.read(master, 100)
    assert server.toy.seen == b"" and inbox == []
    writer.close()
    await engine.stop()
    assert await reader.read() == b""
    udp.close()
    os.close(master)
    os.close(slave)


async def test_an_overloaded_sink_holds_the_lines_back_and_memory_stays(
    kit: Any, toy_sessions: Any, server: Any
) -> None:
    link = LinkConfig(name="line", kind="tcp", port_no=server.port, queue_items=50, **QUICK)
    sink = kit.MemorySink()
    sink.gate = asyncio.Event()
    engine = make_engine(kit, [link], [kit.device(1)], sink=sink)
    engine.collector._limit = 10
    await engine.start()
    futures = [engine.submit(kit.item(1, items=("1", str(n)))) for n in range(200)]
    await until(lambda: engine.full)
    refused = [f for f in futures if f.done()]
    assert len(refused) == 150 and {f.result().status for f in refused} == {Status.CANCELLED}
    assert engine.collector.values <= 11
    urgent = engine.submit(control(1))
    await until(lambda: b"W1.0\n" in server.toy.seen)
    sink.gate.set()
    outcomes = await asyncio.gather(*futures, urgent)
    assert sum(o.status is Status.DONE for o in outcomes) >= 50 and sink.values >= 50
    await engine.stop()


async def test_a_sink_that_fails_is_not_an_acknowledgement(kit: Any, toy_sessions: Any, server: Any) -> None:
    sink = kit.MemorySink()
    sink.error = OSError("disk full")
    link = LinkConfig(name="line", kind="tcp", port_no=server.port, **QUICK)
    engine = make_engine(kit, [link], [kit.device(1)], sink=sink)
    await engine.start()
    outcome = await engine.submit(kit.item(1))
    assert outcome.status is Status.BROKEN and outcome.batch is None and "disk full" in outcome.reason
    sink.error = None
    assert (await engine.submit(kit.item(1))).status is Status.DONE
    await engine.stop()


async def test_a_fault_in_one_exchange_does_not_end_the_line(
    kit: Any, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    class Faulty(kit.ToyExchange):  # type: ignore[misc]
        def receive(self, data: bytes, now_us: int) -> bool:
            raise KeyError("a bug")

    def open_toy(device: Any, profile: Any, item: WorkItem, credentials: Any, session: Any = None) -> Any:
        return (Faulty if item.device == 1 else kit.ToyExchange)(device, item, 1, 0)

    monkeypatch.setattr("fuhe.acquisition.io.engine.open_exchange", open_toy)
    link = LinkConfig(name="line", kind="tcp", port_no=server.port, **QUICK)
    engine = make_engine(kit, [link], [kit.device(1), kit.device(2)])
    await engine.start()
    first, second = await asyncio.gather(engine.submit(kit.item(1)), engine.submit(kit.item(2)))
    assert first.status is Status.BROKEN and "a bug" in first.reason and second.status is Status.DONE
    await engine.stop()


async def test_the_device_list_changes_at_run_time(kit: Any, toy_sessions: Any, server: Any) -> None:
    links = [LinkConfig(name=n, kind="tcp", port_no=server.port, **QUICK) for n in ("line", "other")]
    engine = make_engine(kit, links, [kit.device(1)])
    await engine.start()
    await until(lambda: server.toy.made == 1)
    unserved = await engine.set_devices([kit.device(2, "other"), kit.device(3, "nowhere")])
    assert "nowhere" in unserved[3]
    assert (await engine.submit(kit.item(2))).status is Status.DONE
    outcome = await engine.submit(kit.item(3))
    assert outcome.status is Status.CANCELLED and "nowhere" in outcome.reason
    await until(lambda: len(server.toy.connections) == 1)
    assert [s.name for s in engine.link_states()] == ["other"]
    await engine.stop()


class PtyMeter:
    """The far end of a pseudo-terminal that answers toy requests."""

    def __init__(self) -> None:
        self.master, slave = os.openpty()
        tty.setraw(self.master)
        tty.setraw(slave)
        self.name, self._slave = os.ttyname(slave), slave
        os.set_blocking(self.master, False)
        asyncio.get_running_loop().add_reader(self.master, self._readable)

    def _readable(self) -> None:
        try:
            os.write(self.master, toy_reply(os.read(self.master, 4096)))
        except OSError:
            asyncio.get_running_loop().remove_reader(self.master)

    def pull_out(self) -> None:
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)
        os.close(self._slave)


async def test_a_serial_port_works_and_is_reopened_when_the_adapter_comes_back(
    kit: Any, toy_sessions: Any, tmp_path: Any
) -> None:
    meter = PtyMeter()
    port = tmp_path / "ttyUSB0"
    port.symlink_to(meter.name)
    link = LinkConfig(name="line", kind="serial", port=str(port), parity="N", **QUICK)
    engine = make_engine(kit, [link], [kit.device(1), kit.device(2)])
    await engine.start()
    outcomes = await asyncio.gather(*(engine.submit(kit.item(n)) for n in (1, 2)))
    assert [o.status for o in outcomes] == [Status.DONE] * 2
    meter.pull_out()
    await until(lambda: not engine.link_states()[0].up)
    port.unlink()
    assert (await engine.submit(control(1))).status is Status.LINK_DOWN
    meter = PtyMeter()
    port.symlink_to(meter.name)
    await until(lambda: engine.link_states()[0].up)
    assert (await engine.submit(kit.item(1))).status is Status.DONE
    assert engine.link_states()[0].counters.reconnects >= 1
    await engine.stop()
    meter.pull_out()


async def test_a_port_that_refuses_8e1_is_a_link_that_is_down_with_a_reason(
    kit: Any, toy_sessions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import termios

    def refuse(**kwargs: Any) -> None:
        raise termios.error(22, "Invalid argument")

    monkeypatch.setattr(serial, "Serial", refuse)
    engine = make_engine(kit, [LinkConfig(name="line", kind="serial", port="/dev/x", **QUICK)], [kit.device(1)])
    await engine.start()
    await until(lambda: "Invalid argument" in engine.link_states()[0].reason)
    await engine.stop()


def test_configured_8e1_reaches_the_settings_object() -> None:
    port = serial.Serial()  # not opened: a pseudo-terminal has no parity
    for name, value in settings(LinkConfig(name="x", kind="serial", port="/dev/ttyS9", baud=2400)).items():
        if name != "port":
            setattr(port, name, value)
    assert (port.bytesize, port.parity, port.stopbits, port.baudrate) == (8, serial.PARITY_EVEN, 1, 2400)
    assert port.exclusive is True and port.timeout == 0
    odd = settings(LinkConfig(name="x", kind="serial", parity="O", bytesize=7, stopbits=2))
    assert (odd["parity"], odd["bytesize"], odd["stopbits"]) == ("O", 7, 2)
