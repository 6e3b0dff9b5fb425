"""Forecasts of one series, day after day, each from what was known at its issue time.

A forecaster is given the loads up to the issue time and keeps what it made of them: cleaned days, learners, the
forecasts it issued and how they turned out. Nothing here sees a later value: `forecast` cuts the array it is given at
the issue time before anything else looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ..masks import B1, F8, I8
from .calendar import DayTypes
from .clean import clean
from .combine import DRIFT_DAYS, WEIGHT_DAYS, drift, drift_features, learner_weights
from .features import WARM_DAYS, Issue, Known, _alike, as_rows, day_groups, scale_of, slot_table, soft_exp, soft_log
from .kernel import DayKernel, terms_for
from .threads import one_thread
from .trees import SlotTrees

MODEL_VERSION: Final = "fuhe-1"
CLEAN_DAYS: Final = 42  # tail that is cleaned again at every issue
SETTLED_DAYS: Final = 10  # of the tail's beginning keep what an earlier, better placed tail said
MIN_DAYS: Final = 21  # describable days of history before anything is learned
MAX_KERNEL_DAYS: Final = 1100
LEARN_DAYS: Final = 400  # newest days by which the kernel's parameters are found
RELEARN_DAYS: Final = 84
TREE_DAYS: Final = 14
LEARNERS: Final = ("kernel", "trees")


@dataclass(frozen=True, slots=True, kw_only=True)
class DayForecast:
    """One issued curve (slots,) with its parts by learner and the weights they got; not learned = similar days only."""

    value: F8
    parts: dict[str, F8]
    weights: dict[str, float]
    learned: bool


@dataclass(slots=True)
class _State:
    value: F8
    faulty: B1
    seen: int = 0
    described: int = 0
    groups: dict[str, F8] = field(default_factory=dict)


class Forecaster:
    """One series, one kind of issue. types, known: over all days, those to forecast included."""

    def __init__(self, types: DayTypes, known: Known, slots: int, issue: Issue) -> None:
        self._types, self._known, self._issue, self._slots = types, known, issue, slots
        days = len(types.weekday)
        self._value = np.full((days, slots), np.nan)
        self._faulty = np.zeros((days, slots), np.bool_)
        self._cleaned = 0  # leading days that were cleaned at least once
        self._groups: dict[str, F8] | None = None
        self._table: F8 | None = None
        self._described = WARM_DAYS
        self._issued = {name: np.full((days, slots), np.nan) for name in LEARNERS}
        self._combined = np.full((days, slots), np.nan)
        self._scale = np.full(days, np.nan)
        self._features = np.zeros((days, slots, 4))
        self._kernel: DayKernel | None = None
        self._kernel_day = self._trees_day = -10_000
        self._kernel_rows = 0
        self._left_out = np.zeros((0, slots))
        self._trees: SlotTrees | None = None

    def forecast(self, raw: F8, day: int) -> DayForecast:
        """The curve of day number `day`. raw (days', slots) as delivered, NaN = missing; read up to the issue time.

        Days must be asked in order. Raises ValueError if there is no single value before the issue time.
        """
        with one_thread():
            return self._forecast(raw, day)

    def _forecast(self, raw: F8, day: int) -> DayForecast:
        end = int(self._issue.end(day, self._slots))
        past = self._cut(raw, end)
        if not np.isfinite(past).any():
            raise ValueError("no load before the issue time")
        self._absorb(past, end)
        whole = end // self._slots  # days that are over
        value = self._value[: past.shape[0]]
        rows = np.arange(WARM_DAYS, whole)
        if len(rows) < MIN_DAYS:
            return self._similar(value, day)
        self._describe(value, day)
        at = np.array([day])
        target = self._targets(rows)
        by_kernel = self._by_kernel(rows, target, day)
        by_trees = self._by_trees(rows, target, by_kernel, day)
        parts = {"kernel": self._back(by_kernel, day), "trees": self._back(by_trees, day)}
        for name, curve in parts.items():
            self._issued[name][day] = curve
        weights = self._weights(day, whole)
        combined = sum(w * parts[name] for name, w in zip(LEARNERS, weights, strict=True)) + np.zeros(self._slots)
        self._combined[day] = combined
        value_now = combined + self._size(self._combined, slice(day, day + 1))[0] * self._drift(at, end)
        lowest = 0.0 if np.nanmin(value[:whole]) >= 0 else -np.inf
        return DayForecast(
            value=np.maximum(value_now, lowest),
            parts=parts,
            weights=dict(zip(LEARNERS, weights.tolist(), strict=True)),
            learned=True,
        )

    def _cut(self, raw: F8, end: int) -> F8:
        """A copy of the days that have begun before the issue time, NaN from it on."""
        days = min(-(-end // self._slots), len(self._value))
        past = np.full((days, self._slots), np.nan)
        take = min(days, len(raw))
        past[:take] = raw[:take]
        past.reshape(-1)[end:] = np.nan
        return past

    def _absorb(self, past: F8, end: int) -> None:
        """Clean what is new, with the days before it once more."""
        days = len(past)
        begin = max(min(self._cleaned, days) - CLEAN_DAYS, 0) if self._cleaned else 0
        keep = begin + SETTLED_DAYS if begin else 0
        for first, last, settled in _windows(begin, days, keep):
            reference = self._combined[first:last]
            known = min(end, last * self._slots) - first * self._slots
            done = clean(past[first:last], self._types.rest[first:last], known, reference)
            self._value[settled:last] = done.value[settled - first :]
            self._faulty[settled:last] = done.faulty[settled - first :]
        self._bridge(days, end)
        self._cleaned = days

    def _bridge(self, days: int, end: int) -> None:
        """Stretches too long for cleaning to fill: the week before stands in; they stay marked as faulty."""
        value = self._value[:days]
        flat = value.reshape(-1)
        holes = np.flatnonzero(~np.isfinite(flat[:end]))
        for day in np.unique(holes // self._slots):
            for back in (7, 1):
                if day >= back:
                    slots = ~np.isfinite(value[day])
                    value[day, slots] = value[day - back, slots]
        flat[end:] = np.nan
        if len(holes):
            some = flat[np.isfinite(flat)]
            rest = holes[~np.isfinite(flat[holes])]
            flat[rest] = float(np.median(some))
            self._faulty[:days].reshape(-1)[holes] = True

    def _similar(self, value: F8, day: int) -> DayForecast:
        """Mean of the newest days of the same kind: all that a short history allows."""
        curve = np.full(self._slots, np.nan)
        whole = int(self._issue.end(day, self._slots)) // self._slots
        at = np.array([day])
        if whole:
            short = Issue(lead=day - whole + 1, slot=0) if whole < day else self._issue
            curve = _alike(value[:whole], at, self._types, short)[0]
        newest = value[-1]
        curve = np.where(np.isfinite(curve), curve, newest)
        some = value[np.isfinite(value)]
        curve = np.where(np.isfinite(curve), curve, some[-self._slots :].mean())
        self._combined[day] = curve
        return DayForecast(value=curve, parts={}, weights={}, learned=False)

    def _describe(self, value: F8, day: int) -> None:
        """Describe the days up to `day` that have not been, as they look from now."""
        days = np.arange(self._described, day + 1)
        if not len(days):
            return
        padded = np.full((max(day + 1, len(value)), self._slots), np.nan)
        padded[: len(value)] = value
        groups = day_groups(padded, days, self._types, self._known, self._issue)
        table, _ = slot_table(padded, days, self._types, self._known, self._issue)
        count = len(self._types.weekday)
        if self._groups is None or self._table is None:
            self._groups = {g: np.full((count, v.shape[1]), np.nan) for g, v in groups.items()}
            self._table = np.full((count, self._slots, table.shape[-1]), np.nan, np.float32)
        for g, v in groups.items():
            self._groups[g][days] = v
        self._table[days] = table
        self._scale[days] = scale_of(padded, days, self._issue)
        self._described = day + 1

    def _targets(self, rows: I8) -> F8:
        return soft_log(self._value[rows] / self._scale[rows][:, None])

    def _by_kernel(self, rows: I8, target: F8, day: int) -> F8:
        assert self._groups is not None
        doubt = 1.0 + 20.0 * self._faulty[rows].mean(axis=1)
        use = rows[-MAX_KERNEL_DAYS:]
        if self._kernel is None or day - self._kernel_day >= RELEARN_DAYS or len(rows) > 1.5 * self._kernel_rows:
            groups = as_rows(self._groups, use[-LEARN_DAYS:])
            fresh = DayKernel(terms_for(as_rows(self._groups, use)))
            if self._kernel is not None and self._kernel.terms == fresh.terms:
                fresh.theta = self._kernel.theta.copy()
            fresh.learn(groups, target[-LEARN_DAYS:], doubt[-LEARN_DAYS:])
            self._kernel, self._kernel_day, self._kernel_rows = fresh, day, len(rows)
        self._left_out = self._kernel.fit(
            as_rows(self._groups, use), target[-MAX_KERNEL_DAYS:], doubt[-MAX_KERNEL_DAYS:]
        )
        curve: F8 = self._kernel.predict(as_rows(self._groups, np.array([day])))[0]
        return curve

    def _by_trees(self, rows: I8, target: F8, by_kernel: F8, day: int) -> F8:
        """Trees that know what the kernel says: in learning, what it would have said without the day in question."""
        assert self._table is not None
        if self._trees is None or day - self._trees_day >= TREE_DAYS:
            use = rows[-len(self._left_out) :]
            self._trees, self._trees_day = SlotTrees(), day
            table = np.concatenate([self._table[use], self._left_out[..., None]], axis=-1)
            self._trees.fit(table, target[-len(use) :], ~self._faulty[use])
        curve: F8 = self._trees.predict(np.concatenate([self._table[[day]], by_kernel[None, :, None]], axis=-1))[0]
        return curve

    def _back(self, target: F8, day: int) -> F8:
        """Loads of a curve in the unit of the targets."""
        curve: F8 = soft_exp(target) * self._scale[day]
        return curve

    def _size(self, curves: F8, days: slice) -> F8:
        """What residuals are divided by: the forecast itself, kept off zero."""
        return np.maximum(np.abs(curves[days]), 0.2 * self._scale[days][:, None])

    def _residual(self, curves: F8, days: slice) -> F8:
        """(days, slots) relative errors; NaN where not issued, not known or filled."""
        value = np.where(self._faulty[days], np.nan, self._value[days])
        out: F8 = (value - curves[days]) / self._size(curves, days)
        return out

    def _weights(self, day: int, whole: int) -> F8:
        days = slice(max(day - WEIGHT_DAYS, 0), whole)
        return learner_weights(np.stack([self._residual(self._issued[name], days) for name in LEARNERS]))

    def _drift(self, at: I8, end: int) -> F8:
        day = int(at[0])
        days = slice(max(day - DRIFT_DAYS, 0), -(-end // self._slots))
        residual = np.full_like(self._combined, np.nan)
        residual[days] = self._residual(self._combined, days)
        residual.reshape(-1)[end:] = np.nan
        self._features[day] = drift_features(residual, at, self._issue)[0]
        whole = slice(days.start, end // self._slots)
        return drift(self._features[whole], residual[whole], self._features[day])


def _windows(begin: int, days: int, keep: int) -> list[tuple[int, int, int]]:
    """(first, last, settled) of overlapping pieces of at most CLEAN_DAYS: cleaning compares with the days around."""
    out = []
    settled = keep
    while True:
        last = min(begin + CLEAN_DAYS, days)
        out.append((begin, last, settled))
        if last == days:
            return out
        begin, settled = last - CLEAN_DAYS // 2, last - CLEAN_DAYS // 2 + SETTLED_DAYS
