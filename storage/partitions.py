"""Daily partitions of samples and curves: made ahead and on demand, packed when they are cold, dropped by retention.

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
PARENTS: Final = ("sample", "curve_day", "curve_arrival", "vee_version", "checked_day", "final_day")
PACKED: Final = "fillfactor=100"
LOCK_TIMEOUT: Final = "5s"  # a writer is never kept waiting longer by packing


class Partitions:
    """Which table takes the rows of a day; remembers what it has seen. One per writing connection."""

    def __init__(self, timescale: bool, retention_days: int) -> None:
        self._timescale, self._retention_days = timescale, retention_days
        self._known: dict[tuple[str, int], str] = {}

    def target(self, connection: psycopg.Connection[Any], parent: str, day: int, today: int) -> str:
        """Table to write rows of a business day into (days since 1970); the partition is made if it is not there."""
        if self._timescale:
            return parent
        if not today - self._retention_days <= day <= today + FUTURE_DAYS:
            return f"{parent}_default"
        wanted = EPOCH_DAY + timedelta(days=day)
        key = (parent, day)
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
            for parent in PARENTS:
                connection.execute("SELECT ensure_partition(%s, %s)", (parent, today + timedelta(days=offset)))


def drop_old(database: Database, today: date, keep_days: int) -> list[str]:
    """Drop raw partitions that lie wholly before `today - keep_days`; returns their names. Needs the owner's rights."""
    if database.timescale:
        return []
    first = today - timedelta(days=keep_days)
    dropped = []
    with database.connect("owner", autocommit=True) as connection:
        for name, end, _ in _dated(connection, PARENTS):
            if end <= first:
                connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
                dropped.append(name)
    if dropped:
        log.info("retention: dropped %s", ", ".join(dropped))
    return dropped


def pack_cold(database: Database, today: date, after_days: int, limit: int = 8) -> list[str]:
    """Rewrite the curve partitions that ended `after_days` ago without the room kept for merging; returns their names.

    A hot day keeps half of every page free, so that hourly parts merge in place; a cold one no longer needs it. Rows
    that still come late are written all the same. At most `limit` partitions, newest first; one that is in use just now
    is left for the next time.
    """
    if database.timescale:
        return []
    packed: list[str] = []
    with database.connect("owner", autocommit=True) as connection:
        connection.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
        for name, end, options in reversed(_dated(connection, ("curve_day",))):
            if end > today - timedelta(days=after_days) or PACKED in options:
                continue
            if len(packed) == limit:
                break
            table = sql.Identifier(name)
            try:
                with connection.transaction():
                    connection.execute(sql.SQL("ALTER TABLE {} SET (fillfactor = 100)").format(table))
                    row = connection.execute(
                        "SELECT i.indexrelid::regclass::text FROM pg_index i"
                        " WHERE i.indrelid = %s::regclass AND i.indisprimary",
                        (name,),
                    ).fetchone()
                    assert row is not None
                    connection.execute(sql.SQL("CLUSTER {} USING {}").format(table, sql.Identifier(row[0])))
                connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(table))
            except psycopg.errors.LockNotAvailable:
                log.info("packing %s put off: it is in use", name)
                continue
            packed.append(name)
    return packed


def _dated(connection: psycopg.Connection[Any], parents: tuple[str, ...]) -> list[tuple[str, date, list[str]]]:
    """(name, first day after it, storage options) of every dated partition, months of earlier versions included."""
    found = []
    for parent in parents:
        rows = connection.execute(
            "SELECT relname, coalesce(reloptions, '{}') FROM pg_inherits JOIN pg_class ON oid = inhrelid"
            " WHERE inhparent = %s::regclass ORDER BY relname",
            (parent,),
        ).fetchall()
        for name, options in rows:
            digits = name.removeprefix(f"{parent}_")
            if len(digits) == len("YYYYMMDD") and digits.isdecimal():
                day = date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
                found.append((name, day + timedelta(days=1), options))
            elif len(digits) == len("YYYYMM") and digits.isdecimal():
                month = date(int(digits[:4]), int(digits[4:]), 1)
                found.append((name, (month + timedelta(days=31)).replace(day=1), options))
    return found


def set_policies(database: Database, storage: StorageConfig) -> None:
    """TimescaleDB: compression and retention as configured (replaces what was set before). Otherwise nothing."""
    if not database.timescale:
        return
    with database.connect("owner") as connection:
        for table in PARENTS:
            connection.execute("SELECT remove_compression_policy(%s, if_exists => true)", (table,))
            connection.execute(
                "SELECT add_compression_policy(%s, %s::interval)", (table, f"{storage.compress_after_days} days")
            )
            connection.execute("SELECT remove_retention_policy(%s, if_exists => true)", (table,))
            connection.execute(
                "SELECT add_retention_policy(%s, %s::interval)", (table, f"{storage.raw_retention_days} days")
            )
