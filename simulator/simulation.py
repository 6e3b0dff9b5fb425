"""A running scenario: meters, buses and faults put together; the truth about the load at any instant.

`Simulation(scenario)` builds everything without opening anything; `async with` opens the buses. Tests give it a
`StepClock`; `fuhe sim run` a `ScaledClock`.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ..model.lang import tr
from ..model.readings import F8, I8
from ..model.times import DAY_US, SLOT_15MIN_US, US, business_to_us
from ..protocols.common.errors import UsageError
from ..protocols.modbus.maps import load_map
from .broker import Broker
from .clock import Clock, ScaledClock, month_start
from .dlt645 import DltLine, DltSlave
from .faults import Fault, FaultSet
from .load import Site, day_of, day_start
from .meter import SimMeter
from .modbus import ModbusLine, ModbusSlave
from .mqtt import MqttBus
from .observer import Observer
from .relay import Relay
from .scenario import BusSpec, DeviceSpec, Scenario, fault_faults, fault_targets, model_of, points_of
from .shapes import Weather, shapes
from .sites import PointSpec, SiteSpec, components_of
from .station_bus import StationBus
from .terminal.assemble import assemble
from .terminal.device import Installation, build_terminal
from .terminal.factory import factory_parameters
from .terminal.station import Station, TerminalLine
from .terminal_specs import PROTOCOL as TERMINALS
from .terminal_specs import groups_of, meter_address, parse_address, point_name
from .transports import Bus, DialBus, PtyBus, TcpBus
from .wire import Line

TICK_S = 0.2
DIALS = frozenset({"dial", "udp"})


class Simulation:
    """Everything of one scenario. meters, buses, terminals: by name; observer: frames on every wire.

    meters holds the meters behind terminals too, under the names of their points.
    """

    def __init__(self, scenario: Scenario, clock: Clock | None = None, *, base: Path | None = None) -> None:
        self.scenario = scenario
        self.clock: Clock = clock or ScaledClock(scenario.clock.offset_s, scenario.clock.speed)
        self.start_us = self.clock.now_us()
        self.observer = Observer()
        self.meters: dict[str, SimMeter] = {}
        self.fault_sets: dict[str, FaultSet] = {}
        self.buses: dict[str, Bus] = {}
        self.terminals: dict[str, Station] = {}
        self._specs = {d.name: d for d in scenario.devices}
        self._base = base or Path()
        self._brokers: list[Broker] = []
        self._ticker: asyncio.Task[None] | None = None
        names = [*sorted(fault_targets(scenario)), *(b.name for b in scenario.buses)]
        self.fault_sets = {name: FaultSet(name, scenario.seed) for name in names}
        for fault in scenario.faults:
            self._arm(fault)
        origin = self._origin_us()
        for device in scenario.devices:
            model = model_of(device.profile)
            if model is not None and model.protocol == TERMINALS:
                self.terminals[device.name] = self._terminal(device, model.version, origin)
            else:
                self.meters[device.name] = self._meter(device, points_of(device)[0], device.name, origin)
        for bus in scenario.buses:
            self.buses[bus.name] = self._bus(bus)

    # --- building ---------------------------------------------------------------------------------------------

    def _origin_us(self) -> int:
        """Where registers begin: the month before last for meters with a past, so that two settlements exist."""
        first = day_start(day_of(self.start_us) - self.scenario.past_days)
        if self.scenario.past_days < 2:
            return first
        local = datetime(1970, 1, 1) + timedelta(days=day_of(first))  # noqa: DTZ001
        return business_to_us(month_start(local, 2))

    def _site(self, spec: SiteSpec, seed: int, origin_us: int) -> Site:
        scenario, weather = self.scenario, self.scenario.weather
        return Site(
            components=components_of(spec),
            shape=shapes()[spec.shape],
            seed=seed,
            origin_us=origin_us,
            weather=Weather(scenario.seed, weather.mean_c, weather.year_c, weather.day_c, weather.noise_c),
            rest_days=frozenset((d.toordinal() - 719_163) for d in scenario.rest_days),
            pickup=spec.pickup,
            pickup_s=spec.pickup_s,
        )

    def _meter(self, device: DeviceSpec, point: PointSpec, name: str, origin_us: int) -> SimMeter:
        scenario, spec = self.scenario, point.site
        seed = spec.seed if spec.seed is not None else zlib.crc32(f"{scenario.seed}/{name}".encode())
        site = self._site(spec, seed, origin_us)
        model = model_of(device.profile)
        terminal = model is not None and model.protocol == TERMINALS
        plain = device.address.zfill(12) if model and model.protocol == "dlt645" else device.address
        relays = self._relays(device, spec, site, self.fault_sets[name]) if model and model.relay else []
        return SimMeter(
            name=name,
            address=meter_address(device.address, point) if terminal else plain,
            site=site,
            faults=self.fault_sets[name],
            seed=seed,
            ct_ratio=point.ct_ratio,
            pt_ratio=point.pt_ratio,
            nominal_v=point.nominal_v,
            wiring=point.wiring,
            power_factor=spec.power_factor,
            initial_kwh=point.initial_kwh,
            retention_days=device.retention_days if device.retention_days is not None else scenario.past_days + 1.0,
            password="000000" if terminal else device.password,
            operator=device.operator,
            key=device.key,
            protected=device.relay.protected,
            relays=relays,
            abnormal=point.abnormal,
        )

    @staticmethod
    def _relays(device: DeviceSpec, spec: SiteSpec, site: Site, faults: FaultSet) -> list[Relay]:
        return [
            Relay(
                component=i + 1,
                site=site,
                faults=faults,
                delay_s=device.relay.delay_s,
                human_s=device.relay.human_s,
            )
            for i in range(len(spec.rounds))
        ]

    def _terminal(self, device: DeviceSpec, version: str, origin_us: int) -> Station:
        """A terminal with its meters, which are known to the simulation under the names of their points."""
        spec, points = device.terminal, points_of(device)
        faults = self.fault_sets[device.name]
        meters: dict[int, SimMeter] = {}
        relays: list[Relay] = []
        for point in points:
            name = point_name(device.name, point)
            meter = self._meter(device, point, name, origin_us)
            self.meters[name] = meters[point.pn] = meter
            relays += self._relays(device, point.site, meter.site, faults)
        versions = {p.pn: p.version for p in points}
        bus = next(b for b in self.scenario.buses if b.name == device.bus)
        factory = factory_parameters(
            version, meters, groups_of(spec, points), master=(bus.host, bus.port), heartbeat_min=spec.heartbeat_min,
            group_addresses=spec.group_addresses, versions=versions,
        )  # fmt: skip
        for one in spec.parameters:
            factory[one.fn, one.pn] = dict(one.data)
        terminal = build_terminal(
            device.name, version,
            Installation(meters=meters, relays=relays, factory=factory, since_us=origin_us), faults, spec.options,
        )  # fmt: skip
        if device.relay.protected:
            terminal.control.protect(0, self.start_us)
        terminal.control.heard(self.start_us)
        address = parse_address(device.address)
        assert address is not None  # the scenario was checked
        return assemble(
            terminal, address, auth=spec.provider(version, device.password, device.key), dials=bus.kind in DIALS,
            any_single=bus.kind == "pty", td_s=bus.td_s, heartbeat_s=spec.heartbeat_s, redial_s=spec.redial_s,
            versions=versions,
        )  # fmt: skip

    def _bus(self, spec: BusSpec) -> Bus:
        here = [d for d in self.scenario.devices if d.bus == spec.name]
        faults = self.fault_sets[spec.name]
        if spec.kind == "mqtt":
            devices = [(self.meters[d.name], d.publish_s) for d in here]
            version = "3.1.1" if spec.broker and spec.version == "auto" else spec.version  # our broker knows no other
            return MqttBus(
                spec.name, devices, self.clock, self.observer, faults, spec.host, spec.port, spec.topic, version
            )
        if spec.protocol == TERMINALS and spec.kind in ("dial", "udp"):
            stations = [self.terminals[d.name] for d in here]
            return StationBus(
                spec.name, stations, self.clock, self.observer, faults, spec.baud, host=spec.host, port=spec.port,
                udp=spec.kind == "udp",
            )  # fmt: skip
        line = self._line(spec, here)
        common = (spec.name, line, self.clock, self.observer, faults, spec.baud)
        if spec.kind == "pty":
            return PtyBus(*common, symlink=self._base / spec.symlink if spec.symlink else None)
        if spec.kind == "tcp":
            return TcpBus(*common, host=spec.host, port=spec.port)
        return DialBus(
            *common,
            host=spec.host,
            port=spec.port,
            registration=spec.registration.encode(),
            heartbeat=spec.heartbeat.encode(),
            heartbeat_s=spec.heartbeat_s,
        )

    def _line(self, spec: BusSpec, devices: list[DeviceSpec]) -> Line:
        if spec.protocol == TERMINALS:
            return TerminalLine([self.terminals[d.name] for d in devices], spontaneous=spec.kind == "tcp")
        if spec.protocol == "dlt645":
            return DltLine(
                [
                    DltSlave(
                        self.meters[d.name],
                        version=self._model_version(d),
                        td_s=spec.td_s,
                        block_records=d.block_records,
                    )
                    for d in devices
                ]
            )
        slaves = {}
        for d in devices:
            model = model_of(d.profile)
            assert model is not None  # the scenario was checked
            slaves[int(d.address)] = ModbusSlave(
                self.meters[d.name],
                load_map(model.map),
                int(d.address),
                td_s=spec.td_s,
                relay_coil=0 if model.relay else None,
            )
        return ModbusLine(slaves, "rtu" if spec.protocol == "modbus-rtu" else "tcp", gateway=spec.gateway)

    @staticmethod
    def _model_version(device: DeviceSpec) -> str:
        model = model_of(device.profile)
        return model.version if model else "2007"

    # --- running ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            for spec in self.scenario.buses:
                bus = self.buses[spec.name]
                if spec.broker and isinstance(bus, MqttBus):
                    broker = Broker(spec.host, spec.port)
                    self._brokers.append(broker)
                    await broker.start()
                    bus.port = broker.port
                await bus.start()
        except OSError as error:
            await self._close()
            raise UsageError(tr(f"cannot open a bus: {error}", f"无法打开总线: {error}")) from error
        self._ticker = asyncio.create_task(self._tick(), name="simulation")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ticker:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        await self._close()

    async def _close(self) -> None:
        for bus in self.buses.values():
            await bus.stop()
        for broker in self._brokers:
            await broker.stop()
        self._brokers.clear()

    async def _tick(self) -> None:
        while True:
            self.advance()
            await asyncio.sleep(TICK_S)

    def advance(self) -> None:
        """Carry out everything that is due now."""
        now = self.clock.now_us()
        for meter in self.meters.values():
            if meter.relays or meter.faults.rules:
                meter.advance(now)
        for station in self.terminals.values():
            station.application.terminal.advance(now)
        for bus in self.buses.values():
            bus.tick(now)

    # --- faults at run time -----------------------------------------------------------------------------------

    def _arm(self, fault: Fault, start_us: int | None = None) -> None:
        for name in fault.target:
            self.fault_sets[name].add(fault, self.start_us if start_us is None else start_us)

    def inject(self, fault: Fault) -> None:
        """Arm a fault now; its times count from now. UsageError names what is wrong with it."""
        wrong = list(fault_faults(fault, fault_targets(self.scenario), {b.name for b in self.scenario.buses}))
        if wrong:
            raise UsageError("; ".join(wrong))
        self._arm(fault, self.clock.now_us())
        self.advance()

    def clear(self, name: str, kind: str | None = None) -> int:
        """End the faults of a device or bus (of one kind); how many ended."""
        found = self.fault_sets.get(name)
        if found is None:
            raise UsageError(tr(f"no device or bus {name!r}", f"没有设备或总线 {name!r}"))
        return found.clear(kind, self.clock.now_us())

    # --- the truth --------------------------------------------------------------------------------------------

    def _meters_of(self, name: str) -> list[SimMeter]:
        """Meters of a device: its own, or those behind a terminal."""
        station = self.terminals.get(name)
        return list(station.application.terminal.meters.values()) if station is not None else [self.meters[name]]

    def relays_of(self, name: str) -> list[Relay]:
        """Relays of a device in the order of its rounds."""
        station = self.terminals.get(name)
        if station is None:
            return self.meters[name].relays
        return [r.relay for _, r in sorted(station.application.terminal.parts.rounds.items())]

    def true_power(self, name: str, at_us: int | None = None) -> float:
        """Primary kW of a device's site (of all points of a terminal)."""
        self.advance()
        at = np.array([self.clock.now_us() if at_us is None else at_us])
        return sum(float(meter.site.power(at)[0]) for meter in self._meters_of(name))

    def truth(self) -> dict[str, dict[str, object]]:
        """For every device: power_kw, energy_kwh (primary, since the history began), rounds: kW and contact of each.

        Terminals have a `terminal` entry too: connection, protection, outputs, event counters.
        """
        self.advance()
        now = np.array([self.clock.now_us()])
        out: dict[str, dict[str, object]] = {}
        for name in (*self.meters, *self.terminals):
            meters = self._meters_of(name)
            out[name] = {
                "power_kw": round(sum(float(m.site.power(now)[0]) for m in meters), 3),
                "energy_kwh": round(sum(float(m.site.energy(now).sum()) for m in meters), 3),
                "rounds": [
                    {
                        "kw": round(float(r.site.power_by_component(now)[r.component, 0]), 3),
                        "open": r.contact_open,
                        "commanded": r.commanded,
                        "permit": r.permit,
                    }
                    for r in self.relays_of(name)
                ],
            }
            if name in self.terminals:
                out[name]["terminal"] = self.terminals[name].state(int(now[0]))
        return out

    def past_slots(self) -> I8:
        """Labels (µs) of the quarter-hours of the past days: 00:15 of the first day … the last full quarter-hour."""
        first = day_start(day_of(self.start_us)) - self.scenario.past_days * DAY_US
        return np.arange(first + SLOT_15MIN_US, self.start_us + 1, SLOT_15MIN_US)

    def past_curves(self) -> Mapping[str, F8]:
        """Primary kW of every device at `past_slots` (the instant of the label, as load-record class 2 stores it)."""
        slots = self.past_slots()
        return {name: meter.site.power(slots) for name, meter in self.meters.items()}

    def endpoints(self) -> dict[str, str]:
        """Where every bus is reached."""
        return {name: bus.endpoint for name, bus in self.buses.items()}

    def spec(self, name: str) -> DeviceSpec:
        """The scenario's entry of a device."""
        return self._specs[name]

    @property
    def elapsed_s(self) -> float:
        """Simulated seconds since the start."""
        return (self.clock.now_us() - self.start_us) / US
