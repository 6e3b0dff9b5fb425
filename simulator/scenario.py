"""SCENARIO.yaml: buses, devices with their sites, faults, clock and history. Read, checked whole, never half-used.

Every fault is named with its path (`devices[3].site.shape: …`). docs/simulator.md explains the fields.
"""

from __future__ import annotations

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
from .faults import AT_START, KINDS, Fault
from .load import Component
from .shapes import shapes

Protocol = Literal["dlt645", "modbus-tcp", "modbus-rtu", "mqtt"]


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
    """One line. kind: pty | tcp | dial | mqtt; baud 0 = replies are not paced; broker: run one inside (mqtt)."""

    name: str
    kind: Literal["pty", "tcp", "dial", "mqtt"]
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
    broker: bool = False


class RoundSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One round: kW at full load behind one relay. importance: 1 goes first. last_test: date of the last live test."""

    kw: float
    description: str = ""
    importance: int = 5
    last_test: date | None = None


class SiteSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The load. base_kw: flat, never behind a relay; pickup: factor just after closing, falling to 1 in pickup_s."""

    shape: str
    base_kw: float
    rounds: tuple[RoundSpec, ...] = ()
    power_factor: float | None = None
    pickup: float = 1.25
    pickup_s: float = 600.0
    seed: int | None = None


class RelaySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """delay_s: command to movement; human_s: permit-to-close until the button is pressed, null = never."""

    delay_s: float = 0.5
    human_s: float | None = 15.0
    protected: bool = False


class DeviceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One device. profile: a name of MODELS or of a Modbus register map."""

    name: str
    bus: str
    profile: str
    address: str
    site: SiteSpec
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

    protocol: Literal["dlt645", "modbus", "mqtt"]
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
}
SECONDARY_KW_LIMIT: Final = 79.0  # XX.XXXX with a sign bit
MAX_UNIT: Final = 255


def model_of(profile: str) -> Model | None:
    """The model of a profile name; every Modbus register map is a profile too."""
    found = MODELS.get(profile)
    if found is None and profile in map_names():
        return Model("modbus", map=profile)
    return found


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
    taken: dict[tuple[str, str], str] = {}
    for i, device in enumerate(scenario.devices):
        for text in _device_faults(device, buses, names):
            yield f"devices[{i}].{text}"
        other = taken.setdefault((device.bus, device.address.zfill(12)), device.name)
        if other != device.name:
            yield f"devices[{i}].address: " + tr(f"is already that of {other}", f"已被 {other} 使用")
    for i, fault in enumerate(scenario.faults):
        for text in fault_faults(fault, set(names), set(buses)):
            yield f"faults[{i}].{text}"


def _bus_faults(bus: BusSpec, names: list[str]) -> Iterator[str]:
    if names.count(bus.name) > 1:
        yield "name: " + tr(f"{bus.name!r} stands twice", f"{bus.name!r} 重复")
    if (bus.kind == "mqtt") != (bus.protocol == "mqtt"):
        yield "protocol: " + tr("mqtt goes with kind mqtt and only with it", "mqtt 协议只能用于 mqtt 总线")
    if not 0 <= bus.port <= 65535:
        yield "port: " + tr("must be 0 to 65535", "应为 0 至 65535")
    if bus.kind in ("dial", "mqtt") and not bus.port and not bus.broker:
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
    if len(device.password) != 6 or not device.password.isdecimal():
        yield "password: " + tr("six digits", "应为六位数字")
    if device.ct_ratio <= 0 or device.pt_ratio <= 0:
        yield "ct_ratio, pt_ratio: " + tr("must be above 0", "应大于 0")
    elif model and model.protocol == "dlt645":
        peak = (device.site.base_kw + sum(r.kw for r in device.site.rounds)) * 1.3
        if peak / (device.ct_ratio * device.pt_ratio) > SECONDARY_KW_LIMIT:
            yield "ct_ratio: " + tr(
                f"{peak:.0f} kW do not fit the display of a meter with these ratios (79 kW secondary)",
                f"{peak:.0f} kW 超出该变比下电能表的量程 (二次侧 79 kW)",
            )
    yield from (f"site.{text}" for text in _site_faults(device.site))


def _address_ok(address: str, protocol: str) -> bool:
    if protocol == "modbus":
        return address.isdecimal() and 0 <= int(address) <= MAX_UNIT
    if protocol == "dlt645":
        return address.isdecimal() and len(address) <= 12 and address.zfill(12) != "9" * 12
    return bool(address) and not set(address) & set("/+# ")


def _site_faults(site: SiteSpec) -> Iterator[str]:
    if site.shape not in shapes():
        yield "shape: " + tr(f"unknown; there are {', '.join(shapes())}", f"未知; 现有 {', '.join(shapes())}")
    if site.base_kw < 0 or any(r.kw <= 0 for r in site.rounds):
        yield "base_kw, rounds: " + tr("kW must be positive", "千瓦数应为正")
    if len(site.rounds) > 8:
        yield "rounds: " + tr("at most 8", "至多 8 个")
    if site.power_factor is not None and not 0.1 <= site.power_factor <= 1:
        yield "power_factor: " + tr("must be 0.1 to 1", "应为 0.1 至 1")
    if not 1.0 <= site.pickup <= 5 or site.pickup_s < 0:
        yield "pickup: " + tr("must be 1 to 5, pickup_s 0 or more", "应为 1 至 5, pickup_s 不小于 0")


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


def components_of(site: SiteSpec) -> tuple[Component, ...]:
    """Base first, then the rounds."""
    return (Component(kw=site.base_kw, flat=True), *(Component(kw=r.kw) for r in site.rounds))
