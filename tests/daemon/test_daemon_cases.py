"""Rules in the product: days become cases, cases follow the data and people, events open cases; a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from fuhe.daemon.cases import CaseKeeper, search, take_events
from fuhe.daemon.vee import VeeKeeper
from fuhe.model.quantities import quantity
from fuhe.model.times import day_start_us, from_us
from fuhe.protocols.common.errors import UsageError
from fuhe.storage import cases
from fuhe.storage.database import Database
from fuhe.storage.dirty import Why, mark_judged

from .test_daemon_vee import DAY, Clock, Plant, clock, plant, points  # noqa: F401 - fixtures

U = [quantity(f"voltage_{x}").id for x in "abc"]
I = [quantity(f"current_{x}").id for x in "abc"]  # noqa: E741 - the field's letter
P, Q = quantity("active_power_total").id, quantity("reactive_power_total").id


class Works:
    """Days with ordinary curves of three phases, and the judge that searches them."""

    def __init__(self, database: Database, plant: Plant, clock: Clock) -> None:  # noqa: F811
        self.plant, self.clock, self.database = plant, clock, database
        self.keeper = VeeKeeper(database, clock, search=lambda conn, judged: search(conn, judged, clock.now_us()))

    def day(self, point: int, day: Any = DAY, **changes: Any) -> None:
        """220 V, 3 A, 1.88 kW, 0.6 kvar; changes: u_a=(from slot, to slot, value), ..."""
        names = dict(zip(("u_a", "u_b", "u_c", "i_a", "i_b", "i_c", "p", "q"), (*U, *I, P, Q), strict=True))
        for name, item in names.items():
            value = np.full(96, {"u": 220.0, "i": 3.0, "p": 1.88, "q": 0.6}[name[0]]) + 0.01 * (np.arange(96) % 7)
            if name in changes:
                begin, end, what = changes[name]
                value[begin:end] = what
            self.plant.put(point, item, day, np.round(value, 2))

    def judge(self) -> None:
        self.keeper.drain()


@pytest.fixture
def works(
    database: Database,
    db: psycopg.Connection[Any],
    plant: Plant,  # noqa: F811
    clock: Clock,  # noqa: F811
    points: list[int],  # noqa: F811
) -> Iterator[Works]:
    db.execute("UPDATE point SET nominal_v = 220, ct_ratio = 100, contract_kva = 250, wiring = '3P4W'")
    made = Works(database, plant, clock)
    yield made
    made.keeper.close()


def told(conn: Any, **more: Any) -> list[tuple[int | None, str, str]]:
    return sorted((c.point or 0, c.rule, c.state) for c in cases.cases(conn, **more))


def test_an_ordinary_day_opens_nothing_and_each_fault_its_case(works: Works, db: Any) -> None:
    works.day(1)
    works.day(2, u_a=(40, 44, 165.0))
    works.day(3, q=(30, 60, 1.6), p=(70, 74, 2.9))
    works.judge()
    assert told(db, everything=True) == [
        (2, "V1", "closed"), (3, "P1", "closed"), (3, "P4", "closed"),
    ], "states that were over by the day's end have closed themselves"  # fmt: skip
    by_rule = {c.rule: c for c in cases.cases(db, everything=True)}
    loss = by_rule["V1"]
    start = day_start_us(DAY)
    assert (loss.first_at, loss.last_at) == (from_us(start + 600 * 60_000_000), from_us(start + 660 * 60_000_000))
    assert loss.evidence["u"][0] == 165.0 and loss.evidence["minutes"] == 60 and loss.told == ["M", "CM", "C", "I"]
    assert [s.step for s in cases.steps(db, loss.id)] == ["open", "closed"]


def test_judged_again_a_day_opens_nothing_twice_and_late_data_take_a_case_back(works: Works, db: Any) -> None:
    works.day(1, u_a=(90, 96, 165.0))
    works.judge()
    (case,) = cases.cases(db)
    assert case.rule == "V1" and case.cleared_at is None, "it holds at midnight"
    before = cases.steps(db, case.id)
    works.plant.put(1, quantity("frequency").id, DAY, np.full(96, 50.0))
    works.judge()
    assert cases.cases(db) == [case] and cases.steps(db, case.id) == before

    tomorrow = DAY + timedelta(days=1)
    works.clock.us += 86_400_000_000
    works.day(1, tomorrow, u_a=(0, 3, 165.0))
    works.judge()
    (same,) = cases.cases(db, everything=True)
    assert same.id == case.id and same.repeats == 1, "one case over midnight"
    assert same.cleared_at == from_us(day_start_us(tomorrow) + 45 * 60_000_000) and same.state == "closed"

    works.day(2, u_b=(20, 24, 165.0))
    works.judge()
    (second,) = cases.cases(db, points=[2], everything=True)
    assert second.state == "closed" and second.finding == "over"


def test_holds_go_on_over_midnight_in_either_order_of_arrival(works: Works, db: Any) -> None:
    tomorrow = DAY + timedelta(days=1)
    works.clock.us += 86_400_000_000
    works.day(1, tomorrow, u_c=(0, 1, 200.0))  # V6 holds after two slots; only with yesterday's last slot
    works.judge()
    assert told(db) == []
    works.day(1, u_c=(95, 96, 200.0))  # yesterday comes late
    works.judge()
    (case,) = cases.cases(db, everything=True)
    assert case.rule == "V6" and case.first_at >= from_us(day_start_us(DAY))


def test_people_take_a_case_up_and_the_data_verify_it(works: Works, db: Any) -> None:
    works.day(1, i_b=(0, 96, 0.0))
    works.judge()
    assert told(db) == [(1, "C1", "new"), (1, "C3", "new")], "a phase without current is unbalanced as well"
    (case,) = cases.cases(db, rule="C1")
    now = works.clock.us
    with db.transaction(), pytest.raises(UsageError, match="new"):
        cases.move(db, now, "li", case.id, "repaired", "")
    with db.transaction():
        cases.move(db, now, "li", case.id, "confirm", "seen on the curve")
        with pytest.raises(UsageError, match="--to"):
            cases.move(db, now, "li", case.id, "assign", "")
        cases.move(db, now, "li", case.id, "assign", "", assignee="zhao")
        cases.move(db, now, "zhao", case.id, "on-site", "")
        cases.move(db, now, "zhao", case.id, "repaired", "clamp tightened")
        with pytest.raises(UsageError, match="data"):
            cases.move(db, now, "li", case.id, "verify", "")
    works.clock.us += 86_400_000_000
    works.day(1, DAY + timedelta(days=1))
    works.judge()
    assert cases.get(db, case.id).cleared_at is not None and cases.get(db, case.id).state == "repaired"
    with db.transaction():
        cases.move(db, now, "li", case.id, "verify", "")
        with pytest.raises(UsageError, match="--note"):
            cases.move(db, now, "li", case.id, "close", " ")
        done = cases.move(db, now, "li", case.id, "close", "loose clamp")
    assert done.state == "closed" and done.finding == "loose clamp" and done.assignee == "zhao"
    count = cases.counts(db, DAY)[0]
    assert (count.rule, count.raised, count.confirmed, count.false, count.closed) == ("C1", 1, 1, 0, 1)
    with pytest.raises(psycopg.Error, match="permission denied"):
        db.execute("DELETE FROM case_step")


def event(db: Any, code: str, time_us: int, **data: Any) -> None:
    db.execute(
        "INSERT INTO event (device, point, time, code, data, received) VALUES (1, 1, %s, %s, %s, now())",
        (from_us(time_us), code, Jsonb(data)),
    )


def test_events_open_cases_that_only_people_close_and_evidence_adds_up(works: Works, db: Any) -> None:
    now = works.clock.us
    event(db, "03300D00", now - 3_600_000_000)
    event(db, "03300D00", now - 1_800_000_000)
    event(db, "ERC14", now + 86_400_000_000)  # of the future: nobody is called out for it
    event(db, "ERC9", now - 60_000_000, begin=0)  # the end of one
    event(db, "link.login", now)
    assert take_events(db, now) == 5 and take_events(db, now) == 0
    (case,) = cases.cases(db)
    assert (case.rule, case.repeats, case.severity) == ("T1", 2, 1)
    works.day(1, i_b=(40, 60, 0.0))
    works.judge()
    found = {c.rule: c for c in cases.cases(db, everything=True)}
    assert found["T1"].state == "new", "an event waits for a finding"
    assert "TS" not in found, "55 of 60"
    works.day(1, DAY - timedelta(days=1), i_b=(40, 60, 0.0))
    with db.transaction():
        db.execute("UPDATE case_ SET finding = 'bypass', state = 'closed', rule = 'TS' WHERE rule = 'C1'")
    works.judge()
    found = {c.rule: c for c in cases.cases(db)}
    assert found["TS"].evidence["score"] == 65 and found["TS"].hidden and found["TS"].told == ["I"]


async def test_overdue_cases_go_one_level_up_and_the_keeper_outlives_the_database(works: Works, db: Any) -> None:
    event(db, "ERC20", works.clock.us - 60_000_000)
    keeper = CaseKeeper(works.database, works.clock)
    assert keeper.step() == 1
    (case,) = cases.cases(db)
    assert case.escalated == 0
    works.clock.us += 2 * 86_400_000_000
    keeper.step()
    keeper.step()
    (case,) = cases.cases(db)
    assert case.escalated == 1 and cases.steps(db, case.id)[-1].step == "overdue"
    keeper.close()


def test_what_lies_in_an_exemption_or_under_control_accuses_nobody(works: Works, db: Any) -> None:
    start = day_start_us(DAY)
    exempt = (
        "INSERT INTO exemption (device, point, since, until, kind, reason, made_by, made_at)"
        " VALUES (1, %s, %s, %s, %s, 'r', 'li', now())"
    )
    db.execute(exempt, (1, from_us(start + 39 * 900_000_000), from_us(start + 45 * 900_000_000), "commissioning"))
    db.execute(exempt, (2, from_us(start), None, "suspension"))
    works.day(1, u_a=(40, 44, 165.0))
    works.day(2)
    works.day(3, u_a=(40, 44, 165.0))
    works.judge()
    assert told(db, everything=True) == [(2, "P5", "new"), (3, "V1", "closed")]


def test_a_case_that_rested_on_wrong_data_is_withdrawn_and_may_come_again(works: Works, db: Any) -> None:
    bad = {"u_a": (40, 96, 165.0)}
    works.day(1, **bad)
    works.judge()
    (case,) = cases.cases(db)
    hole = from_us(day_start_us(DAY)), from_us(day_start_us(DAY) + 86_400_000_000)
    db.execute(
        "INSERT INTO exemption (device, point, since, until, kind, reason, made_by, made_at)"
        " VALUES (1, 1, %s, %s, 'commissioning', 'r', 'li', now())", hole,
    )  # fmt: skip
    mark_judged(db, [1], DAY, DAY, Why.OUTAGE)
    works.judge()
    assert cases.get(db, case.id).finding == "withdrawn" and cases.cases(db) == []
    db.execute("UPDATE exemption SET withdrawn_by = 'li', withdrawn_at = now(), withdrawn_reason = 'wrong'")
    mark_judged(db, [1], DAY, DAY, Why.OUTAGE)
    works.judge()
    (again,) = cases.cases(db)
    assert again.id != case.id and again.rule == "V1"
    with db.transaction():
        cases.move(db, works.clock.us, "li", again.id, "ack", "")
    assert (cases.get(db, again.id).due_at - again.opened_at).total_seconds() == 86_400


def test_events_with_numbers_that_come_late_are_not_lost(works: Works, db: Any) -> None:
    now = works.clock.us
    event(db, "ERC14", now - 60_000_000)
    assert take_events(db, now) == 1
    db.execute("UPDATE case_cursor SET event = event + 3")  # as if numbers above had been committed first
    event(db, "ERC20", now - 30_000_000)
    take_events(db, now)
    assert {c.rule for c in cases.cases(db)} == {"D5", "D6"}


def test_a_nightly_habit_is_one_case(works: Works, db: Any) -> None:
    for n in range(3):
        works.day(1, DAY + timedelta(days=n), u_a=(80, 88, 200.0))
        works.judge()
        works.clock.us += 86_400_000_000
    (case,) = cases.cases(db, everything=True)
    assert (case.rule, case.state, case.repeats) == ("V6", "closed", 3)
    assert [s.step for s in cases.steps(db, case.id)] == ["open", "closed", "again", "closed", "again", "closed"]
    works.day(1, DAY - timedelta(days=2), u_a=(80, 88, 200.0))
    works.judge()
    (case,) = cases.cases(db, everything=True)
    assert case.repeats == 4 and case.first_at < from_us(day_start_us(DAY)), "a day that comes late is of it too"
    works.day(1, DAY + timedelta(days=20), u_a=(80, 88, 200.0))
    works.clock.us += 20 * 86_400_000_000
    works.judge()
    assert len(cases.cases(db, everything=True)) == 2, "weeks later it is another one"
