"""Changing the archive: whole or not at all, the past never rewritten, two people where safety or money hangs on it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from fuhe.control import accounts, archive, audit, plans, proposals
from fuhe.control.archive_safety import Safety, safety
from fuhe.control.config import ControlConfig
from fuhe.model.archive import (
    ENTITIES,
    ConflictMember,
    Customer,
    Feeder,
    MeteringPoint,
    Protection,
    Record,
    SecurityLoad,
    Supply,
    Version,
)
from fuhe.model.archive_plan import ArchiveRow
from fuhe.model.devices import Device, Point
from fuhe.model.times import DAY_US, day_start_us
from fuhe.protocols.common.errors import UsageError
from fuhe.storage.archive import multipliers
from fuhe.storage.archive_versions import store, versions
from fuhe.storage.devices import apply_devices

JAN, FEB, MARCH, APRIL = (day_start_us(date(2026, m, 1)) for m in (1, 2, 3, 4))
NAMES = {
    Customer: "customers", Feeder: "feeders", Supply: "supplies", MeteringPoint: "points", Protection: "protections",
    SecurityLoad: "security_loads", ConflictMember: "conflict_sets",
}  # fmt: skip


def row(record: Record, begin: int | None = JAN, end: int | None = None, line: int = 2) -> ArchiveRow:
    entity = NAMES[type(record)]
    return ArchiveRow(sheet=entity, line=line, entity=entity, record=record, valid_from_us=begin, valid_to_us=end)


def customer(kva: str = "500", **more: Any) -> Customer:
    return Customer(cons_no="0012", name="Mill", contract_kva=Decimal(kva), **more)


def point(ct: str = "40", **more: Any) -> MeteringPoint:
    return MeteringPoint(point="P1", customer="0012", ct_ratio=Decimal(ct), **more)


@pytest.fixture
def office(world: Any) -> Any:
    """The small world with a metering person and a point P1 of ratio 40."""
    accounts.add_account(world.conn, world.now_us, world.people["root"], "metering", "metering", "correct horse")
    world.log_in("metering")
    points = (Point(id=0, name="P1", ct_ratio=Decimal(40)),)
    apply_devices(world.conn, [Device(id=0, name="m", link="l", profile="p", address="1", points=points)])
    world.point_id = world.conn.execute("SELECT id FROM point WHERE name = 'P1'").fetchone()[0]
    return world


def commit(office: Any, who: str, *rows: ArchiveRow, reason: str = "contract") -> int | None:
    return archive.commit(office.conn, office.now_us, office.people[who], rows, JAN, reason)[1]


def factors(office: Any) -> list[Decimal]:
    found = multipliers(office.conn, [office.point_id], FEB, APRIL)
    return [found.factor(n) for n in range(len(found.units))]


def test_a_plain_change_is_a_new_version_and_is_recorded(office: Any) -> None:
    assert commit(office, "inside", row(customer()), row(point())) is None
    assert commit(office, "inside", row(customer("800"), MARCH)) is None
    found = versions(office.conn, entities=["customers"])
    assert [(v.valid_from_us, v.valid_to_us, v.record) for v in found] == [
        (JAN, MARCH, customer()), (MARCH, None, customer("800")),
    ]  # fmt: skip
    assert found[1].changed_by == "inside" and found[1].reason == "contract"
    actions = [r.action for r in audit.read(office.conn, object_="archive:customers/0012")]
    assert actions == ["archive.new", "archive.changed"]
    assert audit.verify(audit.read(office.conn))[1] is None
    again = archive.preview(office.conn, [row(customer()), row(customer("800"), None)], APRIL)
    assert again.plan.changes == [] and again.plan.faults == []


@pytest.mark.parametrize(
    ("begin", "end", "kva", "said"),
    [
        (JAN, None, "900", "would overwrite"),
        (FEB, None, "900", "overlaps"),
        (APRIL, None, "900", "leaves a gap"),
        (JAN - 2 * DAY_US, JAN - DAY_US, "900", "leaves a gap"),
        (JAN - DAY_US, JAN + DAY_US, "900", "overlaps"),
        (JAN, APRIL, "500", "has ended"),
        (MARCH, FEB, "900", "does not lie behind"),
    ],
)
def test_overlaps_gaps_and_overwriting_are_refused(office: Any, begin: int, end: int, kva: str, said: str) -> None:
    commit(office, "inside", row(customer(), JAN, MARCH))
    with pytest.raises(UsageError, match=said):
        commit(office, "inside", row(customer(kva), begin, end))
    assert len(versions(office.conn)) == 1


def test_every_fault_is_named_and_nothing_is_done(office: Any) -> None:
    rows = [
        row(customer()),
        row(Supply(customer="0013", source_no="1", feeder="F9"), line=3),
        row(MeteringPoint(point="P1", customer="0012", device_point="none"), line=4),
        row(MeteringPoint(point="P2", customer="0012"), JAN - 1, line=5),
    ]
    with pytest.raises(UsageError) as found:
        commit(office, "inside", *rows)
    for part in ("supplies row 3, customer", "no '0013'", "supplies row 3, feeder", "points row 4, device_point",
                 "points row 5, customer", "exists only from 2026-01-01", "4 faults, nothing was changed"):  # fmt: skip
        assert part in str(found.value)
    assert versions(office.conn) == []
    assert audit.read(office.conn, last=1)[0].result == "refused"


def test_what_others_refer_to_cannot_end_before_them(office: Any) -> None:
    commit(office, "inside", row(customer()), row(point()))
    with pytest.raises(UsageError, match=r"points P1 \(stored\), customer: customers 0012 ends"):
        commit(office, "inside", row(customer(), JAN, MARCH))
    assert commit(office, "inside", row(customer(), JAN, MARCH), row(point(), JAN, MARCH)) is None


def test_a_multiplier_needs_metering_and_a_second_person_and_leaves_february_alone(office: Any) -> None:
    commit(office, "inside", row(customer()), row(point()))
    with pytest.raises(UsageError, match="may not"):
        commit(office, "inside", row(point("60"), MARCH))
    number = commit(office, "metering", row(point("60"), MARCH), reason="CT exchanged")
    assert number is not None and factors(office) == [Decimal(40)]
    config = ControlConfig()

    def approve(who: str, code: str = "00P1", later_us: int = 0) -> None:
        archive.approve(office.conn, office.now_us + later_us, office.people[who], number, code, config)

    for who, code, later, said in (
        ("metering", "00P1", 0, "second person"),
        ("inside", "00P1", 0, "may not"),
        ("guard", "0000", 0, "last four"),
        ("guard", "00P1", 601_000_000, "import it again"),
    ):
        with pytest.raises(UsageError, match=said):
            approve(who, code, later)
    assert factors(office) == [Decimal(40)]
    approve("guard")
    assert factors(office) == [Decimal(40), Decimal(60)]
    assert versions(office.conn, entities=["points"])[1].changed_by == "metering + guard"
    with pytest.raises(UsageError, match="no change"):
        approve("guard")


SIGNED = {"agreement": "A-7", "signed": date(2025, 1, 1), "expires": date(2027, 1, 1)}


@pytest.mark.parametrize(
    ("record", "second", "refused"),
    [
        (Protection(customer="0012", basis="doc 9", expires=date(2027, 1, 1)), "leading", "guard"),
        (SecurityLoad(customer="0012", kw=Decimal(50), **SIGNED), "guard", "inside"),  # type: ignore[arg-type]
        (ConflictMember(conflict_set="S", customer="0012", source_no="1"), "dispatcher", "metering"),
    ],
)
def test_what_keeps_people_safe_is_signed_by_two(office: Any, record: Record, second: str, refused: str) -> None:
    commit(office, "inside", row(customer()), row(Supply(customer="0012", source_no="1")))
    number = commit(office, "inside", row(record))
    assert number is not None and len(versions(office.conn)) == 2
    code = "000S" if isinstance(record, ConflictMember) else "0012"
    with pytest.raises(UsageError):
        archive.approve(office.conn, office.now_us, office.people[refused], number, code, ControlConfig())
    archive.approve(office.conn, office.now_us, office.people[second], number, code, ControlConfig())
    assert len(versions(office.conn)) == 3
    ending = commit(office, "inside", row(record, JAN, MARCH))
    assert ending is not None
    archive.reject(office.conn, office.now_us, office.people["guard"], ending, "still needed")
    assert archive.all_waiting(office.conn) == []
    assert all(v.valid_to_us is None for v in versions(office.conn))


def test_a_draft_does_not_survive_another_change_of_the_same_object(office: Any) -> None:
    commit(office, "inside", row(customer()), row(point()))
    number = commit(office, "metering", row(point("60"), MARCH))
    other = commit(office, "metering", row(point("80"), FEB))
    assert number is not None and other is not None
    archive.approve(office.conn, office.now_us, office.people["guard"], other, "00P1", ControlConfig())
    with pytest.raises(UsageError, match="has changed since"):
        archive.approve(office.conn, office.now_us, office.people["guard"], number, "00P1", ControlConfig())


def test_the_switch_of_a_supply_to_parallel_needs_two(office: Any) -> None:
    commit(office, "inside", row(customer()), row(Supply(customer="0012", source_no="1")))
    assert commit(office, "inside", row(Supply(customer="0012", source_no="1", may_parallel=True), MARCH)) is not None
    assert commit(office, "inside", row(Supply(customer="0012", source_no="1", busbar="II"), MARCH)) is None


def put(world: Any, *records: Record) -> None:
    """Into the archive at once, behind all signatures."""
    made = [
        Version(
            entity=NAMES[type(r)], key=ENTITIES[NAMES[type(r)]].key_of(r), valid_from_us=JAN, valid_to_us=None, record=r
        )
        for r in records
    ]  # fmt: skip
    with world.conn.transaction():
        store(world.conn, world.now_us, "a + b", "signed", ended=[], added=made)


ALPHA = Customer(cons_no="0012", name="alpha")
SPARED: list[tuple[int, tuple[Record, ...], str]] = [
    (2, (Protection(customer="0012", basis="doc", expires=date(2020, 1, 1)),), "protected"),
    (3, (SecurityLoad(customer="0012", kw=Decimal(1200), **SIGNED),), "floor 1200"),  # type: ignore[arg-type]
    (4, (Supply(customer="0012", source_no="1"), Supply(customer="0012", source_no="2")), "other supply"),
]


@pytest.mark.parametrize(("number", "records", "said"), SPARED)
async def test_what_the_archive_learns_later_stops_a_signed_command(
    world: Any, number: int, records: tuple[Record, ...], said: str
) -> None:
    made = world.ready()
    await world.step()  # the daemon has begun
    put(world, ALPHA, *records)
    world.execute(made)
    await world.step()
    alpha, beta = (next(c for c in world.all() if c.device_id == d) for d in (world.alpha, world.beta))
    assert alpha.state == "BLOCKED" and world.field.trips(world.alpha, alpha.round) == 0
    failed = {i["number"]: i["text"] for i in alpha.interlocks if i["verdict"] != "pass"}
    assert set(failed) == {number} and said in failed[number]
    assert beta.state not in ("BLOCKED", "SUBMITTED", "APPROVED")


@pytest.mark.parametrize(("number", "records", "said"), SPARED)
def test_the_archive_speaks_in_proposals_and_in_the_check_of_plans(
    world: Any, number: int, records: tuple[Record, ...], said: str
) -> None:
    plan_id = world.activate_plan()
    order = world.confirmed_order()
    put(world, ALPHA, *records)
    rows = plans.plan_rows(world.conn, plan_id)
    archived = plans.plan_safety(world.conn, world.now_us, rows)
    faults = plans.check_plan(
        plans.plan(world.conn, plan_id), rows, now_us=world.now_us, max_test_days=365, archived=archived
    )
    assert len(faults) == 2 and all("(alpha)" in f and "archive" in f for f in faults)
    proposal = proposals.propose(
        world.conn, world.now_us, world.people["inside"], order, world.field.power, world.config
    )
    devices = {r.row: r.device_id for r in rows}
    assert {devices[r.row] for r in proposal.choice.rows if r.chosen} <= {world.beta}


def test_a_device_of_nobody_is_as_free_as_its_plan_says(world: Any) -> None:
    assert safety(world.conn, world.now_us, [world.alpha], [(world.alpha, "alpha")]) == {}
    put(world, ALPHA)
    found = safety(world.conn, world.now_us, [world.alpha], [(world.alpha, "alpha")])
    assert found == {world.alpha: Safety(customers=("0012",))}
