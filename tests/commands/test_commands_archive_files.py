"""Archive files: what is exported is read back as it was, formulas stay texts, every fault is named with its cell."""

from __future__ import annotations

import csv
from datetime import date
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook

from fuhe.commands.archive_files import read_archive, write_folder, write_workbook
from fuhe.model.archive import ENTITIES, Customer, Entity, Field, ServiceRecord, Version
from fuhe.model.archive_cells import record_faults
from fuhe.model.archive_plan import plan_changes
from fuhe.model.times import day_start_us
from fuhe.protocols.common.errors import UsageError

BEGIN = day_start_us(date(2026, 1, 1))
LETTERS = st.characters(exclude_categories=("C", "Z"), include_characters=" \n=+-@'\"_x0;")
TEXT = st.text(LETTERS, max_size=12)
FORMS: dict[str, Any] = {
    "rest_day": ("1", "6"), "digits": "6.2", "address": "000000000012", "quiet": "22:00-07:00", "group": "3",
    "receives": ("N1", "N11"), "expires": date(2040, 1, 1), "signed": date(2020, 1, 1),
}  # fmt: skip


def value_of(entity: Entity, field: Field) -> st.SearchStrategy[Any]:
    if field.name in FORMS and not (entity.name == "customers" and field.name == "address"):
        made: st.SearchStrategy[Any] = st.just(FORMS[field.name])
    elif field.choices:
        made = st.sampled_from(field.choices)
    elif field.kind is bool:
        made = st.booleans()
    elif field.kind is int:
        assert field.bounds is not None
        made = st.integers(int(field.bounds.least), int(field.bounds.most))
    elif field.kind is Decimal:
        least, most = (field.bounds.least, field.bounds.most) if field.bounds else (-(10**9), 10**9)
        made = st.decimals(Decimal(str(least)), Decimal(str(most)), allow_nan=False, places=6)
    elif field.kind is date:
        made = st.dates(date(1950, 1, 1), date(2099, 12, 31))
    elif field.kind is str:
        key = field.name in entity.key or any(field.name in names for names in entity.refs)
        made = TEXT.map(str.strip).map(lambda t: t.replace("/", "").replace("\n", " ").strip() if key else t)
        if field.required or field.default:  # an empty cell is the default
            made = made.map(lambda t: t or str(field.default or "0007"))
    else:
        items = TEXT.map(lambda t: t.replace(";", "").strip()).filter(bool)
        made = st.lists(items, max_size=3).map(tuple)
    return st.none() | made if field.optional else made


def record_of(entity: Entity) -> st.SearchStrategy[Any]:
    return st.builds(entity.struct, **{f.name: value_of(entity, f) for f in entity.fields})


@st.composite
def archives(draw: st.DrawFn) -> list[Version]:
    found = []
    for name in draw(st.lists(st.sampled_from(sorted(ENTITIES)), min_size=1, max_size=4, unique=True)):
        entity = ENTITIES[name]
        records = draw(st.lists(record_of(entity), min_size=1, max_size=3, unique_by=entity.key_of))
        for record in records:
            if record_faults(entity, record):
                continue
            at = BEGIN + draw(st.integers(0, 10**15))
            lasts = draw(st.none() | st.integers(1, 10**14))
            end = None if lasts is None else at + lasts
            found.append(
                Version(
                    entity=name, key=entity.key_of(record), valid_from_us=at, valid_to_us=end, record=record,
                    changed_by="=cmd", reason="@first",
                )
            )  # fmt: skip
    return found


def plain(text: str) -> Version:
    record = ServiceRecord(record="1", customer="0007", kind="visit", author=text, text=text)
    return Version(
        entity="service_records", key="1", valid_from_us=BEGIN, valid_to_us=None, record=record, reason=text
    )  # fmt: skip


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(archives())
@example([plain("=1+1")])
@example([plain("'=x")])
@example([plain("_x0041_ #N/A")])
@example([plain("-5")])
def test_what_is_exported_is_read_back_and_changes_nothing(stored: list[Version]) -> None:
    with TemporaryDirectory() as name:
        folder, book = Path(name) / "folder", Path(name) / "book.xlsx"
        write_folder(folder, stored)
        write_workbook(book, stored)
        for path in (folder, book):
            rows, faults = read_archive(path)
            assert faults == []
            got = {(r.entity, r.key[1]): (r.valid_from_us, r.valid_to_us, r.record, r.reason) for r in rows}
            want = {(v.entity, v.key): (v.valid_from_us, v.valid_to_us, v.record, v.reason) for v in stored}
            assert got == want
            plan = plan_changes(stored, rows, BEGIN, None)
            assert plan.changes == [] and plan.same == len(stored)


def test_formulas_are_texts_in_both_formats(tmp_path: Path) -> None:
    write_folder(tmp_path / "f", [plain("=HYPERLINK(1)")])
    with (tmp_path / "f" / "service_records.csv").open(encoding="utf-8-sig", newline="") as file:
        row = next(iter(csv.DictReader(file)))
    assert row["text"] == "'=HYPERLINK(1)" and row["reason"] == "'=HYPERLINK(1)"
    write_workbook(tmp_path / "b.xlsx", [plain("=HYPERLINK(1)")])
    cells = next(iter(load_workbook(tmp_path / "b.xlsx")["service_records"].iter_rows(min_row=2)))
    assert {c.data_type for c in cells if c.value is not None} == {"s"}
    assert (tmp_path / "b.xlsx").stat().st_mode & 0o077 == 0


def book(path: Path, sheet: str, *lines: list[object]) -> Path:
    made = Workbook()
    made.remove(made.worksheets[0])
    page = made.create_sheet(sheet)
    for line in lines:
        page.append(line)
    made.save(path)
    return path


def test_a_workbook_of_people_is_understood_and_its_faults_have_cells(tmp_path: Path) -> None:
    good = book(
        tmp_path / "a.xlsx", "客户", ["cons_no", "name", "contract_kva", "site_checked", "high_risk", "valid_from"],
        ["0012", "Mill", 1250.5, date(2026, 3, 1), True, "2026-03-01"],
    )  # fmt: skip
    rows, faults = read_archive(good)
    want = Customer(
        cons_no="0012", name="Mill", contract_kva=Decimal("1250.5"), site_checked=date(2026, 3, 1), high_risk=True
    )  # fmt: skip
    assert faults == [] and rows[0].record == want
    assert rows[0].valid_from_us == day_start_us(date(2026, 3, 1))

    bad = book(
        tmp_path / "b.xlsx", "customers", ["cons_no", "name", "contract_kva", "importance"],
        [12, "Mill", "much", "big"], ["0013", "=A1", None, None], ["0014", "", -1, None],
    )  # fmt: skip
    rows, faults = read_archive(bad)
    assert rows == []
    assert [(f.line, f.column) for f in faults] == [
        (2, "cons_no"), (3, "name"), (2, "cons_no"), (2, "contract_kva"), (2, "importance"), (3, "name"), (4, "name"),
        (4, "contract_kva"),
    ]  # fmt: skip
    assert "leading zeros" in faults[0].text and "formula" in faults[1].text


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("pets.csv", "a\n1\n", "no such sheet"),
        ("feeders.csv", "feeder,substation,colour\nF1,East,red\n", "unknown columns: colour"),
        ("feeders.csv", "feeder,name\nF1,x\n", "missing columns: substation"),
        ("feeders.csv", "feeder,substation\nF/1,East\n", "must not hold"),
        ("feeders.csv", "feeder,substation,valid_from\nF1,East,tomorrow\n", "not a time"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    rows, faults = read_archive(tmp_path)
    assert rows == [] and said in str(faults[0]) and name.removesuffix(".csv") in str(faults[0])


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.xlsx").write_text("no workbook")
    for path in (tmp_path, tmp_path / "x.xlsx", tmp_path / "y.pdf"):
        with pytest.raises(UsageError):
            read_archive(path)


def test_the_docs_name_every_sheet_and_column() -> None:
    text = (Path(__file__).parents[2] / "docs" / "archive.md").read_text(encoding="utf-8")
    for entity in ENTITIES.values():
        line = next(row for row in text.splitlines() if row.startswith(f"| `{entity.name}` {entity.zh} |"))
        assert [f.name for f in entity.fields if f"`{f.name}`" not in line] == []
