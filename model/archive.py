"""The business archive (业务档案, domain 2): what its entities are, as frozen structs. No database, no files, no clock.

Every attribute is effective-dated: a *version* of an object holds all its fields from `valid_from_us` until
`valid_to_us` (None = still in force). A change is a new version from a date, never an overwrite. Keys are texts
(户号 keeps its leading zeros); the key of an object with several key fields joins them with "/".

Devices and measuring points are not part of it: a metering point names a device's point (`device_point`), and where
the archive says nothing about a point its device's ratios are in force (storage/archive.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

SEPARATOR: Final = "/"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Least and largest legal value of a number (both inclusive) and its unit."""

    least: float
    most: float
    unit: str = ""


Kw = Annotated[Decimal, Bounds(0, 10_000_000, "kW")]
Kva = Annotated[Decimal, Bounds(0, 10_000_000, "kVA")]
Volt = Annotated[Decimal, Bounds(1, 1_000_000, "V")]
Ampere = Annotated[Decimal, Bounds(0.001, 100_000, "A")]
Ratio = Annotated[Decimal, Bounds(0.000001, 1_000_000)]
Register = Annotated[Decimal, Bounds(0, 1_000_000_000, "kWh, kvarh")]
SupplyVoltage = Literal["0.22", "0.38", "6", "10", "20", "35", "66", "110", "220", "330", "500"]
Importance = Literal["special", "first", "second", "temporary", "ordinary"]
PfStandard = Literal["0.90", "0.85", "0.80", "none"]
Role = Literal["billing", "check", "sub", "gateway", "self_generation"]
MonitorClass = Literal["", "A", "B", "C", "D"]
Wiring = Literal["3P4W", "3P3W", "1P"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What all entities share. Empty text = not known or none; None = not known."""


class Customer(Record, frozen=True, kw_only=True):
    """Customer 客户 (2.1). industry: GB/T 4754 code; control_class as 2.3; rest_day: 1 Monday … 7 Sunday, 厂休日."""

    cons_no: str
    name: str
    address: str = ""
    industry: str = ""
    supply_voltage: SupplyVoltage | None = None
    contract_kva: Kva | None = None
    running_kva: Kva | None = None
    tariff_class: str = ""
    tou_plan: str = ""
    pf_standard: PfStandard = "none"
    basic_fee: Literal["none", "capacity", "contract_demand", "actual_demand"] = "none"
    contract_demand_kw: Kw | None = None
    importance: Importance = "ordinary"
    high_risk: bool = False
    control_class: Literal["", "S", "N", "F"] = ""
    shifts: Annotated[int, Bounds(1, 4)] | None = None
    rest_day: tuple[str, ...] = ()
    process_notes: str = ""
    manager_in: str = ""
    manager_out: str = ""
    credit: str = ""
    supply_contract: str = ""
    dispatch_agreement: str = ""
    ownership_boundary: str = ""
    site_checked: date | None = None
    status: Literal["active", "suspended", "closed"] = "active"


class Feeder(Record, frozen=True, kw_only=True):
    """Feeder 线路. pull_sequence: place in the sequence of lines (拉路序位); ufls: on an under-frequency relay."""

    feeder: str
    name: str = ""
    substation: str
    busbar: str = ""
    voltage: SupplyVoltage = "10"
    rating_a: Ampere | None = None
    pull_sequence: Annotated[int, Bounds(1, 100_000)] | None = None
    ufls: bool = False


class District(Record, frozen=True, kw_only=True):
    """District 台区: the low-voltage area behind public transformers."""

    district: str
    name: str = ""
    feeder: str = ""


class Transformer(Record, frozen=True, kw_only=True):
    """Transformer 变压器: of a customer (专变) or of a district (公变). p0_kw, pk_kw: no-load and load loss (4.9)."""

    transformer: str
    feeder: str = ""
    customer: str = ""
    district: str = ""
    rated_kva: Kva
    p0_kw: Kw | None = None
    pk_kw: Kw | None = None
    indoor: bool = False
    status: Literal["running", "suspended"] = "running"


class Supply(Record, frozen=True, kw_only=True):
    """Supply 供电电源 of a customer. may_parallel: both sources may be closed at once."""

    customer: str
    source_no: str
    substation: str = ""
    busbar: str = ""
    feeder: str = ""
    role: Literal["main", "standby", "security"] = "main"
    capacity_kva: Kva | None = None
    switchover: Literal["manual", "auto"] = "manual"
    may_parallel: bool = False


class Generator(Record, frozen=True, kw_only=True):
    """Self-generation 自备电源 and its anti-backfeed interlock."""

    customer: str
    generator: str
    kind: str = ""
    kw: Kw | None = None
    interlock: Literal["none", "mechanical", "electrical", "both"] = "none"
    agreement: str = ""
    last_check: date | None = None
    grid_parallel: bool = False


class MeteringPoint(Record, frozen=True, kw_only=True):
    """Metering point 计量点. device_point: name of the device's point, empty = the same as `point`. Its ratios are the
    multiplier history; un_sec_v, in_sec_a, imax_sec_a: secondary values of the meter."""

    point: str
    device_point: str = ""
    customer: str = ""
    source_no: str = ""
    feeder: str = ""
    transformer: str = ""
    district: str = ""
    wiring: Wiring = "3P4W"
    direction: Literal["import", "export", "both"] = "import"
    role: Role = "billing"
    ct_ratio: Ratio = Decimal(1)
    pt_ratio: Ratio = Decimal(1)
    un_sec_v: Volt | None = None
    in_sec_a: Ampere | None = None
    imax_sec_a: Ampere | None = None
    voltage_band: Literal["", "hv35", "three_phase", "single_phase"] = ""
    monitor_class: MonitorClass = ""

    @property
    def factor(self) -> Decimal:
        """CT ratio × PT ratio (倍率 K)."""
        return self.ct_ratio * self.pt_ratio

    @property
    def device_point_name(self) -> str:
        """The name under which the device list has it."""
        return self.device_point or self.point


class Meter(Record, frozen=True, kw_only=True):
    """Meter 电能表: where it hangs from a date on (point empty = in stock). digits: whole and decimal places, "6.2"."""

    asset: str
    point: str = ""
    address: str = ""
    protocol: str = ""
    baud: Annotated[int, Bounds(300, 1_000_000)] | None = None
    digits: str = ""
    accuracy: str = ""
    tou_table: str = ""


class MeterReading(Record, frozen=True, kw_only=True):
    """Registers at the removal or installation of a meter, secondary side; its date is the version's valid_from."""

    asset: str
    kind: Literal["install", "remove"]
    number: str = "1"
    point: str
    forward_kwh: Register | None = None
    reverse_kwh: Register | None = None
    forward_kvarh: Register | None = None
    reverse_kvarh: Register | None = None


class GroupMember(Record, frozen=True, kw_only=True):
    """One member of a total-add group 总加组: the server recomputes the group from them."""

    device: str
    group: str
    point: str
    direction: Literal["forward", "reverse"] = "forward"
    sign: Literal["plus", "minus"] = "plus"


class Contact(Record, frozen=True, kw_only=True):
    """Contact 联系人. verified: day on which the numbers were last tried; receives: topics of 10.1 (N1 … N11)."""

    customer: str
    contact: str
    role: Literal["owner", "electrician", "duty", "other"] = "other"
    phones: tuple[str, ...] = ()
    language: Literal["zh", "en"] = "zh"
    verified: date | None = None
    receives: tuple[str, ...] = ()


class Subscription(Record, frozen=True, kw_only=True):
    """Subscription 信息订阅 (2.4). quiet: "22:00-07:00"; safety and control notices ignore it."""

    customer: str
    contact: str
    topic: Literal["N1", "N2", "N3", "N4", "N5", "N6", "N7", "N8", "N9", "N10", "N11"]
    channel: Literal["sms", "web", "phone", "email"]
    language: Literal["zh", "en"] = "zh"
    quiet: str = ""
    threshold: Decimal | None = None
    digest: bool = False


class Protection(Record, frozen=True, kw_only=True):
    """Protected status 保电用户 (8.5): never cut while the version is in force, also behind `expires`, which only asks
    people for a decision. list_no: which line of the protected list."""

    customer: str
    basis: str
    expires: date
    list_no: str = ""


class SecurityLoad(Record, frozen=True, kw_only=True):
    """Security load 保安负荷 (8.6): the agreed floor, primary kW. source_no empty = of the customer as a whole."""

    customer: str
    source_no: str = ""
    kw: Kw
    agreement: str
    signed: date
    expires: date


class ConflictMember(Record, frozen=True, kw_only=True):
    """One supply of a conflict set 双电源冲突组: its members are never cut in one step, nor one while another is."""

    conflict_set: str
    customer: str
    source_no: str
    note: str = ""


class ServiceRecord(Record, frozen=True, kw_only=True):
    """Service record 服务记录 (1.7.5); its day is the version's valid_from."""

    record: str
    customer: str
    kind: Literal[
        "production", "equipment", "survey", "construction", "metering", "visit", "advice", "complaint", "other"
    ]
    author: str
    text: str
    follow_up: str = ""
    satisfaction: Annotated[int, Bounds(1, 5)] | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its type without None, whether it may be None, what it is when left empty (`required`: nothing)."""

    name: str
    kind: Any
    optional: bool
    required: bool
    default: object
    bounds: Bounds | None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity: the file's name, the struct, key fields, and which fields name another entity's object.

    refs: fields (in the order of the other's key) -> entity; an empty one refers to nothing. moment: it tells of the
    instant valid_from, so that what it refers to may end before it does.
    """

    name: str
    zh: str
    struct: type[Record]
    key: tuple[str, ...]
    refs: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    moment: bool = False

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields in file order."""
        return _fields(self.struct)

    def key_of(self, record: Record) -> str:
        """The key text of a record."""
        return SEPARATOR.join(str(getattr(record, name)) for name in self.key)


_CUSTOMER: Final[dict[tuple[str, ...], str]] = {("customer",): "customers"}
_ALL: Final = (
    Entity("customers", "客户", Customer, ("cons_no",)),
    Entity("feeders", "线路", Feeder, ("feeder",)),
    Entity("districts", "台区", District, ("district",), {("feeder",): "feeders"}),
    Entity("transformers", "变压器", Transformer, ("transformer",),
           {("feeder",): "feeders", ("customer",): "customers", ("district",): "districts"}),
    Entity("supplies", "供电电源", Supply, ("customer", "source_no"), {**_CUSTOMER, ("feeder",): "feeders"}),
    Entity("generators", "自备电源", Generator, ("customer", "generator"), _CUSTOMER),
    Entity("points", "计量点", MeteringPoint, ("point",),
           {**_CUSTOMER, ("customer", "source_no"): "supplies", ("feeder",): "feeders",
            ("transformer",): "transformers", ("district",): "districts"}),
    Entity("meters", "电能表", Meter, ("asset",), {("point",): "points"}),
    Entity("meter_readings", "装拆示数", MeterReading, ("asset", "kind", "number"),
           {("asset",): "meters", ("point",): "points"}, moment=True),
    Entity("group_members", "总加组成员", GroupMember, ("device", "group", "point"), {("point",): "points"}),
    Entity("contacts", "联系人", Contact, ("customer", "contact"), _CUSTOMER),
    Entity("subscriptions", "信息订阅", Subscription, ("customer", "contact", "topic", "channel"),
           {**_CUSTOMER, ("customer", "contact"): "contacts"}),
    Entity("protections", "保电用户", Protection, ("customer",), _CUSTOMER),
    Entity("security_loads", "保安负荷", SecurityLoad, ("customer", "source_no"),
           {**_CUSTOMER, ("customer", "source_no"): "supplies"}),
    Entity("conflict_sets", "双电源冲突组", ConflictMember, ("conflict_set", "customer", "source_no"),
           {**_CUSTOMER, ("customer", "source_no"): "supplies"}),
    Entity("service_records", "服务记录", ServiceRecord, ("record",), _CUSTOMER, moment=True),
)  # fmt: skip
ENTITIES: Final[Mapping[str, Entity]] = {e.name: e for e in _ALL}


@cache
def _fields(struct: type[Record]) -> tuple[Field, ...]:
    hints = get_type_hints(struct, include_extras=True)
    found = []
    for f in msgspec.structs.fields(struct):
        parts = get_args(hints[f.name])
        optional = type(None) in parts
        kind = next(p for p in parts if p is not type(None)) if optional else hints[f.name]
        bounds = None
        if get_origin(kind) is Annotated:
            kind, bounds = get_args(kind)[:2]
        choices: tuple[str, ...] = ()
        if get_origin(kind) is Literal:
            kind, choices = str, get_args(kind)
        found.append(Field(f.name, kind, optional, f.required, None if f.required else f.default, bounds, choices))
    return tuple(found)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one object: in force from valid_from_us (inclusive) to valid_to_us (exclusive; None = still)."""

    entity: str
    key: str
    valid_from_us: int
    valid_to_us: int | None
    record: Record
    changed_by: str = ""
    reason: str = ""

    def in_force(self, time_us: int) -> bool:
        """Whether it says what is so at an instant."""
        return self.valid_from_us <= time_us and (self.valid_to_us is None or time_us < self.valid_to_us)


def record_values(record: Record) -> dict[str, object]:
    """A record as plain JSON values: decimals and days become texts, so that nothing is rounded."""
    values: dict[str, object] = msgspec.to_builtins(record)
    return values


def make_record(entity: str, values: Mapping[str, object]) -> Record:
    """The record of plain JSON values (`record_values`); fields that an older program did not know have defaults."""
    return msgspec.convert(values, ENTITIES[entity].struct)
