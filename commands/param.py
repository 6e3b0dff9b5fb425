"""`fuhe param`: parameters of terminals read, compared, set and imported, each step by people who answer for it.

Nothing is written by a verb: drafts are signed, the daemon writes, reads back and compares (control/parameters.py).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..model.lang import tr
from ..protocols.common.errors import LinkError, UsageError
from .common import App, json_option, pass_app, print_json, reported

if TYPE_CHECKING:
    from ..acquisition.parameters import Setting
    from ..control.command import Command
    from ..control.parameters import Change
    from ..control.records import Conn
    from ..model.devices import Device

PROTOCOL: Final = "qgdw1376"
_ITEM: Final = re.compile(r"(.+?)(?::?[Pp](\d{1,4}))?(=[\d,]+)?")
Reason = click.option("--reason", default="", help=tr("why (recorded)", "原因(入审计)"))
Timeout = click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0, 3600), default=120.0, show_default=True,
    help=tr("longest wait for the terminals, 0 = none", "等待终端的最长时间, 0 为不等"),
)  # fmt: skip
File = click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
Commit = click.option("--commit", is_flag=True, help=tr("do it (default: only shown)", "实际执行(默认仅预览)"))


@click.group(
    help=tr("Parameters of terminals: get, diff, set, import, approve.", "终端参数: 读取、比较、设置、导入、批准。")
)
def param() -> None:
    """The group of parameter verbs."""


# -- reading ----------------------------------------------------------------------------------------------------------


@param.command(help=tr("Read parameters (F25, F25:P1, F10=1,2 or a name).", "读取参数 (F25、F25:P1、F10=1,2 或名称)。"))
@click.argument("name")
@click.argument("items", nargs=-1)
@Timeout
@json_option
@pass_app
@reported
def get(app: App, name: str, items: tuple[str, ...], timeout_s: float, as_json: bool) -> None:
    """Without items those that the profile reads each week."""
    from ..acquisition.requests import READ
    from ..model.work import Duty
    from .asking import ask, finish

    terminals = _terminals(app)
    edition = _edition_of(terminals, name)
    params = {"duty": str(Duty.PARAMETER), "items": [_item(i, edition) for i in items]}
    _, answer = ask(app, READ, name, params, timeout_s or 120.0)
    if as_json:
        print_json(answer)
    else:
        for parameter in answer["parameters"]:
            _show(str(parameter["item"]), str(parameter["value"]), edition)
        for fault in answer["faults"]:
            click.echo(f"{fault['item']}: {fault['reason']}", err=True)
    finish(name, answer)


def _item(text: str, edition: str) -> str:
    from ..acquisition.parameter_rows import RowReader

    found = _ITEM.fullmatch(text.strip())
    reader = RowReader({})
    row = reader.parameter(0, found[1], edition) if found else None
    if row is None or found is None:
        raise UsageError(reader.faults[0].message if reader.faults else text)
    return f"0A:F{row.fn}" + (f":P{found[2]}" if found[2] else "") + (found[3] or "")


def _show(item: str, value: str, edition: str) -> None:
    """A parameter as it was read, field by field; what cannot be taken apart as it stands."""
    import json

    from ..acquisition.parameter_fields import SET, labelled, shape
    from ..protocols.qgdw1376.table import lookup

    found = re.fullmatch(r"0A:F(\d+)(.*)", item)
    row = lookup(SET, int(found[1]), edition) if found else None
    data = json.loads(value)
    if row is None or found is None or not isinstance(data, dict):
        click.echo(f"{item} = {value}")
        return
    click.echo(f"F{row.fn}{found[2]}  {tr(row.en, row.zh)}")
    form = shape(row)
    for name, one in data.items():
        place = form.places.get(name) or form.entry.get(name)
        unit = f" {place.unit}" if place is not None and place.unit else ""
        text = json.dumps(one, ensure_ascii=False) if isinstance(one, (dict, list)) else str(one)
        label = labelled(name)
        click.echo(f"    {name}{f' ({label})' if label != name else ''} = {text}{unit}")


@param.command(
    help=tr("Compare a list with what the terminals hold; writes nothing.", "将清单与终端现值比较, 不写入。")
)
@File
@Timeout
@json_option
@pass_app
@reported
def diff(app: App, path: Path, timeout_s: float, as_json: bool) -> None:
    """Exit status 1 if anything differs or could not be read."""
    import getpass

    from ..acquisition.requests import SETTINGS
    from ..storage import requests
    from ..storage.database import Database

    terminals = _terminals(app)
    changes = _changes(app, path.read_text(encoding="utf-8-sig"), terminals)[1]
    names = {d.id: name for name, (d, _) in terminals.items()}
    found: dict[str, list[dict[str, Any]]] = {}
    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        asked = {
            c.device_id: requests.ask(
                connection, SETTINGS, device=c.device_id, params={"settings": list(c.settings)},
                asked_by=getpass.getuser(),
            )
            for c in changes
        }  # fmt: skip
        deadline = time.monotonic() + (timeout_s or 120.0)
        for device_id, number in asked.items():
            reply = requests.wait_answer(connection, number, max(deadline - time.monotonic(), 0.1))
            answer = reply.answer or {}
            edition = terminals[names[device_id]][1]
            rows = list(answer.get("settings") or [])
            if not rows:
                why = str(answer.get("error") or answer.get("reason") or answer.get("status"))
                rows = [{"item": "", "pn": 0, "unlike": [why]}]
            found[names[device_id]] = [_judged(row, edition) for row in rows]
    _tell(found, as_json)


def _judged(row: Mapping[str, Any], edition: str) -> dict[str, Any]:
    from ..acquisition.terminal_control import unlike

    return dict(row) | {"unlike": row["unlike"] if "unlike" in row else unlike(row, edition)}


def _tell(found: Mapping[str, Sequence[Mapping[str, Any]]], as_json: bool) -> None:
    wrong = sum(1 for rows in found.values() for row in rows if row["unlike"])
    if as_json:
        print_json(found)
    else:
        for name, rows in found.items():
            for row in rows:
                place = f"{name}  {row['item']} p{row['pn']}"
                for line in row["unlike"] or [tr("as in the list", "与清单一致")]:
                    click.echo(f"{place}: {line}")
    if wrong:
        raise SystemExit(1)


# -- setting ----------------------------------------------------------------------------------------------------------


@param.command(
    "set", help=tr("Set one parameter: param set T01 F17 limit_kw=120", "设置一项参数: param set T01 F17 limit_kw=120")
)
@click.argument("name")
@click.argument("parameter")
@click.argument("values", nargs=-1, required=True)
@click.option("--pn", default="", help=tr("point number(s): 1, 1-8", "信息点: 1, 1-8"))
@Commit
@Reason
@Timeout
@json_option
@pass_app
@reported
def set_(
    app: App, name: str, parameter: str, values: tuple[str, ...], pn: str, commit: bool, reason: str,
    timeout_s: float, as_json: bool,
) -> None:  # fmt: skip
    """As a list of one row."""
    import csv
    import io

    out = io.StringIO()
    csv.writer(out).writerows([["device", "parameter", "pn", "values"], [name, parameter, pn, "; ".join(values)]])
    _write(app, out.getvalue(), commit, reason, timeout_s, as_json)


@param.command("import", help=tr("Set parameters from a list (CSV).", "按清单(CSV)设置参数。"))
@File
@Commit
@Reason
@Timeout
@json_option
@pass_app
@reported
def import_(app: App, path: Path, commit: bool, reason: str, timeout_s: float, as_json: bool) -> None:
    """Shown first; with --commit signed, and what one person may change is written at once."""
    _write(app, path.read_text(encoding="utf-8-sig"), commit, reason, timeout_s, as_json)


def _write(app: App, text: str, commit: bool, reason: str, timeout_s: float, as_json: bool) -> None:
    from ..acquisition.parameters import preview
    from ..control import parameters
    from .person import desk, now_us, person

    terminals = _terminals(app)
    settings, changes = _changes(app, text, terminals)
    if not commit:
        names = {d.id: name for name, (d, _) in terminals.items()}
        with desk(app) as conn:
            two = {names[c.device_id]: parameters.reasons_for_two(conn, c) for c in changes}
        if as_json:
            print_json({"batch": None, "devices": len(changes), "settings": len(settings), "two": two})
            return
        click.echo(preview(settings))
        for name, why in two.items():
            if why:
                click.echo(tr(f"{name}: two people must sign: ", f"{name}: 须两人签署: ") + "; ".join(why))
        click.echo(tr("only shown: nothing was stored (--commit)", "仅预览: 未保存 (--commit)"))
        return
    with person(app) as (conn, actor):
        drafts = parameters.draft(conn, now_us(), actor, changes, reason, app.config.control)
        alone = [d.command.id for d in drafts if d.command.signatures == 1]
        if alone:
            parameters.execute(conn, now_us(), actor, alone)
        batch = int(conn.execute("SELECT batch FROM command WHERE id = %s", (drafts[0].command.id,)).fetchone()[0])  # type: ignore[index]
        waiting = len(drafts) - len(alone)
        if waiting and not as_json:
            click.echo(
                tr(
                    f"{waiting} of batch {batch} wait for a second person: fuhe param approve {batch}",
                    f"批次 {batch} 有 {waiting} 项待第二人: fuhe param approve {batch}",
                )
            )
        _report(conn, batch, _wait(conn, alone, timeout_s), terminals, as_json, waiting)


@param.command(help=tr("Sign a batch as the second person; it is written then.", "第二人批准一批参数, 随后写入。"))
@click.argument("batch", type=int, required=False)
@click.option(
    "--digits", multiple=True, metavar="DEVICE=DDDD",
    help=tr("last four address digits, else asked for", "终端地址后四位, 否则询问"),
)  # fmt: skip
@Timeout
@json_option
@pass_app
@reported
def approve(app: App, batch: int | None, digits: tuple[str, ...], timeout_s: float, as_json: bool) -> None:
    """Everything of the batch that waits, all or nothing."""
    from ..control import commands, parameters
    from ..control.rules.states import State
    from .person import device_names, now_us, person

    typed = dict(d.split("=", 1) for d in digits if "=" in d)
    terminals = _terminals(app)
    with person(app, "parameter.approve") as (conn, actor):
        waiting = [c for c in parameters.batch(conn, batch) if c.state is State.SUBMITTED and c.signatures == 2]
        if not waiting:
            raise UsageError(tr("nothing waits for approval", "没有待批准参数"))
        names = device_names(conn)
        given = {}
        for c in waiting:
            name = names[c.device_id]
            if name not in typed:
                for s in c.settings:
                    click.echo(f"{name}  {s['item']} p{s['pn']}: {s['values']}", err=True)
                question = tr(f"{name}: last four digits of its address", f"{name}: 终端地址后四位")
                typed[name] = click.prompt(question, err=True)
            given[c.id] = typed[name]
        commands.approve_many(conn, now_us(), actor, given, app.config.control)
        parameters.execute(conn, now_us(), actor, list(given))
        number = waiting[0].batch or 0
        _report(conn, number, _wait(conn, list(given), timeout_s), terminals, as_json)


@param.command(help=tr("What came of a batch (default: the last).", "一批参数的结果 (默认最近一批)。"))
@click.argument("batch", type=int, required=False)
@json_option
@pass_app
@reported
def status(app: App, batch: int | None, as_json: bool) -> None:
    """Exit status 1 if anything of it failed."""
    from ..control import parameters
    from .person import person

    with person(app) as (conn, _):
        found = parameters.batch(conn, batch)
        if not found:
            raise UsageError(tr("no such batch", "没有该批次"))
        _report(conn, found[0].batch or 0, [c.id for c in found], _terminals(app), as_json)


@param.command(help=tr("Withdraw what of a batch is not written yet.", "撤销一批中尚未写入的参数。"))
@click.argument("batch", type=int)
@Reason
@json_option
@pass_app
@reported
def cancel(app: App, batch: int, reason: str, as_json: bool) -> None:
    """By whom drafts parameters, with a reason."""
    from ..control import commands, parameters
    from ..control.rules.states import State
    from .person import now_us, person, say

    may = (State.SUBMITTED, State.APPROVED, State.BLOCKED)
    with person(app, "parameter.set") as (conn, actor):
        found = [c for c in parameters.batch(conn, batch) if c.state in may]
        for c in found:
            commands.cancel(conn, now_us(), actor, c.id, reason)
    say(as_json, {"cancelled": len(found)}, tr(f"{len(found)} withdrawn", f"已撤销 {len(found)} 项"))


# -- helpers ----------------------------------------------------------------------------------------------------------


def _terminals(app: App) -> dict[str, tuple[Device, str]]:
    """Terminals that take parameters, with their editions."""
    from ..storage.database import Database
    from ..storage.devices import load_devices
    from .asking import profiles_of

    profiles = profiles_of(app)
    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        devices = load_devices(connection)
    found = {}
    for device in devices:
        profile = profiles.get(device.profile)
        if profile is not None and profile.protocol == PROTOCOL and device.enabled:
            found[device.name] = (device, str(device.options.get("edition") or profile.version))
    return found


def _edition_of(terminals: Mapping[str, tuple[Device, str]], name: str) -> str:
    if name not in terminals:
        raise UsageError(tr(f"no terminal {name!r} that has parameters", f"没有可读参数的终端 {name!r}"))
    return terminals[name][1]


def _changes(
    app: App, text: str, terminals: Mapping[str, tuple[Device, str]]
) -> tuple[tuple[Setting, ...], list[Change]]:
    """A list as settings and as changes by device, passwords as names of the secrets file."""
    from ..acquisition.parameters import parse_settings, split
    from ..acquisition.setting_secrets import expanded, named, names_in
    from ..acquisition.terminal_control import WRITE_BYTES
    from ..control.parameters import Change
    from ..daemon.secrets import SecretBook

    book: list[SecretBook] = []

    def secrets() -> SecretBook:
        if not book:
            book.append(SecretBook.load(app.config.secrets_file))
        return book[0]

    first = names_in(text)
    parsed = parse_settings(
        expanded(text, lambda name: secrets().password(name)).encode(), {n: e for n, (_, e) in terminals.items()}
    )
    if parsed.faults:
        raise UsageError("\n".join(str(f) for f in parsed.faults))
    pieces = tuple(replace(p) for s in parsed.settings for p in split(s, WRITE_BYTES))
    by_device: dict[int, list[dict[str, Any]]] = {}
    for piece in pieces:
        values = named(piece.data, lambda password: secrets().name_of(password, first))
        by_device.setdefault(terminals[piece.device][0].id, []).append(
            {"item": f"F{piece.fn}", "pn": piece.pn, "values": values}
        )
    return pieces, [Change(device_id=d, settings=rows) for d, rows in by_device.items()]


def _wait(conn: Conn, ids: Sequence[int], timeout_s: float) -> list[int]:
    """Until the daemon has done with these commands, or the time is over; LinkError if it has not even begun."""
    from ..control.command import by_ids
    from ..control.rules.states import FINAL, State

    done = FINAL | {State.BLOCKED}
    deadline = time.monotonic() + timeout_s
    while timeout_s and ids:
        found = by_ids(conn, ids)
        if all(c.state in done for c in found):
            break
        if time.monotonic() >= deadline:
            if all(c.state is State.CHECKING for c in found):
                raise LinkError(
                    tr(
                        f"nothing happened within {timeout_s:g} s: is `fuhe run` running?",
                        f"{timeout_s:g} 秒内无动作: fuhe run 是否在运行?",
                    )
                )
            break
        time.sleep(0.2)
    return list(ids)


def _report(
    conn: Conn,
    batch: int,
    ids: Sequence[int],
    terminals: Mapping[str, tuple[Device, str]],
    as_json: bool,
    waiting: int = 0,
) -> None:
    """What came of these commands, field by field; exit status 1 if any failed. waiting: others, for a signature."""
    from ..control.command import by_ids
    from ..control.rules.states import State
    from .person import device_names

    found = by_ids(conn, ids) if ids else []
    names = device_names(conn)
    failed = [c for c in found if c.state in (State.FAILED, State.BLOCKED, State.EXPIRED)]
    if as_json:
        print_json(
            {
                "batch": batch,
                "waiting": waiting,
                "commands": [asdict(c) | {"device": names[c.device_id]} for c in found],
            }
        )
    for c in found if not as_json else ():
        click.echo(f"{c.id}  {names[c.device_id]}  {c.state.value}  {c.attention}".rstrip())
        _lines(c, terminals.get(names[c.device_id], (None, ""))[1])
    if failed:
        raise SystemExit(1)


def _lines(command: Command, edition: str) -> None:
    from ..acquisition.terminal_control import unlike

    for result in command.set_results:
        place = f"    {result['item']} p{result['pn']}"
        if result["equal"]:
            click.echo(f"{place}: " + tr("written and read back", "已写入并回读一致"))
            continue
        for line in unlike(result, edition) if edition else [result["fault"]]:
            click.echo(f"{place}: {line}")
