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
from fuhe.acquisition.raw import RawSamples, Reply
from fuhe.acquisition.sessions.modbus_plan import plan_for
from fuhe.model.devices import Device, Point
from fuhe.model.quality import Quality, Source
from fuhe.model.quantities import quantity
from fuhe.model.readings import DeviceEvent, ReadingBatch, samples_from_rows
from fuhe.model.work import Duty, Priority, Status, WorkItem
from fuhe.storage.batches import decode_record, encode_batches


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

    batches = [batch(0, 0), batch(100_000, 3), batch(300_000, 6), batch(310_000, 9)]
    (merged,) = merge(batches)
    record = decode_record(encode_batches([batch(5, 12), merged]))  # each value keeps the moment when it came
    assert record.received_us.tolist() == [5] * 3 + [0] * 3 + [100_000] * 3 + [300_000] * 3 + [310_000] * 3
    assert merged.samples is not None and merged.received_us == 310_000
    assert merged.samples.value.tolist() == [float(n) for n in range(12)] and merge([]) == []


def test_events_are_not_joined_and_keep_their_own_moment() -> None:
    def event(time_us: int) -> DeviceEvent:
        return DeviceEvent(device=1, point=None, time_us=time_us, end_us=None, code="C", data={})

    rows = [(1, 1, 1, 1.0, int(Quality.A), int(Source.LIVE))]
    batches = [
        ReadingBatch(received_us=10, samples=samples_from_rows(rows)),
        ReadingBatch(received_us=20, samples=samples_from_rows(rows), events=[event(1)]),
        ReadingBatch(received_us=30, samples=samples_from_rows(rows)),
        ReadingBatch(received_us=40, events=[event(2)]),
    ]
    record = decode_record(encode_batches(merge(batches)))
    assert sorted(record.received_us.tolist()) == [10, 20, 30]
    assert [(received_us, e.time_us) for received_us, e in record.events] == [(20, 1), (40, 2)]


def test_replies_decoded_together_give_what_each_gives_alone() -> None:
    """Two kinds of reply and plain samples, mixed; an absent value leaves no row, its run is the shorter."""
    plans = [plan_for("siemens-pac3200", ("voltage_a", "voltage_b")), plan_for("eastron-sdm630", ("voltage_a",))]
    rng = np.random.default_rng(4)
    batches = []
    for n in range(40):
        plan = plans[n % 2]
        values = rng.uniform(200, 240, plan.decoder.gather.size // 4).astype(">f4")
        values[rng.uniform(size=len(values)) < 0.2] = np.nan
        reply = Reply(plan.decoder, values.tobytes(), n, n % 5, Source.LIVE)
        batches.append(ReadingBatch(received_us=n, samples=RawSamples(reply)))
    batches.append(ReadingBatch(received_us=99, samples=samples_from_rows([(99, 9, 1, 1.0, 0, 1)])))
    (merged,) = merge(batches)
    assert merged.samples is not None and len(merged.samples) == sum(n for _, n in merged.runs)

    def rows(batch: ReadingBatch) -> list[tuple[float, ...]]:
        s = batch.samples
        assert s is not None
        arrays = (s.time_us, s.point, s.quantity, s.value, s.quality, s.source)
        return list(zip(*(a.tolist() for a in arrays), strict=True))

    assert sorted(rows(merged)) == sorted(row for batch in batches for row in rows(batch))
    received = np.repeat([r for r, _ in merged.runs], [n for _, n in merged.runs])
    assert (received == merged.samples.time_us).all()
