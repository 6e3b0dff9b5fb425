"""Explains Modbus bytes for people and programs (`fuhe decode`): one frame, or a capture of requests and replies.

A reply does not say which registers it holds; where the request stands before it, the registers get their addresses
and, with a register map, names, values and units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pymodbus.pdu import DecodePDU, ModbusPDU

from ..common.errors import PeerError
from ..common.framer import NeedMore, Skipped
from .frame import Frame, MbapFramer, RtuFramer
from .gather import Gather
from .grouping import read_of
from .maps import RegisterMap, load_map
from .wire import EXCEPTIONS

_REQUESTS = DecodePDU(True)
_REPLIES = DecodePDU(False)
# 2 and 1 bytes of data in a reply look like nothing else; requests of these functions carry address and count
_ADDRESSED = frozenset((1, 2, 3, 4, 5, 6, 15, 16))

Decoded = dict[str, object]


def decode_rtu(data: bytes, profile: str | None = None) -> Decoded:
    """Keys: valid, unit, function, direction, address, count, registers, coils, value, exception, values.

    Several frames come as {"valid", "frames": [...]}; noise between them as "skipped": [{"count", "reason"}].
    A frame with a bad CRC is {"valid": false, "reason": "crc"}. `profile` names a register map.
    """
    return _decode(data, RtuFramer(), profile)


def decode_tcp(data: bytes, profile: str | None = None) -> Decoded:
    """As `decode_rtu`, with "transaction"."""
    return _decode(data, MbapFramer(), profile)


def _decode(data: bytes, framer: RtuFramer | MbapFramer, profile: str | None) -> Decoded:
    regmap = load_map(profile) if profile else None
    frames: list[Frame] = []
    skipped: list[Decoded] = []
    # a chunk at a time, so that a long capture is never held whole by the framer
    for start in range(0, max(len(data), 1), 4096):
        framer.feed(data[start : start + 4096])
        if start + 4096 >= len(data):
            framer.flush()
        while not isinstance(event := framer.next_event(), NeedMore):
            if isinstance(event, Skipped):
                skipped.append({"count": event.count, "reason": event.reason})
            else:
                frames.append(event)
    if not frames:
        return {"valid": False, "reason": skipped[0]["reason"] if skipped else "empty"}
    explained = _pair(frames, regmap)
    result: Decoded = explained[0] if len(frames) == 1 else {"valid": True, "frames": explained}
    if skipped:
        result["skipped"] = skipped
    return result


def _pair(frames: Sequence[Frame], regmap: RegisterMap | None) -> list[Decoded]:
    """Explain each frame; a request is remembered until its reply (same unit and function, same transaction) came."""
    explained: list[Decoded] = []
    asked: dict[tuple[int | None, int, int], tuple[int, int]] = {}
    for frame in frames:
        key = (frame.transaction, frame.unit, frame.function)
        request = asked.pop(key, None)
        direction = frame.direction or _direction_by_length(frame, request is not None)
        row = _explain(frame, direction, request, regmap)
        explained.append(row)
        if direction == "request" and row["valid"] and frame.function in _ADDRESSED:
            if len(asked) >= 1024:
                asked.clear()
            address, count = row["address"], row.get("count", 1)
            assert isinstance(address, int) and isinstance(count, int)
            asked[key] = (address, count)
    return explained


def _direction_by_length(frame: Frame, answered: bool) -> str:
    """Modbus TCP does not say: a read reply carries a byte count that fits; writes alternate."""
    pdu = frame.pdu
    if frame.function in (1, 2, 3, 4, 23):
        fits = len(pdu) > 1 and len(pdu) == 2 + pdu[1] and (frame.function <= 2 or pdu[1] % 2 == 0)
        return "reply" if fits and (answered or len(pdu) != 5) else "request"
    if frame.function in (15, 16):
        return "reply" if len(pdu) == 5 else "request"
    return "reply" if answered else "request"


def _explain(frame: Frame, direction: str, request: tuple[int, int] | None, regmap: RegisterMap | None) -> Decoded:
    """One frame as a dictionary. `request`: (address, count) that this reply answers."""
    row: Decoded = {"valid": True, "unit": frame.unit, "function": frame.function, "direction": direction}
    if frame.transaction is not None:
        row["transaction"] = frame.transaction
    if frame.exception is not None:
        row["exception"] = frame.exception
        row["exception_name"] = EXCEPTIONS.get(frame.exception, "unknown exception")
        return row
    try:
        pdu = _parse(frame, direction)
    except PeerError as error:
        return {**row, "valid": False, "reason": "pdu", "detail": str(error)}
    detail = _DETAILS.get((frame.function, direction))
    if detail is None:
        row["data"] = frame.pdu[1:].hex().upper()
        return row
    row.update(detail(pdu))
    if direction == "reply" and request is not None:
        row.setdefault("address", request[0])
        _trim_coils(row, request[1])
    if regmap is not None and frame.function in (3, 4):
        _name_values(row, frame, direction, regmap)
    return row


def _parse(frame: Frame, direction: str) -> ModbusPDU:
    """The PDU by pymodbus's own classes; PeerError when its lengths contradict each other."""
    pdu = frame.pdu
    table = (_REQUESTS if direction == "request" else _REPLIES).pdu_table
    pair = table.get(pdu[0])
    if pair is None:
        raise PeerError(f"function {pdu[0]} is not known")
    wanted = _size(pdu, direction)
    if wanted is not None and len(pdu) != wanted:
        raise PeerError(f"message of {len(pdu)} bytes, its own count says {wanted}")
    parsed = (_REQUESTS if direction == "request" else _REPLIES).decode(pdu)
    if parsed is None:
        raise PeerError(f"the fields of function {pdu[0]} are outside what the protocol allows")
    return parsed


def _size(pdu: bytes, direction: str) -> int | None:
    """Bytes the PDU must have by its own fields; None where this module does not look inside."""
    function = pdu[0]
    if function in (1, 2, 3, 4):
        if direction == "request":
            return 5
        even = len(pdu) > 1 and (function <= 2 or pdu[1] % 2 == 0)
        return 2 + pdu[1] if even else -1
    if function in (5, 6):
        return 5
    if function in (15, 16):
        if direction == "reply":
            return 5
        return 6 + pdu[5] if len(pdu) > 5 else -1
    return None


def _coils_of(pdu: ModbusPDU) -> Decoded:
    return {"coils": [int(b) for b in pdu.bits]}


def _registers_of(pdu: ModbusPDU) -> Decoded:
    return {"count": len(pdu.registers), "registers": [int(r) for r in pdu.registers]}


def _address_count(pdu: ModbusPDU) -> Decoded:
    return {"address": pdu.address, "count": pdu.count}


def _one_coil(pdu: ModbusPDU) -> Decoded:
    return {"address": pdu.address, "count": 1, "value": bool(pdu.bits[0])}


def _one_register(pdu: ModbusPDU) -> Decoded:
    return {"address": pdu.address, "count": 1, "value": int(pdu.registers[0]), "registers": [int(pdu.registers[0])]}


def _many_coils(pdu: ModbusPDU) -> Decoded:
    return {"address": pdu.address, "count": pdu.count, "coils": [int(b) for b in pdu.bits[: pdu.count]]}


def _many_registers(pdu: ModbusPDU) -> Decoded:
    return {"address": pdu.address, "count": pdu.count, "registers": [int(r) for r in pdu.registers]}


_DETAILS: dict[tuple[int, str], Callable[[ModbusPDU], Decoded]] = {
    **{(f, "request"): _address_count for f in (1, 2, 3, 4)},
    **{(f, "reply"): _coils_of for f in (1, 2)},
    **{(f, "reply"): _registers_of for f in (3, 4)},
    **{(5, d): _one_coil for d in ("request", "reply")},
    **{(6, d): _one_register for d in ("request", "reply")},
    (15, "request"): _many_coils,
    (16, "request"): _many_registers,
    **{(f, "reply"): _address_count for f in (15, 16)},
}


def _trim_coils(row: Decoded, count: int) -> None:
    """A reply of coils is filled up to whole bytes; the request says how many were meant."""
    coils = row.get("coils")
    if isinstance(coils, list) and len(coils) >= count:
        row["coils"] = coils[:count]
        row["count"] = count


def _name_values(row: Decoded, frame: Frame, direction: str, regmap: RegisterMap) -> None:
    """Which rows of the map a request asks for, or a reply (whose address is known) holds.

    SunSpec maps fit when the capture begins at the model's own block.
    """
    address, count = row.get("address"), row.get("count")
    if not isinstance(address, int) or not isinstance(count, int):
        return
    inside = [
        r
        for r in regmap.registers
        if r.function == frame.function and address <= r.address and r.end <= address + count
    ]
    readable = [r for r in inside if r.use != "scale"]
    if direction == "request":
        row["items"] = [r.name for r in readable]
    elif readable:
        whole = read_of(inside)
        gather = Gather([whole], regmap.not_available)
        start = 2 + 2 * (whole.address - address)
        values = gather.values(frame.pdu[start : start + gather.size]).tolist()
        row["values"] = [
            {"name": r.name, "value": _shown(v, r.type), "unit": r.kept_unit}
            for r, v in zip(gather.registers, values, strict=True)
        ]
    else:
        row["values"] = []


def _shown(value: float, type_name: str) -> float | None:
    """A float32 carries seven digits; the rest is noise of the conversion. NaN is a missing value."""
    if value != value:
        return None
    return float(f"{value:.7g}") if type_name == "float32" else value
