"""Events of DL/T 645-2007 (class 03): which records a counter counts, and how a record reads for people.

A counter (DI0 = 00) holds how often something has happened, in total or by phase; record n (DI0 = 01 … 0A, 1 = the
last) tells of the n-th last time. The code of an event is its record's identifier with the number 00. Not for classes
1D and 1E (trip and close): their records differ between makers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from .fields import Value
from .items import lookup, words

DEPTH: Final = 10
"""How many records of a kind a meter keeps (table A.4)."""

_CODE: Final = re.compile(r"03[0-9A-F]{4}00")


@cache
def kinds_counted(di: str) -> tuple[tuple[str, str], ...]:
    """(code, name of the field that counts it) of each kind of event behind the counter `di`; none = no counter."""
    item = lookup(di)
    if item is None or not _CODE.fullmatch(di) or di[4:6] == "FF":
        return ()
    counts = [f.name for f in item.fields if f.name.endswith("count")]
    many = len(counts) > 1
    codes = [f"{di[:4]}{i:02X}00" if many else di for i in range(1, len(counts) + 1)]
    found = tuple(zip(codes, counts, strict=True))
    return found if all(_has_records(code) for code in codes) else ()


def _has_records(code: str) -> bool:
    item = lookup(record_di(code, 1))
    return item is not None and item.record == 1


def record_di(code: str, number: int) -> str:
    """Identifier of the `number`-th last record of a kind."""
    return f"{code[:6]}{number:02X}"


def counts_of(di: str, values: Sequence[Value]) -> list[tuple[str, int]]:
    """(code, count) of every kind that a counter's reply tells of; a count that is not fitted is left out."""
    by_name = {v.name: v.value for v in values}
    pairs = [(code, by_name.get(name)) for code, name in kinds_counted(di)]
    return [(code, int(count)) for code, count in pairs if count is not None]  # type: ignore[arg-type]


@cache
def lasts(code: str) -> bool:
    """Whether this kind has an end: a record without one tells of something that still goes on."""
    item = lookup(record_di(code, 1))
    return item is not None and any(f.name == "end" for f in item.fields)


def title(code: str) -> tuple[str, str] | None:
    """(English, 中文) name of a kind; None for a code that is not of this protocol's events."""
    item = lookup(record_di(code, 1)) if _CODE.fullmatch(code) else None
    if item is None or item.record is None:
        return None
    return item.name.replace("_", " "), item.zh.removesuffix("记录")


def content(code: str, data: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(English label, 中文 label, value with unit) of what a record says, in its order, without its times."""
    item = lookup(record_di(code, 1))
    units = {f.name: f.unit for f in item.fields} if item is not None else {}
    for name, value in data.items():
        if name in ("event", "start", "end", "time") or value is None:
            continue
        if name.startswith("item_") and not str(value).strip("F0"):
            continue  # unused places of the list of what was programmed
        yield name.replace("_", " "), label_zh(name), f"{value} {units.get(name, '')}".rstrip()


def label_zh(name: str) -> str:
    """Chinese label of a record's field; the English name where the table has no word."""
    table = words()
    number = re.fullmatch(r"(.*)_(\d+)", name)
    suffix = ""
    if number and name not in table["fields"]:
        name, suffix = number[1], number[2]
    if name in table["fields"]:
        return table["fields"][name] + suffix
    place, _, rest = name.partition("_")
    if place in table["places"] and rest in table["fields"]:
        return table["places"][place] + table["fields"][rest] + suffix
    return name.replace("_", " ") + suffix
