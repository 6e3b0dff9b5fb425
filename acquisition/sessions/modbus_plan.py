"""What Modbus conversations share: plans of reads with their decode tables, and what devices have taught us.

A plan is made once for a (map, items) and serves all devices of a kind. What one device taught (a refused address, a
read that was too long, where its SunSpec block lies) is kept for a day in `MEMORY`: asked once and not each cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from ...model.quality import Quality
from ...model.quantities import by_name
from ...model.readings import I2, Samples
from ...protocols.modbus.gather import Gather
from ...protocols.modbus.grouping import Read, group
from ...protocols.modbus.maps import RegisterMap, load_map
from ..raw import Reply

_DAY_US: Final = 86_400_000_000
_MAX_PLANS: Final = 16


class Learned:
    """What one device taught: refused values with exception codes, places where reads must be cut, SunSpec base."""

    __slots__ = ("base", "cuts", "plans", "refused", "since_us")

    def __init__(self, since_us: int) -> None:
        self.since_us = since_us
        self.cuts: set[tuple[int, int]] = set()
        self.refused: dict[str, int] = {}
        self.base: int | None = None
        self.plans: dict[tuple[str, ...], Plan] = {}


class Memory:
    """Learned facts by device, bounded, forgotten after a day (the meter may have been exchanged)."""

    def __init__(self, limit: int = 65_536) -> None:
        self._limit = limit
        self._entries: dict[tuple[int, str, str], Learned] = {}

    def get(self, key: tuple[int, str, str], now_us: int) -> Learned | None:
        """What is known and not too old."""
        entry = self._entries.get(key)
        if entry is not None and now_us - entry.since_us > _DAY_US:
            del self._entries[key]
            return None
        return entry

    def learn(self, key: tuple[int, str, str], now_us: int) -> Learned:
        """The entry to write to; plans made from older knowledge are dropped."""
        entry = self.get(key, now_us)
        if entry is None:
            if len(self._entries) >= self._limit:
                del self._entries[next(iter(self._entries))]
            entry = self._entries[key] = Learned(now_us)
        entry.plans.clear()
        return entry

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def plan(self, learned: Learned, regmap: RegisterMap, items: tuple[str, ...]) -> Plan:
        """The plan for a device that taught something."""
        plan = learned.plans.get(items)
        if plan is None:
            if len(learned.plans) >= _MAX_PLANS:
                learned.plans.clear()
            plan = learned.plans[items] = Plan(regmap, items, learned)
        return plan


MEMORY: Final = Memory()


class Plan:
    """The reads of one list of items of one map, and how their joined answers become arrays."""

    __slots__ = ("decoder", "missing", "reads", "refused")

    def __init__(self, regmap: RegisterMap, items: tuple[str, ...], learned: Learned | None = None) -> None:
        rows = regmap.by_name
        refused = learned.refused if learned else {}
        self.missing = tuple(i for i in items if i not in rows)
        self.refused = {i: refused[i] for i in items if i in refused}
        wanted = [rows[i] for i in items if i in rows and i not in refused]
        wanted += [rows[name] for name in {r.sf for r in wanted if r.sf}]
        holes = [rows[i] for i in refused]
        self.reads = group(wanted, regmap.blocks, regmap.max_registers, learned.cuts if learned else (), holes)
        self.decoder = Decoder(self.reads, regmap)


class Decoder:
    """Joined answers of `reads` to values (see `acquisition.raw`), all of good quality."""

    __slots__ = ("gather", "quantity", "width")

    def __init__(self, reads: tuple[Read, ...], regmap: RegisterMap) -> None:
        names = by_name()
        self.gather = Gather(reads, regmap.not_available, {name: q.decimals for name, q in names.items()})
        ids = [names[r.name].id if r.name in names else 0 for r in self.gather.registers]
        self.quantity: I2 = np.array(ids, np.int16)
        self.width = len(ids)

    def samples(self, replies: Sequence[Reply]) -> tuple[Samples, list[int]]:
        """Values of all replies; one that a device does not have is an absent row."""
        value = self.gather.table(b"".join([r.payload for r in replies]))
        there = np.isfinite(value)
        counts: list[int] = there.sum(axis=1).tolist()
        quantity: I2 = np.tile(self.quantity, len(replies))
        value = value.ravel()
        if sum(counts) != len(value):
            kept = there.ravel()
            quantity, value = quantity[kept], value[kept]
        return (
            Samples(
                np.repeat(np.array([r.time_us for r in replies], np.int64), counts),
                np.repeat(np.array([r.point for r in replies], np.int32), counts),
                quantity,
                value,
                np.full(len(value), Quality.A, np.int16),
                np.repeat(np.array([r.source for r in replies], np.int16), counts),
            ),
            counts,
        )


@lru_cache(maxsize=1024)
def plan_for(map_name: str, items: tuple[str, ...]) -> Plan:
    """The plan for all devices of a map that taught nothing special."""
    return Plan(load_map(map_name), items)
