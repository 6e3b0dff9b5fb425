"""The rows of a parameter list: each cell checked, rows gathered to settings, every fault noted with row and column.

The file around them is csvfile.py's matter, what a list is for parameters.py's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from ..protocols.qgdw1376.table import Row, lookup, table
from .device_rows import Fault
from .parameter_fields import SET, BadValue, check, labelled, read, shape

COLUMNS: Final = ("device", "parameter", "pn", "values")
POINTS: Final = {"0": 0, "M": 2040, "G": 8, "R": 8, "T": 64, "D": 64}  # highest pn of a kind
_PARAMETER: Final = re.compile(r"(?:(?:AFN\s*)?04[-\s]*)?F(\d{1,3})", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One parameter of one point of one terminal. data: values as they will be read back; rows: where it was written.

    edition: numbering of the terminal ("2005", "2009", "2013").
    """

    device: str
    edition: str
    fn: int
    name: str
    pn: int
    data: dict[str, object]
    rows: tuple[int, ...] = ()

    @property
    def row(self) -> Row:
        """The row of the table."""
        found = lookup(SET, self.fn, self.edition)
        assert found is not None
        return found


@dataclass(frozen=True, slots=True)
class ParsedSettings:
    """Settings in the order of the list, or (if there is any fault) none and every fault in order of rows."""

    settings: tuple[Setting, ...]
    faults: tuple[Fault, ...]


def all_fields() -> set[str]:
    """Every field that any parameter has."""
    shapes = [shape(row) for row in table().rows if SET in row.afn]
    return {name for one in shapes for name in (*one.places, *one.entry)} - set(COLUMNS)


@dataclass(slots=True)
class _Draft:
    """A setting while its rows are gathered. data: fields around the list; entries: its elements, one a row."""

    row: int
    found: Row
    edition: str
    data: dict[str, object]
    entries: list[dict[str, object]]
    rows: list[int]


@dataclass(slots=True)
class RowReader:
    """Takes row after row; `finish` gives the settings or the faults, never both."""

    editions: Mapping[str, str]
    faults: list[Fault] = field(default_factory=list)
    drafts: dict[tuple[str, int, int, str], _Draft] = field(default_factory=dict)

    def fault(self, row: int, column: str, en: str, zh: str) -> None:
        self.faults.append(Fault(row, column, tr(en, zh)))

    def take(self, row: int, cells: Mapping[str, str]) -> None:
        """One row: opens a setting, or adds an element to the list of one."""
        device, before = cells["device"], len(self.faults)
        edition = self.editions.get(device)
        if edition is None:
            known = ", ".join(self.editions)
            en = f"no terminal {device!r} that takes parameters (there are: {known or 'none'})"
            self.fault(row, "device", en, f"没有可设参数的终端 {device!r} (现有: {known or '无'})")
        found = self.parameter(row, cells["parameter"], edition)
        if found is None:
            return
        form = shape(found)
        # the archive is the terminal's own (p0): pn is that of the device in the row
        inside = found.pn == "0" and "pn" in form.entry
        points = [0] if inside else self.points(row, cells["pn"], found)
        data, entry = self.values(row, cells, found, own=() if inside else ("pn",))
        if edition is None or len(self.faults) > before:
            return
        missing = [name for name in (*form.places, *form.entry) if name in form.wanted(bool(entry)) - {*data, *entry}]
        if missing:
            zh = f"缺少: {', '.join(labelled(name) for name in missing)}"
            self.fault(row, "values", f"missing: {', '.join(missing)}", zh)
        elif entry and form.list_name in data:
            en = f"{form.list_name} stands beside a single element of it"
            self.fault(row, "values", en, f"{labelled(form.list_name)} 与其单项同时出现")
        else:
            for pn in points:
                self.add(row, _Draft(row, found, edition, data, [entry] if entry else [], [row]), device, pn)

    def add(self, row: int, new: _Draft, device: str, pn: int) -> None:
        """A setting of its own, or one more element of the list of a setting that is there."""
        form = shape(new.found)
        head = {name: new.data[name] for name in form.head}
        old = self.drafts.setdefault((device, new.found.fn, pn, repr(head)), new)
        if old is new:
            return
        if not (new.entries and old.entries):
            en = f"F{new.found.fn} p{pn} stands already in row {old.row}"
            self.fault(row, "parameter", en, f"F{new.found.fn} p{pn} 已出现在第 {old.row} 行")
            return
        if old.data != new.data:
            names = ", ".join(name for name in new.data if old.data.get(name) != new.data[name])
            en = f"{names}: not as in row {old.row} of the same list"
            self.fault(row, "values", en, f"{names}: 与同一列表第 {old.row} 行不同")
            return
        for entry in new.entries:
            if form.key and any(one[form.key] == entry[form.key] for one in old.entries):
                en, zh = f"{form.key} {entry[form.key]} stands twice", f"{labelled(form.key)} {entry[form.key]} 重复"
                self.fault(row, "values", en, zh)
        old.entries += new.entries
        old.rows.append(row)

    def parameter(self, row: int, text: str, edition: str | None) -> Row | None:
        match = _PARAMETER.fullmatch(text)
        for found in table().rows:
            if SET in found.afn and (found.fn == int(match[1]) if match else text in (found.name, found.zh)):
                return lookup(SET, found.fn, edition) if edition else found
        en = f"no parameter {text!r}: give F1, F25 ... or its name (fuhe reference qgdw1376)"
        self.fault(row, "parameter", en, f"没有参数 {text!r}: 请填 F1、F25 等或其名称 (fuhe reference qgdw1376)")
        return None

    def points(self, row: int, text: str, found: Row) -> list[int]:
        """Point numbers of a cell (1, 1-8, 1;3;5); empty after a fault."""
        highest = max(POINTS[kind] for kind in found.pn)
        lowest = 0 if "0" in found.pn else 1
        points: list[int] = []
        for piece in re.split(r"[;,]", text) if text else ["0"] if lowest == 0 else [""]:
            match = re.fullmatch(r"\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", piece)
            if match is None or not lowest <= int(match[1]) <= int(match[2] or match[1]) <= highest:
                wanted = "0" if highest == 0 else f"{lowest}-{highest}"
                en = f"{text!r}: F{found.fn} wants a point number ({wanted}), a range or several with ;"
                self.fault(row, "pn", en, f"{text!r}: F{found.fn} 的信息点应为 {wanted}, 可用范围或以 ; 分隔")
                return []
            points += range(int(match[1]), int(match[2] or match[1]) + 1)
        return list(dict.fromkeys(points))

    def values(
        self, row: int, cells: Mapping[str, str], found: Row, own: Sequence[str]
    ) -> tuple[dict[str, object], dict[str, object]]:
        """(fields of the parameter, fields of one element of its list) of a row. own: columns that are no fields."""
        form = shape(found)
        given: dict[str, tuple[str, object]] = {}
        pairs = self.pairs(row, cells["values"])
        for column, text in cells.items():
            if column not in ("device", "parameter", "values", *own) and text:
                given[column] = (column, text)
        for name, value in pairs.items():
            if name in given:
                self.fault(row, "values", f"{name} stands in a column too", f"{name} 同时出现在列中")
            given[name] = ("values", value)
        data: dict[str, object] = {}
        entry: dict[str, object] = {}
        for name, (column, value) in given.items():
            place = form.places.get(name) or form.entry.get(name)
            if place is None:
                known = ", ".join(dict.fromkeys((*form.places, *form.entry)))
                en, zh = (
                    f"F{found.fn} has no field {name} (it has: {known})",
                    f"F{found.fn} 没有字段 {name} (有: {known})",
                )
                self.fault(row, column, en, zh)
                continue
            try:
                if isinstance(value, str):
                    value = read(place, value, found.limits)
                else:
                    check(place, value, found.limits)
            except BadValue as error:
                self.fault(row, column, f"{name}: {error}", f"{place.label}: {error}")
                continue
            (data if name in form.places else entry)[name] = value
        return data, entry

    def pairs(self, row: int, text: str) -> dict[str, object]:
        """name=value; name=value, or a JSON object."""
        if text.startswith("{"):
            try:
                found = json.loads(text, parse_float=Decimal)
            except ValueError as error:
                self.fault(row, "values", f"is no JSON object ({error})", f"不是 JSON 对象 ({error})")
                return {}
            return found if isinstance(found, dict) else {}
        pairs: dict[str, object] = {}
        for part in filter(None, map(str.strip, _split(text))):
            name, sign, value = (p.strip() for p in part.partition("="))
            if not sign or not name:
                self.fault(row, "values", f"{part!r} is not name=value", f"{part!r} 不是 名称=值 的形式")
            elif name in pairs:
                self.fault(row, "values", f"{name} stands twice", f"{name} 重复")
            else:
                pairs[name] = value
        return pairs

    def finish(self) -> ParsedSettings:
        settings = []
        for (device, fn, pn, _), draft in self.drafts.items() if not self.faults else ():
            more = {shape(draft.found).list_name: draft.entries} if draft.entries else {}
            setting = Setting(
                device=device, edition=draft.edition, fn=fn, name=draft.found.name, pn=pn, data={**draft.data, **more},
                rows=tuple(draft.rows),
            )  # fmt: skip
            try:
                settings.append(replace(setting, data=settled(setting)))
            except UsageError as error:
                self.fault(draft.row, "values", str(error), f"无法编码: {error}")
        if self.faults:
            return ParsedSettings((), tuple(sorted(self.faults)))
        return ParsedSettings(tuple(settings), ())


def _split(text: str) -> Iterable[str]:
    """Parts between ; outside of brackets."""
    depth, start = 0, 0
    for i, char in enumerate(text):
        depth += (char in "[{") - (char in "]}")
        if char == ";" and depth == 0:
            yield text[start:i]
            start = i + 1
    yield text[start:]


def encode(setting: Setting) -> bytes:
    """The data unit of a setting, without its identifier. UsageError: it does not fit the layout."""
    return setting.row.fields.encode(setting.data, setting.edition)


def settled(setting: Setting) -> dict[str, object]:
    """The values as they will be read back: encoded and decoded again, with counts and derived keys."""
    found = setting.row.fields.exact(encode(setting), setting.edition)
    assert found is not None, setting
    return found
