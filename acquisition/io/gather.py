"""Idle lines that got ordinary work start together: what falls due within `window_s` shares one wake-up."""

from __future__ import annotations

import asyncio

from .owner import Owner


class Gatherer:
    """Collects owners and runs them all at the end of the window."""

    def __init__(self, window_s: float = 0.1) -> None:
        self.window_s = window_s
        self._owners: dict[Owner, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, owner: Owner) -> None:
        """Run this owner soon, together with others."""
        self._owners[owner] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.window_s, self._go)

    def close(self) -> None:
        """Forget everything."""
        if self._timer is not None:
            self._timer.cancel()
        self._owners.clear()

    def _go(self) -> None:
        self._timer = None
        owners, self._owners = self._owners, {}
        for owner in owners:
            owner.run()
