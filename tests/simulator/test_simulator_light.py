"""Light terminals: what they answer is what the full simulator says, and a fleet of them works on real sockets."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuhe.model.times import US
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.qgdw1376.dadt import ALL_POINTS
from fuhe.protocols.qgdw1376.edition import edition
from fuhe.protocols.qgdw1376.frame import Address, cut
from fuhe.protocols.qgdw1376.message import Message, Tp, build, parse, request
from fuhe.protocols.qgdw1376.segments import Assembler
from fuhe.protocols.qgdw1376.units import Unit
from fuhe.simulator.clock import ScaledClock, StepClock
from fuhe.simulator.emit import emit_fleet
from fuhe.simulator.light import LightWorld, check_region
from fuhe.simulator.light_fleet import LightFleet
from fuhe.simulator.load import day_start

NOW = day_start(20_300) + (10 * 3600 + 400) * US
PEER = edition("2013")
YESTERDAY = date(2025, 7, 30)
TRIP: dict[str, object] = {"alarm_delay_min": 0, "limit_half_hours": 0}


def world(**changes: Any) -> LightWorld:
    return LightWorld(StepClock(NOW), past_days=3, **changes)


def ask(light: LightWorld, a2: int, afn: int, *units: Unit, state: int = 0, **changes: Any) -> Message:
    """The answer of terminal `a2`, from its bytes."""
    frame = build(request(Address("3301", a2, msa=4), afn, units, light.edition, seq=3, **changes), light.edition)
    got, tag, asked = light.asked(frame)
    assert got == afn
    assembler, whole = Assembler(), []
    for wire in light.data(frame, a2, state, afn, tag, asked):
        (answer,), skipped = cut(wire)
        assert not skipped and answer.address == frame.address and answer.length <= light.buffer
        message = assembler.feed(parse(answer, light.edition))
        whole += [message] if message is not None else []
    assert len(whole) == 1
    return whole[0]


@pytest.mark.parametrize("edition_name", ["2005", "2009", "2013"])
def test_live_and_past_values_are_those_of_the_variant(edition_name: str) -> None:
    light = world(points=3, edition=edition_name)
    live = ask(light, 77, 0x0C, Unit(2, 25, {}), Unit(2, 129, {}), Unit(0, 2, {}), Unit(9, 25, {}))
    assert [(u.pn, u.fn) for u in live.units] == [(2, 25), (2, 129), (0, 2)] and live.seq == 3
    meter = light.meter(77, 2)
    assert float(live.units[0].data["P"]) == pytest.approx(meter.value("active_power_total", NOW), abs=1e-4)  # type: ignore[index,arg-type]
    start = datetime(2025, 7, 30, 0, 15)  # noqa: DTZ001
    curve = ask(light, 77, 0x0D, Unit(2, 92, {"td_c": start, "density": 1, "n": 96})).units[0].data
    labels = day_start(20_299) + np.arange(1, 97) * 900 * US
    assert curve is not None
    found = [float(p) for p in curve["points"]]  # type: ignore[attr-defined]
    assert found == pytest.approx(list(meter.series("current_a", labels)), abs=6e-4)
    frozen = ask(light, 77, 0x0D, Unit(2, 161, {"td_d": YESTERDAY})).units[0].data
    assert frozen is not None
    total = float(frozen["values"][0])  # type: ignore[index]
    assert total == pytest.approx(meter.value("forward_active_total", day_start(20_300)), abs=0.01)


def test_many_points_answer_in_many_frames_and_the_tag_comes_back() -> None:
    light = world(points=40, buffer=512)
    start = datetime(2025, 7, 30, 0, 15)  # noqa: DTZ001
    tag = Tp(9, 31, 10, 6, 40, 5)
    answer = ask(light, 5, 0x0D, Unit(ALL_POINTS, 81, {"td_c": start, "density": 1, "n": 96}), tp=tag)
    assert [u.pn for u in answer.units] == list(range(1, 41)) and answer.tp == tag
    again = ask(light, 5, 0x0D, Unit(ALL_POINTS, 81, {"td_c": start, "density": 1, "n": 96}))
    assert [u.data for u in again.units] == [u.data for u in answer.units]
    denied = ask(light, 5, 0x0D, Unit(41, 81, {"td_c": start, "density": 1, "n": 96}))
    assert denied.confirmed is False and ask(light, 5, 0x0C, Unit(1, 167, {})).confirmed is False


def test_rounds_change_the_live_power_and_the_state_but_no_register() -> None:
    light = world(points=2)
    frame = build(request(Address("3301", 8), 0x05, [Unit(1, 1, TRIP), Unit(2, 1, TRIP)], PEER), PEER)
    asked = light.asked(frame)[2]
    state = light.commanded(0, asked)
    assert state == 3
    before, after = (ask(light, 8, 0x0C, Unit(1, 25, {}), Unit(1, 129, {}), state=s) for s in (0, state))
    powers = [float(m.units[0].data["P"]) for m in (before, after)]  # type: ignore[index,arg-type]
    assert powers[1] < 0.8 * powers[0]
    assert before.units[1].data == after.units[1].data
    assert ask(light, 8, 0x0C, Unit(2, 25, {}), state=3).units == ask(light, 8, 0x0C, Unit(2, 25, {})).units
    groups = [float(ask(light, 8, 0x0C, Unit(1, 17, {}), state=s).units[0].data["power"]) for s in (0, 3)]  # type: ignore[index,arg-type]
    assert groups[1] < groups[0]
    six = ask(light, 8, 0x0C, Unit(0, 6, {}), Unit(0, 5, {}), state=2).units
    assert six[0].data is not None and six[0].data["remote_rounds"] == [2]
    assert six[1].data is not None and six[1].data["protected"] == 0

    def command(state: int, *units: Unit) -> int | None:
        sent = build(request(Address("3301", 8), 0x05, units, PEER), PEER)
        return light.commanded(state, light.asked(sent)[2])

    assert command(3, Unit(1, 2, {})) == 2
    guarded = command(3, Unit(0, 25, {"half_hours": 0}))
    assert guarded == 0x80 and command(guarded, Unit(1, 1, TRIP)) is None
    assert command(guarded, Unit(0, 33, {})) == 0
    assert command(0, Unit(5, 1, TRIP)) is None and command(0) is None


def test_a_light_terminal_keeps_its_parameters_and_answers_every_function() -> None:
    light = world(points=2)

    def more(a2: int, afn: int, *units: Unit) -> Message:
        frame = build(request(Address("3301", a2), afn, units, PEER), PEER)
        got, tag, asked = light.asked(frame)
        (wire,) = light.more(frame, 0, got, tag, asked)
        (answer,), _ = cut(wire)
        return parse(answer, PEER)

    ratios = more(8, 0x0A, Unit(2, 25, {})).units[0].data
    assert ratios is not None and ratios["ct_ratio"] == light.meter(8, 2).ct_ratio
    base = datetime(2001, 1, 1, 0, 5)  # noqa: DTZ001
    task = {"unit": "hour", "period": 1, "base_time": base, "ratio": 1, "n": 1, "ids": [{"pn": [1, 2], "fn": [25]}]}
    assert more(8, 0x04, Unit(1, 43, {"slide_min": 15}), Unit(3, 65, task)).confirmed
    assert more(8, 0x04, Unit(1, 43, {"slide_min": 90})).confirmed is False
    assert more(8, 0x0A, Unit(1, 43, {})).units[0].data == {"slide_min": 15}
    assert more(9, 0x0A, Unit(1, 43, {})).confirmed is False  # its own, not the neighbour's
    reported = more(8, 0x0B, Unit(3, 1, {}))
    assert reported.afn == 0x0C and [(u.pn, u.fn) for u in reported.units] == [(1, 25), (2, 25)]
    assert more(8, 0x0B, Unit(4, 1, {})).confirmed is False
    about = more(8, 0x09, Unit(0, 1, {}), Unit(0, 2, {}), Unit(0, 5, {}), Unit(0, 8, {})).units
    assert [u.fn for u in about] == [1, 2, 5, 8] and about[0].data is not None and about[1].data is not None
    assert about[0].data["device_id"] == "00000008" and about[1].data["switch_outputs"] == 2
    assert about[2].data is not None and about[2].data["fn"] == [1, 2, 25, 26, 27, 28, 29, 31, 33, 34, 35, 36, 37, 38]
    assert len(str((more(8, 0x06, Unit(0, 3, {"raw_hex": ""})).units[0].data or {})["raw_hex"])) == 32
    assert more(8, 0x08, Unit(0, 1, {})).confirmed
    assert more(8, 0x0E, Unit(0, 1, {"pm": 0, "pn": 9})).confirmed is False
    assert more(8, 0x01, Unit(0, 3, {})).confirmed and more(8, 0x0A, Unit(1, 43, {})).confirmed is False


def test_addresses_go_on_past_a_region() -> None:
    light = world()
    assert light.address(65_534) == Address("3301", 65_534) and light.address(65_535) == Address("3302", 1)


@pytest.mark.parametrize("region", ["33X1", "333333", "12", "", "\u0663\u0663\u0660\u0661"])
def test_a_region_that_is_not_four_digits_is_refused(region: str) -> None:
    with pytest.raises(UsageError, match="four decimal digits"):
        check_region(region, 1)


def test_more_terminals_than_addresses_are_refused() -> None:
    check_region("9999", 65_534)
    with pytest.raises(UsageError, match="9999"):
        check_region("9999", 65_535)


@pytest.mark.parametrize("udp", [False, True])
async def test_a_fleet_logs_in_beats_and_obeys(front: Any, udp: bool) -> None:
    count = 200
    async with front(udp) as (master, port):
        light = LightWorld(ScaledClock(), past_days=1, points=2)
        fleet = LightFleet(light, count, "127.0.0.1", port, udp=udp, login_rate=0, heartbeat_s=0.5)
        stop = asyncio.Event()
        running = asyncio.create_task(fleet.run(stop))
        try:
            await master.until(lambda f: len(f.peers) == count)
            await master.until(lambda f: sum(m.units[0].fn == 3 for m in f.heard) >= count)
            for a2 in (1, 100, count):
                live = await master.ask(a2, 0x0C, Unit(1, 25, {}), Unit(2, 25, {}))
                assert [u.pn for u in live.units] == [1, 2]
            assert (await master.ask(7, 0x05, Unit(1, 1, TRIP))).confirmed
            state = await master.ask(7, 0x0C, Unit(0, 6, {}))
            assert state.units[0].data["remote_rounds"] == [1]
            assert (await master.ask(8, 0x0E, Unit(0, 1, {"pm": 0, "pn": 9}))).confirmed is False
        finally:
            stop.set()
            await running
        told = fleet.summary()
        assert told["logged_in"] == count
        assert (told["trips"], told["rounds_open"]) == (1, 1) and told["login_s"] is not None
        assert told["requests"] == {"05": 1, "0C": 4, "0E": 1}
        assert int(str(told["heartbeats"])) >= count


async def test_a_login_that_is_not_answered_is_repeated_and_a_lost_connection_counted(front: Any) -> None:
    async with front() as (master, port):
        fleet = LightFleet(LightWorld(ScaledClock(), past_days=1), 3, "127.0.0.1", port, login_rate=0)
        stop = asyncio.Event()
        running = asyncio.create_task(fleet.run(stop))
        await master.until(lambda f: len(f.peers) == 3)
        for terminal in fleet.terminals[:2]:
            assert terminal.transport is not None
            terminal.transport.abort()
        await master.until(lambda f: f.closed == 2)
        stop.set()
        await running
        assert fleet.figures.closed == 2 and fleet.summary()["connections_lost"] == 2


def test_what_a_master_needs_is_written(tmp_path: Path) -> None:
    light = world(points=2)
    fleet = LightFleet(light, 5, "127.0.0.1", 9701)
    emit_fleet(fleet, "qgdw1376-2013", tmp_path)
    rows = list(csv.DictReader((tmp_path / "devices.csv").read_text().splitlines()))
    assert len(rows) == 10 and rows[3]["address"] == "3301-2" and rows[3]["pn"] == "2"
    assert float(rows[3]["ct_ratio"]) == light.meter(2, 2).ct_ratio
    assert rows[0]["options"] == f"simulated=1;since={YESTERDAY - timedelta(days=2)}"


def test_too_many_connections_are_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="--udp"):
        LightFleet(world(), 10_000_000, "127.0.0.1", 1)


async def test_the_verb_runs_a_fleet_until_it_is_interrupted(front: Any) -> None:
    async with front() as (master, port):
        run = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "fuhe"), "sim", "fleet", "--terminals", "20", "--connect",
            f"127.0.0.1:{port}", "--login-rate", "0", "--heartbeat", "0", "--json", stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"FUHE_LANG": "en"},
        )  # fmt: skip
        await master.until(lambda f: len(f.peers) == 20)
        answer = await master.ask(20, 0x0C, Unit(0, 2, {}))
        assert answer.afn == 0x0C
        run.send_signal(signal.SIGINT)
        out, _ = await run.communicate()
        told = json.loads(out)
        assert run.returncode == 0 and told["terminals"] == 20 and told["requests"] == {"0C": 1}
