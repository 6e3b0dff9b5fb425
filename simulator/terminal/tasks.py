"""Report tasks (F65–F68): when the next report is due. What it holds is `application`'s concern."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from .parts import Parts
from .settings import Task

CLASSES: Final[dict[int, tuple[int, int]]] = {1: (65, 67), 2: (66, 68)}
"""Class of data -> (Fn of the task, Fn of its switch)."""
BACKLOG: Final = 512


@dataclass(frozen=True, slots=True)
class Due:
    """A report that is due: its class of data, task number and the instant for which it is made."""

    data_class: int
    number: int
    at_us: int


@dataclass(slots=True)
class Tasks:
    """Reports wait in `due` until the link can take them; the oldest are given up past BACKLOG."""

    parts: Parts
    due: list[Due] = field(default_factory=list)
    _next: dict[tuple[int, int], tuple[Task, datetime]] = field(default_factory=dict)

    def step(self, now_us: int) -> None:
        """Look for tasks whose time has come (by the terminal's clock)."""
        local = self.parts.local(now_us)
        settings = self.parts.settings
        for data_class, (fn, switch) in CLASSES.items():
            for number in settings.task_numbers(fn):
                task = settings.task(fn, number)
                key = (data_class, number)
                if task is None or not settings.task_runs(switch, number):
                    self._next.pop(key, None)
                    continue
                known = self._next.get(key)
                if known is None or known[0] != task:
                    self._next[key] = (task, next_time(task, local - timedelta(minutes=1)))
                    continue
                when = known[1]
                if when <= local:
                    self.due.append(Due(data_class, number, now_us))
                    del self.due[:-BACKLOG]
                    self._next[key] = (task, next_time(task, local))

    def restart(self) -> None:
        """After a restart tasks are looked up anew; reports that were waiting stay in memory."""
        self._next.clear()


def next_time(task: Task, after: datetime) -> datetime:
    """The first instant of the task after `after`: base time plus whole periods."""
    if task.unit == "month":
        months = (after.year - task.base.year) * 12 + after.month - task.base.month
        steps = max(months // task.period, 0)
        while (when := _add_months(task.base, steps * task.period)) <= after:
            steps += 1
        return when
    width = task.period * {"min": 60, "hour": 3_600, "day": 86_400}[task.unit]
    gone = (after - task.base).total_seconds()
    return task.base + timedelta(seconds=(int(gone // width) + 1) * width if gone >= 0 else 0)


def _add_months(base: datetime, months: int) -> datetime:
    month = base.year * 12 + base.month - 1 + months
    for day in range(base.day, 27, -1):
        try:
            return base.replace(year=month // 12, month=month % 12 + 1, day=day)
        except ValueError:
            continue
    return base.replace(year=month // 12, month=month % 12 + 1)
