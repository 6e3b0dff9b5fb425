"""Storage: readings from the journal to committed rows beside `psql \\copy`, and the physical form of curve days.

A durable embedded server (fsync on) in a temporary directory; the client programs are the wheel's own. Both ways write
the same rows, in the order of live cycles, into a table that is partitioned by day and keyed like `sample`. Figures are
medians; the peer is measured in the same run, alternating with ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from statistics import median

import numpy as np
import psycopg
from psycopg import sql

from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, ReadingBatch, Samples
from fuhe.model.times import day_start_us, from_us
from fuhe.storage.batches import encode_batches
from fuhe.storage.copying import PG_EPOCH_DAY, RowType, array, copy_in, copy_out
from fuhe.storage.database import Database
from fuhe.storage.journal import Journal
from fuhe.storage.migrate import migrate
from fuhe.storage.partitions import pack_cold
from fuhe.storage.readings import load_curve_day
from fuhe.storage.samples import COLUMNS, sorted_once
from fuhe.storage.server import EmbeddedServer
from fuhe.storage.writer import JournalWriter

Row = dict[str, object]
DAY = date(2026, 9, 21)
START = day_start_us(DAY)
VOLTAGE = quantity("voltage_a").id
REGISTER = quantity("forward_active_total").id
RECORD_ROWS = 2000  # samples in one journal record: about what 20 ms gather at 100 k values/s


def _row(name: str, value: float, unit: str, peer: str = "", ratio: float | None = None, target: str = "") -> Row:
    return {
        "bench": "storage", "name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio, "target": target,
    }  # fmt: skip


@contextmanager
def _opened() -> Iterator[tuple[EmbeddedServer, Database, Path]]:
    home = Path(tempfile.mkdtemp(prefix="fuhe-bench-"))
    home.chmod(0o711)
    try:
        with EmbeddedServer(home / "pg") as server:
            migrate(server.conninfo("fuhe_owner"))
            yield server, Database(server.conninfo("fuhe_app"), server.conninfo("fuhe_owner")), home
    finally:
        shutil.rmtree(home)


def _samples(rows: int) -> Samples:
    """Live cycles of 10,000 points (or fewer): every cycle all points, five seconds later the next."""
    points = min(10_000, rows // 5)
    cycle = np.arange(rows) // points
    return Samples(
        START + cycle.astype(np.int64) * 5_000_000,
        (np.arange(rows) % points + 1).astype(np.int32),
        np.full(rows, VOLTAGE, np.int16),
        np.round(220 + np.random.default_rng(1).normal(0, 3, rows), 1),
        np.zeros(rows, np.int16),
        np.ones(rows, np.int16),
    )


def _slice(samples: Samples, a: int, b: int) -> Samples:
    names = ("time_us", "point", "quantity", "value", "quality", "source")
    return Samples(*(getattr(samples, n)[a:b] for n in names))


def _through_the_journal(database: Database, journal: Journal, samples: Samples) -> float:
    """Seconds from the first batch handed over to everything committed; the writer drains while batches arrive."""
    writer = JournalWriter(database, journal, now_us=lambda: START)
    writer.drain()
    begun = time.perf_counter()
    waiting = []
    for a in range(0, len(samples), RECORD_ROWS):
        batch = ReadingBatch(received_us=START, samples=_slice(samples, a, a + RECORD_ROWS))
        waiting.append(journal.append(encode_batches([batch])))
    for future in waiting:
        future.result()
    writer.drain_all()
    taken = time.perf_counter() - begun
    writer.close()
    return taken


def _files(home: Path, samples: Samples) -> dict[str, Path]:
    """The rows as psql takes them, in their order of arrival: CSV and binary."""
    csv, binary = home / "rows.csv", home / "rows.bin"
    stamp = {int(t): from_us(int(t)).isoformat() for t in np.unique(samples.time_us)}
    received = from_us(START).isoformat()
    with csv.open("w") as file:
        columns = (getattr(samples, name).tolist() for name in ("time_us", "point", "quantity", "value"))
        for t, p, q, v in zip(*columns, strict=True):
            file.write(f"{stamp[t]},{received},{v},{p},{q},1,0\n")
    rows, _ = sorted_once(samples, np.full(len(samples), START, np.int64))
    back = np.lexsort((rows["point"], rows["time"]))  # order of arrival again
    binary.write_bytes(b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows[back].tobytes() + b"\xff\xff")
    for path in (csv, binary):
        path.chmod(0o644)
    return {"CSV": csv, "binary": binary}


def _psql(server: EmbeddedServer, file: Path, form: str) -> float:
    command = f"\\copy sample ({', '.join(COLUMNS)}) FROM '{file}' (FORMAT {form.lower()})"
    begun = time.perf_counter()
    subprocess.run(
        [server.bin_dir / "psql", "-q", "-v", "ON_ERROR_STOP=1", server.conninfo("fuhe_owner"), "-c", command],
        check=True,
        env={**os.environ, "TZ": "UTC"},
    )
    return time.perf_counter() - begun


def _empty(server: EmbeddedServer) -> None:
    with psycopg.connect(server.conninfo("fuhe_owner"), autocommit=True) as owner:
        owner.execute("TRUNCATE sample, dirty_day")


def _written(server: EmbeddedServer, database: Database, home: Path, rows: int, repeats: int) -> list[Row]:
    samples = _samples(rows)
    files = _files(home, samples)
    times: dict[str, list[float]] = {"fresh": [], "again": [], "CSV": [], "binary": []}
    with database.connect(autocommit=True) as connection:
        connection.execute("SELECT ensure_partition('sample', %s)", (DAY,))
    with Journal(home / "journal") as journal:
        for _ in range(repeats):
            for form, file in files.items():
                _empty(server)
                times[form].append(_psql(server, file, form))
            _empty(server)
            times["fresh"].append(_through_the_journal(database, journal, samples))
            times["again"].append(_through_the_journal(database, journal, samples))
        with database.connect() as connection:
            counted = connection.execute("SELECT count(*) FROM sample").fetchone()
            assert counted == (rows,), counted
    speed = {name: rows / median(values) for name, values in times.items()}
    out = []
    for name, title, target in (
        ("fresh", "fresh rows, journal to committed", 0.8),
        ("again", "the same rows sent again, journal to committed", 0.4),
    ):
        for form in files:
            out.append(
                _row(
                    title, speed[name], "rows/s", f"psql \\copy {form} of the same rows, {speed[form]:,.0f}/s",
                    speed[name] / speed[form], f"≥ {target}",
                )
            )  # fmt: skip
    return out


def _forms(server: EmbeddedServer, points: int) -> list[Row]:
    """One day of 96-slot curves (a voltage of one decimal) in four array types: size, writing, merging, reading."""
    n = 96
    rng = np.random.default_rng(2)
    number = np.round(2200 + rng.normal(0, 30, (points, n))).astype(np.int64)
    out = []
    with psycopg.connect(server.conninfo("fuhe_owner"), autocommit=True) as connection, connection.cursor() as cursor:
        for kind, title in (
            ("float4", "real[]"),
            ("int2", "int2[] scaled"),
            ("int4", "int4[] scaled"),
            ("int8", "int8[] scaled"),
        ):
            layout = RowType(
                [("day", "date"), ("point", "int4"), ("quantity", "int2"), ("base", "int8"), ("vals", f"{kind}[{n}]")]
            )
            columns = ("day", "point", "quantity", "base", "vals")
            table = sql.Identifier("form_" + kind)
            for name in (table, sql.Identifier("part")):
                cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
            shape = "(day date, point int4, quantity int2, base int8, vals {}[]"
            make = sql.SQL("CREATE TABLE {} " + shape + ", PRIMARY KEY (day, quantity, point)) WITH (fillfactor = 50)")
            cursor.execute(make.format(table, sql.SQL(kind)))
            rows = layout.rows(points)
            rows["day"] = (DAY - date(1970, 1, 1)).days - PG_EPOCH_DAY
            rows["point"], rows["quantity"] = np.arange(points), VOLTAGE
            array(rows, "vals")[...] = number / 10 if kind == "float4" else number
            begun = time.perf_counter()
            copy_in(cursor, table, columns, rows)
            write_s = time.perf_counter() - begun
            size = cursor.execute(
                sql.SQL("SELECT pg_total_relation_size({}::regclass)").format("form_" + kind)
            ).fetchone()
            assert size is not None
            part = sql.SQL("CREATE UNLOGGED TABLE part " + shape + ")")
            cursor.execute(part.format(sql.SQL(kind)))
            begun = time.perf_counter()
            for _ in range(3):  # three hours: each time the whole row is written back, as the merge does
                copy_in(cursor, sql.SQL("part"), columns, rows)
                cursor.execute(
                    sql.SQL(
                        "UPDATE {} c SET vals = p.vals FROM part p WHERE c.day = p.day AND c.quantity = p.quantity"
                        " AND c.point = p.point"
                    ).format(table)
                )
                cursor.execute("TRUNCATE part")
            merge_s = (time.perf_counter() - begun) / 3
            begun = time.perf_counter()
            read = layout.read(copy_out(cursor, sql.SQL("SELECT * FROM {}").format(table)))
            values = array(read, "vals").astype(np.float64)
            read_s = time.perf_counter() - begun
            assert values.shape == (points, n)
            per_value = size[0] / (points * n)
            out += [
                _row(f"{title}: size with key, fill factor 50", per_value, "bytes/value"),
                _row(f"{title}: a day written", points * n / write_s, "values/s"),
                _row(f"{title}: rows merged (4 new slots or 96, the row is written whole)", points / merge_s, "rows/s"),
                _row(f"{title}: a day read as one array", points * n / read_s, "values/s"),
            ]
            cursor.execute(sql.SQL("DROP TABLE {}, part").format(table))
    return out


def _curves(database: Database, home: Path, points: int) -> list[Row]:
    """The product's own way: registers of twelve digits, whole days and hourly parts through the journal, read back."""
    n = 96
    rng = np.random.default_rng(3)
    register = np.round(10_000_000 + np.cumsum(rng.random((points, n)), axis=1), 4)

    def block(a: int, b: int) -> CurveBlock:
        return CurveBlock(
            np.arange(1, points + 1, dtype=np.int32),
            np.full(points, REGISTER, np.int16),
            np.full(points, START + (a + 1) * 900_000_000, np.int64),
            900,
            register[:, a:b].copy(),
            np.zeros((points, b - a), np.int16),
        )

    def through(journal: Journal, a: int, b: int) -> float:
        writer = JournalWriter(database, journal, now_us=lambda: START)
        begun = time.perf_counter()
        journal.append(encode_batches([ReadingBatch(received_us=START, curves=[block(a, b)])])).result()
        writer.drain_all()
        taken = time.perf_counter() - begun
        writer.close()
        return taken

    total = "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'curve_day'::regclass"
    with Journal(home / "curves") as journal:
        hourly = [through(journal, h * 4, h * 4 + 4) for h in range(24)]
        with database.connect() as connection:
            begun = time.perf_counter()
            value, _ = load_curve_day(connection, DAY, range(1, points + 1), [REGISTER])
            read_s = time.perf_counter() - begun
            size = connection.execute(
                "SELECT sum(pg_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'curve_day'::regclass"
            ).fetchone()
        assert np.array_equal(value, register)
        with psycopg.connect(database.conninfo("owner"), autocommit=True) as owner:
            owner.execute("TRUNCATE curve_day, dirty_day")
        whole = through(journal, 0, n)
        with database.connect() as connection:
            once = connection.execute(total).fetchone()
        pack_cold(database, DAY + timedelta(days=30), 7)
        with database.connect() as connection:
            packed = connection.execute(total).fetchone()
            value, _ = load_curve_day(connection, DAY, range(1, points + 1), [REGISTER])
        assert np.array_equal(value, register)
    assert size is not None
    assert once is not None
    assert packed is not None
    return [
        _row("curve days of registers, journal to committed, whole days", points * n / whole, "values/s"),
        _row("curve days of registers, hourly parts merged, journal to committed", points / median(hourly), "rows/s"),
        _row("curve days of registers, a day loaded as one array, bit for bit", points * n / read_s, "values/s"),
        _row("curve days of registers, size with key, written once", float(once[0]) / (points * n), "bytes/value"),
        _row("curve days of registers, size with key, packed", float(packed[0]) / (points * n), "bytes/value"),
        _row("curve days of registers, heap after 24 hourly merges", float(size[0]) / (points * n), "bytes/value"),
    ]


def run(quick: bool = False) -> list[Row]:
    """Rows of figures; ratios are of this run."""
    with _opened() as (server, database, home):
        rows = _written(server, database, home, 100_000 if quick else 1_000_000, 1 if quick else 3)
        rows += _forms(server, 2_000 if quick else 40_000)
        rows += _curves(database, home, 2_000 if quick else 20_000)
    return rows
