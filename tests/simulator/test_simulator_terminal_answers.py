"""The terminal answers a master: every AFN, partial and long answers, silence, repeats, passwords, all editions."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from fuhe.model.times import US
from fuhe.protocols.dlt645.requests import read
from fuhe.protocols.qgdw1376.auth import Cleartext, HmacTest
from fuhe.protocols.qgdw1376.dadt import ALL_POINTS
from fuhe.protocols.qgdw1376.frame import Address, Frame
from fuhe.protocols.qgdw1376.layout import Group
from fuhe.protocols.qgdw1376.message import Tp
from fuhe.protocols.qgdw1376.table import table
from fuhe.protocols.qgdw1376.units import Unit
from fuhe.simulator.faults import Fault
from fuhe.simulator.terminal.commands import ACTIONS
from fuhe.simulator.terminal.device import Options
from fuhe.simulator.terminal.parameters import LISTS

TODAY = date(2025, 7, 31)
READING = {
    "port": 2, "control_word": 0, "time": "00:00", "interval_min": 15, "broadcast_clock": "00 23:30", "m": 0,
    "windows": [],
}  # fmt: skip


def at(*parts: int) -> datetime:
    """A reading of the terminal's clock."""
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001


def asked(names: set[str], day: date = TODAY - timedelta(days=1)) -> dict[str, Any]:
    """A sensible time scale for a class-2 (or hour) request."""
    if "td_c" in names:
        return {"td_c": datetime.combine(day, datetime.min.time()), "density": 1, "n": 96}
    if "td_h" in names:
        return {"td_h": 9, "density": 1}
    return {"td_d": day} if "td_d" in names else {"td_m": "2025-06"} if "td_m" in names else {}


@pytest.mark.parametrize("edition", ["2005", "2009", "2013"])
@pytest.mark.parametrize("afn", [0x0C, 0x0D])
def test_every_class_of_the_table_is_answered_or_denied_never_broken(make_master: Any, afn: int, edition: str) -> None:
    every_day = {**READING, "days": list(range(1, 32))}
    master = make_master(edition=edition, p33={"n": 1, "ports": [every_day]})
    served: Counter[bool] = Counter()
    for row in table().rows:
        if afn not in row.afn or edition not in row.editions:
            continue
        names = {getattr(n, "name", "") for v in row.request.variants for n in v.nodes}
        pn = {"0": 0, "M": 1, "G": 1, "D": 1}[row.pn[0]]
        answer = master.ask(afn, Unit(pn, row.fn, asked(names)))
        served[answer.afn == afn] += 1
        if answer.afn != afn:
            assert answer.confirmed is False and answer.function == 9
    assert served[True] > 60 if afn == 0x0C else served[True] > 90
    assert served[False] < 40


def test_live_values_are_those_of_the_meter(make_master: Any) -> None:
    master = make_master()
    found = master.data(0x0C, 1, 25)
    meter = master.bench.terminal.meters[1]
    for key, name, places in (
        ("P", "active_power_total", 4), ("Qa", "reactive_power_a", 4), ("Ub", "voltage_b", 1), ("Ic", "current_c", 3),
        ("S", "apparent_power_total", 4),
    ):  # fmt: skip
        assert float(found[key]) == pytest.approx(meter.value(name, master.bench.now), abs=0.6 * 10**-places)
    assert found["PF"] == Decimal(str(round(meter.site.shape.pf * 100, 1)))
    assert found["read_time"] == at(2025, 7, 31, 12, 0)
    registers = master.data(0x0C, 1, 129)
    assert registers["tariffs"] == 4
    assert float(registers["values"][0]) == pytest.approx(
        meter.value("forward_active_total", master.bench.now), abs=0.01
    )
    assert sum(map(float, registers["values"][1:])) == pytest.approx(float(registers["values"][0]), abs=0.05)
    assert master.data(0x0C, 0, 2)["clock"] == at(2025, 7, 31, 12, 0)
    total = master.data(0x0C, 1, 17)["power"]
    assert float(total) == pytest.approx(master.bench.site_power(), rel=0.005)


def test_a_past_day_is_the_truth(make_master: Any) -> None:
    master = make_master()
    meter, clock = master.bench.terminal.meters[1], master.bench.terminal.parts.clock
    start = at(2025, 7, 29, 0, 15)
    found = master.data(0x0D, 1, 81, {"td_c": start, "density": 1, "n": 96})
    labels = [clock.true_us(start + timedelta(minutes=15 * i)) or 0 for i in range(96)]
    truth = meter.series("active_power_total", np.array(labels))
    assert [float(p) for p in found["points"]] == pytest.approx(list(truth), abs=0.00006)
    energies = master.data(0x0D, 1, 97, {"td_c": start, "density": 1, "n": 96})["points"]
    ends = meter.series("forward_active_total", np.array([labels[0] - 900 * US, *labels]))
    assert [float(e) for e in energies] == pytest.approx(list(np.diff(ends)), abs=0.00006)
    frozen = master.data(0x0D, 1, 161, {"td_d": date(2025, 7, 29)})
    end = clock.true_us(at(2025, 7, 30)) or 0
    assert float(frozen["values"][0]) == pytest.approx(meter.value("forward_active_total", end), abs=0.01)
    statistics = master.data(0x0D, 1, 25, {"td_d": date(2025, 7, 29)})
    assert float(statistics["max_power"]) >= max(truth) - 1e-3
    voltages = master.data(0x0D, 1, 27, {"td_d": date(2025, 7, 29)})
    assert voltages["qualified_a"] == 1_440 and voltages["over_a"] == 0
    assert float(voltages["qualified_rate_a"]) == 100


def test_what_is_not_there_is_left_out_and_nothing_left_is_a_denial(make_master: Any) -> None:
    master = make_master()
    answer = master.ask(0x0C, Unit(1, 25, {}), Unit(7, 25, {}), Unit(1, 73, {}), Unit(2, 25, {}))
    assert [(u.pn, u.fn) for u in answer.units] == [(1, 25), (2, 25)]
    everybody = master.ask(0x0C, Unit(ALL_POINTS, 129, {}))
    assert [u.pn for u in everybody.units] == [1, 2]
    for unit in (Unit(7, 25, {}), Unit(0, 25, {}), Unit(1, 167, {}), Unit(1, 240, {})):
        denied = master.ask(0x0C, unit)
        assert denied.confirmed is False and denied.function == 9
    assert master.done(0x0D, Unit(1, 161, {"td_d": TODAY})) is False  # the day is not over
    assert master.done(0x0D, Unit(1, 161, {"td_d": date(2024, 1, 1)})) is False
    assert master.done(0x0D, Unit(1, 81, {"td_c": at(2025, 8, 1), "density": 1, "n": 4})) is False
    short = master.data(0x0D, 1, 81, {"td_c": at(2025, 7, 31, 11, 0), "density": 1, "n": 20})
    assert short["n"] == 5 and None not in short["points"]


def test_a_meter_that_is_silent_gives_fill_not_zeros(make_master: Any) -> None:
    gone = Fault(kind="silent", target=("meter-1",), start_s=-3_600, end_s=3_600)
    master = make_master(gone)
    found = master.data(0x0C, 1, 25)
    assert found["P"] is None and found["Ua"] is None and found["read_time"] is not None
    points = master.data(0x0D, 1, 81, {"td_c": at(2025, 7, 31, 10, 0), "density": 1, "n": 9})["points"]
    assert [p is None for p in points] == [False] * 4 + [True] * 5
    assert master.data(0x0C, 1, 17)["power"] is None


@pytest.mark.parametrize("buffer", [120, 255, 1_024])
def test_long_answers_go_out_in_frames_of_the_buffer(make_master: Any, buffer: int) -> None:
    master = make_master(options=Options(buffer=buffer))
    units = [Unit(pn, fn, asked({"td_c"})) for pn in (1, 2) for fn in (81, 89, 101)]
    parts = master.send(master.frame(0x0D, *units))
    assert len(parts) > 1 and [p.fir for p in parts] == [True] + [False] * (len(parts) - 1)
    assert [p.fin for p in parts] == [False] * (len(parts) - 1) + [True]
    found: dict[tuple[int, int], list[Any]] = {}
    for part in parts:
        for unit in part.units:
            assert unit.data is not None
            found.setdefault((unit.pn, unit.fn), []).extend(unit.data["points"])
    assert {k: len(v) for k, v in found.items()} == {(u.pn, u.fn): 96 for u in units}
    assert found[1, 81] == master.ask(0x0D, units[0]).units[0].data["points"] or buffer < 400


def test_parameters_are_set_as_a_whole_read_back_and_recorded(make_master: Any) -> None:
    master = make_master()
    good = Unit(0, 17, {"limit_kw": Decimal(300)})
    assert master.done(0x04, good, Unit(1, 43, {"slide_min": 15}))
    assert master.data(0x0A, 0, 17) == {"limit_kw": Decimal(300)}
    assert master.data(0x0A, 1, 43) == {"slide_min": 15}
    assert not master.done(0x04, Unit(0, 17, {"limit_kw": Decimal(5)}), Unit(1, 43, {"slide_min": 90}))
    assert master.data(0x0A, 0, 17) == {"limit_kw": Decimal(300)}  # nothing of it
    assert not master.done(0x04, Unit(9, 45, {"rounds": [1]}))  # there is no ninth group
    event = master.bench.events(3)[0]
    assert event["msa"] == 5 and event["ids"] == [{"pn": [0], "fn": [17]}, {"pn": [1], "fn": [43]}]
    answer = master.data(0x0E, 0, 1, {"pm": 0, "pn": 255})
    assert [e["erc"] for e in answer["events"]] == [3] and answer["events"][0]["ids"][0]["fn"] == [17]
    devices = master.data(0x0A, 0, 10, {"n": 1, "device_no": [2]})["devices"]
    assert [d["address"] for d in devices] == ["000000000002"]
    assert master.done(0x0A, Unit(0, 10, {"n": 1, "device_no": [9]})) is False
    assert 17 in master.data(0x0C, 0, 3)["set"]


def test_a_terminal_that_confirms_item_by_item_does_what_it_can(make_master: Any) -> None:
    master = make_master(options=Options(confirm="items"))
    units = Unit(0, 17, {"limit_kw": Decimal(300)}), Unit(1, 43, {"slide_min": 90}), Unit(1, 45, {"rounds": [1]})
    answer = master.ask(0x04, *units)
    assert (answer.units[0].fn, answer.confirmed) == (3, False) and answer.units[0].data["afn"] == "04"
    assert [r["err"] for r in answer.units[0].data["results"]] == [0, 1, 0]
    assert master.data(0x0A, 0, 17) == {"limit_kw": Decimal(300)} and master.done(0x0A, Unit(1, 43, {})) is False
    assert master.data(0x0A, 1, 45) == {"rounds": [1]}
    assert master.done(0x04, units[0], units[2]) and master.done(0x04, units[1]) is False  # F1 and F2 as ever
    trip: dict[str, object] = {"alarm_delay_min": 0, "limit_half_hours": 0}
    answer = master.ask(0x05, Unit(8, 1, trip), Unit(2, 1, trip))
    assert [r["err"] for r in answer.units[0].data["results"]] == [1, 0] and master.bench.open_rounds() == [2]


def test_a_command_without_data_and_password_is_denied(make_master: Any) -> None:
    master = make_master()
    for user in ("0565", "056501010100", "0465", "0165"):
        frame = Frame(0x4A, master.address, bytes.fromhex(user))
        outcome = master.station.application.answer(frame, master.bench.now)
        (message,) = outcome.messages
        assert (message.confirmed, message.function, message.seq) == (False, 9, 5)
    assert master.station.application.answer(Frame(0x4A, master.address, b"\x05"), master.bench.now) is None
    assert master.bench.open_rounds() == []


def test_control_over_the_wire_and_its_state(make_master: Any) -> None:
    master = make_master()
    setting = [
        Unit(1, 41, {"schemes": [1], "limits": [{"periods": [1], "limits_kw": [Decimal(100)]}]}),
        Unit(0, 18, {"half_hours": [1] * 48}), Unit(1, 45, {"rounds": [1, 2]}), Unit(1, 49, {"alarm_min": 2}),
        Unit(1, 43, {"slide_min": 1}),
    ]  # fmt: skip
    assert master.done(0x04, *setting)
    assert master.done(
        0x05, Unit(1, 9, {"periods": [1], "scheme": 0}), Unit(3, 1, {"alarm_delay_min": 0, "limit_half_hours": 0})
    )
    master.bench.step(61)
    settings, state = master.data(0x0C, 0, 5), master.data(0x0C, 0, 6)
    assert settings["groups"] == [1, 2] and settings["settings"][0]["period"] == 1
    assert settings["settings"][0]["periods"] == [1] and settings["settings"][0]["power_rounds"] == [1, 2]
    assert state["remote_rounds"] == [3] and state["states"][0]["period_alarm"] == 1
    assert state["states"][0]["limit"] == Decimal(100)
    master.bench.step(400)
    assert master.data(0x0C, 0, 6)["states"][0]["power_rounds"] == [1, 2]
    assert master.data(0x0C, 0, 9)["state"] == []
    events = master.data(0x0E, 0, 1, {"pm": 0, "pn": 200})
    assert {5, 6} <= {e["erc"] for e in events["events"]}
    assert master.done(0x05, Unit(0, 25, {"half_hours": 0}))
    assert master.data(0x0C, 0, 5)["protected"] == 1 and master.data(0x0C, 0, 6)["remote_rounds"] == []
    assert master.done(0x05, Unit(1, 1, {"alarm_delay_min": 0, "limit_half_hours": 0})) is False
    assert master.done(0x05, Unit(0, 33, {}))
    assert master.done(0x05, Unit(8, 1, {"alarm_delay_min": 0, "limit_half_hours": 0})) is False
    assert master.done(0x05, Unit(4, 15, {})) is False  # no such group


def test_events_call_the_master_until_they_are_read(make_master: Any) -> None:
    master = make_master()
    assert not master.ask(0x0C, Unit(0, 2, {})).acd
    assert master.done(0x05, Unit(1, 1, {"alarm_delay_min": 0, "limit_half_hours": 0}))
    called = master.ask(0x0C, Unit(0, 2, {}))
    assert called.acd and called.ec == (1, 0) and called.control == 0xA8  # ERC4: the contact moved
    assert master.data(0x0C, 0, 7) == {"ec1": 1, "ec2": 0}
    read_back = master.data(0x0E, 0, 1, {"pm": 0, "pn": 1})
    assert (read_back["pm"], read_back["pn"], len(read_back["events"])) == (0, 1, 1)
    assert not master.ask(0x0C, Unit(0, 2, {})).acd
    assert master.done(0x0E, Unit(0, 1, {"pm": 1, "pn": 1})) is False
    by_code = master.data(0x0E, 0, 3, {"erc": 4, "n": 0})
    assert by_code["n"] == 1
    assert master.done(0x05, Unit(0, 57, {"n": 1, "erc": [4]}))
    assert master.done(0x0E, Unit(0, 3, {"erc": 4, "n": 0})) is False


def test_the_clock_is_set_and_labels_follow_it(make_master: Any) -> None:
    master = make_master(Fault(kind="clock_offset", target=("terminal",), value=-1_800, start_s=0))
    master.bench.step(1)
    assert master.data(0x0C, 0, 2)["clock"] == at(2025, 7, 31, 11, 30, 1)
    assert master.done(0x05, Unit(0, 31, {"clock": at(2025, 7, 31, 12, 0, 5)}))
    assert master.data(0x0C, 0, 2)["clock"] == at(2025, 7, 31, 12, 0, 5)
    assert [e["before"] for e in master.bench.events(41)] == [at(2025, 7, 31, 11, 30, 1)]
    points = master.data(0x0D, 1, 81, {"td_c": at(2025, 7, 31, 11, 30), "density": 1, "n": 3})["points"]
    assert [p is None for p in points] == [False, False, True]  # 12:00 never was


def test_group_frames_are_obeyed_in_silence_and_ignored_after_removal(make_master: Any) -> None:
    master = make_master()
    everybody = Address("3301", 0xFFFF, group=True, msa=5)
    trip = Unit(1, 1, {"alarm_delay_min": 0, "limit_half_hours": 0})
    assert master.send(master.frame(0x05, trip, address=Address("3302", 0xFFFF, group=True))) == []
    assert master.bench.open_rounds() == []
    assert master.send(master.frame(0x05, trip, address=everybody)) == []
    assert master.bench.open_rounds() == [1]
    master.done(0x04, Unit(0, 6, {"addresses": [77, 0, 0, 0, 0, 0, 0, 0]}))
    assert master.send(master.frame(0x05, Unit(1, 2, {}), address=Address("3301", 78, group=True))) == []
    assert master.bench.terminal.control.remote.outputs == {1}
    master.send(master.frame(0x05, Unit(1, 2, {}), address=Address("3301", 77, group=True)))
    assert master.bench.terminal.control.remote.outputs == frozenset()
    assert master.done(0x05, Unit(0, 28, {}))
    master.send(master.frame(0x05, trip, address=everybody))
    assert master.bench.terminal.control.remote.outputs == frozenset()
    clock = at(2025, 7, 31, 12, 30)
    master.send(master.frame(0x05, Unit(0, 31, {"clock": clock}), address=everybody))
    assert master.bench.local() == clock
    assert master.send(master.frame(0x0C, Unit(0, 2, {}), address=Address("3301", 1002))) == []


def test_a_repeat_with_the_same_fcb_is_answered_without_acting_again(make_master: Any) -> None:
    master = make_master()
    trip = Unit(1, 1, {"alarm_delay_min": 0, "limit_half_hours": 1})
    first = master.frame(0x05, trip, fcv=True, fcb=True)
    answer = master.send(first)
    assert answer[0].confirmed
    master.bench.step(1_000)
    assert master.send(first) == answer
    master.bench.step(900)
    assert master.bench.terminal.control.remote.outputs == frozenset()  # the limit time was not begun anew
    again = master.frame(0x05, trip, fcv=True, fcb=False)
    assert master.send(again)[0].confirmed and master.bench.terminal.control.remote.outputs == {1}


def test_old_time_tags_are_passed_over_in_silence(make_master: Any) -> None:
    master = make_master()
    ask = Unit(0, 2, {})
    now = master.bench.local()
    fresh = Tp.at(7, now - timedelta(minutes=4), 5)
    answer = master.ask(0x0C, ask, tp=fresh)
    assert answer.tp == fresh
    assert master.send(master.frame(0x0C, ask, tp=Tp.at(7, now - timedelta(minutes=5), 5))) == []
    assert master.send(master.frame(0x0C, ask, tp=Tp.at(7, now - timedelta(days=3), 5))) == []
    assert master.send(master.frame(0x0C, ask, tp=Tp(7, None, None, 1, 1, 5))) == []
    assert master.ask(0x0C, ask, tp=Tp.at(7, now - timedelta(days=3), 0)).tp is not None  # 0 = age is not checked
    future = master.ask(0x0C, ask, tp=Tp.at(7, now + timedelta(minutes=9), 5))
    assert future.afn == 0x0C


@pytest.mark.parametrize("scheme", ["clear", "hmac"])
def test_a_wrong_password_is_denied_and_recorded(make_master: Any, scheme: str) -> None:
    auth = Cleartext(b"1234567890abcdef") if scheme == "clear" else HmacTest(b"secret")
    master = make_master(auth=auth)
    trip = Unit(1, 1, {"alarm_delay_min": 0, "limit_half_hours": 0})
    assert master.done(0x05, trip, pw=bytes(16)) is False
    assert master.bench.open_rounds() == []
    event = master.bench.events(20)[0]
    assert event["pw_hex"] == "0" * 32 and event["msa"] == 5
    tag = Tp.at(9, master.bench.local(), 5)
    assert master.done(0x05, trip, tp=tag)
    assert master.done(0x05, Unit(1, 2, {}), tp=tag) is False  # that time tag is used up
    assert master.done(0x05, Unit(1, 2, {}), tp=msgspec.structs.replace(tag, pfc=10))
    assert master.data(0x0C, 0, 2)  # reads carry no password
    assert master.data(0x0E, 0, 1, {"pm": 0, "pn": 99})["events"][0]["erc"] == 20


def test_a_stranger_keeps_no_automatic_protection_away(make_master: Any) -> None:
    master = make_master(auth=HmacTest(b"secret"), p58={"hours": 1})
    for _ in range(13):
        master.done(0x05, Unit(0, 34, {}), pw=bytes(16))
        master.bench.step(300)
    assert master.bench.terminal.control.automatic
    assert master.done(0x05, Unit(0, 34, {})) and not master.bench.terminal.control.protected


def test_editions_speak_their_own_frames(make_master: Any) -> None:
    for edition, protocol_id, pw in (("2005", 1, 2), ("2009", 2, 16), ("2013", 2, 16)):
        master = make_master(edition=edition, auth=Cleartext(bytes(range(1, pw + 1))))
        frame = master.frame(0x05, Unit(0, 25, {"half_hours": 1}))
        assert frame.protocol_id == protocol_id and frame.user.endswith(bytes(range(1, pw + 1)))
        assert master.send(frame)[0].confirmed and master.send(frame)[0].protocol_id == protocol_id
        masks = master.data(0x0A, 0, 8 if edition == "2005" else 9)
        assert 1 in masks["record"]
    old = make_master(edition="2005")
    assert old.data(0x0C, 0, 1)["vendor"] == "SIMU"
    assert make_master(edition="2013").data(0x0C, 1, 177)["tariffs"] == 4
    assert make_master(edition="2009").done(0x0C, Unit(1, 177, {})) is False


def test_configuration_says_what_there_is(make_master: Any) -> None:
    master = make_master()
    assert master.data(0x09, 0, 1)["protocol_version"] == "13"
    assert master.data(0x09, 0, 2)["switch_outputs"] == 3
    assert set(master.data(0x09, 0, 5)["fn"]) == set(ACTIONS)
    live = master.data(0x09, 0, 6)["classes"][0]["fn"]
    assert {2, 5, 6, 25, 129} <= set(live) and 167 not in live
    for fn in live:
        row = next(r for r in table().rows if 0x0C in r.afn and r.fn == fn and "2013" in r.editions)
        names = {getattr(n, "name", "") for v in row.request.variants for n in v.nodes}
        pn = 0 if row.pn == "0" else 1
        if fn not in (23,):  # nothing was bought
            assert master.ask(0x0C, Unit(pn, fn, asked(names))).afn == 0x0C, fn
    assert {1, 5, 20} <= set(master.data(0x09, 0, 8)["erc"])
    assert master.data(0x09, 0, 4)["n"] >= 9 and master.data(0x09, 0, 3)["groups"] == 8
    assert len(master.data(0x09, 0, 7)["classes"][0]["fn"]) > 90


def test_a_meter_is_reached_through_the_terminal(make_master: Any) -> None:
    master = make_master()
    inner = read("2", "00010000").encode(4)
    asking = {
        "port": 2, "baud": 2400, "stop_bits": 1, "parity_enable": 1, "odd": 0, "data_bits": 8,
        "packet_timeout": {"unit": "s", "value": 5}, "byte_timeout_10ms": 10, "len": len(inner),
        "raw_hex": inner.hex().upper(),
    }  # fmt: skip
    answer = master.data(0x10, 0, 1, asking)
    assert answer["dlt645"]["address"] == "000000000002" and answer["dlt645"]["control"] == "91"
    replies = master.session.receive(master.frame(0x10, Unit(0, 1, asking)).encode(), master.bench.now)
    assert 0.1 < replies[0].delay_s < 1
    nobody = asking | {"raw_hex": read("99", "00010000").encode().hex(), "len": 16}
    assert master.done(0x10, Unit(0, 1, nobody)) is False
    assert master.done(0x10, Unit(0, 1, asking | {"port": 9})) is False
    direct = {"port": 2, "levels": 0, "address": "000000000001", "id_type": 2, "id_hex": "00000100"}
    found = master.data(0x10, 0, 9, direct)
    assert found["result"] == 5 and found["data_hex"].startswith("00000100")
    trip = master.data(0x10, 0, 9, direct | {"address": "000000000077"})
    assert trip["result"] == 1


def test_resets_confirm_first_and_do_what_they_say(make_master: Any) -> None:
    master = make_master()
    master.done(
        0x04, Unit(0, 17, {"limit_kw": Decimal(300)}), Unit(0, 1, master.data(0x0A, 0, 1) | {"heartbeat_min": 3})
    )
    assert master.done(0x01, Unit(0, 2, {}))
    assert master.data(0x0A, 0, 17)["limit_kw"] == 300 and [e["erc"] for e in master.bench.events(1)] == [1]
    assert master.done(0x0D, Unit(1, 161, {"td_d": TODAY - timedelta(days=1)})) is False  # the memory is empty
    assert master.done(0x01, Unit(0, 4, {}))
    assert master.done(0x0A, Unit(0, 17, {})) is False and master.data(0x0A, 0, 1)["heartbeat_min"] == 3
    assert master.done(0x01, Unit(0, 3, {}))
    assert master.data(0x0A, 0, 1)["heartbeat_min"] == 15
    assert master.done(0x01, Unit(0, 1, {})) and master.bench.terminal.restarts == 1
    assert master.done(0x01, Unit(0, 9, {})) is False


def test_opaque_functions(make_master: Any) -> None:
    master = make_master()
    assert len(master.ask(0x06, Unit(0, 3, {"raw_hex": ""})).units[0].data["raw_hex"]) == 32
    segment = {
        "file_id": 1, "attribute": 0, "command": 0, "segments": 3, "segment": 2, "length": 2, "data_hex": "AABB",
    }  # fmt: skip
    assert master.ask(0x0F, Unit(0, 1, segment)).units[0].data == {"segment": 2}
    for afn in (0x07, 0x11, 0xF1):
        assert master.done(afn, Unit(0, 1, {})) is False
    assert master.done(0x08, Unit(0, 1, {}))


@pytest.mark.parametrize(
    ("kind", "confirmed", "opened"),
    [("refuse", False, []), ("ignored", True, []), ("broken_relay", True, []), ("stuck_contact", True, [1])],
)
def test_commands_that_fail_in_every_way(make_master: Any, kind: str, confirmed: bool, opened: list[int]) -> None:
    master = make_master(Fault(kind=kind, target=("terminal",)))
    trip = Unit(1, 1, {"alarm_delay_min": 0, "limit_half_hours": 0})
    assert master.done(0x05, trip) is confirmed
    assert master.bench.open_rounds() == opened
    quiet = make_master(Fault(kind="no_ack", target=("terminal",)))
    assert quiet.send(quiet.frame(0x05, trip)) == [] and quiet.bench.open_rounds() == [1]


def test_faults_of_the_wire_and_the_content(make_master: Any) -> None:
    def session(*faults: Fault) -> Any:
        master = make_master(*faults)
        return master, lambda: master.session.receive(master.frame(0x0C, Unit(1, 25, {})).encode(), master.bench.now)

    _, ask = session(Fault(kind="silent", target=("terminal",), match="0CF25"))
    assert ask() == []
    _, ask = session(Fault(kind="late", target=("terminal",), value=3))
    assert ask()[0].delay_s > 3
    master, _ = session(Fault(kind="wrong_address", target=("terminal",)))
    assert master.ask(0x0C, Unit(1, 25, {})).address.a2 == 1002
    for kind in ("fill_ee", "fill_ff"):
        master, _ = session(Fault(kind=kind, target=("terminal",)))
        assert master.data(0x0C, 1, 25)["P"] is None
        assert master.data(0x0C, 1, 129)["values"] == [None] * 5
    master, _ = session(Fault(kind="refuse_read", target=("terminal",), match="0D"))
    assert master.done(0x0D, Unit(1, 161, {"td_d": TODAY - timedelta(days=1)})) is False and master.data(0x0C, 0, 2)
    _, ask = session(Fault(kind="duplicate", target=("terminal",)))
    wire = ask()[0].data
    assert wire[: len(wire) // 2] == wire[len(wire) // 2 :]
    _, ask = session(Fault(kind="bit_flip", target=("terminal",)), Fault(kind="truncate", target=("terminal",)))
    assert ask()[0].data != session()[1]()[0].data
    _, ask = session(Fault(kind="power_off", target=("terminal",)))
    assert ask() == []


def test_tasks_give_their_data_on_request(make_master: Any) -> None:
    master = make_master()
    base = at(2001, 1, 1, 0, 5)
    task = {"unit": "hour", "period": 1, "base_time": base, "ratio": 1, "n": 1}
    assert master.done(
        0x04, Unit(3, 65, task | {"ids": [{"pn": [1, 2], "fn": [25]}]}),
        Unit(4, 66, task | {"ids": [{"pn": [1], "fn": [81]}]}), Unit(5, 66, task | {"ids": [{"pn": [2], "fn": [161]}]}),
    )  # fmt: skip
    live = master.ask(0x0B, Unit(3, 1, {}))
    assert live.afn == 0x0C and [(u.pn, u.fn) for u in live.units] == [(1, 25), (2, 25)]
    curve = master.ask(0x0B, Unit(4, 2, {"start": at(2025, 7, 31, 9, 0)}))
    assert curve.afn == 0x0D and curve.units[0].data["td_c"] == at(2025, 7, 31, 9, 0)
    assert curve.units[0].data["n"] == 4
    assert master.ask(0x0B, Unit(5, 2, {"start": at(2025, 7, 29)})).units[0].data["td_d"] == date(2025, 7, 29)
    assert master.done(0x0B, Unit(9, 1, {})) is False


def test_list_rules_name_fields_of_the_table() -> None:
    for fn, rule in LISTS.items():
        for row in table().rows:
            if 0x04 in row.afn and row.fn == fn:
                for variant in row.fields.variants:
                    group = next(n for n in variant.nodes if isinstance(n, Group) and n.name == rule.name)
                    names = {getattr(n, "name", "") for n in group.fields}
                    assert rule.key in names, (fn, names)
