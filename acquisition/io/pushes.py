"""What devices send unasked (MQTT today): from a message to a batch or to an answer that a line waits for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ...model.readings import ReadingBatch


@dataclass(frozen=True, slots=True)
class Pushed:
    """One message: readings to store, or bytes for the line of the device with `address`."""

    batch: ReadingBatch | None = None
    address: str = ""
    answer: bytes = b""


class PushDecoder(Protocol):
    """Turns a message into values; PeerError for one that is broken or of an unknown device."""

    def topics(self, prefix: str) -> tuple[str, ...]:
        """Topic filters to subscribe to."""

    def command_topic(self, prefix: str, address: str) -> str:
        """Where commands for a device go."""

    def decode(self, prefix: str, topic: str, payload: bytes, now_us: int) -> Pushed:
        """One message."""
