"""`fuhe audit`: read, verify and export the hash-chained record. Verifying an exported file needs no database."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ..control import audit as chain
from ..control.sheet import parse_instant
from ..model.lang import tr
from ..model.times import from_us, to_us
from ..protocols.common.errors import UsageError
from .common import App, json_option, pass_app, print_json, reported
from .person import local, now_us, person, show_table


@click.group(help=tr("The audit: read, verify, export.", "审计: 查看、校验、导出。"))
def audit() -> None:
    """The group of audit verbs."""


def anchor_file(app: App) -> Path:
    """Where the daemon keeps the anchors of this installation."""
    return app.config.data_dir / "audit-anchor.jsonl"


def _print(records: list[chain.Record], as_json: bool) -> None:
    if as_json:
        print_json([asdict(r) for r in records])
        return
    head = [
        "#",
        tr("time", "时间"),
        tr("who", "人员"),
        tr("role", "角色"),
        tr("action", "操作"),
        tr("object", "对象"),
        tr("result", "结果"),
        tr("reason", "原因"),
    ]
    rows = [
        [str(r.seq), local(from_us(r.time_us)), r.actor, r.role, r.action, r.object, r.result, r.reason]
        for r in records
    ]
    show_table(head, rows)


@audit.command(help=tr("The last records.", "最近记录。"))
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=20, show_default=True)
@json_option
@pass_app
@reported
def tail(app: App, count: int, as_json: bool) -> None:
    """The newest `count` records in order."""
    with person(app, "audit.read") as (conn, _):
        _print(chain.read(conn, last=count), as_json)


@audit.command(help=tr("Records of an object, a number or a time span.", "按对象、编号或时间查看。"))
@click.argument("what", required=False)
@click.option("--from", "begin", help=tr("from (business time)", "起(业务时间)"))
@click.option("--to", "end", help=tr("to (business time)", "止(业务时间)"))
@json_option
@pass_app
@reported
def show(app: App, what: str | None, begin: str | None, end: str | None, as_json: bool) -> None:
    """WHAT: a record's number (shown whole) or an object such as command:7."""
    with person(app, "audit.read") as (conn, _):
        if what is not None and what.isdigit():
            found = [r for r in chain.read(conn, after=int(what) - 1) if r.seq == int(what)]
            if not found:
                raise UsageError(tr(f"no record {what}", f"没有记录 {what}"))
            if as_json:
                print_json(asdict(found[0]))
                return
            for name, value in asdict(found[0]).items():
                text = (
                    json.dumps(json.loads(value), ensure_ascii=False, indent=2)
                    if name in ("before", "after")
                    else value
                )
                click.echo(f"{name}: {text}")
            return
        span = [None if t is None else to_us(parse_instant(t)) for t in (begin, end)]
        _print(chain.read(conn, object_=what, from_us_=span[0], to_us_=span[1]), as_json)


@audit.command(help=tr("Walk the chain: sound, or the first break.", "校验链: 完好, 或首个断点。"))
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, exists=True),
    help=tr("an exported file instead of the database", "校验导出文件"),
)
@click.option(
    "--anchors",
    type=click.Path(path_type=Path, exists=True),
    help=tr("anchor file (default: the installation's)", "锚点文件"),
)
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, exists=True),
    help=tr("public key of the anchors (default: the installation's)", "锚点公钥(默认: 本系统)"),
)
@json_option
@pass_app
@reported
def verify(app: App, path: Path | None, anchors: Path | None, key_file: Path | None, as_json: bool) -> None:
    """Exit status 1 if the chain is broken or an anchor is not signed by the key."""
    from ..control.anchors import forged, public_key

    own = anchor_file(app)
    where = anchors or (own if path is None and own.exists() else None)
    known = chain.read_anchors(where) if where else []
    key_file = key_file or (own.with_suffix(".pub") if where == own and own.with_suffix(".pub").exists() else None)
    if path is not None:
        count, broken = chain.verify(chain.read_jsonl(path), known)
    else:
        with person(app, "audit.read") as (conn, _):
            count, broken = chain.verify(chain.read(conn), known)
    if broken is None and key_file is not None:
        broken = forged(known, public_key(key_file))
    signed = known and key_file is not None
    if as_json:
        print_json(
            {
                "records": count,
                "anchors": len(known),
                "signed": bool(signed),
                "sound": broken is None,
                "break": None if broken is None else asdict(broken),
            }
        )
    elif broken is None:
        how = tr("signed anchors", "个已签名锚点") if signed else tr("anchors", "个锚点")
        click.echo(tr(f"sound: {count} records, {len(known)} {how}", f"完好: {count} 条记录, {len(known)} {how}"))
    else:
        click.echo(tr(f"BROKEN at record {broken.seq}: {broken.text}", f"断于记录 {broken.seq}: {broken.text}"))
    if broken is not None:
        raise SystemExit(1)


@audit.command(help=tr("Write all records as JSON lines.", "导出为 JSON 行。"))
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@json_option
@pass_app
@reported
def export(app: App, path: Path, as_json: bool) -> None:
    """The export itself is recorded."""
    with person(app, "audit.read") as (conn, actor):
        with conn.transaction():
            chain.append(conn, now_us(), [chain.Entry(actor=actor, action="audit.export", object=path.name)])
        count = chain.export_jsonl(path, chain.read(conn))
    if as_json:
        print_json({"records": count, "file": str(path)})
    else:
        click.echo(tr(f"{count} records written to {path}", f"已导出 {count} 条至 {path}"))
