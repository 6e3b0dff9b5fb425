"""Requests: built, explained, refused; the read-only guard's view of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.decode import decode
from fuhe.protocols.dlt645 import requests as r
from fuhe.protocols.dlt645.explain import describe
from fuhe.protocols.dlt645.frame import Frame, cut
from fuhe.protocols.dlt645.items import encode_payload, lookup
from fuhe.protocols.dlt645.secrets import masked_hex
from fuhe.protocols.guard import is_write

METER = "151230011061"
ACCESS = r.Access(level="02", password="020637", operator="00000001")
UNTIL = datetime(2026, 12, 30)  # noqa: DTZ001 - device times are naive

READS: list[tuple[Frame, dict[str, object]]] = [
    (r.read(METER, "00010000"), {"function": "read", "di": "00010000", "length": 4}),
    (r.read(METER, "9010", "1997"), {"function": "read", "di": "9010", "control": "01"}),
    (r.read_follow_on(METER, "03300201", 3), {"function": "read_follow_on", "di": "03300201", "seq": 3}),
    (r.read_follow_on(METER, "901F", 1, "1997"), {"function": "read_follow_on", "di": "901F", "control": "02"}),
    (r.read_load(METER, "06020000", 5), {"count": 5, "length": 5}),
    (r.read_load(METER, "06020001", 5, UNTIL), {"count": 5, "from_time": "2026-12-30T00:00:00", "length": 10}),
    (r.read_address(), {"function": "read_address", "address": "AAAAAAAAAAAA"}),
]
WRITES: list[tuple[Frame, dict[str, object]]] = [
    (r.set_time(UNTIL), {"function": "broadcast_time", "address": "999999999999"}),
    (r.set_time(UNTIL, METER), {"function": "broadcast_time", "address": METER}),
    (r.freeze(METER), {"function": "freeze", "freeze_pattern": "99999999", "freeze": "now"}),
    (r.freeze("999999999999", minute=0, hour=0), {"freeze_pattern": "99990000", "freeze": "daily"}),
    (r.freeze(METER, minute=30, hour=1, day=28), {"freeze_pattern": "99280130", "freeze": "monthly"}),
    (r.write_address("000000000042"), {"function": "write_address", "new_address": "000000000042"}),
    (r.write(METER, "04000103", b"\x15", ACCESS), {"function": "write", "di": "04000103", "payload_hex": "15"}),
    (r.write(METER, "C111", b"\x15", ACCESS, "1997"), {"di": "C111", "password_wire": "02370602"}),
    (r.change_rate(METER, 9600), {"function": "change_rate", "rate_word": "20", "baud": 9600}),
    (r.change_rate(METER, 9600, "1997"), {"control": "0C", "rate_word": "40", "baud": 9600}),
    (r.change_password(METER, ACCESS, r.Access(level="04", password="111111")), {"new_password_level": "04"}),
    (r.change_password(METER, ACCESS, ACCESS, "1997"), {"control": "0F", "length": 8}),
    (r.clear_demand(METER, ACCESS), {"function": "clear_demand", "password_wire": "370602"}),
    (r.clear_demand(METER, ACCESS, "1997"), {"function": "clear_demand", "length": 4}),
    (r.clear_meter(METER, ACCESS), {"function": "clear_meter", "operator_wire": "01000000"}),
    (r.clear_events(METER, ACCESS, "0301FFFF"), {"function": "clear_events", "di": "0301FFFF"}),
    (r.control(METER, "trip", ACCESS, UNTIL), {"n1": "1A", "action": "trip", "n2": "00", "length": 16}),
    (r.control(METER, "trip_auto_close", ACCESS, UNTIL, n2=3), {"n1": "1D", "duration_min": 15}),
    (r.control(METER, "direct_close", ACCESS, None, short_form=True), {"n1": "1C", "length": 9}),
    (r.multifunction_output(METER, 2), {"function": "multifunction_output", "output": "slot_switch"}),
]
WRITES += [
    (r.control(METER, a, ACCESS, UNTIL), {"action": a, "valid_until": "2026-12-30T00:00:00", "password_level": "02"})
    for a in ("trip", "permit_close", "direct_close", "alarm_on", "alarm_off", "protect_on", "protect_off")
]


@pytest.mark.parametrize(("frame", "expected"), READS + WRITES)
def test_explained_as_built(frame: Frame, expected: dict[str, object]) -> None:
    version = "1997" if frame.control in (0x01, 0x02, 0x04, 0x0C, 0x0F, 0x10) else "2007"
    wire = frame.encode(4)
    assert cut(wire)[0] == [Frame(frame.wire_address, frame.control, frame.data, 4)]
    got = describe(wire, version, secrets=True)
    assert {k: got.get(k) for k in expected} == expected


@pytest.mark.parametrize("frame", [f for f, _ in READS])
def test_reads_pass_the_guard(frame: Frame) -> None:
    assert not is_write("dlt645", frame.encode(4))
    assert is_write("dlt645", frame.encode(4) + b"\x00")
    assert is_write("dlt645", frame.encode(4)[:-1])
    assert is_write("dlt645", frame.encode() + r.freeze(METER).encode())
    assert is_write("mqtt", frame.encode()) and is_write("no such protocol", frame.encode())


@pytest.mark.parametrize("frame", [f for f, _ in WRITES])
def test_writes_do_not_pass_the_guard(frame: Frame) -> None:
    assert is_write("dlt645", frame.encode(4))


@pytest.mark.parametrize(
    "data", [b"", b"\xfe\xfe", b"hello", bytes(range(40)), Frame(bytes(6), 0x03, bytes(8)).encode()]
)
def test_what_is_not_a_read_is_a_write(data: bytes) -> None:
    assert is_write("dlt645", data)
    assert is_write("modbus", data)


def test_modbus_through_the_same_guard() -> None:
    assert not is_write("modbus-rtu", bytes.fromhex("01040000000271CB"))
    assert not is_write("modbus-tcp", bytes.fromhex("000100000006010300000002"))
    assert is_write("modbus-tcp", bytes.fromhex("000100000006010600000002"))
    assert is_write("modbus-rtu", bytes.fromhex("01060000000271CB"))


@pytest.mark.parametrize(
    "build",
    [
        lambda: r.write("AAAAAAAAAAAA", "04000103", b"\x15", ACCESS),
        lambda: r.control("AAAAAAAA1061", "trip", ACCESS, UNTIL),
        lambda: r.control("999999999999", "trip", ACCESS, UNTIL),
        lambda: r.control(METER, "trip", ACCESS, None),
        lambda: r.control(METER, "explode", ACCESS, UNTIL),
        lambda: r.control(METER, "trip_auto_close", ACCESS, UNTIL),
        lambda: r.clear_meter("AAAAAAAAAAAA", ACCESS),
        lambda: r.change_rate(METER, 9601),
        lambda: r.change_rate(METER, 19200, "1997"),
        lambda: r.clear_events(METER, ACCESS, "03010000"),
        lambda: r.freeze(METER, hour=3),
        lambda: r.freeze(METER, minute=60),
        lambda: r.read(METER, "0001"),
        lambda: r.read(METER, "000100GG"),
        lambda: r.read_follow_on(METER, "00010000", 0),
        lambda: r.read_load(METER, "06020001", 0),
        lambda: r.read_load(METER, "06020001", 1, datetime(1999, 1, 1)),  # noqa: DTZ001
        lambda: r.write(METER, "04000403", bytes(60), ACCESS),
        lambda: r.write(METER, "04000103", b"\x15", r.Access(password="12345")),
        lambda: r.write(METER, "04000103", b"\x15", r.Access(password="12345A")),
        lambda: r.write(METER, "04000103", b"\x15", r.Access(level="98")),
        lambda: r.write(METER, "04000103", b"\x15", r.Access(operator="1")),
        lambda: r.multifunction_output(METER, 3),
        lambda: r.write_address("AAAAAAAAAAAA"),
        lambda: r.bcd_payload("12A4"),
        lambda: r.bcd_payload("123"),
    ],
)
def test_illegal_requests_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        build()


def test_the_published_trip_frame_is_what_we_send() -> None:
    frame = r.control(METER, "trip", ACCESS, datetime(2099, 12, 30))  # noqa: DTZ001
    assert frame.encode(0).hex().upper() == "68611001301215681C10356A3935343333334D333333336345CC2C16"


def test_secrets_are_hidden_unless_asked_for() -> None:
    for frame, _ in WRITES:
        version = "1997" if frame.control in (0x04, 0x0F, 0x10) else "2007"
        shown = describe(frame.encode(), version)
        assert "370602" not in str(shown), shown
    log = masked_hex(r.control(METER, "trip", ACCESS, UNTIL))
    assert log.count("**") == 5 and "6A3935" not in log
    password = r.write(METER, "04000C03", bytes.fromhex("02370602"), ACCESS)
    assert describe(password.encode())["payload_hex"] == "**"
    assert repr(ACCESS).count("020637") == 0


def test_a_written_parameter_is_shown_as_values() -> None:
    item = lookup("04000106")
    assert item is not None
    frame = r.write(METER, "04000106", encode_payload(item, ["2026-12-30T00:00:00"]), ACCESS)
    got = decode("dlt645", frame.encode())
    assert got["values"] == [{"name": "zone_table_switch_time", "value": "2026-12-30T00:00:00", "unit": ""}]
