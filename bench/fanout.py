"""One order to 2,000 terminals (AFN 05 F1, no alarm): from the executing word to the last acknowledgement.

The real daemon (`fuhe run`, embedded PostgreSQL) with `fuhe sim fleet` as the far end, everything before the word done
by five people through the functions behind the verbs: rounds, plan, order, proposal, two signatures each, notices.
Each command costs a read of the terminal's state, its interlocks, and two transactions in groups. The pace
is that of the configuration; the figures are what it takes beyond the place that the pace gives each command. The peer
is a bare epoll loop that sends the same frames to the same fleet at the same pace, and then as fast as it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import math
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.io.clock import SystemClock
from fuhe.acquisition.io.engine import Engine
from fuhe.acquisition.profiles import load_profiles
from fuhe.control import accounts, commands, orders, plans, proposals, rounds
from fuhe.control.audit import Actor
from fuhe.control.power import stored_power
from fuhe.daemon.config import load_config
from fuhe.model.control import ActionKind, ControlAction
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.readings import ReadingBatch
from fuhe.model.times import BUSINESS_ZONE, from_us
from fuhe.model.work import Duty, Priority, WorkItem
from fuhe.protocols.qgdw1376.edition import edition
from fuhe.protocols.qgdw1376.frame import Address, Frame, Framer
from fuhe.protocols.qgdw1376.link import confirmation, head_of
from fuhe.protocols.qgdw1376.message import Message, Tp, build
from fuhe.protocols.qgdw1376.units import Unit
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.devices import apply_devices

from .daemon import FUHE, LIMIT_S, _cpu, _Log, _postgres, _Process
from .killing import free_port
from .links import Row

TERMINALS = 2_000
PACE = 200.0
ROUND_KW = 10.0
PASSWORD = "bench-4711"
PEOPLE = ("inside", "dispatcher", "guard", "leading")
PROFILE = """inherits = "qgdw1376-2013"
title_en = "Bench terminal"
title_zh = "测试终端"
[control]
keys = false
setpoint = false
"""


@contextlib.contextmanager
def _fleet(port: int, count: int) -> Iterator[None]:
    """`fuhe sim fleet`: the same for the daemon and for the peer."""
    words = ("sim", "fleet", "--terminals", str(count), "--connect", f"127.0.0.1:{port}", "--login-rate", "1000")
    with subprocess.Popen((*FUHE, *words, "--json"), stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


# -- the peer ---------------------------------------------------------------------------------------------------------


def _trip(a2: int, at: datetime, seq: int) -> bytes:
    """The frame that the daemon sends too: trip of round 1, PW of zeros, a time tag of 5 minutes."""
    message = Message(
        up=False, prm=True, function=10, address=Address("3301", a2, msa=1), afn=5, seq=seq, con=True,
        units=(Unit(1, 1, {"alarm_delay_min": 0, "limit_half_hours": 0}),),
        tp=Tp(seq, at.day, at.hour, at.minute, at.second, 5),
    )  # fmt: skip
    return build(message, edition("2013")).encode()


def _bare(count: int, pace: float) -> dict[str, float]:
    """Seconds beyond the pace until each terminal has acknowledged; and all of them without a pace."""
    server = socket.create_server(("127.0.0.1", 0), backlog=4096)
    poll, socks = select.epoll(), dict[int, tuple[socket.socket, Framer, int]]()
    with _fleet(server.getsockname()[1], count):
        while len(socks) < count:
            sock, _ = server.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            framer = Framer()
            framer.feed(sock.recv(4096))
            frame = framer.next_event()
            assert isinstance(frame, Frame)
            head = head_of(frame)
            assert head is not None
            sock.sendall(confirmation(frame, head))
            socks[sock.fileno()] = sock, framer, frame.address.a2
            poll.register(sock.fileno(), select.EPOLLIN)
        time.sleep(1.0)
        found: dict[str, float] = {}
        _burst(poll, dict(list(socks.items())[:1]), 0.0)  # the fleet's tables are loaded
        for name, gap in (("paced", 1 / pace), ("free", 0.0)):
            late = _burst(poll, socks, gap)
            found |= {f"{name}_p99_s": float(np.percentile(late, 99)), f"{name}_last_s": max(late)}
    for sock, _, _ in socks.values():
        sock.close()
    server.close()
    return found


def _burst(poll: select.epoll, socks: Mapping[int, tuple[socket.socket, Framer, int]], gap: float) -> list[float]:
    """Delay of every acknowledgement behind the turn of its command."""
    at = from_us(time.time_ns() // 1000).astimezone(BUSINESS_ZONE).replace(tzinfo=None)
    waiting, turns, late = list(socks), dict[int, float](), list[float]()
    begin = time.monotonic()
    while len(late) < len(socks):
        t = time.monotonic() - begin
        while waiting and len(turns) * gap <= t:
            fd = waiting.pop()
            turns[fd] = len(turns) * gap
            socks[fd][0].sendall(_trip(socks[fd][2], at, len(turns) % 16))
        for fd, _ in poll.poll(0.001, 256):
            sock, framer, _ = socks[fd]
            framer.feed(sock.recv(4096))
            while isinstance(framer.next_event(), Frame):
                late.append(time.monotonic() - begin - turns[fd])
    return late


# -- the session layer alone ------------------------------------------------------------------------------------------


class _Nowhere:
    """A sink for what is not measured here."""

    async def deliver(self, batch: ReadingBatch) -> None:
        """Take it."""


async def _sessions(folder: Path, count: int) -> float:
    """Seconds from the first command handed to the engine to the last acknowledgement: no database, no pace."""
    (folder / "bench-control.toml").write_text(PROFILE, encoding="utf-8")
    link = LinkConfig(name="fleet", kind="listen-tcp", protocol="qgdw1376", admission_per_s=2000)
    devices = [msgspec.structs.replace(d, id=n) for n, d in enumerate(_devices(count), 1)]
    engine = Engine(
        [link], devices, load_profiles(folder), lambda device: Credentials(), _Nowhere(), SystemClock(), lambda: False,
        seed=1,
    )  # fmt: skip
    await engine.start()
    try:
        with _fleet(engine.listening("fleet")[1], count):
            while not all(engine.online(d.id) for d in devices):  # noqa: ASYNC110 - logins are counted, not awaited
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)
            valid_us = time.time_ns() // 1000 + 900_000_000
            await engine.submit(_trip_item(1, valid_us, "first"))  # the fleet's tables are loaded
            begin = time.monotonic()
            outcomes = await asyncio.gather(*(engine.submit(_trip_item(d.id, valid_us, "all")) for d in devices))
            took = time.monotonic() - begin
    finally:
        await engine.stop()
    silent = [o.reason for o in outcomes if o.answer is None or not o.answer.acknowledged]
    assert not silent, f"{len(silent)} of {count} without acknowledgement: {silent[0]}"
    return took


def _trip_item(device: int, valid_until_us: int, order: str) -> WorkItem:
    action = ControlAction(id=f"{order}-{device}", kind=ActionKind.TRIP, valid_until_us=valid_until_us)
    return WorkItem(device=device, duty=Duty.CONTROL, priority=Priority.CONTROL, expires_s=math.inf, action=action)


# -- the daemon -------------------------------------------------------------------------------------------------------


def _devices(count: int) -> Iterator[Device]:
    for n in range(1, count + 1):
        group = Point(id=0, name=f"t{n}-g1", kind="group", pn=1)
        yield Device(
            id=0, name=f"t{n}", link="fleet", profile="bench-control", address=f"3301-{n}",
            points=(Point(id=0, name=f"t{n}-1", pn=1), group), options={"simulated": "1"},
        )  # fmt: skip


def _config(folder: Path, port: int, count: int, pace: float) -> Path:
    link = {"name": "fleet", "kind": "listen-tcp", "port_no": port, "protocol": "qgdw1376", "admission_per_s": 2000}
    off = {"live_s": 0, "curve_s": 0, "event_s": 0, "daily_at": "", "monthly_at": "", "clock_at": "", "gap_scan_s": 0}
    control = {
        "environment": "test", "county_load_kw": 1e7, "restore_margin_kw": 1e6, "step_limit_terminals": count,
        "step_interval_s": 0, "pace_per_s": pace, "min_off_min": 0,
    }  # fmt: skip
    tree = {
        "storage": {"data_dir": str(folder / "data")}, "links": [link], "cycles": off, "http": {"port": 0},
        "control": control,
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def _csv(rows: Sequence[Mapping[str, object]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


class _Desk:
    """Five people, and what they do before somebody says: now."""

    def __init__(self, conn: Any, config: Path, count: int) -> None:
        self.conn, self.count = conn, count
        self.rules = load_config(config).control
        self.people: dict[str, Actor] = {}
        now = self.now_us
        accounts.add_first_administrator(conn, now, "root", PASSWORD)
        boss, _ = accounts.login(conn, now, "root", PASSWORD, "desk")
        for name in PEOPLE:
            accounts.add_account(conn, now, boss, name, name, PASSWORD)
            self.people[name], _ = accounts.login(conn, now, name, PASSWORD, "desk")

    @property
    def now_us(self) -> int:
        return time.time_ns() // 1000

    def plan(self) -> None:
        """Rounds, and a plan of all of them."""
        day = (datetime.now(UTC) - timedelta(days=10)).date().isoformat()
        names = [f"t{n}" for n in range(1, self.count + 1)]
        found = [
            {"device": name, "round": 1, "description": "line", "importance": 1, "typical_kw": ROUND_KW,
             "last_test": day, "contact": 1}
            for name in names
        ]  # fmt: skip
        rounds.import_rounds(self.conn, self.now_us, self.people["inside"], _csv(found))
        rows = [
            {
                "seq": i, "measure": "avoid", "level": "IV", "group": "A", "customer": f"user-{name}", "device": name,
                "round": 1, "reducible_kw": ROUND_KW, "limit_kw": 0, "security_kw": 1, "class": "N",
                "contact": "duty room", "notice": "N3", "last_test": day, "importance": 1, "supply": "single",
            }
            for i, name in enumerate(names, 1)
        ]  # fmt: skip
        today = datetime.now(UTC)
        header = plans.Header(
            name="county", area="county", body="government", document="7", target_kw=self.count * ROUND_KW / 1.2,
            valid_from=today - timedelta(days=1), valid_to=today + timedelta(days=100),
        )  # fmt: skip
        made = plans.import_plan(self.conn, self.now_us, self.people["inside"], _csv(rows), header)
        for who, step in (("guard", "review"), ("leading", "approve"), ("dispatcher", "activate")):
            plans.advance_plan(self.conn, self.now_us, self.people[who], made.id, step, max_test_days=365)

    def order(self) -> int:
        """All of it is wanted: 105 % of the gap is what 2,000 rounds give."""
        now = datetime.now(UTC).replace(microsecond=0)
        received = orders.Received(
            number="D-1", issuer="dispatch", area="county", level="IV", start_at=now, end_at=now + timedelta(hours=2),
            gap_kw=round((self.count - 0.5) * ROUND_KW * 0.95 / 1.05, 1),
        )  # fmt: skip
        made = orders.receive(self.conn, self.now_us, self.people["inside"], received)
        orders.confirm(
            self.conn, self.now_us, self.people["guard"], made.id, number="D-1", gap_kw=received.gap_kw,
            end_at=received.end_at,
        )  # fmt: skip
        return made.id

    def approved(self, order_id: int) -> tuple[list[int], dict[str, float]]:
        """(commands, seconds that each step took): proposed as soon as all are measured, signed twice, told."""
        inside, dispatcher = self.people["inside"], self.people["dispatcher"]
        deadline, took = time.monotonic() + LIMIT_S, dict[str, float]()
        while True:
            begin = time.monotonic()
            power = stored_power(self.conn)
            made = proposals.propose(self.conn, self.now_us, inside, order_id, power, self.rules, commit=False)
            if made.choice.feasible:
                took["propose"] = time.monotonic() - begin
                break
            assert time.monotonic() < deadline, (made.choice.binding, made.choice.total_kw)
            time.sleep(2.0)
        made = proposals.propose(self.conn, self.now_us, inside, order_id, power, self.rules, commit=True)
        assert made.id is not None
        begin = time.monotonic()
        found = commands.submit_proposal(self.conn, self.now_us, inside, made.id, self.rules)
        took["submit"], begin = time.monotonic() - begin, time.monotonic()
        assert len(found) == self.count, f"{len(found)} of {self.count} chosen"
        addresses = dict(self.conn.execute("SELECT id, address FROM device").fetchall())
        digits = {c.id: commands.last_digits(addresses[c.device_id]) for c in found}
        commands.approve_many(self.conn, self.now_us, dispatcher, digits, self.rules)
        took["approve"] = time.monotonic() - begin
        told = [(c.customer, "duty room") for c in found]
        orders.give_notice(self.conn, self.now_us, inside, order_id, told, channel="phone", note="", given=True)
        orders.activate(self.conn, self.now_us, dispatcher, order_id)
        return [c.id for c in found], took


def _measure(folder: Path, count: int, pace: float) -> dict[str, float]:
    data, port = folder / "data", free_port()
    (data / "profiles").mkdir(parents=True)
    (data / "profiles" / "bench-control.toml").write_text(PROFILE, encoding="utf-8")
    config = _config(folder, port, count, pace)
    with Database.open(StorageConfig(data_dir=str(data))) as database, database.connect(autocommit=True) as connection:
        with database.connect() as archive:
            apply_devices(archive, list(_devices(count)))
        log = folder / "daemon.log"
        with log.open("wb") as file:
            process = subprocess.Popen((*FUHE, "-c", str(config), "run"), stderr=file, stdout=file)
        try:
            _Log(log, process).wait("running")
            with _fleet(port, count):
                conn = database.connect("app", autocommit=True)
                desk = _Desk(conn, config, count)
                desk.plan()
                ids, took = desk.approved(desk.order())
                time.sleep(5.0)
                daemon, server = _Process(process.pid), _postgres(data)
                cpu, cpu_server = daemon.cpu_s(), _cpu(server)
                word = time.time()
                commands.execute(conn, desk.now_us, desk.people["inside"], ids)
                said = time.time() - word
                _until_acknowledged(connection, count, log)
                found = {f"{k}_s": v for k, v in took.items()} | {"execute_s": said}
                found["cpu_s"], found["server_s"] = daemon.cpu_s() - cpu, _cpu(server) - cpu_server
                found |= _figures(connection, word, count)
                conn.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0
        except BaseException:
            Path("/tmp/fanout_bench.log").write_bytes(log.read_bytes())
            raise
        finally:
            process.kill()
            process.wait()
    return found


def _until_acknowledged(connection: Any, count: int, log: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while True:
        states = dict(connection.execute("SELECT state, count(*) FROM command GROUP BY state").fetchall())
        (done,) = connection.execute("SELECT count(*) FROM command WHERE acknowledged").fetchone()
        if done == count:
            return
        assert time.monotonic() < deadline, (states, log.read_text(encoding="utf-8")[-2000:])
        time.sleep(0.2)


def _figures(connection: Any, word: float, count: int) -> dict[str, float]:
    """Seconds from the word to the record of each acknowledgement, less its place in the pace; groups of records."""
    rows = connection.execute(
        "SELECT c.position, extract(epoch FROM c.sent_at)::float8, extract(epoch FROM a.time)::float8 FROM command c "
        "JOIN audit a ON a.object = 'command:' || c.id AND a.action = 'command.ack' ORDER BY a.seq"
    ).fetchall()
    assert len(rows) == count
    acks = np.array([r[2] for r in rows]) - word
    late = np.sort(acks) - np.arange(count) / PACE
    answer = acks - (np.array([r[1] for r in rows]) - word)
    (groups,) = connection.execute("SELECT count(DISTINCT time) FROM audit WHERE action = 'command.send'").fetchone()
    return {
        "last_s": float(acks.max()), "p99_late_s": float(np.percentile(late, 99)), "late_s": float(late.max()),
        "answer_p99_s": float(np.percentile(answer, 99)), "groups": float(groups),
    }  # fmt: skip


def _row(name: str, value: float, unit: str, peer: str = "", ratio: float | None = None, target: str = "") -> Row:
    return {
        "bench": "fanout", "name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio, "target": target,
    }  # fmt: skip


def run(quick: bool = False) -> list[Row]:
    """All figures; `quick`: a tenth of the terminals."""
    count = TERMINALS // 10 if quick else TERMINALS
    bare, found = _bare(count, PACE), []
    with tempfile.TemporaryDirectory() as name:
        sessions_s = asyncio.run(_sessions(Path(name), count))
    for pace in (PACE, 0.0):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            folder.chmod(0o711)  # the embedded server runs as another user when we are root
            found.append(_measure(folder, count, pace))
    got, free = found
    order, paced = f"{count:,} terminals in one order", (count - 1) / PACE
    return [
        _row(f"{order}: beyond the pace of {PACE:.0f}/s until each is acknowledged, p99", got["p99_late_s"], "s",
             f"bare sockets, frames only: {bare['paced_p99_s']:.3f} s", got["p99_late_s"] / bare["paced_p99_s"], "1 s"),
        _row(f"{order}: from the executing word to the last acknowledgement on record", got["last_s"], "s",
             f"the pace alone {paced:.2f} s", got["last_s"] / paced, f"{paced + 1:.2f} s"),
        _row(f"{order}: the same without a pace (pace_per_s: 0)", free["last_s"], "s",
             f"bare sockets, frames only: {bare['free_last_s']:.2f} s", free["last_s"] / bare["free_last_s"]),
        _row(f"{count:,} terminals: the session layer alone, without a pace", sessions_s, "s",
             f"bare sockets, frames only: {bare['free_last_s']:.2f} s", sessions_s / bare["free_last_s"], "≤ 3 x"),
        _row(f"{order}: frame to the record of its acknowledgement, p99", got["answer_p99_s"], "s"),
        _row(f"{order}: transactions that the sending took", got["groups"], "",
             f"{count / got['groups']:.0f} commands each"),
        _row(f"{order}: CPU of the daemon", 1000 * got["cpu_s"] / count, "ms/command",
             f"{1000 * got['server_s'] / count:.2f} ms of the database's processes"),
        _row(f"{order}: proposal from measured power", got["propose_s"], "s"),
        _row(f"{order}: submitted, first signature", got["submit_s"], "s"),
        _row(f"{order}: second signature", got["approve_s"], "s"),
        _row(f"{order}: the executing word itself", got["execute_s"], "s"),
    ]  # fmt: skip


if __name__ == "__main__":
    for one in run("--quick" in sys.argv):
        print(one)
