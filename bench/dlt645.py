"""DL/T 645 on one core beside the `dlt645` package from PyPI, on the same frames, in the same run.

The package stops at unmasked bytes for many items (blocks, load records and most of class 03 and 04): those have no
peer and are given as values a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from dlt645 import DLT645Protocol, MeterClientService

from fuhe.protocols.dlt645.explain import describe
from fuhe.protocols.dlt645.fields import Value
from fuhe.protocols.dlt645.frame import Frame, Framer, cut, make_frame
from fuhe.protocols.dlt645.items import decode_payload, lookup
from fuhe.protocols.dlt645.loads import decode_loads, encode_record
from fuhe.protocols.dlt645.scan import numbers, scan

ADDRESS = "123456789012"
ROUNDS = 5
Row = dict[str, object]


def _rate(work: Callable[[], object], count: int) -> float:
    """Best of ROUNDS, a second of CPU."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return count / best


def _row(name: str, value: float, unit: str, peer: float | None, target: str) -> Row:
    ratio = round(value / peer, 2) if peer else None
    named = f"dlt645 package {peer:,.0f}" if peer else None
    return {
        "bench": "dlt645",
        "name": name,
        "value": value,
        "unit": unit,
        "peer": named,
        "ratio": ratio,
        "target": target,
    }


def _framing(name: str, frame: Frame, n: int, target: str) -> list[Row]:
    wire = frame.encode(0)
    buffer = wire * n

    def peer() -> None:
        for _ in range(n // 8):
            DLT645Protocol.deserialize(wire)

    def one_by_one() -> None:
        framer = Framer()
        for _ in range(n):
            framer.feed(wire)
            framer.next_event()

    theirs = _rate(peer, n // 8)
    return [
        _row(f"{name}: checked and unmasked, a feed a frame", _rate(one_by_one, n), "frames/s", theirs, target),
        _row(f"{name}: the same from one stream", _rate(lambda: cut(buffer), n), "frames/s", theirs, target),
        _row(f"{name}: whole buffer in numpy", _rate(lambda: scan(buffer), n), "frames/s", theirs, target),
    ]


def _typed(n: int) -> Row:
    """Bytes to typed values with units: voltage, energy, power, power factor, in turn."""
    payloads = {"02010100": "0323", "00010000": "56341200", "02030000": "341200", "02060000": "9909"}
    wires = [
        make_frame(ADDRESS, 0x91, bytes.fromhex(di)[::-1] + bytes.fromhex(p)).encode() for di, p in payloads.items()
    ]
    client = MeterClientService.new_tcp_client("127.0.0.1", 1)
    client.address = bytearray.fromhex(ADDRESS)[::-1]

    assert all(client.handle_response(DLT645Protocol.deserialize(w)) is not None for w in wires)

    def peer() -> None:
        for i in range(n // 8):
            client.handle_response(DLT645Protocol.deserialize(wires[i & 3]))

    def ours() -> list[Value]:
        framer = Framer()
        values: list[Value] = []
        for i in range(n):
            framer.feed(wires[i & 3])
            frame = framer.next_event()
            assert isinstance(frame, Frame)
            item = lookup(frame.data[3::-1].hex())
            assert item is not None
            values = decode_payload(item, frame.data[4:])
        return values

    return _row("bytes to typed values with units", _rate(ours, n), "frames/s", _rate(peer, n // 8), ">= 2")


def _blocks(n: int) -> list[Row]:
    item = lookup("0203FF00")
    assert item is not None
    wire = make_frame(ADDRESS, 0x91, bytes.fromhex("00FF0302") + bytes.fromhex("341200") * 4).encode()
    buffer = wire * n
    start = datetime(2026, 1, 1)  # noqa: DTZ001 - a meter's own clock
    contents = {2: [1.2345] * 8}
    records = b"".join(encode_record(start + timedelta(minutes=15 * (i % 9600)), contents) for i in range(n))
    return [
        _row(
            "blocks (0203FF00) bytes to arrays",
            _rate(lambda: numbers(scan(buffer), item), 4 * n),
            "values/s",
            None,
            ">= 10 M",
        ),
        _row(
            "load records (class 2) to arrays",
            _rate(lambda: decode_loads(records, 2), 8 * n),
            "values/s",
            None,
            ">= 10 M",
        ),
    ]


def run(quick: bool = False) -> list[Row]:
    """All rows: bench, name, value, unit, peer, ratio, target."""
    n = 4_000 if quick else 40_000
    short = make_frame(ADDRESS, 0x91, bytes.fromhex("0000010056341200"))
    long = make_frame(ADDRESS, 0x91, bytes(range(200)))
    rows = _framing("24 B frames", short, n, ">= 4") + _framing("212 B frames", long, n, ">= 12")
    rows += [_typed(n), *_blocks(n)]
    whole = short.encode()
    rows.append(
        _row(
            "explained as an object (fuhe decode)",
            _rate(lambda: [describe(whole) for _ in range(n // 4)], n // 4),
            "frames/s",
            None,
            "",
        )
    )
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
