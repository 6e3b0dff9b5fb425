"""Which slots may be counted: validity masks from values and qualities, and the day's completeness flag (domain 4, 6).

For every array function of this package: axis -1 is the slots of a day, a slot that is not valid never counts as zero,
and a figure that cannot be given is NaN. No function here knows where the values came from.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..model.quality import Quality

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
I2 = NDArray[np.int16]
B1 = NDArray[np.bool_]

COMPLETE_SHARE: Final = 0.95
PARTIAL_SHARE: Final = 0.75
# One lookup table a question: quality code -> yes or no.
_MEASURED: Final = np.zeros(64, np.bool_)
_MEASURED[[Quality.A, Quality.U, Quality.O]] = True
_ESTIMATED: Final = np.zeros(64, np.bool_)
_ESTIMATED[[Quality.E1, Quality.E2, Quality.E3, Quality.E4, Quality.E5]] = True


class DayFlag(IntEnum):
    """Completeness of a day's slots: 95 % and more, 75 % and more (shown, not ranked), less (figures are NULL)."""

    COMPLETE = 0
    PARTIAL = 1
    INSUFFICIENT = 2


def measured(value: F8, quality: I2 | None = None) -> B1:
    """Slots with a measured, edited or confirmed-outage value; suspect, rejected and estimated ones are not."""
    ok: B1 = np.isfinite(value)
    return ok if quality is None else ok & _MEASURED[np.clip(quality, 0, 63)]


def estimated(value: F8, quality: I2) -> B1:
    """Slots with an estimated value: they count in energy, are drawn dashed, and never make a maximum (chapter 6)."""
    return np.isfinite(value) & _ESTIMATED[np.clip(quality, 0, 63)]


def day_flag(count: NDArray[np.integer] | F8, expected: int | NDArray[np.integer]) -> I2:
    """DayFlag from the number of valid slots and the number expected; 0 expected is INSUFFICIENT."""
    share = divide(np.asarray(count, np.float64), np.asarray(expected, np.float64))
    # 92 of 96 slots is "95 %" by the rule's own example although 92/96 = 95.8 %; 91/96 = 94.8 % is not.
    flag = np.where(share >= COMPLETE_SHARE, DayFlag.COMPLETE, DayFlag.PARTIAL)
    return np.where(share >= PARTIAL_SHARE, flag, DayFlag.INSUFFICIENT).astype(np.int16)


def divide(a: F8, b: F8) -> F8:
    """a / b, NaN where b is zero or NaN; no warning."""
    a, b = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64))
    out = np.full(a.shape, np.nan)
    np.divide(a, b, out=out, where=np.isfinite(b) & (b != 0))
    return out


def masked_sum(value: F8, ok: B1) -> F8:
    """Sum over the valid slots, NaN where there is none."""
    total = np.sum(value, axis=-1, where=ok)
    return np.where(ok.any(axis=-1), total, np.nan)


def masked_max(value: F8, ok: B1) -> tuple[F8, I8]:
    """Largest valid value and the first slot that has it; (NaN, -1) where no slot is valid."""
    filled = np.where(ok, value, -np.inf)
    slot = np.argmax(filled, axis=-1)
    top = np.take_along_axis(filled, slot[..., None], axis=-1)[..., 0]
    some = ok.any(axis=-1)
    return np.where(some, top, np.nan), np.where(some, slot, -1)


def masked_min(value: F8, ok: B1) -> tuple[F8, I8]:
    """Smallest valid value and the first slot that has it; (NaN, -1) where no slot is valid."""
    low, slot = masked_max(-value, ok)
    return -low, slot
