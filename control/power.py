"""Measured power from the stored readings, for proposals made where the daemon's memory is not at hand (the CLI)."""

from __future__ import annotations

import numpy as np

from ..model.quantities import quantity
from ..model.times import US, from_us
from .ports import PowerWindow
from .proposals import PowerSource
from .records import Conn


def stored_power(conn: Conn) -> PowerSource:
    """Power of a device in primary kW, summed over its points at instants at which every point has a value."""
    power = quantity("active_power_total")

    def window(device_id: int, now_us: int, back_s: int) -> PowerWindow:
        points = conn.execute(
            "SELECT id, (ct_ratio * pt_ratio)::float8 FROM point WHERE device_id = %s AND enabled "
            "AND kind = 'measuring'",
            (device_id,),
        ).fetchall()
        rows = conn.execute(
            "SELECT (extract(epoch FROM s.time) * 1000000)::int8, "
            "sum(s.value * p.ct_ratio::float8 * p.pt_ratio::float8), max(s.quality) "
            "FROM sample s JOIN point p ON p.id = s.point WHERE p.device_id = %s AND p.enabled "
            "AND p.kind = 'measuring' AND s.quantity = %s AND s.source = 1 AND s.time >= %s AND s.time <= %s "
            "GROUP BY s.time HAVING count(*) = %s ORDER BY s.time",
            (device_id, power.id, from_us(now_us - back_s * US), from_us(now_us), len(points)),
        ).fetchall()
        quantum = 10.0**-power.decimals * max((ratio for _, ratio in points), default=1.0)
        columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
        return PowerWindow(
            np.array(columns[0], np.int64), np.array(columns[1], np.float64), np.array(columns[2], np.int16), quantum
        )

    return window
