"""What a simulated DL/T 645 meter has to say: identifier -> bytes, both editions. Values come from `SimMeter.series`.

Written from the annexes of the standard, not from the product's decoder, so that the two check each other. None = the
meter has no such data (ERR bit 1 / bit 0 in the answer). Fill FF = not fitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Final

import numpy as np

from ..model.times import US
from ..protocols.common.bcd import int_to_bcd
from ..protocols.common.checksum import sum8
from ..protocols.common.times import encode_datetime
from ..protocols.dlt645.frame import address_to_wire
from .meter import MeterEvent, SimMeter

KINDS: Final = (
    "combined_active", "forward_active", "reverse_active", "combined_reactive_1", "combined_reactive_2",
    "reactive_q1", "reactive_q2", "reactive_q3", "reactive_q4", "forward_apparent", "reverse_apparent",
)  # fmt: skip
_SIGNED_ENERGY: Final = frozenset({"combined_active", "combined_reactive_1", "combined_reactive_2"})
PHASE_STEP: Final = 0x14
TARIFFS: Final = 4
SETTLEMENTS: Final = 12
DAILY_DEPTH: Final = 62
HOURLY_DEPTH: Final = 254
SCHEDULED_DEPTH: Final = 60
INSTANT_DEPTH: Final = 3

# DI2 of class 02 -> (quantity, bytes, decimals, signed, has a total at DI1 = 00)
_VARIABLES: Final = {
    0x01: ("voltage", 2, 1, False, False),
    0x02: ("current", 3, 3, True, False),
    0x03: ("active_power", 3, 4, True, True),
    0x04: ("reactive_power", 3, 4, True, True),
    0x05: ("apparent_power", 3, 4, False, True),
    0x06: ("power_factor", 2, 3, True, True),
    0x07: ("phase_angle", 2, 1, False, False),
    0x08: ("voltage_thd", 2, 2, False, False),
    0x09: ("current_thd", 2, 2, False, False),
}
# DI0 of 028000xx -> (quantity, bytes, decimals, signed)
_SINGLES: Final = {
    0x01: ("current_n", 3, 3, True),
    0x02: ("frequency", 2, 2, False),
    0x03: ("active_power_average_1min", 3, 4, True),
    0x04: ("active_demand", 3, 4, True),
    0x05: ("reactive_demand", 3, 4, True),
    0x06: ("apparent_demand", 3, 4, False),
    0x07: ("temperature", 2, 1, True),
    0x08: ("clock_battery_voltage", 2, 2, False),
    0x09: ("backup_battery_voltage", 2, 2, False),
}
# Class of load record -> [(quantity, bytes, decimals, signed)] (annex B of the standard)
RECORDS: Final = {
    1: [(f"voltage_{p}", 2, 1, False) for p in "abc"] + [(f"current_{p}", 3, 3, True) for p in "abc"]
    + [("frequency", 2, 2, False)],
    2: [(f"{k}_power_{p}", 3, 4, True) for k in ("active", "reactive") for p in ("total", "a", "b", "c")],
    3: [(f"power_factor_{p}", 2, 3, True) for p in ("total", "a", "b", "c")],
    4: [(f"{k}_total", 4, 2, k in _SIGNED_ENERGY)
        for k in ("forward_active", "reverse_active", "combined_reactive_1", "combined_reactive_2")],
    5: [(f"reactive_q{q}_total", 4, 2, False) for q in (1, 2, 3, 4)],
    6: [("active_demand", 3, 4, True), ("reactive_demand", 3, 4, True)],
}  # fmt: skip
# DI2 DI1 of class 03 -> kind of event; DI0 00 = count, n = n-th last record
_EVENTS: Final = {
    "0311 00": "power_down", "0330 00": "programming", "0330 01": "meter_clear", "0330 02": "demand_clear",
    "0330 03": "event_clear", "0330 04": "clock_set", "0330 0D": "cover_open", "0330 0E": "terminal_cover_open",
    "0305 00": "all_phase_loss", "0306 00": "auxiliary_supply_loss", "0307 00": "voltage_reverse_sequence",
    "0308 00": "current_reverse_sequence", "0309 00": "voltage_unbalance", "030A 00": "current_unbalance",
}  # fmt: skip
_WITH_MINUTES: Final = range(0x05, 0x0B)  # DI2 of single counters that tell the minutes as well
_PHASE_EVENTS: Final = {
    0x01: "voltage_loss", 0x02: "undervoltage", 0x03: "overvoltage", 0x04: "phase_break", 0x0B: "current_loss",
    0x0C: "overcurrent", 0x0D: "current_break", 0x0E: "power_reversal", 0x0F: "overload",
}  # fmt: skip


def bcd(value: float, size: int, decimals: int, signed: bool = False, *, cut: bool = False) -> bytes:
    """BCD of a value; NaN and what does not fit become FF (not fitted). cut: truncate, as a register does."""
    if math.isnan(value):
        return b"\xff" * size
    scaled = value * 10**decimals
    whole = math.floor(scaled + 1e-6) if cut else round(scaled)
    try:
        return int_to_bcd(whole, size, signed=signed)
    except ValueError:
        return b"\xff" * size


def ascii_field(text: str, size: int) -> bytes:
    """Last character first, unused places 00 at the end of the wire order."""
    return text.encode("ascii")[:size].rjust(size, b"\0")[::-1] if text else bytes(size)


def _time5(meter: SimMeter, at_us: int) -> bytes:
    return encode_datetime(meter.clock.local(at_us), seconds=False)


def _time6(meter: SimMeter, at_us: int | None) -> bytes:
    return bytes(6) if at_us is None else encode_datetime(meter.clock.local(at_us), seconds=True)


def _parts(phase: int, tariff: int) -> list[str] | None:
    if phase:
        return ["abc"[phase - 1]] if tariff == 0 else None
    names = ["total", *(f"t{i}" for i in range(1, TARIFFS + 1))]
    if tariff == 0xFF:
        return names
    return [names[tariff]] if tariff <= TARIFFS else None


def _registers(meter: SimMeter, kind: str, parts: Sequence[str], times: Sequence[int]) -> bytes:
    """Energy registers, instant after instant."""
    signed = kind in _SIGNED_ENERGY
    rows = np.stack([meter.series(f"{kind}_{part}", times) for part in parts])
    return b"".join(bcd(float(v), 4, 2, signed, cut=True) for v in rows.T.ravel())


def _demands(meter: SimMeter, kind: str, parts: Sequence[str], times: Sequence[int]) -> bytes:
    """Maximum demands with their times; a demand that never was has 00 in both."""
    out = b""
    for at in times:
        for part in parts:
            name = f"{kind}_demand" + ("" if part == "total" else f"_{part}")
            value, when = meter.value(name, at), meter.value(f"{name}_time", at)
            out += bytes(8) if math.isnan(when) else bcd(value, 3, 4) + _time5(meter, int(when) * US)
    return out


def _settlements(meter: SimMeter, back: int, now_us: int) -> list[int] | None:
    """Instants asked by DI0: now, the n-th last settlement, or now and all that are remembered."""
    if back == 0:
        return [now_us]
    if back == 0xFF:
        found = [meter.settlement_us(now_us, n) for n in range(1, SETTLEMENTS + 1)]
        return [now_us, *(at for at in found if at is not None)]
    at = meter.settlement_us(now_us, back) if back <= SETTLEMENTS else None
    return None if at is None else [at]


def _class_00_01(meter: SimMeter, di: bytes, now_us: int) -> bytes | None:
    cls, di2, di1, di0 = di
    if cls == 0 and di2 == 0x90:
        return bytes(4)
    phase, kind_no = divmod(di2 - 1, PHASE_STEP) if di2 else (0, -1)
    if kind_no + 1 >= len(KINDS) or phase > 3 or (cls == 1 and di2 == 0):
        return None
    kind = KINDS[kind_no + 1]
    parts, times = _parts(phase, di1), _settlements(meter, di0, now_us)
    if parts is None or times is None:
        return None
    group = len(parts) * (8 if cls else 4)
    gone = (SETTLEMENTS + 1 - len(times)) * group if di0 == 0xFF else 0  # a block has all 12, FF where none is kept
    if cls == 0:
        return _registers(meter, kind, parts, times) + b"\xff" * gone
    return (_demands(meter, kind, parts, times) if phase == 0 else bytes(8 * len(times))) + b"\xff" * gone


def _class_02(meter: SimMeter, di: bytes, now_us: int) -> bytes | None:
    _, di2, di1, di0 = di
    if di2 == 0x80:
        row = _SINGLES.get(di0) if di1 == 0 else None
        if row is None:
            return None
        name, size, decimals, signed = row
        return bcd(meter.value(name, now_us), size, decimals, signed)
    if di2 not in _VARIABLES or di0 != 0:
        return None
    name, size, decimals, signed, has_total = _VARIABLES[di2]
    names = (["total"] if has_total else []) + ["a", "b", "c"]
    if di1 != 0xFF:
        index = di1 if has_total else di1 - 1
        if not 0 <= index < len(names):
            return None
        names = [names[index]]
    return b"".join(bcd(meter.value(f"{name}_{part}", now_us), size, decimals, signed) for part in names)


def _end6(meter: SimMeter, event: MeterEvent, now_us: int) -> bytes:
    """00 while it goes on."""
    return _time6(meter, event.end_us if event.end_us is not None and event.end_us <= now_us else None)


def _event_record(meter: SimMeter, event: MeterEvent, now_us: int) -> bytes:
    start, end = _time6(meter, event.start_us), _end6(meter, event, now_us)
    if event.kind == "programming":
        return start + event.operator + event.detail.ljust(40, b"\xff")[:40]
    if event.kind in ("event_clear",):
        return start + event.operator + event.detail.ljust(4, b"\xff")[:4]
    if event.kind == "clock_set":
        return event.operator + event.detail[:12].ljust(12, b"\0")
    if event.kind in ("cover_open", "terminal_cover_open"):
        energies = b"".join(
            _registers(meter, k, ["total"], [at])
            for at in (event.start_us, min(event.end_us or event.start_us, now_us))
            for k in ("forward_active", "reverse_active", "reactive_q1", "reactive_q2", "reactive_q3", "reactive_q4")
        )
        return start + end + energies
    if event.kind == "meter_clear":
        return start + event.operator + bytes(96)
    if event.kind == "demand_clear":
        return start + event.operator + bytes(192)
    if event.kind.endswith("_sequence"):
        return start + end + bytes(64)
    if event.kind == "all_phase_loss":
        return start + bcd(meter.value("current_a", event.start_us), 3, 3) + end
    if event.kind.endswith("_unbalance"):
        return start + end + bcd(31.25, 2, 2) + bytes(64)
    return start + end


_EMPTY: Final = {
    "programming": 50, "meter_clear": 106, "demand_clear": 202, "event_clear": 14, "clock_set": 16, "cover_open": 60,
    "terminal_cover_open": 60, "voltage_reverse_sequence": 76, "current_reverse_sequence": 76, "all_phase_loss": 15,
    "voltage_unbalance": 78, "current_unbalance": 78,
}  # fmt: skip


def _class_03(meter: SimMeter, di: bytes, now_us: int) -> bytes | None:
    _, di2, di1, di0 = di
    kind = _EVENTS.get(f"03{di2:02X} {di1:02X}")
    if kind is None:
        return _phase_events(meter, di, now_us)
    if di0 == 0:
        count = int_to_bcd(meter.counters.get(kind, 0) % 10**6, 3)
        return count + _minutes(meter, kind, now_us) if di2 in _WITH_MINUTES else count
    events = meter.last_events(kind)
    if di0 > 10:
        return None
    return _event_record(meter, events[di0 - 1], now_us) if di0 <= len(events) else bytes(_EMPTY.get(kind, 12))


def _minutes(meter: SimMeter, kind: str, now_us: int) -> bytes:
    total = sum(min(e.end_us or e.start_us, now_us) - e.start_us for e in meter.last_events(kind)) // (60 * US)
    return int_to_bcd(total % 10**6, 3)


def _phase_events(meter: SimMeter, di: bytes, now_us: int) -> bytes | None:
    """Voltage and current events by phase: statistics of three phases, or a record's block."""
    _, di2, di1, di0 = di
    name = _PHASE_EVENTS.get(di2)
    if name is None or di1 > 3:
        return None
    if di1 == 0:
        if di0:
            return None
        return b"".join(
            int_to_bcd(meter.counters.get(f"{name}_{p}", 0), 3) + _minutes(meter, f"{name}_{p}", now_us) for p in "abc"
        )
    size = 131 if di2 <= 4 else 115 if di2 <= 0x0D else 76
    events = meter.last_events(f"{name}_{'abc'[di1 - 1]}")
    if not 1 <= di0 <= 10:
        return None
    if di0 > len(events):
        return bytes(size)
    event = events[di0 - 1]
    head = _time6(meter, event.start_us) + _end6(meter, event, now_us)
    if size == 76:
        return head + bytes(64)
    at = event.start_us
    out = head + bytes(16)
    for p in "abc":
        out += bytes(16)
        for quantity, width, decimals, signed in (
            ("voltage", 2, 1, False), ("current", 3, 3, True), ("active_power", 3, 4, True),
            ("reactive_power", 3, 4, True), ("power_factor", 2, 3, True),
        ):  # fmt: skip
            value = meter.value(f"{quantity}_{p}", at)
            if name == "voltage_loss" and quantity == "voltage" and p == "abc"[di1 - 1]:
                value *= 0.4
            out += bcd(value, width, decimals, signed)
    return out + bytes(size - len(out))


_FIXED_2007: Final[dict[str, Callable[[], bytes]]] = {
    "04000103": lambda: b"\x15", "04000104": lambda: b"\x15", "04000105": lambda: b"\x80\x00",
    "04000106": lambda: bytes(5), "04000107": lambda: bytes(5), "04000201": lambda: b"\x01",
    "04000202": lambda: b"\x01", "04000203": lambda: b"\x08", "04000204": lambda: b"\x04", "04000205": lambda: bytes(2),
    "04000206": lambda: b"\x21", "04000301": lambda: b"\x08", "04000302": lambda: b"\x05", "04000303": lambda: b"\x02",
    "04000304": lambda: b"\x04", "04000305": lambda: b"\x20", "04000407": lambda: ascii_field("0.5S", 4),
    "04000408": lambda: ascii_field("2.0", 4), "04000409": lambda: b"\x00\x64\x00", "0400040A": lambda: b"\x00\x64\x00",
    "0400040B": lambda: ascii_field("SIM645", 10), "0400040C": lambda: ascii_field("2024-06-01", 10),
    "0400040D": lambda: ascii_field("DL/T 645-2007", 16), "04000404": lambda: ascii_field("220V", 6),
    "04000405": lambda: ascii_field("1.5A", 6), "04000406": lambda: ascii_field("6A", 6),
    "04000601": lambda: b"\x05", "04000602": lambda: b"\x41", "04000603": lambda: b"\x14",
    "04000701": lambda: b"\x04", "04000702": lambda: b"\x04", "04000703": lambda: b"\x20", "04000801": lambda: b"\x7f",
    "04000802": lambda: b"\x01", "04000902": lambda: b"\xff", "04000903": lambda: b"\xff", "04000904": lambda: b"\xff",
    "04000905": lambda: b"\x03", "04000906": lambda: b"\xff", "04000A01": lambda: b"\0\0\x01\x01",
    "04000B01": lambda: b"\x00\x01", "04000B02": lambda: b"\x99\x99", "04000B03": lambda: b"\x99\x99",
    "04800001": lambda: ascii_field("bench simulator", 32), "04800002": lambda: ascii_field("none", 32),
}  # fmt: skip


def _weekday(local: datetime) -> int:
    return local.isoweekday() % 7


def _date4(local: datetime) -> bytes:
    return bytes((_weekday(local),)) + b"".join(int_to_bcd(n, 1) for n in (local.day, local.month, local.year % 100))


def _time3(local: datetime) -> bytes:
    return b"".join(int_to_bcd(n, 1) for n in (local.second, local.minute, local.hour))


def _class_04(meter: SimMeter, di: bytes, now_us: int) -> bytes | None:
    key = di.hex().upper()
    if key in meter.parameters:
        return meter.parameters[key]
    local = meter.clock.local(now_us)
    if key == "040005FF":
        return b"".join(meter.status_word(n).to_bytes(2, "little") for n in range(1, 8))
    if key.startswith("0400050") and "1" <= key[7] <= "7":
        return meter.status_word(int(key[7])).to_bytes(2, "little")
    if key in ("04000401", "04000402"):
        return address_to_wire(meter.address)
    live: dict[str, Callable[[], bytes]] = {
        "04000101": lambda: _date4(local),
        "04000102": lambda: _time3(local),
        "0400010C": lambda: _time3(local) + _date4(local),
        "04000306": lambda: bcd(meter.ct_ratio, 3, 0),
        "04000307": lambda: bcd(meter.pt_ratio, 3, 0),
        "04000403": lambda: ascii_field(meter.name, 32),
        "04000901": lambda: bytes((sum(1 << (c - 1) for c in meter.record_classes),)),
    }
    if key in live:
        return live[key]()
    if key.startswith("04000A0") and "2" <= key[7] <= "7":
        return int_to_bcd(meter.record_interval_min, 2)
    return _FIXED_2007[key]() if key in _FIXED_2007 else None


def freeze_us(meter: SimMeter, kind: int, back: int, now_us: int) -> int | None:
    """Instant of the `back`-th last freeze of a kind (DI2); None = no such freeze."""
    if kind == 0x06:
        return meter.midnight_us(now_us, back) if back <= DAILY_DEPTH else None
    if kind == 0x04:
        return meter.hour_us(now_us, back) if back <= HOURLY_DEPTH else None
    if kind == 0x07:
        return meter.settlement_us(now_us, back) if back <= SETTLEMENTS else None
    if kind == 0x01:
        stored = meter.freezes.get("instant", [])
        return stored[-back] if 1 <= back <= len(stored) else None
    if kind == 0x00 and meter.freeze_pattern is not None and back <= SCHEDULED_DEPTH:
        return _patterned(meter, back, now_us)
    return None


def _patterned(meter: SimMeter, back: int, now_us: int) -> int | None:
    """Instant of the `back`-th last match of the pattern (mm, hh, DD; None = every) since it was set."""
    minute, hour, day, set_us = meter.freeze_pattern or (0, -1, -1, 0)
    step = timedelta(hours=1) if hour < 0 else timedelta(days=1)
    local = meter.clock.local(now_us).replace(second=0, minute=minute)
    if hour >= 0:
        local = local.replace(hour=hour)
    if local > meter.clock.local(now_us):
        local -= step
    seen = 0
    for _ in range(SCHEDULED_DEPTH * (31 if day >= 0 else 1) + 1):
        at = meter.clock.true_us(local)
        if at is None or at < set_us:
            return None
        if day < 0 or local.day == day:
            seen += 1
            if seen == back:
                return at
        local -= step
    return None


def _class_05(meter: SimMeter, di: bytes, now_us: int) -> bytes | None:
    _, kind, content, back = di
    at = freeze_us(meter, kind, back, now_us) if back else None
    if at is None:
        return bytes(5) if content == 0 and back else None
    parts = ["total"] if kind == 0x04 else ["total", *(f"t{i}" for i in range(1, TARIFFS + 1))]

    def part(number: int) -> bytes | None:
        if number == 0:
            return _time5(meter, at)
        if 1 <= number <= 8:
            return _registers(meter, KINDS[number], parts, [at])
        if number in (9, 0x0A):
            return _demands(meter, KINDS[number - 8], parts, [at])
        if number == 0x10:
            return b"".join(
                bcd(meter.value(f"{k}_power_{p}", at), 3, 4, True)
                for k in ("active", "reactive") for p in ("total", "a", "b", "c")
            )  # fmt: skip
        return None

    if content != 0xFF:
        return part(content) if kind != 0x04 or content <= 2 else None
    numbers = (0, 1, 2) if kind == 0x04 else (*range(0x0B), 0x10)
    return b"".join((part(n) or b"") + b"\xaa" for n in numbers)


def load_records(
    meter: SimMeter, cls: int, labels: Sequence[datetime], *, block: bool, fill: int | None = None
) -> bytes:
    """Load records with these local labels. cls 0 = all classes, always as blocks; block: A0A0 … E5 around each.

    fill: byte that stands in the place of every value (a fault).
    """
    kept: list[tuple[datetime, int]] = []
    for label in labels:
        at = meter.clock.true_us(label)
        if at is not None:
            kept.append((label, at))
    times = np.array([at for _, at in kept], np.int64)
    wanted = (cls,) if cls else tuple(RECORDS)
    columns = {
        c: [(meter.series(name, times), size, dec, signed) for name, size, dec, signed in RECORDS[c]]
        for c in wanted
        if c in meter.record_classes and len(kept)
    }
    out = b""
    for i, (label, _) in enumerate(kept):
        stamp = encode_datetime(label, seconds=False)
        bodies = {
            c: b"".join(bcd(float(v[i]), size, dec, signed, cut=size == 4) for v, size, dec, signed in rows)
            for c, rows in columns.items()
        }
        if fill is not None:
            bodies = {c: bytes((fill,)) * len(b) for c, b in bodies.items()}
        if cls and not block:
            out += stamp + bodies.get(cls, b"")
            continue
        inner = stamp + b"".join(bodies.get(c, b"") + b"\xaa" for c in range(1, 7))
        record = b"\xa0\xa0" + bytes((len(inner),)) + inner
        out += record + bytes((sum8(record), 0xE5))
    return out


def content_2007(meter: SimMeter, di: bytes, now_us: int) -> bytes | None:
    """Data behind a four-byte identifier (DI3 … DI0, high first), without the load records of class 06."""
    match di[0]:
        case 0x00 | 0x01:
            return _class_00_01(meter, di, now_us)
        case 0x02:
            return _class_02(meter, di, now_us)
        case 0x03:
            return _class_03(meter, di, now_us)
        case 0x04:
            return _class_04(meter, di, now_us)
        case 0x05:
            return _class_05(meter, di, now_us)
        case 0x1D | 0x1E if di[1:] == b"\0\0\x01":
            return int_to_bcd(meter.counters.get("trip" if di[0] == 0x1D else "close", 0) % 10**6, 3)
    return None


# --- 1997 -----------------------------------------------------------------------------------------------------------

_KINDS_97: Final = {
    (0, 1): "forward_active", (0, 2): "reverse_active", (1, 1): "forward_reactive", (1, 2): "reverse_reactive",
    (1, 3): "reactive_q1", (1, 4): "reactive_q4", (1, 5): "reactive_q2", (1, 6): "reactive_q3",
}  # fmt: skip
# third digit of B6xn -> (quantity, bytes, decimals, has a total at n = 0)
_VARIABLES_97: Final = {
    1: ("voltage", 2, 0, False), 2: ("current", 2, 2, False), 3: ("active_power", 3, 4, True),
    4: ("reactive_power", 2, 2, True), 5: ("power_factor", 2, 3, True),
}  # fmt: skip


@cache
def _fixed_97() -> dict[str, bytes]:
    return {
        "C030": b"\x00\x64\x00", "C031": b"\x00\x64\x00", "C111": b"\x15", "C112": b"\x15", "C113": b"\x05",
        "C114": b"\x08", "C115": b"\x02", "C116": b"\x04", "C117": b"\x00\x01", "C211": b"\x80\x00", "C310": b"\x01",
        "C311": b"\x01", "C312": b"\x08", "C313": b"\x04", "C314": b"\x00", "C510": b"\0\0\x01\x01",
    }  # fmt: skip


def content_1997(meter: SimMeter, di: bytes, now_us: int) -> bytes | None:
    """Data behind a two-byte identifier (high first)."""
    key = di.hex().upper()
    group, low = di[0] >> 4, di[1]
    if group in (0x9, 0xA, 0xB) and key[:2] not in ("B2", "B3", "B6"):
        return _energy_97(meter, di, now_us)
    if key[:2] == "B6":
        return _variables_97(meter, low, now_us)
    if key in ("B212", "B213"):
        return int_to_bcd(meter.counters.get("programming" if key == "B212" else "demand_clear", 0) % 10**4, 2)
    if key in ("B210", "B211"):
        events = meter.last_events("programming" if key == "B210" else "demand_clear")
        return _time5(meter, events[0].start_us)[:4] if events else bytes(4)
    if key[:3] in ("B31", "B32", "B33", "B34") and low & 0xF <= 3:
        return bytes((2, 3, 4, 4)[(low >> 4) - 1])
    if key in meter.parameters:
        return meter.parameters[key]
    local = meter.clock.local(now_us)
    if key in ("C010", "C011"):
        return _date4(local) if key == "C010" else _time3(local)
    if key in ("C020", "C021", "C022"):
        return b"\0"
    if key in ("C032", "C033", "C034"):
        return address_to_wire(meter.address)
    if key == "C511":
        return int_to_bcd(meter.record_interval_min, 2)
    return _fixed_97().get(key)


def _energy_97(meter: SimMeter, di: bytes, now_us: int) -> bytes | None:
    group, second = di[0] >> 4, di[0] & 0xF
    back = {0: 0, 1: 0, 4: 1, 5: 1, 8: 2, 9: 2}.get(second)
    kind = _KINDS_97.get((second & 1, di[1] >> 4))
    times = _settlements(meter, back, now_us) if back is not None else None
    tariff = di[1] & 0xF
    parts = _parts(0, 0xFF if tariff == 0xF else tariff)
    if kind is None or times is None or parts is None:
        return None
    if group == 0x9:
        return _registers(meter, kind, parts, times)
    demands = _demands(meter, kind, parts, times)
    rows = [demands[i : i + 8] for i in range(0, len(demands), 8)]
    return b"".join(row[:3] if group == 0xA else row[3:7] for row in rows)


def _variables_97(meter: SimMeter, low: int, now_us: int) -> bytes | None:
    if low == 0xFF:
        order = (0x1F, 0x2F, 0x3F, 0x34, 0x35, 0x4F, 0x5F)
        return b"".join(_variables_97(meter, n, now_us) or b"" for n in order)
    if low in (0x34, 0x35):
        return bytes(3)
    if low == 0x60:
        return bcd(meter.value("frequency", now_us), 2, 2)
    row = _VARIABLES_97.get(low >> 4)
    if row is None:
        return None
    name, size, decimals, has_total = row
    names = (["total"] if has_total else []) + ["a", "b", "c"]
    if low & 0xF != 0xF:
        index = (low & 0xF) if has_total else (low & 0xF) - 1
        if not 0 <= index < len(names):
            return None
        names = [names[index]]
    return b"".join(bcd(meter.value(f"{name}_{p}", now_us), size, decimals) for p in names)
