"""Setting clocks of terminals, as far as it is recorded: who asked for it, before it is sent, and what came of it.

The rules are in acquisition/clock_rules, the conversation in acquisition/sessions/qgdw1376_clock. A set without a
record of its asking is refused by the daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from ..model.times import from_us
from .audit import Actor, Entry, append
from .permissions import require
from .records import Conn, scalar

SET: Final = "clock.set"
DONE: Final = "clock.done"
TICKET: Final = "clock.ticket"
VALID_S: Final = 120
"""A person's asking is good for so long, and once."""
MONTH: Final = timedelta(days=31)


def device_object(device: int) -> str:
    """What audit records of a device's clock are about."""
    return f"device:{device}"


def ask_set(
    conn: Conn, now_us: int, actor: Actor, device: int, offset_s: float | None, reason: str, *, person: bool = True
) -> int:
    """Record that a clock is about to be set; the record's number, which the daemon wants to see.

    UsageError: the person's role may not (verb clock.set).
    """
    if person:
        require(actor, SET)
    entry = Entry(
        actor=actor,
        action=SET,
        object=device_object(device),
        before={"offset_s": offset_s},
        after={"clock": "that of the master"},
        reason=reason,
        result="asked",
    )
    with conn.transaction():
        return append(conn, now_us, [entry])


def set_done(
    conn: Conn,
    now_us: int,
    actor: Actor,
    device: int,
    asked: int,
    facts: Mapping[str, object],
    result: str,
    reason: str,
) -> None:
    """Record what came of it. facts: before, told, offset_before_s, offset_after_s … of the event `clock_set`."""
    before = {k: facts[k] for k in ("before", "offset_before_s") if k in facts}
    after = {k: v for k, v in facts.items() if k not in before}
    entry = Entry(
        actor=actor,
        action=DONE,
        object=device_object(device),
        before=before,
        after={"asked": asked, **after},
        reason=reason,
        result=result,
    )
    with conn.transaction():
        append(conn, now_us, [entry])


def ticket(conn: Conn, now_us: int, actor: Actor, device: int, offset_s: float, reason: str) -> bool:
    """Record that a clock wants a person (metering), once in a day; whether it was new."""
    since = from_us(now_us) - timedelta(days=1)
    told = scalar(
        conn,
        "SELECT count(*) FROM audit WHERE object = %s AND action = %s AND time > %s",
        (device_object(device), TICKET, since),
    )
    if told:
        return False
    entry = Entry(
        actor=actor, action=TICKET, object=device_object(device), before={"offset_s": offset_s}, reason=reason
    )
    with conn.transaction():
        append(conn, now_us, [entry])
    return True


def sets_in_a_month(conn: Conn, now_us: int, device: int) -> int:
    """How often the device's clock was really set in the last 31 days."""
    found = scalar(
        conn,
        "SELECT count(*) FROM audit WHERE object = %s AND action = %s AND result = 'done' AND time > %s",
        (device_object(device), DONE, from_us(now_us) - MONTH),
    )
    return int(found or 0)


def asked_lately(conn: Conn, now_us: int, device: int, seq: int) -> bool:
    """Whether a person's asking with this number is there, fresh, and about this device."""
    since = from_us(now_us) - timedelta(seconds=VALID_S)
    found = scalar(
        conn,
        "SELECT count(*) FROM audit WHERE seq = %s AND object = %s AND action = %s AND result = 'asked' AND time > %s",
        (seq, device_object(device), SET, since),
    )
    return bool(found)
