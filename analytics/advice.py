"""Advice to a customer 用电建议: which of the rules of domain 4.10 holds for a month, with its numbers in the text.

The rules are judged for all points at once; Python objects are made only for what is found. Nothing is advised on a
month that is less than 90 % complete. Whether advice was taken, and how it was liked, is kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from ..model.lang import tr
from .masks import B1, F8, I2, divide
from .power_factor import compensation_kvar

COMPLETE: Final = 0.90
OVER_Q_SHARE: Final = 0.05  # W_QIV of W_P
OVER_Q_SLOTS: Final = 0.10  # of slots with Q <= -10 % S_n
PEAK_POINTS: Final = 0.10  # above the class's mean
LARGE: Final = (0.30, 0.40)  # P95 and maximum of beta for three months
SMALL: Final = (1.00, 0.80)  # maximum of beta, or P95 for two months
UNBALANCE: Final = 0.30
CONTRACT_FLOOR: Final = 0.40
CONTRACT_OVER: Final = 1.05


class Kind(StrEnum):
    """The rules of 4.10."""

    UNDER_COMPENSATED = "under_compensated"
    OVER_COMPENSATED = "over_compensated"
    TOO_LARGE = "transformer_too_large"
    TOO_SMALL = "transformer_too_small"
    SHIFT = "shift_peak"
    UNBALANCE = "unbalance"
    CONTRACT_LOW = "contract_demand_low"
    CONTRACT_HIGH = "contract_demand_high"


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthFacts:
    """What the rules need of a month, arrays (points,), NaN = not known. kW, kWh, kvarh, primary side; shares 0..1.

    cos, cos_standard: hundredths, -1 and 0 = none; q4_kvarh: quadrant IV; q_low_share: share of slots with Q <= -10 %
    S_n; beta_p95, beta_max: (points, 3), the last three months, newest last; peak_share, class_peak_share: of the TOU
    energy; peak_kwh; price_peak, price_valley: yuan per kWh; unbalance: spread rate that 95 % of the judged slots do
    not exceed; demand_kw: the meter's; contract_kw; capacity_kva.
    """

    completeness: F8
    p_avg_kw: F8
    active_kwh: F8
    cos: I2
    cos_standard: I2
    q4_kvarh: F8
    q_low_share: F8
    beta_p95: F8
    beta_max: F8
    peak_share: F8
    class_peak_share: F8
    peak_kwh: F8
    price_peak: F8
    price_valley: F8
    unbalance: F8
    demand_kw: F8
    contract_kw: F8
    capacity_kva: F8


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One piece of advice to the point at `row`: its numbers by name, and the text (tr) that carries them."""

    row: int
    kind: Kind
    numbers: Mapping[str, float]

    @property
    def text(self) -> str:
        """The advice in the language in force, with its numbers."""
        return _TEXT[self.kind](self.numbers)


@dataclass(frozen=True, slots=True)
class _Rule:
    holds: B1
    numbers: Mapping[str, F8]


def judge(f: MonthFacts) -> Mapping[Kind, _Rule]:
    """Where each rule holds (points,), and its numbers (points,)."""
    cos, standard = f.cos / 100.0, f.cos_standard / 100.0
    short = (f.cos >= 0) & (f.cos_standard > 0) & (f.cos < f.cos_standard)
    qc = compensation_kvar(f.p_avg_kw, np.where(short, cos, 1.0), np.where(short, standard, 1.0))
    q4 = divide(f.q4_kvarh, f.active_kwh)
    excess = np.maximum(f.peak_share - f.class_peak_share, 0.0)
    shift = divide(excess, f.peak_share) * f.peak_kwh
    floor = CONTRACT_FLOOR * f.capacity_kva
    with np.errstate(invalid="ignore"):
        return {
            Kind.UNDER_COMPENSATED: _Rule(
                short & (qc > 0), {"cos": cos, "standard": standard, "p_kw": f.p_avg_kw, "kvar": qc}
            ),
            Kind.OVER_COMPENSATED: _Rule(
                (q4 > OVER_Q_SHARE) | (f.q_low_share >= OVER_Q_SLOTS),
                {"q4_share": np.nan_to_num(q4), "slots_share": np.nan_to_num(f.q_low_share)},
            ),
            Kind.TOO_LARGE: _Rule(
                np.logical_and.reduce((f.beta_p95 < LARGE[0]) & (f.beta_max < LARGE[1]), axis=-1)
                & (f.beta_p95.shape[-1] >= 3),
                {"p95": _top(f.beta_p95), "max": _top(f.beta_max)},
            ),
            Kind.TOO_SMALL: _Rule(
                (f.beta_max[:, -1] > SMALL[0])
                | (np.logical_and.reduce(f.beta_p95[:, -2:] > SMALL[1], axis=-1) & (f.beta_p95.shape[-1] >= 2)),
                {"p95": np.nan_to_num(f.beta_p95[:, -1]), "max": np.nan_to_num(f.beta_max[:, -1])},
            ),
            Kind.SHIFT: _Rule(
                (f.peak_share > f.class_peak_share + PEAK_POINTS) & (f.price_peak > f.price_valley) & (shift > 0),
                {
                    "share": f.peak_share, "class_share": f.class_peak_share, "kwh": shift,
                    "yuan": shift * (f.price_peak - f.price_valley),
                },
            ),
            Kind.UNBALANCE: _Rule(f.unbalance > UNBALANCE, {"rate": f.unbalance}),
            Kind.CONTRACT_LOW: _Rule(
                f.demand_kw > CONTRACT_OVER * f.contract_kw, {"demand": f.demand_kw, "contract": f.contract_kw}
            ),
            Kind.CONTRACT_HIGH: _Rule(
                np.maximum(f.demand_kw, floor) < f.contract_kw / CONTRACT_OVER,
                {
                    "demand": f.demand_kw, "contract": f.contract_kw, "floor": floor,
                    "possible": np.maximum(f.demand_kw, floor),
                },
            ),
        }  # fmt: skip


def advise(f: MonthFacts) -> list[Advice]:
    """All advice of a month, by point and then in the order of `Kind`; none below 90 % completeness."""
    complete = np.isfinite(f.completeness) & (np.nan_to_num(f.completeness) >= COMPLETE)
    found = []
    for kind, rule in judge(f).items():
        for row in np.flatnonzero(rule.holds & complete).tolist():
            found.append(Advice(row=row, kind=kind, numbers={k: float(v[row]) for k, v in rule.numbers.items()}))
    order = list(Kind)
    return sorted(found, key=lambda a: (a.row, order.index(a.kind)))


def _top(value: F8) -> F8:
    """Largest of the months; NaN where one is missing (no verdict then)."""
    return value.max(axis=-1, initial=-np.inf) if value.shape[-1] else np.full(len(value), np.nan)


def _pc(x: float) -> str:
    return f"{100 * x:.1f} %"


def _under(n: Mapping[str, float]) -> str:
    cos, s, kvar, p = f"{n['cos']:.2f}", f"{n['standard']:.2f}", f"{n['kvar']:.1f}", f"{n['p_kw']:.1f}"
    return tr(
        f"power factor {cos} is below the required {s}: add about {kvar} kvar of capacitors (mean load {p} kW)",
        f"功率因数 {cos} 低于考核标准 {s}: 建议增加约 {kvar} kvar 无功补偿 (平均负荷 {p} kW)",
    )


def _over(n: Mapping[str, float]) -> str:
    q, s = _pc(n["q4_share"]), _pc(n["slots_share"])
    return tr(
        f"over-compensated: reactive energy returned is {q} of active, {s} of the time below -10 % of capacity; switch"
        " capacitor steps off at night or use automatic switching",
        f"过补偿: 倒送无功为有功的 {q}, {s} 的时间无功低于 -10 % 容量; 建议夜间退出部分电容器或采用自动投切",
    )


def _large(n: Mapping[str, float]) -> str:
    p, m = _pc(n["p95"]), _pc(n["max"])
    return tr(
        f"transformer too large for three months: 95 % of the time below {p} load, maximum {m}; suspend or reduce"
        " capacity, or pay the basic fee by demand",
        f"变压器连续三个月偏大: 95 % 的时间负载率不超过 {p}, 最大 {m}; 建议暂停、减容或按需量计收基本电费",
    )


def _small(n: Mapping[str, float]) -> str:
    p, m = _pc(n["p95"]), _pc(n["max"])
    return tr(
        f"transformer too small: maximum load {m}, 95 % of the time below {p}; enlarge the capacity",
        f"变压器偏小: 最大负载率 {m}, 95 % 的时间不超过 {p}; 建议增容",
    )


def _shift(n: Mapping[str, float]) -> str:
    share, other, kwh, yuan = _pc(n["share"]), _pc(n["class_share"]), f"{n['kwh']:,.0f}", f"{n['yuan']:,.2f}"
    return tr(
        f"peak share {share} against {other} of the class: moving {kwh} kWh a month to the valley saves {yuan} yuan",
        f"峰段电量占比 {share}, 同类平均 {other}: 每月移至谷段 {kwh} kWh 可节约 {yuan} 元",
    )


def _unbalanced(n: Mapping[str, float]) -> str:
    rate = _pc(n["rate"])
    return tr(
        f"currents of the phases differ by up to {rate}: spread the single-phase loads",
        f"三相电流不平衡度达 {rate}: 建议调整单相负荷分配",
    )


def _low(n: Mapping[str, float]) -> str:
    d, c = f"{n['demand']:.1f}", f"{n['contract']:.1f}"
    return tr(
        f"demand {d} kW is above 105 % of the contract demand {c} kW: the excess is charged double; raise the contract",
        f"最大需量 {d} kW 超过合同需量 {c} kW 的 105 %: 超出部分加倍计收; 建议提高合同需量",
    )


def _high(n: Mapping[str, float]) -> str:
    d, c, p, f = (f"{n[k]:.1f}" for k in ("demand", "contract", "possible", "floor"))
    return tr(
        f"contract demand {c} kW is more than needed (demand {d} kW): {p} kW would do (floor {f} kW, 40 % of capacity)",
        f"合同需量 {c} kW 偏高 (最大需量 {d} kW): 可降至 {p} kW (下限 {f} kW, 即容量的 40 %)",
    )


_TEXT: Final[Mapping[Kind, Callable[[Mapping[str, float]], str]]] = {
    Kind.UNDER_COMPENSATED: _under, Kind.OVER_COMPENSATED: _over, Kind.TOO_LARGE: _large, Kind.TOO_SMALL: _small,
    Kind.SHIFT: _shift, Kind.UNBALANCE: _unbalanced, Kind.CONTRACT_LOW: _low, Kind.CONTRACT_HIGH: _high,
}  # fmt: skip
