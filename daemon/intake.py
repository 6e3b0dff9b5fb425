"""Every batch on its way to the journal: control's live power and "last heard" are fed before, the journal decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from ..model.devices import Device
from ..model.quantities import quantity
from ..model.readings import DeviceEvent, ReadingBatch
from .livepower import LivePower


class Sink(Protocol):
    """The journal's side."""

    async def deliver(self, batch: ReadingBatch) -> None:
        """Durable when this returns."""


class Intake:
    """A sink that looks at what passes. `heard(device, time_us, clock_offset_s)` is told once a batch and device,
    `saw(event)` of every event."""

    def __init__(
        self,
        sink: Sink,
        live: LivePower,
        heard: Callable[[int, int, float | None], None],
        saw: Callable[[DeviceEvent], None] = lambda _: None,
    ) -> None:
        self._sink, self._live, self._heard, self._saw = sink, live, heard, saw
        self._device_of: dict[int, int] = {}
        self._clock_offset = quantity("clock_offset").id

    def set_devices(self, devices: Sequence[Device]) -> None:
        """Take over the archive in force."""
        self._live.set_devices(devices)
        self._device_of = {p.id: d.id for d in devices for p in d.points}

    async def deliver(self, batch: ReadingBatch) -> None:
        """Look, then store; what the journal refuses was still heard and measured."""
        self._live.feed(batch)
        for event in batch.events:
            self._saw(event)
        if batch.samples is not None:
            offsets: dict[int, float] = {}
            for i in np.flatnonzero(batch.samples.quantity == self._clock_offset):
                offsets[int(batch.samples.point[i])] = float(batch.samples.value[i])
            for point in np.unique(batch.samples.point).tolist():
                device = self._device_of.get(point)
                if device is not None:
                    self._heard(device, batch.received_us, offsets.get(point))
        await self._sink.deliver(batch)
