"""`fuhe lab vee`: a load curve from a file, its errors found and replaced, one row out for every row in."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..analytics.vee.clean import CleanCurve, clean_curve
from ..analytics.vee.detect import Kind
from ..analytics.vee.grid import Grid, make_grid
from ..analytics.vee.robust import runs
from ..model.lang import tr
from ..model.quality import Quality
from ..protocols.common.errors import UsageError
from .common import json_option, print_json, reported
from .lab_data import read_table, shown, write_csv, zone_of

# what a rule is called in the output: the check of the VEE rules it belongs to, and a word
RULES = {
    Kind.GOOD: "",
    Kind.GAP: "K2 gap",
    Kind.SPIKE: "K5 spike",
    Kind.ZERO: "K4 zero",
    Kind.STUCK: "K9 stuck",
    Kind.SCALED: "K10 scaled",
    Kind.CATCHUP: "K6 catchup",
    Kind.RANGE: "K4 range",
}
QUALITY = {q: q.name if q not in range(Quality.E1, Quality.E5 + 1) else f"EST{q - Quality.E1 + 1}" for q in Quality}
LISTED = 20


@click.command(help=tr("Find and replace the errors of a load curve.", "查找并修正负荷曲线中的错误。"))
@click.option(
    "--load",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help=tr("CSV file, may be gzip", "CSV 文件, 可为 gzip"),
)
@click.option("--time", "time_column", required=True, help=tr("column of the local time", "时间列"))
@click.option("--value", "value_column", required=True, help=tr("column of the load or energy", "负荷或电量列"))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help=tr("CSV file to write", "输出 CSV")
)
@click.option(
    "--zone",
    help=tr(
        "time zone of the clock, such as Australia/Melbourne (default: fixed)",
        "时区, 如 Australia/Melbourne (默认固定)",
    ),
)
@click.option(
    "--step",
    "step_min",
    type=click.IntRange(1, 1440),
    help=tr("minutes a slot (default: found)", "每点分钟数 (默认自动)"),
)
@json_option
@reported
def vee(
    path: Path, time_column: str, value_column: str, out: Path, zone: str | None, step_min: int | None, as_json: bool
) -> None:
    """Columns out: time, raw, quality (A = good), rule, final."""
    table = read_table(path)
    times = table.times(time_column)
    raw = table.numbers(value_column)
    try:
        grid = make_grid(times, zone=zone_of(zone), step_s=step_min * 60 if step_min else None)
    except ValueError as error:
        raise UsageError(tr(f"{path}: {error}", f"{path}: 无法排成时间网格: {error}")) from error
    curve = clean_curve(grid.place(raw), grid.per_day)
    rows = _rows(table.texts(time_column), raw, grid, curve)
    write_csv(out, ("time", "raw", "quality", "rule", "final"), rows)
    summary = _summary(grid, curve, rows)
    if as_json:
        print_json(summary)
        return
    _print(summary, out)


def _rows(labels: list[str], raw: Any, grid: Grid, curve: CleanCurve) -> list[list[str]]:
    first: dict[int, float] = {}
    for at, value, twice in zip(grid.position.tolist(), raw.tolist(), grid.duplicate.tolist(), strict=True):
        if not twice:
            first[at] = value
    differing = {
        at
        for at, value, twice in zip(grid.position.tolist(), raw.tolist(), grid.duplicate.tolist(), strict=True)
        if twice and value != first[at]
    }
    rows = []
    for label, value, at in zip(labels, raw.tolist(), grid.position.tolist(), strict=True):
        if at < 0:
            rows.append([label, shown(value, 10), QUALITY[Quality.S], "K2 off grid", shown(value, 10)])
            continue
        kind = Kind(int(curve.found.kind[at]))
        quality, rule = Quality(int(curve.quality[at])), RULES[kind]
        if kind is Kind.SCALED:
            rule += f" x{curve.found.factor[at]:.3g}"
        if at in differing:
            quality, rule = (Quality.S if quality == Quality.A else quality), rule or "K2 duplicate"
        final = shown(float(curve.final[at]), 10 if quality in (Quality.A, Quality.S) else 7)
        rows.append([label, shown(value, 10), QUALITY[quality], rule, final])
    return rows


def _summary(grid: Grid, curve: CleanCurve, rows: list[list[str]]) -> dict[str, Any]:
    by_rule: dict[str, int] = {}
    for row in rows:
        if row[3]:
            rule = " ".join(row[3].split()[:2]) if row[3].startswith("K10") else row[3]
            by_rule[rule] = by_rule.get(rule, 0) + 1
    absent = np.zeros(len(grid.local_s), np.bool_)
    absent[grid.missing] = True
    holes = [
        {"from": _label(grid, a), "to": _label(grid, b - 1), "slots": int(b - a)}
        for a, b in zip(*(part.tolist() for part in runs(absent)), strict=True)
    ]
    return {
        "rows": len(rows),
        "step_s": grid.step_s,
        "flagged": sum(row[2] != "A" for row in rows),
        "by_rule": by_rule,
        "missing_rows": int(absent.sum()),
        "missing_spans": holes,
        "duplicates": int(grid.duplicate.sum()),
        "clock_folds": grid.folds,
        "in_order": grid.in_order,
        "without_final": sum(row[4] == "" for row in rows),
    }


def _label(grid: Grid, slot: int) -> str:
    return str(datetime(1970, 1, 1) + timedelta(seconds=int(grid.local_s[slot])))  # noqa: DTZ001 - the file's own clock


def _print(summary: dict[str, Any], out: Path) -> None:
    n = summary["rows"]
    click.echo(tr(f"{n} rows, {summary['flagged']} not good", f"{n} 行, 其中 {summary['flagged']} 行有问题"))
    for rule, count in sorted(summary["by_rule"].items()):
        click.echo(f"  {rule:14} {count}")
    if summary["missing_rows"]:
        text = tr(f"{summary['missing_rows']} rows are missing in the file:", f"文件缺 {summary['missing_rows']} 行:")
        click.echo(text)
        for hole in summary["missing_spans"][:LISTED]:
            click.echo(f"  {hole['from']} … {hole['to']}  ({hole['slots']})")
        if len(summary["missing_spans"]) > LISTED:
            click.echo("  …")
    if summary["clock_folds"]:
        text = tr("the clock has daylight saving: hours shown twice", "时钟有夏令时: 重复小时数")
        click.echo(f"{text}: {summary['clock_folds']}")
    click.echo(tr(f"written: {out}", f"已写入: {out}"))
