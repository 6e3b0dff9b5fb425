"""Messages as plain objects and back: the form of `fuhe decode` and `fuhe encode`, which JSON can carry.

    length, protocol_id, preamble_fe, control{raw, dir, prm, fcb, fcv | acd, func}, address{a1, a2, group, msa}, afn,
    seq{tpv, fir, fin, con, seq}, items[{pn, fn, name, data, joined, fault}],
    aux{pw_hex, tp{pfc, sent, delay_min}, ec}, cs

Numbers that are not whole, and times, are text; a value that is not there is null. A value in format A.3 is the number
as sent with the flag of its unit beside it: <name>_unit_flag (unit_flag for a lone value), 1 = thousands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Final

import msgspec

from ..common.checksum import sum8
from ..common.errors import UsageError
from .dadt import ALL_POINTS
from .edition import Edition, edition
from .formats import text_of, to_decimal
from .frame import Address, Frame
from .layout import Layout, all_fields
from .message import Message, Tp, request
from .table import lookup, lookup_erc
from .units import UNKNOWN_FN, Unit

Plain = dict[str, object]
EVERY_POINT: Final = "all"
_THOUSANDS: Final = "A.3"


# --- values ---------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=4096)
def _kilo(layout: Layout) -> frozenset[str]:
    """Names of the fields in format A.3."""
    return frozenset(field.name for field in all_fields(layout) if field.format == _THOUSANDS)


def _inside(value: Mapping[str, object], kilo: frozenset[str]) -> frozenset[str]:
    """Those of a nested object: an event has a layout of its own."""
    erc = value.get("erc")
    row = lookup_erc(erc) if isinstance(erc, int) else None
    return kilo if row is None else _kilo(row.fields)


def plain_data(data: Mapping[str, object], kilo: frozenset[str] = frozenset()) -> Plain:
    """Values of a data unit as JSON can carry them."""
    out: Plain = {}
    alone = len(data) == 1
    for key, value in data.items():
        if key in kilo:
            out[key], out["unit_flag" if alone else f"{key}_unit_flag"] = _thousands(value)
        else:
            out[key] = _plain_value(value, kilo)
    return out


def _plain_value(value: object, kilo: frozenset[str]) -> object:
    if isinstance(value, Mapping):
        return plain_data(value, _inside(value, kilo))
    if isinstance(value, (list, tuple)):
        return [_plain_value(v, kilo) for v in value]
    return text_of(value)


def _thousands(value: object) -> tuple[object, object]:
    """(number as sent, flag); lists of both for a list."""
    if isinstance(value, (list, tuple)):
        pairs = [_thousands(v) for v in value]
        return [n for n, _ in pairs], [f for _, f in pairs]
    if not isinstance(value, Decimal):
        return None, 0
    flag = int(value.as_tuple().exponent == 3)
    return text_of(value.scaleb(-3) if flag else value), flag


def _join_thousands(value: object, flag: object) -> object:
    if isinstance(value, (list, tuple)):
        flags = flag if isinstance(flag, (list, tuple)) else [flag] * len(value)
        if len(flags) != len(value):
            raise UsageError("give as many unit flags as values")
        return [_join_thousands(v, f) for v, f in zip(value, flags, strict=True)]
    return to_decimal(_THOUSANDS, value).scaleb(3) if flag and value is not None else value


def _data_of_plain(data: Mapping[str, object], kilo: frozenset[str]) -> Plain:
    """The inverse of plain_data (formats take text)."""
    out: Plain = {}
    for key, value in data.items():
        if key.removesuffix("_unit_flag") in kilo or (key == "unit_flag" and kilo):
            if key in kilo:
                flag = data.get(f"{key}_unit_flag", data.get("unit_flag", 0))
                out[key] = _join_thousands(value, flag)
        elif isinstance(value, Mapping):
            out[key] = _data_of_plain(value, _inside(value, kilo))
        elif isinstance(value, list):
            out[key] = [_data_of_plain(v, _inside(v, kilo)) if isinstance(v, Mapping) else v for v in value]
        else:
            out[key] = value
    return out


# --- messages -------------------------------------------------------------------------------------------------------
def plain_unit(unit: Unit, afn: int, up: bool, peer: Edition) -> Plain:
    """One data unit."""
    row = lookup(afn, unit.fn, peer.name) if unit.fn else None
    out: Plain = {"pn": EVERY_POINT if unit.pn == ALL_POINTS else unit.pn, "fn": unit.fn}
    if row is not None:
        out["name"] = row.name
    if unit.data is None:
        out["data"] = {"raw_hex": unit.raw.hex().upper()}
    else:
        out["data"] = plain_data(unit.data, _kilo(row.layout(afn, up)) if row is not None else frozenset())
    if unit.joined:
        out["joined"] = True
    if unit.fault:
        out["fault"] = unit.fault
    return out


def plain_message(message: Message, frame: Frame, peer: Edition | None = None) -> Plain:
    """A message and the frame that carried it."""
    peer = peer or edition()
    control: Plain = {"raw": f"{frame.control:02X}", "dir": "up" if message.up else "down", "prm": int(message.prm)}
    if message.up:
        control["acd"] = int(message.acd)
    else:
        control |= {"fcb": int(message.fcb), "fcv": int(message.fcv)}
    control["func"] = message.function
    address = message.address
    out: Plain = {"valid": True}
    if frame.lead:
        out["preamble_fe"] = frame.lead
    out |= {
        "length": frame.length,
        "protocol_id": frame.protocol_id,
        "control": control,
        "address": {"a1": address.a1, "a2": address.a2, "group": int(address.group), "msa": address.msa},
        "afn": f"{message.afn:02X}",
        "seq": {
            "tpv": int(message.tp is not None),
            "fir": int(message.fir),
            "fin": int(message.fin),
            "con": int(message.con),
            "seq": message.seq,
        },
        "items": [plain_unit(unit, message.afn, message.up, peer) for unit in message.units],
    }
    if message.rest:
        out["rest_hex"] = message.rest.hex().upper()
    aux: Plain = {}
    if message.ec is not None:
        aux["ec"] = list(message.ec)
    if message.tp is not None:
        aux["tp"] = {"pfc": message.tp.pfc, "sent": message.tp.sent, "delay_min": message.tp.delay_min}
    if message.pw or (not message.up and message.afn in peer.pw_afn):
        aux["pw_hex"] = (message.pw or b"").hex().upper()
    if aux:
        out["aux"] = aux
    out["cs"] = f"{sum8(bytes((frame.control,)) + address.wire + frame.user):02X}"
    return out


# --- and back -------------------------------------------------------------------------------------------------------
class _Control(msgspec.Struct, forbid_unknown_fields=True):
    raw: str | None = None
    dir: str = "down"
    prm: int = 1
    fcb: int = 0
    fcv: int = 0
    acd: int = 0
    func: int | None = None


class _Address(msgspec.Struct, forbid_unknown_fields=True):
    a1: str
    a2: int
    group: int = 0
    msa: int = 0


class _Seq(msgspec.Struct, forbid_unknown_fields=True):
    tpv: int = 0
    fir: int = 1
    fin: int = 1
    con: int = 0
    seq: int = 0


class _Tp(msgspec.Struct, forbid_unknown_fields=True):
    pfc: int
    sent: str
    delay_min: int = 0


class _Aux(msgspec.Struct, forbid_unknown_fields=True):
    ec: tuple[int, int] | None = None
    tp: _Tp | None = None
    pw_hex: str | None = None


class _Item(msgspec.Struct, forbid_unknown_fields=True):
    pn: int | str
    fn: int
    data: dict[str, object] = {}
    joined: bool = False
    fault: str = ""
    name: str = ""


class _Message(msgspec.Struct):
    address: _Address
    afn: str
    items: list[_Item]
    control: _Control | None = None
    seq: _Seq = msgspec.field(default_factory=_Seq)
    aux: _Aux = msgspec.field(default_factory=_Aux)
    protocol_id: int | None = None
    preamble_fe: int = 0
    rest_hex: str = ""


_SENT: Final = re.compile(r"(\d\d|--) (\d\d|--):(\d\d|--):(\d\d|--)")


def message_of_plain(raw: object, peer: Edition | None = None) -> Message:
    """The message of a plain object. Only address, afn and items are needed; the rest is that of a request.

    UsageError tells what is wrong in it.
    """
    peer = peer or edition()
    try:
        one = msgspec.convert(raw, type=_Message)
    except msgspec.ValidationError as error:
        raise UsageError(f"this is no message: {error}") from None
    afn = _byte("afn", one.afn)
    control = one.control or _Control()
    number = None if control.raw is None else _byte("control.raw", control.raw)
    if control.dir not in ("up", "down"):
        raise UsageError("control.dir is up or down")
    up = control.dir == "up" if number is None else number >= 0x80
    units = tuple(_unit(item, afn, up, peer) for item in one.items)
    address = Address(one.address.a1, one.address.a2, bool(one.address.group), one.address.msa)
    made = request(address, afn, units, peer, seq=one.seq.seq, con=bool(one.seq.con))
    if number is None:
        function = made.function if control.func is None else control.func
        prm, fcb, fcv, acd = bool(control.prm), bool(control.fcb), bool(control.fcv), bool(control.acd)
    else:
        function, prm, fcv = number & 15, bool(number & 0x40), bool(number & 0x10)
        fcb = acd = bool(number & 0x20)
    return msgspec.structs.replace(
        made,
        up=up,
        prm=prm,
        function=function,
        fcb=fcb and not up,
        fcv=fcv,
        acd=acd and up,
        fir=bool(one.seq.fir),
        fin=bool(one.seq.fin),
        tp=_time_tag(one.aux.tp),
        pw=None if one.aux.pw_hex is None else _bytes("aux.pw_hex", one.aux.pw_hex),
        ec=one.aux.ec,
        protocol_id=peer.protocol_id if one.protocol_id is None else one.protocol_id,
        lead=one.preamble_fe,
        rest=_bytes("rest_hex", one.rest_hex),
    )


def _unit(item: _Item, afn: int, up: bool, peer: Edition) -> Unit:
    if isinstance(item.pn, str):
        if item.pn != EVERY_POINT:
            raise UsageError(f'pn {item.pn!r}: give a number, or "{EVERY_POINT}" for all valid points')
        pn = ALL_POINTS
    else:
        pn = item.pn
    row = lookup(afn, item.fn, peer.name) if 1 <= item.fn <= 2048 else None
    raw = item.data.get("raw_hex")
    if row is None or item.fault:
        if item.data and not (isinstance(raw, str) and len(item.data) == 1):
            raise UsageError(f"AFN {afn:02X} F{item.fn} is not in the tables: give its data as raw_hex")
        wire = _bytes("raw_hex", raw) if isinstance(raw, str) else b""
        return Unit(pn, item.fn, None if "raw_hex" in item.data else {}, wire, item.fault or UNKNOWN_FN, item.joined)
    return Unit(pn, item.fn, _data_of_plain(item.data, _kilo(row.layout(afn, up))), joined=item.joined)


def _time_tag(raw: _Tp | None) -> Tp | None:
    if raw is None:
        return None
    match = _SENT.fullmatch(raw.sent)
    if match is None:
        raise UsageError(f"aux.tp.sent {raw.sent!r}: give DD hh:mm:ss")
    day, hour, minute, second = (None if g == "--" else int(g) for g in match.groups())
    return Tp(raw.pfc, day, hour, minute, second, raw.delay_min)


def _byte(name: str, text: str) -> int:
    wire = _bytes(name, text)
    if len(wire) != 1:
        raise UsageError(f"{name} {text!r}: give two hexadecimal digits")
    return wire[0]


def _bytes(name: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{name} {text!r}: give hexadecimal digits") from None
