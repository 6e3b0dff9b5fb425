"""Quarantine of silent devices: they cost their neighbours no more than single tries that become rarer and rarer.

Pure; time is an argument. A device is quarantined after `after` conversations in a row without a single answer. Then
its items are refused at once, except a probe after `first_s`, twice that, and so on up to `longest_s`; one answer frees
it.
Control and forced items are always tried once (the link decides that, not this class).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random


class Verdict(Enum):
    """ADMIT: in order. PROBE: quarantined, but this item is the due try. REJECT: quarantined."""

    ADMIT = 0
    PROBE = 1
    REJECT = 2


@dataclass(slots=True)
class _Case:
    silent: int = 0
    interval_s: float = 0.0
    next_probe_s: float = 0.0
    since_s: float | None = None


class Quarantine:
    """The silent devices of one link. `rng` spreads the probes of devices that fell silent together by +-10 %."""

    def __init__(
        self, rng: Random, *, after: int = 2, first_s: float = 30.0, longest_s: float = 1800.0, factor: float = 2.0
    ) -> None:
        self.after, self.first_s, self.longest_s, self.factor = after, first_s, longest_s, factor
        self._rng = rng
        self._cases: dict[int, _Case] = {}

    def __len__(self) -> int:
        return sum(case.since_s is not None for case in self._cases.values())

    def holds(self, device: int) -> bool:
        """True while the device is quarantined."""
        case = self._cases.get(device)
        return case is not None and case.since_s is not None

    def since_s(self, device: int) -> float | None:
        """When the device was quarantined."""
        case = self._cases.get(device)
        return case.since_s if case else None

    def silent_count(self, device: int) -> int:
        """Conversations in a row without an answer."""
        case = self._cases.get(device)
        return case.silent if case else 0

    def verdict(self, device: int, now_s: float) -> Verdict:
        """May an ordinary item go out? PROBE uses the probe up: ask once an item."""
        case = self._cases.get(device)
        if case is None or case.since_s is None:
            return Verdict.ADMIT
        if now_s < case.next_probe_s:
            return Verdict.REJECT
        self._schedule(case, now_s)
        return Verdict.PROBE

    def answered(self, device: int) -> None:
        """The device lives."""
        self._cases.pop(device, None)

    def silent(self, device: int, now_s: float) -> bool:
        """A conversation without one answer has ended; True if the device has just been quarantined."""
        case = self._cases.setdefault(device, _Case())
        case.silent += 1
        if case.since_s is not None or case.silent < self.after:
            return False
        case.since_s = now_s
        self._schedule(case, now_s)
        return True

    def forget(self, device: int) -> None:
        """The device has left the link (or its settings changed: it gets a new chance)."""
        self._cases.pop(device, None)

    def _schedule(self, case: _Case, now_s: float) -> None:
        case.interval_s = min(self.longest_s, case.interval_s * self.factor) if case.interval_s else self.first_s
        case.next_probe_s = now_s + case.interval_s * self._rng.uniform(0.9, 1.1)
