"""One request and its answers: matching, parts in any order, repeats, confirmations, bounds."""

from __future__ import annotations

import itertools
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.acquisition.sessions.qgdw1376_transaction import (
    MAX_BYTES,
    MAX_PARTS,
    Ask,
    Step,
    Transaction,
    Verdict,
    make_peer,
)
from fuhe.model.devices import Credentials
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.qgdw1376.frame import Frame
from fuhe.protocols.qgdw1376.message import Message, build, parse
from fuhe.protocols.qgdw1376.units import Unit

from .conftest import EDITION, NOW_US, answer, asked, confirm, deny, frames_of, session, wire

RELAY = Ask(afn=0x10, units=(Unit(0, 1, {"port": 2, "baud": 2400, "stop_bits": 1, "parity_enable": 1, "odd": 0,
            "data_bits": 8, "packet_timeout": {"unit": "s", "value": 5}, "byte_timeout_10ms": 10, "len": 2,
            "raw_hex": "FEFE"}),))  # fmt: skip
READ = Ask(afn=0x09, units=(Unit(0, 8, {}),))


def begin(ask: Ask = READ, **changes: object) -> tuple[Transaction, Message]:
    """A transaction and its request as the terminal sees it."""
    transaction = Transaction.begin(ask, make_peer(session(**changes), Credentials()), NOW_US)
    return transaction, asked(transaction.data)


def frame(message: Message) -> Frame:
    """As it comes from the line."""
    return frames_of(wire(message))[0]


def data(n: int) -> Unit:
    """A data unit that can be told apart."""
    return Unit(0, 8, {"erc": [n + 1]})


def held(transaction: Transaction) -> list[object]:
    """What the answer holds, in order."""
    found = transaction.answer()
    assert found is not None
    return [u.data["erc"][0] - 1 if u.data else None for u in found.units()]  # type: ignore[index]


def test_numbers_run_and_repeats_keep_them() -> None:
    peer = make_peer(session(fcv=True, next_pfc=0), Credentials())
    requests = [Transaction.begin(READ, peer, NOW_US) for _ in range(18)]
    seen = [asked(t.data) for t in requests]
    assert [m.seq for m in seen] == [i % 16 for i in range(18)]
    assert [m.fcb for m in seen] == [bool(i % 2 == 0) for i in range(18)] and all(m.fcv for m in seen)
    assert requests[3].again(NOW_US + 5) == requests[3].data
    assert {(m.function, m.address.msa, m.con) for m in seen} == {(11, 1, False)}


def test_what_a_control_request_carries() -> None:
    ask = Ask(afn=0x01, units=(Unit(0, 1, {}),))
    _, reset = begin(ask, fcv=True, tp="control")
    assert (reset.function, reset.fcv, reset.pw) == (1, False, bytes(16))
    assert reset.tp is not None and (reset.tp.sent, reset.tp.delay_min) == ("20 10:07:03", 5)
    old = session(pw_length=2, edition="2005", protocol_id=1)
    short = frames_of(Transaction.begin(ask, make_peer(old, Credentials(password="AB12")), NOW_US).data)[0]
    assert (short.protocol_id, short.user[-2:].hex()) == (1, "ab12")
    peer = make_peer(session(auth="hmac-test"), Credentials(key="a2V5"))
    sealed = frames_of(Transaction.begin(ask, peer, NOW_US).data)[0]
    pw = parse(sealed, EDITION).pw
    before = bytes((sealed.control,)) + sealed.address.wire + sealed.user[: -len(pw or b"")]
    assert pw is not None and peer.auth.verify(before, pw)
    with pytest.raises(UsageError, match="not base64"):
        make_peer(session(auth="hmac-test"), Credentials(key="?"))
    with pytest.raises(UsageError, match="way of authentication"):
        make_peer(session(auth="secret-chip"), Credentials())


def test_a_single_answer() -> None:
    transaction, request = begin()
    assert transaction.answer() is None
    assert transaction.take(frame(answer(request, [data(3)])), NOW_US + 7) is Step.DONE
    found = transaction.answer()
    assert found is not None and found.whole and found.verdict is Verdict.DATA
    assert (found.sent_us, found.came_us) == (NOW_US, NOW_US + 7)
    assert held(transaction) == [3] and not transaction.confirms


def test_what_is_no_answer() -> None:
    transaction, request = begin()
    good = answer(request, [data(1)])
    other = [
        msgspec.structs.replace(good, address=msgspec.structs.replace(good.address, a2=1)),
        msgspec.structs.replace(good, address=msgspec.structs.replace(good.address, a1="3302")),
        msgspec.structs.replace(good, address=msgspec.structs.replace(good.address, msa=9)),
        msgspec.structs.replace(good, seq=(good.seq + 1) % 16),
        msgspec.structs.replace(good, afn=0x0A, units=()),
        msgspec.structs.replace(good, up=False, units=()),
        msgspec.structs.replace(deny(request), seq=(good.seq + 3) % 16),
    ]
    assert [transaction.take(frame(m), NOW_US) for m in other] == [Step.OTHER] * len(other)
    assert transaction.take(frame(msgspec.structs.replace(good, prm=True)), NOW_US) is Step.UNASKED
    assert transaction.take(Frame(0x88, request.address, b""), NOW_US) is Step.OTHER
    assert transaction.take(Frame(0xA8, request.address, bytes((9, 0xE0 | request.seq, 0))), NOW_US) is Step.OTHER
    assert not transaction.begun and transaction.take(frame(good), NOW_US) is Step.DONE


def test_a_terminal_with_numbers_of_its_own() -> None:
    transaction, request = begin(tp="always")
    wrong = msgspec.structs.replace(answer(request, [data(1)]), seq=(request.seq + 5) % 16)
    assert transaction.take(frame(wrong), NOW_US) is Step.DONE  # it copied our time tag
    transaction, request = begin()
    wrong = msgspec.structs.replace(answer(request, [data(1)]), seq=(request.seq + 5) % 16)
    assert transaction.take(frame(wrong), NOW_US) is Step.OTHER
    transaction.peer = replace(transaction.peer, any_rseq=True)
    parts = [msgspec.structs.replace(answer(request, [data(i)], part=i, last=i == 2), seq=4) for i in range(3)]
    steps = [transaction.take(frame(p), NOW_US) for p in parts]
    assert steps == [Step.MORE, Step.MORE, Step.DONE] and held(transaction) == [0, 1, 2]


def test_denials_and_item_results() -> None:
    transaction, request = begin()
    assert transaction.take(frame(deny(request)), NOW_US) is Step.DONE
    found = transaction.answer()
    assert found is not None and found.verdict is Verdict.DENIED
    transaction, request = begin(RELAY)
    results: dict[str, object] = {"afn": "10", "results": [{"dadt": "00000100", "err": 3}]}
    transaction.take(frame(answer(request, [Unit(0, 3, results)], afn=0)), NOW_US)
    found = transaction.answer()
    assert found is not None and found.verdict is Verdict.PARTLY and found.errors() == {(0, 1): 3}
    transaction, request = begin(Ask(afn=0x01, units=(Unit(0, 1, {}),)))
    assert transaction.take(frame(confirm(request)), NOW_US) is Step.DONE
    found = transaction.answer()
    assert found is not None and found.verdict is Verdict.CONFIRMED


def test_a_receipt_before_the_data() -> None:
    """A request with CON is confirmed first by some: that is no answer to a question."""
    transaction, request = begin(con=True)
    assert request.con
    assert transaction.take(frame(confirm(request)), NOW_US) is Step.MORE
    found = transaction.answer()
    assert found is not None and found.verdict is Verdict.CONFIRMED
    transaction, request = begin(con=True)
    transaction.take(frame(confirm(request)), NOW_US)
    assert transaction.take(frame(answer(request, [data(1)])), NOW_US) is Step.DONE
    assert held(transaction) == [1]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_parts_in_any_order_with_repeats(order: tuple[int, ...]) -> None:
    transaction, request = begin()
    parts = [frame(answer(request, [data(i)], part=i, last=i == 2, con=True)) for i in range(3)]
    steps = [transaction.take(parts[i], NOW_US) for i in order for _ in range(2)]
    assert steps[-2:] == [Step.DONE, Step.DONE] and set(steps[:-2]) == {Step.MORE}
    assert held(transaction) == [0, 1, 2]
    assert len(transaction.confirms) == 6  # a repeat means that our confirmation was lost
    said = asked(transaction.confirms[0])
    assert (said.afn, said.seq, said.prm, said.units[0].fn) == (0, (request.seq + order[0]) % 16, False, 1)


def test_more_parts_than_numbers() -> None:
    transaction, request = begin()
    for i in range(40):
        step = transaction.take(frame(answer(request, [data(i % 60)], part=i, last=i == 39)), NOW_US)
        assert step is (Step.DONE if i == 39 else Step.MORE)
        if i == 20:  # the first one again, and an old one
            for old in (0, 18):
                again = frame(answer(request, [data(old)], part=old, last=False))
                assert transaction.take(again, NOW_US) is Step.MORE
    assert held(transaction) == [i % 60 for i in range(40)]


def test_a_missing_part_shows() -> None:
    transaction, request = begin()
    for i in (0, 2):
        assert transaction.take(frame(answer(request, [data(i)], part=i, last=i == 2)), NOW_US) is Step.MORE
    found = transaction.answer()
    assert found is not None and not found.whole and held(transaction) == [0, 2]
    assert transaction.take(frame(answer(request, [data(1)], part=1, last=False)), NOW_US) is Step.DONE


def test_an_answer_that_begins_anew() -> None:
    transaction, request = begin()
    for i in (0, 1):
        transaction.take(frame(answer(request, [data(i)], part=i, last=False)), NOW_US)
    assert transaction.take(frame(answer(request, [data(9)])), NOW_US) is Step.DONE
    assert held(transaction) == [9]


def test_an_endless_answer_ends() -> None:
    transaction, request = begin()
    steps = [
        transaction.take(frame(answer(request, [data(1)], part=i, last=False)), NOW_US) for i in range(MAX_PARTS + 1)
    ]
    assert steps[-1] is Step.DONE and set(steps[:-1]) == {Step.MORE}
    found = transaction.answer()
    assert found is not None and not found.whole and len(found.frames) == MAX_PARTS
    transaction, request = begin()
    large = bytes(16000)
    count = 0
    while (
        transaction.take(Frame(0x88, request.address, bytes((9, request.seq + count & 15)) + large), NOW_US)
        is Step.MORE
    ):
        count += 1
        transaction.stamp = transaction.stamp._replace(pfc=transaction.stamp.pfc)
        assert count < 100
    assert count * 16000 <= MAX_BYTES


def test_first_frames_without_fir() -> None:
    transaction, request = begin()
    bare = msgspec.structs.replace(answer(request, [data(1)]), fir=False, fin=False)
    assert transaction.take(frame(bare), NOW_US) is Step.DONE


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=40)), max_size=60))
def test_any_frames_are_judged_and_bounded(frames: list[tuple[int, int, bytes]]) -> None:
    transaction, request = begin()
    for control, seq, rest in frames:
        user = bytes((9 if control & 1 else 0, seq)) + rest
        step = transaction.take(Frame(control, request.address, user), NOW_US)
        assert isinstance(step, Step)
    found = transaction.answer()
    if found is not None:
        assert found.verdict in Verdict and isinstance(found.errors(), dict) and isinstance(found.reason, str)


def test_a_request_that_does_not_fit_the_tables() -> None:
    with pytest.raises(UsageError, match="port"):
        begin(Ask(afn=0x10, units=(Unit(0, 1, {}),)))
    assert build(asked(begin(RELAY)[0].data), EDITION)
