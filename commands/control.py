"""`fuhe control`: orderly power use from the plan to the release. Every verb is one step of one logged-in person.

No verb trips anything: `execute` asks the daemon, which acts only on commands signed by two people.
"""

from __future__ import annotations

import csv
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..control import commands, freeze, orders, overrides, proposals, releases
from ..control.commands import Command
from ..control.records import Conn, scalar
from ..control.rules.kinds import Effect, Kind, Scope
from ..control.rules.states import State
from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .colours import COLOURS
from .common import App, json_option, pass_app, print_json, reported
from .control_devices import device, incident
from .control_orders import Reason, control
from .person import device_names, kw, local, local_short, now_us, person, say, show_table, yes_no

if TYPE_CHECKING:
    from .watch import Board

control.add_command(device)
control.add_command(incident)


@control.command(
    help=tr(
        "Propose whom to cut, from measured power, with reasons (a dry run unless --commit).",
        "按实测功率建议切谁及原因(默认试算, --commit 保存)。",
    )
)
@click.argument("name")
@click.option("--commit", is_flag=True, help=tr("store the proposal", "保存建议"))
@click.option(
    "--with", "named", type=int, multiple=True, metavar="ROW",
    help=tr("an energy row of the plan that is wanted besides", "另加方案中的电量类行"),
)  # fmt: skip
@json_option
@pass_app
@reported
def propose(app: App, name: str, commit: bool, named: tuple[int, ...], as_json: bool) -> None:
    """Exit status 1 if no proposal within the limits exists."""
    from ..control.power import stored_power  # numpy: only here

    with person(app, "command.propose") as (conn, actor):
        found = orders.find(conn, name)
        made = proposals.propose(
            conn, now_us(), actor, found.id, stored_power(conn), app.config.control, commit=commit, named=named
        )
        names = device_names(conn)
    rows_by = {r.row: r for r in made.rows}
    choice = made.choice
    if as_json:
        rows = [
            asdict(r)
            | {
                "customer": rows_by[r.row].customer,
                "device": names[rows_by[r.row].device_id],
                "round": rows_by[r.row].round,
                "kind": rows_by[r.row].kind,
                "limit_kw": made.candidates[r.row].limit_kw,
                "power_kw": made.candidates[r.row].p_now_kw,
            }
            for r in choice.rows
        ]
        print_json(
            {
                "proposal": made.id,
                "order": made.order.number,
                "plan": made.plan.id,
                "gap_kw": made.order.gap_kw,
                "target_kw": choice.target_kw,
                "total_kw": choice.total_kw,
                "feasible": choice.feasible,
                "over": choice.over,
                "binding": choice.binding,
                "rows": rows,
            }
        )
    else:
        head = [
            tr("row", "行"),
            tr("cut", "切"),
            tr("customer", "用户"),
            tr("control", "控制"),
            tr("now kW", "现 kW"),
            tr("cut kW", "切 kW"),
            tr("reason", "原因"),
        ]
        show_table(
            head,
            [
                [
                    str(r.row),
                    "X" if r.chosen else "",
                    rows_by[r.row].customer,
                    _aim(rows_by[r.row].rule, rows_by[r.row].round, made.candidates[r.row].limit_kw),
                    kw(made.candidates[r.row].p_now_kw),
                    kw(r.expected_kw),
                    r.reason,
                ]
                for r in choice.rows
            ],
        )
        click.echo(
            tr(
                f"sum {choice.total_kw:.1f} kW, target {choice.target_kw:.1f} kW",
                f"合计 {choice.total_kw:.1f} kW, 目标 {choice.target_kw:.1f} kW",
            )
        )
        for line in choice.binding:
            click.echo(tr("binding: ", "约束: ") + line)
        stored = tr(f"stored as proposal {made.id}", f"已保存为建议 {made.id}")
        click.echo(stored if made.id else tr("dry run: nothing stored (--commit)", "试算: 未保存(--commit)"))
    if not choice.feasible:
        raise SystemExit(1)


@control.command(
    help=tr("Submit the last stored proposal of an order as commands (first signature).", "提交最近建议为命令(首签)。")
)
@click.argument("name")
@json_option
@pass_app
@reported
def submit(app: App, name: str, as_json: bool) -> None:
    """One command a chosen round; a second person approves each."""
    with person(app, "command.submit") as (conn, actor):
        found = orders.find(conn, name)
        proposal = scalar(conn, "SELECT max(id) FROM proposal WHERE order_id = %s AND feasible", (found.id,))
        if proposal is None:
            raise UsageError(
                tr("no stored proposal: control propose ORDER --commit", "没有已存建议: control propose 指令 --commit")
            )
        made = commands.submit_proposal(conn, now_us(), actor, int(proposal), app.config.control)
        _list(conn, made, as_json)


@control.command(help=tr("Submit a blocked command again.", "重新提交被阻命令。"))
@click.argument("command_id", type=int)
@Reason
@json_option
@pass_app
@reported
def resubmit(app: App, command_id: int, reason: str, as_json: bool) -> None:
    """It needs a new second signature."""
    with person(app, "command.submit") as (conn, actor):
        _list(conn, [commands.resubmit(conn, now_us(), actor, command_id, reason)], as_json)


@control.command(help=tr("Approve submitted commands (second person).", "批准命令(第二人)。"))
@click.argument("name")
@click.option(
    "--digits",
    multiple=True,
    metavar="DEVICE=DDDD",
    help=tr("last four address digits, else asked for", "终端地址后四位, 否则询问"),
)
@click.option(
    "--digits-file", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help=tr("a CSV of device,digits typed by the second person", "第二人填写的 CSV: device,digits"),
)  # fmt: skip
@json_option
@pass_app
@reported
def approve(app: App, name: str, digits: tuple[str, ...], digits_file: Path | None, as_json: bool) -> None:
    """Each terminal is confirmed by the last four digits of its address; --yes does not exist here. All or nothing."""
    typed = dict(d.split("=", 1) for d in digits if "=" in d) | (_digits(digits_file) if digits_file else {})
    with person(app, "command.approve") as (conn, actor):
        found = orders.find(conn, name)
        names = device_names(conn)
        waiting = [c for c in commands.commands(conn, order_id=found.id, live=True) if c.state is State.SUBMITTED]
        if not waiting:
            raise UsageError(tr("nothing waits for approval", "没有待批准命令"))
        for c in waiting:
            device = names[c.device_id]
            if device not in typed:
                what = f"{_aim(c.rule, c.round, c.limit_kw)}{_params(c.params)}"
                target = f"{c.customer}, {device}, {what}, {c.expected_kw:.1f} kW, >= {c.floor_kw:.1f} kW"
                question = tr(
                    f"command {c.id}: {target}; last four digits of the terminal's address",
                    f"命令 {c.id}: {target}; 终端地址后四位",
                )
                typed[device] = click.prompt(question, err=True)
        given = {c.id: typed[names[c.device_id]] for c in waiting}
        _list(conn, commands.approve_many(conn, now_us(), actor, given, app.config.control), as_json)


def _digits(path: Path) -> dict[str, str]:
    """device,digits of a file, with or without that header."""
    rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    wrong = [n for n, row in enumerate(rows, 1) if row and len(row) != 2]
    if wrong:
        raise UsageError(
            tr(f"{path}: row {wrong[0]} is not device,digits", f"{path}: 第 {wrong[0]} 行应为 装置,四位数")
        )
    return {row[0].strip(): row[1].strip() for row in rows if row}


@control.command(help=tr("Reject a submitted command.", "驳回命令。"))
@click.argument("command_id", type=int)
@Reason
@json_option
@pass_app
@reported
def reject(app: App, command_id: int, reason: str, as_json: bool) -> None:
    """By the second person, with a reason."""
    with person(app, "command.reject") as (conn, actor):
        _list(conn, [commands.reject(conn, now_us(), actor, command_id, reason)], as_json)


@control.command(
    help=tr(
        "Ask the daemon to carry out the approved commands of an order, one step at a time.",
        "请求执行已批准命令, 一次一步。",
    )
)
@click.argument("name")
@click.option(
    "--yes", is_flag=True, help=tr("do not ask again (the two signatures stay necessary)", "不再询问(双签不可省)")
)
@json_option
@pass_app
@reported
def execute(app: App, name: str, yes: bool, as_json: bool) -> None:
    """At most step_limit_terminals terminals a step; the daemon evaluates all interlocks again."""
    with person(app, "command.execute") as (conn, actor):
        found = orders.find(conn, name)
        waiting = [c for c in commands.commands(conn, order_id=found.id, live=True) if c.state is State.APPROVED]
        step, devices = list[Command](), set[int]()
        for c in sorted(waiting, key=lambda c: c.position or 0):
            if c.device_id in devices or len(devices) < app.config.control.step_limit_terminals:
                devices.add(c.device_id)
                step.append(c)
        if step and not yes:
            total = sum(c.expected_kw for c in step)
            question = tr(
                f"carry out {len(step)} commands at {len(devices)} terminals, {total:.1f} kW?",
                f"对 {len(devices)} 台终端执行 {len(step)} 条命令, {total:.1f} kW?",
            )
            click.confirm(question, abort=True, err=True)
        _list(conn, commands.execute(conn, now_us(), actor, [c.id for c in step]), as_json)


@control.command(help=tr("Withdraw a command (safe direction: one person).", "撤销命令(安全方向: 一人即可)。"))
@click.argument("command_id", type=int)
@Reason
@json_option
@pass_app
@reported
def cancel(app: App, command_id: int, reason: str, as_json: bool) -> None:
    """With a reason."""
    with person(app, "command.cancel") as (conn, actor):
        _list(conn, [commands.cancel(conn, now_us(), actor, command_id, reason)], as_json)


@control.command(
    help=tr(
        "Override interlock 8, 9 or 11 of a command (dispatcher, then a second person with --second).",
        "解除联锁 8、9、11(调度, 再由第二人 --second)。",
    )
)
@click.argument("command_id", type=int)
@click.option("--interlock", required=True, type=int)
@click.option("--second", is_flag=True)
@Reason
@json_option
@pass_app
@reported
def override(app: App, command_id: int, interlock: int, second: bool, reason: str, as_json: bool) -> None:
    """2, 3, 4, 12, 14 can never be overridden."""
    with person(app, "command.override_second" if second else "command.override") as (conn, actor):
        if second:
            overrides.override_second(conn, now_us(), actor, command_id, interlock, app.config.control)
        else:
            overrides.override(conn, now_us(), actor, command_id, interlock, reason)
    say(
        as_json,
        {"command": command_id, "interlock": interlock, "in_force": second},
        tr("in force", "已解除") if second else tr("waits for the second person", "待第二人"),
    )


@control.command(
    help=tr(
        "Restore what an order cut, in stages; or one command (--danger, --again).",
        "分批恢复; 或单条(--danger, --again)。",
    )
)
@click.argument("name")
@click.option("--margin-kw", type=float, help=tr("spare margin of feeder and area now", "馈线与区域现有裕度"))
@click.option(
    "--danger",
    is_flag=True,
    help=tr("NAME is a command: release it at once, danger to people", "NAME 为命令号: 危及人身立即恢复"),
)
@click.option(
    "--again",
    is_flag=True,
    help=tr("NAME is a command: repeat its unanswered release", "NAME 为命令号: 重发未应答恢复"),
)
@Reason
@json_option
@pass_app
@reported
def release(
    app: App, name: str, margin_kw: float | None, danger: bool, again: bool, reason: str, as_json: bool
) -> None:
    """The daemon sends the frames block by block."""
    if (danger or again) and not name.isdigit():
        raise UsageError(tr("--danger and --again take a command's number", "--danger 与 --again 须给命令号"))
    with person(app, "command.release_danger" if danger else "command.release") as (conn, actor):
        if danger:
            _list(conn, [releases.release_danger(conn, now_us(), actor, int(name), reason)], as_json)
        elif again:
            _list(conn, [releases.repeat_release(conn, now_us(), actor, int(name), reason)], as_json)
        else:
            found = orders.find(conn, name)
            steps = releases.release_order(conn, now_us(), actor, found.id, app.config.control, margin_kw)
            if as_json:
                print_json(
                    [
                        {"command": c.id, "block": s.block, "pickup_kw": s.expected_kw, "reason": s.reason}
                        for c, s in steps
                    ]
                )
            else:
                show_table(
                    [tr("command", "命令"), tr("customer", "用户"), tr("block", "批"), tr("reason", "原因")],
                    [[str(c.id), c.customer, str(s.block or "-"), s.reason] for c, s in steps],
                )


def _aim(kind: Kind, number: int, limit_kw: float | None = None) -> str:
    """What is done to what: `remote trip 1`, `period power control 1 <= 800.0 kW`."""
    text = tr(kind.en, kind.zh) + (f" {number}" if kind.scope is not Scope.DEVICE else "")
    return text + (f" <= {limit_kw:.1f} kW" if kind.effect is Effect.LIMIT and limit_kw is not None else "")


def _params(params: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{k}={v}" for k, v in params.items() if v not in (0, None, ""))
    return f" ({shown})" if shown else ""


def _list(conn: Conn, found: Sequence[Command], as_json: bool) -> None:
    if as_json:
        print_json([asdict(c) for c in found])
        return
    names = device_names(conn)
    head = [
        "id",
        tr("customer", "用户"),
        tr("device", "装置"),
        tr("control", "控制"),
        tr("state", "状态"),
        tr("promised kW", "预期 kW"),
        tr("measured kW", "实测 kW"),
        tr("sent", "发出"),
        tr("ack", "确认"),
        tr("since", "起"),
        tr("ends", "止"),
        tr("attention", "注意"),
    ]
    rows = [
        [
            str(c.id),
            c.customer,
            names[c.device_id],
            _aim(c.rule, c.round, c.limit_kw),
            f"[{COLOURS[c.state]}]{c.state.value}[/]",
            kw(c.expected_kw),
            kw(c.measured_kw),
            yes_no(c.sent),
            yes_no(c.acknowledged),
            local_short(c.sent_at),
            local_short(c.not_after),
            c.attention,
        ]
        for c in found
    ]
    show_table(head, rows)


@control.command(
    help=tr(
        "What is under way: who is cut, by which order, since when, until when, how much.",
        "当前状态: 切了谁、依据、起止、实得多少。",
    )
)
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help=tr("finished commands too", "含已结命令"))
@json_option
@pass_app
@reported
def status(app: App, name: str | None, everything: bool, as_json: bool) -> None:
    """Live commands, of one order or all, with the freeze flag."""
    with person(app) as (conn, _):
        _status(conn, name, everything, as_json)


def _status(conn: Conn, name: str | None, everything: bool, as_json: bool) -> bool:
    order_id = orders.find(conn, name).id if name else None
    found = commands.commands(conn, order_id=order_id, live=not everything)
    stopped = freeze.frozen(conn)
    held = [c for c in commands.held(conn) if order_id in (None, c.order_id)]
    promised = sum(c.expected_kw for c in held)
    proven = sum(c.measured_kw or 0.0 for c in held)
    if as_json:
        print_json(
            {"frozen": stopped, "promised_kw": promised, "measured_kw": proven, "commands": [asdict(c) for c in found]}
        )
        return bool(found)
    if stopped:
        click.echo(tr("CONTROL-FREEZE is on", "总闭锁投入"))
    _list(conn, found, False)
    click.echo(
        tr(
            f"held: {len(held)} rounds, promised {promised:.1f} kW, measured {proven:.1f} kW",
            f"保持: {len(held)} 轮, 预期 {promised:.1f} kW, 实测 {proven:.1f} kW",
        )
    )
    return bool(found)


@control.command(
    help=tr(
        "A full screen of what is under way, with CONTROL-FREEZE on one key; --plain: the status again and again.",
        "全屏监视, 一键总闭锁; --plain: 持续输出状态。",
    )
)
@click.argument("name", required=False)
@click.option("--every", type=click.FloatRange(0.5, 60), default=2.0, show_default=True, help=tr("seconds", "秒"))
@click.option("--plain", is_flag=True, help=tr("lines instead of a screen", "逐行输出"))
@json_option
@pass_app
@reported
def watch(app: App, name: str | None, every: float, plain: bool, as_json: bool) -> None:
    """Lines end when nothing is under way. Watching keeps no session alive; freezing is open to who began to watch."""
    with person(app) as (conn, actor):
        if not (plain or as_json) and sys.stdout.isatty():
            from .watch import WatchApp, read_board  # textual

            order_id = orders.find(conn, name).id if name else None
            lock = threading.Lock()  # one connection: the screen's looks and a freeze take turns

            def read() -> Board:
                with lock:
                    return read_board(conn, now_us(), order_id)

            def stop(reason: str) -> None:
                with lock:
                    freeze.freeze(conn, now_us(), actor, reason)

            WatchApp(read, stop, every).run()
            return
        while True:
            if not as_json:
                click.clear()
            if not _status(conn, name, False, as_json):
                return
            time.sleep(every)


@control.command("freeze", help=tr("CONTROL-FREEZE: on by one person, off by two.", "总闭锁: 一人投入, 两人解除。"))
@click.argument("switch", type=click.Choice(["on", "off"]))
@Reason
@json_option
@pass_app
@reported
def freeze_(app: App, switch: str, reason: str, as_json: bool) -> None:
    """Stops every trip and every ordinary release."""
    with person(app, f"freeze.{switch}") as (conn, actor):
        if switch == "on":
            freeze.freeze(conn, now_us(), actor, reason)
            say(as_json, {"frozen": True}, tr("CONTROL-FREEZE is on", "总闭锁已投入"))
            return
        lifted = freeze.unfreeze(conn, now_us(), actor, reason, app.config.control)
    say(
        as_json,
        {"frozen": not lifted},
        tr("lifted", "已解除")
        if lifted
        else tr("asked; a second person lifts it: control freeze off", "已提出; 第二人执行 control freeze off"),
    )


def _told(state: Mapping[str, Any] | None) -> str:
    """What a state that was read says, without what it does not tell."""
    if state is None:
        return "?"
    shown = {k: v for k, v in state.items() if v is not None and k not in ("time_us", "raw")}
    return ", ".join(f"{k}={v}" for k, v in shown.items()) or "?"


@control.group(help=tr("Single commands.", "单条命令。"))
def cmd() -> None:
    """The group of command verbs."""


@cmd.command(
    "show",
    help=tr(
        "Everything about one command: facts, interlocks, checks, frames.", "单条命令全貌: 事实、联锁、校核、报文。"
    ),
)
@click.argument("command_id", type=int)
@json_option
@pass_app
@reported
def cmd_show(app: App, command_id: int, as_json: bool) -> None:
    """sent, acknowledged, read back and seen in the meter are four facts."""
    with person(app) as (conn, _):
        c = commands.get(conn, command_id)
        signed = conn.execute(
            "SELECT p.signature, a.name, p.at FROM approval p JOIN account a ON a.id = p.account_id "
            "WHERE command_id = %s AND attempt = %s ORDER BY p.at",
            (c.id, c.attempt),
        ).fetchall()
        frames = conn.execute(
            "SELECT time, purpose, direction, hex FROM command_frame WHERE command_id = %s ORDER BY id", (c.id,)
        ).fetchall()
        names = device_names(conn)
    if as_json:
        print_json(
            asdict(c)
            | {
                "device": names[c.device_id],
                "signatures": [list(s) for s in signed],
                "frames": [list(f) for f in frames],
            }
        )
        return
    aim = f"{_aim(c.rule, c.round, c.limit_kw)}{_params(c.params)}"
    click.echo(f"{c.id} {c.state} {c.customer} {names[c.device_id]} {aim}")
    if c.reason:
        click.echo(f"  {tr('reason', '原因')}: {c.reason}")
    for name, value in (
        (tr("sent", "发出"), f"{yes_no(c.sent)} {local(c.sent_at)}"),
        (tr("acknowledged", "确认"), yes_no(c.acknowledged)),
        (tr("read back", "回读"), _told(c.read_back)),
        (tr("seen in the meter", "计量所见"), f"{kw(c.measured_kw)} / {kw(c.expected_kw)} kW"),
        (tr("attention", "注意"), c.attention or "-"),
    ):
        click.echo(f"  {name}: {value}")
    for result in c.set_results:
        told = tr("as wanted", "一致") if result["equal"] else result["fault"] or ", ".join(result["differences"])
        click.echo(f"  {result['item']} p{result['pn']}: {told or tr('not read back', '未回读')}")
    for signature, who, at in signed:
        click.echo(f"  {signature}: {who} {local(at)}")
    show_table(
        ["#", tr("interlock", "联锁"), tr("result", "结果"), tr("text", "说明")],
        [
            [str(i["number"]), i["title"], i["verdict"] + ("*" if i["overridden"] else ""), i["text"]]
            for i in c.interlocks
        ],
    )
    for check in c.checks:
        click.echo(f"  +{check['at_s']:.0f} s: {check['reason']}")
    for at, purpose, direction, text in frames:
        click.echo(f"  {local(at)} {purpose} {direction} {text}")
