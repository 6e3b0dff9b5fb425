"""Rows with naive local clock labels put on a regular grid of slots, row by row and back (domain 3.2, check K2).

A clock with daylight saving shows an hour twice in autumn and skips one in spring. With a zone both are known; without
one a step back of exactly one hour at night is taken as such (and said), because no other fault looks like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from ..masks import B1, F8, I8

HOUR_S = 3600
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the zero of naive labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where the rows stand. position (rows,): slot of the grid, -1 = off the grid; local_s (slots,): the local clock's
    seconds since 1970 (naive) of each slot; duplicate (rows,): a later row of a slot already taken; folds: hours of the
    clock shown twice that were recognised without a zone; sorted: rows were in order of time."""

    step_s: int
    position: I8
    local_s: I8
    duplicate: B1
    folds: int
    in_order: bool

    @property
    def per_day(self) -> int:
        """Slots of a day."""
        return 86_400 // self.step_s

    @property
    def missing(self) -> I8:
        """Slots that have no row at all."""
        have = np.zeros(len(self.local_s), np.bool_)
        have[self.position[self.position >= 0]] = True
        return np.flatnonzero(~have)

    def place(self, values: F8) -> F8:
        """Row values on the grid, NaN where there is none; of several rows for a slot the first counts."""
        out = np.full(len(self.local_s), np.nan)
        first = (self.position >= 0) & ~self.duplicate
        out[self.position[first]] = values[first]
        return out


def naive_seconds(times: Sequence[datetime]) -> I8:
    """Naive local labels as seconds since 1970 of that clock."""
    return np.array([(t - _EPOCH) // timedelta(seconds=1) for t in times], np.int64)


def make_grid(times: Sequence[datetime], *, zone: ZoneInfo | None = None, step_s: int | None = None) -> Grid:
    """The grid of naive local labels, one a row. ValueError: fewer than two labels, or no step that divides a day."""
    local = naive_seconds(times)
    if len(local) < 2:
        raise ValueError("fewer than two rows")
    step = step_s or _usual_step(local)
    folds = 0
    if zone is not None:
        elapsed = _elapsed(times, zone)
    else:
        elapsed, folds = _unfolded(local, step)
    base = int(elapsed.min())
    offset = elapsed - base
    # labels a few seconds off belong to the usual phase; the phase is the one most rows have
    phases, counts = np.unique(offset % step, return_counts=True)
    phase = int(phases[counts.argmax()])
    offset = offset - phase
    position = np.where((offset % step == 0) & (offset >= 0), offset // step, -1)
    slots = int(position.max()) + 1
    duplicate = np.zeros(len(local), np.bool_)
    first = np.unique(np.where(position >= 0, position, -1 - np.arange(len(position))), return_index=True)[1]
    duplicate[:] = True
    duplicate[first] = False
    duplicate &= position >= 0
    use = (position >= 0) & ~duplicate
    shift = np.full(slots, np.iinfo(np.int64).min)
    shift[position[use]] = local[use] - (base + phase + position[use] * step)
    # a slot without a row keeps the clock of the row before it
    known = np.maximum.accumulate(np.where(shift > np.iinfo(np.int64).min, np.arange(slots), 0))
    local_s = base + phase + np.arange(slots, dtype=np.int64) * step + shift[known]
    return Grid(
        step_s=step,
        position=position,
        local_s=local_s,
        duplicate=duplicate,
        folds=folds,
        in_order=bool((np.diff(elapsed) >= 0).all()),
    )


def _usual_step(local: I8) -> int:
    gaps = np.diff(np.unique(local))
    values, counts = np.unique(gaps, return_counts=True)
    step = int(values[counts.argmax()]) if len(values) else 0
    if step <= 0 or 86_400 % step:
        raise ValueError(f"the usual distance of the rows is {step} s, which does not divide a day: name the step")
    return step


def _elapsed(times: Sequence[datetime], zone: ZoneInfo) -> I8:
    """UTC seconds; of an hour that the clock shows twice the second showing is the later one."""
    out = np.empty(len(times), np.int64)
    seen: set[datetime] = set()
    for i, time in enumerate(times):
        aware = time.replace(tzinfo=zone, fold=1 if time in seen else 0)
        if aware.utcoffset() != time.replace(tzinfo=zone, fold=1).utcoffset():
            seen.add(time)
        out[i] = int(aware.astimezone(UTC).timestamp())
    return out


def _unfolded(local: I8, step: int) -> tuple[I8, int]:
    """Labels of a clock with daylight saving as evenly running seconds, and how many folds were found."""
    change = np.diff(local)
    hour = local[1:] % 86_400 // HOUR_S
    night = (hour <= 4) | (hour == 23)
    regular = np.r_[change[1:] == step, False] & np.r_[False, change[:-1] == step]
    back = (change == step - HOUR_S) & night & regular & (step <= HOUR_S)
    folds = int(back.sum())
    if not folds or folds > 1 + (int(local.max()) - int(local.min())) / (200 * 86_400):
        return local, 0
    forward = (change == step + HOUR_S) & night
    shift = np.cumsum(np.where(back, HOUR_S, 0) - np.where(forward, HOUR_S, 0))
    return local + np.r_[0, shift], folds
