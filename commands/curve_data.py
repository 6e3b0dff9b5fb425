"""A day's stored readings as the arrays of analytics: the one place where storage and analytics meet.

Of days that were judged (VEE) the FINAL layer is taken unless another is asked for: the final load, measured quantities
without what was rejected, energies with the archive's multipliers and exchanges; other days are raw. Estimates keep
their quality: they count in energies and are dashed, and no maximum, voltage rate or power factor sees them.
Raw curves come from the devices' own curve memory; a point that has none for a quantity gets the means of its live
samples. Registers at the day's boundaries come from curves, and from freezes that carry exactly a boundary's instant.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, get_args

import numpy as np
import psycopg

from ..analytics.day import CURVES, REGISTERS, SLOTS, STEP_S, DayInput, Series, Settled, labels_us
from ..analytics.masks import B1, F8, I8, estimated, measured
from ..analytics.slots import at_instants, slot_means
from ..model.devices import Point
from ..model.lang import tr
from ..model.quality import Quality
from ..model.quantities import Quantity, quantity
from ..model.readings import Samples
from ..model.times import day_start_us
from ..protocols.common.errors import UsageError
from ..storage.curves import NONE
from ..storage.devices import load_devices
from ..storage.layers import heads, read_checked, read_final
from ..storage.readings import load_curve_range, load_samples

Connection = psycopg.Connection[Any]

Layer = Literal["raw", "checked", "final"]
LAYERS: Final[tuple[Layer, ...]] = get_args(Layer)
POWER: Final = "active_power_total"
AVERAGE: Final = "active_demand"
LOAD: Final = "load_power"
ALL: Final = "all"


def choose_points(connection: Connection, wanted: str) -> list[Point]:
    """The points in service called `wanted` by name or number; UsageError names near ones.

    `all` = every measuring point: groups, being sums of them, would count twice.
    """
    points = [point for device in load_devices(connection, enabled_only=True) for point in device.points]
    if not points:
        raise UsageError(
            tr("there are no metering points yet: import a device list first", "尚无计量点: 请先导入设备清单")
        )
    if wanted == ALL:
        return [p for p in points if p.kind == "measuring"]
    found = [p for p in points if p.name == wanted] or [p for p in points if str(p.id) == wanted]
    if not found:
        near = difflib.get_close_matches(wanted, [p.name for p in points], n=3, cutoff=0.4)
        hint = tr(f"; did you mean {', '.join(near)}?", f"; 是否为 {', '.join(near)}?") if near else ""
        raise UsageError(tr(f"no metering point is called {wanted!r}{hint}", f"没有名为 {wanted!r} 的计量点{hint}"))
    return found


def load_day_input(connection: Connection, day: date, points: Sequence[Point], layer: Layer = "final") -> DayInput:
    """Everything `day_table` wants of one business day."""
    ids = [p.id for p in points]
    curves = _curves(connection, day, ids, CURVES)
    silent = np.flatnonzero(~np.isfinite(curves[POWER].value).any(axis=1))
    if len(silent):
        _fill_from_samples(connection, day, [ids[i] for i in silent], silent, curves)
    registers = load_registers(connection, day, ids)
    settled = None
    if layer == "checked":
        _checked(connection, day, ids, curves)
        _checked(connection, day, ids, registers, boundary=1)
    elif layer == "final":
        settled = _final(connection, day, points, curves, registers)
    return DayInput(day=day, points=points, curves=curves, registers=registers, settled=settled)


def load_quantity(
    connection: Connection, day: date, point: Point, what: Quantity, layer: Layer = "final"
) -> tuple[F8, B1]:
    """One quantity of one point on the primary side: value (96,) with NaN, estimated (96,)."""
    curves = _curves(connection, day, [point.id], [what.name])
    if not np.isfinite(curves[what.name].value).any():
        _fill_from_samples(connection, day, [point.id], np.zeros(1, np.int64), curves)
    if layer == "checked":
        _checked(connection, day, [point.id], curves)
    elif layer == "final":
        _measured_final(connection, day, [point.id], curves)
    series = curves[what.name]
    guessed = estimated(series.value, series.quality)
    shown = guessed | measured(series.value, series.quality)
    return np.where(shown, series.value * float(primary_ratio(what, point)), np.nan)[0], guessed[0]


def primary_ratio(what: Quantity, point: Point) -> Decimal:
    """What turns a secondary value into a primary one: x CT x PT for power and energy, x PT for U, x CT for I."""
    if what.unit in ("kW", "kvar", "kVA", "kWh", "kvarh", "kVAh"):
        return point.multiplier
    if what.name.startswith("voltage_") and what.unit == "V":
        return point.pt_ratio
    return point.ct_ratio if what.name.startswith("current_") and what.unit == "A" else Decimal(1)


def _numbers(names: Sequence[str]) -> list[int]:
    return [quantity(name).id for name in names]


def _by_name(value: F8, quality: Any, points: int, names: Sequence[str]) -> dict[str, Series]:
    """Point-major (points x quantities, n) arrays taken apart by quantity."""
    v, q = value.reshape(points, len(names), -1), quality.reshape(points, len(names), -1)
    return {name: Series(v[:, i], q[:, i]) for i, name in enumerate(names)}


def _curves(connection: Connection, day: date, ids: Sequence[int], names: Sequence[str]) -> dict[str, Series]:
    value, quality = load_curve_range(connection, day, day, ids, _numbers(names), STEP_S)
    return _by_name(value, quality, len(ids), names)


def load_registers(connection: Connection, day: date, ids: Sequence[int]) -> dict[str, Series]:
    """Registers at 00:00 ... 24:00: the last slot of the day before and the day's own, then exact freezes."""
    value, quality = load_curve_range(connection, day - timedelta(days=1), day, ids, _numbers(REGISTERS), STEP_S)
    registers = _by_name(value[:, SLOTS - 1 :], quality[:, SLOTS - 1 :], len(ids), REGISTERS)
    instants = np.r_[day_start_us(day), labels_us(day)]
    samples = load_samples(connection, ids, _numbers(REGISTERS), int(instants[0]), int(instants[-1]) + 1)
    good = measured(samples.value, samples.quality)
    for name, series in registers.items():
        use = good & (samples.quantity == quantity(name).id)
        found = at_instants(
            _rows(samples, use, ids), samples.time_us[use], samples.value[use], points=len(ids), instant_us=instants
        )
        fill = np.isfinite(found) & ~np.isfinite(series.value)
        series.value[fill] = found[fill]
        series.quality[fill] = Quality.A
    # A register that no point has is left out: absent is not the same as missing.
    return {name: series for name, series in registers.items() if np.isfinite(series.value).any()}


def _fill_from_samples(
    connection: Connection, day: date, ids: Sequence[int], rows: I8, curves: dict[str, Series]
) -> None:
    """Means of the samples for the given points and every quantity that has no curve at all there."""
    label = labels_us(day)
    samples = load_samples(connection, ids, _numbers(list(curves)), day_start_us(day) + 1, int(label[-1]) + 1)
    good = measured(samples.value, samples.quality)
    for name, series in curves.items():
        use = good & (samples.quantity == quantity(name).id)
        mean = slot_means(
            _rows(samples, use, ids), samples.time_us[use], samples.value[use],
            points=len(ids), label_us=label, step_s=STEP_S,
        )  # fmt: skip
        empty = ~np.isfinite(series.value[rows]).any(axis=1)
        mean[~empty] = np.nan
        there = np.isfinite(mean)
        value, quality = series.value[rows], series.quality[rows]
        value[there], quality[there] = mean[there], Quality.A
        series.value[rows], series.quality[rows] = value, quality


def _rows(samples: Samples, use: B1, ids: Sequence[int]) -> I8:
    """Row number of each used sample's point among `ids`."""
    order = np.argsort(np.asarray(ids))
    return order[np.searchsorted(np.asarray(ids)[order], samples.point[use])].astype(np.int64)


def _checked(
    connection: Connection, day: date, ids: Sequence[int], found: dict[str, Series], boundary: int = 0
) -> None:
    """CHECKED qualities over raw ones (`boundary` 1: registers, whose first column is the day before's)."""
    from ..analytics.vee.checks import checked_quality

    points, quantities, masks = read_checked(connection, day, ids, step_s=STEP_S)
    for name, series in found.items():
        mine = quantities == quantity(name).id
        if mine.any():
            mask = np.zeros((len(ids), SLOTS), np.int64)
            mask[_places(points[mine], ids)] = masks[mine]
            part = slice(boundary, None)
            series.quality[:, part] = checked_quality(series.value[:, part], series.quality[:, part], mask)


def _measured_final(
    connection: Connection, day: date, ids: Sequence[int], found: dict[str, Series], boundary: int = 0
) -> None:
    """Final rows of measured quantities over raw ones (a quantity without a row is its raw one)."""
    for rows in read_final(connection, day, day, ids, _numbers(list(found)), step_s=STEP_S):
        for name, series in found.items():
            mine = rows.key["quantity"] == quantity(name).id
            if mine.any():
                scale = np.power(10.0, rows.key["decimals"][mine])[:, None]
                at = _places(rows.key["point"][mine], ids)
                series.value[at, boundary:] = np.where(rows.number[mine] == NONE, np.nan, rows.number[mine] / scale)
                series.quality[at, boundary:] = rows.quality[mine]


def _final(
    connection: Connection, day: date, points: Sequence[Point], curves: dict[str, Series], registers: dict[str, Series]
) -> Settled:
    """The FINAL layer of the judged points put in place.

    The load is primary: it is handed over on the secondary side of today's ratios, by which callers multiply again.
    """
    ids = [p.id for p in points]
    place = {p: i for i, p in enumerate(ids)}
    known = np.zeros(len(ids), np.bool_)
    energy = np.full((2, len(ids)), np.nan)
    for head in heads(connection, ids, day, day):
        i = place[head.point]
        known[i] = True
        energy[:, i] = [np.nan if v is None else v for v in (head.import_kwh, head.export_kwh)]
    _measured_final(connection, day, ids, curves)
    if registers:
        _measured_final(connection, day, ids, registers, boundary=1)
    k = np.array([float(p.multiplier) for p in points])[:, None]
    for rows in read_final(connection, day, day, ids, [quantity(LOAD).id], step_s=STEP_S):
        at = _places(rows.key["point"], ids)
        scale = np.power(10.0, rows.key["decimals"])[:, None]
        for name in (AVERAGE, POWER):  # one final load, whatever its source was
            curves[name].value[at], curves[name].quality[at] = np.nan, Quality.M
        curves[POWER].value[at] = np.where(rows.number == NONE, np.nan, rows.number / scale) / k[at]
        curves[POWER].quality[at] = rows.quality
    return Settled(known=known, import_kwh=energy[0], export_kwh=energy[1])


def _places(wanted: Any, ids: Sequence[int]) -> Any:
    order = np.argsort(np.asarray(ids))
    return order[np.searchsorted(np.asarray(ids)[order], wanted)]
