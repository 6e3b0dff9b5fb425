"""Q/GDW 376.1 / 1376.1 conversations: one work item with one terminal, as a script of questions.

`TerminalExchange` moves the bytes: one request at a time, answers judged and gathered by qgdw1376_transaction, parts
confirmed where the terminal wants that, silence answered by repeating with the same FCB. What is asked, and what an
answer means, stands in scripts: generators that yield an `Ask` and get an Answer, or None for silence. See
qgdw1376_read (live values, freezes), _curve, _parameter, _event, _clock, _relay.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Final

from ...model.control import ControlAnswer
from ...model.devices import Credentials, Device
from ...model.lang import tr
from ...model.quality import Quality, Source
from ...model.readings import CurveBlock, DeviceEvent, ParameterValue, ReadingBatch, Samples, samples_from_rows
from ...model.times import US
from ...model.work import Duty, Exchange, ItemFault, Outcome, Request, Status, WorkItem
from ...protocols.common.errors import UsageError
from ...protocols.common.framer import NeedMore
from ...protocols.qgdw1376.frame import Frame, Framer
from ..profile import Profile, TerminalPlan
from ..raw import join
from ..raw_curves import CurveReply, RawCurves
from ..relay import port_of
from ..terminal import TerminalSession
from . import Carrier
from .qgdw1376_transaction import Answer, Ask, Peer, Step, Transaction, Verdict, make_peer

Script = Generator[Ask, Answer | None, None]
Asking = Generator[Ask, Answer | None, Answer]

GIVE_UP_AFTER: Final = 2  # requests in a row without any answer
MAX_CONFIRMS: Final = 512  # of one exchange: a terminal that repeats for ever is not answered for ever


class Missing(Exception):
    """Inside scripts only: an item could not be read. silent: nothing came at all; denied: the terminal said no."""

    def __init__(self, reason: str, *, final: bool = False, silent: bool = False, denied: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final
        self.silent = silent
        self.denied = denied


class TerminalExchange:
    """The exchange (see model.work.Exchange) that runs one script; scripts write their results into it."""

    def __init__(self, device: Device, profile: Profile, item: WorkItem, peer: Peer) -> None:
        self.device = device
        self.profile = profile
        self.item = item
        self.peer = peer
        self.plan = profile.terminal or TerminalPlan()
        self.now_us = 0
        self.rows: list[tuple[int, int, int, float, int, int]] = []
        self.samples: list[Samples] = []
        self.curves: list[CurveBlock] = []
        self.raw_curves: list[CurveReply] = []
        self.events: list[DeviceEvent] = []
        self.parameters: list[ParameterValue] = []
        self.faults: list[ItemFault] = []
        self.answer: ControlAnswer | None = None
        self.status: Status | None = None
        self.reason = ""
        self.heard = False  # the terminal answered something
        self.refused = False  # the last word on every failed item was the terminal's own
        self.stored: Callable[[], None] | None = None  # called when the readings are on the disk
        self.parts = 0
        self._noise = False
        self._retries = 0
        self._script: Script = _nothing()
        self._started = False
        self._over = False
        self._ask: Ask | None = None
        self._transaction: Transaction | None = None
        self._tries = 0
        self._began_us = 0
        self._answer: Answer | None = None
        self._confirms: list[bytes] = []
        self._confirmed = 0
        self._silent = 0
        self._framer = Framer()

    def start(self, script: Script) -> TerminalExchange:
        """Set the script to run."""
        self._script = script
        return self

    @property
    def session(self) -> TerminalSession:
        """What is remembered of the terminal."""
        return self.peer.session

    # --- the seam ----------------------------------------------------------------------------------------------------

    def next_request(self, now_us: int) -> Request | None:
        """A confirmation that is due, the next request or a repetition; None when the script has ended."""
        self.now_us = now_us
        if self._confirms:
            return self._confirm()
        if self._over:
            return None
        if self._transaction is None:
            try:
                ask = self._script.send(self._answer) if self._started else next(self._script)
            except StopIteration:
                self._over = True
                return None
            self._started = True
            self._answer = None
            self._ask, self._tries, self._began_us = ask, 0, now_us
            self._transaction = Transaction.begin(ask, self.peer, now_us)
            self._framer.reset()  # whatever came before this request is no answer to it
        self._tries += 1
        if self._tries > 1:
            self._retries += 1
        ask = self._transaction.ask
        return Request(data=self._transaction.again(now_us), reply_bytes=ask.answer_bytes, timeout_s=ask.timeout_s)

    def receive(self, data: bytes, now_us: int) -> bool:
        """Bytes from the line; True when they hold (the rest of) the answer, or a part that wants to be confirmed."""
        self.now_us = now_us
        self._framer.feed(data)
        return self._drain()

    def silence(self, now_us: int) -> None:
        """Time is up: look for the answer behind a broken start, else repeat or pass on with what has come."""
        self.now_us = now_us
        self._framer.expire()
        if self._transaction is None or self._drain():
            return
        timing, ask = self.profile.timing, self._transaction.ask
        spent_s = (now_us - self._began_us) / US
        if not ask.repeat or self._tries > timing.retries or spent_s >= self.plan.budget_s:
            self._end(self._transaction.answer())

    def outcome(self, now_us: int) -> Outcome:
        """What was read; callable early."""
        batch = None
        samples = [*self.samples, *([samples_from_rows(self.rows)] if self.rows else [])]
        curves: Sequence[CurveBlock] = RawCurves(self.raw_curves)
        if self.curves:
            curves = (*curves, *self.curves)
        if samples or curves or self.events or self.parameters:
            batch = ReadingBatch(
                received_us=now_us,
                samples=join(samples)[0] if samples else None,
                curves=curves,
                events=tuple(self.events),
                parameters=tuple(self.parameters),
            )
        return Outcome(
            status=self._status(batch),
            batch=batch,
            faults=tuple(self.faults),
            answer=self.answer,
            reason=self.reason,
            retries=self._retries,
            stored=self.stored,
        )

    def _status(self, batch: ReadingBatch | None) -> Status:
        if self.status is not None:
            return self.status
        if not self._over:
            return Status.PARTIAL if batch else Status.CANCELLED
        if not self.heard:
            return Status.BROKEN if self._noise else Status.SILENT
        if not self.faults:
            return Status.DONE
        return Status.REFUSED if self.refused and batch is None else Status.PARTIAL

    # --- frames ------------------------------------------------------------------------------------------------------

    def _confirm(self) -> Request:
        """One confirmation; while parts are still to come the terminal sends the next one in answer to it."""
        data = self._confirms.pop(0)
        waits = self._transaction is not None and not self._confirms
        return Request(data=data, no_reply=not waits)

    def _drain(self) -> bool:
        transaction = self._transaction
        if transaction is None:
            return False
        while not isinstance(event := self._framer.next_event(), NeedMore):
            if not isinstance(event, Frame):
                self._noise = self._noise or event.reason != "noise" or event.count > 4
                continue
            step = transaction.take(event, self.now_us)
            if step is Step.DONE:
                self._take_confirms(transaction)
                self._end(transaction.answer())
                return True
            if step is Step.MORE:
                self.heard = True
                self.parts += 1
                if self._take_confirms(transaction):
                    return True
        return False

    def _take_confirms(self, transaction: Transaction) -> bool:
        wanted, transaction.confirms = transaction.confirms, []
        room = max(0, MAX_CONFIRMS - self._confirmed)
        self._confirmed += len(wanted)
        self._confirms += wanted[:room]
        return bool(wanted[:room])

    def _end(self, answer: Answer | None) -> None:
        self._answer, self._transaction = answer, None
        if answer is not None:
            self.heard = True

    # --- what scripts use --------------------------------------------------------------------------------------------

    def asked(self, ask: Ask) -> Asking:
        """The answer with data; raises Missing (silence, denial, an answer that cannot be read)."""
        answer = yield ask
        if answer is None:
            raise Missing("no answer", silent=True)
        self._silent = 0
        verdict = answer.verdict
        if verdict is Verdict.DENIED:
            self.refused = True
            raise Missing(answer.reason or "the terminal denies it: it has no such data", denied=True)
        if verdict is not Verdict.DATA:
            raise Missing(answer.reason or "the terminal confirmed instead of answering")
        return answer

    def fault(self, item: str, missing: Missing) -> None:
        """Note a failed item."""
        self.faults.append(ItemFault(item=item, reason=missing.reason, final=missing.final))

    def hopeless(self, missing: Missing) -> bool:
        """After a failed request: whether there is no use in going on with this terminal."""
        if not missing.silent:
            return False
        self._silent += 1
        return not self.heard or self._silent >= GIVE_UP_AFTER

    def sample(self, point: int | None, quantity: int, value: float, time_us: int, source: Source) -> None:
        """One sample of quality A."""
        if point is not None:
            self.rows.append((time_us, point, quantity, value, Quality.A, source))


def _nothing() -> Script:
    """A script without questions."""
    yield from ()


def open_exchange(
    device: Device, profile: Profile, item: WorkItem, credentials: Credentials, session: TerminalSession
) -> Exchange:
    """The conversation for `item`; UsageError when the profile has no means for its duty or an item is none."""
    peer = peer_of(profile, credentials, session)
    if item.duty is Duty.CONTROL:
        from .qgdw1376_control import open_control

        return open_control(device, profile, item, peer)
    from . import qgdw1376_clock, qgdw1376_curve, qgdw1376_event, qgdw1376_parameter, qgdw1376_read
    from .qgdw1376_plan import expanded

    exchange = TerminalExchange(device, profile, item, peer)
    plan = profile.curve if item.duty is Duty.CURVE else profile.read.get(item.duty)
    planned = plan.items if plan is not None else ()
    items = expanded(item.items, planned, exchange.peer.edition.name) if item.items else planned
    if item.duty is Duty.CURVE:
        return exchange.start(qgdw1376_curve.curves(exchange, items))
    if item.duty is Duty.PROBE:
        return exchange.start(qgdw1376_parameter.probe(exchange, items))
    if item.duty is Duty.CLOCK:
        return exchange.start(qgdw1376_clock.clock(exchange, item.items))
    scripts = {
        Duty.LIVE: qgdw1376_read.live,
        Duty.DAILY: qgdw1376_read.freezes,
        Duty.MONTHLY: qgdw1376_read.freezes,
        Duty.PARAMETER: qgdw1376_parameter.parameters,
        Duty.EVENT: qgdw1376_event.events,
    }
    if not items or item.duty not in scripts:
        raise UsageError(
            tr(
                f"profile {profile.name} reads nothing for {item.duty}: name items (0C:F25) or add read.{item.duty}",
                f"设备档 {profile.name} 没有 {item.duty} 的数据项: 请指定 (如 0C:F25) 或补充 read.{item.duty}",
            )
        )
    return exchange.start(scripts[item.duty](exchange, items))


def open_relayed(inner: Exchange, device: Device, profile: Profile, item: WorkItem, carrier: Carrier) -> Exchange:
    """The exchange of a device behind a terminal (AFN 10). UsageError: its options name no port."""
    from .qgdw1376_relay import RelayedExchange

    peer = peer_of(carrier.profile, carrier.credentials, carrier.session)
    return RelayedExchange(device, carrier.profile, item, peer, inner, port_of(device, profile), profile)


def peer_of(profile: Profile, credentials: Credentials, session: TerminalSession) -> Peer:
    """The terminal as transactions need it."""
    return make_peer(session, credentials, any_rseq=profile.quirks.get("rseq") == "any")
