"""Data formats: the published examples both ways, every other value by property, and what does not fit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.qgdw1376.formats import DeviceTime, Format, make_format, text_of


def form(name: str) -> Format:
    return make_format(name)[0]


PUBLISHED = [
    ("A.1", "00241726B007", "2007-10-26 17:24:00 w5"),
    ("A.1", "512100306316", "2016-03-30 00:21:51 w3"),
    ("A.1", "512023071018", "2018-10-07 23:20:51 w0"),
    ("A.2", "3590", "-35"),
    ("A.2", "9989", "999"),
    ("A.2", "15A1", "11.5"),
    ("A.2", "0062", "2000"),
    ("A.2", "1067", "7100"),
    ("A.2", "0068", "8000"),
    ("A.3", "40907008", "8709040"),
    ("A.3", "50000010", "-50"),
    ("A.3", "00020040", "200000"),
    ("A.4", "15", 15),
    ("A.4", "92", -12),
    ("A.5", "5092", "-125.0"),
    ("A.5", "9909", "99.9"),
    ("A.6", "0581", "-1.05"),
    ("A.6", "5012", "12.50"),
    ("A.7", "9021", "219.0"),
    ("A.8", "3412", 1234),
    ("A.9", "471101", "1.1147"),
    ("A.9", "005082", "-2.5000"),
    ("A.10", "563412", 123456),
    ("A.11", "78563412", "123456.78"),
    ("A.12", "595740090001", "010009405759"),
    ("A.13", "78563412", "1234.5678"),
    ("A.14", "0079920000", "92.7900"),
    ("A.15", "3517250114", "2014-01-25 17:35"),
    ("A.16", "56131704", "04 17:13:56"),
    ("A.17", "30140508", "08-05 14:30"),
    ("A.18", "302300", "00 23:30"),
    ("A.19", "1500", "00:15"),
    ("A.20", "251211", "2011-12-25"),
    ("A.21", "0114", "2014-01"),
    ("A.22", "15", "1.5"),
    ("A.23", "000001", "1.0000"),
    ("A.24", "1726", "26 17"),
    ("A.25", "001500", "1.500"),
    ("A.25", "005080", "-5.000"),
    ("A.26", "5012", "1.250"),
    ("A.27", "78563412", 12345678),
    ("u2", "0102", 513),
    ("be2", "0102", 258),
    ("u4?", "FFFFFFFF", None),
    ("u2?", "EEEE", None),
    ("bs8", "81", [1, 8]),
    ("bs24@0", "010080", [0, 23]),
    ("bs8x31", "01" + "00" * 30, [1]),
    ("hex3", "0A0B0C", "0A0B0C"),
    ("ascii6", "636D6E657400", "cmnet"),
    ("gbk4", "CDA3B5E7", "停电"),
    ("ip", "B46151BE", "180.97.81.190"),
    ("digits4", "78563412", "12345678"),
    ("phone8", "138001380FFFFFFF"[:16], "138001380"),
    ("bcd1", "23", 23),
]


@pytest.mark.parametrize(("name", "wire", "value"), PUBLISHED)
def test_published_values_both_ways(name: str, wire: str, value: object) -> None:
    one, raw = form(name), bytes.fromhex(wire)
    assert one.size == len(raw)
    decoded = one.decode(raw)
    assert text_of(decoded) == value
    assert one.encode(decoded, -1) == (raw if value is not None else b"\xee" * len(raw))
    if name != "A.3" or "E" not in str(decoded):  # thousands are told beside the number, see plain.py
        assert one.encode(value, -1) == (raw if value is not None else b"\xee" * len(raw))


NUMBERS = (
    "A.2", "A.3", "A.4", "A.5", "A.6", "A.7", "A.8", "A.9", "A.10", "A.11", "A.13", "A.14", "A.22", "A.23", "A.25",
    "A.26", "A.27", "A.12",
)  # fmt: skip
TIMES = ("A.1", "A.15", "A.16", "A.17", "A.18", "A.19", "A.20", "A.21", "A.24")


@pytest.mark.parametrize("name", NUMBERS + TIMES)
@pytest.mark.parametrize("byte", [0xEE, 0xFF, 0xEF, 0xFE])
def test_fill_is_no_value(name: str, byte: int) -> None:
    one = form(name)
    assert one.decode(bytes((byte,)) * one.size) is None
    assert one.encode(None, -1) == b"\xee" * one.size


@pytest.mark.parametrize("name", NUMBERS + TIMES)
@given(data=st.data())
def test_any_bytes_give_a_value_that_is_written_as_it_was_read(name: str, data: st.DataObject) -> None:
    one = form(name)
    digit = st.integers(0, 9)
    byte = st.one_of(st.integers(0, 255), st.builds(lambda a, b: a << 4 | b, digit, digit))
    raw = bytes(data.draw(st.lists(byte, min_size=one.size, max_size=one.size)))
    value = one.decode(raw)
    again = one.encode(value, -1)
    assert len(again) == one.size and one.decode(again) == value
    if value is not None and name not in ("A.3", "A.4"):  # those have bits that mean nothing, and a minus before 0
        assert again == raw


def _fits(write: Callable[[], bytes]) -> bool:
    try:
        write()
    except UsageError:
        return False
    return True


@given(st.sampled_from(NUMBERS[:-1]), st.decimals(allow_nan=False, allow_infinity=False))
def test_numbers_are_exact_or_refused(name: str, number: Decimal) -> None:
    one = form(name)
    if _fits(lambda: one.encode(number, -1)):
        assert one.decode(one.encode(number, -1)) == number


OTHERS = ("u2", "bs8", "hex2", "ascii4", "gbk4", "ip", "dadt", "digits2", "phone2", "pairs2")
ANYTHING = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.integers(), max_size=3), st.booleans()
)


@given(st.sampled_from([*NUMBERS, *TIMES, *OTHERS]), ANYTHING)
def test_anything_is_written_whole_or_refused(name: str, value: object) -> None:
    one = form(name)
    try:
        wire = one.encode(value, -1)
    except UsageError as error:
        assert str(error)
    else:
        assert len(wire) == one.size


def test_what_does_not_fit() -> None:
    for name, value in (
        ("A.5", 800), ("A.5", "0.05"), ("A.7", -1), ("A.7", 1000), ("A.2", "1234"), ("A.2", "1E999999"),
        ("A.2", "9" * 5000), ("A.3", 10**10), ("A.3", 12345678), ("A.4", 80), ("A.8", "12.5"), ("A.14", "1E99999"),
        ("A.9", float("nan")), ("A.9", float("inf")), ("A.9", True), ("A.15", "1999-01-01 00:00"),
        ("A.15", "2026-02-30 00:00"), ("A.20", "yesterday"), ("A.19", "24:61"), ("A.17", "13-01 00:00"),
        ("A.12", "1234567890123"), ("ip", "1.2.3.256"), ("ip", "1.2.3"), ("bs8", [9]), ("bs8", "1"), ("u1", 256),
        ("u1", "x"), ("hex2", "1"), ("hex2", "112233"), ("ascii4", "12345"), ("ascii4", "停"), ("dadt", {"pn": [1]}),
        ("dadt", {"pn": [1, 9], "fn": [1]}), ("phone2", "12345"), ("pairs1", [4, 0, 0, 0]),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            form(name).encode(value, -1)


def test_a_clock_keeps_its_weekday_and_is_a_datetime() -> None:
    clock = form("A.1").decode(bytes.fromhex("512023071018"))
    assert isinstance(clock, DeviceTime) and clock == datetime(2018, 10, 7, 23, 20, 51)  # noqa: DTZ001
    assert clock.week == 0 and clock.isoweekday() == 7
    assert copy.deepcopy(clock).week == 0
    assert isinstance(clock + timedelta(days=1), datetime)
    plain = datetime(2018, 10, 7, 23, 20, 51)  # noqa: DTZ001
    assert form("A.1").encode(plain, -1) == bytes.fromhex("51202307F018")
    assert form("A.15").encode(date(2018, 10, 7), -1) == bytes.fromhex("0000071018")


def test_the_encoder_of_a2_takes_the_smallest_power_that_fits() -> None:
    one = form("A.2")
    assert one.encode(2000, -1) == bytes.fromhex("0062")
    assert one.encode("11.5", -1) == bytes.fromhex("15A1")
    assert one.encode(Decimal("0.015"), -1) == bytes.fromhex("15E0")
    assert one.encode(9990000, -1) == bytes.fromhex("9909")


def test_unknown_formats() -> None:
    for name in ("A.28", "A.0", "u9", "bs7", "hex", "hex0", "ascii", "digits<n>", "x"):
        with pytest.raises(ValueError, match="unknown format"):
            make_format(name)
    assert make_format("hex<length>")[1] == "length" and make_format("bs8x<n>")[1] == "n"
