"""CSV files of people: read whole, every fault named by row and column, nothing taken over half-way.

Accepts UTF-8 (with or without BOM) and GB18030, as spreadsheets on Chinese desktops write it.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, TypeVar

from ..model.lang import tr
from ..model.times import BUSINESS_ZONE
from ..protocols.common.errors import UsageError

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_SHOWN: Final = 200
T = TypeVar("T")


@dataclass(slots=True)
class Faults:
    """Faults of a file, in the order found."""

    texts: list[str] = field(default_factory=list)

    def add(self, row: int | None, column: str, text: str) -> None:
        """Remember one fault; row = line number in the file."""
        where = "" if row is None else tr(f"row {row}", f"第 {row} 行") + (f", {column}" if column else "") + ": "
        self.texts.append(where + text)

    def raise_if_any(self, what: str) -> None:
        """UsageError with all faults."""
        if self.texts:
            shown = self.texts[:MAX_SHOWN]
            more = len(self.texts) - len(shown)
            tail = [tr(f"... and {more} more", f"... 另有 {more} 处")] if more else []
            head = tr(
                f"{what}: {len(self.texts)} faults, nothing was changed",
                f"{what}: {len(self.texts)} 处错误, 未作任何修改",
            )
            raise UsageError("\n  ".join([head, *shown, *tail]))


@dataclass(slots=True)
class Row:
    """One row; each reader notes a fault and returns None instead of raising."""

    line: int
    cells: Mapping[str, str]
    faults: Faults
    bad: bool = False

    def fault(self, column: str, text: str) -> None:
        """Note a fault of this row."""
        self.bad = True
        self.faults.add(self.line, column, text)

    def text(self, column: str, default: str = "") -> str:
        """The cell, stripped."""
        return self.cells.get(column, "") or default

    def needed(self, column: str) -> str:
        """The cell, which must not be empty."""
        value = self.text(column)
        if not value:
            self.fault(column, tr("is empty", "为空"))
        return value

    def _finite(self, column: str, value: str) -> float | None:
        """A finite number or a fault."""
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            self.fault(column, tr(f"{value!r} is not a number", f"{value!r} 不是数"))
            return None
        return found

    def number(self, column: str, least: float, most: float = 1e7) -> float | None:
        """A number within bounds."""
        value = self.needed(column)
        found = self._finite(column, value) if value else None
        if found is not None and not least <= found <= most:
            self.fault(
                column, tr(f"{value} is not within {least:g} to {most:g}", f"{value} 不在 {least:g} 至 {most:g}")
            )
            return None
        return found

    def optional_number(self, column: str, least: float, most: float = 1e7) -> float | None:
        """A number within bounds, None where the cell is empty."""
        return self.number(column, least, most) if self.text(column) else None

    def integer(self, column: str, least: int, most: int) -> int | None:
        """A whole number within bounds."""
        found = self.number(column, least, most)
        if found is not None and found != int(found):
            self.fault(column, tr("is not a whole number", "不是整数"))
            return None
        return None if found is None else int(found)

    def optional_integer(self, column: str, least: int, most: int) -> int | None:
        """A whole number within bounds, None where the cell is empty."""
        return self.integer(column, least, most) if self.text(column) else None

    def flag(self, column: str, default: bool) -> bool:
        """1/0, yes/no, true/false, 是/否; empty = default."""
        value = self.text(column).lower()
        if value in ("1", "yes", "true", "是"):
            return True
        if value in ("0", "no", "false", "否"):
            return False
        if value:
            self.fault(column, tr(f"{value!r} is not yes or no", f"{value!r} 不是 是/否"))
        return default

    def choice(self, column: str, choices: Mapping[str, T]) -> T | None:
        """One of the named choices (case does not matter)."""
        value = self.needed(column)
        found = choices.get(value.lower(), choices.get(value))
        if value and found is None:
            self.fault(
                column, tr(f"{value!r} is none of {', '.join(choices)}", f"{value!r} 不在 {', '.join(choices)} 之中")
            )
        return found

    def known(self, column: str, known: Mapping[str, int]) -> int | None:
        """The id of a name that must exist."""
        value = self.needed(column)
        if value and value not in known:
            self.fault(column, tr(f"no device {value!r} in the device list", f"装置清单中没有 {value!r}"))
        return known.get(value)

    def day(self, column: str) -> date | None:
        """A date YYYY-MM-DD (a time behind it is allowed)."""
        found = self.instant(column)
        return None if found is None else found.astimezone(BUSINESS_ZONE).date()

    def instant(self, column: str) -> datetime | None:
        """A date or an instant (ISO); without a zone it is business time. Empty = a fault."""
        value = self.needed(column)
        if not value:
            return None
        try:
            return parse_instant(value)
        except UsageError as error:
            self.fault(column, str(error))
            return None


def parse_instant(value: str) -> datetime:
    """An ISO date or time; without a zone it is business time (+08:00). UsageError otherwise."""
    try:
        found = datetime.fromisoformat(value.strip())
    except ValueError:
        raise UsageError(
            tr(f"{value!r} is not a time like 2026-07-01T14:00", f"{value!r} 不是 2026-07-01T14:00 形式的时间")
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=BUSINESS_ZONE)


def csv_lines(data: bytes) -> list[list[str]]:
    """The cells of a CSV file; UsageError where it cannot be read as one at all."""
    if len(data) > MAX_BYTES:
        raise UsageError(tr(f"the file is larger than {MAX_BYTES} bytes", f"文件超过 {MAX_BYTES} 字节"))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = data.decode("gb18030")
        except UnicodeDecodeError as error:
            raise UsageError(
                tr(f"the file is neither UTF-8 nor GB18030: {error}", f"文件既非 UTF-8 也非 GB18030: {error}")
            ) from error
    try:
        return list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise UsageError(tr(f"not a CSV file: {error}", f"不是 CSV 文件: {error}")) from error


def read_sheet(data: bytes, required: Sequence[str], optional: Sequence[str], faults: Faults) -> list[Row]:
    """The rows of a CSV file with a heading line; UsageError where it cannot be read as one at all."""
    lines = csv_lines(data)
    heading = [name.strip() for name in lines[0]] if lines else []
    missing = [n for n in required if n not in heading]
    unknown = [n for n in heading if n not in required and n not in optional]
    twice = sorted({n for n in heading if heading.count(n) > 1})
    for names, en, zh in (
        (missing, "missing columns", "缺列"),
        (unknown, "unknown columns", "未知列"),
        (twice, "columns twice", "重复列"),
    ):
        if names:
            faults.add(1, "", tr(en, zh) + ": " + ", ".join(names))
    if missing or unknown or twice:
        return []
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(heading):
            faults.add(
                number,
                "",
                tr(f"{len(cells)} cells, {len(heading)} expected", f"{len(cells)} 列, 应为 {len(heading)} 列"),
            )
            continue
        rows.append(Row(number, {n: c.strip() for n, c in zip(heading, cells, strict=True)}, faults))
    if not rows and not faults.texts:
        faults.add(None, "", tr("the file has no rows", "文件没有数据行"))
    return rows
