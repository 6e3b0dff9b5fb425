"""What an operator wants to see proved about terminals: they dial in, and everything behind them arrives as it is."""

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
POWER, GROUP = quantity("active_power_total").id, quantity("group_power").id


def terminal(name: str, number: int, bus: str, edition: str, **terminal: object) -> dict[str, object]:
    """A terminal with two meters, three rounds and a total-add group of both points."""
    points = [
        {"pn": 1, "ct_ratio": 100, "site": {"shape": "cement", "base_kw": 60, "rounds": [{"kw": 200}, {"kw": 90}]}},
        {"pn": 2, "ct_ratio": 40, "site": {"shape": "office", "base_kw": 30, "rounds": [{"kw": 60}]}},
    ]
    return {
        "name": name, "bus": bus, "profile": f"qgdw1376-{edition}", "address": f"3301-{9000 + number}",
        "points": points, "terminal": {"redial_s": 0.5, **terminal}, "relay": {"delay_s": 0.1, "human_s": 0.3},
    }  # fmt: skip


def test_terminals_over_tcp_and_udp_deliver_live_values_and_a_whole_past_day(county: Make) -> None:
    """Three editions, short buffers, one connection that breaks; every number is checked with the field."""
    c = county(
        [
            terminal("mill", 1, "terminals", "2013"),
            terminal("works", 2, "terminals", "2005", buffer=255),
            terminal("plant", 3, "datagrams", "2009", buffer=512),
        ],
        past_days=1, live_s=3,
    )  # fmt: skip
    c.start_daemon()
    devices = {d.name: d for d in load_devices(c.conn)}
    points = {p.name: p for d in devices.values() for p in d.measuring}
    assert sorted(points) == ["mill-1", "mill-2", "plant-1", "plant-2", "works-1", "works-2"]

    def live(quantity_id: int) -> dict[int, tuple[int, float]]:
        ids = [p.id for d in devices.values() for p in d.points]
        found = load_samples(c.conn, ids, [quantity_id], c.now_us - 90 * US, c.now_us + 90 * US)
        return {int(p): (int(t), float(v)) for p, t, v in zip(found.point, found.time_us, found.value, strict=True)}

    c.until("a live power of every point", lambda: all(p.id in live(POWER) for p in points.values()))
    for name, point in points.items():
        kw = live(POWER)[point.id][1] * float(point.multiplier)
        truth = c.field.sim.true_power(name)
        assert abs(kw - truth) < 0.05 * truth + 0.2, (name, kw, truth)
    groups = {d.name: next(p.id for p in d.points if p.kind == "group") for d in devices.values()}
    c.until("the power of every group", lambda: all(g in live(GROUP) for g in groups.values()))
    for name, group in groups.items():
        truth = c.field.sim.true_power(name)
        assert abs(live(GROUP)[group][1] - truth) < 0.05 * truth, "a group is the sum of its points, primary"

    # the connection of one terminal breaks in the middle; it logs in anew and what is missing is asked for again
    c.field.fault("restart", "mill", end_s=3)
    yesterday = business_day(c.now_us) - timedelta(days=1)
    names = sorted(points)
    want = np.array([c.field.sim.past_curves()[name][:96] for name in names])
    ratio = np.array([[float(points[name].multiplier)] for name in names])

    def stored() -> Any:
        value, _ = load_curve_range(c.conn, yesterday, yesterday, [points[n].id for n in names], [POWER])
        return value * ratio

    c.until("96 points of yesterday from each", lambda: bool(np.isfinite(stored()).all()))
    assert float(np.abs((stored() - want) / ratio).max()) <= 0.0001, "secondary kW, last digit of the meter"

    def the_field() -> dict[str, Any]:
        found: dict[str, Any] = c.field.do(lambda: c.field.sim.truth())
        return found

    c.until("the terminal is back", lambda: the_field()["mill"]["terminal"]["logins"] >= 2)
    now = the_field()
    assert all(not any(r["open"] for r in now[n]["rounds"]) for n in devices)
