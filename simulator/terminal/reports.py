"""What a terminal reports of its own accord: important events and report tasks, one message at a time.

A report that wants confirmation (AFN 04 F1) is repeated until it is confirmed or the repeats are used up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import msgspec

from ...protocols.qgdw1376.edition import Edition
from ...protocols.qgdw1376.frame import Address
from ...protocols.qgdw1376.layout import Field
from ...protocols.qgdw1376.message import Message
from ...protocols.qgdw1376.segments import split
from ...protocols.qgdw1376.table import lookup
from ...protocols.qgdw1376.units import Unit as DataUnit
from ..clock import month_start
from .device import Terminal
from .events import DEPTH
from .settings import CLASS_1_CON, CLASS_2_CON, CLASS_3_CON, Settings, Task
from .tasks import CLASSES, Due

DENSITY: Final = {15: 1, 30: 2, 60: 3, 5: 254, 1: 255}
CON_OF: Final = {0x0C: CLASS_1_CON, 0x0D: CLASS_2_CON, 0x0E: CLASS_3_CON}
Read = Callable[[int, Sequence[DataUnit], int], list[DataUnit]]


def task_units(
    terminal: Terminal, data_class: int, number: int, now_us: int, start: datetime | None = None
) -> list[DataUnit]:
    """The requests that a task's identifiers stand for; class 2 with the time scale of the period before `now`."""
    parts = terminal.parts
    return units_of(parts.settings, data_class, number, parts.local(now_us), start)


def units_of(
    settings: Settings, data_class: int, number: int, local: datetime, start: datetime | None = None
) -> list[DataUnit]:
    """The same by the terminal's clock."""
    task = settings.task(CLASSES[data_class][0], number)
    if task is None:
        return []
    out = []
    for points, classes in task.ids:
        for pn in points:
            for fn in classes:
                asked = {} if data_class == 1 else _scale(settings.edition, fn, task, local, start)
                if asked is not None:
                    out.append(DataUnit(pn, fn, asked))
    return out


def _scale(edition: str, fn: int, task: Task, local: datetime, start: datetime | None) -> dict[str, object] | None:
    row = lookup(0x0D, fn, edition)
    if row is None:
        return None
    names = {n.name for v in row.request.variants for n in v.nodes if isinstance(n, Field)}
    if "td_d" in names:
        return {"td_d": (start or local - timedelta(days=1)).date()}
    if "td_m" in names:
        return {"td_m": (start or month_start(local, 1)).strftime("%Y-%m")}
    step = next((m for m in (15, 30, 60) if m >= 15 * task.ratio), 60)
    width = {"min": 1, "hour": 60, "day": 1440, "month": 1440 * 30}[task.unit] * task.period
    count = min(max(width // step, 1), 96)
    end = local.replace(minute=local.minute // step * step if step < 60 else 0, second=0)
    first = start or end - timedelta(minutes=step * (count - 1))
    return {"td_c": first, "density": DENSITY[step], "n": count}


@dataclass(slots=True)
class _Report:
    frames: list[Message]
    repeats: int
    sent_us: int | None = None
    event: bool = False


@dataclass(slots=True, kw_only=True)
class Reporter:
    """read: class-1 and class-2 units; numbers: the terminal's own frame counter (PFC) is kept here."""

    terminal: Terminal
    address: Address
    edition: Edition
    read: Read
    pfc: int = 0
    given_up: int = 0
    _queue: deque[_Report] = field(default_factory=deque)

    def next_pfc(self) -> int:
        """Number of the next message that the terminal begins."""
        found = self.pfc
        self.pfc = (self.pfc + 1) % 256
        return found

    def poll(self, now_us: int) -> list[Message]:
        """Messages to send now (the link is up); nothing while one waits for its confirmation."""
        terminal = self.terminal
        if not terminal.reports_allowed:
            return []
        self._collect(now_us)
        while self._queue:
            report = self._queue[0]
            waits = any(m.con for m in report.frames)
            if report.sent_us is None:
                report.sent_us = now_us
            elif now_us - report.sent_us < terminal.parts.settings.uplink().timeout_s * 1_000_000:
                return []
            elif report.repeats > 0:
                report.repeats -= 1
                report.sent_us = now_us
            else:
                self._queue.popleft()
                self.given_up += 1
                continue
            if not waits:
                self._queue.popleft()
            return report.frames
        return []

    def confirmed(self, message: Message) -> bool:
        """A confirmation (or denial) of the master; whether it was for a report."""
        if (
            not self._queue
            or self._queue[0].sent_us is None
            or message.seq not in [m.seq for m in self._queue[0].frames]
        ):
            return False
        report = self._queue.popleft()
        if report.event and message.confirmed and not any(r.event for r in self._queue):
            self.terminal.parts.events.waiting = bool(self.terminal.parts.told)
        return True

    def lost(self) -> None:
        """The link went down: what was sent without an answer is sent again after the next login."""
        for report in self._queue:
            report.sent_us = None

    @property
    def deadline_us(self) -> int | None:
        """When a confirmation is overdue."""
        sent = self._queue[0].sent_us if self._queue else None
        return None if sent is None else sent + self.terminal.parts.settings.uplink().timeout_s * 1_000_000

    def _collect(self, now_us: int) -> None:
        parts = self.terminal.parts
        while parts.told:
            self._event(parts.told.pop(0))
        while self.terminal.tasks.due:
            self._task(self.terminal.tasks.due.pop(0), now_us)

    def _event(self, index: int) -> None:
        events = self.terminal.parts.events
        waiting = events.waiting
        found = events.read(index, (index + 1) % DEPTH, important=True)
        events.waiting = waiting
        if found is None:
            return
        ec1, ec2 = events.counters
        data: dict[str, object] = {
            "ec1": ec1, "ec2": ec2, "pm": found.start, "pn": found.end, "events": list(found.records),
        }  # fmt: skip
        self._add(0x0E, [DataUnit(0, 1, data)], event=True)

    def _task(self, due: Due, now_us: int) -> None:
        afn = 0x0C if due.data_class == 1 else 0x0D
        at = now_us if due.data_class == 1 else due.at_us
        asked = task_units(self.terminal, due.data_class, due.number, at)
        units = self.read(afn, asked, now_us)
        if units:
            self._add(afn, units)

    def _add(self, afn: int, units: Sequence[DataUnit], *, event: bool = False) -> None:
        uplink = self.terminal.parts.settings.uplink()
        con = bool(uplink.con_flags & CON_OF[afn])
        events = self.terminal.parts.events
        ec = events.counters if events.waiting else None
        message = Message(
            up=True, prm=True, function=10 if con else 4, address=msgspec.structs.replace(self.address, msa=0), afn=afn,
            seq=self.next_pfc() & 15, units=tuple(units), con=con, acd=ec is not None, ec=ec, pw=b"",
            protocol_id=self.edition.protocol_id,
        )  # fmt: skip
        frames = split(message, self.terminal.options.buffer, self.edition)
        self._queue.append(_Report(frames, uplink.retries if con else 0, event=event))
