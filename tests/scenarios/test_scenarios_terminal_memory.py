"""What an operator wants to see proved about terminals that were away: nothing is lost, nothing comes twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
from click.testing import CliRunner

from fuhe.cli import root
from fuhe.model.quality import Source
from fuhe.model.quantities import by_id, quantity
from fuhe.model.times import US, business_day, day_start_us
from fuhe.simulator.faults import Fault
from fuhe.storage.devices import load_devices
from fuhe.storage.readings import load_curve_range, load_samples

Make = Callable[..., Any]
CURVES = (
    "active_power_total", "reactive_power_total", "voltage_a", "voltage_b", "voltage_c", "current_a", "current_b",
    "current_c",
)  # fmt: skip
REGISTER = quantity("forward_active_total").id


def terminal(name: str, number: int, bus: str) -> dict[str, object]:
    """A terminal with two meters."""
    site = {"shape": "cement", "base_kw": 60, "rounds": [{"kw": 200}]}
    return {
        "name": name, "bus": bus, "profile": "qgdw1376-2013", "address": f"3301-{9100 + number}",
        "points": [{"pn": 1, "ct_ratio": 100, "site": site}, {"pn": 2, "ct_ratio": 40, "site": site}],
        "terminal": {"redial_s": 0.3, "heartbeat_s": 30},
    }  # fmt: skip


def show(county: Any, *words: str) -> Any:
    """The JSON of a verb."""
    done = CliRunner().invoke(root, ["--config", str(county.home / "config.yaml"), *words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def codes(county: Any, name: str, code: str) -> int:
    """How many events of a code the operator sees."""
    return sum(e["code"] == code for e in show(county, "device", "events", name, "--limit", "1000"))


def test_an_outage_is_made_good_and_everything_of_a_day_is_there(county: Make) -> None:
    c = county([terminal("mill", 1, "terminals"), terminal("plant", 2, "datagrams")], past_days=2, live_s=3600)
    yesterday = business_day(c.now_us) - timedelta(days=1)
    day = str(yesterday)
    for bus in ("terminals", "datagrams"):
        c.field.do(lambda bus=bus: c.field.sim.inject(Fault(kind="unplugged", target=(bus,))))
    c.start_daemon()

    # Nobody is there: the day is missing, and that is known.
    def missing() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = show(c, "gaps", "--day", day)["holes"]
        return found

    c.until(
        "the outage is known",
        lambda: len({g["point"] for g in missing()}) >= 4 and all(g["recall"] == "open" for g in missing()),
    )
    for bus in ("terminals", "datagrams"):
        c.field.do(lambda bus=bus: c.field.sim.clear(bus))

    # They come back: 96 points of eight quantities of each meter, the freeze of the day, and no gap is left.
    devices = {d.name: d for d in load_devices(c.conn)}
    points = {p.name: p for d in devices.values() for p in d.measuring}
    names = sorted(points)
    ids = [points[n].id for n in names]
    numbers = [quantity(name).id for name in CURVES]

    def curves() -> Any:
        return np.stack([load_curve_range(c.conn, yesterday, yesterday, ids, [n])[0] for n in numbers])

    c.until("eight curves of four points", lambda: bool(np.isfinite(curves()).all()))
    assert curves().shape == (8, 4, 96)
    labels = day_start_us(yesterday) + np.arange(1, 97) * 900 * US
    for i, mark in enumerate(CURVES):
        for k, name in enumerate(names):
            truth = c.field.sim.meters[name].series(mark, labels)
            assert float(np.abs(curves()[i, k] - truth).max()) <= 0.06, (mark, name)
    midnight = day_start_us(yesterday) + 86_400 * US

    def freezes() -> dict[int, float]:
        found = load_samples(c.conn, ids, [REGISTER], midnight, midnight + 1)
        kept = found.source == Source.DAILY
        return {int(p): float(v) for p, v in zip(found.point[kept], found.value[kept], strict=True)}

    c.until("the day's freeze of each", lambda: len(freezes()) == 4)
    for name in names:
        truth = float(c.field.sim.meters[name].series("forward_active_total", np.array([midnight]))[0])
        assert abs(freezes()[points[name].id] - truth) <= 0.01
    c.until("no gap of yesterday", lambda: not missing())
    drawn = show(c, "curve", "mill-1", "--day", day)
    ours = np.array(drawn["days"][0]["value"], float)
    want = c.field.sim.meters["mill-1"].series("active_power_total", labels) * 100
    assert np.allclose(ours, want, atol=0.02)
    assert c.field.writes() == []


def test_events_come_once_through_reports_restarts_and_a_dead_daemon(county: Make) -> None:
    c = county([terminal("mill", 1, "terminals")], live_s=3600)
    c.configure(cycles={"live_s": 3600, "curve_s": 0, "event_s": 2, "gap_scan_s": 0, "spread_s": 0})
    c.start_daemon()
    c.until("it is online", lambda: c.field.sim.terminals["mill"].link.logins >= 1)
    c.field.fault("event", "mill", match="ERC24/1")
    c.until("the first is listed", lambda: codes(c, "mill", "ERC24") == 1)
    c.kill_daemon()
    c.field.fault("event", "mill", match="ERC24/2")
    c.field.fault("event", "mill", match="ERC10/1")
    c.start_daemon()
    c.until("those of the dead time too", lambda: codes(c, "mill", "ERC24") == 2 and codes(c, "mill", "ERC10") == 1)
    found = [e for e in show(c, "device", "events", "mill", "--limit", "1000") if e["code"] == "ERC24"]
    assert len({e["point"] for e in found}) == 2
    c.stop_daemon()
    c.start_daemon()
    before = len(show(c, "device", "events", "mill", "--limit", "1000"))
    c.field.fault("event", "mill", match="ERC10/2")
    c.until("one more", lambda: codes(c, "mill", "ERC10") == 2)
    erc = [e for e in show(c, "device", "events", "mill", "--limit", "1000") if e["code"].startswith("ERC")]
    assert len(erc) == len({(e["data"]["kind"], e["data"]["index"]) for e in erc}), "nothing twice"
    assert before >= 3 and c.field.writes() == []


def test_reading_now_through_a_terminal(county: Make) -> None:
    c = county([terminal("mill", 1, "terminals")], live_s=3600)
    meter = c.field.sim.meters["mill-2"]
    (c.home / "behind.csv").write_text(
        "name,link,profile,address,options\n"
        f"behind,terminals,dlt645-2007-3p4w,{meter.address},simulated=1;via=mill;port=2\n",
        encoding="utf-8",
    )
    done = CliRunner().invoke(
        root, ["--config", str(c.home / "config.yaml"), "device", "import", str(c.home / "behind.csv")]
    )
    assert done.exit_code == 0, done.output
    c.start_daemon()
    c.until("it is online", lambda: c.field.sim.terminals["mill"].link.logins >= 1)
    live = show(c, "device", "read", "mill")
    assert live["status"] == "done" and len(live["values"]) > 30, live
    (point,) = [p for d in load_devices(c.conn) if d.name == "behind" for p in d.points]
    behind = show(c, "device", "read", "behind")
    assert behind["status"] == "done", behind
    power = [v["value"] for v in behind["values"] if by_id()[v["quantity"]].name == "active_power_total"]
    assert {v["point"] for v in behind["values"]} == {point.id}
    assert abs(power[0] - meter.value("active_power_total", c.now_us)) < 0.03 * power[0] + 0.001
    parameters = show(c, "device", "read", "mill", "--duty", "parameter", "--item", "0A:F25", "--item", "0A:F10")
    assert {p["item"] for p in parameters["parameters"]} == {"0A:F25:P1", "0A:F25:P2", "0A:F10#1", "0A:F10#2"}
    clock = show(c, "device", "clock", "mill")
    assert clock["status"] == "done" and abs(clock["values"][0]["value"]) < 2
    assert c.field.writes() == []
