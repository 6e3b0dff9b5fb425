"""When a terminal's clock may be set, and when not (对时; State Grid (营销/4) 384-2014 and our own caution). Pure.

    |offset| < 1 min          nothing to do
    1 min … 15 min            set remotely, with half the round trip added
    > 15 min                  a ticket; set only when a person who looked into it asks for it (supervised)
    round trip > 5 s          never: the time that arrives would be a guess
    near a freeze             never within 5 min of a full hour (00:00 is one) or of a settlement freeze, never across
                              one: a clock that jumps over a freeze loses it, one that jumps back takes it twice

Both clocks count, ours and the terminal's. A jump over a 15-minute boundary doubles or loses curve slots: where waiting
a few minutes avoids it, it is waited for; else the labels concerned are told, and curves read later mark them S.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from ..model.lang import tr
from ..model.times import BUSINESS_ZONE, DAY_US, SLOT_15MIN_US, US, from_us, to_us

LEAST_S: Final = 60.0
MOST_S: Final = 900.0
MAX_ROUND_TRIP_S: Final = 5.0
NEAR_US: Final = 300 * US
HOUR_US: Final = 3600 * US
AVOIDABLE_S: Final = 780.0
"""Up to this offset there are at least two minutes in each quarter of an hour at which no boundary is crossed."""
_ZONE_US: Final = BUSINESS_ZONE.utcoffset(None) // BUSINESS_ZONE.utcoffset(None).resolution
_MINUTE_US: Final = 60 * US
_SPAN: Final = re.compile(r"\b([0-9]{12})-([0-9]{12})\b", re.ASCII)


class Advice(StrEnum):
    """What to do: nothing, set, try again a little later, make a ticket, or not at all."""

    NONE = "none"
    SET = "set"
    LATER = "later"
    TICKET = "ticket"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`reason` in words. suspect_us: labels [from, to) of curve slots that a set now doubles or loses; None: none."""

    advice: Advice
    reason: str
    suspect_us: tuple[int, int] | None = None


def judge(
    offset_s: float, round_trip_s: float, now_us: int, *, settlements: Iterable[int] = (), supervised: bool = False
) -> Judgement:
    """Whether to set now. offset_s: terminal's clock minus ours; settlements: minutes of the day of settlement freezes.

    supervised: a person answers for it; then offsets over 15 minutes are set as well (never near a freeze).
    """
    size = abs(offset_s)
    said = tr(f"the clock is {offset_s:+.0f} s off", f"时钟偏差 {offset_s:+.0f} 秒")
    if round_trip_s > MAX_ROUND_TRIP_S:
        text = tr(
            f"round trip of {round_trip_s:.1f} s, more than 5 s: not set",
            f"往返 {round_trip_s:.1f} 秒, 超过 5 秒: 不对时",
        )
        return Judgement(advice=Advice.REFUSE, reason=text)
    if size < LEAST_S:
        return Judgement(advice=Advice.NONE, reason=said)
    if size > MOST_S and not supervised:
        text = tr("more than 15 min: look into it, then set it by hand", "超过 15 分钟: 请查明原因后人工对时")
        return Judgement(advice=Advice.TICKET, reason=f"{said}, {text}")
    theirs_us = now_us + round(offset_s * US)
    low, high = min(now_us, theirs_us), max(now_us, theirs_us)
    if _freeze_between(low - NEAR_US, high + NEAR_US, settlements) and (
        size <= MOST_S or _near(low, high, settlements)
    ):
        text = tr("too near to a full hour or a freeze: later", "临近整点或冻结时刻: 稍后再设")
        return Judgement(advice=Advice.LATER, reason=f"{said}; {text}")
    first, last = _slot(low), _slot(high)
    if first == last:
        return Judgement(advice=Advice.SET, reason=said)
    if size <= AVOIDABLE_S and not supervised:
        text = tr("a quarter of an hour ends between the two clocks: later", "两时钟跨越 15 分钟分界: 稍后再设")
        return Judgement(advice=Advice.LATER, reason=f"{said}; {text}")
    return Judgement(advice=Advice.SET, reason=said, suspect_us=(first + SLOT_15MIN_US, last + SLOT_15MIN_US))


SUSPECT: Final = "clock:suspect"
"""Name under which the labels that clock sets have spoilt are kept among the device's parameters."""
SUSPECT_KEPT: Final = 8
_STAMP: Final = "%Y%m%d%H%M"


def suspect_text(spans: Iterable[tuple[int, int]]) -> str:
    """Spans of labels as `202605201015-202605201030 ...` (business time, the end not included); the newest few."""
    stamps = [[from_us(t).astimezone(BUSINESS_ZONE).strftime(_STAMP) for t in span] for span in spans]
    return " ".join(["-".join(pair) for pair in stamps[-SUSPECT_KEPT:]])


def suspect_spans(text: str) -> tuple[tuple[int, int], ...]:
    """What `suspect_text` wrote; what is no span is left out."""
    found = _SPAN.findall(text)[-SUSPECT_KEPT:]
    try:
        return tuple((_instant(a), _instant(b)) for a, b in found)
    except ValueError:
        return ()


def _instant(stamp: str) -> int:
    return to_us(datetime.strptime(stamp, _STAMP).replace(tzinfo=BUSINESS_ZONE))


def _slot(time_us: int) -> int:
    return time_us // SLOT_15MIN_US * SLOT_15MIN_US


def _near(low: int, high: int, settlements: Iterable[int]) -> bool:
    """A large jump cannot avoid freezes between the clocks, but neither clock may stand near one."""
    return any(_freeze_between(t - NEAR_US, t + NEAR_US, settlements) for t in (low, high))


def _freeze_between(from_us: int, to_us: int, settlements: Iterable[int]) -> bool:
    """Whether a full hour or a settlement freeze lies in [from, to]."""
    if to_us // HOUR_US > (from_us - 1) // HOUR_US:
        return True
    for minute in settlements:
        at = minute * _MINUTE_US
        if (to_us + _ZONE_US - at) // DAY_US > (from_us - 1 + _ZONE_US - at) // DAY_US:
            return True
    return False
