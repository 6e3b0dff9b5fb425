"""Many terminals in one order: few transactions, the pace kept, one read a frame, and nobody waits for the slowest."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fuhe.control import audit, commands, orders, proposals, steps
from fuhe.control.command import Command, Work
from fuhe.control.evidence import Seen
from fuhe.control.executor import Executor
from fuhe.control.pace import Pace
from fuhe.control.rules.states import State
from fuhe.model.control import ActionKind
from fuhe.model.times import US

COUNT = 60


def csv_of(count: int) -> bytes:
    """Rounds of the many."""
    rows = "".join(f"t{i},1,line,1,10,2026-09-01\n" for i in range(count))
    return f"device,round,description,importance,typical_kw,last_test\n{rows}".encode()


@pytest.fixture
def many(world: Any) -> Callable[..., list[Command]]:
    """`many()`: one order to all of them, approved, told and in force."""

    def begin() -> list[Command]:
        world.config = msgspec.structs.replace(world.config, step_limit_terminals=COUNT, pace_per_s=0)
        for i in range(COUNT):
            world.device(f"t{i}", f"{7000 + i:012d}", {1: 10.0}, 100.0)
        for _ in range(16):
            world.pass_(60)

        def edit(rows: list[dict[str, object]]) -> None:
            one = dict(rows[0]) | {"reducible_kw": 10, "security_kw": 20, "importance": 1}
            rows[:] = [one | {"seq": i + 1, "customer": f"u{i}", "device": f"t{i}"} for i in range(COUNT)]

        world.rounds_csv = lambda: csv_of(COUNT)
        world.activate_plan(edit)
        world.order_id = world.confirmed_order(round((COUNT - 0.5) * 10 * 0.95 / 1.05, 1))
        inside, dispatcher = world.people["inside"], world.people["dispatcher"]
        made = proposals.propose(
            world.conn, world.now_us, inside, world.order_id, world.field.power, world.config, commit=True
        )
        assert made.id is not None and made.choice.feasible, made.choice.binding
        found = commands.submit_proposal(world.conn, world.now_us, inside, made.id, world.config)
        digits = {c.id: f"{7000 + int(c.customer[1:]):04d}" for c in found}
        commands.approve_many(world.conn, world.now_us, dispatcher, digits, world.config)
        told = [(c.customer, "0531-1") for c in found]
        orders.give_notice(
            world.conn, world.now_us, dispatcher, world.order_id, told, channel="phone", note="", given=True
        )
        orders.activate(world.conn, world.now_us, dispatcher, world.order_id)
        return commands.commands(world.conn)

    return begin


def executor_of(world: Any, wait_s: float | None) -> tuple[Executor, list[int]]:
    """An executor of the world, and the sizes of the transactions that moved commands."""
    world.kill(world.executor)
    world.executor = made = Executor(
        lambda: world.database.connect("app", autocommit=True), world.field, world.config, elapsed=lambda: 0.0,
        wait_s=wait_s,
    )  # fmt: skip
    sizes: list[int] = []
    real = made._groups._transaction

    def counted(batch: Any) -> Any:
        sizes.append(len(batch))
        return real(batch)

    made._groups._transaction = counted  # type: ignore[method-assign]
    return made, sizes


async def test_an_order_to_many_takes_a_read_each_and_a_few_transactions(world: Any, many: Any) -> None:
    many()
    executor, sizes = executor_of(world, None)
    await executor.step(world.now_us)
    reads: Counter[int] = Counter()
    real = world.field.read_state

    async def read_state(device_id: int, spot: Any) -> Any:
        reads[device_id] += 1
        return await real(device_id, spot)

    world.field.read_state = read_state
    sizes.clear()
    world.execute(world.all())
    await executor.step(world.now_us)
    assert Counter(world.states()) == {"VERIFYING": COUNT} and len(world.field.frames) == COUNT
    assert set(reads.values()) == {1} and len(reads) == COUNT, "one read, right before its frame"
    assert len(sizes) <= COUNT // 5 and sum(sizes) == 2 * COUNT, sizes
    chain = audit.read(world.conn)
    assert audit.verify(chain)[1] is None
    for step in ("pass", "send", "ack", "alarm", "verify"):
        assert sum(r.action == f"command.{step}" for r in chain) == COUNT, step


async def test_nobody_waits_for_a_slow_terminal(world: Any, many: Any) -> None:
    many()
    executor, _ = executor_of(world, 0.05)
    await executor.step(world.now_us)
    slow = next(i for i in world.field.devices if i not in (world.alpha, world.beta))
    answers, real = asyncio.Event(), world.field.operate

    async def operate(device_id: int, action: Any) -> Any:
        if device_id == slow:
            await answers.wait()
        return await real(device_id, action)

    world.field.operate = operate
    world.execute(world.all())
    for _ in range(200):
        await executor.step(world.now_us)
        if Counter(world.states())["VERIFYING"] == COUNT - 1:
            break
    held = next(c for c in world.all() if c.device_id == slow)
    assert held.state is State.SENT and held.sent is None, "as much as is known: it may have been sent"
    await executor.step(world.now_us)
    assert world.field.trips(slow, 1) == 0, "asked once, and not a second time while it is under way"
    answers.set()
    for _ in range(200):
        await executor.step(world.now_us)
        if set(world.states()) == {"VERIFYING"}:
            break
    assert set(world.states()) == {"VERIFYING"} and world.field.trips(slow, 1) == 1


async def test_one_that_is_blocked_does_not_stop_the_others(world: Any, many: Any) -> None:
    many()
    executor, _ = executor_of(world, None)
    await executor.step(world.now_us)
    off = next(i for i in world.field.devices if i not in (world.alpha, world.beta))
    world.field.devices[off].protected = True
    world.execute(world.all())
    await executor.step(world.now_us)
    assert Counter(world.states()) == {"VERIFYING": COUNT - 1, "BLOCKED": 1} and not world.field.trips(off, 1)


def test_a_state_that_was_not_read_just_now_is_read_again_before_the_frame(world: Any, many: Any) -> None:
    found = many()
    world.execute(found)
    c = world.all()[0]
    device = world.field.devices[c.device_id]
    switch = asyncio.run(world.field.read_state(c.device_id, c.spot()))

    def seen(age_s: float) -> Seen:
        now = world.now_us - round(age_s * US)
        return Seen(
            now_us=now, power=world.field.power(c.device_id, world.now_us, 900), switch=switch, online=True,
            clock_offset_s=0.0, facts=device.facts,
        )  # fmt: skip

    def checked(age_s: float) -> State:
        with world.conn.transaction(force_rollback=True), Work(world.conn, world.now_us, [c.id]) as work:
            steps.check(work, [(c.id, seen(age_s))], world.config, "")
            return work[c.id].state

    for age, expected in ((0.0, State.SENT), (10.0, State.SENT), (10.1, State.SELECTED), (-1.0, State.SELECTED)):
        assert checked(age) is expected, age
    assert world.all()[0].state is State.CHECKING
    assert ActionKind.TRIP not in [a.kind for _, a in world.field.frames]


def test_the_pace_is_kept_and_not_saved_up() -> None:
    pace = Pace(10.0)
    assert [round(pace.turn(100.0), 1) for _ in range(4)] == [100.0, 100.1, 100.2, 100.3]
    assert pace.turn(200.0) == 200.0 and pace.turn(200.0) == pytest.approx(200.1)
    assert [Pace(0.0).turn(5.0) for _ in range(3)] == [5.0, 5.0, 5.0]
