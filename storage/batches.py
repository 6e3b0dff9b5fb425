"""Readings as bytes: what one journal record holds. Arrays stay raw; only the small header is msgpack.

    record = header length (u32 LE) | header (msgpack of _Header) | arrays, little-endian, back to back

A record holds several batches; their samples are joined, with the receive time of each run. Not a format for other
programs: it lives from the journal's fsync to the database's commit, and carries a version.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from ..model.readings import I8, CurveBlock, DeviceEvent, ParameterValue, ReadingBatch, Samples

VERSION: Final = 1
_LENGTH: Final = struct.Struct("<I")
_SAMPLE_ARRAYS: Final = (
    ("time_us", "<i8"),
    ("value", "<f8"),
    ("point", "<i4"),
    ("quantity", "<i2"),
    ("quality", "<i2"),
    ("source", "<i2"),
)


class _Header(msgspec.Struct, array_like=True):
    version: int
    received_us: list[int]  # of each batch (of each run of a joined one)
    samples: list[int]  # number of samples received then
    curves: list[tuple[int, int, int, int]]  # batch, segments, slots, step_s
    events: list[tuple[int, DeviceEvent]]  # batch, event
    parameters: list[ParameterValue]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Header)


@dataclass(frozen=True, slots=True)
class Record:
    """The content of one record (or of several, joined): samples (n,) with their receive times (n,), the rest listed.

    `curves` and `events` are (received_us, item) in order of arrival.
    """

    samples: Samples
    received_us: I8
    curves: tuple[tuple[int, CurveBlock], ...]
    events: tuple[tuple[int, DeviceEvent], ...]
    parameters: tuple[ParameterValue, ...]


def encode_batches(batches: Sequence[ReadingBatch]) -> bytes:
    """One record of the batches in order."""
    header = _Header(VERSION, [], [], [], [], [])
    parts: list[bytes] = []
    last: list[int] = []  # of each batch: the place of its received_us in the header
    for b in batches:
        for received_us, count in b.runs or ((b.received_us, 0 if b.samples is None else len(b.samples)),):
            header.received_us.append(received_us)
            header.samples.append(count)
        last.append(len(header.received_us) - 1)
        header.parameters.extend(b.parameters)
    filled = [b.samples for b in batches if b.samples is not None and len(b.samples)]
    for name, kind in _SAMPLE_ARRAYS if filled else ():
        columns = [getattr(s, name) for s in filled]
        joined = columns[0] if len(columns) == 1 else np.concatenate(columns)
        parts.append(joined.astype(kind, copy=False).tobytes())
    for i, b in zip(last, batches, strict=True):
        header.events.extend((i, e) for e in b.events)
        for c in b.curves:
            header.curves.append((i, len(c.point), c.value.shape[1], c.step_s))
            parts += (
                c.start_us.astype("<i8", copy=False).tobytes(),
                c.value.astype("<f8", copy=False).tobytes(),
                c.point.astype("<i4", copy=False).tobytes(),
                c.quantity.astype("<i2", copy=False).tobytes(),
                c.quality.astype("<i2", copy=False).tobytes(),
            )
    head = _encoder.encode(header)
    return b"".join((_LENGTH.pack(len(head)), head, *parts))


def decode_record(data: bytes) -> Record:
    """What `encode_batches` wrote; arrays are read-only views of `data`. ValueError: not such a record."""
    if len(data) < _LENGTH.size:
        raise ValueError("record shorter than its header")
    start = _LENGTH.size
    (length,) = _LENGTH.unpack_from(data)
    try:
        header = _decoder.decode(memoryview(data)[start : start + length])
    except msgspec.MsgspecError as error:
        raise ValueError(f"record header: {error}") from error
    if header.version != VERSION:
        raise ValueError(f"record version {header.version}, this program reads {VERSION}")
    at = start + length

    def take(kind: str, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        nonlocal at
        found = np.frombuffer(data, np.dtype(kind), count, at)
        at += found.nbytes
        return found

    n = sum(header.samples)
    columns = {name: take(kind, n) for name, kind in _SAMPLE_ARRAYS}
    samples = Samples(**columns)  # type: ignore[arg-type]
    received = np.repeat(np.array(header.received_us, np.int64), header.samples)
    curves = []
    for batch, k, m, step_s in header.curves:
        start_us, value = take("<i8", k), take("<f8", k * m).reshape(k, m)
        point, quantity = take("<i4", k), take("<i2", k)
        block = CurveBlock(point, quantity, start_us, step_s, value, take("<i2", k * m).reshape(k, m))  # type: ignore[arg-type]
        curves.append((header.received_us[batch], block))
    if at != len(data):
        raise ValueError(f"record has {len(data) - at} bytes too many")
    events = tuple((header.received_us[i], e) for i, e in header.events)
    return Record(samples, received, tuple(curves), events, tuple(header.parameters))


def join_records(records: Sequence[Record]) -> Record:
    """Several records as one, in order of arrival."""
    if len(records) == 1:
        return records[0]
    columns = {name: np.concatenate([getattr(r.samples, name) for r in records]) for name, _ in _SAMPLE_ARRAYS}
    return Record(
        Samples(**columns),
        np.concatenate([r.received_us for r in records]),
        tuple(c for r in records for c in r.curves),
        tuple(e for r in records for e in r.events),
        tuple(p for r in records for p in r.parameters),
    )
