"""A terminal with everything that speaks for it, from what is wired to it: used by scenarios and by tests."""

from __future__ import annotations

from collections.abc import Mapping

from ...protocols.qgdw1376.auth import AuthProvider
from ...protocols.qgdw1376.edition import edition as edition_of
from ...protocols.qgdw1376.frame import Address
from ..dlt645 import DltLine, DltSlave
from ..meter import SimMeter
from .application import Application
from .authentication import Gate
from .device import Terminal
from .factory import METER_PORT
from .link import Link
from .relay import MeterPorts
from .reports import Reporter
from .station import Station


def assemble(
    terminal: Terminal,
    address: Address,
    *,
    auth: AuthProvider | None = None,
    dials: bool = False,
    any_single: bool = False,
    td_s: float = 0.05,
    heartbeat_s: float | None = None,
    redial_s: float | None = None,
    versions: Mapping[int, str] | None = None,
) -> Station:
    """auth None: nobody is checked. dials: it logs in on its own connection. versions: DL/T 645 edition by point."""
    peer = edition_of(terminal.parts.edition)
    line = DltLine([_slave(meter, (versions or {}).get(pn, "2007")) for pn, meter in terminal.meters.items()])
    application = Application(
        terminal=terminal, address=address, edition=peer, gate=Gate(auth), ports=MeterPorts({METER_PORT: line}),
        any_single=any_single,
    )  # fmt: skip
    reporter = Reporter(terminal=terminal, address=address, edition=peer, read=application.read_units)
    link = None
    if dials:
        link = Link(
            terminal=terminal, reporter=reporter, clock_in_heartbeat=peer.heartbeat_clock, heartbeat_s=heartbeat_s,
            redial_s=redial_s,
        )  # fmt: skip
    return Station(application=application, reporter=reporter, link=link, td_s=td_s)


def _slave(meter: SimMeter, version: str) -> DltSlave:
    return DltSlave(meter, version=version, td_s=0.05)
