"""The tables load whole, faults are told with their rows, and every layout is its own inverse."""

from __future__ import annotations

import pytest

from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.qgdw1376.layout import Layout, Unfit
from fuhe.protocols.qgdw1376.table import build_table, lookup, table

ROW = """
[[fn]]
afn = "{afn}"
fn = {fn}
pn = "0"
name = "{name}"
en = "x"
zh = "甲"
clause = "c"
conf = 1
fields = {fields}
"""


def _layout(fields: str, more: str = "") -> Layout:
    text = ROW.format(afn="0C", fn=1, name="x", fields=fields) + more
    return build_table({"a": text}).rows[0].fields


def test_the_product_table_loads() -> None:
    assert len(table().rows) > 30
    row = lookup(0x00, 3)
    assert row is not None and row.zh == "按数据单元标识确认和否认"


def test_every_fault_is_told_with_its_row() -> None:
    text = (
        ROW.format(afn="0C", fn=1, name="one", fields='["a A.99"]')
        + ROW.format(afn="0C", fn=2, name="two", fields='["a u1 * n"]')
        + ROW.format(afn="0C", fn=3, name="three", fields='["a u1", "a u1"]')
        + ROW.format(afn="0C", fn=4, name="four", fields='["a rest", "b u1"]')
        + ROW.format(afn="0C", fn=5, name="five", fields='[{ hook = "nothing" }]')
        + ROW.format(afn="0C", fn=6, name="six", fields='[{ bits = ["a 3..0", "b 2"], size = 1 }]')
    )
    with pytest.raises(UsageError) as caught:
        build_table({"a": text})
    lines = str(caught.value).splitlines()
    assert len(lines) == 7
    for word, line in zip(("one", "two", "three", "four", "five", "six"), lines[1:], strict=True):
        assert f"{word})" in line, line


def test_the_same_class_twice_is_a_fault() -> None:
    text = ROW.format(afn="0C", fn=1, name="one", fields="[]") + ROW.format(afn="0C", fn=1, name="two", fields="[]")
    with pytest.raises(UsageError, match=r"F1 two: also one"):
        build_table({"a": text})


def test_counts_follow_from_lists_and_are_checked() -> None:
    layout = _layout('["n u1", { list = "rows", count = "n", fields = ["m u1", "values A.7 V * m+1"] }]')
    wire = bytes.fromhex("02 00 1022 01 1022 EEEE")
    data = layout.exact(wire, "2013")
    assert data is not None
    rows = data["rows"]
    assert isinstance(rows, list) and [str(v) for v in rows[0]["values"]] == ["221.0"]
    assert rows[1]["values"][1] is None
    assert layout.encode(data, "2013") == wire
    for row in rows:
        del row["m"]
    assert layout.encode({"rows": rows}, "2013") == wire
    with pytest.raises(UsageError, match="its count says 3"):
        layout.encode({"n": 3, "rows": rows}, "2013")
    with pytest.raises(UsageError, match=r"rows\[0\].values is missing"):
        layout.encode({"rows": [{"m": 0}]}, "2013")
    with pytest.raises(UsageError, match="unknown field other"):
        layout.encode({"rows": rows, "other": 1}, "2013")


def test_bits_keep_what_nobody_names() -> None:
    layout = _layout('[{ bits = ["a 7..6", "b 3..2 +4", "both 1,0", "c 4 ^no,yes"], size = 1 }]')
    for byte in range(256):
        wire = bytes((byte,))
        data = layout.exact(wire, "2013")
        assert data is not None and layout.encode(data, "2013") == wire
    assert layout.exact(b"\xbb", "2013") == {"a": 2, "b": 6, "both": [1, 1], "c": "yes", "a_spare": 0x20}


def test_alternatives_by_length_and_by_edition() -> None:
    layout = _layout('[{ alt = [["a u1", "b u2"], ["a u1", "b u1"]], editions = ["2013", "2009"] }]')
    assert layout.exact(b"\1\2\0", "2009") == {"a": 1, "b": 2}
    assert layout.exact(b"\1\2", "2013") == {"a": 1, "b": 2}
    assert layout.exact(b"\1\2\3\4", "2013") is None
    assert layout.encode({"a": 1, "b": 2}, "2013") == b"\1\2\0"
    assert layout.encode({"a": 1, "b": 2}, "2009") == b"\1\2"


def test_a_count_larger_than_the_data_is_refused_at_once() -> None:
    layout = _layout('["n u2", { list = "rows", count = "n", fields = ["a u1"] }]')
    with pytest.raises(Unfit):
        layout.variants[0].decode(b"\xff\xff\0\0", 0, 4, "2013")
