"""Stored curves of a terminal: class-2 curves (Td_c) and the points of an hour (Td_h), from the table's `points` field.

Point i of a curve has the time start + i x interval by the terminal's clock: the instant of a snapshot, the end of an
interval energy. What was not recorded is EE; what is not yet recorded shortens the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from ...model.readings import F8, I8
from ...model.times import US
from ...protocols.qgdw1376.layout import INTERVAL_MIN, POINTS_OF_HOUR, Field, Group, Layout
from . import fields
from .fill import is_register, shaped, variant_of
from .parameters import Unit
from .parts import Parts
from .points import PointBook
from .sources import ANGLES

INTERVALS: Final = frozenset(
    {"forward_active_energy", "forward_reactive_energy", "reverse_active_energy", "reverse_reactive_energy"}
)


def curve_unit(
    parts: Parts, layout: Layout, kind: str, number: int, asked: fields.Data, now_us: int, days: int
) -> Unit | None:
    """Answer to a curve request {td_c, density, n}; None = nothing stored. kind: row.pn (M or G), number: pn."""
    start, density = fields.moment(asked, "td_c"), fields.integer(asked, "density")
    minutes = INTERVAL_MIN.get(density)
    if start is None or minutes is None:
        return None
    step = timedelta(minutes=minutes)
    local = parts.local(now_us)
    count = min(fields.integer(asked, "n"), int((local - start) / step) + 1 if start <= local else 0)
    if count <= 0 or start + count * step < local - timedelta(days=days):
        return None
    labels = [start + i * step for i in range(count)]
    points = _points(parts, layout, kind, number, labels, minutes * 60 * US)
    return None if points is None else {"td_c": start, "density": density, "n": count, "points": points}


def hour_unit(parts: Parts, layout: Layout, kind: str, number: int, asked: fields.Data, now_us: int) -> Unit | None:
    """Points of one hour {td_h, density}: the last such hour that has begun; None = nothing stored."""
    hour, density = fields.integer(asked, "td_h", -1), fields.integer(asked, "density")
    minutes = INTERVAL_MIN.get(density)
    if not 0 <= hour <= 23 or minutes is None:
        return None
    local = parts.local(now_us)
    start = local.replace(hour=hour, minute=0, second=0)
    if start > local:
        start -= timedelta(days=1)
    labels = [start + timedelta(minutes=minutes * (i + 1)) for i in range(POINTS_OF_HOUR[density])]
    points = _points(parts, layout, kind, number, labels, minutes * 60 * US, until=local)
    return None if points is None else {"td_h": hour, "density": density, "points": points}


def _points(
    parts: Parts, layout: Layout, kind: str, number: int, labels: Sequence[datetime], interval_us: int,
    until: datetime | None = None,
) -> list[object] | None:  # fmt: skip
    node = next((n for n in variant_of(layout, parts.edition).nodes if getattr(n, "name", "") == "points"), None)
    shown = [parts.clock.true_us(t) if until is None or t <= until else None for t in labels]
    times = np.array([-1 if t is None else t for t in shown], np.int64)
    if isinstance(node, Field):
        values = _series(parts, kind, number, node.quantity, times, interval_us)
        if values is None:
            return None
        percent = node.unit == "%" and node.quantity.startswith("power_factor")
        register = is_register(node.quantity)
        return [shaped(float(v), node.format, register=register, percent=percent) for v in values]
    if isinstance(node, Group):
        columns: dict[str, F8] = {}
        for inner in node.fields:
            assert isinstance(inner, Field)
            found = _series(parts, kind, number, inner.quantity, times, interval_us)
            if found is None:
                return None
            columns[inner.name] = found
        return [{k: shaped(float(v[i]), "A.5") for k, v in columns.items()} for i in range(len(labels))]
    return None


def _series(parts: Parts, kind: str, number: int, quantity: str, times: I8, interval_us: int) -> F8 | None:
    """(n,) values of a quantity; None = this terminal does not keep it. Instants below 0 have none."""
    try:
        if kind == "G":
            values = _group(parts, number, quantity, times, interval_us)
        else:
            values = _point(parts.points, number, quantity, times, interval_us)
    except KeyError:
        return None
    return None if values is None else np.where(times < 0, math.nan, values)


def _point(points: PointBook, pn: int, quantity: str, times: I8, interval_us: int) -> F8:
    if quantity in INTERVALS:
        name = quantity.replace("_energy", "_total")
        return points.series(pn, name, times) - points.series(pn, name, times - interval_us)
    if quantity.startswith(("voltage_angle_", "current_angle_")):
        phase = quantity[-1]
        behind = points.series(pn, f"phase_angle_{phase}", times) if quantity.startswith("current") else 0.0
        fitted = ~np.isnan(points.series(pn, f"voltage_{phase}", times))
        return np.where(fitted, (ANGLES[phase] + behind) % 360, math.nan)
    return points.series(pn, quantity, times)


def _group(parts: Parts, group: int, quantity: str, times: I8, interval_us: int) -> F8 | None:
    totals = parts.totals
    kind = "reactive" if "reactive" in quantity else "active"
    if not totals.members(group):
        return None
    if quantity in ("group_power", "group_reactive_power"):
        return totals.power(group, times, kind)
    if quantity in ("group_active_energy", "group_reactive_energy"):
        found = [totals.energy(group, int(t) - interval_us, int(t), kind) for t in times]
        return np.array([math.nan if f is None else f[0] for f in found])
    raise KeyError(quantity)
