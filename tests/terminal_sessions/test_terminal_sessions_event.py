"""Reading a terminal's event memories: from where it ended, over the wrap, with holes, nothing twice, nothing lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.acquisition.profile import TerminalPlan
from fuhe.acquisition.terminal import DENIAL_US, Events, TerminalSession
from fuhe.acquisition.terminal_events import pointer_item
from fuhe.commands.events import words
from fuhe.model.times import business_to_us
from fuhe.model.work import Duty, Status
from fuhe.protocols.qgdw1376.layout import all_fields
from fuhe.protocols.qgdw1376.message import Message
from fuhe.protocols.qgdw1376.table import lookup_erc
from fuhe.protocols.qgdw1376.units import Unit

from .conftest import NOW, NOW_US, answer, deny, item, profile, session, talk

READ = item(Duty.EVENT, items=("0E:F1", "0E:F2"))


@dataclass
class Memory:
    """A terminal with two rings of 256 places. `most`: events in one answer; `bad`: places that it denies."""

    important: list[int] = field(default_factory=list)
    ordinary: list[int] = field(default_factory=list)
    most: int = 100
    bad: frozenset[int] = frozenset()
    counters: bool = True
    grows: int = 0
    seen: list[tuple[int, int, int]] = field(default_factory=list)

    def ec(self) -> tuple[int, int]:
        return len(self.important) % 256, len(self.ordinary) % 256

    def event(self, number: int) -> Mapping[str, object]:
        """ERC 4 with its number in the time."""
        return {
            "erc": 4,
            "le": 7,
            "time": NOW.replace(second=0) + timedelta(minutes=number),
            "changed": [1],
            "state": [1],
        }

    def __call__(self, request: Message) -> list[Message]:
        unit = request.units[0]
        if request.afn == 0x0C:
            if not self.counters:
                return [deny(request)]
            ec1, ec2 = self.ec()
            return [answer(request, [Unit(0, 7, {"ec1": ec1, "ec2": ec2})])]
        assert unit.data is not None
        pm, pn = int(str(unit.data["pm"])), int(str(unit.data["pn"]))
        self.seen.append((unit.fn, pm, pn))
        store = self.important if unit.fn == 1 else self.ordinary
        if self.grows and unit.fn == 1:
            store += range(len(store), len(store) + self.grows)
        total, wanted = len(store), (pn - pm) % 256
        found = []
        for i in range(min(wanted, self.most)):
            place = (pm + i) % 256
            back = (total % 256 - place - 1) % 256
            if back >= total or place in self.bad:
                break
            found.append(self.event(store[total - 1 - back]))
        if not found:
            return [deny(request)]
        ec1, ec2 = self.ec()
        data: dict[str, object] = {"ec1": ec1, "ec2": ec2, "pm": pm, "pn": (pm + len(found)) % 256, "events": found}
        return [answer(request, [Unit(0, unit.fn, data)])]


def numbers(outcome: object) -> list[int]:
    """Which important events came, by the number in their time."""
    batch = outcome.batch  # type: ignore[attr-defined]
    start = business_to_us(NOW.replace(second=0))
    return [(e.time_us - start) // 60_000_000 for e in (batch.events if batch else ()) if e.data["kind"] == "important"]


def reading_from(ec1: int | None, ec2: int | None = 0) -> TerminalSession:
    """A session that has read so far."""
    known = session()
    known.ec1_read, known.ec2_read = ec1, ec2
    return known


def test_new_events_since_the_last_reading() -> None:
    memory, known = Memory(important=list(range(12)), ordinary=[3]), reading_from(5, 0)
    outcome, _ = talk(READ, memory, with_session=known)
    assert outcome.status is Status.DONE and numbers(outcome) == [5, 6, 7, 8, 9, 10, 11]
    assert outcome.batch is not None
    codes = [(e.code, e.data["kind"], e.data["index"], e.data["state"]) for e in outcome.batch.events]
    assert codes[0] == ("ERC4", "important", 5, [1]) and codes[-1] == ("ERC4", "ordinary", 0, [1])
    assert {p.item: p.value for p in outcome.batch.parameters} == {pointer_item(1): "12", pointer_item(2): "1"}
    assert (known.ec1_read, known.ec2_read) == (5, 0)  # nothing is on the disk yet
    assert outcome.stored is not None
    outcome.stored()
    assert (known.ec1_read, known.ec2_read, known.waiting()) == (12, 1, Events.NONE)
    again, sent = talk(READ, memory, with_session=known)
    assert (again.status, again.batch, len(sent)) == (Status.DONE, None, 1)


def test_the_wrap_and_a_terminal_that_gives_less_than_asked() -> None:
    memory = Memory(important=list(range(300)), most=3)
    outcome, _ = talk(READ, memory, with_session=reading_from(250))
    assert numbers(outcome) == list(range(250, 300))
    outcome.stored and outcome.stored()
    assert memory.seen[0] == (1, 250, 2) and all((b - a) % 256 <= 8 for _, a, b in memory.seen)


@pytest.mark.parametrize("total", [0, 1, 7, 40, 256, 257, 700])
def test_first_contact_reads_all_that_the_memory_holds(total: int) -> None:
    known = reading_from(None, None)
    outcome, sent = talk(READ, Memory(important=list(range(total))), with_session=known)
    assert numbers(outcome) == list(range(max(0, total - 255), total))
    assert outcome.status is Status.DONE and not outcome.faults and len(sent) < 140
    if outcome.stored:
        outcome.stored()
    if total:
        assert known.ec1_read == total % 256
    if total < 10:  # never full: nobody asks for what cannot be there (three questions for the ordinary ones)
        assert len(sent) <= 8


def test_first_contact_with_a_full_memory_whose_oldest_events_cannot_be_read() -> None:
    memory = Memory(important=list(range(300)), bad=frozenset(range(45, 60)))
    outcome, _ = talk(READ, memory, with_session=reading_from(None, None))
    assert set(range(60, 300)) - set(numbers(outcome)) <= set(range(60, 64))


def test_an_event_that_cannot_be_read_does_not_hide_the_others() -> None:
    memory, known = Memory(important=list(range(20)), bad=frozenset({13})), reading_from(10)
    outcome, _ = talk(READ, memory, with_session=known)
    assert numbers(outcome) == [10, 11, 12, 14, 15, 16, 17, 18, 19]
    assert [(f.item, f.final) for f in outcome.faults] == [("0E:F1 13", True)]
    assert outcome.stored is not None
    outcome.stored()
    assert known.ec1_read == 20


@pytest.mark.parametrize(("start", "questions"), [(None, 5), (100, 3)])
def test_a_terminal_that_denies_its_events_is_asked_again_when_its_counter_moves_or_in_a_day(
    start: int | None, questions: int
) -> None:
    memory = Memory(important=list(range(200)), bad=frozenset(range(256)))
    known = reading_from(start)
    read = item(Duty.EVENT, items=("0E:F1",))
    outcome, sent = talk(read, memory, with_session=known)
    assert outcome.status is Status.REFUSED and [f.item for f in outcome.faults] == ["0E:F1"]
    assert len(sent) == questions and known.ec1_read == start  # what was not given is not taken for read
    known.saw(True, (200, 0), NOW_US)
    assert known.waiting() is Events.NONE  # ACD alone calls for nothing
    outcome, sent = talk(read, memory, with_session=known)
    assert (outcome.status, len(sent)) == (Status.DONE, 1)  # the counters only
    _, sent = talk(read, memory, with_session=known, now_us=NOW_US + DENIAL_US + 60_000_000)
    assert len(sent) == questions
    _, sent = talk(item(Duty.EVENT, items=("0E:F1",), forced=True), memory, with_session=known)
    assert len(sent) == questions
    memory.important.append(200)
    memory.bad = frozenset()
    assert known.saw(True, (201, 0), NOW_US) == Events.IMPORTANT
    outcome, _ = talk(read, memory, with_session=known)
    assert numbers(outcome)[-1] == 200 and known.no_events == {}


def test_events_that_come_while_reading_are_read_too_but_not_for_ever() -> None:
    memory = Memory(important=list(range(9)), grows=1)
    outcome, sent = talk(READ, memory, with_session=reading_from(0), limit=2000)
    assert numbers(outcome)[:9] == list(range(9)) and len(sent) <= 1 + 512 + 2


def test_silence_keeps_what_was_read() -> None:
    memory, calls = Memory(important=list(range(30))), [0]

    def dies(request: Message) -> list[Message]:
        calls[0] += 1
        return memory(request) if calls[0] < 3 else []

    known = reading_from(0)
    outcome, _ = talk(READ, dies, with_session=known)
    assert outcome.status is Status.PARTIAL and numbers(outcome) == list(range(8))
    assert outcome.stored is not None
    outcome.stored()
    assert known.ec1_read == 8
    outcome, _ = talk(READ, lambda _: [], with_session=reading_from(0))
    assert (outcome.status, outcome.batch) == (Status.SILENT, None)


def test_a_terminal_that_does_not_tell_its_counters() -> None:
    known = reading_from(0)
    outcome, _ = talk(READ, Memory(important=[0, 1], counters=False), with_session=known)
    assert outcome.status is Status.REFUSED and [f.item for f in outcome.faults] == ["0C:F7"]
    known.saw(True, (2, 0), 0)  # but its frames did
    outcome, _ = talk(READ, Memory(important=[0, 1], counters=False), with_session=known)
    assert (outcome.status, numbers(outcome)) == (Status.DONE, [0, 1])


def test_an_answer_about_other_events_is_none() -> None:
    memory = Memory(important=list(range(9)))

    def wrong(request: Message) -> list[Message]:
        found = memory(request)
        if request.afn == 0x0E:
            data = dict(found[0].units[0].data or {})
            data["pm"] = 200
            data["pn"] = (200 + len(data["events"])) % 256  # type: ignore[arg-type]
            return [answer(request, [Unit(0, request.units[0].fn, data)])]
        return found

    outcome, _ = talk(READ, wrong, with_session=reading_from(0))
    assert outcome.status is Status.PARTIAL and not numbers(outcome)


def test_events_without_a_time_and_with_a_secret() -> None:
    def terminal(request: Message) -> list[Message]:
        if request.afn == 0x0C:
            return [answer(request, [Unit(0, 7, {"ec1": 3, "ec2": 0})])]
        events = [
            {"erc": 14, "le": 10, "power_off": datetime(2026, 5, 1, 8), "power_on": datetime(2026, 5, 1, 9)},  # noqa: DTZ001
            {"erc": 20, "time": None, "pw_hex": "11" * 16, "msa": 3},
            {"erc": 200, "le": 2, "raw_hex": "AABB"},
        ]
        return [answer(request, [Unit(0, 1, {"ec1": 3, "ec2": 0, "pm": 0, "pn": 3, "events": events})])]

    outcome, _ = talk(READ, terminal, with_session=reading_from(0))
    assert outcome.batch is not None
    outage, secret, vendor = outcome.batch.events
    assert (outage.code, outage.end_us, outage.time_us) == (
        "ERC14", business_to_us(datetime(2026, 5, 1, 9)), business_to_us(datetime(2026, 5, 1, 8)),  # noqa: DTZ001
    )  # fmt: skip
    assert secret.data["pw_hex"] == "**" and secret.time_us > 0
    assert (vendor.code, vendor.data["raw_hex"]) == ("ERC200", "AABB")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 600), st.integers(1, 255), st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32))
def test_nothing_twice_and_nothing_lost(total: int, new: int, most: int, batch: int, seed: int) -> None:
    new = min(new, total)
    memory = Memory(important=list(range(total)), most=most)
    plan = profile(terminal=TerminalPlan(event_batch=batch))
    known = reading_from((total - new) % 256)
    outcome, _ = talk(READ, memory, with_session=known, with_profile=plan)
    assert numbers(outcome) == list(range(total - new, total)) and outcome.status is Status.DONE


def test_people_read_the_name_of_an_event_code_and_its_fields_with_units() -> None:
    data = {"kind": "important", "index": 4, "pn": 1, "begin": 1, "phase_a": 1, "u_a": "160.2", "i_a": None}
    row = lookup_erc(10)
    assert row is not None
    what, details = words("ERC10", data)
    assert what == row.en and "pn 1" in details and "index" not in details and "i_a" not in details
    assert words("ERC200", {"raw_hex": "AABB"}) == ("ERC200", "raw_hex AABB")
    units = {f.name: f.unit for f in all_fields(row.fields) if f.unit}
    (field, unit), *_ = units.items()
    assert f"{field} 1.5 {unit}" in words("ERC10", {field: "1.5"})[1]
