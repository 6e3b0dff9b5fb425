"""Supervision of many: everybody within a minute, never all in one breath."""

from __future__ import annotations

from typing import Any, cast

from fuhe.acquisition.io.clock import Clock
from fuhe.acquisition.io.engine import Engine
from fuhe.daemon.field import EngineField
from fuhe.daemon.supervision import LOOK_S, NEW, POWER_S, Supervision
from fuhe.model.work import Duty, WorkItem
from fuhe.storage.database import Database


class Still:
    """A clock moved by hand, an engine that remembers, a field of plain devices."""

    s = 1000.0

    def __init__(self) -> None:
        self.items: list[tuple[float, WorkItem]] = []

    def monotonic_s(self) -> float:
        return self.s

    def submit(self, item: WorkItem) -> None:
        self.items.append((self.s, item))

    def watch(self, device: int) -> None:
        return None

    def facts(self, device: int) -> None:
        return None


def looks(count: int, seconds: float) -> list[list[int]]:
    """Devices asked in each look."""
    world: Any = Still()
    made = Supervision(cast(Database, None), cast(Engine, world), cast(EngineField, world), cast(Clock, world))
    found = []
    while world.s < 1000.0 + seconds:
        before = len(world.items)
        made._submit(list(range(count)))
        found.append([i.device for _, i in world.items[before:] if i.duty is Duty.LIVE])
        world.s += LOOK_S
    return found


def test_a_few_are_asked_each_minute_at_once() -> None:
    found = looks(20, 2 * POWER_S)
    assert [len(f) for f in found if f] == [20, 20]


def test_thousands_are_spread_over_the_minute_and_none_is_forgotten() -> None:
    found = looks(2000, 4 * POWER_S)
    assert max(map(len, found)) == NEW and max(map(len, found[10:])) <= NEW
    steady = found[int(2 * POWER_S / LOOK_S) :]
    assert max(map(len, steady)) <= 2000 * 1.3 * LOOK_S / POWER_S, "spread"
    seen: dict[int, int] = {}
    for look, devices in enumerate(found):
        for d in devices:
            at_first = seen.get(d, 0) < POWER_S / LOOK_S
            assert look - seen.get(d, look) <= (1.75 if at_first else 1.2) * POWER_S / LOOK_S, (look, d)
            seen[d] = look
    assert len(seen) == 2000
