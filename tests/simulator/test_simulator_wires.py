"""Real pseudo-terminals and sockets: answers arrive, bus faults bite, the control socket tells the truth."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import serial
from dlt645 import MeterClientService

from fuhe.model.times import US
from fuhe.protocols.dlt645 import requests as ask
from fuhe.protocols.dlt645.frame import Frame, cut
from fuhe.protocols.dlt645.loads import decode_loads
from fuhe.simulator.clock import StepClock
from fuhe.simulator.emit import truth
from fuhe.simulator.faults import Fault
from fuhe.simulator.load import day_start
from fuhe.simulator.remote import Remote
from fuhe.simulator.scenario import parse_scenario
from fuhe.simulator.simulation import Simulation

NOW = day_start(20_300) + (10 * 3600 + 400) * US
SITE = {"shape": "textile", "base_kw": 30, "rounds": [{"kw": 90}]}


def scenario(*buses: dict[str, Any], **changes: Any) -> Any:
    devices = [
        {
            "name": f"{bus['name']}-{i}",
            "bus": bus["name"],
            "profile": "dlt645-2007-relay",
            "address": str(100 * n + i),
            "ct_ratio": 20,
            "relay": {"delay_s": 0},
            "site": SITE,
        }
        for n, bus in enumerate(buses)
        for i in (1, 2)
    ]
    return parse_scenario({"name": "w", "past_days": 2, "buses": list(buses), "devices": devices} | changes)


PTY = {"name": "pty", "kind": "pty", "protocol": "dlt645", "td_s": 0.0, "symlink": "line"}
TCP = {"name": "tcp", "kind": "tcp", "protocol": "dlt645", "td_s": 0.0}


@contextlib.asynccontextmanager
async def running(spec: Any, base: Path | None = None) -> AsyncIterator[Simulation]:
    async with Simulation(spec, StepClock(NOW), base=base) as simulation:
        yield simulation


async def talk(simulation: Simulation, bus: str, request: Frame, size: int = 1) -> bytes:
    """At least `size` bytes of answer over a fresh connection."""
    host, _, port = simulation.endpoints()[bus].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request.encode(4))
        data = b""
        while len(data) < size or not cut(data)[0]:
            part = await asyncio.wait_for(reader.read(4096), 10)
            if not part:
                break
            data += part
        return data
    finally:
        writer.close()
        await writer.wait_closed()


async def test_several_meters_answer_on_one_pseudo_terminal(tmp_path: Path) -> None:
    def exchange(port: str, request: bytes) -> bytes:
        with serial.Serial(port, 9600, timeout=5) as line:
            line.write(request)
            data = b""
            while not cut(data)[0] and (part := line.read(1)):
                data += part
            return data

    async with running(scenario(PTY), tmp_path) as simulation:
        assert simulation.endpoints()["pty"] == str(tmp_path / "line")
        for name, address in (("pty-1", "1"), ("pty-2", "2")):
            request = ask.read(address, "02030000").encode(4)
            data = await asyncio.to_thread(exchange, str(tmp_path / "line"), request[:9] + request[9:])
            frames, _ = cut(data)
            watts = simulation.meters[name].value("active_power_total", NOW)
            assert abs(int(frames[0].data[:3:-1].hex()) / 1e4 - watts) <= 0.0001
    assert not (tmp_path / "line").is_symlink()


async def test_past_days_over_the_wire_are_the_truth() -> None:
    async with running(scenario(TCP)) as simulation:
        told = truth(simulation)["power_kw"]["tcp-1"]  # type: ignore[index]
        meter = simulation.meters["tcp-1"]
        slots = simulation.past_slots()
        found: list[float] = []
        for i in range(0, len(slots), 9):  # nine records need a follow-on frame
            request = ask.read_load("1", "06020001", min(9, len(slots) - i), meter.clock.local(int(slots[i])))
            found += list(decode_loads(await whole(simulation, request), 2)[2].value[:, 0] * 20)
        assert found == pytest.approx(told, abs=20 * 0.00006)


async def whole(simulation: Simulation, request: Frame) -> bytes:
    """The answer with its follow-on parts, on one connection."""
    host, _, port = simulation.endpoints()["tcp"].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    out, number = b"", 0
    while True:
        writer.write((request if not number else ask.read_follow_on("1", "06020001", number)).encode())
        data = b""
        while not cut(data)[0]:
            data += await asyncio.wait_for(reader.read(4096), 10)
        frame = cut(data)[0][0]
        out += frame.data[4:-1] if number else frame.data[4:]
        number += 1
        if not frame.follow_on:
            writer.close()
            await writer.wait_closed()
            return out


async def test_pacing_sends_bytes_at_the_speed_of_the_line() -> None:
    async with running(scenario(TCP | {"baud": 2400})) as simulation:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        data = await talk(simulation, "tcp", ask.read("1", "0001FF00"))
        bits = 11 * (len(data) + 20)
        assert loop.time() - begun > 0.9 * bits / 2400
        assert sum(f.direction == "out" for f in simulation.observer.frames("tcp")) > 3


async def test_unplugged_resets_and_half_open_says_nothing() -> None:
    async with running(scenario(TCP)) as simulation:
        request = ask.read("1", "02010100")
        assert await talk(simulation, "tcp", request)
        simulation.inject(Fault(kind="unplugged", target=("tcp",)))
        with contextlib.suppress(ConnectionError):
            assert await talk(simulation, "tcp", request) == b""
        assert simulation.clear("tcp") == 1
        assert await talk(simulation, "tcp", request)
        simulation.inject(Fault(kind="half_open", target=("tcp",)))
        host, _, port = simulation.endpoints()["tcp"].partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request.encode())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)
        writer.close()
        await writer.wait_closed()


async def test_a_modem_dials_in_says_who_it_is_and_carries_its_meters() -> None:
    arrived: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda r, w: arrived.put_nowait((r, w)), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bus = {
        "name": "dtu", "kind": "dial", "protocol": "dlt645", "port": port, "registration": "REG:line7\r\n",
        "heartbeat": "HB", "heartbeat_s": 0.05, "td_s": 0,
    }  # fmt: skip
    async with running(scenario(bus)):
        reader, writer = await asyncio.wait_for(arrived.get(), 10)
        assert await asyncio.wait_for(reader.readexactly(11), 10) == b"REG:line7\r\n"
        assert await asyncio.wait_for(reader.readexactly(2), 10) == b"HB"
        writer.write(ask.read("2", "02010100").encode())
        data = b""
        while not cut(data)[0]:
            data += await asyncio.wait_for(reader.read(100), 10)
        assert cut(data)[0][0].address == "000000000002"
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_the_control_socket_tells_the_truth_and_arms_faults() -> None:
    async with running(scenario(TCP)) as simulation:
        remote = Remote(simulation)
        await remote.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", remote.port)

        async def op(**request: Any) -> dict[str, Any]:
            writer.write(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await asyncio.wait_for(reader.readline(), 10))
            return answer

        before = (await op(op="total"))["power_kw"]
        told = (await op(op="truth"))["devices"]["tcp-1"]
        assert told["power_kw"] == pytest.approx(simulation.true_power("tcp-1"), abs=0.001)
        simulation.meters["tcp-1"].relays[0].trip(NOW)
        after = await op(op="truth")
        assert after["devices"]["tcp-1"]["rounds"][0]["open"] is True
        assert (await op(op="total"))["power_kw"] == pytest.approx(before - told["rounds"][0]["kw"], abs=0.01)
        assert (await op(op="press", device="tcp-1"))["closed"] is False
        simulation.meters["tcp-1"].relays[0].permit_close(NOW)
        assert (await op(op="press", device="tcp-1"))["closed"] is True
        assert (await op(op="fault", kind="silent", target=["tcp-2"]))["ok"] is True
        assert (await op(op="fault", kind="silent", target=["nobody"]))["ok"] is False
        assert (await op(op="clear", name="tcp-2"))["ended"] == 1
        assert await talk(simulation, "tcp", ask.read("2", "02010100"))
        seen = (await op(op="frames", wire="tcp"))["frames"]
        assert seen[0]["direction"] == "in" and seen[-1]["device"] == "tcp-2"
        assert (await op(op="clock"))["now_us"] == NOW and (await op(op="endpoints"))["endpoints"]
        assert (await op(op="nonsense"))["ok"] is False
        writer.write(b"{broken\n")
        assert json.loads(await asyncio.wait_for(reader.readline(), 10))["ok"] is False
        writer.close()
        await writer.wait_closed()
        await remote.stop()


async def test_the_independent_dlt645_client_reads_our_meter() -> None:
    def read(port: int) -> tuple[float, float]:
        client = MeterClientService.new_tcp_client("127.0.0.1", port, timeout=5)
        assert client.connect()
        try:
            assert client.set_address("010000000000")  # it sends the digits as given, high byte first
            energy, volts = client.read_00(0x00000000), client.read_02(0x02010100)
            return float(energy.value), float(volts.value)
        finally:
            client.disconnect()

    async with running(scenario(TCP)) as simulation:
        port = int(simulation.endpoints()["tcp"].rpartition(":")[2])
        energy, volts = await asyncio.to_thread(read, port)
        meter = simulation.meters["tcp-1"]
        assert 0 <= meter.value("combined_active_total", NOW) - energy < 0.011
        assert abs(meter.value("voltage_a", NOW) - volts) < 0.06
