"""Readings that are still the bytes of a reply: decoded when someone looks, or many of a kind together (`join`).

Twenty values cost numpy as many calls as twenty thousand, so a poller at full speed decodes once for a whole moment.
Nothing of this shows outside: RawSamples are Samples. Not for replies that may turn out undecodable: their length has
been checked, and a value that is not there becomes an absent row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..model.readings import Samples

ARRAYS: Final = ("time_us", "point", "quantity", "value", "quality", "source")


class Decoder(Protocol):
    """What one kind of reply means. `width`: values of a reply at most."""

    @property
    def width(self) -> int: ...

    def samples(self, replies: Sequence[Reply]) -> tuple[Samples, list[int]]:
        """The values of all replies one after the other, and how many each has given."""


class Reply(NamedTuple):
    """The data bytes of one conversation, with what the bytes do not say."""

    decoder: Decoder
    payload: bytes
    time_us: int
    point: int
    source: int


class RawSamples(Samples):
    """Samples that hold a Reply until one of their arrays is asked for."""

    __slots__ = ("reply",)
    reply: Reply

    def __init__(self, reply: Reply) -> None:
        object.__setattr__(self, "reply", reply)

    def __getattr__(self, name: str) -> NDArray[np.generic]:
        """Called for an array that is not there yet: decode."""
        if name not in ARRAYS:
            raise AttributeError(name)
        decoded, _ = self.reply.decoder.samples((self.reply,))
        for array in ARRAYS:
            object.__setattr__(self, array, getattr(decoded, array))
        found: NDArray[np.generic] = getattr(decoded, name)
        return found


def size_of(samples: Samples) -> int:
    """Number of values, or of those there may be; decodes nothing."""
    return samples.reply.decoder.width if isinstance(samples, RawSamples) else len(samples)


def join(parts: Sequence[Samples]) -> tuple[Samples, list[tuple[int, int]]]:
    """All as one, and its runs: (which part, how many values) in the order of the result, kind by kind."""
    kinds: dict[Decoder, list[int]] = {}
    pieces: list[Samples] = []
    runs: list[tuple[int, int]] = []
    for i, part in enumerate(parts):
        if isinstance(part, RawSamples):
            kinds.setdefault(part.reply.decoder, []).append(i)
        else:
            pieces.append(part)
            runs.append((i, len(part)))
    for decoder, indexes in kinds.items():
        replies = [part.reply for part in (parts[i] for i in indexes) if isinstance(part, RawSamples)]
        piece, counts = decoder.samples(replies)
        pieces.append(piece)
        runs += zip(indexes, counts, strict=True)
    if len(pieces) == 1:
        return pieces[0], runs
    return Samples(*(np.concatenate([getattr(p, name) for p in pieces]) for name in ARRAYS)), runs
