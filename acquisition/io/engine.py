"""The acquisition engine: devices and work items in, outcomes and stored readings out.

One `Owner` a line (serial port, TCP endpoint, dial-in name, MQTT device), no task for a request or an idle line. An
item's future resolves after its readings are durable. Ordinary work on idle lines is gathered for 100 ms so that
many devices share a wake-up; control and events go at once. Overload shows as refused items, never as growth: each
line's queue is bounded, and while the sink is behind only control starts.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...model.devices import Credentials, Device
from ...model.lang import tr
from ...model.work import Exchange, LinkCounters, Outcome, Priority, Status, WorkItem
from ...protocols.common.errors import LinkError
from ...protocols.qgdw1376.frame import Frame
from ..backoff import Backoff
from ..clock_rules import SUSPECT, suspect_spans
from ..config import LinkConfig
from ..dialin import DialIn, Identity, TerminalCall, TextRegistration
from ..link import Line, LinePolicy, State, Station
from ..profile import Profile
from ..quarantine import Quarantine
from ..sessions import Carrier, open_exchange, open_relayed
from ..terminal import TerminalAddress, TerminalSession
from ..terminal_events import pointer_item
from ..terminal_front import Said
from .alarms import Alarms
from .clock import Clock
from .collector import Collector, Sink
from .gather import Gatherer
from .owner import Owner
from .pushes import Pushes
from .states import DeviceState, LinkState, end_state, line_state, listener_state, terminal_detail
from .stations import LISTENERS, by_line, line_policy
from .terminals import Terminals, be_patient
from .transports.base import Guard, Listener, Transport
from .transports.dialin import Caller, DialInServer
from .transports.mqtt import MqttBroker
from .transports.serial import SerialTransport
from .transports.tcp import TcpTransport

__all__ = ["DeviceState", "Engine", "LinkState"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Shared:
    """What all lines of a listener for terminals have in common, and who they are."""

    policy: LinePolicy
    quarantine: Quarantine
    counters: LinkCounters
    owners: list[Owner] = field(default_factory=list)


class Engine:
    """See the module. All methods are to be called on the event loop's thread."""

    def __init__(
        self,
        links: Sequence[LinkConfig],
        devices: Sequence[Device],
        profiles: Mapping[str, Profile],
        credentials: Callable[[Device], Credentials],
        sink: Sink,
        clock: Clock,
        read_only: Callable[[], bool],
        on_outcome: Callable[[WorkItem, Outcome], None] | None = None,
        *,
        seed: int | None = None,
        gather_s: float = 0.1,
        secrets: Callable[[str], str] | None = None,
        on_heard: Callable[[int, int, float | None], None] | None = None,
    ) -> None:
        """`secrets` gives the value of a link's `secret` (the broker's password); `seed` fixes every jitter.

        on_heard(device, time_us, clock_offset_s): a terminal gave a sign of life of its own (and told its clock).
        """
        self.configs = {config.name: config for config in links}
        self._devices, self._profiles, self._credentials = tuple(devices), dict(profiles), credentials
        self._clock, self._on_outcome, self._secrets = clock, on_outcome, secrets
        self.guard = Guard(read_only)
        self.collector = Collector(sink, self._room)
        self._alarms = Alarms(clock)
        self._gatherer = Gatherer(gather_s)
        self._rng = random.Random(seed)
        self.terminals = Terminals(self, self.collector, clock, on_heard=on_heard)
        self._shared: dict[str, _Shared] = {}
        self._owners: dict[str, Owner] = {}
        self._line_of: dict[int, str] = {}
        self._unserved: dict[int, str] = {}
        self._places: dict[int, dict[str, int]] = {}
        self._suspect: dict[int, tuple[tuple[int, int], ...]] = {}
        self._pending: dict[Hashable, asyncio.Future[Outcome]] = {}
        self._servers: dict[str, DialInServer] = {}
        self._brokers: dict[str, MqttBroker] = {}
        self._pushes: dict[str, Pushes] = {}
        self._names: dict[str, set[str]] = {}
        self._alone: dict[str, Owner] = {}  # the lines that are shown each for itself
        self._running = False

    @property
    def full(self) -> bool:
        """The sink is behind: only control starts."""
        return self.collector.full

    @property
    def open_items(self) -> int:
        """Items that were submitted and have not ended."""
        return len(self._pending)

    async def start(self) -> None:
        """Open all links. LinkError when a listener's address is taken (nothing stays open then)."""
        self._running = True
        self.collector.start()
        try:
            for config in self.configs.values():
                if config.kind in LISTENERS:
                    await self._listen(config)
                elif config.kind == "mqtt":
                    password = self._secrets(config.secret) if config.secret and self._secrets else None
                    self._brokers[config.name] = self._broker(config, password)
            await self.set_devices(self._devices)
        except LinkError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Cancel all work, store what was read, close everything: no task and no socket is left."""
        self._running = False
        self._gatherer.close()
        await asyncio.gather(*(owner.close() for owner in self._owners.values()))
        await asyncio.gather(*(server.stop() for server in self._servers.values()))
        self.terminals.flush()
        await self.collector.stop()
        for broker in self._brokers.values():  # last: it still acknowledges what the collector has stored
            await broker.stop()
        self._alarms.close()
        self._owners.clear()
        self._servers.clear()
        self._brokers.clear()

    def submit(self, item: WorkItem) -> asyncio.Future[Outcome]:
        """Queue an item. The same key twice gives the same future; every refusal is an outcome, never an exception."""
        key = item.key
        pending = self._pending.get(key)
        if pending is not None:
            return pending
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        owner = self._owners.get(self._line_of.get(item.device, ""))
        if owner is None or not self._running:
            why = self._unserved.get(item.device) or tr("unknown device or engine stopped", "设备未知或采集已停止")
            outcome = Outcome(status=Status.CANCELLED, reason=why)
            future.set_result(outcome)
            if self._on_outcome is not None:
                self._on_outcome(item, outcome)
            return future
        self._pending[key] = future
        owner.submit(item)
        if item.priority <= Priority.EVENT:
            owner.urge()
        elif owner.line.state is not State.WAIT:
            self._gatherer.add(owner)
        return future

    async def set_devices(
        self, devices: Sequence[Device], profiles: Mapping[str, Profile] | None = None
    ) -> dict[int, str]:
        """Replace the device list at run time; the devices that cannot be served, with the reason.

        Lines whose devices are unchanged go on undisturbed; items of devices that left or changed are cancelled.
        """
        self._devices = tuple(devices)
        if profiles is not None:
            old = self._profiles
            self._profiles = {name: old[name] if old.get(name) == new else new for name, new in profiles.items()}
        for link, pushes in self._pushes.items():
            pushes.set_devices(device for device in self._devices if device.link == link)
        known = {i: s for owner in self._owners.values() for i, s in owner.line.stations.items()}
        lines, self._unserved = by_line(self._devices, self._profiles, self.configs, known)
        gone = [self._owners.pop(name) for name in list(self._owners) if name not in lines]
        self._line_of = {device: name for name, stations in lines.items() for device in stations}
        for name, stations in lines.items():
            owner = self._owners.get(name)
            if owner is None:
                owner = self._owners[name] = self._make_owner(name)
            owner.replace_stations(stations)
            owner.open()
        await asyncio.gather(*(owner.close() for owner in gone))
        self._names, self._alone = {}, {}
        for shared in self._shared.values():
            shared.owners = []
        for name, owner in self._owners.items():
            link, _, rest = name.partition("/")
            if link in self._shared:
                self._shared[link].owners.append(owner)
                continue
            self._alone[name] = owner
            if rest:
                self._names.setdefault(link, set()).add(rest)
        self._recollect()
        self.terminals.set_lines(self._owners, self._devices, self._unserved)
        return self._unserved

    def remember(self, places: Iterable[tuple[int, str, str]]) -> None:
        """What sessions knew, as stored: (device, item, value); places of events, slots that clock sets have spoilt.

        What a session knows by now stays.
        """
        for device, item, value in places:
            if item == SUSPECT:
                self._suspect[device] = suspect_spans(value)
            elif value.isdecimal() and int(value) < 256:
                self._places.setdefault(device, {})[item] = int(value)
        self._recollect()

    def _recollect(self) -> None:
        for owner in self._owners.values() if self._places or self._suspect else ():
            for device, station in owner.line.stations.items():
                if station.session is None:
                    continue
                if found := self._places.get(device):
                    station.session.remember(found.get(pointer_item(1)), found.get(pointer_item(2)))
                station.session.suspect = station.session.suspect or self._suspect.get(device, ())

    def link_states(self) -> list[LinkState]:
        """Every line, and every listener as a line of its own; of a listener for terminals only that."""
        now_s = self._clock.monotonic_s()
        states: list[LinkState] = []
        for name, owner in tuple(self._alone.items()):
            states.append(line_state(name, self.configs[name.partition("/")[0]].kind, owner, now_s))
        for name, server in tuple(self._servers.items()):
            shared = self._shared.get(name)
            if shared is not None:
                states.append(listener_state(name, server.config.kind, shared.owners, server.counters, now_s))
            else:
                states.append(end_state(name, server.config.kind, server.counters, True, "", len(server.callers)))
        for name, broker in tuple(self._brokers.items()):
            counters, devices = broker.counters, len(broker.channels)
            states.append(end_state(name, "mqtt", counters, broker.connected, broker.reason, devices))
        return states

    def devices(self) -> list[int]:
        """Numbers of all devices, served or not."""
        return [*self._line_of, *self._unserved]

    def device_state(self, device: int) -> DeviceState | None:
        """When it was last heard, whether it is quarantined, or why it is not served; None: no such device."""
        if device in self._unserved:
            return DeviceState(device=device, line="", unserved=self._unserved[device])
        name = self._line_of.get(device, "")
        owner = self._owners.get(name)
        if owner is None:
            return None
        quarantine, session = owner.line.quarantine, owner.line.stations[device].session
        return DeviceState(
            device=device,
            line=name,
            reached_us=self._stamp(owner.line.stations[device].reached_s),
            quarantined_us=self._stamp(quarantine.since_s(device)),
            silent=quarantine.silent_count(device),
            online=self.online(device),
            detail=None if session is None else terminal_detail(session),
        )

    def online(self, device: int) -> bool | None:
        """Whether a terminal that dials in is connected; None for other devices."""
        owner = self._owners.get(self._line_of.get(device, ""))
        if owner is None or owner.opens or owner.line.stations[device].session is None:
            return None
        return owner.is_up

    def session(self, device: int) -> TerminalSession | None:
        """What is remembered of a terminal."""
        owner = self._owners.get(self._line_of.get(device, ""))
        return owner.line.stations[device].session if owner is not None else None

    def device_mark(self, device: int) -> int:
        """A number that changes when `device_state` does: cheap to ask of thousands again and again."""
        owner = self._owners.get(self._line_of.get(device, ""))
        if owner is None:
            return hash(self._unserved.get(device))
        line = owner.line
        station = line.stations[device]
        told = (owner.is_up, station.reached_s, line.quarantine.silent_count(device), line.quarantine.since_s(device))
        session = station.session
        return hash(told) if session is None else hash((*told, terminal_detail(session)))

    def device_states(self) -> list[DeviceState]:
        """Every device."""
        return [state for state in map(self.device_state, self.devices()) if state is not None]

    def _stamp(self, at_s: float | None) -> int | None:
        """UTC µs of a monotonic instant, to the second: the two clocks drift, and a state should change with cause."""
        if at_s is None:
            return None
        return round(self._clock.now_us() / 1e6 + at_s - self._clock.monotonic_s()) * 1_000_000

    def listening(self, link: str) -> tuple[str, int]:
        """Address of a listener (useful where port 0 was configured)."""
        return self._servers[link].address

    # -- for owners and listeners -------------------------------------------------------------------------------------

    def finished(self, owner: Owner, item: WorkItem, outcome: Outcome) -> None:
        """See `Host`."""
        self.collector.add(item, outcome, self._tell, urgent=item.priority <= Priority.EVENT)

    def changed(self, owner: Owner, reason: str) -> None:
        """See `Host`."""
        self.terminals.changed(owner, reason)

    def said(self, owner: Owner, station: Station, said: Said) -> None:
        """See `Host`."""
        self.terminals.said(owner, station, said)

    def stranger(self, owner: Owner, frame: Frame) -> None:
        """See `Host`."""
        self.terminals.stranger(owner, TerminalAddress(frame.address.a1, frame.address.a2))

    def _tell(self, item: WorkItem | None, outcome: Outcome) -> None:
        if outcome.stored is not None:
            outcome.stored()
        if item is None:
            return
        future = self._pending.pop(item.key, None)
        if future is not None and not future.done():
            future.set_result(outcome)
        if self._on_outcome is not None:
            try:
                self._on_outcome(item, outcome)
            except Exception:  # outermost edge: a listener's fault must not stop the deliveries of others
                log.exception("on_outcome failed for %s", item)

    def _room(self) -> None:
        for owner in self._owners.values():
            self._gatherer.add(owner)

    def _make_owner(self, name: str) -> Owner:
        config = self.configs[name.partition("/")[0]]
        opener = self._opener(name, config)
        backoff = Backoff(config.reconnect_min_s, config.reconnect_max_s, self._rng) if opener is not None else None
        if config.name not in self._shared:
            line = Line(name, line_policy(config), self._open_exchange, Quarantine(self._rng))
        else:  # as many lines as terminals: what can be shared, is
            common = self._shared[config.name]
            line = Line(name, common.policy, self._open_exchange, common.quarantine, common.counters)
        return Owner(line, self, self._clock, self._alarms, backoff, opener, login_first=config.login_first)

    def _opener(self, name: str, config: LinkConfig) -> Callable[[Listener], Transport] | None:
        match config.kind:
            case "serial":
                return lambda listener: SerialTransport(config, self.guard, listener)
            case "tcp":
                return lambda listener: TcpTransport(config, self.guard, listener)
            case "mqtt":
                address = name.removeprefix(f"{config.name}/")
                return lambda listener: self._brokers[config.name].channel(listener, address)
            case _:
                return None

    def _open_exchange(self, station: Station, item: WorkItem) -> Exchange:
        credentials = self._credentials(station.device)
        if (via := station.via) is not None and via.session is not None:
            carrier = Carrier(via.device, via.profile, self._credentials(via.device), via.session)
            return open_relayed(station.device, station.profile, item, credentials, carrier)
        return open_exchange(station.device, station.profile, item, credentials, session=station.session)

    def _broker(self, config: LinkConfig, password: str | None) -> MqttBroker:
        start = config.name + "/"

        def on_up() -> None:
            for name, owner in self._owners.items():
                if name.startswith(start):
                    owner.open()

        def heard(address: str) -> None:
            owner = self._owners.get(start + address)
            if owner is not None:
                owner.line.heard(self._clock.monotonic_s())

        pushes = self._pushes[config.name] = Pushes()
        pushes.set_devices(device for device in self._devices if device.link == config.name)
        broker = MqttBroker(config, self.guard, self.collector, self._clock, pushes, on_up, heard, password, self._rng)
        broker.start()
        return broker

    async def _listen(self, config: LinkConfig) -> None:
        def make_dialin() -> DialIn:
            if config.protocol == "qgdw1376":
                return TerminalCall()
            return TextRegistration(config.register_prefix, self._names.get(config.name, set()))

        def attach(identity: Identity, caller: Caller) -> bool:
            if config.protocol == "qgdw1376":
                return self.terminals.attach(config, identity, caller)
            owner = self._owners.get(f"{config.name}/{identity.name}")
            if owner is None:
                return False
            be_patient(owner, caller)
            caller.adopt(owner)
            owner.attach(caller)
            return True

        server = DialInServer(config, self.guard, self._clock, make_dialin, attach)
        if config.protocol != "text":
            self._shared[config.name] = _Shared(line_policy(config), Quarantine(self._rng), server.counters)
        await server.start()
        self._servers[config.name] = server
