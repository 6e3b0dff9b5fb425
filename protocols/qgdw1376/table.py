"""The table of data units: (AFN, Fn, edition) -> Row, and ERC -> event layout. Loaded once from items/*.toml.

Every row is checked at load and every fault is told with its row; layouts become closures (layout.py has the notation).

    [[fn]]
    afn = ["0C"]              # or ["04", "0A"]: what 04 sends is what 0A answers
    fn = 25
    pn = "M"                  # 0 terminal, M measuring point, G total-sum group, R control round, T task, D DC port
    name = "instant_values"   # unique in its AFN and edition
    en = "..."
    zh = "..."
    clause = "..."
    editions = ["2009"]       # default: all
    request = [...]           # layout of a request's data unit (AFN 06 08-10; default: no data)
    fields = [...]            # layout of the answer, or of what is sent (AFN 00 01 02 04 05; default: no data)
    hook = "..."              # derived keys, after fields
    limits = { k = [1, 9] }   # legal values of a field (or of its elements) when a person sets it: low and high, or the
                              # list of them [[85, 170]]; not looked at when decoding
    releases = 1              # AFN 05: this command takes back F1
    deletes = "pn"            # an element of the list with 0 here deletes the entry
    conf = 3                  # how sure the layout is: 3 several sources ... 1 one source, 0 from memory
    note = "..."
    note_zh = "..."

    [[erc]]  erc, name, en, zh, clause, editions, fields, conf, note, note_zh: the bytes behind Le
             severity = 1 urgent .. 4 info, rules = ["V1"]: the case rules that it feeds (missing = only recorded)
    [layout]  name = [...]    named layouts for "@name" (all files share them)
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources
from typing import Final, TypeVar

import msgspec

from ..common.errors import UsageError
from .edition import DEFAULT, NAMES
from .hooks import HOOKS
from .layout import Layout, every_key, make_layout

FILES: Final = ("links", "parameters", "control", "realtime", "history", "events")
POINT_KINDS: Final = {"0": "terminal", "M": "measuring point", "G": "total-sum group", "R": "control round",
                      "T": "task", "D": "DC port"}  # fmt: skip
ASKING: Final = frozenset((0x06, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x10))  # downlink uses `request`
AFN_NAMES: Final[dict[int, tuple[str, str]]] = {
    0x00: ("confirm or deny", "确认/否认"),
    0x01: ("reset", "复位"),
    0x02: ("link test", "链路接口检测"),
    0x03: ("relay station command", "中继站命令"),
    0x04: ("set parameters", "设置参数"),
    0x05: ("control", "控制命令"),
    0x06: ("authentication and key agreement", "身份认证及密钥协商"),
    0x08: ("ask cascaded terminal to report", "请求被级联终端主动上报"),
    0x09: ("terminal configuration", "请求终端配置及信息"),
    0x0A: ("query parameters", "查询参数"),
    0x0B: ("task data", "请求任务数据"),
    0x0C: ("class-1 data (real time)", "请求1类数据（实时数据）"),
    0x0D: ("class-2 data (historical)", "请求2类数据（历史数据）"),
    0x0E: ("class-3 data (events)", "请求3类数据（事件数据）"),
    0x0F: ("file transfer", "文件传输"),
    0x10: ("data relay", "数据转发"),
}


Limit = range | tuple[int, ...]  # legal values


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A class of information (信息类 Fn) of an AFN."""

    afn: tuple[int, ...]
    fn: int
    pn: str
    name: str
    en: str
    zh: str
    clause: str
    editions: tuple[str, ...]
    request: Layout
    fields: Layout
    conf: int
    note: str = ""
    note_zh: str = ""
    limits: dict[str, Limit] = {}
    releases: int = 0
    deletes: str = ""

    def layout(self, afn: int, up: bool) -> Layout:
        """What the data unit of a frame of this direction holds."""
        return self.request if not up and afn in ASKING else self.fields


class ErcRow(msgspec.Struct, frozen=True, kw_only=True):
    """An event code (ERC)."""

    erc: int
    name: str
    en: str
    zh: str
    clause: str
    editions: tuple[str, ...]
    fields: Layout
    conf: int
    note: str = ""
    note_zh: str = ""
    severity: int = 0
    rules: tuple[str, ...] = ()


class _RawRow(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    afn: str | list[str]
    fn: int
    pn: str
    name: str
    en: str
    zh: str
    clause: str
    conf: int
    editions: list[str] = msgspec.field(default_factory=lambda: list(NAMES))
    request: list[object] = []
    fields: list[object] = []
    hook: str = ""
    note: str = ""
    note_zh: str = ""
    limits: dict[str, list[object]] = {}
    releases: int = 0
    deletes: str = ""


class _RawErc(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    erc: int
    name: str
    en: str
    zh: str
    clause: str
    conf: int
    editions: list[str] = msgspec.field(default_factory=lambda: list(NAMES))
    fields: list[object] = []
    note: str = ""
    note_zh: str = ""
    severity: int = 0
    rules: list[str] = []


_Maker = Callable[[object], Layout]
_AnyRow = TypeVar("_AnyRow", Row, ErcRow)
_Key = TypeVar("_Key", int, tuple[int, int], tuple[int, str])


class Table(msgspec.Struct, frozen=True):
    """All rows. by_key: (AFN, Fn) -> rows; by_name: (AFN, name) -> rows."""

    rows: tuple[Row, ...]
    ercs: tuple[ErcRow, ...]
    by_key: dict[tuple[int, int], list[Row]]
    by_name: dict[tuple[int, str], list[Row]]
    by_erc: dict[int, list[ErcRow]]


def build_table(files: Mapping[str, str]) -> Table:
    """The table of TOML texts by file name. UsageError names every fault with its file and row."""
    faults: list[str] = []
    raw: dict[str, dict[str, object]] = {}
    named: dict[str, list[object]] = {}
    for name, text in files.items():
        try:
            raw[name] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            faults.append(f"{name}: {error}")
            continue
        layouts = raw[name].get("layout", {})
        for key, entries in layouts.items() if isinstance(layouts, dict) else ():
            if key in named:
                faults.append(f"{name}: layout {key} is there twice")
            named[key] = entries
        faults += [f"{name}: unknown table {key}" for key in sorted(set(raw[name]) - {"fn", "erc", "layout"})]
    by_erc: dict[int, list[ErcRow]] = {}

    def event_layout(erc: int, edition: str) -> Layout | None:
        row = _choose(by_erc.get(erc, ()), edition)
        return row.fields if row is not None else None

    def layout(entries: object) -> Layout:
        return make_layout(entries, named, event_layout)

    rows: list[Row] = []
    ercs: list[ErcRow] = []
    for file, content in raw.items():
        for kind in ("fn", "erc"):
            entries = content.get(kind, [])
            for number, one in enumerate(entries if isinstance(entries, list) else (), 1):
                label = _label(file, kind, number, one)
                try:
                    if kind == "fn":
                        rows.append(_row(msgspec.convert(one, type=_RawRow), layout))
                    else:
                        ercs.append(_erc(msgspec.convert(one, type=_RawErc), layout))
                except (ValueError, msgspec.ValidationError) as error:
                    faults.append(f"{label}: {error}")
    by_key: dict[tuple[int, int], list[Row]] = {}
    by_name: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        for afn in row.afn:
            label = f"AFN {afn:02X} F{row.fn} {row.name}"
            _add(by_key, (afn, row.fn), row, label, faults)
            _add(by_name, (afn, row.name), row, label, faults)
    for erc in ercs:
        _add(by_erc, erc.erc, erc, f"ERC {erc.erc} {erc.name}", faults)
    if faults:
        raise UsageError("the tables of Q/GDW 1376.1 are wrong:\n" + "\n".join(faults))
    return Table(tuple(rows), tuple(ercs), by_key, by_name, by_erc)


def _label(file: str, kind: str, number: int, one: object) -> str:
    known = one if isinstance(one, dict) else {}
    what = f"AFN {known.get('afn')} F{known.get('fn')}" if kind == "fn" else f"ERC {known.get('erc')}"
    return f"{file} {kind} {number} ({what} {known.get('name')})"


def _common(raw: _RawRow | _RawErc) -> tuple[str, ...]:
    if not all((raw.name, raw.en, raw.zh, raw.clause)):
        raise ValueError("name, en, zh and clause must not be empty")
    if not raw.name.replace("_", "a").isalnum() or raw.name != raw.name.lower():
        raise ValueError(f"name {raw.name!r} is not snake_case")
    if not raw.editions or set(raw.editions) - set(NAMES):
        raise ValueError(f"editions are some of {', '.join(NAMES)}")
    if not 0 <= raw.conf <= 3:
        raise ValueError("conf is 0 to 3")
    return tuple(raw.editions)


def _row(raw: _RawRow, layout: _Maker) -> Row:
    editions = _common(raw)
    afns = [raw.afn] if isinstance(raw.afn, str) else raw.afn
    if not afns or any(len(a) != 2 for a in afns):
        raise ValueError("afn is two hex digits or a list of them")
    if not 1 <= raw.fn <= 2048:
        raise ValueError(f"fn {raw.fn} is not 1 to 2048")
    if not raw.pn or set(raw.pn) - set(POINT_KINDS):
        raise ValueError(f"pn {raw.pn!r} is made of {' '.join(POINT_KINDS)}")
    if raw.hook and raw.hook not in HOOKS:
        raise ValueError(f"unknown hook {raw.hook!r}: hooks.py has {', '.join(HOOKS)}")
    fields = layout([*raw.fields, {"hook": raw.hook}] if raw.hook else raw.fields)
    strange = {*raw.limits, *filter(None, (raw.deletes,))} - set().union(*(every_key(v.nodes) for v in fields.variants))
    if strange:
        raise ValueError(f"limits or deletes of unknown fields: {', '.join(sorted(strange))}")
    return Row(
        afn=tuple(int(a, 16) for a in afns),
        fn=raw.fn,
        pn=raw.pn,
        name=raw.name,
        en=raw.en,
        zh=raw.zh,
        clause=raw.clause,
        editions=editions,
        request=layout(raw.request),
        fields=fields,
        conf=raw.conf,
        note=raw.note,
        note_zh=raw.note_zh,
        limits={name: _limit(name, limit) for name, limit in raw.limits.items()},
        releases=raw.releases,
        deletes=raw.deletes,
    )


def _limit(name: str, raw: list[object]) -> Limit:
    """[low, high], or [[value, ...]]."""
    if len(raw) == 1 and isinstance(raw[0], list) and raw[0]:
        return tuple(raw[0])
    if len(raw) == 2 and isinstance(raw[0], int) and isinstance(raw[1], int) and raw[0] <= raw[1]:
        return range(raw[0], raw[1] + 1)
    raise ValueError(f"limits of {name}: give [low, high] or [[value, ...]]")


def _erc(raw: _RawErc, layout: _Maker) -> ErcRow:
    if not 1 <= raw.erc <= 255:
        raise ValueError(f"erc {raw.erc} is not 1 to 255")
    return ErcRow(
        erc=raw.erc,
        name=raw.name,
        en=raw.en,
        zh=raw.zh,
        clause=raw.clause,
        editions=_common(raw),
        fields=layout(raw.fields),
        conf=raw.conf,
        note=raw.note,
        note_zh=raw.note_zh,
        severity=raw.severity,
        rules=tuple(raw.rules),
    )


def _add(found: dict[_Key, list[_AnyRow]], key: _Key, row: _AnyRow, label: str, faults: list[str]) -> None:
    before = found.setdefault(key, [])
    for other in before:
        shared = set(other.editions) & set(row.editions)
        if shared:
            faults.append(f"{label}: also {other.name}, in edition {', '.join(sorted(shared))}")
    before.append(row)


def _choose(rows: Sequence[_AnyRow], edition: str) -> _AnyRow | None:
    """The row of an edition; where it has none, that of the nearest one (peers mix numberings)."""
    for row in rows:
        if edition in row.editions:
            return row
    if not rows:
        return None
    place = NAMES.index(edition)
    return min(rows, key=lambda row: min(abs(NAMES.index(e) - place) for e in row.editions))


@cache
def table() -> Table:
    """The product's table."""
    folder = resources.files(__package__).joinpath("items")
    files = {name: folder.joinpath(f"{name}.toml") for name in FILES}
    return build_table({n: f.read_text(encoding="utf-8") for n, f in files.items() if f.is_file()})


def lookup(afn: int, fn: int, edition: str = DEFAULT) -> Row | None:
    """The row of a class; a class that the edition lacks is taken from the nearest edition that has it."""
    return _lookup(afn, fn, edition) if (afn, fn) in table().by_key else None


@lru_cache(maxsize=4096)
def _lookup(afn: int, fn: int, edition: str) -> Row | None:
    return _choose(table().by_key[afn, fn], edition)


@lru_cache(maxsize=1024)
def lookup_name(afn: int, name: str, edition: str = DEFAULT) -> Row | None:
    """The row of a name, as lookup."""
    return _choose(table().by_name.get((afn, name), ()), edition)


def lookup_erc(erc: int, edition: str = DEFAULT) -> ErcRow | None:
    """The row of an event code, as lookup."""
    return _choose(table().by_erc.get(erc, ()), edition)
