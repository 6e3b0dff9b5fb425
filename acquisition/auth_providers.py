"""Who makes PW for a terminal (消息认证码): built-in ways, an entry point, or a class path named in the profile.

    auth = "cleartext"             the secret's password, hexadecimal (none or zeros: PW is zeros)
    auth = "hmac-test"             HMAC-SHA-256 with the secret's key, for tests and simulators
    auth = "NAME"                  an entry point NAME of group fuhe.qgdw1376.auth (a crypto machine's package)
    auth = "package.module:make"   the same without packaging

A maker is called as make(pw_length, credentials) and returns an AuthProvider (protocols/qgdw1376/auth.py). It is called
once for a terminal's secret; what the provider does is done for every frame, so a slow machine belongs behind a session
of its own inside the provider. The secret is named in the device list and stands in the secrets file.
"""

from __future__ import annotations

import base64
import binascii
import functools
import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Final

from ..model.devices import Credentials
from ..model.lang import tr
from ..protocols.common.errors import UsageError
from ..protocols.qgdw1376.auth import AuthProvider, HmacTest, cleartext

GROUP: Final = "fuhe.qgdw1376.auth"
Maker = Callable[[int, Credentials], AuthProvider]


def provider(name: str, pw_length: int, credentials: Credentials) -> AuthProvider:
    """The provider called `name`. UsageError: there is none, or the secret is none for it."""
    return _maker(name)(pw_length, credentials)


def _cleartext(pw_length: int, credentials: Credentials) -> AuthProvider:
    return cleartext(credentials.password if credentials.password.strip("0") else "", pw_length)


def _hmac_test(pw_length: int, credentials: Credentials) -> AuthProvider:
    try:
        return HmacTest(base64.b64decode(credentials.key, validate=True))
    except (binascii.Error, ValueError) as error:
        raise UsageError(
            tr("the secret's key is not base64: correct the secrets file", "密钥不是 base64: 请修正密钥文件")
        ) from error


_BUILT_IN: Final[dict[str, Maker]] = {"cleartext": _cleartext, "hmac-test": _hmac_test}


@functools.cache
def _maker(name: str) -> Maker:
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    found: object = None
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                tr(f"terminal.auth {name!r} cannot be loaded: {error}", f"terminal.auth {name!r} 无法加载: {error}")
            ) from error
    else:
        points = list(entry_points(group=GROUP, name=name))
        found = points[0].load() if points else None
    if not callable(found):
        known = ", ".join([*_BUILT_IN, *(p.name for p in entry_points(group=GROUP))])
        raise UsageError(
            tr(
                f"no way of authentication {name!r}: terminal.auth is one of {known}, or package.module:name",
                f"没有认证方式 {name!r}: terminal.auth 应为 {known} 或 package.module:name",
            )
        )

    def make(pw_length: int, credentials: Credentials) -> AuthProvider:
        made: AuthProvider = found(pw_length, credentials)
        return made

    return make
