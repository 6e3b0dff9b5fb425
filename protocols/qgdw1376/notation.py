"""The notation of layouts in items/*.toml, read into nodes.

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
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

from .formats import make_format
from .hooks import HOOKS
from .nodes import BitPart, Bits, Count, Events, Field, Group, Hooked, Nested, Node, When

_TIME_SCALES: Final = {
    "td_c": ("td_c A.15", "density u1", "n u1"),
    "td_d": ("td_d A.20",),
    "td_m": ("td_m A.21",),
    "td_h": ("td_h bcd1", "density u1"),
}


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
    parts = tuple(_bit_part(str(t)) for t in as_list(raw["bits"]))
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


def as_list(raw: object) -> list[object]:
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


def parse_entry(raw: object) -> Node:
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
    inner = tuple(parse_entry(r) for r in as_list(raw.get("fields")))
    if kind == "object":
        return Nested(str(raw["object"]), inner)
    if kind == "when":
        return When(str(raw["when"]), tuple(as_list(raw.get("is"))), inner)
    if "count" not in raw:
        raise ValueError(f"list {raw['list']} needs a count")
    return Group(str(raw["list"]), _count(raw["count"]), inner, bool(raw.get("flat", False)))


def included(raw: list[object], named: Mapping[str, list[object]], depth: int = 0) -> Iterator[object]:
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
            yield from included(_replaced(named[name], argument.split("|")), named, depth + 1)
        elif isinstance(entry, dict) and isinstance(entry.get("fields"), list):
            yield {**entry, "fields": list(included(entry["fields"], named, depth + 1))}
        elif isinstance(entry, dict) and isinstance(entry.get("alt"), list):
            yield {**entry, "alt": [list(included(as_list(one), named, depth + 1)) for one in entry["alt"]]}
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


def expand(raw: Sequence[object]) -> list[tuple[list[object], tuple[str, ...]]]:
    """Every choice of alternatives as a list of entries without alt, with the editions that prefer it."""
    found: list[tuple[list[object], tuple[str, ...]]] = [([], ())]
    for entry in raw:
        options: list[tuple[list[object], tuple[str, ...]]]
        if isinstance(entry, dict) and "alt" in entry:
            if set(entry) - {"alt", "editions"}:
                raise ValueError("an alt has the keys alt and editions only")
            choices = [as_list(one) for one in as_list(entry["alt"])]
            names = entry.get("editions", [])
            if len(choices) < 2 or (names and len(names) != len(choices)):
                raise ValueError("an alt has two or more alternatives, and as many editions or none")
            options = []
            for i, choice in enumerate(choices):
                name = names[i] if names else ""
                prefer = tuple(name) if isinstance(name, list) else (str(name),) if name else ()
                options += [(inner, prefer or more) for inner, more in expand(choice)]
        elif isinstance(entry, dict) and isinstance(entry.get("fields"), list):
            options = [([{**entry, "fields": inner}], prefer) for inner, prefer in expand(entry["fields"])]
        else:
            options = [([entry], ())]
        found = [(head + tail, one or two) for head, one in found for tail, two in options]
        if len(found) > 16:
            raise ValueError("too many alternatives")
    return found
