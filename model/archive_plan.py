"""What rows of an archive file would do to the archive: merged with the versions there, every fault named. Pure.

A row is one version of one object. Given the stored versions of the same object, it is the same as one of them, ends
the open one, or adds one that joins without a gap: behind the last or in front of the first. Anything else would
overwrite what was so once, and is a fault.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from .archive import ENTITIES, SEPARATOR, GroupMember, Meter, MeteringPoint, Record, Version
from .archive_cells import record_faults, write_instant
from .lang import tr

Key = tuple[str, str]
FOREVER: Final = 2**62


class ArchiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a file: `sheet` and `line` say where it stands. valid_from_us None = from the import's date on."""

    sheet: str
    line: int
    entity: str
    record: Record
    valid_from_us: int | None = None
    valid_to_us: int | None = None
    reason: str = ""

    @property
    def key(self) -> Key:
        """(entity, key of the object)."""
        return self.entity, ENTITIES[self.entity].key_of(self.record)


_Say = Callable[[ArchiveRow, str, str, str], None]


class Fault(NamedTuple):
    """One fault of a file. line 0 = the sheet as a whole; column empty = the row as a whole."""

    sheet: str
    line: int
    column: str
    text: str

    def __str__(self) -> str:
        where = self.sheet
        if self.line:
            where += tr(f" row {self.line}", f" 第 {self.line} 行")
        return f"{where}{', ' + self.column if self.column else ''}: {self.text}"


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one object: versions before and after (ascending), and where in the file it came from."""

    entity: str
    key: str
    before: tuple[Version, ...]
    after: tuple[Version, ...]
    line: int
    sheet: str

    @property
    def kind(self) -> str:
        """new, changed or ended."""
        if not self.before:
            return "new"
        starts = {v.valid_from_us for v in self.before}
        return "changed" if any(v.valid_from_us not in starts for v in self.after) else "ended"

    @property
    def added(self) -> list[Version]:
        """Versions that were not there."""
        starts = {v.valid_from_us for v in self.before}
        return [v for v in self.after if v.valid_from_us not in starts]

    @property
    def ended(self) -> list[Version]:
        """Versions that were open and now end, with their end."""
        was = {v.valid_from_us: v.valid_to_us for v in self.before}
        return [v for v in self.after if was.get(v.valid_from_us, v.valid_to_us) != v.valid_to_us]

    @property
    def from_us(self) -> int:
        """The earliest instant at which something else is so than before."""
        at = [v.valid_from_us for v in self.added]
        at += [v.valid_to_us for v in self.ended if v.valid_to_us is not None]
        return min(at)


@dataclass(slots=True)
class Plan:
    """What a file would do. With faults it does nothing at all."""

    faults: list[Fault] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    same: int = 0
    notes: list[str] = field(default_factory=list)


class Known(NamedTuple):
    """What the archive refers to outside itself: names of the device list's points and devices."""

    points: Collection[str]
    devices: Collection[str]


def group_versions(versions: Iterable[Version]) -> dict[Key, list[Version]]:
    """Versions by object, ascending in time."""
    found: dict[Key, list[Version]] = defaultdict(list)
    for v in versions:
        found[v.entity, v.key].append(v)
    for rows in found.values():
        rows.sort(key=lambda v: v.valid_from_us)
    return dict(found)


def plan_changes(stored: Iterable[Version], rows: Sequence[ArchiveRow], from_us: int, known: Known | None) -> Plan:
    """Merge rows with what is stored; from_us: from when rows without a date are to be in force."""
    plan = Plan()
    state = group_versions(stored)
    listed: dict[Key, list[ArchiveRow]] = defaultdict(list)
    for row in rows:
        plan.faults += [Fault(row.sheet, row.line, c, t) for c, t in record_faults(ENTITIES[row.entity], row.record)]
        listed[row.key].append(row)
    after = dict(state)
    places: dict[Key, ArchiveRow] = {}
    for key, own in listed.items():
        before = state.get(key, [])
        merged = _merge(before, own, from_us, plan)
        places[key] = own[-1]
        if merged is None:
            continue
        after[key] = merged
        if merged == before:
            plan.same += 1
            continue
        plan.changes.append(Change(*key, tuple(before), tuple(merged), own[-1].line, own[-1].sheet))
    _check_references(after, listed, plan)
    _check_points(after, listed, known, plan)
    plan.faults.sort(key=lambda f: (f.sheet, f.line))
    return plan


def _merge(before: list[Version], rows: list[ArchiveRow], from_us: int, plan: Plan) -> list[Version] | None:
    """The versions of one object after its rows; None and faults where that cannot be."""
    dated: list[tuple[ArchiveRow, int]] = []
    for row in rows:
        at = row.valid_from_us
        if at is None:
            at = _undated(before, row, from_us)
        dated.append((row, at))
    dated.sort(key=lambda d: d[1])
    faults = len(plan.faults)

    def fault(row: ArchiveRow, column: str, en: str, zh: str) -> None:
        plan.faults.append(Fault(row.sheet, row.line, column, tr(en, zh)))

    found = list(before)
    for n, (row, at) in enumerate(dated):
        following = dated[n + 1][1] if n + 1 < len(dated) else None
        end = row.valid_to_us
        if following == at:
            fault(row, "valid_from", f"a second version from {write_instant(at)}", f"{write_instant(at)} 起有两个版本")
            continue
        if end is not None and end <= at:
            fault(row, "valid_to", "does not lie behind valid_from", "不在 valid_from 之后")
            continue
        _place(found, row, at, end, fault)
    return None if len(plan.faults) > faults else found


def _undated(before: list[Version], row: ArchiveRow, from_us: int) -> int:
    """From when a row without valid_from is meant: the version that says the same and is in force, else from_us."""
    for v in before:
        if v.in_force(from_us) and v.record == row.record:
            return v.valid_from_us
    return from_us


def _place(found: list[Version], row: ArchiveRow, at: int, end: int | None, fault: _Say) -> None:
    """Put one version into the versions of its object, ascending and without overlap or gap."""
    entity, key = row.key
    made = Version(
        entity=entity, key=key, valid_from_us=at, valid_to_us=end, record=row.record, reason=row.reason
    )  # fmt: skip
    same = next((n for n, v in enumerate(found) if v.valid_from_us == at), None)
    if same is not None:
        old = found[same]
        if old.record != row.record:
            names = ", ".join(changed_fields(old.record, row.record))
            fault(
                row, "", f"would overwrite the version from {write_instant(at)} ({names}): give the date of the change",
                f"将覆盖 {write_instant(at)} 起的版本 ({names}): 请给出变更日期",
            )  # fmt: skip
        elif end == old.valid_to_us or (end is None and same + 1 < len(found)):
            pass
        elif old.valid_to_us is None:
            found[same] = msgspec.structs.replace(old, valid_to_us=end)
        else:
            fault(
                row, "valid_to", f"the version has ended on {write_instant(old.valid_to_us)}: begin a new one then",
                f"该版本已于 {write_instant(old.valid_to_us)} 结束: 请自该日起新建",
            )  # fmt: skip
        return
    if not found:
        found.append(made)
        return
    first, last = found[0], found[-1]
    if at < first.valid_from_us:
        if end not in (None, first.valid_from_us):
            _gap_or_overlap(row, end or 0, first.valid_from_us, fault, front=True)
            return
        found.insert(0, msgspec.structs.replace(made, valid_to_us=first.valid_from_us))
    elif at > last.valid_from_us:
        if last.valid_to_us is None:
            found[-1] = msgspec.structs.replace(last, valid_to_us=at)
        elif last.valid_to_us != at:
            _gap_or_overlap(row, at, last.valid_to_us, fault, front=False)
            return
        found.append(made)
    else:
        inside = next(v for v in reversed(found) if v.valid_from_us < at)
        begin, stop = write_instant(inside.valid_from_us), write_instant(inside.valid_to_us)
        fault(
            row, "valid_from", f"lies inside the version from {begin} to {stop}: the past is not rewritten",
            f"落在 {begin} 至 {stop} 的版本之内: 历史不可改写",
        )  # fmt: skip


def _gap_or_overlap(row: ArchiveRow, at: int, other: int, fault: _Say, *, front: bool) -> None:
    gap = at < other if front else at > other
    what, zh = ("leaves a gap", "留有空档") if gap else ("overlaps", "重叠")
    column = "valid_to" if front else "valid_from"
    neighbour = tr("the version that begins on", "起始于") if front else tr("the version that ends on", "结束于")
    fault(
        row, column, f"{what}: {neighbour} {write_instant(other)}", f"{zh}: 相邻版本{neighbour} {write_instant(other)}"
    )


def changed_fields(old: Record, new: Record) -> list[str]:
    """Names of the fields in which two records of one entity differ."""
    return [n for n in old.__struct_fields__ if getattr(old, n) != getattr(new, n)]


def _where(listed: Mapping[Key, list[ArchiveRow]], v: Version) -> tuple[str, int]:
    """Where a version stands in the file; a stored one is named by its object."""
    rows = listed.get((v.entity, v.key), [])
    for row in rows:
        if row.valid_from_us in (None, v.valid_from_us):
            return row.sheet, row.line
    return (
        (rows[0].sheet, rows[0].line) if rows else (tr(f"{v.entity} {v.key} (stored)", f"{v.entity} {v.key} (已存)"), 0)
    )


def _check_references(state: Mapping[Key, list[Version]], listed: Mapping[Key, list[ArchiveRow]], plan: Plan) -> None:
    """Whatever an object refers to must exist for as long as the version says so."""
    spans = {key: (rows[0].valid_from_us, rows[-1].valid_to_us or FOREVER) for key, rows in state.items() if rows}
    for (entity, _), rows in state.items():
        for names, other in ENTITIES[entity].refs.items():
            for v in rows:
                parts = [str(getattr(v.record, n)) for n in names]
                if not all(parts):
                    continue
                wanted = SEPARATOR.join(parts)
                span = spans.get((other, wanted))
                sheet, line = _where(listed, v)
                if span is None:
                    text = tr(f"no {wanted!r} in {other}", f"{other} 中没有 {wanted!r}")
                elif v.valid_from_us < span[0]:
                    text = tr(
                        f"{other} {wanted} exists only from {write_instant(span[0])}",
                        f"{other} {wanted} 自 {write_instant(span[0])} 起才存在",
                    )
                elif (v.valid_from_us if ENTITIES[entity].moment else v.valid_to_us or FOREVER) > span[1]:
                    text = tr(
                        f"{other} {wanted} ends on {write_instant(span[1])}, before this does",
                        f"{other} {wanted} 于 {write_instant(span[1])} 先行结束",
                    )
                else:
                    continue
                plan.faults.append(Fault(sheet, line, names[-1], text))


def _check_points(
    state: Mapping[Key, list[Version]], listed: Mapping[Key, list[ArchiveRow]], known: Known | None, plan: Plan
) -> None:
    """One metering point for a device's point at a time, one meter at a metering point; names that devices have."""
    users: dict[tuple[str, str], list[Version]] = defaultdict(list)
    silent = 0
    for rows in state.values():
        for v in rows:
            record = v.record
            if isinstance(record, MeteringPoint):
                users["device_point", record.device_point_name].append(v)
                if known is not None and record.device_point_name not in known.points:
                    if record.device_point:
                        text = tr(f"no point {record.device_point!r} in the device list",
                                  f"设备表中没有计量点 {record.device_point!r}")  # fmt: skip
                        plan.faults.append(Fault(*_where(listed, v), "device_point", text))
                    elif v.valid_to_us is None:
                        silent += 1
            elif isinstance(record, Meter) and record.point:
                users["point", record.point].append(v)
            elif isinstance(record, GroupMember) and known is not None and record.device not in known.devices:
                text = tr(f"no device {record.device!r} in the device list", f"设备表中没有 {record.device!r}")
                plan.faults.append(Fault(*_where(listed, v), "device", text))
    if silent:
        plan.notes.append(
            tr(
                f"{silent} points are not in the device list (read by hand)",
                f"{silent} 个计量点不在设备表中 (人工抄表)",
            )
        )
    for (column, name), found in users.items():
        found.sort(key=lambda v: v.valid_from_us)
        last = found[0]
        for v in found[1:]:
            if v.valid_from_us < (last.valid_to_us or FOREVER) and v.key != last.key:
                text = tr(f"{name} belongs to {last.key} already", f"{name} 已属于 {last.key}")
                plan.faults.append(Fault(*_where(listed, v), column, text))
            if (v.valid_to_us or FOREVER) > (last.valid_to_us or FOREVER):
                last = v
