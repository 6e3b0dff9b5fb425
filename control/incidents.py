"""Incidents: what only people can decide. The program opens them once and never closes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..model.lang import tr
from ..model.times import from_us
from ..protocols.common.errors import UsageError
from .audit import Actor, Entry, append, recorded
from .permissions import require
from .records import Conn, fetch_all, fetch_one


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One incident of a device, with or without a command. what: its key; while one is open, no other is opened."""

    id: int
    device_id: int
    command_id: int | None
    what: str
    text: str
    opened_at: datetime
    closed_at: datetime | None
    closed_by: str
    close_reason: str


def incidents(conn: Conn, *, everything: bool = False) -> list[Incident]:
    """Open incidents, or all, oldest first."""
    where = "" if everything else "WHERE closed_at IS NULL "
    return fetch_all(conn, Incident, f"SELECT * FROM incident {where}ORDER BY id")


def is_open(conn: Conn, device_id: int, command_id: int | None, what: str) -> bool:
    """Whether this incident is known already."""
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM incident WHERE device_id = %s AND what = %s AND command_id IS NOT DISTINCT FROM %s "
        "AND closed_at IS NULL)",
        (device_id, what, command_id),
    ).fetchone()
    return bool(row and row[0])


def close(conn: Conn, now_us: int, actor: Actor, incident_id: int, reason: str) -> Incident:
    """A person has dealt with it and says how."""
    with recorded(conn, now_us, actor, "incident.close", f"incident:{incident_id}"):
        require(actor, "incident.close")
        found = fetch_one(conn, Incident, "SELECT * FROM incident WHERE id = %s FOR UPDATE", (incident_id,))
        if found is None or found.closed_at is not None:
            raise UsageError(tr(f"no open incident {incident_id}", f"没有未结事件 {incident_id}"))
        if not reason.strip():
            raise UsageError(tr("say what was done: --reason TEXT", "须写处理情况: --reason 文本"))
        after = {"closed_by": actor.name, "close_reason": reason.strip()}
        append(
            conn, now_us,
            [Entry(actor=actor, action="incident.close", object=f"incident:{incident_id}", after=after, reason=reason)],
        )  # fmt: skip
        conn.execute(
            "UPDATE incident SET closed_at = %s, closed_by = %s, close_reason = %s WHERE id = %s",
            (from_us(now_us), actor.name, reason.strip(), incident_id),
        )
        made = fetch_one(conn, Incident, "SELECT * FROM incident WHERE id = %s", (incident_id,))
        assert made is not None
        return made
