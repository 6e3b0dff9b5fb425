"""Control of a Modbus relay: read the state, write, read back. Four facts, never one "ok" (domain 9.5).

The state is read first, so a dead device is found before anything is sent. A write goes out once: silence makes it
unknown and the state is read; it is never repeated. Not for reading values.
"""

from __future__ import annotations

from enum import Enum, auto

from ...model.control import ActionKind, ControlAction, ControlAnswer, FrameLog, SwitchState
from ...model.devices import Device
from ...model.lang import tr
from ...model.work import Outcome, Request, Status, WorkItem
from ...protocols.common.errors import UsageError
from ...protocols.modbus.wire import Wire, exception_text, read_wire, write_wire
from ..profile import ControlPlan, Profile
from .modbus import ModbusExchange

# Exceptions after which nobody knows whether the write took effect: still working, and both of a gateway.
_UNKNOWN_AFTER = (5, 10, 11)


class _Stage(Enum):
    BEFORE = auto()
    WRITE = auto()
    AFTER = auto()
    END = auto()


class ControlExchange(ModbusExchange):
    """Carries out one ControlAction. Without `state` in the profile the written place itself is read back."""

    __slots__ = (
        "_acknowledged", "_action", "_frames", "_plan", "_reason", "_refusal", "_sent", "_stage", "_state", "_state_at",
        "_write",
    )  # fmt: skip

    def __init__(self, device: Device, profile: Profile, item: WorkItem) -> None:
        super().__init__(device, profile)
        if profile.control is None or profile.control.means != "modbus-write" or item.action is None:
            raise UsageError(
                tr(
                    f"device {device.name}: profile {profile.name} has no Modbus control",
                    f"设备 {device.name}: 设备档 {profile.name} 没有 Modbus 控制",
                )
            )
        if self._unit == 0:
            raise UsageError(tr("unit 0 is a broadcast: never for control", "从站 0 为广播地址, 不得用于控制"))
        if item.action.alarm_min or item.action.limit_half_hours:
            raise UsageError(
                tr(
                    f"device {device.name}: a relay has no alarm and no automatic release (both must be 0)",
                    f"设备 {device.name}: 继电器无告警延时与自动恢复 (二者须为 0)",
                )
            )
        self._plan: ControlPlan = profile.control
        self._action: ControlAction = item.action
        self._write = self._written(device)
        self._state_at = self._place()
        read_wire(self._framing, self._unit, self._state_at[0], self._state_at[1] + self.offset, 1)
        self._stage = _Stage.BEFORE
        self._sent = False
        self._acknowledged: bool | None = None
        self._refusal = ""
        self._reason = ""
        self._state: SwitchState | None = None
        self._frames: list[FrameLog] = []

    def _written(self, device: Device) -> tuple[int, int, int] | None:
        """(function, address, value) of the action: the entry of its round ("trip.2"), for round 1 the plain one."""
        kind = self._action.kind
        if kind is ActionKind.READ_STATE:
            return None
        writes = self._plan.writes
        entry = writes.get(f"{kind}.{self._action.round}")
        if entry is None and self._action.round == 1:
            entry = writes.get(kind)
        if entry is None:
            raise UsageError(
                tr(
                    f"device {device.name}: its profile has no write for {kind} of round {self._action.round}",
                    f"设备 {device.name}: 设备档没有第 {self._action.round} 轮 {kind} 的写操作",
                )
            )
        function, address, value = entry
        write_wire(
            self._framing, self._unit, function, address + self.offset, value
        )  # a UsageError comes here, not later
        return entry

    def _place(self) -> tuple[int, int]:
        """(function, address) of the state to read: the profile's for round 1, else the written coil or register."""
        if self._plan.state is not None and self._action.round == 1:
            return self._plan.state[:2]
        if self._write is None:
            raise UsageError(
                tr(
                    f"the profile names no state for round {self._action.round}",
                    f"设备档没有第 {self._action.round} 轮的状态",
                )
            )
        function, address, _ = self._write
        return (1 if function == 5 else 3), address

    def next_request(self, now_us: int) -> Request | None:
        """As in ModbusExchange; frames are kept for the audit."""
        request = super().next_request(now_us)
        if request is not None:
            if self._stage is _Stage.WRITE:
                self._sent = True
                self._state = None  # what was read before says nothing about after
            self._frames.append(FrameLog(time_us=now_us, direction="out", hex=request.data.hex().upper()))
        return request

    def _next(self, now_us: int) -> Wire | None:
        if self._stage is _Stage.WRITE and now_us >= self._action.valid_until_us:
            self._stage = _Stage.END
            self._reason = tr("expired before it could be sent", "未发出即已过期")
        if self._stage is _Stage.END:
            return None
        if self._stage is _Stage.WRITE and self._write is not None:
            function, address, value = self._write
            return write_wire(self._framing, self._unit, function, address + self.offset, value)
        function, address = self._state_at
        return read_wire(self._framing, self._unit, function, address + self.offset, 1)

    def _may_repeat(self) -> bool:
        return self._stage is not _Stage.WRITE

    def _answered(self, wire: Wire, code: int | None, frame: bytes, now_us: int) -> None:
        self._frames.append(FrameLog(time_us=now_us, direction="in", hex=frame.hex().upper()))
        if self._stage is _Stage.WRITE:
            self._acknowledged = None if code in _UNKNOWN_AFTER else code is None
            self._refusal = "" if code is None else exception_text(code)
            self._stage = _Stage.AFTER
            return
        if code is None:
            self._state = self._understand(wire.payload(frame), now_us)
        else:
            self._reason = exception_text(code)
        # a state that cannot be read could not be read back either: then nothing is written (domain 9.5)
        go_on = self._stage is _Stage.BEFORE and self._write is not None and code is None
        self._stage = _Stage.WRITE if go_on else _Stage.END

    def _understand(self, data: bytes, now_us: int) -> SwitchState:
        value = int.from_bytes(data, "big")
        state = self._plan.state
        known = state is not None and self._state_at == state[:2]
        is_open = (value & state[2]) == state[3] if known and state is not None else None
        return SwitchState(time_us=now_us, open=is_open, raw=data.hex().upper())

    def _gave_up(self, now_us: int) -> None:
        self._reason = tr("no answer", "无应答")
        # After an unanswered write the state is read: that, and not another write, tells what happened.
        self._stage = _Stage.AFTER if self._stage is _Stage.WRITE else _Stage.END

    def outcome(self, now_us: int) -> Outcome:
        """`state` was read after the write; None when that failed."""
        done_before = self._write is None or self._sent
        answer = ControlAnswer(
            action_id=self._action.id,
            sent=self._sent,
            acknowledged=self._acknowledged,
            refusal=self._refusal,
            state=self._state if done_before else None,
            frames=tuple(self._frames),
        )
        return Outcome(status=self._status(), answer=answer, reason=self._refusal or self._reason, retries=self.repeats)

    def _status(self) -> Status:
        if self._write is None:
            return Status.DONE if self._state is not None else self._failed()
        if not self._sent:
            expired = self._stage is _Stage.END and self._state is not None
            return Status.EXPIRED if expired else self._failed()
        if self._acknowledged is False:
            return Status.REFUSED
        if self._acknowledged is None:
            return Status.SILENT
        return Status.DONE if self._state is not None else Status.PARTIAL

    def _failed(self) -> Status:
        if not self._frames:
            return Status.CANCELLED
        return Status.REFUSED if any(f.direction == "in" for f in self._frames) else Status.SILENT
