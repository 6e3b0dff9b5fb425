"""Conversations with a small fake meter: every duty, every way of not answering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import pytest

from fuhe.acquisition.profile import ControlPlan, CurvePlan, Profile, ReadPlan, Timing
from fuhe.acquisition.sessions import open_exchange
from fuhe.model.control import ActionKind, ControlAction
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.quality import Source
from fuhe.model.quantities import by_id
from fuhe.model.times import DAY_US, US, business_to_us
from fuhe.model.work import Duty, Interruptible, Outcome, Priority, Request, Status, WorkItem
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.common.times import decode_datetime, encode_datetime
from fuhe.protocols.dlt645.frame import Frame, address_to_wire, cut
from fuhe.protocols.dlt645.items import encode_payload, lookup
from fuhe.protocols.dlt645.loads import encode_record
from fuhe.protocols.guard import is_write

NOW = datetime(2026, 5, 20, 10, 7, 3)  # noqa: DTZ001 - the meters' clock
NOW_US = business_to_us(NOW)
METER = "123456789012"
READS = {
    Duty.LIVE: ReadPlan(items=("0201FF00", "0203FF00", "02800002")),
    Duty.DAILY: ReadPlan(items=("05060001", "05060101", "05060901")),
    Duty.MONTHLY: ReadPlan(items=("0001FF01", "0101FF01")),
    Duty.EVENT: ReadPlan(items=("03110000", "03110001")),
    Duty.PARAMETER: ReadPlan(items=("04000306", "04000503", "04000402")),
}
PROFILE = Profile(
    name="t", title_en="t", title_zh="t", protocol="dlt645", version="2007", read=READS,
    timing=Timing(retries=1), curve=CurvePlan(classes=(2,), step_s=900, blocks_per_request=8),
    control=ControlPlan(means="dlt645-1c"),
)  # fmt: skip
OLD = Profile(
    name="o", title_en="o", title_zh="o", protocol="dlt645", version="1997", timing=Timing(retries=1),
    read={Duty.LIVE: ReadPlan(items=("B61F", "B630")), Duty.DAILY: ReadPlan(items=("901F",)),
          Duty.MONTHLY: ReadPlan(items=("941F",))},
)  # fmt: skip
DEVICE = Device(id=5, name="m", link="l", profile="t", address=METER, points=(Point(id=77, name="p"),))
Answerer = Callable[[Frame], list[Frame]]


def payload(di: str, *contents: object, version: str = "2007") -> bytes:
    """Payload of an item."""
    item = lookup(di, version)
    assert item is not None
    return encode_payload(item, contents)  # type: ignore[arg-type]


@dataclass
class FakeMeter:
    """Answers from a table of payloads; an int is an ERR byte; what is missing is ERR 02. Long answers in parts."""

    content: dict[str, bytes | int] = field(default_factory=dict)
    records: dict[datetime, bytes] = field(default_factory=dict)
    special: Answerer | None = None
    part: int = 196
    address: str = METER
    asked: list[Frame] = field(default_factory=list)

    def __call__(self, request: Frame) -> list[Frame]:
        self.asked.append(request)
        if self.special is not None and (found := self.special(request)):
            return found
        size = 4 if request.control in (0x11, 0x12, 0x14) else 2
        di = request.data[:size]
        content = self.content.get(di[::-1].hex().upper(), 2)
        if request.control == 0x11 and len(request.data) == 10:
            content = self.content[di[::-1].hex().upper()] = self._load(request.data)
        if request.control not in (0x01, 0x02, 0x11, 0x12):
            return []
        if isinstance(content, int):
            return [self.reply(request, bytes((content,)), flags=0xC0)]
        parts = [content[i : i + self.part] for i in range(0, len(content), self.part)] or [b""]
        if request.control in (0x11, 0x01):
            return [self.reply(request, di + parts[0], flags=0xA0 if len(parts) > 1 else 0x80)]
        number = request.data[4]
        more = 0xA0 if number < len(parts) - 1 else 0x80
        return [self.reply(request, di + parts[number] + bytes((number,)), flags=more)]

    def reply(self, request: Frame, data: bytes, *, flags: int = 0x80) -> Frame:
        return Frame(address_to_wire(self.address), request.function | flags, data, 2)

    def _load(self, data: bytes) -> bytes:
        start = decode_datetime(data[5:])
        assert start is not None
        times = sorted(t for t in self.records if t >= start)[: data[4]]
        return b"".join(self.records[t] for t in times)


def item(duty: Duty, **more: object) -> WorkItem:
    """A work item."""
    return WorkItem(device=5, duty=duty, priority=Priority.LIVE, expires_s=1e9, **more)  # type: ignore[arg-type]


def talk(
    work: WorkItem, meter: Answerer, profile: Profile = PROFILE, now_us: int = NOW_US, trip_s: float = 0.2
) -> tuple[Outcome, list[Request]]:
    """Carry out a work item; every request takes `trip_s`."""
    exchange = open_exchange(DEVICE, profile, work, Credentials(password="020637", operator="00000001"))
    sent: list[Request] = []
    for _ in range(2000):
        request = exchange.next_request(now_us)
        if request is None:
            return exchange.outcome(now_us), sent
        sent.append(request)
        now_us += int(trip_s * US)
        wire = request.data + b"".join(f.encode() for f in meter(cut(request.data)[0][0]))  # with our own echo
        done = [exchange.receive(wire[i : i + 7], now_us) for i in range(0, len(wire), 7)]
        if not any(done):
            exchange.silence(now_us)
    raise AssertionError("the exchange does not end")


def samples(outcome: Outcome) -> dict[str, float]:
    """Samples by quantity; one time and source expected."""
    assert outcome.batch is not None and outcome.batch.samples is not None
    s = outcome.batch.samples
    assert set(s.point.tolist()) == {77}
    return {by_id()[int(q)].name: float(v) for q, v in zip(s.quantity, s.value, strict=True)}


LIVE = {
    "0201FF00": payload("0201FF00", "220.1", None, "221.3"),
    "0203FF00": payload("0203FF00", "-1.2345", "0.1", "0.2", "0.3"),
    "02800002": payload("02800002", "50.01"),
}


def test_live_values() -> None:
    outcome, sent = talk(item(Duty.LIVE), FakeMeter(dict(LIVE)))
    assert (outcome.status, outcome.faults, len(sent)) == (Status.DONE, (), 3)
    got = samples(outcome)
    assert got["voltage_a"] == 220.1 and got["active_power_total"] == -1.2345 and got["frequency"] == 50.01
    assert "voltage_b" not in got  # fill bytes are no value
    assert not any(is_write("dlt645", r.data) for r in sent)
    assert sent[0].data.startswith(b"\xfe" * 4 + b"\x68") and sent[0].reply_bytes == 12 + 4 + 4 + 6


def test_one_refused_item_fails_that_item_only() -> None:
    outcome, _ = talk(item(Duty.LIVE), FakeMeter({**LIVE, "0203FF00": 2, "02800002": 0xFE}))
    assert outcome.status is Status.PARTIAL
    assert [(f.item, f.final) for f in outcome.faults] == [("0203FF00", True), ("02800002", False)]
    outcome, _ = talk(item(Duty.LIVE), FakeMeter())
    assert (outcome.status, outcome.batch) == (Status.REFUSED, None)


def test_bad_digits_fail_the_value_only() -> None:
    outcome, _ = talk(item(Duty.LIVE, items=("0201FF00",)), FakeMeter({"0201FF00": bytes.fromhex("71230E002123")}))
    assert outcome.faults[0].reason == "voltage_b: not_bcd"
    assert samples(outcome) == {"voltage_a": 237.1, "voltage_c": 232.1}


def test_a_dead_meter_costs_one_item_with_its_retries() -> None:
    outcome, sent = talk(item(Duty.LIVE), lambda _: [])
    assert (outcome.status, len(sent), outcome.retries) == (Status.SILENT, 2, 1)


def test_noise_is_not_silence() -> None:
    outcome, _ = talk(item(Duty.LIVE), lambda q: [Frame(q.wire_address, 0x91, bytes(3))])
    assert outcome.status is Status.SILENT  # a good frame, but no answer to our question
    exchange = open_exchange(DEVICE, PROFILE, item(Duty.LIVE), Credentials())
    for _ in range(2):
        assert exchange.next_request(NOW_US) is not None
        assert not exchange.receive(bytes.fromhex("68129078563412689108333334338967453355"), NOW_US)
        exchange.silence(NOW_US)
    assert exchange.next_request(NOW_US) is None
    assert exchange.outcome(NOW_US).status is Status.BROKEN


def test_late_replies_echo_and_other_meters_are_dropped() -> None:
    meter = FakeMeter(dict(LIVE))

    def crowded(request: Frame) -> list[Frame]:
        good = meter(request)
        late = Frame(good[0].wire_address, 0x91, bytes.fromhex("00010000") + bytes(4))
        other = Frame(address_to_wire("1"), good[0].control, good[0].data)
        wrong_function = Frame(good[0].wire_address, 0x92, good[0].data)
        return [late, other, wrong_function, *good]

    assert talk(item(Duty.LIVE), crowded)[0].status is Status.DONE
    # an address of AA is an answer only to a question with wildcards
    echo_aa = FakeMeter(dict(LIVE), address="AAAAAAAAAAAA")
    assert talk(item(Duty.LIVE), echo_aa)[0].status is Status.SILENT


def test_a_lost_reply_is_asked_again() -> None:
    meter, calls = FakeMeter(dict(LIVE)), [0]

    def lossy(request: Frame) -> list[Frame]:
        calls[0] += 1
        return [] if calls[0] % 2 else meter(request)

    outcome, sent = talk(item(Duty.LIVE), lossy)
    assert (outcome.status, outcome.retries, len(sent)) == (Status.DONE, 3, 6)


def test_the_answer_behind_a_false_start_is_found_on_silence() -> None:
    exchange = open_exchange(DEVICE, PROFILE, item(Duty.LIVE, items=("02800002",)), Credentials())
    request = exchange.next_request(NOW_US)
    assert request is not None
    good = FakeMeter(dict(LIVE))(cut(request.data)[0][0])[0].encode()
    assert not exchange.receive(bytes.fromhex("680000000000006891A0") + good, NOW_US)
    exchange.silence(NOW_US)
    assert exchange.next_request(NOW_US) is None
    assert exchange.outcome(NOW_US).status is Status.DONE


def test_follow_on_frames_with_a_lost_part() -> None:
    big = {"0001FF01": payload("0001FF01", *range(64)), "0101FF01": payload("0101FF01", "1.5", "2026-04-30T10:15:00")}
    meter, lost = FakeMeter({**big, "04000B01": payload("04000B01", "01T00")}, part=60), [True]

    def lossy(request: Frame) -> list[Frame]:
        if request.control == 0x12 and request.data[4] == 2 and lost.pop():
            lost.append(False)
            return []
        return meter(request)

    outcome, sent = talk(item(Duty.MONTHLY), lossy)
    assert (outcome.status, outcome.retries) == (Status.DONE, 1)
    got = samples(outcome)
    assert (got["forward_active_total"], got["forward_active_t8"]) == (0, 8)
    assert got["forward_active_demand"] == 1.5
    assert got["forward_active_demand_time"] == business_to_us(datetime(2026, 4, 30, 10, 15)) / 1e6  # noqa: DTZ001
    assert [cut(r.data)[0][0].data[4:] for r in sent if cut(r.data)[0][0].control == 0x12][:3] == [b"\1", b"\2", b"\2"]


def test_a_broken_follow_on_chain_is_begun_again() -> None:
    meter, broken = FakeMeter({"0001FF01": payload("0001FF01", *range(64))}, part=100), [1]

    def other_request_between(request: Frame) -> list[Frame]:
        if request.control == 0x12 and broken:
            broken.pop()
            return [meter.reply(request, b"\x01", flags=0xC0)]
        return meter(request)

    outcome, _ = talk(item(Duty.LIVE, items=("0001FF01",)), other_request_between)
    assert outcome.status is Status.DONE and samples(outcome)["forward_active_t8"] == 8


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_chain_that_a_command_interrupts_is_begun_again_from_its_first_request(after: int, answered: bool) -> None:
    """The meter forgets the chain at any other request (here: after `after` requests); nothing is lost or doubled."""
    meter = FakeMeter({"0001FF01": payload("0001FF01", *range(64)), "02010100": payload("02010100", "230.1")}, part=80)
    exchange = open_exchange(DEVICE, PROFILE, item(Duty.LIVE, items=("0001FF01", "02010100")), Credentials())
    assert isinstance(exchange, Interruptible)
    valid, sent = True, 0
    while (request := exchange.next_request(NOW_US)) is not None and sent < 20:
        sent += 1
        (frame,), _ = cut(request.data)
        assert isinstance(frame, Frame)
        valid = valid or frame.control == 0x11
        assert valid, "a follow-on request after another request"
        if sent == after and not answered:
            exchange.silence(NOW_US)
        else:
            assert exchange.receive(meter(frame)[0].encode(), NOW_US)
        if sent == after:
            exchange.interrupted()
            valid = False
    outcome = exchange.outcome(NOW_US)
    assert outcome.status is Status.DONE and samples(outcome)["forward_active_t8"] == 8
    assert samples(outcome)["voltage_a"] == 230.1


# --- freezes and settlements ----------------------------------------------------------------------------------------


def frozen(last: datetime, days: int) -> dict[str, bytes | int]:
    """Daily freezes at 00:00; the n-th last has n kWh."""
    content: dict[str, bytes | int] = {}
    for n in range(1, days + 1):
        content[f"050600{n:02X}"] = encode_datetime(last - timedelta(days=n - 1), seconds=False)
        content[f"050601{n:02X}"] = payload("05060101", n, n)
        content[f"050609{n:02X}"] = payload("05060901", "1.5", "2026-05-19T10:15:00")
    return content


def window(day: int, days: int = 1) -> tuple[int, int]:
    """Labels 00:00 of days of May 2026."""
    start = business_to_us(datetime(2026, 5, day))  # noqa: DTZ001
    return start, start + days * DAY_US


def test_daily_freezes_of_a_window_are_found_and_checked() -> None:
    meter = FakeMeter(frozen(datetime(2026, 5, 20), 5))  # noqa: DTZ001
    outcome, _ = talk(item(Duty.DAILY, window_us=window(18, 2)), meter)
    assert outcome.status is Status.DONE
    assert outcome.batch is not None and outcome.batch.samples is not None
    s = outcome.batch.samples
    chosen = s.quantity == 120
    assert dict(zip(s.time_us[chosen].tolist(), s.value[chosen].tolist(), strict=True)) == {
        window(19)[0]: 2.0,
        window(18)[0]: 3.0,
    }
    assert set(s.source.tolist()) == {Source.DAILY}


def test_a_meter_that_froze_less_often_is_corrected_for() -> None:
    content = frozen(datetime(2026, 5, 20), 1)  # noqa: DTZ001
    content["05060002"] = encode_datetime(datetime(2026, 5, 17), seconds=False)  # noqa: DTZ001 - power was off
    content["05060003"] = encode_datetime(datetime(2026, 5, 16), seconds=False)  # noqa: DTZ001
    content["05060102"] = payload("05060101", 42)
    content["05060902"] = payload("05060901", 0, None)
    meter = FakeMeter(content)
    outcome, _ = talk(item(Duty.DAILY, window_us=window(17)), meter)
    assert samples(outcome)["forward_active_total"] == 42
    missing, _ = talk(item(Duty.DAILY, window_us=window(18)), meter)
    assert missing.batch is None and missing.faults[0].final
    empty, _ = talk(item(Duty.DAILY, window_us=window(19)), FakeMeter({"05060002": bytes(5)}))
    assert empty.batch is None and empty.faults[0].final


def test_last_freeze_without_a_window() -> None:
    outcome, _ = talk(item(Duty.DAILY), FakeMeter(frozen(datetime(2026, 5, 20), 1)))  # noqa: DTZ001
    assert outcome.status is Status.DONE and samples(outcome)["forward_active_t1"] == 1


def test_a_reading_on_a_day_without_settlement_comes_from_the_daily_freeze() -> None:
    """The customer is read on the 15th, the meter settles on the first: registers of the 15th, 00:00, as of a month."""
    label = business_to_us(datetime(2026, 5, 15))  # noqa: DTZ001 - the meter's clock
    meter = FakeMeter({
        "04000B01": payload("04000B01", "01-00"), "0001FF01": payload("0001FF01", 100, 50, 50),
        "0101FF01": payload("0101FF01", 1, "2026-04-20T10:00:00", 1, "2026-04-20T10:00:00"),
        **{f"050600{n:02X}": payload("05060001", f"2026-05-{21 - n:02d}T00:00:00") for n in range(1, 9)},
        "05060106": payload("05060101", 123.45, 61, 62.45), "05060906": payload("05060901", 2, "2026-05-02T10:00:00"),
    })  # fmt: skip
    outcome, _ = talk(item(Duty.MONTHLY, window_us=(label, label + DAY_US)), meter)
    assert outcome.status is Status.DONE and outcome.batch is not None and outcome.batch.samples is not None
    samples = outcome.batch.samples
    rows = [
        (by_id()[int(q)].name, int(t), float(v), int(s))
        for q, t, v, s in zip(samples.quantity, samples.time_us, samples.value, samples.source, strict=True)
    ]
    assert ("forward_active_total", label, 123.45, Source.MONTHLY) in rows
    first = business_to_us(datetime(2026, 5, 1))  # noqa: DTZ001 - the meter's clock
    assert ("forward_active_total", first, 100.0, Source.MONTHLY) in rows, "the settlement as such is kept as well"

    meter.content["04000B01"] = payload("04000B01", "15-00")
    asked = len(meter.asked)
    outcome, _ = talk(item(Duty.MONTHLY, window_us=(label, label + DAY_US)), meter)
    assert outcome.status is Status.DONE and len(meter.asked) == asked + 3, "it settles on that day: no freeze is asked"

    old = FakeMeter({"C117": payload("C117", "01-00", version="1997"), "941F": payload("941F", 5, version="1997")})
    outcome, _ = talk(item(Duty.MONTHLY, window_us=(label, label + DAY_US)), old, OLD)
    assert [f.final for f in outcome.faults if f.item == "reading_day"] == [True]


def test_settlement_of_a_window() -> None:
    content: dict[str, bytes | int] = {f"0001FF{n:02X}": payload("0001FF01", 10 * n) for n in range(1, 13)}
    content |= {f"0101FF{n:02X}": payload("0101FF01", 0, None) for n in range(1, 13)}
    content["04000B01"] = payload("04000B01", "01T00")
    march = business_to_us(datetime(2026, 3, 1))  # noqa: DTZ001
    outcome, _ = talk(item(Duty.MONTHLY, window_us=(march, march + DAY_US)), FakeMeter(content))
    assert outcome.batch is not None and outcome.batch.samples is not None
    assert set(outcome.batch.samples.time_us.tolist()) == {march}
    assert samples(outcome)["forward_active_total"] == 30  # May is the last, April the second last
    content["04000B01"] = payload("04000B01", "25T12")
    outcome, _ = talk(item(Duty.MONTHLY), FakeMeter(content))
    assert outcome.batch is not None and outcome.batch.samples is not None
    assert set(outcome.batch.samples.time_us.tolist()) == {business_to_us(datetime(2026, 4, 25, 12))}  # noqa: DTZ001


def test_the_edition_of_1997() -> None:
    content: dict[str, bytes | int] = {
        "B61F": payload("B61F", 220, 221, None, version="1997"),
        "B630": payload("B630", "1.25", version="1997"),
        "901F": payload("901F", *range(15), version="1997"),
        "981F": payload("981F", *range(15), version="1997"),
        "C117": payload("C117", "01T00", version="1997"),
        "C010": bytes.fromhex("03200526"),
        "C011": bytes.fromhex("030710"),
    }
    meter = FakeMeter(content)
    got, _ = talk(item(Duty.LIVE), meter, OLD)
    assert samples(got) == {"voltage_a": 220, "voltage_b": 221, "active_power_total": 1.25}
    late, _ = talk(item(Duty.DAILY, window_us=window(20)), meter, OLD)
    assert late.batch is None and late.faults[0].final  # ten hours after midnight
    soon, _ = talk(item(Duty.DAILY, window_us=window(20)), meter, OLD, now_us=window(20)[0] + 60 * US)
    assert samples(soon)["forward_active_t8"] == 8
    april = business_to_us(datetime(2026, 4, 1))  # noqa: DTZ001
    month, _ = talk(item(Duty.MONTHLY, window_us=(april, april + DAY_US)), meter, OLD)
    assert samples(month)["forward_active_total"] == 0
    clock, _ = talk(item(Duty.CLOCK), meter, OLD)
    assert abs(samples(clock)["clock_offset"]) < 1


# --- curves ---------------------------------------------------------------------------------------------------------


def test_a_curve_becomes_an_array_with_holes() -> None:
    first = datetime(2026, 5, 19, 0, 15)  # noqa: DTZ001
    times = [first + timedelta(minutes=15 * i) for i in range(96) if not 30 <= i < 50]
    records = {t: encode_record(t, {2: [f"{i / 10000:.4f}"] + [None] * 3 + ["-0.5"] * 4}) for i, t in enumerate(times)}
    records[first + timedelta(minutes=7)] = encode_record(first + timedelta(minutes=7), {2: [9] * 8})
    start = business_to_us(first)
    outcome, sent = talk(item(Duty.CURVE, window_us=(start, start + DAY_US)), FakeMeter(records=records))
    assert outcome.batch is not None
    (block,) = outcome.batch.curves
    assert block.value.shape == (5, 96) and block.step_s == 900
    assert set(block.start_us.tolist()) == {start}
    power = block.value[block.quantity.tolist().index(20)]
    assert np.isnan(power[30:50]).all() and np.isfinite(power[:30]).all() and np.isfinite(power[50:]).all()
    assert power[0] == 0 and power[1] == 0.0001
    assert block.quality[0, 30] == 3 and block.quality[0, 0] == 0
    assert outcome.status is Status.PARTIAL and "off the grid" in outcome.faults[0].reason
    assert any(cut(r.data)[0][0].control == 0x12 for r in sent)  # the parts came with follow-on frames
    assert len(sent) < 60


def test_a_curve_without_records() -> None:
    start = business_to_us(datetime(2026, 5, 19, 0, 15))  # noqa: DTZ001
    refused, _ = talk(
        item(Duty.CURVE, window_us=(start, start + DAY_US)), lambda q: [FakeMeter().reply(q, b"\2", flags=0xC0)]
    )
    assert refused.batch is None and refused.faults[0].final
    empty, sent = talk(item(Duty.CURVE, window_us=(start, start + DAY_US)), FakeMeter())
    assert empty.batch is None and empty.faults[0].reason == "no record in the window" and len(sent) == 12
    future, sent = talk(item(Duty.CURVE, window_us=(NOW_US + DAY_US, NOW_US + 2 * DAY_US)), FakeMeter())
    assert (future.status, sent) == (Status.DONE, [])


# --- clock, parameters, events, probe ---------------------------------------------------------------------------------


@pytest.mark.parametrize("combined", [True, False])
def test_clock_offset(combined: bool) -> None:
    ahead = NOW + timedelta(seconds=30)
    content: dict[str, bytes | int] = {
        "04000101": payload("04000101", ahead.date()),
        "04000102": payload("04000102", ahead.time()),
    }
    if combined:
        content["0400010C"] = payload("0400010C", ahead)
    outcome, sent = talk(item(Duty.CLOCK), FakeMeter(content))
    trips = 1 if combined else 3
    assert len(sent) == trips
    assert samples(outcome)["clock_offset"] == pytest.approx(30 - 0.2 * (trips - 0.5))


def test_a_slow_round_trip_is_no_clock_reading() -> None:
    outcome, _ = talk(item(Duty.CLOCK), FakeMeter({"0400010C": payload("0400010C", NOW)}), trip_s=6)
    assert outcome.batch is None and "round trip" in outcome.faults[0].reason


def test_parameters_and_events() -> None:
    span = encode_datetime(NOW, seconds=True) + encode_datetime(NOW + timedelta(hours=1), seconds=True)
    content: dict[str, bytes | int] = {
        "04000306": payload("04000306", 100), "04000503": bytes.fromhex("5000"), "04000402": payload("04000402", METER),
        "03110000": payload("03110000", 7), "03110001": span,
    }  # fmt: skip
    outcome, _ = talk(item(Duty.PARAMETER), FakeMeter(content))
    assert outcome.batch is not None
    assert {p.item: p.value for p in outcome.batch.parameters} == {
        "04000306": "100", "04000503": "0050", "04000402": METER,
    }  # fmt: skip
    assert samples(outcome) == {"ct_ratio": 100, "status_word_3": 0x50, "switch_state": 0}
    events, _ = talk(item(Duty.EVENT), FakeMeter(content))
    assert events.batch is not None
    (event,) = events.batch.events
    assert (event.code, event.time_us, event.end_us) == ("03110000", NOW_US, NOW_US + 3600 * US)
    assert samples(events) == {"power_down_count": 7}
    content["03110001"] = bytes(12)
    none, _ = talk(item(Duty.EVENT), FakeMeter(content))
    assert none.batch is not None and none.batch.events == ()


def test_any_answer_shows_that_the_meter_is_there() -> None:
    assert talk(item(Duty.PROBE), FakeMeter({"00010000": payload("00010000", 1)}))[0].status is Status.DONE
    assert talk(item(Duty.PROBE), FakeMeter())[0].status is Status.DONE
    assert talk(item(Duty.PROBE), lambda _: [])[0].status is Status.SILENT


# --- control ---------------------------------------------------------------------------------------------------------


def action(kind: ActionKind, **more: object) -> WorkItem:
    """A control item, valid for ten minutes."""
    act = ControlAction(id="c1", kind=kind, valid_until_us=NOW_US + 600 * US, **more)  # type: ignore[arg-type]
    return item(Duty.CONTROL, action=act)


def relay(reply: Callable[[Frame, FakeMeter], list[Frame]], word: str | None) -> FakeMeter:
    """A meter with a relay that answers 1CH with `reply` and shows status word 3 = `word`."""
    content: dict[str, bytes | int] = {} if word is None else {"04000503": bytes.fromhex(word)[::-1]}
    meter = FakeMeter(content)
    meter.special = lambda q: reply(q, meter) if q.control == 0x1C else []
    return meter


def test_trip_acknowledged_and_read_back() -> None:
    meter = relay(lambda q, m: [m.reply(q, b"")], "0050")
    outcome, sent = talk(action(ActionKind.TRIP), meter)
    answer = outcome.answer
    assert outcome.status is Status.DONE and answer is not None and answer.state is not None
    assert (answer.sent, answer.acknowledged, answer.state.open, answer.state.command_trip) == (True, True, True, True)
    command = meter.asked[0]
    assert command.data == bytes.fromhex("02370602 01000000 1A00") + encode_datetime(
        NOW + timedelta(minutes=10), seconds=True
    )
    assert len([r for r in sent if is_write("dlt645", r.data)]) == 1
    assert "370602" not in str(answer.frames) and "6A3935" not in str(answer.frames)
    assert samples(outcome)["switch_state"] == 0


def test_a_refused_trip_says_why() -> None:
    outcome, _ = talk(action(ActionKind.TRIP), relay(lambda q, m: [m.reply(q, b"\x04", flags=0xC0)], "0000"))
    assert outcome.status is Status.REFUSED and outcome.answer is not None
    assert outcome.answer.acknowledged is False and "password_or_unauthorised" in outcome.answer.refusal
    word, _ = talk(action(ActionKind.TRIP), relay(lambda q, m: [m.reply(q, b"\x20\x00", flags=0xC0)], "1000"))
    assert word.answer is not None and "trip_refused_protected" in word.answer.refusal
    assert word.answer.state is not None and word.answer.state.protected


def test_a_command_is_never_sent_twice() -> None:
    for state, expected in (("0050", True), (None, None)):
        meter = relay(lambda q, m: [Frame(q.wire_address, 0x91, b"")], state)
        if state is None:
            meter.special = lambda q: [Frame(q.wire_address, 0x93, b"")]
        outcome, _ = talk(action(ActionKind.TRIP), meter)
        assert [f.control for f in meter.asked].count(0x1C) == 1
        assert outcome.status is Status.SILENT and outcome.answer is not None
        assert (outcome.answer.sent, outcome.answer.acknowledged) == (True, None)
        assert (outcome.answer.state.open if outcome.answer.state else None) is expected


def test_state_is_only_read() -> None:
    outcome, sent = talk(action(ActionKind.READ_STATE), relay(lambda q, m: [], "0000"))
    assert outcome.status is Status.DONE and outcome.answer is not None
    assert (outcome.answer.sent, outcome.answer.acknowledged) == (False, None)
    assert len(sent) == 1 and not is_write("dlt645", sent[0].data)
    assert talk(action(ActionKind.READ_STATE), lambda _: [])[0].status is Status.SILENT


def test_a_command_whose_time_is_over_is_not_sent() -> None:
    outcome, sent = talk(action(ActionKind.TRIP), relay(lambda q, m: [], "0000"), now_us=NOW_US + 601 * US)
    assert (outcome.status, sent) == (Status.EXPIRED, [])
    assert outcome.answer is not None and not outcome.answer.sent


def test_what_is_known_when_the_link_is_lost_after_the_command() -> None:
    exchange = open_exchange(DEVICE, PROFILE, action(ActionKind.TRIP), Credentials())
    assert exchange.next_request(NOW_US) is not None
    answer = exchange.outcome(NOW_US).answer
    assert answer is not None and (answer.sent, answer.acknowledged) == (True, None)


@pytest.mark.parametrize(
    ("work", "profile"),
    [
        (item(Duty.CONTROL), PROFILE),
        (action(ActionKind.TRIP, round=2), PROFILE),
        (action(ActionKind.TRIP), OLD),
        (item(Duty.CURVE), PROFILE),
        (item(Duty.CURVE, window_us=(0, 1), items=("9",)), PROFILE),
        (item(Duty.CURVE, window_us=(0, 1)), OLD),
        (item(Duty.EVENT), OLD),
        (item(Duty.LIVE, items=("FFFFFFFF",)), PROFILE),
        (item(Duty.LIVE, items=("9010",)), PROFILE),
        (item(Duty.MONTHLY, items=("02010100",)), PROFILE),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_sent(work: WorkItem, profile: Profile) -> None:
    with pytest.raises(UsageError):
        open_exchange(DEVICE, profile, work, Credentials())


def test_outcome_may_be_asked_early() -> None:
    exchange = open_exchange(DEVICE, PROFILE, item(Duty.LIVE), Credentials())
    assert exchange.next_request(NOW_US) is not None
    assert exchange.outcome(NOW_US).status is Status.CANCELLED
