"""The ledger's two ports (presence and recall items) on the database. Synchronous: the daemon calls from a thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from ...model.lang import tr
from ...model.quality import Source
from ...model.times import business_day
from ...model.work import Duty
from ...storage import readings, recall
from ..ledger import I8, Mask, Need
from ..recall import DayCount, RecallRow

ALL: Final = 10_000_000
LEASE_S: Final = 3600.0
"""Longer than a work item may wait in a line's queue, so that nothing is asked twice at once."""


class DatabaseLedger:
    """`Presence` and `RecallStore` over one autocommit connection of the ordinary role."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def curve(self, points: NDArray[np.int32], quantity: int, labels_us: I8, step_s: int) -> Mask:
        """Stored slots of whole business days; the labels are those of `slot_labels_us`, day after day."""
        first, last = business_day(int(labels_us[0]) - 1), business_day(int(labels_us[-1]) - 1)
        value, _ = readings.load_curve_range(self._connection, first, last, points.tolist(), [quantity], step_s)
        return np.isfinite(value)

    def freezes(self, points: NDArray[np.int32], quantity: int, source: Source, labels_us: I8) -> Mask:
        """Readings of a freeze's source with exactly these instants."""
        found = readings.load_samples(
            self._connection, points.tolist(), [quantity], int(labels_us[0]), int(labels_us[-1]) + 1, source
        )
        order = np.argsort(points)
        row = order[np.searchsorted(points[order], found.point)]
        column = np.minimum(np.searchsorted(labels_us, found.time_us), len(labels_us) - 1)
        exact = labels_us[column] == found.time_us
        mask = np.zeros((len(points), len(labels_us)), np.bool_)
        mask[row[exact], column[exact]] = True
        return mask

    def rows_since(self, duty: Duty, from_us: int) -> Sequence[RecallRow]:
        """Items of a duty that reach beyond `from_us`."""
        rows = recall.list_recalls(self._connection, limit=ALL)
        return [to_row(r) for r in rows if r.duty == duty and r.to_us > from_us]

    def add(self, needs: Sequence[Need], now_us: int) -> int:
        """Open items, due at once."""
        items = [
            recall.RecallItem(
                device=n.device,
                duty=n.duty,
                items=n.items,
                from_us=n.from_us,
                to_us=n.to_us,
                rank=n.rank,
                next_us=now_us,
                expires_us=n.expires_us,
            )
            for n in needs
        ]
        return recall.add_recalls(self._connection, items)

    def close(self, rows: Sequence[RecallRow]) -> None:
        """Nothing of them is missing any more."""
        for row in rows:
            recall.finish_recall(self._connection, _to_item(row, row.attempts, row.next_us, "done", ""))

    def lease(self, now_us: int, limit: int) -> Sequence[RecallRow]:
        """The most urgent due items, reserved for `LEASE_S`; what the device has forgotten meanwhile becomes lost."""
        recall.expire_recalls(self._connection, now_us, tr("the device no longer keeps it", "设备已不再保存"))
        found = recall.lease_recalls(self._connection, now_us, limit=limit, lease_s=LEASE_S)
        return [to_row(r) for r in found]

    def settle(self, row: RecallRow, attempts: int, next_us: int | None, reason: str) -> None:
        """Back for `next_us`, or lost."""
        state = "lost" if next_us is None else "open"
        item = _to_item(row, attempts, row.next_us if next_us is None else next_us, state, reason)
        recall.finish_recall(self._connection, item)

    def count(self, counts: Sequence[DayCount]) -> None:
        """Completeness rows."""
        rows = [
            recall.Completeness(
                point=c.point,
                data_class=c.item,
                day=c.day,
                due=c.due,
                got=c.got,
                first_pass=c.first_pass,
                exempt=c.exempt,
            )
            for c in counts
        ]
        recall.put_completeness(self._connection, rows)


def to_row(item: recall.RecallItem) -> RecallRow:
    """An item of storage as recall sees it."""
    return RecallRow(
        id=item.id,
        device=item.device,
        duty=Duty(item.duty),
        items=item.items,
        from_us=item.from_us,
        to_us=item.to_us,
        attempts=item.attempts,
        next_us=item.next_us,
        expires_us=item.expires_us,
        state=item.state,
    )


def _to_item(row: RecallRow, attempts: int, next_us: int, state: str, reason: str) -> recall.RecallItem:
    return recall.RecallItem(
        id=row.id,
        device=row.device,
        duty=row.duty,
        items=row.items,
        from_us=row.from_us,
        to_us=row.to_us,
        attempts=attempts,
        next_us=next_us,
        expires_us=row.expires_us,
        state=state,
        reason=reason,
    )
