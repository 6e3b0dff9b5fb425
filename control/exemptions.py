"""Exemptions of the completeness ledger (domain 3.3): who registered what for which reason, audited; never deleted.

An exemption lists slots apart, it never makes them look stored. It may be withdrawn as a mistake, or ended.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from ..model.lang import tr
from ..model.times import from_us
from ..protocols.common.errors import UsageError
from ..storage.exemptions import FIELDS, KINDS, StoredExemption, load_exemptions
from .audit import Actor, Entry, append, recorded
from .permissions import require
from .records import Conn, fetch_one

MAY = "ledger.exempt"


def add(
    conn: Conn,
    now_us: int,
    actor: Actor,
    *,
    device: str,
    point: str | None,
    since: datetime,
    until: datetime | None,
    kind: str,
    reason: str,
) -> StoredExemption:
    """Register one. UsageError: no right to, unknown device or point, wrong kind, no reason, empty span."""
    with recorded(conn, now_us, actor, "exemption.add", f"device:{device}"):
        require(actor, MAY)
        if kind not in KINDS:
            raise UsageError(tr(f"kind: one of {', '.join(KINDS)}", f"类别: 应为 {', '.join(KINDS)} 之一"))
        if not reason.strip():
            raise UsageError(tr("an exemption needs a reason", "豁免须写明原因"))
        if until is not None and until <= since:
            raise UsageError(tr("the exemption ends before it begins", "豁免的截止早于起始"))
        found = conn.execute("SELECT id FROM device WHERE name = %s", (device,)).fetchone()
        if found is None:
            raise UsageError(tr(f"no device {device!r}", f"没有设备 {device!r}"))
        place = None
        if point is not None:
            place = conn.execute(
                "SELECT id FROM point WHERE device_id = %s AND name = %s", (found[0], point)
            ).fetchone()
            if place is None:
                raise UsageError(tr(f"device {device} has no point {point!r}", f"设备 {device} 没有计量点 {point!r}"))
        made = fetch_one(
            conn,
            StoredExemption,
            "INSERT INTO exemption (device, point, since, until, kind, reason, made_by, made_at) "
            f"VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING {FIELDS}",
            (found[0], place and place[0], since, until, kind, reason.strip(), actor.name, from_us(now_us)),
        )
        assert made is not None
        entry = Entry(
            actor=actor, action="exemption.add", object=f"exemption:{made.id}", after=asdict(made), reason=reason
        )
        append(conn, now_us, [entry])
    return made


def remove(
    conn: Conn, now_us: int, actor: Actor, number: int, reason: str, *, ends: datetime | None = None
) -> StoredExemption:
    """Withdraw an exemption, or with `ends` let it end then. UsageError: no right to, none in force, no reason."""
    with recorded(conn, now_us, actor, "exemption.remove", f"exemption:{number}"):
        require(actor, MAY)
        if not reason.strip():
            raise UsageError(tr("withdrawing an exemption needs a reason", "撤销豁免须写明原因"))
        before = fetch_one(
            conn,
            StoredExemption,
            f"SELECT {FIELDS} FROM exemption WHERE id = %s AND withdrawn_at IS NULL FOR UPDATE",
            (number,),
        )
        if before is None:
            raise UsageError(tr(f"no exemption {number} in force", f"没有生效的豁免 {number}"))
        if ends is not None and not (before.since < ends and (before.until is None or ends < before.until)):
            raise UsageError(tr("the new end lies outside the exemption", "新的截止时间不在豁免期内"))
        changes = ("until = %s", (ends,)) if ends is not None else (
            "withdrawn_by = %s, withdrawn_at = %s, withdrawn_reason = %s",
            (actor.name, from_us(now_us), reason.strip()),
        )  # fmt: skip
        after = fetch_one(
            conn,
            StoredExemption,
            f"UPDATE exemption SET {changes[0]} WHERE id = %s RETURNING {FIELDS}",
            (*changes[1], number),
        )
        assert after is not None
        action = "exemption.remove" if ends is None else "exemption.end"
        entry = Entry(
            actor=actor, action=action, object=f"exemption:{number}", before=asdict(before), after=asdict(after),
            reason=reason,
        )  # fmt: skip
        append(conn, now_us, [entry])
    return after


def listed(conn: Conn, *, withdrawn: bool = False) -> list[StoredExemption]:
    """Those in force, or all that ever were."""
    return load_exemptions(conn, withdrawn=withdrawn)
