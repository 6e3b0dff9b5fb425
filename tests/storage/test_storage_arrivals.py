"""First arrivals of curve slots: kept once, the earliest, however often and in whatever pieces the data come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, ReadingBatch
from fuhe.model.times import day_start_us
from fuhe.storage.arrivals import LATEST, NEVER, codes_of, limits_s, load_arrivals
from fuhe.storage.batches import encode_batches
from fuhe.storage.database import Database
from fuhe.storage.journal import Journal
from fuhe.storage.partitions import drop_old
from fuhe.storage.writer import JournalWriter

DAY = date(2026, 9, 21)
START = day_start_us(DAY)
MIN = 60_000_000
SLOT = 15 * MIN
POWER, VOLTS = quantity("active_power_total").id, quantity("voltage_a").id


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal") as opened:
        yield opened


@pytest.fixture
def writer(database: Database, journal: Journal, fake_clock: Any) -> Iterator[JournalWriter]:
    made = JournalWriter(database, journal, now_us=fake_clock.now_us)
    made.marks = frozenset({POWER})
    yield made
    made.close()


def curve(slot: int, values: list[float], points: tuple[int, ...] = (1,), of: int = POWER) -> CurveBlock:
    """Slots `slot` .. (1 = 00:15) of the day, the same values for every point."""
    k, n = len(points), len(values)
    return CurveBlock(
        np.array(points, np.int32), np.full(k, of, np.int16), np.full(k, START + slot * SLOT, np.int64), 900,
        np.tile(np.array(values), (k, 1)), np.zeros((k, n), np.int16),
    )  # fmt: skip


def came(journal: Journal, minutes: float, *blocks: CurveBlock) -> None:
    """Blocks received so many minutes after the day began."""
    batch = ReadingBatch(received_us=START + round(minutes * MIN), curves=blocks)
    journal.append(encode_batches([batch])).result(10)


def test_every_slot_keeps_its_first_arrival(writer: JournalWriter, journal: Journal, db: Any) -> None:
    came(journal, 62, curve(1, [1.0, 2.0, 3.0, 4.0], (1, 2)))  # 00:15 .. 01:00 at 01:02
    came(journal, 70, curve(3, [3.0, 4.0, 5.0]))  # two of them again, 01:15 five minutes before its label
    writer.drain_all()
    came(journal, 300, curve(1, [9.0] * 8, (1, 2)))  # all again, other values, hours later
    writer.drain_all()
    found = load_arrivals(db, DAY, [2, 1, 7], POWER)
    assert found[1, :8].tolist() == [47, 32, 17, 2, 1, 121 + 8, 121 + 7, 120 + 6]
    assert found[0, :4].tolist() == [47, 32, 17, 2] and not found[2].any() and not found[:, 8:].any()


def test_an_outage_of_the_database_does_not_make_arrivals_later(
    writer: JournalWriter, journal: Journal, db: Any
) -> None:
    for hour in range(1, 4):  # three hours in the journal, drained in one go
        came(journal, 60 * hour + 2, curve(4 * hour - 3, [1.0, 2.0, 3.0, 4.0]))
    writer.drain_all()
    assert load_arrivals(db, DAY, [1], POWER)[0, :12].tolist() == [47, 32, 17, 2] * 3


def test_only_marks_are_kept_and_holes_have_never_arrived(writer: JournalWriter, journal: Journal, db: Any) -> None:
    came(journal, 40, curve(1, [1.0, np.nan]), curve(1, [1.0, 1.0], of=VOLTS))
    writer.drain_all()
    assert load_arrivals(db, DAY, [1], POWER)[0, :2].tolist() == [25, NEVER]
    assert db.execute("SELECT count(*) FROM curve_arrival").fetchone() == (1,)
    assert db.execute("SELECT tableoid::regclass::text FROM curve_arrival").fetchone() == ("curve_arrival_20260921",)


def test_arrivals_go_with_their_day(writer: JournalWriter, journal: Journal, db: Any, database: Database) -> None:
    came(journal, 40, curve(1, [1.0]))
    writer.drain_all()
    assert "curve_arrival_20260921" in drop_old(database, date(2027, 9, 21), 30)
    assert db.execute("SELECT count(*) FROM curve_arrival").fetchone() == (0,)


def test_a_day_outside_the_plausible_waits_in_the_default_partition(
    writer: JournalWriter, journal: Journal, db: Any
) -> None:
    block = curve(1, [1.0])
    far = CurveBlock(
        block.point, block.quantity, block.start_us + 400 * 86_400_000_000, 900, block.value, block.quality
    )
    came(journal, 40, far)
    writer.drain_all()
    assert db.execute("SELECT tableoid::regclass::text FROM curve_arrival").fetchone() == ("curve_arrival_default",)


@given(st.integers(-(10**6), 20 * 86_400))
def test_a_code_is_the_least_that_covers_the_delay(seconds: int) -> None:
    code = int(codes_of(np.array([seconds * 1_000_000]))[0])
    assert NEVER < code <= LATEST and seconds <= limits_s()[code]
    assert code == 1 or seconds > limits_s()[code - 1]


def test_the_limits_of_the_indicators_are_exact() -> None:
    edges = np.array([900, 901, 86_400, 86_401, 2 * 86_400, 2 * 86_400 + 1]) * 1_000_000
    got = limits_s()[codes_of(edges)]
    assert got[0] == 900 and got[1] > 900 and got[2] == 86_400 and got[3] > 86_400
    assert got[4] == 2 * 86_400 and got[5] > 2 * 86_400
    assert codes_of(np.array([900_000_001]))[0] == 16, "a microsecond late is late"
