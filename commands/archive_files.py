"""Archive files: a folder of CSV files or one XLSX workbook, one sheet an entity (docs/archive.md).

Reading gives rows and every fault with its sheet, row and column; writing gives what reading takes. Texts that a
spreadsheet would run as formulas are kept as texts both ways, and formulas are not read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..control.sheet import csv_lines
from ..model.archive import ENTITIES, Entity, Field, Version
from ..model.archive_cells import CellError, guarded, read_cell, read_instant, unguarded, write_cell
from ..model.archive_csv import DATES, by_entity, csv_texts, heading, sheet_values
from ..model.archive_plan import ArchiveRow, Fault
from ..model.lang import tr
from ..protocols.common.errors import UsageError

if TYPE_CHECKING:
    from openpyxl.cell import Cell, MergedCell

MAX_BYTES: Final = 64 * 1024 * 1024
EXACT_DIGITS: Final = 15  # a spreadsheet keeps no more of a number

Table = tuple[str, list[str], list[tuple[int, list[str]]], list[Fault]]
"""Sheet name, heading, (row number, cells), faults of cells that are no values."""


def read_archive(path: Path) -> tuple[list[ArchiveRow], list[Fault]]:
    """Rows of a workbook, a CSV file (named after its entity) or a folder of them; UsageError if it is none."""
    if path.is_dir():
        files = sorted(path.glob("*.csv"))
        if not files:
            raise UsageError(tr(f"{path} holds no .csv files", f"{path} 中没有 .csv 文件"))
        tables = [_csv_table(f) for f in files]
    elif path.suffix.lower() == ".csv":
        tables = [_csv_table(path)]
    elif path.suffix.lower() == ".xlsx":
        tables = _workbook(path)
    else:
        raise UsageError(tr(f"{path}: neither a folder nor .csv nor .xlsx", f"{path}: 既非目录也非 .csv 或 .xlsx"))
    rows: list[ArchiveRow] = []
    faults: list[Fault] = []
    for table in tables:
        faults += table[3]
        _read_table(table, rows, faults)
    return rows, faults


def _entity(name: str) -> Entity | None:
    return ENTITIES.get(name.strip()) or next((e for e in ENTITIES.values() if e.zh == name.strip()), None)


def _read_table(table: Table, rows: list[ArchiveRow], faults: list[Fault]) -> None:
    sheet, heading, lines, _ = table
    entity = _entity(sheet)
    if entity is None:
        text = tr(f"no such sheet; there are: {', '.join(ENTITIES)}", f"没有该表; 现有: {', '.join(ENTITIES)}")
        faults.append(Fault(sheet, 0, "", text))
        return
    fields = {f.name: f for f in entity.fields}
    missing = [f.name for f in entity.fields if f.required and f.name not in heading]
    unknown = [n for n in heading if n not in fields and n not in DATES]
    twice = sorted({n for n in heading if heading.count(n) > 1})
    for names, en, zh in (
        (missing, "missing columns", "缺列"),
        (unknown, "unknown columns", "未知列"),
        (twice, "columns twice", "重复列"),
    ):
        if names:
            faults.append(Fault(sheet, 1, "", tr(en, zh) + ": " + ", ".join(names)))
    if missing or unknown or twice:
        return
    for number, cells in lines:
        if len(cells) > len(heading) and any(cells[len(heading) :]):
            text = tr(f"{len(cells)} cells, {len(heading)} expected", f"{len(cells)} 列, 应为 {len(heading)} 列")
            faults.append(Fault(sheet, number, "", text))
            continue
        _read_row(entity, sheet, number, dict(zip(heading, cells, strict=False)), rows, faults)


def _read_row(
    entity: Entity, sheet: str, number: int, cells: Mapping[str, str], rows: list[ArchiveRow], faults: list[Fault]
) -> None:
    bad = False
    values: dict[str, Any] = {}
    for f in entity.fields:
        text = cells.get(f.name, "")
        try:
            values[f.name] = read_cell(f, unguarded(text.strip()), key=_in_key(entity, f))
        except CellError as error:
            bad = True
            faults.append(Fault(sheet, number, f.name, str(error)))
    dates: dict[str, int | None] = {}
    for name in ("valid_from", "valid_to"):
        try:
            dates[f"{name}_us"] = read_instant(cells.get(name, ""))
        except CellError as error:
            bad = True
            faults.append(Fault(sheet, number, name, str(error)))
    if not bad:
        reason = unguarded(cells.get("reason", "").strip())
        rows.append(
            ArchiveRow(
                sheet=sheet, line=number, entity=entity.name, record=entity.struct(**values), reason=reason, **dates
            )
        )


def _in_key(entity: Entity, f: Field) -> bool:
    """Part of a key, its own or another's."""
    return f.name in entity.key or any(f.name in names for names in entity.refs)


def _csv_table(path: Path) -> Table:
    try:
        lines = csv_lines(path.read_bytes())
    except OSError as error:
        raise UsageError(tr(f"cannot read {path}: {error.strerror}", f"无法读取 {path}: {error.strerror}")) from error
    except UsageError as error:
        raise UsageError(f"{path.name}: {error}") from error
    heading = [c.strip() for c in lines[0]] if lines else []
    found = [(n, cells) for n, cells in enumerate(lines[1:], 2) if any(c.strip() for c in cells)]
    return path.stem, heading, found, []


# -- workbooks --------------------------------------------------------------------------------------------------------


def _workbook(path: Path) -> list[Table]:
    import zipfile

    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(tr(f"{path} is larger than {MAX_BYTES} bytes", f"{path} 超过 {MAX_BYTES} 字节"))
        book = load_workbook(path, read_only=True)
    except OSError as error:
        raise UsageError(tr(f"cannot read {path}: {error.strerror}", f"无法读取 {path}: {error.strerror}")) from error
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError) as error:
        raise UsageError(tr(f"{path} is not an XLSX workbook: {error}", f"{path} 不是 XLSX 工作簿: {error}")) from error
    try:
        return [_sheet(s.title, s.iter_rows()) for s in book.worksheets]
    finally:
        book.close()


def _sheet(title: str, lines: Iterable[Sequence[Cell | MergedCell]]) -> Table:
    entity = _entity(title)
    keys = {f.name for f in entity.fields if _in_key(entity, f)} if entity else set()
    heading: list[str] = []
    found: list[tuple[int, list[str]]] = []
    faults: list[Fault] = []
    for number, cells in enumerate(lines, 1):
        texts = []
        for n, cell in enumerate(cells):
            column = heading[n] if n < len(heading) else ""
            try:
                texts.append(_cell_text(cell, key=column in keys))
            except CellError as error:
                faults.append(Fault(title, number, column, str(error)))
                texts.append("")
        if number == 1:
            while texts and not texts[-1].strip():
                texts.pop()
            heading = [t.strip() for t in texts]
        elif any(t.strip() for t in texts):
            found.append((number, texts))
    return title, heading, found, faults


def _cell_text(cell: Cell | MergedCell, *, key: bool) -> str:
    """What a cell says, as the text that a CSV file would hold; CellError for formulas, errors and numbers as keys."""
    value = cell.value
    if value is None:
        return ""
    if cell.data_type == "f":
        raise CellError(tr("is a formula: paste its value", "是公式: 请粘贴为数值"))
    if cell.data_type == "e":
        raise CellError(tr(f"is an error value ({value})", f"是错误值 ({value})"))
    match value:
        case bool():
            return "yes" if value else "no"
        case str():
            return guarded(value)
        case datetime():
            midnight = (value.hour, value.minute, value.second, value.microsecond) == (0, 0, 0, 0)
            return value.date().isoformat() if midnight else value.isoformat(" ")
        case date():
            return value.isoformat()
        case int() | float():
            if key:
                raise CellError(
                    tr(
                        "is a number: make the column text, or leading zeros are lost",
                        "是数值: 请将该列设为文本, 以免丢失前导零",
                    )
                )
            number = Decimal(repr(value))
            return format(number.quantize(Decimal(1)) if number == number.to_integral_value() else number, "f")
        case _:
            raise CellError(tr(f"is neither text, number nor date ({value})", f"既非文本、数值也非日期 ({value})"))


def _number(value: object) -> object:
    """A number as a spreadsheet holds it without loss, else its text."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return write_cell(value)
    if len(Decimal(value).as_tuple().digits) > EXACT_DIGITS or Decimal(repr(float(value))) != value:
        return write_cell(value)
    return value


def write_workbook(path: Path, versions: Iterable[Version]) -> None:
    """One sheet an entity, written whole by rename, readable by its owner only."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    book = Workbook(write_only=True)
    for entity, rows in by_entity(versions).items():
        sheet = book.create_sheet(entity)
        sheet.freeze_panes = "A2"

        def cell(value: object, sheet: Any = sheet) -> Cell | None:
            if value == "":
                return None
            made: Cell = WriteOnlyCell(sheet, value=value)  # type: ignore[arg-type]
            if isinstance(value, str):
                made.data_type = "s"  # also where it begins with "="
                made.number_format = "@"
            return made

        sheet.append([cell(n) for n in heading(ENTITIES[entity])])
        for v in rows:
            sheet.append([cell(_number(value)) for value in sheet_values(v)])
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".archive", suffix=".xlsx", delete=False) as part:
        try:
            book.save(part)
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def write_folder(folder: Path, versions: Iterable[Version]) -> None:
    """One CSV file an entity (UTF-8 with the mark that spreadsheets look for), each written whole by rename, 0600."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in csv_texts(versions).items():
        handle, part = tempfile.mkstemp(dir=folder, prefix=".archive")
        with os.fdopen(handle, "w", encoding="utf-8-sig", newline="") as file:
            file.write(text)
        Path(part).replace(folder / name)
