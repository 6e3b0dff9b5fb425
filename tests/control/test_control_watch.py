"""The dispatcher's screen over a real database: what it shows, that it says when it is old, and one key that stops."""

from __future__ import annotations

from typing import Any

import psycopg
from textual.widgets import DataTable, Input, Static

from fuhe.commands.colours import COLOURS
from fuhe.commands.watch import WatchApp, read_board
from fuhe.control import audit, freeze
from fuhe.control.rules.states import State


def text(app: WatchApp, name: str) -> str:
    return str(app.query_one(name, Static).render())


async def test_every_state_has_a_colour() -> None:
    assert set(COLOURS) == set(State)


async def test_the_screen_shows_who_is_cut_and_one_key_freezes(world: Any) -> None:
    await world.step()
    made = world.ready()
    world.pass_(1)
    world.execute(made)
    await world.run(180)
    assert world.states() == ["EFFECTIVE", "EFFECTIVE"]
    conn, broken = world.conn, list[bool]()

    def read() -> Any:
        if broken:
            raise psycopg.OperationalError("the cable is out")
        return read_board(conn, world.now_us, None)

    def stop(reason: str) -> None:
        freeze.freeze(conn, world.now_us, world.people["guard"], reason)

    app = WatchApp(read, stop, every=3600)

    async def look(pilot: Any) -> None:
        await pilot.press("r")
        await app.workers.wait_for_complete()
        await pilot.pause()

    async with app.run_test(size=(160, 40)) as pilot:
        await look(pilot)
        table = app.query_one(DataTable)
        assert table.row_count == 2 and "EFFECTIVE" in str(table.get_row_at(0)[4])
        assert "500.0 kW" in text(app, "#head") and "cut now: 2 rounds" in text(app, "#head")
        assert "STOPPED" in text(app, "#head"), "no daemon has ever given a sign of life here"
        assert "order D-1" in text(app, "#orders") and "nothing waits" in text(app, "#attention")

        await pilot.press("f")
        await pilot.press("escape")
        await look(pilot)
        assert not freeze.frozen(conn), "Escape is no"
        await pilot.press("f")
        await pilot.press("enter")
        assert not freeze.frozen(conn), "no reason, no freeze"
        app.screen.query_one(Input).value = "smoke in the hall"
        await pilot.press("enter")
        await look(pilot)
        assert freeze.frozen(conn) and "CONTROL-FREEZE" in text(app, "#head")
        (record,) = [r for r in audit.read(conn) if r.action == "freeze.on"]
        assert (record.actor, record.reason) == ("guard", "smoke in the hall")

        broken.append(True)
        await look(pilot)
        assert "NOT CURRENT since" in text(app, "#head") and "cable" in text(app, "#head")
        broken.clear()
        await look(pilot)
        assert "cut now" in text(app, "#head")
        await pilot.press("q")
