"""Requests of a master, both editions. Every builder returns a Frame and rejects what a meter must never be sent.

Writes never go to a wildcard address; DATA stays within 200 bytes (reading) and 50 (writing).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from ..common.bcd import is_bcd
from ..common.errors import UsageError
from ..common.times import encode_datetime
from .codes import action_code, output_name, rate_word
from .frame import ANY, BROADCAST, WRITE_LIMIT, Frame, address_to_wire, make_frame

EVERY: Final = 99  # "every" in a freeze pattern
ALL_EVENTS: Final = "FFFFFFFF"


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes: password level (two digits), password (six BCD digits), operator (eight hex digits)."""

    level: str = "02"
    password: str = "000000"
    operator: str = "00000000"

    def __repr__(self) -> str:
        return f"Access(level={self.level!r}, **)"

    def password_wire(self) -> bytes:
        """PA P0 P1 P2. Levels 98 and 99 (cipher, MAC) need the utility's cryptographic machine: refused here."""
        if len(self.level) != 2 or not self.level.isdecimal() or int(self.level) > 9:
            raise UsageError(f"password level {self.level!r}: 00 to 09 (98 and 99 need a cryptographic machine)")
        if len(self.password) != 6 or not (self.password.isascii() and self.password.isdecimal()):
            raise UsageError("the meter password has six decimal digits")
        return bytes.fromhex(self.level) + bytes.fromhex(self.password)[::-1]

    def wire(self) -> bytes:
        """PA P0 P1 P2 C0 C1 C2 C3."""
        try:
            operator = bytes.fromhex(self.operator)
        except ValueError:
            operator = b""
        if len(operator) != 4:
            raise UsageError("the operator code has eight hexadecimal digits")
        return self.password_wire() + operator[::-1]


def di_wire(di: str, version: str = "2007") -> bytes:
    """DI as sent, low byte first."""
    size = 2 if version == "1997" else 4
    try:
        wire = bytes.fromhex(di)
    except ValueError:
        wire = b""
    if len(wire) != size:
        raise UsageError(f"data identifier {di!r}: DL/T 645-{version} has {2 * size} hexadecimal digits")
    return wire[::-1]


def _one_meter(address: str) -> str:
    if "A" in address.upper():
        raise UsageError(f"address {address}: a write or a command never goes to a wildcard address")
    if address == BROADCAST:
        raise UsageError(f"address {address}: this command never goes to the broadcast address")
    return address


def read(address: str, di: str, version: str = "2007") -> Frame:
    """11H (01H in 1997): read a data item."""
    return make_frame(address, 0x01 if version == "1997" else 0x11, di_wire(di, version))


def read_follow_on(address: str, di: str, seq: int = 1, version: str = "2007") -> Frame:
    """12H (02H, without SEQ): the next part of a long answer; seq counts from 1."""
    if not 1 <= seq <= 255:
        raise UsageError(f"follow-on number {seq}: 1 to 255")
    if version == "1997":
        return make_frame(address, 0x02, di_wire(di, version))
    return make_frame(address, 0x12, di_wire(di) + bytes((seq,)))


def read_load(address: str, di: str, count: int, start: datetime | None = None, version: str = "2007") -> Frame:
    """11H with N (and mm hh DD MM YY): `count` load-record blocks, from `start` (naive device time) if given."""
    if not 1 <= count <= 255:
        raise UsageError(f"{count} load records: 1 to 255 can be asked at once")
    when = _device_time(start, seconds=False) if start is not None else b""
    return make_frame(address, 0x01 if version == "1997" else 0x11, di_wire(di, version) + bytes((count,)) + when)


def _device_time(moment: datetime, *, seconds: bool) -> bytes:
    try:
        return encode_datetime(moment, seconds=seconds)
    except ValueError as error:
        raise UsageError(str(error)) from error


def set_time(moment: datetime, address: str = BROADCAST) -> Frame:
    """08H: broadcast time (or to one meter). A meter obeys once a day and only within 5 minutes of its own clock."""
    if address != BROADCAST:
        _one_meter(address)
    return make_frame(address, 0x08, _device_time(moment, seconds=True))


def freeze(address: str, *, minute: int = EVERY, hour: int = EVERY, day: int = EVERY, month: int = EVERY) -> Frame:
    """16H: freeze now (all 99), hourly at `minute`, daily at hour:minute, or monthly on `day`."""
    ranges = ((minute, 0, 59), (hour, 0, 23), (day, 1, 28), (month, 1, 12))
    if any(n != EVERY and not low <= n <= high for n, low, high in ranges):
        raise UsageError("freeze pattern: minute 0-59, hour 0-23, day 1-28, month 1-12, or 99 for every")
    chosen = [n != EVERY for n, _low, _high in ranges]
    if chosen not in ([False] * 4, [True, False, False, False], [True, True, False, False], [True, True, True, False]):
        raise UsageError("freeze pattern: 99 stands in the higher places only (mm 99 99 99, mm hh 99 99, mm hh DD 99)")
    if address != BROADCAST:
        _one_meter(address)
    return make_frame(address, 0x16, bytes(int(f"{n:02d}", 16) for n, _low, _high in ranges))


def read_address() -> Frame:
    """13H: ask the only meter on the line for its address."""
    return make_frame(ANY, 0x13)


def write_address(new: str, version: str = "2007") -> Frame:
    """15H (0AH in 1997): give the only meter on the line a new address."""
    _one_meter(new)
    return make_frame(ANY, 0x0A if version == "1997" else 0x15, address_to_wire(new), limit=WRITE_LIMIT)


def write(address: str, di: str, payload: bytes, access: Access, version: str = "2007") -> Frame:
    """14H (04H in 1997, without operator): write a parameter; payload as encode_payload gives it."""
    secret = access.password_wire() if version == "1997" else access.wire()
    data = di_wire(di, version) + secret + payload
    return make_frame(_one_meter(address), 0x04 if version == "1997" else 0x14, data, limit=WRITE_LIMIT)


def change_rate(address: str, baud: int, version: str = "2007") -> Frame:
    """17H (0CH in 1997): the meter answers at the old rate, then both switch."""
    word = bytes((rate_word(baud, version),))
    return make_frame(_one_meter(address), 0x0C if version == "1997" else 0x17, word, limit=WRITE_LIMIT)


def change_password(address: str, old: Access, new: Access, version: str = "2007") -> Frame:
    """18H (0FH in 1997, without DI): a level may change itself and lower levels."""
    secrets = old.password_wire() + new.password_wire()
    if version == "1997":
        return make_frame(_one_meter(address), 0x0F, secrets, limit=WRITE_LIMIT)
    di = di_wire(f"04000C{int(new.level) + 1:02X}")
    return make_frame(_one_meter(address), 0x18, di + secrets, limit=WRITE_LIMIT)


def clear_demand(address: str, access: Access, version: str = "2007") -> Frame:
    """19H (10H in 1997): set the maximum demands to zero."""
    if version == "1997":
        return make_frame(_one_meter(address), 0x10, access.password_wire(), limit=WRITE_LIMIT)
    return make_frame(_one_meter(address), 0x19, access.wire(), limit=WRITE_LIMIT)


def clear_meter(address: str, access: Access) -> Frame:
    """1AH: clear all registers."""
    return make_frame(_one_meter(address), 0x1A, access.wire(), limit=WRITE_LIMIT)


def clear_events(address: str, access: Access, di: str = ALL_EVENTS) -> Frame:
    """1BH: clear all events (FFFFFFFF) or one kind (DI0 = FF)."""
    if not di.upper().endswith("FF"):
        raise UsageError(f"clear events {di}: FFFFFFFF for all, or an event identifier ending in FF")
    return make_frame(_one_meter(address), 0x1B, access.wire() + di_wire(di), limit=WRITE_LIMIT)


def control(
    address: str,
    action: str | int,
    access: Access,
    valid_until: datetime | None,
    *,
    n2: int = 0,
    short_form: bool = False,
) -> Frame:
    """1CH: trip, permit to close, direct close, alarm, protection (action: name of codes.toml or N1).

    valid_until: naive meter time after which the meter must refuse; None only with short_form, the older vendor form
    of nine bytes without N2 and time. n2: for trip_auto_close and trip_auto_permit the duration in units of 5 minutes.
    """
    n1 = action if isinstance(action, int) else action_code(action)
    if not 0 <= n1 <= 0xFF or not 0 <= n2 <= 0xFF:
        raise UsageError("control: N1 and N2 are one byte each")
    if n1 in (0x1D, 0x1E) and n2 == 0:
        raise UsageError("control: a trip with automatic closing needs a duration (n2 x 5 minutes)")
    head = access.wire() + bytes((n1,))
    if short_form:
        return make_frame(_one_meter(address), 0x1C, head, limit=WRITE_LIMIT)
    if valid_until is None:
        raise UsageError("control: a valid-until time is required; a delayed frame would act late")
    until = _device_time(valid_until, seconds=True)
    return make_frame(_one_meter(address), 0x1C, head + bytes((n2,)) + until, limit=WRITE_LIMIT)


def multifunction_output(address: str, signal: int) -> Frame:
    """1DH: clock second pulse (0), demand period (1) or slot switch (2) on the multifunction terminal."""
    if output_name(signal) is None:
        raise UsageError(f"multifunction output {signal}: 0 clock pulse, 1 demand period, 2 slot switch")
    return make_frame(_one_meter(address), 0x1D, bytes((signal,)), limit=WRITE_LIMIT)


def bcd_payload(digits: str) -> bytes:
    """Payload from digits in reading order, sent low byte first; UsageError when they are no whole BCD bytes."""
    try:
        wire = bytes.fromhex(digits)[::-1]
    except ValueError:
        wire = b"\xff"
    if not wire or not is_bcd(wire):
        raise UsageError(f"{digits!r}: give an even number of decimal digits")
    return wire
