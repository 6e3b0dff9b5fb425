"""How often Python looks for reference cycles: seldom, and not among what lives as long as the process.

A reading in flight is a handful of small objects that die by reference counting; at full speed the collector's default
pace (each 700 new objects) costs a tenth of the processor and finds nothing. Cycles are still found, later.
"""

from __future__ import annotations

import gc
from typing import Final

NEW_OBJECTS: Final = 20_000  # a few MB at most between two looks at the youngest
ROUNDS: Final = 20  # looks at a generation before the next older one is looked at too


def settle() -> None:
    """To be called once after the start: everything that exists now is taken to stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, ROUNDS, ROUNDS)
