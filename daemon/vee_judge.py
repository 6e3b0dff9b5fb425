"""One chunk of dirty days: load, judge and estimate all points at once, add versions where something changed.

One transaction a chunk, under a lock: the versions, the marks of the days that follow from them and the end of the
chunk's own marks are committed together. After a crash the marks are still there and nothing of the result is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import psycopg

from ..analytics.day import Series
from ..analytics.masks import B1, F8, I2, I8
from ..analytics.vee.day_pass import checked_and_final
from ..analytics.vee.days import FORWARD, LOAD, LOAD_DECIMALS, REPLACED, Days, Layers
from ..model.quality import Quality
from ..model.quantities import quantity
from ..storage import layers as tables
from ..storage.curves import NONE
from ..storage.dirty import DirtyDay, Why, finish_dirty_days, mark
from ..storage.partitions import Partitions
from .vee_days import (
    LOAD_ID,
    SLOTS,
    STEP_S,
    Loaded,
    any_of,
    edit_arrays,
    edits_in_force,
    like_days,
    like_energy,
    load_days,
    masks_of,
)  # fmt: skip
from .vee_facts import Book

Connection = psycopg.Connection[Any]

NEAR: Final = 1  # days on each side of the one that is judged
FAR: Final = 8  # where a gap reaches further: one day more than may be estimated without a person
ESTIMATES: Final = (Quality.E1, Quality.E2, Quality.E3, Quality.E4, Quality.E5)
CAUSES: Final = ~int(Why.NEIGHBOUR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The layers of one day of `points`: rows in the points' order, and what they rest on."""

    day: date
    points: Sequence[int]
    data: Days
    layers: Layers
    like: Mapping[int, Sequence[date]]
    like_kwh: F8
    begin_known: B1
    end_known: B1


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a chunk came to. days: judged; versions: written; marked: days that follow from them."""

    days: int
    versions: int
    marked: int


def judge(
    connection: Connection,
    book: Book,
    day: date,
    points: Sequence[int],
    today: date,
    extra: Mapping[str, Any] | None = None,
) -> Judged:
    """Both layers of one day from what the database holds now; writes nothing.

    today: the running day; beyond it nothing is missing yet. extra: an edit that is not approved yet.
    """
    near = _with_edit(load_days(connection, book, points, *_window(day, NEAR, today), day), extra)
    rows = near.rows_of(day)
    like_day = np.full((len(points) * near.count, 3), np.nan)
    like_day[rows] = like_energy(connection, points, day)
    data = replace(near.data, like_day_kwh=like_day)
    layers = checked_and_final(data)
    like_kwh = np.full((len(points), SLOTS), np.nan)
    lent: dict[int, Sequence[date]] = {}
    doubtful = (layers.load_quality[rows] == Quality.S) & (layers.load_failed[rows] & REPLACED != 0)
    open_ = (layers.load_quality[rows] == Quality.M) | doubtful
    asked = _asked(data, rows)
    needy: list[int] = np.flatnonzero(np.logical_or.reduce(open_ | asked, axis=1) | layers.reaches[rows]).tolist()
    final = _rows(layers, rows)
    own = _day_data(data, rows)
    if len(needy):
        again = _with_history(connection, book, day, [points[i] for i in needy], today, extra)
        _put(final, again.layers, needy)
        like_kwh[needy] = again.like_kwh
        lent.update(again.like)
    boundary = data.registers.get(FORWARD)
    known = np.zeros((len(points), 2), np.bool_) if boundary is None else np.isfinite(boundary.value[rows][:, [0, -1]])
    return Judged(
        day=day, points=points, data=own, layers=final, like=lent, like_kwh=like_kwh,
        begin_known=known[:, 0], end_known=known[:, 1],
    )  # fmt: skip


def _window(day: date, reach: int, today: date) -> tuple[date, int]:
    """First day and number of days around one."""
    last = max(min(day + timedelta(days=reach), today), day)
    first = day - timedelta(days=reach)
    return first, (last - first).days + 1


def _with_history(
    connection: Connection, book: Book, day: date, points: Sequence[int], today: date, extra: Mapping[str, Any] | None
) -> Judged:
    """The few points with longer gaps: more days on both sides, and the like days of all days in the gap."""
    loaded = _with_edit(load_days(connection, book, points, *_window(day, FAR, today), day), extra)
    rows = loaded.rows_of(day)
    first = checked_and_final(loaded.data)
    wanted = _gap_days(first, loaded, day)
    like = like_days(connection, points, loaded.first, loaded.count, wanted)
    like_day = np.full((len(points) * loaded.count, 3), np.nan)
    like_day[rows] = like_energy(connection, points, day)
    layers = checked_and_final(replace(loaded.data, like_kwh=like.kwh, like_day_kwh=like_day))
    used = np.logical_or.reduce(np.isin(layers.load_quality[rows], (Quality.E3, Quality.E5)), axis=1)
    lent = {p: sorted(like.lent[p, day]) for p, u in zip(points, used, strict=True) if u and (p, day) in like.lent}
    none = np.zeros(len(points), np.bool_)
    return Judged(
        day=day, points=points, data=_day_data(loaded.data, rows), layers=_rows(layers, rows), like=lent,
        like_kwh=like.kwh[rows], begin_known=none, end_known=none,
    )  # fmt: skip


def _gap_days(layers: Layers, loaded: Loaded, day: date) -> list[date]:
    """The day itself and the days joined to it by a gap that needs a shape, for any of the points."""
    open_ = np.isin(layers.load_quality, (Quality.M, Quality.E1, Quality.E2, Quality.S))
    some = np.logical_or.reduce(open_.reshape(len(loaded.points), loaded.count, SLOTS), axis=(0, 2))
    at = (day - loaded.first).days
    a = b = at
    while a > 0 and some[a - 1]:
        a -= 1
    while b + 1 < loaded.count and some[b + 1]:
        b += 1
    return [loaded.first + timedelta(days=i) for i in range(a, b + 1)]


def _with_edit(loaded: Loaded, extra: Mapping[str, Any] | None) -> Loaded:
    """With one more edit over those in force."""
    if extra is None:
        return loaded
    ((name, one),) = edit_arrays([extra], loaded.points, loaded.first, loaded.count).items()
    edits = dict(loaded.data.edits)
    if name in edits:
        before = edits[name]
        here = np.isfinite(one.value) | one.accepted | one.rejected | (one.method > 0)
        one = replace(
            one,
            value=np.where(here, one.value, before.value), accepted=np.where(here, one.accepted, before.accepted),
            rejected=np.where(here, one.rejected, before.rejected), method=np.where(here, one.method, before.method),
        )  # fmt: skip
    edits[name] = one
    return replace(loaded, data=replace(loaded.data, edits=edits))


def _asked(data: Days, rows: Any) -> B1:
    """Slots for which a person wants a method of estimation."""
    found = [e.method[rows] > 0 for e in data.edits.values()]
    return np.logical_or.reduce(found) if found else np.zeros((len(rows), SLOTS), np.bool_)


_PER_ROW: Final = ("load_kw", "load_quality", "load_failed", "load_source", "load_raw_kw", "needs_person", "reaches",
                   "import_kwh", "export_kwh", "energy_flag")  # fmt: skip
_PER_NAME: Final = ("failed", "checked", "values", "quality")


def _rows(layers: Layers, rows: Any) -> Layers:
    """Copies of some rows."""
    whole: dict[str, Any] = {name: getattr(layers, name)[rows].copy() for name in _PER_ROW}
    named: dict[str, Any] = {f: {n: v[rows].copy() for n, v in getattr(layers, f).items()} for f in _PER_NAME}
    return Layers(**whole, **named)


def _put(into: Layers, part: Layers, at: Any) -> None:
    """Rows of `part` over rows `at`."""
    for name in _PER_ROW:
        getattr(into, name)[at] = getattr(part, name)
    for field in _PER_NAME:
        target = getattr(into, field)
        for name, values in getattr(part, field).items():
            if name in target:
                target[name][at] = values


def _day_data(data: Days, rows: Any) -> Days:
    """The arrays of one day alone, as explanations want them."""
    return replace(
        data,
        days=1,
        curves={n: Series(s.value[rows], s.quality[rows]) for n, s in data.curves.items()},
        registers={n: Series(s.value[rows], s.quality[rows]) for n, s in data.registers.items()},
        freezes={n: v[rows] for n, v in data.freezes.items()},
        k=replace(data.k, start=data.k.start[rows], end=data.k.end[rows]),
        facts=type(data.facts)(**{n: getattr(data.facts, n)[rows] for n in data.facts.__slots__}),
        exchanges=None,
        outage=None if data.outage is None else data.outage[rows],
        like_day_kwh=None if data.like_day_kwh is None else data.like_day_kwh[rows],
        meter_demand_kw=None if data.meter_demand_kw is None else data.meter_demand_kw[rows],
        edits={n: replace(e, value=e.value[rows], accepted=e.accepted[rows], rejected=e.rejected[rows],
                          method=e.method[rows]) for n, e in data.edits.items()},
    )  # fmt: skip


# ---------------------------------------------------------------------- writing


Search = Callable[[Connection, Judged], list[tuple[int, date]]]


def judged_only(connection: Connection, days: Sequence[tuple[int, date]]) -> list[tuple[int, date]]:
    """Those of the point-days that have been judged once."""
    if not days:
        return []
    known = tables.judged(connection, min(d for _, d in days), max(d for _, d in days), [p for p, _ in days])
    return [one for one in days if one in known]


class Judge:
    """Recomputes chunks; one per connection."""

    def __init__(
        self, book: Book, *, timescale: bool, retention_days: int, search: Search = lambda connection, judged: []
    ) -> None:
        """`search` looks through a judged day in its transaction; returns point-days that are to be judged again."""
        self._book, self._search = book, search
        self._writer = tables.LayerWriter(Partitions(timescale, retention_days))

    def chunk(self, connection: Connection, ticket: str, dirty: Sequence[DirtyDay], today: date) -> Round:
        """Everything of one chunk (points of one day) in one transaction."""
        day = dirty[0].day
        points = [d.point for d in dirty]
        with connection.transaction():
            tables.lock(connection)
            judged = judge(connection, self._book, day, points, today)
            written = self._write(connection, judged, {d.point: d.why for d in dirty}, today)
            marked = _followers(connection, judged, {d.point: d.why for d in dirty}, written)
            marked = sorted({*marked, *judged_only(connection, self._search(connection, judged))})
            mark(connection, marked, Why.NEIGHBOUR)
            finish_dirty_days(connection, ticket, dirty)
        return Round(days=len(dirty), versions=len(written), marked=len(marked))

    def _write(self, connection: Connection, j: Judged, why: Mapping[int, Why], today: date) -> dict[int, int]:
        """New versions of the points that changed: point -> version."""
        heads = {h.point: h for h in tables.heads(connection, j.points, j.day, j.day)}
        finals = _changed_finals(connection, j)
        checked = _changed_masks(connection, j)
        edits = edits_in_force(connection, j.points, j.day)
        touched = set(finals.point.tolist()) | set(checked[0].tolist())
        versions: dict[int, dict[str, object]] = {}
        for i, point in enumerate(j.points):
            head, new = heads.get(point), _head(j, i, edits.get(point))
            if head is None and not _anything(j, i):
                continue
            same = head is not None and all(_same(getattr(head, n), v) for n, v in new.items())
            if point in touched or not same:
                versions[point] = {**new, "version": 1 if head is None else head.version + 1, "why": int(why[point])}
        keep = np.isin(finals.point, list(versions))
        finals = tables.Numbers(**{n: getattr(finals, n)[keep] for n in tables.Numbers.__slots__})
        mine = np.isin(checked[0], list(versions))
        self._writer.write(
            connection,
            j.day,
            today,
            versions,
            finals,
            (checked[0][mine], checked[1][mine], checked[2][mine]),
            step_s=STEP_S,
        )
        return {p: int(str(v["version"])) for p, v in versions.items()}


def _anything(j: Judged, i: int) -> bool:
    """Whether there is anything to say of a point's day: one that never had a value gets no version."""
    return bool(
        np.isfinite(j.layers.load_kw[i]).any() or any(np.isfinite(v[i]).any() for v in j.layers.values.values())
    )


def _same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-9 * max(abs(a), abs(b), 1.0)
    return a == b


def _head(j: Judged, i: int, edits: list[int] | None) -> dict[str, object]:
    quality, kw = j.layers.load_quality[i], j.layers.load_kw[i]

    def energy(value: float) -> float | None:
        return round(float(value), 6) if np.isfinite(value) else None

    return {
        "basis": int(j.layers.load_source[i].max()),
        "suspect": int((quality == Quality.S).sum()),
        "rejected": sum(int((q[i] == Quality.X).sum()) for q in j.layers.quality.values()),
        "missing": int((quality == Quality.M).sum()),
        "estimated": int(np.isin(quality, ESTIMATES).sum()),
        "edited": int((quality == Quality.U).sum()),
        "person": int(j.layers.needs_person[i].sum()),
        "net_kwh": energy(float(kw.sum()) * STEP_S / 3600.0),
        "import_kwh": energy(j.layers.import_kwh[i]),
        "export_kwh": energy(j.layers.export_kwh[i]),
        "like_days": list(j.like[j.points[i]]) if j.points[i] in j.like else None,
        "edits": edits,
    }


def _changed_finals(connection: Connection, j: Judged) -> tables.Numbers:
    """Rows of FINAL that differ from the ones in force: every point's load, and measured quantities in which something
    is rejected, suspect or edited, or once was."""
    old: dict[tuple[int, int], tuple[I8, I2, int]] = {}
    for rows in tables.read_final(connection, j.day, j.day, j.points, step_s=STEP_S):
        for k in range(len(rows)):
            key = (int(rows.key["quantity"][k]), int(rows.key["point"][k]))
            old[key] = (rows.number[k], rows.quality[k], int(rows.key["decimals"][k]))
    parts = [_differing(j, LOAD_ID, LOAD_DECIMALS, j.layers.load_kw, j.layers.load_quality, None, old)]
    for name, value in j.layers.values.items():
        what = quantity(name)
        marked = np.logical_or.reduce(
            np.isin(j.layers.quality[name], (Quality.S, Quality.X, Quality.U)) & (j.layers.quality[name] != Quality.M),
            axis=1,
        )
        parts.append(_differing(j, what.id, what.decimals, value, j.layers.quality[name], marked, old))
    return tables.join([p for p in parts if len(p.point)])


def _differing(
    j: Judged, number: int, decimals: int, value: F8, quality: I2, marked: B1 | None,
    old: Mapping[tuple[int, int], tuple[I8, I2, int]],
) -> tables.Numbers:  # fmt: skip
    new = tables.numbers_of(j.points, number, decimals, value, quality)
    keep = []
    for i, point in enumerate(j.points):
        before = old.get((number, point))
        if before is None:
            here = np.isfinite(value[i]).any() if marked is None else marked[i]
        else:
            was, scale = before[0], 10 ** (decimals - before[2])
            same = np.where(was == NONE, NONE, was * scale) == new.number[i]
            now = np.where((new.number[i] == NONE) & (new.quality[i] != Quality.X), Quality.M, new.quality[i])
            here = not (same.all() and (now == before[1]).all())
        if here:
            keep.append(i)
    return tables.Numbers(**{n: getattr(new, n)[keep] for n in tables.Numbers.__slots__})


def _changed_masks(connection: Connection, j: Judged) -> tuple[I8, I8, I2]:
    """Rows of CHECKED that differ from the ones in force (a quantity without a row never failed)."""
    points, quantities, masks = tables.read_checked(connection, j.day, j.points, step_s=STEP_S)
    old = {(int(q), int(p)): m for p, q, m in zip(points, quantities, masks, strict=True)}
    rows = np.arange(len(j.points))
    out: list[tuple[int, int, I2]] = []
    for number, mask in masks_of(j.layers.failed, j.layers.load_failed, rows).items():
        known = [i for i, p in enumerate(j.points) if (number, p) in old]
        for i in sorted({*np.flatnonzero(any_of(mask)).tolist(), *known}):
            before = old.get((number, j.points[i]))
            if before is None or not np.array_equal(before, mask[i]):
                out.append((j.points[i], number, mask[i]))
    if not out:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, SLOTS), np.int16)
    p, q, m = zip(*out, strict=True)
    return np.array(p, np.int64), np.array(q, np.int64), np.stack(m).astype(np.int16)


def _followers(
    connection: Connection, j: Judged, why: Mapping[int, Why], written: Mapping[int, int]
) -> list[tuple[int, date]]:
    """Judged days that rest on this one: neighbours with open or estimated slots, or without a register energy although
    the register between the two is known; and days that took their shape from it."""
    causes = [p for p in j.points if p in written or int(why[p]) & CAUSES]
    if not causes:
        return []
    found: set[tuple[int, date]] = set()
    at = {p: i for i, p in enumerate(j.points)}
    near = [j.day + timedelta(days=d) for d in range(-FAR, FAR + 1) if d]
    heads = {(h.point, h.day): h for h in tables.heads(connection, causes, near[0], near[-1])}
    for point in causes:
        for step, known in ((-1, j.begin_known), (1, j.end_known)):
            day = j.day + timedelta(days=step)
            head = heads.get((point, day))
            if head is not None and head.import_kwh is None and known[at[point]]:
                found.add((point, day))
            # A gap of several days is one: all of it is told again.
            while head is not None and (head.estimated or head.missing) and abs((day - j.day).days) <= FAR:
                found.add((point, day))
                if head.estimated + head.missing < SLOTS:
                    break
                day += timedelta(days=step)
                head = heads.get((point, day))
    # A day that is judged for the first time may lend to later ones that lacked it or took an older one.
    fresh = [p for p, version in written.items() if version == 1]
    rows = connection.execute(
        "SELECT DISTINCT point, day FROM vee_version WHERE point = ANY(%s) AND day > %s AND day <= %s"
        " AND (like_days @> ARRAY[%s::date] OR (point = ANY(%s) AND (missing > 0 OR cardinality(like_days) < 3"
        " OR like_days[1] < %s)))",
        (list(written), j.day, j.day + timedelta(days=90 + FAR), j.day, fresh, j.day),
    )
    found.update((p, d) for p, d in rows)
    return sorted(found)


def preview(
    connection: Connection, book: Book, edit: Mapping[str, Any], name: str, today: date
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an edit (columns of vee_edit) would change: final values and qualities of its slots before and after it."""
    out = []
    for extra in (None, edit):
        j = judge(connection, book, edit["day"], [int(edit["point"])], today, extra)
        if name == LOAD:
            value, quality = j.layers.load_kw[0], j.layers.load_quality[0]
        elif name in j.layers.values:
            value, quality = j.layers.values[name][0], j.layers.quality[name][0]
        else:
            value, quality = np.full(SLOTS, np.nan), np.full(SLOTS, Quality.M, np.int16)
        span = slice(int(edit["first"]), int(edit["last"]))
        out.append(
            {
                "value": [round(float(v), 5) if np.isfinite(v) else None for v in value[span]],
                "quality": [Quality(int(q)).name for q in quality[span]],
            }
        )
    return out[0], out[1]
