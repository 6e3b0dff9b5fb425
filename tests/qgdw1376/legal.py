"""Hypothesis strategies for legal data of any layout of protocols/qgdw1376/items: what a unit of a row may hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from hypothesis import strategies as st

from fuhe.protocols.qgdw1376.formats import DeviceTime, make_format
from fuhe.protocols.qgdw1376.layout import Bits, Count, Field, Group, Layout, Node, When, references

Draw = Callable[[st.SearchStrategy[Any]], Any]
Data = dict[str, Any]

_MOST: Final = 4  # elements of a counted list
_FIRST, _LAST = datetime(2000, 1, 1), datetime(2099, 12, 31, 23, 59)  # noqa: DTZ001 - a device's own clock


def _decimals(digits: int, decimals: int, *, signed: bool = False) -> st.SearchStrategy[Decimal]:
    top = 10**digits - 1
    return st.integers(-top if signed else 0, top).map(lambda n: Decimal(n).scaleb(-decimals))


def _text(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True)


_HOUR, _MINUTE, _DAY, _MONTH = "([01][0-9]|2[0-3])", "[0-5][0-9]", "(0[1-9]|[12][0-9]|3[01])", "(0[1-9]|1[0-2])"
_FORMATS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "A.1": st.builds(
        lambda at, week: DeviceTime(at.year, at.month, at.day, at.hour, at.minute, at.second, week=week),
        st.datetimes(_FIRST, _LAST),
        st.integers(0, 7),
    ),
    "A.2": st.builds(lambda n, e: Decimal(n).scaleb(e), st.integers(-999, 999), st.integers(-3, 4)),
    "A.3": st.builds(lambda n, e: Decimal(n).scaleb(e), st.integers(-9999999, 9999999), st.sampled_from((0, 3))),
    "A.4": st.integers(-79, 79),
    "A.5": st.integers(-7999, 7999).map(lambda n: Decimal(n).scaleb(-1)),
    "A.6": st.integers(-7999, 7999).map(lambda n: Decimal(n).scaleb(-2)),
    "A.7": _decimals(4, 1),
    "A.8": st.integers(0, 9999),
    "A.9": st.integers(-799999, 799999).map(lambda n: Decimal(n).scaleb(-4)),
    "A.10": st.integers(0, 999999),
    "A.11": _decimals(8, 2),
    "A.12": _text("[0-9]{12}"),
    "A.13": _decimals(8, 4),
    "A.14": _decimals(10, 4),
    "A.15": st.datetimes(_FIRST, _LAST).map(lambda at: at.replace(second=0, microsecond=0)),
    "A.16": _text(f"{_DAY} {_HOUR}:{_MINUTE}:{_MINUTE}"),
    "A.17": _text(f"{_MONTH}-{_DAY} {_HOUR}:{_MINUTE}"),
    "A.18": _text(f"(00|{_DAY}) {_HOUR}:{_MINUTE}"),
    "A.19": _text(f"{_HOUR}:{_MINUTE}"),
    "A.20": st.dates(date(2000, 1, 1), date(2099, 12, 31)),
    "A.21": _text(f"20[0-9][0-9]-{_MONTH}"),
    "A.22": _decimals(2, 1),
    "A.23": _decimals(6, 4),
    "A.24": _text(f"{_DAY} {_HOUR}"),
    "A.25": st.integers(-799999, 799999).map(lambda n: Decimal(n).scaleb(-3)),
    "A.26": _decimals(4, 3),
    "A.27": st.integers(0, 99999999),
    "ip": st.lists(st.integers(0, 255), min_size=4, max_size=4).map(lambda parts: ".".join(map(str, parts))),
    "dadt": st.builds(
        lambda points, fn: {"pn": points, "fn": [fn]},
        st.one_of(st.just([0]), st.integers(1, 2040).map(lambda p: [p])),
        st.integers(1, 248),
    ),
    "rest": st.binary(max_size=40).map(lambda wire: wire.hex().upper()),
}


def value(text: str) -> st.SearchStrategy[Any]:
    """Legal values of a format of the tables."""
    if text in _FORMATS:
        return _FORMATS[text]
    size = make_format(text)[0].size
    if text.startswith("bs"):
        first = 0 if text.endswith("@0") else 1
        most = 8 * (size or _MOST)
        return st.sets(st.integers(first, first + most - 1), max_size=12).map(sorted)
    if text.startswith("pairs"):
        return st.lists(st.integers(0, 3), min_size=4 * size, max_size=4 * size)
    if text.startswith("hex"):
        return st.binary(min_size=size, max_size=size).map(lambda wire: wire.hex().upper())
    if text.startswith("ascii"):
        return _text(f"[!-~]{{0,{size or 20}}}")
    if text.startswith("gbk"):
        return _text("[一-龥A-Za-z0-9]{0,40}")
    if text.startswith("digits"):
        return _text(f"[0-9]{{{2 * size}}}")
    if text.startswith("phone"):
        return _text(f"[0-9]{{0,{2 * size}}}")
    if text.startswith("bcd"):
        return st.integers(0, 10 ** (2 * size) - 1)
    top = (1 << 8 * size) - 1
    return st.integers(0, top).filter(lambda n: not (text.endswith("?") and n in (top, int("EE" * size, 16))))


def _number(count: Count, env: Data, draw: Draw) -> int:
    if count.kind == "number":
        return count.number
    if count.kind == "field":
        known = env[count.field]
        return (len(known) if isinstance(known, list) else int(known)) + count.number
    return int(draw(st.integers(1, _MOST)))


def _field(node: Field, env: Data, draw: Draw, counted: bool) -> Any:
    if counted and node.count is None and not node.format.startswith("bs"):
        return draw(st.integers(0, _MOST))
    one = value(node.format)
    if node.count is None:
        return draw(one)
    number = _number(node.count, env, draw)
    return draw(st.lists(one, min_size=number, max_size=number))


def _bits(node: Bits, draw: Draw, counted: frozenset[str]) -> Data:
    found: Data = {}
    for part in node.parts:
        codes = []
        for high, low in part.spans:
            most = _MOST if part.name in counted else (1 << high - low + 1) - 1
            code = draw(st.integers(0, min(most, len(part.names) - 1) if part.names else most))
            codes.append(part.names[code] if part.names else code * part.scale + part.add)
        found[part.name] = codes if len(part.spans) > 1 else codes[0]
    return found


def data(nodes: Sequence[Node], draw: Draw, env: Data | None = None) -> Data:
    """Legal data of these entries; sizes of texts are left to the encoder."""
    counted = references(nodes)
    env = {} if env is None else env
    found: Data = {}
    sizes = {n.size_field for n in nodes if isinstance(n, Field) and n.size_field}
    for node in nodes:
        if isinstance(node, Field) and node.name not in sizes:
            found[node.name] = _field(node, env | found, draw, node.name in counted)
        elif isinstance(node, Bits):
            found |= _bits(node, draw, counted)
        elif isinstance(node, Group):
            rows = [data(node.fields, draw, env | found) for _ in range(_number(node.count, env | found, draw))]
            found[node.name] = [list(row.values()) for row in rows] if node.flat else rows
        elif isinstance(node, When) and found.get(node.field) in node.values:
            found |= data(node.fields, draw, env | found)
    return found


def of_layout(layout: Layout) -> st.SearchStrategy[Data]:
    """Legal data of any variant of a layout."""

    @st.composite
    def build(draw: Draw) -> Data:
        return data(draw(st.sampled_from(layout.variants)).nodes, draw)

    return build()


def contained(want: Any, got: Any) -> bool:
    """Whether every value of `want` stands in `got` (which may have counts and derived keys besides)."""
    if isinstance(want, dict):
        return isinstance(got, dict) and all(k in got and contained(v, got[k]) for k, v in want.items())
    if isinstance(want, list):
        return isinstance(got, list) and len(want) == len(got) and all(map(contained, want, got))
    return bool(want == got)
