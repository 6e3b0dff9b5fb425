"""The device list (设备清单) as a CSV file: parse with every fault named, write byte-stably, compare two lists.

UTF-8 with or without BOM, one row a metering point; rows of one device repeat its fields. Canonical form (what
`export_devices` writes): all columns in order, rows sorted by device name, point kind and number, LF line ends, plain
decimals, options sorted; import and export of a canonical file give the same bytes. Identifiers of the database are not
part of the list: devices come out with id 0, storage finds them again by name.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from ..model.devices import Device
from ..model.lang import tr
from .config import LinkConfig
from .csvfile import read_csv
from .device_rows import COLUMNS, DEVICE_COLUMNS, Fault, ParsedList, RowReader, point_order, wire_of
from .profile import Profile
from .relay import VIA

__all__ = [
    "COLUMNS", "Changes", "Fault", "ParsedList", "compare", "conflicts", "export_devices", "parse_devices",
]  # fmt: skip

REQUIRED: Final = ("name", "link", "profile", "address")


@dataclass(frozen=True, slots=True)
class Changes:
    """What an import would do. `changed`: (name, fields that differ); point fields as `point[pn].field` or, for a kind
    other than measuring, `point[kind pn].field`."""

    added: tuple[str, ...]
    changed: tuple[tuple[str, tuple[str, ...]], ...]
    removed: tuple[str, ...]
    unchanged: int


def parse_devices(
    data: bytes,
    *,
    links: Mapping[str, LinkConfig],
    profiles: Mapping[str, Profile],
    progress: Callable[[int], None] | None = None,
) -> ParsedList:
    """The device list of a CSV file, or every fault in it. Never raises on any input; `progress` gets row numbers."""
    reader = RowReader(links, profiles)
    for row, cells in read_csv(data, reader, columns=COLUMNS, required=REQUIRED, progress=progress):
        reader.take(row, cells)
    return reader.finish()


def export_devices(devices: Iterable[Device]) -> bytes:
    """The canonical CSV of a device list (see the head of this module)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for device in sorted(devices, key=lambda d: d.name):
        options = ";".join(f"{k}={v}" for k, v in sorted(device.options.items()))
        for point in sorted(device.points, key=point_order):
            writer.writerow(
                (
                    device.name, device.link, device.profile, device.address, point.name, point.pn, point.kind,
                    plain(point.ct_ratio), plain(point.pt_ratio), plain(point.contract_kva), plain(point.nominal_v),
                    point.wiring, "yes" if device.enabled else "no", device.secret or "", options,
                )
            )  # fmt: skip
    return out.getvalue().encode("utf-8")


def plain(value: Decimal | None) -> str:
    """Decimal without exponent and without trailing zeros; None is empty."""
    return "" if value is None else f"{value.normalize():f}"


def compare(old: Iterable[Device], new: Iterable[Device]) -> Changes:
    """What turns `old` into `new`, devices and points matched by name and number, identifiers left aside."""
    before = {d.name: _fields(d) for d in old}
    after = {d.name: _fields(d) for d in new}
    both = [name for name in after if name in before]
    changed = []
    for name in both:
        keys = dict.fromkeys([*before[name], *after[name]])
        differ = tuple(k for k in keys if before[name].get(k) != after[name].get(k))
        if differ:
            changed.append((name, differ))
    return Changes(
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(changed)),
        removed=tuple(sorted(before.keys() - after.keys())),
        unchanged=len(both) - len(changed),
    )


def _fields(device: Device) -> dict[str, object]:
    fields: dict[str, object] = {c: getattr(device, c) for c in DEVICE_COLUMNS}
    for point in device.points:
        where = f"{point.pn}" if point.kind == "measuring" else f"{point.kind} {point.pn}"
        for name in ("name", "ct_ratio", "pt_ratio", "contract_kva", "nominal_v", "wiring"):
            fields[f"point[{where}].{name}"] = getattr(point, name)
    return fields


def conflicts(listed: Iterable[Device], kept: Iterable[Device], links: Mapping[str, LinkConfig]) -> list[str]:
    """Clashes of an imported list with devices that stay in service beside it: the same address on the same wire."""

    def wire(device: Device) -> tuple[str, str, str]:
        return device.link, wire_of(device.options, links.get(device.link)), device.address

    listed, kept = list(listed), list(kept)
    names = {device.name for device in listed}
    taken = {wire(d): d.name for d in kept if d.enabled and d.name not in names}
    carriers = {(d.link, d.name) for d in (*listed, *kept)}
    lost = [d for d in listed if VIA in d.options and (d.link, d.options[VIA]) not in carriers]
    faults = [
        tr(
            f"{d.name}: via={d.options[VIA]}: there is no such terminal on link {d.link}",
            f"{d.name}: via={d.options[VIA]}: 链路 {d.link} 上没有该终端",
        )
        for d in lost
    ]
    return faults + [
        tr(
            f"{d.name}: address {d.address} on link {d.link} belongs to {taken[wire(d)]}, which is not in the file",
            f"{d.name}: 链路 {d.link} 上的地址 {d.address} 属于文件之外的 {taken[wire(d)]}",
        )
        for d in listed
        if wire(d) in taken
    ]
