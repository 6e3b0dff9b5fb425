"""`fuhe run`, the headless daemon, and `fuhe status`, what it does now."""

from __future__ import annotations

import time
from typing import Any

import click
import psycopg

from ..model.lang import tr
from ..storage.database import Database
from ..storage.devices import load_devices
from ..storage.state import DaemonState, load_daemon_state, load_device_states, load_link_states
from .common import App, json_option, pass_app, print_json, reported

STALE_S = 15


@click.command(help=tr("Run the daemon in the foreground until SIGTERM.", "前台运行守护进程, 直至 SIGTERM。"))
@pass_app
@reported
def run(app: App) -> None:
    from ..daemon import logs, runtime

    logs.configure(app.config.log_level)
    runtime.run(app.config)


@click.command(help=tr("Mode, links and devices of the daemon.", "守护进程的模式、链路和设备。"))
@json_option
@pass_app
@reported
def status(app: App, as_json: bool) -> None:
    with Database.open(app.config.storage) as database, database.connect() as connection:
        found = _collect(connection)
    if as_json:
        print_json(found)
        return
    click.echo(found["text"])
    for name, link in found["links"].items():
        mark = click.style("●", fg="green" if link["up"] else "red")
        text = tr(
            "{devices} devices, {replies} replies, {silences} silences, {waiting} waiting",
            "{devices} 个设备, 应答 {replies}, 无应答 {silences}, 排队 {waiting}",
        ).format(**link)
        click.echo(f"{mark} {name:<24} {link['kind']:<11} {text}  {link['reason']}")
    online, quarantined = found["online"], found["quarantined"]
    click.echo(
        tr(
            f"devices: {found['devices']}, online {online}, quarantined {len(quarantined)}",
            f"设备: {found['devices']}, 在线 {online}, 隔离 {len(quarantined)}",
        )
        + (f" ({', '.join(quarantined)})" if quarantined else "")
    )


def _collect(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    state = load_daemon_state(connection)
    devices = {d.id: d for d in load_devices(connection)}
    known = load_device_states(connection)
    alive = state is not None and state.mode != "STOPPED" and time.time() - state.heartbeat_us / 1e6 < STALE_S
    return {
        "running": alive,
        "mode": state.mode if state is not None and alive else "STOPPED",
        "reason": state.reason if state else "",
        "text": _headline(state, alive),
        "detail": dict(state.detail) if state else {},
        "devices": sum(d.enabled for d in devices.values()),
        "online": sum(s.online for i, s in known.items() if i in devices and devices[i].enabled) if alive else 0,
        "quarantined": sorted(devices[i].name for i, s in known.items() if s.quarantined and i in devices),
        "links": load_link_states(connection),
    }


def _headline(state: DaemonState | None, alive: bool) -> str:
    if state is None:
        return tr("the daemon has never run here: start it with `fuhe run`", "守护进程尚未运行: 用 fuhe run 启动")
    if not alive:
        since = time.time() - state.heartbeat_us / 1e6
        return tr(
            f"STOPPED, last seen {since:.0f} s ago: start it with `fuhe run`",
            f"STOPPED, 最后一次心跳在 {since:.0f} 秒前: 用 fuhe run 启动",
        )
    detail = state.detail
    text = tr(
        f"{state.mode}, journal {detail.get('journal_records', 0)} records waiting",
        f"{state.mode}, 日志待入库 {detail.get('journal_records', 0)} 条",
    )
    return text + (f": {state.reason}" if state.reason else "")
