"""What answers and reports of AFN 0C and 0D hold, as samples and curve blocks of the device's points. Pure.

Curves go from the frame to arrays without an object for a value (protocols.qgdw1376.curves); everything else comes as
data units. Which field is which quantity is said in items/realtime.toml and history.toml, which instant it belongs to
in qgdw1376_labels. A point is addressed by its kind and number: M measuring points, G total-sum groups, D DC ports.

Values stay on the secondary side (groups are primary by themselves). Fill bytes are no value: an absent sample, NaN in
a curve. What cannot be true yet is not kept: a slot, day or month that has not ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cache, lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...model.devices import Device, PointKind
from ...model.quality import Quality, Source
from ...model.quantities import by_id, by_name
from ...model.readings import F8, CurveBlock, Samples, samples_from_rows
from ...model.times import DAY_US, US, business_to_us
from ...protocols.common.errors import PeerError
from ...protocols.common.times import NO_TIME
from ...protocols.qgdw1376.curves import CurveArrays, area, curve_classes, gather
from ...protocols.qgdw1376.edition import Edition, edition
from ...protocols.qgdw1376.frame import Frame
from ...protocols.qgdw1376.layout import INTERVAL_MIN, Field, Group, Layout
from ...protocols.qgdw1376.message import parse
from ...protocols.qgdw1376.table import Row, lookup
from ...protocols.qgdw1376.units import Unit
from .qgdw1376_labels import (
    CLOCK_SLACK_US,
    Labels,
    freeze_us,
    hour_us,
    moment_us,
    month_us,
    of_interval,
    settlement_us,
)

Key = tuple[int, int]
"""(pn, Fn)."""

REALTIME: Final = 0x0C
HISTORY: Final = 0x0D
KINDS: Final[Mapping[str, PointKind]] = {"M": "measuring", "G": "group", "D": "dc"}
_LETTERS: Final = {kind: letter for letter, kind in KINDS.items()}
_MAX_PN: Final = 2040
_MAX_FN: Final = 249
_COLUMNS: Final = 3
_ZONE_US: Final = 8 * 3600 * US
_STATUS_3: Final = by_name()["status_word_3"].id
_SWITCH: Final = by_name()["switch_state"].id
_OPEN: Final = 0x10  # bit of status word 3: the meter's own switch is open
_PERCENT_DIGITS: Final = 3  # of a power factor sent as XXX.X %


@dataclass(slots=True)
class Readings:
    """The readings of some frames of one terminal.

    taken: units that were there and could be read, also where they were all fill; faults: why others were not kept;
    terminal: units of the terminal itself (p0) with their AFN, for whoever wants them; broken: why a whole frame could
    not be read ("" = none).
    """

    rows: list[tuple[int, int, int, float, int, int]] = field(default_factory=list)
    curves: list[CurveBlock] = field(default_factory=list)
    taken: set[Key] = field(default_factory=set)
    faults: dict[Key, str] = field(default_factory=dict)
    terminal: list[tuple[int, Unit]] = field(default_factory=list)
    broken: str = ""

    def samples(self) -> Samples | None:
        """The single values; None when there are none."""
        return samples_from_rows(self.rows) if self.rows else None


def read_answers(
    frames: Sequence[Frame], device: Device, labels: Labels, received_us: int, peer: Edition | None = None
) -> Readings:
    """Readings of uplink frames of AFN 0C and 0D (answers or reports; the parts of a long answer in any order).

    Frames of other AFNs are passed over. Never raises: what could not be read is in `faults` and `broken`.
    """
    reader = _Reader(device, labels, received_us, peer or edition())
    areas: list[bytes] = []
    rest: list[Frame] = []
    sources: list[Frame] = []
    for frame in frames:
        data = area(frame)
        if data is None:
            rest.append(frame)
        else:
            areas.append(data)
            sources.append(frame)
    found, others = gather(areas) if areas else ([], [])
    for block in found:
        reader.curve_arrays(block)
    for frame in (*rest, *(sources[i] for i in others)):
        if not frame.up or not frame.user or frame.user[0] not in (REALTIME, HISTORY):
            continue
        try:
            message = parse(frame, reader.peer)
        except PeerError as error:
            reader.found.broken = str(error)
            continue
        reader.units(message.afn, message.units)
    return reader.found


# --- what the tables say, compiled ----------------------------------------------------------------------------------
class _Slot(NamedTuple):
    """A field with a quantity. group: the list it stands in ("" = none); ids: quantity by index, 0 = none."""

    group: str
    name: str
    many: bool
    ids: tuple[int, ...]
    time: bool
    percent: bool


def tariff_quantity(name: str, index: int) -> str:
    """Name of the quantity of tariff `index` beside the one of the total."""
    if not index:
        return name
    stem, time = (name[: -len("_time")], "_time") if name.endswith("_time") else (name, "")
    return f"{stem.removesuffix('_total')}_t{index}{time}"


_MOST_TARIFFS: Final = 63


def _slot(node: Field, group: str) -> _Slot | None:
    known = by_name().get(node.quantity)
    if known is None:
        return None
    many = bool(group) or node.count is not None
    names = (tariff_quantity(node.quantity, i) for i in range(1 + (_MOST_TARIFFS if many else 0)))
    ids = tuple(by_name()[n].id if n in by_name() else 0 for n in names)
    return _Slot(group, node.name, many, ids, known.kind == "time", node.unit == "%" and known.unit == "")


@lru_cache(maxsize=4096)
def _slots(layout: Layout) -> tuple[_Slot, ...]:
    """The storable fields of a layout, of all its variants."""
    found: dict[tuple[str, str], _Slot] = {}
    for variant in layout.variants:
        for node in variant.nodes:
            inner = [(n, node.name) for n in node.fields] if isinstance(node, Group) else [(node, "")]
            for one, group in inner:
                slot = _slot(one, group) if isinstance(one, Field) else None
                if slot is not None:
                    found.setdefault((group, slot.name), slot)
    return tuple(found.values())


@cache
def curve_table() -> tuple[NDArray[np.int16], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int8]]:
    """By Fn and column: quantity (0 = none), tells of an interval, per cent of what we keep as a ratio; kind by Fn."""
    shape = (_MAX_FN + 1, _COLUMNS)
    ids, interval, percent = np.zeros(shape, np.int16), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    kinds = np.zeros(_MAX_FN + 1, np.int8)
    for fn, one in curve_classes().items():
        kinds[fn] = "MGD".index(one.pn[0])
        for i, column in enumerate(one.columns):
            known = by_name().get(column.quantity)
            if known is not None:
                ids[fn, i] = known.id
                interval[fn, i] = of_interval(known)
                percent[fn, i] = column.unit == "%" and known.unit == ""
    return ids, interval, percent, kinds


# --- reading --------------------------------------------------------------------------------------------------------
class _When(NamedTuple):
    """Label of a unit's values: instant, source, quality, and the end of the time in which its extremes occurred."""

    time_us: int
    source: Source
    quality: Quality
    end_us: int


class _Reader:
    """Fills a `Readings`."""

    def __init__(self, device: Device, labels: Labels, received_us: int, peer: Edition) -> None:
        self.labels = labels
        self.received_us = received_us
        self.latest_us = received_us + CLOCK_SLACK_US
        self.peer = peer
        self.found = Readings()
        self.points = {(_LETTERS[p.kind], p.pn): p.id for p in device.points}
        self._grid: NDArray[np.int32] | None = None

    # --- curves -----------------------------------------------------------------------------------------------------
    @property
    def grid(self) -> NDArray[np.int32]:
        """Point by kind (M, G, D) and number; 0 = not in the device list."""
        if self._grid is None:
            self._grid = np.zeros((3, _MAX_PN + 1), np.int32)
            for (letter, pn), point in self.points.items():
                self._grid["MGD".index(letter), pn] = point
        return self._grid

    def curve_arrays(self, block: CurveArrays) -> None:
        """Keep the rows whose point, quantity and start are known."""
        ids, interval, percent, kinds = curve_table()
        quantity = ids[block.fn, block.column]
        point = self.grid[kinds[block.fn], block.pn]
        known = (point > 0) & (block.start_us != NO_TIME)
        for i in np.flatnonzero(~known).tolist():
            why = "the device list has no such point" if not point[i] else "the curve has no start"
            self.found.faults[int(block.pn[i]), int(block.fn[i])] = why
        self.found.taken.update(zip(block.pn[known].tolist(), block.fn[known].tolist(), strict=True))
        step_us = block.step_s * US
        start_us = block.start_us - _ZONE_US
        if self.labels.curve == "start":
            start_us = start_us + interval[block.fn, block.column] * step_us
        value = np.where(percent[block.fn, block.column][:, None], ratio(block.value), block.value)
        self._keep_curves(known & (quantity > 0), point, quantity, start_us, block.step_s, value)

    def _keep_curves(
        self,
        keep: NDArray[np.bool_],
        point: NDArray[np.int32],
        quantity: NDArray[np.int16],
        start_us: NDArray[np.int64],
        step_s: int,
        value: F8,
    ) -> None:
        labels = start_us[:, None] + np.arange(value.shape[1]) * (step_s * US)
        value = np.where(labels <= self.latest_us, value, np.nan)
        there = np.isfinite(value)
        keep = keep & np.logical_or.reduce(there, axis=1)
        if keep.any():
            quality = np.where(there, Quality.A, Quality.M).astype(np.int16)
            self.found.curves.append(
                CurveBlock(point[keep], quantity[keep], start_us[keep], step_s, value[keep], quality[keep])
            )

    # --- data units -------------------------------------------------------------------------------------------------
    def units(self, afn: int, units: Iterable[Unit]) -> None:
        """Keep the values of data units."""
        for unit in units:
            key = (unit.pn, unit.fn)
            row = lookup(afn, unit.fn, self.peer.name)
            if row is None or unit.data is None:
                self.found.faults[key] = unit.fault or "not in the tables"
            elif unit.pn == 0:
                self.found.taken.add(key)
                self.found.terminal.append((afn, unit))
            else:
                why = self._unit(afn, row, unit.pn, unit.data)
                if why:
                    self.found.faults[key] = why
                else:
                    self.found.taken.add(key)

    def _unit(self, afn: int, row: Row, pn: int, data: Mapping[str, object]) -> str:
        """Keep one unit; why not, or "" when that is done."""
        point = next((self.points[letter, pn] for letter in row.pn if (letter, pn) in self.points), None)
        if point is None:
            return "the device list has no such point"
        if "td_c" in data or "td_h" in data:
            return self._curve_unit(row, point, data)
        when = self._when(afn, row, data)
        if isinstance(when, str):
            return when
        for slot in _slots(row.fields):
            for index, content in enumerate(_contents(slot, data)):
                number = slot.ids[index] if index < len(slot.ids) else 0
                value = _number(content, slot, when.end_us) if number and content is not None else None
                if value is not None:
                    self._sample(when, point, number, value)
        return ""

    def _sample(self, when: _When, point: int, quantity: int, value: float) -> None:
        self.found.rows.append((when.time_us, point, quantity, value, when.quality, when.source))
        if quantity == _STATUS_3:
            opened = 0.0 if int(value) & _OPEN else 1.0
            self.found.rows.append((when.time_us, point, _SWITCH, opened, when.quality, when.source))

    def _when(self, afn: int, row: Row, data: Mapping[str, object]) -> _When | str:
        read_time = data.get("read_time")
        read_us = business_to_us(_plain(read_time)) if isinstance(read_time, datetime) else None
        if afn == HISTORY:
            label = freeze_us(data.get("td_d")) if "td_d" in data else month_us(data.get("td_m"))
            if label is None:
                return "the freeze has no date"
            source = Source.DAILY if "td_d" in data else Source.MONTHLY
            if row.name.startswith("reading_day_"):
                source = Source.MONTHLY
                if read_us is not None and label - DAY_US <= read_us <= label + DAY_US:
                    label = read_us
            if label > self.latest_us:
                return "its day or month has not ended yet"
            return _When(label, source, Quality.A, label)
        if row.name.startswith("last_"):
            label = settlement_us(read_us if read_us is not None else self.received_us, self.labels)
            return _When(label, Source.MONTHLY, Quality.A, label)
        label = read_us if read_us is not None else self.received_us
        # a reading from the future: the terminal's clock is wrong, and nobody knows when it was
        quality = Quality.A if label <= self.latest_us else Quality.S
        return _When(label, Source.LIVE, quality, label + DAY_US)

    def _curve_unit(self, row: Row, point: int, data: Mapping[str, object]) -> str:
        """A curve or hour freeze that came as a data unit."""
        minutes = INTERVAL_MIN.get(data["density"]) if isinstance(data["density"], int) else None
        start: int | None
        if "td_c" in data:
            moment = data["td_c"]
            start = business_to_us(_plain(moment)) if isinstance(moment, datetime) else None
        else:
            start = hour_us(data["td_h"], self.received_us)
            start = None if start is None or minutes is None else start + minutes * 60 * US
        if start is None or minutes is None:
            return "the curve has no start or no step"
        for slot in _slots(row.fields):
            number, contents = slot.ids[0], [_float(c) for c in _contents(slot, data)]
            if not number or not contents:
                continue
            shift = self.labels.curve == "start" and "td_c" in data and of_interval(by_id()[number])
            value = np.array([contents], np.float64)
            self._keep_curves(
                np.ones(1, np.bool_),
                np.array([point], np.int32),
                np.array([number], np.int16),
                np.array([start + (minutes * 60 * US if shift else 0)], np.int64),
                minutes * 60,
                ratio(value) if slot.percent else value,
            )
        return ""


def ratio(percent: F8) -> F8:
    """Per cent with one decimal as a ratio, without the dust of a division."""
    rounded: F8 = np.round(percent / 100, _PERCENT_DIGITS)
    return rounded


def _plain(moment: datetime) -> datetime:
    """A device's time as an ordinary naive datetime."""
    return moment.replace(microsecond=0, tzinfo=None)


def _contents(slot: _Slot, data: Mapping[str, object]) -> Sequence[object]:
    """The field's value, or its values where there are several."""
    if slot.group:
        rows = data.get(slot.group)
        return [r.get(slot.name) for r in rows if isinstance(r, Mapping)] if isinstance(rows, list) else ()
    value = data.get(slot.name)
    if slot.many:
        return value if isinstance(value, list) else ()
    return (value,)


def _float(content: object) -> float:
    return float(content) if isinstance(content, (int, float, Decimal)) else np.nan


def _number(content: object, slot: _Slot, end_us: int) -> float | None:
    """A value as it is stored: times in seconds since 1970, bit sets as the number of their word."""
    if slot.time:
        moment = moment_us(content, end_us) if isinstance(content, str) else None
        return None if moment is None else moment / US
    if isinstance(content, list):
        return float(sum(1 << bit - 1 for bit in content))
    if isinstance(content, Decimal):
        return float(content.scaleb(-2) if slot.percent else content)
    return float(content) if isinstance(content, (int, float)) else None


__all__ = ["KINDS", "Key", "Labels", "Readings", "curve_table", "ratio", "read_answers", "tariff_quantity"]
