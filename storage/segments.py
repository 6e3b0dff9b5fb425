"""Segment files of the journal: how records lie in a file, how they are found again, what a damaged file still holds.

    record = magic (4) | length u32 LE | crc32 u32 LE of length and payload | payload

The magic is for finding the next good record after damage. Nothing here knows what a payload means.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAGIC: Final = b"\xf5HJ1"
HEADER: Final = struct.Struct("<4sII")
RECORD_MAX: Final = 64 << 20
SUFFIX: Final = ".seg"


def pack(payload: bytes) -> bytes:
    """A record of the payload."""
    crc = zlib.crc32(payload, zlib.crc32(len(payload).to_bytes(4, "little")))
    return HEADER.pack(MAGIC, len(payload), crc) + payload


@dataclass(frozen=True, slots=True)
class Good:
    """A whole record; `end` is the position behind it."""

    start: int
    end: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes [start, end) hold no record; `tail`: no good record follows them in the file."""

    start: int
    end: int
    tail: bool


def _record_at(data: bytes, at: int) -> Good | None:
    if at + HEADER.size > len(data):
        return None
    magic, length, crc = HEADER.unpack_from(data, at)
    end = at + HEADER.size + length
    if magic != MAGIC or length > RECORD_MAX or end > len(data):
        return None
    payload = data[at + HEADER.size : end]
    if zlib.crc32(payload, zlib.crc32(length.to_bytes(4, "little"))) != crc:
        return None
    return Good(at, end, payload)


def records(data: bytes, at: int = 0) -> Iterator[Good | Damage]:
    """The records of a segment from a position on; after damage the next magic with a good checksum is looked for."""
    while at < len(data):
        found = _record_at(data, at)
        start = at
        while found is None:
            at = data.find(MAGIC, at + 1)
            if at < 0:
                yield Damage(start, len(data), tail=True)
                return
            found = _record_at(data, at)
        if at > start:
            yield Damage(start, at, tail=False)
        yield found
        at = found.end


def path_of(directory: Path, number: int) -> Path:
    """File of a segment."""
    return directory / f"{number:016d}{SUFFIX}"


def numbers_in(directory: Path) -> list[int]:
    """Numbers of the segments in a directory, ascending."""
    return sorted(int(p.stem) for p in directory.glob(f"*{SUFFIX}") if p.stem.isdigit())
