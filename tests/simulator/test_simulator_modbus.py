"""The Modbus slave: registers of every map, exceptions, silence, relay coils; pymodbus as the client."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient

from fuhe.model.quantities import by_name
from fuhe.model.times import US
from fuhe.protocols.modbus.crc import with_crc
from fuhe.protocols.modbus.maps import load_map, map_names
from fuhe.protocols.modbus.words import decode_value
from fuhe.simulator.clock import StepClock
from fuhe.simulator.faults import Fault, FaultSet
from fuhe.simulator.load import Component, Site, day_start
from fuhe.simulator.meter import SimMeter
from fuhe.simulator.modbus import Framing, ModbusLine, ModbusSlave
from fuhe.simulator.observer import Observer
from fuhe.simulator.relay import Relay
from fuhe.simulator.shapes import shapes
from fuhe.simulator.transports import TcpBus

NOW = day_start(20_300) + 36_000 * US


def make_slave(name: str = "eastron-sdm630", *faults: Fault, unit: int = 1, relay: bool = False) -> ModbusSlave:
    armed = FaultSet("m", 1)
    for fault in faults:
        armed.add(fault, NOW)
    site = Site(
        components=(Component(kw=20, flat=True), Component(kw=60)), shape=shapes()["office"], seed=4,
        origin_us=day_start(20_298),
    )  # fmt: skip
    relays = [Relay(component=1, site=site, faults=armed)] if relay else []
    meter = SimMeter(name="m", address=str(unit), site=site, faults=armed, seed=9, relays=relays, ct_ratio=20)
    return ModbusSlave(meter, load_map(name), unit, relay_coil=0 if relay else None)


def tcp(pdu: bytes, unit: int = 1, transaction: int = 7) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


def read(function: int, start: int, count: int) -> bytes:
    return struct.pack(">BHH", function, start, count)


@pytest.mark.parametrize("name", map_names())
def test_every_register_of_every_map_reads_back_as_the_meters_value(name: str) -> None:
    slave = make_slave(name)
    shift = 40_070 if slave.map.kind == "sunspec" else 0
    for register in slave.map.registers:
        if register.use != "reading" or register.name not in by_name():
            continue
        pdu = slave.answer(read(register.function, register.address + shift, register.count), NOW)
        assert pdu is not None and pdu[0] == register.function, (register, pdu)
        raw = decode_value(pdu[2:], register.type, register.order, slave.map.not_available)
        truth = slave.meter.value(register.name, NOW)
        if raw is None or truth == 0:
            assert not raw or abs(raw) < 1e-6
            continue
        power = -1 if register.sf in ("A_SF", "V_SF", "PF_SF") else -2 if register.sf == "Hz_SF" else 0
        power = 2 if register.sf in ("W_SF", "VA_SF", "VAR_SF") else power
        found = raw * 10.0**power / register.quotient
        step = 10.0**power / register.quotient
        assert found == pytest.approx(truth, rel=2e-6, abs=0 if register.type.startswith("float") else step), register


def test_exceptions_of_holes_halves_counts_and_functions() -> None:
    slave = make_slave()
    answers = {
        "hole": slave.answer(read(4, 0x0100, 2), NOW),
        "half": slave.answer(read(4, 0x0001, 2), NOW),
        "cut": slave.answer(read(4, 0x0000, 3), NOW),
        "count": slave.answer(read(4, 0, 82), NOW),
        "none": slave.answer(read(4, 0, 0), NOW),
        "function": slave.answer(read(3, 0, 2), NOW),
        "unknown": slave.answer(b"\x2b\x0e\x01\x00\x00", NOW),
        "block": slave.answer(read(4, 0, 80), NOW),
    }
    codes = {k: v[1] if v and v[0] & 0x80 else 0 for k, v in answers.items()}
    assert codes == {"hole": 2, "half": 2, "cut": 2, "count": 3, "none": 3, "function": 1, "unknown": 1, "block": 0}


def test_sunspec_chain_leads_to_the_meter_model() -> None:
    slave = make_slave("sunspec-203")
    first = slave.answer(read(3, 40_000, 4), NOW)
    assert first == b"\x03\x08SunS" + struct.pack(">HH", 1, 66)
    assert slave.answer(read(3, 40_070, 2), NOW) == b"\x03\x04" + struct.pack(">HH", 203, 105)
    assert slave.answer(read(3, 40_070 + 107, 2), NOW) == b"\x03\x04\xff\xff\x00\x00"


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
def test_pipelined_requests_are_all_answered_and_strangers_met_with_silence(framing: Framing) -> None:
    line = ModbusLine({1: make_slave(), 2: make_slave(unit=2)}, framing)
    pdu = read(4, 0, 2)
    requests = [(1, 10), (9, 11), (2, 12), (1, 13)]
    if framing == "tcp":
        data = b"".join(tcp(pdu, unit, transaction) for unit, transaction in requests)
    else:
        data = b"".join(with_crc(bytes((unit,)) + pdu) for unit, _ in requests)
    replies = line.session().receive(data, NOW)
    if framing == "tcp":
        assert [struct.unpack(">H", r.data[:2])[0] for r in replies] == [10, 12, 13]
    else:
        assert [r.data[0] for r in replies] == [1, 2, 1]
    gateway = ModbusLine({1: make_slave()}, "tcp", gateway=True).session().receive(tcp(pdu, 9), NOW)
    assert gateway[0].data[7:] == b"\x84\x0b"


def test_the_relay_coil_trips_the_load_and_reads_back() -> None:
    slave = make_slave(relay=True)
    now = np.array([NOW + 1])
    full, share = slave.meter.site.power(now)[0], slave.meter.site.power_by_component(now)[1, 0]
    assert slave.answer(b"\x01\0\0\0\x01", NOW) == b"\x01\x01\x00"
    assert slave.answer(b"\x05\0\0\xff\0", NOW) == b"\x05\0\0\xff\0"
    assert slave.answer(b"\x01\0\0\0\x01", NOW) == b"\x01\x01\x01"
    assert slave.meter.site.power(now)[0] == pytest.approx(full - share)
    shown = slave.answer(read(4, 0x34, 2), NOW + 1)
    assert shown is not None
    watts = decode_value(shown[2:], "float32")
    assert watts == pytest.approx(1000 * (full - share) / 20, rel=1e-6)
    assert slave.answer(b"\x05\0\0\0\0", NOW + 2) == b"\x05\0\0\0\0"
    assert slave.answer(b"\x05\0\x01\xff\0", NOW + 2) == b"\x85\x02"
    assert slave.answer(b"\x05\0\0\x12\x34", NOW + 2) == b"\x85\x03"
    slave.meter.protected = True
    assert slave.answer(b"\x05\0\0\xff\0", NOW + 3) == b"\x85\x04"
    assert slave.answer(b"\x0f\0\0\0\x01\x01\x00", NOW + 4) == b"\x0f\0\0\0\x01"
    assert make_slave().answer(b"\x05\0\0\xff\0", NOW) == b"\x85\x01"


def test_command_faults_of_a_relay() -> None:
    def opened(kind: str) -> tuple[bytes | None, bytes | None]:
        slave = make_slave("eastron-sdm630", Fault(kind=kind, target=("m",)), relay=True)
        return slave.answer(b"\x05\0\0\xff\0", NOW), slave.answer(b"\x01\0\0\0\x01", NOW)

    assert opened("refuse") == (b"\x85\x04", b"\x01\x01\x00")
    assert opened("broken_relay") == (b"\x05\0\0\xff\0", b"\x01\x01\x00")
    assert opened("no_ack") == (None, b"\x01\x01\x01")


def test_wire_and_content_faults() -> None:
    def data(kind: str) -> bytes:
        line = ModbusLine({1: make_slave("eastron-sdm630", Fault(kind=kind, target=("m",)))}, "rtu")
        return line.session().receive(with_crc(b"\x01" + read(4, 0, 2)), NOW)[0].data

    clean = ModbusLine({1: make_slave()}, "rtu").session().receive(with_crc(b"\x01" + read(4, 0, 2)), NOW)[0].data
    assert data("fill_ff")[3:7] == b"\xff" * 4 and data("refuse_read")[1:3] == b"\x84\x04"
    assert data("wrong_address")[0] == 2 and data("duplicate") == clean * 2 and data("truncate") == clean[:-3]


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
async def test_pymodbus_reads_and_switches_the_simulated_meter(framing: Framing) -> None:
    slave = make_slave(relay=True)
    bus = TcpBus("b", ModbusLine({1: slave}, framing), StepClock(NOW), Observer(), FaultSet("b", 1))
    await bus.start()
    client = AsyncModbusTcpClient(
        "127.0.0.1", port=bus.port, framer=FramerType.SOCKET if framing == "tcp" else FramerType.RTU, timeout=3,
        retries=0, reconnect_delay=0,
    )  # fmt: skip
    try:
        assert await client.connect()
        answer = await client.read_input_registers(0x34, count=2, device_id=1)
        watts = client.convert_from_registers(answer.registers, client.DATATYPE.FLOAT32)
        assert watts == pytest.approx(1000 * slave.meter.value("active_power_total", NOW), rel=1e-6)
        assert (await client.read_input_registers(0x100, count=2, device_id=1)).exception_code == 2
        assert not (await client.write_coil(0, True, device_id=1)).isError()
        assert (await client.read_coils(0, count=1, device_id=1)).bits[0] is True
        assert slave.meter.relays[0].contact_open
    finally:
        client.close()
        await bus.stop()
