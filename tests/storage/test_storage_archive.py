"""The archive in the database: what was in force when, exact multipliers, and versions that cannot be overwritten."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.model.archive import Customer, Feeder, MeteringPoint, Record, Supply, Version
from fuhe.model.devices import Device, Point
from fuhe.model.times import BUSINESS_ZONE, DAY_US, day_start_us, to_us
from fuhe.storage.archive import _scaled, contracts, multipliers
from fuhe.storage.archive_versions import store, versions
from fuhe.storage.devices import apply_devices

Db = psycopg.Connection[Any]
FEB, MARCH, APRIL = (day_start_us(date(2026, m, 1)) for m in (2, 3, 4))


def version(entity: str, key: str, record: Record, begin: int = FEB, end: int | None = None) -> Version:
    return Version(entity=entity, key=key, valid_from_us=begin, valid_to_us=end, record=record)


def point(ct: str, **more: Any) -> MeteringPoint:
    return MeteringPoint(point="P1", ct_ratio=Decimal(ct), **more)


def add(db: Db, *added: Version, ended: tuple[Version, ...] = ()) -> None:
    with db.transaction():
        store(db, MARCH, "metering", "CT exchanged", ended=ended, added=added)


@pytest.fixture
def points(db: Db) -> dict[str, int]:
    """P1 and P2 of one device, ratios 40 and 80 as the device list says now."""
    device = Device(
        id=0, name="d", link="l", profile="p", address="1",
        points=(Point(id=7, name="P1", ct_ratio=Decimal(40)),
                Point(id=9, name="P2", pn=2, ct_ratio=Decimal(80), pt_ratio=Decimal("1.5"), contract_kva=Decimal(315))),
    )  # fmt: skip
    applied = apply_devices(db, [device])
    return {p.name: p.id for d in applied.devices for p in d.points}


def test_a_new_transformer_in_march_leaves_february_alone(db: Db, points: dict[str, int]) -> None:
    first = version("points", "P1", point("40"))
    add(db, first)
    at = to_us(datetime(2026, 3, 10, 10, 37, tzinfo=BUSINESS_ZONE))
    add(
        db,
        version("points", "P1", point("60.25"), at),
        ended=(version("points", "P1", first.record, first.valid_from_us, at),),
    )

    found = multipliers(db, [points["P2"], points["P1"]], FEB, APRIL)

    assert found.index.tolist() == [0, 1, 1]
    assert found.valid_from_us.tolist() == [FEB, FEB, at]
    assert [found.factor(n) for n in range(3)] == [Decimal(120), Decimal(40), Decimal("60.25")]
    assert found.archived.tolist() == [False, True, True]
    assert found.at(2, MARCH).tolist() == [120.0, 40.0]
    february = multipliers(db, [points["P1"]], FEB, MARCH)
    assert [february.factor(n) for n in range(len(february.units))] == [Decimal(40)]


def test_times_without_a_version_have_the_ratios_of_the_device_list(db: Db, points: dict[str, int]) -> None:
    add(db, version("points", "P1", point("50"), MARCH, MARCH + DAY_US))
    found = multipliers(db, [points["P1"], 4711], FEB, APRIL)
    assert found.index.tolist() == [0, 0, 0]
    assert found.valid_from_us.tolist() == [FEB, MARCH, MARCH + DAY_US]
    assert [int(u) for u in found.units] == [40, 50, 40] and found.archived.tolist() == [False, True, False]


def test_another_name_of_the_device_point_and_equal_factors_are_one_row(db: Db, points: dict[str, int]) -> None:
    record = MeteringPoint(point="0531-001", device_point="P2", ct_ratio=Decimal(10))
    other = MeteringPoint(point="0531-001", device_point="P2", ct_ratio=Decimal(5), pt_ratio=Decimal(2))
    add(db, version("points", "0531-001", record, FEB, MARCH), version("points", "0531-001", other, MARCH))
    found = multipliers(db, [points["P2"]], FEB, APRIL)
    assert found.valid_from_us.tolist() == [FEB] and found.factor(0) == 10


def test_contracts_of_a_day(db: Db, points: dict[str, int]) -> None:
    customer = Customer(
        cons_no="0012", name="Steel works", industry="31", supply_voltage="10", contract_kva=Decimal(2000),
        pf_standard="0.90", importance="second", shifts=3, rest_day=("6", "7"),
    )  # fmt: skip
    add(
        db,
        version("feeders", "F7", Feeder(feeder="F7", substation="East")),
        version("customers", "0012", customer, FEB, MARCH),
        version("customers", "0012", Customer(cons_no="0012", name="Steel", contract_kva=Decimal(4000)), MARCH),
        version("supplies", "0012/1", Supply(customer="0012", source_no="1", feeder="F7")),
        version("points", "P1", point("40", customer="0012", source_no="1", wiring="3P3W", monitor_class="C")),
    )
    before, none, other = contracts(db, [points["P1"], 4711, points["P2"]], date(2026, 2, 28))
    assert none is None and before is not None and other is not None
    assert (before.customer, before.customer_name, before.feeder) == ("0012", "Steel works", "F7")
    assert (before.contract_kva, before.pf_standard) == (Decimal(2000), Decimal("0.90"))
    assert (before.wiring, before.monitor_class, before.role, before.supply_voltage) == ("3P3W", "C", "billing", "10")
    assert (before.importance, before.industry, before.shifts) == ("second", "31", 3)
    assert before.rest_day == ("6", "7")
    assert (other.archived, other.contract_kva, other.customer, other.wiring) == (False, Decimal(315), "", "3P4W")
    (after,) = contracts(db, [points["P1"]], date(2026, 3, 1))
    assert after is not None and (after.contract_kva, after.pf_standard) == (Decimal(4000), None)


def test_versions_are_read_back_exactly_and_as_of(db: Db) -> None:
    first, second = version("points", "P1", point("0.1"), FEB, MARCH), version("points", "P1", point("0.2"), MARCH)
    add(db, first, second)
    assert [v.record for v in versions(db)] == [first.record, second.record]
    assert [v.record for v in versions(db, entities=["points"], at_us=MARCH)] == [second.record]
    assert versions(db, keys=["P2"]) == [] and versions(db, at_us=FEB - 1) == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE archive_version SET valid_to = '2030-01-01'", "never overwritten"),
        ("UPDATE archive_version SET content = '{}'", "never overwritten"),
        ("DELETE FROM archive_version", "append-only"),
    ],
)
def test_the_database_keeps_what_was_written(db: Db, database: Any, statement: str, said: str) -> None:
    add(db, version("points", "P1", point("40"), FEB, MARCH))
    with database.connect("owner", autocommit=True) as owner, pytest.raises(psycopg.Error, match=said):
        owner.execute(statement)


@pytest.mark.parametrize("begin", [MARCH - DAY_US, MARCH + DAY_US])
def test_the_database_refuses_overlaps_and_gaps(db: Db, begin: int) -> None:
    add(db, version("points", "P1", point("40"), FEB, MARCH))
    with pytest.raises(psycopg.Error, match="overlap or leave a gap"):
        add(db, version("points", "P1", point("50"), begin))
    add(db, version("points", "P1", point("50"), MARCH))


def test_what_a_round_was_is_remembered(db: Db, points: dict[str, int]) -> None:
    db.execute("INSERT INTO round (device_id, round, typical_kw) SELECT id, 1, 100 FROM device")
    db.execute("UPDATE round SET last_measured_kw = 90")
    db.execute("UPDATE round SET tag = 'people at work'")
    kept = db.execute("SELECT content ->> 'tag' FROM round_version ORDER BY valid_from").fetchall()
    assert kept == [("",), ("people at work",)]


@given(st.decimals("0.000001", "1000000", allow_nan=False, places=6))
def test_factors_are_exact(factor: Decimal) -> None:
    units, decimals = _scaled(factor)
    assert Decimal(units).scaleb(-decimals) == factor and decimals >= 0
