"""Journal to database: joins many records into one transaction that also moves the journal's position.

Exactly-once effect: what the transaction wrote and how far the journal is drained are committed together, and every
write is idempotent besides. The database being away only makes the journal longer. A record that the database refuses
for what it contains is written piece by piece, put aside in the journal's directory `rejected/` and counted; it never
blocks the others.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from ..model.readings import DeviceEvent, ParameterValue, Samples
from ..model.times import from_us
from ..protocols.common.errors import LinkError
from .arrivals import ArrivalWriter
from .batches import Record, decode_record, join_records
from .curve_table import CurveWriter
from .curves import DayRows, cut, fold
from .database import Database
from .dirty import mark_data
from .journal import Journal, Position, sync_directory
from .partitions import Partitions
from .samples import SampleWriter, days_of

log = logging.getLogger(__name__)

BATCH_BYTES: Final = 4 << 20
BACKOFF_S: Final = (0.5, 30.0)
REFUSED: Final = (psycopg.DataError, psycopg.IntegrityError, ValueError, OverflowError)  # content, not the connection
EVENT: Final = (
    "INSERT INTO event (device, point, time, end_time, code, data, received) VALUES (%s, %s, %s, %s, %s, %s, %s)"
    " ON CONFLICT DO NOTHING"
)
PARAMETER: Final = (
    "INSERT INTO parameter (device, item, time, value) SELECT %(device)s, %(item)s, %(time)s, %(value)s"
    " WHERE NOT EXISTS (SELECT FROM (SELECT value FROM parameter WHERE device = %(device)s AND item = %(item)s"
    " AND time <= %(time)s ORDER BY time DESC LIMIT 1) newest WHERE newest.value = %(value)s) ON CONFLICT DO NOTHING"
)


@dataclass(slots=True)
class WriterCounters:
    """Since start. samples: rows that were new; repeated: rows that were there already (or doubled in a batch)."""

    records: int = 0
    samples: int = 0
    repeated: int = 0
    curve_rows: int = 0
    conflicts: int = 0
    events: int = 0
    parameters: int = 0
    commits: int = 0
    outages: int = 0
    rejected: int = 0
    last_error: str = ""
    last_commit_us: int = field(default=0)


class JournalWriter:
    """Drains one journal into one database; `run` in a thread of its own, or `drain` step by step in tests."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        *,
        retention_days: int = 1100,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        pause: Callable[[float], object] | None = None,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        """`now_us`: UTC µs, decides which days are plausible; `pause(seconds)`: waits between attempts when away.

        `marks` may be set at any time: the quantities of curves whose slots' first arrival is kept.
        """
        self.counters = WriterCounters()
        self.marks: frozenset[int] = frozenset()
        self._database, self._journal, self._now_us, self._batch_bytes = database, journal, now_us, batch_bytes
        self._retention_days = retention_days
        self._stopping = threading.Event()
        self._pause = pause or self._stopping.wait
        self._connection: psycopg.Connection[Any] | None = None
        self._at: Position | None = None

    @property
    def caught_up(self) -> bool:
        """Whether everything that was in the journal when it was opened is in the database."""
        at = self._at
        return at is not None and at >= self._journal.end_at_open

    # ------------------------------------------------------------------ life

    def run(self) -> None:
        """Drain until `stop`; survives outages of the database with growing pauses."""
        wait_s = BACKOFF_S[0]
        while not self._stopping.is_set():
            try:
                moved = self.drain()
            except (psycopg.Error, LinkError, OSError) as error:
                self._lost(error)
                log.warning("database away, next attempt in %.1f s: %s", wait_s, error)
                self._pause(wait_s)
                wait_s = min(wait_s * 2, BACKOFF_S[1])
                continue
            wait_s = BACKOFF_S[0]
            if not moved:
                self._journal.wait(0.5)
        self.close()

    def stop(self) -> None:
        """Let `run` end after the transaction in hand."""
        self._stopping.set()

    def close(self) -> None:
        """Close the database connection (it is opened again when needed)."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _lost(self, error: Exception) -> None:
        self.counters.outages += 1
        self.counters.last_error = str(error)
        self.close()

    # ------------------------------------------------------------------ one transaction

    def drain(self) -> int:
        """Write what the journal holds, one transaction; returns the number of records moved (0: it is empty).

        psycopg.Error or LinkError: the database is away; nothing was lost, call again.
        """
        connection = self._connected()
        assert self._at is not None
        records, end = self._journal.read(self._at, self._batch_bytes)
        if not records:
            return 0
        try:
            self._commit(connection, records, end)
        except REFUSED as error:
            log.error("a batch of %d records was refused, writing them one by one: %s", len(records), error)
            self._one_by_one(connection, records)
        return len(records)

    def drain_all(self, limit: int = 1_000_000) -> int:
        """Drain until the journal is empty; returns the number of records moved."""
        total = 0
        for _ in range(limit):
            moved = self.drain()
            if not moved:
                break
            total += moved
        return total

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = self._connection = self._database.connect("app")
        self._partitions = Partitions(self._database.timescale, self._retention_days)
        self._samples, self._curves = SampleWriter(self._partitions), CurveWriter(self._partitions)
        self._arrivals = ArrivalWriter(self._partitions)
        with connection.transaction():
            connection.execute(
                "INSERT INTO journal_position (journal, segment, position) VALUES (%s, 0, 0) ON CONFLICT DO NOTHING",
                (self._journal.id,),
            )
            row = connection.execute(
                "SELECT segment, position FROM journal_position WHERE journal = %s", (self._journal.id,)
            ).fetchone()
        assert row is not None
        at = Position(*row)
        if not self._journal.known and at > self._journal.end_at_open:
            # The directory is an older copy put back: its next records would look committed. Under a new name all of
            # it is written again, which is harmless.
            log.warning("the journal is behind the database (restored copy?): it is written again from its start")
            self._journal.rename()
            self.close()
            return self._connected()
        self._journal.known = True
        self._at = at
        self._journal.release(at)
        return connection

    def _commit(
        self, connection: psycopg.Connection[Any], records: Sequence[tuple[Position, bytes]], end: Position
    ) -> None:
        """One transaction with the records and the position; then the journal may forget them."""
        before = self._at
        record = join_records([decode_record(payload) for _, payload in records])
        counted = WriterCounters(records=len(records))
        try:
            with connection.transaction():
                row = connection.execute(
                    "SELECT segment, position FROM journal_position WHERE journal = %s FOR UPDATE", (self._journal.id,)
                ).fetchone()
                if row is None or Position(*row) != before:
                    raise LinkError(f"journal position in the database is {row}, not {before}: reading it again")
                self._write(connection, record, counted)
                connection.execute(
                    "UPDATE journal_position SET segment = %s, position = %s, updated = now() WHERE journal = %s",
                    (*end, self._journal.id),
                )
        except BaseException:
            self._partitions.forget()
            raise
        self._at = end
        self._journal.release(end)
        self._count(counted)

    def _count(self, counted: WriterCounters) -> None:
        for name in ("records", "samples", "repeated", "curve_rows", "conflicts", "events", "parameters"):
            setattr(self.counters, name, getattr(self.counters, name) + getattr(counted, name))
        self.counters.commits += 1
        self.counters.last_commit_us = self._now_us()

    def _one_by_one(self, connection: psycopg.Connection[Any], records: Sequence[tuple[Position, bytes]]) -> None:
        for position, payload in records:
            try:
                self._commit(connection, [(position, payload)], position)
            except REFUSED as error:
                log.error("record at %s was refused, writing it piece by piece: %s", position, error)
                self._piece_by_piece(connection, position, payload)

    def _piece_by_piece(self, connection: psycopg.Connection[Any], position: Position, payload: bytes) -> None:
        """One event or parameter that the database refuses must not cost the readings that share its record.

        The whole record is put aside for a person to look at; what of it is good is in the database besides.
        """
        counted, faults = WriterCounters(records=1), []
        try:
            pieces = _pieces(decode_record(payload))
        except REFUSED as error:
            pieces, faults = [], [error]
        with connection.transaction():
            for piece in pieces:
                try:
                    with connection.transaction():
                        self._write(connection, piece, counted)
                except REFUSED as error:
                    self._partitions.forget()
                    faults.append(error)
            if faults:
                self._put_aside(position, payload, faults[0])
            connection.execute(
                "UPDATE journal_position SET segment = %s, position = %s, updated = now() WHERE journal = %s",
                (*position, self._journal.id),
            )
        self._at = position
        self._journal.release(position)
        self._count(counted)

    def _put_aside(self, position: Position, payload: bytes, error: Exception) -> None:
        """Keep a refused record for a person to look at, durably, before the journal forgets it."""
        folder: Path = self._journal.directory / "rejected"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{position.segment:016d}-{position.offset}.rec"
        with path.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(folder)
        self.counters.rejected += 1
        self.counters.last_error = str(error)
        log.error("record at %s refused by the database and kept in %s: %s", position, path, error)

    # ------------------------------------------------------------------ content

    def _write(self, connection: psycopg.Connection[Any], record: Record, counted: WriterCounters) -> None:
        today = int(days_of(np.array([self._now_us()], np.int64))[0])
        dirty: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        extra = [(record.samples, record.received_us)] if len(record.samples) else []
        by_step: dict[int, list[DayRows]] = {}
        for received_us, block in record.curves:
            rows, strays = cut(received_us, block)
            if rows is not None:
                by_step.setdefault(rows.step_s, []).append(rows)
            if strays is not None:
                extra.append((strays, np.full(len(strays), received_us, np.int64)))
        for parts in by_step.values():
            folded, conflicts = fold(parts)
            more, changed = self._curves.write(connection, folded, today)
            counted.curve_rows += len(changed)
            counted.conflicts += sum(len(s) for s, _ in (*conflicts, *more))
            extra += [*conflicts, *more]
            dirty.append((changed["point"], changed["day"]))
            if self.marks:
                self._arrivals.write(connection, parts, self.marks, today)
        for samples, received in extra:
            written = self._samples.write(connection, samples, received, today)
            counted.samples += written
            counted.repeated += len(samples) - written
            if written:
                # What carries a midnight's instant ends one day and begins the next.
                dirty += [(samples.point, days_of(samples.time_us)), (samples.point, days_of(samples.time_us - 1))]
        if dirty:
            mark_data(connection, np.concatenate([p for p, _ in dirty]), np.concatenate([d for _, d in dirty]))
        self._write_events(connection, record.events, counted)
        self._write_parameters(connection, record.parameters, counted)

    @staticmethod
    def _write_events(
        connection: psycopg.Connection[Any], events: Sequence[tuple[int, DeviceEvent]], counted: WriterCounters
    ) -> None:
        if not events:
            return
        with connection.cursor() as cursor:
            cursor.executemany(
                EVENT,
                [
                    (
                        e.device, e.point, from_us(e.time_us), None if e.end_us is None else from_us(e.end_us), e.code,
                        Jsonb(e.data), from_us(received_us),
                    )
                    for received_us, e in events
                ],
            )  # fmt: skip
            counted.events += cursor.rowcount

    @staticmethod
    def _write_parameters(
        connection: psycopg.Connection[Any], parameters: Sequence[ParameterValue], counted: WriterCounters
    ) -> None:
        if not parameters:
            return
        with connection.cursor() as cursor:
            cursor.executemany(
                PARAMETER,
                [
                    {"device": p.device, "item": p.item, "time": from_us(p.time_us), "value": p.value}
                    for p in parameters
                ],
            )
            counted.parameters += cursor.rowcount


def _pieces(record: Record) -> list[Record]:
    """The samples, then every curve block, event and parameter by itself."""
    none = Samples(*(getattr(record.samples, f.name)[:0] for f in fields(Samples)))
    empty = Record(none, record.received_us[:0], (), (), ())
    return [
        replace(empty, samples=record.samples, received_us=record.received_us),
        *(replace(empty, curves=(c,)) for c in record.curves),
        *(replace(empty, events=(e,)) for e in record.events),
        *(replace(empty, parameters=(p,)) for p in record.parameters),
    ]
