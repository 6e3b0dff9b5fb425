"""Passwords inside parameters (F7, F10, F16): in records they are names of the secrets file, on the wire what it says.

`secret:NAME` stands in a list, in the database, in the audit and in what people sign; `expanded` and `resolved` put the
password there, `named` puts the name back. Zeros and blanks are no secret and stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .terminal_events import is_secret, plain_of

PREFIX: Final = "secret:"
_NAME: Final = re.compile(r"secret:([\w.@-]+)")
_PLAIN: Final = re.compile(r"[\w.@-]*")


def names_in(text: str) -> list[str]:
    """The secrets that a list names."""
    return list(dict.fromkeys(_NAME.findall(text)))


def expanded(text: str, password_of: Callable[[str], str]) -> str:
    """A list with every `secret:NAME` replaced. UsageError: no such secret, or one that no cell can hold."""

    def put(found: re.Match[str]) -> str:
        password = password_of(found[1])
        if _PLAIN.fullmatch(password) is None:
            raise UsageError(
                tr(f"secret {found[1]}: letters, digits, . @ - only", f"密钥 {found[1]}: 仅限字母、数字、. @ -")
            )
        return password

    return _NAME.sub(put, text)


def named(data: Mapping[str, object], name_of: Callable[[str], str | None]) -> dict[str, Any]:
    """Values of a parameter as plain JSON, every password as `secret:NAME`.

    UsageError: a password that has no name, for no record holds one.
    """

    def secret(field: str, value: object) -> object:
        text = str(value or "")
        if not text.strip("0"):
            return text
        name = name_of(text)
        if name is None:
            raise UsageError(
                tr(
                    f"{field}: this password is not in the secrets file; put it there and write {PREFIX}NAME",
                    f"{field}: 密钥文件中没有该密码; 请存入后写 {PREFIX}名称",
                )
            )
        return PREFIX + name

    def plain(value: object) -> object:
        if isinstance(value, Mapping):
            return {str(k): secret(str(k), v) if is_secret(str(k)) else plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return plain_of(value)

    return {str(k): secret(str(k), v) if is_secret(str(k)) else plain(v) for k, v in data.items()}


def resolved(values: Mapping[str, object], password_of: Callable[[str], str]) -> dict[str, object]:
    """The same values with the passwords themselves. UsageError: a name that the secrets file does not have."""

    def real(field: str, value: object) -> object:
        if isinstance(value, Mapping):
            return {str(k): real(str(k), v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [real(field, v) for v in value]
        if isinstance(value, str) and value.startswith(PREFIX) and is_secret(field):
            return password_of(value.removeprefix(PREFIX))
        return value

    return {str(k): real(str(k), v) for k, v in values.items()}
