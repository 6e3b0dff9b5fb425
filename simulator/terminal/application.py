"""The terminal's side of the conversation: a frame of the master in, messages out. No socket and no clock.

Silent on what is not for it (other addresses, group frames), on requests that its time tag makes stale and on noise.
What cannot be served is left out of the answer; an answer of which nothing is left is a denial (AFN 00 F2). Answers
longer than the buffer go out in several frames.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import msgspec

from ...protocols.common.errors import PeerError
from ...protocols.qgdw1376 import dadt
from ...protocols.qgdw1376.edition import Edition
from ...protocols.qgdw1376.frame import Address, Frame
from ...protocols.qgdw1376.layout import INTERVAL_MIN
from ...protocols.qgdw1376.message import Message, build, confirm, confirm_each, parse, reply
from ...protocols.qgdw1376.segments import split
from ...protocols.qgdw1376.units import Unit as DataUnit
from ...protocols.qgdw1376.units import unit_bytes
from . import fields
from .authentication import Gate, is_stale
from .commands import LinkAction, acceptable, carry_out, set_parameters
from .describe import configuration
from .device import Terminal
from .history import history_unit
from .parameters import Unit
from .realtime import realtime_unit
from .relay import MeterPorts
from .reports import task_units

BROADCAST: Final = 0xFFFF
SET_CLOCK: Final = 31
AUX_ROOM: Final = 24
SHORTEST_CURVE: Final = 4
COMMANDS: Final = frozenset({0x01, 0x04, 0x05, 0x06, 0x0F})

Answers = list[Message]
Units = tuple[DataUnit, ...]


@dataclass(slots=True)
class Outcome:
    """What follows from a frame. delay_s: a meter had to be asked first; response: a confirmation of the master's.

    link: what the connection does when the answer is out; restart: the terminal starts anew then.
    """

    messages: Answers = field(default_factory=list)
    delay_s: float = 0.0
    response: Message | None = None
    link: LinkAction = ""
    restart: bool = False
    item: str = ""


@dataclass(slots=True, kw_only=True)
class Application:
    """address: its own; gate: who may command; any_single: answers the wildcard address of a local maintenance port."""

    terminal: Terminal
    address: Address
    edition: Edition
    gate: Gate
    ports: MeterPorts
    any_single: bool = False
    _last: dict[int, tuple[bool, bytes, Answers]] = field(default_factory=dict)

    @property
    def buffer(self) -> int:
        """Longest user data of a frame."""
        return self.terminal.options.buffer

    def answer(self, frame: Frame, now_us: int) -> Outcome | None:
        """What a frame brings about; None = it is not for this terminal, or nothing may be said or done."""
        if frame.up or not self._meant(frame.address):
            return None
        terminal = self.terminal
        try:
            message = parse(frame, self.edition)
        except PeerError:
            return self._deny_stump(frame, now_us)
        terminal.advance(now_us)
        if not terminal.powered:
            return None
        if not message.prm:
            terminal.control.heard(now_us)
            return Outcome(response=message)
        everybody = frame.address.group
        if everybody and terminal.control.removed and [u.fn for u in message.units if message.afn == 5] != [SET_CLOCK]:
            return None
        if is_stale(message.tp, terminal.parts.local(now_us)):
            return None
        repeated = self._repeated(frame, message)
        if repeated is not None:
            return Outcome(repeated, item=_item(message))
        outcome = self._carry_out(frame, message, now_us)
        outcome.item = _item(message)
        if everybody and frame.address.a1 != "FFFF":
            outcome.messages = []
        self._last[frame.address.msa] = (message.fcb, frame.user, outcome.messages)
        return outcome

    def _deny_stump(self, frame: Frame, now_us: int) -> Outcome | None:
        """A command that is too short for its password: denied; of what has no AFN and SEQ nothing can be said."""
        user, address = frame.user, frame.address
        self.terminal.advance(now_us)
        command = len(user) >= 2 and user[0] in self.edition.pw_afn and bool(frame.control & 0x40)
        if not command or user[1] & 0x80 or address.group or not self.terminal.powered:
            return None
        stump = Message(
            up=False, prm=True, function=frame.control & 0x0F, address=address, afn=user[0], seq=user[1] & 0x0F,
            units=(), pw=b"", protocol_id=frame.protocol_id,
        )  # fmt: skip
        return self._deny(stump)

    def _meant(self, address: Address) -> bool:
        own = self.address
        if address.a1 == "FFFF" and address.a2 == BROADCAST and address.group:
            return self.any_single
        if address.a1 != own.a1:
            return False
        if not address.group:
            return address.a2 == own.a2
        return address.a2 == BROADCAST or address.a2 in self.terminal.parts.settings.group_addresses()

    def _repeated(self, frame: Frame, message: Message) -> Answers | None:
        """The last answer, if the master says the same again with an unchanged FCB."""
        last = self._last.get(frame.address.msa)
        if not message.fcv or message.afn == 0x01 or last is None or frame.address.group:
            return None
        return last[2] if last[0] == message.fcb and last[1] == frame.user else None

    # --- by AFN -----------------------------------------------------------------------------------------------

    def _carry_out(self, frame: Frame, message: Message, now_us: int) -> Outcome:
        faults = self.terminal.parts.faults
        item = _item(message)
        if message.afn in self.edition.pw_afn and not self.gate.admits(frame, message):
            self.terminal.parts.record(
                20, now_us, pw_hex=(message.pw or b"")[:16].ljust(16, b"\0").hex().upper(), msa=frame.address.msa
            )
            return self._deny(message)
        self.terminal.control.heard(now_us)  # what is not proven to be the master's keeps no 保电 away
        if message.afn in COMMANDS:
            if faults.fires("refuse", now_us, item):
                return self._deny(message)
            if faults.fires("ignored", now_us, item):
                return self._confirm(message)
        elif faults.fires("refuse_read", now_us, item):
            return self._deny(message)
        act = _BY_AFN.get(message.afn)
        outcome = act(self, message, now_us) if act is not None else self._deny(message)
        if message.afn in COMMANDS and faults.fires("no_ack", now_us, item):
            outcome.messages = []
        return outcome

    def _ec(self) -> tuple[int, int] | None:
        events = self.terminal.parts.events
        return events.counters if events.waiting else None

    def _confirm(self, message: Message, ok: bool = True) -> Outcome:
        return Outcome([confirm(message, ok=ok, ec=self._ec())])

    def _deny(self, message: Message) -> Outcome:
        return self._confirm(message, ok=False)

    def _data(self, message: Message, units: Sequence[DataUnit], now_us: int, afn: int | None = None) -> Outcome:
        """An answer of data units in as many frames as it needs."""
        found = self._fitting(units, message.afn if afn is None else afn)
        if not found:
            return self._deny(message)
        return Outcome(split(reply(message, found, afn=afn, ec=self._ec()), self.buffer, self.edition))

    def _fitting(self, units: Sequence[DataUnit], afn: int) -> list[DataUnit]:
        """Units of which each fits a frame: long curves are cut in two, whatever else is too long is left out."""
        room = self.buffer - AUX_ROOM
        out: list[DataUnit] = []
        for unit in units:
            if len(unit_bytes(unit, afn, True, self.edition.name)) <= room:
                out.append(unit)
            elif fields.integer(unit.data, "n") >= SHORTEST_CURVE and "td_c" in (unit.data or {}):
                out += self._fitting(_halves(unit), afn)
        return out

    # --- reading ----------------------------------------------------------------------------------------------

    def _read(self, message: Message, now_us: int) -> Outcome:
        return self._data(message, list(self.read_units(message.afn, message.units, now_us)), now_us)

    def read_units(self, afn: int, asked: Sequence[DataUnit], now_us: int) -> list[DataUnit]:
        """Class-1 or class-2 data of every unit that can be served; DA = FF00 means every point."""
        make = realtime_unit if afn == 0x0C else history_unit
        empty = any(self.terminal.parts.faults.active(k, now_us) for k in ("fill_ee", "fill_ff"))
        out = []
        for unit in asked:
            points = self.terminal.parts.points.numbers() if unit.pn == dadt.ALL_POINTS else (unit.pn,)
            for pn in points:
                data = make(self.terminal, pn, unit.fn, unit.data or {}, now_us) if not unit.raw else None
                if data is not None:
                    out.append(DataUnit(pn, unit.fn, blanked(data) if empty else data))
        return out

    def _query(self, message: Message, now_us: int) -> Outcome:
        out = []
        parameters = self.terminal.parts.parameters
        for unit in message.units:
            found = parameters.answer(unit.fn, unit.pn, unit.data)
            if found is not None:
                out.append(DataUnit(unit.pn, unit.fn, dict(found)))
        return self._data(message, out, now_us)

    def _configuration(self, message: Message, now_us: int) -> Outcome:
        found = [(u, configuration(self.terminal, u.fn)) for u in message.units if u.pn == 0]
        return self._data(message, [DataUnit(0, u.fn, data) for u, data in found if data is not None], now_us)

    def _events(self, message: Message, now_us: int) -> Outcome:
        parts = self.terminal.parts
        out: list[DataUnit] = []
        for unit in message.units:
            data = unit.data or {}
            if unit.fn == 3 and parts.edition == "2013":
                records = parts.events.latest(fields.integer(data, "erc"), fields.integer(data, "n"))
                while records and not self._fits(three := DataUnit(0, 3, {"n": len(records), "events": records})):
                    records = records[:-1]
                if records:
                    out.append(three)
            elif unit.fn in (1, 2) and unit.pn == 0:
                start, end = fields.integer(data, "pm"), fields.integer(data, "pn")
                found = self._events_from(start, end, important=unit.fn == 1)
                if found is not None:
                    out.append(DataUnit(0, unit.fn, found))
        return self._data(message, out, now_us)

    def _events_from(self, start: int, end: int, *, important: bool) -> Unit | None:
        events = self.terminal.parts.events
        limit: int | None = None
        while (reading := events.read(start, end, important=important, limit=limit)) is not None:
            ec1, ec2 = events.counters
            found: Unit = {
                "ec1": ec1, "ec2": ec2, "pm": reading.start, "pn": reading.end, "events": list(reading.records),
            }  # fmt: skip
            if self._fits(DataUnit(0, 1, found)) or len(reading.records) == 1:
                return found
            limit = len(reading.records) - 1
        return None

    def _fits(self, unit: DataUnit) -> bool:
        return len(unit_bytes(unit, 0x0E, True, self.edition.name)) <= self.buffer - AUX_ROOM

    def _task_data(self, message: Message, now_us: int) -> Outcome:
        unit = message.units[0] if message.units else None
        if unit is None or unit.fn not in (1, 2):
            return self._deny(message)
        afn = 0x0C if unit.fn == 1 else 0x0D
        start = fields.moment(unit.data, "start")
        asked = task_units(self.terminal, unit.fn, unit.pn, now_us, start)
        return self._data(message, self.read_units(afn, asked, now_us), now_us, afn)

    # --- commanding -------------------------------------------------------------------------------------------

    def _reset(self, message: Message, now_us: int) -> Outcome:
        terminal = self.terminal
        kinds = [u.fn for u in message.units]
        if not kinds or any(k not in (1, 2, 3, 4) or u.pn for k, u in zip(kinds, message.units, strict=True)):
            return self._deny(message)
        outcome = self._confirm(message)
        self._last.pop(message.address.msa, None)
        for kind in kinds:
            if kind == 1:
                outcome.restart = True
                continue
            terminal.parts.events.clear()
            terminal.parts.counters.clear()
            terminal.parts.points.since_us = now_us
            if kind in (3, 4):
                terminal.parts.parameters.reset(keep_communication=kind == 4)
            version = terminal.options.version
            terminal.parts.record(
                1, now_us, init=1, version_changed=0, old_version=version, new_version=version
            )  # fmt: skip
        return outcome

    def _set(self, message: Message, now_us: int) -> Outcome:
        return self._command(message, lambda units: self._put(units, message.address.msa, now_us))

    def _put(self, units: Units, msa: int, now_us: int) -> LinkAction:
        set_parameters(self.terminal, units, msa, now_us)
        return ""

    def _control(self, message: Message, now_us: int) -> Outcome:
        return self._command(message, lambda units: carry_out(self.terminal, units, now_us))

    def _command(self, message: Message, act: Callable[[Units], LinkAction]) -> Outcome:
        """All units or none (AFN 00 F1, F2); a terminal that confirms item by item does those that it can (F3)."""
        good = [not message.rest and acceptable(self.terminal, message.afn, unit) for unit in message.units]
        if not any(good) or (not all(good) and self.terminal.options.confirm == "whole"):
            return self._deny(message)
        outcome = self._confirm(message)
        if not all(good):
            outcome = Outcome([confirm_each(message, [int(not g) for g in good], ec=self._ec())])
        outcome.link = act(tuple(unit for unit, g in zip(message.units, good, strict=True) if g))
        return outcome

    def _link_test(self, message: Message, now_us: int) -> Outcome:
        return self._confirm(message)

    def _ask_reports(self, message: Message, now_us: int) -> Outcome:
        return self._confirm(message) if message.units else self._deny(message)

    def _security(self, message: Message, now_us: int) -> Outcome:
        """Opaque: a random number, an echo of an identity; nothing that needs a chip."""
        unit = message.units[0] if message.units else None
        chance = random.Random(f"{self.terminal.name}/{now_us}")
        if unit is not None and unit.fn == 3:
            return self._data(message, [DataUnit(0, 4, {"raw_hex": chance.randbytes(16).hex().upper()})], now_us)
        if unit is not None and unit.fn == 1 and unit.data is not None:
            return self._data(message, [DataUnit(0, 2, {"raw_hex": unit.data.get("raw_hex", "")})], now_us)
        return self._deny(message)

    def _file(self, message: Message, now_us: int) -> Outcome:
        """Opaque: every segment is received and forgotten."""
        unit = message.units[0] if message.units else None
        if unit is None or unit.fn != 1 or unit.data is None:
            return self._deny(message)
        return self._data(message, [DataUnit(0, 1, {"segment": fields.integer(unit.data, "segment")})], now_us)

    def _relay(self, message: Message, now_us: int) -> Outcome:
        unit = message.units[0] if message.units else None
        found = self.ports.relay(unit.fn, unit.data or {}, now_us) if unit is not None and unit.pn == 0 else None
        if unit is None or found is None:
            return self._deny(message)
        delay_s, data = found
        outcome = self._deny(message) if data is None else self._data(message, [DataUnit(0, unit.fn, data)], now_us)
        outcome.delay_s = delay_s
        return outcome

    # --- frames -----------------------------------------------------------------------------------------------

    def frame(self, message: Message) -> Frame:
        """The frame of one message."""
        return build(message, self.edition)


def _item(message: Message) -> str:
    """A request as fault scripts name it: AFN and first Fn, `0DF81`."""
    return f"{message.afn:02X}F{message.units[0].fn}" if message.units else f"{message.afn:02X}"


def _halves(unit: DataUnit) -> list[DataUnit]:
    """A curve as two curves."""
    data = unit.data or {}
    points, start = data["points"], fields.moment(data, "td_c")
    assert isinstance(points, list) and start is not None
    half = len(points) // 2
    step = timedelta(minutes=INTERVAL_MIN[fields.integer(data, "density")])
    parts = ((start, points[:half]), (start + half * step, points[half:]))
    return [
        msgspec.structs.replace(unit, data={**data, "td_c": at, "n": len(part), "points": part}) for at, part in parts
    ]


def blanked(data: Unit) -> Unit:
    """The same unit without values: time scales and counts stay, the rest is fill."""
    keep = ("td_", "density", "n", "tariffs", "read_time", "groups", "terminal_time")

    def empty(name: str, value: object) -> object:
        if name in keep or name.startswith("td_"):
            return value
        if isinstance(value, list):
            return [empty("", v) if not isinstance(v, dict) else blanked(v) for v in value]
        return 0 if isinstance(value, int) else None if not isinstance(value, str) else value

    return {k: empty(k, v) for k, v in data.items()}


_BY_AFN: Final[dict[int, Callable[[Application, Message, int], Outcome]]] = {
    0x01: Application._reset, 0x02: Application._link_test, 0x04: Application._set, 0x05: Application._control,
    0x06: Application._security, 0x08: Application._ask_reports, 0x09: Application._configuration,
    0x0A: Application._query, 0x0B: Application._task_data, 0x0C: Application._read, 0x0D: Application._read,
    0x0E: Application._events, 0x0F: Application._file, 0x10: Application._relay,
}  # fmt: skip
