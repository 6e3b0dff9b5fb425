"""One terminal: its parts put together, moved on from minute to minute. No protocol and no link in here.

`advance(now)` carries out everything that has become due since the last call, in order of time, at its own instant:
timers, minutes, faults of the script. A terminal without supply (fault `power_off`) does nothing until the supply is
back; then it starts anew (ERC14).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ...model.times import US
from ..faults import FaultSet
from ..meter import SimMeter
from ..relay import Relay
from .control import Control, Reconnection
from .monitors import Monitors
from .parameters import Key, Parameters, Unit
from .parts import Parts
from .points import PointBook, Totals
from .rounds import ControlRound
from .scripted import scripted_event
from .settings import Settings
from .tasks import Tasks

MINUTE_US: Final = 60 * US
CATCH_UP_MIN: Final = 3 * 1440
"""More minutes than these are not lived through one by one after a jump of the clock."""
INPUTS: Final = range(1, 9)


@dataclass(slots=True, kw_only=True)
class Options:
    """How this model behaves where terminals differ.

    reconnection: after automatic 保电. retrip_s: closed by hand while blocked -> tripped again (None: never).
    drives_closing: permit to close closes by itself. curve_days, freeze_days, freeze_months: depth of the memory.
    boot_s: from the supply's return until it works again. version: software version, four characters. buffer: longest
    user data (L1) of a frame that it sends. confirm: commands of several units are carried out whole or not at all |
    items: those that it can, with AFN 00 F3.
    """

    reconnection: Reconnection = "free"
    retrip_s: float | None = 10.0
    drives_closing: bool = False
    curve_days: int = 30
    freeze_days: int = 62
    freeze_months: int = 12
    boot_s: float = 20.0
    version: str = "1.00"
    buffer: int = 1024
    confirm: Literal["whole", "items"] = "whole"


@dataclass(slots=True, kw_only=True)
class Terminal:
    """See the head of the module. meters: by point number, as they are wired; ready_us: when it has booted."""

    name: str
    parts: Parts
    control: Control
    monitors: Monitors
    tasks: Tasks
    options: Options
    meters: Mapping[int, SimMeter]
    restarts: int = 0
    ready_us: int = 0
    powered: bool = True
    reports_allowed: bool = True
    text: dict[int, str] = field(default_factory=dict)
    changed_inputs: set[int] = field(default_factory=set)
    _next_minute_us: int = 0
    _off_us: int = 0

    # --- time -------------------------------------------------------------------------------------------------

    def advance(self, now_us: int) -> None:
        """Live through the time until now."""
        if not self._next_minute_us:
            self._next_minute_us = now_us - now_us % MINUTE_US + MINUTE_US
        if now_us - self._next_minute_us > CATCH_UP_MIN * MINUTE_US:
            self._next_minute_us = now_us - now_us % MINUTE_US - CATCH_UP_MIN * MINUTE_US
        for meter in self.meters.values():
            meter.advance(now_us)
        self._scripted(now_us)
        while True:
            timer = self.parts.agenda.next_us if self.powered else None
            at = min(self._next_minute_us, timer) if timer is not None else self._next_minute_us
            if at > now_us:
                break
            self._supply(at)
            self.parts.advance_rounds(at)
            if self.powered:
                self.parts.agenda.run(at)
            if at == self._next_minute_us:
                self._next_minute_us += MINUTE_US
                if self.powered:
                    self._minute(at)
        self._supply(now_us)
        self.parts.advance_rounds(now_us)

    def _minute(self, at_us: int) -> None:
        self.control.step(at_us)
        self.monitors.step(at_us)
        self.tasks.step(at_us)

    def _scripted(self, now_us: int) -> None:
        """Faults of the script that act once, on the terminal itself."""
        for rule in self.parts.faults.due(now_us):
            kind, amount, at = rule.fault.kind, rule.fault.amount, rule.begin_us
            if kind == "clock_offset":
                self.parts.clock.disturb(at, offset_s=amount)
            elif kind == "clock_drift":
                self.parts.clock.disturb(at, drift_s_per_day=amount)
            elif kind == "event":
                scripted_event(self.parts, rule.fault.match, at)
            elif kind == "reclose":
                for item in self.parts.rounds.values():
                    item.relay.reclose(at)

    # --- supply -----------------------------------------------------------------------------------------------

    def _supply(self, at_us: int) -> None:
        off = self.parts.faults.active("power_off", at_us)
        if off and self.powered:
            self.powered = False
            self._off_us = off.begin_us
            self.parts.points.holes.append((off.begin_us, None))
            self.parts.counters.power(self.parts.local(off.begin_us), on=False)
        elif not off and not self.powered:
            ends = [e for _, e in self.parts.faults.windows("power_off") if e is not None and e <= at_us]
            self._power_up(max(ends) if ends else at_us)

    def _power_up(self, at_us: int) -> None:
        self.powered, self.ready_us = True, at_us + int(self.options.boot_s * US)
        holes = self.parts.points.holes
        holes[-1] = (holes[-1][0], at_us)
        self.parts.counters.power(self.parts.local(at_us), on=True)
        off, on = (self.parts.local(t).replace(second=0) for t in (self._off_us, at_us))
        self.parts.record(14, at_us, power_off=off, power_on=on)
        self.restart(at_us)

    def restart(self, now_us: int) -> None:
        """Hardware initialisation: parameters, memory, controls and outputs stay; timers that ran out act now."""
        self.restarts += 1
        self.parts.counters.reset(self.parts.local(now_us))
        self.control.powered_up(now_us)
        self.tasks.restart()

    # --- state inputs -----------------------------------------------------------------------------------------

    def inputs(self) -> frozenset[int]:
        """State inputs that report "closed": the auxiliary contact of round n is wired to input n."""
        enabled, normally_open = self.parts.settings.state_inputs()
        closed = {n for n, r in self.parts.rounds.items() if not r.relay.contact_open}
        return frozenset(n for n in enabled if (n in closed) == (n in normally_open))

    def contact_moved(self, at_us: int, is_open: bool, number: int) -> None:
        """ERC4 when the contact behind an enabled input has moved; the meters see another load."""
        for meter in self.meters.values():
            meter.forget()
        if not self.powered or number not in self.parts.settings.state_inputs()[0]:
            return
        self.changed_inputs.add(number)
        self.parts.record(4, at_us, changed=[number], state=sorted(self.inputs()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What is wired to a terminal. meters by point number; relays of the rounds in order; factory: its parameters."""

    meters: Mapping[int, SimMeter]
    relays: Iterable[Relay]
    factory: Mapping[Key, Unit]
    since_us: int = 0


def build_terminal(
    name: str, edition: str, installation: Installation, faults: FaultSet, options: Options | None = None
) -> Terminal:
    """A terminal with everything that belongs to it."""
    options = options or Options()
    parameters = Parameters(installation.factory)
    settings = Settings(parameters, edition)
    points = PointBook(
        parameters,
        {m.address.zfill(12): m for m in installation.meters.values()},
        internal=next(iter(installation.meters.values()), None),
        since_us=installation.since_us,
    )
    parts = Parts(
        edition=edition, parameters=parameters, settings=settings, points=points,
        totals=Totals(points, settings), faults=faults,
    )  # fmt: skip
    terminal = Terminal(
        name=name, parts=parts, control=Control(parts, options.reconnection), monitors=Monitors(parts),
        tasks=Tasks(parts), options=options, meters=installation.meters,
    )  # fmt: skip
    for number, relay in enumerate(installation.relays, 1):
        parts.rounds[number] = ControlRound(
            number=number, relay=relay, agenda=parts.agenda, drives_closing=options.drives_closing,
            retrip_s=options.retrip_s, moved=terminal.contact_moved,
        )  # fmt: skip
    return terminal
