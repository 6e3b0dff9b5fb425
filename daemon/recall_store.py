"""The two ports of recall (`acquisition.recall`) over the database. Synchronous; the daemon calls it from a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from ..acquisition.ledger import I8, Mask, Need
from ..acquisition.recall import DayCount, RecallRow
from ..model.quality import Source
from ..model.times import US, business_day, day_start_us
from ..model.work import Duty
from ..storage.readings import load_curve_range, load_samples
from ..storage.recall import (
    Completeness,
    RecallItem,
    add_recalls,
    finish_recall,
    lease_recalls,
    put_completeness,
)

Connection = psycopg.Connection[Any]
LEASE_S = 3600.0


class DatabaseRecall:
    """`Presence` and `RecallStore` on one autocommit connection; one thread at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._leased: dict[int, RecallItem] = {}

    # -- Presence -----------------------------------------------------------------------------------------------------

    def curve(self, points: NDArray[np.int32], quantity: int, labels_us: I8, step_s: int) -> Mask:
        """See `Presence`: whole business days are read, the asked labels cut out."""
        first, last = business_day(int(labels_us[0]) - 1), business_day(int(labels_us[-1]) - 1)
        distinct = np.unique(points)
        value, _ = load_curve_range(self._connection, first, last, distinct.tolist(), [quantity], step_s)
        slot = (labels_us - day_start_us(first)) // (step_s * US) - 1
        return np.isfinite(value)[np.searchsorted(distinct, points)][:, slot]

    def freezes(self, points: NDArray[np.int32], quantity: int, source: Source, labels_us: I8) -> Mask:
        """See `Presence`."""
        distinct = np.unique(points)
        found = load_samples(
            self._connection, distinct.tolist(), [quantity], int(labels_us[0]), int(labels_us[-1]) + 1, source
        )
        present = np.zeros((len(distinct), len(labels_us)), np.bool_)
        column = np.minimum(np.searchsorted(labels_us, found.time_us), len(labels_us) - 1)
        exact = labels_us[column] == found.time_us
        present[np.searchsorted(distinct, found.point)[exact], column[exact]] = True
        return present[np.searchsorted(distinct, points)]

    # -- RecallStore --------------------------------------------------------------------------------------------------

    def rows_since(self, duty: Duty, from_us: int) -> Sequence[RecallRow]:
        """See `RecallStore`."""
        rows = self._connection.execute(
            "SELECT id, device, items, from_us, to_us, attempts, next_us, expires_us, state FROM recall_item"
            " WHERE duty = %s AND to_us > %s ORDER BY id",
            (str(duty), from_us),
        ).fetchall()
        return [
            RecallRow(
                id=r[0], device=r[1], duty=duty, items=tuple(r[2]), from_us=r[3], to_us=r[4], attempts=r[5],
                next_us=r[6], expires_us=r[7], state=r[8],
            )
            for r in rows
        ]  # fmt: skip

    def add(self, needs: Sequence[Need], now_us: int) -> int:
        """See `RecallStore`."""
        return add_recalls(
            self._connection,
            [
                RecallItem(
                    device=n.device, duty=str(n.duty), items=n.items, from_us=n.from_us, to_us=n.to_us, rank=n.rank,
                    next_us=now_us, expires_us=n.expires_us,
                )
                for n in needs
            ],
        )  # fmt: skip

    def close(self, ids: Sequence[int]) -> None:
        """See `RecallStore`."""
        if ids:
            self._connection.execute(
                "UPDATE recall_item SET state = 'done', leased_us = NULL, updated = now() WHERE id = ANY(%s)",
                (list(ids),),
            )

    def lease(self, now_us: int, limit: int) -> Sequence[RecallRow]:
        """See `RecallStore`."""
        items = lease_recalls(self._connection, now_us, limit=limit, lease_s=LEASE_S)
        self._leased.update((item.id, item) for item in items)
        return [
            RecallRow(
                id=i.id, device=i.device, duty=Duty(i.duty), items=i.items, from_us=i.from_us, to_us=i.to_us,
                attempts=i.attempts, next_us=i.next_us, expires_us=i.expires_us, state=i.state,
            )
            for i in items
        ]  # fmt: skip

    def leased(self, row_id: int) -> RecallRow:
        """The row of an item that this process has leased (KeyError otherwise)."""
        i = self._leased[row_id]
        return RecallRow(
            id=i.id, device=i.device, duty=Duty(i.duty), items=i.items, from_us=i.from_us, to_us=i.to_us,
            attempts=i.attempts, next_us=i.next_us, expires_us=i.expires_us, state=i.state,
        )  # fmt: skip

    def settle(self, row_id: int, attempts: int, next_us: int | None, reason: str) -> None:
        """See `RecallStore`."""
        item = self._leased.pop(row_id)
        state = "open" if next_us is not None else "lost"
        finish_recall(
            self._connection,
            replace(item, attempts=attempts, next_us=next_us or item.next_us, state=state, reason=reason),
        )

    def count(self, counts: Sequence[DayCount]) -> None:
        """See `RecallStore`."""
        put_completeness(
            self._connection,
            [
                Completeness(
                    point=c.point, data_class=c.item, day=c.day, due=c.due, got=c.got, first_pass=c.first_pass,
                    exempt=c.exempt,
                )
                for c in counts
            ],
        )  # fmt: skip


def days_of_memory(retention_days: Sequence[int]) -> int:
    """How many business days back a scan looks: the deepest memory of any device, at most two months."""
    return min(62, max(retention_days, default=0))
