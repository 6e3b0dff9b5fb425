"""After a restart the lowest power of the last 15 minutes is still known, as far as it was measured."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fuhe.control.ports import PowerWindow
from fuhe.daemon.config import Config
from fuhe.daemon.livepower import SEED_S, LivePower, seed_rest
from fuhe.daemon.runtime import Daemon
from fuhe.model.devices import Device, Point
from fuhe.model.quantities import quantity
from fuhe.model.readings import ReadingBatch, Samples, samples_from_rows
from fuhe.model.times import US
from fuhe.storage.batches import encode_batches
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.devices import apply_devices
from fuhe.storage.journal import Journal
from fuhe.storage.writer import JournalWriter

POWER, GROUP, VOLTS = (quantity(n).id for n in ("active_power_total", "group_power", "voltage_a"))
NOW = 1_790_000_000_000_000
MIN = 60 * US
METER = Device(
    id=7, name="m", link="l", profile="dlt645-2007-3p4w", address="000000000001",
    points=(Point(id=1, name="a", ct_ratio=Decimal(10)),),
)  # fmt: skip


def powers(*rows: tuple[int, float], point: int = 1, source: int = 1) -> Samples:
    return samples_from_rows([(NOW + minutes * MIN, point, POWER, kw, 0, source) for minutes, kw in rows])


def book(*live: tuple[int, float]) -> LivePower:
    made = LivePower(depth=8)
    made.set_devices([METER])
    made.feed(ReadingBatch(received_us=NOW, samples=powers(*live)))
    return made


def lowest(live: LivePower, now_us: int = NOW) -> float | None:
    return PowerWindow(*live.window(7, now_us - 15 * MIN, now_us)).good(now_us - 15 * MIN, now_us).min_kw


def test_what_was_measured_before_stands_before_what_is_measured_now() -> None:
    live = book((-1, 9.0), (0, 8.0))
    live.seed(powers((-14, 2.0), (-20, 1.0), (-1, 5.0), (-7, 3.0)), NOW)
    times, kw, _ = live.window(7, 0, NOW)
    assert [(t - NOW) // MIN for t in times.tolist()] == [-20, -14, -7, -1, 0]
    assert kw.tolist() == [10.0, 20.0, 30.0, 90.0, 80.0], "what is in the book already is kept"
    assert lowest(live) == 20.0
    live.feed(ReadingBatch(received_us=NOW, samples=powers((1, 7.0))))
    assert live.window(7, 0, NOW + MIN)[1].tolist()[-1] == 70.0


def test_the_book_stays_bounded_and_keeps_the_newest() -> None:
    live = book((0, 8.0))
    live.seed(powers(*((-n, float(n)) for n in range(1, 20))), NOW)
    assert live.window(7, 0, NOW)[1].tolist() == [70.0, 60.0, 50.0, 40.0, 30.0, 20.0, 10.0, 80.0]


def test_what_claims_to_lie_ahead_or_is_no_power_is_left_out() -> None:
    live = book()
    live.seed(samples_from_rows([(NOW + 1, 1, POWER, 1.0, 0, 1), (NOW, 1, VOLTS, 1.0, 0, 1)]), NOW)
    assert lowest(live) is None and lowest(live, NOW + MIN) is None


def test_nothing_measured_is_not_proven() -> None:
    live = book()
    live.seed(powers(), NOW)
    assert lowest(live) is None


def store(database: Database, directory: Path, *batches: ReadingBatch) -> None:
    with Journal(directory) as journal:
        journal.append(encode_batches(batches)).result(10)
        writer = JournalWriter(database, journal, now_us=lambda: NOW)
        writer.drain_all()
        writer.close()


@pytest.fixture
def meter(database: Database) -> Device:
    with database.connect("owner") as owner:
        apply_devices(owner, [METER])
    return METER


def test_only_the_last_minutes_are_read(database: Database, db: psycopg.Connection[Any], tmp_path: Path) -> None:
    rows = powers((-SEED_S // 60 - 1, 1.0), (-SEED_S // 60, 2.0), (-3, 4.0), (0, 3.0))
    store(database, tmp_path / "journal", ReadingBatch(received_us=NOW, samples=rows))
    live = book()
    live.seed(live.stored(db, NOW), NOW)
    assert live.window(7, 0, NOW)[1].tolist() == [20.0, 40.0, 30.0]
    empty = LivePower()
    empty.set_devices([])
    assert len(empty.stored(db, NOW)) == 0


class Clock:
    """NOW, and every sleep lets the writer take one step."""

    def __init__(self, writer: JournalWriter) -> None:
        self.writer, self.slept = writer, 0

    def now_us(self) -> int:
        return NOW

    def monotonic_s(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.slept += 1
        self.writer.drain()


async def test_what_only_the_journal_had_is_added_when_it_is_in_the_database(
    database: Database, tmp_path: Path
) -> None:
    with Journal(tmp_path / "journal") as journal:
        rows = powers((-5, 1.5))
        journal.append(encode_batches([ReadingBatch(received_us=NOW, samples=rows)])).result(10)
    with Journal(tmp_path / "journal") as journal:
        live = book((-1, 9.0))
        writer = JournalWriter(database, journal, now_us=lambda: NOW)
        clock = Clock(writer)
        assert lowest(live) == 90.0
        await asyncio.wait_for(seed_rest(live, database, lambda: writer.caught_up, clock), 20)
        assert clock.slept == 1 and lowest(live) == 15.0
        writer.close()


def test_the_daemon_knows_it_before_it_asks_anybody(
    database: Database, storage_config: StorageConfig, meter: Device, tmp_path: Path
) -> None:
    from fuhe.acquisition.io.clock import SystemClock

    now_us = SystemClock().now_us()
    rows = samples_from_rows([(now_us - n * MIN, 1, POWER, kw, 0, 1) for n, kw in ((14, 2.0), (4, 5.0), (3, 6.0))])
    store(database, tmp_path / "before", ReadingBatch(received_us=now_us, samples=rows))
    with Journal(tmp_path / "journal") as journal:
        writer = JournalWriter(database, journal)
        daemon = Daemon(Config(storage=storage_config), database, journal, writer)
        window = daemon.power(meter.id, now_us, 900)
        assert window.min_kw == 20.0 and window.last_kw == 60.0 and window.last_us == now_us - 3 * MIN
        writer.close()
