"""Why a final value is what it is: raw reading, checks with their numbers, estimation with its sources, versions.

The judgement is made once more from what the database holds, exactly as the daemon does it, and put beside what is
stored. Frames are not kept (docs/vee.md says what that would cost): the trail ends at the memory a reading came from
and the time it arrived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import psycopg

from ..analytics.curve import CurveSource
from ..analytics.vee.days import FORWARD, LOAD, POWER
from ..analytics.vee.evidence import findings
from ..model.devices import Point
from ..model.quality import Quality
from ..model.quantities import Quantity, quantity
from ..model.times import BUSINESS_ZONE, day_start_us, from_us
from ..storage import layers as tables
from ..storage.curves import NONE
from ..storage.dirty import Why
from .vee_days import SLOTS, STEP_S
from .vee_facts import Book
from .vee_judge import Judged, judge

Connection = psycopg.Connection[Any]
BASIS: Final = {
    CurveSource.NONE: "", CurveSource.METER_AVERAGE: "active_demand", CurveSource.SAMPLED: "active_power_total",
    CurveSource.TERMINAL_AVERAGE: "", CurveSource.REGISTER: FORWARD,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything about one quantity of one day; `slots` and `versions` are plain values for JSON and tables."""

    point: str
    day: date
    quantity: Quantity
    basis: str
    received: str
    judged: bool
    waiting: bool
    person: int
    versions: list[dict[str, Any]]
    slots: list[dict[str, Any]]


def why_words(why: int) -> list[str]:
    """Reasons of a version as words."""
    return [w.name.lower() for w in Why if why & w and w.name]


def explain(connection: Connection, book: Book, point: Point, day: date, what: Quantity, today: date) -> Explanation:
    """`what`: LOAD or a measured quantity."""
    j = judge(connection, book, day, [point.id], today)
    load = what.name == LOAD
    basis = BASIS[CurveSource(int(j.layers.load_source[0].max()))] if load else what.name
    stored = _stored(connection, point.id, day, what)
    raw, checked = _raw(j, what)
    if stored is None:
        value, quality = _fresh(j, what)
    else:
        value, quality = stored
    by_slot: dict[int, list[dict[str, Any]]] = {}
    for f in findings(j.data, j.layers, what.name, basis if load else ""):
        by_slot.setdefault(f.slot, []).append(
            {
                "check": f.check.name,
                "value": _number(f.value),
                "limit": _number(f.limit),
                "unit": f.unit,
                "text": f.text,
            }
        )
    history = tables.history(connection, point.id, day)
    like = _like(connection, point.id, j.like.get(point.id, ())) if load else {}
    edits = _edits(connection, point.id, day, what)
    slots = []
    for i in range(SLOTS):
        slots.append(
            {
                "slot": i,
                "interval_end": _label(day, i),
                "raw": _number(raw[i]),
                "checked": Quality(int(checked[i])).name,
                "checks": by_slot.get(i, []),
                "final": _number(value[i]),
                "quality": Quality(int(quality[i])).name,
                "how": _how(j, i, int(quality[i]), value, quality, like, edits) if load or i in edits else {},
            }
        )
    waiting = connection.execute("SELECT 1 FROM dirty_day WHERE point = %s AND day = %s", (point.id, day)).fetchone()
    return Explanation(
        point=point.name, day=day, quantity=what, basis=basis, received=_received(connection, point.id, day, basis),
        judged=bool(history), waiting=waiting is not None, person=int(j.layers.needs_person[0].sum()),
        versions=[_version(v) for v in history], slots=slots,
    )  # fmt: skip


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def _label(day: date, slot: int) -> str:
    return from_us(day_start_us(day) + (slot + 1) * STEP_S * 1_000_000).astimezone(BUSINESS_ZONE).isoformat()


def _raw(j: Judged, what: Quantity) -> tuple[Any, Any]:
    """Raw values (the load's: of its source, primary) and the CHECKED quality."""
    if what.name == LOAD:
        source = BASIS[CurveSource(int(j.layers.load_source[0].max()))]
        rejected = np.isfinite(j.layers.load_raw_kw[0])
        quality = (
            j.layers.checked[source][0] if source in j.layers.checked else np.where(rejected, Quality.A, Quality.M)
        )
        return j.layers.load_raw_kw[0], quality
    if what.name in j.data.curves:
        return j.data.curves[what.name].value[0], j.layers.checked[what.name][0]
    if what.name in j.data.registers:
        return j.data.registers[what.name].value[0, 1:], j.layers.checked[what.name][0]
    return np.full(SLOTS, np.nan), np.full(SLOTS, Quality.M)


def _fresh(j: Judged, what: Quantity) -> tuple[Any, Any]:
    if what.name == LOAD:
        return j.layers.load_kw[0], j.layers.load_quality[0]
    if what.name in j.layers.values:
        return j.layers.values[what.name][0], j.layers.quality[what.name][0]
    return np.full(SLOTS, np.nan), np.full(SLOTS, Quality.M)


def _stored(connection: Connection, point: int, day: date, what: Quantity) -> tuple[Any, Any] | None:
    for rows in tables.read_final(connection, day, day, [point], [what.id], step_s=STEP_S):
        if len(rows):
            value = np.where(rows.number[0] == NONE, np.nan, rows.number[0] / 10.0 ** rows.key["decimals"][0])
            return value, rows.quality[0]
    return None


def _received(connection: Connection, point: int, day: date, basis: str) -> str:
    """When the newest segment of the raw curve arrived."""
    if not basis:
        return ""
    row = connection.execute(
        "SELECT max(received) FROM curve_day WHERE day = %s AND point = %s AND quantity = %s",
        (day, point, quantity(basis).id),
    ).fetchone()
    return row[0].astimezone(BUSINESS_ZONE).isoformat() if row and row[0] else ""


def _like(connection: Connection, point: int, days: Any) -> dict[str, Any]:
    """The load of the days that lent, kW, by day."""
    found = {}
    for day in days:
        stored = _stored(connection, point, day, quantity(LOAD))
        if stored is not None:
            found[day.isoformat()] = np.where(np.isin(stored[1], (Quality.A, Quality.U)), stored[0], np.nan)
    return found


def _edits(connection: Connection, point: int, day: date, what: Quantity) -> dict[int, dict[str, Any]]:
    """The edit in force of each slot."""
    found: dict[int, dict[str, Any]] = {}
    for number, first, last, action, reason, drafted, decided in connection.execute(
        "SELECT id, first, last, action, reason, drafted_by, decided_by FROM vee_edit WHERE state = 'approved'"
        " AND point = %s AND day = %s AND quantity = %s ORDER BY decided_at, id",
        (point, day, what.id),
    ):
        one = {"edit": number, "action": action, "reason": reason, "drafted_by": drafted, "decided_by": decided}
        found.update(dict.fromkeys(range(first, last), one))
    return found


def _how(
    j: Judged, slot: int, code: int, value: Any, quality: Any, like: Mapping[str, Any],
    edits: Mapping[int, dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """Where a final value that is no plain reading comes from."""
    out: dict[str, Any] = {}
    if slot in edits:
        out["edit"] = edits[slot]
    if code == Quality.O:
        return {**out, "method": "O", "from": "outage"}
    if code == Quality.E1:
        source = BASIS[CurveSource(int(j.layers.load_source[0].max()))]
        return {**out, "method": "EST1", "from": [n for _, n in POWER if n != source and n in j.data.curves]}
    if code == Quality.E2:
        return {**out, "method": "EST2", **_neighbours(j.day, slot, value, quality)}
    if code == Quality.E3:
        return {**out, "method": "EST3", "days": {d: _number(v[slot]) for d, v in like.items()}}
    if code == Quality.E5:
        return {**out, "method": "EST5", **_span(j, slot, value, quality),
                "days": {d: _number(v[slot]) for d, v in like.items()}}  # fmt: skip
    if code == Quality.M and bool(j.layers.needs_person[0, slot]):
        return {**out, "method": "person"}
    return out


def _neighbours(day: date, slot: int, value: Any, quality: Any) -> dict[str, Any]:
    """The two measured values that the line joins; beyond midnight they belong to another day."""
    good = np.isin(quality, (Quality.A, Quality.U, Quality.S))
    left, right = np.flatnonzero(good[:slot]), np.flatnonzero(good[slot + 1 :])
    out: dict[str, Any] = {"left": None, "right": None}
    if len(left):
        out["left"] = {"interval_end": _label(day, int(left[-1])), "kw": _number(value[left[-1]])}
    if len(right):
        at = slot + 1 + int(right[0])
        out["right"] = {"interval_end": _label(day, at), "kw": _number(value[at])}
    return out


def _span(j: Judged, slot: int, value: Any, quality: Any) -> dict[str, Any]:
    """The registers on both sides and what they leave for the estimated slots between them."""
    series = j.data.registers.get(FORWARD)
    if series is None:
        return {"registers": None}
    at = np.flatnonzero(np.isfinite(series.value[0]))
    before, after = at[at <= slot], at[at > slot]
    if not len(before) or not len(after):
        return {"registers": None}  # they lie in the days beside
    a, b = int(before[-1]), int(after[0])
    k = float(j.data.k.end[0, slot]) / 10.0**j.data.k.decimals
    hours = STEP_S / 3600.0
    inside = np.arange(a, b)
    known = inside[np.isin(quality[inside], (Quality.A, Quality.U, Quality.S, Quality.O))]
    total = (float(series.value[0, b]) - float(series.value[0, a])) * k
    measured = float(value[known].sum()) * hours
    return {
        "registers": {
            "from": _label(j.day, a - 1), "to": _label(j.day, b - 1), "start": _number(series.value[0, a]),
            "end": _number(series.value[0, b]), "k": _number(k), "kwh": _number(total),
            "measured_kwh": _number(measured), "left_kwh": _number(total - measured),
        }
    }  # fmt: skip


def _version(v: tables.Version) -> dict[str, Any]:
    return {
        "version": v.version, "made": v.made.astimezone(BUSINESS_ZONE).isoformat(timespec="seconds"),
        "why": why_words(v.why), "basis": BASIS[CurveSource(v.basis)], "suspect": v.suspect, "rejected": v.rejected,
        "missing": v.missing, "estimated": v.estimated, "edited": v.edited, "person": v.person, "net_kwh": v.net_kwh,
        "import_kwh": v.import_kwh, "export_kwh": v.export_kwh,
        "like_days": [d.isoformat() for d in v.like_days or ()], "edits": v.edits or [],
    }  # fmt: skip
