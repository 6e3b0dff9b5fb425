"""`fuhe recall` and `fuhe gaps`: past data read again, and what is missing."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click
from rich.console import Console

from ..acquisition.cycles import curve_window, freeze_window
from ..acquisition.io.ledgerstore import DatabaseLedger, to_row
from ..acquisition.ledger import tracks
from ..acquisition.recall import Hole, Recaller, RecallRow
from ..acquisition.requests import RECALL, RECALLABLE
from ..model.lang import tr
from ..model.times import business_day, to_us
from ..model.work import Duty
from ..protocols.common.errors import UsageError
from ..storage.database import Database
from ..storage.devices import load_devices
from ..storage.recall import list_recalls
from .asking import ask, finish, print_answer, print_table, profiles_of, time_text
from .common import App, json_option, pass_app, print_json, reported

ALL = 10_000_000


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(tr(f"{text!r} is not a day YYYY-MM-DD", f"{text!r} 不是 YYYY-MM-DD 形式的日期")) from None


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
    begin, end = _day(first), _day(last or first)
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


@click.command(help=tr("What is missing on a day, and its recall.", "某日缺数及补召状态。"))
@click.option("--day", "text", help=tr("business day YYYY-MM-DD (default: yesterday)", "日期 (默认昨天)"))
@json_option
@pass_app
@reported
def gaps(app: App, text: str | None, as_json: bool) -> None:
    """Holes of one business day with the state of their recall items, and the day's completeness."""
    now_us = to_us(datetime.now(UTC))
    day = _day(text) if text else business_day(now_us) - timedelta(days=1)
    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        devices = load_devices(connection, enabled_only=True)
        store = DatabaseLedger(connection)
        recaller = Recaller(tracks(devices, profiles_of(app)), store, store, app.config.cycles)
        holes = list(recaller.holes(day, now_us))
        numbers = sorted({h.track.device for h in holes})
        items = [to_row(i) for i in list_recalls(connection, devices=numbers, limit=ALL)] if numbers else []
        counted = recaller.totals(day, now_us)
    by_device: dict[int, list[RecallRow]] = {}
    for item in items:
        by_device.setdefault(item.device, []).append(item)
    names = {p.id: (d.name, p.name) for d in devices for p in d.points}
    rows = [_hole(h, names[h.track.point], by_device.get(h.track.device, [])) for h in holes]
    if as_json:
        print_json({"day": day, "holes": rows, "totals": counted})
        return
    if rows:
        head = [
            tr("device", "设备"), tr("point", "计量点"), tr("data", "数据"), tr("from", "从"), tr("to", "至"),
            tr("slots", "点数"), tr("recall", "补召"), tr("attempts", "次数"), tr("next try", "下次"),
        ]  # fmt: skip
        print_table(
            head,
            [[r["device"], r["point"], r["data"], r["first"], r["last"], str(r["slots"]), r["recall"],
              str(r["attempts"]), time_text(r["next_us"])] for r in rows],
        )  # fmt: skip
    for duty, (got, due) in counted.items():
        share = f"{got / due:.2%}" if due else "-"
        click.echo(f"{day} {duty}: {got}/{due} {share}")


def _hole(hole: Hole, names: tuple[str, str], items: list[RecallRow]) -> dict[str, Any]:
    track = hole.track
    covering = [
        i
        for i in items
        if i.duty == track.duty
        and i.from_us <= hole.from_us
        and hole.to_us <= i.to_us
        and (not i.items or track.asked in i.items)
    ]
    item = min(covering, key=lambda i: ("open", "lost", "done").index(i.state), default=None)
    step_us = track.step_s * 1_000_000 or hole.to_us - hole.from_us
    return {
        "device": names[0],
        "point": names[1],
        "data": f"{track.duty} {track.item}".strip(),
        "first": time_text(hole.from_us)[:16],
        "last": time_text(hole.to_us - step_us)[:16],
        "slots": (hole.to_us - hole.from_us) // step_us,
        "recall": item.state if item else tr("not yet", "未安排"),
        "attempts": item.attempts if item else 0,
        "next_us": item.next_us if item and item.state == "open" else None,
    }
