"""What people do with commands: submit, approve, execute, cancel. Every act is one transaction with its audit records.

The record itself and its moves are in command.py, releases in releases.py, overrides in overrides.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg.types.json import Jsonb

from ..model.lang import tr
from ..model.times import US, from_us, to_us
from ..protocols.common.errors import UsageError
from . import orders
from .audit import Actor, recorded
from .command import LIVE_SQL, Command, Work, by_ids, commands, get, signatures
from .config import ControlConfig
from .permissions import Role, require, require_other_person
from .ports import target_of
from .records import Conn, scalar
from .rules.kinds import KINDS, lasts_half_hours, rounds_of
from .rules.states import ACTIVE, HELD, Event, State, next_state

__all__ = [
    "DEVICE_LOCK", "Command", "approve", "approve_many", "ask", "cancel", "commands", "execute", "get", "held",
    "insert_drafts", "last_digits", "needed", "reject", "resubmit", "seen_values", "sign", "submit", "submit_proposal",
]  # fmt: skip

DIGITS: Final = 4
DEVICE_LOCK: Final = 0x66756865


def sign(work: Work, found: Sequence[Command], signature: str, seen: Mapping[int, Mapping[str, object]]) -> None:
    """The actor's signature under the present attempt of these commands, in the work's transaction.

    The rows belong to the attempt that the work is about to write, so this flushes it.
    """
    work.flush()
    with work.conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO approval (command_id, attempt, signature, account_id, session_id, at, seen) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    c.id, c.attempt, signature, work.actor.account_id, work.actor.session_id, from_us(work.now_us),
                    Jsonb(dict(seen[c.id])),
                )
                for c in found
            ],
        )  # fmt: skip


def seen_values(command: Command) -> dict[str, object]:
    """What the signer is shown and signs: target, kind and parameters, kW, floor."""
    values: dict[str, object] = {
        "device_id": command.device_id, "round": command.round, "customer": command.customer,
        "expected_kw": command.expected_kw, "floor_kw": command.floor_kw, "order_id": command.order_id,
    }  # fmt: skip
    if command.kind != "trip":
        values |= {"kind": command.kind, "params": command.params, "limit_kw": command.limit_kw}
    if command.settings:
        values["settings"] = command.settings
    return values


def insert_drafts(conn: Conn, now_us: int, actor: Actor, rows: Sequence[dict[str, Any]]) -> list[Command]:
    """New commands in state DRAFT, recorded; device_seq is filled in. `rows` have the same keys.

    Locks are always taken in the order: order, devices, commands, audit. Never one of them behind the audit's.
    """
    devices = sorted({int(row["device_id"]) for row in rows})
    for device_id in devices:
        conn.execute("SELECT pg_advisory_xact_lock(%s, %s)", (DEVICE_LOCK, device_id))
    last = {
        int(d): int(n)
        for d, n in conn.execute(
            "SELECT device_id, max(device_seq) FROM command WHERE device_id = ANY(%s) GROUP BY device_id", (devices,)
        ).fetchall()
    }
    ready = []
    for row in rows:
        device = int(row["device_id"])
        last[device] = last.get(device, 0) + 1
        stamp = from_us(now_us)
        ready.append(row | {"device_seq": last[device], "created_at": stamp, "changed_at": stamp})
    names = list(ready[0])
    query = f"INSERT INTO command ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))}) RETURNING id"
    ids = []
    with conn.cursor() as cursor:
        cursor.executemany(query.encode(), [[_adapted(r[n]) for n in names] for r in ready], returning=True)
        while True:
            found = cursor.fetchone()
            assert found is not None
            ids.append(int(found[0]))
            if not cursor.nextset():
                break
    with Work(conn, now_us, ids, actor) as work:
        for command_id, row in zip(ids, ready, strict=True):
            work.record("command.draft", work[command_id], {}, row)
        return [work[i] for i in ids]


def _adapted(value: object) -> object:
    return (
        Jsonb(value)
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict))
        else value
    )


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
            "p.limit_kw, r.alarm_min, r.kind, r.params FROM proposal_row p "
            "JOIN plan_row r ON r.plan_id = %s AND r.row = p.plan_row "
            "WHERE p.proposal_id = %s AND p.chosen ORDER BY p.position",
            (plan_id, proposal_id),
        ).fetchall()
        rows = []
        for (
            position,
            plan_row,
            device_id,
            number,
            customer,
            expected,
            round_kw,
            floor,
            limit,
            alarm,
            name,
            params,
        ) in chosen:
            kind = KINDS[name]
            rows.append(
                {
                    "environment": config.environment, "kind": name, "scope": kind.scope.value, "device_id": device_id,
                    "round": number, "rounds": list(rounds_of(kind, number, params)), "params": params,
                    "signatures": kind.signatures, "order_id": order_id, "proposal_id": proposal_id,
                    "position": position, "plan_id": plan_id, "plan_row": plan_row, "customer": customer,
                    "expected_kw": expected, "round_kw": round_kw, "floor_kw": floor, "limit_kw": limit,
                    "alarm_min": alarm, "limit_half_hours": lasts_half_hours(kind, params),
                    "not_before": order.start_at, "not_after": order.end_at,
                }
            )  # fmt: skip
        made = insert_drafts(conn, now_us, actor, rows)
        with Work(conn, now_us, [c.id for c in made], actor) as work:
            return submit(work, [work[c.id] for c in made])


def submit(
    work: Work,
    found: Sequence[Command],
    event: Event = Event.SUBMIT,
    reason: str = "",
    cleared: Mapping[str, object] | None = None,
) -> list[Command]:
    """DRAFT or BLOCKED -> SUBMITTED with the drafter's signature, in the work's transaction."""
    made = []
    for c in found:
        values: dict[str, object] = {
            "submitted_at": from_us(work.now_us), "attempt": c.attempt + 1, "attention": "",
        }  # fmt: skip
        made.append(work.move(c, event, values | dict(cleared or {}), reason))
    targets = _targets(work.conn, made)
    sign(work, made, "draft", {c.id: seen_values(c) | {"target": targets.get(c.device_id)} for c in made})
    return made


def _targets(conn: Conn, found: Sequence[Command]) -> dict[int, str]:
    """Where frames to these commands' devices go by the archive."""
    rows = conn.execute(
        "SELECT id, link, address FROM device WHERE id = ANY(%s)", (sorted({c.device_id for c in found}),)
    ).fetchall()
    return {int(i): target_of(str(link), str(address)) for i, link, address in rows}


def resubmit(conn: Conn, now_us: int, actor: Actor, command_id: int, reason: str) -> Command:
    """Back to SUBMITTED by a person after BLOCKED or a lost select; it needs its signatures anew."""
    with recorded(conn, now_us, actor, "command.resubmit", f"command:{command_id}"):
        require(actor, "command.submit")
        cleared: dict[str, object] = {
            "step": None, "executed_at": None, "selected_at": None, "approved_at": None, "set_at": None,
            "set_results": [],
        }  # fmt: skip
        with Work(conn, now_us, [command_id], actor) as work:
            return submit(work, [work[command_id]], Event.RESUBMIT, reason, cleared)[0]


def approve(conn: Conn, now_us: int, actor: Actor, command_id: int, digits: str, config: ControlConfig) -> Command:
    """The second person's signature, in time, typing the last four digits of the device's address."""
    return approve_many(conn, now_us, actor, {command_id: digits}, config)[0]


def approve_many(
    conn: Conn, now_us: int, actor: Actor, digits: Mapping[int, str], config: ControlConfig
) -> list[Command]:
    """The second signature under several commands, command id -> digits typed: all of them or, with the first fault,
    none. One transaction, however many they are."""
    name = "command:" if len(digits) == 1 else "commands:"
    with recorded(conn, now_us, actor, "command.approve", name + ",".join(map(str, sorted(digits)))):
        found_kinds = {c.kind for c in by_ids(conn, list(digits))}
        require(actor, "parameter.approve" if found_kinds == {"parameters"} else "command.approve")
        order_ids = sorted({c.order_id for c in by_ids(conn, list(digits)) if c.order_id is not None})
        locked = [orders.lock(conn, i) for i in order_ids]
        with Work(conn, now_us, digits, actor) as work:
            found = list(work.commands.values())
            drafted = signatures(conn, found, "draft")
            addresses = {
                int(i): (str(link), str(address))
                for i, link, address in conn.execute(
                    "SELECT id, link, address FROM device WHERE id = ANY(%s)", ([c.device_id for c in found],)
                ).fetchall()
            }
            seen, made = {}, []
            for command in found:
                next_state(command.state, Event.APPROVE)
                draft = drafted.get(command.id)
                require_other_person(actor, *(draft[:2] if draft else (None, None)))
                link, address = addresses.get(command.device_id, ("", ""))
                _may_approve(
                    command, digits[command.id], address, now_us, {actor.role, draft[2] if draft else ""}, config
                )
                # Interlock 12 compares: an archive changed behind this signature stops the command.
                seen[command.id] = seen_values(command) | {"target": target_of(link, address)}
            sign(work, found, "approve", seen)
            for command in found:
                made.append(work.move(command, Event.APPROVE, {"approved_at": from_us(now_us)}))
        for order in locked:
            order_follows(conn, now_us, actor, order)
        return made


def _may_approve(
    command: Command, digits: str, address: str, now_us: int, roles: set[str], config: ControlConfig
) -> None:
    """UsageError: too late, wrong digits, or a dispatcher's signature is missing."""
    if command.submitted_at is None or now_us - to_us(command.submitted_at) > config.approval_within_s * US:
        raise UsageError(
            tr(
                f"submitted more than {config.approval_within_s} s ago: it expires, submit again",
                f"提交已超过 {config.approval_within_s} s: 将过期, 请重新提交",
            )
        )
    if digits.strip() != last_digits(address):
        raise UsageError(
            tr(
                f"command {command.id}: these are not the last four digits of the terminal's address",
                f"命令 {command.id}: 与终端地址后四位不符",
            )
        )
    if command.rule.takes_supply and command.limit_half_hours == 0 and Role.DISPATCHER not in roles:
        raise UsageError(
            tr(
                "a control without automatic release needs a dispatcher's signature",
                "不自动恢复的控制须有调度签名",
            )
        )


def order_follows(conn: Conn, now_us: int, actor: Actor, order: orders.Order) -> None:
    """The order is APPROVED as soon as none of its commands waits for a signature and at least one has it."""
    counts = dict(
        conn.execute("SELECT state, count(*) FROM command WHERE order_id = %s GROUP BY state", (order.id,)).fetchall()
    )
    if order.state == "PLANNED" and not counts.get(State.SUBMITTED) and counts.get(State.APPROVED):
        orders.move(conn, now_us, actor, order, "approve")


def last_digits(address: str) -> str:
    """The last four digits of an address, zeros in front of a shorter one (3301-660: "0660")."""
    return address.strip().rpartition("-")[2][-DIGITS:].rjust(DIGITS, "0")


def reject(conn: Conn, now_us: int, actor: Actor, command_id: int, reason: str) -> Command:
    """The second person says no, with a reason."""
    with recorded(conn, now_us, actor, "command.reject", f"command:{command_id}"):
        found = get(conn, command_id)
        require(actor, "parameter.approve" if found.kind == "parameters" else "command.reject")
        order_id = found.order_id
        order = None if order_id is None else orders.lock(conn, order_id)
        with Work(conn, now_us, [command_id], actor) as work:
            rejected = work.move(work[command_id], Event.REJECT, reason=needed(reason))
        if order is not None:
            order_follows(conn, now_us, actor, order)
        return rejected


def execute(conn: Conn, now_us: int, actor: Actor, command_ids: Sequence[int]) -> list[Command]:
    """Ask the daemon to carry out signed commands as one step; the daemon checks everything again."""
    wanted = sorted(set(command_ids))
    with recorded(conn, now_us, actor, "command.execute", "commands:" + ",".join(map(str, wanted))):
        require(actor, "command.execute")
        if not wanted:
            raise UsageError(tr("no approved command to execute", "没有已批准的命令"))
        step = int(scalar(conn, "SELECT coalesce(max(step), 0) + 1 FROM command"))
        with Work(conn, now_us, wanted, actor) as work:
            if any(c.order_id is None for c in work.commands.values()):
                raise UsageError(tr("only commands of an order are executed here", "此处仅执行指令下的命令"))
            busy = scalar(
                conn,
                "SELECT o.id FROM command c JOIN command o ON o.device_id = c.device_id AND o.id <> c.id "
                "AND o.rounds && c.rounds WHERE c.id = ANY(%(ids)s) AND takes_supply(c.kind) AND takes_supply(o.kind) "
                "AND (o.state = ANY(%(active)s) OR o.id = ANY(%(ids)s)) LIMIT 1",
                {"ids": wanted, "active": [s.value for s in ACTIVE]},
            )
            if busy:
                raise UsageError(tr(f"command {busy} is active on the same round", f"同一轮次已有命令 {busy}"))
            return [ask(work, work[i], step) for i in wanted]


def ask(work: Work, command: Command, step: int) -> Command:
    """One command of a step to CHECKING, in the work's transaction."""
    return work.move(command, Event.EXECUTE, {"step": step, "executed_at": from_us(work.now_us)})


def cancel(conn: Conn, now_us: int, actor: Actor, command_id: int, reason: str) -> Command:
    """Withdraw a command (one person, a reason). While the alarm runs, the daemon stops it by a frame."""
    with recorded(conn, now_us, actor, "command.cancel", f"command:{command_id}"):
        require(actor, "parameter.set" if get(conn, command_id).kind == "parameters" else "command.cancel")
        with Work(conn, now_us, [command_id], actor) as work:
            command, text = work[command_id], needed(reason)
            if command.state is State.ALARMING:
                return work.note(command, "cancel_wanted", {"cancel_wanted_at": from_us(now_us)}, text)
            return work.move(command, Event.CANCEL, reason=text)


def needed(reason: str) -> str:
    """The reason, stripped; UsageError without one."""
    if not reason.strip():
        raise UsageError(tr("a reason is needed: --reason TEXT", "须写原因: --reason 文本"))
    return reason.strip()


def held(conn: Conn) -> list[Command]:
    """Who may be without supply by our commands now (18-1)."""
    return [c for c in commands(conn, live=True) if c.state in HELD and c.rule.takes_supply]
