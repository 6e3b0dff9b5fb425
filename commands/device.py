"""`fuhe device`: the device list (in the database), its polling plan, and reading a device now (through the daemon).

`fuhe recall` and `fuhe gaps` are in recall.py.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..acquisition.requests import READ, READABLE
from ..acquisition.terminal import parse_address
from ..model.devices import Device
from ..model.lang import tr
from ..model.work import Duty
from ..protocols.common.errors import UsageError
from ..storage import requests
from ..storage.database import Database
from ..storage.devices import apply_devices, load_devices
from ..storage.events import load_events
from ..storage.state import load_device_states
from ..storage.terminals import load_traffic
from .asking import ask, find_device, finish, print_answer, print_table, profiles_of, time_text
from .clock import clock
from .common import App, json_option, pass_app, print_json, reported
from .connections import online, unknown
from .events import LATEST, events
from .events import rows as event_rows

if TYPE_CHECKING:
    from ..acquisition.devices import Changes, ParsedList
    from ..acquisition.plan import LinePlan
    from ..acquisition.profile import Profile

PROGRESS_FROM = 2000
ALL = 10_000_000


@click.group(
    help=tr(
        "Devices: list, show, import, export, plan, read, clock, events.",
        "设备: 列表、查看、导入、导出、计划、召测、时钟、事件。",
    )
)
def device() -> None:
    """The group of device verbs."""


device.add_command(events)
device.add_command(unknown)
device.add_command(online)
device.add_command(clock)


def _stored(app: App) -> list[Device]:
    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        return load_devices(connection)


@device.command("list", help=tr("All devices.", "列出设备。"))
@json_option
@pass_app
@reported
def list_(app: App, as_json: bool) -> None:
    """The device list as stored."""
    devices = sorted(_stored(app), key=lambda d: d.name)
    if as_json:
        print_json(devices)
        return
    head = [
        tr("name", "名称"),
        tr("link", "链路"),
        tr("profile", "设备档"),
        tr("address", "地址"),
        tr("points", "计量点"),
        tr("enabled", "启用"),
    ]
    print_table(
        head,
        [[d.name, d.link, d.profile, d.address, str(len(d.points)), tr("yes", "是") if d.enabled else tr("no", "否")]
         for d in devices],
    )  # fmt: skip
    click.echo(tr(f"{len(devices)} devices", f"共 {len(devices)} 台设备"))


@device.command(help=tr("One device: archive, state, what is read.", "查看一台设备: 档案、状态、采集内容。"))
@click.argument("name")
@json_option
@pass_app
@reported
def show(app: App, name: str, as_json: bool) -> None:
    """Everything known about one device."""
    from ..acquisition.cycles import duty_period_s  # numpy

    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        found = find_device(load_devices(connection), name)
        state = load_device_states(connection).get(found.id)
        latest = load_events(connection, [found.id], limit=LATEST)
        traffic = load_traffic(connection, device=found.id, months=2)
    profile = profiles_of(app).get(found.profile)
    duties: list[dict[str, Any]] = []
    if profile is not None:
        for duty in (*profile.read, *((Duty.CURVE,) if profile.curve else ())):
            period = duty_period_s(profile, duty, app.config.cycles)
            items = list(profile.read[duty].items) if duty in profile.read else [str(c) for c in _classes(profile)]
            duties.append({"duty": str(duty), "period_s": period, "items": items})
    if as_json:
        print_json({"device": found, "state": state, "duties": duties, "events": latest, "traffic": traffic})
        return
    on = tr("enabled", "启用") if found.enabled else tr("disabled", "停用")
    click.echo(f"{found.name}  ({on})")
    terminal = parse_address(found.address) if profile is not None and profile.protocol == "qgdw1376" else None
    other = f" ({terminal.hexadecimal})" if terminal is not None else ""
    click.echo(f"  {tr('link', '链路')} {found.link}, {tr('address', '地址')} {found.address}{other}")
    title = tr(profile.title_en, profile.title_zh) if profile else tr("profile is missing", "缺少设备档")
    click.echo(f"  {tr('profile', '设备档')} {found.profile}: {title}")
    if found.options:
        click.echo(f"  {tr('options', '选项')} " + ";".join(f"{k}={v}" for k, v in sorted(found.options.items())))
    for p in found.points:
        extra = "" if p.nominal_v is None else f", {p.nominal_v} V"
        extra += "" if p.contract_kva is None else f", {p.contract_kva} kVA"
        kind = "" if p.kind == "measuring" else f"{p.kind} "
        click.echo(
            f"  {tr('point', '计量点')} {kind}{p.pn} {p.name}: {p.wiring}, K = {p.ct_ratio} x {p.pt_ratio}{extra}"
        )
    if state is None:
        click.echo("  " + tr("never heard of", "尚无通信记录"))
    else:
        online = tr("online", "在线") if state.online else tr("offline", "离线")
        held = tr(", quarantined", ", 已隔离") if state.quarantined else ""
        why = f": {state.reason}" if state.reason else ""
        click.echo(f"  {online}{held}, {tr('last seen', '最近通信')} {time_text(state.last_seen_us)}{why}")
        if state.detail:
            click.echo(f"  {_connection(state.detail)}")
    for month in traffic:
        click.echo(
            f"  {tr('traffic', '流量')} {month.month // 100}-{month.month % 100:02d}: "
            f"{tr('received', '接收')} {month.rx_bytes} B, {tr('sent', '发送')} {month.tx_bytes} B"
        )
    publishes = profile is not None and profile.protocol == "mqtt"
    for row in duties:
        every = tr("never", "不采集") if row["period_s"] is None else f"{row['period_s']} s"
        every = tr("publishes", "自行上报") if publishes else every
        click.echo(f"  {row['duty']:<10} {every:>9}  {' '.join(map(str, row['items']))}")
    if latest:
        click.echo("  " + tr("latest events (fuhe device events shows all)", "最近事件 (全部: fuhe device events)"))
    for begin, end, _, what, details, _ in event_rows(latest, {}):
        click.echo(f"    {begin} – {end}  {what}  {details}".rstrip())


def _connection(detail: Mapping[str, Any]) -> str:
    """A terminal's connection, as the daemon last told it."""
    since = time_text(detail.get("online_since_us"))
    ec, read = (tuple(detail.get(key) or (None, None)) for key in ("ec", "ec_read"))
    return tr(
        f"connected since {since}; {detail.get('connects', 0)} connections, {detail.get('replaced', 0)} replaced, "
        f"{detail.get('moved', 0)} address changes; event counters {_numbers(ec)}, read up to {_numbers(read)}",
        f"连接自 {since}; 连接 {detail.get('connects', 0)} 次, 被取代 {detail.get('replaced', 0)} 次, "
        f"地址变更 {detail.get('moved', 0)} 次; 事件计数器 {_numbers(ec)}, 已读至 {_numbers(read)}",
    )


def _numbers(pair: Sequence[object]) -> str:
    return "/".join("-" if n is None else str(n) for n in pair)


def _classes(profile: Profile) -> tuple[int | str, ...]:
    return (profile.curve.classes or profile.curve.quantities) if profile.curve else ()


@device.command("import", help=tr("Take over a device list (CSV).", "导入设备清单 (CSV)。"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--dry-run", is_flag=True, help=tr("only show what would change", "只预览, 不写入"))
@click.option("--disable-missing", is_flag=True, help=tr("disable devices that the file lacks", "停用文件中没有的设备"))
@click.option("--overload", is_flag=True, help=tr("import even if a line is overloaded", "线路超载也导入"))
@json_option
@pass_app
@reported
def import_(app: App, file: Path, dry_run: bool, disable_missing: bool, overload: bool, as_json: bool) -> None:
    """Check the whole file, show what changes, check the polling plan, then apply in one transaction."""
    from ..acquisition.devices import compare, conflicts
    from ..acquisition.plan import check_plan

    profiles, links = profiles_of(app), {link.name: link for link in app.config.links}
    parsed = _parse(file, app, profiles)
    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        before = load_devices(connection)
        listed = {d.name for d in parsed.devices}
        kept = [] if disable_missing else [d for d in before if d.name not in listed]
        faults = [str(f) for f in parsed.faults] or conflicts(parsed.devices, kept, links)
        changes = compare(before, parsed.devices)
        plans = () if faults else check_plan([*parsed.devices, *kept], profiles, app.config.links, app.config.cycles)
        over = [p for p in plans if not p.fits]
        apply = not faults and not dry_run and (overload or not over)
        if apply:
            with database.connect("owner") as owner:  # the archive's numbering belongs to the owner of the tables
                apply_devices(owner, parsed.devices, disable_missing=disable_missing)
            requests.ask(connection, "devices", device=None, params={}, asked_by=getpass.getuser())
    if as_json:
        print_json(
            {
                "faults": [{"row": f.row, "column": f.column, "message": f.message} for f in parsed.faults],
                "conflicts": [] if parsed.faults else faults,
                "changes": changes,
                "plan": [_plan_json(p) for p in plans],
                "applied": apply,
            }
        )
    else:
        _print_import(parsed, changes, plans, disable_missing)
    if faults:
        n = len(faults)
        shown = "" if as_json else "\n  " + "\n  ".join(faults)
        raise UsageError(
            tr(f"{file}: {n} faults, nothing was imported{shown}", f"{file}: {n} 处错误, 未导入任何内容{shown}")
        )
    if over and not overload:
        names = ", ".join(p.link for p in over)
        en = f"the polling plan does not fit {names}; nothing was imported (--overload imports all the same)"
        raise UsageError(tr(en, f"线路 {names} 的轮召计划不可行, 未导入 (--overload 可强制导入)"))
    if not as_json:
        click.echo(tr("imported", "已导入") if apply else tr("dry run: nothing was changed", "预览: 未作更改"))


def _parse(file: Path, app: App, profiles: dict[str, Profile]) -> ParsedList:
    from rich.console import Console

    from ..acquisition.devices import parse_devices

    data = file.read_bytes()
    links = {link.name: link for link in app.config.links}
    total = data.count(b"\n")
    console = Console(stderr=True)
    if total < PROGRESS_FROM or not console.is_terminal:
        return parse_devices(data, links=links, profiles=profiles)
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(tr("checking rows", "检查各行"), total=total)

        def step(row: int) -> None:
            if row % 500 == 0:
                bar.update(task, completed=row)

        return parse_devices(data, links=links, profiles=profiles, progress=step)


def _print_import(parsed: ParsedList, changes: Changes, plans: tuple[LinePlan, ...], disable_missing: bool) -> None:
    from ..acquisition.plan import describe

    if parsed.faults:
        return
    for name in changes.added:
        click.echo(f"+ {name}")
    for name, fields in changes.changed:
        click.echo(f"~ {name}: {', '.join(fields)}")
    gone = tr("disabled", "停用") if disable_missing else tr("not in the file, kept", "文件中没有, 保留")
    for name in changes.removed:
        click.echo(f"- {name} ({gone})")
    a, c, r, u = len(changes.added), len(changes.changed), len(changes.removed), changes.unchanged
    click.echo(
        tr(
            f"{a} added, {c} changed, {r} not in the file, {u} unchanged",
            f"新增 {a}, 更改 {c}, 文件之外 {r}, 未变 {u}",
        )
    )
    for plan in plans:
        if not plan.fits or plan.tight:
            click.echo(describe(plan))


@device.command(help=tr("Write the device list as CSV.", "导出设备清单 (CSV)。"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default="-")
@json_option
@pass_app
@reported
def export(app: App, file: Path, as_json: bool) -> None:
    """The canonical list, to a file or standard output; the same devices always give the same bytes."""
    from ..acquisition.devices import export_devices

    devices = _stored(app)
    data = export_devices(devices)
    if str(file) == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        file.write_bytes(data)
    except OSError as error:
        raise UsageError(tr(f"cannot write {file}: {error}", f"无法写入 {file}: {error}")) from error
    if as_json:
        print_json({"file": str(file), "devices": len(devices)})
    else:
        click.echo(tr(f"{len(devices)} devices written to {file}", f"{len(devices)} 台设备已写入 {file}"))


@device.command(help=tr("Does the polling plan fit its lines?", "轮召计划是否可行?"))
@json_option
@pass_app
@reported
def plan(app: App, as_json: bool) -> None:
    """Line time that the cycles want, by line and duty. Exit status 1 when a line is overloaded."""
    from ..acquisition.plan import check_plan, describe

    plans = check_plan(_stored(app), profiles_of(app), app.config.links, app.config.cycles)
    if as_json:
        print_json([_plan_json(p) for p in plans])
    else:
        head = [
            tr("line", "线路"), tr("profile", "设备档"), tr("duty", "任务"), tr("devices", "设备"),
            tr("transactions", "交互"), tr("bytes", "字节"), tr("busy s", "占用秒"), tr("within s", "限时秒"), "%",
        ]  # fmt: skip
        rows = [
            [p.link, load.profile, str(load.duty), str(load.devices), str(load.transactions),
             str(load.tx_bytes + load.rx_bytes), f"{load.busy_s:.1f}", str(load.period_s), f"{load.utilisation:.1%}"]
            for p in plans for load in p.loads
        ]  # fmt: skip
        print_table(head, rows)
        for p in plans:
            click.echo(describe(p))
    if any(not p.fits for p in plans):
        raise SystemExit(1)


def _plan_json(p: LinePlan) -> dict[str, Any]:
    loads = [
        {
            "profile": load.profile,
            "duty": str(load.duty),
            "devices": load.devices,
            "transactions": load.transactions,
            "tx_bytes": load.tx_bytes,
            "rx_bytes": load.rx_bytes,
            "busy_s": load.busy_s,
            "period_s": load.period_s,
            "utilisation": load.utilisation,
        }
        for load in p.loads
    ]
    return {
        "link": p.link,
        "baud": p.baud,
        "devices": p.devices,
        "lines": p.lines,
        "busiest": p.busiest,
        "month_bytes": p.month_bytes,
        "utilisation": p.utilisation,
        "fits": p.fits,
        "excess_s_per_hour": p.excess_s,
        "advice": p.advice,
        "loads": loads,
    }


@device.command(help=tr("Read a device now.", "立即召测一台设备。"))
@click.argument("name")
@click.option("--item", "items", multiple=True, help=tr("data item (DI or quantity), repeatable", "数据项, 可重复"))
@click.option("--duty", type=click.Choice([str(d) for d in READABLE]), default="live", show_default=True)
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 3600), default=30.0, show_default=True)
@json_option
@pass_app
@reported
def read(app: App, name: str, items: tuple[str, ...], duty: str, timeout_s: float, as_json: bool) -> None:
    """Ask the daemon to read a device and print what it said."""
    params = {"duty": duty, "items": [i.upper() if i[:1].isdigit() else i for i in items]}
    found, answer = ask(app, READ, name, params, timeout_s)
    if as_json:
        print_json(answer)
    else:
        print_answer(found, answer)
    finish(name, answer)
