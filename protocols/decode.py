"""One way into every decoder: `decode(protocol, bytes, ...)` for a frame, `hunt` for frames in a capture or a log.

Nothing heavy is imported before it is needed: decoding one DL/T 645 frame loads neither numpy nor pymodbus.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from .common.errors import UsageError

Plain = dict[str, object]
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


def _dlt645(data: bytes, version: str | None, _layer: str | None, _profile: str | None, secrets: bool) -> Plain:
    from .dlt645.explain import describe

    return describe(data, version, secrets=secrets)


def _modbus(name: str) -> Callable[[bytes, str | None, str | None, str | None, bool], Plain]:
    def run(data: bytes, _version: str | None, _layer: str | None, profile: str | None, _secrets: bool) -> Plain:
        module = importlib.import_module(".modbus.decode", __package__)
        answer: Plain = getattr(module, name)(data, profile)
        return answer

    return run


_DECODERS: Final[dict[str, Callable[[bytes, str | None, str | None, str | None, bool], Plain]]] = {
    "dlt645": _dlt645,
    "modbus-rtu": _modbus("decode_rtu"),
    "modbus-tcp": _modbus("decode_tcp"),
}


def decode(
    protocol: str | None,
    data: bytes,
    version: str | None = None,
    layer: str | None = None,
    profile: str | None = None,
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
    """Protocol of the bytes: a good DL/T 645 frame, then Modbus RTU by its CRC, then Modbus TCP by its header."""
    from .common.checksum import crc16_modbus
    from .dlt645.frame import cut

    if 0x68 in data and (cut(data, 255)[0]):
        return "dlt645"
    if len(data) >= 5 and crc16_modbus(data[:-2]) == int.from_bytes(data[-2:], "little"):
        return "modbus-rtu"
    if len(data) >= 8 and data[2:4] == b"\0\0" and int.from_bytes(data[4:6], "big") == len(data) - 6:
        return "modbus-tcp"
    if data[:1] == b"\x68" or data.lstrip(b"\xfe")[:1] == b"\x68":
        return "dlt645"
    return None


def hex_runs(line: str) -> list[bytes]:
    """Byte runs written as hex in a line of text; times, numbers and words around them are passed over."""
    runs = []
    for match in _HEX_RUN.finditer(_STAMPS.sub(" | ", line)):
        digits = re.sub(r"0[xX]|\\x|[^0-9A-Fa-f]", "", match.group())
        if len(digits) >= 2 and len(digits) % 2 == 0:
            runs.append(bytes.fromhex(digits))
    return runs


def hunt(
    text: str,
    protocol: str | None = None,
    version: str | None = None,
    profile: str | None = None,
    *,
    secrets: bool = False,
) -> Iterator[Found]:
    """Frames in a capture log: timestamps, directions and words around the hex are noise; a frame may go on over lines.

    DL/T 645 frames are cut from the joined bytes of a run of lines; Modbus frames are taken a line at a time.
    """
    from .common.framer import NeedMore
    from .dlt645.frame import Frame, Framer

    framer = Framer(255)
    begun = 0
    for number, line in enumerate(text.splitlines(), 1):
        data = b"".join(hex_runs(line))
        if not data:
            continue
        found = False
        if protocol in (None, "dlt645"):
            # a new start at a line's head ends what the last line left unfinished
            if len(framer) and _begins(data):
                yield from _drain(framer, begun, version, secrets)
                framer.reset()
            if not len(framer):
                begun = number
            framer.feed(data)
            while not isinstance(event := framer.next_event(), NeedMore):
                if isinstance(event, Frame):
                    found = True
                    yield _found(event, number, version, secrets)
        if not found and protocol != "dlt645":
            which = protocol or _modbus_of(data)
            if which in ("modbus-rtu", "modbus-tcp"):
                decoded = decode(which, data, None, None, profile, secrets=secrets)
                if decoded.get("valid") is not False and "error" not in decoded:
                    framer.reset()
                    yield Found(number, which, data.hex().upper(), decoded)
    yield from _drain(framer, begun, version, secrets)


def _begins(data: bytes) -> bool:
    body = data.lstrip(b"\xfe")
    return len(body) >= _SHORTEST and body[0] == 0x68 and body[7] == 0x68


def _modbus_of(data: bytes) -> str | None:
    which = detect(data)
    return which if which in ("modbus-rtu", "modbus-tcp") else None


def _drain(framer: object, line: int, version: str | None, secrets: bool) -> Iterator[Found]:
    from .common.framer import NeedMore
    from .dlt645.frame import Frame, Framer

    assert isinstance(framer, Framer)
    framer.expire()
    while not isinstance(event := framer.next_event(), NeedMore):
        if isinstance(event, Frame):
            yield _found(event, line, version, secrets)


def _found(frame: object, line: int, version: str | None, secrets: bool) -> Found:
    from .dlt645.explain import describe_frame, edition
    from .dlt645.frame import Frame
    from .dlt645.secrets import masked_hex

    assert isinstance(frame, Frame)
    shown = frame.encode().hex().upper() if secrets else "FE" * frame.lead + masked_hex(frame, edition(frame, version))
    return Found(line, "dlt645", shown, describe_frame(frame, version, secrets=secrets))
