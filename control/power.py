"""Measured power from the stored readings, for proposals made where the daemon's memory is not at hand (the CLI)."""

from __future__ import annotations

import numpy as np

from ..model.quality import Source
from ..model.quantities import quantity
from ..model.times import US, from_us
from .ports import PowerWindow, a2_quantum
from .proposals import PowerSource
from .records import Conn


def stored_power(conn: Conn) -> PowerSource:
    """Power in primary kW: of the total-sum group where the device has it, else summed over its measuring points at
    instants at which every point has a value."""
    power, group_power = quantity("active_power_total"), quantity("group_power")

    def window(device_id: int, now_us: int, back_s: int, group: int = 1) -> PowerWindow:
        points = conn.execute(
            "SELECT id, (ct_ratio * pt_ratio)::float8, kind FROM point WHERE device_id = %s AND enabled "
            "AND (kind = 'measuring' OR (kind = 'group' AND pn = %s))",
            (device_id, group),
        ).fetchall()
        summed = [int(i) for i, _, kind in points if kind == "group"]
        chosen = summed or [int(i) for i, _, _ in points]
        rows = conn.execute(
            "SELECT (extract(epoch FROM s.time) * 1000000)::int8, "
            "sum(s.value * p.ct_ratio::float8 * p.pt_ratio::float8), max(s.quality) "
            "FROM sample s JOIN point p ON p.id = s.point WHERE s.point = ANY(%s) "
            "AND s.quantity = %s AND s.source = ANY(%s) AND s.time >= %s AND s.time <= %s "
            "GROUP BY s.time HAVING count(*) = %s ORDER BY s.time",
            (
                chosen, group_power.id if summed else power.id, [Source.LIVE, Source.CONTROL][: 2 if summed else 1],
                from_us(now_us - back_s * US), from_us(now_us), len(chosen),
            ),
        ).fetchall()  # fmt: skip
        columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
        kw = np.array(columns[1], np.float64)
        quantum = (
            a2_quantum(float(kw[-1]) if len(kw) else 0.0)
            if summed
            else 10.0**-power.decimals * max((ratio for _, ratio, _ in points), default=1.0)
        )
        return PowerWindow(np.array(columns[0], np.int64), kw, np.array(columns[2], np.int16), quantum)

    return window
