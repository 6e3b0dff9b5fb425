"""The ledger's two ports (presence and recall items) on the database. Synchronous: the daemon calls from a thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from ...model.devices import Device
from ...model.lang import tr
from ...model.quality import Quality, Source
from ...model.times import US, business_day, to_us
from ...model.work import Duty
from ...storage import arrivals, readings, recall
from ...storage.exemptions import load_exemptions
from ..indicators import Slots
from ..ledger import I8, Mask, Need
from ..recall import DayCount, Exemption, RecallRow

ALL: Final = 10_000_000
FOR_EVER_US: Final = 4_102_444_800_000_000  # the year 2100
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
        row, column, exact = _places(points, found.point, labels_us, found.time_us)
        mask = np.zeros((len(points), len(labels_us)), np.bool_)
        mask[row[exact], column[exact]] = True
        return mask

    def live(self, points: NDArray[np.int32], quantity: int, labels_us: I8, step_s: int) -> Mask:
        """Periods that hold a live value, or have one within a tenth of a period beside them."""
        return self.live_slots(points, quantity, labels_us, step_s).present

    def curve_slots(self, points: NDArray[np.int32], quantity: int, labels_us: I8, step_s: int) -> Slots:
        """Stored slots of one business day, with the (rounded up) instant of their first arrival."""
        day = business_day(int(labels_us[0]) - 1)
        value, quality = readings.load_curve_range(self._connection, day, day, points.tolist(), [quantity], step_s)
        code = arrivals.load_arrivals(self._connection, day, points.tolist(), quantity, step_s)
        received = np.where(code == arrivals.NEVER, 0, labels_us + arrivals.limits_s()[code] * US)
        present = np.isfinite(value)
        return Slots(present, present & (quality == Quality.A), received)

    def freeze_slots(self, points: NDArray[np.int32], quantity: int, source: Source, labels_us: I8) -> Slots:
        """Readings of a freeze's source with exactly these instants."""
        found, received_us = readings.load_arrived(
            self._connection, points.tolist(), [quantity], int(labels_us[0]), int(labels_us[-1]) + 1, source
        )
        slots = _empty(len(points), len(labels_us))
        row, column, exact = _places(points, found.point, labels_us, found.time_us)
        slots.present[row[exact], column[exact]] = True
        slots.valid[row[exact], column[exact]] = found.quality[exact] == Quality.A
        slots.received_us[row[exact], column[exact]] = received_us[exact]
        return slots

    def live_slots(self, points: NDArray[np.int32], quantity: int, labels_us: I8, step_s: int) -> Slots:
        """Periods that hold a live value, or have one within a tenth of a period beside them.

        Who publishes every quarter of an hour does so now just before and now just after the period's edge.
        """
        n, step_us = len(labels_us), step_s * US
        near_us = step_us // 10
        slots = _empty(len(points), n)
        found = readings.load_live_periods(
            self._connection, points.tolist(), quantity, int(labels_us[0]) - step_us, step_s, n, near_us
        )
        order = np.argsort(points)
        row = order[np.searchsorted(points[order], found[:, 0])]
        inside = [(found[:, 1], np.ones(len(found), np.bool_))]
        inside += [(found[:, 1] - 1, found[:, 2] <= near_us), (found[:, 1] + 1, found[:, 3] > step_us - near_us)]
        for column, near in reversed(inside):  # what lies in the period itself is told last and counts
            here = near & (column >= 0) & (column < n)
            slots.present[row[here], column[here]] = True
            slots.valid[row[here], column[here]] = found[here, 5] == Quality.A
            slots.received_us[row[here], column[here]] = found[here, 4]
        return slots

    def exemptions(self, devices: Sequence[Device]) -> list[Exemption]:
        """What is registered, point by point, as windows of labels (since < label <= until)."""
        points = {d.id: [p.id for p in d.points] for d in devices}
        return [
            Exemption(
                point=point,
                from_us=to_us(e.since) + 1,
                to_us=FOR_EVER_US if e.until is None else to_us(e.until) + 1,
                reason=f"{e.kind}: {e.reason}",
            )
            for e in load_exemptions(self._connection)
            for point in (points.get(e.device, ()) if e.point is None else (e.point,))
        ]

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


def _empty(k: int, n: int) -> Slots:
    return Slots(np.zeros((k, n), np.bool_), np.zeros((k, n), np.bool_), np.zeros((k, n), np.int64))


def _places(
    points: NDArray[np.int32], point: NDArray[np.int32], labels_us: I8, time_us: I8
) -> tuple[NDArray[np.intp], NDArray[np.intp], Mask]:
    """Row and column of each reading, and whether its instant is a label at all."""
    order = np.argsort(points)
    row = order[np.searchsorted(points[order], point)]
    column = np.minimum(np.searchsorted(labels_us, time_us), len(labels_us) - 1)
    return row, column, labels_us[column] == time_us


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
