"""The terminal's side of a connection that it opens itself: login, heartbeats, logout (AFN 02). Pure.

    down --connected--> login --confirmed--> online --3 heartbeats unanswered / logout--> leaving --disconnected--> down
                          |  3 logins unanswered
                          +------------------> leaving

Any frame of the master is a sign of life and restarts the heartbeat's time. After a connection ended the next one
begins when the redial interval (AFN 04 F8) is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ...model.times import US
from ...protocols.qgdw1376.message import Message
from ...protocols.qgdw1376.units import Unit as DataUnit
from .device import Terminal
from .reports import Reporter

State = Literal["down", "login", "online", "leaving"]
TRIES: Final = 3
SHORTEST_S, LONGEST_S = 3.0, 60.0
LOGIN, LOGOUT, HEARTBEAT = 1, 2, 3
LINK_AFN: Final = 0x02


@dataclass(slots=True, kw_only=True)
class Link:
    """See the head of the module. redial_s None: as F8 says; heartbeat_s None: as F1 says."""

    terminal: Terminal
    reporter: Reporter
    clock_in_heartbeat: bool
    redial_s: float | None = None
    heartbeat_s: float | None = None
    state: State = "down"
    logins: int = 0
    heartbeats: int = 0
    _tries: int = 0
    _seq: int = 0
    _waits_for: int = 0
    _deadline_us: int = 0
    _beat_us: int = 0
    dial_at_us: int = 0

    # --- the connection ---------------------------------------------------------------------------------------

    def wants_connection(self, now_us: int) -> bool:
        """Whether the shell should dial now."""
        return self.state == "down" and self.terminal.powered and now_us >= self.dial_at_us

    def connected(self, now_us: int) -> list[Message]:
        """The connection is up: log in."""
        self.state, self._tries = "login", 0
        return [self._ask(LOGIN, now_us)]

    def disconnected(self, now_us: int) -> None:
        """The connection is gone, whoever ended it."""
        self.state, self._waits_for = "down", 0
        self.dial_at_us = max(self.dial_at_us, now_us + int(self._redial_s() * US))
        self.reporter.lost()

    def hold_off(self, until_us: int) -> None:
        """Do not dial before (the terminal boots, or waits)."""
        self.dial_at_us = max(self.dial_at_us, until_us)

    def activate(self) -> None:
        """AFN 05 F38: dial at once."""
        self.dial_at_us = 0

    def leave(self, now_us: int) -> list[Message]:
        """Planned end of the connection: the logout to send before it is closed."""
        if self.state == "down":
            return []
        online = self.state == "online"
        self.state = "leaving"
        return [self._message(LOGOUT)] if online else []

    # --- frames and time --------------------------------------------------------------------------------------

    def heard(self, response: Message | None, now_us: int) -> None:
        """A frame of the master; `response`: it is a confirmation or denial of something that we began."""
        self._beat_us = now_us + int(self._heartbeat_s() * US)
        beating = self._waits_for == HEARTBEAT
        if beating:
            self._waits_for = 0
        if response is None or response.afn != 0:
            return
        if self.state == "login":
            self._tries = 0 if response.confirmed else self._tries
            if response.confirmed:
                self.state, self._waits_for, self.logins = "online", 0, self.logins + 1
            else:
                self._deadline_us = now_us + int(self._timeout_s() * US)  # refused: try again later
        elif not (beating and response.seq == self._seq):
            self.reporter.confirmed(response)

    def poll(self, now_us: int) -> list[Message]:
        """What is to be sent now. state "leaving" afterwards: the shell closes the connection."""
        if self.state not in ("login", "online"):
            return []
        if self._waits_for:
            if now_us < self._deadline_us:
                return []
            if self._tries >= TRIES:
                self.state = "leaving"
                return []
            return [self._ask(self._waits_for, now_us)]
        if self.state == "online" and now_us >= self._beat_us:
            self._tries = 0
            return [self._ask(HEARTBEAT, now_us)]
        return self.reporter.poll(now_us) if self.state == "online" else []

    # --- parts ------------------------------------------------------------------------------------------------

    def _timeout_s(self) -> float:
        return min(max(float(self.terminal.parts.settings.uplink().timeout_s), SHORTEST_S), LONGEST_S)

    def _heartbeat_s(self) -> float:
        given = self.heartbeat_s
        return given if given is not None else self.terminal.parts.settings.uplink().heartbeat_min * 60.0

    def _redial_s(self) -> float:
        return self.redial_s if self.redial_s is not None else float(self.terminal.parts.settings.redial_s())

    def _ask(self, fn: int, now_us: int) -> Message:
        self._tries += 1
        message = self._message(fn, now_us)
        self._seq, self._waits_for = message.seq, fn
        self._deadline_us = now_us + int(self._timeout_s() * US)
        self.heartbeats += fn == HEARTBEAT
        return message

    def _message(self, fn: int, now_us: int = 0) -> Message:
        reporter, events = self.reporter, self.terminal.parts.events
        data: dict[str, object] = {}
        if fn == HEARTBEAT and self.clock_in_heartbeat:
            data["terminal_clock"] = self.terminal.parts.local(now_us)
        ec = events.counters if events.waiting else None
        return Message(
            up=True, prm=True, function=9, address=reporter.address, afn=LINK_AFN, seq=reporter.next_pfc() & 15,
            units=(DataUnit(0, fn, data),), con=True, acd=ec is not None, ec=ec, pw=b"",
            protocol_id=reporter.edition.protocol_id,
        )  # fmt: skip
