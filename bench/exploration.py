"""Every way that one command can go: all states x everything that can happen, on the real steps of the daemon.

The executor, its steps (control/steps.py, control/holding.py, rules/states.py) and what people do (control/commands.py,
control/releases.py) are the real ones; only the store is a value instead of a database, so that every situation can be
kept, compared and tried again. What the world may do is tried out completely: at every commit the process dies before
or behind it, the database refuses, the lease runs out, or a person acts in between; at every frame it dies before or
behind it, and the device obeys, refuses, answers without acting, acts without answering, never sees the frame, or sees
it only later; power is fresh or missing, a terminal restarts and forgets, a contact sticks, other load rises.

`explore(case)` visits the situations breadth first and raises `Unsafe` with the way to the first one that breaks a
promise. The interlocks' own evidence is a database's matter: here they simply pass or fail, and both are tried. One
command on one device; two commands that meet are the matter of tests/control. Times move from one instant that matters
to the next.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import psycopg

from fuhe.control import command as command_module
from fuhe.control import commands, executor, holding, releases, steps
from fuhe.control.audit import DAEMON, Actor
from fuhe.control.command import Command, Work, changed
from fuhe.control.config import ControlConfig
from fuhe.control.executor import Executor
from fuhe.control.ports import DeviceFacts, Epoch, PowerWindow
from fuhe.control.rules.checks import Verdict
from fuhe.control.rules.interlocks import Checked
from fuhe.control.rules.kinds import KINDS, Effect, Use, rounds_of
from fuhe.control.rules.states import FINAL, RELEASABLE, Event, State
from fuhe.control.rules.verify import Drop
from fuhe.model.control import ActionKind, ControlAction, ControlAnswer, Setting, SettingResult, Spot, SwitchState
from fuhe.model.times import US, from_us, to_us
from fuhe.protocols.common.errors import LinkError, UsageError

START_US = 1_790_000_000_000_000
BASE_KW, ROUND_KW = 400.0, 300.0
CONFIG = ControlConfig(
    environment="test", verify_at_s=(60, 120), command_valid_s=300, supervise_s=600, unknown_read_s=200,
    restore_wait_s=1, pace_per_s=0.0,
)  # fmt: skip
DRAFTER = Actor(name="inside", role="inside", account_id=1, session_id=1)
SECOND = Actor(name="dispatcher", role="dispatcher", account_id=2, session_id=2)
ASKS = frozenset({State.BLOCKED, State.RELEASED_SELECT, State.INEFFECTIVE, State.PARTIAL, State.DRAFT})
"""Waiting for a person's decision by what they are."""


class Crash(BaseException):
    """The process dies here."""


class Unsafe(AssertionError):
    """A promise is broken; the text tells which and how the situation came about."""


@dataclass(frozen=True, slots=True)
class Device:
    """The truth at the device. alarm_us: the instant at which its alarm ends in a trip; flying: a trip that is still on
    its way and is refused from that instant on; stuck: the contact does not follow the relay; elsewhere: other load has
    risen by as much; life: grows with every restart of the terminal."""

    open: bool = False
    blocked: bool = False
    alarm_us: int | None = None
    flying_us: int | None = None
    ends_us: int | None = None
    stuck: bool = False
    elsewhere: bool = False
    written: bool = False
    life: int = 0

    @property
    def kw(self) -> float:
        """What the customer draws."""
        return BASE_KW + (0.0 if self.open else ROUND_KW) + (ROUND_KW if self.elsewhere else 0.0)


@dataclass(frozen=True, slots=True)
class Wire:
    """What really happened to the frame that engages, and to the last one that gives free."""

    trips: int = 0
    acknowledged: bool = False
    refused: bool = False
    freed: frozenset[str] = frozenset()
    settings: int = 0


@dataclass(frozen=True, slots=True)
class World:
    """One situation. audited: actions with a committed record since the last frame of the same kind left; known: the
    life of the device that this life of the daemon has compared, -1 = none; fresh: the daemon has just started."""

    now_us: int
    command: Command
    device: Device = Device()
    wire: Wire = Wire()
    audited: frozenset[str] = frozenset()
    known: int = -1
    fresh: bool = True
    frozen: bool = False
    people: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is explored: a kind of control with its alarm and automatic end.

    people: how often people do more than approve and execute; plant: what else happens at the customer's: "restart" of
    the terminal, with and without its memory; "site": closed by hand; "load": other load rises.
    """

    kind: str = "trip"
    alarm_min: int = 0
    half_hours: int = 0
    people: int = 1
    plant: frozenset[str] = frozenset()


def _no_database() -> Any:
    raise AssertionError("an exploration has no database")


_NO_FIELD: Any = None


@dataclass(slots=True)
class Counts:
    """What an exploration went through."""

    situations: int = 0
    transitions: int = 0
    crash_points: int = 0
    commits: int = 0
    sends: int = 0
    states: set[State] = field(default_factory=set)
    steps: set[tuple[State, Event]] = field(default_factory=set)
    ended: Counter[str] = field(default_factory=Counter)
    daemon: Executor = field(default_factory=lambda: Executor(_no_database, _NO_FIELD, CONFIG, elapsed=lambda: 0.0))


class Script:
    """The choices of one run: those of `prefix`, then the first one each time; `trace` has what was offered."""

    def __init__(self, prefix: Sequence[int]) -> None:
        self._prefix, self.trace, self.quiet = prefix, [], True
        self.labels: list[str] = []

    trace: list[tuple[int, int]]

    def pick(self, what: str, *options: str, rare: bool = False) -> str:
        """One of the options. rare: at most one thing in a run that is not the first option."""
        if rare and not self.quiet:
            return options[0]
        at = len(self.trace)
        n = self._prefix[at] if at < len(self._prefix) else 0
        self.trace.append((n, len(options)))
        if n:
            self.labels.append(f"{what}: {options[n]}")
            if rare:
                self.quiet = False
        return options[n]


def every(run: Callable[[Script], None]) -> int:
    """Call `run` for every combination of choices; the number of runs."""
    prefix: list[int] = []
    for count in range(1, 1_000_000):
        script = Script(prefix)
        run(script)
        trace = script.trace
        while trace and trace[-1][0] + 1 >= trace[-1][1]:
            trace.pop()
        if not trace:
            return count
        prefix = [n for n, _ in trace[:-1]] + [trace[-1][0] + 1]
    raise AssertionError("a run without end")


class Store:
    """The store of one run: a value that is replaced by a commit. Stands where a connection stands."""

    def __init__(self, world: World, case: Case, script: Script, counts: Counts) -> None:
        self.world, self.case, self.script, self.counts = world, case, script, counts

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A person's step."""
        yield


class MemoryWork(Work):
    """`Work` on a `Store`: the same moves and records, written by one replacement of the value."""

    def __init__(self, conn: Any, now_us: int, ids: Any = (), actor: Actor = DAEMON) -> None:
        self.conn, self.now_us, self.actor = conn, now_us, actor
        self._store: Store = conn
        self.commands = {self._store.world.command.id: self._store.world.command} if set(ids) else {}
        self._entries, self._frames = [], []
        self._changes = defaultdict(dict)
        self._drafts, self._incidents = None, {}
        self._moves: list[tuple[State, Event]] = []

    def move(
        self, command: Command, event: Event, values: Mapping[str, object] | None = None, reason: str = ""
    ) -> Command:
        """As `Work.move`; remembers the step for the counts."""
        after = super().move(command, event, values, reason)
        self._moves.append((command.state, event))
        return after

    def set(self, command: Command, values: Mapping[str, object]) -> Command:
        """As `Work.set`."""
        after = changed(command, values)
        self.commands[command.id] = after
        return after

    def incident(self, device_id: int, command_id: int | None, what: str, text: str) -> bool:
        """Always a new one."""
        return True

    def flush(self) -> None:
        """Commit."""
        store, world = self._store, self._store.world
        after = self.commands.get(world.command.id, world.command)
        names = {e.action.removeprefix("command.") for e in self._entries}
        judge_commit(world, after, self._moves)
        store.counts.steps.update(self._moves)
        store.counts.states.update({s for s, _ in self._moves} | {after.state})
        store.world = replace(world, command=after, audited=world.audited | (names & AUDITED))
        self._entries, self._moves = [], []


AUDITED = frozenset({"send", "set", "release_send", "cancel_send"})


class MemoryGroups:
    """`Groups` on a store: at every commit the process may die, the database fail, or a person act before it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, step: Any, command_id: int, item: Any = None) -> Command:
        """See `Groups.run`."""
        store = self._store
        at = f"commit of {store.world.command.state}"
        store.counts.commits += 1
        before = store.script.pick(
            at, "good", "dies before", "dies behind", "database refuses", *people_now(store.world), rare=True
        )
        if before == "dies before":
            raise Crash
        if before == "database refuses":
            raise psycopg.OperationalError("gone")
        if before not in ("good", "dies behind"):
            person_acts(store, before)
        with MemoryWork(store, store.world.now_us, [command_id]) as work:
            step(work, [(command_id, item)])
        if before == "dies behind":
            raise Crash
        return store.world.command

    async def alone(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        """See `Groups.alone`."""
        return work(self._store, *args, **kwargs)


class Field:
    """`control.ports.Field`: what the device and the line may do, each choice of them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _device(self, **changes: Any) -> None:
        world = self._store.world
        self._store.world = replace(world, device=replace(world.device, **changes))

    def _wire(self, **changes: Any) -> None:
        world = self._store.world
        self._store.world = replace(world, wire=replace(world.wire, **changes))

    async def operate(self, device_id: int, action: ControlAction) -> ControlAnswer:
        """One conversation; everything that may come of it."""
        store = self._store
        store.counts.sends += 1
        settings = action.kind is ActionKind.WRITE_SETTINGS
        options = ["good", "not sent", "dies before", "dies behind", "lost", "acts silently", "refused", "wrong answer"]
        engage = not settings and action.kind is store.world.command.rule.engage
        options += ["differs"] if settings else ["answers, does nothing"]
        options += ["late", "dies, late"] if engage else []
        how = store.script.pick(f"frame {action.kind}", *options)
        if how == "dies before":
            raise Crash
        if how == "not sent":
            return ControlAnswer(action_id=action.id, sent=False, acknowledged=None, refusal="link down")
        judge_send(store.world, action, settings=settings, engage=engage)
        self._left(action, settings=settings, engage=engage)
        acts = how in ("good", "acts silently", "wrong answer", "dies behind", "differs")
        if acts:
            self._acts(action, engage=engage, settings=settings)
        elif how in ("late", "dies, late"):
            self._device(flying_us=action.valid_until_us)
        elif how == "answers, does nothing":
            self._device(stuck=True)
        if how in ("dies behind", "dies, late"):
            raise Crash
        if how in ("lost", "late", "acts silently"):
            if store.script.pick("silence", "told", "raised") == "raised":
                raise LinkError("no answer")
            return ControlAnswer(action_id=action.id, sent=True, acknowledged=None)
        if how == "refused":
            self._wire(refused=store.world.wire.refused or engage)
            return ControlAnswer(action_id=action.id, sent=True, acknowledged=False, refusal="password")
        if how == "wrong answer":
            return ControlAnswer(action_id="another", sent=True, acknowledged=True)
        self._wire(acknowledged=store.world.wire.acknowledged or engage)
        differences = ("kw",) if how == "differs" else ()
        results = tuple(
            SettingResult(item=s.item, pn=s.pn, wanted=s.values, written=True, read=s.values, differences=differences)
            for s in action.settings
        )
        return ControlAnswer(action_id=action.id, sent=True, acknowledged=True, settings=results)

    def _left(self, action: ControlAction, *, settings: bool, engage: bool) -> None:
        world = self._store.world
        wire = world.wire
        if settings:
            self._wire(settings=wire.settings + 1)
        elif engage:
            self._wire(trips=wire.trips + 1)
        else:
            self._wire(freed=wire.freed | {action.id})
        name = "set" if settings else "send" if engage else "cancel_send" if "cancel" in action.id else "release_send"
        self._store.world = replace(self._store.world, audited=world.audited - {name})

    def _acts(self, action: ControlAction, *, engage: bool, settings: bool) -> None:
        device, now_us = self._store.world.device, self._store.world.now_us
        if settings:
            self._device(written=True)
        elif engage:
            engaged(self, device, now_us, self._store.case)
        else:
            self._device(open=device.open and device.stuck, blocked=False, alarm_us=None, ends_us=None)

    async def read_state(self, device_id: int, spot: Spot) -> SwitchState | None:
        """The truth, or nothing."""
        how = self._store.script.pick("state", "read", "not read", "dies", rare=True)
        if how == "dies":
            raise Crash
        if how == "not read":
            return None
        return shown(self._store.world, self._store.case)

    def power(self, device_id: int, now_us: int, back_s: int, group: int = 1) -> PowerWindow:
        """The truth of this instant, or nothing."""
        if self._store.script.pick("power", "fresh", "missing", rare=True) == "missing":
            return executor.EMPTY
        kw = self._store.world.device.kw
        return PowerWindow(np.array([now_us]), np.array([kw]), np.zeros(1, np.int16), 0.1)

    def settings(self, device_id: int, action: ControlAction) -> tuple[Setting, ...]:
        """One parameter."""
        return (Setting(item="F41", pn=1, values={"kw": 100.0}),)

    def epoch(self, device_id: int) -> Epoch | None:
        """The device's life."""
        return Epoch(self._store.world.device.life, "restart")

    def online(self, device_id: int) -> bool | None:
        """Always."""
        return True

    def clock_offset_s(self, device_id: int) -> float | None:
        """Right."""
        return 0.0

    def facts(self, device_id: int) -> DeviceFacts | None:
        """A device with a feedback contact."""
        return DeviceFacts(can_control=True, has_protection=True, keys_ok=True, model_known=True)


def engaged(hand: Field, device: Device, now_us: int, case: Case) -> None:
    """The device carries out the frame that engages."""
    ends = now_us + (case.alarm_min * 60 + case.half_hours * 1800) * US if case.half_hours else None
    if case.alarm_min:
        hand._device(alarm_us=now_us + case.alarm_min * 60 * US, blocked=True, ends_us=ends)
    else:
        hand._device(open=not device.stuck, blocked=True, ends_us=ends)


def shown(world: World, case: Case) -> SwitchState:
    """What the device tells of itself."""
    d, cut = world.device, KINDS[case.kind].effect is Effect.CUT
    return SwitchState(
        time_us=world.now_us, open=d.open, command_trip=d.blocked, protected=False, alarm=d.alarm_us is not None,
        tripped=(1,) if d.blocked and cut else (), outputs=(1,) if d.open else (),
        engaged=(case.kind,) if d.blocked and not cut else (), limit_kw=BASE_KW,
    )  # fmt: skip


# -- promises ---------------------------------------------------------------------------------------------------------


def judge_send(world: World, action: ControlAction, *, settings: bool, engage: bool) -> None:
    """A frame is about to leave: what must be on record by now."""
    c = world.command
    if engage:
        _promise(world.wire.trips == 0, "a second trip frame")
        _promise(c.state is State.SENT and c.sent_at is not None, f"a trip frame in {c.state}")
        _promise("send" in world.audited, "a trip frame without its audit record")
        _promise(not c.rule.settings or world.wire.settings > 0, "engaged before its parameters")
    elif settings:
        _promise(c.state is State.SETTING and "set" in world.audited, "parameters without their audit record")
    elif "cancel" in action.id:
        _promise("cancel_send" in world.audited and c.cancel_sent_at is not None, "a cancel without its audit record")
    else:
        _promise("release_send" in world.audited, "a release without its audit record")
    _promise(action.id not in world.wire.freed, "a release frame twice under one wish")


def judge_commit(world: World, after: Command, moves: Sequence[tuple[State, Event]]) -> None:
    """What is about to be committed claims nothing that did not happen."""
    d, w = world.device, world.wire
    taken = d.blocked or d.open or d.alarm_us is not None
    may_act = d.flying_us is not None and world.now_us < d.flying_us
    events = {e for _, e in moves}
    if after.rule.effect is not Effect.SETTINGS:
        _promise(not after.acknowledged or w.acknowledged, "acknowledged without an acknowledgement")
        _promise(after.sent is not False or not w.trips, "not sent, yet the frame was on the wire")
        _promise(not after.sent or w.trips > 0, "sent, yet no frame was on the wire")
    _promise(w.trips == 0 or after.sent_at is not None, "a frame on the wire and no sent_at")
    if not moves:
        return
    if events & {Event.PROVEN, Event.PROVEN_PART}:
        fell = BASE_KW + ROUND_KW - d.kw
        _promise(d.open, f"{after.state} with the contact closed")
        _promise(fell >= (0.8 if Event.PROVEN in events else 0.3) * ROUND_KW, f"{after.state}, and {fell} kW fell")
    if Event.SILENCE not in events and after.state in (State.FAILED, State.CANCELLED, State.ABANDONED):
        _promise(not taken or w.refused or not w.trips, f"{after.state}, yet the device has carried it out")
        _promise(not may_act, f"{after.state}, yet a frame on its way may still trip")
    if events & {Event.LOAD_BACK, Event.CLOSE} and after.rule.takes_supply:
        _promise(not d.open, f"{after.state} with the customer still cut")
        _promise(not may_act, f"{after.state}, yet a trip on its way may still cut the customer")
    if Event.RECOVER in events or Event.SEND in events:
        _promise(w.trips == 0 or Event.SEND not in events, "sent again")
    if after.state in (State.SELECTED, State.CHECKING, State.BLOCKED, State.EXPIRED, State.RELEASED_SELECT):
        _promise(w.trips == 0, f"{after.state}, although a trip frame has left")


def _promise(kept: bool, text: str) -> None:
    if not kept:
        raise Unsafe(text)


# -- people -----------------------------------------------------------------------------------------------------------


GIVEN = frozenset({State.RELEASING, State.RELEASED, State.RESTORED, State.CLOSED})
FREEZABLE = frozenset({State.CHECKING, State.SELECTED, State.SET, State.RELEASING})
STEADY = frozenset({State.SUBMITTED, State.APPROVED})


def people_now(world: World) -> list[str]:
    """What people can do to this command now, by the table of states."""
    c, found = world.command, []
    if world.people <= 0:
        return [{State.SUBMITTED: "approve", State.APPROVED: "execute"}[c.state]] if c.state in STEADY else []
    steps_ = {State.SUBMITTED: ["approve", "reject", "cancel"], State.APPROVED: ["execute", "cancel"],
              State.BLOCKED: ["resubmit", "cancel"], State.RELEASED_SELECT: ["resubmit", "cancel"],
              State.CHECKING: ["cancel"], State.SELECTED: ["cancel"], State.SET: ["cancel"]}  # fmt: skip
    found += steps_.get(c.state, [])
    if c.state is State.ALARMING and c.cancel_wanted_at is None:
        found.append("cancel")
    if c.state in RELEASABLE and c.rule.release is not None:
        if c.state not in (State.RELEASING, State.RELEASED):
            found.append("release")
        elif c.release_sent_at is not None:
            found.append("release again")
    # where a freeze comes early, the states that ask for it are met with it all the same
    if c.state in FREEZABLE and not world.frozen:
        found.append("freeze")
    return found


def person_acts(store: Store, what: str) -> None:
    """A person does it, by the functions that the verbs call."""
    world, now_us, conn = store.world, store.world.now_us, _conn(store)
    number, calm = world.command.id, "explored"
    if what == "freeze":
        store.world = replace(world, frozen=True, people=world.people - 1)
        return
    if what == "approve":
        with MemoryWork(store, now_us, [number], SECOND) as work:
            work.move(work[number], Event.APPROVE, {"approved_at": from_us(now_us)})
    elif what == "reject":
        with MemoryWork(store, now_us, [number], SECOND) as work:
            work.move(work[number], Event.REJECT, reason=calm)
    elif what == "execute":
        with MemoryWork(store, now_us, [number], DRAFTER) as work:
            commands.ask(work, work[number], 1)
    elif what == "cancel":
        commands.cancel(conn, now_us, DRAFTER, number, calm)
    elif what == "resubmit":
        commands.resubmit(conn, now_us, DRAFTER, number, calm)
    elif what == "release":
        releases.release_danger(conn, now_us, SECOND, number, calm)
    else:
        releases.repeat_release(conn, now_us, SECOND, number, calm)
    spent = 0 if what in ("approve", "execute") else 1
    store.world = replace(store.world, people=world.people - spent)


def _conn(store: Store) -> Any:
    return store


# -- one step ---------------------------------------------------------------------------------------------------------


def _run(coroutine: Coroutine[Any, Any, Any]) -> None:
    """To its end; nothing in it waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the daemon waited for something that is not in the exploration")


def drive(store: Store) -> None:
    """One turn of the daemon: recovery, then along the table as far as it goes now."""
    world = store.world
    made = store.counts.daemon
    made._field = Field(store)
    made._groups = MemoryGroups(store)  # type: ignore[assignment]
    fresh = store.script.pick("lease", "held", "run out", rare=True) == "held"
    made.lease = SimpleNamespace(fresh=lambda: fresh)  # type: ignore[assignment]
    made._start_us = made._last_us = world.now_us
    made.reason = ""
    made._epochs = {1: Epoch(world.known, "")} if world.known >= 0 else {}
    looked_at = steps.RECOVERABLE - (frozenset() if world.fresh else {State.CHECKING, State.ALARMING})
    try:
        if world.command.state in looked_at:
            _run(made._do("recover", world.command.id, world.fresh))
        _run(made._device(1, [(store.world.command, 0)]))
    except (Crash, psycopg.Error):
        store.counts.crash_points += 1
        store.world = replace(store.world, fresh=True, known=-1)
        return
    known = made._epochs[1].number if 1 in made._epochs else -1
    store.world = replace(store.world, fresh=False, known=known)


def _judged(work: Any, found: Sequence[Any], config: ControlConfig) -> list[tuple[Any, tuple[Checked, ...]]]:
    """The interlocks pass or fail: both are tried. A freeze fails trips and ordinary releases for certain."""
    store: Store = work.conn
    results: list[tuple[Any, tuple[Checked, ...]]] = []
    for _, use, seen in found:
        stale = use is Use.TRIP and not len(seen.power.kw)  # interlock 9
        bad = stale or (store.world.frozen and use in FROZEN)
        how = "fail" if bad else store.script.pick("interlocks", "pass", "fail", rare=True)
        verdict = Verdict.FAIL if how == "fail" else Verdict.PASS
        one = Checked(number=16, title="interlocks", verdict=verdict, text=how)
        results.append((SimpleNamespace(limit_kw=BASE_KW), (one,)))
    return results


FROZEN = frozenset(use for use in Use if use not in (Use.DANGER, Use.SAFE))
_NOTHING: Callable[..., Any] = lambda *_: None  # noqa: E731
_TOLD = [f.name for f in fields(SwitchState)], [f.name for f in fields(Drop)]


def _asdict(made: Any) -> dict[str, object]:
    """As `dataclasses.asdict`, of flat ones."""
    return {name: getattr(made, name) for name in _TOLD[isinstance(made, Drop)]}


_PATCHES: tuple[tuple[Any, str, Any], ...] = (
    (steps, "asdict", _asdict), (holding, "asdict", _asdict),
    (steps, "judged", _judged), (holding, "judged", _judged), (holding, "_others_kw", lambda *_: 0.0),
    (holding, "get_round", _NOTHING), (holding, "trip_event", _NOTHING), (holding, "measured", _NOTHING),
    (holding, "_power_is_back", lambda *_: False), (holding, "release_due", lambda *_: True),
    (executor, "Work", MemoryWork), (commands, "Work", MemoryWork), (releases, "Work", MemoryWork),
    (commands, "get", lambda conn, _: conn.world.command), (commands, "sign", _NOTHING),
    (commands, "_targets", lambda *_: {}), (releases, "_rounds", lambda _: {}),
    (executor, "by_ids", lambda conn, ids: [conn.world.command] if ids else []),
    (executor, "_held_commands", lambda conn, _: _held(conn.world.command)),
    (command_module, "signatures", lambda conn, *_: {conn.world.command.id: (1, 1, "inside", {})}),
)  # fmt: skip


def _held(c: Command) -> list[int]:
    return [c.id] if c.sent_at is not None and c.state not in FINAL else []


def instants(world: World) -> list[int]:
    """The instants ahead at which something may become different, ascending."""
    c, d = world.command, world.device
    found = [c.next_check_at, c.not_after]
    us = [to_us(t) for t in found if t is not None]
    if c.sent_at is not None and c.valid_until is not None:
        us += [c.act_us, c.ends_us or 0, to_us(c.valid_until) + c.alarm_min * 60 * US]
    if c.state in (State.SELECTED, State.SET):
        us.append(world.now_us + (CONFIG.select_s + 1) * US)
    if c.state is State.SUBMITTED and c.submitted_at is not None:
        us.append(to_us(c.submitted_at) + (CONFIG.approval_within_s + 1) * US)
    us += [t for t in (d.alarm_us, d.ends_us) if t is not None]
    us += [d.flying_us] if d.flying_us is not None else []
    return sorted({t for t in us if t > world.now_us})


def passed(world: World, now_us: int, case: Case) -> World:
    """Time passes at the device."""
    d = world.device
    if d.alarm_us is not None and now_us >= d.alarm_us:
        d = replace(d, alarm_us=None, open=not d.stuck)
    if d.ends_us is not None and now_us >= d.ends_us:
        d = replace(d, ends_us=None, blocked=False, open=d.open and d.stuck, alarm_us=None)
    if d.flying_us is not None and now_us >= d.flying_us:
        d = replace(d, flying_us=None)
    return replace(world, now_us=now_us, device=d)


def successors(world: World, case: Case, counts: Counts) -> Iterator[tuple[str, World]]:
    """Everything that can come next."""
    found: list[tuple[str, World]] = []

    def daemon(script: Script) -> None:
        store = Store(world, case, script, counts)
        try:
            drive(store)
        except Unsafe as error:
            raise Unsafe(f"{error} <- daemon [{'; '.join(script.labels)}]") from None
        found.append((f"daemon [{'; '.join(script.labels)}]", store.world))

    counts.transitions += every(daemon)
    for what in people_now(world):
        store = Store(world, case, Script([]), counts)
        person_acts(store, what)
        found.append((f"person {what}", store.world))
    ahead = instants(world)
    if ahead:
        found.append(("time passes", passed(world, ahead[0], case)))
    if not world.fresh:
        found.append(("daemon restarts", replace(world, fresh=True, known=-1)))
    d = world.device
    if d.flying_us is not None:
        store = Store(world, case, Script([]), counts)
        if world.now_us < d.flying_us:
            hand = Field(store)
            engaged(hand, d, world.now_us, case)
            hand._device(flying_us=None)
            found.append(("the late frame arrives", store.world))
    if "restart" in case.plant and d.blocked and d.life == 0:
        forgot = replace(d, life=1, blocked=False, open=False, alarm_us=None, ends_us=None)
        found.append(("the terminal restarts and forgets", replace(world, device=forgot)))
        found.append(("the terminal comes back", replace(world, device=replace(d, life=1))))
    if "site" in case.plant and d.open:
        found.append(("closed at the site", replace(world, device=replace(d, open=False))))
    if "load" in case.plant and d.open and not d.elsewhere:
        found.append(("other load rises", replace(world, device=replace(d, elsewhere=True))))
    counts.transitions += len(found)
    yield from found


# -- the exploration --------------------------------------------------------------------------------------------------


def _ahead(at_us: int | None, now_us: int) -> bool | None:
    """Whether it is still to come: `instants` leads from one to the next, how far away it is makes no difference."""
    return None if at_us is None else at_us > now_us


def key_of(world: World) -> tuple[object, ...]:
    """What makes two situations the same: everything that a step asks for, times as "to come" or "over", no texts.

    So of situations that differ only in how far away something is, the first one stands for the others.
    """
    c, d, now = world.command, world.device, world.now_us
    over = (
        []
        if c.sent_at is None
        else [c.state not in GIVEN and now > c.act_us, c.ends_us is not None and now >= c.ends_us]
    )
    unseen = c.sent_at is not None and c.acknowledged is None and now < c.last_act_us
    read = unseen and c.read_back is not None and bool(c.read_back["open"] or c.read_back["command_trip"])
    judging = c.state is State.VERIFYING
    reason = c.checks[-1]["reason"].split(";")[0] if c.checks and judging else bool(c.checks)
    waits = c.state in (State.SUBMITTED, State.APPROVED, State.SELECTED, State.SET, State.BLOCKED)
    return (
        c.state, *over, unseen, read, c.acknowledged, c.before_kw, judging and min(c.check_no, 2),
        c.next_check_at is None or to_us(c.next_check_at) <= now, bool(c.attention), c.cancel_wanted_at is None,
        c.cancel_sent_at is None, c.release_sent_at is None, c.release_acked, c.released_at is None, c.release_danger,
        reason,
        waits and (to_us(c.not_after) <= now, now - to_us(c.changed_at) > CONFIG.select_s * US),
        replace(d, alarm_us=None, flying_us=None, ends_us=None), _ahead(d.alarm_us, now), _ahead(d.flying_us, now),
        _ahead(d.ends_us, now), replace(world.wire, freed=frozenset(), settings=0), world.wire.settings > 0,
        world.audited, world.known == d.life, world.fresh and c.state in (State.CHECKING, State.ALARMING),
        world.frozen, world.people,
    )  # fmt: skip


def begin(case: Case) -> World:
    """The command as submitted by one person."""
    now, kind = from_us(START_US), KINDS[case.kind]
    values: dict[str, Any] = {f.name: None for f in fields(Command)}
    params = {"rounds": (1,), "windows": "00:00-24:00"} if kind.settings else {}
    values |= {
        "id": 1, "device_seq": 1, "environment": "test", "state": State.SUBMITTED, "attempt": 1, "kind": case.kind,
        "scope": kind.scope.value, "device_id": 1, "round": 1, "params": params, "signatures": kind.signatures,
        "rounds": rounds_of(kind, 1, params), "order_id": 1, "reason": "", "customer": "a", "expected_kw": ROUND_KW,
        "round_kw": ROUND_KW, "floor_kw": 100.0, "limit_kw": BASE_KW, "alarm_min": case.alarm_min,
        "limit_half_hours": case.half_hours, "not_before": now, "not_after": from_us(START_US + 3600 * US),
        "created_at": now, "changed_at": now, "submitted_at": now, "settings": [], "set_results": [], "interlocks": [],
        "checks": [], "check_no": 0, "release_danger": False, "attention": "",
    }  # fmt: skip
    return World(START_US, Command(**values), people=case.people)


def waits_for_a_person(world: World) -> bool:
    """Final, or a person is asked: by the state itself or by a text."""
    c = world.command
    return c.state in FINAL or c.state in ASKS or bool(c.attention)


def explore(case: Case, most: int = 200_000) -> Counts:
    """Visit every situation; `Unsafe` with the way to it if a promise is broken."""
    counts, start = Counts(), begin(case)
    came: dict[tuple[object, ...], tuple[tuple[object, ...] | None, str]] = {key_of(start): (None, "begin")}
    back: dict[tuple[object, ...], list[tuple[object, ...]]] = {}
    calm: set[tuple[object, ...]] = set()
    todo = deque([start])
    with contextlib.ExitStack() as stack:
        for module, name, value in _PATCHES:
            stack.enter_context(mock.patch.object(module, name, value))
        stack.enter_context(mock.patch.object(commands, "recorded", lambda *_: contextlib.nullcontext()))
        stack.enter_context(mock.patch.object(releases, "recorded", lambda *_: contextlib.nullcontext()))
        while todo:
            world = todo.popleft()
            here = key_of(world)
            counts.situations += 1
            if waits_for_a_person(world):
                calm.add(here)
            if world.command.state in FINAL:
                counts.ended[world.command.state] += 1
                continue
            try:
                nexts = list(successors(world, case, counts))
            except (Unsafe, UsageError, AssertionError) as error:
                raise Unsafe(f"{error}\n{way_to(came, here)}\n{world.command.state} {world.device}") from error
            for label, after in nexts:
                there = key_of(after)
                if label.startswith(("daemon", "time")):
                    back.setdefault(there, []).append(here)
                if there not in came:
                    came[there] = (here, label)
                    todo.append(after)
            if len(came) > most:
                raise AssertionError(f"more than {most} situations: something counts without end")
    lost = set(came) - _reaching(calm, back)
    if lost:
        raise Unsafe(f"no end and nobody is asked:\n{way_to(came, next(iter(lost)))}")
    return counts


def _reaching(
    calm: set[tuple[object, ...]], back: Mapping[tuple[object, ...], Sequence[tuple[object, ...]]]
) -> set[tuple[object, ...]]:
    """Situations from which the daemon and time alone lead to an end or to a person."""
    seen, todo = set(calm), list(calm)
    while todo:
        for before in back.get(todo.pop(), ()):
            if before not in seen:
                seen.add(before)
                todo.append(before)
    return seen


def way_to(came: Mapping[tuple[object, ...], tuple[tuple[object, ...] | None, str]], key: tuple[object, ...]) -> str:
    """The steps to a situation, one a line."""
    lines: list[str] = []
    at: tuple[object, ...] | None = key
    while at is not None:
        at, label = came[at]
        lines.append(f"  {label}")
    return "\n".join(reversed(lines))


_PLANT = frozenset({"restart", "site", "load"})
CASES: Mapping[str, Case] = {
    "trip, people": Case(),
    "trip, plant": Case(people=0, plant=_PLANT),
    "trip after an alarm, released by itself": Case(people=0, alarm_min=5, half_hours=1),
    "power limit with parameters": Case(people=0, kind="period"),
}
"""Those of the test suite."""
LONGER: Mapping[str, Case] = {
    "trip, other load, people": Case(plant=frozenset({"load"})),
    "trip after an alarm, people": Case(alarm_min=5),
    "power limit with parameters, people": Case(kind="period"),
}
