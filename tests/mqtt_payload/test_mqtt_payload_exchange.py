"""The conversation of one signed command: accepted, refused, silent, forged, expired."""

from __future__ import annotations

import base64

import msgspec
import pytest

from fuhe.acquisition.profile import ControlPlan, Profile, Timing
from fuhe.acquisition.sessions import open_exchange
from fuhe.model.control import ActionKind, ControlAction
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.work import Duty, Exchange, Priority, Status, WorkItem
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.mqtt.payload import Command, State, encode, parse_command
from fuhe.protocols.mqtt.signing import build_answer, verify_command

KEY = bytes(range(32))
SECRET = Credentials(key=base64.b64encode(KEY).decode())
NOW = 1_800_000_000_000_000
PROFILE = Profile(
    name="mqtt", title_en="m", title_zh="m", protocol="mqtt", timing=Timing(reply_timeout_s=10.0),
    control=ControlPlan(means="mqtt-command", rounds=2),
)  # fmt: skip
DEVICE = Device(id=4, name="d", link="l", profile="mqtt", address="T-1", points=(Point(id=40, name="x"),))


def exchange(kind: ActionKind = ActionKind.TRIP, round: int = 1, until: int = NOW + 60 * 10**6) -> Exchange:
    action = ControlAction(id="c1", kind=kind, round=round, valid_until_us=until, alarm_min=3)
    item = WorkItem(device=4, duty=Duty.CONTROL, priority=Priority.CONTROL, expires_s=1e9, action=action)
    return open_exchange(DEVICE, PROFILE, item, SECRET)


def ask(talk: Exchange) -> Command:
    request = talk.next_request(NOW)
    assert request is not None and request.timeout_s == 10.0
    command = parse_command(request.data)
    verify_command(KEY, command)
    return command


def reply(command: Command, accepted: bool = True, code: str = "", state: State | None = None) -> bytes:
    return encode(build_answer(KEY, command, accepted=accepted, time_ms=NOW // 1000, code=code, state=state))


def test_accepted_and_read_back_are_two_facts() -> None:
    talk = exchange()
    order = ask(talk)
    assert (order.action, order.id, order.round, order.alarm_min) == ("trip", "c1", 1, 3)
    assert order.valid_until_ms == NOW // 1000 + 60_000
    assert talk.receive(reply(order, state=State(open=False)), NOW)
    question = ask(talk)
    assert question.action == "read_state" and question.id != order.id and question.nonce != order.nonce
    assert talk.receive(reply(question, state=State(open=True, protected=False)), NOW + 1)
    assert talk.next_request(NOW) is None
    outcome = talk.outcome(NOW)
    answer = outcome.answer
    assert outcome.status is Status.DONE and answer is not None
    assert (answer.sent, answer.acknowledged) == (True, True)
    assert answer.state is not None and (answer.state.open, answer.state.time_us) == (True, NOW + 1)
    assert len(answer.frames) == 4


def test_a_refusal_keeps_the_devices_code() -> None:
    talk = exchange()
    assert talk.receive(reply(ask(talk), accepted=False, code="protected"), NOW)
    assert talk.receive(reply(ask(talk), state=State(open=False, protected=True)), NOW)
    outcome = talk.outcome(NOW)
    assert outcome.status is Status.REFUSED and outcome.answer is not None
    assert (outcome.answer.acknowledged, outcome.answer.refusal) == (False, "protected")
    assert outcome.answer.state is not None and outcome.answer.state.protected is True


def test_silence_is_unknown_and_nothing_is_sent_again() -> None:
    talk = exchange()
    assert ask(talk).action == "trip"
    talk.silence(NOW)
    assert ask(talk).action == "read_state"
    talk.silence(NOW)
    assert talk.next_request(NOW) is None
    outcome = talk.outcome(NOW)
    assert outcome.status is Status.SILENT and outcome.answer is not None
    assert (outcome.answer.sent, outcome.answer.acknowledged, outcome.answer.state) == (True, None, None)


def test_forged_and_foreign_answers_are_dropped() -> None:
    talk = exchange()
    order = ask(talk)
    forged = encode(build_answer(bytes(32), order, accepted=True, time_ms=0))
    other = reply(msgspec.structs.replace(order, nonce="f" * 32))
    for data in (forged, other, b"", b"{}"):
        assert talk.receive(data, NOW) is False
    assert talk.receive(reply(order), NOW) is True
    assert talk.receive(reply(order), NOW) is False


def test_an_expired_command_is_not_sent() -> None:
    talk = exchange(until=NOW)
    assert talk.next_request(NOW) is None
    outcome = talk.outcome(NOW)
    assert outcome.status is Status.EXPIRED and outcome.answer is not None and outcome.answer.sent is False


def test_reading_the_state_sends_no_action() -> None:
    talk = exchange(ActionKind.READ_STATE, until=0)
    question = ask(talk)
    assert question.action == "read_state"
    assert talk.receive(reply(question, state=State(open=None)), NOW)
    assert talk.next_request(NOW) is None
    assert talk.outcome(NOW).status is Status.DONE


def test_what_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(UsageError):
        exchange(round=3)
    live = WorkItem(device=4, duty=Duty.LIVE, priority=Priority.LIVE, expires_s=1e9)
    with pytest.raises(UsageError):
        open_exchange(DEVICE, PROFILE, live, SECRET)
    action = ControlAction(id="c1", kind=ActionKind.TRIP, valid_until_us=NOW)
    item = WorkItem(device=4, duty=Duty.CONTROL, priority=Priority.CONTROL, expires_s=1e9, action=action)
    with pytest.raises(UsageError, match="key"):
        open_exchange(DEVICE, PROFILE, item, Credentials())
