"""Labels of field names for people: the name itself in English, items/terms.toml in Chinese."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources


@cache
def chinese() -> dict[str, str]:
    """Field name -> Chinese label."""
    text = resources.files(__package__).joinpath("items", "terms.toml").read_text(encoding="utf-8")
    return {str(k): str(v) for k, v in tomllib.loads(text)["zh"].items()}


def label(name: str, lang: str) -> str:
    """What a person reads for a field: in Chinese the label with the name behind it, else the name."""
    known = chinese().get(name) if lang == "zh" else None
    return name if known is None or known == name else f"{known} {name}"
