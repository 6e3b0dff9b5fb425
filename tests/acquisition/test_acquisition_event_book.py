"""Whatever happens between two questions, every event that is still in a meter's memory ends up in the store, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from fuhe.acquisition.event_book import FELL, LOST, PREFIX, EventBook, Settled, settled_of
from fuhe.model.readings import DeviceEvent, ReadingBatch
from fuhe.model.work import EventCount, ItemFault, Outcome, Priority, Status, WorkItem
from fuhe.protocols.dlt645.events import kinds_counted, record_di

POWER, COVER = "03110000", "03300D00"
DEPTH = 10


class Meter:
    """A meter with a memory of ten records of each kind; `between` runs before every question."""

    def __init__(self) -> None:
        self.number = 0
        self.records: dict[str, list[tuple[int, int | None]]] = {POWER: [], COVER: []}
        self.count = {POWER: 0, COVER: 0}
        self.asked: list[str] = []

    def happen(self, code: str, *, goes_on: bool = False) -> None:
        self.end(code)  # of one kind, one goes on at a time
        self.number += 2
        self.count[code] += 1
        self.records[code] = [(self.number, None if goes_on else self.number + 1), *self.records[code]][:DEPTH]

    def end(self, code: str) -> None:
        self.records[code] = [(t, e or t + 1) for t, e in self.records[code]]

    def exchange(self) -> None:
        self.records = {code: [] for code in self.records}
        self.count = dict.fromkeys(self.count, 0)

    def counts(self) -> tuple[EventCount, ...]:
        return tuple(EventCount(code=c, count=n, item=c) for c, n in self.count.items())

    def converse(
        self, items: Sequence[str], between: Callable[[], None] = lambda: None, silent: frozenset[str] = frozenset()
    ) -> Outcome:
        events, faults, counts = [], [], []
        for di in items:
            between()
            self.asked.append(di)
            if di in silent:
                faults.append(ItemFault(item=di, reason="no answer"))
                continue
            code, number = di[:6] + "00", int(di[6:], 16)
            if kinds_counted(di):
                counts.append(EventCount(code=code, count=self.count[code], item=di))
            elif number <= len(self.records[code]):
                time_us, end_us = self.records[code][number - 1]
                events.append(event(code, time_us, end_us))
        batch = ReadingBatch(received_us=0, events=tuple(events)) if events else None
        return Outcome(status=Status.DONE, batch=batch, faults=tuple(faults), counts=tuple(counts))


def event(code: str, time_us: int, end_us: int | None) -> DeviceEvent:
    return DeviceEvent(device=1, point=1, time_us=time_us, end_us=end_us, code=code, data={"event": "x"})


class Server:
    """A book with a store that outlives it."""

    def __init__(self, meter: Meter, records: int = DEPTH) -> None:
        self.meter, self.limit = meter, records
        self.events: set[tuple[str, int, int | None]] = set()
        self.remarks: list[DeviceEvent] = []
        self.kept: dict[str, str] = {}
        self.priorities: list[Priority] = []
        self.restart()

    def restart(self) -> None:
        self.book = EventBook(lambda _: self.limit)
        self.book.load((1, item, value) for item, value in self.kept.items())

    def cycle(
        self, between: Callable[[], None] = lambda: None, silent: frozenset[str] = frozenset(), *, stored: bool = True
    ) -> int:
        """The counts are read and what follows is done; how many conversations followed."""
        item = self.book.counted(1, self.meter.counts(), 0.0)
        done = 0
        while item is not None:
            done += 1
            self.priorities.append(item.priority)
            outcome = self.meter.converse(item.items, between, silent)
            item = self.take(item, outcome, stored=stored)
        return done

    def take(self, item: WorkItem, outcome: Outcome, *, stored: bool = True) -> WorkItem | None:
        for e in outcome.batch.events if outcome.batch is not None else ():
            self.events.add((e.code, e.time_us, e.end_us))
        fetched = self.book.fetched(item, outcome, 10**9)
        assert fetched is not None
        if not stored:
            return None
        if fetched.batch is not None:
            self.kept |= {p.item: p.value for p in fetched.batch.parameters}
            self.remarks += fetched.batch.events
        self.book.settle(fetched)
        return self.book.counted(1, fetched.counts, 0.0, fetched.rounds)

    def has_all(self) -> bool:
        return all(
            (code, time_us, end_us) in self.events
            for code, kept in self.meter.records.items()
            for time_us, end_us in kept[: self.limit]
        )


def test_the_first_sight_fetches_the_memory_without_hurry_and_a_rise_only_what_is_new() -> None:
    meter = Meter()
    for _ in range(4):
        meter.happen(POWER)
    server = Server(meter)
    assert server.cycle() == 1 and server.has_all()
    assert server.priorities == [Priority.RECALL]
    assert meter.asked == [record_di(POWER, n) for n in (1, 2, 3, 4)] + [POWER]
    meter.asked.clear()
    meter.happen(POWER)
    meter.happen(COVER)
    assert server.cycle() == 1 and server.has_all()
    assert meter.asked == [record_di(POWER, 1), record_di(COVER, 1), POWER, COVER]
    assert server.priorities[-1] is Priority.EVENT
    assert server.cycle() == 0


def test_a_restart_goes_on_from_what_was_settled() -> None:
    meter = Meter()
    server = Server(meter)
    for _ in range(3):
        meter.happen(POWER)
    server.cycle()
    meter.happen(POWER)
    server.restart()
    meter.asked.clear()
    assert server.cycle() == 1 and server.has_all()
    assert meter.asked == [record_di(POWER, 1), POWER]


def test_an_event_in_between_is_not_lost() -> None:
    meter = Meter()
    server = Server(meter)
    server.cycle()
    for _ in range(3):
        meter.happen(POWER)
    left = [1]

    def between() -> None:
        if len(meter.asked) == 1 and left:
            left.pop()
            meter.happen(POWER)

    assert server.cycle(between) == 2
    assert server.has_all() and server.kept == {PREFIX + POWER: "4"}


def test_silence_in_the_middle_settles_nothing_and_the_next_cycle_fetches_it() -> None:
    meter = Meter()
    server = Server(meter)
    server.cycle()
    for _ in range(3):
        meter.happen(POWER)
    meter.happen(COVER)
    server.cycle(silent=frozenset({record_di(POWER, 2)}))
    assert server.kept == {PREFIX + COVER: "1"} and not server.has_all()
    server.restart()
    server.cycle()
    assert server.has_all() and server.kept[PREFIX + POWER] == "3"


def test_a_count_that_was_not_read_again_settles_nothing() -> None:
    meter = Meter()
    server = Server(meter)
    server.cycle()
    meter.happen(POWER)
    server.cycle(silent=frozenset({POWER}))
    assert server.kept == {}


def test_more_events_than_the_memory_holds_are_told_as_lost() -> None:
    meter = Meter()
    server = Server(meter)
    meter.happen(POWER)
    server.cycle()
    for _ in range(13):
        meter.happen(POWER)
    server.cycle()
    assert server.has_all()
    assert [r.data for r in server.remarks] == [{"event": LOST, "count": 14, "lost": 3}]
    assert server.cycle() == 0 and len(server.remarks) == 1


def test_another_meter_is_told_and_its_memory_fetched() -> None:
    meter = Meter()
    server = Server(meter)
    for _ in range(5):
        meter.happen(POWER)
    server.cycle()
    meter.exchange()
    meter.happen(POWER)
    meter.happen(POWER)
    server.cycle()
    assert server.has_all() and server.kept == {PREFIX + POWER: "2"}
    assert [r.data for r in server.remarks] == [{"event": FELL, "before": 5, "count": 2}]
    meter.exchange()  # events cleared: nothing to fetch, but told and settled once
    server.cycle()
    assert server.kept == {PREFIX + POWER: "0"} and len(server.remarks) == 2
    assert server.cycle() == 0


def test_an_event_that_goes_on_is_read_again_until_it_has_its_end() -> None:
    meter = Meter()
    server = Server(meter)
    server.cycle()
    meter.happen(POWER, goes_on=True)
    server.cycle()
    assert server.kept == {PREFIX + POWER: "1 open"}
    server.restart()
    assert server.cycle() == 1
    meter.end(POWER)
    server.cycle()
    assert server.has_all() and server.kept == {PREFIX + POWER: "1"}
    assert server.cycle() == 0


def test_a_profile_without_records_asks_for_none() -> None:
    meter = Meter()
    meter.happen(POWER)
    assert Server(meter, records=0).cycle() == 0


def test_what_the_sink_refused_is_not_settled() -> None:
    meter = Meter()
    server = Server(meter)
    meter.happen(POWER)
    item = server.book.counted(1, meter.counts(), 0.0)
    assert item is not None
    outcome = meter.converse(item.items)
    fetched = server.book.fetched(item, Outcome(status=Status.BROKEN, counts=outcome.counts), 1)
    assert fetched is not None and fetched.batch is None and not fetched.settled


def test_a_foreign_item_is_left_alone_and_one_conversation_a_device_is_enough() -> None:
    meter = Meter()
    server = Server(meter)
    meter.happen(POWER)
    item = server.book.counted(1, meter.counts(), 0.0)
    assert item is not None and server.book.is_ours(item)
    meter.happen(COVER)
    assert server.book.counted(1, meter.counts(), 0.0) is None
    other = WorkItem(device=2, duty=item.duty, priority=item.priority, expires_s=0.0, items=item.items)
    assert not server.book.is_ours(other) and server.book.fetched(other, meter.converse(()), 0) is None
    more = server.take(item, meter.converse(item.items))
    assert more is not None and more.items == (record_di(COVER, 1), COVER)


@given(st.text(max_size=12))
def test_any_text_is_a_settled_count_or_none(text: str) -> None:
    found = settled_of(text)
    assert found is None or settled_of(found.text) == found


def test_settled_round_trip() -> None:
    assert settled_of(Settled(7, True).text) == Settled(7, True) and settled_of("7 closed") is None


STEP = st.sampled_from(["power", "cover", "open", "end", "exchange", "cycle", "restart", "crash", "silent", "busy"])


@given(st.lists(STEP, max_size=40), st.randoms(use_true_random=False))
def test_in_the_end_everything_that_is_kept_has_been_fetched(steps: list[str], random: object) -> None:
    meter = Meter()
    server = Server(meter)

    def busy() -> None:
        if random.random() < 0.2:  # type: ignore[attr-defined]
            meter.happen(random.choice([POWER, COVER]))  # type: ignore[attr-defined]

    for step in steps:
        match step:
            case "power" | "cover":
                meter.happen(POWER if step == "power" else COVER)
            case "open":
                meter.happen(POWER, goes_on=True)
            case "end":
                meter.end(POWER)
            case "exchange":
                meter.exchange()
                server.cycle()  # two exchanges with the same count between two cycles cannot be told apart
            case "cycle":
                server.cycle()
            case "restart":
                server.restart()
            case "crash":
                server.cycle(stored=False)
                server.restart()
            case "silent":
                server.cycle(silent=frozenset({record_di(POWER, random.randint(1, 10)), COVER}))  # type: ignore[attr-defined]
            case "busy":
                server.cycle(busy)
    server.cycle()
    server.cycle()
    assert server.has_all()
    meter.asked.clear()
    open_now = any(end is None for kept in meter.records.values() for _, end in kept)
    assert server.cycle() <= int(open_now)
