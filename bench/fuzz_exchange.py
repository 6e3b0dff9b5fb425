"""Fuzz of whole conversations with a terminal: any answers to each duty's questions, also those of a meter behind it.

An input is what comes back to one question: the bytes themselves; or, with the right address and number, a frame with
this user data; or a frame whose data units are those asked for and hold the input. A conversation must end within its
budget, hold little, and what it read must go into the journal and come back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle
from typing import Any, Final

from fuhe.acquisition.clock_rules import suspect_spans
from fuhe.acquisition.profile import Profile
from fuhe.acquisition.profiles import load_profiles
from fuhe.acquisition.sessions import Carrier, open_exchange, open_relayed
from fuhe.acquisition.terminal import TerminalSession, TerminalSettings, require_address
from fuhe.model.devices import Credentials, Device, Point
from fuhe.model.times import US, from_us
from fuhe.model.work import Duty, Exchange, Priority, Status, WorkItem
from fuhe.protocols.qgdw1376.dadt import single
from fuhe.protocols.qgdw1376.edition import edition
from fuhe.protocols.qgdw1376.frame import Frame, cut
from fuhe.protocols.qgdw1376.message import Message, parse
from fuhe.storage.batches import decode_record, encode_batches

ADDRESS: Final = "3301-4660"
NOW_US: Final = 1_790_000_000_000_000
QUESTIONS: Final = 400  # more of them in one conversation would be a hang
HELD: Final = 8192  # bytes of the framer between two inputs
_POINTS: Final = (
    Point(id=71, name="a", pn=1),
    Point(id=72, name="b", pn=2),
    Point(id=75, name="g", pn=1, kind="group"),
)
_DEVICE: Final = Device(id=5, name="t1", link="l", profile="t", address=ADDRESS, points=_POINTS)
_METER: Final = Device(
    id=9, name="m", link="l", profile="dlt645-2007-3p4w", address="202600000017", points=_POINTS[:1],
    options={"via": "t1", "port": "2"},
)  # fmt: skip
_DAY: Final = (NOW_US - 86_400 * US, NOW_US)
_WORK: Final[tuple[tuple[Duty, dict[str, Any]], ...]] = (
    (Duty.LIVE, {}), (Duty.CURVE, {"window_us": _DAY}), (Duty.DAILY, {"window_us": _DAY}),
    (Duty.MONTHLY, {"window_us": _DAY}), (Duty.EVENT, {}), (Duty.PARAMETER, {}), (Duty.CLOCK, {}),
    (Duty.CLOCK, {"items": ("set-supervised",)}), (Duty.PROBE, {}),
    (Duty.LIVE, {"items": ("0C:F33", "0C:F34", "0C:F129", "0C:F2", "0C:F7", "0C:F10", "0C:F57")}),
)  # fmt: skip


@cache
def _profiles() -> dict[str, Profile]:
    return load_profiles(None)


def _openings() -> list[Callable[[], tuple[Exchange, TerminalSession]]]:
    """One way to begin for each duty and edition, and for a meter behind a terminal."""

    def session(year: str) -> TerminalSession:
        settings = TerminalSettings(edition=year, msa=2, tp="never", pw_length=edition(year).pw_length)
        known = TerminalSession(address=require_address(ADDRESS), settings=settings)
        known.suspect = suspect_spans("202609211015-202609211030")
        known.ec1, known.ec2, known.ec1_read = 9, 3, 250
        return known

    def work(device: Device, duty: Duty, more: dict[str, Any]) -> WorkItem:
        return WorkItem(device=device.id, duty=duty, priority=Priority.LIVE, expires_s=1e9, **more)

    def begin(year: str, duty: Duty, more: dict[str, Any]) -> tuple[Exchange, TerminalSession]:
        known = session(year)
        profile = _profiles()[f"qgdw1376-{year}"]
        return open_exchange(_DEVICE, profile, work(_DEVICE, duty, more), Credentials(), session=known), known

    def relay(duty: Duty) -> tuple[Exchange, TerminalSession]:
        known, meter, item = session("2013"), _profiles()[_METER.profile], work(_METER, duty, {})
        carrier = Carrier(_DEVICE, _profiles()["qgdw1376-2013"], Credentials(), known)
        return open_relayed(_METER, meter, item, Credentials(), carrier), known

    found: list[Callable[[], tuple[Exchange, TerminalSession]]] = []
    for year in ("2013", "2009", "2005"):
        for duty, more in _WORK:
            if duty is Duty.CURVE or more.get("items") or duty in _profiles()[f"qgdw1376-{year}"].read:
                found.append(lambda year=year, duty=duty, more=more: begin(year, duty, more))  # type: ignore[misc]
    found += [lambda: relay(Duty.LIVE), lambda: relay(Duty.DAILY)]
    return found


@dataclass(slots=True)
class ExchangeProbe:
    """One conversation after the other; every input is what the field says to the question at hand."""

    counts: dict[str, int] = field(default_factory=lambda: {"inputs": 0, "frames": 0, "refused": 0, "batches": 0})
    _openings: Any = field(default_factory=lambda: cycle(_openings()))
    _exchange: Exchange | None = None
    _session: TerminalSession | None = None
    _question: Message | None = None
    _asked: int = 0
    _now_us: int = NOW_US

    def put(self, data: bytes, bits: int) -> None:
        """Ask if nothing is asked, then hear the input (whole, or in two pieces)."""
        self.counts["inputs"] += 1
        if self._exchange is None:
            self._exchange, self._session = next(self._openings)()
            self._asked, self._question = 0, None
        if self._question is None and not self._ask():
            return
        assert self._exchange is not None and self._question is not None
        said = self._said(self._question, data, bits)
        cut_at = (bits >> 8) % (len(said) + 1)
        self._now_us += (bits & 3) * 300_000
        done = self._exchange.receive(said[:cut_at], self._now_us)
        done = self._exchange.receive(said[cut_at:], self._now_us) or done
        if len(getattr(self._exchange, "_framer", b"")) > HELD:
            raise AssertionError("the conversation hoards bytes")
        if done:
            self.counts["frames"] += 1
            self._question = None
        elif bits >> 30 & 1:
            self._now_us += 10 * US
            self._exchange.silence(self._now_us)
            self._question = None

    def _ask(self) -> bool:
        """The next question; False when the conversation is over (and was looked at)."""
        assert self._exchange is not None
        while (request := self._exchange.next_request(self._now_us)) is not None:
            self._asked += 1
            if self._asked > QUESTIONS:
                raise AssertionError("no end of questions")
            if not request.no_reply:
                frames, skipped = cut(request.data)
                if len(frames) != 1 or skipped:
                    raise AssertionError(f"a request that is none: {request.data.hex()}")
                self._question = parse(frames[0], edition(_year(self._session)))
                return True
        self._look()
        self._exchange = None
        return False

    def _said(self, question: Message, data: bytes, bits: int) -> bytes:
        kind = bits >> 24 & 7
        if kind == 0 or not question.prm:
            return data
        if kind <= 2:
            user = data[1:]
            if kind == 2 and len(user) >= 2:
                user = bytes((question.afn, 0x60 | question.seq)) + user[2:]
            return self._frame(data[0] if data and kind == 1 else 0x88, user)
        units, body = list(question.units), data or b"\0"
        if kind == 3:
            units = units[::-1]
        user = bytes((question.afn, (0x60, 0x60, 0x60, 0x60, 0x40, 0x20)[kind - 2] | question.seq))
        for i, unit in enumerate(units[: 1 + (bits >> 16 & 15)]):
            user += single(unit.pn, unit.fn) + body[i % len(body) :]
        return self._frame(0x88, user[:1500])

    def _frame(self, control: int, user: bytes) -> bytes:
        assert self._question is not None
        return Frame(control, self._question.address, user, edition(_year(self._session)).protocol_id).encode()

    def _look(self) -> None:
        """The end of a conversation: its status, and that the journal takes and gives what it read."""
        assert self._exchange is not None
        outcome = self._exchange.outcome(self._now_us)
        if outcome.status not in Status or self._exchange.next_request(self._now_us) is not None:
            raise AssertionError("an end that is none")
        if outcome.stored is not None:
            outcome.stored()
        if outcome.status in (Status.REFUSED, Status.SILENT, Status.BROKEN):
            self.counts["refused"] += 1
        if outcome.batch is None:
            return
        self.counts["batches"] += 1
        decode_record(encode_batches([outcome.batch]))
        for event in outcome.batch.events:
            from_us(event.time_us), from_us(event.end_us or 0)
        texts = [f"{e.code}{e.data}" for e in outcome.batch.events] + [p.value for p in outcome.batch.parameters]
        if any("\0" in text or "\\x00" in text for text in texts):
            raise AssertionError("a text that the database cannot hold")


def _year(session: TerminalSession | None) -> str:
    assert session is not None
    return session.settings.edition
