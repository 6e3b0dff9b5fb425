"""`fuhe forecast`: forecasts of stored loads: make, show, score, backtest; forecasts of the weather in."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as Grid

from ..analytics.draw import Trace, curve_png, terminal_curve
from ..analytics.forecast.score import DayScore
from ..analytics.masks import F8
from ..daemon.forecast import forecast_day, issue
from ..daemon.forecast_config import ForecastConfig, minute_of
from ..daemon.forecast_data import parse_object
from ..daemon.forecast_score import ScoredDay, actual_day, backtest, means, score_issued
from ..model.lang import tr
from ..model.times import BUSINESS_ZONE, DAY_US, business_day, day_start_us, from_us, to_us
from ..protocols.common.errors import UsageError
from ..storage.database import Database
from ..storage.forecasts import Horizon, StoredForecast, WeatherRow, insert_weather, list_forecasts, load_forecasts
from .common import App, json_option, pass_app, print_json, reported
from .curve import DayType
from .lab_data import read_table

TARGET = 98.2  # 负荷预测率
HORIZONS: tuple[Horizon, ...] = ("day", "week", "month", "intraday")
NAMES = {"forecast": ("forecast", "预测"), "last_week": ("last week", "上周同时刻"), "yesterday": ("yesterday", "昨日")}


class ObjectType(click.ParamType[str]):
    """An object as `daemon/forecast_data.py` writes it."""

    name = "object"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_object(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class Tomorrow(DayType):
    """A business day; also `tomorrow`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if value in ("tomorrow", "明天"):
            return business_day(_now_us()) + timedelta(days=1)
        return super().convert(value, param, ctx)


def _now_us() -> int:
    return to_us(datetime.now(UTC))


object_help = tr(
    "total, key (key customers), point:NAME, group:NAME, set:NAME,NAME, customer:KEY, feeder:KEY or class:NAME",
    "total、key (重点客户)、point:名称、group:名称、set:名称,名称、customer:编号、feeder:编号 或 class:类别",
)
object_option = click.option(
    "--object", "wanted", type=ObjectType(), default="total", show_default=True, help=object_help
)
plot_option = click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help=tr("write a picture, .png or .svg", "输出图片, .png 或 .svg"),
)


@click.group()
def forecast() -> None:
    """Load forecasts, stored as they were issued."""


@forecast.command("run")
@click.option("--object", "wanted", type=ObjectType(), multiple=True, default=("total",), help=object_help)
@click.option("--horizon", type=click.Choice(HORIZONS), default="day", show_default=True, help=tr("how far", "预测期"))
@click.option("--day", type=Tomorrow(), help=tr("day to forecast (default: tomorrow)", "预测日 (默认明天)"))
@click.option(
    "--issue",
    "issued",
    metavar="'YYYY-MM-DD HH:MM'",
    help=tr(
        "as of a past instant, from what had been received by then; shown, not stored",
        "以过去某时刻为发布时刻, 仅用当时已收到的数据; 只显示, 不入库",
    ),
)
@json_option
@pass_app
@reported
def run_(
    app: App, wanted: Sequence[str], horizon: Horizon, day: date | None, issued: str | None, as_json: bool
) -> None:
    """Make forecasts now and store them for keeps."""
    now_us = _now_us()
    issued_us = now_us if issued is None else _instant(issued, "--issue")
    if issued_us > now_us:
        raise UsageError(tr("--issue lies in the future", "--issue 在将来"))
    if horizon != "day" and (day or issued):
        raise UsageError(tr("--day and --issue are for --horizon day", "--day 与 --issue 仅用于 --horizon day"))
    config = app.config.forecast
    out = []
    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        for one in wanted:
            if horizon == "day" and (day or issued):
                target = day or business_day(issued_us) + timedelta(days=1)
                made = forecast_day(connection, one, target, issued_us, config)
                number = None
                if issued is None:
                    from ..storage.forecasts import insert_forecast

                    number = insert_forecast(connection, made)
            else:
                made, number = issue(connection, one, horizon, now_us, config)
            out.append(_as_json(made) | {"id": number, "stored": number is not None})
            if not as_json:
                _say_made(made, number)
    if as_json:
        print_json(out)


def _instant(text: str, option: str) -> int:
    try:
        stamp = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            tr(f"{option} {text!r} is no time (YYYY-MM-DD HH:MM)", f"{option} {text!r} 不是时刻 (YYYY-MM-DD HH:MM)")
        ) from error
    return to_us(stamp if stamp.tzinfo else stamp.replace(tzinfo=BUSINESS_ZONE))


def _minute(text: str, option: str) -> int:
    minute = minute_of(text)
    if minute is None:
        raise UsageError(tr(f"{option} {text!r} is no time of day (HH:MM)", f"{option} {text!r} 不是时刻 (HH:MM)"))
    return minute


def _clock(time_us: int) -> str:
    return from_us(time_us).astimezone(BUSINESS_ZONE).strftime("%Y-%m-%d %H:%M")


def _say_made(made: StoredForecast, number: int | None) -> None:
    note = made.note
    head = f"{made.object}  {made.horizon}  {_clock(made.start_us)}"
    kept = tr(f"stored as {number}", f"已入库, 编号 {number}") if number else tr("not stored", "未入库")
    click.echo(f"{head}  {tr('issued', '发布')} {_clock(made.issued_us)}  {made.model}  {kept}")
    if made.horizon == "month":
        click.echo(
            tr(
                f"  maximum of {note['month']}: {note['maximum_kw']:,.0f} kW (between {note['low_kw']:,.0f} and "
                f"{note['high_kw']:,.0f} with 80 %), reached so far {note['reached_kw']:,.0f}",
                f"  {note['month']} 最大负荷: {note['maximum_kw']:,.0f} kW (80% 区间 {note['low_kw']:,.0f} 至 "
                f"{note['high_kw']:,.0f}), 已达 {note['reached_kw']:,.0f}",
            )
        )
    else:
        top = int(np.argmax(made.kw))
        at = _clock(made.start_us + (top + 1) * made.step_s * 1_000_000)
        energy = float(made.kw.sum()) * made.step_s / 3600
        click.echo(
            tr(
                f"  maximum {made.kw[top]:,.1f} kW at {at}, energy {energy:,.0f} kWh",
                f"  最大 {made.kw[top]:,.1f} kW, 时刻 {at}, 电量 {energy:,.0f} kWh",
            )
        )
    click.echo(
        tr(
            f"  {note['members']} points, {note['history_days']} days of history, {note['baseline_slots']} slots under "
            f"control or out replaced by baseline, weather: {', '.join(note['weather']) or 'none'}",
            f"  {note['members']} 个计量点, 历史 {note['history_days']} 天, 受控或停电时段以基线代替 "
            f"{note['baseline_slots']} 点, 气象: {', '.join(note['weather']) or '无'}",
        )
    )
    if note.get("learned") is False:
        click.echo(tr("  little history: mean of similar days", "  历史不足: 取相似日平均"))
    for text in note["warnings"]:
        click.echo(tr("WARNING: ", "警告: ") + text, err=True)


def _numbers(values: F8) -> list[float | None]:
    return [round(float(v), 4) if np.isfinite(v) else None for v in values]


def _as_json(made: StoredForecast) -> dict[str, Any]:
    return {
        "id": made.id,
        "object": made.object,
        "horizon": made.horizon,
        "start": from_us(made.start_us).astimezone(BUSINESS_ZONE).isoformat(),
        "step_s": made.step_s,
        "issued": from_us(made.issued_us).astimezone(BUSINESS_ZONE).isoformat(),
        "model": made.model,
        "inputs_hash": made.inputs_hash,
        "kw": _numbers(made.kw),
        "last_week": _numbers(made.last_week),
        "yesterday": _numbers(made.yesterday),
        "note": made.note,
    }


@forecast.command("list")
@click.option("--object", "wanted", type=ObjectType(), help=object_help)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help=tr("rows", "行数"))
@json_option
@pass_app
@reported
def list_(app: App, wanted: str | None, limit: int, as_json: bool) -> None:
    """The newest issued forecasts."""
    with Database.open(app.config.storage) as database, database.connect() as connection:
        found = list_forecasts(connection, wanted, limit)
    if as_json:
        print_json([_as_json(f) for f in found])
        return
    table = Grid(box=box.SIMPLE_HEAD)
    for name in (tr("no.", "编号"), tr("object", "对象"), tr("horizon", "预测期"), tr("from", "起"),
                 tr("issued", "发布"), tr("max kW", "最大 kW"), tr("model", "模型"), tr("inputs", "输入")):  # fmt: skip
        table.add_column(name, no_wrap=True)
    for f in found:
        table.add_row(
            str(f.id), f.object, f.horizon, _clock(f.start_us), _clock(f.issued_us), f"{f.kw.max():,.1f}", f.model,
            f.inputs_hash[:12],
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 140).print(table)


@forecast.command("show")
@object_option
@click.option("--day", type=Tomorrow(), default="tomorrow", help=tr("YYYY-MM-DD, today, tomorrow", "日期"))
@plot_option
@json_option
@pass_app
@reported
def show(app: App, wanted: str, day: date, plot: Path | None, as_json: bool) -> None:
    """Draw a day's newest forecast with what is measured of it and the two naive models."""
    with Database.open(app.config.storage) as database, database.connect() as connection:
        start = day_start_us(day)
        found = load_forecasts(connection, wanted, "day", start, start + 1)
        if not found:
            raise UsageError(
                tr(
                    f"no forecast of {wanted} for {day}: make one with `fuhe forecast run`",
                    f"没有 {wanted} {day} 的预测: 用 `fuhe forecast run` 生成, 或查看 `fuhe forecast list`",
                )
            )
        made = found[-1]
        actual, disturbed = actual_day(connection, wanted, day, _now_us())
    curves = {"forecast": made.kw, "last_week": made.last_week, "yesterday": made.yesterday}
    scored = ScoredDay(
        day=day, issued_us=made.issued_us, actual=actual, curves=curves, disturbed=disturbed,
        scores=_scores(curves, actual), learned=bool(made.note.get("learned")),
    )  # fmt: skip
    if as_json:
        print_json(_as_json(made) | {"actual": _numbers(actual), "scores": _score_json(scored)})
        return
    _draw([scored], wanted, plot)
    for text in made.note["warnings"]:
        click.echo(tr("WARNING: ", "警告: ") + text, err=True)


def _scores(curves: dict[str, F8], actual: F8) -> dict[str, DayScore]:
    from ..analytics.forecast.score import score_day

    return {name: score_day(curve, actual) for name, curve in curves.items()}


def _draw(days: Sequence[ScoredDay], wanted: str, plot: Path | None) -> None:
    """The last of the days in the terminal and as a picture, with its score below."""
    one = days[-1]
    hours = np.arange(1.0, len(one.actual) + 1) * (24.0 / len(one.actual))
    none = np.zeros(len(hours), np.bool_)
    parts = [(name, one.curves[name]) for name in ("last_week", "yesterday", "forecast")]
    parts.insert(2, ("measured", one.actual))
    words = NAMES | {"measured": ("measured", "实测")}
    # a picture has Chinese only where a font for it is installed: its writer replaces what it cannot draw
    traces = [Trace(label=tr(*words[n]), hour=hours, value=v, estimated=none) for n, v in parts if np.isfinite(v).any()]
    title = f"{wanted}  {one.day}  {tr('issued', '发布')} {_clock(one.issued_us)}"
    click.echo(terminal_curve(traces, title=title, unit="kW", colour=sys.stdout.isatty()), nl=False)
    if sys.stdout.isatty():
        click.echo("  " + "  ".join(t.label for t in traces))
    note = "  ".join(f"{tr(*NAMES[n])}: {_score_text(s, one.curves[n])}" for n, s in one.scores.items())
    for name, score in one.scores.items():
        click.echo(f"  {tr(*NAMES[name]):<10} {_score_text(score, one.curves[name])}")
    if one.disturbed:
        click.echo(
            tr(
                f"  {one.disturbed} slots under control or out of supply are left out",
                f"  受控或停电的 {one.disturbed} 点不计",
            )
        )
    if plot is not None:
        vector = plot.suffix.lower() == ".svg"
        if not vector and plot.suffix.lower() != ".png":
            raise UsageError(tr("--plot: write .png or .svg", "--plot: 应为 .png 或 .svg"))
        try:
            plot.write_bytes(curve_png(traces, title=title, unit="kW", note=note, vector=vector))
        except OSError as error:
            raise UsageError(
                tr(f"cannot write {plot}: {error.strerror}", f"无法写入 {plot}: {error.strerror}")
            ) from error
        click.echo(tr(f"written: {plot}", f"已写入: {plot}"))


def _score_text(score: DayScore, curve: F8) -> str:
    if not np.isfinite(curve).any():
        return tr("nothing known at issue", "发布时无数据")
    if score.accuracy is None or score.mape is None:
        return tr("nothing measured yet", "尚无实测")
    peak = "" if score.peak is None else f"  {tr('peak', '峰值准确率')} {score.peak:.2f} %"
    left = f"  ({tr('left out', '剔除')} {score.excluded})" if score.excluded else ""
    return f"A {score.accuracy:.2f} %  MAPE {score.mape:.2f} %{peak}{left}"


def _score_json(one: ScoredDay) -> dict[str, Any]:
    return {name: msgspec.to_builtins(score) for name, score in one.scores.items()} | {"disturbed": one.disturbed}


def _day_json(one: ScoredDay) -> dict[str, Any]:
    return {
        "day": one.day.isoformat(),
        "issued": from_us(one.issued_us).astimezone(BUSINESS_ZONE).isoformat(),
        "learned": one.learned,
        "actual": _numbers(one.actual),
        **{name: _numbers(curve) for name, curve in one.curves.items()},
        "scores": _score_json(one),
    }


def _report(days: list[ScoredDay], wanted: str, as_json: bool, plot: Path | None) -> None:
    """A table of days and their means; the target is stated beside, not assumed."""
    if as_json:
        print_json({"object": wanted, "days": [_day_json(d) for d in days], "mean": means(days)})
        return
    table = Grid(box=box.SIMPLE_HEAD, title=wanted)
    for name in (tr("day", "日期"), tr("issued", "发布"), "A %", "MAPE %", tr("peak %", "峰值 %"), tr("slots", "点数"),
                 tr("left out", "剔除"), tr("A last week", "上周 A"), tr("A yesterday", "昨日 A")):  # fmt: skip
        table.add_column(name, justify="right")

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    for d in days:
        s = d.scores["forecast"]
        table.add_row(
            d.day.isoformat(), _clock(d.issued_us), shown(s.accuracy), shown(s.mape), shown(s.peak), str(s.slots),
            str(s.excluded + d.disturbed), shown(d.scores["last_week"].accuracy), shown(d.scores["yesterday"].accuracy),
        )  # fmt: skip
    mean = means(days)
    f = mean["forecast"]
    table.add_section()
    table.add_row(
        tr("mean of days", "日平均"), "", shown(f["accuracy"]), shown(f["mape"]), shown(f["peak_accuracy"]), "", "",
        shown(mean["last_week"]["accuracy"]), shown(mean["yesterday"]["accuracy"]),
    )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if f["accuracy"] is not None:
        click.echo(
            tr(
                f"mean A {f['accuracy']:.2f} % over {len(days)} days (target {TARGET} %, for the sum of key customers)",
                f"平均准确率 {f['accuracy']:.2f} %, 共 {len(days)} 天 (目标 {TARGET} %, 对重点客户总负荷)",
            )
        )
    if plot is not None and days:
        _draw(days, wanted, plot)


def _range(first: date | None, last: date | None, month: str | None) -> tuple[date, date]:
    if month is not None:
        if first or last:
            raise UsageError(tr("give --month or --from and --to, not both", "--month 不与 --from/--to 同用"))
        if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month):
            raise UsageError(tr(f"{month!r} is not a month YYYY-MM", f"{month!r} 不是 YYYY-MM 形式的月份"))
        begin = date.fromisoformat(month + "-01")
        return begin, (begin + timedelta(days=32)).replace(day=1) - timedelta(days=1)
    today = business_day(_now_us())
    end = last or today - timedelta(days=1)
    begin = first or end - timedelta(days=29)
    if end < begin:
        raise UsageError(tr("--to is before --from", "--to 早于 --from"))
    return begin, end


@forecast.command("score")
@object_option
@click.option("--from", "first", type=DayType(), help=tr("first day (default: 30 days)", "首日 (默认 30 天)"))
@click.option("--to", "last", type=DayType(), help=tr("last day (default: yesterday)", "末日 (默认昨天)"))
@click.option("--month", metavar="YYYY-MM", help=tr("a whole month", "整月"))
@click.option(
    "--issued-by",
    metavar="HH:MM",
    help=tr("judge what was issued by then the day before (default: the newest)", "只评价前一日该时刻前发布的预测"),
)
@plot_option
@json_option
@pass_app
@reported
def score(
    app: App, wanted: str, first: date | None, last: date | None, month: str | None, issued_by: str | None,
    plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """How the stored forecasts turned out: A, MAPE and peak accuracy by day, a month as the mean of its days."""
    begin, end = _range(first, last, month)
    minute = None if issued_by is None else _minute(issued_by, "--issued-by")
    with Database.open(app.config.storage) as database, database.connect() as connection:
        days = list(score_issued(connection, wanted, begin, end, _now_us(), issued_by_minute=minute))
    if not days:
        raise UsageError(
            tr(
                f"no stored forecast of {wanted} from {begin} to {end}: `fuhe forecast backtest` tells how it would "
                "have done",
                f"{begin} 至 {end} 没有 {wanted} 的预测入库: 可用 `fuhe forecast backtest` 回测",
            )
        )
    _report(days, wanted, as_json, plot)


@forecast.command("backtest")
@object_option
@click.option("--from", "first", type=DayType(), required=True, help=tr("first day", "首日"))
@click.option("--to", "last", type=DayType(), default="yesterday", help=tr("last day", "末日"))
@click.option(
    "--issue", "issued", default="09:30", show_default=True, metavar="HH:MM", help=tr("issue time", "发布时刻")
)
@click.option(
    "--by-label",
    is_flag=True,
    help=tr(
        "count values as received at their own time although they came later (recalled days)",
        "视数据在其时标时刻已收到 (用于后来补召的日子)",
    ),
)
@plot_option
@json_option
@pass_app
@reported
def backtest_(
    app: App, wanted: str, first: date, last: date, issued: str, by_label: bool, plot: Path | None, as_json: bool
) -> None:
    """Past days as they would have been forecast from what had been received by the issue time of the day before."""
    minute = _minute(issued, "--issue")
    config: ForecastConfig = app.config.forecast

    def progress(day: date) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r  {day}", nl=False, err=True)

    with Database.open(app.config.storage) as database, database.connect() as connection:
        days = list(
            backtest(connection, wanted, first, last, minute, config, _now_us(), by_label=by_label, progress=progress)
        )
    if by_label and not as_json:
        click.echo(
            tr(
                "by label: values are taken as received at their own time, whenever they really came",
                "按时标: 视数据在其时标时刻已收到, 不论实际何时收到",
            )
        )
    _report(days, wanted, as_json, plot)


@forecast.group("weather")
def weather() -> None:
    """Forecasts of the weather, kept as they were issued."""


@weather.command("import")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--place", required=True, help=tr("name of the place", "地点"))
@click.option(
    "--issued",
    metavar="'YYYY-MM-DD HH:MM'",
    help=tr("issue time of all rows, without a column `issued`", "整个文件的发布时刻 (没有 issued 列时)"),
)
@click.option("--time", "time_column", default="time", show_default=True, help=tr("time column", "时间列"))
@pass_app
@reported
def weather_import(app: App, path: Path, place: str, issued: str | None, time_column: str) -> None:
    """Import CSV with columns `issued`, `time` (or a date) and one column a quantity; business time."""
    rows = weather_rows(path, place, issued, time_column)
    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        new = insert_weather(connection, rows)
    click.echo(
        tr(
            f"{new} of {len(rows)} values are new; those stored before stay as they were issued",
            f"{len(rows)} 个值中新增 {new} 个; 已入库的保持原样",
        )
    )


def weather_rows(path: Path, place: str, issued: str | None, time_column: str) -> list[WeatherRow]:
    """The rows of a file; UsageError names every fault with its row, and a forecast issued after its own time."""
    table = read_table(path)
    times = table.times(time_column)
    stamped = "issued" in table.header
    if stamped == (issued is not None):
        raise UsageError(
            tr(
                f"{path}: give the issue time either as column `issued` or with --issued",
                f"{path}: 发布时刻用 issued 列或 --issued 二者之一给出",
            )
        )
    told = table.times("issued") if stamped else []
    single = _instant(issued, "--issued") if issued else 0
    daily = all(t.hour == t.minute == t.second == 0 for t in times)
    names = [n for n in table.header if n not in ("issued", time_column)]
    columns = {n: table.numbers(n) for n in names}
    out: list[WeatherRow] = []
    late: list[str] = []
    for i, time in enumerate(times):
        at = to_us(time.replace(tzinfo=BUSINESS_ZONE))
        told_us = to_us(told[i].replace(tzinfo=BUSINESS_ZONE)) if stamped else single
        if told_us >= at + (DAY_US if daily else 0):
            late.append(
                tr(f"row {i + 2}: issued after its own time, that is no forecast", f"第 {i + 2} 行: 发布晚于其时刻")
            )
        out += [
            WeatherRow(place=place, quantity=n, time_us=at, daily=daily, issued_us=told_us, value=float(v[i]))
            for n, v in columns.items()
            if np.isfinite(v[i])
        ]
    if late:
        raise UsageError("\n".join([tr(f"{path} has faults:", f"{path} 有误:"), *late[:20]]))
    if not out:
        raise UsageError(tr(f"{path}: no value", f"{path}: 没有数值"))
    return out
