"""The table of quantities (数据项): stable numbers, names, units and decimals, loaded once from quantities.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

KINDS: Final = ("instant", "average", "register", "energy", "demand", "time", "status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One quantity: `id` is stored (int2), `unit` is of the secondary side, `decimals` bounds what is kept."""

    id: int
    name: str
    zh: str
    unit: str
    kind: str
    decimals: int


@cache
def _table() -> tuple[Quantity, ...]:
    text = Path(__file__).with_name("quantities.toml").read_text(encoding="utf-8")
    rows = tuple(Quantity(**row) for row in tomllib.loads(text)["quantity"])
    if len({q.id for q in rows}) != len(rows) or len({q.name for q in rows}) != len(rows):
        raise ValueError("quantities.toml: an id or a name stands twice")
    bad = [q.name for q in rows if q.kind not in KINDS or not 0 < q.id < 32768]
    if bad:
        raise ValueError(f"quantities.toml: wrong kind or id out of int2: {', '.join(bad)}")
    return rows


@cache
def by_name() -> dict[str, Quantity]:
    """Name to quantity."""
    return {q.name: q for q in _table()}


@cache
def by_id() -> dict[int, Quantity]:
    """Number to quantity."""
    return {q.id: q for q in _table()}


def quantity(name: str) -> Quantity:
    """The quantity called `name`; KeyError with the name if there is none."""
    return by_name()[name]
