"""The application layer of one frame (Q/GDW 376.1 clause 5.4): AFN, SEQ, data units, additional information.

    AFN   SEQ   DA DT  data unit ...  DA DT  data unit ...   AUX
    |     |                                                  down: PW (AFN 01 04 05 06 0F 10), Tp if D7 of SEQ
    |     D7 TpV, D6 FIR, D5 FIN, D4 CON, D3-D0 number       up: EC if ACD, Tp if D7 of SEQ
    application function

AUX is cut from the end. Where the length of PW is only a guess (no edition told), or on AFN 10 (some masters send
none), the length that lets the data units fit exactly is taken. A unit that cannot be read keeps its bytes and says
why; the units before it are good.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from ..common.errors import PeerError, UsageError
from . import dadt
from .auth import AuthProvider
from .edition import Edition, edition
from .frame import Address, Frame
from .units import Unit, read_units, write_units

RELAY: Final = 0x10
LINK: Final = 0x02
_PW_GUESSES: Final = {1: (2, 16, 0), 2: (16, 2, 0)}


class Tp(msgspec.Struct, frozen=True):
    """Time tag (时间标签): PFC of the initiating frame, time of sending, permitted delay (0 = not checked).

    A part that is no BCD number is None.
    """

    pfc: int
    day: int | None
    hour: int | None
    minute: int | None
    second: int | None
    delay_min: int = 0

    @classmethod
    def at(cls, pfc: int, moment: datetime, delay_min: int = 0) -> Tp:
        """The tag of a frame sent at a time of the device's zone."""
        return cls(pfc, moment.day, moment.hour, moment.minute, moment.second, delay_min)

    @property
    def sent(self) -> str:
        """DD hh:mm:ss, with -- where there is no number."""
        day, hour, minute, second = (
            "--" if n is None else f"{n:02d}" for n in (self.day, self.hour, self.minute, self.second)
        )
        return f"{day} {hour}:{minute}:{second}"

    @property
    def wire(self) -> bytes:
        """The six bytes; UsageError where a part does not fit."""
        parts = (self.second, self.minute, self.hour, self.day)
        if (
            not 0 <= self.pfc <= 255
            or not 0 <= self.delay_min <= 255
            or not all(n is None or 0 <= n <= 99 for n in parts)
        ):
            raise UsageError(f"time tag {self}: PFC and delay are 0 to 255, the others two digits")
        stamp = bytes(0xEE if n is None else n // 10 << 4 | n % 10 for n in parts)
        return bytes((self.pfc, *stamp, self.delay_min))


def _tp(wire: bytes) -> Tp:
    second, minute, hour, day = ((b >> 4) * 10 + (b & 15) if b >> 4 < 10 and b & 15 < 10 else None for b in wire[1:5])
    return Tp(wire[0], day, hour, minute, second, wire[5])


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What a frame says. fcb counts only down, acd and ec only up; fcv of an uplink frame is its reserved bit D4.

    pw: None = what the edition asks for (zeros), b"" = none; rest: bytes behind the last unit that are no identifier.
    """

    up: bool
    prm: bool
    function: int
    address: Address
    afn: int
    seq: int = 0
    units: tuple[Unit, ...] = ()
    fcb: bool = False
    fcv: bool = False
    acd: bool = False
    fir: bool = True
    fin: bool = True
    con: bool = False
    tp: Tp | None = None
    pw: bytes | None = None
    ec: tuple[int, int] | None = None
    protocol_id: int = 2
    lead: int = 0
    rest: bytes = b""

    @property
    def control(self) -> int:
        """Control byte."""
        fifth = self.acd if self.up else self.fcb
        return self.up << 7 | self.prm << 6 | fifth << 5 | self.fcv << 4 | self.function

    @property
    def seq_byte(self) -> int:
        """SEQ."""
        return (self.tp is not None) << 7 | self.fir << 6 | self.fin << 5 | self.con << 4 | self.seq

    @property
    def single(self) -> bool:
        """The only frame of its run."""
        return self.fir and self.fin

    @property
    def confirmed(self) -> bool | None:
        """True, False for AFN 00 F1, F2 and F3 (False when any item was denied); None for anything else."""
        if self.afn or not self.units:
            return None
        unit = self.units[0]
        if unit.fn == 3 and unit.data is not None:
            results = unit.data["results"]
            assert isinstance(results, list)
            return all(r["err"] == 0 for r in results)
        return {1: True, 2: False, 4: False}.get(unit.fn)


def _pw_lengths(frame: Frame, afn: int, peer: Edition) -> tuple[int, ...]:
    """Lengths of PW to try, the most likely first."""
    if frame.control >= 0x80 or afn not in peer.pw_afn:
        return (0,)
    if peer.pw_guess:
        return _PW_GUESSES[frame.protocol_id]
    return (peer.pw_length, 0) if afn == RELAY and peer.pw_length else (peer.pw_length,)


def parse(frame: Frame, peer: Edition | None = None) -> Message:
    """The message of a frame. PeerError: no AFN and SEQ, or no room for the additional information."""
    peer = peer or edition()
    user, control = frame.user, frame.control
    size = len(user)
    if size < 2:
        raise PeerError("frame without AFN and SEQ: ask the device again")
    afn, seq = user[0], user[1]
    up = control >= 0x80
    acd = up and bool(control & 0x20)
    end = size - (6 if seq & 0x80 else 0)
    tp = _tp(user[end:]) if end < size and end >= 2 else None
    ec_at = end - 2 if acd else end
    chosen: tuple[int, list[Unit], bytes] | None = None
    for length in _pw_lengths(frame, afn, peer):
        stop = ec_at - length
        if stop < 2:
            continue
        units, rest = read_units(user, 2, stop, afn, up, peer.name)
        clean = not rest and not any(unit.fault for unit in units)
        if chosen is None or clean:
            chosen = (stop, units, rest)
        if clean:
            break
    if chosen is None:
        raise PeerError("the frame is too short for its password, event counter or time tag: ask the device again")
    stop, units, rest = chosen
    return Message(
        up=up,
        prm=bool(control & 0x40),
        function=control & 0x0F,
        address=frame.address,
        afn=afn,
        seq=seq & 0x0F,
        units=tuple(units),
        fcb=not up and bool(control & 0x20),
        fcv=bool(control & 0x10),
        acd=acd,
        fir=bool(seq & 0x40),
        fin=bool(seq & 0x20),
        con=bool(seq & 0x10),
        tp=tp,
        pw=user[stop:ec_at],
        ec=(user[ec_at], user[ec_at + 1]) if acd else None,
        protocol_id=frame.protocol_id,
        lead=frame.lead,
        rest=rest,
    )


def build(message: Message, peer: Edition | None = None, auth: AuthProvider | None = None) -> Frame:
    """The frame of a message. UsageError: a number, an identifier or a field that does not fit.

    `auth` makes PW of the user data before it (C .. last data unit), when the message has none of its own.
    """
    peer = peer or edition()
    if not 0 <= message.function <= 15 or not 0 <= message.afn <= 255 or not 0 <= message.seq <= 15:
        raise UsageError(
            f"function {message.function}, AFN {message.afn} or sequence number {message.seq} does not fit its bits"
        )
    body = bytearray((message.afn, message.seq_byte))
    body += write_units(message.units, message.afn, message.up, peer.name)
    body += message.rest
    if message.up:
        body += _event_counters(message)
    else:
        body += _password(message, peer, auth, bytes(body))
    if message.tp is not None:
        body += message.tp.wire
    return Frame(message.control, message.address, bytes(body), message.protocol_id, message.lead)


def _password(message: Message, peer: Edition, auth: AuthProvider | None, body: bytes) -> bytes:
    if message.pw is not None:
        return message.pw
    if message.afn not in peer.pw_afn:
        return b""
    if auth is None:
        return bytes(peer.pw_length)
    return auth.pw(bytes((message.control,)) + message.address.wire + body)


def _event_counters(message: Message) -> bytes:
    if message.acd != (message.ec is not None):
        raise UsageError("an uplink frame has EC exactly when its ACD bit is set")
    if message.ec is None:
        return b""
    if not all(0 <= n <= 255 for n in message.ec):
        raise UsageError(f"event counters {message.ec} are not 0 to 255")
    return bytes(message.ec)


# --- what the two sides usually send ---------------------------------------------------------------------------------
_REQUEST_FUNCTION: Final = {0x01: 1, 0x02: 9, 0x04: 10, 0x05: 10, 0x0F: 10}


def request(
    address: Address,
    afn: int,
    units: Sequence[Unit],
    peer: Edition | None = None,
    *,
    seq: int = 0,
    con: bool = False,
    tp: Tp | None = None,
    pw: bytes | None = None,
) -> Message:
    """A request of the master station (FCV = 0; function code by AFN, table of clause 5.3.3.5)."""
    peer = peer or edition()
    return Message(
        up=False,
        prm=True,
        function=_REQUEST_FUNCTION.get(afn, 11),
        address=address,
        afn=afn,
        seq=seq,
        units=tuple(units),
        con=con,
        tp=tp,
        pw=pw,
        protocol_id=peer.protocol_id,
    )


def reply(
    to: Message,
    units: Sequence[Unit],
    *,
    afn: int | None = None,
    function: int = 8,
    tp: Tp | None = None,
    ec: tuple[int, int] | None = None,
) -> Message:
    """The answer to a message, from the other side: same address, number and protocol id, its time tag unless told."""
    return Message(
        up=not to.up,
        prm=False,
        function=function,
        address=to.address,
        afn=to.afn if afn is None else afn,
        seq=to.seq,
        units=tuple(units),
        acd=ec is not None,
        ec=ec,
        tp=tp or to.tp,
        pw=b"",
        protocol_id=to.protocol_id,
    )


def confirm(to: Message, *, ok: bool = True, ec: tuple[int, int] | None = None, function: int | None = None) -> Message:
    """AFN 00 F1 or F2. Function code: 11 for a link test, else 0 (confirmed) or 9 (denied)."""
    if function is None:
        function = 11 if to.afn == LINK else 0 if ok else 9
    return reply(to, (Unit(0, 1 if ok else 2, {}),), afn=0, function=function, ec=ec)


def confirm_each(to: Message, errors: Sequence[int] = (), *, ec: tuple[int, int] | None = None) -> Message:
    """AFN 00 F3: an error number (0 = done) for each unit of `to`, in order; missing ones are 0."""
    results: list[object] = []
    for i, unit in enumerate(to.units):
        err = errors[i] if i < len(errors) else 0
        results.append({"dadt": dadt.single(unit.pn, unit.fn).hex().upper(), "err": err})
    data: dict[str, object] = {"afn": f"{to.afn:02X}", "results": results}
    return reply(to, (Unit(0, 3, data),), afn=0, function=11 if to.afn == LINK else 0, ec=ec)
