"""The check of the archive: every rule finds what is wrong and is silent where it is right."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import msgspec
import pytest

from fuhe.control.archive_check import check
from fuhe.control.rounds import Round
from fuhe.model.archive import (
    ConflictMember,
    Contact,
    Customer,
    Generator,
    MeteringPoint,
    Protection,
    Record,
    SecurityLoad,
    Supply,
    Version,
)
from fuhe.model.times import day_start_us, from_us

TODAY = date(2026, 9, 1)
LATER, PAST = date(2027, 6, 1), date(2026, 8, 31)
GOOD: dict[str, Record] = {
    "customer": Customer(
        cons_no="1", name="Mill", contract_kva=Decimal(630), supply_voltage="10", dispatch_agreement="D-1",
        supply_contract="G-1", site_checked=date(2026, 1, 1),
    ),
    "first": Supply(customer="1", source_no="1"),
    "second": Supply(customer="1", source_no="2"),
    "member": ConflictMember(conflict_set="S", customer="1", source_no="1"),
    "other": ConflictMember(conflict_set="S", customer="1", source_no="2"),
    "generator": Generator(
        customer="1", generator="G", interlock="mechanical", agreement="A", last_check=date(2026, 1, 1)
    ),
    "contact": Contact(customer="1", contact="duty", phones=("1",), verified=date(2026, 1, 1)),
    "point": MeteringPoint(point="P", customer="1", ct_ratio=Decimal(200), in_sec_a=Decimal(5)),
    "protection": Protection(customer="1", basis="doc", expires=LATER),
    "load": SecurityLoad(customer="1", kw=Decimal(5), agreement="B", signed=date(2025, 1, 1), expires=LATER),
}  # fmt: skip


def found(records: dict[str, Record], tested: date | None = date(2026, 1, 1), ok: bool = True) -> set[str]:
    versions = [
        Version(entity="", key="", valid_from_us=0, valid_to_us=None, record=r) for r in records.values()
    ]  # fmt: skip
    at = None if tested is None else from_us(day_start_us(tested))
    one = Round(
        device_id=1, round=1, description="", importance=1, typical_kw=1.0, last_measured_kw=None, min_off_min=None,
        min_on_min=None, max_trips_day=None, manual_reclose=True, last_test_at=at, last_test_ok=ok, tag="",
    )  # fmt: skip
    return {f.kind for f in check(versions, [one], {1: "d"}, today=TODAY, live_test_max_days=365)}


def test_a_good_archive_has_no_findings() -> None:
    assert found(GOOD) == set()


@pytest.mark.parametrize(
    ("name", "changes", "kinds"),
    [
        ("protection", {"expires": PAST}, {"expired"}),
        ("load", {"expires": PAST}, {"expired"}),
        ("protection", {"expires": TODAY}, {"expires"}),
        ("load", {"expires": TODAY + timedelta(days=30)}, {"expires"}),
        ("customer", {"dispatch_agreement": ""}, {"dual_without_agreement"}),
        ("other", {"conflict_set": "T", "source_no": "1"}, {"dual_without_conflict_set", "lonely_conflict_set"}),
        ("generator", {"interlock": "none"}, {"no_interlock"}),
        ("generator", {"last_check": date(2025, 8, 1)}, {"interlock_check"}),
        ("generator", {"last_check": None, "agreement": ""}, {"interlock_check", "generator_without_agreement"}),
        ("contact", {"phones": ()}, {"no_contact"}),
        ("contact", {"verified": None}, {"contact_unverified"}),
        ("point", {"ct_ratio": Decimal(1000)}, {"ct_too_large"}),
        ("point", {"ct_ratio": Decimal(100)}, {"ct_too_small"}),
        ("point", {"ct_ratio": Decimal(10), "pt_ratio": Decimal(100)}, set()),
        ("customer", {"supply_contract": "", "site_checked": None}, {"no_contract", "site_check"}),
    ],
)
def test_each_rule_finds_its_fault(name: str, changes: dict[str, object], kinds: set[str]) -> None:
    assert found(GOOD | {name: msgspec.structs.replace(GOOD[name], **changes)}) == kinds


@pytest.mark.parametrize(("tested", "ok"), [(None, True), (date(2025, 8, 31), True), (date(2026, 8, 1), False)])
def test_live_tests_must_be_young_and_good(tested: date | None, ok: bool) -> None:
    assert found(GOOD, tested, ok) == {"live_test"}
    assert found(GOOD, date(2025, 9, 1)) == set()
