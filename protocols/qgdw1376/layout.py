"""Layouts of data units: nodes (notation.py) compiled once into reading and writing closures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ..common.errors import UsageError
from .formats import Format, make_format
from .nodes import (
    INTERVAL_MIN,
    POINTS_OF_HOUR,
    BitPart,
    Bits,
    Count,
    Data,
    Events,
    Field,
    Group,
    Hooked,
    Nested,
    Node,
    When,
    every_key,
    fewest_bytes,
    fields_of,
    find_faults,
    keys_of,
    names_of,
    references,
)
from .notation import as_list, expand, included, parse_entry
from .reading import (
    EDITION,
    EventLayout,
    Reader,
    Unfit,
    read_all,
    read_bits,
    read_events,
    read_group,
    read_hook,
    read_nested,
    read_one,
    read_run,
    read_when,
)
from .writing import (
    Writer,
    counters,
    write_all,
    write_bits,
    write_events,
    write_field,
    write_group,
    write_nested,
    write_when,
)

__all__ = [
    "INTERVAL_MIN",
    "POINTS_OF_HOUR",
    "BitPart",
    "Bits",
    "Count",
    "Data",
    "Events",
    "Field",
    "Group",
    "Hooked",
    "Layout",
    "Nested",
    "Node",
    "Unfit",
    "Variant",
    "When",
    "all_fields",
    "every_key",
    "make_layout",
    "references",
]


class Variant:
    """One way to lay out a data unit, compiled. size: bytes where fixed, else None; open: takes what remains."""

    __slots__ = ("_read", "_write", "editions", "keys", "nodes", "open", "size")

    def __init__(self, nodes: tuple[Node, ...], editions: tuple[str, ...], layout_of: EventLayout) -> None:
        faults: list[str] = []
        find_faults(nodes, set(), faults)
        if faults:
            raise ValueError("; ".join(faults))
        self.nodes = nodes
        self.editions = editions
        self._read, self._write, self.size = _compile(nodes, references(nodes), layout_of)
        self.keys = keys_of(nodes)
        self.open = any(isinstance(n, Field) and n.format == "rest" for n in nodes)

    def decode(self, buf: bytes, at: int, end: int, edition: str) -> tuple[Data, int]:
        """Values and the position behind them; Unfit where the bytes do not fit."""
        out: Data = {}
        return out, self._read(buf, at, end, out, {EDITION: edition})

    def encode(self, data: Mapping[str, object], edition: str) -> bytes:
        """Bytes of the values. UsageError: a field is missing, unknown or does not fit."""
        unknown = data.keys() - self.keys
        if unknown:
            raise UsageError(
                f"unknown field {', '.join(sorted(unknown))}: the fields are {', '.join(sorted(self.keys))}"
            )
        out = bytearray()
        self._write(data, out, {EDITION: edition})
        return bytes(out)


class Layout:
    """All variants of a data unit's layout."""

    __slots__ = ("single", "variants")

    def __init__(self, variants: Sequence[Variant]) -> None:
        self.variants = tuple(variants)
        self.single = variants[0] if len(variants) == 1 else None

    def __bool__(self) -> bool:
        """Whether there is any entry."""
        return any(v.nodes for v in self.variants)

    def preferred(self, edition: str) -> tuple[Variant, ...]:
        """Variants in the order in which they are tried: those of the edition first."""
        if self.single is not None:
            return self.variants
        return tuple(sorted(self.variants, key=lambda v: bool(v.editions) and edition not in v.editions))

    def exact(self, wire: bytes, edition: str) -> Data | None:
        """Values of a unit that must use up all bytes; None where no variant does."""
        for variant in self.preferred(edition):
            try:
                found, at = variant.decode(wire, 0, len(wire), edition)
            except Unfit:
                continue
            if at == len(wire):
                return found
        return None

    def encode(self, data: Mapping[str, object], edition: str, size: int | None = None) -> bytes:
        """Bytes of the values by the first variant that takes them (and makes `size` bytes, when given)."""
        first: UsageError | None = None
        for variant in self.preferred(edition):
            try:
                wire = variant.encode(data, edition)
            except UsageError as error:
                first = first or error
                continue
            if size in (None, len(wire)):
                return wire
        raise first or UsageError(f"no layout of this item has {size} bytes")


def all_fields(layout: Layout) -> Iterator[Field]:
    """Every field of every variant, at any depth."""
    for variant in layout.variants:
        yield from fields_of(variant.nodes)


def _compile(nodes: Sequence[Node], kept: frozenset[str], layout_of: EventLayout) -> tuple[Reader, Writer, int | None]:
    readers: list[Reader] = []
    writers: list[Writer] = []
    run: list[tuple[str, Format]] = []
    counts = counters(nodes)
    fixed: int | None = 0

    def flush() -> None:
        if run:
            readers.append(read_run(tuple(run), kept))
            run.clear()

    for node in nodes:
        size: int | None = None
        if isinstance(node, Field):
            form = make_format(node.format)[0]
            if node.count is None and form.size and node.name != "-":
                run.append((node.name, form))
                size = form.size
            else:
                flush()
                readers.append(read_one(node, form, kept))
                many = 1 if node.count is None else node.count.number if node.count.kind == "number" else None
                size = form.size * many if form.size and many is not None else None
            writers.append(write_field(node, form, counts.get(node.name)))
        else:
            flush()
            reader, writer, size = _compile_node(node, kept, layout_of, counts)
            readers.append(reader)
            if writer is not None:
                writers.append(writer)
        fixed = None if fixed is None or size is None else fixed + size
    flush()
    return read_all(tuple(readers)), write_all(tuple(writers)), fixed


def _compile_node(
    node: Bits | Group | Nested | When | Events | Hooked,
    kept: frozenset[str],
    layout_of: EventLayout,
    counts: Mapping[str, Callable[[Mapping[str, object]], int | None]],
) -> tuple[Reader, Writer | None, int | None]:
    if isinstance(node, Bits):
        return read_bits(node, kept), write_bits(node, counts), node.size
    if isinstance(node, Hooked):
        return read_hook(node), None, 0
    if isinstance(node, Events):
        return read_events(node, layout_of), write_events(node, layout_of), None
    reader, writer, size = _compile(node.fields, kept, layout_of)
    if isinstance(node, Nested):
        return read_nested(node, reader), write_nested(node, writer), size
    if isinstance(node, When):
        return read_when(node, reader), write_when(node, writer), None
    keys = [k for n in node.fields if not isinstance(n, Hooked) for k in names_of(n)]
    total = size * node.count.number if size is not None and node.count.kind == "number" else None
    return read_group(node, reader, fewest_bytes(node.fields)), write_group(node, writer, keys), total


def make_layout(raw: object, named: Mapping[str, list[object]], layout_of: EventLayout) -> Layout:
    """The layout of a list of entries. ValueError names what is wrong."""
    entries = list(included(as_list(raw), named))
    return Layout(
        [Variant(tuple(parse_entry(r) for r in variant), editions, layout_of) for variant, editions in expand(entries)]
    )
