"""Demand (需量) as the server can know it: the largest 15-min block average, indicative only (domain 4.3).

Billing demand is the meter's own sliding value from the month's freeze; a block maximum is never above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from .masks import B1, F8, I8, divide, masked_max

BLOCK_S: Final = 900


class ContractWatch(IntEnum):
    """Demand against the contract: from 95 % a warning, from 100 % an alarm, from 105 % the penalty band."""

    NORMAL = 0
    WARNING = 1
    ALARM = 2
    PENALTY = 3
    UNKNOWN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Indicative demand: kw (points,), time_us (points,) = END of the block, -1 and NaN where there is none."""

    kw: F8
    time_us: I8


def block_demand(kw: F8, ok: B1, label_us: I8, step_s: int) -> Demand:
    """Largest 15-min block average of the import power and its time.

    kw, ok: (points, slots) averages or samples of step_s; label_us: (slots,) interval ends. Blocks end on whole
    quarters of an hour; a block with a missing slot does not count. Steps longer than 15 min are taken as they are.
    """
    if step_s < BLOCK_S:
        if BLOCK_S % step_s:
            raise ValueError("a demand block of 15 min is no whole number of slots")
        n = BLOCK_S // step_s
        lead = int((-(label_us[0] // 1_000_000 - step_s) % BLOCK_S) // step_s) if len(label_us) else 0
        blocks = max((len(label_us) - lead) // n, 0)
        span = slice(lead, lead + blocks * n)
        kw = np.where(ok, kw, 0.0)[:, span].reshape(len(kw), blocks, n).mean(axis=-1)
        ok = np.logical_and.reduce(ok[:, span].reshape(len(ok), blocks, n), axis=-1)
        label_us = label_us[span][n - 1 :: n]
    if kw.shape[-1] == 0:
        return Demand(kw=np.full(len(kw), np.nan), time_us=np.full(len(kw), -1, np.int64))
    top, slot = masked_max(np.maximum(kw, 0.0), ok)
    return Demand(kw=top, time_us=np.where(slot >= 0, label_us[np.maximum(slot, 0)], -1))


def contract_watch(demand_kw: F8, contract_kw: F8) -> I8:
    """ContractWatch per point; UNKNOWN where either figure is missing."""
    share = divide(demand_kw, contract_kw)
    level = np.searchsorted(np.array([0.95, 1.0, 1.05]), np.nan_to_num(share), side="right")
    return np.where(np.isfinite(share), level, ContractWatch.UNKNOWN)
