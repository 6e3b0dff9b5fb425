"""Orderly-power-use plans (有序用电方案, domain 8.4): CSV import, checks, draft -> reviewed -> approved -> active.

CSV columns: seq, measure (shift|avoid|limit|trip), level (I..IV: the mildest level at which the row is used), group,
customer, device, round, reducible_kw, limit_kw, security_kw, class (P|S|N|F), contact, notice, last_test, importance,
supply (single|dual) and optionally voluntary, ufls (on an under-frequency feeder), alarm_min, max_hours_day, kind
(trip, period, rest, suspension, float, month, purchase) and params (control/rules/kinds.py). `round` counts relays for
a trip and total-sum groups for the other kinds, whose relays are named in params.
A plan is never changed: a new file is a new version. Three people bring it to `approved`, and whoever activates it is
not the one who approved it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final

from psycopg.types.json import Jsonb

from ..model.lang import tr
from ..model.times import business_day, from_us, to_us
from ..protocols.common.errors import UsageError
from .archive_safety import NOTHING, Safety, safety
from .audit import Actor, Entry, append, canonical, recorded
from .permissions import require, require_other_person
from .records import Conn, fetch_all, fetch_one, insert, scalar, update
from .rounds import device_ids, rounds
from .rules.choose import Measure
from .rules.kinds import (
    KINDS,
    PLAN_KINDS,
    Effect,
    Kind,
    Scope,
    limit_kw,
    parse_parameters,
    rounds_of,
    windows,
)
from .sheet import Faults, Row, read_sheet

REQUIRED: Final = (
    "seq", "measure", "level", "group", "customer", "device", "round", "reducible_kw", "limit_kw", "security_kw",
    "class", "contact", "notice", "last_test", "importance", "supply",
)  # fmt: skip
OPTIONAL: Final = ("voluntary", "ufls", "alarm_min", "max_hours_day", "kind", "params")
MEASURES: Final = {m.name.lower(): m for m in Measure} | {
    "错峰": Measure.SHIFT, "避峰": Measure.AVOID, "限电": Measure.LIMIT, "拉闸": Measure.TRIP,
}  # fmt: skip
LEVELS: Final = ("I", "II", "III", "IV")
GROUPS: Final = 8
CLASSES: Final = ("P", "S", "N", "F")
TARGET_SHARE: Final = 1.1
MAX_ALARM_MIN: Final = 15
LIMIT_ALARM_MIN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One row of a plan: one control of one round or group of one device. Powers in primary kW."""

    plan_id: int
    row: int
    seq: int
    measure: str
    level: str
    group_: str
    customer: str
    device_id: int
    round: int
    reducible_kw: float
    limit_kw: float
    security_kw: float
    class_: str
    contact: str
    notice: str
    last_test: date
    importance: int
    supply: str
    voluntary: bool
    ufls: str
    alarm_min: int
    max_hours_day: float | None
    kind: str = "trip"
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def rule(self) -> Kind:
        """What its kind means."""
        return KINDS[self.kind]

    @property
    def rounds(self) -> tuple[int, ...]:
        """The relays that it may open."""
        return rounds_of(self.rule, self.round, self.params)


ROW_SQL: Final = (
    "SELECT plan_id, row, seq, measure, level, group_, customer, device_id, round, reducible_kw, limit_kw, "
    "security_kw, class AS class_, contact, notice, last_test, importance, supply, voluntary, ufls, alarm_min, "
    "max_hours_day, kind, params FROM plan_row"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Header of one version."""

    id: int
    name: str
    version: int
    area: str
    body: str
    document: str
    valid_from: datetime
    valid_to: datetime
    target_kw: float
    file_hash: str
    rows_hash: str
    status: str
    drafter: int
    drafter_session: int
    reviewer: int | None
    reviewer_session: int | None
    approver: int | None
    approver_session: int | None
    activator: int | None
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the file does not say: name, area, who approves under which document, validity, target of level I in kW."""

    name: str
    area: str
    body: str
    document: str
    valid_from: datetime
    valid_to: datetime
    target_kw: float


def rows_hash(rows: Sequence[PlanRow]) -> str:
    """SHA-256 over the canonical rows: what was approved must be what is executed.

    A plain trip is written as it was before there were other kinds, so that a plan approved then stays approved.
    """
    found = []
    for row in rows:
        values = asdict(row) | {"plan_id": 0, "last_test": row.last_test.isoformat()}
        if row.kind == "trip" and not any(row.params.values()):
            del values["kind"], values["params"]
        found.append(values)
    return hashlib.sha256(canonical(found).encode()).hexdigest()


def _parse(row: Row, number: int, devices: dict[str, int]) -> PlanRow | None:
    seq = row.integer("seq", 1, 100_000)
    measure = row.choice("measure", MEASURES)
    level = row.choice("level", {n: n for n in LEVELS})
    class_ = row.choice("class", {n: n for n in CLASSES})
    supply = row.choice("supply", {"single": "single", "dual": "dual", "单": "single", "双": "dual"})
    customer, device = row.needed("customer"), row.known("device", devices)
    relay = row.integer("round", 1, 16)
    reducible, limit, security = (
        row.number("reducible_kw", 0.0),
        row.number("limit_kw", 0.0),
        row.number("security_kw", 0.0),
    )
    tested, importance = row.day("last_test"), row.integer("importance", 1, 99)
    alarm = row.optional_integer("alarm_min", 0, MAX_ALARM_MIN)
    hours = row.optional_number("max_hours_day", 0.0, 24.0)
    voluntary = row.flag("voluntary", False)
    group, ufls = row.needed("group"), row.text("ufls").lower()
    kind = row.choice("kind", PLAN_KINDS) if row.text("kind") else KINDS["trip"]
    params = _parameters(row, kind, limit) if kind is not None else {}
    if kind is not None and kind.scope is Scope.GROUP and relay is not None and relay > GROUPS:
        row.fault("round", tr(f"is the total-sum group here, 1 to {GROUPS}", f"此处为总加组号, 1 至 {GROUPS}"))
    if row.bad:
        return None
    assert seq and measure and level and class_ and supply and device is not None and relay and importance and tested
    assert reducible is not None and limit is not None and security is not None  # a None would have been a fault
    assert kind is not None
    usual = LIMIT_ALARM_MIN if kind.effect is Effect.LIMIT else 0
    return PlanRow(
        plan_id=0, row=number, seq=seq, measure=measure.name.lower(), level=level, group_=group, customer=customer,
        device_id=device, round=relay, reducible_kw=reducible, limit_kw=limit, security_kw=security, class_=class_,
        contact=row.text("contact"), notice=row.text("notice"), last_test=tested, importance=importance, supply=supply,
        voluntary=voluntary, ufls=ufls, alarm_min=usual if alarm is None else alarm, max_hours_day=hours,
        kind=kind.name, params=params,
    )  # fmt: skip


def _parameters(row: Row, kind: Kind, limit: float | None) -> dict[str, object]:
    """The parameters of a row's kind, or a fault for each that is wrong."""
    params, faults = parse_parameters(kind, row.text("params"))
    for text in faults:
        row.fault("params", text)
    own = kind.name == "period" and not faults and all(w.kw for w in windows(str(params["windows"])))
    if kind.needs_limit and limit == 0 and not own:
        row.fault("limit_kw", tr(f"{kind.name} needs a limit above 0", f"{kind.zh}须有大于 0 的定值"))
    return params


def import_plan(conn: Conn, now_us: int, actor: Actor, data: bytes, header: Header) -> Plan:
    """A plan file as a new version in status draft; every fault of the file is named and then nothing is stored."""
    with recorded(conn, now_us, actor, "plan.import", f"plan:{header.name}"):
        require(actor, "plan.import")
        if header.valid_to <= header.valid_from or header.target_kw <= 0:
            raise UsageError(
                tr(
                    "a plan needs a valid range that ends after it begins and a positive target",
                    "方案须有正确有效期和正目标值",
                )
            )
        devices = device_ids(conn)
        known = {(r.device_id, r.round) for r in rounds(conn)}
        faults, found = Faults(), list[PlanRow]()
        seen: dict[tuple[int, str, int], int] = {}
        for number, row in enumerate(read_sheet(data, REQUIRED, OPTIONAL, faults), 1):
            parsed = _parse(row, number, devices)
            if parsed is None:
                continue
            key = (parsed.device_id, parsed.kind, parsed.round)
            for relay in parsed.rounds:
                if (parsed.device_id, relay) not in known:
                    text = tr(f"round {relay} is not in the list of rounds: import it first",
                              f"轮次清单中没有第 {relay} 轮: 先导入")  # fmt: skip
                    row.fault("round", text)
            if seen.setdefault(key, row.line) != row.line:
                row.fault("round", tr(f"stands in row {seen[key]} already", f"已在第 {seen[key]} 行"))
            found.append(parsed)
        faults.raise_if_any(tr("plan file", "方案文件"))
        conn.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"plan:{header.name}",))
        version = int(scalar(conn, "SELECT coalesce(max(version), 0) + 1 FROM plan WHERE name = %s", (header.name,)))
        stamp = from_us(now_us)
        values = asdict(header) | {
            "version": version, "file_hash": hashlib.sha256(data).hexdigest(), "rows_hash": rows_hash(found),
            "drafter": actor.account_id, "drafter_session": actor.session_id, "created_at": stamp, "changed_at": stamp,
        }  # fmt: skip
        append(
            conn,
            now_us,
            [Entry(actor=actor, action="plan.import", object=f"plan:{header.name}/{version}", after=values)],
        )
        plan_id = int(insert(conn, "plan", values, "id"))
        _insert_rows(conn, plan_id, found)
        return plan(conn, plan_id)


def _insert_rows(conn: Conn, plan_id: int, found: Sequence[PlanRow]) -> None:
    rows = [asdict(r) | {"plan_id": plan_id, "params": Jsonb(r.params)} for r in found]
    names = list(rows[0])
    columns = ", ".join("class" if n == "class_" else n for n in names)
    query = f"INSERT INTO plan_row ({columns}) VALUES ({', '.join(['%s'] * len(names))})"
    with conn.cursor() as cursor:
        cursor.executemany(query.encode(), [[row[n] for n in names] for row in rows])


def plan(conn: Conn, plan_id: int) -> Plan:
    """One version; UsageError if there is none."""
    found = fetch_one(conn, Plan, "SELECT * FROM plan WHERE id = %s", (plan_id,))
    if found is None:
        raise UsageError(tr(f"no plan {plan_id}", f"没有方案 {plan_id}"))
    return found


def plans(conn: Conn) -> list[Plan]:
    """All versions, newest first."""
    return fetch_all(conn, Plan, "SELECT * FROM plan ORDER BY id DESC")


def plan_rows(conn: Conn, plan_id: int) -> list[PlanRow]:
    """Rows of one version in file order."""
    return fetch_all(conn, PlanRow, ROW_SQL + " WHERE plan_id = %s ORDER BY row", (plan_id,))


def active_plan(conn: Conn, area: str) -> Plan:
    """The active plan of an area; UsageError if there is none."""
    found = fetch_one(conn, Plan, "SELECT * FROM plan WHERE status = 'active' AND area = %s", (area,))
    if found is None:
        raise UsageError(
            tr(
                f"no active plan for area {area!r}: control plan activate",
                f"区域 {area!r} 没有生效方案: control plan activate",
            )
        )
    return found


def level_reaches(row_level: str, order_level: str) -> bool:
    """True if a row of `row_level` (the mildest level that uses it) is used at `order_level`."""
    return LEVELS.index(order_level) <= LEVELS.index(row_level)


def plan_safety(conn: Conn, now_us: int, rows: Sequence[PlanRow]) -> Mapping[int, Safety]:
    """What the archive says now about the customers of a plan's rows."""
    return safety(conn, now_us, {r.device_id for r in rows}, sorted({(r.device_id, r.customer) for r in rows}))


def check_plan(
    header: Plan,
    rows: Sequence[PlanRow],
    *,
    now_us: int,
    max_test_days: int,
    archived: Mapping[int, Safety] = MappingProxyType({}),
) -> list[str]:
    """Every reason against approving (8.4); empty = fit. Pure. archived: of devices' customers."""
    today = business_day(now_us)
    found: list[str] = []

    def fault(row: PlanRow | None, en: str, zh: str) -> None:
        where = "" if row is None else tr(f"row {row.row} ({row.customer}): ", f"第 {row.row} 行 ({row.customer}): ")
        found.append(where + tr(en, zh))

    if rows_hash(rows) != header.rows_hash:
        fault(None, "the rows do not match the hash of the import", "行与导入散列不符")
    if to_us(header.valid_to) <= now_us:
        fault(None, "the validity has ended", "有效期已过")
    total = _reducible(rows)
    if total < header.target_kw * TARGET_SHARE:
        fault(
            None,
            f"reducible {total:.1f} kW is less than 110 % of the target {header.target_kw:.1f} kW",
            f"可压降 {total:.1f} kW 不足目标 {header.target_kw:.1f} kW 的 110%",
        )
    for row in rows:
        if row.class_ == "P":
            fault(row, "protected customer in a cutting plan", "方案含受保护用户")
        if not row.contact:
            fault(row, "no contact", "无联系人")
        if not 0 <= (today - row.last_test).days <= max_test_days:
            fault(
                row,
                f"last live test {row.last_test} is not within {max_test_days} days",
                f"实传试验 {row.last_test} 超过 {max_test_days} 天",
            )
        if row.class_ == "S" and row.security_kw <= 0:
            fault(row, "class S without a security load", "S 类无保安负荷")
        if row.supply == "dual":
            fault(
                row,
                "dual supply: conflict sets cannot be recorded yet, take the row out",
                "双电源: 尚不能登记冲突组, 请移出",
            )
        known = archived.get(row.device_id, NOTHING)
        if known.protected:
            fault(row, "the archive protects this customer", "档案中为保电用户")
        if row.security_kw < known.security_kw:
            fault(
                row,
                f"security load {row.security_kw:.1f} kW is below the archive's {known.security_kw:.1f} kW",
                f"保安负荷 {row.security_kw:.1f} kW 低于档案的 {known.security_kw:.1f} kW",
            )
        if known.dual and row.supply != "dual":
            fault(row, "the archive knows a dual supply", "档案中为双电源")
        if known.ufls or row.ufls in ("1", "yes", "true", "是"):
            fault(row, "on an under-frequency shedding feeder", "在低频减载线路上")
        if row.reducible_kw <= 0 and row.rule.effect is not Effect.ENERGY:
            fault(row, "nothing to reduce", "无可压降负荷")
        if (
            row.rule.effect is Effect.LIMIT
            and row.kind != "float"
            and (limit_kw(row.rule, row.params, row.limit_kw, None) or 0.0) < row.security_kw
        ):
            fault(row, "the limit lies below the security load", "定值低于保安负荷")
    by_device: dict[int, list[PlanRow]] = defaultdict(list)
    for row in rows:
        by_device[row.device_id].append(row)
    for device_rows in by_device.values():
        ordered = sorted(device_rows, key=lambda r: r.round)
        for lower, higher in itertools.pairwise([r for r in ordered if r.rule.effect is Effect.CUT]):
            if (MEASURES[lower.measure], lower.seq) > (MEASURES[higher.measure], higher.seq):
                fault(higher, f"comes before round {lower.round} of the same device", f"先于同装置第 {lower.round} 轮")
        if len({r.customer for r in ordered}) > 1 or len({r.security_kw for r in ordered}) > 1:
            fault(
                ordered[0], "rounds of one device differ in customer or security load", "同装置各轮用户或保安负荷不一致"
            )
    names = Counter((r.customer, r.device_id) for r in rows)
    many = {c for c, _ in names if sum(1 for other, _ in names if other == c) > 1}
    for customer in sorted(many):
        fault(
            None,
            f"{customer} has more than one device: floors cannot be shared yet",
            f"{customer} 有多台装置: 尚不能共用保安负荷",
        )
    return found


def _reducible(rows: Sequence[PlanRow]) -> float:
    """What the rows promise together, kW: cuts of one device add up, a limit of it stands instead of them."""
    cut: dict[int, float] = defaultdict(float)
    limited: dict[int, float] = defaultdict(float)
    for row in rows:
        if row.class_ == "P":
            continue
        if row.rule.effect is Effect.CUT:
            cut[row.device_id] += row.reducible_kw
        elif row.rule.effect is Effect.LIMIT:
            limited[row.device_id] = max(limited[row.device_id], row.reducible_kw)
    return sum(max(cut[d], limited[d]) for d in cut.keys() | limited.keys())


_NEXT: Final = {
    "review": ("draft", "reviewed"),
    "approve": ("reviewed", "approved"),
    "activate": ("approved", "active"),
}


def advance_plan(conn: Conn, now_us: int, actor: Actor, plan_id: int, step: str, *, max_test_days: int) -> Plan:
    """review, approve or activate a version; each by another person, and only while all checks hold."""
    with recorded(conn, now_us, actor, f"plan.{step}", f"plan:{plan_id}"):
        require(actor, f"plan.{step}")
        conn.execute("SELECT FROM plan WHERE id = %s FOR UPDATE", (plan_id,))
        found = plan(conn, plan_id)
        before, after = _NEXT[step]
        if found.status != before:
            raise UsageError(
                tr(
                    f"plan {plan_id} is {found.status}; {step} needs {before}",
                    f"方案 {plan_id} 为 {found.status}; {step} 须为 {before}",
                )
            )
        values: dict[str, object] = {"status": after, "changed_at": from_us(now_us)}
        if step in ("review", "approve"):
            require_other_person(actor, found.drafter, found.drafter_session)
            who = "reviewer" if step == "review" else "approver"
            values |= {who: actor.account_id, f"{who}_session": actor.session_id}
        if step == "approve":
            require_other_person(actor, found.reviewer, found.reviewer_session)
        if step == "activate":
            require_other_person(actor, found.approver, found.approver_session)
            values["activator"] = actor.account_id
        rows = plan_rows(conn, plan_id)
        archived = plan_safety(conn, now_us, rows)
        faults = check_plan(found, rows, now_us=now_us, max_test_days=max_test_days, archived=archived)
        if faults:
            raise UsageError("\n  ".join([tr(f"plan {plan_id} is not fit", f"方案 {plan_id} 不合格"), *faults]))
        entries = [
            Entry(
                actor=actor,
                action=f"plan.{step}",
                object=f"plan:{plan_id}",
                before={"status": before},
                after={"status": after, "rows_hash": found.rows_hash},
            )
        ]
        if step == "activate":
            old = fetch_one(
                conn, Plan, "SELECT * FROM plan WHERE status = 'active' AND area = %s FOR UPDATE", (found.area,)
            )
            if old is not None:
                entries.append(
                    Entry(
                        actor=actor,
                        action="plan.retire",
                        object=f"plan:{old.id}",
                        before={"status": "active"},
                        after={"status": "retired"},
                    )
                )
                update(conn, "plan", old.id, {"status": "retired", "changed_at": from_us(now_us)})
        append(conn, now_us, entries)
        update(conn, "plan", plan_id, values)
        return plan(conn, plan_id)
