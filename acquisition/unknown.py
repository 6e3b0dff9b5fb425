"""Terminals that dial in and are in no device list: a bounded table for `fuhe device unknown`. Pure; time an argument.

When it is full the one not heard of for longest, and not connected, makes room; if all are connected, nobody does.
"""

from __future__ import annotations

from dataclasses import dataclass

from .terminal import TerminalAddress

Key = tuple[str, TerminalAddress]


@dataclass(slots=True, kw_only=True)
class Unknown:
    """One unknown terminal. peer: network address of its last connection; instants UTC µs; held: connected now.

    reason: why it is not served, in words of the archive ("not in the device list", "disabled", ...).
    """

    link: str
    address: TerminalAddress
    peer: str
    reason: str
    first_us: int
    last_us: int
    frames: int = 0
    connections: int = 0
    held: bool = False


class UnknownTable:
    """At most `limit` entries."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.refused = 0
        self._rows: dict[Key, Unknown] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> list[Unknown]:
        """All of them, those heard last first."""
        return sorted(self._rows.values(), key=lambda row: -row.last_us)

    def called(self, link: str, address: TerminalAddress, peer: str, reason: str, now_us: int) -> Unknown | None:
        """A connection of an unknown terminal; None: no room (counted in `refused`)."""
        row = self._rows.get((link, address))
        if row is None:
            if len(self._rows) >= self.limit and not self._make_room():
                self.refused += 1
                return None
            row = Unknown(link=link, address=address, peer=peer, reason=reason, first_us=now_us, last_us=now_us)
            self._rows[link, address] = row
        row.peer, row.reason, row.last_us = peer, reason, now_us
        row.connections += 1
        return row

    def known(self, link: str, address: TerminalAddress) -> None:
        """It is in the device list now."""
        self._rows.pop((link, address), None)

    def _make_room(self) -> bool:
        free = [(row.last_us, key) for key, row in self._rows.items() if not row.held]
        if not free:
            return False
        del self._rows[min(free)[1]]
        return True
