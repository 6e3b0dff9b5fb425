"""Terminals on real sockets and pseudo-terminals: dial-in, UDP, listening, serial; faults; what is emitted."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Any

import pytest
import serial
import yaml

from fuhe.model.times import US
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.qgdw1376.edition import edition
from fuhe.protocols.qgdw1376.frame import Address, cut
from fuhe.protocols.qgdw1376.message import build, parse, request
from fuhe.protocols.qgdw1376.units import Unit
from fuhe.simulator.clock import StepClock
from fuhe.simulator.emit import devices_csv, emit, rounds_csv
from fuhe.simulator.faults import Fault
from fuhe.simulator.load import day_start
from fuhe.simulator.scenario import builtin_scenarios, load_scenario, parse_scenario
from fuhe.simulator.simulation import Simulation

NOW = day_start(20_300) + (10 * 3600 + 400) * US
SITE = {"shape": "textile", "base_kw": 30, "rounds": [{"kw": 90}]}
PEER = edition("2013")


def scenario(bus: dict[str, Any], count: int = 2, **terminal: Any) -> Any:
    devices = [
        {
            "name": f"t{i}", "bus": bus["name"], "profile": "qgdw1376-2013", "address": f"3301-{100 + i}",
            "relay": {"delay_s": 0}, "terminal": {"redial_s": 0, "heartbeat_s": 60, **terminal},
            "points": [{"pn": 1, "ct_ratio": 40, "site": SITE}, {"pn": 2, "ct_ratio": 40, "site": SITE}],
        }
        for i in range(1, count + 1)
    ]  # fmt: skip
    return parse_scenario({"name": "w", "past_days": 2, "buses": [bus], "devices": devices})


async def turn(simulation: Simulation, seconds: float = 0) -> None:
    """Move the simulated clock and let the sockets work."""
    assert isinstance(simulation.clock, StepClock)
    simulation.clock.step(seconds)
    simulation.advance()
    await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["dial", "udp"])
async def test_terminals_dial_in_and_obey(front: Any, kind: str) -> None:
    async with front(kind == "udp") as (master, port):
        spec = scenario({"name": "b", "kind": kind, "protocol": "qgdw1376", "port": port, "td_s": 0})
        async with Simulation(spec, StepClock(NOW)) as simulation:
            await master.until(lambda f: len(f.peers) == 2)
            assert {(m.afn, m.units[0].fn) for m in master.heard} == {(2, 1)}
            for a2 in (101, 102):
                live = await master.ask(a2, 0x0C, Unit(1, 25, {}), Unit(2, 25, {}))
                assert [u.pn for u in live.units] == [1, 2]
            before = simulation.true_power("t1")
            trip = Unit(2, 1, {"alarm_delay_min": 0, "limit_half_hours": 0})
            assert (await master.ask(101, 0x05, trip)).confirmed
            simulation.advance()
            state = simulation.truth()["t1"]
            assert [r["open"] for r in state["rounds"]] == [False, True]  # type: ignore[attr-defined]
            assert simulation.true_power("t1") < before and simulation.truth()["t2"]["rounds"][0]["open"] is False  # type: ignore[index]
            await turn(simulation, 61)
            await master.until(lambda f: sum(m.afn == 2 and m.units[0].fn == 3 for m in f.heard) == 2)
            assert state["terminal"]["link"] == "online"  # type: ignore[index]


async def test_a_connection_that_breaks_is_made_anew_with_a_login(front: Any) -> None:
    async with front() as (master, port):
        spec = scenario({"name": "b", "kind": "dial", "protocol": "qgdw1376", "port": port, "td_s": 0}, 1)
        async with Simulation(spec, StepClock(NOW)) as simulation:
            await master.until(lambda f: len(f.heard) == 1)
            simulation.inject(Fault(kind="unplugged", target=("b",), end_s=30))
            await master.until(lambda f: f.closed == 1)
            await turn(simulation, 29)
            assert len(master.heard) == 1
            await turn(simulation, 2)
            await master.until(lambda f: len(f.heard) == 2)
            assert master.heard[1].units[0].fn == 1
            simulation.inject(Fault(kind="power_off", target=("t1",), end_s=60))
            await master.until(lambda f: f.closed == 2)
            await turn(simulation, 120)
            await master.until(lambda f: any(m.afn == 0x0E for m in f.heard))
            event = next(m for m in master.heard if m.afn == 0x0E).units[0].data
            assert event is not None and event["events"][0]["erc"] == 14
            answer = await master.ask(101, 0x05, Unit(0, 39, {}))
            assert answer.confirmed
            await master.until(lambda f: f.closed == 3 and f.heard[-1].units[0].fn in (1, 2))


async def test_heartbeats_into_a_half_open_line_end_the_connection(front: Any) -> None:
    async with front() as (master, port):
        spec = scenario({"name": "b", "kind": "dial", "protocol": "qgdw1376", "port": port, "td_s": 0}, 1)
        async with Simulation(spec, StepClock(NOW)) as simulation:
            await master.until(lambda f: len(f.heard) == 1)
            await turn(simulation)
            master.silent = True
            for _ in range(4):
                await turn(simulation, 61)
            await master.until(lambda f: f.closed == 1)


async def test_a_listening_terminal_needs_no_login_and_reports(make_front: Any) -> None:
    spec = scenario({"name": "b", "kind": "tcp", "protocol": "qgdw1376", "td_s": 0}, 2)
    async with Simulation(spec, StepClock(NOW)) as simulation:
        loop, master = asyncio.get_running_loop(), make_front()
        host, _, port = simulation.endpoints()["b"].partition(":")
        transport, _ = await loop.create_connection(lambda: master, host, int(port))
        for a2 in (101, 102):
            master.peers[a2] = transport.write
            assert (await master.ask(a2, 0x0C, Unit(0, 2, {}))).afn == 0x0C
        assert (await master.ask(102, 0x05, Unit(1, 1, {"alarm_delay_min": 0, "limit_half_hours": 0}))).confirmed
        await turn(simulation, 121)
        await master.until(lambda f: any(m.afn == 0x0E and m.address.a2 == 102 for m in f.heard))
        transport.close()


async def test_terminals_of_one_serial_line_answer_to_their_address(tmp_path: Any) -> None:
    spec = scenario({"name": "b", "kind": "pty", "protocol": "qgdw1376", "td_s": 0, "symlink": "line"})

    def exchange(port: str, wire: bytes) -> bytes:
        with serial.Serial(port, 9600, timeout=5) as line:
            line.write(wire)
            data = b""
            while not cut(data)[0] and (part := line.read(1)):
                data += part
            return data

    async with Simulation(spec, StepClock(NOW), base=tmp_path):
        for a2 in (101, 102):
            wire = build(request(Address("3301", a2), 0x0C, [Unit(0, 2, {})], PEER), PEER).encode(4)
            answer = parse(cut(await asyncio.to_thread(exchange, str(tmp_path / "line"), wire))[0][0], PEER)
            assert answer.address.a2 == a2 and answer.afn == 0x0C


async def test_what_a_master_needs_is_emitted(front: Any, tmp_path: Any) -> None:
    async with front() as (_, port):
        spec = scenario({"name": "b", "kind": "dial", "protocol": "qgdw1376", "port": port}, auth="cleartext")
        async with Simulation(spec, StepClock(NOW)) as simulation:
            emit(simulation, tmp_path)
            rows = list(csv.DictReader(io.StringIO(devices_csv(simulation))))
            assert [(r["name"], r["point"], r["kind"], r["pn"], r["address"]) for r in rows[:3]] == [
                ("t1", "t1-1", "measuring", "1", "3301-101"), ("t1", "t1-2", "measuring", "2", "3301-101"),
                ("t1", "t1-group-1", "group", "1", "3301-101"),
            ]  # fmt: skip
            assert [r["round"] for r in csv.DictReader(io.StringIO(rounds_csv(simulation))) if r["device"] == "t1"] == [
                "1", "2",
            ]  # fmt: skip
            link = yaml.safe_load((tmp_path / "links.yaml").read_text())["links"][0]
            assert (link["kind"], link["protocol"], link["port_no"]) == ("listen-tcp", "qgdw1376", port)
            assert set(simulation.past_curves()) == {"t1-1", "t1-2", "t2-1", "t2-2"}


def test_wrong_scenarios_name_every_fault() -> None:
    tree = yaml.safe_load(builtin_scenarios()["terminals"].read_text(encoding="utf-8"))
    parse_scenario(tree)
    mill, textile = tree["devices"][0], tree["devices"][1]
    mill["address"] = "3301-0"
    mill["terminal"]["groups"] = {9: [1], 1: [7]}
    mill["terminal"]["parameters"] = [{"fn": 17, "data": {"limit": 5}}, {"fn": 240, "data": {}}]
    mill["points"][1]["pn"] = 1
    mill["points"][0]["ct_ratio"] = 1
    textile["password"] = "xyz"
    textile["terminal"]["buffer"] = 5
    tree["devices"][2]["site"] = SITE
    tree["devices"][3]["points"][0]["site"]["shape"] = "none"
    tree["faults"][0]["target"] = ["mill-9"]
    with pytest.raises(UsageError) as caught:
        parse_scenario(tree)
    for text in (
        "devices[0].address", "terminal.groups.9", "terminal.groups.1", "terminal.parameters[0]: F17",
        "terminal.parameters[1]", "devices[0].points: pn", "points[0].ct_ratio", "devices[1].the message password",
        "devices[1].terminal.buffer", "devices[2].site", "devices[3].points[0].site.shape", "faults[0].target",
    ):  # fmt: skip
        assert text in str(caught.value), text


async def test_the_ready_made_scenario_runs(front: Any, tmp_path: Any) -> None:
    async with front() as (_, port):
        path = builtin_scenarios()["terminals"]
        spec = load_scenario(path)
        async with Simulation(spec, StepClock(NOW), base=tmp_path) as simulation:
            assert isinstance(simulation.clock, StepClock)
            for _ in range(30):
                await turn(simulation, 60)
            truth = simulation.truth()
            assert truth["hospital"]["terminal"]["protected"] is True  # type: ignore[index]
            assert truth["textile"]["terminal"]["clock_offset_s"] > 1  # type: ignore[index]
            assert simulation.terminals["mill"].application.terminal.parts.events.latest(31, 0)
            assert port
