"""The seam between protocol faces and transports: bytes in, replies with delays out. No I/O in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes a device sends, `delay_s` after the last byte of the request has arrived."""

    delay_s: float
    data: bytes
    device: str


class Session(Protocol):
    """What answers on one connection (or one serial line): all devices behind it share it."""

    def receive(self, data: bytes, now_us: int) -> list[Reply]:
        """Bytes from the master; what the devices answer."""


@runtime_checkable
class Speaker(Protocol):
    """A session whose devices speak without being asked."""

    def poll(self, now_us: int) -> list[Reply]:
        """What they have to say now."""


class Line(Protocol):
    """The devices of one bus; makes a session (its own stream buffer) for every connection."""

    def session(self) -> Session:
        """A new session."""
