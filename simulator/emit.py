"""`fuhe sim run --emit DIR`: what a master station needs to know about the simulated fleet, and the truth to check it.

devices.csv, links.yaml, secrets.yaml (0600), rounds.csv, truth.json, and archive/ (what `fuhe archive import` takes).
Written whole, each by rename.
"""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import timedelta
from pathlib import Path

import yaml

from ..model.archive_csv import csv_texts
from ..model.times import BUSINESS_ZONE, from_us
from .archive import archive
from .light_fleet import LightFleet
from .mqtt import MqttBus
from .scenario import BusSpec, DeviceSpec, points_of
from .simulation import Simulation
from .sites import PointSpec, SiteSpec
from .terminal_specs import PROTOCOL as TERMINALS
from .terminal_specs import groups_of, point_name
from .transports import Bus, TcpBus

DEVICE_COLUMNS = (
    "name", "link", "profile", "address", "point", "pn", "kind", "ct_ratio", "pt_ratio", "contract_kva", "nominal_v",
    "wiring", "enabled", "secret", "options",
)  # fmt: skip
_NO_SITE = SiteSpec(shape="flat", base_kw=0)
UNPACED_BAUD = 115_200  # what a master may reckon with where the simulator does not pace
ROUND_COLUMNS = ("device", "round", "description", "importance", "typical_kw", "last_test", "manual_reclose", "contact")


def emit(simulation: Simulation, directory: Path) -> list[Path]:
    """Write the files of a started simulation; their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        "devices.csv": devices_csv(simulation),
        "links.yaml": _yaml({"links": [_link(simulation, b) for b in simulation.scenario.buses]}),
        "secrets.yaml": _yaml(secrets(simulation)),
        "rounds.csv": rounds_csv(simulation),
        "truth.json": json.dumps(truth(simulation), ensure_ascii=False) + "\n",
    }
    files |= {f"archive/{name}": text for name, text in csv_texts(archive(simulation)).items()}
    (directory / "archive").mkdir(exist_ok=True)
    written = []
    for name, text in files.items():
        path = directory / name
        part = path.with_name(path.name + ".part")
        mode = 0o600 if name == "secrets.yaml" else 0o644
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as out:
            out.write(text)
        part.replace(path)
        written.append(path)
    return [p for p in written if p.parent == directory] + [directory / "archive"]


def _yaml(tree: object) -> str:
    return yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")


def _csv(columns: tuple[str, ...], rows: list[dict[str, str]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _has_secret(device: DeviceSpec) -> bool:
    return bool(device.key) or device.password != "000000" or device.operator != "00000000"


def devices_csv(simulation: Simulation) -> str:
    """The device list, one row a metering point, sorted by name; terminals have rows for their groups too.

    Every device is marked `simulated=1` (a production master refuses to control it) and `since` the first whole day
    that it has in memory, so that nothing older is missed.
    """
    marks = {"simulated": "1"}
    if simulation.scenario.past_days:
        marks["since"] = str(
            from_us(simulation.start_us).astimezone(BUSINESS_ZONE).date()
            - timedelta(days=simulation.scenario.past_days)
        )
    rows = []
    for device in sorted(simulation.scenario.devices, key=lambda d: d.name):
        common = {
            "name": device.name,
            "link": device.bus,
            "profile": device.profile,
            "enabled": "yes" if device.enabled else "no",
            "secret": device.name if _has_secret(device) else "",
            "options": ";".join(f"{k}={v}" for k, v in sorted({**marks, **device.options}.items())),
        }
        terminal = device.name in simulation.terminals
        common["address"] = device.address if terminal else simulation.meters[device.name].address
        points = points_of(device)
        for point in points:
            name = point_name(device.name, point) if terminal else device.point or device.name
            rows.append(common | _point_row(name, point))
        if terminal:
            rows += [common | _group_row(device.name, group) for group in sorted(groups_of(device.terminal, points))]
    return _csv(DEVICE_COLUMNS, rows)


def _point_row(name: str, point: PointSpec) -> dict[str, str]:
    return {
        "point": name,
        "pn": str(point.pn),
        "kind": "measuring",
        "ct_ratio": _number(point.ct_ratio),
        "pt_ratio": _number(point.pt_ratio),
        "contract_kva": _number(point.contract_kva),
        "nominal_v": _number(point.nominal_v),
        "wiring": point.wiring,
    }


def _group_row(device: str, group: int) -> dict[str, str]:
    """A total-add group: its values are primary already."""
    return {
        "point": f"{device}-group-{group}", "pn": str(group), "kind": "group", "ct_ratio": "1", "pt_ratio": "1",
        "contract_kva": "", "nominal_v": "", "wiring": "3P4W",
    }  # fmt: skip


def fleet_csv(fleet: LightFleet, link: str, profile: str, since: str) -> str:
    """The device list of a fleet of light terminals."""
    rows: list[dict[str, str]] = []
    for terminal, address in fleet.members():
        common = {
            "name": f"terminal-{terminal.number:06d}", "link": link, "profile": profile,
            "address": f"{address.a1}-{address.a2}", "enabled": "yes", "secret": "",
            "options": f"simulated=1;since={since}",
        }  # fmt: skip
        for pn in range(1, fleet.world.points + 1):
            point = PointSpec(pn=pn, site=_NO_SITE, ct_ratio=fleet.world.meter(address.a2, pn).ct_ratio)
            rows.append(common | _point_row(f"terminal-{terminal.number:06d}-{pn}", point))
    return _csv(DEVICE_COLUMNS, rows)


def emit_fleet(fleet: LightFleet, profile: str, directory: Path) -> list[Path]:
    """devices.csv and links.yaml (a listener on the port that the fleet dials) for a master; their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    world = fleet.world
    oldest = world.clock.now_us() - world.template.options.curve_days * 86_400_000_000
    since = str(from_us(oldest).astimezone(BUSINESS_ZONE).date() + timedelta(days=1))
    link = {
        "name": "fleet", "kind": "listen-udp" if fleet.udp else "listen-tcp", "host": fleet.host,
        "port_no": fleet.port, "protocol": TERMINALS,
    }  # fmt: skip
    files = {"devices.csv": fleet_csv(fleet, "fleet", profile, since), "links.yaml": _yaml({"links": [link]})}
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / name for name in files]


def secrets(simulation: Simulation) -> dict[str, dict[str, str]]:
    """Secrets file: name -> password, operator, key."""
    return {
        d.name: {"password": d.password, "operator": d.operator, "key": d.key}
        for d in simulation.scenario.devices
        if _has_secret(d)
    }


def _link(simulation: Simulation, spec: BusSpec) -> dict[str, object]:
    """One entry of `links:`. A pseudo-terminal has no parity: 8N1."""
    bus = simulation.buses[spec.name]
    if spec.kind == "pty":
        return {
            "name": spec.name, "kind": "serial", "port": bus.endpoint, "baud": spec.baud or UNPACED_BAUD, "parity": "N",
            "bytesize": 8, "stopbits": 1, "framing": "rtu", "turnaround_ms": 25.0 if spec.baud else 2.0,
        }  # fmt: skip
    if isinstance(bus, MqttBus):
        known = {} if bus.version == "auto" else {"version": bus.version}  # saves the master the attempt
        return {"name": spec.name, "kind": "mqtt", "host": bus.host, "port_no": bus.port, "topic": spec.topic, **known}
    if spec.protocol == TERMINALS:
        return _terminal_link(bus, spec)
    kind = "tcp" if isinstance(bus, TcpBus) else "listen-tcp"
    port = bus.port if isinstance(bus, TcpBus) else spec.port
    framing = "rtu" if spec.protocol == "modbus-rtu" else "tcp"
    return {
        "name": spec.name, "kind": kind, "host": spec.host, "port_no": port, "framing": framing,
        "turnaround_ms": 25.0 if spec.baud else 2.0,
    }  # fmt: skip


def _terminal_link(bus: Bus, spec: BusSpec) -> dict[str, object]:
    """Terminals that listen on a socket, or a listener for those that dial in."""
    if isinstance(bus, TcpBus):
        return {"name": spec.name, "kind": "tcp", "host": spec.host, "port_no": bus.port, "turnaround_ms": 2.0}
    kind = "listen-udp" if spec.kind == "udp" else "listen-tcp"
    return {
        "name": spec.name, "kind": kind, "host": spec.host, "port_no": spec.port, "protocol": TERMINALS,
        "turnaround_ms": 2.0,
    }  # fmt: skip


def rounds_csv(simulation: Simulation) -> str:
    """Rounds with their relays; a round without a stated test was tested 30 days before the start."""
    default = (from_us(simulation.start_us - 30 * 86_400_000_000)).astimezone(BUSINESS_ZONE).date()
    rows = []
    for device in sorted(simulation.scenario.devices, key=lambda d: d.name):
        parts = [(p.site.shape, r) for p in points_of(device) for r in p.site.rounds]
        drives = device.profile.startswith("modbus") or device.terminal.drives_closing
        for number, (shape, part) in enumerate(parts[: len(simulation.relays_of(device.name))], 1):
            rows.append(
                {
                    "device": device.name,
                    "round": str(number),
                    "description": part.description or f"{shape} round {number}",
                    "importance": str(part.importance),
                    "typical_kw": _number(part.kw),
                    "last_test": (part.last_test or default).isoformat(),
                    # a bare coil closes at once; meters and most terminals wait for a person at the button
                    "manual_reclose": "no" if drives else "yes",
                    # a terminal has the auxiliary contact of round n at state input n
                    "contact": str(number) if device.name in simulation.terminals else "",
                }
            )
    return _csv(ROUND_COLUMNS, rows)


def truth(simulation: Simulation) -> dict[str, object]:
    """{"first", "step_s", "count", "power_kw": {device: [kW at each label]}, …}; labels of the past quarter-hours.

    bypassed: those whose meter does not see all that flows.
    """
    slots = simulation.past_slots()
    first = from_us(int(slots[0])).astimezone(BUSINESS_ZONE).isoformat() if len(slots) else None
    return {
        "scenario": simulation.scenario.name,
        "started": from_us(simulation.start_us).astimezone(BUSINESS_ZONE).isoformat(),
        "unit": "kW primary, at the instant of the label",
        "first": first,
        "step_s": 900,
        "count": len(slots),
        "bypassed": [name for name, meter in simulation.meters.items() if not meter.metering.honest],
        "power_kw": {name: [round(float(v), 4) for v in row] for name, row in simulation.past_curves().items()},
    }
