"""Parameters of terminals (AFN 04, 0A): a CSV list -> checked settings, their preview, and what a read-back differs in.

    device,parameter,pn,values                              parameter: F25, 04F25 or its name; pn may be 1-8
    T01,F25,1,pt_ratio=1; ct_ratio=40; rated_v=220; rated_a=1.5; rated_kva=6.6; phase=0; wiring=2
    T01,control_periods,,"half_hours=0*16,1*16,2*8,0*8"

Every other column is a field (parameter_fields.py has what a cell may say); `values` holds name=value pairs or a JSON
object. A parameter that is a list (device archive, ports, total-sum groups) is written one row an element: rows of one
device, parameter and pn are one setting (in lists whose elements have a pn of their own, F10 F11 F13, the column pn is
that). Counts follow by themselves. Nothing here sends: who sends takes `unit_of`,
reads back with `question_of` and asks `compare`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ..model.lang import tr
from ..protocols.qgdw1376.table import Row
from ..protocols.qgdw1376.units import Unit
from .csvfile import read_csv
from .parameter_fields import Place, Shape, shape, show
from .parameter_rows import COLUMNS, ParsedSettings, RowReader, Setting, all_fields, encode, settled

__all__ = [
    "COLUMNS", "Difference", "ParsedSettings", "Setting", "compare", "encode", "parse_settings", "preview",
    "question_of", "split", "unit_of",
]  # fmt: skip

REQUIRED: Final = ("device", "parameter")
SECRET: Final = frozenset(("password", "password_hex"))


@dataclass(frozen=True, slots=True)
class Difference:
    """A value of a read-back that is not what was set. path: field, in a list with the element's key (devices[3].port).

    wanted and found are text; found is "" where the terminal has nothing. Secrets are never shown.
    """

    path: str
    label: str
    wanted: str
    found: str
    unit: str

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        found = f"{self.found}{unit}" if self.found else tr("nothing", "无")
        return tr(
            f"{self.path}: set {self.wanted}{unit}, the terminal has {found}",
            f"{self.label} ({self.path}): 设置值 {self.wanted}{unit}, 终端为 {found}",
        )


def parse_settings(data: bytes, editions: Mapping[str, str]) -> ParsedSettings:
    """The settings of a CSV list, or every fault in it. Never raises. editions: device name -> edition it speaks."""
    reader = RowReader(editions)
    fields = all_fields()
    for row, cells in read_csv(data, reader, columns=COLUMNS, required=REQUIRED, extra=fields.__contains__):
        reader.take(row, cells)
    return reader.finish()


def unit_of(setting: Setting) -> Unit:
    """The unit to send with AFN 04."""
    return Unit(setting.pn, setting.fn, setting.data)


def question_of(setting: Setting) -> Unit:
    """The unit that reads it back with AFN 0A: of a list the numbers of the elements set, else without data."""
    form = shape(setting.row)
    asked = {name: setting.data[name] for name in form.head}
    if form.key:
        asked[form.key] = [entry[form.key] for entry in _entries(setting, form)]
    return Unit(setting.pn, setting.fn, asked)


def _entries(setting: Setting, form: Shape) -> list[Mapping[str, object]]:
    rows = setting.data.get(form.list_name)
    return [one for one in rows if isinstance(one, dict)] if isinstance(rows, list) else []


def split(setting: Setting, most_bytes: int) -> tuple[Setting, ...]:
    """A list in as many settings as it takes for data units of at most `most_bytes`; anything else as it is."""
    form = shape(setting.row)
    entries = _entries(setting, form)
    if not form.key or len(entries) < 2 or len(encode(setting)) <= most_bytes:
        return (setting,)
    around = {name: value for name, value in setting.data.items() if name in form.places and name not in form.counted}
    half = len(entries) // 2
    parts = [replace(setting, data={**around, form.list_name: part}) for part in (entries[:half], entries[half:])]
    return tuple(piece for part in parts for piece in split(replace(part, data=settled(part)), most_bytes))


def preview(settings: Iterable[Setting]) -> str:
    """What would be set, for a person to check before sending: every value with its unit, and the bytes. No secrets."""
    lines: list[str] = []
    for setting in settings:
        row, form = setting.row, shape(setting.row)
        wire = encode(setting)
        lines.append(f"{setting.device}  F{setting.fn} {tr(row.en, row.zh)}  p{setting.pn}")
        for name, place in form.places.items():
            if name in setting.data and name not in form.counted and name != form.list_name:
                lines.append("    " + _line(place, setting.data[name]))
        for entry in _entries(setting, form):
            shown = (_line(place, entry[name]) for name, place in form.entry.items() if name not in form.counted)
            lines.append("    - " + "; ".join(shown) + _deletion(row, entry))
        if SECRET.isdisjoint((*form.places, *form.entry)):
            lines.append(tr(f"    {len(wire)} bytes: ", f"    {len(wire)} 字节: ") + wire.hex(" ").upper())
    return "\n".join(lines)


def _deletion(row: Row, entry: Mapping[str, object]) -> str:
    return tr(" (deletes the entry)", " (删除该项)") if _deletes(row, entry) else ""


def _deletes(row: Row, entry: Mapping[str, object]) -> bool:
    return bool(row.deletes) and entry.get(row.deletes) == 0


def _line(place: Place, value: object) -> str:
    return f"{place.label} = {_shown(place, value)}" + (f" {place.unit}" if place.unit else "")


def _shown(place: Place, value: object) -> str:
    return "******" if place.name in SECRET else show(place, value)


def compare(setting: Setting, found: Mapping[str, object] | None) -> tuple[Difference, ...]:
    """Where a read-back (data of the answering unit, None = no answer) is not what was set; empty = all as set.

    Elements of a list are matched by their key, whatever else the terminal holds; a deleted element must be gone.
    """
    form, data = shape(setting.row), found or {}
    differences: list[Difference] = []
    for name, place in form.places.items():
        if name in setting.data and name not in form.counted and (name != form.list_name or not form.key):
            differences += _differ(name, place, setting.data[name], data.get(name))
    if form.key:
        rows = data.get(form.list_name)
        there = {one[form.key]: one for one in rows if isinstance(one, dict)} if isinstance(rows, list) else {}
        for entry in _entries(setting, form):
            path = f"{form.list_name}[{entry[form.key]}]"
            differences += _differ_entry(setting.row, path, form, entry, there.get(entry[form.key], {}))
    return tuple(differences)


def _differ_entry(
    row: Row, path: str, form: Shape, entry: Mapping[str, object], found: Mapping[str, object]
) -> Iterable[Difference]:
    if _deletes(row, entry):
        if not found or _deletes(row, found):
            return
        yield from _differ(f"{path}.{row.deletes}", form.entry[row.deletes], 0, found.get(row.deletes))
        return
    for name, place in form.entry.items():
        if name not in form.counted:
            yield from _differ(f"{path}.{name}", place, entry[name], found.get(name))


def _differ(path: str, place: Place, wanted: object, found: object) -> Iterable[Difference]:
    if wanted != found:
        yield Difference(
            path, place.label, _shown(place, wanted), _shown(place, found) if found is not None else "", place.unit
        )
