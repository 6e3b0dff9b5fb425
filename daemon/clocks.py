"""Keeps terminals' clocks right (对时): what the daily reading of clocks shows is judged, recorded, and set.

Offsets of 1 to 15 minutes are set by the daemon itself, at a moment the rules allow, after the audit has the record;
larger ones become a ticket in the audit. A clock that is over 5 minutes off again after two sets in a month is taken
for broken. When many terminals are off in the same direction it is our own clock that is wrong: then nothing is set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import psycopg

from ..acquisition.clock_rules import Advice, judge
from ..acquisition.io.clock import Clock
from ..acquisition.profile import Profile
from ..acquisition.sessions.qgdw1376_clock import EVENT, SET, SUPERVISED, settlements
from ..control import clocks as records
from ..control.audit import DAEMON, Actor
from ..model.devices import Device
from ..model.lang import tr
from ..model.quantities import quantity
from ..model.times import US
from ..model.work import Duty, Outcome, Priority, Status, WorkItem
from ..protocols.common.errors import FuheError, UsageError
from ..storage.database import Database

log = logging.getLogger(__name__)

LOOK_S: Final = 20.0
KEEP_US: Final = 20 * 3600 * US
"""An offset read so long ago is not acted on any more: the next daily reading comes."""
FLEET: Final = 5
FLEET_OFF_S: Final = 30.0
AT_ONCE: Final = 10
EXPIRES_S: Final = 120.0
BROKEN_S: Final = 300.0
BROKEN_SETS: Final = 2
TRIES: Final = 3
_OFFSET: Final = quantity("clock_offset").id
_RESULTS: Final = {Status.DONE: "done", Status.REFUSED: "refused", Status.READ_ONLY: "refused"}


@dataclass(slots=True)
class _Due:
    """A clock that wants to be set: what was read, and how often setting was tried."""

    offset_s: float
    at_us: int
    tries: int = 0


class ClockKeeper:
    """`ended` takes outcomes on the event loop; `run` does the work. Bounded: one entry a device."""

    def __init__(
        self,
        database: Database,
        submit: Callable[[WorkItem], asyncio.Future[Outcome]],
        clock: Clock,
        *,
        enabled: bool,
        may_write: Callable[[], bool],
    ) -> None:
        """enabled: config cycles.clock_set; may_write: the daemon is not in read-only mode."""
        self._database, self._submit, self._clock = database, submit, clock
        self._enabled, self._may_write = enabled, may_write
        self._devices: dict[int, Device] = {}
        self._offsets: dict[int, float] = {}
        self._due: dict[int, _Due] = {}
        self._used: set[int] = set()

    def set_devices(self, devices: Sequence[Device], profiles: Mapping[str, Profile]) -> None:
        """Take over the archive in force: the terminals of it."""
        self._devices = {
            d.id: d for d in devices if (p := profiles.get(d.profile)) is not None and p.protocol == "qgdw1376"
        }
        for table in (self._offsets, self._due):
            for device in [d for d in table if d not in self._devices]:
                del table[device]

    def ended(self, item: WorkItem, outcome: Outcome) -> None:
        """An item has ended (engine's on_outcome): a clock that was read is remembered."""
        if item.duty is not Duty.CLOCK or item.device not in self._devices:
            return
        offset_s = offset_of(outcome)
        if offset_s is None:
            return
        self._offsets[item.device] = offset_s
        if item.items or not self._enabled:
            return
        if judge(offset_s, 0.0, self._clock.now_us()).advice is Advice.NONE:
            self._due.pop(item.device, None)
        else:
            self._due[item.device] = _Due(offset_s, self._clock.now_us())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                await self.look()
            except (psycopg.Error, FuheError) as error:  # not recorded = not set
                log.warning("clocks: the audit cannot be written, nothing is set: %s", error)

    async def look(self) -> None:
        """Judge what is due, set what may be set now."""
        now_us = self._clock.now_us()
        ready: list[int] = []
        for device, due in tuple(self._due.items()):
            if now_us - due.at_us > KEEP_US:
                del self._due[device]
                continue
            times = settlements(self._devices[device].options.get("settlement", ""))
            verdict = judge(due.offset_s, 0.0, now_us, settlements=times)
            if verdict.advice is Advice.SET:
                ready.append(device)
            elif verdict.advice is Advice.TICKET:
                del self._due[device]
                await self._ticket(device, due.offset_s, verdict.reason)
        if not ready or not self._may_write():
            return
        if self._own_clock_suspect():
            log.error("clocks: most terminals are off in the same direction: is it our own clock? nothing is set")
            return
        for i in range(0, len(ready), AT_ONCE):
            await asyncio.gather(*(self._set(device) for device in ready[i : i + AT_ONCE]))

    def _own_clock_suspect(self) -> bool:
        """At least FLEET terminals known, and the middle one is off: terminals do not agree by chance."""
        known = list(self._offsets.values())
        return len(known) >= FLEET and abs(median(known)) >= FLEET_OFF_S

    async def _set(self, device: int) -> None:
        due = self._due[device]
        due.tries += 1
        if due.tries >= TRIES:
            del self._due[device]
        if abs(due.offset_s) > BROKEN_S and await self._record(self._broken, device):
            self._due.pop(device, None)
            text = tr("off again after two sets in a month: the clock is broken", "一月内两次对时后仍超差: 时钟故障")
            await self._ticket(device, due.offset_s, text)
            return
        why = tr(f"daily check: {due.offset_s:+.0f} s off", f"每日检查: 偏差 {due.offset_s:+.0f} 秒")
        outcome = await self.set(device, DAEMON, due.offset_s, why)
        if outcome.status is Status.DONE:
            self._due.pop(device, None)

    async def set(
        self, device: int, actor: Actor, offset_s: float | None, why: str, asked: int | None = None
    ) -> Outcome:
        """Record, send, record. asked: number of the person's own record; then offsets over 15 minutes are set too."""
        if asked is None:
            seq: int = await self._record(
                lambda conn: records.ask_set(conn, self._now(), actor, device, offset_s, why, person=False)
            )
        else:
            seq = asked
        item = WorkItem(
            device=device,
            duty=Duty.CLOCK,
            priority=Priority.LIVE,
            expires_s=self._clock.monotonic_s() + EXPIRES_S,
            items=(SET if asked is None else SUPERVISED,),
            forced=asked is not None,
        )
        outcome = await self._submit(item)
        events = outcome.batch.events if outcome.batch is not None else ()
        facts = next((e.data for e in events if e.code == EVENT), {})
        result = _RESULTS.get(outcome.status, "unknown" if facts else "not sent")
        await self._record(
            lambda conn: records.set_done(conn, self._now(), actor, device, seq, facts, result, outcome.reason)
        )
        log.warning("clock of device %d: %s", device, result, extra={"reason": outcome.reason, "facts": facts})
        return outcome

    async def by_person(self, device: int, asked: object) -> Outcome:
        """A person has asked (and the audit has it). UsageError: no terminal, or no such record."""
        if device not in self._devices:
            raise UsageError(tr("only terminals' clocks are set", "仅支持终端对时"))
        if (
            not isinstance(asked, int)
            or asked in self._used
            or not await self._record(lambda conn: records.asked_lately(conn, self._now(), device, asked))
        ):
            text = tr(
                "setting a clock wants a record in the audit: use fuhe device clock",
                "对时须有审计记录: 请用 fuhe device clock",
            )
            raise UsageError(text)
        self._used.add(asked)
        return await self.set(device, DAEMON, self._offsets.get(device), f"audit {asked}", asked)

    async def _ticket(self, device: int, offset_s: float, reason: str) -> None:
        if await self._record(lambda conn: records.ticket(conn, self._now(), DAEMON, device, offset_s, reason)):
            log.error("clock of %s: %s", self._devices[device].name, reason)

    def _broken(self, conn: Any, device: int) -> bool:
        return records.sets_in_a_month(conn, self._now(), device) >= BROKEN_SETS

    def _now(self) -> int:
        return self._clock.now_us()

    async def _record(self, work: Callable[..., Any], *more: object) -> Any:
        def inside() -> Any:
            with self._database.connect("app", autocommit=True) as conn:
                return work(conn, *more)

        return await asyncio.to_thread(inside)


def offset_of(outcome: Outcome) -> float | None:
    """The last clock offset among an outcome's samples."""
    samples = outcome.batch.samples if outcome.batch is not None else None
    if samples is None:
        return None
    found = samples.value[samples.quantity == _OFFSET]
    return float(found[-1]) if len(found) else None
