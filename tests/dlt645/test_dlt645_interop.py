"""Against an independent implementation over real loopback sockets: the `dlt645` package as meter and as master.

The package sends addresses in reading order instead of low byte first; the quirk `address_order = "reversed"` is for
such peers.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from datetime import datetime

import pytest
from dlt645 import Demand, MeterClientService, MeterServerService

from fuhe.acquisition.profile import Profile, ReadPlan, Timing
from fuhe.acquisition.sessions import open_exchange
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.quantities import by_id
from fuhe.model.times import business_to_us
from fuhe.model.work import Duty, Outcome, Priority, Status, WorkItem
from fuhe.protocols.common.framer import NEED_MORE
from fuhe.protocols.decode import decode
from fuhe.protocols.dlt645 import requests
from fuhe.protocols.dlt645.explain import describe_frame
from fuhe.protocols.dlt645.frame import Frame, Framer
from fuhe.protocols.dlt645.items import encode_payload, lookup

METER = "123456789012"
NOW_US = business_to_us(datetime(2026, 5, 20, 10, 7, 3))  # noqa: DTZ001
ITEMS = ("00010000", "02010100", "02020100", "02030000", "02060000", "01010000", "04000306", "00FE0000")


@pytest.fixture
def their_meter() -> Iterator[tuple[str, int]]:
    """The package's server on a free port."""
    server = MeterServerService.new_tcp_server("127.0.0.1", 0, 5.0)
    server.set_address(METER)
    server.set_00(0x00010000, 1234.56)
    server.set_01(0x01010000, Demand(value=1.2345, time=datetime(2026, 5, 1, 13, 45)))  # noqa: DTZ001
    server.set_02(0x02010100, 231.4)
    server.set_02(0x02020100, 4.999)
    server.set_02(0x02030000, 1.2345)
    server.set_02(0x02060000, 0.985)
    server.start()
    try:
        yield "127.0.0.1", server.server.port
    finally:
        server.stop()


def converse(work: WorkItem, profile: Profile, where: tuple[str, int]) -> Outcome:
    """Our exchange over a socket; every request waits half a second at most."""
    device = Device(id=1, name="m", link="l", profile="t", address=METER, points=(Point(id=3, name="p"),))
    exchange = open_exchange(device, profile, work, Credentials())
    with socket.create_connection(where, 5) as line:
        line.settimeout(2)
        for _ in range(100):
            request = exchange.next_request(NOW_US)
            if request is None:
                return exchange.outcome(NOW_US)
            line.sendall(request.data)
            try:
                while not exchange.receive(line.recv(4096), NOW_US):
                    pass
            except TimeoutError:
                exchange.silence(NOW_US)
    raise AssertionError("the exchange does not end")


def test_our_master_reads_their_meter(their_meter: tuple[str, int]) -> None:
    profile = Profile(
        name="t", title_en="t", title_zh="t", protocol="dlt645", version="2007", timing=Timing(retries=0),
        read={Duty.LIVE: ReadPlan(items=ITEMS[:5])}, quirks={"address_order": "reversed"},
    )  # fmt: skip
    work = WorkItem(device=1, duty=Duty.LIVE, priority=Priority.LIVE, expires_s=1e9)
    outcome = converse(work, profile, their_meter)
    assert outcome.status is Status.DONE and outcome.batch is not None and outcome.batch.samples is not None
    s = outcome.batch.samples
    got = {by_id()[int(q)].name: float(v) for q, v in zip(s.quantity, s.value, strict=True)}
    assert got == {
        "forward_active_total": 1234.56, "voltage_a": 231.4, "current_a": 4.999, "active_power_total": 1.2345,
        "power_factor_total": 0.985,
    }  # fmt: skip


def test_their_meter_refuses_what_it_lacks(their_meter: tuple[str, int]) -> None:
    with socket.create_connection(their_meter, 5) as line:
        line.settimeout(2)
        frame = requests.read(METER, "00550000")
        line.sendall(Frame(frame.wire_address[::-1], frame.control, frame.data).encode(4))
        answer = decode("dlt645", line.recv(4096))
    assert answer["abnormal"] is True and answer["error_bits"]


class OurMeter(threading.Thread):
    """A meter made of our framer and tables, on a loopback socket; serves one master until it hangs up."""

    def __init__(self, content: dict[str, list[object]]) -> None:
        super().__init__(daemon=True)
        self.content = content
        self.heard: list[Frame] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]

    def run(self) -> None:
        with contextlib.suppress(OSError), self.listener:
            line, _ = self.listener.accept()
            framer = Framer()
            with line:
                line.settimeout(10)
                while data := line.recv(4096):
                    framer.feed(data)
                    while (event := framer.next_event()) is not NEED_MORE:
                        if isinstance(event, Frame):
                            self.heard.append(event)
                            line.sendall(self.answer(event).encode(1))

    def answer(self, request: Frame) -> Frame:
        """A reply from the tables, or ERR 02."""
        if request.function == 0x13:
            return Frame(request.wire_address, 0x93, bytes.fromhex(METER))
        if request.function != 0x11:
            return Frame(request.wire_address, request.control | 0x80, b"")
        di = request.data[:4][::-1].hex()
        item = lookup(di)
        if item is None or di not in self.content:
            return Frame(request.wire_address, request.control | 0xC0, b"\x02")
        payload = encode_payload(item, self.content[di])  # type: ignore[arg-type]
        return Frame(request.wire_address, request.control | 0x80, request.data[:4] + payload)


def test_their_master_reads_our_meter() -> None:
    meter = OurMeter({"00010000": ["1234.56"], "02010100": ["231.4"], "02020100": ["4.999"], "02030000": ["1.2345"]})
    meter.start()
    client = MeterClientService.new_tcp_client("127.0.0.1", meter.port, 5.0)
    try:
        assert client.set_address(METER)
        for read, di, value in (
            (client.read_00, 0x00010000, 1234.56),
            (client.read_02, 0x02010100, 231.4),
            (client.read_02, 0x02020100, 4.999),
            (client.read_02, 0x02030000, 1.2345),
        ):
            item = read(di)
            assert item is not None and item.value == pytest.approx(value)
        assert client.read_00(0x00020000) is None  # refused by us, understood by them
    finally:
        client.disconnect()
        meter.join(10)
    assert not meter.is_alive()
    explained = [describe_frame(f) for f in meter.heard]
    assert [e["di"] for e in explained] == ["00010000", "02010100", "02020100", "02030000", "00020000"]
    # address in reading order on their wire: shown reversed
    assert {e["address"] for e in explained} == {"129078563412"}
