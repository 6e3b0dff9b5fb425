"""The little that every frame of a terminal tells the link, without the tables: head, AUX, login, and its confirmation.

For the demultiplexer in front of a line, which looks at each heartbeat of thousands of terminals. What data units mean
is message.py's matter. Clauses as in Q/GDW 376.1-2009: AFN 00 5.5, AFN 02 5.7, AUX 5.4.5.
"""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from typing import Final, NamedTuple

from .formats import make_format
from .frame import Frame

CONFIRM: Final = 0x00
LINK: Final = 0x02
SEND_NO_REPLY: Final = 4
_TAG: Final = 6  # bytes of Tp
_EC: Final = 2
_CLOCK: Final = make_format("A.1")[0].decode
_F1, _F2 = b"\x00\x00\x01\x00", b"\x00\x00\x02\x00"
_ACCEPTED, _DENIED = 0x0B, 0x09  # PRM 0 with function 11 (link state) and 9 (no such data): what every terminal takes


class LinkTest(IntEnum):
    """Fn of AFN 02."""

    LOGIN = 1
    LOGOUT = 2
    HEARTBEAT = 3


class Head(NamedTuple):
    """What a terminal's frame says beside its data. ec: (EC1, EC2), there when ACD is set; tag: Tp as it stands."""

    afn: int
    seq: int
    con: bool
    ec: tuple[int, int] | None
    tag: bytes


def head_of(frame: Frame) -> Head | None:
    """The head of an uplink frame; None when it has no application layer, or none that its own flags fit into."""
    user = frame.user
    size = len(user)
    if size < 2:
        return None
    seq = user[1]
    tag = b""
    if seq & 0x80:
        size -= _TAG
        tag = user[-_TAG:]
    ec = None
    if frame.acd:
        size -= _EC
        if size >= 2:
            ec = user[size], user[size + 1]
    if size < 2:
        return None
    return Head(user[0], seq & 0x0F, bool(seq & 0x10), ec, tag)


def wants_answer(frame: Frame, head: Head) -> bool:
    """Whether the terminal waits for a confirmation of a frame that it began: CON, or any service but send/no reply."""
    return head.con or frame.function != SEND_NO_REPLY


def link_test(frame: Frame) -> tuple[LinkTest, datetime | None] | None:
    """The kind of an AFN 02 frame and the clock of a heartbeat (1376.1-2013: A.1); None: it is none we know."""
    user = frame.user
    if user[2:4] != b"\x00\x00" or user[5:6] != b"\x00":
        return None
    kind = {1: LinkTest.LOGIN, 2: LinkTest.LOGOUT, 4: LinkTest.HEARTBEAT}.get(user[4])
    if kind is None:
        return None
    clock = None
    rest = len(user) - (_TAG if user[1] & 0x80 else 0) - (_EC if frame.acd else 0)
    if kind is LinkTest.HEARTBEAT and rest >= 12:
        moment = _CLOCK(user[6:12])
        clock = moment if isinstance(moment, datetime) else None
    return kind, clock


def confirmation(frame: Frame, head: Head, *, deny: bool = False) -> bytes:
    """AFN 00 F1 (all confirmed) or F2 (all denied) for a frame that the terminal began, ready for the wire.

    RSEQ, MSA, protocol id and Tp are those of the frame.
    """
    seq = (0xE0 if head.tag else 0x60) | head.seq
    user = b"%c%c%b%b" % (CONFIRM, seq, _F2 if deny else _F1, head.tag)
    return Frame(_DENIED if deny else _ACCEPTED, frame.address, user, frame.protocol_id).encode()
