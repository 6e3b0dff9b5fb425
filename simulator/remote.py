"""Control of a running simulation by other processes: one JSON object a line on a loopback socket, one answer a line.

    {"op":"truth"}                                     true kW and relay states of every device
    {"op":"total"}                                     {"power_kw": …} of all devices
    {"op":"fault","kind":"silent","target":["m1"], …}      arm a fault (fields of the scenario, times from now)
    {"op":"clear","name":"m1","kind":"silent"}         end faults of a device or bus (kind optional)
    {"op":"press","device":"m1","round":1}             the person at the meter presses the button
    {"op":"backlog","device":"m1"}                     MQTT: publish the whole memory again (device optional: all)
    {"op":"frames","wire":"line-a","last":50}          frames seen (wire, device, last optional)
    {"op":"endpoints"}  {"op":"clock"}

Answers: {"ok":true, …} or {"ok":false,"error":"…"}. For benches: no authentication, so it only binds to loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec

from ..model.lang import tr
from ..protocols.common.errors import FuheError, UsageError
from .faults import Fault
from .mqtt import MqttBus
from .simulation import Simulation

MAX_LINE = 65_536
FRAMES_AT_ONCE = 2_000


class Remote:
    """The server. port 0 = any free one."""

    def __init__(self, simulation: Simulation, port: int = 0) -> None:
        self._simulation = simulation
        self.port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._ops: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "truth": self._truth,
            "total": self._total,
            "fault": self._fault,
            "clear": self._clear,
            "press": self._press,
            "backlog": self._backlog,
            "frames": self._frames,
            "endpoints": lambda _: {"endpoints": self._simulation.endpoints()},
            "clock": lambda _: {"now_us": self._simulation.clock.now_us(), "start_us": self._simulation.start_us},
        }

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of everything that can be asked."""
        return tuple(self._ops)

    async def start(self) -> None:
        """Listen on 127.0.0.1."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=MAX_LINE)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close it and every connection."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        for writer in list(self._writers):
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                if line.strip():
                    writer.write(msgspec.json.encode(self.answer(line)) + b"\n")
                    await writer.drain()
        except (ConnectionError, ValueError, asyncio.LimitOverrunError):
            pass  # the other side is gone, or sent a line without end
        finally:
            self._writers.discard(writer)
            writer.close()

    def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to one line; never raises."""
        try:
            request = msgspec.json.decode(line)
            if not isinstance(request, dict) or request.get("op") not in self._ops:
                raise UsageError(tr(f"op is one of {', '.join(self._ops)}", f"op 应为 {', '.join(self._ops)} 之一"))
            return {"ok": True, **self._ops[str(request.pop("op"))](request)}
        except (FuheError, msgspec.DecodeError) as error:
            return {"ok": False, "error": str(error)}

    def _truth(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"time_us": self._simulation.clock.now_us(), "devices": self._simulation.truth()}

    def _total(self, request: dict[str, Any]) -> dict[str, Any]:
        names = self._simulation.meters
        return {
            "power_kw": round(sum(self._simulation.true_power(n) for n in names), 3),
            "devices": len(self._simulation.scenario.devices),
        }

    def _fault(self, request: dict[str, Any]) -> dict[str, Any]:
        self._simulation.inject(msgspec.convert(request, Fault))
        return {}

    def _clear(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"ended": self._simulation.clear(str(request.get("name", "")), request.get("kind"))}

    def _press(self, request: dict[str, Any]) -> dict[str, Any]:
        name, number = str(request.get("device")), request.get("round", 1)
        known = name in self._simulation.meters or name in self._simulation.terminals
        relays = self._simulation.relays_of(name) if known else []
        if not isinstance(number, int) or not 1 <= number <= len(relays):
            raise UsageError(tr("no such device or round", "没有该设备或轮次"))
        return {"closed": relays[number - 1].press_button(self._simulation.clock.now_us())}

    def _backlog(self, request: dict[str, Any]) -> dict[str, Any]:
        wanted = request.get("device")
        count = 0
        for bus in self._simulation.buses.values():
            for name, device in bus.devices.items() if isinstance(bus, MqttBus) else ():
                if wanted in (None, name):
                    device.forget_published()
                    count += 1
        return {"devices": count}

    def _frames(self, request: dict[str, Any]) -> dict[str, Any]:
        found = list(self._simulation.observer.frames(request.get("wire"), request.get("device")))
        last = request.get("last", FRAMES_AT_ONCE)
        keep = min(last if isinstance(last, int) and last > 0 else FRAMES_AT_ONCE, FRAMES_AT_ONCE)
        rows = [
            {"time_us": f.time_us, "wire": f.wire, "direction": f.direction, "device": f.device, "hex": f.data.hex()}
            for f in islice(found, max(len(found) - keep, 0), None)
        ]
        return {"frames": rows}
