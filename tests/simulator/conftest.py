"""A terminal on a bench: two measuring points, three rounds, one total-add group, a clock stepped by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import msgspec
import numpy as np
import pytest

from fuhe.model.times import US
from fuhe.protocols.qgdw1376.auth import AuthProvider
from fuhe.protocols.qgdw1376.edition import edition
from fuhe.protocols.qgdw1376.frame import Address, Frame, Framer, cut
from fuhe.protocols.qgdw1376.message import Message, build, confirm, parse, request
from fuhe.protocols.qgdw1376.segments import Assembler
from fuhe.protocols.qgdw1376.units import Unit
from fuhe.simulator.clock import StepClock
from fuhe.simulator.faults import Fault, FaultSet
from fuhe.simulator.load import Component, Site, day_start
from fuhe.simulator.meter import SimMeter
from fuhe.simulator.relay import Relay
from fuhe.simulator.shapes import shapes
from fuhe.simulator.terminal.assemble import assemble
from fuhe.simulator.terminal.device import Installation, Options, Terminal, build_terminal
from fuhe.simulator.terminal.factory import factory_parameters
from fuhe.simulator.terminal.station import Station, TerminalLine

DAY = 20_300
NOON = day_start(DAY) + 12 * 3600 * US
FLAT = (Component(kw=50, flat=True), Component(kw=200, flat=True), Component(kw=80, flat=True))


@dataclass(slots=True)
class Bench:
    """terminal and its clock; meter_faults by point number."""

    terminal: Terminal
    clock: StepClock
    meter_faults: dict[int, FaultSet]
    start_us: int = NOON
    seen: list[Any] = field(default_factory=list)

    def step(self, seconds: float) -> None:
        """Move on."""
        self.clock.step(seconds)
        self.terminal.advance(self.clock.now_us())

    @property
    def now(self) -> int:
        return self.clock.now_us()

    def power(self, group: int = 1) -> float:
        """kW of a group now."""
        found = self.terminal.parts.totals.power_now(group, self.now)
        assert found is not None
        return found

    def site_power(self) -> float:
        """True primary kW of all sites."""
        return sum(float(m.site.power(np.array([self.now]))[0]) for m in self.terminal.meters.values())

    def open_rounds(self) -> list[int]:
        """Rounds whose contact is open."""
        self.terminal.parts.advance_rounds(self.now)
        return [n for n, r in sorted(self.terminal.parts.rounds.items()) if r.relay.contact_open]

    def set(self, fn: int, pn: int, **data: object) -> None:
        """Set a parameter as a master would."""
        self.terminal.parts.parameters.put(fn, pn, data)

    def events(self, erc: int) -> list[dict[str, object]]:
        """Records of one ERC, newest first."""
        return self.terminal.parts.events.latest(erc, 0)

    def local(self) -> datetime:
        """The terminal's clock."""
        return self.terminal.parts.local(self.now)


class MakeBench(Protocol):
    """Faults with target `terminal` or `meter-1`, `meter-2` are armed at the start."""

    def __call__(
        self, *faults: Fault, edition: str = "2013", options: Options | None = None, start_us: int = NOON,
        human_s: float | None = 20.0, delay_s: float = 0.0, **parameters: Any,
    ) -> Bench: ...  # fmt: skip


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    """See MakeBench."""

    def make(
        *faults: Fault, edition: str = "2013", options: Options | None = None, start_us: int = NOON,
        human_s: float | None = 20.0, delay_s: float = 0.0, **parameters: Any,
    ) -> Bench:  # fmt: skip
        own = FaultSet("terminal", 1)
        meter_faults = {pn: FaultSet(f"meter-{pn}", 1) for pn in (1, 2)}
        meters, relays = {}, []
        for pn, ct in ((1, 40), (2, 20)):
            site = Site(
                components=FLAT if pn == 1 else FLAT[:2],
                shape=shapes()["flat"],
                seed=pn,
                origin_us=day_start(DAY - 70),
                pickup=1.5,
                pickup_s=600.0,
            )
            meters[pn] = SimMeter(
                name=f"meter-{pn}", address=f"{pn:012d}", site=site, faults=meter_faults[pn], seed=pn, ct_ratio=ct,
                retention_days=90,
            )  # fmt: skip
            relays += [
                Relay(component=i, site=site, faults=own, human_s=human_s, delay_s=delay_s)
                for i in range(1, len(site.components))
            ]
        for fault in faults:
            for target in fault.target:
                (own if target == "terminal" else meter_faults[int(target[-1])]).add(fault, start_us)
        installation = Installation(
            meters=meters, relays=relays, factory=factory_parameters(edition, meters, {1: [1, 2], 2: [2]})
        )
        terminal = build_terminal("terminal", edition, installation, own, options)
        for key, data in parameters.items():
            number, _, place = key[1:].partition("_")
            terminal.parts.parameters.put(int(number), int(place or 0), data)
        bench = Bench(terminal, StepClock(start_us), meter_faults, start_us)
        terminal.advance(start_us)
        return bench

    return make


class Master:
    """A master station of the tests, made of the protocol package: one request, the whole answer."""

    def __init__(self, bench: Bench, station: Station, auth: AuthProvider | None = None) -> None:
        self.bench, self.station, self.auth = bench, station, auth
        self.edition = station.application.edition
        self.address = msgspec.structs.replace(station.application.address, msa=5)
        self.seq = 0
        self.session = TerminalLine([station]).session()

    def frame(self, afn: int, *units: Unit, **changes: Any) -> Frame:
        """The frame of a request; changes: fields of the message, or pw."""
        self.seq = (self.seq + 1) & 15
        message = request(changes.pop("address", self.address), afn, units, self.edition, seq=self.seq)
        return build(msgspec.structs.replace(message, **changes), self.edition, self.auth)

    def send(self, frame: Frame) -> list[Message]:
        """The messages that come back for a frame, over the wire."""
        replies = self.session.receive(frame.encode(), self.bench.now)
        found = []
        for reply in replies:
            frames, skipped = cut(reply.data)
            assert not skipped and frames
            found += [parse(f, self.edition) for f in frames]
        return found

    def ask(self, afn: int, *units: Unit, **changes: Any) -> Message:
        """The one answer, put together from its frames."""
        found = self.send(self.frame(afn, *units, **changes))
        assembler = Assembler()
        whole = [m for part in found if (m := assembler.feed(part)) is not None]
        assert len(whole) == 1, whole
        assert not [u for u in whole[0].units if u.fault]
        return whole[0]

    def data(self, afn: int, pn: int, fn: int, asked: dict[str, Any] | None = None) -> dict[str, Any]:
        """Data of one unit."""
        answer = self.ask(afn, Unit(pn, fn, asked or {}))
        assert answer.afn == afn, answer
        assert [(u.pn, u.fn) for u in answer.units] == [(pn, fn)]
        return dict(answer.units[0].data or {})

    def done(self, afn: int, *units: Unit, **changes: Any) -> bool | None:
        """Whether a command was confirmed."""
        return self.ask(afn, *units, **changes).confirmed


@pytest.fixture
def make_master(make_bench: Any) -> Callable[..., Master]:
    """`make_master(*faults, edition=…, auth=…, dials=…, …)`: a bench with its terminal at 3301-1001 and a master."""

    def make(*faults: Fault, auth: AuthProvider | None = None, dials: bool = False, **changes: Any) -> Master:
        bench = make_bench(*faults, **changes)
        station = assemble(bench.terminal, Address("3301", 1001), auth=auth, dials=dials)
        return Master(bench, station, auth)

    return make


EDITION_2013 = edition("2013")


class Front(asyncio.Protocol, asyncio.DatagramProtocol):
    """A master's front end: confirms what wants it, keeps the connection (or address) of each terminal."""

    def __init__(self, front: Front | None = None) -> None:
        self.front: Front = front or self
        self.framer = Framer()
        self.transport: Any = None
        self.peers: dict[int, Any] = {}
        self.heard: list[Message] = []
        self.fresh = asyncio.Event()
        self.silent = False
        self.closed = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.front.closed += 1
        self.front.fresh.set()

    def data_received(self, data: bytes) -> None:
        self.framer.feed(data)
        while isinstance(event := self.framer.next_event(), Frame):
            self._frame(event, self.transport.write)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        for frame in cut(data)[0]:
            self._frame(frame, lambda wire: self.transport.sendto(wire, addr))

    def _frame(self, frame: Frame, send: Any) -> None:
        message = parse(frame, EDITION_2013)
        front = self.front
        front.heard.append(message)
        front.peers[frame.address.a2] = send
        front.fresh.set()
        if message.con and not front.silent:
            send(build(confirm(message), EDITION_2013).encode())

    async def until(self, wanted: Any) -> None:
        """Wait until `wanted(self)` is true."""
        async with asyncio.timeout(20):
            while not wanted(self):
                self.fresh.clear()
                await self.fresh.wait()

    async def ask(self, a2: int, afn: int, *units: Unit) -> Message:
        """Ask a terminal; its answer."""
        before = len(self.heard)
        message = request(Address("3301", a2, msa=3), afn, units, EDITION_2013, seq=9)
        self.peers[a2](build(message, EDITION_2013).encode())
        await self.until(lambda f: any(not m.prm and m.address.a2 == a2 for m in f.heard[before:]))
        return next(m for m in self.heard[before:] if not m.prm and m.address.a2 == a2)


@contextlib.asynccontextmanager
async def open_front(udp: bool = False) -> AsyncIterator[tuple[Front, int]]:
    loop, master = asyncio.get_running_loop(), Front()
    if udp:
        transport, _ = await loop.create_datagram_endpoint(lambda: master, local_addr=("127.0.0.1", 0))
        try:
            yield master, transport.get_extra_info("sockname")[1]
        finally:
            transport.close()
        return
    server = await loop.create_server(lambda: Front(master), "127.0.0.1", 0)
    try:
        yield master, server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
def front() -> Callable[..., Any]:
    """`async with front(udp=False) as (master, port)`: a listening front end."""
    return open_front


@pytest.fixture
def make_front() -> Callable[[], Front]:
    """A front end that somebody connects."""
    return Front
