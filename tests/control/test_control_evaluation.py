"""What an order achieved, from stored readings only: like days, the cut, what was not measured, and the records."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fuhe.commands.event_report import _page, evaluate, plain
from fuhe.control import audit, evaluation, orders, releases
from fuhe.model.quality import Quality, Source
from fuhe.model.quantities import quantity
from fuhe.model.times import US, business_day, day_start_us, from_us
from fuhe.protocols.common.errors import UsageError

FULL = {"alpha": 1300.0, "beta": 400.0}


class Meters:
    """Stored live values of alpha and beta: eight quarter-hourly days back, and what the field does now."""

    def __init__(self, world: Any) -> None:
        self.world, self.points = world, dict[str, int]()
        with world.database.connect("owner", autocommit=True) as owner:
            for name in FULL:
                row = owner.execute(
                    "INSERT INTO point (name, device_id, ct_ratio) VALUES (%s, %s, 100) RETURNING id",
                    (f"{name}-m", getattr(world, name)),
                ).fetchone()
                self.points[name] = row[0]
            today = business_day(world.now_us)
            for back in range(1, 9):
                start = day_start_us(today - timedelta(days=back))
                # Friday's load was twice as high, and Thursday has holes: neither is the customer's ordinary load
                level = 2.0 if back == 3 else 1.0
                for slot in range(1, 97, 1 if back != 4 else 2):
                    for name, kw in FULL.items():
                        self.put(owner, name, start + slot * 900 * US, kw * level)

    def put(self, conn: Any, name: str, time_us: int, kw: float) -> None:
        conn.execute(
            "INSERT INTO sample (time, received, value, point, quantity, source, quality) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (from_us(time_us), from_us(time_us), kw / 100, self.points[name], quantity("active_power_total").id,
             int(Source.LIVE), int(Quality.A)),
        )  # fmt: skip

    async def run(self, seconds: int, *names: str) -> None:
        """Time passes; these are metered every half minute."""
        for _ in range(seconds // 30):
            self.world.pass_(30)
            for name in names:
                device = self.world.field.devices[getattr(self.world, name)]
                self.put(self.world.conn, name, self.world.now_us, device.kw)
            await self.world.step()


async def test_an_order_is_evaluated_from_its_readings_and_put_on_record(world: Any) -> None:
    meters = Meters(world)
    await world.step()
    made = world.ready()
    world.pass_(1)
    dispatcher = world.people["dispatcher"]
    order = orders.get(world.conn, world.order_id)
    with pytest.raises(UsageError, match="nothing"):
        evaluate(world.conn, order, world.now_us)
    world.execute(made)
    await meters.run(40 * 60, "alpha", "beta")
    during = evaluate(world.conn, order, world.now_us)
    assert during.found.proven.all(), "an order in force is evaluated too"
    with pytest.raises(UsageError, match="ended"):
        evaluation.record(world.conn, world.now_us, dispatcher, order.id, {})
    releases.release_order(world.conn, world.now_us, dispatcher, world.order_id, world.config)
    await meters.run(45 * 60, "alpha")  # beta's metering fails after the release
    assert world.states() == ["CLOSED", "CLOSED"]
    orders.end(world.conn, world.now_us, dispatcher, order.id)

    found = evaluate(world.conn, orders.get(world.conn, order.id), world.now_us)
    result = plain(found)
    alpha, beta = result["customers"]
    assert (alpha["customer"], beta["customer"]) == ("alpha", "beta")
    assert alpha["baseline_days"] == beta["baseline_days"] == 4, "five workdays, of them Friday far out"
    assert alpha["reduction_kw"] == pytest.approx(300.0, abs=12) and beta["reduction_kw"] == pytest.approx(200.0, abs=8)
    assert alpha["in_place"] and alpha["in_place_share"] == 1.0 and alpha["hold"] == 1.0
    assert alpha["rebound"] == pytest.approx(1.0, abs=0.3) and beta["rebound"] is None
    sums = result["totals"]
    assert (sums["commands"], sums["executed"], sums["verified"], sums["control_success"]) == (2, 2, 2, 1.0)
    assert 0.95 < sums["execution"] <= 1.0 and sums["in_place_rate"] == 1.0
    page = _page(found, result, world.now_us)
    assert "order D-1" in page and "alpha" in page and "data:image/png" in page

    with pytest.raises(UsageError):
        evaluation.record(world.conn, world.now_us, world.people["auditor"], order.id, result)
    kept = {"totals": sums}
    assert evaluation.record(world.conn, world.now_us, dispatcher, order.id, kept).state == "EVALUATED"
    assert evaluation.record(world.conn, world.now_us, dispatcher, order.id, kept).state == "EVALUATED"
    stored = evaluation.last_evaluation(world.conn, order.id)
    assert stored is not None and stored["totals"]["execution"] == sums["execution"] and stored["by"] == "dispatcher"
    assert evaluation.archive(world.conn, world.now_us, dispatcher, order.id).state == "ARCHIVED"
    with pytest.raises(UsageError, match="ARCHIVED"):
        evaluation.record(world.conn, world.now_us, dispatcher, order.id, kept)
    assert audit.verify(audit.read(world.conn))[1] is None


async def test_what_was_not_metered_is_not_proven(world: Any) -> None:
    meters = Meters(world)
    await world.step()
    made = world.ready()
    world.pass_(1)
    world.execute(made)
    await meters.run(40 * 60, "beta")
    result = plain(evaluate(world.conn, orders.get(world.conn, world.order_id), world.now_us))
    alpha, beta = result["customers"]
    assert alpha["reduction_kw"] is None and not alpha["proven"] and not alpha["in_place"]
    assert beta["proven"] and result["totals"]["proven"] == 1
    assert result["totals"]["execution"] == pytest.approx(
        min(beta["reduction_kw"], beta["required_kw"]) / (alpha["required_kw"] + beta["required_kw"]), abs=1e-3
    )
