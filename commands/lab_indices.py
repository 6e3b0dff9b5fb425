"""`fuhe lab indices`: the figures of one meter's file, as a whole, by months and by days."""

from __future__ import annotations

import math
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from ..analytics.indices import EPOCH, Figure, MeterDays, Terms, days_of, on_days
from ..analytics.indices import indices as figures_of
from ..analytics.tou import slot_tariffs
from ..analytics.vee.grid import make_grid
from ..analytics.voltage import bands
from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .common import json_option, print_json, reported
from .lab_data import Table, read_table, zone_of

# options that a profile file may carry, one key each
KEYS = (
    "time",
    "labels",
    "energy",
    "power",
    "lag",
    "lead",
    "voltage",
    "nominal",
    "band",
    "standard",
    "capacity",
    "tou",
    "zone",
)
# columns of the table by months: figure, English, Chinese
TABLE = (
    ("energy_kwh", "kWh", "电量"), ("demand_kw", "max kW", "最大kW"), ("min_kw", "min kW", "最小kW"),
    ("mean_daily_load_factor", "load f.", "负荷率"), ("peak_valley_rate", "pk-vly", "峰谷差率"),
    ("power_factor", "cosφ", "力率"),
    ("adjustment_percent", "adj. %", "调整%"), ("completeness", "compl.", "完整率"),
)  # fmt: skip


@click.command(help=tr("Load figures of one meter file.", "单表文件的负荷指标。"))
@click.option(
    "--meter",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help=tr("CSV file, may be gzip", "CSV 文件, 可为 gzip"),
)
@click.option(
    "--profile",
    "profile_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help=tr("TOML file with any of the options below", "含以下选项的 TOML 文件"),
)
@click.option("--time", help=tr("column of the local time", "时间列"))
@click.option(
    "--labels",
    type=click.Choice(["end", "start"]),
    help=tr("what the time labels (default: end)", "时标为区间末或始 (默认 end)"),
)
@click.option("--energy", help=tr("column of kWh an interval", "区间电量列 kWh"))
@click.option("--power", help=tr("column of average kW, instead of --energy", "平均功率列 kW, 代替 --energy"))
@click.option("--lag", help=tr("column of kvarh, lagging (forward)", "滞后(正向)无功电量列 kvarh"))
@click.option("--lead", help=tr("column of kvarh, leading (reverse)", "超前(反向)无功电量列 kvarh"))
@click.option("--voltage", multiple=True, help=tr("column of a voltage, repeatable", "电压列, 可重复"))
@click.option("--nominal", type=float, help=tr("nominal voltage, V", "标称电压 V"))
@click.option("--band", help=tr("voltage band (default: single_phase)", "电压合格范围 (默认 single_phase)"))
@click.option(
    "--standard",
    type=click.Choice(["0.90", "0.85", "0.80", "none"]),
    help=tr("power factor standard (default: 0.90)", "功率因数标准 (默认 0.90)"),
)
@click.option("--capacity", type=float, help=tr("running capacity, kVA", "运行容量 kVA"))
@click.option(
    "--tou",
    help=tr("tariff periods, such as 00:00=valley,08:00=flat,10:00=peak", "分时时段, 如 00:00=谷,08:00=平,10:00=峰"),
)
@click.option("--zone", help=tr("time zone of the clock (default: fixed)", "时区 (默认固定)"))
@json_option
@reported
def indices(path: Path, profile_path: Path | None, as_json: bool, **given: Any) -> None:
    """Every figure as one period, by months and by days."""
    options = _options(profile_path, given)
    table = read_table(path)
    meter = _meter(table, options)
    terms = _terms(options, meter)
    months = np.array([(EPOCH + timedelta(days=int(d))).strftime("%Y-%m") for d in meter.day])
    answer = {
        "meter": str(path),
        "step_s": meter.step_s,
        "total": _clean(figures_of(meter, terms)),
        "months": [{"month": str(m), **_clean(figures_of(meter.part(months == m), terms))} for m in np.unique(months)],
        "days": [
            {"day": str(EPOCH + timedelta(days=int(d))), **_clean(figures_of(meter.part(meter.day == d), terms))}
            for d in meter.day
        ],
    }
    if as_json:
        print_json(answer)
        return
    _print(answer)


def _options(profile_path: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """The command line's options over the profile's; UsageError names unknown keys."""
    profile: dict[str, Any] = {}
    if profile_path is not None:
        try:
            profile = tomllib.loads(profile_path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(tr(f"cannot read {profile_path}: {error}", f"无法读取 {profile_path}: {error}")) from error
        unknown = sorted(set(profile) - set(KEYS))
        if unknown:
            known = ", ".join(KEYS)
            raise UsageError(
                tr(
                    f"{profile_path}: unknown keys {', '.join(unknown)} (known: {known})",
                    f"{profile_path}: 未知键 {', '.join(unknown)} (可用: {known})",
                )
            )
    options = profile | {k: v for k, v in given.items() if v not in (None, ())}
    if "time" not in options:
        raise UsageError(tr("name the column of the time: --time", "请用 --time 指定时间列"))
    if ("energy" in options) == ("power" in options):
        raise UsageError(tr("name one of --energy and --power", "--energy 与 --power 须给且只给一个"))
    return options


def _meter(table: Table, options: dict[str, Any]) -> MeterDays:
    times = table.times(options["time"])
    try:
        grid = make_grid(times, zone=zone_of(options.get("zone")))
    except ValueError as error:
        raise UsageError(tr(f"{table.path}: {error}", f"{table.path}: 无法排成时间网格: {error}")) from error
    end = grid.local_s + (grid.step_s if options.get("labels", "end") == "start" else 0)
    day, slot = days_of(end, grid.step_s)

    def column(name: str) -> Any:
        return on_days(grid.place(table.numbers(name)), day, slot, grid.per_day)

    if "energy" in options:
        kwh, days = column(options["energy"])
    else:
        kw, days = column(options["power"])
        kwh = kw * (grid.step_s / 3600.0)
    voltage = options.get("voltage", ())
    names = [voltage] if isinstance(voltage, str) else list(voltage)
    return MeterDays(
        day=days, step_s=grid.step_s, kwh=kwh,
        kvarh_lag=column(options["lag"])[0] if "lag" in options else None,
        kvarh_lead=column(options["lead"])[0] if "lead" in options else None,
        volts=np.stack([column(n)[0] for n in names]) if names else None,
    )  # fmt: skip


def _terms(options: dict[str, Any], meter: MeterDays) -> Terms:
    standard = str(options.get("standard", "0.90"))
    hundredths = 0 if standard == "none" else round(float(standard) * 100)
    tariff, names = _tariffs(str(options["tou"]), meter.step_s) if "tou" in options else (None, [])
    band = None
    if meter.volts is not None:
        name = str(options.get("band", "single_phase"))
        if name not in bands():
            known = ", ".join(bands())
            raise UsageError(tr(f"no voltage band {name!r}: {known}", f"没有电压范围 {name!r}: {known}"))
        if "nominal" not in options:
            raise UsageError(tr("name the nominal voltage: --nominal", "请用 --nominal 指定标称电压"))
        band = bands()[name]
    return Terms(
        standard=hundredths, capacity_kva=float(options.get("capacity", math.nan)), tariff=tariff, tariff_names=names,
        nominal_v=float(options.get("nominal", math.nan)), band=band,
    )  # fmt: skip


def _tariffs(text: str, step_s: int) -> tuple[Any, list[str]]:
    """`00:00=valley,08:00=flat` as the tariff of each slot and the names in order of appearance."""
    names: list[str] = []
    periods = []
    try:
        for part in text.split(","):
            clock, _, name = part.strip().partition("=")
            hour, _, minute = clock.partition(":")
            if not (hour.isdecimal() and minute.isdecimal() and name.strip()):
                raise ValueError(tr(f"{part!r} is no period", f"{part!r} 不是时段"))
            if name.strip() not in names:
                names.append(name.strip())
            periods.append((int(hour) * 60 + int(minute), names.index(name.strip())))
        return slot_tariffs(periods, step_s), names
    except ValueError as error:
        raise UsageError(
            tr(f"--tou: {error}; write 00:00=valley,08:00=flat", f"--tou: {error}; 应写作 00:00=谷,08:00=平")
        ) from error


def _clean(figures: dict[str, Figure]) -> dict[str, Figure]:
    """NaN is no JSON: null; floats with nine digits."""
    return {
        k: (None if isinstance(v, float) and not math.isfinite(v) else float(f"{v:.9g}") if isinstance(v, float) else v)
        for k, v in figures.items()
    }


def _print(answer: dict[str, Any]) -> None:
    console = Console()
    whole = RichTable(box=box.SIMPLE, show_header=False)
    for name, value in answer["total"].items():
        whole.add_row(name, _text(value))
    console.print(whole)
    months = RichTable(box=box.SIMPLE)
    months.add_column(tr("month", "月份"))
    shown = [row for row in TABLE if row[0] in answer["total"]]
    for _, en, zh in shown:
        months.add_column(tr(en, zh), justify="right", no_wrap=True)
    for row in answer["months"]:
        months.add_row(row["month"], *(_text(row.get(name)) for name, _, _ in shown))
    console.print(months)


def _text(value: Figure) -> str:
    if value is None:
        return "–"
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.1f}"
        if isinstance(value, float)
        else str(value)
    )
