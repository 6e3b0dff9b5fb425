"""Script that drives a meter's relay (1CH) and reads its state: sent, acknowledged and read back are three facts.

The command is never repeated: after silence the state is read, nothing more. Accepted (9CH) is not executed: the state
read right after may still show the old position; whoever verifies polls it again.
"""

from __future__ import annotations

from collections.abc import Generator

from ...model.control import ActionKind, ControlAnswer, FrameLog, SwitchState
from ...model.devices import Credentials
from ...model.lang import tr
from ...model.quality import Source
from ...model.work import Status
from ...protocols.common.errors import UsageError
from ...protocols.dlt645 import codes, requests
from ...protocols.dlt645.frame import Frame
from ...protocols.dlt645.items import decode_payload, lookup
from ...protocols.dlt645.secrets import masked_hex
from .dlt645 import Ask, MeterExchange, Missing, Script
from .dlt645_read import local

STATE = "04000503"
FIVE_MINUTES = 6  # units of N2 in half an hour
_OPEN, _COMMAND, _ALARM, _PROTECTED = 1 << 4, 1 << 6, 1 << 7, 1 << 12


def control(exchange: MeterExchange, credentials: Credentials) -> Script:
    """The script of a control item; UsageError at once where it cannot be carried out."""
    action, plan = exchange.item.action, exchange.profile.control
    if action is None:
        raise UsageError(tr("a control item needs an action", "控制任务缺少动作"))
    if plan is None or plan.means != "dlt645-1c" or exchange.version != "2007":
        raise UsageError(
            tr(
                f"profile {exchange.profile.name} has no relay control (control.means = dlt645-1c)",
                f"设备档 {exchange.profile.name} 没有继电器控制 (control.means = dlt645-1c)",
            )
        )
    if action.round != 1:
        raise UsageError(
            tr(
                f"a meter has one relay, there is no round {action.round}",
                f"电表只有一路继电器, 没有第 {action.round} 轮",
            )
        )
    if action.kind is ActionKind.READ_STATE:
        return _run(exchange, None)
    if action.alarm_min:
        raise UsageError(
            tr(
                "a meter sounds no alarm before a trip: alarm_min must be 0",
                "电表跳闸前无告警延时: alarm_min 须为 0",
            )
        )
    kind, duration = action.kind.value, 0
    if action.kind is ActionKind.TRIP and action.limit_half_hours:
        kind, duration = "trip_auto_permit", action.limit_half_hours * FIVE_MINUTES
    access = requests.Access(level=plan.password_level, password=credentials.password, operator=credentials.operator)
    until = local(action.valid_until_us)
    frame = requests.control(exchange.device.address, kind, access, until, n2=duration, short_form=plan.short_form)
    return _run(exchange, frame)


def _run(exchange: MeterExchange, command: Frame | None) -> Script:
    action = exchange.item.action
    assert action is not None
    logs: list[FrameLog] = []
    acknowledged: bool | None = None
    refusal = ""

    def note(state: SwitchState | None = None, *, sent: bool) -> None:
        exchange.answer = ControlAnswer(
            action_id=action.id, sent=sent, acknowledged=acknowledged, refusal=refusal, state=state, frames=tuple(logs)
        )

    if command is not None:
        if exchange.now_us > action.valid_until_us:
            exchange.status, exchange.reason = Status.EXPIRED, "the command's time was over before it was sent"
            note(sent=False)
            return
        logs.append(FrameLog(time_us=exchange.now_us, direction="out", hex=masked_hex(command)))
        exchange.status = Status.SILENT  # if the link is lost now: sent, nothing known
        note(sent=True)
        reply = yield Ask(command, 0, repeat=False)
        if reply is not None:
            logs.append(FrameLog(time_us=exchange.now_us, direction="in", hex=masked_hex(reply)))
            acknowledged = not reply.abnormal
            refusal = _refusal(reply) if reply.abnormal else ""
        note(sent=True)
    state: SwitchState | None = None
    try:
        state = yield from _state(exchange, logs)
    except Missing as missing:
        exchange.fault(STATE, missing)
    note(state, sent=command is not None)
    exchange.reason = refusal
    exchange.status = _status(command is not None, acknowledged, state)


def _status(commanded: bool, acknowledged: bool | None, state: SwitchState | None) -> Status | None:
    if not commanded:
        return None if state is None else Status.DONE
    if acknowledged is None:
        return Status.SILENT
    if not acknowledged:
        return Status.REFUSED
    return Status.DONE if state is not None else Status.PARTIAL


def _refusal(reply: Frame) -> str:
    """Code and meaning of DC: one byte ERR, or two bytes in cipher form."""
    if len(reply.data) == 2:
        word = int.from_bytes(reply.data, "little")
        names = [name for name, _zh in codes.bits("errors", "control", word, 16)]
        return f"ERR {word:04X}: {', '.join(names) or 'no reason given'}"
    return codes.error_text(reply.data[0] if reply.data else 0, "2007")


def _state(exchange: MeterExchange, logs: list[FrameLog]) -> Generator[Ask, Frame | None, SwitchState]:
    """Status word 3: relay (b4), relay command (b6), pre-trip alarm (b7), supply protection (b12, supplement)."""
    ask = requests.read(exchange.device.address, STATE)
    logs.append(FrameLog(time_us=exchange.now_us, direction="out", hex=masked_hex(ask)))
    payload = yield from exchange.read(STATE)
    item = lookup(STATE)
    values = decode_payload(item, payload) if item is not None else []
    if not values or not isinstance(values[0].value, str):
        raise Missing("the status word cannot be read")
    exchange.take(STATE, values, exchange.now_us, Source.CONTROL)
    word = int(values[0].value, 16)
    logs.append(FrameLog(time_us=exchange.now_us, direction="in", hex=f"{STATE}={word:04X}"))
    return SwitchState(
        time_us=exchange.now_us,
        open=bool(word & _OPEN),
        command_trip=bool(word & _COMMAND),
        protected=bool(word & _PROTECTED),
        alarm=bool(word & _ALARM),
        raw=f"{word:04X}",
    )
