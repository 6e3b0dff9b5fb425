"""Nodes of a layout as writing closures: values -> bytes. UsageError names the field that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from ..common.errors import UsageError
from .formats import Format, make_format, to_int
from .nodes import BitPart, Bits, Count, Events, Field, Group, Nested, Node, UnitLayout, When
from .reading import EDITION, Env, EventLayout, Unfit, evaluate

Writer = Callable[[Mapping[str, object], bytearray, Env], None]
_NOTHING: Final = object()


def _within(name: str, error: UsageError) -> UsageError:
    joint = "" if str(error).startswith(("[", "(")) else ": "
    return UsageError(f"{name}{joint}{error}")


def _length(data: Mapping[str, object], name: str) -> int | None:
    value = data.get(name)
    return len(value) if isinstance(value, (list, tuple)) else None


def write_field(node: Field, form: Format, counted: Callable[[Mapping[str, object]], int | None] | None) -> Writer:
    """A value, or a list of values. counted: how to find it when it is not given."""

    name, encode, size_field, count = node.name, form.encode, node.size_field, node.count

    def write(data: Mapping[str, object], out: bytearray, env: Env) -> None:
        value = dict(data) if name == "-" else data.get(name, _NOTHING)
        if value is _NOTHING:
            value = counted(data) if counted is not None else None
            if value is None:
                raise UsageError(f"{name} is missing")
        size = env.get(size_field) if size_field else -1
        try:
            out += encode(value, size if isinstance(size, int) else -1)
        except UsageError as error:
            raise _within(name, error) from None
        env[name] = value

    def write_list(data: Mapping[str, object], out: bytearray, env: Env) -> None:
        assert count is not None
        values = data.get(name)
        if not isinstance(values, (list, tuple)):
            raise UsageError(f"{name}: give a list" if name in data else f"{name} is missing")
        _check_count(name, len(values), count, env)
        for i, value in enumerate(values):
            try:
                out += encode(value, -1)
            except UsageError as error:
                raise _within(f"{name}[{i}]", error) from None

    return write if count is None else write_list


def _check_count(name: str, length: int, count: Count, env: Env) -> None:
    if count.kind == "pointers":
        return
    try:
        wanted = evaluate(count, env)
    except Unfit as error:
        raise UsageError(f"{name}: {error}") from None
    if wanted not in (-1, length):
        raise UsageError(f"{name} has {length} elements, its count says {wanted}")


def write_bits(node: Bits, counts: Mapping[str, Callable[[Mapping[str, object]], int | None]]) -> Writer:
    """Parts of a word."""

    size, parts, spare = node.size, node.parts, node.spare

    def write(data: Mapping[str, object], out: bytearray, env: Env) -> None:
        word = to_int(spare, data.get(spare, 0), 0, (1 << 8 * size) - 1)
        for part in parts:
            value = data.get(part.name, _NOTHING)
            if value is _NOTHING:
                counted = counts.get(part.name)
                value = counted(data) if counted is not None else None
                if value is None:
                    raise UsageError(f"{part.name} is missing")
            try:
                word |= _bits_word(part, value)
            except UsageError as error:
                raise _within(part.name, error) from None
            env[part.name] = value
        out += word.to_bytes(size, "little")

    return write


def _bits_word(part: BitPart, value: object) -> int:
    values = value if len(part.spans) > 1 else [value]
    if not isinstance(values, (list, tuple)) or len(values) != len(part.spans):
        raise UsageError(f"give a list of {len(part.spans)} numbers")
    word = 0
    for (high, low), one in zip(part.spans, values, strict=True):
        top = (1 << high - low + 1) - 1
        if one in part.names:
            code = part.names.index(cast("str | int", one))
        elif part.names and not isinstance(one, int):
            raise UsageError(f"{one!r} is none of {', '.join(map(str, part.names))}")
        else:
            number = to_int(part.name, one, part.add, top * part.scale + part.add) - part.add
            if number % part.scale:
                raise UsageError(f"{one!r} is no multiple of {part.scale}")
            code = number // part.scale
        word |= code << low
    return word


def write_group(node: Group, inner: Writer, keys: Sequence[str]) -> Writer:
    """A repeated structure; keys: the order of a flat element."""

    name, count, flat = node.name, node.count, node.flat

    def write(data: Mapping[str, object], out: bytearray, env: Env) -> None:
        rows = data.get(name)
        if not isinstance(rows, (list, tuple)):
            raise UsageError(f"{name}: give a list" if name in data else f"{name} is missing")
        _check_count(name, len(rows), count, env)
        for i, row in enumerate(rows):
            if flat and isinstance(row, (list, tuple)) and len(row) == len(keys):
                row = dict(zip(keys, row, strict=True))
            if not isinstance(row, Mapping):
                raise UsageError(f"{name}[{i}]: give " + (f"a list of {', '.join(keys)}" if flat else "an object"))
            try:
                inner(row, out, env)
            except UsageError as error:
                raise UsageError(f"{name}[{i}].{error}") from None

    return write


def write_nested(node: Nested, inner: Writer) -> Writer:
    """Values under one name."""

    name = node.name

    def write(data: Mapping[str, object], out: bytearray, env: Env) -> None:
        row = data.get(name)
        if not isinstance(row, Mapping):
            raise UsageError(f"{name}: give an object" if name in data else f"{name} is missing")
        try:
            inner(row, out, env)
        except UsageError as error:
            raise UsageError(f"{name}.{error}") from None

    return write


def write_when(node: When, inner: Writer) -> Writer:
    """Entries under a condition."""

    field, values = node.field, node.values

    def write(data: Mapping[str, object], out: bytearray, env: Env) -> None:
        if env.get(field) in values:
            inner(data, out, env)

    return write


def write_events(node: Events, layout_of: EventLayout) -> Writer:
    """Event records."""

    name = node.name

    def write(data: Mapping[str, object], out: bytearray, env: Env) -> None:
        events = data.get(name)
        edition = cast(str, env[EDITION])
        if not isinstance(events, (list, tuple)):
            raise UsageError(f"{name}: give a list of events")
        for i, event in enumerate(events):
            if not isinstance(event, Mapping):
                raise UsageError(f"{name}[{i}]: give an object with erc")
            try:
                erc = to_int("erc", event.get("erc"), 0, 255)
                body = _event_body(event, layout_of(erc, edition), edition)
            except UsageError as error:
                raise _within(f"{name}[{i}]", error) from None
            out += bytes((erc, len(body)))
            out += body

    return write


def _event_body(event: Mapping[str, object], layout: UnitLayout | None, edition: str) -> bytes:
    if "raw_hex" in event or layout is None:
        body = make_format("rest")[0].encode(event.get("raw_hex"), -1)
    else:
        size = event.get("le")
        rest = {key: value for key, value in event.items() if key not in ("erc", "le")}
        body = layout.encode(rest, edition, size if isinstance(size, int) else None)
    if len(body) > 255 or event.get("le", len(body)) != len(body):
        raise UsageError(f"the event has {len(body)} bytes, le says {event.get('le')}")
    return body


def counters(nodes: Sequence[Node]) -> dict[str, Callable[[Mapping[str, object]], int | None]]:
    """For fields that count a list of the same scope: how to find the number from the data."""
    found: dict[str, Callable[[Mapping[str, object]], int | None]] = {}
    for node in nodes:
        count = node.count if isinstance(node, (Field, Group, Events)) else None
        if isinstance(node, Field) and node.size_field:
            found.setdefault(node.size_field, _size_counter(node))
        if count is not None and count.kind == "field" and isinstance(node, (Field, Group, Events)):
            found.setdefault(count.field, _list_counter(node.name, count.number))
        if isinstance(node, When):
            for name, counter in counters(node.fields).items():
                found.setdefault(name, counter)
    return found


def _list_counter(name: str, delta: int) -> Callable[[Mapping[str, object]], int | None]:
    def count(data: Mapping[str, object]) -> int | None:
        length = _length(data, name)
        return None if length is None else length - delta

    return count


def _size_counter(node: Field) -> Callable[[Mapping[str, object]], int | None]:
    encode = make_format(node.format)[0].encode
    return lambda data: len(encode(data[node.name], -1)) if node.name in data else None


def write_all(writers: tuple[Writer, ...]) -> Writer:
    """One after the other."""

    def write(data: Mapping[str, object], out: bytearray, env: Env) -> None:
        for one in writers:
            one(data, out, env)

    return write
