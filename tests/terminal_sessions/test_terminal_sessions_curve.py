"""Class-2 curves: requests bounded by the buffer, short answers asked on, fill, labels, and many decoded together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec
import numpy as np
import pytest

from fuhe.acquisition.cycles import curve_window
from fuhe.acquisition.io.collector import merge, weight
from fuhe.acquisition.profile import CurvePlan, TerminalPlan
from fuhe.acquisition.raw_curves import RawCurves
from fuhe.acquisition.sessions import open_exchange
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.quality import Quality
from fuhe.model.quantities import quantity
from fuhe.model.readings import CurveBlock, ReadingBatch
from fuhe.model.times import US, business_to_us, day_start_us
from fuhe.model.work import Duty, Status
from fuhe.protocols.common.errors import UsageError
from fuhe.protocols.qgdw1376.curves import curve_classes, encode_curve
from fuhe.protocols.qgdw1376.message import Message
from fuhe.protocols.qgdw1376.units import Unit

from .conftest import DEVICE, NOW, answer, deny, item, profile, session, talk

DAY = NOW.date() - timedelta(days=1)
WINDOW = curve_window(DAY)
ITEMS = ("0D:F81", "0D:F89", "0D:F92", "0D:F73")
PLAN = CurvePlan(items=ITEMS)
ZERO = datetime(2026, 1, 1)  # noqa: DTZ001


def truth(pn: int, fn: int, moment: datetime) -> float:
    """What the terminal has stored under a time."""
    slots = int((moment - ZERO).total_seconds() // 900)
    if fn == 73:
        return float(slots % 900)
    decimals = {81: 4, 89: 1, 92: 3, 101: 2}.get(fn, 1)
    return round(pn * 10 + fn % 10 + slots % 97 / 100, decimals)


@dataclass
class Curves:
    """A terminal with a memory of curves. short: points it gives at most; holes: times it lost; blind: (pn, Fn)."""

    short: int = 255
    holes: frozenset[datetime] = frozenset()
    blind: frozenset[tuple[int, int]] = frozenset()
    units_a_frame: int = 100
    wrong_start: timedelta = timedelta(0)
    extra: tuple[Unit, ...] = ()
    starts: bool = False
    seen: list[Message] = field(default_factory=list)

    def __call__(self, request: Message) -> Iterable[Message]:
        self.seen.append(request)
        units = []
        for unit in request.units:
            assert unit.data is not None
            start, n = unit.data["td_c"], min(int(str(unit.data["n"])), self.short)
            assert isinstance(start, datetime)
            if (unit.pn, unit.fn) in self.blind or n == 0:
                continue
            start += self.wrong_start
            late = 15 if self.starts and unit.fn in (73, 81) else 0
            times = [start + timedelta(minutes=15 * i + late) for i in range(n)]
            values = np.array([np.nan if t in self.holes else truth(unit.pn, unit.fn, t) for t in times])
            units.append((unit.pn, unit.fn, encode_curve(unit.fn, start, 1, values)))
        if not units and not self.extra:
            return [deny(request)]
        raw = [Unit(pn, fn, None, wire) for pn, fn, wire in units]
        runs = [raw[i : i + self.units_a_frame] for i in range(0, len(raw), self.units_a_frame)] or [[]]
        runs[-1] += self.extra
        return [answer(request, run, part=i, last=i == len(runs) - 1) for i, run in enumerate(runs)]


def read(memory: Curves, *, plan: CurvePlan = PLAN, window: tuple[int, int] = WINDOW, **more: object):  # type: ignore[no-untyped-def]
    """Read the curves of a window."""
    given = profile(curve=plan, terminal=more.pop("terminal", TerminalPlan()))
    work = item(Duty.CURVE, window_us=window, items=more.pop("items", ()))
    return talk(work, memory, with_profile=given, chunk=500, **more)  # type: ignore[arg-type]


def table(batch: ReadingBatch | None) -> dict[tuple[int, int, int], float]:
    """(point, quantity, label) -> value, of all blocks."""
    found = {}
    for block in batch.curves if batch else ():
        for k in range(len(block.point)):
            for i, value in enumerate(block.value[k]):
                if np.isfinite(value):
                    assert block.quality[k, i] in (Quality.A, Quality.S)
                    label = int(block.start_us[k]) + i * block.step_s * US
                    found[int(block.point[k]), int(block.quantity[k]), label] = float(value)
                else:
                    assert block.quality[k, i] == Quality.M
    return found


def expected(shift: int = 0, holes: frozenset[datetime] = frozenset()) -> dict[tuple[int, int, int], float]:
    """The whole day of both points and the group."""
    found = {}
    start = datetime(DAY.year, DAY.month, DAY.day)  # noqa: DTZ001
    for point, pn, fns in ((71, 1, (81, 89, 92)), (72, 2, (81, 89, 92)), (75, 1, (73,))):
        for fn in fns:
            number = quantity(curve_classes()[fn].columns[0].quantity).id
            for i in range(1, 97):
                moment = start + timedelta(minutes=15 * i)
                if moment not in holes:
                    found[point, number, business_to_us(moment)] = truth(pn, fn, moment)
    assert shift == 0
    return found


@pytest.mark.parametrize("answer_bytes", [60, 255, 1024, 16000])
@pytest.mark.parametrize("short", [7, 255])
@pytest.mark.parametrize("units_a_frame", [1, 100])
def test_a_day_of_two_points_and_a_group(answer_bytes: int, short: int, units_a_frame: int) -> None:
    terminal = Curves(short=short, units_a_frame=units_a_frame)
    outcome, sent = read(terminal, terminal=TerminalPlan(answer_bytes=answer_bytes))
    assert (outcome.status, outcome.faults, outcome.retries) == (Status.DONE, (), 0)
    assert table(outcome.batch) == expected()
    for request in terminal.seen:
        size = sum(11 + int(str(u.data["n"])) * curve_classes()[u.fn].width for u in request.units if u.data)
        assert size <= answer_bytes and len({(u.pn, u.fn) for u in request.units}) == len(request.units)
    if (answer_bytes, short) == (16000, 255):
        assert len(sent) == 1
    if (answer_bytes, short) == (1024, 255):
        assert len(sent) == 2 + 0 * len(sent) or len(sent) == 3


def test_holes_and_what_the_terminal_leaves_out() -> None:
    start = datetime(DAY.year, DAY.month, DAY.day)  # noqa: DTZ001
    holes = frozenset(start + timedelta(minutes=15 * i) for i in (3, 4, 50))
    outcome, _ = read(Curves(holes=holes, blind=frozenset({(2, 89)})))
    assert outcome.status is Status.PARTIAL
    assert [f.item for f in outcome.faults] == ["0D:F89:P2"]
    want = expected(holes=holes)
    voltage = quantity("voltage_a").id
    assert table(outcome.batch) == {k: v for k, v in want.items() if k[:2] != (72, voltage)}


def test_a_terminal_without_any() -> None:
    outcome, _ = read(Curves(short=0))
    assert (outcome.status, outcome.batch) == (Status.REFUSED, None) and len(outcome.faults) == 7


def test_values_under_another_time_are_kept_but_are_no_answer() -> None:
    outcome, _ = read(Curves(wrong_start=timedelta(days=-1)))
    assert outcome.status is Status.PARTIAL and len(outcome.faults) == 7
    assert min(label for _, _, label in table(outcome.batch)) == WINDOW[0] - 86_400 * US


def test_terminals_whose_first_value_comes_one_slot_later() -> None:
    """Averages stand under the start of their interval, snapshots (voltages, currents) under their instant."""
    terminal = Curves(starts=True)
    outcome, _ = read(terminal, terminal=TerminalPlan(curve_label="start"))
    assert table(outcome.batch) == expected()
    times = {(u.fn, u.data["td_c"]) for m in terminal.seen for u in m.units if u.data}
    midnight = datetime(DAY.year, DAY.month, DAY.day)  # noqa: DTZ001
    later = midnight + timedelta(minutes=15)
    assert times == {(81, midnight), (73, midnight), (89, later), (92, later)}
    by_option = msgspec.structs.replace(DEVICE, options={"curve_label": "start"})
    assert table(read(Curves(starts=True), device=by_option)[0].batch) == expected()


def test_a_mixed_answer_is_read_unit_by_unit() -> None:
    freeze = Unit(1, 49, None, bytes(7))
    outcome, _ = read(Curves(extra=(freeze,)), terminal=TerminalPlan(answer_bytes=16000))
    assert outcome.status is Status.DONE and table(outcome.batch) == expected()
    assert outcome.batch is not None and not isinstance(outcome.batch.curves, RawCurves)


def test_only_slots_that_have_ended() -> None:
    terminal = Curves()
    outcome, sent = read(terminal, window=curve_window(NOW.date()))
    assert outcome.status is Status.DONE
    assert max(label for _, _, label in table(outcome.batch)) == business_to_us(NOW.replace(minute=0, second=0))
    outcome, sent = read(terminal, window=(day_start_us(NOW.date()) + 86_400 * US, day_start_us(NOW.date()) * 2))
    assert (outcome.status, sent) == (Status.DONE, [])


@pytest.mark.parametrize("starts", [False, True])
def test_slots_that_a_clock_set_has_spoilt_are_suspect(starts: bool) -> None:
    known, start = session(), day_start_us(DAY)
    slots = tuple((start + a * 900 * US, start + b * 900 * US) for a, b in ((10, 13), (96, 97), (97, 200)))
    known.suspect = slots
    plan = TerminalPlan(curve_label="start" if starts else "end")
    outcome, _ = read(Curves(starts=starts, short=40), with_session=known, terminal=plan)
    assert table(outcome.batch) == expected() and outcome.status is Status.DONE
    assert outcome.batch is not None
    for block in outcome.batch.curves:
        labels = block.start_us[:, None] + np.arange(block.value.shape[1]) * (900 * US)
        spoilt = np.isin((labels - start) // (900 * US), (10, 11, 12, 96))
        assert (block.quality[spoilt] == Quality.S).all() and (block.quality[~spoilt] == Quality.A).all()
    known.suspect = slots[2:]  # of another day: nothing to look at
    outcome, _ = read(Curves(starts=starts), with_session=known, terminal=plan)
    assert outcome.batch is not None and isinstance(outcome.batch.curves, RawCurves)


def test_the_clock_of_the_terminal_makes_values_suspect() -> None:
    known = session()
    known.clock_offset_s = -400.0
    outcome, _ = read(Curves(), with_session=known)
    assert outcome.batch is not None
    assert {int(q) for b in outcome.batch.curves for q in np.unique(b.quality)} == {Quality.S}


def test_a_lost_line_keeps_what_came() -> None:
    given = profile(curve=PLAN, terminal=TerminalPlan(answer_bytes=400))
    work = item(Duty.CURVE, window_us=WINDOW)
    exchange = open_exchange(DEVICE, given, work, Credentials(), session=session())
    from .conftest import NOW_US, asked, wire

    terminal = Curves()
    for _ in range(2):
        request = exchange.next_request(NOW_US)
        assert request is not None and exchange.receive(wire(*terminal(asked(request.data))), NOW_US)
    assert exchange.next_request(NOW_US) is not None
    outcome = exchange.outcome(NOW_US)
    assert outcome.status is Status.PARTIAL and len(table(outcome.batch)) == 2 * 96


def test_wrong_requests_are_refused_at_once() -> None:
    for plan, more in (
        (None, {"window_us": WINDOW}),
        (CurvePlan(), {"window_us": WINDOW}),
        (PLAN, {}),
        (PLAN, {"window_us": WINDOW, "items": ("0D:F161",)}),
        (PLAN, {"window_us": WINDOW, "items": ("0C:F25",)}),
    ):
        with pytest.raises(UsageError):
            open_exchange(
                DEVICE,
                profile(curve=plan),
                item(Duty.CURVE, **more),
                Credentials(),
                session=session(),
            )


def test_many_conversations_are_decoded_together() -> None:
    """What the collector joins is what each conversation says by itself, and nothing is decoded before."""
    batches = []
    for n in range(5):
        points = tuple(Point(id=100 * n + i, name=f"{n}-{i}", pn=i) for i in range(1, 1 + n % 3 + 1))
        device = msgspec.structs.replace(DEVICE, id=n, points=points) if n else DEVICE
        outcome, _ = read(Curves(), device=device)
        assert outcome.batch is not None and isinstance(outcome.batch.curves, RawCurves)
        batches.append(outcome.batch)
    curves = [b.curves for b in batches if isinstance(b.curves, RawCurves)]
    assert all(c._blocks is None for c in curves) and weight(batches[0]) == 7 * 96
    plain = CurveBlock(
        np.array([1], np.int32), np.array([1], np.int16), np.array([0], np.int64), 900, np.zeros((1, 4)),
        np.zeros((1, 4), np.int16),
    )  # fmt: skip
    joined = merge([*batches, ReadingBatch(received_us=1, curves=(plain,))])
    assert len(joined) == 2 and all(c._blocks is None for c in curves)
    want: dict[tuple[int, int, int], float] = {}
    for batch in batches:
        want |= table(batch)
    assert table(joined[1]) == want
    assert len(joined[1].curves) == 1  # not one a conversation
    assert len(want) == sum(b.value_count for b in batches)


def test_a_device_without_such_points() -> None:
    meter = Device(id=5, name="t", link="l", profile="t", address=DEVICE.address, points=(Point(id=1, name="x"),))
    terminal = Curves()
    outcome, _ = read(terminal, device=meter)
    assert outcome.status is Status.DONE  # the profile's group curves are simply not asked for
    assert {u.fn for m in terminal.seen for u in m.units} == {81, 89, 92}
    outcome, _ = read(terminal, device=meter, items=("0D:F73",))
    assert [f.item for f in outcome.faults] == ["0D:F73"]
