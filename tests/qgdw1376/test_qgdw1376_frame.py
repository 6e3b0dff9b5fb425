"""The framer against anything: round trips, arbitrary bytes, bounds, good frames inside bad ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import fuzz
from fuhe.protocols.common.checksum import sum8
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.common.framer import NEED_MORE, Skipped
from fuhe.protocols.decode import decode
from fuhe.protocols.qgdw1376.dadt import ALL_POINTS, combined, da, dt, group, parse, single
from fuhe.protocols.qgdw1376.frame import LIMIT, OVERHEAD, Address, Frame, Framer, cut, wire_to_address

addresses = st.builds(
    Address,
    st.from_regex("[0-9A-F]{4}", fullmatch=True),
    st.integers(0, 0xFFFF),
    st.booleans(),
    st.integers(0, 127),
)
frames = st.builds(
    Frame, st.integers(0, 255), addresses, st.binary(max_size=700), st.sampled_from([1, 2]), st.integers(0, 9)
)


@given(frames)
def test_decode_of_encode(frame: Frame) -> None:
    found, skipped = cut(frame.encode())
    assert found == [frame] and not skipped


@given(st.lists(frames, max_size=4), st.lists(st.integers(1, 40), max_size=20))
def test_any_cutting_of_the_stream_gives_the_same_frames(sent: list[Frame], cuts: list[int]) -> None:
    wire = b"".join(f.encode() for f in sent)
    framer, found, at = Framer(), [], 0
    for size in [*cuts, len(wire)]:
        framer.feed(wire[at : at + size])
        at += size
        while (event := framer.next_event()) is not NEED_MORE:
            found.append(event)
    assert found == sent


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_arbitrary_bytes_end_and_stay_bounded(data: bytes) -> None:
    framer, total = Framer(255), 0
    framer.feed(data)
    while (event := framer.next_event()) is not NEED_MORE:
        assert isinstance(event, Frame | Skipped)
        total += event.count if isinstance(event, Skipped) else len(event.encode())
    assert total + len(framer) == len(data)
    assert len(framer) <= 16 + 255 + OVERHEAD
    framer.expire()
    while isinstance(event := framer.next_event(), Frame | Skipped):
        pass
    assert len(framer) == 0
    assert decode("qgdw1376", data)["valid"] in (True, False)


@given(st.binary(max_size=60), frames)
def test_a_good_frame_is_found_behind_anything(noise: bytes, frame: Frame) -> None:
    wire = frame.encode(0)
    found, _ = cut(noise + wire)
    assert wire in [f.encode(0) for f in found] or any(f.encode(0) in noise + wire for f in found)


GOOD = Frame(0x4B, Address("3301", 1, msa=1), bytes.fromhex("0C60 01010103"))


@pytest.mark.parametrize(
    ("at", "byte", "reason"),
    [
        (0, 0x67, "noise"),
        (1, 0x36, "length_mismatch"),
        (2, 0x01, "length_mismatch"),
        (5, 0x67, "second_start_byte"),
        (8, 0x02, "checksum"),
        (18, 0x00, "checksum"),
        (19, 0x17, "end_byte"),
    ],
)
def test_every_fault_has_its_reason(at: int, byte: int, reason: str) -> None:
    wire = bytearray(GOOD.encode())
    wire[at] = byte
    frames, skipped = cut(bytes(wire))
    assert not frames and skipped[0].reason == reason
    following, _ = cut(bytes(wire) + GOOD.encode())
    assert following == [GOOD]


def test_ids_and_lengths_that_may_not_be() -> None:
    wire = GOOD.encode()
    for word, reason in ((0x30, "protocol_id"), (0x33, "protocol_id"), (0x16, "length"), (0x02, "length")):
        wrong = bytes((0x68, word, 0, word, 0, 0x68)) + wire[6:]
        assert cut(wrong)[1][0].reason == reason
    long = Frame(0x88, GOOD.address, bytes(1000))
    assert cut(long.encode(), 255)[1][0].reason == "length"
    assert cut(long.encode())[0] == [long]


def test_what_no_frame_can_hold() -> None:
    assert cut(Frame(0x88, GOOD.address, bytes(LIMIT - 6)).encode())[0][0].length == LIMIT
    for wrong in (
        Frame(0x88, GOOD.address, bytes(LIMIT - 5)),
        Frame(0x100, GOOD.address, b""),
        Frame(0, GOOD.address, b"", 3),
        Frame(0, Address("330", 1), b""),
        Frame(0, Address("33G1", 1), b""),
        Frame(0, Address("3301", 65536), b""),
        Frame(0, Address("3301", 1, msa=128), b""),
    ):
        with pytest.raises(UsageError):
            wrong.encode()


def test_control_byte_and_address() -> None:
    assert (GOOD.up, GOOD.prm, GOOD.fcb, GOOD.fcv, GOOD.acd, GOOD.function) == (False, True, False, False, False, 11)
    up = Frame(0xE9, GOOD.address, b"")
    assert (up.up, up.prm, up.fcb, up.fcv, up.acd, up.function) == (True, True, False, False, True, 9)
    assert Frame(0x7A, GOOD.address, b"").fcb and Frame(0x7A, GOOD.address, b"").fcv
    assert not Frame(0xD9, GOOD.address, b"").fcv  # reserved uplink
    assert GOOD.address.wire == bytes.fromhex("01330100 02") and not GOOD.address.broadcast
    wildcard = wire_to_address(bytes.fromhex("FFFFFFFF01"))
    assert wildcard == Address("FFFF", 0xFFFF, True) and wildcard.broadcast


@given(st.binary(max_size=2000))
def test_the_sum_of_long_frames(data: bytes) -> None:
    assert sum8(data) == sum(data) & 0xFF


# --- identifiers ------------------------------------------------------------------------------------------------------
def test_published_identifiers() -> None:
    for text, points, classes in (
        ("00000100", (0,), (1,)), ("01010103", (1,), (25,)), ("01020400", (9,), (3,)), ("03010200", (1, 2), (2,)),
        ("0101090B", (1,), (89, 92)), ("02010110", (2,), (129,)), ("00004003", (0,), (31,)),
        ("FF000103", (ALL_POINTS,), (25,)), ("00000080", (0,), ()), ("80FF80FE", (2040,), (2040,)),
    ):  # fmt: skip
        wire = bytes.fromhex(text)
        assert parse(wire) == (points, classes)
        if classes:
            assert combined(points, classes) == wire
    for text in ("00010100", "01000100", "FE000100"):
        assert parse(bytes.fromhex(text)) is None


@given(st.integers(0, 2040), st.integers(1, 2048))
def test_every_point_and_class(pn: int, fn: int) -> None:
    assert parse(single(pn, fn)) == ((pn,), (fn,))


@given(st.sets(st.tuples(st.integers(0, 40), st.integers(1, 60)), max_size=60))
def test_grouping_names_exactly_what_is_wanted(wanted: set[tuple[int, int]]) -> None:
    groups = group(wanted)
    named = [(pn, fn) for points, classes in groups for pn in points for fn in classes]
    assert sorted(named) == sorted(wanted)
    assert all(parse(combined(points, classes)) == (points, classes) for points, classes in groups)


def test_what_no_identifier_can_name() -> None:
    for points in ((1, 9), (0, 1), (2041,), (-1,), ()):
        with pytest.raises(UsageError):
            da(points)
    for classes in ((8, 9), (0,), (2049,), ()):
        with pytest.raises(UsageError):
            dt(classes)


@pytest.mark.parametrize("name", ["qgdw1376", "qgdw1376-message"])
def test_fuzz_in_short(name: str) -> None:
    assert fuzz.fuzz(fuzz.targets()[name], 3000, seed=1)["frames"] > 100
