"""Cycles: the spread is even and stable, windows join without a hole, the walk keeps its bounds (fake clock)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given
from hypothesis import strategies as st

from fuhe.acquisition.config import CycleConfig
from fuhe.acquisition.cycles import (
    Cycle,
    Rhythm,
    build_cycles,
    clock_s,
    curve_window,
    duty_period_s,
    freeze_window,
    phases,
    slot_labels_us,
    slot_name,
)
from fuhe.acquisition.io.scheduler import CycleScheduler, bounded
from fuhe.acquisition.profiles import builtin_profiles
from fuhe.model.devices import Device, Point
from fuhe.model.times import BUSINESS_ZONE, US, business_day, day_start_us, from_us, to_us
from fuhe.model.work import Duty, Outcome, Priority, Status, WorkItem
from fuhe.protocols.common.errors import UsageError

NOW_US = to_us(datetime(2026, 9, 21, 10, 7, 30, tzinfo=BUSINESS_ZONE))


def device(number: int, profile: str = "dlt645-2007-3p4w", enabled: bool = True) -> Device:
    return Device(
        id=number, name=f"meter-{number}", link="bus", profile=profile, address=str(number), enabled=enabled,
        points=(Point(id=number, name=f"point-{number}"),),
    )  # fmt: skip


def cycles_of(*devices: Device, config: CycleConfig | None = None) -> dict[str, Cycle]:
    return {c.name: c for c in build_cycles(devices, builtin_profiles(), config or CycleConfig())}


def local(text: str) -> int:
    return to_us(datetime.fromisoformat(text).replace(tzinfo=BUSINESS_ZONE))


def test_phases_are_the_same_for_ever() -> None:
    # frozen values: a change would move every device's place in every cycle
    found = phases(["meter-1", "一号表", ""])
    assert found.tolist() == pytest.approx([0.47021221, 0.27307300, 0.89316752], abs=1e-8)
    assert phases(["一号表"])[0] == found[1]


def test_spread_is_even() -> None:
    counts = np.histogram(phases(f"meter-{i}" for i in range(20_000)), bins=20, range=(0, 1))[0]
    # 1000 expected in each; five standard deviations of a fair spread are 154
    assert counts.sum() == 20_000 and abs(counts - 1000).max() < 154


def test_one_more_device_moves_no_other() -> None:
    few = cycles_of(*(device(i) for i in range(50)))["live-900s"]
    many = cycles_of(*(device(i) for i in range(51)))["live-900s"]
    before = dict(zip(few.device.tolist(), few.phase_s.tolist(), strict=True))
    after = dict(zip(many.device.tolist(), many.phase_s.tolist(), strict=True))
    assert {k: v for k, v in after.items() if k in before} == before
    assert (np.diff(many.phase_s) >= 0).all() and many.phase_s.max() < 600


def test_cycles_by_profile_and_configuration() -> None:
    devices = (device(1), device(2, "eastron-sdm630"), device(3, "mqtt-v1"), device(4, enabled=False))
    found = cycles_of(*devices)
    assert {name: sorted(c.device.tolist()) for name, c in found.items()} == {
        "live-900s": [1, 2],
        "daily-86400s": [1, 2],
        "event-900s": [1],
        "clock-86400s": [1],
        "monthly-month": [1],
        "parameter-604800s": [1],
        "curve-3600s-step900s": [1],
    }
    quiet = CycleConfig(live_s=0, curve_s=0, event_s=0, daily_at="", monthly_at="", clock_at="")
    assert set(cycles_of(*devices, config=quiet)) == {"parameter-604800s"}
    assert cycles_of(device(1), config=CycleConfig(live_s=60))["live-60s"].spread_s == 48
    profile = builtin_profiles()["dlt645-2007-3p4w"]
    assert duty_period_s(profile, Duty.MONTHLY, CycleConfig()) == 31 * 86_400
    assert duty_period_s(builtin_profiles()["mqtt-v1"], Duty.LIVE, CycleConfig()) is None


def test_a_customers_reading_day_has_a_monthly_cycle_beside_the_first() -> None:
    read = [msgspec.structs.replace(device(n), options={"reading_day": text}) for n, text in ((2, "15"), (3, "1"))]
    found = cycles_of(device(1), *read, msgspec.structs.replace(device(4, "eastron-sdm630"), options={}))
    monthly = {name: sorted(c.device.tolist()) for name, c in found.items() if c.duty is Duty.MONTHLY}
    assert monthly == {"monthly-month": [1, 2, 3], "monthly-month-day15": [2]}
    own = found["monthly-month-day15"]
    start = own.rhythm.last_start_us(local("2026-03-14T10:00"))
    assert start == local("2026-02-15T00:30")
    assert own.window_us(start) == freeze_window(date(2026, 2, 14)), "the label is 00:00 of the reading day"
    assert own.rhythm.last_start_us(local("2026-03-15T00:30")) == local("2026-03-15T00:30")
    assert [i.duty for i in own.items(start, 0, 1, 0.0)] == [Duty.MONTHLY]


def test_unknown_profiles_are_all_named() -> None:
    with pytest.raises(UsageError, match="gone-a, gone-b"):
        cycles_of(device(1, "gone-a"), device(2, "gone-b"), device(3))


@pytest.mark.parametrize("text", ["24:00", "7", "07:5", "ab:cd", "10:60", ""])
def test_a_wrong_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        clock_s(text)


def test_windows_of_freezes() -> None:
    found = cycles_of(device(1))
    start = local("2026-09-21T00:05")
    assert found["daily-86400s"].window_us(start) == (local("2026-09-21T00:00"), local("2026-09-22T00:00"))
    assert freeze_window(date(2026, 9, 20)) == found["daily-86400s"].window_us(start)
    month = found["monthly-month"]
    assert month.rhythm.last_start_us(NOW_US) == local("2026-09-01T00:30")
    assert month.rhythm.last_start_us(local("2026-09-01T00:29:59")) == local("2026-08-01T00:30")
    assert month.window_us(local("2026-09-01T00:30")) == (local("2026-09-01T00:00"), local("2026-09-02T00:00"))


def test_labels_of_a_day() -> None:
    labels = slot_labels_us(date(2026, 9, 20))
    assert len(labels) == 96 and [slot_name(int(x)) for x in labels[[0, 1, 94, 95]]] == [
        "00:15",
        "00:30",
        "23:45",
        "24:00",
    ]
    assert labels[-1] == day_start_us(date(2026, 9, 21))
    assert curve_window(date(2026, 9, 20)) == (int(labels[0]), int(labels[-1]) + 900 * US)


def test_curve_window_asks_for_the_slots_that_ended() -> None:
    cycle = cycles_of(device(1))["curve-3600s-step900s"]
    start = cycle.rhythm.last_start_us(NOW_US)
    assert from_us(start).astimezone(BUSINESS_ZONE).strftime("%H:%M:%S") == "10:02:00"
    assert cycle.window_us(start) == (local("2026-09-21T09:15"), local("2026-09-21T10:15"))


@given(st.integers(900, 20_000), st.sampled_from([300, 900, 3600]), st.integers(0, 10**6))
def test_curve_windows_join_without_a_hole(period_s: int, step_s: int, offset: int) -> None:
    cycle = Cycle(
        duty=Duty.CURVE, rhythm=Rhythm(period_s=period_s, offset_s=120), spread_s=0, step_s=step_s,
        device=np.zeros(0, np.int32), phase_s=np.zeros(0),
    )  # fmt: skip
    first = cycle.rhythm.last_start_us(NOW_US + offset * US)
    windows = [cycle.window_us(first + n * period_s * US) for n in range(20)]
    for before, after in pairwise(windows):
        assert before is not None and after is not None and before[1] == after[0]
        assert (before[1] - before[0]) % (step_s * US) == 0
    last = windows[-1]
    # never a slot that has not ended yet
    assert last is not None and last[1] - step_s * US <= first + 19 * period_s * US - 120 * US


@given(st.integers(60, 200_000), st.integers(0, 86_399), st.integers(0, 2 * 10**9))
def test_last_start_is_the_latest_at_or_before_now(period_s: int, offset_s: int, now_s: int) -> None:
    rhythm = Rhythm(period_s=period_s, offset_s=offset_s)
    start = rhythm.last_start_us(now_s * US)
    assert start <= now_s * US < start + period_s * US
    assert rhythm.last_start_us(start) == start
    assert rhythm.last_start_us(start - 1) == start - period_s * US


def test_items_carry_duty_window_and_expiry() -> None:
    found = cycles_of(device(1), device(2))
    live = found["live-900s"]
    items = live.items(live.rhythm.last_start_us(NOW_US), 0, 2, now_s=50.0)
    assert [i.device for i in items] == live.device.tolist()
    assert {(i.priority, i.duty, i.expires_s, i.window_us) for i in items} == {(Priority.LIVE, Duty.LIVE, 950.0, None)}
    daily = found["daily-86400s"]
    item = daily.items(daily.rhythm.last_start_us(NOW_US), 0, 1, now_s=0.0)[0]
    assert item.priority is Priority.SCHEDULED and item.window_us == freeze_window(business_day(NOW_US) - timedelta(1))


class World:
    """A clock stepped by hand and a record of what was submitted when."""

    def __init__(self, start_us: int, slow_s: float = 0.0) -> None:
        self.s, self.start_us, self.slow_s = 0.0, start_us, slow_s
        self.chunks: list[tuple[float, list[WorkItem]]] = []

    def now_us(self) -> int:
        return self.start_us + round(self.s * US)

    def now_s(self) -> float:
        return self.s

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.s += seconds

    async def submit(self, items: Sequence[WorkItem]) -> None:
        self.chunks.append((self.s, list(items)))
        self.s += self.slow_s

    def scheduler(self, chunk: int = 256) -> CycleScheduler:
        return CycleScheduler(self.submit, now_us=self.now_us, now_s=self.now_s, sleep=self.sleep, chunk=chunk)


async def test_a_walk_submits_every_device_once_at_its_phase() -> None:
    cycle = cycles_of(*(device(i) for i in range(500)))["live-900s"]
    world = World(local("2026-09-21T10:00"))
    scheduler = world.scheduler(chunk=16)
    await scheduler.walk(cycle)
    sent = [(at, item.device) for at, items in world.chunks for item in items]
    assert [d for _, d in sent] == cycle.device.tolist()
    late = np.array([at for at, _ in sent]) - cycle.phase_s
    # at most the gathering of 100 ms before or after the device's own second
    assert late.min() >= -0.1 - 1e-9 and late.max() <= 0.1 + 1e-9
    assert max(len(items) for _, items in world.chunks) <= 16
    counters = scheduler.counters[cycle.name]
    assert (counters.starts, counters.items, counters.last_start_us) == (1, 500, local("2026-09-21T10:00"))


async def test_a_late_walk_and_slow_lines_are_chunked_not_flooded() -> None:
    cycle = cycles_of(*(device(i) for i in range(500)))["live-900s"]
    world = World(local("2026-09-21T10:14"), slow_s=3.0)
    await world.scheduler(chunk=50).walk(cycle)
    assert [len(items) for _, items in world.chunks] == [50] * 10
    assert [at for at, _ in world.chunks] == [3.0 * n for n in range(10)]


async def test_a_step_of_the_wall_clock_neither_stops_nor_floods_a_walk() -> None:
    cycle = cycles_of(*(device(i) for i in range(200)))["live-900s"]
    world = World(local("2026-09-21T10:00"))

    async def step(seconds: float) -> None:
        world.s += seconds
        world.start_us += 7200 * US * (1 if len(world.chunks) % 2 else -1)

    await CycleScheduler(world.submit, now_us=world.now_us, now_s=world.now_s, sleep=step).walk(cycle)
    assert sum(len(items) for _, items in world.chunks) == 200
    assert cycle.phase_s[-1] - 1 <= world.s <= cycle.phase_s[-1] + 1


async def test_bounded_waits_while_too_much_is_in_flight() -> None:
    futures: list[asyncio.Future[Outcome]] = []

    def engine(item: WorkItem) -> asyncio.Future[Outcome]:
        futures.append(asyncio.get_running_loop().create_future())
        return futures[-1]

    items = [
        WorkItem(device=i, duty=Duty.LIVE, priority=Priority.LIVE, expires_s=1.0) for i in range(5)
    ]  # fmt: skip
    task = asyncio.ensure_future(bounded(engine, in_flight=2)(items))
    for expected in (2, 3, 4, 5):
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(futures) == expected
        futures[expected - 2].set_result(Outcome(status=Status.DONE))
    await task


async def test_jobs_are_one_a_cycle_with_grace_and_never_twice_at_once() -> None:
    world = World(NOW_US)
    scheduler = world.scheduler()
    scheduler.replace(build_cycles([device(1), device(2)], builtin_profiles(), CycleConfig()))
    scheduler.every("gap-scan", 600, lambda: asyncio.sleep(0))
    scheduler.start()
    try:
        jobs = {job.id: job for job in scheduler._jobs.get_jobs()}
        assert set(jobs) == {c.name for c in scheduler.cycles} | {"gap-scan"}
        assert all(j.coalesce and j.max_instances == 1 for j in jobs.values())
        assert jobs["live-900s"].misfire_grace_time == 900 and jobs["monthly-month"].misfire_grace_time == 86_400
        scheduler.replace(build_cycles([device(2, "eastron-sdm630")], builtin_profiles(), CycleConfig()))
        assert {job.id for job in scheduler._jobs.get_jobs()} == {"live-900s", "daily-86400s", "gap-scan"}
    finally:
        await scheduler.stop()


@pytest.mark.parametrize(
    ("rhythm", "now", "following"),
    [
        (Rhythm(period_s=900), "2026-09-21T10:07:30", "2026-09-21T10:15"),
        (Rhythm(period_s=3600, offset_s=120), "2026-09-21T10:07:30", "2026-09-21T11:02"),
        (Rhythm(period_s=86_400, offset_s=300), "2026-09-21T23:59", "2026-09-22T00:05"),
        (Rhythm(period_s=None, offset_s=1800), "2026-12-15T10:00", "2027-01-01T00:30"),
        (Rhythm(period_s=None, offset_s=1800, day=15), "2026-12-15T00:31", "2027-01-15T00:30"),
    ],
)
def test_triggers_fire_in_business_time(rhythm: Rhythm, now: str, following: str) -> None:
    world = World(local(now))
    trigger = world.scheduler().trigger(rhythm)
    now_utc = from_us(local(now)).astimezone(UTC)
    assert to_us(trigger.get_next_fire_time(None, now_utc.astimezone(BUSINESS_ZONE))) == local(following)
    assert isinstance(trigger, CronTrigger) == (rhythm.period_s is None)


async def test_a_real_start_runs_and_stop_leaves_no_task() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    now: Callable[[], int] = lambda: to_us(datetime.now(UTC))  # noqa: E731
    loop = asyncio.get_running_loop()
    world = World(0)
    scheduler = CycleScheduler(world.submit, now_us=now, now_s=loop.time)
    scheduler.every("work", 1, endless)
    before = asyncio.all_tasks()
    scheduler.start()
    await asyncio.wait_for(begun.wait(), 10)
    await scheduler.stop()
    assert ended.is_set() and asyncio.all_tasks() <= before
