"""What control asks of a device and what the device said: four facts in four fields, never one "ok".

sent / acknowledged / read back / seen in the meter: the first three are here, the fourth is metering (control/verify).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ActionKind(StrEnum):
    """Means of control. READ_STATE changes nothing."""

    TRIP = "trip"
    PERMIT_CLOSE = "permit_close"
    DIRECT_CLOSE = "direct_close"
    ALARM_ON = "alarm_on"
    ALARM_OFF = "alarm_off"
    PROTECT_ON = "protect_on"
    PROTECT_OFF = "protect_off"
    READ_STATE = "read_state"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlAction:
    """One command to one round of one device. `id` is the command's idempotency key (chapter 9.3).

    valid_until_us: UTC µs after which the device must refuse it (device formats that carry it); `round` counts from 1;
    alarm_min: minutes of sound before the trip; limit_half_hours: 0 = no automatic release.
    """

    id: str
    kind: ActionKind
    round: int = 1
    valid_until_us: int
    alarm_min: int = 0
    limit_half_hours: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchState:
    """State as the device reported it at `time_us` (our clock). None = the device does not tell."""

    time_us: int
    open: bool | None
    command_trip: bool | None = None
    protected: bool | None = None
    alarm: bool | None = None
    raw: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLog:
    """A frame as it went over the wire, secrets masked with `**`. direction: "out" or "in"."""

    time_us: int
    direction: str
    hex: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlAnswer:
    """What is known after a control exchange.

    sent: the bytes left the process; acknowledged: the device accepted (True), refused (False) or stayed silent
    (None = unknown: never resend, read the state); refusal: the device's code and meaning; state: read back, if asked.
    """

    action_id: str
    sent: bool
    acknowledged: bool | None
    refusal: str = ""
    state: SwitchState | None = None
    frames: tuple[FrameLog, ...] = ()
