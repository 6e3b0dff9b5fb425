"""`fuhe run`: puts the parts together, keeps them alive, takes them apart in the order that loses nothing.

    database -> journal -> writer (thread)          readings: links -> intake -> journal -> database
        -> devices, profiles, secrets -> engine     work: scheduler, recall, requests, control -> engine -> links
        -> scheduler, recall, requests, control     status: modes, /health, /metrics, daemon_state
Stopping goes the other way round: first nothing new is asked, then the links end, then the journal is drained.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from prometheus_client import REGISTRY

from .. import __version__
from ..acquisition.clock_rules import SUSPECT
from ..acquisition.cycles import build_cycles
from ..acquisition.io.clock import SystemClock
from ..acquisition.io.engine import Engine
from ..acquisition.io.metrics import EngineMetrics
from ..acquisition.io.scheduler import CycleScheduler
from ..acquisition.ledger import curve_marks
from ..acquisition.profile import Profile
from ..acquisition.profiles import load_profiles
from ..acquisition.terminal_events import PLACES
from ..control.executor import NORMAL, Executor
from ..control.ports import PowerWindow
from ..model.devices import Device
from ..model.lang import tr
from ..model.quantities import quantity
from ..model.readings import DeviceEvent
from ..model.times import business_day
from ..model.work import Outcome, WorkItem
from ..protocols.common.errors import FuheError, LinkError, UsageError
from ..storage import partitions
from ..storage import state as states
from ..storage.database import Database
from ..storage.devices import load_devices
from ..storage.events import load_settled
from ..storage.journal import Journal
from ..storage.sink import Sink
from ..storage.writer import JournalWriter
from .cases import CaseKeeper, search
from .clocks import ClockKeeper
from .config import Config
from .events import EventFollower
from .field import EngineField
from .forecasts import PERIOD_S, SETTLE_S, ForecastCycle
from .health import HealthServer
from .intake import Intake
from .livepower import LivePower, seed_rest
from .metrics import DaemonMetrics
from .modes import Mode, ModeKeeper
from .pace import settle
from .recalls import Recalls
from .replaced import ReplacedBook
from .requests import RequestServer
from .secrets import SecretBook
from .statebook import StateBook
from .supervision import Supervision
from .terminals import TerminalBook
from .vee import VeeKeeper
from .wake import Waker

log = logging.getLogger(__name__)

REPORT_S = 2.0
CONTROL_S = 0.5
CONTROL_WAIT_S = 0.1  # of a step for its slowest device; what is still under way goes on by itself
DRAIN_S = 30.0
OPEN_ITEMS = 20_000  # that wait on all lines together (about 1 KiB each) before the cycles hold back
OPEN_ITEMS_PER_DEVICE = 4  # of large fleets, so that what waits for dead lines does not hold back the others


@contextlib.contextmanager
def sole_daemon(data_dir: Path) -> Iterator[None]:
    """Exactly one daemon a data directory (flock); UsageError names the other one."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
    with (data_dir / "daemon.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            other = file.read().strip()
            raise UsageError(
                tr(
                    f"another fuhe daemon (process {other}) works in {data_dir}: stop it or choose another data_dir",
                    f"数据目录 {data_dir} 已有守护进程 (进程 {other}): 请先停止它或更换 data_dir",
                )
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def journal_directory(config: Config) -> Path:
    """Where the journal is."""
    return Path(config.journal.directory) if config.journal.directory else config.data_dir / "journal"


def profile_directory(config: Config) -> Path | None:
    """The operator's own device profiles, if there are any."""
    directory = config.data_dir / "profiles"
    return directory if directory.is_dir() else None


def _remembered(connection: psycopg.Connection[Any]) -> list[tuple[int, str, str]]:
    """What sessions with terminals knew when it was stored (Engine.remember)."""
    return [row for prefix in (PLACES, SUSPECT) for row in load_settled(connection, prefix)]


def upkeep(database: Database, config: Config) -> None:
    """Partitions of the next days made, those behind the retention dropped, TimescaleDB's policies as configured."""
    today = business_day(time.time_ns() // 1000)
    try:
        partitions.make_ahead(database, today)
        partitions.set_policies(database, config.storage)
        dropped = partitions.drop_old(database, today, config.storage.raw_retention_days)
    except (psycopg.Error, LinkError) as error:
        log.warning("upkeep put off: %s", error)
        return
    if dropped:
        log.info("retention: partitions dropped", extra={"partitions": dropped})


def pack(database: Database, config: Config) -> None:
    """Some of the curve days that have become cold, rewritten in half the room."""
    try:
        packed = partitions.pack_cold(
            database, business_day(time.time_ns() // 1000), config.storage.compress_after_days
        )
    except (psycopg.Error, LinkError) as error:
        log.warning("packing put off: %s", error)
        return
    if packed:
        log.info("cold curve days packed", extra={"partitions": packed})


def run(config: Config, ready: Callable[[], None] = lambda: None) -> None:
    """Run until SIGTERM or SIGINT. FuheError: could not start, nothing is left running."""
    with sole_daemon(config.data_dir), contextlib.ExitStack() as stack:
        database = stack.enter_context(Database.open(config.storage))
        upkeep(database, config)
        journal = Journal(
            journal_directory(config),
            segment_bytes=config.journal.segment_mb << 20,
            max_bytes=config.journal.max_mb << 20,
        )
        stack.callback(journal.close)
        writer = JournalWriter(database, journal, retention_days=config.storage.raw_retention_days)
        thread = threading.Thread(target=writer.run, name="writer", daemon=True)
        thread.start()

        def drain() -> None:
            """What is in the journal goes to the database now, as far as that answers; the rest waits there."""
            deadline = time.monotonic() + DRAIN_S
            while journal.state().depth_records and not writer.counters.last_error and time.monotonic() < deadline:
                time.sleep(0.02)
            writer.stop()
            thread.join(timeout=DRAIN_S)

        stack.callback(drain)
        asyncio.run(Daemon(config, database, journal, writer).serve(ready))


class Daemon:
    """The parts that live on the event loop."""

    def __init__(self, config: Config, database: Database, journal: Journal, writer: JournalWriter) -> None:
        self._config, self._database, self._journal, self._writer = config, database, journal, writer
        self._clock = SystemClock()
        self._started_us = self._clock.now_us()
        self.modes = ModeKeeper(self._mode_changed)
        self._secrets = SecretBook.load(config.secrets_file)
        self._devices: dict[int, Device] = {}
        self._profiles: Mapping[str, Profile] = {}
        self._stopping = asyncio.Event()
        self._live = LivePower()
        self._intake = Intake(Sink(journal, config.journal.commit_ms), self._live, self._heard, self._saw)
        with database.connect() as connection:
            self._take(load_devices(connection), load_profiles(profile_directory(config)))
            places = _remembered(connection)
            self._live.seed(self._live.stored(connection, self._started_us), self._started_us)
        self._engine = Engine(
            config.links,
            list(self._devices.values()),
            self._profiles,
            lambda device: self._secrets.of(device),
            self._intake,
            self._clock,
            self._no_write,
            self._ended,
            secrets=self._secrets.password,
            on_heard=self._heard,
        )
        self._engine.remember(places)  # what waits in the journal is read again, and stored once
        self._field = EngineField(
            self._engine, self._live, self._clock, lambda d: self._secrets.knows(d), password_of=self._secrets.password
        )
        self._book = StateBook(database, self._engine, self._field, self._clock)
        self._terminals = TerminalBook(database, self._engine, self._clock, lambda: journal.state().depth_records)
        self._replaced = ReplacedBook(database, self._clock)
        self._recalls = Recalls(database, self._engine, config.cycles, self._clock)
        self._events = EventFollower(database, lambda: writer.caught_up, self._engine.submit, self._intake, self._clock)
        self._forecasts = ForecastCycle(database, config.storage, config.forecast, self._clock)
        self._supervision = Supervision(database, self._engine, self._field, self._clock)
        self._vee = VeeKeeper(
            database,
            self._clock,
            behind=lambda: journal.state().depth_records,
            retention_days=config.storage.raw_retention_days,
            search=lambda connection, judged: search(connection, judged, self._clock.now_us()),
        )
        self._cases = CaseKeeper(database, self._clock)
        self._scheduler = CycleScheduler(
            self._submit, now_us=self._clock.now_us, now_s=self._clock.monotonic_s, sleep=self._clock.sleep
        )
        self._clocks = ClockKeeper(
            database,
            self._engine.submit,
            self._clock,
            enabled=config.cycles.clock_set,
            may_write=lambda: not self.modes.read_only(),
        )
        self._requests = RequestServer(
            database,
            self._engine,
            self._clock,
            lambda: self._devices,
            self.reload,
            self._clocks.by_person,
            self._field.read_settings,
        )
        self._executor = Executor(
            lambda: database.connect("app", autocommit=True),
            self._field,
            config.control,
            clock_fault=lambda: self.modes.reason_without("executor"),
            anchor_file=config.data_dir / "audit-anchor.jsonl",
            wait_s=CONTROL_WAIT_S,
            holder=f"{platform.node()}:{config.data_dir.resolve()}",
        )
        self._put_into_force()
        if config.read_only:
            self.modes.raise_cause("config", Mode.READ_ONLY, tr("read_only is set", "配置为只读"))
        if not config.control.enabled:
            self.modes.raise_cause("control", Mode.NO_CONTROL, tr("control.enabled is false", "控制功能已关闭"))

    # -- life ---------------------------------------------------------------------------------------------------------

    async def serve(self, ready: Callable[[], None]) -> None:
        """Everything, until a signal; then everything back."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tasks.append(loop.create_task(self._reload_on_signal())))
        health = HealthServer(self._config.http, self._status) if self._config.http.port else None
        metrics = [
            EngineMetrics(self._engine),
            DaemonMetrics(self._journal, self._writer, self.modes, self._vee.counters),
        ]
        for collector in metrics:
            REGISTRY.register(collector)
        self._tasks: list[asyncio.Task[None]] = []
        try:
            await asyncio.to_thread(self._terminals.load)
            await self._engine.start()
            self._scheduler.start()
            self._tasks = [
                loop.create_task(work, name=name)
                for name, work in (
                    ("recall", self._recalls.run()),
                    ("requests", self._requests.run()),
                    ("events", self._events.run()),
                    ("clocks", self._clocks.run()),
                    ("control", self._control()),
                    ("supervision", self._supervision.run()),
                    ("vee", self._vee.run()),
                    ("cases", self._cases.run()),
                    ("seed", self._seed()),
                    ("terminals", self._terminals.run()),
                    ("replaced", self._replaced.run()),
                    ("report", self._report(health)),
                )
            ]
            settle()
            log.info("running", extra={"devices": len(self._devices), "links": len(self._config.links)})
            ready()
            await self._until_stopped()
        finally:
            self.modes.raise_cause("stop", Mode.STOPPED, tr("stopped by an operator", "已由操作员停止"))
            await self._scheduler.stop()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._terminals.write()
            await self._replaced.write(everything=True)
            await self._engine.stop()
            await self._book.write(self._state(), everything=True)
            for collector in metrics:
                REGISTRY.unregister(collector)
            if health is not None:
                health.close()
            log.info("stopped")

    async def _until_stopped(self) -> None:
        """Waits for the signal; a part that ends by a fault of ours ends the daemon (systemd starts it again)."""
        stop = asyncio.ensure_future(self._stopping.wait())
        done, _ = await asyncio.wait({stop, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for task in done - {stop}:
            task.result()

    # -- archive ------------------------------------------------------------------------------------------------------

    async def reload(self) -> str:
        """Take over devices and profiles as they are in the database now."""

        def read() -> tuple[list[Device], dict[str, Profile], list[tuple[int, str, str]]]:
            with self._database.connect() as connection:
                profiles = load_profiles(profile_directory(self._config))
                return load_devices(connection), profiles, _remembered(connection)

        devices, profiles, places = await asyncio.to_thread(read)
        build_cycles(devices, profiles, self._config.cycles)  # a fault here leaves the old archive in force
        self._take(devices, profiles)
        self._engine.remember(places)
        unserved = await self._engine.set_devices(devices, profiles)
        self._put_into_force()
        for device, why in unserved.items():
            log.warning("device %s is not served: %s", self._devices[device].name, why)
        return tr(f"{len(devices)} devices in force", f"{len(devices)} 个设备已生效")

    async def _reload_on_signal(self) -> None:
        try:
            log.info(await self.reload())
        except FuheError as error:
            log.error("reload refused, the archive before stays in force: %s", error)

    def _take(self, devices: Sequence[Device], profiles: Mapping[str, Profile]) -> None:
        self._devices, self._profiles = {d.id: d for d in devices}, profiles
        self._intake.set_devices(devices)
        for name in self._secrets.missing(list(devices)):
            log.warning("secret %s is not in the secrets file: devices that need it will refuse", name)

    def _put_into_force(self) -> None:
        devices = list(self._devices.values())
        self._field.set_devices(devices, self._profiles)
        self._recalls.set_devices(devices, self._profiles)
        self._writer.marks = frozenset(quantity(n).id for n in curve_marks(self._profiles.values()))
        self._events.set_devices(devices, self._profiles)
        self._clocks.set_devices(devices, self._profiles)
        self._scheduler.replace(build_cycles(devices, self._profiles, self._config.cycles))
        if self._config.cycles.gap_scan_s:
            self._scheduler.every("gap-scan", self._config.cycles.gap_scan_s, self._recalls.scan)
        if self._forecasts.wanted:
            self._scheduler.every("forecast", PERIOD_S, self._forecasts.step, offset_s=SETTLE_S)
        self._scheduler.every("upkeep", 6 * 3600, lambda: asyncio.to_thread(upkeep, self._database, self._config))
        self._scheduler.every("pack", 3600, lambda: asyncio.to_thread(pack, self._database, self._config))

    def power(self, device_id: int, now_us: int, back_s: int) -> PowerWindow:
        """What control sees of a device's power."""
        return self._field.power(device_id, now_us, back_s)

    # -- work ---------------------------------------------------------------------------------------------------------

    async def _submit(self, items: Sequence[WorkItem]) -> None:
        """Cycles' items to the links; waits while the journal is behind or too much waits on the lines already."""
        most = max(OPEN_ITEMS, OPEN_ITEMS_PER_DEVICE * len(self._devices))
        while self._engine.full or self._engine.open_items >= most:
            await self._clock.sleep(0.1)
        for item in items:
            self._engine.submit(item)

    def _ended(self, item: WorkItem, outcome: Outcome) -> None:
        if item.recall_id is not None:
            self._recalls.ended(item, outcome)
        self._events.ended(item, outcome)
        self._clocks.ended(item, outcome)

    def _saw(self, event: DeviceEvent) -> None:
        self._field.saw(event)
        self._replaced.saw(event)

    def _no_write(self) -> bool:
        """No byte of a write may leave: the mode says so, or another daemon may be in control by now."""
        return self.modes.read_only() or not self._executor.lease.fresh()

    def _heard(self, device: int, time_us: int, clock_offset_s: float | None) -> None:
        self._field.note(device, time_us, clock_offset_s)

    async def _seed(self) -> None:
        """The power of the last minutes that only the journal had; then nothing until the end."""
        await seed_rest(self._live, self._database, lambda: self._writer.caught_up, self._clock)
        await self._stopping.wait()

    async def _control(self) -> None:
        """The executor keeps its own faults (mode NO-CONTROL with the reason); they are shown among the daemon's."""
        waker = Waker(self._database)
        waker.start()
        try:
            while True:
                await self._executor.step(self._clock.now_us())
                if self._executor.mode == NORMAL:
                    self.modes.clear_cause("executor")
                elif not self.modes.reason_without("executor"):
                    self.modes.raise_cause("executor", Mode.NO_CONTROL, self._executor.reason)
                await waker.wait(CONTROL_S)
        finally:
            await waker.stop()
            await self._executor.close()

    # -- status -------------------------------------------------------------------------------------------------------

    async def _report(self, health: HealthServer | None) -> None:
        while True:
            if health is not None:
                health.beat()
            journal = self._journal.state()
            if journal.failing:
                text = tr("the journal's disk refuses", "日志磁盘拒绝写入")
                self.modes.raise_cause("journal", Mode.NO_CONTROL, text)
            else:
                self.modes.clear_cause("journal")
            try:
                await self._book.write(self._state())
                self.modes.clear_cause("database")
            except (psycopg.Error, LinkError) as error:
                self.modes.raise_cause(
                    "database", Mode.NO_CONTROL, tr(f"database away: {error}", f"数据库不可用: {error}".strip())
                )
            await self._clock.sleep(REPORT_S)

    def _status(self) -> dict[str, object]:
        journal, counters = self._journal.state(), self._writer.counters
        return {
            "mode": self.modes.mode.name,
            "reason": self.modes.reason,
            "version": __version__,
            "pid": os.getpid(),
            "started_us": self._started_us,
            "devices": len(self._devices),
            "journal_records": journal.depth_records,
            "journal_bytes": journal.depth_bytes,
            "journal_oldest_s": round(journal.oldest_s, 3),
            "samples_written": counters.samples,
            "curve_rows_written": counters.curve_rows,
            "database_outages": counters.outages,
            "vee_waiting": self._vee.counters.waiting,
            "vee_oldest_s": round(self._vee.counters.oldest_s, 1),
            "timescaledb": self._database.timescale,
        }

    def _state(self) -> states.DaemonState:
        return states.DaemonState(
            name="main",
            mode=self.modes.mode.name,
            reason=self.modes.reason,
            started_us=self._started_us,
            heartbeat_us=self._clock.now_us(),
            detail=self._status(),
        )

    def _mode_changed(self, mode: Mode, reason: str) -> None:
        log.warning("mode %s", mode.name, extra={"reason": reason})
