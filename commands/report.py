"""`fuhe report`: the day's load, and what an order achieved."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from ..analytics.day import DayTable, day_table, fleet_curve
from ..analytics.report import DayReport, build_day_report, fleet_row, point_rows, remarks, report_csv
from ..model.lang import tr
from ..model.times import to_us
from ..storage.database import Database
from .common import App, json_option, pass_app, print_json, reported
from .curve import DayType, layer_option, write_file
from .curve_data import ALL, Layer, choose_points, load_day_input
from .event_report import report_event
from .kpi import report_kpi


@click.group()
def report() -> None:
    """Reports made from stored readings."""


report.add_command(report_event)
report.add_command(report_kpi)


@report.command("day")
@click.option("--day", type=DayType(), default="yesterday", help=tr("YYYY-MM-DD, today, yesterday", "日期"))
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help=tr("write a printable page", "输出网页"))
@click.option("--csv", "csv_path", type=click.Path(dir_okay=False, path_type=Path), help=tr("write CSV", "输出 CSV"))
@click.option("--title", default="", help=tr("heading of the page", "报表标题"))
@layer_option
@json_option
@pass_app
@reported
def report_day(
    app: App, day: date, html: Path | None, csv_path: Path | None, title: str, layer: Layer, as_json: bool
) -> None:
    """Daily load report of all points: energy, maxima, load factor, voltage, power factor, completeness."""
    with Database.open(app.config.storage) as database, database.connect() as connection:
        points = choose_points(connection, ALL)
        table = day_table(load_day_input(connection, day, points, layer))
    if html:
        data = DayReport(
            table=table,
            title=title or tr("Daily load report", "日负荷报表"),
            made_us=to_us(datetime.now(UTC)),
        )
        write_file(html, build_day_report(data).encode("utf-8"))
    if csv_path:
        write_file(csv_path, report_csv(table).encode("utf-8-sig"))
    if as_json:
        fleet = fleet_row(table, fleet_curve(table))
        print_json({"day": day.isoformat(), "fleet": asdict(fleet), "points": [asdict(r) for r in point_rows(table)]})
        return
    _print_report(table)
    for path in (html, csv_path):
        if path:
            click.echo(tr(f"written: {path}", f"已写入: {path}"))


def _print_report(table: DayTable) -> None:
    def show(value: float | None, digits: int = 1, scale: float = 1.0) -> str:
        return "–" if value is None else f"{value * scale:,.{digits}f}"

    rows, total = point_rows(table), fleet_row(table, fleet_curve(table))
    grid = Table(title=tr(f"Daily load report {table.day}", f"日负荷报表 {table.day}"), box=box.SIMPLE_HEAD)
    grid.add_column(tr("point", "计量点"), no_wrap=True)
    for name in (
        "kWh", "Pmax kW", tr("at", "时刻"), "Pmin kW", "γ %", "ΔP kW", tr("voltage %", "电压合格率 %"), "cosφ",
        tr("complete %", "完整率 %"),
    ):  # fmt: skip
        grid.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        mark = "c" if row.energy_source == "curve" else ""
        grid.add_row(
            row.name, show(row.energy_kwh) + mark, show(row.max_kw), row.max_time or "–", show(row.min_kw),
            show(row.load_factor, 1, 100), show(row.peak_valley_kw), show(row.voltage_rate, 2, 100),
            show(row.power_factor, 2), show(row.completeness, 1, 100),
        )  # fmt: skip
    grid.add_section()
    grid.add_row(
        tr(f"all {total.points}", f"合计 {total.points}"), show(total.energy_kwh), show(total.max_kw),
        total.max_time or "–", show(total.min_kw), show(total.load_factor, 1, 100), show(total.peak_valley_kw), "", "",
        show(total.completeness, 1, 100),
    )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(grid)
    for name, words in remarks(rows):
        click.echo(f"{name}: {words}")
    click.echo(tr("– unknown   c energy from the curve", "– 未知   c 电量由曲线累加"))
