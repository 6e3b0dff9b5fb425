"""Shared small parts of these tests: a toy protocol over any line, devices, items, sinks."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from fuhe.acquisition import sessions
from fuhe.acquisition.arbiter import Entry
from fuhe.acquisition.io.clock import SystemClock
from fuhe.acquisition.link import Line, LinePolicy, Station
from fuhe.acquisition.profile import Profile, Timing
from fuhe.acquisition.quarantine import Quarantine
from fuhe.model.control import ControlAnswer
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.quality import Quality, Source
from fuhe.model.readings import ReadingBatch, samples_from_rows
from fuhe.model.work import Duty, Outcome, Priority, Request, Status, WorkItem


class ToyExchange:
    """`?<address>.<n>\\n` is answered by `!<address>.<n>\\n`; `steps` requests, each tried 1 + retries times."""

    def __init__(self, device: Device, item: WorkItem, steps: int, retries: int) -> None:
        self.device, self.item, self.steps, self.retries = device, item, steps, retries
        self.step = self.tries = self.answered = self.handed = 0
        self.failed = False
        self.buffer = b""

    def next_request(self, now_us: int) -> Request | None:
        if self.step >= self.steps or self.failed:
            return None
        self.buffer = b""
        self.handed += 1
        verb = b"W" if self.item.action else b"?"
        return Request(data=verb + f"{self.device.address}.{self.step}\n".encode(), reply_bytes=8)

    def receive(self, data: bytes, now_us: int) -> bool:
        self.buffer += data
        if f"!{self.device.address}.{self.step}\n".encode() not in self.buffer:
            return False
        self.step, self.tries, self.answered = self.step + 1, 0, self.answered + 1
        return True

    def silence(self, now_us: int) -> None:
        self.tries += 1
        self.failed = self.tries > self.retries

    def outcome(self, now_us: int) -> Outcome:
        rows = [
            (now_us + i, self.device.id, 1, float(i), int(Quality.A), int(Source.LIVE)) for i in range(self.answered)
        ]
        done = self.step >= self.steps
        status = Status.DONE if done else Status.PARTIAL if self.answered else Status.SILENT
        batch = ReadingBatch(received_us=now_us, samples=samples_from_rows(rows)) if rows else None
        answer = None
        if self.item.action:
            answer = ControlAnswer(action_id=self.item.action.id, sent=self.handed > 0, acknowledged=done or None)
        return Outcome(status=status, batch=batch, answer=answer)


class MemorySink:
    """Keeps what was delivered; `gate` (an asyncio.Event) holds deliveries back, `error` is raised."""

    def __init__(self) -> None:
        self.batches: list[ReadingBatch] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    async def deliver(self, batch: ReadingBatch) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.batches.append(batch)

    @property
    def values(self) -> int:
        return sum(b.value_count for b in self.batches)


PROFILE = Profile(
    name="toy", title_en="toy", title_zh="toy", protocol="dlt645", timing=Timing(reply_timeout_s=0.2, inter_byte_s=0.1)
)


def make_device(number: int, link: str = "line", **options: str) -> Device:
    point = Point(id=number, name=f"p{number}")
    return Device(
        id=number, name=f"d{number}", link=link, profile="toy", address=f"{number}", points=(point,), options=options
    )


def make_station(number: int, **changes: float) -> Station:
    values: dict[str, Any] = {
        "byte_s": 11 / 9600, "reply_timeout_s": 0.5, "inter_byte_s": 0.5, "turnaround_s": 0.025, **changes
    }  # fmt: skip
    return Station(device=make_device(number), profile=PROFILE, wire="toy", **values)


def make_item(device: int, priority: Priority = Priority.SCHEDULED, **changes: Any) -> WorkItem:
    values: dict[str, Any] = {"duty": Duty.LIVE, "expires_s": math.inf, **changes}
    return WorkItem(device=device, priority=priority, **values)


def make_line(stations: int = 3, *, steps: int = 1, retries: int = 2, policy: LinePolicy | None = None) -> Line:
    def opener(station: Station, item: WorkItem) -> ToyExchange:
        wanted = int(item.items[0]) if item.items and item.items[0].isdigit() else steps
        return ToyExchange(station.device, item, wanted, retries)

    line = Line("line", policy or LinePolicy(), opener, Quarantine(Random(1)))
    line.set_stations({n: make_station(n) for n in range(1, stations + 1)}, 0)
    return line


@pytest.fixture
def kit() -> SimpleNamespace:
    """The makers above."""
    return SimpleNamespace(
        ToyExchange=ToyExchange, MemorySink=MemorySink, PROFILE=PROFILE, device=make_device, station=make_station,
        item=make_item, line=make_line, Entry=lambda item, now_s: Entry(item, item.key, now_s), clock=SystemClock(),
        credentials=lambda device: Credentials(),
    )  # fmt: skip


@pytest.fixture
def toy_sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """The engine's exchanges are toys; steps and retries may be changed by the test."""
    settings = {"steps": 1, "retries": 0}

    def open_toy(
        device: Device, profile: Profile, item: WorkItem, credentials: Credentials, session: object = None
    ) -> ToyExchange:
        return ToyExchange(device, item, settings["steps"], settings["retries"])

    monkeypatch.setattr("fuhe.acquisition.io.engine.open_exchange", open_toy)
    assert sessions.open_exchange is not open_toy
    yield settings
