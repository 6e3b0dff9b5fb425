"""Quality of one value, as VEE names it (domain: raw, checked, final layers).

Stored as int2. Values below 16 are usable as measured; the order is not a ranking.
"""

from __future__ import annotations

from enum import IntEnum


class Quality(IntEnum):
    """A actual, S suspect, X rejected, M missing, E1–E5 estimated, U edited, O zero by confirmed outage."""

    A = 0
    S = 1
    X = 2
    M = 3
    E1 = 4
    E2 = 5
    E3 = 6
    E4 = 7
    E5 = 8
    U = 9
    O = 10  # noqa: E741 - the field's own letter


class Source(IntEnum):
    """Where a value was taken; part of a raw reading's key, so that a freeze never overwrites a live value."""

    LIVE = 1
    CURVE = 2
    DAILY = 3
    MONTHLY = 4
    HOURLY = 5
    EVENT = 6
    PARAMETER = 7
    CONTROL = 8
