"""`fuhe report kpi`: the service indicators of a month, from the system's own data and from figures given by hand."""

from __future__ import annotations

import csv
import getpass
import io
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..model.lang import tr
from ..model.times import business_day, from_us
from ..protocols.common.errors import UsageError
from .common import App, json_option, pass_app, print_json, reported

if TYPE_CHECKING:
    from ..analytics.kpi import Manual, Row
    from ..storage.kpi import KpiValue

FIELDS = (
    "indicator", "name_en", "name_zh", "auto", "target", "sense", "period", "numerator", "denominator", "exempt",
    "completeness", "value", "unit", "meets", "provisional", "origin", "formula_version", "formula", "missing", "note",
)  # fmt: skip


@click.command("kpi", help=tr("Service indicators of a month.", "服务指标月报。"))
@click.option(
    "--month", "text", metavar="YYYY-MM", help=tr("month (default: the last one that is over)", "月份 (默认上月)")
)
@click.option("--manual", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help=tr("CSV of figures given by hand: indicator,numerator,denominator", "手工指标 CSV"))  # fmt: skip
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help=tr("write a printable page", "输出网页"))
@click.option("--csv", "csv_path", type=click.Path(dir_okay=False, path_type=Path), help=tr("write CSV", "输出 CSV"))
@click.option("--no-store", is_flag=True, help=tr("show only, store no value", "仅显示, 不入库"))
@click.option(
    "--versions", "show_versions", is_flag=True, help=tr("the values stored so far instead", "显示已入库的各版本")
)
@json_option
@pass_app
@reported
def report_kpi(
    app: App, text: str | None, manual: Path | None, html: Path | None, csv_path: Path | None, no_store: bool,
    show_versions: bool, as_json: bool,
) -> None:  # fmt: skip
    """Each indicator is a row: a fraction with its data, or the input that is missing. Values are kept by version."""
    now_us = time.time_ns() // 1000
    first = _month(text, now_us)
    if show_versions:
        if manual or html or csv_path or no_store:
            raise UsageError(
                tr("--versions goes with --month and --json only", "--versions 只能与 --month、--json 同用")
            )
        _versions(app, first if text else None, as_json)
        return
    given = None if manual is None else _text_of(manual)
    rows, scope = _rows(app, first, now_us, given, store=not no_store)
    if html:
        _write(html, _page(rows, first, scope, now_us).encode("utf-8"))
    if csv_path:
        _write(csv_path, _csv(rows).encode("utf-8-sig"))
    if as_json:
        print_json({"month": f"{first:%Y-%m}", "scope": scope, "indicators": [plain(r) for r in rows]})
        return
    _print(rows, first, scope)
    for path in (html, csv_path):
        if path:
            click.echo(tr(f"written: {path}", f"已写入: {path}"))


def _month(text: str | None, now_us: int) -> date:
    this = business_day(now_us).replace(day=1)
    if text is None:
        return date(this.year - 1, 12, 1) if this.month == 1 else this.replace(month=this.month - 1)
    try:
        if len(text) != len("YYYY-MM"):
            raise ValueError
        first = date.fromisoformat(f"{text}-01")
    except ValueError:
        raise UsageError(tr(f"{text!r} is not a month YYYY-MM", f"{text!r} 不是 YYYY-MM 形式的月份")) from None
    if first > this:
        raise UsageError(tr(f"{text} has not begun", f"{text} 尚未开始"))
    return first


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            tr(f"{path} is not UTF-8: {error.reason}", f"{path} 不是 UTF-8 编码: {error.reason}")
        ) from None


def _write(path: Path, data: bytes) -> None:
    from .curve import write_file

    write_file(path, data)


def _rows(app: App, first: date, now_us: int, manual: str | None, *, store: bool) -> tuple[list[Row], str]:
    from ..analytics.kpi import Found, Manual, indicators, manual_row, read_manual, row_of
    from ..storage import kpi
    from ..storage.database import Database
    from .asking import profiles_of
    from .kpi_data import Counting, Month, count, scope_of

    month, period = Month(first, now_us), f"{first:%Y-%m}"
    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        counting = Counting(connection, month, app.config.cycles, profiles_of(app))
        found = {number: count(counting, number) for number in indicators()}
        reckoned = {n for n, f in found.items() if isinstance(f, Found) and f.denominator > 0}
        kept = {v.indicator: v for v in kpi.load_values(connection, first)}
        by_hand: dict[str, Manual] = {
            v.indicator: Manual(indicator=v.indicator, numerator=v.numerator, denominator=v.denominator)
            for v in kept.values() if v.origin == "manual" and v.indicator not in reckoned
        }  # fmt: skip
        if manual is not None:
            by_hand |= {m.indicator: m for m in read_manual(manual, reckoned)}
        rows = [
            manual_row(indicator, period, by_hand[number], over=month.over)
            if number in by_hand
            else row_of(indicator, period, found[number], over=month.over)
            for number, indicator in indicators().items()
        ]
        scope = scope_of(counting).text
        if store:
            kpi.store_values(connection, [_stored(r, first, scope, now_us) for r in rows if r.origin != "none"])
    return rows, scope


def _stored(row: Row, first: date, scope: str, now_us: int) -> KpiValue:
    from ..storage.kpi import KpiValue

    assert row.numerator is not None and row.denominator is not None and row.value is not None
    return KpiValue(
        indicator=row.indicator.number, period=first, version=0, formula=row.indicator.formula_version,
        origin=row.origin, numerator=float(row.numerator), denominator=float(row.denominator),
        exempt=float(row.exempt or 0.0), completeness=row.completeness, value=row.value, provisional=row.provisional,
        scope=scope, made_at=from_us(now_us), made_by=getpass.getuser(),
    )  # fmt: skip


# -- showing ----------------------------------------------------------------------------------------------------------


def plain(row: Row) -> dict[str, Any]:
    """A row as plain values, in the order of `FIELDS`."""
    i = row.indicator
    values = (
        i.number, i.en, i.zh, i.auto, i.target, i.sense, row.period, row.numerator, row.denominator, row.exempt,
        row.completeness, row.value, i.unit, row.meets, row.provisional, row.origin, i.formula_version, i.formula,
        row.missing, row.note,
    )  # fmt: skip
    return dict(zip(FIELDS, values, strict=True))


def _csv(rows: Sequence[Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(FIELDS)
    writer.writerows(["" if v is None else v for v in plain(r).values()] for r in rows)
    return out.getvalue()


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "%":
        return f"{int(value * 10_000 + 1e-9) / 100:.2f} %"  # downwards: what is not whole is never shown as whole
    return f"{value:,.2f}" + {"h": " h", "ppm": " ppm", "count": ""}[unit]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.10g}" if abs(value) < 1e6 else f"{value:,.0f}"


def _head() -> list[str]:
    return [
        "", tr("indicator", "指标"), tr("target", "目标"), tr("value", "值"), tr("numerator", "分子"),
        tr("denominator", "分母"), tr("exempt", "豁免"), tr("data", "数据完整率"), tr("version", "公式"),
        tr("remark", "说明"),
    ]  # fmt: skip


def _cells(row: Row) -> list[str]:
    i = row.indicator
    target = "" if i.target is None else f"{'≥' if i.sense == '>=' else '≤'} {_shown(i.target, i.unit)}"
    remarks = [
        tr("provisional", "暂定值") if row.provisional else "",
        tr("below target", "未达标") if row.meets is False else "",
        tr("given by hand", "手工值") if row.origin == "manual" else "",
        tr(f"missing: {row.missing}", f"缺少: {row.missing}") if row.missing else "",
        row.note,
    ]  # fmt: skip
    return [
        i.number, i.name, target, _shown(row.value, i.unit), _number(row.numerator), _number(row.denominator),
        _number(row.exempt) if row.exempt else "", "" if row.completeness is None else _shown(row.completeness, "%"),
        i.formula_version if row.origin != "none" else "", "; ".join(filter(None, remarks)),
    ]  # fmt: skip


def _scope(scope: str) -> str:
    return tr(f"Counted: {scope}", f"统计范围: {scope}")


def _print(rows: Sequence[Row], first: date, scope: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=tr(f"Service indicators {first:%Y-%m}", f"服务指标 {first:%Y-%m}"), box=box.SIMPLE_HEAD)
    for i, name in enumerate(_head()):
        grid.add_column(name, justify="right" if 2 <= i <= 7 else "left", overflow="fold", no_wrap=2 <= i <= 8)
    for row in rows:
        grid.add_row(*_cells(row))
    Console(width=None if sys.stdout.isatty() else 180, highlight=False, markup=False).print(grid)
    click.echo(_scope(scope))


def _page(rows: Sequence[Row], first: date, scope: str, now_us: int) -> str:
    from ..analytics.report import Page, Section, build_page

    named = [r for r in rows if r.origin != "none"]
    below = sum(r.meets is False for r in rows)
    cards = [
        (tr("With a figure", "已出值"), str(len(named)), "", tr(f"of {len(rows)}", f"共 {len(rows)} 项")),
        (tr("Below target", "未达标"), str(below), "", ""),
        (tr("Provisional", "暂定"), str(sum(r.provisional for r in rows)), "",
         tr("data below 95 %, or the month is not over", "数据完整率低于 95 % 或当月未结束")),
        (tr("Input missing", "缺少数据"), str(len(rows) - len(named)), "", ""),
    ]  # fmt: skip
    formulas = [[r.indicator.formula_version, r.indicator.name, r.indicator.formula] for r in named]
    return build_page(
        Page(
            kicker=tr("monthly report", "月报"),
            title=tr("Service indicators", "服务指标"),
            day=f"{first:%Y-%m}",
            note=_scope(scope),
            made_us=now_us,
            cards=cards,
            sections=[
                Section(title=tr("Indicators", "指标"), header=_head(), rows=[_cells(r) for r in rows]),
                Section(title=tr("Formulas", "公式"), header=[tr("version", "版本"), tr("indicator", "指标"),
                        tr("formula", "公式")], rows=formulas),
            ],
        )
    )  # fmt: skip


def _versions(app: App, first: date | None, as_json: bool) -> None:
    from ..analytics.kpi import indicators
    from ..storage.database import Database
    from ..storage.kpi import load_values
    from .asking import print_table
    from .person import local

    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        values = load_values(connection, first, newest=False)
    if as_json:
        print_json([{n: getattr(v, n) for n in v.__slots__} for v in values])
        return
    if not values:
        click.echo(tr("no values are stored", "没有入库的指标值"))
        return
    units = {n: i.unit for n, i in indicators().items()}
    head = [
        tr("month", "月份"), tr("indicator", "指标"), tr("version", "版本"), tr("value", "值"), tr("numerator", "分子"),
        tr("denominator", "分母"), tr("exempt", "豁免"), tr("data", "数据完整率"), tr("formula", "公式"),
        tr("from", "来源"), tr("made", "时间"), tr("by", "制表"), "",
    ]  # fmt: skip
    print_table(
        head,
        [
            [
                f"{v.period:%Y-%m}", v.indicator, str(v.version), _shown(v.value, units.get(v.indicator, "count")),
                _number(v.numerator), _number(v.denominator), _number(v.exempt),
                "" if v.completeness is None else _shown(v.completeness, "%"), v.formula, v.origin, local(v.made_at),
                v.made_by, tr("provisional", "暂定值") if v.provisional else "",
            ]
            for v in values
        ],
    )  # fmt: skip
