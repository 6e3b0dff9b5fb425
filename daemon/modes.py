"""Degraded modes (domain 16): what the daemon may do now, and every reason why not more.

A mode is never set directly: causes are raised and cleared by name, the severest one in force decides.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum


class Mode(IntEnum):
    """NORMAL; NO_CONTROL (no trips, releases ok); READ_ONLY (no byte of a write leaves); STOPPED."""

    NORMAL = 0
    NO_CONTROL = 1
    READ_ONLY = 2
    STOPPED = 3


class ModeKeeper:
    """The causes in force and the mode that follows from them. Calls `changed` when the mode or a reason changes."""

    def __init__(self, changed: Callable[[Mode, str], None] | None = None) -> None:
        self._causes: dict[str, tuple[Mode, str]] = {}
        self._changed = changed

    def raise_cause(self, name: str, mode: Mode, reason: str) -> None:
        """Put a cause in force (again): `reason` is shown to people."""
        if self._causes.get(name) != (mode, reason):
            self._causes[name] = (mode, reason)
            self._notify()

    def clear_cause(self, name: str) -> None:
        """The cause is gone; unknown names are ignored."""
        if self._causes.pop(name, None) is not None:
            self._notify()

    @property
    def mode(self) -> Mode:
        """The severest mode of the causes in force."""
        return max((mode for mode, _ in self._causes.values()), default=Mode.NORMAL)

    @property
    def reason(self) -> str:
        """All reasons, the severest first; empty in NORMAL."""
        ordered = sorted(self._causes.values(), key=lambda cause: -cause[0])
        return "; ".join(reason for _, reason in ordered)

    def reason_without(self, name: str) -> str:
        """All reasons but that of one cause: what somebody else than its owner has to say."""
        return "; ".join(reason for cause, (_, reason) in sorted(self._causes.items()) if cause != name)

    def may_trip(self) -> bool:
        """True only in NORMAL."""
        return self.mode is Mode.NORMAL

    def read_only(self) -> bool:
        """True where no write may leave the process."""
        return self.mode >= Mode.READ_ONLY

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed(self.mode, self.reason)
