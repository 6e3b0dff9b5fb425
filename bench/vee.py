"""VEE in the product: a late slot of one point, from committed raw to committed final values, beside bare writing.

A durable embedded server (fsync on) in a temporary directory. The peer writes the very rows of a version (head,
checked, final load) with prepared INSERTs and a commit, and nothing else, in the same run, alternating with ours.
Besides: whole chunks of points at once, what the daemon does at night.
"""

from __future__ import annotations

import asyncio
import time
from datetime import date, timedelta
from statistics import median
from typing import Any

import numpy as np
import psycopg

from fuhe.daemon.vee import CHUNK, VeeKeeper
from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, ReadingBatch
from fuhe.model.times import day_start_us
from fuhe.storage.batches import encode_batches
from fuhe.storage.database import Database
from fuhe.storage.journal import Journal
from fuhe.storage.writer import JournalWriter

from .storage import _opened

Row = dict[str, object]
DAY = date(2026, 9, 15)
NOW_US = day_start_us(DAY) + 40 * 3600 * 1_000_000
QUANTITIES = ("active_power_total", "forward_active_total", "voltage_a", "voltage_b", "voltage_c", "current_a")


class _Clock:
    def now_us(self) -> int:
        return NOW_US

    def monotonic_s(self) -> float:
        return NOW_US / 1e6

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _row(name: str, value: float, unit: str, peer: str = "", ratio: float | None = None, target: str = "") -> Row:
    return {
        "bench": "vee", "name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio, "target": target,
    }  # fmt: skip


def _block(
    point: int, name: str, day: date, value: np.ndarray[Any, Any], first: int = 0, points: int = 1
) -> CurveBlock:
    grid = np.broadcast_to(value, (points, len(value))).copy() if value.ndim == 1 else value
    return CurveBlock(
        np.arange(point, point + points, dtype=np.int32), np.full(points, quantity(name).id, np.int16),
        np.full(points, day_start_us(day) + (first + 1) * 900_000_000, np.int64), 900, grid,
        np.zeros(grid.shape, np.int16),
    )  # fmt: skip


def _values(name: str, kw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if name == "active_power_total":
        return kw.copy()
    if name == "forward_active_total":
        return np.round(5000 + np.cumsum(kw / 4, axis=-1), 2)
    return np.round((220 if name.startswith("voltage") else 12) + kw / 50, 1)


class _Plant:
    def __init__(self, database: Database, journal: Journal) -> None:
        self.journal, self.writer = journal, JournalWriter(database, journal, now_us=lambda: NOW_US)

    def put(self, *blocks: CurveBlock) -> None:
        self.journal.append(encode_batches([ReadingBatch(received_us=NOW_US, curves=list(blocks))])).result()
        self.writer.drain_all()


def _fill(plant: _Plant, points: int, days: int, hole: slice | None) -> None:
    rng = np.random.default_rng(4)
    for back in range(days):
        day = DAY - timedelta(days=back)
        kw = np.round(100 + 20 * np.sin(np.arange(96) / 7) + rng.normal(0, 3, (points, 96)), 2)
        blocks = []
        for name in QUANTITIES:
            value = _values(name, kw)
            if name == "forward_active_total":
                value += 3000.0 * (days - back)
            if hole is not None and back == 0:
                value[:, hole] = np.nan
            blocks.append(_block(1, name, day, value, points=points))
        plant.put(*blocks)


def _points(database: Database, points: int) -> None:
    with database.connect("app", autocommit=True) as connection:
        connection.execute("INSERT INTO device (id, name, link, profile, address) VALUES (1, 'd', 'l', 'p', 'a')")
        connection.execute(
            "INSERT INTO point (id, name, device_id, pn, contract_kva, nominal_v)"
            " SELECT n, 'p' || n, 1, n, 1000, 220 FROM generate_series(1, %s) n",
            (points,),
        )


def _bare(connection: psycopg.Connection[Any], rows: dict[str, list[Any]], version: int) -> float:
    """The rows of one version under another number, as prepared INSERTs and one commit."""
    begun = time.perf_counter()
    with connection.transaction():
        for table, found in rows.items():
            for row in found:
                values = [version if name == "version" else v for name, v in row.items()]
                marks, names = ", ".join(["%s"] * len(values)), ", ".join(row)
                query = f"INSERT INTO {table} ({names}) VALUES ({marks})"
                connection.execute(query.encode(), values, prepare=True)
        connection.execute(
            "UPDATE dirty_day SET taken = NULL WHERE point = -1 AND day = %s", (DAY,), prepare=True
        )  # the mark's row, as the judgement ends it
    return time.perf_counter() - begun


def _version(connection: psycopg.Connection[Any], point: int) -> dict[str, list[Any]]:
    """The rows of the newest version of the day."""
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        newest = "(SELECT max(version) FROM vee_version WHERE point = %(p)s AND day = %(d)s)"
        return {
            table: cursor.execute(
                f"SELECT * FROM {table} WHERE point = %(p)s AND day = %(d)s AND version = {newest}".encode(),
                {"p": point, "d": DAY},
            ).fetchall()
            for table in ("vee_version", "checked_day", "final_day")
        }


def run(quick: bool = False) -> list[Row]:
    """Rows of figures; ratios are of this run."""
    points, repeats = (CHUNK, 15) if quick else (10 * CHUNK, 60)
    with _opened() as (_, database, home), Journal(home / "journal") as journal:
        _points(database, points)
        plant = _Plant(database, journal)
        _fill(plant, points, 3, slice(40, 44))
        keeper = VeeKeeper(database, _Clock())
        begun = time.perf_counter()
        while keeper.step() is not None:
            pass
        chunked = keeper.counters.days / (time.perf_counter() - begun)
        ours, bare = [], []
        with database.connect("app", autocommit=True) as connection:
            for n in range(repeats):
                point, slot = n % points + 1, 40 + n // points
                plant.put(_block(point, "active_power_total", DAY, np.array([100.0 + n / 100]), first=slot))
                begun = time.perf_counter()
                taken = keeper.step()
                ours.append(time.perf_counter() - begun)
                assert taken is not None
                rows = _version(connection, point)
                assert rows["vee_version"][0]["version"] == 2, rows["vee_version"]
                bare.append(_bare(connection, rows, 1000))
                keeper.drain()  # days that follow from it, untimed
        keeper.close()
        plant.writer.close()
    ours_ms, bare_ms = median(ours) * 1000, median(bare) * 1000
    peer = f"INSERT of the same rows and commit, {bare_ms:.2f} ms"
    return [
        _row("a late slot of one point, committed raw to committed final", ours_ms, "ms", peer, ours_ms / bare_ms),
        _row("the same, 95th percentile", float(np.percentile(ours, 95)) * 1000, "ms"),
        _row(
            f"points' days judged in chunks of {CHUNK}, six quantities, one gap each", chunked, "point-days/s",
            f"one at a time, {1000 / ours_ms:,.0f}/s", chunked * ours_ms / 1000,
        ),
    ]  # fmt: skip
