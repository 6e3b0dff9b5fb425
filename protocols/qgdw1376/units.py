"""The data area of a frame: identifiers and data units <-> Unit, by the table.

One identifier may name several points and classes; their units follow point by point, class by class. Where a unit's
length is not known (a class the table lacks, an open layout, alternatives), the length is searched that lets all other
units fit to the last byte; a class has the same layout everywhere in one frame. From a guessed length on only units are
believed that are written back to the same bytes: what merely happens to fit must not become a reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from ..common.errors import UsageError
from . import dadt
from .format_base import FILL
from .layout import Data, Unfit, Variant
from .table import ASKING, lookup

UNKNOWN_FN: Final = "unknown_fn"  # the table has no such class
SHORT: Final = "short"  # the data end inside the unit
BEHIND: Final = "behind_unknown"  # its start cannot be known
NO_CLASS: Final = "no_class"  # an identifier whose set of classes is empty
_SEARCH_BYTES: Final = 512  # longest unknown unit that is looked for
_BUDGET: Final = 8000  # units read in a search


class Unit(msgspec.Struct, frozen=True):
    """One data unit. data: values by name, None where it could not be read, then raw has its bytes and fault says why.

    joined: shares the identifier of the unit before it. pn ALL_POINTS (FFFF) = all valid points (requests).
    """

    pn: int
    fn: int
    data: Data | None = None
    raw: bytes = b""
    fault: str = ""
    joined: bool = False


Pending = tuple[tuple[int, int], ...]


class _Area:
    """One walk over a data area."""

    __slots__ = ("afn", "budget", "buf", "edition", "end", "up")

    def __init__(self, buf: bytes, end: int, afn: int, up: bool, edition: str) -> None:
        self.buf, self.end, self.afn, self.up, self.edition = buf, end, afn, up, edition
        self.budget = _BUDGET

    def variants(self, fn: int) -> tuple[Variant, ...] | None:
        row = lookup(self.afn, fn, self.edition)
        return None if row is None else row.layout(self.afn, self.up).preferred(self.edition)

    def identifier(self, at: int) -> Pending:
        """The units an identifier announces; empty where there is none."""
        return dadt.pairs(self.buf[at : at + 4]) if self.end - at >= 4 else ()

    def plain(self, at: int) -> list[Unit] | None:
        """All units, each by its edition's own layout; None where a length is not certain or does not fit."""
        units: list[Unit] = []
        buf, end, edition = self.buf, self.end, self.edition
        asking = not self.up and self.afn in ASKING
        while at < end:
            pending = self.identifier(at)
            if not pending:
                return None
            at += 4
            joined = False
            for pn, fn in pending:
                variants = self.variants(fn)
                if variants is None and asking:  # requests of most classes have no data
                    units.append(Unit(pn, fn, {}, fault=UNKNOWN_FN, joined=joined))
                    joined = True
                    continue
                if variants is None or variants[0].open:
                    return None
                try:
                    data, at = variants[0].decode(buf, at, end, edition)
                except Unfit:
                    return None
                units.append(Unit(pn, fn, data, joined=joined))
                joined = True
        return units

    def search(self, at: int, pending: Pending, joined: bool, known: Mapping[int, object]) -> list[Unit] | None:
        """All units from `at` on, fitting to the last byte. known: Fn -> Variant or length, found out so far."""
        units: list[Unit] = []
        guessed = any(type(option) is int for option in known.values())
        while pending or at < self.end:
            if not pending:
                pending = self.identifier(at)
                if not pending:
                    return None
                at, joined = at + 4, False
            self.budget -= 1
            if self.budget < 0:
                return None
            pn, fn = pending[0]
            option = known[fn] if fn in known else self.only(fn)
            if option is None:
                for choice in self.options(fn, at, pending, known):
                    tail = self.search(at, pending, joined, {**known, fn: choice})
                    if tail is not None:
                        return units + tail
                return None
            step = self.unit(pn, fn, at, joined, option)
            if step is None or (guessed and not self.canonical(step[0], at, step[1])):
                return None
            units.append(step[0])
            at, pending, joined = step[1], pending[1:], True
        return units

    def only(self, fn: int) -> Variant | None:
        """The layout of a class that has just one."""
        variants = self.variants(fn)
        return variants[0] if variants is not None and len(variants) == 1 and not variants[0].open else None

    def options(self, fn: int, at: int, pending: Pending, known: Mapping[int, object]) -> Iterator[object]:
        """Layouts or lengths that a class may have; only one class of a frame may have a length that nobody knows."""
        variants = self.variants(fn)
        open_end = variants is None or any(v.open for v in variants)
        if variants is not None and not open_end:
            yield from variants
            return
        if any(type(option) is int for option in known.values()):
            return
        left = self.end - at
        lengths = range(min(left, _SEARCH_BYTES + 1))
        if len(pending) > 1:
            yield from lengths
            return
        for length in lengths:
            following = self.identifier(at + length)
            if following and (following[0][1] == fn or self.variants(following[0][1]) is not None):
                yield length
        yield left

    def unit(self, pn: int, fn: int, at: int, joined: bool, option: object) -> tuple[Unit, int] | None:
        """A unit by a variant, or of a given length."""
        if isinstance(option, Variant):
            try:
                data, at = option.decode(self.buf, at, self.end, self.edition)
            except Unfit:
                return None
            return Unit(pn, fn, data, joined=joined), at
        assert isinstance(option, int)
        stop = at + option
        if stop > self.end:
            return None
        variants = self.variants(fn)
        if variants is None:
            raw = self.buf[at:stop]
            return Unit(pn, fn, None if raw else {}, raw, UNKNOWN_FN, joined), stop
        for variant in variants:
            try:
                data, reached = variant.decode(self.buf, at, stop, self.edition)
            except Unfit:
                continue
            if reached == stop:
                return Unit(pn, fn, data, joined=joined), stop
        return None

    def canonical(self, unit: Unit, at: int, stop: int) -> bool:
        """Written again, the unit is buf[at:stop]; some terminals fill with FF where the standard has EE."""
        try:
            written = unit_bytes(unit, self.afn, self.up, self.edition)
        except UsageError:
            return False
        found = self.buf[at:stop]
        return written == found or (
            len(written) == len(found)
            and all(a == b or (a == FILL and b == 0xFF) for a, b in zip(written, found, strict=True))
        )

    def tolerant(self, at: int) -> tuple[list[Unit], bytes]:
        """What can be read before the first thing that cannot, and the bytes behind the units."""
        units: list[Unit] = []
        while at < self.end:
            pending = self.identifier(at)
            if not pending:
                found = dadt.parse(self.buf[at : at + 4]) if self.end - at >= 4 else None
                if found is None:
                    return units, self.buf[at : self.end]
                units.append(Unit(found[0][0], 0, None, self.buf[at : at + 4], NO_CLASS))
            at += 4
            for i, (pn, fn) in enumerate(pending):
                variants = self.variants(fn) or ()
                for variant in variants:
                    try:
                        data, stop = variant.decode(self.buf, at, self.end, self.edition)
                    except Unfit:
                        continue
                    unit = Unit(pn, fn, data, joined=i > 0)
                    if variant.open and not self.canonical(unit, at, stop):
                        continue
                    units.append(unit)
                    at = stop
                    break
                else:
                    raw = self.buf[at : self.end]
                    units.append(Unit(pn, fn, None, raw, SHORT if variants else UNKNOWN_FN, i > 0))
                    units += [Unit(p, f, None, b"", BEHIND, True) for p, f in pending[i + 1 :]]
                    return units, b""
        return units, b""


def read_units(buf: bytes, at: int, end: int, afn: int, up: bool, edition: str) -> tuple[list[Unit], bytes]:
    """The units of buf[at:end] and the bytes behind them that are none. Never raises."""
    area = _Area(buf, end, afn, up, edition)
    units = area.plain(at)
    if units is None:
        units = area.search(at, (), False, {})
    if units is None:
        return area.tolerant(at)
    return units, b""


def write_units(units: Sequence[Unit], afn: int, up: bool, edition: str) -> bytes:
    """The data area. UsageError names the unit whose values or identifier do not fit."""
    out = bytearray()
    i = 0
    while i < len(units):
        stop = i + 1
        while stop < len(units) and units[stop].joined:
            stop += 1
        run = units[i:stop]
        out += _identifier(run)
        for unit in run:
            out += unit_bytes(unit, afn, up, edition)
        i = stop
    return bytes(out)


def _identifier(run: Sequence[Unit]) -> bytes:
    if len(run) == 1:
        return dadt.single(run[0].pn, run[0].fn) if run[0].fn else b""
    points, classes = sorted({u.pn for u in run}), sorted({u.fn for u in run})
    if [(u.pn, u.fn) for u in run] != [(pn, fn) for pn in points for fn in classes]:
        raise UsageError(
            "units that share an identifier are every point with every class, in ascending order: "
            + ", ".join(f"p{u.pn} F{u.fn}" for u in run)
        )
    return dadt.combined(points, classes)


def unit_bytes(unit: Unit, afn: int, up: bool, edition: str) -> bytes:
    """The data unit without its identifier."""
    if unit.data is None or (unit.fault == UNKNOWN_FN and not unit.data):
        return unit.raw
    row = lookup(afn, unit.fn, edition)
    if row is None:
        if unit.data:
            raise UsageError(f"AFN {afn:02X} has no F{unit.fn} in the tables: give its bytes as raw")
        return b""
    try:
        return row.layout(afn, up).encode(unit.data, edition)
    except UsageError as error:
        raise UsageError(f"AFN {afn:02X} F{unit.fn} p{unit.pn} {row.name}: {error}") from None


def join(units: Sequence[Unit]) -> list[Unit]:
    """The same units in few identifiers (for requests): reordered point by point where they share one."""
    first: dict[tuple[int, int], Unit] = {}
    for unit in units:
        first.setdefault((unit.pn, unit.fn), unit)
    if len(first) != len(units):
        raise UsageError("the same point and class is wanted twice: ask once")
    return [
        msgspec.structs.replace(first[pn, fn], joined=(pn, fn) != (points[0], classes[0]))
        for points, classes in dadt.group(first)
        for pn in points
        for fn in classes
    ]
