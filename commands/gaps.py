"""`fuhe gaps`: what is missing on a day and its recall, the day's indicators, and registered exemptions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from ..model.lang import tr
from ..model.times import BUSINESS_ZONE, business_day, day_start_us, from_us, to_us
from ..protocols.common.errors import UsageError
from ..storage.exemptions import KINDS
from .asking import day_of, print_table, profiles_of, time_text
from .common import App, json_option, pass_app, print_json, reported

if TYPE_CHECKING:
    from ..acquisition.io.ledgerstore import DatabaseLedger
    from ..acquisition.recall import Hole, Recaller, RecallRow
    from ..model.devices import Device
    from ..storage.exemptions import StoredExemption

ALL = 10_000_000


@click.group(
    help=tr(
        "What is missing on a day, its recall, the indicators; exemptions.", "某日缺数及补召、采集指标、豁免登记。"
    ),
    invoke_without_command=True,
)
@click.option("--day", "text", help=tr("business day YYYY-MM-DD (default: yesterday)", "日期 (默认昨天)"))
@click.option("--kpi", is_flag=True, help=tr("the day's indicators instead of its holes", "显示当日的采集指标"))
@click.option("--points", is_flag=True, help=tr("with --kpi: of each metering point", "与 --kpi 同用: 逐计量点"))
@click.option("--live", is_flag=True, help=tr("holes of live values too", "包括实时值的缺数"))
@json_option
@click.pass_context
@reported
def gaps(context: click.Context, text: str | None, kpi: bool, points: bool, live: bool, as_json: bool) -> None:
    """Holes of one business day with the state of their recall items, and the day's completeness."""
    if context.invoked_subcommand is not None:
        return
    app = context.find_object(App) or App()
    now_us = to_us(datetime.now(UTC))
    day = day_of(text) if text else business_day(now_us) - timedelta(days=1)
    if points and not kpi:
        raise UsageError(tr("--points goes with --kpi", "--points 须与 --kpi 同用"))
    if kpi:
        _kpi(app, day, now_us, points, as_json)
    else:
        _holes(app, day, now_us, live, as_json)


def _ledger(app: App, connection: Any, *, listed: bool = False) -> tuple[list[Device], DatabaseLedger, Recaller]:
    """`listed`: nothing is due before a device was in the list."""
    from ..acquisition.indicators import in_service
    from ..acquisition.io.ledgerstore import DatabaseLedger
    from ..acquisition.ledger import tracks
    from ..acquisition.recall import Recaller
    from ..storage.devices import load_devices
    from ..storage.terminals import imported_us

    devices = load_devices(connection, enabled_only=True)
    store = DatabaseLedger(connection)
    cycles = app.config.cycles
    rows = tracks(devices, profiles_of(app), cycles)
    if listed:
        rows = in_service(rows, imported_us(connection, [d.id for d in devices]))
    return devices, store, Recaller(rows, store, store, cycles, store.exemptions(devices))


def _holes(app: App, day: date, now_us: int, live: bool, as_json: bool) -> None:
    from ..acquisition.io.ledgerstore import to_row
    from ..storage.database import Database
    from ..storage.recall import list_recalls

    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        devices, _, recaller = _ledger(app, connection)
        holes = list(recaller.holes(day, now_us, live=live))
        numbers = sorted({h.track.device for h in holes})
        items = [to_row(i) for i in list_recalls(connection, devices=numbers, limit=ALL)] if numbers else []
        counted = recaller.totals(day, now_us)
    by_device: dict[int, list[RecallRow]] = {}
    for item in items:
        by_device.setdefault(item.device, []).append(item)
    names = {p.id: (d.name, p.name) for d in devices for p in d.points}
    rows = [_hole(h, names[h.track.point], by_device.get(h.track.device, [])) for h in holes]
    if as_json:
        print_json({"day": day, "holes": rows, "totals": counted})
        return
    if rows:
        head = [
            tr("device", "设备"), tr("point", "计量点"), tr("data", "数据"), tr("from", "从"), tr("to", "至"),
            tr("slots", "点数"), tr("recall", "补召"), tr("attempts", "次数"), tr("next try", "下次"),
        ]  # fmt: skip
        print_table(
            head,
            [[r["device"], r["point"], r["data"], r["first"], r["last"], str(r["slots"]), r["recall"],
              str(r["attempts"]), time_text(r["next_us"])] for r in rows],
        )  # fmt: skip
    for duty, (got, due) in counted.items():
        share = f"{got / due:.2%}" if due else "-"
        click.echo(f"{day} {duty}: {got}/{due} {share}")


def _hole(hole: Hole, names: tuple[str, str], items: list[RecallRow]) -> dict[str, Any]:
    track = hole.track
    covering = [
        i
        for i in items
        if i.duty == track.duty
        and i.from_us <= hole.from_us
        and hole.to_us <= i.to_us
        and (not i.items or track.asked in i.items)
    ]
    item = min(covering, key=lambda i: ("open", "lost", "done").index(i.state), default=None)
    step_us = track.step_s * 1_000_000 or hole.to_us - hole.from_us
    none = tr("not yet", "未安排") if track.recallable else tr("cannot be asked", "不可补召")
    return {
        "device": names[0],
        "point": names[1],
        "data": f"{track.duty} {track.item}".strip(),
        "first": time_text(hole.from_us)[:16],
        "last": time_text(hole.to_us - step_us)[:16],
        "slots": (hole.to_us - hole.from_us) // step_us,
        "recall": item.state if item else none,
        "attempts": item.attempts if item else 0,
        "next_us": item.next_us if item and item.state == "open" else None,
    }


def _kpi(app: App, day: date, now_us: int, by_point: bool, as_json: bool) -> None:
    from ..acquisition.indicators import ALARM_BELOW, TITLES, day_indicators
    from ..storage.database import Database

    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        devices, store, recaller = _ledger(app, connection, listed=True)
        found = day_indicators(recaller, store, app.config.cycles, day, now_us, by_point=by_point)
    names = {p.id: p.name for d in devices for p in d.points}
    rows: list[dict[str, Any]] = [
        {
            "duty": str(i.duty), "point": None if i.point is None else names[i.point], "indicator": k.name,
            "numerator": k.numerator, "denominator": k.denominator,
            "ratio": k.ratio, "exempt": k.exempt, "unknown_arrival": i.unknown, "formula": k.formula,
            "alarm": k.ratio is not None and k.ratio < ALARM_BELOW,
        }
        for i in found for k in i.kpis
    ]  # fmt: skip
    if as_json:
        print_json({"day": day, "indicators": rows})
        return
    head = [
        tr("duty", "任务"), *([tr("point", "计量点")] if by_point else []), tr("indicator", "指标"), tr("got", "分子"),
        tr("due", "分母"), "%", tr("exempt", "豁免"),
        tr("arrival unknown", "到达时间未知"), "",
    ]  # fmt: skip
    low = tr(f"below {ALARM_BELOW:.0%}", f"低于 {ALARM_BELOW:.0%}")
    print_table(
        head,
        [
            [
                r["duty"], *([r["point"]] if by_point else []), tr(*TITLES[r["indicator"]]),
                str(r["numerator"]), str(r["denominator"]),
                "-" if r["ratio"] is None else f"{r['ratio']:.2%}", str(r["exempt"]), str(r["unknown_arrival"]),
                low if r["alarm"] else "",
            ]
            for r in rows
        ],
    )  # fmt: skip


@gaps.group(help=tr("Slots that need not be there, registered by a person.", "豁免登记: 无需到数的时段。"))
def exempt() -> None:
    """The group of exemptions."""


def _moment(text: str, *, end: bool) -> datetime:
    """A business day (its beginning, or for an end its end) or a moment of business time."""
    try:
        if len(text) == 10:
            day = date.fromisoformat(text)
            return from_us(day_start_us(day + timedelta(days=1) if end else day))
        found = datetime.fromisoformat(text)
        return found if found.tzinfo is not None else found.replace(tzinfo=BUSINESS_ZONE)
    except ValueError:
        en = f"{text!r} is neither a day YYYY-MM-DD nor a moment YYYY-MM-DDThh:mm"
        raise UsageError(tr(en, f"{text!r} 应为日期 YYYY-MM-DD 或时刻 YYYY-MM-DDThh:mm")) from None


@exempt.command("add", help=tr("Register an exemption.", "登记豁免。"))
@click.argument("name")
@click.option("--point", help=tr("one metering point only", "仅一个计量点"))
@click.option("--from", "since", required=True, help=tr("first day, or moment YYYY-MM-DDThh:mm", "起始日或时刻"))
@click.option("--to", "until", help=tr("last day, or moment (default: open)", "截止日或时刻 (默认未定)"))
@click.option("--kind", type=click.Choice(KINDS), required=True)
@click.option("--reason", required=True)
@json_option
@pass_app
@reported
def add(
    app: App, name: str, point: str | None, since: str, until: str | None, kind: str, reason: str, as_json: bool
) -> None:
    """Registered suspension, confirmed outage of the supply, or commissioning; audited."""
    from ..control import exemptions
    from .person import now_us, person

    begin, end = _moment(since, end=False), None if until is None else _moment(until, end=True)
    with person(app) as (conn, actor):
        made = exemptions.add(
            conn, now_us(), actor, device=name, point=point, since=begin, until=end, kind=kind, reason=reason
        )
    if as_json:
        print_json(asdict(made))
    else:
        click.echo(tr(f"exemption {made.id} registered", f"豁免 {made.id} 已登记"))


@exempt.command("list", help=tr("Exemptions in force.", "生效的豁免。"))
@click.option("--all", "everything", is_flag=True, help=tr("withdrawn ones too", "包括已撤销的"))
@json_option
@pass_app
@reported
def list_(app: App, everything: bool, as_json: bool) -> None:
    """With who made them, and why."""
    from ..control import exemptions
    from ..storage.database import Database
    from ..storage.devices import load_devices
    from .person import local

    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as conn:
        found = exemptions.listed(conn, withdrawn=everything)
        devices = {d.id: d for d in load_devices(conn)}
    if as_json:
        print_json([asdict(e) for e in found])
        return
    head = [
        "id", tr("device", "设备"), tr("point", "计量点"), tr("from", "从"), tr("until", "至"), tr("kind", "类别"),
        tr("reason", "原因"), tr("by", "登记人"), tr("withdrawn", "撤销"),
    ]  # fmt: skip

    def point_of(e: StoredExemption) -> str:
        if e.point is None:
            return tr("all", "全部")
        device = devices.get(e.device)
        return next((p.name for p in device.points if p.id == e.point), str(e.point)) if device else str(e.point)

    rows = [
        [
            str(e.id), devices[e.device].name if e.device in devices else str(e.device), point_of(e), local(e.since),
            local(e.until) or tr("further notice", "未定"), _kind(e.kind), e.reason, e.made_by,
            f"{e.withdrawn_by}: {e.withdrawn_reason}" if e.withdrawn_by else "",
        ]
        for e in found
    ]  # fmt: skip
    print_table(head, rows)


def _kind(kind: str) -> str:
    zh = {"suspension": "报停", "outage": "停电", "commissioning": "调试"}
    return tr(kind, zh[kind])


@exempt.command("remove", help=tr("Withdraw an exemption, or end it (--from).", "撤销豁免, 或自某日起终止 (--from)。"))
@click.argument("number", type=int)
@click.option(
    "--from", "ends", help=tr("it ends when this day begins, or at this moment", "自该日 (或时刻) 起不再豁免")
)
@click.option("--reason", required=True)
@json_option
@pass_app
@reported
def remove(app: App, number: int, ends: str | None, reason: str, as_json: bool) -> None:
    """Nothing is deleted: who withdrew it, and why, stays with it; audited."""
    from ..control import exemptions
    from .person import now_us, person

    end = None if ends is None else _moment(ends, end=False)
    with person(app) as (conn, actor):
        after = exemptions.remove(conn, now_us(), actor, number, reason, ends=end)
    if as_json:
        print_json(asdict(after))
    else:
        click.echo(
            tr(f"exemption {number} withdrawn", f"豁免 {number} 已撤销")
            if end is None
            else tr(f"exemption {number} ended", f"豁免 {number} 已终止")
        )
