"""Our exchanges against pymodbus's own server over real sockets: Modbus TCP and RTU over TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pymodbus import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from fuhe.acquisition.profile import ControlPlan, Profile, Timing
from fuhe.acquisition.sessions import open_exchange
from fuhe.acquisition.sessions.modbus_plan import MEMORY
from fuhe.model.control import ActionKind, ControlAction
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.quantities import by_name
from fuhe.model.work import Duty, Exchange, Outcome, Priority, Status, WorkItem
from fuhe.protocols.modbus.maps import load_map
from fuhe.protocols.modbus.words import encode_value

NOW = 1_800_000_000_000_000
FRAMINGS = {"tcp": FramerType.SOCKET, "rtu": FramerType.RTU}


@pytest.fixture(autouse=True)
def forget() -> None:
    MEMORY.clear()


@asynccontextmanager
async def serving(device: SimDevice, framing: str) -> AsyncIterator[int]:
    server = ModbusTcpServer(device, framer=FRAMINGS[framing], address=("127.0.0.1", 0))
    await server.listen()
    assert isinstance(server.transport, asyncio.Server)
    try:
        yield server.transport.sockets[0].getsockname()[1]
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


async def talk(exchange: Exchange, port: int) -> Outcome:
    """What the link's owner does, in its simplest form."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for _ in range(100):
            request = exchange.next_request(NOW)
            if request is None:
                return exchange.outcome(NOW)
            writer.write(request.data)
            while not exchange.receive(await asyncio.wait_for(reader.read(300), 5), NOW):
                pass
        raise AssertionError("the exchange does not end")
    finally:
        writer.close()
        await writer.wait_closed()


def registers(map_name: str, raw: dict[str, float], base: int = 0, without: tuple[str, ...] = ()) -> list[SimData]:
    """Filled registers; addresses of `without` and everything undefined are illegal in the server."""
    regmap = load_map(map_name)
    words: dict[int, int] = {}
    for r in regmap.registers:
        data = encode_value(raw.get(r.name, 0), r.type, r.order)
        for i in range(r.count):
            words[base + r.address + i] = int.from_bytes(data[2 * i : 2 * i + 2], "big")
    for block in regmap.blocks:
        for address in range(block.first, block.last + 1):
            words.setdefault(base + address, 0)
    for name in without:
        row = regmap.by_name[name]
        for address in range(row.address, row.end):
            del words[base + address]
    return [SimData(address=a, values=w, datatype=DataType.REGISTERS) for a, w in sorted(words.items())]


def device(framing: str) -> Device:
    return Device(
        id=3, name="d", link="l", profile="p", address="1", points=(Point(id=70, name="x"),),
        options={"framing": framing},
    )  # fmt: skip


def profile(map_name: str, control: ControlPlan | None = None) -> Profile:
    return Profile(
        name="p", title_en="p", title_zh="p", protocol="modbus", map=map_name, timing=Timing(retries=1), control=control
    )


def live(items: tuple[str, ...] = ()) -> WorkItem:
    return WorkItem(device=3, duty=Duty.LIVE, priority=Priority.LIVE, expires_s=1e9, items=items)


def values(outcome: Outcome) -> dict[str, float]:
    assert outcome.batch is not None and outcome.batch.samples is not None
    names = {q.id: n for n, q in by_name().items()}
    s = outcome.batch.samples
    return {names[q]: v for q, v in zip(s.quantity.tolist(), s.value.tolist(), strict=True)}


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
async def test_a_whole_map_is_read(framing: str) -> None:
    raw: dict[str, float] = {name: 100 + i for i, name in enumerate(load_map("eastron-sdm630").readings)}
    async with serving(SimDevice(1, simdata=registers("eastron-sdm630", raw)), framing) as port:
        outcome = await talk(open_exchange(device(framing), profile("eastron-sdm630"), live(), Credentials()), port)
    assert outcome.status is Status.DONE
    quotients = {r.name: r.quotient for r in load_map("eastron-sdm630").registers}
    assert values(outcome) == pytest.approx({n: v / quotients[n] for n, v in raw.items()}, abs=1e-5)


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
async def test_an_illegal_address_inside_a_group_fails_that_item_only(framing: str) -> None:
    sim = SimDevice(1, simdata=registers("eastron-sdm630", {"voltage_a": 230.0}, without=("current_b",)))
    async with serving(sim, framing) as port:
        exchange = open_exchange(device(framing), profile("eastron-sdm630"), live(), Credentials())
        outcome = await talk(exchange, port)
        again = await talk(open_exchange(device(framing), profile("eastron-sdm630"), live(), Credentials()), port)
    for result in (outcome, again):
        assert result.status is Status.PARTIAL
        assert [f.item for f in result.faults] == ["current_b"] and result.faults[0].final
        assert set(values(result)) == set(load_map("eastron-sdm630").readings) - {"current_b"}


async def test_sunspec_is_found_in_a_real_server() -> None:
    base = 40000 + 4 + 66
    common = [0x5375, 0x6E53, 1, 66] + [0] * 66
    model = registers("sunspec-203", {"voltage_a": 2305, "V_SF": -1, "active_power_total": 12, "W_SF": 3}, base)
    known = {d.address for d in model}
    head = {base: 203, base + 1: 105, base + 107: 0xFFFF, base + 108: 0}
    extra = [SimData(address=a, values=w, datatype=DataType.REGISTERS) for a, w in head.items() if a not in known]
    replaced = [d for d in model if d.address not in head]
    heads = [SimData(address=a, values=w, datatype=DataType.REGISTERS) for a, w in head.items() if a in known]
    chain = SimData(address=40000, values=common, datatype=DataType.REGISTERS)
    simdata = sorted([chain, *extra, *replaced, *heads], key=lambda d: d.address)
    async with serving(SimDevice(1, simdata=simdata), "tcp") as port:
        items = ("voltage_a", "active_power_total")
        outcome = await talk(open_exchange(device("tcp"), profile("sunspec-203"), live(items), Credentials()), port)
    assert outcome.status is Status.DONE
    assert values(outcome) == {"voltage_a": 230.5, "active_power_total": 12.0}


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
async def test_a_relay_is_switched_and_read_back(framing: str) -> None:
    plan = ControlPlan(
        means="modbus-write", writes={"trip": (5, 16, 0xFF00), "direct_close": (5, 16, 0)}, state=(1, 16, 1, 1)
    )
    coils = [SimData(address=1, values=0, datatype=DataType.BITS)]
    registers_ = [SimData(address=1, values=0, datatype=DataType.REGISTERS)]
    sim = SimDevice(1, simdata=(coils, coils, registers_, registers_))
    async with serving(sim, framing) as port:
        for kind, is_open in ((ActionKind.TRIP, True), (ActionKind.DIRECT_CLOSE, False)):
            order = ControlAction(id=f"c-{kind}", kind=kind, valid_until_us=NOW + 10**6)
            item = WorkItem(device=3, duty=Duty.CONTROL, priority=Priority.CONTROL, expires_s=1e9, action=order)
            outcome = await talk(
                open_exchange(device(framing), profile("eastron-sdm630", plan), item, Credentials()), port
            )
            answer = outcome.answer
            assert outcome.status is Status.DONE and answer is not None
            assert (answer.sent, answer.acknowledged) == (True, True)
            assert answer.state is not None and answer.state.open is is_open
