"""One exchange module a protocol: `open_exchange` picks it by the device's profile."""

from __future__ import annotations

import functools
import importlib
from typing import Protocol

from ...model.devices import Credentials, Device
from ...model.work import Exchange, WorkItem
from ..profile import Profile


class ExchangeFactory(Protocol):
    """What each module of this folder offers under the name `open_exchange`."""

    def __call__(self, device: Device, profile: Profile, item: WorkItem, credentials: Credentials) -> Exchange: ...


def open_exchange(device: Device, profile: Profile, item: WorkItem, credentials: Credentials) -> Exchange:
    """The conversation for `item`. UsageError when the profile has no means for the item's duty."""
    return _factory(profile.protocol)(device, profile, item, credentials)


@functools.cache
def _factory(protocol: str) -> ExchangeFactory:
    factory: ExchangeFactory = importlib.import_module(f".{protocol}", __package__).open_exchange
    return factory
