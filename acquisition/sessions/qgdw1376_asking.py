"""Asking a terminal for many data units: in batches that it bears, what it leaves out noted unit by unit.

Partial answers are normal (the terminal clears the bits that it cannot serve): what is missing becomes a fault of that
item and point. Shared by the scripts of qgdw1376_read, qgdw1376_parameter and qgdw1376_curve.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Final

from ...protocols.qgdw1376.table import Row
from .qgdw1376 import Missing, TerminalExchange
from .qgdw1376_plan import HEAD, Item, Want, batches, wants_of
from .qgdw1376_transaction import Answer, Ask, Key

Take = Callable[[Answer, Sequence[Want]], set[Key]]
HISTORY: Final = 0x0D
Asked = Generator[Ask, Answer | None, bool]


def ask_all(exchange: TerminalExchange, wants: Iterable[Want], take: Take) -> Asked:
    """Ask for everything in as few requests as the terminal bears; True = give up on this terminal.

    `take` keeps the data of an answer and tells which (pn, Fn) it held; the others become faults.
    """
    for batch in batches(wants, exchange.plan):
        if (yield from ask_batch(exchange, batch, take)):
            return True
    return False


def ask_batch(exchange: TerminalExchange, batch: Sequence[Want], take: Take) -> Asked:
    """One request. With the quirk `denies = whole` (one bad item spoils the frame) a denied one is asked in halves.

    There what was denied alone is left out for DENIAL_US (a person's question excepted, and history, of which one day
    may be there and another not), so that the search for it is not made again in every cycle; when nothing else is left
    it is asked for as it is, once.
    """
    session, whole = exchange.session, exchange.profile.quirks.get("denies") == "whole"
    if whole and not exchange.item.forced:
        known = [want for want in batch if session.denies(_unit(want), exchange.now_us)]
        if known and len(known) < len(batch):
            for want in known:
                exchange.fault(want.text, Missing("the terminal denied it within the last day", denied=True))
            batch = [want for want in batch if want not in known]
        whole = len(known) < len(batch)
    try:
        answer = yield from exchange.asked(request(batch))
    except Missing as missing:
        if missing.denied and len(batch) > 1 and whole:
            middle = len(batch) // 2
            return (yield from ask_batch(exchange, batch[:middle], take)) or (
                yield from ask_batch(exchange, batch[middle:], take)
            )
        if missing.denied and len(batch) == 1 and batch[0].item.afn != HISTORY:
            session.no_items[_unit(batch[0])] = exchange.now_us
        for want in batch:
            exchange.fault(want.text, missing)
        return exchange.hopeless(missing)
    got = take(answer, batch)
    for want in batch if session.no_items else ():
        session.no_items.pop(_unit(want), None)
    if len(got) >= len(batch):
        return False
    why = "a part of the answer was lost" if not answer.whole else answer.broken or "the terminal left it out"
    for want in batch:
        if want.key not in got:
            exchange.fault(want.text, Missing(answer.faults.get(want.key) or why))
    return False


def _unit(want: Want) -> tuple[int, int, int]:
    return want.item.afn, want.pn, want.item.fn


def request(batch: Sequence[Want]) -> Ask:
    """The request for a batch."""
    size = HEAD + sum([want.size for want in batch])
    if batch[0].wire:
        return Ask(afn=batch[0].item.afn, body=b"".join([want.wire for want in batch]), answer_bytes=size)
    return Ask(afn=batch[0].item.afn, units=tuple([want.unit for want in batch]), answer_bytes=size)


def wanted(
    exchange: TerminalExchange, rows: Iterable[tuple[Item, Row]], data: Mapping[str, object] | None = None
) -> list[Want]:
    """Items times their points. An item that somebody named and for which there is no point becomes a fault."""
    wants, lacking = wants_of(rows, exchange.device, exchange.profile, data)
    for item in lacking if exchange.item.items else ():
        exchange.fault(item.text, Missing("the device list has no point for it", final=True))
    return wants
