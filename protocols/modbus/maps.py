"""Register maps (寄存器表) of meters as data: profiles/*.toml, with `inherits`, validated whole.

A file states defaults (function, type, order, max_registers, source), `[[block]]` ranges that may be read across holes,
and one `[[register]]` a value. An inheriting map keeps the other's rows; a row of the same name replaces it,
`without = ["name"]` drops it. Every fault is reported with its file and row; a map with a fault is not loaded.

Addresses are wire addresses (0-based). In a map of kind "sunspec" they are offsets inside the model's block, whose
place the device tells.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from ..common.errors import UsageError
from .words import ORDERS, TYPES, UNITS, Order

MAX_READ: Final = 125
_BUILTIN: Final = Path(__file__).with_name("profiles")
_MAX_DEPTH: Final = 8
_Row = TypeVar("_Row")


class Register(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value of a device. value = raw x scale / divisor, then the unit's own divisor (W -> kW).

    name: quantity of model/quantities.toml (use "reading") or free (use "parameter"); sf: name of the SunSpec scale
    register (use "scale") that holds the power of ten; coding: "power-factor-4q" = folded at ±1; clause: the source.
    """

    name: str
    address: int
    unit: str = ""
    function: int = 3
    type: str = "uint16"
    order: Order = "ABCD"
    divisor: float = 1
    scale: float = 1
    sf: str = ""
    coding: Literal["", "power-factor-4q"] = ""
    use: Literal["reading", "parameter", "scale"] = "reading"
    clause: str = ""

    @property
    def count(self) -> int:
        """Registers taken."""
        return TYPES[self.type].registers

    @property
    def end(self) -> int:
        """First address behind the value."""
        return self.address + self.count

    @property
    def kept_unit(self) -> str:
        """Unit of the decoded value."""
        return UNITS[self.unit][0]

    @property
    def quotient(self) -> float:
        """By which raw is divided to give the value in `kept_unit` (before any SunSpec scale)."""
        return self.divisor * UNITS[self.unit][1] / self.scale


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Addresses first … last (inclusive) that the device answers in one read, unused ones among them."""

    first: int
    last: int
    function: int = 3
    note: str = ""


class RegisterMap(msgspec.Struct, frozen=True, kw_only=True):
    """A whole map. not_available: raw pattern of "none" by type. models: SunSpec model numbers with this layout."""

    name: str
    title_en: str
    title_zh: str
    source: str
    kind: Literal["fixed", "sunspec"]
    models: tuple[int, ...]
    max_registers: int
    not_available: dict[str, int]
    blocks: tuple[Block, ...]
    registers: tuple[Register, ...]

    @property
    def by_name(self) -> dict[str, Register]:
        """Rows by name."""
        return {r.name: r for r in self.registers}

    @property
    def readings(self) -> tuple[str, ...]:
        """Names of all quantities."""
        return tuple(r.name for r in self.registers if r.use == "reading")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all parameters."""
        return tuple(r.name for r in self.registers if r.use == "parameter")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file as written, rows still raw so that each fault can name its row."""

    inherits: str | None = None
    without: tuple[str, ...] = ()
    title_en: str = ""
    title_zh: str = ""
    source: str = ""
    kind: Literal["fixed", "sunspec"] | None = None
    models: tuple[int, ...] = ()
    function: int | None = None
    type: str | None = None
    order: str | None = None
    max_registers: int | None = None
    not_available: dict[str, str] | None = None
    block: tuple[dict[str, Any], ...] = ()
    register: tuple[dict[str, Any], ...] = ()


def map_names() -> list[str]:
    """Names of the maps that come with the product."""
    return sorted(p.name[:-5] for p in _BUILTIN.iterdir() if p.name.endswith(".toml"))


def load_map(name: str, directory: Path | None = None) -> RegisterMap:
    """The map called `name`; an operator's file in `directory` goes first. UsageError names all faults."""
    return _load(name, directory)


@cache
def _load(name: str, directory: Path | None) -> RegisterMap:
    faults: list[str] = []
    loaded = _resolve(name, directory, (), faults)
    if loaded is not None and not faults:
        faults += _check_whole(loaded)
    if faults or loaded is None:
        raise UsageError("\n".join(faults))
    return loaded


def _text(name: str, directory: Path | None) -> str | None:
    if not name or "/" in name or "\\" in name or name.startswith("."):
        return None
    places = (directory, _BUILTIN) if directory else (_BUILTIN,)
    for place in places:
        file = place.joinpath(f"{name}.toml")
        if file.is_file():
            return file.read_text(encoding="utf-8")
    return None


def _resolve(name: str, directory: Path | None, chain: tuple[str, ...], faults: list[str]) -> RegisterMap | None:
    """Load `name` and what it inherits; None when the file itself is unreadable."""
    if name in chain or len(chain) >= _MAX_DEPTH:
        faults.append(f"register map {chain[0]}: inherits in a circle or too deep ({' -> '.join((*chain, name))})")
        return None
    try:
        text = _text(name, directory)
        if text is None:
            known = ", ".join(map_names())
            faults.append(f"no register map is called {name!r}; known maps: {known}")
            return None
        file = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, msgspec.ValidationError) as error:
        faults.append(f"{name}.toml: {error}")
        return None
    base = _resolve(file.inherits, directory, (*chain, name), faults) if file.inherits else None
    return _build(name, file, base, faults)


def _build(name: str, file: _File, base: RegisterMap | None, faults: list[str]) -> RegisterMap:
    given = {"function": file.function, "type": file.type, "order": file.order, "clause": file.source or None}
    defaults = {k: v for k, v in given.items() if v is not None}
    own = list(_rows(name, "register", file.register, defaults, Register, faults))
    names = [r.name for r in own]
    faults += [f"{name}.toml: register {n}: stands twice" for n in sorted({n for n in names if names.count(n) > 1})]
    kept = {r.name: r for r in base.registers} if base else {}
    for gone in file.without:
        if kept.pop(gone, None) is None:
            faults.append(f"{name}.toml: without: {gone!r} is not in the inherited map")
    kept.update({r.name: r for r in own})
    only_function = {"function": file.function} if file.function is not None else {}
    blocks = tuple(_rows(name, "block", file.block, only_function, Block, faults))
    return RegisterMap(
        name=name,
        title_en=file.title_en or (base.title_en if base else name),
        title_zh=file.title_zh or (base.title_zh if base else name),
        source=file.source or (base.source if base else ""),
        kind=file.kind or (base.kind if base else "fixed"),
        models=file.models or (base.models if base else ()),
        max_registers=file.max_registers or (base.max_registers if base else MAX_READ),
        not_available=_patterns(name, file, base, faults),
        blocks=blocks or (base.blocks if base else ()),
        registers=tuple(sorted(kept.values(), key=lambda r: (r.function, r.address))),
    )


def _patterns(name: str, file: _File, base: RegisterMap | None, faults: list[str]) -> dict[str, int]:
    """Raw "none" patterns, written as hex text because a TOML integer is signed."""
    if file.not_available is None:
        return base.not_available if base else {}
    patterns = {}
    for type_name, text in file.not_available.items():
        try:
            patterns[type_name] = int(text, 16)
        except ValueError:
            faults.append(f"{name}.toml: not_available: {type_name} = {text!r} is not hexadecimal")
    return patterns


def _rows(
    name: str, what: str, raw: Sequence[dict[str, Any]], defaults: dict[str, Any], kind: type[_Row], faults: list[str]
) -> Iterator[_Row]:
    for number, row in enumerate(raw, 1):
        try:
            yield msgspec.convert({**defaults, **row}, kind)
        except msgspec.ValidationError as error:
            faults.append(f"{name}.toml: {what} {number} ({row.get('name', '?')}): {error}")


def _check_whole(loaded: RegisterMap) -> list[str]:
    """Faults of values and of rows against each other; each names the map and the row."""
    faults = [f"register map {loaded.name}: {text}" for text in _check_head(loaded)]
    scales = {r.name for r in loaded.registers if r.use == "scale"}
    for r in loaded.registers:
        faults += [f"register map {loaded.name}: register {r.name}: {text}" for text in _check_row(loaded, r, scales)]
    if not faults:
        ordered = loaded.registers
        faults += [
            f"register map {loaded.name}: register {b.name}: overlaps {a.name} at {b.address:#06x}"
            for a, b in pairwise(ordered)
            if a.function == b.function and b.address < a.end
        ]
    return faults


def _check_head(loaded: RegisterMap) -> Iterator[str]:
    if not loaded.registers:
        yield "has no registers"
    if not 4 <= loaded.max_registers <= MAX_READ:
        yield f"max_registers {loaded.max_registers} is not in 4 … {MAX_READ}"
    if not loaded.source:
        yield "source is missing"
    if loaded.kind == "sunspec" and not loaded.models:
        yield "a sunspec map names its models"
    for name, pattern in loaded.not_available.items():
        if name not in TYPES or not 0 <= pattern < 1 << (8 * TYPES[name].size):
            yield f"not_available: {name} = {pattern} is no pattern of that type"
    for block in loaded.blocks:
        if not 0 <= block.first <= block.last <= 0xFFFF:
            yield f"block {block.first}: not first <= last within 0 … 65535"


def _check_row(loaded: RegisterMap, r: Register, scales: set[str]) -> Iterator[str]:
    if r.type not in TYPES:
        yield f"type {r.type!r} is not one of {', '.join(TYPES)}"
    elif not r.address >= 0 or r.end > 0x10000:
        yield f"address {r.address} is not in 0 … 65535"
    if r.order not in ORDERS:
        yield f"order {r.order!r} is not one of {', '.join(ORDERS)}"
    if r.unit not in UNITS:
        yield f"unit {r.unit!r} is not one of {', '.join(UNITS)}"
    if r.function not in (3, 4):
        yield f"function {r.function} does not read registers (3 or 4)"
    if not r.divisor > 0 or not r.scale > 0:
        yield "divisor and scale must be positive"
    if r.sf and r.sf not in scales:
        yield f'sf names {r.sf!r}, which is no register of use "scale"'
    if r.sf and loaded.kind != "sunspec":
        yield "sf is for sunspec maps"
    if r.use == "scale" and r.type != "sunssf":
        yield "a scale register has the type sunssf"
