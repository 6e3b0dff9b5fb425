"""Explanations of frames for people: the plain objects of `protocols.decode` as aligned lines, English or Chinese."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ..model.lang import lang, tr
from ..protocols.dlt645 import codes
from ..protocols.dlt645.items import lookup

# key -> label; the order is that of the printed lines
_LABELS: Final = {
    "protocol": ("protocol", "规约"),
    "version": ("edition", "版本"),
    "lead_bytes": ("lead bytes FE", "前导字节"),
    "address": ("meter address", "通信地址"),
    "control": ("control code", "控制码"),
    "length": ("data length", "数据长度"),
    "data_unmasked": ("data (minus 33H)", "数据域 (减33H)"),
    "di": ("data identifier", "数据标识"),
    "seq": ("follow-on number", "帧序号"),
    "count": ("number asked", "请求数量"),
    "from_time": ("from", "起始时间"),
    "error_byte": ("error word", "错误信息字"),
    "error_word": ("error word", "错误信息字"),
    "error_bits": ("meaning", "含义"),
    "password_level": ("password level", "密码权限"),
    "password_wire": ("password (as sent)", "密码 (传输序)"),
    "operator_wire": ("operator (as sent)", "操作者代码"),
    "n1": ("command N1", "命令 N1"),
    "n2": ("N2", "N2"),
    "valid_until": ("valid until", "有效截止时间"),
    "duration_min": ("duration, min", "时长 (分)"),
    "new_address": ("new address", "新地址"),
    "freeze_pattern": ("freeze MMDDhhmm", "冻结时间 MMDDhhmm"),
    "baud": ("rate, baud", "通信速率"),
    "execution_bits": ("execution", "执行状态"),
    "output": ("output signal", "输出信号"),
    "payload_hex": ("payload", "数据内容"),
    "partial": ("partial", "后续未完"),
    "value_invalid": ("content refused", "内容无效"),
    "settlement": ("settlement, n-th last", "上 n 结算"),
    "record": ("record, n-th last", "上 n 次记录"),
    "empty": ("empty record", "空记录"),
    "skipped_bytes": ("other bytes", "无关字节"),
}
_SILENT: Final = {
    "valid",
    "from_meter",
    "abnormal",
    "follow_on",
    "function",
    "action",
    "item",
    "values",
    "meaning",
    "freeze",
}
_REASONS: Final = {
    "checksum": ("the checksum is wrong", "校验和错误"),
    "end_byte": ("the end byte 16H is missing", "缺少结束符 16H"),
    "second_start_byte": ("the second 68H is missing", "缺少第二个 68H"),
    "length": ("the data length is over the limit", "数据长度超限"),
    "truncated": ("the frame is cut off", "报文不完整"),
    "length_mismatch": ("the two length fields differ", "两个长度域不一致"),
    "protocol_id": ("the protocol id is neither 1 nor 2", "规约标识不是 1 或 2"),
    "application_layer": ("the frame has no room for AFN, SEQ or its additional information", "应用层不完整"),
    "no_start_byte": ("there is no start byte 68H", "没有起始符 68H"),
    "unknown_protocol": (
        "the bytes are of no known protocol: name it with --protocol",
        "无法识别规约，请用 --protocol 指定",
    ),
}


def human(answer: Mapping[str, object], indent: str = "") -> str:
    """Text of an explanation; several frames are separated by a blank line."""
    frames = answer.get("frames")
    if isinstance(frames, list):
        return "\n\n".join(human(f, indent) for f in frames if isinstance(f, Mapping))
    if answer.get("valid") is False:
        reason = str(answer.get("reason", answer.get("error", "")))
        en, zh = _REASONS.get(reason, (reason, reason))
        return indent + tr(f"not a good frame: {en}", f"报文无效: {zh}")
    if "afn" in answer:
        return _aligned(_terminal_lines(answer), indent)
    lines: list[tuple[str, str]] = []
    if "function" in answer and "from_meter" in answer:
        lines.append((tr("what", "内容"), _headline(answer)))
    for key, value in answer.items():
        if key in _SILENT or value is None or value == "":
            continue
        lines.append((tr(*_LABELS.get(key, (key, key))), _text(key, value, answer)))
    lines += [(name, text) for name, text in _values(answer.get("values"))]
    meaning = answer.get("meaning")
    if isinstance(meaning, Mapping):
        lines += [(str(k), _yes(v)) for k, v in meaning.items()]
    return _aligned(lines, indent)


def _terminal_lines(answer: Mapping[str, object]) -> list[tuple[str, str]]:
    from .render_terminal import lines_of

    return list(lines_of(answer))


def _aligned(lines: Sequence[tuple[str, str]], indent: str) -> str:
    width = max((_columns(label) for label, _ in lines), default=0)
    return "\n".join(f"{indent}{label}{' ' * (width - _columns(label))}  {text}".rstrip() for label, text in lines)


def _columns(text: str) -> int:
    """Places on a terminal: Chinese characters take two."""
    return sum(2 if ord(c) > 0x2E7F else 1 for c in text)


def _yes(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(str(k) for k, v in value.items() if v) or tr("none", "无")
    return tr("yes", "是") if value else tr("no", "否")


def _headline(answer: Mapping[str, object]) -> str:
    version = str(answer.get("version", "2007"))
    function = int(str(answer["control"]), 16) & 0x1F
    name, zh = codes.function_name(function, version)
    text = zh if lang() == "zh" else name.replace("_", " ")
    if answer.get("action"):
        action = codes.action_name(int(str(answer["n1"]), 16))
        text += ": " + (action[1] if action and lang() == "zh" else str(answer["action"]))
    if not answer["from_meter"]:
        return tr(f"request: {text}", f"主站请求: {text}")
    if answer["abnormal"]:
        return tr(f"refused: {text}", f"从站异常应答: {text}")
    more = tr(" (more follows)", " (有后续帧)") if answer["follow_on"] else ""
    return tr(f"reply: {text}{more}", f"从站应答: {text}{more}")


def _text(key: str, value: object, answer: Mapping[str, object]) -> str:
    if key == "di":
        item = lookup(str(value), str(answer.get("version", "2007")))
        if item is not None:
            return f"{value} {item.zh if lang() == 'zh' else item.name} [{item.clause}]"
    if key == "error_bits" and isinstance(value, list):
        return ", ".join(str(v) for v in value) or tr("no reason given", "未说明原因")
    if isinstance(value, bool):
        return _yes(value)
    if isinstance(value, list):
        return ", ".join(str(v) for v in value)
    return str(value)


def _values(values: object) -> list[tuple[str, str]]:
    if not isinstance(values, list):
        return []
    lines = []
    for value in values:
        if not isinstance(value, Mapping) or "name" not in value:
            lines.append(("", str(value)))
            continue
        content = value.get("value")
        text = tr("not fitted", "无数据") if content is None else f"{content} {value.get('unit') or ''}".rstrip()
        if value.get("invalid"):
            text = tr(f"invalid: {value['invalid']}", f"无效: {value['invalid']}")
        if value.get("time"):
            text += f"  @ {value['time']}"
        lines.append((str(value["name"]), text))
    return lines
