"""`fuhe vee`: why a value is what it is, edits by people, days judged again."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import click

from ..model.lang import tr
from ..model.times import business_day
from ..protocols.common.errors import UsageError
from .common import App, json_option, pass_app, print_json, reported
from .curve import DayType
from .person import desk, now_us, person, show_table

if TYPE_CHECKING:
    from ..control.records import Conn
    from ..control.vee_edits import Edit
    from ..daemon.vee_explain import Explanation
    from ..model.devices import Point

COLOURS = {"A": "green", "S": "yellow", "X": "red", "M": "red", "U": "magenta", "O": "cyan"}
DAY = DayType()


@click.group()
def vee() -> None:
    """Validation, estimation, editing: explain, edit, approve, refuse, edits, recompute."""


def _point(conn: Conn, name: str) -> Point:
    from .curve_data import choose_points

    found = choose_points(conn, name)
    if len(found) != 1:
        raise UsageError(tr("name one metering point", "请指定一个计量点"))
    return found[0]


def _today() -> date:
    return business_day(now_us())


def _over(day: date) -> None:
    from ..daemon.vee import last_closed

    if day > last_closed(now_us()):
        raise UsageError(tr(f"{day} is not over yet: days are judged once they are", f"{day} 尚未结束: 日终后才校验"))


# ---------------------------------------------------------------------- explain


@vee.command(
    "explain",
    help=tr("Every slot of a day: raw, checks, estimation, versions.", "逐点说明: 原始值、校验、估算、版本。"),
)
@click.argument("point")
@click.argument("day", type=DAY)
@click.option("--quantity", "name", default="load_power", show_default=True)
@click.option("--all", "everything", is_flag=True, help=tr("plain readings too", "含无异常的点"))
@json_option
@pass_app
@reported
def explain_verb(app: App, point: str, day: date, name: str, everything: bool, as_json: bool) -> None:
    """Explain one day of one point."""
    from ..control.vee_edits import named
    from ..daemon.vee_explain import explain
    from ..daemon.vee_facts import ArchiveBook

    what = named(name)
    with desk(app) as conn:
        found = explain(conn, ArchiveBook(), _point(conn, point), day, what, _today())
    if as_json:
        print_json({**asdict(found), "quantity": what.name, "unit": what.unit})
        return
    _drawn(found)
    _told(found, everything)


def _drawn(found: Explanation) -> None:
    """The final curve: measured as lines, estimates dashed, each quality in its colour."""
    import numpy as np

    from ..analytics.draw import Trace, terminal_curve

    value = np.array([np.nan if s["final"] is None else s["final"] for s in found.slots])
    letters = np.array([s["quality"] for s in found.slots])
    hours = np.arange(1, len(value) + 1) * 24.0 / len(value)
    guessed = np.array([letter.startswith("E") for letter in letters])
    title = f"{found.point}  {tr(found.quantity.name, found.quantity.zh)}  {found.day}"
    trace = Trace(label=str(found.day), hour=hours, value=value, estimated=guessed)
    text = terminal_curve([trace], title=title, unit=found.quantity.unit, colour=sys.stdout.isatty())
    click.echo(text or tr(f"{title}: no values\n", f"{title}: 无数据\n"), nl=False)
    strip = "".join(
        click.style(letter[-1] if letter.startswith("E") else letter, fg=COLOURS.get(letter, "blue"))
        for letter in letters
    )
    click.echo(tr("quality ", "质量 ") + strip)
    click.echo(
        tr(
            "A actual  S suspect  X rejected  M missing  1-5 estimated (EST1-EST5)  U edited  O outage",
            "A 实测  S 存疑  X 拒绝  M 缺失  1-5 估算 (EST1-EST5)  U 编辑  O 停电",
        )
    )


def _told(found: Explanation, everything: bool) -> None:
    rows = []
    for s in found.slots:
        plain = s["quality"] == "A" and not s["checks"] and not s["how"]
        if plain and not everything:
            continue
        checks = "; ".join(
            f"{c['check']} {_show(c['value'])} > {_show(c['limit'])} {c['unit']} {c['text']}".replace(
                "– > –", ""
            ).strip()
            for c in s["checks"]
        )
        rows.append(
            [
                s["interval_end"][11:16],
                _show(s["raw"]),
                s["checked"],
                checks,
                _show(s["final"]),
                s["quality"],
                _how(s["how"]),
            ]
        )
    head = [
        tr("until", "时刻"),
        tr("raw", "原始"),
        "Q",
        tr("checks", "校验"),
        tr("final", "最终"),
        "Q",
        tr("how", "来源"),
    ]
    if rows:
        show_table(head, rows)
    else:
        click.echo(tr("every slot is a plain reading", "所有点均为正常读数"))
    if found.versions:
        show_table(
            [
                tr("version", "版本"), tr("made", "时间"), tr("because of", "原因"), "S", "X", "M", "E", "U", "kWh",
                tr("registers kWh", "示数 kWh"),
            ],
            [
                [
                    str(v["version"]), v["made"][:19], ", ".join(v["why"]), str(v["suspect"]), str(v["rejected"]),
                    str(v["missing"]), str(v["estimated"]), str(v["edited"]), _show(v["net_kwh"]),
                    _show(v["import_kwh"]),
                ]
                for v in found.versions
            ],
        )  # fmt: skip
    else:
        click.echo(tr("not judged yet: this is what a judgement now would say", "尚未校验: 以上为即时校验结果"))
    if found.waiting:
        click.echo(tr("the day waits to be judged again", "该日等待重新校验"))
    if found.person:
        click.echo(
            tr(
                f"{found.person} slots are in a gap of over seven days: a person decides (fuhe vee edit … --estimate)",
                f"{found.person} 点处于超过七天的缺口: 须人工决定 (fuhe vee edit … --estimate)",
            )
        )
    if found.basis:
        click.echo(
            tr(
                f"raw: {found.basis}, newest part received {found.received or '?'}",
                f"原始: {found.basis}, 最新接收 {found.received or '?'}",
            )
        )


def _show(value: Any) -> str:
    return "–" if value is None else f"{value:,.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _how(how: dict[str, Any]) -> str:
    words = []
    if "edit" in how:
        e = how["edit"]
        words.append(
            tr(
                f"edit {e['edit']} by {e['drafted_by']}: {e['reason']}",
                f"编辑 {e['edit']} {e['drafted_by']}: {e['reason']}",
            )
        )
    method = how.get("method")
    if method == "EST2":
        sides = [
            f"{how[s]['interval_end'][11:16]} {_show(how[s]['kw'])}" if how[s] else tr("next day", "邻日")
            for s in ("left", "right")
        ]
        words.append("EST2 " + " — ".join(sides))
    elif method == "EST3":
        words.append("EST3 " + ", ".join(f"{d[5:]} {_show(v)}" for d, v in how["days"].items()))
    elif method == "EST5":
        r = how["registers"]
        if r:
            words.append(f"EST5 ({_show(r['end'])} − {_show(r['start'])}) × {_show(r['k'])} = {_show(r['kwh'])} kWh, "
                         + tr(f"left {_show(r['left_kwh'])}", f"余 {_show(r['left_kwh'])}"))  # fmt: skip
        else:
            words.append("EST5 " + tr("registers of the days beside", "邻日示数"))
    elif method == "EST1":
        words.append("EST1 " + ", ".join(how["from"]))
    elif method == "person":
        words.append(tr("more than seven days", "超过七天"))
    elif method == "O":
        words.append(tr("confirmed outage", "确认停电"))
    return "; ".join(words)


# ---------------------------------------------------------------------- edits


def _slot(text: str, option: str, *, end: bool) -> int:
    hours, colon, minutes = text.partition(":")
    if not colon or not hours.isdigit() or not minutes.isdigit() or int(minutes) % 15 or int(minutes) > 45:
        raise UsageError(
            tr(f"{option}: write HH:MM on a quarter of an hour, not {text!r}", f"{option}: 应为整刻钟 HH:MM")
        )
    slot = int(hours) * 4 + int(minutes) // 15
    if not 0 <= slot <= 96 or (slot == 96 and not end):
        raise UsageError(tr(f"{option}: {text} is outside the day", f"{option}: {text} 超出当日"))
    return slot


@vee.command("edit", help=tr("Propose an edit of a span; shown before and after.", "提出某时段编辑, 显示前后值。"))
@click.argument("point")
@click.argument("day", type=DAY)
@click.option("--from", "begin", required=True, help="HH:MM")
@click.option("--to", "end", required=True, help="HH:MM (24:00)")
@click.option("--quantity", "name", default="load_power", show_default=True)
@click.option(
    "--value", type=float, help=tr("kW primary for the load, else secondary", "负荷为一次侧 kW, 其余为二次侧")
)
@click.option(
    "--estimate",
    "method",
    type=click.Choice(["check", "like"]),
    help=tr("other measurement or like days", "其他测量或同类日"),
)
@click.option("--reject", is_flag=True)
@click.option("--accept", is_flag=True)
@click.option("--reason", default="")
@json_option
@pass_app
@reported
def edit_verb(
    app: App, point: str, day: date, begin: str, end: str, name: str, value: float | None, method: str | None,
    reject: bool, accept: bool, reason: str, as_json: bool,
) -> None:  # fmt: skip
    """Propose an edit."""
    from ..control import vee_edits
    from ..daemon.vee_facts import ArchiveBook
    from ..daemon.vee_judge import preview

    chosen = [
        n
        for n, given in (
            ("value", value is not None),
            ("estimate", method is not None),
            ("reject", reject),
            ("accept", accept),
        )
        if given
    ]
    if len(chosen) != 1:
        raise UsageError(
            tr(
                "exactly one of --value, --estimate, --reject, --accept",
                "--value、--estimate、--reject、--accept 恰选其一",
            )
        )
    what = vee_edits.named(name)
    first, last = _slot(begin, "--from", end=False), _slot(end, "--to", end=True)
    vee_edits.check(what, first, last, chosen[0])
    _over(day)
    with person(app, "vee.edit") as (conn, actor):
        where = _point(conn, point)
        edit = {
            "point": where.id, "day": day, "quantity": what.id, "first": first, "last": last, "action": chosen[0],
            "value": value, "method": None if method is None else int(vee_edits.METHODS[method]), "reason": reason,
        }  # fmt: skip
        before, after = preview(conn, ArchiveBook(), edit, what.name, _today())
        made = vee_edits.propose(conn, now_us(), actor, edit, before=before, after=after)
        if made.state == "approved":
            _apply(app, conn, made)
    if as_json:
        print_json(asdict(made))
        return
    _shown(made, what.unit)


def _shown(made: Edit, unit: str) -> None:
    rows = [
        [f"{(made.first + i + 1) // 4:02d}:{(made.first + i + 1) % 4 * 15:02d}", _show(b), qb, _show(a), qa]
        for i, (b, qb, a, qa) in enumerate(
            zip(
                made.before_["value"],
                made.before_["quality"],
                made.after_["value"],
                made.after_["quality"],
                strict=True,
            )
        )
    ]
    show_table(
        [tr("until", "时刻"), tr(f"before {unit}", f"前 {unit}"), "Q", tr(f"after {unit}", f"后 {unit}"), "Q"], rows
    )
    if made.state == "proposed":
        click.echo(
            tr(
                f"edit {made.id} waits for a second person: fuhe vee approve {made.id}",
                f"编辑 {made.id} 待第二人批准: fuhe vee approve {made.id}",
            )
        )
    else:
        click.echo(tr(f"edit {made.id}: {made.state}", f"编辑 {made.id}: {made.state}"))


def _apply(app: App, conn: Conn, made: Edit) -> None:
    """A new version at once; the daemon would do the same within seconds."""
    from ..daemon.vee_facts import ArchiveBook
    from ..daemon.vee_judge import Judge
    from ..storage.dirty import take_day

    ticket, dirty = take_day(conn, made.point, made.day)
    if dirty:
        timescale = conn.execute("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'").fetchone() is not None
        judge = Judge(ArchiveBook(), timescale=timescale, retention_days=app.config.storage.raw_retention_days)
        judge.chunk(conn, ticket, dirty, _today())


@vee.command("approve", help=tr("Approve a proposed edit (second person).", "批准编辑 (第二人)。"))
@click.argument("number", type=int)
@click.option("--reason", default="")
@json_option
@pass_app
@reported
def approve_verb(app: App, number: int, reason: str, as_json: bool) -> None:
    """Approve: it is in force from now on."""
    from ..control import vee_edits
    from ..model.quantities import by_id

    with person(app, "vee.approve") as (conn, actor):
        made = vee_edits.approve(conn, now_us(), actor, number, reason)
        _apply(app, conn, made)
    if as_json:
        print_json(asdict(made))
    else:
        _shown(made, by_id()[made.quantity].unit)


@vee.command("refuse", help=tr("Refuse or take back a proposed edit.", "否决或撤回编辑。"))
@click.argument("number", type=int)
@click.option("--reason", default="")
@json_option
@pass_app
@reported
def refuse_verb(app: App, number: int, reason: str, as_json: bool) -> None:
    """Refuse: nothing changes."""
    from ..control import vee_edits

    with person(app, "vee.approve") as (conn, actor):
        made = vee_edits.refuse(conn, now_us(), actor, number, reason)
    if as_json:
        print_json(asdict(made))
    else:
        click.echo(tr(f"edit {made.id}: refused", f"编辑 {made.id}: 已否决"))


@vee.command("edits", help=tr("Edits that wait, or all.", "待批或全部编辑。"))
@click.option("--all", "everything", is_flag=True)
@json_option
@pass_app
@reported
def edits_verb(app: App, everything: bool, as_json: bool) -> None:
    """List edits."""
    from ..control import vee_edits
    from ..model.quantities import by_id

    with desk(app) as conn:
        found = vee_edits.edits(conn, everything=everything)
        names = dict(conn.execute("SELECT id, name FROM point").fetchall())
    if as_json:
        print_json([asdict(e) for e in found])
        return
    head = [
        "#",
        tr("point", "计量点"),
        tr("day", "日期"),
        tr("quantity", "数据项"),
        tr("slots", "点"),
        tr("action", "操作"),
        tr("state", "状态"),
        tr("by", "提出"),
        tr("reason", "原因"),
    ]
    show_table(
        head,
        [
            [
                str(e.id),
                str(names.get(e.point, e.point)),
                str(e.day),
                by_id()[e.quantity].name,
                f"{e.first}–{e.last}",
                e.action,
                e.state,
                e.drafted_by,
                e.reason,
            ]
            for e in found
        ],
    )


@vee.command("recompute", help=tr("Have days judged again.", "重新校验若干日。"))
@click.argument("point")
@click.option("--from", "first", type=DAY, required=True)
@click.option("--to", "last", type=DAY)
@json_option
@pass_app
@reported
def recompute_verb(app: App, point: str, first: date, last: date | None, as_json: bool) -> None:
    """Mark days; the running daemon judges them. POINT `all`: every measuring point."""
    from ..storage.dirty import Why, mark
    from .curve_data import choose_points

    end = last or first
    if end < first:
        raise UsageError(tr("--to lies before --from", "--to 早于 --from"))
    _over(end)
    with desk(app) as conn:
        points = choose_points(conn, point)
        days = [(p.id, first + timedelta(days=i)) for p in points for i in range((end - first).days + 1)]
        with conn.transaction():
            mark(conn, days, Why.HAND)
    if as_json:
        print_json({"marked": len(days), "at": time.time()})
    else:
        click.echo(tr(f"{len(days)} days of points wait to be judged", f"{len(days)} 个点日等待校验"))
