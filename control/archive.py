"""Changing the archive (domain 2, 9.2): previewed, drafted, signed by a second person where it matters.

A file is taken over whole or not at all. Where one of its rows touches protected status, a security load, a conflict
set, an interlock or the multiplier of a billing point, all of it waits in `archive_change` until another person, of a
role that may, has typed the code of the first such object within the time of `control.approval_within_s`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from ..model.archive import Generator, MeteringPoint, Supply, Version, make_record, record_values
from ..model.archive_cells import write_instant
from ..model.archive_plan import FOREVER, ArchiveRow, Change, Known, Plan, changed_fields, plan_changes
from ..model.lang import tr
from ..model.times import US, from_us, to_us
from ..protocols.common.errors import UsageError
from ..storage import archive_versions
from .audit import Actor, Entry, append, canonical, recorded
from .commands import needed
from .config import ControlConfig
from .permissions import MAY, require, require_other_person
from .records import Conn, fetch_all, fetch_one, insert

LOCK: Final = 0x66756865_0004
CODE_DIGITS: Final = 4
# what is touched -> (verb of the second signature, English, Chinese)
KINDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "protected": ("archive.approve_protected", "protected status", "保电状态"),
    "floor": ("archive.approve_safety", "security load", "保安负荷"),
    "conflict": ("archive.approve_safety", "conflict set of dual supplies", "双电源冲突组"),
    "interlock": ("archive.approve_safety", "interlock of supplies", "电源联锁"),
    "ratio": ("archive.approve_ratio", "multiplier of a billing point", "计费点倍率"),
}
_WHOLE: Final = {"protections": "protected", "security_loads": "floor", "conflict_sets": "conflict"}
_INTERLOCK: Final = {
    Supply: ("may_parallel", "switchover", "role"),
    Generator: ("interlock", "grid_parallel"),
}
# entity -> verb of whoever may draft a change of it; all others: archive.edit
_DRAFT: Final = {
    "protections": "archive.safety", "security_loads": "archive.safety", "conflict_sets": "archive.safety",
    "contacts": "archive.note", "service_records": "archive.note", "subscriptions": "archive.note",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Why a change needs a second person."""

    kind: str
    entity: str
    key: str
    text: str

    @property
    def roles(self) -> frozenset[str]:
        """Roles whose signature counts."""
        return frozenset(str(r) for r in MAY[KINDS[self.kind][0]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a file would do and who must sign it."""

    plan: Plan
    needs: tuple[Need, ...]

    @property
    def roles(self) -> frozenset[str]:
        """Roles that may give the second signature under all of it."""
        found = [n.roles for n in self.needs]
        return frozenset.intersection(*found) if found else frozenset()

    @property
    def code(self) -> str:
        """What the second person types: the last four letters or digits of the first object that needs them."""
        return code_of(self.needs[0].key) if self.needs else ""

    @property
    def digest(self) -> str:
        """SHA-256 over every version that is added or ended: what was signed is what is done."""
        content = [
            [c.entity, c.key, [_plain(v) for v in c.before], [_plain(v) for v in c.after]] for c in self.plan.changes
        ]
        return hashlib.sha256(canonical(content).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A change in `archive_change`."""

    id: int
    drafter: int
    drafter_name: str
    drafter_session: int
    drafted_at: datetime
    reason: str
    rows_: list[dict[str, Any]]
    digest: str
    why: list[str]
    roles: list[str]
    code: str
    state: str


def _plain(v: Version) -> list[object]:
    return [v.valid_from_us, v.valid_to_us, record_values(v.record)]


def code_of(key: str) -> str:
    """The last four letters or digits of the first part of a key (customer or point), zeros in front."""
    return "".join(c for c in key.split("/")[0] if c.isalnum())[-CODE_DIGITS:].rjust(CODE_DIGITS, "0")


def known(conn: Conn) -> tuple[Known, dict[str, Decimal]]:
    """Names of the device list, and the multiplier that it gives each point now."""
    ratios = {
        str(n): k for n, k in conn.execute("SELECT name, ct_ratio * pt_ratio FROM point WHERE enabled").fetchall()
    }
    devices = {str(n) for (n,) in conn.execute("SELECT name FROM device").fetchall()}
    return Known(points=ratios, devices=devices), ratios


def preview(conn: Conn, rows: Sequence[ArchiveRow], from_us_: int) -> Preview:
    """What rows would do now; faults included, nothing written. from_us_: from when rows without a date are meant."""
    stored = archive_versions.versions(conn)
    names, ratios = known(conn)
    plan = plan_changes(stored, rows, from_us_, names)
    return Preview(plan=plan, needs=tuple(_needs(plan.changes, stored, ratios)))


def _needs(changes: Sequence[Change], stored: Sequence[Version], ratios: Mapping[str, Decimal]) -> list[Need]:
    found = []
    for c in changes:
        kind = _WHOLE.get(c.entity)
        if kind is not None:
            found.append(_need(kind, c))
            continue
        fields = _INTERLOCK.get(type(c.after[0].record))
        if fields and c.before and any(set(changed_fields(a, b)) & set(fields) for a, b in _neighbours(c)):
            found.append(_need("interlock", c))
    return found + [_need("ratio", c) for c in _changed_factors(changes, stored, ratios)]


def _need(kind: str, c: Change) -> Need:
    _, en, zh = KINDS[kind]
    when = write_instant(c.from_us)
    text = tr(f"{en}: {c.entity} {c.key} {c.kind} from {when}", f"{zh}: {c.entity} {c.key} 自 {when} 变更")
    return Need(kind=kind, entity=c.entity, key=c.key, text=text)


def _neighbours(c: Change) -> list[tuple[Any, Any]]:
    """Records that follow each other where one of them is new."""
    starts = {v.valid_from_us for v in c.added}
    return [
        (a.record, b.record)
        for a, b in zip(c.after, c.after[1:], strict=False)
        if {a.valid_from_us, b.valid_from_us} & starts
    ]


def _timeline(rows: Iterable[Version], listed: Decimal | None) -> list[tuple[int, Decimal | None]]:
    """(from when, factor) over all time of one device point; outside its versions what the device list says."""
    found: list[tuple[int, Decimal | None]] = []
    at = -FOREVER
    for v in sorted(rows, key=lambda v: v.valid_from_us):
        assert isinstance(v.record, MeteringPoint)
        if v.valid_from_us > at:
            found.append((at, listed))
        found.append((v.valid_from_us, v.record.factor))
        at = FOREVER if v.valid_to_us is None else v.valid_to_us
    if at < FOREVER:
        found.append((at, listed))
    return found


def _differs_from(before: list[tuple[int, Decimal | None]], after: list[tuple[int, Decimal | None]]) -> int | None:
    """The first instant at which a known factor becomes another one; None if it never does."""
    for at in sorted({t for t, _ in before} | {t for t, _ in after}):
        old = next(k for t, k in reversed(before) if t <= at)
        new = next(k for t, k in reversed(after) if t <= at)
        if old is not None and new != old:
            return at
    return None


def _point_sides(
    changes: Sequence[Change], stored: Sequence[Version]
) -> dict[str, tuple[list[Version], list[Version], Change]]:
    """Device point -> its versions before and after, and the change that touched it, for every point touched."""
    touched = [c for c in changes if c.entity == "points"]
    names: dict[str, Change] = {}
    for c in touched:
        for v in (*c.before, *c.after):
            assert isinstance(v.record, MeteringPoint)
            names[v.record.device_point_name] = c
    before: dict[str, list[Version]] = defaultdict(list)
    after: dict[str, list[Version]] = defaultdict(list)
    changed = {c.key for c in touched}
    for v in stored:
        if isinstance(v.record, MeteringPoint) and v.record.device_point_name in names:
            before[v.record.device_point_name].append(v)
            if v.key not in changed:
                after[v.record.device_point_name].append(v)
    for c in touched:
        for v in c.after:
            assert isinstance(v.record, MeteringPoint)
            after[v.record.device_point_name].append(v)
    return {name: (before[name], after[name], c) for name, c in names.items()}


def _changed_factors(
    changes: Sequence[Change], stored: Sequence[Version], ratios: Mapping[str, Decimal]
) -> list[Change]:
    """Changes under which a billing point counts with another multiplier than before, or stops being one."""
    found: dict[str, Change] = {}
    for name, (before, after, c) in _point_sides(changes, stored).items():
        roles_before = {v.record.role for v in before if isinstance(v.record, MeteringPoint)}
        roles_after = {v.record.role for v in after if isinstance(v.record, MeteringPoint)}
        if "billing" not in roles_before | roles_after:
            continue
        factor = _differs_from(_timeline(before, ratios.get(name)), _timeline(after, ratios.get(name)))
        role = any("role" in changed_fields(a, b) for a, b in _neighbours(c)) and "billing" in roles_before
        if factor is not None or role:
            found[c.key] = c
    return list(found.values())


# -- acts of people ---------------------------------------------------------------------------------------------------


def commit(
    conn: Conn, now_us: int, actor: Actor, rows: Sequence[ArchiveRow], from_us_: int, reason: str
) -> tuple[Preview, int | None]:
    """Take rows over, or (second value: the number of the waiting change) draft them for a second person.

    UsageError names every fault and everything that the actor's role may not change; then nothing is done.
    """
    with recorded(conn, now_us, actor, "archive.import", "archive"):
        require(actor, "archive.note")
        text = needed(reason)
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        made = preview(conn, rows, from_us_)
        _fit(made)
        for verb in sorted({_DRAFT.get(c.entity, "archive.edit") for c in made.plan.changes}):
            require(actor, verb)
        if any(n.kind == "ratio" for n in made.needs):
            require(actor, "archive.ratio")
        if not made.needs:
            _apply(conn, now_us, actor, made, text, by=actor.name)
            return made, None
        number = int(insert(conn, "archive_change", {
            "drafter": actor.account_id, "drafter_session": actor.session_id, "drafted_at": from_us(now_us),
            "reason": text, "rows_": [_row_values(r, from_us_) for r in rows], "digest": made.digest,
        } | {"why": [n.text for n in made.needs], "roles": sorted(made.roles), "code": made.code}, "id"))  # fmt: skip
        after = {"digest": made.digest, "why": [n.text for n in made.needs], "objects": len(made.plan.changes)}
        append(conn, now_us, [
            Entry(actor=actor, action="archive.draft", object=f"archive-change:{number}", after=after, reason=text)
        ])  # fmt: skip
        return made, number


def _fit(made: Preview) -> None:
    if made.plan.faults:
        lines = [str(f) for f in made.plan.faults]
        head = tr(f"{len(lines)} faults, nothing was changed", f"{len(lines)} 处错误, 未作任何修改")
        raise UsageError("\n  ".join([head, *lines]))


def approve(conn: Conn, now_us: int, actor: Actor, number: int, code: str, config: ControlConfig) -> Preview:
    """The second person's signature under a waiting change; it is carried out exactly as it was drafted, or not."""
    with recorded(conn, now_us, actor, "archive.approve", f"archive-change:{number}"):
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        found = waiting(conn, number)
        made = waiting_preview(conn, found)
        for verb in sorted({KINDS[n.kind][0] for n in made.needs}):
            require(actor, verb)
        if actor.role not in found.roles:
            raise UsageError(tr(f"this change is signed by: {', '.join(found.roles)}", f"须由 {found.roles} 签"))
        require_other_person(actor, found.drafter, found.drafter_session)
        if now_us - to_us(found.drafted_at) > config.approval_within_s * US:
            raise UsageError(
                tr(
                    f"drafted more than {config.approval_within_s} s ago: import it again",
                    f"起草已超过 {config.approval_within_s} s: 请重新导入",
                )
            )
        if code.strip() != found.code:
            raise UsageError(
                tr("these are not the last four characters of the first object", "与首个对象编号后四位不符")
            )
        if made.plan.faults or made.digest != found.digest:
            raise UsageError(
                tr("the archive has changed since the draft: import it again", "起草后档案已变: 请重新导入")
            )
        _apply(conn, now_us, actor, made, found.reason, by=f"{found.drafter_name} + {actor.name}")
        _decide(conn, now_us, actor, number, "approved", "")
        return made


def reject(conn: Conn, now_us: int, actor: Actor, number: int, reason: str) -> None:
    """The second person (or the drafter) says no, with a reason."""
    with recorded(conn, now_us, actor, "archive.reject", f"archive-change:{number}"):
        require(actor, "archive.reject")
        waiting(conn, number)
        text = needed(reason)
        append(conn, now_us, [
            Entry(actor=actor, action="archive.reject", object=f"archive-change:{number}", reason=text)
        ])  # fmt: skip
        _decide(conn, now_us, actor, number, "rejected", text)


def _decide(conn: Conn, now_us: int, actor: Actor, number: int, state: str, reason: str) -> None:
    conn.execute(
        "UPDATE archive_change SET state = %s, decider = %s, decider_session = %s, decided_at = %s, "
        "decide_reason = %s WHERE id = %s",
        (state, actor.account_id, actor.session_id, from_us(now_us), reason, number),
    )


_WAITING: Final = (
    "SELECT c.id, c.drafter, a.name AS drafter_name, c.drafter_session, c.drafted_at, c.reason, c.rows_, c.digest, "
    "c.why, c.roles, c.code, c.state FROM archive_change c JOIN account a ON a.id = c.drafter "
    "WHERE c.state = 'submitted'"
)


def waiting(conn: Conn, number: int) -> Waiting:
    """A change that waits; UsageError if there is none with this number."""
    found = fetch_one(conn, Waiting, _WAITING + " AND c.id = %s", (number,))
    if found is None:
        raise UsageError(tr(f"no change {number} waits", f"没有待批准的变更 {number}"))
    return found


def all_waiting(conn: Conn) -> list[Waiting]:
    """All that wait, oldest first."""
    return fetch_all(conn, Waiting, _WAITING + " ORDER BY c.id")


def waiting_preview(conn: Conn, found: Waiting) -> Preview:
    """What a waiting change would do now."""
    return preview(conn, [_row(v) for v in found.rows_], int(found.rows_[0]["from_us"]))


def _row_values(row: ArchiveRow, from_us_: int) -> dict[str, Any]:
    """A row for `archive_change`; one without a date keeps the date that the draft gave it."""
    values = {n: getattr(row, n) for n in ("sheet", "line", "entity", "valid_from_us", "valid_to_us", "reason")}
    return values | {"from_us": from_us_, "record": record_values(row.record)}


def _row(values: Mapping[str, Any]) -> ArchiveRow:
    content = {n: v for n, v in values.items() if n != "from_us"}
    return ArchiveRow(**content | {"record": make_record(values["entity"], values["record"])})


def _apply(conn: Conn, now_us: int, actor: Actor, made: Preview, reason: str, *, by: str) -> None:
    """Write the versions behind their audit records, in the open transaction; triggers mark the days to judge anew."""
    changes = made.plan.changes
    append(conn, now_us, [_entry(actor, c, reason) for c in changes])
    archive_versions.store(
        conn,
        now_us,
        by,
        reason,
        ended=[v for c in changes for v in c.ended],
        added=[v for c in changes for v in c.added],
    )


def _entry(actor: Actor, c: Change, reason: str) -> Entry:
    """One audit record an object: what was last said of it, and every version that is new or ends."""
    before = {} if not c.before else _said(c.before[-1])
    after = {"versions": [_said(v) for v in (*c.ended, *c.added)]}
    return Entry(
        actor=actor, action=f"archive.{c.kind}", object=f"archive:{c.entity}/{c.key}", before=before, after=after,
        reason=reason,
    )  # fmt: skip


def _said(v: Version) -> dict[str, object]:
    return {
        "valid_from": write_instant(v.valid_from_us), "valid_to": write_instant(v.valid_to_us),
        **record_values(v.record),
    }  # fmt: skip
