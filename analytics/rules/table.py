"""The rules as data: loaded once, checked whole."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Final, Literal

import msgspec

Kind = Literal["state", "day", "event", "sum", "elsewhere", "none"]
ACKNOWLEDGE_S: Final = {1: 900}  # a person has to take note of an urgent case so soon
CLOSE_S: Final = {1: 86_400, 2: 86_400, 3: 7 * 86_400, 4: 30 * 86_400}


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rule. hold, clear: slots (kind "state") or days (kind "day"); told: who is told; hidden: never customers.

    by_person: it does not clear by itself (all event rules, and severity 1).
    """

    id: str
    en: str
    zh: str
    severity: int
    told: tuple[str, ...]
    kind: Kind
    condition: str = ""
    hold: int = 1
    clear: int = 1
    says: str = ""
    why: str = ""
    events: tuple[str, ...] = ()
    hidden: bool = False
    by_person: bool = False

    @property
    def note_s(self) -> int:
        """Seconds within which a person is to take note of a case."""
        return ACKNOWLEDGE_S.get(self.severity, CLOSE_S[self.severity])

    @property
    def close_s(self) -> int:
        """Seconds within which a case is to be closed."""
        return CLOSE_S[self.severity]

    @property
    def clears_itself(self) -> bool:
        """A state that is over closes its case; events, urgent cases and sums wait for a person's finding."""
        return self.kind in ("state", "day") and self.severity > 1 and not self.by_person


@cache
def rules() -> dict[str, Rule]:
    """Every rule by its id, in the table's order."""
    text = resources.files(__package__).joinpath("rules.toml").read_text(encoding="utf-8")
    found = msgspec.convert(tomllib.loads(text)["rule"], list[Rule])
    return {rule.id: rule for rule in found}


def of_event(code: str) -> tuple[Rule, ...]:
    """The rules that an event's code feeds: ERCn exactly, a DL/T 645 record by how its code begins."""
    return tuple(
        rule
        for rule in rules().values()
        if any(code == c if c.startswith("ERC") else code.upper().startswith(c) for c in rule.events)
    )
