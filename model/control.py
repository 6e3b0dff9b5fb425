"""What control asks of a device and what the device said: four facts in four fields, never one "ok".

sent / acknowledged / read back / seen in the meter: the first three are here, the fourth is metering (control/verify).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class ActionKind(StrEnum):
    """Means of control. READ_STATE and READ_SETTINGS change nothing.

    *_ON and *_OFF of period (时段控), rest (厂休控), suspension (营业报停控), float (当前功率下浮控), month (月电控)
    and purchase (购电控) engage and release a control of a total-sum group; protect is 保电, exclude 剔除, remind
    催费告警.
    """

    TRIP = "trip"
    PERMIT_CLOSE = "permit_close"
    DIRECT_CLOSE = "direct_close"
    ALARM_ON = "alarm_on"
    ALARM_OFF = "alarm_off"
    PROTECT_ON = "protect_on"
    PROTECT_OFF = "protect_off"
    EXCLUDE_ON = "exclude_on"
    EXCLUDE_OFF = "exclude_off"
    REMIND_ON = "remind_on"
    REMIND_OFF = "remind_off"
    PERIOD_ON = "period_on"
    PERIOD_OFF = "period_off"
    REST_ON = "rest_on"
    REST_OFF = "rest_off"
    SUSPENSION_ON = "suspension_on"
    SUSPENSION_OFF = "suspension_off"
    FLOAT_ON = "float_on"
    FLOAT_OFF = "float_off"
    MONTH_ON = "month_on"
    MONTH_OFF = "month_off"
    PURCHASE_ON = "purchase_on"
    PURCHASE_OFF = "purchase_off"
    WRITE_SETTINGS = "write_settings"
    READ_SETTINGS = "read_settings"
    READ_STATE = "read_state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """What of a device a command or a question is about; numbers count from 1.

    round: the trip relay; group: the total-sum group; rounds: all rounds that may open; contact: the state input that
    is wired to the switch of `round` as feedback, 0 = none, negative = the input is closed while the switch is open.
    """

    round: int = 1
    group: int = 1
    rounds: tuple[int, ...] = ()
    contact: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One parameter of a device. item: the protocol's name of it ("F41"); pn: what it belongs to (point, group, round,
    0 = the device); values: field names and plain JSON values as the protocol's tables name them."""

    item: str
    pn: int = 0
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingResult:
    """What came of writing one parameter. written: accepted (True), refused (False), no answer or not tried (None).

    read: the values read back, None = not read; differences: fields that are not what was wanted.
    """

    item: str
    pn: int
    wanted: Mapping[str, object]
    written: bool | None = None
    read: Mapping[str, object] | None = None
    differences: tuple[str, ...] = ()
    fault: str = ""

    @property
    def equal(self) -> bool:
        """Read back, and every field is what was wanted."""
        return self.read is not None and not self.differences


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlAction:
    """One command to one device. `id` is the command's idempotency key (chapter 9.3).

    valid_until_us: UTC µs after which the device must refuse it (device formats that carry it); `round` counts from 1;
    group, rounds, contact: as in `Spot`; alarm_min: minutes of sound before the trip; limit_half_hours: 0 = no
    automatic release; params: what else the kind takes (control/rules/kinds.py); settings: what WRITE_SETTINGS writes
    and reads back, or READ_SETTINGS reads.
    """

    id: str
    kind: ActionKind
    round: int = 1
    group: int = 1
    rounds: tuple[int, ...] = ()
    contact: int = 0
    valid_until_us: int
    alarm_min: int = 0
    limit_half_hours: int = 0
    params: Mapping[str, object] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchState:
    """State as the device reported it at `time_us` (our clock). None = the device does not tell.

    open: position of the switch by its contact; command_trip: the device holds the round open; tripped: all rounds that
    it holds open by remote trips; outputs: by whatever control; engaged: controls engaged on the group ("period",
    "float", ...); limit_kw: limit in force there; power_kw: the group's power, primary kW; setpoint_kw: security
    setpoint (保安定值); excluded, remind: the terminal's other states; clock_offset_s: its clock minus ours.
    """

    time_us: int
    open: bool | None
    command_trip: bool | None = None
    protected: bool | None = None
    alarm: bool | None = None
    raw: str = ""
    excluded: bool | None = None
    remind: bool | None = None
    tripped: tuple[int, ...] | None = None
    outputs: tuple[int, ...] | None = None
    engaged: tuple[str, ...] | None = None
    limit_kw: float | None = None
    power_kw: float | None = None
    setpoint_kw: float | None = None
    clock_offset_s: float | None = None


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
    (None = unknown: never resend, read the state); refusal: the device's code and meaning; state: read back, if asked;
    settings: what came of each parameter of WRITE_SETTINGS (`acknowledged` then speaks for all of them together).
    """

    action_id: str
    sent: bool
    acknowledged: bool | None
    refusal: str = ""
    state: SwitchState | None = None
    settings: tuple[SettingResult, ...] = ()
    frames: tuple[FrameLog, ...] = ()
