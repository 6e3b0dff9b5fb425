"""Q/GDW 1376.1 on one core, beside what the same work costs at least: bare loops of the same run.

Typed values: a hand-written decoder of one layout, with list tables and no checks. Curves: list tables in plain Python
(one frame at a time), and np.take over bodies that already lie one behind the other (many frames).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from struct import Struct
from zlib import adler32

import numpy as np
from numpy.typing import NDArray

from fuhe.acquisition.sessions.qgdw1376_readings import Labels, read_answers
from fuhe.model.devices import Device, Point
from fuhe.protocols.qgdw1376.curve_formats import encode_values
from fuhe.protocols.qgdw1376.curves import area, curve_classes, encode_curve, gather, read_curves
from fuhe.protocols.qgdw1376.dadt import single
from fuhe.protocols.qgdw1376.frame import Address, Frame, Framer, cut
from fuhe.protocols.qgdw1376.message import Message, build, parse
from fuhe.protocols.qgdw1376.units import Unit

ROUNDS = 7
LEAST_S = 0.3  # of all rounds: short work is repeated more often
POINTS = 96
START = datetime(2026, 3, 1, 0, 15)  # noqa: DTZ001 - a terminal's own clock
READ = datetime(2026, 3, 1, 12)  # noqa: DTZ001
NOW_US = 1_780_000_000_000_000
ADDRESS = Address("3301", 4660)
Row = dict[str, object]
F8 = NDArray[np.float64]


def _rate(work: Callable[[], object], count: int) -> float:
    """Best of ROUNDS or more, a second of CPU."""
    best, rounds, spent = float("inf"), 0, 0.0
    while rounds < ROUNDS or spent < LEAST_S:
        start = time.process_time()
        work()
        took = time.process_time() - start
        best, rounds, spent = min(best, took), rounds + 1, spent + took
    return count / best


def _row(name: str, value: float, unit: str, peer: tuple[str, float] | None, target: str = "") -> Row:
    return {
        "bench": "qgdw1376",
        "name": name,
        "value": value,
        "unit": unit,
        "peer": f"{peer[0]} {peer[1]:,.0f}" if peer else None,
        "ratio": round(value / peer[1], 2) if peer else None,
        "target": target,
    }


# --- typed values ---------------------------------------------------------------------------------------------------
def _answer(afn: int, *units: Unit) -> Frame:
    return build(Message(up=True, prm=False, function=8, address=ADDRESS, afn=afn, units=units))


def _momentary() -> Frame:
    """0C F25: 22 values."""
    names = ("P", "Pa", "Pb", "Pc", "Q", "Qa", "Qb", "Qc", "S", "Sa", "Sb", "Sc")
    data: dict[str, object] = {"read_time": READ} | dict.fromkeys(names, Decimal("1.1147"))
    data |= dict.fromkeys(("PF", "PFa", "PFb", "PFc"), Decimal("99.9"))
    data |= dict.fromkeys(("Ua", "Ub", "Uc"), Decimal("220.1")) | dict.fromkeys(
        ("Ia", "Ib", "Ic", "I0"), Decimal("1.7")
    )
    return _answer(0x0C, Unit(1, 25, data))


def _registers() -> Frame:
    """0C F129: total and four tariffs."""
    values = [Decimal("92.79"), Decimal(0), Decimal("32.97"), Decimal("45.88"), Decimal("13.94")]
    return _answer(0x0C, Unit(1, 129, {"read_time": READ, "tariffs": 4, "values": values}))


_TABLE = [(b >> 4) * 10 + (b & 15) if b >> 4 < 10 and b & 15 < 10 else None for b in range(256)]


def _bare_framing(wire: bytes, n: int) -> int:
    """Length, start bytes, checksum and end byte, nothing kept."""
    good = 0
    for _ in range(n):
        length = wire[2] << 6 | wire[1] >> 2
        body = wire[6 : 6 + length]
        if wire[0] == wire[5] == 0x68 and wire[1:3] == wire[3:5] and wire[6 + length + 1] == 0x16:
            good += (adler32(body) - 1) & 0xFF == wire[6 + length]
    return good


_F25 = Struct("<5s" + "3s" * 8 + "2s" * 7 + "3s" * 8)
_F25_DECIMALS = (*(4,) * 8, *(1,) * 7, *(3,) * 4, *(4,) * 4)


def _bare_f25(wire: bytes) -> list[Decimal | None]:
    """The 22 values of a 0C F25 as exact decimals, by hand: no sign, no frame check, no names."""
    found = []
    for field, decimals in zip(_F25.unpack_from(wire, 18)[1:], _F25_DECIMALS, strict=True):
        text = field[::-1].hex()
        found.append(Decimal(f"{text[:-decimals]}.{text[-decimals:]}") if text.isdecimal() else None)
    return found


def _typed(n: int) -> list[Row]:
    frame, registers = _momentary(), _registers()
    wire = frame.encode()
    device = Device(id=1, name="t", link="l", profile="p", address="3301-4660", points=(Point(id=1, name="p"),))

    def framed() -> None:
        framer = Framer()
        for _ in range(n):
            framer.feed(wire)
            framer.next_event()

    def typed() -> Message:
        framer = Framer()
        for _ in range(n):
            framer.feed(wire)
            found = framer.next_event()
            assert isinstance(found, Frame)
            message = parse(found)
        return message

    assert typed().units[0].data is not None and str(_bare_f25(wire)[0]) == "1.1147"
    bare = _rate(lambda: [_bare_f25(wire) for _ in range(n)], n)
    stream = wire * n
    return [
        _row("87 B frames: checked, a feed a frame", _rate(framed, n), "frames/s",
             ("bare length and checksum", _rate(lambda: _bare_framing(wire, n), n)), ">= 0.25"),
        _row("the same from one stream", _rate(lambda: cut(stream), n), "frames/s", None),
        _row("0C F25 bytes to 22 typed values by name", _rate(typed, n), "frames/s",
             ("the same decimals by hand, no names, no checks", bare), ">= 0.5"),
        _row("0C F129 to five typed values", _rate(lambda: [parse(registers) for _ in range(n)], n), "frames/s", None),
        _row("0C F25 frame to samples of the device's points",
             _rate(lambda: [read_answers([frame], device, Labels(), NOW_US) for _ in range(n // 4)], n // 4),
             "frames/s", ("the same decimals by hand", bare)),
    ]  # fmt: skip


# --- curves ---------------------------------------------------------------------------------------------------------
WORDS = [None if a is None or b is None else a * 100.0 + b for a in _TABLE for b in _TABLE]
_NAN = float("nan")
_LIST = [_NAN if w is None else w for w in WORDS]
_BYTES = [_NAN if b is None else float(b) for b in _TABLE]
_TENTHS = [w / 10 for w in _LIST]
_HUNDREDS = [w * 100 if i < 0x8000 else -_LIST[i & 0x7FFF] * 100 for i, w in enumerate(_LIST)]


def _plain_two(body: bytes) -> list[float]:
    return [_TENTHS[w] for w in Struct(f"<{len(body) // 2}H").unpack(body)]


def _plain_three(body: bytes) -> list[float]:
    """Sign left aside, which is to the peer's good."""
    low, table, high = body[::3], _BYTES, _HUNDREDS
    return [(table[a] + high[b | c << 8]) / 1e4 for a, b, c in zip(low, body[1::3], body[2::3], strict=True)]


def _plain_four(body: bytes) -> list[float]:
    words = Struct(f"<{len(body) // 2}H").unpack(body)
    return [(_LIST[a] + _LIST[b] * 1e4) / 100 for a, b in zip(words[::2], words[1::2], strict=True)]


_BLOCK = 250 * POINTS


def _take_two(body: bytes, table: F8) -> F8:
    """np.take over the words, block by block: one table."""
    index = np.frombuffer(body, "<u2")
    out = np.empty(len(index))
    for i in range(0, len(index), _BLOCK):
        np.take(table, index[i : i + _BLOCK], out=out[i : i + _BLOCK], mode="clip")
    return out


def _take_pairs(body: bytes, width: int, high: F8, low: F8) -> F8:
    """Two tables, summed and divided: no sign."""
    count = len(body) // width
    top = np.ndarray((count,), "<u2", body, width - 2, (width,))
    kind = "u1" if width == 3 else "<u2"
    below = np.ndarray((count,), kind, body, 0, (width,))
    out = np.empty(count)
    for i in range(0, count, _BLOCK):
        part = out[i : i + _BLOCK]
        np.take(high, top[i : i + _BLOCK], out=part, mode="clip")
        part += np.take(low, below[i : i + _BLOCK], mode="clip")
        part /= 1e4
    return out


def _curves(fn: int, rows: int, plain: Callable[[bytes], list[float]], bare: Callable[[bytes], F8]) -> list[Row]:
    random = np.random.default_rng(1)
    kind = curve_classes()[fn]
    size = {"A.7": 400.0, "A.9": 79.0, "A.11": 90_000.0}[kind.format]
    values = np.round(random.uniform(0, size, (rows, POINTS)), 1)
    frames = [
        Frame(0x88, ADDRESS, b"\x0d\x60" + single(1 + i % 5, fn) + encode_curve(fn, START, 1, values[i]))
        for i in range(rows)
    ]
    areas = [a for a in map(area, frames) if a is not None]
    bodies = [a[11:] for a in areas]
    joined = b"".join(bodies)
    stream = b"".join(f.encode() for f in frames)
    total = rows * POINTS
    found, rest = gather(areas)
    one = read_curves(frames[0])
    assert (
        not rest and np.allclose(found[0].value, values) and one is not None and np.allclose(one[0].values, values[0])
    )
    assert np.allclose(plain(bodies[0]), values[0]) and np.allclose(bare(joined)[:POINTS], values[0])
    limit = ("np.take bare loop", _rate(lambda: bare(joined), total))
    slow = ("list tables in plain Python", _rate(lambda: [plain(b) for b in bodies], total))
    name = f"{kind.width} bytes a value ({kind.format})"
    coder = kind.coder
    return [
        _row(f"curves, {name}: gathered bodies to arrays", _rate(lambda: coder.decode(joined, total), total),
             "values/s", limit, ">= 100 M"),
        _row(f"curves, {name}: many frames' data areas to one block", _rate(lambda: gather(areas), total), "values/s",
             limit, ">= 100 M"),
        _row(f"curves, {name}: byte stream to one block, frames checked",
             _rate(lambda: gather([a for a in map(area, cut(stream)[0]) if a is not None]), total), "values/s", slow),
        _row(f"curves, {name}: one frame of 96 points at a time",
             _rate(lambda: [read_curves(f) for f in frames], total), "values/s", slow, ">= 10 M"),
        _row(f"curves, {name}: arrays to bodies (simulator)", _rate(lambda: encode_values(kind.format, values), total),
             "values/s", None),
    ]  # fmt: skip


def _mixed(rows: int) -> Row:
    """Answers as they come: eight classes of one point, 96 points each, from many terminals."""
    random = np.random.default_rng(2)
    classes = (81, 85, 89, 90, 91, 92, 101, 102)
    values = np.round(random.uniform(0, 70, (len(classes), POINTS)), 1)
    units = b"".join(single(1, fn) + encode_curve(fn, START, 1, values[i]) for i, fn in enumerate(classes))
    areas: Sequence[bytes] = [units] * rows
    total = rows * len(classes) * POINTS
    return _row("curves, eight classes a frame: many frames to one block", _rate(lambda: gather(areas), total),
                "values/s", None, ">= 100 M")  # fmt: skip


def run(quick: bool = False) -> list[Row]:
    """All rows: bench, name, value, unit, peer, ratio, target."""
    n, rows = (2_000, 1_000) if quick else (20_000, 8_000)
    words, single_bytes = np.array(_LIST), np.array(_BYTES)
    found = _typed(n)
    found += _curves(89, rows, _plain_two, lambda body: _take_two(body, words / 10))
    found += _curves(81, rows, _plain_three, lambda body: _take_pairs(body, 3, words * 100, single_bytes))
    found += _curves(101, rows, _plain_four, lambda body: _take_pairs(body, 4, words * 1e6, words * 100))
    return [*found, _mixed(rows // 8)]


if __name__ == "__main__":
    for row in run():
        print(row)
