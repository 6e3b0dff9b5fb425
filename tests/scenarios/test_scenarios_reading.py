"""What an operator wants to see proved about reading: live values and a past day, over three kinds of wire at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np

from fuhe.model.quantities import quantity
from fuhe.model.times import US, business_day
from fuhe.storage.devices import load_devices
from fuhe.storage.readings import load_curve_range, load_samples

Make = Callable[..., Any]
POWER = quantity("active_power_total").id


def test_live_values_and_a_whole_past_day_are_what_the_meters_hold(county: Make, meter: Make) -> None:
    """Three meters on a serial line, one on Modbus TCP, one behind a broker; every number is checked with the field."""
    modbus = {"bus": "modbus", "profile": "modbus-relay", "address": "1", "ct_ratio": 1}
    mqtt = {"bus": "broker", "profile": "mqtt-v1", "address": "mqtt-1", "ct_ratio": 1, "publish_s": 1.0,
            "key": "DKvCN6jB1vQcCHdJADuUXILNRc2+fPRm"}  # fmt: skip
    c = county(
        [meter("spinning", 1), meter("weaving", 2), meter("dyeing", 3), meter("pump", 4, **modbus),
         meter("press", 5, **mqtt)], past_days=1, live_s=4,
    )  # fmt: skip
    c.start_daemon()
    devices = {d.name: d for d in load_devices(c.conn)}
    points = {name: d.points[0] for name, d in devices.items()}

    # Live: every device has delivered, and what it delivered is what its site drew at that instant (2 % for the
    # moments between the measurement and its stamp).
    def live() -> dict[str, tuple[int, float]]:
        ids = {p.id: name for name, p in points.items()}
        found = load_samples(c.conn, list(ids), [POWER], c.now_us - 60 * US, c.now_us + 60 * US)
        last = {}
        for point, time_us, value in zip(found.point, found.time_us, found.value, strict=True):
            name = ids[int(point)]
            last[name] = (int(time_us), float(value) * float(points[name].multiplier))
        return last

    c.until("every device has delivered a live value", lambda: live().keys() == points.keys())
    for name, (time_us, kw) in live().items():
        truth = c.field.sim.true_power(name, time_us)
        assert abs(kw - truth) < 0.02 * truth + 0.1, (name, kw, truth)

    # Yesterday: recalled without being asked (the gap scan finds what is missing), 96 points from everyone who
    # keeps them (a plain Modbus meter keeps none), equal to the field to the last digit of the meter.
    yesterday = business_day(c.now_us) - timedelta(days=1)
    holders = ["spinning", "weaving", "dyeing", "press"]
    want = np.array([c.field.sim.past_curves()[name][:96] for name in holders])
    ratio = np.array([[float(points[name].multiplier)] for name in holders])

    def stored() -> Any:
        value, _ = load_curve_range(c.conn, yesterday, yesterday, [points[n].id for n in holders], [POWER])
        return value * ratio

    # What publishes by itself cannot be asked: the press's modem comes back and publishes its memory once more.
    c.field.do(c.field.sim.buses["broker"].devices["press"].forget_published)
    c.until("96 points of yesterday from each", lambda: bool(np.isfinite(stored()).all()))
    assert stored().shape == (4, 96)
    assert float(np.abs((stored() - want) / ratio).max()) <= 0.0001, "secondary kW, last digit of the meter"
    # Reading a fleet changes nothing: no wire has carried a write.
    assert c.field.writes() == []
