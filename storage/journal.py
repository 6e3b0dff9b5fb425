"""The journal: what is acknowledged to a device is in it, fsynced; what the database has committed is dropped from it.

Append-only segments (segments.py), one thread that commits in groups (fdatasync; the directory is fsynced when a file
appears or goes). Bounded in bytes and records: when full, or when the disk refuses, `append` fails with JournalFull and
nothing may be acknowledged. After a failed write or fsync the file is abandoned at its last durable byte and the group
is rewritten into a new segment; if that fails too, the group is refused and appends are refused until a retry works.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from ..model.lang import tr
from ..protocols.common.errors import LinkError, UsageError
from .segments import RECORD_MAX, Damage, Good, numbers_in, pack, path_of, records

log = logging.getLogger(__name__)

GROUP_MAX: Final = 4 << 20  # bytes written and synced at once
RETRY_S: Final = 1.0  # how long appends are refused after the disk refused


class JournalFull(LinkError):
    """The journal cannot take the record: do not acknowledge it to the device, read it again later."""


class Position(NamedTuple):
    """A place between two records: segment number and byte in it."""

    segment: int
    offset: int


class Disk(Protocol):
    """The system calls that can fail; tests put a failing one in their place."""

    def open(self, path: Path) -> int:
        """Create and open a segment for appending."""

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of it."""

    def sync(self, descriptor: int) -> None:
        """Make the file's data durable."""


class RealDisk:
    """The operating system."""

    def open(self, path: Path) -> int:
        """Create a new file; its name is durable when this returns."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        sync_directory(path.parent)
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of `data` (a short write is continued)."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, descriptor: int) -> None:
        """fdatasync."""
        os.fdatasync(descriptor)


def sync_directory(directory: Path) -> None:
    """Make created, renamed and removed names durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class JournalState:
    """Figures for metrics. depth: durable bytes and records not yet released; oldest_s: age of the oldest of them."""

    depth_bytes: int
    depth_records: int
    pending_records: int
    oldest_s: float
    segments: int
    refused: int
    damaged_bytes: int
    damaged_places: int
    failing: bool


@dataclass(frozen=True, slots=True)
class _Mark:
    """A durable group that is not yet released: its end in the segment, its size, when it became durable."""

    end: int
    size: int
    records: int
    time: float


@dataclass(slots=True)
class _Segment:
    number: int
    size: int = 0  # durable bytes
    marks: deque[_Mark] = field(default_factory=deque)


class Journal:
    """An open journal directory; exactly one process at a time."""

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = 64 << 20,
        max_bytes: int = 4096 << 20,
        max_records: int = 5_000_000,
        clock: Callable[[], float] = time.monotonic,
        disk: Disk | None = None,
    ) -> None:
        """`clock`: monotonic seconds, for ages and for the retry after a refusal of the disk."""
        self.directory = directory
        self._segment_bytes, self._max_bytes, self._max_records = segment_bytes, max_bytes, max_records
        self._clock, self._disk = clock, disk or RealDisk()
        self._lock = threading.Condition()
        self._readable = threading.Event()
        self._pending: deque[tuple[bytes, Future[Position]]] = deque()
        self._pending_bytes = self._depth_bytes = self._depth_records = 0
        self._segments: dict[int, _Segment] = {}  # ascending; the newest is never removed: it carries the numbering on
        self._file: int | None = None  # the newest segment, open for appending
        self._next = 1
        self._refused = self._damaged_bytes = 0
        self._damaged: set[Position] = set()
        self._failing_until: float | None = None
        self._closing = False
        self._held: int | None = None
        self.known = False  # set by the writer once the database's position was found to be one of ours
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.id = self._identity()
            self._recover()
        except OSError as error:
            raise LinkError(
                tr(f"cannot open the journal {directory}: {error}", f"无法打开日志 {directory}: {error}")
            ) from error
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def _identity(self) -> uuid.UUID:
        """The journal's own name (its positions in the database are kept under it); locked while open."""
        path = self.directory / "journal.id"
        self._held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._held)
            raise UsageError(
                tr(
                    f"another process uses the journal {self.directory}: is `fuhe run` already running?",
                    f"另一进程正在使用日志 {self.directory}：fuhe run 是否已在运行？",
                )
            ) from None
        text = os.pread(self._held, 64, 0).decode("ascii", "replace").strip()
        try:
            return uuid.UUID(text)
        except ValueError:
            return self._write_name(self._held)

    def _write_name(self, descriptor: int) -> uuid.UUID:
        made = uuid.uuid4()
        os.pwrite(descriptor, f"{made}\n".encode(), 0)
        os.ftruncate(descriptor, 37)
        os.fsync(descriptor)
        sync_directory(self.directory)
        return made

    def _recover(self) -> None:
        """Take up the segments of the last run; the torn tail of the newest one was never acknowledged: cut it."""
        numbers = numbers_in(self.directory)
        for number in numbers:
            path = path_of(self.directory, number)
            data = path.read_bytes()
            size, count = len(data), 0
            for item in records(data):
                if isinstance(item, Good):
                    count += 1
                elif item.tail and number == numbers[-1]:
                    log.warning("journal: %d torn bytes cut from the end of %s", item.end - item.start, path)
                    size = item.start
                    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                    try:
                        os.ftruncate(descriptor, size)
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
            segment = _Segment(number, size)
            if size:
                segment.marks.append(_Mark(size, size, count, self._clock()))
            self._segments[number] = segment
            self._depth_bytes += size
            self._depth_records += count
        self._next = max(numbers, default=0) + 1
        self.end_at_open = Position(numbers[-1], self._segments[numbers[-1]].size) if numbers else Position(0, 0)
        if self._depth_records:
            self._readable.set()

    # ------------------------------------------------------------------ appending

    def append(self, payload: bytes) -> Future[Position]:
        """Queue a record; the future is resolved with its end when it is durable, or fails with JournalFull."""
        future: Future[Position] = Future()
        if not payload or len(payload) > RECORD_MAX:
            raise UsageError(f"a journal record holds 1 to {RECORD_MAX} bytes, not {len(payload)}")
        record = pack(payload)
        with self._lock:
            reason = self._refusal(len(record))
            if reason is None:
                self._pending.append((record, future))
                self._pending_bytes += len(record)
                self._lock.notify_all()
                return future
            self._refused += 1
        future.set_exception(JournalFull(reason))
        return future

    def _refusal(self, size: int) -> str | None:
        if self._closing:
            return tr("the journal is closed", "日志已关闭")
        if self._failing_until is not None and self._clock() < self._failing_until:
            return tr(
                f"the journal cannot be written (disk full?): free space on {self.directory}",
                f"日志无法写入（磁盘已满？）：请清理 {self.directory} 所在磁盘",
            )
        if (
            self._depth_bytes + self._pending_bytes + size > self._max_bytes
            or self._depth_records + len(self._pending) >= self._max_records
        ):
            return tr(
                f"the journal is full ({self._depth_bytes >> 20} MB not yet in the database): is the database down?",
                f"日志已满（{self._depth_bytes >> 20} MB 尚未入库）：数据库是否停止？",
            )
        return None

    def _run(self) -> None:
        """The writing thread: everything that waits when it is free becomes one group."""
        while True:
            with self._lock:
                while not self._pending and not self._closing:
                    self._lock.wait()
                if not self._pending:
                    return
                group, size = [], 0
                while self._pending and size < GROUP_MAX:
                    group.append(self._pending.popleft())
                    size += len(group[-1][0])
            self._commit(group)

    def _commit(self, group: list[tuple[bytes, Future[Position]]]) -> None:
        data = b"".join(record for record, _ in group)
        error: OSError | None = None
        for _ in range(2):  # after a failure the group is rewritten once, into a new segment
            try:
                segment = self._writable(len(data))
                assert self._file is not None
                self._disk.write(self._file, data)
                self._disk.sync(self._file)
            except OSError as caught:
                error = caught
                self._abandon()
                continue
            self._settle(segment, group, len(data))
            return
        log.error("journal: %s; %d records refused", error, len(group))
        with self._lock:
            self._pending_bytes -= len(data)
            self._refused += len(group)
            self._failing_until = self._clock() + RETRY_S
        for _, future in group:
            future.set_exception(JournalFull(tr(f"the journal cannot be written: {error}", f"日志无法写入: {error}")))

    def _settle(self, segment: _Segment, group: list[tuple[bytes, Future[Position]]], size: int) -> None:
        """The group is durable: first readable, then told."""
        at = segment.size
        with self._lock:
            segment.size += size
            segment.marks.append(_Mark(segment.size, size, len(group), self._clock()))
            self._pending_bytes -= size
            self._depth_bytes += size
            self._depth_records += len(group)
            self._failing_until = None
        self._readable.set()
        for record, future in group:
            at += len(record)
            future.set_result(Position(segment.number, at))

    def _writable(self, size: int) -> _Segment:
        """The open segment, or a new one where there is none or it would grow too long."""
        if self._file is not None:
            segment = self._segments[max(self._segments)]
            if segment.size == 0 or segment.size + size <= self._segment_bytes:
                return segment
            os.close(self._file)
            self._file = None
        number, self._next = self._next, self._next + 1
        self._file = self._disk.open(path_of(self.directory, number))
        segment = _Segment(number)
        with self._lock:
            self._segments[number] = segment
        return segment

    def _abandon(self) -> None:
        """Cut the open segment to its durable length and never write to it again."""
        if self._file is None:
            return
        os.close(self._file)
        self._file = None
        segment = self._segments[max(self._segments)]
        path = path_of(self.directory, segment.number)
        try:
            os.truncate(path, segment.size)
        except OSError as error:  # what stays there is found again by its checksum and written to the database once
            log.warning("journal: cannot cut %s: %s", path, error)

    # ------------------------------------------------------------------ reading and releasing

    def wait(self, timeout_s: float) -> bool:
        """Wait until there may be something that `read` has not yet handed out; True if so."""
        return self._readable.wait(timeout_s)

    def read(self, after: Position, max_bytes: int = 8 << 20) -> tuple[list[tuple[Position, bytes]], Position]:
        """Durable records behind `after` as (end, payload), at least one and about `max_bytes`, and where to go on.

        A damaged stretch is skipped and counted, and its segment is kept aside in `damaged/`.
        """
        self._readable.clear()
        found: list[tuple[Position, bytes]] = []
        at, taken = after, 0
        with self._lock:
            sizes = [(s.number, s.size) for s in self._segments.values() if s.number >= after.segment]
        for number, size in sizes:
            start = after.offset if number == after.segment else 0
            while start < size:
                if taken >= max_bytes:
                    self._readable.set()
                    return found, at
                items = self._scan(number, start, size, max_bytes - taken)
                for item in items:
                    if isinstance(item, Damage):
                        self._damage(Position(number, start + item.start), item.end - item.start)
                    else:
                        found.append((Position(number, start + item.end), item.payload))
                        taken += item.end - item.start
                start += items[-1].end
                at = Position(number, start)
        return found, at

    def _scan(self, number: int, start: int, size: int, budget: int) -> list[Good | Damage]:
        """Whole records of a segment from `start`, about `budget` bytes; the window grows until it holds something."""
        length = max(budget, 1 << 16)
        while True:
            with path_of(self.directory, number).open("rb") as file:
                file.seek(start)
                data = file.read(min(length, size - start))
            items = list(records(data))
            if len(data) < length:  # shorter than its durable length: something cut the file behind our back
                data_end = start + len(data)
                if data_end < size:
                    items.append(Damage(len(data), size - start, tail=True))
                return items
            if start + length < size and isinstance(items[-1], Damage) and items[-1].tail:
                items.pop()  # perhaps only the window's edge
            if items:
                return items
            length *= 2

    def _damage(self, place: Position, size: int) -> None:
        """Count a damaged stretch once and keep its segment aside for a person to look at."""
        if place in self._damaged:
            return
        self._damaged.add(place)
        self._damaged_bytes += size
        source = path_of(self.directory, place.segment)
        log.error("journal: %d damaged bytes at %d of %s skipped, the file is kept aside", size, place.offset, source)
        aside = self.directory / "damaged"
        try:
            aside.mkdir(mode=0o700, exist_ok=True)
            try:
                os.link(source, aside / source.name)
            except FileExistsError:
                return
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                    raise
                shutil.copyfile(source, aside / source.name)
            sync_directory(aside)
        except OSError as error:
            log.error("journal: %s cannot be kept aside: %s", source, error)

    def release(self, upto: Position) -> None:
        """The database has committed everything before `upto`: forget it, remove segments that are wholly behind."""
        gone: list[int] = []
        with self._lock:
            newest = max(self._segments, default=0)
            for number, segment in self._segments.items():
                if number > upto.segment:
                    break
                end = upto.offset if number == upto.segment else segment.size
                while segment.marks and segment.marks[0].end <= end:
                    mark = segment.marks.popleft()
                    self._depth_bytes -= mark.size
                    self._depth_records -= mark.records
                if end >= segment.size and number != newest:
                    gone.append(number)
            for number in gone:
                del self._segments[number]
        for number in gone:
            path_of(self.directory, number).unlink(missing_ok=True)
        if gone:
            sync_directory(self.directory)

    def rename(self) -> None:
        """Give the journal a new name, so that the database takes everything in it as new."""
        assert self._held is not None
        self.id = self._write_name(self._held)

    def state(self) -> JournalState:
        """Figures for metrics, now."""
        with self._lock:
            oldest = min((s.marks[0].time for s in self._segments.values() if s.marks), default=None)
            return JournalState(
                depth_bytes=self._depth_bytes,
                depth_records=self._depth_records,
                pending_records=len(self._pending),
                oldest_s=0.0 if oldest is None else self._clock() - oldest,
                segments=len(self._segments),
                refused=self._refused,
                damaged_bytes=self._damaged_bytes,
                damaged_places=len(self._damaged),
                failing=self._failing_until is not None,
            )

    def close(self) -> None:
        """Write what is queued, then stop. Safe to call twice."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._thread.join()
        self._readable.set()
        for descriptor in (self._file, self._held):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._held = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
