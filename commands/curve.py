"""`fuhe curve` and `fuhe report`: stored readings as pictures and tables."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import numpy as np

from ..analytics.day import SLOTS, STEP_S, DayTable, day_table, fleet_curve, labels_us
from ..analytics.draw import Trace, curve_png, terminal_curve
from ..analytics.load import LoadDay, load_day
from ..analytics.masks import B1, F8, I8
from ..analytics.report import clock, share
from ..model.devices import Point
from ..model.lang import tr
from ..model.quantities import Quantity, by_name
from ..model.times import BUSINESS_ZONE, business_day, from_us, to_us
from ..protocols.common.errors import UsageError
from ..storage.database import Database
from .common import App, json_option, pass_app, print_json, reported
from .curve_data import ALL, LAYERS, LOAD, POWER, Layer, choose_points, load_day_input, load_quantity

MAX_DAYS = 31
P = ParamSpec("P")
R = TypeVar("R")


def _today() -> date:
    return business_day(to_us(datetime.now(UTC)))


class DayType(click.ParamType[date]):
    """A business day: YYYY-MM-DD, `today` or `yesterday`."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        words = {"today": 0, "今天": 0, "yesterday": 1, "昨天": 1}
        if value in words:
            return _today() - timedelta(days=words[value])
        try:
            return date.fromisoformat(value)
        except ValueError:
            advice = tr("write YYYY-MM-DD, today or yesterday", "应为 YYYY-MM-DD、今天或昨天")
            self.fail(tr(f"{value!r} is no day: ", f"{value!r} 不是日期: ") + advice, param, ctx)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveDay:
    """One day of one point or of the sum: value (96,) NaN = none, on the primary side, with what is known about it.

    valid: measured slots of all members; expected: number of members; members (96,): how many are in each slot's sum.
    """

    day: date
    value: F8
    estimated: B1
    figures: LoadDay
    energy_kwh: float | None
    valid: int
    members: I8 | None
    expected: int

    @property
    def completeness(self) -> float:
        """Measured slots over expected ones: of the members for a sum."""
        return share(self.valid, self.expected * SLOTS)

    @property
    def trace(self) -> Trace:
        """The day as a line to draw."""
        hours = np.arange(1.0, SLOTS + 1) * (STEP_S / 3600.0)
        return Trace(label=self.day.isoformat(), hour=hours, value=self.value, estimated=self.estimated)


def _of_table(table: DayTable, *, fleet: bool) -> CurveDay:
    total = fleet_curve(table)
    known = np.isfinite(table.energy_kwh)
    value = total.kw if fleet else table.kw[0]
    guessed = total.estimated if fleet else table.estimated[0]
    return CurveDay(
        day=table.day,
        value=value,
        estimated=guessed,
        figures=_figures(value, guessed),
        energy_kwh=round(float(table.energy_kwh[known].sum()), 4) if known.any() else None,
        valid=int(table.load.valid.sum()),
        members=total.members if fleet else None,
        expected=total.expected,
    )


def _of_quantity(day: date, value: F8, guessed: B1) -> CurveDay:
    figures = _figures(value, guessed)
    return CurveDay(
        day=day,
        value=value,
        estimated=guessed,
        figures=figures,
        energy_kwh=None,
        valid=int(figures.valid[0]),
        members=None,
        expected=1,
    )


def _figures(value: F8, guessed: B1) -> LoadDay:
    there = np.isfinite(value)
    return load_day(np.where(there, value, 0.0)[None], (there & ~guessed)[None], STEP_S, guessed[None])


def layer_option(function: Callable[P, R]) -> Callable[P, R]:
    """`--layer`: which layer of judged days is shown."""
    text = tr("layer of days that were judged", "已校验日所取数据层")
    return click.option("--layer", type=click.Choice(LAYERS), default="final", show_default=True, help=text)(function)


@click.command()
@click.argument("point")
@click.option("--day", type=DayType(), default="today", help=tr("last day: YYYY-MM-DD, today, yesterday", "最后一天"))
@click.option("--days", type=click.IntRange(1, MAX_DAYS), default=1, help=tr("days drawn over each other", "叠加天数"))
@click.option("--quantity", default=POWER, show_default=True, help=tr("name of the quantity", "数据项名称"))
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help=tr("write a PNG picture", "输出 PNG 图"))
@click.option("--csv", "csv_path", type=click.Path(dir_okay=False, path_type=Path), help=tr("write CSV", "输出 CSV"))
@layer_option
@json_option
@pass_app
@reported
def curve(
    app: App, point: str, day: date, days: int, quantity: str, plot: Path | None, csv_path: Path | None, layer: Layer,
    as_json: bool,
) -> None:  # fmt: skip
    """Draw the curve of POINT (name or number; `all` = sum of all points) on the primary side."""
    quantity = POWER if quantity == LOAD else quantity
    what = by_name().get(quantity)
    if what is None:
        raise UsageError(tr(f"no quantity is called {quantity!r}", f"没有名为 {quantity!r} 的数据项"))
    fleet = point == ALL
    if fleet and quantity != POWER:
        raise UsageError(tr(f"the sum of all points exists for {POWER} only", f"全部计量点求和仅支持 {POWER}"))
    with Database.open(app.config.storage) as database, database.connect() as connection:
        points = choose_points(connection, point)
        found = []
        for back in reversed(range(days)):
            date_ = day - timedelta(days=back)
            if quantity == POWER:
                found.append(_of_table(day_table(load_day_input(connection, date_, points, layer)), fleet=fleet))
            else:
                found.append(_of_quantity(date_, *load_quantity(connection, date_, points[0], what, layer)))
    title = _title(points, fleet, what)
    if plot:
        write_file(plot, _picture(found, title, what))
    if csv_path:
        write_file(csv_path, _curve_csv(found, what).encode("utf-8-sig"))
    if as_json:
        print_json(_curve_json(found, title, what))
        return
    click.echo(_drawing(found, title, what), nl=False)
    for one in found:
        click.echo(_summary(one, what))
    for path in (plot, csv_path):
        if path:
            click.echo(tr(f"written: {path}", f"已写入: {path}"))


def _title(points: Sequence[Point], fleet: bool, what: Quantity) -> str:
    name = tr(f"all {len(points)} points", f"全部 {len(points)} 个计量点") if fleet else points[0].name
    return f"{name}  {tr(what.name, what.zh)}"


def _drawing(found: Sequence[CurveDay], title: str, what: Quantity) -> str:
    text = terminal_curve([one.trace for one in found], title=title, unit=what.unit, colour=sys.stdout.isatty())
    return text or tr(f"{title}: no values on these days\n", f"{title}: 所选日期无数据\n")


def _summary(one: CurveDay, what: Quantity) -> str:
    """One line a day: completeness first, because it says what the other figures are worth."""
    guessed = int(one.estimated.sum())
    words = [f"{one.day}", tr(f"complete {one.completeness:.1%}", f"完整率 {one.completeness:.1%}")]
    if guessed:
        words.append(tr(f"estimated {guessed}", f"估算 {guessed} 点"))
    if np.isfinite(one.figures.max_kw[0]):
        high, low = one.figures.max_kw[0], one.figures.min_kw[0]
        words.append(tr("max", "最大") + f" {high:,.1f} {what.unit} {clock(int(one.figures.max_slot[0]))}")
        words.append(tr("min", "最小") + f" {low:,.1f} {what.unit} {clock(int(one.figures.min_slot[0]))}")
        if what.name == POWER and np.isfinite(one.figures.load_factor[0]):
            words.append(tr("load factor", "负荷率") + f" {one.figures.load_factor[0]:.1%}")
    if one.energy_kwh is not None:
        words.append(tr("energy", "电量") + f" {one.energy_kwh:,.1f} kWh")
    return "  ".join(words)


def _picture(found: Sequence[CurveDay], title: str, what: Quantity) -> bytes:
    last = found[-1]
    note = _summary(last, what)
    traces = [one.trace for one in found]
    return curve_png(traces, title=title, unit=what.unit, note=note, members=last.members, expected=last.expected)


def _times(one: CurveDay) -> list[str]:
    return [from_us(int(t)).astimezone(BUSINESS_ZONE).isoformat() for t in labels_us(one.day)]


def _states(one: CurveDay) -> list[str]:
    there = np.isfinite(one.value)
    return ["estimated" if g else "measured" if t else "missing" for t, g in zip(there, one.estimated, strict=True)]


def _curve_csv(found: Sequence[CurveDay], what: Quantity) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["day", "interval_end", f"{what.name}_{what.unit}".rstrip("_"), "state", "points"])
    for one in found:
        members = [1] * SLOTS if one.members is None else one.members.tolist()
        for time, value, state, count in zip(_times(one), one.value, _states(one), members, strict=True):
            shown = "" if not np.isfinite(value) else f"{value:.6g}" if abs(value) < 1 else f"{value:.4f}"
            writer.writerow([one.day, time, shown, state, count if state != "missing" else 0])
    return out.getvalue()


def _curve_json(found: Sequence[CurveDay], title: str, what: Quantity) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return round(float(value), 6) if np.isfinite(value) else None

    return {
        "title": title,
        "quantity": what.name,
        "unit": what.unit,
        "days": [
            {
                "day": one.day.isoformat(),
                "completeness": one.completeness,
                "max": number(one.figures.max_kw[0]),
                "max_time": clock(int(one.figures.max_slot[0])),
                "min": number(one.figures.min_kw[0]),
                "min_time": clock(int(one.figures.min_slot[0])),
                "load_factor": number(one.figures.load_factor[0]) if what.name == POWER else None,
                "energy_kwh": one.energy_kwh,
                "interval_end": _times(one),
                "value": [number(v) for v in one.value],
                "state": _states(one),
                "points": None if one.members is None else one.members.tolist(),
            }
            for one in found
        ],
    }


def write_file(path: Path, data: bytes) -> None:
    """Write it; UsageError says why not."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(tr(f"cannot write {path}: {error.strerror}", f"无法写入 {path}: {error.strerror}")) from error
