"""One line: whose turn it is, what is in flight, when silence is silence. Pure; time is an argument.

A *line* is one half-duplex conversation at a time: a serial port, a TCP connection, one dial-in connection, one MQTT
device. The shell (io/owner.py) moves its bytes and sleeps until `wake_at_s`. Not for queues (arbiter.py), not for what
a frame means (the exchange), not for sockets.

Times are monotonic seconds (`now_s`); `now_us` is UTC µs and only passed on to exchanges for their stamps.

    DOWN --up--> IDLE --poll: request--> WAIT --answered | silent--> PAUSE (turnaround) --> IDLE
    between PAUSE and the next request of an exchange: control goes first, and an exchange that has used up its slice
    steps aside for other devices of the same or a higher class.

Time-out of a request: 11 bits x (request + expected reply bytes) / baud + the profile's reply time-out + margin + what
was learnt from late replies; each byte that comes prolongs it to the inter-byte limit, up to a hard end.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum

from ..model.control import ControlAnswer
from ..model.devices import Device
from ..model.lang import tr
from ..model.work import Exchange, Interruptible, LinkCounters, Outcome, Priority, Status, WorkItem
from ..protocols.common.errors import FuheError
from .arbiter import Arbiter, Entry
from .profile import Profile
from .quarantine import Quarantine, Verdict
from .terminal import TerminalSession

log = logging.getLogger(__name__)

LONGEST_REPLY = 272  # bytes of the longest frame on these lines, with lead bytes
SLACK_FIRST_S, SLACK_MAX_S = 0.1, 2.0
HALF_OPEN_REQUESTS = 3


@dataclass(slots=True, kw_only=True, eq=False)
class Station:
    """A device as its line needs it: `wire` names the bytes for the read-only guard; times in seconds.

    byte_s: line time of one byte (11 bits), 0 where there is no serial line. slack_s grows with late replies.
    turns: how often a conversation with the device got the line. session: what is remembered of a terminal. via: the
    terminal that carries the device's frames (AFN 10).
    """

    device: Device
    profile: Profile
    wire: str
    byte_s: float
    reply_timeout_s: float
    inter_byte_s: float
    turnaround_s: float
    slack_s: float = 0.0
    reached_s: float | None = None
    turns: int = 0
    session: TerminalSession | None = None
    via: Station | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinePolicy:
    """slice_s: line time after which an exchange steps aside; half_open_s: deadline for a peer that vanished."""

    margin_s: float = 0.05
    slice_s: float = 5.0
    half_open_s: float = math.inf
    queue_items: int = 4096


class State(Enum):
    """What the line does; see the drawing above."""

    DOWN = "down"
    IDLE = "idle"
    WAIT = "wait"
    PAUSE = "pause"


Opener = Callable[[Station, WorkItem], Exchange]


@dataclass(slots=True, eq=False)
class _Flight:
    """The request in flight: `began_s` for charging, `end_s` the hard end, `wait_s` the whole time-out as computed.

    parts: frames of a longer answer so far (see `Segmented`).
    """

    began_s: float = 0.0
    wait_s: float = 0.0
    parts: int = 0
    deadline_s: float = 0.0
    end_s: float = 0.0
    no_reply: bool = False


_LANDED = _Flight()  # where nothing was ever sent; replaced by each request, never written to


@dataclass(slots=True)
class Line:
    """State of one line. `finished` collects (item, outcome) for the shell to take.

    Kept small: there are as many as terminals. Lines of one listener may share `quarantine` and `counters`.
    """

    name: str
    policy: LinePolicy
    open_exchange: Opener
    quarantine: Quarantine
    counters: LinkCounters = field(default_factory=LinkCounters)
    stations: dict[int, Station] = field(default_factory=dict)
    finished: list[tuple[WorkItem, Outcome]] = field(default_factory=list)
    state: State = State.DOWN
    held: bool = False
    wake_at_s: float = math.inf
    last_byte_s: float = 0.0
    arbiter: Arbiter = field(init=False)
    _keys: set[Hashable] | None = None
    _running: Entry | None = None
    _station: Station | None = None
    _flight: _Flight = _LANDED
    _slice_began_s: float = 0.0
    _pause_until_s: float = 0.0
    _silent_since_s: float | None = None
    _silent_requests: int = 0
    _last_silent: Station | None = None

    def __post_init__(self) -> None:
        self.arbiter = Arbiter(self.policy.queue_items)

    # -- what the engine asks -----------------------------------------------------------------------------------------

    def submit(self, item: WorkItem, now_s: float) -> bool:
        """Queue an item, or put its refusal into `finished` at once; False: its key waits or runs already."""
        key = item.key
        if self._keys is not None and key in self._keys:
            return False
        if item.device not in self.stations:
            self._answer(item, Status.CANCELLED, tr("the device is not on this link", "该设备不在此链路上"))
            return True
        if item.expires_s <= now_s:
            self._answer(item, Status.EXPIRED, tr("expired before it was sent", "发送前已过期"))
            return True
        probe = False
        if item.priority is not Priority.CONTROL and not item.forced:
            verdict = self.quarantine.verdict(item.device, now_s)
            if verdict is Verdict.REJECT:
                self._record(item, _quarantined())
                return True
            probe = verdict is Verdict.PROBE
        elif self.quarantine.holds(item.device):
            probe = True
        entry = Entry(item, key, now_s, probe=probe)
        accepted, dropped = self.arbiter.put(entry)
        if accepted:
            if self._keys is None:
                self._keys = set()
            self._keys.add(key)
        loser = dropped or (None if accepted else entry)
        if loser is not None:
            self.counters.queue_full += 1
            outcome = Outcome(status=Status.CANCELLED, reason=tr("the link's queue is full", "链路队列已满"))
            if accepted:
                self._end(loser, outcome)
            else:
                self._record(item, outcome)
        return True

    def set_stations(self, stations: dict[int, Station], now_us: int) -> None:
        """Replace the devices. Items of devices that left or changed are cancelled; the others keep their record."""
        old = self.stations
        kept = {i: old[i] for i, s in stations.items() if i in old and _same(old[i], s)}
        for device, station in stations.items():
            before = old[device].session if device in old and device not in kept else None
            if before is not None and station.session is not None and before.address == station.session.address:
                station.session.take_over(before)
        self.stations = {i: kept.get(i, s) for i, s in stations.items()}
        for station in self.stations.values():
            if station.via is not None:
                station.via = self.stations.get(station.via.device.id, station.via)
        changed = {i for i in old if i not in kept}
        if not changed:
            return
        reason = tr("the device list was changed", "设备档案已变更")
        if self._running is not None and self._running.item.device in changed:
            self._stop_running(now_us, Status.CANCELLED, reason)
            if self.state is State.WAIT:  # its answer may still come: let the line calm down first
                self.state, self._pause_until_s = State.PAUSE, self._flight.deadline_s
        for entry in self.arbiter.remove_where(lambda e: e.item.device in changed):
            self._cancel(entry, now_us, Status.CANCELLED, reason)
        for device in changed:
            self.quarantine.forget(device)
        self.arbiter.forget_devices(self.stations.__contains__)

    # -- what the shell reports ---------------------------------------------------------------------------------------

    def up(self, now_s: float) -> None:
        """The transport is open."""
        self.state = State.IDLE
        self.last_byte_s = now_s

    def down(self, now_us: int, reason: str) -> None:
        """The transport was lost: the running exchange ends with what it has; the rest waits for the reopening."""
        self.state = State.DOWN
        self._silent_since_s, self._silent_requests, self._last_silent = None, 0, None
        if self._running is not None:
            self._stop_running(now_us, Status.LINK_DOWN, reason)

    def unreachable(self, now_us: int, reason: str) -> None:
        """An attempt to open failed: people get their answer now; scheduled and recall items wait on."""
        urgent = self.arbiter.remove_where(lambda e: e.item.priority <= Priority.LIVE)
        for entry in urgent:
            self._cancel(entry, now_us, Status.LINK_DOWN, reason)

    def shut(self, now_us: int, reason: str) -> None:
        """The line closes for good: everything is cancelled."""
        self.down(now_us, reason)
        for entry in self.arbiter.remove_where(lambda e: True):
            self._cancel(entry, now_us, Status.CANCELLED, reason)

    def received(self, data: bytes, now_s: float, now_us: int) -> None:
        """Bytes from the line. Bytes that nobody waits for are counted and dropped (a late reply, noise)."""
        self.sounded(len(data), now_s)
        self.answered(data, now_s, now_us)

    def sounded(self, count: int, now_s: float) -> None:
        """Some bytes came, whatever they are: the other end is there."""
        self.counters.rx_bytes += count
        self.last_byte_s = now_s
        self._silent_since_s, self._silent_requests = None, 0

    def answered(self, data: bytes, now_s: float, now_us: int, by: Station | None = None) -> None:
        """Bytes of an answer. by: the station that gave it (or carries who did), where that is known; else nobody's."""
        running, flight, station = self._running, self._flight, self._station
        if self.state is not State.WAIT or running is None or running.exchange is None or station is None:
            self._late(len(data), now_s)
            return
        if by is not None and by is not station and by is not station.via:
            self.counters.skipped_bytes += len(data)
            return
        if flight.no_reply:
            return
        if not running.exchange.receive(data, now_us):
            parts = getattr(running.exchange, "parts", 0)
            if parts != flight.parts:  # a good frame of a longer answer: the device may take its time for the next
                flight.end_s += now_s + flight.wait_s - flight.deadline_s
                flight.deadline_s, flight.parts = now_s + flight.wait_s, parts
                return
            self.prolonged(now_s)
            return
        running.replies += 1
        self.counters.replies += 1
        station.reached_s = now_s
        station.slack_s *= 0.98
        self._transaction_over(now_s)

    def prolonged(self, now_s: float) -> None:
        """Something of the answer in flight has come: wait for its next byte, up to the hard end."""
        flight, station = self._flight, self._station
        if self.state is State.WAIT and station is not None:
            until_s = min(flight.end_s, now_s + station.inter_byte_s + self.policy.margin_s)
            flight.deadline_s = max(flight.deadline_s, until_s)

    def heard(self, now_s: float) -> None:
        """The line's device spoke unasked (MQTT): it is not silent."""
        for station in self.stations.values():
            self.spoke(station, now_s)

    def spoke(self, station: Station, now_s: float) -> None:
        """This device spoke unasked: it is not silent."""
        station.reached_s = now_s
        self.quarantine.answered(station.device.id)

    def terminal(self, a1: str, a2: int) -> Station | None:
        """The terminal with this address."""
        for station in self.stations.values():
            session = station.session
            if session is not None and session.address.a2 == a2 and session.address.a1 == a1:
                return station
        return None

    def raw(self) -> bool:
        """The answer in flight is one of a device without a session: bytes belong to it as they come."""
        station = self._station
        return self.state is State.WAIT and station is not None and station.session is None and station.via is None

    def interjected(self, count: int, now_s: float) -> None:
        """So many bytes went out beside the line's own work: a half-duplex line is busy for their time."""
        self.counters.tx_bytes += count
        station = next(iter(self.stations.values()), None)
        if station is not None and station.byte_s and self.state is not State.DOWN:
            free_s = now_s + count * station.byte_s + station.turnaround_s
            self._pause_until_s = max(self._pause_until_s, free_s) if self.state is State.PAUSE else free_s
            self.state = State.PAUSE

    def refused(self, now_us: int) -> None:
        """The guard stopped the request that `poll` gave out: nothing may be written now."""
        self.counters.refused_writes += 1
        why = tr("nothing was sent: read-only mode, or no control lease", "未发送: 只读模式, 或无控制权")
        self._stop_running(now_us, Status.READ_ONLY, why)
        self.state = State.IDLE

    def failed(self, now_us: int, reason: str) -> None:
        """The exchange broke (a fault of ours or of its input): this item ends, the line goes on."""
        if self._running is not None:
            self._running.exchange = None
            self._stop_running(now_us, Status.BROKEN, reason)
        if self.state is State.WAIT:
            self.state, self._pause_until_s = State.PAUSE, self._flight.deadline_s

    def poll(self, now_s: float, now_us: int) -> tuple[Station, bytes] | None:
        """What to send now, if anything; afterwards `wake_at_s` says when to call again."""
        for entry in self.arbiter.expire(now_s) if now_s >= self.arbiter.next_expiry_s else ():
            self._end(entry, Outcome(status=Status.EXPIRED, reason=tr("expired before it was sent", "发送前已过期")))
        if self.state is State.WAIT and now_s >= self._flight.deadline_s:
            self._on_silence(now_s, now_us)
        if self.state is State.PAUSE and now_s >= self._pause_until_s:
            self.state = State.IDLE
        sent = self._next(now_s, now_us) if self.state is State.IDLE else None
        if self.state is State.WAIT:
            self.wake_at_s = self._flight.deadline_s
        elif self.state is State.PAUSE and (self._running is not None or len(self.arbiter)):
            self.wake_at_s = self._pause_until_s
        else:
            self.wake_at_s = self.arbiter.next_expiry_s if len(self.arbiter) else math.inf
        if self._silent_since_s is not None and self._silent_requests >= HALF_OPEN_REQUESTS:
            self.wake_at_s = min(self.wake_at_s, self._silent_since_s + self.policy.half_open_s)
        return sent

    def vanished(self, now_s: float) -> bool:
        """Half-open: several requests unanswered and not a byte from anyone for `half_open_s`."""
        since = self._silent_since_s
        return (
            since is not None
            and self._silent_requests >= HALF_OPEN_REQUESTS
            and now_s - since >= self.policy.half_open_s
        )

    @property
    def running(self) -> WorkItem | None:
        """The item whose exchange has the line."""
        return self._running.item if self._running else None

    # -- inside -------------------------------------------------------------------------------------------------------

    def _next(self, now_s: float, now_us: int) -> tuple[Station, bytes] | None:
        self._step_aside(now_s)
        while True:  # ends: each round takes an item out of the bounded queue, or sends
            entry = self._running or self._start(now_s)
            if entry is None or entry.exchange is None or self._station is None:
                return None
            request = entry.exchange.next_request(now_us)
            if request is None:
                self._finish(entry, now_s, now_us)
                continue
            station, policy = self._station, self.policy
            flight = self._flight = _Flight()
            line_s = station.byte_s * len(request.data)
            flight.began_s, flight.no_reply = now_s, request.no_reply
            if request.no_reply:
                flight.deadline_s = flight.end_s = now_s + line_s
            else:
                reply_s = station.byte_s * request.reply_bytes
                wait_s = station.reply_timeout_s if request.timeout_s is None else request.timeout_s
                flight.deadline_s = now_s + line_s + reply_s + wait_s + policy.margin_s + station.slack_s
                flight.end_s = flight.deadline_s + station.byte_s * LONGEST_REPLY + station.inter_byte_s
            flight.wait_s, flight.parts = flight.deadline_s - now_s, getattr(entry.exchange, "parts", 0)
            self.state = State.WAIT
            self.counters.requests += 1
            self.counters.tx_bytes += len(request.data)
            return station, request.data

    def _start(self, now_s: float) -> Entry | None:
        while (entry := self.arbiter.take(only_control=self.held)) is not None:
            station = self.stations[entry.item.device]
            if entry.exchange is None:
                try:
                    entry.exchange = self.open_exchange(station, entry.item)
                except FuheError as error:
                    self._end(entry, Outcome(status=Status.CANCELLED, reason=str(error)))
                    continue
            elif entry.turn != station.turns and isinstance(entry.exchange, Interruptible):
                entry.exchange.interrupted()
            station.turns += 1
            entry.turn = station.turns
            self._running, self._station, self._slice_began_s = entry, station, now_s
            return entry
        return None

    def _step_aside(self, now_s: float) -> None:
        """Between two transactions: control first; a long exchange lets other devices in when its slice is used up."""
        entry = self._running
        if entry is None or entry.item.priority is Priority.CONTROL:
            return
        if self.arbiter.waits(Priority.CONTROL):
            self.arbiter.put_back(entry, front=True)
        elif now_s - self._slice_began_s >= self.policy.slice_s and self.arbiter.others_wait(
            entry.item.device, entry.item.priority
        ):
            self.arbiter.put_back(entry, front=False)
        else:
            return
        self._running = None

    def _on_silence(self, now_s: float, now_us: int) -> None:
        entry, station, flight = self._running, self._station, self._flight
        if entry is None or entry.exchange is None or station is None:
            self.state = State.IDLE
            return
        if not flight.no_reply:
            self.counters.silences += 1
            entry.silences += 1
            self._silent_requests += 1
            if self._silent_since_s is None:
                self._silent_since_s = flight.began_s
            self._last_silent = station
            entry.exchange.silence(now_us)
        self._transaction_over(now_s)
        if entry.probe and entry.silences and entry.item.priority is not Priority.CONTROL:
            self._finish(entry, now_s, now_us)  # a quarantined device gets one try, not the exchange's repeats

    def _transaction_over(self, now_s: float) -> None:
        station = self._station
        if station is None:
            return
        if len(self.stations) > 1:
            self.arbiter.charge(station.device.id, now_s - self._flight.began_s)
        self.state, self._pause_until_s = State.PAUSE, now_s + station.turnaround_s
        if not station.turnaround_s:
            self.state = State.IDLE

    def _late(self, count: int, now_s: float) -> None:
        self.counters.skipped_bytes += count
        late, self._last_silent = self._last_silent, None
        if late is not None:
            self.counters.late_replies += 1
            late.slack_s = min(SLACK_MAX_S, max(SLACK_FIRST_S, late.slack_s * 2))
        if self.state is State.PAUSE and self._station is not None:  # wait for a quiet line
            self._pause_until_s = max(self._pause_until_s, now_s + self._station.turnaround_s)

    def _finish(self, entry: Entry, now_s: float, now_us: int) -> None:
        assert entry.exchange is not None
        outcome = entry.exchange.outcome(now_us)
        self._running = None
        self._end(entry, outcome)
        device = entry.item.device
        if outcome.status is not Status.SILENT:  # a gateway may answer for a silent device: its exchange knows
            if entry.replies:
                self.quarantine.answered(device)
        elif self.quarantine.silent(device, now_s):
            log.warning("%s: device %d does not answer, quarantined", self.name, device)
            for waiting in self.arbiter.remove_where(
                lambda e: e.item.device == device and e.item.priority is not Priority.CONTROL and not e.item.forced
            ):
                self._end(waiting, _quarantined())

    def _stop_running(self, now_us: int, status: Status, reason: str) -> None:
        entry, self._running = self._running, None
        if entry is not None:
            self._cancel(entry, now_us, status, reason)

    def _cancel(self, entry: Entry, now_us: int, status: Status, reason: str) -> None:
        """End an entry early with what its exchange has read so far."""
        partial = entry.exchange.outcome(now_us) if entry.exchange is not None else None
        answer = partial.answer if partial else None
        if status is Status.READ_ONLY and answer is not None:
            sent = answer.sent and bool(entry.replies or entry.silences)  # the stopped request itself never left
            answer = ControlAnswer(action_id=answer.action_id, sent=sent, acknowledged=None, refusal=reason)
        self._end(
            entry,
            Outcome(
                status=status,
                batch=partial.batch if partial else None,
                faults=partial.faults if partial else (),
                answer=answer,
                reason=reason,
                retries=partial.retries if partial else 0,
                stored=partial.stored if partial else None,
            ),
        )

    def _end(self, entry: Entry, outcome: Outcome) -> None:
        if self._keys is not None:
            self._keys.discard(entry.key)
            if not self._keys:
                self._keys = None
        self._record(entry.item, outcome)

    def _answer(self, item: WorkItem, status: Status, reason: str) -> None:
        self._record(item, Outcome(status=status, reason=reason))

    def _record(self, item: WorkItem, outcome: Outcome) -> None:
        by_status = self.counters.by_status
        by_status[outcome.status] = by_status.get(outcome.status, 0) + 1
        self.finished.append((item, outcome))


def _quarantined() -> Outcome:
    return Outcome(
        status=Status.QUARANTINED,
        reason=tr("the device is silent; it is probed now and then", "设备无应答, 已隔离并定期探测"),
    )


def _same(a: Station, b: Station) -> bool:
    return a.device == b.device and a.profile == b.profile and a.wire == b.wire
