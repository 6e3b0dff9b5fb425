"""The kill drill in its short form, and its witnesses: do they see what they are there to see?"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import killing
from bench.witness import JournalWitness, packets
from fuhe.model.quality import Source
from fuhe.model.readings import CurveBlock, ReadingBatch, Samples
from fuhe.storage.batches import encode_batches
from fuhe.storage.segments import pack, path_of

START = 1_790_000_000_000_000


@pytest.mark.timeout(400)
def test_three_kills_lose_nothing_and_double_nothing() -> None:
    report = killing.run(3, 645, days=1, settle_s=120, say=lambda _: None)
    assert report["samples"] > 50 and report["curve_slots"] > 2000 and report["mqtt_acknowledged"] > 10
    assert report["samples_lost"] == report["samples_unknown"] == report["samples_wrong"] == 0
    assert report["curve_slots_lost"] == report["curve_slots_unknown"] == report["curve_slots_wrong"] == 0
    assert report["journals"] == report["embedded_servers_seen"] == 1
    assert report["left"] == {"numbers": 0, "recalls": 0, "slots": 0}


def batch(first: float, n: int = 4) -> bytes:
    samples = Samples(
        START + np.arange(n, dtype=np.int64),
        np.full(n, 3, np.int32),
        np.full(n, 5, np.int16),
        first + np.arange(n, dtype=np.float64),
        np.zeros(n, np.int16),
        np.full(n, Source.LIVE, np.int16),
    )
    curve = CurveBlock(
        np.array([3], np.int32),
        np.array([5], np.int16),
        np.array([START], np.int64),
        900,
        np.array([[first, np.nan, first + 2]]),
        np.zeros((1, 3), np.int16),
    )
    return encode_batches([ReadingBatch(received_us=START, samples=samples, curves=(curve,))])


def test_the_journals_witness_reads_on_where_it_stopped(tmp_path: Path) -> None:
    witness = JournalWitness(tmp_path)
    assert witness.look() == 0
    whole = pack(batch(1.0))
    path_of(tmp_path, 1).write_bytes(whole + pack(batch(100.0))[:-1])
    assert witness.look() == 1 and witness.torn_bytes == len(whole) - 1
    path_of(tmp_path, 1).write_bytes(whole)
    path_of(tmp_path, 2).write_bytes(pack(batch(1.0)) + pack(batch(9.0)))
    assert witness.look() == 2 and witness.look() == 0
    assert (witness.records, witness.repeated, witness.conflicts) == (3, 8, 2)
    assert witness.samples[3, 5, START, Source.LIVE] == 1.0
    assert witness.slots == {(3, 5, START): 1.0, (3, 5, START + 1_800_000_000): 3.0}
    assert witness.behind((1, len(whole))) == 2 and witness.behind((2, 2 * len(whole))) == 0
    path_of(tmp_path, 1).unlink()
    path_of(tmp_path, 2).rename(path_of(tmp_path, 4))
    with pytest.raises(AssertionError, match="segments 3 to 3 came and went"):
        witness.look()


def test_damage_inside_a_segment_is_not_overlooked(tmp_path: Path) -> None:
    path_of(tmp_path, 1).write_bytes(b"noise" + pack(batch(1.0)))
    with pytest.raises(AssertionError, match="5 damaged bytes"):
        JournalWitness(tmp_path).look()


@pytest.mark.parametrize("change", ["lost", "unknown", "wrong", "slot lost", "slot unknown", "slot wrong"])
def test_the_comparison_fails_for_a_single_reading(tmp_path: Path, change: str) -> None:
    drill = killing.Drill(tmp_path, 1, 1)
    drill.journal = JournalWitness(tmp_path)
    path_of(tmp_path, 1).write_bytes(pack(batch(1.0)))
    drill.journal.look()
    samples, slots = dict(drill.journal.samples), dict(drill.journal.slots)
    assert drill._against_journal(samples, slots)["samples"] == 4
    stored: dict[Any, float] = slots if "slot" in change else samples
    key = next(iter(stored))
    if "lost" in change:
        del stored[key]
    else:
        stored[(9, *key[1:]) if "unknown" in change else key] = 77.0
    with pytest.raises(killing.Failure, match="journal and database differ"):
        drill._against_journal(samples, slots)


def test_mqtt_packets_are_cut_at_any_place() -> None:
    stream = b"\x20\x02\x00\x00" + b"\x32\xc8\x01" + bytes(200) + b"\x40\x02\x00\x07" + b"\xd0\x00"
    whole = list(packets(bytearray(stream)))
    assert [(first, len(body)) for first, body in whole] == [(0x20, 2), (0x32, 200), (0x40, 2), (0xD0, 0)]
    rng = random.Random(1)
    for _ in range(50):
        buffer, found, at = bytearray(), [], 0
        while at < len(stream):
            step = rng.randint(1, 9)
            buffer += stream[at : at + step]
            at += step
            found += list(packets(buffer))
        assert found == whole and not buffer
