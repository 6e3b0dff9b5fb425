"""`fuhe cases`: what the rules have found, and what people do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from typing import Any, Final

import click

from ..analytics.rules.table import Rule, rules
from ..control import audit
from ..control.audit import Entry
from ..model.lang import tr
from ..model.times import from_us
from ..protocols.common.errors import UsageError
from ..storage import cases as book
from ..storage.cases import Case
from .common import App, json_option, pass_app, print_json, reported
from .person import device_names, local, local_short, now_us, person, say, show_table

SEVERITY: Final = {1: "bold red", 2: "bold yellow", 3: "cyan", 4: "grey62"}
KINDS: Final = {
    "state": ("slots, held and cleared", "按时段判定"),
    "day": ("whole days", "按日判定"),
    "event": ("events of devices", "设备事件"),
    "sum": ("sum of evidence", "证据加权"),
    "elsewhere": ("elsewhere", "另行处理"),
    "none": ("no input", "缺少输入"),
}


@click.group()
def cases() -> None:
    """What the rules have found, and what people do about it."""


def _name(rule: str) -> str:
    found = rules().get(rule)
    return rule if found is None else f"{rule} {tr(found.en, found.zh)}"


def _plain(case: Case) -> dict[str, Any]:
    found = rules().get(case.rule)
    return asdict(case) | {"title": tr(found.en, found.zh) if found else case.rule}


@cases.command("list", help=tr("Open cases, the most urgent first.", "未结案例, 紧急者在前。"))
@click.option("--all", "everything", is_flag=True, help=tr("ended ones too", "含已结"))
@click.option("--rule", help=tr("of one rule, e.g. V1", "仅某规则, 如 V1"))
@click.option("--point", help=tr("of one metering point", "仅某计量点"))
@click.option("--limit", type=click.IntRange(1, 100_000), default=200, show_default=True)
@json_option
@pass_app
@reported
def list_(app: App, everything: bool, rule: str | None, point: str | None, limit: int, as_json: bool) -> None:
    """A line a case."""
    if rule is not None and rule not in rules():
        raise UsageError(tr(f"no rule {rule}: fuhe cases rules lists them", f"没有规则 {rule}: 见 fuhe cases rules"))
    with person(app) as (conn, _):
        points = {str(n): int(i) for i, n in conn.execute("SELECT id, name FROM point").fetchall()}
        if point is not None and point not in points:
            raise UsageError(tr(f"no metering point {point}", f"没有计量点 {point}"))
        found = book.cases(
            conn, everything=everything, rule=rule, points=None if point is None else [points[point]], limit=limit
        )
        devices = device_names(conn)
    if as_json:
        print_json([_plain(c) for c in found])
        return
    names = {i: n for n, i in points.items()}
    head = [
        "id",
        tr("sev", "级"),
        tr("rule", "规则"),
        tr("point", "计量点"),
        tr("state", "状态"),
        tr("from", "起"),
        tr("to", "止"),
        tr("over since", "恢复"),
        tr("times", "次"),
        tr("who", "处理人"),
    ]
    rows = [
        [
            str(c.id),
            f"[{SEVERITY[c.severity]}]{c.severity}[/]{'!' * c.escalated}",
            _name(c.rule),
            names.get(c.point or 0, devices[c.device_id]),
            c.state,
            local_short(c.first_at),
            local_short(c.last_at),
            local_short(c.cleared_at),
            str(c.repeats),
            c.assignee,
        ]
        for c in found
    ]
    if rows:
        show_table(head, rows)
    else:
        click.echo(tr("no cases", "没有案例"))


@cases.command(help=tr("One case: evidence and every step.", "案例详情: 证据与每一步。"))
@click.argument("case_id", type=int)
@json_option
@pass_app
@reported
def show(app: App, case_id: int, as_json: bool) -> None:
    """The curve itself: fuhe curve POINT --day DAY; where its numbers come from: fuhe vee explain POINT DAY."""
    with person(app) as (conn, _):
        case = book.get(conn, case_id)
        steps = book.steps(conn, case_id)
        row = conn.execute("SELECT name FROM point WHERE id = %s", (case.point,)).fetchone()
        device = device_names(conn)[case.device_id]
    if as_json:
        print_json(
            _plain(case) | {"steps": [asdict(s) for s in steps], "device": device, "name": row[0] if row else None}
        )
        return
    rule = rules().get(case.rule)
    place = str(row[0]) if row else device
    click.echo(f"#{case.id}  {_name(case.rule)}  {place}  {case.state}")
    if rule is not None:
        click.echo(
            f"  {tr('severity', '级别')} {case.severity}, {tr('told', '告知')} {' '.join(case.told)}: {rule.says}"
        )
    click.echo(
        f"  {local(case.first_at)} – {local(case.last_at)}, {case.repeats} x, "
        + tr(f"to be closed by {local(case.due_at)}", f"限期 {local(case.due_at)}")
    )
    for key, value in case.evidence.items():
        click.echo(f"  {key}: {value}")
    for s in steps:
        click.echo(f"    {local(s.at)}  {s.actor:<10} {s.step}  {s.note}".rstrip())
    if row:
        day = local(case.first_at)[:10]
        click.echo(
            tr(
                f"  curve: fuhe curve {place} --day {day}; numbers: fuhe vee explain {place} {day}",
                f"  曲线: fuhe curve {place} --day {day}; 数据来源: fuhe vee explain {place} {day}",
            )
        )


@cases.command("rules", help=tr("The rules, and what each looks at.", "规则表及其依据。"))
@json_option
@reported
def rules_(as_json: bool) -> None:
    """Rules without an input say what is missing."""
    found: list[Rule] = list(rules().values())
    if as_json:
        print_json([{name: getattr(r, name) for name in Rule.__struct_fields__} for r in found])
        return
    head = [
        "id",
        tr("rule", "规则"),
        tr("sev", "级"),
        tr("by", "方式"),
        tr("hold", "保持"),
        tr("told", "告知"),
        tr("what", "说明"),
    ]
    show_table(
        head,
        [
            [r.id, tr(r.en, r.zh), str(r.severity), tr(*KINDS[r.kind]), str(r.hold), " ".join(r.told), r.says or r.why]
            for r in found
        ],
    )


@cases.command(help=tr("Detection and handling by rule and month.", "各规则按月的准确率与处理率。"))
@click.option("--month", help=tr("YYYY-MM (default: this month)", "YYYY-MM (默认本月)"))
@json_option
@pass_app
@reported
def stats(app: App, month: str | None, as_json: bool) -> None:
    """Accuracy = confirmed / (confirmed + false); handling = closed in time / raised."""
    try:
        first = date.fromisoformat(f"{month}-01") if month else from_us(now_us()).date().replace(day=1)
    except ValueError:
        raise UsageError(tr(f"{month!r} is not a month YYYY-MM", f"{month!r} 不是 YYYY-MM 形式的月份")) from None
    with person(app) as (conn, _):
        found = book.counts(conn, first)
    if as_json:
        print_json([asdict(c) for c in found])
        return

    def share(part: int, whole: int) -> str:
        return f"{part / whole:.1%}" if whole else "–"

    head = [
        tr("rule", "规则"),
        tr("raised", "发现"),
        tr("confirmed", "属实"),
        tr("false", "误报"),
        tr("accuracy", "准确率"),
        tr("closed", "结案"),
        tr("in time", "按期"),
        tr("handling", "处理率"),
        tr("open", "未结"),
    ]
    show_table(
        head,
        [
            [
                _name(c.rule),
                str(c.raised),
                str(c.confirmed),
                str(c.false),
                share(c.confirmed, c.confirmed + c.false),
                str(c.closed),
                str(c.closed_in_time),
                share(c.closed_in_time, c.raised),
                str(c.open),
            ]
            for c in found
        ],
    )


def _step(name: str, help_: str, *, assign: bool = False) -> None:
    def act(app: App, case_id: int, note: str, to: str, as_json: bool) -> None:
        with person(app, "case.handle") as (conn, actor), conn.transaction():
            before = book.get(conn, case_id)
            if name == "note":
                after = book.note(conn, now_us(), actor.name, case_id, note)
            else:
                after = book.move(conn, now_us(), actor.name, case_id, name, note, assignee=to)
            entry = Entry(
                actor=actor,
                action=f"case.{name}",
                object=f"case:{case_id}",
                before={"state": before.state},
                after={"state": after.state, "assignee": after.assignee},
                reason=note,
            )
            audit.append(conn, now_us(), [entry])
        say(as_json, _plain(after), f"#{case_id} {_name(after.rule)}: {after.state}")

    function: Callable[..., None] = act
    function = click.option("--to", default="", help=tr("to whom", "指派给"))(function) if assign else _without_to(act)
    for wrap in (
        reported,
        pass_app,
        json_option,
        click.option("--note", default="", help=tr("what was found or done", "结论或处理")),
        click.argument("case_id", type=int),
        cases.command(name, help=help_),
    ):
        function = wrap(function)


def _without_to(act: Callable[..., None]) -> Callable[..., None]:
    def verb(app: App, case_id: int, note: str, as_json: bool) -> None:
        act(app, case_id, note, "", as_json)

    return verb


_step("ack", tr("Take note of a case: it is real and looked at.", "确认已知悉。"))
_step("confirm", tr("It is what the rule says.", "属实。"))
_step("false", tr("It is not (with what it was).", "误报(须写原因)。"))
_step("assign", tr("Give it to somebody.", "指派。"), assign=True)
_step("on-site", tr("Somebody is there.", "到达现场。"))
_step("repaired", tr("It has been repaired.", "已修复。"))
_step("verify", tr("The data show that it is over.", "数据验证恢复。"))
_step("note", tr("A remark.", "备注。"))
_step("close", tr("Close it with the finding.", "结案(须写结论)。"))
