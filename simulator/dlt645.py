"""DL/T 645-2007 and -1997 slave: frames in, replies out (facts: clauses 5–7 of both editions). No I/O.

Silent on everything a real meter is silent on: bad frames, other addresses, broadcasts, wildcards in writes. Errors are
answered as C | C0 with ERR. One `DltLine` is one RS-485 bus with any number of meters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from ..model.times import US
from ..protocols.common.errors import UsageError
from ..protocols.common.framer import NEED_MORE
from ..protocols.common.times import decode_datetime, encode_datetime
from ..protocols.dlt645.frame import ANY, BROADCAST, Frame, Framer, address_to_wire, matches, wire_to_address
from .dlt645_content import RECORDS, content_1997, content_2007, load_records
from .faults import delay, spoil
from .meter import SimMeter
from .wire import Reply

MAX_DATA: Final = 200
OTHER, NO_DATA, PASSWORD, RATE = 0x01, 0x02, 0x04, 0x08
_BROADCAST_WIRE: Final = address_to_wire(BROADCAST)
_ANY_WIRE: Final = address_to_wire(ANY)
_NO_WILDCARD: Final = frozenset((0x14, 0x17, 0x19, 0x1A, 0x1B, 0x1C))
CLOCK_LIMIT: Final = timedelta(minutes=5)
RATES: Final = frozenset((0x02, 0x04, 0x08, 0x10, 0x20, 0x40))
# function of 1997 -> function of 2007 with the same duty
_DUTY_97: Final = {0x01: 0x11, 0x02: 0x12, 0x04: 0x14, 0x08: 0x08, 0x0A: 0x15, 0x0C: 0x17, 0x0F: 0x18, 0x10: 0x19}


class _Error(Exception):
    """Answered as an error frame with this ERR byte."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass(slots=True)
class _Chain:
    """A long answer being fetched part by part."""

    di: bytes
    parts: list[bytes]


@dataclass(slots=True)
class DltSlave:
    """One meter. td_s: reply delay; lead: FE bytes before a reply; block_records: load records framed A0A0 … E5."""

    meter: SimMeter
    version: str = "2007"
    td_s: float = 0.02
    lead: int = 4
    block_records: bool = False
    _chain: _Chain | None = None
    _last: tuple[int, bytes] = (0xC3, b"\x01")
    _wire: bytes = field(init=False, default=b"")

    def __post_init__(self) -> None:
        self._wire = address_to_wire(self.meter.address)

    @property
    def wire_address(self) -> bytes:
        """Six bytes, low first."""
        return self._wire

    def answer(self, request: Frame, now_us: int) -> Reply | None:
        """The reply to a frame that may or may not be for this meter."""
        if request.from_meter or not matches(request.wire_address, self._wire):
            if request.wire_address == _BROADCAST_WIRE and not request.from_meter:
                self._broadcast(request, now_us)
            return None
        meter = self.meter
        meter.advance(now_us)
        item = self._item(request)
        if meter.silent(now_us, item):
            return None
        function = self._duty(request.function)
        if request.wire_address != self._wire and function in _NO_WILDCARD:
            return None
        if function == 0x08:
            self._broadcast(request, now_us)
            return None
        try:
            control, data = self._carry_out(function, request, now_us, item)
        except _Error as error:
            control, data = request.function | 0xC0, bytes((error.code,))
        except (IndexError, ValueError, UsageError):  # the request is too short or holds no number
            control, data = request.function | 0xC0, bytes((OTHER,))
        if control is None:
            return None
        if request.function != 0x03:
            self._last = (control, data)
        return self._reply(request, Frame(self._wire, control, data, self.lead), now_us, item)

    def _duty(self, function: int) -> int:
        return _DUTY_97.get(function, 0xFF) if self.version == "1997" else function

    def _item(self, request: Frame) -> str:
        """The data identifier as fault scripts name it."""
        size = 2 if self.version == "1997" else 4
        return request.data[:size][::-1].hex().upper() if len(request.data) >= size else ""

    def _reply(self, request: Frame, frame: Frame, now_us: int, item: str) -> Reply:
        faults = self.meter.faults
        if faults.fires("wrong_address", now_us, item):
            other = f"{(int(self.meter.address) + 1) % 10**12:012d}"
            frame = Frame(address_to_wire(other), frame.control, frame.data, frame.lead)
        elif faults.fires("address_aa", now_us, item):
            frame = Frame(_ANY_WIRE, frame.control, frame.data, frame.lead)
        wire = spoil(faults, request.encode(), frame.encode(), now_us, item)
        return Reply(self.td_s + delay(faults, now_us, item), wire, self.meter.name)

    def _broadcast(self, request: Frame, now_us: int) -> None:
        """Broadcast time and freeze: carried out without a word."""
        meter = self.meter
        meter.advance(now_us)
        if meter.silent(now_us, self._item(request)):
            return
        function = self._duty(request.function)
        with contextlib.suppress(_Error, ValueError, IndexError):
            if function == 0x08:
                self._set_by_broadcast(request.data, now_us)
            elif function == 0x16:
                self._freeze(request.data, now_us)

    def _carry_out(self, function: int, request: Frame, now_us: int, item: str) -> tuple[int | None, bytes]:
        """Control byte and data of the normal answer (None: nothing is said); _Error for an error answer."""
        data, meter, done = request.data, self.meter, request.function | 0x80
        if request.function == 0x03:  # 1997: say the last answer again; 2007: security, which needs a chip we have not
            return (self._last[0] & 0x60 | 0x83, self._last[1]) if self.version == "1997" else (0xC3, b"\x08\x00")
        if function != 0x12:
            self._chain = None if function != 0x11 else self._chain
        match function:
            case 0x11:
                return self._read(request, now_us, item)
            case 0x12:
                return self._follow(request, item)
            case 0x13:
                return (done, self._wire) if request.wire_address == _ANY_WIRE else (None, b"")
            case 0x14:
                self._write(data, now_us)
                return done, b""
            case 0x15:
                if request.wire_address != _ANY_WIRE or len(data) != 6:
                    return None, b""
                meter.address = wire_to_address(data)
                self._wire = address_to_wire(meter.address)
                return done, b""
            case 0x16:
                self._freeze(data, now_us)
                return done, b""
            case 0x17:
                if len(data) != 1 or data[0] not in RATES:
                    raise _Error(RATE)
                return done, data
            case 0x18:
                return done, self._change_password(data, now_us)
            case 0x19:
                self._authorise(data, now_us)
                meter.demand_since_us = now_us
                meter.record("demand_clear", now_us, operator=data[4:8].ljust(4, b"\0"))
                return done, b""
            case 0x1A:
                self._authorise(data, now_us)
                meter.exchange(now_us, 0.0)
                meter.record("meter_clear", now_us, operator=data[4:8].ljust(4, b"\0"))
                return done, b""
            case 0x1B:
                self._authorise(data, now_us)
                meter.events.clear()
                meter.record("event_clear", now_us, operator=data[4:8], detail=data[8:12])
                return done, b""
            case 0x1C:
                self._control(data, now_us, item)
                return (None, b"") if meter.faults.fires("no_ack", now_us) else (done, b"")
            case 0x1D:
                return done, data[:1]
        raise _Error(OTHER)

    # --- reading ----------------------------------------------------------------------------------------------

    def _read(self, request: Frame, now_us: int, item: str) -> tuple[int, bytes]:
        faults = self.meter.faults
        size = 2 if self.version == "1997" else 4
        wire_di, rest = request.data[:size], request.data[size:]
        self._chain = None
        missing = OTHER if self.version == "1997" else NO_DATA
        if len(wire_di) != size:
            raise _Error(OTHER)
        if faults.fires("refuse_read", now_us, item):
            raise _Error(missing)
        fill = (
            0xFF if faults.fires("fill_ff", now_us, item) else 0xEE if faults.fires("fill_ee", now_us, item) else None
        )
        payload = self._content(wire_di[::-1], rest, now_us, fill)
        if payload is None:
            raise _Error(missing)
        if fill is not None and wire_di[-1] != 0x06:
            payload = bytes((fill,)) * len(payload)
        if payload and (rule := faults.fires("not_bcd", now_us, item)):
            spoiled = bytearray(payload)
            spoiled[rule.random.randrange(len(payload))] |= 0x0C
            payload = bytes(spoiled)
        first = payload[: MAX_DATA - size]
        if len(first) == len(payload):
            return request.function | 0x80, wire_di + payload
        step = MAX_DATA - size - 1
        parts = [payload[i : i + step] for i in range(len(first), len(payload), step)]
        self._chain = _Chain(wire_di, parts)
        return request.function | 0xA0, wire_di + first

    def _content(self, di: bytes, rest: bytes, now_us: int, fill: int | None) -> bytes | None:
        if self.version == "1997":
            return content_1997(self.meter, di, now_us)
        if di[0] != 0x06:
            return content_2007(self.meter, di, now_us)
        cls, how = di[1], di[3]
        if (cls and cls not in RECORDS) or di[2] or how > 2 or (cls and cls not in self.meter.record_classes):
            return None
        count = rest[0] if rest else 1
        start = decode_datetime(rest[1:6]) if len(rest) >= 6 and how == 1 else None
        if how == 1 and start is None:
            raise _Error(OTHER)
        labels = self.meter.record_labels(now_us, start, count, latest=how == 2)
        return load_records(self.meter, cls, labels, block=self.block_records, fill=fill)

    def _follow(self, request: Frame, item: str) -> tuple[int, bytes]:
        chain = self._chain
        size = 2 if self.version == "1997" else 4
        if chain is None or request.data[:size] != chain.di:
            raise _Error(OTHER if self.version == "1997" else NO_DATA)
        if self.version == "1997":
            part = chain.parts.pop(0)
            if not chain.parts:
                self._chain = None
            return request.function | (0xA0 if chain.parts else 0x80), chain.di + part
        number = request.data[4]
        if not 1 <= number <= len(chain.parts):
            raise _Error(NO_DATA)
        more = number < len(chain.parts)
        return request.function | (0xA0 if more else 0x80), chain.di + chain.parts[number - 1] + bytes((number,))

    # --- writing and control ----------------------------------------------------------------------------------

    def _authorise(self, secret: bytes, now_us: int) -> None:
        """Level and password (PA P0 P1 P2) at the front of `secret`; ERR bit 2 if they are wrong or locked."""
        if len(secret) < 4 or secret[0] > 0x04 or not self.meter.check_password(now_us, secret[3:0:-1].hex()):
            raise _Error(PASSWORD)

    def _write(self, data: bytes, now_us: int) -> None:
        meter = self.meter
        size, head = (2, 6) if self.version == "1997" else (4, 12)
        if len(data) <= head:
            raise _Error(OTHER)
        self._authorise(data[size : size + 4], now_us)
        if meter.faults.fires("refuse", now_us):
            raise _Error(OTHER)
        di, payload = data[:size][::-1].hex().upper(), data[head:]
        operator = b"\0\0\0\0" if self.version == "1997" else data[8:12]
        before = meter.clock.local(now_us)
        after = before
        if di in ("04000101", "C010"):
            after = before.replace(year=2000 + _two(payload[3]), month=_two(payload[2]), day=_two(payload[1]))
        elif di in ("04000102", "C011"):
            after = before.replace(hour=_two(payload[2]), minute=_two(payload[1]), second=_two(payload[0]))
        elif di == "0400010C":
            moment = decode_datetime(payload[:3] + payload[4:7])
            if moment is None:
                raise _Error(OTHER)
            after = moment
        elif di.startswith("04000C") and len(payload) == 4:
            meter.password = payload[3:0:-1].hex()
        elif self.version == "2007" and content_2007(meter, data[:size][::-1], now_us) is None:
            raise _Error(NO_DATA)
        else:
            meter.parameters[di] = payload
        if after != before:
            self._set_clock(after, now_us, operator)
        meter.record("programming", now_us, operator=operator, detail=data[:size])

    def _change_password(self, data: bytes, now_us: int) -> bytes:
        size = 0 if self.version == "1997" else 4
        if len(data) != size + 8:
            raise _Error(OTHER)
        self._authorise(data[size : size + 4], now_us)
        new = data[size + 4 :]
        self.meter.password = new[3:0:-1].hex()
        return new

    def _set_clock(self, moment: datetime, now_us: int, operator: bytes) -> None:
        meter = self.meter
        detail = encode_datetime(meter.clock.local(now_us), seconds=True) + encode_datetime(moment, seconds=True)
        meter.clock.set(now_us, moment)
        meter.last_time_set_us = now_us
        meter.record("clock_set", now_us, operator=operator, detail=detail)

    def _set_by_broadcast(self, data: bytes, now_us: int) -> None:
        """Obeyed within 5 minutes of the own clock, once a day, not within 5 minutes of midnight."""
        meter = self.meter
        moment = decode_datetime(data) if len(data) == 6 else None
        if moment is None:
            return
        local = meter.clock.local(now_us)
        day = local.replace(hour=0, minute=0, second=0)
        if abs(moment - local) > CLOCK_LIMIT or not CLOCK_LIMIT < local - day < timedelta(days=1) - CLOCK_LIMIT:
            return
        if meter.last_time_set_us is not None and meter.clock.local(meter.last_time_set_us).date() == local.date():
            return
        self._set_clock(moment, now_us, b"\0\0\0\0")

    def _freeze(self, data: bytes, now_us: int) -> None:
        """mm hh DD MM; 99 = every. All 99: freeze now; otherwise the pattern of the scheduled freeze."""
        if len(data) != 4:
            raise _Error(OTHER)
        if data == b"\x99" * 4:
            self.meter.freezes.setdefault("instant", []).append(now_us)
            del self.meter.freezes["instant"][:-3]
            return
        minute, hour, day = (-1 if b == 0x99 else _two(b) for b in data[:3])
        if not 0 <= minute <= 59 or hour > 23 or day > 28:
            raise _Error(OTHER)
        self.meter.freeze_pattern = (minute, hour, day, now_us)

    def _control(self, data: bytes, now_us: int, item: str) -> None:
        """1C: PA P0 P1 P2, C0–C3, N1 N2, valid until ss mm hh DD MM YY (some makers: without N2 and the time)."""
        meter = self.meter
        if len(data) not in (9, 16):
            raise _Error(OTHER)
        self._authorise(data, now_us)
        action, span = data[8], data[9] if len(data) == 16 else 0
        if len(data) == 16:
            until = decode_datetime(data[10:16])
            if until is None or until < meter.clock.local(now_us):
                raise _Error(OTHER)
        if meter.faults.fires("refuse", now_us):
            raise _Error(OTHER)
        if action in (0x1A, 0x1D, 0x1E) and meter.keep_supply:
            raise _Error(OTHER)
        if action in (0x1D, 0x1E) and (span == 0 or any(r.contact_open for r in meter.relays)):
            raise _Error(OTHER)
        if action in (0x3A, 0x3B):
            meter.protected = action == 0x3A
            for relay in meter.relays:
                relay.protected = meter.protected
                if meter.protected and (relay.contact_open or relay.commanded):
                    relay.permit_close(now_us)  # keeping supply cancels a control in force
            return
        if not meter.relays:
            raise _Error(OTHER)
        for relay in meter.relays[:1]:
            match action:
                case 0x1A:
                    relay.trip(now_us)
                case 0x1B:
                    relay.permit_close(now_us)
                case 0x1C:
                    relay.direct_close(now_us)
                case 0x1D:
                    relay.trip(now_us, close_s=span * 300.0)
                case 0x1E:
                    relay.trip(now_us, permit_s=span * 300.0)
                case 0x2A | 0x2B:
                    relay.alarm = action == 0x2A
                case _:
                    raise _Error(OTHER)


def _two(byte: int) -> int:
    """Two BCD digits; ValueError where they are none."""
    return int(f"{byte:02x}")


class DltLine:
    """A bus with meters. Several may answer a wildcard: their replies collide, as on a real line."""

    def __init__(self, slaves: Sequence[DltSlave]) -> None:
        self.slaves = list(slaves)

    def session(self) -> DltSession:
        """A session with its own buffer."""
        return DltSession(self)


class DltSession:
    """One stream to the bus."""

    def __init__(self, line: DltLine) -> None:
        self._line = line
        self._framer = Framer(limit=255)
        self._fed_us = 0

    def receive(self, data: bytes, now_us: int) -> list[Reply]:
        """What the meters answer to the frames in the bytes."""
        if now_us - self._fed_us > US and len(self._framer):
            self._framer.reset()  # more than the inter-byte limit since the last byte: a torn request
        self._fed_us = now_us
        self._framer.feed(data)
        replies: list[Reply] = []
        while (event := self._framer.next_event()) is not NEED_MORE:
            if isinstance(event, Frame):
                replies += self._one(event, now_us)
        return replies

    def _one(self, request: Frame, now_us: int) -> list[Reply]:
        found = [r for s in self._line.slaves if (r := s.answer(request, now_us)) is not None]
        if len(found) < 2:
            return found
        mixed = bytearray(max(len(r.data) for r in found))
        for reply in found:
            for i, byte in enumerate(reply.data):
                mixed[i] |= byte
        return [Reply(max(r.delay_s for r in found), bytes(mixed), "")]
