"""Message authentication PW (消息认证码字段) of downlink frames: who makes it and who checks it.

What goes into PW is agreed per terminal (AFN 04 F5): scheme 0 is not checked, the software and hardware schemes are the
manufacturer's or the security chip's. Here: a password in the clear, and a keyed hash for tests and simulators.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Protocol

import msgspec

from ..common.errors import UsageError

PW_BYTES = 16


class AuthProvider(Protocol):
    """Makes and checks PW. `data`: the user data before PW, from the control byte to the last data unit."""

    def pw(self, data: bytes) -> bytes:
        """PW of a frame about to be sent."""

    def verify(self, data: bytes, pw: bytes) -> bool:
        """Whether PW is right for the data."""


class Cleartext(msgspec.Struct, frozen=True):
    """A fixed password (消息认证方案 0 and most tools); zeros where nothing is agreed."""

    password: bytes = bytes(PW_BYTES)

    def pw(self, data: bytes) -> bytes:
        """The password, whatever the data."""
        return self.password

    def verify(self, data: bytes, pw: bytes) -> bool:
        """Same password."""
        return hmac.compare_digest(self.password, pw)


class HmacTest(msgspec.Struct, frozen=True):
    """First 16 bytes of HMAC-SHA-256(key, data): not a scheme of the standard, for tests and simulators."""

    key: bytes

    def pw(self, data: bytes) -> bytes:
        """Tag of the data."""
        return hmac.new(self.key, data, hashlib.sha256).digest()[:PW_BYTES]

    def verify(self, data: bytes, pw: bytes) -> bool:
        """The tag is that of the data."""
        return hmac.compare_digest(self.pw(data), pw)


def cleartext(text_hex: str, length: int = PW_BYTES) -> Cleartext:
    """A password given as hex, padded with 00 to the edition's length. UsageError: no hex, or too long."""
    try:
        password = bytes.fromhex(text_hex)
    except ValueError:
        raise UsageError("the message password is given in hexadecimal digits") from None
    if len(password) > length:
        raise UsageError(f"the message password has {len(password)} bytes, this terminal's PW field {length}")
    return Cleartext(password.ljust(length, b"\0"))
