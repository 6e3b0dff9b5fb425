"""One trip relay of a device and the round (轮次) behind it: command, contact and load are three different things.

Due movements (trip delay, self-closing, the person at the button) are kept with their instants and carried out when
somebody looks (`advance`), at the instant they were due; no timers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from .faults import FaultSet
from .load import Site

OnMove = Callable[[int, str, int], None]


@dataclass(slots=True, kw_only=True)
class Relay:
    """Relay of component `component` of the site.

    delay_s: from the command to the movement; human_s: from permit-to-close until a person presses the button (None:
    nobody does). commanded: the last command was a trip; contact_open: what the feedback contact reports; permit: the
    button is enabled. on_move(instant, "trip" | "close", component) is called for each movement of the contact.
    """

    component: int
    site: Site
    faults: FaultSet
    delay_s: float = 0.0
    human_s: float | None = 20.0
    on_move: OnMove | None = None
    commanded: bool = False
    contact_open: bool = False
    permit: bool = False
    protected: bool = False
    alarm: bool = False
    _due: list[tuple[int, int, str]] = field(default_factory=list)
    _order: int = 0

    def _at(self, when_us: int, what: str) -> None:
        self._order += 1
        heappush(self._due, (when_us, self._order, what))

    def trip(
        self, now_us: int, *, after_s: float = 0.0, close_s: float | None = None, permit_s: float | None = None
    ) -> None:
        """Accept a trip: it opens after `after_s` and the relay's own delay; then closes or permits by itself."""
        self.advance(now_us)
        self._due.clear()
        self.commanded, self.permit = True, False
        opens = now_us + int((after_s + self.delay_s) * 1e6)
        self._at(opens, "open")
        if close_s is not None:
            self._at(opens + int(close_s * 1e6), "close")
        if permit_s is not None:
            self._at(opens + int(permit_s * 1e6), "permit")
        self.advance(now_us)

    def permit_close(self, now_us: int) -> None:
        """Accept permit-to-close: a running delay is cancelled, an open relay waits for the person at the button."""
        self.advance(now_us)
        self._due.clear()
        self._permit(now_us)
        self.advance(now_us)

    def _permit(self, at_us: int) -> None:
        self.commanded, self.alarm = False, False
        if self.contact_open:
            self.permit = True
            if self.human_s is not None and not self.faults.active("human_refuses", at_us):
                self._at(at_us + int(self.human_s * 1e6), "close")

    def direct_close(self, now_us: int) -> None:
        """Accept a direct closing: no person needed."""
        self.advance(now_us)
        self._due.clear()
        self.commanded, self.alarm = False, False
        self._at(now_us + int(self.delay_s * 1e6), "close")
        self.advance(now_us)

    def press_button(self, now_us: int) -> bool:
        """The person at the meter presses the button; True if the relay closes."""
        self.advance(now_us)
        if not (self.permit and self.contact_open):
            return False
        self._due.clear()
        self._move("close", now_us)
        return True

    def reclose(self, at_us: int) -> None:
        """Somebody closes by hand without permission: the command stays "trip", the contact is closed."""
        self.advance(at_us)
        if self.contact_open:
            self._close(at_us)

    def advance(self, now_us: int) -> None:
        """Carry out what has become due."""
        while self._due and self._due[0][0] <= now_us:
            at, _, what = heappop(self._due)
            if what == "permit":
                self._permit(at)
            else:
                self._move(what, at)

    def _move(self, what: str, at_us: int) -> None:
        if self.faults.active("broken_relay", at_us):
            return
        if what == "open" and not self.contact_open:
            self.contact_open = True
            if not self.faults.active("stuck_contact", at_us):
                rebound = self.faults.active("rebound", at_us)
                self.site.trip(self.component, at_us, rebound.fault.amount if rebound else 0.0)
            if self.on_move:
                self.on_move(at_us, "trip", self.component)
        elif what == "close" and self.contact_open:
            self.commanded = False
            self._close(at_us)

    def _close(self, at_us: int) -> None:
        self.contact_open, self.permit = False, False
        if not self.site.closed_at(self.component, at_us):
            self.site.close(self.component, at_us)
        if self.on_move:
            self.on_move(at_us, "close", self.component)
