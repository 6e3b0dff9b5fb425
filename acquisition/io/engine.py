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
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from ...model.devices import Credentials, Device
from ...model.lang import tr
from ...model.work import Exchange, LinkCounters, Outcome, Priority, Status, WorkItem
from ...protocols.common.errors import LinkError
from ..backoff import Backoff
from ..config import LinkConfig
from ..dialin import DialIn, Identity, TextRegistration
from ..link import Line, State, Station
from ..profile import Profile
from ..quarantine import Quarantine
from ..sessions import open_exchange
from .alarms import Alarms
from .clock import Clock
from .collector import Collector, Sink
from .gather import Gatherer
from .owner import Owner
from .pushes import Pushes
from .stations import LISTENERS, by_line, line_policy
from .transports.base import Guard, Listener, Transport
from .transports.dialin import Caller, DialInServer
from .transports.mqtt import MqttBroker
from .transports.serial import SerialTransport
from .transports.tcp import TcpTransport

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """What `fuhe status` and the metrics show of a line. `depth` by class in the order of `Priority`."""

    name: str
    kind: str
    up: bool
    reason: str
    devices: int
    depth: tuple[int, ...]
    oldest_age_s: float
    quarantined: int
    counters: LinkCounters


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """`reached_us`: last answer, UTC µs; `quarantined_us`: since when; `unserved`: why no line serves it."""

    device: int
    line: str
    reached_us: int | None = None
    quarantined_us: int | None = None
    silent: int = 0
    unserved: str = ""


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
    ) -> None:
        """`secrets` gives the value of a link's `secret` (the broker's password); `seed` fixes every jitter."""
        self.configs = {config.name: config for config in links}
        self._devices, self._profiles, self._credentials = tuple(devices), dict(profiles), credentials
        self._clock, self._on_outcome, self._secrets = clock, on_outcome, secrets
        self.guard = Guard(read_only)
        self.collector = Collector(sink, self._room)
        self._alarms = Alarms(clock)
        self._gatherer = Gatherer(gather_s)
        self._rng = random.Random(seed)
        self._owners: dict[str, Owner] = {}
        self._line_of: dict[int, str] = {}
        self._unserved: dict[int, str] = {}
        self._pending: dict[Hashable, asyncio.Future[Outcome]] = {}
        self._servers: dict[str, DialInServer] = {}
        self._brokers: dict[str, MqttBroker] = {}
        self._pushes: dict[str, Pushes] = {}
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
            self._profiles = dict(profiles)
        for link, pushes in self._pushes.items():
            pushes.set_devices(device for device in self._devices if device.link == link)
        lines, self._unserved = by_line(self._devices, self._profiles, self.configs)
        gone = [self._owners.pop(name) for name in list(self._owners) if name not in lines]
        self._line_of = {device: name for name, stations in lines.items() for device in stations}
        for name, stations in lines.items():
            owner = self._owners.get(name)
            if owner is None:
                owner = self._owners[name] = self._make_owner(name)
            owner.replace_stations(stations)
            owner.open()
        await asyncio.gather(*(owner.close() for owner in gone))
        return self._unserved

    def link_states(self) -> list[LinkState]:
        """Every line, and every listener as a line of its own."""
        now = self._clock.monotonic_s()
        states = [
            LinkState(
                name=name,
                kind=self.configs[name.partition("/")[0]].kind,
                up=owner.is_up,
                reason=owner.reason,
                devices=len(owner.line.stations),
                depth=owner.line.arbiter.depth_by_class,
                oldest_age_s=owner.line.arbiter.oldest_age_s(now),
                quarantined=len(owner.line.quarantine),
                counters=owner.line.counters,
            )
            for name, owner in self._owners.items()
        ]
        ends = [(n, s.counters, True, "", len(s.callers)) for n, s in self._servers.items()]
        ends += [(n, b.counters, b.connected, b.reason, len(b.channels)) for n, b in self._brokers.items()]
        for name, counters, up, reason, count in ends:
            states.append(
                LinkState(
                    name=name,
                    kind=self.configs[name].kind,
                    up=up,
                    reason=reason,
                    devices=count,
                    depth=(0,) * len(Priority),
                    oldest_age_s=0.0,
                    quarantined=0,
                    counters=counters,
                )
            )
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
        quarantine = owner.line.quarantine
        return DeviceState(
            device=device,
            line=name,
            reached_us=self._stamp(owner.line.stations[device].reached_s),
            quarantined_us=self._stamp(quarantine.since_s(device)),
            silent=quarantine.silent_count(device),
        )

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

    def _tell(self, item: WorkItem | None, outcome: Outcome) -> None:
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
        line = Line(name, line_policy(config), self._open_exchange, Quarantine(self._rng))
        backoff = Backoff(config.reconnect_min_s, config.reconnect_max_s, self._rng)
        return Owner(line, self, self._clock, self._alarms, backoff, self._opener(name, config))

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
        broker = MqttBroker(config, self.guard, self.collector, self._clock, pushes, on_up, heard, password)
        broker.start()
        return broker

    async def _listen(self, config: LinkConfig) -> None:
        def make_dialin() -> DialIn:
            return TextRegistration(config.register_prefix, self._names(config))

        def attach(identity: Identity, caller: Caller) -> bool:
            owner = self._owners.get(f"{config.name}/{identity.name}")
            if owner is None:
                return False
            caller.adopt(owner)
            owner.attach(caller)
            return True

        server = DialInServer(config, self.guard, self._clock, make_dialin, attach)
        await server.start()
        self._servers[config.name] = server

    def _names(self, config: LinkConfig) -> set[str]:
        start = config.name + "/"
        return {name.removeprefix(start) for name in self._owners if name.startswith(start)}
