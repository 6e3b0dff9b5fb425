"""Events and settled counts as people and the daemon read them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fuhe.model.readings import DeviceEvent, ParameterValue, ReadingBatch
from fuhe.storage.batches import encode_batches
from fuhe.storage.database import Database
from fuhe.storage.events import load_events, load_settled
from fuhe.storage.journal import Journal
from fuhe.storage.writer import JournalWriter

START = 1_790_000_000_000_000
HOUR = 3_600_000_000


def event(device: int, time_us: int, end_us: int | None = None, code: str = "03110000") -> DeviceEvent:
    return DeviceEvent(device=device, point=None, time_us=time_us, end_us=end_us, code=code, data={"n": 1})


def kept(value: str, time_us: int, item: str = "events:03110000", device: int = 1) -> ParameterValue:
    return ParameterValue(device=device, item=item, value=value, time_us=time_us)


def test_the_newest_events_come_first_within_the_span(database: Database, db: Any, tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        events = tuple(event(1 + i % 2, START + i * HOUR, START + i * HOUR + 5) for i in range(6))
        journal.append(encode_batches([ReadingBatch(received_us=START, events=events)])).result(10)
        writer = JournalWriter(database, journal)
        writer.drain_all()
        writer.close()
    assert [e.time_us for e in load_events(db, [1])] == [START + h * HOUR for h in (4, 2, 0)]
    assert [e.time_us for e in load_events(db, [1, 2], START + HOUR, START + 3 * HOUR)] == [
        START + 2 * HOUR,
        START + HOUR,
    ]
    assert [e.end_us for e in load_events(db, [2], limit=1)] == [START + 5 * HOUR + 5]


def test_the_newest_settled_count_is_in_force(database: Database, db: Any, tmp_path: Path) -> None:
    values = (kept("3", START), kept("4 open", START + 1), kept("2", START + 2), kept("9", START, "04000103"))
    with Journal(tmp_path / "journal") as journal:
        journal.append(encode_batches([ReadingBatch(received_us=START, parameters=values)])).result(10)
        writer = JournalWriter(database, journal)
        writer.drain_all()
        writer.close()
    assert load_settled(db, "events:") == [(1, "events:03110000", "2")]


def test_the_writer_knows_when_the_journal_of_before_is_in_the_database(database: Database, tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.append(encode_batches([ReadingBatch(received_us=START, parameters=(kept("3", START),))])).result(10)
    with Journal(tmp_path / "journal") as journal:
        writer = JournalWriter(database, journal)
        assert not writer.caught_up
        writer.drain_all()
        assert writer.caught_up
        writer.close()
        later = JournalWriter(database, journal)
        later.drain()
        assert later.caught_up, "an empty journal has nothing to wait for"
        later.close()
