"""The options of a device list's `options` column: what each says, who reads it, and how it is written.

One table, so that a mistyped option is a fault of its row instead of a setting that nobody obeys.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

from ..model.lang import tr
from ..protocols.qgdw1376.edition import NAMES

Words = tuple[str, str]
_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_TIMES: Final = re.compile(r"(([01]?[0-9]|2[0-3]):[0-5][0-9])(,\s*([01]?[0-9]|2[0-3]):[0-5][0-9])*")
_SAID: Final[dict[str, Words]] = {
    "since": ("business day from which it is in service, YYYY-MM-DD", "投运日 YYYY-MM-DD"),
    "simulated": ("1: not a real device", "1: 仿真设备"),
    "line": ("serial line behind a dial-in server that it shares", "接入服务器后共用的串行线"),
    "framing": ("Modbus on TCP: tcp or rtu", "Modbus/TCP 的帧格式: tcp 或 rtu"),
    "via": ("name of the terminal that carries it", "转发终端名"),
    "port": ("the terminal's port, 1-31", "终端端口 1-31"),
    "baud": ("speed of that port", "端口速率"),
    "parity": ("parity of that port: N, E, O", "端口校验: N、E、O"),
    "edition": (f"edition of the terminal: {', '.join(NAMES)}", f"终端规约版本: {', '.join(NAMES)}"),
    "msa": ("master station address, 1-127", "主站地址 1-127"),
    "pw_length": ("bytes of the PW field, 0-16", "PW 字段字节数 0-16"),
    "heartbeat_s": ("heartbeat of the terminal, 10-86400", "终端心跳周期 10-86400"),
    "curve_label": ("start or end: what a curve's time labels", "曲线时标: start 或 end"),
    "settlement": (
        "settlement freezes that a clock set keeps away from, HH:MM,HH:MM",
        "结算冻结时刻 HH:MM,HH:MM, 对时避开",
    ),
}
ONE_OF: Final[dict[str, tuple[str, ...]]] = {
    "edition": NAMES,
    "framing": ("tcp", "rtu"),
    "curve_label": ("start", "end"),
    "simulated": ("0", "1", "no", "yes", "false", "true"),
}
RANGES: Final[dict[str, tuple[int, int]]] = {"msa": (1, 127), "pw_length": (0, 16), "heartbeat_s": (10, 86_400)}


def faults_of(options: Mapping[str, str]) -> list[str]:
    """What is wrong with options whatever the device: unknown names, values that nobody understands."""
    found = []
    for name, text in options.items():
        if name not in _SAID:
            near = difflib.get_close_matches(name, _SAID, 1)
            known = ", ".join(sorted(_SAID))
            hint = (
                tr(f"did you mean {near[0]}?", f"是否为 {near[0]}?")
                if near
                else tr(f"known: {known}", f"可用: {known}")
            )
            found.append(tr(f"{name}: no such option; {hint}", f"{name}: 无此选项; {hint}"))
        elif name in ONE_OF and text not in ONE_OF[name]:
            names = ", ".join(ONE_OF[name])
            found.append(tr(f"{name}: one of {names}", f"{name}: 应为 {names} 之一"))
        elif name == "settlement" and not _TIMES.fullmatch(text):
            found.append(tr("settlement: HH:MM, several with commas", "settlement: 应为 HH:MM, 多个用逗号分隔"))
        elif name in RANGES:
            low, high = RANGES[name]
            if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
                found.append(tr(f"{name}: {low} to {high}", f"{name}: 应在 {low} 至 {high} 之间"))
    return found


def table() -> list[tuple[str, str]]:
    """(name, what it says) of every option, for the documentation and the fault texts."""
    return [(name, tr(*said)) for name, said in _SAID.items()]
