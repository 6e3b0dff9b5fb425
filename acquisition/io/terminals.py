"""Terminals that dial in, between the listeners and the lines: who is calling, unknown callers, reports, history.

* A known terminal's connection becomes its line's; a newer one replaces an older one (TCP) or is where answers go from
  now on (UDP). An unknown terminal is held: listed, answered with a denial or with silence, and served as soon as the
  device list has it.
* What a terminal reports unasked goes to the collector like every reading; its confirmation leaves when the journal has
  it. While the journal is behind, reports are not taken at all: unconfirmed, they come again.
* Connections come and go as events of the device: link.online, link.offline, link.replaced, link.moved, link.login,
  link.logout; many of them together make one record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from ...model.devices import Device
from ...model.lang import tr
from ...model.readings import DeviceEvent, ReadingBatch
from ...model.times import US
from ...model.work import Duty, Outcome, Priority, Status, WorkItem
from ...protocols.common.errors import FuheError
from ...protocols.qgdw1376.link import confirmation, head_of, wants_answer
from ..config import LinkConfig
from ..dialin import Identity
from ..link import Station
from ..profile import TerminalPlan
from ..terminal import TerminalAddress, parse_address
from ..terminal_front import Front, Kind, Said
from ..terminal_reports import Report, read_report
from ..unknown import Unknown, UnknownTable
from .clock import Clock
from .collector import Collector
from .owner import Owner
from .transports.dialin import Caller

log = logging.getLogger(__name__)

HISTORY_S: Final = 1.0
HISTORY_EVENTS: Final = 1000  # in one record
MOVED_EVERY_US: Final = 60 * US  # a peer whose address changes more often is counted, not written down each time
EVENTS_WAIT_S: Final = 600.0
_REPORTED = {Kind.LOGIN: "link.login", Kind.LOGOUT: "link.logout"}


def patience_s(heartbeat_s: int) -> float:
    """A connection without a byte for so long is dead: two heartbeats and a minute, so that one may be lost."""
    return 2.0 * heartbeat_s + 60.0


def be_patient(owner: Owner, caller: Caller) -> None:
    """A connection of terminals may be silent between two of their heartbeats."""
    sessions = [s.session for s in owner.line.stations.values() if s.session is not None]
    if sessions:
        caller.patience_s = max(patience_s(session.settings.heartbeat_s) for session in sessions)


class Engine(Protocol):
    """What this module needs of the engine."""

    def submit(self, item: WorkItem) -> asyncio.Future[Outcome]:
        """Queue an item."""


class Held:
    """The listener of an unknown terminal's connection."""

    __slots__ = ("_front", "_terminals", "caller", "config", "row")

    def __init__(self, terminals: Terminals, config: LinkConfig, caller: Caller, row: Unknown) -> None:
        self._terminals, self.config, self.caller, self.row = terminals, config, caller, row
        self._front = Front()

    def on_open(self) -> None:
        """See `Listener`; it is open already."""

    def on_bytes(self, data: bytes) -> None:
        """Count its frames, and deny them if the link says so."""
        clock = self._terminals.clock
        for frame in self._front.cut(data, clock.monotonic_s(), whole=self.caller.datagrams):
            head = head_of(frame)
            if head is None or not frame.up:
                continue
            self.row.frames += 1
            self.row.last_us = clock.now_us()
            if self.config.unknown == "deny" and frame.prm and wants_answer(frame, head):
                self.caller.answer("qgdw1376", confirmation(frame, head, deny=True))

    def on_lost(self, reason: str) -> None:
        """It went away."""
        self.row.held = False
        self._terminals.held.pop(self, None)


class Terminals:
    """See the module. One for all listeners of an engine."""

    def __init__(
        self,
        engine: Engine,
        collector: Collector,
        clock: Clock,
        *,
        limit: int = 1000,
        on_heard: Callable[[int, int, float | None], None] | None = None,
    ) -> None:
        """on_heard(device, time_us, clock_offset_s): a terminal gave a sign of life (and told its clock)."""
        self.clock = clock
        self.unknown = UnknownTable(limit)
        self.held: dict[Held, None] = {}
        self.reports = self.repeats = self.put_off = self.foreign = self.broken = 0
        self._engine, self._collector, self._on_heard = engine, collector, on_heard
        self._owners: dict[str, dict[TerminalAddress, Owner]] = {}
        self._elsewhere: dict[TerminalAddress, str] = {}
        self._history: list[DeviceEvent] = []
        self._timer: asyncio.TimerHandle | None = None

    # -- the device list ----------------------------------------------------------------------------------------------

    def set_lines(self, owners: Mapping[str, Owner], devices: Iterable[Device], unserved: Mapping[int, str]) -> None:
        """The lines in force; callers held until now are served if they are among them."""
        self._owners = {}
        for name, owner in owners.items():
            link = name.partition("/")[0]
            for station in owner.line.stations.values():
                if station.session is not None:
                    self._owners.setdefault(link, {})[station.session.address] = owner
        self._elsewhere = {}
        for device in devices:
            address = parse_address(device.address) if device.id in unserved else None
            if address is not None:
                self._elsewhere[address] = f"{device.name}: {unserved[device.id]}"
        for held in tuple(self.held):
            known = self._owners.get(held.config.name, {}).get(held.row.address)
            if known is not None:
                self._serve(known, held.caller)
                del self.held[held]
        for row in self.unknown.rows():
            if row.address in self._owners.get(row.link, ()):
                self.unknown.known(row.link, row.address)

    def attach(self, config: LinkConfig, identity: Identity, caller: Caller) -> bool:
        """A terminal has said its address; False: there is no room for one more unknown."""
        address = parse_address(identity.name)
        owner = self._owners.get(config.name, {}).get(address) if address is not None else None
        if owner is not None:
            self._serve(owner, caller)
            return True
        if address is None:
            return False
        now_us = self.clock.now_us()
        row = self.unknown.called(config.name, address, caller.peer_text, self._why(config, address), now_us)
        if row is None:
            return False
        for other in [h for h in self.held if h.row is row]:
            other.caller.close()
            del self.held[other]
        row.held = True
        held = Held(self, config, caller, row)
        self.held[held] = None
        caller.patience_s = max(caller.patience_s, patience_s(TerminalPlan().heartbeat_s))
        caller.adopt(held)
        log.info("%s: unknown terminal %s from %s", config.name, address.decimal, row.peer)
        return True

    def _why(self, config: LinkConfig, address: TerminalAddress) -> str:
        if address in self._elsewhere:
            return self._elsewhere[address]
        link = next((link for link, found in self._owners.items() if address in found and link != config.name), None)
        if link is not None:
            return tr(f"belongs to link {link}", f"属于链路 {link}")
        return tr("not in the device list", "不在设备档案中")

    def _serve(self, owner: Owner, caller: Caller) -> None:
        now_us = self.clock.now_us()
        stations = [s for s in owner.line.stations.values() if s.session is not None]
        be_patient(owner, caller)
        before = owner.transport
        caller.adopt(owner)
        if owner.is_up and caller.datagrams and before is not None and before.datagrams:
            owner.move(caller)
            for station in stations:
                self._moved(station, caller.peer_text, now_us)
            return
        if owner.is_up:
            for station in stations:
                assert station.session is not None
                station.session.replaced += 1
                self._note(station, "link.replaced", {"peer": caller.peer_text}, now_us)
            log.warning("%s: a second connection, from %s, replaces the first", owner.line.name, caller.peer_text)
        owner.attach(caller)

    def _moved(self, station: Station, peer: str, now_us: int) -> None:
        session = station.session
        assert session is not None
        session.moved += 1
        if session.moved_us is None or now_us - session.moved_us >= MOVED_EVERY_US:
            session.moved_us = now_us
            self._note(station, "link.moved", {"peer": peer}, now_us)

    # -- what owners tell ---------------------------------------------------------------------------------------------

    def changed(self, owner: Owner, reason: str) -> None:
        """A line of a listener went up or down."""
        now_us = self.clock.now_us()
        for station in owner.line.stations.values():
            session = station.session
            if session is None:
                continue
            if owner.is_up:
                session.connected(now_us)
                peer = owner.transport.peer_text if isinstance(owner.transport, Caller) else ""
                self._note(station, "link.online", {"peer": peer}, now_us)
            else:
                since = session.online_us
                session.online_us, session.logged_in = None, None
                online_s = None if since is None else round((now_us - since) / US)
                self._note(station, "link.offline", {"reason": reason, "online_s": online_s}, now_us)

    def said(self, owner: Owner, station: Station, said: Said) -> None:
        """A terminal said something beside an answer (or news came with one)."""
        session = station.session
        assert session is not None
        now_us = self.clock.now_us()
        try:
            match said.kind:
                case Kind.LOGIN | Kind.LOGOUT:
                    self._note(station, _REPORTED[said.kind], {}, now_us)
                case Kind.REPORT:
                    self._report(owner, station, said, now_us)
                case Kind.REPEATED:
                    self.repeats += 1
                case Kind.FOREIGN:
                    self.foreign += 1
                case _:
                    pass
        except Exception:  # outermost edge: one terminal's frame must not disturb the line
            log.exception("%s: frame of %s", owner.line.name, station.device.name)
        if self._on_heard is not None and said.kind is not Kind.ANSWER:
            self._on_heard(station.device.id, now_us, said.offset_s)
        if said.news:
            self._engine.submit(
                WorkItem(
                    device=station.device.id,
                    duty=Duty.EVENT,
                    priority=Priority.EVENT,
                    expires_s=self.clock.monotonic_s() + EVENTS_WAIT_S,
                )
            )

    def stranger(self, owner: Owner, address: TerminalAddress) -> None:
        """A frame of a terminal that the line does not serve came over it (a cascaded one, a neighbour on the air)."""
        link, now_us = owner.line.name.partition("/")[0], self.clock.now_us()
        peer = owner.transport.peer_text if isinstance(owner.transport, Caller) else owner.line.name
        reason = tr(f"over {owner.line.name}, which does not list it", f"经由 {owner.line.name}, 该线路未列此终端")
        row = self.unknown.called(link, address, peer, reason, now_us)
        if row is not None:
            row.connections -= 1  # it has none of its own
            row.frames += 1

    def _report(self, owner: Owner, station: Station, said: Said, now_us: int) -> None:
        session = station.session
        assert session is not None
        key = session.report_key
        if self._collector.full:  # it comes again
            self.put_off += 1
            session.report_done(key, stored=False)
            return
        try:
            report = read_report(station.device, station.profile, session, said.frame, now_us)
        except FuheError as error:  # its repeat would be no better: stored as it is
            self.broken += 1
            log.warning("%s: report of %s cannot be read: %s", owner.line.name, station.device.name, error)
            report = Report.unread(station.device, said.frame, str(error), now_us)
        self.reports += 1
        transport = owner.transport

        def told(item: WorkItem | None, outcome: Outcome) -> None:
            stored = outcome.status is Status.DONE
            session.report_done(key, stored=stored)
            if not stored:
                return
            report.stored(session)
            if said.confirm and transport is not None and owner.transport is transport:
                owner.reply(station, said.confirm)

        self._collector.add(None, Outcome(status=Status.DONE, batch=report.batch), told, urgent=True)

    # -- history ------------------------------------------------------------------------------------------------------

    def _note(self, station: Station, code: str, data: dict[str, object], now_us: int) -> None:
        event = DeviceEvent(device=station.device.id, point=None, time_us=now_us, end_us=None, code=code, data=data)
        self._history.append(event)
        if len(self._history) >= HISTORY_EVENTS:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HISTORY_S, self.flush)

    def flush(self) -> None:
        """Hand the history over to the collector."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        events, self._history = self._history, []
        if events:
            batch = ReadingBatch(received_us=self.clock.now_us(), events=tuple(events))
            self._collector.add(None, Outcome(status=Status.DONE, batch=batch), _told)


def _told(item: WorkItem | None, outcome: Outcome) -> None:
    if outcome.status is not Status.DONE:
        log.warning("history of connections not stored: %s", outcome.reason)
