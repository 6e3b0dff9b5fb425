"""What layouts are made of: the entries of items/*.toml as objects, and what can be told from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol, cast

import msgspec

from .formats import make_format
from .hooks import HOOKS

Data = dict[str, object]
POINTS_OF_HOUR: Final = {1: 4, 2: 2, 3: 1, 254: 12, 255: 60}  # density -> points
INTERVAL_MIN: Final = {1: 15, 2: 30, 3: 60, 254: 5, 255: 1}  # density -> minutes


class UnitLayout(Protocol):
    """What reading and writing events needs of a layout."""

    def exact(self, wire: bytes, edition: str) -> Data | None:
        """Values of a unit that must use up all bytes."""

    def encode(self, data: Mapping[str, object], edition: str, size: int | None = None) -> bytes:
        """Bytes of the values."""


class Count(msgspec.Struct, frozen=True):
    """How many. kind: "number", "field", "hour_points", "pointers", "end"."""

    kind: str
    number: int = 0
    field: str = ""

    @property
    def refs(self) -> tuple[str, ...]:
        """Fields that must be known."""
        return {"field": (self.field,), "hour_points": ("density",), "pointers": ("pm", "pn")}.get(self.kind, ())


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One value, or a list of values when there is a count. size_field: the field that tells how many bytes."""

    name: str
    format: str
    unit: str = ""
    quantity: str = ""
    count: Count | None = None
    size_field: str = ""


class BitPart(msgspec.Struct, frozen=True):
    """Part of a word. spans: (highest, lowest) bits, several make a list. value: code * scale + add, or names[code]."""

    name: str
    spans: tuple[tuple[int, int], ...]
    names: tuple[str | int, ...] = ()
    add: int = 0
    scale: int = 1


class Bits(msgspec.Struct, frozen=True):
    """A byte or word in parts. Bits that no part names appear as <first name>_spare when they are set."""

    size: int
    parts: tuple[BitPart, ...]

    @property
    def spare(self) -> str:
        """Key of the bits nobody names."""
        return f"{self.parts[0].name}_spare"


class Group(msgspec.Struct, frozen=True):
    """A repeated structure."""

    name: str
    count: Count
    fields: tuple[Node, ...]
    flat: bool = False


class Nested(msgspec.Struct, frozen=True):
    """Values under one name."""

    name: str
    fields: tuple[Node, ...]


class When(msgspec.Struct, frozen=True):
    """Entries that are there only if `field` has one of `values`."""

    field: str
    values: tuple[object, ...]
    fields: tuple[Node, ...]


class Events(msgspec.Struct, frozen=True):
    """Event records."""

    name: str
    count: Count


class Hooked(msgspec.Struct, frozen=True):
    """Derived keys."""

    name: str


Node = Field | Bits | Group | Nested | When | Events | Hooked


def fields_of(nodes: Sequence[Node]) -> Iterator[Field]:
    """Every field, at any depth."""
    for node in nodes:
        if isinstance(node, Field):
            yield node
        elif isinstance(node, (Group, Nested, When)):
            yield from fields_of(node.fields)


def references(nodes: Sequence[Node]) -> frozenset[str]:
    """Names that counts, sizes and conditions refer to."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, Field):
            found.update(node.count.refs if node.count else ())
            if node.size_field:
                found.add(node.size_field)
        elif isinstance(node, (Group, Events)):
            found.update(node.count.refs)
        if isinstance(node, When):
            found.add(node.field)
        if isinstance(node, (Group, Nested, When)):
            found |= references(node.fields)
    return frozenset(found)


def keys_of(nodes: Sequence[Node]) -> set[str]:
    """Keys that data of these entries may have."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, Field):
            found |= {"dadt", "pn", "fn"} if node.name == "-" else {node.name}
        elif isinstance(node, Bits):
            found.update(part.name for part in node.parts)
            found.add(node.spare)
        elif isinstance(node, (Group, Nested, Events)):
            found.add(node.name)
        elif isinstance(node, When):
            found |= keys_of(node.fields)
        else:
            found.update(HOOKS[node.name].keys)
    return found


def every_key(nodes: Sequence[Node]) -> set[str]:
    """Keys of these entries and of everything inside them."""
    inner = [every_key(node.fields) for node in nodes if isinstance(node, (Group, Nested, When))]
    return keys_of(nodes).union(*inner)


def find_faults(nodes: Sequence[Node], known: set[str], faults: list[str]) -> None:
    """References point backwards, names are unique in their scope, unbounded entries stand last."""
    here: set[str] = set()
    for i, node in enumerate(nodes):
        inner = isinstance(node, (Group, Nested, When))
        refs = references([msgspec.structs.replace(node, fields=())] if inner else [node])
        faults += [f"{name} is not known here" for name in sorted(refs - known)]
        names = keys_of([node]) if not isinstance(node, Hooked) else set()
        faults += [f"{name} twice" for name in sorted(names & here)]
        here |= names
        known = known | names
        endless = isinstance(node, (Field, Group)) and node.count is not None and node.count.kind == "end"
        if (endless or (isinstance(node, Field) and node.format == "rest")) and i + 1 < len(nodes):
            faults.append(f"{cast('Field | Group', node).name} takes all that remains and must be the last")
        if isinstance(node, (Group, Nested, When)):
            if not node.fields:
                faults.append("a list, an object or a condition has no fields")
            find_faults(node.fields, known, faults)
            if isinstance(node, Group) and not fewest_bytes(node.fields):
                faults.append(f"an element of {node.name} may be empty")


def fewest_bytes(nodes: Sequence[Node]) -> int:
    """Fewest bytes of these entries."""
    total = 0
    for node in nodes:
        if isinstance(node, Field):
            count = 1 if node.count is None else node.count.number if node.count.kind == "number" else 0
            total += make_format(node.format)[0].size * count
        elif isinstance(node, Bits):
            total += node.size
        elif isinstance(node, Nested):
            total += fewest_bytes(node.fields)
        elif isinstance(node, Group) and node.count.kind == "number":
            total += fewest_bytes(node.fields) * node.count.number
    return total


def names_of(node: Node) -> list[str]:
    """Names of the values an entry makes."""
    if isinstance(node, Bits):
        return [part.name for part in node.parts]
    return [node.name] if isinstance(node, (Field, Group, Nested, Events)) else []
