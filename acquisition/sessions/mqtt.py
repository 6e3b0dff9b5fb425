"""Conversations with MQTT devices: a signed command and its signed answer. Readings come unasked and are no exchange.

A command goes out once. Whatever the answer says, or if there is none, the state is then asked for by a second command
of its own, so that "acknowledged" and "read back" stay two facts (domain 9.5).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import cast, get_args

from ...model.control import ActionKind, ControlAction, ControlAnswer, FrameLog, SwitchState
from ...model.devices import Credentials, Device
from ...model.lang import tr
from ...model.work import Duty, Exchange, Outcome, Request, Status, WorkItem
from ...protocols.common.errors import PeerError, UsageError
from ...protocols.mqtt.payload import Action, Answer, Command, encode
from ...protocols.mqtt.signing import MAX_VALIDITY_MS, build_command, key_of, read_answer
from ..profile import Profile

_REPLY_BYTES = 400


def open_exchange(device: Device, profile: Profile, item: WorkItem, credentials: Credentials) -> Exchange:
    """The conversation for a control item; UsageError for any other duty (devices publish by themselves)."""
    if item.duty is not Duty.CONTROL or item.action is None:
        raise UsageError(
            tr(
                f"device {device.name} publishes by itself: it cannot be asked for {item.duty}",
                f"设备 {device.name} 自行上报, 不能召测 {item.duty}",
            )
        )
    if profile.control is None or profile.control.means != "mqtt-command":
        raise UsageError(
            tr(f"profile {profile.name} has no control by MQTT", f"设备档 {profile.name} 没有 MQTT 控制方式")
        )
    if item.action.kind not in get_args(Action):
        raise UsageError(
            tr(f"device {device.name} has no {item.action.kind}", f"设备 {device.name} 没有 {item.action.kind}")
        )
    if not 1 <= item.action.round <= profile.control.rounds:
        raise UsageError(
            tr(
                f"device {device.name} has no round {item.action.round}",
                f"设备 {device.name} 没有第 {item.action.round} 轮",
            )
        )
    return CommandExchange(device, profile, item.action, key_of(credentials.key))


class CommandExchange:
    """One action: the command (unless it only reads), then a `read_state`. nonce: 32 random hex digits a call."""

    def __init__(
        self,
        device: Device,
        profile: Profile,
        action: ControlAction,
        key: bytes,
        nonce: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._device, self._action, self._key, self._nonce = device, action, key, nonce
        self._timeout_s = profile.timing.reply_timeout_s
        self._steps = [ActionKind.READ_STATE] if action.kind is ActionKind.READ_STATE else [
            action.kind, ActionKind.READ_STATE,
        ]  # fmt: skip
        self._asked: Command | None = None
        self._sent = False
        self._acknowledged: bool | None = None
        self._refusal = ""
        self._reason = ""
        self._state: SwitchState | None = None
        self._frames: list[FrameLog] = []

    def next_request(self, now_us: int) -> Request | None:
        """The command, then the question for the state."""
        if not self._steps:
            return None
        kind = self._steps.pop(0)
        now_ms = now_us // 1000
        until_ms = min(self._action.valid_until_us // 1000, now_ms + MAX_VALIDITY_MS)
        if kind is ActionKind.READ_STATE:
            until_ms = now_ms + round(self._timeout_s * 2000)
        elif now_us >= self._action.valid_until_us:
            self._reason = tr("expired before it could be sent", "未发出即已过期")
            self._steps.clear()
            return None
        is_question = kind is ActionKind.READ_STATE and self._action.kind is not ActionKind.READ_STATE
        self._asked = build_command(
            self._key,
            device=self._device.address,
            id=f"{self._action.id}-state" if is_question else self._action.id,
            action=cast(Action, kind.value),
            round=self._action.round,
            valid_until_ms=until_ms,
            nonce=self._nonce(),
            alarm_min=0 if kind is ActionKind.READ_STATE else self._action.alarm_min,
            limit_half_hours=0 if kind is ActionKind.READ_STATE else self._action.limit_half_hours,
        )
        self._sent = self._sent or not is_question
        data = encode(self._asked)
        self._frames.append(FrameLog(time_us=now_us, direction="out", hex=data.hex().upper()))
        return Request(data=data, reply_bytes=_REPLY_BYTES, timeout_s=self._timeout_s)

    def receive(self, data: bytes, now_us: int) -> bool:
        """True for the signed answer to the command in flight; anything else is dropped and its fault remembered."""
        if self._asked is None:
            return False
        try:
            answer = read_answer(self._key, self._asked, data)
        except PeerError as error:
            self._reason = str(error)
            return False
        self._frames.append(FrameLog(time_us=now_us, direction="in", hex=data.hex().upper()))
        self._reason = ""
        if self._asked.action == "read_state":
            self._take_state(answer, now_us)
        else:
            self._acknowledged = answer.accepted
            self._refusal = "" if answer.accepted else answer.code or "refused"
        self._asked = None
        return True

    def _take_state(self, answer: Answer, now_us: int) -> None:
        if answer.state is not None and answer.accepted:
            s = answer.state
            self._state = SwitchState(
                time_us=now_us, open=s.open, command_trip=s.command_trip, protected=s.protected, alarm=s.alarm
            )
        elif not answer.accepted:
            self._reason = answer.code or "refused"

    def silence(self, now_us: int) -> None:
        """Never sent again; the state is asked for next."""
        self._asked = None
        self._reason = self._reason or tr("no answer", "无应答")

    def outcome(self, now_us: int) -> Outcome:
        """Four facts; SILENT when the command itself was not answered."""
        answer = ControlAnswer(
            action_id=self._action.id,
            sent=self._sent,
            acknowledged=self._acknowledged,
            refusal=self._refusal,
            state=self._state,
            frames=tuple(self._frames),
        )
        return Outcome(status=self._status(), answer=answer, reason=self._refusal or self._reason)

    def _status(self) -> Status:
        if not self._sent:
            return Status.EXPIRED if self._reason else Status.CANCELLED
        if self._action.kind is ActionKind.READ_STATE:
            return Status.DONE if self._state is not None else Status.SILENT
        if self._acknowledged is False:
            return Status.REFUSED
        if self._acknowledged is None:
            return Status.SILENT
        return Status.DONE if self._state is not None else Status.PARTIAL
