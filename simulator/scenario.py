"""SCENARIO.yaml: buses, devices with their sites, faults, clock and history. Read, checked whole, never half-used.

Every fault is named with its path (`devices[3].site.shape: …`). docs/simulator.md explains the fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
import yaml

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from ..protocols.modbus.maps import map_names
from ..protocols.mqtt.versions import Wanted
from .abnormal import AbnormalSpec, abnormal_faults
from .faults import AT_START, KINDS, Fault
from .sites import PointSpec, RelaySpec, RoundSpec, SiteSpec, components_of, site_faults
from .terminal_specs import PROTOCOL as TERMINALS
from .terminal_specs import TerminalSpec, parse_address, point_name, ratio_faults, terminal_faults

__all__ = [
    "BusSpec", "ClockSpec", "DeviceSpec", "Model", "PointSpec", "RelaySpec", "RoundSpec", "Scenario", "SiteSpec",
    "TerminalSpec", "builtin_scenarios", "components_of", "fault_faults", "load_scenario", "model_of", "parse_scenario",
    "points_of",
]  # fmt: skip

Protocol = Literal["dlt645", "modbus-tcp", "modbus-rtu", "mqtt", "qgdw1376"]


class ClockSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Simulated time = real time x speed + offset_s."""

    offset_s: float = 0.0
    speed: float = 1.0


class WeatherSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Outdoor temperature: see shapes.Weather."""

    mean_c: float = 17.0
    year_c: float = 11.0
    day_c: float = 4.5
    noise_c: float = 2.0


class BusSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line. kind: pty | tcp | dial | udp | mqtt; baud 0 = replies are not paced.

    mqtt: broker: run one inside (it knows MQTT 3.1.1 only); version: what the devices speak (auto, 3.1.1, 5).

    tcp listens. dial: a modem that connects and says `registration` and `heartbeat`; for terminals (qgdw1376) dial and
    udp mean that each of them connects for itself and logs in.
    """

    name: str
    kind: Literal["pty", "tcp", "dial", "udp", "mqtt"]
    protocol: Protocol
    baud: int = 0
    host: str = "127.0.0.1"
    port: int = 0
    symlink: str | None = None
    td_s: float = 0.02
    gateway: bool = False
    registration: str = ""
    heartbeat: str = ""
    heartbeat_s: float = 60.0
    topic: str = "fuhe/v1"
    version: Wanted = "auto"
    broker: bool = False


class DeviceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One device. profile: a name of MODELS or of a Modbus register map.

    A terminal has `points` with a meter and a site each, or one `site` (point 1); its rounds are numbered through them.
    """

    name: str
    bus: str
    profile: str
    address: str
    site: SiteSpec | None = None
    points: tuple[PointSpec, ...] = ()
    terminal: TerminalSpec = TerminalSpec()
    point: str = ""
    ct_ratio: float = 1.0
    pt_ratio: float = 1.0
    contract_kva: float | None = None
    nominal_v: float = 220.0
    wiring: Literal["3P4W", "3P3W", "1P"] = "3P4W"
    password: str = "000000"
    operator: str = "00000000"
    key: str = ""
    relay: RelaySpec = RelaySpec()
    initial_kwh: float | None = None
    retention_days: float | None = None
    block_records: bool = False
    publish_s: float = 60.0
    enabled: bool = True
    abnormal: tuple[AbnormalSpec, ...] = ()
    options: dict[str, str] = {}


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole script. past_days: how many days of curves lie behind the start."""

    name: str
    buses: tuple[BusSpec, ...]
    devices: tuple[DeviceSpec, ...]
    seed: int = 1
    past_days: int = 7
    clock: ClockSpec = ClockSpec()
    weather: WeatherSpec = WeatherSpec()
    rest_days: tuple[date, ...] = ()
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """What stands behind a profile name: its protocol, edition, register map and whether it has relays."""

    protocol: Literal["dlt645", "modbus", "mqtt", "qgdw1376"]
    version: str = "2007"
    map: str = ""
    relay: bool = False


MODELS: Final[dict[str, Model]] = {
    "dlt645-2007-3p4w": Model("dlt645"),
    "dlt645-2007-3p3w": Model("dlt645"),
    "dlt645-2007-1p": Model("dlt645"),
    "dlt645-2007-relay": Model("dlt645", relay=True),
    "dlt645-1997-3p": Model("dlt645", version="1997"),
    "modbus-relay": Model("modbus", map="eastron-sdm630", relay=True),
    "mqtt-v1": Model("mqtt", relay=True),
    "qgdw1376-2013": Model(TERMINALS, version="2013"),
    "qgdw1376-2009": Model(TERMINALS, version="2009"),
    "qgdw1376-2005": Model(TERMINALS, version="2005"),
}
MAX_UNIT: Final = 255


def model_of(profile: str) -> Model | None:
    """The model of a profile name; every Modbus register map is a profile too."""
    found = MODELS.get(profile)
    if found is None and profile in map_names():
        return Model("modbus", map=profile)
    return found


def points_of(device: DeviceSpec) -> tuple[PointSpec, ...]:
    """Metering points of a device; a plain device has one, under its own name."""
    if device.points:
        return device.points
    assert device.site is not None  # the scenario was checked
    model = model_of(device.profile)
    point = PointSpec(
        pn=1, site=device.site, name="" if model and model.protocol == TERMINALS else device.name,
        ct_ratio=device.ct_ratio, pt_ratio=device.pt_ratio, contract_kva=device.contract_kva,
        nominal_v=device.nominal_v, wiring=device.wiring, initial_kwh=device.initial_kwh,
        abnormal=device.abnormal,
    )  # fmt: skip
    return (point,)


def load_scenario(path: Path) -> Scenario:
    """Read and check; UsageError lists every fault with its path."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(tr(f"cannot read scenario {path}: {error}", f"无法读取场景 {path}: {error}")) from error
    return parse_scenario(tree, str(path))


def parse_scenario(tree: object, where: str = "scenario") -> Scenario:
    """A scenario from plain data; UsageError lists every fault with its path."""
    faults = list(_shape_faults(tree, Scenario, ""))
    if not faults:
        scenario = msgspec.convert(tree, Scenario)
        faults = list(_meaning_faults(scenario))
        if not faults:
            return scenario
    lines = "\n  ".join(faults)
    raise UsageError(tr(f"{where} has faults:\n  {lines}", f"{where} 有误:\n  {lines}"))


def builtin_scenarios() -> dict[str, Path]:
    """The ready-made scenarios by name."""
    folder = Path(__file__).with_name("scenarios")
    return {p.stem: p for p in sorted(folder.glob("*.yaml"))}


# --- faults -----------------------------------------------------------------------------------------------------------


def _shape_faults(value: object, kind: Any, path: str) -> Iterator[str]:
    """Faults of types, unknown and missing fields, all of them (msgspec alone stops at the first)."""
    if value is not None and type(None) in get_args(kind):
        kind = next(k for k in get_args(kind) if k is not type(None))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if not isinstance(value, dict):
            yield f"{path or 'scenario'}: " + tr("must be a mapping of fields", "应为字段映射")
            return
        hints = get_type_hints(kind)
        info = {f.name: f for f in msgspec.structs.fields(kind)}
        for name in value:
            if name not in info:
                yield f"{_join(path, str(name))}: " + tr("no such field", "没有这个字段")
        for name, field in info.items():
            if name in value:
                yield from _shape_faults(value[name], hints[name], _join(path, name))
            elif field.required:
                yield f"{_join(path, name)}: " + tr("is missing", "缺少")
        return
    item = get_args(kind)[0] if get_origin(kind) is tuple else None
    if item is not None and isinstance(item, type) and issubclass(item, msgspec.Struct):
        if not isinstance(value, list):
            yield f"{path}: " + tr("must be a list", "应为列表")
            return
        for i, element in enumerate(value):
            yield from _shape_faults(element, item, f"{path}[{i}]")
        return
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        yield f"{path}: {error}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _meaning_faults(scenario: Scenario) -> Iterator[str]:
    if not 0 <= scenario.past_days <= 400:
        yield "past_days: " + tr("must be 0 to 400", "应为 0 至 400")
    if not scenario.clock.speed > 0:
        yield "clock.speed: " + tr("must be above 0", "应大于 0")
    buses = {b.name: b for b in scenario.buses}
    for i, bus in enumerate(scenario.buses):
        yield from (f"buses[{i}].{text}" for text in _bus_faults(bus, [b.name for b in scenario.buses]))
    names = [d.name for d in scenario.devices]
    points = Counter(point_name(d.name, p) for d in scenario.devices if _is_terminal(d) for p in points_of(d))
    for name in sorted({n for n, count in points.items() if count > 1} | (points.keys() & {*names, *buses})):
        yield "devices: " + tr(f"the name {name!r} of a point stands twice", f"测量点名称 {name!r} 重复")
    taken: dict[tuple[str, str], str] = {}
    for i, device in enumerate(scenario.devices):
        for text in _device_faults(device, buses, names):
            yield f"devices[{i}].{text}"
        other = taken.setdefault((device.bus, device.address.zfill(12)), device.name)
        if other != device.name:
            yield f"devices[{i}].address: " + tr(f"is already that of {other}", f"已被 {other} 使用")
    for i, fault in enumerate(scenario.faults):
        for text in fault_faults(fault, fault_targets(scenario), set(buses)):
            yield f"faults[{i}].{text}"


def _bus_faults(bus: BusSpec, names: list[str]) -> Iterator[str]:
    if names.count(bus.name) > 1:
        yield "name: " + tr(f"{bus.name!r} stands twice", f"{bus.name!r} 重复")
    if (bus.kind == "mqtt") != (bus.protocol == "mqtt"):
        yield "protocol: " + tr("mqtt goes with kind mqtt and only with it", "mqtt 协议只能用于 mqtt 总线")
    if not 0 <= bus.port <= 65535:
        yield "port: " + tr("must be 0 to 65535", "应为 0 至 65535")
    if bus.kind == "udp" and bus.protocol != TERMINALS:
        yield "kind: " + tr("udp is for terminals (qgdw1376)", "udp 仅用于终端 (qgdw1376)")
    if bus.kind in ("dial", "udp", "mqtt") and not bus.port and not bus.broker:
        yield "port: " + tr("where to connect must be given", "应给出连接端口")
    if bus.symlink and bus.kind != "pty":
        yield "symlink: " + tr("is for kind pty", "仅用于 pty")
    if bus.baud < 0 or not 0 <= bus.td_s <= 5:
        yield "baud, td_s: " + tr("baud is 0 or more, td_s 0 to 5", "baud 应不小于 0, td_s 应为 0 至 5")


def _device_faults(device: DeviceSpec, buses: dict[str, BusSpec], names: list[str]) -> Iterator[str]:
    if names.count(device.name) > 1 or device.name in buses:
        yield "name: " + tr(f"{device.name!r} stands twice", f"{device.name!r} 重复")
    model, bus = model_of(device.profile), buses.get(device.bus)
    if model is None:
        known = ", ".join([*MODELS, *map_names()])
        yield "profile: " + tr(f"unknown; there are {known}", f"未知; 现有 {known}")
    if bus is None:
        yield "bus: " + tr(f"no bus {device.bus!r}", f"没有总线 {device.bus!r}")
    if model and bus:
        if bus.protocol.split("-")[0] != model.protocol:
            yield "bus: " + tr(f"{bus.name} speaks {bus.protocol}", f"{bus.name} 使用 {bus.protocol}")
        if not _address_ok(device.address, model.protocol):
            yield "address: " + tr("not an address of this protocol", "不是该规约的地址")
    if (device.site is None) == (not device.points):
        yield "site: " + tr("give a site (a terminal: or points)", "应给出 site (终端也可给出 points)")
        return
    yield from abnormal_faults(device.abnormal)
    for j, point in enumerate(device.points):
        yield from (f"points[{j}].{text}" for text in abnormal_faults(point.abnormal))
    if model and model.protocol == TERMINALS:
        yield from terminal_faults(device.terminal, points_of(device), model.version, device.password, device.key)
        return
    if device.site is None:
        yield "points: " + tr("only a terminal has several points", "仅终端可有多个测量点")
        return
    if len(device.password) != 6 or not device.password.isdecimal():
        yield "password: " + tr("six digits", "应为六位数字")
    if model and model.protocol == "dlt645":
        yield from ratio_faults(points_of(device)[0])
    elif device.ct_ratio <= 0 or device.pt_ratio <= 0:
        yield "ct_ratio, pt_ratio: " + tr("must be above 0", "应大于 0")
    yield from (f"site.{text}" for text in site_faults(device.site))


def _address_ok(address: str, protocol: str) -> bool:
    if protocol == TERMINALS:
        return parse_address(address) is not None
    if protocol == "modbus":
        return address.isdecimal() and 0 <= int(address) <= MAX_UNIT
    if protocol == "dlt645":
        return address.isdecimal() and len(address) <= 12 and address.zfill(12) != "9" * 12
    return bool(address) and not set(address) & set("/+# ")


def _is_terminal(device: DeviceSpec) -> bool:
    model = model_of(device.profile)
    return model is not None and model.protocol == TERMINALS and (device.site is not None or bool(device.points))


def fault_targets(scenario: Scenario) -> set[str]:
    """Names that device faults may have as target: devices, and the meters behind terminals."""
    out = {d.name for d in scenario.devices}
    for device in scenario.devices:
        if _is_terminal(device):
            out |= {point_name(device.name, p) for p in points_of(device)}
    return out


def fault_faults(fault: Fault, devices: set[str], buses: set[str]) -> Iterator[str]:
    """What is wrong with one line of the fault script."""
    kind = KINDS.get(fault.kind)
    if kind is None:
        yield "kind: " + tr(f"unknown; there are {', '.join(KINDS)}", f"未知; 现有 {', '.join(KINDS)}")
        return
    wanted = buses if kind.group == "bus" else devices
    for name in fault.target:
        if name not in wanted:
            what = tr("bus", "总线") if kind.group == "bus" else tr("device", "设备")
            yield "target: " + tr(f"no {what} {name!r}", f"没有{what} {name!r}")
    if not fault.target:
        yield "target: " + tr("names nobody", "未指明对象")
    if not 0 < fault.probability <= 1:
        yield "probability: " + tr("must be above 0 and at most 1", "应大于 0 且不超过 1")
    if fault.end_s is not None and fault.end_s <= fault.start_s:
        yield "end_s: " + tr("must be after start_s", "应晚于 start_s")
    if fault.count is not None and fault.count < 1:
        yield "count: " + tr("must be 1 or more", "应不小于 1")
    if kind.value is None and fault.value is not None:
        yield "value: " + tr(f"{fault.kind} takes none", f"{fault.kind} 不需要")
    if fault.kind in AT_START and fault.probability < 1:
        yield "probability: " + tr(f"{fault.kind} acts once, at its start", f"{fault.kind} 只在开始时发生一次")
