"""VEE in the product against a real PostgreSQL: raw readings arrive, days are judged, versions follow what changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from fuhe.analytics.day import day_table
from fuhe.commands.curve_data import load_day_input, load_quantity
from fuhe.control import audit, vee_edits
from fuhe.control.audit import Actor
from fuhe.daemon import vee_judge
from fuhe.daemon.vee import VeeKeeper, last_closed
from fuhe.daemon.vee_explain import explain
from fuhe.daemon.vee_facts import Exchange
from fuhe.model.archive import MeteringPoint, MeterReading, Record, Version
from fuhe.model.quality import Quality, Source
from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, ReadingBatch, Samples
from fuhe.model.times import business_day, day_start_us, from_us
from fuhe.protocols.common.errors import UsageError
from fuhe.storage.archive_versions import store
from fuhe.storage.batches import encode_batches
from fuhe.storage.curves import NONE
from fuhe.storage.database import Database
from fuhe.storage.devices import load_devices
from fuhe.storage.dirty import Why, mark_judged
from fuhe.storage.journal import Journal
from fuhe.storage.layers import heads, history, read_checked, read_final
from fuhe.storage.writer import JournalWriter

DAY = date(2026, 9, 15)  # a Tuesday
SLOT = 900_000_000
POWER, FORWARD = quantity("active_power_total").id, quantity("forward_active_total").id
VOLTAGE, LOAD = quantity("voltage_a").id, quantity("load_power").id


class Clock:
    """Wall clock by hand; no waiting."""

    def __init__(self) -> None:
        self.us = day_start_us(DAY) + 40 * 3600 * 1_000_000  # the day after, 16:00

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return self.us / 1e6

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Ratios:
    """An archive with dates: K from instants on, and exchanges."""

    def __init__(self, rows: Sequence[tuple[int, int, int]] = (), exchanges: Sequence[Exchange] = ()) -> None:
        self.rows, self.found = list(rows), list(exchanges)

    def ratios(
        self, connection: Any, points: Sequence[int], first_us: int, last_us: int
    ) -> list[tuple[int, int, Decimal]]:
        known = {p for p, _, _ in self.rows}
        return [(p, t, Decimal(k)) for p, t, k in self.rows if p in points] + [
            (p, first_us, Decimal(1)) for p in points if p not in known
        ]

    def exchanges(self, connection: Any, points: Sequence[int], first_us: int, last_us: int) -> list[Exchange]:
        return [e for e in self.found if e.point in points and first_us < e.time_us <= last_us]


@pytest.fixture
def points(db: psycopg.Connection[Any]) -> list[int]:
    """Three measuring points of one device."""
    db.execute("INSERT INTO device (id, name, link, profile, address) VALUES (1, 'd', 'l', 'p', 'a')")
    for n in (1, 2, 3):
        db.execute(
            "INSERT INTO point (id, name, device_id, pn, contract_kva) VALUES (%s, %s, 1, %s, 1000)", (n, f"p{n}", n)
        )
    return [1, 2, 3]


class Plant:
    """Raw readings on the way of the product: journal, writer, database."""

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self.journal, self.writer = journal, JournalWriter(database, journal, now_us=clock.now_us)

    def put(self, point: int, item: int, day: date, values: Any, first_slot: int = 0) -> None:
        value = np.array([values], np.float64)
        block = CurveBlock(
            np.array([point], np.int32), np.array([item], np.int16),
            np.array([day_start_us(day) + (first_slot + 1) * SLOT], np.int64), 900, value,
            np.zeros(value.shape, np.int16),
        )  # fmt: skip
        self.deliver(ReadingBatch(received_us=day_start_us(day), curves=[block]))

    def freeze(self, point: int, day: date, value: float) -> None:
        """A register at 00:00 of the day."""
        one = np.ones(1)
        self.deliver(
            ReadingBatch(
                received_us=day_start_us(day),
                samples=Samples(
                    np.array([day_start_us(day)], np.int64), np.array([point], np.int32), np.array([FORWARD], np.int16),
                    one * value, np.zeros(1, np.int16), np.full(1, Source.DAILY, np.int16),
                ),
            )
        )  # fmt: skip

    def deliver(self, batch: ReadingBatch) -> None:
        self.journal.append(encode_batches([batch])).result(10)
        self.writer.drain_all()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def plant(database: Database, tmp_path: Path, clock: Clock) -> Iterator[Plant]:
    with Journal(tmp_path / "journal") as journal:
        made = Plant(database, journal, clock)
        yield made
        made.writer.close()


@pytest.fixture
def keeper_of(database: Database, clock: Clock) -> Iterator[Callable[..., VeeKeeper]]:
    made: list[VeeKeeper] = []

    def make(book: Ratios | None = None) -> VeeKeeper:
        made.append(VeeKeeper(database, clock, book=book or Ratios()))
        return made[-1]

    yield make
    for one in made:
        one.close()


def curve(seed: int = 0) -> Any:
    t = np.arange(96) + 11 * seed
    return np.round(100 + 20 * np.sin(t / 7) + 0.01 * (t % 13), 2)


def load_of(db: psycopg.Connection[Any], point: int, day: date = DAY, version: int | None = None) -> tuple[Any, Any]:
    """Final load and qualities of a day."""
    rows = [r for r in read_final(db, day, day, [point], [LOAD], version=version) if len(r)]
    assert len(rows) == 1
    number = rows[0].number[0]
    return np.where(number == NONE, np.nan, number / 10.0 ** rows[0].key["decimals"][0]), rows[0].quality[0]


def versions(db: psycopg.Connection[Any], point: int, day: date = DAY) -> list[tuple[int, int]]:
    return [(v.version, v.why) for v in history(db, point, day)]


def raw_bytes(db: psycopg.Connection[Any]) -> list[Any]:
    return db.execute("SELECT curve_day::text FROM curve_day ORDER BY day, point, quantity").fetchall()


def test_late_data_make_a_new_version_and_keep_the_old_one(
    db: psycopg.Connection[Any], points: list[int], plant: Plant, clock: Clock, keeper_of: Callable[..., VeeKeeper]
) -> None:
    kw = curve()
    holed = kw.copy()
    holed[40:44] = np.nan
    plant.put(1, POWER, DAY, holed)
    plant.put(1, VOLTAGE, DAY, np.where(np.arange(96) == 5, 999.0, 230 + np.arange(96) / 100))
    db.execute("UPDATE point SET nominal_v = 220 WHERE id = 1")
    keeper = keeper_of()
    keeper.drain()
    got, quality = load_of(db, 1)
    assert quality[40:44].tolist() == [Quality.E2] * 4
    assert np.array_equal(got[:40], kw[:40])
    assert versions(db, 1) == [(1, Why.DATA)]
    head = heads(db, [1], DAY, DAY)[0]
    assert (head.estimated, head.missing, head.rejected) == (4, 0, 1)
    checked = {int(q): m for _, q, m in zip(*read_checked(db, DAY, [1]), strict=True)}
    assert np.flatnonzero(checked[VOLTAGE]).tolist() == [5]
    before, frozen = raw_bytes(db), db.execute("SELECT * FROM final_day ORDER BY 1, 2, 3").fetchall()

    assert keeper.drain() == 0  # nothing waits
    mark_judged(db, points, DAY, DAY, Why.HAND)
    keeper.drain()
    assert versions(db, 1) == [(1, Why.DATA)]  # nothing changed: no version
    assert raw_bytes(db) == before

    plant.put(1, POWER, DAY, kw[40:44].tolist(), first_slot=40)
    keeper.drain()
    got, quality = load_of(db, 1)
    assert np.array_equal(got, kw)
    assert (quality == Quality.A).all()
    assert versions(db, 1) == [(1, Why.DATA), (2, Why.DATA)]
    assert db.execute("SELECT * FROM final_day WHERE version = 1 ORDER BY 1, 2, 3").fetchall() == frozen
    assert load_of(db, 1, version=1)[1][40:44].tolist() == [Quality.E2] * 4


def test_days_are_business_days_and_running_ones_wait(
    db: psycopg.Connection[Any], points: list[int], plant: Plant, clock: Clock, keeper_of: Callable[..., VeeKeeper]
) -> None:
    midnight = day_start_us(DAY + timedelta(days=1))
    assert last_closed(midnight + 29 * 60 * 1_000_000) == DAY - timedelta(days=1)
    assert last_closed(midnight + 30 * 60 * 1_000_000) == DAY
    clock.us = midnight + 10 * 60 * 1_000_000  # 16:10 UTC of the same calendar day
    assert business_day(clock.us) == DAY + timedelta(days=1)
    plant.put(1, POWER, DAY, curve().tolist())
    keeper = keeper_of()
    keeper.drain()
    assert versions(db, 1) == []
    clock.us += 30 * 60 * 1_000_000
    keeper.drain()
    assert versions(db, 1) == [(1, Why.DATA)]
    last = db.execute(
        "SELECT time, value FROM final WHERE day = %s AND point = 1 AND quantity = %s ORDER BY time DESC LIMIT 1",
        (DAY, LOAD),
    ).fetchone()
    assert last is not None
    assert last[0].timestamp() * 1e6 == midnight  # 24:00 belongs to the day that ends
    assert last[1] == pytest.approx(curve()[95])


def test_multiplier_and_exchange_of_the_archive_count_from_their_instants(
    db: psycopg.Connection[Any], points: list[int], plant: Plant, clock: Clock, keeper_of: Callable[..., VeeKeeper]
) -> None:
    start = day_start_us(DAY)
    register = 500 + np.round(np.concatenate([[0.0], np.cumsum(np.full(96, 0.25))]), 2)
    register[50:] = np.round(10 + 0.25 * np.arange(47), 2)  # a new meter since 12:20
    plant.freeze(1, DAY, register[0])
    plant.put(1, FORWARD, DAY, register[1:].tolist())
    plant.put(2, POWER, DAY, curve().tolist())
    db.execute("UPDATE point SET contract_kva = 10000 WHERE id = 2")
    change = Exchange(
        1, start + 12 * 3_600_000_000 + 1_200_000_000, Decimal("512.35"), Decimal("9.85"), Decimal(1), Decimal(2)
    )
    noon = start + 12 * 3_600_000_000
    book = Ratios([(1, 0, 1), (1, change.time_us, 2), (2, 0, 10)], [change])
    keeper = keeper_of(book)
    keeper.drain()
    head = heads(db, [1], DAY, DAY)[0]
    assert head.import_kwh == pytest.approx(12.35 + 2 * (register[96] - 9.85))
    assert versions(db, 1) == [(1, Why.DATA)]
    book.rows = [r for r in book.rows if r[0] != 2] + [(2, 0, 10), (2, noon, 20)]
    with db.transaction():
        assert mark_judged(db, [2], DAY, DAY, Why.ARCHIVE) == 1
    keeper.drain()
    assert versions(db, 2) == [(1, Why.DATA), (2, Why.ARCHIVE)]
    got, _ = load_of(db, 2)
    assert got == pytest.approx(curve() * np.where(np.arange(96) < 48, 10, 20))
    assert load_of(db, 2, version=1)[0] == pytest.approx(curve() * 10)
    assert versions(db, 1) == [(1, Why.DATA)]


@pytest.mark.parametrize("stage", ["_followers", "finish_dirty_days"])
def test_a_crash_between_the_stages_loses_nothing_and_does_nothing_twice(
    db: psycopg.Connection[Any], points: list[int], plant: Plant, keeper_of: Callable[..., VeeKeeper],
    monkeypatch: pytest.MonkeyPatch, stage: str,
) -> None:  # fmt: skip
    for point in points:
        plant.put(point, POWER, DAY, curve(point).tolist())

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vee_judge, stage, die)
        first = keeper_of()
        with pytest.raises(KeyboardInterrupt):
            first.drain()
        first.close()
    assert db.execute("SELECT count(*) FROM vee_version").fetchone() == (0,)
    assert db.execute("SELECT count(*) FROM final_day").fetchone() == (0,)
    second = keeper_of()
    second.drain()
    assert [versions(db, p) for p in points] == [[(1, Why.DATA)]] * 3
    assert db.execute("SELECT count(*) FROM dirty_day WHERE day <= %s", (DAY,)).fetchone() == (0,)


def test_a_long_gap_takes_like_days_and_is_told_again_when_they_change(
    db: psycopg.Connection[Any], points: list[int], plant: Plant, clock: Clock, keeper_of: Callable[..., VeeKeeper]
) -> None:
    past = [DAY - timedelta(days=d) for d in (1, 4, 5)]  # Monday, Friday, Thursday
    for i, day in enumerate(past):
        plant.put(1, POWER, day, np.full(96, 10.0 * (i + 1)) + np.arange(96) * 0.01)
    kw = curve()
    kw[20:60] = np.nan
    plant.put(1, POWER, DAY, kw)
    keeper = keeper_of()
    keeper.drain()
    got, quality = load_of(db, 1)
    assert set(quality[20:60].tolist()) == {Quality.E3}
    assert got[20:60] == pytest.approx(20 + np.arange(20, 60) * 0.01, abs=1e-5)
    assert heads(db, [1], DAY, DAY)[0].like_days == sorted(past)
    start = day_start_us(past[0])
    plant.freeze(1, DAY, 5000.0)
    plant.freeze(1, DAY + timedelta(days=1), 6500.0)  # the freezes come: the sum is exact
    keeper.drain()
    got, quality = load_of(db, 1)
    assert set(quality[20:60].tolist()) == {Quality.E5}
    assert got.sum() / 4 == pytest.approx(1500.0, abs=1e-4)
    # One of the like days is found wrong afterwards: the archive gives it another multiplier.
    other = keeper_of(Ratios([(1, 0, 1), (1, start, 4), (1, start + 86_400_000_000, 1)]))
    with db.transaction():
        mark_judged(db, [1], past[0], past[0], Why.ARCHIVE)
    other.drain()
    assert versions(db, 1)[-1][1] == Why.NEIGHBOUR
    got, _ = load_of(db, 1)
    shape = (40.0 + np.arange(96) * 0.04 + 50 + np.arange(96) * 0.02) / 3
    assert got[20:60] / got[20] == pytest.approx(shape[20:60] / shape[20], rel=1e-5)


def test_a_gap_over_midnight_is_told_again_when_the_next_day_comes(
    db: psycopg.Connection[Any], points: list[int], plant: Plant, clock: Clock, keeper_of: Callable[..., VeeKeeper]
) -> None:
    today = curve()
    today[93:] = np.nan
    plant.put(1, POWER, DAY, today)
    keeper = keeper_of()
    keeper.drain()
    assert (load_of(db, 1)[1][93:] == Quality.M).all()
    clock.us += 86_400_000_000
    following = curve(1)
    plant.put(1, POWER, DAY + timedelta(days=1), following)
    keeper.drain()
    got, quality = load_of(db, 1)
    assert quality[93:].tolist() == [Quality.E2] * 3
    assert got[93:] == pytest.approx(np.interp([93, 94, 95], [92, 96], [today[92], following[0]]), abs=1e-5)
    assert versions(db, 1) == [(1, Why.DATA), (2, Why.NEIGHBOUR)]
    assert keeper.drain() == 0


def test_a_point_that_sent_nothing_is_judged_when_the_day_is_over(
    db: psycopg.Connection[Any], points: list[int], plant: Plant, clock: Clock, keeper_of: Callable[..., VeeKeeper]
) -> None:
    for back in (1, 4, 5, 6):
        plant.put(1, POWER, DAY - timedelta(days=back), curve(back))
    keeper = keeper_of()
    keeper.drain()
    got, quality = load_of(db, 1)
    assert set(quality.tolist()) == {Quality.E3}
    assert got == pytest.approx(np.mean([curve(1), curve(4), curve(5)], axis=0), abs=1e-5)
    assert versions(db, 2) == []  # never had a value: nothing to say


def test_the_archive_marks_what_it_changes_in_its_own_transaction(
    database: Database, db: psycopg.Connection[Any], points: list[int], plant: Plant, clock: Clock
) -> None:
    def said(entity: str, key: str, record: Record, begin: int, end: int | None = None) -> Version:
        return Version(entity=entity, key=key, valid_from_us=begin, valid_to_us=end, record=record)

    long_ago, start = day_start_us(date(2026, 1, 1)), day_start_us(DAY)
    at = start + 12 * 3_600_000_000 + 1_200_000_000
    register = 500 + np.round(np.concatenate([[0.0], np.cumsum(np.full(96, 0.25))]), 2)
    register[50:] = np.round(10 + 0.25 * np.arange(47), 2)
    plant.freeze(1, DAY, register[0])
    plant.put(1, FORWARD, DAY, register[1:])
    plant.put(1, POWER, DAY, np.full(96, 1.0) + np.arange(96) * 1e-3)
    first = said("points", "p1", MeteringPoint(point="p1", ct_ratio=Decimal(40)), long_ago)
    with db.transaction():
        store(db, at, "m", "first import", ended=[], added=[first])
    keeper = VeeKeeper(database, clock)
    try:
        keeper.drain()
        assert heads(db, [1], DAY, DAY)[0].import_kwh is None  # a decrease that nobody explains
        assert load_of(db, 1)[0] == pytest.approx(40 + np.arange(96) * 0.04)
        later = said("points", "p1", MeteringPoint(point="p1", ct_ratio=Decimal(80)), at)
        old = MeterReading(asset="A", kind="remove", point="p1", forward_kwh=Decimal("512.35"))
        new = MeterReading(asset="B", kind="install", point="p1", forward_kwh=Decimal("9.85"))
        with db.transaction():
            store(
                db, at, "m", "meter and CT exchanged",
                ended=[said("points", "p1", first.record, long_ago, at)],
                added=[
                    later,
                    said("meter_readings", "A/remove/1", old, at),
                    said("meter_readings", "B/install/1", new, at),
                ],
            )  # fmt: skip
        keeper.drain()
        (_, _), (number, why) = versions(db, 1)
        assert number == 2
        assert why & Why.ARCHIVE
        assert heads(db, [1], DAY, DAY)[0].import_kwh == pytest.approx(40 * 12.35 + 80 * (register[96] - 9.85))
        k = np.where(np.arange(96) < 49, 40, 80)  # the slot that ends at 12:15 is the last one before the exchange
        assert load_of(db, 1)[0] == pytest.approx((1 + np.arange(96) * 1e-3) * k)
    finally:
        keeper.close()


def person(db: psycopg.Connection[Any], name: str, number: int, role: str = "metering") -> Actor:
    db.execute("INSERT INTO account (name, role, password_hash, created_at) VALUES (%s, %s, '-', now())", (name, role))
    row = db.execute("SELECT id FROM account WHERE name = %s", (name,)).fetchone()
    assert row is not None
    return Actor(name=name, role=role, account_id=row[0], session_id=number)


def proposal(action: str, first: int, last: int, item: int = LOAD, **more: Any) -> dict[str, Any]:
    return {
        "point": 1, "day": DAY, "quantity": item, "first": first, "last": last, "action": action, "value": None,
        "method": None, "reason": "seen on site", **more,
    }  # fmt: skip


def test_an_edit_needs_a_second_person_and_becomes_a_version(
    db: psycopg.Connection[Any], points: list[int], plant: Plant, clock: Clock, keeper_of: Callable[..., VeeKeeper]
) -> None:
    kw = curve()
    kw[50] = 900.0
    plant.put(1, POWER, DAY, kw)
    plant.put(1, VOLTAGE, DAY, 230 + np.arange(96) / 100)
    keeper = keeper_of()
    keeper.drain()
    today = business_day(clock.us)
    anna, ben = person(db, "anna", 1), person(db, "ben", 2)
    edit = proposal("accept", 50, 51)
    before, after = vee_judge.preview(db, Ratios(), edit, "load_power", today)
    assert (before["quality"], after["value"], after["quality"]) == (["E2"], [900.0], ["U"])
    made = vee_edits.propose(db, clock.us, anna, edit, before=before, after=after)
    assert (made.state, made.signatures) == ("proposed", 2)
    assert keeper.drain() == 0
    with pytest.raises(UsageError, match="second person"):
        vee_edits.approve(db, clock.us, anna, made.id)
    with pytest.raises(psycopg.errors.CheckViolation):  # and the database does not believe a program either
        db.execute(
            "UPDATE vee_edit SET state = 'approved', decided_by = 'anna', decided_account = draft_account,"
            " decided_session = 9, decided_at = now()"
        )
    vee_edits.approve(db, clock.us, ben, made.id)
    keeper.drain()
    assert versions(db, 1) == [(1, Why.DATA), (2, Why.EDIT)]
    value, quality = load_of(db, 1)
    assert (value[50], quality[50]) == (900.0, Quality.U)
    assert heads(db, [1], DAY, DAY)[0].edits == [made.id]
    with pytest.raises(psycopg.errors.RaiseException):
        db.execute("UPDATE vee_edit SET value = 1")
    one = vee_edits.propose(db, clock.us, anna, proposal("reject", 3, 4, VOLTAGE), before={}, after={})
    assert one.state == "approved"  # a voltage is on no bill
    keeper.drain()
    assert versions(db, 1)[-1] == (3, Why.EDIT)
    actions = [(r.action, r.result) for r in audit.read(db)]
    assert actions == [
        ("vee.edit", "ok"), ("vee.approve", "refused"), ("vee.approve", "ok"), ("vee.edit", "ok"),
        ("vee.approve", "ok"),
    ]  # fmt: skip
    assert audit.verify(audit.read(db)) == (5, None)


def test_what_may_not_be_edited_is_refused_in_words(
    db: psycopg.Connection[Any], points: list[int], clock: Clock
) -> None:
    guard = person(db, "g", 1, "guard")
    with pytest.raises(UsageError, match=r"may not vee\.edit"):
        vee_edits.propose(db, clock.us, guard, proposal("accept", 0, 1), before={}, after={})
    anna = person(db, "anna", 2)
    for bad, words in (
        (proposal("estimate", 0, 4, VOLTAGE, method=6), "never estimated"),
        (proposal("value", 0, 4, FORWARD, value=1.0), "cannot be written"),
        (proposal("accept", 4, 4), "before --to"),
        (proposal("accept", 0, 4, reason=" "), "reason"),
    ):
        with pytest.raises(UsageError, match=words):
            vee_edits.propose(db, clock.us, anna, bad, before={}, after={})
    assert db.execute("SELECT count(*) FROM vee_edit").fetchone() == (0,)


def test_explain_shows_the_numbers_behind_every_value(
    db: psycopg.Connection[Any], points: list[int], plant: Plant, clock: Clock, keeper_of: Callable[..., VeeKeeper]
) -> None:
    for i, back in enumerate((1, 4, 5)):
        plant.put(1, POWER, DAY - timedelta(days=back), np.full(96, 10.0 * (i + 1)) + np.arange(96) * 0.01)
    kw = curve()
    kw[10], kw[20], kw[40], kw[60:80] = 450.0, np.nan, 1300.0, np.nan
    plant.put(1, POWER, DAY, kw)
    register = np.full(96, np.nan)
    register[19], register[20] = 700.0, 731.25  # 20:00 of the clock's slots 20 and 21
    plant.put(1, FORWARD, DAY, register)
    plant.put(1, VOLTAGE, DAY, np.where(np.arange(96) == 5, 400.0, 230 + np.arange(96) / 100))
    db.execute("UPDATE point SET nominal_v = 220 WHERE id = 1")
    keeper_of().drain()
    today = business_day(clock.us)
    where = next(p for d in load_devices(db) for p in d.points if p.id == 1)
    found = explain(db, Ratios(), where, DAY, quantity("load_power"), today)
    assert (found.judged, found.waiting, found.basis) == (True, False, "active_power_total")
    spike, hole, high, long = (found.slots[i] for i in (10, 20, 40, 70))
    third = float(np.sort(kw[np.isfinite(kw) & (kw < 1200)])[-3])
    (said,) = spike["checks"]
    assert (said["check"], said["limit"]) == ("K5", 1.8)
    assert said["value"] == pytest.approx((450 - third) / third, abs=1e-6)
    assert (spike["raw"], spike["checked"], spike["quality"]) == (450.0, "S", "E2")
    assert spike["how"]["left"] == {"interval_end": "2026-09-15T02:30:00+08:00", "kw": kw[9]}
    assert spike["how"]["right"]["kw"] == kw[11]
    assert [(c["check"], c["value"], c["limit"]) for c in high["checks"]] == [("K4", 325.0, 300.0)]
    assert (high["checked"], high["quality"]) == ("X", "E2")
    assert (hole["raw"], hole["quality"], hole["how"]["method"]) == (None, "E5", "EST5")
    span = hole["how"]["registers"]
    assert (span["start"], span["end"], span["k"], span["kwh"]) == (700.0, 731.25, 1.0, 31.25)
    assert (span["measured_kwh"], span["left_kwh"], hole["final"]) == (0.0, 31.25, 125.0)
    assert long["how"] == {
        "method": "EST3", "days": {"2026-09-10": 30.7, "2026-09-11": 20.7, "2026-09-14": 10.7},
    }  # fmt: skip
    assert long["final"] == pytest.approx(20.7)
    assert [(v["version"], v["why"]) for v in found.versions] == [(1, ["data"])]
    volts = explain(db, Ratios(), where, DAY, quantity("voltage_a"), today)
    (said,) = volts.slots[5]["checks"]
    assert (said["check"], said["value"], said["limit"]) == ("K4", 400.0, pytest.approx(330.0))
    assert (volts.slots[5]["final"], volts.slots[5]["quality"]) == (None, "X")


def test_curves_and_reports_take_the_final_layer_without_estimates_in_maxima(
    db: psycopg.Connection[Any], points: list[int], plant: Plant, keeper_of: Callable[..., VeeKeeper]
) -> None:
    for i, back in enumerate((1, 4, 5)):
        plant.put(1, POWER, DAY - timedelta(days=back), np.full(96, 900.0 + 10 * i) + np.arange(96) * 0.01)
    kw = curve()
    kw[60:80] = np.nan
    plant.put(1, POWER, DAY, kw)
    plant.put(1, VOLTAGE, DAY, np.where(np.arange(96) == 5, 400.0, 230 + np.arange(96) / 100))
    plant.freeze(1, DAY, 1000.0)
    plant.freeze(1, DAY + timedelta(days=1), 8000.0)
    db.execute("UPDATE point SET nominal_v = 220, ct_ratio = 3 WHERE id = 1")
    keeper_of(Ratios([(1, 0, 1)])).drain()  # the archive knows that the ratio was 1 that day
    some = [p for d in load_devices(db) for p in d.points if p.id == 1]
    table = day_table(load_day_input(db, DAY, some))
    assert table.kw[0, :60] == pytest.approx(kw[:60])
    assert table.estimated[0].nonzero()[0].tolist() == list(range(60, 80))
    assert table.kw[0, 60:80].max() > kw[:60].max()
    assert table.load.max_kw[0] == pytest.approx(np.nanmax(kw))  # an estimate makes no maximum
    assert table.energy_kwh[0] == 7000.0  # by registers, with the ratio of that day
    assert table.load.energy_kwh[0] == pytest.approx(7000.0, abs=1e-3)  # and the estimates share what is left of it
    raw = day_table(load_day_input(db, DAY, some, "raw"))
    assert raw.kw[0, :60] == pytest.approx(3 * kw[:60])
    assert np.isnan(raw.kw[0, 60:80]).all()
    volts, _ = load_quantity(db, DAY, some[0], quantity("voltage_a"))
    before, _ = load_quantity(db, DAY, some[0], quantity("voltage_a"), "raw")
    checked, _ = load_quantity(db, DAY, some[0], quantity("voltage_a"), "checked")
    assert (before[5], np.isnan(volts[5]), np.isnan(checked[5])) == (400.0, True, True)
    assert volts[6] == before[6]


def test_a_confirmed_outage_becomes_zero_and_withdrawn_it_is_a_gap_again(
    db: psycopg.Connection[Any], points: list[int], plant: Plant, keeper_of: Callable[..., VeeKeeper]
) -> None:
    kw = curve()
    kw[40:44] = np.nan
    plant.put(1, POWER, DAY, kw)
    keeper = keeper_of()
    keeper.drain()
    since = day_start_us(DAY) + 10 * 3_600_000_000
    db.execute(
        "INSERT INTO exemption (device, since, until, kind, reason, made_by, made_at)"
        " VALUES (1, %s, %s, 'outage', 'line work', 'x', now())",
        (from_us(since), from_us(since + 3 * SLOT)),
    )
    keeper.drain()
    value, quality = load_of(db, 1)
    assert quality[40:44].tolist() == [Quality.O] * 3 + [Quality.M]  # an outage is no end of a line
    assert value[40:43].tolist() == [0.0] * 3
    db.execute("UPDATE exemption SET withdrawn_by = 'x', withdrawn_at = now(), withdrawn_reason = 'wrong feeder'")
    keeper.drain()
    assert versions(db, 1) == [(1, Why.DATA), (2, Why.OUTAGE), (3, Why.OUTAGE)]
    assert load_of(db, 1)[1][40:44].tolist() == [Quality.E2] * 4
