"""Which version of MQTT to speak with a broker: 5 where it can, 3.1.1 where it cannot. Pure; server and devices use it.

A broker that does not know a version says so in its first answer or just closes the connection (clause 3.1.2.2 of
both); the second looks like any other failure, so `auto` goes over to the other version after either, and back.
"""

from __future__ import annotations

from typing import Final, Literal

Wanted = Literal["auto", "3.1.1", "5", 5]
Version = Literal["3.1.1", "5"]

OTHER: Final[dict[Version, Version]] = {"5": "3.1.1", "3.1.1": "5"}


class VersionChoice:
    """The version of the next attempt. A version that has worked is kept until the broker refuses it."""

    __slots__ = ("_auto", "_tried", "current")

    def __init__(self, wanted: Wanted = "auto") -> None:
        self._auto = wanted == "auto"
        self.current: Version = "3.1.1" if wanted == "3.1.1" else "5"
        self._tried: set[Version] = set()

    def accepted(self) -> None:
        """The broker took the connection."""
        self._tried.clear()

    def refused(self) -> bool:
        """The broker answered the attempt with a refusal of the version, or closed the connection without an answer.

        True: the other version has not been tried since it last worked; try it at once.
        """
        if not self._auto:
            return False
        self._tried.add(self.current)
        self.current = OTHER[self.current]
        if self.current not in self._tried:
            return True
        self._tried.clear()
        return False
