"""Conversations with a terminal of paper: silence, denials, partial answers, confirmations, any cut of the bytes."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.acquisition.profile import ReadPlan, TerminalPlan
from fuhe.acquisition.sessions import open_exchange
from fuhe.acquisition.terminal import DENIAL_US
from fuhe.model.devices import Credentials
from fuhe.model.work import Duty, Status
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.qgdw1376.message import Message
from fuhe.protocols.qgdw1376.units import Unit

from .conftest import DEVICE, NOW_US, Paper, answer, asked, confirm, deny, item, profile, session, talk, wire

F1 = {"rts_x20ms": 20, "max_delay_min": 1, "retries": 3, "timeout_s": 30, "con_flags": 4, "heartbeat_min": 15}
F25 = {
    "pt_ratio": 1,
    "ct_ratio": 30,
    "rated_voltage": 220,
    "rated_current": 5,
    "rated_load": 3,
    "phase": 0,
    "wiring": 2,
}
PARAMETERS = item(Duty.PARAMETER, items=("0A:F1", "0A:F25"))


def base_parameters() -> dict[str, object]:
    """A data unit of 04 F25, whatever the table calls its fields."""
    from fuhe.protocols.qgdw1376.table import lookup

    row = lookup(0x0A, 25, "2013")
    assert row is not None
    return row.fields.variants[0].decode(bytes.fromhex("0100 1E00 0022 50 000003 02".replace(" ", "")), 0, 11, "2013")[
        0
    ]


def paper(**more: object) -> Paper:
    """A terminal that holds parameters of itself and of two points."""
    content: dict[tuple[int, int, int], object] = {
        (0x0A, 0, 1): F1, (0x0A, 1, 25): base_parameters(), (0x0A, 2, 25): base_parameters(),
    }  # fmt: skip
    return Paper(content, **more)  # type: ignore[arg-type]


def test_parameters_in_one_request() -> None:
    terminal = paper()
    outcome, sent = talk(PARAMETERS, terminal)
    assert (outcome.status, outcome.faults, len(sent)) == (Status.DONE, (), 1)
    assert outcome.batch is not None
    values = {p.item: p.value for p in outcome.batch.parameters}
    assert set(values) == {"0A:F1", "0A:F25:P1", "0A:F25:P2"}
    assert json.loads(values["0A:F1"]) | F1 == json.loads(values["0A:F1"])
    assert values["0A:F25:P1"] == values["0A:F25:P2"] and " " not in values["0A:F1"]
    assert [(u.pn, u.fn) for u in terminal.seen[0].units] == [(0, 1), (1, 25), (2, 25)]


@pytest.mark.parametrize("chunk", [1, 2, 7, 10_000])
@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize("con", [False, True])
def test_any_cut_of_the_bytes_and_the_frames(chunk: int, limit: int, con: bool) -> None:
    terminal = paper(limit=limit, con=con)
    outcome, sent = talk(PARAMETERS, terminal, chunk=chunk)
    assert (outcome.status, outcome.retries) == (Status.DONE, 0)
    assert outcome.batch is not None and len(outcome.batch.parameters) == 3
    confirms = [asked(r.data) for r in sent[1:]]
    frames = -(-3 // limit)
    assert [m.afn for m in confirms] == [0] * (frames if con else 0)
    if con:
        assert sent[-1].no_reply and [m.seq for m in confirms] == [terminal.seen[0].seq + i for i in range(frames)]


def test_what_the_terminal_leaves_out_is_a_fault_of_that_unit() -> None:
    terminal = paper()
    del terminal.content[0x0A, 1, 25]
    outcome, _ = talk(PARAMETERS, terminal)
    assert outcome.status is Status.PARTIAL
    assert [(f.item, f.final) for f in outcome.faults] == [("0A:F25:P1", False)]
    outcome, sent = talk(PARAMETERS, Paper())
    assert (outcome.status, outcome.batch, len(sent)) == (Status.REFUSED, None, 1)
    assert {f.item for f in outcome.faults} == {"0A:F1", "0A:F25:P1", "0A:F25:P2"}


def test_one_bad_item_may_spoil_a_frame() -> None:
    good = paper()
    del good.content[0x0A, 1, 25]

    def strict(request: Message) -> list[Message]:
        missing = any((request.afn, u.pn, u.fn) not in good.content for u in request.units)
        return [deny(request)] if missing else good(request)

    outcome, sent = talk(PARAMETERS, strict)
    assert (outcome.status, len(sent)) == (Status.REFUSED, 1)
    outcome, sent = talk(PARAMETERS, strict, with_profile=profile(quirks={"denies": "whole"}))
    assert [f.item for f in outcome.faults] == ["0A:F25:P1"] and len(sent) == 5
    assert outcome.batch is not None and len(outcome.batch.parameters) == 2


def test_what_was_denied_is_not_searched_for_again_in_every_cycle() -> None:
    good = paper()
    del good.content[0x0A, 1, 25]

    def strict(request: Message) -> list[Message]:
        missing = any((request.afn, u.pn, u.fn) not in good.content for u in request.units)
        return [deny(request)] if missing else good(request)

    known, whole = session(), profile(quirks={"denies": "whole"})
    talk(PARAMETERS, strict, with_profile=whole, with_session=known)
    outcome, sent = talk(PARAMETERS, strict, with_profile=whole, with_session=known)
    assert [f.item for f in outcome.faults] == ["0A:F25:P1"] and len(sent) == 1
    assert outcome.batch is not None and len(outcome.batch.parameters) == 2
    asked_by_hand = replace(PARAMETERS, forced=True)
    assert len(talk(asked_by_hand, strict, with_profile=whole, with_session=known)[1]) == 5
    later = NOW_US + DENIAL_US + 60_000_000
    good.content[0x0A, 1, 25] = good.content[0x0A, 2, 25]
    outcome, sent = talk(PARAMETERS, strict, with_profile=whole, with_session=known, now_us=later)
    assert (outcome.status, len(sent), known.no_items) == (Status.DONE, 1, {})


def test_silence_is_repeated_with_the_same_bytes_and_given_up() -> None:
    terminal_session = session(fcv=True)
    outcome, sent = talk(PARAMETERS, lambda _: [], with_session=terminal_session)
    assert (outcome.status, len(sent), outcome.retries) == (Status.SILENT, 3, 2)
    assert len({r.data for r in sent}) == 1
    assert (outcome.faults[0].item, outcome.faults[0].reason) == ("0A:F1", "no answer")
    # a budget of time ends it before the retries do
    short = profile(terminal=TerminalPlan(budget_s=15))
    assert len(talk(PARAMETERS, lambda _: [], with_profile=short)[1]) == 2


def test_a_lost_answer_is_asked_again() -> None:
    terminal, calls = paper(), [0]

    def lossy(request: Message) -> list[Message]:
        calls[0] += 1
        return [] if calls[0] % 2 else terminal(request)

    outcome, sent = talk(PARAMETERS, lossy)
    assert (outcome.status, outcome.retries) == (Status.DONE, 1) and sent[0].data == sent[1].data


def test_a_lost_part_is_filled_by_the_repeat_and_a_lasting_hole_is_told() -> None:
    terminal, calls = paper(limit=1), [0]

    def second_part_lost(request: Message) -> list[Message]:
        calls[0] += 1
        parts = terminal(request)
        return [parts[0], parts[2]] if calls[0] == 1 else parts[1:]

    outcome, _ = talk(PARAMETERS, second_part_lost)
    assert outcome.status is Status.DONE and outcome.retries == 1
    outcome, sent = talk(PARAMETERS, lambda q: [terminal(q)[0], terminal(q)[2]])
    assert (outcome.status, len(sent)) == (Status.PARTIAL, 3)
    assert [(f.item, f.reason) for f in outcome.faults] == [("0A:F25:P1", "a part of the answer was lost")]


def test_late_answers_reports_and_noise_between() -> None:
    terminal = paper()

    def crowded(request: Message) -> list[Message]:
        good = terminal(request)[0]
        late = msgspec.structs.replace(good, seq=(good.seq - 1) % 16, units=())
        report = msgspec.structs.replace(good, prm=True, function=4, afn=0x0E, units=())
        return [late, report, good, good]

    outcome, sent = talk(PARAMETERS, crowded)
    assert (outcome.status, outcome.retries, len(sent)) == (Status.DONE, 0, 1)


def test_noise_is_not_silence() -> None:
    exchange = open_exchange(DEVICE, profile(), PARAMETERS, Credentials(), session=session())
    for _ in range(3):
        assert exchange.next_request(NOW_US) is not None
        assert not exchange.receive(bytes.fromhex("68120012006888123333333333333316"), NOW_US)
        exchange.silence(NOW_US)
    assert exchange.next_request(NOW_US) is None
    assert exchange.outcome(NOW_US).status is Status.BROKEN


def test_the_answer_behind_a_false_start_is_found_on_silence() -> None:
    exchange = open_exchange(DEVICE, profile(), PARAMETERS, Credentials(), session=session())
    request = exchange.next_request(NOW_US)
    assert request is not None
    good = wire(*paper()(asked(request.data)))
    false = bytes.fromhex("68 FA 0F FA 0F 68".replace(" ", ""))  # promises a thousand bytes
    assert not exchange.receive(false + good, NOW_US)
    exchange.silence(NOW_US)
    assert exchange.next_request(NOW_US) is None
    assert exchange.outcome(NOW_US).status is Status.DONE


def test_requests_bear_the_terminals_buffer() -> None:
    terminal = paper()
    small = profile(terminal=TerminalPlan(units_per_request=2))
    assert len(talk(PARAMETERS, terminal, with_profile=small)[1]) == 2
    tiny = profile(terminal=TerminalPlan(answer_bytes=40))
    outcome, sent = talk(PARAMETERS, terminal, with_profile=tiny)
    assert (outcome.status, len(sent)) == (Status.DONE, 3)


def test_a_probe_takes_any_answer() -> None:
    probe = item(Duty.PROBE)
    assert talk(probe, lambda q: [deny(q)])[0].status is Status.DONE
    assert talk(probe, lambda _: [])[0].status is Status.SILENT
    assert talk(probe, lambda q: [confirm(q)])[0].status is Status.DONE


def test_early_outcomes() -> None:
    exchange = open_exchange(DEVICE, profile(), PARAMETERS, Credentials(), session=session())
    assert exchange.outcome(NOW_US).status is Status.CANCELLED
    assert exchange.next_request(NOW_US) is not None
    assert exchange.outcome(NOW_US).status is Status.CANCELLED


@pytest.mark.parametrize("items", [("0A:F999",), ("04:F1",), ("02010100",), ("0C:F25",), ()])
def test_wrong_items_are_refused_at_once(items: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        open_exchange(DEVICE, profile(), item(Duty.PARAMETER, items=items), Credentials(), session=session())


def test_items_name_points() -> None:
    terminal = paper()
    talk(item(Duty.PARAMETER, items=("0a:f25:p2",)), terminal)
    assert [(u.pn, u.fn) for u in terminal.seen[0].units] == [(2, 25)]
    plan = profile(read={Duty.PARAMETER: ReadPlan(items=("0A:F43",))})  # a parameter of groups
    talk(item(Duty.PARAMETER), terminal, with_profile=plan)
    assert [(u.pn, u.fn) for u in terminal.seen[1].units] == [(1, 43)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=60), st.integers(0, 5)), max_size=30), st.booleans())
def test_any_bytes_end_and_stay_small(story: list[bytes | int], con: bool) -> None:
    """Arbitrary bytes between good answers: the exchange ends within its requests and keeps only what it may."""
    exchange = open_exchange(DEVICE, profile(), PARAMETERS, Credentials(), session=session())
    terminal, requests, pending = paper(limit=1, con=con), 0, iter(story)
    while (request := exchange.next_request(NOW_US)) is not None:
        requests += 1
        assert requests < 40
        if request.no_reply:
            continue
        message = asked(request.data)
        answered = False
        good = terminal(message) if message.afn else []
        for what in pending:
            if isinstance(what, int):
                answered = exchange.receive(wire(*good[: what % 4]), NOW_US)
                break
            answered = exchange.receive(what, NOW_US) or answered
            if answered:
                break
        if not answered:
            exchange.silence(NOW_US)
    assert exchange.outcome(NOW_US).status in Status
    assert exchange.next_request(NOW_US) is None


def test_an_answer_of_another_kind_is_no_data() -> None:
    outcome, _ = talk(
        PARAMETERS,
        lambda q: [answer(q, (Unit(0, 4, {"error_type": 1, "random": "FF" * 8, "chip_serial": "00" * 8}),), afn=0)],
    )
    assert outcome.status is Status.REFUSED
