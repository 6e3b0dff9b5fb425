"""The completeness ledger (完整率台账, domain 3.3 and 3.4): expected slots minus present ones, gaps, order of recall.

Pure numpy: a block is a (k, n) matrix, k rows of (point, class) and n slots whose labels follow each other in one step,
over as many days as one likes, so that a hole across midnight is one hole. Who reads presence and keeps recall items
is recall.py's and storage's matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..model.devices import Device
from ..model.quality import Source
from ..model.times import DAY_US, SLOT_15MIN_US, US, day_start_us
from ..model.work import Duty
from ..protocols.dlt645.items import lookup
from .config import CycleConfig
from .cycles import duty_period_s, reading_day
from .profile import Profile

Mask = NDArray[np.bool_]
I8 = NDArray[np.int64]

RANK: Final = {Duty.MONTHLY: 0, Duty.DAILY: 1, Duty.EVENT: 2, Duty.CURVE: 3}
"""Order of recall between duties; inside a duty the newest first. Live values cannot be recalled."""

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
LIVE_MARK: Final = "active_power_total"
SHORTEST_LIVE_S: Final = 60  # of a slot of live values
DAY_S: Final = 86_400
DEFAULT_RETENTION_DAYS: Final = {Duty.CURVE: 10, Duty.DAILY: 31, Duty.MONTHLY: 365}


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One row of the ledger: a data class of one point. `item` is the class of load records, "" for freezes.

    ask: what a request for it alone names, where that is not the item (a device with several points).
    mark: quantity whose presence in a slot means that the class is there; source: where it is stored.
    since_us: nothing is expected before (option `since=YYYY-MM-DD` of the device); 0 = from the beginning.
    month_day: of monthly readings, the day of the month (1, and the customer's reading day). recallable: the device can
    be asked for it later; live values and what a device publishes by itself cannot.
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
    month_day: int = 1
    recallable: bool = True

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
        return RANK.get(self.duty, len(RANK))


def tracks(
    devices: Iterable[Device], profiles: Mapping[str, Profile], cycles: CycleConfig | None = None
) -> list[Track]:
    """What is expected of the enabled devices, row by row: stored curves and freezes and, where the periods of the
    `cycles` are given, live values."""
    rows: list[Track] = []
    live = {name: _live_of(profile, cycles) for name, profile in profiles.items()} if cycles is not None else {}
    for device in devices:
        profile = profiles.get(device.profile)
        if profile is None or not device.enabled:
            continue
        since_us = _since_us(device)
        if (of_profile := live.get(device.profile)) is not None:
            rows += live_tracks(device, *of_profile, since_us)
        if profile.protocol == "qgdw1376":
            rows += terminal_tracks(device, profile, since_us)
            continue
        if profile.protocol == "mqtt":
            rows += published_tracks(device, profile, since_us)
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
                    if duty is Duty.MONTHLY and (day := reading_day(device)) != 1:
                        rows.append(replace(row, month_day=day))
    return rows


def live_tracks(device: Device, mark: str, step_s: int, since_us: int) -> Iterator[Track]:
    """One value of the live duty in every period, from each measuring point."""
    for point in device.measuring:
        yield Track(
            device=device.id,
            point=point.id,
            duty=Duty.LIVE,
            item="",
            mark=mark,
            source=Source.LIVE,
            step_s=step_s,
            retention_days=1,
            since_us=since_us,
            recallable=False,
        )


def _live_of(profile: Profile, cycles: CycleConfig) -> tuple[str, int] | None:
    """(quantity that stands for live values, length of a slot) of a profile; None: none are expected.

    A slot is the period, or the next longer part of a day that all slots of a day are alike.
    """
    plan = profile.read.get(Duty.LIVE)
    if plan is None:
        return None
    period_s = plan.period_s if profile.protocol == "mqtt" else duty_period_s(profile, Duty.LIVE, cycles)
    names = [name for item in plan.items for name in _quantities_of(profile, item)]
    mark = LIVE_MARK if LIVE_MARK in names else next(iter(names), None)
    if not period_s or mark is None:
        return None
    shortest = max(period_s, SHORTEST_LIVE_S)
    return mark, next(step for step in range(shortest, DAY_S + 1) if DAY_S % step == 0) if shortest < DAY_S else DAY_S


def _quantities_of(profile: Profile, item: str) -> list[str]:
    """The quantities that an item of a profile's list yields."""
    if profile.protocol == "dlt645":
        found = lookup(item, profile.version)
        return [f.quantity for f in found.fields if f.quantity] if found is not None else []
    if profile.protocol == "qgdw1376":
        from .sessions.qgdw1376_plan import quantity_of
        from .sessions.qgdw1376_plan import row_of as row

        found_row = row(item, profile.version)
        name = quantity_of(found_row) if found_row is not None and "p" in found_row.pn else None
        return [name] if name is not None else []
    return [item]


def published_tracks(device: Device, profile: Profile, since_us: int) -> Iterator[Track]:
    """What a device publishes by itself: the curves and the daily freeze of its profile. It cannot be asked again."""
    shared = {"device": device.id, "since_us": since_us, "recallable": False}
    for point in device.measuring:
        for name in profile.curve.quantities if profile.curve is not None else ():
            assert profile.curve is not None
            yield Track(
                point=point.id,
                duty=Duty.CURVE,
                item=name,
                mark=name,
                source=Source.CURVE,
                step_s=profile.curve.step_s,
                retention_days=profile.curve.retention_days,
                **shared,  # type: ignore[arg-type]
            )
        if (plan := profile.read.get(Duty.DAILY)) is not None:
            yield Track(
                point=point.id,
                duty=Duty.DAILY,
                item="",
                mark=plan.items[0],
                source=Source.DAILY,
                step_s=DAY_S,
                retention_days=plan.retention_days or DEFAULT_RETENTION_DAYS[Duty.DAILY],
                **shared,  # type: ignore[arg-type]
            )


def curve_marks(profiles: Iterable[Profile]) -> frozenset[str]:
    """The quantities that stand for stored curves in the ledger: those whose slots' first arrival is kept."""
    names: set[str] = set()
    for profile in profiles:
        if profile.curve is None:
            continue
        if profile.protocol == "qgdw1376":
            from .sessions.qgdw1376_plan import quantity_of
            from .sessions.qgdw1376_plan import row_of as row

            found = [row(text, profile.version) for text in profile.curve.items]
            names |= {name for r in found if r is not None and (name := quantity_of(r)) is not None}
        else:
            names |= {CLASS_MARK[number] for number in profile.curve.classes} | set(profile.curve.quantities)
    return frozenset(names)


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


NAMES: Final = ("first_pass_success", "period_success", "completeness", "timeliness")
"""The indicators of domain 3.3 in the order of `Counts.hits`."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted in each row of a block: due and exempt slots (k,), and hits (4, k) in the order of `NAMES`."""

    due: I8
    exempt: I8
    hits: I8


def counts(
    *, expected: Mask, exempt: Mask, received_us: I8, valid: Mask, labels_us: I8, pass_us: I8, cutoff_us: I8
) -> Counts:
    """Due slots, exempt slots and the hits of each indicator, row by row of one block.

    All masks (k, n); received_us (k, n): first arrival, 0 = never; labels_us, pass_us and cutoff_us (n,): the slot's
    label, the end of its scheduled pass, and the cut-off (daily 08:00 of D+1, curves 24 h later, monthly day 2).
    """
    counted = expected & ~exempt
    got = counted & (received_us > 0)
    hits = (
        got & (received_us <= pass_us),
        got & (received_us <= cutoff_us),
        counted & valid,
        got & (received_us <= labels_us + SLOT_15MIN_US),
    )
    return Counts(
        counted.sum(axis=1, dtype=np.int64),
        (expected & exempt).sum(axis=1, dtype=np.int64),
        np.stack([h.sum(axis=1, dtype=np.int64) for h in hits]),
    )


def kpis(found: Counts) -> tuple[Kpi, ...]:
    """First-pass success, period success, completeness and timeliness over all rows."""
    due, exempt = int(found.due.sum()), int(found.exempt.sum())
    return tuple(
        Kpi(name=name, numerator=int(hits.sum()), denominator=due, exempt=exempt)
        for name, hits in zip(NAMES, found.hits, strict=True)
    )
