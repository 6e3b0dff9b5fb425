"""CONTROL-FREEZE (总闭锁, interlock 16): one person stops all trips and ordinary releases, two people lift the stop."""

from __future__ import annotations

from ..model.lang import tr
from ..model.times import US, from_us, to_us
from ..protocols.common.errors import UsageError
from .audit import Actor, Entry, append, recorded
from .config import ControlConfig
from .permissions import require, require_other_person
from .records import Conn, scalar

NAME = "control_freeze"


def frozen(conn: Conn, *, share: bool = False) -> bool:
    """True while the freeze is on. share: hold it against change until the transaction ends."""
    return bool(
        scalar(conn, "SELECT value FROM system_flag WHERE name = %s" + (" FOR SHARE" if share else ""), (NAME,))
    )


def freeze(conn: Conn, now_us: int, actor: Actor, reason: str) -> None:
    """Stop, at once, by one person."""
    with recorded(conn, now_us, actor, "freeze.on", NAME):
        require(actor, "freeze.on")
        # The flag before the audit: whoever is about to send holds the flag and then waits for the audit's lock.
        conn.execute("SELECT FROM system_flag WHERE name = %s FOR UPDATE", (NAME,))
        before = frozen(conn)
        append(
            conn,
            now_us,
            [
                Entry(
                    actor=actor,
                    action="freeze.on",
                    object=NAME,
                    before={"on": before},
                    after={"on": True},
                    reason=reason,
                )
            ],
        )
        conn.execute(
            "UPDATE system_flag SET value = true, reason = %s, changed_by = %s, changed_at = %s, ask_account = NULL, "
            "ask_session = NULL, ask_at = NULL WHERE name = %s",
            (reason, actor.name, from_us(now_us), NAME),
        )


def unfreeze(conn: Conn, now_us: int, actor: Actor, reason: str, config: ControlConfig) -> bool:
    """First call: a dispatcher's wish (False). Second call by another person in time: the stop is lifted (True)."""
    with recorded(conn, now_us, actor, "freeze.off", NAME):
        require(actor, "freeze.off")
        row = conn.execute(
            "SELECT value, ask_account, ask_session, ask_at FROM system_flag WHERE name = %s FOR UPDATE", (NAME,)
        ).fetchone()
        if row is None or not row[0]:
            raise UsageError(tr("CONTROL-FREEZE is not on", "总闭锁未投入"))
        asked = row[3] is not None and now_us - to_us(row[3]) <= config.approval_within_s * US
        if not asked:
            if actor.role != "dispatcher":
                raise UsageError(tr("a dispatcher has to ask first", "须由调度先提出"))
            append(conn, now_us, [Entry(actor=actor, action="freeze.off_ask", object=NAME, reason=reason)])
            conn.execute(
                "UPDATE system_flag SET ask_account = %s, ask_session = %s, ask_at = %s WHERE name = %s",
                (actor.account_id, actor.session_id, from_us(now_us), NAME),
            )
            return False
        require_other_person(actor, row[1], row[2])
        append(
            conn,
            now_us,
            [
                Entry(
                    actor=actor,
                    action="freeze.off",
                    object=NAME,
                    before={"on": True},
                    after={"on": False},
                    reason=reason,
                )
            ],
        )
        conn.execute(
            "UPDATE system_flag SET value = false, reason = %s, changed_by = %s, changed_at = %s, ask_account = NULL, "
            "ask_session = NULL, ask_at = NULL WHERE name = %s",
            (reason, actor.name, from_us(now_us), NAME),
        )
        return True
