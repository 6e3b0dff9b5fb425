"""Modbus slave (RTU and TCP) over the register maps of protocols/modbus/profiles: quantities into registers. No I/O.

Answers as real meters do: exception 02 for holes and half values, 03 for more registers than the device takes, silence
for units that are not there, every one of several requests in one segment. A relay is one coil a round: ON = open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..protocols.common.framer import NEED_MORE, Skipped
from ..protocols.modbus.crc import with_crc
from ..protocols.modbus.frame import Frame, MbapFramer, RtuFramer
from ..protocols.modbus.maps import Register, RegisterMap
from ..protocols.modbus.words import TYPES, encode_value
from .faults import delay, spoil
from .meter import SimMeter
from .wire import Reply

Framing = Literal["tcp", "rtu"]
ON: Final = 0xFF00
SUNSPEC_BASE: Final = 40_000
_SUNSPEC_COMMON: Final = 66
# Scale factors a simulated SunSpec meter uses: fixed, large enough for a works of some MW.
_SF: Final = {"A_SF": -1, "V_SF": -1, "Hz_SF": -2, "W_SF": 2, "VA_SF": 2, "VAR_SF": 2, "PF_SF": -1}


class _Refuse(Exception):
    """A Modbus exception code to answer with."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass(slots=True)
class _Image:
    """Registers of one function: words from `base` on, which addresses exist, and which may begin / end a read."""

    base: int
    words: NDArray[np.uint16]
    exists: NDArray[np.bool_]
    inside: NDArray[np.bool_]  # True: this register is not the first of its value


@dataclass(slots=True)
class ModbusSlave:
    """One unit. relay_coil: address of round 1's coil (None: no relay). refresh_s: how long a set of values is shown.

    td_s: reply delay. strict: a read that begins or ends inside a value is refused.
    """

    meter: SimMeter
    map: RegisterMap
    unit: int
    td_s: float = 0.02
    relay_coil: int | None = None
    strict: bool = True
    refresh_s: float = 0.2
    _images: dict[int, _Image] = field(default_factory=dict)
    _filled_us: int = -(1 << 62)

    def __post_init__(self) -> None:
        for function in {r.function for r in self.map.registers}:
            rows = [r for r in self.map.registers if r.function == function]
            blocks = [(b.first, b.last) for b in self.map.blocks if b.function == function]
            shift = self._shift()
            spans = [(r.address, r.end - 1) for r in rows] + blocks
            first, last = min(a for a, _ in spans) + shift, max(b for _, b in spans) + shift
            if self.map.kind == "sunspec":
                first, last = SUNSPEC_BASE, last + 2
            size = last - first + 1
            image = _Image(first, np.zeros(size, np.uint16), np.zeros(size, bool), np.zeros(size, bool))
            for a, b in spans:
                image.exists[a + shift - first : b + shift - first + 1] = True
            for r in rows:
                image.inside[r.address + shift - first + 1 : r.end + shift - first] = True
            if self.map.kind == "sunspec":
                self._sunspec_frame(image)
            self._images[function] = image

    def _shift(self) -> int:
        return SUNSPEC_BASE + 2 + 2 + _SUNSPEC_COMMON if self.map.kind == "sunspec" else 0

    def _sunspec_frame(self, image: _Image) -> None:
        """SunS, common model 1, the meter model's head, end model."""
        image.exists[:] = True
        image.words[0:4] = (0x5375, 0x6E53, 1, _SUNSPEC_COMMON)
        head = 4 + _SUNSPEC_COMMON
        length = max(b.last for b in self.map.blocks) - 1
        image.words[head : head + 2] = (self.map.models[0], length)
        image.words[-2:] = (0xFFFF, 0)

    # --- values -----------------------------------------------------------------------------------------------

    def _fill(self, now_us: int) -> None:
        if 0 <= now_us - self._filled_us < self.refresh_s * 1e6:
            return
        self._filled_us = now_us
        for register in self.map.registers:
            image = self._images[register.function]
            at = register.address + self._shift() - image.base
            image.words[at : at + register.count] = np.frombuffer(self._encoded(register, now_us), ">u2")

    def _encoded(self, register: Register, now_us: int) -> bytes:
        if register.use == "scale":
            return encode_value(_SF.get(register.name, 0), register.type, register.order)
        try:
            value = self.meter.value(register.name, now_us)
        except KeyError:
            value = 1.0 if register.use == "parameter" else 0.0
        if math.isnan(value):
            absent = self.map.not_available.get(register.type)
            if absent is None and TYPES[register.type].absent is None and not TYPES[register.type].is_float:
                value = 0.0
            else:
                return encode_value(None, register.type, register.order, absent)
        raw = value * register.quotient / 10.0 ** _SF.get(register.sf, 0)
        kind = TYPES[register.type]
        if not kind.is_float:
            bits, signed = 8 * kind.size, kind.code[0] == "i"
            top = (1 << (bits - signed)) - 1
            raw = min(max(math.floor(raw + 1e-9), -top if signed else 0), top)
        return encode_value(raw, register.type, register.order)

    # --- requests ---------------------------------------------------------------------------------------------

    def answer(self, pdu: bytes, now_us: int) -> bytes | None:
        """Reply PDU, or None: nothing is said."""
        meter, function = self.meter, pdu[0]
        meter.advance(now_us)
        item = f"{int.from_bytes(pdu[1:3], 'big'):04X}"
        if meter.silent(now_us, item):
            return None
        try:
            if function in (3, 4):
                return self._read(function, pdu, now_us, item)
            if function in (1, 2):
                return self._coils(pdu)
            if function in (5, 15):
                return self._write(pdu, now_us, item)
            raise _Refuse(2 if function in (6, 16) else 1)
        except _Refuse as refusal:
            return bytes((function | 0x80, refusal.code))

    def _read(self, function: int, pdu: bytes, now_us: int, item: str) -> bytes:
        start, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        image = self._images.get(function)
        if image is None:
            raise _Refuse(1)
        if not 1 <= count <= self.map.max_registers:
            raise _Refuse(3)
        a, b = start - image.base, start - image.base + count
        if a < 0 or b > len(image.words) or not image.exists[a:b].all():
            raise _Refuse(2)
        if self.strict and (image.inside[a] or (b < len(image.words) and image.inside[b])):
            raise _Refuse(2)
        faults = self.meter.faults
        if faults.fires("refuse_read", now_us, item):
            raise _Refuse(4)
        self._fill(now_us)
        data = image.words[a:b].astype(">u2").tobytes()
        if faults.fires("fill_ff", now_us, item):
            data = b"\xff" * len(data)
        elif faults.fires("fill_ee", now_us, item):
            data = b"\xee" * len(data)
        return bytes((function, len(data))) + data

    def _span(self, pdu: bytes) -> tuple[int, int]:
        """First round index and count of coils asked; exception 02 outside the relays."""
        start, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        if self.relay_coil is None:
            raise _Refuse(1)
        first = start - self.relay_coil
        if first < 0 or count < 1 or first + count > len(self.meter.relays):
            raise _Refuse(2)
        return first, count

    def _coils(self, pdu: bytes) -> bytes:
        first, count = self._span(pdu)
        bits = sum(self.meter.relays[first + i].contact_open << i for i in range(count))
        return bytes((pdu[0], (count + 7) // 8)) + bits.to_bytes((count + 7) // 8, "little")

    def _write(self, pdu: bytes, now_us: int, item: str) -> bytes | None:
        meter = self.meter
        if pdu[0] == 5:
            first, count = self._span(pdu[:3] + b"\0\1")
            value = int.from_bytes(pdu[3:5], "big")
            if value not in (0, ON):
                raise _Refuse(3)
            wanted = [value == ON]
        else:
            first, count = self._span(pdu)
            if len(pdu) != 6 + (count + 7) // 8:
                raise _Refuse(3)
            wanted = [bool(pdu[6 + i // 8] >> i % 8 & 1) for i in range(count)]
        if meter.faults.fires("refuse", now_us, item) or (meter.keep_supply and any(wanted)):
            raise _Refuse(4)
        for i, opened in enumerate(wanted):
            relay = meter.relays[first + i]
            if opened:
                relay.trip(now_us)
            else:
                relay.direct_close(now_us)
        self._filled_us = -(1 << 62)
        return None if meter.faults.fires("no_ack", now_us, item) else pdu[:5]


class ModbusLine:
    """The units behind one port. A unit that is not there stays silent (serial) or is answered 0B (gateway)."""

    def __init__(self, slaves: Mapping[int, ModbusSlave], framing: Framing = "tcp", *, gateway: bool = False) -> None:
        self.slaves = dict(slaves)
        self.framing = framing
        self.gateway = gateway

    def session(self) -> ModbusSession:
        """A session with its own buffer."""
        return ModbusSession(self)


class ModbusSession:
    """One connection (or the serial line)."""

    def __init__(self, line: ModbusLine) -> None:
        self._line = line
        self._framer = MbapFramer("request") if line.framing == "tcp" else RtuFramer("request")

    def receive(self, data: bytes, now_us: int) -> list[Reply]:
        """Every request in the bytes, answered in order."""
        self._framer.feed(data)
        replies: list[Reply] = []
        while (event := self._framer.next_event()) is not NEED_MORE:
            if isinstance(event, Skipped):
                continue
            assert isinstance(event, Frame)
            reply = self._answer(event, now_us)
            if reply is not None:
                replies.append(reply)
        return replies

    def _answer(self, request: Frame, now_us: int) -> Reply | None:
        slave = self._line.slaves.get(request.unit)
        if slave is None:
            if not self._line.gateway:
                return None
            return Reply(0.0, self._wrap(request, request.unit, bytes((request.pdu[0] | 0x80, 0x0B))), "")
        pdu = slave.answer(request.pdu, now_us)
        if pdu is None:
            return None
        meter, item = slave.meter, request.pdu[1:3].hex().upper()
        unit = request.unit
        if meter.faults.fires("wrong_address", now_us, item):
            unit = unit % 247 + 1
        wire = spoil(meter.faults, request.raw, self._wrap(request, unit, pdu), now_us, item)
        return Reply(slave.td_s + delay(meter.faults, now_us, item), wire, meter.name)

    def _wrap(self, request: Frame, unit: int, pdu: bytes) -> bytes:
        if self._line.framing == "tcp":
            head = (request.transaction or 0).to_bytes(2, "big") + b"\0\0" + (len(pdu) + 1).to_bytes(2, "big")
            return head + bytes((unit,)) + pdu
        return with_crc(bytes((unit,)) + pdu)
