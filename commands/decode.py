"""`fuhe decode` explains frames, `fuhe encode` makes requests. Neither talks to a device."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from ..model.lang import tr
from ..protocols.common.errors import FuheError, UsageError
from ..protocols.decode import Found, hunt, to_bytes
from ..protocols.decode import decode as decode_frame
from .common import json_option, print_json, reported
from .render import human

_PROTOCOL = tr(
    "qgdw1376, dlt645, modbus-rtu or modbus-tcp; told by the bytes if missing",
    "qgdw1376、dlt645、modbus-rtu 或 modbus-tcp；缺省自动识别",
)
_VERSION = tr(
    "edition: 2007, 1997, 2007-vendor (DL/T 645); 2013, 2009, 2005 (Q/GDW 1376.1, 376.1, 130)",
    "规约版本：2007、1997、2007-vendor（DL/T 645）；2013、2009、2005（Q/GDW 1376.1、376.1、130）",
)
_PROFILE = tr(
    'register map that names Modbus values, or what a terminal does differently: {"pw_len": 2, "numbering": "2005"}',
    '为 Modbus 数值命名的寄存器表；或终端的差异：{"pw_len": 2, "numbering": "2005"}',
)
_FILE = tr(
    "a capture log (other text around the hex is passed over) or binary", "抓包日志（可夹杂其他文字）或二进制文件"
)
_BATCH = tr("one JSON object a line on standard input, one answer a line", "标准输入每行一个 JSON 对象，每行一个答复")


@click.command(short_help=tr("explain frames", "解析报文"))
@click.argument("frames", nargs=-1, metavar="HEX...")
@click.option("--file", "-f", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=_FILE)
@click.option("--batch", is_flag=True, help=_BATCH)
@click.option("--protocol", "-p", help=_PROTOCOL)
@click.option("--version", "edition", help=_VERSION)
@click.option("--layer", help=tr("layer of the protocol, where it has layers", "规约层次（如有）"))
@click.option("--profile", help=_PROFILE)
@click.option("--secrets", is_flag=True, help=tr("show passwords in the clear", "明文显示密码"))
@json_option
@reported
def decode(
    frames: tuple[str, ...],
    file: Path | None,
    batch: bool,
    protocol: str | None,
    edition: str | None,
    layer: str | None,
    profile: str | None,
    secrets: bool,
    as_json: bool,
) -> None:
    """Explain frames given as hex, in a file or capture log (-f), or as JSON lines (--batch)."""
    if batch:
        if frames or file is not None:
            raise UsageError(
                tr(
                    "--batch reads standard input only: fuhe decode --batch < FILE",
                    "--batch 只读标准输入: fuhe decode --batch < 文件",
                )
            )
        for line in answers(sys.stdin.buffer):
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
        return
    if file is not None:
        found = list(hunt(_capture(file), protocol, edition, profile, secrets=secrets))
        if not found:
            raise UsageError(tr(f"no frame found in {file}", f"{file} 中没有找到报文"))
        _print_all(found, as_json)
        return
    if not frames:
        raise UsageError(tr("give hex, --file FILE or --batch", "请给出十六进制报文、--file 文件 或 --batch"))
    answer = decode_frame(protocol, to_bytes(" ".join(frames)), edition, layer, profile, secrets=secrets)
    if as_json:
        print_json(answer)
    else:
        click.echo(human(answer))
    if answer.get("valid") is False:
        raise SystemExit(1)


def _capture(file: Path) -> str:
    """The text of a log; a binary capture becomes one line of hex."""
    raw = file.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.hex()
    return text if all(c.isprintable() or c in "\r\n\t\ufeff" for c in text) else raw.hex()


def _print_all(found: list[Found], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for one in found:
        click.echo(tr(f"line {one.line}: {one.hex}", f"第 {one.line} 行: {one.hex}"))
        click.echo(human(one.decoded, indent="  ") + "\n")


class Ask(msgspec.Struct):
    """One line of `--batch`; without protocol it is told by the bytes."""

    hex: str
    id: Any = None
    protocol: str | None = None
    version: str | None = None
    layer: str | None = None
    profile: str | dict[str, object] | None = None


def answers(lines: Iterable[bytes]) -> Iterator[bytes]:
    """{"id","decoded"} or {"id","error"} for every line; a bad line is answered and does not stop the rest.

    Passwords are kept as they are: this is the interface for programs and tests.
    """
    reader = msgspec.json.Decoder(Ask)
    encode_json = msgspec.json.Encoder().encode
    for line in lines:
        if not line.strip():
            continue
        try:
            ask = reader.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            yield encode_json({"id": _id_of(line), "error": f"not a request: {error}"})
            continue
        try:
            decoded = decode_frame(ask.protocol, to_bytes(ask.hex), ask.version, ask.layer, ask.profile, secrets=True)
            yield encode_json({"id": ask.id, "decoded": decoded})
        except FuheError as error:
            yield encode_json({"id": ask.id, "error": str(error)})


def _id_of(line: bytes) -> object:
    """The id of a line that is JSON but no request; None where it is not even that."""
    try:
        found = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found.get("id") if isinstance(found, dict) else None


@click.group(short_help=tr("make request frames", "生成请求报文"))
def encode() -> None:
    """Make request frames; the hex goes to standard output. Nothing is sent."""


_ADDRESS = click.argument("address")
_EDITION = click.option("--version", "edition", type=click.Choice(["2007", "1997"]), default="2007", show_default=True)
_LEAD = click.option(
    "--lead", type=click.IntRange(0, 16), default=4, show_default=True, help=tr("FE bytes", "前导字节数")
)
_LEVEL = click.option("--level", default="02", show_default=True, help=tr("password level", "密码权限"))
_PASSWORD = click.option(
    "--password", default="000000", help=tr("six digits (visible in the frame)", "六位密码（报文中可见）")
)
_OPERATOR = click.option("--operator", default="00000000", help=tr("operator code, eight hex digits", "操作者代码"))
_MOMENT = click.DateTime(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S"])


@encode.command("read", short_help=tr("DL/T 645: read a data item", "DL/T 645 读数据"))
@_ADDRESS
@click.argument("di")
@click.option("--count", type=int, help=tr("number of load records", "负荷记录块数"))
@click.option(
    "--from", "start", type=_MOMENT, help=tr("first load record (meter time)", "负荷记录起始时间（表计时间）")
)
@click.option("--seq", type=int, help=tr("follow-on number", "后续帧序号"))
@_EDITION
@_LEAD
@json_option
@reported
def encode_read(
    address: str, di: str, count: int | None, start: Any, seq: int | None, edition: str, lead: int, as_json: bool
) -> None:
    """Read DI of the meter ADDRESS (AA bytes on the left = unknown digits)."""
    from ..protocols.dlt645 import requests

    if seq is not None:
        frame = requests.read_follow_on(address, di, seq, edition)
    elif count is not None or start is not None:
        frame = requests.read_load(address, di, count or 1, start, edition)
    else:
        frame = requests.read(address, di, edition)
    _print_request(frame.encode(lead), as_json)


@encode.command("address", short_help=tr("DL/T 645: ask for the address", "DL/T 645 读通信地址"))
@_LEAD
@json_option
@reported
def encode_address(lead: int, as_json: bool) -> None:
    """Ask the only meter on the line for its address."""
    from ..protocols.dlt645 import requests

    _print_request(requests.read_address().encode(lead), as_json)


@encode.command("time", short_help=tr("DL/T 645: set the clock", "DL/T 645 广播校时"))
@click.argument("moment", type=_MOMENT)
@click.option("--address", default="999999999999", show_default=True)
@_LEAD
@json_option
@reported
def encode_time(moment: Any, address: str, lead: int, as_json: bool) -> None:
    """Broadcast the time MOMENT (meter time, YYYY-MM-DDThh:mm:ss), or send it to one meter."""
    from ..protocols.dlt645 import requests

    _print_request(requests.set_time(moment, address).encode(lead), as_json)


@encode.command("freeze", short_help=tr("DL/T 645: freeze command", "DL/T 645 冻结命令"))
@_ADDRESS
@click.option("--minute", type=int, default=99)
@click.option("--hour", type=int, default=99)
@click.option("--day", type=int, default=99)
@click.option("--month", type=int, default=99)
@_LEAD
@json_option
@reported
def encode_freeze(address: str, minute: int, hour: int, day: int, month: int, lead: int, as_json: bool) -> None:
    """Freeze now, or hourly, daily, monthly (99 = every)."""
    from ..protocols.dlt645 import requests

    frame = requests.freeze(address, minute=minute, hour=hour, day=day, month=month)
    _print_request(frame.encode(lead), as_json)


@encode.command("write", short_help=tr("DL/T 645: write a parameter", "DL/T 645 写数据"))
@_ADDRESS
@click.argument("di")
@click.argument("values", nargs=-1)
@click.option("--payload", help=tr("bytes as sent (hex) instead of values", "直接给出十六进制数据，代替数值"))
@_LEVEL
@_PASSWORD
@_OPERATOR
@_EDITION
@_LEAD
@json_option
@reported
def encode_write(
    address: str,
    di: str,
    values: tuple[str, ...],
    payload: str | None,
    level: str,
    password: str,
    operator: str,
    edition: str,
    lead: int,
    as_json: bool,
) -> None:
    """Write VALUES (in the order of the item's fields) to DI."""
    from ..protocols.dlt645 import requests
    from ..protocols.dlt645.items import encode_payload, lookup

    if payload is not None:
        wire = to_bytes(payload)
    else:
        item = lookup(di, edition)
        if item is None:
            raise UsageError(tr(f"{di} is not in the tables: give --payload", f"{di} 不在数据标识表中，请用 --payload"))
        wire = encode_payload(item, values)
    access = requests.Access(level=level, password=password, operator=operator)
    _print_request(requests.write(address, di, wire, access, edition).encode(lead), as_json)


@encode.command("control", short_help=tr("DL/T 645: relay control 1CH", "DL/T 645 跳合闸控制"))
@_ADDRESS
@click.argument("action")
@click.option(
    "--until", type=_MOMENT, help=tr("valid until (meter time); required", "命令有效截止时间（表计时间），必填")
)
@click.option("--n2", type=int, default=0, help=tr("N2: duration in units of 5 minutes", "N2：时长，单位 5 分钟"))
@click.option("--short-form", is_flag=True, help=tr("older vendor form without time", "无截止时间的旧厂家格式"))
@_LEVEL
@_PASSWORD
@_OPERATOR
@_LEAD
@json_option
@reported
def encode_control(
    address: str,
    action: str,
    until: Any,
    n2: int,
    short_form: bool,
    level: str,
    password: str,
    operator: str,
    lead: int,
    as_json: bool,
) -> None:
    """ACTION: trip, permit_close, direct_close, alarm_on, alarm_off, protect_on, protect_off, trip_auto_close ..."""
    from ..protocols.dlt645 import requests

    access = requests.Access(level=level, password=password, operator=operator)
    frame = requests.control(address, action, access, until, n2=n2, short_form=short_form)
    _print_request(frame.encode(lead), as_json)


@encode.command("modbus", short_help=tr("Modbus: any request", "Modbus 请求"))
@click.argument("request")
@click.option("--tcp", is_flag=True, help=tr("Modbus TCP instead of RTU", "Modbus TCP（缺省 RTU）"))
@json_option
@reported
def encode_modbus(request: str, tcp: bool, as_json: bool) -> None:
    """REQUEST is a JSON object: {"unit": 1, "function": 3, "address": 0, "count": 2}."""
    from ..protocols.modbus.encode import encode as encode_request

    try:
        fields = msgspec.json.decode(request.encode(), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise UsageError(tr(f"REQUEST is no JSON object: {error}", f"REQUEST 不是 JSON 对象: {error}")) from error
    _print_request(encode_request("modbus-tcp" if tcp else "modbus-rtu", fields), as_json)


@encode.command("qgdw1376", short_help=tr("Q/GDW 1376.1: any frame", "Q/GDW 1376.1 报文"))
@click.argument("request")
@click.option("--version", "edition", help=tr("edition: 2013, 2009, 2005", "规约版本：2013、2009、2005"))
@click.option("--profile", help=_PROFILE)
@json_option
@reported
def encode_terminal(request: str, edition: str | None, profile: str | None, as_json: bool) -> None:
    """REQUEST is a JSON object as decode prints it.

    {"address": {"a1": "3301", "a2": 1, "msa": 1}, "afn": "0C", "items": [{"pn": 1, "fn": 25}]} asks the terminal
    3301-1 for F25 of p1. control, seq, aux and protocol_id follow from the rest where they are not given.
    """
    from ..protocols.decode import terminal_profile
    from ..protocols.qgdw1376.edition import of_profile
    from ..protocols.qgdw1376.message import build
    from ..protocols.qgdw1376.plain import message_of_plain

    try:
        raw = msgspec.json.decode(request.encode(), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise UsageError(tr(f"REQUEST is no JSON object: {error}", f"REQUEST 不是 JSON 对象: {error}")) from error
    peer = of_profile(terminal_profile(profile), edition)
    _print_request(build(message_of_plain(raw, peer), peer).encode(), as_json)


def _print_request(wire: bytes, as_json: bool) -> None:
    if as_json:
        print_json({"hex": wire.hex().upper(), "length": len(wire)})
    else:
        click.echo(wire.hex().upper())
