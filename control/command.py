"""The record of a command (domain 9.3) and the only code that moves it from one state to another.

`Work` is one transaction over any number of commands: they are locked, moved along rules/states.py, and written
together: the audit records of all moves first, then the rows, then the frames. Who may cause a move is checked here;
the database checks the way to SENT once more.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import msgspec
from psycopg.rows import tuple_row
from psycopg.types.json import set_json_loads

from ..model.control import ControlAction, FrameLog, Spot
from ..model.lang import tr
from ..model.times import US, from_us, to_us
from ..protocols.common.errors import UsageError
from . import incidents
from .audit import DAEMON, Actor, Entry, append
from .permissions import require_other_person
from .records import RECORDSET, Conn, fetch_all, fetch_one, json_rows
from .rules.kinds import Kind, Scope, kind_of, lasts_half_hours
from .rules.states import CAUSES, FINAL, Cause, Event, State, next_state

Signature = tuple[int, int, str, dict[str, Any]]
"""Account, session, role of the account, what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command to one device. `round`: the number in the kind's scope (relay, total-sum group, 0 = the device).

    sent, acknowledged, read_back, measured_kw: None = not known. settings, set_results: parameters to be written and
    what came of each. Commands without an order (states, parameters) have a reason of their own.
    """

    id: int
    device_seq: int
    environment: str
    state: State
    attempt: int
    kind: str
    scope: str
    device_id: int
    round: int
    rounds: tuple[int, ...]
    params: dict[str, Any]
    signatures: int
    order_id: int | None
    proposal_id: int | None
    position: int | None
    plan_id: int | None
    plan_row: int | None
    batch: int | None
    reason: str
    customer: str
    expected_kw: float
    round_kw: float
    floor_kw: float
    limit_kw: float | None
    alarm_min: int
    limit_half_hours: int
    not_before: datetime
    not_after: datetime
    created_at: datetime
    changed_at: datetime
    submitted_at: datetime | None
    approved_at: datetime | None
    executed_at: datetime | None
    step: int | None
    selected_at: datetime | None
    settings: list[dict[str, Any]]
    set_results: list[dict[str, Any]]
    set_at: datetime | None
    sent_at: datetime | None
    term: int | None
    valid_until: datetime | None
    before_kw: float | None
    interlocks: list[dict[str, Any]]
    sent: bool | None
    acknowledged: bool | None
    read_back: dict[str, Any] | None
    measured_kw: float | None
    checks: list[dict[str, Any]]
    check_no: int
    next_check_at: datetime | None
    cancel_wanted_at: datetime | None
    cancel_sent_at: datetime | None
    release_wanted_at: datetime | None
    release_kind: str | None
    release_danger: bool
    release_block: int | None
    release_not_before: datetime | None
    release_pickup_kw: float | None
    release_margin_kw: float | None
    release_sent_at: datetime | None
    release_acked: bool | None
    released_at: datetime | None
    restored_at: datetime | None
    attention: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", State(self.state))
        object.__setattr__(self, "rounds", tuple(self.rounds))

    @property
    def object(self) -> str:
        """Its name in the audit."""
        return f"command:{self.id}"

    @property
    def rule(self) -> Kind:
        """What its kind means."""
        return kind_of(self.kind)

    @property
    def act_us(self) -> int:
        """Instant at which the device acts: the send plus the alarm."""
        assert self.sent_at is not None
        return to_us(self.sent_at) + self.alarm_min * 60 * US

    @property
    def last_act_us(self) -> int:
        """The latest instant at which the device could still act on the frame: its validity plus the alarm."""
        assert self.valid_until is not None
        return to_us(self.valid_until) + self.alarm_min * 60 * US

    @property
    def ends_us(self) -> int | None:
        """Instant at which the device releases by itself; None if it never does (or nothing was sent)."""
        half_hours = self.limit_half_hours or lasts_half_hours(self.rule, self.params)
        return self.act_us + half_hours * 1800 * US if half_hours and self.sent_at is not None else None

    def spot(self, contact: int = 0) -> Spot:
        """What of the device it is about."""
        if self.rule.scope is Scope.ROUND:
            return Spot(round=self.round, rounds=self.rounds, contact=contact)
        return Spot(group=max(1, self.round), rounds=self.rounds, round=self.rounds[0] if self.rounds else 1)

    def action(self, **fields_: Any) -> ControlAction:
        """A control action on its spot; id, kind and validity come from the caller."""
        spot = self.spot()
        base: dict[str, Any] = {"round": spot.round, "group": spot.group, "rounds": spot.rounds, "params": self.params}
        return ControlAction(**(base | fields_))


LIVE_SQL: Final = "state NOT IN ({})".format(", ".join(f"'{s}'" for s in sorted(FINAL)))
_SQL_TYPES: Final = (
    ("datetime", "timestamptz"), ("float", "float8"), ("bool", "boolean"), ("int", "int8"), ("list[dict", "jsonb"),
    ("dict", "jsonb"), ("str", "text"), ("State", "text"),
)  # fmt: skip


def _sql_type(annotation: str) -> str:
    return next(sql for python, sql in _SQL_TYPES if annotation.startswith(python))


COLUMN_TYPES: Final[Mapping[str, str]] = {
    f.name: _sql_type(re.sub(r"^tuple.*", "int", str(f.type))) for f in fields(Command)
}


def get(conn: Conn, command_id: int) -> Command:
    """One command; UsageError if there is none."""
    found = fetch_one(conn, Command, "SELECT * FROM command WHERE id = %s", (command_id,))
    if found is None:
        raise UsageError(tr(f"no command {command_id}", f"没有命令 {command_id}"))
    return found


def commands(conn: Conn, *, order_id: int | None = None, live: bool = False) -> list[Command]:
    """Commands in order of their numbers, of one order or all, all or the live ones."""
    return fetch_all(
        conn,
        Command,
        f"SELECT * FROM command WHERE (%(order)s::int IS NULL OR order_id = %(order)s)"
        f"{' AND ' + LIVE_SQL if live else ''} ORDER BY id",
        {"order": order_id},
    )


# A thousand commands are read and moved in one transaction: their records are made field by field, without the checks
# and the keyword arguments of a dataclass.
_NAMES: Final = tuple(f.name for f in fields(Command))
_PUT: Final = tuple(vars(Command)[name].__set__ for name in _NAMES)
_TAKE: Final = attrgetter(*_NAMES)
_PLACE: Final = MappingProxyType({name: i for i, name in enumerate(_NAMES)})
_STATE, _ROUNDS = _PLACE["state"], _PLACE["rounds"]


def _made(values: list[Any]) -> Command:
    values[_STATE], values[_ROUNDS] = State(values[_STATE]), tuple(values[_ROUNDS])
    made: Command = object.__new__(Command)
    for put, value in zip(_PUT, values, strict=True):
        put(made, value)
    return made


def changed(command: Command, values: Mapping[str, object]) -> Command:
    """The command with other values in some fields."""
    all_: list[Any] = list(_TAKE(command))
    for name, value in values.items():
        all_[_PLACE[name]] = value
    return _made(all_)


def by_ids(conn: Conn, ids: Sequence[int], *, lock: bool = False) -> list[Command]:
    """These commands in order of their numbers; lock: held against change until the transaction ends."""
    query = f"SELECT {', '.join(_NAMES)} FROM command WHERE id = ANY(%s) ORDER BY id{' FOR UPDATE' if lock else ''}"
    with conn.cursor(row_factory=tuple_row) as cursor:
        set_json_loads(msgspec.json.decode, cursor)
        return [_made(list(row)) for row in cursor.execute(query.encode(), (list(ids),)).fetchall()]


class Work:
    """One transaction's work on commands; to be used as a context inside the caller's transaction.

    Everything is written when the context ends without an error. `commands`: as they stand now, moves included.
    """

    def __init__(self, conn: Conn, now_us: int, ids: Iterable[int] = (), actor: Actor = DAEMON) -> None:
        self.conn, self.now_us, self.actor = conn, now_us, actor
        wanted = sorted(set(ids))
        self.commands: dict[int, Command] = {c.id: c for c in by_ids(conn, wanted, lock=True)} if wanted else {}
        missing = [i for i in wanted if i not in self.commands]
        if missing:
            raise UsageError(tr(f"no command {missing[0]}", f"没有命令 {missing[0]}"))
        self._entries: list[Entry] = []
        self._changes: dict[int, dict[str, object]] = defaultdict(dict)
        self._frames: list[tuple[object, ...]] = []
        self._drafts: dict[int, Signature] | None = None
        self._incidents: dict[tuple[int, int | None, str], str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.flush()

    def __getitem__(self, command_id: int) -> Command:
        return self.commands[command_id]

    def move(
        self, command: Command, event: Event, values: Mapping[str, object] | None = None, reason: str = ""
    ) -> Command:
        """One step of the state machine. UsageError: the table has no such step, or this actor may not cause it."""
        after = next_state(command.state, event, command.rule, command.signatures)
        cause = CAUSES[event]
        if (cause is Cause.DAEMON) != (self.actor.account_id is None):
            raise UsageError(
                tr(f"{event} is not caused by {self.actor.name}", f"{event} 不能由 {self.actor.name} 触发")
            )
        if cause is Cause.SECOND:
            if self._drafts is None:
                self._drafts = signatures(self.conn, list(self.commands.values()), "draft")
            drafted = self._drafts.get(command.id)
            require_other_person(self.actor, *(drafted[:2] if drafted else (None, None)))
            if drafted is None:
                raise UsageError(
                    tr(f"command {command.id} has no drafter's signature", f"命令 {command.id} 无起草人签名")
                )
        changes = dict(values or {})
        self.record(f"command.{event}", command, {"state": command.state}, {"state": after, **changes}, reason)
        return self.set(command, {"state": after.value, "changed_at": from_us(self.now_us)} | changes)

    def note(self, command: Command, action: str, values: Mapping[str, object], reason: str = "") -> Command:
        """Change fields without changing the state, audited like a move."""
        before = {name: getattr(command, name) for name in values}
        self.record(f"command.{action}", command, before, dict(values), reason)
        return self.set(command, values)

    def look_again(self, command: Command, text: str, after_s: float) -> Command:
        """Remember when to look again; a new text for the operator is audited, the mere time is not."""
        if text != command.attention:
            command = self.note(command, "attention", {"attention": text}, text)
        return self.set(command, {"next_check_at": from_us(self.now_us + round(after_s * US))})

    def set(self, command: Command, values: Mapping[str, object]) -> Command:
        """Change fields without an audit record of their own."""
        self._changes[command.id].update(values)
        after = changed(command, values)
        self.commands[command.id] = after
        return after

    def record(
        self, action: str, command: Command, before: Mapping[str, Any], after: Mapping[str, Any], reason: str = ""
    ) -> None:
        """An audit record about a command."""
        self._entries.append(
            Entry(actor=self.actor, action=action, object=command.object, before=before, after=after, reason=reason)
        )

    def entry(self, entry: Entry) -> None:
        """An audit record about something else, in the same group."""
        self._entries.append(entry)

    def incident(self, device_id: int, command_id: int | None, what: str, text: str) -> bool:
        """Open an incident unless it is open already; True if it is new."""
        key = (device_id, command_id, what)
        if key in self._incidents or incidents.is_open(self.conn, *key):
            return False
        self._incidents[key] = text
        object_ = f"command:{command_id}" if command_id is not None else f"device:{device_id}"
        self._entries.append(
            Entry(actor=self.actor, action="incident.open", object=object_, after={"what": what}, reason=text)
        )
        return True

    def keep_frames(self, command: Command, purpose: str, frames: Sequence[FrameLog]) -> None:
        """Frames as they went over the wire."""
        self._frames += [(command.id, from_us(f.time_us), purpose, f.direction, f.hex) for f in frames]

    def flush(self) -> None:
        """Write what has gathered: audit, rows, frames; each in as few statements as there are sets of columns."""
        if self._entries:
            append(self.conn, self.now_us, self._entries)
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for command_id, values in self._changes.items():
            groups[tuple(sorted(values))].append(command_id)
        for columns, ids in groups.items():
            self._update(columns, ids)
        if self._frames:
            self.conn.execute(
                "INSERT INTO command_frame (command_id, time, purpose, direction, hex) "
                f"SELECT * FROM {RECORDSET} AS v (c int8, t timestamptz, p text, d text, h text)".encode(),
                [json_rows([dict(zip("ctpdh", frame, strict=True)) for frame in self._frames])],
            )
        for (device, command, what), text in self._incidents.items():
            self.conn.execute(
                "INSERT INTO incident (device_id, command_id, what, text, opened_at) VALUES (%s, %s, %s, %s, %s)",
                (device, command, what, text, from_us(self.now_us)),
            )
        self._entries, self._frames = [], []
        self._changes.clear()
        self._incidents.clear()

    def _update(self, columns: tuple[str, ...], ids: list[int]) -> None:
        assignments = ", ".join(f"{name} = v.{name}" for name in columns)
        kinds = ", ".join(f"{name} {COLUMN_TYPES[name]}" for name in columns)
        self.conn.execute(
            f"UPDATE command c SET {assignments} FROM {RECORDSET} AS v (id int8, {kinds}) WHERE c.id = v.id".encode(),
            [json_rows([{"id": i, **self._changes[i]} for i in ids])],
        )


def signatures(conn: Conn, found: Sequence[Command], signature: str) -> dict[int, Signature]:
    """command id -> (account, session, role of the account, what was seen) of its present attempt."""
    rows = conn.execute(
        "SELECT p.command_id, p.account_id, p.session_id, a.role, p.seen FROM approval p "
        "JOIN account a ON a.id = p.account_id JOIN command c ON c.id = p.command_id AND c.attempt = p.attempt "
        "WHERE p.command_id = ANY(%s) AND p.signature = %s",
        ([c.id for c in found], signature),
    ).fetchall()
    return {int(r[0]): (int(r[1]), int(r[2]), str(r[3]), dict(r[4])) for r in rows}
