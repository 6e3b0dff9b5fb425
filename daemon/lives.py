"""The lives of devices' sessions: every login, new connection or restart begins another one (domain 9.6).

Control looks at a device's state before anything else in each life. Fed by the events that pass on their way to the
journal; only what is recent begins a life, so that a memory read for the first time does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..acquisition.terminal import TerminalSession
from ..control.ports import Epoch
from ..model.lang import tr
from ..model.readings import DeviceEvent
from ..model.times import US

# A login follows a new connection at once: both are one return. A second connection is another one, however soon.
TOGETHER_US: Final = 10 * US
LOGIN: Final = "link.login"
RECENT_US: Final = 3600 * US
_BEGIN: Final = {
    "link.online": ("connected", "上线"),
    "link.replaced": ("connected anew", "重新连接"),
    "link.login": ("logged in", "登录"),
    "ERC1": ("initialised or changed its version", "初始化或版本变更"),
    "ERC2": ("lost parameters", "参数丢失"),
    "ERC14": ("was without power", "停上电"),
}


class Lives:
    """See the module. Instants are UTC µs."""

    def __init__(self, session: Callable[[int], TerminalSession | None]) -> None:
        self._session = session
        self._epochs: dict[int, Epoch] = {}
        self._begun: dict[int, int] = {}
        self._ec: dict[int, tuple[int, int]] = {}
        self._count = 0

    def saw(self, event: DeviceEvent, now_us: int) -> None:
        """An event of a device passes."""
        words = _BEGIN.get(event.code)
        if words is None:
            return
        at_us = max(event.time_us, event.end_us or 0)
        if event.code.startswith("ERC") and (
            (event.code == "ERC14" and event.end_us is None) or now_us - at_us > RECENT_US
        ):
            return
        if event.code == LOGIN and now_us - self._begun.get(event.device, -TOGETHER_US) < TOGETHER_US:
            return
        self.begin(event.device, tr(*words), now_us)

    def begin(self, device: int, why: str, now_us: int) -> None:
        """Another life."""
        self._begun[device] = now_us
        self._count += 1
        self._epochs[device] = Epoch(self._count, tr(f"the terminal {why}", f"终端{why}"))

    def epoch(self, device: int, now_us: int) -> Epoch | None:
        """The present life; None for a device without a session."""
        session = self._session(device)
        if session is None:
            return None
        if session.ec1 is not None and session.ec2 is not None:
            before, now = self._ec.get(device), (session.ec1, session.ec2)
            self._ec[device] = now
            # counters of one byte only grow; a step back is a memory that was cleared
            if before is not None and any((n - b) & 0xFF > 0x80 for n, b in zip(now, before, strict=True)):
                self.begin(device, tr("counts its events anew", "事件计数复位"), now_us)
        if device not in self._epochs:
            self.begin(device, tr("was met for the first time", "首次接入"), now_us)
        return self._epochs.get(device)
