"""The service indicators (指标): the table of them, one row a month, and figures given by hand. Pure.

A row is a fraction with what stands behind it: exempt items apart, completeness of the data, the formula's version.
Below 95 % completeness, or before the month is over, it is provisional. Where an input is missing the row says which,
and has no number. Nothing here reads a database: commands/kpi_data.py counts.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import msgspec

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .masks import COMPLETE_SHARE

Unit = Literal["%", "h", "ppm", "count"]
SCALE: Final[Mapping[Unit, float]] = {"%": 1.0, "h": 1.0, "ppm": 1e6, "count": 1.0}
COLUMNS: Final = ("indicator", "numerator", "denominator")


class Indicator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One indicator of kpi.toml (its head says what the fields are)."""

    number: str
    en: str
    zh: str
    auto: Literal["A", "P", "M"]
    formula: str
    source: str = ""
    target: float | None = None
    sense: Literal[">=", "<="] = ">="
    unit: Unit = "%"
    needs_en: str = ""
    needs_zh: str = ""
    version: int = 1

    @property
    def name(self) -> str:
        """In the language in force."""
        return tr(self.en, self.zh)

    @property
    def formula_version(self) -> str:
        """Number and version, as stored with each value."""
        return f"{self.number}/{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was counted. completeness 0..1 of the data it rests on; exempt items are in neither number."""

    numerator: float
    denominator: float
    completeness: float
    exempt: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing can be said; `why` names the input that is missing."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One indicator of one month. origin: system, manual, or none: then all numbers are None, and `missing` names the
    input that is missing, or `note` says why nothing was due.

    value: numerator / denominator in the indicator's unit (ratios 0..1, hours, per million). completeness: None where
    the figure was given by hand. meets: against the target, None without one or without a value.
    """

    indicator: Indicator
    period: str
    origin: Literal["system", "manual", "none"]
    numerator: float | None = None
    denominator: float | None = None
    exempt: float | None = None
    completeness: float | None = None
    value: float | None = None
    provisional: bool = False
    missing: str = ""
    note: str = ""

    @property
    def meets(self) -> bool | None:
        """Whether the target is reached."""
        target = self.indicator.target
        if target is None or self.value is None:
            return None
        return self.value >= target if self.indicator.sense == ">=" else self.value <= target


@dataclass(frozen=True, slots=True, kw_only=True)
class Manual:
    """A figure given by hand."""

    indicator: str
    numerator: float
    denominator: float


@cache
def indicators() -> Mapping[str, Indicator]:
    """All of kpi.toml by number, in its order. ValueError names every fault."""
    text = Path(__file__).with_name("kpi.toml").read_bytes()
    rows = msgspec.toml.decode(text, type=dict[str, list[Indicator]])["indicator"]
    faults = [f"{r.number} stands twice" for i, r in enumerate(rows) if r.number in {x.number for x in rows[:i]}]
    faults += [f"{r.number}: no source, and not said what it needs" for r in rows if not r.source and not r.needs_en]
    faults += [f"{r.number}: needs without Chinese" for r in rows if bool(r.needs_en) != bool(r.needs_zh)]
    if faults:
        raise ValueError("kpi.toml: " + "; ".join(faults))
    return {row.number: row for row in rows}


def row_of(indicator: Indicator, period: str, found: Found | Absent, *, over: bool) -> Row:
    """The row of what the system counted; `over`: whether the month has ended."""
    if isinstance(found, Absent):
        return Row(indicator=indicator, period=period, origin="none", missing=found.why)
    value = _value(indicator, found.numerator, found.denominator)
    if value is None:
        why = found.note or tr("nothing was due in the month", "当月无应计项")
        return Row(indicator=indicator, period=period, origin="none", note=why, exempt=found.exempt)
    return Row(
        indicator=indicator, period=period, origin="system", numerator=found.numerator, denominator=found.denominator,
        exempt=found.exempt, completeness=found.completeness, value=value, note=found.note,
        provisional=not over or found.completeness < COMPLETE_SHARE,
    )  # fmt: skip


def manual_row(indicator: Indicator, period: str, given: Manual, *, over: bool) -> Row:
    """The row of a figure given by hand."""
    return Row(
        indicator=indicator, period=period, origin="manual", numerator=given.numerator, denominator=given.denominator,
        exempt=0.0, value=_value(indicator, given.numerator, given.denominator), provisional=not over,
    )  # fmt: skip


def needs(indicator: Indicator) -> Absent:
    """What is missing for an indicator that nothing reckons."""
    return Absent(tr(indicator.needs_en, indicator.needs_zh))


def _value(indicator: Indicator, numerator: float, denominator: float) -> float | None:
    return numerator / denominator * SCALE[indicator.unit] if denominator > 0 else None


def read_manual(text: str, reckoned: Collection[str]) -> list[Manual]:
    """Figures given by hand, CSV `indicator,numerator,denominator`; UsageError names every fault with its row.

    reckoned: numbers of indicators that the system counts from its own data; a hand-written figure for one is refused.
    """
    lines = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))
    head = [cell.strip() for cell in lines[0]] if lines else []
    faults = [tr(f"row 1: column {c!r} is missing", f"第 1 行: 缺少列 {c!r}") for c in COLUMNS if c not in head]
    faults += [tr(f"row 1: column {c!r} is unknown", f"第 1 行: 未知列 {c!r}") for c in head if c not in COLUMNS]
    faults += [
        tr(f"row 1: column {c!r} stands twice", f"第 1 行: 列 {c!r} 重复") for c in set(head) if head.count(c) > 1
    ]
    if faults:
        raise _faulty(faults)
    rows: list[Manual] = []
    first: dict[str, int] = {}
    for number, cells in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(head):
            en = f"row {number}: {len(cells)} cells where the heading has {len(head)}"
            faults.append(tr(en, f"第 {number} 行: {len(cells)} 列, 应为 {len(head)} 列"))
            continue
        values = {c: cell.strip() for c, cell in zip(head, cells, strict=True)}
        wrong, found = _manual(values, reckoned)
        if values["indicator"] in first:
            wrong.append(tr(f"indicator: stands already in row {first[values['indicator']]}",
                            f"indicator: 已出现在第 {first[values['indicator']]} 行"))  # fmt: skip
        first.setdefault(values["indicator"], number)
        faults += [tr(f"row {number}, {w}", f"第 {number} 行, {w}") for w in wrong]
        if found is not None:
            rows.append(found)
    if not rows and not faults:
        faults.append(tr("no figure in it", "没有数据行"))
    if faults:
        raise _faulty(faults)
    return rows


def _manual(values: Mapping[str, str], reckoned: Collection[str]) -> tuple[list[str], Manual | None]:
    faults: list[str] = []
    indicator = indicators().get(values["indicator"])
    if indicator is None:
        faults.append(
            tr(f"indicator: no indicator {values['indicator']!r}", f"indicator: 没有指标 {values['indicator']!r}")
        )
    elif indicator.number in reckoned:
        en = f"indicator: {indicator.number} is counted from the system's own data"
        faults.append(tr(en, f"indicator: {indicator.number} 由系统数据计算, 不接受手工值"))
    numbers = {name: _number(values[name]) for name in ("numerator", "denominator")}
    for name, number in numbers.items():
        if number is None:
            faults.append(
                tr(f"{name}: {values[name]!r} is no number of 0 or more", f"{name}: {values[name]!r} 应为非负数")
            )
    top, below = numbers["numerator"], numbers["denominator"]
    if below == 0:
        faults.append(tr("denominator: must be above 0", "denominator: 应大于 0"))
    elif indicator is not None and indicator.unit == "%" and top is not None and below is not None and top > below:
        faults.append(tr("numerator: is larger than the denominator", "numerator: 大于分母"))
    if faults or top is None or below is None:
        return faults, None
    return [], Manual(indicator=values["indicator"], numerator=top, denominator=below)


def _number(text: str) -> float | None:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def _faulty(faults: Iterable[str]) -> UsageError:
    head = tr("the manual figures have faults, nothing was taken:\n  ", "手工指标文件有误, 未采用任何数据:\n  ")
    return UsageError(head + "\n  ".join(faults))
