"""The indicators of a business day (domain 3.3): first-pass and period success, completeness, timeliness. Pure.

Counted over what the ledger expects; exempt slots are in neither numerator nor denominator and listed apart. A slot
that is stored but whose arrival is not known (stored before arrivals were kept) counts as complete and as nothing else;
how many there are is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ..model.quality import Source
from ..model.quantities import quantity
from ..model.times import DAY_US, US
from ..model.work import Duty
from .config import CycleConfig
from .ledger import I8, Counts, Kpi, Mask, Track, counts, kpis
from .recall import Recaller, by_mark, grace_s

CUTOFF_US: Final = {
    Duty.DAILY: 8 * 3600 * US,  # 08:00 of D+1, whose 00:00 is the label
    Duty.MONTHLY: 2 * DAY_US,  # the end of the day after
    Duty.CURVE: DAY_US,
    Duty.LIVE: DAY_US,
}
ALARM_BELOW: Final = 0.99


@dataclass(frozen=True, slots=True)
class Slots:
    """What is known of (k, n) slots. valid: quality A; received_us: first arrival, 0 = none or not known."""

    present: Mask
    valid: Mask
    received_us: I8


class Evidence(Protocol):
    """Stored slots with quality and first arrival. Arrays in, (k, n) out."""

    def curve_slots(self, points: NDArray[np.int32], quantity: int, labels_us: I8, step_s: int) -> Slots:
        """Slots of stored curves."""

    def freeze_slots(self, points: NDArray[np.int32], quantity: int, source: Source, labels_us: I8) -> Slots:
        """Single readings with exactly these instants."""

    def live_slots(self, points: NDArray[np.int32], quantity: int, labels_us: I8, step_s: int) -> Slots:
        """Periods with a live value; the label is a period's end."""


@dataclass(frozen=True, slots=True)
class Indicators:
    """Of one duty on one day. point: None = of all points. unknown: stored slots whose arrival is not known."""

    duty: Duty
    kpis: tuple[Kpi, ...]
    unknown: int
    point: int | None = None


def in_service(rows: Iterable[Track], listed_us: Mapping[int, int]) -> list[Track]:
    """Rows of which nothing is due before the device was listed (device -> UTC µs). Recall may go back further."""
    return [replace(r, since_us=max(r.since_us, listed_us.get(r.device, 0))) for r in rows]


def day_indicators(
    recaller: Recaller, evidence: Evidence, config: CycleConfig, day: date, now_us: int, *, by_point: bool = False,
    duties: Collection[Duty] = tuple(Duty),
) -> list[Indicators]:  # fmt: skip
    """Every duty of which something belongs to the day, in the order of `Duty`; `by_point`: of each point by itself."""
    parts: dict[Duty, list[_Part]] = {}
    for part in _parts(recaller, evidence, config, day, now_us, duties):
        parts.setdefault(part.duty, []).append(part)
    found: list[Indicators] = []
    for duty in Duty:
        if duty not in parts:
            continue
        whole = _joined(parts[duty])
        if not by_point:
            found.append(Indicators(duty, kpis(whole.counts), int(whole.unknown.sum())))
            continue
        numbers, place = np.unique(whole.points, return_inverse=True)
        sums = [np.bincount(place, row).astype(np.int64) for row in (whole.counts.due, whole.counts.exempt)]
        hits = np.stack([np.bincount(place, row).astype(np.int64) for row in whole.counts.hits])
        unknown = np.bincount(place, whole.unknown)
        for i, number in enumerate(numbers.tolist()):
            one = Counts(sums[0][i : i + 1], sums[1][i : i + 1], hits[:, i : i + 1])
            found.append(Indicators(duty, kpis(one), int(unknown[i]), number))
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one duty: (k,) points, what was counted, and stored slots whose arrival is not known."""

    duty: Duty
    points: NDArray[np.int32]
    counts: Counts
    unknown: I8


def _joined(parts: list[_Part]) -> _Part:
    of = [p.counts for p in parts]
    return _Part(
        parts[0].duty,
        np.concatenate([p.points for p in parts]),
        Counts(
            np.concatenate([c.due for c in of]),
            np.concatenate([c.exempt for c in of]),
            np.concatenate([c.hits for c in of], axis=1),
        ),
        np.concatenate([p.unknown for p in parts]),
    )


def _parts(
    recaller: Recaller, evidence: Evidence, config: CycleConfig, day: date, now_us: int, duties: Collection[Duty]
) -> Iterator[_Part]:
    for rows, labels, expected, exempt in recaller.parts(day, now_us, duties):
        duty, slots = rows[0].duty, _slots(rows, labels, evidence)
        counted = counts(
            expected=expected,
            exempt=exempt,
            received_us=slots.received_us,
            valid=slots.present & slots.valid,
            labels_us=labels,
            pass_us=labels + grace_s(duty, config) * US,
            cutoff_us=labels + CUTOFF_US[duty],
        )
        unknown = expected & ~exempt & slots.present & (slots.received_us == 0)
        yield _Part(duty, np.array([r.point for r in rows], np.int32), counted, unknown.sum(axis=1, dtype=np.int64))


def _slots(rows: list[Track], labels: I8, evidence: Evidence) -> Slots:
    duty, shape = rows[0].duty, (len(rows), len(labels))
    slots = Slots(np.zeros(shape, np.bool_), np.zeros(shape, np.bool_), np.zeros(shape, np.int64))
    for (mark, source), index in by_mark(rows).items():
        points, number = np.array([rows[i].point for i in index], np.int32), quantity(mark).id
        if duty is Duty.CURVE:
            found = evidence.curve_slots(points, number, labels, rows[0].step_s)
        elif duty is Duty.LIVE:
            found = evidence.live_slots(points, number, labels, rows[0].step_s)
        else:
            found = evidence.freeze_slots(points, number, source, labels)
        slots.present[index], slots.valid[index] = found.present, found.valid
        slots.received_us[index] = np.where(found.present, found.received_us, 0)
    return slots


TITLES: Final[Mapping[str, tuple[str, str]]] = {
    "first_pass_success": ("first-pass success", "一次采集成功率"),
    "period_success": ("period success", "周期采集成功率"),
    "completeness": ("completeness", "完整率"),
    "timeliness": ("timeliness", "及时率"),
}
