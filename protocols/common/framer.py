"""The three outcomes of a framer, shared by every byte protocol (house rule: never one value with two meanings)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

FrameT_co = TypeVar("FrameT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Skipped:
    """`count` bytes that belong to no frame were dropped, because of `reason` (a short stable word)."""

    count: int
    reason: str


class NeedMore:
    """The buffer holds no complete frame; feed more bytes or let the inter-byte time-out discard it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NEED_MORE"


NEED_MORE: Final = NeedMore()


class Framer(Protocol, Generic[FrameT_co]):
    """A pure stream cutter: bytes in, one of three outcomes out. Holds at most one frame's bytes plus one feed."""

    def feed(self, data: bytes) -> None:
        """Append received bytes."""

    def next_event(self) -> FrameT_co | Skipped | NeedMore:
        """The next frame, the next run of skipped bytes, or NEED_MORE. Never raises on any input."""

    def reset(self) -> None:
        """Forget buffered bytes (after an inter-byte time-out or a reconnect)."""
