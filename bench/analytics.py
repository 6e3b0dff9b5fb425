"""Speed of the analytics: a day of many points, beside a plain Python loop and beside bare numpy, in one run.

`run(quick)` returns rows of bench, name, value, unit, peer, ratio, target (None where none is set).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np

from fuhe.analytics.day import DayInput, Series, day_table, labels_us
from fuhe.analytics.energy import constant_multipliers, energy_from_registers
from fuhe.analytics.load import load_day
from fuhe.model.devices import Point
from fuhe.model.times import day_start_us

DAY = date(2026, 11, 20)


def _best(work: Callable[[], object], repeat: int) -> float:
    """Shortest of some runs, seconds."""
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def _registers(points: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    rng = np.random.default_rng(1)
    steps = rng.integers(0, 500, (points, 97)).astype(np.float64) / 100
    registers = np.cumsum(steps, axis=1) + rng.integers(0, 900_000, (points, 1))
    registers[rng.random(registers.shape) < 0.01] = np.nan
    return registers


def _slow_energy(rows: list[list[float]], k: Decimal) -> list[list[Decimal | None]]:
    """The peer: rule 4.1 without rollover as a loop with Decimal, which is what exactness costs without arrays."""
    result = []
    for row in rows:
        out: list[Decimal | None] = []
        for r1, r2 in itertools.pairwise(row):
            good = r1 == r1 and r2 == r2 and r2 >= r1
            out.append((Decimal(f"{r2:.2f}") - Decimal(f"{r1:.2f}")) * k if good else None)
        result.append(out)
    return result


def _slow_load(rows: list[list[float]]) -> list[tuple[float, float, float, int]]:
    """The peer: sum, maximum with its slot and minimum of each day in a plain loop."""
    result = []
    for row in rows:
        total, top, low, at = 0.0, float("-inf"), float("inf"), -1
        for i, value in enumerate(row):
            if value != value:
                continue
            total += value
            if value > top:
                top, at = value, i
            low = min(low, value)
        result.append((total, top, low, at))
    return result


def run(quick: bool = False) -> list[dict[str, Any]]:
    """All rows; about 15 s, quick about 3 s."""
    points, few, repeat = (2_000, 100, 2) if quick else (25_000, 500, 3)
    registers = _registers(points)
    boundary = np.r_[day_start_us(DAY), labels_us(DAY)]
    k = constant_multipliers([Decimal(3000)] * points, 96)
    digits, contract = np.full(points, 6), np.full(points, 1000.0)

    def energy() -> object:
        return energy_from_registers(
            registers, digits=digits, decimals=2, k=k, boundary_us=boundary, contract_kva=contract
        )

    energy_s = _best(energy, repeat) / points
    listed = registers[:few].tolist()
    slow_energy_s = _best(lambda: _slow_energy(listed, Decimal(3000)), repeat) / few
    bare_s = _best(lambda: np.diff(registers, axis=1) * 3000.0, repeat) / points

    kw = np.diff(registers, axis=1) * 4
    ok = np.isfinite(kw)
    filled = np.where(ok, kw, 0.0)
    load_s = _best(lambda: load_day(filled, ok, 900), repeat) / points
    slow_load_s = _best(lambda: _slow_load(kw[:few].tolist()), repeat) / few

    everyone = [
        Point(id=i + 1, name=str(i), ct_ratio=Decimal(60), contract_kva=Decimal(1000), nominal_v=Decimal(220))
        for i in range(points)
    ]
    rng = np.random.default_rng(2)

    def series(value: Any) -> Series:
        return Series(value, np.zeros(value.shape, np.int16))

    curves = {f"voltage_{p}": series(220 + 5 * rng.standard_normal((points, 96))) for p in "abc"}
    curves |= {"active_power_total": series(kw), "reactive_power_total": series(kw * 0.3)}
    data = DayInput(day=DAY, points=everyone, curves=curves, registers={"forward_active_total": series(registers)})
    table_s = _best(lambda: day_table(data), 1 if quick else 2)

    def row(name: str, value: float, unit: str, peer: str, ratio: float | None) -> dict[str, Any]:
        return {
            "bench": "analytics", "name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio,
            "target": None,
        }  # fmt: skip

    loop = "plain Python loop"
    return [
        row("exact energy of 96 slots", 1 / energy_s, "points/s", f"{loop} with Decimal", slow_energy_s / energy_s),
        row(
            "exact energy, share of bare np.diff speed", bare_s / energy_s, "x", "np.diff in float64", bare_s / energy_s
        ),
        row("load figures of 96 slots", 1 / load_s, "points/s", loop, slow_load_s / load_s),
        row(f"whole day table, {points} points", points / table_s, "points/s", "", None),
    ]


if __name__ == "__main__":
    for line in run():
        print(line)
