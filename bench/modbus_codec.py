"""Modbus: CPU of one read of 20 float values through our exchange, beside pymodbus on the same frames.

Our side does the whole work of a poll: open the exchange, build the request, match the reply, arrays of values in the
quantity's unit with quality, time and source. The codec peers stop at a list of registers, or at a list of floats made
by pymodbus's own function. The client peer is pymodbus's asyncio client; beside it a bare asyncio protocol drives our
exchange against the same responder.
"""

from __future__ import annotations

import asyncio
import functools
import math
import struct
import time
from collections.abc import Callable

import numpy as np
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.framer import FRAMER_NAME_TO_CLASS, FramerType
from pymodbus.pdu import DecodePDU
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest

from fuhe.acquisition.profile import Profile, Timing
from fuhe.acquisition.sessions.modbus import open_exchange
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.work import Duty, Priority, WorkItem
from fuhe.protocols.modbus.crc import with_crc
from fuhe.protocols.modbus.frame import Frame, MbapFramer, RtuFramer
from fuhe.protocols.modbus.maps import load_map

Row = dict[str, object]
NOW = 1_800_000_000_000_000
VALUES = 20
COUNT = 2 * VALUES
# The first 20 values of the map lie side by side: 40 registers from address 1, function 03.
MAP = "siemens-pac3200"
ITEMS = tuple(r.name for r in load_map(MAP).registers if r.address < 1 + COUNT)
PROFILE = Profile(name="b", title_en="b", title_zh="b", protocol="modbus", map=MAP, timing=Timing())
CREDENTIALS = Credentials()
ITEM = WorkItem(device=1, duty=Duty.LIVE, priority=Priority.LIVE, expires_s=math.inf, items=ITEMS)
PAYLOAD = np.linspace(100, 400, VALUES).astype(">f4").tobytes()


def _device(framing: str, number: int = 1) -> Device:
    return Device(
        id=number, name="b", link="b", profile="b", address="1", points=(Point(id=number, name="b"),),
        options={"framing": framing},
    )  # fmt: skip


def _us(function: Callable[[], object], repeats: int) -> float:
    """CPU microseconds a call, the best of five runs."""
    best = math.inf
    for _ in range(5):
        begin = time.process_time()
        for _ in range(repeats):
            function()
        best = min(best, time.process_time() - begin)
    return best / repeats * 1e6


def _ours(framing: str) -> Callable[[], object]:
    device = _device(framing)
    body = bytes((1, 3, 2 * COUNT)) + PAYLOAD
    rtu = with_crc(body)
    tail = struct.pack(">HH", 0, len(body)) + body

    def poll() -> object:
        exchange = open_exchange(device, PROFILE, ITEM, CREDENTIALS)
        request = exchange.next_request(NOW)
        assert request is not None
        exchange.receive(rtu if framing == "rtu" else request.data[:2] + tail, NOW)
        exchange.next_request(NOW)
        return exchange.outcome(NOW)

    return poll


def _theirs(framing: str, with_floats: bool) -> Callable[[], object]:
    kind = FramerType.RTU if framing == "rtu" else FramerType.SOCKET
    framer = FRAMER_NAME_TO_CLASS[kind](DecodePDU(False))
    body = bytes((1, 3, 2 * COUNT)) + PAYLOAD
    reply = with_crc(body) if framing == "rtu" else struct.pack(">HHH", 1, 0, len(body)) + body
    convert, float32 = ModbusClientMixin.convert_from_registers, ModbusClientMixin.DATATYPE.FLOAT32

    def poll() -> object:
        framer.buildFrame(ReadHoldingRegistersRequest(address=1, count=COUNT, dev_id=1, transaction_id=1))
        _, pdu = framer.handleFrame(reply, 1, 1)
        assert pdu is not None
        registers = list(pdu.registers)
        return convert(registers, float32) if with_floats else registers

    return poll


class _Responder(asyncio.Protocol):
    """Answers every whole request at once; the same for both clients."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), 12):
            body = data[start + 6 : start + 8] + bytes((2 * COUNT,)) + PAYLOAD
            self._transport.write(data[start : start + 2] + struct.pack(">HH", 0, len(body)) + body)


class _Poller(asyncio.Protocol):
    """One exchange after another on one connection."""

    def __init__(self, device: Device, polls: int, done: asyncio.Future[int]) -> None:
        self._device, self._left, self._done, self._values = device, polls, done, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._begin()

    def _begin(self) -> None:
        self._exchange = open_exchange(self._device, PROFILE, ITEM, CREDENTIALS)
        self._go()

    def _go(self) -> None:
        request = self._exchange.next_request(NOW)
        if request is not None:
            self._transport.write(request.data)
            return
        batch = self._exchange.outcome(NOW).batch
        self._values += batch.value_count if batch is not None else 0
        self._left -= 1
        if self._left:
            self._begin()
        else:
            self._transport.close()
            self._done.set_result(self._values)

    def data_received(self, data: bytes) -> None:
        if self._exchange.receive(data, NOW):
            self._go()


async def _loops(connections: int, polls: int) -> tuple[float, float, float]:
    """CPU µs a request of (our exchange on a bare socket, pymodbus client to registers, and to floats)."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Responder, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    total = connections * polls

    begin = time.process_time()
    waiting = []
    for number in range(1, connections + 1):
        done: asyncio.Future[int] = loop.create_future()
        device = _device("tcp", number)
        await loop.create_connection(functools.partial(_Poller, device, polls, done), "127.0.0.1", port)
        waiting.append(done)
    counts = await asyncio.gather(*waiting)
    ours = time.process_time() - begin
    if sum(counts) != total * VALUES:
        raise RuntimeError("values were lost")

    async def client(with_floats: bool) -> None:
        peer = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=5, retries=0, reconnect_delay=0)
        await peer.connect()
        for _ in range(polls):
            reply = await peer.read_holding_registers(1, count=COUNT, device_id=1)
            if with_floats:
                peer.convert_from_registers(reply.registers, peer.DATATYPE.FLOAT32)
        peer.close()

    theirs = []
    for with_floats in (False, True):
        begin = time.process_time()
        await asyncio.gather(*(client(with_floats) for _ in range(connections)))
        theirs.append(time.process_time() - begin)
    server.close()
    await server.wait_closed()
    return ours / total * 1e6, theirs[0] / total * 1e6, theirs[1] / total * 1e6


def _framing(quick: bool) -> list[Row]:
    """Frames a second of the framers over a whole buffer of replies."""
    body = bytes((1, 3, 2 * COUNT)) + PAYLOAD
    count = 200 if quick else 500
    rows: list[Row] = []
    for name, framer, reply in (
        ("RTU framer, 85-byte replies", RtuFramer("reply"), with_crc(body)),
        ("MBAP framer, 89-byte replies", MbapFramer("reply"), struct.pack(">HHH", 1, 0, len(body)) + body),
    ):
        stream = reply * count

        def cut(framer: RtuFramer | MbapFramer = framer, stream: bytes = stream) -> None:
            framer.feed(stream)
            for _ in range(count):
                if not isinstance(framer.next_event(), Frame):
                    raise RuntimeError("a frame was lost")

        each = _us(cut, 2 if quick else 20) / count
        rows.append(_row(name, 1e6 / each, "frames/s"))
    return rows


def _row(
    name: str, value: float, unit: str, peer: str | None = None, ratio: float | None = None, target: str | None = None
) -> Row:
    return {
        "bench": "modbus_codec", "name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio,
        "target": target,
    }  # fmt: skip


def run(quick: bool = False) -> list[Row]:
    """Rows of figures; ratios are of this run."""
    assert len(ITEMS) == VALUES
    repeats = 300 if quick else 4000
    rows: list[Row] = []
    for framing in ("tcp", "rtu"):
        ours = _us(_ours(framing), repeats)
        bare = _us(_theirs(framing, False), repeats)
        floats = _us(_theirs(framing, True), repeats)
        name = f"exchange of 20 values, {framing.upper()}, CPU"
        rows.append(_row(name, ours, "µs/request", f"pymodbus codec to floats {floats:.0f} µs", ours / floats))
        rows.append(_row(name, ours, "µs/request", f"pymodbus codec to registers {bare:.0f} µs", ours / bare))
        rows.append(
            _row(f"values through the exchange, {framing.upper()}", VALUES / ours * 1e6, "values/s", "one core")
        )
    connections, polls = (10, 30) if quick else (50, 400)
    socket_us, client_us, floats_us = asyncio.run(_loops(connections, polls))
    name = f"exchange on bare sockets, {connections} connections, CPU with responder"
    rows.append(
        _row(
            name,
            socket_us,
            "µs/request",
            f"pymodbus client to floats {floats_us:.0f} µs",
            socket_us / floats_us,
            "≤ 0.8",
        )
    )
    rows.append(
        _row(
            name,
            socket_us,
            "µs/request",
            f"pymodbus client to registers {client_us:.0f} µs",
            socket_us / client_us,
            "≤ 0.8",
        )
    )
    rows.append(
        _row(
            "values at full speed, one process with responder",
            VALUES / socket_us * 1e6,
            "values/s",
            None,
            None,
            "≥ 150,000",
        )
    )
    return rows + _framing(quick)
