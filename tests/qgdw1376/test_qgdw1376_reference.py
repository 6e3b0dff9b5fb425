"""docs/protocols/qgdw1376*.md are what `make docs` makes of today's tables, in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fuhe.commands.reference import reference as command
from fuhe.model.lang import set_lang
from fuhe.protocols.qgdw1376.layout import every_key
from fuhe.protocols.qgdw1376.reference import reference
from fuhe.protocols.qgdw1376.table import table
from fuhe.protocols.qgdw1376.terms import chinese, label

DOCS = Path(__file__).parents[2] / "docs" / "protocols"
PAGES = {"en": DOCS / "qgdw1376.md", "zh": DOCS / "qgdw1376.zh-CN.md"}


@pytest.mark.parametrize("lang", PAGES)
def test_the_page_is_fresh(lang: str) -> None:
    assert PAGES[lang].read_text(encoding="utf-8") == reference(lang), "run `make docs`"


@pytest.mark.parametrize("lang", PAGES)
def test_every_row_is_on_the_page(lang: str) -> None:
    page = reference(lang)
    names = [r.name for r in table().rows] + [r.name for r in table().ercs]
    assert not [n for n in names if f"`{n}`" not in page]
    assert not [line for line in page.splitlines() if line.startswith("|") and line.count(" | ") not in (1, 6)]


def test_the_command_prints_the_page() -> None:
    set_lang("zh")
    try:
        result = CliRunner().invoke(command, ["qgdw1376"])
    finally:
        set_lang("en")
    assert result.exit_code == 0 and result.output == reference("zh")


def test_every_field_and_note_is_there_in_chinese() -> None:
    layouts = [one for row in table().rows for one in (row.fields, row.request)] + [row.fields for row in table().ercs]
    names = {name for layout in layouts for variant in layout.variants for name in every_key(variant.nodes)}
    names = {n for n in names if not n.endswith(("_spare", "_mask_hex", "_raw"))}
    assert not names - set(chinese())
    assert not [r.name for r in table().rows if r.note and not r.note_zh]
    assert not [r.name for r in table().ercs if r.note and not r.note_zh]
    assert label("pt_ratio", "zh") == "电压互感器倍率 pt_ratio" and label("pt_ratio", "en") == "pt_ratio"
