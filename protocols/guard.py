"""The last look before bytes leave a read-only process: what is not certainly a read is a write.

Below the drivers and ignorant of them: it judges bytes, whoever made them. Noise, an unknown protocol, a reply, a
truncated request or a second frame behind a read are all writes.
"""

from __future__ import annotations

from .common.framer import NeedMore
from .dlt645.frame import READ_LIMIT, Frame, Framer
from .modbus.guard import is_write as _modbus_is_write
from .qgdw1376.frame import Frame as TerminalFrame
from .qgdw1376.frame import Framer as TerminalFramer

# function -> lengths of DATA of a reading request (DL/T 645-2007 03H authenticates and may pay: never a read)
_DLT645_READS = {
    0x11: (2, 4, 5, 10),
    0x12: (5,),
    0x13: (0,),
    0x01: (2, 3, 4, 5, 6, 7),
    0x02: (2,),
    0x03: (0,),
}


def is_write(protocol: str, data: bytes) -> bool:
    """Whether `data` may change anything on the other side. protocol: dlt645, qgdw1376, modbus(-rtu, -tcp), mqtt.

    For mqtt `data` is the UTF-8 topic of a message about to be published: everything a server publishes is a command
    or configuration for a terminal, so every topic is a write (acknowledgements are protocol packets, not messages).
    """
    if protocol == "dlt645":
        return _dlt645_is_write(data)
    if protocol == "qgdw1376":
        return _qgdw1376_is_write(data)
    if protocol in ("modbus", "modbus-rtu", "modbus-tcp"):
        return _modbus_is_write(data)
    return True


def _dlt645_is_write(data: bytes) -> bool:
    framer = Framer(READ_LIMIT)
    framer.feed(data)
    framer.expire()
    frames = 0
    while not isinstance(event := framer.next_event(), NeedMore):
        if not isinstance(event, Frame) or not _is_read(event):
            return True
        frames += 1
    return frames == 0


def _is_read(frame: Frame) -> bool:
    return not frame.control & 0xE0 and len(frame.data) in _DLT645_READS.get(frame.control, ())


# AFN of requests that only read; function codes "request class-1 data" and "request class-2 data"
_QGDW1376_READS = frozenset((0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E))
_QGDW1376_ASKING = (10, 11)
_QGDW1376_CONFIRM, _QGDW1376_LINK, _QGDW1376_RELAY = 0x00, 0x02, 0x10


def _qgdw1376_is_write(data: bytes) -> bool:
    framer = TerminalFramer()
    framer.feed(data)
    framer.expire()
    frames = 0
    while not isinstance(event := framer.next_event(), NeedMore):
        if not isinstance(event, TerminalFrame) or not _is_terminal_read(event):
            return True
        frames += 1
    return frames == 0


def _is_terminal_read(frame: TerminalFrame) -> bool:
    """Down only: a question of a reading AFN, a confirmation, an answer to a link test, the relay of a meter's read."""
    if frame.up or len(frame.user) < 2:
        return False
    afn = frame.user[0]
    if not frame.prm:
        return afn in (_QGDW1376_CONFIRM, _QGDW1376_LINK)
    if frame.function not in _QGDW1376_ASKING:
        return False
    return afn in _QGDW1376_READS or (afn == _QGDW1376_RELAY and _relays_a_read(frame))


def _relays_a_read(frame: TerminalFrame) -> bool:
    """Every unit hands one DL/T 645 read, and nothing else, to the meters' bus; the frame holds nothing unexplained."""
    from .qgdw1376.message import parse

    message = parse(frame)
    if message.rest or not message.units:
        return False
    for unit in message.units:
        raw = (unit.data or {}).get("raw_hex")
        if unit.fn != 1 or unit.fault or not isinstance(raw, str) or _dlt645_is_write(bytes.fromhex(raw)):
            return False
    return True
