"""The rows of a device list: each cell checked, rows gathered to devices, every fault noted with row and column.

The file around them (encoding, header, quoting) is devices.py's matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from ..model.devices import POINT_KINDS, Device, Point, PointKind
from ..model.lang import tr
from .config import LinkConfig
from .device_options import faults_of
from .profile import Profile
from .relay import CARRIED, VIA, option_faults
from .terminal import parse_address

COLUMNS: Final = (
    "name", "link", "profile", "address", "point", "pn", "kind", "ct_ratio", "pt_ratio", "contract_kva",
    "nominal_v", "wiring", "enabled", "secret", "options",
)  # fmt: skip
READING_DAYS: Final = ("dlt645", "modbus")
DEVICE_COLUMNS: Final = ("link", "profile", "address", "enabled", "secret", "options")
WIRINGS: Final = ("3P4W", "3P3W", "1P")
MAX_TEXT: Final = 64

_YES: Final = {"": True, "yes": True, "true": True, "1": True, "是": True}
_NO: Final = {"no": False, "false": False, "0": False, "否": False}
_SWITCH: Final = _YES | _NO
_LINKS_OF: Final = {
    "dlt645": ("serial", "tcp", "listen-tcp", "listen-udp"),
    "modbus": ("serial", "tcp", "listen-tcp"),
    "mqtt": ("mqtt",),
    "qgdw1376": ("serial", "tcp", "listen-tcp", "listen-udp"),
}
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault of a device list: row as an editor counts lines (the header is row 1), column, what is wrong."""

    row: int
    column: str
    message: str

    def __str__(self) -> str:
        return tr(f"row {self.row}, {self.column}: {self.message}", f"第 {self.row} 行, {self.column}: {self.message}")


@dataclass(frozen=True, slots=True)
class ParsedList:
    """Devices sorted by name, or (if there is any fault) no devices at all and every fault in order of rows."""

    devices: tuple[Device, ...]
    faults: tuple[Fault, ...]


@dataclass(slots=True)
class _Draft:
    """A device while its rows are being gathered."""

    row: int
    cells: tuple[str, ...]
    device: dict[str, object]
    points: list[Point] = field(default_factory=list)


@dataclass(slots=True)
class RowReader:
    """Takes row after row; `finish` gives the devices or the faults, never both."""

    links: Mapping[str, LinkConfig]
    profiles: Mapping[str, Profile]
    faults: list[Fault] = field(default_factory=list)
    drafts: dict[str, _Draft] = field(default_factory=dict)
    addresses: dict[tuple[str, str, str], str] = field(default_factory=dict)
    point_rows: dict[str, int] = field(default_factory=dict)

    def fault(self, row: int, column: str, en: str, zh: str) -> None:
        self.faults.append(Fault(row, column, tr(en, zh)))

    def take(self, row: int, cells: Mapping[str, str]) -> None:
        """One data row: opens or continues its device, adds its point."""
        name = cells["name"]
        for column in COLUMNS:
            self.check_text(row, column, cells[column])
        if not name:
            self.fault(row, "name", "is empty", "为空")
            return
        device_cells = tuple(cells[c] for c in DEVICE_COLUMNS)
        draft = self.drafts.get(name)
        if draft is None:
            draft = _Draft(row, device_cells, self.device_fields(row, cells))
            self.drafts[name] = draft
        else:
            for column, here, first in zip(DEVICE_COLUMNS, device_cells, draft.cells, strict=True):
                if here != first:
                    en = f"{here!r}, but {first!r} in row {draft.row} of the same device (or the name stands twice)"
                    zh = f"{here!r} 与同一设备第 {draft.row} 行的 {first!r} 不同 (或设备重名)"
                    self.fault(row, column, en, zh)
        self.add_point(row, cells, draft)

    def check_text(self, row: int, column: str, text: str) -> None:
        if not text.isprintable():
            self.fault(row, column, "holds a line break or another control character", "含有换行或控制字符")
        elif len(text) > MAX_TEXT and column != "options":
            self.fault(row, column, f"is longer than {MAX_TEXT} characters", f"超过 {MAX_TEXT} 个字符")

    def device_fields(self, row: int, cells: Mapping[str, str]) -> dict[str, object]:
        link, profile = self.links.get(cells["link"]), self.profiles.get(cells["profile"])
        if link is None:
            en = f"no link {cells['link']!r} in config.yaml (there are: {', '.join(self.links) or 'none'})"
            zh = f"config.yaml 中没有链路 {cells['link']!r} (现有: {', '.join(self.links) or '无'})"
            self.fault(row, "link", en, zh)
        if profile is None:
            en = f"no profile {cells['profile']!r} (there are: {', '.join(self.profiles)})"
            zh = f"没有设备档 {cells['profile']!r} (现有: {', '.join(self.profiles)})"
            self.fault(row, "profile", en, zh)
        if link is not None and profile is not None and link.kind not in _LINKS_OF[profile.protocol]:
            en = f"a {profile.protocol} device cannot be on a link of kind {link.kind}"
            zh = f"{profile.protocol} 设备不能接在 {link.kind} 链路上"
            self.fault(row, "link", en, zh)
        address = self.address(row, cells["address"], link, profile)
        options = self.options(row, cells["options"])
        self.relayed(row, options, profile)
        if address is not None:
            line = wire_of(options, link)
            other = self.addresses.setdefault((cells["link"], line, address), cells["name"])
            if other != cells["name"]:
                en = f"{address} is already the address of {other} on link {cells['link']}"
                zh = f"链路 {cells['link']} 上 {other} 已使用地址 {address}"
                self.fault(row, "address", en, zh)
        if cells["secret"] and not _WORD.fullmatch(cells["secret"]):
            en = "must be the name of an entry of the secrets file (letters, digits, . _ -), never the secret itself"
            zh = "应为密钥文件中的条目名 (字母、数字、. _ -), 不可直接填写密码"
            self.fault(row, "secret", en, zh)
        return {
            "link": cells["link"],
            "profile": cells["profile"],
            "address": address or "",
            "enabled": self.switch(row, cells["enabled"]),
            "secret": cells["secret"] or None,
            "options": options,
        }

    def relayed(self, row: int, options: Mapping[str, str], profile: Profile | None) -> None:
        """A device behind a terminal: its options, and whether its protocol can be carried."""
        own = []
        if options.get("reading_day", "1") != "1" and profile is not None and profile.protocol not in READING_DAYS:
            en = f"reading_day: devices of {profile.protocol} are not read on a day of their own"
            own = [tr(en, f"reading_day: {profile.protocol} 设备没有单独的抄表例日")]
        for message in [*faults_of(options), *option_faults(options), *own]:
            self.faults.append(Fault(row, "options", message))
        if VIA in options and profile is not None and profile.protocol not in CARRIED:
            en = f"via: a {profile.protocol} device cannot be read through a terminal"
            self.fault(row, "options", en, f"via: {profile.protocol} 设备不能经终端转发")

    def carriers(self) -> None:
        """Terminals that rows of this file name with `via` and that stand in this file: on the same link, terminals."""
        for name, draft in self.drafts.items():
            options = draft.device["options"]
            via = options.get(VIA) if isinstance(options, dict) else None
            carrier = self.drafts.get(via) if via is not None else None
            if carrier is None:
                continue
            profile = self.profiles.get(str(carrier.device["profile"]))
            if profile is not None and profile.protocol != "qgdw1376":
                self.fault(draft.row, "options", f"via={via}: {via} is no terminal", f"via={via}: {via} 不是终端")
            elif carrier.device["link"] != draft.device["link"]:
                en = f"via={via}: {name} must name the terminal's link, {carrier.device['link']}"
                self.fault(draft.row, "link", en, f"via={via}: {name} 应填终端所在链路 {carrier.device['link']}")

    def address(self, row: int, text: str, link: LinkConfig | None, profile: Profile | None) -> str | None:
        """The canonical address, None after a fault (or when the protocol is unknown)."""
        if profile is None:
            return None
        if re.fullmatch(r"[0-9.]+[eE]\+?[0-9]+", text):
            en = f"{text} was rounded by a spreadsheet: format the column as text and enter the address again"
            self.fault(row, "address", en, f"{text} 被电子表格舍入: 请将该列设为文本并重新填写")
        elif profile.protocol == "dlt645":
            if re.fullmatch(r"[0-9]{1,12}", text) and text.zfill(12) != "9" * 12:
                return text.zfill(12)
            en = "must be 1 to 12 decimal digits and not the broadcast address 999999999999"
            self.fault(row, "address", en, "应为 1 至 12 位十进制数字, 且不是广播地址 999999999999")
        elif profile.protocol == "modbus":
            low, high = (0, 255) if link is not None and link.kind == "tcp" and link.framing == "tcp" else (1, 247)
            found = re.fullmatch(r"([0-9]{1,3})(?:@([0-9]{1,5}))?", text)
            if found and low <= int(found[1]) <= high and int(found[2] or 0) <= 65535:
                return f"{int(found[1])}@{int(found[2])}" if int(found[2] or 0) else str(int(found[1]))
            en = f"must be a unit number {low} to {high}, or unit@offset of the register map"
            self.fault(row, "address", en, f"应为 {low} 至 {high} 的单元号, 或 单元号@寄存器偏移")
        elif profile.protocol == "qgdw1376":
            terminal = parse_address(text)
            if terminal is not None:
                return terminal.decimal
            en = "must be A1-A2 as 3301-4660 (A2 decimal, 1 to 65535) or 33011234 (A2 as four hexadecimal digits)"
            zh = "应为 3301-4660 (A2 十进制, 1 至 65535) 或 33011234 (A2 为四位十六进制)"
            self.fault(row, "address", en, zh)
        elif _WORD.fullmatch(text):
            return text
        else:
            en = "must be the device's name in topics: letters, digits, . _ - (no / + #)"
            self.fault(row, "address", en, "应为主题中的设备名: 字母、数字、. _ - (不含 / + #)")
        return None

    def switch(self, row: int, text: str) -> bool:
        value = _SWITCH.get(text.lower())
        if value is None:
            self.fault(row, "enabled", f"{text!r} is neither yes nor no", f"{text!r} 不是 yes 或 no")
        return value is not False

    def options(self, row: int, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for part in filter(None, (p.strip() for p in text.split(";"))):
            key, sign, value = (p.strip() for p in part.partition("="))
            if not sign or not _WORD.fullmatch(key):
                self.fault(row, "options", f"{part!r} is not of the form key=value", f"{part!r} 不是 键=值 的形式")
            elif key in found:
                self.fault(row, "options", f"{key!r} stands twice", f"{key!r} 重复")
            elif key == "since" and not _is_day(value):
                self.fault(
                    row, "options", f"since={value}: must be a day YYYY-MM-DD", f"since={value}: 应为 YYYY-MM-DD"
                )
            elif key == "reading_day" and not (value.isdecimal() and 1 <= int(value) <= 28):
                self.fault(
                    row, "options", f"reading_day={value}: must be 1 to 28", f"reading_day={value}: 应为 1 至 28"
                )
            else:
                found[key] = value
        return dict(sorted(found.items()))

    def add_point(self, row: int, cells: Mapping[str, str], draft: _Draft) -> None:
        kind = self.kind(row, cells["kind"])
        profile = self.profiles.get(str(draft.device["profile"]))
        highest = _highest(profile, kind)
        text, pn = cells["pn"] or "1", 0
        if not highest:
            self.fault(row, "kind", f"this profile has no points of kind {kind}", f"此设备档没有 {kind} 类计量点")
        elif re.fullmatch(r"[0-9]{1,4}", text) and 1 <= int(text) <= highest:
            pn = int(text)
            if any((p.kind, p.pn) == (kind, pn) for p in draft.points):
                en = f"number {pn} stands twice in device {cells['name']} (or the name stands twice)"
                self.fault(row, "pn", en, f"设备 {cells['name']} 中测量点号 {pn} 重复 (或设备重名)")
        else:
            en = f"must be a point number 1 to {highest} for this profile"
            self.fault(row, "pn", en, f"此设备档的测量点号应为 1 至 {highest}")
        name = cells["point"] or _default_name(cells["name"], kind, pn)
        first = self.point_rows.setdefault(name, row)
        if first != row:
            self.fault(row, "point", f"{name!r} stands already in row {first}", f"{name!r} 已出现在第 {first} 行")
        wiring = cells["wiring"] or "3P4W"
        if wiring not in WIRINGS:
            self.fault(row, "wiring", f"must be {' | '.join(WIRINGS)}", f"应为 {' | '.join(WIRINGS)}")
        if kind == "group":
            for column in ("ct_ratio", "pt_ratio"):
                if self.positive(row, column, cells) not in (None, Decimal(1)):
                    en = "must be 1: the terminal has already applied the ratios to a group"
                    self.fault(row, column, en, "应为 1: 终端计算总加组时已乘变比")
        draft.points.append(
            Point(
                id=0,
                name=name,
                pn=pn,
                kind=kind,
                ct_ratio=self.positive(row, "ct_ratio", cells) or Decimal(1),
                pt_ratio=self.positive(row, "pt_ratio", cells) or Decimal(1),
                contract_kva=self.positive(row, "contract_kva", cells),
                nominal_v=self.positive(row, "nominal_v", cells),
                wiring=wiring,
            )
        )

    def kind(self, row: int, text: str) -> PointKind:
        for kind in POINT_KINDS:
            if text in ("", kind):
                return kind
        self.fault(row, "kind", f"must be {' | '.join(POINT_KINDS)}", f"应为 {' | '.join(POINT_KINDS)}")
        return "measuring"

    def positive(self, row: int, column: str, cells: Mapping[str, str]) -> Decimal | None:
        """A decimal above zero; None for an empty cell or after a fault."""
        text = cells[column]
        if not text:
            return None
        try:
            value = Decimal(text) if _DECIMAL.fullmatch(text) else Decimal(0)
        except InvalidOperation:
            value = Decimal(0)
        if value > 0:
            return value
        en = f"{text!r} must be a number above 0 (at most 9 digits and 6 decimals)"
        self.fault(row, column, en, f"{text!r} 应为大于 0 的数 (整数至多 9 位, 小数至多 6 位)")
        return None

    def finish(self) -> ParsedList:
        self.carriers()
        if self.faults:
            return ParsedList((), tuple(sorted(self.faults)))
        devices = (
            msgspec.convert({"id": 0, "name": name, **draft.device, "points": ()}, Device)
            for name, draft in sorted(self.drafts.items())
        )
        drafts = (draft for _, draft in sorted(self.drafts.items()))
        return ParsedList(
            tuple(
                msgspec.structs.replace(device, points=tuple(sorted(draft.points, key=point_order)))
                for device, draft in zip(devices, drafts, strict=True)
            ),
            (),
        )


def point_order(point: Point) -> tuple[int, int]:
    """Order of a device's points: by kind (measuring first), then by number."""
    return POINT_KINDS.index(point.kind), point.pn


def _highest(profile: Profile | None, kind: PointKind) -> int:
    if profile is None:
        return 2040
    return {"measuring": profile.max_points, "group": profile.max_groups, "dc": profile.max_dc}[kind]


def _default_name(device: str, kind: PointKind, pn: int) -> str:
    if kind != "measuring":
        return f"{device}-{kind}-{pn}"
    return device if pn == 1 else f"{device}-{pn}"


def wire_of(options: Mapping[str, str], link: LinkConfig | None) -> str:
    """What tells wires of one link apart: the terminal that carries a device, the name that dials in; else nothing."""
    if VIA in options:
        return f"via {options[VIA]}"
    # behind a listener every name that dials in is a wire of its own
    return options.get("line", "") if link is not None and link.kind.startswith("listen") else ""


def _is_day(text: str) -> bool:
    try:
        return len(text) == 10 and bool(date.fromisoformat(text))
    except ValueError:
        return False
