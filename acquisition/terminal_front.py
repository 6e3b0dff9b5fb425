"""In front of a line with Q/GDW 376.1 terminals: cuts the stream into frames and tells what each of them is. Pure.

    bytes --Front.cut--> Frames --hear--> ANSWER     the line's exchange waits for it
                                          LOGIN, LOGOUT, HEARTBEAT   answered at once
                                          REPORT     readings or events unasked: confirmed only when they are stored
                                          REPEATED   the last report once more
                                          REFUSED    data before login, where that is denied
                                          FOREIGN    an answer to another master station
                                          OTHER      nothing for us: our own echo, an AFN that is not served

Only ANSWER ever reaches the line. Everything else is handled beside it, whatever is in flight.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from ..protocols.common.framer import NeedMore
from ..protocols.qgdw1376.frame import OVERHEAD, Frame, Framer
from ..protocols.qgdw1376.link import CONFIRM, LINK, LinkTest, confirmation, head_of, link_test, wants_answer
from .terminal import Events, TerminalSession

REPORTS: Final = frozenset((0x0B, 0x0C, 0x0D, 0x0E))
PATIENCE_S: Final = 15.0
"""A frame that is not complete after so long is no frame (on a stream; a datagram holds whole frames)."""


class Kind(Enum):
    """See the drawing above."""

    ANSWER = "answer"
    LOGIN = "login"
    LOGOUT = "logout"
    HEARTBEAT = "heartbeat"
    REPORT = "report"
    REPEATED = "repeated"
    REFUSED = "refused"
    FOREIGN = "foreign"
    OTHER = "other"


class Said(NamedTuple):
    """One frame understood.

    reply: to be sent at once; confirm: to be sent when the frame's data are on the disk; news: events to be read now;
    offset_s: the terminal's clock minus ours, where the frame tells it.
    """

    kind: Kind
    frame: Frame
    reply: bytes = b""
    confirm: bytes = b""
    news: Events = Events.NONE
    offset_s: float | None = None


_LINK_KIND = {LinkTest.LOGIN: Kind.LOGIN, LinkTest.LOGOUT: Kind.LOGOUT, LinkTest.HEARTBEAT: Kind.HEARTBEAT}


class Front:
    """What has come of a frame that is not complete yet; at most one frame's bytes."""

    __slots__ = ("_rest", "_since_s", "skipped")

    def __init__(self) -> None:
        self._rest = b""
        self._since_s = 0.0
        self.skipped = 0

    def cut(self, data: bytes, now_s: float, *, whole: bool = False) -> list[Frame]:
        """The complete frames; `skipped` counts bytes of none. whole: a datagram, nothing of it goes on later."""
        frames: list[Frame] = []
        if self._rest:
            if now_s - self._since_s > PATIENCE_S:
                self._run(self._rest, frames, expire=True)
                self._since_s = now_s
            else:
                data = self._rest + data
        else:
            self._since_s = now_s
        self._rest = self._run(data, frames, expire=whole)
        return frames

    @property
    def rest(self) -> bytes:
        """The part of a frame that has come."""
        return self._rest

    @property
    def begun(self) -> bool:
        """Part of a frame has come."""
        return bool(self._rest)

    def reset(self) -> None:
        """A new connection: the old one's rest will not go on."""
        self._rest = b""

    def _run(self, data: bytes, frames: list[Frame], *, expire: bool) -> bytes:
        framer = Framer()
        framer.feed(data)
        if expire:
            framer.expire()
        while not isinstance(event := framer.next_event(), NeedMore):
            if isinstance(event, Frame):
                frames.append(event)
            else:
                self.skipped += event.count
        left = len(framer)
        return data[-left:] if left else b""


def size_of(frame: Frame) -> int:
    """Bytes of a frame on the wire."""
    return frame.lead + OVERHEAD + frame.length


def hear(session: TerminalSession, frame: Frame, now_us: int, *, login_first: bool = False) -> Said:
    """What a frame of this terminal is; the session notes what it says. login_first: data before login are denied."""
    head = head_of(frame)
    if not frame.up or head is None:
        return Said(Kind.OTHER, frame)
    news = session.saw(frame.acd, head.ec, now_us)
    if not frame.prm:
        ours = frame.address.msa == session.settings.msa
        return Said(Kind.ANSWER if ours else Kind.FOREIGN, frame, news=news)
    wanted = wants_answer(frame, head)
    test = link_test(frame) if head.afn == LINK else None
    accepted = session.logged_in is True or not login_first
    if test is not None:
        kind, clock = test
        if kind is LinkTest.HEARTBEAT and not accepted:
            return Said(Kind.REFUSED, frame, confirmation(frame, head, deny=True) if wanted else b"", news=news)
        if kind is not LinkTest.HEARTBEAT:
            session.logged_in = kind is LinkTest.LOGIN
        if clock is not None:
            session.saw_clock(clock, now_us)
        # events that wait are called to mind at every sign of life: an earlier attempt to read them may have failed
        reply = confirmation(frame, head) if wanted else b""
        offset_s = session.clock_offset_s if clock is not None else None
        return Said(_LINK_KIND[kind], frame, reply, news=session.waiting(), offset_s=offset_s)
    if head.afn in REPORTS and accepted:
        confirm = confirmation(frame, head) if wanted else b""
        key = hash((frame.control, frame.user))
        if key == session.report_key:
            return Said(Kind.REPEATED, frame, confirm if session.report_stored else b"", news=news)
        session.report_key, session.report_stored = key, False
        return Said(Kind.REPORT, frame, confirm=confirm, news=news)
    deny = confirmation(frame, head, deny=True) if wanted and head.afn != CONFIRM else b""
    return Said(Kind.OTHER if accepted else Kind.REFUSED, frame, deny, news=news)
