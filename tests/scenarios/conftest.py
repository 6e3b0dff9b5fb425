"""A small county: simulated meters on real wires, a real PostgreSQL, the real daemon as a process, people.

The simulation runs in a thread with a loop of its own and is the witness: it knows the true load and every byte that
was on a wire. People act through the same functions as the verbs of `fuhe control`.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from argon2 import PasswordHasher
from click.testing import CliRunner

from fuhe.cli import root
from fuhe.control import accounts, commands, orders, plans, proposals, releases, rounds
from fuhe.control.audit import Actor
from fuhe.control.commands import Command
from fuhe.control.config import ControlConfig
from fuhe.control.power import stored_power
from fuhe.control.records import scalar
from fuhe.control.rules.states import State
from fuhe.daemon.config import Config, load_config
from fuhe.protocols.common.framer import NeedMore
from fuhe.protocols.dlt645.frame import Frame, Framer
from fuhe.protocols.guard import is_write
from fuhe.simulator.emit import emit
from fuhe.simulator.faults import Fault
from fuhe.simulator.scenario import parse_scenario
from fuhe.simulator.simulation import Simulation
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database

PASSWORD = "scenario-4711"
PEOPLE = ("inside", "dispatcher", "guard", "leading", "auditor")
PATIENCE_S = 45.0
CYCLES = {"curve_s": 900, "event_s": 0, "gap_scan_s": 2, "spread_s": 0}
CONTROL = {
    "environment": "test", "county_load_kw": 60000.0, "restore_margin_kw": 20000.0, "min_off_min": 0,
    "verify_at_s": [1, 3, 6], "power_before_s": 10, "restore_wait_s": 1, "supervise_s": 1, "unknown_read_s": 1,
    "step_interval_s": 0,
}  # fmt: skip
RELAY = {
    "profile": "dlt645-2007-relay", "bus": "line", "ct_ratio": 100, "password": "020637", "operator": "00000012",
    "relay": {"delay_s": 0.2, "human_s": 0.3},
}  # fmt: skip


def meter(name: str, number: int, kw: float = 300.0, **changes: object) -> dict[str, object]:
    """A DL/T 645 meter with one relay on the serial line; `kw` behind it at full load."""
    site = {"shape": "cement", "base_kw": 60.0, "rounds": [{"kw": kw}]}
    return {"name": name, "address": f"2026000009{number:02d}", "site": site, **RELAY, **changes}


def scenario(devices: Sequence[Mapping[str, object]], *, past_days: int = 0) -> dict[str, object]:
    """One serial line (a pseudo-terminal), a Modbus TCP server, a broker, as far as the devices need them.

    `terminals` and `datagrams` dial a listener of the daemon on one free port, over TCP and UDP.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    buses: list[dict[str, object]] = [
        {"name": "line", "kind": "pty", "protocol": "dlt645", "td_s": 0.002},
        {"name": "modbus", "kind": "tcp", "protocol": "modbus-tcp", "td_s": 0.002},
        {"name": "broker", "kind": "mqtt", "protocol": "mqtt", "broker": True},
        {"name": "terminals", "kind": "dial", "protocol": "qgdw1376", "port": port, "td_s": 0.01},
        {"name": "datagrams", "kind": "udp", "protocol": "qgdw1376", "port": port, "td_s": 0.01},
    ]
    used = {d["bus"] for d in devices}
    return {
        "name": "scenario", "seed": 7, "past_days": past_days, "buses": [b for b in buses if b["name"] in used],
        "devices": list(devices),
    }  # fmt: skip


class Field:
    """The simulated field in a thread of its own; what it says is the truth."""

    def __init__(self, tree: object) -> None:
        self.sim = Simulation(parse_scenario(tree))
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="field", daemon=True)
        self._thread.start()
        assert self._ready.wait(20), "the simulation did not start"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with self.sim:
            self._ready.set()
            await self._stop.wait()

    def do(self, action: Callable[[], Any]) -> Any:
        """Something happens in the field now, or is looked at (in its own thread)."""

        async def inside() -> Any:
            return action()

        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result(10)

    def fault(self, kind: str, device: str, **fields: Any) -> None:
        """A device begins to misbehave."""
        self.do(lambda: self.sim.inject(Fault(kind=kind, target=(device,), **fields)))

    def close(self) -> None:
        """Everything unplugged."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def kw(self, device: str) -> float:
        """What the site really draws."""
        return float(self.do(lambda: self.sim.true_power(device)))

    def relay_open(self, device: str, number: int = 1) -> bool:
        """Where the contact really is."""
        return self.sim.relays_of(device)[number - 1].contact_open

    def relay_frames(self) -> list[tuple[str, str]]:
        """Every relay control that was on the serial line: (address, action code N1: 1A trip, 1B permit to close)."""
        framer = Framer(255)
        framer.feed(b"".join(f.data for f in list(self.sim.observer.frames("line")) if f.direction == "in"))
        found = []
        while not isinstance(event := framer.next_event(), NeedMore):
            if isinstance(event, Frame) and event.control & 0x1F == 0x1C:
                found.append((event.address, f"{event.data[8]:02X}"))
        return found

    def writes(self) -> list[tuple[str, str]]:
        """Everything from the master that is not certainly a read, on any wire."""
        found = [(f"line {address}", action) for address, action in self.relay_frames()]
        for wire, protocol in (("modbus", "modbus-tcp"), ("broker", "mqtt")):
            seen = [f for f in list(self.sim.observer.frames(wire)) if f.direction == "in"]
            found += [(wire, f.data.hex()) for f in seen if is_write(protocol, f.data)]
        return found


class County:
    """Field, database, daemon and people of one scenario."""

    def __init__(self, storage: StorageConfig, home: Path, tree: object, live_s: int) -> None:
        self.home, self._live_s = home, live_s
        self.field = Field(tree)
        self._daemon: subprocess.Popen[bytes] | None = None
        self._storage = storage
        emit(self.field.sim, home / "sim")
        self.configure()
        self.database = Database.open(self.config.storage, migrate=False)
        self.conn = self.database.connect("app", autocommit=True)
        done = CliRunner().invoke(
            root, ["--config", str(home / "config.yaml"), "device", "import", str(home / "sim/devices.csv")]
        )
        assert done.exit_code == 0, done.output
        self.people: dict[str, Actor] = {}
        self.order_id = 0

    def configure(self, **changes: object) -> None:
        """Write the daemon's configuration."""
        links = yaml.safe_load((self.home / "sim/links.yaml").read_text(encoding="utf-8"))
        s = self._storage
        tree = {
            "storage": {"data_dir": s.data_dir, "dsn": s.dsn, "admin_dsn": s.admin_dsn},
            "secrets_file": str(self.home / "sim/secrets.yaml"), "http": {"port": 0}, "control": CONTROL,
            "cycles": CYCLES | {"live_s": self._live_s}, **links, **changes,
        }  # fmt: skip
        (self.home / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")

    @property
    def config(self) -> Config:
        """As the daemon reads it."""
        return load_config(self.home / "config.yaml")

    @property
    def rules(self) -> ControlConfig:
        """The control section."""
        return self.config.control

    # -- the daemon ---------------------------------------------------------------------------------------------------

    def start_daemon(self) -> None:
        """`fuhe run`, as systemd would start it."""
        with (self.home / "daemon.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "fuhe.cli", "--config", str(self.home / "config.yaml"), "run"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"FUHE_LANG": "en"},
            )  # fmt: skip

    def kill_daemon(self) -> None:
        """The process is gone between two instructions."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait(20)

    def stop_daemon(self) -> None:
        """An operator stops it."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.send_signal(signal.SIGTERM)
            try:
                self._daemon.wait(40)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()

    def until(self, what: str, condition: Callable[[], object], limit_s: float = PATIENCE_S) -> None:
        """Wait for a condition; the daemon's log is shown when it never holds."""
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                log = (self.home / "daemon.log").read_text(encoding="utf-8")[-3000:]
                told = [(c.id, str(c.state), c.attention, c.checks[-1:]) for c in commands.commands(self.conn)]
                pytest.fail(f"never: {what}; commands {told}\n{log}")
            time.sleep(0.05)

    # -- people -------------------------------------------------------------------------------------------------------

    def hire(self) -> None:
        """Five people with five roles log in, each in a session of their own."""
        accounts.add_first_administrator(self.conn, self.now_us, "root", PASSWORD)
        boss, _ = accounts.login(self.conn, self.now_us, "root", PASSWORD, "desk")
        for name in PEOPLE:
            accounts.add_account(self.conn, self.now_us, boss, name, name, PASSWORD)
            self.people[name], _ = accounts.login(self.conn, self.now_us, name, PASSWORD, "desk")

    @property
    def now_us(self) -> int:
        """Now."""
        return time.time_ns() // 1000

    def plan(self, edit: Callable[[list[dict[str, str]]], object] = lambda rows: None) -> None:
        """Rounds and a plan of all of them, drafted, reviewed, approved and activated by four people.

        edit: changes the rows before they are imported.
        """
        loads = self.field.do(self.field.sim.truth)
        found = list(csv.DictReader((self.home / "sim/rounds.csv").read_text(encoding="utf-8").splitlines()))
        for row in found:
            number = int(row["round"]) - 1
            row["typical_kw"] = f"{loads[row['device']]['rounds'][number]['kw']:.1f}"
        rounds.import_rounds(self.conn, self.now_us, self.people["inside"], _csv(found))
        rows = [
            {
                "seq": str(i), "measure": "avoid", "level": "IV", "group": "A", "customer": f"user-{r['device']}",
                "device": r["device"], "round": r["round"], "reducible_kw": r["typical_kw"], "limit_kw": "0",
                "security_kw": "20", "class": "N", "contact": "duty room", "notice": "N3",
                "last_test": r["last_test"], "importance": r["importance"], "supply": "single",
            }
            for i, r in enumerate(found, 1)
        ]  # fmt: skip
        edit(rows)
        self.reducible_kw = sum(float(r["reducible_kw"]) for r in rows)
        today = datetime.now(UTC)
        header = plans.Header(
            name="county", area="county", body="government", document="7", target_kw=self.reducible_kw / 1.2,
            valid_from=today - timedelta(days=1), valid_to=today + timedelta(days=100),
        )  # fmt: skip
        made = plans.import_plan(self.conn, self.now_us, self.people["inside"], _csv(rows), header)
        for who, step in (("guard", "review"), ("leading", "approve"), ("dispatcher", "activate")):
            plans.advance_plan(self.conn, self.now_us, self.people[who], made.id, step, max_test_days=365)

    def order(self, share: float = 0.86) -> None:
        """The dispatch orders a share of what can be cut; a second person repeats it back."""
        now = datetime.now(UTC).replace(microsecond=0)
        received = orders.Received(
            number="D-1", issuer="county dispatch", area="county", level="IV", gap_kw=round(share * self.reducible_kw),
            start_at=now, end_at=now + timedelta(hours=2),
        )  # fmt: skip
        self.order_id = orders.receive(self.conn, self.now_us, self.people["inside"], received).id
        orders.confirm(
            self.conn, self.now_us, self.people["guard"], self.order_id, number="D-1", gap_kw=received.gap_kw,
            end_at=received.end_at,
        )  # fmt: skip

    def supervised(self) -> bool:
        """Every candidate has told its clock (if it has one) and its power lately."""
        row = self.conn.execute(
            "SELECT bool_and(coalesce(s.online, false) AND (NOT d.profile ~ '^(dlt645|qgdw1376)' OR s.clock_offset_s "
            "IS NOT NULL)) FROM device d LEFT JOIN device_state s ON s.device = d.id WHERE d.id IN (SELECT device_id "
            "FROM plan_row)"
        ).fetchone()
        return bool(row and row[0])

    def approve(self) -> None:
        """Proposed and submitted by one, approved by another, customers told, level in force."""
        inside, dispatcher = self.people["inside"], self.people["dispatcher"]
        self.until("candidates are supervised", self.supervised)

        def propose(*, commit: bool) -> proposals.Proposal:
            power = stored_power(self.conn)
            return proposals.propose(self.conn, self.now_us, inside, self.order_id, power, self.rules, commit=commit)

        self.until("a proposal fits", lambda: propose(commit=False).choice.feasible)
        proposal = propose(commit=True).id
        assert proposal is not None
        for c in commands.submit_proposal(self.conn, self.now_us, inside, proposal, self.rules):
            address = str(scalar(self.conn, "SELECT address FROM device WHERE id = %s", (c.device_id,)))
            commands.approve(self.conn, self.now_us, dispatcher, c.id, commands.last_digits(address), self.rules)
        told = sorted({(c.customer, "duty room") for c in self.all()})
        orders.give_notice(self.conn, self.now_us, inside, self.order_id, told, channel="phone", note="", given=True)
        orders.activate(self.conn, self.now_us, dispatcher, self.order_id)

    def ready(self, edit: Callable[[list[dict[str, str]]], object] = lambda rows: None, share: float = 0.86) -> None:
        """The daemon runs, and everything up to `execute` is done."""
        self.start_daemon()
        self.hire()
        self.plan(edit)
        self.order(share)
        self.approve()

    def execute(self) -> None:
        """A person says: now."""
        commands.execute(self.conn, self.now_us, self.people["inside"], [c.id for c in self.all()])

    def release(self) -> None:
        """The dispatch ends the order; restoring is asked for."""
        releases.release_order(self.conn, self.now_us, self.people["dispatcher"], self.order_id, self.rules)

    # -- records ------------------------------------------------------------------------------------------------------

    def all(self) -> list[Command]:
        """The commands as they stand in the database."""
        return commands.commands(self.conn)

    @property
    def command(self) -> Command:
        """The only command."""
        (only,) = self.all()
        return only

    def until_state(self, *wanted: State) -> None:
        """All commands have come to one of these states."""
        self.until(f"{[str(s) for s in wanted]}", lambda: all(c.state in wanted for c in self.all()))

    def history(self, command_id: int) -> list[str]:
        """The steps of a command in the audit."""
        rows = self.conn.execute("SELECT action FROM audit WHERE object = %s ORDER BY seq", (f"command:{command_id}",))
        return [str(r[0]).removeprefix("command.") for r in rows]

    def close(self) -> None:
        """Daemon, then field, then database."""
        self.stop_daemon()
        self.field.close()
        self.conn.close()
        self.database.close()


def _csv(rows: Sequence[Mapping[str, str]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


@pytest.fixture
def county(
    storage_config: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., County]]:
    """`county(devices, past_days=0, live_s=1)`: a county with these devices, its daemon not yet started."""
    # the same argon2id with small parameters: hashing is not what scenarios are about
    monkeypatch.setattr(accounts, "_HASHER", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    made: list[County] = []

    def make(devices: Sequence[Mapping[str, object]], *, past_days: int = 0, live_s: int = 1) -> County:
        made.append(County(storage_config, tmp_path, scenario(devices, past_days=past_days), live_s))
        return made[0]

    try:
        yield make
    finally:
        for one in made:
            one.close()


@pytest.fixture(name="meter")
def meter_of() -> Callable[..., dict[str, object]]:
    """`meter(name, number, kw=300, **changes)`: a DL/T 645 meter with a relay, for `county`."""
    return meter
