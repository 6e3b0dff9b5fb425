"""What a restart must take over, found by the drill: leases of the dead daemon, records with an unstorable piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from fuhe.model.quality import Source
from fuhe.model.readings import DeviceEvent, ParameterValue, ReadingBatch, Samples
from fuhe.storage.batches import encode_batches
from fuhe.storage.database import Database
from fuhe.storage.journal import Journal
from fuhe.storage.recall import RecallItem, add_recalls, lease_recalls, release_leases
from fuhe.storage.writer import JournalWriter

NOW = 1_790_000_000_000_000
Connection = psycopg.Connection[Any]


def test_leases_of_a_dead_daemon_are_due_at_once(db: Connection) -> None:
    items = [RecallItem(device=n, duty="curve", from_us=0, to_us=NOW, next_us=0, expires_us=2 * NOW) for n in (1, 2)]
    assert add_recalls(db, items) == 2
    assert len(lease_recalls(db, NOW, lease_s=3600)) == 2 and lease_recalls(db, NOW + 1) == []
    assert release_leases(db) == 2
    assert [i.device for i in lease_recalls(db, NOW + 2)] == [1, 2]


def test_one_unstorable_event_costs_nothing_else_of_its_record(
    tmp_path: Path, database: Database, db: Connection
) -> None:
    n = 50
    samples = Samples(
        NOW + np.arange(n, dtype=np.int64),
        np.full(n, 1, np.int32),
        np.full(n, 1, np.int16),
        np.arange(n, dtype=np.float64),
        np.zeros(n, np.int16),
        np.full(n, Source.LIVE, np.int16),
    )

    def event(code: str) -> DeviceEvent:
        return DeviceEvent(device=1, point=None, time_us=NOW, end_us=None, code=code, data={})

    good = ReadingBatch(received_us=NOW, samples=samples, events=(event("a"), event("b\0"), event("c")))
    meters = tuple(ParameterValue(device=1, item=i, value=v, time_us=NOW) for i, v in (("x", "1\0"), ("y", "2")))
    with Journal(tmp_path / "journal") as journal:
        journal.append(encode_batches([good, ReadingBatch(received_us=NOW, parameters=meters)])).result()
        writer = JournalWriter(database, journal, now_us=lambda: NOW)
        assert writer.drain_all() == 1
        assert writer.counters.rejected == 1 and writer.counters.samples == n and journal.state().depth_records == 0
        writer.close()
    assert db.execute("SELECT count(*) FROM sample").fetchone() == (n,)
    assert db.execute("SELECT array_agg(code ORDER BY code) FROM event").fetchone() == (["a", "c"],)
    assert db.execute("SELECT item, value FROM parameter").fetchall() == [("y", "2")]
    assert len(list((tmp_path / "journal" / "rejected").iterdir())) == 1
