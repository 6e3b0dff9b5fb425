"""What `fuhe analyse` reads of a day: readings, FINAL load, archive in force, as a chunk of the fleet's pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray

from ..analytics.curve import CurveSource
from ..analytics.day import DayInput, Series
from ..analytics.fleet import SLOTS, Chunk, Facts
from ..analytics.fleet_input import AMPS, chunk_of
from ..analytics.masks import F8, I2
from ..analytics.voltage import Band, band_of, bands
from ..model.devices import Point
from ..model.quality import Quality
from ..model.quantities import quantity
from ..model.times import DAY_US, day_start_us
from ..storage.archive import Contract, Multipliers, contracts, multipliers
from ..storage.curves import NONE
from ..storage.layers import heads, read_final
from ..storage.readings import load_curve_day
from .curve_data import load_day_input

Connection = psycopg.Connection[Any]
CURVE_OF = {CurveSource.METER_AVERAGE: "active_demand", CurveSource.SAMPLED: "active_power_total"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A chunk and what stands beside it; arrays (points,) but quality (points, 96): of the load's slots.

    version: FINAL version of the day, 0 = raw; history: the multipliers of the day.
    """

    chunk: Chunk
    source: I2
    energy_flag: I2
    version: I2
    quality: I2
    history: Multipliers


def load_chunk(connection: Connection, day: date, points: Sequence[Point]) -> Loaded:
    """Everything the pass wants of one business day of some points."""
    ids = [p.id for p in points]
    begin = day_start_us(day)
    history = multipliers(connection, ids, begin, begin + DAY_US)
    # a multiplier that changes within the day: the one in force at its end; the FINAL load has both
    latest = {int(i): history.factor(row) for row, i in enumerate(history.index)}
    facts_of = contracts(connection, ids, day)
    dated = [_dated(p, c, latest.get(n, p.multiplier)) for n, (p, c) in enumerate(zip(points, facts_of, strict=True))]
    data = load_day_input(connection, day, dated)
    value, quality = load_curve_day(connection, day, ids, [quantity(name).id for name in AMPS])
    value, quality = value.reshape(len(ids), 3, SLOTS), quality.reshape(len(ids), 3, SLOTS)
    currents = {name: Series(value[:, i], quality[:, i]) for i, name in enumerate(AMPS)}
    final_kw, final_quality = _final(connection, day, ids)
    chunk, source, flag = chunk_of(
        data, currents, _facts(dated, facts_of), final_kw=final_kw, final_quality=final_quality
    )  # fmt: skip
    version = np.zeros(len(ids), np.int16)
    place = {p: n for n, p in enumerate(ids)}
    for head in heads(connection, ids, day, day):
        version[place[head.point]] = head.version
    return Loaded(
        chunk=chunk, source=source, energy_flag=flag, version=version,
        quality=_quality(data, source, final_kw, final_quality, chunk), history=history,
    )  # fmt: skip


def _dated(point: Point, contract: Contract | None, k: Decimal) -> Point:
    """The point as the archive has it that day."""
    if contract is None:
        return point
    return msgspec.structs.replace(
        point, ct_ratio=k / point.pt_ratio, contract_kva=contract.contract_kva, nominal_v=contract.un_sec_v,
        wiring=contract.wiring or point.wiring,
    )  # fmt: skip


def _number(value: Decimal | None) -> float:
    return float("nan") if value is None else float(value)


def _facts(points: Sequence[Point], archive: Sequence[Contract | None]) -> Facts:
    band: list[Band | None] = []
    for p, c in zip(points, archive, strict=True):
        named = bands().get(c.voltage_band) if c else None
        band.append(named or (band_of(p.nominal_v, p.pt_ratio, p.wiring) if p.nominal_v else None))
    return Facts(
        k=np.array([float(p.multiplier) for p in points]),
        nominal_v=np.array([_number(p.nominal_v) for p in points]),
        rated_a=np.array([_number(c.in_sec_a) if c else float("nan") for c in archive]),
        low=np.array([b.low if b else 0 for b in band], np.int64),
        high=np.array([b.high if b else 0 for b in band], np.int64),
        three_wire=np.array([p.wiring == "3P3W" for p in points]),
        single=np.array([p.wiring == "1P" for p in points]),
        contract_kva=np.array([_number(p.contract_kva) for p in points]),
        transformer_kva=np.array([_number(c.transformer_kva or c.running_kva) if c else float("nan") for c in archive]),
    )


def _final(connection: Connection, day: date, ids: Sequence[int]) -> tuple[F8, I2]:
    """The FINAL load in force, primary kW (points, 96); NaN where the day was not judged."""
    kw = np.full((len(ids), SLOTS), np.nan)
    quality = np.full(kw.shape, Quality.M, np.int16)
    place = {p: n for n, p in enumerate(ids)}
    for rows in read_final(connection, day, day, ids, [quantity("load_power").id]):
        at = [place[int(p)] for p in rows.key["point"]]
        scale = np.power(10.0, rows.key["decimals"])[:, None]
        kw[at] = np.where(rows.number == NONE, np.nan, rows.number / scale)
        quality[at] = rows.quality
    return kw, quality


def _quality(data: DayInput, source: I2, final_kw: F8, final_quality: I2, chunk: Chunk) -> I2:
    """Quality of every slot of the load, by the layer and source it comes from."""
    present = chunk.p != np.iinfo(np.int32).min
    out = np.where(present, Quality.A, Quality.M).astype(np.int16)
    for code, name in CURVE_OF.items():
        series = data.curves.get(name)
        if series is not None:
            mine = (source == code)[:, None] & np.isfinite(series.value)
            out = np.where(mine, series.quality, out)
    judged = np.logical_or.reduce(np.isfinite(final_kw), axis=1)[:, None]
    found: NDArray[np.int16] = np.where(judged, final_quality, out).astype(np.int16)
    return found
