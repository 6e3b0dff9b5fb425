"""The owner of one line: moves bytes between a transport and the pure `Line`, and keeps it open.

Driven by callbacks only (no task): transport events, alarms, submissions. Everything of a line happens here, on the
loop's thread, one thing at a time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Protocol

from ...model.lang import tr
from ...model.work import Outcome, WorkItem
from ...protocols.qgdw1376.frame import Frame
from ..backoff import Backoff
from ..link import Line, State, Station
from ..terminal_front import Front, Kind, Said, hear, size_of
from .alarms import Alarms
from .clock import Clock
from .transports.base import Listener, Transport

log = logging.getLogger(__name__)

REPLIES_KEPT = 16  # confirmations that wait for a half-duplex line; older ones are dropped, their frames come again


class Host(Protocol):
    """The engine, as an owner sees it."""

    @property
    def full(self) -> bool:
        """The sink is behind."""

    def finished(self, owner: Owner, item: WorkItem, outcome: Outcome) -> None:
        """An item has ended."""

    def changed(self, owner: Owner, reason: str) -> None:
        """A line that terminals dial in on went up or down."""

    def said(self, owner: Owner, station: Station, said: Said) -> None:
        """A terminal said something beside its answers; its `reply` is on the way."""

    def stranger(self, owner: Owner, frame: Frame) -> None:
        """A frame of a terminal that is not on this line."""


class Owner:
    """One line and its transport. `make_transport` None: the transport is given from outside (dial-in)."""

    __slots__ = (
        "_alarms", "_backoff", "_clock", "_closed", "_front", "_host", "_make_transport", "_opening", "_reopen",
        "_replies", "_transport", "alarm_s", "heard", "line", "login_first", "reason",
    )  # fmt: skip

    def __init__(
        self,
        line: Line,
        host: Host,
        clock: Clock,
        alarms: Alarms,
        backoff: Backoff | None,
        make_transport: Callable[[Listener], Transport] | None,
        *,
        login_first: bool = False,
    ) -> None:
        """`backoff` only where the owner opens the transport itself. login_first: terminals' data before it: denied."""
        self.line = line
        self.alarm_s = math.inf
        self.reason = (
            tr("not opened yet", "尚未打开")
            if make_transport is not None
            else tr("the device has not dialled in since the start", "设备自启动以来尚未接入")
        )
        self.heard = False
        self._host, self._clock, self._alarms, self._backoff = host, clock, alarms, backoff
        self._make_transport = make_transport
        self._transport: Transport | None = None
        self._opening = False
        self._reopen: asyncio.TimerHandle | None = None
        self._closed = False
        self.login_first = login_first
        self._front: Front | None = None
        self._replies: list[tuple[Station, bytes]] | None = None

    @property
    def transport(self) -> Transport | None:
        """What the line goes over now."""
        return self._transport

    @property
    def opens(self) -> bool:
        """It opens its transport itself; False: the devices dial in."""
        return self._make_transport is not None

    @property
    def is_up(self) -> bool:
        """The transport is open."""
        return self.line.state is not State.DOWN

    def open(self) -> None:
        """Begin to open the transport, unless that is under way."""
        if self._closed or self._transport is not None or self._make_transport is None:
            return
        if self._reopen is not None:
            self._reopen.cancel()
            self._reopen = None
        self._transport = self._make_transport(self)
        self._opening = True
        self._transport.open()

    def attach(self, transport: Transport) -> None:
        """Take over a transport that is open already (dial-in); an older one is dropped."""
        self._drop(tr("replaced by a newer connection", "被新的连接取代"))
        self._transport = transport
        self._opening = True
        self.on_open()
        self._host.changed(self, "")

    def move(self, transport: Transport) -> None:
        """The peer goes on from another address (UDP): nothing of the conversation is lost."""
        old, self._transport = self._transport, transport
        if old is not None:
            old.close()

    async def close(self) -> None:
        """Close for good: everything is cancelled and nothing is left in the loop."""
        self._closed = True
        if self._reopen is not None:
            self._reopen.cancel()
            self._reopen = None
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
        was_up, reason = self.is_up, tr("the link was closed", "链路已关闭")
        self.line.shut(self._clock.now_us(), reason)
        self._hand_over()
        if was_up and self._make_transport is None:
            self._host.changed(self, reason)
        if transport is not None:
            await transport.wait_closed()

    def submit(self, item: WorkItem) -> None:
        """Queue an item; the caller decides when to `run`."""
        if not self.line.submit(item, self._clock.monotonic_s()):
            log.debug("%s: %s is queued already", self.line.name, item.key)
        if self.line.finished:
            self._hand_over()

    def replace_stations(self, stations: dict[int, Station]) -> None:
        """Serve these devices from now on."""
        if stations == self.line.stations:
            return
        terminals = any(station.session is not None for station in stations.values())
        self._front = (self._front or Front()) if terminals else None
        self.line.set_stations(stations, self._clock.now_us())
        self._hand_over()

    def urge(self) -> None:
        """Someone is waiting: do not wait for the back-off to end, try the line now."""
        if self._transport is None and self._make_transport is None:
            self.line.unreachable(self._clock.now_us(), self.reason)
            self._hand_over()
        elif self._transport is None:
            self.open()
        self.run()

    def run(self) -> None:
        """Do what is due: send, notice silence, expire. Safe to call at any time."""
        self._run(self._clock.monotonic_s(), self._clock.now_us())

    def _run(self, now_s: float, now_us: int) -> None:
        line = self.line
        line.held = self._host.full
        if self._replies is not None and line.state is not State.WAIT:
            replies, self._replies = self._replies, None
            for station, data in replies:
                self.reply(station, data)
        try:
            sent = line.poll(now_s, now_us)
            if sent is not None and self._transport is not None:
                station, data = sent
                if not self._transport.send(station, data):
                    line.refused(now_us)
                    self._alarms.at(self, now_s, now_s)
                else:
                    _count_sent(station, len(data), now_us)
        except Exception as error:  # noqa: BLE001 - outermost edge: a fault in one exchange must not end the others
            self._bug(error)
        if line.vanished(now_s):
            self._lost(tr("the peer stopped answering", "对端不再应答"))
        if line.finished:
            self._hand_over()
        if line.wake_at_s < self.alarm_s:
            self._alarms.at(self, line.wake_at_s, now_s)

    def on_alarm(self) -> None:
        """Alarms: it may be time."""
        if not self._closed:
            self.run()

    def on_open(self) -> None:
        """Transport: open."""
        self._opening = False
        self.heard = False
        self.reason = ""
        self._replies = None
        if self._front is not None:
            self._front.reset()
        self.line.up(self._clock.monotonic_s())
        self.run()

    def on_bytes(self, data: bytes) -> None:
        """Transport: bytes."""
        if not self.heard:
            self.heard = True
            if self._backoff is not None:
                self._backoff.reset()
        line, now_s, now_us = self.line, self._clock.monotonic_s(), self._clock.now_us()
        try:
            if self._front is None or line.raw():
                line.received(data, now_s, now_us)
            elif not self._demultiplex(self._front, data, now_s, now_us):
                return  # nothing of it is the line's matter
        except Exception as error:  # noqa: BLE001 - outermost edge, as above
            self._bug(error)
        if line.state is not State.WAIT:
            self._run(now_s, now_us)

    def reply(self, station: Station, data: bytes) -> None:
        """Send something beside the line's own work; a half-duplex line first ends its transaction."""
        line, transport = self.line, self._transport
        if transport is None:
            return
        if station.byte_s and line.state is State.WAIT:
            self._replies = [*(self._replies or ()), (station, data)][-REPLIES_KEPT:]
            return
        if transport.send(station, data):
            line.interjected(len(data), self._clock.monotonic_s())
            _count_sent(station, len(data), self._clock.now_us())

    def _demultiplex(self, front: Front, data: bytes, now_s: float, now_us: int) -> bool:
        """Frames of terminals; True when one was an answer, which is the line's matter."""
        line, answers = self.line, False
        line.sounded(len(data), now_s)
        whole = self._transport is not None and self._transport.datagrams
        for frame in front.cut(data, now_s, whole=whole):
            station = line.terminal(frame.address.a1, frame.address.a2)
            if station is None or station.session is None:
                if frame.up:
                    self._host.stranger(self, frame)
                continue
            station.session.received(size_of(frame), now_us)
            said = hear(station.session, frame, now_us, login_first=self.login_first)
            if said.kind is Kind.ANSWER:
                answers = True
                line.answered(frame.encode(), now_s, now_us, station)
            else:
                line.spoke(station, now_s)
                if said.reply:
                    self.reply(station, said.reply)
            if said.kind is not Kind.ANSWER or said.news:
                self._host.said(self, station, said)
        if front.begun:
            line.prolonged(now_s)
        line.counters.skipped_bytes += front.skipped
        front.skipped = 0
        return answers

    def on_lost(self, reason: str) -> None:
        """Transport: gone, or could not be opened."""
        self._transport = None
        self._lost(reason)

    def _lost(self, reason: str) -> None:
        failed_to_open = self._opening
        self._drop(reason)
        if failed_to_open or not self.opens:  # when a device will call again, nobody knows
            self.line.unreachable(self._clock.now_us(), reason)
        self._hand_over()
        if self._closed or self._make_transport is None:
            return
        if self._reopen is None and self._backoff is not None:
            self._reopen = asyncio.get_running_loop().call_later(self._backoff.next_s(), self._try_again)

    def _drop(self, reason: str) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
        was_up = self.is_up
        if was_up:  # of terminals that dial in there are thousands, and a history of their own
            log.log(
                logging.INFO if self.opens or self._front is None else logging.DEBUG, "%s: %s", self.line.name, reason
            )
        self._opening = False
        self.reason = reason
        self.line.down(self._clock.now_us(), reason)
        self._hand_over()
        if was_up and self._make_transport is None:
            self._host.changed(self, reason)

    def _try_again(self) -> None:
        self._reopen = None
        self.line.counters.reconnects += 1
        self.open()

    def _hand_over(self) -> None:
        if not self.line.finished:
            return
        finished, self.line.finished = self.line.finished, []
        for item, outcome in finished:
            self._host.finished(self, item, outcome)

    def _bug(self, error: Exception) -> None:
        running = self.line.running
        log.error("%s: fault while serving %s", self.line.name, running, exc_info=error)
        self.line.failed(self._clock.now_us(), f"{type(error).__name__}: {error}")
        now_s = self._clock.monotonic_s()
        self._alarms.at(self, now_s, now_s)


def _count_sent(station: Station, size: int, now_us: int) -> None:
    """Traffic of the terminal, or of the one that carries the device."""
    session = station.via.session if station.via is not None else station.session
    if session is not None:
        session.sent(size, now_us)
