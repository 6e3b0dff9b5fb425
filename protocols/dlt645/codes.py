"""Codes of codes.toml by name: functions, error words, rate words, control actions, bits of the status words."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from ..common.errors import UsageError


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("codes.toml").read_text(encoding="utf-8"))


@cache
def function_name(function: int, version: str) -> tuple[str, str]:
    """(name, 中文) of a function code; `unknown_xx` where the edition has none."""
    found = _tables()["functions"][version].get(f"{function:02X}")
    return (found[0], found[1]) if found else (f"unknown_{function:02X}", f"未知功能 {function:02X}")


def known_function(function: int, version: str) -> bool:
    """Whether the edition has this function code."""
    return f"{function:02X}" in _tables()["functions"][version]


def bits(group: str, table: str, word: int, width: int) -> list[tuple[str, str]]:
    """(name, 中文) of every bit set, from bit 0 up; unnamed bits are `bit_n`. group: errors, execution, status."""
    rows = _tables()[group][table] if table else _tables()[group]
    found = []
    for bit in range(width):
        if word >> bit & 1:
            name = rows.get(str(bit), [f"bit_{bit}", f"位{bit}"])
            found.append((name[0], name[1]))
    return found


def error_text(word: int, version: str) -> str:
    """Code and meaning of an ERR byte, for reasons kept with an item."""
    names = [name for name, _zh in bits("errors", version, word, 8)]
    return f"ERR {word:02X}: {', '.join(names) or 'no reason given'}"


def status_bits(number: int) -> dict[int, tuple[str, str]]:
    """Bit -> (name, 中文) of status word 1–7."""
    rows = _tables()["status"]["phase" if number in (4, 5, 6) else str(number)]
    return {int(bit): (name[0], name[1]) for bit, name in rows.items()}


def rate_word(baud: int, version: str = "2007") -> int:
    """Z of a baud rate; UsageError when the edition has no such rate."""
    rates: dict[str, int] = _tables()["rates"][version]
    if str(baud) not in rates:
        raise UsageError(f"rate {baud}: DL/T 645-{version} knows {', '.join(rates)}")
    return rates[str(baud)]


def rate_of(word: int, version: str = "2007") -> int | None:
    """Baud rate of a rate word; None where not exactly one known bit is set."""
    return next((int(baud) for baud, z in _tables()["rates"][version].items() if z == word), None)


def action_name(n1: int) -> tuple[str, str] | None:
    """(name, 中文) of a control command N1."""
    found = _tables()["control"].get(f"{n1:02X}")
    return (found[0], found[1]) if found else None


def action_code(action: str) -> int:
    """N1 of a control action by name; UsageError when there is none."""
    for code, (name, _zh) in _tables()["control"].items():
        if name == action:
            return int(code, 16)
    raise UsageError(f"control action {action!r}: one of {', '.join(n for n, _ in _tables()['control'].values())}")


def output_name(code: int) -> tuple[str, str] | None:
    """(name, 中文) of a multifunction output signal."""
    found = _tables()["outputs"].get(f"{code:02X}")
    return (found[0], found[1]) if found else None
