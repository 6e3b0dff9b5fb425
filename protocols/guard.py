"""The last look before bytes leave a read-only process: what is not certainly a read is a write.

Below the drivers and ignorant of them: it judges bytes, whoever made them. Noise, an unknown protocol, a reply, a
truncated request or a second frame behind a read are all writes.
"""

from __future__ import annotations

from .common.framer import NeedMore
from .dlt645.frame import READ_LIMIT, Frame, Framer
from .modbus.guard import is_write as _modbus_is_write

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
    """Whether `data` may change anything on the other side. protocol: dlt645, modbus(-rtu, -tcp), mqtt.

    For mqtt `data` is the UTF-8 topic of a message about to be published: everything a server publishes is a command
    or configuration for a terminal, so every topic is a write (acknowledgements are protocol packets, not messages).
    """
    if protocol == "dlt645":
        return _dlt645_is_write(data)
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
