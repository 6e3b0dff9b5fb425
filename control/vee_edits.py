"""Edits of validated values (domain 6 and 9.2): proposed with a reason and its effect, approved by another.

Where billing is touched (load, energy, demand, registers) two people decide; voltages, currents and power factors may
be edited by one. Registers and demands are read, never written: they may be rejected or accepted, and a correction of a
bill is the billing department's adjustment. Only the load is ever estimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from ..model.lang import tr
from ..model.quality import Quality
from ..model.quantities import Quantity, by_id, quantity
from ..model.times import from_us
from ..protocols.common.errors import UsageError
from ..storage.dirty import Why, mark
from .audit import Actor, Entry, append, recorded
from .permissions import require, require_other_person
from .records import Conn, fetch_all, fetch_one, insert, update

LOAD: Final = "load_power"
METHODS: Final[Mapping[str, Quality]] = {"check": Quality.E1, "like": Quality.E3}
SLOTS: Final = 96
_ONE_PERSON: Final = ("V", "A", "", "Hz", "deg", "%")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One edit as stored. Slots [first, last) of 15 minutes; value: primary kW for the load, else secondary."""

    id: int
    point: int
    day: date
    quantity: int
    first: int
    last: int
    action: str
    value: float | None
    method: int | None
    reason: str
    signatures: int
    state: str
    before_: dict[str, Any]
    after_: dict[str, Any]
    drafted_by: str
    draft_account: int
    draft_session: int
    drafted_at: datetime
    decided_by: str | None
    decided_account: int | None
    decided_session: int | None
    decided_at: datetime | None
    decision: str


def signatures(what: Quantity) -> int:
    """How many people an edit of this quantity needs: two where a bill may rest on it."""
    return 1 if what.kind == "instant" and what.unit in _ONE_PERSON else 2


def check(what: Quantity, first: int, last: int, action: str) -> None:
    """UsageError unless such an edit makes sense at all."""
    if not 0 <= first < last <= SLOTS:
        raise UsageError(
            tr("--from must lie before --to, both in the day, in quarters of an hour", "--from 须早于 --to, 且为整刻钟")
        )
    if action == "estimate" and what.name != LOAD:
        raise UsageError(
            tr(f"{what.name} is never estimated: reject it or leave it open", f"{what.zh} 从不估算: 可拒绝或留空")
        )
    if action == "value" and what.kind in ("register", "demand"):
        raise UsageError(
            tr(
                f"{what.name} is a reading and cannot be written: --reject it; a bill is corrected by an adjustment",
                f"{what.zh} 为示数, 不可写入: 请用 --reject; 电费以退补方式更正",
            )
        )


def propose(
    conn: Conn, now_us: int, actor: Actor, edit: Mapping[str, Any], *, before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Edit:  # fmt: skip
    """A new edit (columns of the table up to `reason`); what one person may do is in force."""
    with recorded(conn, now_us, actor, "vee.edit", f"point:{edit['point']}:{edit['day']}"):
        require(actor, "vee.edit")
        what = by_id()[int(edit["quantity"])]
        check(what, int(edit["first"]), int(edit["last"]), str(edit["action"]))
        if not str(edit["reason"]).strip():
            raise UsageError(tr("an edit needs its reason: --reason TEXT", "编辑须写原因: --reason 文本"))
        needed = signatures(what)
        row: dict[str, object] = {
            **edit, "signatures": needed, "state": "proposed", "before_": dict(before), "after_": dict(after),
            "drafted_by": actor.name, "draft_account": actor.account_id, "draft_session": actor.session_id,
            "drafted_at": from_us(now_us),
        }  # fmt: skip
        number = int(insert(conn, "vee_edit", row, "id"))
        shown = {**_plain(edit), "values": dict(after), "signatures": needed}
        entry = Entry(
            actor=actor, action="vee.edit", object=f"vee_edit:{number}", before={"values": dict(before)}, after=shown,
            reason=str(edit["reason"]),
        )  # fmt: skip
        append(conn, now_us, [entry])
        if needed == 1:
            _decide(conn, now_us, actor, number, "approved", "")
        return edit_of(conn, number)


def approve(conn: Conn, now_us: int, actor: Actor, number: int, reason: str = "") -> Edit:
    """The second person's word: from now on it is in force, and its day is marked in the same transaction."""
    with recorded(conn, now_us, actor, "vee.approve", f"vee_edit:{number}"):
        require(actor, "vee.approve")
        found = edit_of(conn, number, lock=True)
        if found.state != "proposed":
            raise UsageError(tr(f"edit {number} is {found.state}", f"编辑 {number} 状态为 {found.state}"))
        require_other_person(actor, found.draft_account, found.draft_session)
        _decide(conn, now_us, actor, number, "approved", reason)
        return edit_of(conn, number)


def refuse(conn: Conn, now_us: int, actor: Actor, number: int, reason: str) -> Edit:
    """It shall not be; the drafter may take back their own."""
    with recorded(conn, now_us, actor, "vee.refuse", f"vee_edit:{number}"):
        require(actor, "vee.approve")
        found = edit_of(conn, number, lock=True)
        if found.state != "proposed":
            raise UsageError(tr(f"edit {number} is {found.state}", f"编辑 {number} 状态为 {found.state}"))
        if not reason.strip():
            raise UsageError(tr("say why: --reason TEXT", "请写原因: --reason 文本"))
        _decide(conn, now_us, actor, number, "refused", reason)
        return edit_of(conn, number)


def _decide(conn: Conn, now_us: int, actor: Actor, number: int, state: str, reason: str) -> None:
    before = edit_of(conn, number)
    values = {
        "state": state, "decided_by": actor.name, "decided_account": actor.account_id,
        "decided_session": actor.session_id, "decided_at": from_us(now_us), "decision": reason,
    }  # fmt: skip
    update(conn, "vee_edit", number, values)
    entry = Entry(
        actor=actor, action="vee.approve" if state == "approved" else "vee.refuse", object=f"vee_edit:{number}",
        before={"state": before.state, "values": before.before_}, after={"state": state, "values": before.after_},
        reason=reason or before.reason,
    )  # fmt: skip
    append(conn, now_us, [entry])
    if state == "approved":
        mark(conn, [(before.point, before.day)], Why.EDIT)


def edit_of(conn: Conn, number: int, *, lock: bool = False) -> Edit:
    """The edit with this number; UsageError if there is none."""
    found = fetch_one(conn, Edit, "SELECT * FROM vee_edit WHERE id = %s" + (" FOR UPDATE" if lock else ""), (number,))
    if found is None:
        raise UsageError(tr(f"no edit {number}", f"没有编辑 {number}"))
    return found


def edits(conn: Conn, *, everything: bool = False) -> list[Edit]:
    """Those that wait for a decision, or all."""
    where = "" if everything else "WHERE state = 'proposed' "
    return fetch_all(conn, Edit, f"SELECT * FROM vee_edit {where}ORDER BY id")


def named(name: str) -> Quantity:
    """The quantity an edit means: the power of a point is its load."""
    try:
        return quantity(LOAD if name in ("active_power_total", "active_demand") else name)
    except KeyError:
        raise UsageError(tr(f"no quantity is called {name!r}", f"没有名为 {name!r} 的数据项")) from None


def _plain(edit: Mapping[str, Any]) -> dict[str, object]:
    return {k: v.isoformat() if isinstance(v, date) else v for k, v in edit.items()}
