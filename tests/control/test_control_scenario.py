"""The whole way of a command on a real database: order to closed, and what happens when devices misbehave."""

from __future__ import annotations

from typing import Any

from fuhe.control import audit, orders, releases


async def test_from_order_to_closed(world: Any) -> None:
    made = world.ready()
    assert world.states() == ["APPROVED", "APPROVED"]
    await world.step()
    assert world.states() == ["APPROVED", "APPROVED"], "the daemon never starts a trip by itself"
    world.execute(made)
    world.pass_(1)
    await world.step()
    assert world.states() == ["VERIFYING", "VERIFYING"]
    for c in world.all():
        assert (c.sent, c.acknowledged, c.measured_kw) == (True, True, None), "acknowledged is not yet cut"
    await world.run(180)
    assert world.states() == ["EFFECTIVE", "EFFECTIVE"]
    assert [round(c.measured_kw) for c in world.all()] == [300, 200]
    dispatcher = world.people["dispatcher"]
    released = releases.release_order(world.conn, world.now_us, dispatcher, world.order_id, world.config)
    assert [(c.customer, step.block) for c, step in released] == [("beta", 1), ("alpha", 2)]
    await world.step()
    assert world.states() == ["RELEASING", "CLOSED"], "the second block waits"
    await world.run(120)
    assert world.states() == ["CLOSED", "CLOSED"]
    assert orders.end(world.conn, world.now_us, dispatcher, world.order_id).state == "ENDED"
    n, broken = audit.verify(audit.read(world.conn))
    assert broken is None and n > 40
    assert world.field.trips(world.alpha, 1) == world.field.trips(world.beta, 1) == 1
