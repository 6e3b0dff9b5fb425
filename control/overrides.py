"""Overrides of interlocks 8, 9 and 11 (domain 9.4): a dispatcher, then a second person, each with their signature."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from ..model.lang import tr
from ..model.times import US, from_us, to_us
from ..protocols.common.errors import UsageError
from .audit import Actor, Entry, append, recorded
from .command import Command, Work
from .commands import needed
from .config import ControlConfig
from .permissions import require, require_other_person
from .records import Conn, insert
from .rules.interlocks import OVERRIDABLE
from .rules.states import State


def override(conn: Conn, now_us: int, actor: Actor, command_id: int, interlock: int, reason: str) -> None:
    """First signature of an override (dispatcher) of interlock 8, 9 or 11 of a command that is not yet sent."""
    with recorded(conn, now_us, actor, "command.override", f"command:{command_id}"):
        require(actor, "command.override")
        command = Work(conn, now_us, [command_id], actor)[command_id]
        _overridable(command, interlock)
        text = needed(reason)
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
        command = Work(conn, now_us, [command_id], actor)[command_id]
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


def overrides(conn: Conn, found: Sequence[Command]) -> dict[int, set[int]]:
    """command id -> interlocks of its present attempt that two people have overridden."""
    rows = conn.execute(
        "SELECT o.command_id, o.interlock FROM override_ o JOIN command c ON c.id = o.command_id "
        "AND c.attempt = o.attempt WHERE o.command_id = ANY(%s) AND o.second_account IS NOT NULL",
        ([c.id for c in found],),
    ).fetchall()
    result: dict[int, set[int]] = defaultdict(set)
    for command_id, interlock in rows:
        result[int(command_id)].add(int(interlock))
    return result
