"""Data unit identifiers (数据单元标识 DA DT): four bytes that name points (pn) and classes (Fn).

DA1 is a bit set of points inside group DA2 (1-255), DT1 a bit set of classes inside group DT2: p = (DA2-1)*8 + bit + 1,
F = DT2*8 + bit + 1. DA 00 00 is the terminal itself (p0), DA FF 00 every valid point (requests only).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from ..common.errors import UsageError

ALL_POINTS: Final = 0xFFFF  # pn of DA FF 00
MAX_POINT: Final = 2040
MAX_CLASS: Final = 2048

_BITS: Final = tuple(tuple(i for i in range(8) if byte >> i & 1) for byte in range(256))


def parse(wire: bytes) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """(points, classes) of four bytes, ascending; None where DA means nothing. Classes may be empty (DT1 = 0)."""
    da1, da2, dt1, dt2 = wire
    if da2:
        if not da1:
            return None
        points = tuple((da2 - 1) * 8 + bit + 1 for bit in _BITS[da1])
    elif da1 in (0, 0xFF):
        points = (ALL_POINTS if da1 else 0,)
    else:
        return None
    return points, tuple(dt2 * 8 + bit + 1 for bit in _BITS[dt1])


@lru_cache(maxsize=2048)
def pairs(wire: bytes) -> tuple[tuple[int, int], ...]:
    """(pn, fn) of every data unit that an identifier announces, in order; empty where it announces none."""
    points, classes = parse(wire) or ((), ())
    return tuple((pn, fn) for pn in points for fn in classes)


def da(points: Sequence[int]) -> bytes:
    """DA1 DA2 of points that share a group; UsageError otherwise."""
    if list(points) in ([0], [ALL_POINTS]):
        return b"\0\0" if points[0] == 0 else b"\xff\0"
    groups = {(p - 1) // 8 for p in points}
    if len(groups) != 1 or not all(1 <= p <= MAX_POINT for p in points):
        raise UsageError(f"points {list(points)}: one identifier holds p0, or p1 to p{MAX_POINT} of one group of eight")
    return bytes((sum(1 << (p - 1) % 8 for p in set(points)), groups.pop() + 1))


def dt(classes: Sequence[int]) -> bytes:
    """DT1 DT2 of classes that share a group; UsageError otherwise."""
    groups = {(f - 1) // 8 for f in classes}
    if len(groups) != 1 or not all(1 <= f <= MAX_CLASS for f in classes):
        raise UsageError(f"classes {list(classes)}: one identifier holds F1 to F{MAX_CLASS} of one group of eight")
    return bytes((sum(1 << (f - 1) % 8 for f in set(classes)), groups.pop()))


@lru_cache(maxsize=2048)
def single(pn: int, fn: int) -> bytes:
    """The identifier of one point and one class."""
    return da((pn,)) + dt((fn,))


def combined(points: Sequence[int], classes: Sequence[int]) -> bytes:
    """The identifier of every one of these points with every one of these classes."""
    return da(points) + dt(classes)


def group(wanted: Iterable[tuple[int, int]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Few identifiers (points, classes) that name exactly the wanted (pn, fn) pairs, for requests.

    Classes of one point and group are joined first, then points of one group that want the same classes.
    """
    by_point: dict[tuple[int, int], set[int]] = {}
    for pn, fn in wanted:
        by_point.setdefault((pn, (fn - 1) // 8), set()).add(fn)
    by_classes: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for (pn, _), fns in by_point.items():
        shelf = -1 - pn if pn in (0, ALL_POINTS) else (pn - 1) // 8
        by_classes.setdefault((shelf, tuple(sorted(fns))), []).append(pn)
    return [(tuple(sorted(points)), classes) for (_, classes), points in by_classes.items()]
