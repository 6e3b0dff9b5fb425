"""Loads device profiles (设备档): the built-in TOML files and an operator's directory, `inherits`, whole validation.

One file is one profile and its name is the file's. A profile states only its differences: `inherits = "other"` takes
everything of the other (tables merge, lists and values are replaced), `without = ["read.monthly"]` drops inherited
parts, `abstract = true` marks a profile that exists to be inherited only. An operator's file of the same name replaces
the built-in one. Nothing is loaded when anything is wrong: every fault is named with its file and field.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Final, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from ..model.control import ActionKind
from ..model.lang import tr
from ..model.quantities import by_name
from ..model.work import Duty
from ..protocols.common.errors import UsageError
from ..protocols.dlt645.items import lookup
from ..protocols.modbus.maps import load_map
from .event_book import MOST_RECORDS
from .profile import ControlPlan, CurvePlan, Profile, TerminalPlan
from .terminal_profile import terminal_faults

Tree = dict[str, object]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ITEM: Final = {
    ("dlt645", "2007"): re.compile(r"[0-9A-F]{8}"),
    ("dlt645", "1997"): re.compile(r"[0-9A-F]{4}"),
}
_VERSIONS: Final = {"dlt645": ("2007", "1997"), "modbus": ("",), "mqtt": ("1",),
    "qgdw1376": ("2005", "2009", "2013"),
}  # fmt: skip
_MEANS: Final = {
    "dlt645-1c": "dlt645", "modbus-write": "modbus", "mqtt-command": "mqtt", "qgdw1376-05": "qgdw1376",
}  # fmt: skip
_GROUP_KINDS: Final = ("period", "rest", "suspension", "float", "month", "purchase")
MAX_TP_DELAY_MIN: Final = 10  # not longer than a command is valid (control.command_valid_s)
_LOADER_KEYS: Final = ("inherits", "without", "abstract")


@dataclass(frozen=True, slots=True, order=True)
class ProfileFault:
    """One fault: the file (or profile) it stands in, the path of the field, and what is wrong with it."""

    file: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field}: {self.message}"


@cache
def builtin_profiles() -> dict[str, Profile]:
    """The profiles that come with the product, by name."""
    return load_profiles(None)


def load_profiles(directory: Path | None) -> dict[str, Profile]:
    """Built-in profiles and those of `directory` (if given and there), by name, sorted.

    UsageError names every fault of every file; then nothing is loaded.
    """
    faults: list[ProfileFault] = []
    sources = dict(_read_files(directory, faults))
    profiles: dict[str, Profile] = {}
    for name in sorted(sources):
        file, own = sources[name]
        if not isinstance(own.get("abstract", False), bool):
            faults.append(ProfileFault(file, "abstract", tr("must be true or false", "应为 true 或 false")))
        if own.get("abstract"):
            continue
        found: list[ProfileFault] = []
        tree = _resolve(name, sources, found)
        if not found:
            found += [ProfileFault(file, path, text) for path, text in check_tree(tree)]
        if not found:
            profiles[name] = msgspec.convert(tree, Profile)
        faults += found
    if faults:
        lines = "\n  ".join(str(f) for f in sorted(set(faults)))
        raise UsageError(tr(f"device profiles have faults:\n  {lines}", f"设备档有误:\n  {lines}"))
    return profiles


def check_tree(tree: Tree) -> list[tuple[str, str]]:
    """Every fault of one resolved profile as (field path, message); empty when it is good."""
    faults = list(_type_faults(tree, Profile, ""))
    return faults or list(_meaning_faults(msgspec.convert(tree, Profile)))


def _read_files(directory: Path | None, faults: list[ProfileFault]) -> Iterator[tuple[str, tuple[str, Tree]]]:
    builtin = Path(__file__).with_name("profiles")
    files = [(f.name, f.name, f.read_bytes()) for f in builtin.iterdir() if f.name.endswith(".toml")]
    if directory is not None and directory.is_dir():
        for path in sorted(directory.glob("*.toml")):
            try:
                files.append((path.name, str(path), path.read_bytes()))
            except OSError as error:
                faults.append(ProfileFault(str(path), "-", str(error)))
    for filename, shown, data in files:
        name = filename.removesuffix(".toml")
        if not _NAME.fullmatch(name):
            text = tr("a profile's name is lower-case letters, digits, . _ -", "设备档名只含小写字母、数字、. _ -")
            faults.append(ProfileFault(shown, "name", text))
            continue
        try:
            tree: Tree = tomllib.loads(data.decode("utf-8"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            faults.append(ProfileFault(shown, "-", str(error)))
            continue
        yield name, (shown, tree)


def _resolve(name: str, sources: Mapping[str, tuple[str, Tree]], faults: list[ProfileFault]) -> Tree:
    """The whole tree of a profile: ancestors merged from the oldest down; loader keys removed, name filled in."""
    chain: list[Tree] = []
    seen: list[str] = []
    current: object = name
    while current is not None:
        file = sources[seen[-1] if seen else name][0]
        if not isinstance(current, str) or current not in sources:
            faults.append(ProfileFault(file, "inherits", tr(f"no profile {current!r}", f"没有设备档 {current!r}")))
            return {}
        if current in seen:
            path = " -> ".join([*seen, current])
            faults.append(ProfileFault(file, "inherits", tr(f"inherits in a circle: {path}", f"循环继承: {path}")))
            return {}
        seen.append(current)
        own = sources[current][1]
        chain.append(own)
        current = own.get("inherits")
    tree: Tree = {}
    for ancestor, own in zip(reversed(seen), reversed(chain), strict=True):
        _drop(tree, own.get("without", []), sources[ancestor][0], faults)
        tree = merge(tree, {k: v for k, v in own.items() if k not in _LOADER_KEYS})
    return {**tree, "name": name}


def merge(base: Tree, over: Tree) -> Tree:
    """Tables merge key by key, anything else is replaced; neither argument is changed."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = merge(cast(Tree, old), cast(Tree, value)) if both else value
    return result


def _drop(tree: Tree, paths: object, file: str, faults: list[ProfileFault]) -> None:
    if not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
        faults.append(ProfileFault(file, "without", tr("must be a list of field paths", "应为字段路径的列表")))
        return
    for path in paths:
        *parents, last = path.split(".")
        table: object = tree
        for part in parents:
            table = table.get(part) if isinstance(table, dict) else None
        if not isinstance(table, dict) or last not in table:
            faults.append(ProfileFault(file, "without", tr(f"nothing inherited at {path}", f"未继承 {path}")))
        elif parents:
            _drop_copy(tree, parents, last)
        else:
            del tree[last]


def _drop_copy(tree: Tree, parents: list[str], last: str) -> None:
    """Remove a nested key without touching the ancestor's own tables (they are shared)."""
    table = tree
    for part in parents:
        table[part] = dict(cast(Tree, table[part]))
        table = cast(Tree, table[part])
    del table[last]


def _type_faults(value: object, kind: object, path: str) -> Iterator[tuple[str, str]]:
    """Every place where `value` does not have the type `kind`; msgspec alone would stop at the first."""
    if get_origin(kind) in (UnionType, Union):
        kind = next(k for k in get_args(kind) if k is not type(None))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        hints = get_type_hints(kind)
        required = {f.name for f in msgspec.structs.fields(kind) if f.required}
        for key in sorted(required - value.keys()):
            yield f"{path}{key}", tr("is missing", "缺少")
        for key, item in value.items():
            if key in hints:
                yield from _type_faults(item, hints[key], f"{path}{key}.")
            else:
                known = ", ".join(hints)
                yield f"{path}{key}", tr(f"unknown field (known: {known})", f"未知字段 (可用: {known})")
        return
    if get_origin(kind) is dict and isinstance(value, dict):
        key_kind, value_kind = get_args(kind)
        for key, item in value.items():
            yield from _leaf_faults(key, key_kind, f"{path}{key}.")
            yield from _type_faults(item, value_kind, f"{path}{key}.")
        return
    yield from _leaf_faults(value, kind, path)


def _leaf_faults(value: object, kind: object, path: str) -> Iterator[tuple[str, str]]:
    try:
        msgspec.convert(value, cast(type, kind))
    except msgspec.ValidationError as error:
        yield path.rstrip("."), str(error)


def _meaning_faults(profile: Profile) -> Iterator[tuple[str, str]]:
    """What the types cannot say: item forms, quantities, means of control, ranges."""
    versions = _VERSIONS[profile.protocol]
    if profile.version not in versions:
        text = " | ".join(v or '""' for v in versions)
        yield "version", tr(f"must be {text}", f"应为 {text}")
    if (profile.protocol == "modbus") != bool(profile.map):
        yield (
            "map",
            tr("names the register map of a Modbus profile, and only of one", "Modbus 设备档必须且只能由其指定"),
        )
    for name, least, count, most in _counts(profile):
        if not least <= count <= most:
            yield name, tr(f"must be {least} to {most}", f"应在 {least} 至 {most} 之间")
    t = profile.timing
    for field, low, value, high in (
        ("reply_timeout_s", 0.01, t.reply_timeout_s, 60), ("reply_delay_s", 0, t.reply_delay_s, t.reply_timeout_s),
        ("inter_byte_s", 0.001, t.inter_byte_s, 60), ("retries", 0, t.retries, 10), ("lead_bytes", 0, t.lead_bytes, 16),
        ("turnaround_ms", 0, t.turnaround_ms or 0, 10_000),
    ):  # fmt: skip
        if not low <= value <= high:
            yield f"timing.{field}", tr(f"must be {low} to {high}", f"应在 {low} 至 {high} 之间")
    form = _ITEM.get((profile.protocol, profile.version))
    if profile.protocol == "qgdw1376":
        yield from terminal_faults(profile)
    elif profile.terminal is not None:
        yield "terminal", tr("is for terminals (qgdw1376) only", "仅用于终端 (qgdw1376)")
    for duty, plan in profile.read.items():
        if duty in (Duty.CURVE, Duty.CONTROL, Duty.PROBE):
            yield f"read.{duty}", tr("is not read by items", "不按数据项读取")
        if not plan.items:
            yield f"read.{duty}.items", tr("is empty", "为空")
        if len(set(plan.items)) != len(plan.items):
            yield f"read.{duty}.items", tr("names an item twice", "数据项重复")
        if plan.period_s is not None and plan.period_s < 1:
            yield f"read.{duty}.period_s", tr("must be at least 1", "应不小于 1")
        if plan.retention_days is not None and plan.retention_days < 1:
            yield f"read.{duty}.retention_days", tr("must be at least 1", "应不小于 1")
        if not 0 <= plan.records <= MOST_RECORDS:
            yield f"read.{duty}.records", tr(f"must be 0 to {MOST_RECORDS}", f"应在 0 至 {MOST_RECORDS} 之间")
        for i, item in enumerate(plan.items):
            if profile.protocol == "mqtt" and item not in by_name():
                yield f"read.{duty}.items[{i}]", tr(f"no quantity {item!r}", f"没有数据项 {item!r}")
            elif form is not None and not form.fullmatch(item):
                yield f"read.{duty}.items[{i}]", tr(f"{item!r} is not a data identifier", f"{item!r} 不是数据标识")
            elif form is not None and lookup(item, profile.version) is None:
                text = tr(f"{item} is not in the table of data items", f"数据项表中没有 {item}")
                yield f"read.{duty}.items[{i}]", text
    if profile.protocol == "modbus" and profile.map:
        yield from _map_faults(profile)
    if profile.curve is not None:
        yield from _curve_faults(profile, profile.curve)
    if profile.control is not None:
        yield from _control_faults(profile, profile.control)


def _counts(profile: Profile) -> Iterator[tuple[str, int, int, int]]:
    """Whole numbers: field, smallest, value, largest."""
    yield "max_points", 1, profile.max_points, 2040
    yield "max_groups", 0, profile.max_groups, 255
    yield "max_dc", 0, profile.max_dc, 255
    if (plan := profile.terminal) is not None:
        yield "terminal.settlement_day", 1, plan.settlement_day, 28
        yield "terminal.settlement_hour", 0, plan.settlement_hour, 23
        yield "terminal.answer_bytes", 60, plan.answer_bytes, 16_383
        yield "terminal.units_per_request", 1, plan.units_per_request, 1024
        yield "terminal.event_batch", 1, plan.event_batch, 255
        yield "terminal.max_bytes", 60, plan.max_bytes, 16_383
        yield "terminal.heartbeat_s", 10, plan.heartbeat_s, 86_400
        yield "terminal.tp_delay_min", 0, plan.tp_delay_min, 255


def _map_faults(profile: Profile) -> Iterator[tuple[str, str]]:
    try:
        known = load_map(profile.map).readings
    except UsageError as error:
        yield "map", str(error)
        return
    for duty, plan in profile.read.items():
        for i, item in enumerate(plan.items):
            if item not in known:
                text = tr(f"the map {profile.map} has no {item!r}", f"寄存器表 {profile.map} 没有 {item!r}")
                yield f"read.{duty}.items[{i}]", text


def _curve_faults(profile: Profile, curve: CurvePlan) -> Iterator[tuple[str, str]]:
    if curve.step_s < 60 or 86_400 % curve.step_s:
        yield "curve.step_s", tr("must be at least 60 and divide a day", "应不小于 60 且整除一天")
    if curve.retention_days < 1:
        yield "curve.retention_days", tr("must be at least 1", "应不小于 1")
    if not 1 <= curve.blocks_per_request <= 255:
        yield "curve.blocks_per_request", tr("must be 1 to 255", "应在 1 至 255 之间")
    if profile.protocol == "dlt645" and (not curve.classes or not set(curve.classes) <= set(range(1, 7))):
        yield "curve.classes", tr("load records have the classes 1 to 6", "负荷记录类别为 1 至 6")
    for name in curve.quantities:
        if name not in by_name():
            yield "curve.quantities", tr(f"no quantity {name!r}", f"没有数据项 {name!r}")


def _control_faults(profile: Profile, control: ControlPlan) -> Iterator[tuple[str, str]]:
    if _MEANS[control.means] != profile.protocol:
        yield "control.means", tr(f"is not a means of {profile.protocol}", f"不适用于 {profile.protocol}")
    if not 1 <= control.rounds <= 8:
        yield "control.rounds", tr("must be 1 to 8", "应在 1 至 8 之间")
    if not re.fullmatch(r"0[0-9]", control.password_level):
        yield "control.password_level", tr("must be 00 to 09", "应为 00 至 09")
    for i, kind in enumerate(control.kinds):
        if kind not in _GROUP_KINDS:
            yield f"control.kinds[{i}]", tr(f"must be {', '.join(_GROUP_KINDS)}", f"应为 {', '.join(_GROUP_KINDS)}")
    if control.means == "qgdw1376-05":
        yield from _freshness_faults(profile.terminal or TerminalPlan())
    if control.means != "modbus-write":
        return
    if "trip" not in control.writes or control.state is None:
        yield "control", tr("modbus-write needs writes.trip and state", "modbus-write 须给出 writes.trip 和 state")
    for kind, (function, address, value) in control.writes.items():
        if kind not in set(ActionKind) - {ActionKind.READ_STATE}:
            yield f"control.writes.{kind}", tr("no such action", "没有这种操作")
        if function not in (5, 6, 16) or not 0 <= address <= 65535 or not 0 <= value <= 65535:
            text = tr("must be [5|6|16, address, value]", "应为 [5|6|16, 地址, 值]")
            yield f"control.writes.{kind}", text
    if control.state is not None and control.state[0] not in (1, 2, 3, 4):
        yield "control.state", tr("must begin with a read function (1 to 4)", "应以读功能码 (1 至 4) 开头")


def _freshness_faults(terminal: TerminalPlan) -> Iterator[tuple[str, str]]:
    """A terminal must tell an old command from a new one: a time tag whose delay is not 0 (= not checked)."""
    if terminal.tp == "never":
        text = tr("control needs a time tag: control or always", "控制须带时间标签: control 或 always")
        yield "terminal.tp", text
    if not 1 <= terminal.tp_delay_min <= MAX_TP_DELAY_MIN:
        text = tr(
            f"control needs 1 to {MAX_TP_DELAY_MIN} (0 = the terminal does not check the age)",
            f"控制须为 1 至 {MAX_TP_DELAY_MIN} (0 为终端不检查)",
        )
        yield "terminal.tp_delay_min", text
