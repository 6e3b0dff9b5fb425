"""Class-2 curves (曲线, AFN 0D with a time scale Td_c): data units straight to numpy arrays, and back.

    DA DT   mm hh DD MM YY  density  n   point 1 ... point n   [the next class or point of the identifier, or DA DT] ...
            start (A.15)    8.1          A.2 ... A.25

No object for a value and no dictionary for a unit. `read_curves` takes one frame at a time; `gather` takes many and is
far quicker, because frames that look alike (terminals of one region asked for the same hour) are laid side by side and
decoded together. Both take frames whose units are all curves; any other (mixed with freezes, vendor classes, broken) is
left to message.py, which reads everything. What the classes hold comes from items/history.toml.

Times are the terminal's naive clock as µs, as if it were UTC; whether point i is the start or the end of its interval
is not decided here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..common.errors import UsageError
from ..common.times import NO_TIME, device_times, encode_datetime
from . import dadt
from .curve_formats import F8, FORMATS, U1, CurveFormat, Wire, curve_format, encode_values
from .formats import make_format
from .frame import Frame
from .layout import INTERVAL_MIN, Field, Group
from .table import lookup, table

AFN: Final = 0x0D
TIME_BYTES: Final = 5
SCALE_BYTES: Final = 7  # start, density, n
MAX_POINTS: Final = 255
_FORMS: Final = 64  # forms of frames looked for among frames of one length; what is left is taken one by one
_CHUNK_BYTES: Final = 1 << 20  # frames laid side by side at a time
_ANY: Final = "2013"

_decode_start = cast("Callable[[bytes], datetime | None]", make_format("A.15")[0].decode)
_STEP_S: Final = {density: 60 * minutes for density, minutes in INTERVAL_MIN.items()}


class Column(msgspec.Struct, frozen=True):
    """One number of a point: key of the table, quantity of model/quantities.toml (may be empty), unit."""

    name: str
    quantity: str
    unit: str


class CurveClass(msgspec.Struct, frozen=True):
    """A class of curves. pn: what the points are (M, G or D); format: of every number; columns: numbers of a point."""

    fn: int
    pn: str
    format: str
    columns: tuple[Column, ...]

    @property
    def coder(self) -> CurveFormat:
        """Reads the numbers."""
        return curve_format(self.format)

    @property
    def width(self) -> int:
        """Bytes of a point."""
        return self.coder.width * len(self.columns)


@cache
def curve_classes() -> Mapping[int, CurveClass]:
    """Every class of curves by its Fn (no edition moves them)."""
    found = {}
    for fn in {row.fn for row in table().rows if AFN in row.afn}:
        row = lookup(AFN, fn, _ANY)
        layout = row.fields.single if row is not None else None
        if row is None or layout is None or [getattr(n, "name", "") for n in layout.nodes[:2]] != ["td_c", "density"]:
            continue
        points = layout.nodes[3]
        numbers = points.fields if isinstance(points, Group) else (points,)
        fields = [n for n in numbers if isinstance(n, Field) and n.format in FORMATS]
        if len(fields) != len(numbers):
            continue  # a vendor's class of unknown form
        columns = tuple(Column(f.name, f.quantity, f.unit) for f in fields)
        found[fn] = CurveClass(fn, row.pn, fields[0].format, columns)
    return found


@cache
def _spans() -> Mapping[int, int]:
    """Bytes of a point by Fn."""
    return {fn: one.width for fn, one in curve_classes().items()}


@cache
def _readers() -> Mapping[int, tuple[Callable[[Wire, int, int, F8 | None], F8], int, int]]:
    """How the points are read, bytes and numbers of a point, by Fn."""
    return {fn: (one.coder.read, one.width, len(one.columns)) for fn, one in curve_classes().items()}


class Span(NamedTuple):
    """A curve in a data area: `at` is the offset of its time scale."""

    pn: int
    fn: int
    at: int
    density: int
    n: int


def area(frame: Frame) -> bytes | None:
    """The data area (identifiers and units, no AUX) of an uplink frame of AFN 0D; None for any other frame."""
    user, control = frame.user, frame.control
    if len(user) < 2 or user[0] != AFN or control < 0x80:
        return None
    return user[2 : len(user) - _AUX[control & 0x20, user[1] & 0x80]]


# bytes behind the data area by ACD (event counters) and TpV (time tag)
_AUX: Final = {(0, 0): 0, (0x20, 0): 2, (0, 0x80): 6, (0x20, 0x80): 8}


def walk(data: bytes, at: int = 0, end: int | None = None) -> list[Span] | None:
    """The curves of data[at:end], in order; None where anything else stands there or the last one is cut short."""
    widths, spans = _spans(), []
    if end is None:
        end = len(data)
    while at < end:
        named = dadt.parse(data[at : at + 4]) if end - at >= 4 else None
        if named is None or not named[1]:
            return None
        at += 4
        for pn in named[0]:
            for fn in named[1]:
                if fn not in widths or at + SCALE_BYTES > end:
                    return None
                density, n = data[at + 5], data[at + 6]
                spans.append(Span(pn, fn, at, density, n))
                at += SCALE_BYTES + n * widths[fn]
                if at > end or density not in _STEP_S:
                    return None
    return spans


# --- one frame --------------------------------------------------------------------------------------------------------
class Curve(NamedTuple):
    """A curve of one point. start: label of the first value by the terminal's clock, None where it is no time.

    values: float64 (n,), or (n, columns) for a class with several numbers a point; NaN = the terminal has none.
    """

    pn: int
    fn: int
    start: datetime | None
    step_s: int
    values: F8


def read_curves(frame: Frame) -> list[Curve] | None:
    """The curves of one frame; None when it has anything else (message.py reads that)."""
    user, control = frame.user, frame.control
    if len(user) < 2 or user[0] != AFN or control < 0x80:
        return None
    readers, at, end = _readers(), 2, len(user) - _AUX[control & 0x20, user[1] & 0x80]
    found = []
    while at < end:  # the same walk as in `walk`, without a list of spans: this is where a frame's time goes
        named = dadt.parse(user[at : at + 4]) if end - at >= 4 else None
        if named is None or not named[1]:
            return None
        at += 4
        for pn in named[0]:
            for fn in named[1]:
                reader = readers.get(fn)
                body = at + SCALE_BYTES
                if reader is None or body > end:
                    return None
                read, width, columns = reader
                n, step_s = user[at + 6], _STEP_S.get(user[at + 5])
                stop = body + n * width
                if stop > end or step_s is None:
                    return None
                values = read(user, n * columns, body, None) if n else np.empty(0)
                start = _decode_start(user[at : at + TIME_BYTES])
                found.append(Curve(pn, fn, start, step_s, values if columns == 1 else values.reshape(n, columns)))
                at = stop
    return found


# --- many frames ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class CurveArrays:
    """All curves of one step and length, of any classes: k rows.

    frame int32 (k,): index of the frame it came from; pn int32; fn int16; column int8: which number of a point;
    start_us int64: naive clock of the terminal, NO_TIME where it is no time; value float64 (k, n), NaN = none.
    """

    frame: NDArray[np.int32]
    pn: NDArray[np.int32]
    fn: NDArray[np.int16]
    column: NDArray[np.int8]
    start_us: NDArray[np.int64]
    step_s: int
    value: F8


def gather(areas: Sequence[bytes]) -> tuple[list[CurveArrays], list[int]]:
    """The curves of many data areas (see `area`), and the indices of those that hold anything else, ascending.

    Same curves as `read_curves` frame by frame, in another order.
    """
    parts: list[_Part] = []
    rest: list[int] = []
    lengths = np.fromiter(map(len, areas), np.int64, len(areas))
    order = np.argsort(lengths, kind="stable")
    edges = [0, *(np.flatnonzero(np.diff(lengths[order])) + 1).tolist(), len(areas)]
    for begin, end in itertools.pairwise(edges):
        length = int(lengths[order[begin]]) if end > begin else 0
        step = max(1, _CHUNK_BYTES // max(length, 1))
        for i in range(begin, end, step):
            _gather_alike(areas, order[i : min(i + step, end)].astype(np.int32), length, parts, rest)
    return _join(parts), sorted(rest)


@dataclass(frozen=True, slots=True)
class _Part:
    """Curves of one class and length out of frames of one form. wire: uint8 (k, n * width); start uint8 (k, 5)."""

    kind: CurveClass
    density: int
    n: int
    frame: NDArray[np.int32]
    pn: NDArray[np.int32]
    start: U1
    wire: U1


@dataclass(frozen=True, slots=True)
class _Form:
    """What frames of one form share. fixed: offsets of bytes that must be equal; single: identifiers of one point."""

    spans: list[Span]
    fixed: NDArray[np.intp]
    single: list[int]


def _form(data: bytes) -> _Form | None:
    spans = walk(data)
    if not spans:
        return None
    fixed: list[int] = []
    single: list[int] = []
    end = 0  # behind the unit before
    for span in spans:
        if span.at != end:  # an identifier stands between; which point it names may differ from frame to frame
            at = span.at - 4
            if data[at + 1] and data[at].bit_count() == 1:
                single.append(at)
            else:
                fixed += (at, at + 1)
            fixed += (at + 2, at + 3)
        fixed += (span.at + 5, span.at + 6)
        end = span.at + SCALE_BYTES + span.n * _spans()[span.fn]
    return _Form(spans, np.array(fixed, np.intp), single)


def _gather_alike(
    areas: Sequence[bytes], frame: NDArray[np.int32], length: int, parts: list[_Part], rest: list[int]
) -> None:
    """Frames of one length: find a form, take all that have it, look for the next form among the others."""
    stack = np.frombuffer(b"".join([areas[i] for i in frame.tolist()]), np.uint8).reshape(len(frame), length)
    for _ in range(_FORMS):
        if not len(frame):
            return
        form = _form(areas[int(frame[0])])
        if form is None:
            rest.append(int(frame[0]))
            stack, frame = stack[1:], frame[1:]
            continue
        same: NDArray[np.bool_] = np.logical_and.reduce(stack[:, form.fixed] == stack[0, form.fixed], axis=1)
        for at in form.single:
            same &= _POINT_OF[stack[:, at], stack[:, at + 1]] > 0
        if same.all():
            _take(form, stack, frame, parts)
            return
        _take(form, stack[same], frame[same], parts)
        stack, frame = stack[~same], frame[~same]
    for i in frame.tolist():  # too many forms: each by itself
        form = _form(areas[i])
        if form is None:
            rest.append(i)
        else:
            one = np.frombuffer(areas[i], np.uint8).reshape(1, length)
            _take(form, one, np.array([i], np.int32), parts)


def _points_of() -> NDArray[np.int32]:
    """Number of the point by DA1 and DA2; 0 where DA does not name exactly one point of a group."""
    table = np.zeros((256, 256), np.int32)
    for bit in range(8):
        table[1 << bit, 1:] = np.arange(255) * 8 + bit + 1
    return table


_POINT_OF: Final = _points_of()


def _take(form: _Form, stack: U1, frame: NDArray[np.int32], parts: list[_Part]) -> None:
    """The curves of frames of one form."""
    classes = curve_classes()
    points: NDArray[np.int32] | None = None  # of an identifier of one point, frame by frame
    end = 0
    for span in form.spans:
        if span.at != end:
            at = span.at - 4
            points = _POINT_OF[stack[:, at], stack[:, at + 1]] if at in form.single else None
        kind = classes[span.fn]
        body = span.at + SCALE_BYTES
        end = body + span.n * kind.width
        pn = np.full(len(frame), span.pn, np.int32) if points is None else points
        if span.n:
            start = stack[:, span.at : span.at + TIME_BYTES]
            parts.append(_Part(kind, span.density, span.n, frame, pn, start, stack[:, body:end]))


def _join(parts: list[_Part]) -> list[CurveArrays]:
    """Parts of one step and length as one block; each format of it is decoded at once, into its place."""
    shelves: dict[tuple[int, int], dict[tuple[str, int], list[_Part]]] = {}
    for part in parts:
        shelf = shelves.setdefault((part.density, part.n), {})
        shelf.setdefault((part.kind.format, len(part.kind.columns)), []).append(part)
    return [_block(shelf, density, n) for (density, n), shelf in shelves.items()]


def _block(shelf: Mapping[tuple[str, int], list[_Part]], density: int, n: int) -> CurveArrays:
    rows = [part for (_, columns), group in shelf.items() for _ in range(columns) for part in group]
    column = [i for (_, columns), group in shelf.items() for i in range(columns) for _ in group]
    sizes = [len(part.frame) for part in rows]
    value = np.empty((sum(sizes), n))
    at = 0
    for (name, columns), group in shelf.items():
        wire = np.concatenate([part.wire for part in group])
        k = len(wire)
        place = value[at : at + k * columns]
        if columns == 1:
            curve_format(name).decode(wire.reshape(-1).data, k * n, 0, place.reshape(-1))
        else:
            numbers = curve_format(name).decode(wire.reshape(-1).data, k * n * columns)
            place.reshape(columns, k, n)[:] = numbers.reshape(k, n, columns).transpose(2, 0, 1)
        at += k * columns
    return CurveArrays(
        np.concatenate([part.frame for part in rows]),
        np.concatenate([part.pn for part in rows]),
        np.repeat(np.array([part.kind.fn for part in rows], np.int16), sizes),
        np.repeat(np.array(column, np.int8), sizes),
        device_times(np.concatenate([part.start for part in rows])),
        _STEP_S[density],
        value,
    )


# --- the terminal's side ----------------------------------------------------------------------------------------------
def encode_curve(fn: int, start: datetime, density: int, values: F8) -> bytes:
    """A data unit: Td_c and points, NaN as fill EE, rounded to the digits of the format.

    start: the terminal's naive clock; values (n,) or (n, columns). UsageError: no such class or density, more than
    MAX_POINTS points, or a value that does not fit.
    """
    kind = curve_classes().get(fn)
    if kind is None:
        raise UsageError(f"AFN 0D F{fn} is no class of curves: choose one of {', '.join(map(str, curve_classes()))}")
    if density not in INTERVAL_MIN:
        raise UsageError(f"density {density} is none: choose one of {', '.join(map(str, INTERVAL_MIN))}")
    n = len(values)
    if n > MAX_POINTS or values.size != n * len(kind.columns):
        raise UsageError(f"a curve of F{fn} has at most {MAX_POINTS} points of {len(kind.columns)} numbers")
    scale = encode_datetime(start, seconds=False) + bytes((density, n))
    return scale + encode_values(kind.format, values)


__all__ = [
    "NO_TIME", "Column", "Curve", "CurveArrays", "CurveClass", "Span", "Wire", "area", "curve_classes", "encode_curve",
    "gather", "read_curves", "walk",
]  # fmt: skip
