"""What a person should look at in a window: sentences from its features, without accusing anybody."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ...model.lang import tr
from ..masks import F8
from .features import NAMES

Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Reason:
    """When a sentence applies, how strongly (for the order), and its texts with {placeholders} of the features."""

    strength: Callable[[Values], float]  # above 0: applies
    en: str
    zh: str


def _share(x: float) -> float:
    return 100.0 * math.exp(x)


REASONS: Final = (
    Reason(
        lambda v: 4.0 if v["flat"] < 0.02 and v["spread_day"] > 0.1 else 0.0,
        "flat line: the readings of a day hardly differ",
        "负荷近似一条直线, 日内几乎无变化",
    ),
    Reason(
        lambda v: 3.0 if v["zero_block"] > 0.12 and v["zero_block_days"] > 0.3 else 0.0,
        "the register stands still at the same {block:.0f} h of each day",
        "每日固定时段约 {block:.0f} 小时电量停走",
    ),
    Reason(
        lambda v: v["scan_cap"] if v["scan_cap"] > 2.0 and v["scan_cap_level"] < -0.2 else 0.0,
        "peaks are cut at one constant value, {cap:.0f} % of the usual peak",
        "峰值被限在同一数值, 约为原峰值的 {cap:.0f} %",
    ),
    Reason(
        lambda v: 2.5 if v["peakedness"] < -0.5 and v["shape_now"] < 0.25 and v["neighbour"] < -0.1 else 0.0,
        "peaks are gone and neighbouring intervals no longer belong together",
        "尖峰消失, 相邻时段负荷不再相关",
    ),
    Reason(
        lambda v: 2.0 if v["rough_low"] > 0.15 and v["neighbour"] < -0.05 else 0.0,
        "quiet hours have become restless from one interval to the next",
        "低谷时段负荷变得忽高忽低",
    ),
    Reason(
        lambda v: -v["level"] + 1.0 if v["level"] < -0.35 and v["even"] < 0.45 else 0.0,
        "base load and peaks fell alike, to about {level:.0f} % of before",
        "基荷与峰荷同比例下降, 约为之前的 {level:.0f} %",
    ),
    Reason(
        lambda v: -v["level"] if v["level"] < -0.35 and v["even"] >= 0.45 else 0.0,
        "use fell to about {level:.0f} % of before",
        "用电量降至之前的约 {level:.0f} %",
    ),
    Reason(
        lambda v: 0.8 if v["distinct"] < -0.5 and v["flat"] >= 0.02 else 0.0,
        "far fewer different readings than before",
        "读数的取值种类明显减少",
    ),
    Reason(
        lambda v: 0.3 if v["change"] > 2.0 else 0.0,
        "the daily course changed",
        "日负荷形态发生变化",
    ),
)


def reasons(row: F8, day: int, hours: float = 24.0) -> list[str]:
    """Sentences for one window, the strongest first, at most three; the first says since which day of the window."""
    v = dict(zip(NAMES, row.tolist(), strict=True))
    words = {"level": _share(v["level"]), "cap": _share(v["scan_cap_level"]), "block": v["zero_block"] * hours}
    found = sorted(((r.strength(v), i) for i, r in enumerate(REASONS)), key=lambda s: (-s[0], s[1]))
    texts = [tr(REASONS[i].en, REASONS[i].zh).format(**words) for strength, i in found if strength > 0][:3]
    if texts:
        texts[0] = tr(f"from day {day + 1} on: ", f"自第 {day + 1} 天起: ") + texts[0]
    elif v["whole_zero"] > 0.5:
        texts = [tr("no use on most days: an empty home looks like this", "多数日期无用电: 空置住宅亦如此")]
    return texts
