"""Words, whole-reply decoding beside the slow loop, register maps and grouping."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.model.quantities import by_name
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.modbus.gather import Gather
from fuhe.protocols.modbus.grouping import Read, group, read_of
from fuhe.protocols.modbus.maps import Block, Register, RegisterMap, load_map, map_names
from fuhe.protocols.modbus.words import ORDERS, TYPES, Order, decode_value, encode_value, unfold_power_factor

VECTORS = [
    ("4366 3334", "float32", "ABCD", 230.20001220703125),
    ("3334 4366", "float32", "CDAB", 230.20001220703125),
    ("6643 3433", "float32", "BADC", 230.20001220703125),
    ("3433 6643", "float32", "DCBA", 230.20001220703125),
    ("FFFE", "int16", "ABCD", -2),
    ("FEFF", "int16", "BADC", -2),
    ("0001 0002", "uint32", "ABCD", 0x10002),
    ("0002 0001", "uint32", "CDAB", 0x10002),
    ("0004 0003 0002 0001", "uint64", "CDAB", 0x0001000200030004),
    ("FFC0 0000", "float32", "ABCD", None),
    ("7F80 0000", "float32", "ABCD", None),
    ("0000 0000", "acc32", "ABCD", None),
    ("8000", "sunssf", "ABCD", None),
]


@pytest.mark.parametrize(("text", "kind", "order", "value"), VECTORS)
def test_worked_words(text: str, kind: str, order: Order, value: float | None) -> None:
    data = bytes.fromhex(text)
    assert decode_value(data, kind, order) == value
    if value is not None:
        assert encode_value(value, kind, order) == data


def test_a_makers_pattern_is_none_only_where_the_map_says_so() -> None:
    assert decode_value(b"\xff\xff", "uint16") == 65535
    assert decode_value(b"\xff\xff", "uint16", "ABCD", {"uint16": 0xFFFF}) is None
    assert encode_value(None, "uint16", absent=0xFFFF) == b"\xff\xff"
    with pytest.raises(UsageError, match="no pattern"):
        encode_value(None, "uint16")


@given(st.sampled_from(sorted(TYPES)), st.sampled_from(ORDERS), st.data())
def test_round_trip_of_every_type_and_order(kind: str, order: Order, data: st.DataObject) -> None:
    word = TYPES[kind]
    bits = 8 * word.size
    value: float | None
    if word.is_float:
        value = data.draw(st.floats(width=bits, allow_nan=False, allow_infinity=False))  # type: ignore[arg-type]
    elif word.code[0] == "i":
        value = data.draw(st.integers(-(1 << bits - 1) + 1, (1 << bits - 1) - 1))
    else:
        value = data.draw(st.integers(1, (1 << bits) - 1))
    assert decode_value(encode_value(value, kind, order), kind, order) == value


@pytest.mark.parametrize(("value", "kind"), [(70000, "uint16"), (-1, "uint32"), (1.5, "int16"), (1e300, "float32")])
def test_what_does_not_fit_is_refused(value: float, kind: str) -> None:
    with pytest.raises(UsageError):
        encode_value(value, kind)


def slow(read: Read, data: bytes, regmap: RegisterMap, decimals: dict[str, int]) -> list[float | None]:
    raw = {
        r.name: decode_value(
            data[2 * (r.address - read.address) : 2 * (r.end - read.address)], r.type, r.order, regmap.not_available
        )
        for r in read.registers
    }
    values: list[float | None] = []
    for r in read.registers:
        if r.use == "scale":
            continue
        value = raw[r.name]
        if value is not None and r.sf:
            power = raw.get(r.sf)
            value = None if power is None or abs(power) > 10 else value * 10.0**power
        if value is not None:
            value = value / r.quotient
            value = unfold_power_factor(value) if r.coding else value
        values.append(value)
    return values


@pytest.mark.parametrize("name", map_names())
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_arrays_equal_the_slow_loop(name: str, data: st.DataObject) -> None:
    regmap = load_map(name)
    decimals = {n: q.decimals for n, q in by_name().items()}
    for read in group(regmap.registers, regmap.blocks, regmap.max_registers):
        words = data.draw(
            st.lists(
                st.sampled_from([0, 1, 2, 0xFFFE, 0xFFFF, 0x8000, 0x7FC0, 0x4366, 0x3334]) | st.integers(0, 0xFFFF),
                min_size=read.count, max_size=read.count,
            )
        )  # fmt: skip
        payload = b"".join(w.to_bytes(2, "big") for w in words)
        gather = Gather([read], regmap.not_available, decimals)
        assert gather.size == len(payload)
        values = gather.values(payload).tolist()
        for register, fast, exact in zip(gather.registers, values, slow(read, payload, regmap, decimals), strict=True):
            if exact is None or not math.isfinite(exact * 10 ** decimals.get(register.name, 6)):
                assert not math.isfinite(fast), register.name
            else:
                step = 0.5000001 * 10.0 ** -decimals.get(register.name, 6)
                assert abs(fast - exact) <= step + 1e-12 * abs(exact), register.name


def test_decimal_registers_come_out_exact() -> None:
    regmap = load_map("acrel-adl400")
    read = read_of([regmap.by_name["forward_active_total"]])
    for raw in (57, 1, 99_999_999, 123_456_789, 0xFFFF_FFFF):
        value = Gather([read], {}, {"forward_active_total": 4}).values(raw.to_bytes(4, "big"))[0]
        assert value == float(f"{raw // 100}.{raw % 100:02d}")


@pytest.mark.parametrize("name", map_names())
def test_every_map_loads_and_every_row_is_a_quantity_in_its_unit(name: str) -> None:
    regmap = load_map(name)
    wrong = [r.name for r in regmap.registers if r.use == "reading" and r.name not in by_name()]
    assert not wrong
    units = [r.name for r in regmap.registers if r.use == "reading" and by_name()[r.name].unit != r.kept_unit]
    assert not units
    assert all(r.clause for r in regmap.registers) and regmap.title_en and regmap.title_zh


def test_the_maps_of_the_task_are_there() -> None:
    wanted = {
        "eastron-sdm630", "eastron-sdm120", "eastron-sdm72", "chint-dtsu666", "schneider-iem3000", "schneider-pm5xxx",
        "siemens-pac3200", "siemens-pac2200", "acrel-adl400", "acrel-adl3000", "sunspec-203",
    }  # fmt: skip
    assert wanted <= set(map_names())


def test_facts_of_the_maps() -> None:
    rows = load_map("chint-dtsu666").by_name
    assert (rows["active_power_total"].address, rows["active_power_total"].quotient) == (0x2012, 10_000)
    assert load_map("schneider-pm5xxx").by_name["active_power_total"].address == 3060 - 1
    assert load_map("siemens-pac2200").by_name["frequency"].address == 46
    assert load_map("eastron-sdm630").max_registers == 80
    assert "forward_active_a" not in load_map("eastron-sdm72").by_name


def test_every_fault_of_a_map_is_named_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(
        """
        source = "x"
        max_registers = 200
        register = [
          { name = "a", address = 0, unit = "V", type = "float99" },
          { name = "b", address = 70000, unit = "furlong" },
          { name = "c", unit = "V" },
          { name = "d", address = 1, unit = "V", divisor = 0, function = 6 },
          { name = "d", address = 5, unit = "V" },
        ]
        """
    )
    with pytest.raises(UsageError) as caught:
        load_map("bad", tmp_path)
    assert "register 3 (c)" in str(caught.value) and "register d: stands twice" in str(caught.value)
    (tmp_path / "worse.toml").write_text(
        """
        source = "x"
        max_registers = 200
        register = [
          { name = "a", address = 0, unit = "V", type = "float99" },
          { name = "b", address = 70000, unit = "furlong" },
          { name = "d", address = 1, unit = "V", divisor = 0, function = 6 },
        ]
        """
    )
    with pytest.raises(UsageError) as caught:
        load_map("worse", tmp_path)
    text = str(caught.value)
    for part in (
        "max_registers 200", "register a: type", "register b: address", "register b: unit", "register d: divisor",
        "register d: function",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"m": 'inherits = "m"'}, "circle"),
        ({"m": 'inherits = "nosuch"'}, "nosuch"),
        ({"m": "register = ["}, "m.toml"),
        ({"m": 'speed = 3\nsource = "x"'}, "unknown field"),
        ({"m": 'inherits = "eastron-sdm120"\nwithout = ["zzz"]'}, "zzz"),
        (
            {"m": 'source="x"\nregister=[{name="a",address=0,unit="",type="int32"},{name="b",address=1,unit=""}]'},
            "overlaps",
        ),
    ],
)
def test_broken_maps_say_why(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_map("m", tmp_path)


@pytest.mark.parametrize("name", ["../secret", "", ".hidden", "nosuch"])
def test_a_name_that_is_no_map_lists_the_maps(name: str) -> None:
    with pytest.raises(UsageError, match="eastron-sdm630"):
        load_map(name)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[Register], list[Block], int]:
    address, registers = 0, []
    for i in range(draw(st.integers(1, 25))):
        address += draw(st.sampled_from([0, 0, 0, 1, 2, 7]))
        kind = draw(st.sampled_from(["uint16", "float32", "int64"]))
        registers.append(Register(name=f"r{i}", address=address, type=kind, function=draw(st.sampled_from([3, 3, 4]))))
        address = registers[-1].end
    starts = draw(st.lists(st.integers(0, address), max_size=3, unique=True))
    blocks = [Block(first=s, last=s + draw(st.integers(0, 30)), function=3) for s in starts]
    return registers, blocks, draw(st.integers(4, 40))


@given(layouts(), st.data())
def test_grouping_covers_everything_and_breaks_no_rule(
    layout: tuple[list[Register], list[Block], int], data: st.DataObject
) -> None:
    registers, blocks, limit = layout
    wanted = [r for r in registers if data.draw(st.booleans())]
    refused = [r for r in registers if r not in wanted and data.draw(st.booleans())]
    cuts = {(r.function, r.address) for r in wanted if data.draw(st.integers(0, 5)) == 0}
    reads = group(wanted, blocks, limit, cuts, refused)
    assert sorted(r.name for read in reads for r in read.registers) == sorted(r.name for r in wanted)
    for read in reads:
        end = read.address + read.count
        assert read.count <= limit
        assert read.registers[0].address == read.address and read.registers[-1].end == end
        assert not any(r.function == read.function and read.address <= r.address < end for r in refused)
        assert not any((r.function, r.address) in cuts for r in read.registers[1:])
        for a, b in pairwise(read.registers):
            inside = [k for k in blocks if k.function == read.function and k.first <= a.address and b.end - 1 <= k.last]
            assert a.end == b.address or inside
    joined = [
        (a, b) for a, b in pairwise(reads)
        if a.function == b.function and a.address + a.count == b.address
        and b.registers[0].end - a.address <= limit and (b.function, b.address) not in cuts
    ]  # fmt: skip
    assert not joined  # neighbours that could share a read do
