"""One way into every decoder: `decode(protocol, bytes, ...)` for a frame, `hunt` for frames in a capture or a log.

Nothing heavy is imported before it is needed: decoding one DL/T 645 frame loads neither numpy nor pymodbus.
"""

from __future__ import annotations

import importlib
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .common.errors import FuheError, UsageError

if TYPE_CHECKING:
    from .dlt645.frame import Frame as MeterFrame
    from .qgdw1376.edition import Edition
    from .qgdw1376.frame import Frame as TerminalFrame

Plain = dict[str, object]
Profile = str | Mapping[str, object] | None
PROTOCOLS: Final = ("dlt645", "qgdw1376", "dlt698", "modbus-rtu", "modbus-tcp")
# bytes written as hex in a log line: pairs with blanks, commas, colons, 0x or \x between them
_PAIR: Final = r"(?:0[xX]|\\x)?[0-9A-Fa-f]{2}"
_HEX_RUN: Final = re.compile(rf"(?<![0-9A-Za-z])(?:{_PAIR}(?:[ \t,;:-]+|(?=[0-9A-Fa-f\\])|$|(?=\W)))+")
# dates and times of day in front of a frame would read as hex; three groups only, so that 68:12:90:... stays
_STAMPS: Final = re.compile(
    r"\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?=[T\s_]|$)T?|(?<![0-9A-Fa-f:])\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d{1,9})?(?![0-9A-Fa-f:])"
)
_SHORTEST: Final = 8


@dataclass(frozen=True, slots=True)
class Found:
    """A frame found in a log. line counts from 1 (0 = binary capture); decoded as `decode` gives it."""

    line: int
    protocol: str
    hex: str
    decoded: Plain


def to_bytes(text: str) -> bytes:
    """Bytes of hex text with blanks, commas, colons or 0x between the pairs; UsageError names a bad character."""
    digits = re.sub(r"0[xX]|\\x|[\s,;:-]", "", text)
    bad = re.search(r"[^0-9A-Fa-f]", digits)
    if bad:
        raise UsageError(
            f"{bad.group()!r} is no hexadecimal digit: give the frame as hex, for example 68AAAAAAAAAAAA681300DF16"
        )
    if len(digits) % 2 or not digits:
        raise UsageError("the hex text has an odd number of digits" if digits else "no bytes to decode")
    return bytes.fromhex(digits)


def _dlt645(data: bytes, version: str | None, _layer: str | None, _profile: Profile, secrets: bool) -> Plain:
    from .dlt645.explain import describe

    return describe(data, version, secrets=secrets)


def _qgdw1376(data: bytes, version: str | None, _layer: str | None, profile: Profile, secrets: bool) -> Plain:
    from .qgdw1376.explain import describe

    return describe(data, version, terminal_profile(profile), secrets=secrets)


def terminal_profile(profile: Profile) -> Mapping[str, object] | None:
    """What a Q/GDW 1376.1 device does differently, from an object or its JSON text. UsageError: neither."""
    if profile is None or isinstance(profile, Mapping):
        return profile
    import msgspec

    try:
        return msgspec.json.decode(profile, type=dict[str, object])
    except msgspec.MsgspecError:
        raise UsageError(
            f'profile {profile!r}: give what the device does differently, like {{"pw_len": 2, "numbering": "2009"}}'
        ) from None


def _modbus(name: str) -> Callable[[bytes, str | None, str | None, Profile, bool], Plain]:
    def run(data: bytes, _version: str | None, _layer: str | None, profile: Profile, _secrets: bool) -> Plain:
        if isinstance(profile, Mapping):
            raise UsageError("the profile of a Modbus frame is the name of a register map")
        module = importlib.import_module(".modbus.decode", __package__)
        answer: Plain = getattr(module, name)(data, profile)
        return answer

    return run


_DECODERS: Final[dict[str, Callable[[bytes, str | None, str | None, Profile, bool], Plain]]] = {
    "dlt645": _dlt645,
    "qgdw1376": _qgdw1376,
    "modbus-rtu": _modbus("decode_rtu"),
    "modbus-tcp": _modbus("decode_tcp"),
}


def decode(
    protocol: str | None,
    data: bytes,
    version: str | None = None,
    layer: str | None = None,
    profile: Profile = None,
    *,
    secrets: bool = False,
) -> Plain:
    """The frame(s) in `data` as a plain object; the keys are the protocol's own (see its module).

    protocol None = told by the bytes. A broken frame is {"valid": False, "reason": ...}, not an exception. UsageError:
    unknown protocol, or one that this version of the program cannot decode.
    """
    if protocol is None:
        protocol = detect(data)
        if protocol is None:
            return {"valid": False, "reason": "unknown_protocol"}
        return {"protocol": protocol, **decode(protocol, data, version, layer, profile, secrets=secrets)}
    decoder = _DECODERS.get(protocol)
    if decoder is None:
        known = ", ".join(_DECODERS)
        if protocol in PROTOCOLS:
            raise UsageError(f"protocol {protocol} cannot be decoded by this version; it knows {known}")
        raise UsageError(f"unknown protocol {protocol!r}: choose one of {known}")
    return decoder(data, version, layer, profile, secrets)


def detect(data: bytes) -> str | None:
    """Protocol of the bytes: a good Q/GDW 1376.1 or DL/T 645 frame, Modbus RTU by its CRC, Modbus TCP by its header."""
    from .common.checksum import crc16_modbus
    from .dlt645.frame import cut
    from .qgdw1376.frame import cut as cut_terminal

    if 0x68 in data:
        if cut_terminal(data)[0]:
            return "qgdw1376"  # first: it may carry a meter's frame
        if cut(data, 255)[0]:
            return "dlt645"
    if len(data) >= 5 and crc16_modbus(data[:-2]) == int.from_bytes(data[-2:], "little"):
        return "modbus-rtu"
    if len(data) >= 8 and data[2:4] == b"\0\0" and int.from_bytes(data[4:6], "big") == len(data) - 6:
        return "modbus-tcp"
    body = data.lstrip(b"\xfe")
    if body[:1] == b"\x68":
        return "qgdw1376" if body[5:6] == b"\x68" and body[1:3] == body[3:5] else "dlt645"
    return None


def hex_runs(line: str) -> list[bytes]:
    """Byte runs written as hex in a line of text; times, numbers and words around them are passed over."""
    runs = []
    for match in _HEX_RUN.finditer(_STAMPS.sub(" | ", line)):
        digits = re.sub(r"0[xX]|\\x|[^0-9A-Fa-f]", "", match.group())
        if len(digits) >= 2 and len(digits) % 2 == 0:
            runs.append(bytes.fromhex(digits))
    return runs


class _Trail:
    """Cuts terminal frames out of the bytes of a log and hands what they leave to the meter framer, line by line."""

    def __init__(self, protocol: str | None) -> None:
        from .dlt645.frame import Framer as MeterFramer
        from .qgdw1376.frame import Framer as TerminalFramer

        self._terminal = TerminalFramer() if protocol in (None, "qgdw1376") else None
        self._meter = MeterFramer(255) if protocol in (None, "dlt645") else None
        self._pieces: deque[tuple[int, bytes]] = deque()  # (line, bytes) in the terminal framer
        self._begun = 0  # line of the meter framer's first byte

    def __len__(self) -> int:
        return sum(len(framer) for framer in (self._terminal, self._meter) if framer is not None)

    def feed(self, line: int, data: bytes) -> Iterator[tuple[int, TerminalFrame | MeterFrame]]:
        """The bytes of one line; frames with the line they end in."""
        if self._terminal is None:
            yield from self._to_meter(line, data)
            return
        self._pieces.append((line, data))
        self._terminal.feed(data)
        yield from self._drain_terminal()

    def end(self) -> Iterator[tuple[int, TerminalFrame | MeterFrame]]:
        """No more bytes belong to what has begun."""
        if self._terminal is not None:
            self._terminal.expire()
            yield from self._drain_terminal()
            self._terminal.reset()
            self._pieces.clear()
        if self._meter is not None:
            yield from self._end_meter()

    def forget(self) -> None:
        """Give up what has begun."""
        for framer in (self._terminal, self._meter):
            if framer is not None:
                framer.reset()
        self._pieces.clear()

    def _drain_terminal(self) -> Iterator[tuple[int, TerminalFrame | MeterFrame]]:
        from .common.framer import NeedMore, Skipped

        assert self._terminal is not None
        while not isinstance(event := self._terminal.next_event(), NeedMore):
            if isinstance(event, Skipped):
                for line, piece in self._take(event.count):
                    yield from self._to_meter(line, piece)
            else:
                yield from self._end_meter()
                line = max(line for line, _ in self._take(event.length + 8 + event.lead))
                yield line, event

    def _take(self, count: int) -> list[tuple[int, bytes]]:
        """The oldest bytes of the terminal framer, by line."""
        taken = []
        while count and self._pieces:
            line, data = self._pieces.popleft()
            taken.append((line, data[:count]))
            if len(data) > count:
                self._pieces.appendleft((line, data[count:]))
            count -= len(taken[-1][1])
        return taken

    def _to_meter(self, line: int, data: bytes) -> Iterator[tuple[int, MeterFrame]]:
        if self._meter is None:
            return
        if not len(self._meter):
            self._begun = line
        self._meter.feed(data)
        yield from self._drain_meter(line)

    def _end_meter(self) -> Iterator[tuple[int, MeterFrame]]:
        if self._meter is not None:
            self._meter.expire()
            yield from self._drain_meter(self._begun)
            self._meter.reset()

    def _drain_meter(self, line: int) -> Iterator[tuple[int, MeterFrame]]:
        from .common.framer import NeedMore, Skipped

        assert self._meter is not None
        while not isinstance(event := self._meter.next_event(), NeedMore):
            if not isinstance(event, Skipped):
                yield line, event


def hunt(
    text: str,
    protocol: str | None = None,
    version: str | None = None,
    profile: Profile = None,
    *,
    secrets: bool = False,
) -> Iterator[Found]:
    """Frames in a capture log: timestamps, directions and words around the hex are noise; a frame may go on over lines.

    Q/GDW 1376.1 and DL/T 645 frames are cut from the joined bytes of a run of lines (a meter's frame inside a
    terminal's is no frame of its own); Modbus frames are taken a line at a time.
    """
    from .qgdw1376.edition import of_profile

    tell = _Teller(version, secrets, protocol)
    if protocol in (None, "qgdw1376"):
        known = terminal_profile(profile) if protocol or isinstance(profile, Mapping) else None
        tell.peer = of_profile(known, version if protocol else None)
    trail = _Trail(protocol)
    for number, line in enumerate(text.splitlines(), 1):
        data = b"".join(hex_runs(line))
        if not data:
            continue
        found = False
        if protocol in (None, "dlt645", "qgdw1376"):
            # a new start at a line's head ends what the last line left unfinished
            if len(trail) and _begins(data):
                yield from map(tell, trail.end())
            for one in trail.feed(number, data):
                found = found or one[0] == number
                yield tell(one)
        if not found and protocol not in ("dlt645", "qgdw1376"):
            which = protocol or _modbus_of(data)
            if which in ("modbus-rtu", "modbus-tcp"):
                decoded = decode(which, data, None, None, profile, secrets=secrets)
                if decoded.get("valid") is not False and "error" not in decoded:
                    trail.forget()
                    yield Found(number, which, data.hex().upper(), decoded)
    yield from map(tell, trail.end())


def _begins(data: bytes) -> bool:
    body = data.lstrip(b"\xfe")
    if len(body) < _SHORTEST or body[0] != 0x68:
        return False
    return body[7] == 0x68 or (body[5] == 0x68 and body[1:3] == body[3:5])


def _modbus_of(data: bytes) -> str | None:
    which = detect(data)
    return which if which in ("modbus-rtu", "modbus-tcp") else None


class _Teller:
    """Turns frames of a log into Found."""

    def __init__(self, version: str | None, secrets: bool, protocol: str | None) -> None:
        self.version, self.secrets, self.protocol = version, secrets, protocol
        self.peer: Edition | None = None

    def __call__(self, one: tuple[int, TerminalFrame | MeterFrame]) -> Found:
        from .dlt645.frame import Frame as MeterFrame

        line, frame = one
        return self._meter(line, frame) if isinstance(frame, MeterFrame) else self._terminal(line, frame)

    def _meter(self, line: int, frame: MeterFrame) -> Found:
        from .dlt645.explain import describe_frame, edition
        from .dlt645.secrets import masked_hex

        version, secrets = self.version, self.secrets
        hidden = "FE" * frame.lead + masked_hex(frame, edition(frame, version))
        shown = frame.encode().hex().upper() if secrets else hidden
        return Found(line, "dlt645", shown, describe_frame(frame, version, secrets=secrets))

    def _terminal(self, line: int, frame: TerminalFrame) -> Found:
        from .qgdw1376.explain import describe_frame, masked_hex
        from .qgdw1376.message import parse

        assert self.peer is not None
        try:
            message = parse(frame, self.peer)
        except FuheError:
            message = None
        shown = frame.encode().hex().upper() if self.secrets else masked_hex(frame, message)
        return Found(line, "qgdw1376", shown, describe_frame(frame, self.peer, secrets=self.secrets))
