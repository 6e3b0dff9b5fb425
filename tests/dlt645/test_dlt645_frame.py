"""The framer against anything: round trips, arbitrary bytes, bounds, good frames inside bad ones, numpy equals slow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.fuzz import dlt645 as fuzz_dlt645
from fuhe.protocols.common.checksum import crc16_modbus, sum8
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.common.framer import NEED_MORE, Skipped
from fuhe.protocols.decode import decode
from fuhe.protocols.dlt645.frame import Frame, Framer, address_to_wire, cut, make_frame, matches, wire_to_address
from fuhe.protocols.dlt645.scan import scan

frames = st.builds(
    Frame,
    st.binary(min_size=6, max_size=6),
    st.integers(0, 255),
    st.binary(max_size=200),
    st.integers(0, 9),
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
    framer, total, got = Framer(), 0, []
    framer.feed(data)
    while (event := framer.next_event()) is not NEED_MORE:
        assert isinstance(event, Frame | Skipped)
        total += event.count if isinstance(event, Skipped) else len(event.encode())
        got.append(event)
    assert total + len(framer) == len(data)
    assert len(framer) <= 16 + 212
    framer.expire()
    while isinstance(event := framer.next_event(), Frame | Skipped):
        pass
    assert len(framer) == 0
    assert decode("dlt645", data)["valid"] in (True, False)


@given(st.binary(max_size=60), frames, st.binary(max_size=60))
def test_numpy_scan_equals_the_framer(before: bytes, frame: Frame, after: bytes) -> None:
    buffer = before + frame.encode() + frame.encode() + after
    slow = cut(buffer)[0]
    fast = scan(buffer)
    assert [int(c) for c in fast.control] == [f.control for f in slow]
    assert [int(n) for n in fast.length] == [len(f.data) for f in slow]
    assert [bytes(fast.unmasked[s + 10 : s + 10 + len(f.data)]) for s, f in zip(fast.start, slow, strict=True)] == [
        f.data for f in slow
    ]


def test_fuzzed_inputs_short_form() -> None:
    counts = fuzz_dlt645(6_000)
    assert counts["inputs"] == 6_000 and counts["frames"] > 100


def test_the_wanted_reply_behind_a_false_start() -> None:
    good = make_frame("123456789012", 0x91, bytes(8))
    false_start = bytes.fromhex("68000000000000689160")  # announces 96 bytes that never come
    framer = Framer()
    framer.feed(false_start + good.encode())
    assert framer.next_event() is NEED_MORE
    framer.expire()
    events = []
    while (event := framer.next_event()) is not NEED_MORE:
        events.append(event)
    assert good in events


def test_the_length_limit_is_a_setting() -> None:
    long = Frame(bytes(6), 0x91, bytes(230))
    assert not cut(long.encode())[0]
    assert cut(long.encode(), 255)[0] == [long]
    assert decode("dlt645", long.encode())["reason"] == "length"
    assert decode("dlt645", long.encode(), "2007-vendor")["valid"] is True


def test_endless_lead_bytes_do_not_grow_the_buffer() -> None:
    framer = Framer()
    for _ in range(50):
        framer.feed(b"\xfe" * 100)
        while framer.next_event() is not NEED_MORE:
            pass
        assert len(framer) <= 16


def test_undrained_input_is_given_up_oldest_first() -> None:
    framer = Framer()
    for _ in range(3):
        framer.feed(b"\x00" * (1 << 20))
    event = framer.next_event()
    assert isinstance(event, Skipped) and event.reason == "overflow"


@pytest.mark.parametrize("address", ["1234567890123", "12A4", "3412AAAAAAAA", "1A", "-1", "AAAAAAAAAAA1"])
def test_illegal_addresses(address: str) -> None:
    with pytest.raises(UsageError):
        address_to_wire(address)


def test_addresses_and_wildcards() -> None:
    assert address_to_wire("123456789012") == bytes.fromhex("129078563412")
    assert wire_to_address(address_to_wire("42")) == "000000000042"
    pattern = address_to_wire("AAAAAAAA9012")
    assert matches(pattern, address_to_wire("123456789012"))
    assert not matches(pattern, address_to_wire("123456789013"))
    assert not matches(address_to_wire("123456789012"), address_to_wire("123456789013"))


def test_frames_that_cannot_be_made() -> None:
    with pytest.raises(UsageError):
        make_frame("1", 0x11, bytes(201))
    with pytest.raises(UsageError):
        make_frame("1", 0x111)
    with pytest.raises(UsageError):
        Frame(b"", 0x11).encode()


@given(st.binary(max_size=300))
def test_checksums(data: bytes) -> None:
    assert sum8(data) == sum(data) % 256


def test_crc_of_a_worked_frame() -> None:
    assert crc16_modbus(bytes.fromhex("010400000002")).to_bytes(2, "little") == bytes.fromhex("71CB")
