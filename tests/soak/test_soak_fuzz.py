"""The fuzz of `make soak` in its short form, and whether it would notice a framer that breaks the rules."""

from __future__ import annotations

import random

import pytest

from bench import fuzz, soak
from fuhe.protocols.common.framer import NEED_MORE, NeedMore, Skipped

INPUTS = 10_000


@pytest.mark.parametrize("name", fuzz.names())
def test_strange_input_raises_nothing_of_its_own_hangs_nowhere_and_leaves_nothing(name: str) -> None:
    counts = fuzz.fuzz(fuzz.targets()[name], INPUTS)
    assert counts["inputs"] == INPUTS and counts["frames"] > 100
    assert fuzz.growth(fuzz.targets()[name], 1000, chunk=1) < fuzz.GROWTH


def test_a_chunk_can_be_repeated() -> None:
    target = fuzz.targets()["modbus-tcp"]
    once, again = (list(fuzz.inputs(target, random.Random("x/1/2"), 500)) for _ in range(2))
    assert once == again and len({data for data, _ in once}) > 400


def test_every_kind_of_mutation_stays_small() -> None:
    rng = random.Random(3)
    for _ in range(3000):
        assert len(fuzz.mutate(rng.randbytes(rng.randrange(64)), rng.getrandbits(64))) < 128
    assert len(fuzz.mutate(bytes(1000), 4 << 16)) == fuzz.INPUT_MAX


class Faulty:
    """A framer with one fault."""

    def __init__(self, fault: str) -> None:
        self.fault, self.kept = fault, b""

    def feed(self, data: bytes) -> None:
        self.kept += data

    def next_event(self) -> Skipped | NeedMore:
        if self.fault == "raises" and len(self.kept) > 50:
            raise IndexError("out of range")
        if self.fault == "hangs":
            return Skipped(1, "noise")
        if self.fault == "idles":
            return Skipped(0, "noise")
        if self.fault != "hoards":
            self.kept = b""
        return NEED_MORE


@pytest.mark.parametrize(
    ("fault", "told"),
    [("raises", "IndexError"), ("hangs", "no end of outcomes"), ("idles", "skipped 0 bytes"), ("hoards", "bytes held")],
)
def test_a_faulty_framer_is_found(fault: str, told: str) -> None:
    target = fuzz.Target(
        fault, (bytes(range(200)),), lambda data: data,
        lambda: fuzz.StreamProbe(lambda k: Faulty(fault), lambda f: len(f.kept), lambda f: None, lambda f: None),
    )  # fmt: skip
    with pytest.raises(fuzz.Broken, match=told) as caught:
        fuzz.fuzz(target, INPUTS)
    assert f"{fault}, seed 645, chunk 0, input " in str(caught.value) and "; input " in str(caught.value)


def test_a_worker_counts_and_measures() -> None:
    counts = soak.work("modbus-reply", 1000, 1, 0)
    assert counts["inputs"] == 1000 and counts["traced_bytes"] < fuzz.GROWTH and counts["grown_kb"] >= 0
