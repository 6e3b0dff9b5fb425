"""Control of a terminal on paper: orders byte by byte, parameters, what is known after each answer and after none."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.acquisition.auth_providers import provider
from fuhe.acquisition.profile import ControlPlan, TerminalPlan
from fuhe.acquisition.profiles import check_tree
from fuhe.acquisition.sessions import open_exchange
from fuhe.acquisition.sessions.qgdw1376_control import masked
from fuhe.acquisition.terminal_control import kw_text, order_unit, settings_of, state_of
from fuhe.model.control import ActionKind, ControlAction, ControlAnswer, Setting, Spot
from fuhe.model.devices import Credentials
from fuhe.model.quantities import quantity
from fuhe.model.times import US
from fuhe.model.work import Duty, Outcome, Request, Status
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.qgdw1376.message import Message
from fuhe.protocols.qgdw1376.units import Unit

from .conftest import (
    DEVICE,
    EDITION,
    NOW,
    NOW_US,
    Paper,
    answer,
    asked,
    confirm,
    deny,
    item,
    profile,
    session,
    talk,
)

A = ActionKind
PLAN = ControlPlan(
    means="qgdw1376-05", rounds=4, protection=True, exclusion=True, setpoint=True, inputs=True, clock=True
)
PROFILE = profile(control=PLAN, terminal=TerminalPlan(tp="control"))
PARAMS: dict[str, object] = {
    "limit_kw": 800, "windows": "14:00-18:00", "scheme": 2, "float_percent": -5, "slip_min": 10,
}  # fmt: skip


def action(kind: ActionKind, **more: object) -> ControlAction:
    """An action of a command that is valid for ten minutes."""
    given: dict[str, object] = {"id": "test-7", "kind": kind, "valid_until_us": NOW_US + 600 * US}
    return ControlAction(**(given | more))  # type: ignore[arg-type]


def carry(
    act: ControlAction, terminal: Callable[[Message], Iterable[Message]], **more: object
) -> tuple[ControlAnswer, Outcome, list[Message]]:
    """The action with a terminal: (answer, outcome, what was sent)."""
    given: dict[str, Any] = {
        "with_profile": PROFILE, "with_session": session(tp="control", tp_delay_min=5, msa=9), **more,
    }  # fmt: skip
    outcome, sent = talk(item(Duty.CONTROL, action=act), terminal, **given)
    assert outcome.answer is not None
    return outcome.answer, outcome, [asked(r.data) for r in sent]


def silent(_: Message) -> list[Message]:
    """Nobody there."""
    return []


# -- commands ---------------------------------------------------------------------------------------------------------


def test_a_trip_byte_by_byte() -> None:
    """Round 2, alarm 3 min, limit 4 half hours: 4A, F1 of p2, PW, time tag of now with 5 minutes."""
    requests: list[Request] = []

    def terminal(m: Message) -> list[Message]:
        return [confirm(m)]

    exchange = open_exchange(
        DEVICE, PROFILE, item(Duty.CONTROL, action=action(A.TRIP, round=2, alarm_min=3, limit_half_hours=4)),
        Credentials(password="1234"), session=session(tp="control", tp_delay_min=5, msa=9),
    )  # fmt: skip
    request = exchange.next_request(NOW_US)
    assert request is not None
    requests.append(request)
    head = "68 8E 00 8E 00 68 4A 01 33 34 12 12 05 E0 02 01 01 00 34"
    body = bytes.fromhex(head + "12 34" + "00" * 14 + "00 03 07 10 20 05")
    user = body[6:]
    frame = body + bytes((sum(user) & 0xFF, 0x16))
    assert request.data == frame
    assert terminal(asked(request.data))
    assert exchange.receive(frame_of(confirm(asked(request.data))), NOW_US + US)
    assert exchange.next_request(NOW_US + US) is None
    found = exchange.outcome(NOW_US + US).answer
    assert found is not None and (found.sent, found.acknowledged, found.refusal) == (True, True, "")
    out = found.frames[0]
    assert out.direction == "out" and out.hex.count("**") == 16 and "1234000000" not in out.hex
    assert found.frames[1].direction == "in"


def frame_of(message: Message) -> bytes:
    """Its bytes."""
    from fuhe.protocols.qgdw1376.message import build

    return build(message, EDITION).encode()


@pytest.mark.parametrize(
    ("kind", "fn", "pn", "fields", "data"),
    [
        (A.PERMIT_CLOSE, 2, 3, {"round": 3}, {}), (A.DIRECT_CLOSE, 2, 3, {"round": 3}, {}),
        (A.PERIOD_ON, 9, 2, {"params": PARAMS}, {"periods": [1, 2, 3, 4, 5, 6, 7, 8], "scheme": 1}),
        (A.REST_ON, 10, 2, {}, {}), (A.SUSPENSION_ON, 11, 2, {}, {}),
        (A.FLOAT_ON, 12, 2,
         {"params": {"slip_min": 5, "percent": -20, "freeze_min": 3, "half_hours": 4}, "rounds": (1, 3),
          "alarm_min": 6},
         {"slide_min": 5, "float_percent": -20, "freeze_delay_min": 3, "control_half_hours": 4,
          "alarm_min": [6, 0, 6, 0]}),
        (A.MONTH_ON, 15, 2, {}, {}), (A.PURCHASE_ON, 16, 2, {}, {}), (A.PERIOD_OFF, 17, 2, {}, {}),
        (A.REST_OFF, 18, 2, {}, {}), (A.SUSPENSION_OFF, 19, 2, {}, {}), (A.FLOAT_OFF, 20, 2, {}, {}),
        (A.MONTH_OFF, 23, 2, {}, {}), (A.PURCHASE_OFF, 24, 2, {}, {}),
        (A.PROTECT_ON, 25, 0, {"params": {"half_hours": 3}}, {"half_hours": 3}), (A.REMIND_ON, 26, 0, {}, {}),
        (A.EXCLUDE_ON, 28, 0, {}, {}), (A.PROTECT_OFF, 33, 0, {}, {}), (A.REMIND_OFF, 34, 0, {}, {}),
        (A.EXCLUDE_OFF, 36, 0, {}, {}),
    ],
)  # fmt: skip
def test_every_action_has_its_class(
    kind: ActionKind, fn: int, pn: int, fields: dict[str, object], data: Mapping[str, object]
) -> None:
    found, outcome, sent = carry(action(kind, group=2, **fields), lambda m: [confirm(m)])
    assert [(m.afn, m.units[0].pn, m.units[0].fn, m.units[0].data) for m in sent] == [(5, pn, fn, data)]
    assert sent[0].tp is not None and sent[0].tp.delay_min == 5 and not sent[0].address.group
    assert (found.sent, found.acknowledged, outcome.status) == (True, True, Status.DONE)


def test_a_command_is_never_repeated_on_silence() -> None:
    found, outcome, sent = carry(action(A.TRIP), silent)
    assert len(sent) == 1, "three tries are in the profile, one is made"
    assert (found.sent, found.acknowledged, outcome.status) == (True, None, Status.SILENT)


def partly(to: Message, err: int) -> list[Message]:
    """AFN 00 F3: item by item."""
    unit = to.units[0]
    data: dict[str, object] = {"afn": f"{to.afn:02X}", "results": [{"pn": [unit.pn], "fn": [unit.fn], "err": err}]}
    return [answer(to, (Unit(0, 3, data),), afn=0, function=0)]


@pytest.mark.parametrize(
    ("answers", "acknowledged", "status", "refusal"),
    [
        (lambda m: [deny(m)], False, Status.REFUSED, "denies"),
        (lambda m: partly(m, 0), True, Status.DONE, ""),
        (lambda m: partly(m, 1), False, Status.REFUSED, "p1 F1: ERR 1"),
    ],
)  # fmt: skip
def test_what_the_terminal_says(
    answers: Callable[[Message], list[Message]], acknowledged: bool | None, status: Status, refusal: str
) -> None:
    found, outcome, _ = carry(action(A.TRIP), answers)
    assert (found.acknowledged, outcome.status) == (acknowledged, status) and refusal in found.refusal


def test_answers_of_others_are_no_answer() -> None:
    other = session(msa=3).address
    for wrong in (
        lambda m: [replaced(confirm(m), address=replace_address(m, msa=3))],
        lambda m: [replaced(confirm(m), address=replace_address(m, a2=other.a2 + 1))],
        lambda m: [replaced(confirm(m), seq=(m.seq + 5) % 16, tp=None)],
        lambda m: [replaced(confirm(m), up=False)],
    ):
        found, _, _ = carry(action(A.TRIP), wrong)
        assert found.acknowledged is None


def replaced(message: Message, **changes: object) -> Message:
    """A changed message."""
    import msgspec

    return msgspec.structs.replace(message, **changes)


def replace_address(message: Message, **changes: object) -> object:
    """A changed address."""
    import msgspec

    return msgspec.structs.replace(message.address, **changes)


@pytest.mark.parametrize(
    ("act", "more", "named"),
    [
        (action(A.ALARM_ON), {}, "alarm_on"), (action(A.TRIP, round=5), {}, "round 5"),
        (action(A.PERIOD_ON, group=9, params=PARAMS), {}, "9"), (action(A.TRIP, alarm_min=16), {}, "0 to 15"),
        (action(A.PERIOD_ON), {}, "scheme"), (action(A.WRITE_SETTINGS), {}, "parameters"),
        (action(A.WRITE_SETTINGS, settings=(Setting(item="F999"),)), {}, "F999"),
        (action(A.WRITE_SETTINGS, settings=(Setting(item="F17", values={"limit_kw": 1234}),)), {}, "A.2"),
        (action(A.TRIP), {"with_session": session(tp="never")}, "time tag"),
        (action(A.TRIP), {"with_session": session(tp="control", tp_delay_min=0)}, "time tag"),
        (action(A.TRIP), {"with_profile": profile()}, "terminal control"),
    ],
)  # fmt: skip
def test_what_must_not_be_sent_is_refused_before_a_byte_leaves(
    act: ControlAction, more: dict[str, object], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        carry(act, silent, **more)


def test_group_and_broadcast_addresses_never() -> None:
    for text in ("3301-65535", "FFFF-1"):
        own = session(tp="control")
        own.address = own.address._replace(a1=text[:4], a2=int(text[5:]))
        with pytest.raises(UsageError, match="broadcast"):
            carry(action(A.TRIP), silent, with_session=own)


def test_nothing_leaves_that_could_act_behind_its_validity() -> None:
    """A time tag of 5 minutes and 4 minutes of validity: the frame would still be obeyed when nobody wants it."""
    found, outcome, sent = carry(action(A.TRIP, valid_until_us=NOW_US + 240 * US), lambda m: [confirm(m)])
    assert not sent and (found.sent, found.acknowledged, outcome.status) == (False, None, Status.EXPIRED)


# -- parameters -------------------------------------------------------------------------------------------------------


def stored(spoil: Mapping[str, object] | None = None, refuse: bool = False) -> Paper:
    """A terminal that keeps what is written and tells it again (or something else)."""
    paper = Paper()
    plain = Paper.__call__

    def call(request: Message) -> list[Message]:
        if request.afn == 4:
            paper.seen.append(request)
            if refuse:
                return [deny(request)]
            for unit in request.units:
                data = dict(unit.data or {})
                if spoil and spoil.get("fn") == unit.fn:
                    data |= dict(spoil["data"])  # type: ignore[call-overload]
                paper.content[0x0A, unit.pn, unit.fn] = data
            return [confirm(request)]
        return plain(paper, request)

    paper.reply = call  # type: ignore[attr-defined]
    return paper


PERIOD = action(A.PERIOD_ON, group=2, rounds=(1, 3), alarm_min=5, params=PARAMS)


def write(settings: tuple[Setting, ...]) -> ControlAction:
    """Writing these parameters."""
    return action(A.WRITE_SETTINGS, settings=settings)


def test_parameters_are_written_read_back_and_compared() -> None:
    paper = stored()
    wanted = settings_of(PERIOD, "2013")
    found, outcome, sent = carry(write(wanted), paper.reply)  # type: ignore[attr-defined]
    assert [m.afn for m in sent] == [4, 10], "one frame each"
    assert (found.sent, found.acknowledged, outcome.status) == (True, True, Status.DONE)
    assert [(r.item, r.pn, r.written, r.equal) for r in found.settings] == [
        ("F18", 0, True, True), ("F19", 0, True, True), ("F41", 2, True, True), ("F43", 2, True, True),
        ("F45", 2, True, True), ("F49", 1, True, True), ("F49", 3, True, True),
    ]  # fmt: skip
    assert all(r.read == r.wanted for r in found.settings)
    assert found.settings[2].wanted == {
        "schemes": [2], "limits": [{"periods": [1, 2, 3, 4, 5, 6, 7, 8], "limits_kw": ["800"] * 8}],
    }  # fmt: skip


def test_a_difference_is_named_field_by_field() -> None:
    paper = stored({"fn": 45, "data": {"rounds": [1, 2]}})
    found, _, _ = carry(write(settings_of(PERIOD, "2013")), paper.reply)  # type: ignore[attr-defined]
    wrong = [r for r in found.settings if not r.equal]
    assert [(r.item, r.differences, r.read) for r in wrong] == [("F45", ("rounds",), {"rounds": [1, 2]})]
    assert found.acknowledged is True, "accepted and yet not as wanted: two facts"


def test_refused_parameters_are_read_back_all_the_same() -> None:
    paper = stored(refuse=True)
    paper.content[0x0A, 0, 17] = {"limit_kw": Decimal(300)}
    found, outcome, sent = carry(
        write((Setting(item="F17", values={"limit_kw": "400"}),)), paper.reply  # type: ignore[attr-defined]
    )  # fmt: skip
    assert [m.afn for m in sent] == [4, 10] and outcome.status is Status.REFUSED
    (result,) = found.settings
    assert (found.acknowledged, result.written, result.read, result.equal) == (False, False, {"limit_kw": "300"}, False)


def test_silence_while_writing_is_settled_by_reading() -> None:
    """The frame arrived, its confirmation did not: read back and equal is what counts."""
    paper = stored()

    def mute(request: Message) -> list[Message]:
        answers: list[Message] = paper.reply(request)  # type: ignore[attr-defined]
        return [] if request.afn == 4 else answers

    found, _, sent = carry(write((Setting(item="F17", values={"limit_kw": "400"}),)), mute)
    assert [m.afn for m in sent] == [4, 10], "written once"
    (result,) = found.settings
    assert (found.acknowledged, result.written, result.equal) == (None, None, True)
    found, outcome, sent = carry(write((Setting(item="F17", values={"limit_kw": "400"}),)), silent)
    assert [m.afn for m in sent] == [4, 10, 10, 10] and outcome.status is Status.SILENT
    assert found.settings[0].read is None and not found.settings[0].equal


def test_lists_go_in_several_frames_each_read_back_and_their_passwords_are_not_kept() -> None:
    entry: dict[str, object] = {
        "device_no": 1, "pn": 1, "baud_code": 0, "port": 2, "protocol": 30, "address": "000000000001", "tariffs": 4,
        "password_hex": "A1A2A3A4A5A6", "int_digits": 6, "dec_digits": 2, "collector": "000000000000",
        "user_class": [0, 0],
    }  # fmt: skip
    single = tuple(Setting(item="F10", values={"n": 1, "devices": [entry | {"device_no": n}]}) for n in (1, 2, 3))
    held: list[dict[str, object]] = []

    def archive(request: Message) -> list[Message]:
        data: Any = request.units[0].data or {}
        if request.afn == 4:
            held.extend(data["devices"])
            return [confirm(request)]
        found = [d for d in held if d["device_no"] in data["device_no"]]
        return [answer(request, (Unit(0, 10, {"n": len(found), "devices": found}),))]

    found, _, sent = carry(write(single), archive)
    assert [m.afn for m in sent] == [4, 4, 4, 10, 10, 10], "never the same class twice in a frame"
    assert [r.equal for r in found.settings] == [True] * 3
    assert "A1A2A3" not in "".join(f.hex for f in found.frames) + str(found.settings)


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        (A.REST_ON, {"limit_kw": 1234.5, "start": "8:00", "half_hours": 20, "weekdays": [6, 7], "slip_min": 5},
         {"F42": {"limit_kw": "1240", "start": "08:00", "half_hours": 20, "weekdays": [6, 7]},
          "F43": {"slide_min": 5}, "F45": {"rounds": [1, 3]}, "F49": {"alarm_min": 5}}),
        (A.SUSPENSION_ON, {"limit_kw": 60, "from": "2026-07-01", "to": "2026-07-31", "slip_min": 5},
         {"F44": {"start": "2026-07-01", "end": "2026-07-31", "limit_kw": "60.0"}, "F43": {"slide_min": 5},
          "F45": {"rounds": [1, 3]}, "F49": {"alarm_min": 5}}),
        (A.FLOAT_ON, {"slip_min": 5, "percent": -20, "freeze_min": 3, "half_hours": 4},
         {"F43": {"slide_min": 5}, "F45": {"rounds": [1, 3]}, "F49": {"alarm_min": 5}}),
        (A.MONTH_ON, {"kwh": 120000.0, "float_percent": 0, "alarm_percent": 80},
         {"F20": {"float_percent": 0}, "F46": {"limit": "120000", "alarm_percent": 80}, "F48": {"rounds": [1, 3]}}),
        (A.PURCHASE_ON, {"order_no": 7, "mode": "add", "kwh": 1000.0, "alarm_kwh": 100.0, "trip_kwh": 0.0},
         {"F47": {"order_no": 7, "mode": 85, "amount": "1000", "alarm_limit": "100", "trip_limit": "0"},
          "F48": {"rounds": [1, 3]}}),
    ],
)  # fmt: skip
def test_what_stands_before_each_control(
    kind: ActionKind, params: dict[str, object], expected: dict[str, object]
) -> None:
    found = settings_of(action(kind, group=2, rounds=(1, 3), alarm_min=5, params=params), "2013")
    assert {s.item: dict(s.values) for s in found} == expected
    older = settings_of(action(kind, group=2, rounds=(1, 3), alarm_min=5, params=params), "2009")
    assert "alarm_percent" not in {k for s in older for k in s.values}


def test_periods_of_a_day() -> None:
    """Two touching periods and one apart: 1 uncontrolled, 2 and 3 with codes 1 and 2, 4 uncontrolled, 5, 6."""
    params = PARAMS | {"windows": "8:00-10:00@700,10:00-12:00@600,20:00-21:00"}
    found = {s.item: s.values for s in settings_of(replace(PERIOD, params=params), "2013")}
    codes = [0] * 16 + [1] * 4 + [2] * 4 + [0] * 16 + [1] * 2 + [0] * 6
    assert found["F18"] == {"half_hours": codes}
    limits = found["F41"]["limits"]
    assert isinstance(limits, list) and limits[0]["limits_kw"] == [
        "700",
        "700",
        "600",
        "700",
        "800",
        "700",
        "700",
        "700",
    ]
    with pytest.raises(UsageError, match="no rounds"):
        settings_of(replace(PERIOD, rounds=()), "2013")
    with pytest.raises(UsageError, match="no parameters"):
        settings_of(replace(PERIOD, kind=A.TRIP), "2013")


@given(st.floats(0.01, 900_000))
def test_limits_are_rounded_up_and_never_far(value: float) -> None:
    text = Decimal(kw_text(value))
    assert Decimal(str(value)) <= text <= Decimal(str(value)) * Decimal("1.011") + Decimal("0.001")
    assert len(text.normalize().as_tuple().digits) <= 3


# -- state ------------------------------------------------------------------------------------------------------------

F5 = {
    "arrears": 0, "removed": 1, "protected": 0, "groups": [1, 2],
    "settings": [
        {"scheme": 1, "periods": [1], "reduction": 0, "suspension": 0, "day_off": 0, "period": 1, "prepaid": 0,
         "month": 1, "power_rounds": [1], "energy_rounds": []},
        {"scheme": 0, "periods": [], "reduction": 1, "suspension": 0, "day_off": 0, "period": 0, "prepaid": 0,
         "month": 0, "power_rounds": [1], "energy_rounds": []},
    ],
}  # fmt: skip
_STATE = {
    "limit": Decimal(800), "reduction": 0, "power_rounds": [2], "month_rounds": [], "prepaid_rounds": [],
    "reduction_alarm": 0, "suspension_alarm": 0, "day_off_alarm": 0, "period_alarm": 1, "prepaid_alarm": 0,
    "month_alarm": 0,
}  # fmt: skip
F6 = {"remote_rounds": [1], "arrears_alarm": 0, "groups": [1], "states": [_STATE]}


def test_the_state_is_one_question_and_a_reading_besides() -> None:
    paper = Paper(
        {(12, 0, 2): {"clock": NOW + timedelta(seconds=3)}, (12, 0, 5): F5, (12, 0, 6): F6,
         (12, 1, 17): {"power": Decimal(1230)}, (12, 0, 9): {"state": [3], "changed": []},
         (10, 0, 17): {"limit_kw": Decimal(400)}}
    )  # fmt: skip
    own = session(tp="control")
    asking = action(A.READ_STATE, round=1, group=1, contact=3, params={"setpoint": True})
    found, outcome, sent = carry(asking, paper, with_session=own)
    assert [m.afn for m in sent] == [12, 10] and not found.sent and outcome.status is Status.DONE
    s = found.state
    assert s is not None
    assert (s.open, s.command_trip, s.tripped, s.outputs) == (False, True, (1,), (1, 2))
    assert (s.protected, s.excluded, s.remind, s.engaged) == (False, True, False, ("period", "month"))
    assert (s.limit_kw, s.power_kw, s.setpoint_kw) == (800.0, 1230.0, 400.0)
    assert s.clock_offset_s == pytest.approx(3, abs=1) and own.clock_offset_s == pytest.approx(3, abs=1)
    batch = outcome.batch
    assert batch is not None and batch.samples is not None
    assert batch.samples.value.tolist() == [1230.0] and batch.samples.point.tolist() == [75]
    assert batch.samples.quantity.tolist() == [quantity("group_power").id]


def test_what_the_terminal_leaves_out_is_not_known() -> None:
    found, _, sent = carry(action(A.READ_STATE, group=2), Paper({(12, 0, 5): F5}))
    assert [m.afn for m in sent] == [12] and 9 not in {u.fn for u in sent[0].units}
    s = found.state
    assert s is not None and s.engaged == ("float",) and s.protected is False
    assert (s.open, s.command_trip, s.outputs, s.power_kw, s.setpoint_kw, s.clock_offset_s) == (None,) * 6
    found, outcome, sent = carry(action(A.READ_STATE), silent)
    assert found.state is None and outcome.status is Status.SILENT and len(sent) == 3, "a question may be repeated"
    found, outcome, _ = carry(action(A.READ_STATE), lambda m: [deny(m)])
    assert found.state is None


@pytest.mark.parametrize(
    ("contact", "state", "is_open"), [(3, [3], False), (3, [], True), (-3, [3], True), (-3, [], False)]
)
def test_contacts_both_ways_round(contact: int, state: list[int], is_open: bool) -> None:
    unit = Unit(0, 9, {"state": state, "changed": []})
    assert state_of([unit], Spot(contact=contact), NOW_US).open is is_open
    assert state_of([unit], Spot(), NOW_US).open is None


# -- frames and passwords ---------------------------------------------------------------------------------------------


def test_masking() -> None:
    down = "688E008E0068 4A 3301341212 05 E0 01010100 11" + "AB" * 16 + "000307102005 0016"
    text = masked(bytes.fromhex(down), 16, frozenset({5}))
    assert text.count("**") == 16 and text.endswith("0003071020050016") and "ABAB" not in text
    up = bytes.fromhex("68320032006880 3301341212 00 60 00000100 0016")
    assert "**" not in masked(up, 16, frozenset({5}))
    hidden = masked(bytes.fromhex(down.replace("12 05", "12 04")), 16, frozenset({4}), hide=True)
    assert hidden.count("**") == 4 + 1 + 16
    assert masked(b"\x01\x02", 16, frozenset()) == "0102"


def test_providers_by_name_and_by_class_path() -> None:
    secret = Credentials(password="1234", key=base64.b64encode(b"k" * 16).decode())
    assert provider("cleartext", 2, secret).pw(b"x") == b"\x12\x34"
    assert len(provider("hmac-test", 16, secret).pw(b"x")) == 16
    assert provider("cleartext", 16, Credentials()).pw(b"x") == bytes(16)
    made = provider(f"{make_machine.__module__}:make_machine", 16, secret)
    assert made.pw(b"data") == b"M" * 16
    for wrong, named in (
        ("nobody", "nobody"),
        ("no.such:thing", "no.such"),
        ("json:nothing", "json"),
        ("json:__doc__", "json:__doc__"),
    ):
        with pytest.raises(UsageError, match=named):
            provider(wrong, 16, secret)
    with pytest.raises(UsageError, match="base64"):
        provider("hmac-test", 16, Credentials(key="?"))


class Machine:
    """A crypto machine of paper."""

    def pw(self, data: bytes) -> bytes:
        """Always the same."""
        return b"M" * 16

    def verify(self, data: bytes, pw: bytes) -> bool:
        """Never asked."""
        return False


def make_machine(pw_length: int, credentials: Credentials) -> Machine:
    """As a package would offer it."""
    assert pw_length == 16
    return Machine()


@pytest.mark.parametrize(
    ("terminal", "control", "named"),
    [
        ({"tp": "never"}, {}, "terminal.tp"), ({"tp_delay_min": 0}, {}, "terminal.tp_delay_min"),
        ({"tp_delay_min": 11}, {}, "terminal.tp_delay_min"), ({}, {"kinds": ["boom"]}, "control.kinds[0]"),
        ({}, {"means": "dlt645-1c"}, "control.means"),
    ],
)  # fmt: skip
def test_a_profile_that_could_not_tell_old_commands_is_refused(
    terminal: dict[str, object], control: dict[str, object], named: str
) -> None:
    tree: dict[str, object] = {
        "name": "t", "title_en": "t", "title_zh": "t", "protocol": "qgdw1376", "version": "2013", "max_points": 8,
        "terminal": terminal, "control": {"means": "qgdw1376-05", "rounds": 4, **control},
    }  # fmt: skip
    assert named in [path for path, _ in check_tree(tree)]
    assert check_tree(tree | {"terminal": {}, "control": {"means": "qgdw1376-05"}}) == []
    assert order_unit(action(A.TRIP)).fn == 1
