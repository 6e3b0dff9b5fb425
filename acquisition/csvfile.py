"""Lists as CSV files: what is around the rows (encoding, size, header, quoting), with every fault named.

UTF-8 with or without BOM. A row's number is the line on which it begins, as an editor counts (the header is row 1).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

MAX_BYTES: Final = 64 << 20


class TakesFaults(Protocol):
    """Who collects faults: row, column, English, Chinese."""

    def fault(self, row: int, column: str, en: str, zh: str) -> None: ...


def read_csv(
    data: bytes,
    faults: TakesFaults,
    *,
    columns: Sequence[str],
    required: Sequence[str],
    extra: Callable[[str], bool] = lambda _column: False,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """(row, cells by column, trimmed) of every row that is not blank. Never raises; what is wrong becomes a fault.

    columns: the known ones, empty where the file lacks them; extra: whether another column is welcome;
    progress gets row numbers. A fault of the file or of its header yields no row at all.
    """
    if len(data) > MAX_BYTES:
        faults.fault(1, "-", f"the file is larger than {MAX_BYTES >> 20} MB", f"文件超过 {MAX_BYTES >> 20} MB")
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        en = 'is not UTF-8: save the file as "CSV UTF-8"'
        faults.fault(row, "-", en, "不是 UTF-8 编码: 请另存为“CSV UTF-8”")
        return
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next(rows, [])]
        if not _header_ok(faults, header, columns, required, extra):
            return
        defaults = dict.fromkeys(columns, "")
        begin = rows.line_num + 1
        for cells in rows:
            if any(cell.strip() for cell in cells):
                if len(cells) == len(header):
                    yield begin, defaults | {c: v.strip() for c, v in zip(header, cells, strict=True)}
                else:
                    en = f"{len(cells)} cells where the header has {len(header)}"
                    faults.fault(begin, "-", en, f"有 {len(cells)} 个单元格, 表头有 {len(header)} 个")
            begin = rows.line_num + 1
            if progress is not None:
                progress(begin - 1)
    except csv.Error as error:
        # after a broken quote the reader no longer knows where rows begin: what follows cannot be judged
        en = f"broken quoting ({error}); the rest of the file was not checked"
        faults.fault(rows.line_num, "-", en, f"引号有误 ({error}), 其后未检查")


def _header_ok(
    faults: TakesFaults,
    header: Sequence[str],
    columns: Sequence[str],
    required: Sequence[str],
    extra: Callable[[str], bool],
) -> bool:
    good = True

    def wrong(column: str, en: str, zh: str) -> None:
        nonlocal good
        good = False
        faults.fault(1, column or "-", en, zh)

    for column in sorted(set(header) - set(columns)):
        if not extra(column):
            known = ", ".join(columns)
            wrong(column, f"unknown column (known: {known})", f"未知列 (可用: {known})")
    for column in sorted({c for c in header if header.count(c) > 1}):
        wrong(column, "the column stands twice", "列重复")
    for column in required:
        if column not in header:
            wrong(column, "the column is missing", "缺少此列")
    return good
