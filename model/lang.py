"""English or Chinese for everything a person reads: `tr(english, chinese)` at the place where the text is made.

The language is chosen once a process: FUHE_LANG, else LC_ALL / LC_MESSAGES / LANG, else English; `--lang` sets it.
"""

from __future__ import annotations

import os
from typing import Literal

Lang = Literal["en", "zh"]


def _from_environment() -> Lang:
    for name in ("FUHE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name, "")
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


_current: Lang = _from_environment()


def set_lang(lang: Lang) -> None:
    """Choose the language of this process."""
    global _current
    _current = lang


def lang() -> Lang:
    """The language in force."""
    return _current


def tr(en: str, zh: str) -> str:
    """The text in the language in force."""
    return zh if _current == "zh" else en
