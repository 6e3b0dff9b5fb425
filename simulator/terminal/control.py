"""Load control of a terminal: remote trip, power and energy control of every group, 保电, 剔除 and what goes with them.

Commands come as method calls that return whether the terminal obeys; time comes by `step`, once a minute. A terminal in
保电 refuses trips (it does not postpone them).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from ...model.times import US
from .energy_control import EnergyControl
from .parts import Parts
from .power_control import PowerControl
from .remote_trip import RemoteTrip

GROUPS: Final = range(1, 9)
HALF_HOUR_US: Final = 1_800 * US
HOUR_US: Final = 3_600 * US
Reconnection = Literal["return", "free"]


@dataclass(slots=True)
class Control:
    """See the head of the module.

    reconnection: after an automatic 保电, go back to the control before the break or stay free of it.
    """

    parts: Parts
    reconnection: Reconnection = "free"
    remote: RemoteTrip = field(init=False)
    power: dict[int, PowerControl] = field(init=False)
    energy: dict[int, EnergyControl] = field(init=False)
    removed: bool = False
    arrears: bool = False
    voice: bool = False
    _manual: bool = False
    _manual_ends_us: int | None = None
    _automatic: bool = False
    _before: dict[int, int | None] = field(default_factory=dict)
    _heard_us: int = 0

    def __post_init__(self) -> None:
        self.remote = RemoteTrip(self.parts)
        self.power = {g: PowerControl(self.parts, g) for g in GROUPS}
        self.energy = {g: EnergyControl(self.parts, g) for g in GROUPS}

    # --- 保电 -------------------------------------------------------------------------------------------------

    @property
    def protected(self) -> bool:
        """保电, by command or by itself."""
        return self._manual or self._automatic

    @property
    def automatic(self) -> bool:
        """保电 because no master was heard."""
        return self._automatic

    def protect(self, half_hours: int, now_us: int) -> None:
        """F25: 0 = until released."""
        self._manual = True
        self._manual_ends_us = now_us + half_hours * HALF_HOUR_US if half_hours else None
        if self._manual_ends_us is not None:
            self.parts.agenda.at(self._manual_ends_us, self._expire)
        self._free(now_us)

    def unprotect(self) -> None:
        """F33: only the protection ends; nothing is tripped by this."""
        self._manual, self._manual_ends_us = False, None

    def _expire(self, at_us: int) -> None:
        if self._manual and self._manual_ends_us == at_us:
            self.unprotect()

    def _free(self, now_us: int) -> dict[int, int | None]:
        """Release everything; remote trips that were in force."""
        before = self.remote.cancel(now_us)
        for group in GROUPS:
            self.power[group].step(now_us, protected=True)
            self.energy[group].step(now_us, protected=True)
        for item in self.parts.rounds.values():
            item.let_all_go(now_us)
        return before

    def heard(self, now_us: int) -> None:
        """A valid message of the master: the clock of automatic 保电 starts anew."""
        self._heard_us = now_us
        if not self._automatic:
            return
        self._automatic = False
        if self.reconnection == "return":
            self.remote.restore(self._before, now_us)
        else:
            for group in GROUPS:
                for kind in list(self.power[group].engaged):
                    self.power[group].release(kind, now_us)
                for energy in self.energy[group].kinds:
                    self.energy[group].release(energy, now_us)
        self._before = {}

    def powered_up(self, now_us: int) -> None:
        """After a restart: 保电 until a master is heard, where F58 is set."""
        self._heard_us = now_us
        if self.parts.settings.auto_protect_hours():
            self._enter(now_us)

    def _enter(self, now_us: int) -> None:
        self._automatic = True
        self._before = self._free(now_us)

    # --- commands ---------------------------------------------------------------------------------------------

    def trip(self, number: int, alarm_min: int, limit_half_hours: int, now_us: int) -> bool:
        """F1; False = refused."""
        if self.protected or number not in self.parts.rounds:
            return False
        self.remote.command(number, alarm_min, limit_half_hours, now_us)
        return True

    def permit(self, number: int, now_us: int) -> bool:
        """F2; False = no such round."""
        if number not in self.parts.rounds:
            return False
        self.remote.permit(number, now_us)
        return True

    def step(self, now_us: int) -> None:
        """A minute has passed."""
        self.parts.advance_rounds(now_us)
        hours = self.parts.settings.auto_protect_hours()
        if hours and not self.protected and now_us - self._heard_us >= hours * HOUR_US:
            self._enter(now_us)
        for group in GROUPS:
            if self.power[group].engaged:
                self.power[group].step(now_us, protected=self.protected)
            self.energy[group].step(now_us, protected=self.protected)
