"""A terminal as a line knows it: bytes in, bytes with delays out, the faults of the script in between.

`Station` is one terminal with everything that speaks for it; `TerminalLine` puts several on one wire (serial, radio, or
a listening socket); a station that dials in has a `Link` and a wire of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ...model.times import US
from ...protocols.common.errors import UsageError
from ...protocols.common.framer import NEED_MORE
from ...protocols.qgdw1376.frame import Frame, Framer
from ...protocols.qgdw1376.message import Message
from ..faults import delay, spoil
from ..wire import Reply
from .application import Application, Outcome
from .link import Link
from .reports import Reporter

INTER_BYTE_US: Final = 2 * US
MAX_FRAME: Final = 4096
READ_AFNS: Final = frozenset({0x09, 0x0A, 0x0C, 0x0D, 0x0E, 0x10})


@dataclass(slots=True, kw_only=True)
class Station:
    """application and reporter of one terminal; link: only where it dials itself. td_s: from request to answer."""

    application: Application
    reporter: Reporter
    link: Link | None = None
    td_s: float = 0.05
    restarts_at_us: int = 0

    @property
    def name(self) -> str:
        """The terminal's name."""
        return self.application.terminal.name

    def away(self, now_us: int) -> bool:
        """Without supply, booting, or its communication is down by the script."""
        terminal = self.application.terminal
        if not terminal.powered or now_us < terminal.ready_us:
            return True
        return terminal.parts.faults.active("restart", now_us) is not None

    def state(self, now_us: int) -> dict[str, object]:
        """What a bench wants to know about it."""
        terminal = self.application.terminal
        control = terminal.control
        return {
            "link": self.link.state if self.link is not None else "open",
            "logins": self.link.logins if self.link is not None else 0,
            "powered": terminal.powered,
            "protected": control.protected,
            "clock_offset_s": round(terminal.parts.clock.offset_us(now_us) / US, 3),
            "remote": sorted(control.remote.outputs),
            "power": {g: sorted(p.tripped) for g, p in control.power.items() if p.tripped},
            "energy": {
                g: {k: list(one.tripped) for k, one in e.kinds.items() if one.tripped}
                for g, e in control.energy.items()
                if any(one.tripped for one in e.kinds.values())
            },
            "alarms": sorted(control.remote.alarms | {p.alarm_round for p in control.power.values() if p.alarm_round}),
            "events": list(terminal.parts.events.counters),
        }

    def receive(self, frame: Frame, now_us: int) -> list[Reply]:
        """A frame on the terminal's wire, for it or not."""
        terminal = self.application.terminal
        faults = terminal.parts.faults
        if self.away(now_us):
            return []
        size = len(frame.user) + 14
        outcome = self.application.answer(frame, now_us)
        if outcome is None:
            return []
        terminal.parts.counters.carried(terminal.parts.local(now_us), size)
        if self.link is not None:
            self.link.heard(outcome.response, now_us)
        elif outcome.response is not None:
            self.reporter.confirmed(outcome.response)
        replies: list[Reply] = []
        if faults.fires("silent", now_us, outcome.item) is None:
            replies = self._replies(outcome, frame, now_us)
        replies += self._afterwards(outcome, now_us)
        return replies

    def _replies(self, outcome: Outcome, request: Frame, now_us: int) -> list[Reply]:
        faults = self.application.terminal.parts.faults
        later = self.td_s + outcome.delay_s + (delay(faults, now_us, outcome.item) if outcome.messages else 0.0)
        out = []
        for message in outcome.messages:
            frame = self._framed(message, now_us, outcome.item)
            wire = spoil(faults, request.encode(), frame.encode(), now_us, outcome.item)
            out.append(Reply(later, wire, self.name))
            self._sent(len(wire), now_us)
        return out

    def _framed(self, message: Message, now_us: int, item: str) -> Frame:
        faults = self.application.terminal.parts.faults
        if faults.fires("wrong_address", now_us, item):
            other = msgspec.structs.replace(message.address, a2=message.address.a2 % 0xFFFE + 1)
            message = msgspec.structs.replace(message, address=other)
        try:
            frame = self.application.frame(message)
        except UsageError as error:
            raise AssertionError(f"{self.name}: an answer that cannot be written: {error}") from error
        if message.afn in READ_AFNS:
            if faults.active("fill_ff", now_us):
                frame = msgspec.structs.replace(frame, user=frame.user.replace(b"\xee", b"\xff"))
            if (rule := faults.fires("not_bcd", now_us, item)) and len(frame.user) > 6:
                spoiled = bytearray(frame.user)
                spoiled[6 + rule.random.randrange(len(spoiled) - 6)] |= 0x0C
                frame = msgspec.structs.replace(frame, user=bytes(spoiled))
        return frame

    def _afterwards(self, outcome: Outcome, now_us: int) -> list[Reply]:
        """Restart, connect and disconnect take place when the answer is out."""
        link = self.link
        if outcome.restart:
            self.application.terminal.restart(now_us)
            if link is not None:
                link.hold_off(now_us + int(self.application.terminal.options.boot_s * US))
        if link is None or not (outcome.restart or outcome.link == "disconnect"):
            return []
        return self._said(link.leave(now_us), now_us)

    def poll(self, now_us: int) -> list[Reply]:
        """What the terminal says without being asked."""
        if self.away(now_us):
            return []
        self.application.terminal.advance(now_us)
        messages = self.link.poll(now_us) if self.link is not None else self.reporter.poll(now_us)
        return self._said(messages, now_us)

    def connected(self, now_us: int) -> list[Reply]:
        """Its own connection is up."""
        assert self.link is not None
        return self._said(self.link.connected(now_us), now_us)

    def _said(self, messages: Sequence[Message], now_us: int) -> list[Reply]:
        faults = self.application.terminal.parts.faults
        out = []
        for message in messages:
            item = f"{message.afn:02X}F{message.units[0].fn}"
            if faults.fires("silent", now_us, item):
                continue
            wire = spoil(faults, b"", self._framed(message, now_us, item).encode(), now_us, item)
            out.append(Reply(delay(faults, now_us, item), wire, self.name))
            self._sent(len(wire), now_us)
        return out

    def _sent(self, size: int, now_us: int) -> None:
        parts = self.application.terminal.parts
        parts.counters.carried(parts.local(now_us), size)


class TerminalLine:
    """A wire with terminals. spontaneous: they report without being asked (a socket; not a half-duplex line)."""

    def __init__(self, stations: Sequence[Station], *, spontaneous: bool = False) -> None:
        self.stations = list(stations)
        self.spontaneous = spontaneous

    def session(self) -> TerminalSession:
        """A session with its own buffer."""
        return TerminalSession(self)


class TerminalSession:
    """One stream to the wire."""

    def __init__(self, line: TerminalLine) -> None:
        self._line = line
        self._framer = Framer(limit=MAX_FRAME)
        self._fed_us = 0

    def receive(self, data: bytes, now_us: int) -> list[Reply]:
        """What the terminals answer to the frames in the bytes."""
        if now_us - self._fed_us > INTER_BYTE_US and len(self._framer):
            self._framer.reset()  # a torn request
        self._fed_us = now_us
        self._framer.feed(data)
        replies: list[Reply] = []
        while (event := self._framer.next_event()) is not NEED_MORE:
            if isinstance(event, Frame):
                for station in self._line.stations:
                    replies += station.receive(event, now_us)
        return replies

    def poll(self, now_us: int) -> list[Reply]:
        """What the terminals say by themselves."""
        if not self._line.spontaneous:
            return []
        return [reply for station in self._line.stations for reply in station.poll(now_us)]
