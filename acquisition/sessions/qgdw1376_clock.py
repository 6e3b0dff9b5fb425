"""Scripts that read a terminal's clock (AFN 0C F2) and set it (AFN 05 F31); the rules are in acquisition/clock_rules.

Reading: offset = the terminal's clock minus ours at the middle of the round trip. Setting (items `set` and
`set-supervised`): read, judge with what was just read, send our time plus half the round trip, read back. The command
is never repeated: after silence the clock is read, nothing more. What was done is an event `clock_set` with before and
after; who asked for it, and why, is the audit's matter (daemon).
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from typing import Final, NamedTuple

from ...model.quality import Source
from ...model.quantities import quantity
from ...model.readings import DeviceEvent, ParameterValue
from ...model.times import US, business_to_us
from ...model.work import Status
from ...protocols.qgdw1376.units import Unit
from ..clock_rules import MAX_ROUND_TRIP_S, SUSPECT, SUSPECT_KEPT, Advice, judge, suspect_text
from .qgdw1376 import Missing, Script, TerminalExchange
from .qgdw1376_transaction import Answer, Ask, Verdict

CLOCK: Final = "0C:F2"
SET, SUPERVISED = "set", "set-supervised"
EVENT: Final = "clock_set"
_READ: Final = Ask(afn=0x0C, units=(Unit(0, 2, {}),), repeat=False)
_TRIES: Final = 3


class Looked(NamedTuple):
    """A look at the clock: what it showed, how far from ours, how long the round trip took, when (our clock)."""

    shown: datetime
    offset_s: float
    round_trip_s: float
    at_us: int


def clock(exchange: TerminalExchange, items: tuple[str, ...]) -> Script:
    """The offset as a sample `clock_offset`; with the item `set` the clock is set where the rules allow it."""
    try:
        before = yield from _look(exchange)
    except Missing as missing:
        exchange.fault(CLOCK, missing)
        return
    wanted = {i.lower() for i in items}
    if not wanted & {SET, SUPERVISED}:
        _keep(exchange, before)
        return
    verdict = judge(
        before.offset_s,
        before.round_trip_s,
        exchange.now_us,
        settlements=settlements(exchange.device.options.get("settlement", "")),
        supervised=SUPERVISED in wanted,
    )
    exchange.reason = verdict.reason
    if verdict.advice is not Advice.SET:
        _keep(exchange, before)
        exchange.status = Status.DONE if verdict.advice is Advice.NONE else Status.REFUSED
        return
    sent_us = exchange.now_us + round(before.round_trip_s / 2 * US)
    told = exchange.session.wall(sent_us + US // 2).replace(microsecond=0)
    answer = yield Ask(afn=0x05, units=(Unit(0, 31, {"clock": told}),), repeat=False)
    said = "silent" if answer is None else answer.verdict.value
    try:
        after: Looked | None = yield from _look(exchange)
    except Missing as missing:
        after = None
        exchange.fault(CLOCK, missing)
    _keep(exchange, after or before)
    data: dict[str, object] = {
        "answer": said,
        "before": f"{before.shown:%Y-%m-%d %H:%M:%S}",
        "told": f"{told:%Y-%m-%d %H:%M:%S}",
        "offset_before_s": round(before.offset_s, 3),
        "offset_after_s": None if after is None else round(after.offset_s, 3),
        "round_trip_s": round(before.round_trip_s, 3),
    }
    if verdict.suspect_us is not None:
        data["suspect_us"] = list(verdict.suspect_us)
        _spoilt(exchange, verdict.suspect_us)
    exchange.events.append(
        DeviceEvent(device=exchange.device.id, point=None, time_us=exchange.now_us, end_us=None, code=EVENT, data=data)
    )
    exchange.status = _status(answer, before, after)


def _spoilt(exchange: TerminalExchange, span: tuple[int, int]) -> None:
    """The labels that were doubled or lost stay known: curves of them are suspect, whenever they are read."""
    session = exchange.session
    session.suspect = (*session.suspect, span)[-SUSPECT_KEPT:]
    device, now_us = exchange.device.id, exchange.now_us
    exchange.parameters.append(
        ParameterValue(device=device, time_us=now_us, item=SUSPECT, value=suspect_text(session.suspect))
    )


def _status(answer: Answer | None, before: Looked, after: Looked | None) -> Status:
    """DONE only when the clock was seen to be right afterwards."""
    if after is not None and abs(after.offset_s) < max(5.0, abs(before.offset_s) / 10):
        return Status.DONE
    if answer is None:
        return Status.SILENT if after is None else Status.PARTIAL
    return Status.REFUSED if answer.verdict is Verdict.DENIED else Status.PARTIAL


def _look(exchange: TerminalExchange) -> Generator[Ask, Answer | None, Looked]:
    """One reading whose round trip is known: never a repeat of a frame, a new question each time."""
    missing = Missing("no answer", silent=True)
    for _ in range(_TRIES):
        try:
            answer = yield from exchange.asked(_READ)
        except Missing as found:
            missing = found
            if not found.silent:
                break
            continue
        looked = _looked(answer)
        if looked is None:
            raise Missing("the terminal's clock cannot be read as a time")
        if looked.round_trip_s <= MAX_ROUND_TRIP_S:
            return looked
        missing = Missing(f"round trip of {looked.round_trip_s:.1f} s: the offset would be a guess")
    raise missing


def _looked(answer: Answer) -> Looked | None:
    for unit in answer.units():
        shown = unit.data.get("clock") if unit.fn == 2 and unit.data is not None else None
        if isinstance(shown, datetime):
            naive = datetime(shown.year, shown.month, shown.day, shown.hour, shown.minute, shown.second)  # noqa: DTZ001
            middle_us = (answer.sent_us + answer.came_us) // 2
            # the clock shows whole seconds: on average half a second more have passed
            offset_s = (business_to_us(naive) + US // 2 - middle_us) / US
            return Looked(naive, offset_s, (answer.came_us - answer.sent_us) / US, answer.came_us)
    return None


def _keep(exchange: TerminalExchange, looked: Looked) -> None:
    point = exchange.device.points[0].id if exchange.device.points else None
    exchange.sample(point, quantity("clock_offset").id, round(looked.offset_s, 3), looked.at_us, Source.LIVE)
    exchange.session.saw_clock(looked.shown, looked.at_us)


def settlements(text: str) -> tuple[int, ...]:
    """Minutes of the day of settlement freezes: the option `settlement=HH:MM,HH:MM`; what is no time is left out."""
    found = []
    for part in text.replace(" ", "").split(","):
        hours, sign, minutes = part.partition(":")
        if sign and hours.isdecimal() and minutes.isdecimal() and int(hours) < 24 and int(minutes) < 60:
            found.append(int(hours) * 60 + int(minutes))
    return tuple(found)
