"""What the daemon keeps of terminals: traffic by month, history that a killed daemon left open."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import psycopg
import pytest

from fuhe.acquisition.io.engine import Engine
from fuhe.acquisition.terminal import TerminalAddress, TerminalSession, TerminalSettings
from fuhe.daemon.terminals import TerminalBook
from fuhe.model.times import US, to_us
from fuhe.storage import state as states
from fuhe.storage import terminals as table
from fuhe.storage.database import Database

NOW = to_us(datetime(2026, 11, 20, 4, tzinfo=UTC))
HOUR = 3600 * US


class World:
    """Engine and clock as far as the book looks at them."""

    def __init__(self, *devices: int) -> None:
        self.sessions = {
            d: TerminalSession(address=TerminalAddress("3301", d), settings=TerminalSettings()) for d in devices
        }
        self.depth = 0
        self.slept: list[float] = []

    def devices(self) -> list[int]:
        return [*self.sessions, 999]

    def session(self, device: int) -> TerminalSession | None:
        return self.sessions.get(device)

    def now_us(self) -> int:
        return NOW

    def monotonic_s(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.depth = max(0, self.depth - 1)


def make_book(database: Database, world: World) -> TerminalBook:
    return TerminalBook(database, cast(Engine, world), cast(Any, world), lambda: world.depth)


def came_and_went(db: psycopg.Connection[Any], device: int, *moments: tuple[str, int]) -> None:
    for code, at_us in moments:
        db.execute(
            "INSERT INTO event (device, time, code, data, received) VALUES"
            " (%s, to_timestamp(%s / 1e6), %s, '{}', now())",
            (device, at_us, f"link.{code}"),
        )


async def test_traffic_is_added_up_by_month_and_kept_when_the_database_is_away(
    database: Database, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(1, 2)
    book = make_book(database, world)
    world.sessions[1].received(30, NOW)
    world.sessions[1].sent(20, NOW)
    with monkeypatch.context() as patch:

        def away(*_: object) -> None:
            raise psycopg.OperationalError("away")

        patch.setattr(table, "add_traffic", away)
        await book.write()
    assert table.load_traffic(db) == []
    world.sessions[1].received(12, NOW)
    await book.write()
    await book.write()
    world.sessions[1].sent(1, NOW)
    world.sessions[2].sent(5, NOW)
    await book.write()
    assert table.load_traffic(db) == [
        table.MonthTraffic(device=1, month=202611, rx_bytes=42, tx_bytes=21, rx_frames=2, tx_frames=2),
        table.MonthTraffic(device=2, month=202611, rx_bytes=0, tx_bytes=5, rx_frames=0, tx_frames=1),
    ]
    assert [t.device for t in table.load_traffic(db, device=2)] == [2]


async def test_history_that_a_killed_daemon_left_open_is_closed(
    database: Database, db: psycopg.Connection[Any]
) -> None:
    states.put_daemon_state(
        db,
        states.DaemonState(
            name="main", mode="NORMAL", reason="", started_us=NOW - 9 * HOUR, heartbeat_us=NOW - 2 * HOUR, detail={}
        ),
    )
    came_and_went(db, 1, ("online", NOW - 5 * HOUR), ("offline", NOW - 4 * HOUR), ("online", NOW - 3 * HOUR))
    came_and_went(db, 2, ("online", NOW - 5 * HOUR), ("offline", NOW - 4 * HOUR))
    came_and_went(db, 3, ("online", NOW - HOUR))  # written after the last report of that life
    came_and_went(db, 4, ("online", NOW + HOUR))  # of this life
    world = World(1, 2, 3, 4)
    world.depth = 3
    book = make_book(database, world)
    book.load()
    await book._close_history()
    assert world.depth == 0  # what that life had left in the journal came first
    rows = db.execute("SELECT device, time FROM event WHERE code = 'link.offline' AND data ? 'reason' ORDER BY 1")
    assert [(d, to_us(t)) for d, t in rows] == [(1, NOW - 2 * HOUR), (3, NOW - HOUR)]
    await book._close_history()  # again: nothing is left to close
    assert db.execute("SELECT count(*) FROM event WHERE code = 'link.offline'").fetchone() == (4,)


def test_online_seconds(db: psycopg.Connection[Any]) -> None:
    came_and_went(db, 1, ("online", NOW - 5 * HOUR), ("offline", NOW - 4 * HOUR), ("online", NOW - 3 * HOUR))
    came_and_went(db, 2, ("online", NOW - 50 * HOUR))
    came_and_went(db, 3, ("online", NOW - 50 * HOUR), ("offline", NOW - 49 * HOUR))
    came_and_went(
        db, 4, ("online", NOW - 6 * HOUR), ("offline", NOW - 4 * HOUR), ("online", NOW - 4 * HOUR),
        ("offline", NOW - 3 * HOUR),
    )  # fmt: skip
    found = table.online_seconds(db, [1, 2, 3, 4, 5], NOW - 10 * HOUR, NOW)
    assert found == {1: 4 * 3600, 2: 10 * 3600, 3: 0, 4: 3 * 3600}
    part = table.online_seconds(db, [1], NOW - 270 * 60 * US, NOW - 150 * 60 * US)
    assert part == {1: 30 * 60 + 30 * 60}
