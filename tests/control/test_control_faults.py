"""Devices that misbehave, a database that fails, a daemon that dies at every point: no second trip, no lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from fuhe.control import audit, commands, freeze, orders, overrides, proposals, releases, rounds
from fuhe.control.commands import Command
from fuhe.control.executor import NO_CONTROL, NORMAL
from fuhe.control.rules.states import State
from fuhe.model.control import ActionKind, ControlAction
from fuhe.model.times import US
from fuhe.protocols.common.errors import LinkError, UsageError


async def begin(world: Any, gap_kw: float = 450.0) -> list[Command]:
    """A running daemon and two approved, notified commands of an active order: alpha 1 and beta 1."""
    await world.step()
    made = world.ready(gap_kw)
    world.pass_(1)
    return list(made)


def of(world: Any, device: int) -> Command:
    """The command to a device."""
    found: Command = next(c for c in world.all() if c.device_id == device)
    return found


async def test_silent_device_is_unknown_then_resolved_by_reading(world: Any) -> None:
    made = await begin(world)
    device = world.field.devices[world.alpha]
    device.mode, device.mute_after = "silent", True
    world.execute(made)
    await world.step()
    c = of(world, world.alpha)
    assert (c.state, c.sent, c.acknowledged) == (State.UNKNOWN, True, None)
    device.reads = "good"
    world.pass_(30)
    await world.step()
    c = of(world, world.alpha)
    assert c.state is State.VERIFYING and c.acknowledged is None
    assert c.read_back is not None and c.read_back["open"] is True
    await world.run(180)
    assert of(world, world.alpha).state is State.EFFECTIVE
    assert world.field.trips(world.alpha, 1) == 1


async def test_dead_device_stays_unknown_until_its_command_cannot_act_any_more(world: Any) -> None:
    made = await begin(world)
    world.field.devices[world.alpha].mode = "dead"
    world.execute(made)
    await world.run(540, every=60)
    c = of(world, world.alpha)
    assert c.state is State.UNKNOWN and "may yet act" in c.attention
    with pytest.raises(UsageError, match="UNKNOWN"):
        commands.cancel(world.conn, world.now_us, world.people["inside"], c.id, "no")
    await world.run(120, every=60)
    assert of(world, world.alpha).state is State.FAILED
    assert world.field.trips(world.alpha, 1) == 1


async def test_unreadable_unknown_never_resolves_by_itself(world: Any) -> None:
    made = await begin(world)
    device = world.field.devices[world.alpha]
    device.mode, device.mute_after = "silent", True
    world.execute(made)
    await world.run(3600, every=600)
    assert of(world, world.alpha).state is State.UNKNOWN
    releases.release_danger(world.conn, world.now_us, world.people["guard"], of(world, world.alpha).id, "lift stuck")
    world.field.devices[world.alpha].mode = "good"
    world.field.devices[world.alpha].reads = "good"
    await world.run(120)
    assert of(world, world.alpha).state is State.CLOSED
    assert world.field.trips(world.alpha, 1) == 1


@pytest.mark.parametrize(("mode", "state", "sent", "acknowledged"), [
    ("refuse", "FAILED", True, False), ("unsent", "FAILED", False, None), ("wrong_id", "UNKNOWN", None, None),
])  # fmt: skip
async def test_what_came_of_the_frame(
    world: Any, mode: str, state: str, sent: bool | None, acknowledged: bool | None
) -> None:
    made = await begin(world)
    device = world.field.devices[world.alpha]
    device.mode, device.mute_after = mode, True
    world.execute(made)
    await world.step()
    c = of(world, world.alpha)
    assert (c.state, c.sent, c.acknowledged) == (state, sent, acknowledged)
    assert of(world, world.beta).state is State.VERIFYING, "one bad device never stops another"


async def test_acknowledged_without_action_is_ineffective_not_cut(world: Any) -> None:
    made = await begin(world)
    world.field.devices[world.alpha].mode = "stuck"
    world.execute(made)
    await world.run(960, every=60)
    c = of(world, world.alpha)
    assert (c.state, c.acknowledged) == (State.INEFFECTIVE, True) and c.measured_kw == pytest.approx(0.0)
    assert len(c.checks) == 3 and c.attention
    status = [c for c in commands.held(world.conn) if c.id == of(world, world.alpha).id]
    assert status, "an ineffective relay may still be blocked: it stays among the held"


async def test_partial_drop_and_rebound(world: Any) -> None:
    made = await begin(world)
    world.execute(made)
    await world.step()
    world.field.devices[world.alpha].base_kw += 150.0
    await world.run(960, every=60)
    c = of(world, world.alpha)
    assert c.state is State.PARTIAL and c.measured_kw == pytest.approx(150.0)


async def test_stale_metering_is_not_proven(world: Any) -> None:
    made = await begin(world)
    world.execute(made)
    await world.step()
    world.field.devices[world.alpha].stale_since_us = world.now_us
    await world.run(1800, every=60)
    c = of(world, world.alpha)
    assert c.state is State.VERIFYING and c.measured_kw is None and "not proven" in c.attention
    world.field.devices[world.alpha].stale_since_us = None
    await world.run(600, every=60)
    assert of(world, world.alpha).state is State.EFFECTIVE


async def test_reclose_while_held_is_reported(world: Any) -> None:
    made = await begin(world)
    world.execute(made)
    await world.run(180)
    world.field.devices[world.alpha].rounds[1].open = False
    await world.run(600, every=60)
    c = of(world, world.alpha)
    assert c.state is State.EFFECTIVE and "reclosed" in c.attention
    assert world.field.trips(world.alpha, 1) == 1, "the daemon never trips again by itself"


BLOCKS: dict[str, tuple[int, Callable[[Any], object]]] = {
    "offline": (10, lambda w: setattr(w.field.devices[w.alpha], "online", False)),
    "clock": (10, lambda w: setattr(w.field.devices[w.alpha], "clock_offset_s", 90.0)),
    "facts": (2, lambda w: setattr(w.field.devices[w.alpha], "facts", None)),
    "terminal protected": (2, lambda w: setattr(w.field.devices[w.alpha], "protected", True)),
    "protection not told": (2, lambda w: setattr(w.field.devices[w.alpha], "protected", None)),
    "no state": (9, lambda w: setattr(w.field.devices[w.alpha], "reads", "none")),
    "open already": (13, lambda w: setattr(w.field.devices[w.alpha].rounds[1], "open", True)),
    "floor": (3, lambda w: w.pass_(1, alpha_base_kw=50.0)),
    "tag": (6, lambda w: rounds.set_tag(w.conn, w.now_us, w.people["guard"], w.alpha, 1, "people at work", "ticket")),
    "stale": (9, lambda w: w.pass_(301, stale=True)),
    "environment": (14, lambda w: _owner(w, "UPDATE device SET options = '{}' WHERE id = %s")),
    "broadcast": (12, lambda w: _owner(w, "UPDATE device SET address = '999999999999' WHERE id = %s")),
    "plan changed": (1, lambda w: _owner(w, "UPDATE plan SET rows_hash = 'x' WHERE %s > 0")),
    "frozen": (16, lambda w: freeze.freeze(w.conn, w.now_us, w.people["guard"], "smoke")),
}  # fmt: skip


def _owner(world: Any, statement: str) -> None:
    with world.database.connect("owner", autocommit=True) as owner:
        owner.execute(statement, (world.alpha,))


@pytest.mark.parametrize("name", BLOCKS)
async def test_each_interlock_blocks_a_real_command(world: Any, name: str) -> None:
    made = await begin(world)
    world.execute(made)
    number, spoil = BLOCKS[name]
    spoil(world)
    await world.step()
    c = of(world, world.alpha)
    assert c.state is State.BLOCKED, c.interlocks
    refused = {i["number"] for i in c.interlocks if i["verdict"] != "pass"}
    assert number in refused and len(c.interlocks) == 16
    assert world.field.trips(world.alpha, 1) == 0


async def test_notice_and_step_interval_and_override(world: Any) -> None:
    await world.step()
    made = world.submitted()
    world.approve(made)
    orders.activate(world.conn, world.now_us, world.people["dispatcher"], world.order_id)
    a, b = made
    overrides.override(world.conn, world.now_us, world.people["dispatcher"], a.id, 8, "storm")
    overrides.override_second(world.conn, world.now_us, world.people["guard"], a.id, 8, world.config)
    world.execute(made)
    await world.step()
    assert world.states() == ["VERIFYING", "BLOCKED"], "8 overridden for one command only"
    assert [i["number"] for i in world.all()[0].interlocks if i["overridden"]] == [8]
    again = commands.resubmit(world.conn, world.now_us, world.people["inside"], b.id, "notice follows")
    assert again.state == "SUBMITTED" and again.attempt == 2
    with pytest.raises(UsageError):
        commands.execute(world.conn, world.now_us, world.people["inside"], [b.id])


async def test_nothing_is_tripped_without_a_trustworthy_clock_or_database(world: Any) -> None:
    made = await begin(world)
    world.executor._clock_fault = lambda: "clock not set"
    world.execute(made)
    await world.step()
    assert set(world.states()) == {"BLOCKED"} and world.executor.mode == NO_CONTROL
    assert "clock not set" in world.executor.reason
    world.executor._clock_fault = lambda: ""
    world.now_us -= 5 * US
    await world.step()
    assert world.executor.mode == NO_CONTROL
    world.now_us += 10 * US
    await world.step()
    assert world.executor.mode == NORMAL


async def test_releases_go_on_without_control(world: Any) -> None:
    made = await begin(world)
    world.execute(made)
    await world.run(180)
    world.executor._clock_fault = lambda: "journal's disk refuses"
    releases.release_order(world.conn, world.now_us, world.people["dispatcher"], world.order_id, world.config)
    await world.run(180)
    assert world.states() == ["CLOSED", "CLOSED"] and world.executor.mode == NO_CONTROL


async def test_audit_failure_stops_control(world: Any) -> None:
    made = await begin(world)
    world.execute(made)
    with world.database.connect("owner", autocommit=True) as owner:
        owner.execute("REVOKE INSERT ON audit FROM fuhe_app")
    await world.step()
    assert world.executor.mode == NO_CONTROL and not world.field.frames
    assert set(world.states()) == {"CHECKING"}


async def test_two_daemons_do_not_both_control(world: Any) -> None:
    await begin(world)
    other = world.new_executor()
    await other.step(world.now_us)
    assert other.mode == NO_CONTROL and "lease" in other.reason
    await other.close()


async def test_a_daemon_cut_off_between_commit_and_frame_sends_nothing_and_another_takes_over(world: Any) -> None:
    made = await begin(world)
    world.execute(made)
    seconds = {"first": 0.0}
    first = world.new_executor(holder="first", since_boot_s=lambda: seconds["first"])
    second = world.new_executor(holder="second")
    await world.executor.close()
    commit = first._steps["commit_send"]

    def cut_off(work: Any, items: Any) -> None:
        commit(work, items)
        seconds["first"] += world.config.lease_s  # paused here: the commit is old when the frame's turn comes

    first._steps["commit_send"] = cut_off
    await first.step(world.now_us)
    assert not world.field.frames, "a lease that may have run out sends nothing"
    (term,) = world.conn.execute("SELECT term FROM control_lease").fetchone()
    assert all(c.term == term and not c.acknowledged for c in world.all() if c.sent_at)

    # its connection is gone, but only silence of ten seconds by the database's clock makes room for another
    with world.database.connect("owner", autocommit=True) as owner:
        owner.execute("UPDATE control_lease SET renewed_at = clock_timestamp() + interval '1 hour'")
        world.kill(first)
        await second.step(world.now_us)
        assert second.mode == NO_CONTROL and "first runs out in 36" in second.reason
        owner.execute("UPDATE control_lease SET renewed_at = clock_timestamp() - interval '10 s'")
    await second.step(world.now_us)
    assert second.mode == "NORMAL"
    # the first one comes back to life with a connection of old: its term is over, the database refuses it
    with (
        world.database.connect("app", autocommit=True) as old,
        pytest.raises(LinkError, match="taken"),
        old.transaction(),
    ):
        first.lease.renew(old)
    assert not first.lease.fresh()
    world.kill(second)


async def test_a_lease_given_back_is_taken_at_once_and_its_term_only_grows(world: Any) -> None:
    await world.step()
    (before,) = world.conn.execute("SELECT term FROM control_lease").fetchone()
    await world.executor.close()
    other = world.new_executor(holder="other")
    await other.step(world.now_us)
    (after,) = world.conn.execute("SELECT term FROM control_lease").fetchone()
    assert other.mode == "NORMAL" and after > before
    await other.close()
    with world.database.connect("owner", autocommit=True) as owner, pytest.raises(psycopg.Error, match="only grows"):
        owner.execute("UPDATE control_lease SET term = 1")


async def test_release_without_answer_is_read_not_resent(world: Any) -> None:
    made = await begin(world)
    world.execute(made)
    await world.run(180)
    world.field.devices[world.beta].mode = "dead"
    releases.release_order(world.conn, world.now_us, world.people["dispatcher"], world.order_id, world.config)
    await world.run(300)
    c = of(world, world.beta)
    assert c.state is State.RELEASING and "not acknowledged" in c.attention
    closes = [a for d, a in world.field.frames if d == world.beta and a.kind is not ActionKind.TRIP]
    assert len(closes) == 1
    world.field.devices[world.beta].mode = "good"
    releases.repeat_release(world.conn, world.now_us, world.people["dispatcher"], c.id, "line repaired")
    await world.run(120)
    assert world.states() == ["CLOSED", "CLOSED"]
    assert len({a.id for d, a in world.field.frames}) == len(world.field.frames), "every frame has its own key"


async def test_a_trip_that_arrives_behind_its_release_is_not_forgotten(world: Any) -> None:
    made = await begin(world)
    device = world.field.devices[world.alpha]
    device.mode = "dead"
    world.execute(made)
    await world.step()
    c = of(world, world.alpha)
    assert c.state is State.UNKNOWN
    device.mode = "good"
    releases.release_danger(world.conn, world.now_us, world.people["guard"], c.id, "lift stuck")
    await world.run(60)
    c = of(world, world.alpha)
    assert c.state is State.RELEASED and "may yet act" in c.attention, "the customer has supply, the trip is on its way"
    device.rounds[1].open = device.rounds[1].blocked = True
    await world.run(60)
    assert "control release --again" in of(world, world.alpha).attention
    releases.repeat_release(world.conn, world.now_us, world.people["dispatcher"], c.id, "it came late")
    await world.run(60)
    assert of(world, world.alpha).state is State.RELEASED and not device.rounds[1].open
    await world.run(600, every=60)
    assert of(world, world.alpha).state is State.CLOSED and world.field.trips(world.alpha, 1) == 1


async def test_other_load_does_not_restore_a_round_whose_contact_is_not_read(world: Any) -> None:
    made = await begin(world)
    world.execute(made)
    await world.run(180)
    device = world.field.devices[world.alpha]
    device.reads, device.manual_close = "none", True
    releases.release_order(world.conn, world.now_us, world.people["dispatcher"], world.order_id, world.config)
    device.base_kw += 300.0
    await world.run(300)
    assert of(world, world.alpha).state is State.RELEASED and device.rounds[1].open
    device.reads, device.rounds[1].open = "good", False
    await world.run(60)
    assert of(world, world.alpha).state is State.CLOSED


async def test_restoring_waits_for_people_and_reminds(world: Any) -> None:
    made = await begin(world)
    world.execute(made)
    await world.run(180)
    world.field.devices[world.beta].manual_close = True
    releases.release_order(world.conn, world.now_us, world.people["dispatcher"], world.order_id, world.config)
    await world.run(2100, every=60)
    c = of(world, world.beta)
    assert c.state is State.RELEASED and "call" in c.attention
    world.field.devices[world.beta].rounds[1].open = False
    await world.run(60)
    assert of(world, world.beta).state is State.CLOSED


async def test_alarm_runs_and_is_cancelled_by_a_permit(world: Any) -> None:
    await world.step()
    made = world.ready()
    _owner(world, "UPDATE command SET alarm_min = 10 WHERE device_id = %s")
    world.pass_(1)
    world.execute(made)
    await world.step()
    c = of(world, world.alpha)
    assert c.state is State.ALARMING
    wanted = commands.cancel(world.conn, world.now_us, world.people["guard"], c.id, "hospital next door")
    assert wanted.state is State.ALARMING, "not cancelled before the device says so"
    await world.step()
    assert of(world, world.alpha).state is State.CANCELLED
    kinds = [a.kind for d, a in world.field.frames if d == world.alpha]
    assert kinds == [ActionKind.TRIP, ActionKind.PERMIT_CLOSE]


class Fuse:
    """Connections that die at the n-th statement: the process is killed there."""

    def __init__(self, world: Any, crash: type[BaseException], at: int) -> None:
        self.world, self.crash, self.left = world, crash, at

    def connect(self) -> psycopg.Connection[Any]:
        """A connection whose `execute` counts down."""
        conn: psycopg.Connection[Any] = self.world.database.connect("app", autocommit=True)
        real = conn.execute

        def execute(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise self.crash
            return real(*args, **kwargs)

        conn.execute = execute  # type: ignore[method-assign]
        return conn


async def crash_and_recover(world: Any, executor: Any) -> None:
    """The executor dies; a new daemon takes over; whatever it finds, nothing is sent twice and no state lies."""
    with pytest.raises(BaseException) as caught:
        while True:
            world.pass_(30)
            await executor.step(world.now_us)
            if all(c.state is State.EFFECTIVE for c in world.all()):
                break
        pytest.fail("no crash", pytrace=False)
    if type(caught.value).__name__ != "Crash":
        raise caught.value
    world.kill(executor)
    world.executor = world.new_executor()
    frames_before = len(world.field.frames)
    for _ in range(8):
        world.pass_(30)
        await world.step()
        for c in world.all():
            tripped = world.field.trips(c.device_id, c.round)
            assert tripped <= 1
            if tripped and c.state is not State.CLOSED:
                assert c.sent_at is not None
                assert c.state in {State.SENT, State.UNKNOWN, State.VERIFYING, State.EFFECTIVE}, c.state
            if c.state is State.EFFECTIVE:
                assert world.field.devices[c.device_id].rounds[c.round].open
    assert len(world.field.frames) == frames_before, "a new daemon sends nothing that an old one was asked for"
    assert audit.verify(audit.read(world.conn))[1] is None


@pytest.mark.parametrize("where", ["before", "after"])
async def test_death_around_the_frame(world: Any, where: str) -> None:
    made = await begin(world)
    world.execute(made)
    crash: Callable[[ControlAction], bool] = lambda a: a.kind is ActionKind.TRIP and a.id.endswith(f"-{made[0].id}")  # noqa: E731
    setattr(world.field, f"crash_{where}", crash)
    await crash_and_recover(world, world.executor)
    first = next(c for c in world.all() if c.id == made[0].id)
    if where == "before":
        assert first.state is State.UNKNOWN and world.field.trips(first.device_id, first.round) == 0
        await world.run(660, every=60)
        assert world.all()[0].state is State.FAILED, "proven not to have tripped once it cannot act any more"
    else:
        assert first.state in (State.VERIFYING, State.EFFECTIVE), "found by reading, not by sending"
        assert first.acknowledged is None


async def count_statements(world: Any, crash: type[BaseException]) -> int:
    """Statements of a whole undisturbed run from execute to EFFECTIVE."""
    fuse = Fuse(world, crash, 10**9)
    executor = world.new_executor(fuse.connect)
    await executor.step(world.now_us)
    start = fuse.left
    world.execute(world.all())
    while not all(c.state is State.EFFECTIVE for c in world.all()):
        world.pass_(30)
        await executor.step(world.now_us)
    world.kill(executor)
    return start - fuse.left


PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
async def test_death_at_every_statement(world: Any, part: int) -> None:
    """The daemon dies at the n-th database statement of the way to EFFECTIVE, for every n (in four parts).

    The first run of a world counts them; each further death continues on a fresh pair of commands, released before.
    """
    crash = world.crash
    await world.step()
    world.ready()
    world.kill(world.executor)
    total = await count_statements(world, crash)
    assert total > 60, total
    outcomes = set()
    for at in range(part, total, PARTS):
        await fresh(world)
        fuse = Fuse(world, crash, 10**9)
        executor = world.new_executor(fuse.connect)
        await executor.step(world.now_us)
        world.execute([c for c in world.all() if c.state is State.APPROVED])
        fuse.left = at
        try:
            for _ in range(12):
                world.pass_(30)
                await executor.step(world.now_us)
        except BaseException as error:
            if type(error) is not crash:
                raise
        world.kill(executor)
        world.executor = world.new_executor()
        sent = len(world.field.frames)
        await world.run(120, every=60)
        assert len(world.field.frames) == sent, f"statement {at}: the new daemon sent something"
        live = [c for c in world.all() if c.order_id == world.order_id]
        for c in live:
            trips = sum(1 for d, a in world.field.frames if a.id == f"test-{c.id}")
            is_open = world.field.devices[c.device_id].rounds[c.round].open
            assert trips <= 1
            assert (c.state in (State.EFFECTIVE, State.VERIFYING, State.UNKNOWN)) or trips == 0, (at, c.state)
            assert c.state is not State.EFFECTIVE or is_open
            outcomes.add(trips)
        world.kill(world.executor)
    assert outcomes == {0, 1}, "deaths before and behind the frame were both met"
    assert audit.verify(audit.read(world.conn))[1] is None


async def fresh(world: Any) -> None:
    """End what is there (the owner closes it, with the fake field reset) and bring a new order to APPROVED."""
    with world.database.connect("owner", autocommit=True) as owner:
        owner.execute("ALTER TABLE command DISABLE TRIGGER command_guard")
        owner.execute("UPDATE command SET state = 'CLOSED', sent_at = sent_at - interval '2 days', released_at = NULL")
        owner.execute("ALTER TABLE command ENABLE TRIGGER command_guard")
        owner.execute("UPDATE order_ SET state = 'ENDED'")
    for device in world.field.devices.values():
        for relay in device.rounds.values():
            relay.open = relay.blocked = False
    for _ in range(16):
        world.pass_(60)
    world.order_id = world.confirmed_order(number=f"D-{world.now_us}")
    inside = world.people["inside"]
    made = proposals.propose(
        world.conn, world.now_us, inside, world.order_id, world.field.power, world.config, commit=True
    )
    assert made.id is not None
    world.approve(commands.submit_proposal(world.conn, world.now_us, inside, made.id, world.config))
    dispatcher = world.people["dispatcher"]
    customers = [("alpha", "1"), ("beta", "1")]
    orders.give_notice(
        world.conn, world.now_us, dispatcher, world.order_id, customers, channel="phone", note="", given=True
    )
    orders.activate(world.conn, world.now_us, dispatcher, world.order_id)
