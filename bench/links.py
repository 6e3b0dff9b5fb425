"""The acquisition engine on real sockets and a pseudo-terminal, wire to journal, beside bare pymodbus in the same run.

The responders are processes of their own, so that their CPU is not counted. CPU is this process's (all its threads: the
journal's too); "values" are float32 readings decoded, packed and fsynced in a real journal. The bare pymodbus loop only
reads the same 40 registers from the same responder: no decoding, no store.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.io.clock import SystemClock
from fuhe.acquisition.io.engine import Engine
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.work import Duty, Outcome, Priority, Status, WorkItem
from fuhe.protocols.common.framer import NeedMore
from fuhe.protocols.dlt645.frame import Frame, Framer, make_frame
from fuhe.protocols.modbus.maps import load_map
from fuhe.storage.journal import Journal
from fuhe.storage.sink import Sink

DEVICES, VALUES, TICK_S = 200, 20, 0.1
ASKED_PER_TICK = 6
FIRST, REGISTERS = 1, 40
PROFILE = "siemens-pac3200"
ITEMS = tuple(load_map(PROFILE).readings[:VALUES])
BYTE_S = 11 / 9600
REPLY_DELAY_S = 0.02  # the least that DL/T 645 allows
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
def _far_end(kind: str) -> Iterator[str]:
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


async def _pymodbus_full(port: int, seconds: float) -> float:
    """Values a second of CPU of bare pymodbus loops that never pause."""
    from pymodbus.client import AsyncModbusTcpClient

    clients = [AsyncModbusTcpClient("127.0.0.1", port=port, timeout=2, retries=0, reconnect_delay=0) for _ in range(50)]
    await asyncio.gather(*(client.connect() for client in clients))
    end, counts = time.monotonic() + seconds, {"values": 0}

    async def device(client: AsyncModbusTcpClient) -> None:
        while time.monotonic() < end:
            await client.read_holding_registers(FIRST, count=REGISTERS, device_id=1)
            counts["values"] += VALUES

    cpu = time.process_time()
    await asyncio.gather(*(device(client) for client in clients))
    used = time.process_time() - cpu
    for client in clients:
        client.close()
    return counts["values"] / used


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _full_speed(port: int, directory: Path, seconds: float) -> dict[str, float]:
    """More is asked than can be done: rate, CPU, refused items, and memory at the first and at the last moment."""
    counts = {"values": 0, "refused": 0}

    def on_outcome(item: WorkItem, outcome: Outcome) -> None:
        if outcome.batch is not None and outcome.batch.samples is not None:
            counts["values"] += len(outcome.batch.samples)
        elif outcome.status in (Status.CANCELLED, Status.EXPIRED):
            counts["refused"] += 1

    with Journal(directory) as journal:
        engine = _modbus_engine(port, journal, on_outcome, queue_items=16)
        await engine.start()
        await _all_up(engine)
        number, memory = 0, 0.0
        cpu = begin = 0.0
        end = math.inf
        while time.monotonic() < end:
            for device in range(1, DEVICES + 1):  # about 1.5 times what one core can do
                for _ in range(ASKED_PER_TICK):
                    number += 1
                    engine.submit(_item(device, number, Priority.SCHEDULED))
            await asyncio.sleep(TICK_S)
            if not cpu and counts["values"] > 50_000:
                memory = _resident_mb()
                counts["values"], cpu, begin = 0, time.process_time(), time.monotonic()
                end = begin + seconds
        result = {
            "values": counts["values"], "cpu": time.process_time() - cpu, "wall": time.monotonic() - begin,
            "refused": counts["refused"], "mb": memory, "mb_end": _resident_mb(),
        }  # fmt: skip
        await engine.stop()
    return result


async def _serial(port: str, directory: Path, rounds: int) -> tuple[float, float]:
    """(seconds that the transactions need at least, seconds that they took) for 30 meters on one line."""
    transactions = {"least": 0.0}
    with Journal(directory) as journal:
        link = LinkConfig(name="line", kind="serial", port=port, parity="N", baud=9600, turnaround_ms=3)
        devices = [_device(n, "line", "dlt645-2007-3p4w", f"{n:012d}") for n in range(1, 31)]
        engine = Engine(
            [link], devices, builtin_profiles(), lambda device: Credentials(), Sink(journal), SystemClock(),
            lambda: True, seed=1,
        )  # fmt: skip
        await engine.start()
        await _all_up(engine)
        begin = time.monotonic()
        items = [
            WorkItem(device=n, duty=Duty.LIVE, priority=Priority.LIVE, expires_s=math.inf, window_us=(k, k))
            for k in range(rounds)
            for n in range(1, 31)
        ]
        outcomes = await asyncio.gather(*(engine.submit(item) for item in items))
        took = time.monotonic() - begin
        assert {o.status for o in outcomes} == {Status.DONE}
        (state,) = engine.link_states()
        counters = state.counters
        transactions["least"] = BYTE_S * (counters.tx_bytes + counters.rx_bytes) + REPLY_DELAY_S * counters.replies
        await engine.stop()
    return transactions["least"], took


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


def run(quick: bool = False) -> list[Row]:
    """All figures; `quick` shortens the windows."""
    seconds = 4.0 if quick else 15.0
    with tempfile.TemporaryDirectory() as folder, _far_end("modbus") as port:
        home = Path(folder)
        bare_cpu, bare_values = asyncio.run(_pymodbus(int(port), seconds))
        cpu, values, asked = asyncio.run(_paced(int(port), home / "paced", seconds))
        bare_fast = asyncio.run(_pymodbus_full(int(port), seconds / 3))
        fast = asyncio.run(_full_speed(int(port), home / "fast", seconds))
    with tempfile.TemporaryDirectory() as folder, _far_end("meters") as name:
        least, took = asyncio.run(_serial(name, Path(folder) / "serial", 1 if quick else 4))
    ours, bare = cpu / values * 1e6, bare_cpu / bare_values * 1e6
    per_core = fast["values"] / fast["cpu"]
    growth = fast["mb_end"] - fast["mb"]
    return [
        _row(
            "Modbus TCP, 200 devices x 20 values a second, wire to journal: CPU per 1000 values", ours, "ms",
            f"bare pymodbus loop, no decoding, no store: {bare:.1f} ms", ours / bare, "<= 0.8",
        ),
        _row(
            "values kept of those asked at that pace", 100 * values / asked, "%", "asked",
            values / asked, ">= 0.99",
        ),
        _row("full speed, wire to journal: values a second of one core", per_core, "1/s", "150,000 values/s",
             per_core / 150_000, ">= 1"),
        _row("full speed beside bare pymodbus: values a second of one core", per_core, "1/s",
             f"bare pymodbus, no decoding, no store: {bare_fast:,.0f}", per_core / bare_fast, ""),
        _row("full speed, more asked than done: growth of resident memory in the window", growth, "MiB",
             f"{fast['mb']:.0f} MiB before; {fast['refused']:.0f} items refused", fast["mb_end"] / fast["mb"],
             "bounded"),
        _row(
            "DL/T 645 line, 9600 baud, 30 meters, 3 ms turnaround: least time of the transactions by time taken",
            100 * least / took, "%", "line time of all bytes + 20 ms reply delay each", least / took, ">= 0.9",
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:] == ["modbus"]:
        asyncio.run(_serve_modbus())
    elif sys.argv[1:] == ["meters"]:
        _serve_meters()
