"""The four kinds of failure of the product (and nothing else is ever raised on bad input).

Retry policy reads `retryable`, never an error text.
"""

from __future__ import annotations


class FuheError(Exception):
    """Base of the product's own errors; the text says in plain words what to do next."""

    retryable = False


class UsageError(FuheError):
    """We (or our user) asked for something that cannot be: bad argument, bad configuration, bad file."""


class PeerError(FuheError):
    """The device broke the protocol: a bad frame, a wrong address, an answer to another question."""

    retryable = True


class LinkError(FuheError):
    """The line or socket failed, or stayed silent."""

    retryable = True


class Refused(FuheError):
    """A valid "no" of the device, with its own code and that code's meaning. Final: never retried by itself."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code
