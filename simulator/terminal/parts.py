"""What the parts of one terminal share: parameters, clock, memory and outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ...protocols.qgdw1376.table import lookup_erc
from ..clock import DeviceClock
from ..faults import FaultSet
from .agenda import Agenda
from .counters import Counters, TripKind
from .events import EventMemory
from .parameters import Parameters
from .points import PointBook, Totals
from .rounds import ControlRound
from .settings import Settings


@dataclass(slots=True, kw_only=True)
class Parts:
    """One terminal's insides; rounds by number."""

    edition: str
    parameters: Parameters
    settings: Settings
    points: PointBook
    totals: Totals
    faults: FaultSet
    rounds: dict[int, ControlRound] = field(default_factory=dict)
    clock: DeviceClock = field(default_factory=DeviceClock)
    agenda: Agenda = field(default_factory=Agenda)
    events: EventMemory = field(default_factory=EventMemory)
    counters: Counters = field(default_factory=Counters)
    told: list[int] = field(default_factory=list)
    """Indexes of important events that were recorded and not yet offered to the link."""

    def local(self, at_us: int) -> datetime:
        """The terminal's own clock at an instant."""
        return self.clock.local(at_us)

    def record(self, erc: int, at_us: int, **data: object) -> None:
        """An event as the terminal keeps it, if its edition knows it and its configuration wants it.

        `time` (minutes) is added where the event's layout has one.
        """
        recorded, important = self.settings.event_masks()
        row = lookup_erc(erc, self.edition)
        if erc not in recorded or row is None or self.edition not in row.editions:
            return
        record = {"erc": erc, **data}
        if any("time" in v.keys for v in row.fields.variants):
            record["time"] = self.local(at_us).replace(second=0)
        index = self.events.add(record, important=erc in important)
        if erc in important:
            self.told.append(index)

    def count_trip(self, at_us: int, kind: TripKind) -> None:
        """Statistics of 0D F50/F52."""
        self.counters.trip(self.local(at_us), kind)

    def advance_rounds(self, now_us: int) -> None:
        """Carry out movements of the relays that are due."""
        for item in self.rounds.values():
            item.relay.advance(now_us)
