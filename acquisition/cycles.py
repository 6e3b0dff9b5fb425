"""Cycles (轮召): which devices are asked for what, when, spread by a stable hash. Pure: time is an argument.

A cycle is one duty with one rhythm for many devices; it is a phase table (sorted seconds within the cycle, device
numbers beside it), never a job a device. acquisition/io/scheduler.py starts cycles and walks the table.

Windows of work items are labels (domain 3.2), half open [from, to) in UTC µs. Curves: the labels of the slots that
ended since the cycle before; business day D owns 00:15 … 24:00, and 24:00 is 00:00 of D+1. Freezes: the one label
00:00 at which the device took the snapshot, so the daily freeze that settles day D has the label 00:00 of D+1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..model.devices import Device
from ..model.lang import tr
from ..model.times import BUSINESS_ZONE, DAY_US, US, business_day, day_start_us, from_us
from ..model.work import Duty, Priority, WorkItem
from ..protocols.common.errors import UsageError
from .config import CycleConfig
from .profile import Profile

_ZONE_US: Final = BUSINESS_ZONE.utcoffset(None) // timedelta(microseconds=1)
CURVE_LATE_S: Final = 120
"""Curve cycles start this long after the slot's end: the meter needs time to store it, and its clock may be slow."""

_PRIORITY: Final = {Duty.LIVE: Priority.LIVE, Duty.EVENT: Priority.EVENT}
_LIFETIME_S: Final = {Duty.DAILY: 4 * 3600, Duty.MONTHLY: 8 * 3600, Duty.CLOCK: 4 * 3600, Duty.PARAMETER: 12 * 3600}
_PARAMETER_AT_S: Final = 4 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """Starts of a cycle: every `period_s` counted from business midnight of 1970, or monthly (period None) on `day`.

    offset_s: seconds after the period's (day's) beginning.
    """

    period_s: int | None
    offset_s: int = 0
    day: int = 1

    def last_start_us(self, now_us: int) -> int:
        """The latest start at or before `now_us`."""
        offset = self.offset_s * US
        if self.period_s is not None:
            period = self.period_s * US
            return (now_us + _ZONE_US - offset) // period * period + offset - _ZONE_US
        return day_start_us(last_day_of_month(business_day(now_us - offset), self.day)) + offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One duty in one rhythm. `device` int32 (n,) and `phase_s` float64 (n,), sorted by phase, 0 <= phase < spread."""

    duty: Duty
    rhythm: Rhythm
    spread_s: float
    device: NDArray[np.int32]
    phase_s: NDArray[np.float64]
    step_s: int = 900

    @property
    def name(self) -> str:
        """Stable name, for jobs, logs and metrics."""
        day = "" if self.rhythm.day == 1 else f"-day{self.rhythm.day}"
        every = f"month{day}" if self.rhythm.period_s is None else f"{self.rhythm.period_s}s"
        return f"{self.duty}-{every}" + (f"-step{self.step_s}s" if self.duty is Duty.CURVE else "")

    def __len__(self) -> int:
        return len(self.device)

    def due(self, elapsed_s: float) -> int:
        """How many devices of the table are due `elapsed_s` seconds after the cycle's start."""
        return int(np.searchsorted(self.phase_s, elapsed_s, side="right"))

    def window_us(self, start_us: int) -> tuple[int, int] | None:
        """Labels asked for by the cycle that starts at `start_us`; windows of successive cycles join without a hole."""
        if self.duty is Duty.CURVE and self.rhythm.period_s is not None:
            period, step = self.rhythm.period_s * US, self.step_s * US
            last = _floor(start_us - self.rhythm.offset_s * US, step)
            before = _floor(start_us - self.rhythm.offset_s * US - period, step)
            return before + step, last + step
        if self.duty is Duty.DAILY:
            return freeze_window(business_day(start_us) - timedelta(days=1))
        if self.duty is Duty.MONTHLY:
            return freeze_window(last_day_of_month(business_day(start_us), self.rhythm.day) - timedelta(days=1))
        return None

    def items(self, start_us: int, low: int, high: int, now_s: float) -> list[WorkItem]:
        """Work items of rows [low, high) of the table; `now_s` is monotonic."""
        window = self.window_us(start_us)
        if window is not None and window[0] >= window[1]:
            return []  # a curve cycle quicker than the slots: nothing has ended since the cycle before
        expires_s = now_s + _LIFETIME_S.get(self.duty, self.rhythm.period_s or DAY_US // US)
        priority = _PRIORITY.get(self.duty, Priority.SCHEDULED)
        return [
            WorkItem(device=device, duty=self.duty, priority=priority, expires_s=expires_s, window_us=window)
            for device in self.device[low:high].tolist()
        ]


def phases(names: Iterable[str]) -> NDArray[np.float64]:
    """A stable number in [0, 1) for every device name: the same in every process, on every machine, for ever."""
    digests = b"".join(blake2b(name.encode("utf-8"), digest_size=8).digest() for name in names)
    return (np.frombuffer(digests, ">u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53


def build_cycles(devices: Sequence[Device], profiles: Mapping[str, Profile], config: CycleConfig) -> tuple[Cycle, ...]:
    """All cycles of the enabled devices, by name. UsageError names every device whose profile does not exist."""
    lost = sorted({d.profile for d in devices if d.enabled and d.profile not in profiles})
    if lost:
        text = ", ".join(lost)
        en = f"no device profile {text}: put its file into the profiles directory or change the device list"
        raise UsageError(tr(en, f"没有设备档 {text}: 请补上文件或修改设备清单"))
    polled = [d for d in devices if d.enabled]
    tables: dict[tuple[Duty, Rhythm, int], list[int]] = {}
    keys = {name: _keys_of(profile, config) for name, profile in profiles.items()}
    for row, device in enumerate(polled):
        for key in keys[device.profile]:
            tables.setdefault(key, []).append(row)
            day = reading_day(device)
            if key[0] is Duty.MONTHLY and day != 1:
                own = Rhythm(period_s=None, offset_s=key[1].offset_s, day=day)
                tables.setdefault((Duty.MONTHLY, own, key[2]), []).append(row)
    number = np.array([d.id for d in polled], np.int32)
    fraction = phases(d.name for d in polled)
    cycles = []
    for (duty, rhythm, step_s), rows in tables.items():
        # a fifth of the period stays free, so that the last devices are not asked when the next cycle begins
        spread_s = float(min(config.spread_s, (rhythm.period_s or 86_400) * 0.8))
        chosen = np.array(rows, np.int64)
        order = chosen[np.argsort(fraction[chosen], kind="stable")]
        cycle = Cycle(
            duty=duty,
            rhythm=rhythm,
            spread_s=spread_s,
            device=number[order],
            phase_s=fraction[order] * spread_s,
            step_s=step_s,
        )
        cycles.append(cycle)
    return tuple(sorted(cycles, key=lambda c: c.name))


def reading_day(device: Device) -> int:
    """The customer's reading day (抄表例日), option `reading_day` 1 … 28: on it the monthly cycle runs as well."""
    text = device.options.get("reading_day", "1")
    return int(text) if text.isdecimal() and 1 <= int(text) <= 28 else 1  # the device list is checked at import


def last_day_of_month(today: date, day: int) -> date:
    """The latest `day`-th of a month at or before `today`."""
    month = today if today.day >= day else today.replace(day=1) - timedelta(days=1)
    return month.replace(day=day)


def duty_period_s(profile: Profile, duty: Duty, config: CycleConfig) -> int | None:
    """How often the profile's devices are asked for `duty`; None: never. Daily 86400, monthly 31 days."""
    for key, rhythm, _ in _keys_of(profile, config):
        if key is duty:
            return rhythm.period_s or 31 * 86_400
    return None


def _keys_of(profile: Profile, config: CycleConfig) -> list[tuple[Duty, Rhythm, int]]:
    """(duty, rhythm, step) of everything that is polled from devices of this profile."""
    keys: list[tuple[Duty, Rhythm, int]] = []
    periods = {Duty.LIVE: config.live_s, Duty.EVENT: config.event_s, Duty.PARAMETER: 0}
    daily = {Duty.DAILY: config.daily_at, Duty.CLOCK: config.clock_at}
    if profile.protocol == "mqtt":
        return keys  # such devices publish by themselves
    for duty, plan in profile.read.items():
        if at := daily.get(duty):
            keys.append((duty, Rhythm(period_s=86_400, offset_s=clock_s(at)), 900))
        elif duty is Duty.MONTHLY and config.monthly_at:
            keys.append((duty, Rhythm(period_s=None, offset_s=clock_s(config.monthly_at)), 900))
        elif duty in periods:
            offset = _PARAMETER_AT_S if duty is Duty.PARAMETER else 0
            # a cycle switched off in config.yaml stays off whatever the profile says
            period = plan.period_s or periods[duty] if periods[duty] or duty is Duty.PARAMETER else 0
            if period:
                keys.append((duty, Rhythm(period_s=period, offset_s=offset), 900))
    if profile.curve is not None and config.curve_s:
        period = max(config.curve_s, profile.curve.step_s)
        keys.append((Duty.CURVE, Rhythm(period_s=period, offset_s=CURVE_LATE_S), profile.curve.step_s))
    return keys


def clock_s(text: str) -> int:
    """Seconds after midnight of "HH:MM"; UsageError otherwise."""
    hours, sign, minutes = text.partition(":")
    if sign and hours.isdecimal() and minutes.isdecimal() and len(minutes) == 2:
        seconds = int(hours) * 3600 + int(minutes) * 60
        if int(minutes) < 60 and seconds < 86_400:
            return seconds
    raise UsageError(tr(f"cycles: {text!r} is not a time HH:MM", f"cycles: {text!r} 不是 HH:MM 形式的时刻"))


def freeze_window(day: date) -> tuple[int, int]:
    """The window that holds the one label of the freeze that settles business day `day`: 00:00 of the next day."""
    label = day_start_us(day + timedelta(days=1))
    return label, label + DAY_US


def curve_window(day: date, step_s: int = 900) -> tuple[int, int]:
    """The window of a whole business day of a curve: labels 00:00 + step … 24:00."""
    start = day_start_us(day)
    return start + step_s * US, start + DAY_US + step_s * US


def slot_labels_us(day: date, step_s: int = 900) -> NDArray[np.int64]:
    """The labels of a business day's slots, int64 (86400 / step_s,)."""
    first, beyond = curve_window(day, step_s)
    return np.arange(first, beyond, step_s * US, dtype=np.int64)


def slot_name(label_us: int) -> str:
    """A label as people read it: 00:15 … 23:45, 24:00."""
    local = from_us(label_us).astimezone(BUSINESS_ZONE)
    return "24:00" if local.hour == local.minute == local.second == 0 else f"{local:%H:%M}"


def _floor(time_us: int, step_us: int) -> int:
    return (time_us + _ZONE_US) // step_us * step_us - _ZONE_US
