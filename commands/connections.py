"""`fuhe device unknown` and `fuhe device online`: terminals that dial in without being known, and the online rate.

The online rate of domain practice: connected time / time in service, from the history of connections in the database.
"""

from __future__ import annotations

import getpass
import time
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from ..acquisition.relay import VIA
from ..acquisition.requests import UNKNOWN
from ..model.lang import tr
from ..model.times import business_day, day_start_us
from ..protocols.common.errors import LinkError, UsageError
from .asking import day_of, find_device, print_table, time_text
from .common import App, json_option, pass_app, print_json, reported

if TYPE_CHECKING:
    from ..model.devices import Device

TITLES: Final = {
    "link.online": ("connected", "上线"),
    "link.offline": ("disconnected", "下线"),
    "link.replaced": ("connection replaced by a second one", "连接被新的连接取代"),
    "link.moved": ("goes on from another address", "网络地址变更"),
    "link.login": ("login", "登录"),
    "link.logout": ("logout", "退出登录"),
}
"""What the history of connections says, in words."""


@click.command(help=tr("Terminals that dial in and are not served.", "已拨入但未建档的终端。"))
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 600), default=10.0, show_default=True)
@json_option
@pass_app
@reported
def unknown(app: App, timeout_s: float, as_json: bool) -> None:
    """Ask the daemon; those heard last first."""
    from ..storage import requests
    from ..storage.database import Database

    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        number = requests.ask(connection, UNKNOWN, device=None, params={}, asked_by=getpass.getuser())
        reply = requests.wait_answer(connection, number, timeout_s)
    answer: dict[str, Any] = reply.answer or {}
    if reply.state == "failed":
        raise LinkError(str(answer.get("error", "?")))
    if as_json:
        print_json(answer)
        return
    rows = answer.get("terminals", [])
    if not rows:
        click.echo(tr("no unknown terminals", "没有未建档的终端"))
    else:
        head = [tr("address", "地址"), tr("hexadecimal", "十六进制"), tr("link", "链路"), tr("from", "来自"),
                tr("connected", "已连接"), tr("first seen", "首次"), tr("last seen", "最近"), tr("frames", "帧数"),
                tr("why", "原因")]  # fmt: skip
        print_table(head, [
            [r["address"], r["hex"], r["link"], r["peer"], tr("yes", "是") if r["held"] else tr("no", "否"),
             time_text(r["first_us"]), time_text(r["last_us"]), str(r["frames"]), r["reason"]]
            for r in rows
        ])  # fmt: skip
        click.echo(
            tr(
                "take them into the device list (fuhe device import): they are served at once",
                "请将其加入设备清单 (fuhe device import), 导入后立即开始服务",
            )
        )
    if answer.get("refused"):
        n = answer["refused"]
        click.echo(tr(f"{n} connections refused: the table is full", f"{n} 个连接被拒绝: 表已满"))


@click.command(help=tr("Online rate of terminals.", "终端在线率。"))
@click.argument("names", nargs=-1)
@click.option("--from", "first", help=tr("first business day (default: today)", "起始日 (默认今天)"))
@click.option("--to", "last", help=tr("last business day (default: the first)", "截止日 (默认同起始日)"))
@json_option
@pass_app
@reported
def online(app: App, names: tuple[str, ...], first: str | None, last: str | None, as_json: bool) -> None:
    """Connected time in service time, of each terminal and of all."""
    from ..storage.database import Database
    from ..storage.devices import load_devices
    from ..storage.terminals import imported_us, online_seconds

    now_us = time.time_ns() // 1000
    begin = day_of(first) if first else business_day(now_us)
    end = day_of(last) if last else begin
    from_us, to_us = day_start_us(begin), min(now_us, day_start_us(end + timedelta(days=1)))
    if from_us >= to_us:
        raise UsageError(tr("the span is empty or in the future", "时间段为空或在未来"))
    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        devices = load_devices(connection)
        chosen = [find_device(devices, name) for name in names] or [d for d in devices if d.enabled]
        numbers = [d.id for d in chosen]
        found = online_seconds(connection, numbers, from_us, to_us)
        listed = imported_us(connection, numbers)
    terminals = [
        (d, found.get(d.id, 0.0), _service_s(d, listed.get(d.id, 0), from_us, to_us))
        for d in chosen
        if d.id in found or _dials_in(app, d)
    ]
    in_service_s = sum(s for _, _, s in terminals)
    rate = sum(min(on, s) for _, on, s in terminals) / in_service_s if in_service_s else None
    if as_json:
        print_json(
            {
                "from": str(begin),
                "to": str(end),
                "terminals": [{"name": d.name, "online_s": on, "service_s": s} for d, on, s in terminals],
                "rate": rate,
            }
        )
        return
    head = [tr("terminal", "终端"), tr("online min", "在线分钟"), tr("in service min", "在运分钟"), "%"]
    rows = [[d.name, f"{on / 60:.1f}", f"{s / 60:.1f}", _percent(on, s)] for d, on, s in terminals]
    print_table(head, rows)
    if rate is None:
        click.echo(tr("no history of connections in this time", "该时段没有连接记录"))
    else:
        click.echo(
            tr(f"online rate {rate:.2%}, {len(terminals)} terminals", f"在线率 {rate:.2%}, {len(terminals)} 台终端")
        )


def _dials_in(app: App, device: Device) -> bool:
    """Whether the device is a terminal that connects by itself: one that never did was offline all the time."""
    link = next((x for x in app.config.links if x.name == device.link), None)
    listens = link is not None and link.kind.startswith("listen") and link.protocol == "qgdw1376"
    return listens and VIA not in device.options


def _service_s(device: Device, listed_us: int, from_us: int, to_us: int) -> float:
    """Time in service within [from, to): since it is in the list, and from the day of the option `since` on."""
    since = device.options.get("since")
    start = max(from_us, listed_us, day_start_us(date.fromisoformat(since)) if since else 0)
    return max(0, to_us - start) / 1e6


def _percent(on_s: float, service_s: float) -> str:
    return f"{min(1.0, on_s / service_s):.2%}" if service_s else "-"
