"""The daemon's part of control: drives live commands one step further (domain 9.3, 9.7, 8.11).

It never begins a trip: a command gets to CHECKING only by a person's `execute`, signed by two people before.

For every frame: transaction with audit record and new state, commit, frame, transaction with the answer.
If any of it fails, the state in the database claims no more than "may have been sent", and the device's state is read.
Database work runs in one thread on one connection that holds the control lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

import numpy as np
import psycopg

from ..model.control import ControlAction, ControlAnswer, SwitchState
from ..model.lang import tr
from ..model.times import US, to_us
from ..protocols.common.errors import FuheError, LinkError
from . import audit, commands, orders, steps
from .commands import Command
from .config import ControlConfig
from .evidence import MIN15_S, Seen
from .ports import Field, PowerWindow
from .records import Conn, scalar
from .rules.states import State

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)

LEASE: Final = 0x66756865_0003
PARALLEL: Final = 20
MOVES: Final = 12
NORMAL, NO_CONTROL = "NORMAL", "NO-CONTROL"
EMPTY: Final = PowerWindow(np.zeros(0, np.int64), np.zeros(0, np.float64), np.zeros(0, np.int16))


def _check_tail(conn: Conn) -> None:
    """The last audit record must be as it was written; LinkError otherwise (the whole chain: `fuhe audit verify`)."""
    for record in audit.read(conn, last=1):
        if audit.record_hash(record) != record.hash:
            raise LinkError(tr(f"audit record {record.seq} was changed", f"审计记录 {record.seq} 被改"))


class Executor:
    """Call `step(now_us)` every second or two and whenever fuhe_command notifies; one instance a database.

    mode, reason: NORMAL, or NO-CONTROL with why no trip is possible (releases go on as far as they can).
    """

    def __init__(
        self,
        connect: Callable[[], Conn],
        field: Field,
        config: ControlConfig,
        *,
        clock_fault: Callable[[], str] = lambda: "",
        elapsed: Callable[[], float] = time.monotonic,
        anchor_file: Path | None = None,
    ) -> None:
        """`connect`: an autocommit connection as fuhe_app; `clock_fault`: why nothing may be tripped although the
        database is well (clock, the daemon's own mode), or ''; `elapsed`: monotonic seconds; `anchor_file`: where the
        audit's count and last hash are written now and then."""
        self._connect, self._field, self._config = connect, field, config
        self._clock_fault, self._elapsed, self._anchor_file = clock_fault, elapsed, anchor_file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="control-db")
        self._conn: Conn | None = None
        self._lock = asyncio.Lock()
        self._started = False
        self._start_us = self._last_us = 0
        self._t0 = 0.0
        self._anchored: tuple[int, int] | None = None
        self._recorded_mode: tuple[str, str] = (NORMAL, "")
        self.mode = NO_CONTROL
        self.reason = tr("not started", "未启动")

    async def step(self, now_us: int) -> None:
        """Drive every live command as far as it can go now.

        Never raises for a fault of database, audit or device: the first two set NO-CONTROL, and what was under way is
        recovered by a later step; devices' faults are states of their commands.
        """
        async with self._lock:
            backwards = self._last_us - now_us > US
            self._start_us, self._t0 = now_us, self._elapsed()
            self._last_us = max(self._last_us, now_us)
            try:
                live = await self._begin(now_us)
                fault = tr("the clock went backwards", "时钟倒退") if backwards else self._clock_fault()
                if not self._config.enabled:
                    fault = tr("control is switched off in the configuration", "配置中关闭了控制")
                self._set_mode(fault)
                await self._db(self._record_mode, now_us)
                await self._drive_all(live)
                await self._db(self._anchor, now_us)
            except (psycopg.Error, FuheError) as error:
                self._drop_connection()
                self._started = False  # what this life knew of CHECKING and ALARMING is no longer certain
                self._set_mode(tr(f"database or audit: {error}", f"数据库或审计: {error}"))

    async def close(self) -> None:
        """Give the lease and the connection back."""
        async with self._lock:
            self._thread.shutdown(wait=True)  # a cancelled step may have left a transaction running in it
            self._drop_connection()

    def _now(self) -> int:
        """UTC µs now: the step's stamp plus monotonic time since."""
        return self._start_us + round((self._elapsed() - self._t0) * US)

    def _set_mode(self, fault: str) -> None:
        mode = NO_CONTROL if fault else NORMAL
        if (mode, fault) != (self.mode, self.reason):
            log.log(logging.WARNING if fault else logging.INFO, "control mode %s %s", mode, fault)
        self.mode, self.reason = mode, fault

    def _record_mode(self, conn: Conn, now_us: int) -> None:
        if (self.mode, self.reason) != self._recorded_mode:
            steps.record_mode(conn, now_us, self.mode, self.reason)
            self._recorded_mode = (self.mode, self.reason)

    # -- database -----------------------------------------------------------------------------------------------------

    async def _db(self, work: Callable[Concatenate[Conn, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`work` in one transaction, in the database thread. Cancelled or not, the thread finishes its transaction."""

        def run() -> R:
            conn = self._open()
            with conn.transaction():
                return work(conn, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _open(self) -> Conn:
        if self._conn is None or self._conn.closed:
            conn = self._connect()
            try:
                mine = scalar(conn, "SELECT pg_try_advisory_lock(%s)", (LEASE,))
                if not mine:
                    raise LinkError(tr("another daemon holds the control lease", "另一守护进程持有控制权"))
            except BaseException:
                conn.close()
                raise
            self._conn = conn
        return self._conn

    def _drop_connection(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()

    async def _begin(self, now_us: int) -> list[Command]:
        """Recovery, expiry, reminders; the live commands afterwards. At the start the audit's tail must be sound.

        One transaction each: nobody waits for a command while holding the audit's lock.
        """
        first = not self._started
        if first:
            await self._db(_check_tail)
        for command in await self._db(commands.commands, live=True):
            if command.state in steps.RECOVERABLE:
                await self._db(steps.recover, now_us, command.id, self._config, first=first)
        self._started = True
        for order_id, text in await self._db(steps.ending_orders, now_us):
            await self._db(orders.remind_of_end, now_us, order_id, text)
        return await self._db(commands.commands, live=True)

    def _anchor(self, conn: Conn, now_us: int) -> None:
        if self._anchor_file is None:
            return
        last_us, last_seq = self._anchored or (0, 0)
        if now_us - last_us < self._config.anchor_s * US:
            return
        anchor = audit.head(conn, now_us)
        if anchor.seq != last_seq:
            audit.write_anchor(self._anchor_file, anchor)
        self._anchored = (now_us, anchor.seq)

    # -- commands -----------------------------------------------------------------------------------------------------

    async def _drive_all(self, live: list[Command]) -> None:
        """Devices side by side, the rounds of one device one after the other."""
        groups: dict[int, list[Command]] = defaultdict(list)
        for command in live:
            groups[command.device_id].append(command)
        gate = asyncio.Semaphore(PARALLEL)

        async def device(group: list[Command]) -> None:
            async with gate:
                for command in group:
                    await self._drive(command)

        done = await asyncio.gather(*(device(g) for g in groups.values()), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error

    async def _drive(self, command: Command) -> None:
        """Along the table until nothing more happens now; bounded."""
        for _ in range(MOVES):
            drive = self._DRIVES.get(command.state)
            if drive is None:
                return
            after = await drive(self, command)
            if after.state is command.state:
                return
            command = after

    def _due(self, command: Command) -> bool:
        return command.next_check_at is None or self._now() >= to_us(command.next_check_at)

    async def _read(self, command: Command) -> SwitchState | None:
        try:
            return await self._field.read_state(command.device_id, command.round)
        except (FuheError, OSError, TimeoutError) as error:
            log.warning("command %d: state not read: %s", command.id, error)
            return None

    async def _look(self, command: Command, *, read: bool = True) -> Seen:
        """What the field says now; what it does not say is None."""
        switch = await self._read(command) if read else None
        now, device = self._now(), command.device_id
        try:
            return Seen(
                now_us=now,
                power=self._field.power(device, now, max(MIN15_S, self._config.power_before_s)),
                switch=switch,
                online=self._field.online(device),
                clock_offset_s=self._field.clock_offset_s(device),
                facts=self._field.facts(device),
            )
        except FuheError as error:
            log.warning("command %d: %s", command.id, error)
            return Seen(now_us=now, power=EMPTY, switch=switch, online=None, clock_offset_s=None, facts=None)

    async def _operate(self, command: Command, action: ControlAction) -> tuple[ControlAnswer | None, str]:
        """One conversation, never repeated. None = it broke off, and then nothing is known."""
        try:
            answer = await self._field.operate(command.device_id, action)
        except (FuheError, OSError, TimeoutError) as error:
            return None, str(error)
        if answer.action_id != action.id:
            return None, tr("the answer belongs to another command", "应答属于另一命令")
        return answer, ""

    async def _checking(self, command: Command) -> Command:
        seen = await self._look(command, read=not self.reason)
        return await self._db(steps.check, seen.now_us, command.id, seen, self._config, self.reason)

    async def _selected(self, command: Command) -> Command:
        seen = await self._look(command)
        sent = await self._db(steps.commit_send, seen.now_us, command.id, seen, self._config, self.reason)
        if sent.state is not State.SENT:
            return sent
        answer, fault = await self._operate(sent, steps.trip_action(sent))
        return await self._db(steps.record_trip, self._now(), command.id, answer, fault)

    async def _unknown(self, command: Command) -> Command:
        if not self._due(command):
            return command
        switch = await self._read(command)
        return await self._db(steps.resolve, self._now(), command.id, switch, self._config)

    async def _acked(self, command: Command) -> Command:
        return await self._db(steps.begin_alarm, self._now(), command.id)

    async def _alarming(self, command: Command) -> Command:
        if command.cancel_wanted_at is not None and command.cancel_sent_at is None:
            wanted = await self._db(steps.commit_cancel, self._now(), command.id)
            if wanted.cancel_sent_at is not None and wanted.state is State.ALARMING:
                action = steps.close_action(wanted, "cancel", self._now(), self._config)
                answer, fault = await self._operate(wanted, action)
                switch = await self._read(wanted)
                return await self._db(steps.record_cancel, self._now(), command.id, answer, switch, fault)
        if self._now() < steps.act_us(command):
            return command
        return await self._db(steps.end_alarm, self._now(), command.id, self._config)

    async def _verifying(self, command: Command) -> Command:
        if not self._due(command):
            return command
        seen = await self._look(command)
        return await self._db(steps.verify, seen.now_us, command.id, seen, self._config)

    async def _holding(self, command: Command) -> Command:
        if not self._due(command):
            return command
        seen = await self._look(command)
        return await self._db(steps.supervise, seen.now_us, command.id, seen, self._config)

    async def _releasing(self, command: Command) -> Command:
        if command.release_sent_at is None:
            if not self._due(command) or not await self._db(steps.release_due, self._now(), command, self._config):
                return command
            seen = await self._look(command, read=False)
            if not await self._db(steps.commit_release, seen.now_us, command.id, seen, self._config):
                return command
            action = steps.close_action(command, "release", self._now(), self._config)
            answer, fault = await self._operate(command, action)
            return await self._db(steps.record_release, self._now(), command.id, answer, fault)
        if not self._due(command):
            return command
        switch = await self._read(command)
        return await self._db(steps.resolve_release, self._now(), command.id, switch, self._config)

    async def _released(self, command: Command) -> Command:
        if not self._due(command):
            return command
        seen = await self._look(command)
        return await self._db(steps.restored, seen.now_us, command.id, seen, self._config)

    async def _restored(self, command: Command) -> Command:
        return await self._db(steps.close, self._now(), command.id)

    _DRIVES: Final[dict[State, Callable[[Executor, Command], Awaitable[Command]]]] = {
        State.CHECKING: _checking,
        State.SELECTED: _selected,
        State.UNKNOWN: _unknown,
        State.ACKED: _acked,
        State.ALARMING: _alarming,
        State.VERIFYING: _verifying,
        State.EFFECTIVE: _holding,
        State.PARTIAL: _holding,
        State.INEFFECTIVE: _holding,
        State.RELEASING: _releasing,
        State.RELEASED: _released,
        State.AUTO_RELEASED: _released,
        State.RESTORED: _restored,
    }
