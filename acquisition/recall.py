"""Recall (补召): compares the ledger with what is stored, keeps the list of what to ask again, follows its fate.

Pure but for the two ports it is given: `Presence` says which slots are stored, `RecallStore` keeps the items. Both are
synchronous (the daemon calls from a thread). An item is closed only when the readings are seen in the store, never
because a device answered; a range that is open or lost is not opened a second time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
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

    def live(self, points: NDArray[np.int32], quantity: int, labels_us: I8, step_s: int) -> Mask:
        """Periods that hold a live value; the label is a period's end."""


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
        ordered = sorted(tracks, key=lambda t: (*_block_of(t), t.device, t.point, t.item))
        self._blocks = [list(g) for _, g in groupby(ordered, key=_block_of)]
        self._classes: dict[tuple[Duty, int], int] = {}
        asked = sorted({(t.duty, t.device, t.asked) for t in ordered if t.asked})
        for (duty, device), rows in groupby(asked, key=lambda p: p[:2]):
            self._classes[duty, device] = len(list(rows))
        self._presence, self._store, self._config = presence, store, config
        self._told: dict[tuple[int, int], dict[date, I8]] = {}
        self._live_day: date | None = None
        self.exempt(exemptions)

    def exempt(self, exemptions: Sequence[Exemption]) -> None:
        """From now on these slots need not be there."""
        self._exemptions: dict[int, list[Exemption]] = {}
        for exemption in exemptions:
            self._exemptions.setdefault(exemption.point, []).append(exemption)

    def scan(self, now_us: int, days: int) -> ScanResult:
        """Look at the last `days` business days (today included), open and close items, count completeness.

        What cannot be recalled is counted only: live values once, when their day has ended.
        """
        result = ScanResult()
        ended = business_day(now_us - grace_s(Duty.LIVE, self._config) * US) - timedelta(days=1)
        for number, block in enumerate(self._blocks):
            duty, month_day, recallable = block[0].duty, block[0].month_day, block[0].recallable
            # a day more than the device keeps: what was lost in the last moment is still counted
            depth = min(days, max(r.retention_days for r in block) + 1)
            if duty is Duty.LIVE:
                labels = labels_of_day(duty, block[0].step_s, ended) if ended != self._live_day else labels_of_none()
            else:
                labels = labels_back(duty, block[0].step_s, now_us, depth, month_day)
            if not len(labels):
                continue
            known = self._store.rows_since(duty, int(labels[0])) if recallable else []
            still_missing: set[int] = set()
            counts = {device: n for (kind, device), n in self._classes.items() if kind is duty}
            for part, (rows, present, expected, exempt) in enumerate(self._parts(block, labels, now_us)):
                missing = expected & ~present & ~exempt
                result.missing += int(missing.sum()) if duty is not Duty.LIVE else 0
                everything, waiting = self._covered(rows, labels, known, missing, still_missing)
                changed = list(self._changed((number, part), rows, labels, expected, exempt, present, everything))
                self._store.count(changed)
                result.counted += len(changed)
                if not recallable:
                    continue
                kept = now_us - np.array([r.retention_days for r in rows], np.int64)[:, None] * DAY_US
                fresh = missing & ~waiting & (labels[None, :] > kept)
                result.opened += self._store.add(gaps(rows, fresh, labels, counts), now_us)
            ours = {r.device for r in block}
            seen = (r for r in known if r.state == "open" and r.device in ours and r.from_us >= int(labels[0]))
            done = [r for r in seen if r.id not in still_missing and _touches(labels, r)]
            self._store.close(done)
            result.closed += len(done)
        self._live_day = ended
        return result

    def parts(
        self, day: date, now_us: int, duties: Collection[Duty] = tuple(Duty)
    ) -> Iterator[tuple[list[Track], I8, Mask, Mask]]:
        """(rows, labels, expected, exempt) of all that belongs to a business day, without a look at the store."""
        for block in self._blocks:
            if block[0].duty not in duties:
                continue
            labels = labels_of_day(block[0].duty, block[0].step_s, day, block[0].month_day)
            until_us = now_us - grace_s(block[0].duty, self._config) * US
            for rows in _cut(block) if len(labels) else ():
                yield rows, labels, _expected(rows, labels, until_us), self._exempt(rows, labels)

    def holes(self, day: date, now_us: int, *, live: bool = False) -> Iterator[Hole]:
        """Missing slots of one business day as runs, for people: by device, point and class, oldest first."""
        for block in self._blocks:
            labels = labels_of_day(block[0].duty, block[0].step_s, day, block[0].month_day)
            if not len(labels) or (block[0].duty is Duty.LIVE and not live):
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
            labels = labels_of_day(block[0].duty, block[0].step_s, day, block[0].month_day)
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
        for rows in _cut(block):
            yield self._part(rows, labels, until_us)

    def _part(self, rows: list[Track], labels: I8, until_us: int) -> tuple[list[Track], Mask, Mask, Mask]:
        present = np.zeros((len(rows), len(labels)), np.bool_)
        for (mark, source), index in by_mark(rows).items():
            points, number = np.array([rows[i].point for i in index], np.int32), quantity(mark).id
            if rows[0].duty is Duty.CURVE:
                present[index] = self._presence.curve(points, number, labels, rows[0].step_s)
            elif rows[0].duty is Duty.LIVE:
                present[index] = self._presence.live(points, number, labels, rows[0].step_s)
            else:
                present[index] = self._presence.freezes(points, number, source, labels)
        return rows, present, _expected(rows, labels, until_us), self._exempt(rows, labels)

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
        for i, row in enumerate(rows):
            for e in self._exemptions.get(row.point, ()):
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


def _block_of(track: Track) -> tuple[Duty, int, int, bool]:
    """What is looked at together: the same labels, and the same fate."""
    return track.duty, track.step_s, track.month_day, track.recallable


def _cut(block: list[Track]) -> Iterator[list[Track]]:
    """A block in parts, cut between devices so that memory stays bounded."""
    rows: list[Track] = []
    for _, same in groupby(block, key=lambda t: t.device):
        rows += same
        if len(rows) >= CHUNK_ROWS:
            yield rows
            rows = []
    if rows:
        yield rows


def by_mark(rows: Sequence[Track]) -> dict[tuple[str, Source], list[int]]:
    """Rows that are looked up together, by their places."""
    found: dict[tuple[str, Source], list[int]] = {}
    for i, row in enumerate(rows):
        found.setdefault((row.mark, row.source), []).append(i)
    return found


def _expected(rows: Sequence[Track], labels: I8, until_us: int) -> Mask:
    since_us = np.array([r.since_us for r in rows], np.int64)
    return due(labels, len(rows), in_service_us=since_us, until_us=until_us)


def _touches(labels: I8, row: RecallRow) -> bool:
    """Whether an item asks for any of these labels (another day of the month has items of its own)."""
    low, high = np.searchsorted(labels, (row.from_us, row.to_us))
    return bool(low < high)


def labels_back(duty: Duty, step_s: int, now_us: int, days: int, month_day: int = 1) -> I8:
    """Labels of the last `days` business days up to and with today: slots, or the 00:00 of freezes."""
    today = business_day(now_us)
    parts = [labels_of_day(duty, step_s, today - timedelta(days=n), month_day) for n in range(days, -1, -1)]
    return np.concatenate(parts)


def labels_of_none() -> I8:
    """No labels."""
    return np.zeros(0, np.int64)


def labels_of_day(duty: Duty, step_s: int, day: date, month_day: int = 1) -> I8:
    """Labels that belong to business day `day`; the freeze that settles a day has the label 00:00 of the next."""
    if duty in (Duty.CURVE, Duty.LIVE):
        return slot_labels_us(day, step_s)
    settled = day + timedelta(days=1)
    if duty is Duty.MONTHLY and settled.day != month_day:
        return labels_of_none()
    return np.array([day_start_us(settled)], np.int64)


def grace_s(duty: Duty, config: CycleConfig) -> int:
    """How long after a slot's label the scheduled pass has had its chance; only then the slot counts as missing."""
    if duty is Duty.CURVE:
        return config.curve_s + CURVE_LATE_S + config.spread_s + 600
    if duty is Duty.LIVE:
        return config.spread_s + 60
    at = config.daily_at if duty is Duty.DAILY else config.monthly_at
    return (clock_s(at) if at else 0) + config.spread_s + 1800
