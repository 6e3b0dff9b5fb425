"""What the day pass takes and gives: arrays of a chunk of point-days, and the names it knows. No function of its own.

Axis 0 is point-days: the `days` consecutive days of one point stand next to each other (row = point * days + day), so a
gap over midnight has its neighbours; with days=1 every row is by itself. The last axis is the slots of a day, labelled
by their ends. Curves and registers come as the devices gave them (secondary side), with the raw layer's qualities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ...model.quality import Quality
from ..curve import CurveSource
from ..day import Series
from ..energy import Exchanges, Multipliers
from ..masks import B1, F8, I2, I8
from . import checks
from .checks import Check

POWER: Final = ((CurveSource.METER_AVERAGE, "active_demand"), (CurveSource.SAMPLED, "active_power_total"))
FORWARD: Final = "forward_active_total"
REVERSE: Final = "reverse_active_total"
TARIFFS: Final = tuple(f"forward_active_t{i}" for i in range(1, 9))
REACTIVE: Final = (
    "forward_reactive_total", "reverse_reactive_total", "combined_reactive_1_total", "combined_reactive_2_total",
    "reactive_q1_total", "reactive_q4_total",
)  # fmt: skip
VOLTS: Final = ("voltage_a", "voltage_b", "voltage_c")
LINES: Final = ("voltage_ab", "voltage_bc", "voltage_ca")
AMPS: Final = ("current_a", "current_b", "current_c")
FACTORS: Final = ("power_factor_a", "power_factor_b", "power_factor_c")
FACTOR: Final = "power_factor_total"
LOAD: Final = "load_power"
LOAD_DECIMALS: Final = 5
VOLTAGE_TOP: Final = 1.5  # of nominal: physical range of a voltage
REPLACED: Final = sum(1 << (c - 1) for c in (Check.K1, Check.K2, Check.K3, Check.K4, Check.K5, Check.K9))
SUSPECT: Final = sum(1 << (c - 1) for c, q in checks.CONSEQUENCE.items() if q == Quality.S)
REJECTED: Final = sum(1 << (c - 1) for c, q in checks.CONSEQUENCE.items() if q == Quality.X)
K2_BIT: Final = 1 << (Check.K2 - 1)
K6_BIT: Final = 1 << (Check.K6 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Archive of each point-day, arrays (rows,), NaN = not known.

    imax_kva: power at the meter's maximum current, primary; nominal_v: secondary; three_wire: 3P3W (no phase B);
    digits: integer digits of registers; least: decimals that they show; clock_offset_s: of the device that day.
    """

    contract_kva: F8
    imax_kva: F8
    nominal_v: F8
    three_wire: B1
    digits: I8
    least: I8
    clock_offset_s: F8


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What people decided, arrays (rows, slots).

    value: an edited value (U), NaN = none; accepted: the value there stands as it is (U); rejected: X; method:
    Quality.E1, E3 or E4 to be taken instead of the usual order (also beyond seven days), 0 = none.
    """

    value: F8
    accepted: B1
    rejected: B1
    method: I2


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """A chunk. curves: quantity -> (rows, slots); registers: quantity -> (rows, slots + 1) at the boundaries; freezes:
    register readings at the same boundaries from another memory (K11); k: multiplier per slot (rows, slots); exchanges:
    `point` = row, `slot` = slot of that row. Absent = nobody has it. Optional arrays are those of `estimate`.

    check_kwh: check meter or the terminal's own sampling (EST1); like_kwh (EST3), profile_kwh (EST4), outage: (rows,
    slots); like_day_kwh (rows, m): energy of like days (K10); meter_demand_kw (rows,): the meter's own maximum of the
    day, secondary (K7). edits: quantity or LOAD -> Edits.
    """

    days: int
    step_s: int
    curves: Mapping[str, Series]
    registers: Mapping[str, Series]
    k: Multipliers
    facts: Facts
    freezes: Mapping[str, F8] = field(default_factory=dict)
    exchanges: Exchanges | None = None
    register_decimals: int = 4
    outage: B1 | None = None
    check_kwh: F8 | None = None
    like_kwh: F8 | None = None
    profile_kwh: F8 | None = None
    like_day_kwh: F8 | None = None
    meter_demand_kw: F8 | None = None
    edits: Mapping[str, Edits] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """CHECKED and FINAL of a chunk, arrays (rows, slots) unless said otherwise.

    failed, checked: quantity -> mask and quality (registers: of the reading at the slot's end); values, quality:
    FINAL of the measured quantities. load_kw, load_quality, load_failed, load_source (CurveSource), load_raw_kw: before
    estimation, primary. needs_person: gaps over seven days, left open. reaches: (rows,) estimation wanted to see beyond
    the chunk's first or last day. import_kwh, export_kwh (rows,): by registers, primary, exact; energy_flag (rows,):
    IntervalFlag of the day by its forward register.
    """

    failed: Mapping[str, I2]
    checked: Mapping[str, I2]
    values: Mapping[str, F8]
    quality: Mapping[str, I2]
    load_kw: F8
    load_quality: I2
    load_failed: I2
    load_source: I2
    load_raw_kw: F8
    needs_person: B1
    reaches: B1
    import_kwh: F8
    export_kwh: F8
    energy_flag: I2
