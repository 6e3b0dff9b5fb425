"""Every fault shows on the wire, and the same seed and requests give the same bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fuhe.model.times import US
from fuhe.protocols.dlt645 import requests as ask
from fuhe.protocols.dlt645.frame import cut
from fuhe.simulator.dlt645 import DltLine, DltSlave
from fuhe.simulator.faults import KINDS, Fault, FaultSet
from fuhe.simulator.load import Component, Site, day_start
from fuhe.simulator.meter import SimMeter
from fuhe.simulator.shapes import shapes
from fuhe.simulator.wire import Reply

NOW = day_start(20_300) + 36_000 * US
ADDRESS = "000000000042"
REQUEST = ask.read(ADDRESS, "0001FF00").encode()


def bench(*faults: Fault, seed: int = 1) -> tuple[SimMeter, DltLine]:
    armed = FaultSet("m", seed)
    for fault in faults:
        armed.add(fault, NOW)
    site = Site(components=(Component(kw=40),), shape=shapes()["office"], seed=4, origin_us=day_start(20_298))
    meter = SimMeter(name="m", address=ADDRESS, site=site, faults=armed, seed=9)
    return meter, DltLine([DltSlave(meter, lead=0)])


def ask_many(line: DltLine, count: int, request: bytes = REQUEST, step_s: float = 1.0) -> list[list[Reply]]:
    session = line.session()
    return [session.receive(request, NOW + int(i * step_s * US)) for i in range(count)]


def fault(kind: str, **fields: object) -> Fault:
    return Fault(kind=kind, target=("m",), **fields)  # type: ignore[arg-type]


CLEAN = ask_many(bench()[1], 1)[0][0].data

WIRE: dict[str, Callable[[bytes], bool]] = {
    "noise_before": lambda d: d.endswith(CLEAN) and len(d) == len(CLEAN) + 5,
    "noise_after": lambda d: d.startswith(CLEAN) and len(d) == len(CLEAN) + 5,
    "bit_flip": lambda d: sum((a ^ b).bit_count() for a, b in zip(d, CLEAN, strict=True)) == 1,
    "truncate": lambda d: d == CLEAN[:-3],
    "lost_byte": lambda d: len(d) == len(CLEAN) - 1,
    "duplicate": lambda d: d == CLEAN * 2,
    "echo": lambda d: d == REQUEST + CLEAN,
    "wrong_address": lambda d: cut(d)[0][0].address == "000000000043",
    "address_aa": lambda d: cut(d)[0][0].address == "A" * 12,
    "fill_ff": lambda d: cut(d)[0][0].data[4:] == b"\xff" * 20,
    "fill_ee": lambda d: cut(d)[0][0].data[4:] == b"\xee" * 20,
    "not_bcd": lambda d: any("c" <= c <= "f" for c in cut(d)[0][0].data[4:].hex()),
    "refuse_read": lambda d: cut(d)[0][0].control == 0xD1,
}


@pytest.mark.parametrize("kind", sorted(WIRE))
def test_a_fault_of_the_wire_or_content_shows(kind: str) -> None:
    replies = ask_many(bench(fault(kind))[1], 1)[0]
    assert len(replies) == 1 and WIRE[kind](replies[0].data)


def test_every_kind_that_spoils_an_answer_is_tested() -> None:
    assert set(WIRE) == {name for name, kind in KINDS.items() if kind.group in ("wire", "content")}


@pytest.mark.parametrize(("kind", "delay"), [("slow", 0.3), ("late", 2.0)])
def test_slow_and_late_answers_come_later(kind: str, delay: float) -> None:
    usual, found = ask_many(bench()[1], 1)[0][0], ask_many(bench(fault(kind))[1], 1)[0][0]
    assert found.delay_s - usual.delay_s == pytest.approx(delay) and found.data == usual.data


def test_silence_by_count_item_and_time() -> None:
    first_two = ask_many(bench(fault("silent", count=2))[1], 4)
    assert [len(r) for r in first_two] == [0, 0, 1, 1]
    other = ask_many(bench(fault("silent", match="06"))[1], 1)
    assert len(other[0]) == 1
    window = ask_many(bench(fault("silent", start_s=1, end_s=3))[1], 5)
    assert [len(r) for r in window] == [1, 0, 0, 1, 1]
    away = ask_many(bench(fault("restart", end_s=2))[1], 4)
    assert [len(r) for r in away] == [0, 0, 1, 1]


def test_the_same_seed_repeats_byte_for_byte_and_another_does_not() -> None:
    script = (
        fault("bit_flip", probability=0.5, value=3),
        fault("silent", probability=0.2),
        fault("noise_before", value=9),
    )
    runs = [ask_many(bench(*script, seed=s)[1], 60) for s in (5, 5, 6)]
    assert runs[0] == runs[1] != runs[2]
    silent = sum(not r for r in runs[0])
    assert 3 <= silent <= 25


def test_clock_faults_move_the_meters_clock() -> None:
    meter, _ = bench(fault("clock_offset", value=-300), fault("clock_drift", start_s=10, value=86.4))
    meter.advance(NOW + 20 * US)
    assert meter.clock.offset_us(NOW + 5 * US) == -300 * US
    assert meter.clock.offset_us(NOW + 1010 * US) == pytest.approx(-299 * US, abs=1000)


def test_an_event_is_recorded_once_and_faults_can_be_cleared() -> None:
    meter, line = bench(fault("event", match="cover_open", start_s=5), fault("silent"))
    assert ask_many(line, 1) == [[]]
    assert meter.faults.clear("silent", NOW + US) == 1
    assert len(line.session().receive(REQUEST, NOW + 2 * US)) == 1
    for i in range(3):
        meter.advance(NOW + (5 + i) * US)
    assert meter.counters == {"cover_open": 1}
