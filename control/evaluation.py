"""What the evaluation of an order needs from the records, and its result put on record (domain 8.10, 8.12, 8.13)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from ..model.lang import tr
from ..model.times import BUSINESS_ZONE, from_us
from ..protocols.common.errors import UsageError
from .audit import Actor, Entry, append, recorded
from .orders import Order, lock, move
from .permissions import require
from .records import Conn, insert


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """What one customer was ordered. limit_kw: the highest of its rows' limits and floors, and of what is left of the
    power before the trip; voluntary: it may take 30 minutes; executed: commands that left; proven: those by metering.
    """

    customer: str
    devices: tuple[int, ...]
    required_kw: float
    limit_kw: float
    voluntary: bool
    commands: int
    executed: int
    proven: int
    sent_at: datetime | None
    released_at: datetime | None


def ordered(conn: Conn, order_id: int) -> list[Ordered]:
    """The customers of an order's commands, by name."""
    rows = conn.execute(
        "SELECT c.customer, array_agg(DISTINCT c.device_id), sum(c.expected_kw), "
        "greatest(max(r.limit_kw), max(c.floor_kw), sum(c.before_kw) - sum(c.expected_kw)), bool_or(r.voluntary), "
        "count(*), count(*) FILTER (WHERE c.sent), "
        "count(*) FILTER (WHERE jsonb_path_exists(c.checks, '$[*] ? (@.event == \"proven\")')), "
        "min(c.sent_at) FILTER (WHERE c.sent), max(coalesce(c.release_sent_at, c.released_at)) FILTER (WHERE c.sent) "
        "FROM command c JOIN plan_row r ON (r.plan_id, r.row) = (c.plan_id, c.plan_row) WHERE c.order_id = %s "
        "AND c.state NOT IN ('SUPERSEDED', 'REJECTED') GROUP BY c.customer ORDER BY c.customer",
        (order_id,),
    ).fetchall()
    return [
        Ordered(
            customer=str(name), devices=tuple(sorted(devices)), required_kw=float(kw), limit_kw=float(limit),
            voluntary=bool(voluntary), commands=int(n), executed=int(left), proven=int(proven), sent_at=sent,
            released_at=released,
        )
        for name, devices, kw, limit, voluntary, n, left, proven, sent, released in rows
    ]  # fmt: skip


def control_days(conn: Conn, devices: list[int], first: date, last: date) -> set[tuple[int, date]]:
    """(device, business day) on which a command of any order held a load: no days for a baseline."""
    rows = conn.execute(
        "SELECT device_id, sent_at, coalesce(restored_at, released_at, sent_at) FROM command "
        "WHERE sent AND device_id = ANY(%s) AND order_id IS NOT NULL",
        (devices,),
    ).fetchall()
    found = set()
    for device, begin, end in rows:
        day, stop = (t.astimezone(BUSINESS_ZONE).date() for t in (begin, end))
        while day <= stop:
            if first <= day <= last:
                found.add((int(device), day))
            day += timedelta(days=1)
    return found


def record(conn: Conn, now_us: int, actor: Actor, order_id: int, result: Mapping[str, Any]) -> Order:
    """Put an evaluation on record; an ended order becomes EVALUATED, an evaluated one keeps a further evaluation."""
    with recorded(conn, now_us, actor, "order.evaluate", f"order:{order_id}"):
        require(actor, "order.evaluate")
        order = lock(conn, order_id)
        if order.state not in ("ENDED", "EVALUATED"):
            raise UsageError(
                tr(
                    f"order {order.number} is {order.state}: only an ended order is put on record as evaluated",
                    f"指令 {order.number} 为 {order.state}: 结束后方可记录评价",
                )
            )
        values = {"order_id": order_id, "at": from_us(now_us), "by_": actor.name, "result": Jsonb(dict(result))}
        number = insert(conn, "order_evaluation", values, "id")
        if order.state == "ENDED":
            return move(conn, now_us, actor, order, "evaluate", reason=f"evaluation {number}")
        append(conn, now_us, [Entry(actor=actor, action="order.evaluate", object=f"order:{order.number}",
                                    after={"evaluation": number})])  # fmt: skip
        return order


def archive(conn: Conn, now_us: int, actor: Actor, order_id: int) -> Order:
    """The last state of an order; only of one that was evaluated."""
    with recorded(conn, now_us, actor, "order.archive", f"order:{order_id}"):
        require(actor, "order.evaluate")
        return move(conn, now_us, actor, lock(conn, order_id), "archive")


def last_evaluation(conn: Conn, order_id: int) -> dict[str, Any] | None:
    """The newest one on record, with `at` and `by`."""
    row = conn.execute(
        "SELECT at, by_, result FROM order_evaluation WHERE order_id = %s ORDER BY id DESC LIMIT 1", (order_id,)
    ).fetchone()
    return None if row is None else {"at": row[0], "by": row[1], **row[2]}
