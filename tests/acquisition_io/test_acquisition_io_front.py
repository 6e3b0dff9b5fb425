"""What a terminal's frames are and how its stream is cut. Pure."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.acquisition.dialin import CALL_LIMIT, Identity, Rejected, TerminalCall
from fuhe.acquisition.terminal import Events, TerminalAddress, TerminalSession, TerminalSettings
from fuhe.acquisition.terminal_front import PATIENCE_S, Front, Kind, hear
from fuhe.acquisition.unknown import UnknownTable
from fuhe.model.times import US, business_to_us
from fuhe.protocols.qgdw1376.frame import Address, Frame, cut

LOGIN = bytes.fromhex("683200320068C900023412000271000001008516")
CONFIRM = bytes.fromhex("6832003200680B0002341200006100000100B516")
NOW = business_to_us(datetime(2016, 3, 30, 0, 21, 50))  # noqa: DTZ001 - a terminal's clock


def session(**settings: object) -> TerminalSession:
    return TerminalSession(address=TerminalAddress("0200", 4660), settings=TerminalSettings(**settings))  # type: ignore[arg-type]


def up(control: int, user: str, msa: int = 0) -> Frame:
    return Frame(control, Address("0200", 4660, False, msa), bytes.fromhex(user))


def reply_of(data: bytes) -> Frame:
    (frame,), skipped = cut(data)
    assert not skipped
    return frame


def test_the_worked_login_gets_the_worked_confirmation() -> None:
    s = session()
    (frame,) = Front().cut(LOGIN, 0.0)
    said = hear(s, frame, NOW)
    assert (said.kind, said.reply, s.logged_in) == (Kind.LOGIN, CONFIRM, True)


@pytest.mark.parametrize("function", [0xC9, 0xD9, 0xC4])
def test_heartbeats_with_and_without_clock(function: int) -> None:
    s = session()
    plain = hear(s, up(function, "027500000400"), NOW)
    assert plain.kind is Kind.HEARTBEAT and reply_of(plain.reply).user == bytes.fromhex("006500000100")
    assert s.clock_offset_s is None
    hear(s, up(function, "027500000400512100306316"), NOW)
    assert s.clock_offset_s == 1.0 and s.clock_us == NOW


def test_a_heartbeat_that_wants_no_answer_gets_none() -> None:
    assert hear(session(), up(0xC4, "026500000400"), NOW).reply == b""
    assert hear(session(), up(0xC9, "026500000400"), NOW).reply != b""  # request/response: it waits


def test_a_time_tag_and_counters_are_understood_and_the_tag_is_returned() -> None:
    s = session()
    said = hear(s, up(0xE9, "02F3000001000307115613170405"), NOW)
    assert said.kind is Kind.LOGIN and reply_of(said.reply).user == bytes.fromhex("00E300000100115613170405")
    assert (s.ec1, s.ec2) == (3, 7) and said.news == Events.IMPORTANT | Events.ORDINARY


def test_waiting_events_are_called_to_mind_at_every_sign_of_life_but_not_by_every_answer() -> None:
    s = session()
    assert hear(s, up(0xA8, "0C600000020000" * 6 + "0307", 1), NOW).news
    assert not hear(s, up(0xA8, "0C610000020000" * 6 + "0307", 1), NOW).news
    assert hear(s, up(0xE9, "0272000004000307"), NOW).news


def test_answers_are_the_lines_and_those_to_other_masters_nobodys() -> None:
    s = session(msa=5)
    assert hear(s, up(0x88, "0C6000000200", 5), NOW).kind is Kind.ANSWER
    assert hear(s, up(0x88, "0C6000000200", 6), NOW).kind is Kind.FOREIGN
    echo = Frame(0x4B, Address("0200", 4660, False, 5), bytes.fromhex("0C6000000200"))
    assert hear(s, echo, NOW).kind is Kind.OTHER
    assert hear(s, up(0x88, "0C"), NOW).kind is Kind.OTHER


def test_a_report_is_confirmed_later_and_its_repeat_only_when_it_is_stored() -> None:
    s = session()
    report = up(0xC4, "0C7900000200000000010116")
    first = hear(s, report, NOW)
    assert first.kind is Kind.REPORT and not first.reply and reply_of(first.confirm).user[:2] == b"\x00\x69"
    again = hear(s, report, NOW)
    assert (again.kind, again.reply, again.confirm) == (Kind.REPEATED, b"", b"")
    s.report_done(s.report_key, stored=True)
    assert hear(s, report, NOW).reply == first.confirm
    other = hear(s, up(0xC4, "0C7A00000200000000010116"), NOW)
    assert other.kind is Kind.REPORT
    s.report_done(s.report_key, stored=False)  # the disk refused: its repeat is a new chance
    assert hear(s, other.frame, NOW).kind is Kind.REPORT
    quiet = hear(s, up(0xC4, "0C6B00000200000000010116"), NOW)
    assert quiet.kind is Kind.REPORT and not quiet.confirm


def test_data_before_login_are_denied_where_that_is_wanted() -> None:
    s = session()
    report, beat = up(0xC4, "0C7900000200000000010116"), up(0xC9, "027500000400")
    assert hear(s, report, NOW).kind is Kind.REPORT
    for frame in (report, beat):
        said = hear(s, frame, NOW, login_first=True)
        assert said.kind is Kind.REFUSED and reply_of(said.reply).user[2:] == bytes.fromhex("00000200")
    assert hear(s, up(0xC9, "027100000100"), NOW, login_first=True).kind is Kind.LOGIN
    assert hear(s, beat, NOW, login_first=True).kind is Kind.HEARTBEAT
    assert hear(s, up(0xC9, "027600000200"), NOW, login_first=True).kind is Kind.LOGOUT
    assert hear(s, beat, NOW, login_first=True).kind is Kind.REFUSED


def test_what_is_not_served_is_denied_and_a_confirmation_is_never_answered() -> None:
    s = session()
    assert reply_of(hear(s, up(0xC9, "06710000010000"), NOW).reply).control == 0x09
    assert hear(s, up(0xC9, "007100000100"), NOW).reply == b""
    assert hear(s, up(0xC9, "02710000FF00"), NOW).kind is Kind.OTHER


STREAM = LOGIN + b"\x00\x68\xfe\xfe" + CONFIRM + LOGIN[:-1] + b"\x17" + LOGIN


@pytest.mark.parametrize("size", [1, 2, 7, 20, 1000])
def test_a_stream_is_cut_however_it_comes(size: int) -> None:
    front = Front()
    frames = [f for i in range(0, len(STREAM), size) for f in front.cut(STREAM[i : i + size], i / 1000)]
    assert [f.encode(0) for f in frames] == [LOGIN, CONFIRM, LOGIN]
    assert not front.begun and front.skipped == len(STREAM) - 2 * len(LOGIN) - len(CONFIRM) - 2


def test_a_frame_that_never_ends_does_not_swallow_what_follows_for_ever() -> None:
    front = Front()
    assert front.cut(bytes.fromhex("68FEFFFEFF68C900023412000271"), 0.0) == []  # announces 16 KiB
    assert front.cut(LOGIN, 1.0) == []
    assert [f.encode() for f in front.cut(LOGIN, PATIENCE_S + 2)] == [LOGIN, LOGIN]


def test_datagrams_hold_whole_frames() -> None:
    front = Front()
    assert len(front.cut(LOGIN + LOGIN[:9], 0.0, whole=True)) == 1 and not front.begun
    assert len(front.cut(LOGIN, 0.0, whole=True)) == 1


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_any_bytes_are_survived(pieces: list[bytes]) -> None:
    front, s = Front(), session()
    for i, piece in enumerate(pieces):
        for frame in front.cut(piece, float(i)):
            hear(s, frame, NOW)
    assert len(front.rest) <= sum(map(len, pieces))


@given(st.integers(0, 255), st.binary(max_size=60))
def test_any_frame_is_understood_somehow(control: int, user: bytes) -> None:
    said = hear(session(), Frame(control, Address("0200", 4660), user), NOW)
    for data in (said.reply, said.confirm):
        assert not data or reply_of(data).control in (0x0B, 0x09)


def test_a_caller_is_known_by_its_first_frame() -> None:
    call = TerminalCall()
    assert call.feed(b"\x00noise" + CONFIRM + LOGIN[:9]) is None  # our own echo is nobody's call
    verdict = call.feed(LOGIN[9:] + LOGIN[:5])
    assert verdict == Identity("0200-4660", LOGIN + LOGIN[:5])
    assert isinstance(TerminalCall().feed(bytes(CALL_LIMIT + 1)), Rejected)


def test_the_table_of_unknown_terminals_is_bounded() -> None:
    table = UnknownTable(2)
    names = [TerminalAddress("0200", n) for n in (1, 2, 3, 4)]
    first = table.called("field", names[0], "peer", "why", 1 * US)
    assert first is not None
    first.held = True
    assert table.called("field", names[1], "peer", "why", 2 * US) is not None
    third = table.called("field", names[2], "peer", "why", 3 * US)  # the second makes room
    assert third is not None and {r.address.a2 for r in table.rows()} == {1, 3}
    third.held = True
    assert table.called("field", names[3], "peer", "why", 4 * US) is None and table.refused == 1
    again = table.called("field", names[0], "other", "why", 5 * US)
    assert again is first and (again.connections, again.peer, again.first_us) == (2, "other", 1 * US)
    assert table.rows()[0] is first
    table.known("field", names[0])
    assert len(table) == 1
