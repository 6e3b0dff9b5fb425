"""What a forecast is made from, read from the database as it stood at an instant: objects, loads, disturbed windows.

An object is a text: `total` (all billing points), `key` (those of key customers 重点客户), `point:NAME`,
`group:NAME` (a total-sum group of a terminal),
`set:NAME,NAME` (a controlled set), and through the archive `customer:KEY`, `feeder:KEY`, `class:NAME` (industry, tariff
class or importance). Loads are primary kW of slots labelled by their end, 96 a day.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import psycopg

from ..analytics.forecast.baseline import undisturbed
from ..analytics.forecast.calendar import day_types
from ..analytics.masks import B1, F8, estimated, measured
from ..analytics.slots import slot_means
from ..model.devices import Point
from ..model.lang import tr
from ..model.quality import Quality
from ..model.quantities import quantity
from ..model.times import DAY_US, day_start_us, from_us
from ..protocols.common.errors import UsageError
from ..storage.archive import Contract, contracts, multipliers
from ..storage.curves import NONE
from ..storage.devices import load_devices
from ..storage.forecasts import control_windows
from ..storage.layers import read_final
from ..storage.partitions import EPOCH_DAY
from ..storage.readings import load_curve_range, load_samples

Connection = psycopg.Connection[Any]

STEP_S: Final = 900
SLOTS: Final = 96
SLOT_US: Final = STEP_S * 1_000_000
HISTORY_DAYS: Final = 800
CHUNK_VALUES: Final = 4_000_000  # values of one reading from the database
SAMPLE_DAYS: Final = 60  # of points without a curve memory: their live samples reach back so far
REBOUND_US: Final = 3_600_000_000  # after a restoration the load stands above its usual for a while
COVER_LEAST: Final = 0.8  # share of the members' mean load that must be there for a sum to be made good
LOAD: Final = quantity("load_power").id
POWERS: Final = ("active_demand", "active_power_total")
KEY_KVA: Final = 1000
KEY_SUPPLIES: Final = 2
KINDS: Final = ("total", "key", "point", "group", "set", "customer", "feeder", "class")
NAMELESS: Final = ("total", "key")
OTHER_ROLES: Final = frozenset({"check", "sub", "self_generation"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """kw (days, 96) from `first` on, NaN = not known; measured: the same as delivered; disturbed: slots in which a
    member was under control or out; replaced: those of them where a baseline stands in kw.

    members: points; scaled: slots in which missing members were made good by their share; digest: SHA-256 of all this.
    """

    first: date
    kw: F8
    measured: F8
    disturbed: B1
    replaced: B1
    members: tuple[str, ...]
    scaled: int
    digest: str


def parse_object(text: str) -> tuple[str, str]:
    """(kind, name); UsageError says how objects are written."""
    kind, _, name = text.partition(":")
    if kind not in KINDS or (kind in NAMELESS) == bool(name):
        shapes = ", ".join([*NAMELESS, *(f"{k}:NAME" for k in KINDS if k not in NAMELESS)])
        raise UsageError(tr(f"{text!r} is no object: write {shapes}", f"{text!r} 不是预测对象: 应为 {shapes}"))
    return kind, name


def members(connection: Connection, wanted: str, day: date) -> list[Point]:
    """The points whose loads make up an object on a day; UsageError when there is none."""
    kind, name = parse_object(wanted)
    every = [p for d in load_devices(connection, enabled_only=True) for p in d.points]
    if kind in ("point", "group", "set"):
        names = name.split(",") if kind == "set" else [name]
        by_name = {p.name: p for p in every if (p.kind == "group") == (kind == "group") or kind == "set"}
        unknown = [n for n in names if n not in by_name]
        if unknown:
            near = difflib.get_close_matches(unknown[0], list(by_name), n=3, cutoff=0.4)
            hint = tr(f"; did you mean {', '.join(near)}?", f"; 是否为 {', '.join(near)}?") if near else ""
            gone = ", ".join(unknown)
            raise UsageError(tr(f"no such {kind} in service: {gone}{hint}", f"没有在运的对象 {gone}{hint}"))
        return [by_name[n] for n in dict.fromkeys(names)]
    points = [p for p in every if p.kind == "measuring"]
    said = contracts(connection, [p.id for p in points], day)
    keys = _keys(connection, said, day) if kind == "key" else set()
    out = []
    for point, contract in zip(points, said, strict=True):
        if contract is not None and contract.role in OTHER_ROLES:
            continue  # a check meter or a sub-meter would count the same load twice
        if kind == "total" or (contract is not None and _belongs(kind, name, contract, keys)):
            out.append(point)
    if not out:
        raise UsageError(
            tr(
                f"{wanted}: no metering point belongs to it on {day}; see `fuhe archive` and `fuhe device list`",
                f"{wanted}: {day} 没有所属计量点; 见 `fuhe archive` 与 `fuhe device list`",
            )
        )
    return out


def load_history(
    connection: Connection,
    points: Sequence[Point],
    first: date,
    last: date,
    *,
    known_by_us: int,
    received_by_us: int | None,
    chinese: bool = True,
    live_from_us: int | None = None,
) -> Loads:
    """The sum of the points' loads, nothing labelled after known_by_us; with received_by_us also nothing that arrived
    later. Slots in which a member was under control, or out by a confirmed outage, hold its baseline instead.
    live_from_us: slots after it that no curve has yet are means of live samples.
    """
    days = (last - first).days + 1
    types = day_types(first, days, chinese=chinese)
    clean, delivered = _Sum(days), _Sum(days)
    replaced = np.zeros((days, SLOTS), np.bool_)
    touched = np.zeros((days, SLOTS), np.bool_)
    label_us = day_start_us(first) + (np.arange(days * SLOTS, dtype=np.int64) + 1) * SLOT_US
    future = (label_us > known_by_us).reshape(days, SLOTS)
    held = _held(connection, points, first, days)
    chunk = max(1, CHUNK_VALUES // (days * SLOTS * len(POWERS)))
    for begin in range(0, len(points), chunk):
        part = points[begin : begin + chunk]
        kw, outage, guessed = _kw(connection, part, first, last, received_by_us)
        if live_from_us is not None:
            _newest_live(connection, part, first, kw, live_from_us, known_by_us)
        kw[:, future] = np.nan
        for i, point in enumerate(part):
            disturbed = outage[i] | held.get(point.id, np.zeros((days, SLOTS), np.bool_))
            curve = kw[i]
            touched |= disturbed
            if disturbed.any():
                curve, there = undisturbed(curve, disturbed & ~future, types)
                replaced |= there
            clean.add(curve)
            delivered.add(np.where(guessed[i], np.nan, kw[i]))
    value, scaled = clean.made_good()
    names = tuple(p.name for p in points)
    digest = hashlib.sha256(
        b"\0".join([first.isoformat().encode(), ",".join(names).encode(), np.round(value, 6).tobytes()])
    ).hexdigest()
    return Loads(
        first=first,
        kw=value,
        measured=delivered.made_good()[0],
        disturbed=touched,
        replaced=replaced,
        members=names,
        scaled=scaled,
        digest=digest,
    )


def _belongs(kind: str, name: str, contract: Contract, keys: set[str]) -> bool:
    if kind == "key":
        return contract.customer in keys
    names = {
        "customer": (contract.customer,),
        "feeder": (contract.feeder,),
        "class": (contract.industry, contract.tariff_class, contract.importance),
    }
    return name in names[kind]


def _keys(connection: Connection, said: Sequence[Contract | None], day: date) -> set[str]:
    """Key customers by capacity (1000 kVA running, else contracted) or number of supplies (two)."""
    at = from_us(day_start_us(day) + DAY_US - 1)
    rows = connection.execute(
        "SELECT content ->> 'customer' FROM archive_version WHERE entity = 'supplies' AND valid_from <= %s"
        " AND (valid_to IS NULL OR valid_to > %s) GROUP BY 1 HAVING count(*) >= %s",
        (at, at, KEY_SUPPLIES),
    ).fetchall()
    return {r[0] for r in rows} | {
        c.customer for c in said if c is not None and c.customer and (c.running_kva or c.contract_kva or 0) >= KEY_KVA
    }


class _Sum:
    """A sum of members whose missing ones are made good by their share of the mean load."""

    def __init__(self, days: int) -> None:
        self._total, self._weight = np.zeros((days, SLOTS)), np.zeros((days, SLOTS))
        self._count = np.zeros((days, SLOTS), np.int64)
        self._members, self._whole = 0, 0.0

    def add(self, curve: F8) -> None:
        """A member's curve (days, 96) with NaN; one without any value is no member."""
        present = np.isfinite(curve)
        if not present.any():
            return
        mean = float(np.abs(curve[present]).mean())
        self._members, self._whole = self._members + 1, self._whole + mean
        self._weight += np.where(present, mean, 0.0)
        self._total += np.where(present, curve, 0.0)
        self._count += present

    def made_good(self) -> tuple[F8, int]:
        """The sum (days, 96), NaN where too little of it is there, and how many slots were made good."""
        complete = (self._count == self._members) & (self._members > 0)
        cover = np.where(complete, 1.0, self._weight / self._whole if self._whole > 0 else 0.0)
        good = cover >= COVER_LEAST
        value: F8 = np.where(good, self._total / np.where(good, cover, 1.0), np.nan)
        return value, int((good & ~complete).sum())


def _held(connection: Connection, points: Sequence[Point], first: date, days: int) -> dict[int, B1]:
    """Slots in which a point's device was held down by a command, and the rebound after it; (days, 96) by point."""
    by_device: dict[int, list[int]] = {}
    for device in load_devices(connection, enabled_only=False):
        ids = [p.id for p in device.points if p.id in {q.id for q in points}]
        if ids:
            by_device[device.id] = ids
    begin_us = day_start_us(first)
    out: dict[int, B1] = {}
    for window in control_windows(connection, list(by_device), begin_us, begin_us + days * DAY_US):
        a = max((window.from_us - begin_us) // SLOT_US, 0)
        b = min(-(-(window.to_us + REBOUND_US - begin_us) // SLOT_US), days * SLOTS)
        for point in by_device[window.device]:
            mask = out.setdefault(point, np.zeros((days, SLOTS), np.bool_))
            mask.reshape(-1)[a:b] = True
    return out


def _kw(
    connection: Connection, points: Sequence[Point], first: date, last: date, received_by_us: int | None
) -> tuple[F8, B1, B1]:
    """Primary kW (points, days, 96), confirmed outages, and slots that are estimates.

    A day that was judged (VEE) is its final load; others are the meter's own average where the day has it, else power.
    """
    ids = [p.id for p in points]
    days = (last - first).days + 1
    value, quality = load_curve_range(
        connection, first, last, ids, [quantity(n).id for n in POWERS], STEP_S, received_by_us
    )
    shape = (len(ids), len(POWERS), days, SLOTS)
    value, quality = value.reshape(shape), quality.reshape(shape)
    guessed: B1 = np.asarray(estimated(value, quality).any(axis=1))
    value = np.where(measured(value, quality) | estimated(value, quality), value, np.nan)
    outage: B1 = (quality == Quality.O).any(axis=1)
    own = np.isfinite(value[:, 0]).any(axis=2, keepdims=True)
    kw = np.where(own, value[:, 0], value[:, 1])
    silent = np.flatnonzero(~np.isfinite(kw).any(axis=(1, 2)))
    if len(silent):
        kw[silent] = _from_samples(connection, [ids[i] for i in silent], first, last, received_by_us)
    kw = kw * _multiplier(connection, points, first, days)[..., None]
    _final(connection, ids, first, last, received_by_us, kw, outage, guessed)
    if received_by_us is None:
        kw = np.where(guessed, np.nan, kw)  # an estimate may rest on what came after it: by labels it is not known
    return kw, outage, guessed


def _final(
    connection: Connection, ids: Sequence[int], first: date, last: date, received_by_us: int | None,
    kw: F8, outage: B1, guessed: B1,
) -> None:  # fmt: skip
    """The judged days' final loads put in place, in the version that was there at the instant."""
    made_by = None if received_by_us is None else from_us(received_by_us)
    place = {point: i for i, point in enumerate(ids)}
    day0 = (first - EPOCH_DAY).days
    for rows in read_final(connection, first, last, ids, [LOAD], made_by=made_by):
        r = np.array([place[int(p)] for p in rows.key["point"]], np.int64)
        d = rows.key["day"] - day0
        value = np.where(rows.number == NONE, np.nan, rows.number / np.power(10.0, rows.key["decimals"])[:, None])
        guess = estimated(value, rows.quality)
        kw[r, d] = np.where(guess | measured(value, rows.quality), value, np.nan)
        outage[r, d] = rows.quality == Quality.O
        guessed[r, d] = guess


def _newest_live(
    connection: Connection, points: Sequence[Point], first: date, kw: F8, from_us: int, until_us: int
) -> None:
    """Holes of the slots labelled after from_us filled with the means of live samples, in place."""
    begin = max((from_us - day_start_us(first)) // SLOT_US, 0)
    end = min((until_us - day_start_us(first)) // SLOT_US, kw.shape[1] * SLOTS)
    if end <= begin:
        return
    label = day_start_us(first) + (np.arange(begin, end, dtype=np.int64) + 1) * SLOT_US
    ids = [p.id for p in points]
    samples = load_samples(connection, ids, [quantity(POWERS[1]).id], int(label[0]) - SLOT_US + 1, int(label[-1]) + 1)
    use = measured(samples.value, samples.quality)
    order = np.argsort(np.asarray(ids))
    row = order[np.searchsorted(np.asarray(ids)[order], samples.point[use])].astype(np.int64)
    mean = slot_means(row, samples.time_us[use], samples.value[use], points=len(ids), label_us=label, step_s=STEP_S)
    mean = mean * np.array([float(p.multiplier) for p in points])[:, None]
    flat = kw.reshape(len(ids), -1)
    part = flat[:, begin:end]
    flat[:, begin:end] = np.where(np.isfinite(part), part, mean)


def _multiplier(connection: Connection, points: Sequence[Point], first: date, days: int) -> F8:
    """K (points, days) at the beginning of each day."""
    start = day_start_us(first)
    found = multipliers(connection, [p.id for p in points], start, start + days * DAY_US)
    k = np.stack([found.at(len(points), start + d * DAY_US) for d in range(days)], axis=1)
    own = np.array([float(p.multiplier) for p in points])[:, None]
    return np.where(np.isfinite(k), k, own)


def _from_samples(
    connection: Connection, ids: Sequence[int], first: date, last: date, received_by_us: int | None
) -> F8:
    """Slot means of live samples for points without a curve memory, (points, days, 96)."""
    days = (last - first).days + 1
    out = np.full((len(ids), days, SLOTS), np.nan)
    order = np.argsort(np.asarray(ids))
    for back in range(min(days, SAMPLE_DAYS)):
        day = last - timedelta(days=back)
        start = day_start_us(day)
        if received_by_us is not None and start > received_by_us:
            continue
        label = start + (np.arange(SLOTS, dtype=np.int64) + 1) * SLOT_US
        end = int(label[-1]) + 1
        # a live sample arrives when it is taken: its own time stands for its receipt
        end = end if received_by_us is None else min(end, received_by_us + 1)
        samples = load_samples(connection, ids, [quantity(POWERS[1]).id], start + 1, end)
        use = measured(samples.value, samples.quality)
        if not use.any():
            continue
        row = order[np.searchsorted(np.asarray(ids)[order], samples.point[use])].astype(np.int64)
        out[:, days - 1 - back] = slot_means(
            row, samples.time_us[use], samples.value[use], points=len(ids), label_us=label, step_s=STEP_S
        )
    return out
