"""What makes a meter's picture abnormal: phases whose voltage is low, phases whose current does not reach the meter.

Each is a share of a phase in a daily window, so that live values, curves, demands and registers follow from the same
numbers. The load behind the meter is untouched: what was stolen has flowed. Bypass (share 0), shunt (a share) and a
reversed CT (-1) act on the current and with it on power and energy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec
import numpy as np

from ..model.lang import tr
from ..model.readings import F8, I8
from ..model.times import DAY_US
from .load import Site, day_of, day_start

AbnormalKind = Literal["low_voltage", "bypass", "shunt", "reversed"]
FIXED: Final[dict[str, float]] = {"bypass": 0.0, "reversed": -1.0}
HOUR_US: Final = 3_600_000_000
EVERY: Final = "abc"


class AbnormalSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One abnormality of a meter. share: of the voltage (low_voltage) or of the current that is metered (shunt).

    from_h, to_h: hours of the business day between which it acts; from_h above to_h = over midnight.
    """

    kind: AbnormalKind
    phases: str = EVERY
    share: float | None = None
    from_h: float = 0.0
    to_h: float = 24.0

    @property
    def factor(self) -> float:
        """What the phase's voltage or current is multiplied by."""
        return FIXED.get(self.kind, 1.0 if self.share is None else self.share)

    def acts(self, hour: float) -> bool:
        """Whether it acts at an hour of the day."""
        if self.from_h < self.to_h:
            return self.from_h <= hour < self.to_h
        return hour >= self.from_h or hour < self.to_h


def abnormal_faults(specs: Sequence[AbnormalSpec]) -> Iterator[str]:
    """What is wrong with a list of abnormalities."""
    for i, one in enumerate(specs):
        at = f"abnormal[{i}]."
        if not one.phases or set(one.phases) - set(EVERY):
            yield f"{at}phases: " + tr("must be some of a, b, c", "应由 a、b、c 组成")
        if (one.share is None) != (one.kind in FIXED) or not 0 <= one.factor**2 <= 1:
            yield f"{at}share: " + tr(
                "low_voltage and shunt need one from 0 to 1, the other kinds take none",
                "low_voltage 与 shunt 需给出 0 至 1, 其他类型不需要",
            )
        if one.share is not None and one.share < 0:
            yield f"{at}share: " + tr("must be 0 or more", "应不小于 0")
        if not (0 <= one.from_h < 24 and 0 < one.to_h <= 24 and one.from_h != one.to_h):
            yield f"{at}from_h, to_h: " + tr("must be two different hours from 0 to 24", "应为 0 至 24 的不同时刻")


@dataclass(slots=True)
class Metering:
    """How a meter sees its site. shares: of the load in each phase (3,).

    The day falls into parts between the hours at which something begins or ends; within a part all factors stand still.
    """

    site: Site
    shares: F8
    specs: tuple[AbnormalSpec, ...] = ()
    _begins: I8 = field(init=False, repr=False)
    _volts: F8 = field(init=False, repr=False)
    _amps: F8 = field(init=False, repr=False)
    _edges: I8 = field(init=False, repr=False)
    _flowed: F8 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        hours = sorted({0.0, *(h for s in self.specs for h in (s.from_h, s.to_h) if h < 24)})
        self._begins = np.array([round(h * HOUR_US) for h in hours], np.int64)
        self._volts, self._amps = np.ones((len(hours), 3)), np.ones((len(hours), 3))
        for spec in self.specs:
            table = self._volts if spec.kind == "low_voltage" else self._amps
            rows = [i for i, h in enumerate(hours) if spec.acts(h)]
            columns = [EVERY.index(p) for p in spec.phases]
            table[np.ix_(rows, columns)] *= spec.factor
        self.forget()

    @property
    def honest(self) -> bool:
        """Whether power and energy are metered as they flow."""
        return bool((self._amps == 1.0).all())

    def forget(self) -> None:
        """The site's load has been changed: what had flowed is asked anew."""
        self._edges, self._flowed = np.empty(0, np.int64), np.empty((0, 0))

    def _part(self, times: I8) -> I8:
        within = times - (times - day_start(0)) // DAY_US * DAY_US - day_start(0)
        return np.searchsorted(self._begins, within, side="right") - 1

    def voltage(self, phase: int, times: I8) -> F8:
        """(n,): share of the usual voltage."""
        return np.asarray(self._volts[self._part(times), phase])

    def power_share(self, phase: int | None, times: I8) -> F8:
        """(n,): share of the site's power that a phase shows, or (None) all of them; negative = reversed."""
        weights = self._weights(phase)
        return np.asarray(weights[self._part(times)])

    def _weights(self, phase: int | None) -> F8:
        by_phase = self._amps * self.shares
        return np.asarray(by_phase.sum(axis=1) if phase is None else by_phase[:, phase])

    def energy(self, times: I8, flowed: F8, phase: int | None = None, direction: int = 1) -> F8:
        """(TARIFFS, n) kWh a register has counted. flowed: what the site has drawn at `times`.

        direction: 1 counts what is drawn, -1 what seems to be delivered, 0 both.
        """
        weights = self._weights(phase)
        weights = np.abs(weights) if direction == 0 else np.maximum(weights * direction, 0.0)
        if (weights == weights[0]).all():
            return np.asarray(flowed * weights[0])
        self._reach(int(times.max()))
        inside = np.diff(self._flowed, axis=1) * weights[self._part(self._edges[:-1])]
        counted = np.concatenate([np.zeros((len(flowed), 1)), np.cumsum(inside, axis=1)], axis=1)
        at = np.maximum(np.searchsorted(self._edges, times, side="right") - 1, 0)
        return np.asarray(counted[:, at] + weights[self._part(self._edges[at])] * (flowed - self._flowed[:, at]))

    def _reach(self, until_us: int) -> None:
        """Know what had flowed at every beginning of a part, from the origin to `until_us`."""
        if len(self._edges) and self._edges[-1] > until_us - DAY_US and until_us < self._edges[-1] + self._least():
            return
        first, last = day_of(self.site.origin_us), day_of(until_us)
        days = np.array([day_start(d) for d in range(first, max(last, first) + 1)], np.int64)
        edges = (days[:, None] + self._begins[None, :]).ravel()
        self._edges = edges[edges <= max(until_us, self.site.origin_us)]
        self._flowed = self.site.energy(self._edges)

    def _least(self) -> int:
        """Length of the shortest part of the day: so long after its last edge the table is surely whole."""
        return int(np.diff(np.append(self._begins, DAY_US)).min())
