"""What a check saw: the value and the limit behind every bit of a mask, for one point's day (`fuhe vee explain`).

The same arrays and the same rules as the day pass; where a number cannot be told from the day alone it is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...model.lang import tr
from ..masks import F8, I2
from . import checks
from .checks import Check, failed_checks
from .days import FORWARD, LOAD, REPLACED, REVERSE, TARIFFS, VOLTAGE_TOP, Days, Layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One failed check of one slot: what was compared with what. NaN = not a number of this check."""

    slot: int
    check: Check
    value: float
    limit: float
    unit: str
    text: str


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the rules look at: the day's raw values on the side they are judged on, K of the slots, the mask."""

    name: str
    value: F8
    kw: bool
    k: F8
    mask: I2
    d: Days
    layers: Layers


def findings(d: Days, layers: Layers, name: str, source: str = "") -> list[Finding]:
    """Every failed check of a quantity (LOAD or a measured one); d and layers: one row. source: the load's quantity."""
    k = np.where(d.k.end[0] > 0, d.k.end[0] / 10.0**d.k.decimals, np.nan)
    power = name in (LOAD, "active_demand", "active_power_total")
    if name == LOAD:
        value, mask = layers.load_raw_kw[0], layers.load_failed[0]
    elif name in d.curves:
        value, mask = d.curves[name].value[0] * (k if power else 1.0), layers.failed[name][0]
    elif name in d.registers:
        value, mask = d.registers[name].value[0, 1:], layers.failed[name][0]
    else:
        return []
    seen = _Seen(source or name, value, power, k, mask, d, layers)
    found = []
    for slot in np.flatnonzero(mask):
        for check in failed_checks(int(mask[slot])):
            number, limit, unit, text = _TELL[check](seen, int(slot))
            found.append(Finding(slot=int(slot), check=check, value=number, limit=limit, unit=unit, text=text))
    return found


Told = tuple[float, float, str, str]
NAN: Final = float("nan")


def _k1(s: _Seen, slot: int) -> Told:
    return NAN, NAN, "", tr("the frame's checks failed", "帧校验失败")


def _k2(s: _Seen, slot: int) -> Told:
    offset = float(s.d.facts.clock_offset_s[0])
    if np.isfinite(offset) and abs(offset) > checks.CLOCK_LIMIT_S:
        return abs(offset), checks.CLOCK_LIMIT_S, "s", tr("the device's clock was off", "装置时钟偏差")
    return NAN, NAN, "", tr("different readings claim the slot, or its clock was set", "同一时刻有不同读数或对时影响")


def _k3(s: _Seen, slot: int) -> Told:
    row = s.d.registers[s.name].value[0]
    before = row[: slot + 1][np.isfinite(row[: slot + 1])]
    last = float(before[-1]) if len(before) else NAN
    return float(row[slot + 1]), last, "kWh", tr("register beside its neighbour before", "示数与前一读数")


def _k4(s: _Seen, slot: int) -> Told:
    value = float(s.value[slot])
    if s.kw:
        hours = s.d.step_s / 3600.0
        most = float(np.fmax(s.d.facts.contract_kva[0], s.d.facts.imax_kva[0])) * checks.MARGIN * hours
        limit = 0.0 if value < 0 else most
        return value * hours, limit, "kWh", tr("energy of the slot against its limit", "时段电量与限值")
    if s.name.startswith("voltage"):
        return value, VOLTAGE_TOP * float(s.d.facts.nominal_v[0]), "V", tr("outside the physical range", "超出物理范围")
    if s.name.startswith("power_factor"):
        return abs(value), 1.0, "", tr("outside the physical range", "超出物理范围")
    return value, 10.0 ** float(s.d.facts.digits[0]), "kWh", tr("more digits than the register has", "超出示数位数")


def _k5(s: _Seen, slot: int) -> Told:
    earlier = sum(1 << (c - 1) for c in (Check.K1, Check.K2, Check.K3, Check.K4))
    ok = np.isfinite(s.value) & (s.mask & earlier == 0)
    third = float(np.sort(np.abs(s.value[ok]))[-3])
    ratio = (abs(float(s.value[slot])) - third) / third if third else float("inf")
    text = tr(f"third highest {third:.3f} kW", f"第三高值 {third:.3f} kW")
    return ratio, checks.SPIKE_RATIO, "", tr("(h - h3)/h3; ", "(h - h3)/h3; ") + text


def _k6(s: _Seen, slot: int) -> Told:
    total = float(np.nansum(s.value)) * s.d.step_s / 3600.0
    exported = float(s.layers.export_kwh[0])
    register = float(s.layers.import_kwh[0]) - (exported if np.isfinite(exported) else 0.0)
    quantum = float(s.k[-1]) * 10.0 ** -float(s.d.facts.least[0])
    limit = max(2 * quantum, checks.SUM_SHARE * abs(register))
    text = tr(
        f"sum of the slots {total:.3f}, registers {register:.3f} kWh", f"时段和 {total:.3f}, 示数差 {register:.3f} kWh"
    )
    return abs(total - register), limit, "kWh", text


def _k7(s: _Seen, slot: int) -> Told:
    if s.name in (FORWARD, *TARIFFS):
        total = float(s.d.registers[FORWARD].value[0, slot + 1])
        parts = [float(s.d.registers[n].value[0, slot + 1]) for n in TARIFFS if n in s.d.registers]
        limit = (len(parts) + 1) * 10.0 ** -float(s.d.facts.least[0])
        return abs(total - float(np.nansum(parts))), limit, "kWh", tr("total less the tariffs", "总与各费率之差")
    own = float("nan") if s.d.meter_demand_kw is None else float(s.d.meter_demand_kw[0]) * float(s.k[-1])
    most = checks.DEMAND_SHARE * float(np.nanmax(s.value))
    return (
        own,
        most,
        "kW",
        tr("meter's maximum demand below 0.99 of the largest block", "电表最大需量低于区间最大值的 0.99"),
    )


def _k8(s: _Seen, slot: int) -> Told:
    names = ("active_power_total", "reactive_power_total", "apparent_power_total")
    if all(n in s.d.curves for n in names):
        p, q, a = (float(s.d.curves[n].value[0, slot]) for n in names)
        share = abs(a * a - p * p - q * q) / (a * a) if a else float("inf")
        if share > checks.APPARENT_SHARE:
            return share, checks.APPARENT_SHARE, "S²", tr("S² less P² and Q²", "S² 与 P²+Q² 之差")
    return NAN, checks.PHASES_SHARE, "P", tr("P against the sum of U·I·cosφ of the phases", "P 与各相 U·I·cosφ 之和")


def _k9(s: _Seen, slot: int) -> Told:
    a = b = slot
    while a > 0 and s.value[a - 1] == s.value[slot]:
        a -= 1
    while b + 1 < len(s.value) and s.value[b + 1] == s.value[slot]:
        b += 1
    return (
        b - a + 1,
        checks.FROZEN_SLOTS,
        tr("slots", "点"),
        tr("one value while the register moved", "示数在走而数值不变"),
    )


def _k10(s: _Seen, slot: int) -> Told:
    ok = np.isfinite(s.value) & (s.mask & REPLACED == 0)
    total = float(s.value[ok].sum()) * s.d.step_s / 3600.0
    like = NAN if s.d.like_day_kwh is None else float(np.nanmean(s.d.like_day_kwh[0]))
    text = tr(f"day {total:.3f} kWh, like days {like:.3f} (warning)", f"当日 {total:.3f} kWh, 同类日 {like:.3f} (提示)")
    return abs(total - like) / abs(like) if like else NAN, checks.DAY_SHARE, "", text


def _k11(s: _Seen, slot: int) -> Told:
    curve = float(s.d.registers[s.name].value[0, slot + 1])
    freeze = float(s.d.freezes[s.name][0, slot + 1])
    limit = 10.0 ** -float(s.d.facts.least[0])
    return (
        abs(freeze - curve),
        limit,
        "kWh",
        tr(f"freeze {freeze} beside curve {curve}", f"冻结 {freeze}, 曲线 {curve}"),
    )


def _k12(s: _Seen, slot: int) -> Told:
    if s.name in (FORWARD, REVERSE):
        return NAN, NAN, "", tr("kWh without kvarh", "有 kWh 无 kvarh")
    jump = abs(float(s.value[slot]) - float(s.value[slot - 1])) if slot else NAN
    return jump, checks.FACTOR_JUMP, "", tr("jump from the slot before", "较前一点跳变")


_TELL: Final[dict[Check, Callable[[_Seen, int], Told]]] = {
    Check.K1: _k1, Check.K2: _k2, Check.K3: _k3, Check.K4: _k4, Check.K5: _k5, Check.K6: _k6, Check.K7: _k7,
    Check.K8: _k8, Check.K9: _k9, Check.K10: _k10, Check.K11: _k11, Check.K12: _k12,
}  # fmt: skip
