"""Orders of the authority (domain 8.13): received, repeated back by a second person, then the frame of all commands.

An order never contains commands; it authorises them. Its end is mandatory and never extended by the program.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from ..model.lang import tr
from ..model.times import from_us
from ..protocols.common.errors import UsageError
from .audit import DAEMON, Actor, Entry, append, recorded
from .permissions import require, require_other_person
from .plans import LEVELS
from .records import Conn, fetch_all, fetch_one, insert, scalar, update

# (state, step) -> state.
STEPS: Final = {
    ("RECEIVED", "confirm"): "CONFIRMED",
    ("RECEIVED", "refuse"): "REFUSED",
    ("RECEIVED", "cancel"): "CANCELLED",
    ("CONFIRMED", "plan"): "PLANNED",
    ("CONFIRMED", "cancel"): "CANCELLED",
    ("PLANNED", "plan"): "PLANNED",
    ("PLANNED", "approve"): "APPROVED",
    ("PLANNED", "cancel"): "CANCELLED",
    ("APPROVED", "notify"): "NOTIFYING",
    ("APPROVED", "plan"): "PLANNED",
    ("APPROVED", "activate"): "ACTIVE",
    ("APPROVED", "cancel"): "CANCELLED",
    ("NOTIFYING", "notify"): "NOTIFYING",
    ("NOTIFYING", "activate"): "ACTIVE",
    ("NOTIFYING", "cancel"): "CANCELLED",
    ("ACTIVE", "release"): "RELEASING",
    ("RELEASING", "release"): "RELEASING",
    ("ACTIVE", "end"): "ENDED",
    ("RELEASING", "end"): "ENDED",
    ("ENDED", "evaluate"): "EVALUATED",
    ("EVALUATED", "archive"): "ARCHIVED",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order. gap_kw: the load to be reduced, primary kW."""

    id: int
    number: str
    issuer: str
    area: str
    level: str
    gap_kw: float
    start_at: datetime
    end_at: datetime
    text: str
    state: str
    received_at: datetime
    receiver: int
    receiver_session: int
    confirmer: int | None
    confirmer_session: int | None
    repeat_back: str
    attention: str
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An order as it was received; every field is mandatory but the text."""

    number: str
    issuer: str
    area: str
    level: str
    gap_kw: float
    start_at: datetime
    end_at: datetime
    text: str = ""


def receive(conn: Conn, now_us: int, actor: Actor, order: Received) -> Order:
    """Write down a received order (state RECEIVED)."""
    with recorded(conn, now_us, actor, "order.receive", f"order:{order.number}"):
        require(actor, "order.receive")
        faults = []
        if not (order.number.strip() and order.issuer.strip() and order.area.strip()):
            faults.append(tr("number, issuer and area must not be empty", "编号、下达者、区域不能为空"))
        if order.level not in LEVELS:
            faults.append(tr(f"level must be one of {', '.join(LEVELS)}", f"等级须为 {', '.join(LEVELS)}"))
        if not 0 < order.gap_kw < 1e9:
            faults.append(tr("the gap must be a positive number of kW", "缺口须为正的 kW 数"))
        if order.end_at <= order.start_at or order.end_at <= from_us(now_us):
            faults.append(tr("the end must lie in the future and after the start", "结束须在将来且晚于开始"))
        if scalar(conn, "SELECT count(*) FROM order_ WHERE number = %s", (order.number,)):
            faults.append(tr(f"order {order.number} exists already", f"指令 {order.number} 已存在"))
        if faults:
            raise UsageError("; ".join(faults))
        stamp = from_us(now_us)
        values = asdict(order) | {
            "receiver": actor.account_id,
            "receiver_session": actor.session_id,
            "received_at": stamp,
            "changed_at": stamp,
        }
        append(conn, now_us, [Entry(actor=actor, action="order.receive", object=f"order:{order.number}", after=values)])
        return get(conn, int(insert(conn, "order_", values, "id")))


def get(conn: Conn, order_id: int) -> Order:
    """One order; UsageError if there is none."""
    found = fetch_one(conn, Order, "SELECT * FROM order_ WHERE id = %s", (order_id,))
    if found is None:
        raise UsageError(tr(f"no order {order_id}", f"没有指令 {order_id}"))
    return found


def find(conn: Conn, name: str) -> Order:
    """The order with this number, else with this id."""
    found = fetch_one(conn, Order, "SELECT * FROM order_ WHERE number = %s", (name,))
    if found is not None:
        return found
    if name.isdigit() and int(name) < 2**31:
        return get(conn, int(name))
    raise UsageError(tr(f"no order {name!r}", f"没有指令 {name!r}"))


def orders(conn: Conn, *, active: bool = False) -> list[Order]:
    """All orders (or those in force), newest first."""
    which = "WHERE state = 'ACTIVE' " if active else ""
    return fetch_all(conn, Order, f"SELECT * FROM order_ {which}ORDER BY id DESC")


def confirm(
    conn: Conn, now_us: int, actor: Actor, order_id: int, *, number: str, gap_kw: float, end_at: datetime
) -> Order:
    """Repeat-back by a second person, who says number, kW and end; a difference confirms nothing."""
    with recorded(conn, now_us, actor, "order.confirm", f"order:{order_id}"):
        require(actor, "order.confirm")
        order = lock(conn, order_id)
        require_other_person(actor, order.receiver, order.receiver_session)
        said = f"{number} / {gap_kw:g} kW / {end_at.isoformat()}"
        if number != order.number or abs(gap_kw - order.gap_kw) > 1e-6 or end_at != order.end_at:
            raise UsageError(
                tr(
                    f"the repeat-back ({said}) differs from the order as received: ask the issuer again",
                    f"复诵 ({said}) 与接收内容不符: 请向下达者核对",
                )
            )
        values: dict[str, object] = {
            "confirmer": actor.account_id,
            "confirmer_session": actor.session_id,
            "repeat_back": said,
        }
        return move(conn, now_us, actor, order, "confirm", values)


def lock(conn: Conn, order_id: int) -> Order:
    """The order, locked until the transaction ends."""
    conn.execute("SELECT FROM order_ WHERE id = %s FOR UPDATE", (order_id,))
    return get(conn, order_id)


def move(
    conn: Conn,
    now_us: int,
    actor: Actor,
    order: Order,
    step: str,
    values: dict[str, object] | None = None,
    reason: str = "",
) -> Order:
    """One step of the life cycle, audited; the caller holds the lock and has checked the permission."""
    after = STEPS.get((order.state, step))
    if after is None:
        raise UsageError(
            tr(
                f"order {order.number} is {order.state}: {step} is not possible",
                f"指令 {order.number} 为 {order.state}: 不能 {step}",
            )
        )
    changes = {"state": after, "changed_at": from_us(now_us)} | (values or {})
    entry = Entry(
        actor=actor,
        action=f"order.{step}",
        object=f"order:{order.number}",
        before={"state": order.state},
        after=changes,
        reason=reason,
    )
    append(conn, now_us, [entry])
    update(conn, "order_", order.id, changes)
    return get(conn, order.id)


def activate(conn: Conn, now_us: int, actor: Actor, order_id: int) -> Order:
    """The dispatcher puts the level in force; one active order an area."""
    with recorded(conn, now_us, actor, "order.activate", f"order:{order_id}"):
        require(actor, "order.activate")
        order = lock(conn, order_id)
        other = scalar(
            conn,
            "SELECT number FROM order_ WHERE area = %s AND id <> %s AND state IN ('ACTIVE', 'CHANGING', 'RELEASING')",
            (order.area, order_id),
        )
        if other:
            raise UsageError(
                tr(
                    f"order {other} is active in area {order.area}: end it first",
                    f"区域 {order.area} 已有生效指令 {other}: 先结束",
                )
            )
        if from_us(now_us) >= order.end_at:
            raise UsageError(tr("the order's end has passed", "指令已到期"))
        return move(conn, now_us, actor, order, "activate")


def cancel(conn: Conn, now_us: int, actor: Actor, order_id: int, reason: str) -> Order:
    """Withdraw an order that is not active; its waiting commands are cancelled by their own verb or expire."""
    with recorded(conn, now_us, actor, "order.cancel", f"order:{order_id}"):
        require(actor, "order.end")
        return move(conn, now_us, actor, lock(conn, order_id), "cancel", reason=reason)


def end(conn: Conn, now_us: int, actor: Actor, order_id: int) -> Order:
    """End an order; refused while one of its commands is not final."""
    with recorded(conn, now_us, actor, "order.end", f"order:{order_id}"):
        require(actor, "order.end")
        order = lock(conn, order_id)
        open_ = scalar(
            conn,
            "SELECT count(*) FROM command WHERE order_id = %s AND state NOT IN ('CANCELLED', 'REJECTED', 'EXPIRED', "
            "'FAILED', 'ABANDONED', 'SUPERSEDED', 'CLOSED')",
            (order_id,),
        )
        if open_:
            raise UsageError(
                tr(
                    f"{open_} commands of order {order.number} are open: control release, then wait for CLOSED",
                    f"指令 {order.number} 尚有 {open_} 条命令未结: 先 control release, 待全部 CLOSED",
                )
            )
        return move(conn, now_us, actor, order, "end")


def give_notice(
    conn: Conn,
    now_us: int,
    actor: Actor,
    order_id: int,
    customers: list[tuple[str, str]],
    *,
    channel: str,
    note: str,
    given: bool,
) -> int:
    """Record who was told (customer, contact) over which channel; given False = tried and not reached."""
    with recorded(conn, now_us, actor, "order.notice", f"order:{order_id}"):
        require(actor, "order.notice")
        order = lock(conn, order_id)
        if order.state in ("APPROVED", "NOTIFYING"):
            order = move(conn, now_us, actor, order, "notify")
        if order.state not in ("NOTIFYING", "ACTIVE", "RELEASING"):
            raise UsageError(
                tr(
                    f"order {order.number} is {order.state}: approve its commands first",
                    f"指令 {order.number} 为 {order.state}: 先批准命令",
                )
            )
        if not customers or not channel:
            raise UsageError(tr("nobody to notify, or no channel named", "没有通知对象或未写渠道"))
        entries, stamp = [], from_us(now_us)
        for customer, contact in customers:
            row = {
                "order_id": order_id,
                "customer": customer,
                "channel": channel,
                "contact": contact,
                "note": note,
                "given": given,
                "by_": actor.name,
                "at": stamp,
            }
            entries.append(Entry(actor=actor, action="order.notice", object=f"order:{order.number}", after=row))
            insert(conn, "notice", row)
        append(conn, now_us, entries)
        return len(customers)


def counts_as_told(tries: Iterable[tuple[bool, str]]) -> bool:
    """Given = reached once, or two channels tried with a call among them (8.9). tries: (reached, channel)."""
    found = list(tries)
    channels = {channel for _, channel in found}
    return any(given for given, _ in found) or (len(channels) >= 2 and "phone" in channels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Whether a customer of an order counts as told, and what was tried: one text a try, oldest first."""

    customer: str
    told: bool
    tries: tuple[str, ...]


def told(conn: Conn, order_id: int) -> list[Told]:
    """Every customer of the order's commands, those who were not told first (18-5)."""
    rows = conn.execute(
        "SELECT c.customer, n.given, n.channel, n.note FROM (SELECT DISTINCT customer FROM command WHERE order_id = "
        "%(order)s) c LEFT JOIN notice n ON n.order_id = %(order)s AND n.customer = c.customer "
        "ORDER BY c.customer, n.id",
        {"order": order_id},
    ).fetchall()
    by_customer: dict[str, list[tuple[bool, str, str]]] = {}
    for customer, given, channel, note in rows:
        tries = by_customer.setdefault(str(customer), [])
        if channel is not None:
            tries.append((bool(given), str(channel), str(note)))
    found = [
        Told(
            customer=customer,
            told=counts_as_told((given, channel) for given, channel, _ in tries),
            tries=tuple(
                f"{channel}: {tr('reached', '已达') if given else tr('not reached', '未达')}"
                + (f" ({note})" if note else "")
                for given, channel, note in tries
            ),
        )
        for customer, tries in by_customer.items()
    ]
    return sorted(found, key=lambda t: (t.told, t.customer))


def remind_of_end(conn: Conn, now_us: int, order_id: int, text: str) -> None:
    """Put a text on the order for the dispatcher, in the caller's transaction; no state changes."""
    order = lock(conn, order_id)
    before, after = {"attention": order.attention}, {"attention": text}
    entry = Entry(actor=DAEMON, action="order.attention", object=f"order:{order.number}", before=before, after=after)
    append(conn, now_us, [entry])
    update(conn, "order_", order.id, after)
