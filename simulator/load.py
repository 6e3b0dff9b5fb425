"""Load physics of one site: what flows at any instant and what has flowed since the beginning, in closed form.

A site is a base (security load, 保安负荷) and rounds (轮次) that each carry their own kW. The undisturbed power of
every component is a pure function of (seed, time): straight lines between quarter-hours, so that its integral is
exact. What happens live (trip, close, rebound) is kept as a weight of the component, piecewise linear in time; power is
component x weight and energy its exact integral (products of straight lines: Simpson's rule has no error).

All powers are primary kW, energies primary kWh, times µs since 1970 UTC. No clock in here.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ..model.readings import F8, I8
from ..model.times import DAY_US, SLOT_15MIN_US
from .shapes import SLOTS_DAY, TARIFFS, Shape, Weather, noise, tariff_of_slot

LOCAL_US: Final = 8 * 3_600 * 1_000_000
SLOT_H: Final = 0.25
_DAYS_KEPT: Final = 12


def slot_of(time_us: I8) -> I8:
    """Quarter-hour number since 1970-01-01 00:00 in the business zone."""
    return (time_us + LOCAL_US) // SLOT_15MIN_US


def day_of(time_us: int) -> int:
    """Day number since 1970-01-01 in the business zone."""
    return (time_us + LOCAL_US) // DAY_US


def day_start(day: int) -> int:
    """Instant of 00:00 of a day number."""
    return day * DAY_US - LOCAL_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One part of a site's load: connected kW, and whether it follows the industry's shape or is flat (base)."""

    kw: float
    flat: bool = False


@dataclass(slots=True)
class _Piece:
    """Weight from `start_us` until the next piece: w(t) = weight + slope * (t - start_us)."""

    start_us: int
    weight: float
    slope: float = 0.0


@dataclass(slots=True)
class _Day:
    nodes: F8  # (C, 97) kW at the quarter-hours 00:00 … 24:00
    cumulative: F8  # (TARIFFS, C, 97) kWh since 00:00


@dataclass(slots=True)
class Site:
    """The load behind one metering point.

    components[0] is the base, components[1:] the rounds. `origin_us` is where the energies begin (a local midnight).
    pickup / pickup_s: factor just after a round closes (冷负荷启动) and how long it takes to fall back to one.
    """

    components: tuple[Component, ...]
    shape: Shape
    seed: int
    origin_us: int
    weather: Weather = field(default_factory=Weather)
    rest_days: frozenset[int] = frozenset()
    pickup: float = 1.0
    pickup_s: float = 900.0
    _weights: list[list[_Piece]] = field(init=False, repr=False)
    _days: dict[int, _Day] = field(init=False, repr=False, default_factory=dict)
    _before: list[F8] = field(init=False, repr=False)
    _slots: F8 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if day_start(day_of(self.origin_us)) != self.origin_us:
            raise ValueError("origin_us must be a local midnight")
        self._weights = [[_Piece(self.origin_us, 1.0)] for _ in self.components]
        self._before = [np.zeros((TARIFFS, len(self.components)))]
        self._slots = self.shape.slots()

    # --- the undisturbed load ---------------------------------------------------------------------------------

    def nodes(self, slot: I8) -> F8:
        """(C, n): kW of every component at quarter-hour numbers, as if every round were closed."""
        day = slot // SLOTS_DAY
        rest = np.isin((day + 3) % 7, self.shape.rest_weekdays)  # 1970-01-01 was a Thursday
        if self.rest_days:
            rest |= np.isin(day, list(self.rest_days))
        share = self._slots[rest.astype(np.int64), slot % SLOTS_DAY]
        temperature = self.weather.temperature(slot)
        share = share * (
            1.0
            + self.shape.cooling * np.maximum(temperature - 26.0, 0.0)
            + self.shape.heating * np.maximum(8.0 - temperature, 0.0)
        )
        rows = []
        for i, c in enumerate(self.components):
            deviation = self.shape.noise * noise(self.seed, i, slot)
            rows.append(c.kw * (1.0 + 0.3 * deviation) if c.flat else c.kw * share * (1.0 + deviation))
        return np.maximum(np.stack(rows), 0.0)

    def _day(self, day: int) -> _Day:
        found = self._days.get(day)
        if found is None:
            nodes = self.nodes(np.arange(day * SLOTS_DAY, (day + 1) * SLOTS_DAY + 1))
            energy = (nodes[:, :-1] + nodes[:, 1:]) * (SLOT_H / 2)
            by_tariff = np.where(tariff_of_slot() == np.arange(TARIFFS)[:, None, None], energy, 0.0)
            cumulative = np.zeros((TARIFFS, len(self.components), SLOTS_DAY + 1))
            np.cumsum(by_tariff, axis=2, out=cumulative[:, :, 1:])
            found = _Day(nodes, cumulative)
            if len(self._days) >= _DAYS_KEPT:
                del self._days[next(iter(self._days))]
            self._days[day] = found
        return found

    def _energy_before(self, day: int) -> F8:
        """(TARIFFS, C): kWh from the origin to 00:00 of `day`."""
        first = day_of(self.origin_us)
        while len(self._before) <= day - first:
            self._before.append(self._before[-1] + self._day(first + len(self._before) - 1).cumulative[:, :, -1])
        return self._before[day - first]

    def _undisturbed(self, times: I8) -> F8:
        """(TARIFFS, C, n): kWh of every component from the origin, every instant at or after the origin."""
        out = np.empty((TARIFFS, len(self.components), len(times)))
        days = (times + LOCAL_US) // DAY_US
        for day in np.unique(days):
            here = days == day
            detail = self._day(int(day))
            within = times[here] - day_start(int(day))
            i = within // SLOT_15MIN_US
            f = (within % SLOT_15MIN_US) / SLOT_15MIN_US
            p0, p1 = detail.nodes[:, i], detail.nodes[:, i + 1]
            total = detail.cumulative[:, :, i] + self._energy_before(int(day))[:, :, None]
            part = (p0 * f + (p1 - p0) * f * f / 2) * SLOT_H
            total[tariff_of_slot()[i], :, np.arange(len(i))] += part.T
            out[:, :, here] = total
        return out

    def _component_power(self, times: I8) -> F8:
        """(C, n) kW as if every round were closed, from the cached days."""
        out = np.empty((len(self.components), len(times)))
        days = (times + LOCAL_US) // DAY_US
        for day in np.unique(days):
            here = days == day
            nodes = self._day(int(day)).nodes
            within = times[here] - day_start(int(day))
            i = within // SLOT_15MIN_US
            f = (within % SLOT_15MIN_US) / SLOT_15MIN_US
            out[:, here] = nodes[:, i] * (1 - f) + nodes[:, i + 1] * f
        return out

    # --- live changes -----------------------------------------------------------------------------------------

    def _replace_from(self, component: int, *pieces: _Piece) -> None:
        kept = [p for p in self._weights[component] if p.start_us < pieces[0].start_us]
        self._weights[component] = kept + list(pieces)

    def trip(self, component: int, at_us: int, rebound: float = 0.0) -> None:
        """From `at_us` the component carries nothing; `rebound` is the share that appears elsewhere on the site."""
        self._replace_from(component, _Piece(at_us, rebound))

    def close(self, component: int, at_us: int) -> None:
        """From `at_us` the component carries its load again, times the cold-load factor, which falls back linearly."""
        if self.pickup == 1.0 or self.pickup_s <= 0:
            self._replace_from(component, _Piece(at_us, 1.0))
            return
        width = int(self.pickup_s * 1_000_000)
        slope = (1.0 - self.pickup) / width
        self._replace_from(component, _Piece(at_us, self.pickup, slope), _Piece(at_us + width, 1.0))

    def weight(self, component: int, times: I8) -> F8:
        """(n,): share of the undisturbed load that flows."""
        pieces = self._weights[component]
        starts = np.array([p.start_us for p in pieces])
        i = np.maximum(np.searchsorted(starts, times, side="right") - 1, 0)
        weights = np.array([p.weight for p in pieces])
        slopes = np.array([p.slope for p in pieces])
        return np.asarray(weights[i] + slopes[i] * (times - starts[i]))

    # --- what flows and what has flowed -----------------------------------------------------------------------

    def power_by_component(self, times: I8) -> F8:
        """(C, n) kW at the instants."""
        power = self._component_power(times)
        return np.asarray(power * np.stack([self.weight(c, times) for c in range(len(self.components))]))

    def power(self, times: I8) -> F8:
        """(n,) kW of the site at the instants."""
        return np.asarray(self.power_by_component(times).sum(axis=0))

    def energy(self, times: I8) -> F8:
        """(TARIFFS, n) kWh of the site from the origin; instants before it count as the origin."""
        times = np.maximum(times, self.origin_us)
        total = np.zeros((TARIFFS, len(times)))
        flowed = self._undisturbed(times)
        for component, pieces in enumerate(self._weights):
            if len(pieces) == 1:  # never tripped: one weight since the origin
                total += pieces[0].weight * flowed[:, component]
                continue
            for i, piece in enumerate(pieces):
                end = pieces[i + 1].start_us if i + 1 < len(pieces) else np.iinfo(np.int64).max
                upper = np.clip(times, piece.start_us, end)
                if not (upper > piece.start_us).any():
                    break
                if piece.slope:
                    total += self._sloped(component, piece, upper)
                elif piece.weight:
                    edges = self._undisturbed(np.append(upper, piece.start_us))[:, component]
                    total += piece.weight * (edges[:, :-1] - edges[:, -1:])
        return total

    def _sloped(self, component: int, piece: _Piece, upper: I8) -> F8:
        """(TARIFFS, n) kWh of a sloped weight from its start to `upper`: Simpson on every quarter-hour, exact."""
        out = np.zeros((TARIFFS, len(upper)))
        end = int(upper.max())
        first, last = int(slot_of(np.array([piece.start_us]))[0]), int(slot_of(np.array([end]))[0])
        for slot in range(first, last + 1):
            lo = max(piece.start_us, slot * SLOT_15MIN_US - LOCAL_US)
            hi = np.clip(upper, lo, (slot + 1) * SLOT_15MIN_US - LOCAL_US)
            ends = self.nodes(np.array([slot, slot + 1]))[component]
            base = slot * SLOT_15MIN_US - LOCAL_US

            def flow(t: F8, ends: F8 = ends, base: int = base) -> F8:
                power = ends[0] + (ends[1] - ends[0]) * (t - base) / SLOT_15MIN_US
                return np.asarray(power * (piece.weight + piece.slope * (t - piece.start_us)))

            width = (hi - lo) / 3_600e6
            simpson = (flow(np.full(len(hi), float(lo))) + 4 * flow((lo + hi) / 2) + flow(hi.astype(np.float64))) / 6
            out[tariff_of_slot()[slot % SLOTS_DAY]] += simpson * width
        return out

    def closed_at(self, component: int, at_us: int) -> bool:
        """Whether the component's own load flows at the instant (a rebound does not count)."""
        pieces = self._weights[component]
        i = max(bisect_right([p.start_us for p in pieces], at_us) - 1, 0)
        return pieces[i].weight + pieces[i].slope * (at_us - pieces[i].start_us) >= 1.0 or pieces[i].slope != 0.0
