"""What the master station remembers of one Q/GDW 376.1 / 1376.1 terminal between conversations. Pure; time an argument.

A `TerminalSession` belongs to the terminal's `Station` and outlives its connections. Exchanges take the numbers of a
new frame from it (`begin`) and tell it what they have read (`events_read`, `was_reset`). The demultiplexer in front of
the line tells it what every frame of the terminal says beside its data (ACD, event counters, clock, login); exchanges
need not. Not for bytes (protocols/qgdw1376) nor for what is asked when (sessions/qgdw1376.py).

Frame numbers (Q/GDW 376.1 clause 4.3): PFC counts newly initiated frames, PSEQ is its low half, repeats keep both and
the frame count bit (FCB); the k-th frame of an answer carries RSEQ = PSEQ + k.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Flag
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from ..model.times import BUSINESS_ZONE, US, business_to_us, from_us
from ..protocols.common.errors import UsageError

HOUR_US: Final = 3600 * US
DENIAL_US: Final = 24 * HOUR_US
"""So long a terminal's no to a read counts: the same is not asked again (events: unless their counter moves)."""
_DECIMAL: Final = re.compile(r"([0-9]{4})-([0-9]{1,5})")
_HEX: Final = re.compile(r"([0-9]{4})([0-9A-Fa-f]{4})")


class TerminalAddress(NamedTuple):
    """Administrative code A1 (4 digits) and terminal address A2 (1 to 65535)."""

    a1: str
    a2: int

    @property
    def decimal(self) -> str:
        """The canonical form, "3301-4660": A2 as a decimal number."""
        return f"{self.a1}-{self.a2}"

    @property
    def hexadecimal(self) -> str:
        """The other form on paper, "33011234": A2 as four hexadecimal digits."""
        return f"{self.a1}{self.a2:04X}"


def parse_address(text: str) -> TerminalAddress | None:
    """An address in either form; None when it is neither, or A2 is 0."""
    if found := _DECIMAL.fullmatch(text):
        a2 = int(found[2])
    elif found := _HEX.fullmatch(text):
        a2 = int(found[2], 16)
    else:
        return None
    return TerminalAddress(found[1], a2) if 1 <= a2 <= 0xFFFF else None


class Events(Flag):
    """Kinds of events that wait to be read: important ones (AFN 0E F1), ordinary ones (F2)."""

    NONE = 0
    IMPORTANT = 1
    ORDINARY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalSettings:
    """How a terminal is spoken to: its profile's [terminal] section, with the link's and the device's own settings.

    edition: 2005 | 2009 | 2013; pw_length: bytes of PW; msa: our master station address; fcv: requests carry a valid
    frame count bit; con: reads ask for CON as well; tp: which requests carry a time tag, tp_delay_min its permitted
    delay; auth: name of the PW provider; max_bytes: longest user data (L1) we send; heartbeat_s: period agreed on.
    """

    edition: str = "2009"
    protocol_id: int = 2
    pw_length: int = 16
    msa: int = 1
    fcv: bool = False
    con: bool = False
    tp: Literal["never", "control", "always"] = "control"
    tp_delay_min: int = 5
    auth: str = "cleartext"
    max_bytes: int = 16383
    heartbeat_s: int = 900


class Traffic(NamedTuple):
    """Traffic of a terminal in a calendar month (202611)."""

    month: int
    rx_bytes: int
    tx_bytes: int
    rx_frames: int
    tx_frames: int


class Stamp(NamedTuple):
    """The numbers of a newly initiated frame; its repeats carry the same."""

    pfc: int
    fcb: bool
    fcv: bool

    @property
    def pseq(self) -> int:
        """PSEQ of the request and RSEQ of the first frame of its answer."""
        return self.pfc & 0x0F

    def rseq(self, part: int) -> int:
        """RSEQ of frame `part` (from 0) of the answer."""
        return (self.pfc + part) & 0x0F


@dataclass(slots=True, kw_only=True, eq=False)
class TerminalSession:
    """See the module. Instants are UTC µs of our clock; event counters run 0 to 255 and point at the next free index.

    ec1, ec2: last counters seen; ec1_read, ec2_read: where reading goes on (None: nothing was read yet); acd: the
    terminal says that important events wait. clock_offset_s: terminal's clock minus ours as last told, at clock_us.
    suspect: labels [from, to) that clock sets have doubled or lost.
    logged_in: None = no login seen in this connection. report_key, report_stored: the last report that it sent unasked,
    and whether it is on the disk. Traffic, since it was last handed on (`take_traffic`), in the calendar month `month`
    (202611). connects, replaced, moved: connections, those that took another's place, changes of a UDP peer's address.
    no_events: memories whose newest record was denied, with (counter then, instant); no_items: data units (AFN, pn, Fn)
    that the terminal denied when asked for alone, with the instant.
    """

    address: TerminalAddress
    settings: TerminalSettings
    next_pfc: int = 0
    fcb: bool = False
    logged_in: bool | None = None
    acd: bool = False
    ec1: int | None = None
    ec2: int | None = None
    ec1_read: int | None = None
    ec2_read: int | None = None
    clock_us: int | None = None
    clock_offset_s: float | None = None
    suspect: tuple[tuple[int, int], ...] = ()
    heard_us: int | None = None
    report_key: int = 0
    report_stored: bool = False
    month: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_frames: int = 0
    tx_frames: int = 0
    connects: int = 0
    replaced: int = 0
    moved: int = 0
    moved_us: int | None = None
    online_us: int | None = None
    finished: tuple[Traffic, ...] = ()
    no_events: dict[Events, tuple[int, int]] = field(default_factory=dict)
    no_items: dict[tuple[int, int, int], int] = field(default_factory=dict)

    # -- for exchanges ------------------------------------------------------------------------------------------------

    def begin(self, *, fcv: bool | None = None) -> Stamp:
        """Numbers of a new frame to this terminal (never for a repeat). fcv None: as the settings say."""
        valid = self.settings.fcv if fcv is None else fcv
        if valid:
            self.fcb = not self.fcb
        stamp = Stamp(self.next_pfc, self.fcb if valid else False, valid)
        self.next_pfc = (self.next_pfc + 1) & 0xFF
        return stamp

    def was_reset(self) -> None:
        """The terminal has confirmed a reset command: its stored FCB is 0 now."""
        self.fcb = False
        self.forget_denials()

    def tags(self, *, control: bool) -> bool:
        """Whether a request of this kind carries a time tag."""
        return self.settings.tp == "always" or (control and self.settings.tp == "control")

    def wall(self, now_us: int) -> datetime:
        """Our clock as the terminals' naive local time, for time tags and clock settings."""
        return from_us(now_us).astimezone(BUSINESS_ZONE).replace(tzinfo=None)

    def waiting(self) -> Events:
        """What there is to read by the counters as far as they were seen."""
        found = Events.NONE
        if not self.acd and self.ec1 is None:
            return found
        if self.acd or (self.ec1 is not None and self.ec1 != self.ec1_read):
            found |= Events.IMPORTANT
        if self.ec2 is not None and self.ec2 != self.ec2_read:
            found |= Events.ORDINARY
        for kind in self.no_events:
            found &= ~kind
        return found

    def events_read(self, kind: Events, start: int, end: int) -> None:
        """Events [start, end) were read and stored (pointers of AFN 0E); behind a hole they do not count."""
        place = self.ec1_read if kind is Events.IMPORTANT else self.ec2_read
        if place is not None and place != start:
            return
        if kind is Events.IMPORTANT:
            self.ec1_read = end
            self.acd = self.acd and end != self.ec1
        else:
            self.ec2_read = end

    def events_denied(self, kind: Events, counter: int, now_us: int) -> None:
        """The terminal denies its newest event of a kind: there is nothing to ask for until its counter moves."""
        self.no_events[kind] = (counter, now_us)

    def denies_events(self, kind: Events, counter: int, now_us: int) -> bool:
        """Whether the events of a kind were denied with this counter, not longer than DENIAL_US ago."""
        self._forget_events(kind, counter, now_us)
        return kind in self.no_events

    def denies(self, key: tuple[int, int, int], now_us: int) -> bool:
        """Whether a data unit (AFN, pn, Fn) was denied not longer than DENIAL_US ago."""
        return key in self.no_items and abs(now_us - self.no_items[key]) < DENIAL_US

    def forget_denials(self) -> None:
        """Its settings were changed: what it had nothing to say about may exist now."""
        self.no_items.clear()
        self.no_events.clear()

    def remember(self, ec1: int | None, ec2: int | None) -> None:
        """Where reading went on in an earlier life of the program, unless it is known already."""
        self.ec1_read = ec1 if self.ec1_read is None else self.ec1_read
        self.ec2_read = ec2 if self.ec2_read is None else self.ec2_read

    def goes_on(self, kind: Events, start: int) -> bool:
        """Whether events from `start` on, reported unasked, follow on those that were read."""
        return start == (self.ec1_read if kind is Events.IMPORTANT else self.ec2_read)

    # -- for the demultiplexer ----------------------------------------------------------------------------------------

    def saw(self, acd: bool, ec: tuple[int, int] | None, now_us: int) -> Events:
        """A frame of the terminal came; the kinds of events that have newly begun to wait."""
        self.heard_us = now_us
        if not acd and ec is None:
            return Events.NONE
        before = self.waiting()
        if acd:
            self.acd = True
        if ec is not None:
            before &= ~self._moved(ec)
            self.ec1, self.ec2 = ec
            self._forget_events(Events.IMPORTANT, ec[0], now_us)
            self._forget_events(Events.ORDINARY, ec[1], now_us)
        return self.waiting() & ~before

    def _forget_events(self, kind: Events, counter: int, now_us: int) -> None:
        known = self.no_events.get(kind)
        if known is not None and (known[0] != counter or abs(now_us - known[1]) >= DENIAL_US):
            del self.no_events[kind]

    def saw_clock(self, wall: datetime, now_us: int) -> None:
        """The terminal told its clock (naive local time)."""
        self.clock_us, self.clock_offset_s = now_us, (business_to_us(wall) - now_us) / US

    def report_done(self, key: int, *, stored: bool) -> None:
        """The report with this key was stored, or could not be: then its repeat is looked at again."""
        if key == self.report_key:
            self.report_stored = stored
            if not stored:
                self.report_key = 0

    def connected(self, now_us: int) -> None:
        """A new connection: the terminal logs in again."""
        self.connects += 1
        self.logged_in = None
        self.online_us = now_us

    def take_over(self, older: TerminalSession) -> None:
        """The archive entry changed, the terminal did not: what is known of it stays."""
        for name in _MEMORY:
            setattr(self, name, getattr(older, name))

    # -- traffic ------------------------------------------------------------------------------------------------------

    def received(self, size: int, now_us: int) -> None:
        """A frame of `size` bytes came (bytes of the protocol; the network's headers are not counted)."""
        self._turn_month(now_us)
        self.rx_frames += 1
        self.rx_bytes += size

    def sent(self, size: int, now_us: int) -> None:
        """A frame of `size` bytes went out."""
        self._turn_month(now_us)
        self.tx_frames += 1
        self.tx_bytes += size

    def take_traffic(self, now_us: int) -> list[Traffic]:
        """What has run up since the last call, by month; the counters begin anew."""
        self._turn_month(now_us, finish=True)
        done, self.finished = self.finished, ()
        return list(done)

    def give_back(self, traffic: Iterable[Traffic]) -> None:
        """It could not be written: it is taken again later."""
        self.finished = (*traffic, *self.finished)

    def _turn_month(self, now_us: int, *, finish: bool = False) -> None:
        month = month_of(now_us // HOUR_US)
        if month == self.month and not finish:
            return
        if self.rx_frames or self.tx_frames:
            traffic = Traffic(self.month, self.rx_bytes, self.tx_bytes, self.rx_frames, self.tx_frames)
            self.finished = (*self.finished, traffic)
        self.month, self.rx_bytes, self.tx_bytes, self.rx_frames, self.tx_frames = month, 0, 0, 0, 0

    def _moved(self, ec: tuple[int, int]) -> Events:
        moved = Events.NONE
        if ec[0] != self.ec1:
            moved |= Events.IMPORTANT
        if ec[1] != self.ec2:
            moved |= Events.ORDINARY
        return moved


_MEMORY: Final = tuple(name for name in TerminalSession.__dataclass_fields__ if name not in ("address", "settings"))


@lru_cache(maxsize=64)
def month_of(hour: int) -> int:
    """Calendar month, as 202611, of an hour counted from 1970 UTC (the business zone is a whole number of hours)."""
    local = from_us(hour * HOUR_US).astimezone(BUSINESS_ZONE)
    return local.year * 100 + local.month


def require_address(text: str) -> TerminalAddress:
    """`parse_address`, or a UsageError that says how an address is written."""
    address = parse_address(text)
    if address is None:
        raise UsageError(f"{text!r} is no terminal address: write 3301-4660 (decimal) or 33011234 (hexadecimal)")
    return address
