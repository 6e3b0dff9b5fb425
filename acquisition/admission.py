"""Admission of dial-in connections at a configured rate: after a power cut thousands of terminals call at once.

Pure; time is an argument. Who is not admitted yet waits in the kernel's backlog; nobody is turned away.
"""

from __future__ import annotations

ONE = 1.0 - 1e-9  # a whole token, less the rounding of its refilling


class TokenBucket:
    """`rate_per_s` admissions a second in the long run, at most `burst` at once (default: worth 0.1 s)."""

    __slots__ = ("_at_s", "_tokens", "burst", "rate_per_s")

    def __init__(self, rate_per_s: float, burst: float | None = None) -> None:
        if rate_per_s <= 0:
            raise ValueError("rate_per_s must be positive")
        self.rate_per_s = rate_per_s
        self.burst = max(1.0, rate_per_s / 10 if burst is None else burst)
        self._tokens = self.burst
        self._at_s: float | None = None

    def take(self, now_s: float) -> bool:
        """One admission, if there is one now."""
        self._refill(now_s)
        if self._tokens < ONE:
            return False
        self._tokens -= 1.0
        return True

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next admission."""
        self._refill(now_s)
        return max(0.0, (ONE - self._tokens) / self.rate_per_s)

    def _refill(self, now_s: float) -> None:
        if self._at_s is not None and now_s > self._at_s:
            self._tokens = min(self.burst, self._tokens + (now_s - self._at_s) * self.rate_per_s)
        self._at_s = now_s if self._at_s is None else max(self._at_s, now_s)
