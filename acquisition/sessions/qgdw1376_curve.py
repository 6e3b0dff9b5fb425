"""Script that reads class-2 curves (曲线, AFN 0D with Td_c) of a window: several classes and points in one request.

How much one request may ask for is bounded by the terminal's buffer (terminal.answer_bytes). What a terminal answers
short (fewer points than asked) is asked on from there; what it leaves out is a fault. Answers stay bytes (raw_curves)
unless they hold anything but curves; then they are read unit by unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from ...model.lang import tr
from ...model.quality import Quality
from ...model.times import BUSINESS_ZONE, US, from_us
from ...protocols.common.errors import UsageError
from ...protocols.common.times import encode_datetime
from ...protocols.qgdw1376.curves import MAX_POINTS, SCALE_BYTES, TIME_BYTES, area, curve_classes, walk
from ...protocols.qgdw1376.layout import INTERVAL_MIN
from ...protocols.qgdw1376.table import Row
from ..profile import CurvePlan
from ..raw_curves import CurveReply, point_table
from .qgdw1376 import Script, TerminalExchange
from .qgdw1376_asking import ask_batch, wanted
from .qgdw1376_labels import CLOCK_SLACK_US, Labels
from .qgdw1376_plan import HEAD, IDENTIFIER, Item, Want, batches, curve_size, rows_of
from .qgdw1376_readings import curve_table, read_answers
from .qgdw1376_transaction import Answer, Key

AFN: Final = 0x0D
DENSITY: Final = {minutes * 60: code for code, minutes in INTERVAL_MIN.items()}
MAX_SLOTS: Final = 96 * 400
CLOCK_TRUST_S: Final = 300.0
"""A terminal whose clock is further off has its values marked suspect (domain 3.5)."""
_ZONE_US: Final = 8 * 3600 * US


def curves(exchange: TerminalExchange, items: tuple[str, ...]) -> Script:
    """All curve classes of the work item (or the profile) over its window. UsageError: none, or no window."""
    plan, window = exchange.profile.curve, exchange.item.window_us
    if plan is None or not items:
        raise UsageError(
            tr(
                f"profile {exchange.profile.name} has no curves: add curve.items",
                f"设备档 {exchange.profile.name} 没有曲线: 请补充 curve.items",
            )
        )
    if window is None:
        raise UsageError(tr("reading a curve needs a window of time", "读曲线需要指定时间窗口"))
    rows = rows_of(items, (AFN,), exchange.peer.edition.name)
    wrong = [item.text for item, _ in rows if item.fn not in curve_classes()]
    if wrong:
        raise UsageError(tr(f"{', '.join(wrong)}: no curves", f"{', '.join(wrong)}: 不是曲线数据"))
    return _curves(exchange, plan, rows, window)


def _curves(
    exchange: TerminalExchange, plan: CurvePlan, rows: list[tuple[Item, Row]], window: tuple[int, int]
) -> Script:
    step = plan.step_s * US
    first = -(-(window[0] + _ZONE_US) // step) * step - _ZONE_US
    # a slot that has not ended yet cannot be there
    count = min(-(-(window[1] - first) // step), (exchange.now_us - first) // step + 1, MAX_SLOTS)
    if count <= 0:
        exchange.heard = True
        exchange.reason = "no slot of the window has ended yet"
        return
    reading = _Reading(exchange, plan)
    # all classes of a point together: answers of points and terminals then look alike, and are decoded side by side
    base = sorted(wanted(exchange, rows), key=lambda want: (curve_classes()[want.item.fn].pn, want.pn))
    for start, n in _spans(first, count, step, _most(base, exchange.plan.answer_bytes)):
        pending = [reading.want(want.item, want.pn, start, n) for want in base]
        while pending:
            for batch in batches(pending, exchange.plan):
                if (yield from ask_batch(exchange, batch, reading.take)):
                    return
            pending, reading.rest = reading.rest, []


def _most(wants: Sequence[Want], answer_bytes: int) -> int:
    """Points of a curve that an answer has room for, at least one."""
    width = max((curve_classes()[w.item.fn].width for w in wants), default=1)
    return max(1, min(MAX_POINTS, (answer_bytes - HEAD - IDENTIFIER - SCALE_BYTES) // width))


def _spans(first: int, count: int, step: int, most: int) -> Iterator[tuple[int, int]]:
    """(label of the first slot, number) of runs of slots that fit a request; whole days where they do."""
    if most >= 96 and step == 900 * US:
        most = 96
    for i in range(0, count, most):
        yield first + i * step, min(most, count - i)


class _Reading:
    """Turns wants into requests and answers into what the exchange keeps. rest: what was served only in part."""

    def __init__(self, exchange: TerminalExchange, plan: CurvePlan) -> None:
        self.exchange, self.plan = exchange, plan
        self.step = timedelta(seconds=plan.step_s)
        self.labels = Labels.of(exchange.plan, exchange.device.options)
        self.points = point_table(exchange.device)
        self.rest: list[Want] = []
        self._scales: dict[tuple[datetime, int], tuple[dict[str, object], bytes]] = {}
        self._starts: dict[int, datetime] = {}

    def want(self, item: Item, pn: int, label_us: int, n: int) -> Want:
        """The unit for n slots from a label on."""
        local = self._starts.get(label_us)
        if local is None:
            local = self._starts[label_us] = from_us(label_us).astimezone(BUSINESS_ZONE).replace(tzinfo=None)
        return self.unit(item, pn, local - self.step if self.late(item.fn) else local, n)

    def late(self, fn: int) -> bool:
        """Whether the terminal's time of a value is one slot before its label."""
        return self.labels.curve == "start" and bool(curve_table()[1][fn, 0])

    def unit(self, item: Item, pn: int, start: datetime, n: int) -> Want:
        """The same from a time of the terminal on."""
        scale = self._scales.get((start, n))
        if scale is None:
            density = DENSITY[self.plan.step_s]
            wire = encode_datetime(start, seconds=False) + bytes((density, n))
            scale = self._scales[start, n] = {"td_c": start, "density": density, "n": n}, wire
        return Want(item, pn, scale[0], curve_size(item.fn, n), scale[1])

    def take(self, answer: Answer, batch: Sequence[Want]) -> set[Key]:
        """Keep an answer; the curves that it holds as asked."""
        asked = {(want.pn, want.item.fn): want for want in batch}
        got: set[Key] = set()
        for frame in answer.frames:
            data = area(frame)
            spans = walk(data) if data is not None else None
            if data is None or spans is None:
                self._take_units(answer, asked, got)
                return got
            values = sum([span.n for span in spans])
            starts, latest_us = self.labels.curve == "start", self.exchange.now_us + CLOCK_SLACK_US
            self.exchange.raw_curves.append(CurveReply((data,), self.points, starts, self.quality, latest_us, values))
            for pn, fn, at, _, n in spans:
                want = asked.get((pn, fn))
                if want is not None and data.startswith(want.raw[:TIME_BYTES], at):
                    got.add((pn, fn))
                    if n != want.raw[-1]:
                        self._go_on(want, _start(want), n)
        return got

    def _go_on(self, want: Want, start: datetime, n: int) -> None:
        left = _int(want.data["n"]) - n
        if n > 0 and left > 0:
            self.rest.append(self.unit(want.item, want.pn, start + n * self.step, left))

    def _take_units(self, answer: Answer, asked: dict[Key, Want], got: set[Key]) -> None:
        """An answer that is not only curves: read as any other."""
        exchange = self.exchange
        found = read_answers(answer.frames, exchange.device, self.labels, exchange.now_us, exchange.peer.edition)
        exchange.curves += found.curves
        answer.faults |= found.faults
        for unit in answer.units():
            want = asked.get((unit.pn, unit.fn))
            if want is None or unit.data is None or unit.data.get("td_c") != want.data["td_c"]:
                continue
            if want.key in found.taken and want.key not in got:
                got.add(want.key)
                self._go_on(want, _start(want), _int(unit.data.get("n")))

    @property
    def quality(self) -> Quality:
        """Of the values of this terminal, by what its clock is known to be."""
        offset_s = self.exchange.session.clock_offset_s
        return Quality.S if offset_s is not None and abs(offset_s) > CLOCK_TRUST_S else Quality.A


def _start(want: Want) -> datetime:
    start = want.data["td_c"]
    assert isinstance(start, datetime)
    return start


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
