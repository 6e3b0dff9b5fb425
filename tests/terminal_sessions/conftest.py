"""A terminal of paper: hand-made frames, and a responder that answers requests from a table, with faults to order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from fuhe.acquisition.profile import Profile, TerminalPlan, Timing
from fuhe.acquisition.sessions import open_exchange
from fuhe.acquisition.terminal import TerminalSession, TerminalSettings, require_address
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.times import US, business_to_us
from fuhe.model.work import Duty, Outcome, Priority, Request, WorkItem
from fuhe.protocols.qgdw1376.edition import edition
from fuhe.protocols.qgdw1376.frame import Frame, cut
from fuhe.protocols.qgdw1376.message import Message, build, parse
from fuhe.protocols.qgdw1376.units import Unit

NOW = datetime(2026, 5, 20, 10, 7, 3)  # noqa: DTZ001 - the terminals' clock
NOW_US = business_to_us(NOW)
ADDRESS = "3301-4660"
EDITION = edition("2013")
DEVICE = Device(
    id=5, name="t1", link="l", profile="t", address=ADDRESS,
    points=(Point(id=71, name="a", pn=1), Point(id=72, name="b", pn=2), Point(id=75, name="g", pn=1, kind="group")),
)  # fmt: skip
Answerer = Callable[[Message], Iterable[Message]]


def settings(**changes: object) -> TerminalSettings:
    """As the engine makes them of profile and device."""
    given = {"edition": "2013", "msa": 1, "tp": "never", **changes}
    return msgspec.convert(given, TerminalSettings)


def session(**changes: object) -> TerminalSession:
    """A terminal's session without memory."""
    return TerminalSession(address=require_address(ADDRESS), settings=settings(**changes))


def profile(**changes: object) -> Profile:
    """A profile with two retries."""
    given: dict[str, object] = {
        "name": "t", "title_en": "t", "title_zh": "t", "protocol": "qgdw1376", "version": "2013", "max_points": 2040,
        "timing": Timing(retries=2, reply_timeout_s=10), "terminal": TerminalPlan(), **changes,
    }  # fmt: skip
    return Profile(**given)  # type: ignore[arg-type]


def item(duty: Duty, **more: object) -> WorkItem:
    """A work item."""
    return WorkItem(device=5, duty=duty, priority=Priority.LIVE, expires_s=1e9, **more)  # type: ignore[arg-type]


def asked(data: bytes) -> Message:
    """The message of a request that was sent."""
    frames, skipped = cut(data)
    assert len(frames) == 1 and not skipped, data.hex()
    return parse(frames[0], EDITION)


def answer(
    to: Message, units: Sequence[Unit], *, afn: int | None = None, part: int = 0, last: bool = True, **more: object
) -> Message:
    """Part `part` (from 0) of the answer to a request."""
    given: dict[str, object] = {
        "up": True, "prm": False, "function": 8, "address": to.address, "afn": to.afn if afn is None else afn,
        "seq": (to.seq + part) % 16, "units": tuple(units), "fir": part == 0, "fin": last, "tp": to.tp,
        "protocol_id": to.protocol_id, **more,
    }  # fmt: skip
    return Message(**given)  # type: ignore[arg-type]


def deny(to: Message) -> Message:
    """AFN 00 F2."""
    return answer(to, (Unit(0, 2, {}),), afn=0, function=9)


def confirm(to: Message) -> Message:
    """AFN 00 F1."""
    return answer(to, (Unit(0, 1, {}),), afn=0, function=0)


def wire(*messages: Message) -> bytes:
    """Bytes of messages."""
    return b"".join(build(m, EDITION).encode() for m in messages)


@dataclass
class Paper:
    """Answers what its table holds, unit by unit: (AFN, pn, Fn) -> data, or a function of the request's data."""

    content: dict[tuple[int, int, int], object] = field(default_factory=dict)
    limit: int = 100  # units a frame
    con: bool = False
    seen: list[Message] = field(default_factory=list)

    def __call__(self, request: Message) -> list[Message]:
        self.seen.append(request)
        units = []
        for unit in request.units:
            held = self.content.get((request.afn, unit.pn, unit.fn))
            data = held(unit.data) if callable(held) else held
            if isinstance(data, Mapping):
                units.append(Unit(unit.pn, unit.fn, dict(data)))
        if not units:
            return [deny(request)]
        runs = [units[i : i + self.limit] for i in range(0, len(units), self.limit)]
        return [answer(request, run, part=i, last=i == len(runs) - 1, con=self.con) for i, run in enumerate(runs)]


def talk(
    work: WorkItem,
    terminal: Answerer,
    *,
    with_profile: Profile | None = None,
    with_session: TerminalSession | None = None,
    device: Device = DEVICE,
    now_us: int = NOW_US,
    trip_s: float = 0.2,
    chunk: int = 7,
    limit: int = 3000,
) -> tuple[Outcome, list[Request]]:
    """Carry out a work item; every request takes `trip_s`; answers come in chunks of `chunk` bytes."""
    exchange = open_exchange(device, with_profile or profile(), work, Credentials(), session=with_session or session())
    sent: list[Request] = []
    for _ in range(limit):
        request = exchange.next_request(now_us)
        if request is None:
            return exchange.outcome(now_us), sent
        sent.append(request)
        message = asked(request.data)
        if request.no_reply:
            continue
        now_us += int(trip_s * US)
        data = wire(*terminal(message)) if message.afn or message.prm else b""
        done = [exchange.receive(data[i : i + chunk], now_us) for i in range(0, len(data), chunk)]
        if not any(done):
            now_us += 10 * US
            exchange.silence(now_us)
    raise AssertionError("the exchange does not end")


def frames_of(data: bytes) -> list[Frame]:
    """The frames of bytes that hold nothing else."""
    frames, skipped = cut(data)
    assert not skipped
    return frames
