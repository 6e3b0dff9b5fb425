"""What calculations ask of the archive for many points at once: multipliers over a time, contracts on a day.

The versions themselves are read and written in storage/archive_versions.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray

from ..model.readings import I2, I4, I8
from ..model.times import DAY_US, day_start_us, from_us, to_us

Connection = psycopg.Connection[Any]
_MAX_UNITS: Final = 2**62


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Multipliers K = CT × PT of points over a time, exact: K = units / 10^decimals, from valid_from_us until the next
    row of the same point. Rows are sorted by index, then time; the first row of each point begins at from_us.

    index: place in the sequence of points that was asked for. archived: False where only the device list says so (no
    version of the archive is in force then): it is what the list says *now*.
    """

    index: I4
    valid_from_us: I8
    units: I8
    decimals: I2
    archived: NDArray[np.bool_]

    def factor(self, row: int) -> Decimal:
        """K of a row, exact."""
        return Decimal(int(self.units[row])).scaleb(-int(self.decimals[row]))

    def at(self, count: int, time_us: int) -> NDArray[np.float64]:
        """K of each of the `count` points at an instant of the time asked for, as floats; NaN without any row."""
        found = np.full(count, np.nan)
        use = self.valid_from_us <= time_us
        found[self.index[use]] = self.units[use] / 10.0 ** self.decimals[use]  # rows ascend: the last one stays
        return found


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What rules and indices need to know about one point on a day; empty or None = not in the archive.

    contract_kva: the customer's, else the device point's. feeder: the point's own, else its supply's, else its
    transformer's.
    """

    point_id: int
    point: str
    device_point: str
    archived: bool
    customer: str
    customer_name: str
    industry: str
    importance: str
    tariff_class: str
    high_risk: bool
    supply_voltage: str
    contract_kva: Decimal | None
    running_kva: Decimal | None
    pf_standard: Decimal | None
    wiring: str
    role: str
    monitor_class: str
    voltage_band: str
    direction: str
    un_sec_v: Decimal | None
    in_sec_a: Decimal | None
    imax_sec_a: Decimal | None
    feeder: str
    transformer: str
    transformer_kva: Decimal | None
    district: str
    shifts: int | None
    rest_day: tuple[str, ...]


def _scaled(factor: Decimal) -> tuple[int, int]:
    """(units, decimals) of an exact factor; decimals are at least 0."""
    sign, digits, exponent = factor.normalize().as_tuple()
    assert isinstance(exponent, int)
    units = int("".join(map(str, digits))) * (-1 if sign else 1)
    if exponent > 0:
        units, exponent = units * 10**exponent, 0
    if abs(units) > _MAX_UNITS:
        raise ValueError(f"multiplier {factor} has too many digits")
    return units, -exponent


def multipliers(connection: Connection, points: Sequence[int], from_us_: int, to_us_: int) -> Multipliers:
    """Multipliers of the device points with these ids between two instants (µs UTC, to_us_ exclusive).

    Where no version of the archive is in force the ratios of the device list count. Unknown ids have no row.
    """
    place = {point: n for n, point in enumerate(points)}
    own: dict[int, Decimal] = {}
    spans: dict[int, list[tuple[int, int | None, Decimal]]] = defaultdict(list)
    rows = connection.execute(
        "SELECT p.id, p.ct_ratio * p.pt_ratio, v.valid_from, v.valid_to, "
        "(v.content ->> 'ct_ratio')::numeric * (v.content ->> 'pt_ratio')::numeric "
        "FROM point p LEFT JOIN archive_version v ON v.entity = 'points' "
        "AND coalesce(nullif(v.content ->> 'device_point', ''), v.key) = p.name "
        "AND v.valid_from < %s AND (v.valid_to IS NULL OR v.valid_to > %s) "
        "WHERE p.id = ANY(%s) ORDER BY p.id, v.valid_from",
        (from_us(to_us_), from_us(from_us_), list(place)),
    )
    for point, ratio, begin, end, factor in rows:
        own[point] = ratio
        if begin is not None:
            spans[point].append((to_us(begin), None if end is None else to_us(end), factor))
    found: list[tuple[int, int, Decimal, bool]] = []
    for point in sorted(own, key=place.__getitem__):
        at = from_us_
        steps: list[tuple[int, Decimal, bool]] = []
        for begin, end, factor in spans[point]:
            if begin > at:
                steps.append((at, own[point], False))
            steps.append((max(begin, from_us_), factor, True))
            at = to_us_ if end is None else end
        if at < to_us_:
            steps.append((at, own[point], False))
        for n, (begin, factor, archived) in enumerate(steps):
            if n == 0 or (factor, archived) != steps[n - 1][1:]:
                found.append((place[point], begin, factor, archived))
    scaled = [_scaled(factor) for _, _, factor, _ in found]
    return Multipliers(
        np.array([f[0] for f in found], np.int32),
        np.array([f[1] for f in found], np.int64),
        np.array([s[0] for s in scaled], np.int64),
        np.array([s[1] for s in scaled], np.int16),
        np.array([f[3] for f in found], np.bool_),
    )


_IN_FORCE: Final = "valid_from <= %(at)s AND (valid_to IS NULL OR valid_to > %(at)s)"
_CONTRACTS: Final = f"""
WITH now_ AS NOT MATERIALIZED (SELECT entity, key, content FROM archive_version WHERE {_IN_FORCE})
SELECT p.id, p.name, coalesce(v.key, '') AS point, v.key IS NOT NULL AS archived,
       coalesce(v.content ->> 'customer', '') AS customer, coalesce(c.content ->> 'name', '') AS customer_name,
       coalesce(c.content ->> 'industry', '') AS industry, coalesce(c.content ->> 'importance', '') AS importance,
       coalesce(c.content ->> 'tariff_class', '') AS tariff_class,
       coalesce((c.content ->> 'high_risk')::boolean, false) AS high_risk,
       coalesce(c.content ->> 'supply_voltage', '') AS supply_voltage,
       coalesce((c.content ->> 'contract_kva')::numeric, p.contract_kva) AS contract_kva,
       (c.content ->> 'running_kva')::numeric AS running_kva,
       nullif(c.content ->> 'pf_standard', 'none')::numeric AS pf_standard,
       coalesce(v.content ->> 'wiring', p.wiring) AS wiring, coalesce(v.content ->> 'role', '') AS role,
       coalesce(v.content ->> 'monitor_class', '') AS monitor_class,
       coalesce(v.content ->> 'voltage_band', '') AS voltage_band,
       coalesce(v.content ->> 'direction', '') AS direction,
       coalesce((v.content ->> 'un_sec_v')::numeric, p.nominal_v) AS un_sec_v,
       (v.content ->> 'in_sec_a')::numeric AS in_sec_a, (v.content ->> 'imax_sec_a')::numeric AS imax_sec_a,
       coalesce(nullif(v.content ->> 'feeder', ''), nullif(s.content ->> 'feeder', ''), t.content ->> 'feeder', '')
           AS feeder,
       coalesce(v.content ->> 'transformer', '') AS transformer,
       (t.content ->> 'rated_kva')::numeric AS transformer_kva,
       coalesce(nullif(v.content ->> 'district', ''), t.content ->> 'district', '') AS district,
       (c.content ->> 'shifts')::int AS shifts, coalesce(c.content -> 'rest_day', '[]') AS rest_day
FROM point p
LEFT JOIN now_ v ON v.entity = 'points' AND coalesce(nullif(v.content ->> 'device_point', ''), v.key) = p.name
LEFT JOIN now_ c ON c.entity = 'customers' AND c.key = v.content ->> 'customer'
LEFT JOIN now_ s ON s.entity = 'supplies' AND s.key = (v.content ->> 'customer') || '/' || (v.content ->> 'source_no')
LEFT JOIN now_ t ON t.entity = 'transformers' AND t.key = v.content ->> 'transformer'
WHERE p.id = ANY(%(points)s)
"""


def contracts(connection: Connection, points: Sequence[int], day: date) -> list[Contract | None]:
    """What the archive says about the device points with these ids at the end of a business day, in the order asked
    for; None for an id that the device list does not have."""
    at = from_us(day_start_us(day) + DAY_US - 1)
    found: dict[int, Contract] = {}
    for row in connection.execute(_CONTRACTS.encode(), {"at": at, "points": list(points)}):
        number, name, *rest, rest_day = row
        found[number] = Contract(
            point_id=number, device_point=name, rest_day=tuple(rest_day),
            **dict(zip(_CONTRACT_FIELDS, rest, strict=True)),
        )  # fmt: skip
    return [found.get(point) for point in points]


_CONTRACT_FIELDS: Final = (
    "point", "archived", "customer", "customer_name", "industry", "importance", "tariff_class", "high_risk",
    "supply_voltage", "contract_kva", "running_kva", "pf_standard", "wiring", "role", "monitor_class", "voltage_band",
    "direction", "un_sec_v", "in_sec_a", "imax_sec_a", "feeder", "transformer", "transformer_kva", "district", "shifts",
)  # fmt: skip
