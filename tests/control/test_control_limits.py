"""Controls that a terminal carries out by itself: parameters first, read back, engage last, released and reconciled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from fuhe.control import audit, commands, incidents, releases
from fuhe.control.commands import Command
from fuhe.control.ports import Epoch
from fuhe.control.rules.states import State
from fuhe.model.control import ActionKind

PERIOD = {"kind": "period", "measure": "limit", "limit_kw": 800, "params": "rounds=1,2; windows=0:00-24:00"}


def rows_of(**alpha: object) -> Callable[[list[dict[str, object]]], None]:
    """A plan with one control of alpha (group 1, 900 kW, rounds of 300 and 400 kW) and beta's trip behind it."""

    def edit(rows: list[dict[str, object]]) -> None:
        rows[0] |= {"reducible_kw": 400, "security_kw": 300} | alpha
        rows[1] |= {"measure": "trip", "reducible_kw": 200}
        del rows[2]

    return edit


@pytest.fixture
def limit(world: Any) -> Callable[..., Any]:
    """`await limit(gap_kw=..., **row)`: alpha's control approved, told and in force, the daemon running."""

    async def begin(gap_kw: float = 450.0, **row: object) -> Command:
        world.field.devices[world.alpha].kinds = ("period", "float", "month")
        await world.step()
        plan = world.activate_plan
        world.activate_plan = lambda: plan(rows_of(**(PERIOD | row)))
        world.ready(gap_kw)
        world.pass_(1)
        return alpha(world)

    return begin


def alpha(world: Any) -> Command:
    """Alpha's only command."""
    found: Command = next(c for c in world.all() if c.device_id == world.alpha)
    return found


def kinds(world: Any) -> list[str]:
    """What left for alpha, in order."""
    return [a.kind.value for d, a in world.field.frames if d == world.alpha]


async def test_parameters_first_engaged_last_proven_by_the_limit_and_released(world: Any, limit: Any) -> None:
    c = await limit()
    assert (c.kind, c.scope, c.round, c.rounds, c.limit_kw) == ("period", "group", 1, (1, 2), 800.0)
    assert c.expected_kw == pytest.approx(0.95 * 500.0), "from measured 1300 kW to the limit"
    world.execute([c])
    await world.step()
    c = alpha(world)
    assert kinds(world) == ["write_settings", "period_on"]
    assert c.state is State.ALARMING and (c.sent, c.acknowledged) == (True, True)
    assert [s["item"] for s in c.settings] == ["limit", "rounds"] and all(s["equal"] for s in c.set_results)
    await world.run(600)
    c = alpha(world)
    assert c.state is State.EFFECTIVE and c.measured_kw == pytest.approx(700.0)
    records = [r.action for r in audit.read(world.conn, object_=c.object)]
    order = ["command.pass", "command.set", "command.equal", "command.send", "command.ack", "command.proven"]
    assert [r for r in records if r in order] == order
    releases.release_order(world.conn, world.now_us, world.people["dispatcher"], world.order_id, world.config)
    await world.run(120)
    assert kinds(world)[-1] == "period_off" and alpha(world).state is State.CLOSED
    assert audit.verify(audit.read(world.conn))[1] is None


async def test_a_parameter_that_reads_back_differently_is_never_engaged(world: Any, limit: Any) -> None:
    c = await limit()
    world.field.devices[world.alpha].spoils = "limit"
    world.execute([c])
    await world.run(300)
    c = alpha(world)
    assert c.state is State.FAILED and kinds(world) == ["write_settings"]
    assert "limit pn 1: differs in kw" in c.attention and "nothing was engaged" in c.attention
    assert (c.sent_at, c.sent, c.acknowledged) == (None, None, None), "of the control itself no frame is known"


@pytest.mark.parametrize("mode", ["silent", "dead", "refuse", "unsent"])
async def test_parameters_that_are_not_proven_are_never_engaged(world: Any, limit: Any, mode: str) -> None:
    c = await limit()
    world.field.devices[world.alpha].mode = mode
    world.execute([c])
    await world.run(300)
    assert alpha(world).state is State.FAILED and "period_on" not in kinds(world) and alpha(world).attention


async def test_a_model_without_the_control_is_blocked_with_its_reason(world: Any, limit: Any) -> None:
    c = await limit()
    world.field.devices[world.alpha].kinds = ()
    world.execute([c])
    await world.step()
    c = alpha(world)
    assert c.state is State.BLOCKED and "no such control" in c.attention and not kinds(world)


@pytest.mark.parametrize("before", [True, False])
async def test_death_while_parameters_are_written_engages_nothing(world: Any, limit: Any, before: bool) -> None:
    c = await limit()
    crash: Callable[[Any], bool] = lambda a: a.kind is ActionKind.WRITE_SETTINGS  # noqa: E731
    setattr(world.field, "crash_before" if before else "crash_after", crash)
    world.execute([c])
    with pytest.raises(world.crash):
        await world.step()
    world.kill(world.executor)
    world.executor = world.new_executor()
    world.field.crash_before = world.field.crash_after = lambda _: False
    await world.run(120)
    c = alpha(world)
    assert c.state is State.BLOCKED and "interrupted" in c.attention and "period_on" not in kinds(world)
    again = commands.resubmit(world.conn, world.now_us, world.people["inside"], c.id, "look again")
    assert again.state is State.SUBMITTED and not again.set_results


async def test_the_database_engages_nothing_that_was_not_read_back(world: Any, limit: Any) -> None:
    c = await limit()
    world.execute([c])
    with world.database.connect("owner", autocommit=True) as owner:
        owner.execute("UPDATE command SET state = 'SELECTED', selected_at = now() WHERE id = %s", (c.id,))
        with pytest.raises(psycopg.errors.RaiseException, match="from SET only"):
            owner.execute("UPDATE command SET state = 'SENT', sent_at = now() WHERE id = %s", (c.id,))
        with pytest.raises(psycopg.errors.RaiseException, match="only if there are any"):
            owner.execute("UPDATE command SET state = 'SETTING' WHERE id = %s", (c.id,))
        with pytest.raises(psycopg.errors.RaiseException, match="interlocks"):
            owner.execute(
                'UPDATE command SET state = \'SETTING\', settings = \'[{"item": "limit", "pn": 1}]\' WHERE id = %s',
                (c.id,),
            )
        for change in ("params = '{}'", "kind = 'rest'", "rounds = '{1}'", "signatures = 1"):
            with pytest.raises(psycopg.errors.DatabaseError):
                owner.execute(f"UPDATE command SET {change} WHERE id = %s".encode(), (c.id,))


async def test_over_the_limit_in_spite_of_everything_is_ineffective_and_an_incident(world: Any, limit: Any) -> None:
    c = await limit()
    world.execute([c])
    await world.step()
    device = world.field.devices[world.alpha]
    device.held.clear()  # broken relays: engaged, and nothing moves
    await world.run(2400, every=60)
    c = alpha(world)
    assert c.state is State.INEFFECTIVE and "above the limit" in c.attention
    assert [(i.command_id, i.what) for i in incidents.incidents(world.conn)] == [(c.id, "ineffective")]


async def test_engage_without_answer_is_read_and_found(world: Any, limit: Any) -> None:
    c = await limit()
    real = world.field.operate

    async def operate(device_id: int, action: Any) -> Any:
        world.field.devices[world.alpha].mode = "silent" if action.kind is ActionKind.PERIOD_ON else "good"
        return await real(device_id, action)

    world.field.operate = operate
    world.execute([c])
    await world.step()
    await world.run(60)
    c = alpha(world)
    assert kinds(world) == ["write_settings", "period_on"] and c.acknowledged is None
    assert c.state in (State.ALARMING, State.VERIFYING)


async def test_its_end_asks_people_and_releases_nothing_by_itself(world: Any, limit: Any) -> None:
    c = await limit()
    world.execute([c])
    await world.run(600)
    await world.run(4 * 3600, every=300)
    c = alpha(world)
    assert c.state is State.EFFECTIVE and "past its end" in c.attention and kinds(world)[-1] == "period_on"
    assert [i.what for i in incidents.incidents(world.conn)] == ["overdue"]


async def test_a_float_that_has_run_out_is_automatically_released(world: Any, limit: Any) -> None:
    c = await limit(kind="float", params="rounds=1,2; percent=-40; half_hours=1", limit_kw=0)
    assert c.limit_half_hours == 1 and c.expected_kw == pytest.approx(0.95 * 520.0)
    world.execute([c])
    await world.run(600)
    assert alpha(world).state is State.EFFECTIVE and alpha(world).limit_kw == pytest.approx(780.0)
    await world.run(1800, every=300)
    device = world.field.devices[world.alpha]
    device.engaged.clear()
    device.held.clear()
    await world.run(600, every=60)
    assert alpha(world).state is State.CLOSED


# -- a terminal that comes back ---------------------------------------------------------------------------------------


async def held(world: Any, limit: Any) -> Command:
    """Alpha's limit in force on a terminal with a session."""
    c = await limit()
    world.field.devices[world.alpha].epoch = Epoch(1, "login")
    world.execute([c])
    await world.run(600)
    assert alpha(world).state is State.EFFECTIVE
    return alpha(world)


async def test_a_reconnection_in_the_held_state_is_confirmed_before_anything_else(world: Any, limit: Any) -> None:
    await held(world, limit)
    world.field.devices[world.alpha].epoch = Epoch(2, "login again")
    await world.run(60)
    c = alpha(world)
    confirmed = [r for r in audit.read(world.conn, object_=c.object) if r.action == "command.confirm"]
    assert c.state is State.EFFECTIVE and "login again" in confirmed[-1].reason and not c.attention
    assert not incidents.incidents(world.conn)


async def test_a_restart_that_forgot_the_control_is_an_incident_and_never_a_second_engagement(
    world: Any, limit: Any
) -> None:
    await held(world, limit)
    device = world.field.devices[world.alpha]
    device.engaged.clear()
    device.held.clear()
    device.epoch = Epoch(2, "restart")
    frames = len(world.field.frames)
    await world.run(600, every=30)
    c = alpha(world)
    assert c.state is State.INEFFECTIVE and "restart" in c.attention and "no longer holds" in c.attention
    assert [(i.command_id, i.what) for i in incidents.incidents(world.conn)] == [(c.id, "reconcile")]
    assert len(world.field.frames) == frames, "nothing was sent again"
    releases.release_danger(world.conn, world.now_us, world.people["guard"], c.id, "clean up")
    await world.run(120)
    assert alpha(world).state is State.CLOSED


async def test_nothing_new_is_sent_to_a_terminal_whose_state_cannot_be_read_after_its_return(
    world: Any, limit: Any
) -> None:
    c = await limit()
    device = world.field.devices[world.alpha]
    device.epoch, device.reads = Epoch(1, "login"), "none"
    world.execute([c])
    await world.run(120)
    assert alpha(world).state is State.CHECKING and not kinds(world)
    device.reads = "good"
    await world.run(60)
    assert kinds(world) == ["write_settings", "period_on"]


async def test_what_no_command_holds_is_told_to_people(world: Any, limit: Any) -> None:
    await limit()
    device = world.field.devices[world.beta]
    device.rounds[1].blocked = True
    device.epoch = Epoch(7, "login")
    world.pass_(10)
    await world.step()
    found = incidents.incidents(world.conn)
    assert [(i.device_id, i.command_id, i.what) for i in found] == [(world.beta, None, "stray round 1")]
    await world.run(60)
    assert len(incidents.incidents(world.conn)) == 1, "told once"
    closed = incidents.close(world.conn, world.now_us, world.people["guard"], found[0].id, "released on site")
    assert closed.closed_at is not None and not incidents.incidents(world.conn)
    assert replace(closed, closed_at=None)
