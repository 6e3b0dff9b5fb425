"""`fuhe device events`: what devices have recorded, in words; DL/T 645 records with their fields' names and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from ..acquisition.event_book import FELL, LOST
from ..model.lang import lang, tr
from ..model.times import day_start_us
from ..protocols.dlt645.events import content, lasts, title
from ..protocols.qgdw1376.table import ErcRow, lookup_erc
from ..protocols.qgdw1376.terms import label
from .asking import day_of, find_device, print_table, time_text
from .common import App, json_option, pass_app, print_json, reported
from .connections import TITLES
from .render_terminal import scalar, units_of

if TYPE_CHECKING:
    from ..storage.events import StoredEvent

LATEST = 5
_KNOWN = frozenset({"kind", "index", "time"})  # said elsewhere in the line


def words(code: str, data: Mapping[str, Any]) -> tuple[str, str]:
    """(what happened, its details) of an event, for people."""
    named = title(code)
    if code in TITLES:
        return tr(*TITLES[code]), ", ".join(f"{k} {v}" for k, v in data.items() if v not in (None, ""))
    erc = _erc(code)
    if erc is not None:
        return _terminal_event(erc, data)
    name = tr(*named) if named else str(data.get("event", code))
    if data.get("event") == FELL:
        what = tr(
            f"count fell from {data.get('before')} to {data.get('count')}: another meter, or events cleared",
            f"次数由 {data.get('before')} 降至 {data.get('count')}: 换表或事件清零",
        )
        return name, what
    if data.get("event") == LOST:
        return name, tr(f"{data.get('lost')} records no longer kept", f"{data.get('lost')} 条记录已被覆盖")
    if named:
        return name, ", ".join(f"{tr(en, zh)} {value}" for en, zh, value in content(code, data))
    return name, ", ".join(f"{k} {v}" for k, v in data.items() if k != "event" and v is not None)


def _erc(code: str) -> ErcRow | None:
    number = code.removeprefix("ERC")
    return lookup_erc(int(number)) if number != code and number.isdigit() else None


def _terminal_event(row: ErcRow, data: Mapping[str, Any]) -> tuple[str, str]:
    """Name of a terminal's event code, and its fields with their units; what has no value is left out."""
    units = units_of(row.fields)
    told = [
        f"{label(key, lang())} {scalar(value, units.get(key, ''))}"
        for key, value in data.items()
        if key not in _KNOWN and value not in (None, [])
    ]
    return tr(row.en, row.zh), ", ".join(told)


def once(found: Sequence[StoredEvent]) -> list[StoredEvent]:
    """Each event once: a record that was read while it went on gives way to the one with its end."""
    ended = {(e.device, e.point, e.code, e.time_us) for e in found if e.end_us is not None}
    kept = []
    for e in found:
        key = (e.device, e.point, e.code, e.time_us)
        if e.end_us is None and key in ended and title(e.code) and lasts(e.code):
            continue
        kept.append(e)
    return kept


def rows(found: Sequence[StoredEvent], points: Mapping[int, str]) -> list[list[str]]:
    """Lines of a table: begin, end, code, what, details, point."""
    lines = []
    for e in once(found):
        what, details = words(e.code, e.data)
        goes_on = title(e.code) and lasts(e.code) and e.end_us is None and e.data.get("event") not in (FELL, LOST)
        end = tr("goes on", "持续中") if goes_on else time_text(e.end_us)
        lines.append([time_text(e.time_us), end, e.code, what, details, points.get(e.point or 0, "")])
    return lines


def head() -> list[str]:
    """Heads of the columns of `rows`."""
    return [tr("begin", "开始"), tr("end", "结束"), tr("code", "代码"), tr("event", "事件"), tr("details", "内容"),
            tr("point", "计量点")]  # fmt: skip


@click.command(help=tr("Events that a device has recorded.", "设备记录的事件。"))
@click.argument("name")
@click.option("--from", "first", help=tr("first business day YYYY-MM-DD", "起始日"))
@click.option("--to", "last", help=tr("last business day (default: today)", "截止日 (默认今天)"))
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@pass_app
@reported
def events(app: App, name: str, first: str | None, last: str | None, limit: int, as_json: bool) -> None:
    """The newest first."""
    from ..storage.database import Database
    from ..storage.devices import load_devices
    from ..storage.events import load_events

    since = None if first is None else day_start_us(day_of(first))
    until = None if last is None else day_start_us(day_of(last) + timedelta(days=1))
    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        device = find_device(load_devices(connection), name)
        found = load_events(connection, [device.id], since, until, limit)
    points = {p.id: p.name for p in device.points}
    if as_json:
        print_json([
            {
                "time": _iso(e.time_us), "end": _iso(e.end_us), "code": e.code, "event": words(e.code, e.data)[0],
                "text": words(e.code, e.data)[1], "point": points.get(e.point or 0), "data": e.data,
                "received": _iso(e.received_us),
            }
            for e in once(found)
        ])  # fmt: skip
        return
    if not found:
        click.echo(tr("no events", "没有事件"))
        return
    print_table(head(), rows(found, points))


def _iso(time_us: int | None) -> str | None:
    return None if time_us is None else datetime.fromtimestamp(time_us / 1e6, UTC).isoformat()
