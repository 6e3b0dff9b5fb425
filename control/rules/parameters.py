"""Which parameters of a terminal two people must sign (domain 9.2), and which touch control. Data, not protocol code.

Two signatures: ratios, a lower security floor, keys and authentication, weaker protection, everything that control acts
by. One: the rest. Items are named as the terminal's protocol names them (Q/GDW 1376.1 AFN 04/0A).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from ...model.lang import tr


class Care(StrEnum):
    """Why a parameter needs care."""

    PLAIN = "plain"
    RATIO = "ratio"
    FLOOR = "floor"
    KEY = "key"
    PROTECTION = "protection"
    CONTROL = "control"


_CONTROL: Final = ("F12", "F14", "F18", "F19", "F20", "F57", *(f"F{n}" for n in range(41, 50)))
CARE: Final[Mapping[str, Care]] = MappingProxyType(
    dict.fromkeys(_CONTROL, Care.CONTROL)
    | {
        "F5": Care.KEY,  # authentication scheme
        "F11": Care.RATIO,  # pulse constants
        "F13": Care.RATIO,  # analog inputs
        "F17": Care.FLOOR,  # 保安定值
        "F25": Care.RATIO,  # PT and CT ratio
        "F58": Care.PROTECTION,  # hours until automatic 保电
    }
)
_WORDS: Final = MappingProxyType(
    {
        Care.RATIO: ("ratio", "变比"),
        Care.FLOOR: ("security floor", "保安定值"),
        Care.KEY: ("authentication", "认证"),
        Care.PROTECTION: ("protection", "保电"),
        Care.CONTROL: ("parameter of control", "控制参数"),
    }
)


def care_of(item: str) -> Care:
    """Why this item needs care."""
    return CARE.get(item, Care.PLAIN)


def touches_control(settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any of these parameters changes what a control in force does."""
    return any(care_of(str(s.get("item"))) in (Care.CONTROL, Care.FLOOR, Care.PROTECTION) for s in settings)


def why_two(item: str, wanted: Mapping[str, object], present: Mapping[str, object] | None) -> str:
    """Why two people must sign this change, or '' if one may. present: values in force, None = not known."""
    care = care_of(item)
    if care is Care.PLAIN:
        return ""
    if care is Care.FLOOR and present is not None:
        new, old = _numbers(wanted), _numbers(present)
        if new and old and min(new) >= max(old):
            return ""  # a higher floor protects more
    en, zh = _WORDS[care]
    return tr(f"{item}: {en}", f"{item}: {zh}")


def _numbers(values: Mapping[str, object]) -> list[float]:
    found = []
    for value in values.values():
        try:
            found.append(float(str(value)))
        except ValueError:
            continue
    return found
