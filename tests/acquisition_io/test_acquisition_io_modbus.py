"""Modbus TCP and RTU over TCP go through the same engine, against pymodbus's own server; delivery is merged."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from pymodbus import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.io.collector import merge
from fuhe.acquisition.io.engine import Engine
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.model.devices import Device, Point
from fuhe.model.quality import Quality, Source
from fuhe.model.quantities import quantity
from fuhe.model.readings import ReadingBatch, samples_from_rows
from fuhe.model.work import Duty, Priority, Status, WorkItem


@pytest.fixture(params=["tcp", "rtu"])
async def server(request: Any) -> AsyncIterator[tuple[str, int]]:
    registers = [0x4366, 0x0000] * 50  # 230.0 as float32
    device = SimDevice(1, simdata=[SimData(1, values=registers, datatype=DataType.REGISTERS)])
    framer = FramerType.SOCKET if request.param == "tcp" else FramerType.RTU
    one: Any = ModbusTcpServer(device, framer=framer, address=("127.0.0.1", 0))
    await one.serve_forever(background=True)
    yield request.param, one.transport.sockets[0].getsockname()[1]
    await one.shutdown()


async def test_a_modbus_meter_is_read_over_both_framings(kit: Any, server: tuple[str, int]) -> None:
    framing, port = server
    link = LinkConfig(name="line", kind="tcp", port_no=port, framing="tcp" if framing == "tcp" else "rtu")
    point = Point(id=7, name="p")
    device = Device(id=1, name="d", link="line", profile="siemens-pac3200", address="1", points=(point,))
    sink = kit.MemorySink()
    engine = Engine(
        [link], [device], builtin_profiles(), kit.credentials, sink, kit.clock, lambda: True, seed=1, gather_s=0.01
    )
    await engine.start()
    item = WorkItem(
        device=1, duty=Duty.LIVE, priority=Priority.LIVE, expires_s=math.inf, items=("voltage_a", "voltage_b")
    )  # fmt: skip
    outcome = await asyncio.wait_for(engine.submit(item), 10)
    assert outcome.status is Status.DONE, outcome
    (batch,) = sink.batches
    assert batch.samples.point.tolist() == [7, 7] and batch.samples.value.tolist() == [230.0, 230.0]
    assert quantity("voltage_a").id in batch.samples.quantity.tolist()
    await engine.stop()


def test_batches_of_one_moment_become_one_record_and_keep_every_value() -> None:
    def batch(received_us: int, first: int) -> ReadingBatch:
        rows = [(first + i, 1, 1, float(first + i), int(Quality.A), int(Source.LIVE)) for i in range(3)]
        return ReadingBatch(received_us=received_us, samples=samples_from_rows(rows))

    merged = merge([batch(0, 0), batch(100_000, 3), batch(300_000, 6), batch(310_000, 9)])
    assert [b.received_us for b in merged] == [0, 300_000]
    values = np.concatenate([b.samples.value for b in merged if b.samples is not None])
    assert values.tolist() == [float(n) for n in range(12)] and merge([]) == []
