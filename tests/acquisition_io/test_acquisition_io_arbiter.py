"""The arbiter: order, fairness by time, bounds and what gives way."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable
from typing import Any

from fuhe.acquisition.arbiter import Arbiter, Entry
from fuhe.model.work import Priority


def take(arbiter: Arbiter) -> Entry:
    entry = arbiter.take()
    assert entry is not None
    return entry


def drain(arbiter: Arbiter) -> list[Entry]:
    taken = []
    while (entry := arbiter.take()) is not None:
        taken.append(entry)
    return taken


def test_classes_go_in_order_and_devices_take_turns(kit: Any) -> None:
    arbiter = Arbiter(100)
    for n in range(3):
        for device in (1, 2):
            for priority in reversed(Priority):
                arbiter.put(kit.Entry(kit.item(device, priority, items=(str(n),)), 0.0))
    taken = [(e.item.priority, e.item.device, e.item.items[0]) for e in drain(arbiter)]
    one_class = [(1, "0"), (2, "0"), (1, "1"), (2, "1"), (1, "2"), (2, "2")]
    assert taken == [(p, d, n) for p in Priority for d, n in one_class]
    assert len(arbiter) == 0 and arbiter.oldest_age_s(9.0) == 0.0


def test_a_slow_device_gets_its_share_of_time_not_of_turns(kit: Any) -> None:
    arbiter = Arbiter(10_000)
    for n in range(1000):
        for device in (1, 2):
            arbiter.put(kit.Entry(kit.item(device, items=(str(n),)), 0.0))
    cost = {1: 1.0, 2: 0.1}
    now, turns = 0.0, {1: 0, 2: 0}
    while now < 50.0:
        entry = take(arbiter)
        turns[entry.item.device] += 1
        now += cost[entry.item.device]
        arbiter.charge(entry.item.device, cost[entry.item.device])
    assert 20 <= turns[1] <= 27 and 230 <= turns[2] <= 270


def test_a_device_that_was_idle_has_no_claim_on_the_past(kit: Any) -> None:
    arbiter = Arbiter(1000)
    for n in range(100):
        arbiter.put(kit.Entry(kit.item(1, items=(str(n),)), 0.0))
    for _ in range(50):
        arbiter.charge(take(arbiter).item.device, 1.0)
    for n in range(100):
        arbiter.put(kit.Entry(kit.item(2, items=(str(n),)), 0.0))
    first = []
    for _ in range(10):
        entry = take(arbiter)
        first.append(entry.item.device)
        arbiter.charge(entry.item.device, 1.0)
    assert sorted(first) == [1] * 5 + [2] * 5 or sorted(first) == [1] * 4 + [2] * 6


def test_full_recall_gives_way_first_newest_first_and_control_never(kit: Any) -> None:
    arbiter = Arbiter(4)
    for n in range(2):
        assert arbiter.put(kit.Entry(kit.item(1, Priority.RECALL, items=(str(n),)), 0.0)) == (True, None)
    arbiter.put(kit.Entry(kit.item(1, Priority.SCHEDULED), 0.0))
    arbiter.put(kit.Entry(kit.item(1, Priority.CONTROL, items=("c0",)), 0.0))
    accepted, dropped = arbiter.put(kit.Entry(kit.item(2, Priority.RECALL), 0.0))
    assert (accepted, dropped) == (False, None)
    accepted, dropped = arbiter.put(kit.Entry(kit.item(2, Priority.LIVE), 0.0))
    assert accepted and dropped is not None and dropped.item.items == ("1",)
    gone = []
    for n in range(3):
        accepted, dropped = arbiter.put(kit.Entry(kit.item(3, Priority.CONTROL, items=(f"c{n}",)), 0.0))
        assert accepted and dropped is not None
        gone.append(dropped.item.priority)
    assert gone == [Priority.RECALL, Priority.SCHEDULED, Priority.LIVE]
    accepted, dropped = arbiter.put(kit.Entry(kit.item(4, Priority.CONTROL), 0.0))
    assert (accepted, dropped, len(arbiter)) == (False, None, 4)


def test_expiry_and_ages_are_numbers(kit: Any) -> None:
    arbiter = Arbiter(10)
    arbiter.put(kit.Entry(kit.item(1, expires_s=5.0), 1.0))
    arbiter.put(kit.Entry(kit.item(2, expires_s=9.0), 2.0))
    assert arbiter.next_expiry_s == 5.0 and arbiter.oldest_age_s(4.0) == 3.0
    assert arbiter.expire(4.9) == []
    assert [e.item.device for e in arbiter.expire(5.0)] == [1]
    assert arbiter.next_expiry_s == 9.0 and arbiter.depth_by_class == (0, 0, 0, 1, 0)
    arbiter.expire(9.0)
    assert arbiter.next_expiry_s == math.inf and not len(arbiter)


def test_random_use_never_exceeds_the_bound_nor_loses_an_entry(kit: Any) -> None:
    rng = random.Random(7)
    arbiter = Arbiter(50)
    inside: set[Hashable] = set()
    for n in range(5000):
        if rng.random() < 0.6:
            entry = kit.Entry(kit.item(rng.randrange(20), rng.choice(list(Priority)), items=(str(n),)), float(n))
            accepted, dropped = arbiter.put(entry)
            if dropped:
                inside.remove(dropped.key)
            if accepted:
                inside.add(entry.key)
        else:
            taken = arbiter.take()
            if taken:
                inside.remove(taken.key)
                arbiter.charge(taken.item.device, rng.random())
        assert len(arbiter) == len(inside) <= 50
    assert {e.key for e in drain(arbiter)} == inside
