"""Terminals that dial in over real sockets: login, requests, reports, replaced and unknown callers, storms, UDP."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from fuhe.acquisition.clock_rules import suspect_spans
from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.io import terminals
from fuhe.acquisition.io.engine import Engine
from fuhe.acquisition.io.metrics import EngineMetrics
from fuhe.acquisition.profile import Profile, Timing
from fuhe.acquisition.terminal import TerminalSession
from fuhe.model.devices import Device
from fuhe.model.readings import DeviceEvent
from fuhe.model.work import Duty, Outcome, Priority, Request, Status, WorkItem
from fuhe.protocols.common.framer import NeedMore
from fuhe.protocols.qgdw1376.frame import Address, Frame, Framer

PROFILE = Profile(
    name="terminal", title_en="t", title_zh="t", protocol="qgdw1376", version="2009",
    timing=Timing(reply_timeout_s=5, inter_byte_s=0.5),
)  # fmt: skip
LOGIN, LOGOUT, HEARTBEAT = "02{seq}00000100", "02{seq}00000200", "02{seq}00000400"
EVENT = "0E{seq}00000100010300010206301225071601"  # ERC 2, parameters lost
CLOCK = "0C{seq}00000200563412300316"  # AFN 0C F2 as a report


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - conditions are of many kinds
            await asyncio.sleep(0.005)


class Question:
    """A toy exchange: asks for AFN 0C F2 and takes the answer with its own number."""

    def __init__(self, item: WorkItem, session: TerminalSession) -> None:
        self.item, self.session = item, session
        self.stamp, self.done, self.asked, self.parts = session.begin(), False, False, 0

    def next_request(self, now_us: int) -> Request | None:
        if self.asked:
            return None
        self.asked = True
        who = self.session.address
        user = bytes((0x0C, 0x60 | self.stamp.pseq)) + bytes.fromhex("00000200")
        frame = Frame(0x4B, Address(who.a1, who.a2, False, self.session.settings.msa), user)
        return Request(data=frame.encode(), reply_bytes=30)

    def receive(self, data: bytes, now_us: int) -> bool:
        assert data[0] == 0x68 and data[-1] == 0x16  # whole frames only
        self.done = data[13] & 0x0F == self.stamp.pseq and data[12] == 0x0C
        return self.done

    def silence(self, now_us: int) -> None:
        """Once is enough."""

    def outcome(self, now_us: int) -> Outcome:
        return Outcome(status=Status.DONE if self.done else Status.SILENT)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[WorkItem]:
    """Every exchange is a Question; what was asked for, in order."""
    items: list[WorkItem] = []

    def opener(device: Device, profile: Profile, item: WorkItem, credentials: Any, session: Any = None) -> Question:
        items.append(item)
        return Question(item, session)

    monkeypatch.setattr("fuhe.acquisition.io.engine.open_exchange", opener)
    return items


class Terminal:
    """The terminal's side of one connection. Answers questions at once unless `mute`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, a2: int) -> None:
        self.reader, self.writer, self.a2 = reader, writer, a2
        self.frames: list[Frame] = []
        self.mute = False
        self.closed = False
        self.seq = 0
        self._task = asyncio.create_task(self._run())

    def frame(self, text: str, control: int = 0xC9, seq: int | None = None, msa: int = 0) -> bytes:
        if seq is None:
            seq = self.seq = (self.seq + 1) % 16
        user = bytes.fromhex(text.format(seq=f"{0x70 | seq:02X}"))
        return Frame(control, Address("3301", self.a2, False, msa), user).encode()

    def say(self, text: str, control: int = 0xC9, **more: Any) -> None:
        self.writer.write(self.frame(text, control, **more))

    async def _run(self) -> None:
        framer = Framer()
        while data := await self.reader.read(4096):
            framer.feed(data)
            while not isinstance(event := framer.next_event(), NeedMore):
                assert isinstance(event, Frame)
                self.frames.append(event)
                if event.prm and not self.mute:
                    self.answer(event)
        self.closed = True

    def answer(self, question: Frame) -> None:
        user = bytes((0x0C, 0x60 | question.user[1] & 0x0F)) + bytes.fromhex("00000200563412300316")
        self.writer.write(Frame(0x88, question.address, user).encode())

    async def close(self) -> None:
        self.writer.close()
        await asyncio.wait_for(self._task, 5)


class Field:
    """One engine with a listener, its sink, and the terminals that call."""

    def __init__(self, kit: Any, link: LinkConfig, devices: list[Device], *, read_only: bool = False) -> None:
        self.kit, self.sink = kit, kit.MemorySink()
        self.callers: list[Terminal] = []
        self.heard: list[tuple[int, int, float | None]] = []
        self.engine = Engine(
            [link], devices, {"terminal": PROFILE}, kit.credentials, self.sink, kit.clock, lambda: read_only, seed=1,
            gather_s=0.01, on_heard=lambda *said: self.heard.append(said),
        )  # fmt: skip

    async def call(self, a2: int, *, login: bool = True) -> Terminal:
        reader, writer = await asyncio.open_connection(*self.engine.listening("field"))
        terminal = Terminal(reader, writer, a2)
        self.callers.append(terminal)
        if login:
            terminal.say(LOGIN)
            await until(lambda: terminal.frames)
        return terminal

    def events(self, code: str = "link.") -> list[DeviceEvent]:
        return [e for b in self.sink.batches for e in b.events if e.code.startswith(code)]

    def session(self, device: int) -> TerminalSession:
        found = self.engine.session(device)
        assert found is not None
        return found


def device(number: int, **options: str) -> Device:
    return Device(
        id=number, name=f"d{number}", link="field", profile="terminal", address=f"3301-{number}", points=(),
        options=options,
    )  # fmt: skip


Start = Callable[..., Awaitable[Field]]


@pytest.fixture
async def start(kit: Any, asked: list[WorkItem], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Starts a field; everything is closed afterwards."""
    monkeypatch.setattr(terminals, "HISTORY_S", 0.01)
    fields: list[Field] = []

    async def make(devices: int | list[Device] = 2, *, read_only: bool = False, **link: Any) -> Field:
        config = LinkConfig(name="field", **({"kind": "listen-tcp", "protocol": "qgdw1376"} | link))
        listed = [device(n) for n in range(1, devices + 1)] if isinstance(devices, int) else devices
        field = Field(kit, config, listed, read_only=read_only)
        await field.engine.start()
        fields.append(field)
        return field

    yield make
    for field in fields:
        for caller in field.callers:
            await caller.close()
        await field.engine.stop()


async def test_login_is_confirmed_and_requests_go_out(start: Start, kit: Any) -> None:
    field = await start()
    terminal = await field.call(1)
    (confirmation,) = terminal.frames
    assert (confirmation.control, confirmation.user.hex()) == (0x0B, "006100000100")
    assert (await field.engine.submit(kit.item(1))).status is Status.DONE
    assert terminal.frames[-1].address.msa == 1
    assert field.engine.online(1) is True and field.engine.online(2) is False
    assert (await field.engine.submit(kit.item(2, Priority.EVENT))).status is Status.LINK_DOWN
    await until(lambda: len(field.events()) == 2)
    assert [(e.device, e.code) for e in field.events()] == [(1, "link.online"), (1, "link.login")]
    assert field.events()[0].data["peer"] == "{}:{}".format(*terminal.writer.get_extra_info("sockname"))


@pytest.mark.parametrize("first", [HEARTBEAT, EVENT], ids=["heartbeat", "report"])
async def test_any_first_frame_names_the_terminal(start: Start, kit: Any, first: str) -> None:
    field = await start()
    terminal = await field.call(2, login=False)
    terminal.say(first)
    await until(lambda: terminal.frames)
    assert terminal.frames[0].user[0] == 0
    assert (await field.engine.submit(kit.item(2))).status is Status.DONE


async def test_data_before_login_are_denied_where_configured(start: Start) -> None:
    field = await start(login_first=True)
    terminal = await field.call(1, login=False)
    terminal.say(EVENT, 0xC4)
    await until(lambda: terminal.frames)
    assert terminal.frames[0].user.hex() == "006100000200" and not field.events("ERC")
    terminal.say(LOGIN)
    terminal.say(EVENT, 0xC4)
    await until(lambda: len(terminal.frames) == 3)
    assert [f.user[4] for f in terminal.frames[1:]] == [1, 1]
    await until(lambda: field.events("ERC"))


async def test_byte_by_byte_and_many_frames_at_once(start: Start, kit: Any) -> None:
    field = await start()
    slow, quick = await field.call(1, login=False), await field.call(2, login=False)
    for byte in slow.frame(LOGIN):
        slow.writer.write(bytes((byte,)))
        await slow.writer.drain()
        await asyncio.sleep(0)
    await until(lambda: slow.frames)
    quick.writer.write(b"".join(quick.frame(text) for text in (LOGIN, HEARTBEAT, EVENT, HEARTBEAT, LOGOUT)))
    await until(lambda: len(quick.frames) == 5)
    assert sorted(f.user[1] & 15 for f in quick.frames) == [1, 2, 3, 4, 5]
    await until(lambda: len(field.events("link.log")) == 3)


async def test_what_comes_unasked_does_not_disturb_the_request_in_flight(start: Start, kit: Any) -> None:
    field = await start()
    terminal = await field.call(1)
    terminal.mute = True
    running = field.engine.submit(kit.item(1))
    await until(lambda: len(terminal.frames) == 2)
    question = terminal.frames[1]
    terminal.say(HEARTBEAT)
    terminal.say(EVENT, 0xC4)
    terminal.answer(Frame(question.control, question.address, b"\x0c\x6f\x00\x00\x02\x00"))  # another number
    terminal.answer(Frame(question.control, Address("3301", 1, False, 9), question.user))  # another master's
    terminal.answer(Frame(question.control, Address("3301", 2, False, 1), question.user))  # another terminal's
    await until(lambda: len(terminal.frames) == 4)  # both were answered while the request still waits
    assert not running.done()
    terminal.answer(question)
    assert (await running).status is Status.DONE
    terminal.answer(question)  # and once more: a late one
    terminal.say(HEARTBEAT)
    await until(lambda: len(terminal.frames) == 5)
    assert field.engine.terminals.foreign == 1
    (state,) = field.engine.link_states()
    assert state.counters.replies == 1 and state.counters.silences == 0


async def test_control_waits_for_one_transaction_at_most(start: Start, kit: Any, asked: list[WorkItem]) -> None:
    field = await start()
    terminal = await field.call(1)
    terminal.mute = True
    first = field.engine.submit(kit.item(1, items=("a",)))
    await until(lambda: len(terminal.frames) == 2)
    later = [field.engine.submit(kit.item(1, items=(str(n),))) for n in range(5)]
    control = field.engine.submit(kit.item(1, Priority.CONTROL, items=("control",)))
    terminal.mute = False
    terminal.answer(terminal.frames[1])
    await asyncio.wait_for(asyncio.gather(first, control, *later), 5)
    assert [i.items[0] for i in asked[:2]] == ["a", "control"]


async def test_a_report_is_confirmed_only_when_it_is_on_the_disk(start: Start) -> None:
    field = await start()
    terminal = await field.call(1)
    field.sink.gate = asyncio.Event()
    field.session(1).ec1_read = 0
    terminal.say(EVENT, 0xC4, seq=5)
    terminal.say(HEARTBEAT)
    await until(lambda: len(terminal.frames) == 2)  # the heartbeat alone
    terminal.say(EVENT, 0xC4, seq=5)  # a repeat while the disk is slow: neither confirmed nor stored twice
    terminal.say(HEARTBEAT)
    await until(lambda: len(terminal.frames) == 3)
    assert all(f.user[1] & 15 != 5 for f in terminal.frames)
    field.sink.gate.set()
    await until(lambda: len(terminal.frames) == 4)
    assert terminal.frames[3].user.hex() == "006500000100" and len(field.events("ERC2")) == 1
    terminal.say(EVENT, 0xC4, seq=5)  # the confirmation was lost
    await until(lambda: len(terminal.frames) == 5)
    assert len(field.events("ERC2")) == 1 and field.engine.terminals.repeats == 2
    assert field.session(1).ec1_read == 1


async def test_a_report_that_cannot_be_stored_is_not_confirmed(start: Start) -> None:
    field = await start()
    terminal = await field.call(1)
    await until(lambda: len(field.events()) == 2)
    field.sink.error = OSError("disk full")
    field.session(1).ec1_read = 0
    terminal.say(EVENT, 0xC4, seq=5)
    await until(lambda: field.engine.collector.failures)
    terminal.say(HEARTBEAT)
    await until(lambda: len(terminal.frames) == 2)
    assert field.session(1).ec1_read == 0
    field.sink.error = None
    terminal.say(EVENT, 0xC4, seq=5)
    await until(lambda: len(terminal.frames) == 3)
    assert len(field.events("ERC2")) == 1 and field.session(1).ec1_read == 1


async def test_reports_that_nothing_wants_are_kept_all_the_same(start: Start) -> None:
    field = await start()
    terminal = await field.call(1)
    terminal.say("0C{seq}0000017DAABBCC", 0xC4)  # no such class
    await until(lambda: len(terminal.frames) == 2)
    (event,) = field.events("report")
    assert event.code == "report.0C.F1001" or event.code.startswith("report.0C.F")
    assert event.data["hex"] == "AABBCC"


async def test_waiting_events_are_asked_for(start: Start, asked: list[WorkItem]) -> None:
    field = await start()
    terminal = await field.call(1)
    terminal.say(HEARTBEAT + "0307", 0xE9)
    await until(lambda: len(terminal.frames) == 3)
    assert [(i.duty, i.priority) for i in asked] == [(Duty.EVENT, Priority.EVENT)]


async def test_a_second_connection_replaces_the_first(start: Start, kit: Any) -> None:
    field = await start()
    old = await field.call(1)
    old.mute = True
    running = field.engine.submit(kit.item(1))
    await until(lambda: len(old.frames) == 2)
    new = await field.call(1)
    assert (await running).status is Status.LINK_DOWN
    await until(lambda: old.closed)
    assert (await field.engine.submit(kit.item(1))).status is Status.DONE and len(new.frames) == 2
    await until(lambda: len(field.events()) == 6)
    codes = [e.code for e in field.events()]
    assert codes == ["link.online", "link.login", "link.replaced", "link.offline", "link.online", "link.login"]
    assert field.session(1).replaced == 1 and field.session(1).connects == 2


async def test_an_unknown_terminal_is_listed_held_and_served_once_it_is_known(start: Start, kit: Any) -> None:
    field = await start(1)
    stranger = await field.call(7, login=False)
    stranger.say(LOGIN)
    stranger.say(HEARTBEAT)
    await until(lambda: [r.frames for r in field.engine.terminals.unknown.rows()] == [2])
    (row,) = field.engine.terminals.unknown.rows()
    assert (row.address.decimal, row.address.hexadecimal, row.held, row.link) == ("3301-7", "33010007", True, "field")
    assert "device list" in row.reason and row.peer == "{}:{}".format(*stranger.writer.get_extra_info("sockname"))
    assert not stranger.frames and not stranger.closed
    gone = await field.call(8, login=False)
    gone.say(LOGIN)
    await until(lambda: len(field.engine.terminals.unknown) == 2)
    await gone.close()
    await field.engine.set_devices([device(1), device(7), device(8)])
    assert (await field.engine.submit(kit.item(7))).status is Status.DONE
    assert not field.engine.terminals.unknown.rows() and not field.engine.terminals.held
    assert field.engine.online(8) is False
    await field.engine.set_devices([device(1), msgspec.structs.replace(device(7), enabled=False)])
    await until(lambda: stranger.closed)
    again = await field.call(7, login=False)
    again.say(LOGIN)
    await until(lambda: field.engine.terminals.unknown.rows())
    assert "disabled" in field.engine.terminals.unknown.rows()[0].reason


async def test_unknown_terminals_may_be_denied_and_the_table_is_bounded(start: Start) -> None:
    field = await start(1, unknown="deny")
    field.engine.terminals.unknown.limit = 2
    first = await field.call(7)
    assert first.frames[0].user.hex() == "006100000200"
    await field.call(8)
    third = await field.call(9, login=False)
    third.say(LOGIN)
    await until(lambda: third.closed)  # no room: both are connected
    assert field.engine.terminals.unknown.refused == 1
    await first.close()
    await until(lambda: not all(r.held for r in field.engine.terminals.unknown.rows()))
    assert (await field.call(9)).frames[0].user.hex() == "006100000200"
    twice = await field.call(9)
    assert len(field.engine.terminals.held) == 2 and twice.frames


async def test_a_silent_connection_is_dropped_after_two_heartbeats(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert terminals.patience_s(300) == 660
    monkeypatch.setattr(terminals, "patience_s", lambda heartbeat_s: heartbeat_s / 1000)
    field = await start([device(1, heartbeat_s="200"), device(2, heartbeat_s="3600000")], idle_timeout_s=0.4)
    dead, alive = await field.call(1), await field.call(2)
    await until(lambda: dead.closed)
    assert not alive.closed and field.engine.online(1) is False
    await until(lambda: field.events("link.offline"))
    assert field.events("link.offline")[0].device == 1


async def test_several_terminals_may_share_a_connection(start: Start, kit: Any) -> None:
    field = await start([device(1), device(2, line="3301-1")])
    main = await field.call(1)
    outcomes = await asyncio.gather(*(field.engine.submit(kit.item(n)) for n in (1, 2)))
    assert [o.status for o in outcomes] == [Status.DONE] * 2
    assert {f.address.a2 for f in main.frames} == {1, 2}
    main.a2 = 2
    main.say(EVENT, 0xC4)
    await until(lambda: field.events("ERC"))
    assert field.events("ERC")[0].device == 2
    main.a2 = 3
    main.say(HEARTBEAT)
    await until(lambda: field.engine.terminals.unknown.rows())
    assert field.engine.terminals.unknown.rows()[0].address.a2 == 3


@pytest.mark.parametrize("rate", [0, 2000])
async def test_a_storm_of_logins_is_answered_to_the_last(start: Start, rate: float) -> None:
    field = await start(300, admission_per_s=rate)
    callers = await asyncio.gather(*(field.call(n) for n in range(1, 301)))
    assert all(len(c.frames) == 1 for c in callers)
    (state,) = field.engine.link_states()
    assert (state.lines, state.lines_up, state.counters.rejected) == (300, 300, 0)
    await until(lambda: len(field.events("link.online")) == 300)
    families = {m.name: m for m in EngineMetrics(field.engine).collect()}
    assert families["fuhe_link_up"].samples[0].value == 300
    assert families["fuhe_terminal_unknown"].samples[0].value == 0
    await asyncio.gather(*(c.close() for c in callers))  # and all come back
    field.callers.clear()
    again = await asyncio.gather(*(field.call(n) for n in range(1, 301)))
    assert all(len(c.frames) == 1 for c in again)


async def test_a_full_collector_puts_reports_off(start: Start) -> None:
    field = await start()
    terminal = await field.call(1)
    field.engine.collector.full = True
    terminal.say(EVENT, 0xC4, seq=5)
    terminal.say(HEARTBEAT)
    await until(lambda: len(terminal.frames) == 2)
    field.engine.collector.full = False
    assert field.engine.terminals.put_off == 1
    terminal.say(EVENT, 0xC4, seq=5)
    await until(lambda: len(terminal.frames) == 3)


async def test_signs_of_life_and_clocks_are_told(start: Start) -> None:
    field = await start()
    terminal = await field.call(1)
    terminal.say(HEARTBEAT + "512100306316")
    await until(lambda: len(terminal.frames) == 2)
    assert [h[0] for h in field.heard] == [1, 1] and field.heard[0][2] is None
    offset = field.heard[1][2]
    assert offset is not None and offset < -1e7
    state = field.engine.device_state(1)
    assert state is not None and state.reached_us is not None and state.online is True
    traffic = field.session(1).take_traffic(field.kit.clock.now_us())
    assert [(t.rx_frames, t.tx_frames) for t in traffic] == [(2, 2)]
    assert traffic[0].rx_bytes == len(terminal.frame(LOGIN)) * 2 + 6


async def test_read_only_still_confirms_and_reads(start: Start, kit: Any) -> None:
    field = await start(read_only=True, unknown="deny")
    terminal, stranger = await field.call(1), await field.call(9)
    terminal.say(EVENT, 0xC4)
    await until(lambda: len(terminal.frames) == 2)
    assert (await field.engine.submit(kit.item(1))).status is Status.DONE
    assert len(stranger.frames) == 1 and field.engine.guard.refused == 0


async def test_a_terminal_that_vanished_is_noticed_by_its_silence(start: Start, kit: Any) -> None:
    field = await start([device(1, heartbeat_s="86400")], half_open_s=0.1)
    terminal = await field.call(1)
    terminal.mute = True
    profile = msgspec.structs.replace(PROFILE, timing=Timing(reply_timeout_s=0.05, inter_byte_s=0.05))
    await field.engine.set_devices([device(1, heartbeat_s="86400")], {"terminal": profile})
    asked = [field.engine.submit(kit.item(1, Priority.CONTROL, items=(str(n),))) for n in range(6)]
    outcomes = await asyncio.gather(*asked)
    assert [o.status for o in outcomes] == [Status.SILENT] * 3 + [Status.LINK_DOWN] * 3
    await until(lambda: terminal.closed)
    await until(lambda: field.events("link.offline"))
    assert "stopped answering" in str(field.events("link.offline")[0].data["reason"])
    again = await field.call(1)
    assert (await field.engine.submit(kit.item(1))).status is Status.DONE and len(again.frames) == 2


async def test_every_repeat_of_a_login_or_heartbeat_is_answered(start: Start) -> None:
    field = await start()
    terminal = await field.call(1)
    for text in (LOGIN, HEARTBEAT, HEARTBEAT):  # the confirmations before were lost
        terminal.say(text, seq=7)
    await until(lambda: len(terminal.frames) == 4)
    assert [f.user[1] for f in terminal.frames[1:]] == [0x67] * 3


async def test_terminals_of_a_modem_that_registers_with_a_text(start: Start, kit: Any) -> None:
    field = await start([device(1, line="m1", heartbeat_s="600")], protocol="text")
    reader, writer = await asyncio.open_connection(*field.engine.listening("field"))
    writer.write(b"REG:m1\r\n")
    terminal = Terminal(reader, writer, 1)
    field.callers.append(terminal)
    terminal.say(LOGIN)
    terminal.say(EVENT, 0xC4)
    await until(lambda: len(terminal.frames) == 2)
    assert (await field.engine.submit(kit.item(1))).status is Status.DONE
    (caller,) = field.engine._servers["field"].callers
    assert caller.patience_s == terminals.patience_s(600)


async def test_a_terminal_that_listens_itself_reports_over_our_connection(kit: Any, asked: list[WorkItem]) -> None:
    callers: list[Terminal] = []
    server = await asyncio.start_server(lambda r, w: callers.append(Terminal(r, w, 1)), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    field = Field(kit, LinkConfig(name="field", kind="tcp", port_no=port), [device(1), device(2)])
    await field.engine.start()
    await until(lambda: callers)
    (terminal,) = callers
    outcomes = await asyncio.gather(*(field.engine.submit(kit.item(n)) for n in (1, 2)))
    assert [o.status for o in outcomes] == [Status.DONE] * 2
    terminal.frames.clear()
    terminal.say(EVENT, 0xC4)
    await until(lambda: terminal.frames)
    assert terminal.frames[0].user[2:] == bytes.fromhex("00000100")
    assert field.engine.online(1) is None and not field.events("link.")
    await field.engine.stop()
    await terminal.close()
    server.close()


async def test_radio_is_polled_and_a_report_waits_for_the_end_of_the_transaction(
    kit: Any, asked: list[WorkItem]
) -> None:
    """Half duplex, several terminals on the air; the pieces of an answer come slowly."""
    master, slave = os.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    link = LinkConfig(
        name="field", kind="serial", port=os.ttyname(slave), parity="N", baud=115200, turnaround_ms=1, msa=3
    )
    field = Field(kit, link, [device(1), device(2)])
    loop, framer = asyncio.get_running_loop(), Framer()
    heard: list[Frame] = []

    def readable() -> None:
        framer.feed(os.read(master, 4096))
        while not isinstance(event := framer.next_event(), NeedMore):
            assert isinstance(event, Frame)
            heard.append(event)

    loop.add_reader(master, readable)
    await field.engine.start()
    session = field.session(1)
    assert session.settings.max_bytes == 255
    plan = field.engine._owners["field"].line.stations[1].profile.terminal
    assert plan is not None and plan.answer_bytes == 255
    for number in (1, 2):
        running = field.engine.submit(kit.item(number))
        await until(lambda number=number: len(heard) == 2 * number - 1)  # type: ignore[misc]
        question = heard[-1]
        report = bytes.fromhex(EVENT.format(seq=f"{0x74 + number:02X}"))
        os.write(master, Frame(0xC4, Address("3301", number), report).encode())
        os.write(master, Frame(0xC9, Address("3301", 77), bytes.fromhex("027100000400")).encode())  # a neighbour
        await until(lambda number=number: len(field.events("ERC")) == number)  # type: ignore[misc]
        assert len(heard) == 2 * number - 1  # the air is not ours yet
        answer = bytes((0x0C, 0x60 | question.user[1] & 0x0F)) + bytes.fromhex("00000200563412300316")
        data = Frame(0x88, question.address, answer).encode()
        for piece in (data[:3], data[3:20], data[20:]):
            os.write(master, piece)
            await asyncio.sleep(0.01)
        assert (await running).status is Status.DONE
        await until(lambda number=number: len(heard) == 2 * number)  # type: ignore[misc]
        assert heard[-1].user[:2] == bytes((0, 0x64 + number)) and heard[-1].address.a2 == number
    assert [r.address.a2 for r in field.engine.terminals.unknown.rows()] == [77]
    loop.remove_reader(master)
    await field.engine.stop()
    os.close(master)
    os.close(slave)


async def test_udp_answers_go_where_the_last_datagram_came_from(kit: Any, asked: list[WorkItem]) -> None:
    link = LinkConfig(name="field", kind="listen-udp", protocol="qgdw1376")
    field = Field(kit, link, [device(1)])
    await field.engine.start()
    loop = asyncio.get_running_loop()

    class Peer(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.got: list[Frame] = []

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            framer = Framer()
            framer.feed(data)
            frame = framer.next_event()
            assert isinstance(frame, Frame)
            self.got.append(frame)

    def up(text: str, control: int = 0xC9) -> bytes:
        return Frame(control, Address("3301", 1), bytes.fromhex(text)).encode()

    peers = [(await loop.create_datagram_endpoint(Peer, remote_addr=field.engine.listening("field")))[1]
             for _ in range(2)]  # fmt: skip
    first, second = peers
    first.transport.sendto(up("027100000100") + up("027200000400"))
    await until(lambda: len(first.got) == 2)
    running = field.engine.submit(kit.item(1))
    await until(lambda: len(first.got) == 3)
    question = first.got[2]
    second.transport.sendto(up("027300000400"))  # the network gave it another port meanwhile
    await until(lambda: second.got)
    user = bytes((0x0C, 0x60 | question.user[1] & 0x0F)) + bytes.fromhex("00000200563412300316")
    answer = Frame(0x88, question.address, user).encode()
    second.transport.sendto(answer[:9])  # half a frame in a datagram is lost, and does not spoil the next
    second.transport.sendto(answer)
    assert (await running).status is Status.DONE  # the conversation went on
    asking = field.engine.submit(kit.item(1))
    await until(lambda: len(second.got) == 2)
    second.transport.sendto(
        Frame(0x88, question.address, bytes((0x0C, 0x60 | second.got[1].user[1] & 15)) + user[2:]).encode()
    )
    assert (await asking).status is Status.DONE
    session = field.session(1)
    assert (session.moved, session.connects, session.replaced) == (1, 1, 0)
    for peer in peers:
        peer.transport.close()
    await field.engine.stop()
    assert {e.code for e in field.events()} >= {"link.online", "link.moved", "link.offline"}


async def test_what_was_stored_of_a_terminal_is_known_again(start: Start) -> None:
    field = await start()
    spans = "202605201030-202605201115"
    field.engine.remember([(1, "0E:F1", "17"), (1, "clock:suspect", spans), (2, "0E:F2", "256"), (9, "0E:F1", "1")])
    assert (field.session(1).ec1_read, field.session(1).ec2_read) == (17, None)
    assert field.session(1).suspect == suspect_spans(spans) != ()
    assert (field.session(2).ec2_read, field.session(2).suspect) == (None, ())
    field.session(1).suspect, field.session(1).ec1_read = ((1, 2),), 20
    field.engine.remember([(1, "0E:F1", "18"), (1, "clock:suspect", spans)])
    assert (field.session(1).suspect, field.session(1).ec1_read) == (((1, 2),), 20)
