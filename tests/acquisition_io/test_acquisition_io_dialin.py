"""Devices that dial in: identification, paced admission, limits, and DL/T 645 meters behind a modem."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.dialin import UNIDENTIFIED_LIMIT, Identity, Rejected, TextRegistration, strip_text
from fuhe.acquisition.io.engine import Engine
from fuhe.acquisition.io.metrics import EngineMetrics
from fuhe.acquisition.io.transports.base import Guard
from fuhe.acquisition.io.transports.dialin import DialInServer
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.model.work import Priority, Status
from fuhe.protocols.dlt645.frame import Frame, Framer, make_frame


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - conditions are of many kinds
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 100])
def test_a_registration_is_found_however_it_is_cut(pieces: int) -> None:
    text = b"HB\x00welcome REG:line7\r\nrest"
    dialin = TextRegistration("REG:", {"line7", "line70"})
    size = max(1, len(text) // pieces)
    for start in range(0, len(text), size):
        verdict = dialin.feed(text[start : start + size])
        if verdict is not None:
            assert isinstance(verdict, Identity) and verdict.name == "line7"
            assert (verdict.rest + text[start + size :]).lstrip() == b"rest"
            return
    raise AssertionError("not identified")


def test_names_without_an_end_are_complete_only_when_no_longer_name_is_known() -> None:
    assert TextRegistration("REG:", {"line7"}).feed(b"REG:line7") == Identity("line7")
    assert TextRegistration("REG:", {"line7", "line70"}).feed(b"REG:line7") is None
    assert TextRegistration("REG:", {"line7"}).feed(b"REG:other\n") == Rejected("unknown name")
    assert TextRegistration("REG:", {"line7"}).feed(bytes(UNIDENTIFIED_LIMIT + 1)) == Rejected("no registration")
    assert isinstance(TextRegistration("REG:", {"x"}).feed(b"REG:" + b"y" * 80), Rejected)


def test_heartbeats_and_repeated_registrations_are_not_line_bytes() -> None:
    texts = (b"HB", b"REG:line7")
    assert strip_text(b"HB", texts) == b"" and strip_text(b"HBHB\r\nREG:line7", texts) == b""
    assert strip_text(b"HB\x68\x01\x16HB", texts) == b"\x68\x01\x16"
    assert strip_text(b"\x68HB\x16", texts) == b"\x68HB\x16"


def meter_reply(request: Frame, volts: int) -> bytes:
    data = request.data + bytes.fromhex(f"{volts * 10:04d}")[::-1]
    return make_frame(request.address, 0x91, data).encode(0)


async def test_dlt645_meters_behind_a_modem_that_dials_in(kit: Any) -> None:
    link = LinkConfig(name="field", kind="listen-tcp", turnaround_ms=1, baud=115200)
    plain = [kit.device(n, "field", line="line7" if n < 3 else "line8") for n in (1, 2, 3)]
    devices = [msgspec.structs.replace(d, address=f"{d.id:012d}", profile="dlt645-2007-3p4w") for d in plain]
    sink = kit.MemorySink()
    engine = Engine(
        [link], devices, builtin_profiles(), kit.credentials, sink, kit.clock, lambda: True, seed=1, gather_s=0.01
    )  # read-only: reading must still work
    await engine.start()

    async def modem(register: bytes) -> None:
        reader, writer = await asyncio.open_connection(*engine.listening("field"))
        writer.write(register)
        framer = Framer()
        while data := await reader.read(1024):
            framer.feed(data)
            while not repr(event := framer.next_event()).startswith("NEED"):
                if isinstance(event, Frame):
                    reply = meter_reply(event, 220 + int(event.address))
                    writer.write(b"HB" + reply[:7])  # a heartbeat in the middle of things, and a torn answer
                    await asyncio.sleep(0)
                    writer.write(reply[7:])
        writer.close()

    assert (await engine.submit(kit.item(1, Priority.EVENT))).status is Status.LINK_DOWN
    texts = (b"REG:line7\r\n", b"HBREG:line8")
    modems = [asyncio.create_task(modem(text)) for text in texts]
    await until(lambda: sum(s.up for s in engine.link_states()) == 3)
    outcomes = await asyncio.gather(*(engine.submit(kit.item(n, items=("02010100",))) for n in (1, 2, 3)))
    assert [o.status for o in outcomes] == [Status.DONE] * 3
    values = {int(p): float(v) for b in sink.batches for p, v in zip(b.samples.point, b.samples.value, strict=True)}
    assert values == {1: 221.0, 2: 222.0, 3: 223.0}
    families = {m.name: m for m in EngineMetrics(engine).collect()}
    assert [(s.labels["link"], s.value) for s in families["fuhe_link_replies"].samples] == [("field", 3.0)]
    assert families["fuhe_link_lines"].samples[0].value == 3

    again = asyncio.create_task(modem(texts[0]))  # the modem redials: the older connection is dropped
    await asyncio.wait_for(modems[0], 5)
    assert (await engine.submit(kit.item(2, items=("02010100",)))).status is Status.DONE
    await engine.stop()
    await asyncio.wait_for(asyncio.gather(again, modems[1]), 5)


def make_server(kit: Any, attach: Any, **changes: Any) -> DialInServer:
    config = LinkConfig(name="field", kind="listen-tcp", **changes)
    return DialInServer(config, Guard(lambda: False), kit.clock, lambda: TextRegistration("REG:", {"x"}), attach)


async def test_a_burst_of_calls_is_admitted_at_the_rate_and_none_is_lost(kit: Any) -> None:
    attached: list[str] = []

    def attach(identity: Identity, caller: Any) -> bool:
        attached.append(identity.name)
        return True

    server = make_server(kit, attach, admission_per_s=400)
    await server.start()
    begin = kit.clock.monotonic_s()
    calls = [await asyncio.open_connection(*server.address) for _ in range(240)]
    for _, writer in calls:
        writer.write(b"REG:x\n")
    await until(lambda: len(attached) == 240)
    assert kit.clock.monotonic_s() - begin >= (240 - 40) / 400 - 0.01
    assert server.admitted == 240 and len(server.callers) == 240
    for _, writer in calls:
        writer.close()
    await until(lambda: not server.callers)
    await server.stop()


async def test_silent_and_surplus_and_unknown_callers_are_dropped(kit: Any) -> None:
    server = make_server(kit, lambda identity, caller: True, idle_timeout_s=0.2, max_connections=2)
    await server.start()
    first, second, third = [await asyncio.open_connection(*server.address) for _ in range(3)]
    second[1].write(b"REG:nobody\r\n")
    assert await second[0].read() == b""
    assert server.counters.rejected == 1
    assert await first[0].read() == b"" and await third[0].read() == b""  # idle; the third was let in afterwards
    assert server.admitted == 3
    for _, writer in (first, second, third):
        writer.close()
    await server.stop()


async def test_udp_peers_are_lines_too(kit: Any, toy_sessions: Any) -> None:
    link = LinkConfig(name="udp", kind="listen-udp", turnaround_ms=1)
    engine = Engine(
        [link], [kit.device(1, "udp", line="x")], {"toy": kit.PROFILE}, kit.credentials, kit.MemorySink(), kit.clock,
        lambda: False, seed=1, gather_s=0.01,
    )  # fmt: skip
    await engine.start()

    class Meter(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            transport.sendto(b"REG:x\n")

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(b"!" + data[1:])

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Meter, remote_addr=engine.listening("udp"))
    await until(lambda: sum(s.up for s in engine.link_states()) == 2)
    assert (await engine.submit(kit.item(1))).status is Status.DONE
    transport.close()
    await engine.stop()
