"""MQTT messages to batches: quantity names to numbers, points of the device to points of the archive, lists to arrays.

All or nothing: a message with an unknown quantity or point is a PeerError that names the field; nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from ..model.quality import Quality, Source
from ..model.quantities import by_name
from ..model.readings import CurveBlock, DeviceEvent, ReadingBatch, Samples
from ..model.times import BUSINESS_ZONE, DAY_US, US, to_us
from ..protocols.common.errors import PeerError
from ..protocols.mqtt.payload import CurveSegment, Events, Readings, Sample

PointLookup = Callable[[int], int | None]

_SOURCE: Final = {
    "live": Source.LIVE, "daily": Source.DAILY, "monthly": Source.MONTHLY, "hourly": Source.HOURLY,
}  # fmt: skip
_ZONE_US: Final = int(BUSINESS_ZONE.utcoffset(None).total_seconds()) * US


def readings_batch(message: Readings, point_of: PointLookup, received_us: int) -> ReadingBatch:
    """The batch of a readings message. point_of: number inside the device -> archive point, None = unknown."""
    return ReadingBatch(
        received_us=received_us, samples=_samples(message.samples, point_of), curves=_curves(message.curves, point_of)
    )


def events_batch(message: Events, device: int, point_of: PointLookup, received_us: int) -> ReadingBatch:
    """The batch of an events message of `device`."""
    events = [
        DeviceEvent(
            device=device,
            point=None if e.point is None else _point(e.point, point_of, f"$.events[{i}].point"),
            time_us=to_us(e.time),
            end_us=None if e.end is None else to_us(e.end),
            code=e.code,
            data=dict(e.data),
        )
        for i, e in enumerate(message.events)
    ]
    return ReadingBatch(received_us=received_us, events=events)


def _point(number: int, point_of: PointLookup, path: str) -> int:
    point = point_of(number)
    if point is None:
        raise PeerError(f"the device has no metering point {number} - at `{path}`")
    return point


def _quantity(name: str, path: str) -> int:
    quantity = by_name().get(name)
    if quantity is None:
        raise PeerError(f"no quantity is called {name!r} - at `{path}`")
    return quantity.id


def _samples(samples: list[Sample], point_of: PointLookup) -> Samples | None:
    time_us: list[int] = []
    point: list[int] = []
    quantity: list[int] = []
    value: list[float] = []
    source: list[int] = []
    for i, sample in enumerate(samples):
        ids = [_quantity(name, f"$.samples[{i}].values.{name}") for name in sample.values]
        pairs = [(q, v) for q, v in zip(ids, sample.values.values(), strict=True) if v is not None]
        quantity += [q for q, _ in pairs]
        value += [v for _, v in pairs]
        time_us += [to_us(sample.time)] * len(pairs)
        point += [_point(sample.point, point_of, f"$.samples[{i}].point")] * len(pairs)
        source += [_SOURCE[sample.source]] * len(pairs)
    n = len(value)
    if not n:
        return None
    return Samples(
        np.array(time_us, np.int64),
        np.array(point, np.int32),
        np.array(quantity, np.int16),
        np.array(value, np.float64),
        np.zeros(n, np.int16),
        np.array(source, np.int16),
    )


def _curves(segments: list[CurveSegment], point_of: PointLookup) -> list[CurveBlock]:
    """Segments of one step and length go into one block."""
    shapes: dict[tuple[int, int], list[tuple[int, int, int, list[float | None]]]] = {}
    for i, segment in enumerate(segments):
        start_us = to_us(segment.start)
        if DAY_US % (segment.step_s * US):
            raise PeerError(f"a step of {segment.step_s} s does not divide a day - at `$.curves[{i}].step_s`")
        if (start_us + _ZONE_US) % (segment.step_s * US):
            raise PeerError(f"the first slot does not start on its grid - at `$.curves[{i}].start`")
        point = _point(segment.point, point_of, f"$.curves[{i}].point")
        quantity = _quantity(segment.quantity, f"$.curves[{i}].quantity")
        shapes.setdefault((segment.step_s, len(segment.values)), []).append((point, quantity, start_us, segment.values))
    blocks = []
    for (step_s, _), rows in shapes.items():
        value = np.array([row[3] for row in rows], np.float64)
        quality = np.where(np.isfinite(value), np.int16(Quality.A), np.int16(Quality.M))
        blocks.append(
            CurveBlock(
                np.array([row[0] for row in rows], np.int32),
                np.array([row[1] for row in rows], np.int16),
                np.array([row[2] for row in rows], np.int64),
                step_s,
                value,
                quality,
            )
        )
    return blocks
