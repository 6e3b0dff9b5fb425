"""The keeper of terminals' clocks: judged, recorded before it is sent, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from fuhe.acquisition.profiles import builtin_profiles
from fuhe.acquisition.requests import READ, item_of
from fuhe.control import accounts, audit
from fuhe.control.clocks import DONE, SET, TICKET, ask_set, sets_in_a_month
from fuhe.daemon.clocks import ClockKeeper
from fuhe.model.devices import Device, Point
from fuhe.model.quality import Quality, Source
from fuhe.model.quantities import quantity
from fuhe.model.readings import DeviceEvent, ReadingBatch, samples_from_rows
from fuhe.model.times import US, business_to_us
from fuhe.model.work import Duty, Outcome, Priority, Status, WorkItem
from fuhe.protocols.common.errors import UsageError
from fuhe.storage.database import Database

OFFSET = quantity("clock_offset").id
FLEET = [
    Device(
        id=i, name=f"t{i}", link="l", profile="qgdw1376-2013", address=f"3301-{i}", points=(Point(id=i, name=f"p{i}"),)
    )
    for i in range(1, 9)
]  # fmt: skip


class Clock:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.at_us = business_to_us(datetime(2026, 5, 20, 10, 21))  # noqa: DTZ001

    def now_us(self) -> int:
        return self.at_us

    def monotonic_s(self) -> float:
        return self.at_us / 1e6

    async def sleep(self, seconds: float) -> None:
        self.at_us += round(seconds * US)


def outcome(offset_s: float, status: Status = Status.DONE, event: dict[str, object] | None = None) -> Outcome:
    """What a conversation about a clock yields."""
    events = () if event is None else (
        DeviceEvent(device=1, point=None, time_us=1, end_us=None, code="clock_set", data=event),
    )  # fmt: skip
    samples = samples_from_rows([(1, 1, OFFSET, offset_s, Quality.A, Source.LIVE)])
    return Outcome(status=status, batch=ReadingBatch(received_us=1, samples=samples, events=events))


def reading(device: int) -> WorkItem:
    """The daily item."""
    return WorkItem(device=device, duty=Duty.CLOCK, priority=Priority.SCHEDULED, expires_s=1)


class Bench:
    """A keeper whose terminals obey."""

    def __init__(self, database: Database, *, enabled: bool = True) -> None:
        self.clock, self.sent, self.audited = Clock(), list[WorkItem](), list[list[str]]()
        self.database, self.writable = database, True
        self.answer = outcome(0.2, event={"before": "b", "told": "t", "offset_before_s": 1.0, "offset_after_s": 0.2})
        self.keeper = ClockKeeper(database, self.submit, self.clock, enabled=enabled, may_write=lambda: self.writable)
        self.keeper.set_devices(FLEET, builtin_profiles())

    def submit(self, item: WorkItem) -> asyncio.Future[Outcome]:
        self.sent.append(item)
        self.audited.append(self.records())
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        future.set_result(self.answer)
        return future

    def read(self, device: int, offset_s: float) -> None:
        """The daily cycle has read its clock."""
        self.keeper.ended(reading(device), outcome(offset_s))

    def look(self) -> None:
        asyncio.run(self.keeper.look())

    def records(self) -> list[str]:
        with self.database.connect("app", autocommit=True) as conn:
            return [f"{r.action} {r.object} {r.result}" for r in audit.read(conn)]


@pytest.fixture
def make(database: Database) -> Callable[..., Bench]:
    return lambda **changes: Bench(database, **changes)


def test_a_clock_that_is_off_is_set_with_a_record_before_and_after(make: Callable[..., Bench]) -> None:
    b = make()
    b.read(1, 100.0)
    b.read(2, 12.0)
    b.look()
    assert [(i.device, i.duty, i.items) for i in b.sent] == [(1, Duty.CLOCK, ("set",))]
    assert b.audited == [[f"{SET} device:1 asked"]], "the record is there before the frame"
    assert b.records() == [f"{SET} device:1 asked", f"{DONE} device:1 done"]
    b.look()
    assert len(b.sent) == 1
    with b.database.connect("app", autocommit=True) as conn:
        done = audit.read(conn)[-1]
    assert '"offset_before_s":1.0' in done.before and '"offset_after_s":0.2' in done.after and done.actor == "daemon"


def test_it_waits_for_a_moment_that_the_rules_allow(make: Callable[..., Bench]) -> None:
    b = make()
    b.clock.at_us = business_to_us(datetime(2026, 5, 20, 10, 57))  # noqa: DTZ001
    b.read(1, 100.0)
    b.look()
    assert not b.sent
    b.clock.at_us = business_to_us(datetime(2026, 5, 20, 11, 6))  # noqa: DTZ001
    b.look()
    assert len(b.sent) == 1


def test_more_than_fifteen_minutes_is_a_ticket_once_a_day(make: Callable[..., Bench]) -> None:
    b = make()
    for _ in range(2):
        b.read(1, 2000.0)
        b.look()
    assert not b.sent and b.records() == [f"{TICKET} device:1 ok"]


def test_nothing_is_set_in_read_only_mode_or_when_switched_off_or_when_it_was_set_already(
    make: Callable[..., Bench],
) -> None:
    b = make()
    b.writable = False
    b.read(1, 100.0)
    b.look()
    off = make(enabled=False)
    off.read(1, 100.0)
    off.look()
    assert not b.sent and not off.sent and not b.records()
    b.writable = True
    b.read(1, 5.0)  # somebody else has set it
    b.look()
    assert not b.sent


def test_when_most_terminals_are_off_alike_it_is_our_own_clock(make: Callable[..., Bench]) -> None:
    b = make()
    for device in range(1, 7):
        b.read(device, 100.0 + device)
    b.look()
    assert not b.sent and not b.records()
    for device in range(2, 7):
        b.read(device, 0.3)
    b.look()
    assert [i.device for i in b.sent] == [1]


def test_a_terminal_that_does_not_obey_is_tried_three_times(make: Callable[..., Bench]) -> None:
    b = make()
    b.answer = outcome(100.0, Status.PARTIAL, event={"answer": "confirmed"})
    b.read(1, 100.0)
    for _ in range(5):
        b.look()
    assert len(b.sent) == 3 and b.records()[-1] == f"{DONE} device:1 unknown"
    b.answer = Outcome(status=Status.QUARANTINED)
    b.read(1, 100.0)
    b.look()
    assert b.records()[-1] == f"{DONE} device:1 not sent"


def test_a_clock_that_runs_away_again_and_again_is_broken(make: Callable[..., Bench]) -> None:
    b = make()
    for _ in range(2):
        b.read(1, 400.0)
        b.clock.at_us = business_to_us(datetime(2026, 5, 20, 10, 16))  # noqa: DTZ001
        b.look()
    assert len(b.sent) == 2
    with b.database.connect("app", autocommit=True) as conn:
        assert sets_in_a_month(conn, b.clock.at_us, 1) == 2
    b.read(1, 400.0)
    b.look()
    assert len(b.sent) == 2 and b.records()[-1] == f"{TICKET} device:1 ok"


def test_nothing_is_sent_when_the_audit_cannot_be_written(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    b = make()
    b.read(1, 100.0)

    def broken(*args: Any, **more: Any) -> None:
        raise UsageError("no audit")

    monkeypatch.setattr("fuhe.daemon.clocks.records.ask_set", broken)
    with pytest.raises(UsageError):
        b.look()
    assert not b.sent


def test_a_person_sets_with_a_record_of_their_own(make: Callable[..., Bench], db: Any) -> None:
    b = make()
    accounts.add_first_administrator(db, b.clock.at_us, "root", "scenario-4711")
    boss, _ = accounts.login(db, b.clock.at_us, "root", "scenario-4711", "desk")
    accounts.add_account(db, b.clock.at_us, boss, "meter", "metering", "scenario-4711")
    person, _ = accounts.login(db, b.clock.at_us, "meter", "scenario-4711", "desk")
    with pytest.raises(UsageError, match=r"may not clock\.set"):
        ask_set(db, b.clock.at_us, boss, 1, None, "r")
    seq = ask_set(db, b.clock.at_us, person, 1, None, "looked at on site")
    done = asyncio.run(b.keeper.by_person(1, seq))
    assert done.status is Status.DONE and b.sent[0].items == ("set-supervised",) and b.sent[0].forced
    for again in (seq, seq + 1, None, "1"):
        with pytest.raises(UsageError, match="record in the audit"):
            asyncio.run(b.keeper.by_person(1, again))
    with pytest.raises(UsageError, match="only terminals"):
        asyncio.run(b.keeper.by_person(99, seq))
    assert len(b.sent) == 1


def test_reading_on_demand_cannot_set() -> None:
    with pytest.raises(UsageError, match="fuhe device clock"):
        item_of(READ, 1, {"duty": "clock", "items": [" Set-supervised"]}, 0.0)
