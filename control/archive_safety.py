"""What the archive forbids control to do to a device's customers now: protected status, floor, dual supply, UFLS.

The archive only ever adds to what a plan says: the stricter of both counts (9.4-2 to 9.4-4). A protected status and a
security load stay in force behind their expiry until two people end them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from ..model.times import from_us
from .records import Conn


@dataclass(frozen=True, slots=True, kw_only=True)
class Safety:
    """Of all customers behind one device together. security_kw: agreed floors, primary kW, added up."""

    protected: bool = False
    security_kw: float = 0.0
    dual: bool = False
    ufls: bool = False
    customers: tuple[str, ...] = ()


NOTHING: Final = Safety()

# A device's customers: those of its points, and those whom a row of a plan names by number or name (column `named`).
_SAFETY: Final = """
WITH now_ AS NOT MATERIALIZED (
    SELECT entity, key, content FROM archive_version
    WHERE valid_from <= %(at)s AND (valid_to IS NULL OR valid_to > %(at)s)
), named AS (
    SELECT * FROM unnest(%(named_devices)s::int4[], %(named)s::text[]) n (device_id, customer)
), served AS (
    SELECT p.device_id, v.content ->> 'customer' AS customer FROM point p
    JOIN now_ v ON v.entity = 'points' AND coalesce(nullif(v.content ->> 'device_point', ''), v.key) = p.name
    WHERE p.device_id = ANY(%(devices)s) AND v.content ->> 'customer' <> ''
    UNION
    SELECT n.device_id, c.key FROM named n JOIN now_ c ON c.entity = 'customers' AND c.key = n.customer
    UNION
    SELECT n.device_id, c.key FROM named n JOIN now_ c ON c.entity = 'customers' AND c.content ->> 'name' = n.customer
), judged AS (
    SELECT s.device_id, s.customer,
        EXISTS (SELECT FROM now_ p WHERE p.entity = 'protections' AND p.content ->> 'customer' = s.customer)
        AS protected,
        (SELECT greatest(sum((l.content ->> 'kw')::float8) FILTER (WHERE l.content ->> 'source_no' = ''),
                         sum((l.content ->> 'kw')::float8) FILTER (WHERE l.content ->> 'source_no' <> ''), 0)
         FROM now_ l WHERE l.entity = 'security_loads' AND l.content ->> 'customer' = s.customer) AS security_kw,
        (SELECT count(*) > 1 FROM now_ u WHERE u.entity = 'supplies' AND u.content ->> 'customer' = s.customer)
        OR EXISTS (SELECT FROM now_ m WHERE m.entity = 'conflict_sets' AND m.content ->> 'customer' = s.customer)
        AS dual,
        EXISTS (SELECT FROM now_ u JOIN now_ f ON f.entity = 'feeders' AND f.key = u.content ->> 'feeder'
                WHERE u.entity = 'supplies' AND u.content ->> 'customer' = s.customer
                  AND (f.content ->> 'ufls')::boolean) AS ufls
    FROM served s
)
SELECT device_id, bool_or(protected), sum(security_kw), bool_or(dual), bool_or(ufls),
       array_agg(customer ORDER BY customer)
FROM judged GROUP BY device_id
"""


def safety(
    conn: Conn, now_us: int, devices: Collection[int], named: Collection[tuple[int, str]] = ()
) -> Mapping[int, Safety]:
    """Device -> what its customers must be spared now; a device of nobody in the archive is absent.

    named: (device, customer as a plan calls them), for devices whose points are not in the archive.
    """
    rows = conn.execute(
        _SAFETY.encode(),
        {
            "at": from_us(now_us), "devices": sorted(set(devices)), "named_devices": [d for d, _ in named],
            "named": [c for _, c in named],
        },
    ).fetchall()  # fmt: skip
    return {
        int(device): Safety(
            protected=bool(protected), security_kw=float(kw), dual=bool(dual), ufls=bool(ufls),
            customers=tuple(customers),
        )
        for device, protected, kw, dual, ufls, customers in rows
    }  # fmt: skip
