"""Meters behind a terminal: the options `via`, `port`, `baud`, `parity` of a device list's row, and what they mean.

A row with `via=NAME` is read through the terminal NAME on the same link (AFN 10, sessions/qgdw1376_relay.py); `port` is
the terminal's port, the others say how the meter's bus speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ..model.devices import Device
from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .profile import Profile

VIA: Final = "via"
BAUDS: Final = (300, 600, 1200, 2400, 4800, 7200, 9600, 19200)
PARITIES: Final = ("N", "E", "O")
CARRIED: Final = ("dlt645",)
"""Protocols whose devices may sit behind a terminal."""
_DEFAULT_BAUD: Final = {"1997": 1200}


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal's port and how the meter on it speaks."""

    number: int
    baud: int = 2400
    parity: str = "E"
    data_bits: int = 8
    stop_bits: int = 1

    @property
    def byte_s(self) -> float:
        """Time of one byte on the meter's bus."""
        return (1 + self.data_bits + (self.parity != "N") + self.stop_bits) / self.baud


def option_faults(options: Mapping[str, str]) -> list[str]:
    """What is wrong with the options of a meter behind a terminal; empty for any other device."""
    if VIA not in options:
        return []
    found = []
    port, baud = options.get("port", ""), options.get("baud", "2400")
    if not port.isdecimal() or not 1 <= int(port) <= 31:
        found.append(tr("port: give the terminal's port, 1 to 31", "port: 请填写终端端口号 1 至 31"))
    if not baud.isdecimal() or int(baud) not in BAUDS:
        names = ", ".join(map(str, BAUDS))
        found.append(tr(f"baud: one of {names}", f"baud: 应为 {names} 之一"))
    if options.get("parity", "E") not in PARITIES:
        found.append(tr("parity: N, E or O", "parity: 应为 N、E 或 O"))
    return found


def port_of(device: Device, profile: Profile) -> Port:
    """The port behind which a meter sits. UsageError: its options do not say so."""
    faults = option_faults(device.options)
    if faults:
        raise UsageError(f"{device.name}: {'; '.join(faults)}")
    said = device.options
    return Port(
        number=int(said["port"]),
        baud=int(said.get("baud") or _DEFAULT_BAUD.get(profile.version, 2400)),
        parity=said.get("parity", "E"),
    )
