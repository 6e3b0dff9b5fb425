"""What is wrong with the archive today (domain 2.5): expired papers, missing agreements, overdue tests. Pure.

A finding is for people; nothing here changes anything. Protected status and security loads that have expired stay in
force until two people end them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from math import sqrt
from typing import Any, Final

from ..model.archive import (
    ConflictMember,
    Contact,
    Customer,
    Generator,
    MeteringPoint,
    Protection,
    SecurityLoad,
    Supply,
    Transformer,
    Version,
)
from ..model.lang import tr
from ..model.times import business_day, to_us
from .rounds import Round

YEAR: Final = timedelta(days=366)
SOON: Final = timedelta(days=30)
CT_LEAST: Final = 0.3  # share of the CT's rated primary current that the contract capacity should draw at least
CT_MOST: Final = 1.2
LOW_KV: Final = 0.38


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding; kind: a stable name of the rule. urgent: safety, or already overdue rather than soon."""

    kind: str
    entity: str
    key: str
    text: str
    urgent: bool = True


def check(
    in_force: Iterable[Version],
    rounds: Sequence[Round],
    devices: Mapping[int, str],
    *,
    today: date,
    live_test_max_days: int,
) -> list[Finding]:
    """Every finding among the versions in force on `today` and the rounds, safety first."""
    by: dict[type, list[Any]] = defaultdict(list)
    for v in in_force:
        by[type(v.record)].append(v.record)
    found = [
        *_papers(by[Protection], by[SecurityLoad], today),
        *_supplies(by[Customer], by[Supply], by[ConflictMember]),
        *_generators(by[Generator], today),
        *_rounds(rounds, devices, today, live_test_max_days),
        *_contacts(by[Customer], by[Contact], today),
        *_transformers_of_current(by[MeteringPoint], by[Customer], by[Transformer]),
        *_visits(by[Customer], today),
    ]
    return sorted(found, key=lambda f: not f.urgent)


def _papers(protections: Sequence[Protection], loads: Sequence[SecurityLoad], today: date) -> list[Finding]:
    found = []
    papers = [("protections", p.customer, p.expires) for p in protections]
    papers += [("security_loads", f"{s.customer}/{s.source_no}", s.expires) for s in loads]
    for entity, key, expires in papers:
        if expires < today:
            text = tr(f"expired on {expires}, still in force: renew it or let two people end it",
                      f"已于 {expires} 到期, 仍有效: 请续期或双人解除")  # fmt: skip
            found.append(Finding(kind="expired", entity=entity, key=key, text=text))
        elif expires <= today + SOON:
            text = tr(f"expires on {expires}", f"将于 {expires} 到期")
            found.append(Finding(kind="expires", entity=entity, key=key, text=text, urgent=False))
    return found


def _supplies(
    customers: Sequence[Customer], supplies: Sequence[Supply], members: Sequence[ConflictMember]
) -> list[Finding]:
    found = []
    by: dict[str, list[Supply]] = defaultdict(list)
    for s in supplies:
        by[s.customer].append(s)
    listed = {(m.customer, m.source_no) for m in members}
    for c in customers:
        own = by[c.cons_no]
        if len(own) < 2:
            continue
        if not c.dispatch_agreement:
            text = tr("dual supply without a dispatch agreement", "双电源用户无调度协议")
            found.append(Finding(kind="dual_without_agreement", entity="customers", key=c.cons_no, text=text))
        for s in own:
            if not s.may_parallel and (s.customer, s.source_no) not in listed:
                text = tr("source of a dual supply in no conflict set", "双电源未列入冲突组")
                key = f"{s.customer}/{s.source_no}"
                found.append(Finding(kind="dual_without_conflict_set", entity="supplies", key=key, text=text))
    sets: dict[str, int] = defaultdict(int)
    for m in members:
        sets[m.conflict_set] += 1
    for name, count in sets.items():
        if count < 2:
            text = tr("conflict set with one member", "冲突组仅一个成员")
            found.append(Finding(kind="lonely_conflict_set", entity="conflict_sets", key=name, text=text))
    return found


def _generators(generators: Sequence[Generator], today: date) -> list[Finding]:
    found = []
    for g in generators:
        wrong = []
        if g.interlock == "none" and not g.grid_parallel:
            wrong.append(("no_interlock", tr("no anti-backfeed interlock", "无防倒送电联锁")))
        if g.last_check is None or g.last_check < today - YEAR:
            when = g.last_check or tr("never", "从未")
            wrong.append(
                (
                    "interlock_check",
                    tr(f"interlock last checked {when}, over 12 months", f"联锁检查 {when}, 超 12 个月"),
                )
            )
        if not g.agreement:
            wrong.append(("generator_without_agreement", tr("own generation without agreement", "自备电源无协议")))
        found += [
            Finding(kind=kind, entity="generators", key=f"{g.customer}/{g.generator}", text=text)
            for kind, text in wrong
        ]
    return found


def _rounds(rounds: Sequence[Round], devices: Mapping[int, str], today: date, most: int) -> list[Finding]:
    found = []
    for r in rounds:
        if r.last_test_at is None:
            text = tr("never tested live", "从未传动试验")
        elif not r.last_test_ok:
            text = tr("the last live test failed", "上次传动试验不合格")
        else:
            tested = business_day(to_us(r.last_test_at))
            if (today - tested).days <= most:
                continue
            text = tr(f"last live test {tested}, over {most} days", f"上次传动试验 {tested}, 超 {most} 天")
        key = f"{devices.get(r.device_id, r.device_id)}/{r.round}"
        found.append(Finding(kind="live_test", entity="rounds", key=key, text=text))
    return found


def _contacts(customers: Sequence[Customer], contacts: Sequence[Contact], today: date) -> list[Finding]:
    found = []
    have = {c.customer for c in contacts if c.phones}
    for c in customers:
        if c.status == "active" and c.cons_no not in have:
            text = tr("no contact with a telephone", "无联系电话")
            found.append(Finding(kind="no_contact", entity="customers", key=c.cons_no, text=text))
    for k in contacts:
        if k.verified is None or k.verified < today - YEAR:
            when = k.verified or tr("never", "从未")
            text = tr(f"last verified {when}", f"上次核实 {when}")
            key = f"{k.customer}/{k.contact}"
            found.append(Finding(kind="contact_unverified", entity="contacts", key=key, text=text, urgent=False))
    return found


def _transformers_of_current(
    points: Sequence[MeteringPoint], customers: Sequence[Customer], transformers: Sequence[Transformer]
) -> list[Finding]:
    """CTs whose rated primary current does not suit what the contract (or the point's transformer) can draw."""
    found = []
    kva: dict[str, Decimal] = {c.cons_no: c.contract_kva for c in customers if c.contract_kva}
    rated = {t.transformer: t.rated_kva for t in transformers}
    billing = [p for p in points if p.role == "billing" and p.in_sec_a is not None]
    count: dict[str, int] = defaultdict(int)
    for p in billing:
        count[p.customer] += 1
    voltage = {c.cons_no: c.supply_voltage for c in customers}
    for p in billing:
        load = rated.get(p.transformer) or (kva.get(p.customer) if count[p.customer] == 1 else None)
        if not load or p.in_sec_a is None:
            continue
        if p.pt_ratio == 1:
            kv = LOW_KV
        elif voltage.get(p.customer):
            kv = float(voltage[p.customer] or 0)
        else:
            continue
        amps = float(load) / (sqrt(3) * kv)
        share = amps / float(p.ct_ratio * p.in_sec_a)
        if CT_LEAST <= share <= CT_MOST:
            continue
        kind = "ct_too_large" if share < CT_LEAST else "ct_too_small"
        text = tr(
            f"{load:f} kVA draw {amps:.0f} A, {share * 100:.0f} % of the CT's {p.ct_ratio * p.in_sec_a:f} A",
            f"{load:f} kVA 电流 {amps:.0f} A, 为互感器额定 {p.ct_ratio * p.in_sec_a:f} A 的 {share * 100:.0f}%",
        )
        found.append(Finding(kind=kind, entity="points", key=p.point, text=text, urgent=False))
    return found


def _visits(customers: Sequence[Customer], today: date) -> list[Finding]:
    found = []
    for c in customers:
        if c.status != "active":
            continue
        if not c.supply_contract:
            text = tr("no written supply contract", "无书面供用电合同")
            found.append(Finding(kind="no_contract", entity="customers", key=c.cons_no, text=text, urgent=False))
        if c.site_checked is None or c.site_checked < today - YEAR:
            when = c.site_checked or tr("never", "从未")
            text = tr(f"site last checked {when}", f"上次现场检查 {when}")
            found.append(Finding(kind="site_check", entity="customers", key=c.cons_no, text=text, urgent=False))
    return found
