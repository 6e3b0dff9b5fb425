"""`fuhe recall`: past data read again."""

from __future__ import annotations

from contextlib import nullcontext

import click
from rich.console import Console

from ..acquisition.cycles import curve_window, freeze_window
from ..acquisition.requests import RECALL, RECALLABLE
from ..model.lang import tr
from ..model.work import Duty
from ..protocols.common.errors import UsageError
from .asking import ask, day_of, finish, print_answer
from .common import App, json_option, pass_app, print_json, reported


@click.command(help=tr("Read stored data of past days again.", "补召历史数据。"))
@click.argument("name")
@click.option("--from", "first", required=True, help=tr("first business day", "起始日"))
@click.option("--to", "last", help=tr("last business day (default: the first)", "截止日 (默认同起始日)"))
@click.option("--duty", type=click.Choice([str(d) for d in RECALLABLE]), default="curve", show_default=True)
@click.option("--item", "items", multiple=True, help=tr("class or data item, repeatable", "类别或数据项, 可重复"))
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 3600), default=300.0, show_default=True)
@json_option
@pass_app
@reported
def recall(
    app: App,
    name: str,
    first: str,
    last: str | None,
    duty: str,
    items: tuple[str, ...],
    timeout_s: float,
    as_json: bool,
) -> None:
    """Ask the daemon to fetch a span of stored data; always possible, recorded with the asker's name."""
    begin, end = day_of(first), day_of(last or first)
    if begin > end:
        raise UsageError(tr("--from lies after --to", "--from 晚于 --to"))
    window = curve_window if duty in (Duty.CURVE, Duty.EVENT) else freeze_window
    params = {"duty": duty, "items": list(items), "from_us": window(begin)[0], "to_us": window(end)[1]}
    console = Console(stderr=True)
    waiting = console.status(tr(f"recalling {name}", f"正在补召 {name}")) if console.is_terminal else nullcontext()
    with waiting:
        found, answer = ask(app, RECALL, name, params, timeout_s)
    if as_json:
        print_json(answer)
    else:
        print_answer(found, {**answer, "values": answer.get("values", []) if duty != "curve" else []})
        stored = answer.get("stored", 0)
        click.echo(tr(f"{stored} values stored", f"已存储 {stored} 个数值"))
    finish(name, answer)
