"""Data units filled by the table: every field that names a quantity gets its value, in the shape of its format.

The rows of AFN 0C and 0D say which quantity stands in which field, so a terminal can answer any of them without code
of its own. What has no value stays None (EE on the wire).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Final

from ...protocols.qgdw1376.layout import POINTS_OF_HOUR, Bits, Count, Field, Group, Layout, Node, Variant, When
from . import fields
from .parameters import Unit

Source = Callable[[str], object]
"""Quantity name -> number, NaN, or a naive local time; None = not known here."""

# format -> (decimals, most, signed)
NUMBERS: Final[dict[str, tuple[int, float, bool]]] = {
    "A.5": (1, 799.9, True), "A.6": (2, 79.99, True), "A.7": (1, 999.9, False), "A.8": (0, 9999, False),
    "A.9": (4, 79.9999, True), "A.10": (0, 999_999, False), "A.11": (2, 999_999.99, False),
    "A.13": (4, 9999.9999, False), "A.14": (4, 999_999.9999, False), "A.22": (1, 9.9, False),
    "A.23": (4, 99.9999, False), "A.25": (3, 799.999, True), "A.26": (3, 9.999, False), "A.27": (0, 99_999_999, False),
}  # fmt: skip
TIMES: Final = {
    "A.16": "%d %H:%M:%S", "A.17": "%m-%d %H:%M", "A.18": "%d %H:%M", "A.19": "%H:%M", "A.21": "%Y-%m",
    "A.24": "%d %H",
}  # fmt: skip
REGISTER_DECIMALS: Final = 2
"""Decimals of a meter's energy register; a terminal cannot know more of it, whatever the format holds."""


def shaped(value: object, form: str, *, register: bool = False, percent: bool = False) -> object:
    """A measured value as the format takes it; None where it has none or does not fit."""
    if isinstance(value, datetime):
        if form in TIMES:
            return value.strftime(TIMES[form])
        return value.replace(second=0) if form == "A.15" else value
    if not isinstance(value, int | float | Decimal):
        return None
    number = float(value)
    if math.isnan(number):
        return None
    if form == "A.2":
        return fields.power(number)
    if form == "A.3":
        return fields.energy(number)
    if form.startswith("bs"):
        return [i + 1 for i in range(64) if int(number) >> i & 1]
    if form.startswith(("u", "be")):
        most = (1 << 8 * int(form.strip("ube?"))) - 1
        return min(max(round(number), 0), most)
    if form not in NUMBERS:
        return None
    decimals, most_value, signed = NUMBERS[form]
    number = number * 100 if percent else number
    if abs(number) > most_value or (number < 0 and not signed):
        return None
    if register:
        return fields.cut(number, min(decimals, REGISTER_DECIMALS))
    return fields.rounded(number, decimals)


def blank(form: str) -> object:
    """What stands for no value in a format that has no word for it: EE in every byte."""
    match = re.fullmatch(r"(u|be|bs|hex)(\d+)(@0)?", form)
    if match is None:
        return None
    size = int(match[2]) // 8 if match[1] == "bs" else int(match[2])
    word = int.from_bytes(b"\xee" * size, "little")
    if match[1] == "bs":
        first = 0 if match[3] else 1
        return [i + first for i in range(8 * size) if word >> i & 1]
    return "EE" * size if match[1] == "hex" else word


def is_register(quantity: str) -> bool:
    """A cumulative reading of the meter, which is cut and not rounded."""
    return (
        quantity.split("_")[0] in ("forward", "reverse", "combined", "reactive")
        and "demand" not in quantity
        and (not quantity.endswith("_energy") and not quantity.startswith("reactive_power"))
    )


def tariff(quantity: str, place: int) -> str:
    """Quantity of element `place` of an array over tariffs, whose first is the total."""
    if not place:
        return quantity
    stem, time = quantity.removesuffix("_time"), "_time" if quantity.endswith("_time") else ""
    return f"{stem.removesuffix('_total')}_t{place}{time}"


def _one(node: Field, quantity: str, source: Source) -> object:
    value = source(quantity) if quantity else None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return blank(node.format)
    percent = node.unit == "%" and quantity.startswith("power_factor") and not quantity.endswith("minutes")
    return shaped(value, node.format, register=is_register(quantity), percent=percent)


def _many(count: Count | None, data: Mapping[str, object]) -> int:
    if count is None or count.kind == "end":
        return 0
    if count.kind == "number":
        return count.number
    if count.kind == "hour_points":
        return POINTS_OF_HOUR.get(fields.integer(data, "density"), 0)
    value = data.get(count.field)
    return (len(value) if isinstance(value, list) else fields.integer(data, count.field)) + count.number


def _fill(nodes: Sequence[Node], data: Unit, source: Source, place: int = 0) -> None:
    for node in nodes:
        if isinstance(node, Bits):
            for part in node.parts:
                data.setdefault(part.name, [0] * len(part.spans) if len(part.spans) > 1 else 0)
        elif isinstance(node, Field) and node.name not in data:
            if node.count is None:
                data[node.name] = _one(node, tariff(node.quantity, place) if node.quantity else "", source)
            else:
                wanted = range(_many(node.count, data))
                data[node.name] = [
                    _one(node, tariff(node.quantity, i) if node.quantity else "", source) for i in wanted
                ]
        elif isinstance(node, When):
            if data.get(node.field) in node.values:
                _fill(node.fields, data, source, place)
        elif isinstance(node, Group) and node.name not in data:
            rows: list[Unit] = [{} for _ in range(_many(node.count, data))]
            for i, row in enumerate(rows):
                _fill(node.fields, row, source, i)
            data[node.name] = rows


@cache
def variant_of(layout: Layout, edition: str) -> Variant:
    """The variant of a layout that this edition sends."""
    return layout.preferred(edition)[0]


def fill(layout: Layout, edition: str, given: Mapping[str, object], source: Source) -> Unit:
    """A data unit: what is given, and for every other field the value of its quantity."""
    data: Unit = dict(given)
    _fill(variant_of(layout, edition).nodes, data, source)
    return data


def quantities(layout: Layout, edition: str) -> list[str]:
    """Names of all quantities that a layout holds."""
    return list(_quantities(variant_of(layout, edition).nodes))


def _quantities(nodes: Sequence[Node]) -> list[str]:
    found: list[str] = []
    for node in nodes:
        if isinstance(node, Field) and node.quantity:
            found.append(node.quantity)
        elif isinstance(node, Group):
            found += _quantities(node.fields)
    return found
