"""Editions of the protocol (130-2005, 376.1-2009, 1376.1-2013) and what a single device does differently."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final

import msgspec

from ..common.errors import UsageError

NAMES: Final = ("2005", "2009", "2013")
DEFAULT: Final = "2013"
_ALIASES: Final = {
    "130": "2005", "130-2005": "2005", "376.1": "2009", "376.1-2009": "2009", "1376.1": "2013", "1376.1-2013": "2013",
}  # fmt: skip


class Edition(msgspec.Struct, frozen=True, kw_only=True):
    """How a peer speaks. name: whose rows of the tables apply ("2005", "2009", "2013"); pw_length: bytes of PW.

    pw_afn: AFNs whose requests carry PW; pw_guess: the length is a default that frames may contradict;
    heartbeat_clock: heartbeats carry the clock.
    """

    name: str
    title: str
    protocol_id: int
    pw_length: int
    pw_afn: frozenset[int]
    heartbeat_clock: bool
    pw_guess: bool = False


class _Raw(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    protocol_id: int
    pw_length: int
    pw_afn: list[str]
    heartbeat_clock: bool


@cache
def editions() -> dict[str, Edition]:
    """The editions by name."""
    text = resources.files(__package__).joinpath("editions.toml").read_text(encoding="utf-8")
    raw = msgspec.convert(tomllib.loads(text), type=dict[str, _Raw])
    return {
        name: Edition(
            name=name,
            title=one.title,
            protocol_id=one.protocol_id,
            pw_length=one.pw_length,
            pw_afn=frozenset(int(a, 16) for a in one.pw_afn),
            heartbeat_clock=one.heartbeat_clock,
        )
        for name, one in raw.items()
    }


def edition_name(name: str) -> str:
    """2005, 2009 or 2013 of a name in use (130-2005, 376.1, ...). UsageError: no such edition."""
    text = name.strip().upper().removeprefix("Q/GDW").strip()
    found = _ALIASES.get(text, text)
    if found not in NAMES:
        raise UsageError(f"edition {name!r} is unknown: choose 2005 (130-2005), 2009 (376.1) or 2013 (1376.1)")
    return found


def edition(name: str | None = None, **overrides: object) -> Edition:
    """An edition (default 2013) with single values replaced, e.g. pw_length=2; without both, PW is guessed.

    UsageError: unknown edition or override, or a value of a wrong type.
    """
    base = editions()[edition_name(name) if name else DEFAULT]
    wrong = set(overrides) - set(Edition.__struct_fields__)
    if wrong:
        raise UsageError(f"unknown edition value {', '.join(sorted(wrong))}")
    values = {**msgspec.structs.asdict(base), **overrides}
    if "pw_guess" not in overrides:
        values["pw_guess"] = name is None and "pw_length" not in overrides
    try:
        made = msgspec.convert(values, type=Edition)
    except msgspec.ValidationError as error:
        raise UsageError(f"edition {base.name}: {error}") from None
    if not 0 <= made.pw_length <= 16 or made.protocol_id not in (1, 2):
        raise UsageError("pw_length is 0 to 16 bytes, protocol_id 1 or 2")
    return made


def of_profile(profile: Mapping[str, object] | None, version: str | None = None) -> Edition:
    """The edition a profile describes: {"numbering": "130-2005", "pw_len": 2}, or any field of Edition.

    `version` names the edition where the profile does not. Unless the length of PW is told, it is only a guess.
    """
    values = dict(profile or {})
    if "pw_len" in values:
        values["pw_length"] = values.pop("pw_len")
    named = values.pop("numbering", None) or values.pop("edition", None) or version
    pw_afn = values.get("pw_afn")
    if isinstance(pw_afn, (list, tuple)):
        values["pw_afn"] = frozenset(int(str(a), 16) for a in pw_afn)
    if "pw_length" not in values:
        values.setdefault("pw_guess", True)
    return edition(str(named) if named else None, **values)
