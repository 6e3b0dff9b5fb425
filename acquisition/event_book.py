"""Which event records are still to be fetched: what devices count, against the counts whose records we have. Pure.

A device that counts a kind of event is asked for the records that the count says are new, the last one first, at most
`records` of its profile (its memory has no more). The same conversation reads the count once more at its end: only if
it is what it was, nothing can have slipped in between and the count is settled; else the records are fetched again,
which is harmless, because an event is stored once. A record that goes on (no end yet) is read again with every count.
What is settled travels through the journal as a parameter value, behind the records it speaks of: a restart goes on
there.

    first sight     everything that the memory holds, without hurry
    count fell      another meter, or its events were cleared: told as an event, then as at first sight
    count rose by more than the memory: told as an event, then what is left of it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..model.readings import DeviceEvent, ParameterValue, ReadingBatch
from ..model.work import Duty, EventCount, Outcome, Priority, Status, WorkItem
from ..protocols.dlt645.events import lasts, record_di

PREFIX: Final = "events:"
"""Parameters called so and then a code hold what is settled: the count, and `open` while the last record has no end."""

FELL: Final = "count_fell"
LOST: Final = "records_lost"
MOST_RECORDS: Final = 40  # in one conversation; what is left comes in the next
MOST_ROUNDS: Final = 3  # conversations in a row with one device; then its next cycle goes on
LIFETIME_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Settled:
    """The records up to this count have been fetched; `open`: the last of them had no end yet."""

    count: int
    open: bool = False

    @property
    def text(self) -> str:
        """As it is kept."""
        return f"{self.count} open" if self.open else str(self.count)


def settled_of(text: str) -> Settled | None:
    """What `Settled.text` says; None for a text of another kind."""
    number, _, rest = text.partition(" ")
    return Settled(int(number), rest == "open") if number.isdecimal() and rest in ("", "open") else None


@dataclass(frozen=True, slots=True)
class _Want:
    """Records 1 … `records` of a kind, because its count was `counted`. before: what was settled then."""

    counted: EventCount
    records: int
    before: Settled | None

    @property
    def items(self) -> tuple[str, ...]:
        return tuple(record_di(self.counted.code, n) for n in range(1, self.records + 1))


@dataclass(slots=True)
class _Flight:
    """A conversation under way, and the newest counts of the kinds it left out."""

    item: WorkItem
    wants: tuple[_Want, ...]
    rounds: int
    later: dict[str, EventCount] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of a conversation. batch: to be stored durably before `settle`; settled: by code."""

    device: int
    batch: ReadingBatch | None
    settled: dict[str, Settled]
    counts: tuple[EventCount, ...]
    rounds: int


class EventBook:
    """Settled counts of all devices, and at most one conversation a device. `records(device)`: how deep to fetch."""

    def __init__(self, records: Callable[[int], int]) -> None:
        self._records = records
        self._settled: dict[tuple[int, str], Settled] = {}
        self._flights: dict[int, _Flight] = {}

    @property
    def flying(self) -> int:
        """Conversations under way."""
        return len(self._flights)

    def load(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """Take over (device, parameter, value) as stored; other parameters are passed over."""
        for device, item, value in rows:
            settled = settled_of(value)
            if item.startswith(PREFIX) and settled is not None:
                self._settled[device, item.removeprefix(PREFIX)] = settled

    def counted(self, device: int, counts: Sequence[EventCount], now_s: float, rounds: int = 0) -> WorkItem | None:
        """A device has told its counts: the conversation to begin now, if there is one. `now_s` is monotonic."""
        flight = self._flights.get(device)
        if flight is not None:
            flight.later |= {c.code: c for c in counts}
            return None
        wants, later = self._wants(device, counts)
        if not wants or rounds >= MOST_ROUNDS:
            return None
        records = tuple(di for want in wants for di in want.items)
        checks = tuple(dict.fromkeys(want.counted.item for want in wants))
        news = any(want.before is not None and want.counted.count > want.before.count for want in wants)
        item = WorkItem(
            device=device,
            duty=Duty.EVENT,
            priority=Priority.EVENT if news else Priority.RECALL,
            expires_s=now_s + LIFETIME_S,
            items=records + checks,
        )
        self._flights[device] = _Flight(item, wants, rounds + 1, later)
        return item

    def _wants(self, device: int, counts: Sequence[EventCount]) -> tuple[tuple[_Want, ...], dict[str, EventCount]]:
        """The kinds of which records are wanted, as many as one conversation takes, and those that wait."""
        wants: list[_Want] = []
        later: dict[str, EventCount] = {}
        most = self._records(device)
        room = MOST_RECORDS
        for counted in counts if most else ():
            before = self._settled.get((device, counted.code))
            records = min(_new(before, counted.count), most)
            if before is None and not records:
                self._settled[device, counted.code] = Settled(0)  # not kept: at a restart it is seen for the first time
            elif before is not None and counted.count < before.count and not records:
                wants.append(_Want(counted, 0, before))
            elif records > room:
                later[counted.code] = counted
            elif records:
                wants.append(_Want(counted, records, before))
                room -= records
        return tuple(wants), later

    def is_ours(self, item: WorkItem) -> bool:
        """Whether this item is a conversation begun here."""
        flight = self._flights.get(item.device)
        return flight is not None and flight.item.key == item.key

    def fetched(self, item: WorkItem, outcome: Outcome, now_us: int) -> Fetched | None:
        """The conversation has ended. None: not one of ours. What was not settled comes with the next counts."""
        if not self.is_ours(item):
            return None
        flight = self._flights.pop(item.device)
        stored = outcome.status in (Status.DONE, Status.PARTIAL)  # not so where the sink refused what was read
        after = {c.code: c for c in outcome.counts if stored}
        unread = {fault.item for fault in outcome.faults if not fault.final}
        events = outcome.batch.events if outcome.batch is not None else ()
        settled: dict[str, Settled] = {}
        told: list[DeviceEvent] = []
        for want in flight.wants:
            code, count = want.counted.code, want.counted.count
            if code not in after or unread.intersection(want.items) or after[code].count != count:
                continue
            settled[code] = Settled(count, _goes_on(code, events))
            told += _remarks(item.device, want, now_us)
        changed = {c: s for c, s in settled.items() if self._settled.get((item.device, c)) != s}
        parameters = tuple(
            ParameterValue(device=item.device, item=PREFIX + code, value=s.text, time_us=now_us)
            for code, s in changed.items()
        )
        batch = ReadingBatch(received_us=now_us, events=tuple(told), parameters=parameters) if parameters else None
        again = {c: n for c, n in after.items() if c not in settled}
        counts = tuple((flight.later | again).values())
        return Fetched(item.device, batch, settled, counts, flight.rounds)

    def settle(self, fetched: Fetched) -> None:
        """Its batch is on the disk."""
        self._settled |= {(fetched.device, code): s for code, s in fetched.settled.items()}


def _new(before: Settled | None, count: int) -> int:
    """How many records the count says are not known yet, or not to their end."""
    if before is None or count < before.count:
        return count
    return count - before.count + int(before.open)


def _goes_on(code: str, events: Sequence[DeviceEvent]) -> bool:
    """Whether the newest of the kind has no end although it will have one."""
    newest = max((e for e in events if e.code == code), key=lambda e: e.time_us, default=None)
    return newest is not None and newest.end_us is None and lasts(code)


def _remarks(device: int, want: _Want, now_us: int) -> Iterable[DeviceEvent]:
    """What the server itself has to say of a count."""
    if want.before is None:
        return
    before, count = want.before.count, want.counted.count
    if count < before:
        data: dict[str, object] = {"event": FELL, "before": before, "count": count}
    elif count - before > want.records > 0:
        data = {"event": LOST, "count": count, "lost": count - before - want.records}
    else:
        return
    yield DeviceEvent(device=device, point=None, time_us=now_us, end_us=None, code=want.counted.code, data=data)
