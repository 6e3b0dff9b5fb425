"""What a terminal reports unasked (AFN 0C, 0D, 0E with PRM = 1) as a batch for the journal. Pure.

Nothing of a report is dropped: units that the tables do not know, or that no metering point of the device list wants,
are kept as events with their fields or bytes, code "report.0C.F25". A report is confirmed once its batch is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..model.devices import Device
from ..model.readings import DeviceEvent, ParameterValue, ReadingBatch
from ..protocols.qgdw1376.edition import Edition, edition
from ..protocols.qgdw1376.frame import Frame
from ..protocols.qgdw1376.message import parse
from ..protocols.qgdw1376.units import Unit
from .profile import Profile, TerminalPlan
from .sessions.qgdw1376_labels import Labels
from .sessions.qgdw1376_readings import HISTORY, REALTIME, read_answers
from .terminal import Events, TerminalSession
from .terminal_events import KINDS, events_of, plain_of, pointer_item

EVENT_AFN = 0x0E
_FLAG = {"important": Events.IMPORTANT, "ordinary": Events.ORDINARY}


@dataclass(frozen=True, slots=True)
class Report:
    """`read`: (which memory, first index, index behind the last) of the events in it."""

    batch: ReadingBatch
    read: tuple[tuple[Events, int, int], ...] = ()

    def stored(self, session: TerminalSession) -> None:
        """Its events need not be read again. (As a first word they say nothing about those before them.)"""
        for kind, start, end in self.read:
            if session.goes_on(kind, start):
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
    peer = spoken(settings.edition, settings.protocol_id, settings.pw_length)
    message = parse(frame, peer)
    if message.afn in (REALTIME, HISTORY):
        return _readings(device, profile, frame, message.afn, message.units, peer, now_us)
    events: list[DeviceEvent] = []
    parameters: list[ParameterValue] = []
    read: list[tuple[Events, int, int]] = []
    for unit in message.units:
        kind = KINDS.get(unit.fn)
        if message.afn != EVENT_AFN or kind is None or unit.data is None:
            events.append(_kept(device, message.afn, unit, now_us))
            continue
        found, start, end = events_of(device, unit.data, kind, now_us)
        events += found
        read.append((_FLAG[kind], start, end))
        if session.goes_on(_FLAG[kind], start):
            place = ParameterValue(device=device.id, item=pointer_item(unit.fn), value=str(end), time_us=now_us)
            parameters.append(place)
    return Report(ReadingBatch(received_us=now_us, events=events, parameters=parameters), tuple(read))


def _readings(
    device: Device, profile: Profile, frame: Frame, afn: int, units: Sequence[Unit], peer: Edition, now_us: int
) -> Report:
    labels = Labels.of(profile.terminal or TerminalPlan(), device.options)
    found = read_answers((frame,), device, labels, now_us, peer)
    kept = [
        _kept(device, afn, unit, now_us, found.faults.get((unit.pn, unit.fn), unit.fault))
        for unit in units
        if unit.pn == 0 or (unit.pn, unit.fn) not in found.taken
    ]
    samples = found.samples()
    return Report(ReadingBatch(received_us=now_us, samples=samples, curves=tuple(found.curves), events=tuple(kept)))


def _kept(device: Device, afn: int, unit: Unit, now_us: int, reason: str = "") -> DeviceEvent:
    data: dict[str, object] = {"pn": unit.pn}
    if unit.data is not None:
        data["data"] = plain_of(unit.data)
    else:
        data["hex"] = unit.raw.hex().upper()
    if reason or unit.fault:
        data["reason"] = reason or unit.fault
    code = f"report.{afn:02X}.F{unit.fn}"
    return DeviceEvent(device=device.id, point=None, time_us=now_us, end_us=None, code=code, data=data)
