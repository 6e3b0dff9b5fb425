"""The terminal's own connection and its reports, stepped by hand: login, heartbeats, logout, repeats, backlog."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from fuhe.protocols.qgdw1376.frame import cut
from fuhe.protocols.qgdw1376.message import Message, build, confirm, parse
from fuhe.protocols.qgdw1376.units import Unit
from fuhe.simulator.faults import Fault
from fuhe.simulator.terminal.device import Options
from fuhe.simulator.wire import Reply


class Line:
    """The connection of one station, without a socket."""

    def __init__(self, master: Any) -> None:
        self.master, self.station, self.link = master, master.station, master.station.link

    def read(self, replies: list[Reply]) -> list[Message]:
        return [parse(f, self.master.edition) for r in replies for f in cut(r.data)[0]]

    def connect(self) -> list[Message]:
        return self.read(self.station.connected(self.master.bench.now))

    def wait(self, seconds: float, step: float = 1.0) -> list[tuple[float, Message]]:
        """Everything said in the next seconds, with its time from the start."""
        out = []
        for _ in range(int(seconds / step)):
            self.master.bench.step(step)
            now = self.master.bench.now
            at = (now - self.master.bench.start_us) / 1e6
            out += [(at, m) for m in self.read(self.station.poll(now))]
        return out

    def confirm(self, message: Message, *, ok: bool = True) -> None:
        frame = build(confirm(message, ok=ok), self.master.edition)
        assert self.master.session.receive(frame.encode(), self.master.bench.now) == []

    def login(self) -> None:
        self.confirm(self.connect()[0])
        assert self.link.state == "online"


def kinds(said: list[tuple[float, Message]]) -> list[tuple[float, int, int]]:
    return [(at, m.afn, m.units[0].fn) for at, m in said]


def uplink(**changes: Any) -> dict[str, Any]:
    return {
        "rts_x20ms": 0, "max_delay_min": 0, "timeout_s": 10, "retries": 2, "con_flags": 4, "heartbeat_min": 5,
    } | changes  # fmt: skip


def test_login_is_said_three_times_then_the_connection_is_dropped(make_master: Any) -> None:
    line = Line(make_master(dials=True, p1=uplink()))
    first = line.connect()[0]
    assert (first.control, first.afn, first.con, first.address.msa) == (0xC9, 2, True, 0)
    said = line.wait(45)
    assert kinds(said) == [(10, 2, 1), (20, 2, 1)] and line.link.state == "leaving"
    line.link.disconnected(line.master.bench.now)
    assert not line.link.wants_connection(line.master.bench.now)
    line.wait(30)
    assert line.link.wants_connection(line.master.bench.now)  # F8: redial after 30 s


def test_heartbeats_follow_silence_and_three_unanswered_end_the_connection(make_master: Any) -> None:
    line = Line(make_master(dials=True, p1=uplink()))
    line.login()
    beats = line.wait(300)
    assert kinds(beats) == [(300, 2, 3)]
    clock = beats[0][1].units[0].data
    assert clock is not None and clock["terminal_clock"] == line.master.bench.local()
    line.confirm(beats[0][1])
    line.wait(200)
    line.master.ask(0x0C, Unit(0, 2, {}))  # any frame of the master restarts the time
    assert kinds(line.wait(330)) == [(800, 2, 3), (810, 2, 3), (820, 2, 3)]
    assert line.link.state == "leaving"


def test_a_refused_login_is_tried_again(make_master: Any) -> None:
    line = Line(make_master(dials=True, p1=uplink()))
    line.confirm(line.connect()[0], ok=False)
    assert line.link.state == "login"
    again = line.wait(10)
    assert kinds(again) == [(10, 2, 1)]
    line.confirm(again[0][1])
    assert line.link.state == "online" and line.link.logins == 1


def test_heartbeats_of_older_editions_carry_no_clock(make_master: Any) -> None:
    line = Line(make_master(dials=True, edition="2009", p1=uplink(heartbeat_min=1)))
    line.login()
    assert line.wait(60)[0][1].units[0].data == {}


def test_important_events_are_reported_until_confirmed(make_master: Any) -> None:
    line = Line(make_master(dials=True, p1=uplink(), p9={"record": [5], "important": [5]}))
    line.login()
    trip = Unit(1, 1, {"alarm_delay_min": 0, "limit_half_hours": 0})
    assert line.master.done(0x05, trip)
    said = line.wait(145)
    assert kinds(said) == [(120, 14, 1), (130, 14, 1), (140, 14, 1)]
    report = said[-1][1]
    assert (report.control, report.con, report.acd, report.ec) == (0xEA, True, True, (1, 0))
    assert report.units[0].data is not None and report.units[0].data["events"][0]["erc"] == 5  # type: ignore[index]
    line.confirm(report)
    assert line.wait(60) == []
    assert not line.master.ask(0x0C, Unit(0, 2, {})).acd
    line.master.done(0x05, Unit(0, 37, {}))  # no reports any more
    line.master.done(0x05, Unit(1, 2, {}))
    line.master.done(0x05, trip)
    assert line.wait(200) == [] and line.master.ask(0x0C, Unit(0, 2, {})).acd


def test_reports_that_nobody_confirms_are_given_up(make_master: Any) -> None:
    line = Line(make_master(dials=True, p1=uplink(retries=1), p9={"record": [5], "important": [5]}))
    line.login()
    line.master.done(0x05, Unit(1, 1, {"alarm_delay_min": 0, "limit_half_hours": 0}))
    assert kinds(line.wait(200)) == [(120, 14, 1), (130, 14, 1)]
    assert line.station.reporter.given_up == 1 and line.master.ask(0x0C, Unit(0, 2, {})).acd


def test_tasks_report_and_the_backlog_follows_a_restart(make_master: Any) -> None:
    base = datetime(2001, 1, 1, 0, 5)  # noqa: DTZ001
    task = {"unit": "min", "period": 15, "base_time": base, "ratio": 1, "n": 1}
    down = Fault(kind="restart", target=("terminal",), start_s=1_000, end_s=4_000)
    line = Line(
        make_master(
            down, dials=True, p1=uplink(con_flags=2, heartbeat_min=200),
            p65_1=task | {"ids": [{"pn": [1], "fn": [25]}]}, p67_1={"switch": 0x55},
            p66_2=task | {"ids": [{"pn": [1], "fn": [81]}]}, p68_2={"switch": 0x55},
        )
    )  # fmt: skip
    line.login()
    said = line.wait(990)
    assert [(at, m.afn, m.con) for at, m in said if m.afn != 2] == [(300, 12, False), (301, 13, True), (311, 13, True),
                                                                    (321, 13, True)]  # fmt: skip
    curve = said[1][1].units[0].data
    assert curve is not None and curve["td_c"] == datetime(2025, 7, 31, 12, 0) and curve["n"] == 1  # noqa: DTZ001
    assert line.wait(60) == []
    line.link.disconnected(line.master.bench.now)
    assert line.wait(2_800, 10) == [] and line.master.session.receive(b"", line.master.bench.now) == []
    line.wait(200)
    line.login()
    late = [m for _, m in line.wait(30) if m.afn == 0x0D]
    assert late and late[0].units[0].data is not None
    assert late[0].units[0].data["td_c"] <= line.master.bench.local() - timedelta(minutes=30)


def test_restart_and_disconnect_log_out_first(make_master: Any) -> None:
    line = Line(make_master(dials=True, options=Options(boot_s=60), p1=uplink()))
    line.login()
    answer, logout = line.read(
        line.master.session.receive(line.master.frame(0x01, Unit(0, 1, {})).encode(), line.master.bench.now)
    )
    assert answer.confirmed and (logout.afn, logout.units[0].fn) == (2, 2) and line.link.state == "leaving"
    line.link.disconnected(line.master.bench.now)
    line.wait(59)
    assert not line.link.wants_connection(line.master.bench.now)
    line.wait(1)
    assert line.link.wants_connection(line.master.bench.now)
    line.login()
    assert len(line.master.send(line.master.frame(0x05, Unit(0, 39, {})))) == 2
    assert line.link.state == "leaving"


def test_without_supply_nothing_is_said_and_nobody_dials(make_master: Any) -> None:
    off = Fault(kind="power_off", target=("terminal",), start_s=100, end_s=400)
    line = Line(make_master(off, dials=True, p1=uplink(heartbeat_min=1)))
    line.login()
    assert kinds(line.wait(95)) == [(60, 2, 3), (70, 2, 3), (80, 2, 3)]
    line.link.disconnected(line.master.bench.now)
    line.wait(200)
    assert not line.link.wants_connection(line.master.bench.now)
    line.wait(160)
    assert line.link.wants_connection(line.master.bench.now)
    line.login()
    assert [m.units[0].data["events"][0]["erc"] for _, m in line.wait(5) if m.afn == 14] == [14]  # type: ignore[index]
