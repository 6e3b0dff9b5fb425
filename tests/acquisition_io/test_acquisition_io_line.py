"""The pure line on virtual time: dead neighbours, control at once, silence, late replies, half-open."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random
from typing import Any

from fuhe.acquisition.link import HALF_OPEN_REQUESTS, Line, LinePolicy, State, Station
from fuhe.acquisition.quarantine import Quarantine
from fuhe.model.control import ActionKind, ControlAction
from fuhe.model.work import Duty, Exchange, Outcome, Priority, Request, Status, WorkItem
from fuhe.protocols.common.errors import UsageError

BYTE_S = 11 / 9600


@dataclass
class World:
    """Virtual time, a line, and devices that answer after their line time and delay (or never)."""

    line: Line
    dead: set[int] = field(default_factory=set)
    delay_s: Callable[[int], float] = lambda device: 0.1
    now: float = 0.0
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    done: list[tuple[float, WorkItem, Outcome]] = field(default_factory=list)
    sent: list[tuple[float, int, bytes]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), action))

    def submit(self, item: WorkItem) -> None:
        self.line.submit(item, self.now)

    def hear(self, data: bytes) -> None:
        self.line.received(data, self.now, self.us)

    @property
    def us(self) -> int:
        return round(self.now * 1e6)

    def pump(self) -> None:
        while True:
            sent = self.line.poll(self.now, self.us)
            self.done += [(self.now, *pair) for pair in self.line.finished]
            self.line.finished.clear()
            if sent is None:
                return
            station, data = sent
            self.sent.append((self.now, station.device.id, data))
            if station.device.id not in self.dead:
                reply = b"!" + data[1:]
                arrives = self.now + BYTE_S * (len(data) + len(reply)) + self.delay_s(station.device.id)
                self.at(arrives, partial(self.hear, reply))

    def run(self, until: float) -> None:
        self.pump()
        for _ in range(1_000_000):
            wake = min(self.line.wake_at_s, self.events[0][0] if self.events else math.inf)
            if wake > until:
                self.now = until
                return
            self.now = max(self.now, wake)
            while self.events and self.events[0][0] <= self.now:
                heapq.heappop(self.events)[2]()
            self.pump()
        raise AssertionError("the line does not come to rest")


def control(device: int, number: int = 0) -> WorkItem:
    action = ControlAction(id=f"c{number}", kind=ActionKind.TRIP, valid_until_us=1)
    return WorkItem(
        device=device, duty=Duty.CONTROL, priority=Priority.CONTROL, expires_s=math.inf, action=action
    )  # fmt: skip


def test_thirty_devices_ten_dead_healthy_keep_their_schedule_and_control_waits_one_transaction(kit: Any) -> None:
    line = kit.line(30, steps=5)
    line.up(0.0)
    dead = set(range(1, 31, 3))
    world = World(line, dead)
    period, hours = 60.0, 2
    periods = int(hours * 3600 / period)
    for k in range(periods):
        for device in range(1, 31):
            due = k * period + device * period / 30

            live = kit.item(device, Priority.LIVE, expires_s=due + period, window_us=(round(due * 1e6), 0))
            world.at(due, partial(world.submit, live))
            world.at(due + 20, partial(world.submit, kit.item(device, Priority.RECALL, items=("40", f"recall{k}"))))
    rng = Random(5)
    asked: dict[str, float] = {}
    for n in range(200):
        when = rng.uniform(10, hours * 3600 - 100)
        device = rng.choice([d for d in range(1, 31) if d not in dead])

        def command(n: int = n, device: int = device) -> None:
            asked[f"c{n}"] = world.now
            world.submit(control(device, n))

        world.at(when, command)
    world.run(hours * 3600.0)

    kept = sum(
        outcome.status is Status.DONE and item.window_us is not None and when <= item.window_us[0] / 1e6 + period
        for when, item, outcome in world.done
        if item.priority is Priority.LIVE and item.device not in dead
    )
    assert kept >= 0.99 * periods * 20

    ends = {item.action.id: when for when, item, outcome in world.done if item.action and outcome.status is Status.DONE}
    assert len(ends) == 200
    station = line.stations[1]
    longest = 17 * BYTE_S + station.reply_timeout_s + line.policy.margin_s + 2.0 * 0 + station.turnaround_s
    own = 5 * (0.1 + 20 * BYTE_S + station.turnaround_s)
    begun = [
        (when, data) for when, device, data in world.sent if data.startswith(b"W") and data.endswith(b".0\n")
    ]  # fmt: skip
    assert len(begun) == 200
    starts = sorted(when for when, _ in begun)
    waits = []
    for asked_at in sorted(asked.values()):
        at = starts.pop(0)
        waits.append(at - asked_at)
    alone = [w for w in waits if w <= longest]
    # two commands may meet: then the second also waits for the first's own exchange
    assert len(alone) >= 195 and max(waits) <= longest + own

    answered = [o.status for _, item, o in world.done if item.device in dead]
    assert set(answered) <= {Status.SILENT, Status.QUARANTINED} and answered.count(Status.SILENT) <= 10 * 12


def test_control_goes_between_two_transactions_of_a_long_exchange_which_then_goes_on(kit: Any) -> None:
    line = kit.line(2, steps=1)
    line.up(0.0)
    world = World(line)
    world.submit(kit.item(1, Priority.RECALL, items=("10",)))
    world.at(0.3, lambda: world.submit(control(2)))
    world.run(60.0)
    devices = [device for _, device, _ in world.sent]
    assert devices.count(1) == 10 and devices.count(2) == 1 and 0 < devices.index(2) < 10
    assert [o.status for _, _, o in world.done] == [Status.DONE, Status.DONE]
    assert world.done[0][1].priority is Priority.CONTROL


def test_an_exchange_is_told_when_another_conversation_with_its_device_came_between(kit: Any) -> None:
    told: list[tuple[int, int]] = []

    class Chained(kit.ToyExchange):  # type: ignore[misc]
        def interrupted(self) -> None:
            told.append((self.device.id, self.step))

    line = kit.line(2)
    line.open_exchange = lambda station, item: Chained(station.device, item, int((item.items or ("1",))[0]), 2)
    line.up(0.0)
    world = World(line)
    world.submit(kit.item(1, Priority.RECALL, items=("10",)))
    world.at(0.3, lambda: world.submit(control(2)))  # another device: of no importance
    world.at(0.8, lambda: world.submit(control(1)))
    world.run(60.0)
    assert [device for device, _ in told] == [1] and 0 < told[0][1] < 10
    assert [o.status for _, _, o in world.done] == [Status.DONE] * 3


def test_a_long_exchange_steps_aside_when_its_slice_is_used_up(kit: Any) -> None:
    line = kit.line(2, policy=LinePolicy(slice_s=2.0))
    line.up(0.0)
    world = World(line)
    world.submit(kit.item(1, items=("100",)))
    world.submit(kit.item(2, items=("1",)))
    world.run(1000.0)
    assert world.done[0][1].device == 2 and world.done[0][0] < 2.0 + 1.0
    assert [o.status for _, _, o in world.done] == [Status.DONE, Status.DONE]


def test_a_quarantined_device_is_refused_at_once_but_forced_and_control_items_try_once(kit: Any) -> None:
    line = kit.line(2, retries=2)
    line.up(0.0)
    world = World(line, dead={1})
    for n in range(2):
        world.submit(kit.item(1, items=("1", str(n))))
    world.run(20.0)
    assert [o.status for _, _, o in world.done] == [Status.SILENT, Status.SILENT] and len(world.sent) == 6
    world.submit(kit.item(1))
    assert line.finished[-1][1].status is Status.QUARANTINED
    line.finished.clear()
    world.submit(kit.item(1, Priority.LIVE, forced=True))
    world.submit(control(1))
    world.run(40.0)
    assert [o.status for _, _, o in world.done[2:]] == [Status.SILENT, Status.SILENT]
    assert len(world.sent) == 6 + 1 + 3  # the forced one once, the command as its exchange wants
    world.dead.clear()
    world.submit(kit.item(1, Priority.LIVE, forced=True))
    world.run(60.0)
    assert world.done[-1][2].status is Status.DONE and not line.quarantine.holds(1)


def test_falling_silent_clears_the_queue_of_that_device_only(kit: Any) -> None:
    line = kit.line(2, retries=0)
    line.up(0.0)
    world = World(line, dead={1})
    for n in range(5):
        world.submit(kit.item(1, items=("1", str(n))))
        world.submit(kit.item(2, items=("1", str(n))))
    world.run(30.0)
    statuses = [o.status for _, item, o in world.done if item.device == 1]
    assert statuses == [Status.SILENT] * 2 + [Status.QUARANTINED] * 3
    assert [o.status for _, item, o in world.done if item.device == 2] == [Status.DONE] * 5


def test_the_time_out_is_line_time_plus_reply_plus_margin(kit: Any) -> None:
    line = kit.line(1, retries=0)
    line.up(0.0)
    world = World(line, dead={1})
    world.submit(kit.item(1))
    world.run(10.0)
    when = world.done[0][0]
    limit = 11 * (len(b"?1.0\n") + 8) / 9600 + 0.5 + 0.05
    assert abs(when - limit - line.stations[1].turnaround_s) < 1e-9 and line.counters.silences == 1


def test_late_replies_are_dropped_counted_and_lengthen_the_patience(kit: Any) -> None:
    line = kit.line(1, retries=20)
    line.up(0.0)
    world = World(line, delay_s=lambda device: 0.62)
    for n in range(10):
        world.submit(kit.item(1, items=("1", str(n))))
    world.run(100.0)
    assert line.counters.late_replies >= 1 and line.counters.skipped_bytes > 0
    assert line.counters.silences <= 4
    assert [o.status for _, _, o in world.done] == [Status.DONE] * 10


def test_no_item_is_queued_twice_and_every_refusal_is_an_outcome(kit: Any) -> None:
    line = kit.line(1, policy=LinePolicy(queue_items=1))
    assert line.submit(kit.item(1), 0.0) and not line.submit(kit.item(1), 0.0)
    line.submit(kit.item(9), 0.0)
    line.submit(kit.item(1, expires_s=1.0, items=("x",)), 2.0)
    line.submit(kit.item(1, items=("y",)), 2.0)
    assert [o.status for _, o in line.finished] == [Status.CANCELLED, Status.EXPIRED, Status.CANCELLED]
    assert all(o.reason for _, o in line.finished) and line.counters.queue_full == 1


def test_a_lost_line_ends_the_running_item_and_keeps_the_rest_until_it_expires(kit: Any) -> None:
    line = kit.line(2, steps=3)
    line.up(0.0)
    world = World(line)
    world.submit(kit.item(1))
    world.submit(kit.item(2, expires_s=50.0))
    world.submit(kit.item(2, Priority.LIVE, items=("1",)))
    world.run(0.3)
    running = line.running
    line.down(world.us, "pulled out")
    assert running is not None and line.running is None and line.state is State.DOWN
    line.unreachable(world.us, "still gone")
    statuses = {(i.device, i.priority): o for i, o in [(i, o) for _, i, o in world.done] + line.finished}
    assert statuses[2, Priority.LIVE].status in (Status.DONE, Status.LINK_DOWN)
    world.run(60.0)
    assert world.done[-1][2].status is Status.EXPIRED and len(line.arbiter) == 0


def test_half_open_is_noticed_at_the_stated_deadline_and_only_without_any_byte(kit: Any) -> None:
    line = kit.line(1, retries=0, policy=LinePolicy(half_open_s=10.0))
    line.up(0.0)
    world = World(line, dead={1})
    for n in range(HALF_OPEN_REQUESTS):
        world.submit(kit.item(1, Priority.LIVE, items=("1", str(n)), forced=True))
    world.run(5.0)
    assert line.counters.silences == HALF_OPEN_REQUESTS and not line.vanished(world.now)
    assert line.wake_at_s == 10.0 and line.vanished(10.0)
    world.hear(b"x")
    assert not line.vanished(10.0)


def test_changing_the_device_list_cancels_what_left_and_keeps_what_stayed(kit: Any) -> None:
    line = kit.line(3)
    line.up(0.0)
    world = World(line)
    for device in (1, 2, 3):
        world.submit(kit.item(device))
    world.run(0.05)
    line.set_stations({n: kit.station(n) for n in (2, 3, 4)}, world.us)
    world.submit(kit.item(4))
    world.run(30.0)
    assert {i.device: o.status for _, i, o in world.done} == {
        1: Status.CANCELLED, 2: Status.DONE, 3: Status.DONE, 4: Status.DONE,
    }  # fmt: skip


def test_a_refused_write_ends_the_item_and_not_the_line(kit: Any) -> None:
    line = kit.line(1)
    line.up(0.0)
    line.submit(control(1), 0.0)
    line.submit(kit.item(1), 0.0)
    assert line.poll(0.0, 0) is not None
    line.refused(0)
    (_, outcome), *_ = line.finished
    assert outcome.status is Status.READ_ONLY and outcome.answer is not None
    assert outcome.answer.sent is False and outcome.answer.acknowledged is None
    line.finished.clear()
    world = World(line)
    world.run(5.0)
    assert world.done[0][2].status is Status.DONE and line.counters.refused_writes == 1


def test_items_that_cannot_be_asked_are_answered_one_by_one(kit: Any) -> None:
    def opener(station: Station, item: WorkItem) -> Exchange:
        raise UsageError("the profile has no means for this duty")

    line = Line("line", LinePolicy(queue_items=5000), opener, Quarantine(Random(1)))
    line.set_stations({1: kit.station(1)}, 0)
    line.up(0.0)
    for n in range(5000):  # more than Python would recurse
        line.submit(kit.item(1, items=(str(n),)), 0.0)
    assert line.poll(0.0, 0) is None
    assert {o.status for _, o in line.finished} == {Status.CANCELLED} and len(line.finished) == 5000
    assert "no means" in line.finished[0][1].reason


def test_a_gateway_that_answers_for_a_silent_device_does_not_keep_it_out_of_quarantine(kit: Any) -> None:
    class Gateway(kit.ToyExchange):  # type: ignore[misc]
        def outcome(self, now_us: int) -> Outcome:
            return Outcome(status=Status.SILENT)

    line = kit.line(1)
    line.open_exchange = lambda station, item: Gateway(station.device, item, 1, 0)
    line.up(0.0)
    world = World(line)
    for n in range(2):
        world.submit(kit.item(1, items=("1", str(n))))
    world.run(5.0)
    assert line.counters.replies == 2 and line.quarantine.holds(1)


class Parts:
    """An exchange whose answer has three frames."""

    def __init__(self) -> None:
        self.parts, self.asked, self.silences = 0, False, 0

    def next_request(self, now_us: int) -> Request | None:
        first, self.asked = not self.asked, True
        return Request(data=b"?", timeout_s=1.0) if first else None

    def receive(self, data: bytes, now_us: int) -> bool:
        if data == b"!":
            self.parts += 1
        return self.parts == 3

    def silence(self, now_us: int) -> None:
        self.silences += 1

    def outcome(self, now_us: int) -> Outcome:
        return Outcome(status=Status.DONE if self.parts == 3 else Status.PARTIAL)


def test_each_frame_of_a_long_answer_gives_the_device_its_time_anew_and_noise_does_not(kit: Any) -> None:
    for moments, status in (((0.9, 1.8, 2.7), Status.DONE), ((0.9, 2.2), Status.PARTIAL)):
        exchange = Parts()
        line = Line("line", LinePolicy(margin_s=0.0), lambda station, item: exchange, Quarantine(Random(1)))  # noqa: B023
        line.set_stations({1: kit.station(1, byte_s=0.0, inter_byte_s=0.05, turnaround_s=0.0)}, 0)
        line.up(0.0)
        line.submit(kit.item(1), 0.0)
        assert line.poll(0.0, 0) is not None
        for at_s in moments:
            line.poll(at_s, 0)
            line.received(b"!", at_s, 0)
            line.received(b"x", at_s, 0)
        line.poll(moments[-1] + 2.0, 0)
        assert [outcome.status for _, outcome in line.finished] == [status]
