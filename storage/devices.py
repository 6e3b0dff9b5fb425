"""Devices and points in the database: the list the daemon loads, and applying an imported list in one transaction.

Devices and points are known by name. Nothing is ever deleted (readings refer to it); what disappears from a list is
disabled only when the caller says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ..model.devices import Device, Point
from ..model.lang import tr
from ..protocols.common.errors import UsageError

Connection = psycopg.Connection[Any]
_DEVICE = ("name", "link", "profile", "address", "secret", "options", "enabled")
_POINT = ("name", "pn", "ct_ratio", "pt_ratio", "contract_kva", "nominal_v", "wiring", "kind")


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply_devices` did, by device name; `devices`: the list as it stands now, with the database's ids."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    same: tuple[str, ...]
    disabled: tuple[str, ...]
    devices: tuple[Device, ...]


def load_devices(connection: Connection, *, enabled_only: bool = False) -> list[Device]:
    """Every device with its points in service, ordered by id."""
    with connection.cursor(row_factory=dict_row) as cursor:
        points: dict[int, list[Point]] = {}
        for row in cursor.execute(
            "SELECT * FROM point WHERE enabled"
            " ORDER BY device_id, array_position(ARRAY['measuring', 'group', 'dc'], kind), pn, id"
        ):
            owner = row.pop("device_id")
            del row["enabled"]
            points.setdefault(owner, []).append(Point(**row))
        condition = "WHERE enabled" if enabled_only else ""
        columns = ", ".join(("id", *_DEVICE))
        rows = cursor.execute(f"SELECT {columns} FROM device {condition} ORDER BY id".encode()).fetchall()
    return [Device(**row, points=tuple(points.get(row["id"], ()))) for row in rows]


def apply_devices(connection: Connection, devices: Sequence[Device], *, disable_missing: bool = False) -> Applied:
    """Add and change devices by name, in one transaction; UsageError names every fault and nothing is changed.

    A device or point that exists keeps its id; a new one gets the id it brings, or the next free one where that is 0 or
    taken. Points that a listed device no longer has are put out of service.
    """
    faults = _faults(devices)
    if faults:
        raise UsageError(tr("the device list has faults:\n  ", "设备表有误:\n  ") + "\n  ".join(faults))
    with connection.transaction():
        connection.execute("LOCK TABLE device, point IN SHARE ROW EXCLUSIVE MODE")
        before = {d.name: d for d in load_devices(connection)}
        book = _Book(connection)
        added: list[str] = []
        changed: list[str] = []
        same: list[str] = []
        for device in devices:
            old = before.get(device.name)
            if old is not None and _content(old) == _content(device):
                same.append(device.name)
                continue
            (added if old is None else changed).append(device.name)
            book.put(device)
        disabled: list[str] = []
        if disable_missing:
            listed = {d.name for d in devices}
            disabled = sorted(d.name for d in before.values() if d.enabled and d.name not in listed)
            connection.execute("UPDATE device SET enabled = false WHERE name = ANY(%s)", (disabled,))
        for table in ("device", "point"):
            connection.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"
                f" WHERE EXISTS (SELECT FROM {table})".encode()
            )
        after = tuple(load_devices(connection))
    if not connection.autocommit:
        connection.commit()
    return Applied(tuple(added), tuple(changed), tuple(same), tuple(disabled), after)


def _content(device: Device) -> object:
    """What a device says apart from ids."""
    return msgspec.structs.replace(
        device,
        id=0,
        points=tuple(sorted((msgspec.structs.replace(p, id=0) for p in device.points), key=lambda p: p.name)),
    )


def _faults(devices: Sequence[Device]) -> list[str]:
    faults = []
    names: dict[str, str] = {}
    points: dict[str, str] = {}
    for row, device in enumerate(devices, 1):
        where = tr(f"device {row} ({device.name})", f"第 {row} 个设备（{device.name}）")
        if device.name in names:
            faults.append(tr(f"{where}: the name stands twice", f"{where}: 名称重复"))
        names[device.name] = where
        numbers = [(p.kind, p.pn) for p in device.points]
        if len(set(numbers)) < len(numbers):
            faults.append(tr(f"{where}: a point number (kind, pn) stands twice", f"{where}: 测量点号 pn 重复"))
        for point in device.points:
            if point.name in points:
                faults.append(
                    tr(
                        f"{where}: point {point.name} also belongs to {points[point.name]}",
                        f"{where}: 计量点 {point.name} 已属于 {points[point.name]}",
                    )
                )
            points[point.name] = where
    return faults


class _Book:
    """Writes devices and points by name, giving ids."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ids: dict[str, dict[str, int]] = {}
        self._used: dict[str, set[int]] = {}
        self._next: dict[str, int] = {}
        for table in ("device", "point"):
            rows = connection.execute(f"SELECT name, id FROM {table}".encode()).fetchall()
            self._ids[table] = dict(rows)
            self._used[table] = {i for _, i in rows}
            self._next[table] = max(self._used[table], default=0) + 1

    def _id(self, table: str, name: str, wished: int) -> int:
        if name in self._ids[table]:
            return self._ids[table][name]
        given = wished if wished > 0 and wished not in self._used[table] else self._next[table]
        self._used[table].add(given)
        self._next[table] = max(self._next[table], given + 1)
        self._ids[table][name] = given
        return given

    def put(self, device: Device) -> None:
        """Insert or change a device and its points."""
        number = self._id("device", device.name, device.id)
        values = [Jsonb(device.options) if f == "options" else getattr(device, f) for f in _DEVICE]
        self._upsert("device", ("id", *_DEVICE), [number, *values])
        kept = []
        for point in device.points:
            kept.append(self._id("point", point.name, point.id))
            self._upsert(
                "point",
                ("id", "device_id", "enabled", *_POINT),
                [kept[-1], number, True, *(getattr(point, f) for f in _POINT)],
            )
        self._connection.execute(
            "UPDATE point SET enabled = false WHERE device_id = %s AND enabled AND id <> ALL(%s)", (number, kept)
        )

    def _upsert(self, table: str, columns: Sequence[str], values: Sequence[object]) -> None:
        changes = ", ".join(f"{c} = excluded.{c}" for c in columns if c != "id")
        self._connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})"
            f" ON CONFLICT (id) DO UPDATE SET {changes}".encode(),
            values,
        )
