"""Remote trip of rounds (AFN 05 F1 / F2): alarm, trip, limit time; ERC5 two minutes after the trip."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ...model.times import US
from . import fields
from .parts import Parts

REASON: Final = ("remote", 0)
AFTER_US: Final = 120 * US
HALF_HOUR_US: Final = 1_800 * US
MINUTE_US: Final = 60 * US


@dataclass(slots=True)
class _Trip:
    """A command in force. number: tells its timers from those of the command before."""

    number: int
    ends_us: int | None
    tripped: bool = False


@dataclass(slots=True)
class RemoteTrip:
    """See the head of the module. group: the total-add group whose power ERC5 tells."""

    parts: Parts
    group: int = 1
    _trips: dict[int, _Trip] = field(default_factory=dict)
    _pending: dict[int, tuple[list[int], float | None]] = field(default_factory=dict)
    _numbers: int = 0

    @property
    def outputs(self) -> frozenset[int]:
        """Rounds held open by a remote trip."""
        return frozenset(r for r, t in self._trips.items() if t.tripped)

    @property
    def alarms(self) -> frozenset[int]:
        """Rounds whose alarm is sounding."""
        return frozenset(r for r, t in self._trips.items() if not t.tripped)

    def command(self, number: int, alarm_min: int, limit_half_hours: int, now_us: int) -> None:
        """F1. The limit time counts from the command's trip; 0 = until F2. A round already out stays out."""
        self._numbers += 1
        trips_us = now_us + alarm_min * MINUTE_US
        old = self._trips.get(number)
        trip = _Trip(self._numbers, trips_us + limit_half_hours * HALF_HOUR_US if limit_half_hours else None)
        self._trips[number] = trip
        if old is not None and old.tripped:
            trip.tripped = True
        elif alarm_min:
            self.parts.agenda.at(trips_us, partial(self._execute, number, trip))
        else:
            self._execute(number, trip, now_us)
        if trip.ends_us is not None:
            self.parts.agenda.at(trip.ends_us, partial(self._expire, number, trip))

    def _execute(self, number: int, trip: _Trip, at_us: int) -> None:
        if self._trips.get(number) is not trip or trip.tripped:
            return
        trip.tripped = True
        rounds, _ = self._pending.setdefault(at_us, ([], self.parts.totals.power_now(self.group, at_us)))
        if not rounds:
            self.parts.agenda.at(at_us + AFTER_US, partial(self._tell, at_us))
        rounds.append(number)
        self.parts.rounds[number].hold(REASON, at_us)
        self.parts.count_trip(at_us, "remote")

    def _tell(self, trip_us: int, at_us: int) -> None:
        self.parts.advance_rounds(at_us)
        rounds, before = self._pending.pop(trip_us)
        self.parts.record(
            5, trip_us, rounds=sorted(rounds), power_trip_kw=fields.power(before),
            power_after_kw=fields.power(self.parts.totals.power_now(self.group, at_us)),
        )  # fmt: skip

    def _expire(self, number: int, trip: _Trip, at_us: int) -> None:
        if self._trips.get(number) is trip:
            self.permit(number, at_us)

    def permit(self, number: int, now_us: int) -> None:
        """F2, or the limit time is over."""
        if self._trips.pop(number, None) is not None:
            self.parts.rounds[number].let_go(REASON, now_us)

    def cancel(self, now_us: int) -> dict[int, int | None]:
        """保电: nothing is tripped or about to be any more; what was in force (round: end)."""
        before = {r: t.ends_us for r, t in self._trips.items() if t.tripped}
        for number in list(self._trips):
            self.permit(number, now_us)
        return before

    def restore(self, before: dict[int, int | None], now_us: int) -> None:
        """Trip again what was in force before an automatic 保电 and has not run out meanwhile."""
        for number, ends_us in before.items():
            if number in self._trips or (ends_us is not None and ends_us <= now_us):
                continue
            self._numbers += 1
            trip = self._trips[number] = _Trip(self._numbers, ends_us)
            self._execute(number, trip, now_us)
            if ends_us is not None:
                self.parts.agenda.at(ends_us, partial(self._expire, number, trip))
