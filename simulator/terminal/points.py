"""Measuring points of a terminal and its total-add groups (总加组).

A point is what the device archive (F10) says: a meter on one of the terminal's ports, found by its address, or the
terminal's own AC sampling. A point whose meter does not exist or does not answer has no values. Groups are sums of
points with the ratios that the terminal was told (F25), on the primary side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ...model.readings import F8, I8
from ...model.times import US
from ..meter import SimMeter
from ..shapes import TARIFFS
from . import fields
from .parameters import Parameters
from .settings import Member, Settings

AC_SAMPLING: Final = 2
READ_BY: Final = frozenset({1, AC_SAMPLING, 30, 31})
"""Protocol codes of F10 that this terminal reads: DL/T 645-1997, its own AC sampling, DL/T 645-2007, carrier module."""


GONE: Final = ("silent", "restart")
"""Faults of a meter during which the terminal cannot read it."""


def absences(meter: SimMeter) -> list[tuple[int, int | None]]:
    """[begin, end) during which a meter can not be read at all (not: some requests of it)."""
    return [
        (r.begin_us, r.end_us)
        for r in meter.faults.rules
        if r.fault.kind in GONE and not r.fault.match and r.fault.count is None and r.fault.probability >= 1
    ]


@dataclass(slots=True)
class PointBook:
    """installed: meters by address. internal: the meter that stands for the AC sampling.

    holes: [begin, end) during which the terminal itself recorded nothing; since_us: nothing was kept before; paused:
    ports on which reading is suspended.
    """

    parameters: Parameters
    installed: Mapping[str, SimMeter]
    internal: SimMeter | None = None
    holes: list[tuple[int, int | None]] = field(default_factory=list)
    since_us: int = 0
    paused: set[int] = field(default_factory=set)

    def _entry(self, pn: int) -> dict[str, object] | None:
        return next((e for e in self.parameters.entries(10) if fields.integer(e, "pn") == pn), None)

    def numbers(self) -> tuple[int, ...]:
        """Points of the archive that are read, ascending."""
        found = {
            fields.integer(e, "pn") for e in self.parameters.entries(10) if fields.integer(e, "protocol") in READ_BY
        }
        return tuple(sorted(found))

    def meter(self, pn: int) -> SimMeter | None:
        """The meter behind a point; None = not in the archive, not read, or not there."""
        entry = self._entry(pn)
        if entry is None or fields.integer(entry, "protocol") not in READ_BY:
            return None
        if fields.integer(entry, "protocol") == AC_SAMPLING:
            return self.internal
        return self.installed.get(str(entry.get("address", "")).zfill(12))

    def answers(self, pn: int, now_us: int) -> bool:
        """Whether the meter of a point can be read now."""
        meter, entry = self.meter(pn), self._entry(pn)
        if meter is None or fields.integer(entry, "port") in self.paused:
            return False
        return not any(begin <= now_us and (end is None or now_us < end) for begin, end in absences(meter))

    def recorded(self, meter: SimMeter, times: I8) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Which instants the terminal could record from this meter."""
        good = times >= max(self.since_us, meter.site.origin_us)
        for begin, end in [*self.holes, *absences(meter)]:
            good &= (times < begin) | ((times >= end) if end is not None else False)
        return np.asarray(good)

    def series(self, pn: int, name: str, times: Sequence[int] | I8) -> F8:
        """(n,) recorded values (secondary) of a quantity at instants; NaN where there is none."""
        at = np.asarray(times, np.int64)
        meter = self.meter(pn)
        if meter is None:
            return np.full(len(at), np.nan)
        return np.where(self.recorded(meter, at), meter.series(name, at), np.nan)

    def value(self, pn: int, name: str, at_us: int) -> float:
        """One value now; NaN if the meter does not answer."""
        meter = self.meter(pn)
        return float("nan") if meter is None or not self.answers(pn, at_us) else meter.value(name, at_us)


@dataclass(slots=True)
class Totals:
    """Sums of the groups, primary. A group with a point that has no value has none either."""

    points: PointBook
    settings: Settings

    def members(self, group: int) -> tuple[Member, ...]:
        """Points of a group; empty = the group is not set."""
        return self.settings.groups().get(group, ())

    def _sum(self, group: int, times: I8, one: Callable[[Member, I8], F8]) -> F8 | None:
        members = self.members(group)
        if not members:
            return None
        total: F8 | None = None
        for member in members:
            pt, ct = self.settings.ratios(member.pn)
            part = one(member, times) * (pt * ct) * (-1.0 if member.subtract else 1.0)
            total = part if total is None else total + part
        return total

    def power(self, group: int, times: Sequence[int] | I8, kind: str = "active") -> F8 | None:
        """(n,) kW or kvar; None = no such group."""

        def one(member: Member, at: I8) -> F8:
            value = self.points.series(member.pn, f"{kind}_power_total", at)
            return np.maximum(-value if member.reverse else value, 0.0)

        return self._sum(group, np.asarray(times, np.int64), one)

    def power_now(self, group: int, at_us: int, kind: str = "active") -> float | None:
        """kW or kvar at an instant; None = no value."""
        found = self.power(group, [at_us], kind)
        return None if found is None or np.isnan(found[0]) else float(found[0])

    def mean(self, group: int, at_us: int, minutes: int) -> float | None:
        """Slip mean: of the minute values of the last `minutes`."""
        found = self.power(group, at_us - np.arange(minutes) * 60 * US)
        if found is None or np.isnan(found).all():
            return None
        return float(np.nanmean(found))

    def energy(self, group: int, start_us: int, end_us: int, kind: str = "active") -> list[float] | None:
        """kWh or kvarh between two instants: total, then the tariffs; None = no value."""
        totals = []
        for part in ("total", *(f"t{i + 1}" for i in range(TARIFFS))):

            def one(member: Member, at: I8, part: str = part) -> F8:
                way = "reverse" if member.reverse else "forward"
                return np.diff(self.points.series(member.pn, f"{way}_{kind}_{part}", at))

            found = self._sum(group, np.array([start_us, end_us], np.int64), one)
            if found is None or np.isnan(found[0]):
                return None
            totals.append(float(found[0]))
        return totals
