"""Curve segments as business days: cutting, scaling to integers, merging slot by slot. Pure numpy, no SQL.

A day has n = 86400 / step_s slots; slot i (from 0) carries the label 00:00 + (i + 1) * step_s, so day D owns 00:15 ..
24:00 (domain 3.2). Values are integers of the quantity's last kept decimal; NONE marks an empty slot. What a filled
slot holds is never replaced: a different later value is a conflict, the slot becomes S and the later value is kept
beside it as a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..model.quality import Quality, Source
from ..model.quantities import by_id
from ..model.readings import I2, I4, I8, CurveBlock, Samples
from ..model.times import BUSINESS_ZONE

Bools = NDArray[np.bool_]

NONE: Final = np.int64(np.iinfo(np.int64).min)
EXACT: Final = 9.0e15  # integers above are no longer exact in float64: such a "value" is kept as a sample
DAY_S: Final = 86_400
UNKNOWN_DECIMALS: Final = 6
_ZONE_S: Final = int(BUSINESS_ZONE.utcoffset(None).total_seconds())
_KEY: Final = np.dtype([("day", "<i4"), ("quantity", "<i2"), ("point", "<i4"), ("decimals", "<i2")])


@dataclass(frozen=True, slots=True)
class DayRows:
    """k rows of one step: key (k,) of day (days since 1970), quantity, point, decimals; number and quality (k, n).

    received_us int64 (k,): when the newest segment in the row arrived.
    """

    step_s: int
    key: NDArray[np.void]
    number: I8
    quality: I2
    received_us: I8

    def __len__(self) -> int:
        return len(self.key)

    def take(self, index: NDArray[np.intp] | Bools) -> DayRows:
        """The rows at an index or mask."""
        return DayRows(self.step_s, self.key[index], self.number[index], self.quality[index], self.received_us[index])


def _decimals_table() -> I2:
    table = np.full(32768, UNKNOWN_DECIMALS, np.int16)
    for number, quantity in by_id().items():
        table[number] = quantity.decimals
    return table


def cut(received_us: int, block: CurveBlock) -> tuple[DayRows | None, Samples | None]:
    """A block as day rows; what does not lie on the day's grid of slots comes back as samples (source curve)."""
    step_us = block.step_s * 1_000_000
    local = block.start_us + _ZONE_S * 1_000_000
    if DAY_S % block.step_s:
        fits = np.zeros(len(local), bool)
    else:
        fits = local % step_us == 0
    decimals = _decimals_table()[block.quantity]
    scaled = np.rint(block.value * np.power(10.0, decimals)[:, None])
    there = np.isfinite(block.value)
    with np.errstate(invalid="ignore"):
        exact = there & (np.abs(scaled) <= EXACT)
    stray = there & ~(exact & fits[:, None])
    strays = _as_samples(block, stray) if stray.any() else None
    keep = exact & fits[:, None]
    if not keep.any():
        return None, strays
    n, m = DAY_S // block.step_s, block.value.shape[1]
    first = local // step_us - 1  # absolute slot number of the first label; a label of 00:00 belongs to the day before
    day0 = first // n
    offset = (first - day0 * n)[:, None] + np.arange(m)
    spans = int(offset[:, -1].max()) // n + 1
    k = len(local)
    number = np.full((k * spans, n), NONE, np.int64)
    quality = np.zeros((k * spans, n), np.int16)
    row = np.arange(k)[:, None] * spans + offset // n
    r, c = row[keep], (offset % n)[keep]
    number[r, c] = scaled[keep].astype(np.int64)
    quality[r, c] = block.quality[keep]
    key = np.zeros((k, spans), _KEY)
    key["day"] = day0[:, None] + np.arange(spans)
    key["quantity"], key["point"], key["decimals"] = (
        block.quantity[:, None], block.point[:, None], decimals[:, None],
    )  # fmt: skip
    rows = DayRows(block.step_s, key.reshape(-1), number, quality, np.full(k * spans, received_us, np.int64))
    return rows.take((number != NONE).any(axis=1)), strays


def _as_samples(block: CurveBlock, mask: Bools) -> Samples:
    k, m = block.value.shape
    time = block.start_us[:, None] + np.arange(m) * (block.step_s * 1_000_000)
    count = int(mask.sum())
    return Samples(
        time[mask],
        np.broadcast_to(block.point[:, None], (k, m))[mask],
        np.broadcast_to(block.quantity[:, None], (k, m))[mask],
        block.value[mask],
        block.quality[mask],
        np.full(count, Source.CURVE, np.int16),
    )


def merge(old: DayRows, new: DayRows) -> tuple[DayRows, Bools]:
    """Row i of `new` into row i of `old` (same keys and decimals); also where they conflict (k, n)."""
    filled, comes = old.number != NONE, new.number != NONE
    conflict = filled & comes & (old.number != new.number)
    fill = comes & ~filled
    quality = np.where(fill, new.quality, old.quality)
    # An equal value that comes as suspect (or was in conflict within its own batch) makes the slot suspect as well.
    suspect = conflict | (filled & comes & (new.quality == Quality.S))
    quality[suspect] = Quality.S
    merged = DayRows(
        old.step_s,
        old.key,
        np.where(fill, new.number, old.number),
        quality,
        np.maximum(old.received_us, new.received_us),
    )
    return merged, conflict


def conflicts_as_samples(new: DayRows, conflict: Bools) -> tuple[Samples, I8]:
    """The later values of conflicting slots as suspect samples under their labels, and their receive times."""
    r, c = np.nonzero(conflict)
    label_s = new.key["day"][r].astype(np.int64) * DAY_S + (c + 1) * new.step_s - _ZONE_S
    samples = Samples(
        label_s * 1_000_000,
        new.key["point"][r].astype(np.int32),
        new.key["quantity"][r].astype(np.int16),
        new.number[r, c] / np.power(10.0, new.key["decimals"][r]),
        np.full(len(r), Quality.S, np.int16),
        np.full(len(r), Source.CURVE, np.int16),
    )
    return samples, new.received_us[r]


def _concatenate(parts: Sequence[DayRows]) -> DayRows:
    if len(parts) == 1:
        return parts[0]
    return DayRows(
        parts[0].step_s,
        np.concatenate([p.key for p in parts]),
        np.concatenate([p.number for p in parts]),
        np.concatenate([p.quality for p in parts]),
        np.concatenate([p.received_us for p in parts]),
    )


def fold(parts: Sequence[DayRows]) -> tuple[DayRows, list[tuple[Samples, I8]]]:
    """Rows of one step, in order of arrival, merged to one row a key (sorted); conflicts among them as samples.

    Works in waves: the first rows of all keys, then every key's second row into them, and so on.
    """
    rows = _concatenate(parts)
    order = np.lexsort((rows.key["point"], rows.key["quantity"], rows.key["day"]))  # stable: keeps order of arrival
    key = rows.key[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    if len(starts) == len(rows):
        return rows.take(order), []
    lengths = np.diff(np.r_[starts, len(rows)])
    merged = rows.take(order[starts])
    found: list[tuple[Samples, I8]] = []
    for wave in range(1, int(lengths.max())):
        target = np.flatnonzero(lengths > wave)
        new = rows.take(order[starts[target] + wave])
        result, conflict = merge(merged.take(target), new)
        merged.number[target], merged.quality[target] = result.number, result.quality
        merged.received_us[target] = result.received_us
        if conflict.any():
            found.append(conflicts_as_samples(new, conflict))
    return merged, found


def rescale(number: I8, by: I4 | I2) -> I8:
    """Numbers with `by` (k,) more decimals; NONE stays NONE."""
    factor = np.power(10, by.astype(np.int64))[:, None]
    return np.where(number == NONE, NONE, number * factor)


def without_trailing_zeros(rows: DayRows) -> DayRows:
    """The same values with as few decimals as each row needs: two digits of four often mean half the room.

    `number` and `key` are copied only if a row changes.
    """
    number, key = rows.number, rows.key
    for _ in range(int(key["decimals"].max(initial=0))):
        shorter = (key["decimals"] > 0) & (number[:, 0] % 10 == 0)  # cheap first look: most rows end here
        shorter |= (key["decimals"] > 0) & (number[:, 0] == NONE)
        at = np.flatnonzero(shorter)
        part = number[at]
        at = at[((part % 10 == 0) | (part == NONE)).all(axis=1)]
        if not len(at):
            break
        if number is rows.number:
            number, key = number.copy(), key.copy()
        part = number[at]
        number[at] = np.where(part == NONE, NONE, part // 10)
        key["decimals"][at] -= 1
    return DayRows(rows.step_s, key, number, rows.quality, rows.received_us)
