"""Generates scenarios of any size for load tests (`fuhe sim fleet`): plain data, the same for the same arguments."""

from __future__ import annotations

import random
from typing import Any, Literal

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .shapes import shapes

Kind = Literal["dlt645", "modbus-tcp", "modbus-rtu", "mqtt"]
MAX_DEVICES = 100_000
MAX_UNITS = 247


def fleet(
    count: int, kind: Kind, *, per_bus: int = 30, seed: int = 1, past_days: int = 1, port: int = 1883, pty: bool = False
) -> dict[str, Any]:
    """A scenario tree with `count` devices, `per_bus` on each line; port: the broker's. UsageError on nonsense."""
    if not 1 <= count <= MAX_DEVICES or not 1 <= per_bus <= (MAX_UNITS if kind.startswith("modbus") else MAX_DEVICES):
        raise UsageError(
            tr(
                f"count must be 1 to {MAX_DEVICES} and per-bus at least 1 (Modbus: at most {MAX_UNITS})",
                f"数量应为 1 至 {MAX_DEVICES}, 每条总线至少 1 台 (Modbus 至多 {MAX_UNITS} 台)",
            )
        )
    generator = random.Random(seed)
    names = [n for n in shapes() if n != "flat"]
    profile = {"dlt645": "dlt645-2007-3p4w", "mqtt": "mqtt-v1"}.get(kind, "eastron-sdm630")
    devices: list[dict[str, Any]] = []
    buses: list[dict[str, Any]] = []
    for i in range(count):
        bus = f"line-{i // per_bus + 1:05d}" if kind != "mqtt" else "broker"
        if not buses or buses[-1]["name"] != bus:
            transport = "mqtt" if kind == "mqtt" else "pty" if pty else "tcp"
            buses.append({"name": bus, "kind": transport, "protocol": kind})
            if kind == "mqtt":
                buses[-1]["port"] = port
        kw = round(generator.uniform(40, 900), 0)
        address = {"dlt645": f"{i + 1:012d}", "mqtt": f"sim-{i + 1:06d}"}.get(kind, str(i % per_bus + 1))
        devices.append(
            {
                "name": f"meter-{i + 1:06d}",
                "bus": bus,
                "profile": profile,
                "address": address,
                "ct_ratio": float(max(round(kw / 60) * 5, 5)) if kind == "dlt645" else 1.0,
                "contract_kva": kw * 1.4,
                "site": {"shape": generator.choice(names), "base_kw": round(kw * 0.2, 1), "rounds": [{"kw": kw}]},
            }
        )
    return {"name": f"fleet-{kind}-{count}", "seed": seed, "past_days": past_days, "buses": buses, "devices": devices}
