"""Power control of one total-add group: 当前功率下浮 > 营业报停 > 厂休 > 时段; the highest that is engaged acts alone.

Each minute: the slip mean of the group's power against the limit in force and the security setpoint F17. Over both ->
alarm for the next round's time -> that round trips -> two minutes later ERC6 -> one slip window later the next
comparison. The trip is given up if the power falls to the limit while the alarm sounds. Rounds stay out until the
control is released, its window ends, a higher control takes over, or 保电.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from ...model.times import US
from . import fields
from .parts import Parts

Kind = Literal["period", "rest", "suspension", "reduction"]
PRIORITY: Final[tuple[Kind, ...]] = ("reduction", "suspension", "rest", "period")
BIT: Final[dict[Kind, int]] = {"period": 1, "rest": 2, "suspension": 3, "reduction": 4}
"""Place of a kind in the bit sets of 0C F5, F6 and of ERC6, counted from 1."""
MINUTE_US: Final = 60 * US
AFTER_US: Final = 120 * US


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """AFN 05 F12. float_percent is signed: -12 = 12 % down."""

    slide_min: int
    float_percent: float
    freeze_delay_min: int
    control_half_hours: int
    alarm_min: tuple[int, ...]


@dataclass(slots=True)
class _Reducing:
    """A reduction in force: its limit is found when the first slide window is over."""

    order: Reduction
    since_us: int
    limit_kw: float | None = None
    frozen: bool = False

    @property
    def ends_us(self) -> int:
        return self.since_us + self.order.control_half_hours * 30 * MINUTE_US


@dataclass(slots=True)
class PowerControl:
    """State of one group. periods: engaged period mask (empty = 时段 off); scheme: 1..3."""

    parts: Parts
    group: int
    periods: frozenset[int] = frozenset()
    scheme: int = 1
    engaged: set[Kind] = field(default_factory=set)
    tripped: list[int] = field(default_factory=list)
    limit_kw: float | None = None
    frozen_kw: float | None = None
    over: bool = False
    alarm_round: int = 0
    _reducing: _Reducing | None = None
    _window: tuple[Kind, int] | None = None
    _next_us: int = 0
    _alarm: int = 0

    # --- commands ---------------------------------------------------------------------------------------------

    def engage_period(self, periods: frozenset[int], scheme: int, now_us: int) -> None:
        """F9: mask of periods and setting scheme 1..3."""
        self.periods, self.scheme = periods, scheme
        self.engage("period", now_us)

    def engage_reduction(self, order: Reduction, now_us: int) -> None:
        """F12."""
        self._reducing = _Reducing(order, now_us)
        self.frozen_kw = None
        self.parts.agenda.at(now_us + order.freeze_delay_min * MINUTE_US, self._freeze)
        self.engage("reduction", now_us)

    def engage(self, kind: Kind, now_us: int) -> None:
        """F10, F11."""
        self.engaged.add(kind)
        self._next_us = now_us

    def release(self, kind: Kind, now_us: int) -> None:
        """F17–F20: the control is off and its rounds may be closed."""
        self.engaged.discard(kind)
        if kind == "reduction":
            self._reducing = None
        if kind == "period":
            self.periods = frozenset()
        if self._window is not None and self._window[0] == kind:
            self._leave(now_us)

    @property
    def acting(self) -> Kind | None:
        """The engaged control with the highest priority, whether its window is open or not."""
        return next((k for k in PRIORITY if k in self.engaged), None)

    @property
    def in_force(self) -> Kind | None:
        """The control whose limit holds now."""
        return self._window[0] if self._window else None

    @property
    def float_percent(self) -> float | None:
        """Coefficient of the reduction in force."""
        return self._reducing.order.float_percent if self._reducing else None

    # --- each minute ------------------------------------------------------------------------------------------

    def step(self, now_us: int, *, protected: bool) -> None:
        """A minute has passed."""
        if self._reducing is not None and now_us >= self._reducing.ends_us:
            self.release("reduction", now_us)
        window, limit = self._limit(now_us)
        if window != self._window:
            self._leave(now_us)
            self._window, self._next_us = window, now_us
        self.limit_kw = limit
        if window is None or limit is None:
            return
        self._count(limit, now_us)
        if protected:
            self._stop_alarm()
            self._close(now_us)
        if self.alarm_round:
            power = self.parts.totals.power_now(self.group, now_us)
            if power is not None and power <= limit:
                self._stop_alarm()
                self._next_us = now_us + self._slide_us()
        elif now_us >= self._next_us:
            self._compare(window[0], limit, now_us, protected=protected)

    def _count(self, limit: float, now_us: int) -> None:
        power = self.parts.totals.power_now(self.group, now_us)
        if power is not None and power > limit:
            self.parts.counters.over_limit(self.parts.local(now_us), self.group, "power", (power - limit) / 60)

    def _limit(self, now_us: int) -> tuple[tuple[Kind, int] | None, float | None]:
        """(control and number of its window, limit); None = nothing to compare with now."""
        kind, settings = self.acting, self.parts.settings
        local = self.parts.local(now_us)
        if kind == "reduction" and self._reducing is not None:
            reducing = self._reducing
            if reducing.limit_kw is None and now_us >= reducing.since_us + reducing.order.slide_min * MINUTE_US:
                mean = self.parts.totals.mean(self.group, now_us, reducing.order.slide_min)
                if mean is not None:
                    reducing.limit_kw = max(mean * (1 + reducing.order.float_percent / 100), 0.0)
            return (("reduction", 0), reducing.limit_kw) if reducing.limit_kw is not None else (None, None)
        if kind == "suspension":
            suspension = settings.suspension(self.group)
            if suspension is not None and suspension.holds(local):
                return ("suspension", 0), suspension.limit_kw
        if kind == "rest":
            rest = settings.rest_window(self.group)
            if rest is not None and rest.holds(local):
                return ("rest", 0), rest.limit_kw
        if kind == "period":
            number, code = settings.period(local)
            if code in (1, 2) and number in self.periods:
                limit = settings.period_limit(self.group, self.scheme, number)
                return (("period", number), limit) if limit is not None else (None, None)
        return None, None

    def _slide_us(self) -> int:
        if self.in_force == "reduction" and self._reducing is not None:
            return self._reducing.order.slide_min * MINUTE_US
        return self.parts.settings.slide_min(self.group) * MINUTE_US

    def _compare(self, kind: Kind, limit: float, now_us: int, *, protected: bool) -> None:
        slide = self._slide_us()
        mean = self.parts.totals.mean(self.group, now_us, slide // MINUTE_US)
        self._next_us = now_us + slide
        self.over = mean is not None and mean > limit and mean >= self.parts.settings.security_kw()
        number = self._next_round()
        if not self.over or protected or number is None:
            return
        minutes = self._alarm_min(kind, number)
        if not minutes:
            self._trip(number, now_us)
            return
        self.alarm_round = number
        self._alarm += 1
        mark = self._alarm
        self.parts.agenda.at(now_us + minutes * MINUTE_US, partial(self._alarm_over, mark))

    def _next_round(self) -> int | None:
        wanted = self.parts.settings.power_rounds(self.group)
        return next((r for r in wanted if r in self.parts.rounds and r not in self.tripped), None)

    def _alarm_min(self, kind: Kind, number: int) -> int:
        if kind == "reduction" and self._reducing is not None:
            times = self._reducing.order.alarm_min
            return times[min(number, len(times)) - 1] if times else 0
        return self.parts.settings.alarm_min(number)

    def _alarm_over(self, mark: int, at_us: int) -> None:
        if not self.alarm_round or mark != self._alarm:
            return
        self.parts.advance_rounds(at_us)
        power = self.parts.totals.power_now(self.group, at_us)
        number = self.alarm_round
        self._stop_alarm()
        if power is not None and self.limit_kw is not None and power <= self.limit_kw:
            self._next_us = at_us + self._slide_us()
            return
        self._trip(number, at_us)

    def _trip(self, number: int, at_us: int) -> None:
        kind, limit = self.in_force, self.limit_kw
        if kind is None:
            return
        before = self.parts.totals.power_now(self.group, at_us)
        self.tripped.append(number)
        self.parts.rounds[number].hold(("power", self.group), at_us)
        self.parts.count_trip(at_us, "power")
        self._next_us = at_us + max(AFTER_US, self._slide_us())

        def tell(later_us: int) -> None:
            self.parts.advance_rounds(later_us)
            self.parts.record(
                6, at_us, group=self.group, rounds=[number], type=[BIT[kind]], power_before_kw=fields.power(before),
                power_after_kw=fields.power(self.parts.totals.power_now(self.group, later_us)),
                limit_kw=fields.power(limit),
            )  # fmt: skip

        self.parts.agenda.at(at_us + AFTER_US, tell)

    def _stop_alarm(self) -> None:
        self.alarm_round = 0
        self._alarm += 1

    def _close(self, now_us: int) -> None:
        for number in self.tripped:
            self.parts.rounds[number].let_go(("power", self.group), now_us)
        self.tripped.clear()

    def _leave(self, now_us: int) -> None:
        """The window is over: nothing is tripped by this control any more."""
        self._window, self.limit_kw, self.over = None, None, False
        self._stop_alarm()
        self._close(now_us)

    def _freeze(self, at_us: int) -> None:
        if self._reducing is not None and not self._reducing.frozen:
            self.parts.advance_rounds(at_us)
            self._reducing.frozen = True
            self.frozen_kw = self.parts.totals.power_now(self.group, at_us)
