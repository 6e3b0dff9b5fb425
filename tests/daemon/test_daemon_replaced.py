"""Replaced connections in the audit: every one counted, at most one record a terminal and hour, the chain whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

import psycopg
import pytest

from fuhe.control import audit
from fuhe.daemon.replaced import EVERY_US, ReplacedBook
from fuhe.model.readings import DeviceEvent
from fuhe.model.times import US, to_us
from fuhe.storage.database import Database

NOW = to_us(datetime(2026, 11, 20, 4, tzinfo=UTC))


class Hand:
    """A clock set by hand."""

    now = NOW

    def now_us(self) -> int:
        return self.now


def replaced(device: int, at_us: int, peer: str = "127.0.0.1:1") -> DeviceEvent:
    return DeviceEvent(device=device, point=None, time_us=at_us, end_us=None, code="link.replaced", data={"peer": peer})


def records(db: psycopg.Connection[Any]) -> list[tuple[str, int, str]]:
    found = audit.read(db)
    assert audit.verify(found)[1] is None
    rows = [(r.object, json.loads(r.after)) for r in found if r.action == "link.replaced"]
    return [(name, after["count"], after["peer"]) for name, after in rows]


async def test_a_flapping_terminal_makes_one_record_an_hour(database: Database, db: psycopg.Connection[Any]) -> None:
    clock = Hand()
    book = ReplacedBook(database, cast(Any, clock))
    book.saw(replaced(7, NOW))
    book.saw(DeviceEvent(device=7, point=None, time_us=NOW, end_us=None, code="link.online", data={}))
    await book.write()
    assert records(db) == [("device:7", 1, "127.0.0.1:1")]
    for second in range(1, 101):
        clock.now = NOW + second * US
        book.saw(replaced(7, clock.now, f"127.0.0.1:{second}"))
        await book.write()
    book.saw(replaced(8, clock.now))
    await book.write()
    assert [r[:2] for r in records(db)] == [("device:7", 1), ("device:8", 1)]
    again = ReplacedBook(database, cast(Any, clock))  # the daemon was killed: the hour still counts
    again.saw(replaced(7, clock.now))
    await again.write()
    assert len(records(db)) == 2
    clock.now = NOW + EVERY_US
    await book.write()
    assert records(db)[2:] == [("device:7", 100, "127.0.0.1:100")]
    book.saw(replaced(7, clock.now))
    await book.write(everything=True)  # the daemon ends
    assert records(db)[3:] == [("device:7", 1, "127.0.0.1:1")]


async def test_what_cannot_be_written_is_counted_on(
    database: Database, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    book = ReplacedBook(database, cast(Any, Hand()))
    book.saw(replaced(7, NOW))
    with monkeypatch.context() as patch:

        def away(*_: object) -> None:
            raise psycopg.OperationalError("away")

        patch.setattr("fuhe.daemon.replaced.append", away)
        await book.write()
    book.saw(replaced(7, NOW))
    assert records(db) == []
    await book.write()
    assert records(db) == [("device:7", 2, "127.0.0.1:1")]
