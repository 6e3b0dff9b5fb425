"""What an operator wants to see proved about events: what a meter recorded is shown, once, whatever comes between."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from click.testing import CliRunner

from fuhe.cli import root

Make = Callable[..., Any]
COUNTS = ("03110000", "03300000", "03300100", "03300D00", "03300E00", "03010000", "03040000")


def show(county: Any, *words: str) -> str:
    done = CliRunner().invoke(root, ["--config", str(county.home / "config.yaml"), *words])
    assert done.exit_code == 0, done.output
    return done.output


def listed(county: Any, name: str = "spinning") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(show(county, "device", "events", name, "--limit", "1000", "--json"))
    return found


def reads_again(county: Any) -> bool:
    """Two whole event cycles have gone by from now: every counter was read twice more."""
    seen = [f.data.hex() for f in list(county.field.sim.observer.frames("line")) if f.direction == "in"]
    return bool(len(seen) > county.mark + 2 * len(COUNTS) + 2)


def test_events_are_fetched_once_through_restart_silence_overflow_and_exchange(county: Make, meter: Make) -> None:
    c = county([meter("spinning", 1)], live_s=3600)
    c.configure(cycles={"live_s": 3600, "curve_s": 0, "event_s": 1, "gap_scan_s": 0, "spread_s": 0})
    sim = c.field.sim.meters["spinning"]
    c.field.do(lambda: sim.record("cover_open", c.now_us - 7_200_000_000, c.now_us - 7_000_000_000))
    c.start_daemon()
    c.until("the cover is listed", lambda: len(listed(c)) == 1)
    (cover,) = listed(c)
    assert cover["event"] == "cover open" and cover["code"] == "03300D00" and "before forward active" in cover["text"]
    truth = sim.last_events("cover_open")[0]
    assert cover["data"]["start"][:19] == sim.clock.local(truth.start_us).isoformat()[:19]

    # A power failure while the daemon is dead, and it is asked for its memory when one record stays unanswered.
    c.kill_daemon()
    for n in (3, 2, 1):
        c.field.do(lambda n=n: sim.record("power_down", c.now_us - n * 90_000_000, c.now_us - n * 30_000_000))
    c.field.fault("silent", "spinning", match="03110002", count=4)
    c.start_daemon()
    c.until("three power failures are listed", lambda: sum(e["code"] == "03110000" for e in listed(c)) == 3)

    # Something that goes on is listed, and its end when it has come, as one event.
    c.field.fault("event", "spinning", match="voltage_loss_b", end_s=6.0)
    c.until("a voltage loss goes on", lambda: any(e["code"] == "03010200" and not e["end"] for e in listed(c)))
    assert "goes on" in show(c, "device", "show", "spinning")
    c.until("it has ended", lambda: any(e["code"] == "03010200" and e["end"] for e in listed(c)))
    assert sum(e["code"] == "03010200" for e in listed(c)) == 1

    # More than the memory holds between two looks.
    c.stop_daemon()
    base_us = c.now_us
    for i in range(12):
        c.field.do(lambda i=i: sim.record("cover_open", base_us - 2_000_000 * (20 - i), base_us))
    c.start_daemon()
    c.until("ten covers more", lambda: sum(e["code"] == "03300D00" for e in listed(c)) == 12)
    assert [e["data"]["lost"] for e in listed(c) if e["data"].get("event") == "records_lost"] == [2]

    # Another meter: its counters begin anew, and that is told.
    c.field.fault("exchange", "spinning", value=100.0)
    c.field.fault("event", "spinning", match="power_down")
    c.until("the exchange is told", lambda: any(e["data"].get("event") == "count_fell" for e in listed(c)))
    c.until("its own event", lambda: sum(e["code"] == "03110000" and "before" not in e["data"] for e in listed(c)) == 4)

    # Nothing comes twice, however often the counters are read.
    before = listed(c)
    c.mark = len([f for f in list(c.field.sim.observer.frames("line")) if f.direction == "in"])
    c.until("two cycles", lambda: reads_again(c))
    assert listed(c) == before
    text = show(c, "--lang", "zh", "device", "events", "spinning")
    assert "开表盖" in text and "B相失压" in text and "换表或事件清零" in text and "条记录已被覆盖" in text
    assert c.field.writes() == []
