"""One day of many points out of the database into arrays, beside a bare binary COPY TO of the same rows.

Eight quantities of 96 slots (three voltages, three currents, active and reactive power) go in by the product's own way;
`load_curve_day` gives float64 (points x quantities, 96) with NaN and qualities. The peer only takes the bytes off the
socket and throws them away.
"""

from __future__ import annotations

import time
from datetime import timedelta
from statistics import median
from typing import Any

import numpy as np
import psycopg

from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, ReadingBatch
from fuhe.storage.batches import encode_batches
from fuhe.storage.database import Database
from fuhe.storage.journal import Journal
from fuhe.storage.partitions import pack_cold
from fuhe.storage.readings import load_curve_day
from fuhe.storage.writer import JournalWriter

from .links import Row
from .storage import DAY, START, _opened

NAMES = (
    "voltage_a", "voltage_b", "voltage_c", "current_a", "current_b", "current_c", "active_power_total",
    "reactive_power_total",
)  # fmt: skip
SLOTS = 96
CHUNK = 2_000
LIMIT_S = 3.0


def _fill(database: Database, journal: Journal, points: int) -> None:
    """Values with the digits that meters give: 0.1 V, 0.001 A, 0.0001 kW."""
    rng = np.random.default_rng(7)
    writer = JournalWriter(database, journal, now_us=lambda: START)
    for first in range(1, points + 1, CHUNK):
        ids = np.arange(first, min(first + CHUNK, points + 1), dtype=np.int32)
        blocks = []
        for name in NAMES:
            scale, digits = (220.0, 1) if name[0] == "v" else (3.0, 3) if name[0] == "c" else (1.5, 4)
            value = np.round(scale * (1.0 + 0.2 * rng.random((len(ids), SLOTS))), digits)
            blocks.append(
                CurveBlock(
                    ids, np.full(len(ids), quantity(name).id, np.int16),
                    np.full(len(ids), START + 900_000_000, np.int64), 900, value, np.zeros(value.shape, np.int16),
                )
            )  # fmt: skip
        journal.append(encode_batches([ReadingBatch(received_us=START, curves=blocks)])).result()
        writer.drain_all()
    writer.close()


def _bare(connection: psycopg.Connection[Any]) -> tuple[float, int]:
    """(seconds, bytes) of the day's rows as they come off the socket."""
    begun, size = time.perf_counter(), 0
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY (SELECT point, quantity, decimals, base, short, vals, wide, quality FROM curve_day WHERE day = "
            f"'{DAY.isoformat()}') TO STDOUT (FORMAT binary)".encode()
        ) as copy,
    ):
        for data in copy:
            size += len(data)
    return time.perf_counter() - begun, size


def run(quick: bool = False) -> list[Row]:
    """All figures; `quick`: a tenth of the points."""
    points = 10_000 if quick else 100_000
    values = points * len(NAMES) * SLOTS
    ids = [quantity(name).id for name in NAMES]
    with _opened() as (_, database, home), Journal(home / "loading") as journal:
        _fill(database, journal, points)
        pack_cold(database, DAY + timedelta(days=30), 7)
        with database.connect(autocommit=True) as connection:
            loads, bares, size = [], [], 0
            for _ in range(3):
                bare_s, size = _bare(connection)
                begun = time.perf_counter()
                value, quality = load_curve_day(connection, DAY, range(1, points + 1), ids)
                loads.append(time.perf_counter() - begun)
                bares.append(bare_s)
                assert value.shape == (points * len(ids), SLOTS) and np.isfinite(value).all() and not quality.any()
                del value, quality
    load_s, bare_s = median(loads), median(bares)
    day = f"one day of {points:,} points x {SLOTS} slots x {len(NAMES)} quantities"
    return [
        {
            "bench": "loading", "name": f"{day}: into arrays", "value": values / load_s, "unit": "values/s",
            "peer": f"bare COPY TO of the same rows: {values / bare_s:,.0f}", "ratio": bare_s / load_s, "target": "",
        },
        {
            "bench": "loading", "name": f"{day}: time", "value": load_s, "unit": "s",
            "peer": f"bare COPY TO: {bare_s:.2f} s, {size / values:.2f} bytes a value", "ratio": load_s / bare_s,
            "target": f"≤ {LIMIT_S:g} x",
        },
    ]  # fmt: skip
