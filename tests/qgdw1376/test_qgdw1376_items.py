"""Every row of protocols/qgdw1376/items/*.toml: what is written is read again, in the sizes of the published tables.

Legal data is built from the layouts themselves, so a new row is tested as soon as it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fuhe.protocols.common.errors import FuheError
from fuhe.protocols.qgdw1376.formats import DeviceTime, make_format
from fuhe.protocols.qgdw1376.layout import (
    POINTS_OF_HOUR,
    Bits,
    Count,
    Events,
    Field,
    Group,
    Layout,
    Nested,
    Node,
    When,
    references,
)
from fuhe.protocols.qgdw1376.table import ErcRow, Row, lookup, lookup_erc, table

Draw = Callable[[st.SearchStrategy[Any]], Any]
Data = dict[str, Any]

_MOST: Final = 4  # elements of a counted list
_FIRST, _LAST = datetime(2000, 1, 1), datetime(2099, 12, 31, 23, 59)  # noqa: DTZ001 - a device's own clock


def _decimals(digits: int, decimals: int, *, signed: bool = False) -> st.SearchStrategy[Decimal]:
    top = 10**digits - 1
    return st.integers(-top if signed else 0, top).map(lambda n: Decimal(n).scaleb(-decimals))


def _shaped(shape: str, *numbers: st.SearchStrategy[int]) -> st.SearchStrategy[str]:
    """Text of two-digit numbers."""
    return st.tuples(*numbers).map(lambda found: shape.format(*found))


def _digits(size: int) -> st.SearchStrategy[str]:
    return st.integers(0, 10**size - 1).map(lambda n: f"{n:0{size}d}")


_SECOND = _MINUTE = st.integers(0, 59)
_HOUR, _DAY, _MONTH, _YEAR = st.integers(0, 24), st.integers(1, 31), st.integers(1, 12), st.integers(0, 99)
_FORMATS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "A.1": st.builds(
        lambda at, week: DeviceTime(at.year, at.month, at.day, at.hour, at.minute, at.second, week=week),
        st.datetimes(_FIRST, _LAST),
        st.integers(0, 7),
    ),
    "A.2": st.builds(lambda n, e: Decimal(n).scaleb(e), st.integers(-999, 999), st.integers(-3, 4)),
    "A.3": st.builds(lambda n, e: Decimal(n).scaleb(e), st.integers(-9999999, 9999999), st.sampled_from((0, 3))),
    "A.4": st.integers(-79, 79),
    "A.5": st.integers(-7999, 7999).map(lambda n: Decimal(n).scaleb(-1)),
    "A.6": st.integers(-7999, 7999).map(lambda n: Decimal(n).scaleb(-2)),
    "A.7": _decimals(4, 1),
    "A.8": st.integers(0, 9999),
    "A.9": st.integers(-799999, 799999).map(lambda n: Decimal(n).scaleb(-4)),
    "A.10": st.integers(0, 999999),
    "A.11": _decimals(8, 2),
    "A.12": _digits(12),
    "A.13": _decimals(8, 4),
    "A.14": _decimals(10, 4),
    "A.15": st.datetimes(_FIRST, _LAST).map(lambda at: at.replace(second=0, microsecond=0)),
    "A.16": _shaped("{:02} {:02}:{:02}:{:02}", _DAY, _HOUR, _MINUTE, _SECOND),
    "A.17": _shaped("{:02}-{:02} {:02}:{:02}", _MONTH, _DAY, _HOUR, _MINUTE),
    "A.18": _shaped("{:02} {:02}:{:02}", st.integers(0, 31), _HOUR, _MINUTE),
    "A.19": _shaped("{:02}:{:02}", _HOUR, _MINUTE),
    "A.20": st.dates(date(2000, 1, 1), date(2099, 12, 31)),
    "A.21": _shaped("20{:02}-{:02}", _YEAR, _MONTH),
    "A.22": _decimals(2, 1),
    "A.23": _decimals(6, 4),
    "A.24": _shaped("{:02} {:02}", _DAY, _HOUR),
    "A.25": st.integers(-799999, 799999).map(lambda n: Decimal(n).scaleb(-3)),
    "A.26": _decimals(4, 3),
    "A.27": st.integers(0, 99999999),
    "ip": st.lists(st.integers(0, 255), min_size=4, max_size=4).map(lambda parts: ".".join(map(str, parts))),
    "dadt": st.builds(
        lambda points, fn: {"pn": points, "fn": [fn]},
        st.one_of(st.just([0]), st.integers(1, 2040).map(lambda p: [p])),
        st.integers(1, 248),
    ),
    "rest": st.binary(max_size=40).map(lambda wire: wire.hex().upper()),
}


def value(text: str) -> st.SearchStrategy[Any]:
    """Legal values of a format of the tables."""
    if text in _FORMATS:
        return _FORMATS[text]
    size = make_format(text)[0].size
    if text.startswith("bs"):
        first = 0 if text.endswith("@0") else 1
        most = 8 * (size or _MOST)
        return st.sets(st.integers(first, first + most - 1), max_size=12).map(sorted)
    if text.startswith("pairs"):
        return st.lists(st.integers(0, 3), min_size=4 * size, max_size=4 * size)
    if text.startswith("hex"):
        return st.binary(min_size=size, max_size=size).map(lambda wire: wire.hex().upper())
    if text.startswith("ascii"):
        return st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=size or 20)
    if text.startswith("gbk"):
        return st.text("电力负荷管理终端停电通知AZaz09", max_size=40)
    if text.startswith("digits"):
        return _digits(2 * size)
    if text.startswith("phone"):
        return st.text("0123456789", max_size=2 * size)
    if text.startswith("bcd"):
        return st.integers(0, 10 ** (2 * size) - 1)
    top = (1 << 8 * size) - 1
    return st.integers(0, top).filter(lambda n: not (text.endswith("?") and n in (top, int("EE" * size, 16))))


def _number(count: Count, env: Data, draw: Draw) -> int:
    if count.kind == "number":
        return count.number
    if count.kind == "field":
        known = env[count.field]
        number = (len(known) if isinstance(known, list) else int(known)) + count.number
        assume(number >= 0)
        return number
    if count.kind == "hour_points":
        return POINTS_OF_HOUR.get(env["density"], 0)
    if count.kind == "pointers":
        return int((env["pn"] - env["pm"] - 1) % 256 + 1)
    return int(draw(st.integers(1, _MOST)))


def _field(node: Field, env: Data, draw: Draw, counted: bool) -> Any:
    if counted and node.count is None and not node.format.startswith("bs"):
        return draw(st.integers(0, _MOST))
    one = value(node.format)
    if node.count is None:
        return draw(one)
    number = _number(node.count, env, draw)
    return draw(st.lists(one, min_size=number, max_size=number))


def _bits(node: Bits, draw: Draw, counted: frozenset[str]) -> Data:
    found: Data = {}
    for part in node.parts:
        codes = []
        for high, low in part.spans:
            most = (1 << high - low + 1) - 1
            most = min(most, _MOST) if part.name in counted else most
            code = draw(st.integers(0, min(most, len(part.names) - 1) if part.names else most))
            codes.append(part.names[code] if part.names else code * part.scale + part.add)
        found[part.name] = codes if len(part.spans) > 1 else codes[0]
    return found


def data(nodes: Sequence[Node], draw: Draw, env: Data | None = None) -> Data:
    """Legal data of these entries; sizes of texts are left to the encoder."""
    counted = references(nodes)
    env = {} if env is None else env
    found: Data = {}
    sizes = {n.size_field for n in nodes if isinstance(n, Field) and n.size_field}
    for node in nodes:
        if isinstance(node, Field) and node.name == "-":
            found |= draw(value(node.format))
        elif isinstance(node, Events):
            number = min(_number(node.count, env | found, draw), 3)
            found[node.name] = [_event(draw) for _ in range(number)]
        elif isinstance(node, Field) and node.name not in sizes:
            found[node.name] = _field(node, env | found, draw, node.name in counted)
        elif isinstance(node, Bits):
            found |= _bits(node, draw, counted)
        elif isinstance(node, Group):
            rows = [data(node.fields, draw, env | found) for _ in range(_number(node.count, env | found, draw))]
            found[node.name] = [list(row.values()) for row in rows] if node.flat else rows
        elif isinstance(node, Nested):
            found[node.name] = data(node.fields, draw, env | found)
        elif isinstance(node, When) and found.get(node.field) in node.values:
            found |= data(node.fields, draw, env | found)
    return found


def _event(draw: Draw) -> Data:
    """An event of any code, or one that nobody knows."""
    row = draw(st.sampled_from((*table().ercs, None)))
    if row is None:
        return {"erc": 200, "raw_hex": draw(value("rest"))}
    return {"erc": row.erc} | data(draw(st.sampled_from(row.fields.variants)).nodes, draw)


def contained(want: Any, got: Any) -> bool:
    """Whether every value of `want` stands in `got` (which may have counts and derived keys besides)."""
    if isinstance(want, dict):
        return isinstance(got, dict) and all(k in got and contained(v, got[k]) for k, v in want.items())
    if isinstance(want, list):
        return isinstance(got, list) and len(want) == len(got) and all(map(contained, want, got))
    return bool(want == got)


# --- every row -----------------------------------------------------------------------------------------------
def _label(row: Row) -> str:
    return f"{row.afn[0]:02X}-F{row.fn}-{'-'.join(row.editions)}"


def _round_trip(layout: Layout, edition: str, draw: st.DataObject) -> None:
    variant = draw.draw(st.sampled_from(layout.variants))
    content = data(variant.nodes, draw.draw)
    wire = variant.encode(content, edition)
    assert variant.size in (None, len(wire))
    read, at = variant.decode(wire, 0, len(wire), edition)
    assert at == len(wire)
    assert contained(content, read), (content, read)
    assert variant.encode(read, edition) == wire


@pytest.mark.parametrize("row", table().rows, ids=_label)
@given(draw=st.data())
@settings(max_examples=10)
def test_units_are_read_as_they_were_written(row: Row, draw: st.DataObject) -> None:
    _round_trip(row.fields, row.editions[-1], draw)
    _round_trip(row.request, row.editions[-1], draw)


@pytest.mark.parametrize("row", table().ercs, ids=lambda row: f"ERC{row.erc}")
@given(draw=st.data())
@settings(max_examples=10)
def test_events_are_read_as_they_were_written(row: ErcRow, draw: st.DataObject) -> None:
    _round_trip(row.fields, row.editions[-1], draw)


# --- sizes that the published tables state -------------------------------------------------------------------
_SIZES_04: Final = {
    1: 6, 3: 28, 4: 16, 5: 3, 6: 16, 8: 8, 9: 16, 12: 2, 16: 64, 17: 2, 18: 12, 19: 1, 20: 1, 21: 49, 23: 3, 24: 1,
    25: 11, 26: 57, 27: 24, 28: 4, 29: 12, 30: 1, 36: 4, 42: 6, 43: 1, 44: 8, 45: 1, 47: 17, 48: 1, 49: 1, 57: 3, 58: 1,
    60: 80, 61: 1, 67: 1, 68: 1, 73: 48, 74: 10, 75: 16, 76: 1, 81: 4, 82: 4, 83: 1,
}  # fmt: skip
_SIZES_05: Final = {
    1: 1, 2: 0, 9: 2, 10: 0, 11: 0, 12: 8, 15: 0, 16: 0, 17: 0, 18: 0, 19: 0, 20: 0, 23: 0, 24: 0, 25: 1, 26: 0, 27: 0,
    28: 0, 29: 0, 30: 1, 31: 6, 33: 0, 34: 0, 35: 0, 36: 0, 37: 0, 38: 0, 39: 0, 41: 2, 42: 2, 49: 1, 50: 1, 51: 1,
    52: 1, 53: 1,
}  # fmt: skip
_SIZES_ERC: Final = {
    1: 14, 2: 6, 4: 7, 5: 10, 6: 14, 7: 16, 8: 8, 9: 28, 10: 28, 11: 24, 12: 7, 13: 8, 16: 9, 17: 27, 18: 17, 19: 31,
    20: 22, 21: 6, 23: 16, 24: 14, 25: 17, 26: 14, 27: 17, 28: 18, 29: 18, 30: 13, 31: 21, 32: 13, 33: 35, 34: 8, 36: 7,
    37: 70, 38: 70, 39: 21, 40: 15, 41: 14, 45: 5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("afn", "fn", "size"),
    [(4, fn, size) for fn, size in _SIZES_04.items()] + [(5, fn, size) for fn, size in _SIZES_05.items()],
)
def test_a_fixed_unit_has_the_published_size(afn: int, fn: int, size: int) -> None:
    row = lookup(afn, fn, "2013")
    assert row is not None and [v.size for v in row.fields.variants] == [size]


@pytest.mark.parametrize(("erc", "size"), _SIZES_ERC.items())
def test_a_fixed_event_has_the_published_size(erc: int, size: int) -> None:
    row = lookup_erc(erc)
    assert row is not None and [v.size for v in row.fields.variants] == [size]


def _layout(afn: int, fn: int, edition: str = "2013") -> Layout:
    row = lookup(afn, fn, edition)
    assert row is not None
    return row.fields


def test_sizes_that_depend_on_the_edition() -> None:
    assert {v.size for v in _layout(4, 46).variants} == {4, 5}
    assert {v.size for v in _layout(4, 59).variants} == {4, 5}
    assert {v.size for v in erc_layout(14).variants} == {10, 11}
    assert _layout(4, 8, "2005").variants[0].size == 16 and _layout(4, 12, "2005").variants[0].size == 3
    assert len(_layout(4, 46).encode({"limit": 1000}, "2009")) == 4
    assert len(_layout(4, 46).encode({"limit": 1000, "alarm_percent": 80}, "2013")) == 5
    for wire in ("00100000", "0010000050"):
        assert _layout(4, 46).exact(bytes.fromhex(wire), "2009") is not None


def erc_layout(erc: int) -> Layout:
    row = lookup_erc(erc)
    assert row is not None
    return row.fields


# --- published data units ------------------------------------------------------------------------------------
KW: Final = Decimal
_SAMPLES: Final[list[tuple[int, int, str, Data]]] = [
    (5, 1, "00", {"alarm_delay_min": 0, "limit_half_hours": 0}),
    (5, 1, "11", {"alarm_delay_min": 1, "limit_half_hours": 1}),
    (5, 12, "0F 92 05 04 01 02 03 04", {
        "slide_min": 15, "float_percent": -12, "freeze_delay_min": 5, "control_half_hours": 4,
        "alarm_min": [1, 2, 3, 4],
    }),
    (4, 41, "07" + "FF" + "0062" * 8 + "FF" + "1067" * 8 + "FF" + "0068" * 8, {
        "schemes": [1, 2, 3],
        "limits": [{"periods": [1, 2, 3, 4, 5, 6, 7, 8], "limits_kw": [KW(kw)] * 8} for kw in (2000, 7100, 8000)],
    }),
    (4, 42, "00 62 00 08 1E FE", {
        "limit_kw": KW(2000), "start": "08:00", "half_hours": 30, "weekdays": [1, 2, 3, 4, 5, 6, 7],
    }),
    (4, 44, "01 01 08 02 01 08 00 62", {
        "start": date(2008, 1, 1), "end": date(2008, 1, 2), "limit_kw": KW(2000),
    }),
    (4, 18, "55 A5 AA" * 4, {"half_hours": [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2] * 4}),
]  # fmt: skip


@pytest.mark.parametrize(("afn", "fn", "wire", "content"), _SAMPLES, ids=lambda v: str(v)[:12])
def test_published_units_both_ways(afn: int, fn: int, wire: str, content: Data) -> None:
    layout = _layout(afn, fn)
    assert layout.exact(bytes.fromhex(wire), "2013") == content
    assert layout.encode(content, "2013") == bytes.fromhex(wire)


def inside(found: dict[str, object], name: str) -> list[Data]:
    rows = found[name]
    assert isinstance(rows, list)
    return rows


def test_device_entries_carry_the_rate_and_delete_with_point_0() -> None:
    wire = bytes.fromhex("0100 0100 0000 81 1E 000000000000 000000000000 04 00 000000000000 01")
    found = _layout(4, 10).exact(wire, "2013")
    assert found is not None
    (device,) = inside(found, "devices")
    assert device["pn"] == 0 and device["baud"] == 4800 and device["protocol"] == 30
    assert device["int_digits"] == 4 and device["dec_digits"] == 1 and device["user_class"] == [0, 1]
    assert _layout(4, 10).encode(found, "2013") == wire


def test_events_of_another_size_keep_their_bytes() -> None:
    events = _layout(14, 1)
    wire = bytes.fromhex("0300 00022417 1814020810000101000000000088FFFF541714010208100E0A 4014310710 EEEEEEEEEE")
    found = events.exact(wire, "2013")
    assert found is not None
    vendor, outage = inside(found, "events")
    assert vendor == {"erc": 36, "le": 23, "raw_hex": "1814020810000101000000000088FFFF54171401020810"}
    assert outage["power_off"] == datetime(2010, 7, 31, 14, 40) and outage["power_on"] is None  # noqa: DTZ001
    assert events.encode(found, "2013") == wire


@given(wire=st.binary(max_size=60), row=st.sampled_from(table().rows))
@settings(max_examples=300)
def test_any_bytes_are_values_or_no_fit(wire: bytes, row: Row) -> None:
    for variant in row.fields.variants:
        try:
            _, at = variant.decode(wire, 0, len(wire), "2013")
        except FuheError:
            continue
        assert at <= len(wire)


def test_case_rules_know_their_severity() -> None:
    assert {r.erc: r.severity for r in table().ercs if r.rules and not 1 <= r.severity <= 4} == {}
    named = {erc for erc in (5, 9, 10, 12, 14, 20) if erc_row(erc).severity}
    assert named == {5, 9, 10, 12, 14, 20}
    assert erc_row(10).rules == ("V1", "V2") and erc_row(14).severity == 1


def erc_row(erc: int) -> ErcRow:
    row = lookup_erc(erc)
    assert row is not None
    return row


def test_releases_name_the_command_they_take_back() -> None:
    back = {r.fn: r.releases for r in table().rows if 5 in r.afn and r.releases}
    assert back == {2: 1, 17: 9, 18: 10, 19: 11, 20: 12, 23: 15, 24: 16, 33: 25, 34: 26, 35: 27, 36: 28, 37: 29}
