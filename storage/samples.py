"""Single values into table `sample`: sorted, doubled keys removed, the fast way for fresh rows and the safe way else.

Fresh rows are copied straight into their day's partition. If one of them is there already the copy is rolled back (to a
savepoint) and the rows go through a stage with ON CONFLICT DO NOTHING; while rows are being sent again the fast way is
not even tried, and less and less often the longer that lasts.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import sql

from ..model.readings import I8, Samples
from ..model.times import BUSINESS_ZONE, DAY_US
from .copying import PG_EPOCH_US, Rows, RowType, copy_in
from .partitions import Partitions

COLUMNS: Final = ("time", "received", "value", "point", "quantity", "source", "quality")
ROW: Final = RowType(
    [
        ("time", "timestamptz"),
        ("received", "timestamptz"),
        ("value", "float8"),
        ("point", "int4"),
        ("quantity", "int2"),
        ("source", "int2"),
        ("quality", "int2"),
    ]
)
STAGE: Final = sql.SQL("CREATE TEMP TABLE IF NOT EXISTS sample_stage (LIKE sample) ON COMMIT DELETE ROWS")
ZONE_US: Final = int(BUSINESS_ZONE.utcoffset(None).total_seconds()) * 1_000_000
PATIENCE_MAX: Final = 256  # batches through the stage before the fast way is tried again


def days_of(time_us: I8) -> I8:
    """Business day (days since 1970) of each instant; 00:00 belongs to the day that begins."""
    return (time_us + ZONE_US) // DAY_US


def sorted_once(samples: Samples, received_us: I8) -> tuple[Rows, I8]:
    """COPY rows in key order without doubled keys (the first to arrive stays) and without NaN; and their days."""
    identity = (
        (samples.point.astype(np.int64) << 32)
        | (samples.quantity.astype(np.int64) << 16)
        | samples.source.astype(np.int64)
    )
    day = days_of(samples.time_us)
    order = np.lexsort((samples.time_us, identity, day))
    i, t = identity[order], samples.time_us[order]
    keep = np.ones(len(order), bool)
    keep[1:] = (i[1:] != i[:-1]) | (t[1:] != t[:-1])
    keep &= np.isfinite(samples.value[order])
    order = order[keep]
    rows = ROW.rows(len(order))
    rows["time"] = samples.time_us[order] - PG_EPOCH_US
    rows["received"] = received_us[order] - PG_EPOCH_US
    for name in ("value", "point", "quantity", "source", "quality"):
        rows[name] = getattr(samples, name)[order]
    return rows, day[order]


class SampleWriter:
    """Writes sample rows inside the caller's transaction; remembers which tables lately saw rows sent again."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self._wait: dict[str, tuple[int, int]] = {}  # table -> (batches still to go through the stage, last patience)

    def write(self, connection: psycopg.Connection[Any], samples: Samples, received_us: I8, today: int) -> int:
        """Add the samples that are not there yet; returns how many went in. `today`: days since 1970."""
        rows, day = sorted_once(samples, received_us)
        if not len(rows):
            return 0
        edges = np.flatnonzero(np.r_[True, day[1:] != day[:-1], True])
        by_table: dict[str, list[Rows]] = {}
        for a, b in pairwise(edges):
            table = self._partitions.target(connection, "sample", int(day[a]), today)
            by_table.setdefault(table, []).append(rows[a:b])
        return sum(self._write_table(connection, table, parts) for table, parts in by_table.items())

    def _write_table(self, connection: psycopg.Connection[Any], table: str, parts: list[Rows]) -> int:
        left, patience = self._wait.get(table, (0, 0))
        if left == 0:
            try:
                with connection.transaction(), connection.cursor() as cursor:
                    copy_in(cursor, sql.Identifier(table), COLUMNS, *parts)
            except psycopg.errors.UniqueViolation:
                patience = min(max(patience * 2, 1), PATIENCE_MAX)
                left = patience
            else:
                if patience:
                    self._wait[table] = (0, patience // 2)
                return sum(map(len, parts))
        self._wait[table] = (left - 1, patience)
        return self._write_stage(connection, table, parts)

    @staticmethod
    def _write_stage(connection: psycopg.Connection[Any], table: str, parts: list[Rows]) -> int:
        with connection.cursor() as cursor:
            cursor.execute(STAGE)
            copy_in(cursor, sql.SQL("sample_stage"), COLUMNS, *parts)
            cursor.execute(
                sql.SQL("INSERT INTO {} SELECT * FROM sample_stage ON CONFLICT DO NOTHING").format(
                    sql.Identifier(table)
                )
            )
            written = cursor.rowcount
            cursor.execute("DELETE FROM sample_stage")
        return written
