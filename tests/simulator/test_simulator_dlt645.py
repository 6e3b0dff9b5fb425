"""The DL/T 645 slave against the product's decoder: what the meter says is what its physics hold."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from fuhe.model.times import US
from fuhe.protocols.dlt645 import requests as ask
from fuhe.protocols.dlt645.frame import ANY, BROADCAST, Frame, cut, make_frame
from fuhe.protocols.dlt645.items import decode_payload, lookup
from fuhe.protocols.dlt645.loads import decode_loads
from fuhe.protocols.dlt645.requests import Access
from fuhe.simulator.dlt645 import DltLine, DltSlave
from fuhe.simulator.faults import Fault, FaultSet
from fuhe.simulator.load import Component, Site, day_start
from fuhe.simulator.meter import SimMeter
from fuhe.simulator.relay import Relay
from fuhe.simulator.shapes import shapes

DAY = 20_300
NOW = day_start(DAY) + (15 * 3600 + 7 * 60 + 13) * US
ADDRESS = "202600000101"
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - load records carry a naive device time
ACCESS = Access(level="02", password="020637", operator="12345678")


class Bench:
    """One meter on a line with a clock moved by hand."""

    def __init__(self, *faults: Fault, version: str = "2007", block: bool = False, **changes: object) -> None:
        self.now = NOW
        self.faults = FaultSet("m", 1)
        for fault in faults:
            self.faults.add(fault, NOW)
        self.site = Site(
            components=(Component(kw=40, flat=True), Component(kw=120)),
            shape=shapes()["textile"],
            seed=4,
            origin_us=day_start(DAY - 70),
        )
        relay = Relay(component=1, site=self.site, faults=self.faults, human_s=20)
        fields: dict[str, object] = {"ct_ratio": 40.0, "password": "020637", "retention_days": 3}
        self.meter = SimMeter(
            name="m",
            address=ADDRESS,
            site=self.site,
            faults=self.faults,
            seed=9,
            relays=[relay],
            **(fields | changes),  # type: ignore[arg-type]
        )
        self.slave = DltSlave(self.meter, version=version, block_records=block)
        self.session = DltLine([self.slave]).session()

    def send(self, request: Frame | bytes) -> Frame | None:
        """The reply frame, checked by the product's framer."""
        data = request if isinstance(request, bytes) else request.encode(4)
        replies = self.session.receive(data, self.now)
        assert len(replies) <= 1
        if not replies:
            return None
        frames, skipped = cut(replies[0].data)
        assert not skipped and len(frames) == 1
        return frames[0]

    def payload(self, di: str, version: str = "2007") -> bytes:
        """Everything behind an identifier, follow-on parts joined."""
        size = 4 if version == "2007" else 2
        reply = self.send(ask.read(ADDRESS, di, version))
        assert reply is not None and not reply.abnormal, (di, reply)
        return self._joined(reply, di, size, version)

    def _joined(self, reply: Frame, di: str, size: int, version: str) -> bytes:
        out, number = reply.data[size:], 0
        while reply.follow_on:
            number += 1
            part = self.send(ask.read_follow_on(ADDRESS, di, number, version))
            assert part is not None and not part.abnormal
            out += part.data[size:-1] if version == "2007" else part.data[size:]
            reply = part
        return out

    def values(self, di: str, version: str = "2007") -> dict[str, object]:
        """Values by name as the product decodes them."""
        item = lookup(di, version)
        assert item is not None
        found = decode_payload(item, self.payload(di, version))
        assert not [v for v in found if v.invalid], found
        return {v.name: v.value for v in found}

    def loads(self, di: str, count: int, start: datetime | None) -> bytes:
        reply = self.send(ask.read_load(ADDRESS, di, count, start))
        assert reply is not None and not reply.abnormal
        return self._joined(reply, di, 4, "2007")

    def local(self) -> datetime:
        return self.meter.clock.local(self.now)


EVERY_ITEM = [
    *(f"00{k:02X}{t}{s}" for k in range(11) for t in ("00", "FF") for s in ("00", "01", "FF")),
    *(f"01{k:02X}{t}{s}" for k in range(1, 11) for t in ("00", "FF") for s in ("00", "01")),
    "00150000", "00290000", "003D0000",
    *(f"02{k:02X}{p}00" for k in range(1, 10) for p in ("01", "02", "03", "FF")),
    *(f"028000{n:02X}" for n in range(1, 10)),
    "03110000", "03110001", "03300000", "03300001", "03300D00", "03300D01", "03300400", "03300401", "03010000",
    "03010101", "030B0201", "030E0301", "03070000", "03070001", "1D000001", "1E000001",
    "04000101", "04000102", "04000103", "0400010C", "04000306", "04000307", "04000402", "04000403", "04000409",
    "0400040B", "04000501", "04000503", "04000507", "040005FF", "04000601", "04000901", "04000A02", "04000B01",
    *(f"0506{c}01" for c in ("00", "01", "02", "03", "08", "09", "0A", "10", "FF")),
    "05040005", "05040105", "05040205", "0504FF01",
]  # fmt: skip


@pytest.fixture(scope="module")
def shared() -> Bench:
    """A meter that is only read."""
    return Bench()


@pytest.fixture(scope="module")
def shared_1997() -> Bench:
    """The same of 1997."""
    return Bench(version="1997")


@pytest.mark.parametrize("di", EVERY_ITEM)
def test_every_item_decodes_without_a_fault(shared: Bench, di: str) -> None:
    assert shared.values(di)


@pytest.mark.parametrize(
    "di",
    ["9010", "901F", "902F", "911F", "941F", "981F", "A01F", "B01F", "B210", "B212", "B310", "B611", "B61F", "B62F",
     "B63F", "B64F", "B65F", "B6FF", "C010", "C011", "C032", "C111", "C117", "C510", "C511"],
)  # fmt: skip
def test_every_item_of_1997_decodes_without_a_fault(shared_1997: Bench, di: str) -> None:
    assert shared_1997.values(di, "1997")


def test_values_are_the_meters_own_to_the_last_digit() -> None:
    bench = Bench()
    live = bench.values("0203FF00")
    for part in ("total", "a", "b", "c"):
        truth = bench.meter.value(f"active_power_{part}", NOW)
        assert abs(float(str(live[f"active_power_{part}"])) - truth) <= 0.00005
    registers = bench.values("0001FF00")
    total = bench.meter.value("forward_active_total", NOW)
    assert 0 <= total - float(str(registers["total"])) < 0.01
    tariffs = sum(Decimal(str(registers[f"tariff_{i}"])) for i in range(1, 5))
    assert abs(tariffs - Decimal(str(registers["total"]))) <= Decimal("0.04")
    assert bench.values("0400010C")["date_time"] == bench.local()
    assert str(bench.values("04000402")["meter_number"]) == ADDRESS


def test_a_single_phase_meter_fills_the_other_phases() -> None:
    bench = Bench(wiring="1P", ct_ratio=10.0)
    volts = bench.values("0201FF00")
    assert volts["voltage_a"] is not None and volts["voltage_b"] is None and volts["voltage_c"] is None


def test_daily_freezes_and_settlements_are_registers_of_their_instants() -> None:
    bench = Bench()
    for back in (1, 2, 40):
        at = day_start(DAY - back + 1)
        freeze = bench.values(f"050601{back:02X}")
        assert 0 <= bench.meter.value("forward_active_total", at) - float(str(freeze["total"])) < 0.01
        assert bench.values(f"050600{back:02X}")["freeze_time"] == bench.meter.clock.local(at)
    month = bench.meter.settlement_us(NOW, 1)
    assert month is not None
    settled = float(str(next(iter(bench.values("00010001").values()))))
    assert 0 <= bench.meter.value("forward_active_total", month) - settled < 0.01
    assert bench.send(ask.read(ADDRESS, "0001000C")).data == b"\x02"  # type: ignore[union-attr]


@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("cls", [1, 2, 3, 4, 5, 6])
def test_load_records_are_the_curve_at_their_labels(cls: int, block: bool) -> None:
    bench = Bench(block=block)
    start = bench.local().replace(hour=8, minute=0, second=0) - timedelta(days=1)
    payload = bench.loads(f"06{cls:02X}0001", 12, start)
    table = decode_loads(payload, cls)[cls]
    labels = [start + timedelta(minutes=15 * i) for i in range(12)]
    assert [EPOCH + timedelta(microseconds=int(t)) for t in table.time_us] == labels
    times = np.array([bench.meter.clock.true_us(label) for label in labels])
    for i, column in enumerate(table.columns):
        assert column.quantity is not None
        truth = bench.meter.series(column.quantity, times)
        assert np.allclose(table.value[:, i], truth, atol=1.01 * 10.0**-column.decimals)


def test_all_classes_come_in_one_block_and_the_memory_has_an_end() -> None:
    bench = Bench()
    tables = decode_loads(bench.loads("06000001", 3, bench.local() - timedelta(hours=3)), 0)
    assert sorted(tables) == [1, 2, 3, 4, 5, 6] and len(tables[4].time_us) == 3
    first = decode_loads(bench.loads("06020000", 1, None), 2)[2].time_us[0]
    oldest = bench.local() - timedelta(days=3)
    assert timedelta(0) <= EPOCH + timedelta(microseconds=int(first)) - oldest < timedelta(minutes=15)
    last = decode_loads(bench.loads("06020002", 2, None), 2)[2].time_us[-1]
    newest = EPOCH + timedelta(microseconds=int(last))
    assert timedelta(0) <= bench.local() - newest < timedelta(minutes=15)
    assert bench.loads("06020001", 4, bench.local() + timedelta(hours=1)) == b""


def test_silent_on_what_is_not_for_it() -> None:
    bench = Bench()
    good = ask.read(ADDRESS, "00010000").encode()
    broken = good[:-2] + bytes(((good[-2] + 1) & 0xFF,)) + good[-1:]
    assert bench.send(broken) is None
    assert bench.send(ask.read("202600000102", "00010000")) is None
    assert bench.send(make_frame(BROADCAST, 0x11, b"\0\0\1\0")) is None
    assert bench.send(make_frame(ANY, 0x1C, bytes(16))) is None
    reply = bench.send(ask.read("AAAAAAAA0101", "00010000"))
    assert reply is not None and reply.address == ADDRESS
    assert bench.send(ask.read_address()).data == bytes.fromhex(ADDRESS)[::-1]  # type: ignore[union-attr]
    halves = [bench.session.receive(part, bench.now) for part in (b"\xfe\xfe" + good[:9], good[9:])]
    assert [len(r) for r in halves] == [0, 1]


def test_a_wrong_follow_on_ends_the_chain_and_a_repeated_one_repeats() -> None:
    bench = Bench()
    first = bench.send(ask.read(ADDRESS, "0506FF01"))
    assert first is not None and first.follow_on and first.control == 0xB1
    parts = [bench.send(ask.read_follow_on(ADDRESS, "0506FF01", n)) for n in (1, 1)]
    assert parts[0] is not None and parts[0] == parts[1] and parts[0].data[-1] == 1
    bench.send(ask.read(ADDRESS, "02010100"))
    assert bench.send(ask.read_follow_on(ADDRESS, "0506FF01", 1)).control == 0xD2  # type: ignore[union-attr]


def test_broadcast_time_follows_the_five_minute_rule_once_a_day() -> None:
    bench = Bench()
    bench.meter.clock.disturb(NOW - US, offset_s=200)
    assert bench.send(ask.set_time(bench.local() - timedelta(seconds=200))) is None
    assert abs(bench.meter.clock.offset_us(bench.now)) <= US
    bench.meter.clock.disturb(bench.now, offset_s=100)
    bench.send(ask.set_time(bench.local() - timedelta(seconds=100)))
    assert bench.meter.clock.offset_us(bench.now) > 99 * US  # a second time on one day
    bench.now += 86_400 * US
    bench.meter.clock.disturb(bench.now, offset_s=400)
    bench.send(ask.set_time(bench.local() - timedelta(seconds=500)))
    assert bench.meter.clock.offset_us(bench.now) > 499 * US  # more than five minutes
    assert bench.values("03300400") and bench.meter.counters["clock_set"] == 1


def test_freeze_now_and_by_pattern() -> None:
    bench = Bench()
    assert bench.send(ask.freeze(BROADCAST)) is None
    assert bench.values("05010001")["freeze_time"] == bench.local().replace(second=0)
    assert bench.send(ask.freeze(ADDRESS, minute=30)).control == 0x96  # type: ignore[union-attr]
    bench.now += 3 * 3600 * US
    assert bench.values("05000001")["freeze_time"] == bench.local().replace(second=0, minute=30) - timedelta(hours=1)
    assert bench.values("05000003")
    assert bench.send(ask.read(ADDRESS, "05000104")).abnormal  # type: ignore[union-attr]


def test_writing_needs_the_password_and_locks_after_three_wrong_ones() -> None:
    bench = Bench()
    wrong = Access(level="02", password="111111", operator="00000000")
    write = ask.write(ADDRESS, "04000103", b"\x30", wrong)
    for _ in range(3):
        assert bench.send(write).data == b"\x04"  # type: ignore[union-attr]
    assert bench.send(ask.write(ADDRESS, "04000103", b"\x30", ACCESS)).data == b"\x04"  # type: ignore[union-attr]
    bench.now += 86_400 * US
    assert bench.send(ask.write(ADDRESS, "04000103", b"\x30", ACCESS)).control == 0x94  # type: ignore[union-attr]
    assert bench.values("04000103")["demand_period"] == 30
    assert bench.values("03300000")["programming_count"] == 1
    new = Access(level="02", password="777777", operator="00000000")
    assert bench.send(ask.change_password(ADDRESS, ACCESS, new)).control == 0x98  # type: ignore[union-attr]
    assert bench.send(ask.clear_demand(ADDRESS, ACCESS)).data == b"\x04"  # type: ignore[union-attr]
    assert bench.send(ask.clear_demand(ADDRESS, new)).control == 0x99  # type: ignore[union-attr]
    assert bench.meter.value("forward_active_demand", bench.now) == 0


def test_address_and_rate_are_changed_and_unknown_functions_refused() -> None:
    bench = Bench()
    assert bench.send(ask.change_rate(ADDRESS, 9600)).data == b"\x20"  # type: ignore[union-attr]
    assert bench.send(make_frame(ADDRESS, 0x1E)).control == 0xDE  # type: ignore[union-attr]
    assert bench.send(make_frame(ADDRESS, 0x03, b"\xff\0\0\x07" + bytes(4))).data == b"\x08\x00"  # type: ignore[union-attr]
    reply = bench.send(ask.write_address("000000000777"))
    assert reply is not None and reply.address == "000000000777"
    assert bench.send(ask.read(ADDRESS, "02010100")) is None


def control(bench: Bench, action: str, minutes: int = 10, access: Access = ACCESS, n2: int = 0) -> Frame | None:
    return bench.send(ask.control(ADDRESS, action, access, bench.local() + timedelta(minutes=minutes), n2=n2))


def test_a_trip_removes_the_load_and_closing_waits_for_the_button() -> None:
    bench = Bench()
    before = bench.site.power(np.array([NOW]))[0]
    share = bench.site.power_by_component(np.array([NOW]))[1, 0]
    reply = control(bench, "trip")
    assert reply is not None and (reply.control, reply.data) == (0x9C, b"")
    assert bench.site.power(np.array([NOW]))[0] == pytest.approx(before - share)
    assert bench.meter.status_word(3) & 0x50 == 0x50
    assert bench.values("1D000001")["trip_count"] == 1
    assert control(bench, "permit_close") is not None
    assert bench.meter.status_word(3) & 0x50 == 0x10
    bench.now += 21 * US
    assert bench.values("04000503") and bench.meter.status_word(3) & 0x50 == 0


def test_trips_are_refused_when_late_unauthorised_or_kept() -> None:
    bench = Bench()
    assert control(bench, "trip", minutes=-1).control == 0xDC  # type: ignore[union-attr]
    wrong = Access(level="02", password="000001", operator="00000000")
    assert control(bench, "trip", access=wrong).data == b"\x04"  # type: ignore[union-attr]
    cipher = make_frame(ADDRESS, 0x1C, b"\x98" + bytes(15))
    assert bench.send(cipher).data == b"\x04"  # type: ignore[union-attr]
    assert control(bench, "protect_on").control == 0x9C  # type: ignore[union-attr]
    assert control(bench, "trip").control == 0xDC  # type: ignore[union-attr]
    assert bench.meter.status_word(3) & (1 << 12)
    assert control(bench, "protect_off").control == 0x9C  # type: ignore[union-attr]
    bench.meter.clock.disturb(bench.now, offset_s=3600)
    late = ask.control(ADDRESS, "trip", ACCESS, bench.local() - timedelta(minutes=50))
    assert bench.send(late).control == 0xDC  # type: ignore[union-attr]
    assert not bench.meter.relays[0].contact_open


def test_a_trip_with_automatic_closing_ends_by_itself_and_the_short_form_is_known() -> None:
    bench = Bench()
    assert control(bench, "trip_auto_close", n2=1).control == 0x9C  # type: ignore[union-attr]
    bench.now += 299 * US
    bench.meter.advance(bench.now)
    assert bench.meter.relays[0].contact_open
    bench.now += 2 * US
    bench.meter.advance(bench.now)
    assert not bench.meter.relays[0].contact_open
    short = ask.control(ADDRESS, "trip", ACCESS, None, short_form=True)
    assert bench.send(short).control == 0x9C and bench.meter.relays[0].contact_open
    assert control(bench, "alarm_on").control == 0x9C and bench.meter.status_word(3) & 0x80


def test_1997_writes_rereads_and_sets_its_clock() -> None:
    bench = Bench(version="1997")
    first = bench.send(ask.read(ADDRESS, "901F", "1997"))
    again = bench.send(make_frame(ADDRESS, 0x03))
    assert first is not None and again is not None and (again.control, again.data) == (0x83, first.data)
    target = date(2025, 8, 9)
    wire = b"\x06" + bytes((0x09, 0x08, 0x25))
    assert bench.send(ask.write(ADDRESS, "C010", wire, ACCESS, "1997")).control == 0x84  # type: ignore[union-attr]
    assert bench.local().date() == target
    assert bench.send(ask.read(ADDRESS, "9999", "1997")).control == 0xC1  # type: ignore[union-attr]


def test_two_meters_that_match_a_wildcard_collide() -> None:
    first, second = Bench(), Bench()
    second.meter.address = "202600000102"
    line = DltLine([first.slave, DltSlave(second.meter)]).session()
    replies = line.receive(ask.read_address().encode(), NOW)
    assert len(replies) == 1 and not cut(replies[0].data)[0]
