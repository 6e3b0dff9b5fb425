"""What control needs of acquisition (the seam `Field`). Implemented over the engine by the daemon, by a fake in tests.

Nothing here retries: one call of `operate` is one conversation in which a trip frame leaves at most once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from ..model.control import ControlAction, ControlAnswer, Setting, Spot, SwitchState
from ..model.quality import Quality
from ..model.readings import F8, I2, I8


@dataclass(frozen=True, slots=True)
class PowerWindow:
    """Active power of one device, primary kW, ascending in time. All arrays (n,).

    time_us: instants, µs UTC; kw: float64, never NaN; quality: model.quality.Quality; quantum_kw: least step of the
    metering x multiplier.
    """

    time_us: I8
    kw: F8
    quality: I2
    quantum_kw: float = 0.0

    def good(self, from_us: int, to_us: int) -> PowerWindow:
        """The values of quality A with from_us <= time <= to_us."""
        import numpy as np  # verbs that only name a target start without it

        keep = (self.time_us >= from_us) & (self.time_us <= to_us) & (self.quality == Quality.A) & np.isfinite(self.kw)
        return PowerWindow(self.time_us[keep], self.kw[keep], self.quality[keep], self.quantum_kw)

    @property
    def last_us(self) -> int | None:
        """Instant of the newest value, None if there is none."""
        return int(self.time_us[-1]) if len(self.time_us) else None

    @property
    def last_kw(self) -> float | None:
        """The newest value, kW."""
        return float(self.kw[-1]) if len(self.kw) else None

    @property
    def last_good(self) -> bool:
        """True if the newest value is of quality A."""
        return bool(len(self.quality)) and int(self.quality[-1]) == Quality.A

    @property
    def mean_kw(self) -> float | None:
        """Mean of the values, kW."""
        return float(self.kw.mean()) if len(self.kw) else None

    @property
    def min_kw(self) -> float | None:
        """Lowest value, kW."""
        return float(self.kw.min()) if len(self.kw) else None


def a2_quantum(kw: float) -> float:
    """Least step of a terminal's group power: three digits (format A.2 of Q/GDW 376.1), 0.001 to 10 000 kW."""
    return 10.0 ** min(4, max(-3, math.floor(math.log10(abs(kw))) - 2 if kw else -3))


def target_of(link: str, address: str) -> str:
    """Where frames of a device go: its line and its address there."""
    return f"{link}/{address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What profile, archive and secrets say about a device's control side. None = not known, and then no trip.

    has_protection: the model has a protection state (保电), shown by `SwitchState.protected`; has_exclusion: the same
    for exclusion (剔除); has_contact: the switch position is a feedback contact; contact_inputs: contacts are state
    inputs, and the list of rounds says which belongs to which; has_clock: the model has a clock; has_setpoint: it holds
    a security setpoint (setpoint_kw, primary kW); keys_ok: passwords and keys are present and have not been refused;
    model_known: profile and firmware are known; can_control: the profile has control means; target: where a frame would
    go now (`target_of`), which must be what the second person confirmed.
    """

    can_control: bool | None = None
    has_protection: bool | None = None
    has_exclusion: bool | None = None
    has_contact: bool = True
    contact_inputs: bool = False
    has_clock: bool | None = None
    has_setpoint: bool | None = None
    setpoint_kw: float | None = None
    keys_ok: bool | None = None
    model_known: bool | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Epoch:
    """A life of a device's session: `number` is another one after every login, lost connection or restart; `why` says
    what began it."""

    number: int
    why: str = ""


class Field(Protocol):
    """Devices as control sees them. Every method may raise LinkError or PeerError; control then knows nothing."""

    async def operate(self, device_id: int, action: ControlAction) -> ControlAnswer:
        """Carry out one action; never repeats a frame by itself. `sent` False = no byte left the process."""

    async def read_state(self, device_id: int, spot: Spot) -> SwitchState | None:
        """The state of this spot read from the device now; None if it does not answer."""

    def settings(self, device_id: int, action: ControlAction) -> tuple[Setting, ...]:
        """The parameters that must stand in the device before `action` engages, as its protocol names them.

        UsageError: the model has no such control, or a parameter cannot be carried out as given.
        """

    def epoch(self, device_id: int) -> Epoch | None:
        """The session's present life; None for a device without a session of its own."""

    def power(self, device_id: int, now_us: int, back_s: int, group: int = 1) -> PowerWindow:
        """Power of the last back_s seconds: of the total-sum group if the device has it, else of the whole device."""

    def online(self, device_id: int) -> bool | None:
        """Whether the device answered lately; None = not known."""

    def clock_offset_s(self, device_id: int) -> float | None:
        """Device clock minus ours in seconds, None = not known."""

    def facts(self, device_id: int) -> DeviceFacts | None:
        """What is known of the device's control side; None for an unknown device."""
