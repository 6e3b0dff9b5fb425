"""Control of a Q/GDW 376.1 terminal: one AFN 05 command, or parameters written (AFN 04) and read back (AFN 0A), or its
control state (AFN 0C). Sent, acknowledged and read back are three facts.

A command goes out once, to one terminal, with PW and a time tag whose delay is not 0 (which would mean "not checked");
after silence nothing is repeated: who asked reads the state. Parameters are written once as well; whatever came of it,
they are read back, and only that counts. Frames are kept for the audit with PW and passwords masked.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from datetime import datetime
from typing import Final

from ...model.control import (
    ActionKind,
    ControlAction,
    ControlAnswer,
    FrameLog,
    Setting,
    SettingResult,
    Spot,
    SwitchState,
)
from ...model.devices import Device
from ...model.lang import tr
from ...model.quality import Source
from ...model.quantities import quantity
from ...model.readings import ParameterValue
from ...model.times import US, business_to_us
from ...model.work import Request, Status, WorkItem
from ...protocols.common.errors import UsageError
from ...protocols.qgdw1376.units import Unit, unit_bytes
from .. import parameters
from ..parameter_fields import shape
from ..profile import Profile
from ..terminal_control import (
    CONTROL_AFN,
    SET_AFN,
    WRITE_BYTES,
    native,
    order_unit,
    plain_values,
    state_of,
    state_units,
)
from ..terminal_events import is_secret
from .qgdw1376 import Missing, Script, TerminalExchange
from .qgdw1376_parameter import canonical
from .qgdw1376_plan import HEAD, Item
from .qgdw1376_transaction import Answer, Ask, Peer, Verdict

GET_AFN: Final = 0x0A
STATE_AFN: Final = 0x0C
SETPOINT: Final = 17
EVERYBODY: Final = 0xFFFF
_STATE_BYTES: Final = 120
_USER: Final = 12  # place of AFN in a frame without lead bytes


class ControlExchange(TerminalExchange):
    """The exchange of one control item; keeps frames and tells what left."""

    def __init__(self, device: Device, profile: Profile, item: WorkItem, peer: Peer, action: ControlAction) -> None:
        super().__init__(device, profile, item, peer)
        self.action = action
        self.sent = False
        self.acknowledged: bool | None = None
        self.refusal = ""
        self.state: SwitchState | None = None
        self.results: tuple[SettingResult, ...] = ()
        self.changes = 0  # asks that change something and have been handed out
        self.secret = _secret(action.settings)
        self._logs: list[FrameLog] = []
        self.note()

    def next_request(self, now_us: int) -> Request | None:
        """As in TerminalExchange; what leaves is kept, and a command that was handed out counts as sent."""
        request = super().next_request(now_us)
        if request is not None:
            afn = _afn(request.data)
            if afn in (SET_AFN, CONTROL_AFN):
                self.sent = True
                self.changes += 1
                self.status = Status.SILENT  # if the link is lost now: sent, nothing known
            self.log("out", request.data)
            self.note()
        return request

    def log(self, direction: str, data: bytes) -> None:
        """Keep a frame, masked; of questions about the state nobody asks for them."""
        if self.action.kind is ActionKind.READ_STATE:
            return
        hex_ = masked(data, self.peer.edition.pw_length, self.peer.edition.pw_afn, hide=self.secret)
        self._logs.append(FrameLog(time_us=self.now_us, direction=direction, hex=hex_))

    def heard_frames(self, answer: Answer | None) -> None:
        """Keep the frames of an answer."""
        for frame in answer.frames if answer is not None else ():
            self.log("in", frame.encode())

    def note(self) -> None:
        """What is known so far, for whoever asks early."""
        self.answer = ControlAnswer(
            action_id=self.action.id,
            sent=self.sent,
            acknowledged=self.acknowledged,
            refusal=self.refusal,
            state=self.state,
            settings=self.results,
            frames=tuple(self._logs),
        )

    def expired(self) -> bool:
        """True if it is too late to send, with the reason noted."""
        left_s = (self.action.valid_until_us - self.now_us) / US
        if left_s < 60 * self.session.settings.tp_delay_min:
            self.status = Status.EXPIRED
            self.reason = tr(
                "too late: the time tag would let it act behind the command's validity",
                "过迟: 按时间标签可能在命令失效后动作",
            )
            return True
        return False


def open_control(device: Device, profile: Profile, item: WorkItem, peer: Peer) -> ControlExchange:
    """The exchange of a control item. UsageError at once where it cannot or must not be carried out."""
    action, plan = item.action, profile.control
    if action is None or plan is None or plan.means != "qgdw1376-05":
        raise UsageError(
            tr(
                f"profile {profile.name} has no terminal control (control.means = qgdw1376-05)",
                f"设备档 {profile.name} 没有终端控制 (control.means = qgdw1376-05)",
            )
        )
    address = peer.address
    if address.group or address.a2 in (0, EVERYBODY) or set(address.a1) <= {"F"}:
        raise UsageError(tr("a group or broadcast address: never for control", "组地址或广播地址不得用于控制"))
    exchange = ControlExchange(device, profile, item, peer, action)
    if action.kind is ActionKind.READ_STATE:
        return _started(exchange, _read_state(exchange))
    settings = peer.session.settings
    if settings.tp == "never" or settings.tp_delay_min < 1:
        raise UsageError(
            tr(
                "a command without a time tag whose delay is above 0 is not sent: terminal.tp, terminal.tp_delay_min",
                "无时间标签或延时为 0 的命令不予发送: terminal.tp, terminal.tp_delay_min",
            )
        )
    if action.kind in (ActionKind.WRITE_SETTINGS, ActionKind.READ_SETTINGS):
        wanted = [native(s, peer.edition.name, device.name) for s in action.settings]
        if not wanted:
            raise UsageError(tr("no parameters are named", "未指明参数"))
        return _started(exchange, _settings(exchange, wanted, write=action.kind is ActionKind.WRITE_SETTINGS))
    if action.kind in (ActionKind.TRIP, ActionKind.PERMIT_CLOSE, ActionKind.DIRECT_CLOSE) and (
        not 1 <= action.round <= plan.rounds
    ):
        text = tr(f"the terminal has no round {action.round}", f"终端没有第 {action.round} 轮")
        raise UsageError(text)
    unit = order_unit(action)
    unit_bytes(unit, CONTROL_AFN, False, peer.edition.name)  # a UsageError comes here, not later
    return _started(exchange, _command(exchange, unit))


def _started(exchange: ControlExchange, script: Script) -> ControlExchange:
    exchange.start(script)
    return exchange


# -- a command --------------------------------------------------------------------------------------------------------


def _command(exchange: ControlExchange, unit: Unit) -> Script:
    if exchange.expired():
        return
    answer = yield Ask(afn=CONTROL_AFN, units=(unit,), repeat=False)
    exchange.heard_frames(answer)
    exchange.acknowledged, exchange.refusal = _judged(answer)
    exchange.reason = exchange.refusal
    exchange.status = {True: Status.DONE, False: Status.REFUSED, None: Status.SILENT}[exchange.acknowledged]
    exchange.note()


def _judged(answer: Answer | None) -> tuple[bool | None, str]:
    """(accepted, reason): None where nothing came, or nothing that can be understood."""
    if answer is None:
        return None, ""
    match answer.verdict:
        case Verdict.CONFIRMED:
            return True, ""
        case Verdict.DENIED:
            return False, answer.reason or tr("the terminal denies it (AFN 00 F2)", "终端否认 (AFN 00 F2)")
        case Verdict.PARTLY:
            errors = answer.errors()
            wrong = sorted(f"p{pn} F{fn}: ERR {code}" for (pn, fn), code in errors.items() if code)
            return (not wrong if errors else None), "; ".join(wrong)
        case _:
            return None, answer.reason or tr("an answer that cannot be understood", "应答无法理解")


# -- parameters -------------------------------------------------------------------------------------------------------


def _settings(exchange: ControlExchange, wanted: Sequence[parameters.Setting], *, write: bool) -> Script:
    """Write (if asked to), then read everything back, whatever came of the writing; compare."""
    written: list[bool | None] = [None] * len(wanted)
    faults = [""] * len(wanted)
    exchange.results = tuple(_result(s, None, None, "") for s in wanted)
    exchange.note()
    if write:
        if exchange.expired():
            return
        for numbers in _batches(wanted):
            units = tuple(parameters.unit_of(wanted[i]) for i in numbers)
            answer = yield Ask(afn=SET_AFN, units=units, repeat=False)
            exchange.heard_frames(answer)
            accepted, reason = _judged(answer)
            errors = answer.errors() if answer is not None and answer.verdict is Verdict.PARTLY else {}
            for i in numbers:
                code = errors.get((wanted[i].pn, wanted[i].fn))
                written[i] = accepted if code is None else code == 0
                faults[i] = reason if not accepted else ""
            if answer is None and not exchange.heard:
                break  # nobody there: the rest is not sent into the dark
        exchange.session.forget_denials()
        exchange.acknowledged = False if False in written else None if None in written else True
        exchange.refusal = "; ".join(sorted({f for f, w in zip(faults, written, strict=True) if w is False and f}))
        exchange.note()
    found = yield from _read_back(exchange, wanted, faults)
    exchange.results = tuple(
        _result(s, w, data, fault) for s, w, data, fault in zip(wanted, written, found, faults, strict=True)
    )
    _keep_parameters(exchange, wanted, found)
    exchange.status = _settings_status(exchange, found)
    exchange.reason = exchange.refusal
    exchange.note()


def _keep_parameters(
    exchange: ControlExchange, wanted: Sequence[parameters.Setting], found: Sequence[dict[str, object] | None]
) -> None:
    """What was read back is a reading of a parameter like any other (of a list only a part was asked for: not kept)."""
    for setting, data in zip(wanted, found, strict=True):
        if data is not None and not shape(setting.row).key:
            item = Item(GET_AFN, setting.fn, setting.pn or None).text
            exchange.parameters.append(
                ParameterValue(device=exchange.device.id, item=item, value=canonical(data), time_us=exchange.now_us)
            )


def _settings_status(exchange: ControlExchange, found: Sequence[object]) -> Status:
    if not exchange.heard:
        return Status.SILENT
    if exchange.acknowledged is False:
        return Status.REFUSED
    return Status.PARTIAL if None in found else Status.DONE


def _read_back(
    exchange: ControlExchange, wanted: Sequence[parameters.Setting], faults: list[str]
) -> Generator[Ask, Answer | None, list[dict[str, object] | None]]:
    found: list[dict[str, object] | None] = [None] * len(wanted)
    for numbers in _batches(wanted):
        questions = tuple(parameters.question_of(wanted[i]) for i in numbers)
        size = HEAD + sum(len(parameters.encode(wanted[i])) + 4 for i in numbers)
        answer = yield Ask(afn=GET_AFN, units=questions, answer_bytes=size)
        exchange.heard_frames(answer)
        if answer is None:
            faults[:] = [
                f or tr("no answer to the read-back", "回读无应答") if i in numbers else f for i, f in enumerate(faults)
            ]
            if not exchange.heard:
                return found
            continue
        told = {(u.pn, u.fn): u for u in answer.units()} if answer.verdict is Verdict.DATA else {}
        for i in numbers:
            unit = told.get((wanted[i].pn, wanted[i].fn))
            if unit is not None and unit.data is not None:
                found[i] = unit.data
            else:
                why = unit.fault if unit is not None else answer.reason
                faults[i] = faults[i] or why or tr("the terminal left it out", "终端未给出")
    return found


def _result(
    setting: parameters.Setting, written: bool | None, data: dict[str, object] | None, fault: str
) -> SettingResult:
    differences = () if data is None else tuple(d.path for d in parameters.compare(setting, data))
    return SettingResult(
        item=f"F{setting.fn}",
        pn=setting.pn,
        wanted=plain_values(setting.data),
        written=written,
        read=None if data is None else plain_values(data),
        differences=differences,
        fault=fault,
    )


def _batches(wanted: Sequence[parameters.Setting]) -> Iterator[list[int]]:
    """Numbers of the settings that go into one frame: as many as fit, never the same class and point twice."""
    batch: list[int] = []
    size, keys = 0, set[tuple[int, int]]()
    for i, setting in enumerate(wanted):
        own, key = len(parameters.encode(setting)) + 4, (setting.pn, setting.fn)
        if batch and (size + own > WRITE_BYTES or key in keys):
            yield batch
            batch, size, keys = [], 0, set()
        batch.append(i)
        size += own
        keys.add(key)
    if batch:
        yield batch


# -- the state --------------------------------------------------------------------------------------------------------


def _read_state(exchange: ControlExchange) -> Script:
    """Clock, control settings and state, the group's power, contacts; with params["setpoint"] the security setpoint."""
    action = exchange.action
    spot = _spot(action)
    try:
        answer = yield from exchange.asked(Ask(afn=STATE_AFN, units=state_units(spot), answer_bytes=_STATE_BYTES))
    except Missing as missing:
        exchange.reason = missing.reason
        exchange.note()
        return
    exchange.heard_frames(answer)
    units = answer.units()
    setpoint: float | None = None
    if action.params.get("setpoint"):
        try:
            told = yield from exchange.asked(Ask(afn=GET_AFN, units=(Unit(0, SETPOINT, {}),)))
            exchange.heard_frames(told)
            setpoint = _setpoint(told)
        except Missing as missing:
            exchange.fault(f"{GET_AFN:02X}:F{SETPOINT}", missing)
    exchange.state = state_of(units, spot, exchange.now_us, setpoint)
    _keep(exchange, units, answer)
    exchange.note()


def _spot(action: ControlAction) -> Spot:
    return Spot(round=action.round, group=action.group, rounds=action.rounds, contact=action.contact)


def _setpoint(answer: Answer) -> float | None:
    for unit in answer.units():
        if unit.fn == SETPOINT and unit.data is not None and unit.data.get("limit_kw") is not None:
            return float(str(unit.data["limit_kw"]))
    return None


def _keep(exchange: ControlExchange, units: Sequence[Unit], answer: Answer) -> None:
    """The group's power is a reading like any other, and the clock tells the session."""
    state = exchange.state
    if state is not None and state.power_kw is not None:
        group = exchange.action.group
        point = next((p.id for p in exchange.device.points if p.kind == "group" and p.pn == group), None)
        exchange.sample(point, quantity("group_power").id, state.power_kw, exchange.now_us, Source.CONTROL)
    for unit in units:
        clock = unit.data.get("clock") if unit.fn == 2 and unit.data is not None else None
        if isinstance(clock, datetime):
            middle_us = (answer.sent_us + answer.came_us) // 2
            exchange.session.clock_us = middle_us
            exchange.session.clock_offset_s = (business_to_us(clock) - middle_us) / US


# -- what is kept -----------------------------------------------------------------------------------------------------


def _afn(data: bytes) -> int:
    start = data.find(0x68)
    return data[start + _USER] if len(data) > start + _USER else -1


def _secret(settings: Sequence[Setting]) -> bool:
    """Whether any of these parameters holds a password."""

    def inside(value: object) -> bool:
        if isinstance(value, dict):
            return any(is_secret(str(k)) or inside(v) for k, v in value.items())
        return isinstance(value, (list, tuple)) and any(inside(v) for v in value)

    return any(inside(dict(s.values)) for s in settings)


def masked(data: bytes, pw_length: int, pw_afn: frozenset[int], *, hide: bool = False) -> str:
    """A frame in hexadecimal with PW as **; hide: all data units as well (they hold passwords)."""
    start = data.find(0x68)
    body = data[start:]
    if start < 0 or len(body) < _USER + 4:
        return data.hex().upper()
    down, afn, seq = not body[6] & 0x80, body[_USER], body[_USER + 1]
    end = len(body) - 2 - (6 if seq & 0x80 else 0) - (2 if not down and body[6] & 0x20 else 0)
    pw = end - (pw_length if down and afn in pw_afn else 0)
    first = _USER + 2 if hide and afn in (SET_AFN, GET_AFN) else pw
    return body[:first].hex().upper() + "**" * (end - first) + body[max(first, end) :].hex().upper()
