"""Points' days out of the database as the arrays of the day pass: raw curves, registers, freezes, edits, like days.

One COPY for the curves and one for the samples, whatever the number of points. The same readers serve the daemon's
chunks, `fuhe vee explain` and the proposals of `fuhe vee edit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import lru_cache
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import sql

from ..analytics.day import Series
from ..analytics.forecast.calendar import day_types
from ..analytics.masks import B1, F8, I2, measured
from ..analytics.slots import at_instants, slot_means
from ..analytics.vee.days import FORWARD, LOAD, POWER, REACTIVE, REVERSE, TARIFFS, Days, Edits
from ..analytics.vee.estimate import LIKE_DAYS, like_day_mean
from ..model.quality import Quality, Source
from ..model.quantities import by_id, quantity
from ..model.times import DAY_US, day_start_us
from ..storage.copying import int_array
from ..storage.curve_table import read_rows
from ..storage.curves import NONE
from ..storage.layers import read_final
from ..storage.partitions import EPOCH_DAY
from ..storage.readings import load_samples
from .vee_facts import Book, load_archive

Connection = psycopg.Connection[Any]

STEP_S: Final = 900
SLOTS: Final = 96
DECIMALS: Final = 4  # of registers' integers
REGISTERS: Final = (FORWARD, REVERSE, *TARIFFS, *REACTIVE)
LOADS: Final = (*(name for _, name in POWER), FORWARD, REVERSE)  # what the load of a neighbouring day rests on
MAX_DEMAND: Final = "forward_active_demand"
CLOCK: Final = "clock_offset"
LOAD_ID: Final = quantity(LOAD).id
LIKE_REACH: Final = 90
LIVE_POWER: Final = "active_power_total"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The arrays of a chunk: `points` x `count` days from `first`; row = point * count + day."""

    points: Sequence[int]
    first: date
    count: int
    data: Days

    def rows_of(self, day: date) -> Any:
        """The rows of one day, in the order of the points."""
        return np.arange(len(self.points)) * self.count + (day - self.first).days


def load_days(
    connection: Connection, book: Book, points: Sequence[int], first: date, count: int, whole: date | None = None
) -> Loaded:
    """`whole`: the day of which every quantity is wanted (the others: what the load rests on); None = of all days."""
    curves = _curves(connection, points, first, count, whole)
    registers = {}
    for name in [n for n in curves if n in REGISTERS]:
        registers[name] = _boundaries(curves.pop(name), count)
    freezes = _samples(connection, points, first, count, curves, registers)
    archive = load_archive(connection, book, points, first, count, step_s=STEP_S, decimals=DECIMALS)
    demand, offset = freezes.pop(MAX_DEMAND, None), freezes.pop(CLOCK, None)
    facts = archive.facts if offset is None else replace(archive.facts, clock_offset_s=offset[:, 0])
    data = Days(
        days=count,
        step_s=STEP_S,
        curves=curves,
        registers=registers,
        freezes=freezes,
        k=archive.k,
        facts=facts,
        exchanges=archive.exchanges,
        register_decimals=DECIMALS,
        outage=archive.outage,
        meter_demand_kw=None if demand is None else demand[:, -1],
        edits=load_edits(connection, points, first, count),
    )
    return Loaded(points, first, count, data)


def _curves(
    connection: Connection, points: Sequence[int], first: date, count: int, whole: date | None
) -> dict[str, Series]:
    """Every quantity that is there at all, (rows, slots)."""
    last = first + timedelta(days=count - 1)
    wanted: sql.Composable = sql.SQL("")
    if whole is not None:
        wanted = sql.SQL(" AND (c.day = {} OR c.quantity = ANY({}))").format(
            _date(whole), int_array([quantity(n).id for n in LOADS], "int2")
        )
    where = sql.SQL("c.day BETWEEN {} AND {} AND c.point = ANY({}){}").format(
        _date(first), _date(last), int_array(points), wanted
    )
    with connection.cursor() as cursor:
        found = read_rows(cursor, STEP_S, where)
    order = np.argsort(np.asarray(points))
    sorted_points = np.asarray(points)[order]
    day0 = (first - EPOCH_DAY).days
    out: dict[str, Series] = {}
    names = by_id()
    for rows in found:
        there = rows.number != NONE
        value = np.where(there, rows.number / np.power(10.0, rows.key["decimals"])[:, None], np.nan)
        row = order[np.searchsorted(sorted_points, rows.key["point"])] * count + (rows.key["day"] - day0)
        for number in np.unique(rows.key["quantity"]):
            if int(number) not in names:
                continue
            mine = rows.key["quantity"] == number
            series = out.setdefault(names[int(number)].name, Series.empty(len(points) * count, SLOTS))
            series.value[row[mine]] = value[mine]
            series.quality[row[mine]] = np.where(there[mine], rows.quality[mine], Quality.M)
    return out


def _boundaries(series: Series, count: int) -> Series:
    """Slots of a register curve as boundaries 00:00 ... 24:00; 00:00 is the last one of the day before."""
    rows = len(series.value)
    value, quality = np.full((rows, SLOTS + 1), np.nan), np.full((rows, SLOTS + 1), Quality.M, np.int16)
    value[:, 1:], quality[:, 1:] = series.value, series.quality
    inner = np.arange(rows) % count > 0
    value[inner, 0], quality[inner, 0] = value[np.flatnonzero(inner) - 1, -1], quality[np.flatnonzero(inner) - 1, -1]
    return Series(value, quality)


def _samples(
    connection: Connection, points: Sequence[int], first: date, count: int, curves: dict[str, Series],
    registers: dict[str, Series],
) -> dict[str, F8]:  # fmt: skip
    """Freezes at exactly a boundary's instant fill registers (and are compared: K11); live samples stand in for a power
    that has no curve at all. Returns the freezes, the meter's maximum demand where one was read at a midnight, and the
    largest clock offset of a day."""
    begin = day_start_us(first)
    boundary = begin + np.arange(count * SLOTS + 1, dtype=np.int64) * STEP_S * 1_000_000
    wanted = [quantity(n).id for n in (*REGISTERS, MAX_DEMAND, LIVE_POWER, CLOCK)]
    samples = load_samples(connection, points, wanted, int(boundary[0]), int(boundary[-1]) + 1)
    if not len(samples):
        return {}
    order = np.argsort(np.asarray(points))
    row = order[np.searchsorted(np.asarray(points)[order], samples.point)].astype(np.int64)
    good = measured(samples.value, samples.quality) & (samples.source != Source.CURVE)
    found: dict[str, F8] = {}
    for name in (*REGISTERS, MAX_DEMAND):
        use = good & (samples.quantity == quantity(name).id)
        if not use.any():
            continue
        flat = at_instants(
            row[use], samples.time_us[use], samples.value[use], points=len(points), instant_us=boundary
        )  # fmt: skip
        if not np.isfinite(flat).any():
            continue
        grid = np.stack([flat[:, d * SLOTS : (d + 1) * SLOTS + 1] for d in range(count)], axis=1)
        found[name] = grid.reshape(len(points) * count, SLOTS + 1)
        if name == MAX_DEMAND:
            for d in range(count):
                if (first + timedelta(days=d + 1)).day == 1:  # cleared with the month: it says nothing
                    found[name][d::count] = np.nan
            continue
        series = registers.setdefault(name, Series.empty(len(points) * count, SLOTS + 1))
        fill = np.isfinite(found[name]) & ~np.isfinite(series.value)
        series.value[fill], series.quality[fill] = found[name][fill], Quality.A
    clock = samples.quantity == quantity(CLOCK).id
    if clock.any():
        worst = np.full(len(points) * count, -1.0)
        day = np.clip((samples.time_us[clock] - begin) // DAY_US, 0, count - 1)
        np.maximum.at(worst, row[clock] * count + day, np.abs(samples.value[clock]))
        found[CLOCK] = np.where(worst < 0, np.nan, worst)[:, None]
    power = curves.get(LIVE_POWER)
    silent = np.ones(len(points) * count, np.bool_)
    for name in (n for _, n in POWER):
        if name in curves:
            silent &= ~np.logical_or.reduce(np.isfinite(curves[name].value), axis=1)
    use = good & (samples.quantity == quantity(LIVE_POWER).id) & (samples.source == Source.LIVE)
    if silent.any() and use.any():
        mean = slot_means(
            row[use], samples.time_us[use], samples.value[use], points=len(points), label_us=boundary[1:], step_s=STEP_S
        ).reshape(len(points) * count, SLOTS)
        mean[~silent] = np.nan
        if power is None:
            power = curves.setdefault(LIVE_POWER, Series.empty(len(points) * count, SLOTS))
        there = np.isfinite(mean)
        power.value[there], power.quality[there] = mean[there], Quality.A
    return found


def _date(day: date) -> sql.Composable:
    return sql.SQL("{}::date").format(sql.Literal(day.isoformat()))


# ---------------------------------------------------------------------- edits


def load_edits(
    connection: Connection, points: Sequence[int], first: date, count: int, extra: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Edits]:
    """Approved edits as arrays, later ones over earlier ones; `extra`: one more, as a proposal's preview has it."""
    rows = connection.execute(
        "SELECT point, day, quantity, first, last, action, value, method FROM vee_edit WHERE state = 'approved'"
        " AND point = ANY(%s) AND day BETWEEN %s AND %s ORDER BY decided_at, id",
        (list(points), first, first + timedelta(days=count - 1)),
    ).fetchall()
    found = [
        dict(zip(("point", "day", "quantity", "first", "last", "action", "value", "method"), r, strict=True))
        for r in rows
    ]
    return edit_arrays([*found, *extra], points, first, count)


def edit_arrays(edits: Sequence[Mapping[str, Any]], points: Sequence[int], first: date, count: int) -> dict[str, Edits]:
    """Rows of vee_edit as the arrays of the pass."""
    shape = (len(points) * count, SLOTS)
    place = {p: i for i, p in enumerate(points)}
    out: dict[str, Edits] = {}
    for edit in edits:
        name = by_id()[int(edit["quantity"])].name
        here = out.setdefault(
            name,
            Edits(
                value=np.full(shape, np.nan), accepted=np.zeros(shape, np.bool_), rejected=np.zeros(shape, np.bool_),
                method=np.zeros(shape, np.int16),
            ),
        )  # fmt: skip
        at = (
            place[int(edit["point"])] * count + (edit["day"] - first).days,
            slice(int(edit["first"]), int(edit["last"])),
        )
        action = edit["action"]
        here.value[at] = float(edit["value"]) if action == "value" else np.nan
        here.accepted[at], here.rejected[at] = action == "accept", action == "reject"
        here.method[at] = int(edit["method"]) if action == "estimate" else 0
    return out


def edits_in_force(connection: Connection, points: Sequence[int], day: date) -> dict[int, list[int]]:
    """Numbers of the approved edits of a day, by point."""
    found: dict[int, list[int]] = {}
    for point, number in connection.execute(
        "SELECT point, id FROM vee_edit WHERE state = 'approved' AND point = ANY(%s) AND day = %s ORDER BY id",
        (list(points), day),
    ):
        found.setdefault(point, []).append(number)
    return found


# ---------------------------------------------------------------------- like days


@dataclass(frozen=True, slots=True)
class LikeDays:
    """Means of like days, kWh (rows, slots), and which days lent: (point, day) -> days."""

    kwh: F8
    lent: dict[tuple[int, date], set[date]]


@lru_cache(512)
def candidates(day: date, reach: int = LIKE_REACH) -> tuple[date, ...]:
    """Days of the same type before `day`, most recent first: workdays or days of rest, no holidays among them."""
    types = day_types(day - timedelta(days=reach), reach + 1, chinese=True)
    same = (types.rest[:-1] == types.rest[-1]) & ~types.holiday[:-1]
    return tuple(day - timedelta(days=reach - int(i)) for i in np.flatnonzero(same)[::-1])


def like_days(
    connection: Connection, points: Sequence[int], first: date, count: int, wanted: Sequence[date]
) -> LikeDays:
    """Like-day means of the `wanted` days among first .. first + count, from the final load's measured slots.

    Days with a confirmed outage or with a control command of ours do not lend.
    """
    begin, end = min(wanted) - timedelta(days=LIKE_REACH), max(wanted) - timedelta(days=1)
    span = (end - begin).days + 1
    value = np.full((len(points), span, SLOTS), np.nan)
    usable = np.zeros((len(points), span), np.bool_)
    order = np.argsort(np.asarray(points))
    sorted_points = np.asarray(points)[order]
    for rows in read_final(connection, begin, end, points, [LOAD_ID], step_s=STEP_S):
        p = order[np.searchsorted(sorted_points, rows.key["point"])]
        d = rows.key["day"] - (begin - EPOCH_DAY).days
        good = (rows.number != NONE) & np.isin(rows.quality, (Quality.A, Quality.U))
        number = np.where(good, rows.number, 0) / np.power(10.0, rows.key["decimals"])[:, None]
        value[p, d] = np.where(good, number * STEP_S / 3600.0, np.nan)
        usable[p, d] = ~np.logical_or.reduce(rows.quality == Quality.O, axis=1)
    for point, day in _controlled(connection, points, begin, end):
        usable[list(points).index(point), (day - begin).days] = False
    out = np.full((len(points) * count, SLOTS), np.nan)
    lent: dict[tuple[int, date], set[date]] = {}
    for day in wanted:
        near = [d for d in candidates(day) if begin <= d <= end]
        at = [(d - begin).days for d in near]
        if not at:
            continue
        history, may = value[:, at], usable[:, at]
        rows_of_day = np.arange(len(points)) * count + (day - first).days
        out[rows_of_day] = like_day_mean(history, may)
        there = np.isfinite(history) & may[:, :, None]
        lends = np.logical_or.reduce(there & (np.cumsum(there, axis=1) <= LIKE_DAYS), axis=2)
        for p, d in zip(*np.nonzero(lends), strict=True):
            lent.setdefault((int(points[p]), day), set()).add(near[int(d)])
    return LikeDays(out, lent)


def _controlled(connection: Connection, points: Sequence[int], first: date, last: date) -> list[tuple[int, date]]:
    """Days on which a command of ours took supply from a point's device."""
    return connection.execute(
        "SELECT DISTINCT p.id, (c.sent_at AT TIME ZONE INTERVAL '08:00')::date FROM command c"
        " JOIN point p ON p.device_id = c.device_id WHERE takes_supply(c.kind) AND p.id = ANY(%s)"
        " AND c.sent_at >= %s::date::timestamp AT TIME ZONE INTERVAL '08:00'"
        " AND c.sent_at < (%s::date + 1)::timestamp AT TIME ZONE INTERVAL '08:00'",
        (list(points), first, last),
    ).fetchall()


def like_energy(connection: Connection, points: Sequence[int], day: date) -> F8:
    """Net energy of the three most recent like days that have one (points, 3), for K10."""
    near = candidates(day, 28)
    out = np.full((len(points), LIKE_DAYS), np.nan)
    if not near:
        return out
    rows = connection.execute(
        "SELECT DISTINCT ON (point, day) point, day, net_kwh FROM vee_version WHERE point = ANY(%s) AND day = ANY(%s)"
        " AND day BETWEEN %s AND %s ORDER BY point, day DESC, version DESC",
        (list(points), list(near), near[-1], near[0]),
    ).fetchall()
    place, have = {p: i for i, p in enumerate(points)}, [0] * len(points)
    for point, _, kwh in rows:
        i = place[point]
        if kwh is not None and have[i] < LIKE_DAYS:
            out[i, have[i]] = kwh
            have[i] += 1
    return out


def masks_of(failed: Mapping[str, I2], load: I2, rows: Any) -> dict[int, I2]:
    """Masks of one day by number of quantity, the load's among them."""
    return {LOAD_ID: load[rows], **{quantity(name).id: mask[rows] for name, mask in failed.items()}}


def any_of(mask: I2) -> B1:
    """Rows with a failed check."""
    found: B1 = np.logical_or.reduce(mask != 0, axis=1)
    return found
