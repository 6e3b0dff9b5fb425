"""What a judgement takes from the archive: multipliers and exchanges with their dates, limits, confirmed outages.

The archive is asked through `Book`, which tests replace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
import psycopg

from ..analytics.energy import Exchanges, Multipliers, multiplier_units, multipliers
from ..analytics.masks import B1, F8, I8
from ..analytics.vee.days import Facts
from ..model.times import DAY_US, day_start_us, from_us, to_us
from ..storage import archive

Connection = psycopg.Connection[Any]
DIGITS = 6  # of a DL/T 645 energy register: XXXXXX.XX
LEAST = 2


@dataclass(frozen=True, slots=True)
class Exchange:
    """A meter, CT or PT exchange with its field readings (register, secondary). k_old, k_new: multipliers around it."""

    point: int
    time_us: int
    old_end: Decimal
    new_start: Decimal
    k_old: Decimal
    k_new: Decimal


class Book(Protocol):
    """The archive as VEE reads it."""

    def ratios(
        self, connection: Connection, points: Sequence[int], first_us: int, last_us: int
    ) -> list[tuple[int, int, Decimal]]:
        """(point, in force from µs, K) of a span, each point's first row not after `first_us`."""
        ...

    def exchanges(self, connection: Connection, points: Sequence[int], first_us: int, last_us: int) -> list[Exchange]:
        """Exchanges with first_us < time <= last_us, ordered by point and time."""
        ...


class ArchiveBook:
    """The archive with effective dates (the device list's ratios where it says nothing)."""

    def ratios(
        self, connection: Connection, points: Sequence[int], first_us: int, last_us: int
    ) -> list[tuple[int, int, Decimal]]:
        """As storage.archive has them."""
        found = archive.multipliers(connection, points, first_us, last_us)
        return [(points[int(i)], int(found.valid_from_us[row]), found.factor(row)) for row, i in enumerate(found.index)]

    def exchanges(self, connection: Connection, points: Sequence[int], first_us: int, last_us: int) -> list[Exchange]:
        """A removal's reading and the next installation's at the same point."""
        rows = connection.execute(EXCHANGES, (list(points), from_us(first_us), from_us(last_us))).fetchall()
        found: list[Exchange] = []
        for (p, kind, removed, old_end), (q, after, installed, new_start) in pairwise(rows):
            if p == q and (kind, after) == ("remove", "install"):
                k_old = self.ratios(connection, [p], to_us(removed) - 1, to_us(removed))[-1][2]
                k_new = self.ratios(connection, [p], to_us(installed), to_us(installed) + 1)[-1][2]
                found.append(Exchange(p, to_us(installed), old_end, new_start, k_old, k_new))
        return found


EXCHANGES: Final = (
    "SELECT p.id, v.content ->> 'kind', v.valid_from, (v.content ->> 'forward_kwh')::numeric"
    " FROM archive_version v JOIN archive_version a ON a.entity = 'points' AND a.key = v.content ->> 'point'"
    " AND a.valid_from <= v.valid_from AND (a.valid_to IS NULL OR a.valid_to > v.valid_from)"
    " JOIN point p ON p.name = coalesce(nullif(a.content ->> 'device_point', ''), a.key)"
    " WHERE v.entity = 'meter_readings' AND p.id = ANY(%s) AND v.content ->> 'forward_kwh' IS NOT NULL"
    " AND v.valid_from > %s AND v.valid_from <= %s ORDER BY p.id, v.valid_from, v.content ->> 'kind' DESC"
)


@dataclass(frozen=True, slots=True)
class Archive:
    """Of `days` days of each point: rows = points x days (see analytics.vee.days)."""

    facts: Facts
    k: Multipliers
    exchanges: Exchanges | None
    outage: B1 | None


def load_archive(
    connection: Connection, book: Book, points: Sequence[int], first: date, days: int, *, step_s: int, decimals: int
) -> Archive:
    """Everything for points x days from `first`; `decimals`: of the registers' integers."""
    begin, slots = day_start_us(first), 86_400 // step_s
    boundary = begin + np.arange(days * slots + 1, dtype=np.int64) * step_s * 1_000_000
    place = {p: i for i, p in enumerate(points)}
    ratios = book.ratios(connection, points, int(boundary[0]), int(boundary[-1]))
    grid = multipliers(
        np.array([place[p] for p, _, _ in ratios], np.int64),
        np.array([t for _, t, _ in ratios], np.int64),
        [k for _, _, k in ratios],
        points=len(points),
        boundary_us=boundary,
    )
    shape = (len(points) * days, slots)
    k = Multipliers(start=grid.start.reshape(shape), end=grid.end.reshape(shape), decimals=grid.decimals)
    found = book.exchanges(connection, points, int(boundary[0]), int(boundary[-1]))
    exchanges = None
    if found:
        exchanges, k = _exchanges(found, place, boundary, k, days, slots, decimals)
    return Archive(
        _facts(connection, points, first + timedelta(days=days // 2), days),
        k,
        exchanges,
        _outages(connection, points, first, days, step_s),
    )


def _exchanges(
    found: Sequence[Exchange], place: dict[int, int], boundary: I8, k: Multipliers, days: int, slots: int, decimals: int
) -> tuple[Exchanges, Multipliers]:
    """Exchanges in the units of the chunk's multipliers (which get more decimals if an exchange needs them)."""
    _, needed = multiplier_units([x for e in found for x in (e.k_old, e.k_new)])
    more = max(needed - k.decimals, 0)
    k = Multipliers(start=k.start * 10**more, end=k.end * 10**more, decimals=k.decimals + more)
    slot = np.array([int(np.searchsorted(boundary, e.time_us, side="left")) - 1 for e in found], np.int64)
    slot = np.clip(slot, 0, len(boundary) - 2)

    def units(values: list[Decimal], scale: int) -> I8:
        return np.array([int(v.scaleb(scale).to_integral_value()) for v in values], np.int64)

    return Exchanges(
        point=np.array([place[e.point] for e in found], np.int64) * days + slot // slots,
        slot=slot % slots,
        old_end=units([e.old_end for e in found], decimals),
        new_start=units([e.new_start for e in found], decimals),
        k_old=units([e.k_old for e in found], k.decimals),
        k_new=units([e.k_new for e in found], k.decimals),
    ), k


def _facts(connection: Connection, points: Sequence[int], day: date, days: int) -> Facts:
    """Limits as the archive has them at the end of `day`, for all days of the chunk."""
    found = archive.contracts(connection, points, day)

    def column(name: str) -> F8:
        values = [None if c is None else getattr(c, name) for c in found]
        return np.repeat(np.array([np.nan if v is None else float(v) for v in values], np.float64), days)

    n = len(points) * days
    return Facts(
        contract_kva=column("contract_kva"),
        imax_kva=np.full(n, np.nan),
        nominal_v=column("un_sec_v"),
        three_wire=np.repeat([c is not None and c.wiring == "3P3W" for c in found], days),
        digits=np.full(n, DIGITS, np.int64),
        least=np.full(n, LEAST, np.int64),
        clock_offset_s=np.full(n, np.nan),
    )


def _outages(connection: Connection, points: Sequence[int], first: date, days: int, step_s: int) -> B1 | None:
    """Slots that lie in a registered, confirmed outage of the supply (points x days, slots); None if there is none."""
    there = connection.execute("SELECT to_regclass('exemption') IS NOT NULL").fetchone()
    if there is None or not there[0]:
        return None
    begin = day_start_us(first)
    rows = connection.execute(
        "SELECT p.id, e.since, e.until FROM exemption e JOIN point p ON p.device_id = e.device AND (e.point IS NULL"
        " OR e.point = p.id) WHERE e.kind = 'outage' AND e.withdrawn_at IS NULL AND p.id = ANY(%s)"
        " AND e.since < %s AND (e.until IS NULL OR e.until > %s)",
        (list(points), from_us(begin + days * DAY_US), from_us(begin)),
    ).fetchall()
    if not rows:
        return None
    label = begin + np.arange(1, days * 86_400 // step_s + 1, dtype=np.int64) * step_s * 1_000_000
    out = np.zeros((len(points), len(label)), np.bool_)
    place = {p: i for i, p in enumerate(points)}
    for point, since, until in rows:
        # A slot is an interval: it is in the outage only if all of it is.
        inside = (label - step_s * 1_000_000 >= to_us(since)) & (label <= (to_us(until) if until else label[-1]))
        out[place[point]] |= inside
    return out.reshape(len(points) * days, -1)
