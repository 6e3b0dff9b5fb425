"""The fields of a parameter (AFN 04) as a person writes them: text of a cell -> checked values of the layout.

220.5   220.5 V   1000 kWh   5 MWh      numbers, the unit may stand behind
1,2,5-8   0*16,1*8,0*24                 sets and lists of numbers; "none" is the empty set
00:15-23:45,...                         lists of pairs (start-end)
p1F161,p1F163,p0F49                     lists of data unit identifiers
[...] or {...}                          JSON, for what is nested
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Final

from ..model.lang import lang, tr
from ..protocols.common.errors import UsageError
from ..protocols.qgdw1376.formats import make_format, text_of
from ..protocols.qgdw1376.layout import BitPart, Bits, Field, Group, Node, references
from ..protocols.qgdw1376.reference import limit_text
from ..protocols.qgdw1376.table import Limit, Row, lookup
from ..protocols.qgdw1376.terms import label

SET: Final = 0x04
EMPTY: Final = ("none", "无", "-")
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_NUMBERS: Final = re.compile(r"(\d+)(?:\s*([-*])\s*(\d+))?")
_DADT: Final = re.compile(r"p?(\d+)\s*F(\d+)", re.IGNORECASE)
_LONGEST: Final = 2048
_WANTED: Final = {
    "A.1": "年-月-日 时:分:秒",
    "A.2": "至多三位有效数字 (0.001 至 9990000)",
    "A.3": "至多七位的整数, 或以 MWh 表示",
    "A.4": "-79 至 79 的整数",
    "A.5": "-799.9 至 799.9, 至多1位小数",
    "A.6": "-79.99 至 79.99, 至多2位小数",
    "A.7": "0 至 999.9, 至多1位小数",
    "A.8": "0 至 9999 的整数",
    "A.9": "-79.9999 至 79.9999, 至多4位小数",
    "A.10": "0 至 999999 的整数",
    "A.11": "0 至 999999.99, 至多2位小数",
    "A.12": "至多12位数字",
    "A.13": "0 至 9999.9999, 至多4位小数",
    "A.14": "0 至 999999.9999, 至多4位小数",
    "A.15": "年-月-日 时:分",
    "A.16": "日 时:分:秒",
    "A.17": "月-日 时:分",
    "A.18": "日 时:分",
    "A.19": "时:分",
    "A.20": "年-月-日",
    "A.21": "年-月",
    "A.22": "0 至 9.9, 至多1位小数",
    "A.23": "0 至 99.9999, 至多4位小数",
    "A.24": "日 时",
    "A.25": "-799.999 至 799.999, 至多3位小数",
    "A.26": "0 至 9.999, 至多3位小数",
    "A.27": "0 至 99999999 的整数",
    "ip": "形如 192.168.1.2 的地址",
    "dadt": "形如 p1F161 的标识",
    "rest": "十六进制字节",
}
_WANTED_KINDS: Final = {
    "u": "0 至 {top} 的整数",
    "be": "0 至 {top} 的整数",
    "bs": "位号的列表, 如 1,2,5-8 (共 {bits} 位)",
    "hex": "{size} 字节的十六进制数",
    "ascii": "至多 {size} 个字符的西文",
    "gbk": "国标文字",
    "digits": "至多 {digits} 位数字",
    "phone": "至多 {digits} 位数字",
    "pairs": "{codes} 个 0 至 3 的代码",
    "bcd": "至多 {digits} 位数字",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field of a parameter stands: `node` of the layout (or one part of its bits)."""

    name: str
    node: Field | Group | BitPart
    unit: str = ""

    @property
    def label(self) -> str:
        """Name for a person, in the language in force."""
        return labelled(self.name)


def labelled(name: str) -> str:
    """A field's name for a person, in the language in force."""
    return label(name, lang())


class BadValue(ValueError):
    """A cell that cannot be the value of its field; the text says what is wanted, in the language in force."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a person may set of a parameter. counted: fields that follow from the list they count.

    entry: fields of one element of its list `list_name`, when the layout has one list (a device of the archive);
    key: the field that tells elements apart (device_no), head: fields that tell several such lists apart (big_class).
    """

    places: dict[str, Place]
    counted: frozenset[str]
    optional: frozenset[str]
    list_name: str
    entry: dict[str, Place]
    key: str
    head: frozenset[str]

    def wanted(self, entry: bool) -> set[str]:
        """Fields that a person must give, for the whole or for one element of the list (and what stands around it)."""
        around = set(self.places) - self.counted - self.optional
        return (around - {self.list_name}) | (set(self.entry) - self.counted) if entry else around


@cache
def _shape(fn: int, edition: str) -> Shape:
    row = lookup(SET, fn, edition)
    assert row is not None
    return _make_shape(row)


def shape(row: Row) -> Shape:
    """The fields of a parameter over all its variants."""
    return _shape(row.fn, row.editions[0])


def _make_shape(row: Row) -> Shape:
    places: dict[str, Place] = {}
    counted: set[str] = set()
    present: list[set[str]] = []
    groups: dict[str, Group] = {}
    for variant in row.fields.variants:
        here = {place.name: place for place in _places(variant.nodes)}
        places |= here
        present.append(set(here))
        groups |= {n.name: n for n in variant.nodes if isinstance(n, Group)}
        counted |= {name for name in references(variant.nodes) if _counts(name, here)}
    one = next(iter(groups.values())) if len(groups) == 1 else None
    entry = {place.name: place for place in _places(one.fields)} if one is not None and not one.flat else {}
    inner = references(one.fields) if one is not None else frozenset()
    counted |= {name for name in inner if name in entry and _counts(name, entry)}
    optional = frozenset(set(places) - set[str].intersection(*present))
    asked = {place.name for variant in row.request.variants for place in _places(variant.nodes)} - counted
    return Shape(
        places=places,
        counted=frozenset(counted),
        optional=optional,
        list_name=one.name if entry and one is not None else "",
        entry=entry,
        key=next((name for name in entry if name in asked), ""),
        head=frozenset(asked & set(places)),
    )


def _counts(name: str, places: Mapping[str, Place]) -> bool:
    """A plain number that counts; a bit set that does is given by the person."""
    place = places.get(name)
    return place is not None and not (isinstance(place.node, Field) and place.node.format.startswith("bs"))


def _places(nodes: Sequence[Node]) -> Iterator[Place]:
    for node in nodes:
        if isinstance(node, Field):
            yield Place(node.name, node, node.unit)
        elif isinstance(node, Bits):
            yield from (Place(part.name, part) for part in node.parts)
        elif isinstance(node, Group):
            yield Place(node.name, node)


def read(place: Place, text: str, limits: Mapping[str, Limit]) -> object:
    """The value of a cell. BadValue: it is no such value, or outside what is legal."""
    value = _read(place, text.strip())
    check(place, value, limits)
    return value


def check(place: Place, value: object, limits: Mapping[str, Limit]) -> None:
    """BadValue where a value (from JSON too) does not fit its format or its limits, however deep inside."""
    node = place.node
    if isinstance(node, Group):
        _check_rows(place, node, value, limits)
        return
    values = value if isinstance(value, list) else [value]
    if isinstance(node, Field):
        _check_format(place, node, value)
    limit = limits.get(place.name)
    for one in values if limit is not None else ():
        number = _whole(one)
        if limit is not None and number is not None and number not in limit:
            text = limit_text(limit)
            raise BadValue(tr(f"{one} is not legal (legal: {text})", f"{one} 不合法 (允许: {text})"))


def _check_format(place: Place, node: Field, value: object) -> None:
    form, size_field = make_format(node.format)
    if node.count is not None and not isinstance(value, list):
        raise BadValue(tr("give a list", "应为列表"))
    for one in value if node.count is not None and isinstance(value, list) else [value]:
        try:
            form.encode(one, -1 if size_field else form.size)
        except UsageError as error:
            shown, wanted = text_of(one), str(error).partition(": ")[2]
            en = f"{shown} does not fit ({node.format}): {wanted}"
            raise BadValue(tr(en, f"{shown} 不符合格式 {node.format}, 应为{_wanted(node.format)}")) from None


def _check_rows(place: Place, node: Group, value: object, limits: Mapping[str, Limit]) -> None:
    inner = {p.name: p for p in _places(node.fields)}
    if not isinstance(value, list):
        raise BadValue(tr("give a JSON list", "应为 JSON 列表"))
    for number, row in enumerate(value, 1):
        if isinstance(row, list) and node.flat and len(row) == len(inner):
            row = dict(zip(inner, row, strict=True))
        if not isinstance(row, dict):
            raise BadValue(tr(f"element {number}: give an object", f"第 {number} 项: 应为对象"))
        for name, one in row.items():
            if name not in inner:
                known = ", ".join(inner)
                en = f"element {number}: no field {name} (there are: {known})"
                raise BadValue(tr(en, f"第 {number} 项: 没有字段 {name} (现有: {known})"))
            try:
                check(inner[name], one, limits)
            except BadValue as error:
                raise BadValue(tr(f"element {number}, {name}: {error}", f"第 {number} 项, {name}: {error}")) from None


def _whole(value: object) -> int | None:
    """A whole number, from text too; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = Decimal(value)
    if isinstance(value, (Decimal, float)) and value == int(value):
        return int(value)
    return value if isinstance(value, int) else None


def _wanted(form: str) -> str:
    """What a format takes, in Chinese."""
    if form in _WANTED:
        return _WANTED[form]
    size = make_format(form)[0].size
    for start, text in _WANTED_KINDS.items():
        if form.startswith(start):
            return text.format(top=(1 << 8 * size) - 1, bits=8 * size, digits=2 * size, codes=4 * size, size=size)
    return form


def _read(place: Place, text: str) -> object:
    node = place.node
    if text[:1] in "[{" and text:
        try:
            return json.loads(text, parse_float=Decimal)
        except ValueError as error:
            raise BadValue(tr(f"is no JSON ({error})", f"不是 JSON ({error})")) from None
    if isinstance(node, BitPart):
        if len(node.spans) > 1:
            return _numbers(text)
        return text if text in node.names else _number(text, "")
    if isinstance(node, Group):
        if not node.flat:
            raise BadValue(tr("give a JSON list of objects", "应为 JSON 对象列表"))
        return [[part.strip() for part in pair.split("-")] for pair in _pieces(text)]
    return _read_field(node, text)


def _read_field(node: Field, text: str) -> object:
    form = node.format
    if form.startswith(("bs", "pairs")) or (node.count is not None and form.startswith("u")):
        return _numbers(text)
    if node.count is None:
        if form == "A.19" and text[1:2] == ":":  # a spreadsheet writes 8:00
            return f"0{text}"
        return _number(text, node.unit) if _numeric(form) else text
    if form == "dadt":
        return [_identifier(one) for one in _pieces(text)]
    return [_number(one, node.unit) if _numeric(form) else one for one in _pieces(text)]


def _numeric(form: str) -> bool:
    """Whether values of the format are numbers (an address or a text of digits is not)."""
    if form.startswith("A."):
        return form not in ("A.1", "A.12", "A.15", "A.16", "A.17", "A.18", "A.19", "A.20", "A.21", "A.24")
    return form.startswith(("u", "be", "bcd"))


def _pieces(text: str) -> list[str]:
    return [] if text.lower() in EMPTY else [piece.strip() for piece in text.split(",") if piece.strip()]


def _numbers(text: str) -> list[object]:
    """1,2,5-8,0*16"""
    found: list[object] = []
    for piece in _pieces(text):
        match = _NUMBERS.fullmatch(piece)
        if match is None:
            en = f"{piece!r} is no number, no range like 5-8 and no repetition like 0*16"
            raise BadValue(tr(en, f"{piece!r} 不是数字、5-8 形式的范围或 0*16 形式的重复"))
        first, last = int(match[1]), int(match[3] or match[1])
        if match[2] == "*":
            more: Sequence[int] = [first] * min(last, _LONGEST + 1)
        else:
            more = range(first, min(last, first + _LONGEST) + 1)
        if not more or len(found) + len(more) > _LONGEST:
            raise BadValue(tr(f"{piece}: runs backwards or is too long", f"{piece}: 倒序或过长"))
        found += more
    return found


def _number(text: str, unit: str) -> object:
    """A number (or the text itself, for the format to judge); the unit is cut off, MWh makes thousands of kWh."""
    head, _, tail = text.partition(" ")
    tail = tail.strip()
    if tail and _NUMBER.fullmatch(head):
        if unit == "kWh" and tail == "MWh":
            return Decimal(head).scaleb(3)
        if tail != unit:
            wanted = unit or tr("none", "无")
            raise BadValue(tr(f"{tail!r} is not its unit ({wanted})", f"单位 {tail!r} 有误, 应为 {wanted}"))
        text = head
    return Decimal(text) if _NUMBER.fullmatch(text) else text


def _identifier(text: str) -> dict[str, object]:
    match = _DADT.fullmatch(text)
    if match is None:
        raise BadValue(tr(f"{text!r} is not of the form p1F161", f"{text!r} 不是 p1F161 的形式"))
    return {"pn": [int(match[1])], "fn": [int(match[2])]}


def show(place: Place, value: object) -> str:
    """A value as `read` takes it."""
    node = place.node
    if value is None:
        return ""
    if isinstance(node, Group):
        if not node.flat:
            return json.dumps(_plain(value), ensure_ascii=False)
        rows = value if isinstance(value, list) else []
        return ",".join("-".join(map(str, row)) for row in rows) or EMPTY[0]
    if not isinstance(value, list):
        return str(text_of(value))
    if all(isinstance(one, int) for one in value):
        return ",".join(_runs(value)) or EMPTY[0]
    return ",".join(_pieces_of(value)) or EMPTY[0]


def _pieces_of(values: Sequence[object]) -> Iterator[str]:
    for one in values:
        if isinstance(one, dict):
            yield from (f"p{pn}F{fn}" for pn in one["pn"] for fn in one["fn"])
        else:
            yield str(text_of(one))


def _runs(values: Sequence[int]) -> Iterator[str]:
    """Numbers with 5-8 for ranges and 0*16 for repetitions."""
    at = 0
    while at < len(values):
        for step, sign in ((1, "-"), (0, "*")):
            end = at + 1
            while end < len(values) and values[end] - values[end - 1] == step:
                end += 1
            if end - at > 2:
                yield f"{values[at]}{sign}{values[end - 1] if step else end - at}"
                break
        else:
            end = at + 1
            yield str(values[at])
        at = end


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return text_of(value)
