"""Nodes of a layout as reading closures: bytes -> values. Every closure checks the end of the data."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, cast

from ..common.errors import PeerError
from .formats import Format
from .hooks import HOOKS
from .nodes import POINTS_OF_HOUR, BitPart, Bits, Count, Data, Events, Field, Group, Hooked, Nested, UnitLayout, When

Env = dict[str, object]  # values that counts, sizes and conditions refer to, and the edition's name
Reader = Callable[[bytes, int, int, Data, Env], int]
EventLayout = Callable[[int, str], "UnitLayout | None"]
EDITION: Final = ""  # key of the edition's name in an Env
_MOST: Final = 16383  # elements of a list; a frame has no more bytes
_SHORT: Final = "data unit ends early"


class Unfit(PeerError):
    """The bytes do not fit the layout (too short, or a count that is no number)."""


def evaluate(count: Count, env: Env) -> int:
    """Number of elements; -1 = to the end. Unfit where it cannot be known."""
    if count.kind == "number":
        return count.number
    if count.kind == "end":
        return -1
    if count.kind == "hour_points":
        return POINTS_OF_HOUR.get(cast(int, env.get("density")), 0)
    if count.kind == "pointers":
        pm, pn = env.get("pm"), env.get("pn")
        return (cast(int, pn) - cast(int, pm) - 1) % 256 + 1
    value = env.get(count.field)
    if isinstance(value, list):
        return len(value) + count.number
    if not isinstance(value, int) or value + count.number < 0:
        raise Unfit(f"count {count.field} is no number")
    return value + count.number


def read_run(fields: Sequence[tuple[str, Format]], kept: frozenset[str]) -> Reader:
    """Several values of fixed size at once."""
    shape = struct.Struct("<" + "".join(f"{form.size}s" for _, form in fields))
    steps = tuple((name, form.decode) for name, form in fields)
    saved = tuple(name for name, _ in fields if name in kept)
    size, unpack = shape.size, shape.unpack_from

    def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        stop = at + size
        if stop > end:
            raise Unfit(_SHORT)
        for (name, decode), wire in zip(steps, unpack(buf, at), strict=True):
            out[name] = decode(wire)
        for name in saved:
            env[name] = out[name]
        return stop

    return read


def read_one(node: Field, form: Format, kept: frozenset[str]) -> Reader:
    """A value whose size is told elsewhere, a merged value, or a list of values."""
    name, decode, size, size_field = node.name, form.decode, form.size, node.size_field
    rest = node.format == "rest"

    def length(env: Env, at: int, end: int) -> int:
        if rest:
            return end - at
        if not size_field:
            return size
        value = env.get(size_field)
        if not isinstance(value, int):
            raise Unfit(f"size {size_field} is no number")
        return value

    if node.count is None:

        def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
            stop = at + length(env, at, end)
            if stop > end:
                raise Unfit(_SHORT)
            value = decode(buf[at:stop])
            if name == "-":
                out.update(cast(Data, value))
            else:
                out[name] = value
            if name in kept:
                env[name] = value
            return stop

        return read
    count = node.count

    def read_list(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        number = evaluate(count, env)
        one = length(env, at, end)
        if number < 0:
            number = (end - at) // one if one else 0
        stop = at + number * one
        if stop > end or number > _MOST:
            raise Unfit(_SHORT)
        out[name] = [decode(buf[i : i + one]) for i in range(at, stop, one)] if one else []
        return stop

    return read_list


def read_bits(node: Bits, kept: frozenset[str]) -> Reader:
    """Parts of a word."""

    size, spare = node.size, node.spare
    known = 0
    steps: list[tuple[str, Callable[[int], object]]] = []
    for part in node.parts:
        for high, low in part.spans:
            known |= (1 << high + 1) - (1 << low)
        steps.append((part.name, _bits_value(part)))
    saved = tuple(part.name for part in node.parts if part.name in kept)
    unnamed = ((1 << 8 * size) - 1) & ~known

    def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        stop = at + size
        if stop > end:
            raise Unfit(_SHORT)
        word = buf[at] if size == 1 else int.from_bytes(buf[at:stop], "little")
        for name, value in steps:
            out[name] = value(word)
        if word & unnamed:
            out[spare] = word & unnamed
        for name in saved:
            env[name] = out[name]
        return stop

    return read


def _bits_value(part: BitPart) -> Callable[[int], object]:
    def single(high: int, low: int) -> Callable[[int], object]:
        mask, names, add, scale = (1 << high - low + 1) - 1, part.names, part.add, part.scale
        if names:
            return lambda word: names[code] if (code := word >> low & mask) < len(names) else code
        if add or scale != 1:
            return lambda word: (word >> low & mask) * scale + add
        return lambda word: word >> low & mask

    each = [single(high, low) for high, low in part.spans]
    return each[0] if len(each) == 1 else lambda word: [value(word) for value in each]


def read_group(node: Group, inner: Reader, smallest: int) -> Reader:
    """A repeated structure; `smallest` bytes at least for each element."""

    name, count, flat = node.name, node.count, node.flat

    def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        number = evaluate(count, env)
        if number * smallest > end - at or number > _MOST:
            raise Unfit(_SHORT)
        rows: list[object] = []
        while number < 0 and at < end:
            row: Data = {}
            at = inner(buf, at, end, row, env)
            rows.append(list(row.values()) if flat else row)
        for _ in range(number):
            row = {}
            at = inner(buf, at, end, row, env)
            rows.append(list(row.values()) if flat else row)
        out[name] = rows
        return at

    return read


def read_nested(node: Nested, inner: Reader) -> Reader:
    """Values under one name."""

    name = node.name

    def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        row: Data = {}
        at = inner(buf, at, end, row, env)
        out[name] = row
        return at

    return read


def read_when(node: When, inner: Reader) -> Reader:
    """Entries under a condition."""

    field, values = node.field, node.values

    def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        return inner(buf, at, end, out, env) if env.get(field) in values else at

    return read


def read_events(node: Events, layout_of: EventLayout) -> Reader:
    """Event records; one whose layout is unknown or does not fit keeps its bytes as raw_hex."""

    name, count = node.name, node.count

    def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        number = evaluate(count, env)
        edition = cast(str, env[EDITION])
        events: list[object] = []
        while at < end and (number < 0 or len(events) < number):
            if end - at < 2 or at + 2 + buf[at + 1] > end:
                raise Unfit(_SHORT)
            erc, size = buf[at], buf[at + 1]
            at += 2
            event: Data = {"erc": erc, "le": size}
            layout = layout_of(erc, edition)
            found = layout.exact(buf[at : at + size], edition) if layout is not None else None
            if found is None:
                event["raw_hex"] = buf[at : at + size].hex().upper()
            else:
                event.update(found)
            events.append(event)
            at += size
        out[name] = events
        return at

    return read


def read_hook(node: Hooked) -> Reader:
    """Derived keys."""

    run = HOOKS[node.name].run

    def read(_buf: bytes, at: int, _end: int, out: Data, _env: Env) -> int:
        run(out)
        return at

    return read


def read_all(readers: tuple[Reader, ...]) -> Reader:
    """One after the other."""

    if len(readers) == 1:
        return readers[0]

    def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        for one in readers:
            at = one(buf, at, end, out, env)
        return at

    return read
