"""Journal to database: nothing lost, nothing doubled, late and conflicting data in their own slots."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from fuhe.model.quality import Quality, Source
from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, DeviceEvent, ParameterValue, ReadingBatch, Samples, samples_from_rows
from fuhe.model.times import day_start_us
from fuhe.storage.batches import encode_batches
from fuhe.storage.database import Database
from fuhe.storage.dirty import finish_dirty_days, take_dirty_days
from fuhe.storage.journal import Journal
from fuhe.storage.partitions import drop_old, make_ahead, pack_cold
from fuhe.storage.readings import (
    latest,
    load_curve_day,
    load_curve_range,
    load_samples,
    sample_points,
)
from fuhe.storage.writer import JournalWriter

DAY = date(2026, 9, 21)
START = day_start_us(DAY)
SLOT = 900_000_000
VOLTAGE = quantity("voltage_a").id
ENERGY = quantity("forward_active_total").id


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal") as opened:
        yield opened


@pytest.fixture
def writer(database: Database, journal: Journal, fake_clock: Any) -> Iterator[JournalWriter]:
    made = JournalWriter(database, journal, now_us=fake_clock.now_us)
    yield made
    made.close()


def put(journal: Journal, *batches: ReadingBatch) -> None:
    journal.append(encode_batches(batches)).result(10)


def live(n: int, point0: int = 1, time_us: int = START, value: float = 220.1) -> Samples:
    points = np.arange(point0, point0 + n, dtype=np.int32)
    return Samples(
        np.full(n, time_us, np.int64),
        points,
        np.full(n, VOLTAGE, np.int16),
        np.full(n, value),
        np.zeros(n, np.int16),
        np.full(n, Source.LIVE, np.int16),
    )


def curve(values: list[float], first_slot: int, point: int = 1, item: int = VOLTAGE, day_us: int = START) -> CurveBlock:
    value = np.array([values], np.float64)
    return CurveBlock(
        np.array([point], np.int32),
        np.array([item], np.int16),
        np.array([day_us + (first_slot + 1) * SLOT], np.int64),
        900,
        value,
        np.zeros(value.shape, np.int16),
    )


def count(db: psycopg.Connection[Any], table: str = "sample") -> int:
    row = db.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_samples_reach_their_days_partition(
    journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any]
) -> None:
    put(journal, ReadingBatch(received_us=START, samples=live(100)))
    assert writer.drain_all() == 1
    assert count(db, "sample_20260921") == 100
    assert journal.state().depth_records == 0
    loaded = load_samples(db, [1, 2], [VOLTAGE], START, START + 1)
    assert loaded.point.tolist() == [1, 2]
    assert loaded.value.tolist() == [220.1, 220.1]
    assert loaded.time_us.tolist() == [START, START]
    newest = latest(db, [5], [VOLTAGE], START)
    assert newest.value.tolist() == [220.1]
    assert sample_points(db, VOLTAGE, Source.LIVE, START, START + 1).tolist() == list(range(1, 101))


def test_sending_again_changes_nothing(journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any]) -> None:
    for _ in range(3):
        put(journal, ReadingBatch(received_us=START, samples=live(50)))
        put(journal, ReadingBatch(received_us=START, samples=live(50, value=1.0)))
        writer.drain_all()
    put(journal, ReadingBatch(received_us=START, samples=live(60)))
    writer.drain_all()
    assert count(db) == 60
    row = db.execute("SELECT DISTINCT value FROM sample").fetchall()
    assert row == [(220.1,)]
    assert (writer.counters.samples, writer.counters.repeated) == (60, 300)


def test_absurd_times_wait_in_the_default_partition_and_move_when_their_day_comes(
    journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any], fake_clock: Any
) -> None:
    later = START + 20 * 86_400_000_000
    put(journal, ReadingBatch(received_us=START, samples=live(3, time_us=later)))
    writer.drain_all()
    assert count(db, "sample_default") == 3
    fake_clock.advance(20 * 86_400)
    put(journal, ReadingBatch(received_us=later, samples=live(3, point0=3, time_us=later)))
    writer.drain_all()
    assert count(db, "sample_default") == 0
    assert count(db, "sample_20261011") == 5


def test_missing_values_are_absent(journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any]) -> None:
    samples = live(4)
    samples.value[1], samples.value[2] = np.nan, np.inf
    put(journal, ReadingBatch(received_us=START, samples=samples))
    writer.drain_all()
    assert count(db) == 2


def test_curve_labels_belong_to_their_day(journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any]) -> None:
    """Labels 23:45, 24:00 of D and 00:15 of D+1 in one segment: two rows; the view shows the labels."""
    put(journal, ReadingBatch(received_us=START, curves=[curve([1.5, 2.5, 3.5], 94)]))
    writer.drain_all()
    value, quality = load_curve_range(db, DAY, DAY + timedelta(days=1), [1], [VOLTAGE])
    assert value.shape == (1, 192)
    assert np.flatnonzero(np.isfinite(value[0])).tolist() == [94, 95, 96]
    assert value[0, 94:97].tolist() == [1.5, 2.5, 3.5]
    assert quality[0, 94] == Quality.A
    assert quality[0, 0] == Quality.M
    rows = db.execute(
        "SELECT to_char(time AT TIME ZONE INTERVAL '08:00', 'DD HH24:MI'), point, quantity, source, value, quality"
        " FROM curve ORDER BY time"
    ).fetchall()
    assert [r[0] for r in rows] == ["21 23:45", "22 00:00", "22 00:15"]
    assert rows[0][1:] == (1, VOLTAGE, Source.CURVE, 1.5, 0)


def test_a_different_value_for_a_filled_slot_is_kept_beside_it(
    journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any]
) -> None:
    put(journal, ReadingBatch(received_us=START, curves=[curve([220.0, 221.0], 0)]))
    writer.drain_all()
    for _ in range(2):
        put(journal, ReadingBatch(received_us=START, curves=[curve([220.0, 229.0, 222.0], 0)]))
        writer.drain_all()
    value, quality = load_curve_day(db, DAY, [1], [VOLTAGE])
    assert value[0, :3].tolist() == [220.0, 221.0, 222.0]
    assert quality[0, :3].tolist() == [Quality.A, Quality.S, Quality.A]
    beside = load_samples(db, [1], [VOLTAGE], START, START + 86_400_000_000, Source.CURVE)
    assert (beside.value.tolist(), beside.quality.tolist()) == ([229.0], [Quality.S])
    assert beside.time_us.tolist() == [START + 2 * SLOT]


@pytest.mark.parametrize("values", [[12345678.1234, 12345679.0001], [99999999.9999, 0.0, 0.0001]])
def test_registers_come_back_exactly(
    journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any], values: list[float]
) -> None:
    """Twelve digits, and a roll-over that no longer fits four bytes; merged afterwards as well."""
    put(journal, ReadingBatch(received_us=START, curves=[curve(values, 3, item=ENERGY)]))
    writer.drain_all()
    put(journal, ReadingBatch(received_us=START, curves=[curve([0.01], 9, item=ENERGY)]))
    writer.drain_all()
    value, _ = load_curve_day(db, DAY, [1], [ENERGY])
    assert value[0, 3 : 3 + len(values)].tolist() == [
        round(v, quantity("forward_active_total").decimals) for v in values
    ]
    assert value[0, 9] == 0.01


def column_of(db: psycopg.Connection[Any]) -> tuple[str, int]:
    """Where the numbers of the only curve day stand, and with how many decimals."""
    row = db.execute(
        "SELECT CASE WHEN short IS NOT NULL THEN 'short' WHEN vals IS NOT NULL THEN 'vals' ELSE 'wide' END, decimals"
        " FROM curve_day"
    ).fetchone()
    assert row is not None
    return str(row[0]), int(row[1])


@pytest.mark.parametrize(
    ("values", "stands"),
    [
        ([12345678.12, 12345679.34], ("short", 2)),
        ([-327.67, 327.67, 0.0], ("short", 2)),
        ([-327.67, 327.68, 0.0], ("vals", 2)),
        ([12345678.1234, 12345684.6769], ("vals", 4)),
        ([0.0, 0.0], ("short", 0)),
        ([300.0, 1200.0], ("short", 0)),
        ([99999999.9999, 0.0], ("wide", 4)),
    ],
)
def test_a_day_stands_in_the_narrowest_numbers(
    journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any], values: list[float], stands: tuple[str, int]
) -> None:
    put(journal, ReadingBatch(received_us=START, curves=[curve(values, 0, item=ENERGY)]))
    writer.drain_all()
    assert column_of(db) == stands
    value, _ = load_curve_day(db, DAY, [1], [ENERGY])
    assert value[0, : len(values)].tolist() == values
    assert np.isnan(value[0, len(values) :]).all()
    shown = db.execute("SELECT value FROM curve ORDER BY time").fetchall()
    assert [v for (v,) in shown] == values


def test_a_day_grows_out_of_its_numbers(journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any]) -> None:
    """Two decimals in two bytes, then four decimals, then a span for four and for eight bytes."""
    for slot, (value, stands) in enumerate(
        [(1.25, ("short", 2)), (1.2501, ("short", 4)), (100_000.0, ("vals", 4)), (900_000_000.0, ("wide", 4))]
    ):
        put(journal, ReadingBatch(received_us=START, curves=[curve([value], slot, item=ENERGY)]))
        writer.drain_all()
        assert column_of(db) == stands
    read, _ = load_curve_day(db, DAY, [1], [ENERGY])
    assert read[0, :4].tolist() == [1.25, 1.2501, 100_000.0, 900_000_000.0]


def test_days_of_every_width_and_quality_are_read_in_one_pass(
    journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any]
) -> None:
    rng = np.random.default_rng(5)
    scale = np.array([1.0, 1_000.0, 900_000_000.0])[np.arange(60) % 3]
    value = np.round(rng.random((60, 96)) * scale[:, None], 4)
    value[rng.random((60, 96)) < 0.1] = np.nan
    quality = np.where((np.arange(60) % 2 == 0)[:, None] & np.isfinite(value), Quality.S, Quality.A).astype(np.int16)
    block = CurveBlock(
        np.arange(1, 61, dtype=np.int32), np.full(60, ENERGY, np.int16), np.full(60, START + SLOT, np.int64), 900,
        value, quality,
    )  # fmt: skip
    put(journal, ReadingBatch(received_us=START, curves=[block]))
    writer.drain_all()
    read, judged = load_curve_day(db, DAY, range(1, 61), [ENERGY])
    assert np.array_equal(read, value, equal_nan=True)
    assert np.array_equal(judged, np.where(np.isfinite(value), quality, Quality.M))


def test_cold_curve_days_are_packed_and_still_take_late_slots(
    journal: Journal, writer: JournalWriter, database: Database, db: psycopg.Connection[Any]
) -> None:
    points = np.arange(1, 2001, dtype=np.int32)
    block = CurveBlock(
        points, np.full(len(points), VOLTAGE, np.int16), np.full(len(points), START + SLOT, np.int64), 900,
        np.tile(220 + np.arange(90) / 10, (len(points), 1)), np.zeros((len(points), 90), np.int16),
    )  # fmt: skip
    put(journal, ReadingBatch(received_us=START, curves=[block]))
    writer.drain_all()

    def size() -> int:
        row = db.execute("SELECT pg_relation_size('curve_day_20260921')").fetchone()
        assert row is not None
        return int(row[0])

    hot = size()
    assert pack_cold(database, DAY + timedelta(days=7), 7) == []
    with database.connect() as reading, pytest.MonkeyPatch.context() as patch:
        patch.setattr("fuhe.storage.partitions.LOCK_TIMEOUT", "10ms")
        reading.execute("SELECT 1 FROM curve_day_20260921 LIMIT 1")  # in a transaction: packing must wait for it
        assert pack_cold(database, DAY + timedelta(days=8), 7) == []
    assert pack_cold(database, DAY + timedelta(days=8), 7) == ["curve_day_20260921"]
    assert pack_cold(database, DAY + timedelta(days=8), 7) == []
    assert size() < 0.6 * hot
    put(journal, ReadingBatch(received_us=START, curves=[curve([231.0], 95)]))
    writer.drain_all()
    value, _ = load_curve_day(db, DAY, [1, 2000], [VOLTAGE])
    assert value[0, [0, 89, 95]].tolist() == [220.0, 228.9, 231.0]
    assert value[1, :90].tolist() == block.value[1999].tolist()


def test_what_is_off_the_grid_becomes_samples(
    journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any]
) -> None:
    odd = curve([1.0, 2.0], 0, day_us=START + 7_000_000)
    huge = curve([1e300], 5)
    put(journal, ReadingBatch(received_us=START, curves=[odd, huge]))
    writer.drain_all()
    assert count(db, "curve_day") == 0
    found = load_samples(db, [1], [VOLTAGE], START, START + 86_400_000_000)
    assert found.value.tolist() == [1.0, 2.0, 1e300]


def slow_merge(state: dict[tuple[int, int], tuple[float, int]], point: int, slot: int, value: float, q: int) -> None:
    """The rule of storage/curves.py, one value at a time. Slots count from 00:15 of DAY."""
    old = state.get((point, slot))
    if old is None:
        state[point, slot] = (value, q)
    elif old[0] != value or q == Quality.S:
        state[point, slot] = (old[0], Quality.S)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_merging_equals_a_slow_reference(
    journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    expected: dict[tuple[int, int], tuple[float, int]] = {}
    for _ in range(25):
        batches = []
        for _ in range(int(rng.integers(1, 5))):
            k, m = int(rng.integers(1, 4)), int(rng.integers(1, 30))
            point = rng.integers(1, 4, k).astype(np.int32)
            first = rng.integers(-20, 280, k)
            value = np.round(rng.choice([220.0, 220.0, 220.0, 231.5], (k, m)) + (rng.random((k, m)) < 0.1), 1)
            value[rng.random((k, m)) < 0.2] = np.nan
            q = rng.choice([0, 0, 0, 0, Quality.E1, Quality.S], (k, m)).astype(np.int16)
            start = START + (first + 1) * SLOT
            block = CurveBlock(point, np.full(k, VOLTAGE, np.int16), start.astype(np.int64), 900, value, q)
            batches.append(ReadingBatch(received_us=START, curves=[block]))
            for i in range(k):
                for j in range(m):
                    if np.isfinite(value[i, j]):
                        slow_merge(expected, int(point[i]), int(first[i]) + j, float(value[i, j]), int(q[i, j]))
        put(journal, *batches)
        if rng.random() < 0.5:
            writer.drain_all()
    writer.drain_all()
    value, quality = load_curve_range(db, DAY - timedelta(days=1), DAY + timedelta(days=4), [1, 2, 3], [VOLTAGE])
    found = {
        (p + 1, int(s) - 96): (float(value[p, s]), int(quality[p, s]))
        for p in range(3)
        for s in np.flatnonzero(np.isfinite(value[p]))
    }
    assert found == expected


def test_events_and_parameters_once(journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any]) -> None:
    event = DeviceEvent(device=7, point=None, time_us=START, end_us=None, code="1E00", data={"phase": "A"})
    again = ParameterValue(device=7, item="04000101", value="15", time_us=START + 1)
    changed = ParameterValue(device=7, item="04000101", value="60", time_us=START + 2)
    for _ in range(2):
        put(journal, ReadingBatch(received_us=START, events=[event, event], parameters=[again, changed]))
        writer.drain_all()
    assert count(db, "event") == 1
    assert db.execute("SELECT value FROM parameter ORDER BY time").fetchall() == [("15",), ("60",)]


def test_dirty_days_are_handed_out_once_and_again_after_new_data(
    journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any]
) -> None:
    put(journal, ReadingBatch(received_us=START, samples=live(2, time_us=START + 1)))
    writer.drain_all()
    ticket, days = take_dirty_days(db)
    assert sorted((d.point, d.day) for d in days) == [(1, DAY), (2, DAY)]
    assert take_dirty_days(db) == ("", [])
    put(journal, ReadingBatch(received_us=START, samples=live(1, time_us=START + 2)))
    writer.drain_all()
    finish_dirty_days(db, ticket, days)
    _, left = take_dirty_days(db)
    assert [(d.point, d.day) for d in left] == [(1, DAY)]


def test_one_poisonous_record_does_not_block_the_others(
    journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any]
) -> None:
    bad = ParameterValue(device=1, item="x\0y", value="1", time_us=START)
    put(journal, ReadingBatch(received_us=START, samples=live(5)))
    put(journal, ReadingBatch(received_us=START, parameters=[bad]))
    journal.append(b"not a record").result(10)
    put(journal, ReadingBatch(received_us=START, samples=live(5, point0=6)))
    writer.drain_all()
    assert count(db) == 10
    assert writer.counters.rejected == 2
    assert len(list((journal.directory / "rejected").iterdir())) == 2
    assert journal.state().depth_records == 0


def test_an_hour_without_database_loses_and_doubles_nothing(
    tmp_path: Path, database: Database, db: psycopg.Connection[Any], server_url: Callable[[str], str], fake_clock: Any
) -> None:
    """Connections refused and killed for a simulated hour while readings arrive; pauses are the writer's own."""
    with psycopg.connect(server_url("fuhe"), autocommit=True) as admin, Journal(tmp_path / "j") as journal:
        pauses: list[float] = []
        back = threading.Event()

        def allow(yes: bool) -> None:
            admin.execute(f"ALTER ROLE fuhe_app {'LOGIN' if yes else 'NOLOGIN'}".encode())
            if not yes:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE usename = 'fuhe_app' AND datname = current_database()"
                )

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            fake_clock.advance(seconds)
            put(journal, ReadingBatch(received_us=START, samples=live(10, time_us=START + len(pauses) * SLOT)))
            if sum(pauses) >= 3600 and not back.is_set():
                allow(True)
                back.set()

        writer = JournalWriter(database, journal, now_us=fake_clock.now_us, pause=pause)
        put(journal, ReadingBatch(received_us=START, samples=live(10)))
        writer.drain_all()
        allow(False)
        try:
            put(journal, ReadingBatch(received_us=START, samples=live(10, point0=100)))
            thread = threading.Thread(target=writer.run)
            thread.start()
            assert back.wait(60)
            while journal.state().depth_records and thread.is_alive():
                thread.join(0.02)
            writer.stop()
            thread.join(30)
        finally:
            allow(True)
        assert max(pauses) == 30.0
        with database.connect(autocommit=True) as connection:
            assert count(connection) == 20 + 10 * len(pauses)
        assert writer.counters.samples == 20 + 10 * len(pauses)
        assert writer.counters.repeated == 0


def test_a_commit_whose_answer_was_lost_is_not_written_twice(
    journal: Journal, writer: JournalWriter, database: Database, db: psycopg.Connection[Any], fake_clock: Any
) -> None:
    """The journal still holds what the database committed (killed in between): a new writer skips it."""
    put(
        journal,
        ReadingBatch(
            received_us=START, events=[DeviceEvent(device=1, point=1, time_us=START, end_us=None, code="1", data={})]
        ),
    )
    writer.drain_all()
    journal.close()
    segment = next(journal.directory.glob("*.seg"))
    assert segment.stat().st_size
    with Journal(journal.directory) as again:
        second = JournalWriter(database, again, now_us=fake_clock.now_us)
        assert second.drain_all() == 0
        second.close()
        assert again.state().depth_records == 0


def test_a_restored_older_journal_is_written_again(
    tmp_path: Path, database: Database, db: psycopg.Connection[Any], fake_clock: Any
) -> None:
    import shutil

    place, copy = tmp_path / "j", tmp_path / "copy"
    Journal(place).close()
    shutil.copytree(place, copy)
    with Journal(place) as journal:
        put(journal, ReadingBatch(received_us=START, samples=live(5)))
        first = JournalWriter(database, journal, now_us=fake_clock.now_us)
        first.drain_all()
        first.close()
    with Journal(copy) as journal:
        put(journal, ReadingBatch(received_us=START, samples=live(5, point0=6)))
        second = JournalWriter(database, journal, now_us=fake_clock.now_us)
        assert second.drain_all() == 1
        second.close()
    assert count(db) == 10


def test_partitions_ahead_and_retention(database: Database, db: psycopg.Connection[Any]) -> None:
    make_ahead(database, DAY, days=2)
    make_ahead(database, DAY - timedelta(days=40), days=0)
    with database.connect("owner") as owner:
        owner.execute(
            "CREATE TABLE curve_day_202608 PARTITION OF curve_day FOR VALUES FROM ('2026-08-13') TO ('2026-09-01')"
        )
    assert drop_old(database, DAY, keep_days=30) == [
        "sample_20260812", "curve_day_20260812", "curve_arrival_20260812", "final_day_20260812",
    ]  # fmt: skip
    assert drop_old(database, DAY, keep_days=21) == []
    assert drop_old(database, DAY, keep_days=20) == [
        "curve_day_202608", "vee_version_202608", "checked_day_202608",
    ]  # fmt: skip
    names = db.execute(
        "SELECT relname FROM pg_class WHERE relname ~ '^sample_2' AND relkind = 'r' ORDER BY 1"
    ).fetchall()
    assert [n for (n,) in names] == ["sample_20260921", "sample_20260922", "sample_20260923"]


def test_small_batches(journal: Journal, writer: JournalWriter, db: psycopg.Connection[Any]) -> None:
    put(journal, ReadingBatch(received_us=START, samples=samples_from_rows([])), ReadingBatch(received_us=START))
    put(journal, ReadingBatch(received_us=START, samples=samples_from_rows([(START, 1, VOLTAGE, 1.0, 0, 1)])))
    assert writer.drain_all() == 2
    assert count(db) == 1
