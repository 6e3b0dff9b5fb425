"""From a day's loaded arrays (`day.DayInput` and what else is known) to a chunk of the fleet's pass. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .curve import CurveSource, choose_source
from .day import POWER, VOLTS, DayInput, Series, register_energy
from .energy import IntervalFlag
from .fleet import SLOTS, Chunk, Facts
from .masks import F8, I2, I8, estimated, measured

AMPS: Final = ("current_a", "current_b", "current_c")
REGISTER_DECIMALS: Final = 4
MOST_DECIMALS: Final = 8


def chunk_of(
    data: DayInput, currents: Mapping[str, Series], facts: Facts, *, tariff: I8 | None = None,
    final_kw: F8 | None = None, final_quality: I2 | None = None,
) -> tuple[Chunk, I2, I2]:  # fmt: skip
    """(chunk, CurveSource of each point's day, IntervalFlag of its forward register).

    final_kw, final_quality (points, 96): the FINAL load, primary kW; a row with a value anywhere takes the place of
    the raw curves, one without leaves them. Otherwise a day has one source (4.2), measured values alone count. facts.k
    must be the multipliers of data.points: the caller puts those in force on the day into both.
    """
    n = len(data.points)
    k = facts.k[:, None]
    candidates: list[tuple[CurveSource, F8]] = []
    guesses = np.zeros((n, SLOTS), np.bool_)
    for code, name in POWER:
        series = data.curves.get(name) or Series.empty(n)
        candidates.append((code, np.where(measured(series.value, series.quality), series.value, np.nan)))
    energy, kw = register_energy(data, "forward_active_total")
    _, back_kw = register_energy(data, "reverse_active_total")
    net = np.where(np.isfinite(back_kw), kw - back_kw, kw)
    candidates.append((CurveSource.REGISTER, net / k))
    chosen = choose_source(candidates)
    power, source = chosen.kw, chosen.source.max(axis=1)
    if final_kw is not None and final_quality is not None:
        judged = np.logical_or.reduce(np.isfinite(final_kw), axis=1)[:, None]
        guesses = judged & estimated(final_kw, final_quality)
        good = measured(final_kw, final_quality) | guesses
        power = np.where(judged, np.where(good, final_kw / k, np.nan), power)
    decimals = _decimals(power, data.curves.get("reactive_power_total"))
    flag = energy.flag[:, 0]
    exact = np.isfinite(energy.total())
    units = np.zeros((n, 2), np.int64)
    # What the register says may hold a proven rollover: its energy, not its two readings, goes into the chunk.
    units[:, 1] = np.rint(np.where(exact, energy.total(), 0.0) / facts.k * 10.0**REGISTER_DECIMALS)
    units[~exact] = -1
    return (
        Chunk(
            point=np.array([p.id for p in data.points], np.int32),
            p=_whole32(power, decimals),
            q=_whole32(_measured(data.curves.get("reactive_power_total"), n), decimals),
            u=_phases(data, facts),
            i=_three([_whole16(_measured(currents.get(name), n), 2) for name in AMPS]),
            facts=facts, register=units, guessed=guesses if guesses.any() else None, tariff=tariff,
            p_decimals=decimals, register_decimals=REGISTER_DECIMALS,
        ),
        source.astype(np.int16),
        np.where(exact | (flag == IntervalFlag.DECREASE), flag, IntervalFlag.MISSING).astype(np.int16),
    )  # fmt: skip


def _measured(series: Series | None, n: int) -> F8:
    if series is None:
        return np.full((n, SLOTS), np.nan)
    return np.where(measured(series.value, series.quality), series.value, np.nan)


def _decimals(power: F8, reactive: Series | None) -> int:
    """As many decimals as the chunk's largest power leaves room for in 32 bits."""
    top = float(np.nanmax(np.abs(power), initial=1.0))
    if reactive is not None:
        top = max(top, float(np.nanmax(np.abs(reactive.value), initial=1.0)))
    return int(np.clip(np.floor(np.log10((2**31 - 2) / top)), 0, MOST_DECIMALS))


def _whole32(value: F8, decimals: int) -> NDArray[np.int32]:
    there = np.isfinite(value)
    out = np.full(value.shape, np.iinfo(np.int32).min, np.int32)
    out[there] = np.rint(value[there] * 10.0**decimals)
    return out


def _whole16(value: F8, decimals: int) -> NDArray[np.int16]:
    """A value beyond 16 bits cannot be a secondary voltage or current: it stands at the limit, outside every band."""
    there = np.isfinite(value)
    out = np.full(value.shape, np.iinfo(np.int16).min, np.int16)
    out[there] = np.clip(np.rint(value[there] * 10.0**decimals), -32767, 32767)
    return out


def _phases(data: DayInput, facts: Facts) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]:
    """Phase voltages; of a 3P3W point the line voltages ab and bc under A and C, where it has them."""
    n = len(data.points)
    found = []
    for phase, line in zip(VOLTS[0], (VOLTS[1][0], VOLTS[1][2], VOLTS[1][1]), strict=True):
        value, other = _measured(data.curves.get(phase), n), _measured(data.curves.get(line), n)
        found.append(_whole16(np.where(facts.three_wire[:, None] & np.isfinite(other), other, value), 1))
    return _three(found)


def _three(a: list[NDArray[np.int16]]) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]:
    return a[0], a[1], a[2]
