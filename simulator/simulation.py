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
from .scenario import BusSpec, DeviceSpec, Scenario, components_of, fault_faults, model_of
from .shapes import Weather, shapes
from .transports import Bus, DialBus, PtyBus, TcpBus
from .wire import Line

TICK_S = 0.2


class Simulation:
    """Everything of one scenario. meters, buses: by name; observer: frames on every wire."""

    def __init__(self, scenario: Scenario, clock: Clock | None = None, *, base: Path | None = None) -> None:
        self.scenario = scenario
        self.clock: Clock = clock or ScaledClock(scenario.clock.offset_s, scenario.clock.speed)
        self.start_us = self.clock.now_us()
        self.observer = Observer()
        self.meters: dict[str, SimMeter] = {}
        self.fault_sets: dict[str, FaultSet] = {}
        self.buses: dict[str, Bus] = {}
        self._specs = {d.name: d for d in scenario.devices}
        self._base = base or Path()
        self._brokers: list[Broker] = []
        self._ticker: asyncio.Task[None] | None = None
        names = [*self._specs, *(b.name for b in scenario.buses)]
        self.fault_sets = {name: FaultSet(name, scenario.seed) for name in names}
        for fault in scenario.faults:
            self._arm(fault)
        origin = self._origin_us()
        for device in scenario.devices:
            self.meters[device.name] = self._meter(device, origin)
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

    def _meter(self, device: DeviceSpec, origin_us: int) -> SimMeter:
        scenario, spec = self.scenario, device.site
        seed = spec.seed if spec.seed is not None else zlib.crc32(f"{scenario.seed}/{device.name}".encode())
        weather = scenario.weather
        site = Site(
            components=components_of(spec),
            shape=shapes()[spec.shape],
            seed=seed,
            origin_us=origin_us,
            weather=Weather(scenario.seed, weather.mean_c, weather.year_c, weather.day_c, weather.noise_c),
            rest_days=frozenset((d.toordinal() - 719_163) for d in scenario.rest_days),
            pickup=spec.pickup,
            pickup_s=spec.pickup_s,
        )
        model = model_of(device.profile)
        faults = self.fault_sets[device.name]
        relays = [
            Relay(
                component=i + 1,
                site=site,
                faults=faults,
                delay_s=device.relay.delay_s,
                human_s=device.relay.human_s,
            )
            for i in range(len(spec.rounds))
        ]
        return SimMeter(
            name=device.name,
            address=device.address.zfill(12) if model and model.protocol == "dlt645" else device.address,
            site=site,
            faults=faults,
            seed=seed,
            ct_ratio=device.ct_ratio,
            pt_ratio=device.pt_ratio,
            nominal_v=device.nominal_v,
            wiring=device.wiring,
            power_factor=spec.power_factor,
            initial_kwh=device.initial_kwh,
            retention_days=device.retention_days if device.retention_days is not None else scenario.past_days + 1.0,
            password=device.password,
            operator=device.operator,
            key=device.key,
            protected=device.relay.protected,
            relays=relays if model and model.relay else [],
        )

    def _bus(self, spec: BusSpec) -> Bus:
        here = [d for d in self.scenario.devices if d.bus == spec.name]
        faults = self.fault_sets[spec.name]
        if spec.kind == "mqtt":
            devices = [(self.meters[d.name], d.publish_s) for d in here]
            return MqttBus(spec.name, devices, self.clock, self.observer, faults, spec.host, spec.port, spec.topic)
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
        for bus in self.buses.values():
            bus.tick(now)

    # --- faults at run time -----------------------------------------------------------------------------------

    def _arm(self, fault: Fault, start_us: int | None = None) -> None:
        for name in fault.target:
            self.fault_sets[name].add(fault, self.start_us if start_us is None else start_us)

    def inject(self, fault: Fault) -> None:
        """Arm a fault now; its times count from now. UsageError names what is wrong with it."""
        wrong = list(fault_faults(fault, set(self._specs), {b.name for b in self.scenario.buses}))
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

    def true_power(self, name: str, at_us: int | None = None) -> float:
        """Primary kW of a device's site."""
        self.advance()
        at = self.clock.now_us() if at_us is None else at_us
        return float(self.meters[name].site.power(np.array([at]))[0])

    def truth(self) -> dict[str, dict[str, object]]:
        """For every device: power_kw, energy_kwh (primary, since the history began), rounds: kW and contact of each."""
        self.advance()
        now = np.array([self.clock.now_us()])
        out: dict[str, dict[str, object]] = {}
        for name, meter in self.meters.items():
            power = meter.site.power_by_component(now)[:, 0]
            out[name] = {
                "power_kw": round(float(power.sum()), 3),
                "energy_kwh": round(float(meter.site.energy(now).sum()), 3),
                "rounds": [
                    {
                        "kw": round(float(power[r.component]), 3),
                        "open": r.contact_open,
                        "commanded": r.commanded,
                        "permit": r.permit,
                    }
                    for r in meter.relays
                ],
            }
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
