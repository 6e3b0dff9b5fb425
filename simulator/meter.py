"""One simulated meter without a protocol: registers, live values, demand, records, events, clock, passwords, relays.

Everything measured is a function of (quantity name, instants): the protocol faces ask `series` for arrays and never
count anything themselves. Values are secondary (primary / (CT x PT)), as a real meter shows them. NaN = not fitted or
no longer in memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import sqrt, tan
from typing import Final

import numpy as np

from ..model.quality import Quality
from ..model.readings import F8, I8
from ..model.times import SLOT_15MIN_US, US
from .abnormal import AbnormalSpec, Metering
from .clock import DeviceClock, midnight, month_start
from .faults import FaultSet
from .load import Site, slot_of
from .relay import Relay
from .shapes import TARIFFS, noise

ENERGY: Final = re.compile(
    r"(combined_active|forward_active|reverse_active|combined_reactive_1|combined_reactive_2|reactive_q[1-4]"
    r"|forward_apparent|reverse_apparent|forward_reactive|reverse_reactive)_(total|t[1-8]|a|b|c)"
)
DEMAND: Final = re.compile(r"(forward|reverse|combined|reactive)_\w+?_demand(_t[1-8])?(_time)?")
PHASE: Final = {"a": 0, "b": 1, "c": 2}
LOCK_OUT_AFTER: Final = 3
EVENTS_KEPT: Final = 10
BLOCKS_KEPT: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterEvent:
    """One entry of the meter's memory. kind: power_down, programming, cover_open, clock_set, trip, close, …

    end_us may lie ahead: until then the event goes on and its record has no end.
    """

    kind: str
    start_us: int
    end_us: int | None = None
    operator: bytes = b"\0\0\0\0"
    detail: bytes = b""


@dataclass(slots=True, kw_only=True)
class SimMeter:
    """A meter on a site.

    digits / decimals: of the energy registers (6 and 2: XXXXXX.XX), which roll over. initial_kwh: reading at the
    site's origin. retention_days: depth of the load records. password: six digits (levels 02 and 04 share it).
    rounds: relays in order, round 1 first. abnormal: what makes its picture of the load another one than the load.
    """

    name: str
    address: str
    site: Site
    faults: FaultSet
    seed: int
    ct_ratio: float = 1.0
    pt_ratio: float = 1.0
    nominal_v: float = 220.0
    wiring: str = "3P4W"
    power_factor: float | None = None
    digits: int = 6
    decimals: int = 2
    initial_kwh: float | None = None
    retention_days: float = 10.0
    record_interval_min: int = 15
    record_classes: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    password: str = "000000"
    operator: str = "00000000"
    key: str = ""
    protected: bool = False
    abnormal: tuple[AbnormalSpec, ...] = ()
    relays: list[Relay] = field(default_factory=list)
    clock: DeviceClock = field(default_factory=DeviceClock)
    events: list[MeterEvent] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, bytes] = field(default_factory=dict)
    freezes: dict[str, list[int]] = field(default_factory=dict)
    freeze_pattern: tuple[int, ...] | None = None
    demand_since_us: int = 0
    memory_since_us: int = 0
    wrong_passwords: int = 0
    locked_until_us: int = 0
    last_time_set_us: int | None = None
    _exchange: tuple[int, float] | None = None
    _cache: tuple[bytes, F8, F8] | None = None
    _blocks: dict[tuple[int, int], F8] = field(default_factory=dict)
    _share: F8 = field(init=False, repr=False)
    metering: Metering = field(init=False, repr=False)

    def __post_init__(self) -> None:
        lean = noise(self.seed, 11, np.arange(3)) * 0.012
        share = np.array([1.0, 0.0, 0.0]) if self.wiring == "1P" else 1 / 3 + lean - lean.mean()
        self._share = np.array([0.5, 0.0, 0.5]) if self.wiring == "3P3W" else share
        self.metering = Metering(self.site, self._share, self.abnormal)
        if self.initial_kwh is None:
            self.initial_kwh = float(np.floor(20_000 + 5_000 * noise(self.seed, 12, np.arange(1))[0]))
        if self.power_factor is None:
            self.power_factor = self.site.shape.pf
        for relay in self.relays:
            relay.on_move = self._moved

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def multiplier(self) -> float:
        """CT x PT."""
        return self.ct_ratio * self.pt_ratio

    def advance(self, now_us: int) -> None:
        """Carry out everything that has become due (relays, faults that act once, patterned freezes)."""
        for rule in self.faults.due(now_us):
            kind, amount = rule.fault.kind, rule.fault.amount
            if kind == "clock_offset":
                self.clock.disturb(rule.begin_us, offset_s=amount)
            elif kind == "clock_drift":
                self.clock.disturb(rule.begin_us, drift_s_per_day=amount)
            elif kind == "exchange":
                self.exchange(rule.begin_us, amount)
            elif kind == "event":
                end = rule.end_us if rule.end_us is not None else rule.begin_us + round(amount * 60 * US)
                self.record(rule.fault.match or "cover_open", rule.begin_us, end)
            elif kind == "reclose":
                for relay in self.relays:
                    relay.reclose(rule.begin_us)
        for relay in self.relays:
            relay.advance(now_us)

    def record(
        self, kind: str, start_us: int, end_us: int | None = None, operator: bytes = b"\0\0\0\0", detail: bytes = b""
    ) -> None:
        """Add an event and count it; the memory keeps the last ten of a kind."""
        self.counters[kind] = self.counters.get(kind, 0) + 1
        self.events.append(MeterEvent(kind=kind, start_us=start_us, end_us=end_us, operator=operator, detail=detail))
        same = [e for e in self.events if e.kind == kind]
        if len(same) > EVENTS_KEPT:
            self.events.remove(same[0])

    def last_events(self, kind: str) -> list[MeterEvent]:
        """Events of a kind, the last one first."""
        return sorted((e for e in self.events if e.kind == kind), key=lambda e: -e.start_us)

    def _moved(self, at_us: int, what: str, component: int) -> None:
        self.forget()
        self.record(what, at_us, detail=bytes((component,)))

    def exchange(self, at_us: int, new_kwh: float) -> None:
        """Another meter is fitted: its register starts at `new_kwh`, its memory is empty."""
        total = float(self._metered(np.array([at_us])).sum()) / self.multiplier
        self._exchange = (at_us, new_kwh - total)
        self.memory_since_us = self.demand_since_us = at_us
        self.events.clear()
        self.counters.clear()
        self.freezes.clear()

    def check_password(self, now_us: int, digits: str) -> bool:
        """Right password and not locked out; the third wrong one locks until the device's midnight."""
        if now_us < self.locked_until_us:
            return False
        if digits == self.password:
            self.wrong_passwords = 0
            return True
        self.wrong_passwords += 1
        if self.wrong_passwords >= LOCK_OUT_AFTER:
            self.wrong_passwords = 0
            end = self.clock.true_us(midnight(self.clock.local(now_us), -1))
            self.locked_until_us = end if end is not None else now_us + 86_400 * US
        return False

    @property
    def keep_supply(self) -> bool:
        """保电: trips are refused."""
        return self.protected or any(r.protected for r in self.relays)

    def silent(self, now_us: int, item: str = "") -> bool:
        """Whether the device is away or a fault swallows this request."""
        return bool(self.faults.active("restart", now_us)) or self.faults.fires("silent", now_us, item) is not None

    # --- instants of the device's memory ----------------------------------------------------------------------

    def settlement_us(self, now_us: int, back: int) -> int | None:
        """Instant of the `back`-th last monthly settlement (1 = the last); None = before the memory begins."""
        return self._remembered(month_start(self.clock.local(now_us), back - 1))

    def midnight_us(self, now_us: int, back: int) -> int | None:
        """Instant of the `back`-th last daily freeze (1 = today 00:00)."""
        return self._remembered(midnight(self.clock.local(now_us), back - 1))

    def hour_us(self, now_us: int, back: int) -> int | None:
        """Instant of the `back`-th last full hour."""
        top = self.clock.local(now_us).replace(minute=0, second=0)
        return self._remembered(top - timedelta(hours=back - 1))

    def _remembered(self, local: datetime) -> int | None:
        at = self.clock.true_us(local)
        return at if at is not None and at >= max(self.memory_since_us, self.site.origin_us) else None

    def record_labels(self, now_us: int, start: datetime | None, count: int, *, latest: bool = False) -> list[datetime]:
        """Local labels of stored load records: the first `count` from `start` (None: the oldest), or the last ones."""
        step = timedelta(minutes=self.record_interval_min)
        shown = self.clock.local(now_us)
        newest = _floor(shown, self.record_interval_min)
        oldest = shown - timedelta(days=self.retention_days)
        first = oldest if start is None or start < oldest else start
        floor = _floor(first, self.record_interval_min)
        label = floor if floor == first else floor + step
        if latest:
            label = newest - step * (count * 4 - 1)
        found: list[datetime] = []
        while label <= newest and (latest or len(found) < count):
            if label >= oldest and self._remembered(label) is not None:
                found.append(label)
            label += step
        return found[-count:] if latest else found

    # --- what it measures -------------------------------------------------------------------------------------

    def _primary_energy(self, times: I8) -> tuple[F8, F8]:
        """((n,) kW, (TARIFFS, n) kWh), primary, cached for the last instants asked."""
        key = times.tobytes()
        if self._cache is None or self._cache[0] != key:
            self._cache = (key, self.site.power(times), self.site.energy(times))
        return self._cache[1], self._cache[2]

    def forget(self) -> None:
        """Drop cached values: the site's load has been changed behind the meter's back."""
        self._cache = None
        self._blocks.clear()
        self.metering.forget()

    def _metered(self, times: I8, phase: int | None = None, direction: int = 1) -> F8:
        """(TARIFFS, n) primary kWh that pass through the registers of a phase or (None) of the whole meter."""
        return self.metering.energy(times, self._primary_energy(times)[1], phase, direction)

    def value(self, name: str, at_us: int) -> float:
        """One value at one instant; NaN = none."""
        return float(self.series(name, np.array([at_us], np.int64))[0])

    def series(self, name: str, times: Sequence[int] | I8) -> F8:
        """(n,) values of a quantity of model/quantities.toml at the instants; KeyError: not a meter's quantity."""
        at = np.asarray(times, np.int64)
        if match := ENERGY.fullmatch(name):
            return self._energy(match[1], match[2], at)
        if DEMAND.fullmatch(name):
            return np.array([self._max_demand(name, int(t)) for t in at])
        base, _, phase = name.rpartition("_")
        if phase in PHASE and base in ("voltage", "current", "active_power", "reactive_power", "apparent_power",
                                       "power_factor", "phase_angle", "voltage_thd", "current_thd"):  # fmt: skip
            return self._phase(base, PHASE[phase], at)
        return self._whole(name, at)

    def _energy(self, kind: str, part: str, at: I8) -> F8:
        assert self.power_factor is not None and self.initial_kwh is not None
        reactive = tan(np.arccos(self.power_factor))
        factor, direction = {
            "combined_active": (1.0, 0), "forward_active": (1.0, 1), "reverse_active": (1.0, -1),
            "combined_reactive_1": (reactive, 1), "reactive_q1": (reactive, 1), "forward_reactive": (reactive, 1),
            "combined_reactive_2": (reactive, -1), "reactive_q3": (reactive, -1), "reverse_reactive": (reactive, -1),
            "forward_apparent": (1 / self.power_factor, 1), "reverse_apparent": (1 / self.power_factor, -1),
        }.get(kind, (0.0, 1))  # fmt: skip
        phase = PHASE.get(part)
        started = np.full((TARIFFS, len(at)), self.initial_kwh / TARIFFS)
        if self._exchange is not None:
            moment, jump = self._exchange
            started += np.where(at >= moment, (jump - self.initial_kwh) / TARIFFS, 0.0)
        if direction < 0:  # began at zero and was never exchanged backwards
            started = np.zeros_like(started)
        by_tariff = self._metered(at, phase, direction) / self.multiplier
        by_tariff = by_tariff + started * (1.0 if phase is None else self._share[phase])
        if part[0] == "t" and part != "total":
            tariff = int(part[1:]) - 1
            if tariff >= TARIFFS:
                return np.full(len(at), np.nan)
            chosen = by_tariff[tariff]
        else:
            chosen = by_tariff.sum(axis=0)
        return np.asarray(np.mod(chosen * factor, 10.0**self.digits))

    def _fitted(self, phase: int) -> bool:
        return bool(self._share[phase] > 0)

    def _phase(self, base: str, phase: int, at: I8) -> F8:
        assert self.power_factor is not None
        if not self._fitted(phase):
            return np.full(len(at), np.nan)
        watts = self._primary_energy(at)[0] / self.multiplier * self.metering.power_share(phase, at)
        level = self.nominal_v * (sqrt(3) if self.wiring == "3P3W" else 1.0)
        volts = level * (1.0 + 0.008 * noise(self.seed, 20 + phase, at // (60 * US))) * self.metering.voltage(phase, at)
        pf = self.power_factor
        if base == "voltage":
            return np.asarray(volts)
        if base == "current":
            leg = volts * pf * (sqrt(3) / 2 if self.wiring == "3P3W" else 1.0)
            return np.asarray(np.abs(watts) * 1000.0 / leg)
        if base in ("voltage_thd", "current_thd"):
            typical = 2.1 if base == "voltage_thd" else 8.0
            return np.asarray(typical * (1.0 + 0.1 * noise(self.seed, 30 + phase, at // (60 * US))))
        factor = {
            "active_power": 1.0, "reactive_power": tan(np.arccos(pf)), "apparent_power": 1 / pf,
        }.get(base)  # fmt: skip
        if factor is not None:
            return np.asarray((np.abs(watts) if base == "apparent_power" else watts) * factor)
        angle = float(np.degrees(np.arccos(pf)))
        if base == "power_factor":
            return np.where(watts < 0, -pf, pf)
        return np.where(watts < 0, 180.0 + angle, angle)

    def _whole(self, name: str, at: I8) -> F8:
        assert self.power_factor is not None
        pf = self.power_factor
        if name in ("active_power_total", "group_power", "reactive_power_total", "apparent_power_total"):
            factor = {"reactive_power_total": tan(np.arccos(pf)), "apparent_power_total": 1 / pf}.get(name, 1.0)
            shown = self._primary_energy(at)[0] / self.multiplier * self.metering.power_share(None, at)
            return np.asarray((np.abs(shown) if name == "apparent_power_total" else shown) * factor)
        if name in ("active_demand", "reactive_demand", "apparent_demand", "active_power_average_1min"):
            width = 60 * US if name.endswith("1min") else SLOT_15MIN_US
            factor = {"reactive_demand": tan(np.arccos(pf)), "apparent_demand": 1 / pf}.get(name, 1.0)
            flow = self._metered(at).sum(axis=0) - self._metered(at - width).sum(axis=0)
            return np.asarray(flow / self.multiplier * factor * (3_600 * US / width))
        minute = at // (60 * US)
        if name.startswith("voltage_"):  # line voltages ab, bc, ca
            x, y = (self.metering.voltage(PHASE[p], at) for p in name[-2:])
            between = np.sqrt(x * x + y * y + x * y)
            return np.asarray(between * self.nominal_v * (1.0 + 0.006 * noise(self.seed, 25, minute)))
        simple = {
            "power_factor_total": (pf, 0.0), "frequency": (50.0, 0.012), "temperature": (24.0, 1.5),
            "clock_battery_voltage": (3.62, 0.01), "backup_battery_voltage": (6.05, 0.01), "current_n": (0.05, 0.01),
        }.get(name)  # fmt: skip
        if simple is not None:
            return simple[0] + simple[1] * noise(self.seed, 40 + len(name), minute)
        counter = {
            "power_down_count": "power_down",
            "cover_open_count": "cover_open",
            "programming_count": "programming",
        }
        if name in counter:
            return np.full(len(at), float(self.counters.get(counter[name], 0)))
        fixed = {"ct_ratio": self.ct_ratio, "pt_ratio": self.pt_ratio}
        if name in fixed:
            return np.full(len(at), fixed[name])
        if name.startswith("status_word_"):
            return np.full(len(at), float(self.status_word(int(name[-1]))))
        if name == "switch_state":
            return np.full(len(at), float(any(r.contact_open for r in self.relays)))
        if name == "clock_offset":
            return np.array([self.clock.offset_us(int(t)) / US for t in at])
        raise KeyError(name)

    def _max_demand(self, name: str, at_us: int) -> float:
        """Highest block demand since the settlement before `at_us`; `_time` names give its END, seconds since 1970."""
        wants_time = name.endswith("_time")
        base = name.removesuffix("_time")
        tariff = int(base[-1]) - 1 if re.search(r"_t\d$", base) else None
        kind = re.sub(r"_demand(_t\d)?$", "", base)
        since = max(self.settlement_us(at_us - 1, 1) or self.site.origin_us, self.demand_since_us)
        last = int(slot_of(np.array([at_us]))[0])
        first = int(slot_of(np.array([since]))[0])
        factor = self._demand_factor(kind)
        if last <= first or factor == 0.0 or (tariff is not None and tariff >= TARIFFS):
            return np.nan if wants_time else 0.0
        edges = np.arange(first, last + 1) * SLOT_15MIN_US - 8 * 3_600 * US
        energy = self._blocks.get((first, last))
        if energy is None:
            if len(self._blocks) >= BLOCKS_KEPT:
                self._blocks.clear()
            energy = self._blocks[first, last] = self.metering.energy(edges, self.site.energy(edges))
        flow = np.diff(energy.sum(axis=0) if tariff is None else energy[tariff]) * 4
        peak = int(np.argmax(flow))
        if flow[peak] <= 0:
            return np.nan if wants_time else 0.0
        return float(edges[peak + 1] / US) if wants_time else float(flow[peak] / self.multiplier * factor)

    def _demand_factor(self, kind: str) -> float:
        assert self.power_factor is not None
        reactive = tan(np.arccos(self.power_factor))
        return {
            "forward_active": 1.0, "combined_reactive_1": reactive, "reactive_q1": reactive,
            "forward_reactive": reactive, "forward_apparent": 1 / self.power_factor,
        }.get(kind, 0.0)  # fmt: skip

    def status_word(self, number: int) -> int:
        """Status word 1–7 of DL/T 645-2007 (bits of its annex; word 3: b4 relay, b6 command, b7 alarm, b12 kept)."""
        if number == 3:
            opened = any(r.contact_open for r in self.relays)
            commanded = any(r.commanded for r in self.relays)
            alarm = any(r.alarm for r in self.relays)
            return opened << 4 | commanded << 6 | alarm << 7 | self.keep_supply << 12
        if number == 7:
            return (self.counters.get("cover_open", 0) > 0) << 9
        return 0

    def curve(self, name: str, times: I8) -> tuple[F8, F8]:
        """(values, qualities) of a stored curve at true instants; what the memory no longer has is NaN and M."""
        values = self.series(name, times)
        gone = times < max(self.memory_since_us, self.site.origin_us)
        values = np.where(gone, np.nan, values)
        return values, np.where(np.isnan(values), float(Quality.M), float(Quality.A))


def _floor(local: datetime, minutes: int) -> datetime:
    whole = local.replace(second=0, microsecond=0)
    return whole - timedelta(minutes=(whole.hour * 60 + whole.minute) % minutes)
