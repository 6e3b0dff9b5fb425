"""Layouts of data units: the notation of items/*.toml, checked and turned into reading and writing closures.

A layout is a list of entries, in the order of the wire:

    "name FORMAT [unit] [=quantity]"          one value; formats: formats.make_format. Name "-" puts a dadt's keys here
    "name FORMAT [unit] [=quantity] * COUNT"  a list of values
    "td_c"  "td_d"  "td_m"  "td_h"            time scales: td_c/density/n, td_d, td_m, td_h/density
    "@layout" or "@layout:x|y|z"              a named layout of a [layout] table; {x} {y} {z} are replaced
    { bits = ["name 7..4", ...], size = 1 }   parts of a byte or word; "name 7" one bit; "name 7..4,3..0" a list;
                                              then "^a,b,c" names the codes from 0 on, "+4" is added, "*5" multiplies
    { list = "name", count = COUNT, fields = [...] }    repeated; flat = true makes each element a list of values
    { when = "field", is = [...], fields = [...] }      only if an earlier field has one of these values
    { alt = [[...], [...]], editions = ["2009", "2013"] }  what fits exactly, else by edition, else the first
    { events = "name", count = COUNT }        events: ERC, Le and the ERC's own layout
    { object = "name", fields = [...] }       a group of values under one name
    { hook = "name" }                         derived keys (hooks.py)

COUNT: a number, an earlier field (a bit set counts its bits), field+1, field-1, "hour_points" (points of an hour by the
field density), "pm..pn" (number of events between two pointers), "*" to the end of the data.
When writing, a count that is not given follows from the list it counts.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, cast

import msgspec

from ..common.errors import PeerError, UsageError
from .formats import Format, make_format, to_int
from .hooks import HOOKS

Data = dict[str, object]
Env = dict[str, object]
Reader = Callable[[bytes, int, int, Data, Env], int]
Writer = Callable[[Mapping[str, object], bytearray, Env], None]
EDITION: Final = ""  # key of the edition's name in an Env

POINTS_OF_HOUR: Final = {1: 4, 2: 2, 3: 1, 254: 12, 255: 60}
INTERVAL_MIN: Final = {1: 15, 2: 30, 3: 60, 254: 5, 255: 1}
_TIME_SCALES: Final = {
    "td_c": ("td_c A.15", "density u1", "n u1"),
    "td_d": ("td_d A.20",),
    "td_m": ("td_m A.21",),
    "td_h": ("td_h bcd1", "density u1"),
}
_MOST: Final = 16383  # elements of a list; a frame has no more bytes


class Unfit(PeerError):
    """The bytes do not fit the layout (too short, or a count that is no number)."""


_SHORT: Final = "data unit ends early"


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
EventLayout = Callable[[int, str], "Layout | None"]


# --- the notation ---------------------------------------------------------------------------------------------------
def _count(text: object) -> Count:
    if isinstance(text, int) and not isinstance(text, bool):
        return Count("number", text)
    word = str(text).replace(" ", "")
    if word == "*":
        return Count("end")
    if word in ("hour_points", "pm..pn"):
        return Count("hour_points" if word == "hour_points" else "pointers")
    if word.isdecimal():
        return Count("number", int(word))
    match = re.fullmatch(r"([a-zA-Z_]\w*)([+-]\d+)?", word)
    if match is None:
        raise ValueError(f"count {text!r} is no number, field, field+1, hour_points, pm..pn or *")
    return Count("field", int(match[2] or 0), match[1])


def _field(text: str) -> Field:
    body, star, count = text.partition(" * ")
    words = body.split()
    quantity = words.pop()[1:] if words[-1].startswith("=") else ""
    if len(words) not in (2, 3):
        raise ValueError(f"{text!r} is not 'name FORMAT [unit] [=quantity] [* COUNT]'")
    _, size_field = make_format(words[1])
    return Field(
        name=words[0],
        format=words[1],
        unit=words[2] if len(words) == 3 else "",
        quantity=quantity,
        count=_count(count) if star else None,
        size_field=size_field,
    )


_PART: Final = re.compile(r"(\w+) (\d+(?:\.\.\d+)?(?:,\d+(?:\.\.\d+)?)*)(?: \^(\S+))?(?: \+(\d+))?(?: \*(\d+))?")


def _bit_part(text: str) -> BitPart:
    match = _PART.fullmatch(" ".join(text.split()))
    if match is None:
        raise ValueError(f"{text!r} is not 'name 7..4 [^a,b,c] [+n] [*n]'")
    spans = []
    for span in match[2].split(","):
        high, _, low = span.partition("..")
        spans.append((int(high), int(low or high)))
        if spans[-1][0] < spans[-1][1]:
            raise ValueError(f"{text!r}: write the higher bit first")
    names: list[str | int] = [int(n) if n.isdecimal() else n for n in match[3].split(",")] if match[3] else []
    return BitPart(match[1], tuple(spans), tuple(names), int(match[4] or 0), int(match[5] or 1))


def _bits(raw: Mapping[str, object]) -> Bits:
    parts = tuple(_bit_part(str(t)) for t in _entries(raw["bits"]))
    size = raw.get("size", 1)
    if not isinstance(size, int) or not 1 <= size <= 8 or not parts:
        raise ValueError("bits need at least one part and a size of 1 to 8 bytes")
    used = 0
    for part in parts:
        for high, low in part.spans:
            mask = (1 << high + 1) - (1 << low)
            if high >= 8 * size or used & mask:
                raise ValueError(f"bits {part.name}: bit {high}..{low} is outside the word or used twice")
            used |= mask
    return Bits(size, parts)


def _entries(raw: object) -> list[object]:
    if not isinstance(raw, list):
        raise ValueError(f"{raw!r} is no list of entries")
    return raw


_KEYS: Final = {
    "bits": {"bits", "size"},
    "list": {"list", "count", "fields", "flat"},
    "object": {"object", "fields"},
    "when": {"when", "is", "fields"},
    "events": {"events", "count"},
    "hook": {"hook"},
}


def _node(raw: object) -> Node:
    if isinstance(raw, str):
        return _field(raw)
    if not isinstance(raw, dict):
        raise ValueError(f"entry {raw!r} is neither text nor a table")
    kind = next((k for k in _KEYS if k in raw), None)
    if kind is None or set(raw) - _KEYS[kind]:
        raise ValueError(f"entry with keys {sorted(raw)}: an entry is one of {', '.join(_KEYS)}, alt")
    if kind == "bits":
        return _bits(raw)
    if kind == "events":
        return Events(str(raw["events"]), _count(raw.get("count", "*")))
    if kind == "hook":
        if raw["hook"] not in HOOKS:
            raise ValueError(f"unknown hook {raw['hook']!r}: hooks.py has {', '.join(HOOKS)}")
        return Hooked(str(raw["hook"]))
    inner = tuple(_node(r) for r in _entries(raw.get("fields")))
    if kind == "object":
        return Nested(str(raw["object"]), inner)
    if kind == "when":
        return When(str(raw["when"]), tuple(_entries(raw.get("is"))), inner)
    if "count" not in raw:
        raise ValueError(f"list {raw['list']} needs a count")
    return Group(str(raw["list"]), _count(raw["count"]), inner, bool(raw.get("flat", False)))


def _included(raw: list[object], named: Mapping[str, list[object]], depth: int = 0) -> Iterator[object]:
    """The entries with @layouts and time scales put in their places."""
    if depth > 8:
        raise ValueError("layouts include each other without end")
    for entry in raw:
        if isinstance(entry, str) and entry in _TIME_SCALES:
            yield from _TIME_SCALES[entry]
        elif isinstance(entry, str) and entry.startswith("@"):
            name, _, argument = entry[1:].partition(":")
            if name not in named:
                raise ValueError(f"unknown layout @{name}")
            yield from _included(_replaced(named[name], argument.split("|")), named, depth + 1)
        elif isinstance(entry, dict) and isinstance(entry.get("fields"), list):
            yield {**entry, "fields": list(_included(entry["fields"], named, depth + 1))}
        elif isinstance(entry, dict) and isinstance(entry.get("alt"), list):
            yield {**entry, "alt": [list(_included(_entries(one), named, depth + 1)) for one in entry["alt"]]}
        else:
            yield entry


def _replaced(raw: object, arguments: list[str]) -> list[object]:
    def put(part: object) -> object:
        if isinstance(part, str):
            for letter, argument in zip("xyz", arguments, strict=False):
                part = part.replace(f"{{{letter}}}", argument)
            return part
        if isinstance(part, list):
            return [put(p) for p in part]
        if isinstance(part, dict):
            return {key: put(p) for key, p in part.items()}
        return part

    return cast("list[object]", put(raw))


def _variants(raw: Sequence[object]) -> list[tuple[list[object], tuple[str, ...]]]:
    """Every choice of alternatives as a list of entries without alt, with the editions that prefer it."""
    found: list[tuple[list[object], tuple[str, ...]]] = [([], ())]
    for entry in raw:
        options: list[tuple[list[object], tuple[str, ...]]]
        if isinstance(entry, dict) and "alt" in entry:
            if set(entry) - {"alt", "editions"}:
                raise ValueError("an alt has the keys alt and editions only")
            choices = [_entries(one) for one in _entries(entry["alt"])]
            names = entry.get("editions", [])
            if len(choices) < 2 or (names and len(names) != len(choices)):
                raise ValueError("an alt has two or more alternatives, and as many editions or none")
            options = []
            for i, choice in enumerate(choices):
                name = names[i] if names else ""
                prefer = tuple(name) if isinstance(name, list) else (str(name),) if name else ()
                options += [(inner, prefer or more) for inner, more in _variants(choice)]
        elif isinstance(entry, dict) and isinstance(entry.get("fields"), list):
            options = [([{**entry, "fields": inner}], prefer) for inner, prefer in _variants(entry["fields"])]
        else:
            options = [([entry], ())]
        found = [(head + tail, one or two) for head, one in found for tail, two in options]
        if len(found) > 16:
            raise ValueError("too many alternatives")
    return found


# --- counts ---------------------------------------------------------------------------------------------------------
def _evaluate(count: Count, env: Env) -> int:
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


# --- reading --------------------------------------------------------------------------------------------------------
def _read_run(fields: Sequence[tuple[str, Format]], kept: frozenset[str]) -> Reader:
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


def _read_one(node: Field, form: Format, kept: frozenset[str]) -> Reader:
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
        number = _evaluate(count, env)
        one = length(env, at, end)
        if number < 0:
            number = (end - at) // one if one else 0
        stop = at + number * one
        if stop > end or number > _MOST:
            raise Unfit(_SHORT)
        out[name] = [decode(buf[i : i + one]) for i in range(at, stop, one)] if one else []
        return stop

    return read_list


def _read_bits(node: Bits, kept: frozenset[str]) -> Reader:
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


def _read_group(node: Group, inner: Reader, smallest: int) -> Reader:
    name, count, flat = node.name, node.count, node.flat

    def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        number = _evaluate(count, env)
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


def _read_nested(node: Nested, inner: Reader) -> Reader:
    name = node.name

    def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        row: Data = {}
        at = inner(buf, at, end, row, env)
        out[name] = row
        return at

    return read


def _read_when(node: When, inner: Reader) -> Reader:
    field, values = node.field, node.values

    def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        return inner(buf, at, end, out, env) if env.get(field) in values else at

    return read


def _read_events(node: Events, layout_of: EventLayout) -> Reader:
    name, count = node.name, node.count

    def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        number = _evaluate(count, env)
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


def _read_hook(node: Hooked) -> Reader:
    run = HOOKS[node.name].run

    def read(_buf: bytes, at: int, _end: int, out: Data, _env: Env) -> int:
        run(out)
        return at

    return read


# --- writing --------------------------------------------------------------------------------------------------------
_NOTHING: Final = object()


def _within(name: str, error: UsageError) -> UsageError:
    joint = "" if str(error).startswith(("[", "(")) else ": "
    return UsageError(f"{name}{joint}{error}")


def _length(data: Mapping[str, object], name: str) -> int | None:
    value = data.get(name)
    return len(value) if isinstance(value, (list, tuple)) else None


def _write_field(node: Field, form: Format, counted: Callable[[Mapping[str, object]], int | None] | None) -> Writer:
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
        wanted = _evaluate(count, env)
    except Unfit as error:
        raise UsageError(f"{name}: {error}") from None
    if wanted not in (-1, length):
        raise UsageError(f"{name} has {length} elements, its count says {wanted}")


def _write_bits(node: Bits, counts: Mapping[str, Callable[[Mapping[str, object]], int | None]]) -> Writer:
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


def _write_group(node: Group, inner: Writer, keys: Sequence[str]) -> Writer:
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


def _write_nested(node: Nested, inner: Writer) -> Writer:
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


def _write_when(node: When, inner: Writer) -> Writer:
    field, values = node.field, node.values

    def write(data: Mapping[str, object], out: bytearray, env: Env) -> None:
        if env.get(field) in values:
            inner(data, out, env)

    return write


def _write_events(node: Events, layout_of: EventLayout) -> Writer:
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


def _event_body(event: Mapping[str, object], layout: Layout | None, edition: str) -> bytes:
    if "raw_hex" in event or layout is None:
        body = make_format("rest")[0].encode(event.get("raw_hex"), -1)
    else:
        size = event.get("le")
        rest = {key: value for key, value in event.items() if key not in ("erc", "le")}
        body = layout.encode(rest, edition, size if isinstance(size, int) else None)
    if len(body) > 255 or event.get("le", len(body)) != len(body):
        raise UsageError(f"the event has {len(body)} bytes, le says {event.get('le')}")
    return body


# --- putting it together --------------------------------------------------------------------------------------------
class Variant:
    """One way to lay out a data unit, compiled. size: bytes where fixed, else None; open: takes what remains."""

    __slots__ = ("_read", "_write", "editions", "keys", "nodes", "open", "size")

    def __init__(self, nodes: tuple[Node, ...], editions: tuple[str, ...], layout_of: EventLayout) -> None:
        faults: list[str] = []
        _check(nodes, set(), faults)
        if faults:
            raise ValueError("; ".join(faults))
        self.nodes = nodes
        self.editions = editions
        self._read, self._write, self.size = _compile(nodes, references(nodes), layout_of)
        self.keys = _keys(nodes)
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

    def walk(nodes: Sequence[Node]) -> Iterator[Field]:
        for node in nodes:
            if isinstance(node, Field):
                yield node
            elif isinstance(node, (Group, Nested, When)):
                yield from walk(node.fields)

    for variant in layout.variants:
        yield from walk(variant.nodes)


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


def _keys(nodes: Sequence[Node]) -> set[str]:
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
            found |= _keys(node.fields)
        else:
            found.update(HOOKS[node.name].keys)
    return found


def every_key(nodes: Sequence[Node]) -> set[str]:
    """Keys of these entries and of everything inside them."""
    inner = [every_key(node.fields) for node in nodes if isinstance(node, (Group, When))]
    return _keys(nodes).union(*inner)


def _check(nodes: Sequence[Node], known: set[str], faults: list[str]) -> None:
    """References point backwards, names are unique in their scope, unbounded entries stand last."""
    here: set[str] = set()
    for i, node in enumerate(nodes):
        inner = isinstance(node, (Group, Nested, When))
        refs = references([msgspec.structs.replace(node, fields=())] if inner else [node])
        faults += [f"{name} is not known here" for name in sorted(refs - known)]
        names = _keys([node]) if not isinstance(node, Hooked) else set()
        faults += [f"{name} twice" for name in sorted(names & here)]
        here |= names
        known = known | names
        endless = isinstance(node, (Field, Group)) and node.count is not None and node.count.kind == "end"
        if (endless or (isinstance(node, Field) and node.format == "rest")) and i + 1 < len(nodes):
            faults.append(f"{cast('Field | Group', node).name} takes all that remains and must be the last")
        if isinstance(node, (Group, Nested, When)):
            if not node.fields:
                faults.append("a list, an object or a condition has no fields")
            _check(node.fields, known, faults)
            if isinstance(node, Group) and not _smallest(node.fields):
                faults.append(f"an element of {node.name} may be empty")


def _smallest(nodes: Sequence[Node]) -> int:
    """Fewest bytes of these entries."""
    total = 0
    for node in nodes:
        if isinstance(node, Field):
            count = 1 if node.count is None else node.count.number if node.count.kind == "number" else 0
            total += make_format(node.format)[0].size * count
        elif isinstance(node, Bits):
            total += node.size
        elif isinstance(node, Nested):
            total += _smallest(node.fields)
        elif isinstance(node, Group) and node.count.kind == "number":
            total += _smallest(node.fields) * node.count.number
    return total


def _counters(nodes: Sequence[Node]) -> dict[str, Callable[[Mapping[str, object]], int | None]]:
    """For fields that count a list of the same scope: how to find the number from the data."""
    found: dict[str, Callable[[Mapping[str, object]], int | None]] = {}
    for node in nodes:
        count = node.count if isinstance(node, (Field, Group, Events)) else None
        if isinstance(node, Field) and node.size_field:
            found.setdefault(node.size_field, _size_counter(node))
        if count is not None and count.kind == "field" and isinstance(node, (Field, Group, Events)):
            found.setdefault(count.field, _list_counter(node.name, count.number))
        if isinstance(node, When):
            for name, counter in _counters(node.fields).items():
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


def _compile(nodes: Sequence[Node], kept: frozenset[str], layout_of: EventLayout) -> tuple[Reader, Writer, int | None]:
    readers: list[Reader] = []
    writers: list[Writer] = []
    run: list[tuple[str, Format]] = []
    counts = _counters(nodes)
    fixed: int | None = 0

    def flush() -> None:
        if run:
            readers.append(_read_run(tuple(run), kept))
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
                readers.append(_read_one(node, form, kept))
                many = 1 if node.count is None else node.count.number if node.count.kind == "number" else None
                size = form.size * many if form.size and many is not None else None
            writers.append(_write_field(node, form, counts.get(node.name)))
        else:
            flush()
            reader, writer, size = _compile_node(node, kept, layout_of, counts)
            readers.append(reader)
            if writer is not None:
                writers.append(writer)
        fixed = None if fixed is None or size is None else fixed + size
    flush()
    return _read_all(tuple(readers)), _write_all(tuple(writers)), fixed


def _compile_node(
    node: Bits | Group | Nested | When | Events | Hooked,
    kept: frozenset[str],
    layout_of: EventLayout,
    counts: Mapping[str, Callable[[Mapping[str, object]], int | None]],
) -> tuple[Reader, Writer | None, int | None]:
    if isinstance(node, Bits):
        return _read_bits(node, kept), _write_bits(node, counts), node.size
    if isinstance(node, Hooked):
        return _read_hook(node), None, 0
    if isinstance(node, Events):
        return _read_events(node, layout_of), _write_events(node, layout_of), None
    reader, writer, size = _compile(node.fields, kept, layout_of)
    if isinstance(node, Nested):
        return _read_nested(node, reader), _write_nested(node, writer), size
    if isinstance(node, When):
        return _read_when(node, reader), _write_when(node, writer), None
    keys = [k for n in node.fields if not isinstance(n, Hooked) for k in _names(n)]
    total = size * node.count.number if size is not None and node.count.kind == "number" else None
    return _read_group(node, reader, _smallest(node.fields)), _write_group(node, writer, keys), total


def _names(node: Node) -> list[str]:
    if isinstance(node, Bits):
        return [part.name for part in node.parts]
    return [node.name] if isinstance(node, (Field, Group, Nested, Events)) else []


def _read_all(readers: tuple[Reader, ...]) -> Reader:
    if len(readers) == 1:
        return readers[0]

    def read(buf: bytes, at: int, end: int, out: Data, env: Env) -> int:
        for one in readers:
            at = one(buf, at, end, out, env)
        return at

    return read


def _write_all(writers: tuple[Writer, ...]) -> Writer:
    def write(data: Mapping[str, object], out: bytearray, env: Env) -> None:
        for one in writers:
            one(data, out, env)

    return write


def make_layout(raw: object, named: Mapping[str, list[object]], layout_of: EventLayout) -> Layout:
    """The layout of a list of entries. ValueError names what is wrong."""
    entries = list(_included(_entries(raw), named))
    return Layout(
        [Variant(tuple(_node(r) for r in variant), editions, layout_of) for variant, editions in _variants(entries)]
    )
