"""Events of a terminal's own memory (AFN 0E) as `DeviceEvent`s: from answers and from reports alike. Pure.

    code   "ERC14"; data: the event's fields as plain JSON, `kind` important | ordinary, `index` its place in the memory
    time   the event's own; where its clock said nothing valid, the moment we received it

The same event read twice gives the same DeviceEvent (the store keeps it once); two of the same content in one minute
differ in their index. What a terminal repeats of passwords (ERC 20) is not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Final, Literal

from ..model.devices import Device
from ..model.readings import DeviceEvent
from ..model.times import business_to_us
from ..protocols.qgdw1376.formats import text_of

Kind = Literal["important", "ordinary"]
KINDS: Final[Mapping[int, Kind]] = {1: "important", 2: "ordinary"}
"""Fn of AFN 0E -> which memory."""

_SECRET_WORDS: Final = ("password", "pwd", "pw_hex")
_ENDS: Final = ("power_on", "end")


PLACES: Final = "0E:F"
"""How the names begin under which places to read next are kept."""


def pointer_item(fn: int) -> str:
    """Name under which the place to read next of a memory is kept among the device's parameters."""
    return f"{PLACES}{fn}"


def events_of(
    device: Device, data: Mapping[str, object], kind: Kind, received_us: int
) -> tuple[list[DeviceEvent], int, int]:
    """(events, first index, index behind the last) of an AFN 0E data unit with pm, pn and events.

    A unit that holds fewer events than its pointers say ends where its events end: the rest is still to be read.
    """
    start, end = _byte(data.get("pm")), _byte(data.get("pn"))
    raw = data.get("events")
    rows = [r for r in raw if isinstance(r, Mapping)] if isinstance(raw, (list, tuple)) else []
    promised = (end - start) & 0xFF
    if len(rows) < promised:
        end = (start + len(rows)) & 0xFF
    found = [event_of(device, row, kind, (start + i) & 0xFF, received_us) for i, row in enumerate(rows)]
    return found, start, end


def event_of(device: Device, row: Mapping[str, object], kind: Kind, index: int, received_us: int) -> DeviceEvent:
    """One decoded event."""
    time_us, end_us = _times(row)
    plain = {k: plain_of(v) if not is_secret(k) else "**" for k, v in row.items() if k not in ("erc", "le")}
    return DeviceEvent(
        device=device.id,
        point=_point(device, row),
        time_us=received_us if time_us is None else time_us,
        end_us=end_us,
        code=f"ERC{_byte(row.get('erc'))}",
        data={"kind": kind, "index": index, **plain},
    )


def is_secret(name: str) -> bool:
    """Whether a field holds a password (its length is none)."""
    return any(word in name for word in _SECRET_WORDS) and not name.endswith("_len")


def plain_of(value: object) -> object:
    """A decoded value as plain JSON, the same text for the same value every time."""
    if isinstance(value, Mapping):
        return {str(k): plain_of(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_of(v) for v in value]
    if isinstance(value, bytes):
        return value.hex().upper()
    return text_of(value)


def _times(row: Mapping[str, object]) -> tuple[int | None, int | None]:
    """Instant and end: `time`, else the first valid one (a clock set: after, an outage: power_off, else power_on)."""
    ends = [_us(row[k]) for k in _ENDS if k in row]
    end_us = next((e for e in ends if e is not None), None)
    if "after" in row and (after := _us(row["after"])) is not None:
        return after, None
    for name in ("time", "power_off"):
        if (found := _us(row.get(name))) is not None:
            return found, end_us if end_us is not None and end_us >= found else None
    return next(_all_times(row), None), None


def _all_times(row: Mapping[str, object]) -> Iterator[int]:
    for value in row.values():
        if (found := _us(value)) is not None:
            yield found


def _us(value: object) -> int | None:
    if not isinstance(value, date):
        return None
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)  # noqa: DTZ001
    try:
        return business_to_us(moment.replace(tzinfo=None))
    except (ValueError, OverflowError):
        return None


def _point(device: Device, row: Mapping[str, object]) -> int | None:
    """The metering point that the event names: a measuring point, a total-sum group or a DC port."""
    for name, kind in (("pn", "measuring"), ("group", "group"), ("port", "dc")):
        number = row.get(name)
        if isinstance(number, int):
            return next((p.id for p in device.points if p.kind == kind and p.pn == number), None)
    return None


def _byte(value: object) -> int:
    return value & 0xFF if isinstance(value, int) else 0
