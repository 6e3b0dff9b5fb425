"""The business archive that fits a simulated fleet, as a master imports it (`fuhe archive import DIR/archive`).

Every device is one customer with a supply, a transformer and a contact; devices of one bus hang on one feeder. A few
customers without rounds are protected, have a security load, or two supplies, so that every kind occurs.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from ..model.archive import (
    ENTITIES,
    ConflictMember,
    Contact,
    Customer,
    Feeder,
    MeteringPoint,
    Protection,
    Record,
    SecurityLoad,
    Supply,
    Transformer,
    Version,
)
from ..model.times import BUSINESS_ZONE, day_start_us, from_us
from .scenario import DeviceSpec, points_of
from .simulation import Simulation
from .sites import PointSpec
from .terminal_specs import point_name

INDUSTRY: Final = {  # GB/T 4754 divisions of the load shapes
    "steel": "31", "cement": "30", "textile": "17", "machinery": "34", "chemical": "26", "commerce": "52",
    "cold_store": "59", "office": "72", "hospital": "84",
}  # fmt: skip
TRANSFORMERS: Final = (100, 160, 250, 315, 400, 500, 630, 800, 1000, 1250, 1600, 2000, 2500, 3150)
CONTRACT_SHARE: Final = Decimal("1.3")  # of the load that the site can draw, where the scenario names no contract


def archive(simulation: Simulation) -> list[Version]:
    """Versions in force from the first day of the year before the start."""
    today = from_us(simulation.start_us).astimezone(BUSINESS_ZONE).date()
    begin = day_start_us(date(today.year - 1, 1, 1))
    devices = sorted(simulation.scenario.devices, key=lambda d: d.name)
    buses = sorted({d.bus for d in devices})
    records: list[Record] = [
        Feeder(
            feeder=f"F{n:02d}", name=f"10 kV line {bus}", substation="East" if n % 2 else "West", busbar="I",
            pull_sequence=n,
        )
        for n, bus in enumerate(buses, 1)
    ]  # fmt: skip
    lines = {bus: f"F{n:02d}" for n, bus in enumerate(buses, 1)}
    quiet = 0
    for number, device in enumerate(devices, 1):
        cons_no = f"0531{number:08d}"
        terminal = device.name in simulation.terminals
        records += _customer(device, cons_no, lines[device.bus], today, terminal=terminal)
        if not any(p.site.rounds for p in points_of(device)):
            quiet += 1
            records += _special(quiet, cons_no, lines[device.bus], today)
    names = {e.struct: e for e in ENTITIES.values()}
    return [
        Version(
            entity=names[type(r)].name, key=names[type(r)].key_of(r), valid_from_us=begin, valid_to_us=None, record=r,
            changed_by="simulator", reason="simulated fleet",
        )
        for r in records
    ]  # fmt: skip


def _kva(device: DeviceSpec) -> int:
    """The transformer that carries the device's contract or, without one, its greatest load."""
    wanted = Decimal(0)
    for p in points_of(device):
        load = p.site.base_kw + sum(r.kw for r in p.site.rounds)
        wanted += Decimal(str(p.contract_kva)) if p.contract_kva else Decimal(str(load)) * CONTRACT_SHARE
    return next((t for t in TRANSFORMERS if t >= wanted), TRANSFORMERS[-1])


def _customer(device: DeviceSpec, cons_no: str, feeder: str, today: date, *, terminal: bool) -> list[Record]:
    kva, shape = _kva(device), points_of(device)[0].site.shape
    name = f"{shape} {device.name}"
    return [
        Customer(
            cons_no=cons_no, name=name, industry=INDUSTRY.get(shape, ""), supply_voltage="10",
            contract_kva=Decimal(kva), running_kva=Decimal(kva), tariff_class="industry",
            pf_standard="0.90" if kva > 160 else "0.85", basic_fee="capacity" if kva >= 315 else "none",
            supply_contract=f"GY-{cons_no}", ownership_boundary="first pole switch", site_checked=today,
        ),
        Transformer(transformer=f"T-{device.name}", feeder=feeder, customer=cons_no, rated_kva=Decimal(kva)),
        Supply(customer=cons_no, source_no="1", substation="", feeder=feeder, capacity_kva=Decimal(kva)),
        *(_point(device, p, cons_no, terminal=terminal) for p in points_of(device)),
        Contact(
            customer=cons_no, contact="duty room", role="duty", phones=(f"0531-8{cons_no[-6:]}",),
            verified=today - timedelta(days=30), receives=("N3", "N4", "N10"),
        ),
    ]  # fmt: skip


def _point(device: DeviceSpec, p: PointSpec, cons_no: str, *, terminal: bool) -> MeteringPoint:
    name = point_name(device.name, p) if terminal else device.point or device.name
    return MeteringPoint(
        point=name, customer=cons_no, source_no="1", transformer=f"T-{device.name}", wiring=p.wiring,
        ct_ratio=Decimal(str(p.ct_ratio)), pt_ratio=Decimal(str(p.pt_ratio)), un_sec_v=Decimal(str(p.nominal_v)),
        in_sec_a=Decimal(5), imax_sec_a=Decimal(6), monitor_class="D" if p.pt_ratio == 1 else "C",
    )  # fmt: skip


def _special(number: int, cons_no: str, feeder: str, today: date) -> list[Record]:
    """The first customer without rounds is protected; the second has a security load and two supplies."""
    expires = date(today.year + 1, 12, 31)
    if number == 1:
        return [Protection(customer=cons_no, basis="county list of protected customers", expires=expires)]
    if number == 2:
        return [
            SecurityLoad(
                customer=cons_no, kw=Decimal(20), agreement=f"BA-{cons_no}", signed=date(today.year - 1, 1, 1),
                expires=expires,
            ),
            Supply(customer=cons_no, source_no="2", feeder=feeder, role="standby", capacity_kva=Decimal(100)),
            *(ConflictMember(conflict_set=f"S-{cons_no}", customer=cons_no, source_no=n) for n in ("1", "2")),
        ]  # fmt: skip
    return []
