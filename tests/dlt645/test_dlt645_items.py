"""The tables of data items and both directions of their payloads."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.model.quantities import by_name
from fuhe.protocols.common.bcd import bcd_array, bcd_to_int, int_to_bcd, signed_bcd_to_int
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.decode import decode
from fuhe.protocols.dlt645.fields import decode_field, encode_field, make_field
from fuhe.protocols.dlt645.frame import make_frame
from fuhe.protocols.dlt645.items import _rows, decode_payload, encode_payload, load_fields, lookup
from fuhe.protocols.dlt645.loads import decode_loads, encode_record

SAMPLE = {"pp": "02", "qp": "00", "nn": "01", "hh": "05", "xx": "01", "p": "2", "q": "0", "n": "1"}


def every_item() -> list[tuple[str, str]]:
    """A DI of every row of the tables, with its edition."""
    found = []
    for version in ("2007", "1997"):
        for rows in _rows(version).values():
            found += [("".join(SAMPLE.get(t, t) for t in row.tokens), version) for row in rows]
    kinds = [
        f"{c:02X}{k:02X}{t:02X}{s:02X}" for c in (0, 1) for k in range(256) for t, s in ((0, 0), (4, 12), (255, 1))
    ]
    freezes = [f"05{k:02X}{c:02X}01" for k in range(8) for c in (*range(11), 16)]
    old = [f"{c}{m}{g}{t}" for c in "9AB" for m in "0145" for g in "123456" for t in "01E"]
    found += [(di, "2007") for di in kinds + freezes] + [(di, "1997") for di in old]
    return [(di, version) for di, version in found if lookup(di, version) is not None]


ITEMS = every_item()


def test_every_row_is_found_and_every_quantity_exists() -> None:
    assert len(ITEMS) > 400
    names = by_name()
    for di, version in ITEMS:
        item = lookup(di, version)
        assert item is not None and item.clause and item.zh
        for field in item.fields:
            assert field.quantity is None or field.quantity in names, (di, field)
            if field.quantity and not field.quantity.startswith(("ct_", "pt_", "phase_", "temp")):
                assert names[field.quantity].unit == field.unit, (di, field)
            if item.demand and field.quantity:
                assert f"{field.quantity}_time" in names
    for number in range(1, 7):
        assert all(f.quantity in names for f in load_fields(number))


def test_every_item_survives_zero_fill_and_any_length() -> None:
    for di, version in ITEMS:
        item = lookup(di, version)
        assert item is not None
        for size in {0, 1, item.size, item.size + 1, 33}:
            for byte in (0x00, 0xFF, 0xEE, 0x99, 0xAA):
                decode_payload(item, bytes((byte,)) * size)
        values = decode_payload(item, b"\xff" * item.size) if item.size else []
        filled = [v for v in values if not _binary(di, version, v.name)]
        assert all(v.value is None and v.invalid is None for v in filled), di


def _binary(di: str, version: str, name: str) -> bool:
    item = lookup(di, version)
    assert item is not None
    return any(f.name == name and f.format in ("hex", "raw") for f in item.fields) or "status" in name


@pytest.mark.parametrize(
    ("di", "size"),
    [
        ("03010101", 131), ("030B0301", 115), ("030E0201", 76), ("03070001", 76), ("03090001", 78), ("03050001", 15),
        ("03120101", 20), ("03300001", 50), ("03300101", 106), ("03300201", 202), ("03300301", 14), ("03300401", 16),
        ("03300701", 11), ("03300C01", 16), ("03300D01", 60), ("03100001", 27), ("03010000", 18), ("03120000", 18),
        ("04010000", 42), ("04000403", 32), ("0203FF00", 12), ("01010000", 8), ("05061001", 24),
    ],
)  # fmt: skip
def test_lengths_of_the_catalogue(di: str, size: int) -> None:
    item = lookup(di)
    assert item is not None and item.size == size


def test_round_trip_of_the_numeric_items() -> None:
    for di, version in ITEMS:
        item = lookup(di, version)
        assert item is not None
        if not item.fields or not all(f.numeric for f in item.fields):
            continue
        contents = [
            Decimal(f"{(-1) ** i if f.signed else 1}").scaleb(-f.decimals) * (i + 7) for i, f in enumerate(item.fields)
        ]
        wire = encode_payload(item, contents)
        assert [v.value for v in decode_payload(item, wire)] == contents, di


@given(st.decimals(-799999, 799999, places=2))
def test_signed_register(number: Decimal) -> None:
    field = make_field("x", "-XXXXXX.XX", "kWh")
    assert decode_field(field, encode_field(field, number)).value == number


@given(st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2099, 12, 31)))  # noqa: DTZ001 - device times are naive
def test_times(moment: dt.datetime) -> None:
    moment = moment.replace(microsecond=0)
    for form in ("YYMMDDhhmmss", "YYMMDDWWhhmmss"):
        field = make_field("t", form)
        assert decode_field(field, encode_field(field, moment)).value == moment
        assert encode_field(field, moment.isoformat()) == encode_field(field, moment)
    field = make_field("d", "YYMMDDWW")
    assert decode_field(field, encode_field(field, moment.date())).value == moment.date()


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("XX.XX", "123"),
        ("XX.XX", "1.234"),
        ("XX", -1),
        ("ascii4", "12345"),
        ("hex2", "12"),
        ("digits6", "12"),
        ("XX", "a"),
    ],
)
def test_contents_that_do_not_fit(form: str, content: str | int) -> None:
    with pytest.raises(UsageError):
        encode_field(make_field("x", form), content)


def test_texts_are_sent_last_character_first() -> None:
    item = lookup("04000404")
    assert item is not None
    wire = encode_payload(item, ["220V"])
    assert wire == b"\0\0V022"
    assert decode_payload(item, wire)[0].value == "220V"


def test_four_byte_currents_are_widened() -> None:
    item = lookup("02020100")
    assert item is not None
    assert decode_payload(item, bytes.fromhex("34120100"))[0].value == Decimal("11.234")
    assert decode_payload(item, bytes.fromhex("3412"))[0].invalid == "length"
    block = lookup("0202FF00")
    assert block is not None
    assert [v.value for v in decode_payload(block, bytes.fromhex("34120100") * 3)] == [Decimal("11.234")] * 3


def test_demand_and_its_time() -> None:
    item = lookup("01010001")
    assert item is not None and item.settlement == 1
    value = decode_payload(item, bytes.fromhex("4523014513200524"))[0]
    assert (value.value, value.time) == (Decimal("1.2345"), dt.datetime(2024, 5, 20, 13, 45))  # noqa: DTZ001
    assert decode_payload(item, bytes(8))[0].time is None


def test_blocks_by_actual_length() -> None:
    tariffs, history = lookup("0001FF00"), lookup("000100FF")
    assert tariffs is not None and history is not None
    assert [v.name for v in decode_payload(tariffs, bytes(12))] == ["total", "tariff_1", "tariff_2"]
    assert decode_payload(tariffs, bytes(13))[0].invalid == "length"
    values = decode_payload(history, bytes(52))
    assert [v.settlement for v in values] == list(range(13))
    both = lookup("0001FFFF")
    assert both is not None and len(decode_payload(both, bytes(13 * 5 * 4))) == 65


@pytest.mark.parametrize("gap", [b"\xaa", b""])
def test_freeze_block_with_and_without_separators(gap: bytes) -> None:
    item = lookup("0506FF01")
    assert item is not None
    energies = [int_to_bcd(100 * i, 4) * 5 for i in range(8)]
    demands = [bytes.fromhex("4523014513200524") * 5] * 2
    parts = [bytes.fromhex("0000210524"), *energies, *demands, bytes.fromhex("341200") * 8]
    values = {v.name: v.value for v in decode_payload(item, gap.join(parts))}
    assert values["freeze_time"] == dt.datetime(2024, 5, 21)  # noqa: DTZ001
    assert values["reactive_q4_tariff_4"] == 7
    assert values["forward_active_demand_total"] == Decimal("1.2345")
    assert values["reactive_power_c"] == Decimal("0.1234")


def test_follow_on_parts_are_explained_as_parts() -> None:
    first = make_frame("1", 0xB1, bytes.fromhex("01023003") + bytes(100))
    last = make_frame("1", 0x92, bytes.fromhex("01023003") + bytes(20) + b"\x01")
    assert decode("dlt645", first.encode())["partial"] is True
    got = decode("dlt645", last.encode())
    assert (got["seq"], got["payload_hex"]) == (1, "00" * 20)


def test_bad_digits_spare_the_rest_of_a_block() -> None:
    got = decode("dlt645", make_frame("1", 0x91, bytes.fromhex("00FF0102 7123 0E00 FFFF")).encode())
    assert got["value_invalid"] == "not_bcd"
    assert [v["value"] for v in got["values"]] == ["237.1", None, None]  # type: ignore[attr-defined]


@given(
    st.lists(st.binary(min_size=12, max_size=12), min_size=1, max_size=20),
    st.sampled_from([1, 2, 3, 4, 6]),
    st.booleans(),
)
def test_array_decoding_equals_the_slow_one(rows: list[bytes], width: int, signed: bool) -> None:
    wire = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), 12)
    got = bcd_array(wire, width=width, decimals=2, signed=signed)
    one = signed_bcd_to_int if signed else bcd_to_int
    want = [[one(row[i : i + width]) for i in range(0, 12, width)] for row in rows]
    slow = np.array([[np.nan if n is None else n / 100 for n in row] for row in want])
    assert np.array_equal(got, slow, equal_nan=True)


def test_load_records_of_all_forms() -> None:
    at = [dt.datetime(2026, 5, 20, 0, 15), dt.datetime(2026, 5, 20, 0, 30)]  # noqa: DTZ001
    volts = ["220.1", None, "221.3", "-1.234", "0", "5", "50.01"]
    full = b"".join(encode_record(t, {1: volts, 2: [1] * 8, 4: ["1.25"] * 4}) for t in at)
    tables = decode_loads(full, 0)
    assert sorted(tables) == [1, 2, 4]
    assert tables[1].value[1].tolist()[:1] == [220.1] and np.isnan(tables[1].value[0, 1])
    assert tables[1].value[0, 3] == -1.234
    assert tables[4].time_us.tolist() == [int((t - dt.datetime(1970, 1, 1)).total_seconds() * 1e6) for t in at]  # noqa: DTZ001
    # one class only: framed, bare, and bare with its AA; two forms in one answer
    one = b"".join(encode_record(t, {3: ["1.000"] * 4}) for t in at)
    bare = b"".join(r[3:8] + r[8 + 2 : 8 + 2 + 8] for r in (one[: len(one) // 2], one[len(one) // 2 :]))
    with_gap = b"".join(bare[i : i + 13] + b"\xaa" for i in (0, 13))
    for payload in (one, bare, with_gap):
        assert decode_loads(payload, 3)[3].value.tolist() == [[1.0] * 4] * 2
    mixed = decode_loads(one + full, 0)
    assert mixed[3].value.shape == (2, 4) and mixed[1].value.shape == (2, 7)
    assert decode_loads(b"", 2) == {} and decode_loads(b"\xa0\xa0\x00", 0) == {}


@given(st.binary(max_size=300))
def test_load_records_of_noise(payload: bytes) -> None:
    for number in (0, 1, 2, 6):
        decode_loads(payload, number)
        decode_loads(b"\xa0\xa0" + payload, number)
