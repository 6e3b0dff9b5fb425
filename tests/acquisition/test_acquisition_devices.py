"""The device list: byte-stable round trip, every kind of fault with row and column, bounded memory."""

from __future__ import annotations

import tracemalloc
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.acquisition.config import LinkConfig
from fuhe.acquisition.devices import COLUMNS, ParsedList, compare, export_devices, parse_devices
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.model.devices import POINT_KINDS, Device, Point
from fuhe.model.lang import set_lang

LINKS = {
    "bus": LinkConfig(name="bus", kind="serial", port="/dev/ttyS0"),
    "net": LinkConfig(name="net", kind="tcp", port_no=502),
    "broker": LinkConfig(name="broker", kind="mqtt"),
    "modems": LinkConfig(name="modems", kind="listen-tcp"),
}
HEAD = ",".join(COLUMNS) + "\n"


@pytest.fixture(autouse=True)
def _english() -> None:
    set_lang("en")


PROFILES = builtin_profiles() | {
    "terminal": msgspec.structs.replace(builtin_profiles()["mqtt-v1"], name="terminal", max_groups=8, max_dc=4)
}


def parse(text: str | bytes) -> ParsedList:
    data = text.encode() if isinstance(text, str) else text
    return parse_devices(data, links=LINKS, profiles=PROFILES)


text = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1, max_size=12).map(
    str.strip
)
names = text.filter(bool)
words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
ratios = st.decimals("0.001", "99999", places=3).filter(lambda d: d > 0)


OPTIONS = {
    "line": st.text("abc-123", max_size=6), "since": st.dates().map(str),
    "heartbeat_s": st.integers(10, 86_400).map(str), "msa": st.integers(1, 127).map(str),
    "settlement": st.sampled_from(["00:00", "0:05,23:59"]),
    "simulated": st.sampled_from(["0", "1"]),
}  # fmt: skip


@st.composite
def lists(draw: st.DrawFn) -> tuple[Device, ...]:
    device_names = draw(st.lists(names, unique=True, max_size=6))
    point_names = iter(draw(st.lists(names, unique=True, min_size=18, max_size=18)))
    devices = []
    for number, name in enumerate(sorted(device_names), 1):
        link, profile, address, count = draw(
            st.sampled_from(
                [
                    ("bus", "dlt645-2007-3p4w", f"{number:012d}", 1),
                    ("net", "eastron-sdm630", str(number), 1),
                    ("broker", "mqtt-v1", f"gw-{number}", 3),
                    ("broker", "terminal", f"gw-{number}", 3),
                ]
            )
        )
        kinds = POINT_KINDS if profile == "terminal" else POINT_KINDS[:1]
        numbers = st.tuples(st.sampled_from(range(len(kinds))), st.integers(1, 64 if len(kinds) == 1 else 4))
        found = sorted(draw(st.sets(numbers, min_size=count, max_size=count))) if count > 1 else [(0, 1)]
        points = tuple(
            Point(
                id=0,
                name=next(point_names),
                pn=pn,
                kind=kinds[kind],
                ct_ratio=Decimal(1) if kinds[kind] == "group" else draw(ratios),
                pt_ratio=Decimal(1) if kinds[kind] == "group" else draw(ratios),
                contract_kva=draw(st.none() | ratios),
                nominal_v=draw(st.none() | ratios),
                wiring=draw(st.sampled_from(["3P4W", "3P3W", "1P"])),
            )
            for kind, pn in found
        )
        options = draw(st.fixed_dictionaries({}, optional=OPTIONS))
        devices.append(
            Device(
                id=0,
                name=name,
                link=link,
                profile=profile,
                address=address,
                points=points,
                enabled=draw(st.booleans()),
                secret=draw(st.none() | words),
                options=dict(sorted(options.items())),
            )
        )
    return tuple(devices)


@given(lists())
@settings(max_examples=25, deadline=None)
def test_round_trip_both_ways(devices: tuple[Device, ...]) -> None:
    data = export_devices(devices)
    again = parse(data)
    assert again.faults == ()
    assert again.devices == devices
    assert export_devices(again.devices) == data
    assert compare(devices, again.devices).unchanged == len(devices)


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda t: (HEAD + t).encode("utf-8", "replace")))
@settings(max_examples=100, deadline=None)
def test_any_input_ends_in_devices_or_faults(data: bytes) -> None:
    result = parse(data)
    assert not (result.devices and result.faults)


def test_spreadsheet_file_with_bom_crlf_and_few_columns_is_made_canonical() -> None:
    data = (
        "\ufeffprofile,link,address,name\r\ndlt645-2007-1p,bus,161,一号表\r\n\r\nmqtt-v1,broker,gw-1, g \r\n".encode()
    )
    result = parse(data)
    assert result.faults == ()
    first, second = result.devices
    assert (first.name, second.name, second.address) == ("g", "一号表", "000000000161")
    assert second.points[0] == Point(id=0, name="一号表")
    assert export_devices(result.devices).decode() == (
        HEAD + "g,broker,mqtt-v1,gw-1,g,1,measuring,1,1,,,3P4W,yes,,\n"
        "一号表,bus,dlt645-2007-1p,000000000161,一号表,1,measuring,1,1,,,3P4W,yes,,\n"
    )


ROW = "{name},{link},{profile},{address},{point},{pn},{kind},{ct},{pt},{kva},{v},{wiring},{on},{secret},{options}"
GOOD = {
    "name": "m1", "link": "bus", "profile": "dlt645-2007-1p", "address": "1", "point": "", "pn": "1", "kind": "",
    "ct": "1", "pt": "1", "kva": "", "v": "", "wiring": "1P", "on": "yes", "secret": "", "options": "",
}  # fmt: skip


def rows(*changes: dict[str, str]) -> ParsedList:
    lines = (ROW.format(**{**GOOD, "name": f"m{i}", "address": str(i), **c}) for i, c in enumerate(changes, 1))
    return parse(HEAD + "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("change", "column", "word"),
    [
        ({"name": ""}, "name", "empty"),
        ({"name": "x" * 65}, "name", "64"),
        ({"name": '"a\nb"'}, "name", "control character"),
        ({"link": "nowhere"}, "link", "bus, net, broker, modems"),
        ({"link": "broker"}, "link", "dlt645 device"),
        ({"profile": "nothing"}, "profile", "dlt645-2007-3p4w"),
        ({"address": ""}, "address", "12 decimal digits"),
        ({"address": "1234567890123"}, "address", "12 decimal digits"),
        ({"address": "AAAAAAAAAAAA"}, "address", "12 decimal digits"),
        ({"address": "999999999999"}, "address", "broadcast"),
        ({"address": "1.23457E+11"}, "address", "spreadsheet"),
        ({"address": "１"}, "address", "12 decimal digits"),
        ({"profile": "eastron-sdm120", "address": "248"}, "address", "1 to 247"),
        ({"profile": "eastron-sdm120", "link": "net", "address": "256"}, "address", "0 to 255"),
        ({"profile": "eastron-sdm120", "address": "1@65536"}, "address", "unit@offset"),
        ({"profile": "mqtt-v1", "link": "broker", "address": "a/b"}, "address", "topics"),
        ({"pn": "0"}, "pn", "1 to 1"),
        ({"pn": "2"}, "pn", "1 to 1"),
        ({"pn": "x"}, "pn", "1 to 1"),
        ({"kind": "sum"}, "kind", "measuring | group | dc"),
        ({"kind": "group"}, "kind", "no points of kind group"),
        ({"ct": "0"}, "ct_ratio", "above 0"),
        ({"ct": "-5"}, "ct_ratio", "above 0"),
        ({"pt": "1e3"}, "pt_ratio", "above 0"),
        ({"kva": "many"}, "contract_kva", "above 0"),
        ({"v": "NaN"}, "nominal_v", "above 0"),
        ({"wiring": "2P"}, "wiring", "3P4W"),
        ({"on": "maybe"}, "enabled", "yes nor no"),
        ({"secret": "pass word"}, "secret", "secrets file"),
        ({"options": "a"}, "options", "key=value"),
        ({"options": "line=1;line=2"}, "options", "twice"),
        ({"options": "hartbeat_s=60"}, "options", "did you mean heartbeat_s"),
        ({"options": "colour=red"}, "options", "no such option; known: baud"),
        ({"options": "msa=200"}, "options", "1 to 127"),
        ({"options": "settlement=25:00"}, "options", "HH:MM"),
        ({"options": "curve_label=middle"}, "options", "start, end"),
    ],
)
def test_each_fault_is_named_with_row_and_column(change: dict[str, str], column: str, word: str) -> None:
    result = rows({}, change)
    assert result.devices == ()
    assert any(f.row == 3 and f.column == column and word in f.message for f in result.faults), result.faults


def test_faults_between_rows() -> None:
    same_address = rows({}, {"address": "01"})
    assert [(f.row, f.column) for f in same_address.faults] == [(3, "address")] and "m1" in same_address.faults[
        0
    ].message
    same_name = rows({}, {"name": "m1"})
    assert {(f.row, f.column) for f in same_name.faults} == {(3, "address"), (3, "pn"), (3, "point")}
    same_point = rows({"point": "P"}, {"point": "P"})
    assert [(f.row, f.column) for f in same_point.faults] == [(3, "point")]
    two_points = parse(HEAD + "g,broker,mqtt-v1,g,,1,,,,,,,,,\ng,broker,mqtt-v1,g,,2,,,,,,,no,,\n")
    assert [(f.row, f.column) for f in two_points.faults] == [(3, "enabled")]


def test_points_of_each_kind_count_their_own_numbers() -> None:
    head = "name,link,profile,address,point,pn,kind,ct_ratio\n"
    good = parse(head + "t,broker,terminal,t,,2,group,\nt,broker,terminal,t,,2,,40\nt,broker,terminal,t,,1,dc,\n")
    assert [(p.kind, p.pn, p.name) for p in good.devices[0].points] == [
        ("measuring", 2, "t-2"), ("group", 2, "t-group-2"), ("dc", 1, "t-dc-1"),
    ]  # fmt: skip
    assert [p.pn for p in good.devices[0].measuring] == [2]
    bad = parse(
        head + "t,broker,terminal,t,a,1,group,\nt,broker,terminal,t,b,1,group,2\nt,broker,terminal,t,c,9,group,\n"
    )
    assert [(f.row, f.column) for f in bad.faults] == [(3, "ct_ratio"), (3, "pn"), (4, "pn")]
    moved = msgspec.structs.replace(
        good.devices[0], points=tuple(msgspec.structs.replace(p, name=p.name + "x") for p in good.devices[0].points)
    )
    assert compare(good.devices, [moved]).changed == (
        ("t", ("point[2].name", "point[group 2].name", "point[dc 1].name")),
    )


def test_the_same_address_on_two_links_is_legal() -> None:
    modbus = {"profile": "eastron-sdm120", "address": "7"}
    assert rows({**modbus, "link": "bus"}, {**modbus, "link": "net"}).faults == ()
    circuits = rows({**modbus, "address": "07@0"}, {**modbus, "address": "7@0100"})
    assert [d.address for d in circuits.devices] == ["7", "7@100"]


def test_each_modem_is_a_wire_of_its_own() -> None:
    there = {"link": "modems", "address": "5"}
    assert rows({**there, "options": "line=a"}, {**there, "options": "line=b"}).faults == ()
    assert [f.column for f in rows({**there, "options": "line=a"}, {**there, "options": "line=a"}).faults] == [
        "address"
    ]


@pytest.mark.parametrize(
    ("data", "row", "column"),
    [
        (b"", 1, "name"),
        (b"name,link,profile\n", 1, "address"),
        (b"name,link,profile,address,colour\n", 1, "colour"),
        (b"name,link,profile,address,name\n", 1, "name"),
        (HEAD.encode() + b"a,b\n", 2, "-"),
        (HEAD.encode() + b'"a,b\n', 2, "-"),
        (HEAD.encode() + "x,母线\n".encode("gb18030"), 2, "-"),
    ],
)
def test_faults_of_the_file_itself(data: bytes, row: int, column: str) -> None:
    faults = parse(data).faults
    assert any((f.row, f.column) == (row, column) for f in faults), faults


def test_all_faults_of_a_file_come_together_and_in_order() -> None:
    result = rows({"ct": "0", "wiring": "x"}, {}, {"link": "q", "pn": "9"})
    assert [(f.row, f.column) for f in result.faults] == [(2, "ct_ratio"), (2, "wiring"), (4, "link"), (4, "pn")]
    assert str(result.faults[0]).startswith("row 2, ct_ratio: ")


def test_ten_thousand_devices_in_bounded_memory() -> None:
    profile = builtin_profiles()["dlt645-2007-3p4w"].name
    devices = [
        Device(
            id=i, name=f"meter-{i:05d}", link="bus", profile=profile, address=f"{i:012d}",
            points=(Point(id=i, name=f"point-{i:05d}", ct_ratio=Decimal(200)),), options={"line": f"room-{i}"},
        )
        for i in range(10_000)
    ]  # fmt: skip
    data = export_devices(devices)
    seen: list[int] = []
    tracemalloc.start()
    try:
        result = parse_devices(data, links=LINKS, profiles=builtin_profiles(), progress=seen.append)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(result.devices) == 10_000 and seen[-1] == 10_001
    assert peak < 40 << 20
    assert export_devices(result.devices) == data


def test_compare_names_added_changed_and_removed() -> None:
    point = Point(id=5, name="p")
    old = [
        Device(id=i, name=n, link="bus", profile="x", address=str(i), points=(msgspec.structs.replace(point, name=n),))
        for i, n in enumerate("abc", 1)
    ]
    new = [
        msgspec.structs.replace(old[0], id=0),
        msgspec.structs.replace(old[1], id=0, enabled=False, points=(msgspec.structs.replace(point, pn=2),)),
        msgspec.structs.replace(old[2], name="d"),
    ]
    changes = compare(old, new)
    assert (changes.added, changes.removed, changes.unchanged) == (("d",), ("c",), 1)
    name, fields = changes.changed[0]
    assert name == "b" and "enabled" in fields and "point[1].name" in fields and "point[2].name" in fields
