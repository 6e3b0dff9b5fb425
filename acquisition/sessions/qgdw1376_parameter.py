"""Scripts that read a terminal's parameters (AFN 0A) as canonical text, and that look whether it is there (probe)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ...model.readings import ParameterValue
from ...protocols.qgdw1376.table import Row
from ...protocols.qgdw1376.units import Unit
from ..terminal_events import is_secret, plain_of
from .qgdw1376 import Missing, Script, TerminalExchange
from .qgdw1376_asking import ask_all, wanted
from .qgdw1376_plan import Item, Want, points_of, rows_of
from .qgdw1376_transaction import Answer, Ask, Key

PROBE: Final = "0C:F2"


def parameters(exchange: TerminalExchange, items: tuple[str, ...]) -> Script:
    """Parameters as canonical text. UsageError: an item is not of AFN 0A."""
    return _parameters(exchange, rows_of(items, (0x0A,), exchange.peer.edition.name))


def _parameters(exchange: TerminalExchange, rows: list[tuple[Item, Row]]) -> Script:
    def take(answer: Answer, batch: Sequence[Want]) -> set[Key]:
        asked = {want.key: want for want in batch}
        got: set[Key] = set()
        for unit in answer.units():
            want = asked.get((unit.pn, unit.fn))
            if want is None or unit.data is None or unit.fault:
                answer.faults[unit.pn, unit.fn] = unit.fault
                continue
            got.add(want.key)
            for name, value in _entries(want, unit.data):
                exchange.parameters.append(
                    ParameterValue(device=exchange.device.id, item=name, value=value, time_us=exchange.now_us)
                )
        return got

    yield from ask_all(exchange, wanted(exchange, rows), take)


def _entries(want: Want, data: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """(name, value) of a parameter; of a list one by entry ("0A:F10#3"), so that one changed entry shows as one."""
    keys = [k for k, v in want.data.items() if isinstance(v, list)]
    rows = next((v for v in data.values() if isinstance(v, list)), None) if keys else None
    if rows is None or not all(isinstance(r, Mapping) and keys[0] in r for r in rows):
        yield want.text, canonical(data)
        return
    for row in rows:
        yield f"{want.text}#{row[keys[0]]}", canonical(row)


def canonical(data: Mapping[str, object]) -> str:
    """The one text of a parameter's value: JSON, keys sorted; of passwords only whether they are the same.

    Two readings of the same setting give the same text whatever the terminal's filling, so texts can be compared.
    """
    return json.dumps(_plain(data), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _masked(v) if is_secret(str(k)) else _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return plain_of(value)


def _masked(value: object) -> object:
    return None if value in (None, "") else "**"


def probe(exchange: TerminalExchange, items: tuple[str, ...]) -> Script:
    """One cheap read: any answer, a denial included, shows that the terminal is there."""
    rows = rows_of(items[:1] or (PROBE,), (0x09, 0x0A, 0x0C), exchange.peer.edition.name)
    return _probe(exchange, rows)


def _probe(exchange: TerminalExchange, rows: list[tuple[Item, Row]]) -> Script:
    item, row = rows[0]
    pn = (points_of(item, row, exchange.device, exchange.profile) or (0,))[0]
    try:
        yield from exchange.asked(Ask(afn=item.afn, units=(Unit(pn, item.fn, {}),)))
    except Missing as missing:
        exchange.reason = missing.reason
