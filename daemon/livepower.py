"""The last half hour of active power per device, as it came in, in primary kW: what control's freshness rules look at.

Fed by every delivered batch before it goes to the journal, so that a slow database never makes power look stale. At the
start what the database holds of the last `SEED_S` seconds is put in, with the instants at which it was measured: the
lowest power of the last 15 minutes (interlock 3) must not forget a restart. What is not there stays unknown.
Bounded: `depth` samples a point.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import psycopg

from ..acquisition.io.clock import Clock
from ..model.devices import Device
from ..model.quantities import quantity
from ..model.readings import F8, I2, I8, ReadingBatch, Samples
from ..model.times import US
from ..protocols.common.errors import LinkError
from ..storage.database import Database
from ..storage.readings import load_samples

log = logging.getLogger(__name__)

SEED_S: Final = 20 * 60
WAIT_S: Final = 0.2


class LivePower:
    """A ring of (time_us, kW, quality) per point; a device's power: its total-sum group, else its points' sum."""

    def __init__(self, depth: int = 512) -> None:
        self._depth = depth
        self._quantities = (quantity("active_power_total").id, quantity("group_power").id)
        self._rings: dict[int, deque[tuple[int, float, int]]] = {}
        self._points: dict[int, tuple[tuple[int, float], ...]] = {}
        self._groups: dict[tuple[int, int], tuple[tuple[int, float], ...]] = {}

    def set_devices(self, devices: Sequence[Device]) -> None:
        """Take over points and multipliers of the devices in force."""
        self._points = {d.id: tuple((p.id, float(p.multiplier)) for p in d.measuring) for d in devices}
        self._groups = {(d.id, p.pn): ((p.id, 1.0),) for d in devices for p in d.points if p.kind == "group"}

    def feed(self, batch: ReadingBatch) -> None:
        """Keep the active powers of a batch."""
        samples = batch.samples
        if samples is None:
            return
        for i in np.flatnonzero(np.isin(samples.quantity, self._quantities)):
            ring = self._rings.setdefault(int(samples.point[i]), deque(maxlen=self._depth))
            row = (int(samples.time_us[i]), float(samples.value[i]), int(samples.quality[i]))
            if not ring or row[0] > ring[-1][0]:
                ring.append(row)

    def seed(self, samples: Samples, now_us: int) -> None:
        """Put in what was measured before and is not in the book yet; nothing that claims to lie ahead of `now_us`."""
        rows: dict[int, dict[int, tuple[int, float, int]]] = {}
        for i in np.flatnonzero(np.isin(samples.quantity, self._quantities) & (samples.time_us <= now_us)):
            time_us = int(samples.time_us[i])
            row = (time_us, float(samples.value[i]), int(samples.quality[i]))
            rows.setdefault(int(samples.point[i]), {}).setdefault(time_us, row)
        for point, found in rows.items():
            found |= {row[0]: row for row in self._rings.get(point, ())}
            self._rings[point] = deque((found[t] for t in sorted(found)), maxlen=self._depth)

    def stored(self, connection: psycopg.Connection[Any], now_us: int) -> Samples:
        """What the database holds of the last `SEED_S` seconds for the points in force."""
        points = {p for rows in (*self._points.values(), *self._groups.values()) for p, _ in rows}
        return load_samples(connection, sorted(points), self._quantities, now_us - SEED_S * US, now_us + 1)

    def has_group(self, device: int, group: int) -> bool:
        """Whether the terminal itself adds up this group (its powers are primary)."""
        return (device, group) in self._groups

    def window(self, device: int, from_us: int, to_us: int, group: int = 1) -> tuple[I8, F8, I2]:
        """(time_us, kW primary, quality) of one device in [from_us, to_us], ascending; empty when nothing is known.

        The device's total-sum group where the list has it, else the sum of its measuring points, never both. Several
        points: only instants at which every point has a value are summed, the worst quality counts.
        """
        sums: dict[int, tuple[float, int, int]] = {}
        points = self._groups.get((device, group)) or self._points.get(device, ())
        for point, multiplier in points:
            for time_us, value, quality in self._rings.get(point, ()):
                if from_us <= time_us <= to_us:
                    kw, worst, n = sums.get(time_us, (0.0, 0, 0))
                    sums[time_us] = (kw + value * multiplier, max(worst, quality), n + 1)
        rows = sorted((t, kw, q) for t, (kw, q, n) in sums.items() if n == len(points))
        return (
            np.array([r[0] for r in rows], np.int64),
            np.array([r[1] for r in rows], np.float64),
            np.array([r[2] for r in rows], np.int16),
        )


async def seed_rest(live: LivePower, database: Database, caught_up: Callable[[], bool], clock: Clock) -> None:
    """Once more when the journal of the run before is in the database: what a killed daemon had only there."""
    while not caught_up():
        await clock.sleep(WAIT_S)
    while True:
        try:
            found = await asyncio.to_thread(_read, live, database, clock.now_us())
        except (psycopg.Error, LinkError) as error:
            log.warning("power of the last minutes not read yet: %s", error)
            await clock.sleep(WAIT_S)
        else:
            live.seed(found, clock.now_us())
            return


def _read(live: LivePower, database: Database, now_us: int) -> Samples:
    with database.connect() as connection:
        return live.stored(connection, now_us)
