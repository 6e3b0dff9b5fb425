"""Scripts that read items of a DL/T 645 meter: live values, parameters, events, freezes, settlements, clock, probe.

Time labels (domain 3.2): live values and counters carry our clock; a daily freeze carries the instant that the meter
says it was taken (00:00 of the next day for the day it settles), a settlement the instant of the settlement day.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import datetime, time
from typing import Final

from ...model.lang import tr
from ...model.quality import Source
from ...model.quantities import quantity
from ...model.readings import DeviceEvent, ParameterValue
from ...model.times import BUSINESS_ZONE, DAY_US, US, business_to_us, from_us
from ...model.work import Duty, EventCount
from ...protocols.common.errors import UsageError
from ...protocols.dlt645.events import counts_of
from ...protocols.dlt645.explain import text_of
from ...protocols.dlt645.fields import Value
from ...protocols.dlt645.frame import Frame
from ...protocols.dlt645.items import Item, decode_payload, lookup
from .dlt645 import Ask, MeterExchange, Missing, Script

# freezes with a fixed rhythm: DI2 -> seconds between two; the n-th last one can be computed from the label wanted
_RHYTHM_S: Final = {"06": 86_400, "04": 3_600}
_DEPTH: Final = {"06": 62, "04": 254}
# a meter without freezes is read this soon after midnight, or the day's reading is not what it says
FREEZE_WITHIN_US: Final = 3_600 * US
_MAX_FREEZES: Final = 400
_SEARCH: Final = 8  # readings of freeze times to find one freeze
_SOURCES: Final = {
    Duty.LIVE: Source.LIVE,
    Duty.PARAMETER: Source.PARAMETER,
    Duty.EVENT: Source.EVENT,
    Duty.DAILY: Source.DAILY,
    Duty.MONTHLY: Source.MONTHLY,
}
_SETTLEMENT_DAY: Final = {"2007": "04000B01", "1997": "C117"}
_PROBE: Final = {"2007": "00010000", "1997": "9010"}
_MAX_ROUND_TRIP_S: Final = 5.0

Values = Generator[Ask, Frame | None, list[Value]]


def local(time_us: int) -> datetime:
    """Naive meter time of an instant."""
    return from_us(time_us).astimezone(BUSINESS_ZONE).replace(tzinfo=None)


def values_of(exchange: MeterExchange, di: str) -> Values:
    """Decoded values of an item; raises Missing."""
    item = lookup(di, exchange.version)
    if item is None:
        raise Missing(f"{di} is not in the tables of DL/T 645-{exchange.version}", final=True)
    payload = yield from exchange.read(di)
    if not payload:
        raise Missing("the meter answered without data", final=True)
    values = decode_payload(item, payload)
    if len(values) == 1 and values[0].invalid == "length":
        raise Missing(f"{len(payload)} bytes do not fit {item.name}")
    return values


def plain(exchange: MeterExchange, items: tuple[str, ...]) -> Script:
    """Live values, parameters and events: every item once, stamped with our clock."""
    source = _SOURCES[exchange.item.duty]
    for di in items:
        try:
            values = yield from values_of(exchange, di)
        except Missing as missing:
            if exchange.fault(di, missing):
                return
            continue
        exchange.take(di, values, exchange.now_us, source)
        if source is Source.EVENT and exchange.version == "2007":
            exchange.counts += [EventCount(code=code, count=n, item=di) for code, n in counts_of(di, values)]
        if source is Source.PARAMETER or (source is Source.EVENT and not any(v.quantity for v in values)):
            _keep_rare(exchange, di, values)


def _keep_rare(exchange: MeterExchange, di: str, values: list[Value]) -> None:
    """Parameters as text, event records as events."""
    item = lookup(di, exchange.version)
    if exchange.item.duty is Duty.EVENT and item is not None and item.record is not None:
        _keep_event(exchange, item, values)
        return
    texts = [text_of(v.value) for v in values]
    if any(t is not None for t in texts):
        value = ",".join(t or "" for t in texts)
        exchange.parameters.append(
            ParameterValue(device=exchange.device.id, item=di, value=value, time_us=exchange.now_us)
        )


def _keep_event(exchange: MeterExchange, item: Item, values: list[Value]) -> None:
    """A record of an event; empty records (all 00 or FF) are no event. code = DI with the record number 00."""
    times = [v for v in values if isinstance(v.value, datetime)]
    if not times or not isinstance(times[0].value, datetime):
        return
    ends = [v.value for v in times if v.name == "end" and isinstance(v.value, datetime)]
    exchange.events.append(
        DeviceEvent(
            device=exchange.device.id,
            point=exchange.point,
            time_us=business_to_us(times[0].value),
            end_us=business_to_us(ends[0]) if ends else None,
            code=item.di[:-2] + "00",
            data={"event": item.name, **{v.name: text_of(v.value) for v in values if v.value is not None}},
        )
    )


def probe(exchange: MeterExchange, items: tuple[str, ...]) -> Script:
    """One cheap read: any answer, a refusal included, shows that the meter is there."""
    try:
        yield from exchange.read(items[0] if items else _PROBE[exchange.version])
    except Missing as missing:
        exchange.reason = missing.reason


def clock(exchange: MeterExchange) -> Script:
    """Meter clock minus ours in seconds, the reply taken to show the middle of the round trip (domain 3.6)."""
    combined = "0400010C" in (exchange.item.items or _clock_items(exchange) or ("0400010C",))
    moment: datetime | None = None
    if exchange.version == "2007" and combined:
        try:
            values = yield from values_of(exchange, "0400010C")
            moment = values[0].value if isinstance(values[0].value, datetime) else None
        except Missing as missing:
            if missing.silent and not exchange.heard:
                exchange.fault("0400010C", missing)
                return
    try:
        if moment is None:
            moment = yield from _date_and_time(exchange)
    except Missing as missing:
        exchange.fault("clock", missing)
        return
    round_trip_s = (exchange.now_us - exchange.sent_us) / US
    if round_trip_s > _MAX_ROUND_TRIP_S:
        exchange.fault("clock", Missing(f"round trip of {round_trip_s:.1f} s: the offset would be a guess"))
        return
    offset_s = (business_to_us(moment) - (exchange.now_us + exchange.sent_us) // 2) / US
    exchange.sample(quantity("clock_offset").id, round(offset_s, 3), exchange.now_us, Source.LIVE)


def _clock_items(exchange: MeterExchange) -> tuple[str, ...]:
    plan = exchange.profile.read.get(Duty.CLOCK)
    return plan.items if plan is not None else ()


def _date_and_time(exchange: MeterExchange) -> Generator[Ask, Frame | None, datetime]:
    """Date, then time; at the first minute of a day the date is read again, it may have been yesterday's."""
    day_di, time_di = ("04000101", "04000102") if exchange.version == "2007" else ("C010", "C011")
    days = yield from values_of(exchange, day_di)
    clocks = yield from values_of(exchange, time_di)
    moment = clocks[0].value
    if isinstance(moment, time) and moment.hour == 0 and moment.minute == 0:
        days = yield from values_of(exchange, day_di)
        clocks = yield from values_of(exchange, time_di)
    day, moment = days[0].value, clocks[0].value
    if isinstance(day, datetime) or not hasattr(day, "month") or not isinstance(moment, time):
        raise Missing("the meter's clock cannot be read as a time")
    return datetime.combine(day, moment)  # type: ignore[arg-type]


# --- freezes --------------------------------------------------------------------------------------------------------


def daily(exchange: MeterExchange, items: tuple[str, ...]) -> Script:
    """Daily (and hourly) freezes of the labels in the window, newest first; the freeze time is checked each time.

    Items of class 05 name any n-th last freeze, the right one is put in. Items without a memory (present registers)
    are read only soon after the label.
    """
    frozen = [di for di in items if exchange.version == "2007" and di.startswith("05")]
    present = tuple(di for di in items if di not in frozen)
    for kind in sorted({di[2:4] for di in frozen}):
        group = [di for di in frozen if di[2:4] == kind]
        for label_us in _labels(exchange, kind):
            if (yield from _freeze(exchange, kind, group, label_us)):
                return
    if present:
        yield from _present(exchange, present)


def _labels(exchange: MeterExchange, kind: str) -> Iterator[int | None]:
    """Labels wanted, newest first; None = whatever freeze the item names."""
    window, step_s = exchange.item.window_us, _RHYTHM_S.get(kind)
    if window is None or step_s is None:
        yield None
        return
    step, zone = step_s * US, 8 * 3600 * US
    newest = (min(window[1] - 1, exchange.now_us) + zone) // step * step - zone
    for _ in range(_MAX_FREEZES):
        if newest < window[0]:
            return
        yield newest
        newest -= step


def _freeze(
    exchange: MeterExchange, kind: str, items: list[str], label_us: int | None, source: Source | None = None
) -> Generator[Ask, Frame | None, bool]:
    """One freeze with all its items, stored as `source` (None: as what it is); True = give up on this meter."""
    name = items[0]
    try:
        number, taken_us = yield from _find(exchange, kind, items, label_us)
    except Missing as missing:
        return exchange.fault(name, missing)
    source = source or (Source.HOURLY if kind == "04" else Source.DAILY)
    for di in items:
        if di[4:6] == "00":
            continue  # the time was read to find the freeze
        wanted = f"{di[:6]}{number:02X}"
        try:
            values = yield from values_of(exchange, wanted)
        except Missing as missing:
            if exchange.fault(wanted, missing):
                return True
            continue
        exchange.take(wanted, values, taken_us, source)
    return False


def _find(
    exchange: MeterExchange, kind: str, items: list[str], label_us: int | None
) -> Generator[Ask, Frame | None, tuple[int, int]]:
    """(n, instant) of the freeze with the label; asks the meter for its freeze time and corrects n if need be."""
    if label_us is None:
        number = int(items[0][6:8], 16) or 1
        return number, (yield from _freeze_time(exchange, kind, number))
    step = _RHYTHM_S[kind] * US
    guess = (exchange.now_us - label_us) // step + 1
    low, high = 1, min(guess + 1, _DEPTH[kind])  # one more: the meter's clock may have passed the next freeze already
    guess = min(guess, high)
    empty = False
    for _ in range(_SEARCH):
        if not low <= guess <= high:
            break
        try:
            taken_us = yield from _freeze_time(exchange, kind, guess)
        except Missing as missing:
            if missing.silent or low == guess or (empty and low == 1):
                raise
            # fewer freezes than days (power was off): look at the newest, then between
            empty, high = True, guess - 1
            guess = low
            continue
        apart = taken_us - label_us
        if abs(apart) < step // 2:
            if apart:  # taken late: it belongs to its own instant
                exchange.reason = f"freeze of {local(label_us)} taken at {local(taken_us)}"
            return guess, taken_us
        if apart > 0:
            low = guess + 1
        else:
            high = guess - 1
        guess = max(low, min(high, guess + round(apart / step)))
    raise Missing(f"the meter has no freeze of {local(label_us)}", final=exchange.now_us - label_us > DAY_US)


def _freeze_time(exchange: MeterExchange, kind: str, number: int) -> Generator[Ask, Frame | None, int]:
    values = yield from values_of(exchange, f"05{kind}00{number:02X}")
    moment = values[0].value
    if not isinstance(moment, datetime):
        raise Missing("the freeze is empty", final=True)
    return business_to_us(moment)


def _present(exchange: MeterExchange, items: tuple[str, ...]) -> Script:
    """Present registers as the reading of a day: only within an hour after the label."""
    label_us = next(_labels(exchange, "06"), None)
    if label_us is None:
        label_us = (exchange.now_us + 8 * 3600 * US) // DAY_US * DAY_US - 8 * 3600 * US
        if exchange.item.window_us is not None:
            label_us = exchange.item.window_us[0]
    if not 0 <= exchange.now_us - label_us <= FREEZE_WITHIN_US:
        for di in items:
            late = Missing("present registers no longer show the state at midnight", final=True)
            exchange.fault(di, late)
        exchange.refused = True
        exchange.heard = True
        return
    for di in items:
        try:
            values = yield from values_of(exchange, di)
        except Missing as missing:
            if exchange.fault(di, missing):
                return
            continue
        exchange.take(di, values, label_us, Source.DAILY)


# --- settlements ----------------------------------------------------------------------------------------------------


def monthly(exchange: MeterExchange, items: tuple[str, ...]) -> Script:
    """Registers and demands of a settlement (月结算): the one named, or the last before the window's end.

    The data carry no time: the instant follows from the settlement day (04000B01, C117; the first of the month 00:00
    where the meter does not tell). Where the one label of the window is no settlement of this meter (its customer is
    read on another day), the registers of that label come from the daily freeze.
    """
    foreign = [di for di in items if _settlement_of(di, exchange.version) is None]
    if foreign:
        names = ", ".join(foreign)
        raise UsageError(tr(f"{names}: no settlement data", f"{names}: 不是结算数据"))
    return _monthly(exchange, items)


def _monthly(exchange: MeterExchange, items: tuple[str, ...]) -> Script:
    try:
        day, hour = yield from _settlement_day(exchange)
    except Missing as missing:
        exchange.fault(_SETTLEMENT_DAY[exchange.version], missing)
        return
    window = exchange.item.window_us
    for di in items:
        back = _settlement_of(di, exchange.version) or 1
        if window is not None:
            back = _steps_back(exchange.now_us, min(window[1] - 1, exchange.now_us), day, hour)
        limit = 12 if exchange.version == "2007" else 2
        if not 1 <= back <= limit:
            exchange.fault(di, Missing(f"the meter keeps {limit} settlements", final=True))
            continue
        wanted = _settlement_di(di, back, exchange.version)
        try:
            values = yield from values_of(exchange, wanted)
        except Missing as missing:
            if exchange.fault(wanted, missing):
                return
            continue
        instant_us = business_to_us(settlement(local(exchange.now_us), day, hour, back))
        exchange.take(wanted, values, instant_us, Source.MONTHLY)
    if window is not None and window[0] <= exchange.now_us and window[1] - window[0] == DAY_US:
        last = settlement(local(min(window[1] - 1, exchange.now_us)), day, hour, 1)
        if business_to_us(last) < window[0]:
            yield from _as_frozen(exchange, window[0], day)


def _as_frozen(exchange: MeterExchange, label_us: int, day: int) -> Script:
    """A month's reading on a day on which the meter does not settle: what it froze at that midnight."""
    plan = exchange.profile.read.get(Duty.DAILY)
    frozen = [di for di in plan.items if di.startswith("0506")] if plan is not None else []
    if frozen and exchange.version == "2007":
        yield from _freeze(exchange, "06", frozen, label_us, Source.MONTHLY)
        return
    reason = f"the meter settles on day {day} and keeps no daily freeze: no reading of {local(label_us):%Y-%m-%d}"
    exchange.fault("reading_day", Missing(reason, final=True))


def _settlement_day(exchange: MeterExchange) -> Generator[Ask, Frame | None, tuple[int, int]]:
    """(day, hour) of the first settlement day; raises Missing only on silence."""
    try:
        values = yield from values_of(exchange, _SETTLEMENT_DAY[exchange.version])
    except Missing as missing:
        if missing.silent:
            raise
        return 1, 0
    text = values[0].value
    if not isinstance(text, str):
        return 1, 0
    day, hour = int(text[:2]), int(text[3:5])
    return (day, hour) if 1 <= day <= 28 and hour <= 23 else (1, 0)


def settlement(now: datetime, day: int, hour: int, back: int) -> datetime:
    """The `back`-th last settlement instant at or before `now` (naive meter time)."""
    month = now.year * 12 + now.month - 1
    if now < datetime(now.year, now.month, day, hour):  # noqa: DTZ001 - the meter's own clock
        month -= 1
    month -= back - 1
    return datetime(month // 12, month % 12 + 1, day, hour)  # noqa: DTZ001


def _steps_back(now_us: int, wanted_us: int, day: int, hour: int) -> int:
    """How many settlements ago the last one at or before `wanted_us` was (1 = the last)."""
    wanted = settlement(local(wanted_us), day, hour, 1)
    last = settlement(local(now_us), day, hour, 1)
    return (last.year - wanted.year) * 12 + last.month - wanted.month + 1


def _settlement_of(di: str, version: str) -> int | None:
    """Settlement number in a DI; None when the item has none."""
    item = lookup(di, version)
    return None if item is None or item.settlement is None else max(1, item.settlement)


def _settlement_di(di: str, back: int, version: str) -> str:
    """The DI with another settlement number (1997: second digit + 4 a month)."""
    if version == "2007":
        return f"{di[:6]}{back:02X}"
    return f"{di[0]}{int(di[1], 16) % 4 + 4 * back:X}{di[2:]}"
