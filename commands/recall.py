"""`fuhe recall` and `fuhe gaps`, and how any verb asks the daemon about a device and prints its answer."""

from __future__ import annotations

import getpass
import sys
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from ..acquisition.cycles import curve_window, freeze_window
from ..acquisition.io.ledgerstore import DatabaseLedger, to_row
from ..acquisition.ledger import tracks
from ..acquisition.profile import Profile
from ..acquisition.profiles import load_profiles
from ..acquisition.recall import Hole, Recaller, RecallRow
from ..acquisition.requests import RECALL, RECALLABLE
from ..model.devices import Device
from ..model.lang import tr
from ..model.quality import Quality
from ..model.quantities import by_id
from ..model.times import BUSINESS_ZONE, business_day, from_us, to_us
from ..model.work import Duty
from ..protocols.common.errors import LinkError, UsageError
from ..storage import requests
from ..storage.database import Database
from ..storage.devices import load_devices
from ..storage.recall import list_recalls
from .common import App, json_option, pass_app, print_json, reported

ALL = 10_000_000


def profiles_of(app: App) -> dict[str, Profile]:
    return load_profiles(app.config.data_dir / "profiles")


def find_device(devices: list[Device], name: str) -> Device:
    found = next((d for d in devices if d.name == name), None)
    if found is None:
        en = f"no device {name!r}: `fuhe device list` shows their names"
        raise UsageError(tr(en, f"没有设备 {name!r}: 请用 fuhe device list 查看"))
    return found


def time_text(time_us: int | None) -> str:
    return "-" if time_us is None else f"{from_us(time_us).astimezone(BUSINESS_ZONE):%Y-%m-%d %H:%M:%S}"


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    # not a terminal: as wide as it needs to be, so that nothing is cut
    Console(width=None if sys.stdout.isatty() else 250, highlight=False, markup=False).print(table)


def ask(app: App, kind: str, name: str, params: dict[str, Any], timeout_s: float) -> tuple[Device, dict[str, Any]]:
    """Ask the daemon about a device and wait. Refused when the daemon answered that it could not."""
    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        found = find_device(load_devices(connection), name)
        if not found.enabled:
            raise UsageError(tr(f"{name} is disabled in the device list", f"{name} 在设备清单中已停用"))
        number = requests.ask(connection, kind, device=found.id, params=params, asked_by=getpass.getuser())
        reply = requests.wait_answer(connection, number, timeout_s)
    answer = reply.answer or {}
    if reply.state == "failed":
        raise LinkError(tr(f"{name}: {answer.get('error', '?')}", f"{name}: {answer.get('error', '?')}"))
    return found, answer


def print_answer(found: Device, answer: dict[str, Any]) -> None:
    points = {p.id: p.name for p in found.points}
    rows = []
    for v in answer.get("values", []):
        q = by_id().get(v["quantity"])
        label = tr(q.name, q.zh) if q else str(v["quantity"])
        value = f"{v['value']:.{q.decimals}f}".rstrip("0").rstrip(".") if q and q.decimals else f"{v['value']:g}"
        name = points.get(v["point"], str(v["point"]))
        rows.append([name, label, value, q.unit if q else "", Quality(v["quality"]).name, time_text(v["time_us"])])
    if rows:
        head = [
            tr("point", "计量点"), tr("quantity", "数据项"), tr("value", "数值"), tr("unit", "单位"),
            tr("quality", "质量"), tr("time", "时间"),
        ]  # fmt: skip
        print_table(head, rows)
    for p in answer.get("parameters", []):
        click.echo(f"{p['item']} = {p['value']}  ({time_text(p['time_us'])})")
    for e in answer.get("events", []):
        click.echo(f"{time_text(e['time_us'])} {e['code']} {e['data']}")
    for f in answer.get("faults", []):
        click.echo(f"{f['item']}: {f['reason']}", err=True)


def finish(name: str, answer: dict[str, Any]) -> None:
    """End with an error unless something was read."""
    status = str(answer.get("status", "done"))
    if status not in ("done", "partial"):
        reason = answer.get("reason") or status
        raise LinkError(tr(f"{name} was not read ({status}): {reason}", f"{name} 未召测成功 ({status}): {reason}"))


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
        and (not i.items or track.item in i.items)
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
