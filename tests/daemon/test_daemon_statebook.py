"""The state book tells the database what changed, once; what could not be told is told again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import psycopg
import pytest

from fuhe.acquisition.io.engine import DeviceState, Engine, LinkState
from fuhe.daemon.field import EngineField
from fuhe.daemon.statebook import ROWS_PER_S, StateBook
from fuhe.model.work import LinkCounters
from fuhe.storage import state as states
from fuhe.storage.database import Database

DAEMON = states.DaemonState(name="main", mode="NORMAL", reason="", started_us=1, heartbeat_us=2, detail={})


@dataclass
class World:
    """Engine, field and clock as far as the state book looks at them."""

    heard_us: dict[int, int | None]
    now_s: float = 100.0
    counters: LinkCounters = field(default_factory=LinkCounters)

    def devices(self) -> list[int]:
        return [*self.heard_us, 999]  # 999 leaves the list while we look

    def device_state(self, device: int) -> DeviceState | None:
        return DeviceState(device=device, line="l", reached_us=self.heard_us[device]) if device != 999 else None

    def device_mark(self, device: int) -> int:
        return hash(self.heard_us.get(device, 0))

    def link_states(self) -> list[LinkState]:
        return [
            LinkState(
                name="l", kind="tcp", up=True, reason="", devices=2, depth=(0,) * 5, oldest_age_s=0.0, quarantined=0,
                counters=self.counters,
            )
        ]  # fmt: skip

    def online(self, device: int) -> bool | None:
        return self.heard_us.get(device) is not None

    def clock_offset_s(self, device: int) -> float | None:
        return None

    def monotonic_s(self) -> float:
        return self.now_s


class Book(StateBook):
    """Keeps what it would write."""

    def __init__(self, world: World) -> None:
        super().__init__(cast(Database, None), cast(Engine, world), cast(EngineField, world), cast(Any, world))
        self.written: list[tuple[list[str], list[int]]] = []
        self.away = False

    def _put(self, daemon: Any, links: dict[str, Any], devices: list[states.DeviceState]) -> None:
        if self.away:
            raise psycopg.OperationalError("away")
        self.written.append((list(links), [s.device for s in devices]))


async def test_only_what_changed_is_written_and_what_failed_is_written_again() -> None:
    world = World({1: None, 2: 5})
    book = Book(world)
    await book.write(DAEMON, everything=True)
    await book.write(DAEMON, everything=True)
    world.heard_us[1] = 7
    world.counters.replies += 1
    book.away = True
    with pytest.raises(psycopg.OperationalError):
        await book.write(DAEMON, everything=True)
    book.away = False
    await book.write(DAEMON, everything=True)
    assert book.written == [(["l"], [1, 2]), ([], []), (["l"], [1])]


async def test_a_large_fleet_is_looked_at_less_often_but_at_the_end_once_more() -> None:
    world = World(dict.fromkeys(range(5 * ROWS_PER_S)))
    world.heard_us.pop(999)
    book = Book(world)
    await book.write(DAEMON)
    world.heard_us[3] = 7
    world.now_s += 2.0
    await book.write(DAEMON)
    assert [len(devices) for _, devices in book.written] == [5 * ROWS_PER_S - 1, 0]
    world.now_s += 4.0
    await book.write(DAEMON)
    world.heard_us[4] = 8
    await book.write(DAEMON, everything=True)
    assert [devices for _, devices in book.written[2:]] == [[3], [4]]
