"""Framers: worked frames of the field, byte by byte, with trailing bytes and noise, and arbitrary bytes."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.protocols.common.framer import NEED_MORE, NeedMore, Skipped
from fuhe.protocols.modbus.crc import crc16, with_crc
from fuhe.protocols.modbus.frame import MAX_BUFFER, Direction, Frame, MbapFramer, ReplyFramer, RtuFramer, rtu_length
from fuhe.protocols.modbus.wire import read_wire

WORKED: list[tuple[str, Direction, int, int]] = [
    ("01 04 00 00 00 02 71 CB", "request", 1, 4),
    ("01 04 04 43 66 33 34 1B 38", "reply", 1, 4),
    ("01 83 02 C0 F1", "reply", 1, 3),
    ("FF 03 0B F3 00 02 23 C2", "request", 255, 3),
]


def drain(framer: RtuFramer | MbapFramer) -> list[Frame | Skipped]:
    events: list[Frame | Skipped] = []
    while not isinstance(event := framer.next_event(), NeedMore):
        events.append(event)
    return events


def slow_crc(data: bytes) -> int:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return crc


@given(st.binary(max_size=300))
def test_crc_equals_the_bitwise_one(data: bytes) -> None:
    assert crc16(data) == slow_crc(data)
    assert crc16(with_crc(data)) == 0


@pytest.mark.parametrize(("text", "direction", "unit", "function"), WORKED)
def test_worked_frames_whole_byte_by_byte_and_with_a_tail(
    text: str, direction: Direction, unit: int, function: int
) -> None:
    raw = bytes.fromhex(text)
    for told in (direction, None):
        whole = RtuFramer(told)
        whole.feed(raw + b"\x01\x03")
        frame = whole.next_event()
        assert isinstance(frame, Frame)
        assert (frame.unit, frame.function, frame.raw, frame.direction) == (unit, function, raw, direction)
        assert whole.next_event() is NEED_MORE
        assert whole.pending == 2
        slow = RtuFramer(told)
        seen = []
        for byte in raw:
            slow.feed(bytes((byte,)))
            seen.append(slow.next_event())
        assert all(e is NEED_MORE for e in seen[:-1])
        assert seen[-1] == frame


@pytest.mark.parametrize("text", [w[0] for w in WORKED])
def test_a_wrong_bit_is_never_a_frame(text: str) -> None:
    raw = bytearray.fromhex(text)
    raw[-1] ^= 1
    framer = RtuFramer()
    framer.feed(bytes(raw))
    framer.flush()
    assert drain(framer) == [Skipped(len(raw), "crc")]


def test_noise_before_a_frame_is_skipped_and_the_frame_found() -> None:
    raw = bytes.fromhex(WORKED[1][0])
    framer = RtuFramer("reply")
    framer.feed(b"\x01\x04\x04\x43" + raw)  # the beginning of the same reply, broken off
    events = drain(framer)
    framer.flush()  # 04 04 43 could still have been a long reply of unit 4
    events += drain(framer)
    assert events[0] == Skipped(1, "crc")
    assert isinstance(events[-1], Frame) and events[-1].raw == raw


def test_flush_looks_behind_a_head_that_will_not_be_completed() -> None:
    raw = bytes.fromhex(WORKED[2][0])
    framer = RtuFramer("reply")
    framer.feed(b"\x01\x04\xfa" + raw)  # claims 250 bytes of data
    assert framer.next_event() is NEED_MORE
    framer.flush()
    assert [type(e) for e in drain(framer)] == [Skipped, Frame]


def test_an_overheard_echo_alternates_request_and_reply() -> None:
    raw = with_crc(bytes.fromhex("0105 0005 FF00"))
    framer = RtuFramer()
    framer.feed(raw * 4)
    frames = drain(framer)
    assert [f.direction for f in frames if isinstance(f, Frame)] == ["request", "reply", "request", "reply"]


@pytest.mark.parametrize(
    ("body", "direction"),
    [
        ("01 0F 0013 000A 02 CD01", "request"), ("01 10 0001 0002 04 000A0102", "request"),
        ("01 10 0001 0002", "reply"), ("01 16 0004 00F2 0025", "request"), ("01 18 04DE", "request"),
        ("01 17 0003 0006 000E 0003 06 00FF00FF00FF", "request"), ("01 11", "request"), ("01 07 6D", "reply"),
        ("01 18 0006 0002 01B8 1284", "reply"), ("01 2B 0E01 00", "request"),
        ("01 2B 0E01 01 00 00 02 00 03 414243 01 01 44", "reply"), ("01 08 0000 A537", "request"),
    ],
)  # fmt: skip
def test_length_follows_from_function_and_direction(body: str, direction: Direction) -> None:
    raw = with_crc(bytes.fromhex(body))
    assert rtu_length(raw, direction) == len(raw)
    framer = RtuFramer(direction)
    framer.feed(raw)
    frame = framer.next_event()
    assert isinstance(frame, Frame) and frame.raw == raw


def test_mbap_whole_byte_by_byte_and_with_a_tail() -> None:
    raw = bytes.fromhex("0007 0000 0006 01 03 0010 0002")
    for step in (1, 3, len(raw)):
        framer = MbapFramer()
        events: list[Frame | Skipped | NeedMore] = []
        for start in range(0, len(raw), step):
            framer.feed(raw[start : start + step])
            events.append(framer.next_event())
        assert all(e is NEED_MORE for e in events[:-1])
        assert events[-1] == Frame(1, raw[7:], raw, 7)
    framer.feed(raw[:5])
    assert framer.next_event() is NEED_MORE
    assert framer.pending == 5


@pytest.mark.parametrize("broken", ["0007 0001 0006 01 03 0010 0002", "0007 0000 0001 01 03", "0007 0000 0FFF 01 03"])
def test_mbap_hunts_behind_a_broken_head(broken: str) -> None:
    good = bytes.fromhex("1234 0000 0003 01 83 02")
    framer = MbapFramer()
    framer.feed(bytes.fromhex(broken) + good)
    framer.flush()
    frames = [e for e in drain(framer) if isinstance(e, Frame)]
    assert frames[-1].raw == good and frames[-1].exception == 2 and frames[-1].direction == "reply"


rtu_requests = st.builds(
    lambda unit, function, a, b: with_crc(struct.pack(">BBHH", unit, function, a, b)),
    st.integers(1, 247), st.sampled_from([1, 2, 3, 4, 6]), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF),
)  # fmt: skip


@given(st.lists(rtu_requests, max_size=6), st.integers(1, 9))
def test_any_requests_in_any_pieces_come_out_as_they_went_in(frames: list[bytes], step: int) -> None:
    framer = RtuFramer("request")
    stream = b"".join(frames)
    found: list[bytes] = []
    for start in range(0, len(stream), step):
        framer.feed(stream[start : start + step])
        found += [e.raw for e in drain(framer) if isinstance(e, Frame)]
    assert found == frames


@given(st.lists(st.binary(max_size=90), max_size=5))
@settings(max_examples=150)
def test_arbitrary_bytes_end_and_are_all_accounted_for(chunks: list[bytes]) -> None:
    for framer in (RtuFramer(), RtuFramer("request"), RtuFramer("reply"), MbapFramer()):
        total = 0
        for chunk in chunks:
            framer.feed(chunk)
            total += sum(e.count if isinstance(e, Skipped) else len(e.raw) for e in drain(framer))
        framer.flush()
        total += sum(e.count if isinstance(e, Skipped) else len(e.raw) for e in drain(framer))
        assert total == sum(map(len, chunks)) and framer.pending == 0


def test_a_reader_that_never_reads_cannot_grow_the_buffer() -> None:
    framer = RtuFramer()
    for _ in range(40):
        framer.feed(bytes(4096))
    assert framer.pending == MAX_BUFFER
    assert framer.next_event() == Skipped(40 * 4096 - MAX_BUFFER, "overflow")


def test_the_awaited_reply_is_found_in_noise_echo_and_late_answers() -> None:
    rng = random.Random(3)
    for framing in ("rtu", "tcp"):
        wire = read_wire(framing, 5, 3, 100, 4)
        mine, late = b"\x00\x09", b"\x00\x08"
        body = bytes((5, 3, 8)) + rng.randbytes(8)
        head = struct.pack(">HH", 0, len(body))
        reply = with_crc(body) if framing == "rtu" else mine + head + body
        stale = b"" if framing == "rtu" else late + head + body
        for _ in range(50):
            framer = ReplyFramer()
            framer.expect(*wire.expected(mine))
            stream = rng.randbytes(rng.randrange(20)) + wire.request(late) + stale + reply[:3] + reply
            cut = rng.randrange(len(stream) - 1)
            framer.feed(stream[:cut])
            assert framer.next_event() is NEED_MORE
            framer.feed(stream[cut:])
            assert framer.next_event() == reply


def test_an_exception_behind_a_broken_reply_is_not_waited_past() -> None:
    wire = read_wire("rtu", 1, 3, 0, 60)
    framer = ReplyFramer()
    framer.expect(*wire.expected(b""))
    refused = with_crc(b"\x01\x83\x02")
    framer.feed(bytes((1, 3, 120, 7, 7)) + refused)
    assert framer.next_event() == refused


@given(st.lists(st.binary(max_size=400), max_size=20))
@settings(max_examples=50)
def test_the_reply_framer_is_bounded(chunks: list[bytes]) -> None:
    framer = ReplyFramer()
    framer.expect(*read_wire("rtu", 1, 3, 0, 2).expected(b""))
    for chunk in chunks:
        framer.feed(chunk)
        framer.next_event()
        assert framer.pending <= 2048
