"""Hold and clear: a condition becomes a finding when it has been true for `hold` slots in a row, and ends when the
clear condition has been true for `clear` slots in a row. One function for a whole day and for a single new slot alike.

A slot that is not known breaks both runs and changes nothing: nobody is accused by a hole, nobody is cleared by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..masks import B1

I4 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Carry:
    """What one evaluation leaves to the next, arrays (points,): the finding holds; slots of the runs at the end."""

    active: B1
    on: I4
    off: I4

    @classmethod
    def none(cls, points: int) -> Carry:
        """Nothing before."""
        return cls(np.zeros(points, np.bool_), np.zeros(points, np.int32), np.zeros(points, np.int32))


def runs(true: B1, before: I4) -> I4:
    """Length of the run of true slots that ends at each slot (points, slots); `before`: of the run that came before."""
    slots = true.shape[1]
    at = np.arange(slots, dtype=np.int32)
    last_false = np.maximum.accumulate(np.where(true, np.int32(-1), at), axis=1)
    length = at - last_false
    length += np.where(last_false < 0, before[:, None], 0)
    return np.where(true, length, 0).astype(np.int32)


def evaluate(true: B1, cleared: B1, known: B1, hold: int, clear: int, before: Carry) -> tuple[B1, Carry]:
    """Whether the finding holds at each slot (points, slots), and what is carried on.

    true, cleared: the condition and the clear condition; both only where known. A finding that is set and cleared at
    the same slot is set.
    """
    on, off = runs(true & known, before.on), runs(cleared & known, before.off)
    up, down = on >= hold, (off >= clear) & ~(on >= hold)
    at = np.arange(1, true.shape[1] + 1)
    last_up = np.maximum.accumulate(np.where(up, at, 0), axis=1)
    last_down = np.maximum.accumulate(np.where(down, at, 0), axis=1)
    active = np.where((last_up == 0) & (last_down == 0), before.active[:, None], last_up > last_down)
    if true.shape[1] == 0:
        return active, before
    return active, Carry(active[:, -1].copy(), on[:, -1].copy(), off[:, -1].copy())
