"""One exchange module a protocol: `open_exchange` picks it by the device's profile."""

from __future__ import annotations

import functools
import importlib
from typing import Final, NamedTuple, Protocol

from ...model.devices import Credentials, Device
from ...model.lang import tr
from ...model.work import Exchange, WorkItem
from ...protocols.common.errors import UsageError
from ..profile import Profile
from ..terminal import TerminalSession


class ExchangeFactory(Protocol):
    """What each module of this folder offers under the name `open_exchange`."""

    def __call__(self, device: Device, profile: Profile, item: WorkItem, credentials: Credentials) -> Exchange: ...


class TerminalExchangeFactory(Protocol):
    """The same of a module whose devices have a session (see `SESSION_PROTOCOLS`).

    Its exchanges' `receive` gets one whole frame a call, and only answers (PRM = 0) of this terminal to our MSA; an
    exchange whose answers come in several frames is `Segmented`.
    """

    def __call__(
        self, device: Device, profile: Profile, item: WorkItem, credentials: Credentials, session: TerminalSession
    ) -> Exchange: ...


class RelayFactory(Protocol):
    """What such a module offers under the name `open_relayed`: any exchange, carried through the terminal."""

    def __call__(
        self, inner: Exchange, device: Device, profile: Profile, item: WorkItem, carrier: Carrier
    ) -> Exchange: ...


SESSION_PROTOCOLS: Final = frozenset({"qgdw1376"})
"""Protocols whose devices are remembered between conversations: their stations carry a `TerminalSession`."""


def open_exchange(
    device: Device,
    profile: Profile,
    item: WorkItem,
    credentials: Credentials,
    session: TerminalSession | None = None,
) -> Exchange:
    """The conversation for `item`. UsageError when the profile has no means for the item's duty."""
    if profile.protocol not in SESSION_PROTOCOLS:
        return _factory(profile.protocol)(device, profile, item, credentials)
    if session is None:
        raise UsageError(tr(f"device {device.name} has no session", f"设备 {device.name} 没有会话"))
    return _session_factory(profile.protocol)(device, profile, item, credentials, session)


class Carrier(NamedTuple):
    """The terminal through which a device is read."""

    device: Device
    profile: Profile
    credentials: Credentials
    session: TerminalSession


def open_relayed(
    device: Device, profile: Profile, item: WorkItem, credentials: Credentials, carrier: Carrier
) -> Exchange:
    """The conversation for `item` with a device behind a terminal: the device's own exchange, its bytes relayed."""
    inner = open_exchange(device, profile, item, credentials)
    opener: RelayFactory = importlib.import_module(f".{carrier.profile.protocol}", __package__).open_relayed
    return opener(inner, device, profile, item, carrier)


@functools.cache
def _factory(protocol: str) -> ExchangeFactory:
    factory: ExchangeFactory = importlib.import_module(f".{protocol}", __package__).open_exchange
    return factory


@functools.cache
def _session_factory(protocol: str) -> TerminalExchangeFactory:
    factory: TerminalExchangeFactory = importlib.import_module(f".{protocol}", __package__).open_exchange
    return factory
