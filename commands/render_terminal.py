"""Explanations of Q/GDW 1376.1 frames for people: plain objects (qgdw1376.plain) as lines, with the tables' names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, cast

from ..model.lang import lang, tr
from ..protocols.qgdw1376.layout import Field, Layout, all_fields
from ..protocols.qgdw1376.table import AFN_NAMES, ErcRow, lookup_erc, lookup_name
from ..protocols.qgdw1376.terms import label

Pair = tuple[str, str]
Plain = Mapping[str, object]
_FAULTS: Final[dict[str, Pair]] = {
    "unknown_fn": ("not in the tables", "数据表中没有"),
    "short": ("the data end early", "数据不完整"),
    "behind_unknown": ("its start cannot be told", "无法确定起始位置"),
    "no_class": ("no class named", "未指明信息类"),
}
_ROOM: Final = 100  # columns that a list of values may take on its line


def lines_of(answer: Plain) -> Iterator[Pair]:
    """(label, text) of a decoded frame; a label that starts with blanks belongs to the line above."""
    afn = int(str(answer["afn"]), 16)
    control, seq = _map(answer["control"]), _map(answer["seq"])
    up = control["dir"] == "up"
    yield tr("what", "内容"), _headline(afn, up, bool(control["prm"]), bool(control.get("acd")))
    yield tr("terminal", "终端"), _address(_map(answer["address"]))
    yield tr("frame", "帧"), _frame(answer, control, up)
    yield tr("sequence", "序列"), _sequence(seq)
    yield from _aux(_map(answer.get("aux", {})))
    items = answer.get("items")
    for item in items if isinstance(items, list) else ():
        yield from _item(_map(item), afn, up)
    if answer.get("rest_hex"):
        yield tr("bytes left over", "多余字节"), str(answer["rest_hex"])
    if answer.get("skipped_bytes"):
        yield tr("other bytes", "无关字节"), str(answer["skipped_bytes"])


def _map(value: object) -> Plain:
    return cast(Plain, value) if isinstance(value, Mapping) else {}


def _headline(afn: int, up: bool, prm: bool, acd: bool) -> str:
    en, zh = AFN_NAMES.get(afn, ("unknown function", "未知功能"))
    sides = {
        (False, True): ("master asks", "主站发起"),
        (False, False): ("master answers", "主站应答"),
        (True, True): ("terminal reports", "终端发起"),
        (True, False): ("terminal answers", "终端应答"),
    }
    who = sides[up, prm]
    event = tr(", important event waits (ACD)", "，有重要事件 (ACD)") if acd else ""
    return tr(f"{who[0]}: {en} (AFN {afn:02X})", f"{who[1]}: {zh} (AFN {afn:02X})") + event


def _address(address: Plain) -> str:
    a1, a2, msa = address["a1"], int(str(address["a2"])), address["msa"]
    text = f"{a1}-{a2} ({a1}{a2:04X}H)"
    if address["group"]:
        text = tr(f"all terminals of {a1}", f"{a1} 全部终端") if a2 == 0xFFFF else tr(f"group {text}", f"组地址 {text}")
    return text + tr(f", master station {msa}", f"，主站 {msa}")


def _frame(answer: Plain, control: Plain, up: bool) -> str:
    parts = [f"C={control['raw']}", f"PRM={control['prm']}"]
    parts += [f"ACD={control['acd']}"] if up else [f"FCB={control['fcb']}", f"FCV={control['fcv']}"]
    parts.append(tr(f"function {control['func']}", f"功能码 {control['func']}"))
    parts.append(tr(f"{answer['length']} bytes", f"长度 {answer['length']}"))
    parts.append(tr(f"protocol id {answer['protocol_id']}", f"规约标识 {answer['protocol_id']}"))
    if answer.get("preamble_fe"):
        parts.append(f"FE x {answer['preamble_fe']}")
    return ", ".join(parts)


def _sequence(seq: Plain) -> str:
    place = {
        (1, 1): ("single frame", "单帧"),
        (1, 0): ("first of several frames", "多帧：首帧"),
        (0, 0): ("middle frame", "多帧：中间帧"),
        (0, 1): ("last frame", "多帧：末帧"),
    }[int(bool(seq["fir"])), int(bool(seq["fin"]))]
    text = tr(*place) + tr(f", number {seq['seq']}", f"，序号 {seq['seq']}")
    return text + (tr(", confirmation wanted", "，要求确认") if seq["con"] else "")


def _aux(aux: Plain) -> Iterator[Pair]:
    if "ec" in aux:
        ec = cast("list[object]", aux["ec"])
        yield (
            tr("event counters", "事件计数器"),
            tr(f"important {ec[0]}, ordinary {ec[1]}", f"重要 {ec[0]}，一般 {ec[1]}"),
        )
    if "tp" in aux:
        tp = _map(aux["tp"])
        delay = tr(f"valid {tp['delay_min']} min", f"允许延时 {tp['delay_min']} 分")
        yield tr("time tag", "时间标签"), f"PFC {tp['pfc']}, {tp['sent']}, {delay}"
    if aux.get("pw_hex"):
        yield tr("password PW", "消息认证码 PW"), str(aux["pw_hex"])


def _item(item: Plain, afn: int, up: bool) -> Iterator[Pair]:
    row = lookup_name(afn, str(item["name"])) if "name" in item else None
    place = tr("all points", "全部测量点") if item["pn"] == "all" else f"p{item['pn']}"
    head = f"{place} F{item['fn']}"
    if row is not None:
        head_text = f"{row.zh if lang() == 'zh' else row.en} [{row.clause}]"
    else:
        head_text = ""
    fault = str(item.get("fault", ""))
    if fault:
        head_text = f"{head_text}  {tr(*_FAULTS.get(fault, (fault, fault)))}".strip()
    yield head, head_text
    layout = row.layout(afn, up) if row is not None and not fault else None
    yield from _values(_map(item.get("data")), units_of(layout), "  ")


def units_of(layout: Layout | None) -> dict[str, str]:
    """Unit of each field by its name."""
    fields: list[Field] = [] if layout is None else list(all_fields(layout))
    return {field.name: field.unit for field in fields if field.unit}


def _values(data: Plain, units: Mapping[str, str], indent: str) -> Iterator[Pair]:
    for key, value in data.items():
        name = indent + label(key, lang())
        unit = units.get(key, "")
        if isinstance(value, Mapping):
            yield name, ""
            yield from _values(_map(value), units, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for i, row in enumerate(value, 1):
                yield f"{name} {i}", _event_name(_map(row))
                yield from _values(_map(row), _event_units(_map(row)) or units, indent + "  ")
        elif isinstance(value, list):
            yield from _list(name, [scalar(v, "") for v in value], unit)
        else:
            yield name, scalar(value, unit)


def _list(name: str, texts: list[str], unit: str) -> Iterator[Pair]:
    """Values of a list, on as many lines as they need."""
    line = ""
    for i, text in enumerate(texts):
        piece = text + (", " if i + 1 < len(texts) else f" {unit}")
        if len(line) + len(piece) > _ROOM:
            yield name, line.rstrip()
            name, line = "", ""
        line += piece
    yield name, line.rstrip() or tr("none", "无")


def scalar(value: object, unit: str) -> str:
    """A value as people read it."""
    if value is None:
        return tr("no value", "无数据")
    if isinstance(value, list):
        return "[" + ", ".join(scalar(v, "") for v in value) + "]"
    if isinstance(value, bool):
        return tr("yes", "是") if value else tr("no", "否")
    return f"{value} {unit}".rstrip()


def _event_row(event: Plain) -> ErcRow | None:
    erc = event.get("erc")
    return lookup_erc(erc) if isinstance(erc, int) else None


def _event_name(event: Plain) -> str:
    row = _event_row(event)
    return "" if row is None else f"{row.zh if lang() == 'zh' else row.en} (ERC{row.erc})"


def _event_units(event: Plain) -> dict[str, str]:
    row = _event_row(event)
    return {} if row is None else units_of(row.fields)
