"""Script that reads class-2 curves (曲线, AFN 0D with Td_c) of a window: several classes and points in one request.

How much one request may ask for is bounded by the terminal's buffer (terminal.answer_bytes). What a terminal answers
short (fewer points than asked) is asked on from there; what it leaves out is a fault. Answers stay bytes (raw_curves)
unless they hold anything but curves, or slots that a set of the clock has spoilt; then they are read unit by unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from ...model.lang import tr
from ...model.quality import Quality
from ...model.readings import CurveBlock
from ...model.times import BUSINESS_ZONE, US, business_to_us, from_us
from ...protocols.common.errors import UsageError
from ...protocols.common.times import encode_datetime
from ...protocols.qgdw1376.curves import MAX_POINTS, SCALE_BYTES, TIME_BYTES, area, curve_classes, walk
from ...protocols.qgdw1376.dadt import single
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
        pending = reading.wants(base, start, n)
        while pending:
            for batch in batches(pending, exchange.plan):
                if (yield from ask_batch(exchange, batch, reading.take)):
                    return
            pending, reading.rest = reading.rest, []


def _most(wants: Sequence[Want], answer_bytes: int) -> int:
    """Points of a curve that an answer has room for, at least one."""
    width = max((curve_classes()[fn].width for fn in {w.item.fn for w in wants}), default=1)
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

    def wants(self, base: Sequence[Want], label_us: int, n: int) -> list[Want]:
        """The units for n slots from a label on."""
        local = from_us(label_us).astimezone(BUSINESS_ZONE).replace(tzinfo=None)
        early, late = self.scale(local, n), self.scale(local - self.step, n)
        is_late = {fn: self.late(fn) for fn in {want.item.fn for want in base}}
        found = []
        for item, pn, _, _, _ in base:
            data, wire = late if is_late[item.fn] else early
            found.append(Want(item, pn, data, curve_size(item.fn, n), single(pn, item.fn) + wire))
        return found

    def late(self, fn: int) -> bool:
        """Whether the terminal's time of a value is one slot before its label."""
        return self.labels.curve == "start" and bool(curve_table()[1][fn, 0])

    def scale(self, start: datetime, n: int) -> tuple[dict[str, object], bytes]:
        """Td_c as values and as bytes."""
        density = DENSITY[self.plan.step_s]
        wire = encode_datetime(start, seconds=False) + bytes((density, n))
        return {"td_c": start, "density": density, "n": n}, wire

    def take(self, answer: Answer, batch: Sequence[Want]) -> set[Key]:
        """Keep an answer; the curves that it holds as asked."""
        asked = {(want.pn, want.item.fn): want for want in batch}
        got: set[Key] = set()
        if any(self.spoilt(want) for want in batch):
            self._take_units(answer, asked, got)
            return got
        data = area(answer.frames[0]) if len(answer.frames) == 1 else None
        if data is not None and _as_asked(data, batch):
            self._keep(data, sum([want.wire[-1] for want in batch]))
            return set(asked)
        for frame in answer.frames:
            data = area(frame)
            spans = walk(data) if data is not None else None
            if data is None or spans is None:
                self._take_units(answer, asked, got)
                return got
            self._keep(data, sum([span.n for span in spans]))
            for pn, fn, at, _, n in spans:
                want = asked.get((pn, fn))
                if want is not None and data.startswith(want.wire[IDENTIFIER : IDENTIFIER + TIME_BYTES], at):
                    got.add((pn, fn))
                    if n != want.wire[-1]:
                        self._go_on(want, _start(want), n)
        return got

    def _keep(self, data: bytes, values: int) -> None:
        """A data area that holds nothing but curves, to be decoded with those of others."""
        starts, latest_us = self.labels.curve == "start", self.exchange.now_us + CLOCK_SLACK_US
        self.exchange.raw_curves.append(CurveReply((data,), self.points, starts, self.quality, latest_us, values))

    def _go_on(self, want: Want, start: datetime, n: int) -> None:
        left = _int(want.data["n"]) - n
        if n > 0 and left > 0:
            data, wire = self.scale(start + n * self.step, left)
            size = curve_size(want.item.fn, left)
            self.rest.append(want._replace(data=data, size=size, wire=want.wire[:IDENTIFIER] + wire))

    def _take_units(self, answer: Answer, asked: dict[Key, Want], got: set[Key]) -> None:
        """An answer that is not only curves: read as any other."""
        exchange = self.exchange
        found = read_answers(answer.frames, exchange.device, self.labels, exchange.now_us, exchange.peer.edition)
        exchange.curves += [self.marked(block) for block in found.curves]
        answer.faults |= found.faults
        for unit in answer.units():
            want = asked.get((unit.pn, unit.fn))
            if want is None or unit.data is None or unit.data.get("td_c") != want.data["td_c"]:
                continue
            if want.key in found.taken and want.key not in got:
                got.add(want.key)
                self._go_on(want, _start(want), _int(unit.data.get("n")))

    def spoilt(self, want: Want) -> bool:
        """Whether a set of the terminal's clock has doubled or lost one of these slots."""
        spans = self.exchange.session.suspect
        if not spans:
            return False
        first = business_to_us(_start(want)) + (self.plan.step_s * US if self.late(want.item.fn) else 0)
        last = first + (_int(want.data["n"]) - 1) * self.plan.step_s * US
        return any(first < until and last >= since for since, until in spans)

    def marked(self, block: CurveBlock) -> CurveBlock:
        """A block with S where its values cannot be trusted."""
        doubtful = np.full(block.value.shape, self.quality == Quality.S)
        labels = block.start_us[:, None] + np.arange(block.value.shape[1]) * (block.step_s * US)
        for since, until in self.exchange.session.suspect:
            doubtful |= (labels >= since) & (labels < until)
        quality = np.where(doubtful & (block.quality == Quality.A), np.int16(Quality.S), block.quality)
        return replace(block, quality=quality)

    @property
    def quality(self) -> Quality:
        """Of the values of this terminal, by what its clock is known to be."""
        offset_s = self.exchange.session.clock_offset_s
        return Quality.S if offset_s is not None and abs(offset_s) > CLOCK_TRUST_S else Quality.A


def _as_asked(data: bytes, batch: Sequence[Want]) -> bool:
    """Whether a data area holds exactly the units asked for, in this order: what nearly every terminal answers."""
    at = 0
    for want in batch:
        if not data.startswith(want.wire, at):
            return False
        at += want.size
    return at == len(data)


def _start(want: Want) -> datetime:
    start = want.data["td_c"]
    assert isinstance(start, datetime)
    return start


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
