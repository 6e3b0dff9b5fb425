"""`fuhe lab forecast`: walk-forward forecasts of a load curve from a file, day by day as they would be issued."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from ..analytics.forecast.ahead import Ahead
from ..analytics.forecast.calendar import missing_years
from ..analytics.forecast.features import Issue
from ..analytics.forecast.forecaster import MODEL_VERSION
from ..analytics.forecast.score import DayScore, mean_of, score_day
from ..analytics.forecast.walk import WalkedDay, walk
from ..analytics.masks import F8, I8
from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .common import reported
from .lab_series import Clock, Series, load_series


@click.command(
    help=tr(
        "Forecast the days of a load curve, each from what was known at its issue time.",
        "对负荷曲线逐日滚动预测, 每日仅用发布时刻前已知的数据。",
    )
)
@click.option(
    "--load",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help=tr("CSV file of loads, may be gzip", "负荷 CSV 文件, 可为 gzip"),
)
@click.option("--time", "time_column", required=True, help=tr("column of the time", "时间列"))
@click.option("--utc", is_flag=True, help=tr("the time column is UTC", "时间列为 UTC"))
@click.option(
    "--zone",
    help=tr(
        "time zone of the local days, such as Australia/Melbourne (default: a fixed clock)",
        "当地时区, 如 Australia/Melbourne (默认固定时钟)",
    ),
)
@click.option(
    "--label",
    type=click.Choice(["start", "end"]),
    default="start",
    show_default=True,
    help=tr("what the time labels of an interval", "时间标签表示时段的起点或终点"),
)
@click.option("--value", "value_column", required=True, help=tr("column of the load", "负荷列"))
@click.option(
    "--known",
    "known_columns",
    default="",
    metavar="COL,COL",
    help=tr("columns of the load file known ahead", "负荷文件中可预知的列"),
)
@click.option(
    "--weather",
    "weather_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help=tr(
        "CSV file of weather, daily or by interval; all its numeric columns are known ahead",
        "气象 CSV 文件 (逐日或分时), 数值列均视为可预知",
    ),
)
@click.option(
    "--weather-time",
    "weather_time",
    default="date",
    show_default=True,
    help=tr("time column of the weather file", "气象文件的时间列"),
)
@click.option("--from", "first", required=True, metavar="DATE", help=tr("first day to forecast", "首个预测日"))
@click.option("--to", "last", required=True, metavar="DATE", help=tr("last day to forecast", "最后预测日"))
@click.option(
    "--issue",
    "issue_text",
    default="12:00",
    show_default=True,
    metavar="HH:MM",
    help=tr("time of the day before at which each forecast is issued", "前一日发布预测的时刻"),
)
@click.option(
    "--calendar",
    "calendar",
    type=click.Choice(["auto", "cn", "none"]),
    default="auto",
    show_default=True,
    help=tr(
        "whose holidays: auto = Chinese unless --zone or a known holiday column says otherwise",
        "节假日: auto = 中国, 除非时区或已知节假日列另有说明",
    ),
)
@click.option(
    "--json",
    "out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help=tr("JSON file to write", "输出 JSON 文件"),
)
@reported
def forecast(
    path: Path, time_column: str, utc: bool, zone: str | None, label: str, value_column: str, known_columns: str,
    weather_path: Path | None, weather_time: str, first: str, last: str, issue_text: str, calendar: str, out: Path,
) -> None:  # fmt: skip
    """Walk-forward over local days; the file of results is written once, at the end."""
    started = time.monotonic()
    span = (_date(first, "--from"), _date(last, "--to"))
    if span[1] < span[0]:
        raise UsageError(tr("--to is before --from", "--to 早于 --from"))
    if not out.parent.is_dir():
        raise UsageError(tr(f"no folder {out.parent}", f"没有目录 {out.parent}"))
    series = load_series(
        path, time_column=time_column, value_column=value_column, last=span[1], utc=utc, zone=zone, label=label,
        known=[c.strip() for c in known_columns.split(",") if c.strip()], weather=weather_path,
        weather_time=weather_time, calendar=calendar,
    )  # fmt: skip
    clock, ahead = series.clock, series.ahead
    issue = Issue(lead=1, slot=_issue_slot(issue_text, clock.step_s))
    numbers = range((span[0] - clock.first).days, (span[1] - clock.first).days + 1)
    if series.chinese:
        _warn_years(max(span[0] - timedelta(days=400), clock.first), span[1])
    _say_columns(ahead)
    walked = _walk(series, issue, numbers, path)
    result = _result(walked, series.raw, series.value, clock, issue_text)
    result["summary"] |= {
        "seconds": round(time.monotonic() - started, 1),
        "calendar": "cn" if series.chinese else "none",
        "known_ahead": ahead.kinds if ahead else {},
        "cleaned_ahead": {k: v for k, v in (ahead.cleaned if ahead else {}).items() if v},
        "zone": zone or "fixed",
    }
    try:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    except OSError as error:
        raise UsageError(tr(f"cannot write {out}: {error.strerror}", f"无法写入 {out}: {error.strerror}")) from error
    _print(result["summary"], out)


def _date(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(tr(f"{option} {text!r} is no date (YYYY-MM-DD)", f"{option} {text!r} 不是日期")) from error


def _issue_slot(text: str, step_s: int) -> int:
    """Slots of the issue day that are over at the issue time."""
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    if not found:
        raise UsageError(tr(f"--issue {text!r} is no time of day (HH:MM)", f"--issue {text!r} 不是时刻 (HH:MM)"))
    return (int(found[1]) * 3600 + int(found[2]) * 60) // step_s


def _warn_years(first: date, last: date) -> None:
    unknown, provisional = missing_years(first, (last - first).days + 1)
    if unknown:
        years = ", ".join(map(str, unknown))
        click.echo(
            tr(
                f"WARNING: the holiday calendar lacks {years}: festivals of these years are forecast as ordinary days. "
                "Renew calendar_cn.toml.",
                f"警告: 节假日历缺 {years} 年, 这些年的节日将按平日预测。请更新 calendar_cn.toml。",
            ),
            err=True,
        )
    if provisional:
        years = ", ".join(map(str, provisional))
        click.echo(
            tr(
                f"WARNING: for {years} the holiday calendar knows statutory days only, no make-up working days.",
                f"警告: {years} 年的节假日历仅含法定假日, 不含调休。",
            ),
            err=True,
        )


def _say_columns(ahead: Ahead | None) -> None:
    if ahead is None:
        return
    words = {
        "temperature": tr("temperature", "温度"), "variable": tr("variable", "变量"), "mark": tr("day mark", "日标志"),
        "holiday": tr("holiday mark", "节假日标志"), "empty": tr("empty, left out", "为空, 已忽略"),
    }  # fmt: skip
    click.echo(tr("known ahead: ", "可预知列: ") + ", ".join(f"{k} ({words[v]})" for k, v in ahead.kinds.items()))
    for name, count in ahead.cleaned.items():
        if count:
            click.echo(
                tr(f"  {name}: implausible on {count} days, replaced", f"  {name}: {count} 天数值不合理, 已替换")
            )
    for name, count in ahead.filled.items():
        if count:
            click.echo(tr(f"  {name}: missing on {count} days, carried on", f"  {name}: {count} 天缺失, 沿用前值"))


def _walk(series: Series, issue: Issue, days: range, path: Path) -> list[WalkedDay]:
    clock = series.clock
    done = 0
    started = said = time.monotonic()

    def progress(day: int) -> None:
        nonlocal done, said
        done += 1
        now = time.monotonic()
        if now - said >= 10:
            said = now
            when = clock.first + timedelta(days=day)
            click.echo(
                tr(
                    f"  {when}  {done} days, {now - started:.0f} s",
                    f"  {when}  已完成 {done} 天, {now - started:.0f} 秒",
                ),
                err=True,
            )

    try:
        return walk(series.raw, series.types, series.known, issue, days, progress=progress)
    except ValueError as error:
        raise UsageError(
            tr(
                f"{path}: there is no load before the issue time of {clock.first + timedelta(days=days.start)}: "
                "choose a later --from",
                f"{path}: {clock.first + timedelta(days=days.start)} 的发布时刻之前没有负荷数据, 请推后 --from",
            )
        ) from error


def _result(walked: list[WalkedDay], raw: F8, value: F8, clock: Clock, issue_text: str) -> dict[str, Any]:
    out, scores = [], []
    naive: dict[str, list[DayScore]] = {"last_week": [], "yesterday": []}
    for item in walked:
        slots = clock.slots_of(item.day)
        actual = _actual(item.day, slots, raw, value, clock)
        curve = item.forecast.value[slots]
        score = score_day(curve, actual)
        scores.append(score)
        for name, other in (("last_week", item.last_week), ("yesterday", item.yesterday)):
            naive[name].append(score_day(other[slots], actual))
        out.append(
            {
                "date": (clock.first + timedelta(days=item.day)).isoformat(),
                "forecast": [float(f"{v:.7g}") for v in curve],
                "mape": _shown(score.mape),
                "accuracy": _shown(score.accuracy),
                "peak_accuracy": _shown(score.peak),
                "wape": _shown(score.wape),
                "slots": score.slots,
                "excluded": score.excluded,
                "learned": item.forecast.learned,
                "naive": {
                    n: {"mape": _shown(s[-1].mape), "accuracy": _shown(s[-1].accuracy)} for n, s in naive.items()
                },
            }
        )
    summary: dict[str, Any] = {
        "days": len(out),
        "days_scored": sum(s.accuracy is not None for s in scores),
        **_means(scores),
        "naive_last_week": _means(naive["last_week"]),
        "naive_yesterday": _means(naive["yesterday"]),
        "issue": issue_text,
        "step_min": clock.step_s // 60,
        "model": MODEL_VERSION,
        "excluded": sum(s.excluded for s in scores),
    }
    return {"days": out, "summary": summary}


def _actual(day: int, slots: I8, raw: F8, value: F8, clock: Clock) -> F8:
    """The loads of a day in the order of `slots`, as delivered."""
    at = np.flatnonzero(clock.day == day)
    if len(at) == len(slots) and (clock.slot[at] == slots).all():
        return value[at]
    return raw[day][slots] if day < len(raw) else np.full(len(slots), np.nan)


def _means(scores: list[DayScore]) -> dict[str, float | None]:
    pick: dict[str, Callable[[DayScore], float | None]] = {
        "accuracy": lambda s: s.accuracy,
        "mape": lambda s: s.mape,
        "peak_accuracy": lambda s: s.peak,
        "wape": lambda s: s.wape,
    }
    return {name: _shown(mean_of([get(s) for s in scores])) for name, get in pick.items()}


def _shown(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _print(summary: dict[str, Any], out: Path) -> None:
    def line(name: str, row: dict[str, Any]) -> str:
        shown = [
            f"{row[k]:8.2f}" if row[k] is not None else "       -"
            for k in ("accuracy", "mape", "wape", "peak_accuracy")
        ]
        return f"  {name:12}" + " ".join(shown)

    click.echo(
        tr(
            f"{summary['days']} days at {summary['step_min']} min, issued {summary['issue']} the day before, "
            f"{summary['seconds']} s",
            f"{summary['days']} 天, 步长 {summary['step_min']} 分钟, 前一日 {summary['issue']} 发布, "
            f"用时 {summary['seconds']} 秒",
        )
    )
    click.echo(f"  {'':12}" + " ".join(f"{n:>8}" for n in ("A %", "MAPE %", "WAPE %", "peak %")))
    click.echo(line(tr("forecast", "预测"), summary))
    click.echo(line(tr("last week", "上周同时刻"), summary["naive_last_week"]))
    click.echo(line(tr("yesterday", "昨日"), summary["naive_yesterday"]))
    click.echo(tr(f"written: {out}", f"已写入: {out}"))
