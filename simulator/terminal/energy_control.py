"""Energy control of one total-add group: 月电控 against the month's energy, 购电控 against what was bought.

Near the limit: alarm and ERC23. At the limit: every round of F48 trips at once and ERC7; below it again (a new month, a
higher limit, a purchase) they may be closed. What was bought runs down whether the control is engaged or not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from ..clock import month_start
from . import fields
from .counters import TripKind
from .parts import Parts
from .settings import Purchase

Kind = Literal["month", "purchase"]
BIT: Final[dict[Kind, int]] = {"month": 1, "purchase": 2}
KINDS: Final[tuple[Kind, ...]] = ("month", "purchase")


@dataclass(slots=True)
class _One:
    engaged: bool = False
    alarm: bool = False
    tripped: tuple[int, ...] = ()


@dataclass(slots=True)
class EnergyControl:
    """State of one group. bought: kWh (or money at one a kWh) left at the last purchase; None = nothing was bought."""

    parts: Parts
    group: int
    kinds: dict[Kind, _One] = field(default_factory=lambda: {k: _One() for k in KINDS})
    last_order: int | None = None
    purchase: Purchase | None = None
    _bought: float | None = None
    _bought_us: int = 0

    def engage(self, kind: Kind) -> None:
        """F15, F16."""
        self.kinds[kind].engaged = True

    def release(self, kind: Kind, now_us: int) -> None:
        """F23, F24."""
        one = self.kinds[kind]
        one.engaged = one.alarm = False
        self._close(kind, now_us)

    def buy(self, purchase: Purchase, now_us: int) -> None:
        """F47: add to or replace what is left; ERC19. The same order number again changes the limits only."""
        before = self.remaining(now_us) or 0.0
        after = before
        if purchase.order != self.last_order:
            after = before + purchase.amount if purchase.add else purchase.amount
            self._bought, self._bought_us = after, now_us
            self.last_order = purchase.order
        self.purchase = purchase
        self.parts.record(
            19, now_us, group=self.group, order_no=purchase.order, mode=0x55 if purchase.add else 0xAA,
            amount=fields.energy(purchase.amount), alarm_limit=fields.energy(purchase.alarm),
            trip_limit=fields.energy(purchase.trip), before=fields.energy(before), after=fields.energy(after),
        )  # fmt: skip

    def remaining(self, now_us: int) -> float | None:
        """What is left (0C F23); negative when overdrawn, None if nothing was ever bought."""
        if self._bought is None:
            return None
        used = self.parts.totals.energy(self.group, self._bought_us, now_us)
        return self._bought - used[0] if used is not None else self._bought

    def month_kwh(self, now_us: int) -> float | None:
        """Energy of the month so far."""
        start = self.parts.clock.true_us(month_start(self.parts.local(now_us)))
        if start is None:
            return None
        used = self.parts.totals.energy(self.group, max(start, self.parts.points.since_us), now_us)
        return None if used is None else used[0]

    def step(self, now_us: int, *, protected: bool) -> None:
        """A minute has passed."""
        for kind in KINDS:
            one = self.kinds[kind]
            if not one.engaged:
                continue
            if protected:
                one.alarm = False
                self._close(kind, now_us)
                continue
            level, energy, limit = self._level(kind, now_us)
            if level == 2:
                power = self.parts.totals.power_now(self.group, now_us) or 0.0
                self.parts.counters.over_limit(self.parts.local(now_us), self.group, "energy", power / 60)
                self._trip(kind, energy, limit, now_us)
            else:
                self._close(kind, now_us)
                if level == 1 and not one.alarm:
                    self._record(23, kind, energy, limit, now_us)
                one.alarm = level == 1

    def _level(self, kind: Kind, now_us: int) -> tuple[int, float, float]:
        """(0 fine, 1 alarm, 2 limit reached; energy; limit)."""
        if kind == "month":
            limits, energy = self.parts.settings.month_limit(self.group), self.month_kwh(now_us)
            if limits is None or energy is None:
                return 0, 0.0, 0.0
            return 2 if energy >= limits[0] else 1 if energy >= limits[1] else 0, energy, limits[0]
        left, terms = self.remaining(now_us), self.purchase
        if left is None or terms is None:
            return 0, 0.0, 0.0
        return 2 if left <= terms.trip else 1 if left <= terms.alarm else 0, left, terms.trip

    def _trip(self, kind: Kind, energy: float, limit: float, now_us: int) -> None:
        one = self.kinds[kind]
        one.alarm = True
        rounds = tuple(r for r in self.parts.settings.energy_rounds(self.group) if r in self.parts.rounds)
        if one.tripped == rounds:
            return
        fresh = [r for r in rounds if r not in one.tripped]
        for number in fresh:
            self.parts.rounds[number].hold((kind, self.group), now_us)
        one.tripped = rounds
        if fresh:
            counted: TripKind = kind
            self.parts.count_trip(now_us, counted)
            self._record(7, kind, energy, limit, now_us)

    def _record(self, erc: int, kind: Kind, energy: float, limit: float, now_us: int) -> None:
        rounds = sorted(self.parts.settings.energy_rounds(self.group))
        self.parts.record(
            erc, now_us, group=self.group, rounds=rounds, type=[BIT[kind]],
            energy=fields.energy(energy), limit=fields.energy(limit),
        )  # fmt: skip

    def _close(self, kind: Kind, now_us: int) -> None:
        one = self.kinds[kind]
        for number in one.tripped:
            self.parts.rounds[number].let_go((kind, self.group), now_us)
        one.tripped = ()
