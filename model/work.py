"""Work for a link: what is asked of a device, and what came of it. The seam between scheduling, links and sessions.

`Exchange` is the conversation that carries out one work item with one device: pure, time as an argument. The link's
owner task calls it and moves its bytes; between two requests of an exchange a control command may go first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Protocol, runtime_checkable

from .control import ControlAction, ControlAnswer
from .readings import ReadingBatch


class Priority(IntEnum):
    """Order of service on a link; lower goes first."""

    CONTROL = 0
    EVENT = 1
    LIVE = 2
    SCHEDULED = 3
    RECALL = 4


class Duty(StrEnum):
    """What kind of data a work item is for (domain 3.1)."""

    LIVE = "live"
    CURVE = "curve"
    DAILY = "daily"
    MONTHLY = "monthly"
    EVENT = "event"
    CLOCK = "clock"
    PARAMETER = "parameter"
    CONTROL = "control"
    PROBE = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """One thing to do with one device. `window_us` = [from, to) of slot labels for curves and freezes.

    `expires_s` is monotonic: after it the item is answered EXPIRED unsent. `items` names protocol identifiers to read
    instead of the profile's list for the duty. Two items with the same `key` are never queued together on a link.
    `forced`: a person asks; a quarantined device is tried once all the same.
    """

    device: int
    duty: Duty
    priority: Priority
    expires_s: float
    window_us: tuple[int, int] | None = None
    items: tuple[str, ...] = ()
    action: ControlAction | None = None
    recall_id: int | None = None
    forced: bool = False

    @property
    def key(self) -> tuple[int, str, tuple[int, int] | None, tuple[str, ...], str]:
        """Identity for "no task is queued twice"."""
        return (self.device, self.duty, self.window_us, self.items, self.action.id if self.action else "")


class Status(StrEnum):
    """How a work item ended. DONE: everything asked was answered; PARTIAL: some items failed."""

    DONE = "done"
    PARTIAL = "partial"
    SILENT = "silent"
    BROKEN = "broken"
    REFUSED = "refused"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    LINK_DOWN = "link_down"
    QUARANTINED = "quarantined"
    READ_ONLY = "read_only"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFault:
    """One item that failed. `final`: the device will never have it (do not retry each cycle)."""

    item: str
    reason: str
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCount:
    """How often a device says that a kind of event has happened. `item`: the identifier that was read for it."""

    code: str
    count: int
    item: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one work item. `answer` is for control items only, `counts` for events that are counted.

    stored: to be called once `batch` is on the disk (what a conversation remembers only then), never otherwise.
    """

    status: Status
    batch: ReadingBatch | None = None
    faults: tuple[ItemFault, ...] = ()
    answer: ControlAnswer | None = None
    reason: str = ""
    retries: int = 0
    counts: tuple[EventCount, ...] = ()
    stored: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request on the wire and how long silence lasts.

    `reply_bytes`: expected length of the answer, for the line-time part of the time-out; `timeout_s` overrides the
    link's own computation; `no_reply`: a broadcast, the link waits only for the line to drain.
    """

    data: bytes
    reply_bytes: int = 0
    timeout_s: float | None = None
    no_reply: bool = False


class Exchange(Protocol):
    """The conversation for one work item (pure; `now_us` is UTC µs for stamps, deadlines stay with the link)."""

    def next_request(self, now_us: int) -> Request | None:
        """The next request, or None when the conversation is over and `outcome` may be called."""

    def receive(self, data: bytes, now_us: int) -> bool:
        """Bytes from the line; True when the request in flight has been answered (or refused)."""

    def silence(self, now_us: int) -> None:
        """The request in flight was not answered in time: the exchange repeats it, passes on or gives up."""

    def outcome(self, now_us: int) -> Outcome:
        """The result; also callable early (cancelled, link lost): then what was read so far."""


@runtime_checkable
class Interruptible(Protocol):
    """An exchange whose requests depend on each other in the device's memory (DL/T 645 follow-on frames)."""

    def interrupted(self) -> None:
        """Another conversation with the same device went in between; called before the next `next_request`."""


@runtime_checkable
class Segmented(Protocol):
    """An exchange whose answers may come in several frames."""

    @property
    def parts(self) -> int:
        """Good frames taken that did not complete their answer; each grants the device its reply time-out anew."""


@dataclass(slots=True)
class LinkCounters:
    """Counters of one link since start; read by metrics and `fuhe status`.

    late_replies: bytes came after their request had been given up; rejected: dial-in connections turned away.
    """

    requests: int = 0
    replies: int = 0
    silences: int = 0
    tx_bytes: int = 0
    rx_bytes: int = 0
    skipped_bytes: int = 0
    reconnects: int = 0
    refused_writes: int = 0
    queue_full: int = 0
    late_replies: int = 0
    rejected: int = 0
    by_status: dict[str, int] = field(default_factory=dict)
