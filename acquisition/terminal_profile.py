"""What a terminal's profile (Q/GDW 376.1) may read: its items checked against the tables of its edition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ..model.lang import tr
from ..model.work import Duty
from ..protocols.qgdw1376.curves import curve_classes
from .profile import Profile
from .sessions.qgdw1376_curve import DENSITY
from .sessions.qgdw1376_plan import parse_item, row_of
from .sessions.qgdw1376_read import scale_of

_AFN: Final[Mapping[Duty, int]] = {
    Duty.LIVE: 0x0C, Duty.CLOCK: 0x0C, Duty.DAILY: 0x0D, Duty.MONTHLY: 0x0D, Duty.CURVE: 0x0D, Duty.EVENT: 0x0E,
    Duty.PARAMETER: 0x0A,
}  # fmt: skip
_SCALES: Final[Mapping[Duty, tuple[str, ...]]] = {
    Duty.LIVE: ("",), Duty.DAILY: ("td_d",), Duty.MONTHLY: ("td_m", "td_d"), Duty.CURVE: ("td_c",),
}  # fmt: skip


def terminal_faults(profile: Profile) -> Iterator[tuple[str, str]]:
    """Every fault as (field path, message)."""
    for duty, plan in profile.read.items():
        for i, text in enumerate(plan.items):
            why = _item_fault(text, duty, profile.version)
            if why:
                yield f"read.{duty}.items[{i}]", why
    if profile.curve is None:
        return
    if not profile.curve.items:
        yield "curve.items", tr("is empty", "为空")
    if profile.curve.step_s not in DENSITY:
        text = ", ".join(map(str, sorted(DENSITY)))
        yield "curve.step_s", tr(f"a terminal's curves have steps of {text} s", f"终端曲线间隔为 {text} 秒")
    if len(set(profile.curve.items)) != len(profile.curve.items):
        yield "curve.items", tr("names an item twice", "数据项重复")
    for i, text in enumerate(profile.curve.items):
        why = _item_fault(text, Duty.CURVE, profile.version)
        if why:
            yield f"curve.items[{i}]", why


def _item_fault(text: str, duty: Duty, edition: str) -> str:
    """Why an item is none of this duty, or "" when it is."""
    item, afn = parse_item(text), _AFN.get(duty)
    if item is None or text != item.text:
        return tr(f"{text!r} is not of the form 0C:F25", f"{text!r} 应为 0C:F25 的形式")
    if afn is None or item.afn != afn:
        return tr(f"{text} is not read for {duty}", f"{text} 不用于 {duty}")
    row = row_of(text, edition)
    if row is None or edition not in row.editions:
        return tr(f"{text} is not in the tables of edition {edition}", f"{edition} 版数据表中没有 {text}")
    if duty in _SCALES and scale_of(row.request) not in _SCALES[duty]:
        return tr(f"{text} is of another kind than {duty}", f"{text} 与 {duty} 类型不符")
    if duty is Duty.CURVE and item.fn not in curve_classes():
        return tr(f"{text} is no curve", f"{text} 不是曲线数据")
    return ""
