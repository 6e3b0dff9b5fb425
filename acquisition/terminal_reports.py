"""What a terminal reports unasked (AFN 0C, 0D, 0E with PRM = 1) as a batch for the journal. Pure.

Nothing of a report is dropped: units that the tables do not know, or that no metering point of the device list wants,
are kept as events with their fields or bytes, code "report.0C.F25". A report is confirmed once its batch is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..model.devices import Device
from ..model.readings import DeviceEvent, ParameterValue, ReadingBatch
from ..protocols.qgdw1376.edition import Edition, edition
from ..protocols.qgdw1376.frame import Frame
from ..protocols.qgdw1376.message import parse
from ..protocols.qgdw1376.units import Unit
from .profile import Profile
from .terminal import Events, TerminalSession
from .terminal_events import KINDS, events_of, plain_of

EVENT_AFN = 0x0E
_FLAG = {"important": Events.IMPORTANT, "ordinary": Events.ORDINARY}


@dataclass(frozen=True, slots=True)
class Report:
    """`read`: (which memory, first index, index behind the last) of the events in it."""

    batch: ReadingBatch
    read: tuple[tuple[Events, int, int], ...] = ()

    def stored(self, session: TerminalSession) -> None:
        """Its events need not be read again."""
        for kind, start, end in self.read:
            session.events_read(kind, start, end)

    @classmethod
    def unread(cls, device: Device, frame: Frame, reason: str, now_us: int) -> Report:
        """A frame that cannot be read at all, kept as it came."""
        data: dict[str, object] = {"hex": frame.encode().hex().upper(), "reason": reason}
        event = DeviceEvent(device=device.id, point=None, time_us=now_us, end_us=None, code="report", data=data)
        return cls(ReadingBatch(received_us=now_us, events=(event,)))


@lru_cache(maxsize=64)
def spoken(name: str, protocol_id: int, pw_length: int) -> Edition:
    """The edition of a terminal's settings."""
    return edition(name, protocol_id=protocol_id, pw_length=pw_length)


def read_report(device: Device, profile: Profile, session: TerminalSession, frame: Frame, now_us: int) -> Report:
    """The readings and events of a report. PeerError: the frame's flags do not fit its length."""
    settings = session.settings
    message = parse(frame, spoken(settings.edition, settings.protocol_id, settings.pw_length))
    events: list[DeviceEvent] = []
    parameters: list[ParameterValue] = []
    read: list[tuple[Events, int, int]] = []
    for unit in message.units:
        kind = KINDS.get(unit.fn)
        if message.afn == EVENT_AFN and kind is not None and unit.data is not None:
            found, start, end = events_of(device, unit.data, kind, now_us)
            events += found
            read.append((_FLAG[kind], start, end))
        else:
            events.append(_kept(device, message.afn, unit, now_us))
    return Report(ReadingBatch(received_us=now_us, events=events, parameters=parameters), tuple(read))


def _kept(device: Device, afn: int, unit: Unit, now_us: int) -> DeviceEvent:
    data: dict[str, object] = {"pn": unit.pn}
    if unit.data is not None:
        data["data"] = plain_of(unit.data)
    else:
        data |= {"hex": unit.raw.hex().upper(), "reason": unit.fault}
    code = f"report.{afn:02X}.F{unit.fn}"
    return DeviceEvent(device=device.id, point=None, time_us=now_us, end_us=None, code=code, data=data)
