"""Conversations with a device written by hand: plans, splits, silence, control, late answers. No socket, no clock."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import date

import numpy as np
import pytest

from fuhe.acquisition.profile import ControlPlan, Profile, ReadPlan, Timing
from fuhe.acquisition.sessions import open_exchange
from fuhe.acquisition.sessions.modbus_plan import MEMORY, Plan
from fuhe.model.control import ActionKind, ControlAction
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.quality import Source
from fuhe.model.quantities import by_name
from fuhe.model.readings import Samples
from fuhe.model.times import day_start_us
from fuhe.model.work import Duty, Exchange, Outcome, Priority, Status, WorkItem
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.modbus.crc import crc16, with_crc
from fuhe.protocols.modbus.maps import load_map
from fuhe.protocols.modbus.words import encode_value

NOW = 1_800_000_000_000_000
COILS = ControlPlan(
    means="modbus-write", writes={"trip": (5, 0, 0xFF00), "direct_close": (5, 0, 0)}, state=(1, 0, 1, 1)
)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    MEMORY.clear()
    yield
    MEMORY.clear()


def profile(name: str = "eastron-sdm630", **more: object) -> Profile:
    return Profile(name="p", title_en="p", title_zh="p", protocol="modbus", map=name, timing=Timing(retries=2), **more)  # type: ignore[arg-type]


def device(framing: str = "tcp", address: str = "1") -> Device:
    return Device(
        id=9, name="d", link="l", profile="p", address=address, points=(Point(id=70, name="x"),),
        options={"framing": framing},
    )  # fmt: skip


def work(duty: Duty = Duty.LIVE, items: tuple[str, ...] = (), action: ControlAction | None = None) -> WorkItem:
    return WorkItem(device=9, duty=duty, priority=Priority.LIVE, expires_s=1e9, items=items, action=action)


def action(kind: ActionKind = ActionKind.TRIP, round: int = 1, until: int = NOW + 10**6) -> ControlAction:
    return ControlAction(id="c1", kind=kind, round=round, valid_until_us=until)


class Meter:
    """Registers by address, refused addresses, coils; answers a frame as a device does. `reads` are what was asked."""

    def __init__(self, words: dict[int, int] | None = None, refused: set[int] | None = None, limit: int = 125) -> None:
        self.words, self.refused, self.limit = words or {}, refused or set(), limit
        self.coils: dict[int, int] = {0: 0}
        self.reads: list[tuple[int, int, int]] = []
        self.ignores_writes = False

    def answer(self, request: bytes, framing: str) -> bytes:
        body = request[6:] if framing == "tcp" else request[:-2]
        assert framing == "tcp" or crc16(request) == 0
        reply = bytes((body[0],)) + self.pdu(body[1:])
        if framing == "rtu":
            return with_crc(reply)
        return request[:2] + struct.pack(">HH", 0, len(reply)) + reply

    def pdu(self, pdu: bytes) -> bytes:
        function, address, count = struct.unpack(">BHH", pdu[:5])
        if function == 5:
            if not self.ignores_writes:
                self.coils[address] = int(count == 0xFF00)
            return pdu
        self.reads.append((function, address, count))
        if function == 1:
            return bytes((1, 1, self.coils[address]))
        if count > self.limit:
            return bytes((function | 0x80, 3))
        if any(a in self.refused for a in range(address, address + count)):
            return bytes((function | 0x80, 2))
        data = b"".join(self.words.get(a, 0).to_bytes(2, "big") for a in range(address, address + count))
        return bytes((function, len(data))) + data

    def put(self, map_name: str, values: dict[str, float], base: int = 0) -> Meter:
        for name, value in values.items():
            r = load_map(map_name).by_name[name]
            raw = encode_value(value, r.type, r.order)
            for i in range(r.count):
                self.words[base + r.address + i] = int.from_bytes(raw[2 * i : 2 * i + 2], "big")
        return self


def talk(exchange: Exchange, meter: Meter, framing: str = "tcp", at: int = NOW) -> Outcome:
    for _ in range(300):
        request = exchange.next_request(at)
        if request is None:
            return exchange.outcome(at)
        reply = meter.answer(request.data, framing)
        assert exchange.receive(reply[:4], at) is False
        assert exchange.receive(reply[4:], at) is True
    raise AssertionError("the exchange does not end")


def values(outcome: Outcome) -> dict[str, float]:
    assert outcome.batch is not None and isinstance(outcome.batch.samples, Samples)
    names = {q.id: n for n, q in by_name().items()}
    s = outcome.batch.samples
    return {names[q]: v for q, v in zip(s.quantity.tolist(), s.value.tolist(), strict=True)}


VALUES = {"voltage_a": 230.5, "current_a": 4.25, "active_power_total": 1500.0, "forward_active_total": 12345.75}


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
def test_live_values_in_the_quantitys_unit(framing: str) -> None:
    meter = Meter().put("eastron-sdm630", VALUES)
    outcome = talk(open_exchange(device(framing), profile(), work(items=tuple(VALUES)), Credentials()), meter, framing)
    assert outcome.status is Status.DONE and not outcome.faults
    assert values(outcome) == {**VALUES, "active_power_total": 1.5}
    assert meter.reads == [(4, 0, 0x4A)]
    assert outcome.batch is not None and outcome.batch.samples is not None
    s = outcome.batch.samples
    assert set(s.time_us) == {NOW} and set(s.point) == {70} and set(s.source) == {Source.LIVE}
    assert s.value.dtype == np.float64 and s.quantity.dtype == np.int16 and s.point.dtype == np.int32


def test_items_come_from_the_item_then_the_profile_then_the_map() -> None:
    plan = {Duty.LIVE: ReadPlan(items=("frequency",))}
    for prof, item, wanted in (
        (profile(read=plan), work(items=("voltage_b",)), 1),
        (profile(read=plan), work(), 1),
        (profile(), work(), len(load_map("eastron-sdm630").readings)),
    ):
        assert len(values(talk(open_exchange(device(), prof, item, Credentials()), Meter()))) == wanted


def test_not_available_is_absent_and_not_zero() -> None:
    meter = Meter().put("schneider-iem3000", {"voltage_a": float("nan"), "active_power_total": 12.0})
    regmap = load_map("schneider-iem3000").by_name
    meter.words[regmap["forward_active_total"].address] = 0x8000
    items = ("voltage_a", "active_power_total", "forward_active_total")
    outcome = talk(open_exchange(device(), profile("schneider-iem3000"), work(items=items), Credentials()), meter)
    assert outcome.status is Status.DONE
    assert values(outcome) == {"active_power_total": 12.0}


def test_offset_and_unit_of_the_address() -> None:
    meter = Meter({1001: 0x4366, 1002: 0x8000})
    exchange = open_exchange(
        device(address="200@1000"), profile("siemens-pac3200"), work(items=("voltage_a",)), Credentials()
    )
    assert values(talk(exchange, meter)) == {"voltage_a": 230.5}
    assert meter.reads == [(3, 1001, 2)]


@pytest.mark.parametrize(
    ("address", "framing"), [("0", "rtu"), ("248", "rtu"), ("256", "tcp"), ("x", "tcp"), ("1@", "x")]
)
def test_addresses_that_cannot_be_are_refused(address: str, framing: str) -> None:
    with pytest.raises(UsageError):
        open_exchange(device(framing, address), profile(), work(), Credentials())


def test_an_offset_that_leads_outside_fails_the_items_and_raises_nothing() -> None:
    exchange = open_exchange(
        device(address="1@-100"), profile(), work(items=("voltage_a", "combined_active_total")), Credentials()
    )
    outcome = talk(exchange, Meter())
    assert outcome.status is Status.PARTIAL and [f.item for f in outcome.faults] == ["voltage_a"]
    with pytest.raises(UsageError):
        order = work(Duty.CONTROL, action=action())
        open_exchange(device(address="1@-100"), profile(control=COILS), order, Credentials())


def test_one_illegal_address_fails_that_item_only_and_is_remembered() -> None:
    bad = load_map("eastron-sdm630").by_name["reactive_power_b"]
    meter = Meter(refused={bad.address}).put("eastron-sdm630", VALUES)
    first = talk(open_exchange(device(), profile(), work(), Credentials()), meter)
    assert first.status is Status.PARTIAL
    assert [(f.item, f.final) for f in first.faults] == [("reactive_power_b", True)]
    assert "illegal address" in first.faults[0].reason
    everything = set(load_map("eastron-sdm630").readings)
    assert set(values(first)) == everything - {"reactive_power_b"}
    asked = len(meter.reads)
    meter.reads.clear()
    second = talk(open_exchange(device(), profile(), work(), Credentials()), meter)
    assert values(second) == values(first) and second.faults == first.faults
    clean = len(Plan(load_map("eastron-sdm630"), tuple(everything)).reads)
    assert len(meter.reads) == clean + 1 < asked  # the group around the hole became two, no more
    meter.refused.clear()
    later = talk(open_exchange(device(), profile(), work(), Credentials()), meter, at=NOW + 2 * 86_400 * 10**6)
    assert later.status is Status.DONE  # forgotten after a day


def test_a_read_that_is_too_long_is_cut_and_the_cut_remembered() -> None:
    meter = Meter(limit=30).put("eastron-sdm630", VALUES)
    first = talk(open_exchange(device(), profile(), work(), Credentials()), meter)
    assert first.status is Status.DONE and not first.faults
    meter.reads.clear()
    second = talk(open_exchange(device(), profile(), work(), Credentials()), meter)
    assert values(second) == values(first)
    assert all(n <= 30 for _, _, n in meter.reads)


def test_a_device_that_refuses_everything_is_not_asked_for_ever_nor_believed_for_ever() -> None:
    meter = Meter(refused=set(range(65536)))
    outcome = talk(open_exchange(device(), profile(), work(), Credentials()), meter)
    assert outcome.status is Status.REFUSED and len(meter.reads) == 16
    assert {f.item for f in outcome.faults} == set(load_map("eastron-sdm630").readings)
    meter.refused.clear()
    assert talk(open_exchange(device(), profile(), work(), Credentials()), meter).status is Status.DONE


def test_an_unknown_item_is_a_fault_beside_the_others() -> None:
    outcome = talk(open_exchange(device(), profile(), work(items=("voltage_a", "warp_factor")), Credentials()), Meter())
    assert outcome.status is Status.PARTIAL
    assert [(f.item, f.final) for f in outcome.faults] == [("warp_factor", True)]
    nothing = open_exchange(device(), profile(), work(items=("warp_factor",)), Credentials())
    assert nothing.next_request(NOW) is None
    assert nothing.outcome(NOW).status is Status.REFUSED


def test_silence_is_repeated_then_given_up() -> None:
    exchange = open_exchange(device("rtu"), profile(), work(items=("voltage_a",)), Credentials())
    sent = []
    while (request := exchange.next_request(NOW)) is not None:
        sent.append(request.data)
        exchange.silence(NOW)
    assert len(sent) == 3 and len(set(sent)) == 1
    outcome = exchange.outcome(NOW)
    assert (outcome.status, outcome.retries, outcome.batch) == (Status.SILENT, 2, None)


def test_noise_without_an_answer_is_broken_not_silent() -> None:
    exchange = open_exchange(device("rtu"), profile(), work(items=("voltage_a",)), Credentials())
    while exchange.next_request(NOW) is not None:
        assert exchange.receive(b"\x01\x04\x04\x00\x00\x00\x00\x00\x00", NOW) is False
        exchange.silence(NOW)
    assert exchange.outcome(NOW).status is Status.BROKEN


def test_what_was_read_before_the_device_went_silent_is_kept() -> None:
    meter = Meter().put("eastron-sdm630", VALUES)
    exchange = open_exchange(device(), profile(), work(), Credentials())
    request = exchange.next_request(NOW)
    assert request is not None and exchange.receive(meter.answer(request.data, "tcp"), NOW)
    while exchange.next_request(NOW) is not None:
        exchange.silence(NOW)
    outcome = exchange.outcome(NOW)
    assert outcome.status is Status.PARTIAL and values(outcome)["voltage_a"] == 230.5
    everything = set(load_map("eastron-sdm630").readings)
    assert {f.item for f in outcome.faults} | set(values(outcome)) == everything
    assert not any(f.final for f in outcome.faults)


def test_a_conversation_that_is_ended_early_says_what_is_missing() -> None:
    meter = Meter().put("eastron-sdm630", VALUES)
    for ending in ("cancelled", "gateway"):
        exchange = open_exchange(device(), profile(), work(), Credentials())
        request = exchange.next_request(NOW)
        assert request is not None and exchange.receive(meter.answer(request.data, "tcp"), NOW)
        request = exchange.next_request(NOW)
        if ending == "gateway":
            assert request is not None and exchange.receive(request.data[:2] + b"\0\0\0\3\1\x84\x0b", NOW)
            assert exchange.next_request(NOW) is None
        outcome = exchange.outcome(NOW)
        assert outcome.status is Status.PARTIAL
        assert {f.item for f in outcome.faults} | set(values(outcome)) == set(load_map("eastron-sdm630").readings)


def test_a_late_answer_of_another_transaction_is_dropped() -> None:
    meter = Meter().put("eastron-sdm630", VALUES)
    exchange = open_exchange(device(), profile(), work(items=("voltage_a",)), Credentials())
    first = exchange.next_request(NOW)
    assert first is not None
    exchange.silence(NOW)
    late = meter.answer(first.data, "tcp")
    meter.put("eastron-sdm630", {"voltage_a": 231.0})
    second = exchange.next_request(NOW)
    assert second is not None and second.data[:2] != first.data[:2]
    assert exchange.receive(late, NOW) is False
    assert exchange.receive(meter.answer(second.data, "tcp"), NOW) is True
    assert values(exchange.outcome(NOW)) == {"voltage_a": 231.0}


def test_rtu_does_not_take_a_late_answer_for_another_read_of_the_same_length() -> None:
    items = ("combined_active_total", "frequency")  # two reads of two registers each
    exchange = open_exchange(device("rtu"), profile(), work(items=items), Credentials())
    meter = Meter()
    assert exchange.next_request(NOW) is not None
    exchange.silence(NOW)
    again = exchange.next_request(NOW)
    assert again is not None and exchange.receive(meter.answer(again.data, "rtu"), NOW)
    assert exchange.next_request(NOW) is None
    outcome = exchange.outcome(NOW)
    assert outcome.status is Status.PARTIAL and len(outcome.faults) == 1 and not outcome.faults[0].final


@pytest.mark.parametrize(("code", "status"), [(10, Status.SILENT), (11, Status.SILENT), (4, Status.REFUSED)])
def test_gateway_and_device_exceptions(code: int, status: Status) -> None:
    exchange = open_exchange(device(), profile(), work(items=("voltage_a",)), Credentials())
    request = exchange.next_request(NOW)
    assert request is not None
    assert exchange.receive(request.data[:2] + b"\0\0\0\3" + bytes((1, 0x84, code)), NOW)
    assert exchange.next_request(NOW) is None
    assert exchange.outcome(NOW).status is status


def test_busy_is_asked_again() -> None:
    exchange = open_exchange(device(), profile(), work(items=("voltage_a",)), Credentials())
    meter = Meter().put("eastron-sdm630", VALUES)
    request = exchange.next_request(NOW)
    assert request is not None and exchange.receive(request.data[:2] + b"\0\0\0\3\1\x84\6", NOW)
    outcome = talk(exchange, meter)
    assert outcome.status is Status.DONE and outcome.retries == 1


def test_parameters_come_as_text() -> None:
    meter = Meter({0x14B: 40})
    outcome = talk(open_exchange(device(), profile("acrel-adl3000"), work(Duty.PARAMETER), Credentials()), meter)
    assert outcome.batch is not None
    assert [(p.item, p.value) for p in outcome.batch.parameters] == [("ct_ratio", "40")]


def test_a_probe_looks_at_the_voltage() -> None:
    good = talk(open_exchange(device(), profile(), work(Duty.PROBE), Credentials()), Meter({0: 0x4366, 1: 0x8000}))
    assert good.status is Status.DONE
    wrong = talk(open_exchange(device(), profile(), work(Duty.PROBE), Credentials()), Meter({0: 0x8000, 1: 0x4366}))
    assert wrong.status is Status.PARTIAL and wrong.faults[0].item == "voltage_a"


def test_a_daily_reading_is_labelled_midnight_and_only_just_after_it() -> None:
    midnight = day_start_us(date(2026, 11, 22))
    meter = Meter().put("eastron-sdm630", VALUES)
    item = work(Duty.DAILY, ("forward_active_total",))
    outcome = talk(open_exchange(device(), profile(), item, Credentials()), meter, at=midnight + 300 * 10**6)
    assert outcome.batch is not None and outcome.batch.samples is not None
    assert outcome.batch.samples.time_us.tolist() == [midnight]
    assert outcome.batch.samples.source.tolist() == [Source.DAILY]
    late = open_exchange(device(), profile(), item, Credentials())
    assert late.next_request(midnight + 7200 * 10**6) is None
    ended = late.outcome(midnight + 7200 * 10**6)
    assert ended.status is Status.REFUSED and ended.faults[0].final


def test_duties_without_means_are_refused() -> None:
    for duty in (Duty.CURVE, Duty.EVENT, Duty.CLOCK, Duty.CONTROL):
        with pytest.raises(UsageError):
            open_exchange(device(), profile(), work(duty), Credentials())


# -- control ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
def test_control_reads_writes_and_reads_back(framing: str) -> None:
    meter = Meter()
    item = work(Duty.CONTROL, action=action())
    outcome = talk(open_exchange(device(framing), profile(control=COILS), item, Credentials()), meter, framing)
    answer = outcome.answer
    assert outcome.status is Status.DONE and answer is not None
    assert (answer.sent, answer.acknowledged, answer.refusal) == (True, True, "")
    assert answer.state is not None and answer.state.open is True
    assert [f.direction for f in answer.frames] == ["out", "in"] * 3
    assert len(meter.reads) == 2


def test_acknowledged_is_not_read_back() -> None:
    meter = Meter()
    meter.ignores_writes = True
    item = work(Duty.CONTROL, action=action())
    answer = talk(open_exchange(device(), profile(control=COILS), item, Credentials()), meter).answer
    assert answer is not None and answer.acknowledged is True
    assert answer.state is not None and answer.state.open is False


def test_a_write_is_never_sent_again() -> None:
    meter = Meter()
    item = work(Duty.CONTROL, action=action())
    exchange = open_exchange(device(), profile(control=COILS), item, Credentials())
    writes = 0
    while (request := exchange.next_request(NOW)) is not None:
        if request.data[7] == 5:
            writes += 1
            exchange.silence(NOW)
        else:
            assert exchange.receive(meter.answer(request.data, "tcp"), NOW)
    outcome = exchange.outcome(NOW)
    assert writes == 1 and outcome.status is Status.SILENT and outcome.answer is not None
    assert (outcome.answer.sent, outcome.answer.acknowledged) == (True, None)
    assert outcome.answer.state is not None and outcome.answer.state.open is False


def test_nothing_is_written_to_a_device_whose_state_cannot_be_read() -> None:
    item = work(Duty.CONTROL, action=action())
    silent = open_exchange(device(), profile(control=COILS), item, Credentials())
    while (request := silent.next_request(NOW)) is not None:
        assert request.data[7] == 1
        silent.silence(NOW)
    outcome = silent.outcome(NOW)
    assert outcome.status is Status.SILENT and outcome.answer is not None and outcome.answer.sent is False
    refusing = open_exchange(device(), profile(control=COILS), item, Credentials())
    request = refusing.next_request(NOW)
    assert request is not None and refusing.receive(request.data[:2] + b"\0\0\0\3\1\x81\2", NOW)
    assert refusing.next_request(NOW) is None
    refused = refusing.outcome(NOW)
    assert refused.status is Status.REFUSED and refused.answer is not None and refused.answer.sent is False


def test_a_refused_write_keeps_the_code_and_the_state() -> None:
    meter = Meter()
    exchange = open_exchange(device(), profile(control=COILS), work(Duty.CONTROL, action=action()), Credentials())
    while (request := exchange.next_request(NOW)) is not None:
        write = request.data[7] == 5
        reply = request.data[:2] + b"\0\0\0\3\1\x85\4" if write else meter.answer(request.data, "tcp")
        assert exchange.receive(reply, NOW)
    outcome = exchange.outcome(NOW)
    assert outcome.status is Status.REFUSED and outcome.answer is not None
    assert outcome.answer.acknowledged is False and outcome.answer.refusal.startswith("04")
    assert outcome.answer.state is not None and outcome.answer.state.open is False


def test_the_state_before_the_write_is_never_shown_as_read_back() -> None:
    meter = Meter()
    exchange = open_exchange(device(), profile(control=COILS), work(Duty.CONTROL, action=action()), Credentials())
    for _ in range(2):
        request = exchange.next_request(NOW)
        assert request is not None and exchange.receive(meter.answer(request.data, "tcp"), NOW)
    while exchange.next_request(NOW) is not None:
        exchange.silence(NOW)
    outcome = exchange.outcome(NOW)
    assert outcome.status is Status.PARTIAL and outcome.answer is not None
    assert outcome.answer.acknowledged is True and outcome.answer.state is None


def test_an_expired_command_is_not_sent() -> None:
    meter = Meter()
    item = work(Duty.CONTROL, action=action(until=NOW))
    outcome = talk(open_exchange(device(), profile(control=COILS), item, Credentials()), meter)
    assert outcome.status is Status.EXPIRED and outcome.answer is not None and outcome.answer.sent is False
    assert meter.coils == {0: 0}


def test_read_state_writes_nothing() -> None:
    meter = Meter()
    item = work(Duty.CONTROL, action=action(ActionKind.READ_STATE, until=0))
    outcome = talk(open_exchange(device(), profile(control=COILS), item, Credentials()), meter)
    assert outcome.status is Status.DONE and outcome.answer is not None and outcome.answer.sent is False
    assert outcome.answer.state is not None and len(meter.reads) == 1


@pytest.mark.parametrize("bad", [action(ActionKind.ALARM_ON), action(round=2)])
def test_actions_without_a_write_are_refused_before_anything_is_sent(bad: ControlAction) -> None:
    with pytest.raises(UsageError):
        open_exchange(device(), profile(control=COILS), work(Duty.CONTROL, action=bad), Credentials())


def test_control_never_broadcasts() -> None:
    with pytest.raises(UsageError, match=r"broadcast|广播"):
        open_exchange(device(address="0"), profile(control=COILS), work(Duty.CONTROL, action=action()), Credentials())


@pytest.mark.parametrize(
    ("entry", "frame"), [((6, 4, 0x55), "06 0004 0055"), ((16, 4, 0x12345), "10 0004 0002 04 00012345")]
)
def test_register_writes(entry: tuple[int, int, int], frame: str) -> None:
    plan = ControlPlan(means="modbus-write", writes={"trip": entry})
    exchange = open_exchange(device(), profile(control=plan), work(Duty.CONTROL, action=action()), Credentials())
    before = exchange.next_request(NOW)
    assert before is not None and before.data[7:] == bytes.fromhex("03 0004 0001")  # the place itself, without `state`
    assert exchange.receive(before.data[:2] + bytes.fromhex("0000 0005 01 03 02 0000"), NOW)
    write = exchange.next_request(NOW)
    assert write is not None and write.data[7:] == bytes.fromhex(frame)
    echo = write.data[6:12]
    assert exchange.receive(write.data[:2] + struct.pack(">HH", 0, len(echo)) + echo, NOW)
    assert exchange.next_request(NOW) is not None


# -- SunSpec ---------------------------------------------------------------------------------------------------------


def sunspec(base: int) -> Meter:
    sign = {base: 0x5375, base + 1: 0x6E53}
    common = {base + 2: 1, base + 3: 66}
    at = base + 4 + 66
    model = {at: 203, at + 1: 105, at + 107: 0xFFFF, at + 108: 0}
    meter = Meter({**sign, **common, **model})
    meter.put("sunspec-203", {"voltage_a": 2305, "voltage_b": 2306, "current_a": 425, "active_power_total": -150,
                              "forward_active_total": 4_000_000_000, "power_factor_total": -98}, at)  # fmt: skip
    scales: dict[str, float] = {"V_SF": -1, "A_SF": -2, "W_SF": 2, "TotWh_SF": 0, "PF_SF": 0}
    meter.put("sunspec-203", scales, at)
    meter.words[at + load_map("sunspec-203").by_name["voltage_c"].address] = 0x8000
    meter.words[at + load_map("sunspec-203").by_name["Hz_SF"].address] = 0x8000
    meter.words[at + load_map("sunspec-203").by_name["frequency"].address] = 5000
    meter.refused = set(range(65536)) - set(range(base, at + 109))
    return meter


@pytest.mark.parametrize("base", [40000, 0, 50000])
def test_sunspec_is_found_scaled_and_remembered(base: int) -> None:
    meter = sunspec(base)
    items = ("voltage_a", "voltage_b", "voltage_c", "current_a", "active_power_total", "frequency",
             "forward_active_total", "reverse_active_total", "power_factor_total")  # fmt: skip
    outcome = talk(open_exchange(device(), profile("sunspec-203"), work(items=items), Credentials()), meter)
    assert outcome.status is Status.DONE
    assert values(outcome) == {
        "voltage_a": 230.5, "voltage_b": 230.6, "current_a": 4.25, "active_power_total": -15.0,
        "forward_active_total": 4_000_000.0, "power_factor_total": -0.98,
    }  # fmt: skip
    meter.reads.clear()
    talk(open_exchange(device(), profile("sunspec-203"), work(items=items), Credentials()), meter)
    assert len(meter.reads) == 1


def test_a_block_that_has_moved_is_searched_again() -> None:
    items = ("voltage_a",)
    talk(open_exchange(device(), profile("sunspec-203"), work(items=items), Credentials()), sunspec(40000))
    moved = sunspec(0)
    lost = talk(open_exchange(device(), profile("sunspec-203"), work(items=items), Credentials()), moved)
    assert lost.status is Status.REFUSED
    found = talk(open_exchange(device(), profile("sunspec-203"), work(items=items), Credentials()), moved)
    assert values(found) == {"voltage_a": 230.5}


def test_a_device_without_the_model_is_refused_in_bounded_steps() -> None:
    meter = Meter({40000: 0x5375, 40001: 0x6E53})  # a chain of (0, 0) blocks without an end
    exchange = open_exchange(device(), profile("sunspec-203"), work(), Credentials())
    outcome = talk(exchange, meter)
    assert outcome.status is Status.REFUSED and "203" in outcome.reason
    assert len(meter.reads) < 100
