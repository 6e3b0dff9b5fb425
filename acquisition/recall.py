"""Recall (补召): compares the ledger with what is stored, keeps the list of what to ask again, follows its fate.

Pure but for the two ports it is given: `Presence` says which slots are stored, `RecallStore` keeps the items. Both are
synchronous (the daemon calls from a thread). An item is closed only when the readings are seen in the store, never
because a device answered; a range that is open or lost is not opened a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ..model.quality import Source
from ..model.quantities import quantity
from ..model.times import DAY_US, US, business_day, day_start_us
from ..model.work import Duty, Outcome, Priority, Status, WorkItem
from .config import CycleConfig
from .cycles import CURVE_LATE_S, clock_s, slot_labels_us
from .ledger import I8, Mask, Need, Track, due, gaps, next_try_us

CHUNK_ROWS: Final = 4096
UNASKED: Final = (Status.EXPIRED, Status.CANCELLED, Status.LINK_DOWN, Status.QUARANTINED, Status.READ_ONLY)
"""Outcomes in which the device was not asked: they do not count as an attempt."""
PAUSE_US: Final = 600 * US
_LIFETIME_S: Final = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallRow:
    """A row of `recall_item` as far as recall needs it. state: open | done | lost."""

    id: int
    device: int
    duty: Duty
    items: tuple[str, ...]
    from_us: int
    to_us: int
    attempts: int
    next_us: int
    expires_us: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """Slots of a point that need not be there (registered suspension, confirmed outage, commissioning); [from, to)."""

    point: int
    from_us: int
    to_us: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCount:
    """One row of `completeness`: a class of a point on a business day. first_pass: got without any recall."""

    point: int
    item: str
    day: date
    due: int
    got: int
    first_pass: int
    exempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """A run of missing slots of one class of one point, [from, to) of labels."""

    track: Track
    from_us: int
    to_us: int


@dataclass(slots=True)
class ScanResult:
    """What a scan found: missing slots, items opened, items closed because nothing of them is missing any more.

    counted: completeness rows that differ from those of the scan before (after a start: all).
    """

    missing: int = 0
    opened: int = 0
    closed: int = 0
    counted: int = 0


class Presence(Protocol):
    """Which slots are stored (any quality). Arrays in, (k, n) mask out; labels follow each other in `step_s`."""

    def curve(self, points: NDArray[np.int32], quantity: int, labels_us: I8, step_s: int) -> Mask:
        """Slots of stored curves."""

    def freezes(self, points: NDArray[np.int32], quantity: int, source: Source, labels_us: I8) -> Mask:
        """Single readings with exactly these instants."""


class RecallStore(Protocol):
    """Keeps recall items; every method is one transaction."""

    def rows_since(self, duty: Duty, from_us: int) -> Sequence[RecallRow]:
        """All items of a duty (open, done, lost) that reach beyond `from_us`."""

    def add(self, needs: Sequence[Need], now_us: int) -> int:
        """Open items, due at once, in this order; items that exist already are left alone. Number made."""

    def close(self, rows: Sequence[RecallRow]) -> None:
        """Mark items done."""

    def lease(self, now_us: int, limit: int) -> Sequence[RecallRow]:
        """The next due open items (rank, newest first), reserved so that nobody else takes them."""

    def settle(self, row: RecallRow, attempts: int, next_us: int | None, reason: str) -> None:
        """Put an item back for `next_us`, or mark it lost (None)."""

    def count(self, counts: Sequence[DayCount]) -> None:
        """Write completeness rows."""


class Recaller:
    """The ledger's business for all tracks of a device list. `exemptions` are listed apart, never silently removed."""

    def __init__(
        self,
        tracks: Iterable[Track],
        presence: Presence,
        store: RecallStore,
        config: CycleConfig,
        exemptions: Sequence[Exemption] = (),
    ) -> None:
        ordered = sorted(tracks, key=lambda t: (t.duty, t.step_s, t.device, t.point, t.item))
        self._blocks = [list(g) for _, g in groupby(ordered, key=lambda t: (t.duty, t.step_s))]
        self._classes: dict[tuple[Duty, int], int] = {}
        asked = sorted({(t.duty, t.device, t.asked) for t in ordered if t.asked})
        for (duty, device), rows in groupby(asked, key=lambda p: p[:2]):
            self._classes[duty, device] = len(list(rows))
        self._presence, self._store, self._config, self._exemptions = presence, store, config, exemptions
        self._told: dict[tuple[int, int], dict[date, I8]] = {}

    def scan(self, now_us: int, days: int) -> ScanResult:
        """Look at the last `days` business days (today included), open and close items, count completeness."""
        result = ScanResult()
        for number, block in enumerate(self._blocks):
            duty = block[0].duty
            # a day more than the device keeps: what was lost in the last moment is still counted
            depth = min(days, max(r.retention_days for r in block) + 1)
            labels = labels_back(duty, block[0].step_s, now_us, depth)
            if not len(labels):
                continue
            known = self._store.rows_since(duty, int(labels[0]))
            still_missing: set[int] = set()
            counts = {device: n for (kind, device), n in self._classes.items() if kind is duty}
            for part, (rows, present, expected, exempt) in enumerate(self._parts(block, labels, now_us)):
                missing = expected & ~present & ~exempt
                result.missing += int(missing.sum())
                everything, waiting = self._covered(rows, labels, known, missing, still_missing)
                changed = list(self._changed((number, part), rows, labels, expected, exempt, present, everything))
                self._store.count(changed)
                result.counted += len(changed)
                kept = now_us - np.array([r.retention_days for r in rows], np.int64)[:, None] * DAY_US
                fresh = missing & ~waiting & (labels[None, :] > kept)
                result.opened += self._store.add(gaps(rows, fresh, labels, counts), now_us)
            ours = {r.device for r in block}
            seen = (r for r in known if r.state == "open" and r.device in ours and r.from_us >= int(labels[0]))
            done = [r for r in seen if r.id not in still_missing]
            self._store.close(done)
            result.closed += len(done)
        return result

    def holes(self, day: date, now_us: int) -> Iterator[Hole]:
        """Missing slots of one business day as runs, for people: by device, point and class, oldest first."""
        for block in self._blocks:
            labels = _labels_of_day(block[0].duty, block[0].step_s, day)
            if not len(labels):
                continue
            for rows, present, expected, exempt in self._parts(block, labels, now_us):
                missing = expected & ~present & ~exempt
                for i in np.flatnonzero(missing.any(axis=1)).tolist():
                    for need in reversed(gaps(rows[i : i + 1], missing[i : i + 1], labels)):
                        yield Hole(track=rows[i], from_us=need.from_us, to_us=need.to_us)

    def totals(self, day: date, now_us: int) -> dict[str, tuple[int, int]]:
        """Completeness of one business day: duty -> (slots stored, slots due); exempt slots are in neither."""
        found: dict[str, tuple[int, int]] = {}
        for block in self._blocks:
            labels = _labels_of_day(block[0].duty, block[0].step_s, day)
            for _, present, expected, exempt in self._parts(block, labels, now_us) if len(labels) else ():
                counted = expected & ~exempt
                got, wanted = found.get(block[0].duty, (0, 0))
                found[block[0].duty] = (got + int((counted & present).sum()), wanted + int(counted.sum()))
        return found

    def due(self, now_us: int, now_s: float, limit: int) -> list[tuple[RecallRow, WorkItem]]:
        """Recall items that are due with their work items, most urgent first; they stay leased until settled."""
        return [(row, work_item(row, now_s)) for row in self._store.lease(now_us, limit)]

    def settle(self, row: RecallRow, outcome: Outcome, now_us: int) -> None:
        """An attempt has ended. Answered or not, the item stays open until a scan sees the data, or it is lost."""
        if outcome.status in UNASKED:
            next_us = now_us + PAUSE_US if now_us + PAUSE_US < row.expires_us else None
            self._store.settle(row, row.attempts, next_us, outcome.reason)
        else:
            attempts = row.attempts + 1
            next_us = next_try_us(attempts, now_us, row.expires_us, denied=outcome.status is Status.REFUSED)
            self._store.settle(row, attempts, next_us, outcome.reason)

    def _parts(self, block: list[Track], labels: I8, now_us: int) -> Iterator[tuple[list[Track], Mask, Mask, Mask]]:
        """(rows, present, expected, exempt) of a block, cut between devices so that memory stays bounded."""
        until_us = now_us - grace_s(block[0].duty, self._config) * US
        rows: list[Track] = []
        for _, same in groupby(block, key=lambda t: t.device):
            rows += same
            if len(rows) >= CHUNK_ROWS:
                yield self._part(rows, labels, until_us)
                rows = []
        if rows:
            yield self._part(rows, labels, until_us)

    def _part(self, rows: list[Track], labels: I8, until_us: int) -> tuple[list[Track], Mask, Mask, Mask]:
        present = np.zeros((len(rows), len(labels)), np.bool_)
        by_mark: dict[tuple[str, Source], list[int]] = {}
        for i, row in enumerate(rows):
            by_mark.setdefault((row.mark, row.source), []).append(i)
        for (mark, source), index in by_mark.items():
            points, number = np.array([rows[i].point for i in index], np.int32), quantity(mark).id
            if rows[0].duty is Duty.CURVE:
                present[index] = self._presence.curve(points, number, labels, rows[0].step_s)
            else:
                present[index] = self._presence.freezes(points, number, source, labels)
        since_us = np.array([r.since_us for r in rows], np.int64)
        expected = due(labels, len(rows), in_service_us=since_us, until_us=until_us)
        return rows, present, expected, self._exempt(rows, labels)

    def _changed(
        self,
        key: tuple[int, int],
        rows: list[Track],
        labels: I8,
        expected: Mask,
        exempt: Mask,
        present: Mask,
        recalled: Mask,
    ) -> Iterator[DayCount]:
        """Completeness by row and business day (a label of 00:00 belongs to the day that ends), changed ones only."""
        counted = expected & ~exempt
        got = counted & present
        days = [business_day(int(label) - 1) for label in labels]
        edges = [0, *(i for i in range(1, len(days)) if days[i] != days[i - 1])]
        masks = (counted, got, got & ~recalled, expected & exempt)
        columns = np.stack([np.add.reduceat(m, edges, axis=1, dtype=np.int64) for m in masks])
        packed = (columns << np.array([48, 32, 16, 0])[:, None, None]).sum(axis=0)
        before, told = self._told.get(key, {}), {}
        for d, edge in enumerate(edges):
            told[days[edge]] = packed[:, d].copy()
            old = before.get(days[edge], np.zeros(len(rows), np.int64))
            for i in np.flatnonzero(packed[:, d] != old).tolist():
                n, g, f, x = columns[:, i, d].tolist()
                item = f"{rows[i].duty}:{rows[i].item}" if rows[i].item else str(rows[i].duty)
                yield DayCount(point=rows[i].point, item=item, day=days[edge], due=n, got=g, first_pass=f, exempt=x)
        self._told[key] = told

    def _exempt(self, rows: list[Track], labels: I8) -> Mask:
        mask = np.zeros((len(rows), len(labels)), np.bool_)
        places: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            places.setdefault(row.point, []).append(i)
        for e in self._exemptions:
            for i in places.get(e.point, ()):
                mask[i] |= (labels >= e.from_us) & (labels < e.to_us)
        return mask

    @staticmethod
    def _covered(
        rows: list[Track], labels: I8, known: Sequence[RecallRow], missing: Mask, still_missing: set[int]
    ) -> tuple[Mask, Mask]:
        """(slots covered by any item, by an open or lost one); notes the open items of which something is missing."""
        everything, waiting = np.zeros_like(missing), np.zeros_like(missing)
        places: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            places.setdefault(row.device, []).append(i)
        for item in known:
            low, high = np.searchsorted(labels, (item.from_us, item.to_us))
            for i in places.get(item.device, ()):
                if item.items and rows[i].asked not in item.items:
                    continue
                everything[i, low:high] = True
                if item.state != "done":
                    waiting[i, low:high] = True
                if item.state == "open" and missing[i, low:high].any():
                    still_missing.add(item.id)
        return everything, waiting


def work_item(row: RecallRow, now_s: float) -> WorkItem:
    """What a link is asked for a recall item."""
    return WorkItem(
        device=row.device,
        duty=row.duty,
        priority=Priority.RECALL,
        expires_s=now_s + _LIFETIME_S,
        window_us=(row.from_us, row.to_us),
        items=row.items,
        recall_id=row.id,
    )


def labels_back(duty: Duty, step_s: int, now_us: int, days: int) -> I8:
    """Labels of the last `days` business days up to and with today: slots, or the 00:00 of freezes."""
    today = business_day(now_us)
    parts = [_labels_of_day(duty, step_s, today - timedelta(days=n)) for n in range(days, -1, -1)]
    return np.concatenate(parts)


def _labels_of_day(duty: Duty, step_s: int, day: date) -> I8:
    """Labels that belong to business day `day`; the freeze that settles a day has the label 00:00 of the next."""
    if duty is Duty.CURVE:
        return slot_labels_us(day, step_s)
    settled = day + timedelta(days=1)
    if duty is Duty.MONTHLY and settled.day != 1:
        return np.zeros(0, np.int64)
    return np.array([day_start_us(settled)], np.int64)


def grace_s(duty: Duty, config: CycleConfig) -> int:
    """How long after a slot's label the scheduled pass has had its chance; only then the slot counts as missing."""
    if duty is Duty.CURVE:
        return config.curve_s + CURVE_LATE_S + config.spread_s + 600
    at = config.daily_at if duty is Duty.DAILY else config.monthly_at
    return (clock_s(at) if at else 0) + config.spread_s + 1800
