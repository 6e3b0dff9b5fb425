"""`fuhe analyse explain POINT DAY|MONTH`: each number of a statement with its formula, clause and inputs."""

from __future__ import annotations

import calendar
import re
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

import click
import numpy as np

from ..analytics.curve import CurveSource
from ..analytics.energy import IntervalFlag
from ..analytics.explain import NONE32, Figure, explain_day, explain_month
from ..analytics.fleet import STATS, fleet_day
from ..analytics.power_factor import month_cos
from ..model.devices import Point
from ..model.lang import tr
from ..storage.database import Database
from .analyse_data import Connection, Loaded, load_chunk
from .asking import print_table, time_text
from .common import App, json_option, pass_app, print_json, reported
from .curve import DayType
from .curve_data import choose_points


class SpanType(click.ParamType[tuple[date, date]]):
    """A business day, or a month YYYY-MM: (first day, last day)."""

    name = "day|month"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[date, date]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{4})-(\d{2})", value)
        if found and 1 <= int(found[2]) <= 12 and int(found[1]) >= 1970:
            year, month = int(found[1]), int(found[2])
            return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])
        day = DayType().convert(value, param, ctx)
        return day, day


@click.command("explain")
@click.argument("name", metavar="POINT")
@click.argument("span", type=SpanType(), metavar="DAY|MONTH")
@json_option
@pass_app
@reported
def explain_(app: App, name: str, span: tuple[date, date], as_json: bool) -> None:
    """Each number of a day (YYYY-MM-DD) or month (YYYY-MM): formula, clause, slots used and excluded, multiplier."""
    first, last = span
    with Database.open(app.config.storage) as database, database.connect() as connection:
        (point,) = choose_points(connection, name)[:1]
        if first == last:
            said, figures = _day(connection, point, first)
        else:
            said, figures = _month(connection, point, first, last)
    if as_json:
        print_json(said | {"figures": [asdict(f) for f in figures]})
        return
    _say(said, figures)


def _context(point: Point, one: Loaded) -> dict[str, Any]:
    h = one.history
    return {
        "point": point.name,
        "layer": "FINAL" if one.version[0] else "RAW",
        "version": int(one.version[0]),
        "source": CurveSource(int(one.source[0])).name,
        "register": IntervalFlag(int(one.energy_flag[0])).name,
        "multipliers": [
            {"from": time_text(int(t)), "k": float(h.factor(n)), "archive": bool(h.archived[n])}
            for n, t in enumerate(h.valid_from_us)
        ],
    }


def _day(connection: Connection, point: Point, day: date) -> tuple[dict[str, Any], list[Figure]]:
    one = load_chunk(connection, day, [point])
    record = fleet_day(one.chunk)[0]
    said = _context(point, one) | {"day": day.isoformat()}
    said["next"] = f"fuhe vee explain {point.name} {day}"
    return said, explain_day(one.chunk, record, one.quality[0])


def _month(connection: Connection, point: Point, first: date, last: date) -> tuple[dict[str, Any], list[Figure]]:
    days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    records = np.zeros(len(days), STATS)
    wp = wq = 0.0
    layers: list[dict[str, Any]] = []
    multipliers: list[dict[str, Any]] = []
    for n, day in enumerate(days):
        one = load_chunk(connection, day, [point])
        records[n] = fleet_day(one.chunk)[0]
        c = one.chunk
        p, q = c.p[0], c.q[0]
        use = (p > 0) & (q != NONE32) & (~c.guessed[0] if c.guessed is not None else True)
        unit = float(c.facts.k[0]) / 10.0**c.p_decimals * 0.25
        wp += float(p[use].astype(np.float64).sum()) * unit
        wq += float(np.abs(q[use].astype(np.float64)).sum()) * unit
        said = _context(point, one)
        layers.append({"day": day.isoformat(), "layer": said["layer"], "version": said["version"],
                       "source": said["source"], "valid_slots": int(records[n]["valid"])})  # fmt: skip
        multipliers += [m for m in said["multipliers"] if not multipliers or m["k"] != multipliers[-1]["k"]]
    cos = int(month_cos(np.array([wp]), np.array([wq]), np.zeros(1))[0])
    said = {"point": point.name, "month": f"{first:%Y-%m}", "multipliers": multipliers, "days": layers}
    return said, explain_month([d.isoformat() for d in days], records, cos, wp, wq)


def _say(said: dict[str, Any], figures: list[Figure]) -> None:
    click.echo(f"{said['point']}  {said.get('day') or said['month']}")
    if "layer" in said:
        version = f" {tr('version', '版本')} {said['version']}" if said["version"] else ""
        click.echo(
            tr("layer", "数据层") + f": {said['layer']}{version}   " + tr("source of the curve", "曲线来源")
            + f": {said['source']}   " + tr("register", "示度") + f": {said['register']}"
        )  # fmt: skip
    for m in said["multipliers"]:
        origin = tr("archive", "档案") if m["archive"] else tr("device list", "设备清单")
        click.echo(f"K = {m['k']:g}  {tr('from', '自')} {m['from']}  ({origin})")
    rows = []
    for f in figures:
        value = (
            "–"
            if f.value is None
            else f"{f.value:,.4f}".rstrip("0").rstrip(".")
            if isinstance(f.value, float)
            else f.value
        )
        fed = ", ".join(f"{k} {v:,.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in f.inputs.items())
        rows.append(
            [f.name, f"{value} {f.unit}".strip(), f.clause, f.formula, fed, "" if f.used is None else str(f.used)]
        )
    print_table(
        [tr("figure", "指标"), tr("value", "数值"), tr("clause", "条款"), tr("formula", "公式"), tr("inputs", "输入"),
         tr("used", "采用")],
        rows,
    )  # fmt: skip
    reasons = {reason: spans for f in figures for reason, spans in f.excluded.items()}
    for reason, spans in reasons.items():
        click.echo(tr(f"not used ({reason}): ", f"未采用 ({reason}): ") + ", ".join(spans))
    if "next" in said:
        click.echo(tr("down to the readings: ", "追溯到读数: ") + said["next"])
