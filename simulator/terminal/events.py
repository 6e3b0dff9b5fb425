"""Event memory of a terminal: 256 important and 256 ordinary records with their rolling counters (AFN 0E).

The k-th record of a kind sits at index k mod 256; EC1 (important) and EC2 (ordinary) are the next free index. Which
events are kept and which are important is a parameter (bit k = ERC k+1). Not for the layouts of the events: they are
rows of the protocol's tables.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

DEPTH: Final = 256
ERC_COUNT: Final = 64

Record = dict[str, object]


@dataclass(slots=True)
class _Ring:
    records: dict[int, Record] = field(default_factory=dict)
    counter: int = 0

    def add(self, record: Record) -> None:
        self.records[self.counter] = record
        self.counter = (self.counter + 1) % DEPTH

    def read(self, start: int, end: int) -> list[tuple[int, Record]]:
        """Stored records from index `start` up to `end` (not included), oldest first, at most to the counter."""
        found = []
        for step in range((end - start) % DEPTH):
            index = (start + step) % DEPTH
            if step and index == self.counter:
                break
            if index in self.records:
                found.append((index, self.records[index]))
        return found


@dataclass(frozen=True, slots=True)
class Reading:
    """What a master gets: pointers of the records really returned, and the records."""

    start: int
    end: int
    records: tuple[Record, ...]


@dataclass(slots=True)
class EventMemory:
    """See the head of the module. waiting: an important record was added that no master has read (ACD)."""

    waiting: bool = False
    _important: _Ring = field(default_factory=_Ring)
    _ordinary: _Ring = field(default_factory=_Ring)
    _unread: set[int] = field(default_factory=set)

    @property
    def counters(self) -> tuple[int, int]:
        """EC1, EC2."""
        return self._important.counter, self._ordinary.counter

    @property
    def unread(self) -> frozenset[int]:
        """ERC numbers with records that no master has read."""
        return frozenset(self._unread)

    def add(self, record: Record, *, important: bool) -> int:
        """Store a record; its index. `record["erc"]` is its number."""
        ring = self._important if important else self._ordinary
        index = ring.counter
        ring.add(record)
        self._unread.add(int(str(record["erc"])))
        self.waiting = self.waiting or important
        return index

    def read(self, start: int, end: int, *, important: bool, limit: int | None = None) -> Reading | None:
        """Records from `start` to before `end` as far as there are any, at most `limit`; None = nothing there.

        Reading important records answers the call of ACD.
        """
        ring = self._important if important else self._ordinary
        found = ring.read(start, end)
        if important:
            self.waiting = False
        if not found:
            return None
        found = found[:limit] if limit is not None else found
        self._unread -= {int(str(r["erc"])) for _, r in found}
        return Reading(found[0][0], (found[-1][0] + 1) % DEPTH, tuple(r for _, r in found))

    def latest(self, erc: int, count: int) -> list[Record]:
        """The last `count` records of one ERC (0 = all that are kept), newest first, important before ordinary."""
        out: list[Record] = []
        for ring in (self._important, self._ordinary):
            order = [(ring.counter - 1 - i) % DEPTH for i in range(DEPTH)]
            out += [ring.records[i] for i in order if i in ring.records and ring.records[i]["erc"] == erc]
        return out[:count] if count else out

    def delete(self, ercs: Collection[int]) -> None:
        """Forget the records of some ERC (none named: all); the counters go on."""
        for ring in (self._important, self._ordinary):
            ring.records = {i: r for i, r in ring.records.items() if ercs and r["erc"] not in ercs}
        self._unread = {e for e in self._unread if ercs and e not in ercs}

    def clear(self) -> None:
        """An initialised data area: no records, counters at zero."""
        self.waiting = False
        self._important, self._ordinary = _Ring(), _Ring()
        self._unread.clear()
