"""The same schema and write path on a server with TimescaleDB, named by FUHE_TEST_TIMESCALE_DSN (a superuser's DSN)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from fuhe.model.readings import CurveBlock, ReadingBatch, Samples
from fuhe.model.times import day_start_us
from fuhe.storage.arrivals import load_arrivals
from fuhe.storage.batches import encode_batches
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database
from fuhe.storage.journal import Journal
from fuhe.storage.partitions import drop_old, make_ahead, set_policies
from fuhe.storage.readings import load_curve_day, load_samples
from fuhe.storage.writer import JournalWriter

DSN = os.environ.get("FUHE_TEST_TIMESCALE_DSN", "")
DAY = date(2026, 9, 21)
START = day_start_us(DAY)

pytestmark = [
    pytest.mark.needs_timescaledb,
    pytest.mark.skipif(not DSN, reason="set FUHE_TEST_TIMESCALE_DSN to a superuser's DSN of a server with TimescaleDB"),
]


@pytest.fixture
def config(tmp_path: Path) -> Iterator[StorageConfig]:
    name = "fuhe_test_timescale"
    with psycopg.connect(DSN, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        admin.execute(f"CREATE DATABASE {name}".encode())
        dsn = make_conninfo(DSN, dbname=name)
        with psycopg.connect(dsn, autocommit=True) as inside:
            inside.execute("CREATE EXTENSION timescaledb")
        yield StorageConfig(data_dir=str(tmp_path), dsn=dsn, admin_dsn=dsn)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def batch(value: float, first_slot: int = 0) -> ReadingBatch:
    n = 50
    samples = Samples(
        np.full(n, START, np.int64), np.arange(1, n + 1, dtype=np.int32), np.ones(n, np.int16), np.full(n, value),
        np.zeros(n, np.int16), np.ones(n, np.int16),
    )  # fmt: skip
    curve = CurveBlock(
        np.array([1, 2], np.int32), np.array([1, 1], np.int16),
        np.full(2, START + (first_slot + 1) * 900_000_000, np.int64), 900, np.full((2, 4), value),
        np.zeros((2, 4), np.int16),
    )  # fmt: skip
    return ReadingBatch(received_us=START, samples=samples, curves=[curve])


def test_hypertables_take_the_same_readings(config: StorageConfig, tmp_path: Path) -> None:
    with Database.open(config) as database, Journal(tmp_path / "j") as journal:
        assert database.timescale
        writer = JournalWriter(database, journal, now_us=lambda: START)
        writer.marks = frozenset({1})
        for value, slot in ((220.0, 0), (220.0, 0), (221.0, 2)):
            journal.append(encode_batches([batch(value, slot)])).result(10)
            writer.drain_all()
        writer.close()
        make_ahead(database, DAY)
        assert drop_old(database, DAY + timedelta(days=3000), 1) == []
        set_policies(database, config)
        set_policies(database, config)
        with database.connect("owner", autocommit=True) as owner:
            tables = owner.execute(
                "SELECT hypertable_name FROM timescaledb_information.hypertables ORDER BY 1"
            ).fetchall()
            assert [t for (t,) in tables] == ["curve_arrival", "curve_day", "sample"]
            policies: list[Any] = owner.execute(
                "SELECT proc_name FROM timescaledb_information.jobs WHERE hypertable_name IS NOT NULL ORDER BY 1"
            ).fetchall()
            assert len(policies) == 6
            for table in ("sample", "curve_day", "curve_arrival"):
                owner.execute("SELECT compress_chunk(c, if_not_compressed => true) FROM show_chunks(%s) c", (table,))
        with database.connect(autocommit=True) as connection:
            assert len(load_samples(connection, range(1, 51), [1], START, START + 1)) == 50
            values, quality = load_curve_day(connection, DAY, [1, 2], [1])
            assert values[0, :6].tolist() == [220.0] * 4 + [221.0] * 2
            assert quality[0, :6].tolist() == [0, 0, 1, 1, 0, 0]
        late = JournalWriter(database, journal, now_us=lambda: START)
        late.marks = frozenset({1})
        journal.append(encode_batches([batch(220.0), batch(222.0, 10)])).result(10)
        late.drain_all()
        with database.connect(autocommit=True) as connection:
            arrived = load_arrivals(connection, DAY, [1, 2, 3], 1)
            assert np.flatnonzero(arrived[1]).tolist() == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13] and not arrived[2].any()
        assert (late.counters.samples, late.counters.repeated) == (0, 100)
        journal.append(encode_batches([batch(222.0, 90)])).result(10)
        late.drain_all()
        late.close()
        with database.connect(autocommit=True) as connection:
            values, _ = load_curve_day(connection, DAY, [1, 2], [1])
        assert values[1, [0, 5, 90, 93]].tolist() == [220.0, 221.0, 222.0, 222.0]  # merged into a compressed day
