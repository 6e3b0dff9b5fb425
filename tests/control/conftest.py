"""A small world for control: four people, two terminals with rounds, a plan, an order, and a faithful fake field.

The fake field has physics: tripping a round removes exactly its load, the total follows; every frame is counted and, at
the moment it leaves, the audit and the command are looked up through a connection of their own.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from argon2 import PasswordHasher

from fuhe.control import accounts, audit, commands, orders, plans, proposals, rounds
from fuhe.control.audit import Actor
from fuhe.control.commands import Command
from fuhe.control.config import ControlConfig
from fuhe.control.executor import Executor
from fuhe.control.ports import DeviceFacts, Epoch, PowerWindow, target_of
from fuhe.model.control import (
    ActionKind,
    ControlAction,
    ControlAnswer,
    FrameLog,
    Setting,
    SettingResult,
    Spot,
    SwitchState,
)
from fuhe.model.times import DAY_US, US, from_us
from fuhe.protocols.common.errors import UsageError
from fuhe.storage.database import Database

PASSWORD = "correct horse"
START_US = 1_790_000_000_000_000
CONFIG = ControlConfig(
    environment="test",
    county_load_kw=100_000.0,
    min_off_min=0,
    restore_wait_s=60,
    restore_margin_kw=100_000.0,
    step_interval_s=60,
)


class Crash(BaseException):
    """The process dies here (not an Exception: nothing may catch it)."""


@dataclass
class FakeRound:
    """One relay with its load (kW primary)."""

    kw: float
    open: bool = False
    blocked: bool = False


FACTS = DeviceFacts(
    can_control=True,
    has_protection=True,
    has_exclusion=False,
    has_clock=True,
    has_setpoint=False,
    keys_ok=True,
    model_known=True,
)


@dataclass
class FakeDevice:
    """One terminal; `mode`: good, silent (acts, never answers), dead (neither), refuse, stuck (answers, never acts),
    unsent (the link is down), wrong_id."""

    rounds: dict[int, FakeRound]
    base_kw: float
    mode: str = "good"
    reads: str = "good"
    mute_after: bool = False
    facts: DeviceFacts = FACTS
    protected: bool | None = False
    online: bool | None = True
    clock_offset_s: float | None = 1.0
    stale_since_us: int | None = None
    manual_close: bool = False
    excluded: bool | None = False
    remind: bool | None = False
    engaged: set[str] = field(default_factory=set)
    held: set[int] = field(default_factory=set)
    limit_kw: float | None = None
    stored: dict[tuple[str, int], dict[str, object]] = field(default_factory=dict)
    spoils: str = ""
    epoch: Epoch | None = None
    kinds: tuple[str, ...] = ()

    @property
    def kw(self) -> float:
        """Power drawn now."""
        return self.base_kw + sum(r.kw for n, r in self.rounds.items() if not r.open and n not in self.held)

    def obey_limit(self, rounds: tuple[int, ...], limit_kw: float) -> None:
        """What a terminal does by itself: one round after the other opens while the power is above the limit."""
        self.limit_kw = limit_kw
        for number in sorted(rounds):
            if self.kw > limit_kw:
                self.held.add(number)


@dataclass
class FakeField:
    """See fuhe.control.ports.Field."""

    clock: Callable[[], int]
    observe: Callable[[ControlAction, int], None]
    devices: dict[int, FakeDevice] = field(default_factory=dict)
    frames: list[tuple[int, ControlAction]] = field(default_factory=list)
    crash_before: Callable[[ControlAction], bool] = lambda _: False
    crash_after: Callable[[ControlAction], bool] = lambda _: False
    log: list[tuple[int, dict[int, float]]] = field(default_factory=list)

    def trips(self, device_id: int, round_: int) -> int:
        """Trip frames that left for this round."""
        return sum(1 for d, a in self.frames if d == device_id and a.kind is ActionKind.TRIP and a.round == round_)

    def tick(self) -> None:
        """Sample the powers of all devices now."""
        now = self.clock()
        kw = {i: d.kw for i, d in self.devices.items() if d.stale_since_us is None}
        if self.log and self.log[-1][0] == now:
            self.log[-1] = (now, kw)
        else:
            self.log.append((now, kw))

    async def operate(self, device_id: int, action: ControlAction) -> ControlAnswer:
        if self.crash_before(action):
            raise Crash
        device = self.devices[device_id]
        if device.mode == "unsent":
            return ControlAnswer(action_id=action.id, sent=False, acknowledged=None, refusal="link down")
        self.observe(action, device_id)
        self.frames.append((device_id, action))
        results: tuple[SettingResult, ...] = ()
        if action.kind is ActionKind.WRITE_SETTINGS:
            results = self._written(device, action)
        elif device.mode in ("good", "silent", "wrong_id"):
            self._carried_out(device, action)
        if device.mute_after:
            device.reads, device.mute_after = "none", False
        if self.crash_after(action):
            raise Crash
        self.tick()
        if device.mode in ("silent", "dead"):
            return ControlAnswer(action_id=action.id, sent=True, acknowledged=None)
        if device.mode == "refuse":
            return ControlAnswer(action_id=action.id, sent=True, acknowledged=False, refusal="password wrong (04)")
        frames = (FrameLog(time_us=self.clock(), direction="out", hex="68 ** 16"),)
        key = "other" if device.mode == "wrong_id" else action.id
        return ControlAnswer(action_id=key, sent=True, acknowledged=True, frames=frames, settings=results)

    def _carried_out(self, device: FakeDevice, action: ControlAction) -> None:
        relay = device.rounds[action.round]
        name, _, switch = action.kind.value.rpartition("_")
        if action.kind is ActionKind.TRIP:
            relay.blocked = True
            relay.open = action.alarm_min == 0
        elif action.kind in (ActionKind.PERMIT_CLOSE, ActionKind.DIRECT_CLOSE):
            relay.blocked = False
            if not device.manual_close:
                relay.open = False
        elif name == "protect":
            device.protected = switch == "on"
        elif name == "exclude":
            device.excluded = switch == "on"
        elif name == "remind":
            device.remind = switch == "on"
        elif switch == "on":
            device.engaged.add(name)
            limit = device.stored.get(("limit", action.group), {}).get("kw")
            if isinstance(limit, float):
                device.obey_limit(action.rounds, limit)
        else:
            device.engaged.discard(name)
            device.held.clear()

    def _written(self, device: FakeDevice, action: ControlAction) -> tuple[SettingResult, ...]:
        found = []
        for s in action.settings:
            values: dict[str, object] | None = dict(s.values)
            if device.mode in ("silent", "dead"):
                found.append(SettingResult(item=s.item, pn=s.pn, wanted=s.values, fault="no answer"))
                continue
            if device.mode == "refuse":
                found.append(SettingResult(item=s.item, pn=s.pn, wanted=s.values, written=False, fault="denied"))
                continue
            if device.spoils == s.item and values is not None:
                values = dict.fromkeys(values, -1.0)
            device.stored[s.item, s.pn] = values or {}
            differs = tuple(k for k, v in s.values.items() if (values or {}).get(k) != v)
            found.append(
                SettingResult(item=s.item, pn=s.pn, wanted=s.values, written=True, read=values, differences=differs)
            )
        return tuple(found)

    def settings(self, device_id: int, action: ControlAction) -> tuple[Setting, ...]:
        if action.kind.value.removesuffix("_on") not in self.devices[device_id].kinds:
            raise UsageError("no such control in this model")
        return (
            Setting(item="limit", pn=action.group, values={"kw": action.params.get("limit_kw")}),
            Setting(item="rounds", pn=action.group, values={"rounds": list(action.rounds)}),
        )

    def epoch(self, device_id: int) -> Epoch | None:
        return self.devices[device_id].epoch

    async def read_state(self, device_id: int, spot: Spot) -> SwitchState | None:
        device = self.devices[device_id]
        if device.reads != "good":
            return None
        relay = device.rounds[spot.round]
        return SwitchState(
            time_us=self.clock(), open=relay.open, command_trip=relay.blocked, protected=device.protected, alarm=False,
            excluded=device.excluded, remind=device.remind, engaged=tuple(sorted(device.engaged)),
            tripped=tuple(sorted(n for n, r in device.rounds.items() if r.blocked)),
            outputs=tuple(sorted({n for n, r in device.rounds.items() if r.blocked} | device.held)),
            limit_kw=device.limit_kw,
        )  # fmt: skip

    def power(self, device_id: int, now_us: int, back_s: int, group: int = 1) -> PowerWindow:
        rows = [(t, kw[device_id]) for t, kw in self.log if device_id in kw and now_us - back_s * US <= t <= now_us]
        n = len(rows)
        return PowerWindow(
            np.array([t for t, _ in rows], np.int64), np.array([k for _, k in rows], float), np.zeros(n, np.int16), 0.1
        )

    def online(self, device_id: int) -> bool | None:
        return self.devices[device_id].online

    def clock_offset_s(self, device_id: int) -> float | None:
        return self.devices[device_id].clock_offset_s

    def facts(self, device_id: int) -> DeviceFacts | None:
        return self.devices[device_id].facts


PLAN_COLUMNS = (*plans.REQUIRED, *plans.OPTIONAL)


class World:
    """Everything a scenario needs; the clock only moves by `pass_`."""

    crash = Crash

    def __init__(self, database: Database) -> None:
        self.database = database
        self.conn = database.connect("app", autocommit=True)
        self._eyes = database.connect("app", autocommit=True)
        self.now_us = START_US
        self.config = CONFIG
        self.field = FakeField(lambda: self.now_us, self._observe)
        self.people: dict[str, Actor] = {}
        self.executor = self.new_executor()
        self.stopped: list[Executor] = []
        self.order_id = 0

    def _observe(self, action: ControlAction, device_id: int) -> None:
        """At the moment a frame leaves: its audit record is committed and its command is in the state that says so."""
        number = int(action.id.split("-")[1])
        command = commands.get(self._eyes, number)
        assert command.device_id == device_id
        done = {r.action for r in audit.read(self._eyes, object_=f"command:{number}") if r.result == "ok"}
        signed = {"command.submit", "command.execute", "command.pass"}
        signed |= {"command.approve"} if command.signatures == 2 else set()
        if action.kind is ActionKind.WRITE_SETTINGS:
            assert command.state == "SETTING" and command.sent_at is None and signed | {"command.set"} <= done
        elif action.kind is command.rule.engage:
            assert command.state == "SENT" and command.sent_at is not None
            assert signed | {"command.send"} <= done
            assert not command.rule.settings or "command.equal" in done
        elif "cancel" in action.id:
            assert "command.cancel_send" in done and command.cancel_sent_at is not None
        else:
            assert "command.release_send" in done and command.release_sent_at is not None

    def new_executor(self, connect: Callable[[], Any] | None = None, **more: Any) -> Executor:
        own = connect or (lambda: self.database.connect("app", autocommit=True))
        return Executor(own, self.field, self.config, elapsed=lambda: 0.0, **more)

    def device(self, name: str, address: str, kw: dict[int, float], base_kw: float, *, simulated: bool = True) -> int:
        with self.database.connect("owner", autocommit=True) as owner:
            row = owner.execute(
                "INSERT INTO device (name, link, profile, address, options) VALUES (%s, 'l', 'p', %s, %s) RETURNING id",
                (name, address, psycopg.types.json.Jsonb({"simulated": "1"} if simulated else {})),
            ).fetchone()
        assert row is not None
        facts = replace(FACTS, target=target_of("l", address))
        self.field.devices[row[0]] = FakeDevice({n: FakeRound(k) for n, k in kw.items()}, base_kw, facts=facts)
        return int(row[0])

    def log_in(self, *names: str) -> None:
        for name in names:
            self.people[name], _ = accounts.login(self.conn, self.now_us, name, PASSWORD, "desk")

    def populate(self) -> None:
        """People and two terminals: alpha (rounds 1, 2: 300, 400 kW) and beta (round 1: 200 kW)."""
        accounts.add_first_administrator(self.conn, self.now_us, "root", PASSWORD)
        self.log_in("root")
        for name in ("inside", "dispatcher", "guard", "leading", "auditor"):
            accounts.add_account(self.conn, self.now_us, self.people["root"], name, name, PASSWORD)
            self.log_in(name)
        self.alpha = self.device("alpha", "000000000012", {1: 300.0, 2: 400.0}, 600.0)
        self.beta = self.device("beta", "000000000034", {1: 200.0}, 200.0)
        for _ in range(15):
            self.pass_(60)

    def rounds_csv(self, **changes: str) -> bytes:
        text = "device,round,description,importance,typical_kw,last_test\n"
        for device, number, kw in (("alpha", 1, 300), ("alpha", 2, 400), ("beta", 1, 200)):
            text += f"{device},{number},r{number},{number},{kw},{changes.get('last_test', '2026-09-01')}\n"
        return text.encode()

    def plan_csv(self, edit: Callable[[list[dict[str, object]]], None] = lambda rows: None) -> bytes:
        rows: list[dict[str, object]] = []
        for seq, (device, number, kw) in enumerate((("alpha", 1, 300), ("beta", 1, 200), ("alpha", 2, 400)), 1):
            rows.append(
                {
                    "seq": seq, "measure": "trip", "level": "IV", "group": "A", "customer": device, "device": device,
                    "round": number, "reducible_kw": kw, "limit_kw": 0,
                    "security_kw": 500 if device == "alpha" else 100, "class": "N", "contact": "0531-1",
                    "notice": "sms", "last_test": "2026-09-01", "importance": number, "supply": "single",
                }
            )  # fmt: skip
        edit(rows)
        out = io.StringIO()
        writer = csv.DictWriter(out, PLAN_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode()

    @property
    def header(self) -> plans.Header:
        return plans.Header(
            name="2026", area="east", body="county", document="doc 7", valid_from=from_us(START_US - DAY_US),
            valid_to=from_us(START_US + 100 * DAY_US), target_kw=500.0,
        )  # fmt: skip

    def activate_plan(self, edit: Callable[[list[dict[str, object]]], None] = lambda rows: None) -> int:
        p = self.people
        rounds.import_rounds(self.conn, self.now_us, p["inside"], self.rounds_csv())
        plan = plans.import_plan(self.conn, self.now_us, p["inside"], self.plan_csv(edit), self.header)
        for who, step in (("guard", "review"), ("leading", "approve"), ("dispatcher", "activate")):
            plans.advance_plan(self.conn, self.now_us, p[who], plan.id, step, max_test_days=365)
        return plan.id

    def confirmed_order(self, gap_kw: float = 450.0, number: str = "D-1") -> int:
        now = self.now_us
        received = orders.Received(
            number=number, issuer="province", area="east", level="II", gap_kw=gap_kw, start_at=from_us(now - 60 * US),
            end_at=from_us(now) + timedelta(hours=4), text="peak",
        )  # fmt: skip
        order = orders.receive(self.conn, now, self.people["dispatcher"], received)
        guard = self.people["guard"]
        orders.confirm(self.conn, now, guard, order.id, number=number, gap_kw=gap_kw, end_at=received.end_at)
        return order.id

    def submitted(self, gap_kw: float = 450.0) -> list[Command]:
        """Plan, order, proposal and submitted commands."""
        self.activate_plan()
        self.order_id = self.confirmed_order(gap_kw)
        inside = self.people["inside"]
        made = proposals.propose(
            self.conn, self.now_us, inside, self.order_id, self.field.power, self.config, commit=True
        )
        assert made.id is not None and made.choice.feasible, made.choice.binding
        return commands.submit_proposal(self.conn, self.now_us, inside, made.id, self.config)

    def approve(self, made: list[Command]) -> None:
        for c in made:
            digits = "0012" if c.device_id == self.alpha else "0034"
            commands.approve(self.conn, self.now_us, self.people["dispatcher"], c.id, digits, self.config)

    def ready(self, gap_kw: float = 450.0) -> list[Command]:
        """Approved, notified, active."""
        made = self.submitted(gap_kw)
        self.approve(made)
        dispatcher = self.people["dispatcher"]
        customers = [("alpha", "0531-1"), ("beta", "0531-1")]
        orders.give_notice(
            self.conn, self.now_us, dispatcher, self.order_id, customers, channel="phone", note="", given=True
        )
        orders.activate(self.conn, self.now_us, dispatcher, self.order_id)
        return self.all()

    def execute(self, made: list[Command]) -> None:
        commands.execute(self.conn, self.now_us, self.people["inside"], [c.id for c in made])

    def all(self) -> list[Command]:
        return commands.commands(self.conn)

    def states(self) -> list[str]:
        return [str(c.state) for c in self.all()]

    def pass_(self, seconds: float, *, alpha_base_kw: float | None = None, stale: bool = False) -> None:
        """Time passes and every device is metered at its end; before, alpha's load changes or its metering stops."""
        device = self.field.devices.get(getattr(self, "alpha", 0))
        if device is not None and alpha_base_kw is not None:
            device.base_kw = alpha_base_kw
        if device is not None and stale:
            device.stale_since_us = self.now_us
        self.now_us += round(seconds * US)
        self.field.tick()

    async def step(self) -> None:
        await self.executor.step(self.now_us)

    async def run(self, seconds: int, every: int = 30) -> None:
        """Let the daemon run for a while."""
        for _ in range(seconds // every):
            self.pass_(every)
            await self.step()

    def restart(self) -> None:
        """The daemon dies (its connection with it) and a new one starts."""
        self.kill(self.executor)
        self.executor = self.new_executor()

    def kill(self, executor: Executor) -> None:
        """Its connection is gone and the server has noticed, so that its lease is free for the next life."""
        conn = executor._groups._conn
        pid = None if conn is None or conn.closed else conn.info.backend_pid
        executor._groups._thread.shutdown(wait=True)
        executor._groups.drop_connection()
        deadline = time.monotonic() + 30
        while pid is not None and self.conn.execute("SELECT FROM pg_stat_activity WHERE pid = %s", (pid,)).rowcount:
            assert time.monotonic() < deadline, "the server keeps the session of a killed daemon"

    def close(self) -> None:
        self.kill(self.executor)
        self.conn.close()
        self._eyes.close()


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same argon2id with small parameters: hashing is not what these tests are about."""
    monkeypatch.setattr(accounts, "_HASHER", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    """The small world, populated."""
    made = World(database)
    try:
        made.populate()
        yield made
    finally:
        made.close()
