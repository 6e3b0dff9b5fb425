"""Parameter lists: parsed whole or not at all, encoded for the terminal's edition, compared with what it reads back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.acquisition.parameter_fields import BadValue, Place, read, shape, show
from fuhe.acquisition.parameters import (
    ParsedSettings,
    Setting,
    compare,
    encode,
    parse_settings,
    preview,
    question_of,
    split,
    unit_of,
)
from fuhe.model.lang import set_lang
from fuhe.protocols.qgdw1376.edition import edition
from fuhe.protocols.qgdw1376.frame import Address
from fuhe.protocols.qgdw1376.layout import Field, Layout
from fuhe.protocols.qgdw1376.message import Message, build, parse, reply, request
from fuhe.protocols.qgdw1376.table import lookup, table

EDITIONS = {"T1": "2013", "T2": "2009", "T3": "2005"}


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    set_lang("en")
    yield
    set_lang("en")


def parsed(text: str) -> ParsedSettings:
    return parse_settings(text.encode(), EDITIONS)


def good(text: str) -> tuple[Setting, ...]:
    found = parsed(text)
    assert not found.faults, [str(f) for f in found.faults]
    return found.settings


def faults(text: str) -> list[str]:
    found = parsed(text)
    assert found.faults and not found.settings
    return [str(f) for f in found.faults]


def layout(fn: int, edition: str = "2013") -> Layout:
    row = lookup(4, fn, edition)
    assert row is not None
    return row.fields


def rows_of(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = data[name]
    return rows


POINT = "pt_ratio=1; ct_ratio=40; rated_v=220 V; rated_a=1.5; rated_kva=6.6 kVA; phase=0; wiring=2"


def test_pairs_columns_and_json_say_the_same() -> None:
    columns = "pt_ratio,ct_ratio,rated_v,rated_a,rated_kva,phase,wiring"
    texts = (
        f"device,parameter,pn,values\nT1,F25,1,{POINT}\n",
        f"device,parameter,pn,{columns}\nT1,point_parameters,1,1,40,220,1.5,6.6,0,2\n",
        'device,parameter,pn,values\nT1,测量点基本参数,1,"{""pt_ratio"":1,""ct_ratio"":40,""rated_v"":220,'
        '""rated_a"":1.5,""rated_kva"":""6.6"",""phase"":0,""wiring"":2}"\n',
        f"device,parameter,pn,{columns},values\nT1,04F25,1,1,40,,,,,,rated_v=220; rated_a=1.5; rated_kva=6.6;phase=0;"
        "wiring=2\n",
    )
    for text in texts:
        (setting,) = good(text)
        assert encode(setting).hex() == "010028000022" + "15" + "006006" + "02"
        assert (setting.device, setting.edition, setting.fn, setting.pn, setting.rows) == ("T1", "2013", 25, 1, (2,))


def test_published_units_come_out_of_friendly_cells() -> None:
    found = good(
        "device,parameter,pn,values\n"
        'T1,F18,,"half_hours=1*6,2*6,1*6,2*6,1*6,2*6,1*6,2*6"\n'
        "T1,F42,1,limit_kw=2000 kW; start=08:00; half_hours=30; weekdays=1-7\n"
        "T1,F44,1,start=2008-01-01; end=2008-01-02; limit_kw=2000\n"
        'T1,F66,2,"unit=day; period=1; base_time=2001-01-01 00:15:00; ratio=1; ids=p1F5,p1F7,p1F161,p1F163"\n'
        "T1,F57,,hours=0-23\n"
        "T1,F57,,hours=none\n".replace("T1,F57,,hours=none", "T2,F57,,hours=none")
    )
    assert [encode(s).hex() for s in found] == [
        "55a5aa" * 4,
        "0062" + "0008" + "1e" + "fe",
        "010108" + "020108" + "0062",
        "81" + "001500012101" + "01" + "04" + "01011000" + "01014000" + "01010114" + "01010414",
        "ffffff",
        "000000",
    ]


def test_a_list_is_written_one_row_an_element() -> None:
    common = "baud_code=3; protocol=30; password_hex=000000000000; tariffs=4; int_digits=6; dec_digits=2; collector=0; "
    common += "user_class=1,2"
    text = "device,parameter,device_no,pn,port,address,values\n" + "".join(
        f'T1,F10,{i},{i + 1},2,{i:012d},"{common}"\n' for i in (1, 2, 3)
    )
    (setting,) = good(text)
    assert setting.rows == (2, 3, 4) and setting.data["n"] == 3
    devices = rows_of(setting.data, "devices")
    assert [d["address"] for d in devices] == ["000000000001", "000000000002", "000000000003"]
    assert [d["pn"] for d in devices] == [2, 3, 4] and devices[0]["baud"] == 2400 and devices[0]["user_class"] == [1, 2]
    assert len(encode(setting)) == 2 + 3 * 27
    question = question_of(setting)
    assert question.data == {"device_no": [1, 2, 3]}
    row = lookup(0x0A, 10)
    assert row is not None and question.data is not None
    assert row.request.encode(question.data, "2013").hex() == "0300010002000300"
    pieces = split(setting, 60)
    assert [rows_of(p.data, "devices")[0]["device_no"] for p in pieces] == [1, 2]
    assert all(len(encode(p)) <= 60 for p in pieces) and sum(len(rows_of(p.data, "devices")) for p in pieces) == 3
    assert split(setting, 10) and len(split(setting, 10)) == 3


def test_editions_encode_their_own_layout() -> None:
    text = "device,parameter,pn,values\nT1,F46,1,limit=5 MWh; alarm_percent=80\nT2,F46,1,limit=5000 kWh\n"
    first, second = good(text)
    assert encode(first).hex() == "05000040" + "50" and encode(second).hex() == "00500000"
    (old,) = good("device,parameter,pn,values\nT3,F8,,record=1-64; important=14\n")
    assert old.name == "event_configuration" and len(encode(old)) == 16


def test_ranges_of_points_make_a_setting_each() -> None:
    found = good("device,parameter,pn,values\nT1,F45,1-3;8,rounds=1-4\n")
    assert [s.pn for s in found] == [1, 2, 3, 8] and {encode(s).hex() for s in found} == {"0f"}


def test_every_fault_is_named_and_nothing_comes_out() -> None:
    text = (
        "device,parameter,pn,rated_v,values\n"
        f"T1,F25,1,,{POINT}\n"
        f"T9,F25,1,,{POINT}\n"
        "T1,F99,1,,a=1\n"
        f"T1,F25,,,{POINT}\n"
        "T1,F25,2,high,pt_ratio=0; ct_ratio=70000; rated_a=12345; wiring=5; color=red\n"
        "T1,F43,9,,slide_min=5\n"
        "T1,F43,1,,slide_min=61\n"
        "T1,F43,2,,\n"
        f"T1,F25,1,,{POINT}\n"
        "T1,F18,,,half_hours=0*47\n"
        "T1,F42,1,,limit_kw=1234; start=8.00; half_hours=0; weekdays=Monday\n"
        'T1,F33,,,"ports=[{""port"":40,""shift"":1}]"\n'
        "T1,F45,1,,rounds=9-1; rounds=1; oops\n"
    )
    found = faults(text)
    wanted = (
        (3, "device", "T9"), (4, "parameter", "F99"), (5, "pn", "1-2040"), (6, "rated_v", "high"),
        (6, "values", "pt_ratio: 0 is not legal (legal: 1..65535)"), (6, "values", "ct_ratio"),
        (6, "values", "rated_a"),
        (6, "values", "wiring: 5 is not legal (legal: 1..3)"), (6, "values", "no field color"), (7, "pn", "1-8"),
        (8, "values", "legal: 1..60"), (9, "values", "missing: slide_min"), (10, "parameter", "already in row 2"),
        (11, "values", "48 codes"), (12, "values", "limit_kw"), (12, "values", "start"),
        (12, "values", "half_hours: 0"),
        (12, "values", "weekdays"), (13, "values", "element 1, port: 40 is not legal"), (14, "values", "backwards"),
        (14, "values", "rounds stands twice"), (14, "values", "'oops' is not name=value"),
    )  # fmt: skip
    for row, column, word in wanted:
        assert [f for f in found if f.startswith(f"row {row}, {column}: ") and word in f], (row, column, word, found)
    assert {int(f.split(",")[0].removeprefix("row ")) for f in found} == set(range(3, 15))
    set_lang("zh")
    chinese = [str(f) for f in parsed(text).faults]
    assert len(chinese) == len(found) and all(f.startswith("第 ") for f in chinese)
    assert any("电压互感器倍率 pt_ratio: 0 不合法 (允许: 1..65535)" in f for f in chinese)


def test_files_that_are_no_list() -> None:
    assert "row 1, colour: unknown column" in faults("device,parameter,colour\nT1,F1,red\n")[0]
    assert "row 1, parameter: the column is missing" in faults("device,pn\nT1,1\n")
    assert "not UTF-8" in str(parse_settings("设备".encode("gb18030"), EDITIONS).faults[0])
    assert (
        "element"
        in faults('device,parameter,values\nT1,F14,"groups=[{""group"":1,""m"":1,""points"":[{""pn"":1}]},7]"\n')[0]
    )
    twice = "device,parameter,port,values\nT1,F11,1,pn=1\n"
    assert "missing" in faults(twice)[0]


def test_elements_of_a_list_stand_once() -> None:
    text = "device,parameter,port,attr,k,values\nT1,F13,1,0,,pn=1\nT1,F13,1,1,,pn=1\n"
    assert faults(text) == ["row 3, values: port 1 stands twice"]


def answer_to(setting: Setting, **changes: Any) -> dict[str, object]:
    """What a terminal that holds the setting (with changes) reads back, over the wire."""
    unit = unit_of(setting)
    peer = edition(setting.edition)
    asked = request(Address("3301", 1), 0x0A, [question_of(setting)], peer)
    data: dict[str, object] = {**(unit.data or {}), **changes}
    held = type(unit)(unit.pn, unit.fn, data)
    heard = build(reply(asked, [held]), peer)
    message: Message = parse(heard, peer)
    assert message.units[0].data is not None
    return message.units[0].data


def test_a_faithful_read_back_has_no_difference() -> None:
    for setting in good(
        "device,parameter,pn,values\n"
        f"T1,F25,1,{POINT}\nT2,F46,1,limit=5000\nT1,F9,,record=1-8; important=14\nT1,F1,,rts_x20ms=10;max_delay_min=20;"
        "retries=3;timeout_s=30;con_flags=7;heartbeat_min=15\n"
        'T1,F33,,"ports=[{""port"":2,""control_word"":0,""days"":[1],""time"":""00:15"",""interval_min"":60,'
        '""broadcast_clock"":""00 23:30"",""windows"":[[""00:15"",""23:45""]]}]"\n'
    ):
        assert compare(setting, answer_to(setting)) == ()


def test_differences_show_both_values_and_the_unit() -> None:
    (setting,) = good(f"device,parameter,pn,values\nT1,F25,1,{POINT}\n")
    found = compare(setting, answer_to(setting, ct_ratio=30, rated_v=Decimal("57.7")))
    assert [str(d) for d in found] == [
        "ct_ratio: set 40, the terminal has 30",
        "rated_v: set 220.0 V, the terminal has 57.7 V",
    ]
    assert {d.path for d in compare(setting, None)} == {
        "pt_ratio", "ct_ratio", "rated_v", "rated_a", "rated_kva", "phase", "wiring",
    }  # fmt: skip
    set_lang("zh")
    (one, *_) = compare(setting, {})
    assert str(one) == "电压互感器倍率 pt_ratio (pt_ratio): 设置值 1, 终端为 无"


def test_lists_are_compared_by_their_key_and_deletions_must_be_gone() -> None:
    text = "device,parameter,values\n" + "".join(
        f'T1,F14,"group={group}; points=[{{""pn"":1,""reverse"":0,""subtract"":0}}]"\n' for group in (2, 3)
    )
    (setting,) = good(text + 'T1,F14,"group=4; points=[]"\n')
    held = answer_to(setting)
    groups = rows_of(held, "groups")
    other = {"group": 1, "m": 0, "points": []}
    assert compare(setting, {**held, "groups": [other, *reversed(groups)]}) == ()
    assert compare(setting, {**held, "groups": groups[:2]}) == ()  # group 4 was deleted: gone is right
    changed = [{**groups[0], "points": []}, groups[1]]
    (difference,) = compare(setting, {**held, "groups": changed})
    assert difference.path == "groups[2].points"
    alive = {**groups[2], "m": 1, "points": [{"pn": 5, "reverse": 0, "subtract": 0}]}
    (difference,) = compare(setting, {**held, "groups": [*groups[:2], alive]})
    assert difference.path == "groups[4].m"
    assert [d.path for d in compare(setting, {**held, "groups": groups[:1]})] == ["groups[3].group", "groups[3].points"]


def test_secrets_are_in_no_preview_and_no_difference() -> None:
    found = good("device,parameter,values\nT1,F16,user=fuhe; password=s3cret\nT1,F17,limit_kw=50\n")
    text = preview(found)
    assert "s3cret" not in text and b"s3cret".hex(" ").upper() not in text and "fuhe" in text
    assert "limit_kw = 50 kW" in text and "2 bytes: 50 80" in text
    (difference,) = compare(found[0], {"user": "fuhe", "password": "other"})
    assert "s3cret" not in str(difference) and "other" not in str(difference)
    set_lang("zh")
    assert "功率定值 limit_kw = 50 kW" in preview(found)


def test_the_examples_of_the_docs_are_good_lists() -> None:
    text = (Path(__file__).parents[2] / "docs" / "parameters.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)
    found = [parse_settings(block.encode(), {"T01": "2013", "mill-1": "2013"}) for block in blocks]
    assert len(found) == 4 and not [str(f) for one in found for f in one.faults]
    assert len(found[3].settings) == 1 and len(encode(found[3].settings[0])) == 2 + 2 * 27


def _all_places() -> list[tuple[int, str, Place]]:
    """Every field of every parameter that a cell can say."""
    found = []
    for row in table().rows:
        if 4 in row.afn:
            form = shape(row)
            found += [(row.fn, row.editions[-1], p) for p in (*form.places.values(), *form.entry.values())]
    return found


def test_a_wrong_value_is_told_in_chinese_whatever_the_format() -> None:
    set_lang("zh")
    plain = {"user", "password", "apn", "number"}  # text that takes anything short
    for fn, name, place in _all_places():
        if isinstance(place.node, Field) and not place.node.size_field and place.name not in plain:
            with pytest.raises(BadValue) as caught:
                read(place, "☃" * 40, {})
            assert "give" not in str(caught.value) and "☃" in str(caught.value), (fn, name, place.name)


def test_times_as_a_spreadsheet_writes_them_and_units() -> None:
    one, two = good("device,parameter,pn,start,values\nT1,F42,1,8:00,limit_kw=1500 kW; half_hours=2; weekdays=1\n"
                    "T1,F42,2,08:00,limit_kw=1500; half_hours=2; weekdays=1\n")  # fmt: skip
    assert encode(one) == encode(two)
    assert "'MW' is not its unit (kW)" in faults("device,parameter,pn,values\nT1,F17,,limit_kw=5 MW\n")[0]


@given(draw=st.data())
@settings(max_examples=200)
def test_what_is_shown_can_be_read_again(draw: st.DataObject) -> None:
    numbers = draw.draw(st.lists(st.integers(0, 5), max_size=48))
    place = shape_of(18).places["half_hours"]
    padded = [n % 3 for n in numbers] + [0] * (48 - len(numbers))
    assert read(place, show(place, padded), {}) == padded
    hours = sorted(set(numbers))
    place = shape_of(57).places["hours"]
    assert read(place, show(place, hours), {}) == hours


def shape_of(fn: int) -> Any:
    row = lookup(4, fn)
    assert row is not None
    return shape(row)


@given(text=st.text(max_size=30), place=st.sampled_from(_all_places()))
@settings(max_examples=500)
def test_any_cell_is_a_value_or_a_fault(text: str, place: tuple[int, str, Place]) -> None:
    fn, name, one = place
    cell = text.replace('"', "").replace("\r", "").replace("\n", "")
    found = parse_settings(f'device,parameter,pn,values\nT,F{fn},1,"{one.name}={cell}"\n'.encode(), {"T": name})
    assert bool(found.faults) != bool(found.settings)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_faults_or_settings(data: bytes) -> None:
    found = parse_settings(b"device,parameter,pn,values\nT1," + data, EDITIONS)
    assert not (found.faults and found.settings)
