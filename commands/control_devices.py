"""`fuhe control device|incident`: states of a terminal outside any order, and what only people can decide."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from ..control import incidents, rounds, terminals
from ..control.commands import Command
from ..control.rules.kinds import Kind, Scope
from ..control.rules.states import State
from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .common import App, json_option, pass_app, print_json, reported
from .control_orders import Reason
from .person import device_names, local, now_us, person, say, show_table, yes_no


@click.group(
    help=tr("States of a terminal: protection, exclusion, reminder, release.", "终端状态: 保电、剔除、催费告警、解除。")
)
def device() -> None:
    """The group of device verbs."""


def _state(kind: Kind) -> None:
    signed = tr("one person", "一人") if kind.signatures == 1 else tr("two people", "两人")
    numbered = kind.scope is not Scope.DEVICE

    @device.command(kind.name, help=tr(f"{kind.en} ({signed}).", f"{kind.zh}({signed})。"))
    @click.argument("name")
    @click.option(
        "--number", type=click.IntRange(1, terminals.MAX_NUMBER), default=None, hidden=not numbered,
        help=tr("round, or total-sum group", "轮次或总加组号"),
    )  # fmt: skip
    @click.option(
        "--half-hours", type=click.IntRange(0, 255), default=None, hidden=kind.name != "protect",
        help=tr("it lasts so long, 0 = until lifted", "持续 半小时, 0 为至解除"),
    )  # fmt: skip
    @Reason
    @json_option
    @pass_app
    @reported
    def verb(app: App, name: str, number: int | None, half_hours: int | None, reason: str, as_json: bool) -> None:
        if number is None and numbered:
            raise UsageError(tr("--number N is needed", "须给出 --number N"))
        params = f"half_hours={half_hours}" if half_hours is not None else ""
        with person(app, terminals.permission(kind)) as (conn, actor):
            ids = rounds.device_ids(conn)
            if name not in ids:
                raise UsageError(tr(f"no device {name!r}", f"没有装置 {name!r}"))
            made = terminals.order_state(
                conn, now_us(), actor, ids[name], kind.name, reason, app.config.control, number=number or 0,
                params=params,
            )  # fmt: skip
        say(as_json, asdict(made), _said(made))


for _kind in terminals.STATE_KINDS.values():
    _state(_kind)


def _said(made: Command) -> str:
    if made.state is State.SUBMITTED:
        return tr(
            f"command {made.id} waits for a second person: control device confirm {made.id}",
            f"命令 {made.id} 待第二人: control device confirm {made.id}",
        )
    return tr(
        f"command {made.id} is on its way: control cmd show {made.id}",
        f"命令 {made.id} 已下达: control cmd show {made.id}",
    )


@device.command(help=tr("Sign a state as the second person; it is carried out then.", "第二人批准状态命令, 随后执行。"))
@click.argument("command_id", type=int)
@click.option("--digits", default=None, help=tr("last four address digits, else asked for", "终端地址后四位, 否则询问"))
@json_option
@pass_app
@reported
def confirm(app: App, command_id: int, digits: str | None, as_json: bool) -> None:
    """Not for commands of an order: those are approved and executed with it."""
    from ..control.command import get

    with person(app, "command.approve") as (conn, actor):
        found = get(conn, command_id)
        if found.kind not in terminals.STATE_KINDS:
            raise UsageError(tr(f"command {command_id} is no state", f"命令 {command_id} 不是状态命令"))
        question = tr(
            f"{found.rule.en} of {device_names(conn)[found.device_id]}: last four digits of its address",
            f"{device_names(conn)[found.device_id]} {found.rule.zh}: 终端地址后四位",
        )
        typed = digits if digits is not None else click.prompt(question, err=True)
        (made,) = terminals.second(conn, now_us(), actor, {command_id: typed}, app.config.control)
    say(as_json, asdict(made), _said(made))


@device.command(help=tr("Devices that the server protects by a person's word.", "主站保电清单。"))
@json_option
@pass_app
@reported
def protections(app: App, as_json: bool) -> None:
    """Customers that a plan protects stand in the plan."""
    with person(app) as (conn, _):
        found, names = terminals.protections(conn), device_names(conn)
    if as_json:
        print_json([asdict(p) | {"device": names[p.device_id]} for p in found])
        return
    head = [tr("device", "装置"), tr("since", "起"), tr("until", "止"), tr("by", "操作人"), tr("reason", "原因")]
    show_table(head, [[names[p.device_id], local(p.since), local(p.until), p.by_, p.reason] for p in found])


@click.group(help=tr("Incidents: what only people can decide.", "异常事件: 须由人处理。"))
def incident() -> None:
    """The group of incident verbs."""


@incident.command("list", help=tr("Open incidents, or all.", "未结事件或全部。"))
@click.option("--all", "everything", is_flag=True, help=tr("closed ones too", "含已结事件"))
@json_option
@pass_app
@reported
def incident_list(app: App, everything: bool, as_json: bool) -> None:
    """Oldest first."""
    with person(app) as (conn, _):
        found, names = incidents.incidents(conn, everything=everything), device_names(conn)
    if as_json:
        print_json([asdict(i) | {"device": names.get(i.device_id, "")} for i in found])
        return
    head = [
        "id",
        tr("device", "装置"),
        tr("command", "命令"),
        tr("since", "起"),
        tr("closed", "已结"),
        tr("what", "内容"),
    ]
    rows: list[list[Any]] = [
        [i.id, names.get(i.device_id, i.device_id), i.command_id or "-", local(i.opened_at),
         yes_no(i.closed_at is not None), f"{i.what}: {i.text}"]
        for i in found
    ]  # fmt: skip
    show_table(head, rows)


@incident.command("close", help=tr("It has been dealt with: say how.", "结束事件, 写明处理情况。"))
@click.argument("incident_id", type=int)
@Reason
@json_option
@pass_app
@reported
def incident_close(app: App, incident_id: int, reason: str, as_json: bool) -> None:
    """Never done by the program itself."""
    with person(app, "incident.close") as (conn, actor):
        made = incidents.close(conn, now_us(), actor, incident_id, reason)
    say(as_json, asdict(made), tr(f"incident {made.id} closed", f"事件 {made.id} 已结"))
