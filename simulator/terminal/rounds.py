"""Control rounds (轮次): one relay output each, held open by any number of reasons.

A round trips with its first reason and is permitted to close when the last one is gone: then a person closes it (the
relay's `human_s`), or the terminal does where it drives closing. Closed by hand while a reason holds, it is tripped
again after `retrip_s`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..relay import Relay
from .agenda import Agenda

Reason = tuple[str, int]
"""("remote", 0), ("power", group), ("month", group), ("purchase", group)."""


@dataclass(slots=True, kw_only=True)
class ControlRound:
    """Round `number` (1..8). moved(instant, open, number): the contact has moved. retrip_s None: never trips again."""

    number: int
    relay: Relay
    agenda: Agenda
    drives_closing: bool = False
    retrip_s: float | None = 10.0
    moved: Callable[[int, bool, int], None] | None = None
    reasons: set[Reason] = field(default_factory=set)

    def __post_init__(self) -> None:
        inner = self.relay.on_move

        def moved(at_us: int, what: str, component: int) -> None:
            if inner is not None:
                inner(at_us, what, component)
            if self.moved is not None:
                self.moved(at_us, what == "trip", self.number)
            if what == "close" and self.reasons and self.retrip_s is not None:
                self.agenda.at(at_us + int(self.retrip_s * 1e6), self._again)

        self.relay.on_move = moved

    def hold(self, reason: Reason, now_us: int) -> None:
        """One more reason to be open."""
        first = not self.reasons
        self.reasons.add(reason)
        if first or not self.relay.commanded:
            self.relay.trip(now_us)

    def let_go(self, reason: Reason, now_us: int) -> None:
        """A reason less; without any the round may be closed."""
        if reason in self.reasons:
            self.reasons.discard(reason)
            if not self.reasons:
                self._release(now_us)

    def let_all_go(self, now_us: int) -> None:
        """No reason any more (保电)."""
        if self.reasons:
            self.reasons.clear()
            self._release(now_us)

    def _release(self, now_us: int) -> None:
        if self.drives_closing:
            self.relay.direct_close(now_us)
        else:
            self.relay.permit_close(now_us)

    def _again(self, now_us: int) -> None:
        self.relay.advance(now_us)
        if self.reasons and not self.relay.contact_open:
            self.relay.trip(now_us)
