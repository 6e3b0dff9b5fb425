"""A frame as a plain object for people and programs: what `fuhe decode` prints and the test vectors compare.

Keys: valid, lead_bytes, address, control, from_meter, abnormal, follow_on, function, length, data_unmasked and, by
function, di, values, seq, error_byte, error_bits, password_level, password_wire, operator_wire, payload_hex, n1,
action, n2, valid_until, new_address ... Secrets are replaced by `**` unless they are asked for.
"""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from typing import Final

from ..common.bcd import bcd_digits, is_bcd
from ..common.times import decode_datetime
from . import codes
from .fields import NOT_BCD, NOT_TIME, Value
from .frame import READ_LIMIT, Frame, cut, wire_to_address
from .items import Item, decode_payload, lookup
from .secrets import redact

Plain = dict[str, object]
VENDOR_LIMIT: Final = 255
# where a receiver gave up, the most telling first
_REASONS: Final = ("checksum", "end_byte", "length", "truncated", "second_start_byte")
_NEW_FUNCTIONS: Final = frozenset(range(0x11, 0x1E))


def describe(data: bytes, version: str | None = None, *, secrets: bool = False) -> Plain:
    """The only frame of `data`, or {"valid": True, "frames": [...]} for several, or {"valid": False, "reason": ...}.

    version: 2007, 1997, 2007-vendor (real but not conforming: DATA up to 255 bytes), None = told by the control code.
    """
    limit = VENDOR_LIMIT if version is not None and version.endswith("vendor") else READ_LIMIT
    frames, skipped = cut(data, limit)
    noise = sum(s.count for s in skipped)
    if not frames:
        return {"valid": False, "reason": _reason(data, limit), "lead_bytes": _lead(data)}
    described = [describe_frame(f, version, secrets=secrets) for f in frames]
    if len(frames) == 1:
        only = described[0]
        if noise:
            only["skipped_bytes"] = noise
        return only
    answer: Plain = {"valid": True, "frames": described}
    if noise:
        answer["skipped_bytes"] = noise
    return answer


def _lead(data: bytes) -> int:
    start = data.find(0x68)
    head = data if start < 0 else data[:start]
    return len(head) - len(head.rstrip(b"\xfe"))


def _reason(data: bytes, limit: int) -> str:
    """Why there is no frame: of all candidates the one that came furthest."""
    found = set()
    start = data.find(0x68)
    while start >= 0:
        candidate = data[start:]
        length = candidate[9] if len(candidate) > 9 else 0
        if len(candidate) < 8:
            found.add("short")
        elif candidate[7] != 0x68:
            found.add("second_start_byte")
        elif length > limit:
            found.add("length")
        elif len(candidate) < 12 + length:
            found.add("truncated")
        elif sum(candidate[: 10 + length]) & 0xFF != candidate[10 + length]:
            found.add("checksum")
        else:
            found.add("end_byte")
        start = data.find(0x68, start + 1)
    if "short" in found and not found & set(_REASONS):
        return "truncated"
    return next((r for r in _REASONS if r in found), "no_start_byte")


def edition(frame: Frame, version: str | None) -> str:
    """2007 or 1997: by the function code, where both have it by the length, else as told."""
    function = frame.function
    told = "1997" if version == "1997" else "2007"
    if function in _NEW_FUNCTIONS:
        two_bytes = function == 0x11 and len(frame.data) in (2, 3) and not frame.from_meter
        return "1997" if two_bytes or (told == "1997" and function == 0x11) else "2007"
    if function == 0x03:
        return "2007" if version is None and (len(frame.data) >= 8 or frame.abnormal) else told
    if function == 0x08:
        return told
    return "1997" if codes.known_function(function, "1997") else told


def describe_frame(frame: Frame, version: str | None = None, *, secrets: bool = False) -> Plain:
    """One frame as a plain object."""
    which = edition(frame, version)
    name, _zh = codes.function_name(frame.function, which)
    out: Plain = {
        "valid": True,
        "version": which,
        "lead_bytes": frame.lead,
        "address": frame.address,
        "control": f"{frame.control:02X}",
        "from_meter": frame.from_meter,
        "abnormal": frame.abnormal,
        "follow_on": frame.follow_on,
        "function": name,
        "length": len(frame.data),
        "data_unmasked": frame.data.hex().upper(),
    }
    if frame.abnormal:
        _error(frame, which, out)
    elif frame.from_meter:
        _reply(frame, which, name, out)
    else:
        _request(frame, which, name, out)
    if not secrets:
        redact(frame, which, name, out)
    return out


def _error(frame: Frame, version: str, out: Plain) -> None:
    """ERR (one byte); the two-byte words of security and of control in cipher form."""
    data = frame.data
    if len(data) == 1:
        out["error_byte"] = f"{data[0]:02X}"
        out["error_bits"] = [n for n, _zh in codes.bits("errors", version, data[0], 8)]
    elif len(data) == 2 and version == "2007" and frame.function in (0x03, 0x1C):
        table = "security" if frame.function == 0x03 else "control"
        word = int.from_bytes(data, "little")
        out["error_word"] = f"{word:04X}"
        out["error_bits"] = [n for n, _zh in codes.bits("errors", table, word, 16)]


def _reply(frame: Frame, version: str, name: str, out: Plain) -> None:
    data = frame.data
    size = 2 if version == "1997" else 4
    if name in ("read", "read_follow_on", "reread", "security") and len(data) >= size:
        follow = name == "read_follow_on" and version == "2007" and len(data) > size
        payload = data[size:-1] if follow else data[size:]
        if follow:
            out["seq"] = data[-1]
        _content(data[:size], payload, version, out, part=follow or frame.follow_on)
    elif name == "read_address" and len(data) == 6:
        if is_bcd(data):
            out["values"] = [{"name": "meter_address", "value": wire_to_address(data), "unit": ""}]
        else:
            _invalid(NOT_BCD, data, out)
    elif name == "change_rate" and len(data) == 1:
        _rate(data[0], version, out)
    elif name == "control" and len(data) == 2:
        word = int.from_bytes(data, "little")
        out["execution_word"] = f"{word:04X}"
        out["execution_bits"] = [n for n, _zh in codes.bits("execution", "", word, 16)]
    elif name == "multifunction_output" and len(data) == 1:
        _output(data[0], out)
    elif name == "change_password" and len(data) == 4:
        out["password_level"], out["password_wire"] = f"{data[0]:02X}", data[1:4].hex().upper()


def _rate(word: int, version: str, out: Plain) -> None:
    out["rate_word"] = f"{word:02X}"
    out["baud"] = codes.rate_of(word, version)


def _output(signal: int, out: Plain) -> None:
    found = codes.output_name(signal)
    out["signal"] = f"{signal:02X}"
    out["output"] = found[0] if found else None


def _invalid(reason: str, payload: bytes, out: Plain) -> None:
    out["value_invalid"] = reason
    out["payload_hex"] = payload.hex().upper()


def _content(wire_di: bytes, payload: bytes, version: str, out: Plain, *, part: bool) -> None:
    """DI and what it means."""
    di = bcd_digits(wire_di)
    out["di"] = di
    item = lookup(di, version)
    if item is not None:
        out["item"] = item.name
    if part:
        out["payload_hex"] = payload.hex().upper()
        out["partial"] = True
        return
    if item is None or not payload:
        if payload:
            out["payload_hex"] = payload.hex().upper()
        return
    if item.shape == "load":
        _loads(item, payload, out)
        return
    values = decode_payload(item, payload)
    bad = next((v.invalid for v in values if v.invalid), None)
    if bad:
        _invalid(bad, payload, out)
    out["values"] = [value_object(v) for v in values]
    meaning = _meaning(values)
    if meaning:
        out["meaning"] = meaning
    if item.settlement:
        out["settlement"] = item.settlement
    if item.record:
        out["record"] = item.record
        if not any(payload) or payload.count(0xFF) == len(payload):
            out["empty"] = True


def _loads(item: Item, payload: bytes, out: Plain) -> None:
    from datetime import timedelta

    from .loads import decode_loads  # numpy is loaded only for load records

    values: list[Plain] = []
    for number, table in decode_loads(payload, int(item.di[2:4], 16)).items():
        for moment, row in zip(table.time_us.tolist(), table.value.tolist(), strict=True):
            when = datetime(1970, 1, 1) + timedelta(microseconds=moment) if moment >= 0 else None  # noqa: DTZ001
            for field, content in zip(table.columns, row, strict=True):
                text = None if content != content else f"{content:.{field.decimals}f}"
                values.append(
                    {
                        "name": field.name,
                        "value": text,
                        "unit": field.unit,
                        "class": number,
                        "time": when.isoformat() if when else None,
                    }
                )
    out["values"] = values
    out["payload_hex"] = payload.hex().upper()
    if not values:
        out["value_invalid"] = "length"


def value_object(value: Value) -> Plain:
    """{"name", "value", "unit"} with text for the value (None = not fitted), "time" of a demand, "invalid"."""
    out: Plain = {"name": value.name, "value": text_of(value.value), "unit": value.unit}
    if value.time is not None:
        out["time"] = value.time.isoformat()
    if value.invalid:
        out["invalid"] = value.invalid
    if value.settlement is not None:
        out["settlement"] = value.settlement
    return out


def text_of(content: Decimal | str | datetime | date | time | None) -> str | None:
    """Canonical text of a value: plain decimal digits, ISO 8601 for times."""
    if content is None or isinstance(content, str):
        return content
    return f"{content:f}" if isinstance(content, Decimal) else content.isoformat()


def _meaning(values: list[Value]) -> Plain:
    """Named bits of the status words among the values."""
    found: Plain = {}
    for value in values:
        if value.name.startswith("status_word_") and isinstance(value.value, str):
            word = int(value.value, 16)
            names = {name: bool(word >> bit & 1) for bit, (name, _zh) in codes.status_bits(int(value.name[-1])).items()}
            if len(values) > 1:
                found[value.name] = names
            else:
                found.update(names)
    return found


def _request(frame: Frame, version: str, name: str, out: Plain) -> None:
    data = frame.data
    if version == "1997":
        _request97(name, data, out)
        return
    if name in ("read", "read_follow_on", "security", "write", "change_password") and len(data) >= 4:
        out["di"] = bcd_digits(data[:4])
        item = lookup(str(out["di"]))
        if item is not None:
            out["item"] = item.name
    if name == "read" and len(data) in (5, 10):
        out["count"] = data[4]
        if len(data) == 10:
            out["from_time"] = _time_text(data[5:])
    elif name == "read_follow_on" and len(data) == 5:
        out["seq"] = data[4]
    elif name == "broadcast_time" and len(data) == 6:
        _time_value(data, out)
    elif name == "write" and len(data) >= 12:
        _access(data[4:12], out)
        out["payload_hex"] = data[12:].hex().upper()
        _written(str(out["di"]), data[12:], out)
    elif name == "security" and len(data) >= 8:
        out["operator_wire"] = data[4:8].hex().upper()
        out["payload_hex"] = data[8:].hex().upper()
    elif name == "write_address" and len(data) == 6:
        out["new_address"] = wire_to_address(data)
    elif name == "freeze" and len(data) == 4:
        out["freeze_pattern"] = _pattern(data)
        out["freeze"] = {0: "now", 1: "hourly", 2: "daily", 3: "monthly"}.get(sum(b != 0x99 for b in data), "once")
    elif name == "change_rate" and len(data) == 1:
        _rate(data[0], version, out)
    elif name == "change_password" and len(data) == 12:
        out["old_password_level"], out["old_password_wire"] = f"{data[4]:02X}", data[5:8].hex().upper()
        out["new_password_level"], out["new_password_wire"] = f"{data[8]:02X}", data[9:12].hex().upper()
    elif name in ("clear_demand", "clear_meter") and len(data) == 8:
        _access(data, out)
    elif name == "clear_events" and len(data) == 12:
        _access(data[:8], out)
        out["di"] = bcd_digits(data[8:])
    elif name == "control" and len(data) >= 9:
        _control(data, out)
    elif name == "multifunction_output" and len(data) == 1:
        _output(data[0], out)


def _request97(name: str, data: bytes, out: Plain) -> None:
    if name in ("read", "read_follow_on", "write") and len(data) >= 2:
        out["di"] = bcd_digits(data[:2])
        item = lookup(str(out["di"]), "1997")
        if item is not None:
            out["item"] = item.name
    if name == "read" and len(data) > 2:
        out["count"] = data[2]
        if len(data) == 7:
            out["from_time_wire"] = data[3:].hex().upper()
    elif name == "broadcast_time" and len(data) == 6:
        _time_value(data, out)
    elif name == "write" and len(data) >= 6:
        out["password_wire"] = data[2:6].hex().upper()
        out["payload_hex"] = data[6:].hex().upper()
    elif name == "write_address" and len(data) == 6:
        out["new_address"] = wire_to_address(data)
    elif name == "change_rate" and len(data) == 1:
        _rate(data[0], "1997", out)
    elif name == "change_password" and len(data) == 8:
        out["old_password_wire"], out["new_password_wire"] = data[:4].hex().upper(), data[4:].hex().upper()
    elif name == "clear_demand" and len(data) == 4:
        out["password_wire"] = data.hex().upper()


def _time_text(wire: bytes) -> str | None:
    moment = decode_datetime(wire)
    return moment.isoformat() if moment is not None else None


def _time_value(wire: bytes, out: Plain) -> None:
    text = _time_text(wire)
    if text is None:
        _invalid(NOT_TIME if is_bcd(wire) else NOT_BCD, wire, out)
    else:
        out["values"] = [{"name": "time", "value": text, "unit": ""}]


def _pattern(data: bytes) -> str:
    """MMDDhhmm in reading order, 99 = every."""
    return bcd_digits(data)


def _access(data: bytes, out: Plain) -> None:
    out["password_level"] = f"{data[0]:02X}"
    out["password_wire"] = data[1:4].hex().upper()
    out["operator_wire"] = data[4:8].hex().upper()


def _written(di: str, payload: bytes, out: Plain) -> None:
    item = lookup(di)
    if item is None or not payload or item.shape != "fields":
        return
    values = decode_payload(item, payload)
    if not any(v.invalid for v in values):
        out["values"] = [value_object(v) for v in values]


def _control(data: bytes, out: Plain) -> None:
    _access(data[:8], out)
    out["n1"] = f"{data[8]:02X}"
    action = codes.action_name(data[8])
    out["action"] = action[0] if action else None
    if len(data) >= 16:
        out["n2"] = f"{data[9]:02X}"
        out["valid_until"] = _time_text(data[10:16])
        if data[8] in (0x1D, 0x1E):
            out["duration_min"] = data[9] * 5
