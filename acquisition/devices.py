"""The device list (设备清单) as a CSV file: parse with every fault named, write byte-stably, compare two lists.

UTF-8 with or without BOM, one row a metering point; rows of one device repeat its fields. Canonical form (what
`export_devices` writes): all columns in order, rows sorted by device name, point kind and number, LF line ends, plain
decimals, options sorted; import and export of a canonical file give the same bytes. Identifiers of the database are not
part of the list: devices come out with id 0, storage finds them again by name.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from ..model.devices import Device
from ..model.lang import tr
from .config import LinkConfig
from .device_rows import COLUMNS, DEVICE_COLUMNS, Fault, ParsedList, RowReader, point_order, wire_of
from .profile import Profile
from .relay import VIA

__all__ = [
    "COLUMNS", "Changes", "Fault", "ParsedList", "compare", "conflicts", "export_devices", "parse_devices",
]  # fmt: skip

REQUIRED: Final = ("name", "link", "profile", "address")
MAX_BYTES: Final = 64 << 20


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
    if len(data) > MAX_BYTES:
        reader.fault(1, "-", f"the file is larger than {MAX_BYTES >> 20} MB", f"文件超过 {MAX_BYTES >> 20} MB")
        return reader.finish()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        en = 'is not UTF-8: save the file as "CSV UTF-8"'
        reader.fault(row, "-", en, "不是 UTF-8 编码: 请另存为“CSV UTF-8”")
        return reader.finish()
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next(rows, [])]
        if not _header_ok(reader, header):
            return reader.finish()
        defaults = dict.fromkeys(COLUMNS, "")
        begin = rows.line_num + 1
        for cells in rows:
            if any(cell.strip() for cell in cells):
                if len(cells) == len(header):
                    reader.take(begin, defaults | {c: v.strip() for c, v in zip(header, cells, strict=True)})
                else:
                    en = f"{len(cells)} cells where the header has {len(header)}"
                    reader.fault(begin, "-", en, f"有 {len(cells)} 个单元格, 表头有 {len(header)} 个")
            begin = rows.line_num + 1
            if progress is not None:
                progress(begin - 1)
    except csv.Error as error:
        # after a broken quote the reader no longer knows where rows begin: what follows cannot be judged
        en = f"broken quoting ({error}); the rest of the file was not checked"
        reader.fault(rows.line_num, "-", en, f"引号有误 ({error}), 其后未检查")
    return reader.finish()


def _header_ok(reader: RowReader, header: Sequence[str]) -> bool:
    for column in sorted(set(header) - set(COLUMNS)):
        en = f"unknown column (known: {', '.join(COLUMNS)})"
        reader.fault(1, column or "-", en, f"未知列 (可用: {', '.join(COLUMNS)})")
    for column in sorted({c for c in header if header.count(c) > 1}):
        reader.fault(1, column or "-", "the column stands twice", "列重复")
    for column in REQUIRED:
        if column not in header:
            reader.fault(1, column, "the column is missing", "缺少此列")
    return not reader.faults


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
