"""What a terminal keeps: events, parameters, counts, tasks; and what it finds by watching its meters."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuhe.protocols.qgdw1376.table import table
from fuhe.protocols.qgdw1376.units import Unit
from fuhe.simulator.faults import Fault
from fuhe.simulator.terminal import fields
from fuhe.simulator.terminal.agenda import Agenda
from fuhe.simulator.terminal.counters import Counters
from fuhe.simulator.terminal.events import DEPTH, EventMemory
from fuhe.simulator.terminal.parameters import Parameters
from fuhe.simulator.terminal.settings import Task
from fuhe.simulator.terminal.tasks import next_time


@given(count=st.integers(0, 700), back=st.integers(1, 400))
def test_events_since_a_pointer_come_back_in_order(count: int, back: int) -> None:
    memory = EventMemory()
    for i in range(count):
        assert memory.add({"erc": 1 + i % 40, "serial": i}, important=True) == i % DEPTH
    ec1, ec2 = memory.counters
    assert (ec1, ec2) == (count % DEPTH, 0)
    assert memory.waiting == bool(count)
    wanted = min(back, count, DEPTH - 1)
    reading = memory.read((ec1 - wanted) % DEPTH, ec1, important=True)
    assert not memory.waiting
    if not wanted:
        assert reading is None
        return
    assert reading is not None and (reading.start, reading.end) == ((ec1 - wanted) % DEPTH, ec1)
    assert [r["serial"] for r in reading.records] == list(range(count - wanted, count))
    few = memory.read((ec1 - wanted) % DEPTH, ec1, important=True, limit=2)
    assert few is not None and len(few.records) == min(2, wanted) and few.end == (few.start + len(few.records)) % DEPTH


def test_ordinary_events_do_not_call_the_master_and_can_be_deleted() -> None:
    memory = EventMemory()
    memory.add({"erc": 24}, important=False)
    memory.add({"erc": 31}, important=False)
    assert not memory.waiting and memory.counters == (0, 2) and memory.unread == {24, 31}
    assert memory.read(0, 255, important=False) is not None and memory.unread == frozenset()
    memory.delete([24])
    assert [r["erc"] for r in memory.latest(31, 0)] == [31] and not memory.latest(24, 0)
    memory.clear()
    assert memory.counters == (0, 0) and memory.read(0, 255, important=False) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3))))
def test_an_agenda_keeps_the_order_of_time(plan: list[tuple[int, int]]) -> None:
    agenda, done = Agenda(), []

    def note(number: int, again: int, at: int) -> None:
        done.append((at, number))
        if again:
            agenda.at(at + 1, lambda later: note(number, again - 1, later))

    for number, (when, again) in enumerate(plan):
        agenda.at(when, lambda at, n=number, a=again: note(n, a, at))  # type: ignore[misc]
    agenda.run(100)
    assert [t for t, _ in done] == sorted(t for t, _ in done)
    assert len(done) == sum(1 + again for _, again in plan) and agenda.next_us is None


def test_lists_are_merged_by_key_deleted_and_asked_for() -> None:
    store = Parameters()
    store.put(10, 0, {"n": 2, "devices": [{"device_no": 1, "pn": 1}, {"device_no": 5, "pn": 2}]})
    store.put(10, 0, {"n": 2, "devices": [{"device_no": 5, "pn": 0}, {"device_no": 3, "pn": 7}]})
    found = store.answer(10, 0, {"n": 1, "device_no": [3]})
    assert found == {"n": 1, "devices": [{"device_no": 3, "pn": 7}]}
    assert store.answer(10, 0, {"n": 1, "device_no": [5]}) is None
    assert [e["pn"] for e in store.entries(10)] == [1, 7]
    store.put(14, 0, {"n": 1, "groups": [{"group": 1, "m": 1, "points": [{"pn": 1}]}]})
    store.put(14, 0, {"n": 1, "groups": [{"group": 1, "m": 0, "points": []}]})
    assert not list(store.entries(14))
    store.put(38, 0, {"big_class": 2, "m": 1, "small": [{"small_class": 1, "fn": [25]}]})
    store.put(38, 0, {"big_class": 3, "m": 1, "small": [{"small_class": 1, "fn": [33]}]})
    asked = store.answer(38, 0, {"big_class": 2, "n": 1, "small_class": [1]})
    assert asked is not None and asked["small"] == [{"small_class": 1, "fn": [25]}]


def test_resets_keep_what_the_standard_says() -> None:
    store = Parameters({(1, 0): {"heartbeat_min": 15}, (17, 0): {"limit_kw": 1}})
    store.put(1, 0, {"heartbeat_min": 5})
    store.put(17, 0, {"limit_kw": 9})
    store.reset(keep_communication=True)
    assert store.get(1) == {"heartbeat_min": 5} and store.get(17) == {"limit_kw": 1}
    store.reset(keep_communication=False)
    assert store.get(1) == {"heartbeat_min": 15}


def test_counts_belong_to_days_and_months_and_are_forgotten_in_time() -> None:
    counters, first = Counters(), datetime(2026, 1, 31, 23, 50)  # noqa: DTZ001
    counters.trip(first, "remote")
    counters.trip(first + timedelta(minutes=20), "power")
    counters.carried(first, 100)
    assert counters.trips(first.date())["remote"] == 1 and counters.trips((2026, 1)) == {
        "month": 0, "purchase": 0, "power": 0, "remote": 1,
    }  # fmt: skip
    assert counters.traffic((2026, 1)) == 100 and counters.traffic((2026, 2)) == 0
    for i in range(80):
        counters.carried(first + timedelta(days=i), 1)
    assert counters.traffic(first.date()) == 0  # 62 days are kept
    assert counters.traffic((2026, 1)) == 101


@given(
    unit=st.sampled_from(["min", "hour", "day", "month"]),
    period=st.integers(1, 63),
    base=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001
    after=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001
)
def test_the_next_time_of_a_task_is_on_its_grid(unit: Any, period: int, base: datetime, after: datetime) -> None:
    when = next_time(Task(unit, period, base, 1, ()), after)
    assert when > after or when == base
    if unit == "month":
        assert ((when.year - base.year) * 12 + when.month - base.month) % period == 0
        return
    width = timedelta(seconds=period * {"min": 60, "hour": 3_600, "day": 86_400}[unit])
    assert (when - base) % width == timedelta() and when - width <= max(after, base)


def test_a_task_is_due_once_a_period_while_it_runs(make_bench: Any) -> None:
    base = datetime(2001, 1, 1, 0, 5)  # noqa: DTZ001
    ids = [{"pn": [1], "fn": [25]}]
    bench = make_bench(
        p65_1={"unit": "min", "period": 15, "base_time": base, "ratio": 1, "ids": ids}, p67_1={"switch": 0x55}
    )
    bench.step(3_600)
    assert [d.number for d in bench.terminal.tasks.due] == [1, 1, 1, 1]
    bench.set(67, 1, switch=0xAA)
    bench.step(3_600)
    assert len(bench.terminal.tasks.due) == 4


def test_the_configuration_says_which_events_are_kept_and_important(make_bench: Any) -> None:
    bench = make_bench(p9={"record": [5, 24], "important": [5]})
    parts = bench.terminal.parts
    parts.record(4, bench.now, changed=[1], state=[])
    parts.record(24, bench.now)
    assert parts.events.counters == (0, 1) and not parts.events.waiting
    parts.record(5, bench.now)
    assert parts.events.counters == (1, 1) and parts.events.waiting and parts.told == [0]
    old = make_bench(edition="2005", p8={"record": [5], "important": [5]})
    old.terminal.parts.record(24, old.now)
    assert old.terminal.parts.events.counters == (0, 0)


def limits(**changes: Any) -> dict[str, Any]:
    return {"u_high_recovery": Decimal(1), "i_high_recovery": Decimal(5), **changes}


def test_values_over_their_limits_are_events_with_begin_and_end(make_bench: Any) -> None:
    bench = make_bench(
        p26_1=limits(u_high_v=Decimal(200), u_high_min=5, i_high_a=Decimal("9.0"), i_high_min=1, s_upper_kva=Decimal(1))
    )
    bench.step(240)
    assert not bench.events(24)
    bench.step(120)
    event = bench.events(24)[0]
    assert (event["begin"], event["pn"], event["type"]) == (1, 1, 1) and event["phase_a"] == 1
    assert event["Ua"] == pytest.approx(Decimal(220), abs=8)
    assert bench.events(26)[0]["type"] == 2
    assert bench.events(25)[0]["begin"] == 1
    bench.terminal.control.trip(1, 0, 0, bench.now)
    bench.step(120)
    assert [e["begin"] for e in bench.events(25)] == [0, 1]
    bench.set(26, 1, **limits(u_high_v=Decimal(300), u_high_min=5))
    bench.step(120)
    assert [e["begin"] for e in bench.events(24)] == [0, 1]


def test_meters_that_fail_lie_or_are_exchanged_are_noticed(make_bench: Any) -> None:
    bench = make_bench(
        Fault(kind="silent", target=("meter-1",), start_s=3_600, end_s=7_200),
        Fault(kind="clock_offset", target=("meter-2",), start_s=3_600, value=900),
        Fault(kind="exchange", target=("meter-2",), start_s=7_300, value=3),
    )
    bench.step(3_600)
    assert not bench.events(31) and not bench.events(12)
    bench.step(3_600)
    assert [(e["begin"], e["pn"]) for e in bench.events(31)] == [(1, 1)]
    assert [(e["begin"], e["pn"]) for e in bench.events(12)] == [(1, 2)]
    bench.step(1_800)
    assert [e["begin"] for e in bench.events(31)] == [0, 1]
    fell = bench.events(27)[0]
    assert fell["pn"] == 2 and float(str(fell["before"])) > 1_000 > float(str(fell["after"]))
    assert bench.terminal.parts.totals.power_now(1, bench.now) is not None


def test_a_point_exists_only_as_the_archive_says(make_bench: Any) -> None:
    bench = make_bench()
    points = bench.terminal.parts.points
    assert points.numbers() == (1, 2)
    entry = next(e for e in bench.terminal.parts.parameters.entries(10) if e["pn"] == 2)
    bench.set(10, 0, n=1, devices=[{**entry, "address": "000000000099"}])
    assert points.meter(2) is None and bench.terminal.parts.totals.power_now(1, bench.now) is None
    bench.set(10, 0, n=1, devices=[{**entry, "pn": 0}])
    assert points.numbers() == (1,)
    bench.set(25, 1, pt_ratio=1, ct_ratio=80)  # a wrong ratio makes a wrong sum, not a wrong world
    bench.set(14, 0, n=1, groups=[{"group": 1, "m": 1, "points": [{"pn": 1, "reverse": 0, "subtract": 0}]}])
    true = bench.terminal.meters[1].site.power(np.array([bench.now]))[0]
    assert bench.power() == pytest.approx(2 * float(true))


def test_traffic_over_the_monthly_limit_is_told_once(make_bench: Any) -> None:
    bench = make_bench(p36={"month_bytes": 1_000})
    bench.terminal.parts.counters.carried(bench.local(), 999)
    bench.step(120)
    assert not bench.events(32)
    bench.terminal.parts.counters.carried(bench.local(), 2)
    bench.step(240)
    assert [e["month_bytes"] for e in bench.events(32)] == [1_001]


@given(st.floats(-9e6, 9e6, allow_nan=False))
def test_powers_fit_format_a2(value: float) -> None:
    shown = fields.power(value)
    assert shown is not None
    assert abs(float(shown) - value) <= max(abs(value) * 0.0051, 0.00051)
    digits, exponent = shown.normalize().as_tuple()[1:]
    assert isinstance(exponent, int) and exponent >= -3 and len(digits) + max(exponent, 0) <= 7
    assert len(str(abs(int(shown.normalize().scaleb(-exponent))))) <= 3


def test_fields_are_read_from_text_and_objects() -> None:
    data = {"t": "08:30", "d": date(2026, 1, 2), "m": datetime(2026, 1, 2, 3, 4), "b": [1, 3]}  # noqa: DTZ001
    assert str(fields.clock_time(data, "t")) == "08:30:00" and fields.clock_time(data, "b") is None
    assert fields.day(data, "m") == date(2026, 1, 2) == fields.day(data, "d") and fields.moment(data, "d") is None
    assert fields.bits(data, "b") == {1, 3} and fields.rows(data, "b") == [] and fields.number(data, "x", 5.0) == 5.0
    assert fields.rounded(float("nan"), 2) is None and fields.cut(12.349999, 2) == Decimal("12.34")
    assert fields.energy(12_345_678.9) == Decimal("12345E3") and fields.energy(None) is None


def test_every_event_can_be_scripted_and_told(make_master: Any) -> None:
    numbers = [row.erc for row in table().ercs if "2013" in row.editions]
    faults = [Fault(kind="event", target=("terminal",), match=f"ERC{n}/2", start_s=n) for n in numbers]
    master = make_master(*faults, p9={"record": list(range(1, 65)), "important": list(range(1, 65))})
    master.bench.step(max(numbers) + 1)
    told: list[dict[str, Any]] = []
    at = 0
    while True:
        answer = master.ask(0x0E, Unit(0, 1, {"pm": at, "pn": len(numbers)}))
        if answer.afn != 0x0E:
            break
        told += answer.units[0].data["events"]
        at = answer.units[0].data["pn"]
        if at == len(numbers):
            break
    assert [e["erc"] for e in told] == numbers and not [e for e in told if "raw_hex" in e]
    circuit = next(e for e in told if e["erc"] == 10)
    assert (circuit["pn"], circuit["begin"], circuit["phase_a"]) == (2, 1, 1) and circuit["Ua"] is not None
