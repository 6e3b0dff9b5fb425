"""Who is calling: identification of devices that dial in, by their first bytes. Pure.

The seam is `DialIn`: one object a connection, fed until it knows the caller. Two forms: the registration text of
transparent modems (DTU), "REG:line7", after which the connection is that line's wire and carries its meters' frames;
and terminals of Q/GDW 376.1, known by the address in their first frame (as a rule their login), which is then handled
like any later frame.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from ..protocols.qgdw1376.frame import LIMIT, OVERHEAD
from .terminal import TerminalAddress
from .terminal_front import Front

UNIDENTIFIED_LIMIT = 1024
CALL_LIMIT = LIMIT + OVERHEAD  # a terminal may begin with its longest frame


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller: `name` chooses the line, `rest` are bytes already meant for the line.

    `reply` is sent first; `wire` names its protocol for the read-only guard, which looks at it like at any other bytes.
    """

    name: str
    rest: bytes = b""
    reply: bytes = b""
    wire: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not a caller of ours, because of `reason` (a short stable word)."""

    reason: str


class DialIn(Protocol):
    """Identification of one connection; at most UNIDENTIFIED_LIMIT bytes are kept."""

    def feed(self, data: bytes) -> Identity | Rejected | None:
        """Bytes of an unknown caller; None = not known yet."""


class TextRegistration:
    """`prefix` + name, ended by CR, LF, `;` or the end of the text when a known name is complete.

    `known`: the names that lines wait for. Anything before the prefix (banners, heartbeats) is skipped.
    """

    def __init__(self, prefix: str, known: Collection[str]) -> None:
        self._prefix = prefix.encode()
        self._known = known
        self._buffer = b""

    def feed(self, data: bytes) -> Identity | Rejected | None:
        """See `DialIn`."""
        self._buffer += data
        start = self._buffer.find(self._prefix)
        if start < 0:
            return Rejected("no registration") if len(self._buffer) > UNIDENTIFIED_LIMIT else None
        text = self._buffer[start + len(self._prefix) :]
        end = next((i for i, byte in enumerate(text) if byte in b"\r\n;\0"), None)
        name = text[:end].decode("ascii", "replace").strip()
        if end is not None:
            return Identity(name, text[end:].lstrip(b"\r\n;\0")) if name in self._known else Rejected("unknown name")
        if name in self._known and not any(other != name and other.startswith(name) for other in self._known):
            return Identity(name)
        return Rejected("unknown name") if len(text) > 64 else None


class TerminalCall:
    """The address in the first good frame of a terminal; `Identity.name` is its decimal form, `rest` all its frames."""

    __slots__ = ("_front", "_seen")

    def __init__(self) -> None:
        self._front = Front()
        self._seen = 0

    def feed(self, data: bytes) -> Identity | Rejected | None:
        """See `DialIn`."""
        frames = [frame for frame in self._front.cut(data, 0.0) if frame.up]
        if not frames:
            self._seen += len(data)
            return Rejected("no frame of a terminal") if self._seen > CALL_LIMIT else None
        address = frames[0].address
        rest = b"".join(frame.encode() for frame in frames) + self._front.rest
        return Identity(TerminalAddress(address.a1, address.a2).decimal, rest)


def strip_text(data: bytes, texts: Collection[bytes]) -> bytes:
    """Without heartbeat or registration texts at its beginning or end (a modem mixes them into the line's bytes)."""
    while data:
        for text in texts:
            if text and data.startswith(text):
                data = data[len(text) :].lstrip(b"\r\n;")
                break
            if text and data.endswith(text):
                data = data[: -len(text)]
                break
        else:
            break
    return data
