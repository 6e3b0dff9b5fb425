"""The device's own record of a trip (domain 9.7): power at the trip and two minutes later, from the stored events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..model.times import US, from_us, to_us
from .command import Command
from .records import Conn
from .rules.kinds import Effect
from .rules.verify import TripEvent

# A terminal's clock may run ahead of or behind ours by so much (interlock 10 lets no more through).
CLOCK_S: Final = 60
CODE: Final = "ERC5"


def trip_event(conn: Conn, command: Command) -> TripEvent | None:
    """The newest trip event of a remote trip that names its round; None if there is none (yet)."""
    if command.rule.effect is not Effect.CUT or command.sent_at is None:
        return None
    since = from_us(to_us(command.sent_at) - CLOCK_S * US)
    rows = conn.execute(
        "SELECT time, data FROM event WHERE device = %s AND code = %s AND time >= %s ORDER BY time DESC LIMIT 20",
        (command.device_id, CODE, since),
    ).fetchall()
    for time, data in rows:
        if command.round in _rounds(data):
            return TripEvent(
                time_us=to_us(time), before_kw=_kw(data, "power_trip_kw"), after_kw=_kw(data, "power_after_kw")
            )
    return None


def _rounds(data: Mapping[str, Any]) -> tuple[int, ...]:
    found = data.get("rounds")
    return tuple(int(n) for n in found) if isinstance(found, list) else ()


def _kw(data: Mapping[str, Any], name: str) -> float | None:
    try:
        return float(str(data[name]))
    except (KeyError, ValueError):
        return None
