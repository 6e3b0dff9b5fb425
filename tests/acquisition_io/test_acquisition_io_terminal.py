"""TerminalSession: frame numbers, event counters, clock, traffic; addresses in both forms. Pure."""

from __future__ import annotations

import itertools
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.acquisition.terminal import (
    Events,
    TerminalAddress,
    TerminalSession,
    TerminalSettings,
    Traffic,
    parse_address,
    require_address,
)
from fuhe.model.times import US, business_to_us
from fuhe.protocols.common.errors import UsageError


def at(hour: int, minute: int, second: int = 0) -> datetime:
    """A terminal's own clock on 30 November 2026."""
    return datetime(2026, 11, 30, hour, minute, second)  # noqa: DTZ001


NOW = business_to_us(at(23, 59))


def session(**settings: object) -> TerminalSession:
    return TerminalSession(address=TerminalAddress("3301", 4660), settings=TerminalSettings(**settings))  # type: ignore[arg-type]


@given(a1=st.integers(0, 9999), a2=st.integers(1, 0xFFFF))
def test_both_forms_of_an_address_mean_the_same(a1: int, a2: int) -> None:
    address = TerminalAddress(f"{a1:04d}", a2)
    assert parse_address(address.decimal) == address == parse_address(address.hexadecimal)
    assert parse_address(address.hexadecimal.lower()) == address


@pytest.mark.parametrize(
    "text", ["", "3301-0", "33010000", "3301-65536", "330-1", "3301", "330112345", "A301-1", "3301-"]
)
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None
    with pytest.raises(UsageError, match="3301-4660"):
        require_address(text)


def test_new_frames_count_and_toggle_and_wrap() -> None:
    s = session(fcv=True)
    stamps = [s.begin() for _ in range(258)]
    assert [t.pfc for t in stamps[:3]] == [0, 1, 2] and stamps[255].pfc == 255 and stamps[256].pfc == 0
    assert all(a.fcb != b.fcb for a, b in itertools.pairwise(stamps))
    assert stamps[17].pseq == 1 and stamps[15].rseq(0) == 15 and stamps[15].rseq(1) == 0
    group = s.begin(fcv=False)
    assert not group.fcv and not group.fcb and s.begin().fcb != stamps[-1].fcb


def test_without_fcv_the_bit_stays_clear_and_a_reset_clears_it() -> None:
    s = session()
    assert s.begin() == (0, False, False)
    t = session(fcv=True)
    assert t.begin().fcb
    t.was_reset()
    assert t.begin().fcb  # the terminal holds 0 now: the next new frame carries 1


def test_events_begin_to_wait_once_and_stop_when_read() -> None:
    s = session()
    assert s.saw(False, None, NOW) is Events.NONE
    assert s.saw(True, (3, 9), NOW) == Events.IMPORTANT | Events.ORDINARY
    assert s.saw(True, (3, 9), NOW) is Events.NONE  # the same news again, as in every answer until they are read
    s.events_read(Events.ORDINARY, 0, 9)
    s.events_read(Events.IMPORTANT, 0, 2)
    assert s.waiting() is Events.IMPORTANT
    assert s.saw(True, (4, 9), NOW) is Events.IMPORTANT  # one more: worth a new look
    s.events_read(Events.IMPORTANT, 2, 4)
    assert s.waiting() is Events.NONE and not s.acd


def test_a_report_behind_a_hole_leaves_the_hole_open() -> None:
    s = session()
    s.events_read(Events.IMPORTANT, 250, 254)
    s.saw(True, (1, 0), NOW)
    s.events_read(Events.IMPORTANT, 0, 1)
    assert s.ec1_read == 254 and Events.IMPORTANT in s.waiting()
    s.events_read(Events.IMPORTANT, 254, 1)
    assert s.ec1_read == 1 and Events.IMPORTANT not in s.waiting()


def test_clock_and_monthly_traffic() -> None:
    s = session()
    s.saw_clock(at(23, 58, 30), NOW)
    assert s.clock_offset_s == -30.0 and s.wall(NOW) == at(23, 59)
    s.received(100, NOW)
    s.sent(20, NOW)
    s.received(1, NOW + 59 * US)
    s.received(5, NOW + 60 * US)
    taken = s.take_traffic(NOW + 61 * US)
    assert taken == [Traffic(202611, 101, 20, 2, 1), Traffic(202612, 5, 0, 1, 0)]
    assert s.take_traffic(NOW + 62 * US) == []
    s.give_back(taken)  # it could not be written
    s.sent(7, NOW + 63 * US)
    assert s.take_traffic(NOW + 64 * US) == [*taken, Traffic(202612, 0, 7, 0, 1)]


def test_which_requests_carry_a_time_tag() -> None:
    assert [session(tp=tp).tags(control=c) for tp in ("never", "control", "always") for c in (False, True)] == [
        False, False, False, True, True, True,
    ]  # fmt: skip
