"""Is control safe? Every way that one command can go, tried out on the daemon's own steps (exploration.py).

The figures are counts. A case that meets a broken promise ends there, prints the way to it and is counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from .exploration import CASES, LONGER, Case, Counts, Unsafe, explore

Row = dict[str, object]


def run(*, quick: bool = False) -> list[Row]:
    """Rows of the table; quick: the cases of the test suite only."""
    logging.disable(logging.CRITICAL)
    try:
        return _explored(CASES if quick else {**CASES, **LONGER})
    finally:
        logging.disable(logging.NOTSET)


def _explored(cases: Mapping[str, Case]) -> list[Row]:
    rows: list[Row] = []
    total = Counts()
    broken: list[str] = []
    began_s = time.process_time()
    for name, case in cases.items():
        try:
            found = explore(case)
        except Unsafe as error:
            print(f"{name}: {error}")
            broken.append(name)
            continue
        total.situations += found.situations
        total.transitions += found.transitions
        total.crash_points += found.crash_points
        total.sends += found.sends
        total.states |= found.states
        total.steps |= found.steps
        rows.append({"name": f"situations: {name}", "value": found.situations, "unit": "situations"})
    rows += [
        {"name": "situations of one command, altogether", "value": total.situations, "unit": "situations"},
        {"name": "transitions tried", "value": total.transitions, "unit": "transitions"},
        {"name": "deaths of the daemon or the database", "value": total.crash_points, "unit": "crash points"},
        {"name": "frames sent", "value": total.sends, "unit": "frames"},
        {"name": "states met", "value": len(total.states), "unit": "states"},
        {"name": "steps of the table taken", "value": len(total.steps), "unit": "steps"},
        {"name": "cases with a broken promise", "value": len(broken), "unit": "cases", "target": 0},
        {"name": "processor time", "value": time.process_time() - began_s, "unit": "s"},
    ]
    return rows
