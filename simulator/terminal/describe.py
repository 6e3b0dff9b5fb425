"""AFN 09: what the terminal says about itself, by the table's rows for its edition and what it has on board."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Final

from ...protocols.qgdw1376.table import table
from . import fields
from .commands import ACTIONS
from .device import Terminal
from .parameters import Unit
from .realtime import OWN, served

MAX_METERS: Final = 2040
CAPACITORS: Final = frozenset({73, 74, 75, 76})


def fn_set(numbers: Iterable[int]) -> Unit:
    """A set of Fn as AFN 09 writes it."""
    found = sorted(n for n in numbers if n <= 248)
    return {"n": (max(found, default=0) + 7) // 8, "fn": found}


def _rows(terminal: Terminal, afn: int) -> list[int]:
    """Fn of an AFN that this terminal has."""
    edition = terminal.parts.edition
    out = []
    for row in table().rows:
        if afn not in row.afn or edition not in row.editions or row.pn == "D":
            continue
        own = row.pn == "0" and (afn != 0x0C or row.name in OWN)
        if own or row.pn == "G" or (row.pn == "M" and served(row, edition)):
            out.append(row.fn)
    return out


def _version(terminal: Terminal) -> Unit:
    return {
        "vendor": "SIMU",
        "device_id": f"{zlib.crc32(terminal.name.encode()) % 10**8:08d}",
        "sw_version": terminal.options.version,
        "sw_date": "2026-01-01",
        "capacity_code": "SIMULATOR",
        "protocol_version": {"2005": "130", "2009": "09", "2013": "13"}[terminal.parts.edition],
        "hw_version": "H1.0",
        "hw_date": "2026-01-01",
    }


def _ports(terminal: Terminal) -> Unit:
    ports = sorted({fields.integer(e, "port") for e in terminal.parts.parameters.entries(10)} or {2})
    rows: list[Unit] = [
        {
            "port": port, "kind": 2 if port == 31 else 0, "nonstandard": 0, "use": 0, "max_baud": 9600, "devices": 64,
            "rx_buffer": 512, "tx_buffer": 512,
        }
        for port in ports
    ]  # fmt: skip
    return {
        "pulse_inputs": 0, "switch_inputs": 8, "dc_inputs": 0, "switch_outputs": len(terminal.parts.rounds),
        "max_meters": MAX_METERS, "rx_buffer": terminal.options.buffer, "tx_buffer": terminal.options.buffer,
        "mac": "020000000001", "n": len(rows), "ports": rows,
    }  # fmt: skip


def _capacity(terminal: Terminal) -> Unit:
    return {
        "points": MAX_METERS, "groups": 8, "tasks": 64, "difference_groups": 0, "max_tariffs": 4,
        "max_density_points": 96, "group_active_power_points": 1, "group_reactive_power_points": 1,
        "group_active_energy_points": 1, "group_reactive_energy_points": 1, "days": terminal.options.freeze_days,
        "months": terminal.options.freeze_months, "schemes": 3, "max_harmonic": 0, "capacitor_groups": 0,
        "key_users": 0, "big_classes": [0], "small_classes": [1, *[0] * 15],
    }  # fmt: skip


def _parameters(terminal: Terminal) -> Unit:
    edition = terminal.parts.edition
    return fn_set(r.fn for r in table().rows if 0x04 in r.afn and edition in r.editions and r.fn not in CAPACITORS)


def _controls(terminal: Terminal) -> Unit:
    edition = terminal.parts.edition
    return fn_set(r.fn for r in table().rows if 0x05 in r.afn and edition in r.editions and r.fn in ACTIONS)


def _classes(afn: int) -> Callable[[Terminal], Unit]:
    return lambda terminal: {"big_classes": [0], "classes": [fn_set(_rows(terminal, afn))]}


def _events(terminal: Terminal) -> Unit:
    edition = terminal.parts.edition
    return {"erc": sorted(r.erc for r in table().ercs if edition in r.editions and r.erc <= 64)}


ANSWERS: Final[dict[int, Callable[[Terminal], Unit]]] = {
    1: _version, 2: _ports, 3: _capacity, 4: _parameters, 5: _controls, 6: _classes(0x0C), 7: _classes(0x0D),
    8: _events,
}  # fmt: skip


def configuration(terminal: Terminal, fn: int) -> Unit | None:
    """AFN 09 Fn; None = no such class."""
    make = ANSWERS.get(fn)
    return make(terminal) if make is not None else None
