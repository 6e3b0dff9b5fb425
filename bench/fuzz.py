"""Random and mutated inputs for framers and parsers: only their own outcomes, no hang, no growth. Used by `make soak`.

One input is one random chunk or one mutated frame, fed to a framer in one or two pieces and drained to NEED_MORE, or
handed to a parser. A tenth of the mutated frames gets its length and checksum right again, so that what lies behind the
framer sees strange content too. Every chunk of inputs follows from (target, seed, number) alone and can be repeated.
"""

from __future__ import annotations

import functools
import gc
import logging
import random
import re
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from fuhe.acquisition.io.pushes import Pushes
from fuhe.model.devices import Device, Point
from fuhe.model.times import from_us
from fuhe.protocols.common.checksum import sum8
from fuhe.protocols.common.errors import FuheError
from fuhe.protocols.common.framer import NeedMore, Skipped
from fuhe.protocols.dlt645.explain import describe_frame
from fuhe.protocols.dlt645.frame import START, make_frame
from fuhe.protocols.dlt645.frame import Framer as Dlt645Framer
from fuhe.protocols.modbus.crc import with_crc
from fuhe.protocols.modbus.decode import decode_rtu, decode_tcp
from fuhe.protocols.modbus.frame import Direction, MbapFramer, ReplyFramer, RtuFramer
from fuhe.protocols.modbus.wire import read_wire, write_wire
from fuhe.protocols.mqtt.payload import parse_answer, parse_command, parse_status
from fuhe.protocols.qgdw1376.edition import edition
from fuhe.protocols.qgdw1376.explain import describe_frame as describe_terminal
from fuhe.protocols.qgdw1376.frame import Address
from fuhe.protocols.qgdw1376.frame import Frame as TerminalFrame
from fuhe.protocols.qgdw1376.frame import Framer as TerminalFramer
from fuhe.protocols.qgdw1376.message import Message, build, parse
from fuhe.protocols.qgdw1376.plain import message_of_plain, plain_message
from fuhe.storage.batches import decode_record, encode_batches

from .fuzz_exchange import ExchangeProbe

BOUND: Final = 4096  # bytes a framer may hold after it was drained; longer than any frame of ours
BATCH: Final = 64  # inputs a framer gets before it is told that the line is quiet, and another takes its place
EXPLAINED: Final = 8  # every so manieth frame goes to the decoder as well: it costs ten times what the framer costs
INPUT_MAX: Final = 1024
GROWTH: Final = 1 << 20  # bytes of Python objects that a chunk of inputs may leave behind (caches fill once)
_SPECIAL: Final = (0x00, 0xFF, 0x68, 0x16, 0xFE, 0x80, 0x7F, 0xEE)


class Broken(AssertionError):
    """A rule was broken; the text names the rule and holds the input."""


class Probe(Protocol):
    """Takes one input after the other; raises what must not be, counts what was."""

    counts: dict[str, int]

    def put(self, data: bytes, bits: int) -> None:
        """One input; `bits` (32) are random choices."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is tried: valid inputs to start from, how to make checksums right again, and a fresh probe."""

    name: str
    seeds: tuple[bytes, ...]
    mend: Callable[[bytes], bytes]
    probe: Callable[[], Probe]


# --- inputs -----------------------------------------------------------------------------------------------------------


def mutate(data: bytes, bits: int) -> bytes:
    """One change that 64 random bits choose: a byte or bit, bytes lost, put in, doubled, turned round, cut off."""
    if not data:
        return (bits & 0xFFFFFFFF).to_bytes(4, "big")
    at, kind, byte, some = (bits & 0xFFFF) % len(data), bits >> 16 & 7, bits >> 24 & 0xFF, bits >> 32
    if kind == 0:
        return data[:at] + bytes((byte,)) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[at + 1 + byte % 5 :]
    if kind == 2:
        return data[:at] + some.to_bytes(4, "big")[: 1 + byte % 4] + data[at:]
    if kind == 3:
        return data[:at] + bytes((data[at] ^ (1 << (byte & 7)),)) + data[at + 1 :]
    if kind == 4:
        return (data + data[at:])[:INPUT_MAX]
    if kind == 5:
        return data[at:] + data[:at]
    if kind == 6:
        return data[:at]
    return data[:at] + bytes((_SPECIAL[byte % len(_SPECIAL)],)) + data[at + 1 :]


def inputs(target: Target, rng: random.Random, n: int) -> Iterator[tuple[bytes, int]]:
    """`n` inputs with 32 random bits each: a quarter random bytes, the rest valid ones changed one to four times."""
    bits, seeds, mend = rng.getrandbits, target.seeds, target.mend
    for _ in range(n):
        choice = bits(64)
        if choice & 3 == 0:
            data = rng.randbytes(choice >> 2 & 63)
        else:
            data = seeds[(choice >> 8 & 0xFFFF) % len(seeds)]
            for _ in range(1 + (choice >> 2 & 3)):
                data = mutate(data, bits(64))
            if (choice >> 4 & 15) < 2:
                data = mend(data)
        yield data, choice >> 32


# --- probes -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class StreamProbe:
    """Framers with the three outcomes. make(k): the k-th framer; held: bytes in it; quiet: nothing more comes."""

    make: Callable[[int], Any]
    held: Callable[[Any], int]
    quiet: Callable[[Any], None]
    explain: Callable[[Any], object]
    counts: dict[str, int] = field(default_factory=lambda: {"inputs": 0, "frames": 0, "skipped": 0, "refused": 0})
    _framer: Any = None

    def put(self, data: bytes, bits: int) -> None:
        """Feed in two pieces (or one), drain after each, measure what is held."""
        counts = self.counts
        number = counts["inputs"]
        if number % BATCH == 0:
            self._framer = self.make(number // BATCH)
        counts["inputs"] = number + 1
        framer, size = self._framer, len(data)
        if bits & 1 or not size:
            framer.feed(data)
            self._drain(framer, size)
        else:
            cut = (bits >> 1) % size
            framer.feed(data[:cut])
            self._drain(framer, cut)
            framer.feed(data[cut:])
            self._drain(framer, size - cut)
        if number % BATCH == BATCH - 1:
            self.quiet(framer)
            self._drain(framer, 0)
            if self.held(framer):
                raise Broken(f"{self.held(framer)} bytes held on a quiet line")
        elif self.held(framer) > BOUND:
            raise Broken(f"{self.held(framer)} bytes held after draining")

    def _drain(self, framer: Any, fed: int) -> None:
        """More outcomes than bytes would be a hang."""
        budget = fed + BOUND
        while True:
            event = framer.next_event()
            if isinstance(event, NeedMore):
                return
            budget -= 1
            if budget < 0:
                raise Broken("no end of outcomes")
            if isinstance(event, Skipped):
                if event.count <= 0:
                    raise Broken(f"skipped {event.count} bytes")
                self.counts["skipped"] += event.count
                continue
            self.counts["frames"] += 1
            if self.counts["frames"] % EXPLAINED == 0:
                try:
                    self.explain(event)
                except FuheError:
                    self.counts["refused"] += 1


_REPLY_WIRES: Final = (
    read_wire("rtu", 1, 3, 0, 2),
    read_wire("rtu", 2, 4, 10, 60),
    read_wire("rtu", 3, 1, 0, 16),
    write_wire("rtu", 1, 5, 0, 0xFF00),
    read_wire("tcp", 1, 3, 0, 2),
    read_wire("tcp", 2, 4, 10, 125),
)
_TRANSACTION: Final = b"\x00\x07"


def _reply(number: int) -> bytes:
    """A whole reply to one of the wires."""
    wire = _REPLY_WIRES[number]
    expected = wire.expected(_TRANSACTION)[0]
    body = expected.head + bytes(i & 0xFF for i in range(expected.length - len(expected.head) - 2 * expected.checked))
    return with_crc(body) if expected.checked else body


@dataclass(slots=True)
class ReplyProbe:
    """The poller's framer: it answers only the awaited reply, whole and checked, and holds at most its bound."""

    counts: dict[str, int] = field(default_factory=lambda: {"inputs": 0, "frames": 0})
    _framer: ReplyFramer = field(default_factory=ReplyFramer)
    _heads: tuple[bytes, ...] = ()

    def put(self, data: bytes, bits: int) -> None:
        """Feed, take at most one reply; after it, or after a batch, another one is awaited."""
        counts, framer = self.counts, self._framer
        if counts["inputs"] % 4 == 0:
            self._await(bits >> 8)
        counts["inputs"] += 1
        framer.feed(data)
        event = framer.next_event()
        if not isinstance(event, NeedMore):
            counts["frames"] += 1
            if not event.startswith(self._heads):
                raise Broken(f"a reply that nobody awaits: {event.hex()}")
            if not isinstance(framer.next_event(), NeedMore):
                raise Broken("two replies to one request")
        if framer.pending > BOUND:
            raise Broken(f"{framer.pending} bytes held")

    def _await(self, choice: int) -> None:
        expected = _REPLY_WIRES[choice % len(_REPLY_WIRES)].expected(_TRANSACTION)
        self._heads = tuple(e.head for e in expected)
        self._framer.expect(*expected)


_KEYS: Final = (b'"samples"', b'"curves"', b'"events"', b'"action"', b'"accepted"', b'"online"')


@dataclass(slots=True)
class MessageProbe:
    """MQTT payloads as they come from the broker, on any topic: read, and fit for the journal, or refused as ours."""

    counts: dict[str, int] = field(default_factory=lambda: {"inputs": 0, "frames": 0, "refused": 0})
    _pushes: Pushes = field(default_factory=Pushes)

    def __post_init__(self) -> None:
        points = (Point(id=7, name="p7", pn=1), Point(id=8, name="p8", pn=2))
        device = Device(id=1, name="m1", link="broker", profile="mqtt-v1", address="m1", points=points)
        self._pushes.set_devices((device,))

    def put(self, data: bytes, bits: int) -> None:
        """One message on the topic that its text suggests, one in eight on any other."""
        self.counts["inputs"] += 1
        kind = bits & 7 if bits & 0x700 == 0 else next((i for i, key in enumerate(_KEYS) if key in data), bits & 7)
        try:
            if kind <= 1:
                self._store("fuhe/v1/m1/readings", data)
            elif kind == 2:
                self._store("fuhe/v1/m1/events", data)
            elif kind == 3:
                parse_command(data)
            elif kind == 4:
                parse_answer(data)
            elif kind <= 6:
                parse_status(data)
            else:
                self._store("fuhe/v1/m1/" + data[:40].decode("latin-1"), data)
        except FuheError:
            self.counts["refused"] += 1
        else:
            self.counts["frames"] += 1

    def _store(self, topic: str, data: bytes) -> None:
        pushed = self._pushes.read("fuhe/v1", topic, data, 1_790_000_000_000_000)
        if pushed.batch is not None:
            decode_record(encode_batches([pushed.batch]))
            for event in pushed.batch.events:
                from_us(event.time_us), from_us(event.end_us or 0)
                if "\0" in f"{event.code}{event.data}" or "\\x00" in repr(event.data):
                    raise Broken("a text that the database cannot hold")


def _same_units(one: Message, other: Message) -> bool:
    """The same units, whatever identifiers they share."""
    told = [[(u.pn, u.fn, u.raw, u.fault, u.data) for u in m.units] for m in (one, other)]
    return told[0] == told[1]


@dataclass(slots=True)
class TerminalProbe:
    """Q/GDW 1376.1 user data: read, shown, and written again as what was read; refused only for want of room."""

    counts: dict[str, int] = field(default_factory=lambda: {"inputs": 0, "frames": 0, "refused": 0})

    def put(self, data: bytes, bits: int) -> None:
        """C of the input's first byte, the rest from AFN on; one in four of another edition."""
        self.counts["inputs"] += 1
        peer = edition((None, None, None, "2005", "2009")[bits % 5])
        frame = TerminalFrame(data[0] if data else 0, _TERMINAL, data[1:], 1 + (bits >> 8 & 1))
        try:
            message = parse(frame, peer)
        except FuheError:
            self.counts["refused"] += 1
            return
        self.counts["frames"] += 1
        again = parse(build(message, peer), peer)
        if not _same_units(message, again):
            # Junk in a known unit becomes fill when it is written; where a unit of unknown length follows, that may let
            # another guess fit. What is wholly known must not change, and everything must come to rest.
            if not any(unit.fault for unit in (*message.units, *again.units)):
                raise Broken("written again it reads otherwise")
            if not _same_units(again, parse(build(again, peer), peer)):
                raise Broken("written twice it reads otherwise")
        if self.counts["frames"] % EXPLAINED:
            return
        shown = msgspec.json.decode(msgspec.json.encode(plain_message(message, frame, peer)))
        if parse(build(message_of_plain(shown, peer), peer), peer).units != again.units:
            raise Broken("the plain object is another message")
        describe_terminal(frame, peer)


# --- targets ----------------------------------------------------------------------------------------------------------


def _mend_dlt645(data: bytes) -> bytes:
    """Start bytes, length, checksum and end byte as they must be; the content as it is."""
    start = data.find(START)
    if start < 0 or len(data) - start < 10:
        return data
    body = bytearray(data[start : start + 210])
    del body[max(10, len(body) - 2) :]
    body[7], body[9] = START, len(body) - 10
    return data[:start] + bytes(body) + bytes((sum8(bytes(body)), 0x16))


def _mend_rtu(data: bytes) -> bytes:
    return with_crc(data[:-2][:254]) if len(data) > 4 else data


def _mend_mbap(data: bytes) -> bytes:
    rest = data[6:260]
    return data[:2] + b"\0\0" + len(rest).to_bytes(2, "big") + rest if len(data) > 8 else data


def _mend_json(data: bytes) -> bytes:
    """A message that is JSON for sure: a valid one with one or two of its tokens put in another's place."""
    choice = zlib.crc32(data)
    message = _message_seeds()[choice % 7]
    for _ in range(1 + (choice >> 3 & 1)):
        spans = [m.span(1) for m in _TOKEN.finditer(message) if m[1]]
        start, end = spans[(choice >> 8 & 0xFF) % len(spans)]
        message = message[:start] + _ODD[(choice >> 16 & 0xFF) % len(_ODD)] + message[end:]
        choice = zlib.crc32(message)
    return message


_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*":|("(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null)')
_ODD: Final = (
    b"null", b"true", b"-1", b"0", b"1e308", b"-1e308", b"1e999", b"5e-324", b"123456789012345678901234567890",
    b"0.1", b'""', b'"\\u0000"', b'"\\ud800"', b'"a/b"', b'"m1"', b'"m2"', b"[]", b"{}", b"[[[[[]]]]]",
    b"65535", b"65536",
    b'"0001-01-01T00:00:00Z"', b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59-23:59"',
    b'"2026-09-21T24:00:00Z"',
    b'"2026-02-29T00:00:00Z"', b'"2026-09-21T00:00:00"', b'"' + b"x" * 600 + b'"', b"86400", b"60", b"61",
    b'"voltage_a"', b'"forward_active_total"', b'"live"', b'"monthly"', b'"\xff"', "\"跳闸\"".encode(),
)  # fmt: skip


_TERMINAL: Final = Address("3301", 4660, msa=2)


def _mend_qgdw1376(data: bytes) -> bytes:
    """Start bytes, both lengths, checksum and end byte as they must be; the content as it is."""
    start = data.find(START)
    if start < 0 or len(data) - start < 16:
        return data
    body = data[start + 6 : start + 600][:-2]
    word = (len(body) << 2 | 2).to_bytes(2, "little")
    return data[:start] + b"\x68" + word + word + b"\x68" + body + bytes((sum8(body), 0x16))


@cache
def _qgdw1376_users() -> tuple[bytes, ...]:
    """Control byte and application layer of messages of all kinds."""
    texts = (
        "C90271 00000400 512100306316", "0B0061 00000400 02 00000100 00", "4A0571 0F010200" + "00" * 16,
        "4A0460 00000201 0100 0100010021006655443322112222221111110005666666332211 31" + "00" * 16,
        "4A0472 01010208 81001500012101010401011000010140000101011401010414" + "1E" * 16,
        "4B0DE0 0101010A 0015080310010C 023008080805", "4B0A70 00000201 0200 0100 0200", "880A60 000008010F0F",
        "880C6C 20010110 351725011404" + "0079920000" * 5,
        "880C63 01010103 3014080810" + "4711010000EFEF" * 8 + "EEEEEEEEEEEE",
        "880D6E 0201010A 45121604150101EEEEEE 0201800B 45121604150101EEEE 0201010D 45121604150101EEEE",
        "A80D60 00000106 03071295052500 1200", "880E61 00000100 01010001 010E351016011402322E3031322E3032",
        "C40E70 00000100 03000002 0E0A40143107103111030810 2403112233", "4B0EE0 00000200 00FF 005613170405",
        "4B10E0 00000100 1F6BBC0A1000 68611001301215681104333334337B16" + "00" * 16 + "001351232105",
        "A810E0 00000100 1F1400 6861100130121568910833333433AB3933334916 4F00 000650232105",
        "880960 0000FF00" + "01" * 60,
        "880C60 01011E02" + "00" * 10 + "0102030405" * 4, "8B0060 00000200", "4B0C75 000080FE", "4A0560 FF000100",
    )  # fmt: skip
    return tuple(bytes.fromhex(t) for t in texts)


def _qgdw1376_seeds() -> tuple[bytes, ...]:
    frames = [TerminalFrame(u[0], _TERMINAL, u[1:], 1 + i % 2) for i, u in enumerate(_qgdw1376_users())]
    return tuple(f.encode(i % 5) for i, f in enumerate(frames))


def _dlt645_seeds() -> tuple[bytes, ...]:
    samples = (
        "00000100 56341200", "00FF0102 7123FFFFFFFF", "03050004 5000", "01000006 A0A00A", "00FF0605 00",
        "00FF0000 785634120000000000000000000000000000000000", "02800100 0050", "0101000401 220718",
    )  # fmt: skip
    frames = [make_frame("123456789012", 0x91, bytes.fromhex(s), lead=4) for s in samples]
    frames += [make_frame("AAAAAAAAAAAA", c, bytes(4 + c % 9)) for c in (0x01, 0x11, 0x14, 0x1C, 0xD1, 0xB1, 0x08)]
    frames.append(make_frame("42", 0xB2, bytes(range(180)), lead=2))
    return tuple(f.encode() for f in frames)


def _modbus_pdus() -> list[bytes]:
    texts = (
        "010300000002", "010304436633341B", "018302", "01050000FF00", "0110000000020400010002", "011000000002",
        "020408000100020003FFFF", "01010000000A", "010102FF03", "012B0E0100", "0116000400F20025", "0107", "010755",
        "0117000000020004000102FFFF",
    )  # fmt: skip
    return [bytes.fromhex(t) for t in texts]


def _mbap(pdu: bytes) -> bytes:
    return _TRANSACTION + b"\0\0" + len(pdu).to_bytes(2, "big") + pdu


@cache
def _message_seeds() -> tuple[bytes, ...]:
    nonce, mac = "0" * 32, "a" * 64
    return tuple(
        text.encode()
        for text in (
            '{"v":1,"device":"m1","samples":[{"time":"2026-09-21T22:00:00+08:00","values":{"voltage_a":220.5,"frequency":null}}]}',
            '{"v":1,"device":"m1","samples":[{"time":"2026-09-21T14:00:00.123456Z","values":{"active_power_total":1e3},"point":2,"source":"daily"}],"curves":[{"quantity":"active_power_total","start":"2026-09-21T00:15:00+08:00","step_s":900,"values":[1,2.5,null,-4]}]}',
            '{"v":1,"device":"m1","curves":[{"quantity":"voltage_a","start":"2026-09-21T00:15:00+08:00","step_s":60,"values":[1e300,null]},{"quantity":"voltage_b","start":"0001-01-01T00:00:00+00:00","step_s":86400,"values":[0]}]}',
            '{"v":1,"device":"m1","events":[{"time":"9999-12-31T23:59:59Z","code":"trip","end":"2026-09-21T14:00:00Z","point":1,"data":{"round":1,"text":"跳闸","x":null}}]}',
            f'{{"v":1,"device":"m1","id":"c-1","action":"trip","valid_until_ms":1790000000000,"nonce":"{nonce}","signature":"{mac}","round":2}}',
            f'{{"v":1,"device":"m1","id":"c-1","nonce":"{nonce}","accepted":true,"time_ms":1790000000000,"signature":"{mac}","state":{{"open":true}}}}',
            '{"v":1,"device":"m1","online":true,"time":"2026-09-21T14:00:00Z"}',
        )
    )  # fmt: skip


def _same(_: object) -> None:
    """Nothing to explain."""


_DIRECTIONS: Final[tuple[Direction | None, ...]] = (None, "request", "reply")


@cache
def targets() -> dict[str, Target]:
    """Every framer and parser that takes bytes from outside, by name."""

    def modbus(make: Callable[[int], Any], explain: Callable[[Any], object]) -> Probe:
        return StreamProbe(make, lambda f: f.pending, lambda f: f.flush(), explain)

    found = (
        Target(
            "dlt645", _dlt645_seeds(), _mend_dlt645,
            lambda: StreamProbe(
                lambda k: Dlt645Framer(255 if k & 1 else 200), len, lambda f: f.expire(), describe_frame
            ),
        ),
        Target(
            "qgdw1376", _qgdw1376_seeds(), _mend_qgdw1376,
            lambda: StreamProbe(
                lambda k: TerminalFramer(255 if k & 1 else 2048), len, lambda f: f.expire(),
                lambda frame: describe_terminal(frame, edition()),
            ),
        ),
        Target("qgdw1376-message", _qgdw1376_users(), lambda data: data, TerminalProbe),
        Target("qgdw1376-exchange", _qgdw1376_users(), lambda data: data, ExchangeProbe),
        Target(
            "modbus-rtu", tuple(with_crc(p) for p in _modbus_pdus()), _mend_rtu,
            lambda: modbus(lambda k: RtuFramer(_DIRECTIONS[k % 3]), lambda f: decode_rtu(f.raw)),
        ),
        Target(
            "modbus-tcp", tuple(_mbap(p) for p in _modbus_pdus()), _mend_mbap,
            lambda: modbus(lambda k: MbapFramer(_DIRECTIONS[k % 3]), lambda f: decode_tcp(f.raw)),
        ),
        Target("modbus-reply", tuple(_reply(n) for n in range(len(_REPLY_WIRES))), _mend_rtu, ReplyProbe),
        Target("mqtt", _message_seeds(), _mend_json, MessageProbe),
    )  # fmt: skip
    return {t.name: t for t in found}


# --- running ----------------------------------------------------------------------------------------------------------


def fuzz(target: Target, n: int, *, seed: int = 645, chunk: int = 0) -> dict[str, int]:
    """`n` inputs of one chunk. Broken (with the input and how to repeat it) for whatever must not be."""
    probe, data = target.probe(), b""
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # it tells of every frame that it cannot read
    try:
        for data, bits in inputs(target, random.Random(f"{target.name}/{seed}/{chunk}"), n):
            probe.put(data, bits)
    except Exception as error:
        raise Broken(
            f"{target.name}, seed {seed}, chunk {chunk}, input {probe.counts['inputs']}, {type(error).__name__}: "
            f"{error}; input {data.hex()}"
        ) from error
    return probe.counts


def growth(target: Target, n: int, *, seed: int = 645, chunk: int = 0) -> int:
    """Bytes of Python objects that `n` inputs leave behind, beside what caches with a bound hold."""
    fuzz(target, n, seed=seed, chunk=chunk)
    _tidy()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        fuzz(target, n, seed=seed, chunk=chunk + 1)
        _tidy()
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    if left > GROWTH:
        raise Broken(f"{target.name}: {n} inputs left {left} bytes behind")
    return left


def _tidy() -> None:
    """Empty the caches that have a bound, and collect cycles that only wait for it."""
    for found in gc.get_objects():
        if isinstance(found, functools._lru_cache_wrapper) and found.cache_parameters()["maxsize"] is not None:
            found.cache_clear()
    gc.collect()


def resident_kb() -> int:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def dlt645(n: int, *, seed: int = 645) -> dict[str, int]:
    """The DL/T 645 framer with its decoder behind it."""
    return fuzz(targets()["dlt645"], n, seed=seed)


def names() -> Sequence[str]:
    """Names of all targets."""
    return tuple(targets())
