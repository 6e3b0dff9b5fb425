"""`fuhe archive`: customers, supplies, points and what else the business knows, with the dates between which it is so.

Reading verbs need no login, as those of `fuhe device`; whoever changes or exports the archive is a person.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .common import App, json_option, pass_app, print_json, reported

if TYPE_CHECKING:
    from ..control.archive import Preview, Waiting
    from ..control.key_customers import KeyList
    from ..model.archive import Version

Reason = click.option("--reason", default="", help=tr("why (recorded)", "原因(入审计)"))
On = click.option("--on", "on", metavar="DATE", help=tr("as it was then (default: now)", "当日的情况 (默认现在)"))
SHOWN = 40


@click.group(help=tr("The business archive: import, export, show, check.", "业务档案: 导入、导出、查看、检查。"))
def archive() -> None:
    """The group of archive verbs."""


def _instant(text: str | None) -> int:
    """µs UTC of --on or --from (a day is its midnight: what begins on it counts); default now."""
    from ..model.archive_cells import CellError, read_instant
    from .person import now_us

    if not text:
        return now_us()
    try:
        found = read_instant(text)
    except CellError as error:
        raise UsageError(str(error)) from error
    assert found is not None
    return found


# -- changing ---------------------------------------------------------------------------------------------------------


@archive.command(
    "import",
    help=tr(
        "Show what FILE (.csv, .xlsx) or a folder of .csv would change; with --commit change it.",
        "预览文件 (.csv、.xlsx) 或 .csv 目录将带来的变更; 加 --commit 执行。",
    ),
)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--commit", is_flag=True, help=tr("do it (default: only shown)", "实际执行(默认仅预览)"))
@click.option(
    "--from", "begin", metavar="DATE",
    help=tr("from when rows without valid_from are meant (default: today)", "无 valid_from 的行自何日起 (默认今日)"),
)  # fmt: skip
@Reason
@json_option
@pass_app
@reported
def import_(app: App, path: Path, commit: bool, begin: str | None, reason: str, as_json: bool) -> None:
    """Exit status 1 with every fault named; nothing is changed then."""
    from ..control import archive as acts
    from ..model.times import business_day, day_start_us
    from .archive_files import read_archive
    from .person import desk, now_us, person

    rows, faults = read_archive(path)
    from_us = _instant(begin) if begin else day_start_us(business_day(now_us()))
    waits = None
    if not commit or faults:
        with desk(app) as conn:
            made = acts.preview(conn, rows, from_us)
    else:
        with person(app, "archive.note") as (conn, actor):
            made, waits = acts.commit(conn, now_us(), actor, rows, from_us, reason)
    faults = sorted([*faults, *made.plan.faults], key=lambda f: (f.sheet, f.line))
    if as_json:
        print_json(
            _preview_json(made)
            | {"faults": [f._asdict() for f in faults], "waits": waits, "done": commit and not faults and waits is None}
        )
    else:
        for fault in faults[:SHOWN]:
            click.echo(str(fault), err=True)
        if len(faults) > SHOWN:
            click.echo(tr(f"... and {len(faults) - SHOWN} more", f"... 另有 {len(faults) - SHOWN} 处"), err=True)
        if not faults:
            _show_preview(made, commit, waits)
    if faults:
        if not as_json:
            click.echo(
                tr(f"{len(faults)} faults, nothing was changed", f"{len(faults)} 处错误, 未作任何修改"), err=True
            )
        raise SystemExit(1)


def _preview_json(made: Preview) -> dict[str, Any]:
    return {
        "changes": [
            {"entity": c.entity, "key": c.key, "kind": c.kind, "versions": [_json(v) for v in (*c.ended, *c.added)]}
            for c in made.plan.changes
        ],
        "same": made.plan.same, "notes": made.plan.notes, "two_persons": [n.text for n in made.needs],
        "roles": sorted(made.roles), "digest": made.digest,
    }  # fmt: skip


def _show_preview(made: Preview, commit: bool, waits: int | None) -> None:
    from ..model.archive import ENTITIES
    from ..model.archive_cells import write_cell, write_instant
    from ..model.archive_plan import changed_fields
    from .person import show_table

    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for c in made.plan.changes:
        counts[c.entity][c.kind] += 1
    if counts:
        head = [tr("sheet", "表"), tr("new", "新增"), tr("changed", "变更"), tr("ended", "结束")]
        show_table(
            head,
            [
                [tr(e, f"{ENTITIES[e].zh} {e}"), *(str(counts[e][k] or "") for k in ("new", "changed", "ended"))]
                for e in ENTITIES
                if e in counts
            ],
        )
    detailed = [c for c in made.plan.changes if c.before]
    for c in detailed[:SHOWN]:
        for v in c.added:
            before = next((b for b in reversed(c.after) if b.valid_from_us < v.valid_from_us), None)
            said = [] if before is None else [
                f"{n} {write_cell(getattr(before.record, n)) or '-'} -> {write_cell(getattr(v.record, n)) or '-'}"
                for n in changed_fields(before.record, v.record)
            ]  # fmt: skip
            click.echo(f"{c.entity} {c.key} {tr('from', '自')} {write_instant(v.valid_from_us)}: {', '.join(said)}")
        for v in c.ended if not c.added else ():
            click.echo(f"{c.entity} {c.key} {tr('ends on', '结束于')} {write_instant(v.valid_to_us)}")
    if len(detailed) > SHOWN:
        click.echo(tr(f"... and {len(detailed) - SHOWN} more", f"... 另有 {len(detailed) - SHOWN} 项"))
    for note in made.plan.notes:
        click.echo(note)
    click.echo(tr(f"{made.plan.same} objects as they are", f"{made.plan.same} 个对象不变"))
    for need in made.needs[:SHOWN]:
        click.echo(tr("two people: ", "须双人: ") + need.text)
    if not made.plan.changes:
        click.echo(tr("nothing changes", "无变更"))
    elif waits is not None:
        click.echo(
            tr(
                f"change {waits} waits for {', '.join(sorted(made.roles))}: fuhe archive approve {waits}",
                f"变更 {waits} 待 {', '.join(sorted(made.roles))} 批准: fuhe archive approve {waits}",
            )
        )
    else:
        done = tr("done", "已执行")
        click.echo(done if commit else tr("preview: nothing was changed (--commit)", "预览: 未作任何修改 (--commit)"))


@archive.command(help=tr("Changes that wait for a second person.", "待第二人批准的变更。"))
@json_option
@pass_app
@reported
def pending(app: App, as_json: bool) -> None:
    """Oldest first, with what makes two people necessary."""
    from ..control import archive as acts
    from .person import desk, local, show_table

    with desk(app) as conn:
        found = acts.all_waiting(conn)
    if as_json:
        print_json([_waiting_json(w) for w in found])
        return
    head = [
        tr("change", "变更"),
        tr("drafted", "起草"),
        tr("by", "起草人"),
        tr("reason", "原因"),
        tr("why two", "双人原因"),
    ]
    show_table(head, [[str(w.id), local(w.drafted_at), w.drafter_name, w.reason, "; ".join(w.why[:5])] for w in found])


def _waiting_json(w: Waiting) -> dict[str, Any]:
    return {
        "change": w.id, "drafted_at": w.drafted_at, "drafter": w.drafter_name, "reason": w.reason, "why": w.why,
        "roles": w.roles, "rows": len(w.rows_),
    }  # fmt: skip


@archive.command(
    help=tr("Sign a waiting change as the second person; it is carried out then.", "第二人批准变更, 随即执行。")
)
@click.argument("number", type=int)
@click.option(
    "--digits", metavar="DDDD",
    help=tr("last four characters of the first object's number, else asked for", "首个对象编号后四位, 否则询问"),
)  # fmt: skip
@json_option
@pass_app
@reported
def approve(app: App, number: int, digits: str | None, as_json: bool) -> None:
    """Shows what is signed, then asks for the digits."""
    from ..control import archive as acts
    from .person import now_us, person

    with person(app) as (conn, actor):
        found = acts.waiting(conn, number)
        if digits is None:
            made = acts.waiting_preview(conn, found)
            _show_preview(made, False, None)
            click.echo(f"{found.drafter_name}: {found.reason}", err=True)
            first = made.needs[0].key if made.needs else ""
            question = tr(f"last four characters of {first.split('/')[0]}", f"{first.split('/')[0]} 的后四位")
            digits = click.prompt(question, err=True)
        made = acts.approve(conn, now_us(), actor, number, str(digits), app.config.control)
    if as_json:
        print_json(_preview_json(made))
    else:
        click.echo(tr(f"change {number} is done", f"变更 {number} 已执行"))


@archive.command(help=tr("Refuse or withdraw a waiting change.", "驳回或撤回变更。"))
@click.argument("number", type=int)
@Reason
@pass_app
@reported
def reject(app: App, number: int, reason: str) -> None:
    """With a reason."""
    from ..control import archive as acts
    from .person import now_us, person

    with person(app, "archive.reject") as (conn, actor):
        acts.reject(conn, now_us(), actor, number, reason)
    click.echo(tr(f"change {number} is rejected", f"变更 {number} 已驳回"))


# -- reading ----------------------------------------------------------------------------------------------------------


@archive.command(
    help=tr(
        "Write the whole archive to a folder of CSV files or an .xlsx file.", "导出全部档案至 CSV 目录或 .xlsx 文件。"
    )
)
@click.argument("path", type=click.Path(path_type=Path))
@pass_app
@reported
def export(app: App, path: Path) -> None:
    """Every version with its dates; importing it again changes nothing. Recorded: it holds data of customers."""
    from ..control.audit import Entry, append
    from ..storage.archive_versions import versions
    from .archive_files import write_folder, write_workbook
    from .person import now_us, person

    with person(app) as (conn, actor):
        found = versions(conn)
        with conn.transaction():
            entry = Entry(actor=actor, action="archive.export", object="archive", after={"versions": len(found)})
            append(conn, now_us(), [entry])
    try:
        if path.suffix.lower() == ".xlsx":
            write_workbook(path, found)
        else:
            write_folder(path, found)
    except OSError as error:
        raise UsageError(tr(f"cannot write {path}: {error.strerror}", f"无法写入 {path}: {error.strerror}")) from error
    click.echo(tr(f"wrote {path}: {len(found)} versions", f"已写出 {path}: {len(found)} 个版本"))


def _json(v: Version) -> dict[str, Any]:
    from ..model.archive import record_values
    from ..model.archive_cells import write_instant

    return {
        "entity": v.entity, "key": v.key, "valid_from": write_instant(v.valid_from_us),
        "valid_to": write_instant(v.valid_to_us) or None, **record_values(v.record), "changed_by": v.changed_by,
        "reason": v.reason,
    }  # fmt: skip


@archive.command(help=tr("One object and what belongs to it.", "查看一个对象及其所属。"))
@click.argument("name")
@On
@click.option("--history", is_flag=True, help=tr("every version", "全部版本"))
@json_option
@pass_app
@reported
def show(app: App, name: str, on: str | None, history: bool, as_json: bool) -> None:
    """NAME: a key (customer number, point, feeder, …) or a customer's name."""
    from ..model.archive_cells import write_cell, write_instant
    from ..storage.archive_versions import versions
    from .person import desk

    at = _instant(on)
    with desk(app) as conn:
        every = versions(conn, at_us=None if history else at)
    keys = {name} | {v.key for v in every if v.entity == "customers" and getattr(v.record, "name", "") == name}
    found = [v for v in every if v.key in keys]
    belonging = [v for v in every if v.key not in keys and _refers(v, keys)]
    if not found:
        raise UsageError(
            tr(f"the archive has no {name!r} then: fuhe archive list customers",
               f"档案中当时没有 {name!r}: fuhe archive list customers")
        )  # fmt: skip
    if as_json:
        print_json({"objects": [_json(v) for v in found], "belonging": [_json(v) for v in belonging]})
        return
    for v in found:
        dates = f"{write_instant(v.valid_from_us)} - {write_instant(v.valid_to_us)}"
        click.echo(f"{v.entity} {v.key}  {dates}  {v.changed_by}: {v.reason}")
        for field in v.record.__struct_fields__:
            text = write_cell(getattr(v.record, field))
            if text:
                click.echo(f"  {field:<20} {text}")
    for v in belonging:
        click.echo(f"{v.entity} {v.key}  {write_instant(v.valid_from_us)} - {write_instant(v.valid_to_us)}")


def _refers(v: Version, keys: set[str]) -> bool:
    from ..model.archive import ENTITIES, SEPARATOR

    return any(SEPARATOR.join(str(getattr(v.record, n)) for n in names) in keys for names in ENTITIES[v.entity].refs)


@archive.command("list", help=tr("The objects of an entity in force on a day.", "列出某日有效的一类对象。"))
@click.argument("entity")
@On
@json_option
@pass_app
@reported
def list_(app: App, entity: str, on: str | None, as_json: bool) -> None:
    """Columns that nobody has filled in are left out."""
    from ..model.archive import ENTITIES
    from ..model.archive_cells import write_cell, write_instant
    from ..storage.archive_versions import versions
    from .person import desk, show_table

    if entity not in ENTITIES:
        raise UsageError(
            tr(
                f"no entity {entity!r}; there are: {', '.join(ENTITIES)}",
                f"没有 {entity!r}; 现有: {', '.join(ENTITIES)}",
            )
        )
    with desk(app) as conn:
        found = versions(conn, entities=[entity], at_us=_instant(on))
    if as_json:
        print_json([_json(v) for v in found])
        return
    rows = [[write_cell(getattr(v.record, f.name)) for f in ENTITIES[entity].fields] for v in found]
    used = [n for n, f in enumerate(ENTITIES[entity].fields) if f.required or any(r[n] for r in rows)]
    head = [ENTITIES[entity].fields[n].name for n in used]
    show_table(
        [*head, tr("from", "自")],
        [[*(r[n] for n in used), write_instant(v.valid_from_us)] for r, v in zip(rows, found, strict=True)],
    )


@archive.command(
    help=tr("Substation, feeder, transformer, customer, point as a tree.", "变电站、线路、变压器、客户、计量点树。")
)
@On
@pass_app
@reported
def tree(app: App, on: str | None) -> None:
    """A point hangs where it, its supply or its transformer says."""
    from rich.console import Console

    from ..storage.archive_versions import versions
    from .person import desk

    with desk(app) as conn:
        found = versions(
            conn, entities=["customers", "feeders", "transformers", "supplies", "points"], at_us=_instant(on)
        )  # fmt: skip
    if not found:
        raise UsageError(tr("the archive is empty: fuhe archive import", "档案为空: fuhe archive import"))
    Console().print(_tree(found))


def _tree(found: Sequence[Version]) -> Any:
    from rich.markup import escape
    from rich.tree import Tree

    from ..model.archive import Customer, Feeder, MeteringPoint, Supply, Transformer

    kinds: dict[type, dict[str, Any]] = defaultdict(dict)
    for v in found:
        kinds[type(v.record)][v.key] = v.record
    feeders: Mapping[str, Feeder] = kinds[Feeder]
    transformers: Mapping[str, Transformer] = kinds[Transformer]
    supplies: Mapping[str, Supply] = kinds[Supply]
    customers: Mapping[str, Customer] = kinds[Customer]
    nodes: dict[tuple[str, ...], Tree] = {(): Tree(tr("network", "电网"))}

    def node(path: tuple[str, ...], labels: tuple[str, ...]) -> Tree:
        if path not in nodes:
            parent = node(path[:-1], labels[:-1])
            nodes[path] = parent.add(labels[-1]) if labels[-1] else parent
        return nodes[path]

    def place(feeder: str, transformer: str, customer: str, point: str, label: str) -> None:
        line = feeders.get(feeder)
        unit = transformers.get(transformer)
        who = customers.get(customer)
        labels = (
            escape(line.substation) if line else tr("no substation", "无变电站"),
            escape(f"{feeder} {line.name} {line.voltage} kV") if line else "",
            escape(f"{transformer} {unit.rated_kva:f} kVA") if unit else "",
            escape(f"{customer} {who.name}") if who else "",
            escape(label),
        )
        path = (line.substation if line else "", feeder, transformer, customer, point)
        last = max((n for n, text in enumerate(path) if text), default=-1)
        if last >= 0:
            node(path[: last + 1], labels[: last + 1])

    for record in sorted(feeders.values(), key=lambda f: (f.substation, f.feeder)):
        place(record.feeder, "", "", "", "")
    for unit in transformers.values():
        place(unit.feeder, unit.transformer, unit.customer, "", "")
    for point in kinds[MeteringPoint].values():
        supply = supplies.get(f"{point.customer}/{point.source_no}")
        own = transformers.get(point.transformer)
        feeder = point.feeder or (supply.feeder if supply else "") or (own.feeder if own else "")
        label = f"{point.point} {point.role} K={point.factor:f}"
        place(feeder, point.transformer, point.customer, point.point, label)
    return nodes[()]


@archive.command(
    help=tr(
        "Expired papers, missing agreements, overdue tests; exit status 1 if urgent.",
        "到期、缺协议、超期试验; 有紧急项时退出码 1。",
    )
)
@On
@json_option
@pass_app
@reported
def check(app: App, on: str | None, as_json: bool) -> None:
    """Protected status, security loads, dual supplies, generators, live tests, contacts, current transformers."""
    from dataclasses import asdict

    from ..control import archive_check, rounds
    from ..model.times import business_day
    from ..storage.archive_versions import versions
    from .person import desk, device_names, show_table

    at = _instant(on)
    with desk(app) as conn:
        found = archive_check.check(
            versions(conn, at_us=at), rounds.rounds(conn), device_names(conn), today=business_day(at),
            live_test_max_days=app.config.control.live_test_max_days,
        )  # fmt: skip
    if as_json:
        print_json([asdict(f) for f in found])
    elif not found:
        click.echo(tr("nothing to find fault with", "无问题"))
    else:
        head = [tr("urgent", "紧急"), tr("what", "对象"), tr("which", "编号"), tr("finding", "问题")]
        show_table(head, [["!" if f.urgent else "", f.entity, f.key, f.text] for f in found])
    if any(f.urgent for f in found):
        raise SystemExit(1)


# -- key customers ----------------------------------------------------------------------------------------------------


@archive.group("key", help=tr("The list of key customers: propose, approve, list.", "大客户名单: 建议、批准、列表。"))
def key() -> None:
    """The group of key-customer verbs."""


def _show_list(found: KeyList) -> None:
    from .person import show_table

    state = (
        tr("proposal", "建议") if found.version is None else tr(f"version {found.version}", f"第 {found.version} 版")
    )
    head = ["", tr("number", "户号"), tr("customer", "客户"), "kVA", tr("supplies", "电源"), "MWh/a", tr("why", "依据")]
    rows = [
        [
            r.action, r.cons_no, r.name, "" if r.running_kva is None else f"{r.running_kva:f}", str(r.supplies),
            "?" if r.energy_kwh is None else f"{r.energy_kwh / 1000:.1f}",
            ", ".join(r.reasons) or tr(f"below at {r.below_months} month ends", f"连续 {r.below_months} 个月末未达标"),
        ]
        for r in found.rows
    ]  # fmt: skip
    show_table(head, rows, f"{found.id} {state} {found.as_of}")
    click.echo(tr(f"{len(found.members)} members", f"{len(found.members)} 户"))


@key.command(
    "propose", help=tr("Propose the list from the archive and stored readings.", "按档案和已存读数提出名单建议。")
)
@click.option("--on", "on", metavar="DATE", help=tr("as of this day (default: today)", "截至该日 (默认今日)"))
@json_option
@pass_app
@reported
def key_propose(app: App, on: str | None, as_json: bool) -> None:
    """A stored proposal for the leading group."""
    from ..control import key_customers
    from ..model.times import business_day
    from .person import now_us, person

    with person(app, "key.propose") as (conn, actor):
        made = key_customers.propose(conn, now_us(), actor, business_day(_instant(on)), app.config.archive)
    if as_json:
        print_json(made)
    else:
        _show_list(made)


@key.command(
    "approve", help=tr("Approve the newest proposal (leading group); it is a version then.", "领导小组批准最新建议。")
)
@click.argument("number", type=int)
@click.option("--members", type=int, help=tr("how many members the list has, else asked for", "名单户数, 否则询问"))
@json_option
@pass_app
@reported
def key_approve(app: App, number: int, members: int | None, as_json: bool) -> None:
    """Another person than the proposer."""
    from ..control import key_customers
    from .person import now_us, person

    with person(app, "key.approve") as (conn, actor):
        if members is None:
            _show_list(key_customers.get(conn, number))
            members = click.prompt(tr("number of members", "户数"), type=int, err=True)
        made = key_customers.approve(conn, now_us(), actor, number, int(members or 0))
    if as_json:
        print_json(made)
    else:
        click.echo(tr(f"version {made.version} is in force", f"第 {made.version} 版生效"))


@key.command("list", help=tr("The list in force; with --all every version and proposal.", "现行名单; --all 列出全部。"))
@click.option("--all", "every", is_flag=True, help=tr("every version and proposal", "全部版本和建议"))
@json_option
@pass_app
@reported
def key_list(app: App, every: bool, as_json: bool) -> None:
    """Nothing before the first approval."""
    from ..control import key_customers
    from .person import desk

    with desk(app) as conn:
        now = key_customers.current(conn)
        found = key_customers.lists(conn) if every else [now] if now else []
    if as_json:
        print_json(found)
        return
    for one in found:
        _show_list(one)
    if not found:
        click.echo(
            tr("no list has been approved yet: fuhe archive key propose", "尚无已批准名单: fuhe archive key propose")
        )
