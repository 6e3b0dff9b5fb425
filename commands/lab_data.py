"""What the lab verbs share: CSV files (plain or gzip) read column by column, with every fault named by its row.

Rows are numbered as an editor counts lines, the header being row 1. An empty field is a missing value.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from ..analytics.masks import F8
from ..model.lang import tr
from ..protocols.common.errors import UsageError

T = TypeVar("T")
MAX_BYTES = 1 << 30
SHOWN = 20
# Words that some exports write for "no value".
EMPTY = frozenset({"", "nan", "na", "n/a", "null", "none", "-", "--"})


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file: its header and its cells, row by row."""

    path: Path
    header: list[str]
    rows: list[list[str]]

    def texts(self, column: str) -> list[str]:
        """The cells of a column; UsageError names the columns there are."""
        if column not in self.header:
            known = ", ".join(self.header[:30]) + (" …" if len(self.header) > 30 else "")
            raise UsageError(
                tr(
                    f"{self.path}: no column {column!r}; it has {known}",
                    f"{self.path}: 没有列 {column!r}, 现有 {known}",
                )
            )
        at = self.header.index(column)
        return [row[at].strip() for row in self.rows]

    def numbers(self, column: str) -> F8:
        """The numbers of a column, NaN where the field is empty."""
        return np.array(self._parsed(column, _number, "is no number", "不是数字"), np.float64)

    def times(self, column: str) -> list[datetime]:
        """The naive clock labels of a column, as they stand."""
        return self._parsed(column, _time, "is no time (YYYY-MM-DD HH:MM[:SS])", "不是时间 (YYYY-MM-DD HH:MM[:SS])")

    def _parsed(self, column: str, parse: Callable[[str], T], en: str, zh: str) -> list[T]:
        out: list[T] = []
        wrong: list[str] = []
        for row, text in enumerate(self.texts(column), 2):
            try:
                out.append(parse(text))
            except ValueError:
                shown = text[:40]
                wrong.append(tr(f"row {row}, {column}: {shown!r} {en}", f"第 {row} 行 {column}: {shown!r} {zh}"))
        if wrong:
            more = (
                [tr(f"… and {len(wrong) - SHOWN} more", f"… 另有 {len(wrong) - SHOWN} 处")]
                if len(wrong) > SHOWN
                else []
            )
            raise UsageError("\n".join([tr(f"{self.path} has faults:", f"{self.path} 有误:"), *wrong[:SHOWN], *more]))
        return out


def _number(text: str) -> float:
    if text.lower() in EMPTY:
        return math.nan
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


_LOOSE: Final = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:[ T]+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?)?")


def _time(text: str) -> datetime:
    """ISO 8601, also 2018/1/5 7:30, and 24:00 as the end of its day."""
    found = _LOOSE.fullmatch(text)
    if found is None:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
    if (hour, minute, second) == (24, 0, 0):
        return datetime(year, month, day) + timedelta(days=1)  # noqa: DTZ001 - a clock's label
    return datetime(year, month, day, hour, minute, second)  # noqa: DTZ001


def read_table(path: Path) -> Table:
    """A CSV file with a header, UTF-8 with or without BOM, gzip by its first bytes; UsageError names what is wrong."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        why = error.strerror or error if isinstance(error, OSError) else error
        raise UsageError(tr(f"cannot read {path}: {why}", f"无法读取 {path}: {why}")) from error
    if len(data) > MAX_BYTES:
        raise UsageError(tr(f"{path} is larger than 1 GiB", f"{path} 超过 1 GiB"))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(tr(f"{path}, row {line}: not UTF-8", f"{path} 第 {line} 行: 不是 UTF-8 编码")) from error
    lines = csv.reader(io.StringIO(text, newline=""))
    header = [cell.strip() for cell in next(lines, [])]
    if not header:
        raise UsageError(tr(f"{path} is empty", f"{path} 为空"))
    if len(set(header)) < len(header):
        twice = ", ".join(sorted({c for c in header if header.count(c) > 1}))
        raise UsageError(tr(f"{path}: columns stand twice: {twice}", f"{path}: 列重复: {twice}"))
    rows: list[list[str]] = []
    wrong = []
    for number, row in enumerate(lines, 2):
        if not row:
            continue
        if len(row) != len(header):
            wrong.append(
                tr(
                    f"row {number}: {len(row)} cells, {len(header)} expected",
                    f"第 {number} 行: {len(row)} 格, 应为 {len(header)}",
                )
            )
        rows.append(row)
    if wrong:
        raise UsageError("\n".join([tr(f"{path} has faults:", f"{path} 有误:"), *wrong[:SHOWN]]))
    return Table(path, header, rows)


def zone_of(name: str | None) -> ZoneInfo | None:
    """An IANA time zone, None for none; UsageError for an unknown one."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        text = tr(f"no time zone {name!r}: write Area/City", f"没有时区 {name!r}: 请写 Area/City")
        raise UsageError(text) from error


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A CSV file, UTF-8, gzip if the name ends in .gz; UsageError if it cannot be written."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    data = out.getvalue().encode("utf-8")
    try:
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    except OSError as error:
        raise UsageError(tr(f"cannot write {path}: {error.strerror}", f"无法写入 {path}: {error.strerror}")) from error


def shown(value: float, digits: int = 7) -> str:
    """A number for a CSV cell: `digits` significant digits, empty for NaN."""
    return "" if not math.isfinite(value) else f"{value:.{digits}g}"
