"""`fuhe control plan|round|order`: what stands before every command. The group `control` itself is defined here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ..control import orders, plans, rounds
from ..control.evaluation import archive
from ..control.sheet import parse_instant
from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .common import App, json_option, pass_app, print_json, reported
from .person import device_names, kw, local, now_us, person, say, show_table, yes_no

Reason = click.option("--reason", default="", help=tr("why (recorded)", "原因(入审计)"))
File = click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))


@click.group(
    help=tr(
        "Orderly power use: plan, order, propose, approve, execute, release.",
        "有序用电: 方案、指令、建议、批准、执行、恢复。",
    )
)
def control() -> None:
    """The group of control verbs."""


# -- plan -------------------------------------------------------------------------------------------------------------


@control.group(help=tr("Plans (CSV).", "方案(CSV)。"))
def plan() -> None:
    """The group of plan verbs."""


@plan.command("import", help=tr("Import a plan file as a new version (draft).", "导入方案文件为新版本(草稿)。"))
@File
@click.option("--name", required=True)
@click.option("--area", required=True)
@click.option("--body", required=True, help=tr("approving body", "批准机关"))
@click.option("--document", required=True, help=tr("document number", "文号"))
@click.option("--valid-from", required=True)
@click.option("--valid-to", required=True)
@click.option("--target-kw", required=True, type=float, help=tr("kW to be reduced at level I", "I 级目标 kW"))
@json_option
@pass_app
@reported
def plan_import(
    app: App,
    path: Path,
    as_json: bool,
    name: str,
    area: str,
    body: str,
    document: str,
    valid_from: str,
    valid_to: str,
    target_kw: float,
) -> None:
    """All faults are named, and then nothing is stored."""
    header = plans.Header(
        name=name,
        area=area,
        body=body,
        document=document,
        valid_from=parse_instant(valid_from),
        valid_to=parse_instant(valid_to),
        target_kw=target_kw,
    )
    with person(app, "plan.import") as (conn, actor):
        made = plans.import_plan(conn, now_us(), actor, path.read_bytes(), header)
    say(
        as_json,
        asdict(made),
        tr(
            f"plan {made.id}: {name} version {made.version}, draft",
            f"方案 {made.id}: {name} 第 {made.version} 版, 草稿",
        ),
    )


@plan.command("list", help=tr("All versions.", "列出方案。"))
@json_option
@pass_app
@reported
def plan_list(app: App, as_json: bool) -> None:
    """Newest first."""
    with person(app) as (conn, _):
        found = plans.plans(conn)
    if as_json:
        print_json([asdict(p) for p in found])
        return
    head = [
        "id",
        tr("name", "名称"),
        tr("version", "版本"),
        tr("area", "区域"),
        tr("status", "状态"),
        tr("valid to", "有效至"),
    ]
    show_table(head, [[str(p.id), p.name, str(p.version), p.area, p.status, local(p.valid_to)] for p in found])


@plan.command("show", help=tr("Rows of a version.", "查看方案各行。"))
@click.argument("plan_id", type=int)
@json_option
@pass_app
@reported
def plan_show(app: App, plan_id: int, as_json: bool) -> None:
    """Header and rows."""
    with person(app) as (conn, _):
        header, rows = plans.plan(conn, plan_id), plans.plan_rows(conn, plan_id)
    if as_json:
        print_json({"plan": asdict(header), "rows": [asdict(r) for r in rows]})
        return
    head = [
        tr("row", "行"),
        tr("seq", "序位"),
        tr("measure", "措施"),
        tr("level", "等级"),
        tr("customer", "用户"),
        tr("control", "控制"),
        tr("round", "轮次"),
        "kW",
        tr("security kW", "保安 kW"),
        tr("class", "类"),
    ]
    show_table(
        head,
        [
            [
                str(r.row),
                str(r.seq),
                r.measure,
                r.level,
                r.customer,
                tr(r.rule.en, r.rule.zh),
                str(r.round),
                kw(r.reducible_kw),
                kw(r.security_kw),
                r.class_,
            ]
            for r in rows
        ],
        f"{header.name} v{header.version} {header.status}",
    )


@plan.command("check", help=tr("Every reason against approving.", "检查方案, 列出全部问题。"))
@click.argument("plan_id", type=int)
@json_option
@pass_app
@reported
def plan_check(app: App, plan_id: int, as_json: bool) -> None:
    """Exit status 1 if the plan is not fit."""
    with person(app) as (conn, _):
        rows, now = plans.plan_rows(conn, plan_id), now_us()
        found = plans.check_plan(
            plans.plan(conn, plan_id),
            rows,
            now_us=now,
            max_test_days=app.config.control.live_test_max_days,
            archived=plans.plan_safety(conn, now, rows),
        )
    say(as_json, {"fit": not found, "faults": found}, "\n".join(found) or tr("fit", "合格"))
    if found:
        raise SystemExit(1)


def _plan_step(step: str, help_: str) -> None:
    @plan.command(step, help=help_)
    @click.argument("plan_id", type=int)
    @json_option
    @pass_app
    @reported
    def verb(app: App, plan_id: int, as_json: bool) -> None:
        with person(app, f"plan.{step}") as (conn, actor):
            made = plans.advance_plan(
                conn, now_us(), actor, plan_id, step, max_test_days=app.config.control.live_test_max_days
            )
        say(as_json, asdict(made), tr(f"plan {plan_id} is {made.status}", f"方案 {plan_id} 为 {made.status}"))


_plan_step("review", tr("Review (another person than the drafter).", "审核(非起草人)。"))
_plan_step("approve", tr("Approve (leading group, a third person).", "批准(领导小组, 第三人)。"))
_plan_step("activate", tr("Put into force (dispatcher).", "生效(调度)。"))


# -- rounds -----------------------------------------------------------------------------------------------------------


@control.group("round", help=tr("Rounds: trip relays and their loads.", "轮次: 跳闸继电器及其负荷。"))
def round_() -> None:
    """The group of round verbs."""


@round_.command("import", help=tr("Import a rounds file (CSV).", "导入轮次文件(CSV)。"))
@File
@json_option
@pass_app
@reported
def round_import(app: App, path: Path, as_json: bool) -> None:
    """All or nothing."""
    with person(app, "round.import") as (conn, actor):
        count = rounds.import_rounds(conn, now_us(), actor, path.read_bytes())
    say(as_json, {"rounds": count}, tr(f"{count} rounds", f"{count} 个轮次"))


@round_.command("list", help=tr("All rounds.", "列出轮次。"))
@json_option
@pass_app
@reported
def round_list(app: App, as_json: bool) -> None:
    """With typical and measured load and tags."""
    with person(app) as (conn, _):
        found, names = rounds.rounds(conn), device_names(conn)
    if as_json:
        print_json([asdict(r) | {"device": names[r.device_id]} for r in found])
        return
    head = [
        tr("device", "装置"),
        tr("round", "轮次"),
        tr("description", "说明"),
        tr("typical kW", "典型 kW"),
        tr("measured kW", "实测 kW"),
        tr("tested", "试验"),
        tr("tag", "挂牌"),
    ]
    rows = [
        [
            names[r.device_id],
            str(r.round),
            r.description,
            kw(r.typical_kw),
            kw(r.last_measured_kw),
            local(r.last_test_at)[:10],
            r.tag,
        ]
        for r in found
    ]
    show_table(head, rows)


@round_.command("tag", help=tr("Hang or take off a tag (people at work, maintenance).", "挂牌或摘牌。"))
@click.argument("device")
@click.argument("number", type=int)
@click.option("--tag", default="", help=tr("text; empty takes it off", "文字; 空为摘牌"))
@Reason
@json_option
@pass_app
@reported
def round_tag(app: App, device: str, number: int, tag: str, reason: str, as_json: bool) -> None:
    """A tagged round is never operated."""
    with person(app, "round.tag") as (conn, actor):
        ids = rounds.device_ids(conn)
        if device not in ids:
            raise UsageError(tr(f"no device {device!r}", f"没有装置 {device!r}"))
        rounds.set_tag(conn, now_us(), actor, ids[device], number, tag, reason)
    say(as_json, {"device": device, "round": number, "tag": tag}, tr("done", "完成"))


# -- order ------------------------------------------------------------------------------------------------------------


@control.group(help=tr("Orders of the authority.", "上级指令。"))
def order() -> None:
    """The group of order verbs."""


@order.command(help=tr("Write down a received order.", "登记接收的指令。"))
@click.option("--number", required=True)
@click.option("--issuer", required=True)
@click.option("--area", required=True)
@click.option("--level", required=True, type=click.Choice(list(plans.LEVELS)))
@click.option("--gap-kw", required=True, type=float)
@click.option("--start", required=True)
@click.option("--end", required=True)
@click.option("--text", default="")
@json_option
@pass_app
@reported
def receive(
    app: App,
    number: str,
    issuer: str,
    area: str,
    level: str,
    gap_kw: float,
    start: str,
    end: str,
    text: str,
    as_json: bool,
) -> None:
    """Everything but the text is mandatory."""
    received = orders.Received(
        number=number,
        issuer=issuer,
        area=area,
        level=level,
        gap_kw=gap_kw,
        start_at=parse_instant(start),
        end_at=parse_instant(end),
        text=text,
    )
    with person(app, "order.receive") as (conn, actor):
        made = orders.receive(conn, now_us(), actor, received)
    say(
        as_json,
        asdict(made),
        tr(
            f"order {number} received; a second person repeats it back: control order confirm",
            f"指令 {number} 已登记; 须第二人复诵: control order confirm",
        ),
    )


@order.command(help=tr("Repeat an order back (second person).", "复诵确认(第二人)。"))
@click.argument("name")
@click.option("--number", prompt=tr("number", "编号"))
@click.option("--gap-kw", prompt=tr("gap in kW", "缺口 kW"), type=float)
@click.option("--end", prompt=tr("end", "结束时间"))
@json_option
@pass_app
@reported
def confirm(app: App, name: str, number: str, gap_kw: float, end: str, as_json: bool) -> None:
    """Number, kW and end are said again and compared."""
    with person(app, "order.confirm") as (conn, actor):
        found = orders.find(conn, name)
        made = orders.confirm(conn, now_us(), actor, found.id, number=number, gap_kw=gap_kw, end_at=parse_instant(end))
    say(as_json, asdict(made), tr(f"order {made.number} confirmed", f"指令 {made.number} 已复诵确认"))


@order.command(help=tr("Record that the customers of an order were told.", "登记已通知用户。"))
@click.argument("name")
@click.option("--channel", default="phone", show_default=True)
@click.option("--customer", "only", multiple=True, help=tr("only these customers", "仅这些用户"))
@click.option("--not-reached", is_flag=True, help=tr("tried, not reached", "尝试未果"))
@click.option("--note", default="")
@json_option
@pass_app
@reported
def notice(
    app: App, name: str, channel: str, only: tuple[str, ...], not_reached: bool, note: str, as_json: bool
) -> None:
    """Customers of the order's commands, with the contacts of the plan."""
    with person(app, "order.notice") as (conn, actor):
        found = orders.find(conn, name)
        rows = conn.execute(
            "SELECT DISTINCT c.customer, r.contact FROM command c JOIN plan_row r ON (r.plan_id, r.row) = (c.plan_id, "
            "c.plan_row) WHERE c.order_id = %s ORDER BY 1",
            (found.id,),
        ).fetchall()
        told = [(str(c), str(contact)) for c, contact in rows if not only or c in only]
        count = orders.give_notice(
            conn, now_us(), actor, found.id, told, channel=channel, note=note, given=not not_reached
        )
    say(as_json, {"notices": count}, tr(f"{count} notices recorded", f"已登记 {count} 条通知"))


@order.command("told", help=tr("Which customers of an order were told, and what was tried.", "指令用户的通知情况。"))
@click.argument("name")
@json_option
@pass_app
@reported
def told(app: App, name: str, as_json: bool) -> None:
    """Those who were not told come first; nobody of them is cut (interlock 8)."""
    with person(app) as (conn, _):
        found = orders.told(conn, orders.find(conn, name).id)
    if as_json:
        print_json([asdict(t) for t in found])
        return
    nothing = tr("nothing tried", "未尝试")
    head = [tr("customer", "用户"), tr("told", "已通知"), tr("tried", "尝试")]
    show_table(head, [[t.customer, yes_no(t.told), "; ".join(t.tries) or nothing] for t in found])


def _order_step(verb_name: str, permission: str, help_: str) -> None:
    @order.command(verb_name, help=help_)
    @click.argument("name")
    @Reason
    @json_option
    @pass_app
    @reported
    def verb(app: App, name: str, reason: str, as_json: bool) -> None:
        with person(app, permission) as (conn, actor):
            found = orders.find(conn, name)
            if verb_name == "activate":
                made = orders.activate(conn, now_us(), actor, found.id)
            elif verb_name == "end":
                made = orders.end(conn, now_us(), actor, found.id)
            elif verb_name == "archive":
                made = archive(conn, now_us(), actor, found.id)
            else:
                made = orders.cancel(conn, now_us(), actor, found.id, reason)
        say(as_json, asdict(made), tr(f"order {made.number} is {made.state}", f"指令 {made.number} 为 {made.state}"))


_order_step("activate", "order.activate", tr("Put the level in force (dispatcher).", "等级生效(调度)。"))
_order_step("archive", "order.evaluate", tr("Archive an evaluated order.", "归档已评价的指令。"))
_order_step("end", "order.end", tr("End an order whose commands are all closed.", "结束指令(命令须全部关闭)。"))
_order_step("cancel", "order.end", tr("Withdraw an order that is not active.", "撤销未生效指令。"))


@order.command("status", help=tr("Orders and where they stand.", "指令状态。"))
@click.argument("name", required=False)
@json_option
@pass_app
@reported
def order_status(app: App, name: str | None, as_json: bool) -> None:
    """One order or all."""
    with person(app) as (conn, _):
        found = [orders.find(conn, name)] if name else orders.orders(conn)
    if as_json:
        print_json([asdict(o) for o in found])
        return
    head = [
        "id",
        tr("number", "编号"),
        tr("state", "状态"),
        tr("level", "等级"),
        "kW",
        tr("start", "开始"),
        tr("end", "结束"),
        tr("attention", "注意"),
    ]
    show_table(
        head,
        [
            [str(o.id), o.number, o.state, o.level, kw(o.gap_kw), local(o.start_at), local(o.end_at), o.attention]
            for o in found
        ],
    )
