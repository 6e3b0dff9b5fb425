"""One request to a Q/GDW 1376.1 terminal and everything that may answer it (SEQ, FIR/FIN, CON, AFN 00). Pure.

    Ask --begin--> bytes (PSEQ, FCB, Tp, PW)
    Frame --take--> OTHER   not of this conversation: late, another master's, another terminal's
                    UNASKED the terminal speaks by itself (PRM = 1): the session's matter
                    MORE    a part of the answer, or a repeat of one
                    DONE    the answer is whole

Parts of an answer (FIR … FIN) come in any order, doubled or not at all; each repeats its own identifiers, so whatever
came is of use. Matching: terminal, MSA, AFN of the request or 00, RSEQ = PSEQ, one more for each further part. A peer
whose numbers are its own is known by the Tp that it copied, or by the profile's quirk `rseq = any`. Nothing here is
decoded but what the matching needs: units come from `Answer.units()`, or curves straight from `Answer.frames`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from ...model.devices import Credentials
from ...protocols.common.errors import PeerError
from ...protocols.qgdw1376.auth import AuthProvider
from ...protocols.qgdw1376.edition import Edition, edition
from ...protocols.qgdw1376.frame import Address, Frame
from ...protocols.qgdw1376.message import Message, Tp, build, parse
from ...protocols.qgdw1376.units import Unit
from ..auth_providers import provider
from ..terminal import Stamp, TerminalSession

Key = tuple[int, int]
"""(pn, Fn): what a data unit is about."""

MAX_PARTS: Final = 256
MAX_BYTES: Final = 1 << 20
"""Of one answer; a terminal that sends more is broken, and what it sent so far counts."""

CONFIRM: Final = 0x00
RESET, CLASS_1, CLASS_2 = 1, 10, 11  # function codes: reset, send/confirm, request/response
CONTROLS: Final = frozenset((0x01, 0x04, 0x05, 0x0F))
"""AFNs that change something: they carry a time tag where control commands do (setting tp = control)."""
CONFIRMED: Final = frozenset((0x01, 0x04, 0x05))
"""AFNs whose answer is AFN 00; to any other request AFN 00 F1 is no answer yet."""
_ALL_CONFIRMED: Final = b"\x00\x00\x01\x00"
_FUNCTION: Final = {0x01: RESET, 0x04: CLASS_1, 0x05: CLASS_1, 0x0F: CLASS_1}
_WINDOW: Final = 8  # how far apart two parts may come, of the 16 numbers that RSEQ has


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The terminal as a transaction needs it: its session (numbers, settings), edition, and who makes PW.

    any_rseq: answers are taken whatever their RSEQ (quirk `rseq = any`): for terminals that count for themselves.
    """

    session: TerminalSession
    edition: Edition
    auth: AuthProvider
    any_rseq: bool = False

    @property
    def address(self) -> Address:
        """Of our frames: the terminal, and our own master station address."""
        who = self.session.address
        return Address(who.a1, who.a2, False, self.session.settings.msa)


def make_peer(session: TerminalSession, credentials: Credentials, *, any_rseq: bool = False) -> Peer:
    """The terminal of a session. UsageError: its secret is no password or key for its way of authentication."""
    said = session.settings
    return Peer(
        session=session,
        edition=_edition(said.edition, said.pw_length, said.protocol_id),
        auth=provider(said.auth, said.pw_length, credentials),
        any_rseq=any_rseq,
    )


@lru_cache(maxsize=64)
def _edition(name: str, pw_length: int, protocol_id: int) -> Edition:
    return edition(name, pw_length=pw_length, protocol_id=protocol_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question or command. con: the receiver must confirm (SEQ.CON); repeat False: never sent twice.

    body: the data units in bytes with their identifiers, instead of `units`.
    timeout_s: silence that ends a try; None = the profile's. answer_bytes: expected length of the whole answer.
    """

    afn: int
    units: tuple[Unit, ...] = ()
    body: bytes = b""
    con: bool = False
    repeat: bool = True
    timeout_s: float | None = None
    answer_bytes: int = 32

    @property
    def function(self) -> int:
        """Function code of the control byte."""
        return _FUNCTION.get(self.afn, CLASS_2)

    @property
    def keys(self) -> tuple[Key, ...]:
        """What is asked for."""
        return tuple((u.pn, u.fn) for u in self.units)


class Head(NamedTuple):
    """What matching needs of a frame: AFN and SEQ, and the PFC of its time tag if it carries one."""

    afn: int
    fir: bool
    fin: bool
    con: bool
    seq: int
    pfc: int | None


def head_of(frame: Frame) -> Head | None:
    """None when the frame has no application layer, or none that its own flags fit into."""
    user = frame.user
    if len(user) < 2:
        return None
    seq = user[1]
    tag = 6 if seq & 0x80 else 0
    if len(user) < 2 + tag + (2 if frame.acd else 0):
        return None
    return Head(user[0], bool(seq & 0x40), bool(seq & 0x20), bool(seq & 0x10), seq & 0x0F, user[-6] if tag else None)


class Verdict(Enum):
    """What kind of answer it is. PARTLY: AFN 00 F3, item by item; BROKEN: it cannot be read."""

    DATA = "data"
    CONFIRMED = "confirmed"
    DENIED = "denied"
    PARTLY = "partly"
    BROKEN = "broken"


@dataclass(slots=True)
class Answer:
    """The answer to an Ask: its frames in order. whole False: parts are missing and did not come in time.

    broken, faults: what of it could not be read, as far as somebody looked.

    sent_us and came_us: our clock at the last sending and at the last part (the round trip of single frames).
    """

    afn: int
    frames: tuple[Frame, ...]
    edition: Edition
    sent_us: int
    came_us: int
    whole: bool = True
    _messages: tuple[Message, ...] | None = None
    broken: str = ""
    faults: dict[Key, str] = field(default_factory=dict)

    def messages(self) -> tuple[Message, ...]:
        """The frames decoded; one that cannot be is left out and named in `broken`."""
        if self._messages is None:
            found = []
            for frame in self.frames:
                try:
                    found.append(parse(frame, self.edition))
                except PeerError as error:
                    self.broken = str(error)
            self._messages = tuple(found)
        return self._messages

    def units(self) -> tuple[Unit, ...]:
        """All data units of the answer in order."""
        return tuple(u for m in self.messages() for u in m.units)

    @property
    def verdict(self) -> Verdict:
        """Data, or the Fn of an answer of AFN 00."""
        if self.afn != CONFIRM:
            return Verdict.DATA
        fns = {u.fn for u in self.units()}
        for fn, verdict in ((2, Verdict.DENIED), (4, Verdict.DENIED), (3, Verdict.PARTLY), (1, Verdict.CONFIRMED)):
            if fn in fns:
                return verdict
        return Verdict.BROKEN

    @property
    def reason(self) -> str:
        """Why it was refused, as far as the terminal says."""
        for unit in self.units() if self.afn == CONFIRM else ():
            if unit.fn == 4:
                return "security error" + (
                    f" {unit.data['error_type']}" if unit.data and "error_type" in unit.data else ""
                )
        return self.broken

    def errors(self) -> dict[Key, int]:
        """Result of each item of an answer of AFN 00 F3: 0 = correct; any other number is a failure."""
        found: dict[Key, int] = {}
        for unit in self.units() if self.afn == CONFIRM else ():
            rows = unit.data.get("results") if unit.fn == 3 and unit.data else None
            for row in rows if isinstance(rows, (list, tuple)) else ():
                for key in _keys_of(row):
                    found[key] = int(row.get("err", 1) or 0)
        return found


def _keys_of(row: object) -> Iterable[Key]:
    """(pn, Fn) of one row of F3, whatever form the table gives an identifier."""
    if not isinstance(row, Mapping):
        return
    pn, fn = row.get("pn"), row.get("fn")
    pns = pn if isinstance(pn, (list, tuple)) else (pn,)
    fns = fn if isinstance(fn, (list, tuple)) else (fn,)
    for p in pns:
        for f in fns:
            if isinstance(p, int) and isinstance(f, int):
                yield p, f


class Step(Enum):
    """What a frame meant to a transaction; see the head of this module."""

    OTHER = "other"
    UNASKED = "unasked"
    MORE = "more"
    DONE = "done"


@dataclass(slots=True)
class Transaction:
    """One request in flight. `confirms`: frames to send because an answer wants them (SEQ.CON), oldest first."""

    ask: Ask
    peer: Peer
    data: bytes
    stamp: Stamp
    sent_us: int
    confirms: list[bytes] = field(default_factory=list)
    _parts: dict[int, Frame] = field(default_factory=dict)
    _last: int | None = None
    _highest: int = 0
    _afn: int = CONFIRM
    _bytes: int = 0
    _came_us: int = 0
    _full: bool = False
    _base: int = 0
    _received: Frame | None = None

    @classmethod
    def begin(cls, ask: Ask, peer: Peer, now_us: int) -> Transaction:
        """The request with new numbers. UsageError: a unit does not fit the tables."""
        session = peer.session
        stamp = session.begin(fcv=False if ask.function == RESET else None)
        message = Message(
            up=False,
            prm=True,
            function=ask.function,
            fcb=stamp.fcb,
            fcv=stamp.fcv,
            address=peer.address,
            afn=ask.afn,
            con=ask.con or (session.settings.con and ask.afn not in CONTROLS),
            seq=stamp.pseq,
            units=ask.units,
            rest=ask.body,
            tp=_tag(session, ask, stamp, now_us),
            protocol_id=peer.edition.protocol_id,
        )
        data = build(message, peer.edition, peer.auth).encode()
        return cls(ask, peer, data, stamp, now_us, _base=stamp.pseq)

    def again(self, now_us: int) -> bytes:
        """The same bytes once more: same PSEQ, same FCB (the terminal repeats its answer). Parts that came stay."""
        self.sent_us = now_us
        return self.data

    @property
    def begun(self) -> bool:
        """Some part of the answer has come."""
        return bool(self._parts)

    def take(self, frame: Frame, now_us: int) -> Step:
        """Judge a frame of the line."""
        head = head_of(frame)
        if not frame.up or head is None or not _same_terminal(frame.address, self.peer.address):
            return Step.OTHER
        if frame.prm:
            return Step.UNASKED
        if frame.address.msa != self.peer.address.msa or head.afn not in (self.ask.afn, CONFIRM):
            return Step.OTHER
        place = self._place(head)
        if place is None:
            return Step.OTHER
        if head.con:
            self.confirms.append(confirmation(frame, head, self.peer))
        self._came_us = now_us
        if head.afn == CONFIRM and self.ask.afn not in CONFIRMED and frame.user[2:6] == _ALL_CONFIRMED:
            self._received = frame  # "received"; the data are still to come
            return Step.MORE
        self._keep(place, head, frame)
        return Step.DONE if self._full or self._whole() else Step.MORE

    def answer(self) -> Answer | None:
        """What came; None when nothing did. `whole` tells whether parts are missing."""
        frames = tuple(self._parts[i] for i in sorted(self._parts))
        if not frames and self._received is not None:
            frames, self._afn, self._last = (self._received,), CONFIRM, 0
        if not frames:
            return None
        return Answer(self._afn, frames, self.peer.edition, self.sent_us, self._came_us, self._whole())

    # -- inside -------------------------------------------------------------------------------------------------------

    def _place(self, head: Head) -> int | None:
        """Which part this is, counted from 0; None: its number is not one of this answer."""
        if self.peer.any_rseq:  # numbers of its own: in order of arrival
            return 0 if head.fir or head.afn == CONFIRM or not self._parts else self._highest + 1
        if head.fir or head.afn == CONFIRM:
            if head.seq != self.stamp.pseq and head.pfc != self.stamp.pfc:
                return None
            if head.afn != CONFIRM:
                self._base = head.seq
            return 0
        offset = (head.seq - self._base) % 16
        if not offset and not self._parts:
            return 0  # no FIR where it belongs: some never set it
        near = (offset - self._highest + _WINDOW) % 16 - _WINDOW + self._highest
        return near if near > 0 else None

    def _keep(self, place: int, head: Head, frame: Frame) -> None:
        old = self._parts.get(place)
        if self.peer.any_rseq and place and self._parts.get(place - 1) == frame:
            return  # the part before, once more
        if place == 0 and old is not None and old.user != frame.user:  # the answer begins anew
            self._parts.clear()
            self._last, self._highest, self._bytes = None, 0, 0
        elif old is not None:
            return
        self._bytes += len(frame.user)
        if self._bytes > MAX_BYTES or place >= MAX_PARTS:
            self._full = True
            return
        if place == 0 or not self._parts:
            self._afn = head.afn
        self._parts[place] = frame
        self._highest = max(self._highest, place)
        if head.fin or head.afn == CONFIRM or not (head.fir or place):
            self._last = place

    def _whole(self) -> bool:
        return self._last is not None and len(self._parts) > self._last


def confirmation(frame: Frame, head: Head, peer: Peer) -> bytes:
    """AFN 00 F1 for a frame of the terminal that wants to be confirmed: RSEQ and MSA are those of the frame."""
    message = Message(
        up=False,
        prm=False,
        function=0,
        address=frame.address,
        afn=CONFIRM,
        seq=head.seq,
        units=(Unit(0, 1, {}),),
        protocol_id=frame.protocol_id,
    )
    return build(message, peer.edition).encode()


def _same_terminal(a: Address, b: Address) -> bool:
    return a.a1 == b.a1 and a.a2 == b.a2 and a.group == b.group


def _tag(session: TerminalSession, ask: Ask, stamp: Stamp, now_us: int) -> Tp | None:
    if not session.tags(control=ask.afn in CONTROLS):
        return None
    return Tp.at(stamp.pfc, session.wall(now_us), session.settings.tp_delay_min)
