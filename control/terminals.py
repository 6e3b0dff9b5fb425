"""States of a device outside any order (domain 9.3, 9.6): protection, exclusion, reminder, giving free what it holds.

What protects needs one person and a reason and takes effect on the server at once, whether or not the device answers;
what takes a protection off needs two. The frames go every command's way: signed, checked, recorded, never repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from ..model.lang import tr
from ..model.times import from_us
from ..protocols.common.errors import UsageError
from .audit import Actor, Entry, append, recorded
from .command import Command, Work
from .commands import approve_many, ask, insert_drafts, needed, submit
from .config import ControlConfig
from .permissions import require
from .records import Conn, fetch_all, insert, scalar
from .rules.kinds import KINDS, Effect, Kind, Scope, parse_parameters

VALID: Final = timedelta(hours=1)
MAX_NUMBER: Final = 8
STATE_KINDS: Final = {name: kind for name, kind in KINDS.items() if kind.effect is Effect.STATE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """A device that the server protects (保电)."""

    id: int
    device_id: int
    since: datetime
    until: datetime | None
    reason: str
    by_: str
    lifted_at: datetime | None
    lifted_by: str


def protections(conn: Conn) -> list[Protection]:
    """What is protected by a person's word now, oldest first (plans name protected customers besides)."""
    return fetch_all(conn, Protection, "SELECT * FROM protection WHERE lifted_at IS NULL ORDER BY id")


def permission(kind: Kind) -> str:
    """What a person needs to ask for a state."""
    if kind.name in ("protect", "exclude"):
        return "device.protect"
    if kind.name in ("unprotect", "unexclude"):
        return "device.unprotect"
    return "device.remind" if kind.name in ("remind", "unremind") else "device.clear"


def order_state(
    conn: Conn,
    now_us: int,
    actor: Actor,
    device_id: int,
    name: str,
    reason: str,
    config: ControlConfig,
    *,
    number: int = 0,
    params: str = "",
) -> Command:
    """Ask for a state: with one signature it is carried out at once, with two it waits for the second person.

    number: the round or the total-sum group, where the kind has one.
    """
    kind = STATE_KINDS.get(name)
    if kind is None:
        raise UsageError(
            tr(f"no state {name!r}: {', '.join(STATE_KINDS)}", f"没有状态 {name!r}: {', '.join(STATE_KINDS)}")
        )
    with recorded(conn, now_us, actor, f"device.{name}", f"device:{device_id}"):
        require(actor, permission(kind))
        text = needed(reason)
        values, faults = parse_parameters(kind, params)
        if kind.scope is not Scope.DEVICE and not 1 <= number <= MAX_NUMBER:
            faults.append(tr("a number from 1 to 8 is needed", "须给出 1 至 8 的序号"))
        if not scalar(conn, "SELECT count(*) FROM device WHERE id = %s AND enabled", (device_id,)):
            faults.append(tr(f"no device {device_id} in service", f"没有在用装置 {device_id}"))
        if faults:
            raise UsageError("; ".join(faults))
        if name == "protect":
            _protect(conn, now_us, actor, device_id, text, values)
        row: dict[str, Any] = {
            "environment": config.environment, "kind": name, "scope": kind.scope.value, "device_id": device_id,
            "round": number if kind.scope is not Scope.DEVICE else 0, "rounds": [], "params": values,
            "signatures": kind.signatures, "customer": "", "expected_kw": 0.0, "round_kw": 0.0, "floor_kw": 0.0,
            "reason": text, "not_before": from_us(now_us), "not_after": from_us(now_us) + VALID,
        }  # fmt: skip
        (draft,) = insert_drafts(conn, now_us, actor, [row])
        with Work(conn, now_us, [draft.id], actor) as work:
            (made,) = submit(work, [work[draft.id]], reason=text)
            return ask(work, made, _step(conn)) if kind.signatures == 1 else made


def second(conn: Conn, now_us: int, actor: Actor, digits: Mapping[int, str], config: ControlConfig) -> list[Command]:
    """The second person signs (last four digits of each device's address), and they are carried out at once."""
    approve_many(conn, now_us, actor, digits, config)
    with recorded(conn, now_us, actor, "command.execute", "commands:" + ",".join(map(str, sorted(digits)))):
        step = _step(conn)
        with Work(conn, now_us, digits, actor) as work:
            return [ask(work, c, step) for c in list(work.commands.values())]


def _step(conn: Conn) -> int:
    return int(scalar(conn, "SELECT coalesce(max(step), 0) + 1 FROM command"))


def _protect(conn: Conn, now_us: int, actor: Actor, device_id: int, reason: str, values: Mapping[str, object]) -> None:
    """The server protects from now on; a protection in force is replaced by the new one."""
    half_hours = int(str(values.get("half_hours", 0)))
    until = from_us(now_us) + timedelta(minutes=30 * half_hours) if half_hours else None
    row = {
        "device_id": device_id, "since": from_us(now_us), "until": until, "reason": reason, "by_": actor.name,
    }  # fmt: skip
    append(conn, now_us, [Entry(actor=actor, action="protection.on", object=f"device:{device_id}", after=row)])
    conn.execute(
        "UPDATE protection SET lifted_at = %s, lifted_by = %s WHERE device_id = %s AND lifted_at IS NULL",
        (from_us(now_us), tr("replaced", "被替换"), device_id),
    )
    insert(conn, "protection", row)
