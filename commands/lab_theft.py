"""`fuhe lab theft`: windows of interval readings from a file, each with a suspicion score and what to look at."""

from __future__ import annotations

import re
from pathlib import Path

import click
import numpy as np

from ..analytics.masks import F8
from ..analytics.theft.reasons import reasons
from ..analytics.theft.score import LOOK_FROM, Training, score_windows
from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .common import json_option, print_json, reported
from .lab_data import Table, read_table, write_csv


@click.command(help=tr("Suspicion score of windows of interval readings.", "分时读数窗口的用电异常评分。"))
@click.option(
    "--windows", "path", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help=tr("CSV, one window a row, readings v0, v1, …", "CSV, 每行一个窗口, 读数列 v0, v1, …"),
)  # fmt: skip
@click.option(
    "--train", "train_path", type=click.Path(path_type=Path, dir_okay=False),
    help=tr("CSV of labelled windows (column theft: 0 or 1)", "带标签的窗口 CSV (列 theft: 0 或 1)"),
)  # fmt: skip
@click.option(
    "--per-day", type=click.IntRange(4, 1440), default=48, show_default=True, help=tr("readings a day", "每日点数")
)
@click.option(
    "--customer",
    "customer_column",
    default="customer",
    show_default=True,
    help=tr("column of the customer, if any", "用户列 (可无)"),
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help=tr("CSV file to write", "输出 CSV")
)
@json_option
@reported
def theft(path: Path, train_path: Path | None, per_day: int, customer_column: str, out: Path, as_json: bool) -> None:
    """Columns out: those that are not readings, score (0-100), reasons."""
    table = read_table(path)
    x = _windows(table, per_day)
    training = None
    if train_path is not None:
        taught = read_table(train_path)
        label = taught.numbers("theft")
        if not np.isin(label, (0, 1)).all():
            row = int(np.flatnonzero(~np.isin(label, (0, 1)))[0]) + 2
            raise UsageError(
                tr(f"{train_path}, row {row}: theft must be 0 or 1", f"{train_path} 第 {row} 行: theft 应为 0 或 1")
            )
        training = Training(
            windows=_windows(taught, per_day), theft=label == 1, customer=_customers(taught, customer_column)
        )
    try:
        scores = score_windows(x, _customers(table, customer_column), training)
    except ValueError as error:
        raise UsageError(tr(f"{path}: {error}", f"{path}: 无法评分: {error}")) from error
    kept = [name for name in table.header if name in (customer_column, "start")]
    texts = [table.texts(name) for name in kept]
    rows = []
    for i, score in enumerate(scores.score.tolist()):
        said = "; ".join(reasons(scores.features[i], int(scores.day[i])))
        rows.append([*(column[i] for column in texts), f"{score:.1f}", said])
    write_csv(out, (*kept, "score", "reasons"), rows)
    raised = int((scores.score >= LOOK_FROM).sum())
    if as_json:
        print_json({"windows": len(x), "worth_a_look": raised, "from_score": LOOK_FROM, "out": str(out)})
        return
    click.echo(
        tr(
            f"{len(x)} windows, {raised} worth a look (score {LOOK_FROM:.0f} and more)",
            f"{len(x)} 个窗口, {raised} 个值得核查 (评分 ≥ {LOOK_FROM:.0f})",
        )
    )
    click.echo(tr(f"written: {out}", f"已写入: {out}"))


def _customers(table: Table, column: str) -> list[str]:
    return table.texts(column) if column in table.header else [""] * len(table.rows)


def _windows(table: Table, per_day: int) -> F8:
    """Readings (windows, days, per_day); UsageError names what does not fit."""
    names = sorted((c for c in table.header if re.fullmatch(r"v\d+", c)), key=lambda c: int(c[1:]))
    if not names or [int(c[1:]) for c in names] != list(range(len(names))):
        raise UsageError(
            tr(
                f"{table.path}: readings must be columns v0, v1, … without a hole",
                f"{table.path}: 读数列应为连续的 v0, v1, …",
            )
        )
    if len(names) % per_day:
        raise UsageError(
            tr(
                f"{table.path}: {len(names)} readings are no whole number of days of {per_day}: use --per-day",
                f"{table.path}: {len(names)} 个读数不是每日 {per_day} 点的整天数: 请用 --per-day",
            )
        )
    if not table.rows:
        raise UsageError(tr(f"{table.path} has no rows", f"{table.path} 没有数据行"))
    x = np.stack([table.numbers(name) for name in names], axis=1)
    return x.reshape(len(x), -1, per_day)
