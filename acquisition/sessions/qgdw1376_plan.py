"""What a work item asks of a terminal: items and points to data units, data units to requests its buffer can answer.

An item is "AFN:Fn" as in a profile ("0C:F25"), with ":P3" for one point number only. Which points a class is asked for
follows from the table's pn letters: M measuring points, G total-sum groups, D DC ports of the device list, R the rounds
of the profile's control section, 0 the terminal itself. Parameters that are lists (devices, ports, groups: AFN 0A F10,
F14, F33 ...) are asked for by number: "0A:F33=2,31"; without numbers those of the device list, or 1 to 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from ...model.devices import Device, PointKind
from ...model.lang import tr
from ...model.quantities import by_name
from ...protocols.common.errors import UsageError
from ...protocols.qgdw1376.curves import SCALE_BYTES, curve_classes
from ...protocols.qgdw1376.formats import make_format
from ...protocols.qgdw1376.layout import Bits, Events, Field, Group, Layout, Nested, Node, When
from ...protocols.qgdw1376.table import Row, lookup
from ...protocols.qgdw1376.units import Unit
from ..profile import Profile, TerminalPlan

QUERY: Final = 0x0A
TARIFFS: Final = 4  # fitted beside the total, for the expected length of an answer
IDENTIFIER: Final = 4
HEAD: Final = 30  # C, A, AFN, SEQ, PW or EC, Tp: what a frame holds beside identifiers and data
UNKNOWN: Final = 64
_ITEM: Final = re.compile(r"([0-9A-F]{2}):F([0-9]{1,4})(?::P([0-9]{1,4}))?(?:=([0-9]{1,4}(?:,[0-9]{1,4}){0,63}))?")
_FEW: Final = tuple(range(1, 9))  # groups and ports that a terminal may have
_POINT: Final = re.compile(r"([MGD])([0-9]{1,4})")
KINDS: Final[Mapping[str, PointKind]] = {"M": "measuring", "G": "group", "D": "dc"}
"""pn letters of the table that stand for points of the device list."""


class Item(NamedTuple):
    """A class of data of an AFN, of all its points or of one; numbers: entries of a list that are asked for."""

    afn: int
    fn: int
    pn: int | None = None
    numbers: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """As in a profile."""
        numbers = "=" + ",".join(map(str, self.numbers)) if self.numbers else ""
        return f"{self.afn:02X}:F{self.fn}" + ("" if self.pn is None else f":P{self.pn}") + numbers


class Want(NamedTuple):
    """One data unit to ask for. data: what its request carries; size: bytes of the answer, identifier included.

    wire: the whole unit of the request with its identifier, where somebody has made it already.
    """

    item: Item
    pn: int
    data: dict[str, object]
    size: int
    wire: bytes = b""

    @property
    def key(self) -> tuple[int, int]:
        """(pn, Fn)."""
        return self.pn, self.item.fn

    @property
    def text(self) -> str:
        """For people: the item, and the point where there is one."""
        return Item(self.item.afn, self.item.fn, self.pn or None).text

    @property
    def unit(self) -> Unit:
        """As the codec wants it."""
        return Unit(self.pn, self.item.fn, self.data)


@lru_cache(maxsize=4096)
def parse_item(text: str) -> Item | None:
    """An item's text; None when it is none."""
    found = _ITEM.fullmatch(text.strip().upper())
    if found is None:
        return None
    numbers = tuple(sorted({int(n) for n in found[4].split(",")})) if found[4] else ()
    return Item(int(found[1], 16), int(found[2]), int(found[3]) if found[3] else None, numbers)


def expanded(texts: Sequence[str], plan: Sequence[str], edition: str) -> tuple[str, ...]:
    """Items with "M3" (G1, D1: everything that the profile reads of one point) replaced by the plan's items for it."""
    found: list[str] = []
    for text in texts:
        point = _POINT.fullmatch(text.strip().upper())
        if point is None:
            found.append(text)
            continue
        for one in plan:
            row, item = row_of(one, edition), parse_item(one)
            if row is not None and item is not None and point[1] in row.pn and item.pn is None:
                found.append(item._replace(pn=int(point[2])).text)
    return tuple(found)


def row_of(text: str, edition: str) -> Row | None:
    """The table's row of an item's text."""
    item = parse_item(text)
    return lookup(item.afn, item.fn, edition) if item is not None else None


def quantity_of(row: Row) -> str | None:
    """The first quantity that a class is stored as; None when it is not."""
    names = (f.quantity for v in row.fields.variants for f in _fields(v.nodes))
    return next((n for n in names if n in by_name() and by_name()[n].kind != "time"), None)


def _fields(nodes: Sequence[Node]) -> Iterator[Field]:
    for node in nodes:
        if isinstance(node, Field):
            yield node
        elif isinstance(node, Group):
            yield from _fields(node.fields)


def rows_of(texts: Iterable[str], afns: Sequence[int], edition: str) -> list[tuple[Item, Row]]:
    """Items with their rows of the table. UsageError names every text that is no item of these AFNs."""
    found: list[tuple[Item, Row]] = []
    wrong: list[str] = []
    for text in texts:
        item = parse_item(text)
        row = lookup(item.afn, item.fn, edition) if item is not None and item.afn in afns else None
        if item is None or row is None:
            wrong.append(text)
        else:
            found.append((item, row))
    if wrong:
        names, known = ", ".join(wrong), ", ".join(f"{afn:02X}:Fn" for afn in afns)
        raise UsageError(
            tr(
                f"{names}: no item of the form {known} in the tables of edition {edition}",
                f"{names}: 不是 {edition} 版数据表中形如 {known} 的数据项",
            )
        )
    return found


def points_of(item: Item, row: Row, device: Device, profile: Profile) -> tuple[int, ...]:
    """Point numbers that an item is asked for; empty: the device has none of that kind."""
    if item.pn is not None:
        return (item.pn,)
    for letter in row.pn:
        if letter in KINDS:
            numbers = tuple(p.pn for p in device.points if p.kind == KINDS[letter])
            if numbers:
                return numbers
        elif letter == "R" and profile.control is not None:
            return tuple(range(1, profile.control.rounds + 1))
    return (0,) if "0" in row.pn else ()


def wants_of(
    rows: Iterable[tuple[Item, Row]], device: Device, profile: Profile, data: Mapping[str, object] | None = None
) -> tuple[list[Want], list[Item]]:
    """Items times their points, and the items for which the device list has no point."""
    plan = profile.terminal or TerminalPlan()
    wants: list[Want] = []
    lacking: list[Item] = []
    for item, row in rows:
        numbers = points_of(item, row, device, profile)
        if not numbers:
            lacking.append(item)
        key = list_key(row) if item.afn == QUERY else None
        plain, size = Item(item.afn, item.fn), max(answer_size(row), request_size(row))
        for pn in numbers:
            if key is not None:
                wants += _listed(item, row, device, pn, key, plan.answer_bytes)
            else:
                wants.append(Want(plain, pn, dict(data or {}), size))
    return wants, lacking


def list_key(row: Row) -> str | None:
    """Name of the list of numbers by which the entries of a parameter are asked for; None: it is asked for whole."""
    nodes = row.request.variants[0].nodes if row.request else ()
    last = nodes[-1] if len(nodes) == 2 else None
    return last.name if isinstance(last, Field) and last.count is not None else None


def _listed(item: Item, row: Row, device: Device, pn: int, key: str, answer_bytes: int) -> list[Want]:
    """A list parameter in as many requests as its entries need."""
    numbers = item.numbers
    if not numbers:
        numbers = tuple(p.pn for p in device.measuring) if key == "device_no" else _FEW
    head = answer_size(row, {"n": 0})
    entry = max(1, answer_size(row, {"n": 1}) - head)
    step = max(1, (answer_bytes - HEAD - head) // entry)
    found = []
    for i in range(0, len(numbers), step):
        some = numbers[i : i + step]
        data: dict[str, object] = {"n": len(some), key: list(some)}
        found.append(Want(Item(item.afn, item.fn), pn, data, head + entry * len(some)))
    return found


def answer_size(row: Row, counts: Mapping[str, int] | None = None) -> int:
    """Expected bytes of an answered data unit with its identifier; `counts`: values of fields that count others."""
    return IDENTIFIER + _layout_size(row.fields, tuple(counts.items()) if counts else ())


@lru_cache(maxsize=4096)
def curve_size(fn: int, n: int) -> int:
    """Bytes of an answered curve of n points, identifier included."""
    return IDENTIFIER + SCALE_BYTES + n * curve_classes()[fn].width


def request_size(row: Row) -> int:
    """Bytes of a data unit in a request, identifier included."""
    return IDENTIFIER + _layout_size(row.request, ())


@lru_cache(maxsize=4096)
def _layout_size(layout: Layout, counts: tuple[tuple[str, int], ...]) -> int:
    known = {"tariffs": TARIFFS} | dict(counts)
    return max((_nodes_size(v.nodes, known) for v in layout.variants), default=0)


def _nodes_size(nodes: Sequence[Node], counts: Mapping[str, int]) -> int:
    total = 0
    for node in nodes:
        if isinstance(node, Field):
            total += _field_size(node) * _number(node, counts)
        elif isinstance(node, Bits):
            total += node.size
        elif isinstance(node, Group):
            total += _nodes_size(node.fields, counts) * _number(node, counts)
        elif isinstance(node, (When, Nested)):
            total += _nodes_size(node.fields, counts)
        elif isinstance(node, Events):
            total += UNKNOWN
    return total


def _field_size(node: Field) -> int:
    return make_format(node.format)[0].size or UNKNOWN


def _number(node: Field | Group, counts: Mapping[str, int]) -> int:
    count = node.count
    if count is None:
        return 1
    if count.kind == "number":
        return count.number
    if count.kind == "field":
        return max(0, counts.get(count.field, 1) + count.number)
    return 4


def batches(wants: Iterable[Want], plan: TerminalPlan) -> Iterator[list[Want]]:
    """Requests: consecutive wants of one AFN together, as many as the terminal's answer and request may hold.

    The same (pn, Fn) never stands twice in a request: its answers could not be told apart.
    """
    batch: list[Want] = []
    keys: set[tuple[int, int]] = set()
    size = HEAD
    for want in wants:
        key = want.pn, want.item.fn
        full = size + want.size > plan.answer_bytes or len(batch) >= plan.units_per_request
        if batch and (full or key in keys or want.item.afn != batch[0].item.afn):
            yield batch
            batch, keys, size = [], set(), HEAD
        batch.append(want)
        keys.add(key)
        size += want.size
    if batch:
        yield batch
