"""The completeness ledger (完整率台账, domain 3.3 and 3.4): expected slots minus present ones, gaps, order of recall.

Pure numpy: a block is a (k, n) matrix, k rows of (point, class) and n slots whose labels follow each other in one step,
over as many days as one likes, so that a hole across midnight is one hole. Who reads presence and keeps recall items
is recall.py's and storage's matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..model.devices import Device
from ..model.quality import Source
from ..model.times import DAY_US, SLOT_15MIN_US, US, day_start_us
from ..model.work import Duty
from .profile import Profile

Mask = NDArray[np.bool_]
I8 = NDArray[np.int64]

RANK: Final = {Duty.MONTHLY: 0, Duty.DAILY: 1, Duty.EVENT: 2, Duty.CURVE: 3}
"""Order of recall between duties; inside a duty the newest first."""

RETRY_US: Final = (600 * US, 1800 * US, 3600 * US)
RETRY_LATER_US: Final = 4 * 3600 * US
RETRY_DENIED_US: Final = 24 * 3600 * US  # the device itself says that it has no such data

CLASS_MARK: Final = {
    1: "voltage_a", 2: "active_power_total", 3: "power_factor_total",
    4: "forward_active_total", 5: "reactive_q1_total", 6: "active_demand",
}  # fmt: skip
"""The quantity of each load-record class whose presence stands for the class."""

FREEZE_MARK: Final = "forward_active_total"
"""The same for freezes of DL/T 645; a Modbus profile names quantities, its first one is the mark."""
DEFAULT_RETENTION_DAYS: Final = {Duty.CURVE: 10, Duty.DAILY: 31, Duty.MONTHLY: 365}


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One row of the ledger: a data class of one point. `item` is the class of load records, "" for freezes.

    ask: what a request for it alone names, where that is not the item (a device with several points).
    mark: quantity whose presence in a slot means that the class is there; source: where it is stored.
    since_us: nothing is expected before (option `since=YYYY-MM-DD` of the device); 0 = from the beginning.
    """

    device: int
    point: int
    duty: Duty
    item: str
    mark: str
    source: Source
    step_s: int
    retention_days: int
    since_us: int = 0
    ask: str = ""

    @property
    def asked(self) -> str:
        """What a request for this row names; "" = everything of the duty."""
        return self.ask or self.item


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One range request to make: one row of `recall_item`. `items` empty = everything of the duty.

    Window = [from, to) of labels; expires_us: when the device forgets the newest slot of it.
    """

    device: int
    duty: Duty
    items: tuple[str, ...]
    from_us: int
    to_us: int
    expires_us: int

    @property
    def rank(self) -> int:
        """Place of the duty in the order of recall."""
        return RANK[self.duty]


def tracks(devices: Iterable[Device], profiles: Mapping[str, Profile]) -> list[Track]:
    """Everything that can be recalled from the enabled devices (stored curves and freezes), row by row."""
    rows: list[Track] = []
    for device in devices:
        profile = profiles.get(device.profile)
        if profile is None or not device.enabled or profile.protocol == "mqtt":
            continue
        since_us = _since_us(device)
        if profile.protocol == "qgdw1376":
            rows += terminal_tracks(device, profile, since_us)
            continue
        for point in device.measuring:
            if profile.curve is not None:
                for number in profile.curve.classes:
                    row = Track(
                        device=device.id,
                        point=point.id,
                        duty=Duty.CURVE,
                        item=str(number),
                        mark=CLASS_MARK[number],
                        source=Source.CURVE,
                        step_s=profile.curve.step_s,
                        retention_days=profile.curve.retention_days,
                        since_us=since_us,
                    )
                    rows.append(row)
            for duty, source, step_s in ((Duty.DAILY, Source.DAILY, 86_400), (Duty.MONTHLY, Source.MONTHLY, 0)):
                plan = profile.read.get(duty)
                if plan is not None:
                    row = Track(
                        device=device.id,
                        point=point.id,
                        duty=duty,
                        item="",
                        mark=plan.items[0] if profile.protocol == "modbus" else FREEZE_MARK,
                        source=source,
                        step_s=step_s,
                        retention_days=plan.retention_days or DEFAULT_RETENTION_DAYS[duty],
                        since_us=since_us,
                    )
                    rows.append(row)
    return rows


def terminal_tracks(device: Device, profile: Profile, since_us: int) -> Iterator[Track]:
    """The rows of a terminal: each class of curves and the freezes of each of its points, asked for point by point.

    A freeze of a point is there when the first stored quantity of the profile's items for its kind is.
    """
    from .sessions.qgdw1376_plan import KINDS, parse_item, quantity_of
    from .sessions.qgdw1376_plan import row_of as row

    plans = [(Duty.DAILY, Source.DAILY, 86_400), (Duty.MONTHLY, Source.MONTHLY, 0)]
    for point in device.points:
        letter = next(le for le, kind in KINDS.items() if kind == point.kind)
        for text in profile.curve.items if profile.curve is not None else ():
            item, found = parse_item(text), row(text, profile.version)
            mark = quantity_of(found) if found is not None and letter in found.pn else None
            if item is None or mark is None or profile.curve is None:
                continue
            yield Track(
                device=device.id,
                point=point.id,
                duty=Duty.CURVE,
                item=item.text,
                mark=mark,
                source=Source.CURVE,
                step_s=profile.curve.step_s,
                retention_days=profile.curve.retention_days,
                since_us=since_us,
                ask=item._replace(pn=point.pn).text,
            )
        for duty, source, step_s in plans:
            plan = profile.read.get(duty)
            rows = [row(text, profile.version) for text in plan.items] if plan is not None else []
            marks = [quantity_of(r) for r in rows if r is not None and letter in r.pn]
            mark = next((m for m in marks if m is not None), None)
            if plan is None or mark is None:
                continue
            yield Track(
                device=device.id,
                point=point.id,
                duty=duty,
                item="",
                mark=mark,
                source=source,
                step_s=step_s,
                retention_days=plan.retention_days or DEFAULT_RETENTION_DAYS[duty],
                since_us=since_us,
                ask=f"{letter}{point.pn}",
            )


def _since_us(device: Device) -> int:
    try:
        return day_start_us(date.fromisoformat(device.options["since"])) if "since" in device.options else 0
    except ValueError:
        return 0  # the device list is checked at import; a bad date must not stop the ledger of all others


def due(labels_us: I8, rows: int, *, in_service_us: I8 | None = None, until_us: int) -> Mask:
    """(k, n): slots that should be there by now: label at or before `until_us`, and after a row's start.

    The label 00:00 of the first day belongs to the day before it (domain 3.2), as 24:00.
    """
    ready = np.broadcast_to(labels_us <= until_us, (rows, len(labels_us)))
    return ready.copy() if in_service_us is None else ready & (labels_us[None, :] > in_service_us[:, None])


def runs(mask: Mask) -> tuple[I8, I8, I8]:
    """Runs of True in each row of (k, n): row, first slot, slot behind the last; ordered by row, then slot."""
    k, n = mask.shape
    padded = np.zeros((k, n + 2), np.int8)
    padded[:, 1:-1] = mask
    step = np.diff(padded, axis=1)
    row, first = np.nonzero(step == 1)
    _, beyond = np.nonzero(step == -1)
    return row, first, beyond


def gaps(rows: Sequence[Track], missing: Mask, labels_us: I8, all_items: Mapping[int, int] | None = None) -> list[Need]:
    """The fewest range requests that cover exactly the missing slots, in order of recall.

    Rows of one block share a duty and `labels_us` (n,) a step. Classes of one device that lack the same range share one
    request; `all_items` (device -> number of its classes) lets a request for all of them leave `items` empty.
    """
    if not rows:
        return []
    row, first, beyond = runs(missing)
    step_us = _step_us(labels_us, rows[0])
    found: dict[tuple[int, int, int], list[int]] = {}
    for r, low, high in zip(row.tolist(), first.tolist(), beyond.tolist(), strict=True):
        # what the device has forgotten is asked for as well: real memories are deeper than promised, and cost nothing
        found.setdefault((rows[r].device, int(labels_us[low]), int(labels_us[high - 1]) + step_us), []).append(r)
    needs = []
    for (device, from_us, to_us), members in found.items():
        items = tuple(sorted({rows[r].asked for r in members} - {""}))
        whole = all_items is not None and len(items) == all_items.get(device)
        needs.append(
            Need(
                device=device,
                duty=rows[members[0]].duty,
                items=() if whole else items,
                from_us=from_us,
                to_us=to_us,
                expires_us=to_us - step_us + max(rows[r].retention_days for r in members) * DAY_US,
            )
        )
    return order(needs)


def order(needs: Iterable[Need]) -> list[Need]:
    """Monthly > daily > events > curves, newest first; ties by device and items, so that the order is stable."""
    return sorted(needs, key=lambda n: (n.rank, -n.to_us, n.device, n.items, n.from_us))


def next_try_us(attempts: int, now_us: int, expires_us: int, *, denied: bool = False) -> int | None:
    """When to ask again after `attempts` (>= 1) asked in vain: +10 min, +30 min, +1 h, then 4-hourly. None = LOST.

    denied: the device said that it has no such data; then daily instead of 4-hourly.
    """
    later = RETRY_DENIED_US if denied else RETRY_LATER_US
    wait = RETRY_US[attempts - 1] if attempts <= len(RETRY_US) else later
    return now_us + wait if now_us + wait < expires_us else None


def _step_us(labels_us: I8, row: Track) -> int:
    if row.step_s:
        return row.step_s * US
    return DAY_US  # months: a window of one day holds the one label


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpi:
    """One indicator: share of `numerator` in `denominator`; exempt slots are in neither and listed apart (3.3)."""

    name: str
    numerator: int
    denominator: int
    exempt: int
    formula: str = "3.3/1"

    @property
    def ratio(self) -> float | None:
        """0..1; None when nothing was due."""
        return self.numerator / self.denominator if self.denominator else None


def kpis(
    *, expected: Mask, exempt: Mask, received_us: I8, valid: Mask, labels_us: I8, pass_us: I8, cutoff_us: I8
) -> tuple[Kpi, Kpi, Kpi, Kpi]:
    """First-pass success, period success, completeness and timeliness over one block.

    All masks (k, n); received_us (k, n): first arrival, 0 = never; labels_us, pass_us and cutoff_us (n,): the slot's
    label, the end of its scheduled pass, and the cut-off (daily 08:00 of D+1, curves 24 h later, monthly day 2).
    """
    counted = expected & ~exempt
    total, apart = int(counted.sum()), int((expected & exempt).sum())
    got = counted & (received_us > 0)

    def kpi(name: str, hits: Mask) -> Kpi:
        return Kpi(name=name, numerator=int(hits.sum()), denominator=total, exempt=apart)

    return (
        kpi("first_pass_success", got & (received_us <= pass_us)),
        kpi("period_success", got & (received_us <= cutoff_us)),
        kpi("completeness", counted & valid),
        kpi("timeliness", got & (received_us <= labels_us + SLOT_15MIN_US)),
    )
