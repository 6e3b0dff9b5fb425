"""Curves as arrays: the same numbers as the slow reference, one frame or many, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.model.quantities import by_name
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.common.times import NO_TIME
from fuhe.protocols.qgdw1376 import curve_formats, dadt
from fuhe.protocols.qgdw1376.curve_formats import FORMATS, curve_format, encode_values
from fuhe.protocols.qgdw1376.curves import (
    Curve,
    CurveArrays,
    area,
    curve_classes,
    encode_curve,
    gather,
    read_curves,
    walk,
)
from fuhe.protocols.qgdw1376.formats import make_format
from fuhe.protocols.qgdw1376.frame import Address, Frame, cut
from fuhe.protocols.qgdw1376.message import parse

START = datetime(2026, 3, 1, 0, 15)  # noqa: DTZ001 - a terminal's own clock
ALL = tuple(sorted(curve_classes()))


def frame(data: bytes, *, tp: bool = False, acd: bool = False) -> Frame:
    aux = (b"\x05\x06" if acd else b"") + (bytes.fromhex("010203040500") if tp else b"")
    return Frame(0xA8 if acd else 0x88, Address("3301", 7), bytes((0x0D, 0xE0 if tp else 0x60)) + data + aux)


def slow(name: str, wire: bytes) -> list[float]:
    """The numbers one by one through formats.py."""
    form = make_format(name)[0]
    found = [form.decode(wire[i : i + form.size]) for i in range(0, len(wire), form.size)]
    assert all(v is None or isinstance(v, (int, Decimal)) for v in found)
    return [math.nan if v is None else float(v) for v in found]  # type: ignore[arg-type]


# --- formats --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@settings(max_examples=60)
def test_decodes_as_the_slow_reference_does(name: str, data: st.DataObject) -> None:
    form = curve_format(name)
    nibbles = st.one_of(st.integers(0, 9), st.integers(0, 9), st.integers(0, 15))
    byte = st.builds(lambda high, low: high << 4 | low, nibbles, nibbles)
    wire = bytes(data.draw(st.lists(byte, min_size=form.width, max_size=40 * form.width)))
    wire = wire[: len(wire) // form.width * form.width]
    lead = data.draw(st.integers(0, 3))
    found = form.decode(bytes(lead) + wire, len(wire) // form.width, lead)
    assert np.array_equal(found, np.array(slow(name, wire)), equal_nan=True)


@pytest.mark.parametrize("name", ["A.2", "A.5", "A.7", "u1?"])
def test_every_word_of_the_short_formats(name: str) -> None:
    width = curve_format(name).width
    wire = b"".join(code.to_bytes(width, "little") for code in range(1 << 8 * width))
    assert np.array_equal(curve_format(name).decode(wire, 1 << 8 * width), np.array(slow(name, wire)), equal_nan=True)


def test_examples_of_the_field() -> None:
    examples: dict[str, list[tuple[str, float]]] = {
        "A.2": [("3590", -35), ("9989", 999), ("15A1", 11.5), ("0062", 2000), ("1067", 7100), ("0068", 8000)],
        "A.3": [("40907008", 8709040), ("50000010", -50), ("00020040", 200_000)],
        "A.5": [("5092", -125.0), ("9909", 99.9)],
        "A.7": [("9021", 219.0)],
        "A.9": [("471101", 1.1147), ("005082", -2.5)],
        "A.11": [("78563412", 123456.78)],
        "A.13": [("78563412", 1234.5678)],
        "A.25": [("001500", 1.5), ("005080", -5.0)],
    }
    for name, pairs in examples.items():
        wire = bytes.fromhex("".join(text for text, _ in pairs))
        assert curve_format(name).decode(wire, len(pairs)).tolist() == [value for _, value in pairs], name
        for fill in (0xEE, 0xFF, 0xEF, 0xFE):
            assert math.isnan(curve_format(name).decode(bytes((fill,)) * 4, 1)[0])


def test_many_values_are_decoded_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(1000) / 10000 - 0.05
    wire = encode_values("A.9", values)
    monkeypatch.setattr(curve_formats, "BLOCK", 96)
    assert curve_format("A.9").decode(wire, 1000).tolist() == [round(v, 4) for v in values.tolist()]


# value ranges and digits of the encoders
LIMITS = {
    "A.5": (-799.9, 799.9, 1), "A.7": (0, 999.9, 1), "A.9": (-79.9999, 79.9999, 4), "A.11": (0, 999999.99, 2),
    "A.13": (0, 9999.9999, 4), "A.25": (-799.999, 799.999, 3), "A.3": (-9999999, 9999999, 0), "u1?": (0, 237, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
@given(data=st.data())
@settings(max_examples=60)
def test_what_is_encoded_is_decoded(name: str, data: st.DataObject) -> None:
    low, high, digits = LIMITS[name]
    number = st.floats(low, high).map(lambda v: round(v, digits))
    values = np.array(data.draw(st.lists(number | st.just(math.nan), max_size=50)), np.float64)
    wire = encode_values(name, values)
    found = curve_format(name).decode(wire, len(values))
    assert np.array_equal(found, values, equal_nan=True)
    size = curve_format(name).width
    for i, value in enumerate(values.tolist()):  # and byte by byte as formats.py writes it
        one = wire[i * size : i * size + size]
        exact = None if math.isnan(value) else Decimal(str(value)) + 0
        assert one == make_format(name)[0].encode(exact, -1), value


@given(st.lists(st.floats(-9.99e6, 9.99e6), max_size=50))
def test_a2_keeps_three_digits(values: list[float]) -> None:
    found = curve_format("A.2").decode(encode_values("A.2", np.array(values, np.float64)), len(values))
    for want, got in zip(values, found.tolist(), strict=True):
        assert abs(got - want) <= max(0.0005, abs(want) * 0.005 + 1e-12), (want, got)


def test_a3_goes_over_to_thousands() -> None:
    wire = encode_values("A.3", np.array([9999999.0, 12345678.0, -12345678.0, 0.0, -0.2]))
    assert curve_format("A.3").decode(wire, 5).tolist() == [9999999, 12346000, -12346000, 0, 0]


@pytest.mark.parametrize("name", FORMATS)
def test_what_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"format {name}".replace("?", r"\?")):
        encode_values(name, np.array([1.0, 1e11]))
    with pytest.raises(UsageError, match="too many digits"):
        encode_values(name, np.array([math.inf]))


# --- classes ----------------------------------------------------------------------------------------------------------
def test_the_classes_are_those_of_the_field() -> None:
    assert set(ALL) == {
        *range(73, 77), *range(81, 96), *range(97, 111), 138, *range(145, 149), 217, 218,
    }  # fmt: skip
    sizes = {fn: one.width for fn, one in curve_classes().items()}
    assert (sizes[73], sizes[75], sizes[81], sizes[89], sizes[92]) == (2, 4, 3, 2, 3)
    assert (sizes[97], sizes[101], sizes[105], sizes[109], sizes[138], sizes[148], sizes[217]) == (4, 4, 2, 6, 2, 4, 1)
    assert all(c.quantity in by_name() for one in curve_classes().values() for c in one.columns)
    assert curve_classes()[148].columns[0].quantity == "reactive_q3_total"


# --- frames ---------------------------------------------------------------------------------------------------------
def numbers(fn: int, seed: int, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Values that suit the class's format, with holes."""
    one = curve_classes()[fn]
    random = np.random.default_rng(seed)
    top = {"A.2": 999, "A.3": 9999999, "A.9": 79, "A.25": 799, "u1?": 200}.get(one.format, 500)
    values = np.rint(random.uniform(0, top, (n, len(one.columns))))
    values[random.random(values.shape) < 0.1] = np.nan
    return values if len(one.columns) > 1 else values[:, 0]


@st.composite
def areas(draw: st.DrawFn) -> bytes:
    """Data areas of whole curves: identifiers of one or several points and classes."""
    out = b""
    for _ in range(draw(st.integers(1, 3))):
        group = draw(st.integers(0, 30))
        points = sorted(draw(st.sets(st.integers(group * 8 + 1, group * 8 + 8), min_size=1, max_size=2)))
        first = draw(st.sampled_from(ALL))
        near = [fn for fn in ALL if (fn - 1) // 8 == (first - 1) // 8]
        classes = sorted({first, draw(st.sampled_from(near))})
        out += dadt.combined(points, classes)
        for _pn in points:
            for fn in classes:
                n = draw(st.integers(0, 8))
                at = START + timedelta(minutes=15 * draw(st.integers(0, 3)))
                out += encode_curve(fn, at, draw(st.sampled_from([1, 2, 3, 254, 255])), numbers(fn, n, n))
    return out


def flat(found: Sequence[CurveArrays]) -> list[tuple[int, int, int, int, int, int, tuple[str, ...]]]:
    rows = []
    for block in found:
        for i in range(len(block.frame)):
            values = tuple(repr(v) for v in block.value[i].tolist())
            key = (block.frame[i], block.pn[i], block.fn[i], block.column[i], block.start_us[i])
            rows.append((*(int(k) for k in key), block.step_s, values))
    return sorted(rows)  # type: ignore[arg-type]


def one_by_one(found: Sequence[list[Curve] | None]) -> list[tuple[int, int, int, int, int, int, tuple[str, ...]]]:
    rows = []
    for i, curves in enumerate(found):
        for c in curves or ():
            start = NO_TIME if c.start is None else round((c.start - datetime(1970, 1, 1)).total_seconds() * 1e6)  # noqa: DTZ001
            table = c.values.reshape(len(c.values), -1) if len(c.values) else np.empty((0, 0))
            for column in range(table.shape[1]):
                values = tuple(repr(v) for v in table[:, column].tolist())
                rows.append((i, c.pn, c.fn, column, start, c.step_s, values))
    return sorted(rows)


@given(st.lists(areas(), max_size=6), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_many_frames_give_what_single_frames_give(data: list[bytes], repeat: int) -> None:
    data = data * repeat
    single = [read_curves(frame(d)) for d in data]
    assert None not in single
    found, rest = gather(data)
    assert rest == []
    assert flat(found) == one_by_one(single)


@given(areas(), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_frames_give_what_the_general_reader_gives(data: bytes, tp: bool, acd: bool) -> None:
    sent = frame(data, tp=tp, acd=acd)
    assert area(sent) == data
    curves = read_curves(sent)
    message = parse(sent)
    assert curves is not None and len(curves) == len(message.units)
    for curve, unit in zip(curves, message.units, strict=True):
        assert unit.data is not None and not unit.fault
        points = unit.data["points"]
        assert isinstance(points, list)
        assert (curve.pn, curve.fn, curve.start) == (unit.pn, unit.fn, unit.data["td_c"])
        want = [list(p.values()) if isinstance(p, dict) else p for p in points]
        expected = np.array(want, np.float64).reshape(curve.values.shape)
        assert np.array_equal(curve.values, expected, equal_nan=True)


def test_same_class_of_many_terminals_is_one_block() -> None:
    data = [dadt.single(1 + i % 300, 81) + encode_curve(81, START, 1, numbers(81, i, 96)) for i in range(500)]
    data += [dadt.single(1, 89) + encode_curve(89, START, 1, numbers(89, i, 96)) for i in range(20)]
    data += [dadt.single(9, 85) + encode_curve(85, START, 1, numbers(85, i, 96)) for i in range(20)]
    found, rest = gather(data)
    assert rest == [] and len(found) == 1
    block = found[0]
    assert set(block.fn.tolist()) == {81, 85, 89} and block.value.shape == (540, 96)
    for i in (0, 7, 299, 300, 519, 539):
        at = int(block.frame[i])
        fn, seed = (81, at) if at < 500 else (89, at - 500) if at < 520 else (85, at - 520)
        assert block.fn[i] == fn and block.pn[i] == (1 + at % 300 if at < 500 else 1 if at < 520 else 9)
        assert np.array_equal(block.value[i], numbers(fn, seed, 96), equal_nan=True)


def test_a_frame_of_every_own_form_is_still_read() -> None:
    """More forms of one length than are looked for side by side."""
    data = []
    for i in range(200):
        first, second = ALL[i % 30], ALL[i // 30]
        unit = dadt.single(1, first) + encode_curve(first, START, 1, numbers(first, 1, 2))
        unit += dadt.single(2, second) + encode_curve(second, START, 1, numbers(second, 2, 1))
        data.append(unit)
    found, rest = gather(data)
    assert rest == [] and flat(found) == one_by_one([read_curves(frame(d)) for d in data])


@pytest.mark.parametrize(
    "tail",
    [
        dadt.single(1, 161) + bytes.fromhex("250226") + bytes(5) + b"\0" + bytes(5),  # a freeze
        dadt.single(1, 96) + bytes.fromhex("0000010126") + b"\1\1\0\0",  # a class that is no curve of the tables
        dadt.single(1, 81) + bytes.fromhex("0000010126") + b"\1\2" + bytes(5),  # one byte is missing
        dadt.single(1, 81) + bytes.fromhex("0000010126") + b"\7\1" + bytes(3),  # a density that does not exist
        dadt.single(1, 81)[:3],
        b"\0\1\1\x0a",  # no point
        b"\1\1\0\x0a",  # no class
    ],
)
def test_frames_with_anything_else_are_left_to_the_general_reader(tail: bytes) -> None:
    good = dadt.single(1, 81) + encode_curve(81, START, 1, numbers(81, 1, 4))
    for data in (tail, good + tail):
        assert read_curves(frame(data)) is None and walk(data) is None
        found, rest = gather([good, data, good])
        assert rest == [1] and [b.frame.tolist() for b in found] == [[0, 2]]


def test_other_frames_have_no_area() -> None:
    assert area(Frame(0x4B, Address("3301", 1), b"\x0d\x60")) is None
    assert area(Frame(0x88, Address("3301", 1), b"\x0c\x60")) is None
    assert area(Frame(0x88, Address("3301", 1), b"\x0d")) is None
    assert gather([]) == ([], [])


def test_a_start_that_is_no_time() -> None:
    data = dadt.single(1, 89) + b"\xee" * 5 + b"\1\1\x90\x21"
    curves = read_curves(frame(data))
    assert curves is not None and curves[0].start is None and curves[0].values.tolist() == [219.0]
    found, _ = gather([data])
    assert found[0].start_us.tolist() == [NO_TIME]


def test_the_published_frame_but_for_its_vendor_class() -> None:
    wire = (
        "68 52 00 52 00 68 CB 00 10 01 00 00 0D 6E 02 01 01 0B 45 12 16 04 15 01 01 00 22 00 16"  # F89 of rgm-0d-multi
    )
    body = bytes.fromhex(wire)[6:-2]
    sent = Frame(body[0], Address("1000", 1), body[6:])
    again, _ = cut(sent.encode())
    curves = read_curves(again[0])
    assert curves is not None
    one = curves[0]
    assert (one.pn, one.fn, one.step_s, one.values.tolist()) == (2, 89, 900, [220.0])
    assert one.start == datetime(2015, 4, 16, 12, 45)  # noqa: DTZ001


def test_wrong_curves_are_not_encoded() -> None:
    with pytest.raises(UsageError, match="no class of curves"):
        encode_curve(96, START, 1, np.zeros(1))
    with pytest.raises(UsageError, match="density 4"):
        encode_curve(81, START, 4, np.zeros(1))
    with pytest.raises(UsageError, match="at most 255"):
        encode_curve(81, START, 1, np.zeros(256))
    with pytest.raises(UsageError, match="3 numbers"):
        encode_curve(109, START, 1, np.zeros(4))


@given(st.binary(max_size=60))
def test_any_bytes_end_in_curves_or_none(data: bytes) -> None:
    found = read_curves(frame(data))
    assert (found is None) == (walk(data) is None)
