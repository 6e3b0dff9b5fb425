"""Random and mutated inputs for framers: only the framer's own outcomes, no hang, no growth. Used by `make soak`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from fuhe.protocols.common.framer import Framer, NeedMore

BOUND = 4096  # bytes a framer may hold after it was drained; the longest frame of any of our protocols is shorter


def mutate(seed: bytes, rng: random.Random) -> bytes:
    """A known frame with a few bytes changed, lost, doubled, or joined with another place of itself."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        if not data:
            data += rng.randbytes(4)
        at = rng.randrange(len(data))
        kind = rng.randrange(6)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 5)]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 3:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 4:
            data += data[at:]
        else:
            data = data[at:] + data[:at]
    return bytes(data[:1024])


def fuzz(
    framer_factory: Callable[[], Framer[object]],
    seeds: Sequence[bytes],
    n: int,
    *,
    seed: int = 645,
    check: Callable[[object], object] | None = None,
) -> dict[str, int]:
    """Feed `n` inputs (a quarter random bytes, the rest mutated seeds, in random pieces) to one framer.

    check: called with every frame (a decoder, say); it must not raise. AssertionError names the input that broke a
    rule: more outcomes than bytes (a hang), or more bytes held than one frame takes. Answers counts of the outcomes.
    """
    rng = random.Random(seed)
    framer = framer_factory()
    counts = {"inputs": 0, "frames": 0, "skipped": 0}
    for number in range(n):
        data = rng.randbytes(rng.randint(0, 64)) if number % 4 == 0 else mutate(rng.choice(seeds), rng)
        cut = rng.randint(0, len(data))
        budget = 2 * (len(data) + BOUND) + 8
        for piece in (data[:cut], data[cut:]):
            framer.feed(piece)
            while not isinstance(event := framer.next_event(), NeedMore):
                budget -= 1
                assert budget > 0, f"input {number}: no end of outcomes for {data.hex()}"
                if hasattr(event, "reason") and hasattr(event, "count"):
                    counts["skipped"] += event.count
                else:
                    counts["frames"] += 1
                    if check is not None:
                        check(event)
        held = len(framer) if hasattr(framer, "__len__") else 0
        assert held <= BOUND, f"input {number}: {held} bytes held after {data.hex()}"
        if number % 64 == 63:
            framer.reset()
        counts["inputs"] += 1
    return counts


def dlt645(n: int, *, seed: int = 645) -> dict[str, int]:
    """The DL/T 645 framer with its decoder behind it."""
    from fuhe.protocols.dlt645.explain import describe_frame
    from fuhe.protocols.dlt645.frame import Framer as Dlt645Framer
    from fuhe.protocols.dlt645.frame import make_frame

    samples = ("00000100 56341200", "00FF0102 7123FFFFFFFF", "03050004 5000", "01000006 A0A00A", "00FF0605 00")
    seeds = [make_frame("123456789012", 0x91, bytes.fromhex(s), lead=4).encode() for s in samples]
    seeds += [make_frame("AAAAAAAAAAAA", c, bytes(4 + c % 9)).encode() for c in (0x01, 0x11, 0x14, 0x1C, 0xD1, 0xB1)]
    return fuzz(Dlt645Framer, seeds, n, seed=seed, check=lambda f: describe_frame(f))  # type: ignore[arg-type]
