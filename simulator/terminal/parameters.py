"""The parameters of a terminal (AFN 04 / 0A): decoded data units keyed (Fn, pn), with the rules of lists.

Some classes are lists of entries that are written, deleted and asked one by one (devices, total-add groups, ports …);
`LISTS` says which field holds the list, which one is the key and what deletes an entry. Not for what the parameters
mean: that is `settings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from . import fields

Unit = dict[str, object]
Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ListRule:
    """How a list class is kept: its list, the key of the entries (a question lists keys under it), what deletes one."""

    name: str
    key: str
    deletes: Callable[[fields.Data], bool] = lambda entry: False


LISTS: Final[dict[int, ListRule]] = {
    10: ListRule("devices", "device_no", lambda e: fields.integer(e, "pn") == 0),
    11: ListRule("pulses", "port"),
    13: ListRule("inputs", "port"),
    14: ListRule("groups", "group", lambda e: fields.integer(e, "m") == 0),
    15: ListRule("groups", "id"),
    33: ListRule("ports", "port"),
    34: ListRule("ports", "port"),
    38: ListRule("small", "small_class"),
    39: ListRule("small", "small_class"),
}
BY_CLASS: Final = frozenset({38, 39})
"""Kept for each big class of users: the class stands where other lists have pn 0."""
COMMUNICATION: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 16})
"""Classes that AFN 01 F4 keeps."""


@dataclass(slots=True)
class Parameters:
    """values: what is set now; factory: what AFN 01 F3 brings back. lists: rules of this edition's list classes."""

    factory: Mapping[Key, Unit] = field(default_factory=dict)
    lists: Mapping[int, ListRule] = field(default_factory=lambda: LISTS)
    values: dict[Key, Unit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = {k: dict(v) for k, v in self.factory.items()} | self.values

    def get(self, fn: int, pn: int = 0) -> Unit | None:
        """The unit as a whole; None = not set."""
        return self.values.get((fn, pn))

    def put(self, fn: int, pn: int, data: fields.Data) -> None:
        """Set a class; entries of a list class are merged by their key."""
        rule = self.lists.get(fn)
        if rule is None:
            self.values[fn, pn] = dict(data)
            return
        if fn in BY_CLASS:
            pn = fields.integer(data, "big_class")
        kept = {fields.integer(e, rule.key): e for e in fields.rows(self.values.get((fn, pn)), rule.name)}
        for entry in fields.rows(data, rule.name):
            kept.pop(fields.integer(entry, rule.key), None)
            if not rule.deletes(entry):
                kept[fields.integer(entry, rule.key)] = entry
        entries = [kept[k] for k in sorted(kept)]
        self.values[fn, pn] = {**data, "m" if fn in BY_CLASS else "n": len(entries), rule.name: entries}

    def answer(self, fn: int, pn: int, request: fields.Data | None = None) -> Unit | None:
        """What AFN 0A gives: of a list class the entries that were asked for (none named: all)."""
        if fn in BY_CLASS:
            pn = fields.integer(request, "big_class")
        found = self.values.get((fn, pn))
        rule = self.lists.get(fn)
        if found is None or rule is None:
            return found
        asked = (request or {}).get(rule.key)
        entries = fields.rows(found, rule.name)
        if isinstance(asked, list | tuple) and asked:
            entries = [e for e in entries if fields.integer(e, rule.key) in asked]
        return {**found, "m" if fn in BY_CLASS else "n": len(entries), rule.name: entries} if entries else None

    def entries(self, fn: int, pn: int = 0) -> Iterator[Unit]:
        """Entries of a list class."""
        rule = self.lists.get(fn)
        if rule is not None:
            yield from fields.rows(self.values.get((fn, pn)), rule.name)

    def known(self) -> frozenset[int]:
        """Fn that are set for any point."""
        return frozenset(fn for fn, _ in self.values)

    def reset(self, *, keep_communication: bool) -> None:
        """Back to the factory's; optionally without the classes that reach the master."""
        kept = {k: v for k, v in self.values.items() if keep_communication and k[0] in COMMUNICATION}
        self.values = {k: dict(v) for k, v in self.factory.items()} | kept
