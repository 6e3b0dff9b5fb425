"""Load records (负荷记录, class 06, DL/T 645-2007 table A.7) as arrays.

    A0 A0  count  mm hh DD MM YY  class 1 (17) AA  class 2 (24) AA  class 3 (8) AA  class 4 (16) AA  class 5 (16) AA
    class 6 (6) AA  CS  E5                         a class that is not recorded is empty, its AA stays

Tolerant, because editions and meters differ: the count byte and CS are not relied upon (the frame has its own
checksum), classes are told by their AA (never a BCD byte), 4-byte currents and powers are accepted, and a single-class
answer may hold only time and data. Times are the device's naive clock in µs, as if it were UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..common.bcd import bcd_array
from ..common.checksum import sum8
from ..common.times import decode_datetime, device_times, encode_datetime
from .fields import Content, Field, encode_field
from .items import load_fields

MARK: Final = b"\xa0\xa0"
GAP: Final = 0xAA
END_MARK: Final = 0xE5
TIME_BYTES: Final = 5
CLASSES: Final = (1, 2, 3, 4, 5, 6)


@dataclass(frozen=True, slots=True)
class LoadTable:
    """Records of one class: k columns, time_us int64 (n,) (NO_TIME: unreadable), value float64 (n, k) (NaN: none)."""

    columns: tuple[Field, ...]
    time_us: NDArray[np.int64]
    value: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things stand in every record of a uniform payload."""

    stride: int
    time: int
    parts: tuple[tuple[int, int, int], ...]  # class, offset, bytes
    fixed: tuple[tuple[int, int], ...]  # offset, byte that must stand there


@cache
def _size(number: int, *, wide: bool = False) -> int:
    return sum(f.size + (1 if wide and f.size == 3 else 0) for f in load_fields(number))


def decode_loads(payload: bytes, number: int = 0) -> dict[int, LoadTable]:
    """Tables by class of a (concatenated) answer to 06 `number` 00 xx; number 0 = all classes. Never raises.

    Uniform records are decoded at once; a payload with records of several forms record by record.
    """
    found: dict[int, list[LoadTable]] = {}
    offset = 0
    while offset < len(payload):
        layout = _layout(payload, offset, number)
        if layout is None:
            break
        rows, used = _uniform(payload, offset, layout)
        for part in layout.parts:
            found.setdefault(part[0], []).append(_table(rows, layout, part))
        offset += used
    return {c: _joined(tables) for c, tables in found.items()}


def _layout(payload: bytes, offset: int, number: int) -> _Layout | None:
    if payload.startswith(MARK, offset):
        return _marked_layout(payload, offset)
    return _bare_layout(payload, offset, number) if number in CLASSES else None


def _marked_layout(payload: bytes, offset: int) -> _Layout | None:
    """Layout of the record block at `offset`, by its AA separators."""
    place = offset + 3 + TIME_BYTES
    parts: list[tuple[int, int, int]] = []
    fixed = [(0, 0xA0), (1, 0xA0)]
    for number in CLASSES:
        end = payload.find(GAP, place)
        if end < 0 or end - place not in (0, _size(number), _size(number, wide=True)):
            return None
        if end > place:
            parts.append((number, place - offset, end - place))
        fixed.append((end - offset, GAP))
        place = end + 1
    if place + 2 > len(payload) or payload[place + 1] != END_MARK:
        return None
    fixed.append((place + 1 - offset, END_MARK))
    return _Layout(place + 2 - offset, 3, tuple(parts), tuple(fixed))


def _bare_layout(payload: bytes, offset: int, number: int) -> _Layout | None:
    """Time and data of one class, with or without a closing AA, told by the length of the whole."""
    rest = len(payload) - offset
    for size in (_size(number), _size(number, wide=True)):
        for gap in (0, 1):
            stride = TIME_BYTES + size + gap
            if rest % stride or decode_datetime(payload[offset : offset + TIME_BYTES]) is None:
                continue
            fixed = ((stride - 1, GAP),) if gap else ()
            if all(payload[offset + at] == byte for at, byte in fixed):
                return _Layout(stride, 0, ((number, TIME_BYTES, size),), fixed)
    return None


def _uniform(payload: bytes, offset: int, layout: _Layout) -> tuple[NDArray[np.uint8], int]:
    """The run of records from `offset` that have this layout, as rows, and the bytes they take (at least one)."""
    count = (len(payload) - offset) // layout.stride
    rows = np.frombuffer(payload, np.uint8, count * layout.stride, offset).reshape(count, layout.stride)
    good: NDArray[np.bool_] = np.ones(count, np.bool_)
    for at, byte in layout.fixed:
        good &= rows[:, at] == byte
    for _number, at, size in layout.parts:  # an AA inside would mean another layout
        good &= np.all(rows[:, at : at + size] != GAP, axis=1)
    bad = np.flatnonzero(~good)
    run = max(1, int(bad[0])) if len(bad) else count
    return rows[:run], run * layout.stride


def _table(rows: NDArray[np.uint8], layout: _Layout, part: tuple[int, int, int]) -> LoadTable:
    number, at, size = part
    columns = load_fields(number)
    wide = size != _size(number)
    values: list[NDArray[np.float64]] = []
    i = 0
    while i < len(columns):  # neighbours of one format are decoded together
        field = columns[i]
        j = i
        while j < len(columns) and (columns[j].format == field.format):
            j += 1
        width = field.size + (1 if wide and field.size == 3 else 0)
        block = rows[:, at : at + width * (j - i)]
        values.append(bcd_array(block, width=width, decimals=field.decimals, signed=field.signed))
        at += width * (j - i)
        i = j
    return LoadTable(
        columns, device_times(rows[:, layout.time : layout.time + TIME_BYTES]), np.concatenate(values, axis=1)
    )


def _joined(tables: list[LoadTable]) -> LoadTable:
    if len(tables) == 1:
        return tables[0]
    return LoadTable(
        tables[0].columns, np.concatenate([t.time_us for t in tables]), np.concatenate([t.value for t in tables])
    )


def encode_record(moment: datetime, contents: Mapping[int, Sequence[Content | int | float]]) -> bytes:
    """One record block; contents by class, a missing class stays empty, None = FF fill."""
    body = encode_datetime(moment, seconds=False)
    for number in CLASSES:
        if number in contents:
            body += b"".join(encode_field(f, c) for f, c in zip(load_fields(number), contents[number], strict=True))
        body += bytes((GAP,))
    record = MARK + bytes((len(body),)) + body
    return record + bytes((sum8(record), END_MARK))
