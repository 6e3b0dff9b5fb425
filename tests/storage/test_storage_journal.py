"""The journal against torn tails, damage, full disks and its bounds; batches to bytes and back."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuhe.model.readings import CurveBlock, DeviceEvent, ParameterValue, ReadingBatch, samples_from_rows
from fuhe.protocols.common.errors import LinkError, UsageError
from fuhe.storage.batches import decode_record, encode_batches, join_records
from fuhe.storage.journal import Journal, JournalFull, Position, RealDisk
from fuhe.storage.segments import Damage, Good, pack, records
from fuhe.storage.sink import Sink

START = Position(0, 0)


def payloads(journal: Journal, after: Position = START) -> list[bytes]:
    found: list[bytes] = []
    at = after
    for _ in range(1000):
        some, at = journal.read(at, 1 << 16)
        if not some:
            return found
        found += [p for _, p in some]
    raise AssertionError("read does not end")


def fill(directory: Path, count: int, **options: Any) -> list[bytes]:
    with Journal(directory, **options) as journal:
        sent = [f"record {i} ".encode() * (i % 7 + 1) for i in range(count)]
        for payload in sent:
            journal.append(payload).result(10)
    return sent


def test_what_was_appended_is_read_in_order_and_after_reopening(tmp_path: Path) -> None:
    sent = fill(tmp_path, 200, segment_bytes=1000)
    assert len(list(tmp_path.glob("*.seg"))) > 3
    with Journal(tmp_path) as journal:
        assert payloads(journal) == sent
        assert journal.state().depth_records == 200


def test_positions_are_where_reading_goes_on(tmp_path: Path) -> None:
    with Journal(tmp_path, segment_bytes=300) as journal:
        ends = [journal.append(f"{i:04d}".encode()).result(10) for i in range(60)]
        for i, end in enumerate(ends):
            assert payloads(journal, end)[:1] == [f"{i + 1:04d}".encode()][: 59 - i]


def test_released_segments_go_and_numbers_go_on(tmp_path: Path) -> None:
    with Journal(tmp_path, segment_bytes=200) as journal:
        last = [journal.append(b"x" * 50).result(10) for _ in range(30)][-1]
        journal.release(last)
        assert journal.state().depth_bytes == 0
        assert journal.state().depth_records == 0
        assert len(list(tmp_path.glob("*.seg"))) == 1
    with Journal(tmp_path) as journal:
        assert payloads(journal, last) == []
        assert journal.append(b"y").result(10) > last
        assert payloads(journal, last) == [b"y"]


def test_a_tail_torn_at_every_byte(tmp_path: Path) -> None:
    """The last record cut anywhere (or followed by garbage) is dropped; all before it stay; writing goes on."""
    sent = fill(tmp_path, 5)
    segment = next(tmp_path.glob("*.seg"))
    whole = segment.read_bytes()
    good_end = len(whole) - len(pack(sent[-1]))
    for cut in range(good_end, len(whole)):
        segment.write_bytes(whole[:cut])
        with Journal(tmp_path) as journal:
            assert payloads(journal) == sent[:4]
            assert journal.state().damaged_bytes == 0
        assert segment.stat().st_size == good_end
        for extra in tmp_path.glob("*.seg"):
            if extra != segment:
                extra.unlink()
    segment.write_bytes(whole + bytes(37))
    with Journal(tmp_path) as journal:
        journal.append(b"next").result(10)
        assert payloads(journal) == [*sent, b"next"]


@pytest.mark.parametrize("where", range(0, 40, 3))
def test_damage_in_the_middle_costs_only_what_it_hits(tmp_path: Path, where: int) -> None:
    sent = fill(tmp_path, 10)
    segment = next(tmp_path.glob("*.seg"))
    data = bytearray(segment.read_bytes())
    third = sum(len(pack(p)) for p in sent[:3])
    data[third + where % len(pack(sent[3]))] ^= 0x5A
    segment.write_bytes(bytes(data))
    with Journal(tmp_path) as journal:
        assert payloads(journal) == sent[:3] + sent[4:]
        payloads(journal)
        state = journal.state()
        assert (state.damaged_bytes, state.damaged_places) == (len(pack(sent[3])), 1)
    assert (tmp_path / "damaged" / segment.name).read_bytes() == bytes(data)


def test_a_shortened_older_segment_is_damage_not_silence(tmp_path: Path) -> None:
    sent = fill(tmp_path, 50, segment_bytes=400)
    first = sorted(tmp_path.glob("*.seg"))[0]
    os.truncate(first, first.stat().st_size - 3)
    with Journal(tmp_path) as journal:
        found = payloads(journal)
        assert journal.state().damaged_places == 1
    assert len(found) == 49
    assert set(found) <= set(sent)


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=8), st.binary(max_size=30), st.binary(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_bytes_end_and_good_records_are_found(kept: list[bytes], before: bytes, between: bytes) -> None:
    half = len(kept) // 2
    data = before + b"".join(map(pack, kept[:half])) + between + b"".join(map(pack, kept[half:]))
    items = list(records(data))
    assert [i.payload for i in items if isinstance(i, Good)] == kept
    assert items == [] or (items[0].start == 0 and items[-1].end == len(data))
    assert all(a.end == b.start for a, b in pairwise(items))
    assert sum(isinstance(i, Damage) and i.tail for i in items) <= 1


class FailingDisk(RealDisk):
    """A disk that fails on order: `fail` names the next calls that raise ENOSPC; a failed write leaves half behind."""

    def __init__(self) -> None:
        self.fail: list[str] = []
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def _maybe(self, call: str) -> None:
        self.calls.append(call)
        if self.fail and self.fail[0] == call:
            self.fail.pop(0)
            raise OSError(errno.ENOSPC, "No space left on device")

    def open(self, path: Path) -> int:
        self._maybe("open")
        return super().open(path)

    def write(self, descriptor: int, data: bytes) -> None:
        self.gate.wait(10)
        try:
            self._maybe("write")
        except OSError:
            super().write(descriptor, data[: len(data) // 2])
            raise
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._maybe("sync")
        super().sync(descriptor)


@pytest.mark.parametrize("call", ["write", "sync"])
def test_after_one_failure_the_group_is_rewritten_elsewhere(tmp_path: Path, call: str) -> None:
    disk = FailingDisk()
    with Journal(tmp_path, disk=disk) as journal:
        journal.append(b"one").result(10)
        disk.fail = [call]
        journal.append(b"two").result(10)
        journal.append(b"three").result(10)
        assert payloads(journal) == [b"one", b"two", b"three"]
        assert len(list(tmp_path.glob("*.seg"))) == 2
    with Journal(tmp_path) as journal:
        assert payloads(journal) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("fail", [["write", "write"], ["sync", "open"], ["sync", "sync"], ["write", "open"]])
def test_a_full_disk_refuses_then_recovers(tmp_path: Path, fake_clock: Any, fail: list[str]) -> None:
    disk = FailingDisk()
    with Journal(tmp_path, disk=disk, clock=fake_clock.monotonic) as journal:
        journal.append(b"one").result(10)
        disk.fail = list(fail)
        with pytest.raises(JournalFull):
            journal.append(b"two").result(10)
        calls = len(disk.calls)
        with pytest.raises(JournalFull):
            journal.append(b"refused without touching the disk").result(10)
        assert len(disk.calls) == calls
        assert journal.state().failing
        fake_clock.advance(1.5)
        journal.append(b"three").result(10)
        state = journal.state()
        assert (state.failing, state.refused, state.pending_records) == (False, 2, 0)
        assert payloads(journal) == [b"one", b"three"]
    with Journal(tmp_path) as journal:
        assert payloads(journal) == [b"one", b"three"]


def test_a_really_full_device(tmp_path: Path) -> None:
    """/dev/full answers every write with ENOSPC, as the kernel does."""

    class Full(RealDisk):
        def open(self, path: Path) -> int:
            return os.open("/dev/full", os.O_WRONLY)

    with Journal(tmp_path, disk=Full()) as journal:
        with pytest.raises(JournalFull):
            journal.append(b"x").result(10)
        assert journal.state().failing


def test_bounds_in_bytes_and_records(tmp_path: Path) -> None:
    with Journal(tmp_path / "bytes", max_bytes=500) as journal:
        outcome = [journal.append(b"z" * 100) for _ in range(8)]
        taken = [f for f in outcome if f.exception(10) is None]
        assert len(taken) == 4
        journal.release(taken[-1].result())
        journal.append(b"z" * 100).result(10)
    with Journal(tmp_path / "records", max_records=3) as journal:
        assert sum(journal.append(b"z").exception(10) is None for _ in range(5)) == 3


def test_one_group_for_all_that_wait(tmp_path: Path) -> None:
    disk = FailingDisk()
    with Journal(tmp_path, disk=disk) as journal:
        disk.gate.clear()
        waiting: list[Future[Position]] = [journal.append(f"{i}".encode()) for i in range(50)]
        disk.gate.set()
        for future in waiting:
            future.result(10)
        assert disk.calls.count("sync") <= 3


def test_age_of_the_oldest(tmp_path: Path, fake_clock: Any) -> None:
    with Journal(tmp_path, clock=fake_clock.monotonic) as journal:
        first = journal.append(b"a").result(10)
        fake_clock.advance(30)
        journal.append(b"b").result(10)
        assert journal.state().oldest_s == 30
        journal.release(first)
        assert journal.state().oldest_s == 0


def test_one_process_at_a_time_and_clear_errors(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        with pytest.raises(UsageError, match="journal"):
            Journal(tmp_path)
        with pytest.raises(UsageError):
            journal.append(b"")
    with pytest.raises(JournalFull):
        journal.append(b"closed").result(1)
    (tmp_path / "file").touch()
    with pytest.raises(LinkError):
        Journal(tmp_path / "file" / "journal")


# ---------------------------------------------------------------------- batches and sink


def batch(seed: int) -> ReadingBatch:
    rng = np.random.default_rng(seed)
    rows = [(int(rng.integers(1 << 50)), i, 1, float(rng.random()), 0, 1) for i in range(seed % 5)]
    value = rng.random((2, 4))
    value[0, 1] = np.nan
    block = CurveBlock(
        np.array([1, 2], np.int32), np.array([3, 4], np.int16), np.array([5, 6], np.int64), 900, value,
        np.zeros((2, 4), np.int16),
    )  # fmt: skip
    return ReadingBatch(
        received_us=seed,
        samples=samples_from_rows(rows) if seed % 2 else None,
        curves=[block] * (seed % 3),
        events=[DeviceEvent(device=1, point=None, time_us=2, end_us=3, code="ERC14", data={"停电": [1, 2.5, None]})],
        parameters=[ParameterValue(device=1, item="F10", value="值", time_us=4)],
    )


def test_batches_to_bytes_and_back() -> None:
    batches = [batch(i) for i in range(9)]
    whole = decode_record(encode_batches(batches))
    joined = join_records([decode_record(encode_batches([b])) for b in batches])
    for record in (whole, joined):
        kept = [b.samples for b in batches if b.samples is not None]
        for name in ("time_us", "value", "point", "quantity", "quality", "source"):
            assert np.array_equal(getattr(record.samples, name), np.concatenate([getattr(s, name) for s in kept]))
        assert record.received_us.tolist() == [b.received_us for b in batches for _ in range(len(b.samples or []))]
        assert [(r, e) for r, e in record.events] == [(b.received_us, b.events[0]) for b in batches]
        assert list(record.parameters) == [b.parameters[0] for b in batches]
        sent = [(b.received_us, c) for b in batches for c in b.curves]
        assert len(record.curves) == len(sent)
        for (r1, c1), (r2, c2) in zip(record.curves, sent, strict=True):
            assert r1 == r2
            assert c1.step_s == c2.step_s
            assert np.array_equal(c1.value, c2.value, equal_nan=True)
            assert np.array_equal(c1.start_us, c2.start_us)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_are_refused_as_records(data: bytes) -> None:
    try:
        decode_record(data)
    except ValueError:
        return
    assert len(data) >= 4


async def test_sink_gathers_batches_into_one_record(tmp_path: Path) -> None:
    import asyncio

    with Journal(tmp_path) as journal:
        sink = Sink(journal, commit_ms=5)
        await asyncio.gather(*(sink.deliver(batch(i)) for i in range(20)))
        assert journal.state().depth_records == 1
        found, _ = journal.read(START)
        assert len(decode_record(found[0][1]).events) == 20


async def test_sink_passes_refusal_to_every_caller(tmp_path: Path) -> None:
    import asyncio

    with Journal(tmp_path, max_bytes=10) as journal:
        sink = Sink(journal, commit_ms=1)
        outcome = await asyncio.gather(*(sink.deliver(batch(i)) for i in range(3)), return_exceptions=True)
        assert [type(e) for e in outcome] == [JournalFull] * 3
