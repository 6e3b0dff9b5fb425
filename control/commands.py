"""Commands (domain 9.3) as records: the only code that moves a command from one state to another.

Every move is one audit record, appended before the row changes, in the same transaction. What may follow what is the
table of rules/states.py; who may cause it is checked here; the database checks the way to SENT once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from ..model.control import ActionKind
from ..model.lang import tr
from ..model.times import US, from_us, to_us
from ..protocols.common.errors import UsageError
from . import orders
from .audit import DAEMON, Actor, Entry, append, recorded
from .config import ControlConfig
from .permissions import Role, require, require_other_person
from .ports import target_of
from .records import Conn, fetch_all, fetch_one, insert, scalar, update
from .rounds import get_round
from .rules.interlocks import OVERRIDABLE
from .rules.restore import CutRow, RestoreStep, restore_plan
from .rules.states import CAUSES, FINAL, HELD, RELEASABLE, Cause, Event, State, next_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command to one round of one device. sent, acknowledged, read_back, measured_kw: None = not known."""

    id: int
    device_seq: int
    environment: str
    state: State
    attempt: int
    order_id: int
    proposal_id: int
    position: int
    plan_id: int
    plan_row: int
    device_id: int
    round: int
    customer: str
    expected_kw: float
    round_kw: float
    floor_kw: float
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
    sent_at: datetime | None
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

    @property
    def object(self) -> str:
        """Its name in the audit."""
        return f"command:{self.id}"


LIVE_SQL: Final = "state NOT IN ({})".format(", ".join(f"'{s}'" for s in sorted(FINAL)))
DIGITS: Final = 4
# Under way to a trip: a release of the order would pass them by and they would stay cut.
FLYING: Final = frozenset({State.CHECKING, State.SELECTED, State.SENT, State.ACKED, State.ALARMING})
DEVICE_LOCK: Final = 0x66756865


def get(conn: Conn, command_id: int) -> Command:
    """One command; UsageError if there is none."""
    found = fetch_one(conn, Command, "SELECT * FROM command WHERE id = %s", (command_id,))
    if found is None:
        raise UsageError(tr(f"no command {command_id}", f"没有命令 {command_id}"))
    return found


def lock(conn: Conn, command_id: int) -> Command:
    """The command, locked until the transaction ends."""
    conn.execute("SELECT FROM command WHERE id = %s FOR UPDATE", (command_id,))
    return get(conn, command_id)


def commands(conn: Conn, *, order_id: int | None = None, live: bool = False) -> list[Command]:
    """Commands in order of their numbers, of one order or all, all or the live ones."""
    return fetch_all(
        conn,
        Command,
        f"SELECT * FROM command WHERE (%(order)s::int IS NULL OR order_id = %(order)s)"
        f"{' AND ' + LIVE_SQL if live else ''} ORDER BY id",
        {"order": order_id},
    )


def move(
    conn: Conn,
    now_us: int,
    actor: Actor,
    command: Command,
    event: Event,
    values: Mapping[str, object] | None = None,
    reason: str = "",
) -> Command:
    """One step of the state machine inside the caller's transaction; `command` must be locked by it.

    UsageError: the table has no such step, or this actor may not cause it.
    """
    after = next_state(command.state, event)
    cause = CAUSES[event]
    if (cause is Cause.DAEMON) != (actor.account_id is None):
        raise UsageError(tr(f"{event} is not caused by {actor.name}", f"{event} 不能由 {actor.name} 触发"))
    if cause is Cause.SECOND:
        drafted = _signature(conn, command, "draft")
        require_other_person(actor, *(drafted or (None, None)))
        if drafted is None:
            raise UsageError(tr(f"command {command.id} has no drafter's signature", f"命令 {command.id} 无起草人签名"))
    changes = dict(values or {})
    append(
        conn,
        now_us,
        [
            Entry(
                actor=actor,
                action=f"command.{event}",
                object=command.object,
                before={"state": command.state},
                after={"state": after, **changes},
                reason=reason,
            )
        ],
    )
    update(conn, "command", command.id, {"state": after.value, "changed_at": from_us(now_us)} | changes)
    return get(conn, command.id)


def note(
    conn: Conn,
    now_us: int,
    command: Command,
    action: str,
    values: Mapping[str, object],
    reason: str = "",
    actor: Actor = DAEMON,
) -> Command:
    """Change fields without changing the state, audited like a move."""
    before = {name: getattr(command, name) for name in values}
    entry = Entry(
        actor=actor, action=f"command.{action}", object=command.object, before=before, after=dict(values), reason=reason
    )
    append(conn, now_us, [entry])
    update(conn, "command", command.id, values)
    return get(conn, command.id)


def _signature(conn: Conn, command: Command, signature: str) -> tuple[int, int] | None:
    row = conn.execute(
        "SELECT account_id, session_id FROM approval WHERE command_id = %s AND attempt = %s AND signature = %s",
        (command.id, command.attempt, signature),
    ).fetchone()
    return (int(row[0]), int(row[1])) if row else None


def _sign(conn: Conn, now_us: int, actor: Actor, command: Command, signature: str, seen: dict[str, object]) -> None:
    insert(
        conn,
        "approval",
        {
            "command_id": command.id,
            "attempt": command.attempt,
            "signature": signature,
            "account_id": actor.account_id,
            "session_id": actor.session_id,
            "at": from_us(now_us),
            "seen": seen,
        },
    )


def seen_values(command: Command) -> dict[str, object]:
    """What the signer is shown and signs: target, kW, floor."""
    return {
        "device_id": command.device_id,
        "round": command.round,
        "customer": command.customer,
        "expected_kw": command.expected_kw,
        "floor_kw": command.floor_kw,
        "order_id": command.order_id,
    }


def submit_proposal(conn: Conn, now_us: int, actor: Actor, proposal_id: int, config: ControlConfig) -> list[Command]:
    """Make one command a chosen row of a stored, feasible proposal, signed by the drafter and SUBMITTED."""
    with recorded(conn, now_us, actor, "command.submit", f"proposal:{proposal_id}"):
        require(actor, "command.submit")
        row = conn.execute("SELECT order_id, plan_id, feasible FROM proposal WHERE id = %s", (proposal_id,)).fetchone()
        if row is None:
            raise UsageError(tr(f"no proposal {proposal_id}", f"没有建议 {proposal_id}"))
        order_id, plan_id, feasible = row
        order = orders.lock(conn, order_id)
        if not feasible:
            raise UsageError(tr("a refused proposal cannot be submitted", "不可行的建议不能提交"))
        if order.state != "PLANNED":
            raise UsageError(
                tr(
                    f"order {order.number} is {order.state}, not PLANNED",
                    f"指令 {order.number} 为 {order.state}, 非 PLANNED",
                )
            )
        if scalar(conn, f"SELECT count(*) FROM command WHERE order_id = %s AND {LIVE_SQL}", (order_id,)):
            raise UsageError(
                tr(
                    "this order has open commands already: cancel or reject them first",
                    "本指令已有未结命令: 先取消或驳回",
                )
            )
        chosen = conn.execute(
            "SELECT p.position, p.plan_row, p.device_id, p.round, r.customer, p.expected_kw, p.round_kw, p.floor_kw, "
            "r.alarm_min FROM proposal_row p JOIN plan_row r ON r.plan_id = %s AND r.row = p.plan_row "
            "WHERE p.proposal_id = %s AND p.chosen ORDER BY p.position",
            (plan_id, proposal_id),
        ).fetchall()
        made = []
        # Locks are always taken in the order: order, devices, commands, audit. Never one of them behind the audit's.
        for device_id in sorted({row[2] for row in chosen}):
            conn.execute("SELECT pg_advisory_xact_lock(%s, %s)", (DEVICE_LOCK, device_id))
        for position, plan_row, device_id, number, customer, expected_kw, round_kw, floor_kw, alarm_min in chosen:
            seq = scalar(
                conn, "SELECT coalesce(max(device_seq), 0) + 1 FROM command WHERE device_id = %s", (device_id,)
            )
            stamp = from_us(now_us)
            values = {
                "device_seq": seq, "environment": config.environment, "order_id": order_id, "proposal_id": proposal_id,
                "position": position, "plan_id": plan_id, "plan_row": plan_row, "device_id": device_id, "round": number,
                "customer": customer, "expected_kw": expected_kw, "round_kw": round_kw, "floor_kw": floor_kw,
                "alarm_min": alarm_min, "not_before": order.start_at, "not_after": order.end_at, "created_at": stamp,
                "changed_at": stamp,
            }  # fmt: skip
            draft = get(conn, int(insert(conn, "command", values, "id")))
            append(conn, now_us, [Entry(actor=actor, action="command.draft", object=draft.object, after=values)])
            made.append(_submit(conn, now_us, actor, draft, Event.SUBMIT))
        return made


def _submit(
    conn: Conn,
    now_us: int,
    actor: Actor,
    command: Command,
    event: Event,
    reason: str = "",
    cleared: Mapping[str, object] | None = None,
) -> Command:
    values: dict[str, object] = {"submitted_at": from_us(now_us), "attempt": command.attempt + 1, "attention": ""}
    submitted = move(conn, now_us, actor, command, event, values | dict(cleared or {}), reason)
    _sign(conn, now_us, actor, submitted, "draft", seen_values(submitted))
    return submitted


def resubmit(conn: Conn, now_us: int, actor: Actor, command_id: int, reason: str) -> Command:
    """Back to SUBMITTED by a person after BLOCKED or a lost select; it needs a new second signature."""
    with recorded(conn, now_us, actor, "command.resubmit", f"command:{command_id}"):
        require(actor, "command.submit")
        values: dict[str, object] = {"step": None, "executed_at": None, "selected_at": None, "approved_at": None}
        return _submit(conn, now_us, actor, lock(conn, command_id), Event.RESUBMIT, reason, values)


def approve(conn: Conn, now_us: int, actor: Actor, command_id: int, digits: str, config: ControlConfig) -> Command:
    """The second person's signature, in time, typing the last four digits of the device's address."""
    with recorded(conn, now_us, actor, "command.approve", f"command:{command_id}"):
        require(actor, "command.approve")
        order = orders.lock(conn, get(conn, command_id).order_id)
        command = lock(conn, command_id)
        next_state(command.state, Event.APPROVE)
        drafted = _signature(conn, command, "draft")
        require_other_person(actor, *(drafted or (None, None)))
        if command.submitted_at is None or now_us - to_us(command.submitted_at) > config.approval_within_s * US:
            raise UsageError(
                tr(
                    f"submitted more than {config.approval_within_s} s ago: it expires, submit again",
                    f"提交已超过 {config.approval_within_s} s: 将过期, 请重新提交",
                )
            )
        row = conn.execute("SELECT link, address FROM device WHERE id = %s", (command.device_id,)).fetchone()
        link, address = (str(row[0]), str(row[1])) if row else ("", "")
        if digits.strip() != last_digits(address):
            raise UsageError(tr("these are not the last four digits of the terminal's address", "与终端地址后四位不符"))
        roles = {actor.role, _role_of(conn, drafted)}
        if command.limit_half_hours == 0 and Role.DISPATCHER not in roles:
            raise UsageError(
                tr(
                    "a trip without automatic release needs a dispatcher's signature",
                    "不自动恢复的跳闸须有调度签名",
                )
            )
        # Interlock 12 compares: an archive changed behind this signature stops the command.
        _sign(conn, now_us, actor, command, "approve", seen_values(command) | {"target": target_of(link, address)})
        approved = move(conn, now_us, actor, command, Event.APPROVE, {"approved_at": from_us(now_us)})
        _order_follows(conn, now_us, actor, order)
        return approved


def _order_follows(conn: Conn, now_us: int, actor: Actor, order: orders.Order) -> None:
    """The order is APPROVED as soon as none of its commands waits for a signature and at least one has it."""
    counts = dict(
        conn.execute("SELECT state, count(*) FROM command WHERE order_id = %s GROUP BY state", (order.id,)).fetchall()
    )
    if order.state == "PLANNED" and not counts.get(State.SUBMITTED) and counts.get(State.APPROVED):
        orders.move(conn, now_us, actor, order, "approve")


def last_digits(address: str) -> str:
    """The last four characters of an address, zeros in front of a shorter one."""
    return address.strip()[-DIGITS:].rjust(DIGITS, "0")


def _role_of(conn: Conn, signature: tuple[int, int] | None) -> str:
    return str(scalar(conn, "SELECT role FROM account WHERE id = %s", (signature[0],))) if signature else ""


def reject(conn: Conn, now_us: int, actor: Actor, command_id: int, reason: str) -> Command:
    """The second person says no, with a reason."""
    with recorded(conn, now_us, actor, "command.reject", f"command:{command_id}"):
        require(actor, "command.reject")
        order = orders.lock(conn, get(conn, command_id).order_id)
        rejected = move(conn, now_us, actor, lock(conn, command_id), Event.REJECT, reason=_needed(reason))
        _order_follows(conn, now_us, actor, order)
        return rejected


def execute(conn: Conn, now_us: int, actor: Actor, command_ids: Sequence[int]) -> list[Command]:
    """Ask the daemon to carry out approved commands as one step; the daemon checks everything again."""
    with recorded(conn, now_us, actor, "command.execute", "commands:" + ",".join(map(str, sorted(command_ids)))):
        require(actor, "command.execute")
        if not command_ids:
            raise UsageError(tr("no approved command to execute", "没有已批准的命令"))
        step = int(scalar(conn, "SELECT coalesce(max(step), 0) + 1 FROM command"))
        moved = []
        for command in [lock(conn, id_) for id_ in sorted(set(command_ids))]:
            busy = scalar(
                conn,
                "SELECT id FROM command WHERE device_id = %s AND round = %s AND id <> %s AND state IN ('CHECKING', "
                "'SELECTED', 'SENT', 'UNKNOWN', 'ACKED', 'ALARMING', 'VERIFYING', 'EFFECTIVE', 'PARTIAL', "
                "'INEFFECTIVE', 'AUTO_RELEASED', 'RELEASING', 'RELEASED')",
                (command.device_id, command.round, command.id),
            )
            if busy:
                raise UsageError(tr(f"command {busy} is active on the same round", f"同一轮次已有命令 {busy}"))
            values: dict[str, object] = {"step": step, "executed_at": from_us(now_us)}
            moved.append(move(conn, now_us, actor, command, Event.EXECUTE, values))
        return moved


def cancel(conn: Conn, now_us: int, actor: Actor, command_id: int, reason: str) -> Command:
    """Withdraw a command (one person, a reason). While the alarm runs, the daemon stops it by a frame."""
    with recorded(conn, now_us, actor, "command.cancel", f"command:{command_id}"):
        require(actor, "command.cancel")
        command, text = lock(conn, command_id), _needed(reason)
        if command.state is State.ALARMING:
            wanted: dict[str, object] = {"cancel_wanted_at": from_us(now_us)}
            return note(conn, now_us, command, "cancel_wanted", wanted, text, actor)
        return move(conn, now_us, actor, command, Event.CANCEL, reason=text)


def override(conn: Conn, now_us: int, actor: Actor, command_id: int, interlock: int, reason: str) -> None:
    """First signature of an override (dispatcher) of interlock 8, 9 or 11 of a command that is not yet sent."""
    with recorded(conn, now_us, actor, "command.override", f"command:{command_id}"):
        require(actor, "command.override")
        command = lock(conn, command_id)
        _overridable(command, interlock)
        text = _needed(reason)
        if _override(conn, command, interlock) is not None:
            raise UsageError(tr("this override has been signed already", "该解除已签"))
        after: dict[str, object] = {"interlock": interlock, "attempt": command.attempt}
        append(
            conn,
            now_us,
            [Entry(actor=actor, action="command.override", object=command.object, after=after, reason=text)],
        )
        row = {
            "command_id": command_id, "attempt": command.attempt, "interlock": interlock,
            "account_id": actor.account_id, "session_id": actor.session_id, "reason": text, "at": from_us(now_us),
        }  # fmt: skip
        insert(conn, "override_", row)


def override_second(
    conn: Conn, now_us: int, actor: Actor, command_id: int, interlock: int, config: ControlConfig
) -> None:
    """Second signature of an override, by another person in another session; only now it counts."""
    with recorded(conn, now_us, actor, "command.override_second", f"command:{command_id}"):
        require(actor, "command.override_second")
        command = lock(conn, command_id)
        _overridable(command, interlock)
        first = _override(conn, command, interlock)
        if first is None:
            raise UsageError(tr("a dispatcher has to sign this override first", "须由调度先签解除"))
        require_other_person(actor, first[0], first[1])
        if first[3] is not None:
            raise UsageError(tr("this override has been signed twice already", "该解除已双签"))
        if now_us - to_us(first[2]) > config.approval_within_s * US:
            raise UsageError(
                tr("the first signature is too old: reject the command and submit anew", "首签已过期: 请重新提交")
            )
        after: dict[str, object] = {"interlock": interlock, "attempt": command.attempt}
        append(conn, now_us, [Entry(actor=actor, action="command.override_second", object=command.object, after=after)])
        conn.execute(
            "UPDATE override_ SET second_account = %s, second_session = %s, second_at = %s "
            "WHERE command_id = %s AND attempt = %s AND interlock = %s",
            (actor.account_id, actor.session_id, from_us(now_us), command_id, command.attempt, interlock),
        )


def _overridable(command: Command, interlock: int) -> None:
    if interlock not in OVERRIDABLE:
        may = ", ".join(map(str, sorted(OVERRIDABLE)))
        raise UsageError(
            tr(f"interlock {interlock} can never be overridden (only {may})", f"联锁 {interlock} 永不可解除 (仅 {may})")
        )
    if command.state not in (State.SUBMITTED, State.APPROVED):
        raise UsageError(
            tr(
                f"command {command.id} is {command.state}: override before executing",
                f"命令 {command.id} 为 {command.state}: 须在执行前解除",
            )
        )


def _override(conn: Conn, command: Command, interlock: int) -> tuple[int, int, datetime, int | None] | None:
    row = conn.execute(
        "SELECT account_id, session_id, at, second_account FROM override_ "
        "WHERE command_id = %s AND attempt = %s AND interlock = %s",
        (command.id, command.attempt, interlock),
    ).fetchone()
    return (row[0], row[1], row[2], row[3]) if row else None


def overrides(conn: Conn, command: Command) -> set[int]:
    """Interlocks of this attempt that two people have overridden."""
    found = conn.execute(
        "SELECT interlock FROM override_ WHERE command_id = %s AND attempt = %s AND second_account IS NOT NULL",
        (command.id, command.attempt),
    ).fetchall()
    return {int(row[0]) for row in found}


def _release_values(conn: Conn, now_us: int, command: Command) -> dict[str, object]:
    """Fields every wish to release sets; what was known of an earlier release frame is cleared (the audit keeps it)."""
    round_ = get_round(conn, command.device_id, command.round)
    kind = ActionKind.PERMIT_CLOSE if round_ is None or round_.manual_reclose else ActionKind.DIRECT_CLOSE
    return {
        "release_wanted_at": from_us(now_us), "release_kind": kind.value, "release_sent_at": None,
        "release_acked": None, "released_at": None, "attention": "", "next_check_at": None,
    }  # fmt: skip


def release_order(
    conn: Conn, now_us: int, actor: Actor, order_id: int, config: ControlConfig, margin_kw: float | None = None
) -> list[tuple[Command, RestoreStep]]:
    """Staged restoring of everything an order cut (8.11): blocks in reverse order within the spare margin.

    Rows that do not fit the margin stay off, with the reason; call again with a new margin for the rest.
    """
    with recorded(conn, now_us, actor, "command.release", f"order:{order_id}"):
        require(actor, "command.release")
        order = orders.lock(conn, order_id)
        margin = margin_kw if margin_kw is not None else config.restore_margin_kw
        if margin is None:
            raise UsageError(tr("name the spare margin: --margin-kw KW", "请给出恢复裕度: --margin-kw KW"))
        conn.execute("SELECT FROM command WHERE order_id = %s FOR UPDATE", (order_id,))
        mine = commands(conn, order_id=order_id, live=True)
        flying = [c.id for c in mine if c.state in FLYING]
        if flying:
            raise UsageError(
                tr(f"commands {flying} are on their way: cancel them or wait", f"命令 {flying} 正在执行: 取消或等待")
            )
        held = {
            c.id: c
            for c in mine
            if c.state in RELEASABLE and c.state is not State.RELEASED and c.release_sent_at is None
        }
        if not held:
            raise UsageError(tr("nothing of this order is cut", "本指令没有已切负荷"))
        rows = [
            CutRow(command=c.id, order=c.position, kw=_cut_kw(c), off_min=_off_min(c, now_us)) for c in held.values()
        ]
        steps = restore_plan(rows, margin_kw=margin, block_share=config.restore_block_share)
        if not any(step.block for step in steps):
            raise UsageError("; ".join(step.reason for step in steps))
        orders.move(conn, now_us, actor, order, "release", reason=f"margin {margin:g} kW")
        result = []
        for step in steps:
            command = held[step.command]
            if step.block is not None:
                wait = timedelta(seconds=config.restore_wait_s * (step.block - 1))
                values = _release_values(conn, now_us, command) | {
                    "release_block": step.block, "release_not_before": from_us(now_us) + wait,
                    "release_pickup_kw": step.expected_kw, "release_margin_kw": margin, "release_danger": False,
                }  # fmt: skip
                command = move(conn, now_us, actor, command, Event.RELEASE, values, step.reason)
            result.append((command, step))
        return result


def _cut_kw(command: Command) -> float:
    """What this command is taken to have cut: measured where proven, else the round's load (cautious)."""
    return max(command.measured_kw or 0.0, command.round_kw)


def _off_min(command: Command, now_us: int) -> float:
    return (now_us - to_us(command.sent_at)) / US / 60 if command.sent_at else 0.0


def release_danger(conn: Conn, now_us: int, actor: Actor, command_id: int, reason: str) -> Command:
    """Early release of one customer for danger to people: one person, a reason, no notice, no waiting."""
    with recorded(conn, now_us, actor, "command.release_danger", f"command:{command_id}"):
        require(actor, "command.release_danger")
        text, command = _needed(reason), lock(conn, command_id)
        values = _release_values(conn, now_us, command) | {
            "release_danger": True, "release_block": None, "release_not_before": from_us(now_us),
            "release_pickup_kw": command.round_kw, "release_margin_kw": None,
        }  # fmt: skip
        return move(conn, now_us, actor, command, Event.RELEASE, values, text)


def repeat_release(conn: Conn, now_us: int, actor: Actor, command_id: int, reason: str) -> Command:
    """A release frame that nobody answered, once more, by a person's decision."""
    with recorded(conn, now_us, actor, "command.release", f"command:{command_id}"):
        require(actor, "command.release")
        command = lock(conn, command_id)
        if command.state not in (State.RELEASING, State.RELEASED):
            raise UsageError(
                tr(
                    "only a release under way is repeated: control release ORDER",
                    "仅可重发进行中的恢复: control release 指令",
                )
            )
        return move(
            conn, now_us, actor, command, Event.RELEASE, _release_values(conn, now_us, command), _needed(reason)
        )


def _needed(reason: str) -> str:
    if not reason.strip():
        raise UsageError(tr("a reason is needed: --reason TEXT", "须写原因: --reason 文本"))
    return reason.strip()


def held(conn: Conn) -> list[Command]:
    """Who may be without supply by our commands now (18-1)."""
    return [c for c in commands(conn, live=True) if c.state in HELD]
