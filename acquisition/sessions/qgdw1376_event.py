"""Script that reads a terminal's event memory (AFN 0E F1 important, F2 ordinary) from where reading ended last.

Each memory is a ring of 256; the terminal's counter EC names the next free place, the session remembers the next place
to read (`ec1_read`, `ec2_read`). The place moves on only when the events are on the disk: `exchange.stored` tells the
session, and the new place travels with the events in the same batch (parameter `0E:F1`): a restart goes on there.
First contact: everything the ring may hold is asked for; parts of it that the terminal denies are empty, and when the
oldest part and the last place are, the ring was never full.

A terminal that denies even its newest event does not give its events at all: it is asked again when its counter has
moved, or after DENIAL_US; the place stays where it is. Where the newest is given, single events that are denied are
passed over for good.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Final

from ...model.lang import tr
from ...model.readings import ParameterValue
from ...protocols.common.errors import UsageError
from ...protocols.qgdw1376.units import Unit
from ..terminal import Events
from ..terminal_events import KINDS, Kind, events_of, pointer_item
from .qgdw1376 import Missing, Script, TerminalExchange
from .qgdw1376_plan import HEAD, parse_item
from .qgdw1376_transaction import Answer, Ask

AFN: Final = 0x0E
COUNTERS: Final = (0x0C, 7)
FLAG: Final[Mapping[Kind, Events]] = {"important": Events.IMPORTANT, "ordinary": Events.ORDINARY}
RING: Final = 256
MOST_REQUESTS: Final = 2 * RING  # of one memory in one conversation: a ring that fills as fast as it is read must end
_EVENT_BYTES: Final = 40

Reading = Generator[Ask, Answer | None, bool]


def events(exchange: TerminalExchange, items: tuple[str, ...]) -> Script:
    """The memories named by the items, important events first. UsageError: an item is no event memory."""
    chosen = [parse_item(text) for text in items]
    wrong = [t for t, i in zip(items, chosen, strict=True) if i is None or i.afn != AFN or i.fn not in KINDS]
    if wrong:
        names = ", ".join(wrong)
        raise UsageError(tr(f"{names}: events are 0E:F1 and 0E:F2", f"{names}: 事件数据项为 0E:F1 与 0E:F2"))
    return _events(exchange, sorted({i.fn for i in chosen if i is not None}))


def _events(exchange: TerminalExchange, fns: list[int]) -> Script:
    counters = yield from _counters(exchange)
    if counters is None:
        return
    ends: dict[Events, tuple[int, int]] = {}
    for fn in fns:
        kind = KINDS[fn]
        if exchange.session.denies_events(FLAG[kind], counters[fn - 1], exchange.now_us) and not exchange.item.forced:
            continue
        start = _read_so_far(exchange, kind)
        place = yield from _memory(exchange, fn, counters[fn - 1])
        if place != start and place is not None:
            ends[FLAG[kind]] = (place if start is None else start, place)
            value = ParameterValue(
                device=exchange.device.id, item=pointer_item(fn), value=str(place), time_us=exchange.now_us
            )
            exchange.parameters.append(value)
    session = exchange.session

    def stored() -> None:
        for flag, (first, beyond) in ends.items():
            session.events_read(flag, first, beyond)

    exchange.stored = stored


def _read_so_far(exchange: TerminalExchange, kind: Kind) -> int | None:
    return exchange.session.ec1_read if kind == "important" else exchange.session.ec2_read


def _counters(exchange: TerminalExchange) -> Generator[Ask, Answer | None, tuple[int, int] | None]:
    """(EC1, EC2): asked for; a terminal that does not tell is taken at the word of its frames."""
    afn, fn = COUNTERS
    try:
        answer = yield from exchange.asked(Ask(afn=afn, units=(Unit(0, fn, {}),)))
    except Missing as missing:
        session = exchange.session
        if missing.silent or session.ec1 is None or session.ec2 is None:
            exchange.fault(f"{afn:02X}:F{fn}", missing)
            return None
        exchange.refused = False
        return session.ec1, session.ec2
    for unit in answer.units():
        if unit.fn == fn and unit.data is not None:
            ec1, ec2 = unit.data.get("ec1"), unit.data.get("ec2")
            if isinstance(ec1, int) and isinstance(ec2, int):
                exchange.session.saw(False, (ec1, ec2), exchange.now_us)
                return ec1, ec2
    exchange.fault(f"{afn:02X}:F{fn}", Missing("the answer holds no event counters"))
    return None


def _memory(exchange: TerminalExchange, fn: int, end: int) -> Generator[Ask, Answer | None, int | None]:
    """Read up to `end` (and what comes meanwhile); the place to read next, None: as before."""
    kind = KINDS[fn]
    known = _read_so_far(exchange, kind)
    place = (end + 1) % RING if known is None else known
    step = max(1, min(exchange.plan.event_batch, (exchange.plan.answer_bytes - HEAD) // _EVENT_BYTES))
    first = known is None
    empty: bool | None = None  # whether nothing stands behind the next free place
    given = False  # the terminal gives events at all
    for _ in range(MOST_REQUESTS):
        if place == end:
            return place
        ahead = min(step, (end - place) % RING)
        if first:  # a ring that never was full is empty up to its end
            ahead = min(ahead, RING - place)
        stop = (place + ahead) % RING
        ask = Ask(afn=AFN, units=(Unit(0, fn, {"pm": place, "pn": stop}),), answer_bytes=HEAD + step * _EVENT_BYTES)
        try:
            answer = yield from exchange.asked(ask)
            place, end = _take(exchange, answer, fn, kind, place, stop, end)
            given = True
        except Missing as missing:
            oldest = first and place > end
            if missing.denied and not given and not oldest:
                newest = (end - 1) % RING
                if place == newest or (yield from _denied(exchange, fn, newest)):
                    _gives_none(exchange, fn, end, missing)
                    return None
                given = True
            if missing.denied and first:
                if place > end and empty is None:  # the oldest part: was the ring ever full?
                    empty = yield from _denied(exchange, fn, RING - 1)
                place = 0 if place > end and empty else stop
                exchange.refused = False
                continue
            if missing.denied and step > 1:
                step = 1  # one by one: an event that cannot be read must not hide its neighbours
                continue
            name = f"{pointer_item(fn)} {place}"
            if missing.denied:
                exchange.fault(name, Missing(missing.reason, final=True))
                place = stop
                continue
            exchange.fault(name, missing)
            return None if first and place == known else place
    exchange.fault(pointer_item(fn), Missing("events come quicker than they can be read"))
    return place


def _gives_none(exchange: TerminalExchange, fn: int, end: int, missing: Missing) -> None:
    """The terminal denies its newest event too."""
    exchange.session.events_denied(FLAG[KINDS[fn]], end, exchange.now_us)
    exchange.refused = True
    why = f"{missing.reason}; it is asked again when its event counter has moved, or in a day"
    exchange.fault(pointer_item(fn), Missing(why))


def _denied(exchange: TerminalExchange, fn: int, place: int) -> Generator[Ask, Answer | None, bool]:
    """Whether the terminal says that nothing stands at a place."""
    ask = Ask(afn=AFN, units=(Unit(0, fn, {"pm": place, "pn": (place + 1) % RING}),), answer_bytes=HEAD + _EVENT_BYTES)
    try:
        yield from exchange.asked(ask)
    except Missing as missing:
        if missing.denied:
            exchange.refused = False
        return missing.denied
    return False


def _take(
    exchange: TerminalExchange, answer: Answer, fn: int, kind: Kind, place: int, stop: int, end: int
) -> tuple[int, int]:
    """Keep the events of an answer: (place to read next, end). Missing: it is not what was asked for."""
    for unit in answer.units():
        if unit.fn != fn or unit.data is None:
            continue
        found, start, beyond = events_of(exchange.device, unit.data, kind, exchange.now_us)
        moved = (beyond - place) % RING
        if start != place or not 0 < moved <= (stop - place) % RING:
            continue
        exchange.events += found
        place = beyond
        counter = unit.data.get("ec1" if kind == "important" else "ec2")
        if isinstance(counter, int) and (counter - end) % RING < RING // 2:
            end = counter
        return place, end
    broken = next((u.fault for u in answer.units() if u.fault), "")
    raise Missing(broken or f"the answer is not about events {place} to {stop}")
