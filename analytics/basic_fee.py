"""Basic-fee adviser 基本电费: capacity, contract demand or actual demand, over twelve months (domain 4.16).

Money is exact: powers are whole watts and volt-amperes, prices thousandths of a yuan per kW (kVA) and month, fees whole
fen, rounded half-up once per month. The rules of a place are data (`FeeRule`); the defaults are the old national ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from .masks import B1, F8, I8

ADVISE_PERCENT: Final = 3  # a saving up to this is no advice
_LIMIT: Final = 2.0**62


class FeeMode(IntEnum):
    """How the basic fee is reckoned; NONE where it cannot be."""

    NONE = -1
    CAPACITY = 0
    CONTRACT_DEMAND = 1
    ACTUAL_DEMAND = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FeeRule:
    """capacity_price, demand_price: 0.001 yuan per kVA or kW and month. floor_percent: demand is at least this share of
    the running capacity; over_percent: beyond this share of the contract the fee of the excess is multiplied by
    over_times. intensive_kwh: from so many kWh per kVA and month the demand fee is intensive_percent (0 = no rule).
    change_months: how long a mode must be kept.
    """

    capacity_price: int
    demand_price: int
    floor_percent: int = 40
    over_percent: int = 105
    over_times: int = 2
    intensive_kwh: int = 0
    intensive_percent: int = 90
    change_months: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FeeAdvice:
    """fen (points, 3): fee of all months by FeeMode, -1 where not known; best: the cheapest mode (points,); saving_fen
    and saving_share (of today's fee) by changing to it; advise: saving above 3 % and the interval is over."""

    fen: I8
    best: I8
    saving_fen: I8
    saving_share: F8
    advise: B1


def _fen(w_percent: I8, price: int, percent: I8 | int = 100) -> I8:
    """Fee in fen of hundredths of a watt at 0.001 yuan per kW, times percent, half-up."""
    top = float(np.abs(w_percent).max(initial=0)) * price * float(np.max(percent, initial=0))
    if top >= _LIMIT:
        raise ValueError("the fee leaves the range of 64-bit integers: check capacities and prices")
    # 0.01 W x 0.001 yuan/kW x % = 1e-10 yuan = 1e-8 fen
    found: I8 = (w_percent * np.int64(price) * percent + 50_000_000) // 100_000_000
    return found


def basic_fees(demand_w: I8, contract_w: I8, capacity_va: I8, month_kwh: I8, rule: FeeRule) -> tuple[I8, B1]:
    """(fen, known), both (points, months, 3), last axis FeeMode.

    demand_w (points, months): the meter's own maximum demand of the month times K, -1 = not known; contract_w
    (points,): contract demand, -1 = none; capacity_va (points,): sum of running transformers; month_kwh (points,
    months): -1 = not known (then no discount).
    """
    shape = demand_w.shape
    capacity = np.broadcast_to(capacity_va[:, None], shape)
    floor = capacity * rule.floor_percent
    contract = np.maximum(np.broadcast_to(contract_w[:, None], shape) * 100, floor)
    bound = contract // 100 * rule.over_percent  # whole watts: 0.01 W
    demand = demand_w * 100
    over = np.maximum(demand - bound, 0)
    by_contract = np.where(over > 0, bound + over * rule.over_times, contract)
    percent = np.full(shape, 100, np.int64)
    if rule.intensive_kwh:
        intensive = (month_kwh >= 0) & (month_kwh * 1000 >= rule.intensive_kwh * capacity) & (capacity > 0)
        percent[intensive] = rule.intensive_percent
    fees = np.stack(
        [
            _fen(capacity * 100, rule.capacity_price),
            _fen(by_contract, rule.demand_price, percent),
            _fen(np.maximum(demand, floor), rule.demand_price, percent),
        ],
        axis=-1,
    )
    there = capacity > 0
    measured = there & (demand_w >= 0)
    known = np.stack([there, measured & (contract_w >= 0)[:, None], measured], axis=-1)
    return np.where(known, fees, -1), known


def advise_fee(
    demand_w: I8, contract_w: I8, capacity_va: I8, month_kwh: I8, mode: I8, months_kept: I8, rule: FeeRule
) -> FeeAdvice:
    """Compare the modes over all months given (twelve of them); shapes as `basic_fees`, mode and months_kept (points,).

    A mode counts only if every month of it is known. Nothing is advised to a point whose own fee is not known.
    """
    fees, known = basic_fees(demand_w, contract_w, capacity_va, month_kwh, rule)
    whole = np.logical_and.reduce(known, axis=1) & (known.shape[1] > 0)
    fen = np.where(whole, fees.sum(axis=1), -1)
    ranked = np.where(whole, fen, np.iinfo(np.int64).max)
    best = np.where(whole.any(axis=-1), ranked.argmin(axis=-1), FeeMode.NONE)
    row = np.arange(len(fen))
    today = np.where(mode >= 0, fen[row, np.maximum(mode, 0)], -1)
    saving = np.where((today >= 0) & (best >= 0), today - fen[row, np.maximum(best, 0)], 0)
    share = np.divide(saving, today, out=np.zeros(len(fen)), where=today > 0)
    worth = saving * 100 > ADVISE_PERCENT * np.maximum(today, 0)
    return FeeAdvice(
        fen=fen, best=best, saving_fen=saving, saving_share=share, advise=worth & (months_kept >= rule.change_months)
    )
