"""What `fuhe status` and the metrics show of lines and devices. Made when asked for, not kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...model.work import LinkCounters, Priority
from ..link import State
from ..terminal import TerminalSession
from .owner import Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """One line, or a listener or broker as a line of its own. `depth` by class in the order of `Priority`.

    A listener for terminals stands for all its lines together: `lines` of them, `lines_up` open.
    """

    name: str
    kind: str
    up: bool
    reason: str
    devices: int
    depth: tuple[int, ...]
    oldest_age_s: float
    quarantined: int
    counters: LinkCounters
    lines: int = 1
    lines_up: int = 0


class TerminalDetail(NamedTuple):
    """What there is to tell of a terminal and changes seldom (not what every heartbeat would change); plain JSON."""

    connects: int
    replaced: int
    moved: int
    online_since_us: int | None
    logged_in: bool | None
    ec: tuple[int | None, int | None]
    ec_read: tuple[int | None, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """`reached_us`: last answer, UTC µs; `quarantined_us`: since when; `unserved`: why no line serves it.

    online: its connection is open (terminals that dial in), None where there is no such thing.
    """

    device: int
    line: str
    reached_us: int | None = None
    quarantined_us: int | None = None
    silent: int = 0
    unserved: str = ""
    online: bool | None = None
    detail: TerminalDetail | None = None


def terminal_detail(session: TerminalSession) -> TerminalDetail:
    """As of now."""
    return TerminalDetail(
        session.connects, session.replaced, session.moved, session.online_us, session.logged_in,
        (session.ec1, session.ec2), (session.ec1_read, session.ec2_read),
    )  # fmt: skip


def line_state(name: str, kind: str, owner: Owner, now_s: float) -> LinkState:
    """One line."""
    return LinkState(
        name=name,
        kind=kind,
        up=owner.is_up,
        reason=owner.reason,
        devices=len(owner.line.stations),
        depth=owner.line.arbiter.depth_by_class,
        oldest_age_s=owner.line.arbiter.oldest_age_s(now_s),
        quarantined=len(owner.line.quarantine),
        counters=owner.line.counters,
        lines_up=int(owner.is_up),
    )


def end_state(name: str, kind: str, counters: LinkCounters, up: bool, reason: str, peers: int) -> LinkState:
    """A listener or broker whose lines are shown each for itself."""
    depth = (0,) * len(Priority)
    return LinkState(
        name=name, kind=kind, up=up, reason=reason, devices=peers, depth=depth, oldest_age_s=0.0, quarantined=0,
        counters=counters, lines_up=int(up),
    )  # fmt: skip


def listener_state(name: str, kind: str, owners: Sequence[Owner], counters: LinkCounters, now_s: float) -> LinkState:
    """A listener for terminals with all its lines; `counters` and the quarantine are common to them."""
    depth = [0] * len(Priority)
    oldest_s, down, devices = 0.0, 0, 0
    for owner in owners:
        line = owner.line
        down += line.state is State.DOWN
        devices += len(line.stations)
        arbiter = line.arbiter
        if len(arbiter):
            depth = [a + b for a, b in zip(depth, arbiter.depth_by_class, strict=True)]
            oldest_s = max(oldest_s, arbiter.oldest_age_s(now_s))
    return LinkState(
        name=name,
        kind=kind,
        up=True,
        reason="",
        devices=devices,
        depth=tuple(depth),
        oldest_age_s=oldest_s,
        quarantined=len(owners[0].line.quarantine) if owners else 0,
        counters=counters,
        lines=len(owners),
        lines_up=len(owners) - down,
    )
