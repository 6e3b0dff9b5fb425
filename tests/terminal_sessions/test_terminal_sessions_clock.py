"""The clock rules, and reading and setting a terminal's clock."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.acquisition.clock_rules import SUSPECT, Advice, judge, suspect_spans, suspect_text
from fuhe.acquisition.sessions import open_exchange
from fuhe.acquisition.terminal import TerminalSession
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.quantities import quantity
from fuhe.model.times import US, business_to_us, from_us
from fuhe.model.work import Duty, Outcome, Status
from fuhe.protocols.qgdw1376.message import Message
from fuhe.protocols.qgdw1376.units import Unit

from .conftest import ADDRESS, DEVICE, answer, asked, confirm, deny, item, profile, session, wire

OFFSET = quantity("clock_offset").id


def at(hour: int, minute: int, second: int = 0) -> int:
    """An instant of 2026-05-20."""
    return business_to_us(datetime(2026, 5, 20, hour, minute, second))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("offset_s", "now", "advice"),
    [
        (0, (10, 22), Advice.NONE), (59.9, (10, 22), Advice.NONE), (-59.9, (10, 22), Advice.NONE),
        (60, (10, 22), Advice.SET), (-60, (10, 22), Advice.SET), (400, (10, 16), Advice.SET),
        (900, (10, 22), Advice.SET), (-900, (10, 30), Advice.SET),  # cannot keep within a quarter of an hour
        (900.1, (10, 22), Advice.TICKET), (-86_400, (10, 22), Advice.TICKET),
        (60, (10, 56), Advice.LATER), (60, (11, 4), Advice.LATER), (60, (11, 6), Advice.SET),
        (-120, (11, 6), Advice.LATER),  # theirs is 11:04
        (60, (0, 4), Advice.LATER), (60, (23, 56), Advice.LATER),
        (120, (10, 14), Advice.LATER), (120, (10, 16), Advice.SET),  # the end of a quarter lies between the clocks
    ],
)  # fmt: skip
def test_the_bands_and_the_forbidden_minutes(offset_s: float, now: tuple[int, int], advice: Advice) -> None:
    assert judge(offset_s, 1.0, at(*now)).advice is advice


def test_settlement_freezes_and_slow_channels() -> None:
    assert judge(90, 1.0, at(10, 22), settlements=(10 * 60 + 25,)).advice is Advice.LATER
    assert judge(90, 1.0, at(10, 22), settlements=(10 * 60 + 29,)).advice is Advice.SET
    assert judge(90, 5.1, at(10, 22)).advice is Advice.REFUSE
    assert judge(7200, 1.0, at(10, 22), supervised=True).advice is Advice.SET
    assert judge(7200, 1.0, at(10, 58), supervised=True).advice is Advice.LATER
    assert judge(7200 + 38 * 60, 1.0, at(10, 22), supervised=True).advice is Advice.LATER  # theirs is 13:00


def test_slots_that_a_jump_doubles_or_loses_are_told() -> None:
    found = judge(-900, 1.0, at(10, 38))
    assert found.advice is Advice.SET and found.suspect_us == (at(10, 30), at(10, 45))
    assert judge(400, 1.0, at(10, 16)).suspect_us is None


@given(st.floats(-2000, 2000), st.integers(0, 86_399))
def test_a_set_never_jumps_over_a_freeze(offset_s: float, second: int) -> None:
    now_us = at(0, 0) + second * US
    if judge(offset_s, 1.0, now_us).advice is not Advice.SET:
        return
    theirs_us = now_us + round(offset_s * US)
    low, high = sorted((now_us, theirs_us))
    hour = 3600 * US
    assert low // hour == high // hour and low % hour >= 300 * US and high % hour <= hour - 300 * US


@pytest.mark.parametrize("size", [60, 300, 779])
def test_waiting_always_ends(size: int) -> None:
    """Within an hour there is a minute at which the rules allow a remote set."""
    for sign in (1, -1):
        assert any(judge(sign * size, 1.0, at(9, m)).advice is Advice.SET for m in range(60))


class Terminal:
    """A terminal with a clock. offset_s: its clock minus ours; `obeys` False: it confirms and does nothing."""

    def __init__(self, offset_s: float, *, trip_s: float = 0.4, obeys: bool = True, says: str = "confirm") -> None:
        self.offset_s, self.trip_s, self.obeys, self.says = offset_s, trip_s, obeys, says
        self.told: list[datetime] = []

    def clock(self, now_us: int) -> datetime:
        """What it shows: whole seconds."""
        return (from_us(now_us + round(self.offset_s * US)) + timedelta(hours=8)).replace(tzinfo=None, microsecond=0)

    def hear(self, request: Message, now_us: int) -> list[Message]:
        """`now_us`: the moment in which it hears."""
        unit = request.units[0]
        if (request.afn, unit.fn) == (0x0C, 2):
            return [answer(request, [Unit(0, 2, {"clock": self.clock(now_us)})])]
        assert (request.afn, unit.fn, request.tp is not None) == (5, 31, False) and unit.data is not None
        moment = unit.data["clock"]
        assert isinstance(moment, datetime)
        self.told.append(moment.replace(tzinfo=None))
        if self.says == "deny":
            return [deny(request)]
        if self.obeys:
            self.offset_s = (business_to_us(self.told[-1]) - now_us) / US
        return [confirm(request)] if self.says == "confirm" else []


def tend(
    terminal: Terminal,
    *items: str,
    now_us: int = at(10, 20),
    device: Device = DEVICE,
    known: TerminalSession | None = None,
) -> tuple[Outcome, list[bytes]]:
    """Read or set its clock; half the round trip lies before the terminal hears."""
    memory = known or session()
    exchange = open_exchange(device, profile(), item(Duty.CLOCK, items=items), Credentials(), session=memory)
    sent: list[bytes] = []
    for _ in range(20):
        request = exchange.next_request(now_us)
        if request is None:
            return exchange.outcome(now_us), sent
        sent.append(request.data)
        half = round(terminal.trip_s / 2 * US)
        found = terminal.hear(asked(request.data), now_us + half)
        now_us += 2 * half
        if not exchange.receive(wire(*found), now_us):
            now_us += 10 * US
            exchange.silence(now_us)
    raise AssertionError("it does not end")


def offset(outcome: Outcome) -> float:
    """The offset stored."""
    assert outcome.batch is not None and outcome.batch.samples is not None
    assert outcome.batch.samples.quantity.tolist() == [OFFSET] and outcome.batch.samples.point.tolist() == [71]
    return float(outcome.batch.samples.value[0])


@pytest.mark.parametrize("real", [0.0, 33.0, -500.25, 4000.75])
@pytest.mark.parametrize("trip_s", [0.0, 0.4, 4.0])
def test_the_offset_is_taken_at_the_middle_of_the_round_trip(real: float, trip_s: float) -> None:
    outcome, sent = tend(Terminal(real, trip_s=trip_s))
    assert outcome.status is Status.DONE and len(sent) == 1
    assert abs(offset(outcome) - real) <= 0.51


def test_a_round_trip_over_five_seconds_tells_nothing() -> None:
    outcome, sent = tend(Terminal(100, trip_s=6.0), "set")
    assert (outcome.status, outcome.batch, len(sent)) == (Status.PARTIAL, None, 3)
    assert "round trip" in outcome.faults[0].reason


@pytest.mark.parametrize("real", [75.0, -290.0, 250.5])
def test_setting(real: float) -> None:
    terminal = Terminal(real, trip_s=3.0)
    outcome, sent = tend(terminal, "set", now_us=at(10, 21, 30))
    assert outcome.status is Status.DONE and len(sent) == 3
    assert abs(terminal.offset_s) <= 0.6, "half the round trip was added"
    assert abs(offset(outcome)) <= 1.0
    assert outcome.batch is not None
    (event,) = outcome.batch.events
    assert event.code == "clock_set" and event.data["answer"] == "confirmed"
    assert abs(float(str(event.data["offset_before_s"])) - real) < 1 and event.data["before"] != event.data["told"]
    assert "suspect_us" not in event.data


@pytest.mark.parametrize(
    ("real", "words"), [(0, ""), (3000, "more than 15 min"), (90, "later")],
)  # fmt: skip
def test_not_setting(real: float, words: str) -> None:
    terminal = Terminal(real)
    outcome, sent = tend(terminal, "set", now_us=at(10, 57) if words == "later" else at(10, 20))
    assert not terminal.told and len(sent) == 1 and words in outcome.reason
    assert outcome.status is (Status.REFUSED if words else Status.DONE)
    assert abs(offset(outcome) - real) < 1


def test_a_person_may_set_more() -> None:
    terminal, known = Terminal(3000), session()
    outcome, _ = tend(terminal, "set-supervised", known=known)
    assert outcome.status is Status.DONE and abs(terminal.offset_s) <= 0.6
    assert outcome.batch is not None and outcome.batch.events[0].data["suspect_us"] == [at(10, 30), at(11, 15)]
    (kept,) = outcome.batch.parameters
    assert (kept.item, kept.value) == (SUSPECT, "202605201030-202605201115")
    assert known.suspect == suspect_spans(kept.value) == ((at(10, 30), at(11, 15)),)


def test_the_last_spoilt_slots_stay_known() -> None:
    spans = [(at(h, 0), at(h, 15)) for h in range(12)]
    assert suspect_spans(suspect_text(spans)) == tuple(spans[-8:]) and suspect_spans(suspect_text(())) == ()
    for text in ("x", "202605201030", "999999999999-202605201115", "202605201030-2026052011150"):
        assert suspect_spans(text) == ()


@pytest.mark.parametrize(
    ("says", "obeys", "status"),
    [("deny", False, Status.REFUSED), ("confirm", False, Status.PARTIAL), ("silence", True, Status.DONE),
     ("silence", False, Status.PARTIAL)],
)  # fmt: skip
def test_only_the_clock_read_back_counts(says: str, obeys: bool, status: Status) -> None:
    terminal = Terminal(100, says=says, obeys=obeys)
    outcome, sent = tend(terminal, "set", now_us=at(10, 20, 2))
    assert outcome.status is status and len(terminal.told) == 1 and len(sent) == 3  # never told twice


def test_the_settlement_of_a_customer_is_respected() -> None:
    point = Point(id=71, name="a")
    customer = Device(
        id=5, name="t1", link="l", profile="t", address=ADDRESS, points=(point,), options={"settlement": "10:23"}
    )
    terminal = Terminal(100)
    outcome, _ = tend(terminal, "set", device=customer)
    assert outcome.status is Status.REFUSED and not terminal.told
