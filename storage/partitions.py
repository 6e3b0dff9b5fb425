"""Daily partitions of samples and monthly partitions of curves: made ahead and on demand, dropped by retention.

Boundaries are business days (+08:00). With TimescaleDB the extension does all this: then only its policies are set.
Days far outside the plausible (a device's broken clock) get no partition: such rows wait in the default partition.
"""

from __future__ import annotations

import logging
from datetime import date, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql

from .config import StorageConfig
from .database import Database

log = logging.getLogger(__name__)

EPOCH_DAY: Final = date(1970, 1, 1)
FUTURE_DAYS: Final = 3
NAME_FORMATS: Final = {"sample": "sample_%Y%m%d", "curve_day": "curve_day_%Y%m"}


class Partitions:
    """Which table takes the rows of a day; remembers what it has seen. One per writing connection."""

    def __init__(self, timescale: bool, retention_days: int) -> None:
        self._timescale, self._retention_days = timescale, retention_days
        self._known: dict[tuple[str, str], str] = {}

    def target(self, connection: psycopg.Connection[Any], parent: str, day: int, today: int) -> str:
        """Table to write rows of a business day into (days since 1970); the partition is made if it is not there."""
        if self._timescale:
            return parent
        if not today - self._retention_days <= day <= today + FUTURE_DAYS:
            return f"{parent}_default"
        wanted = EPOCH_DAY + timedelta(days=day)
        key = (parent, wanted.strftime(NAME_FORMATS[parent]))
        if key not in self._known:
            row = connection.execute("SELECT ensure_partition(%s, %s)", (parent, wanted)).fetchone()
            assert row is not None
            self._known[key] = row[0]
        return self._known[key]

    def forget(self) -> None:
        """After a rollback or when a table is gone: ask the database again."""
        self._known.clear()


def make_ahead(database: Database, today: date, days: int = 3) -> None:
    """Make the partitions of today and the next days, so that no batch waits for one at midnight."""
    if database.timescale:
        return
    with database.connect("app", autocommit=True) as connection:
        for offset in range(days + 1):
            for parent in NAME_FORMATS:
                connection.execute("SELECT ensure_partition(%s, %s)", (parent, today + timedelta(days=offset)))


def drop_old(database: Database, today: date, keep_days: int) -> list[str]:
    """Drop raw partitions that lie wholly before `today - keep_days`; returns their names. Needs the owner's rights."""
    if database.timescale:
        return []
    first = today - timedelta(days=keep_days)
    limits = {"sample": first.strftime(NAME_FORMATS["sample"]), "curve_day": first.strftime(NAME_FORMATS["curve_day"])}
    dropped = []
    with database.connect("owner", autocommit=True) as connection:
        for parent, limit in limits.items():
            names = connection.execute(
                "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = %s::regclass",
                (parent,),
            ).fetchall()
            for (name,) in sorted(names):
                if name != f"{parent}_default" and name < limit:
                    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
                    dropped.append(name)
    if dropped:
        log.info("retention: dropped %s", ", ".join(dropped))
    return dropped


def set_policies(database: Database, storage: StorageConfig) -> None:
    """TimescaleDB: compression and retention as configured (replaces what was set before). Otherwise nothing."""
    if not database.timescale:
        return
    with database.connect("owner") as connection:
        connection.execute("SELECT remove_compression_policy('sample', if_exists => true)")
        connection.execute(
            "SELECT add_compression_policy('sample', %s::interval)", (f"{storage.compress_after_days} days",)
        )
        for table in ("sample", "curve_day"):
            connection.execute("SELECT remove_retention_policy(%s, if_exists => true)", (table,))
            connection.execute(
                "SELECT add_retention_policy(%s, %s::interval)", (table, f"{storage.raw_retention_days} days")
            )
