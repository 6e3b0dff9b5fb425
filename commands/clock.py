"""`fuhe device clock`: how far a device's clock is off; with --set, by a person who answers for it, our time is set."""

from __future__ import annotations

from typing import Any

import click

from ..acquisition.requests import CLOCK, READ
from ..model.lang import tr
from ..model.quantities import by_id
from ..model.work import Duty
from ..protocols.common.errors import UsageError
from .asking import ask, find_device, finish
from .common import App, json_option, pass_app, print_json, reported


@click.command(help=tr("Read a device's clock; --set sets a terminal's.", "读取设备时钟; --set 对终端对时。"))
@click.argument("name")
@click.option("--set", "set_", is_flag=True, help=tr("set it (audited; needs a login)", "对时 (须登录, 记入审计)"))
@click.option("--reason", default="", help=tr("why it is set", "对时原因"))
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 3600), default=60.0, show_default=True)
@json_option
@pass_app
@reported
def clock(app: App, name: str, set_: bool, reason: str, timeout_s: float, as_json: bool) -> None:
    """What the daemon's conversation with the device showed."""
    if set_:
        answer = _set(app, name, reason, timeout_s)
    else:
        answer = ask(app, READ, name, {"duty": str(Duty.CLOCK), "items": []}, timeout_s)[1]
    if as_json:
        print_json(answer)
    else:
        click.echo(_text(name, answer))
    finish(name, answer)


def _set(app: App, name: str, reason: str, timeout_s: float) -> dict[str, Any]:
    from ..control.clocks import SET, ask_set
    from ..storage.devices import load_devices
    from .person import now_us, person

    if not reason.strip():
        raise UsageError(tr("--set needs --reason: it goes into the audit", "--set 须填写 --reason, 记入审计"))
    with person(app, SET) as (conn, actor):
        found = find_device(load_devices(conn), name)
        seq = ask_set(conn, now_us(), actor, found.id, None, reason.strip())
    return ask(app, CLOCK, name, {"audit": seq}, timeout_s)[1]


def _text(name: str, answer: dict[str, Any]) -> str:
    offsets = [v["value"] for v in answer["values"] if by_id()[v["quantity"]].name == "clock_offset"]
    event = next((e["data"] for e in answer["events"] if e["code"] == "clock_set"), None)
    if not offsets:
        return f"{name}: " + tr("the clock could not be read", "无法读取时钟")
    text = tr(f"{name}: clock {offsets[-1]:+.1f} s", f"{name}: 时钟偏差 {offsets[-1]:+.1f} 秒")
    if event is not None:
        before = event["offset_before_s"]
        text += tr(f", set from {before:+.1f} s", f", 对时前 {before:+.1f} 秒")
    return text + (f" ({answer['reason']})" if answer.get("reason") else "")
