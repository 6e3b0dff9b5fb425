"""Events that a terminal finds by watching its meters: limits of F26 and F36, clocks, registers, failed readings.

Once a minute over the points that have something to watch. A limit must be passed for its own minutes before the event
begins, and is left when the value is back by the recovery coefficient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ...model.times import US
from . import fields
from .parts import Parts

PHASES: Final = "abc"
SILENT_MIN: Final = 15
CLOCK_EVERY_MIN: Final = 15


@dataclass(slots=True)
class _Watch:
    """One condition of one point: since when it holds, and whether its event has begun."""

    since_us: int | None = None
    begun: bool = False


@dataclass(frozen=True, slots=True)
class _Limit:
    """A row of F26: ERC, its type, quantity, names of limit, minutes and recovery, and whether it is a lower limit."""

    erc: int
    type: int
    quantity: str
    limit: str
    lower: bool = False

    @property
    def stem(self) -> str:
        return self.limit.rsplit("_", 1)[0]


LIMITS: Final = (
    _Limit(24, 1, "voltage", "u_high_v"),
    _Limit(24, 2, "voltage", "u_low_v", lower=True),
    _Limit(25, 1, "current", "i_high_a"),
    _Limit(25, 2, "current", "i_upper_a"),
    _Limit(26, 1, "apparent_power_total", "s_high_kva"),
    _Limit(26, 2, "apparent_power_total", "s_upper_kva"),
)


@dataclass(slots=True)
class Monitors:
    """See the head of the module."""

    parts: Parts
    _watches: dict[tuple[int, ...], _Watch] = field(default_factory=dict)
    _registers: dict[int, float] = field(default_factory=dict)
    _last_ok: dict[int, tuple[int, float, float]] = field(default_factory=dict)
    _programmed: dict[int, dict[str, int]] = field(default_factory=dict)
    _status: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _traffic_told: tuple[int, int] | None = None

    def step(self, now_us: int) -> None:
        """A minute has passed."""
        minute = now_us // (60 * US)
        for pn in self.parts.points.numbers():
            if not self.parts.points.answers(pn, now_us):
                self._silent(pn, now_us)
                continue
            limits = self.parts.settings.limits(pn)
            if limits:
                self._limits(pn, limits, now_us)
            if minute % CLOCK_EVERY_MIN == pn % CLOCK_EVERY_MIN:
                self._read(pn, now_us)
        self._traffic(now_us)

    # --- limits -----------------------------------------------------------------------------------------------

    def _limits(self, pn: int, limits: fields.Data, now_us: int) -> None:
        for place, row in enumerate(LIMITS):
            limit = fields.number(limits, row.limit)
            if not limit:
                continue
            minutes = fields.integer(limits, f"{row.stem}_min")
            back = (fields.number(limits, f"{row.stem}_recovery") or 0.0) / 100
            names = [row.quantity] if row.quantity.endswith("total") else [f"{row.quantity}_{p}" for p in PHASES]
            values = [self.parts.points.value(pn, n, now_us) for n in names]
            passed = frozenset(
                i for i, v in enumerate(values)
                if not math.isnan(v) and (0.0 < v < limit if row.lower else v > limit)
            )  # fmt: skip
            edge = limit * (1 + back) if row.lower else limit * (1 - back)
            home = all(math.isnan(v) or (v > edge if row.lower else v < edge) for v in values)
            self._judge(
                (row.erc, pn, place), bool(passed), home, minutes, now_us,
                partial(self._tell, row, pn, values, passed, limit, now_us),
            )  # fmt: skip
        self._unbalance(pn, limits, now_us)

    def _judge(
        self, key: tuple[int, ...], passed: bool, home: bool, minutes: int, now_us: int, tell: Callable[[int], None]
    ) -> None:
        """tell(1) when the condition has held for its minutes, tell(0) when it is over."""
        watch = self._watches.setdefault(key, _Watch())
        if watch.begun:
            if home:
                watch.begun, watch.since_us = False, None
                tell(0)
        elif not passed:
            watch.since_us = None
        else:
            watch.since_us = now_us if watch.since_us is None else watch.since_us
            if now_us - watch.since_us >= minutes * 60 * US:
                watch.begun = True
                tell(1)

    def _tell(
        self, row: _Limit, pn: int, values: list[float], passed: frozenset[int], limit: float, now_us: int, begin: int
    ) -> None:
        data: dict[str, object] = {"begin": begin, "pn": pn, "type": row.type}
        if row.erc == 26:
            data |= {"s_kva": fields.rounded(values[0], 4), "limit_kva": fields.rounded(limit, 4)}
        else:
            letter, places = ("U", 1) if row.erc == 24 else ("I", 3)
            data |= {f"phase_{p}": int(i in passed) for i, p in enumerate(PHASES)}
            data |= {f"{letter}{p}": fields.rounded(values[i], places) for i, p in enumerate(PHASES)}
        self.parts.record(row.erc, now_us, **data)

    def _unbalance(self, pn: int, limits: fields.Data, now_us: int) -> None:
        for bit, (letter, quantity) in enumerate((("u", "voltage"), ("i", "current"))):
            limit = fields.number(limits, f"{letter}_unbalance_percent")
            if not limit:
                continue
            share = unbalance([self.parts.points.value(pn, f"{quantity}_{p}", now_us) for p in PHASES])
            back = (fields.number(limits, f"{letter}_unbalance_recovery") or 0.0) / 100
            minutes = fields.integer(limits, f"{letter}_unbalance_min")
            self._judge(
                (17, pn, bit), share > limit, share < limit * (1 - back), minutes, now_us,
                partial(self._tell_unbalance, pn, bit, now_us),
            )  # fmt: skip

    def _tell_unbalance(self, pn: int, bit: int, now_us: int, begin: int) -> None:
        value = self.parts.points.value
        volts = [value(pn, f"voltage_{p}", now_us) for p in PHASES]
        amps = [value(pn, f"current_{p}", now_us) for p in PHASES]
        data: dict[str, object] = {"begin": begin, "pn": pn, "voltage": int(bit == 0), "current": int(bit == 1)}
        data |= {"u_unbalance_percent": fields.rounded(unbalance(volts), 1)}
        data |= {"i_unbalance_percent": fields.rounded(unbalance(amps), 1)}
        data |= {f"U{p}": fields.rounded(volts[i], 1) for i, p in enumerate(PHASES)}
        data |= {f"I{p}": fields.rounded(amps[i], 3) for i, p in enumerate(PHASES)}
        self.parts.record(17, now_us, **data)

    # --- meters -----------------------------------------------------------------------------------------------

    def _silent(self, pn: int, now_us: int) -> None:
        """ERC31 when a meter of the archive has not answered for a while."""
        last = self._last_ok.get(pn)

        def tell(begin: int) -> None:
            at, active, reactive = last if last else (0, math.nan, math.nan)
            self.parts.record(
                31, now_us, begin=begin, pn=pn,
                last_ok=self.parts.local(at).replace(second=0) if last else None,
                fwd_active=fields.cut(active, 4), fwd_reactive=fields.cut(reactive, 2),
            )  # fmt: skip

        self._judge((31, pn), True, False, SILENT_MIN, now_us, tell)

    def _read(self, pn: int, now_us: int) -> None:
        """A reading of the meter: register, clock, program counters, status words."""
        value = self.parts.points.value
        active, reactive = value(pn, "forward_active_total", now_us), value(pn, "forward_reactive_total", now_us)
        before = self._registers.get(pn)
        self._registers[pn] = active
        if before is not None and active < before - 1e-4:
            self.parts.record(
                27, now_us, begin=1, pn=pn, before=fields.cut(before, 4), after=fields.cut(active, 4)
            )  # fmt: skip
        failed = self._watches.get((31, pn))
        self._last_ok[pn] = (now_us, active, reactive)
        if failed is not None and failed.begun:
            self.parts.record(
                31, now_us, begin=0, pn=pn, last_ok=self.parts.local(now_us).replace(second=0),
                fwd_active=fields.cut(active, 4), fwd_reactive=fields.cut(reactive, 2),
            )  # fmt: skip
        self._watches.pop((31, pn), None)
        self._clock(pn, now_us)
        self._changes(pn, now_us)

    def _clock(self, pn: int, now_us: int) -> None:
        meter = self.parts.points.meter(pn)
        assert meter is not None  # it has just answered
        off = abs((meter.clock.local(now_us) - self.parts.local(now_us)).total_seconds())
        wrong = off > self.parts.settings.clock_threshold_s()
        self._judge(
            (12, pn), wrong, not wrong, 0, now_us,
            lambda begin: self.parts.record(12, now_us, begin=begin, pn=pn),
        )  # fmt: skip

    def _changes(self, pn: int, now_us: int) -> None:
        """ERC8 when the meter was programmed or its demand cleared, ERC33 when a status word changed."""
        meter = self.parts.points.meter(pn)
        assert meter is not None
        seen = {k: meter.counters.get(k, 0) for k in ("programming", "demand_clear")}
        known = self._programmed.get(pn)
        self._programmed[pn] = seen
        if known is not None and any(seen[k] > known[k] for k in seen):
            bits = dict.fromkeys(("ratio", "pulse_constant", "reading_day", "tariff"), 0)
            self.parts.record(
                8, now_us, begin=1, pn=pn, programming=int(seen["programming"] > known["programming"]),
                demand_cleared=int(seen["demand_clear"] > known["demand_clear"]), **bits,
            )  # fmt: skip
        words = tuple(meter.status_word(n) for n in range(1, 8))
        old = self._status.get(pn)
        self._status[pn] = words
        if old is not None and old != words:
            self.parts.record(
                33, now_us, begin=1, pn=pn,
                changes=[_bits(a ^ b) for a, b in zip(old, words, strict=True)], status=[_bits(w) for w in words],
            )  # fmt: skip

    # --- traffic ----------------------------------------------------------------------------------------------

    def _traffic(self, now_us: int) -> None:
        """ERC32 once a month when the month's bytes pass F36."""
        limit = self.parts.settings.month_traffic()
        if not limit:
            return
        local = self.parts.local(now_us)
        month = (local.year, local.month)
        used = self.parts.counters.traffic(month)
        if used >= limit and self._traffic_told != month:
            self._traffic_told = month
            self.parts.record(32, now_us, month_bytes=used, limit_bytes=limit)


def unbalance(values: list[float]) -> float:
    """(max - min) / max in percent over the phases that are fitted; 0 where nothing flows."""
    known = [v for v in values if not math.isnan(v)]
    return (max(known) - min(known)) / max(known) * 100 if known and max(known) > 0 else 0.0


def _bits(word: int) -> list[int]:
    return [i + 1 for i in range(16) if word >> i & 1]
