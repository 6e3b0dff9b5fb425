"""Key customers: exact energy over exchanges, union of the criteria, hysteresis, lists by the leading group."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from fuhe.control import key_customers
from fuhe.control.config import ArchiveConfig
from fuhe.control.key_customers import energy, month_starts
from fuhe.model.archive import ENTITIES, Customer, MeteringPoint, Record, Supply, Version
from fuhe.model.devices import Device, Point
from fuhe.model.quantities import quantity
from fuhe.model.times import day_start_us, from_us
from fuhe.protocols.common.errors import UsageError
from fuhe.storage.archive_versions import store
from fuhe.storage.devices import apply_devices

D = Decimal
LONG_AGO = day_start_us(date(2020, 1, 1))
AS_OF = date(2026, 9, 20)


@pytest.mark.parametrize(
    ("r2", "factors", "exchanges", "found"),
    [
        ("110.5", [(0, D(40))], [], D(420)),
        ("99", [(0, D(40))], [], None),
        ("110", [(0, D(40)), (50, D(60))], [], None),
        ("5", [(0, D(40)), (50, D(60))], [(50, D(130), D(2))], D(30 * 40 + 3 * 60)),
        ("5", [(0, D(40))], [(50, D(130), D(2)), (200, D(0), D(0))], D(30 * 40 + 3 * 40)),
        ("5", [(0, D(40))], [(50, D(90), D(2))], None),
        (None, [(0, D(40))], [], None),
    ],
)
def test_energy_is_exact_or_nothing(r2: str | None, factors: Any, exchanges: Any, found: Decimal | None) -> None:
    assert energy(D(100), None if r2 is None else D(r2), 0, 100, factors, exchanges) == found


def test_months() -> None:
    assert month_starts(date(2026, 2, 28), 2) == [date(2025, 12, 1), date(2026, 1, 1), date(2026, 2, 1)]


def put(world: Any, *found: tuple[Record, int, int | None]) -> None:
    names = {e.struct: e for e in ENTITIES.values()}
    made = [
        Version(
            entity=names[type(r)].name, key=names[type(r)].key_of(r), valid_from_us=begin, valid_to_us=end, record=r
        )
        for r, begin, end in found
    ]  # fmt: skip
    with world.conn.transaction():
        store(world.conn, world.now_us, "x", "y", ended=[], added=made)


def kva(number: str, value: str) -> Customer:
    return Customer(cons_no=number, name=f"c{number}", running_kva=D(value))


def actions(made: key_customers.KeyList) -> dict[str, str]:
    return {r.cons_no: r.action for r in made.rows}


def test_from_the_proposal_to_the_list_and_nobody_falls_off_it_by_himself(world: Any) -> None:
    points = (Point(id=0, name="P3", ct_ratio=D(1000)),)
    applied = apply_devices(world.conn, [Device(id=0, name="m", link="l", profile="p", address="1", points=points)])
    (device,) = [d for d in applied.devices if d.name == "m"]
    put(
        world,
        (kva("1", "1000"), LONG_AGO, None),
        (kva("2", "999"), LONG_AGO, None),
        (kva("3", "100"), LONG_AGO, None),
        (MeteringPoint(point="P3", customer="3", ct_ratio=D(1000)), LONG_AGO, None),
        (kva("4", "100"), LONG_AGO, None),
        (Supply(customer="4", source_no="1"), LONG_AGO, None),
        (Supply(customer="4", source_no="2"), LONG_AGO, None),
        (kva("5", "2000"), LONG_AGO, day_start_us(date(2026, 3, 1))),
        (kva("5", "500"), day_start_us(date(2026, 3, 1)), None),
        (kva("6", "2000"), LONG_AGO, day_start_us(date(2025, 3, 1))),
        (kva("6", "500"), day_start_us(date(2025, 3, 1)), None),
    )
    for n, month in enumerate(month_starts(AS_OF, 12)):
        world.conn.execute(
            "INSERT INTO sample (time, received, value, point, quantity, source, quality)"
            " VALUES (%s, now(), %s, %s, %s, 1, 0)",
            (from_us(day_start_us(month)), 100.0 + 417 * n, device.points[0].id, quantity("forward_active_total").id),
        )
    inside, leading = world.people["inside"], world.people["leading"]
    config = ArchiveConfig()
    old = key_customers.propose(world.conn, world.now_us, inside, date(2025, 1, 15), config)
    assert actions(old) == {"1": "add", "4": "add", "5": "add", "6": "add"}
    with pytest.raises(UsageError, match="may not"):
        key_customers.approve(world.conn, world.now_us, inside, old.id, 4)
    with pytest.raises(UsageError, match="number of members"):
        key_customers.approve(world.conn, world.now_us, leading, old.id, 5)
    assert key_customers.current(world.conn) is None
    assert key_customers.approve(world.conn, world.now_us, leading, old.id, 4).version == 1

    made = key_customers.propose(world.conn, world.now_us, inside, AS_OF, config)
    assert actions(made) == {"1": "keep", "3": "add", "4": "keep", "5": "watch", "6": "remove"}
    rows = {r.cons_no: r for r in made.rows}
    assert rows["3"].reasons == ("energy",) and rows["3"].energy_kwh == 417 * 12 * 1000
    assert rows["1"].energy_kwh is None and rows["4"].reasons == ("supplies",)
    assert rows["5"].below_months == 7
    present = key_customers.current(world.conn)
    assert present is not None and {r.cons_no for r in present.members} == {"1", "4", "5", "6"}
    key_customers.approve(world.conn, world.now_us, leading, made.id, 4)
    now = key_customers.current(world.conn)
    assert now is not None and now.version == 2 and {r.cons_no for r in now.members} == {"1", "3", "4", "5"}
    with pytest.raises(UsageError, match="only the newest"):
        key_customers.approve(world.conn, world.now_us, leading, old.id, 4)
