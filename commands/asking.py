"""How a verb finds a device, asks the daemon about it, waits and prints the answer; imports little at its head."""

from __future__ import annotations

import getpass
import sys
from datetime import date
from typing import TYPE_CHECKING, Any

import click

from ..model.devices import Device
from ..model.lang import tr
from ..model.times import BUSINESS_ZONE, from_us
from ..protocols.common.errors import LinkError, UsageError
from .common import App

if TYPE_CHECKING:
    from ..acquisition.profile import Profile


def profiles_of(app: App) -> dict[str, Profile]:
    """The built-in device profiles and those of the data directory."""
    from ..acquisition.profiles import load_profiles

    return load_profiles(app.config.data_dir / "profiles")


def find_device(devices: list[Device], name: str) -> Device:
    """The device called `name`; UsageError if there is none."""
    found = next((d for d in devices if d.name == name), None)
    if found is None:
        en = f"no device {name!r}: `fuhe device list` shows their names"
        raise UsageError(tr(en, f"没有设备 {name!r}: 请用 fuhe device list 查看"))
    return found


def day_of(text: str) -> date:
    """A day as people give it; UsageError if it is none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(tr(f"{text!r} is not a day YYYY-MM-DD", f"{text!r} 不是 YYYY-MM-DD 形式的日期")) from None


def time_text(time_us: int | None) -> str:
    """Business time, seconds; - for none."""
    return "-" if time_us is None else f"{from_us(time_us).astimezone(BUSINESS_ZONE):%Y-%m-%d %H:%M:%S}"


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A plain table, as wide as it needs to be where there is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    # not a terminal: as wide as it needs to be, so that nothing is cut
    Console(width=None if sys.stdout.isatty() else 250, highlight=False, markup=False).print(table)


def ask(app: App, kind: str, name: str, params: dict[str, Any], timeout_s: float) -> tuple[Device, dict[str, Any]]:
    """Ask the daemon about a device and wait. Refused when the daemon answered that it could not."""
    from ..storage import requests
    from ..storage.database import Database
    from ..storage.devices import load_devices

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
    """What a device said: values, parameters, events; faults to standard error."""
    from ..model.quality import Quality
    from ..model.quantities import by_id
    from .events import words

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
        what, details = words(e["code"], e["data"])
        click.echo(f"{time_text(e['time_us'])} – {time_text(e['end_us'])}  {what}  {details}".rstrip())
    for f in answer.get("faults", []):
        click.echo(f"{f['item']}: {f['reason']}", err=True)


def finish(name: str, answer: dict[str, Any]) -> None:
    """End with an error unless something was read."""
    status = str(answer.get("status", "done"))
    if status not in ("done", "partial"):
        reason = answer.get("reason") or status
        raise LinkError(tr(f"{name} was not read ({status}): {reason}", f"{name} 未召测成功 ({status}): {reason}"))
