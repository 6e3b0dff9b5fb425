"""Who may command a terminal: message password, age of the time tag, and commands that were heard before.

A request older than its time tag allows is passed over in silence. A wrong password, or (where a scheme is in force)
a time tag that was used already, is denied and recorded as ERC20.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from ...protocols.qgdw1376.auth import AuthProvider
from ...protocols.qgdw1376.frame import Frame
from ...protocols.qgdw1376.message import Message, Tp

REMEMBERED: Final = 256


@dataclass(slots=True)
class Gate:
    """provider None: nobody is checked (scheme 0). replay: whether a used time tag is refused."""

    provider: AuthProvider | None = None
    replay: bool = True
    _used: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def admits(self, frame: Frame, message: Message) -> bool:
        """Whether PW is right and the command new; an admitted command's time tag is used up."""
        if self.provider is None:
            return True
        tp_size = 6 if message.tp is not None else 0
        pw = message.pw or b""
        data = bytes((frame.control,)) + frame.address.wire + frame.user[: len(frame.user) - tp_size - len(pw)]
        if not pw or not self.provider.verify(data, pw):
            return False
        if message.tp is not None and self.replay:
            tag = (message.tp.pfc, message.tp.sent)
            if tag in self._used:
                return False
            self._used.append(tag)
        return True


def is_stale(tp: Tp | None, local: datetime) -> bool:
    """Older than the delay that the time tag permits (0 = not checked); a tag that is no time is stale."""
    if tp is None or not tp.delay_min:
        return False
    sent = sent_at(tp, local)
    return sent is None or local - sent >= timedelta(minutes=tp.delay_min)


def sent_at(tp: Tp, local: datetime) -> datetime | None:
    """The instant of a time tag, which names no month: the one nearest to `local`."""
    if None in (tp.day, tp.hour, tp.minute, tp.second):
        return None
    assert tp.day is not None and tp.hour is not None and tp.minute is not None and tp.second is not None
    found: list[datetime] = []
    for back in (-1, 0, 1):
        month = local.year * 12 + local.month - 1 + back
        try:
            found.append(datetime(month // 12, month % 12 + 1, tp.day, tp.hour, tp.minute, tp.second))  # noqa: DTZ001
        except ValueError:
            continue
    return min(found, key=lambda t: abs(t - local), default=None)
