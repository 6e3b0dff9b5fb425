"""The daemon's part of control: drives live commands one step further (domain 9.3, 9.7, 8.11).

It never begins a trip: a command gets to CHECKING only by a person's `execute`, signed before by as many people as
its kind needs.

For every frame: transaction with audit record and new state, commit, frame, transaction with the answer. Transactions
of many commands are one (groups.py), devices go side by side, and a slow device holds back nobody but itself. If any of
it fails, the state in the database claims no more than "may have been sent", and the device's state is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg

from ..model.control import ControlAction, ControlAnswer, Spot, SwitchState
from ..model.lang import tr
from ..model.times import US, from_us, to_us
from ..protocols.common.errors import FuheError, LinkError
from . import audit, holding, orders, steps
from .anchors import sign, signing_key
from .command import LIVE_SQL, Command, Work, by_ids
from .config import ControlConfig
from .evidence import MIN15_S, Seen
from .groups import Groups, Step
from .lease import Lease, since_boot_s
from .pace import Pace
from .ports import Epoch, Field, PowerWindow
from .records import Conn
from .rules.kinds import Use
from .rules.states import State

log = logging.getLogger(__name__)

RETURNED_US: Final = 5 * US
MOVES: Final = 14
NORMAL, NO_CONTROL = "NORMAL", "NO-CONTROL"
EMPTY: Final = PowerWindow(np.zeros(0, np.int64), np.zeros(0, np.float64), np.zeros(0, np.int16))
# Looked at when their next_check_at says so.
_BY_TIME: Final = frozenset(
    {State.UNKNOWN, State.VERIFYING, State.EFFECTIVE, State.PARTIAL, State.INEFFECTIVE, State.RELEASING}
    | {State.RELEASED, State.AUTO_RELEASED}
)
_WAITING: Final = frozenset({State.SUBMITTED, State.APPROVED, State.BLOCKED, State.RELEASED_SELECT})
# What may leave only for a device whose present life is known (9.6).
_NEEDS_KNOWN: Final = frozenset({State.CHECKING, State.SELECTED, State.SET})


def _check_tail(conn: Conn) -> None:
    """The last audit record must be as it was written; LinkError otherwise (the whole chain: `fuhe audit verify`)."""
    for record in audit.read(conn, last=1):
        if audit.record_hash(record) != record.hash:
            raise LinkError(tr(f"audit record {record.seq} was changed", f"审计记录 {record.seq} 被改"))


@dataclass(frozen=True, slots=True)
class Due:
    """A live command that has something to do now. contact: input of its round's feedback contact, 0 = none."""

    id: int
    device: int
    state: State
    contact: int


def _due(conn: Conn, now_us: int, expired_us: int, *, first: bool) -> list[Due]:
    """The live commands that have something to do now, in their order. expired_us: submitted before it is too late."""
    rows = conn.execute(
        "SELECT c.id, c.device_id, c.state, coalesce(r.contact, 0) FROM command c "
        "LEFT JOIN round r ON c.scope = 'round' AND r.device_id = c.device_id AND r.round = c.round "
        f"WHERE {LIVE_SQL} AND CASE "
        "WHEN state = ANY(%(waiting)s) THEN not_after <= %(now)s OR (state = 'SUBMITTED' AND submitted_at < %(late)s) "
        "WHEN state = 'ALARMING' AND NOT %(first)s THEN (cancel_wanted_at IS NOT NULL AND cancel_sent_at IS NULL) "
        "OR sent_at + alarm_min * interval '1 minute' <= %(now)s "
        "WHEN state = ANY(%(timed)s) THEN (next_check_at IS NULL OR next_check_at <= %(now)s) "
        "AND (state <> 'RELEASING' OR release_sent_at IS NOT NULL OR release_not_before IS NULL "
        "OR release_not_before <= %(now)s) "
        "ELSE true END ORDER BY c.position NULLS FIRST, c.id".encode(),
        {
            "waiting": [s.value for s in _WAITING], "timed": [s.value for s in _BY_TIME], "first": first,
            "now": from_us(now_us), "late": from_us(expired_us),
        },
    ).fetchall()  # fmt: skip
    return [Due(int(i), int(d), State(s), int(contact)) for i, d, s, contact in rows]


def _held_commands(conn: Conn, device_id: int) -> list[int]:
    """Live commands of a device that were sent."""
    query = f"SELECT id FROM command WHERE device_id = %s AND sent_at IS NOT NULL AND {LIVE_SQL} ORDER BY id"
    return [int(r[0]) for r in conn.execute(query.encode(), (device_id,)).fetchall()]


def _controllable(conn: Conn) -> list[int]:
    """Devices that have rounds."""
    return [int(r[0]) for r in conn.execute("SELECT DISTINCT device_id FROM round").fetchall()]


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
        wait_s: float | None = None,
        holder: str = "local",
        since_boot_s: Callable[[], float] = since_boot_s,
    ) -> None:
        """`connect`: an autocommit connection as fuhe_app; `clock_fault`: why nothing may be tripped although the
        database is well (clock, the daemon's own mode), or ''; `elapsed`: monotonic seconds; `anchor_file`: where the
        audit's count and last hash are written now and then; `wait_s`: how long a step waits for slow devices, None =
        until the last one (what is still under way goes on, and the next step leaves it alone); `holder`,
        `since_boot_s`: see `Lease`."""
        self._field, self._config = field, config
        self._clock_fault, self._elapsed, self._anchor_file = clock_fault, elapsed, anchor_file
        self._wait_s = wait_s
        self.lease = Lease(connect, holder, config.lease_s, since_boot_s)
        self._groups = Groups(self.lease, self._now, config.group_commands)
        self._pace = Pace(config.pace_per_s)
        self._lock = asyncio.Lock()
        self._started = False
        self._start_us = self._last_us = 0
        self._t0 = 0.0
        self._anchored = (0, 0)
        self._recorded_mode: tuple[str, str] = (NORMAL, "")
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._failure: BaseException | None = None
        self._epochs: dict[int, Epoch] = {}
        self._contacts: dict[int, int] = {}
        self._returned_us = 0
        self.mode = NO_CONTROL
        self.reason = tr("not started", "未启动")
        c = config
        # One object a step: what several commands ask at the same time goes into one transaction by it.
        self._steps: dict[str, Step] = {
            "recover": lambda w, i: steps.recover(w, i, c),
            "check": lambda w, i: steps.check(w, i, c, self.reason),
            "refuse": steps.refuse,
            "commit_set": lambda w, i: steps.commit_set(w, i, c, self.reason),
            "record_set": steps.record_set,
            "commit_send": lambda w, i: steps.commit_send(w, i, c, self.reason),
            "record_answer": self._record_answer,
            "resolve": lambda w, i: steps.resolve(w, i, c),
            "begin_alarm": holding.begin_alarm,
            "end_alarm": lambda w, i: holding.end_alarm(w, i, c),
            "commit_cancel": holding.commit_cancel,
            "record_cancel": holding.record_cancel,
            "verify": lambda w, i: holding.verify(w, i, c),
            "supervise": lambda w, i: holding.supervise(w, i, c),
            "commit_release": lambda w, i: holding.commit_release(w, i, c),
            "record_release": holding.record_release,
            "resolve_release": lambda w, i: holding.resolve_release(w, i, c),
            "restored": lambda w, i: holding.restored(w, i, c),
            "close": holding.close,
        }

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
                waiting = await self._begin(now_us)
                fault = tr("the clock went backwards", "时钟倒退") if backwards else self._clock_fault()
                if not self._config.enabled:
                    fault = tr("control is switched off in the configuration", "配置中关闭了控制")
                self._set_mode(fault)
                await self._groups.alone(self._record_mode, now_us)
                await self._drive_all(waiting)
                await self._groups.alone(self._anchor, now_us)
            except (psycopg.Error, FuheError) as error:
                await self._settle()
                self._groups.drop_connection()
                self._started = False  # what this life knew of CHECKING and ALARMING is no longer certain
                self._set_mode(tr(f"database or audit: {error}", f"数据库或审计: {error}"))

    async def close(self) -> None:
        """Give the lease and the connection back. What is under way is left to the next life, which reads states."""
        async with self._lock:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            if self._started:
                with contextlib.suppress(psycopg.Error, FuheError):
                    await self._groups.alone(self._anchor, self._now(), always=True)
            self._groups.close()

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
            with Work(conn, now_us) as work:
                steps.record_mode(work, self.mode, self.reason)
            self._recorded_mode = (self.mode, self.reason)

    # -- database -----------------------------------------------------------------------------------------------------

    async def _do(self, name: str, command: Command | int, item: Any = None) -> Command:
        return await self._groups.run(self._steps[name], command if isinstance(command, int) else command.id, item)

    async def _begin(self, now_us: int) -> list[Due]:
        """Recovery, expiry, reminders; what has something to do afterwards. At a start the audit's tail must be sound.

        Devices that are still busy from an earlier step are left alone.
        """
        first = not self._started
        if first:
            await self._groups.alone(_check_tail)
        self._reap()
        late_us = now_us - self._config.approval_within_s * US
        found = await self._groups.alone(_due, now_us, late_us, first=first)
        looked_at = steps.RECOVERABLE - (frozenset() if first else {State.CHECKING, State.ALARMING})
        old = [d.id for d in found if d.state in looked_at and d.device not in self._tasks]
        await asyncio.gather(*(self._do("recover", i, first) for i in old))
        self._started = True
        for order_id, text in await self._groups.alone(holding.ending_orders, now_us):
            await self._groups.alone(orders.remind_of_end, now_us, order_id, text)
        if old:
            found = await self._groups.alone(_due, now_us, late_us, first=False)
        return [d for d in found if d.state in self._DRIVES and d.device not in self._tasks]

    def _anchor(self, conn: Conn, now_us: int, *, always: bool = False) -> None:
        """Every `anchor_s`, soon after the first record of this life, and at its end."""
        if self._anchor_file is None:
            return
        last_us, last_seq = self._anchored
        if last_seq and not always and now_us - last_us < self._config.anchor_s * US:
            return
        anchor = audit.head(conn, now_us)
        if anchor.seq != last_seq:
            key = signing_key(self._anchor_file.with_suffix(".key"))
            audit.write_anchor(self._anchor_file, sign(anchor, key))
        self._anchored = (now_us, anchor.seq)

    # -- devices side by side -----------------------------------------------------------------------------------------

    async def _drive_all(self, waiting: list[Due]) -> None:
        """A task a device, the commands of one device one after the other."""
        groups: dict[int, list[Due]] = defaultdict(list)
        for due in waiting:
            groups[due.device].append(due)
        for device_id in await self._come_back(groups):
            groups[device_id] = []
        full = {c.id: c for c in await self._groups.alone(by_ids, [d.id for d in waiting])}
        for device_id, dues in groups.items():
            found = [(full[d.id], d.contact) for d in dues if d.id in full]
            self._tasks[device_id] = asyncio.ensure_future(self._device(device_id, found))
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()), timeout=self._wait_s)
        self._reap()

    def _reap(self) -> None:
        """Take leave of finished tasks; the first fault of any is raised."""
        for device_id in [d for d, task in self._tasks.items() if task.done()]:
            task = self._tasks.pop(device_id)
            error = None if task.cancelled() else task.exception()
            self._failure = self._failure or error
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    async def _settle(self) -> None:
        """All tasks to their end, whatever it is."""
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()))
        self._tasks.clear()
        self._failure = None

    async def _device(self, device_id: int, found: list[tuple[Command, int]]) -> None:
        known = await self._reconciled(device_id)
        for command, contact in found:
            if known or command.state not in _NEEDS_KNOWN or command.rule.use in (Use.SAFE, Use.CLEAR):
                self._contacts[command.id] = contact
                try:
                    await self._drive(command)
                finally:
                    del self._contacts[command.id]

    async def _drive(self, command: Command) -> None:
        """Along the table until nothing more happens now; bounded."""
        if command.state is State.CHECKING and command.rule.use in (Use.TRIP, Use.LIFT, Use.PARAMETER):
            await self._turn()
        for _ in range(MOVES):
            drive = self._DRIVES.get(command.state)
            if drive is None:
                return
            after = await drive(self, command)
            if after.state is command.state:
                return
            command = after

    async def _turn(self) -> None:
        """Wait for this command's turn at the configured pace."""
        wait_s = self._pace.turn(time.monotonic()) - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _due(self, command: Command) -> bool:
        return command.next_check_at is None or self._now() >= to_us(command.next_check_at)

    # -- a device that came back --------------------------------------------------------------------------------------

    async def _come_back(self, busy: Mapping[int, object]) -> list[int]:
        """Devices with rounds whose session began anew and that nothing else is done with now; a few a step."""
        if self._now() - self._returned_us < RETURNED_US:
            return []
        self._returned_us = self._now()
        found = []
        for device_id in await self._groups.alone(_controllable):
            if device_id in busy or device_id in self._tasks:
                continue
            epoch = self._field.epoch(device_id)
            if epoch is not None and self._epochs.get(device_id) != epoch:
                found.append(device_id)
                if len(found) >= self._config.reconcile_devices:
                    self._returned_us = 0  # there may be more
                    break
        return found

    async def _reconciled(self, device_id: int) -> bool:
        """True if the device's present life is known: its state was read and compared with the commands (9.6)."""
        epoch = self._field.epoch(device_id)
        if epoch is None or self._epochs.get(device_id) == epoch:
            return True
        ids = await self._groups.alone(_held_commands, device_id)
        commands = await self._groups.alone(by_ids, ids)
        switch = await self._read_spot(device_id, commands[0].spot() if commands else Spot())
        why = epoch.why or tr("the terminal came back", "终端重新上线")

        def compare(conn: Conn) -> None:
            with Work(conn, self._now(), ids) as work:
                holding.reconcile_device(work, device_id, switch, why)

        if switch is not None or commands:
            await self._groups.alone(compare)
        if switch is not None:
            self._epochs[device_id] = epoch
        return switch is not None

    # -- questions and frames -----------------------------------------------------------------------------------------

    async def _read_spot(self, device_id: int, spot: Spot) -> SwitchState | None:
        try:
            return await self._field.read_state(device_id, spot)
        except (FuheError, OSError, TimeoutError) as error:
            log.warning("device %d: state not read: %s", device_id, error)
            return None

    async def _read(self, command: Command) -> SwitchState | None:
        return await self._read_spot(command.device_id, command.spot(self._contacts.get(command.id, 0)))

    async def _look(self, command: Command, *, read: bool = True) -> Seen:
        """What the field says now; what it does not say is None."""
        switch = await self._read(command) if read else None
        now, device = self._now(), command.device_id
        try:
            return Seen(
                now_us=now,
                power=self._field.power(device, now, max(MIN15_S, self._config.power_before_s), command.spot().group),
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
        if not self.lease.fresh():
            why = tr("not sent: the control lease is no longer certain", "未发送: 控制权已不确定")
            return ControlAnswer(action_id=action.id, sent=False, acknowledged=None, refusal=why), ""
        try:
            answer = await self._field.operate(command.device_id, action)
        except (FuheError, OSError, TimeoutError) as error:
            return None, str(error)
        if answer.action_id != action.id:
            return None, tr("the answer belongs to another command", "应答属于另一命令")
        return answer, ""

    # -- states -------------------------------------------------------------------------------------------------------

    async def _checking(self, command: Command) -> Command:
        checked = await self._do("check", command, await self._look(command, read=not self.reason))
        return await self._fire(checked) if checked.state is State.SENT else checked

    async def _selected(self, command: Command) -> Command:
        seen = await self._look(command)
        if command.rule.settings:
            return await self._write_settings(command, seen)
        return await self._engage(command, seen)

    async def _write_settings(self, command: Command, seen: Seen) -> Command:
        """Parameters first: what is to stand in the device is planned, recorded, written and read back."""
        try:
            wanted = steps.set_action(command, self._now(), self._config).settings
            wanted = wanted or self._field.settings(command.device_id, steps.plan_action(command, self._now()))
        except FuheError as error:
            return await self._do("refuse", command, str(error))
        setting = await self._do("commit_set", command, (seen, wanted))
        if setting.state is not State.SETTING:
            return setting
        found = await self._operate(setting, steps.set_action(setting, self._now(), self._config))
        return await self._do("record_set", command, found)

    async def _set(self, command: Command) -> Command:
        return await self._engage(command, await self._look(command))

    async def _engage(self, command: Command, seen: Seen) -> Command:
        sent = await self._do("commit_send", command, seen)
        return await self._fire(sent) if sent.state is State.SENT else sent

    async def _fire(self, sent: Command) -> Command:
        """The frame of a command that was committed as SENT a moment ago, and what came of it."""
        return await self._do("record_answer", sent, await self._operate(sent, steps.engage_action(sent)))

    def _record_answer(self, work: Work, items: steps.Items) -> None:
        """The answer; an alarm begins with it, and one of no minutes ends with it."""
        steps.record_answer(work, items)
        holding.begin_alarm(work, items)
        holding.end_alarm(work, items, self._config)

    async def _unknown(self, command: Command) -> Command:
        if not self._due(command):
            return command
        return await self._do("resolve", command, await self._read(command))

    async def _acked(self, command: Command) -> Command:
        return await self._do("begin_alarm", command)

    async def _alarming(self, command: Command) -> Command:
        if command.cancel_wanted_at is not None and command.cancel_sent_at is None:
            wanted = await self._do("commit_cancel", command)
            if wanted.cancel_sent_at is not None and wanted.state is State.ALARMING:
                action = steps.close_action(wanted, "cancel", self._now(), self._config)
                answer, fault = await self._operate(wanted, action)
                switch = await self._read(wanted)
                return await self._do("record_cancel", command, (answer, switch, fault))
        if self._now() < command.act_us:
            return command
        return await self._do("end_alarm", command)

    async def _verifying(self, command: Command) -> Command:
        if not self._due(command):
            return command
        return await self._do("verify", command, await self._look(command))

    async def _holding(self, command: Command) -> Command:
        if not self._due(command):
            return command
        return await self._do("supervise", command, await self._look(command))

    async def _releasing(self, command: Command) -> Command:
        if command.release_sent_at is None:
            if not self._due(command):
                return command
            wanted = await self._do("commit_release", command, await self._look(command, read=False))
            if wanted.state is not State.RELEASING or wanted.release_sent_at is None:
                return wanted
            action = steps.close_action(command, "release", self._now(), self._config)
            return await self._do("record_release", command, await self._operate(command, action))
        if not self._due(command):
            return command
        return await self._do("resolve_release", command, await self._read(command))

    async def _released(self, command: Command) -> Command:
        if not self._due(command):
            return command
        return await self._do("restored", command, await self._look(command))

    async def _restored(self, command: Command) -> Command:
        return await self._do("close", command)

    _DRIVES: Final[dict[State, Callable[[Executor, Command], Awaitable[Command]]]] = {
        State.CHECKING: _checking,
        State.SELECTED: _selected,
        State.SET: _set,
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
