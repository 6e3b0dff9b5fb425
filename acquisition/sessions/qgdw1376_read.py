"""Scripts that read live values (AFN 0C) and the freezes of days and months (AFN 0D) of a terminal.

Time labels (domain 3.2): what carries a reading time is stamped with it, live values without one with our clock; a day
freeze is named by the day D that it ends and taken at 00:00 of D+1, a month freeze likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Final

from ...model.lang import tr
from ...model.readings import ParameterValue
from ...model.times import business_day, day_start_us
from ...protocols.common.errors import UsageError
from ...protocols.qgdw1376.layout import Layout
from ...protocols.qgdw1376.table import Row
from .qgdw1376 import Script, TerminalExchange
from .qgdw1376_asking import Take, ask_all, wanted
from .qgdw1376_labels import Labels
from .qgdw1376_parameter import canonical
from .qgdw1376_plan import Item, Want, rows_of
from .qgdw1376_readings import read_answers
from .qgdw1376_transaction import Answer, Key

MAX_LABELS: Final = 400  # freezes of one work item
CLOCK: Final = (0x0C, 2)


def taker(exchange: TerminalExchange) -> Take:
    """Keeps the readings of answers. Units of the terminal itself are states: kept as text when they change."""
    labels = Labels.of(exchange.plan, exchange.device.options)

    def take(answer: Answer, batch: Sequence[Want]) -> set[Key]:
        found = read_answers(answer.frames, exchange.device, labels, exchange.now_us, exchange.peer.edition)
        exchange.rows += found.rows
        exchange.curves += found.curves
        for afn, unit in found.terminal:
            if (afn, unit.fn) == CLOCK or unit.data is None:
                continue
            value = ParameterValue(
                device=exchange.device.id,
                item=Item(afn, unit.fn).text,
                value=canonical(unit.data),
                time_us=exchange.now_us,
            )
            exchange.parameters.append(value)
        answer.broken = answer.broken or found.broken
        answer.faults |= found.faults
        return found.taken

    return take


def live(exchange: TerminalExchange, items: tuple[str, ...]) -> Script:
    """Class-1 data of all points. UsageError: an item is not of AFN 0C."""
    return _live(exchange, rows_of(items, (0x0C,), exchange.peer.edition.name))


def _live(exchange: TerminalExchange, rows: list[tuple[Item, Row]]) -> Script:
    yield from ask_all(exchange, wanted(exchange, rows), taker(exchange))


def freezes(exchange: TerminalExchange, items: tuple[str, ...]) -> Script:
    """Day and month freezes of the labels in the window, newest first; without a window the last ones.

    UsageError: an item is no freeze of a day or month.
    """
    rows = rows_of(items, (0x0D,), exchange.peer.edition.name)
    foreign = [item.text for item, row in rows if scale_of(row.request) not in ("td_d", "td_m")]
    if foreign:
        names = ", ".join(foreign)
        raise UsageError(tr(f"{names}: no freeze of a day or month", f"{names}: 不是日或月冻结数据"))
    return _freezes(exchange, rows)


def _freezes(exchange: TerminalExchange, rows: list[tuple[Item, Row]]) -> Script:
    asked: list[Want] = []
    for scale in ("td_d", "td_m"):
        some = [(i, r) for i, r in rows if scale_of(r.request) == scale]
        for day in days_of(exchange, scale) if some else ():
            asked += wanted(exchange, some, {scale: day if scale == "td_d" else f"{day:%Y-%m}"})
    if not asked and not exchange.faults:
        exchange.heard = True
        exchange.reason = "no freeze of the window has been taken yet"
    yield from ask_all(exchange, asked, taker(exchange))


def scale_of(request: Layout) -> str:
    """Which time scale a request carries: td_c, td_d, td_m, td_h; empty: none."""
    keys = request.variants[0].keys if request.variants else frozenset()
    return next((s for s in ("td_c", "td_d", "td_m", "td_h") if s in keys), "")


def days_of(exchange: TerminalExchange, scale: str) -> Iterator[date]:
    """Days (or months, by their first day) whose freezes the work item wants, newest first."""
    window, now_us = exchange.item.window_us, exchange.now_us
    today = business_day(now_us)
    if window is None:
        last = today - timedelta(days=1)
        yield last if scale == "td_d" else (today.replace(day=1) - timedelta(days=1)).replace(day=1)
        return
    label = business_day(min(window[1] - 1, now_us))
    for _ in range(MAX_LABELS):
        at_us = day_start_us(label)
        if at_us < window[0]:
            return
        if at_us < window[1] and (scale == "td_d" or label.day == 1):
            ended = label - timedelta(days=1)
            yield ended if scale == "td_d" else ended.replace(day=1)
        label -= timedelta(days=1)
