"""The acquisition engine on real sockets and pseudo-terminals, wire to journal, beside bare loops in the same run.

The responders are processes of their own, so that their CPU is not counted. CPU is this process's (all its threads: the
journal's too), and what asks for the work is counted with it; "values" are float32 readings decoded, packed and fsynced
in a real journal. The bare loops (pymodbus; asyncio and struct) only read the same 40 registers from the same
responder: no decoding, no store. They take turns with the engine, so that a busy machine weighs on all alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.io.clock import SystemClock
from fuhe.acquisition.io.engine import Engine
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.daemon.pace import settle
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.work import Duty, Outcome, Priority, Status, WorkItem
from fuhe.protocols.common.framer import NeedMore
from fuhe.protocols.dlt645.frame import Frame, Framer, make_frame
from fuhe.protocols.modbus.maps import load_map
from fuhe.storage.journal import Journal
from fuhe.storage.sink import Sink

DEVICES, VALUES, TICK_S = 200, 20, 0.1
ASKED_PER_TICK = 12  # in each tick and of each device: about three times what one core can do
IN_FLIGHT = 16  # items of a device that wait or run at full speed: more than it answers in a round of fsync
FIRST, REGISTERS = 1, 40
PROFILE = "siemens-pac3200"
ITEMS = tuple(load_map(PROFILE).readings[:VALUES])
BYTE_S = 11 / 9600
REPLY_DELAY_S = 0.02  # the least that DL/T 645 allows
METER = "dlt645-2007-3p4w"
TURNAROUND_MS = (3.0, LinkConfig(name="default", kind="serial").turnaround_ms)  # two byte times at least
LENGTHS = {"0201FF00": 6, "0202FF00": 9, "0203FF00": 12, "0204FF00": 12, "0206FF00": 8}
Row = dict[str, object]


# -- the far ends, each in a process of its own -----------------------------------------------------------------------


class _ModbusServer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        out = b""
        for start in range(0, len(data) - 11, 12):
            count = data[start + 11]
            body = b"\x43\x66\x00\x00" * (count // 2)  # 230.0 as float32
            head = data[start : start + 4] + (3 + len(body)).to_bytes(2, "big") + data[start + 6 : start + 8]
            out += head + bytes([len(body)]) + body
        self.transport.write(out)


async def _serve_modbus() -> None:
    server = await asyncio.get_running_loop().create_server(_ModbusServer, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until our parent goes


def _serve_meters() -> None:
    """Meters on one pseudo-terminal that has no baud rate: line time and reply delay are waited for here."""
    master, slave = os.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    print(os.ttyname(slave), flush=True)
    framer = Framer()
    while True:
        data = os.read(master, 4096)
        due = time.monotonic() + BYTE_S * len(data) + REPLY_DELAY_S
        framer.feed(data)
        while not isinstance(event := framer.next_event(), NeedMore):
            if not isinstance(event, Frame) or event.from_meter:
                continue
            length = LENGTHS[event.data[::-1].hex().upper()]
            reply = make_frame(event.address, 0x91, event.data + b"\x01" * length).encode(0)
            for start in range(0, len(reply), 8):
                piece = reply[start : start + 8]
                due += BYTE_S * len(piece)
                time.sleep(max(0.0, due - time.monotonic()))
                os.write(master, piece)


@contextlib.contextmanager
def far_end(kind: str) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.links", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


# -- our side ---------------------------------------------------------------------------------------------------------


def _device(number: int, link: str, profile: str, address: str) -> Device:
    point = Point(id=number, name=f"p{number}")
    return Device(id=number, name=f"d{number}", link=link, profile=profile, address=address, points=(point,))


def _modbus_engine(port: int, journal: Journal, on_outcome: Any = None, queue_items: int = 64) -> Engine:
    links = [
        LinkConfig(name=f"m{n}", kind="tcp", port_no=port, framing="tcp", queue_items=queue_items)
        for n in range(1, DEVICES + 1)
    ]
    devices = [_device(n, f"m{n}", PROFILE, "1") for n in range(1, DEVICES + 1)]
    return Engine(
        links, devices, builtin_profiles(), lambda device: Credentials(), Sink(journal), SystemClock(), lambda: False,
        on_outcome, seed=1,
    )  # fmt: skip


def _item(device: int, number: int, priority: Priority = Priority.LIVE) -> WorkItem:
    return WorkItem(
        device=device, duty=Duty.LIVE, priority=priority, expires_s=time.monotonic() + 2.0, items=ITEMS,
        window_us=(number, number),
    )  # fmt: skip


async def _all_up(engine: Engine) -> None:
    while not all(state.up for state in engine.link_states()):  # noqa: ASYNC110 - connections are counted, not awaited
        await asyncio.sleep(0.05)


async def _paced(port: int, directory: Path, seconds: float) -> tuple[float, int, int]:
    """(CPU seconds, values, values asked) of a window in which every device is read once a second, evenly spread."""
    counts = {"values": 0}
    per_tick, warm, ticks = round(DEVICES * TICK_S), round(1 / TICK_S), round((seconds + 1) / TICK_S)

    def on_outcome(item: WorkItem, outcome: Outcome) -> None:
        window = item.window_us is not None and item.window_us[0] >= warm * per_tick
        if window and outcome.batch is not None and outcome.batch.samples is not None:
            counts["values"] += len(outcome.batch.samples)

    with Journal(directory) as journal:
        engine = _modbus_engine(port, journal, on_outcome)
        await engine.start()
        await _all_up(engine)
        cpu, start, last = 0.0, time.monotonic(), []
        for tick in range(ticks):
            if tick == warm:  # the first second warms up
                cpu = time.process_time()
            first = tick * per_tick
            last = [engine.submit(_item(n % DEVICES + 1, n)) for n in range(first, first + per_tick)]
            await asyncio.sleep(max(0.0, start + (tick + 1) * TICK_S - time.monotonic()))
        await asyncio.gather(*last)
        used = time.process_time() - cpu
        await engine.stop()
    return used, counts["values"], (ticks - warm) * per_tick * VALUES


async def _pymodbus(port: int, seconds: float) -> tuple[float, int]:
    """(CPU seconds, values) of a bare pymodbus loop at the same pace."""
    from pymodbus.client import AsyncModbusTcpClient

    clients = [
        AsyncModbusTcpClient("127.0.0.1", port=port, timeout=2, retries=0, reconnect_delay=0) for _ in range(DEVICES)
    ]
    await asyncio.gather(*(client.connect() for client in clients))
    start = time.monotonic() + 0.2
    counts = {"values": 0}

    async def device(number: int, client: AsyncModbusTcpClient) -> None:
        for second in range(round(seconds) + 1):
            await asyncio.sleep(max(0.0, start + second + number / DEVICES - time.monotonic()))
            answer = await client.read_holding_registers(FIRST, count=REGISTERS, device_id=1)
            if second and not answer.isError():
                counts["values"] += VALUES

    tasks = [asyncio.create_task(device(n, client)) for n, client in enumerate(clients)]
    await asyncio.sleep(max(0.0, start + 1 - time.monotonic()))
    cpu = time.process_time()
    await asyncio.gather(*tasks)
    used = time.process_time() - cpu
    for client in clients:
        client.close()
    return used, counts["values"]


async def _bare(port: int, seconds: float) -> float:
    """CPU seconds of one read by bare asyncio protocols that never pause."""
    loop, end, count = asyncio.get_running_loop(), time.monotonic() + seconds, 0
    ask, head = struct.Struct(">HHHBBHH"), struct.Struct(">HHHBBB")

    class Client(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.ended = loop.create_future()
            self.number = 0
            self.transport.write(ask.pack(0, 0, 6, 1, 3, FIRST, REGISTERS))

        def data_received(self, data: bytes) -> None:
            nonlocal count
            number, _, _, unit, function, _ = head.unpack_from(data)
            assert (number, unit, function) == (self.number, 1, 3)
            count += 1
            if time.monotonic() >= end:
                self.transport.abort()
                self.ended.set_result(None)
                return
            self.number = (self.number + 1) & 0xFFFF
            self.transport.write(ask.pack(self.number, 0, 6, 1, 3, FIRST, REGISTERS))

    cpu = time.process_time()
    clients = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(DEVICES)]
    await asyncio.gather(*(client.ended for client in clients))
    return (time.process_time() - cpu) / count


async def _pymodbus_full(port: int, seconds: float) -> float:
    """CPU seconds of one read by bare pymodbus loops that never pause."""
    from pymodbus.client import AsyncModbusTcpClient

    clients = [
        AsyncModbusTcpClient("127.0.0.1", port=port, timeout=2, retries=0, reconnect_delay=0) for _ in range(DEVICES)
    ]
    await asyncio.gather(*(client.connect() for client in clients))
    end, count = time.monotonic() + seconds, 0

    async def device(client: AsyncModbusTcpClient) -> None:
        nonlocal count
        while time.monotonic() < end:
            await client.read_holding_registers(FIRST, count=REGISTERS, device_id=1)
            count += 1

    cpu = time.process_time()
    await asyncio.gather(*(device(client) for client in clients))
    used = time.process_time() - cpu
    for client in clients:
        client.close()
    return used / count


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _endless(device: int, number: int) -> WorkItem:
    return WorkItem(
        device=device, duty=Duty.LIVE, priority=Priority.SCHEDULED, expires_s=math.inf, items=ITEMS,
        window_us=(number, number),
    )  # fmt: skip


async def _full_speed(port: int, directory: Path, seconds: float) -> float:
    """CPU seconds of one read of a device, wire to journal, when each line always has work."""
    reads = number = 0
    running = True

    def on_outcome(item: WorkItem, outcome: Outcome) -> None:
        nonlocal reads, number
        if outcome.status is Status.DONE:
            reads += 1
        if running:
            number += 1
            engine.submit(_endless(item.device, number))

    with Journal(directory) as journal:
        engine = _modbus_engine(port, journal, on_outcome)
        await engine.start()
        await _all_up(engine)
        for number in range(1, DEVICES * IN_FLIGHT + 1):
            engine.submit(_endless(number % DEVICES + 1, number))
        await asyncio.sleep(1.0)  # until it flows evenly
        before, cpu = reads, time.process_time()
        await asyncio.sleep(seconds)
        used = (time.process_time() - cpu) / (reads - before)
        running = False
        await engine.stop()
    return used


async def _overload(port: int, directory: Path, seconds: float) -> dict[str, float]:
    """More is asked than can be done: values, refused items, and memory at the first and at the last moment."""
    counts = {"values": 0, "refused": 0}

    def on_outcome(item: WorkItem, outcome: Outcome) -> None:
        if outcome.batch is not None:
            counts["values"] += VALUES
        elif outcome.status in (Status.CANCELLED, Status.EXPIRED):
            counts["refused"] += 1

    with Journal(directory) as journal:
        engine = _modbus_engine(port, journal, on_outcome, queue_items=16)
        await engine.start()
        await _all_up(engine)
        number, memory, end = 0, 0.0, math.inf
        while time.monotonic() < end:
            for device in range(1, DEVICES + 1):
                for _ in range(ASKED_PER_TICK):
                    number += 1
                    engine.submit(_item(device, number, Priority.SCHEDULED))
            await asyncio.sleep(TICK_S)
            if not memory and counts["values"] > 100_000:
                memory, counts["refused"] = _resident_mb(), 0
                end = time.monotonic() + seconds
        result = {"refused": counts["refused"], "mb": memory, "mb_end": _resident_mb()}
        await engine.stop()
    return result


async def _serial(ports: Sequence[str], directory: Path, items: Sequence[str]) -> list[tuple[float, float]]:
    """For lines with 30 meters each, which differ in turnaround only: (least seconds of the transactions, taken)."""
    names = [f"line{n}" for n in range(len(ports))]
    links = [
        LinkConfig(name=name, kind="serial", port=port, parity="N", baud=9600, turnaround_ms=turnaround_ms)
        for name, port, turnaround_ms in zip(names, ports, TURNAROUND_MS, strict=True)
    ]
    devices = [_device(30 * k + n, names[k], METER, f"{n:012d}") for k in range(len(names)) for n in range(1, 31)]
    with Journal(directory) as journal:
        engine = Engine(
            links, devices, builtin_profiles(), lambda device: Credentials(), Sink(journal), SystemClock(),
            lambda: True, seed=1, gather_s=0.0,
        )  # fmt: skip
        await engine.start()
        await _all_up(engine)
        begin = time.monotonic()

        async def line(name: str) -> float:
            outcomes = await asyncio.gather(
                *(
                    engine.submit(
                        WorkItem(
                            device=d.id, duty=Duty.LIVE, priority=Priority.LIVE, expires_s=math.inf, items=tuple(items)
                        )
                    )
                    for d in devices
                    if d.link == name
                )
            )
            assert {o.status for o in outcomes} == {Status.DONE}
            return time.monotonic() - begin

        took = await asyncio.gather(*(line(name) for name in names))
        result = []
        for state, seconds, turnaround_ms in zip(engine.link_states(), took, TURNAROUND_MS, strict=True):
            done = state.counters
            pauses = (REPLY_DELAY_S + turnaround_ms / 1000) * done.replies
            result.append((BYTE_S * (done.tx_bytes + done.rx_bytes) + pauses, seconds))
        await engine.stop()
    return result


def _row(name: str, value: float, unit: str, peer: str, ratio: float | None, target: str) -> Row:
    return {
        "bench": "links",
        "name": name,
        "value": value,
        "unit": unit,
        "peer": peer,
        "ratio": ratio,
        "target": target,
    }


def _serial_row(turnaround_ms: float, least: float, took: float) -> Row:
    return _row(
        f"DL/T 645 line, 9600 baud, 30 meters, {turnaround_ms:g} ms turnaround: least time of its transactions by time"
        " taken",
        100 * least / took,
        "%",
        f"11 bit times a byte, 20 ms reply delay and {turnaround_ms:g} ms turnaround for each of them",
        least / took,
        ">= 0.9",
    )


def run(quick: bool = False) -> list[Row]:
    """All figures; `quick` shortens the windows."""
    seconds = 4.0 if quick else 15.0
    settle()  # as the daemon does
    with tempfile.TemporaryDirectory() as folder, far_end("modbus") as number:
        home, port = Path(folder), int(number)
        bare_cpu, bare_values = asyncio.run(_pymodbus(port, seconds))
        cpu, values, asked = asyncio.run(_paced(port, home / "paced", seconds))
        rounds = [
            (
                asyncio.run(_bare(port, seconds / 6)),
                asyncio.run(_full_speed(port, home / f"full{n}", seconds / 3)),
                asyncio.run(_pymodbus_full(port, seconds / 6)),
            )
            for n in range(3)
        ]
        over = asyncio.run(_overload(port, home / "over", seconds))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ports = [stack.enter_context(far_end("meters")) for _ in TURNAROUND_MS]
        items = tuple(LENGTHS) * (1 if quick else 3)
        lines = asyncio.run(_serial(ports, Path(folder) / "serial", items))
    ours, pymodbus = cpu / values * 1e6, bare_cpu / bare_values * 1e6
    full_s = statistics.median(full for _, full, _ in rounds)
    bare_s, by_bare = (statistics.median(x) for x in zip(*((b, b / f) for b, f, _ in rounds), strict=True))
    py_s, by_py = (statistics.median(x) for x in zip(*((p, p / f) for _, f, p in rounds), strict=True))
    at_full = "full speed, wire to journal"
    return [
        _row(
            "Modbus TCP, 200 devices x 20 values a second, wire to journal: CPU per 1000 values", ours, "ms",
            f"bare pymodbus loop, no decoding, no store: {pymodbus:.1f} ms", ours / pymodbus, "<= 0.8",
        ),
        _row(
            "values kept of those asked at that pace", 100 * values / asked, "%", "asked",
            values / asked, ">= 0.99",
        ),
        _row(
            f"{at_full}: values a second of one core", VALUES / full_s, "1/s", "150,000 values/s",
            VALUES / full_s / 150_000, ">= 1",
        ),
        _row(
            f"{at_full}: CPU a read of 20 values beside bare asyncio and struct", full_s * 1e6, "µs",
            f"bare asyncio, no decoding, no store: {bare_s * 1e6:.1f} µs (at 20 µs, 0.15 is the target)",
            by_bare, "",
        ),
        _row(
            f"{at_full}: CPU a read of 20 values beside pymodbus", full_s * 1e6, "µs",
            f"bare pymodbus, no decoding, no store: {py_s * 1e6:.1f} µs", by_py, "",
        ),
        _row(
            "three times more asked than can be done: growth of resident memory in the window",
            over["mb_end"] - over["mb"], "MiB", f"{over['mb']:.0f} MiB before; {over['refused']:,.0f} items refused",
            over["mb_end"] / over["mb"], "bounded",
        ),
        *(_serial_row(ms, *line) for ms, line in zip(TURNAROUND_MS, lines, strict=True)),
    ]  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:] == ["modbus"]:
        asyncio.run(_serve_modbus())
    elif sys.argv[1:] == ["meters"]:
        _serve_meters()
