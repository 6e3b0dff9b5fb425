"""DL/T 645 conversations: one work item with one meter, as a script of questions (clauses: protocols/dlt645).

`MeterExchange` moves the bytes: one request at a time, the reply matched by address, function, DI and SEQ, everything
else (echo, late replies, other meters) dropped, silence answered by repeating. What is asked, and what an answer means,
stands in scripts: generators that yield an `Ask` and get a Frame, or None for silence. See dlt645_read, dlt645_curve,
dlt645_control.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from ...model.control import ControlAnswer
from ...model.devices import Credentials, Device
from ...model.lang import tr
from ...model.quality import Quality, Source
from ...model.quantities import by_name
from ...model.readings import CurveBlock, DeviceEvent, ParameterValue, ReadingBatch, samples_from_rows
from ...model.times import business_to_us
from ...model.work import Duty, EventCount, Exchange, ItemFault, Outcome, Request, Status, WorkItem
from ...protocols.common.errors import UsageError
from ...protocols.common.framer import NeedMore
from ...protocols.dlt645 import codes, requests
from ...protocols.dlt645.fields import Value
from ...protocols.dlt645.frame import OVERHEAD, Frame, Framer, address_to_wire, matches
from ...protocols.dlt645.items import lookup
from ..profile import Profile

MAX_PARTS: Final = 256
MAX_BEGINNINGS: Final = 10  # of one chain of follow-on frames that commands interrupt again and again
TYPICAL_TARIFFS: Final = 4  # for the expected length of a block over tariffs
UNKNOWN_BYTES: Final = 20
GIVE_UP_AFTER: Final = 2  # items in a row without any answer

# ERR bits that are a last word about an item: no such data, wrong identifier, no right to read it
_FINAL_ERRORS: Final = {"2007": 0b110, "1997": 0b111}


@dataclass(frozen=True, slots=True)
class Ask:
    """One question. data: length of DATA expected back; repeat False: never sent twice (relay commands).

    chained: it goes on where the question before left off; worthless once the meter was asked something else.
    """

    frame: Frame
    data: int = 0
    repeat: bool = True
    chained: bool = False


Script = Generator[Ask, Frame | None, None]
Reading = Generator[Ask, Frame | None, bytes]


class Missing(Exception):
    """Inside scripts only: an item could not be read. silent: nothing came at all."""

    def __init__(self, reason: str, *, final: bool = False, silent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final
        self.silent = silent


class MeterExchange:
    """The exchange (see model.work.Exchange) that runs one script; scripts write their results into it."""

    def __init__(self, device: Device, profile: Profile, item: WorkItem) -> None:
        self.device = device
        self.profile = profile
        self.item = item
        self.version = "1997" if profile.version == "1997" else "2007"
        wire = address_to_wire(device.address)
        self._address = wire[::-1] if profile.quirks.get("address_order") == "reversed" else wire
        self.point = device.points[0].id if device.points else None
        self.now_us = 0
        self.sent_us = 0
        self.answer: ControlAnswer | None = None
        self.rows: list[tuple[int, int, int, float, int, int]] = []
        self.curves: list[CurveBlock] = []
        self.events: list[DeviceEvent] = []
        self.parameters: list[ParameterValue] = []
        self.counts: list[EventCount] = []
        self.faults: list[ItemFault] = []
        self.status: Status | None = None
        self.reason = ""
        self.heard = False  # the meter answered something
        self.refused = False  # the last word on every failed item was the meter's own
        self._noise = False
        self._retries = 0
        self._script: Script = iter_nothing()
        self._ask: Ask | None = None
        self._tries = 0
        self._reply: Frame | None = None
        self._started = False
        self._over = False
        self._silent_items = 0
        self._interrupted = False
        self._framer = Framer(int(profile.quirks.get("data_limit", "200")))

    def start(self, script: Script) -> MeterExchange:
        """Set the script to run."""
        self._script = script
        return self

    # --- the seam ---------------------------------------------------------------------------------------------------

    def next_request(self, now_us: int) -> Request | None:
        """The next request (or a repetition), None when the script has ended."""
        self.now_us = now_us
        if self._over:
            return None
        if self._ask is None:
            try:
                self._ask = self._script.send(self._reply) if self._started else next(self._script)
            except StopIteration:
                self._over = True
                return None
            self._started = True
            self._tries = 0
        self._tries += 1
        if self._tries > 1:
            self._retries += 1
        self._reply = None
        self._framer.reset()  # whatever came before this request is no answer to it
        self.sent_us = now_us
        lead = self.profile.timing.lead_bytes
        frame = self._addressed(self._ask.frame)
        return Request(data=frame.encode(lead), reply_bytes=OVERHEAD + lead + self._ask.data)

    def receive(self, data: bytes, now_us: int) -> bool:
        """Bytes from the line; True when they hold the answer."""
        self.now_us = now_us
        self._framer.feed(data)
        return self._drain()

    def silence(self, now_us: int) -> None:
        """Time is up: look for the answer behind a broken start, else repeat or pass on."""
        self.now_us = now_us
        self._framer.expire()
        if self._ask is None or self._drain():
            return
        if not self._ask.repeat or self._tries > self.profile.timing.retries:
            self._ask = None

    def interrupted(self) -> None:
        """Another request to this meter came between: any chain of follow-on frames has ended with it."""
        self._interrupted = True
        if self._ask is not None and self._ask.chained:
            self._ask = None

    def outcome(self, now_us: int) -> Outcome:
        """What was read; callable early."""
        batch = None
        if self.rows or self.curves or self.events or self.parameters:
            batch = ReadingBatch(
                received_us=now_us,
                samples=samples_from_rows(self.rows) if self.rows else None,
                curves=tuple(self.curves),
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
            counts=tuple(self.counts),
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

    # --- matching ---------------------------------------------------------------------------------------------------

    def _addressed(self, frame: Frame) -> Frame:
        """The frame with the address in the order this meter wants; broadcasts and read-address are left alone."""
        if frame.wire_address == self._address or frame.wire_address != self._address[::-1]:
            return frame
        return Frame(self._address, frame.control, frame.data)

    def _drain(self) -> bool:
        if self._ask is None:
            return False
        while not isinstance(event := self._framer.next_event(), NeedMore):
            if not isinstance(event, Frame):
                self._noise = self._noise or event.reason != "noise" or event.count > 4
            elif self._answers(event, self._ask.frame):
                self._reply = event
                self._ask = None
                self.heard = True
                return True
        return False

    def _answers(self, reply: Frame, asked: Frame) -> bool:
        """Direction, function, address, DI and (follow-on) SEQ are those of the request."""
        if not reply.from_meter or reply.function != asked.function:
            return False
        wanted = self._addressed(asked).wire_address
        if reply.wire_address != wanted and not matches(wanted, reply.wire_address):
            return False
        if reply.abnormal:
            return True
        reading = asked.function in ((0x11, 0x12) if self.version == "2007" else (0x01, 0x02))
        if not reading or not reply.data:
            return True
        size = 4 if self.version == "2007" else 2
        if reply.data[:size] != asked.data[:size]:
            return False
        follow = asked.function == 0x12 and self.version == "2007"
        return not follow or (len(reply.data) > size and reply.data[-1] == asked.data[4])

    # --- what scripts use -------------------------------------------------------------------------------------------

    def read(self, di: str) -> Reading:
        """Payload of an item with all its follow-on parts; raises Missing."""
        return self.read_request(
            requests.read(self.device.address, di, self.version), di, expected_bytes(di, self.version)
        )

    def read_request(self, frame: Frame, di: str, expected: int) -> Reading:
        """The same for any reading request. A chain that breaks is begun once more; one that was interrupted, again."""
        size = 4 if self.version == "2007" else 2
        broken = 0
        for _ in range(MAX_BEGINNINGS):
            self._interrupted = False
            reply = yield Ask(frame, size + expected)
            parts = [self._part(reply, size, tail=0)]
            try:
                while reply is not None and reply.follow_on:
                    if self._interrupted:
                        raise Missing("interrupted")
                    if len(parts) >= MAX_PARTS:
                        raise Missing("more than 255 follow-on frames")
                    follow = requests.read_follow_on(self.device.address, di, len(parts), self.version)
                    reply = yield Ask(follow, 200, chained=True)
                    parts.append(self._part(reply, size, tail=1 if self.version == "2007" else 0))
            except Missing:
                broken += not self._interrupted
                if broken == 2:
                    raise
                continue
            self._silent_items = 0
            return b"".join(parts)
        raise Missing(tr("commands to this meter came between again and again", "反复被对该表的命令打断"))

    def _part(self, reply: Frame | None, size: int, *, tail: int) -> bytes:
        if reply is None:
            raise Missing("no answer", silent=True)
        if reply.abnormal:
            word = reply.data[0] if reply.data else 0
            # FE and its like set every bit: failure, reason unclear, so no last word
            final = bool(word & _FINAL_ERRORS[self.version]) and word.bit_count() <= 2
            self.refused = True
            self._silent_items = 0
            raise Missing(codes.error_text(word, self.version), final=final)
        return reply.data[size : len(reply.data) - tail]

    def fault(self, item: str, missing: Missing) -> bool:
        """Note a failed item; True when there is no use in going on with this meter."""
        self.faults.append(ItemFault(item=item, reason=missing.reason, final=missing.final))
        if not missing.silent:
            return False
        self._silent_items += 1
        return not self.heard or self._silent_items >= GIVE_UP_AFTER

    def take(self, di: str, values: list[Value], time_us: int, source: Source) -> None:
        """Keep the storable values among `values` as samples; note the invalid ones (a record's are so for ever)."""
        names = by_name()
        for value in values:
            if value.invalid:
                item = lookup(di, self.version)
                final = source is Source.EVENT and item is not None and item.record is not None
                self.faults.append(ItemFault(item=di, reason=f"{value.name}: {value.invalid}", final=final))
            if value.quantity is None or value.value is None or self.point is None or value.settlement:
                continue
            number = int(value.value, 16) if isinstance(value.value, str) else float(value.value)  # type: ignore[arg-type]
            self.sample(names[value.quantity].id, number, time_us, source)
            if value.time is not None and f"{value.quantity}_time" in names:
                seconds = business_to_us(value.time) / 1e6
                self.sample(names[f"{value.quantity}_time"].id, seconds, time_us, source)
            if value.quantity == "status_word_3":
                self.sample(names["switch_state"].id, 0.0 if int(number) & 0x10 else 1.0, time_us, source)

    def sample(self, quantity: int, value: float, time_us: int, source: Source) -> None:
        """One sample of quality A."""
        if self.point is not None:
            self.rows.append((time_us, self.point, quantity, value, Quality.A, source))


def iter_nothing() -> Script:
    """A script without questions."""
    yield from ()


def expected_bytes(di: str, version: str) -> int:
    """Usual length of an item's payload, for the line-time part of the time-out."""
    item = lookup(di, version)
    if item is None or not item.fields:
        return UNKNOWN_BYTES
    tariffs = sum(1 for f in item.fields if f.name.startswith("tariff_") and f.numeric)
    if tariffs:
        return item.size * (1 + TYPICAL_TARIFFS) // (1 + tariffs)
    return min(item.size or UNKNOWN_BYTES, 196)


def open_exchange(device: Device, profile: Profile, item: WorkItem, credentials: Credentials) -> Exchange:
    """The conversation for `item`; UsageError when the profile has no means for its duty or the address is wrong."""
    from . import dlt645_control, dlt645_curve, dlt645_read

    exchange = MeterExchange(device, profile, item)
    if item.duty is Duty.CONTROL:
        return exchange.start(dlt645_control.control(exchange, credentials))
    if item.duty is Duty.CURVE:
        return exchange.start(dlt645_curve.curves(exchange))
    if item.duty is Duty.CLOCK:
        return exchange.start(dlt645_read.clock(exchange))
    plan = profile.read.get(item.duty)
    items = item.items or (plan.items if plan is not None else ())
    if item.duty is Duty.PROBE:
        return exchange.start(dlt645_read.probe(exchange, items[:1]))
    if not items:
        raise UsageError(
            tr(
                f"profile {profile.name} reads nothing for {item.duty}: name data identifiers or add read.{item.duty}",
                f"设备档 {profile.name} 没有 {item.duty} 的数据项: 请指定数据标识或补充 read.{item.duty}",
            )
        )
    unknown = [di for di in items if lookup(di, exchange.version) is None]
    if unknown:
        raise UsageError(
            tr(
                f"{', '.join(unknown)}: no data identifier of DL/T 645-{exchange.version}",
                f"{', '.join(unknown)}: 不是 DL/T 645-{exchange.version} 的数据标识",
            )
        )
    script = {Duty.DAILY: dlt645_read.daily, Duty.MONTHLY: dlt645_read.monthly}.get(item.duty, dlt645_read.plain)
    return exchange.start(script(exchange, items))
