"""What control is told about devices: silence, read-only mode, old clocks, and ids that no device has seen before."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from fuhe.acquisition.io.clock import Clock
from fuhe.acquisition.io.engine import Engine
from fuhe.acquisition.profiles import load_profiles
from fuhe.daemon.field import CLOCK_KEPT_S, EngineField
from fuhe.daemon.livepower import LivePower
from fuhe.model.control import ActionKind, ControlAction, ControlAnswer, Spot
from fuhe.model.devices import Device
from fuhe.model.times import US
from fuhe.model.work import Outcome, Status, WorkItem
from fuhe.protocols.common.errors import LinkError

NOW = 1_790_000_000_000_000
TRIP = ControlAction(id="test-7", kind=ActionKind.TRIP, valid_until_us=NOW + US)


class StillClock:
    """A clock moved by hand."""

    us = NOW

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return 100.0


class OneAnswer:
    """An engine that ends every item in the same way."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.items: list[WorkItem] = []

    def session(self, device: int) -> None:
        return None

    def online(self, device: int) -> None:
        return None

    def submit(self, item: WorkItem) -> asyncio.Future[Outcome]:
        self.items.append(item)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        future.set_result(self.outcome)
        return future


def field(outcome: Outcome, clock: StillClock | None = None) -> tuple[EngineField, OneAnswer]:
    """The field over such an engine, with one meter."""
    engine = OneAnswer(outcome)
    made = EngineField(cast(Engine, engine), LivePower(), cast(Clock, clock or StillClock()), lambda _: True)
    device = Device(id=1, name="m", link="line-a", profile="dlt645-2007-relay", address="12", points=())
    made.set_devices([device], load_profiles(None))
    return made, engine


@pytest.mark.parametrize("status", list(Status))
async def test_without_an_answer_only_what_surely_never_left_counts_as_unsent(status: Status) -> None:
    made, _ = field(Outcome(status=status))
    answer = await made.operate(1, TRIP)
    unsent = {"expired", "cancelled", "link_down", "read_only", "quarantined"}
    assert answer == ControlAnswer(
        action_id="test-7", sent=status not in unsent, acknowledged=None, refusal=str(status)
    )


async def test_a_question_for_the_state_never_uses_an_id_again_not_even_in_another_life() -> None:
    ids: list[str] = []
    for start in (NOW, NOW + US):
        clock = StillClock()
        clock.us = start
        made, engine = field(Outcome(status=Status.SILENT), clock)
        assert await made.read_state(1, Spot()) is None
        assert await made.read_state(1, Spot()) is None
        ids += [item.action.id for item in engine.items if item.action is not None]
    assert len(set(ids)) == 4


async def test_a_state_that_may_not_be_asked_for_in_read_only_mode_says_so() -> None:
    made, _ = field(Outcome(status=Status.READ_ONLY, reason="read-only mode: nothing was sent"))
    with pytest.raises(LinkError, match="read-only"):
        await made.read_state(1, Spot())


def test_a_clock_offset_does_not_stay_true_for_ever() -> None:
    clock = StillClock()
    made, _ = field(Outcome(status=Status.DONE), clock)
    assert made.clock_offset_s(1) is None
    made.note(1, NOW, 2.0)
    clock.us = NOW + CLOCK_KEPT_S * US
    made.note(1, clock.us)  # heard again, its clock not read
    assert made.clock_offset_s(1) == 2.0
    clock.us += 1
    assert made.clock_offset_s(1) is None


def test_the_daemon_tells_where_it_would_send() -> None:
    made, _ = field(Outcome(status=Status.DONE))
    facts = made.facts(1)
    assert facts is not None and facts.target == "line-a/12" and made.facts(2) is None
