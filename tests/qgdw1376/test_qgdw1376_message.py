"""The application layer: both directions, additional information, unknown classes, runs of frames."""

from __future__ import annotations

from datetime import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.protocols.common.errors import FuheError, PeerError, UsageError
from fuhe.protocols.qgdw1376.auth import Cleartext, HmacTest, cleartext
from fuhe.protocols.qgdw1376.dadt import ALL_POINTS
from fuhe.protocols.qgdw1376.edition import edition, of_profile
from fuhe.protocols.qgdw1376.frame import Address, Frame, cut
from fuhe.protocols.qgdw1376.message import Message, Tp, build, confirm, confirm_each, parse, reply, request
from fuhe.protocols.qgdw1376.segments import Assembler, split
from fuhe.protocols.qgdw1376.units import Unit, join

CLOCK = datetime(2016, 3, 30, 0, 21, 51)  # noqa: DTZ001 - a device's own clock
HERE = Address("0200", 4660, msa=2)


def _user(afn: int, seq: int, area: str, aux: str = "", control: int = 0x88, protocol_id: int = 2) -> Frame:
    return Frame(control, HERE, bytes((afn, seq)) + bytes.fromhex(area) + bytes.fromhex(aux), protocol_id)


def test_login_and_its_confirmation() -> None:
    frames, _ = cut(bytes.fromhex("68320032006 8C9000234120002710000010085 16".replace(" ", "")))
    login = parse(frames[0])
    assert (login.up, login.prm, login.function, login.afn, login.seq, login.con) == (True, True, 9, 2, 1, True)
    assert login.units == (Unit(0, 1, {}),)
    wire = build(confirm(login)).encode()
    assert wire == bytes.fromhex("68320032006 80B0002341200006100000100B516".replace(" ", ""))
    answer = parse(cut(wire)[0][0])
    assert answer.confirmed is True and not answer.up


def test_confirmation_item_by_item() -> None:
    login = parse(_user(2, 0x71, "00000100", control=0xC9))
    each = confirm_each(login)
    frame = build(each)
    assert frame.user == bytes.fromhex("0061 00000400 02 00000100 00")
    assert parse(frame).confirmed is True
    assert parse(build(confirm_each(login, [1]))).confirmed is False
    assert parse(build(confirm(login, ok=False))).confirmed is False


def test_heartbeat_with_and_without_clock() -> None:
    bare = parse(_user(2, 0x71, "00000400", control=0xC9))
    clock = parse(_user(2, 0x71, "00000400 512100306316", control=0xC9))
    assert bare.units[0].data == {}
    assert clock.units[0].data == {"terminal_clock": CLOCK}
    for message in (bare, clock):
        assert parse(build(message)) == message


def test_aux_is_cut_from_the_end() -> None:
    up = parse(_user(0, 0xE1, "00000100", "0700 015613170405", control=0xA0))
    assert up.ec == (7, 0) and up.tp == Tp(1, 4, 17, 13, 56, 5) and up.tp.sent == "04 17:13:56"
    down = parse(_user(1, 0xF0, "00000100", "00" * 16 + "002853130705", control=0x41))
    assert down.pw == bytes(16) and down.tp == Tp(0, 7, 13, 53, 28, 5)
    for message in (up, down):
        assert parse(build(message)) == message


@pytest.mark.parametrize(("control", "seq", "content"), [(0xA0, 0x61, "00"), (0x88, 0xE1, "0000"), (0xA0, 0xE1, "")])
def test_no_room_for_aux(control: int, seq: int, content: str) -> None:
    with pytest.raises(PeerError):
        parse(Frame(control, HERE, bytes((0, seq)) + bytes.fromhex(content)))
    with pytest.raises(PeerError):
        parse(Frame(control, HERE, b"\0"))


@pytest.mark.parametrize("size", [0, 2, 16])
@pytest.mark.parametrize("protocol_id", [1, 2])
def test_the_length_of_pw_is_found(size: int, protocol_id: int) -> None:
    message = parse(_user(1, 0x60, "00000100", "55" * size, control=0x41, protocol_id=protocol_id))
    assert message.pw == b"\x55" * size and message.units == (Unit(0, 1, {}),)
    assert parse(build(message)) == message


def test_a_told_length_of_pw_is_kept_except_on_the_relay() -> None:
    peer = of_profile({"pw_len": 16})
    assert not peer.pw_guess
    with pytest.raises(PeerError):
        parse(_user(1, 0x60, "00000100", "5555", control=0x41), peer)
    relay = "00000100 1F6BBC0A0200 6816"
    bare = parse(_user(0x10, 0x60, relay, control=0x4B), peer)
    assert bare.pw == b"" and bare.units[0].fault == ""
    assert parse(_user(0x10, 0x60, relay, "00" * 16, control=0x4B), peer).pw == bytes(16)


def test_authentication_makes_and_checks_pw() -> None:
    ask = request(HERE, 1, [Unit(0, 1, {})], edition("2013"), seq=3)
    assert parse(build(ask)).pw == bytes(16)
    assert parse(build(ask, edition("2005"))).pw == bytes(2)
    assert parse(build(ask, auth=cleartext("6789"))).pw == bytes.fromhex("6789").ljust(16, b"\0")
    auth = HmacTest(b"key")
    frame = build(ask, auth=auth)
    pw = parse(frame).pw
    before = bytes((frame.control,)) + frame.address.wire + frame.user[:-16]
    assert pw is not None and auth.verify(before, pw) and not auth.verify(before[:-1] + b"\1", pw)
    assert Cleartext(b"ab").verify(b"", b"ab") and not Cleartext(b"ab").verify(b"", b"ac")
    with pytest.raises(UsageError):
        cleartext("00" * 17)
    assert build(request(HERE, 9, [Unit(0, 1, {})])).user == bytes.fromhex("0960 00000100")


def test_shared_identifiers_both_ways() -> None:
    message = parse(_user(9, 0x60, "00000F00", control=0x4B))
    assert [u.fn for u in message.units] == [1, 2, 3, 4]
    assert [u.joined for u in message.units] == [False, True, True, True]
    assert build(message).user == bytes.fromhex("0960 00000F00")
    everyone = parse(_user(0x0C, 0x60, "FF000103", control=0x4B))
    assert everyone.units[0].pn == ALL_POINTS and parse(build(everyone)) == everyone
    wrong = msgspec.structs.replace(message, units=(*message.units, Unit(0, 9, {}, joined=True)))
    with pytest.raises(UsageError):
        build(wrong)


def test_joining_requests() -> None:
    wanted = [Unit(p, f, {}) for f in (25, 26, 33) for p in (1, 2, 9, 0)]
    units = join(wanted)
    assert sorted((u.pn, u.fn) for u in units) == sorted((u.pn, u.fn) for u in wanted)
    frame = build(request(HERE, 0x0C, units))
    assert len(frame.user) == 2 + 4 * 6  # p1+p2, p9, p0 with F25+F26 and with F33
    again = parse(frame)
    assert [(u.pn, u.fn) for u in again.units] == [(u.pn, u.fn) for u in units]
    with pytest.raises(UsageError):
        join([*wanted, wanted[0]])


UNKNOWN = "0000 80FE"  # F2040


def test_an_unknown_class_keeps_its_bytes() -> None:
    alone = parse(_user(9, 0x60, UNKNOWN + "010203"))
    assert alone.units == (Unit(0, 2040, None, b"\1\2\3", "unknown_fn"),)
    asked = parse(_user(9, 0x60, UNKNOWN, control=0x4B))
    assert asked.units == (Unit(0, 2040, {}, b"", "unknown_fn"),)
    f8 = "0000 8000" + "01" * 8
    between = parse(_user(9, 0x60, f8 + UNKNOWN + "010203" + f8 + UNKNOWN + "040506" + f8))
    assert [u.fn for u in between.units] == [8, 2040, 8, 2040, 8]
    assert [u.raw for u in between.units if u.fault] == [b"\1\2\3", b"\4\5\6"]
    broken = parse(_user(9, 0x60, f8 + UNKNOWN + "010203" + f8 + "EE"))
    assert [u.fault for u in broken.units] == ["", "unknown_fn"] and len(broken.units[1].raw) == 16
    for message in (alone, asked, between, broken):
        assert parse(build(message)) == message


def test_a_unit_that_ends_early_keeps_its_bytes() -> None:
    short = parse(_user(9, 0x60, "0000 8000" + "01" * 8 + "0000 8000" + "01" * 7))
    assert [u.fault for u in short.units] == ["", "short"] and short.units[1].raw == b"\1" * 7
    assert parse(build(short)) == short
    tail = parse(_user(9, 0x60, "0000 8000" + "01" * 8 + "EEEE"))
    assert tail.rest == b"\xee\xee" and parse(build(tail)) == tail


def test_what_cannot_be_sent() -> None:
    good = request(HERE, 9, [Unit(0, 1, {})])
    replace = msgspec.structs.replace
    for wrong in (
        replace(good, seq=16),
        replace(good, function=16),
        replace(good, units=(Unit(2041, 1, {}),)),
        replace(good, units=(Unit(0, 1, {"nothing": 1}),)),
        replace(good, units=(Unit(0, 2040, {"nothing": 1}),)),
        replace(good, address=Address("12", 1)),
        replace(good, tp=Tp(256, 1, 1, 1, 1)),
        replace(good, up=True, acd=True),
    ):
        with pytest.raises(UsageError):
            build(wrong).encode()


# --- runs of frames -------------------------------------------------------------------------------------------------
def _long_answer(count: int = 40) -> Message:
    ask = request(HERE, 9, [Unit(0, 8, {})], seq=14, tp=Tp.at(14, CLOCK, 5))
    return reply(ask, [Unit(0, 8, {"erc": [i + 1]}) for i in range(count)], ec=(1, 2))


@given(st.integers(28, 300), st.integers(0, 40))
def test_split_and_put_together(limit: int, count: int) -> None:
    whole = _long_answer(count)
    parts = split(whole, limit)
    assert all(build(p).length <= limit for p in parts)
    assert [p.fir for p in parts] == [True] + [False] * (len(parts) - 1)
    assert [p.seq for p in parts] == [(14 + i) % 16 for i in range(len(parts))]
    assembler = Assembler()
    results = [assembler.feed(parse(build(p)), 100) for p in parts]
    assert results[:-1] == [None] * (len(parts) - 1) and len(assembler) == 0
    assert results[-1] == msgspec.structs.replace(whole, pw=b"")


def test_split_keeps_shared_identifiers_where_they_fit() -> None:
    ask = request(HERE, 9, join([Unit(0, f, {}) for f in range(1, 9)]), pw=b"")
    assert [len(p.units) for p in split(ask, 12)] == [8]
    answer = reply(ask, [Unit(p, 2040, None, bytes(6), joined=p > 1) for p in range(1, 9)])
    assert [[u.joined for u in p.units] for p in split(answer, 40)] == [[False] * 3, [False] * 3, [False] * 2]
    with pytest.raises(UsageError, match="needs 10 bytes"):
        split(answer, 16)


def test_faults_of_a_run_are_told_and_end_it() -> None:
    parts = split(_long_answer(), 60)
    assert len(parts) > 4
    assembler = Assembler()
    with pytest.raises(PeerError, match="without its first"):
        assembler.feed(parts[-1])
    assembler.feed(parts[0])
    assembler.feed(parts[1])
    assert assembler.feed(parts[1]) is None  # repeated
    with pytest.raises(PeerError, match="came behind"):
        assembler.feed(parts[3])
    assert len(assembler) == 0
    assembler.feed(parts[0])
    with pytest.raises(PeerError, match="AFN 0C inside"):
        assembler.feed(msgspec.structs.replace(parts[1], afn=0x0C))
    bounded = Assembler(max_frames=3)
    for part in parts[:3]:
        bounded.feed(part)
    with pytest.raises(PeerError, match="more than 3 frames"):
        bounded.feed(parts[3])
    bounded = Assembler(max_bytes=150)
    bounded.feed(parts[0], 100)
    with pytest.raises(PeerError, match="150 bytes"):
        bounded.feed(parts[1], 100)
    loose = msgspec.structs.replace(parts[0], fir=False, fin=False)
    assert Assembler().feed(loose) == loose  # FIR = FIN = 0 outside a run


# --- anything -------------------------------------------------------------------------------------------------------
@given(st.integers(0, 255), st.binary(max_size=120), st.sampled_from([1, 2]), st.sampled_from([None, "2005", "2009"]))
def test_arbitrary_user_data(control: int, user: bytes, protocol_id: int, name: str | None) -> None:
    peer = edition(name)
    try:
        message = parse(Frame(control, HERE, user, protocol_id), peer)
    except PeerError:
        return
    again = parse(build(message, peer), peer)
    assert [(u.pn, u.fn, u.data, u.raw) for u in again.units] == [(u.pn, u.fn, u.data, u.raw) for u in message.units]


@given(st.integers(0, 16), st.binary(min_size=4, max_size=300))
def test_arbitrary_data_units(afn: int, area: bytes) -> None:
    for control in (0x4B, 0x88):
        message = parse(Frame(control, HERE, bytes((afn, 0x60)) + area))
        try:
            build(message)
        except FuheError as error:
            raise AssertionError(f"{message}: {error}") from error
