"""Curves of terminals that are still the bytes of their answers: decoded many conversations at a time.

A frame holds some hundred values; numpy costs as many calls for them as for a hundred thousand. So a conversation keeps
the data areas of its answers (AFN 0D, checked to hold nothing but curves), and the collector decodes what has come from
all terminals within a moment at once. Nothing of this shows outside: RawCurves is a sequence of CurveBlocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from ..model.devices import POINT_KINDS, Device
from ..model.quality import Quality
from ..model.readings import F8, I4, I8, CurveBlock
from ..model.times import BUSINESS_ZONE, US
from ..protocols.common.times import NO_TIME
from ..protocols.qgdw1376.curves import CurveArrays, gather
from .sessions.qgdw1376_readings import curve_table, ratio

_ZONE_US: Final = BUSINESS_ZONE.utcoffset(None) // BUSINESS_ZONE.utcoffset(None).resolution
_PN_BITS: Final = 12
_OWNER_BITS: Final = 16


class PointTable(NamedTuple):
    """The points of a device: key = kind (order of POINT_KINDS) and number, ascending; id: metering point number."""

    key: I8
    id: I4


def point_table(device: Device) -> PointTable:
    """Every point of a device."""
    rows = sorted((POINT_KINDS.index(p.kind) << _PN_BITS | p.pn, p.id) for p in device.points)
    return PointTable(np.array([r[0] for r in rows], np.int64), np.array([r[1] for r in rows], np.int32))


class CurveReply(NamedTuple):
    """The data areas of one conversation. starts: the terminal labels intervals by their start.

    quality: of a value that is there; latest_us: later labels cannot be true yet; values: how many there may be.
    """

    areas: tuple[bytes, ...]
    points: PointTable
    starts: bool
    quality: Quality
    latest_us: int
    values: int


class RawCurves(Sequence[CurveBlock]):
    """CurveBlocks that are decoded when somebody looks."""

    __slots__ = ("_blocks", "replies")

    def __init__(self, replies: Sequence[CurveReply]) -> None:
        self.replies = tuple(replies)
        self._blocks: tuple[CurveBlock, ...] | None = None

    @property
    def size(self) -> int:
        """Number of values there may be; decodes nothing."""
        return sum(r.values for r in self.replies)

    @property
    def blocks(self) -> tuple[CurveBlock, ...]:
        """The curves."""
        if self._blocks is None:
            self._blocks = tuple(_decode(self.replies))
        return self._blocks

    def __len__(self) -> int:
        return len(self.blocks)

    @overload
    def __getitem__(self, index: int) -> CurveBlock: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[CurveBlock]: ...
    def __getitem__(self, index: int | slice) -> CurveBlock | Sequence[CurveBlock]:
        return self.blocks[index]

    def __bool__(self) -> bool:
        return bool(self.replies)


def join_curves(parts: Sequence[RawCurves]) -> RawCurves:
    """All as one, to be decoded together."""
    return parts[0] if len(parts) == 1 else RawCurves([r for p in parts for r in p.replies])


def size_of_curves(curves: Sequence[CurveBlock]) -> int:
    """Number of slots, or of those there may be; decodes nothing."""
    return curves.size if isinstance(curves, RawCurves) else sum(c.value.size for c in curves)


class _Sources(NamedTuple):
    """The replies' columns. owner: reply of each data area; keys, ids: all points, keys with the reply's number."""

    owner: I8
    keys: I8
    ids: I4
    starts: NDArray[np.bool_]
    quality: NDArray[np.int16]
    latest_us: I8


def _decode(replies: Sequence[CurveReply]) -> Iterator[CurveBlock]:
    if not replies:
        return
    numbers = np.arange(len(replies), dtype=np.int64)
    keys = np.concatenate([r.points.key for r in replies])
    sources = _Sources(
        owner=np.repeat(numbers, [len(r.areas) for r in replies]),
        keys=keys + np.repeat(numbers << _OWNER_BITS, [len(r.points.key) for r in replies]),
        ids=np.concatenate([r.points.id for r in replies]),
        starts=np.array([r.starts for r in replies], np.bool_),
        quality=np.array([r.quality for r in replies], np.int16),
        latest_us=np.array([r.latest_us for r in replies], np.int64),
    )
    arrays, _ = gather([area for r in replies for area in r.areas])
    for curves in arrays:
        block = _block(curves, sources)
        if block is not None:
            yield block


def _block(curves: CurveArrays, sources: _Sources) -> CurveBlock | None:
    """The rows whose point, quantity and start are known and that hold any value."""
    ids, interval, percent, kinds = curve_table()
    source = sources.owner[curves.frame]
    wanted = source << _OWNER_BITS | kinds[curves.fn].astype(np.int64) << _PN_BITS | curves.pn
    at = np.minimum(np.searchsorted(sources.keys, wanted), max(0, len(sources.keys) - 1))
    quantity = ids[curves.fn, curves.column]
    step_us = curves.step_s * US
    late = sources.starts[source] & interval[curves.fn, curves.column]
    start_us = curves.start_us - _ZONE_US + late * step_us
    value = _values(curves, percent[curves.fn, curves.column], start_us, sources.latest_us[source])
    there = np.isfinite(value)
    known = sources.keys[at] == wanted if len(sources.keys) else np.zeros(len(wanted), np.bool_)
    keep = known & (quantity > 0) & (curves.start_us != NO_TIME) & there.any(axis=1)
    if not keep.any():
        return None
    quality = np.where(there, sources.quality[source][:, None], np.int16(Quality.M))
    if keep.all():
        return CurveBlock(sources.ids[at], quantity, start_us, curves.step_s, value, quality)
    return CurveBlock(sources.ids[at[keep]], quantity[keep], start_us[keep], curves.step_s, value[keep], quality[keep])


def _values(curves: CurveArrays, percent: NDArray[np.bool_], start_us: I8, latest_us: I8) -> F8:
    """Ratios instead of per cent; nothing that lies in the future."""
    value, step_us = curves.value, curves.step_s * US
    if percent.any():
        value = np.where(percent[:, None], ratio(value), value)
    slots = np.arange(value.shape[1]) * step_us
    if (start_us + slots[-1] > latest_us).any():
        value = np.where(start_us[:, None] + slots <= latest_us[:, None], value, np.nan)
    return value
