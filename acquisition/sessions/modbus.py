"""Modbus conversations: reading (live, daily, parameters, probe). Control is in `modbus_control`.

Whatever can be prepared is prepared once: reads and decode tables (`modbus_plan`) for all devices of a kind, request
bytes for all devices of one unit number (`protocols.modbus.wire`).
"""

from __future__ import annotations

import math
from collections import deque
from functools import lru_cache
from itertools import count
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...model.devices import Credentials, Device
from ...model.lang import tr
from ...model.quality import Source
from ...model.readings import ParameterValue, ReadingBatch
from ...model.times import business_day, day_start_us
from ...model.work import Duty, Exchange, ItemFault, Outcome, Request, Status, WorkItem
from ...protocols.common.errors import UsageError
from ...protocols.common.framer import NeedMore
from ...protocols.modbus.crc import crc16
from ...protocols.modbus.frame import ReplyFramer
from ...protocols.modbus.grouping import Read
from ...protocols.modbus.maps import Register, load_map
from ...protocols.modbus.sunspec import ModelSearch
from ...protocols.modbus.wire import Framing, Wire, check_unit, exception_text, read_wire
from ..profile import Profile
from ..raw import RawSamples, Reply
from .modbus_plan import MEMORY, Decoder, Plan, plan_for

# A meter without freezes is read this soon after the label, or the day's reading is not what it says (domain 3.2).
_FREEZE_WITHIN_US: Final = 3_600_000_000
_SPLIT_ON: Final = (2, 3)
_SILENT_GATEWAY: Final = (10, 11)
_AGAIN: Final = (5, 6)
# A device that refuses this often and has answered nothing has another map, or is not the device we think.
_REFUSALS_AT_ONCE: Final = 16
_VOLTAGE_V: Final = (50.0, 500.0)

_transactions = count(1)


@lru_cache(maxsize=65_536)
def parse_address(text: str, framing: Framing) -> tuple[int, int]:
    """(unit, offset) of "1", "255" or "3@1000": the offset is added to every address of the map."""
    unit, _, offset = text.partition("@")
    try:
        return check_unit(int(unit, 0), framing), int(offset or "0", 0)
    except ValueError as error:
        raise UsageError(
            tr(
                f"address {text!r}: write the Modbus unit number, or unit@offset",
                f"地址 {text!r}: 请写 Modbus 从站号, 或 从站号@偏移",
            )
        ) from error


def framing_of(device: Device) -> Framing:
    """How the device's link wraps messages; the link says so in the device's options."""
    framing = device.options.get("framing", "tcp")
    if framing == "tcp":
        return "tcp"
    if framing == "rtu":
        return "rtu"
    raise UsageError(tr(f"framing {framing!r}: use rtu or tcp", f"帧格式 {framing!r}: 请用 rtu 或 tcp"))


def open_exchange(device: Device, profile: Profile, item: WorkItem, credentials: Credentials) -> Exchange:
    """The conversation for `item`; UsageError when a Modbus device has no means for its duty."""
    if item.duty is Duty.CONTROL:
        from .modbus_control import ControlExchange  # the rare case; it imports this module

        return ControlExchange(device, profile, item)
    return ReadExchange(device, profile, item)


class ModbusExchange:
    """One request at a time: matching the answer, repeating on silence. Subclasses say what is asked next."""

    __slots__ = (
        "_again", "_attempts", "_expect_ok", "_framer", "_framing", "_noise", "_retries", "_transaction", "_unit",
        "_wire", "offset", "repeats",
    )  # fmt: skip

    def __init__(self, device: Device, profile: Profile) -> None:
        self._framing = framing_of(device)
        self._unit, self.offset = parse_address(device.address, self._framing)
        self._retries = profile.timing.retries
        self._framer: ReplyFramer | None = None
        self._wire: Wire | None = None
        self._again = False
        self._attempts = 0
        self._transaction = b""
        self._expect_ok = b""
        self._noise = False
        self.repeats = 0

    def next_request(self, now_us: int) -> Request | None:
        """The next request, or None when the conversation is over."""
        if self._again:
            self._again = False
            self.repeats += 1
        else:
            self._wire = self._next(now_us)
            if self._wire is not None:
                self._attempts = 0
                self._noise = False
        wire = self._wire
        if wire is None:
            return None
        self._attempts += 1
        if wire.tcp:
            self._transaction = (next(_transactions) & 0xFFFF).to_bytes(2, "big")
            self._expect_ok = self._transaction + wire.ok
        else:
            self._expect_ok = wire.ok
        if self._framer is not None:
            self._framer.expect(*wire.expected(self._transaction))
        return Request(data=wire.request(self._transaction), reply_bytes=wire.ok_length)

    def receive(self, data: bytes, now_us: int) -> bool:
        """True when the request in flight has been answered; bytes that are not its answer are dropped."""
        wire = self._wire
        if wire is None:
            return False
        if (
            self._framer is None
            and len(data) == wire.ok_length
            and data.startswith(self._expect_ok)
            and (wire.tcp or crc16(data) == 0)
        ):
            self._heard(wire, None, data, now_us)
            return True
        if self._framer is None:
            self._framer = ReplyFramer()
            self._framer.expect(*wire.expected(self._transaction))
        self._framer.feed(data)
        frame = self._framer.next_event()
        if isinstance(frame, NeedMore):
            return False
        self._framer = None
        self._heard(wire, wire.exception(frame), frame, now_us)
        return True

    def silence(self, now_us: int) -> None:
        """No answer in time: repeat while the profile allows it, then give up."""
        if self._wire is None:
            return
        self._noise = self._noise or bool(self._framer and self._framer.pending)
        self._framer = None
        if self._attempts <= self._retries and self._may_repeat():
            self._again = True
        else:
            self._wire = None
            self._gave_up(now_us)

    def _heard(self, wire: Wire, code: int | None, frame: bytes, now_us: int) -> None:
        """An answer: an exception that asks for patience is repeated, everything else goes to the subclass."""
        if code in _AGAIN and self._may_repeat() and self._attempts <= self._retries:
            self._again = True
        else:
            self._answered(wire, code, frame, now_us)

    def _may_repeat(self) -> bool:
        return True

    def _next(self, now_us: int) -> Wire | None:
        raise NotImplementedError

    def _answered(self, wire: Wire, code: int | None, frame: bytes, now_us: int) -> None:
        raise NotImplementedError

    def _gave_up(self, now_us: int) -> None:
        raise NotImplementedError


_SOURCE: Final = {
    Duty.LIVE: Source.LIVE,
    Duty.DAILY: Source.DAILY,
    Duty.MONTHLY: Source.MONTHLY,
    Duty.PROBE: Source.LIVE,
    Duty.PARAMETER: Source.PARAMETER,
}


class ReadExchange(ModbusExchange):
    """Reads the items of one work item, splitting a refused read until the refused value stands alone."""

    __slots__ = (
        "_answers", "_at_us", "_base", "_cut", "_device", "_duty", "_ended", "_faults", "_heard_any", "_item", "_items",
        "_late", "_map", "_memory_key", "_plan", "_queue", "_read", "_refusals", "_refused", "_search", "_split",
    )  # fmt: skip

    def __init__(self, device: Device, profile: Profile, item: WorkItem) -> None:
        super().__init__(device, profile)
        if item.duty not in _SOURCE:
            raise UsageError(
                tr(f"Modbus devices have no means for duty {item.duty}", f"Modbus 设备不支持 {item.duty} 类任务")
            )
        if not device.points:
            raise UsageError(tr(f"device {device.name} has no metering point", f"设备 {device.name} 没有计量点"))
        self._map = load_map(profile.map)
        self._device = device
        self._duty = item.duty
        self._item = item
        self._items = self._wanted(profile, item)
        self._memory_key = (device.id, device.address, profile.map)
        self._plan: Plan | None = None
        self._search: ModelSearch | None = None
        self._base = 0
        self._queue: deque[Read] = deque()
        self._read: Read | None = None
        self._answers: list[tuple[Read, bytes]] = []
        self._faults: list[ItemFault] = []
        self._refused: dict[str, int] = {}
        self._refusals = 0
        self._cut: set[tuple[int, int]] = set()
        self._split = False
        self._late: set[tuple[int, int]] = set()
        self._heard_any = False
        self._ended = ""
        self._at_us = 0

    def _wanted(self, profile: Profile, item: WorkItem) -> tuple[str, ...]:
        if item.items:
            return item.items
        plan = profile.read.get(item.duty)
        if plan is not None:
            return plan.items
        if item.duty is Duty.PARAMETER:
            return self._map.parameters
        if item.duty is Duty.PROBE:
            readings = self._map.readings
            return ("voltage_a",) if "voltage_a" in readings else readings[:1]
        return self._map.readings

    # -- what to ask ---------------------------------------------------------------------------------------------

    def _next(self, now_us: int) -> Wire | None:
        if self._ended:
            return None
        if self._plan is None:
            self._begin(now_us)
        if self._search is not None:
            if self._search.address is not None:
                return read_wire(self._framing, self._unit, 3, self._search.address, 2)
            if not self._found(now_us):
                return None
        while self._queue:
            read = self._queue.popleft()
            if self._framing == "rtu" and (read.function, read.count) in self._late:
                # RTU has no transaction number: a late answer to the earlier read would pass for this one's
                self._fault_read(
                    read, tr("put off: a late answer could be mistaken for it", "推迟: 可能与迟到应答混淆")
                )
                continue
            self._read = read
            try:
                address = self._base + self.offset + read.address
                return read_wire(self._framing, self._unit, read.function, address, read.count)
            except UsageError as error:  # the offset, or a SunSpec chain, leads outside the address space
                self._fault_read(read, str(error))
                self._read = None
        return None

    def _begin(self, now_us: int) -> None:
        learned = MEMORY.get(self._memory_key, now_us)
        if learned is None or not (learned.cuts or learned.refused):
            self._plan = plan_for(self._map.name, self._items)
        else:
            self._plan = MEMORY.plan(learned, self._map, self._items)
        if self._plan.missing or self._plan.refused:
            self._known_faults(self._plan)
        if self._duty in (Duty.DAILY, Duty.MONTHLY) and self._label(now_us) is None:
            self._ended = tr(
                "the meter keeps no freezes: a past day cannot be read", "该表无冻结数据, 无法补读过去的日数据"
            )
            self._faults = [ItemFault(item=i, reason=self._ended, final=True) for i in self._items]
            return
        self._queue.extend(self._plan.reads)
        if self._map.kind == "sunspec" and self._queue:
            if learned is not None and learned.base is not None:
                self._base = learned.base
            else:
                self._search = ModelSearch(self._map.models)

    def _known_faults(self, plan: Plan) -> None:
        absent = tr(f"not in register map {self._map.name}", f"寄存器表 {self._map.name} 中没有")
        self._faults += [ItemFault(item=i, reason=absent, final=True) for i in plan.missing]
        self._faults += [ItemFault(item=i, reason=exception_text(code), final=True) for i, code in plan.refused.items()]

    def _found(self, now_us: int) -> bool:
        assert self._search is not None
        found, self._search = self._search.found, None
        if found is None:
            models = ", ".join(map(str, self._map.models))
            self._ended = tr(f"no SunSpec model {models} in this device", f"设备中没有 SunSpec 模型 {models}")
            return False
        self._base = MEMORY.learn(self._memory_key, now_us).base = found
        return True

    # -- what was answered ---------------------------------------------------------------------------------------

    def _answered(self, wire: Wire, code: int | None, frame: bytes, now_us: int) -> None:
        self._heard_any = self._heard_any or code not in _SILENT_GATEWAY
        self._at_us = now_us
        if code in _SILENT_GATEWAY:
            self._ended = exception_text(code)
            return
        if self._search is not None:
            self._search.answer(wire.payload(frame) if code is None else None)
            return
        read, self._read = self._read, None
        assert read is not None
        if code is None:
            self._answers.append((read, wire.payload(frame)))
            if self._attempts > 1 and not self._noise:
                self._late.add((read.function, read.count))
        else:
            self._refusal(read, code)

    def _refusal(self, read: Read, code: int) -> None:
        self._refusals += 1
        if not self._answers and self._refusals >= _REFUSALS_AT_ONCE:
            self._ended = tr(
                f"everything is refused ({exception_text(code)}): check register map and unit number",
                f"全部被拒绝 ({exception_text(code)}): 请检查寄存器表和从站号",
            )
            self._read = read  # unanswered, like everything behind it
        elif code in _SPLIT_ON and len(read.registers) > 1:
            low, high = read.halves()
            self._cut.add((high.function, high.address))
            self._queue.extendleft((high, low))
            self._split = True
        else:
            final = code in (1, 2, 3)
            for register in read.registers:
                self._faults.append(ItemFault(item=register.name, reason=exception_text(code), final=final))
                if final:
                    self._refused[register.name] = code

    def _gave_up(self, now_us: int) -> None:
        self._ended = tr("answers cannot be read", "应答无法识别") if self._noise else tr("no answer", "无应答")

    def _fault_read(self, read: Read, reason: str) -> None:
        self._faults += [ItemFault(item=r.name, reason=reason) for r in read.registers if r.use != "scale"]

    # -- what came of it -----------------------------------------------------------------------------------------

    def outcome(self, now_us: int) -> Outcome:
        """DONE with everything, PARTIAL with faults, REFUSED when all was refused, SILENT or BROKEN without answer."""
        if self._answers or self._heard_any:
            self._fault_unanswered()
        if self._refused or self._split:
            self._remember(now_us)
        batch = self._batch() if self._answers else None
        if not self._answers:
            return self._without_answers()
        status = Status.PARTIAL if self._faults else Status.DONE
        return Outcome(status=status, batch=batch, faults=tuple(self._faults), reason=self._ended, retries=self.repeats)

    def _fault_unanswered(self) -> None:
        """What was asked in vain, or not asked any more, when the conversation ended (or was ended) early."""
        reason = self._ended or tr("not asked: the conversation was ended early", "未召测: 会话提前结束")
        for read in (self._read, *self._queue):
            if read is not None:
                self._fault_read(read, reason)
        self._read = None
        self._queue.clear()

    def _without_answers(self) -> Outcome:
        if self._heard_any or (self._faults and not self._attempts):
            status = Status.REFUSED
        elif self._noise:
            status = Status.BROKEN
        elif self._attempts:
            status = Status.SILENT
        else:
            status = Status.CANCELLED
        return Outcome(status=status, faults=tuple(self._faults), reason=self._ended, retries=self.repeats)

    def _remember(self, now_us: int) -> None:
        """A refused value beside answered ones is a hole from now on; cuts are kept where no value explains them."""
        learned = MEMORY.learn(self._memory_key, now_us)
        if not self._answers:
            learned.base = None  # nothing at all: that is not about single values
        elif self._refused:
            learned.refused.update(self._refused)
        else:
            learned.cuts |= self._cut

    def _batch(self) -> ReadingBatch:
        assert self._plan is not None
        plan, answers = self._plan, self._answers
        if len(answers) == 1 == len(plan.reads) and answers[0][0] is plan.reads[0]:
            return self._deliver(plan.decoder, answers[0][1])
        reads = tuple(read for read, _ in answers)
        decoder = plan.decoder if reads == plan.reads else Decoder(reads, self._map)
        return self._deliver(decoder, b"".join([payload for _, payload in answers]))

    def _deliver(self, decoder: Decoder, data: bytes) -> ReadingBatch:
        if self._duty is Duty.PARAMETER:
            return self._parameters(decoder.gather.registers, decoder.gather.values(data))
        if self._duty is Duty.PROBE:
            self._check_voltage(decoder.gather.registers, decoder.gather.values(data))
        reply = Reply(decoder, data, self._stamp(), self._device.points[0].id, _SOURCE[self._duty])
        return ReadingBatch(received_us=self._at_us, samples=RawSamples(reply))

    def _stamp(self) -> int:
        if self._duty is Duty.DAILY or self._duty is Duty.MONTHLY:
            label = self._label(self._at_us)
            return self._at_us if label is None else label
        return self._at_us

    def _label(self, now_us: int) -> int | None:
        """Midnight that a daily or monthly reading of now may carry; None when it is not that day's any more."""
        today = business_day(now_us)
        label = day_start_us(today)
        window = self._item.window_us
        in_window = window is None or window[0] <= label < window[1]
        first_day = self._duty is not Duty.MONTHLY or window is not None or today.day == 1  # or the reading day
        return label if in_window and first_day and now_us - label <= _FREEZE_WITHIN_US else None

    def _parameters(self, registers: tuple[Register, ...], value: NDArray[np.float64]) -> ReadingBatch:
        found = []
        for register, number in zip(registers, value.tolist(), strict=True):
            if number == number:
                text = format(number, ".15g")
                found.append(
                    ParameterValue(device=self._device.id, item=register.name, value=text, time_us=self._at_us)
                )
            else:
                self._faults.append(ItemFault(item=register.name, reason=tr("not available", "无数据")))
        return ReadingBatch(received_us=self._at_us, parameters=tuple(found))

    def _check_voltage(self, registers: tuple[Register, ...], value: NDArray[np.float64]) -> None:
        """A probe that answers with an impossible voltage points at a wrong map, function or word order."""
        if registers[0].unit == "V" and math.isfinite(value[0]) and not _VOLTAGE_V[0] < value[0] < _VOLTAGE_V[1]:
            reason = tr(
                f"{value[0]} V is not a mains voltage: check register map, function and word order",
                f"{value[0]} V 不是正常电压: 请检查寄存器表、功能码和字序",
            )
            self._faults.append(ItemFault(item=registers[0].name, reason=reason))
